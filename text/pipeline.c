/* text/pipeline.c - the tokenizers of tokenizer.json that no other kind stands for: any normalizers
 *          (text/steps.c), any pre-tokenizers (text/cut.c), and a model for each word: Unigram, BPE of
 *          bytes or of characters, WordPiece.
 * Source   Hugging Face's tokenizers (unigram/model.rs, bpe/model.rs), quirks included.
 * Needs    core.c, text/{unicode,pieces,added,bpe,normal,unigram,encoder,bytelevel,wordpiece}.c,
 *          text/{sentencepiece,steps,cut}.c.
 * Edges    an empty normal form, several unknown pieces in a row, ties, characters without a piece. */
#include "text.h"

static int normal_form(const Tokenizer *t, Text *text, Pool *pool) {
    Origin *none = NULL;
    int lost;
    return run_steps(t, text, &none, &lost, pool);
}

/* ==============================================================================================
 * Unigram: the best segmentation of a word
 * ============================================================================================== */

/* Appends piece id, which covers the bytes [at, at + n) of the normal form. If it is the unknown piece:
 * appends instead the piece that has just this text, if there is one, or else, with byte_fallback, the pieces
 * of the bytes, if each byte has one. */
static void put_unknown(Encoder *e, int id, const char *text, size_t at, size_t n) {
    const Tokenizer *t = e->t;
    const char *s = text + at;
    int whole = id == t->special.unk ? table_find(&t->ordinary, s, n) : id;
    size_t i = 0;
    if (whole < 0 && t->sentencepiece.byte_fallback)
        while (i < n && t->byte_id[(unsigned char)s[i]] >= 0) i++;
    if (whole < 0 && i == n)
        for (i = 0; i < n; i++) put_one(e, t->byte_id[(unsigned char)s[i]], at + i, at + i + 1);
    else put_one(e, whole < 0 ? id : whole, at, at + n);
}

/* Reverses the links of the best path, then follows them. Several unknown pieces in a row become one. */
static int encode_unigram(Encoder *e, const char *text, size_t at, size_t n) {
    const Tokenizer *t = e->t;
    const char *s = text + at;
    size_t i, from, next;
    int id = table_find(&t->words, s, n);
    BestExact *best;
    if (id >= 0) { put_one(e, id, at, at + n); return OK; }
    if (exact_room(&e->paths, n, e->pool)) return E_MEMORY;
    best = e->paths.exact;
    unigram_best_exact(&t->unigram, s, n, best, -1);
    for (i = n, next = 0; i; next = i, i = from) {
        from = best[i].from;
        best[i].from = (uint32_t)next;
    }
    for (i = 0, from = next; from; ) {
        id = best[from].id;
        next = best[from].from;
        while (id == t->special.unk && next && best[next].id == id) { from = next; next = best[from].from; }
        put_unknown(e, id, text, at + i, from - i);
        i = from;
        from = next;
    }
    return OK;
}

/* Returns 1 if the piece is at least as good as its best segmentation into other pieces: of equal paths the
 * one with the whole piece is taken. */
static int is_unigram_word(Encoder *e, int id, Text *text, Pool *pool) {
    const Unigram *u = &e->t->unigram;
    (void)pool;
    if (exact_room(&e->paths, text->length, e->pool)) return 0;
    unigram_best_exact(u, text->text, text->length, e->paths.exact, id);
    return u->exact[id] >= e->paths.exact[text->length].score;
}

/* ==============================================================================================
 * BPE of characters
 * ============================================================================================== */

/* Adds the symbols of one character: its piece, or with byte_fallback the pieces of its bytes, or the unknown
 * piece (with fuse_unk one for several in a row), or nothing. Returns 1 if it adds nothing. */
static int spell_character(Merger *m, const char *s, size_t at, size_t length) {
    const Tokenizer *t = m->t;
    int id = table_find(&t->ordinary, s + at, length), unknown;
    size_t i = 0, parts = 1;
    if (id < 0 && t->sentencepiece.byte_fallback)
        while (i < length && t->byte_id[(unsigned char)s[at + i]] >= 0) i++;
    if (i == length) parts = length;
    unknown = id < 0 && parts == 1 && i < length;
    if (unknown && t->special.unk < 0) return 1;
    if (unknown && t->bytelevel.fuse_unk && m->symbols && m->symbol[m->symbols - 1].id == t->special.unk) {
        m->symbol[m->symbols - 1].length += (uint32_t)length;
        return 0;
    }
    for (i = 0; i < parts; i++) {
        Symbol *symbol = &m->symbol[m->symbols++];
        symbol->at = (uint32_t)(at + i);
        symbol->length = (uint32_t)(id < 0 && !unknown ? 1 : length);
        symbol->id = unknown ? t->special.unk : id < 0 ? t->byte_id[(unsigned char)s[at + i]] : id;
    }
    return 0;
}

/* Makes symbols of the characters of s (n bytes), and merges them. Returns 1 if characters are left out. */
static int merge_characters(Merger *m, const char *s, size_t n) {
    size_t at, length;
    int dropped = 0;
    m->text = s;
    for (at = 0, m->symbols = 0; at < n; at += length) {
        int32_t code;
        length = (size_t)utf8_decode(s + at, n - at, &code);
        dropped |= spell_character(m, s, at, length);
    }
    merge_symbols(m);
    return dropped;
}

static int encode_characters(Encoder *e, const char *text, size_t at, size_t n) {
    Merger *m = &e->merger;
    int i, dropped, id = known_word(e->t, text + at, n);
    if (id >= 0) { put_one(e, id, at, at + n); return OK; }
    if (merger_room(m, n, e->pool)) return E_MEMORY;
    dropped = merge_characters(m, text + at, n);
    for (i = 0; i >= 0 && i < m->symbols; i = m->symbol[i].next) {
        const Symbol *p = &m->symbol[i];
        size_t end = p->next < 0 ? n : m->symbol[p->next].at;
        if (e->span) set_span(e, e->count, at + p->at, at + end, !dropped);
        e->ids[e->count++] = p->id;
    }
    return OK;
}

static int is_characters_word(Encoder *e, int id, Text *text, Pool *pool) {
    (void)pool;
    if (e->t->bytelevel.ignore_merges) return 1;
    if (merger_room(&e->merger, text->length, e->pool)) return 0;
    merge_characters(&e->merger, text->text, text->length);
    return merged_whole(&e->merger, text->length, id);
}

static int encode_wordpiece(Encoder *e, const char *text, size_t at, size_t n) {
    int first = e->count;
    e->count += word_ids(&e->t->wordpiece, text + at, n, e->ids + first);
    trace_word(e, first, at, at + n);
    return OK;
}

/* ==============================================================================================
 * A text between added tokens
 * ============================================================================================== */

static int measure(Encoder *e, Text s) {
    PoolMark mark = pool_mark(e->pool);
    Origin *none = NULL;
    int lost;
    if (run_steps(e->t, &s, &none, &lost, e->pool)) return E_MEMORY;
    e->bound += cut_bound(&e->t->pipeline, s) + 1;
    pool_release(e->pool, mark);
    return OK;
}

/* Encodes a part of a normal form, which is between added tokens, word by word. first 1: the part is the
 * start of the text. */
static int encode_part(Encoder *e, Text part, Origin *origin, int first) {
    Words w = { part, origin, NULL, 0, first };
    size_t i;
    int code = cut_text(&e->t->pipeline, &w, e->pool);
    e->origin = w.origin;
    e->normal = w.text.length;
    for (i = 0; i < w.words && !code; i++)
        code = e->t->pipeline.encode(e, w.text.text, w.word[i].from, w.word[i].to - w.word[i].from);
    return code;
}

/* Encodes the normal form of s, and the added tokens that are found in it. */
static int encode(Encoder *e, Text s) {
    size_t i, from = (size_t)(s.text - e->start);
    int first = e->first && s.text == e->start, lost, id, code;
    Origin *origin = NULL;
    Parts parts;
    Text part;
    if (e->span) {
        origin = pool_take(e->pool, s.length + 1, sizeof *origin);
        if (!origin) return E_MEMORY;
        for (i = 0; i <= s.length; i++) {
            origin[i].from = from + i;
            origin[i].to = from + i + (i < s.length);
        }
    }
    code = run_steps(e->t, &s, &origin, &lost, e->pool);
    if (code) return code;
    begin_parts(&parts, e->t, e->plain ? NULL : &e->t->cut[1], s);
    while (!code && next_part(&parts, &part, &id)) {
        size_t at = (size_t)(part.text - s.text);
        if (id < 0) code = encode_part(e, part, origin ? origin + at : NULL, first && !at && !lost);
        else {
            if (origin) {
                TokenSpan *span = &e->span[e->count];
                span->from = origin[at].from;
                span->to = origin[parts.at - 1].to;
                span->exact = 1;
            }
            e->ids[e->count++] = id;
        }
    }
    return code;
}

/* ==============================================================================================
 * Decoding, and the kinds
 * ============================================================================================== */

/* Decodes without a decoder: writes the pieces with a space between two of them. */
static size_t decode_apart(const Tokenizer *t, const Ids *ids, char *out, char *bytes) {
    size_t at = 0;
    int i, some = 0;
    (void)bytes;
    for (i = 0; i < ids->count; i++) {
        Text s = shown_text(t, ids->id[i]);
        int type = t->piece[ids->id[i]].type;
        if (!ids->all && (type == PIECE_CONTROL || type == PIECE_UNKNOWN)) continue;
        if (some) at = append_text(out, at, " ", 1);
        at = append_text(out, at, s.text, s.length);
        some = 1;
    }
    return at;
}

static size_t decode(const Tokenizer *t, const Ids *ids, char *out, char *bytes) {
    switch (t->pipeline.decoder) {
    case DECODE_BYTES: return decode_bytes(t, ids, out, bytes);
    case DECODE_JOINED: return decode_joined(t, ids, out, bytes);
    case DECODE_WORDS: return decode_words(t, ids, out, bytes);
    default: return decode_apart(t, ids, out, bytes);
    }
}

static const char *class_name(const Tokenizer *t) { (void)t; return "PreTrainedTokenizerFast"; }

/* Refuses an add_prefix_space in tokenizer_config.json that would change the pre-tokenizers. */
static int configure(Tokenizer *t, const Json *config, Error *err) {
    const Json *prefix = json_get(config, "add_prefix_space");
    int has = t->bytelevel.prefix_space;
    if (t->kind->family != TOKENIZER_BYTELEVEL || !json_is_bool(prefix) || !class_counts(t, config) ||
        json_bool(config, "add_prefix_space", has) == has) return OK;
    return fail(err, E_UNSUPPORTED, "\"add_prefix_space\" is not supported with these pre_tokenizers",
                "tokenizer_config.json", 0, 0);
}

const TokenizerKind pipeline_unigram_kind = {
    TOKENIZER_SENTENCEPIECE, measure, encode, NULL, decode, is_unigram_word, normal_form, class_name, NULL
};
const TokenizerKind pipeline_bytes_kind = {
    TOKENIZER_BYTELEVEL, measure, encode, NULL, decode, bytelevel_is_word, normal_form, class_name, configure
};
const TokenizerKind pipeline_characters_kind = {
    TOKENIZER_SENTENCEPIECE, measure, encode, NULL, decode, is_characters_word, normal_form, class_name, NULL
};
const TokenizerKind pipeline_wordpiece_kind = {
    TOKENIZER_WORDPIECE, measure, encode, NULL, decode, NULL, normal_form, class_name, NULL
};

void pipeline_model(Tokenizer *t, const TokenizerKind *kind) {
    t->kind = kind;
    t->added_normal = 1;
    t->pipeline.encode = kind == &pipeline_unigram_kind ? encode_unigram :
                         kind == &pipeline_bytes_kind ? bytelevel_encode_word :
                         kind == &pipeline_characters_kind ? encode_characters : encode_wordpiece;
}
