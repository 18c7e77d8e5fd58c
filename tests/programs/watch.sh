#!/bin/sh
# tests/programs/watch.sh - `ppo` warns in words, once, when something goes wrong for several steps: each
# run here is made to go wrong in one way. And a run in which nothing is wrong has no warning. BIN, RUN and
# the last line as in run.sh.
cd "$(dirname "$0")/../.." || exit 1
ppo="${RUN:-} ${BIN:-.}/ppo" shared=${SHARED:-../shared}
work=$(mktemp -d "${TMPDIR:-/tmp}/watch_test.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0

ok() { passed=$((passed + 1)); [ -z "$VERBOSE" ] || echo "  ok    $1"; }
bad() { failed=$((failed + 1)); echo "  FAIL  $1"; }
# is WHAT: the last command has to have succeeded
is() { if [ $? = 0 ]; then ok "$1"; else bad "$1"; fi; }
finish() { echo "watch: $passed passed, $failed failed, $skipped skipped"; [ $failed = 0 ]; exit; }

policy=data/policy data=data/imdb.bin
[ -f data/policy/config.json ] || policy=$shared/data/stories260K
[ -e "$policy/config.json" ] || { skipped=1; echo "  skip  no policy"; finish; }
[ -f "$data" ] && [ -f data/grammar.txt ] || { skipped=1; echo "  skip  no $data"; finish; }
OMP_NUM_THREADS=1
export OMP_NUM_THREADS

# run NAME OPTIONS ...: a run in $work/NAME, and what it prints to stderr in $work/NAME.err
run() {
    name=$1; shift
    $ppo "$data" --policy "$policy" --preset imdb-small --batch-size 16 --mini-batch-size 8 --ppo-epochs 1 \
        --eval-queries 0 --response-min 6 --response-max 12 "$@" --out "$work/$name" > "$work/$name.out" \
        2> "$work/$name.err" < /dev/null || bad "$name: exit $?: $(head -n 2 "$work/$name.err" | tr '\n' ' ')"
}
# warns NAME STEP TEXT ADVICE: the run has warned exactly once with this text, after this step
warns() {
    [ "$(grep -c "$3" "$work/$1.err")" = 1 ] && grep "$3" "$work/$1.err" | grep -q "warning at step $2: " &&
        grep -q "^  try: .*$4" "$work/$1.err"
    is "$1: $3"
}
silent() { ! grep -q 'warning' "$work/$1.err"; is "$1: no warning"; }

run ordinary --reward-text e --steps 12
silent ordinary

run copies --reward-text e --algorithm grpo --temperature 0.01 --steps 7
warns copies 5 'the share of the responses that repeat another one is [01]' 'a larger --temperature'
warns copies 5 'the entropy per token is 0' '--entropy-coef'
grep -q '"tokens/responses_repeated": 0\.[5-9]' "$work"/copies/ppo-0001/log.jsonl; is "copies: in the log"

run endless --reward-text e --stop ZZZQ --steps 6
warns endless 5 'the number of responses that end before the length limit is 0' 'a larger --response-max'

run alike --reward-text ZZZQ --steps 6
warns alike 5 'the standard deviation of the scores, .* is 0;' 'another --reward'
! grep -q 'length limit' "$work/alike.err"; is "alike: no end was asked for"

run long --reward-text ' ' --learning-rate 1e-6 --response-min 2 --response-max 30 --steps 11
warns long 10 "the correlation of the score with the response's length, .* is 0\\.[789]" '--length-penalty'
grep -q '"env/reward_length_correlation": 0\.[789]' "$work"/long/ppo-0001/log.jsonl; is "long: in the log"

run values --reward-text e --learning-rate 1e-12 --value-learning-rate 1e-12 --steps 51
warns values 50 'the explained variance of the values is -' 'a larger --value-learning-rate'

run skips --reward-text e --ratio-threshold 0.5 --steps 4
warns skips 3 'the share of the updates that --ratio-threshold has skipped is 1;' 'a larger --ratio-threshold'

# One response a step is too few: by chance the estimated KL is then below -0.1 five times in a row, or below -1. The log says when,
# and there the warning comes, if at all.
${RUN:-} ${BIN:-.}/prep grammar data/grammar.txt --out "$work/few.bin" --count 60 --seed 2 > "$work/out" &&
    ${RUN:-} ${BIN:-.}/prep tokenizer "$work/few.bin" --kind bytelevel --vocab 400 --out "$work/words" > "$work/out" &&
    ${RUN:-} ${BIN:-.}/sft "$work/few.bin" --tokenizer "$work/words" --layers 1 --heads 2 --dim 16 --seed 5 --tokens 900 --steps 2 \
        --out "$work/tiny" > "$work/out" 2>&1
is "a tiny policy"
usual_policy=$policy usual_data=$data
policy=$work/tiny data=$work/few.bin
# first LIMIT COUNT: the step at which objective/kl has been below LIMIT for COUNT steps in a row; nothing if there is none
first() {
    sed -n 's/.*"step": \([0-9]*\),.*"objective\/kl": \([-0-9.e+]*\),.*/\1 \2/p' "$work/$name/ppo-0001/log.jsonl" |
        awk -v limit="$1" -v count="$2" '{ n = $2 < limit ? n + 1 : 0; if (n == count) { print $1; exit } }'
}
below= at_once= seed=0
while [ -z "$below" ] || [ -z "$at_once" ] && [ $seed -lt 20 ]; do
    seed=$((seed + 1))
    run negative$seed --reward-text e --batch-size 1 --mini-batch-size 1 --seed $seed --learning-rate 1e-3 --steps 600 --save-every 0
    name=negative$seed
    five=$(first -0.1 5) one=$(first -1 1)
    if [ -n "$five" ]; then warns $name "$five" 'the KL per response is -.*; it was below -0.1 in 5 steps in a row' 'a larger --batch-size'
    else ! grep -q 'the KL per response' "$work/$name.err"; is "$name: no KL is low for five steps"; fi
    [ -z "$one" ] || warns $name "$one" 'the KL, whose expectation is never below 0, is -.* in this step' 'a larger --batch-size'
    below=$below$five at_once=$at_once$one
done
[ -n "$below" ] && [ -n "$at_once" ]; is "both warnings were seen, with $seed seeds"
policy=$usual_policy data=$usual_data

# a run that was stopped and goes on warns as if it had not stopped
run parts --reward-text ZZZQ --steps 4
$ppo --resume "$work/parts/ppo-0001" --steps 8 > "$work/on.out" 2> "$work/on.err" < /dev/null
is "goes on: $(head -n 2 "$work/on.err" | tr '\n' ' ')"
warns on 5 'the standard deviation of the scores' 'another --reward'

finish
