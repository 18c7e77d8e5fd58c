#!/bin/sh
# tests/programs/makefile.sh - what the Makefile finds out about a compiler: the flags that it accepts,
# OpenMP, how the names of its programs end, and whether its programs run on this machine. The compilers here
# are scripts that call cc; make only prints what it would do, in a copy of the sources. Real compilers:
# tests/tools/compilers.sh.
# Last line: `makefile: N passed, N failed, N skipped`.
cd "$(dirname "$0")/../.." || exit 1
passed=0 failed=0 skipped=0
work=$(mktemp -d "${TMPDIR:-/tmp}/makefile.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
unset MAKEFLAGS MAKELEVEL MFLAGS RUN CC CFLAGS
mkdir "$work/tree" "$work/tree/data" && cp -R Makefile ./*.c ./*.h programs fast text files "$work/tree" &&
    cp data/grammar.txt "$work/tree/data" && find "$work/tree" -name '*.o' -exec rm -f {} + || exit 1

check() {           # check NAME COMMAND ...: one that passes if the command does
    name=$1; shift
    if "$@"; then passed=$((passed + 1)); [ -z "$VERBOSE" ] || echo "  ok    $name"
    else
        failed=$((failed + 1)); echo "  FAIL  $name"; sed '6,$d; s/^/        /' "$work/said" | cut -c 1-200
    fi
}
has() { grep -q -e "$1" "$work/said"; }
lacks() { ! has "$1"; }

# plan COMPILER [SETTING ...]: what make would do with this compiler
plan() {
    compiler=$1; shift
    make -n -C "$work/tree" all CC="sh $work/$compiler" "$@" > "$work/said" 2>&1
}

# output: sets $out to the file that the compiler is asked to write.
cat > "$work/output" <<'C'
out= next=
for word in "$@"; do [ -z "$next" ] || out=$word; next=; [ "$word" != -o ] || next=1; done
C
# Compilers for other machines, whose programs do not start here; one appends .exe to names without an ending.
cat > "$work/cross" <<'C'
. "${0%/*}/output"
cc "$@" || exit
case "$out" in *.o) ;; *) echo "for another machine" > "$out"; chmod -x "$out" ;; esac
C
cat > "$work/windows" <<'C'
. "${0%/*}/output"
sh "${0%/*}/cross" "$@" || exit
case "${out##*/}" in *.*) ;; *) mv "$out" "$out.exe" ;; esac
C
echo '[ "$(cat "$1")" = "for another machine" ]' > "$work/emulator"
# A compiler whose OpenMP links as long as no program uses it, and one that refuses a flag.
cat > "$work/unusable" <<'C'
for word in "$@"; do
    case "$word" in *.c) ! grep -q omp_ "$word" || exit 1 ;; esac
done
[ "$1" != -fopenmp ] || shift
exec cc "$@"
C
echo 'case " $* " in *" -ffp-contract=off "*) exit 1 ;; esac; exec cc "$@"' > "$work/refusing"

plan cross
check "a cross compiler keeps -ffp-contract=off" has '-ffp-contract=off .*-c -o core.o core.c'
check "and the programs are built" has '-o ppo ppo.o'
check "but prep is not started here" lacks '^ *\./prep grammar'
check "which is said, with the command to use there" has '\./prep grammar data/grammar.txt --out data/imdb.bin'
plan cross RUN="sh $work/emulator"
check "RUN starts it" has "^sh $work/emulator ./prep grammar"
plan unusable
check "an OpenMP that does not link is left out" lacks 'fopenmp'
check "and what is silent about pragmas is asked for" has '-Wno-unknown-pragmas'
plan refusing
check "a flag that is refused is left out" lacks '-ffp-contract=off'
check "the others are kept" has '-fno-trapping-math'
plan windows
check "programs that end in .exe are made under that name" has '-o ppo\.exe ppo.o'
plan windows RUN="sh $work/emulator"
check "and prep.exe makes the data" has "^sh $work/emulator ./prep.exe grammar"

echo "makefile: $passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
