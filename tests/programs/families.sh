#!/bin/sh
# tests/programs/families.sh - every family of policies with every family of judges: `ppo` takes two steps of all weights, its first
# ratio is exactly 1, it prints both models' classes, and the folder that it writes opens again, in the family's own class; with an
# adapter, in 4 bits, and with layers computed again too. 1 and 2 threads give the same log. Judges: `run score` gives the same
# logits for a text alone and among others. The models are small and have random weights (tests/tools/shapes.c). BIN, RUN and the
# last line as in run.sh.
cd "$(dirname "$0")/../.." || exit 1
ppo="${RUN:-} ${BIN:-.}/ppo" run="${RUN:-} ${BIN:-.}/run" shapes="${RUN:-} build/tests/shapes"
work=$(mktemp -d "${TMPDIR:-/tmp}/families_test.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0
ok() { passed=$((passed + 1)); [ -z "$VERBOSE" ] || echo "  ok    $1"; }
bad() { failed=$((failed + 1)); echo "  FAIL  $1"; sed 's/^/        /' "$work/err" | head -n 3; }
is() { if [ $? = 0 ]; then ok "$1"; else bad "$1"; fi; }
class() { sed -n 's/.*"architectures": \["\([A-Za-z0-9]*\)"\].*/\1/p' "$1/config.json"; }

policies="llama mistral qwen2 qwen3 smollm3 gpt2 gpt_neo t5"
judges="roberta xlm-roberta bert distilbert electra llama mistral qwen2 qwen3 gpt2"
vocab() { sed -n 's/.*"vocab_size": \([0-9]*\).*/\1/p' "$1/config.json"; }
size="--dtype f32 --dim 32 --layers 2 --heads 4 --ffn 48 --positions 128"

for p in $policies; do
    $shapes --policy "$work/p-$p" --family $p $size --vocab "$(vocab data/policy)" --tokenizer data/policy > "$work/err" 2>&1
    is "a policy of the family $p is made"
done
for j in $judges; do
    $shapes --reward "$work/j-$j" --family $j $size --vocab "$(vocab data/reward)" --tokenizer data/reward > "$work/err" 2>&1
    is "a judge of the family $j is made"
    printf 'A film.\nIt was bad, and long, and it was loud.\n' > "$work/texts"
    $run score "$work/j-$j" "$work/texts" > "$work/two" 2> "$work/err" && tail -n 1 "$work/texts" > "$work/text" &&
        $run score "$work/j-$j" "$work/text" > "$work/one" 2> "$work/err" && tail -n 1 "$work/two" | cmp -s - "$work/one"
    is "$j: a text has the same logits alone and among others"
done

# steps WHAT POLICY JUDGE OPTIONS ...: two steps; the run is in $work/run
steps() {
    what=$1 p=$2 j=$3; shift 3
    rm -rf "$work/run" "$work/runs"
    $ppo data/imdb.bin --policy "$work/p-$p" --reward "$work/j-$j" --label hate --steps 2 --batch-size 8 --mini-batch-size 4 \
        --eval-queries 2 --learning-rate 1e-3 --out "$work/runs" "$@" > "$work/out" 2> "$work/err" < /dev/null &&
        mv "$work/runs/ppo-0001" "$work/run" &&
        [ "$(grep -c '"ppo/policy/first_ratio_max_deviation": 0,' "$work/run/log.jsonl")" = 2 ]
    is "$p, $j$what: two steps, both first ratios exactly 1"
    grep -q "^policy .*: $(class "$work/p-$p")," "$work/out" && grep -q "^judge .*: $(class "$work/j-$j")," "$work/out"
    is "$p, $j$what: ppo names both classes"
}

for p in $policies; do
    for j in $judges; do steps "" $p $j; done
    [ "$(class "$work/run")" = "$(class "$work/p-$p")" ]
    is "$p: the folder that is written has the family's class"
    $run generate "$work/run" --prompt "The film" -n 4 --greedy > "$work/out" 2> "$work/err"
    is "$p: the folder that is written opens"
    OMP_NUM_THREADS=1; export OMP_NUM_THREADS
    cp "$work/run/log.jsonl" "$work/two.jsonl"
    steps ", one thread" $p gpt2
    sed 1d "$work/two.jsonl" > "$work/a" && sed 1d "$work/run/log.jsonl" | cmp -s - "$work/a"
    is "$p: 1 and 2 threads give the same log"
    OMP_NUM_THREADS=2
    case $p in gpt*) tables=wte,lm_head ;; t5) tables=shared,lm_head ;; *) tables=embed_tokens,lm_head ;; esac
    for targets in all-linear $tables; do
        steps ", LoRA of $targets" $p distilbert --lora-r 4 --lora-targets $targets
        $run merge "$work/p-$p" --adapter "$work/run" --out "$work/merged-$p" --force > "$work/out" 2> "$work/err" &&
            $run generate "$work/merged-$p" --prompt "The film" -n 8 --greedy > "$work/a" 2> "$work/err" &&
            $run generate "$work/p-$p" --adapter "$work/run" --prompt "The film" -n 8 --greedy > "$work/b" 2> "$work/err" &&
            cmp -s "$work/a" "$work/b"
        is "$p, $targets: the merged folder writes what the adapter writes"
    done
    rm -rf "$work/valued"
    case $p in
        smollm3|gpt_neo|t5)
            ! $ppo data/imdb.bin --policy "$work/p-$p" --reward-text e --value-model "$work/p-$p" --dry-run > "$work/out" 2> "$work/err" &&
                grep -q "GPTNeoForCausalLM\|SmolLM3ForCausalLM\|encoder reads the query alone" "$work/err"
            is "$p: no value model" ;;
        *)  mv "$work/run" "$work/valued"
            steps ", a value model" $p bert --value-model "$work/p-$p" --value-init pytorch
            $run score "$work/run/value_model" "$work/text" > "$work/out" 2> "$work/err"; is "$p: the value model opens as a judge"
            rm -rf "$work/run"; mv "$work/valued" "$work/run" ;;
    esac
    mv "$work/run" "$work/first"
    steps ", on from an adapter" $p distilbert --adapter "$work/first"
    rm -rf "$work/first"
    steps ", NF4, bf16, computed again" $p bert --nf4 --compute bf16 --lora-r 4 --recompute
done

# A T5 learns from nothing to answer from the prompt: the loss falls by half, the same with activations computed again and with small
# micro-batches; its log-probs are those that it generates with.
awk 'BEGIN { x = 3; split("ann bob cat dan eve fay gus hal ivy jon", name, " ")
    for (i = 0; i < 400; i++) { x = (x * 1103515245 + 12345) % 2147483648; a = name[int(x / 65536) % 10 + 1]
        x = (x * 1103515245 + 12345) % 2147483648; b = name[int(x / 65536) % 10 + 1]
        printf "{\"prompt\": \"Whom does %s see? %s sees %s.\", \"response\": \"%s sees %s\"}\n", a, a, b, a, b } }' > "$work/pairs.jsonl"
prep="${RUN:-} ${BIN:-.}/prep" sft="${RUN:-} ${BIN:-.}/sft"
$prep data "$work/pairs.jsonl" --out "$work/pairs.bin" > "$work/out" 2> "$work/err"; is "prompts with responses"
for how in "" --recompute "--micro-tokens 40"; do
    $sft "$work/pairs.bin" --family t5 --tokenizer data/policy --dim 32 --layers 1 --heads 2 --positions 64 --context 64 --steps 30 \
        --lr 1e-2 --out "$work/t5" --force $how > "$work/out" 2> "$work/err"; is "t5 from scratch $how"
    sed 1d "$work/t5/log.jsonl" > "$work/log.$(echo $how | tr -d ' -')"
done
cmp -s "$work/log." "$work/log.recompute"; is "t5: activations computed again give the same log"
awk -F'"loss": ' 'NF > 1 { split($2, a, ","); last = a[1]; if (!first) first = last }
    END { exit !(last > 0 && last < first / 2) }' "$work/log."; is "t5: the loss falls by half"
# The dropout of an adapter belongs to a row's place in the step, the encoder's rows and the decoder's being counted apart: small
# micro-batches and activations computed again change the log in its last digits at most.
for how in "" --recompute "--micro-tokens 40" "--lora-dropout 0"; do
    $sft "$work/pairs.bin" --policy "$work/t5" --lora-r 4 --lora-dropout 0.3 --context 64 --steps 6 --lr 1e-2 --out "$work/t5-lora" --force $how \
        > "$work/out" 2> "$work/err"; is "t5: dropout of an adapter $how"
    sed 1d "$work/t5-lora/log.jsonl" > "$work/drop.$(echo $how | tr -d ' -')"
done
near() { paste "$1" "$2" | awk -F'"loss": ' '{ split($2, a, ","); split($3, b, ","); d = a[1] - b[1]; if (d > 2e-4 || d < -2e-4) far = 1 }
    END { exit far || NR < 6 }'; }
cmp -s "$work/drop." "$work/drop.recompute"; is "t5: dropout, computed again"
near "$work/drop." "$work/drop.microtokens40"; is "t5: dropout, small micro-batches"
near "$work/drop." "$work/drop.loradropout0"; [ $? = 1 ]; is "t5: dropout changes the loss"
printf 'Whom does ann see?\n' | $run generate "$work/t5" --greedy -n 3 --ids > /dev/null 2>&1; [ $? = 1 ]; is "t5: text is no ids"
printf '5 6 7\n' | $run generate "$work/t5" --greedy -n 3 --ids > "$work/a" 2> "$work/err" &&
    $run logprobs "$work/t5" --ids < "$work/a" 2> "$work/err" | grep -q '"logprobs": \[-'; is "t5: log-probs of what it wrote"
for how in grpo rloo; do
    ${RUN:-} "${BIN:-.}/ppo" "$work/pairs.bin" --policy "$work/t5" --reward-text sees --algorithm $how --group 2 --steps 1 --batch-size 4 \
        --mini-batch-size 4 --query-max 50 --response-max 8 --eval-queries 2 --out "$work/groups" > "$work/out" 2> "$work/err" < /dev/null
    is "t5: $how, without a value head"
done
echo "families: $passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
