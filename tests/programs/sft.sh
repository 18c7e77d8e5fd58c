#!/bin/sh
# tests/programs/sft.sh - `sft` from outside: what it writes, that its loss is the one `run logprobs` sees,
# that it learns, is deterministic, and stops well. BIN, RUN and the last line as in run.sh. Needs a
# tokenizer: data/policy's or a third-party one.
cd "$(dirname "$0")/../.." || exit 1
sft="${RUN:-} ${BIN:-.}/sft" run="${RUN:-} ${BIN:-.}/run" shared=${SHARED:-../shared}
work=$(mktemp -d "${TMPDIR:-/tmp}/sft_test.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0

ok() { passed=$((passed + 1)); [ -z "$VERBOSE" ] || echo "  ok    $1"; }
bad() { failed=$((failed + 1)); echo "  FAIL  $1"; }
finish() { echo "sft: $passed passed, $failed failed, $skipped skipped"; [ $failed = 0 ]; exit; }
same() { if [ -s "$2" ] && cmp -s "$2" "$3"; then ok "$1"; else bad "$1"; fi; }
differ() { if [ -s "$2" ] && [ -s "$3" ] && ! cmp -s "$2" "$3"; then ok "$1"; else bad "$1"; fi; }
exits() {
    name=$1 want=$2; shift 2
    "$@" > "$work/out" 2> "$work/err" < /dev/null
    code=$?
    if [ $code = "$want" ] && [ -s "$work/err" ]; then ok "$name"; else bad \
        "$name: exit $code, wanted $want"; fi
}
# says NAME TEXT: the last `exits` had this among its errors
says() { if grep -q -- "$2" "$work/err"; then ok "$1"; else bad "$1: no '$2' in: $(cat "$work/err")"; fi; }
# true NAME AWK-EXPRESSION: e.g. true "it learns" "3.5 < 4"
true_() { if awk "BEGIN { exit !($2) }"; then ok "$1 ($2)"; else bad "$1: $2"; fi; }
# field FILE NAME: a number of JSON lines, from the last line that has it
field() { sed -n 's|.*"'"$2"'": \([-0-9.e+]*\).*|\1|p' "$1" | tail -n 1; }

tokenizer=data/policy
[ -f data/policy/tokenizer.model ] || tokenizer=$shared/data/stories260K/tokenizer.model
[ -e "$tokenizer" ] || { skipped=1; echo "  skip  no tokenizer"; finish; }

# ---- a dataset by hand (DESIGN's format): dataset KIND reads lines  split|text  or  split|text|text ----
byte() { printf "\\$(printf %03o "$1")"; }
u32() { byte $(($1 & 255)); byte $(($1 >> 8 & 255)); byte 0; byte 0; }
dataset() {
    printf RLHFDATA; u32 1; u32 "$1"; u32 0
    lines=$(cat); u32 "$(echo "$lines" | wc -l)"; u32 0
    echo "$lines" | while IFS='|' read -r split a b; do
        byte 255; byte 255; byte 255; byte 255; byte "$split"
        u32 ${#a}; printf %s "$a"
        [ "$1" = 1 ] || { u32 ${#b}; printf %s "$b"; }
    done
}
{
    for who in Lily Tom Ben Mia Sam; do for what in ball tree park dog; do
        echo "0|$who saw a $what. $who was happy to see the $what."; echo \
            "0|One day, $who said to the $what: I like you."
    done; done
    echo "1|Lily saw a park. Ben was happy to see the park."; echo \
        "1|One day, Mia said to the tree: I like you."
} > "$work/lines"
dataset 1 < "$work/lines" > "$work/text.bin"
awk -F '|' '{ print $1 "|" substr($2, 1, 20) "|" substr($2, 21) }' "$work/lines" |
    dataset 3 > "$work/prompts.bin"
awk -F '|' '{ print $1 "|" $2 "|This one is worse and must not be read." }' "$work/lines" |
    dataset 2 > "$work/pairs.bin"
sizes="--tokenizer $tokenizer --dim 32 --layers 1 --heads 4 --kv-heads 2 --positions 64 --context 64 --tied"

# ---- it learns, writes a folder that run reads, and its loss is run's ----
$sft "$work/text.bin" --out "$work/a" $sizes --tokens 256 --steps 60 --lr 1e-2 --no-eos --seed 3 > \
    "$work/out" || bad "sft from scratch"
first=$(sed -n 's|.*"eval/perplexity": \([0-9.]*\).*|\1|p' "$work/a/log.jsonl" |
    head -n 1) last=$(field "$work/a/log.jsonl" eval/perplexity)
true_ "the held-out perplexity falls" "$last < $first / 10"
sed -n 's/^1|//p' "$work/lines" | $run logprobs "$work/a" | sed 's/.*"logprobs": \[\(.*\)\]}/\1/' |
    tr -d ' ' | tr ',' '\n' > "$work/logprobs"
true_ "it is the one that run logprobs sees" \
    "$(awk -v p="$last" '{ s -= $1 } END { d = exp(s / NR) / p - 1; print d * d }' "$work/logprobs") < 1e-12"
if [ "$(grep -c '"loss"' "$work/a/log.jsonl")" = 60 ]; then ok "log.jsonl has a line a step"; else bad \
    "log.jsonl has a line a step"; fi
if [ -s "$work/a/config.json" ] && [ -s "$work/a/generation_config.json" ] &&
    [ -s "$work/a/tokenizer_config.json" ]; then ok "a whole folder"
else bad "a whole folder"; fi

# ---- the same bytes for any number of threads; another seed, other bytes; micro-batches add up ----
train() { $sft "$work/text.bin" $sizes --tokens 300 --steps 3 "$@" > "$work/out" || bad "sft $*"; }
OMP_NUM_THREADS=1 train --out "$work/b"
OMP_NUM_THREADS=2 train --out "$work/c"
same "one thread or two: weights" "$work/b/model.safetensors" "$work/c/model.safetensors"
tail -n +2 "$work/b/log.jsonl" > "$work/b.log"; tail -n +2 "$work/c/log.jsonl" > "$work/c.log" \
    # the first line has the options
same "one thread or two: log" "$work/b.log" "$work/c.log"
train --out "$work/d" --seed 2
differ "another seed" "$work/b/model.safetensors" "$work/d/model.safetensors"
train --out "$work/h16" --compute bf16
differ "--compute bf16: other weights" "$work/b/model.safetensors" "$work/h16/model.safetensors"
true_ "and nearly the same loss" \
    "($(field "$work/b/log.jsonl" loss) - $(field "$work/h16/log.jsonl" loss))^2 < 1e-4"
train --out "$work/e" --micro-tokens 63
true_ "micro-batches add up" \
    "($(field "$work/b/log.jsonl" loss) - $(field "$work/e/log.jsonl" loss))^2 < 1e-10"
true_ "and their gradients" \
    "($(field "$work/b/log.jsonl" grad_norm) / $(field "$work/e/log.jsonl" grad_norm) - 1)^2 < 1e-8"

# ---- kinds of documents ----
train2() { $sft "$work/$1.bin" --out "$work/$2" --policy "$work/a" --context 64 --lr 0 --steps 1 --no-eos \
    "$3" "$4" > "$work/out" || bad "sft $1"; }
train2 text f --seed 1
same "lr 0 leaves the weights as they are" "$work/a/model.safetensors" "$work/f/model.safetensors"
train2 pairs g --seed 1
true_ "of a pair the chosen text is learnt" \
    "$(field "$work/g/log.jsonl" eval/loss) == $(field "$work/f/log.jsonl" eval/loss)"
train2 prompts h --learn all
true_ "prompt and response are one text" \
    "$(field "$work/h/log.jsonl" eval/loss) == $(field "$work/f/log.jsonl" eval/loss)"
train2 prompts i --learn response
true_ "of prompt and response the response counts" \
    "$(sed -n 's/.*, \([0-9]*\) tokens to learn.*/\1/p' "$work/out") < 0.7 * 730"
true_ "and the loss is another" \
    "$(field "$work/i/log.jsonl" eval/loss) != $(field "$work/f/log.jsonl" eval/loss)"

# ---- long documents: every token but a document's first is predicted once, whatever the context ----
count() { $sft "$work/text.bin" $sizes --steps 1 --dry-run "$@" |
    sed -n 's/.*, \([0-9]*\) tokens to learn.*/\1/p'; }
whole=$(count) cut=$(count --context 7) head=$(count --context 7 --head-only) no_eos=$(count --no-eos)
true_ "chunks hold every token once" "$whole == $cut && $whole > 400"
true_ "--head-only takes six a document" "$head == 6 * 40"
true_ "an end of text a document" "$whole == $no_eos + 40"

# ---- an adapter, next to an untouched checkpoint ----
$sft "$work/text.bin" --out "$work/lora" --policy "$work/a" --context 64 --lora-r 4 --lora-targets \
    all-linear --lr 1e-2 --steps 5 > "$work/out" ||
    bad "sft --lora-r"
head -n 3 "$work/lines" | sed 's/^.|//' > "$work/some"
$run logprobs "$work/a" "$work/some" > "$work/base"
$run logprobs "$work/a" "$work/some" --adapter "$work/lora" > "$work/adapted"
differ "the adapter changes the policy" "$work/base" "$work/adapted"
$run merge "$work/a" --adapter "$work/lora" --out "$work/merged" > "$work/out" &&
    $run logprobs "$work/merged" "$work/some" > "$work/merged.txt"
true_ "merged equals adapted" "$(cat "$work/adapted" "$work/merged.txt" |
    sed 's/.*"logprobs": \[\(.*\)\]}/\1/' | tr -d ' ' | tr ',' '\n' |
    awk '{ x[NR] = $1 }
         END {
             for (i = 1; i <= NR / 2; i++) {
                 d = x[i] - x[i + NR / 2]
                 if (d < 0) d = -d
                 if (d > worst) worst = d
             }
             print worst + (NR < 20)
         }') < 1e-4"
$sft "$work/text.bin" --out "$work/lora0" --policy "$work/a" --context 64 --lora-r 4 --lr 0 --steps 1 > \
    "$work/out"
$run logprobs "$work/a" "$work/some" --adapter "$work/lora0" > "$work/adapted"
same "B = 0 is the base model, bit for bit" "$work/base" "$work/adapted"

# ---- an adapter with dropout, next to 4-bit weights (tests/programs/qlora.sh has more) ----
lora() { $sft "$work/text.bin" --policy "$work/a" --context 64 --lora-r 4 --lora-targets all-linear --lr \
    1e-2 --steps 3 --tokens 300 "$@" > "$work/out" || bad "sft $*"; }
lora --out "$work/whole" --recompute
lora --out "$work/some.0"
same "--recompute: the same adapter" "$work/whole/adapter_model.safetensors" \
    "$work/some.0/adapter_model.safetensors"
lora --out "$work/some.0.5" --lora-dropout 0.5
differ "--lora-dropout trains another adapter" "$work/some.0/adapter_model.safetensors" \
    "$work/some.0.5/adapter_model.safetensors"
if grep -q '"lora_dropout": 0.5,' "$work/some.0.5/adapter_config.json"; then ok \
    "adapter_config.json has it"; else bad "adapter_config.json has it"; fi
$run logprobs "$work/a" "$work/some" --adapter "$work/some.0.5" > "$work/adapted" &&
    differ "and run reads that" "$work/base" "$work/adapted"
lora --out "$work/four" --nf4 --quant-block 32 --double-quant --compute f16
if grep -q '^frozen weights: linears NF4, blocks of 32, doubly quantised, compute float16' "$work/out"; \
    then ok "--nf4: it says how"; else bad "--nf4: it says how"; fi
differ "and trains another adapter" "$work/some.0/adapter_model.safetensors" \
    "$work/four/adapter_model.safetensors"

# ---- what is written, what is not ----
$sft "$work/text.bin" --out "$work/half" --policy "$work/a" --context 64 --steps 1 --dtype bf16 > "$work/out"
true_ "bf16 is smaller" \
    "$(wc -c < "$work/half/model.safetensors") < 0.6 * $(wc -c < "$work/a/model.safetensors")"
if grep -q bfloat16 "$work/half/config.json"; then ok "config.json says bfloat16"; else bad \
    "config.json says bfloat16"; fi
$sft "$work/text.bin" --out "$work/dry" $sizes --dry-run > "$work/out"
if grep -q "memory in total" "$work/out" && [ ! -e "$work/dry" ]
    then ok "--dry-run prints the bill and writes nothing"; else bad "--dry-run"; fi
cp -r "$work/a" "$work/nan"
printf '\377\377\377\377' | dd of="$work/nan/model.safetensors" bs=1 seek=$(($(wc -c < \
    "$work/a/model.safetensors") - 8)) conv=notrunc 2>/dev/null
mkdir "$work/kept"; echo precious > "$work/kept/model.safetensors"; cp "$work/kept/model.safetensors" \
    "$work/precious"
exits "a policy whose weights are not numbers" 1 $sft "$work/text.bin" --out "$work/kept" \
    --force --policy "$work/nan" --context 64 --steps 2
says "and says so" "tensor [a-z.]*weight has a NaN or an infinity: $work/nan"
same "and nothing is overwritten" "$work/kept/model.safetensors" "$work/precious"

# ---- a loss that is not a number: the last good weights stand in the folder, and never others ----
# numbers FOLDER: run sees only numbers in it
numbers() { $run logprobs "$1" "$work/some" > "$work/got" && [ "$(grep -c '"logprobs"' "$work/got")" = 3 ] &&
    ! grep -q 'nan\|inf\|null' "$work/got"; }
printf '\377\377\177\177' | dd of="$work/nan/model.safetensors" bs=1 seek=$(($(wc -c < \
    "$work/a/model.safetensors") - 8)) conv=notrunc 2>/dev/null
exits "a loss that is not a number in the first step" 1 $sft "$work/text.bin" --out "$work/kept" \
    --force --policy "$work/nan" --context 64 --steps 2
says "and says so" "not a number in step 1; no weights were written"
same "and nothing is overwritten" "$work/kept/model.safetensors" "$work/precious"
wild="--lr 10 --weight-decay 10 --warmup 0 --clip 0 --steps 100"
exits "a loss that is not a number in a later step" 3 $sft "$work/text.bin" --out "$work/wild" $sizes $wild
says "the last good step is saved" "the weights saved are those after step"
if numbers "$work/wild"; then ok "and can be used"; else bad "and can be used"; fi
exits "and better weights that were saved are not replaced" 3 $sft "$work/text.bin" --out "$work/wild1" \
    $sizes $wild --save-every 1
says "the last good save stays" "the weights saved are those after step 1: "
if numbers "$work/wild1"; then ok "and can be used"; else bad "and can be used"; fi
cp -r "$work/a" "$work/large"                                 # with a weight of 65530
printf '\000\372\177\107' | dd of="$work/large/model.safetensors" bs=1 seek=$(($(wc -c < \
    "$work/a/model.safetensors") - 8)) conv=notrunc 2>/dev/null
exits "weights too large for --dtype" 3 $sft "$work/text.bin" --out "$work/wild16" --policy "$work/large" \
    --context 64 --steps 1 --dtype f16
says "and says so" "too large for --dtype in step 1; no weights were written"
[ ! -e "$work/wild16/model.safetensors" ] && ok "and writes none" || bad "and writes none"

# ---- numbers, but worse than a blind guess: exit 3, and better weights that were saved stay ----
astray="--policy $work/a --context 64 --lr 2 --warmup 0 --clip 0 --steps 6"
exits "a run that diverges" 3 $sft "$work/text.bin" --out "$work/astray" $astray --save-every 1
says "and says so at once" "diverged: the mean loss of the first steps is .*: step [2-4]; until this"
says "and at the end" "diverged: the held-out loss is .*: $work/astray has the weights after step [1-3]$"
if numbers "$work/astray"; then ok "and they can be used"; else bad "and they can be used"; fi
exits "a run that diverges, without saves" 3 $sft "$work/text.bin" --out "$work/astray2" $astray
says "the last step is saved" "$work/astray2 has the weights after step 6$"
[ -s "$work/astray2/model.safetensors" ] && ok "which it is" || bad "which it is"

# ---- Ctrl-C, SIGTERM (batch systems, containers, timeout), SIGHUP (a closed terminal) ----
# waits FILE LINES: until a file has so many lines
waits() { for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    [ "$(wc -l 2>/dev/null < "$1" || echo 0)" -lt "$2" ] || break; sleep 0.25; done; }
stops="INT=130 TERM=143 HUP=129"
sh -c "kill -HUP \$\$; exit 7"              # under nohup a run cannot be stopped by SIGHUP
if [ $? = 7 ]; then stops="INT=130 TERM=143"; skipped=$((skipped + 1)); echo "  skip  SIGHUP is ignored here"; fi
for stop in $stops; do
    signal=${stop%=*} want=${stop#*=}
    $sft "$work/text.bin" --out "$work/stop$signal" $sizes --steps 100000 > "$work/out" 2>&1 & pid=$!
    waits "$work/stop$signal/time.jsonl" 2
    kill -$signal $pid
    [ $signal = INT ] || kill -$signal $pid                     # a second one of these changes nothing
    wait $pid; code=$?
    if [ $code = $want ] && grep -q "stopped and saved" "$work/out" &&
        $run generate "$work/stop$signal" --prompt Lily -n 3 > "$work/got"; then
        ok "SIG$signal saves and stops"
    else bad "SIG$signal saves and stops: exit $code"; fi
done
(trap '' HUP; exec $sft "$work/text.bin" --out "$work/nohup" $sizes --steps 100000 > "$work/out" \
    2>&1) & pid=$!
waits "$work/nohup/time.jsonl" 2
kill -HUP $pid; sleep 0.3; kill -INT $pid 2> /dev/null; wait $pid; code=$?
if [ $code = 130 ]; then ok "under nohup SIGHUP changes nothing"; else bad "nohup: exit $code"; fi
$sft "$work/text.bin" --out "$work/early" $sizes --steps 100000 --tokens 100000 > "$work/out" 2>&1 & \
    pid=$!
waits "$work/early/log.jsonl" 1
kill -INT $pid; wait $pid; code=$?
if [ $code = 130 ] && grep -q "^stopped" "$work/out"; then ok "Ctrl-C in the first step or before it"
else bad "Ctrl-C in the first step: exit $code"; fi

# ---- wrong usage, bad input ----
exits "no dataset" 2 $sft
exits "no tokenizer" 2 $sft "$work/text.bin" --out "$work/x"
exits "an unknown option" 2 $sft "$work/text.bin" --out "$work/x" $sizes --learning-rat 1
exits "sizes of a checkpoint" 2 $sft "$work/text.bin" --out "$work/x" --policy "$work/a" --dim 64
exits "an adapter of nothing" 2 $sft "$work/text.bin" --out "$work/x" $sizes --lora-r 4
exits "4-bit weights from scratch" 2 $sft "$work/text.bin" --out "$work/x" $sizes --nf4
exits "4-bit weights and no adapter" 2 $sft "$work/text.bin" --out "$work/x" --policy "$work/a" --context \
    64 --nf4 --lora-r 0
exits "dropout without an adapter" 2 $sft "$work/text.bin" --out "$work/x" --policy "$work/a" --context 64 \
    --lora-dropout 0.1
exits "dropout of everything" 2 $sft "$work/text.bin" --out "$work/x" --policy "$work/a" --context 64 \
    --lora-r 2 --lora-dropout 1
exits "heads that do not divide" 2 $sft "$work/text.bin" --out "$work/x" $sizes --heads 3
exits "--out is a file" 2 $sft "$work/text.bin" --out "$work/lines" $sizes
exits "--out is empty" 2 $sft "$work/text.bin" --out "" $sizes
exits "shards next to one file" 1 $sft "$work/text.bin" --out "$work/kept" $sizes --shard-mb 1 --steps 1
says "and says so" "the folder of --out is not empty: $work/kept"
exits "shards of an adapter" 2 $sft "$work/text.bin" --out "$work/x" --policy "$work/a" --context 64 \
    --lora-r 4 --shard-mb 1
exits "--epochs that would never end" 2 $sft "$work/text.bin" --out "$work/x" $sizes --context 3 --epochs \
    1000000
says "and says so" "more than a hundred million sequences"
exits "--out over --policy, by another name" 2 $sft "$work/text.bin" --out "$work/b/../a/" --policy \
    "$work/a" --context 64
exits "--out over --policy" 2 $sft "$work/text.bin" --out "$work/a" --policy "$work/a" --context 64
exits "a missing dataset" 1 $sft "$work/nothing.bin" --out "$work/x" $sizes
exits "a file that is no dataset" 1 $sft "$work/lines" --out "$work/x" $sizes
head -c 200 "$work/text.bin" > "$work/short.bin"
exits "a truncated dataset" 1 $sft "$work/short.bin" --out "$work/x" $sizes
echo '1|Only held out.' | dataset 1 > "$work/held.bin"
exits "nothing to train on" 1 $sft "$work/held.bin" --out "$work/x" $sizes
says "and what would help" "try: prep makes a dataset"
exits "more context than positions" 1 $sft "$work/text.bin" --out "$work/x" $sizes --context 65
exits "a LoRA target that is not there" 1 $sft "$work/text.bin" --out "$work/x" --policy "$work/a" \
    --context 64 --lora-r 4 --lora-targets c_attn
if [ ! -e "$work/x" ]; then ok "no folder was made for them"; else bad "no folder was made for them"; fi

finish
