#!/bin/sh
# tests/programs/soft.sh - soft prompts from outside: what `run` computes with folders that peft wrote, sft and ppo with
# --prompt-tokens in families of policies (alone, beside LoRA, on 4 bits, with layers computed again), the folders that they
# write, going on from them, and what is refused. BIN, RUN and the last line as in run.sh.
cd "$(dirname "$0")/../.." || exit 1
ppo="${RUN:-} ${BIN:-.}/ppo" sft="${RUN:-} ${BIN:-.}/sft" prep="${RUN:-} ${BIN:-.}/prep" run="${RUN:-} ${BIN:-.}/run"
shapes="${RUN:-} build/tests/shapes" golden=tests/golden/hf
work=$(mktemp -d "${TMPDIR:-/tmp}/soft_test.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0
ok() { passed=$((passed + 1)); [ -z "$VERBOSE" ] || echo "  ok    $1"; }
bad() { failed=$((failed + 1)); echo "  FAIL  $1"; sed 's/^/        /' "$work/err" | head -n 3; }
is() { if [ $? = 0 ]; then ok "$1"; else bad "$1"; fi; }
finish() { echo "soft: $passed passed, $failed failed, $skipped skipped"; [ $failed = 0 ]; exit; }
# refused NAME CODE TEXT COMMAND ...: the command exits with this code, and its message has the text
refused() {
    name=$1 want=$2 text=$3; shift 3
    "$@" > "$work/out" 2> "$work/err" < /dev/null
    code=$?
    [ $code = "$want" ] && grep -q -- "$text" "$work/err" && grep -q '^  try: ' "$work/err"
    is "$name"
}
# numbers NAME: the list of this name in lines of JSON, a number on each line
numbers() { sed "s/.*\"$1\": \[\([^]]*\)\].*/\1/" | tr -d ' ' | tr ',' '\n'; }
# near FILE FILE: both have as many numbers, and no two differ by more than 2e-5
near() {
    [ -s "$1" ] && paste "$1" "$2" | awk 'NF != 2 || $1 - $2 > 2e-5 || $2 - $1 > 2e-5 { bad = 1 } END { exit bad }'
}
# tensor FILE NAME FORMAT: prints a tensor of a safetensors file (see run.sh)
tensor() {
    header=$(od -A n -t u4 -N 4 "$1" | tr -d ' ')
    place=$(dd if="$1" bs=1 skip=8 count="$header" 2>/dev/null | tr '}' '\n' | grep -F "\"$2\":" |
        sed 's/.*"data_offsets":\[\([0-9]*\),\([0-9]*\)\].*/\1 \2/')
    from=${place% *} to=${place#* }
    od -A n -v -t "$3" -j $((8 + header + from)) -N $((to - from)) "$1" | tr -s ' ' '\n' | grep .
}

# ---- folders that peft wrote ----
for a in llama gpt2; do
    file=$golden/adapters/$a-prompt/golden.safetensors
    tensor "$file" ids d4 > "$work/ids"
    tensor "$file" logprobs f4 > "$work/want"
    tensor "$file" seq_lens d4 | awk -v ids="$work/ids" '{ s = ""; for (i = 0; i < $1; i++) { getline id < ids; s = s id " " } print s }' \
        > "$work/lines"
    $run logprobs $golden/models/$a "$work/lines" --ids --adapter $golden/adapters/$a-prompt > "$work/out" 2> "$work/err"
    numbers logprobs < "$work/out" > "$work/got"
    near "$work/got" "$work/want"
    is "$a: log-probs after a soft prompt of peft's are peft's"
    for batch in 0 1; do
        $run generate $golden/models/$a "$work/lines" --ids -n 4 --ignore-eos --batch $batch --adapter $golden/adapters/$a-prompt \
            > "$work/batch$batch" 2> "$work/err"
    done
    [ -s "$work/batch0" ] && cmp -s "$work/batch0" "$work/batch1"
    is "$a: texts are the same in batches and alone"
    # the most probable token, again and again: by the cache, and by reading the whole text anew
    head -n 1 "$work/lines" | cut -d ' ' -f 1-3 > "$work/text"
    $run generate $golden/models/$a "$work/text" --ids --greedy -n 6 --ignore-eos --adapter $golden/adapters/$a-prompt \
        > "$work/six" 2> "$work/err"
    cp "$work/text" "$work/grown"
    for n in 1 2 3 4 5 6; do
        $run generate $golden/models/$a "$work/grown" --ids --greedy -n 1 --ignore-eos --adapter $golden/adapters/$a-prompt \
            > "$work/next" 2> "$work/err"
        mv "$work/next" "$work/grown"
    done
    [ "$(wc -w < "$work/six")" = 9 ] && cmp -s "$work/six" "$work/grown"
    is "$a: greedy tokens with the cache are those without it"
done
refused "run merge names a soft prompt" 1 'a soft prompt cannot be merged' $run merge $golden/models/llama \
    --adapter $golden/adapters/llama-prompt --out "$work/merged"
[ ! -e "$work/merged" ]
is "and writes nothing"
cp -r $golden/adapters/llama-prompt "$work/own" && chmod -R u+w "$work/own"
sed 's/"base_model_name_or_path": [^,]*/"base_model_name_or_path": "llama"/' $golden/adapters/llama-prompt/adapter_config.json \
    > "$work/own/adapter_config.json" && cp -r $golden/models/llama "$work/own/llama"
for base in "$work/own" $golden/adapters/llama-prompt; do
    refused "a soft prompt as the model that sft trains" 1 'this is an adapter' $sft data/imdb.bin --policy $base --out "$work/no"
    grep -q 'try: the model that it was made for: a soft prompt cannot be merged' "$work/err" && ! grep -q 'run merge' "$work/err"
    is "... is not to be merged"
done
printf '{"peft_type":' > "$work/own/adapter_config.json"
refused "an adapter whose configuration is damaged" 1 'own/adapter_config.json' $sft data/imdb.bin --policy "$work/own" --out "$work/no"
grep -q 'try: copy or make this file again' "$work/err"; is "... names the file"
refused "a soft prompt of another width" 1 \
    'the soft prompt is for a model of another width: .*adapters/llama-prompt (24 instead of 64)' \
    $run logprobs tests/golden/models/llama-gqa --ids --adapter $golden/adapters/llama-prompt
mkdir "$work/prefix"
sed 's/PROMPT_TUNING/PREFIX_TUNING/' $golden/adapters/llama-prompt/adapter_config.json > "$work/prefix/adapter_config.json"
refused "another kind of peft's prompts is named" 1 'PREFIX_TUNING' $run logprobs $golden/models/llama --ids --adapter "$work/prefix"
mkdir "$work/judge"
sed 's/CAUSAL_LM/SEQ_CLS/' $golden/adapters/llama-prompt/adapter_config.json > "$work/judge/adapter_config.json"
refused "a judge's soft prompt is named" 1 'a soft prompt of a judge' $run score $golden/models/llama --adapter "$work/judge"

[ -f data/policy/config.json ] && [ -f data/imdb.bin ] || { skipped=1; echo "  skip  no data"; finish; }

# ---- sft and ppo, in three families ----
vocab() { sed -n 's/.*"vocab_size": \([0-9]*\).*/\1/p' "$1/config.json"; }
i=0
while [ $i -lt 40 ]; do
    i=$((i + 1))
    echo "{\"prompt\": \"Number $i\", \"response\": \"The film was good, and number $((i * 7 % 10)) was better.\"}"
done > "$work/pairs.jsonl"
$prep data "$work/pairs.jsonl" --prompt prompt --response response --out "$work/pairs.bin" > "$work/out" 2> "$work/err"
is "a dataset is made"
echo 'The film was good' > "$work/text"
for p in llama gpt2 t5; do
    $shapes --policy "$work/$p" --family $p --dtype f32 --dim 32 --layers 2 --heads 4 --ffn 48 --positions 128 \
        --vocab "$(vocab data/policy)" --tokenizer data/policy > "$work/err" 2>&1
    is "a policy of the family $p is made"
    case $p in t5) printf 'A title\tThe film was good\n' ;; *) echo 'The film was good' ;; esac > "$work/text"
    case $p in t5) task=SEQ_2_SEQ_LM module=q,v ;; gpt2) task=CAUSAL_LM module=c_attn ;; *) task=CAUSAL_LM module=q_proj,v_proj ;; esac
    $sft "$work/pairs.bin" --policy "$work/$p" --out "$work/$p-sft" --prompt-tokens 3 --steps 3 --context 64 > "$work/out" 2> "$work/err" &&
        grep -q 'training a soft prompt of 3 rows' "$work/out" && grep -q '^trainable params: 96 ' "$work/out"
    is "$p: sft trains 3 rows of 32 numbers and nothing else"
    for want in '"peft_type": "PROMPT_TUNING"' '"num_virtual_tokens": 3' '"token_dim": 32' '"num_layers": 2' \
        '"num_attention_heads": 4' '"num_transformer_submodules": 1' '"prompt_tuning_init": "SAMPLE_VOCAB"' "\"task_type\": \"$task\""; do
        grep -qF "$want" "$work/$p-sft/adapter_config.json"
        is "$p: adapter_config.json has $want"
    done
    [ "$(tensor "$work/$p-sft/adapter_model.safetensors" prompt_embeddings f4 | wc -l)" -eq 96 ]
    is "$p: adapter_model.safetensors has prompt_embeddings"
    $run logprobs "$work/$p" "$work/text" --adapter "$work/$p-sft" > "$work/with" 2> "$work/err" &&
        $run logprobs "$work/$p" "$work/text" > "$work/without" 2> "$work/err" && ! cmp -s "$work/with" "$work/without"
    is "$p: run reads the folder, and the soft prompt changes the log-probs"
    for batch in 1 3; do
        printf 'The film\nA\nIt was good\nWe\n' > "$work/prompts"
        $run generate "$work/$p" "$work/prompts" -n 5 --ignore-eos --batch $batch --adapter "$work/$p-sft" > "$work/batch$batch" 2> "$work/err"
    done
    [ "$(grep -c '"text"' "$work/batch1")" = 4 ] && cmp -s "$work/batch1" "$work/batch3"
    is "$p: run generate, in batches and alone"
    # steps NAME OPTIONS ...: two steps of ppo in $work/NAME; both first ratios have to be exactly 1
    steps() {
        name=$1; shift
        $ppo data/imdb.bin --policy "$work/$p" --reward-text good --steps 2 --batch-size 8 --mini-batch-size 4 --eval-queries 4 \
            --learning-rate 1e-2 --out "$work/runs" "$@" > "$work/out" 2> "$work/err" < /dev/null &&
            rm -rf "${work:?}/$name" && mv "$work"/runs/ppo-000? "$work/$name" && rm -rf "$work/runs" &&
            [ "$(grep -c '"ppo/policy/first_ratio_max_deviation": 0,' "$work/$name/log.jsonl")" = 2 ]
        is "$p $*: two steps, both first ratios exactly 1"
    }
    same_log() { sed 1d "$work/$1/log.jsonl" > "$work/a" && sed 1d "$work/$2/log.jsonl" | cmp -s - "$work/a"; }
    OMP_NUM_THREADS=1; export OMP_NUM_THREADS
    steps one --prompt-tokens 5
    OMP_NUM_THREADS=2
    steps two --prompt-tokens 5
    same_log one two; is "$p: 1 and 2 threads give the same log"
    steps again --prompt-tokens 5 --recompute
    same_log one again; is "$p: layers computed again give the same log"
    steps chunks --prompt-tokens 5 --chunk 3
    same_log one chunks; is "$p: texts in smaller chunks give the same log"
    steps full --prompt-tokens 5 --kl-penalty full
    steps four --prompt-tokens 5 --nf4 --compute bf16
    [ ! -e "$work/four/prompt" ]; is "$p: 4 bits with a soft prompt train no LoRA adapter"
    steps both --prompt-tokens 5 --lora-r 2
    grep -q '"LORA"' "$work/both/adapter_config.json" && grep -q '"PROMPT_TUNING"' "$work/both/prompt/adapter_config.json" &&
        [ -s "$work/both/prompt/adapter_model.safetensors" ] && grep -q 'LoRA adapter (r 2, alpha 16, '"$module"') and a soft prompt of 5 rows' "$work/out"
    is "$p: beside LoRA, the soft prompt is in a folder of its own"
    for f in both both/prompt; do $run logprobs "$work/$p" "$work/text" --adapter "$work/$f" 2> "$work/err"; done | sort -u | wc -l |
        grep -q '^ *2$'
    is "$p: the folder opens, and so does the soft prompt alone"
    steps more --adapter "$work/one"
    sed -n 2p "$work/more/log.jsonl" | grep -q '"eval/kl": 0,'
    is "$p: --adapter goes on from a soft prompt, and the reference has it, too"
    steps more --adapter "$work/both"
    sed -n 2p "$work/more/log.jsonl" | grep -q '"eval/kl": 0,'
    is "$p: --adapter goes on from LoRA and a soft prompt"
    # peft's files for models with an encoder have twice as many rows: those of the decoder are not used
    [ $p = t5 ] || continue
    cp -r "$work/one" "$work/twice"
    sed 's/"num_transformer_submodules": 1/"num_transformer_submodules": null/' "$work/one/adapter_config.json" > "$work/twice/adapter_config.json"
    head='{"__metadata__":{"format":"pt"},"prompt_embeddings":{"dtype":"F32","shape":[10,32],"data_offsets":[0,1280]}}'
    { printf "$(printf '\\%03o\\0\\0\\0\\0\\0\\0\\0' ${#head})%s" "$head"; for n in 1 2; do tail -c 640 "$work/one/adapter_model.safetensors"; done; } \
        > "$work/twice/adapter_model.safetensors"
    $run logprobs "$work/$p" "$work/text" --adapter "$work/twice" > "$work/a" 2> "$work/err" &&
        $run logprobs "$work/$p" "$work/text" --adapter "$work/one" 2>&1 | cmp -s - "$work/a"
    is "t5: of peft's rows for two submodules the encoder's are used"
done

# ---- where a soft prompt begins ----
echo 'The film was good' > "$work/text"
p=llama
steps told --prompt-tokens 4 --prompt-init-text "Not bad" --learning-rate 1e-12
grep -qF '"prompt_tuning_init": "TEXT"' "$work/told/adapter_config.json" && grep -qF '"prompt_tuning_init_text": "Not bad"' "$work/told/adapter_config.json" &&
    grep -qF "\"tokenizer_name_or_path\": \"$work/llama\"" "$work/told/adapter_config.json"
is "adapter_config.json has the text and the tokenizer"
ids=$($run tokenize data/policy "$work/text" --special 2> "$work/err")
first=$(echo "Not bad" | $run tokenize data/policy --special 2> "$work/err")
four=$(echo "$first $first $first $first" | cut -d ' ' -f 1-4)
echo "$ids" > "$work/ids"
echo "$four $ids" > "$work/both_ids"
$run logprobs "$work/llama" "$work/ids" --ids --adapter "$work/told" 2> "$work/err" | numbers logprobs > "$work/got"
$run logprobs "$work/llama" "$work/both_ids" --ids 2> "$work/err" | numbers logprobs | sed 1,4d > "$work/want"
near "$work/got" "$work/want"
is "--prompt-init-text: the soft prompt begins as the text's tokens, with <s>, cut or repeated to the number of rows"
steps normal --prompt-tokens 40 --prompt-init normal --learning-rate 1e-12
tensor "$work/normal/adapter_model.safetensors" prompt_embeddings f4 | awk '{ n++; s += $1; q += $1 * $1 } END { exit !(n == 1280 && q / n > 0.8 && q / n < 1.2 && s / n < 0.1 && s / n > -0.1) }'
is "--prompt-init normal: deviation 1"
grep -qF '"prompt_tuning_init": "RANDOM"' "$work/normal/adapter_config.json"; is "which peft calls RANDOM"

# ---- memory, positions, stopping ----
$ppo data/imdb.bin --prompt-tokens 20 --dry-run > "$work/out" 2> "$work/err" && grep -q 'soft prompt and gradients' "$work/out"
is "the bill has the soft prompt"
keys() { sed -n 's/^ *keys and values *//p' "$work/out"; }
$ppo data/imdb.bin --lora-r 1 --dry-run > "$work/out" 2> "$work/err"; a=$(keys)
$ppo data/imdb.bin --prompt-tokens 80 --dry-run > "$work/out" 2> "$work/err"; b=$(keys)
[ -n "$a" ] && [ -n "$b" ] && awk -v a="$a" -v b="$b" 'BEGIN { exit !(b / a > 2.5 && b / a < 3.5) }'
is "keys and values have room for 80 rows more ($a, $b)"
refused "ppo counts the rows among the positions" 1 'soft prompt, query and response are longer' $ppo data/imdb.bin --prompt-tokens 250
# advice TEXT ARGUMENTS ...: ppo with a policy that has an encoder says exactly what helps
advice() {
    helps=$1; shift
    refused "an encoder's positions: $1 $2" 1 "longer than the policy's positions" \
        $ppo "$work/pairs.bin" --policy "$work/t5" --reward-text e --prompt-tokens 5 "$@"
    grep -q "^  try: a smaller $helps\$" "$work/err"; is "... $helps"
}
advice "--query-max or --prompt-tokens" --query-max 126 --response-max 9
advice "--response-max" --response-max 600 --query-max 9
refused "sft counts the rows among the positions" 1 'and --prompt-tokens are more than the' $sft data/imdb.bin --policy data/policy \
    --context 200 --prompt-tokens 100 --out "$work/none"
refused "run counts the rows among the positions" 1 'that the soft prompt leaves' $run logprobs "$work/llama" "$work/text" \
    --adapter "$work/one" --context 125
refused "no rows for an adapter that has its own" 2 '--prompt-tokens' $ppo data/imdb.bin --adapter "$work/one" --prompt-tokens 4
refused "no text without rows" 2 '--prompt-init-text' $ppo data/imdb.bin --prompt-init-text good
refused "no soft prompt from scratch" 2 '--prompt-tokens' $sft data/imdb.bin --tokenizer data/policy --prompt-tokens 4 --out "$work/none"
$run eval data/imdb.bin "$work/llama" "$work/one" --reward data/reward --label positive --queries 3 -n 4 > "$work/out" 2> "$work/err"
is "run eval compares a policy with one that has a soft prompt"
printf 'q\n' | $run label data/imdb.bin --policy "$work/llama" --adapter "$work/one" --out "$work/labels.jsonl" > "$work/out" 2> "$work/err"
is "run label has room for the rows"
tiny="--policy $work/llama --reward-text good --steps 3 --batch-size 8 --mini-batch-size 4 --eval-queries 4 --prompt-tokens 4 --learning-rate 1e-2"
$ppo data/imdb.bin $tiny --out "$work/whole" > "$work/out" 2> "$work/err" &&
    $ppo data/imdb.bin $tiny --out "$work/parts" --max-minutes 1e-9 > "$work/out" 2> "$work/err" &&
    $ppo --resume "$work/parts/ppo-0001" > "$work/out" 2> "$work/err" &&
    cmp "$work/whole/ppo-0001/adapter_model.safetensors" "$work/parts/ppo-0001/adapter_model.safetensors" > "$work/err"
is "a run that was stopped ends with the same soft prompt"
finish
