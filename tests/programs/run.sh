#!/bin/sh
# tests/programs/run.sh - tests `run` from outside: every command on the golden models, and on third-party files if ../shared
# exists. BIN: the folder of the programs (default .); RUN: an emulator to run them with. Last line: `run: N passed, N failed, N skipped`.
cd "$(dirname "$0")/../.." || exit 1
run="${RUN:-} ${BIN:-.}/run" shared=${SHARED:-../shared} golden=tests/golden/models
work=$(mktemp -d "${TMPDIR:-/tmp}/run_test.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0

ok() { passed=$((passed + 1)); [ -z "$VERBOSE" ] || echo "  ok    $1"; }
bad() { failed=$((failed + 1)); echo "  FAIL  $1"; }
skip() { skipped=$((skipped + 1)); echo "  skip  $1"; }
# same NAME FILE FILE: both files have the same bytes and are not empty
same() { if [ -s "$2" ] && cmp -s "$2" "$3"; then ok "$1"; else bad "$1"; fi; }
# exits NAME CODE COMMAND ...: the command exits with this code, with a message and without a result
exits() {
    name=$1 want=$2; shift 2
    "$@" > "$work/out" 2> "$work/err" < /dev/null
    code=$?
    if [ $code = "$want" ] && [ -s "$work/err" ] && [ ! -s "$work/out" ]; then ok "$name"; else bad "$name: exit $code, wanted $want"; fi
}
# one_bad NAME TEXT COMMAND ...: the command exits with 1; its message has TEXT; its only output line is {"error": ...}
one_bad() {
    name=$1 text=$2; shift 2
    "$@" > "$work/out" 2> "$work/err" < /dev/null
    code=$?
    if [ $code = 1 ] && grep -q -- "$text" "$work/err" && [ "$(wc -l < "$work/out")" -eq 1 ] && grep -q '^{"error": "[^"]*"}$' "$work/out"
    then ok "$name"; else bad "$name: exit $code, $(cat "$work/err" "$work/out")"; fi
}
# tensor FILE NAME FORMAT: prints a tensor of a safetensors file, a number on each line (FORMAT: od's f4 or d4; the machine has
# to be little-endian)
tensor() {
    header=$(od -A n -t u4 -N 4 "$1" | tr -d ' ')
    place=$(dd if="$1" bs=1 skip=8 count="$header" 2>/dev/null | tr '}' '\n' | grep -F "\"$2\":" |
        sed 's/.*"data_offsets":\[\([0-9]*\),\([0-9]*\)\].*/\1 \2/')
    from=${place% *} to=${place#* }
    od -A n -v -t "$3" -j $((8 + header + from)) -N $((to - from)) "$1" | tr -s ' ' '\n' | grep .
}
# sequences FILE: prints the file's ids, a sequence on each line
sequences() {
    tensor "$1" seq_lens d4 > "$work/lens"
    tensor "$1" ids d4 | awk -v lens="$work/lens" 'BEGIN { getline n < lens } { printf "%s%s", $1, --n ? " " : "\n"; if (!n) getline n < lens }'
}
# numbers KEY: prints the lists under a key of JSON lines, a number on each line
numbers() { sed 's/.*"'"$1"'": \[\([^]]*\)\].*/\1/' | tr -d ' ' | tr ',' '\n' | grep .; }
# near NAME TOLERANCE FILE FILE: both files have as many numbers, and no two differ by more
near() {
    said=$(paste "$3" "$4" | awk -v tol="$2" '{ n++; if (NF != 2) bad = 1; d = $1 - $2; if (d < 0) d = -d; if (d > worst) worst = d }
        END { printf "%d numbers, %.2g apart", n, worst; exit !(n > 0 && !bad && worst <= tol) }') && ok "$1 ($said)" || bad "$1: $said"
}

# expected IDS: reads the logits of every id, a number on each line; prints the log-prob of each id after the first of its line
expected() {
    awk -v ids="$1" '
        BEGIN { while ((getline line < ids) > 0) { n = split(line, t, " "); for (i = 1; i <= n; i++) next_id[++rows] = i < n ? t[i + 1] : -1 } }
        { z[NR - 1] = $1 }
        END { V = NR / rows
              for (r = 0; r < rows; r++) { if (next_id[r + 1] < 0) continue
                  m = -1e30; for (v = 0; v < V; v++) if (z[r * V + v] > m) m = z[r * V + v]
                  s = 0; for (v = 0; v < V; v++) s += exp(z[r * V + v] - m)
                  printf "%.9g\n", z[r * V + next_id[r + 1]] - m - log(s) } }'
}

# ---- the golden models: log-probs, greedy ids, adapters, merging ----
for model in llama-gqa llama-mha-tied llama-odd llama-bf16 llama-f16 llama-sharded; do
    file=$golden/$model/golden.safetensors
    [ $model != llama-sharded ] || file=$golden/llama-gqa/golden.safetensors
    sequences "$file" > "$work/ids"
    $run logprobs $golden/$model "$work/ids" --ids > "$work/lines"
    numbers logprobs < "$work/lines" > "$work/got"; tensor "$file" logits f4 | expected "$work/ids" > "$work/want"
    near "$model: logprobs" 2e-5 "$work/got" "$work/want"
    numbers ids < "$work/lines" > "$work/got"; tensor "$file" ids d4 | tr -d ' ' > "$work/want"
    same "$model: ids come back" "$work/got" "$work/want"
    adapter=$golden/$model/adapter
    [ -d "$adapter" ] || continue
    numbers logprobs < "$work/lines" > "$work/got"; tensor "$file" logprobs f4 > "$work/want"
    near "$model: logprobs as the reference printed them" 2e-5 "$work/got" "$work/want"
    tensor "$file" greedy d4 | tr -d ' ' | paste -s -d ' ' - > "$work/want"
    cut -d ' ' -f 1-4 "$work/want" | $run generate $golden/$model --ids --greedy -n 16 --ignore-eos > "$work/got"
    same "$model: 16 greedy ids" "$work/got" "$work/want"
    $run logprobs $golden/$model "$work/ids" --ids --adapter "$adapter" | numbers logprobs > "$work/adapted"
    tensor "$file" lora.logits f4 | expected "$work/ids" > "$work/want"
    near "$model: logprobs with the adapter" 2e-5 "$work/adapted" "$work/want"
    rm -rf "$work/merged"
    $run merge $golden/$model --adapter "$adapter" --out "$work/merged" --force > "$work/out" || bad "$model: merge"
    $run logprobs "$work/merged" "$work/ids" --ids | numbers logprobs > "$work/got"
    near "$model: merged equals adapted" 1e-4 "$work/got" "$work/adapted"
    $run logprobs $golden/$model "$work/ids" --ids --adapter "$work/merged" 2> "$work/err" | numbers logprobs > "$work/want"
    same "$model: a whole model as --adapter is that model" "$work/got" "$work/want"
    $run merge $golden/$model --adapter "$adapter" --out "$work/half" --force --dtype bf16 > "$work/out" || bad "$model: merge --dtype bf16"
    $run logprobs "$work/half" "$work/ids" --ids | numbers logprobs > "$work/got"
    near "$model: merged as bf16" 0.1 "$work/got" "$work/adapted"
    if [ "$(wc -c < "$work/half/model.safetensors")" -lt "$(wc -c < "$work/merged/model.safetensors")" ]; then ok "bf16 is smaller"; else bad "$model: bf16 is not smaller"; fi
done

# ---- lines: one output line for each input line; long lines go through the cache in blocks ----
model=$golden/llama-gqa
printf '\n1\n1 5 9\n \n' | $run logprobs $model --ids > "$work/got"
{ head -n 2 "$work/got"; tail -n 1 "$work/got"; } > "$work/some"
printf '{"ids": [], "logprobs": []}\n{"ids": [1], "logprobs": []}\n{"ids": [], "logprobs": []}\n' > "$work/want"
same "logprobs: empty lines" "$work/some" "$work/want"
if [ "$(wc -l < "$work/got")" -eq 4 ]; then ok "logprobs: a line for a line"; else bad "logprobs: a line for a line"; fi
printf '\n1 5\n\n' | $run generate $model --ids --greedy -n 3 > "$work/got"
if [ "$(wc -l < "$work/got")" -eq 3 ] && [ "$(sed -n 2p "$work/got" | wc -w)" -eq 5 ] && [ -z "$(sed -n '1p;3p' "$work/got" | tr -d '\n')" ]
then ok "generate: empty lines"; else bad "generate: empty lines"; fi
printf '1 5\n1 5\n' | $run generate $model --ids --seed 3 -n 20 --ignore-eos > "$work/a"
printf '1 5\n1 5\n' | $run generate $model --ids --seed 3 -n 20 --ignore-eos > "$work/b"
printf '1 5\n1 5\n' | $run generate $model --ids --seed 4 -n 20 --ignore-eos > "$work/c"
same "generate: the same seed gives the same ids" "$work/a" "$work/b"
if cmp -s "$work/a" "$work/c"; then bad "generate: another seed"; else ok "generate: another seed"; fi
if [ "$(sort -u "$work/a" | wc -l)" -eq 2 ]; then ok "generate: every line has its own stream"; else bad "generate: every line has its own stream"; fi
printf '1 5\n' | $run generate $model --ids --seed 4 -n 20 --ignore-eos --top-k 1 > "$work/a"
printf '1 5\n' | $run generate $model --ids --greedy -n 20 --ignore-eos > "$work/b"
same "generate: --top-k 1 is greedy" "$work/a" "$work/b"

# ---- a line that cannot be used: an error in its place, and the lines after it are answered ----
awk 'BEGIN { print "1 5 9"; for (i = 0; i < 129; i++) printf "5 "; print "\n1 two\n7 8" }' > "$work/mixed"
printf '1 5 9\n7 8\n' > "$work/good"
# rest NAME COMMAND ...: lines 2 and 3 of $work/mixed give errors, the others what they give in $work/good; exit code 1
rest() {
    name=$1; shift
    "$@" < "$work/mixed" > "$work/got" 2> "$work/err"
    code=$?
    "$@" < "$work/good" > "$work/want" 2> /dev/null
    sed '2,3d' "$work/got" > "$work/some"
    same "$name: the other lines" "$work/some" "$work/want"
    if [ $code = 1 ] && [ "$(wc -l < "$work/got")" -eq 4 ] && [ "$(grep -c 'standard input, line [23]$' "$work/err")" -eq 2 ] &&
        grep -q ': 1[0-9]*; at most [0-9]*: standard input, line 2' "$work/err" && grep -q 'not a list of ids: standard input, line 3' "$work/err"
    then ok "$name: messages"; else bad "$name: exit $code, $(cat "$work/err")"; fi
}
rest logprobs $run logprobs $model --ids
if [ "$(sed -n '2,3p' "$work/got" | grep -c '^{"error": "')" -eq 2 ]; then ok "logprobs: {\"error\"}"; else bad "logprobs: $(sed -n '2,3p' "$work/got")"; fi
rest score $run score $golden/roberta --ids
rest generate $run generate $model --ids --greedy -n 3
if [ -z "$(sed -n '2,3p' "$work/got" | tr -d '\n')" ]; then ok "generate --ids: an empty line"; else bad "generate --ids: $(sed -n '2,3p' "$work/got")"; fi
# lines in batches: the same texts, and a line that cannot be used stays in its place
printf '1 5\n\n1 97\n7 8 9\n2\n3 4 5 6 7\n1 5\n' > "$work/mixed"
for n in 1 3 50; do $run generate $model --ids --seed 3 -n 20 --batch $n "$work/mixed" > "$work/batch-$n" 2> "$work/err"; done
same "generate: the texts do not depend on --batch" "$work/batch-1" "$work/batch-3"
same "generate: a batch larger than the file" "$work/batch-1" "$work/batch-50"
if [ "$(wc -l < "$work/batch-3")" -eq 7 ] && [ -z "$(sed -n '2,3p' "$work/batch-3" | tr -d '\n')" ]
then ok "generate: lines of a batch stay in order"; else bad "generate: lines of a batch: $(cat "$work/batch-3")"; fi
exits "generate: an --adapter that is not there" 1 $run generate $model --ids --prompt 1 --adapter "$work/none"
grep -q 'try: --adapter FOLDER' "$work/err" && ok "and the advice is about --adapter" || bad "advice: $(cat "$work/err")"
exits "generate: --batch with --prompt" 2 $run generate $model --ids --prompt 1 --batch 2
# generate answers a prompt before it reads the next one
mkfifo "$work/prompts" "$work/answers" 2> /dev/null && {
    $run generate $model --ids --greedy -n 3 < "$work/prompts" > "$work/answers" 2> "$work/err" &
    exec 3> "$work/prompts" 4< "$work/answers"
    echo "1 5 9" >&3; read -r first <&4; echo "7 8" >&3; exec 3>&-; read -r second <&4; exec 4<&-
    wait $!
    printf '%s\n%s\n' "$first" "$second" > "$work/got"
    $run generate $model --ids --greedy -n 3 < "$work/good" > "$work/want"
    same "generate: results as they come" "$work/got" "$work/want"
    : > "$work/waits"
    $run generate $model --ids < "$work/prompts" > "$work/waits" 2> "$work/err" &
    waiting=$!
    exec 3> "$work/prompts"; echo "1 5 9" >&3
    tries=0; while [ ! -s "$work/waits" ] && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
    kill -TERM $waiting; (sleep 10; kill -KILL $waiting) 2> /dev/null & guard=$!
    wait $waiting 2> /dev/null; code=$?
    kill $guard 2> /dev/null; exec 3>&-
    if [ $code = 143 ] && [ "$(wc -l < "$work/waits")" -eq 1 ]; then ok "generate: SIGTERM while it waits for a line"; else bad "generate: SIGTERM: exit $code"; fi
}
echo "7 8" | $run generate $model --ids --greedy -n 3 --context 4 > "$work/got" 2> "$work/err"
if [ $? = 1 ] && grep -q ': 5; at most 4:' "$work/err"; then ok "generate: --context"; else bad "generate: --context: $(cat "$work/err")"; fi

# ---- the judge ----
for model in roberta roberta-odd; do
    file=$golden/$model/golden.safetensors
    [ -f "$file" ] || { skip "$model"; continue; }
    sequences "$file" > "$work/ids"
    $run score $golden/$model "$work/ids" --ids > "$work/lines"
    numbers logits < "$work/lines" > "$work/got"; tensor "$file" logits f4 > "$work/want"
    near "$model: logits" 2e-5 "$work/got" "$work/want"
    $run score $golden/$model "$work/ids" --ids --compute f16 | numbers logits > "$work/f16"
    near "$model: logits, --compute f16" 1e-2 "$work/f16" "$work/got"
    if cmp -s "$work/f16" "$work/got"; then bad "which are others"; else ok "which are others"; fi
done
tensor $golden/roberta/golden.safetensors logits f4 | paste - - | awk '{ print ($1 >= $2) ? "nothate" : "hate" }' > "$work/want"
sequences $golden/roberta/golden.safetensors | $run score $golden/roberta --ids | sed 's/.*"label": "\(.*\)"}/\1/' > "$work/got"
same "score: the label is the best one's" "$work/got" "$work/want"
printf '\n' | $run score $golden/roberta --ids > "$work/got"
printf '{"logits": [], "probabilities": {}, "label": null}\n' > "$work/want"
same "score: an empty line" "$work/got" "$work/want"
# ---- lines of JSON, and datasets ----
bin=${RUN:-}\ ${BIN:-.}
printf 'A fine film.\nbad\n' > "$work/texts"
printf '{"text": "A fine film."}\n{"text": "bad"}\n' > "$work/jsonl"
printf '{"text": "A fine film."}\n{"txt": "x"}\n{"text": "\\ud83d"}\n{"text": "bad"}\n' > "$work/broken"
printf '{"chosen": "A fine film.", "rejected": "bad"}\n' > "$work/pairs.jsonl"
printf '{"prompt": "A fine", "response": " film."}\n{"prompt": "b", "response": "ad"}\n' > "$work/prompts.jsonl"
cp "$work/texts" "$work/texts.txt"
for kind in texts.txt pairs.jsonl prompts.jsonl; do $bin/prep data "$work/$kind" --out "$work/${kind%.*}.bin" > "$work/out" 2>&1 || bad "prep data $kind"; done
for how in "score data/reward" "logprobs data/policy"; do
    $run $how "$work/texts" > "$work/want"
    $run $how --jsonl "$work/jsonl" > "$work/got"
    same "${how% *} --jsonl" "$work/got" "$work/want"
    for kind in texts pairs prompts; do
        $run $how "$work/$kind.bin" > "$work/got"
        same "${how% *}: a dataset of $kind" "$work/got" "$work/want"
    done
    $run $how --jsonl "$work/broken" > "$work/got" 2> "$work/err"
    if [ $? = 1 ] && [ "$(sed '2,3d' "$work/got" | cmp - "$work/want" && sed -n '2,3p' "$work/got" | grep -c '^{"error": "')" = 2 ] &&
        grep -q 'string "text": .*line 2' "$work/err" && grep -q 'lone surrogate.*line 3' "$work/err"
    then ok "${how% *} --jsonl: broken lines"; else bad "${how% *} --jsonl: broken lines: $(cat "$work/got" "$work/err")"; fi
    exits "${how% *}: a binary file" 1 $run $how data/policy/model.safetensors
    if grep -q 'a safetensors file, not a text: data/policy/model.safetensors' "$work/err"; then ok "... is named"; else bad "... is named: $(cat "$work/err")"; fi
    exits "${how% *}: --ids and a dataset" 2 $run $how --ids "$work/texts.bin"
done
printf 'A fine\nb\n' | $run generate data/policy --greedy -n 4 > "$work/want"
$run generate data/policy --greedy -n 4 "$work/prompts.bin" > "$work/got"
same "generate: a dataset of prompts" "$work/got" "$work/want"
$run generate data/policy --greedy -n 4 --jsonl "$work/prompts.jsonl" > "$work/got"
same "generate --jsonl" "$work/got" "$work/want"
exits "generate: a dataset of pairs" 1 $run generate data/policy "$work/pairs.bin"
# each label's name and probability: the softmax of the logits; the sigmoid of an only one
$run score $golden/roberta --ids "$work/good" | sed 's/.*\[\(.*\), \(.*\)\], "probabilities": {"\(.*\)": \(.*\), "\(.*\)": \(.*\)}, "label": "\(.*\)"}$/\1 \2 \3 \4 \5 \6 \7/' |
    awk '{ p = 1 / (1 + exp($1 - $2)); d = p - $6; e = $4 + $6 - 1; if (d * d > 1e-10 || e * e > 1e-10 || $7 != ($6 > $4 ? $5 : $3) || NF != 7) bad = 1; print }
        END { exit bad || NR != 2 }' > "$work/out" && ok "score: probabilities" || bad "score: probabilities: $(cat "$work/out")"
# An empty text before a judge whose tokenizer's template adds no token (GPT-2's kind): bos alone, or eos alone, or null.
rm -rf "$work/bare" && cp -r data/reward "$work/bare" && chmod -R u+w "$work/bare" && rm "$work/bare/special_tokens_map.json" "$work/bare/tokenizer.json"
echo '{}' > "$work/bare/tokenizer_config.json"
sed 's/"<s>": 0/"<|endoftext|>": 0/' data/reward/vocab.json > "$work/bare/vocab.json"
printf '\n' | $run score "$work/bare" > "$work/got"; printf '0\n' | $run score "$work/bare" --ids > "$work/want"
same "score: an empty text is bos alone" "$work/got" "$work/want"
sed 's/"<s>": 0/"<a>": 0/' data/reward/vocab.json > "$work/bare/vocab.json"
printf '\n' | $run score "$work/bare" > "$work/got"; printf '{"logits": [], "probabilities": {}, "label": null}\n' > "$work/want"
same "score: an empty text without bos and eos is null" "$work/got" "$work/want"
echo '{"eos_token": "</s>"}' > "$work/bare/tokenizer_config.json"
printf '\n' | $run score "$work/bare" > "$work/got"; printf '2\n' | $run score "$work/bare" --ids > "$work/want"
same "score: an empty text without bos is eos alone" "$work/got" "$work/want"

# A text that is too long for the judge: its end is cut off, but not the template's </s>, and both streams say so.
awk 'BEGIN { for (i = 0; i < 140; i++) printf " and"; print "\n and" }' > "$work/long"
$run score data/reward "$work/long" > "$work/got" 2> "$work/err"
awk 'BEGIN { printf "0"; for (i = 0; i < 126; i++) printf " 273"; print " 2" }' | $run score data/reward --ids > "$work/want"
sed -n '1s/, "tokens_cut": 14}/}/p' "$work/got" > "$work/1"
same "score: a text that is too long loses its end" "$work/1" "$work/want"
echo "run score: the last 14 tokens of a text were cut off, since the judge reads 126: $work/long, line 1" > "$work/want"
same "score: and says so" "$work/err" "$work/want"
if [ "$(grep -c tokens_cut "$work/got")" = 1 ]; then ok "score: only of that text"; else bad "score: only of that text"; fi

# ---- a tokenizer with more ids than the model: <new> is added, and the models' embeddings are as they were ----
bin=${RUN:-}\ ${BIN:-.}
for kind in policy reward; do
    cp -r data/$kind "$work/more-$kind" && chmod -R u+w "$work/more-$kind"
    echo '{"<new>": 2048}' > "$work/more-$kind/added_tokens.json"
    echo '{"mask_token": "<new>", "model_max_length": 20}' > "$work/more-$kind/special_tokens_map.json"
done
printf 'a film\n' > "$work/plain"; printf 'a <new> film\n' > "$work/new"
$run logprobs data/policy "$work/plain" > "$work/want"; $run logprobs "$work/more-policy" "$work/plain" > "$work/got" 2> "$work/err"
same "more ids: a text without the new token is read as before" "$work/got" "$work/want"
if grep -q "2049 ids.*2048" "$work/err"; then ok "more ids: logprobs says so"; else bad "more ids: logprobs: $(cat "$work/err")"; fi
$run logprobs "$work/more-policy" "$work/new" > "$work/got" 2> "$work/err"
if [ $? = 1 ] && grep -q "<new>.*2048" "$work/err" && grep -q '"error"' "$work/got"; then ok "more ids: logprobs refuses the new token by name"; else bad "more ids: $(cat "$work/err")"; fi
exits "more ids: generate refuses it" 1 $run generate "$work/more-policy" --prompt "a <new> film"
$run score "$work/more-reward" "$work/new" > "$work/got" 2> "$work/err"
if [ $? = 1 ] && grep -q '"error".*<new>' "$work/got"; then ok "more ids: score refuses it"; else bad "more ids: score refuses it: $(cat "$work/got")"; fi
$run score data/reward "$work/new" --no-special > "$work/want"; $run score "$work/more-reward" "$work/new" --no-special > "$work/got" 2> "$work/err"
same "more ids: --no-special reads its letters" "$work/got" "$work/want"
for i in 1 2 3 4 5 6 7 8 9 10 11 12; do printf '{"text": "a <new> film %s"}\n' $i; done > "$work/new.jsonl"
if $bin/prep data "$work/new.jsonl" --out "$work/new.bin" > "$work/out" 2>&1; then
    $bin/sft "$work/new.bin" --policy "$work/more-policy" --steps 1 --out "$work/more-sft" > "$work/out" 2> "$work/err"
    if [ $? = 1 ] && grep -q "<new>.*2048" "$work/err"; then ok "more ids: sft refuses it"; else bad "more ids: sft: $(tail -n 2 "$work/err")"; fi
    if $bin/sft "$work/new.bin" --policy "$work/more-policy" --steps 1 --no-special --out "$work/more-sft2" > "$work/out" 2>&1
    then ok "more ids: sft --no-special"; else bad "more ids: sft --no-special: $(tail -n 2 "$work/out")"; fi
else bad "more ids: prep data: $(cat "$work/out")"; fi

# ---- special tokens in texts; a tokenizer.json that asks for something unknown ----
printf 'a</s>\n' > "$work/text"
for kind in policy reward; do
    if $run tokenize data/$kind "$work/text" | grep -q ' 2$' && ! $run tokenize data/$kind "$work/text" --no-special | grep -q ' 2$'
    then ok "tokenize $kind: </s> in a text, and --no-special"; else bad "tokenize $kind: </s> in a text"; fi
done
exits "tokenize: --no-special with --decode" 2 $run tokenize data/policy --decode --no-special
exits "score: --no-special with --ids" 2 $run score data/reward --ids --no-special
cp -r data/reward "$work/odd" && chmod -R u+w "$work/odd"
echo '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "pre_tokenizer": {"type": "Odd"}}' > "$work/odd/tokenizer.json"
exits "tokenize: an unknown tokenizer.json is refused, whatever is beside it" 1 $run tokenize "$work/odd" "$work/text"
if grep -q "tokenizer.json.*Odd" "$work/err"; then ok "tokenize: and what it asks for is named"; else bad "tokenize: $(cat "$work/err")"; fi
# model_max_length cuts what a judge reads
cp -r data/reward "$work/short" && chmod -R u+w "$work/short"
sed -i 's/"model_max_length": 128/"model_max_length": 20/' "$work/short/tokenizer_config.json" 2> /dev/null
awk 'BEGIN { for (i = 0; i < 30; i++) printf " and"; print "" }' | $run score "$work/short" > "$work/got" 2> "$work/err"
if grep -q '"tokens_cut": 12' "$work/got"; then ok "score: model_max_length"; else bad "score: model_max_length: $(cat "$work/got")"; fi

# ---- a policy with more ids than its tokenizer (a padded vocabulary): 2048 ids, of which the tokenizer has 512 ----
pad=$work/padded bin=${RUN:-}\ ${BIN:-.}
if [ -f data/imdb.bin ] && $bin/prep tokenizer data/imdb.bin --vocab 512 --out "$pad" > "$work/out" 2>&1; then
    cp data/policy/config.json data/policy/generation_config.json data/policy/model.safetensors "$pad/"
    echo "The film" | $run tokenize "$pad" --special > "$work/ids"
    $run generate "$pad" --ids -n 40 --seed 2 "$work/ids" | tr ' ' '\n' > "$work/all"
    if [ "$(awk '$1 >= 512' "$work/all" | wc -l)" -gt 0 ]; then ok "padded: ids that the tokenizer lacks are sampled"; else bad "padded: no such id"; fi
    awk '$1 < 512' "$work/all" | paste -s -d ' ' - | $run tokenize "$pad" --decode > "$work/want"
    $run generate "$pad" --prompt "The film" -n 40 --seed 2 > "$work/got" 2> "$work/err"
    same "padded: such ids are written as nothing" "$work/got" "$work/want"
    if [ "$(wc -l < "$work/err")" -eq 1 ] && grep -q "2048.*512" "$work/err"; then ok "padded: generate says so once"; else bad "padded: generate says so once"; fi
    printf 'The film\nA good\n' | $run generate "$pad" -n 40 --seed 2 > "$work/lines" 2> "$work/err"
    if [ "$(wc -l < "$work/lines")" -eq 2 ] && [ "$(wc -l < "$work/err")" -eq 1 ]; then ok "padded: lines"; else bad "padded: lines"; fi
    printf 'The film\n' | $run chat "$pad" --template none -n 40 --seed 2 > "$work/got" 2> "$work/err"
    if [ -s "$work/got" ] && [ "$(grep -c "2048.*512" "$work/err")" -eq 1 ]; then ok "padded: chat says so once"; else bad "padded: chat says so once"; fi
    $run generate data/policy --prompt "The film" -n 4 > "$work/got" 2> "$work/err"
    if [ ! -s "$work/err" ]; then ok "padded: a policy whose tokenizer has all ids says nothing"; else bad "padded: $(cat "$work/err")"; fi
else skip "a padded vocabulary"; fi

# ---- third-party model and tokenizers ----
stories=$shared/data/stories260K
if [ -d "$stories" ] && [ -f "$shared/golden/stories260K_golden.json" ]; then
    tr -d '\n ' < "$shared/golden/stories260K_golden.json" | sed 's/.*"greedy_ids":\[\([0-9,]*\)\].*/\1/' | tr ',' ' ' > "$work/want"; echo >> "$work/want"
    echo 1 | $run generate "$stories" --ids --greedy -n 200 > "$work/got"
    same "stories260K: 200 greedy ids" "$work/got" "$work/want"
    $run generate "$stories" --prompt "" --greedy -n 200 > "$work/text"
    $run tokenize "$stories" --decode "$work/got" > "$work/want"
    same "stories260K: text as written is the ids decoded" "$work/text" "$work/want"
    $run generate "$stories" --prompt "Caf" -n 200 --temperature 5 --ignore-eos > "$work/text"      # parts of characters and whole ones
    echo Caf | $run tokenize "$stories" --special | $run generate "$stories" --ids -n 200 --temperature 5 --ignore-eos |
        $run tokenize "$stories" --decode > "$work/want"
    same "stories260K: noise as written is the ids decoded" "$work/text" "$work/want"
    printf '\n' | $run generate "$stories" --greedy -n 200 | sed 's/^{"text": \(.*\)}$/\1/' > "$work/line"
    tr '\n' ' ' < "$shared/golden/stories260K_golden.json" | sed 's/.*"expected_text": *\("\([^"\\]\|\\.\)*"\).*/\1/' > "$work/want"; echo >> "$work/want"
    same "stories260K: its text" "$work/line" "$work/want"
    $run generate "$stories" --prompt "Once upon a time" --greedy -n 30 > "$work/text"
    printf 'Once upon a time\n' | $run chat "$stories" --template none --temperature 0 -n 30 2>/dev/null | { printf 'Once upon a time'; cat; } > "$work/got"
    same "chat: an answer is the greedy continuation" "$work/got" "$work/text"
    if [ "$(printf 'One day\nThe end\n' | $run chat "$stories" -n 8 --template zephyr 2>/dev/null | wc -l)" -ge 2 ]; then ok "chat: two turns"; else bad "chat: two turns"; fi
    printf 'Once upon a time\n\n' | $run logprobs "$stories" > "$work/got"
    if [ "$(wc -l < "$work/got")" -eq 2 ] && [ "$(tail -n 1 "$work/got")" = '{"ids": [1], "logprobs": []}' ]; then ok "logprobs: text begins with <s>"; else bad "logprobs: text begins with <s>"; fi
    exits "chat: a folder that does not tell its template" 1 $run chat "$stories"
    if grep -q 'chatml.*zephyr.*none' "$work/err"; then ok "chat: which templates there are"; else bad "chat: which templates there are"; fi
    printf 'One day\n/quit\nThe end\n' | $run chat "$stories" -n 8 --template none > "$work/got" 2>/dev/null
    printf 'One day\n' | $run chat "$stories" -n 8 --template none > "$work/want" 2>/dev/null
    same "chat: /quit" "$work/got" "$work/want"
    printf 'One day\nThe end\n/new\nOne day\n' | $run chat "$stories" -n 8 --temperature 0 --template none 2>/dev/null > "$work/turns"
    tail -n "$(wc -l < "$work/want")" "$work/turns" > "$work/got"
    printf 'One day\n' | $run chat "$stories" -n 8 --temperature 0 --template none > "$work/want" 2>/dev/null
    same "chat: /new begins anew" "$work/got" "$work/want"
    if printf 'One day a little girl\nOne day a little girl\n' | $run chat "$stories" --context 12 --template none > "$work/out" 2> "$work/err"
    then bad "chat: a full context"; elif grep -q 'fills all 12 positions' "$work/err"; then ok "chat: a full context says so"; else bad "chat: a full context says so"; fi
    mkdir -p "$work/told" && cp "$stories"/* "$work/told/" && chmod u+w "$work/told"/*
    for kind in zephyr chatml phi; do
        case $kind in zephyr) marks='<|user|> eos_token <|assistant|>' ;; chatml) marks='<|im_start|> <|im_end|>' ;; phi) marks='<|user|> <|end|> <|assistant|>' ;; esac
        printf '{"chat_template": "{%%%% for m in messages %%%%}%s"}\n' "$marks" > "$work/told/tokenizer_config.json"
        if [ $kind = phi ]; then exits "chat: a chat_template of another kind" 1 $run chat "$work/told"; continue; fi
        printf 'One day\n' | $run chat "$work/told" -n 20 --temperature 0 > "$work/got" 2>/dev/null
        printf 'One day\n' | $run chat "$stories" -n 20 --temperature 0 --template $kind > "$work/want" 2>/dev/null
        same "chat: $kind by the folder's chat_template" "$work/got" "$work/want"
    done
else skip "stories260K"; fi

# ---- a chat model that is trained here: <|im_end|> ends an answer, although the config names </s> ----
bin=${RUN:-}\ ${BIN:-.}
for i in 1 2 3 4 5 6 7 8; do for answer in "hi=yes" "no=well"; do
    printf '{"text": "<|im_start|>user\\n%s<|im_end|>\\n<|im_start|>assistant\\n%s<|im_end|>\\n"}\n' "${answer%=*}" "${answer#*=}"
done; done > "$work/chat.jsonl"
if $bin/prep data "$work/chat.jsonl" --out "$work/chat.bin" > "$work/out" 2>&1 &&
   $bin/prep tokenizer "$work/chat.bin" --vocab 300 --out "$work/chat" > "$work/out" 2>&1
then
    printf '{"[PAD]": 300, "<|im_start|>": 301, "<|im_end|>": 302}\n' > "$work/chat/added_tokens.json"
    printf '{"pad_token": "[PAD]", "bos_token": "<s>", "eos_token": "</s>", "additional_special_tokens": ["<|im_start|>", "<|im_end|>"]}\n' > "$work/chat/special_tokens_map.json"
    echo '<|im_start|>a<|im_end|>' | $run tokenize "$work/chat" > "$work/ids"
    if grep -q '^301 .* 302$' "$work/ids"; then ok "tokenize: added tokens"; else bad "tokenize: added tokens: $(cat "$work/ids")"; fi
    $run tokenize "$work/chat" --decode --special "$work/ids" > "$work/got"; echo '<|im_start|> a<|im_end|>' > "$work/want"
    same "tokenize: --decode --special writes them out" "$work/got" "$work/want"
    if $bin/sft "$work/chat.bin" --tokenizer "$work/chat" --dim 32 --layers 1 --heads 2 --ffn 64 --positions 64 --context 64 --steps 60 --tokens 256 --lr 1e-2 \
        --out "$work/model" > "$work/out" 2>&1
    then
        printf 'hi\n/new\nno\n' | $run chat "$work/model" --temperature 0 > "$work/got" 2> "$work/err"; printf 'yes\nwell\n' > "$work/want"
        same "chat: chatml by the folder's tokens, ended by <|im_end|>" "$work/got" "$work/want"
        printf 'hi\n' | $run chat "$work/model" --temperature 0 --template chatml > "$work/got" 2> "$work/err"; printf 'yes\n' > "$work/want"
        same "chat: --template chatml" "$work/got" "$work/want"
        # Twelve markers would fit into the 64 positions; the 60 pieces of their letters do not.
        printf '<|im_start|>%.0s' 1 2 3 4 5 6 7 8 9 10 11 12 | $run chat "$work/model" -n 3 --template chatml > "$work/got" 2> "$work/err"
        if grep -q 'fills all 64 positions' "$work/err"; then ok "chat: markers that are typed are letters"; else bad "chat: markers that are typed are letters"; fi
        if grep -q '"<|im_end|>": 302' "$work/model/added_tokens.json"; then ok "sft: added tokens are written again"; else bad "sft: added tokens"; fi
    else bad "sft on a chat: $(tail -n 1 "$work/out")"; fi
else skip "a chat learnt here"; fi

# ---- advice about lengths; one message for a full disk ----
long=$(printf 'word %.0s' $(seq 300))
for command in logprobs "generate -n 4"; do
    echo "$long" | $run ${command%% *} data/policy - ${command#"${command%% *}"} > "$work/got" 2> "$work/err"
    if [ $? = 1 ] && grep -q 'at most 256' "$work/err" && ! grep -q 'larger --context' "$work/err"
    then ok "${command%% *}: a text above the positions has to be shorter"; else bad "$command: $(cat "$work/err")"; fi
done
echo "$long" | $run logprobs data/policy --context 9 2>&1 | grep -q 'try: a shorter text$'
if [ $? = 0 ]; then ok "--context 9: no larger one would do"; else bad "advice for --context 9"; fi
echo "A good film about a dog" | $run logprobs data/policy --context 3 2>&1 | grep -q 'try: a larger --context$'
if [ $? = 0 ]; then ok "--context 3: a larger one would do"; else bad "advice for --context 3"; fi
if [ -e /dev/full ]; then
    echo "A good" | $run logprobs data/policy > /dev/full 2> "$work/err"
    if [ $? = 1 ] && [ "$(grep -c 'cannot write' "$work/err")" = 1 ] && grep -q 'No space' "$work/err"
    then ok "a full disk: one message, with the reason"; else bad "a full disk: $(cat "$work/err")"; fi
fi

# ---- chat: no mark before the input of a pipe; /help ----
printf 'A fine\n/help\n' | $run chat data/policy --template none --temperature 0 -n 4 > "$work/got" 2> "$work/err"
if [ "$(wc -l < "$work/got")" -ge 1 ] && ! grep -q '^>' "$work/err" && grep -q '^/new ' "$work/err" && grep -q '^/quit ' "$work/err" &&
    ! grep -q '.\{81\}' "$work/err"
then ok "chat: /help, and no mark in a pipe"; else bad "chat: /help: $(cat "$work/err")"; fi

# ---- 4-bit weights: PyTorch's logits of the quantised policy with its adapter, and merged ----
model=$golden/nf4-policy file=$golden/nf4-policy/golden.safetensors
sequences "$file" > "$work/ids"
for how in "nf4 --nf4" "doubled --nf4 --double-quant" "fp4 --fp4 --quant-block 128"; do
    $run logprobs $model "$work/ids" --ids --adapter $model/adapter ${how#* } | numbers logprobs > "$work/got"
    tensor "$file" "${how%% *}.logits" f4 | expected "$work/ids" > "$work/want"
    near "logprobs ${how#* }" 2e-5 "$work/got" "$work/want"
    if $run merge $model --adapter $model/adapter --out "$work/four" --force ${how#* } > "$work/out" && grep -q dequantised "$work/out"; then ok "merge ${how#* }"; else bad "merge ${how#* }"; fi
    $run logprobs "$work/four" "$work/ids" --ids | numbers logprobs > "$work/got"
    near "merged ${how#* }" 1e-4 "$work/got" "$work/want"
done
for as in bf16 f16; do      # relative errors of 2^-7 and 2^-10; logits are up to 11
    $run logprobs $model "$work/ids" --ids --adapter $model/adapter --nf4 --compute $as | numbers logprobs > "$work/got"
    tensor "$file" $as.logits f4 | expected "$work/ids" > "$work/want"
    if [ $as = bf16 ]; then near "logprobs --compute $as" 0.09 "$work/got" "$work/want"; else near "logprobs --compute $as" 0.011 "$work/got" "$work/want"; fi
done
echo "5 9 20" | $run generate $model --ids --greedy -n 6 --nf4 --adapter $model/adapter > "$work/got"
rm -rf "$work/four" && $run merge $model --adapter $model/adapter --out "$work/four" --nf4 > "$work/out" && echo "5 9 20" | $run generate "$work/four" --ids --greedy -n 6 > "$work/want"
same "generate --nf4: as the merged model" "$work/got" "$work/want"
exits "two kinds of 4 bits" 2 $run logprobs $model --ids --nf4 --fp4
exits "a block that is no power of two" 2 $run generate $model --ids --nf4 --quant-block 100
exits "doubled what is not quantised" 2 $run chat $model --double-quant
exits "a compute type that does not exist" 2 $run logprobs $model --ids --compute int8
exits "merge has no compute type" 2 $run merge $model --adapter $model/adapter --out "$work/none" --compute bf16
if [ ! -e "$work/none" ]; then ok "... and makes no folder"; else bad "... and makes no folder"; fi
cp -r $model/adapter "$work/huge" && sed 's/"lora_alpha": 6/"lora_alpha": 999999/' $model/adapter/adapter_config.json > "$work/huge/adapter_config.json"
exits "merged weights too large for --dtype f16" 1 $run merge $model --adapter "$work/huge" --out "$work/none" --dtype f16
if grep -q 'too large for --dtype' "$work/err" && [ ! -e "$work/none" ]; then ok "... and says so, before it writes"; else bad "... and says so, before it writes"; fi

printf 'The quick brown fox.\n\n  two  spaces\nna\303\257ve \342\202\254 \360\237\231\202\n' > "$work/text"
printf '{"text": "line\\nbreak \\u20ac \\"quoted\\""}\n{"text": ""}\n' > "$work/jsonl"
printf '{"text": "line\\nbreak \342\202\254 \\"quoted\\""}\n{"text": ""}\n' > "$work/plain"
for folder in llama2/tokenizer.model gpt2 roberta; do
    tokenizer=$shared/data/tokenizers/$folder
    [ -e "$tokenizer" ] || { skip "tokenize $folder"; continue; }
    $run tokenize "$tokenizer" "$work/text" > "$work/ids"
    $run tokenize "$tokenizer" --decode "$work/ids" > "$work/got"
    same "tokenize $folder: back and forth" "$work/got" "$work/text"
    if [ "$(wc -l < "$work/ids")" -eq 4 ] && [ -z "$(sed -n 2p "$work/ids")" ]; then ok "tokenize $folder: an empty line stays one"; else bad "tokenize $folder: an empty line stays one"; fi
    $run tokenize "$tokenizer" --jsonl "$work/jsonl" | $run tokenize "$tokenizer" --decode --jsonl > "$work/got"
    same "tokenize $folder: --jsonl" "$work/got" "$work/plain"
    $run tokenize "$tokenizer" --special "$work/text" > "$work/special"
    case $folder in llama2*) before="1 " after="" ;; roberta) before="0 " after=" 2" ;; *) before="" after="" ;; esac
    sed -e "s/^/$before/" -e "s/\$/$after/" -e 's/  / /' -e 's/ $//' "$work/ids" > "$work/want"
    sed 's/ $//' "$work/special" > "$work/got"
    same "tokenize $folder: --special" "$work/got" "$work/want"
done

# ---- tokenize --show: ids, and the bytes from..to that they stand for ----
# shown NAME TOKENIZER WANT [OPTIONS]: every token of $work/text as "id from..to", input lines separated by |
shown() {
    name=$1 tokenizer=$2 want=$3; shift 3
    got=$($run tokenize "$tokenizer" "$work/text" --show "$@" | awk '/^line/ { if (NR > 1) printf "|"; next } { printf " %s %s", $1, $2 }')
    if [ "$got" = "$want" ]; then ok "tokenize --show $name"; else bad "tokenize --show $name: $got"; fi
}
mkdir -p "$work/words"      # WordPiece: lower case, accents removed, a word without pieces, an ideograph, an added token with lstrip
printf '[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\nna\n##ive\n##s\nfox\n\345\255\227\n' > "$work/words/vocab.txt"
printf '{"added_tokens_decoder": {"4": {"content": "[MASK]", "special": true, "lstrip": true}}}\n' > "$work/words/tokenizer_config.json"
printf 'The  Na\303\257ves fox\n\n \360\237\231\202zz\345\255\227the [MASK]fox\n' > "$work/text"
shown "WordPiece" "$work/words" ' 5 0..3 6 5..7 7 7..11 8 11..12 9 13..16|| 1 1..7 10 7..10 5 10..13 4 13..20 9 20..23'
shown "WordPiece --special" "$work/words" ' 2 0..0 5 0..3 6 5..7 7 7..11 8 11..12 9 13..16 3 16..16| 2 0..0 3 0..0| 2 0..0 1 1..7 10 7..10 5 10..13 4 13..20 9 20..23 3 23..23' --special
if [ -s "$work/chat/added_tokens.json" ]; then
    printf 'a\342\202\254<|im_start|>h\n' > "$work/text"
    $run tokenize "$work/chat" "$work/text" --show > "$work/got"
    if grep -q '^ *301  *4\.\.16  ' "$work/got" && grep -q '^ *229  *1\.\.2  <0xE2>  "\\xE2"$' "$work/got" && tail -n 1 "$work/got" | grep -q ' 16\.\.17 '
    then ok "tokenize --show: bytes of a character, an added token"; else bad "tokenize --show: bytes of a character, an added token"; fi
else skip "tokenize --show: an added token"; fi
printf 'Hello  world\n  two na\303\257ve \360\237\231\202 x\n\n\345\255\227a\302\275 \357\254\201n\n' > "$work/text"
other=$shared/data/tokenizers
if [ -e $other/llama2 ]; then shown llama2 $other/llama2/tokenizer.model ' 15043 0..5 29871 5..6 3186 6..12| 259 0..1 1023 1..5 1055 5..8 30085 8..10 345 10..12 29871 12..13 243 13..14 162 14..15 156 15..16 133 16..17 921 17..19|| 29871 0..0 30578 0..3 29874 3..4 30226 4..6 29871 6..7 31017 7..10 29876 10..11'
else skip "tokenize --show llama2"; fi
if [ -e $other/gpt2 ]; then shown gpt2 $other/gpt2 ' 15496 0..5 220 5..6 995 6..12| 220 0..1 734 1..5 41492 5..12 32485 12..17 2124 17..19|| 27764 0..2 245 2..3 64 3..4 23141 4..6 27332 6..8 105 8..9 223 9..10 77 10..11'
else skip "tokenize --show gpt2"; fi
# T5 makes spaces single, has no piece for some characters, and turns the character 1/2 into three pieces
if [ -e $other/t5 ]; then shown t5 $other/t5/spiece.model ' 8774 0..5 296 5..12| 192 2..5 3 5..6 29 6..7 9 7..8 2 8..10 162 10..12 3 12..13 2 13..17 3 17..18 226 18..19|| 3 0..0 2 0..3 9 3..4 536 ~4..6 2 ~4..6 357 ~4..6 2202 6..11'
    printf 'go\360\237\231\202  now\n' > "$work/text"
    shown "t5, one unknown" $other/t5/spiece.model ' 281 0..2 2 2..6 230 6..11'
else skip "tokenize --show t5"; fi
printf '\033[2Jthe\n' > "$work/text"
$run tokenize "$work/words" "$work/text" --show > "$work/got"
NO_COLOR=1 $run tokenize "$work/words" "$work/text" --show --color always > "$work/colored"
if grep -q "$(printf '\033')" "$work/got"; then bad "tokenize --show: colours in a file"; else ok "tokenize --show: no colours in a file, no escapes of the text"; fi
if grep -q "$(printf '\033')\[30;43m" "$work/colored" && grep -q 'x1B' "$work/colored"; then ok "tokenize --show --color always"; else bad "tokenize --show --color always"; fi
sed "s/$(printf '\033')\[[0-9;]*m//g" "$work/colored" | sed 2d > "$work/plain"
same "tokenize --show: colours are all the difference" "$work/got" "$work/plain"
printf '{"text": "the\\nfox"}\n' | $run tokenize "$work/words" --jsonl --show | tail -n 1 > "$work/got"; printf '       9          4..7  fox  "fox"\n' > "$work/want"
same "tokenize --show --jsonl" "$work/got" "$work/want"
exits "tokenize --show --decode" 2 $run tokenize "$work/words" --show --decode

# ---- wrong usage and bad input end with a message ----
model=$golden/llama-gqa
exits "an unknown command" 2 $run frobnicate
exits "no command" 2 $run
exits "an unknown option" 2 $run generate $model --ids --tempreature 1
exits "no model" 2 $run logprobs
if [ -d $model/adapter ]; then
    rm -rf "$work/own" && cp -r $model "$work/own"
    printf '{"model": {"type": "WordLevel"}}\n' > "$work/own/tokenizer.json"
    if $run merge "$work/own" --adapter $model/adapter --out "$work/other" > "$work/out" 2> "$work/err" && grep -q WordLevel "$work/err" && [ -s "$work/other/model.safetensors" ]
    then ok "merge with a tokenizer that is not supported"; else bad "merge with a tokenizer that is not supported"; fi
    exits "merge into its own model" 2 $run merge "$work/own" --adapter $model/adapter --out "$work/../${work##*/}/own/"
    exits "merge into its own adapter" 2 $run merge $model --adapter "$work/own/adapter" --out "$work/own/adapter"
    if cmp -s $model/model.safetensors "$work/own/model.safetensors" && [ ! -e "$work/own/merge.probe" ]; then ok "... which stays as it was"; else bad "merge touched its input"; fi
fi
exits "merge without --out" 2 $run merge $model --adapter $model/adapter
exits "a missing folder" 1 $run logprobs "$work/nothing" --ids
exits "a missing file" 1 $run logprobs $model "$work/nothing" --ids
exits "a missing adapter" 1 $run logprobs $model --adapter "$work/nothing" --ids
exits "no tokenizer" 1 $run logprobs $model
exits "text without a tokenizer" 1 $run generate $model --prompt hello
exits "more than the positions" 1 $run generate $model --ids --prompt "1 2" -n 1000
exits "an id outside the vocabulary" 1 $run generate $model --ids --prompt "1 97"
exits "no ids" 1 $run generate $model --ids --prompt "1 two"
for line in "1 x" "1 97" "-1" "1,2" "99999999999999999999"; do
    echo "$line" > "$work/line"
    one_bad "the line '$line'" "$work/line, line 1" $run logprobs $model "$work/line" --ids
done
awk 'BEGIN { for (i = 0; i < 129; i++) printf "5 "; print "" }' > "$work/line"
one_bad "a line longer than the positions" ": 129; at most 128: $work/line, line 1" $run logprobs $model "$work/line" --ids
one_bad "a text too long for the judge" ": 129; at most [0-9]*: $work/line, line 1" $run score $golden/roberta "$work/line" --ids

# ---- weights and logits that are not numbers: an error, never an output ----
# damage FOLDER FILE TENSOR BYTES: copies the folder to $work/damaged, and writes BYTES (as printf has them) over the first
# bytes of a tensor of its FILE
damage() {
    rm -rf "$work/damaged"; cp -r "$1" "$work/damaged"; chmod -R u+w "$work/damaged"
    tensor "$work/damaged/$2" "$3" f4 > /dev/null
    printf "$4" | dd of="$work/damaged/$2" bs=1 seek=$((8 + header + from)) conv=notrunc 2> /dev/null
}
# names NAME TEXT COMMAND ...: the command exits with 1, without a result, and its message has TEXT
names() {
    name=$1 text=$2; shift 2
    exits "$name" 1 "$@"
    if grep -q -- "$text" "$work/err"; then ok "$name: says what it is"; else bad "$name: says '$(cat "$work/err")'"; fi
}
nan='\377\377\377\377' infinity='\000\000\200\177' huge='\377\377\177\177'
echo '1 5 9' > "$work/line"
damage $model model.safetensors model.norm.weight $nan
names "generate: a NaN" "tensor model.norm.weight has a NaN or an infinity: $work/damaged" $run generate "$work/damaged" "$work/line" --ids
names "logprobs: a NaN" "tensor model.norm.weight has a NaN" $run logprobs "$work/damaged" "$work/line" --ids
damage $golden/llama-f16 model.safetensors model.norm.weight '\000\374'
names "generate: an infinity in f16" "tensor model.norm.weight has a NaN" $run generate "$work/damaged" "$work/line" --ids
damage $model/adapter adapter_model.safetensors base_model.model.model.layers.1.self_attn.v_proj.lora_A.weight $infinity
names "generate: an adapter" "tensor .*layers.1.self_attn.v_proj.lora_A.weight has a NaN" $run generate $model "$work/line" --ids \
    --adapter "$work/damaged"
damage $model model.safetensors lm_head.weight $huge$huge$huge$huge
names "generate: a logit" "a logit is a NaN or an infinity" $run generate "$work/damaged" "$work/line" --ids -n 4 --ignore-eos
one_bad "logprobs: a logit" "a logit is a NaN or an infinity" $run logprobs "$work/damaged" "$work/line" --ids
if grep -q 'try: another model: this one is damaged$' "$work/err"; then ok "... no advice to compute in f32"
else bad "... no advice to compute in f32: $(cat "$work/err")"; fi
one_bad "logprobs: a logit in bf16" "try: --compute f32, or another model" \
    $run logprobs "$work/damaged" "$work/line" --ids --compute bf16
damage data/policy model.safetensors model.norm.weight "$(awk 'BEGIN { while (i++ < 128) printf "\\377\\173" }')"
$run generate "$work/damaged" --compute f16 --prompt "The film" > "$work/got" 2> "$work/err"
if [ $? = 1 ] && [ "$(cat "$work/got")" = "The film" ] && [ "$(wc -l < "$work/got")" = 1 ] && grep -q "try: --compute f32" "$work/err"
then ok "generate: a text that ends with an error ends its line"; else bad "generate: a text that ends with an error"; fi
damage $golden/roberta model.safetensors classifier.out_proj.bias $nan
names "score: a NaN" "tensor classifier.out_proj.bias has a NaN" $run score "$work/damaged" "$work/line" --ids
damage $golden/roberta model.safetensors classifier.out_proj.weight $huge$huge$huge$huge
one_bad "score: one logit of two" "a logit is a NaN or an infinity" $run score "$work/damaged" "$work/line" --ids

# ---- lines that are no UTF-8, and blank lines of JSONL ----
printf 'a b\nb\377d\nc d\n' > "$work/latin"
for command in "tokenize data/policy" "generate data/policy -n 2" "logprobs data/policy" "score data/reward"; do
    $run $command "$work/latin" > "$work/out" 2> "$work/err"; code=$?
    if [ $code = 1 ] && grep -q 'invalid UTF-8: .*latin, line 2$' "$work/err" && [ "$(wc -l < "$work/out")" -eq 3 ] &&
        [ -z "$(sed -n '2s/{"error": "invalid UTF-8"}//; 2p' "$work/out")" ] && [ -n "$(sed -n 3p "$work/out")" ]
    then ok "$command: a line of invalid UTF-8"; else bad "$command: exit $code, $(cat "$work/err" "$work/out")"; fi
    printf '\n{"text": "a b"}\n \t\r\n{"text": "c d"}\n\n' > "$work/blank"
    $run $command "$work/blank" --jsonl > "$work/out" 2> "$work/err"; code=$?
    printf '{"text": "a b"}\n{"text": "c d"}\n' | $run $command --jsonl > "$work/want" 2> "$work/more"
    if [ $code = 0 ]; then same "$command: blank lines of JSONL are left out" "$work/want" "$work/out"; else bad "$command: $(cat "$work/err")"; fi
done
exits "generate: a prompt of invalid UTF-8" 1 $run generate data/policy --prompt "$(printf 'b\377d')" -n 2
if $run --help > "$work/out" && grep -q merge "$work/out"; then ok "run --help lists its commands"; else bad "run --help lists its commands"; fi
for command in tokenize logprobs score generate chat critique prefer merge; do
    if $run $command --help > "$work/out" && grep -q "run $command" "$work/out"; then ok "$command --help"; else bad "$command --help"; fi
done

echo "run: $passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
