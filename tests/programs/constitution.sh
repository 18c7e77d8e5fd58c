#!/bin/sh
# constitution.sh - tests `run critique` and `run prefer` from outside, on data/policy: what they write, that a stopped run goes on, and that
# prep, sft and rm can use it. BIN: the folder of the programs (default .); RUN: an emulator. Last line:
# `constitution: N passed, N failed, N skipped`.
cd "$(dirname "$0")/../.." || exit 1
bin="${RUN:-} ${BIN:-.}" run="${RUN:-} ${BIN:-.}/run"
work=$(mktemp -d "${TMPDIR:-/tmp}/constitution.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
ok() { passed=$((passed + 1)); [ -z "$VERBOSE" ] || echo "  ok    $1"; }
bad() { failed=$((failed + 1)); echo "  FAIL  $1"; }
same() { if [ -s "$2" ] && cmp -s "$2" "$3"; then ok "$1"; else bad "$1"; fi; }
# is NAME WANTED GOT
is() { if [ "$2" = "$3" ]; then ok "$1"; else bad "$1: got '$3', wanted '$2'"; fi; }
# exits NAME CODE TEXT COMMAND ...: the command exits with this code, and its message has the text
exits() {
    name=$1 want=$2 text=$3; shift 3
    "$@" > "$work/out" 2> "$work/err" < /dev/null
    code=$?
    if [ $code = "$want" ] && grep -q -e "$text" "$work/err"; then ok "$name"; else bad "$name: exit $code, wanted $want: $(head -n 3 "$work/err")"; fi
}
cat > "$work/one.txt" <<'END'
principle: only
critique: What is wrong?
revision: Do better.
preference: Which film is better?
example: only
prompt: Was it good?
response: No.
critique: Too short.
revision: No, it was dull.
choice: only
prompt: A film?
a: This one.
b: That one.
answer: A
END
for k in 1 2 3 4 5 6 7; do printf '{"prompt": "Tell me about\\nfilm %s.", "a": "It is a fine film.", "b": " A dull %s "}\n' $k $k; done > "$work/ask.jsonl"
one="--constitution $work/one.txt" all="--constitution data/constitution.txt --shots 0 -n 12"
critique="$run critique data/policy $work/ask.jsonl --jsonl $all --rounds 2"
prefer="$run prefer data/policy $work/ask.jsonl --jsonl $all"

# ---- critique ----
$critique --batch 3 > "$work/c.jsonl"
is "critique: a line for each prompt" 7 "$(wc -l < "$work/c.jsonl" | tr -d ' ')"
is "critique: the fields" 7 "$(grep -c '^{"index": [1-7], "prompt": "Human: Tell me about\\nfilm [1-7].\\n\\nAssistant:", "response": " .*", "revision": " .*", "rounds": \[{"principle": "[a-z]*", "critique": "[^ ].*", "revision": "[^ ].*"}, {"principle": "[a-z]*", "critique": "[^ ].*", "revision": "[^ ].*"}\]}$' "$work/c.jsonl")"
if [ "$(sed 's/.*"rounds": \[{"principle": "\([a-z]*\)".*/\1/' "$work/c.jsonl" | sort -u | wc -l)" -gt 2 ]; then ok "critique: several principles"; else bad "critique: several principles"; fi
for n in 1 50; do
    $critique --batch $n --out "$work/c$n.jsonl" > "$work/said"
    same "critique: the same texts in batches of $n" "$work/c.jsonl" "$work/c$n.jsonl"
done
$critique --seed 2 > "$work/other"
if cmp -s "$work/c.jsonl" "$work/other"; then bad "critique: another seed"; else ok "critique: another seed"; fi
# the response is what `run generate` writes after the same text: greedy, since the random numbers are others
$critique --temperature 0 > "$work/got"
sed 's/.*"prompt": \("[^"]*"\), "response.*/{"prompt": \1}/' "$work/c.jsonl" | $run generate data/policy --jsonl --greedy -n 12 | sed 's/.*Assistant:\( [^\\"]*\).*/\1/' > "$work/want"
sed 's/.*"response": "\( [^\\"]*\).*/\1/' "$work/got" > "$work/responses"
same "critique: the response is what the policy writes" "$work/responses" "$work/want"
printf '{"prompt": 1}\n{"prompt": "Human: A film?\\n\\nAssistant:"}\n' > "$work/two.jsonl"
exits "critique: a line without a prompt" 1 "line 1" $run critique data/policy "$work/two.jsonl" --jsonl $all
is "critique: a conversation stays as it is, and the other lines go on" '{"index": 2, "prompt": "Human: A film?\n\nAssistant:", "response":' "$(cut -d' ' -f 1-7 "$work/out")"
echo "A film?" > "$work/line"
exits "critique: more few-shot texts than fit" 1 "tokens that the policy would read" $run critique data/policy "$work/line" --constitution data/constitution.txt
grep -q '^  try: fewer --shots, a smaller -n, a shorter prompt or answer$' "$work/err" && ok "... no larger --context than there is" ||
    bad "... $(cat "$work/err")"
exits "critique: a context that can be larger" 1 "try: a smaller -n, a shorter prompt or answer, or a larger --context" \
    $run critique data/policy "$work/line" $all --context 20
is "critique: nothing is written for it" 0 "$(wc -c < "$work/out" | tr -d ' ')"
$run critique data/policy "$work/line" $one --shots 1 -n 4 > "$work/shots"
$run critique data/policy "$work/line" $one --shots 0 -n 4 > "$work/none"
if [ -s "$work/shots" ] && ! cmp -s "$work/shots" "$work/none"; then ok "critique: few-shot texts are read"; else bad "critique: few-shot texts are read"; fi

$run critique data/policy "$work/line" $one --shots 0 --template chatml -n 4 > "$work/got"
is "critique: a template" 1 "$(grep -c '"prompt": "<|im_start|>user\\nA film?<|im_end|>\\n<|im_start|>assistant\\n", "response": "[^ ].*<|im_end|>\\n", "revision": "[^ ].*<|im_end|>\\n"' "$work/got")"
printf '{"prompt": "a\\u0000b"}\n' > "$work/nul.jsonl"
exits "critique: a NUL in a prompt" 1 "a NUL character" $run critique data/policy "$work/nul.jsonl" --jsonl $one

# ---- a stopped run goes on ----
$critique --out "$work/torn.jsonl" > "$work/said"
head -n 2 "$work/c.jsonl" > "$work/torn.jsonl"; sed -n 3p "$work/c.jsonl" | cut -c1-40 | tr -d '\n' >> "$work/torn.jsonl"
$critique --out "$work/torn.jsonl" > "$work/said" 2> "$work/err"
same "resume: after a torn line" "$work/c.jsonl" "$work/torn.jsonl"
if grep -q "5 lines written, 2 were there" "$work/said" && grep -q "^7/7 " "$work/said" && grep -q "not complete" "$work/err"; then ok "resume: it says so"; else bad "resume: $(cat "$work/said" "$work/err")"; fi
$critique --out "$work/torn.jsonl" > "$work/said"
same "resume: a complete file stays" "$work/c.jsonl" "$work/torn.jsonl"
# A file beside --out has the options: each that differs is named, and a changed model or constitution too
for other in --seed=2 -n=13 --shots=1 --rounds=3 --temperature=0.5 --top-p=0.9 --context=99 --template=chatml --compute=bf16 --nf4; do
    exits "resume: another $other" 2 "made with another ${other%%=*}: " $critique $other --out "$work/torn.jsonl"
done
grep -q '^  try: --nf4=no as before, or another --out$' "$work/err" && ok "... and what it was" || bad "... $(cat "$work/err")"
sed 's/"--template": "none", //' "$work/torn.jsonl.options" > "$work/older" && ! cmp -s "$work/older" "$work/torn.jsonl.options"
made=$?; cp "$work/torn.jsonl.options" "$work/newer"; cp "$work/older" "$work/torn.jsonl.options"
$critique --out "$work/torn.jsonl" > "$work/said" 2> "$work/more"
[ $made = 0 ] && grep -q "0 lines written, 7 were there" "$work/said" && ok "resume: an option that was not there then, at its default" ||
    bad "resume: options of an older version: $(cat "$work/more" "$work/newer")"
exits "resume: an option that was not there then" 2 "made with another --template: " $critique --template chatml --out "$work/torn.jsonl"
cp "$work/newer" "$work/torn.jsonl.options"
cp "$work/c.jsonl" "$work/old.jsonl"; $critique --out "$work/old.jsonl" > "$work/said" 2> "$work/err"
{ echo; sed 'a\
 ' "$work/c.jsonl"; } > "$work/blank.jsonl"
$critique --out "$work/blank.jsonl" > "$work/said" 2> "$work/more"
grep -q "0 lines written, 7 were there" "$work/said" && ok "resume: blank lines are left out" || bad "resume: blank lines: $(cat "$work/more")"
grep -q 'nobody knows with which options' "$work/err" && [ ! -e "$work/old.jsonl.options" ] &&
    ok "resume: without the options it says so, and writes none" || bad "resume: without the options"
cp -r data/policy "$work/copy"; cp data/constitution.txt "$work/rules.txt"
again="$run critique $work/copy $work/ask.jsonl --jsonl --constitution $work/rules.txt --shots 0 -n 12 --rounds 2"
$again --out "$work/a.jsonl" > "$work/said"
$again --batch 2 --out "$work/a.jsonl" > "$work/said" && grep -q "0 lines written, 7 were there" "$work/said" &&
    ok "resume: the same options" || bad "resume: the same options: $(cat "$work/said")"
$critique --out "$work/a.jsonl" > "$work/said" && ok "resume: the same model in another place" || bad "resume: the model's place"
$bin/sft data/imdb.bin --policy data/policy --lora-r 1 --steps 1 --eval-every 0 --out "$work/adapter" > "$work/said" 2> "$work/err"
exits "resume: an adapter" 2 "another --adapter" $again --adapter "$work/adapter" --out "$work/a.jsonl"
echo "# more" >> "$work/rules.txt"
exits "resume: a constitution that has changed" 2 "constitution has changed" $again --out "$work/a.jsonl"
cp data/constitution.txt "$work/rules.txt"; chmod u+w "$work/copy/model.safetensors"
printf '\000\074' | dd of="$work/copy/model.safetensors" bs=1 seek=$(($(wc -c < data/policy/model.safetensors) - 2)) \
    conv=notrunc 2> "$work/err"
exits "resume: a model that has changed" 2 "MODEL has changed" $again --out "$work/a.jsonl"
exits "resume: another model" 2 "another MODEL: .*torn.jsonl" $run critique "$work/copy" "$work/ask.jsonl" --jsonl $all --rounds 2 --out "$work/torn.jsonl"
exits "resume: another command" 2 "made by run critique" $prefer --out "$work/a.jsonl"
head -n 3 "$work/ask.jsonl" > "$work/less.jsonl"
exits "resume: prompts that are gone" 1 "line 4" $run critique data/policy "$work/less.jsonl" --jsonl $all --rounds 2 --out "$work/torn.jsonl"
same "resume: a refused file is not changed" "$work/c.jsonl" "$work/torn.jsonl"
printf 'no json\n' > "$work/strange.jsonl"
exits "resume: another file" 1 "did not write" $critique --out "$work/strange.jsonl"
for signal in KILL TERM; do
    rm -f "$work/k.jsonl"
    $critique --batch 1 --out "$work/k.jsonl" > "$work/said" 2>&1 & pid=$!
    while [ ! -s "$work/k.jsonl" ] && kill -0 $pid 2> "$work/err"; do :; done
    kill -$signal $pid 2> "$work/err"; wait $pid 2> "$work/err"
    $critique --out "$work/k.jsonl" > "$work/said"
    same "resume: after SIG$signal" "$work/c.jsonl" "$work/k.jsonl"
done

# ---- prefer ----
$prefer > "$work/p.jsonl"
is "prefer: the fields" 7 "$(grep -c '^{"index": [1-7], "prompt": "Human: .*Assistant:", "chosen": " .*", "rejected": " .*", "probability": [01][.][0-9]*, "orders": \[[01][.][0-9]*, [01][.][0-9]*\], "principle": "[a-z]*"}$' "$work/p.jsonl")"
$prefer --batch 2 --out "$work/p2.jsonl" > "$work/said"
same "prefer: the same lines in batches" "$work/p.jsonl" "$work/p2.jsonl"
head -c 700 "$work/p.jsonl" > "$work/p3.jsonl"; $prefer --out "$work/p3.jsonl" > "$work/said" 2> "$work/err"
same "prefer: a stopped run goes on" "$work/p.jsonl" "$work/p3.jsonl"
exits "prefer: another --clamp" 2 "another --clamp" $prefer --clamp 0.4 --out "$work/p2.jsonl"
exits "prefer: a writer" 2 "another --writer" $prefer --writer data/policy --out "$work/p2.jsonl"
# both orders: exchanging the answers changes nothing but which order comes first
given="$run prefer data/policy $work/ask.jsonl $one"
$given --first a --second b | sed 's/"orders".*//' > "$work/ab"; $given --first b --second a | sed 's/"orders".*//' > "$work/ba"
same "prefer: the answers' order does not matter" "$work/ab" "$work/ba"
is "prefer: white space around a given answer goes" 7 "$(grep -c '" A dull [1-7]"' "$work/ab")"
# the probability from `run logprobs`: the mean of both orders
head -n 1 "$work/ask.jsonl" > "$work/first.jsonl"
for order in '(A) It is a fine film.\n(B) A dull 1' '(A) A dull 1\n(B) It is a fine film.'; do
    for letter in A B; do
        printf '{"text": "Consider the following conversation between a human and an assistant:\\n\\nHuman: Tell me about\\nfilm 1.\\n\\nAssistant:\\n\\nWhich film is better?\\n\\nOptions:\\n%s\\n\\nThe answer is: (%s)"}\n' "$(printf %s "$order" | sed 's/\\n/\\\\n/g')" $letter
    done
done | sed 's/\\\\n/\\n/g' > "$work/asked.jsonl"
$run logprobs data/policy "$work/asked.jsonl" --jsonl | sed 's/.*"logprobs": \[\(.*\)\]}/\1/' | awk -F', ' '
    { s = 0; for (i = 1; i <= NF; i++) s += $i; total[NR] = s }
    END { p = (1 / (1 + exp(total[2] - total[1])) + 1 / (1 + exp(total[3] - total[4]))) / 2; printf "%.4f\n", p < 0.5 ? 1 - p : p }' > "$work/want"
$run prefer data/policy "$work/first.jsonl" $one --shots 0 --first a --second b | sed 's/.*"probability": \([0-9.]*\).*/\1/' | awk '{ printf "%.4f\n", $1 }' > "$work/got"
same "prefer: the probability is that of run logprobs" "$work/want" "$work/got"
$given --first a --second b --out "$work/given" > "$work/said"
exits "prefer: answers that were there" 2 "another --first" $given --jsonl --out "$work/given"
grep -q '^  try: --first=a as before' "$work/err" && ok "... and where" || bad "... $(cat "$work/err")"
$given --first a --second b --clamp 0.49 | sed 's/.*"probability": \([0-9.]*\).*/\1/' > "$work/got"
is "prefer: --clamp" 0 "$(awk '$1 < 0.5 || $1 > 0.51' "$work/got" | wc -l | tr -d ' ')"
$run prefer data/policy "$work/ask.jsonl" --jsonl $one -n 4 --writer data/policy > "$work/w1"; $run prefer data/policy "$work/ask.jsonl" --jsonl $one -n 4 > "$work/w2"
same "prefer: --writer" "$work/w1" "$work/w2"
exits "prefer: a field that is not there" 1 'no string "c"' $given --first a --second c
exits "prefer: --no-special with a template" 2 "special tokens" $given --first a --second b --template zephyr --no-special
$given --first a --second b --template zephyr > "$work/zephyr"
is "prefer: a template" 7 "$(grep -c '"chosen": "[^ ].*</s>\\n", "rejected": "[^ ].*</s>\\n"' "$work/zephyr")"
exits "prefer: --first alone" 2 "go together" $given --first a
exits "prefer: -n without an answer to write" 2 "no answer is written" $given --first a --second b -n 4

# ---- the next programs ----
if $bin/prep data "$work/c.jsonl" --prompt prompt --response revision --out "$work/c.bin" > "$work/said" 2>&1 &&
    $bin/sft "$work/c.bin" --policy data/policy --steps 1 --out "$work/sl" > "$work/said" 2>&1
then ok "critique, prep data, sft"; else bad "critique, prep data, sft: $(tail -n 2 "$work/said")"; fi
if $bin/prep data "$work/p.jsonl" --out "$work/p.bin" > "$work/said" 2>&1 && grep -q "7 pairs\|7 text" "$work/said" &&
    $bin/rm "$work/p.bin" --tokenizer data/reward --dim 16 --layers 1 --heads 2 --ffn 16 --steps 1 --out "$work/pm" > "$work/said" 2>&1
then ok "prefer, prep data, rm"; else bad "prefer, prep data, rm: $(tail -n 2 "$work/said")"; fi
if $bin/prep tokenizer data/imdb.bin --kind t5 --vocab 300 --out "$work/t5-words" > "$work/said" 2>&1 &&
    $bin/sft "$work/c.bin" --family t5 --tokenizer "$work/t5-words" --dim 16 --layers 1 --heads 2 --steps 2 --out "$work/t5" > "$work/said" 2>&1
then
    for n in 1 3; do
        $run generate "$work/t5" "$work/ask.jsonl" --jsonl -n 9 --batch $n > "$work/g$n"
        $run critique "$work/t5" "$work/ask.jsonl" --jsonl $one -n 4 --batch $n > "$work/t$n"
        $run prefer "$work/t5" "$work/ask.jsonl" --jsonl $one -n 4 --batch $n > "$work/q$n"
    done
    same "T5: generate in batches" "$work/g1" "$work/g3"
    same "T5: critique" "$work/t1" "$work/t3"
    same "T5: prefer" "$work/q1" "$work/q3"
    is "T5: all lines" "7 7 7" "$(cat "$work/g1" | wc -l | tr -d ' ') $(grep -c rounds "$work/t1") $(grep -c orders "$work/q1")"
else bad "T5: $(tail -n 2 "$work/said")"; fi

# ---- make constitutional, with few texts and one step of everything; its commands are run as make prints them ----
if env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL make -n -o all constitutional RUN="$RUN" CAI="$work/cai" CAI_TEXTS="lessons:400:1 judged:100:2 asked:6:3 asked:40:4 asked:3:5" \
    CAI_RULES="--constitution data/constitution.txt --shots 0 -n 8" CAI_WORDS="--tokenizer $work/cai/words --dim 16 --layers 1 --heads 2 --ffn 16" \
    CAI_POLICY="--dim 16 --layers 1 --heads 2 --positions 512 --steps 1" CAI_JUDGE="--steps 1" CAI_SFT="--steps 1" CAI_RM="--steps 1" \
    CAI_PPO="--steps 1 --batch-size 2 --mini-batch-size 2 --query-max 90 --response-max 8 --response-min 8 --eval-queries 2" > "$work/recipe" 2> "$work/err" &&
    sh -e "$work/recipe" > "$work/said" 2>&1 && [ "$(grep -c '^[a-z0-9-]*: [0-3] of 3 answers are harmless' "$work/said")" -eq 3 ]
then ok "make constitutional, all its commands"; else bad "make constitutional: $(cat "$work/err"; tail -n 3 "$work/said")"; fi

# ---- wrong usage, and a broken constitution ----
exits "no --constitution" 2 "constitution" $run critique data/policy "$work/line"
exits "a constitution that is not there" 1 "none.txt" $run critique data/policy "$work/line" --constitution "$work/none.txt"
printf 'principle: a\ncritique: b\nrevisoin: c\n' > "$work/wrong.txt"
exits "a misspelt key" 1 "line 3" $run prefer data/policy "$work/line" --constitution "$work/wrong.txt"
exits "more --shots than there are" 1 "fewer few-shot texts" $run prefer data/policy "$work/line" $one --shots 2
exits "--out is the input" 2 "out" $critique --out "$work/ask.jsonl"

echo "constitution: $passed passed, $failed failed, 0 skipped"
[ $failed -eq 0 ]
