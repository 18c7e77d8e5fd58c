#!/bin/sh
# tests/programs/options.sh - what all programs have in common, from outside: --help, --version,
# --show-options, --config, names of options that are alike in all trainers, the choice of the preset, --steps 0, lines that fit
# the terminal, a full disk behind standard output, threads that cannot be started. BIN and RUN as in run.sh.
# Last line: `options: N passed, N failed, N skipped`.
cd "$(dirname "$0")/../.." || exit 1
work=$(mktemp -d "${TMPDIR:-/tmp}/options_test.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0
ok()  { passed=$((passed + 1)); [ -z "$VERBOSE" ] || echo "  ok    $1"; }
bad() {
    failed=$((failed + 1)); echo "  FAIL  $1"
    head -n 3 "$work/out" "$work/err" 2> /dev/null | sed 's/^/        /'
}
skip() { skipped=$((skipped + 1)); echo "  skip  $1"; }
is()  { if [ $? = 0 ]; then ok "$1"; else bad "$1"; fi; }
# call PROGRAM ARGUMENT ...: sets code; what it says is in out and err
call() {
    program=$1; shift
    ${RUN:-} "${BIN:-.}/$program" "$@" > "$work/out" 2> "$work/err" < /dev/null
    code=$?
}
# fits COLUMNS FILE: no line is wider (a line that is one word may be)
fits() { awk -v most="$1" 'length($0) > most && NF > 1 { exit bad = 1 } END { exit bad }' "$2"; }
COLUMNS=80
export COLUMNS

commands="ppo sft rm prep run prep=grammar prep=data prep=tokenizer prep=show prep=llama2c run=tokenize
          run=logprobs run=score run=generate run=chat run=merge run=report"
for name in $commands; do
    words=$(echo "$name" | tr = ' ')
    call $words --version
    [ $code = 0 ] && grep -q "^$words of rlhf.c [0-9]" "$work/out" && grep -q '^compiler: ' "$work/out" &&
        grep -q '^kernel: ' "$work/out" && [ ! -s "$work/err" ]; is "$words --version"
    for COLUMNS in 80 40; do
        call $words --help
        [ $code = 0 ] && fits $COLUMNS "$work/out" && grep -q -e '--version' "$work/out"
        is "$words --help: $COLUMNS columns"
    done
    COLUMNS=80
    if [ -e /dev/full ]; then
        ${RUN:-} "${BIN:-.}/"$words --help > /dev/full 2> "$work/err"
        [ $? = 1 ] && grep -q "^$words: cannot write: standard output: No space" "$work/err"
        is "$words --help: a full disk"
    else skip "no /dev/full"; fi
done
RLHF_ISA=plain; export RLHF_ISA
call ppo --version; grep -q '^kernel:   plain;' "$work/out"; is "--version says which kernel runs"
unset RLHF_ISA
call run scor; [ $code = 2 ] && grep -q 'did you mean score?' "$work/err"; is "a command that is almost right"

# ---- the same names in all trainers ----
for program in ppo sft rm; do
    call $program --show-options --lr 0.25 --batch-size 200 --max-grad-norm 7
    [ $code = 0 ] && grep -q '^  --learning-rate  *0.25  *command line$' "$work/out" &&
        grep -q '^  --batch-size  *200  *command line$' "$work/out" &&
        grep -q '^  --max-grad-norm  *7  *command line$' "$work/out"
    is "$program: --lr, --batch-size, --max-grad-norm"
    call $program --show-options --batch 200
    [ $code = 0 ] && grep -q '^  --batch-size  *200 ' "$work/out"; is "$program: --batch"
    call $program --steps=-2; [ $code = 2 ]; is "$program: --steps -2"
done
for name in init-kl-coef kl-coef beta; do
    call ppo --show-options --$name 0.125; grep -q '^  --init-kl-coef  *0.125  *command' "$work/out"
    is "ppo --$name"
done
for program in sft rm; do
    call $program --show-options --beta 1
    [ $code = 2 ] && grep -q 'unknown option: --beta' "$work/err"
    is "$program: --beta is unknown, and nothing is like it"
done

# ---- the preset ----
# chooses PRESET PROGRAM ARGUMENT ...
chooses() {
    wanted=$1; shift
    call "$@" --show-options
    [ $code = 0 ] && sed -n 1p "$work/out" | grep -q "^preset $wanted: "; is "$*: preset $wanted"
}
chooses imdb-small ppo
chooses imdb-small ppo --policy data/../data/policy/
chooses trl-classic ppo --policy elsewhere
chooses trl-classic ppo --preset trl-classic
grep -q '^  --steps  *157  *preset$' "$work/out"; is "its values are those in force"
chooses scratch sft
chooses finetune sft --policy data/policy
chooses lora sft --policy data/policy --nf4
grep -q '^  --lora-r  *16  *other options$' "$work/out"; is "--nf4 sets the rank, and --show-options says so"
chooses finetune rm --reward data/reward
call ppo --help; tr -s ' \n' ' ' < "$work/out" | grep -q -e '--steps N .*imdb-small 38, trl-classic 157'
is "ppo --help: each preset's values"
tr -s ' \n' ' ' < "$work/out" | grep -q -e '--batch-size, --batch N .*detox 16, dialogsum 16)'
is "ppo --help: of two values in a preset the last one, which holds"

# ---- options without effect ----
# idle OPTION PROGRAM ARGUMENT ...: this option is refused
idle() {
    wanted=$1; shift
    call "$@"
    [ $code = 2 ] && sed -n 1p "$work/err" | grep -q "no effect .*: --$wanted\$" &&
        grep -q "try: leave --$wanted out" "$work/err"
    is "$*: --$wanted has no effect"
}
idle tokens sft --batch-size 4 --tokens 100
idle epochs sft --steps 3 --epochs 2
idle epochs rm --steps 3 --epochs 2
idle force sft --force
idle lora-r sft --lora-r 3
idle new-head rm --new-head
idle lora-dropout rm --reward data/reward --lora-dropout 0.1
idle cliprange-value ppo --vf-coef 0 --cliprange-value 0.3
idle top-k run generate data/policy --greedy --top-k 3
idle seed run generate data/policy --temperature 0 --seed 3
idle quant-block run chat data/policy --quant-block 64
idle color run tokenize data/policy --color always

# ---- --steps 0, lines that fit, numbers in words ----
if [ ! -f data/policy/config.json ] || [ ! -f data/reward/config.json ]; then skip "no models in data/"; else
{
    echo '{"text": "A good film.", "label": 1}'
    echo '{"text": "A bad film, and a long one at that.", "label": 0}'
} > "$work/two.jsonl"
call prep data "$work/two.jsonl" --out "$work/two.bin" --labels negative,positive
small="--query-min 2 --query-max 2 --response-min 4 --response-max 4 --batch-size 2 --mini-batch-size 2
       --chunk 2"
for program in ppo sft rm; do
    case $program in
        ppo) arguments=$small log=$work/zero.ppo/ppo-0001 ;;
        sft) arguments="--policy data/policy" log=$work/zero.sft ;;
        rm)  arguments="--reward data/reward" log=$work/zero.rm ;;
    esac
    call $program "$work/two.bin" $arguments --steps 0 --out "$work/zero.$program"
    [ $code = 0 ] && grep -q '^no steps; the log is in' "$work/out" && [ -s "$log/log.jsonl" ] &&
        [ ! -e "$log/model.safetensors" ]; is "$program --steps 0: a log, and no weights"
    sed -n 1p "$work/out" | grep -q '^preset '; is "$program: the preset is the first line"
    for COLUMNS in 80 40; do
        call $program "$work/two.bin" $arguments --dry-run
        grep '^  ' "$work/out" > "$work/bill"
        [ $code = 0 ] && [ -s "$work/bill" ] && fits $COLUMNS "$work/bill"
        is "$program: a bill of $COLUMNS columns"
    done
    COLUMNS=80
    if [ -e /dev/full ]; then
        ${RUN:-} "${BIN:-.}/$program" "$work/two.bin" $arguments --dry-run > /dev/full 2> "$work/err"
        [ $? = 1 ]; is "$program --dry-run: a full disk"
    fi
done
idle learn sft "$work/two.bin" --policy data/policy --learn all
for COLUMNS in 80 40; do
    call rm data/imdb.bin --reward data/reward --steps 0 --eval-texts 20 --out "$work/table.$COLUMNS"
    grep '%' "$work/out" > "$work/table"
    [ "$(wc -l < "$work/table")" -ge 5 ] && fits $COLUMNS "$work/table"; is "rm: a table of $COLUMNS columns"
done
COLUMNS=80
call sft "$work/two.bin" --policy data/policy --batch-size 1 --steps 1 --out "$work/one"
grep -q '1 step of 1 sequence$' "$work/out" && grep -q '^saved after 1 step, in [0-9.]* s: ' "$work/out"
is "sft --batch-size 1: a step of one sequence"
call sft "$work/two.bin" --policy data/policy --batch-size 1 --dry-run
grep -q '; 2 steps of 1 sequence$' "$work/out"
is "an epoch has a step for each"
call ppo data/imdb.bin --query-min 4 --query-max 4 --response-min 12 --response-max 12 --batch-size 4 \
    --mini-batch-size 4 --steps 1 --eval-queries 4 --show 3 --out "$work/run"
grep -q '^queries of 4 tokens.*, responses of up to 12$' "$work/out"; is "no \"12 to 12\""
call sft "$work/two.bin" --policy data/policy --steps 3 --lr 5 --warmup 0 --out "$work/far"
[ $code = 3 ] && grep -q 'perplexity [0-9.]*e+' "$work/out" && fits 120 "$work/out"; is "a perplexity of 10^200 is short"
samples=$work/run/ppo-0001/samples.jsonl
for i in 1 2 3 4 5; do cat "$samples" "$samples" > "$work/more" && mv "$work/more" "$samples"; done
for COLUMNS in 118 80 66 40 20; do
    call run report "$work/run/ppo-0001"
    [ $code = 0 ] && { [ $COLUMNS = 20 ] || fits $COLUMNS "$work/out"; }; is "run report: $COLUMNS columns"
    tr -d ' \n' < "$work/out" | grep -q 'meanreward'; is "has the mean reward"
done
COLUMNS=80
call run report "$work/run/ppo-0001" --show 0; [ $code = 0 ] && ! grep -q 'response before' "$work/out" &&
    grep -q 'held-out queries' "$work/out"; is "--show 0: no table, and no header"
fi

# ---- options from a file ----
for program in ppo sft rm; do
    printf '# a file\n---\nlearning_rate: 0.25   # high\n\nout: "a # b"\r\nseed: 18446744073709551615\n' \
        > "$work/options"
    call $program --config "$work/options" --show-options --seed 3
    [ $code = 0 ] && grep -q '^  --learning-rate  *0.25  *--config$' "$work/out" &&
        grep -q '^  --out  *a # b  *--config$' "$work/out" && grep -q '^  --seed  *3  *command line$' "$work/out"
    is "$program --config: lines, comments, quotes; the command line wins"
done
# wrong TEXT LINE: what is wrong with a file of this second line
wrong() {
    printf 'steps: 3\n%s\n' "$2" > "$work/options"
    call ppo --config "$work/options"
    [ $code != 0 ] && grep -q -- "$1" "$work/err"; is "--config: $2"
}
wrong 'line 2 of .*options: unknown option: stepz' 'stepz: 3'
wrong "not a line 'name: value': line 2 of" 'steps 4'
wrong "not a line 'name: value': line 2 of" '  steps: 4'
wrong "not a line 'name: value': line 2 of" 'out: "a'
wrong "not a line 'name: value': line 2 of" 'out:'
wrong "batch-size needs a whole number: many" 'batch-size: many'
wrong 'line 2 of .*options: line 1 has this option already: steps' 'steps: 4'
wrong 'preset has to be one of' 'preset: none'
wrong 'no effect without --early-stopping: --target-kl' 'target-kl: 2'
# twice NAME LINES: a file has the option NAME in its lines 1 and 3
twice() {
    printf "$2" > "$work/options"
    call ppo --config "$work/options"
    [ $code = 2 ] && grep -q "line 3 of .*options: line 1 has this option already: $1\$" "$work/err"
    is "--config: the option $1 twice"
}
twice lr 'learning_rate: 1e-5\n# a comment\nlr: 1e-5\n'
twice data 'data: a.bin\nsteps: 3\ndata: b.bin\n'
twice preset 'preset: detox\nsteps: 3\npreset: openai\n'
printf '{"program": "ppo", "given": {"steps": "3", "seed": "1", "steps": "4"}}\n' > "$work/options"
call ppo --config "$work/options"; [ $code = 2 ] && grep -q 'options: this option is there twice: steps$' "$work/err"
is "--config: twice in a log"
call ppo --config "$work/missing"; [ $code = 1 ] && grep -q 'No such file.*missing' "$work/err"; is "no such file"
log=$work/run/ppo-0001/log.jsonl
if [ -f "$log" ]; then
    call ppo --config "$log" --out "$work/again"
    [ $code = 0 ] && cmp -s "$work/run/ppo-0001/model.safetensors" "$work/again/ppo-0001/model.safetensors" &&
        [ "$(tail -n 1 "$log")" = "$(tail -n 1 "$work/again/ppo-0001/log.jsonl")" ]
    is "--config with a run's log makes the same run again, data and preset too"
    call ppo --config "$log" --resume "$work/run/ppo-0001"; [ $code = 2 ]; is "not beside --resume"
    call sft --config "$log"; [ $code = 1 ] && grep -q 'log of another program' "$work/err"; is "another program's log"
fi

# ---- threads that cannot be started: fewer, and a message ----
call prep --version
if [ -z "$RUN" ] && grep -q '(OpenMP)' "$work/out"; then
    (
        ulimit -v 200000
        OMP_NUM_THREADS=64 "${BIN:-.}/prep" show data/imdb.bin -n 1 > "$work/out" 2> "$work/err"
    )
    code=$?
    grep -q '^prep show: only [0-9]* of 64 threads can be started' "$work/err" && [ $code = 0 ] &&
        ! grep -q libgomp "$work/err"
    is "ulimit -v: fewer threads"
else skip "no threads"; fi

echo "options: $passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
