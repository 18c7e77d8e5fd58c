/* tokenizer.c - turns text into ids and back: one interface to the kinds in text/ (SentencePiece: the BPE of
 *          Llama, the unigram model of T5; byte-level BPE: GPT-2, RoBERTa, Llama-3; WordPiece: BERT).
 * Source   See the file of each kind. The rules are those of Hugging Face's tokenizers and of the
 *          sentencepiece library, quirks included.
 * Needs    core.c, text/{unicode,pieces,added,encoder}.c. This file names no kind: it calls a kind through
 *          the table of functions that the tokenizer's opener put into it. So a program links only with the
 *          kinds whose openers it calls.
 * Memory   A tokenizer is wholly in the caller's pool. Encoding takes scratch from the pool, which keeps its
 *          blocks for later use.
 * Never    looks for special tokens in a text by itself: text/beside.c makes them added tokens when a folder
 *          or a file is opened. tokenizer_encode_plain looks for no added token at all.
 * Edges    no text, malformed UTF-8, NULs, one endless word, ids that the tokenizer does not have:
 *          tests/unit/tokenizer.c. text/unicode_tables.c says which versions of Unicode are in use. */
#include "text/text.h"

/* ==============================================================================================
 * Encoding: a text is cut at its added tokens, and each text between them is encoded separately
 * ============================================================================================== */

/* Appends the id of an added token, which ends at p->text[p->at]. */
static void put_added(Encoder *e, const Parts *p, Text token, int id) {
    if (e->span) {
        TokenSpan *s = &e->span[e->count];
        s->from = (size_t)(token.text - e->start);
        s->to = (size_t)(p->text + p->at - e->start);
        s->exact = 1;
    }
    e->ids[e->count++] = id;
}

/* Measures (e->ids NULL) or encodes the parts of s. level 0: the texts between the added tokens that are
 * looked for in the text; 1: between those that are looked for in the normal form, for kinds whose normal
 * form is the text itself. OK or E_MEMORY. */
static int encode_parts(Encoder *e, Text s, int level) {
    const Tokenizer *t = e->t;
    Parts parts;
    Text part;
    int id, code = OK;
    begin_parts(&parts, t, e->plain ? NULL : &t->cut[level], s);
    while (!code && next_part(&parts, &part, &id)) {
        if (e->bound > INT_MAX / 8) return E_MEMORY;
        if (id >= 0 && e->ids) put_added(e, &parts, part, id);
        else if (id >= 0) e->bound++;
        else if (!level && !t->added_normal) code = encode_parts(e, part, 1);
        else code = e->ids ? t->kind->encode(e, part) : t->kind->measure(e, part);
    }
    return code;
}

/* Reserves memory for the spans of s (if they are wanted), for its ids, and for scratch, in this order.
 * *after: the mark after the ids. OK or E_MEMORY. */
static int encoder_room(Encoder *e, Text s, PoolMark *after) {
    Pool *pool = e->pool;
    int *ids;
    if (s.length > INT_MAX / 8 || encode_parts(e, s, 0) || e->bound > INT_MAX / 4) return E_MEMORY;
    if (e->traced) {
        e->span = pool_take(pool, e->bound + 1, sizeof *e->span);
        e->origin = pool_take(pool, e->widest + 1, sizeof *e->origin);
        if (!e->span || !e->origin) return E_MEMORY;
    }
    ids = pool_take(pool, e->bound + 1, sizeof *ids);
    *after = pool_mark(pool);
    e->scratch = pool_take(pool, e->widest + 1, 1);
    if (!ids || !e->scratch) return E_MEMORY;
    if (e->t->bpe.unused) {
        e->merger.split = pool_take(pool, (size_t)e->t->V, sizeof *e->merger.split);
        if (!e->merger.split) return E_MEMORY;
    }
    e->merger.t = e->t; e->merger.text = e->scratch;
    e->ids = ids;
    return OK;
}

static int encode(Encoder *e, Text s, int **ids, int *count) {
    PoolMark after;
    int code;
    *ids = NULL;
    *count = 0;
    e->start = s.text;
    code = encoder_room(e, s, &after);
    *ids = e->ids;
    if (!code) code = encode_parts(e, s, 0);
    if (code) return code;
    *count = e->count;
    keep_only(e->pool, after, (e->bound + 1) * sizeof **ids, (size_t)e->count * sizeof **ids);
    return OK;
}

static Encoder new_encoder(const Tokenizer *t, Pool *pool) {
    Encoder e;
    memset(&e, 0, sizeof e);
    e.t = t;
    e.pool = pool;
    e.first = 1;
    return e;
}

int tokenizer_encode(const Tokenizer *t, const char *text, size_t n, Pool *pool, int **ids, int *count) {
    Encoder e = new_encoder(t, pool);
    Text s = { text, n };
    return encode(&e, s, ids, count);
}

int tokenizer_encode_spans(const Tokenizer *t, const char *text, size_t n, Pool *pool, int **ids,
                           TokenSpan **spans, int *count) {
    Encoder e = new_encoder(t, pool);
    Text s = { text, n };
    int code;
    e.traced = 1;
    code = encode(&e, s, ids, count);
    *spans = e.span;
    return code;
}

int tokenizer_encode_plain(const Tokenizer *t, const char *text, size_t n, int first, Pool *pool, int **ids,
                           int *count) {
    Encoder e = new_encoder(t, pool);
    Text s = { text, n };
    e.plain = 1;
    e.first = first;
    return encode(&e, s, ids, count);
}

/* ==============================================================================================
 * Decoding
 * ============================================================================================== */

/* Returns 1 if a piece or an added token has the id (which is not negative). */
static int has_piece(const Tokenizer *t, int id) { return id < t->V && t->piece[id].text; }

/* Decodes the ids that the tokenizer has. A model may have more ids (a padded vocabulary): they are left out,
 * as in Hugging Face's fast tokenizers. A piece of k bytes becomes at most k + 1 bytes, or three times as
 * many if each byte becomes U+FFFD. OK, E_RANGE (an id below 0) or E_MEMORY. */
static int decode(const Tokenizer *t, Ids ids, Pool *pool, char **text, size_t *length) {
    size_t bound = 0;
    PoolMark after;
    char *bytes;
    int i, *known, n = 0;
    *text = NULL;
    *length = 0;
    for (i = 0; i < ids.count; i++) {
        size_t more = 1;
        if (ids.id[i] < 0) return E_RANGE;
        if (!has_piece(t, ids.id[i])) continue;
        more += shown_text(t, ids.id[i]).length;
        if (t->piece[ids.id[i]].type == PIECE_UNKNOWN) more += t->sentencepiece.unk_surface.length;
        if (more > (SIZE_MAX / 4 - bound)) return E_MEMORY;
        bound += more;
    }
    *text = pool_take(pool, 3 * bound + 1, 1);
    after = pool_mark(pool);
    bytes = pool_take(pool, bound + 1, 1);
    known = pool_take(pool, (size_t)ids.count + 1, sizeof *known);
    if (!*text || !bytes || !known) return E_MEMORY;
    for (i = 0; i < ids.count; i++) if (has_piece(t, ids.id[i])) known[n++] = ids.id[i];
    ids.id = known;
    ids.count = n;
    *length = t->kind->decode(t, &ids, *text, bytes);
    (*text)[*length] = 0;
    keep_only(pool, after, 3 * bound + 1, *length + 1);
    return OK;
}

int tokenizer_decode(const Tokenizer *t, const int *ids, int count, Pool *pool, char **text, size_t *length) {
    Ids list = { ids, count, 0 };
    return decode(t, list, pool, text, length);
}

int tokenizer_decode_all(const Tokenizer *t, const int *ids, int count, Pool *pool, char **text,
                         size_t *length) {
    Ids list = { ids, count, 1 };
    return decode(t, list, pool, text, length);
}

/* ==============================================================================================
 * Properties of a tokenizer
 * ============================================================================================== */
int tokenizer_size(const Tokenizer *t) { return t->V; }
int tokenizer_kind(const Tokenizer *t) { return t->kind->family; }
SpecialIds tokenizer_specials(const Tokenizer *t) { return t->special; }
const char *tokenizer_chat_template(const Tokenizer *t) { return t->chat_template; }
const char *tokenizer_class(const Tokenizer *t) { return t->kind->class_name(t); }
int tokenizer_legacy(const Tokenizer *t) { return t->json || !t->normal.only_first; }
int tokenizer_max_length(const Tokenizer *t) { return t->max_length; }
int tokenizer_prefix_space(const Tokenizer *t) { return t->asked_prefix; }
int tokenizer_asked_split(const Tokenizer *t) { return t->asked_split; }
int tokenizer_types(const Tokenizer *t) { return !t->no_types; }
int tokenizer_asked_template(const Tokenizer *t) { return t->asked_template; }
int tokenizer_find(const Tokenizer *t, const char *piece, size_t length) {
    return find_token(t, piece, length);
}

void tokenizer_split_special(Tokenizer *t) { t->split_special = 1; }

void tokenizer_template(const Tokenizer *t, int *before, int *after) {
    *before = t->before;
    *after = t->after;
}

const char *tokenizer_piece(const Tokenizer *t, int id, size_t *length) {
    int there = id >= 0 && id < t->V;
    if (length) *length = there ? t->piece[id].length : 0;
    return there ? t->piece[id].text : NULL;
}

int tokenizer_added(const Tokenizer *t, int i, AddedToken *token) {
    if (i < 0 || i >= t->addeds) return 0;
    *token = t->added[i];
    return 1;
}

const BertRules *tokenizer_bert(const Tokenizer *t) {
    return t->kind->family == TOKENIZER_WORDPIECE ? &t->wordpiece.rules : NULL;
}

int tokenizer_file(const Tokenizer *t, const char *name, Buffer *b) {
    int i;
    for (i = 0; i < t->files && strcmp(t->file[i].name, name); i++) { }
    if (i == t->files) return E_MISSING;
    buffer_bytes(b, t->file[i].bytes, t->file[i].length);
    return b->failed ? E_MEMORY : OK;
}
