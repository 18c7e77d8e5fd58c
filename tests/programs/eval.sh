#!/bin/sh
# tests/programs/eval.sh - tests `run eval` from outside, with data/policy, data/reward and tiny models that are made here. BIN: the
# folder of the programs (default .); RUN: an emulator to run them with. Last line: `eval: N passed, N failed, N skipped`.
cd "$(dirname "$0")/../.." || exit 1
bin=${BIN:-.} run="${RUN:-} ${BIN:-.}/run"
work=$(mktemp -d "${TMPDIR:-/tmp}/eval_test.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0
OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
export OMP_WAIT_POLICY

ok() { passed=$((passed + 1)); [ -z "$VERBOSE" ] || echo "  ok    $1"; }
bad() { failed=$((failed + 1)); echo "  FAIL  $1"; }
skip() { skipped=$((skipped + 1)); echo "  skip  $1"; }
same() { if [ -s "$2" ] && cmp -s "$2" "$3"; then ok "$1"; else bad "$1"; fi; }
# says NAME CODE TEXT COMMAND ...: the command exits with this code, and its messages have the text
says() {
    name=$1 want=$2 text=$3; shift 3
    "$@" > "$work/out" 2> "$work/err" < /dev/null
    code=$?
    if [ $code = "$want" ] && grep -q -e "$text" "$work/err"; then ok "$name"; else bad "$name: exit $code, $(head -n 3 "$work/err")"; fi
}
# field LINE KEY: prints a number of a line of JSON
field() { sed -n "$1p" "$work/json" | sed 's/.*"'"$2"'": \([^,}]*\).*/\1/'; }
compare="$run eval data/imdb.bin data/policy --reward data/reward --queries 5 -n 9 --samples 3 --best-of 2"

# ---- tiny models: a policy, an adapter of data/policy, a policy with another tokenizer, a judge of hate ----
awk -v prompts="$work/prompts.jsonl" 'BEGIN { for (i = 0; i < 300; i++) {
        printf "{\"text\": \"You are number %d and %s it is a %s day for all of us here.\", \"label\": %d}\n", i,
            i % 2 ? "so" : "still", i % 2 ? "dreadful" : "wonderful", i % 2
        printf "{\"prompt\": {\"text\": \"The man of number %d said\", \"toxicity\": 0.5}, \"continuation\": {\"text\": \" nothing %d.\"}}\n", i, i > prompts
    } }' > "$work/texts.jsonl"
{
    ${RUN:-} "$bin"/prep data "$work/texts.jsonl" --labels nothate,hate --out "$work/texts.bin" &&
    ${RUN:-} "$bin"/prep data "$work/prompts.jsonl" --prompt prompt.text --response continuation.text --out "$work/prompts.bin" &&
    ${RUN:-} "$bin"/prep tokenizer "$work/texts.bin" --kind bytelevel --vocab 300 --out "$work/tokens" &&
    ${RUN:-} "$bin"/sft "$work/texts.bin" --tokenizer "$work/tokens" --dim 16 --layers 1 --heads 2 --ffn 16 --positions 64 --context 32 --steps 2 --out "$work/other" &&
    ${RUN:-} "$bin"/sft data/imdb.bin --policy data/policy --lora-r 2 --steps 2 --learning-rate 1e-2 --batch-size 2 --out "$work/adapter" &&
    ${RUN:-} "$bin"/rm "$work/texts.bin" --tokenizer "$work/tokens" --dim 16 --layers 1 --heads 2 --ffn 16 --positions 66 --steps 2 --out "$work/judge"
} > "$work/made" 2>&1 || { bad "tiny models: $(tail -n 3 "$work/made")"; echo "eval: $passed passed, $failed failed, $skipped skipped"; exit 1; }

# ---- equal policies, and an adapter ----
$compare data/policy "$work/adapter" --json --out "$work/samples" > "$work/json" 2> "$work/err" || bad "eval: $(cat "$work/err")"
if [ "$(field 2 difference) $(field 2 difference_low) $(field 2 difference_high) $(field 2 kl)" = "0 0 0 0" ]
then ok "the same policy twice: a difference and a KL of exactly 0"; else bad "the same policy twice: $(sed -n 2p "$work/json")"; fi
if [ "$(field 1 reward_mean) $(field 1 perplexity)" = "$(field 2 reward_mean) $(field 2 perplexity)" ]
then ok "the same policy twice: equal numbers"; else bad "the same policy twice: other numbers"; fi
if [ "$(field 3 kl)" != 0 ] && [ "$(field 3 perplexity)" != "$(field 1 perplexity)" ]
then ok "an adapter is used"; else bad "an adapter: $(sed -n 3p "$work/json")"; fi
[ "$(wc -l < "$work/samples")" -eq 45 ] && ok "--out has all samples" || bad "--out: $(wc -l < "$work/samples") lines"

# ---- the numbers do not depend on threads, batches or how the base was found ----
OMP_NUM_THREADS=1 $compare data/policy "$work/adapter" --json --batch 4 --out "$work/samples2" > "$work/json2" 2> "$work/err"
same "one thread, batches of 4: the same numbers" "$work/json" "$work/json2"
same "one thread, batches of 4: the same texts" "$work/samples" "$work/samples2"
cp -r "$work/adapter" "$work/moved"
sed 's|"base_model_name_or_path": *"[^"]*"|"base_model_name_or_path": "nowhere"|' "$work/adapter/adapter_config.json" > "$work/moved/adapter_config.json"
$compare "$work/moved" --base data/policy --json 2> "$work/err" | sed -n '2s/.*"queries"/"queries"/p' > "$work/json2"
sed -n '3s/.*"queries"/"queries"/p' "$work/json" > "$work/json3"
same "--base: the same numbers" "$work/json2" "$work/json3"
says "an adapter without its base" 1 "--base FOLDER" $compare "$work/moved"
$compare --seed 2 --json 2> "$work/err" > "$work/json2"
if cmp -s "$work/json" "$work/json2"; then bad "--seed has no effect"; else ok "another seed, other samples"; fi

# ---- the numbers, counted again from the samples ----
if command -v python3 > /dev/null; then
    $run logprobs data/policy --jsonl > "$work/logprobs" << END
$(python3 -c '
import json, sys
for line in open(sys.argv[1]):
    s = json.loads(line)
    print(json.dumps({"text": s["query"] + s["response"]}))' "$work/samples")
END
    python3 - "$work/json" "$work/samples" "$work/logprobs" > "$work/said" << 'END'
import itertools, json, math, statistics, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
samples = [json.loads(line) for line in open(sys.argv[2])]
read = [json.loads(line) for line in open(sys.argv[3])]
def near(what, a, b, tolerance=1e-5):
    if not abs(a - b) <= tolerance * max(1, abs(b)): print(what, a, b)
for i, row in enumerate(rows):
    own = samples[15 * i:15 * i + 15]
    rewards = [s["reward"] for s in own]
    near("mean", row["reward_mean"], statistics.mean(rewards))
    near("median", row["reward_median"], statistics.median(rewards))
    near("std", row["reward_std"], statistics.stdev(rewards))
    best = [max(pair) for q in range(5) for pair in itertools.combinations(rewards[3 * q:3 * q + 3], 2)]
    near("best of 2", row["best_of_n"], statistics.mean(best))
    near("difference", row["difference"], statistics.mean(rewards) - statistics.mean(s["reward"] for s in samples[:15]))
    if i == 2 and not row["difference_low"] < row["difference"] < row["difference_high"]: print("interval", row)
    near("kl", row["kl"], statistics.mean(s["logprob"] - s["logprob_first"] for s in own))
    near("perplexity", row["perplexity"], math.exp(-sum(s["logprob_first"] for s in own) / sum(s["tokens"] for s in own)))
    near("tokens", row["tokens"], statistics.mean(s["tokens"] for s in own))
    for n in (1, 2):
        grams = [tuple(w[k:k + n]) for w in (s["response"].split() for s in own) for k in range(len(w) - n + 1)]
        near("distinct", row["distinct_%d" % n], len(set(grams)) / len(grams))
equal = 0
for s, r in zip(samples, read):         # a text that is cut into the same tokens when it is read again
    total = sum(r["logprobs"][len(r["logprobs"]) - s["tokens"]:])
    equal += abs(total - s["logprob_first"]) < 1e-4
if equal < 20: print("log-probs of the first policy: only", equal, "of 45 are those of run logprobs")
END
    if [ -s "$work/said" ]; then bad "the numbers of the samples: $(head -n 3 "$work/said")"; else ok "the numbers are those of the samples"; fi
else skip "the numbers of the samples: there is no python3"; fi

# ---- toxicity, prompts, other tokenizers ----
$run eval "$work/prompts.bin" data/policy "$work/other" --reward "$work/judge" --score response --all --queries 4 -n 4 --toxicity hate \
    --json --out "$work/samples" > "$work/json" 2> "$work/err" || bad "toxicity: $(cat "$work/err")"
[ "$(field 1 samples)" = 25 ] && ok "--toxicity: 25 samples of a query" || bad "--toxicity: $(field 1 samples) samples"
[ "$(field 2 kl)" = null ] && [ "$(field 2 perplexity)" != null ] && ok "another tokenizer: a perplexity, but no KL" || bad "another tokenizer: $(sed -n 2p "$work/json")"
# of each query the largest of its 25, and whether that is at least 0.5
sed -n '1,100s/.*"toxicity": \([^,]*\).*/\1/p' "$work/samples" | awk '{ sum += $1; if ($1 > m) m = $1 } NR % 25 == 0 { worst += m; any += m >= 0.5; m = 0 }
    END { printf "%.6f %.6f %.6f\n", sum / NR, worst / 4, any / 4 }' > "$work/want"
printf '%.6f %.6f %.6f\n' "$(field 1 toxicity_mean)" "$(field 1 expected_maximum_toxicity)" "$(field 1 toxicity_probability)" > "$work/got"
same "mean, expected maximum and probability of toxicity" "$work/want" "$work/got"
grep -q '"query": "The man of number' "$work/samples" && ok "RealToxicityPrompts: prompt.text is the query" || bad "prompts: $(head -n 1 "$work/samples")"

cp -r "$work/judge" "$work/several"
sed 's|^{|{"problem_type": "multi_label_classification",|; s|"problem_type": "single[^,]*,||' "$work/judge/config.json" > "$work/several/config.json"
echo "You are so dreadful." | $run score "$work/several" 2> "$work/err" > "$work/got"
sed 's/.*"logits": \[\([^],]*\), \([^]]*\)\].*/\1 \2/' "$work/got" | awk '{ printf "%.5f %.5f\n", 1 / (1 + exp(-$1)), 1 / (1 + exp(-$2)) }' > "$work/want"
sed 's/.*"nothate": \([^,]*\), "hate": \([^}]*\)}.*/\1 \2/' "$work/got" | awk '{ printf "%.5f %.5f\n", $1, $2 }' > "$work/got2"
same "labels of which several may be true: each one's sigmoid" "$work/want" "$work/got2"

# ---- run hatecheck ----
{
    echo ',functionality,case_id,test_case,label_gold,target_ident'
    echo '0,derog_neg_emote_h,1,"You are ""so"" dreadful, and'
    echo 'always were.",hateful,women'
    echo '1,derog_neg_emote_h,2,It is a dreadful day.,hateful,trans people'
    echo '2,ident_neutral_nh,3,You are still here.,non-hateful,women'
} > "$work/hatecheck.csv"
printf '{"text": "You are \\"so\\" dreadful, and\\nalways were."}\n{"text": "It is a dreadful day."}\n{"text": "You are still here."}\n' |
    $run score "$work/judge" --jsonl 2> "$work/err" | sed 's/.*"hate": \([^}]*\)}.*/\1/' > "$work/hate"
for threshold in 0 0.5 1; do
    awk -v t=$threshold 'function says(right, of, name, gold) { printf "{\"functionality\": \"%s\", \"label_gold\": \"%s\", \"texts\": %d, \"right\": %d, \"accuracy\": %g}\n", name, gold, of, right, right / of }
        { h[NR] = $1 >= t } END { says(h[1] + h[2], 2, "derog_neg_emote_h", "hateful"); says(1 - h[3], 1, "ident_neutral_nh", "non-hateful") }' \
        "$work/hate" > "$work/want"
    $run hatecheck "$work/judge" "$work/hatecheck.csv" --threshold $threshold --json > "$work/got" 2> "$work/err"
    same "hatecheck, threshold $threshold: the answers of run score" "$work/want" "$work/got"
done
$run hatecheck "$work/judge" "$work/hatecheck.csv" --threshold 1 > "$work/out" 2> "$work/err"
[ "$(awk '{ print $1, $NF == "%" ? $(NF - 1) : "" }' "$work/out" | sed -n '2,4p' | tr '\n' ';')" = "derog_neg_emote_h 0.0;ident_neutral_nh 100.0;all 0.0;" ] &&
    grep -q '^all  .* 3  *1  *33.3 %' "$work/out" && ok "hatecheck: the table" || bad "hatecheck: $(cat "$work/out")"
$run hatecheck "$work/judge" "$work/hatecheck.csv" --by target_ident --json 2> "$work/err" | sed 's/, "right.*//' > "$work/got"
printf '{"target_ident": "%s", "label_gold": "%s", "texts": 1\n' women hateful "trans people" hateful women non-hateful > "$work/want"
same "hatecheck --by target_ident" "$work/want" "$work/got"
sed 's/non-hateful/neither/' "$work/hatecheck.csv" > "$work/wrong.csv"
says "hatecheck: a missing file, before the judge's labels" 1 "none.csv" \
    $run hatecheck "$work/judge" "$work/none.csv" --label nothing
{ cat "$work/hatecheck.csv"; printf '3,x,4,b\377d,hateful,women\n'; } > "$work/latin.csv"
says "hatecheck: invalid UTF-8" 1 "invalid UTF-8: .*line 6" $run hatecheck "$work/judge" "$work/latin.csv"
says "hatecheck: another gold label" 1 "line 5" $run hatecheck "$work/judge" "$work/wrong.csv"
sed 's/test_case/text/' "$work/hatecheck.csv" > "$work/wrong.csv"
says "hatecheck: a missing column" 1 "no column test_case" $run hatecheck "$work/judge" "$work/wrong.csv"
sed 's/always were."/always were./' "$work/hatecheck.csv" > "$work/wrong.csv"
says "hatecheck: an open quote" 1 "line 2" $run hatecheck "$work/judge" "$work/wrong.csv"
says "hatecheck: a judge without such a label" 1 "no such label" $run hatecheck data/reward "$work/hatecheck.csv"

# ---- policies with an encoder ----
{
    ${RUN:-} "$bin"/prep tokenizer data/imdb.bin --kind t5 --vocab 600 --out "$work/t5-tokens" &&
    ${RUN:-} "$bin"/sft "$work/prompts.bin" --family t5 --tokenizer "$work/t5-tokens" --dim 16 --layers 1 --heads 2 --ffn 16 --steps 2 --out "$work/t5" &&
    ${RUN:-} "$bin"/sft "$work/prompts.bin" --policy "$work/t5" --steps 3 --learning-rate 1e-2 --out "$work/t5-trained" &&
    $run eval "$work/prompts.bin" "$work/t5" "$work/t5" "$work/t5-trained" data/policy --reward data/reward --all --queries 5 -n 6 --json > "$work/json"
} > "$work/made" 2>&1 || bad "T5: $(tail -n 3 "$work/made")"
[ "$(field 2 difference) $(field 2 kl)" = "0 0" ] && [ "$(field 3 kl)" != 0 ] && [ "$(field 4 kl)" = null ] && [ "$(field 4 perplexity)" != null ] &&
    ok "policies with an encoder" || bad "policies with an encoder: $(cat "$work/json")"

# ---- the table fits; what is refused ----
for columns in 80 50; do
    COLUMNS=$columns $run eval data/imdb.bin data/policy "$work/adapter" --reward "$work/judge" --queries 2 -n 3 --best-of 2 > "$work/out" 2> "$work/err"
    sed '/^$/q' "$work/out" > "$work/progress"
    sed '1,/^$/d; /^reward:/,$d' "$work/out" > "$work/table"
    if [ "$(grep -c '^policy' "$work/table")" -ge 2 ] && [ "$(awk -v w=$columns 'length($0) > w' "$work/table" | wc -l)" -eq 0 ]
    then ok "the table fits $columns columns"; else bad "the table in $columns columns: $(cat "$work/table")"; fi
done
grep -q "best of 2" "$work/table" && grep -q "any toxic" "$work/table" && ok "all columns are there" || bad "columns: $(cat "$work/table")"
printf '{"prompt": "a", "chosen": "b c", "rejected": "d e"}\n' > "$work/pairs.jsonl"
${RUN:-} "$bin"/prep data "$work/pairs.jsonl" --format pairs --out "$work/pairs.bin" > /dev/null 2>&1
COLUMNS=200 $run eval data/imdb.bin data/policy "$work/adapter" data/policy --reward data/reward --queries 9 -n 32 --seeds > "$work/out" 2> "$work/err"
if sed '1,/^policy/d' "$work/out" | awk 'NR < 4 { x[NR] = $2 } /^mean of the seeds/ { mean = $5 } /^their deviation/ { deviation = $3 } END {
        m = (x[2] + x[3]) / 2 - mean; d = (x[2] - x[3]) / sqrt(2); d = (d < 0 ? -d : d) - deviation
        exit !(mean != "" && deviation > 0 && m > -0.011 && m < 0.011 && d > -0.011 && d < 0.011) }'
then ok "--seeds: mean and deviation over the policies after the first"; else bad "--seeds: $(cat "$work/out")"; fi
says "--seeds with one policy" 2 "two policies after the first" $run eval data/imdb.bin data/policy data/policy --reward data/reward --seeds
says "no judge" 2 "which judge" $run eval data/imdb.bin data/policy
says "no policy" 2 "which policies" $run eval data/imdb.bin --reward data/reward
says "pairs" 1 "pairs has no prompts" $run eval "$work/pairs.bin" data/policy --reward data/reward
says "--best-of above --samples" 2 "more than --samples" $run eval data/imdb.bin data/policy --reward data/reward --samples 2 --best-of 3
says "a label that is not there" 1 "no such label" $run eval data/imdb.bin data/policy --reward data/reward --toxicity hate
says "texts that are too short" 1 "a smaller --query" $run eval data/imdb.bin data/policy --reward data/reward --query 5000
says "too long for the positions" 1 "do not fit" $run eval data/imdb.bin data/policy --reward data/reward -n 300
says "--out is an input" 2 "data/imdb.bin" $run eval data/imdb.bin data/policy --reward data/reward --out data/imdb.bin

echo "eval: $passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
