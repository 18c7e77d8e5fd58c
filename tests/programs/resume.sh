#!/bin/sh
# tests/programs/resume.sh - runs that are stopped and go on: after every step, by --max-minutes, SIGTERM and SIGKILL, with
# another number of threads. Their logs, samples and weights have to be those of a run that was not stopped, byte for
# byte. What may not change meanwhile is refused, and so are damaged states. BIN, RUN and the last line as in run.sh.
# KILLS=N: so many kills at random moments (8). WRITES=N: at each N-th call that changes what is on the disk, a run is
# killed, and another one finds the disk full (90). make kills: 200 and 1; TMPDIR=/dev/shm makes it faster.
cd "$(dirname "$0")/../.." || exit 1
root=$(pwd)
case "${BIN:-.}" in /*) bin=$BIN ;; *) bin=$root/${BIN:-.} ;; esac
ppo="${RUN:-} $bin/ppo" sft="${RUN:-} $bin/sft" rm="${RUN:-} $bin/rm" prep="${RUN:-} $bin/prep"
work=$(mktemp -d "${TMPDIR:-/tmp}/resume_test.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0
ok() { passed=$((passed + 1)); [ -z "$VERBOSE" ] || echo "  ok    $1"; }
bad() { failed=$((failed + 1)); echo "  FAIL  $1"; }
finish() { echo "resume: $passed passed, $failed failed, $skipped skipped"; [ $failed = 0 ]; exit; }
[ -f data/policy/config.json ] && [ -f data/imdb.bin ] || { skipped=1; echo "  skip  no data"; finish; }
OMP_NUM_THREADS=1
export OMP_NUM_THREADS
cd "$work" || exit 1
here=$work
ln -s "$root/data" data
ln -s "$root/data" real

# folder PLACE: the one run folder of a place
folder() { ls -d "$1"/runs/*-0001; }
lines_of() { grep -c . "$1"; }
# difference A B: prints what differs between the files of two run folders, but for times and states
difference() {
    [ -s "$1/log.jsonl" ] && [ -s "$2/log.jsonl" ] || { echo "no log"; return; }
    for f in $( (cd "$1" && find . -type f; cd "$here" && cd "$2" && find . -type f) | sort -u); do
        case "$f" in ./state|./time.jsonl|./report.html) continue ;; esac
        cmp -s "$1/$f" "$2/$f" || { echo "$f differs"; return; }
    done
    [ "$(lines_of "$1/time.jsonl")" = "$(lines_of "$2/time.jsonl")" ] || echo "the lines of time.jsonl"
}
# equal NAME A B
equal() {
    differs=$(difference "$2" "$3")
    [ -z "$differs" ] && ok "$1" || bad "$1: $differs"
}
# in_place PLACE COMMAND ...: runs a command in the folder $work/PLACE; output in said, messages in err
in_place() {
    place=$1; shift
    mkdir -p "$place"
    [ -e "$place/data" ] || ln -s "$root/data" "$place/data"
    (cd "$place" && "$@" > said 2> err < /dev/null)
}
# uninterrupted NAME PROGRAM ARGUMENTS ...
uninterrupted() {
    name=$1; shift
    in_place "$name.whole" "$@" || bad "$name: exit $?: $(head -n 2 "$name.whole/err" | tr '\n' ' ')"
}
# finishes NAME PROGRAM [OPTIONS ...]: goes on until the run is at its end, with one thread and two in turn. afters: after which steps
finishes() {
    name=$1 program=$2 afters=; shift 2
    for turn in 1 2 1 2 1 2 1 2 1 2 1 2 1 2 1 2 1 2 1 2 1 2 1 2 1 2 1 2; do
        OMP_NUM_THREADS=$turn in_place "$name" $program --resume "$(cd "$name" && folder .)" "$@"
        code=$?
        [ $code = 0 ] || { bad "$name: going on: exit $code: $(head -n 2 "$name/err" | tr '\n' ' ')"; return 1; }
        afters="$afters $(sed -n 's/^going on after step \([0-9]*\):.*/\1/p' "$name/said")"
        grep -q '^go on with: ' "$name/said" || return 0
    done
    bad "$name: does not come to its end"
}
# stops NAME PROGRAM ARGUMENTS ...: the same run, stopped after every step
stops() {
    name=$1 program=$2; shift 2
    uninterrupted "$name" $program "$@"
    in_place "$name" $program "$@" --max-minutes 1e-9
    code=$?
    grep -q "^go on with: ./[a-z]* --resume runs/[a-z]*-0001$" "$name/said" && [ $code = 0 ] &&
        ok "$name: a stopped run says how it goes on" || bad "$name: exit $code, $(tail -n 1 "$name/said")"
    finishes "$name" "$program" --max-minutes 1e-9 &&
        equal "$name: stopped after every step, 1 and 2 threads" "$(folder "$name.whole")" "$(folder "$name")"
    last=$(sed -n 's/^{"step": \([0-9]*\),.*/\1/p' "$(folder "$name.whole")"/log.jsonl | sort -n | tail -n 1)
    want=$(echo $(seq 1 "$((last - 1))"))
    case "$(echo $afters)" in "$want"|"$want $last") ;; *) bad "$name: stopped after the steps $afters of $last" ;; esac
}
# refuses CODE TEXT PLACE COMMAND ...
refuses() {
    want=$1 text=$2; shift 2
    in_place "$@"
    code=$?
    if [ $code = "$want" ] && grep -q -- "$text" "$1/err"; then ok "refused: $text"
    else bad "refused: $text (exit $code, wanted $want: $(head -n 1 "$1/err"))"; fi
}

small="data/imdb.bin --preset imdb-small --batch-size 8 --mini-batch-size 4 --ppo-epochs 2 --eval-queries 6
       --show 2 --steps 4 --response-min 6 --response-max 12 --learning-rate 1e-3 --eval-every 2 --save-every 1 --keep 2 --keep-best"
stops all-weights "$ppo" $small
in_place all-weights $ppo --resume runs/ppo-0001 && grep -q '^no step was left to make: a larger --steps goes on$' all-weights/said &&
    ok "a finished run that goes on says that no step was left" || bad "a finished run: $(tail -n 2 all-weights/said)"
in_place all-weights $ppo --resume runs/ppo-0001 --steps 5 && grep -q '^  1 step in .* s, 5 in all; model' all-weights/said &&
    ok "steps and seconds at the end are those since it goes on" || bad "steps at the end: $(tail -n 1 all-weights/said)"
stops lora "$ppo" $small --reward-text e --lora-r 4 --score-normalize --dump-rollouts dump.jsonl
[ "$(cd lora/runs/ppo-0001 && echo step-*)" = "step-000000002 step-000000003" ] &&
    [ -s lora/runs/ppo-0001/best/adapter_model.safetensors ] &&
    ok "--keep 2 and --keep-best: which folders there are" || bad "--keep: $(ls lora/runs/ppo-0001)"
cmp -s lora/dump.jsonl lora.whole/dump.jsonl && ok "the dump of a stopped run" || bad "the dump of a stopped run"
echo a line of a later step >> lora/dump.jsonl
cp lora/dump.jsonl dump.kept
refuses 1 "more steps than --steps" lora $ppo --resume runs/ppo-0001 --steps 1
cmp -s dump.kept lora/dump.jsonl && ok "a refused run leaves the dump as it is" || bad "a refused run shortens the dump"
in_place lora $ppo --resume runs/ppo-0001 && cmp -s lora/dump.jsonl lora.whole/dump.jsonl &&
    ok "a run that goes on shortens the dump" || bad "a run that goes on shortens the dump"
stops mlp "$ppo" $small --reward-text e --lora-r 2 --value-head mlp --value-init pytorch
stops value-model "$ppo" $small --reward-text e --lora-r 2 --value-model data/policy --value-init pytorch
stops nf4 "$ppo" $small --reward-text e --nf4 --lora-r 4 --use-score-scaling --use-score-norm

mkdir tokenizers
$prep tokenizer data/imdb.bin --kind bytelevel --vocab 400 --out tokenizers/a > said
few="--tokenizer ../tokenizers/a --layers 1 --heads 2 --dim 16 --seed 5"
head -c 60000 real/grammar.txt > g.txt
$prep grammar real/grammar.txt --out few.bin --count 60 --seed 2 > said || bad "a small dataset"
stops sft "$sft" ../few.bin $few --tokens 700 --epochs 2 --eval-every 2 --save-every 2 --keep 1 --keep-best --context 32
stops sft-lora "$sft" ../few.bin --policy ../data/policy --lora-r 2 --lora-dropout 0.1 --tokens 900 --steps 4 --eval-every 3
stops sft-nf4 "$sft" ../few.bin --policy ../data/policy --nf4 --tokens 900 --steps 3
stops rm "$rm" ../few.bin $few --steps 5 --batch-size 8 --eval-every 2 --save-every 2 --keep-best
stops rm-lora "$rm" ../few.bin --reward ../data/reward --lora-r 2 --lora-dropout 0.1 --steps 3 --batch-size 8
stops rm-nf4 "$rm" ../few.bin --reward ../data/reward --nf4 --steps 3 --batch-size 8 --eval-every 2

# an adapter to start from, whose copy is the reference; a soft prompt; GRPO; a policy with an encoder
in_place start $ppo $small --reward-text e --lora-r 2 --steps 1
stops adapter "$ppo" $small --reward-text e --adapter ../start/runs/ppo-0001
stops soft "$ppo" $small --reward-text e --prompt-tokens 3
stops grpo "$ppo" $small --reward-text e --lora-r 2 --algorithm grpo --group 4
awk 'BEGIN { for (i = 0; i < 80; i++) printf "{\"prompt\": \"say %d\", \"answer\": \"%d it is\"}\n", i, i }' > pairs.jsonl
$prep data pairs.jsonl --prompt prompt --response answer --out pairs.bin > said 2> err || bad "pairs: $(cat err)"
stops t5-sft "$sft" ../pairs.bin --family t5 --tokenizer ../tokenizers/a --layers 1 --heads 2 --dim 16 --positions 64 --context 64 \
    --steps 3 --save-every 2
stops t5 "$ppo" ../pairs.bin --policy ../t5-sft.whole/runs/sft-0001 --preset trl-classic --reward-text e --batch-size 4 \
    --mini-batch-size 2 --eval-queries 4 --steps 3 --query-max 30
stops t5-soft "$ppo" ../pairs.bin --policy ../t5-sft.whole/runs/sft-0001 --preset trl-classic --reward-text e --batch-size 4 \
    --mini-batch-size 2 --eval-queries 4 --steps 3 --query-max 30 --prompt-tokens 2

# of more than 100 steps, ten share a line of the log: a run that stops in between logs a line that is not kept
rows="../few.bin $few --steps 101 --batch-size 2"
uninterrupted lines $rm $rows
in_place lines $rm $rows --max-minutes 1e-9
[ "$(grep -c '"loss"' lines/runs/rm-0001/log.jsonl)" = 1 ] && finishes lines "$rm" &&
    equal "rm: stopped within a line of the log" lines.whole/runs/rm-0001 lines/runs/rm-0001 || bad "rm: a line at the stop"

# ---- signals ----
# signal NAME CODE PROGRAM ARGUMENTS ...: sends it as soon as the log has the first step; the run then goes on
signal() {
    signal=$1 want=$2 by=$3 at=signal-$1-$(basename "$3"); shift 3
    uninterrupted "$at" $by "$@"
    for try in 1 2 3 4 5; do    # on a busy machine a run may be over before the signal comes: again
        rm -rf "$at"; mkdir -p "$at"; ln -s "$root/data" "$at/data"
        (cd "$at" && exec $by "$@" > said 2> err < /dev/null) & pid=$!
        until grep -q '"step": 1,' "$at"/runs/*/log.jsonl 2> /dev/null; do kill -0 $pid 2> /dev/null || break; sleep 0.05; done
        kill -"$signal" $pid; wait $pid 2> /dev/null; code=$?
        ! grep -q '^go on with: ' "$at/said" || break
    done
    [ $code = "$want" ] && grep -q '^stopped' "$at/said" && grep -q '^go on with: ' "$at/said" && finishes "$at" "$by" &&
        equal "SIG$signal, then going on: $at" "$(folder "$at.whole")" "$(folder "$at")" ||
        bad "$at: exit $code, wanted $want: $(tail -n 1 "$at/said")"
}
long=$(echo "$small" | sed 's/--steps 4/--steps 12/')
signal TERM 143 "$ppo" $long --reward-text e
signal INT 130 "$ppo" $long --reward-text e --lora-r 4
signal HUP 129 "$ppo" $long --reward-text e --prompt-tokens 3
signal INT 130 "$sft" ../few.bin $few --tokens 700 --steps 100 --context 32
signal HUP 129 "$rm" ../few.bin $few --steps 100 --batch-size 64

# ---- a run that still runs ----
mkdir -p busy; ln -s "$root/data" busy/data
(cd busy && exec $ppo $(echo "$small" | sed 's/--steps 4/--steps 100000/') --reward-text e > said 2> err < /dev/null) & pid=$!
until [ -f busy/runs/ppo-0001/state ]; do kill -0 $pid 2> /dev/null || break; sleep 0.1; done
refuses 1 "is writing to this folder" busy $ppo --resume runs/ppo-0001
grep -q "try: wait until it has ended" busy/err && ok "the advice is to wait" || bad "the advice: $(cat busy/err)"
kill -KILL $pid; wait $pid 2> /dev/null
rm -rf busy

# ---- more steps than at first ----
uninterrupted longer $ppo $small --reward-text e
in_place longer $ppo $(echo "$small" | sed 's/--steps 4/--steps 2/') --reward-text e
in_place longer $ppo --resume runs/ppo-0001 --steps 4
equal "a finished run of ppo goes on with more --steps" longer.whole/runs/ppo-0001 longer/runs/ppo-0001
refuses 1 "more steps than --steps" longer $ppo --resume runs/ppo-0001 --steps 3

# ---- what may not change ----
refuses 2 "cannot change --batch-size: 4" longer $ppo --resume runs/ppo-0001 --batch-size 4
refuses 2 "leave --learning-rate out: the run has 0.001" longer $ppo --resume runs/ppo-0001 --lr 1
in_place longer $ppo --resume runs/ppo-0001 --batch-size 8 --chunk 3 && ok "an option with the same value, and --chunk" ||
    bad "an option with the same value, and --chunk: $(cat longer/err)"
cp real/imdb.bin other.bin; printf x >> other.bin; $prep grammar real/grammar.txt --out other.bin --count 20000 --seed 3 > said
refuses 1 "the dataset is another one" longer $ppo ../other.bin --resume runs/ppo-0001
refuses 1 "no run that can go on is in this folder" longer $ppo --resume data
mkdir elsewhere
(cd elsewhere && $ppo --resume ../longer/runs/ppo-0001) > said 2> err < /dev/null
[ $? = 1 ] && grep -q "the dataset of the run is not to be found from here: data/imdb.bin" err && ok "from another folder" ||
    bad "from another folder: $(cat err)"
in_place paths $ppo $small --reward data/reward:0.5 --steps 1
(cd elsewhere && $ppo "$root/data/imdb.bin" --resume ../paths/runs/ppo-0001 --policy "$root/data/policy" \
    --reward "$root/data/reward:0.5" --steps 2) > said 2> err < /dev/null && grep -q 'going on after step 1' said &&
    ok "from another folder, with the paths anew" || bad "from another folder, with the paths anew: $(cat err)"
refuses 1 "the weights in this folder are other ones" paths $ppo --resume runs/ppo-0001 --reward "$root/data/reward:0.7" --steps 3
cp -r real/policy scaled && chmod u+w scaled/model.safetensors &&
    printf '\000\074' | dd of=scaled/model.safetensors bs=1 seek=$(($(wc -c < real/policy/model.safetensors) - 2)) conv=notrunc 2> err
refuses 1 "the weights in this folder are other ones" paths $ppo --resume runs/ppo-0001 --policy ../scaled --steps 3
refuses 1 "this is a run of another program" longer $sft --resume runs/ppo-0001
grep -q "try: ./ppo --resume runs/ppo-0001" longer/err && ok "the right program is named" || bad "the right program is named"
cp -r real/policy policy
in_place frozen $ppo $small --reward-text e --steps 1 --policy ../policy
cp real/reward/model.safetensors weights
(dd if=policy/model.safetensors bs=100000 count=1; tail -c +100001 real/policy/model.safetensors | tr '\001' '\002') > m 2> said
mv m policy/model.safetensors
refuses 1 "are other ones than when the run began: ../policy" frozen $ppo --resume runs/ppo-0001

# ---- damaged states ----
state=longer/runs/ppo-0001/state
cp $state good
broken() { refuses 1 "$2" longer $ppo --resume runs/ppo-0001; cp good $state; }
head -c 100000 good > $state; broken cut "checksum is wrong"
{ head -c 200000 good; printf xyz; tail -c +200004 good; } > $state; broken flipped "checksum is wrong"
{ printf RLHF; tail -c +5 good; } > $state; broken letters "not the state of a run"
{ printf 'rlhfstat\007'; tail -c +10 good; } > $state; broken version "another version"
grep -q 'try: the version of the programs that began the run' longer/err && ok "the advice is about versions" ||
    bad "the advice for another version: $(cat longer/err)"
: > $state; broken empty "ends too early"
in_place longer $ppo --resume runs/ppo-0001 && equal "refused states have changed nothing" longer.whole/runs/ppo-0001 longer/runs/ppo-0001

# ---- a folder that cannot be written, a log that is gone ----
if [ "$(id -u)" != 0 ]; then
    chmod a-w longer/runs/ppo-0001
    refuses 1 "cannot" longer $ppo --resume runs/ppo-0001
    chmod u+w longer/runs/ppo-0001
else skipped=$((skipped + 1)); fi
rm longer/runs/ppo-0001/log.jsonl
in_place longer $ppo --resume runs/ppo-0001
code=$?
grep -q "the log has lost lines" longer/err && [ $code = 0 ] && ok "a log that is gone" || bad "a log that is gone: exit $code"

# ---- killed at any moment ----
# a run that saves after every step, deletes an old save and replaces its best one
$sft few.bin $(echo "$few" | sed "s,\.\./,,") --tokens 900 --steps 2 --out tiny > said 2> err || bad "a tiny policy: $(cat err)"
tiny="../few.bin --policy ../tiny --preset trl-classic --reward-text o --batch-size 4 --mini-batch-size 2 --ppo-epochs 1
      --learning-rate 3e-3 --eval-queries 4 --eval-every 2 --steps 4 --query-min 2 --query-max 3 --response-min 3 --response-max 5
      --save-every 1 --keep 2 --keep-best"
uninterrupted kills $ppo $tiny
cmp -s kills.whole/runs/ppo-0001/best/model.safetensors kills.whole/runs/ppo-0001/model.safetensors &&
    [ "$(cd kills.whole/runs/ppo-0001 && echo step-*)" = "step-000000002 step-000000003" ] &&
    ok "the last evaluation is the best, and a save was deleted" || bad "which saves there are: $(ls kills.whole/runs/ppo-0001)"
# loss PLACE: after a killed run of this place goes on, prints what was lost: more than the step in progress
loss() {
    on=$(sed -n 's/^going on after step \([0-9]*\):.*/\1/p' "$1/said")
    [ "${on:-0}" -ge "$(($2 - 1))" ] || echo "$2 steps in the log, going on after step ${on:-0}"
}
steps_in_log() { grep -c '"ppo/loss/total"' "$1/runs/ppo-0001/log.jsonl" 2> /dev/null; }
mkdir kills
killed=0 ends=0 span=0.35 wrong=
for part in $(awk -v n="${KILLS:-8}" 'BEGIN { srand(7); for (i = 0; i < 5 * n; i++) printf "%.4f ", rand() }'); do
    [ $killed -lt "${KILLS:-8}" ] && [ -z "$wrong" ] || break
    arguments=$tiny steps=
    if [ -f kills/runs/ppo-0001/state ]; then arguments="--resume runs/ppo-0001" steps=$(steps_in_log kills)
    else rm -rf kills/runs; fi
    rm -f kills/said                        # the kill can come before this start has opened it
    (cd kills && exec $ppo $arguments > said 2> err < /dev/null) & pid=$!
    sleep "$(awk -v a="$part" -v b="$span" 'BEGIN { printf "%.4f", a * b }')"
    kill -KILL $pid 2> /dev/null
    wait $pid 2> /dev/null
    code=$? factor=1.07
    case $code in
        137) killed=$((killed + 1)) ;;
        0) ends=$((ends + 1)) factor=0.7 wrong=$(difference kills.whole/runs/ppo-0001 kills/runs/ppo-0001) ;;
        *) wrong="exit $code: $(head -n 2 kills/err)" ;;
    esac
    [ -z "$steps" ] || [ -f kills/runs/ppo-0001/state ] || wrong="the state is lost"
    [ -z "$wrong" ] && [ -n "$steps" ] && grep -q '^going on' kills/said 2> err && wrong=$(loss kills "$steps")
    [ $code != 0 ] || rm -rf kills/runs
    span=$(awk -v a="$span" -v b="$factor" 'BEGIN { print a * b }')      # about one of five is to come to its end
done
[ -z "$wrong" ] && [ $killed -ge "${KILLS:-8}" ] && ok "killed $killed times at random; $ends runs came to their end" ||
    bad "killed $killed times at random: $wrong"

# ---- killed in each call that changes the disk; a disk that is full for that call, or from there on ----
# tries kill|once|full FIRST: each WRITES-th call, from FIRST on
tries() {
    wrong= went=0 had=
    for n in $(seq "$2" "${WRITES:-90}" "$(cat calls)"); do
        rm -rf "$1"
        case $1 in kill) at="KILL_AT=$n" ;; once) at="FAIL_FROM=$n FAIL_TO=$n" ;; full) at="FAIL_FROM=$n" ;; esac
        in_place "$1" env LD_PRELOAD="$work/fullfs.so" $at $ppo $tiny
        code=$?
        case $1,$code in kill,137|once,[0-3]|full,[0-3]) ;; *) wrong="$wrong $n:exit-$code" ;; esac
        [ -f "$1/runs/ppo-0001/state" ] || { [ -z "$had" ] || wrong="$wrong $n:no-state"; continue; }
        had=1 went=$((went + 1)) steps=$(steps_in_log "$1")
        in_place "$1" env LD_PRELOAD="$work/fullfs.so" $ppo --resume runs/ppo-0001 || { wrong="$wrong $n:$(head -n 1 "$1/err")"; continue; }
        if [ $1 = kill ]; then
            differs=$(loss kill "$steps"; difference kills.whole/runs/ppo-0001 kill/runs/ppo-0001)
            [ -z "$differs" ] || wrong="$wrong $n:$differs"
            continue
        fi
        for f in model.safetensors samples.jsonl value_head.safetensors; do
            cmp -s kills.whole/runs/ppo-0001/$f "$1/runs/ppo-0001/$f" || wrong="$wrong $n:$f"
        done
    done
    echo "$wrong" > "$1.wrong"
    echo "$went" > "$1.went"
}
if [ -z "${RUN:-}" ] && ${CC:-cc} -shared -fPIC -o fullfs.so "$root/tests/tools/fullfs.c" -ldl 2> err &&
    in_place count env LD_PRELOAD="$work/fullfs.so" FAIL_COUNT="$work/calls" $ppo $tiny && [ -s calls ]; then
    for kind in kill once full; do tries $kind 1 2> $kind.err & done
    wait
    for kind in kill once full; do
        wrong=$(cat $kind.wrong)
        [ -z "$wrong" ] && [ "$(cat $kind.went)" -gt 0 ] && ok "$kind, at each of $(cat calls) calls or some: $(cat $kind.went) runs went on" || bad "$kind:$wrong"
    done
    cp longer/runs/ppo-0001/state good
    for n in 1 2 3 4 5; do
        refuses 1 "make room on the disk" longer env LD_PRELOAD="$work/fullfs.so" FAIL_FROM=$n $ppo --resume runs/ppo-0001
    done
    cmp -s good longer/runs/ppo-0001/state && ok "going on with a full disk leaves the state as it was" || bad "the state on a full disk"
else skipped=$((skipped + 1)); echo "  skip  full disks: no LD_PRELOAD"; fi

finish
