#!/bin/sh
# tests/tools/compilers.sh - compiles every source file alone with each installed compiler, with warnings as errors, also the
# gradient test's objects (-DF64); runs the programs that each compiler built with --help; builds without make.
# Last line: `compilers: N passed, N failed, N skipped`.
cd "$(dirname "$0")/../.." || exit 1
passed=0 failed=0 skipped=0
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
library=$(make -s --no-print-directory list 2> /dev/null | tr -d "|") programs="ppo sft rm run prep"
strict="-std=c99 -pedantic -Wall -Wextra -Wshadow -Werror"

ok()  { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)); echo "  FAIL  $1"; sed -n '1,12p' "$work/said"; }

# build NAME COMPILER FLAGS: builds all objects and all programs
build() {
    name=$1 cc=$2 flags=$3
    if ! command -v "${cc%% *}" > /dev/null 2>&1; then
        skipped=$((skipped + 1)); echo "  skip  $name: there is no $cc"; return
    fi
    mkdir -p "$work/$name/fast" "$work/$name/text" "$work/$name/files"
    for f in $library $programs; do
        if $cc $strict $flags -c -o "$work/$name/$f.o" "$f.c" > "$work/said" 2>&1; then ok; else bad "$name: $f.c"; fi
        [ -s "$work/said" ] && { echo "  note  $name: $f.c:"; sed -n 1,4p "$work/said"; }
    done
    objects=
    for f in $library; do objects="$objects $work/$name/$f.o"; done
    for f in $programs; do
        if $cc $flags -o "$work/$name/$f" "$work/$name/$f.o" $objects -lm > "$work/said" 2>&1 &&
           "$work/$name/$f" --help > "$work/said" 2>&1 && grep -q "^usage: " "$work/said"; then ok; else bad "$name: the program $f"; fi
    done
}

# alone NAME COMPILER FLAGS FILES: builds objects only
alone() {
    name=$1 cc=$2 flags=$3; shift 3
    command -v "${cc%% *}" > /dev/null 2>&1 || { skipped=$((skipped + 1)); echo "  skip  $name: there is no $cc"; return; }
    for f in "$@"; do
        if $cc $strict $flags -c -o "$work/one.o" "$f" > "$work/said" 2>&1; then ok; else bad "$name: $f"; fi
    done
}

# The README's command for a machine without make.
if cc -O1 -std=c99 -ffp-contract=off -o "$work/ppo" ppo.c [!prs]*.c re*.c rl.c st*.c fast/*.c text/*.c files/*.c -lm > "$work/said" 2>&1 &&
   "$work/ppo" --help > "$work/said" 2>&1 && grep -q "^usage: " "$work/said"; then ok; else bad "without make"; fi
build gcc   gcc      "-O3 -ffp-contract=off -fopenmp"
build clang clang    "-O2 -ffp-contract=off -Wno-unknown-pragmas"
build tcc   tcc      ""
build musl  musl-gcc "-O1 -ffp-contract=off -Wno-unknown-pragmas"
for cc in gcc clang; do
    quiet=-Wno-unknown-pragmas
    [ $cc = clang ] && quiet="$quiet -Wno-keyword-macro"
    alone "$cc, plain char unsigned" $cc "-O1 -funsigned-char $quiet" core.c text/*.c tokenizer.c checkpoint.c files/*.c io.c
    alone "$cc, in double" $cc "-O1 -DF64 $quiet" ops.c lora.c stack.c model.c reward.c rl.c
done
for f in tests/*/*.c; do alone "gcc, tests" gcc "-O1 -ffp-contract=off -Wno-unknown-pragmas -I. -Itests -Itests/unit -Itests/fuzz" "$f"; done

echo "compilers: $passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
