/* tests/fuzz/tokenizer_fuzz.c - libFuzzer's targets for the tokenizers' openers and encoders, one for each
 * build. No part of `make test`. From the project's root, with TARGET 0 to 7:
 *     clang -O1 -g -DTARGET=0 -fsanitize=fuzzer,address,undefined -I. tests/fuzz/tokenizer_fuzz.c core.c \
 *           fast/threads.c text/[a-z]*.c tokenizer.c -lm -o /tmp/fuzz
 *     mkdir /tmp/found
 *     /tmp/fuzz -max_total_time=600 -print_final_stats=1 /tmp/found tests/fuzz/seeds/tokenizer
 * 0 SentencePiece models, 1 vocab.json and merges.txt (a NUL between them), 2 tokenizer.json, 3 vocab.txt,
 * 4 and 5 training of a unigram and of a BPE model, 6 texts, encoded with every tokenizer among the seeds. */
#include "text/text.h"

#include <stdio.h>

#ifndef TARGET
#define TARGET 0
#endif

static Pool new_pool(void) { Pool p; memset(&p, 0, sizeof p); p.source = malloc; p.sink = free; return p; }

/* Uses a tokenizer, which has to work if it was opened: ids are in its range, decode, and come from bytes of
 * the text. */
static void use(const Tokenizer *t, const char *text, size_t n, Pool *pool) {
    int *ids, *again, count, i, found;
    char *back;
    size_t length;
    TokenSpan *span;
    if (!t) return;
    if (!tokenizer_encode(t, text, n, pool, &ids, &count)) {
        for (i = 0; i < count; i++) if (ids[i] < 0 || ids[i] >= tokenizer_size(t)) abort();
        if (tokenizer_decode_all(t, ids, count, pool, &back, &length) == E_RANGE) abort();
        if (!tokenizer_encode_spans(t, text, n, pool, &again, &span, &found)) {
            if (found != count || (count && memcmp(ids, again, (size_t)count * sizeof *ids))) abort();
            for (i = 0; i < count; i++) if (span[i].from > span[i].to || span[i].to > n) abort();
        }
    }
    if (tokenizer_encode_plain(t, text, n, 0, pool, &ids, &count)) count = 0;
    for (i = 0; i < count; i++) if (ids[i] < 0 || ids[i] >= tokenizer_size(t)) abort();
}

/* A source of texts: the input's lines. */
typedef struct { const char *at, *end; } Input;
static int next(void *context, const char **text, size_t *n) {
    Input *in = context;
    const char *stop;
    if (in->at >= in->end) return 0;
    stop = memchr(in->at, '\n', (size_t)(in->end - in->at));
    *text = in->at;
    *n = (size_t)((stop ? stop : in->end) - in->at);
    in->at += *n + 1;
    return 1;
}

static Tokenizer *bytelevel(const char *text, size_t n, Pool *pool) {
    const char *zero = n ? memchr(text, 0, n) : NULL;
    size_t first = zero ? (size_t)(zero - text) : n, rest = first + (zero != NULL);
    return tokenizer_bytelevel(text, first, text + rest, n - rest, pool, NULL);
}

enum { SEEDS = 10 };

/* Opens the tokenizers among the seeds, once. */
static Tokenizer **seeds(void) {
    static const char *const name[SEEDS] = { "sp-unigram", "sp-bpe", "sp-user", "sp-rules", "sp-suffix",
                                             "bytelevel", "wordpiece",
                                             "json-bytelevel", "json-unigram", "json-unigram-bytes" };
    static Tokenizer *list[SEEDS];
    static Pool pool;
    static char bytes[4096], path[100];
    int i;
    if (list[0]) return list;
    pool = new_pool();
    for (i = 0; i < SEEDS; i++) {
        FILE *f;
        size_t n;
        snprintf(path, sizeof path, "tests/fuzz/seeds/tokenizer/%s", name[i]);
        f = fopen(path, "rb");
        if (!f) { fprintf(stderr, "no %s: run this from the project's root\n", path); exit(1); }
        n = fread(bytes, 1, sizeof bytes, f);
        fclose(f);
        list[i] = i < 5 ? tokenizer_sentencepiece(bytes, n, &pool, NULL) : i == 5 ? bytelevel(bytes, n, &pool)
                : i == 6 ? tokenizer_wordpiece(bytes, n, &pool, NULL) : tokenizer_json(bytes, n, &pool, NULL);
        if (!list[i]) { fprintf(stderr, "%s is no tokenizer\n", path); exit(1); }
    }
    return list;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const char probe[] = "a b\xc3\xa9  <s>ab\xff\xe2\x96\x81 [UNK] 12 "
                                "\xe4\xb8\xad``\r\n\xef\xac\x81\xcc\x81 A";
    Pool pool = new_pool();
    const char *text = (const char *)data;
    Input in;
    TextSource source;
    int i;
    in.at = text; in.end = text + n;
    source.next = next;
    source.context = &in;
    switch (TARGET) {
    case 0: use(tokenizer_sentencepiece(text, n, &pool, NULL), probe, sizeof probe, &pool); break;
    case 1: use(bytelevel(text, n, &pool), probe, sizeof probe, &pool); break;
    case 2: use(tokenizer_json(text, n, &pool, NULL), probe, sizeof probe, &pool); break;
    case 3: use(tokenizer_wordpiece(text, n, &pool, NULL), text, n, &pool); break;
    case 4: if (n) use(tokenizer_train_unigram(source, 262 + (unsigned char)*text, &pool, NULL), text, n,
                       &pool); break;
    case 5: if (n) use(tokenizer_train_sentencepiece(source, 262 + (unsigned char)*text, &pool, NULL), text,
                       n, &pool); break;
    case 6: if (n) use(tokenizer_train_wordpiece(source, 6 + (unsigned char)*text, n & 1, &pool, NULL), text,
                       n, &pool); break;
    default: for (i = 0; i < SEEDS; i++) use(seeds()[i], text, n, &pool);
    }
    pool_free(&pool);
    return 0;
}
