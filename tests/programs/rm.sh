#!/bin/sh
# tests/programs/rm.sh - reward models from outside: pairs with probabilities. RUN: an emulator, if any.
# Last line: `rm: N passed, N failed, N skipped`.
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
# is WHAT: the last command has to have succeeded
is() { if [ $? = 0 ]; then ok "$1"; else bad "$1"; fi; }
# exits CODE WHAT COMMAND ...: output in said.txt, errors in errors.txt
exits() {
    wanted=$1 what=$2; shift 2
    $RUN "$@" > said.txt 2> errors.txt < /dev/null
    code=$?
    [ $code = "$wanted" ]; is "$what: exit $code, wanted $wanted"
}
# says CODE TEXT WHAT COMMAND ...: errors.txt has the text, too, and what to try
says() {
    code_wanted=$1 text=$2 what=$3; shift 3
    exits "$code_wanted" "$what" "$@"
    grep -q -- "$text" errors.txt && grep -q "^  try: ." errors.txt; is "$what: the message '$text'"
}
# last KEY FOLDER: the key's last value in a log
last() { sed -n "s|.*\"$1\": \\([^,}]*\\).*|\\1|p" "$2/log.jsonl" | tail -n 1; }
# within A B TOLERANCE
within() { awk -v a="$1" -v b="$2" -v t="$3" 'BEGIN { d = a - b; exit !(a != "" && b != "" && d <= t && -d <= t) }'; }

# ---- a corpus, made here: praise and blame, as texts with labels and as pairs ----
awk 'function pick(list,    a, n) {
         n = split(list, a, " ")
         x = (x * 1103515245 + 12345) % 2147483648
         return a[int(x / 65536) % n + 1]
     }
     function review(good,    text, s) {
         for (s = 0; s < 2; s++)
             text = text "The " pick("film story cast music ending plot camera") " of this " \
                    pick("movie show drama comedy western") " was " \
                    (good ? pick("wonderful moving brilliant warm") : pick("dreadful boring clumsy cold")) ". "
         return text
     }
     BEGIN { x = 7
         for (i = 0; i < 240; i++) {
             a = review(1) "Number " i "."; b = review(0) "Number " i "."
             printf "{\"text\": \"%s\", \"label\": %d}\n", i % 2 ? a : b, i % 2 > "reviews.jsonl"
             printf "{\"chosen\": \"%s\", \"rejected\": \"%s\"}\n", a, b > "sure.jsonl"
             if (i % 2) printf "{\"chosen\": \"%s\", \"rejected\": \"%s\", \"probability\": 0.05}\n", b, a > "soft.jsonl"
             else printf "{\"chosen\": \"%s\", \"rejected\": \"%s\", \"probability\": 0.95}\n", a, b > "soft.jsonl"
             printf "{\"chosen\": \"%s\", \"rejected\": \"%s\", \"probability\": 0.5}\n", a, b > "half.jsonl"
         } }'
exits 0 "prep data" ./prep data reviews.jsonl --out reviews.bin --labels negative,positive
for pairs in sure soft half; do exits 0 "prep data, $pairs" ./prep data $pairs.jsonl --out $pairs.bin; done
exits 0 "prep tokenizer" ./prep tokenizer reviews.bin --kind bytelevel --vocab 400 --out tokenizer
small="--tokenizer tokenizer --dim 32 --layers 1 --heads 2 --ffn 64 --batch 16 --crop 0 --spam 0 --lr 3e-3"

# ---- pairs with probabilities ----
for pairs in sure soft half; do exits 0 "rm, $pairs" ./rm $pairs.bin $small --steps 40 --out $pairs; done
within "$(last eval/accuracy_full soft)" 1 0; is "the text that is probably better is right, first or second: $(last eval/accuracy_full soft)"
# the least loss of a pair whose probability is 0.95 is the entropy, 0.1985
within "$(last eval/loss_full soft)" 0.1985 0.02; is "the margins come to the probabilities' log-odds: $(last eval/loss_full soft)"
within "$(last eval/loss_full sure)" 0 0.05; is "without a probability the first text is better: $(last eval/loss_full sure)"
within "$(last eval/loss_full half)" 0.6931 0.01; is "nothing is learnt where neither text is better: $(last eval/loss_full half)"
within "$(last eval/accuracy_full half)" 0.5 0; is "and each answer is half right: $(last eval/accuracy_full half)"

echo "rm: $passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
