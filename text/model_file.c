/* text/model_file.c - reads SentencePiece's tokenizer.model, a protocol buffer, and writes it for
 *          models trained here.
 * Source   sentencepiece_model.proto and the wire format of protocol buffers; the checks are those of the
 *          sentencepiece library.
 * Needs    core.c, text/{pieces,normal,unigram,encoder,sentencepiece}.c.
 * Edges    fields with an unknown number or an unexpected wire type (skipped), a file cut short, pieces that
 *          are empty or come twice, denormalisers and models of words or characters (refused by name). */
#include "text.h"

static const char model[] = "SentencePiece model";      /* the place that errors name */

/* ==============================================================================================
 * Protocol buffers
 * ============================================================================================== */
enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };
typedef struct { uint64_t number; int wire; uint64_t value; Reader body; } Field;

static uint64_t read_varint(Reader *r) {
    uint64_t v = 0;
    int shift;
    for (shift = 0; shift < 70; shift += 7) {
        unsigned b = read_u8(r);
        if (shift < 64) v |= (uint64_t)(b & 127) << shift;
        if (b < 128) return v;
    }
    r->bad = 1;                             /* the number has more than ten bytes */
    return 0;
}

/* Reads the next field of a message, of any wire type. Returns 0 at the end, or if the bytes are bad
 * (then r->bad is 1). */
static int next_field(Reader *r, Field *f) {
    uint64_t key;
    const unsigned char *p;
    if (r->bad || r->at == r->end) return 0;
    key = read_varint(r);
    f->number = key >> 3;
    f->wire = (int)(key & 7);
    f->value = 0;
    f->body.at = f->body.end = NULL; f->body.bad = 0;
    switch (f->wire) {
    case VARINT: f->value = read_varint(r); break;
    case FIXED64: f->value = read_u64(r); break;
    case FIXED32: f->value = read_u32(r); break;
    case BYTES:
        f->value = read_varint(r);
        p = read_bytes(r, f->value);
        if (p) { f->body.at = p; f->body.end = p + f->value; }
        break;
    default: r->bad = 1;
    }
    if (!f->number || f->number > 0x1FFFFFFF) r->bad = 1;
    return !r->bad;
}

static f32 f32_of_bits(uint32_t bits) { f32 x; memcpy(&x, &bits, sizeof x); return x; }
static uint32_t bits_of_f32(f32 x) { uint32_t bits; memcpy(&bits, &x, sizeof bits); return bits; }

/* Returns 1 if the field has this number and this wire type. A known number with another wire type is an
 * unknown field: it is skipped, as usual in protocol buffers. */
static int field_is(const Field *f, uint64_t number, int wire) {
    return f->number == number && f->wire == wire;
}
static Text field_text(const Field *f) {
    Text t;
    t.text = (const char *)f->body.at; t.length = (size_t)f->value;
    return t;
}

/* ==============================================================================================
 * Reading
 * ============================================================================================== */
typedef struct { int type; Text bos, eos, pad; } Trainer;   /* type: 1 unigram, 2 BPE, 3 word, 4 char */

static int parse_piece(Reader r, Piece *p) {
    Field f;
    p->text = NULL; p->length = 0; p->score = 0; p->type = PIECE_NORMAL;
    while (next_field(&r, &f)) {
        if (field_is(&f, 1, BYTES)) { p->text = (const char *)f.body.at; p->length = (size_t)f.value; }
        else if (field_is(&f, 2, FIXED32)) p->score = f32_of_bits((uint32_t)f.value);
        else if (field_is(&f, 3, VARINT) && f.value >= PIECE_NORMAL && f.value <= PIECE_BYTE)
            p->type = (int)f.value;
    }
    return !r.bad;
}

static int parse_trainer(Reader r, Tokenizer *t, Trainer *trainer) {
    Field f;
    while (next_field(&r, &f)) {
        int name = f.wire == BYTES && f.value;
        if (field_is(&f, 3, VARINT) && f.value >= 1 && f.value <= 4) trainer->type = (int)f.value;
        else if (field_is(&f, 24, VARINT)) t->normal.whitespace_suffix = f.value != 0;
        else if (field_is(&f, 35, VARINT)) t->sentencepiece.byte_fallback = f.value != 0;
        else if (field_is(&f, 44, BYTES)) t->sentencepiece.unk_surface = field_text(&f);
        else if (name && f.number == 46) trainer->bos = field_text(&f);
        else if (name && f.number == 47) trainer->eos = field_text(&f);
        else if (name && f.number == 48) trainer->pad = field_text(&f);
    }
    return !r.bad;
}

/* Reads the flags of a normaliser into m. *rules: the bytes of its rules, if it has any. Returns 0
 * if its bytes are bad. */
static int parse_normalizer(Reader r, Normal *m, Text *rules) {
    Field f;
    while (next_field(&r, &f)) {
        if (field_is(&f, 2, BYTES)) *rules = field_text(&f);
        else if (field_is(&f, 3, VARINT)) m->add_dummy_prefix = f.value != 0;
        else if (field_is(&f, 4, VARINT)) m->remove_extra_whitespaces = f.value != 0;
        else if (field_is(&f, 5, VARINT)) m->escape_whitespaces = f.value != 0;
    }
    return !r.bad;
}

/* Checks one piece as the sentencepiece library does, then adds it to the tables. OK or *err. */
static int add_piece(Tokenizer *t, int id, Pool *pool, Error *err) {
    const Piece *p = &t->piece[id];
    Text text = { p->text, p->length };
    int ordinary = p->type == PIECE_NORMAL || p->type == PIECE_USER_DEFINED || p->type == PIECE_UNUSED;
    Table *table = ordinary ? &t->ordinary : &t->reserved;
    if (!p->length) return fail_at(err, E_FORMAT, "a piece is empty", "SentencePiece model, piece %d", id);
    if (p->score != p->score)
        return fail_piece(err, E_NUMBER, "the score of a piece is not a number", text, 0, 0);
    if (table_find(table, p->text, p->length) >= 0)
        return fail_piece(err, E_FORMAT, "a piece is defined twice", text, 0, 0);
    if (p->type == PIECE_UNKNOWN) {
        if (t->special.unk >= 0) return fail_piece(err, E_FORMAT, "there are two unknown pieces", text, 0, 0);
        t->special.unk = id;
    } else if (p->type == PIECE_BYTE) {
        int byte = byte_of_piece(p);
        if (!t->sentencepiece.byte_fallback)
            return fail_piece(err, E_FORMAT, "a byte piece without byte_fallback", text, 0, 0);
        if (byte < 0) return fail_piece(err, E_FORMAT, "not a byte piece", text, 0, 0);
        t->byte_id[byte] = id;
    } else if (p->type == PIECE_USER_DEFINED) t->normal.users++;
    else if (p->type == PIECE_UNUSED && t->kind == &sentencepiece_bpe_kind) t->bpe.unused = 1;
    if (p->length > t->longest) t->longest = p->length;
    if (ordinary) note_touch(&t->sentencepiece, p);
    return table_add(table, pool, p->text, p->length, id) ? no_memory(err, model) : OK;
}

/* Adds all pieces to the tables, and the user-defined pieces to a sorted list, in which
 * user_prefix looks. OK or *err. */
static int index_pieces(Tokenizer *t, Pool *pool, Error *err) {
    Normal *m = &t->normal;
    int i, n = 0;
    for (i = 0; i < t->V; i++) { int code = add_piece(t, i, pool, err); if (code) return code; }
    if (t->special.unk < 0) return fail(err, E_MISSING, "there is no unknown piece", model, 0, 0);
    for (i = 0; i < 256 && t->sentencepiece.byte_fallback; i++)
        if (t->byte_id[i] < 0)
            return fail_at(err, E_MISSING, "byte_fallback without a piece for each byte",
                           "SentencePiece model, byte %d", i);
    if (!m->users) return OK;
    m->user = pool_take(pool, (size_t)m->users, sizeof *m->user);
    if (!m->user) return no_memory(err, model);
    for (i = 0; i < t->V; i++) if (t->piece[i].type == PIECE_USER_DEFINED) m->user[n++] = t->piece[i];
    qsort(m->user, (size_t)n, sizeof *m->user, compare_pieces);
    return OK;
}

/* Reads all fields of the model except for the pieces; *pieces: their number. OK or *err. */
static int parse_specs(Tokenizer *t, Trainer *trainer, Reader r, size_t *pieces, Error *err) {
    Field f;
    Text rules = { NULL, 0 }, back = { NULL, 0 };
    Normal unused;                          /* the flags of the denormaliser, which are ignored */
    while (next_field(&r, &f)) {
        int good = 1;
        if (field_is(&f, 1, BYTES)) ++*pieces;
        else if (field_is(&f, 2, BYTES)) good = parse_trainer(f.body, t, trainer);
        else if (field_is(&f, 3, BYTES)) good = parse_normalizer(f.body, &t->normal, &rules);
        else if (field_is(&f, 5, BYTES)) good = parse_normalizer(f.body, &unused, &back);
        if (!good) return fail(err, E_FORMAT, "bad bytes in the specifications", model, 0, 0);
    }
    if (r.bad || !*pieces) return fail(err, E_FORMAT, "not a SentencePiece model, or cut short", model, 0, 0);
    if (trainer->type == 3) return fail(err, E_UNSUPPORTED, "SentencePiece model_type word", model, 0, 0);
    if (trainer->type == 4) return fail(err, E_UNSUPPORTED, "SentencePiece model_type char", model, 0, 0);
    t->kind = trainer->type == 1 ? &sentencepiece_unigram_kind : &sentencepiece_bpe_kind;
    if (back.length) return fail(err, E_UNSUPPORTED, "denormalizer_spec", model, 0, 0);
    if (*pieces > INT_MAX / 2) return fail(err, E_RANGE, "too many pieces", model, 0, 0);
    return normal_rules(&t->normal, rules, model, err);
}

static int parse_model(Tokenizer *t, Trainer *trainer, Pool *pool, Error *err) {
    Reader r;
    Field f;
    size_t pieces = 0;
    int code;
    r.at = (const unsigned char *)t->file[0].bytes; r.end = r.at + t->file[0].length; r.bad = 0;
    code = parse_specs(t, trainer, r, &pieces, err);
    if (code) return code;
    t->V = (int)pieces;
    t->piece = pool_take(pool, pieces, sizeof *t->piece);
    if (!t->piece) return no_memory(err, model);
    for (pieces = 0; next_field(&r, &f); )
        if (field_is(&f, 1, BYTES) && !parse_piece(f.body, &t->piece[pieces++]))
            return fail_at(err, E_FORMAT, "bad bytes in a piece", "SentencePiece model, piece %d",
                           (int)pieces - 1);
    return index_pieces(t, pool, err);
}

/* Builds the unigram model of the pieces. OK or *err. */
static int make_unigram(Tokenizer *t, Pool *pool, Error *err) {
    Unigram *u = &t->unigram;
    int i;
    if (unigram_build(u, t->piece, t->V, t->special.unk, pool)) return no_memory(err, model);
    u->margin = pool_take(pool, (size_t)t->V, sizeof *u->margin);
    if (!u->margin) return no_memory(err, model);
    u->largest = (f32)fabs(u->unk_score);
    for (i = 0; i < t->V; i++)
        if (t->piece[i].type == PIECE_NORMAL && fabs(t->piece[i].score) > u->largest)
            u->largest = (f32)fabs(t->piece[i].score);
    return OK;
}

static int control_id(const Tokenizer *t, Text name) {
    int id = find_token(t, name.text, name.length);
    return id >= 0 && t->piece[id].type == PIECE_CONTROL ? id : -1;
}

Tokenizer *tokenizer_sentencepiece(const void *bytes, size_t n, Pool *pool, Error *err) {
    Tokenizer *t = new_tokenizer(&sentencepiece_unigram_kind, pool);
    Trainer trainer = { 1, { "<s>", 3 }, { "</s>", 4 }, { "<pad>", 5 } };
    static const Text surface = { " \xe2\x81\x87 ", 5 };
    int unigram;
    if (!t || !tokenizer_keep(t, "tokenizer.model", bytes, n, pool)) { no_memory(err, model); return NULL; }
    /* the values of fields that the file lacks */
    t->normal.add_dummy_prefix = t->normal.remove_extra_whitespaces = t->normal.escape_whitespaces = 1;
    t->sentencepiece.unk_surface = surface;
    if (parse_model(t, &trainer, pool, err)) return NULL;
    normal_plain(&t->normal);
    unigram = t->kind == &sentencepiece_unigram_kind;
    if ((unigram && make_unigram(t, pool, err)) || index_words(t, pool, err)) return NULL;
    t->special.bos = control_id(t, trainer.bos);
    t->special.eos = control_id(t, trainer.eos);
    t->special.pad = control_id(t, trainer.pad);
    t->before = t->special.bos >= 0;
    /* T5 (which has no bos) and ALBERT (whose bos is [CLS]) put eos after a text. */
    t->after = unigram && t->special.eos >= 0 && (!t->before || t->special.bos == find_token(t, "[CLS]", 5));
    return t;
}

/* ==============================================================================================
 * Writing
 * ============================================================================================== */
static void put_varint(Buffer *b, uint64_t v) {
    for (; v >= 128; v >>= 7) buffer_u8(b, (unsigned)(v & 127) | 128);
    buffer_u8(b, (unsigned)v);
}

static void put_number(Buffer *b, unsigned number, uint64_t v) {
    put_varint(b, number << 3 | VARINT);
    put_varint(b, v);
}

static void put_piece(Buffer *b, const char *text, size_t n, f32 score, int type) {
    size_t digits = n < 128 ? 1 : 2;        /* the bytes of n as a varint; n is at most 64 */
    put_varint(b, 1 << 3 | BYTES);
    put_varint(b, 1 + digits + n + 5 + (type == PIECE_NORMAL ? 0 : 2));
    put_varint(b, 1 << 3 | BYTES);
    put_varint(b, n);
    buffer_bytes(b, text, n);
    put_varint(b, 2 << 3 | FIXED32);
    buffer_u32(b, bits_of_f32(score));
    if (type != PIECE_NORMAL) put_number(b, 3, (uint64_t)type);
}

/* Appends the message `spec` to b, as field `number`, then empties spec. */
static void put_spec(Buffer *b, unsigned number, Buffer *spec) {
    put_varint(b, number << 3 | BYTES);
    put_varint(b, spec->length);
    buffer_bytes(b, spec->data, spec->length);
    spec->length = 0;
}

void write_model(Buffer *b, const Piece *piece, int pieces, int type) {
    static const char *const meta[] = { "<unk>", "<s>", "</s>" };
    static const char digit[] = "0123456789ABCDEF";
    char byte[] = "<0x00>";
    Buffer spec;
    int i;
    for (i = 0; i < 3; i++) put_piece(b, meta[i], strlen(meta[i]), 0, i ? PIECE_CONTROL : PIECE_UNKNOWN);
    for (i = 0; i < 256; i++) {
        byte[3] = digit[i / 16];
        byte[4] = digit[i % 16];
        put_piece(b, byte, 6, 0, PIECE_BYTE);
    }
    for (i = 0; i < pieces; i++) put_piece(b, piece[i].text, piece[i].length, piece[i].score, PIECE_NORMAL);
    memset(&spec, 0, sizeof spec);
    spec.pool = b->pool;
    put_number(&spec, 3, (uint64_t)type);   /* model_type */
    put_number(&spec, 4, (uint64_t)(LLAMA_RESERVED + pieces));
    put_number(&spec, 25, 1);               /* split_digits */
    put_number(&spec, 35, 1);               /* byte_fallback */
    put_number(&spec, 40, 0);               /* unk_id */
    put_number(&spec, 41, 1);               /* bos_id */
    put_number(&spec, 42, 2);               /* eos_id */
    put_number(&spec, 43, UINT64_MAX);      /* pad_id: -1, there is none */
    put_spec(b, 2, &spec);
    put_varint(&spec, 1 << 3 | BYTES);
    put_varint(&spec, 8);
    buffer_text(&spec, "identity");
    put_number(&spec, 3, 1);                /* add_dummy_prefix */
    put_number(&spec, 4, 0);                /* remove_extra_whitespaces */
    put_number(&spec, 5, 1);                /* escape_whitespaces */
    put_spec(b, 3, &spec);
    if (spec.failed) b->failed = 1;
}
