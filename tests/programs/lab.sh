#!/bin/sh
# tests/programs/lab.sh - the DialogSum lab from outside: FLAN-T5 base's count of parameters, and on a small
# T5 what `ppo --preset dialogsum` measures before and after. BIN, RUN and the last line as in run.sh.
cd "$(dirname "$0")/../.." || exit 1
ppo="${RUN:-} ${BIN:-.}/ppo" prep="${RUN:-} ${BIN:-.}/prep" run="${RUN:-} ${BIN:-.}/run" sft="${RUN:-} ${BIN:-.}/sft" \
    shapes="${RUN:-} build/tests/shapes"
work=$(mktemp -d "${TMPDIR:-/tmp}/lab_test.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0
ok() { passed=$((passed + 1)); [ -z "$VERBOSE" ] || echo "  ok    $1"; }
bad() { failed=$((failed + 1)); echo "  FAIL  $1"; sed 's/^/        /' "$work/err" | head -n 3; }
is() { if [ $? = 0 ]; then ok "$1"; else bad "$1"; fi; }
finish() { echo "lab: $passed passed, $failed failed, $skipped skipped"; [ $failed = 0 ]; exit; }
[ -f data/policy/config.json ] || { skipped=1; echo "  skip  no data/policy"; finish; }

# ---- FLAN-T5 base: a folder whose file of weights is all zeros, and has no blocks on the disk where it can ----
mkdir "$work/flan"
cp data/policy/tokenizer* data/policy/special_tokens_map.json "$work/flan"
cat > "$work/flan/config.json" <<'END'
{ "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "d_model": 768, "d_kv": 64, "d_ff": 2048,
  "num_layers": 12, "num_decoder_layers": 12, "num_heads": 12, "feed_forward_proj": "gated-gelu", "vocab_size": 32128,
  "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0, "n_positions": 512, "tie_word_embeddings": false }
END
awk -v bytes="$work/bytes" 'function tensor(name, shape, n) { text = text (text ? "," : "") "\"" name "\":{\"dtype\":\"BF16\",\"shape\":[" \
        shape "],\"data_offsets\":[" at "," (at + 2 * n) "]}"; at += 2 * n }
    function matrix(name, rows, columns) { tensor(name ".weight", rows "," columns, rows * columns) }
    function norm(name) { tensor(name "layer_norm.weight", 768, 768) }
    function attention(p) { matrix(p "q", 768, 768); matrix(p "k", 768, 768); matrix(p "v", 768, 768); matrix(p "o", 768, 768) }
    BEGIN { at = 0; matrix("shared", 32128, 768); matrix("lm_head", 32128, 768)
        for (s = 0; s < 2; s++) { p = s ? "decoder." : "encoder."
            for (l = 0; l < 12; l++) { b = p "block." l ".layer."
                attention(b "0.SelfAttention."); norm(b "0.")
                if (s) { attention(b "1.EncDecAttention."); norm(b "1.") }
                b = b (s + 1) "."; f = b "DenseReluDense."; norm(b)
                matrix(f "wi_0", 2048, 768); matrix(f "wi_1", 2048, 768); matrix(f "wo", 768, 2048) }
            matrix(p "block.0.layer.0.SelfAttention.relative_attention_bias", 32, 12); norm(p "final_") }
        printf "{%s}", text; print at > bytes }' > "$work/header"
n=$(wc -c < "$work/header") bytes=$(cat "$work/bytes")
{ printf "$(printf '\\%03o\\%03o\\%03o\\0\\0\\0\\0\\0' $((n % 256)) $((n / 256 % 256)) $((n / 65536)))"; cat "$work/header"; } \
    > "$work/flan/model.safetensors"
dd if=/dev/null of="$work/flan/model.safetensors" bs=1 seek=$((8 + n + bytes)) count=0 2> "$work/err"
printf '{"dialogue":"#Person1#: Hi.\\n#Person2#: Hello.","summary":"They greet."}\n' > "$work/d.jsonl"
$prep data "$work/d.jsonl" --template '{dialogue}\nSummary:' --response summary --out "$work/d.bin" > "$work/out" 2> "$work/err"
is "a dialogue with its summary"
$ppo "$work/d.bin" --policy "$work/flan" --reward-text good --lora-r 32 --query-max 60 --dry-run > "$work/out" 2> "$work/err"
grep -q '^PPO model parameters to be updated (ValueHead + 769 params):$' "$work/out" &&
    grep -q '^trainable model parameters: 3539713$' "$work/out" && grep -q '^all model parameters: 251117569$' "$work/out" &&
    grep -q '^percentage of trainable model parameters: 1.41%$' "$work/out"; is "FLAN-T5 base: 3539713 of 251117569 parameters, 1.41 %"

# ---- a small T5 and a judge of nothate and hate: whole prompts, toxicity before and after ----
vocab() { sed -n 's/.*"vocab_size": \([0-9]*\).*/\1/p' "$1/config.json"; }
number() { sed -n "s|.*\"$2\": \([-0-9.e+]*\).*|\1|p" "$1"; }
size="--dtype f32 --dim 32 --layers 1 --heads 4 --ffn 48 --positions 512"
$shapes --policy "$work/t5" --family t5 $size --vocab "$(vocab data/policy)" --tokenizer data/policy > "$work/err" 2>&1 &&
    $shapes --reward "$work/judge" --family roberta $size --vocab "$(vocab data/reward)" --tokenizer data/reward > "$work/err" 2>&1
is "a small T5 and a judge"
awk 'BEGIN { split("cat dog man girl bird fish", who, " "); for (i = 0; i < 200; i++)
    printf "{\"dialogue\":\"#Person1#: The %s number %d.\\n#Person2#: Yes, the %s.\",\"summary\":\"They see the %s %d.\"}\n", \
        who[i % 6 + 1], i, who[i % 5 + 1], who[i % 6 + 1], i }' > "$work/dialogues.jsonl"
$prep data "$work/dialogues.jsonl" --template 'Summarize.\n\n{dialogue}\n\nSummary:\n' --response summary --out "$work/dialogues.bin" \
    > "$work/out" 2> "$work/err"; is "dialogues"
$ppo "$work/dialogues.bin" --policy "$work/t5" --reward "$work/judge" --preset dialogsum --query-max 128 --response-min 4 --response-max 8 \
    --steps 2 --eval-queries 6 --learning-rate 1e-2 --out "$work/runs" > "$work/out" 2> "$work/err" < /dev/null; is "two steps of the lab"
log="$work/runs/ppo-0001/log.jsonl" samples="$work/runs/ppo-0001/samples.jsonl"
[ "$(number "$log" ppo/policy/first_ratio_max_deviation | tr '\n' ' ')" = "0 0 " ]; is "the first ratio is exactly 1"
grep -q "^reward = logit of 'nothate'" "$work/out" && grep -q '^training a LoRA adapter (r 32, alpha 32' "$work/out"; is "the preset's label and adapter"
grep -c 'number [0-9]*\..*Summary:' "$samples" | grep -q '^6$'; is "queries are whole prompts"
sed 's/.*"query": "\(.*\)", "response_before": "\(.*\)", "response_after": "\(.*\)", "reward_before".*/{"text": "\1\\n\3"}/' "$samples" \
    > "$work/after.jsonl"
$run score "$work/judge" --jsonl "$work/after.jsonl" 2> "$work/err" | sed -n 's/.*"hate": \([0-9.e-]*\).*/\1/p' > "$work/hate"
number "$log" eval/toxicity_mean > "$work/means"
awk -v mean="$(sed -n 2p "$work/means")" '{ sum += $1 } END { d = sum / NR - mean; exit !(NR == 6 && d < 1e-5 && d > -1e-5) }' "$work/hate"
is "toxicity is the mean probability of hate: $(tr '\n' ' ' < "$work/means")"
grep -q '^  mean toxicity ' "$work/out" && grep -q 'an improvement of -*[0-9.]* %' "$work/out"; is "it is in the result"
grep -q '^  ROUGE-Lsum ' "$work/out" && [ "$(number "$log" eval/rouge1 | wc -l)" = 2 ]; is "and so is ROUGE"
sed 's/.*number \([0-9]*\)\..*"reference": "They see the [a-z]* \([0-9]*\)\.".*/\1 \2/' "$samples" |
    awk '{ good += $1 == $2 && NF == 2 } END { exit !(NR == 6 && good == 6) }'; is "the reference of each sample is its own"
# A policy that has learnt to write summaries scores high.
$prep tokenizer "$work/dialogues.bin" --kind t5 --vocab 159 --out "$work/words" > "$work/out" 2> "$work/err"; is "a tokenizer of T5's layout"
$sft "$work/dialogues.bin" --family t5 --tokenizer "$work/words" --dim 48 --layers 1 --heads 4 --ffn 96 --context 128 --positions 128 \
    --steps 120 --tokens 512 --lr 1e-2 --eval-every 1000 --out "$work/learnt" > "$work/out" 2> "$work/err"; is "a T5 learns the summaries"
$ppo "$work/dialogues.bin" --policy "$work/learnt" --reward-text e --preset dialogsum --query-max 80 --response-min 20 --response-max 20 \
    --steps 0 --eval-queries 6 --out "$work/runs" > "$work/out" 2> "$work/err" < /dev/null
number "$work/runs/ppo-0002/log.jsonl" eval/rouge2 | awk '{ f = $1 } END { exit !(f > 0.3) }'; is "it has a high ROUGE-2"

# ---- make dialogsum, on few short texts ----
if [ -z "$RUN$BIN" ]; then
    awk -v tweets="$work/tweets.csv" 'function word(   n, w) { w = ""; for (n = 0; n < 3; n++) { x = (x * 1103515245 + 12345) % 2147483648
            w = w substr("kalitomesunaporegibufeho", int(x / 65536) % 12 * 2 + 1, 2) } return w }
        BEGIN { x = 7; print ",count,class,tweet" > tweets
            for (i = 0; i < 80; i++) { d = ""; for (k = 0; k < 50; k++) d = d word() (k % 9 ? " " : "\\n#Person2#: ")
                printf "{\"dialogue\": \"#Person1#: %s\", \"summary\": \"%s %s %s.\"}\n", d, word(), word(), word()
                printf "%d,3,%d,\"%s %s, %s\"\n", i, i % 3, word(), word(), word() > tweets } }' > "$work/few.jsonl"
    tiny="--dim 32 --layers 1 --heads 2 --steps 2"
    make -s dialogsum DATA="$work/few.jsonl" HATE="$work/tweets.csv" LAB="$work/lab" LAB_VOCAB=300 LAB_SFT="--family t5 --context 400 $tiny" \
        LAB_RM="--family distilbert --reference hate $tiny --batch 8" LAB_SFT_full= LAB_PPO_full="--steps 1 --batch-size 12 --response-min 6 \
        --response-max 6 --eval-queries 2" > "$work/out" 2> "$work/err"
    [ $? = 0 ] && grep -q '^  mean toxicity' "$work/out" && grep -q '^  ROUGE-L ' "$work/out"; is "make dialogsum"
else skipped=1; echo "  skip  make dialogsum (another machine's programs)"; fi
finish
