#!/bin/sh
# tests/programs/numbers.sh - NaN and infinity: wherever a number of ppo, sft or rm turns into one, the run stops, says where
# and in which step, and keeps the last good weights. Exit code 1 before the first update and for a damaged input, else 3.
# (Gradients of sft and rm: unit/cli.c; the scales of 4-bit files: unit/checkpoint.c.) BIN, RUN and the last line as in run.sh.
cd "$(dirname "$0")/../.." || exit 1
root=$(pwd)
case "${BIN:-.}" in /*) bin=$BIN ;; *) bin=$root/${BIN:-.} ;; esac
ppo="${RUN:-} $bin/ppo" sft="${RUN:-} $bin/sft" rm="${RUN:-} $bin/rm" prep="${RUN:-} $bin/prep"
work=$(mktemp -d "${TMPDIR:-/tmp}/numbers_test.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0
ok() { passed=$((passed + 1)); [ -z "$VERBOSE" ] || echo "  ok    $1"; }
bad() { failed=$((failed + 1)); echo "  FAIL  $1"; }
is() { if [ $? = 0 ]; then ok "$1"; else bad "$1"; fi; }
finish() { echo "numbers: $passed passed, $failed failed, $skipped skipped"; [ $failed = 0 ]; exit; }
[ -f data/grammar.txt ] && [ -f data/reward/config.json ] || { skipped=1; echo "  skip  no data"; finish; }
OMP_NUM_THREADS=1
export OMP_NUM_THREADS
cd "$work" || exit 1

# damage FOLDER FILE TENSOR BYTES [COUNT [FIRST]]: copies the folder to `hurt`, and writes BYTES (as printf has them) COUNT times
# (1) over a tensor of its FILE, from byte FIRST on
damage() {
    rm -rf hurt; cp -r "$1" hurt; chmod -R u+w hurt
    header=$(od -A n -t u4 -N 4 "hurt/$2" | tr -d ' ')
    from=$(dd if="hurt/$2" bs=1 skip=8 count="$header" 2> err | tr '}' '\n' |
        sed -n "s/.*\"$3\":{.*\"data_offsets\":\[\([0-9]*\),.*/\1/p")
    [ -n "$from" ] || bad "no tensor $3 in $1/$2"
    for i in $(seq 1 "${5:-1}"); do printf "$4"; done |
        dd of="hurt/$2" bs=1 seek=$((8 + header + from + ${6:-0})) conv=notrunc 2> err
}
nan='\377\377\377\377' infinity='\000\000\200\177' huge='\377\377\177\177'
# stops CODE TEXT ADVICE COMMAND ...: with this exit code, message and advice
stops() {
    want=$1 says=$2 advice=$3; shift 3
    rm -rf out
    "$@" > said 2> err < /dev/null
    code=$?
    if [ $code = "$want" ] && grep -q -- "$says" err && grep -q -- "^  try: .*$advice" err; then ok "$says"
    else bad "$says: exit $code, wanted $want: $(tail -n 2 err | tr '\n' ' ')"; fi
}
# is_saved STEP FOLDER: the weights in out are those of the folder, and the message says that they are those after STEP
is_saved() {
    grep -q "; the weights saved are those after step $1: " err && cmp -s out/*1/model.safetensors "$2/model.safetensors"
    is "the weights after step $1 are saved"
}

$prep grammar "$root/data/grammar.txt" --out few.bin --count 60 --seed 2 > said && $prep tokenizer few.bin --kind bytelevel \
    --vocab 400 --out words > said && $sft few.bin --tokenizer words --layers 1 --heads 2 --dim 16 --seed 5 --tokens 900 \
    --steps 2 --out policy > said 2> err || bad "a policy: $(cat err)"
up=model.layers.0.mlp.up_proj.weight
small="few.bin --preset trl-classic --batch-size 4 --mini-batch-size 2 --ppo-epochs 2 --eval-queries 2 --query-min 2 --query-max 3
       --response-min 3 --response-max 5 --out out"
text="--policy policy --reward-text e"
start='another model to start from'
slower='a smaller --learning-rate'

# ---- ppo: files ----
damage policy model.safetensors $up $nan
stops 1 "tensor $up has a NaN or an infinity: hurt" 'another --policy' $ppo $small --policy hurt --reward-text e
stops 1 "tensor $up: weight 0 is NaN" 'another file' $ppo $small --policy hurt --reward-text e --nf4
damage policy model.safetensors model.norm.weight $huge
for queries in 0 2; do
    stops 1 "the policy's logits are not numbers in step 1; no weights were written" "$start" $ppo $small --policy hurt \
        --reward-text e --eval-queries $queries
done
$ppo $small $text --steps 1 --lora-r 2 > said 2> err; mv out/ppo-0001 lora
pair=base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight
damage lora adapter_model.safetensors $pair $infinity
stops 1 "lora_A.weight has a NaN or an infinity: hurt" 'another adapter' $ppo $small $text --adapter hurt
damage lora adapter_model.safetensors $pair $huge 32
stops 1 "the policy's logits are not numbers in step 1" "$start" $ppo $small $text --adapter hurt
damage lora value_head.safetensors v_head.summary.weight $infinity
stops 1 "tensor v_head.summary.weight has a NaN or an infinity: hurt/value_head.safetensors" '--value-init zero' \
    $ppo $small $text --adapter hurt
damage lora value_head.safetensors v_head.summary.weight $huge 16
stops 1 "the value head's values are not numbers in step 1" '--value-init zero' $ppo $small $text --adapter hurt
damage policy model.safetensors $up $nan
stops 1 "tensor $up has a NaN or an infinity: hurt" 'another --value-model' $ppo $small $text --value-model hurt
damage policy model.safetensors model.norm.weight $huge
stops 1 "the value model's values are not numbers in step 1" 'another --value-model' $ppo $small $text --value-model hurt \
    --value-init pytorch
damage "$root/data/reward" model.safetensors classifier.out_proj.weight $nan
stops 1 "tensor classifier.out_proj.weight has a NaN or an infinity: hurt" 'another --reward' $ppo $small --policy policy --reward hurt
$rm few.bin --reward "$root/data/reward" --lora-r 2 --steps 1 --batch-size 4 --out judge > said 2> err || bad "a judge's adapter: $(cat err)"
damage judge adapter_model.safetensors base_model.model.roberta.encoder.layer.0.attention.self.query.lora_A.weight $nan
stops 1 "query.lora_A.weight has a NaN or an infinity: hurt" 'another adapter' $ppo $small --policy policy --reward hurt

# ---- ppo: rewards ----
damage "$root/data/reward" model.safetensors classifier.out_proj.weight $huge 224
stops 1 "evaluation before step 1: the judge's score of response 1 is not a number: hurt" 'another --reward' \
    $ppo $small --policy policy --reward hurt
stops 1 "step 1: the judge's score of response 1 is not a number: hurt" 'another --reward' \
    $ppo $small --policy policy --reward "$root/data/reward:1,hurt:0.5" --eval-queries 0
one="$small --policy policy --eval-queries 0 --steps 1"
# in the second step, the second response gets a number that is none
for score in nan inf -inf 1e999; do
    stops 1 "step 2: the reward command has written a line that is not one number: $score" 'the command by hand' $ppo $one --steps 3 \
        --reward-command "n=0; while read -r l; do n=\$((n + 1)); [ \$n = 6 ] && echo $score || echo \$((n % 2)); done"
    [ -s out/ppo-0001/state ] && grep -q '^go on with: ' said; is "and the run can go on after step 1"
done
for score in 1e19 -3e38; do
    by="while read -r l; do echo $score; done"
    stops 1 "step 1: the score of response 1 is too large: " '--score-clip 10' $ppo $one --reward-command "$by"
    rm -rf out; $ppo $one --reward-command "$by" --score-clip 10 > said 2> err; is "unless it is clipped"
done
stops 1 "step 1: the score of response 1 is too large: inf" 'smaller rewards' $ppo $one --reward-text e --stop ZQ --missing-stop-score 1e39

# ---- ppo: the loss, gradients and weights ----
stops 1 "the reward of token 1 of response 1 is not a number in step 1" 'a smaller --init-kl-coef' $ppo $one $text --init-kl-coef 1e39
stops 1 "update 1: the gradient of tensor [a-z._]*weight is not a number in step 1; no weights" 'smaller --vf-coef' \
    $ppo $one $text --vf-coef 1e38
stops 1 "update 1: the gradient is too large: its norm is [0-9.e+]* in step 1; no weights" '--entropy-coef' $ppo $one $text \
    --entropy-coef 1e38
rm -rf out; $ppo $one $text --entropy-coef 1e38 --max-grad-norm 1 > said 2> err; is "unless it is clipped: $(head -n 1 err)"
stops 3 "update 2: the log-prob by the policy is not a number in step 1; no weights" "$slower" $ppo $one $text --learning-rate 1e30
stops 3 "update 2: the .* is not a number in step 1" "$slower" $ppo $one $text --value-learning-rate 1e30
whole="$one --ppo-epochs 1 --mini-batch-size 4"
stops 3 "tensor model.embed_tokens.weight has a NaN or an infinity in step 1; no weights" "$slower" $ppo $whole $text --learning-rate 1e38
stops 3 "lora_A.weight has a NaN or an infinity in step 1" "$slower" $ppo $whole $text --learning-rate 1e38 --lora-r 2
stops 3 "tensor v_head.summary.weight has a NaN or an infinity in step 1" "$slower" $ppo $whole $text --value-learning-rate 1e38
stops 3 "tensor [a-z_.]*weight has a NaN or an infinity in step 1" "$slower" $ppo $whole $text --value-learning-rate 1e38 --value-model policy
stops 3 "tensor model.embed_tokens.weight has a weight that is too large for --dtype in step 1" '--dtype f32' \
    $ppo $whole $text --learning-rate 1e6 --dtype f16
[ -z "$(find out -name '*.safetensors')" ]; is "and none is written"

# A reference that overflows: the embedding of a position that no text reaches before step 2 is enormous. Weight decay takes it
# from the policy in step 1. Which position that is, and with which seed, a run without it says.
$sft few.bin --tokenizer words --family gpt2 --layers 1 --heads 2 --dim 16 --tokens 900 --steps 2 --out gpt2 > said 2> err
decay="$small --reward-text e --eval-queries 0 --learning-rate 1 --weight-decay 1 --ppo-epochs 1 --mini-batch-size 4 --response-max 20"
position= seed=0
while [ -z "$position" ] && [ $seed -lt 20 ]; do
    seed=$((seed + 1))
    rm -rf out; $ppo $decay --policy gpt2 --seed $seed --steps 2 --dump-rollouts dump > said 2> err
    position=$(tr -d ' ' < dump | sed 's/.*"step":\([12]\),.*"query":\[\([0-9,]*\)\],"response":\[\([0-9,]*\)\].*/\1 \2,\3/' |
        awk '{ n = split($2, id, ","); if (n > most[$1]) most[$1] = n } END { if (most[2] > most[1] + 1) print most[1] }')
done
decay="$decay --seed $seed"
[ -n "$position" ]; is "a position that comes first in step 2: $position"
damage gpt2 model.safetensors transformer.wpe.weight $huge 16 $((64 * ${position:-0}))
rm -rf out first; $ppo $decay --policy hurt --steps 1 > said 2> err; mv out/ppo-0001 first
for every in 0 1; do
    stops 3 "the reference's log-prob of token [0-9]* of response [0-9]* is not a number in step 2" "$slower" \
        $ppo $decay --policy hurt --steps 3 --save-every $every
    is_saved 1 first
done
rm -rf again; mv out again
stops 3 "the reference's log-prob of .* in step 2" "$slower" $ppo --resume again/ppo-0001
cmp -s again/ppo-0001/model.safetensors first/model.safetensors; is "the state after step 1 was whole"

# ---- sft and rm ----
few="few.bin --context 32 --tokens 700 --out out/1"
mkdir -p out
damage policy model.safetensors $up $nan
stops 1 "tensor $up has a NaN or an infinity: hurt" 'another --policy' $sft $few --policy hurt --steps 2
damage policy model.safetensors model.norm.weight $huge
stops 1 "the held-out loss is not a number in step 1; no weights" "$start" $sft $few --policy hurt --steps 2
judge="$rm few.bin --out out/1 --batch-size 8 --reward"
damage "$root/data/reward" model.safetensors classifier.out_proj.weight $nan
stops 1 "tensor classifier.out_proj.weight has a NaN or an infinity: hurt" 'another --reward' $judge hurt --steps 2
damage "$root/data/reward" model.safetensors classifier.out_proj.weight $huge 224
stops 1 "the loss is not a number in step 1; no weights" "$start" $judge hurt --steps 2
wild="--learning-rate 10 --weight-decay 10 --warmup 0 --clip 0"
for program in "$sft $few --policy policy" "$judge $root/data/reward"; do
    stops 3 "tensor .*weight has a weight that is too large for --dtype in step 3; no weights" '--dtype f32' $program $wild --steps 9 \
        --dtype f16
    stops 3 " in step [0-9]*; the weights saved are those after step 1: " "$slower" $program $wild --steps 40 --save-every 1
    rm -rf again; mv out/1 again
    stops 3 " in step [0-9]*; the weights saved are those after step 1: " "$slower" ${program%% few.bin*} --resume again
done

finish
