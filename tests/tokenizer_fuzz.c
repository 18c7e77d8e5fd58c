/* libFuzzer's target for the tokenizers' loaders and encoders: the first byte says which, the others are its input. Not part of `make test`:
 *     clang -O1 -g -fsanitize=fuzzer,address,undefined -I. tests/tokenizer_fuzz.c core.c unicode.c unigram.c wordpiece.c tokenizer.c -lm -o /tmp/fuzz
 *     /tmp/fuzz -max_total_time=600 FOLDER          (with -DTARGET=0 ... 5: one of them alone, without that byte) */
#include "rlhf.h"

static Pool new_pool(void) { Pool p; memset(&p, 0, sizeof p); p.source = malloc; p.sink = free; return p; }

/* Whatever a tokenizer says it is, it can be used: encoded ids decode, and lie in its range. */
static void use(const Tokenizer *t, const char *text, size_t n, Pool *pool) {
    int *ids, count, i, found;
    char *back;
    size_t length;
    Segmentation *list;
    Rng rng = rng_stream(1, n, 0);
    if (!t) return;
    if (!tokenizer_encode(t, text, n, pool, &ids, &count)) {
        for (i = 0; i < count; i++) if (ids[i] < 0 || ids[i] >= tokenizer_size(t)) abort();
        if (tokenizer_decode_all(t, ids, count, pool, &back, &length) == E_RANGE) abort();
    }
    tokenizer_sample(t, text, n, 0.5, &rng, pool, &ids, &count);
    tokenizer_nbest(t, text, n < 40 ? n : 40, 5, pool, &list, &found);
}

/* A text source over the input's lines. */
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const char probe[] = "a b\xc3\xa9  <s>ab\xff\xe2\x96\x81 [UNK] 12 \xe4\xb8\xad";
    Pool pool = new_pool();
    const char *text = (const char *)data;
    const char *zero;
    size_t first;
    Input in;
    TextSource source;
    int target = n ? *data % 6 : 0;
#ifdef TARGET
    target = TARGET;
#else
    if (n) { text++; n--; }
#endif
    in.at = text; in.end = text + n;
    source.next = next;
    source.context = &in;
    zero = n ? memchr(text, 0, n) : NULL;
    first = zero ? (size_t)(zero - text) : n;
    if (target == 0) use(tokenizer_sentencepiece(text, n, &pool, NULL), probe, sizeof probe, &pool);
    if (target == 1) use(tokenizer_bytelevel(text, first, text + first + (zero != NULL), n - first - (zero != NULL), &pool, NULL), probe, sizeof probe, &pool);
    if (target == 2) use(tokenizer_json(text, n, &pool, NULL), probe, sizeof probe, &pool);
    if (target == 3) use(tokenizer_wordpiece(text, n, &pool, NULL), text, n, &pool);
    if (target == 4 && n) use(tokenizer_train_unigram(source, 262 + *text, &pool, NULL), text, n, &pool);
    if (target == 5 && n) use(tokenizer_train_sentencepiece(source, 262 + *text, &pool, NULL), text, n, &pool);
    pool_free(&pool);
    return 0;
}
