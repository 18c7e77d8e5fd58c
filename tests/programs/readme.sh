#!/bin/sh
# tests/programs/readme.sh - what README.md and docs/ say about the programs: the commands of "Your own files" run as
# they stand there, for one step and on small files that are made here; the tables of the log have the keys
# that logs have, all of them and no others; every option and every make target that README names exists.
# RUN: an emulator, if any. Last line: `readme: N passed, N failed, N skipped`.
cd "$(dirname "$0")/../.." || exit 1
home=$(pwd) passed=0 failed=0 skipped=0
OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
export OMP_WAIT_POLICY
work=$(mktemp -d "${TMPDIR:-/tmp}/readme.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

ok()  { passed=$((passed + 1)); [ -z "$VERBOSE" ] || echo "  ok    $1"; }
bad() { failed=$((failed + 1)); echo "  FAIL  $1"; }
# nothing FILE WHAT: a check that passes if the file is empty
nothing() { if [ -s "$1" ]; then bad "$2"; sed 's/^/        /; 9,$d' "$1"; else ok "$2"; fi; }

# ---- the programs, and what stands in for the reader's files and checkpoints ----
for p in prep rm sft ppo run; do
    printf '#!/bin/sh\nexec %s "%s/%s" "$@"\n' "$RUN" "$home" "$p" > "$p"; chmod +x "$p"
done
ln -s "$home/data" data
ln -s data/policy TinyLlama-1.1B-Chat-v0.3
ln -s data/reward roberta-base
awk 'function pick(n) { x = (x * 1103515245 + 12345) % 2147483648; return int(x / 65536) % n }
     function word(    i, w) {          # any letters, so that a tokenizer finds as many pieces as it needs
         for (i = pick(6) + 3; i > 0; i--) w = w substr("abcdefghijklmnopqrstuvwxyz", pick(26) + 1, 1)
         return w
     }
     function review(good) {
         return "The " word() " of this " word() " " word() " was " (good ? "wonderful" : "dreadful") "."
     }
     BEGIN { x = 7
         for (i = 0; i < 400; i++) {
             printf "{\"text\": \"%s %s\", \"label\": %d}\n", review(i % 2), review(i % 2), i % 2 \
                 > "reviews.jsonl"
             printf "{\"prompt\": \"Number %d? \", \"response\": \"%s\"}\n", i, review(1) > "answers.jsonl"
             printf "{\"prompt\": \"Number %d? \", \"chosen\": \"%s\", \"rejected\": \"%s\"}\n", \
                 i, review(1), review(0) > "preferences.jsonl"
         } }'
printf 'The film\nThe music\n' > prompts.txt
cp prompts.txt texts.txt

# ---- the commands ----
i=0; while [ $i -lt 40 ]; do echo "2 1=3 4"; i=$((i + 1)); done > rankings.txt
sed -n '/^## Your own files/,/^## What a run/s/^    //p' "$home/README.md" > commands
sed -n 's/^    \(\.\/\)/\1/p' "$home"/docs/*.md >> commands
if [ "$(grep -c '^\./' commands)" -ge 15 ]; then ok "there are commands"; else bad "no commands in README"; fi
while read -r command; do
    less= keys=texts.txt
    case "$command" in
        ./run\ label*) keys=rankings.txt ;;
        ./ppo*) less="--steps 1 --batch-size 4 --mini-batch-size 4 --eval-queries 4" ;;
        ./sft* | ./rm*) less="--steps 1" ;;
    esac
    if sh -c "$command $less" < $keys > said 2>&1; then ok "$command"
    else bad "$command"; tail -n 3 said | sed 's/^/        /'; fi
done < commands
./prep data reviews.jsonl --labels hate,nothate --out hate.bin > said 2>&1 &&
    ./rm hate.bin --tokenizer my/judge-tokenizer --steps 1 --out hate-judge > said 2>&1 &&
    ./ppo my/reviews.bin --policy my/policy --reward my/judge,hate-judge --kl-in loss --stop a --value-model my/policy --steps 1 --batch-size 4 --mini-batch-size 4 \
    --best-of 2 --eval-queries 2 --out my > said 2>&1 && ok "a run with keys that others lack" || bad "ppo --kl-in loss"

# ---- the classes that open ----
./run models | awk '{ print $2 }' | sort -u > opens
sed -n '/^## What opens/,/^## /p' "$home/README.md" | grep '^| `' | grep -o '[A-Za-z0-9]*\(For[A-Z][A-Za-z]*\|LMHeadModel\)' |
    sort -u > listed
diff opens listed > differ
nothing differ "README lists the classes that open, and no others"

# ---- the keys of the logs, and the first column of the tables; _N is a number or _full ----
cat my/*/log.jsonl my/*/time.jsonl runs/*/log.jsonl answers-sft/*.jsonl preferences-judge/*.jsonl | sed '/^{"program"/d' |
    grep -o '"[a-z_0-9/]*": ' | tr -d '": ' | sed -e 's/_\([0-9]*\|full\)$/_N/' -e 's|confusion/.*|confusion/truth/answer|' | sort -u > keys
sed -n '/^### The log/,/^## /p' "$home/README.md" > section
grep -o '`[a-z_0-9/N]*`' section | tr -d '`' | sort -u > named
{
    sed -n 's/^| \(`[^|]*\)|.*$/\1/p' section | grep -o '`[a-z_0-9/N]*`' | tr -d '`'
    grep -E '^(env|eval|objective|ppo|time|tokens|train)/.' named
} | sort -u > tabled
grep -vxF -f named keys > missing
nothing missing "keys of the logs that README does not name"
grep -vxF -f keys tabled > invented
nothing invented "keys that README names and no log has"

# ---- options and targets ----
# Commands of prep and run are the first words of the lines of their --help that begin with two blanks.
for p in rm sft ppo $(for q in prep run; do ./$q --help | sed -n "s/^  \([a-z0-9]*\)  *.*/$q,\1/p"; done); do
    ./$(echo "$p" | tr ',' ' ') --help
done > help 2>&1
echo "  --logdir (tensorboard's own option)" >> help
cat "$home/README.md" "$home"/docs/*.md | grep -o -e '--[a-z][a-z0-9-]*' | sort -u > options
for option in $(cat options); do
    grep -q -e "^ *\(--[a-z-]*, \)*$option\b" help ||
        grep -qF -e "'$option'" "$home/tests/bench/bench_peers.py" || echo "$option"
done > missing
nothing missing "options that README or docs/ names and no program has"
grep -o '\bmake [a-z]\{1,\}\b' "$home/README.md" | sort -u | while read -r make target; do
    grep -q "^$target:" "$home/Makefile" || echo "make $target"
done > missing
nothing missing "targets that README names and the Makefile has not"

echo "readme: $passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
