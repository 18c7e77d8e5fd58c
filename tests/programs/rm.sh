#!/bin/sh
# tests/programs/rm.sh - reward models from outside: pairs with probabilities; adapters of judges of each kind of head, as peft has
# them. RUN: an emulator, if any.
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

# ---- the report: calibration, confusion, margins ----
# held FILE.bin: the held-out texts, one a line
held() { $RUN ./prep show "$1" -n 1000 --held-out | sed 1d | grep '[a-z]' | grep -v '^#\|^  ' | sed 's/^chosen: //; s/^rejected: //'; }
exits 0 "rm, labels" ./rm reviews.bin $small --steps 12 --out judge
grep -q '^whole texts: expected calibration error 0[.][0-9]*,' said.txt && grep -q '^label . answer *negative *positive$' said.txt &&
    grep -q '^ *negative *[0-9]* *[0-9]*$' said.txt; is "it prints the calibration error and which label got which answer"
held reviews.bin > texts
$RUN ./run score judge texts | sed 's/.*"negative": \([^,]*\), "positive": \([^}]*\)}.*/\1 \2/' |
    awk '{ s += $1 > $2 ? $1 : $2; n++ } END { printf "%d %.6f\n", n, s / n }' > wanted
# the bins of the log: how many answers, the mean confidence, the accuracy, and the error, computed again
tail -n 1 judge/log.jsonl | tr ',' '\n' | tr -d '"{} ' | awk -F: '
    /calibration_count/ { c = $2; n += c }
    /calibration_confidence/ { p = $2; s += c * p }
    /calibration_accuracy/ { r += c * $2; e += c * (p > $2 ? p - $2 : $2 - p) }
    END { printf "%d %.6f\n%.6f %.6f\n", n, s / n, r / n, e / n }' > bins
head -n 1 bins | cmp -s - wanted; is "the bins have every held-out text, with the judge's own probabilities: $(head -n 1 bins), $(cat wanted)"
within "$(sed -n '2s/ .*//p' bins)" "$(last eval/accuracy_full judge)" 1e-6; is "and the accuracy"
within "$(sed -n '2s/.* //p' bins)" "$(last eval/calibration_error judge)" 1e-6; is "the error is the bins' mean distance"
tail -n 1 judge/log.jsonl | tr ',' '\n' | tr -d '"{} ' | awk -F: '/confusion/ { split($1, k, "/"); n += $2; if (k[3] == k[4]) r += $2 }
    END { printf "%.6f\n", r / n }' > right
within "$(cat right)" "$(last eval/accuracy_full judge)" 1e-6; is "the table's diagonal is the accuracy"
held sure.bin > texts
$RUN ./run score sure texts | sed 's/.*"logits": \[\([^]]*\)\].*/\1/' |
    awk 'NR % 2 { a = $1; next } { s += a - $1; n++ } END { printf "%.6f\n", s / n }' > margin
within "$(cat margin)" "$(last eval/mean_margin sure)" 1e-5; is "pairs: the mean margin is that of run score's logits: $(cat margin)"
within "$(last eval/mean_margin half)" 0 0; is "pairs of which neither text is better have none"

# ---- adapters: a folder as peft writes it, alone, beside its base, merged ----
# scores FILE ARGUMENTS ...: run score's logits, one number a line
scores() {
    out=$1; shift
    $RUN ./run score "$@" > said.txt 2> errors.txt && [ -s said.txt ] &&
        sed 's/.*"logits": \[\([^]]*\)\].*/\1/' said.txt | tr ',' '\n' > "$out"
}
# equal FILE FILE TOLERANCE
equal() { paste "$1" "$2" | awk -v t="$3" '{ d = $1 - $2; if (d > t || -d > t) bad = 1; n++ } END { exit bad || n < 4 }'; }
# tensors FILE: the names in a safetensors file's header
tensors() { head -c 20000 "$1" | tr '{' '\n' | sed -n 's/.*"\(base_model[a-zA-Z_.0-9]*\)":$/\1/p'; }
sed 's/.*"text": "\([^"]*\)".*/\1/' reviews.jsonl | head -n 6 > texts
small="--dim 32 --layers 2 --heads 4 --ffn 48 --crop 0 --spam 0 --batch 8"
fine="--crop 0 --spam 0 --batch 8 --lora-r 4 --lora-targets all-linear --lr 1e-2 --steps 6"
for family in roberta bert distilbert llama gpt2; do
    exits 0 "$family: a judge" ./rm reviews.bin --family $family --tokenizer tokenizer $small --steps 3 --out $family
    exits 0 "$family: an adapter" ./rm reviews.bin --reward $family $fine --out $family-lora
    case $family in
        roberta) saved='"classifier"' head="classifier.dense classifier.out_proj" ;;
        bert) saved='"bert.pooler", "classifier"' head="bert.pooler.dense classifier" ;;
        distilbert) saved='"pre_classifier", "classifier"' head="pre_classifier classifier" ;;
        *) saved='"score"' head=score ;;
    esac
    grep -q '"task_type": "SEQ_CLS"' $family-lora/adapter_config.json &&
        grep -q "\"base_model_name_or_path\": \"$family\"" $family-lora/adapter_config.json &&
        grep -qF "\"modules_to_save\": [$saved]" $family-lora/adapter_config.json
    is "$family: adapter_config.json is a classifier's, with the head's modules"
    for module in $head; do echo "base_model.model.$module.weight"; done | sort > wanted
    tensors $family-lora/adapter_model.safetensors | grep -v 'lora_[AB]\|bias$' | sort | cmp -s - wanted
    is "$family: and the head's weights have peft's names"
    scores base $family texts && scores alone $family-lora texts; is "$family: run score of the adapter's folder"
    scores beside $family texts --adapter $family-lora && cmp -s alone beside; is "$family: the same as --adapter beside its base"
    equal alone base 1e-3; [ $? = 1 ]; is "$family: it is not the base"
    exits 0 "$family: run merge" ./run merge $family-lora --out $family-merged
    scores merged $family-merged texts && equal alone merged 2e-6; is "$family: the merged judge has the adapter's logits"
    for name in config.json tokenizer.json; do cmp -s $family/$name $family-merged/$name; is "$family: merged $name"; done
done
exits 0 "a new head, the pooler's too, on a BERT" ./rm reviews.bin --reward bert --new-head --steps 1 --out new-bert
says 1 "the adapter's config.json is that of another model: bert" "an adapter of another judge" ./run score bert texts \
    --adapter distilbert-lora
mkdir lone && cp distilbert-lora/adapter* lone
says 1 "no LoRA target matches a module of the model\|has no place" "the same without its config.json" ./run score bert texts \
    --adapter lone
exits 0 "a policy" ./sft reviews.bin --tokenizer data/policy --dim 32 --layers 1 --heads 4 --positions 128 --context 64 --steps 2 \
    --out policy
for judge in "--reward roberta-lora" "--reward roberta --reward-adapter roberta-lora" "--reward roberta-merged"; do
    exits 0 "ppo $judge" ./ppo reviews.bin --policy policy $judge --label positive --batch-size 8 --mini-batch-size 8 \
        --eval-queries 4 --steps 1 --query-max 8 --response-max 8 --out "ppo $judge"
    sed 's/.*"reward_before": \([^,]*\).*/\1/' "ppo $judge/ppo-0001/samples.jsonl" > "rewards $judge"
done
cmp -s "rewards --reward roberta-lora" "rewards --reward roberta --reward-adapter roberta-lora"; is "ppo: both ways, the same rewards"
equal "rewards --reward roberta-lora" "rewards --reward roberta-merged" 2e-6; is "ppo: those of the merged judge"
exits 0 "rm --nf4" ./rm reviews.bin --reward roberta --nf4 --crop 0 --spam 0 --batch 8 --lr 1e-2 --steps 6 --out roberta-nf4
exits 0 "run merge --nf4" ./run merge roberta-nf4 --nf4 --out merged4
scores four roberta-nf4 texts --nf4 && scores merged merged4 texts && equal four merged 2e-6; is "score --nf4 gives the merged judge's logits"
scores plain roberta-nf4 texts && ! equal four plain 1e-4; is "which are not those on float32 weights"
for judge in "--reward roberta-nf4 --reward-nf4" "--reward merged4"; do
    exits 0 "ppo $judge" ./ppo reviews.bin --policy policy $judge --label positive --batch-size 8 --mini-batch-size 8 \
        --eval-queries 4 --steps 1 --query-max 8 --response-max 8 --out "ppo $judge"
    sed 's/.*"reward_before": \([^,]*\).*/\1/' "ppo $judge/ppo-0001/samples.jsonl" > "rewards $judge"
done
equal "rewards --reward roberta-nf4 --reward-nf4" "rewards --reward merged4" 2e-6; is "ppo --reward-nf4: the rewards of the merged judge"
says 2 "no judge is asked" "ppo: --reward-adapter without a judge" ./ppo reviews.bin --policy policy --reward-text e \
    --reward-adapter roberta-lora

# ---- a base without a head, as reward models of today have it; an adapter's folder without config.json, as peft leaves it ----
sed 's/"label": 1/"label": 2/' reviews.jsonl > three.jsonl
exits 0 "prep data, three labels" ./prep data three.jsonl --out three.bin --labels bad,fair,good
exits 0 "an adapter with a new head on a policy" ./rm three.bin --reward policy --tokenizer data/policy --new-head $fine --out new
scores three new texts && grep -q '"probabilities": {"bad": [^}]*"fair": [^}]*"good": ' said.txt; is "its labels are the dataset's"
exits 0 "merged" ./run merge new --out new-merged
scores merged new-merged texts && equal three merged 2e-6; is "with the same logits"
rm new/config.json
scores bare new texts && cmp -s three bare && grep -q '"probabilities": {"LABEL_0": [^}]*"LABEL_2": ' said.txt
is "without its config.json the labels are counted"
exits 0 "an adapter of pairs" ./rm sure.bin --reward policy --tokenizer data/policy --new-head $fine --out pairs-lora
scores one pairs-lora texts && [ "$(wc -l < one | tr -d ' ')" = 6 ]; is "has one number for a text"
exits 0 "rm --reference of a head without a bias" ./rm reviews.bin --reward llama $fine --reference negative --out reference
scores zero reference texts && awk 'NR % 2 && $1 != 0 { bad = 1 } END { exit bad }' zero; is "holds the label's logit at 0"

echo "rm: $passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
