#!/bin/sh
# tests/tools/run.sh TEST ... - runs the test programs build/tests/TEST, the layer check and the scripts tests/programs/*.sh, and
# adds up their counts. A program's last line is `NAME: N passed, N failed, N skipped`; a program that ends without that line or
# with an exit code is one more failure.
# The last line here: `N passed, N failed` or `N passed, N failed, N skipped`.
cd "$(dirname "$0")/../.." || exit 1
OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
export OMP_NUM_THREADS OMP_WAIT_POLICY
passed=0 failed=0 skipped=0
mkdir -p build/said

# add NAME COMMAND ...: runs the command, prints its output, adds its counts
add() {
    name=$1; shift
    begin=$(date +%s)
    "$@" > "build/said/$name.txt" 2>&1
    code=$?
    cat "build/said/$name.txt"
    counts=$(tail -n 1 "build/said/$name.txt" |
        sed -n 's/^.*[: ]\([0-9][0-9]*\) passed, \([0-9][0-9]*\) failed\(, \([0-9][0-9]*\) skipped\)\{0,1\}$/\1 \2 \4/p')
    if [ -z "$counts" ]; then
        failed=$((failed + 1)); echo "  FAIL  $name ended without its count (exit $code)"
    else
        set -- $counts
        passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + ${3:-0}))
        if [ $code != 0 ] && [ "$2" = 0 ]; then failed=$((failed + 1)); echo "  FAIL  $name: exit $code"; fi
        if [ $code = 0 ] && [ "$2" != 0 ]; then failed=$((failed + 1)); echo "  FAIL  $name: exit 0 in spite of failures"; fi
    fi
    seconds=$(($(date +%s) - begin))
    [ $seconds -lt 5 ] || echo "        ($seconds s)"
}

for test in "$@"; do
    add "$test" $RUN "build/tests/$test"
    [ "$test" != grad ] || add flip $RUN build/tests/grad flip       # with negated gradients, which each row has to notice
done
for script in tests/tools/layers.sh tests/programs/*.sh; do
    add "$(basename "$script" .sh)_sh" sh "$script"
done

if [ $skipped = 0 ]; then echo "$passed passed, $failed failed"
else echo "$passed passed, $failed failed, $skipped skipped"; fi
[ $failed = 0 ]
