/* text/sentencepiece.c - encodes and decodes as SentencePiece does: turns a text into its normal form, in
 *          which U+2581 stands for a space, and the normal form into pieces, by merging or by the unigram
 *          model. Does the same for Llama's tokenizer.json, with a list of merges.
 * Source   Kudo & Richardson 2018; the sentencepiece library; Hugging Face's BPE with byte_fallback.
 * Needs    core.c, text/{unicode,pieces,added,normal,bpe,unigram,encoder}.c.
 * Never    looks for special tokens in a text, except for those that text/beside.c has added to
 *          the vocabulary.
 * Edges    unknown characters (they become the pieces of their bytes, or one unknown piece for several in a
 *          row), unused pieces (they are split again), a character that goes on past the end of its part. */
#include "text.h"

/* ==============================================================================================
 * Ids of pieces
 * ============================================================================================== */

/* Sets the spans of the ids from number `first` on, which put_span made of the bytes [at, at + n) of the
 * normal form: one id, or one for each byte, or none. None: an unknown piece was joined to the one before
 * it, whose span grows. */
static void trace(Encoder *e, int first, size_t at, size_t n) {
    int k;
    if (e->count == first + 1) set_span(e, first, at, at + n, 1);
    else if (e->count > first)
        for (k = first; k < e->count; k++, at++) set_span(e, k, at, at + 1, 1);
    else if (first) {
        TokenSpan before = e->span[first - 1];
        set_span(e, first - 1, at, at + n, before.exact);
        e->span[first - 1].from = before.from;
    }
}

/* Appends piece `id`, which covers the bytes [at, at + n) of the normal form. An unknown piece becomes the
 * pieces of its bytes (with byte_fallback), or is joined to an unknown piece just before it. */
static void put_span(Encoder *e, int id, size_t at, size_t n) {
    const Tokenizer *t = e->t;
    const char *s = e->merger.text + at;
    int first = e->count;
    size_t i;
    if (id != t->special.unk) e->ids[e->count++] = id;
    else if (t->sentencepiece.byte_fallback)
        for (i = 0; i < n; i++) e->ids[e->count++] = t->byte_id[(unsigned char)s[i]];
    else if (!first || e->ids[first - 1] != id) e->ids[e->count++] = id;
    if (e->span) trace(e, first, at, n);
}

/* Appends the piece of a symbol that will not merge further: the bytes [at, at + n) of the normal form. */
static void put_symbol(Encoder *e, size_t at, size_t n) {
    int id = find_piece(e->t, e->merger.text + at, n);
    put_span(e, id < 0 ? e->t->special.unk : id, at, n);
}

/* Appends the pieces of the symbol text[from..to). An unused piece is split into the two symbols that it
 * was merged from; these may be split in turn. The heap is empty now; its memory is a stack of the ends
 * that are left to do. */
static void put_unused(Encoder *e, size_t from, size_t to) {
    const Merger *m = &e->merger;
    Candidate *stack = m->heap;
    int depth = 0;
    for (;;) {
        int id = find_piece(m->t, m->text + from, to - from);
        if (id >= 0 && m->t->piece[id].type == PIECE_UNUSED && m->split[id]) {
            stack[depth++].length = (uint32_t)to;
            to = from + m->split[id];
            continue;
        }
        put_symbol(e, from, to - from);
        if (!depth) return;
        from = to;
        to = stack[--depth].length;
    }
}

/* ==============================================================================================
 * Parts of a normal form, mostly words; no piece crosses the ends of a part
 * ============================================================================================== */
void note_touch(SentencePiece *s, const Piece *p) {
    size_t i;
    for (i = 1; i < p->length; i++) {
        unsigned pair = (unsigned)(unsigned char)p->text[i - 1] << 8 | (unsigned char)p->text[i];
        s->touch[pair / 8] |= (unsigned char)(1u << pair % 8);
    }
}

/* Returns 1 if some piece may cross the border between s[-1] and s[0]. */
static int may_touch(const SentencePiece *p, const char *s) {
    unsigned pair = (unsigned)(unsigned char)s[-1] << 8 | (unsigned char)s[0];
    if (p->split_blanks && *s == *BLANK && !memcmp(s, BLANK, BLANK_LENGTH)) return 0;
    return p->touch[pair / 8] >> pair % 8 & 1;
}

/* the most bytes of a character; the last character of a part may end past the end of the part */
enum { CHARACTER = 4 };

/* Makes symbols of one character. Without a list of merges: one symbol, whose text counts. With a list: one
 * symbol with the character's id, or, if it has no id, one for each byte with the byte's id. frozen 1: the
 * symbol never merges. */
static void put_symbols(Merger *m, size_t at, size_t length, int frozen) {
    const Tokenizer *t = m->t;
    int id = frozen ? SYMBOL_FROZEN : t->bpe.merge ? table_find(&t->ordinary, m->text + at, length) : -1;
    size_t i, parts = t->bpe.merge && id < 0 ? length : 1;
    for (i = 0; i < parts; i++) {
        Symbol *s = &m->symbol[m->symbols++];
        s->at = (uint32_t)(at + i);
        s->length = (uint32_t)(parts > 1 ? 1 : length);
        s->id = t->bpe.merge && id < 0 ? t->byte_id[(unsigned char)m->text[at + i]] : id;
    }
}

/* Makes symbols of the characters of the bytes [at, end) of the normal form, and merges them. A user-defined
 * piece is one symbol that never merges. Returns the index where the last character ends; it may be past
 * `end`, but not past `to`. */
static size_t merge_text(Merger *m, size_t at, size_t end, size_t to) {
    size_t k;
    for (m->symbols = 0; at < end; at += k) {
        int32_t character;
        size_t user = user_prefix(&m->t->normal, m->text + at, to - at);
        k = user ? user : (size_t)utf8_decode(m->text + at, to - at, &character);
        put_symbols(m, at, k, user > 0);
    }
    merge_symbols(m);
    return at;
}

/* Encodes the part [at, end) by merging. Returns the index where its last character ends (see merge_text),
 * or 0 without memory. */
static size_t encode_merging(Encoder *e, size_t at, size_t end, size_t to) {
    const Tokenizer *t = e->t;
    Merger *m = &e->merger;
    int i;
    if (merger_room(m, end - at + CHARACTER, e->pool)) return 0;
    at = merge_text(m, at, end, to);
    for (i = 0; i >= 0 && i < m->symbols; i = m->symbol[i].next) {
        const Symbol *s = &m->symbol[i];
        if (t->bpe.merge) put_one(e, s->id, s->at, s->at + s->length);
        else if (t->bpe.unused) put_unused(e, s->at, s->at + s->length);
        else put_symbol(e, s->at, s->length);
    }
    return at;
}

/* Encodes the bytes [at, to) of the normal form by merging, part by part. If there are unused pieces there is
 * only one part, because how they are split depends on the whole text. OK or E_MEMORY. */
static int encode_bpe(Encoder *e, size_t at, size_t to) {
    const Tokenizer *t = e->t;
    const char *text = e->merger.text;
    while (at < to) {
        size_t end = t->bpe.unused ? to : at + 1;
        int id;
        while (end < to && (((unsigned char)text[end] & 0xC0) == 0x80 ||
                            may_touch(&t->sentencepiece, text + end))) end++;
        id = t->bpe.unused ? -1 : known_word(t, text + at, end - at);
        if (id >= 0) {
            put_one(e, id, at, end);
            at = end;
        } else if (!(at = encode_merging(e, at, end, to))) return E_MEMORY;
    }
    return OK;
}

/* Encodes the part [at, end) by the unigram model: reverses the links of the best path, then follows
 * them. OK or E_MEMORY. */
static int encode_path(Encoder *e, size_t at, size_t end) {
    size_t n = end - at, i, from, next;
    BestPiece *best;
    if (best_room(&e->paths, n, e->pool)) return E_MEMORY;
    best = e->paths.best;
    best[0].score = e->paths.total;
    unigram_best(&e->t->unigram, e->merger.text + at, n, best, -1);
    e->paths.total = best[n].score;
    /* best[i].from becomes the end of the piece that begins at i */
    for (i = n, next = 0; i; next = i, i = from) {
        from = best[i].from;
        best[i].from = (uint32_t)next;
    }
    for (i = 0, from = next; from; i = from, from = best[from].from)
        put_span(e, best[from].id, at + i, from - i);
    return OK;
}

/* Encodes the bytes [at, to) of the normal form by the unigram model, part by part. The score of a part's
 * paths begins with the score of all parts before it, because its rounding decides between paths that are
 * equal otherwise. OK or E_MEMORY. */
static int encode_unigram(Encoder *e, size_t at, size_t to) {
    const Tokenizer *t = e->t;
    const char *text = e->merger.text;
    size_t end;
    int id;
    for (e->paths.total = 0; at < to; at = end) {
        end = at + unigram_character(text + at, to - at);
        while (end < to && may_touch(&t->sentencepiece, text + end))
            end += unigram_character(text + end, to - end);
        id = known_word(t, text + at, end - at);
        if (id >= 0 && unigram_margin(&t->unigram, id, end - at, e->paths.total)) {
            put_one(e, id, at, end);
            e->paths.total = (f32)((double)t->piece[id].score + e->paths.total);
        } else if (encode_path(e, at, end)) return E_MEMORY;
    }
    return OK;
}

/* ==============================================================================================
 * A text between added tokens
 * ============================================================================================== */

/* Bounds the number of ids by the number of bytes: a symbol has at least one byte, and an unknown
 * symbol becomes its bytes. */
static int measure(Encoder *e, Text s) {
    size_t n = normal_bound(&e->t->normal, s);
    e->bound += n;
    if (n > e->widest) e->widest = n;
    return OK;
}

/* Turns the n origins from offsets in the part s into offsets in the whole text. */
static void text_origins(Encoder *e, Text s, size_t n) {
    size_t i, from = (size_t)(s.text - e->start);
    for (i = 0; i < n; i++) { e->origin[i].from += from; e->origin[i].to += from; }
    e->normal = n;
    e->origin[n].from = from + s.length;
}

/* Encodes the normal form of s, and the added tokens that are found in it. OK or E_MEMORY. */
static int encode_text(Encoder *e, Text s) {
    const Tokenizer *t = e->t;
    int prefix = wants_prefix(&t->normal, s, e->first && s.text == e->start), id, code = OK;
    Text normal = { e->scratch, normalise(&t->normal, s, prefix, e->scratch, e->origin) }, part;
    Parts parts;
    if (e->span) text_origins(e, s, normal.length);
    begin_parts(&parts, t, t->added_normal && !e->plain ? &t->cut[1] : NULL, normal);
    while (!code && next_part(&parts, &part, &id)) {
        size_t from = (size_t)(part.text - e->scratch);
        if (id >= 0) put_one(e, id, from, parts.at);
        else code = t->kind->encode_normal(e, from, from + part.length);
    }
    return code;
}

static int normal_form(const Tokenizer *t, Text *text, Pool *pool) {
    Text made = { NULL, normalise(&t->normal, *text, 1, NULL, NULL) };
    char *out = pool_take(pool, made.length + 1, 1);
    if (!out) return E_MEMORY;
    made.length = normalise(&t->normal, *text, 1, out, NULL);
    made.text = out;
    *text = made;
    return OK;
}

static int is_merged_word(Encoder *e, int id, Text *text, Pool *pool) {
    Merger *m = &e->merger;
    (void)pool;
    if (e->t->piece[id].type != PIECE_NORMAL || merger_room(m, text->length + CHARACTER, e->pool)) return 0;
    if (!e->t->bpe.merge && find_piece(e->t, text->text, text->length) != id) return 0;
    m->text = text->text;
    merge_text(m, 0, text->length, text->length);
    return merged_whole(m, text->length, id);
}

/* Returns 1 if every other segmentation of the piece is worse; u->margin[id]: by how much. */
static int is_best_word(Encoder *e, int id, Text *text, Pool *pool) {
    const Unigram *u = &e->t->unigram;
    const Piece *p = &e->t->piece[id];
    BestPiece *best;
    (void)pool;
    if (best_room(&e->paths, text->length, e->pool) || p->type != PIECE_NORMAL) return 0;
    best = e->paths.best;
    best[0].score = 0;
    unigram_best(u, text->text, text->length, best, id);
    u->margin[id] = p->score - best[text->length].score;
    return u->margin[id] > 0;
}

/* ==============================================================================================
 * Decoding
 * ============================================================================================== */

/* Appends a piece, with `space` spaces (0 or 1) for each U+2581 in it. */
static size_t put_spaced(char *out, size_t at, Text s, size_t space) {
    size_t k = 0;
    while (k < s.length)
        if (starts_with(s.text + k, s.length - k, BLANK, BLANK_LENGTH)) {
            at = append_text(out, at, " ", space);
            k += BLANK_LENGTH;
        } else at = append_text(out, at, s.text + k++, 1);
    return at;
}

/* Decodes as the sentencepiece library does. Leaves out control pieces; byte pieces are the bytes of
 * characters. Removes the space of the dummy prefix from the first piece (if the normaliser removes extra
 * spaces: one space from each piece at the start). bytes: the current run of byte pieces. */
static size_t decode_pieces(const Tokenizer *t, const Ids *ids, char *out, char *bytes) {
    const Normal *m = &t->normal;
    const Text *unknown = &t->sentencepiece.unk_surface;
    Text run = { bytes, 0 };
    size_t at = 0;
    int i, start = 1, stripped = 0;
    for (i = 0; i < ids->count; i++) {
        const Piece *p = &t->piece[ids->id[i]];
        Text s = { p->text, p->length };
        if (p->type == PIECE_BYTE) { bytes[run.length++] = (char)byte_of_piece(p); continue; }
        at = append_valid(out, at, run, 1);
        run.length = 0;
        if (stripped || at) start = 0;
        stripped = 0;
        if (p->type == PIECE_ADDED || (p->type == PIECE_CONTROL && ids->all))
            at = append_text(out, at, s.text, s.length);
        if (p->type == PIECE_ADDED || p->type == PIECE_CONTROL) continue;
        if (p->type == PIECE_UNKNOWN) { at = append_text(out, at, unknown->text, unknown->length); continue; }
        if (start && (m->add_dummy_prefix || m->remove_extra_whitespaces) &&
            starts_with(s.text, s.length, BLANK, BLANK_LENGTH)) {
            s.text += BLANK_LENGTH; s.length -= BLANK_LENGTH;
            stripped = !m->remove_extra_whitespaces;
        }
        at = put_spaced(out, at, s, 1);
    }
    return append_valid(out, at, run, 1);
}

/* Appends a run of bytes: as they are if all of them are well-formed UTF-8, else U+FFFD for each. */
static size_t put_run(char *out, size_t at, Text s) {
    size_t i, length;
    int32_t code = 0;
    for (i = 0; i < s.length && code >= 0; i += length)
        length = (size_t)utf8_decode(s.text + i, s.length - i, &code);
    if (code >= 0) return append_text(out, at, s.text, s.length);
    for (i = 0; i < s.length; i++) at = append_text(out, at, BAD_CHARACTER, 3);
    return at;
}

/* Decodes as the usual decoder of tokenizer.json does: joins all pieces, then removes one space at the start
 * (`strip`). With `bare_first` (Metaspace), writes no space for a U+2581 of the first piece. */
size_t decode_joined(const Tokenizer *t, const Ids *ids, char *out, char *bytes) {
    Text run = { bytes, 0 };
    size_t at = 0;
    int i, bare = t->sentencepiece.bare_first;
    for (i = 0; i < ids->count; i++) {
        const Piece *p = &t->piece[ids->id[i]];
        Text s = shown_text(t, ids->id[i]);
        if (!ids->all && (p->type == PIECE_CONTROL || p->type == PIECE_UNKNOWN)) continue;
        if (p->type == PIECE_BYTE) { bytes[run.length++] = (char)byte_of_piece(p); continue; }
        at = put_run(out, at, run);
        run.length = 0;
        at = put_spaced(out, at, s, (size_t)!bare);
        bare = 0;
    }
    at = put_run(out, at, run);
    if (!t->sentencepiece.strip || !at || out[0] != ' ') return at;
    memmove(out, out + 1, at - 1);
    return at - 1;
}

/* ==============================================================================================
 * The kinds
 * ============================================================================================== */
static const char *llama_name(const Tokenizer *t) { (void)t; return "LlamaTokenizer"; }

static const char *unigram_name(const Tokenizer *t) {
    return !t->after ? "LlamaTokenizer" : t->before ? "AlbertTokenizer" : "T5Tokenizer";
}

/* Applies "legacy" and "add_prefix_space" to a SentencePiece model. */
static int configure(Tokenizer *t, const Json *config, Error *err) {
    const Json *prefix = json_get(config, "add_prefix_space");
    if (json_is_bool(prefix)) t->asked_prefix = json_bool(config, "add_prefix_space", 1);
    if (!t->asked_prefix) t->normal.add_dummy_prefix = 0;
    if (json_bool(config, "legacy", 1)) return OK;
    if (t->normal.remove_extra_whitespaces)
        return fail(err, E_UNSUPPORTED, "\"legacy\": false with a model that removes extra white space",
                    "tokenizer_config.json", 0, 0);
    t->normal.only_first = 1;
    return OK;
}

const TokenizerKind sentencepiece_bpe_kind = {
    TOKENIZER_SENTENCEPIECE, measure, encode_text, encode_bpe, decode_pieces, is_merged_word, normal_form,
    llama_name, configure
};
const TokenizerKind sentencepiece_unigram_kind = {
    TOKENIZER_SENTENCEPIECE, measure, encode_text, encode_unigram, decode_pieces, is_best_word, normal_form,
    unigram_name, configure
};
const TokenizerKind fallback_kind = {
    TOKENIZER_SENTENCEPIECE, measure, encode_text, encode_bpe, decode_joined, is_merged_word, normal_form,
    llama_name, NULL
};
