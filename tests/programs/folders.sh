#!/bin/sh
# tests/programs/folders.sh - nothing is lost: no program writes over what it reads or into a folder that
# holds something else; --force replaces a folder as a whole; locks; a result that cannot be written to its
# folder goes to another; runs that fail leave no folder. BIN, RUN and the last line as in run.sh.
cd "$(dirname "$0")/../.." || exit 1
here=$PWD
bin() { case ${BIN:-.} in /*) echo "${RUN:-} ${BIN}/$1" ;; *) echo "${RUN:-} $here/${BIN:-.}/$1" ;; esac; }
sft=$(bin sft) rm_=$(bin rm) ppo=$(bin ppo) run=$(bin run) prep=$(bin prep)
work=$(mktemp -d "${TMPDIR:-/tmp}/folders_test.XXXXXX") || exit 1
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0
OMP_NUM_THREADS=1
export OMP_NUM_THREADS

ok() { passed=$((passed + 1)); [ -z "$VERBOSE" ] || echo "  ok    $1"; }
bad() { failed=$((failed + 1)); echo "  FAIL  $1"; sed 's/^/        /' "$work/err" | tail -n 4; }
is() { if [ $? = 0 ]; then ok "$1"; else bad "$1"; fi; }
skip() { skipped=$((skipped + 1)); echo "  skip  $1"; }
finish() { echo "folders: $passed passed, $failed failed, $skipped skipped"; [ $failed = 0 ]; exit; }
# ends CODE TEXT NAME COMMAND ...: the command ends with this code, and TEXT is among what it says
ends() {
    want=$1 text=$2 name=$3; shift 3
    "$@" > "$work/out" 2> "$work/err" < /dev/null
    code=$?
    if [ $code = "$want" ] && cat "$work/out" "$work/err" | grep -q -e "$text"; then ok "$name"
    else bad "$name: exit $code, wanted $want and '$text'"; fi
}
# waits FILE LINES: until a file has so many lines
waits() { for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
    [ "$(wc -l 2>/dev/null < "$1" || echo 0)" -lt "$2" ] || break; sleep 0.25; done; }

for need in data/policy/config.json data/reward/config.json data/grammar.txt; do
    [ -f $need ] || { skip "no $need"; finish; }
done
: > "$work/err"
policy=$here/data/policy
cd "$work" || exit 1
$prep grammar "$here/data/grammar.txt" --out data.bin --count 300 > out || bad "prep grammar"
sizes="--tokenizer $policy --dim 32 --layers 1 --heads 2 --context 32 --positions 32 --tokens 64"
small="data.bin $sizes"

# ---- the default policy, where it is not ----
ends 1 "preset imdb-small: for the policy in data/policy" "ppo elsewhere: its preset" $ppo data.bin
ends 1 "no such file: data/policy/config.json" "ppo elsewhere: its policy" $ppo data.bin

# ---- no program writes over what it reads ----
printf '{"text": "one"}\n{"text": "two"}\n' > x.jsonl
cp x.jsonl kept; mkdir sub; ln -s ../x.jsonl sub/link.jsonl
over="--out would overwrite what is read"
ends 2 "$over: x.jsonl" "prep data over its input" $prep data x.jsonl --out x.jsonl
ends 2 "$over" "... through .." $prep data x.jsonl --out sub/../x.jsonl
ends 2 "$over" "... through a link" $prep data sub/link.jsonl --out x.jsonl
ends 2 "$over" "... through the other end of a link" $prep data x.jsonl --out sub/link.jsonl
ends 2 "$over" "... the second of two" $prep data "$here/tests/README.md" x.jsonl --format text --out x.jsonl
ends 2 "$over" "... as standard input" sh -c "$prep data - --format jsonl --out x.jsonl < x.jsonl"
ends 2 "try: another --out" "and the advice" $prep data x.jsonl --out x.jsonl
cmp -s x.jsonl kept; is "and the input stays as it was"
cp "$here/data/grammar.txt" g.txt; cp g.txt kept
ends 2 "$over" "prep grammar over its grammar" $prep grammar g.txt --out g.txt
cmp -s g.txt kept; is "which stays as it was"
mkdir -p imdb/pos imdb/neg; echo good > imdb/pos/0_9.txt; echo bad > imdb/neg/0_1.txt
ends 2 "$over" "prep data over a text of its folder" $prep data imdb --out imdb/pos/0_9.txt
ends 0 "2 texts" "but beside the texts it may write" $prep data imdb --out imdb/data.bin
ends 0 "2 texts" "... twice" $prep data imdb --out imdb/data.bin
mkdir with; cp data.bin with
ends 2 "$over" "prep tokenizer: the folder that holds its data" $prep tokenizer with/data.bin --vocab 500 \
    --out with --force
ends 2 "$over" "sft: likewise" $sft with/data.bin $sizes --steps 1 --out with --force
cp -r "$policy" own
ends 2 "$over" "sft: the folder of --tokenizer" $sft data.bin --tokenizer own/tokenizer.model --steps 1 \
    --out own \
    --force
ends 2 "--dump-rollouts would overwrite what is read" "ppo: a file of --policy" $ppo data.bin --policy own \
    --reward-text e --dump-rollouts sub/../own/config.json
cmp -s own/config.json "$policy/config.json" && cmp -s with/data.bin data.bin; is \
    "and all of it stays as it was"

# ---- a folder that is not empty is refused; --force replaces it as a whole ----
mkdir full; echo precious > full/notes
full="the folder of --out is not empty: full"
ends 1 "$full" "sft: a folder that is not empty" $sft $small --steps 1 --out full
ends 1 "$full" "rm" $rm_ data.bin --tokenizer "$here/data/reward" --dim 16 --layers 1 --heads 2 --steps 1 \
    --out full
ends 1 "$full" "prep tokenizer" $prep tokenizer data.bin --vocab 500 --out full
ends 1 "try: another --out, or --force" "run merge" $run merge "$policy" --adapter none --out full
[ "$(ls full)" = notes ] && [ "$(cat full/notes)" = precious ]; is "and nothing was written into it"
ends 0 "which then replaces full" "sft --force" $sft $small --steps 2 --save-every 1 --out full --force
[ ! -e full/notes ] && [ ! -e full.new ] && [ -s full/model.safetensors ] &&
    [ "$(grep -c '"loss"' full/log.jsonl)" = 2 ]; is "nothing old is left, and the log is whole"
ends 0 "tokenizer of 500 ids" "prep tokenizer --force" $prep tokenizer data.bin --vocab 500 --out full --force
[ ! -e full/model.safetensors ] && [ -s full/tokenizer.model ]; is "nothing old is left"
ln -s full link
ends 0 "" "--force through a link" $prep tokenizer data.bin --vocab 510 --out link/ --force
[ -h link ] && [ -s full/tokenizer.model ]; is "the link stays, its folder is new"
mkdir full/inside
ends 1 "there are folders in" "a folder with folders in it is not replaced" $prep tokenizer data.bin \
    --vocab 500 \
    --out full --force
rmdir full/inside
ends 1 "the folder that the program runs in" "nor the current folder" sh -c \
    "cd full && $prep tokenizer ../data.bin --vocab 500 --out . --force"
mkdir empty
ends 0 "" "an empty folder needs no --force" $prep tokenizer data.bin --vocab 500 --out empty
ends 2 "without --out the folder is a new one" "--force that cannot act" $sft $small --steps 1 --force

# ---- what fails leaves no folder, and what was there stays ----
sum=$(cat full/* | cksum)
(ulimit -f 8; ends 1 "too large" "prep tokenizer: the disk is full" $prep tokenizer data.bin --vocab 2000 \
    --out deep/er/tokenizer; echo "$passed $failed" > counts)
read -r passed failed < counts
[ ! -e deep ]; is "and no folder was made"
(ulimit -f 8; ends 1 "too large" "prep tokenizer --force: the disk is full" $prep tokenizer data.bin \
    --vocab 2000 \
    --out full --force; echo "$passed $failed" > counts)
read -r passed failed < counts
[ "$sum" = "$(cat full/* | cksum)" ] && [ ! -e full.new ]; is "and the old folder stays as it was"
ends 0 "" "sft into a new folder" $sft $small --steps 1 --out nan
printf '\377\377\177\177' | dd of=nan/model.safetensors bs=1 \
    seek=$(($(wc -c < nan/model.safetensors) - 8)) conv=notrunc 2> err
ends 1 "not a number in step 1" "sft fails in its first step" $sft data.bin --policy nan --context 32 \
    --steps 2
[ ! -e runs ]; is "and leaves no folder"
mkdir there
ends 1 "not a number in step 1" "... in a folder that was there" $sft data.bin --policy nan --context 32 \
    --steps 2 \
    --out there
[ -d there ] && [ -z "$(ls -A there)" ]; is "which stays, and empty"
for i in 1 2 3; do $sft $small --steps 1 > out 2> err || bad "sft, run $i"; done
rm -rf runs/sft-0001 runs/sft-0003
ends 0 "runs/sft-0004" "the numbers of deleted runs are not used again" $sft $small --steps 1
[ "$(ls runs | tr '\n' ' ')" = "sft-0002 sft-0004 " ] && [ ! -e runs/sft-0004/lock ]; is "and no lock is left"

# ---- locks ----
$sft $small --steps 100000 --out busy > out 2>&1 & pid=$!
waits busy/time.jsonl 2
ends 1 "(process $pid) is writing to this folder: busy" "two runs into one folder" $sft $small --steps 1 \
    --out busy
ends 1 "(process $pid) is writing" "... with --force too" $sft $small --steps 1 --out busy --force
kill -KILL $pid; wait $pid 2> /dev/null
[ "$(cat busy/lock)" = $pid ]; is "the lock has the number of its process"
ends 1 "not empty" "a run that was killed keeps its files" $sft $small --steps 1 --out busy
ends 0 "busy: process $pid ended without deleting its lock" "its lock is noticed and taken over" $sft $small \
    --steps 1 --out busy --force
[ ! -e busy/lock ] && [ -s busy/model.safetensors ]; is "and deleted at the end"

# ---- a result that cannot be written to its folder: a file takes the folder's place in the run ----
# broken NAME FOLDER COMMAND ...: then SIGTERM; the result has to be in spare/NAME-0001
broken() {
    name=$1 folder=$2; shift 2
    "$@" > out 2> err & pid=$!
    waits $folder/log.jsonl 3
    kill -STOP $pid; mv "$folder" away; echo x > "$folder"; rm -rf away; kill -CONT $pid; sleep 0.3
    kill -TERM $pid; wait $pid; code=$?
    [ $code = 143 ] && [ -s spare/$name-0001/model.safetensors ] && grep -q "spare/$name-0001" out &&
        grep -q "of the log could not be written" out
    is "$name: the result goes to --fallback ($code)"
}
broken sft gone $sft $small --steps 100000 --out gone --fallback spare
$run generate spare/sft-0001 --prompt This -n 2 > out 2> err; is "and can be used"
broken rm rm.gone $rm_ data.bin --tokenizer "$here/data/reward" --dim 16 --layers 1 --heads 2 --steps 100000 \
    --batch 4 --out rm.gone --fallback spare
broken ppo ppo.gone/ppo-0001 $ppo data.bin --policy "$policy" --preset imdb-small --reward-text e \
    --batch-size 4 \
    --mini-batch-size 4 --eval-queries 0 --steps 100000 --save-every 0 --out ppo.gone --fallback spare
$sft $small --steps 300 --out swapped --fallback spare > out 2> err & pid=$!
waits swapped/log.jsonl 3
kill -STOP $pid; mv swapped away; echo x > swapped; rm -rf away; kill -CONT $pid
wait $pid; code=$?
[ $code = 1 ] && grep -q 'saved after 300 steps.*: spare/sft-0002' out && [ -s spare/sft-0002/model.safetensors ]
is "a run that ends by itself does so with 1, since the result is not where --out says ($code)"
mkdir here
(cd here && $sft ../data.bin $sizes --steps 100000 --out gone > ../out 2> ../err) &
waits here/gone/log.jsonl 3
pid=$(cat here/gone/lock)
mv here/gone away; echo x > here/gone; rm -rf away; kill -TERM $pid; wait
[ -s here/sft-0001/model.safetensors ] && grep -q 'saved after .*: ./sft-0001' out &&
    grep -q "the result is not in the run's own folder" out
is "without --fallback it goes to the current folder"
if script -qec true /dev/null > out 2>&1; then      # a terminal: it asks
    { waits asked/log.jsonl 3; pid=$(cat asked/lock); mv asked away; echo x > asked; kill -INT $pid; sleep 1
      echo; sleep 0.5; echo full; sleep 0.5; echo typed; sleep 1; } |
        script -qec "$sft $small --steps 100000 --out asked; echo code \$?" /dev/null > out 2> err
    grep -q "type another folder" out && grep -q "this folder is not empty" out && grep -q "code 130" out &&
        [ -s typed/model.safetensors ]; is "in a terminal it asks for a folder"
else skip "no script: no terminal"; fi

# ---- saves and logs that fail on the way are no end ----
$sft $small --steps 100000 --save-every 3 --out way > said 2> err & pid=$!
waits way/log.jsonl 1
for file in way/model.safetensors way/log.jsonl; do     # a folder takes the place of each, against the run
    for i in 1 2 3 4 5 6 7 8 9 10; do rm -f $file; mkdir $file 2> out && break; done
done
sleep 1; rmdir way/model.safetensors
kill -TERM $pid; wait $pid; code=$?
[ $code = 143 ] && [ -s way/model.safetensors ] && grep -q "the run goes on, and the next save" err &&
    [ "$(grep -c 'log lacks this line' err)" = 1 ] && grep -q 'of the log could not be written' said
is "a save and a log that cannot be written, and the run goes on ($code)"
$sft $small --steps 40 --out piped 2> err | waits piped/log.jsonl 3
[ -s piped/model.safetensors ] && [ "$(grep -c '"loss"' piped/log.jsonl)" = 40 ]
is "a pipe that ends is no end of the run"

# ---- the room on the disk, and the system's reasons ----
ends 1 "too little room on the disk: .* free, .* needed" "a model larger than the disk" $sft data.bin \
    --tokenizer \
    "$policy" --dim 32768 --layers 1000 --heads 2 --out huge
ends 0 "too little room on the disk" "... with --dry-run: a warning" $sft data.bin --tokenizer "$policy" \
    --dim \
    32768 --layers 1000 --heads 2 --out huge --dry-run
[ ! -e huge ]; is "and no folder was made"
long=$(printf '%0300d' 1)
ends 1 "ile name too long" "a name that the disk refuses" $sft $small --steps 1 --out "$long"
if [ "$(id -u)" != 0 ]; then other=; elif setpriv --reuid=65534 true 2> err; then
    other="setpriv --reuid=65534"; else other=none; fi
mkdir closed; chmod 555 closed; chmod 755 .
if [ "$other" = none ]; then skip "root may write everywhere"; else
    for command in "$sft $small --steps 1" "$prep tokenizer data.bin --vocab 500"; do
        ends 1 "ermission denied" "a folder that cannot be written, the reason" $other $command --out \
            closed/new
    done
    ends 1 "ermission denied" "ppo: likewise" $other $ppo data.bin --policy "$policy" --reward-text e --out \
        closed
fi

finish
