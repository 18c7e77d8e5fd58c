/* text/encoder.c - encoding and decoding, as far as all kinds of tokenizers share it: the list of ids, the
 *          bytes that each id stands for, words that are one piece, bytes that may be malformed.
 * Needs    core.c, text/pieces.c.
 * Speed    Most words of a text are one piece. t->words has each piece whose text, alone, is encoded as this
 *          piece. A part of a text is looked up there first, if no piece can cross its ends. */
#include "text.h"

/* ==============================================================================================
 * Ids and where they come from
 * ============================================================================================== */
void put_origin(Origin *origin, const char *out, size_t from, size_t to, Source s) {
    int same = to - from == s.used && !memcmp(out + from, s.text + s.at, s.used);
    size_t i;
    for (i = from; i < to; i++) {
        origin[i].from = same ? s.at + (i - from) : s.at;
        origin[i].to = same ? s.at + (i - from) + 1 : s.at + s.used;
    }
}

void set_span(Encoder *e, int k, size_t i, size_t j, int exact) {
    const Origin *o = e->origin;
    TokenSpan *s = &e->span[k];
    s->from = o[i].from;
    s->to = j > i ? o[j - 1].to : o[i].from;
    if (j == i || (i && o[i - 1].from == o[i].from && o[i - 1].to == o[i].to)) exact = 0;
    if (j > i && j < e->normal && o[j - 1].from == o[j].from && o[j - 1].to == o[j].to) exact = 0;
    s->exact = exact;
}

void put_one(Encoder *e, int id, size_t i, size_t j) {
    if (e->span) set_span(e, e->count, i, j, 1);
    e->ids[e->count++] = id;
}

/* ==============================================================================================
 * Words
 * ============================================================================================== */
int known_word(const Tokenizer *t, const char *s, size_t n) {
    return n <= t->longest ? table_find(&t->words, s, n) : -1;
}

static int find_words(Tokenizer *t, Encoder *e, Pool *pool) {
    int id;
    for (id = 0; id < t->V; id++) {
        Text text = { t->piece[id].text, t->piece[id].length };
        int whole;
        if (!text.text) continue;
        if (text.length > t->longest) t->longest = text.length;
        whole = t->kind->is_word(e, id, &text, pool);
        if (whole < 0) return E_MEMORY;
        if (whole && table_find(&t->words, text.text, text.length) < 0 &&
            table_add(&t->words, pool, text.text, text.length, id)) return E_MEMORY;
    }
    return OK;
}

int index_words(Tokenizer *t, Pool *pool, Error *err) {
    Encoder e;
    Pool scratch;
    int code;
    if (t->bpe.unused) return OK;           /* how unused pieces are split depends on the whole text */
    memset(&e, 0, sizeof e);
    memset(&scratch, 0, sizeof scratch);
    scratch.source = pool->source;
    scratch.sink = pool->sink;
    e.t = e.merger.t = t;
    e.pool = &scratch;
    code = find_words(t, &e, pool);
    pool_free(&scratch);
    return code ? no_memory(err, "vocabulary") : OK;
}

/* ==============================================================================================
 * Writing text
 * ============================================================================================== */
size_t append_text(char *out, size_t at, const char *text, size_t n) {
    memcpy(out + at, text, n);
    return at + n;
}

/* Returns the length of the malformed sequence at the start of s: the longest one that a well-formed
 * character could begin with (Unicode's "maximal subpart"), or 1. */
static size_t malformed(const char *s, size_t n) {
    const unsigned char *p = (const unsigned char *)s;
    size_t i, wanted = 1;
    if (p[0] >= 0xC2 && p[0] <= 0xDF) wanted = 2;
    if (p[0] >= 0xE0 && p[0] <= 0xEF) wanted = 3;
    if (p[0] >= 0xF0 && p[0] <= 0xF4) wanted = 4;
    for (i = 1; i < wanted && i < n; i++) {
        unsigned low = 0x80, high = 0xBF;
        if (i == 1 && p[0] == 0xE0) low = 0xA0;         /* excludes overlong forms */
        if (i == 1 && p[0] == 0xED) high = 0x9F;        /* excludes surrogates */
        if (i == 1 && p[0] == 0xF0) low = 0x90;         /* excludes overlong forms */
        if (i == 1 && p[0] == 0xF4) high = 0x8F;        /* excludes code points above U+10FFFF */
        if (p[i] < low || p[i] > high) break;
    }
    return i;
}

size_t append_valid(char *out, size_t at, Text s, int each) {
    size_t i, length;
    for (i = 0; i < s.length; i += length) {
        int32_t code;
        length = (size_t)utf8_decode(s.text + i, s.length - i, &code);
        if (code >= 0) { at = append_text(out, at, s.text + i, length); continue; }
        if (!each) length = malformed(s.text + i, s.length - i);
        at = append_text(out, at, BAD_CHARACTER, 3);
    }
    return at;
}
