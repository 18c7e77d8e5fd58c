#!/bin/sh
# tests/programs/porter.sh - what somebody carries to a bare machine: a tokenizer of one kind alone links with
# a program that has neither stdio nor a heap, encodes and decodes there, and needs no file of another kind.
# Prints how large each set is.
# CC, RUN: compiler and emulator. Last line: `porter: N passed, N failed, N skipped`.
cd "$(dirname "$0")/../.." || exit 1
CC=${CC:-cc} NM=${NM:-nm} passed=0 failed=0 skipped=0
work=$(mktemp -d "${TMPDIR:-/tmp}/porter.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
flags="-std=c99 -pedantic -Wall -Wextra -Werror -Os -ffp-contract=off -DPLAIN -I."

ok() { passed=$((passed + 1)); [ -z "$VERBOSE" ] || echo "  ok    $1"; }
bad() {
    failed=$((failed + 1)); echo "  FAIL  $1"
    [ ! -s "$work/said" ] || sed -n '1,8s/^/        /p' "$work/said"
}

# object FILE: compiles FILE.c once.
object() {
    o=$work/$(echo "$1" | tr / _).o
    [ -s "$o" ] || $CC $flags -c -o "$o" "$1.c"
}

# bytes FILE: its bytes as a list of C numbers.
bytes() { od -A n -v -t u1 "$1" | sed 's/ *\([0-9][0-9]*\)/\1,/g'; }

# weigh NAME OBJECT ...: adds up text and data, Unicode's tables apart.
weigh() {
    name=$1; shift
    if ! size "$@" > "$work/size" 2> /dev/null; then echo "  note  $name: there is no \`size\`"; return; fi
    awk -v name="$name" 'NR > 1 { if ($6 ~ /unicode_tables/) tables += $1 + $2; else sum += $1 + $2 }
        END { printf "  note  %s: %d bytes of code and data, %d of Unicode tables\n", name, sum, tables }' \
        "$work/size"
}

# bare NAME OBJECT ...: no object may need stdio, a heap, files or the environment.
bare() {
    name=$1; shift
    $NM -u "$@" | awk '{ s = $NF; sub(/^_+/, "", s); sub(/_chk$/, "", s); print s }' | sort -u > "$work/needs"
    grep -E '^((v?f?s?n?|d)printf|f?puts|f?putc|putchar|perror|(isoc99_)?s?scanf)$' "$work/needs" \
        > "$work/said"
    grep -E '^(fopen(64)?|fread|fwrite|std(in|out|err)|getenv|system)$' "$work/needs" >> "$work/said"
    grep -E '^(malloc|calloc|realloc|free|exit|abort|threads_for|GOMP_.*|omp_.*)$' "$work/needs" \
        >> "$work/said"
    if [ -s "$work/needs" ] && [ ! -s "$work/said" ]; then ok "$name needs no stdio and no heap"
    else bad "$name needs"; fi
}

# The program: a pool in a static array, a model in a constant one. It exits with 0, or with the number of the
# step that went wrong.
cat > "$work/program.c" <<'C'
#include "rlhf.h"
static union { unsigned char bytes[600000]; double align; void *pointer; } memory;
static size_t used;
static void *source(size_t bytes) {
    size_t at = used;
    bytes = (bytes + 15) / 16 * 16;
    if (bytes > sizeof memory.bytes - used) return NULL;
    used += bytes;
    return memory.bytes + at;
}
static void sink(void *block) { (void)block; }
static const unsigned char model[] = { MODEL };
static const int wanted[] = { IDS };
int main(void) {
    static const char text[] = TEXT;
    static Pool pool;
    static Error err;
    const int n = (int)(sizeof wanted / sizeof *wanted);
    int *ids, count, i;
    char *back;
    size_t length;
    Tokenizer *t;
    pool.source = source;
    pool.sink = sink;
    t = OPEN;
    if (!t) return 1;
    if (tokenizer_encode(t, text, sizeof text - 1, &pool, &ids, &count) != OK || count != n) return 2;
    for (i = 0; i < n; i++) if (ids[i] != wanted[i]) return 3;
    if (tokenizer_decode(t, ids, count, &pool, &back, &length) != OK || length != sizeof text - 1) return 4;
    return memcmp(back, text, length) ? 5 : 0;
}
C

# kind NAME SEED TEXT IDS OPENER FILES: links the program with these files of text/ alone and runs it.
kind() {
    name=$1 seed=tests/fuzz/seeds/tokenizer/$2 text=$3 ids=$4 open=$5 set=
    for f in core quant tokenizer text/unicode_tables text/unicode text/pieces text/added text/encoder $6; do
        object "$f" > "$work/said" 2>&1 || { bad "$name: $f.c does not compile"; return; }
        set="$set $o"
    done
    {
        echo "#define MODEL $(bytes "$seed" | tr '\n' ' ')"; echo "#define IDS $ids"
        echo "#define TEXT \"$text\""; echo "#define OPEN $open"
        cat "$work/program.c"
    } > "$work/$name.c"
    if $CC $flags -o "$work/$name" "$work/$name.c" $set -lm > "$work/said" 2>&1; then ok "$name links alone"
    else bad "$name does not link"; return; fi
    $RUN "$work/$name"
    code=$?
    if [ $code = 0 ]; then ok "$name: there and back"; else bad "$name: step $code"; fi
    bare "$name" $set
    weigh "$name" $set
}

vocab=$(tr '\0' '\n' < tests/fuzz/seeds/tokenizer/bytelevel | sed -n '1p' | wc -c)     # and the NUL after it
kind bytelevel bytelevel 'ab ab\303\251' '3, 11, 8' \
    "tokenizer_bytelevel(model, $((vocab - 1)), model + $vocab, sizeof model - $vocab, &pool, &err)" \
    'text/bpe text/bytelevel'
kind wordpiece wordpiece 'ab a b' '8, 4, 5' 'tokenizer_wordpiece(model, sizeof model, &pool, &err)' \
    text/wordpiece
kind sentencepiece sp-bpe 'ab a b' '12, 6, 8' 'tokenizer_sentencepiece(model, sizeof model, &pool, &err)' \
    'text/normal text/bpe text/unigram text/sentencepiece text/model_file'
kind json json-bytelevel 'ab a b' '3, 5, 4, 2' 'tokenizer_json(model, sizeof model, &pool, &err)' \
    'text/normal text/bpe text/unigram text/bytelevel text/wordpiece text/sentencepiece text/charset text/regex
     text/decimal text/steps text/cut text/pipeline text/pipeline_json text/tokenizer_json'

# A whole policy on a bare machine: the chapters from core.c to model.c, and one kind of tokenizer. The program
# writes eight tokens from a static arena, then reads the whole text in one forward: each written token has to
# be the one with the largest logit there.
cat > "$work/policy.c" <<'C'
static union { unsigned char bytes[200000]; double align; } numbers;
static int largest(const float *z, int n) {
    int best = 0, i;
    for (i = 1; i < n; i++) if (z[i] > z[best]) best = i;
    return best;
}
int policy(Tokenizer *t, Pool *pool) {
    static int token[12], sequence[12], position[12];
    static float hidden[12 * 16], logits[12 * 64];
    Arena a = { numbers.bytes, 0, sizeof numbers.bytes, 0, 0 };
    Writing writing = { NULL, NULL, { 0, 0, 1 }, NULL, NULL };
    Rows rows = { 11, 11, token, sequence, position, NULL };
    ModelConfig c;
    Sequence s;
    Model m;
    Cache kv;
    int *ids, count, i;
    memset(&c, 0, sizeof c);
    memset(&s, 0, sizeof s);
    c.V = tokenizer_size(t) < 64 ? tokenizer_size(t) : 64;
    c.positions = 12; c.bos = c.pad = -1; c.tied = 1;
    c.stack.C = 16; c.stack.H = 4; c.stack.K = 2; c.stack.D = 4; c.stack.F = 24; c.stack.L = 2;
    c.stack.activation = ACT_SILU; c.stack.gated = c.stack.causal = c.stack.rotary = 1;
    c.stack.eps = 1e-5f; c.stack.rope.theta = 10000;
    if (model_carve(&m, &c, NULL, 0, 12, pool, &a, NULL) != OK) return 6;
    model_init(&m, 5);
    for (i = 0; i < m.tensors; i++)         /* larger weights than a new model's, so that tokens differ */
        if (m.tensor[i].flags & TENSOR_LINEAR) tensor_normal(m.tensor[i].matrix, 0.4, 6);
    cache_carve(&kv, &c.stack, 2, 1, 12, &a);
    if (tokenizer_encode(t, "ab ab", 5, pool, &ids, &count) != OK || count < 1 || count > 4) return 7;
    for (i = 0; i < count; i++) token[i] = ids[i] % c.V;
    s.token = token; s.prompt = s.length = count; s.capacity = 12;
    if (model_generate(&m, &writing, &s, 1, &kv, &a) != OK || s.length != 12) return 8;
    for (i = 0; i < 12; i++) position[i] = i;
    if (model_forward(&m, NULL, &rows, &kv, NULL, hidden, &a) != OK) return 9;
    linear_forward(logits, hidden, &m.head, NULL, 11, &a);
    for (i = count; i < 12; i++) if (token[i] != largest(logits + (i - 1) * c.V, c.V)) return 10;
    return a.failed ? 11 : 0;
}
C
chapters=
for f in core quant ops lora stack model tokenizer text/unicode_tables text/unicode text/pieces text/added \
    text/encoder text/bpe text/bytelevel; do
    object "$f" > "$work/said" 2>&1 || bad "policy: $f.c does not compile"
    chapters="$chapters $o"
done
{
    sed -e 's|#include "rlhf.h"|&\nint policy(Tokenizer *t, Pool *pool);|' \
        -e 's|(back, text, length) ? 5 : 0;|(back, text, length) ? 5 : policy(t, \&pool);|' "$work/bytelevel.c"
    cat "$work/policy.c"
} > "$work/whole.c"
if $CC $flags -o "$work/whole" "$work/whole.c" $chapters -lm > "$work/said" 2>&1; then ok "a policy links alone"
else bad "a policy does not link"; fi
$RUN "$work/whole"
code=$?
if [ $code = 0 ]; then ok "a policy writes what it would read"; else bad "a policy: step $code"; fi
bare "a policy" $chapters
weigh "a policy with its tokenizer" $chapters

# The check itself: an object that calls malloc and printf is seen.
cat > "$work/heap.c" <<'C'
#include <stdio.h>
#include <stdlib.h>
int heap(int n);
int heap(int n) { void *p = malloc((size_t)n); printf("%d %p", n, p); return p != NULL; }
C
$CC -c -o "$work/heap.o" "$work/heap.c" && said=$(bare heap "$work/heap.o")
case "$said" in
    *malloc*printf* | *printf*malloc*) ok "the check sees stdio and a heap" ;;
    *) bad "the check sees no stdio or no heap" ;;
esac

echo "porter: $passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
