#!/bin/sh
# tests/programs/opening.sh - folders as people bring them: a tied head that is not tied, an adapter given as
# a model, TRL's value head among the weights, a base without a classifier, files that are something else.
# Each is used as it is meant, or named with advice. Last line: `opening: N passed, N failed, N skipped`.
cd "$(dirname "$0")/../.." || exit 1
home=$(pwd)
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0
for p in prep rm sft ppo run data; do ln -s "$home/$p" "$work/$p"; done
cd "$work" || exit 1

ok()  { passed=$((passed + 1)); [ -z "$VERBOSE" ] || echo "  ok    $1"; }
bad() { failed=$((failed + 1)); echo "  FAIL  $1"; tail -n 5 said.txt errors.txt 2>/dev/null |
    sed 's/^/        /'; }
# exits CODE WHAT COMMAND ...: output in said.txt, errors in errors.txt
exits() {
    wanted=$1 what=$2; shift 2
    $RUN "$@" > said.txt 2> errors.txt < /dev/null
    code=$?
    if [ $code = "$wanted" ]; then ok "$what"; else bad "$what: exit $code, wanted $wanted: $*"; fi
}
# says FILE TEXT: the last command's said.txt or errors.txt has the text
says() { if grep -q -- "$2" "$1"; then ok "$what: '$2'"; else bad "$what: no '$2' in $1"; fi; }
# same FILE: said.txt equals FILE
same() { if [ -s "$1" ] && cmp -s said.txt "$1"; then ok "$what: the same"; else bad "$what: another"; fi; }
# names FILE: the names of the tensors in a safetensors file
names() {
    head -c 20000 "$1" | tr '{' '\n' |
        sed -n -e 's/.*"\([a-zA-Z_.0-9]*\.weight\)":$/\1/p' -e 's/.*"\([a-zA-Z_.0-9]*\.bias\)":$/\1/p'
}
# map SHARD: turns names into lines of an index's weight_map
map() { sed "s/.*/\"&\": \"$1\",/"; }

for i in 1 2 3 4 5 6 7 8; do
    echo "{\"text\": \"The film number $i was wonderful, and its cast was warm and funny.\", \"label\": 1}"
    echo "{\"text\": \"The film number $i was dreadful, and its cast was cold and boring.\", \"label\": 0}"
done > reviews.jsonl
exits 0 "prep" ./prep data reviews.jsonl --out reviews.bin --labels negative,positive
echo "The film was warm." > text
exits 0 "a policy" ./sft reviews.bin --tokenizer data/policy --dim 32 --layers 1 --heads 4 --positions 64 \
    --context 64 --steps 3 --out policy
exits 0 "its log-probs" ./run logprobs policy text
mv said.txt expected

# ---- config.json ties a head that the weights have with other values: it is kept ----
cp -r policy untied
sed 's/"tie_word_embeddings": false/"tie_word_embeddings": true/' policy/config.json > untied/config.json
exits 0 "a tie that does not hold" ./run logprobs untied text
same expected
says errors.txt "config.json ties the head to the embedding"

# ---- an adapter given as a model ----
exits 0 "an adapter" ./sft reviews.bin --policy policy --lora-r 4 --lora-targets q_proj,v_proj --context 64 \
    --steps 2 --lr 1e-1 --out adapter
exits 0 "on its base" ./run logprobs policy text --adapter adapter
if cmp -s said.txt expected; then bad "the adapter does nothing"; else ok "the adapter changes log-probs"; fi
mv said.txt adapted
exits 0 "as a model" ./run logprobs adapter text
same adapted
says errors.txt "adapter is an adapter; the model that it adapts: policy"
sed 's/"base_model_name_or_path": "policy"/"base_model_name_or_path": "..\/policy"/' \
    adapter/adapter_config.json > config && mv config adapter/adapter_config.json
exits 0 "its base beside it" ./run logprobs adapter text
same adapted
exits 1 "sft from an adapter" ./sft reviews.bin --policy adapter --steps 1 --context 64 --out x
says errors.txt "this is an adapter, not a model"
says errors.txt "try: ./run merge BASE --adapter ADAPTER"
exits 1 "a judge's scores from a policy's adapter" ./run score adapter text
says errors.txt "not a judge's adapter: task_type: CAUSAL_LM"
says errors.txt "try: a judge's adapter, of task_type SEQ_CLS"
exits 1 "a policy's adapter as ppo's judge" ./ppo reviews.bin --policy policy --reward adapter --dry-run
says errors.txt "not a judge's adapter: task_type: CAUSAL_LM"
exits 1 "an adapter as rm's judge" ./rm reviews.bin --reward adapter --out x
says errors.txt "this is an adapter, not a model"
says errors.txt "try: ./run merge BASE --adapter ADAPTER"
cp -r adapter elsewhere
sed 's/"q_proj", *"v_proj"/"c_attn"/' adapter/adapter_config.json > elsewhere/adapter_config.json
exits 1 "an adapter of another model's linears" ./run logprobs policy text --adapter elsewhere
says errors.txt "no LoRA target matches a module of the model: c_attn"
says errors.txt "try: the model that the adapter was trained on"
rm -r elsewhere
exits 0 "a whole model as --adapter" ./run logprobs data/policy text --adapter policy
same expected
says errors.txt "policy is a whole model, not an adapter: its weights are used, not those of data/policy"
exits 0 "merging one" ./run merge adapter --out merged
few="--reward-text warm --query-min 2 --query-max 4 --response-min 4 --response-max 4 --batch-size 8 \
    --mini-batch-size 8 --steps 1 --eval-queries 0"
exits 0 "ppo from an adapter" ./ppo reviews.bin --policy adapter $few --out runs
says said.txt "a frozen copy of the adapter it starts from"
mv policy elsewhere
exits 1 "its base is not there" ./run logprobs adapter text
says errors.txt "the model that it adapts is not here: '../policy'"
says errors.txt "try: BASE --adapter ADAPTER"
mv elsewhere policy

# ---- TRL's value head among a policy's weights ----
mkdir trl
cp policy/* trl
mv trl/model.safetensors trl/part-1.safetensors
cp runs/ppo-0001/value_head.safetensors trl/part-2.safetensors
{ echo '{"weight_map": {'; names trl/part-1.safetensors | map part-1.safetensors
  names trl/part-2.safetensors | map part-2.safetensors | sed '$s/,$//'; echo '}}'
} > trl/model.safetensors.index.json
exits 0 "a policy with a value head" ./run logprobs trl text
same expected
says errors.txt "the weights have a value head (v_head), which only ppo uses"
exits 0 "ppo with it" ./ppo reviews.bin --policy trl $few --out runs2
says said.txt "value head from trl"

# ---- an encoder without a classifier, as the published bases are ----
mkdir base
cp data/reward/* base
mv base/model.safetensors base/part.safetensors
sed 's/RobertaForSequenceClassification/RobertaForMaskedLM/' data/reward/config.json > base/config.json
{ echo '{"weight_map": {'; names base/part.safetensors | grep -v '^classifier' | map part.safetensors |
    sed '$s/,$//'; echo '}}'; } > base/model.safetensors.index.json
exits 1 "an encoder is no judge" ./run score base text
says errors.txt "tensor classifier.dense.weight is missing, and 3 more"
says errors.txt "try: .*--new-head"
exits 0 "but rm makes one" ./rm reviews.bin --reward base --new-head --steps 1 --out judge
exits 0 "which scores" ./run score judge text
exits 0 "and one of a policy, whose head is left out" ./rm reviews.bin --reward policy --new-head \
    --tokenizer data/reward --steps 1 --out judge2

# ---- files that are something else ----
cp -r policy lfs
echo "version https://git-lfs.github.com/spec/v1" > lfs/model.safetensors
exits 1 "a pointer" ./run generate lfs --prompt film -n 1
says errors.txt "a pointer of Git LFS, not the file itself: lfs/model.safetensors"
says errors.txt "try: .*git lfs pull"
exits 1 "a pointer, ppo" ./ppo reviews.bin --policy lfs --steps 1
says errors.txt "try: .*git lfs pull"

echo "opening: $passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
