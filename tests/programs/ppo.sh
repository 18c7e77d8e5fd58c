#!/bin/sh
# tests/programs/ppo.sh - `ppo` from outside: exact first ratio, what must not change a result, what must,
# that it learns, that clipping clips in every step, that it stops well, and what it refuses. BIN, RUN and
# the last line as in run.sh. Policy: data/policy, else the third-party stories260K; judge: data/reward
# where it is there, else words are counted.
cd "$(dirname "$0")/../.." || exit 1
ppo="${RUN:-} ${BIN:-.}/ppo" run="${RUN:-} ${BIN:-.}/run" prep="${RUN:-} ${BIN:-.}/prep" \
    sft="${RUN:-} ${BIN:-.}/sft" shared=${SHARED:-../shared}
work=$(mktemp -d "${TMPDIR:-/tmp}/ppo_test.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0

ok() { passed=$((passed + 1)); [ -z "$VERBOSE" ] || echo "  ok    $1"; }
bad() { failed=$((failed + 1)); echo "  FAIL  $1"; }
# is WHAT: the last command has to have succeeded
is() { if [ $? = 0 ]; then ok "$1"; else bad "$1"; fi; }
finish() { echo "ppo: $passed passed, $failed failed, $skipped skipped"; [ $failed = 0 ]; exit; }
same() { if [ -s "$2" ] && cmp -s "$2" "$3"; then ok "$1"; else bad "$1"; fi; }
differ() { if [ -s "$2" ] && [ -s "$3" ] && ! cmp -s "$2" "$3"; then ok "$1"; else bad "$1"; fi; }
true_() { if awk "BEGIN { exit !($2) }"; then ok "$1 ($2)"; else bad "$1: $2"; fi; }
# field FOLDER NAME STEP: a number of the log's line of that training step
field() { grep '"env/reward_mean"' "$1/log.jsonl" | sed -n 's|.*"'"$2"'": \([-0-9.e+]*\).*|\1|p' |
    sed -n "$3p"; }
steps() { tail -n +2 "$1/log.jsonl" > "$1/steps"; } \
    # the log without its first line, which has the options
# refuses CODE TEXT COMMAND ...
refuses() {
    want=$1 text=$2; shift 2
    "$@" > "$work/out" 2> "$work/err" < /dev/null
    code=$?
    if [ $code = "$want" ] && grep -q -- "$text" "$work/err"; then ok "refused: $text"; else bad \
        "refused: $text (exit $code, wanted $want)"; fi
}
# run NAME OPTIONS ...: a run whose folder becomes $work/NAME
run() {
    name=$1; shift
    if $ppo "$data" $small "$@" --out "$work/$name.runs" > "$work/$name.out" 2> "$work/$name.err" < /dev/null
    then mv "$work/$name.runs/ppo-0001" "$work/$name"; steps "$work/$name"
    else bad "$name: exit $?: $(head -n 2 "$work/$name.err" | tr '\n' ' ')"; mkdir -p "$work/$name"; : > \
        "$work/$name/log.jsonl"; fi
}

policy=data/policy data=data/imdb.bin
[ -f data/policy/config.json ] || policy=$shared/data/stories260K
[ -e "$policy/config.json" ] || { skipped=1; echo "  skip  no policy"; finish; }
[ -f "$data" ] || { skipped=1; echo "  skip  no $data"; finish; }
small="--policy $policy --preset imdb-small --reward-text e --batch-size 8 --mini-batch-size 4 --ppo-epochs 2
       --eval-queries 6 --show 3 --steps 2 --response-min 6 --response-max 12 --learning-rate 1e-3
       --cliprange-value 0.2"
OMP_NUM_THREADS=1
export OMP_NUM_THREADS

# ---- a run, and what must not change it ----
run a
[ "$(field "$work/a" ppo/policy/first_ratio_max_deviation 1)" = 0 ] &&
    [ "$(field "$work/a" ppo/policy/first_ratio_max_deviation 2)" = 0 ] \
    && ok "the first ratio is exactly 1, both steps" || bad "the first ratio is exactly 1, both steps"
[ "$(field "$work/a" objective/kl 1)" = 0 ] && ok "the untrained policy is the reference, bit for bit" ||
    bad "KL at step 1"
true_ "later ratios move" "$(field "$work/a" ppo/policy/max_ratio_deviation 1) > 0"
for f in model.safetensors config.json value_head.safetensors log.jsonl time.jsonl samples.jsonl; do
    [ -s "$work/a/$f" ] && ok "writes $f" || bad "writes $f"
done
[ "$(wc -l < "$work/a/samples.jsonl")" -eq 6 ] && ok "a sample a query" || bad "a sample a query"
mkdir "$work/wide" && cp "$work"/a/*.jsonl "$work/wide"
COLUMNS=80 $run report "$work/a" > "$work/out" && grep -q '^  query  ' "$work/out"; is "80 columns: short queries have a column"
sed "s/\"query\": \"/&$(printf 'many words %.0s' 1 2 3 4 5 6 7 8 9 10 11 12)/" "$work/a/samples.jsonl" > "$work/wide/samples.jsonl"
COLUMNS=80 $run report "$work/wide" > "$work/out" && ! grep -q '^  query  ' "$work/out" && grep -q '^  after: ' "$work/out"
is "80 columns: long queries have lines of their own"
head -n 1 "$work/a/log.jsonl" | grep -q '"options": {"preset":"imdb-small","policy":' &&
    ok "the log begins with the options" || bad "the log begins with the options"
grep -q '^reward = number of' "$work/a.out" && grep -q \
    '^trainable params: .* || all params: .* || trainable%: 100.0000$' "$work/a.out" \
    && ok "says what the reward is and what is trained" || bad "says what the reward is and what is trained"
OMP_NUM_THREADS=2
run b --chunk 3 --eval-every 1 --save-every 1
OMP_NUM_THREADS=1
for f in model.safetensors value_head.safetensors samples.jsonl; do
    same "threads, chunks, evaluations and saves change nothing: $f" "$work/a/$f" "$work/b/$f"
done
grep -v '"eval/' "$work/a/steps" > "$work/1"; grep -v '"eval/' "$work/b/steps" > "$work/2"
same "nor the log" "$work/1" "$work/2"
run half --compute bf16
[ "$(field "$work/half" ppo/policy/first_ratio_max_deviation 1)" = 0 ] &&
    [ "$(field "$work/half" ppo/policy/first_ratio_max_deviation 2)" = 0 ] \
    && ok "--compute bf16: the first ratio is exactly 1 too" ||
        bad "--compute bf16: the first ratio is exactly 1 too"
true_ "and the untrained policy the reference" "$(field "$work/half" objective/kl 1) == 0"
differ "and another model is trained" "$work/a/model.safetensors" "$work/half/model.safetensors"
grep -q '^weights: linears float32, compute bfloat16; embedding and head float32$' "$work/half.out" &&
    ok "it says so" || bad "it says so"
OMP_NUM_THREADS=2
run half2 --compute bf16 --chunk 3 --recompute
OMP_NUM_THREADS=1
same "the same one by two threads, in chunks, with activations computed anew" \
    "$work/half/model.safetensors" "$work/half2/model.safetensors"
run c --seed 9
differ "another seed trains another model" "$work/a/model.safetensors" "$work/c/model.safetensors"
sed 's/, "response_before.*//' "$work/a/samples.jsonl" > "$work/1"; sed 's/, "response_before.*//' \
    "$work/c/samples.jsonl" > "$work/2"
same "on the same evaluation queries" "$work/1" "$work/2"

# ---- the arithmetic of an update ----
run whole --mini-batch-size 8 --ppo-epochs 1 --steps 1
run split --mini-batch-size 2 --gradient-accumulation-steps 4 --ppo-epochs 1 --steps 1
for f in ppo/loss/policy ppo/loss/value grad_norm; do
    true_ "accumulation equals the whole batch: $f" "$(awk -v a="$(field "$work/whole" $f \
        1)" -v b="$(field "$work/split" $f 1)" 'BEGIN { d = a - b; print d * d }') < 1e-9"
done
run clip --max-grad-norm 1e-12 --steps 3
run free --max-grad-norm 0 --steps 3 --target 6 --horizon 2000
true_ "gradient clipping holds in every update, not in the first alone" \
    "$(field "$work/clip" objective/kl 3)^2 < 1e-6"
true_ "which it would not otherwise" "$(field "$work/free" objective/kl 3)^2 > 1e-4"
coefficient=$(awk -v kl="$(field "$work/free" objective/kl 2)" -v \
    c="$(field "$work/free" objective/kl_coef 2)" \
    'BEGIN { e = kl / 6 - 1
             e = e < -0.2 ? -0.2 : e > 0.2 ? 0.2 : e; printf "%.9f", c * (1 + e * 8 / 2000) }')
true_ "the KL controller is fed the KL of a sequence" \
    "($(field "$work/free" objective/kl_coef 3) - $coefficient)^2 < 1e-16"
run fixed --adap-kl-ctrl=no --temperature 0.7 --kl-penalty full --whiten-rewards --early-stopping \
    --target-kl 1e-9 --ppo-epochs 4
[ "$(field "$work/fixed" objective/kl_coef 1)" = "$(field "$work/fixed" objective/kl_coef 2)" ] &&
    ok "a fixed coefficient" || bad "a fixed coefficient"
[ "$(field "$work/fixed" ppo/policy/first_ratio_max_deviation 2)" = 0 ] &&
    ok "temperature 0.7: the first ratio is 1 too" || bad "temperature 0.7"
true_ "the full KL is not negative" "$(field "$work/fixed" objective/kl 2) >= 0"
run narrow --kl-penalty full --lora-r 128 --lora-targets q_proj,o_proj,up_proj,down_proj --mini-batch-size \
    1 --query-min 8 --response-min 12 --steps 1
[ -s "$work/narrow/steps" ] && ok "memory is enough where referencing needs more of it than training" ||
    bad "memory of a wide adapter with the full KL"
run scores --use-score-scaling --use-score-norm --score-clip 1 --score-normalize --missing-eos-penalty 2 \
    --kl-penalty k3 --lr-anneal linear \
    --adam-tf-style --adam-eps 1e-5 --biased-variance --value-init pytorch --eval-queries 24
true_ "scores are scaled and clipped" "$(field "$work/scores" ppo/mean_scores 1)^2 <= 1"
true_ "the learning rate is annealed" "$(field "$work/scores" learning_rate 2) == 0.0005"
run guard --ratio-threshold 1e-3 --steps 1
[ "$(field "$work/guard" ppo/updates_skipped 1)" -gt 0 ] && ok "the ratio guard leaves updates out" ||
    bad "the ratio guard"

# ---- a value head of two layers ----
run mlp --value-head mlp
run unlearnt --value-head mlp --value-learning-rate 1e-12
true_ "two layers: the first ratio is 1, and the value loss falls during a step" \
    "$(field "$work/mlp" ppo/policy/first_ratio_max_deviation 1) == 0 &&
     $(field "$work/mlp" ppo/policy/first_ratio_max_deviation 2) == 0 &&
     $(field "$work/mlp" ppo/loss/value 1) < 0.95 * $(field "$work/unlearnt" ppo/loss/value 1)"
true_ "the last layer begins with zeros" \
    "$(field "$work/mlp" ppo/val/mean 1) == 0 && $(field "$work/mlp" ppo/val/var 1) == 0"
grep -q '^value head of two layers, 256 numbers between them$' "$work/mlp.out"; is "it says so"
head -c 400 "$work/mlp/value_head.safetensors" | grep -q \
    'v_head.0.bias".*\[256\].*v_head.0.weight".*\[256,128\].*v_head.2.bias".*\[1\].*v_head.2.weight".*\[1,256\]'
is "its file has trlx's names"
run go_on --policy "$work/mlp" --steps 1
grep -q '^value head of two layers' "$work/go_on.out" && grep -q "^value head from $work/mlp$" "$work/go_on.out"
is "a run from there has the file's layers"
refuses 1 'has two layers, and --value-head linear has one' $ppo "$data" $small --policy "$work/mlp" \
    --value-head linear --dry-run
refuses 1 'has one layer, and --value-head mlp has two' $ppo "$data" $small --policy "$work/a" \
    --value-head mlp --dry-run
grep -q 'leave --value-head out, or --value-init zero' "$work/err"; is "with advice"
run anew --policy "$work/mlp" --value-head linear --value-init zero --steps 1
! grep -q '^value head' "$work/anew.out" && [ "$(field "$work/anew" ppo/val/mean 1)" = 0 ]; is "which is right"

# ---- a value model ----
run critic --value-model $policy --value-learning-rate 1e-3
run still --value-model $policy --value-learning-rate 1e-12
true_ "a value model: the first ratio is 1, the first values 0, and the value loss falls during a step" \
    "$(field "$work/critic" ppo/policy/first_ratio_max_deviation 1) == 0 &&
     $(field "$work/critic" ppo/policy/first_ratio_max_deviation 2) == 0 &&
     $(field "$work/critic" ppo/val/mean 1) == 0 &&
     $(field "$work/critic" ppo/loss/value 1) < 0.97 * $(field "$work/still" ppo/loss/value 1)"
true_ "its gradient has a norm of its own" "$(field "$work/critic" ppo/val/grad_norm 1) > 0"
[ -s "$work/critic/value_model/model.safetensors" ] && [ ! -e "$work/critic/value_head.safetensors" ] &&
    grep -q '"LlamaForSequenceClassification"' "$work/critic/value_model/config.json" &&
    cmp -s "$work/critic/value_model/tokenizer.json" "$work/critic/tokenizer.json"
is "the run's folder has a value model, and no value head"
echo "The film was" > "$work/text"
$run score "$work/critic/value_model" "$work/text" > "$work/out" 2> "$work/err"; is "which opens as a judge"
OMP_NUM_THREADS=2
run critic2 --value-model $policy --value-learning-rate 1e-3 --chunk 3 --recompute
OMP_NUM_THREADS=1
same "threads, chunks and --recompute change nothing: the value model" \
    "$work/critic/value_model/model.safetensors" "$work/critic2/value_model/model.safetensors"
run warm_model --value-model $policy --value-learning-rate 1e-3 --value-warmup 2 --value-init pytorch
true_ "--value-warmup: the value model learns, and the policy stays" "$(field "$work/warm_model" objective/kl 2) == 0 &&
    $(field "$work/critic" objective/kl 2) != 0 && $(field "$work/warm_model" ppo/val/mean 1) != $(field "$work/warm_model" ppo/val/vpred 1)"
run cut --value-model $policy --max-grad-norm 1e-12 --value-learning-rate 1e-3 --steps 1
true_ "its gradients are clipped by their own norm" "$(field "$work/cut" ppo/loss/value 1) > 1.01 * \
    $(field "$work/critic" ppo/loss/value 1)"
run light --value-model $policy --value-learning-rate 1e-3 --steps 1
run heavy --value-model $policy --value-learning-rate 1e-3 --steps 1 --vf-coef 5
same "the value loss moves no weight of the policy, nor its clipping" "$work/light/model.safetensors" \
    "$work/heavy/model.safetensors"
differ "but the value model's" "$work/light/value_model/model.safetensors" "$work/heavy/value_model/model.safetensors"
run later_model --value-model "$work/critic/value_model" --steps 1
grep -q 'parameters; its own head$' "$work/later_model.out" && grep -q 'parameters; a new head$' "$work/critic.out"
is "a later run goes on from it, head and all"
true_ "with its values" "$(field "$work/later_model" ppo/val/mean 1)^2 > 0"
refuses 2 'no effect with --value-model (a value model has a head of one layer): --value-head' $ppo "$data" \
    $small --value-model $policy --value-head mlp
[ ! -f data/reward/config.json ] || refuses 1 'a value model has to be causal' $ppo "$data" $small \
    --value-model data/reward --dry-run
$prep tokenizer "$data" --kind sentencepiece --vocab 400 --out "$work/few" > "$work/out" 2> "$work/err"
$sft "$data" --tokenizer "$work/few" --layers 1 --heads 2 --dim 16 --tokens 700 --steps 1 --out "$work/other" \
    > "$work/out" 2> "$work/err"; is "a small policy with other ids"
cp -r $policy "$work/names" && chmod -R u+w "$work/names" && rm -f "$work/names/tokenizer.model" &&
    sed 's/"▁splendid": 967/"▁splendid": 968/; s/"oore": 968/"oore": 967/' $policy/tokenizer.json > "$work/names/tokenizer.json"
[ $policy != data/policy ] ||
    refuses 1 'has another token for an id' $ppo "$data" $small --value-model "$work/names" --dry-run
run unmoved --value-model $policy --value-learning-rate 1e-12 --value-init pytorch --prompt-tokens 3 --top-k 20 --steps 1
true_ "values of the first update are the old ones; a soft prompt is the policy's alone" \
    "($(field "$work/unmoved" ppo/val/vpred 1) - $(field "$work/unmoved" ppo/val/mean 1))^2 < 1e-14 &&
     $(field "$work/unmoved" ppo/val/mean 1) != 0 && $(field "$work/unmoved" ppo/policy/first_ratio_max_deviation 1) == 0"
refuses 1 'another number of token ids than the policy: .*400' $ppo "$data" $small --value-model "$work/other" --dry-run

# ---- sampling from fewer tokens ----
# still WHAT NAME: in a run that moves nothing, all ratios stay 1: every update reads its own tokens' sets
still() {
    first="$(field "$work/$2" ppo/policy/first_ratio_max_deviation 1)"
    true_ "$1: the first ratio is 1, and all where nothing moves" \
        "$first == 0 && $(field "$work/$2" ppo/policy/max_ratio_deviation 1) < 1e-4"
}
run top_k --top-k 5 --learning-rate 1e-12 --steps 1 --chunk 3
still "--top-k 5" top_k
true_ "KL begins above 0: the reference chooses from all tokens" "$(field "$work/top_k" objective/kl 1) > 1"
run top_p --top-p 0.8 --temperature 1.3 --learning-rate 1e-12 --steps 1 --kl-penalty full
still "--top-p 0.8 at a temperature of 1.3" top_p
true_ "the exact KL is that of the cut distribution" "$(field "$work/top_p" objective/kl 1) > 0.1"
true_ "entropy is that of fewer tokens" "$(field "$work/top_k" ppo/policy/entropy 1) < log(5)"
run top --top-k 20 --top-p 0.95 --min-new-tokens 6
differ "and it trains" "$work/a/model.safetensors" "$work/top/model.safetensors"
refuses 2 'min-new-tokens is 13, more than --response-max' $ppo "$data" $small --min-new-tokens 13

# ---- other algorithms ----
groups="--batch-size 8 --group 4 --lora-r 4"
with_values=$small small=${small% --cliprange-value 0.2}
run grpo --algorithm grpo $groups --dump-rollouts "$work/grpo.jsonl"
# groups FILE: prints for each response of a dump its query, score, first and last advantage
groups() { sed -n 's/.*"score": \([-0-9.e+]*\),.*"query": \(\[[^]]*\]\).*"advantage": \[\([-0-9.e+]*\).*[ [] *\([-0-9.e+]*\)\]}$/\2|\1|\3|\4/p' "$1"; }
groups "$work/grpo.jsonl" > "$work/groups"
awk -F'|' 'NR % 4 == 1 { n = 0; s = q = 0; query = $1; delete x; delete a }
    { if ($1 != query || $3 != $4) bad = 1; x[++n] = $2; a[n] = $3; s += $2 }
    NR % 4 == 0 { for (i = 1; i <= 4; i++) q += (x[i] - s / 4) ^ 2
        for (i = 1; i <= 4; i++) { d = (x[i] - s / 4) / (sqrt(q / 3) + 1e-4) - a[i]; if (d * d > 1e-9) bad = 1 } }
    END { exit bad || NR != 16 }' "$work/groups"
is "GRPO: four responses to a query, each advantage its score in the group's deviations, for every token"
[ ! -e "$work/grpo/value_head.safetensors" ] && ! grep -q '"ppo/val/\|"ppo/returns' "$work/grpo/log.jsonl"
is "there is no value head: none saved, none logged"
true_ "the first ratio is 1, KL is in the loss, the coefficient fixed" \
    "$(field "$work/grpo" ppo/policy/first_ratio_max_deviation 2) == 0 && $(field "$work/grpo" ppo/loss/kl 2) > 0 &&
     $(field "$work/grpo" objective/kl_coef 2) == 0.04 && $(field "$work/grpo" ppo/mean_non_score_reward 2) == 0"
run grpo4 --algorithm grpo $groups --steps 4 --save-every 1
run grpo2 --algorithm grpo $groups --steps 2 --save-every 1
$ppo --resume "$work/grpo2" --steps 4 > "$work/out" 2>&1
same "a stopped run of GRPO goes on" "$work/grpo4/adapter_model.safetensors" "$work/grpo2/adapter_model.safetensors"
run rloo --algorithm rloo $groups --dump-rollouts "$work/rloo.jsonl" --kl-coef 0
groups "$work/rloo.jsonl" | awk -F'|' 'NR % 4 == 1 { s = 0 }
    { x[NR % 4] = $2; a[NR % 4] = $3; s += $2 }
    NR % 4 == 0 { for (i = 0; i < 4; i++) { d = x[i] - (s - x[i]) / 3 - a[i]; if (d * d > 1e-9) bad = 1 } }
    END { exit bad || NR != 16 }'
is "RLOO: the score minus the mean of the other three"
run drgrpo --algorithm grpo $groups --group-scale=no
differ "without the group's deviation (Dr. GRPO) another adapter is trained" \
    "$work/grpo/adapter_model.safetensors" "$work/drgrpo/adapter_model.safetensors"
refuses 2 'no effect without --algorithm (only grpo and rloo have groups): --group' $ppo "$data" $small --group 4
refuses 2 'no effect with --algorithm rloo (it has no value head): --vf-coef' $ppo "$data" $small \
    --algorithm rloo --group 4 --vf-coef 1
refuses 2 'no effect with --algorithm grpo (it has no value head): --value-head' $ppo "$data" $small \
    --algorithm grpo --group 4 --value-head mlp
refuses 2 'no effect with --algorithm [a-z]* (it has no value head): --value-model' $ppo "$data" $small \
    --algorithm grpo --group 4 --value-model $policy
refuses 2 'has to be a multiple of --group' $ppo "$data" $small --algorithm grpo --group 3
refuses 2 'no effect with --algorithm rloo: --group-scale' $ppo "$data" $small --algorithm rloo --group 4 \
    --group-scale=no
small=$with_values

# ---- texts that end a response ----
run stop --stop e --missing-stop-score -7 --steps 1 --response-min 12 --dump-rollouts "$work/stop.jsonl" \
    --eval-queries 24
stops=$(field "$work/stop" tokens/responses_with_stop 1)
true_ "--stop ends responses (it is reached)" "$stops > 0"
sed -n 's/.*"response_before": "\(.*\)", "response_after.*/\1/p' "$work/stop/samples.jsonl" |
    awk '{ if (index($0, "e") && $0 !~ /e[^e]*$/) bad = 1; n = gsub(/e/, "e") > 1 ? n + 1 : n }
        END { exit bad || n > NR / 3 }'
is "a response ends with the token that has it"
[ "$(grep -c '"score": -7,' "$work/stop.jsonl")" = $((8 - stops)) ]
is "the other ones have the score of a missing stop, and no other has it"
run later --stop e --stop-after 5 --steps 1 --response-min 12 --dump-rollouts "$work/later.jsonl"
sed 's/.*"response": \[\([^]]*\)\].*/\1/' "$work/later.jsonl" | awk -F, 'NF < 6 { exit bad = 1 } END { exit bad }'
is "--stop-after 5: not in the first five tokens"
refuses 2 'missing-stop-score needs a number: many' $ppo "$data" $small --stop e --missing-stop-score many
refuses 2 'no effect without --stop: --stop-after' $ppo "$data" $small --stop-after 3
refuses 2 'stop-after is 13, more than --response-max' $ppo "$data" $small --stop e --stop-after 12

# ---- best of n ----
run best --best-of 4 --steps 1 --response-min 12 --eval-queries 24
run unchosen --steps 1 --response-min 12 --eval-queries 24
best=$(sed -n 's/.*"eval\/best_of_mean": \([-0-9.e+]*\),.*/\1/p' "$work/best/log.jsonl")
true_ "the best of four responses is better than one" \
    "$best > $(sed -n '/"step": 0/s/.*"eval\/reward_mean": \([-0-9.e+]*\),.*/\1/p' "$work/best/log.jsonl") + 0.5"
grep -q '^best of 4 before training: mean reward .*, at a KL of at most 0.64$' "$work/best.out"; is "it says at what KL"
same "and it changes nothing else" "$work/best/model.safetensors" "$work/unchosen/model.safetensors"
refuses 1 'A language model is no judge: rm --reward' $ppo "$data" --policy $policy --reward data/policy --steps 0
refuses 3 'always writes the same (entropy 0 per token)' $ppo "$data" $small --top-p 0 --steps 1 --target 3
refuses 1 'on this disk: no program here downloads one' $ppo "$data" --policy no-such-gpt2
refuses 2 'no effect without --eval-queries (.*): --best-of' $ppo "$data" $small --eval-queries 0 --best-of 4

# ---- presets ----
for x in openai detox; do
    run $x --preset $x --steps 1 --batch-size 8 --mini-batch-size 4 --gradient-accumulation-steps 1 --ppo-epochs 1 \
        --query-min 8 --query-max 8 --response-min 6 --response-max 24 --eval-queries 24
    [ "$(field "$work/$x" ppo/policy/first_ratio_max_deviation 1)" = 0 ]; is "--preset $x runs"
done
grep -q '"responses_with_stop\|tokens/responses_with_stop' "$work/openai/log.jsonl"; is "and openai's ends at full stops"

# ---- rewards from a command ----
by_command="$small" small="$(echo "$small" | sed 's/--reward-text e//')"
count="while read -r line; do echo \${#line}; done"
run command --reward-command "$count" --steps 3 --save-every 1
true_ "a command's numbers are the rewards" "$(field "$work/command" env/reward_mean 1) > 20"
grep -q '^reward = what this command writes: while' "$work/command.out"; is "it says so"
# fails WHAT TEXT COMMAND: the run ends with this message
fails() { refuses 1 "$2" $ppo "$data" $small --out "$work/fails.runs" --reward-timeout 0.5 --reward-command "$3"; }
fails ended 'has ended, with exit code 3' 'exit 3'
fails missing 'has ended, with exit code 127' no-such-program
fails killed 'was ended by signal 9' 'kill -9 $$'
fails silent 'silent for 0.5 seconds, with 0 of 6 numbers written: sleep 30' 'sleep 30'
fails garbage 'a line that is not one number: 7 apples' 'while read -r line; do echo 7 apples; done'
fails nan 'a line that is not one number: nan' 'while read -r line; do echo nan; done'
fails more 'more lines than it got: 7$' 'while read -r line; do echo 7; echo 7; done'
fails long 'a line that is not one number: 1111' "while read -r line; do printf '%0200d\\n' 0 | tr 0 1; done"
fails zeros 'a line that is too long: 0000' "while read -r line; do printf '%0200d\\n' 0; done"
[ ! -e "$work/fails.runs/ppo-0001" ]; is "and leaves no folder, as nothing was trained"
# it fails in step 3 (after 6 responses of the evaluation and 16 of two steps), unless there is a file `good`
late="n=0; while read -r line; do n=\$((n + 1)); [ \$n != 25 ] || [ -e $work/good ] || exit 4; echo \${#line}; done"
refuses 1 'has ended, with exit code 4' $ppo "$data" $small --out "$work/late.runs" --steps 3 \
    --save-every 0 --reward-command "$late"
[ -s "$work/late.runs/ppo-0001/model.safetensors" ]; is "a command that fails loses nothing: step 2 is saved"
grep -q '^go on with: .*/ppo-0001 --reward-command COMMAND$' "$work/out"; is "the way to go on names the command"
refuses 2 'no file can start a command' $ppo --resume "$work/late.runs/ppo-0001"
refuses 2 'no file can start a command' $ppo --config "$work/command/log.jsonl"
: > "$work/good"
$ppo --resume "$work/late.runs/ppo-0001" --reward-command "$late" > "$work/out" 2>&1
same "and the run goes on as if it had not failed" "$work/late.runs/ppo-0001/model.safetensors" \
    "$work/command/model.safetensors"
refuses 2 'no effect with --reward-command (no judge is asked): --reward$' $ppo "$data" $small \
    --reward-command true --reward x
refuses 2 'no effect with --reward-command (.*): --reward-text$' $ppo "$data" $small --reward-command true \
    --reward-text e
refuses 2 'no effect without --reward-command: --reward-timeout' $ppo "$data" $small --reward-timeout 9
small="$by_command"

# ---- what is added to PPO's loss ----
run plain --lora-r 4 --learning-rate 1e-2
for x in "--cliprange-high 0.5" "--dual-clip 1.21" "--entropy-coef 0.1" "--loss-mean sequence" "--kl-in loss" \
    "--kl-in loss --kl-penalty mse" "--weight-decay 1" "--warmup-steps 1" "--lr-anneal cosine"; do
    run added --lora-r 4 --learning-rate 1e-2 $x
    differ "$x trains another adapter" "$work/plain/adapter_model.safetensors" \
        "$work/added/adapter_model.safetensors"
    rm -rf "$work/added" "$work/added.runs"
done
run entropy --lora-r 4 --learning-rate 1e-2 --entropy-coef 1 --steps 3 --init-kl-coef 0
run greedy --lora-r 4 --learning-rate 1e-2 --steps 3 --init-kl-coef 0
true_ "the entropy bonus raises the entropy" \
    "$(field "$work/entropy" ppo/policy/entropy 3) > $(field "$work/greedy" ppo/policy/entropy 3) + 0.05"
run loss --kl-in loss --init-kl-coef 3 --learning-rate 1e-3 --steps 4
run loose --init-kl-coef 0 --learning-rate 1e-3 --steps 4
# away NAME: how far a token's log-prob is from the reference's in step 4
away() { echo "($(field "$work/$1" objective/logprobs 4) - ($(field "$work/$1" objective/ref_logprobs 4)))"; }
true_ "the KL in the loss holds the policy back" "$(away loss) < $(away loose) / 2"
run warm --lora-r 4 --learning-rate 1e-2 --value-warmup 1 --steps 2
true_ "--value-warmup 1: step 2 begins with the first policy" "$(field "$work/warm" objective/kl 2) == 0"
true_ "but not with the first values" "$(field "$work/warm" ppo/val/mean 2)^2 > 0"
run rates --lora-r 4 --warmup-steps 2 --lr-anneal linear --steps 4 --learning-rate 6e-3
true_ "the learning rate rises, then is annealed" "$(field "$work/rates" learning_rate 1) == 0.002 &&
    $(field "$work/rates" learning_rate 2) == 0.004 && $(field "$work/rates" learning_rate 3) == 0.006 &&
    $(field "$work/rates" learning_rate 4) == 0.003"
refuses 2 'restrains nothing as a loss' $ppo "$data" $small --kl-in loss --kl-penalty kl
refuses 2 'full cannot be a loss' $ppo "$data" $small --kl-in loss --kl-penalty full
refuses 2 'dual-clip has to be above 1' $ppo "$data" $small --dual-clip 1.1
refuses 2 'warmup-steps has to be less' $ppo "$data" $small --warmup-steps 2

# ---- LoRA ----
run lora --lora-r 4 --learning-rate 1e-2
[ -s "$work/lora/adapter_model.safetensors" ] && [ -s "$work/lora/adapter_config.json" ] &&
    [ ! -e "$work/lora/model.safetensors" ] \
    && ok "LoRA: an adapter and no model" || bad "LoRA: an adapter and no model"
[ "$(field "$work/lora" objective/kl 1)" = 0 ] && ok "LoRA: the reference is the policy without it" ||
    bad "LoRA: KL at step 1"
run more --adapter "$work/lora" --learning-rate 1e-2
[ "$(field "$work/more" objective/kl 1)" = 0 ] && ok \
    "an adapter goes on from itself: the reference is its copy" || bad "adapter: KL at step 1"
differ "and is trained" "$work/lora/adapter_model.safetensors" "$work/more/adapter_model.safetensors"
grep -q 'value head from' "$work/more.out" && ok "with its value head" || bad "with its value head"

# ---- it learns ----
run learn --steps 4 --batch-size 16 --mini-batch-size 8 --ppo-epochs 4 --response-min 16 --response-max 16 \
    --eval-queries 24 --init-kl-coef 0.02 --target 20
before=$(sed -n 's/.*"reward_before": \([-0-9.e+]*\).*/\1/p' "$work/learn/samples.jsonl" |
    awk '{ s += $1 } END { print s / NR }')
after=$(sed -n 's/.*"reward_after": \([-0-9.e+]*\).*/\1/p' "$work/learn/samples.jsonl" |
    awk '{ s += $1 } END { print s / NR }')
true_ "the reward rises" "$after > $before * 1.15"
true_ "KL is what it costs" "$(field "$work/learn" objective/kl 4) > 0.1"

# ---- stops and refusals ----
$ppo "$data" $small --dry-run --out "$work/dry" > "$work/out" 2>&1
grep -q 'memory in total' "$work/out" && [ ! -e "$work/dry" ] && ok "--dry-run: the bill and no run" ||
    bad "--dry-run"
refuses 3 'not a number in step' $ppo "$data" $small --learning-rate 1e30 --out "$work/nan"
grep -q 'try: a smaller --learning-rate' "$work/err"; is "a NaN after an update: smaller steps"
refuses 2 'no effect with --reward-text (no judge is asked): --reward$' $ppo "$data" $small --reward x
refuses 2 'no effect without --eval-queries (nothing is evaluated): --show' $ppo "$data" $small --eval-queries 0
refuses 2 'no effect without --early-stopping: --target-kl' $ppo "$data" $small --target-kl 2
refuses 2 'no effect without --adap-kl-ctrl (.*): --horizon' $ppo "$data" $small --adap-kl-ctrl=no --horizon 9
refuses 2 'dropout is refused' $ppo "$data" $small --dropout 0.1
refuses 2 'batch-size' $ppo "$data" $small --mini-batch-size 9
refuses 2 'use-score-scaling' $ppo "$data" $small --use-score-norm
refuses 2 'no effect with --adapter (.*): --lora-r' $ppo "$data" $small --adapter "$work/lora" --lora-r 8
refuses 2 'no effect without --lora-r (there is no adapter): --lora-alpha' $ppo "$data" $small --lora-alpha 8
refuses 1 'matches no module' $ppo "$data" $small --lora-r 4 --lora-targets q_prj
refuses 1 'matches no module' $ppo "$data" $small --lora-r 4 --lora-targets input_layernorm
refuses 1 'rank is above the width' $ppo "$data" $small --lora-r 129 --lora-targets q_proj
refuses 1 "longer than the policy's positions" $ppo "$data" $small --response-max 100000
refuses 1 'no document is long enough' $ppo "$data" $small --query-min 240 --query-max 240 --response-min \
    2 --response-max 2 --show 0 --eval-queries 0
$ppo "$data" $small --steps 10000 --show 0 --eval-queries 0 --out "$work/stop" > "$work/out" 2>&1 < /dev/null & \
    child=$!
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    [ -s "$work/stop/ppo-0001/time.jsonl" ] && break
    sleep 1
done
kill -INT $child; wait $child; code=$?
if [ $code = 130 ] && grep -q 'stopped: what is saved' "$work/out" &&
    [ -s "$work/stop/ppo-0001/model.safetensors" ]
then ok "Ctrl-C saves and stops"; else bad "Ctrl-C saves and stops"; kill $child 2> /dev/null; fi

# ---- a policy that collapses, and one that was damaged before ----
collapse="--steps 4 --batch-size 16 --mini-batch-size 16 --learning-rate 0.03 --max-grad-norm 0"
refuses 3 'the policy has collapsed: KL .* per response, more than 10 times the target of 6' $ppo "$data" \
    $small $collapse --init-kl-coef 0 --save-every 1 --out "$work/collapsed"
grep -q 'collapsed: .*: step [23]; until this is over, nothing is saved over earlier weights' "$work/err" &&
    grep -q "collapsed: .*: $work/collapsed/ppo-0001 has the weights after step [12]$" "$work/err" &&
    grep -q 'try: a smaller --learning-rate, a larger --init-kl-coef' "$work/err"
is "it says so at once and at the end, and keeps what was saved before"
$ppo "$data" $small $collapse --steps 10000 --init-kl-coef 0 --save-every 1 --show 0 --out "$work/caught" \
    > "$work/out" 2>&1 < /dev/null & child=$!
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    grep -q '"step": 4,' "$work/caught/ppo-0001/time.jsonl" 2> "$work/err" && break
    sleep 1
done
kill -INT $child; wait $child
grep -q 'stopped: what is saved is the state after step [12];' "$work/out"
is "stopped after it has collapsed, it names the step whose weights are saved"
if [ $policy = data/policy ]; then
    # bytes NAME TEXT SIZE: a copy of the policy whose last SIZE bytes (in the last norm, f16) repeat TEXT
    bytes() {
        cp -r $policy "$work/$1" && chmod -R u+w "$work/$1"
        printf "$(awk -v text="$2" -v n=$(($3 / 2)) 'BEGIN { while (n--) printf "%s", text }')" |
            dd of="$work/$1/model.safetensors" bs=1 seek=$(($(wc -c < $policy/model.safetensors) - $3)) \
                conv=notrunc 2> "$work/err"
    }
    bytes no-number '\\377\\377' 2
    refuses 1 "tensor model.norm.weight has a NaN or an infinity: $work/no-number" $ppo "$data" $small \
        --policy "$work/no-number" --out "$work/none"
    grep -q 'try: another --policy' "$work/err" && ! grep -q 'rate' "$work/err"; is "another policy"
    bytes too-large '\\377\\173' 256
    for queries in 0 6; do
        refuses 1 "the policy's logits are not numbers in step 1; no weights were written" $ppo "$data" \
            $small --policy "$work/too-large" --compute f16 --show 0 --eval-queries $queries --out "$work/none"
        grep -q 'try: --compute f32, or another model to start from' "$work/err" && ! grep -q 'rate' "$work/err"
        is "numbers that are too large: another model, not a smaller step"
    done
fi

# ---- queries: prompts, few documents, documents that are too short ----
byte() { printf "\\$(printf %03o "$1")"; }
u32() { byte $(($1 & 255)); byte $(($1 >> 8 & 255)); byte 0; byte 0; }
# dataset KIND: lines  split|text  (kind 1) or  split|prompt|response  (kind 3) become a dataset
dataset() {
    printf RLHFDATA; u32 1; u32 "$1"; u32 0
    lines=$(cat); u32 "$(echo "$lines" | wc -l)"; u32 0
    echo "$lines" | while IFS='|' read -r split first second; do
        byte 255; byte 255; byte 255; byte 255; byte "$split"
        u32 ${#first}; printf %s "$first"
        [ "$1" = 1 ] || { u32 ${#second}; printf %s "$second"; }
    done
}
few() { $ppo "$work/few.bin" $small --steps 3 --out "$work/few.runs" "$@" > "$work/out" 2> "$work/err" < \
    /dev/null; }
long="The film was a small and quiet story about a boy and his dog in the old town by the sea."
printf '0|%s\n0|A dog.\n0|A cat.\n0|A cow.\n' "$long" | dataset 1 > "$work/few.bin"
good=0
for seed in 0 1 2 3 4 5; do
    few --seed $seed || continue
    grep -q '^1 of 4 training documents have more than --query-max tokens: a step of 8 queries has some of them again$' "$work/out" &&
        good=$((good + 1))
done
grep -q '^no evaluation: the dataset has no held-out documents$' "$work/out"; is "no held-out document: it says so"
[ $good = 6 ]; is "one document of four is long enough: every seed finds it, and says so ($good of 6)"
{
    printf '0|%s\n' "$long"
    printf '1|%s One.\n1|A dog.\n1|Two %s\n1|Three %s\n' "$long" "$long" "$long"
} | dataset 1 > "$work/few.bin"
few; is "few held-out documents"
sed 's/, "response_before.*//' "$work/few.runs/ppo-0007/samples.jsonl" > "$work/1"
[ "$(wc -l < "$work/1")" -eq 3 ] && [ "$(sort -u "$work/1" | wc -l)" -eq 3 ]; is "each is used once"
evaluation='evaluation on 3 queries: only so many of 4 held-out documents give one'
grep -q "^$evaluation$" "$work/out"; is "and it says how many there are"
few --query-min 60 --query-max 60
[ $? = 1 ] && grep -q 'no document is long enough' "$work/err" &&
    grep -q 'try: a smaller --query-max' "$work/err"
is "no document is long enough: a smaller --query-max"
question='Where is the small dog of the quiet old man today?'
printf '0|%s|Good.\n0|%s|There.\n' "$long" "$question" | dataset 3 > "$work/few.bin"
shortest=$(printf '%s\n' "$question" | $run tokenize $policy | wc -w)
few --query-min 9 --query-max 99 --steps 0
[ $? = 2 ] && grep -q -e '--query-min has no effect on a dataset of prompts' "$work/err"; is "prompts are taken whole: --query-min is refused"
few --query-max 99 --steps 0
grep -q '^queries of up to 99 tokens' "$work/out"; is "prompts are taken whole: their least size is not --query-min"
few --query-max 5
[ $? = 1 ] && grep -q "longer than --query-max; the shortest ($shortest; at most 5)" "$work/err" &&
    grep -q 'try: a larger --query-max' "$work/err"
is "every prompt is too long: a larger --query-max"
few --query-max "$shortest"; is "which is enough"

# ---- a judge that reads less than query and response: the response is seen whole ----
rm="${RUN:-} ${BIN:-.}/rm" judge=$work/short-judge tokenizer=data/reward
if [ -f $tokenizer/vocab.json ]; then
$prep grammar data/grammar.txt --out "$work/short.bin" --count 300 --seed 5 > "$work/out"
$rm "$work/short.bin" --tokenizer $tokenizer --positions 24 --dim 16 --layers 1 --heads 2 --steps 1 --out \
    "$judge" > "$work/out" 2> "$work/err"; is "a judge of 24 positions: 20 tokens, <s> and </s>"
short="--policy $policy --reward $judge --preset imdb-small --batch-size 16 --mini-batch-size 8 --ppo-epochs 1
       --eval-queries 6 --show 1 --steps 1 --query-min 6 --query-max 8"
# judged NAME OPTIONS ...: a run whose scores have to be those of the last 20 tokens of query and response.
# Sets cut to the texts that have more tokens, queries and responses to the log's counts.
judged() {
    name=$1; shift
    rm -rf "$work/short.runs"
    $ppo "$work/short.bin" $short --dump-rollouts "$work/short.jsonl" --out "$work/short.runs" "$@" > \
        "$work/out" 2> "$work/err" || bad "$name: $(head -n 2 "$work/err" | tr '\n' ' ')"
    mv "$work/short.runs/ppo-0001" "$work/$name"
    sed 's/.*"query": \[\([^]]*\)\], "response": \[\([^]]*\)\].*/\1, \2/' "$work/short.jsonl" | tr -d , |
        $run tokenize $policy --decode --jsonl > "$work/texts"
    $run tokenize $tokenizer "$work/texts" --jsonl |
        awk '{ s = "0"; for (i = NF > 20 ? NF - 19 : 1; i <= NF; i++) s = s " " $i; print s, 2 }' > \
            "$work/ids"
    cut=$($run tokenize $tokenizer "$work/texts" --jsonl | awk 'NF > 20 { n++ } END { print n + 0 }')
    $run score "$judge" "$work/ids" --ids | sed 's/.*"logits": \[[^,]*, \([-0-9.e]*\)\].*/\1/' > "$work/1"
    sed 's/.*"score": \([-0-9.e]*\),.*/\1/' "$work/short.jsonl" > "$work/2"
    same "$name: scores are those of the last tokens" "$work/1" "$work/2"
    queries=$(field "$work/$name" env/queries_cut 1) responses=$(field "$work/$name" env/responses_cut 1)
}
judged fits --response-min 4 --response-max 6
[ "$cut" = 0 ] && [ "$queries" = 0 ] && [ "$responses" = 0 ]; is "nothing is cut where everything fits"
judged query --response-min 13 --response-max 13
grep -q 'warning' "$work/err"; [ $? = 1 ]; is "a cut query is no reason to warn"
true_ "the query loses its beginning, not the response" "$cut > 0 && $queries == $cut && $responses == 0"
refuses 1 'more of the judge.s tokens than it reads: '"$judge"'.*20' $ppo "$work/short.bin" $short \
    --response-max 32 --out "$work/short.refused"
[ ! -e "$work/short.refused" ] && grep -q 'try: --response-max [12][0-9], or --long-response cut' "$work/err"
is "a response that does not fit: refused before the run"
refuses 2 'no effect with --reward-text (no judge is asked): --long-response' $ppo "$work/short.bin" $small --long-response cut
and=$(awk 'BEGIN { for (i = 0; i < 30; i++) printf "%sand", i ? " " : "" }')     # one token each, for both
printf '0|%s\n0|%s\n0|%s\n' "$and" "$and" "$and" | dataset 1 > "$work/few.bin"
$ppo "$work/few.bin" $short --response-min 20 --response-max 20 --show 0 --eval-queries 0 --out "$work/few.runs" > \
    "$work/out" 2> "$work/err"
grep -q 'warning at step 1: of 16 responses, [0-9]* are longer than the 20 tokens that the judge' "$work/err"
is "a response that is longer than the documents let expect: a warning"
# A judge that cannot score a word of step 2's texts which step 1's do not have: the word's row in the
# embedding is too large.
judged two --response-min 13 --response-max 13 --steps 2 --show 0 --eval-queries 0
$run tokenize $tokenizer "$work/texts" --jsonl | awk 'NR <= 16 { for (i = 1; i <= NF; i++) seen[$i] = 1 }
    NR > 16 { for (i = NF > 20 ? NF - 19 : 1; i <= NF; i++) if (!($i in seen)) { print $i; exit } }' > \
    "$work/1"
cp -r "$judge" "$work/large-judge"
model=$work/large-judge/model.safetensors
header=$(od -A n -t u4 -N 4 "$model" | tr -d ' ')
from=$(dd if="$model" bs=1 skip=8 count="$header" 2> "$work/err" | tr '}' '\n' |
    sed -n 's/.*embeddings.word_embeddings.*"data_offsets":\[\([0-9]*\),.*/\1/p')
printf '\377\377\177\177\377\377\177\177' |
    dd of="$model" bs=1 seek=$((8 + header + from + 64 * $(cat "$work/1"))) conv=notrunc 2> "$work/err"
refuses 1 "step 2: the judge's score of response [0-9]* is not a number: $work/large-judge" $ppo "$work/short.bin" $short \
    --reward "$work/large-judge" --response-min 13 --response-max 13 --steps 2 --show 0 --eval-queries 0 --out \
    "$work/large.runs"
[ -s "$work/large.runs/ppo-0001/model.safetensors" ] &&
    [ "$(wc -l < "$work/large.runs/ppo-0001/log.jsonl")" = 2 ]
is "in step 2: the weights after step 1 are saved"
judged response --response-min 24 --response-max 32 --long-response cut
true_ "or its beginning is cut, and counted" "$responses == 16 && $cut == 16 && $queries == 0"
grep -q '"eval/responses_cut": 6}' "$work/response/log.jsonl"; is "in evaluations, too"
fi

# ---- what a run writes about itself ----
run twice --eval-every 1 --keep-best
grep -q '^after step 1: mean reward [-0-9.]*, median [-0-9.]*, KL [-0-9.]* on 6 held-out queries: the best so far$' \
    "$work/twice.out"; is "--eval-every: an evaluation between two steps is printed"
grep -q '^best evaluation: after step [12]; its weights are in .*/best$' "$work/twice.out"; is "--keep-best: the end says which step"
# room RUN: its bill of the disk, in bytes
room() { sed -n 's/^  written to the disk *//p' "$work/$1.out" |
    awk '{ print $1 * ($2 == "GB" ? 1e9 : $2 == "MB" ? 1e6 : $2 == "KB" ? 1e3 : 1) }'; }
true_ "the bill of the disk has room for the state" "$(room unchosen) > $(cat "$work"/unchosen/* | wc -c) * 0.9"
[ "$(grep -c '"eval/reward_mean"' "$work/twice/log.jsonl")" = 3 ]
is "--eval-every that divides --steps: each evaluation is logged once"
true_ "--lr-anneal linear: the last step has lr / steps" \
    "$(field "$work/scores" learning_rate 2) == 1e-3 / 2"
$ppo --help | tr -s ' \n' ' ' > "$work/help"
grep -q "whose own rate is the first" "$work/help"; is "and --help says so"
for penalty in 'kl: d,' 'abs: |d|' 'mse: d^2/2' 'k3: exp(-d) - 1 + d' 'full: the exact KL'; do
    grep -qF -- "$penalty" "$work/help"; is "--help says what $penalty"
done
no_page() { sed '/curves and all samples/d; /report.html$/d' "$1"; }     # this folder was renamed
$run report "$work/learn" > "$work/1" && no_page "$work/1" > "$work/report"
no_page "$work/learn.out" | tail -n "$(($(wc -l < "$work/report") + 1))" | sed '$d' > "$work/printed"
same "run report prints what ppo printed at its end" "$work/report" "$work/printed"
mkdir "$work/files" && cp "$work/learn/log.jsonl" "$work/learn/samples.jsonl" "$work/files"
$run report "$work/files" --show 0 > "$work/1"
grep -q '24 held-out queries' "$work/1" && ! grep -q 'response before' "$work/1" && [ "$(wc -l < "$work/1")" -lt "$(wc -l < "$work/report")" ]
is "from log.jsonl and samples.jsonl alone"
grep -q 'of the training batch whose KL first passed 3: \|KL never passed 3$' "$work/1"; is \
    "whose reward it is at KL 3"
refuses 1 'such as runs/ppo-0001' $run report "$work"
$run report "$work/stop/ppo-0001" > "$work/1" && grep -q 'no samples.jsonl' "$work/1"; is \
    "of a stopped run there is no table"
run one --batch-size 1 --mini-batch-size 1 --ppo-epochs 1 --steps 20 --show 0 --eval-queries 0 --learning-rate 1e-4 \
    --response-min 24 --response-max 24 --seed 1
[ "$(grep -c 'the KL, whose expectation is never below 0, is -[0-9.]*; it was below -1 in this' "$work/one.err")" = 1 ] &&
    grep -q '^  try: a larger --batch-size, .* or a larger --init-kl-coef' "$work/one.err" &&
    ! grep -q 'kl-penalty' "$work/one.err"
is "a negative KL: more responses, and no other penalty"

# ---- --dump-rollouts: rewards, advantages and returns, computed again from what else it has ----
discounts="--gamma 0.9 --lam 0.8 --init-kl-coef 0.3 --missing-eos-penalty 1"
run dump --dump-rollouts "$work/dump.jsonl" $discounts
run undumped $discounts
true_ "a line for each response of each step" "$(wc -l < "$work/dump.jsonl") == 16"
same "--dump-rollouts changes no weight" "$work/dump/model.safetensors" "$work/undumped/model.safetensors"
cat > "$work/redo.awk" <<'AWK'
function near(a, b,    d) {
    d = a - b
    d = (d < 0 ? -d : d) / (1 + (b < 0 ? -b : b))
    if (d > worst) worst = d
    checked++
}
function number(name) {
    if (!match($0, "\"" name "\": [-+.0-9e]+")) bad = bad " " name
    return substr($0, RSTART + length(name) + 4, RLENGTH - length(name) - 4) + 0
}
function array(name, a,    text) {
    if (!match($0, "\"" name "\": \\[[^]]*\\]")) { bad = bad " " name; return 0 }
    text = substr($0, RSTART + length(name) + 5, RLENGTH - length(name) - 6)
    return split(text, a, ", ")
}
# The step's advantages are whitened: (raw - mean) / sqrt(unbiased variance + 1e-8).
function whitened(    i, mean, square) {
    for (i = 1; i <= P; i++) mean += raw[i] / P
    for (i = 1; i <= P; i++) square += (raw[i] - mean) ^ 2
    for (i = 1; i <= P; i++) near(advantage[i], (raw[i] - mean) / sqrt(square / (P - 1) + 1e-8))
    P = 0
}
{
    if (number("step") != step) { if (P) whitened(); step = number("step"); place = 0 }
    if (number("index") != place++) bad = bad " index"
    n = array("response", ids)
    if (array("query", q) < 2 || array("logprob", lp) != n) bad = bad " lengths"
    if (array("ref_logprob", ref) != n) bad = bad " lengths"
    if (array("value", v) != n || array("kl", kl) != n || array("reward", r) != n) bad = bad " lengths"
    if (array("advantage", A) != n || array("return", R) != n) bad = bad " lengths"
    next_value = next_advantage = 0
    for (t = n; t >= 1; t--) {
        near(kl[t], lp[t] - ref[t])
        near(r[t], -number("kl_coef") * kl[t] + (t == n ? number("score") : 0))
        next_advantage = r[t] + gamma * next_value - v[t] + gamma * lam * next_advantage
        next_value = v[t]
        near(R[t], next_advantage + v[t])
        raw[P + t] = next_advantage
        advantage[P + t] = A[t]
    }
    P += n
}
END { whitened(); print worst + 0, checked + 0, bad }
AWK
# redo LAMBDA: sets worst (difference), checked (numbers) and wrong (keys)
redo() {
    awk -v gamma=0.9 -v lam="$1" -f "$work/redo.awk" "$work/dump.jsonl" > "$work/redone"
    read -r worst checked wrong < "$work/redone"
}
redo 0.8
[ -z "$wrong" ]; is "it has every key, and an entry for each token $wrong"
true_ "KL, rewards, advantages and returns can be computed again" "$worst < 1e-5 && $checked > 400"
redo 0.7
true_ "which another lambda does not give" "$worst > 1e-3"
array='\[\([^]]*\)\]'
sed -n '1,8s/.*"query": '"$array"', "response": '"$array"'.*/\1, \2/p' "$work/dump.jsonl" |
    tr -d , > "$work/ids"
$run logprobs $policy "$work/ids" --ids | sed 's/.*"logprobs": '"$array"'.*/\1/' > "$work/all"
sed -n '1,8s/.*"logprob": '"$array"', "ref.*/\1/p' "$work/dump.jsonl" | paste "$work/all" - | awk -F '\t' '{
    n = split($1, a, ", "); m = split($2, b, ", ")
    for (i = 1; i <= m; i++) {
        d = a[n - m + i] - b[i]
        d = d < 0 ? -d : d
        if (d > worst) worst = d
        count++
    }
} END { print worst + 0, count + 0 }' > "$work/redone"
read -r worst checked < "$work/redone"
true_ "the first step's log-probs are those of run logprobs" "$worst < 1e-4 && $checked > 40"
refuses 2 'is 4, more than --batch-size: 3' $ppo "$data" $small --batch-size 3
grep -q 'try: a smaller --mini-batch-size, or a larger --batch-size' "$work/err"; is "... with advice"
refuses 2 'query-min is 5, more than --query-max: 3' $ppo "$data" $small --query-min 5 --query-max 3
refuses 2 '--dump-rollouts would overwrite what is read' $ppo "$work/few.bin" $small --dump-rollouts \
    "$work/few.runs/../few.bin"

# ---- a policy with more ids than its tokenizer, and the digits of other builds ----
$prep tokenizer "$data" --kind sentencepiece --vocab 400 --out "$work/words" > "$work/out" 2>&1
run padded --tokenizer "$work/words" --response-min 1 --response-max 3 --eval-queries 24
padding='the policy has 2048 ids, its tokenizer 400: the others are written as nothing'
grep -q "^$padding$" "$work/padded.err" && [ "$(grep -c 'written as nothing' "$work/padded.err")" = 1 ]
is "a policy with more ids than its tokenizer says so once, and runs"
grep -q '"response_before": ""' "$work/padded/samples.jsonl"; is "a response of such ids is empty"
objects=$(make -s --no-print-directory list 2> "$work/err" | tr ' ' '\n' | sed -n '/[a-z]/s/$/.o/p' |
    grep -v '^train.o$')
if ${CC:-cc} -std=c99 -O1 -mfpmath=387 -I. -c -o "$work/train.o" train.c 2> "$work/err" &&
   ${CC:-cc} -fopenmp -o "$work/sft387" sft.o "$work/train.o" $objects -lm 2> "$work/err"; then
    small_sft="$data --policy $policy --context 32 --dry-run"
    $work/sft387 $small_sft > "$work/out" 2>&1
    grep -q '^this build computes with more digits than a float holds (FLT_EVAL_METHOD 2)' "$work/out"
    is "FLT_EVAL_METHOD 2 is said"
    ${RUN:-} ${BIN:-.}/sft $small_sft > "$work/out" 2>&1
        ! grep -q FLT_EVAL_METHOD "$work/out"; is "and 0 is not"
else skipped=$((skipped + 2)); echo "  skip  no x87"; fi

# ---- the judge ----
if [ -f data/reward/config.json ]; then
    small="$small --response-min 8"
    refuses 1 'no such label' $ppo "$data" --policy $policy --preset imdb-small --label nonsense
    $ppo "$data" --policy $policy --preset imdb-small --batch-size 8 --mini-batch-size 8 --steps 1 \
        --eval-queries 4 --out "$work/judge.runs" > "$work/out" 2>&1
    [ $? = 0 ] && grep -q "^reward = logit of 'positive'" "$work/out" && ok "the judge's label is found" ||
        bad "the judge's label is found"
    $ppo "$data" --policy $policy --preset imdb-small --batch-size 8 --mini-batch-size 8 --steps 1 \
        --eval-queries 4 --chunk 1 --out "$work/single.runs" > "$work/out" 2>&1
    $ppo "$data" --policy $policy --preset imdb-small --batch-size 8 --mini-batch-size 8 --steps 0 \
        --eval-queries 4 --compute f16 --out "$work/f16.runs" > "$work/out" 2>&1
    [ $? = 0 ] && ok "--compute f16, judge and all" || bad "--compute f16, judge and all"
    same "texts judged one by one or together" "$work/judge.runs/ppo-0001/samples.jsonl" \
        "$work/single.runs/ppo-0001/samples.jsonl"
    # ---- several judges ----
    two="--policy data/policy --preset imdb-small --batch-size 8 --mini-batch-size 8 --steps 1 --eval-queries 4"
    $ppo "$data" $two --reward data/reward:3,data/reward:-1 --length-penalty 0.5 --lr 1e-12 --out "$work/judge2.runs" \
        > "$work/out" 2>&1
    $ppo "$data" $two --lr 1e-12 --out "$work/judge1.runs" > "$work/1" 2>&1
    grep -q "^reward = 3 x logit of 'positive'" "$work/out" &&
        grep -q "^reward = \.\.\. + -1 x logit of 'positive'" "$work/out"; is "two judges: it says what they weigh"
    one=$(field "$work/judge1.runs/ppo-0001" env/reward_mean 1)
    true_ "the reward is the weighted sum of their logits" \
        "($(field "$work/judge2.runs/ppo-0001" env/reward_mean 1) - 2 * ($one))^2 < 1e-10 &&
         ($(field "$work/judge2.runs/ppo-0001" env/judge_mean_2 1) - ($one))^2 < 1e-10"
    tokens=$(field "$work/judge2.runs/ppo-0001" tokens/responses_len_mean 1)
    true_ "--length-penalty is subtracted for each token, from the score alone" \
        "($(field "$work/judge2.runs/ppo-0001" ppo/mean_scores 1) - 2 * ($one) + 0.5 * $tokens)^2 < 1e-8"
    refuses 2 'with weights other than 0: data/reward:0' $ppo "$data" $two --reward data/reward:0
    refuses 2 'reward-adapter is for one judge' $ppo "$data" $two --reward data/reward,data/reward \
        --reward-adapter x
    # An empty response before a judge whose tokenizer has no template: bos alone, eos alone, or refused at
    # the start.
    bare="--policy $policy --tokenizer $work/words --reward $work/bare --preset imdb-small --score response
          --steps 1 --batch-size 4 --mini-batch-size 4 --response-min 1 --response-max 1 --eval-queries 24"
    cp -r data/reward "$work/bare" && chmod -R u+w "$work/bare"
    rm "$work/bare/special_tokens_map.json" "$work/bare/tokenizer.json"
    for kind in bos eos; do
        name='<|endoftext|>' config='{}'
        [ $kind = bos ] || { name='<a>'; config='{"eos_token": "</s>"}'; }
        sed "s/\"<s>\": 0/\"$name\": 0/" data/reward/vocab.json > "$work/bare/vocab.json"
        echo "$config" > "$work/bare/tokenizer_config.json"
        want=$(printf '\n' | $run score "$work/bare" |
            sed -n 's/.*"logits": \[[^,]*, \([-0-9.e+]*\)\].*/\1/p')
        rm -rf "$work/bare.runs"
        $ppo "$data" $bare --out "$work/bare.runs" > "$work/out" 2> "$work/err" < /dev/null
        got=$(sed -n 's/.*"response_before": "", .*"reward_before": \([-0-9.e+]*\),.*/\1/p' \
            "$work/bare.runs/ppo-0001/samples.jsonl" | sort -u)
        true_ "an empty response before a judge without a template is $kind alone, as for run score" \
            "\"$got\" != \"\" && (\"$got\" - \"$want\") ^ 2 < 1e-10"
    done
    echo '{}' > "$work/bare/tokenizer_config.json"
    refuses 1 'an empty text would have no token for the judge' $ppo "$data" $bare --out "$work/none.runs"
    [ ! -e "$work/none.runs" ]; is "at the start"
else skipped=$((skipped + 8)); echo "  skip  no data/reward"; fi
finish
