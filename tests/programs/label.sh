#!/bin/sh
# tests/programs/label.sh - tests `run label` and `prep rankings` from outside: rankings from a pipe, going on after an end at
# any moment, several labellers, pairs with probabilities, and a judge that learns from them. Last line: counts.
cd "$(dirname "$0")/../.." || exit 1
run="${RUN:-} ${BIN:-.}/run" prep="${RUN:-} ${BIN:-.}/prep" rm_="${RUN:-} ${BIN:-.}/rm"
work=$(mktemp -d "${TMPDIR:-/tmp}/label_test.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0
ok() { passed=$((passed + 1)); [ -z "$VERBOSE" ] || echo "  ok    $1"; }
bad() { failed=$((failed + 1)); echo "  FAIL  $1"; }
# says NAME TEXT: the last command's output has the text (a regular expression)
says() { if grep -q -- "$2" "$work/out"; then ok "$1"; else bad "$1: $(tail -n 3 "$work/out")"; fi; }
# lines NAME FILE N: the file has N lines
lines() { n=$(wc -l < "$2"); if [ "$n" -eq "$3" ]; then ok "$1"; else bad "$1: $n lines, wanted $3"; fi; }
label() { keys=$1; shift; printf '%b' "$keys" | $run label "$@" > "$work/out" 2>&1; }
# refuses NAME CODE TEXT COMMAND ...
refuses() {
    name=$1 want=$2 text=$3; shift 3
    "$@" > "$work/out" 2>&1 < /dev/null; code=$?
    if [ $code = "$want" ] && grep -q -- "$text" "$work/out"; then ok "$name"; else bad "$name: exit $code, $(cat "$work/out")"; fi
}

# Responses that are given: every key, mistakes, undo, quitting
cat > "$work/items.jsonl" << 'JSON'
{"prompt": "One?", "responses": [" a", " b", " c"]}
{"prompt": "Two?\n\u001b[2J", "responses": [" d", " e\nmore"]}
{"prompt": "Three?", "responses": [" f", " g", " h"]}
JSON
a=$work/ann.jsonl
label 'x\n4\n12\n112\n=123\n1=\n3 1=2\ns\nu\n21\nq\n' "$work/items.jsonl" --labeller ann --out "$a"
says "an unknown key is told" "only the numbers of the responses"
says "a missing number is told" "each response needs a place"
says "a number that is there twice is told" "a number is there twice"
says "a wrong = is told" "has to stand between two numbers"
says "quitting says how to go on" "^2 of 3 answered: "
says "control characters cannot reach the terminal" 'Two?'
if grep -q "$(printf '\033')" "$work/out"; then bad "no escape sequence is printed"; else ok "no escape sequence is printed"; fi
lines "each answer, skip and undo is a line" "$a" 4
cp "$a" "$work/before"
printf '{"labeller": "ann", "pro' >> "$a"
label '123\n' "$work/items.jsonl" --labeller ann --out "$a"
says "a last line that was cut off is removed" "cut off, and is removed"
says "and the labeller goes on at the third prompt" "3 of 3"
lines "five lines" "$a" 5
head -n 4 "$a" > "$work/head"
if cmp -s "$work/head" "$work/before"; then ok "earlier answers stay"; else bad "earlier answers stay"; fi
label '' "$work/items.jsonl" --labeller ann --out "$a"
says "nothing is left to do" "all 3 prompts are answered"
# An end after each line of the file: the next call goes on there
for n in 0 1 2 3 4; do
    head -n $n "$a" > "$work/cut.jsonl"
    label '' "$work/items.jsonl" --labeller ann --out "$work/cut.jsonl"
    case $n in 0) at=1 ;; 1) at=2 ;; 2) at=3 ;; 3) at=2 ;; 4) at=3 ;; esac
    says "an end after line $n: goes on at $at" "^---- $at of 3"
done
# A whole answer whose line break alone is missing stays, in both programs
head -n 2 "$a" > "$work/cut.jsonl"; sed -n 3p "$a" | tr -d '\n' >> "$work/cut.jsonl"
$prep rankings "$work/cut.jsonl" --out "$work/x" > "$work/out" 2>&1
says "prep rankings reads a last line without a line break" "; 0 skipped, 1 undone"
label '' "$work/items.jsonl" --labeller ann --out "$work/cut.jsonl"
says "a whole answer without a line break is kept" "^---- 2 of 3"
lines "and gets its line break" "$work/cut.jsonl" 3

# Blank lines are left out, in the prompts, the answers and by prep rankings; messages count them
{ echo; sed 'a\
 \t' "$work/items.jsonl"; } > "$work/blank.jsonl"
{ printf '\r\n'; sed 'a\\' "$a"; } > "$work/blank.answers"
label '' "$work/blank.jsonl" --labeller ann --out "$work/blank.answers"
says "blank lines among prompts and answers" "all 3 prompts are answered"
$prep rankings "$a" --out "$work/x" > "$work/out" 2>&1
$prep rankings "$work/blank.answers" --out "$work/y" > "$work/out" 2>&1
if [ -s "$work/x" ] && cmp -s "$work/x" "$work/y"; then ok "and in prep rankings"; else bad "and in prep rankings: $(cat "$work/out")"; fi
echo '{"prompt": "x", "responses": ["one"]}' >> "$work/blank.jsonl"
refuses "a line after blank ones has its number" 1 "blank.jsonl, line 8" $run label "$work/blank.jsonl"

# The same responses in another order are the same prompt: ann and bob agree about the best, and differ about the rest
cat > "$work/orders.jsonl" << 'JSON'
{"labeller": "ann", "prompt": "P", "responses": ["a", "b", "c"], "ranking": [[2], [0, 1]]}
{"labeller": "bob", "prompt": "P", "responses": ["c", "a", "b"], "ranking": [[0], [2], [1]]}
JSON
$prep rankings "$work/orders.jsonl" --out "$work/x" > "$work/out" 2>&1
says "responses in another order are one prompt" "2 rankings of 1 prompt by 2 labellers"
cat > "$work/want" << 'JSON'
{"prompt": "P", "chosen": "b", "rejected": "a", "probability": 0.75, "labellers": 2}
{"prompt": "P", "chosen": "c", "rejected": "a", "probability": 1, "labellers": 2}
{"prompt": "P", "chosen": "c", "rejected": "b", "probability": 1, "labellers": 2}
JSON
if cmp -s "$work/x" "$work/want"; then ok "and the ranks are those of the texts"; else bad "and the ranks are those of the texts: $(cat "$work/x")"; fi

# until_ COUNT TEXT FILE: waits until COUNT lines of the file match the text, at most 20 seconds
until_() {
    t=0
    while [ ! -f "$3" ] || [ "$(grep -c -- "$2" "$3")" -lt "$1" ]; do
        t=$((t + 1)); [ $t -lt 400 ] || return
        sleep 0.05
    done
}
# kill -9 while the program waits for an answer: what was answered stays. Meanwhile no other program writes the file.
if [ -z "$RUN" ] && mkfifo "$work/keys" 2> "$work/out"; then
    k=$work/killed.jsonl
    for n in 1 2 3; do
        $run label "$work/items.jsonl" --labeller ann --out "$k" < "$work/keys" > "$work/screen" 2>&1 & pid=$!
        exec 3> "$work/keys"
        until_ 1 "^---- $n of 3" "$work/screen"
        [ $n != 2 ] || refuses "two programs, one file" 1 "process $pid) is writing this file" \
            $run label "$work/items.jsonl" --labeller ann --out "$k"
        keys=123; [ $n != 2 ] || keys=12
        printf '%s\n' $keys >&3
        [ $n != 2 ] || printf 'u\n12\n' >&3
        case $n in 1) until_ 1 labeller "$k" ;; 2) until_ 4 labeller "$k" ;; 3) until_ 5 labeller "$k" ;; esac
        [ $n = 3 ] || printf 12 >&3         # half an answer
        kill -9 $pid 2> "$work/killed"; wait $pid 2> "$work/killed"
        exec 3>&-
    done
    lines "three answers and an undo outlive three kills" "$k" 5
    label '' "$work/items.jsonl" --labeller ann --out "$k"
    says "nothing is left to do after them" "all 3 prompts are answered"
    if [ -e "$k.lock" ]; then bad "the lock of a program that was killed is deleted"; else ok "the lock of a program that was killed is deleted"; fi
else skipped=$((skipped + 5)); fi

# The screen: columns where the terminal is wide enough; wide characters count twice; nothing is wider than the terminal
three=あいう; three=$three$three$three$three$three$three
printf '{"prompt": "日本", "responses": ["%s%s", " %s%s"]}\n{"prompt": "x", "responses": ["", "y"]}\n' \
    $three あい $three あい > "$work/wide.jsonl"
COLUMNS=80 label '12\n' "$work/wide.jsonl" --out "$work/w.jsonl"
says "two columns of 19 wide characters each" "^${three}あ   ${three}あ$"
says "a response without letters" "(empty)"
echo "Prefer the response that a reader would find helpful, and not the one that is merely longer than the others." > "$work/told"
sed 1d "$work/items.jsonl" > "$work/narrow.jsonl"
COLUMNS=40 label '' "$work/narrow.jsonl" --instructions "$work/told" --out "$work/n.jsonl"
long=$(grep -v "$work" "$work/out" | awk 'length > 40' | grep -c .)
if [ "$long" = 0 ]; then ok "40 columns: no line is longer"; else bad "40 columns: $long lines are longer"; fi
says "words are whole" "^find helpful, and not the one that is$"

refuses "another labeller's file" 1 "answers of another labeller" $run label "$work/items.jsonl" --labeller bob --out "$a"
sed 1d "$work/items.jsonl" > "$work/other.jsonl"
refuses "another file of prompts" 1 "an answer to another prompt" $run label "$work/other.jsonl" --labeller ann --out "$a"
refuses "responses in the file and a policy" 2 "leave out --policy" $run label "$work/items.jsonl" --policy data/policy
refuses "an option that cannot act" 2 "the responses are in the file" $run label "$work/items.jsonl" --n 5
refuses "a dataset without a policy" 2 "which policy" $run label data/imdb.bin
refuses "--out is an input" 2 "would overwrite" $run label "$work/items.jsonl" --out "$work/items.jsonl"
echo '{"prompt": "x", "responses": ["one"]}' > "$work/one.jsonl"
refuses "one response" 1 "not 2 to 9 responses: .*one.jsonl, line 1" $run label "$work/one.jsonl"
echo broken | cat "$work/items.jsonl" - > "$work/broken.jsonl"
refuses "no JSON" 1 "JSON: .*broken.jsonl, line [1-9]" $run label "$work/broken.jsonl"
refuses "a missing dataset" 1 "cannot open .*nofile" $run label "$work/nofile" --policy data/policy

# The order on the screen depends on the labeller; what is written are the places in "responses"
echo '{"prompt": "P", "responses": ["r0", "r1", "r2"]}' > "$work/order.jsonl"
for who in 1 2 3 4 5 6; do
    COLUMNS=40 label '3 1=2\n' "$work/order.jsonl" --labeller $who --out "$work/order-$who.jsonl"
    place() { sed -n "/^\[$1\]/{n;s/^r//p;}" "$work/out"; }
    a1=$(place 1) a2=$(place 2) a3=$(place 3); [ "$a1" -lt "$a2" ] || { t=$a1; a1=$a2; a2=$t; }
    grep -q "\"ranking\": \[\[$a3\], \[$a1, $a2\]\]" "$work/order-$who.jsonl" || echo "labeller $who: third $a3"
    echo "$a3" >> "$work/thirds"
done > "$work/wrong"
if [ -s "$work/wrong" ]; then bad "rankings name responses: $(cat "$work/wrong")"; else ok "rankings name responses"; fi
if [ "$(sort -u "$work/thirds" | wc -l)" -gt 1 ]; then ok "orders differ among labellers"; else bad "orders differ among labellers"; fi
grep -v undo "$a" | sed -n '$p' > "$work/third"
if grep -q '"ranking": \[\[[0-2]\], \[[0-2]\], \[[0-2]\]\]' "$work/third"; then ok "a ranking of three"; else bad "a ranking of three"; fi
if grep -q '"ranking": \[\[[0-2]\], \[[0-2], [0-2]\]\]' "$a"; then ok "a tie"; else bad "a tie: $(head -n 1 "$a")"; fi

# A policy writes the responses: the same again, at any place where one goes on
label '21\n12\n' data/imdb.bin --policy data/policy --responses 2 --n 6 --items 2 --out "$work/p.jsonl"
label '21\nq\n' data/imdb.bin --policy data/policy --responses 2 --n 6 --items 2 --out "$work/q.jsonl"
label '12\n' data/imdb.bin --policy data/policy --responses 2 --n 6 --items 2 --out "$work/q.jsonl"
sed 's/, "seconds.*//' "$work/p.jsonl" > "$work/p"; sed 's/, "seconds.*//' "$work/q.jsonl" > "$work/q"
lines "two answers" "$work/p.jsonl" 2
if [ -s "$work/p" ] && cmp -s "$work/p" "$work/q"; then ok "the same responses in two sessions"; else bad "the same responses in two sessions"; fi

# prep rankings: three labellers, known probabilities and agreement. Response 0 is good for all; of 1 and 2, one prefers 2.
for who in a b c; do
    second='[1], [2]'; [ $who = c ] && second='[2], [1]'
    [ $who = b ] && second='[1, 2]'
    echo "{\"labeller\": \"$who\", \"prompt\": \"P\", \"responses\": [\" x\", \" y\", \" z\"], \"ranking\": [[0], $second]}"
done > "$work/three.jsonl"
$prep rankings "$work/three.jsonl" --out "$work/pairs.jsonl" > "$work/out" 2>&1
says "rankings are counted" "^3 rankings of 1 prompt by 3 labellers; 0 skipped, 0 undone"
# Pairs (0,1) and (0,2): all three agree. (1,2): better, equal, worse. So 6 of 9 comparisons are the same. Nominal alpha, with
# 7 firsts, 1 equal and 1 second among 9 values: 1 - (9 - 1) * 3 / (81 - 49 - 1 - 1) = 0.2
says "two labellers agree in 6 of 9 cases" "in 66.7 % of cases"
says "Krippendorff's alpha" "pairs: 0.200 (nominal)"
lines "three pairs" "$work/pairs.jsonl" 3
if grep -q '"chosen": " x", "rejected": " z", "probability": 1,' "$work/pairs.jsonl" &&
   grep -q '"chosen": " y", "rejected": " z", "probability": 0.5,' "$work/pairs.jsonl"; then ok "probabilities"; else bad "probabilities"; fi
$prep rankings "$work/three.jsonl" --disagreement drop --out "$work/drop.jsonl" > "$work/out" 2>&1
lines "drop: two pairs" "$work/drop.jsonl" 2
says "and says so" "^1 pair left out: labellers disagree"
$prep rankings "$a" "$work/three.jsonl" --min-labellers 2 --out "$work/min.jsonl" > "$work/out" 2>&1
lines "--min-labellers" "$work/min.jsonl" 3
says "skipped and undone" "; 0 skipped, 1 undone"
echo '{"labeller": "a", "prompt": "P", "responses": [" x", " x", " z"], "ranking": [[0], [2], [1]]}' > "$work/same.jsonl"
$prep rankings "$work/same.jsonl" --out "$work/same-pairs.jsonl" > "$work/out" 2>&1
says "two responses with the same text make no pair" "^1 pair left out: both responses are the same text"
lines "the other two pairs are there" "$work/same-pairs.jsonl" 2
sed 's/"undo": true/"undo": false/' "$a" > "$work/bad.jsonl"
refuses "a line without an answer" 1 "not a prompt with 2 to 9 responses: .*line 3" $prep rankings "$work/bad.jsonl" --out "$work/x"
sed 's/\[\[0\]/[[0], [0]/' "$work/three.jsonl" > "$work/bad.jsonl"
refuses "a response twice in a ranking" 1 "not a ranking of all responses" $prep rankings "$work/bad.jsonl" --out "$work/x"
refuses "no answers at all" 1 "no ranking" $prep rankings /dev/null --out "$work/x"
head -n 1 "$work/three.jsonl" | sed 's/"P"/"Q"/' > "$work/undone.jsonl"
echo '{"labeller": "a", "prompt": "Q", "undo": true}' >> "$work/undone.jsonl"
refuses "an answer that was undone" 1 "no ranking" $prep rankings "$work/undone.jsonl" --out "$work/x"
$prep rankings "$work/three.jsonl" "$work/undone.jsonl" --out "$work/x.jsonl" > "$work/out" 2>&1
says "its prompt does not count" "^3 rankings of 1 prompt by 3 labellers; 0 skipped, 1 undone"

# A judge learns from them. All pairs of one prompt are in the same part.
i=0
while [ $i -lt 60 ]; do
    echo "{\"labeller\": \"a\", \"prompt\": \"Number $i is\", \"responses\": [\" fine and good\", \" bad\", \" so so\"], \"ranking\": [[0], [2], [1]]}"
    i=$((i + 1))
done > "$work/many.jsonl"
$prep rankings "$work/many.jsonl" --out "$work/many-pairs.jsonl" > "$work/out" 2>&1
$prep data "$work/many-pairs.jsonl" --out "$work/many.bin" > "$work/out" 2>&1
says "prep data reads the pairs" "180 pairs (chosen, rejected), [0-9]* held out"
held=$(sed -n 's/.*rejected), \([0-9]*\) held out.*/\1/p' "$work/out")
if [ -n "$held" ] && [ "$held" -gt 0 ] && [ $((held % 3)) = 0 ]; then ok "prompts are held out whole: $held pairs"; else bad "prompts are held out whole: $held pairs"; fi
$rm_ "$work/many.bin" --tokenizer data/reward --dim 16 --layers 1 --heads 2 --ffn 32 --steps 40 --batch 8 --lr 5e-3 --spam 0 --out "$work/judge" > "$work/out" 2>&1
if [ -f "$work/judge/model.safetensors" ]; then ok "a judge is trained on them"; else bad "a judge is trained on them: $(tail -n 3 "$work/out")"; fi

echo "label: $passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
