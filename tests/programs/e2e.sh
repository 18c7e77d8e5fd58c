#!/bin/sh
# tests/programs/e2e.sh - the programs from outside, in a folder of their own: three stages on a tiny
# corpus, the results used, the same seed twice, one thread and two, and what goes wrong said plainly. Last
# line: `e2e: N passed, N failed, N skipped`.
cd "$(dirname "$0")/../.." || exit 1
home=$(pwd)
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
export OMP_WAIT_POLICY
passed=0 failed=0 skipped=0
for p in prep rm sft ppo run; do ln -s "$home/$p" "$work/$p"; done
cd "$work" || exit 1

ok()  { passed=$((passed + 1)); [ -z "$VERBOSE" ] || echo "  ok    $1"; }
bad() { failed=$((failed + 1)); echo "  FAIL  $1"; tail -n 5 said.txt errors.txt 2>/dev/null |
    sed 's/^/        /'; }
# is WHAT: the last command has to have succeeded
is() { if [ $? = 0 ]; then ok "$1"; else bad "$1"; fi; }
# exits CODE WHAT COMMAND ...: output in said.txt, errors in errors.txt
exits() {
    wanted=$1 what=$2; shift 2
    $RUN "$@" > said.txt 2> errors.txt < "${input:-/dev/null}"
    code=$?
    if [ $code = "$wanted" ]; then ok "$what"; else bad "$what: exit $code, wanted $wanted: $*"; fi
    [ $code = "$wanted" ]
}
# says CODE TEXT WHAT COMMAND ...: errors.txt has the text, too, and what to try
says() {
    code_wanted=$1 text=$2 what=$3; shift 3
    exits "$code_wanted" "$what" "$@"
    if grep -q -- "$text" errors.txt && grep -q "^  try: ." errors.txt; then ok "$what: the message"
    else bad "$what: no message with '$text'"; fi
}
lines() { wc -l < "$1" | tr -d ' '; }

# ---- a corpus: 240 reviews, made here; label 1 is praise ----
awk 'function pick(list,    a, n) {
         n = split(list, a, " ")
         x = (x * 1103515245 + 12345) % 2147483648
         return a[int(x / 65536) % n + 1]
     }
     BEGIN { x = 7
         for (i = 0; i < 240; i++) {
             good = i % 2; text = ""
             for (s = 0; s < 3; s++)
                 text = text "The " pick("film story cast music ending plot camera") \
                        " of this " pick("movie show drama comedy western") " was " \
                        (good ? pick("wonderful moving brilliant warm funny") \
                              : pick("dreadful boring clumsy cold stupid")) ". "
             printf "{\"text\": \"%sNumber %d.\", \"label\": %d}\n", text, i, good
         } }' > reviews.jsonl

# ---- prep: a dataset and two tokenizers ----
exits 0 "prep data" ./prep data reviews.jsonl --out reviews.bin --labels negative,positive
exits 0 "prep tokenizer, SentencePiece" ./prep tokenizer reviews.bin --kind sentencepiece --vocab 400 \
    --out policy-tokenizer
exits 0 "prep tokenizer, byte-level" ./prep tokenizer reviews.bin --kind bytelevel --vocab 400 --out \
    judge-tokenizer

# ---- the three stages ----
exits 0 "rm, 20 steps" ./rm reviews.bin --tokenizer judge-tokenizer --dim 32 --layers 1 --heads 2 --ffn 64 \
    --steps 20 --out judge
[ -s judge/model.safetensors ] && [ -s judge/config.json ]; is "rm writes a model folder"
exits 0 "rm, computing in bf16" ./rm reviews.bin --tokenizer judge-tokenizer --dim 32 --layers 1 --heads 2 \
    --ffn 64 --steps 20 --compute bf16 --out judge16
! cmp -s judge/model.safetensors judge16/model.safetensors; is "it learns another judge"
! grep -q "tokens that the judge reads" said.txt && [ "$(sed -n 2p judge/log.jsonl)" = \
    '{"step": 0, "train/texts_cut": 0, "eval/texts_cut": 0}' ]; is "no text is too long for it"
exits 0 "rm, a judge of 20 tokens" ./rm reviews.bin --tokenizer judge-tokenizer --dim 32 --layers 1 --heads \
    2 --ffn 64 --positions 24 --steps 1 --out judge20
grep -q "^2[0-9][0-9] training texts and [0-9]* held-out texts have more than the 20 tokens .*: their ends are" \
    said.txt && grep -q '^{"step": 0, "train/texts_cut": 2[0-9][0-9], "eval/texts_cut": ' judge20/log.jsonl
is "rm says how many texts it cuts"
head -n 1 judge/log.jsonl | grep -q '"program": "rm", "version": "[0-9.]*", "data": "reviews.bin", "data_hash": "[0-9a-f]*", "options": {'; is \
    "rm's log begins with the options"
exits 0 "sft, 20 steps" ./sft reviews.bin --tokenizer policy-tokenizer --dim 32 --layers 2 --heads 4 \
    --kv-heads 2 --ffn 64 --tied --context 64 \
        --tokens 512 --steps 20 --out policy
[ -s policy/model.safetensors ] && [ -s policy/config.json ]; is "sft writes a model folder"
exits 0 "sft with an adapter" ./sft reviews.bin --policy policy --lora-r 4 --context 64 --tokens 256 \
    --steps 2 --out sft-adapter
[ -s sft-adapter/adapter_model.safetensors ] && [ -s sft-adapter/adapter_config.json ]
    is "sft writes an adapter"

small="--policy policy --reward judge --label positive --batch-size 8 --mini-batch-size 4 --eval-queries 8
       --show 2 --seed 5"
OMP_NUM_THREADS=1; export OMP_NUM_THREADS
exits 0 "ppo, all weights" ./ppo reviews.bin $small --steps 2 --out all
exits 0 "ppo, LoRA" ./ppo reviews.bin $small --lora-r 4 --learning-rate 1e-2 --steps 2 --out lora
exits 0 "ppo, LoRA again" ./ppo reviews.bin $small --lora-r 4 --learning-rate 1e-2 --steps 2 --out lora
OMP_NUM_THREADS=2
exits 0 "ppo, LoRA, two threads" ./ppo reviews.bin $small --lora-r 4 --learning-rate 1e-2 --steps 2 --out lora
exits 0 "ppo, all weights, two threads" ./ppo reviews.bin $small --steps 2 --out all
exits 0 "ppo, LoRA, another seed" ./ppo reviews.bin $small --seed 6 --lora-r 4 --learning-rate 1e-2 \
    --steps 2 --out lora
exits 0 "ppo from an adapter" ./ppo reviews.bin $small --adapter sft-adapter --steps 2 --out from

a=all/ppo-0001 l=lora/ppo-0001
[ -s $a/model.safetensors ] && [ -s $a/config.json ] && [ -s $a/value_head.safetensors ]
    is "all weights: a model folder and a value head"
[ -s $l/adapter_model.safetensors ] && [ -s $l/adapter_config.json ] && [ -s $l/value_head.safetensors ] &&
    [ ! -e $l/model.safetensors ]
is "LoRA: an adapter, a value head and no model"
[ -s $l/log.jsonl ] && [ -s $l/time.jsonl ] && [ -s $l/samples.jsonl ]; is "log, times and samples"
[ -e lora/ppo-0004 ] && [ ! -e lora/ppo-0005 ]; is "every run has a folder of its own"
# steps FOLDER: the log's lines of training steps
steps() { grep first_ratio_max_deviation "$1/log.jsonl"; }
[ "$(steps $l | wc -l)" -eq 2 ]; is "one line a step"
# What a run reports has to be the same, but for its own options (--out, --seed are in the first line).
same() { cmp -s "$1/samples.jsonl" "$2/samples.jsonl" && [ -s "$1/log.jsonl" ] &&
    cmp -s "$1/log.jsonl" "$2/log.jsonl"; }
same lora/ppo-0001 lora/ppo-0002; is "the same seed gives the same log and samples, byte for byte"
cmp -s lora/ppo-0001/adapter_model.safetensors lora/ppo-0002/adapter_model.safetensors
    is "and the same adapter"
same lora/ppo-0001 lora/ppo-0003; is "one thread and two: the same log and samples"
cmp -s lora/ppo-0001/adapter_model.safetensors lora/ppo-0003/adapter_model.safetensors
    is "one thread and two: the same adapter"
same all/ppo-0001 all/ppo-0002 && cmp -s all/ppo-0001/model.safetensors all/ppo-0002/model.safetensors
    is "one thread and two, all weights"
! cmp -s lora/ppo-0001/samples.jsonl lora/ppo-0004/samples.jsonl; is "another seed gives other samples"
! cmp -s policy/model.safetensors all/ppo-0001/model.safetensors; is "training changes the weights"
for run in all/ppo-0001 lora/ppo-0001 from/ppo-0001; do
    [ "$(steps $run | wc -l)" -eq 2 ] &&
        [ "$(steps $run | grep -c '"ppo/policy/first_ratio_max_deviation": 0,')" -eq 2 ]
    is "the first ratio is exactly 1: $run"
done
! steps $l | grep -q '"ppo/policy/max_ratio_deviation": 0,'; is "and later ratios are not"

# ---- use what was trained: one line out for every line in ----
printf 'The film of this movie\n\nA cold\tending.\n' > texts
exits 0 "tokenize" ./run tokenize policy texts
[ "$(lines said.txt)" = 3 ] && [ -z "$(sed -n 2p said.txt)" ]; is "three lines of ids, the second empty"
cp said.txt ids
exits 0 "tokenize --decode" ./run tokenize policy ids --decode
cmp -s said.txt texts; is "ids go back to the text"
exits 0 "tokenize, byte-level" ./run tokenize judge texts
cp said.txt judge-ids
exits 0 "tokenize --decode, byte-level" ./run tokenize judge judge-ids --decode
cmp -s said.txt texts; is "byte-level ids go back to the text"
exits 0 "logprobs" ./run logprobs policy texts
[ "$(lines said.txt)" = 3 ] && [ "$(grep -c '"logprobs"' said.txt)" = 3 ]; is "three lines of logprobs"
cp said.txt plain
exits 0 "logprobs with the adapter" ./run logprobs policy texts --adapter $l
cp said.txt adapted
! cmp -s plain adapted; is "the adapter changes them"
exits 0 "merge" ./run merge policy --adapter $l --out merged
exits 0 "logprobs of the merged model" ./run logprobs merged texts
[ "$(lines said.txt)" = 3 ]; is "the merged model answers"
# merged and adapted agree to 1e-4
tr -c '0-9.eE+-' '\n' < said.txt | grep -v '^$' > one; tr -c '0-9.eE+-' '\n' < adapted | grep -v '^$' > two
paste one two |
    awk '{ d = $1 - $2; if (d < 0) d = -d; if (d > 1e-4) bad = 1; n++ } END { exit bad || n < 10 }'
is "merged equals adapted"
exits 0 "score" ./run score judge texts
[ "$(grep -c '"logits".*"label"' said.txt)" = 3 ]; is "three lines of scores"
exits 0 "generate" ./run generate policy --prompt "The film" -n 8 --seed 3
cp said.txt first
[ -s first ]; is "text comes out"
exits 0 "generate again" ./run generate policy --prompt "The film" -n 8 --seed 3
cmp -s said.txt first; is "the same seed gives the same text"
exits 0 "generate with the adapter, greedy" ./run generate policy --prompt "The film" -n 8 --greedy \
    --adapter $l
exits 0 "generate from all weights" ./run generate $a --prompt "The film" -n 8
printf '5 6 7\n8\n' > some-ids
exits 0 "generate --ids" ./run generate policy some-ids --ids -n 4 --greedy --ignore-eos
[ "$(lines said.txt)" = 2 ] && [ "$(sed -n 1p said.txt | wc -w)" -eq 7 ] &&
    sed -n 1p said.txt | grep -q '^5 6 7 '; is "prompt and new ids"
printf 'Hello\n' > hello; input=hello
exits 0 "chat" ./run chat policy --template none -n 4
input=

# ---- rm: saves on the way, numbers that stop being numbers, Ctrl-C ----
small_rm="reviews.bin --tokenizer judge-tokenizer --dim 32 --layers 1 --heads 2 --ffn 64"
exits 0 "rm, saving every 7 steps" ./rm $small_rm --steps 20 --save-every 7 --out judge7
cmp -s judge/model.safetensors judge7/model.safetensors; is "the same judge"
wild="--lr 10 --weight-decay 10 --warmup 0 --clip 0 --steps 100"
# judges FOLDER: its scores are numbers
judges() { $RUN ./run score "$1" texts > said.txt && [ "$(grep -c '"logits"' said.txt)" = 3 ] &&
    ! grep -q 'nan\|inf\|null' said.txt; }
says 3 "not a number in step .*; the weights saved are those after step" "rm: a loss that is not a number" \
    ./rm $small_rm $wild --save-every 5 --out wild
judges wild; is "the last good step is saved"
cp -r judge large                           # with a weight of 65530
printf '\000\372\177\107' | dd of=large/model.safetensors bs=1 seek=$(($(wc -c < large/model.safetensors) - \
    8)) conv=notrunc 2> errors.txt
says 3 "too large for --dtype in step 1; no weights were written" "rm: weights too large for --dtype" \
     ./rm reviews.bin --reward large --steps 1 --dtype f16 --out wild16
[ ! -e wild16/model.safetensors ]; is "and writes none"
says 3 "the held-out loss is .*: astray has the weights after step [12]$" "rm: a run that diverges" \
    ./rm $small_rm --lr 1 --warmup 0 --clip 0 --steps 12 --save-every 1 --out astray
grep -q "diverged: the mean loss of the first steps is .*: step [23]; until this is over" errors.txt
is "and says so at once"
judges astray; is "the good weights that were saved stay"
cp -r judge nan
printf '\377\377\377\377' | dd of=nan/model.safetensors bs=1 seek=$(($(wc -c < nan/model.safetensors) - \
    8)) conv=notrunc 2> errors.txt
says 1 "tensor [a-z.0-9]* has a NaN or an infinity: nan" "rm: a judge whose weights are not numbers" ./rm \
    reviews.bin --reward nan --steps 2 --out wild --force
judges wild; is "nothing is overwritten"
$RUN ./rm $small_rm --steps 100000 --out stopped > said.txt 2> errors.txt & pid=$!
for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.5; [ "$(lines stopped/log.jsonl 2>&1)" -lt 2 ] 2> errors.txt ||
    break; done
kill -INT $pid; wait $pid; [ $? = 130 ] && grep -q "^stopped and saved after" said.txt && judges stopped
    is "rm: Ctrl-C saves and stops"

# ---- judges get what policies have: adapters, 4 and 16 bits, recomputation ----
fine="reviews.bin --reward judge --batch 8 --crop 0 --spam 0"
# loss FOLDER: the held-out loss at the end of a run
loss() { sed -n 's/.*"eval\/loss_full": \([0-9.e+-]*\).*/\1/p' "$1/log.jsonl" | tail -n 1; }
# near A B TOLERANCE
near() { awk -v a="$1" -v b="$2" -v t="$3" \
    'BEGIN { d = a - b; exit !(a != "" && b != "" && d < t && -d < t) }'; }
exits 0 "rm, an adapter" ./rm $fine --lora-r 4 --lora-targets all-linear --lr 1e-2 --steps 8 --out \
    adapted-judge
grep -q '^frozen weights: linears float32' said.txt && grep -q '^trainable params: 2,914 || all params: ' \
    said.txt; is "it says what is frozen and what is trained"
[ -s adapted-judge/adapter_config.json ] && [ ! -e adapted-judge/model.safetensors ]
    is "its folder is peft's"
exits 0 "run merge of it" ./run merge judge --adapter adapted-judge --out merged-judge
exits 0 "which is a judge like others" ./rm reviews.bin --reward merged-judge --lr 0 --steps 1 --out again-judge
near "$(loss adapted-judge)" "$(loss again-judge)" 1e-5
    is "with the adapter's loss ($(loss adapted-judge), $(loss again-judge))"
near "$(loss adapted-judge)" "$(loss judge)" 1e-5; [ $? = 1 ]
    is "which is not that of its start ($(loss judge))"
exits 0 "rm, an adapter that has not moved" ./rm $fine --lora-r 4 --lr 0 --steps 1 --out still-judge
./run merge still-judge --out still-merged > said.txt 2> errors.txt
cmp -s still-merged/model.safetensors judge/model.safetensors; is "is the judge it started from, bit for bit"
exits 0 "rm, an adapter, activations computed again" ./rm $fine --lora-r 4 --lora-targets all-linear --lr \
    1e-2 --steps 8 --recompute --out same-judge
cmp -s adapted-judge/adapter_model.safetensors same-judge/adapter_model.safetensors; is "is the same judge"
exits 0 "rm, an adapter with dropout" ./rm $fine --lora-r 4 --lora-targets all-linear --lr 1e-2 --steps 8 \
    --lora-dropout 0.5 --out dropout-judge
! cmp -s adapted-judge/adapter_model.safetensors dropout-judge/adapter_model.safetensors; is "is another one"
exits 0 "rm --recompute, all weights" ./rm reviews.bin --reward judge --steps 3 --recompute --out r1 &&
    ./rm reviews.bin --reward judge --steps 3 --out r2 > said.txt
cmp -s r1/model.safetensors r2/model.safetensors; is "is the same judge"
exits 0 "rm --nf4" ./rm $fine --nf4 --lr 0 --steps 1 --out judge4
grep -q '^frozen weights: linears NF4, blocks of 64' said.txt &&
    grep -q '"lora-r":16,"lora-alpha":16,"lora-targets":"all-linear"' judge4/log.jsonl
    is "it is held in 4 bits, with an adapter of rank 16"
exits 0 "run merge --nf4" ./run merge judge4 --nf4 --out merged4
! cmp -s merged4/model.safetensors judge/model.safetensors; is "has the dequantised weights"
exits 0 "run score of the adapter, --nf4" ./run score judge4 texts --nf4; cp said.txt scores4
exits 0 "run score of the merged judge" ./run score merged4 texts; cmp -s said.txt scores4; is "gives the same, for B is 0"
# rewards FOLDER: those of the untrained policy's responses
rewards() { sed 's/.*"reward_before": \([^,]*\).*/\1/' "$1/ppo-0001/samples.jsonl"; }
exits 0 "ppo --reward-nf4" ./ppo reviews.bin $small --steps 0 --reward-nf4 --out p4
grep -q "^judge's weights: linears NF4, blocks of 64, compute float32" said.txt; is "it says so"
exits 0 "ppo with the judge that was dequantised" ./ppo reviews.bin $small --steps 0 --reward merged4 --out p32
rewards p4 > one; rewards p32 > two
paste one two |
    awk '{ d = $1 - $2; if (d < 0) d = -d; if (d > 1e-5) bad = 1; n++ } END { exit bad || n < 8 }'
is "gives the same rewards"
rewards all > two; ! cmp -s one two; is "which are not those of the judge in float32"
exits 0 "rm --dtype f16" ./rm reviews.bin --reward judge --lr 0 --steps 1 --dtype f16 --out judge-f16
exits 0 "the same numbers as float32" ./rm reviews.bin --reward judge-f16 --lr 0 --steps 1 --out judge-f32
exits 0 "ppo, a judge in 16 bits" ./ppo reviews.bin $small --steps 1 --reward judge-f16 --out p16
grep -q "^judge's weights: linears float16, compute float32; embedding and head float16" said.txt
    is "is held in the 16 bits of its folder"
exits 0 "ppo, the same judge in 32 bits" ./ppo reviews.bin $small --steps 1 --reward judge-f32 --out p32f
cmp -s p16/ppo-0001/samples.jsonl p32f/ppo-0001/samples.jsonl; is "and has the same bits"
says 2 "those of a checkpoint" "rm: an adapter of nothing" ./rm $small_rm --lora-r 4 --out x
says 2 "those of a checkpoint" "rm: 4 bits of nothing" ./rm $small_rm --nf4 --out x
says 2 "no effect with --reward-text (no judge is asked): --reward-nf4" "ppo: 4 bits of no judge" ./ppo reviews.bin \
    --policy policy --reward-text e --reward-nf4
says 1 "matches no module" "rm: a LoRA target that is not there" ./rm $fine --lora-r 4 --lora-targets \
    q_proj --out x
grep -q "try: --lora-targets query,key,value,dense" errors.txt; is "and those that are"

# ---- what goes wrong ----
for p in prep rm sft ppo run; do
    exits 0 "$p --help" ./$p --help; grep -q "^usage: .*$p" said.txt; is "$p --help: usage"
done
says 2 "did you mean --steps?" "ppo: an option that is almost right" ./ppo reviews.bin --step 3
says 2 "did you mean --tokenizer?" "sft: an option that is almost right" ./sft reviews.bin --tokeniser x
says 2 "did you mean --" "rm: an unknown option" ./rm reviews.bin --stepz 3
says 2 "would overwrite what is read" "rm: --out over --reward" ./rm reviews.bin --reward judge --out \
    policy/../judge/
says 2 "is a file" "rm: --out is a file" ./rm $small_rm --out texts
says 2 "multiple of --heads" "rm: heads that do not divide" ./rm $small_rm --heads 3 --out x
says 2 "no effect with --reward (the checkpoint has its own sizes): --ffn" "rm: sizes of a checkpoint" ./rm reviews.bin --reward judge --ffn 3 --out x
says 1 "no such label: nice" "rm: a label that is not there" ./rm $small_rm --label nice --out x
grep -q "negative, positive" errors.txt; is "rm: and the ones that are"
printf 'RLHFDATA\1\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0' > empty.bin
says 1 "an empty dataset: empty.bin" "rm: an empty dataset" ./rm empty.bin --tokenizer judge-tokenizer --out x
exits 0 "prep data without labels" ./prep data texts --format text --out unlabelled.bin
says 1 "the texts have no labels: unlabelled.bin" "rm: texts without labels" ./rm unlabelled.bin \
    --tokenizer judge-tokenizer --out x
if [ -e "$home/data/grammar.txt" ]; then
    exits 0 "prep grammar" ./prep grammar "$home/data/grammar.txt" --out many.bin --count 3000 --seed 1
    says 2 "two thousand million steps" "rm: --epochs that would never end" ./rm many.bin --tokenizer \
        judge-tokenizer --batch 1 --epochs 1000000 --out x
fi
[ ! -e x ]; is "rm: no folder was made for them"
exits 2 "run: no such command" ./run nonsense
grep -q nonsense errors.txt; is "run: no such command: the message"
says 2 "which dataset" "ppo: no dataset" ./ppo
says 2 "whole number" "ppo: letters in a number" ./ppo reviews.bin --steps 3x
says 1 "nothing.bin" "ppo: a missing file" ./ppo nothing.bin $small --steps 1
says 1 "nowhere" "ppo: a missing policy" ./ppo reviews.bin $small --policy nowhere --steps 1
says 1 "reviews.jsonl" "ppo: the reviews are no dataset" ./ppo reviews.jsonl $small --steps 1
says 1 "nowhere" "run: a missing model" ./run logprobs nowhere texts
cp -r policy cut; head -c 5000 policy/model.safetensors > cut/model.safetensors
says 1 "cut/model.safetensors" "run: a truncated model" ./run logprobs cut texts
says 1 "cut/model.safetensors" "ppo: a truncated policy" ./ppo reviews.bin $small --policy cut --steps 1
head -c 700 reviews.bin > short.bin
says 1 "short.bin" "ppo: a truncated dataset" ./ppo short.bin $small --steps 1
says 1 "score.weight is missing" "run: a policy is no judge" ./run score policy texts
exits 0 "ppo --dry-run" ./ppo reviews.bin $small --dry-run --out dry
grep -q "memory in total" said.txt && [ ! -e dry/ppo-0001 ]; is "a bill and no run"

cd "$home" || exit 1
echo "e2e: $passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
