#!/bin/sh
# tests/programs/stories.sh - PPO teaches somebody else's model: stories260K (Karpathy's, trained on
# children's stories alone) learns from the shipped judge to write what it takes for praise of films. 10
# steps, about 10 seconds. Last line: `stories: N passed, N failed, N skipped`. Environment: POLICY
# (../shared/data/stories260K), REWARD (data/reward), DATA (data/imdb.bin), PPO (./ppo), RUN (an emulator,
# if any).
cd "$(dirname "$0")/../.." || exit 1
POLICY=${POLICY:-../shared/data/stories260K}
REWARD=${REWARD:-data/reward}
passed=0 failed=0
ok()  { passed=$((passed + 1)); [ -z "$VERBOSE" ] || echo "  ok    $1"; }
bad() { failed=$((failed + 1)); echo "  FAIL  $1"; tail -n 5 "$work/said" | sed 's/^/        /'; }
is()  { if [ $? = 0 ]; then ok "$1"; else bad "$1"; fi; }

for needed in "$POLICY" "$REWARD"; do
    if [ ! -e "$needed/model.safetensors" ]; then
        echo "  skip  stories: no model in $needed"
        echo "stories: 0 passed, 0 failed, 1 skipped"
        exit 0
    fi
done
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

# Few and large steps, and a KL coefficient too small to hold the policy back: whether the reward rises is
# the question here.
$RUN ${PPO:-./ppo} "${DATA:-data/imdb.bin}" --policy "$POLICY" --reward "$REWARD" --label positive --steps \
    10 \
    --batch-size 64 --mini-batch-size 64 --ppo-epochs 2 --learning-rate 1e-3 --init-kl-coef 0.01 \
        --adap-kl-ctrl=no --lam 1 \
    --response-min 24 --response-max 24 --eval-queries 64 --show 0 --seed 0 --out "$work" > "$work/said" 2>&1
is "10 steps of PPO on stories260K"
log=$work/ppo-0001/log.jsonl
# number NAME LINE: the value of "NAME" in line LINE of a list of lines
number() { sed -n "$2s|.*\"$1\": \([-0-9.e+]*\).*|\1|p"; }
before=$(grep '"eval/reward_mean"' "$log" | number eval/reward_mean 1)
after=$(grep '"eval/reward_mean"' "$log" | number eval/reward_mean '$')
awk -v a="$before" -v b="$after" 'BEGIN { exit !(a != "" && b != "" && b > a + 0.3) }'
is "the mean reward of 64 held-out queries rises by more than 0.3 ($before to $after)"
awk -v kl="$(grep '"eval/kl"' "$log" | number eval/kl '$')" 'BEGIN { exit !(kl > 1) }'
is "and the policy has left its reference"
[ "$(grep -c '"ppo/policy/first_ratio_max_deviation": ' "$log")" = 10 ] &&
    [ "$(grep -c '"ppo/policy/first_ratio_max_deviation": 0,' "$log")" = 10 ]
is "the first ratio of every step is exactly 1"
[ -s "$work/ppo-0001/model.safetensors" ] && [ -s "$work/ppo-0001/tokenizer.model" ]
is "a model folder is written"

echo "stories: $passed passed, $failed failed, 0 skipped"
[ $failed = 0 ]
