#!/bin/sh
# tests/tools/compilers.sh - compiles every source file alone with each installed compiler, with warnings as errors, also the
# gradient test's objects (-DF64); runs the programs that each compiler built with --help; builds without make. Kinds of builds:
# with newer processors' instructions (-DFAST), without them (make FAST=0), and without fast/ (-DPLAIN, make PLAIN=1).
# Last line: `compilers: N passed, N failed, N skipped`.
cd "$(dirname "$0")/../.." || exit 1
passed=0 failed=0 skipped=0
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
library=$(make -s --no-print-directory list 2> /dev/null | tr -d "|")
plain=$(echo "$library" | tr ' ' '\n' | grep -v '^fast/')
programs=$(sed -n 's/^PROGRAMS *= *//p' Makefile) doubles=$(sed -n 's/^F64 *= *//p' Makefile)
[ -n "$library" ] && [ -n "$programs" ] && [ -n "$doubles" ] || { echo "the Makefile has no lists of files"; exit 1; }
strict="-std=c99 -pedantic -Wall -Wextra -Wshadow -Werror"

ok()  { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)); echo "  FAIL  $1"; sed -n '1,12p' "$work/said"; }

# helps PROGRAM: whether the program, started by $run, prints its help; if $run is `none`, whether it exists.
helps() {
    [ -f "$1" ] || set -- "$1.exe"
    if [ "$run" = none ]; then test -s "$1"
    else $run "$1" --help > "$work/said" 2>&1 && grep -q "^usage: " "$work/said"; fi
}

# writes NAME: whether prep, started by $run, writes a dataset, and a tokenizer into a folder that it has to make,
# both with the bytes that gcc's prep wrote before.
writes() {
    prep=$work/$1/prep new=$work/$1/new/folder
    [ -f "$prep" ] || prep=$prep.exe
    [ "$run" = none ] || {
        $run "$prep" grammar data/grammar.txt --out "$work/$1/texts.bin" --count 50 &&
        $run "$prep" tokenizer "$work/$1/texts.bin" --vocab 400 --out "$new" &&
        { [ ! -d "$work/gcc/new" ] || { cmp "$work/gcc/texts.bin" "$work/$1/texts.bin" &&
          cmp "$work/gcc/new/folder/tokenizer.model" "$new/tokenizer.model"; } }
    } > "$work/said" 2>&1
}

# build NAME COMPILER FLAGS FILES [RUN]: builds the objects of the library's FILES and all programs, which have
# to print their help, started by RUN if one is given, and prep to write. If RUN is not installed, the programs
# are only built.
build() {
    name=$1 cc=$2 flags=$3 files=$4 run=${5:-}
    if ! command -v "${cc%% *}" > /dev/null 2>&1; then
        skipped=$((skipped + 1)); echo "  skip  $name: there is no $cc"; return
    fi
    for f in $files $programs; do
        mkdir -p "$(dirname "$work/$name/$f")"
        if $cc $strict $flags -c -o "$work/$name/$f.o" "$f.c" > "$work/said" 2>&1; then ok; else bad "$name: $f.c"; fi
        [ -s "$work/said" ] && { echo "  note  $name: $f.c:"; sed -n 1,4p "$work/said"; }
    done
    if [ -n "$run" ] && ! command -v "$run" > /dev/null 2>&1; then
        echo "  note  $name: the programs are built and not run: there is no $run"; run=none
    fi
    for f in $programs; do
        objects=
        for g in $files; do
            case $g in programs/"$f"_*) ;; programs/*) continue ;; esac
            objects="$objects $work/$name/$g.o"
        done
        if $cc $flags -o "$work/$name/$f" "$work/$name/$f.o" $objects -lm > "$work/said" 2>&1 &&
           helps "$work/$name/$f"; then ok; else bad "$name: the program $f"; fi
    done
    if writes "$name"; then ok; else bad "$name: prep writes a folder"; fi
}

# alone NAME COMPILER FLAGS FILES: builds objects only
alone() {
    name=$1 cc=$2 flags=$3; shift 3
    command -v "${cc%% *}" > /dev/null 2>&1 || { skipped=$((skipped + 1)); echo "  skip  $name: there is no $cc"; return; }
    for f in "$@"; do
        if $cc $strict $flags -c -o "$work/one.o" "$f" > "$work/said" 2>&1; then ok; else bad "$name: $f"; fi
    done
}

# The command for a machine without make, as the Makefile's first page has it
without=$(sed -n 's/^#   No make? *//p' Makefile)
for f in ppo prep; do
    command=$(echo "$without" | sed "s| -O3 | -O0 |; s| -o ppo ppo.c programs/ppo_\*.c | -o $work/alone $f.c programs/${f}_*.c |")
    if eval "$command" > "$work/said" 2>&1 && "$work/alone" --help > "$work/said" 2>&1 && grep -q "^usage: ./$f" "$work/said"
    then ok; else bad "without make: $f"; fi
done
off="-ffp-contract=off -Wno-unknown-pragmas"
build gcc       gcc      "-O3 -ffp-contract=off -fopenmp -DFAST" "$library"
build gcc-plain gcc      "-O1 $off -DPLAIN" "$plain"
build clang     clang    "-O2 $off -DFAST" "$library"
build tcc       tcc      "" "$library"
build tcc-plain tcc      "-DPLAIN" "$plain"
build musl      musl-gcc "-O1 $off" "$library"
build arm       "aarch64-linux-gnu-gcc -static"  "-O1 -ffp-contract=off -fopenmp -DFAST" "$library" qemu-aarch64
WINEDEBUG=-all; export WINEDEBUG
build windows   "x86_64-w64-mingw32-gcc -static" "-O1 -ffp-contract=off -fopenmp -DFAST" "$library" wine
for cc in gcc clang; do
    quiet=-Wno-unknown-pragmas
    [ $cc = clang ] && quiet="$quiet -Wno-keyword-macro"
    alone "$cc, plain char unsigned" $cc "-O1 -funsigned-char $quiet" core.c text/*.c tokenizer.c checkpoint.c files/*.c io.c
    for f in $doubles; do alone "$cc, in double" $cc "-O1 -DF64 $quiet" "$f.c"; done
done
alone "gcc, tests" gcc "-O1 $off -I. -Itests -Itests/unit -Itests/fuzz" tests/*/*.c

echo "compilers: $passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
