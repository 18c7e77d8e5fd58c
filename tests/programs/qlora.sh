#!/bin/sh
# tests/programs/qlora.sh - QLoRA from end to end on the shipped policy: an adapter by sft next to 4-bit
# weights, ppo that goes on from it with its frozen copy as the reference, run that uses and merges what
# came out; and PyTorch's opinion (tests/programs/qlora.py), where PyTorch is there. BIN: the folder of the
# programs, TESTS: of build/tests/nf4, PYTHON: with torch. RUN and the last line as in run.sh.
cd "$(dirname "$0")/../.." || exit 1
bin="${RUN:-} ${BIN:-.}" nf4="${RUN:-} ${TESTS:-build/tests}/nf4"
work=$(mktemp -d "${TMPDIR:-/tmp}/qlora.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0

ok() { passed=$((passed + 1)); [ -z "$VERBOSE" ] || echo "  ok    $1"; }
bad() { failed=$((failed + 1)); echo "  FAIL  $1"; }
skip() { skipped=$((skipped + 1)); echo "  skip  $1"; }
finish() { echo "qlora: $passed passed, $failed failed, $skipped skipped"; [ $failed = 0 ]; exit; }
same() { if [ -s "$2" ] && cmp -s "$2" "$3"; then ok "$1"; else bad "$1"; fi; }
differ() { if [ -s "$2" ] && [ -s "$3" ] && ! cmp -s "$2" "$3"; then ok "$1"; else bad "$1"; fi; }
has() { if grep -q -- "$2" "$3"; then ok "$1"; else bad "$1: no '$2' in $3"; fi; }
true_() { if awk "BEGIN { exit !($2) }"; then ok "$1 ($2)"; else bad "$1: $2"; fi; }
# refuses CODE TEXT COMMAND ...
refuses() {
    want=$1 text=$2; shift 2
    "$@" > "$work/out" 2> "$work/err" < /dev/null
    code=$?
    if [ $code = "$want" ] && grep -q -- "$text" "$work/err"; then ok "refused: $text"; else bad \
        "refused: $text (exit $code, wanted $want): $(head -n 1 "$work/err")"; fi
}
# apart FILE FILE: how many numbers, and the largest difference; fails where they do not pair off
apart() {
    paste "$1" "$2" | awk '
        { n++; if (NF != 2) wrong = 1; d = $1 - $2; if (d < 0) d = -d; if (d > worst) worst = d }
        END { printf "%d numbers, %.3g apart", n, worst; exit !(n > 0 && !wrong) }'
}
# near NAME TOLERANCE FILE FILE: as many numbers in both, none further apart; far: some further apart
near() { if said=$(apart "$3" "$4") && awk "BEGIN { split(\"$said\", a, \" \"); exit !(a[3] <= $2) }"; \
    then ok "$1 ($said)"; else bad "$1: $said"; fi; }
far() { if said=$(apart "$3" "$4") && awk "BEGIN { split(\"$said\", a, \" \"); exit !(a[3] > $2) }"; then \
    ok "$1 ($said)"; else bad "$1: $said"; fi; }
numbers() { sed 's/.*"logprobs": \[\([^]]*\)\].*/\1/' | tr -d ' ' | tr ',' '\n' | grep .; }
# field FOLDER NAME: a number of the first training step in the log
field() { grep '"env/reward_mean"' "$1/log.jsonl" | sed -n '1s|.*"'"$2"'": \([-0-9.e+]*\).*|\1|p'; }
# logprobs FILE MODEL OPTIONS ...: a number a line
logprobs() { to=$1; shift; $bin/run logprobs "$@" "$work/ids" --ids > "$to.jsonl" 2> "$work/err" &&
    numbers < "$to.jsonl" > "$to" || bad "run logprobs $*: $(head -n 1 "$work/err")"; }

policy=data/policy data=data/imdb.bin
[ -f $policy/config.json ] && [ -f $data ] || { skip "no $policy or no $data"; finish; }
OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
export OMP_NUM_THREADS OMP_WAIT_POLICY
{ echo "1 5 9 20 30 40 7 300 301 17 1024 2047"; echo "1 700 12 900 44"; awk \
    'BEGIN { for (i = 0; i < 90; i++) printf "%d ", 3 + i * 97 % 2000; print "" }'; } > "$work/ids"

# ---- sft: an adapter next to 4-bit weights ----
sft() { # sft NAME OPTIONS ...
    name=$1; shift
    $bin/sft $data --policy $policy --context 48 --eval-documents 4 --tokens 800 --micro-tokens 200 \
        --steps 5 --lr 1e-3 --out "$work/$name" "$@" > "$work/$name.out" 2>&1 \
        || bad "sft $*: $(tail -n 2 "$work/$name.out")"
}
sft a --nf4
has "sft --nf4 alone: rank 16" '"r": 16' "$work/a/adapter_config.json"
for linear in self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj mlp.gate_proj mlp.up_proj mlp.down_proj; do
    has "on all seven linears: $linear" "\"model.layers.0.$linear\"" "$work/a/adapter_config.json"
done
has "it says how the weights are held" \
    '^frozen weights: linears NF4, blocks of 64, compute float32; embedding and head float16$' "$work/a.out"
has "and what is trained, as peft does" \
    '^trainable params: 149,504 || all params: 1,150,080 || trainable%: 12.9994$' "$work/a.out"
[ ! -e "$work/a/model.safetensors" ] && ok "an adapter and no model" || bad "an adapter and no model"
true_ "it learns" \
    "$(sed -n 's|.*"eval/loss": \([0-9.]*\).*|\1|p' "$work/a/log.jsonl" | paste -s -d ' ' - |
        awk '{ print $NF " < " $1 }')"
OMP_NUM_THREADS=2 sft b --nf4 --recompute
same "two threads, activations computed anew: the same adapter" "$work/a/adapter_model.safetensors" \
    "$work/b/adapter_model.safetensors"
sft c --lora-r 16 --lora-targets all-linear
differ "next to the weights as the folder has them: another" "$work/a/adapter_model.safetensors" \
    "$work/c/adapter_model.safetensors"
has "which are float16" '^frozen weights: linears float16, compute float32; embedding and head float16$' \
    "$work/c.out"
sft d --nf4 --double-quant --quant-block 128 --compute bf16 --lora-r 4 --lora-targets q_proj,v_proj \
    --lora-rslora
has "all its options" '^frozen weights: linears NF4, blocks of 128, doubly quantised, compute bfloat16' \
    "$work/d.out"
has "a rank that is given stays" '"r": 4' "$work/d/adapter_config.json"
sft drop --nf4 --lora-dropout 0.2
OMP_NUM_THREADS=2 sft drop2 --nf4 --lora-dropout 0.2 --recompute
same "dropout: two threads, activations computed anew: the same adapter" \
    "$work/drop/adapter_model.safetensors" "$work/drop2/adapter_model.safetensors"
differ "dropout: another adapter than without" "$work/a/adapter_model.safetensors" \
    "$work/drop/adapter_model.safetensors"
has "adapter_config.json says the dropout" '"lora_dropout": 0.2,' "$work/drop/adapter_config.json"
has "and without it, none" '"lora_dropout": 0.0,' "$work/a/adapter_config.json"
for part in loss grad_norm; do     # --micro-tokens is the last that was given
    [ $part != loss ] || sft drop3 --nf4 --lora-dropout 0.2 --micro-tokens 800
    for run in drop drop3; do sed -n 's/.*"'$part'": \([0-9.]*\).*/\1/p' "$work/$run/log.jsonl" |
        grep . > "$work/$run.$part"; done
    near "dropout does not hang on micro-batches: $part" 1e-5 "$work/drop.$part" "$work/drop3.$part"
done
sed -n 's|.*"eval/loss": \([0-9.]*\).*|\1|p' "$work/a/log.jsonl" |
    head -n 1 > "$work/1"; sed -n 's|.*"eval/loss": \([0-9.]*\).*|\1|p' "$work/drop/log.jsonl" |
    head -n 1 > "$work/2"
same "dropout is for training alone" "$work/1" "$work/2"

# ---- ppo goes on from that adapter: the reference is a frozen copy of it ----
ppo() { # ppo NAME OPTIONS ...
    name=$1; shift
    if $bin/ppo $data --policy $policy --preset imdb-small --reward-text e --nf4 --batch-size 8 \
        --mini-batch-size 4 --ppo-epochs 2 --eval-queries 6 --show 1 \
        --steps 2 --response-min 6 --response-max 12 --learning-rate 3e-3 "$@" --out "$work/$name.runs" > \
            "$work/$name.out" 2>&1 < /dev/null
    then mv "$work/$name.runs/ppo-0001" "$work/$name"; else bad "ppo $*: $(tail -n 2 "$work/$name.out")"; \
        mkdir -p "$work/$name"; : > "$work/$name/log.jsonl"; fi
}
ppo run --adapter "$work/a"
[ "$(field "$work/run" objective/kl)" = 0 ] && ok "KL is 0 in the first step: the reference is the copy" ||
    bad "KL in the first step: $(field "$work/run" objective/kl)"
[ "$(grep -c '"ppo/policy/first_ratio_max_deviation": 0,' "$work/run/log.jsonl")" = 2 ] &&
    ok "the first ratio is exactly 1, both steps" || bad "the first ratio"
true_ "later it moves away" \
    "($(grep '"env/reward_mean"' "$work/run/log.jsonl" |
        sed -n '2s|.*"objective/kl": \([-0-9.e+]*\).*|\1|p'))^2 > 1e-6"
differ "the adapter is trained" "$work/a/adapter_model.safetensors" "$work/run/adapter_model.safetensors"
has "the log says what the reference is" 'the reference is a frozen copy of the adapter it starts from' \
    "$work/run.out"
OMP_NUM_THREADS=2 ppo run2 --adapter "$work/a" --recompute
same "two threads, activations computed anew: the same adapter" "$work/run/adapter_model.safetensors" \
    "$work/run2/adapter_model.safetensors"
ppo again --adapter "$work/run" --steps 0
# the live policy's responses at the end of a run are those that it gives when it is loaded again
for which in after before; do
    from=run; [ $which = after ] || from=again
    sed 's/.*"response_'$which'": \("[^"\\]*\(\\.[^"\\]*\)*"\).*"reward_'$which'": \([-0-9.e+]*\).*/\1 \3/' \
        "$work/$from/samples.jsonl" > "$work/$which"
done
same "loaded again, the policy writes what the live one wrote" "$work/after" "$work/before"
sed 's/.*"response_before": \("[^"\\]*\(\\.[^"\\]*\)*"\).*"reward_before": \([-0-9.e+]*\).*/\1 \3/' \
    "$work/run/samples.jsonl" > "$work/first"
differ "which is not what it wrote before" "$work/first" "$work/after"

# ---- run: the policy with its adapter, and merged ----
logprobs "$work/base" $policy
logprobs "$work/live" $policy --nf4 --adapter "$work/run"
logprobs "$work/twice" $policy --nf4 --adapter "$work/run"
same "run logprobs --nf4: the same bits again" "$work/live.jsonl" "$work/twice.jsonl"
logprobs "$work/start" $policy --nf4 --adapter "$work/a"
far "another adapter, other numbers" 1e-3 "$work/live" "$work/start"
logprobs "$work/floats" $policy --adapter "$work/run"
far "next to other weights, other numbers" 1e-2 "$work/live" "$work/floats"
logprobs "$work/bf16" $policy --nf4 --compute bf16 --adapter "$work/run"
far "--compute bf16: other numbers" 1e-4 "$work/live" "$work/bf16"
near "--compute bf16: but close ones" 0.1 "$work/live" "$work/bf16"
merge() { $bin/run merge "$1" --adapter "$work/run" --force --out "$work/merged.$2" --dtype "$2" $3 \
    > "$work/out" 2> "$work/err" || bad "run merge --dtype $2: $(head -n 1 "$work/err")"; }
# in f32 only the order of sums differs; bf16 and f16 move each weight by up to 2^-9 and 2^-12 of itself,
# and log-probs of up to 15 by some of that
for as in f32:1e-4 f16:0.02 bf16:0.1; do
    merge $policy ${as%:*} --nf4
    has "merge says that it dequantises" '^the NF4 linears were dequantised' "$work/out"
    logprobs "$work/merged" "$work/merged.${as%:*}"
    near "merged in ${as%:*} against live" ${as#*:} "$work/merged" "$work/live"
    if [ ! -x "${TESTS:-build/tests}/nf4" ]; then skip "no tests/nf4"
    elif $nf4 merged $policy "$work/run" "$work/merged.${as%:*}" ${as%:*} > "$work/out"; then ok \
        "merged and loaded in ${as%:*}: the merged model's bits"
    else bad "merged and loaded in ${as%:*}: $(tail -n 1 "$work/out")"; fi
done
$bin/run merge $policy --adapter "$work/run" --out "$work/plain" > "$work/out" &&
    logprobs "$work/merged" "$work/plain"
near "merged without --nf4: the weights as they were" 1e-4 "$work/merged" "$work/floats"

# ---- a folder that is in 4 bits already (bitsandbytes' layout) ----
for double in "" double; do
    flag=; [ -z "$double" ] || flag=--double-quant
    if [ ! -x "${TESTS:-build/tests}/nf4" ]; then skip "no tests/nf4"; continue; fi
    rm -rf "$work/four"; mkdir "$work/four"; cp $policy/tokenizer* $policy/special_tokens_map.json \
        "$work/four"
    $nf4 quantise $policy "$work/four" $double > "$work/out" || bad "quantise: $(cat "$work/out")"
    logprobs "$work/want" $policy --nf4 $flag --adapter "$work/run"
    logprobs "$work/got" "$work/four" --adapter "$work/run"
    same "a 4-bit folder is what --nf4 $flag makes of the other" "$work/got.jsonl" "$work/want.jsonl"
    logprobs "$work/got" "$work/four" --adapter "$work/run" --compute bf16
    logprobs "$work/want" $policy --nf4 $flag --adapter "$work/run" --compute bf16
    same "at compute type bf16 too" "$work/got.jsonl" "$work/want.jsonl"
done
if [ -d "$work/four" ]; then
    merge "$work/four" f32
    $nf4 merged "$work/four" "$work/run" "$work/merged.f32" f32 folder > "$work/out" &&
        ok "merge from a 4-bit folder" || bad "merge from a 4-bit folder: $(tail -n 1 "$work/out")"
    $bin/run generate "$work/four" --adapter "$work/run" --prompt "This film" --greedy -n 8 > "$work/got" \
        2> "$work/err"
    $bin/run generate $policy --nf4 --double-quant --adapter "$work/run" --prompt "This film" --greedy -n \
        8 > "$work/want"
    same "run generate" "$work/got" "$work/want"
    printf 'This film\n' | $bin/run chat "$work/four" --template none --temperature 0 -n 8 > "$work/got" \
        2> "$work/err"
    printf 'This film\n' | $bin/run chat $policy --nf4 --double-quant --template none --temperature 0 -n 8 \
        > "$work/want" 2> "$work/err"
    same "run chat" "$work/got" "$work/want"
    $bin/sft $data --policy "$work/four" --lora-r 2 --context 48 --eval-documents 2 --tokens 300 --steps 1 \
        --out "$work/q4" > "$work/out" 2>&1
    has "sft next to a 4-bit folder" '^frozen weights: linears NF4, blocks of 64, doubly quantised' \
        "$work/out"
    refuses 1 "4-bit already" $bin/run logprobs "$work/four" --nf4
    refuses 1 "cannot be trained themselves" $bin/sft $data --policy "$work/four" --steps 1 --out "$work/x"
fi

# ---- PyTorch: the base weights quantised and dequantised there, with the adapter that ppo wrote ----
for python in "$PYTHON" python3 /usr/bin/python3 none; do [ -n "$python" ] &&
    $python -c 'import torch' 2> /dev/null && break; done
if [ "$python" != none ]; then
    $python tests/programs/qlora.py logprobs $policy "$work/run" "$work/ids" > "$work/torch" 2> "$work/err" ||
        bad "qlora.py: $(tail -n 1 "$work/err")"
    near "PyTorch's log-probs of NF4 weights with ppo's adapter" 1e-4 "$work/live" "$work/torch"
    $python tests/programs/qlora.py logprobs $policy "$work/d" "$work/ids" --double --block 128 > \
        "$work/torch" 2> "$work/err"
    logprobs "$work/got" $policy --nf4 --double-quant --quant-block 128 --adapter "$work/d"
    near "and of doubly quantised ones, with sft's rsLoRA" 1e-4 "$work/got" "$work/torch"
    $python tests/programs/qlora.py logprobs $policy "$work/run" "$work/ids" --kind fp4 > "$work/torch" 2> \
        "$work/err"
    logprobs "$work/got" $policy --fp4 --adapter "$work/run"
    near "and of FP4 ones" 1e-4 "$work/got" "$work/torch"
    $python tests/programs/qlora.py logprobs $policy "$work/run" "$work/ids" --kind none > "$work/torch" \
        2> "$work/err"
    near "and of the weights as they are" 1e-4 "$work/floats" "$work/torch"
else skip "no PyTorch"; fi

# ---- what does not fit together ----
refuses 2 'not both' $bin/sft $data --policy $policy --nf4 --fp4
refuses 2 'not a power of two' $bin/run logprobs $policy --nf4 --quant-block 96
refuses 2 'nothing is quantised' $bin/run logprobs $policy --double-quant
refuses 2 'what is trained is an adapter' $bin/sft $data --policy $policy --nf4 --lora-r 0
refuses 2 'those of a checkpoint' $bin/sft $data --tokenizer $policy --nf4
refuses 2 'there is no adapter' $bin/sft $data --policy $policy --lora-dropout 0.1
refuses 2 '--lora-dropout has to be from 0 to 0.99: 1' $bin/sft $data --policy $policy --lora-r 2 --lora-dropout 1
refuses 2 'unknown option' $bin/run merge $policy --adapter "$work/a" --out "$work/x" --compute bf16
[ ! -e "$work/x" ] && ok "no folder was made for them" || bad "a folder was made for them"
finish
