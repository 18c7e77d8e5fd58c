/* tokenizer.c - text to ids and back: SentencePiece (BPE of Llama, unigram of T5), byte-level BPE (GPT-2, RoBERTa, Llama-3) and BERT's
 *          WordPiece; read, written, and (but for WordPiece) trained.
 * Source   Sennrich et al. 2016 (BPE); Radford et al. 2019 (byte-level BPE); Kudo & Richardson 2018 (SentencePiece). The
 *          formats are sentencepiece_model.proto, vocab.json + merges.txt, vocab.txt, and tokenizer.json of Hugging Face's tokenizers;
 *          the rules are those of the reference libraries, quirks included.
 * Needs    core.c, text/unicode.c, text/unigram.c, text/wordpiece.c; everything lies in the caller's pool. Training, tokenizer.json and the index of words
 *          take their scratch from the same source and give it back; encoding takes it from the pool, which keeps its blocks.
 * Never    looks for special tokens in text, except those that a file adds to the vocabulary: without such a file, "</s>" in a
 *          review is four characters, not the end of the sequence; tokenizer_encode_plain looks for none at all. Never executes a template.
 * Speed    A part of a text that no piece reaches out of (mostly a word) is looked up as a whole: most are one piece. Few symbols are merged by
 *          looking at all pairs; many wait in a heap, so that encoding n bytes takes O(n log n) at worst.
 * Edges    no text, malformed UTF-8, NULs, one endless word, symbols without a piece, unused pieces, normalisation tables, added
 *          tokens within and beside each other: tests/unit/tokenizer.c. Denormalisers, vocabularies with holes, and what else tokenizer.json
 *          may ask for are refused by name. A word character (single_word) is a letter, a number or '_'; marks are none. Unicode is
 *          version 14; Hugging Face's NFKD and StripAccents have an older one, without the marks that came since. */
#include "text/text.h"

/* ================================================================================================================
 * Cutting a text into words, as byte-level BPE does before it merges
 * ================================================================================================================ */

enum { SPACE = CHAR_SPACE, LETTER = CHAR_LETTER, NUMBER = CHAR_NUMBER, OTHER = CHAR_OTHER };

/* White_Space, \p{L}, \p{N}, or the rest; combining marks and malformed bytes (-1) belong to the rest. */
static inline int char_class(int32_t code) {
    if (code >= 'a' && code <= 'z') return LETTER;
    return unicode_class(code);
}

/* Class of the character at s (n > 0 bytes left), its length in *length. */
static inline int class_at(const char *s, size_t n, size_t *length) {
    int32_t code;
    if ((unsigned char)*s < 128) { *length = 1; return char_class(*s); }
    *length = (size_t)utf8_decode(s, n, &code);
    return char_class(code);
}

/* GPT-2's split. Length of the first piece of s (n > 0): 's 't 're 've 'm 'll 'd | ?\p{L}+ | ?\p{N}+ | ?[^\s\p{L}\p{N}]+ | \s+(?!\S) | \s+
 * where ? is one optional blank; the first alternative that matches wins. */
static size_t split_gpt2(const char *s, size_t n) {
    size_t at = 0, length, last = 0;
    int class;
    if (*s == '\'' && n > 1) {
        if (s[1] == 's' || s[1] == 't' || s[1] == 'm' || s[1] == 'd') return 2;
        if (n > 2 && (!memcmp(s + 1, "re", 2) || !memcmp(s + 1, "ve", 2) || !memcmp(s + 1, "ll", 2))) return 3;
    }
    if (*s == ' ' && n > 1 && class_at(s + 1, n - 1, &length) != SPACE) at = 1;
    class = class_at(s + at, n - at, &length);
    for (at += length; at < n && class_at(s + at, n - at, &length) == class; at += length) last = at;
    /* A run of white space leaves its last character to the word behind it. */
    return class == SPACE && at < n && last ? last : at;
}

/* Llama-3's split (and cl100k's; Qwen2's with digits 1), the first alternative that matches of: (?i:'s|'t|'re|'ve|'m|'ll|'d) |
 * [^\r\n\p{L}\p{N}]?\p{L}+ | \p{N}{1,digits} | ?[^\s\p{L}\p{N}]+[\r\n]* | \s*[\r\n]+ | \s+(?!\S) | \s+ */
static size_t split_llama3(const char *s, size_t n, int digits) {
    size_t at, length, last = 0, line = 0;
    int class = class_at(s, n, &at), next = at < n ? class_at(s + at, n - at, &length) : SPACE;
    if (*s == '\'' && n > 1) {
        char a = (char)(s[1] | 32), b = n > 2 ? (char)(s[2] | 32) : 0;
        if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
        if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
    }
    if (class == LETTER || (class != NUMBER && *s != '\r' && *s != '\n' && next == LETTER)) {
        for (; at < n && class_at(s + at, n - at, &length) == LETTER; ) at += length;
        return at;
    }
    if (class == NUMBER) {
        for (; --digits > 0 && at < n && class_at(s + at, n - at, &length) == NUMBER; ) at += length;
        return at;
    }
    if (class == OTHER || (*s == ' ' && next == OTHER)) {
        for (; at < n && class_at(s + at, n - at, &length) == OTHER; ) at += length;
        while (at < n && (s[at] == '\r' || s[at] == '\n')) at++;
        return at;
    }
    for (at = 0; at < n && class_at(s + at, n - at, &length) == SPACE; at += length) {
        last = at;
        if (s[at] == '\r' || s[at] == '\n') line = at + 1;
    }
    return line ? line : at < n && last ? last : at;
}

enum { SPLIT_GPT2, SPLIT_LLAMA3, SPLIT_NONE };

/* Length of the first piece of s (n > 0), within which byte-level BPE merges. */
static size_t pretoken(const char *s, size_t n, int split, int digits) {
    return split == SPLIT_GPT2 ? split_gpt2(s, n) : split == SPLIT_LLAMA3 ? split_llama3(s, n, digits) : n;
}

/* ================================================================================================================
 * A table from strings to numbers (open addressing, at most half full)
 * ================================================================================================================ */
typedef struct { const char *text; uint32_t length, hash; int value; } Entry;      /* text NULL: free */
typedef struct { Entry *entry; size_t slots, used; } Table;

/* Eight bytes at a time; for tables only, so it may differ between machines. */
static uint32_t hash_text(const char *s, size_t n) {
    uint64_t h = 0x9E3779B97F4A7C15u * (n + 1), word;
    for (; n >= 8; s += 8, n -= 8) {
        memcpy(&word, s, 8);
        h = (h ^ word) * 0xD6E8FEB86659FD93u;
        h ^= h >> 32;
    }
    for (word = 0; n; n--) word = word << 8 | (unsigned char)*s++;
    h = (h ^ word) * 0xD6E8FEB86659FD93u;
    h ^= h >> 32;
    h *= 0xD6E8FEB86659FD93u;
    return (uint32_t)(h >> 32);
}

static Entry *table_slot(const Table *t, const char *text, size_t length, uint32_t hash) {
    size_t i = hash & (t->slots - 1);
    while (t->entry[i].text && !(t->entry[i].hash == hash && t->entry[i].length == length
                                 && !memcmp(t->entry[i].text, text, length)))
        i = (i + 1) & (t->slots - 1);
    return &t->entry[i];
}

static int table_find(const Table *t, const char *text, size_t length) {
    const Entry *e;
    if (!t->slots || length > UINT32_MAX) return -1;
    e = table_slot(t, text, length, hash_text(text, length));
    return e->text ? e->value : -1;
}

/* Adds a string that is not in the table; its bytes stay where they are. Returns OK or E_MEMORY. */
static int table_add(Table *t, Pool *pool, const char *text, size_t length, int value) {
    uint32_t hash = hash_text(text, length);
    Entry *e;
    if (length > UINT32_MAX) return E_MEMORY;
    if (2 * t->used >= t->slots) {
        Table bigger;
        size_t i;
        bigger.slots = t->slots ? 2 * t->slots : 512;
        bigger.used = t->used;
        bigger.entry = pool_take(pool, bigger.slots, sizeof *bigger.entry);
        if (!bigger.entry) return E_MEMORY;
        for (i = 0; i < t->slots; i++)
            if (t->entry[i].text) *table_slot(&bigger, t->entry[i].text, t->entry[i].length, t->entry[i].hash) = t->entry[i];
        *t = bigger;
    }
    e = table_slot(t, text, length, hash);
    e->text = text; e->length = (uint32_t)length; e->hash = hash; e->value = value;
    t->used++;
    return OK;
}

/* ================================================================================================================
 * The tokenizer
 * ================================================================================================================ */
typedef struct { int left, right, id, rank; } Merge;                /* byte-level: left right -> id; id -1: a free slot */

typedef struct { const char *text; size_t length; } Text;

typedef struct { int kind, left, right; Text pattern, content; } NormalStep;    /* see STEP_VALID ... */

typedef struct { Piece *key; int keys; unsigned char first[32]; } Cuts;     /* sorted texts (type: place in `added`), their first bytes */

struct Tokenizer {
    int kind, V;
    Piece *piece;                           /* (V) */
    Table ordinary, reserved;               /* NORMAL, USER_DEFINED, UNUSED | UNKNOWN, CONTROL, BYTE: two name spaces, as in the
                                             * reference */
    SpecialIds special;
    int before, after;                      /* the template: 1 where <s> stands before a text, </s> behind it */
    int byte_id[256];                       /* the id of each byte, or -1 */
    Table words;                            /* texts that are encoded as one piece, whatever stands around them: see index_words */
    int json;                               /* it came from tokenizer.json */
    const char *file[2]; size_t file_length[2];     /* the model | vocab.json, merges.txt | tokenizer.json: written as they were read */
    Merge *merge; size_t merge_slots;       /* open addressing by (left,right); NULL: SentencePiece, where the pieces say what merges */
    /* added tokens */
    AddedToken *added; int addeds;          /* in order of their ids */
    Table extra;                            /* those that the vocabulary itself does not have */
    Cuts cut[2];                            /* looked for in the text as it is; in its normal form */
    const char *chat_template;              /* of tokenizer_config.json; NULL: none */
    /* SentencePiece */
    int byte_fallback, whitespace_suffix, add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces, has_unused, users;
    size_t longest;                         /* bytes of the longest piece */
    int is_unigram; Unigram unigram;        /* the unigram language model; otherwise BPE */
    f32 *margin, largest;                   /* (V) how much better a piece is than its best segmentation into others; |score| at most */
    unsigned char plain[128];               /* 1: this character stays as it is before another one of ASCII */
    unsigned char touch[256 * 256 / 8];     /* bit 256 a + b: byte a stands before byte b in some piece */
    Piece *user;                            /* (users) user-defined pieces in order of their bytes */
    const char *unk_surface; size_t unk_surface_length;     /* what an unknown piece is decoded to */
    const unsigned char *trie; size_t trie_units;           /* normalisation rules: a double array of u32 ... */
    const char *replacement; size_t replacement_bytes;      /* ... and what its values point to */
    int only_first;                         /* the dummy prefix is for the text's start alone, not behind added tokens */
    int prepends, unless_blank, split_blanks;       /* tokenizer.json: see load_normalizer and load_metaspace */
    int strip;                              /* tokenizer.json: spaces that decoding takes off the front */
    int steps; NormalStep *step;            /* tokenizer.json's Unigram: its normalizers, */
    int pipeline, split_words, bare_first;  /* it is one; words are split at white space first; the first piece is decoded without U+2581 */
    /* byte-level */
    int split, digits, prefix_space, ignore_merges, fuse_unk;
    BertRules bert; WordPiece wordpiece;    /* WordPiece */
    int keep_spaces;                        /* decoding takes no space away before a full stop */
    int missing;                            /* the id of a byte that has none; -1: it is dropped */
    int32_t byte_char[256];                 /* how vocab.json writes each byte */
    int char_byte[0x144];                   /* and back; -1: no byte */
};

enum { BLANK_LENGTH = 3 };
static const char blank[] = "\xe2\x96\x81";             /* U+2581, how SentencePiece writes a space */
static const char replacement_char[] = "\xef\xbf\xbd";  /* U+FFFD */

/* The id of a piece of the vocabulary itself, or -1. */
static int find_piece(const Tokenizer *t, const char *text, size_t length) {
    int id = table_find(&t->reserved, text, length);
    return id >= 0 ? id : table_find(&t->ordinary, text, length);
}

static int starts_with(const char *s, size_t n, const char *start, size_t length) {
    return n >= length && !memcmp(s, start, length);
}

/* fail() naming a piece; `where` holds as much of it as fits. */
static int fail_piece(Error *err, int code, const char *what, const char *text, size_t length, long long got, long long wanted) {
    char where[64];
    if (length > sizeof where - 1) length = sizeof where - 1;
    if (length) memcpy(where, text, length);
    where[length] = 0;
    return fail(err, code, what, where, got, wanted);
}

/* fail() naming a place such as "merges.txt, line %d". */
static int fail_at(Error *err, int code, const char *what, const char *pattern, int number) {
    char where[64];
    name_format(where, sizeof where, pattern, number);
    return fail(err, code, what, where, 0, 0);
}

/* Frees what was taken after `after` (the mark behind an allocation of `size` bytes), and of that
 * allocation all but `used` bytes. */
static void keep_only(Pool *pool, PoolMark after, size_t size, size_t used) {
    after.used -= (size - used) / 16 * 16;
    pool_release(pool, after);
}

/* ================================================================================================================
 * SentencePiece: the model file, a protocol buffer
 * ================================================================================================================ */
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
    r->bad = 1;                             /* more than ten bytes */
    return 0;
}

/* The next field of a message, of whatever type. 0 at the end or on bad bytes (then r->bad). */
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

/* A field whose wire type is not the expected one counts as unknown and is skipped, as everywhere in protocol buffers. */
static int field_is(const Field *f, uint64_t number, int wire) { return f->number == number && f->wire == wire; }

static int parse_piece(Reader r, Piece *p) {
    Field f;
    p->text = NULL; p->length = 0; p->score = 0; p->type = PIECE_NORMAL;
    while (next_field(&r, &f)) {
        if (field_is(&f, 1, BYTES)) { p->text = (const char *)f.body.at; p->length = (size_t)f.value; }
        else if (field_is(&f, 2, FIXED32)) p->score = f32_of_bits((uint32_t)f.value);
        else if (field_is(&f, 3, VARINT) && f.value >= PIECE_NORMAL && f.value <= PIECE_BYTE) p->type = (int)f.value;
    }
    return !r.bad;
}

typedef struct { int model_type; Text bos, eos, pad; } ModelNames;

static Text field_text(const Field *f) { Text t; t.text = (const char *)f->body.at; t.length = (size_t)f->value; return t; }

static int parse_trainer(Reader r, Tokenizer *t, ModelNames *names) {
    Field f;
    while (next_field(&r, &f)) {
        if (field_is(&f, 3, VARINT) && f.value >= 1 && f.value <= 4) names->model_type = (int)f.value;
        else if (field_is(&f, 24, VARINT)) t->whitespace_suffix = f.value != 0;
        else if (field_is(&f, 35, VARINT)) t->byte_fallback = f.value != 0;
        else if (field_is(&f, 44, BYTES)) { t->unk_surface = (const char *)f.body.at; t->unk_surface_length = (size_t)f.value; }
        else if (f.wire == BYTES && f.value && f.number == 46) names->bos = field_text(&f);
        else if (f.wire == BYTES && f.value && f.number == 47) names->eos = field_text(&f);
        else if (f.wire == BYTES && f.value && f.number == 48) names->pad = field_text(&f);
    }
    return !r.bad;
}

/* The rules: u32 bytes of the double array, the array, then NUL-terminated replacements. *table: the bytes, if there are any. */
static int parse_normalizer(Reader r, Tokenizer *t, Text *table) {
    Field f;
    while (next_field(&r, &f)) {
        if (field_is(&f, 2, BYTES)) *table = field_text(&f);
        else if (field_is(&f, 3, VARINT)) t->add_dummy_prefix = f.value != 0;
        else if (field_is(&f, 4, VARINT)) t->remove_extra_whitespaces = f.value != 0;
        else if (field_is(&f, 5, VARINT)) t->escape_whitespaces = f.value != 0;
    }
    return !r.bad;
}

static int set_rules(Tokenizer *t, Text table, Error *err) {
    Reader r;
    uint32_t bytes;
    if (!table.length) return OK;
    r.at = (const unsigned char *)table.text; r.end = r.at + table.length; r.bad = 0;
    bytes = read_u32(&r);
    t->trie = read_bytes(&r, bytes);
    if (r.bad || bytes < 4 || bytes % 4 || r.at == r.end || r.end[-1] != 0)
        return fail(err, E_FORMAT, "broken precompiled_charsmap", t->json ? "tokenizer.json" : "SentencePiece model", 0, 0);
    t->trie_units = bytes / 4;
    t->replacement = (const char *)r.at;
    t->replacement_bytes = (size_t)(r.end - r.at);
    return OK;
}

/* The byte of a piece "<0x41>", or -1. Upper-case hexadecimal digits, as the reference writes them. */
static int byte_of_piece(const Piece *p) {
    static const char digit[] = "0123456789ABCDEF";
    const char *high, *low;
    if (p->length != 6 || memcmp(p->text, "<0x", 3) || p->text[5] != '>' || !p->text[3] || !p->text[4]) return -1;
    high = strchr(digit, p->text[3]); low = strchr(digit, p->text[4]);
    return high && low ? (int)((high - digit) * 16 + (low - digit)) : -1;
}

/* The reference's checks of one piece, then its places in the tables. */
static int add_piece(Tokenizer *t, int id, Pool *pool, Error *err) {
    const Piece *p = &t->piece[id];
    int ordinary = p->type == PIECE_NORMAL || p->type == PIECE_USER_DEFINED || p->type == PIECE_UNUSED, byte;
    Table *table = ordinary ? &t->ordinary : &t->reserved;
    size_t i;
    if (!p->length) return fail_at(err, E_FORMAT, "a piece is empty", "SentencePiece model, piece %d", id);
    if (p->score != p->score) return fail_piece(err, E_NUMBER, "the score of a piece is not a number", p->text, p->length, 0, 0);
    if (table_find(table, p->text, p->length) >= 0)
        return fail_piece(err, E_FORMAT, "a piece is defined twice", p->text, p->length, 0, 0);
    if (p->type == PIECE_UNKNOWN) {
        if (t->special.unk >= 0) return fail_piece(err, E_FORMAT, "there are two unknown pieces", p->text, p->length, 0, 0);
        t->special.unk = id;
    } else if (p->type == PIECE_BYTE) {
        byte = byte_of_piece(p);
        if (!t->byte_fallback || byte < 0) return fail_piece(err, E_FORMAT, t->byte_fallback ? "not a byte piece" :
                                                             "a byte piece without byte_fallback", p->text, p->length, 0, 0);
        t->byte_id[byte] = id;
    } else if (p->type == PIECE_USER_DEFINED) t->users++;
    else if (p->type == PIECE_UNUSED) t->has_unused = 1;
    if (p->length > t->longest) t->longest = p->length;
    for (i = 1; i < p->length && ordinary; i++) {
        unsigned pair = (unsigned)(unsigned char)p->text[i - 1] << 8 | (unsigned char)p->text[i];
        t->touch[pair / 8] |= (unsigned char)(1u << pair % 8);
    }
    if (table_add(table, pool, p->text, p->length, id))
        return fail(err, E_MEMORY, "not enough memory", "SentencePiece model", 0, 0);
    return OK;
}

static int compare_text(const void *a, const void *b) {
    const Piece *p = a, *q = b;
    size_t n = p->length < q->length ? p->length : q->length;
    int order = memcmp(p->text, q->text, n);
    return order ? order : (p->length > q->length) - (p->length < q->length);
}

/* Tables over pieces; user-defined ones sorted, so that prefixes of a text can be found. */
static int index_pieces(Tokenizer *t, Pool *pool, Error *err) {
    int i, n = 0;
    for (i = 0; i < t->V; i++) { int code = add_piece(t, i, pool, err); if (code) return code; }
    if (t->special.unk < 0) return fail(err, E_MISSING, "there is no unknown piece", "SentencePiece model", 0, 0);
    for (i = 0; i < 256 && t->byte_fallback; i++)
        if (t->byte_id[i] < 0)
            return fail_at(err, E_MISSING, "byte_fallback without a piece for each byte", "SentencePiece model, byte %d", i);
    if (!t->users) return OK;
    t->user = pool_take(pool, (size_t)t->users, sizeof *t->user);
    if (!t->user) return fail(err, E_MEMORY, "not enough memory", "SentencePiece model", 0, 0);
    for (i = 0; i < t->V; i++) if (t->piece[i].type == PIECE_USER_DEFINED) t->user[n++] = t->piece[i];
    qsort(t->user, (size_t)n, sizeof *t->user, compare_text);
    return OK;
}

static int piece_is(const Tokenizer *t, int id, const char *text) {
    return t->piece[id].length == strlen(text) && !memcmp(t->piece[id].text, text, t->piece[id].length);
}

static int control_id(const Tokenizer *t, Text name) {
    int id = tokenizer_find(t, name.text, name.length);
    return id >= 0 && t->piece[id].type == PIECE_CONTROL ? id : -1;
}

/* All fields of the model except the pieces, whose number is counted; then the pieces. */
static int parse_model(Tokenizer *t, ModelNames *names, Pool *pool, Error *err) {
    Reader start, r;
    Field f;
    Text rules = { NULL, 0 }, back = { NULL, 0 };
    size_t pieces = 0;
    Tokenizer unused;                       /* flags of the denormaliser go nowhere */
    start.at = (const unsigned char *)t->file[0]; start.end = start.at + t->file_length[0]; start.bad = 0;
    for (r = start; next_field(&r, &f); ) {
        int good = 1;
        if (field_is(&f, 1, BYTES)) pieces++;
        else if (field_is(&f, 2, BYTES)) good = parse_trainer(f.body, t, names);
        else if (field_is(&f, 3, BYTES)) good = parse_normalizer(f.body, t, &rules);
        else if (field_is(&f, 5, BYTES)) good = parse_normalizer(f.body, &unused, &back);
        if (!good) return fail(err, E_FORMAT, "bad bytes in the specifications", "SentencePiece model", 0, 0);
    }
    if (r.bad || !pieces) return fail(err, E_FORMAT, "not a SentencePiece model, or cut short", "SentencePiece model", 0, 0);
    if (names->model_type > 2) return fail(err, E_UNSUPPORTED, names->model_type == 3 ? "SentencePiece model_type word"
                                           : "SentencePiece model_type char", "SentencePiece model", 0, 0);
    t->is_unigram = names->model_type == 1;
    if (back.length) return fail(err, E_UNSUPPORTED, "denormalizer_spec", "SentencePiece model", 0, 0);
    if (pieces > INT_MAX / 2) return fail(err, E_RANGE, "too many pieces", "SentencePiece model", 0, 0);
    if (set_rules(t, rules, err)) return E_FORMAT;
    t->V = (int)pieces;
    t->piece = pool_take(pool, pieces, sizeof *t->piece);
    if (!t->piece) return fail(err, E_MEMORY, "not enough memory", "SentencePiece model", 0, 0);
    pieces = 0;
    for (r = start; next_field(&r, &f); )
        if (field_is(&f, 1, BYTES) && !parse_piece(f.body, &t->piece[pieces++]))
            return fail_at(err, E_FORMAT, "bad bytes in a piece", "SentencePiece model, piece %d", (int)pieces - 1);
    return index_pieces(t, pool, err);
}

static Tokenizer *new_tokenizer(int kind, Pool *pool) {
    Tokenizer *t = pool_take(pool, 1, sizeof *t);
    int i;
    if (!t) return NULL;
    t->kind = kind;
    t->special.bos = t->special.eos = t->special.unk = t->special.pad = t->missing = -1;
    for (i = 0; i < 256; i++) t->byte_id[i] = -1;
    return t;
}

/* ================================================================================================================
 * SentencePiece: normalisation
 * ================================================================================================================ */

/* Length of the longest of `count` sorted pieces that s (n bytes) begins with, or 0; which one in *which: byte by byte, the range of
 * pieces that agree so far narrows; its first piece is the shortest. */
static size_t longest_prefix(const Piece *list, int count, const char *s, size_t n, int *which) {
    int low = 0, high = count;
    size_t depth, found = 0;
    for (depth = 0; depth < n && low < high; depth++) {
        int edge[2], side;
        for (side = 0; side < 2; side++) {  /* the first piece whose byte is >= s[depth], then > */
            int a = low, b = high;
            while (a < b) {
                int middle = a + (b - a) / 2;
                int byte = (unsigned char)list[middle].text[depth];
                if (byte < (unsigned char)s[depth] + side) a = middle + 1; else b = middle;
            }
            edge[side] = a;
        }
        low = edge[0]; high = edge[1];
        if (low < high && list[low].length == depth + 1) { found = depth + 1; *which = low++; }
    }
    return found;
}

static size_t user_prefix(const Tokenizer *t, const char *s, size_t n) {
    int which;
    return t->users ? longest_prefix(t->user, t->users, s, n, &which) : 0;
}

static uint32_t trie_unit(const Tokenizer *t, size_t i) {
    const unsigned char *p = t->trie + 4 * i;
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static size_t trie_offset(uint32_t unit) { return (size_t)(unit >> 10) << ((unit & 0x200) >> 6); }

/* Longest key (or the shortest) of the double array (darts-clone) that s begins with: its length, its value in *value; 0 if there is none. */
static size_t trie_prefix(const Tokenizer *t, const char *s, size_t n, int shortest, size_t *value) {
    size_t at, i, found = 0;
    if (!t->trie_units) return 0;
    at = trie_offset(trie_unit(t, 0));
    for (i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        uint32_t unit;
        at ^= c;
        if (at >= t->trie_units) break;
        unit = trie_unit(t, at);
        if ((unit & 0x800000FFu) != c) break;
        at ^= trie_offset(unit);
        if (at >= t->trie_units) break;
        if (unit & 0x100) {                 /* a key ends here; its value is the child for label 0 */
            size_t v = trie_unit(t, at) & 0x7FFFFFFF;
            if (v < t->replacement_bytes) { found = i + 1; *value = v; }
            if (shortest) break;
        }
    }
    return found;
}

/* 1 if some key may begin with s (n > 0 bytes). */
static int trie_walk(const Tokenizer *t, const char *s, size_t n) {
    size_t at, i;
    if (!t->trie_units) return 0;
    at = trie_offset(trie_unit(t, 0));
    for (i = 0; i < n; i++) {
        uint32_t unit;
        at ^= (unsigned char)s[i];
        if (at >= t->trie_units) return 0;
        unit = trie_unit(t, at);
        if ((unit & 0x800000FFu) != (unsigned char)s[i]) return 0;
        at ^= trie_offset(unit);
    }
    return 1;
}

/* What the start of s (n > 0 bytes) becomes: a user-defined piece stays, a rule replaces, a character stays, a bad byte is
 * U+FFFD. Returns how many bytes are used up. */
static size_t normal_prefix(const Tokenizer *t, const char *s, size_t n, Text *out) {
    int32_t code;
    size_t value = 0, length = user_prefix(t, s, n);
    out->text = s;
    out->length = length;
    if (length) return length;
    length = trie_prefix(t, s, n, 0, &value);
    if (length) {
        out->text = t->replacement + value;
        out->length = strlen(out->text);    /* set_rules saw a final NUL */
        return length;
    }
    length = (size_t)utf8_decode(s, n, &code);
    out->length = length;
    if (code < 0) { out->text = replacement_char; out->length = 3; }
    return length;
}

/* Most text is ASCII that no rule looks at: t->plain says of which characters that is known. A rule may still begin with such a character
 * and go on with one beyond ASCII (a letter and its accent). */
static void find_plain(Tokenizer *t) {
    int a, b;
    for (a = 0; a < 128; a++) {
        char s[2];
        size_t value;
        s[0] = (char)a;
        t->plain[a] = trie_prefix(t, s, 1, 0, &value) == 0;
        for (b = 0; b < 128 && t->plain[a]; b++) {
            s[1] = (char)b;
            if (trie_walk(t, s, 2)) t->plain[a] = 0;
        }
        for (b = 0; b < t->users; b++) if (t->user[b].text[0] == a) t->plain[a] = 0;
    }
}

/* 1 if the normal form of a text gets the dummy prefix; first: the text begins here. */
static int wants_prefix(const Tokenizer *t, const char *text, size_t n, int first) {
    if (!t->add_dummy_prefix || (t->only_first && !first)) return 0;
    return !t->unless_blank || !(starts_with(text, n, " ", 1) || starts_with(text, n, blank, BLANK_LENGTH));
}

/* Text being normalised: out NULL only measures. */
typedef struct { char *out; size_t length, width; const char *space; int after_space, remove; } Normal;

static void put_space(Normal *f) {
    if (f->out) memcpy(f->out + f->length, f->space, f->width);
    f->length += f->width;
}

/* What a rule made of some characters. */
static void put_normal(Normal *f, Text p) {
    size_t i;
    while (f->after_space && p.length && p.text[0] == ' ') { p.text++; p.length--; }
    for (i = 0; i < p.length; i++)
        if (p.text[i] == ' ') put_space(f);
        else {
            if (f->out) f->out[f->length] = p.text[i];
            f->length++;
        }
    if (p.length) f->after_space = f->remove && p.text[p.length - 1] == ' ';
}

/* Which bytes of the text a byte of its normal form comes from; the same ones for all bytes of what a rule made. */
typedef struct { size_t from, to; } Origin;

/* The normal bytes out[from..to) come from the `used` bytes at text[at]. What stayed as it was can be told apart byte by byte. */
static void put_origin(Origin *origin, const char *out, size_t from, size_t to, const char *text, size_t at, size_t used) {
    int same = to - from == used && !memcmp(out + from, text + at, used);
    size_t i;
    for (i = from; i < to; i++) {
        origin[i].from = same ? at + (i - from) : at;
        origin[i].to = same ? at + (i - from) + 1 : at + used;
    }
}

/* Normal form of text in out, and where each of its bytes comes from (origin NULL: not wanted); returns its length. out NULL only measures
 * (trailing spaces included: an upper bound). */
static size_t normalise(const Tokenizer *t, const char *text, size_t n, int prefix, char *out, Origin *origin) {
    Normal f = { out, 0, t->escape_whitespaces ? BLANK_LENGTH : 1, t->escape_whitespaces ? blank : " ",
                 t->remove_extra_whitespaces, t->remove_extra_whitespaces };
    size_t at = 0;
    Text p;
    if (f.remove)
        while (at < n) {
            size_t used = normal_prefix(t, text + at, n - at, &p);
            if (p.length != 1 || p.text[0] != ' ') break;
            at += used;
        }
    if (at == n) return 0;
    if (prefix && !t->whitespace_suffix) put_space(&f);
    if (origin) put_origin(origin, out, 0, f.length, text, at, 0);
    while (at < n) {
        unsigned char c = (unsigned char)text[at];
        size_t before = f.length, used;
        if (!origin && c < 128 && t->plain[c] && (at + 1 == n || (unsigned char)text[at + 1] < 128)) {
            at++;
            if (c != ' ') {
                if (out) out[f.length] = (char)c;
                f.length++;
                f.after_space = 0;
            } else if (!f.after_space) {
                put_space(&f);
                f.after_space = f.remove;
            }
            continue;
        }
        used = normal_prefix(t, text + at, n - at, &p);
        put_normal(&f, p);
        if (origin) put_origin(origin, out, before, f.length, text, at, used);
        at += used;
    }
    if (f.remove && out)
        while (f.length >= f.width && !memcmp(out + f.length - f.width, f.space, f.width)) f.length -= f.width;
    if (prefix && t->whitespace_suffix) {
        put_space(&f);
        if (origin) put_origin(origin, out, f.length - f.width, f.length, text, n, 0);
    }
    return f.length;
}

/* At most so many bytes has the normal form: exactly measured where there are rules. */
static size_t normal_bound(const Tokenizer *t, const char *text, size_t n) {
    size_t i, wide = 0;
    if (t->trie_units) return normalise(t, text, n, 1, NULL, NULL);
    for (i = 0; i < n; i++) wide += text[i] == ' ' || (unsigned char)text[i] >= 128;
    return n + 2 * wide + BLANK_LENGTH;     /* a space or a malformed byte becomes three */
}

/* ================================================================================================================
 * Normalisation as a Unigram model's tokenizer.json lists it: one step after another, each over the whole text
 * ================================================================================================================ */
/* Where the white space before s[at] begins, not before s[from]. */
static size_t space_before(const char *s, size_t from, size_t at) {
    for (;;) {
        size_t k = at, length;
        while (k > from && at - k < 4 && (k == at || ((unsigned char)s[k] & 0xC0) == 0x80)) k--;
        if (k == at || class_at(s + k, at - k, &length) != SPACE || length != at - k) return at;
        at = k;
    }
}

static size_t space_behind(const char *s, size_t at, size_t n) {
    size_t length;
    while (at < n && class_at(s + at, n - at, &length) == SPACE) at += length;
    return at;
}

enum { STEP_VALID,                          /* malformed bytes become U+FFFD: always the first */
       STEP_REPLACE, STEP_BLANKS,           /* `content` for each `pattern`; for two or more spaces */
       STEP_STRIP,                          /* white space goes at the left, the right end */
       STEP_LOWER,
       STEP_ACCENTS, STEP_BASE, STEP_COMPATIBLE,        /* marks go: as it is; after NFD; after NFKD */
       STEP_RULES,                          /* the precompiled charsmap */
       STEP_PREPEND,                        /* `content` before a text that is not empty */
       STEPS = 64, STEP_BYTES = 80 };

/* Bytes of the first cluster of characters of s (n > 0): a letter and its marks. What only makes clusters of six bytes and more is left
 * out (flags, joined pictures, syllables of Hangul): STEP_RULES takes these one character at a time. */
static size_t cluster(const char *s, size_t n) {
    int32_t code;
    size_t at = (size_t)utf8_decode(s, n, &code), length;
    if (code == '\r') return n > 1 && s[1] == '\n' ? 2 : 1;
    if (code == 0x2028 || code == 0x2029 || (unicode_is_control(code) && !unicode_joins(code))) return at;
    for (; at < n; at += length) {
        length = (size_t)utf8_decode(s + at, n - at, &code);
        if (!unicode_joins(code)) break;
    }
    return at;
}

/* The rules, as this library applies them: to a cluster of less than six bytes as a whole (the shortest rule that it begins with speaks for
 * all of it), else to its characters. *inside: bytes left of a cluster that is taken by characters. */
static size_t rule_prefix(const Tokenizer *t, const char *s, size_t n, size_t *inside, Text *out) {
    size_t used = *inside ? 0 : cluster(s, n), value;
    int32_t code;
    if (used && used < 6 && trie_prefix(t, s, used, 1, &value)) {
        out->text = t->replacement + value;
        out->length = strlen(out->text);
        return used;
    }
    if (used) *inside = used;
    used = (size_t)utf8_decode(s, n, &code);
    *inside -= used < *inside ? used : *inside;
    out->text = s;
    out->length = used;
    if (trie_prefix(t, s, used, 1, &value)) { out->text = t->replacement + value; out->length = strlen(out->text); }
    return used;
}

/* What a step makes of the start of s (n > 0 bytes), in *out (small: room for it); returns how many bytes are used up. */
static size_t step_prefix(const Tokenizer *t, const NormalStep *p, const char *s, size_t n, size_t *inside, char *small, Text *out) {
    int32_t code, to[18];
    size_t used;
    int i, count = 1;
    if (p->kind == STEP_RULES) return rule_prefix(t, s, n, inside, out);
    *out = p->content;
    if (p->kind == STEP_REPLACE && starts_with(s, n, p->pattern.text, p->pattern.length)) return p->pattern.length;
    if (p->kind == STEP_BLANKS && starts_with(s, n, "  ", 2)) {
        for (used = 2; used < n && s[used] == ' '; ) used++;
        return used;
    }
    used = (size_t)utf8_decode(s, n, &code);
    to[0] = code < 0 ? 0xFFFD : code;
    if (p->kind == STEP_LOWER) count = unicode_lower(to[0], to);
    else if (p->kind == STEP_ACCENTS) count = !unicode_is_combining(to[0]);
    else if (p->kind == STEP_COMPATIBLE) count = unicode_compatible(to[0], to);
    else if (p->kind == STEP_BASE) {
        int bases = unicode_base(to[0], to);
        for (i = count = 0; i < bases; i++) if (!unicode_is_combining(to[i])) to[count++] = to[i];
    }
    out->text = small;
    for (i = 0, out->length = 0; i < count; i++) out->length += (size_t)utf8_encode(small + out->length, to[i]);
    return used;
}

/* 1 if s[0] (n > 0 bytes) surely stays as it is, whatever stands before it: most of a text. */
static inline int step_keeps(const Tokenizer *t, const NormalStep *p, const char *s, size_t n) {
    unsigned char c = (unsigned char)*s;
    if (p->kind == STEP_REPLACE) return *s != *p->pattern.text;
    if (c >= 128) return 0;
    if (p->kind == STEP_BLANKS) return c != ' ' || n == 1 || s[1] != ' ';
    if (p->kind == STEP_LOWER) return c < 'A' || c > 'Z';
    if (p->kind == STEP_RULES) return t->plain[c] && (n == 1 || (unsigned char)s[1] < 128);
    return 1;
}

/* in after one step: out, and where each byte of it comes from (origin, from the origins `from` of in; NULL: not wanted). Returns its length.
 * out NULL: only that, and in *changed whether anything CHANGES, and whether the reference thinks that the text's start is LOST. */
enum { CHANGES = 1, LOST = 2 };
static size_t run_step(const Tokenizer *t, const NormalStep *p, Text in, const Origin *from, char *out, Origin *origin, int *changed) {
    const char *s = in.text;
    size_t at = 0, end = in.length, n = 0, inside = 0, i, used;
    char small[STEP_BYTES];
    Text made;
    *changed = 0;
    if (p->kind == STEP_STRIP) {
        if (p->left) at = space_behind(s, 0, end);
        if (p->right) end = space_before(s, at, end);
        *changed = (end - at != in.length) | (at ? LOST : 0);
    }
    if (p->kind == STEP_PREPEND && end) {
        if (out) memcpy(out, p->content.text, p->content.length);
        n = p->content.length;
        *changed = n > 0;
        for (i = 0; origin && i < n; i++) origin[i].from = origin[i].to = from[0].from;
    }
    for (; at < end; at += used) {
        for (used = 0; !inside && at + used < end && step_keeps(t, p, s + at + used, end - at - used); ) used++;
        made.text = s + at; made.length = used;
        if (!used) used = step_prefix(t, p, s + at, end - at, &inside, small, &made);
        i = made.length == used && !memcmp(made.text, s + at, used);
        if (!i) *changed |= CHANGES;
        if (!i && !n && p->kind != STEP_RULES && (!made.length || used > unigram_character(s + at, end - at))) *changed |= LOST;
        if (out && made.length) memcpy(out + n, made.text, made.length);
        if (origin && i) memcpy(origin + n, from + at, used * sizeof *origin);
        else if (origin)
            for (i = 0; i < made.length; i++) { origin[n + i].from = from[at].from; origin[n + i].to = from[at + used - 1].to; }
        n += made.length;
    }
    if (origin) origin[n].from = origin[n].to = end ? from[end - 1].to : from[0].from;
    return n;
}

/* The text after all steps, in pool; *origin: from its places in the text, or NULL and not wanted. *lost: its start is not the text's. A step
 * that changes nothing costs a look. */
static int run_steps(const Tokenizer *t, Text *text, Origin **origin, int *lost, Pool *pool) {
    NormalStep valid;
    int i, changed;
    memset(&valid, 0, sizeof valid);
    *lost = 0;
    for (i = -1; i < t->steps; i++) {
        const NormalStep *p = i < 0 ? &valid : &t->step[i];
        size_t n = run_step(t, p, *text, NULL, NULL, NULL, &changed);
        Origin *to = NULL;
        char *out;
        if (!changed) continue;
        if (changed & LOST) *lost = 1;
        out = n < INT_MAX / 8 ? pool_take(pool, n + 1, 1) : NULL;
        if (out && *origin) to = pool_take(pool, n + 1, sizeof *to);
        if (!out || (*origin && !to)) return E_MEMORY;
        run_step(t, p, *text, *origin, out, to, &changed);
        text->text = out;
        text->length = n;
        *origin = to;
    }
    return OK;
}

/* ================================================================================================================
 * Merging: the same machine for both kinds
 * ================================================================================================================ */
enum { FROZEN = -2, FEW = 40 };
typedef struct { uint32_t at, length; int previous, next, id; } Symbol;     /* length 0: merged into its left neighbour */
/* Symbol `left` with the next one would be piece id. */
typedef struct { f32 score; int left, id; uint32_t length; } Candidate;
typedef struct {
    const Tokenizer *t;
    const char *text;
    Symbol *symbol; int symbols, room;
    Candidate *heap; int waiting;           /* the best is heap[0]: higher score, then further left */
    size_t *split;                          /* (V) where an unused piece was last put together; NULL without unused pieces */
} Bpe;

/* Room for `symbols` symbols. Of n symbols n - 1 pairs can wait at first; each of at most n - 1 merges takes one and
 * adds two. */
static int bpe_room(Bpe *b, size_t symbols, Pool *pool) {
    if (symbols <= (size_t)b->room) return OK;
    if (symbols > INT_MAX / 4) return E_MEMORY;
    if (symbols < 2 * (size_t)b->room) symbols = 2 * (size_t)b->room;
    if (symbols < 64) symbols = 64;
    b->symbol = pool_take(pool, symbols, sizeof *b->symbol);
    b->heap = pool_take(pool, 2 * symbols, sizeof *b->heap);
    b->room = b->symbol && b->heap ? (int)symbols : 0;
    return b->room ? OK : E_MEMORY;
}

static int better(const Candidate *a, const Candidate *b) {
    return a->score > b->score || (a->score == b->score && a->left < b->left);
}

static void heap_push(Bpe *b, Candidate c) {
    int i = b->waiting++;
    for (; i > 0 && better(&c, &b->heap[(i - 1) / 2]); i = (i - 1) / 2) b->heap[i] = b->heap[(i - 1) / 2];
    b->heap[i] = c;
}

static Candidate heap_pop(Bpe *b) {
    Candidate best = b->heap[0], c = b->heap[--b->waiting];
    int i = 0, child;
    for (; (child = 2 * i + 1) < b->waiting; i = child) {
        if (child + 1 < b->waiting && better(&b->heap[child + 1], &b->heap[child])) child++;
        if (!better(&b->heap[child], &c)) break;
        b->heap[i] = b->heap[child];
    }
    b->heap[i] = c;
    return best;
}

static size_t merge_hash(int left, int right) {
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u;
    return (size_t)(h >> 32 ^ h >> 15);
}

static Merge *merge_slot(const Tokenizer *t, int left, int right) {
    size_t i = merge_hash(left, right) & (t->merge_slots - 1);
    while (t->merge[i].id >= 0 && (t->merge[i].left != left || t->merge[i].right != right)) i = (i + 1) & (t->merge_slots - 1);
    return &t->merge[i];
}

/* Can symbols a and b, which is behind it, merge? Then *c says into what, and how good that is. SentencePiece needs no list of merges: any
 * two symbols that spell a piece can. The others have the list; merge number r counts as a score of -r. */
static int can_merge(const Bpe *b, const Symbol *left, const Symbol *right, Candidate *c) {
    const Tokenizer *t = b->t;
    c->length = left->length + right->length;
    if (t->merge) {
        const Merge *m = merge_slot(t, left->id, right->id);
        c->id = m->id;
        c->score = -(f32)m->rank;
        return m->id >= 0;
    }
    if (left->id == FROZEN || right->id == FROZEN || c->length > t->longest) return 0;
    c->id = table_find(&t->ordinary, b->text + left->at, c->length);
    if (c->id < 0) return 0;
    c->score = t->piece[c->id].score;
    if (t->piece[c->id].type == PIECE_UNUSED) b->split[c->id] = left->length;
    return 1;
}

/* Puts symbol `left` and the one behind it on the heap, if they can merge. */
static void propose(Bpe *b, int left) {
    Candidate c;
    if (left < 0 || b->symbol[left].next < 0 || !can_merge(b, &b->symbol[left], &b->symbol[b->symbol[left].next], &c)) return;
    c.left = left;
    heap_push(b, c);
}

/* The same as bpe_merge for a word: with few symbols it is quickest to look at all pairs each time. pair[i]: symbols i and i + 1. */
static void merge_few(Bpe *b) {
    Candidate pair[FEW];
    Symbol *s = b->symbol;
    int i, n = b->symbols;
    for (i = 0; i + 1 < n; i++) if (!can_merge(b, &s[i], &s[i + 1], &pair[i])) pair[i].id = -1;
    for (;;) {
        int best = -1;
        for (i = 0; i + 1 < n; i++) if (pair[i].id >= 0 && (best < 0 || pair[i].score > pair[best].score)) best = i;
        if (best < 0) break;
        s[best].id = pair[best].id;
        s[best].length = pair[best].length;
        n--;
        for (i = best + 1; i < n; i++) s[i] = s[i + 1];
        for (i = best + 1; i + 1 < n; i++) pair[i] = pair[i + 1];
        if (best && !can_merge(b, &s[best - 1], &s[best], &pair[best - 1])) pair[best - 1].id = -1;
        if (best + 1 < n && !can_merge(b, &s[best], &s[best + 1], &pair[best])) pair[best].id = -1;
    }
    for (i = 0; i < n; i++) s[i].next = i + 1 < n ? i + 1 : -1;
    b->symbols = n;
}

/* Merges b->symbols symbols, best first, until nothing can merge. */
static void bpe_merge(Bpe *b) {
    int i;
    if (b->symbols <= FEW && !b->split) { merge_few(b); return; }
    b->waiting = 0;
    for (i = 0; i < b->symbols; i++) {
        b->symbol[i].previous = i - 1;
        b->symbol[i].next = i + 1 < b->symbols ? i + 1 : -1;
    }
    for (i = 0; i + 1 < b->symbols; i++) propose(b, i);
    while (b->waiting) {
        Candidate c = heap_pop(b);
        Symbol *s = &b->symbol[c.left], *gone;
        /* Symbols only grow, so a pair of this place and length is still the pair that was proposed. */
        if (!s->length || s->next < 0 || s->length + b->symbol[s->next].length != c.length) continue;
        gone = &b->symbol[s->next];
        s->length = c.length;
        s->id = c.id;
        s->next = gone->next;
        gone->length = 0;
        if (s->next >= 0) b->symbol[s->next].previous = c.left;
        propose(b, s->previous);
        propose(b, c.left);
    }
}

/* ================================================================================================================
 * Added tokens: cut out of a text before anything else looks at it
 * ================================================================================================================ */
typedef struct {
    const Tokenizer *t; const Cuts *cuts;
    const char *text; size_t n, at;         /* text[at..n) is left */
    int found; size_t behind;               /* the added token that comes next (place in t->added; -1: none), and where it ends */
} Parts;

static void begin_parts(Parts *p, const Tokenizer *t, const Cuts *cuts, const char *text, size_t n) {
    p->t = t; p->cuts = cuts && cuts->keys ? cuts : NULL;
    p->text = text; p->n = n; p->at = 0;
    p->found = -1; p->behind = 0;
}

/* The character at s, or the one that ends before s[n] (last): is it part of a word? */
static int is_word(const char *s, size_t n, int last) {
    size_t length;
    int class;
    if (!n) return 0;
    if (last) { size_t k = n; do k--; while (k && n - k < 4 && ((unsigned char)s[k] & 0xC0) == 0x80); s += k; n -= k; }
    class = class_at(s, n, &length);
    return class == LETTER || class == NUMBER || *s == '_';
}

/* The next part: an added token (its id in *id), or a text without any (*id -1). The leftmost token wins, and of those that begin there
 * the longest. 0 at the end. */
static int next_part(Parts *p, Text *part, int *id) {
    size_t i, length, start = p->at;
    int which = 0;
    *id = -1;
    part->text = p->text + (p->n ? p->at : 0);
    for (i = p->at; p->cuts && p->found < 0 && i < p->n; i++) {
        unsigned char c = (unsigned char)p->text[i];
        const AddedToken *a;
        if (!(p->cuts->first[c / 8] >> c % 8 & 1)) continue;
        length = longest_prefix(p->cuts->key, p->cuts->keys, p->text + i, p->n - i, &which);
        if (!length) continue;
        a = &p->t->added[p->cuts->key[which].type];
        p->behind = i + length;
        if (a->single_word && (is_word(p->text, i, 1) || is_word(p->text + p->behind, p->n - p->behind, 0))) {
            i = p->behind - 1;
            continue;
        }
        start = a->lstrip ? space_before(p->text, p->at, i) : i;
        if (a->rstrip) p->behind = space_behind(p->text, p->behind, p->n);
        p->found = p->cuts->key[which].type;
    }
    if (p->found >= 0 && start == p->at) {
        *id = p->t->added[p->found].id;
        p->at = p->behind;
        p->found = -1;
        return 1;
    }
    part->length = (p->found >= 0 ? start : p->n) - p->at;
    p->at += part->length;
    return part->length > 0;
}

/* ================================================================================================================
 * Encoding
 * ================================================================================================================ */

/* Adds piece `id`, which spells s (n bytes): an unknown one becomes its bytes, or joins the unknown one before it. */
static int put_id(const Tokenizer *t, int id, const char *s, size_t n, int *ids, int count) {
    size_t i;
    if (id != t->special.unk) ids[count++] = id;
    else if (t->byte_fallback) for (i = 0; i < n; i++) ids[count++] = t->byte_id[(unsigned char)s[i]];
    else if (!count || ids[count - 1] != id) ids[count++] = id;
    return count;
}

/* 1 if some piece may reach over the border between s[-1] and s[0]. */
static int may_touch(const Tokenizer *t, const char *s) {
    unsigned pair = (unsigned)(unsigned char)s[-1] << 8 | (unsigned char)s[0];
    if (t->split_blanks && (unsigned char)s[0] == (unsigned char)blank[0] && !memcmp(s, blank, BLANK_LENGTH)) return 0;
    return t->touch[pair / 8] >> pair % 8 & 1;
}

/* One character of normal text becomes a symbol: without a list of merges its text counts; with one its id, or the ids of its bytes. */
static void put_symbols(Bpe *b, size_t at, size_t length, int frozen) {
    const Tokenizer *t = b->t;
    int id = frozen ? FROZEN : t->merge ? table_find(&t->ordinary, b->text + at, length) : -1;
    size_t i, parts = t->merge && id < 0 ? length : 1;
    for (i = 0; i < parts; i++) {
        Symbol *s = &b->symbol[b->symbols++];
        s->at = (uint32_t)(at + i);
        s->length = (uint32_t)(parts > 1 ? 1 : length);
        s->id = t->merge && id < 0 ? t->byte_id[(unsigned char)b->text[at + i]] : id;
    }
}

enum { CHARACTER = 4 };                     /* bytes of the longest one: the last of a part may reach over its end */

/* Symbols of the characters of normal text [at, end), and their merges. Returns where the last character ends. */
static size_t merge_text(Bpe *b, size_t at, size_t end, size_t to) {
    size_t k;
    for (b->symbols = 0; at < end; at += k) {               /* one per character; a user-defined piece is one that never merges */
        int32_t character;
        size_t user = user_prefix(b->t, b->text + at, to - at);
        k = user ? user : (size_t)utf8_decode(b->text + at, to - at, &character);
        put_symbols(b, at, k, user > 0);
    }
    bpe_merge(b);
    return at;
}

/* The id of the piece that s, standing by itself, is encoded as; -1 if that needs a closer look. n roundings of a path that has the score
 * `total` before it, and as many of the next best one, must not make up for what lies between them. */
static int whole_word(const Tokenizer *t, const char *s, size_t n, f32 total) {
    int id = n <= t->longest ? table_find(&t->words, s, n) : -1;
    if (id < 0 || !t->is_unigram) return id;
    return t->margin[id] > (f32)n * (fabs(total) + (f32)n * t->largest) * 2.5e-7f ? id : -1;
}

/* A text falls into added tokens and what is between them, which is encoded by itself. */
typedef struct {
    const Tokenizer *t;
    Pool *pool, *memory;                    /* pool NULL: only `bound` and `widest` are wanted; memory: the same, never NULL */
    int plain;                              /* added tokens are not looked for */
    const char *start; int first;           /* start: where the text begins, if it does begin there (first) */
    size_t bound, widest;                   /* ids at most; bytes of scratch that a part needs */
    int *ids, count;
    char *scratch;
    Bpe bpe;
    Best *best; size_t best_room;           /* unigram: the best paths within a part, and the score of all before it */
    f32 total;
    BestExact *exact; size_t exact_room;
    int traced; TokenSpan *span; Origin *origin; size_t normal;  /* where each id comes from: by the origin of the normal form's bytes */
} Encoder;

/* The k-th id covers normal bytes [i, j). Not exact where that cuts through what a rule made of some characters. */
static void set_span(Encoder *e, int k, size_t i, size_t j, int exact) {
    const Origin *o = e->origin;
    e->span[k].from = o[i].from;
    e->span[k].to = j > i ? o[j - 1].to : o[i].from;
    if (j == i || (i && o[i - 1].from == o[i].from && o[i - 1].to == o[i].to)) exact = 0;
    if (j > i && j < e->normal && o[j - 1].from == o[j].from && o[j - 1].to == o[j].to) exact = 0;
    e->span[k].exact = exact;
}

/* Adds one id, which covers normal bytes [i, j). */
static inline void put_one(Encoder *e, int id, size_t i, size_t j) {
    if (e->span) set_span(e, e->count, i, j, 1);
    e->ids[e->count++] = id;
}

/* The ids from the first-th on are what put_id made of normal bytes [at, at + n): one piece, or one for each byte, or none, for an unknown
 * one that joined the one before it. */
static void trace(Encoder *e, int first, size_t at, size_t n) {
    int k;
    if (e->count == first + 1) set_span(e, first, at, at + n, 1);
    else if (e->count > first) for (k = first; k < e->count; k++) set_span(e, k, at + (size_t)(k - first), at + (size_t)(k - first) + 1, 1);
    else if (first) {
        TokenSpan before = e->span[first - 1];
        set_span(e, first - 1, at, at + n, before.exact);
        e->span[first - 1].from = before.from;
    }
}

/* Adds piece `id`, which spells normal bytes [at, at + n). */
static void put_span(Encoder *e, int id, size_t at, size_t n) {
    int first = e->count;
    e->count = put_id(e->t, id, e->bpe.text + at, n, e->ids, first);
    if (e->span) trace(e, first, at, n);
}

/* The same in a pipeline, where unknown text may be a piece as a whole, or bytes if there is a piece for each. */
static void put_unknown(Encoder *e, int id, size_t at, size_t n) {
    const Tokenizer *t = e->t;
    const char *s = e->bpe.text + at;
    int whole = id == t->special.unk ? table_find(&t->ordinary, s, n) : id;
    size_t i = 0;
    if (whole < 0 && t->byte_fallback) while (i < n && t->byte_id[(unsigned char)s[i]] >= 0) i++;
    if (whole < 0 && i == n) for (i = 0; i < n; i++) put_one(e, t->byte_id[(unsigned char)s[i]], at + i, at + i + 1);
    else put_one(e, whole < 0 ? id : whole, at, at + n);
}

/* The same for a finished symbol. */
static void put_piece(Encoder *e, size_t at, size_t n) {
    int id = find_piece(e->t, e->bpe.text + at, n);
    put_span(e, id < 0 ? e->t->special.unk : id, at, n);
}

/* The same for text[from..to), which may be an unused piece: that falls apart into what it was made of, and so on. The heap is
 * empty by now; its memory keeps the ends that wait. */
static void put_unused(Encoder *e, size_t from, size_t to) {
    const Bpe *b = &e->bpe;
    Candidate *stack = b->heap;
    int depth = 0;
    for (;;) {
        int id = find_piece(b->t, b->text + from, to - from);
        if (id >= 0 && b->t->piece[id].type == PIECE_UNUSED && b->split[id]) {
            stack[depth++].length = (uint32_t)to;
            to = from + b->split[id];
            continue;
        }
        put_piece(e, from, to - from);
        if (!depth) return;
        from = to;
        to = stack[--depth].length;
    }
}

/* The ids from the first-th on are the pieces of one word, normal bytes [at, to): those behind the first one are written with the prefix
 * that says so, which spells nothing. */
static void trace_word(Encoder *e, int first, size_t at, size_t to) {
    const Tokenizer *t = e->t;
    int k, pieces = e->count - first;
    size_t all = 0, prefix, n;
    if (!e->span) return;
    for (k = first; k < e->count; k++) all += t->piece[e->ids[k]].length;
    prefix = pieces > 1 ? (all - (to - at)) / (size_t)(pieces - 1) : 0;
    for (k = first; k < e->count; k++, at += n) {
        n = pieces == 1 ? to - at : t->piece[e->ids[k]].length - (k > first ? prefix : 0);
        set_span(e, k, at, at + n, 1);
    }
}

/* Normal text[at, end) by the unigram model. The path is turned round in its own links, and then written. */
static int encode_unigram(Encoder *e, size_t at, size_t end) {
    const char *s = e->bpe.text + at;
    size_t n = end - at, i, from, behind;
    if (n + 1 > e->best_room) {
        e->best_room = n + 1 < 1024 ? 1024 : 2 * n;
        e->best = pool_take(e->pool, e->best_room, sizeof *e->best);
        if (!e->best) return E_MEMORY;
    }
    e->best[0].score = e->total;
    unigram_best(&e->t->unigram, s, n, e->best, -1);
    e->total = e->best[n].score;
    for (i = n, behind = 0; i; behind = i, i = from) {      /* best[from].from becomes where the piece from there ends */
        from = e->best[i].from;
        e->best[i].from = (uint32_t)behind;
    }
    for (i = 0, from = behind; from; i = from, from = e->best[from].from)
        put_span(e, e->best[from].id, at + i, from - i);
    return OK;
}

/* Normal text[at, end), which no piece reaches out of, by merging. Returns where its last character ends, or 0: no memory. */
static size_t encode_merging(Encoder *e, size_t at, size_t end, size_t to) {
    const Tokenizer *t = e->t;
    Bpe *b = &e->bpe;
    int i;
    if (bpe_room(b, end - at + CHARACTER, e->pool)) return 0;
    at = merge_text(b, at, end, to);
    for (i = 0; i >= 0 && i < b->symbols; i = b->symbol[i].next) {
        const Symbol *s = &b->symbol[i];
        if (t->merge) put_one(e, s->id, s->at, s->at + s->length);
        else if (t->has_unused) put_unused(e, s->at, s->at + s->length);
        else put_piece(e, s->at, s->length);
    }
    return at;
}

/* Cuts normal text[at..to) into parts that no piece reaches over, mostly words, and encodes each. How unused pieces of BPE fall apart
 * depends on all of the text: then there is one part. */
static int encode_normal(Encoder *e, size_t at, size_t to) {
    const Tokenizer *t = e->t;
    const char *text = e->bpe.text;
    size_t end;
    int id, always = t->has_unused && !t->is_unigram;
    e->total = 0;
    while (at < to) {
        if (t->is_unigram) for (end = at; (end += unigram_character(text + end, to - end)) < to && may_touch(t, text + end); ) { }
        else for (end = at + 1; end < to && (always || may_touch(t, text + end) || ((unsigned char)text[end] & 0xC0) == 0x80); ) end++;
        id = always ? -1 : whole_word(t, text + at, end - at, e->total);
        if (id >= 0) {
            put_one(e, id, at, end);
            if (t->is_unigram) e->total = (f32)((double)t->piece[id].score + e->total);
            at = end;
        } else if (t->is_unigram) {
            if (encode_unigram(e, at, end)) return E_MEMORY;
            at = end;
        } else if (!(at = encode_merging(e, at, end, to))) return E_MEMORY;
    }
    return OK;
}

/* A symbol for each byte of a word, but for those that are dropped: 1 if there are any. */
static int spell_bytes(Bpe *b, const char *s, size_t n) {
    const Tokenizer *t = b->t;
    size_t i;
    int dropped = 0;
    b->symbols = 0;
    for (i = 0; i < n; i++) {
        int id = t->byte_id[(unsigned char)s[i]];
        if (id < 0) id = t->missing;
        if (id < 0) { dropped = 1; continue; }          /* neither the byte nor <unk> is in the vocabulary, as in the reference */
        if (t->fuse_unk && id == t->missing && b->symbols && b->symbol[b->symbols - 1].id == id) continue;
        b->symbol[b->symbols].at = (uint32_t)i;
        b->symbol[b->symbols].length = 1;
        b->symbol[b->symbols++].id = id;
    }
    return dropped;
}

static int encode_bytes(Encoder *e, Text s) {
    const Tokenizer *t = e->t;
    Bpe *b = &e->bpe;
    size_t at, length;
    int i, id, dropped;
    if (!e->pool) {
        e->bound += s.length + 1;
        if ((t->prefix_space || e->traced) && s.length + 1 > e->widest) e->widest = s.length + 1;
        return OK;
    }
    if (e->span) {
        size_t before = t->prefix_space && *s.text != ' ', from = (size_t)(s.text - e->start);
        e->normal = s.length + before;
        e->origin[0].from = e->origin[0].to = from;
        for (at = 0; at < s.length; at++) { e->origin[before + at].from = from + at; e->origin[before + at].to = from + at + 1; }
        e->origin[e->normal].from = from + s.length;
    }
    if (t->prefix_space && *s.text != ' ') {
        e->scratch[0] = ' ';
        memcpy(e->scratch + 1, s.text, s.length++);
        s.text = e->scratch;
    }
    for (at = 0; at < s.length; at += length) {
        length = pretoken(s.text + at, s.length - at, t->split, t->digits);
        id = whole_word(t, s.text + at, length, 0);
        if (id >= 0) { put_one(e, id, at, at + length); continue; }
        if (bpe_room(b, length, e->pool)) return E_MEMORY;
        dropped = spell_bytes(b, s.text + at, length);
        bpe_merge(b);
        for (i = 0; i >= 0 && i < b->symbols; i = b->symbol[i].next) {
            const Symbol *p = &b->symbol[i];
            if (e->span) set_span(e, e->count, at + p->at, at + (p->next < 0 ? length : b->symbol[p->next].at), !dropped);
            e->ids[e->count++] = p->id;
        }
    }
    return OK;
}

/* WordPiece's normal form is made of one character after another. */
static void word_origins(Encoder *e, Text s) {
    size_t at, used, n = 0, from = (size_t)(s.text - e->start);
    for (at = 0; at < s.length; at += used) {
        int32_t code;
        size_t before = n;
        int apart;                          /* an ideograph: the spaces around it come from nowhere */
        used = (size_t)utf8_decode(s.text + at, s.length - at, &code);
        n += bert_normalise(e->scratch + n, s.text + at, used, &e->t->bert);
        apart = n > before + 2 && e->scratch[before] == ' ' && e->scratch[n - 1] == ' ';
        if (apart) {
            put_origin(e->origin, e->scratch, before, before + 1, e->start, from + at, 0);
            put_origin(e->origin, e->scratch, n - 1, n, e->start, from + at + used, 0);
        }
        put_origin(e->origin, e->scratch, before + (size_t)apart, n - (size_t)apart, e->start, from + at, used);
    }
    e->normal = n;
    e->origin[n].from = from + s.length;
}

/* WordPiece: words of the normal form. */
static int encode_words(Encoder *e, Text s) {
    const Tokenizer *t = e->t;
    size_t n = e->pool ? bert_normalise(e->scratch, s.text, s.length, &t->bert) : 0, at = 0, word, space;
    if (!e->pool) {
        n = bert_normalise(NULL, s.text, s.length, &t->bert);
        e->bound += n;
        if (n > e->widest) e->widest = n;
        return OK;
    }
    if (e->span) word_origins(e, s);
    for (; (word = bert_word(e->scratch + at, n - at, &space)) != 0; at += word) {
        int first = e->count;
        at += space;
        e->count += wordpiece_encode(&t->wordpiece, e->scratch + at, word, e->ids + e->count);
        trace_word(e, first, at, at + word);
    }
    return OK;
}

/* Places in a part of the text become places in the whole of it. */
static void text_origins(Encoder *e, Text s, size_t n) {
    size_t i, from = (size_t)(s.text - e->start);
    for (i = 0; i < n; i++) { e->origin[i].from += from; e->origin[i].to += from; }
    e->normal = n;
    e->origin[n].from = from + s.length;
}

/* Normal form, and the added tokens that are looked for there. */
static int encode_text(Encoder *e, Text s) {
    const Tokenizer *t = e->t;
    int first = e->first && s.text == e->start, prefix = wants_prefix(t, s.text, s.length, first), id, code = OK;
    Parts parts;
    Text part;
    size_t n;
    if (!e->pool) {
        n = normal_bound(t, s.text, s.length);
        e->bound += n;                      /* a symbol has at least one byte, an unknown one becomes its bytes */
        if (n > e->widest) e->widest = n;
        return OK;
    }
    n = normalise(t, s.text, s.length, prefix, e->scratch, e->origin);
    if (e->span) text_origins(e, s, n);
    begin_parts(&parts, t, t->prepends && !e->plain ? &t->cut[1] : NULL, e->scratch, n);
    while (!code && next_part(&parts, &part, &id)) {
        size_t from = (size_t)(part.text - e->scratch);
        if (id >= 0) put_one(e, id, from, parts.at);
        else code = encode_normal(e, from, from + part.length);
    }
    return code;
}

static int exact_room(Encoder *e, size_t n) {
    size_t room = n + 1 < 256 ? 256 : 2 * n;
    if (n < e->exact_room) return OK;
    e->exact = pool_take(e->pool, room, sizeof *e->exact);
    e->exact_room = e->exact ? room : 0;
    return e->exact ? OK : E_MEMORY;
}

/* Text [at, at + n) of e->scratch, one word of a pipeline: the best path, again turned round in its links; unknown pieces side by side are one. */
static int encode_exact(Encoder *e, size_t at, size_t n) {
    const Tokenizer *t = e->t;
    const char *s = e->scratch + at;
    size_t i, from, behind;
    int id = table_find(&t->words, s, n);
    if (id >= 0) { put_one(e, id, at, at + n); return OK; }
    if (exact_room(e, n)) return E_MEMORY;
    unigram_best_exact(&t->unigram, s, n, e->exact, -1);
    for (i = n, behind = 0; i; behind = i, i = from) {
        from = e->exact[i].from;
        e->exact[i].from = (uint32_t)behind;
    }
    for (i = 0, from = behind; from; ) {
        id = e->exact[from].id;
        behind = e->exact[from].from;
        while (id == t->special.unk && behind && e->exact[behind].id == id) { from = behind; behind = e->exact[from].from; }
        put_unknown(e, id, at + i, from - i);
        i = from;
        from = behind;
    }
    return OK;
}

/* A word as Metaspace writes it (U+2581 for a space, and prefix: before it), then the parts that begin at these. */
static int encode_metaspace(Encoder *e, Text word, const Origin *origin, int prefix) {
    const Tokenizer *t = e->t;
    size_t n = 0, i, k, end;
    int code = OK;
    if (prefix && !starts_with(word.text, word.length, blank, BLANK_LENGTH) && !starts_with(word.text, word.length, " ", 1)) {
        memcpy(e->scratch, blank, BLANK_LENGTH);
        for (; n < BLANK_LENGTH; n++) if (origin) e->origin[n].from = e->origin[n].to = origin[0].from;
    }
    for (i = 0; i < word.length; i++) {
        size_t width = t->escape_whitespaces && word.text[i] == ' ' ? BLANK_LENGTH : 1;
        if (width > 1) memcpy(e->scratch + n, blank, BLANK_LENGTH); else e->scratch[n] = word.text[i];
        for (k = 0; origin && k < width; k++) e->origin[n + k] = origin[i];
        n += width;
    }
    e->normal = n;
    if (origin) e->origin[n] = origin[word.length];
    for (i = 0; !code && i < n; i = end) {
        for (end = i + 1; end < n && !(t->split_blanks && starts_with(e->scratch + end, n - end, blank, BLANK_LENGTH)); ) end++;
        code = encode_exact(e, i, end - i);
    }
    return code;
}

/* A part of a normal form between added tokens, at its very start (first): words at white space, or all of it. */
static int encode_part(Encoder *e, Text part, const Origin *origin, int first) {
    const Tokenizer *t = e->t;
    size_t at = 0, end, length;
    int code = OK, prefix = t->add_dummy_prefix && (first || !t->only_first);
    for (; !code && at < part.length; at = end) {
        Text word;
        if (t->split_words) at = space_behind(part.text, at, part.length);
        end = t->split_words ? at : part.length;
        while (end < part.length && class_at(part.text + end, part.length - end, &length) != SPACE) end += length;
        word.text = part.text + at; word.length = end - at;
        if (word.length) code = encode_metaspace(e, word, origin ? origin + at : NULL, prefix);
    }
    return code;
}

/* A text of a pipeline: its normal form, the added tokens that are looked for there, and what is between them. */
static int encode_pipeline(Encoder *e, Text s) {
    const Tokenizer *t = e->t;
    PoolMark mark = pool_mark(e->memory);
    size_t i, n, from = (size_t)(s.text - e->start);
    int first = e->first && s.text == e->start, lost, id, code;
    Origin *origin = NULL;
    Parts parts;
    Text part;
    if (e->span) {
        origin = pool_take(e->memory, s.length + 1, sizeof *origin);
        if (!origin) return E_MEMORY;
        for (i = 0; i <= s.length; i++) { origin[i].from = from + i; origin[i].to = from + i + (i < s.length); }
    }
    code = run_steps(t, &s, &origin, &lost, e->memory);
    if (code) return code;
    if (!e->pool) {                         /* each word may get a prefix, each space becomes three bytes */
        for (i = 0, n = s.length + BLANK_LENGTH; i < s.length; i++)
            if ((unsigned char)s.text[i] <= ' ' || (unsigned char)s.text[i] >= 128) n += BLANK_LENGTH;
        e->bound += n;
        if (n > e->widest) e->widest = n;
        pool_release(e->memory, mark);
        return OK;
    }
    begin_parts(&parts, t, e->plain ? NULL : &t->cut[1], s.text, s.length);
    while (!code && next_part(&parts, &part, &id)) {
        size_t at = (size_t)(part.text - s.text);
        if (id < 0) code = encode_part(e, part, origin ? origin + at : NULL, first && !at && !lost);
        else {
            if (origin) { e->span[e->count].from = origin[at].from; e->span[e->count].to = origin[parts.at - 1].to; e->span[e->count].exact = 1; }
            e->ids[e->count++] = id;
        }
    }
    return code;
}

/* level 0: added tokens that are looked for in the text as it is; 1: those of the normal form, where that is the text itself. */
static int encode_parts(Encoder *e, Text s, int level) {
    const Tokenizer *t = e->t;
    Parts parts;
    Text part;
    int id, code = OK;
    begin_parts(&parts, t, e->plain ? NULL : &t->cut[level], s.text, s.length);
    while (!code && next_part(&parts, &part, &id)) {
        if (e->bound > INT_MAX / 8) return E_MEMORY;
        if (id >= 0 && e->span) {
            e->span[e->count].from = (size_t)(part.text - e->start);
            e->span[e->count].to = (size_t)(parts.text + parts.at - e->start);
            e->span[e->count].exact = 1;
        }
        if (id >= 0 && e->pool) e->ids[e->count++] = id;
        else if (id >= 0) e->bound++;
        else if (t->pipeline) code = encode_pipeline(e, part);
        else if (!level && !t->prepends) code = encode_parts(e, part, 1);
        else code = t->kind == TOKENIZER_BYTELEVEL ? encode_bytes(e, part)
                  : t->kind == TOKENIZER_WORDPIECE ? encode_words(e, part) : encode_text(e, part);
    }
    return code;
}

static int encode(Encoder *e, const Tokenizer *t, Text s, Pool *pool, int **ids, int *count) {
    PoolMark after;
    int code;
    *ids = NULL;
    *count = 0;
    e->t = t; e->start = s.text; e->memory = pool;
    if (s.length > INT_MAX / 8 || encode_parts(e, s, 0) || e->bound > INT_MAX / 4) return E_MEMORY;
    if (e->traced) {
        e->span = pool_take(pool, e->bound + 1, sizeof *e->span);
        e->origin = pool_take(pool, e->widest + 1, sizeof *e->origin);
        if (!e->span || !e->origin) return E_MEMORY;
    }
    *ids = pool_take(pool, e->bound + 1, sizeof **ids);
    after = pool_mark(pool);
    e->scratch = pool_take(pool, e->widest + 1, 1);
    if (!*ids || !e->scratch) return E_MEMORY;
    if (t->has_unused && !t->is_unigram && !(e->bpe.split = pool_take(pool, (size_t)t->V, sizeof *e->bpe.split))) return E_MEMORY;
    e->pool = pool; e->ids = *ids;
    e->bpe.t = t; e->bpe.text = e->scratch;
    code = encode_parts(e, s, 0);
    if (code) return code;
    *count = e->count;
    keep_only(pool, after, (e->bound + 1) * sizeof **ids, (size_t)e->count * sizeof **ids);
    return OK;
}

static Encoder new_encoder(int plain, int first) {
    Encoder e;
    memset(&e, 0, sizeof e);
    e.plain = plain; e.first = first;
    return e;
}

int tokenizer_encode(const Tokenizer *t, const char *text, size_t n, Pool *pool, int **ids, int *count) {
    Encoder e = new_encoder(0, 1);
    Text s = { text, n };
    return encode(&e, t, s, pool, ids, count);
}

int tokenizer_encode_spans(const Tokenizer *t, const char *text, size_t n, Pool *pool, int **ids, TokenSpan **spans, int *count) {
    Encoder e = new_encoder(0, 1);
    Text s = { text, n };
    int code;
    e.traced = 1;
    code = encode(&e, t, s, pool, ids, count);
    *spans = e.span;
    return code;
}

int tokenizer_encode_plain(const Tokenizer *t, const char *text, size_t n, int first, Pool *pool, int **ids, int *count) {
    Encoder e = new_encoder(1, first);
    Text s = { text, n };
    return encode(&e, t, s, pool, ids, count);
}

/* ================================================================================================================
 * Words: most of a text are pieces as a whole
 * ================================================================================================================ */

/* Piece `id` standing by itself is encoded as itself: then it is so wherever nothing reaches over its ends. By merging: tried. By the
 * unigram model: any other path through it is worse, by how much is kept. */
static int is_whole(Tokenizer *t, int id, Encoder *e, const char *text, size_t n) {
    const Piece *p = &t->piece[id];
    Bpe *b = &e->bpe;
    if (t->pipeline) {                      /* of equals the one that begins first wins, and that is the whole */
        if (exact_room(e, n)) return 0;
        unigram_best_exact(&t->unigram, text, n, e->exact, id);
        return t->unigram.exact[id] >= e->exact[n].score;
    }
    if (t->is_unigram) {
        if (n + 1 > e->best_room) {
            e->best = pool_take(e->pool, n + 1, sizeof *e->best);
            e->best_room = e->best ? n + 1 : 0;
        }
        if (!e->best || p->type != PIECE_NORMAL) return 0;
        e->best[0].score = 0;
        unigram_best(&t->unigram, text, n, e->best, id);
        t->margin[id] = p->score - e->best[n].score;
        return t->margin[id] > 0;
    }
    if (t->kind == TOKENIZER_BYTELEVEL && t->ignore_merges) return 1;
    if (p->type != PIECE_NORMAL || bpe_room(b, n + CHARACTER, e->pool)) return 0;
    if (t->kind == TOKENIZER_SENTENCEPIECE && !t->merge && find_piece(t, text, n) != id) return 0;
    b->text = text;
    if (t->kind == TOKENIZER_BYTELEVEL) {
        spell_bytes(b, text, n);
        bpe_merge(b);
    } else merge_text(b, 0, n, n);
    return b->symbols == 1 ? b->symbol[0].length == n && (!t->merge || b->symbol[0].id == id)
                           : b->symbols > 1 && b->symbol[0].next < 0 && b->symbol[0].length == n && (!t->merge || b->symbol[0].id == id);
}

static int find_words(Tokenizer *t, Encoder *e, Pool *pool) {
    size_t n;
    int id;
    for (id = 0; id < t->V; id++) {
        const Piece *p = &t->piece[id];
        const char *text = p->text;
        if (!text) continue;
        n = p->length;
        if (n > t->longest) t->longest = n;
        if (t->kind == TOKENIZER_BYTELEVEL) {
            char *raw = pool_take(pool, n, 1);
            size_t i, length;
            int32_t code = 0;
            if (!raw) return E_MEMORY;
            for (i = 0, n = 0; i < p->length && code >= 0; i += length) {
                length = (size_t)utf8_decode(text + i, p->length - i, &code);
                if (code >= 0x144 || (code >= 0 && t->char_byte[code] < 0)) code = -1;
                if (code >= 0) raw[n++] = (char)t->char_byte[code];
            }
            if (code < 0) continue;
            text = raw;
        }
        if (is_whole(t, id, e, text, n) && table_find(&t->words, text, n) < 0 && table_add(&t->words, pool, text, n, id)) return E_MEMORY;
    }
    return OK;
}

/* t->words: a text between two places that no piece reaches over is mostly one piece, and looking that up is all there is to do. */
static int index_words(Tokenizer *t, Pool *pool, Error *err) {
    Encoder e;
    Pool scratch;
    int code;
    if (t->has_unused && !t->is_unigram) return OK;
    memset(&e, 0, sizeof e);
    memset(&scratch, 0, sizeof scratch);
    scratch.source = pool->source;
    scratch.sink = pool->sink;
    e.t = e.bpe.t = t;
    e.pool = &scratch;
    code = find_words(t, &e, pool);
    pool_free(&scratch);
    return code ? fail(err, E_MEMORY, "not enough memory", "vocabulary", 0, 0) : OK;
}

/* The unigram model of the pieces. */
static int make_unigram(Tokenizer *t, Pool *pool, Error *err) {
    int i;
    if (unigram_build(&t->unigram, t->piece, t->V, t->special.unk, pool) || !(t->margin = pool_take(pool, (size_t)t->V, sizeof *t->margin)))
        return fail(err, E_MEMORY, "not enough memory", "SentencePiece model", 0, 0);
    t->largest = (f32)fabs(t->unigram.unk_score);
    for (i = 0; i < t->V; i++)
        if (t->piece[i].type == PIECE_NORMAL && fabs(t->piece[i].score) > t->largest) t->largest = (f32)fabs(t->piece[i].score);
    return OK;
}

Tokenizer *tokenizer_sentencepiece(const void *bytes, size_t n, Pool *pool, Error *err) {
    Tokenizer *t = new_tokenizer(TOKENIZER_SENTENCEPIECE, pool);
    ModelNames names = { 1, { "<s>", 3 }, { "</s>", 4 }, { "<pad>", 5 } };
    if (t) t->file[0] = pool_text(pool, bytes, n);
    if (!t || !t->file[0]) { fail(err, E_MEMORY, "not enough memory", "SentencePiece model", 0, 0); return NULL; }
    t->file_length[0] = n;
    t->add_dummy_prefix = t->remove_extra_whitespaces = t->escape_whitespaces = 1;      /* the defaults of proto2 */
    t->unk_surface = " \xe2\x81\x87 ";
    t->unk_surface_length = 5;
    if (parse_model(t, &names, pool, err)) return NULL;
    find_plain(t);
    if ((t->is_unigram && make_unigram(t, pool, err)) || index_words(t, pool, err)) return NULL;
    t->special.bos = control_id(t, names.bos);
    t->special.eos = control_id(t, names.eos);
    t->special.pad = control_id(t, names.pad);
    t->before = t->special.bos >= 0;
    t->after = t->is_unigram && t->special.eos >= 0 && (!t->before || piece_is(t, t->special.bos, "[CLS]"));     /* T5's, ALBERT's */
    return t;
}

/* ================================================================================================================
 * Decoding
 * ================================================================================================================ */

/* Length of the malformed sequence at s: the longest start of a well-formed one (Unicode's maximal subpart), at least 1. */
static size_t malformed(const char *s, size_t n) {
    const unsigned char *p = (const unsigned char *)s;
    size_t i, wanted = p[0] >= 0xC2 && p[0] <= 0xDF ? 2 : p[0] >= 0xE0 && p[0] <= 0xEF ? 3 : p[0] >= 0xF0 && p[0] <= 0xF4 ? 4 : 1;
    for (i = 1; i < wanted && i < n; i++) {
        unsigned low = 0x80, high = 0xBF;
        if (i == 1 && p[0] == 0xE0) low = 0xA0;         /* overlong */
        if (i == 1 && p[0] == 0xED) high = 0x9F;        /* surrogates */
        if (i == 1 && p[0] == 0xF0) low = 0x90;         /* overlong */
        if (i == 1 && p[0] == 0xF4) high = 0x8F;        /* above U+10FFFF */
        if (p[i] < low || p[i] > high) break;
    }
    return i;
}

static size_t put(char *out, size_t at, const char *text, size_t n) {
    memcpy(out + at, text, n);
    return at + n;
}

/* Appends bytes as valid UTF-8. each: every malformed byte becomes U+FFFD (SentencePiece), else every malformed sequence does. */
static size_t put_valid(char *out, size_t at, const char *s, size_t n, int each) {
    size_t i, length;
    for (i = 0; i < n; i += length) {
        int32_t code;
        length = (size_t)utf8_decode(s + i, n - i, &code);
        if (code >= 0) { at = put(out, at, s + i, length); continue; }
        if (!each) length = malformed(s + i, n - i);
        at = put(out, at, replacement_char, 3);
    }
    return at;
}

/* Control pieces are nothing, byte pieces the bytes of characters, U+2581 a space; the first piece loses the space of the dummy
 * prefix (all leading pieces one each, if the normaliser removes extra spaces). bytes: scratch for the longest run of byte
 * pieces. */
static size_t decode_sentencepiece(const Tokenizer *t, const int *ids, int count, int all, char *out, char *bytes) {
    size_t at = 0, run = 0, k;
    int i, start = 1, stripped = 0;
    for (i = 0; i < count; i++) {
        const Piece *p = &t->piece[ids[i]];
        Text s = { p->text, p->length };
        if (p->type == PIECE_BYTE) { bytes[run++] = (char)byte_of_piece(p); continue; }
        at = put_valid(out, at, bytes, run, 1);
        run = 0;
        if (stripped || at) start = 0;
        stripped = 0;
        if (p->type == PIECE_ADDED || (p->type == PIECE_CONTROL && all)) at = put(out, at, p->text, p->length);
        if (p->type == PIECE_ADDED || p->type == PIECE_CONTROL) continue;
        if (p->type == PIECE_UNKNOWN) { at = put(out, at, t->unk_surface, t->unk_surface_length); continue; }
        if (start && (t->add_dummy_prefix || t->remove_extra_whitespaces) && starts_with(s.text, s.length, blank, BLANK_LENGTH)) {
            s.text += BLANK_LENGTH; s.length -= BLANK_LENGTH;
            stripped = !t->remove_extra_whitespaces;
        }
        for (k = 0; k < s.length; )
            if (starts_with(s.text + k, s.length - k, blank, BLANK_LENGTH)) { at = put(out, at, " ", 1); k += BLANK_LENGTH; }
            else at = put(out, at, s.text + k++, 1);
    }
    return put_valid(out, at, bytes, run, 1);
}

static size_t put_bytes(char *out, size_t at, const char *bytes, size_t n) {
    size_t i, length;
    int32_t code = 0;
    for (i = 0; i < n && code >= 0; i += length) length = (size_t)utf8_decode(bytes + i, n - i, &code);
    if (code >= 0) return put(out, at, bytes, n);
    for (i = 0; i < n; i++) at = put(out, at, replacement_char, 3);
    return at;
}

/* The same as tokenizer.json's usual decoder has it: all pieces joined, U+2581 a space, a run of byte pieces either all valid or all
 * U+FFFD, and then one space less at the front (Metaspace: none for the U+2581 of the first piece). */
static size_t decode_joined(const Tokenizer *t, const int *ids, int count, int all, char *out, char *bytes) {
    size_t at = 0, run = 0, k;
    int i, bare = t->bare_first;
    for (i = 0; i < count; i++) {
        const Piece *p = &t->piece[ids[i]];
        if (!all && (p->type == PIECE_CONTROL || p->type == PIECE_UNKNOWN)) continue;
        if (p->type == PIECE_BYTE) { bytes[run++] = (char)byte_of_piece(p); continue; }
        at = put_bytes(out, at, bytes, run);
        run = 0;
        for (k = 0; k < p->length; )
            if (starts_with(p->text + k, p->length - k, blank, BLANK_LENGTH)) { at = put(out, at, " ", (size_t)!bare); k += BLANK_LENGTH; }
            else at = put(out, at, p->text + k++, 1);
        bare = 0;
    }
    at = put_bytes(out, at, bytes, run);
    if (!t->strip || !at || out[0] != ' ') return at;
    memmove(out, out + 1, at - 1);
    return at - 1;
}

/* The bytes that a token of vocab.json stands for; a token with any character that stands for no byte is its own UTF-8. */
static size_t put_token(const Tokenizer *t, const Piece *p, char *out, size_t at) {
    size_t i, length, begin = at;
    for (i = 0; i < p->length; i += length) {
        int32_t code;
        length = (size_t)utf8_decode(p->text + i, p->length - i, &code);
        if (code < 0 || code >= 0x144 || t->char_byte[code] < 0) return put(out, begin, p->text, p->length);
        out[at++] = (char)t->char_byte[code];
    }
    return at;
}

/* WordPiece: a piece that goes on in a word is glued to the one before it, and so is what English writes without a space before it. */
static size_t decode_words(const Tokenizer *t, const int *ids, int count, int all, char *out) {
    static const char *const glued[] = { ".", "?", "!", ",", "n't", "'m", "'s", "'ve", "'re" };
    size_t at = 0, k;
    int i, first = 1;
    for (i = 0; i < count; i++) {
        const Piece *p = &t->piece[ids[i]];
        int rest = starts_with(p->text, p->length, "##", 2), apart = !first && !rest;
        if (!all && (p->type == PIECE_CONTROL || p->type == PIECE_UNKNOWN)) continue;
        for (k = 0; k < sizeof glued / sizeof *glued && apart && !t->keep_spaces; k++)
            if (starts_with(p->text, p->length, glued[k], strlen(glued[k]))) apart = 0;
        if (apart) at = put(out, at, " ", 1);
        rest = rest && !first ? 2 : 0;
        at = put(out, at, p->text + rest, p->length - (size_t)rest);
        first = 0;
    }
    return at;
}

static int decode(const Tokenizer *t, const int *ids, int count, int all, Pool *pool, char **text, size_t *length) {
    size_t bound = 0, n = 0;
    PoolMark after;
    char *bytes;
    int i;
    *text = NULL;
    *length = 0;
    for (i = 0; i < count; i++) {           /* text, with every byte as U+FFFD at worst */
        size_t more;
        if (ids[i] < 0 || ids[i] >= t->V) return E_RANGE;
        more = 1 + t->piece[ids[i]].length + (t->piece[ids[i]].type == PIECE_UNKNOWN ? t->unk_surface_length : 0);
        if (more > (SIZE_MAX / 4 - bound)) return E_MEMORY;
        bound += more;
    }
    *text = pool_take(pool, 3 * bound + 1, 1);
    after = pool_mark(pool);
    bytes = pool_take(pool, bound + 1, 1);
    if (!*text || !bytes) return E_MEMORY;
    if (t->kind == TOKENIZER_WORDPIECE) *length = decode_words(t, ids, count, all, *text);
    else if (t->kind == TOKENIZER_SENTENCEPIECE)
        *length = t->json ? decode_joined(t, ids, count, all, *text, bytes) : decode_sentencepiece(t, ids, count, all, *text, bytes);
    else {
        for (i = 0; i < count; i++)
            if (all || (t->piece[ids[i]].type != PIECE_CONTROL && t->piece[ids[i]].type != PIECE_UNKNOWN))
                n = put_token(t, &t->piece[ids[i]], bytes, n);
        *length = put_valid(*text, 0, bytes, n, 0);
    }
    (*text)[*length] = 0;
    keep_only(pool, after, 3 * bound + 1, *length + 1);
    return OK;
}

int tokenizer_decode(const Tokenizer *t, const int *ids, int count, Pool *pool, char **text, size_t *length) {
    return decode(t, ids, count, 0, pool, text, length);
}

int tokenizer_decode_all(const Tokenizer *t, const int *ids, int count, Pool *pool, char **text, size_t *length) {
    return decode(t, ids, count, 1, pool, text, length);
}

/* ================================================================================================================
 * Byte-level BPE: vocab.json and merges.txt
 * ================================================================================================================ */

/* Printable Latin-1 characters stand for themselves, the other 68 bytes for U+0100, U+0101, ... in order. */
static void byte_alphabet(int32_t byte_char[256], int char_byte[0x144]) {
    int b, next = 0x100;
    for (b = 0; b < 0x144; b++) char_byte[b] = -1;
    for (b = 0; b < 256; b++) {
        int printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
        byte_char[b] = printable ? b : next++;
        char_byte[byte_char[b]] = b;
    }
}

/* 1 if j is a whole number that can be an id. */
static int is_id(const Json *j, int *id) {
    if (!j || j->type != JSON_NUMBER || !(j->number >= 0) || j->number > INT_MAX / 4 || j->number != (double)(long)j->number) return 0;
    *id = (int)j->number;
    return 1;
}

/* Tokens and their ids: from 0 without holes, except for `more` ids that added tokens may fill later. copy: the texts do not stay where
 * they are. */
static int load_vocab(Tokenizer *t, const Json *root, size_t more, int copy, Pool *pool, Error *err) {
    const Json *j;
    int i, room;
    if (!root || root->type != JSON_OBJECT || !root->count)
        return fail(err, E_FORMAT, "not an object of tokens and ids", "vocabulary", 0, 0);
    if (root->count > INT_MAX / 8 || more > INT_MAX / 8) return fail(err, E_RANGE, "too many tokens", "vocabulary", 0, 0);
    room = (int)(root->count + more);
    t->V = (int)root->count;
    t->piece = pool_take(pool, (size_t)room, sizeof *t->piece);
    if (!t->piece) return fail(err, E_MEMORY, "not enough memory", "vocabulary", 0, 0);
    for (j = root->child; j; j = j->next) {
        if (!is_id(j, &i)) return fail_piece(err, E_FORMAT, "the id of a token is not a number", j->key, j->key_length, 0, 0);
        if (i >= room) return fail_piece(err, E_UNSUPPORTED, "a vocabulary with holes between its ids", j->key, j->key_length, i, room - 1);
        if (t->piece[i].type) return fail_piece(err, E_FORMAT, "two tokens have one id", j->key, j->key_length, 0, 0);
        if (!j->key_length) return fail_at(err, E_FORMAT, "a token is empty", "vocabulary, id %d", i);
        if (table_find(&t->ordinary, j->key, j->key_length) >= 0)
            return fail_piece(err, E_FORMAT, "a token stands in the vocabulary twice", j->key, j->key_length, 0, 0);
        t->piece[i].text = copy ? pool_text(pool, j->key, j->key_length) : j->key;
        t->piece[i].length = j->key_length;
        t->piece[i].type = PIECE_NORMAL;
        if (i >= t->V) t->V = i + 1;
        if (!t->piece[i].text || table_add(&t->ordinary, pool, t->piece[i].text, j->key_length, i))
            return fail(err, E_MEMORY, "not enough memory", "vocabulary", 0, 0);
    }
    for (i = 0; i < 256 && t->kind == TOKENIZER_BYTELEVEL; i++) {
        char c[4];
        t->byte_id[i] = table_find(&t->ordinary, c, (size_t)utf8_encode(c, t->byte_char[i]));
    }
    return OK;
}

/* Room for n merges. */
static int begin_merges(Tokenizer *t, size_t n, Pool *pool, Error *err) {
    size_t i;
    if (n > (1 << 24))                      /* up to here, ranks are exact as floats */
        return fail(err, E_RANGE, "too many merges", "merges", (long long)n, 1 << 24);
    for (t->merge_slots = 16; t->merge_slots < 2 * n; ) t->merge_slots *= 2;
    t->merge = pool_take(pool, t->merge_slots, sizeof *t->merge);
    if (!t->merge) return fail(err, E_MEMORY, "not enough memory", "merges", 0, 0);
    for (i = 0; i < t->merge_slots; i++) t->merge[i].id = -1;
    return OK;
}

/* Merge number `rank`: both and their union are tokens. A pair that comes twice counts where it comes last. place, number: for errors. */
static int add_merge(Tokenizer *t, Text left, Text right, int rank, const char *place, int number, Pool *pool, Error *err) {
    PoolMark mark = pool_mark(pool);
    char *both = pool_take(pool, left.length + right.length, 1);
    Merge m;
    if (!left.length || !right.length) return fail_at(err, E_FORMAT, "not two tokens", place, number);
    if (!both) return fail(err, E_MEMORY, "not enough memory", "merges", 0, 0);
    memcpy(both, left.text, left.length);
    memcpy(both + left.length, right.text, right.length);
    m.left = table_find(&t->ordinary, left.text, left.length);
    m.right = table_find(&t->ordinary, right.text, right.length);
    m.id = table_find(&t->ordinary, both, left.length + right.length);
    m.rank = rank;
    pool_release(pool, mark);
    if (m.left < 0 || m.right < 0 || m.id < 0)
        return fail_at(err, E_MISSING, "a merge of tokens that the vocabulary does not have", place, number);
    *merge_slot(t, m.left, m.right) = m;
    return OK;
}

/* The same for "left right". */
static int add_merge_line(Tokenizer *t, const char *s, size_t n, int rank, const char *place, int number, Pool *pool, Error *err) {
    const char *gap = memchr(s, ' ', n);
    Text left = { s, gap ? (size_t)(gap - s) : 0 }, right = { NULL, 0 };
    if (gap) { right.text = gap + 1; right.length = n - left.length - 1; }
    if (!gap || memchr(right.text, ' ', right.length)) return fail_at(err, E_FORMAT, "not two tokens", place, number);
    return add_merge(t, left, right, rank, place, number, pool, err);
}

static int load_merges(Tokenizer *t, const char *s, size_t n, Pool *pool, Error *err) {
    const char *end = s + n, *p, *stop;
    size_t lines = 1;
    int rank = 0, line = 0, blank_line = 0, code;
    for (p = s; p < end; p++) lines += *p == '\n';
    code = begin_merges(t, lines, pool, err);
    for (p = s; !code && p < end; p = stop + (stop < end)) {
        size_t length;
        stop = memchr(p, '\n', (size_t)(end - p));
        if (!stop) stop = end;
        length = (size_t)(stop - p);
        if (length && p[length - 1] == '\r') length--;
        line++;
        if (starts_with(p, length, "#version", 8)) continue;
        if (!length) { blank_line = line; continue; }
        if (blank_line) return fail_at(err, E_FORMAT, "an empty line", "merges.txt, line %d", blank_line);
        code = add_merge_line(t, p, length, rank++, "merges.txt, line %d", line, pool, err);
    }
    return code;
}

static int find_text(const Tokenizer *t, const char *text) { return table_find(&t->ordinary, text, strlen(text)); }

/* The vocabulary says whose it is; its special tokens do not take part in decoding. */
static void bytelevel_specials(Tokenizer *t) {
    static const char *const control[] = { "<s>", "<pad>", "</s>", "<mask>" };
    size_t i;
    t->before = t->after = find_text(t, "<s>") == 0 && find_text(t, "</s>") == 2;    /* RoBERTa's */
    t->special.unk = find_text(t, "<unk>");
    if (t->special.unk >= 0) t->piece[t->special.unk].type = PIECE_UNKNOWN;
    if (t->before) {
        t->special.bos = 0;
        t->special.eos = 2;
        t->special.pad = find_text(t, "<pad>");
        for (i = 0; i < sizeof control / sizeof *control; i++)
            if (find_text(t, control[i]) >= 0) t->piece[find_text(t, control[i])].type = PIECE_CONTROL;
    } else {
        int end = find_text(t, "<|endoftext|>");
        t->special.bos = t->special.eos = end;
        if (t->special.unk < 0) t->special.unk = end;
        if (end >= 0) t->piece[end].type = PIECE_CONTROL;
    }
    t->missing = t->special.unk;
}

Tokenizer *tokenizer_bytelevel(const void *vocab, size_t vocab_n, const void *merges, size_t merges_n, Pool *pool, Error *err) {
    Tokenizer *t = new_tokenizer(TOKENIZER_BYTELEVEL, pool);
    const Json *root;
    if (t) { t->file[0] = pool_text(pool, vocab, vocab_n); t->file[1] = pool_text(pool, merges, merges_n); }
    if (!t || !t->file[0] || !t->file[1]) { fail(err, E_MEMORY, "not enough memory", "vocab.json", 0, 0); return NULL; }
    t->file_length[0] = vocab_n;
    t->file_length[1] = merges_n;
    byte_alphabet(t->byte_char, t->char_byte);
    root = json_parse(t->file[0], vocab_n, pool, err);
    if (!root || load_vocab(t, root, 0, 0, pool, err) || load_merges(t, t->file[1], merges_n, pool, err)) return NULL;
    if (index_words(t, pool, err)) return NULL;
    bytelevel_specials(t);
    return t;
}

/* ================================================================================================================
 * Added tokens: the list, and what lies beside a tokenizer's own files
 * ================================================================================================================ */
static int compare_added(const void *a, const void *b) {
    const AddedToken *p = a, *q = b;
    return (p->id > q->id) - (p->id < q->id);
}

/* The sorted texts that are looked for: as they are (c 0), and of those with `normalized` the normal form (c 1; only tokenizer.json has
 * such). */
static int make_cuts(Tokenizer *t, int c, Pool *pool, Error *err) {
    Cuts *cuts = &t->cut[c];
    int i, n = 0;
    memset(cuts, 0, sizeof *cuts);
    cuts->key = pool_take(pool, (size_t)t->addeds, sizeof *cuts->key);
    if (!cuts->key) return fail(err, E_MEMORY, "not enough memory", "added tokens", 0, 0);
    for (i = 0; i < t->addeds; i++) {
        const AddedToken *a = &t->added[i];
        Piece *k = &cuts->key[n];
        if ((a->normalized && t->json) != c) continue;
        k->text = a->text; k->length = a->length; k->type = i;
        if (c && t->pipeline) {
            Text normal = { a->text, a->length };
            Origin *none = NULL;
            int lost;
            if (run_steps(t, &normal, &none, &lost, pool)) return fail(err, E_MEMORY, "not enough memory", "added tokens", 0, 0);
            k->text = normal.text; k->length = normal.length;
            if (!k->length) continue;
        } else if (c && t->prepends) {
            char *normal = pool_take(pool, normalise(t, a->text, a->length, 1, NULL, NULL) + 1, 1);
            if (!normal) return fail(err, E_MEMORY, "not enough memory", "added tokens", 0, 0);
            k->length = normalise(t, a->text, a->length, 1, normal, NULL);
            k->text = normal;
        }
        cuts->first[(unsigned char)*k->text / 8] |= (unsigned char)(1u << (unsigned char)*k->text % 8);
        n++;
    }
    if (n) qsort(cuts->key, (size_t)n, sizeof *cuts->key, compare_text);
    for (i = 0; i < n; i++)                 /* two normal forms may be equal: one of them is found */
        if (!i || compare_text(&cuts->key[i], &cuts->key[cuts->keys - 1])) cuts->key[cuts->keys++] = cuts->key[i];
    return OK;
}

/* An added token takes its place among the pieces. */
static int place_added(Tokenizer *t, AddedToken *a, Pool *pool, Error *err) {
    Piece *p = &t->piece[a->id];
    int id = tokenizer_find(t, a->text, a->length);
    if (id >= 0 && id != a->id) return fail_piece(err, E_FORMAT, "an added token has two ids", a->text, a->length, a->id, id);
    if (p->text && (p->length != a->length || memcmp(p->text, a->text, a->length)))
        return fail_piece(err, E_FORMAT, "the id of an added token is another token's", a->text, a->length, 0, 0);
    if (!p->text) {
        p->text = a->text; p->length = a->length;
        p->type = a->special ? PIECE_CONTROL : PIECE_ADDED;
        if (table_add(&t->extra, pool, a->text, a->length, a->id)) return fail(err, E_MEMORY, "not enough memory", "added tokens", 0, 0);
    } else if (a->special && (p->type == PIECE_NORMAL || p->type == PIECE_ADDED)) p->type = PIECE_CONTROL;
    a->beyond = table_find(&t->extra, a->text, a->length) >= 0;
    return OK;
}

/* Adds tokens to a tokenizer, or says more about those that it has. Afterwards no id is without a piece. */
static int add_tokens(Tokenizer *t, const AddedToken *token, size_t count, Pool *pool, Error *err) {
    size_t room = (size_t)t->V + count, i;
    int *place = count < INT_MAX / 8 ? pool_take(pool, room, sizeof *place) : NULL, n = t->addeds, V = t->V, code = OK, c;
    AddedToken *list = place ? pool_take(pool, (size_t)n + count, sizeof *list) : NULL;
    Piece *piece = list ? pool_take(pool, room, sizeof *piece) : NULL;
    if (!piece) return fail(err, E_MEMORY, "not enough memory", "added tokens", 0, 0);
    for (c = 0; c < n; c++) { list[c] = t->added[c]; place[list[c].id] = c + 1; }
    for (i = 0; i < count; i++) {
        const AddedToken *a = &token[i];
        AddedToken *to;
        if (!a->length) continue;
        if (a->id < 0 || (size_t)a->id >= room)
            return fail_piece(err, E_UNSUPPORTED, "a hole between the ids of added tokens", a->text, a->length, a->id, (long long)room - 1);
        if (!place[a->id]) place[a->id] = ++n;
        to = &list[place[a->id] - 1];
        if (to->length && (to->length != a->length || memcmp(to->text, a->text, a->length)))
            return fail_piece(err, E_FORMAT, "two added tokens have one id", a->text, a->length, 0, 0);
        *to = *a;
        to->text = pool_text(pool, a->text, a->length);
        if (!to->text) return fail(err, E_MEMORY, "not enough memory", "added tokens", 0, 0);
        if (a->id >= V) V = a->id + 1;
    }
    if (t->V) memcpy(piece, t->piece, (size_t)t->V * sizeof *piece);
    t->piece = piece; t->V = V;
    t->added = list; t->addeds = n;
    for (c = 0; c < n && !code; c++) code = place_added(t, &list[c], pool, err);
    for (c = 0; c < V && !code; c++)
        if (!piece[c].text) code = fail_at(err, E_UNSUPPORTED, "an id without a token", "id %d", c);
    if (n) qsort(list, (size_t)n, sizeof *list, compare_added);
    for (c = 0; c < 2 && !code && n; c++) code = make_cuts(t, c, pool, err);
    return code;
}

/* {"content", "special", "lstrip" ...} */
static int parse_added(AddedToken *a, const Json *j, const Json *id, Error *err) {
    const Json *content = json_get(j, "content");
    memset(a, 0, sizeof *a);
    if (!content || content->type != JSON_STRING) return fail(err, E_FORMAT, "an added token without content", "added tokens", 0, 0);
    a->text = content->string; a->length = content->length;
    if (!is_id(id, &a->id)) return fail_piece(err, E_FORMAT, "the id of an added token is not a number", a->text, a->length, 0, 0);
    a->special = json_bool(j, "special", 0);
    a->lstrip = json_bool(j, "lstrip", 0);
    a->rstrip = json_bool(j, "rstrip", 0);
    a->single_word = json_bool(j, "single_word", 0);
    a->normalized = json_bool(j, "normalized", !a->special);
    return OK;
}

/* The text of "pad_token": "..." or {"content": "..."}; NULL if there is none. */
static const Json *token_name(const Json *j) {
    if (j && j->type == JSON_OBJECT) j = json_get(j, "content");
    return j && j->type == JSON_STRING ? j : NULL;
}

static const char *const name_key[] = { "bos_token", "eos_token", "unk_token", "pad_token", "cls_token", "sep_token", "mask_token" };

/* 1 if a file names this text as a special token. */
static int is_named(const Json *file, const Json *text) {
    const Json *list = json_get(file, "additional_special_tokens"), *j = NULL;
    size_t i;
    for (i = 0; i < sizeof name_key / sizeof *name_key; i++) {
        const Json *name = token_name(json_get(file, name_key[i]));
        if (name && name->length == text->key_length && !memcmp(name->string, text->key, name->length)) return 1;
    }
    if (list && list->type == JSON_ARRAY) j = list->child;
    for (; j; j = j->next) {
        const Json *name = token_name(j);
        if (name && name->length == text->key_length && !memcmp(name->string, text->key, name->length)) return 1;
    }
    return 0;
}

/* added_tokens.json {"[PAD]": 32000} and tokenizer_config.json's added_tokens_decoder {"32000": {...}} in one list; the latter says more, so
 * it comes last. */
static int read_beside(AddedToken *list, size_t *count, const Json *added, const Json *config, const Json *map, Error *err) {
    const Json *decoder = json_get(config, "added_tokens_decoder"), *j;
    size_t i;
    *count = 0;
    for (j = added ? added->child : NULL; j; j = j->next) {
        AddedToken *a = &list[(*count)++];
        memset(a, 0, sizeof *a);
        a->text = j->key; a->length = j->key_length;
        if (!is_id(j, &a->id)) return fail_piece(err, E_FORMAT, "the id of an added token is not a number", a->text, a->length, 0, 0);
        a->special = is_named(config, j) || is_named(map, j);
    }
    for (j = decoder ? decoder->child : NULL; j; j = j->next) {
        Json id;
        memset(&id, 0, sizeof id);
        id.type = j->key_length && j->key_length < 10 ? JSON_NUMBER : JSON_NULL;
        for (i = 0; i < j->key_length; i++) {
            if (j->key[i] < '0' || j->key[i] > '9') id.type = JSON_NULL;
            id.number = 10 * id.number + (j->key[i] - '0');
        }
        if (parse_added(&list[(*count)++], j, &id, err)) return E_FORMAT;
    }
    return OK;
}

static int name_special(const Tokenizer *t, const char *key, const Json *config, const Json *map, int otherwise) {
    const Json *name = token_name(json_get(config, key));
    int id = -1;
    if (!name) name = token_name(json_get(map, key));
    if (name) id = tokenizer_find(t, name->string, name->length);
    return id >= 0 ? id : otherwise;
}

/* chat_template: a text, or a list of {"name", "template"} of which "default" counts. */
static int keep_chat_template(Tokenizer *t, const Json *config, Pool *pool, Error *err) {
    const Json *j = json_get(config, "chat_template"), *one = j && j->type == JSON_ARRAY ? j->child : NULL;
    for (; one; one = one->next)
        if (!strcmp(json_text(one, "name", ""), "default")) j = json_get(one, "template");
    if (!j || j->type != JSON_STRING) return OK;
    t->chat_template = pool_text(pool, j->string, j->length);
    return t->chat_template ? OK : fail(err, E_MEMORY, "not enough memory", "chat_template", 0, 0);
}

int tokenizer_beside(Tokenizer *t, const Json *added, const Json *config, const Json *map, Pool *pool, Error *err) {
    const Json *decoder = json_get(config, "added_tokens_decoder");
    size_t room = 1 + (added && added->type == JSON_OBJECT ? added->count : 0), count;
    AddedToken *list;
    int code;
    if (added && added->type != JSON_OBJECT) return fail(err, E_FORMAT, "not an object of tokens and ids", "added_tokens.json", 0, 0);
    if (decoder && decoder->type != JSON_OBJECT && decoder->type != JSON_NULL)
        return fail(err, E_FORMAT, "not an object of ids and tokens", "added_tokens_decoder", 0, 0);
    if (decoder) room += decoder->count;
    list = pool_take(pool, room, sizeof *list);
    if (!list) return fail(err, E_MEMORY, "not enough memory", "added tokens", 0, 0);
    code = read_beside(list, &count, added, config, map, err);
    if (!code && count) code = add_tokens(t, list, count, pool, err);
    if (code) return code;
    if (t->kind == TOKENIZER_SENTENCEPIECE) {
        t->before = json_bool(config, "add_bos_token", t->before) && t->special.bos >= 0;
        t->after = json_bool(config, "add_eos_token", t->after) && t->special.eos >= 0;
    }
    if (t->kind == TOKENIZER_SENTENCEPIECE && !t->json && !json_bool(config, "legacy", 1)) {
        if (t->remove_extra_whitespaces)    /* its spaces behind special tokens are kept or not by rules of their own */
            return fail(err, E_UNSUPPORTED, "\"legacy\": false with a model that removes extra white space", "tokenizer_config.json", 0, 0);
        if (!json_bool(config, "add_prefix_space", 1))
            return fail(err, E_UNSUPPORTED, "\"legacy\": false with \"add_prefix_space\": false", "tokenizer_config.json", 0, 0);
        t->only_first = 1;
    }
    if (t->kind == TOKENIZER_WORDPIECE && !t->json) {       /* strip_accents: null is as do_lower_case says */
        t->bert.lower = json_bool(config, "do_lower_case", t->bert.lower);
        t->bert.strip = json_bool(config, "strip_accents", t->bert.lower);
        t->bert.ideographs = json_bool(config, "tokenize_chinese_chars", t->bert.ideographs);
    }
    if (!t->before) t->special.bos = name_special(t, "bos_token", config, map, t->special.bos);
    if (!t->after) t->special.eos = name_special(t, "eos_token", config, map, t->special.eos);
    t->special.pad = name_special(t, "pad_token", config, map, t->special.pad);
    return keep_chat_template(t, config, pool, err);
}

/* ================================================================================================================
 * WordPiece: vocab.txt
 * ================================================================================================================ */

/* The pieces are there: their tries, BERT's names, and what they are for. */
static int finish_wordpiece(Tokenizer *t, const char *prefix, int unk, Pool *pool, Error *err) {
    static const char *const control[] = { "[CLS]", "[SEP]", "[PAD]", "[MASK]" };
    size_t i;
    if (unk < 0) return fail(err, E_MISSING, "there is no unknown piece", "WordPiece vocabulary", 0, 0);
    t->special.unk = t->wordpiece.unk = unk;
    if (wordpiece_build(&t->wordpiece, t->piece, t->V, prefix, pool))
        return fail(err, E_MEMORY, "not enough memory", "WordPiece vocabulary", 0, 0);
    t->piece[unk].type = PIECE_UNKNOWN;
    for (i = 0; i < sizeof control / sizeof *control; i++)
        if (find_text(t, control[i]) >= 0) t->piece[find_text(t, control[i])].type = PIECE_CONTROL;
    t->special.bos = find_text(t, "[CLS]");
    t->special.eos = find_text(t, "[SEP]");
    t->special.pad = find_text(t, "[PAD]");
    return OK;
}

Tokenizer *tokenizer_wordpiece(const void *vocab, size_t n, Pool *pool, Error *err) {
    Tokenizer *t = new_tokenizer(TOKENIZER_WORDPIECE, pool);
    const char *p, *end, *stop;
    size_t lines = 0;
    int id;
    if (t) t->file[0] = pool_text(pool, vocab, n);
    if (!t || !t->file[0]) { fail(err, E_MEMORY, "not enough memory", "vocab.txt", 0, 0); return NULL; }
    t->file_length[0] = n;
    end = t->file[0] + n;
    for (p = t->file[0]; p < end; p++) lines += *p == '\n' || p + 1 == end;
    if (!lines || lines > INT_MAX / 8) { fail(err, E_FORMAT, "not a list of tokens, one a line", "vocab.txt", 0, 0); return NULL; }
    t->V = (int)lines;
    t->piece = pool_take(pool, lines, sizeof *t->piece);
    if (!t->piece) { fail(err, E_MEMORY, "not enough memory", "vocab.txt", 0, 0); return NULL; }
    for (id = 0, p = t->file[0]; p < end; p = stop + 1, id++) {
        Piece *piece = &t->piece[id];
        stop = memchr(p, '\n', (size_t)(end - p));
        if (!stop) stop = end;
        piece->text = p;
        for (piece->length = (size_t)(stop - p); piece->length && strchr(" \t\r", p[piece->length - 1]); ) piece->length--;
        piece->type = PIECE_NORMAL;
        if (!piece->length) { fail_at(err, E_FORMAT, "a token is empty", "vocab.txt, line %d", id + 1); return NULL; }
        if (table_find(&t->ordinary, p, piece->length) >= 0) {
            fail_piece(err, E_FORMAT, "a token stands in the vocabulary twice", p, piece->length, 0, 0);
            return NULL;
        }
        if (table_add(&t->ordinary, pool, p, piece->length, id)) { fail(err, E_MEMORY, "not enough memory", "vocab.txt", 0, 0); return NULL; }
    }
    t->bert.clean = t->bert.ideographs = t->bert.strip = t->bert.lower = 1;
    t->wordpiece.most = 100;
    if (finish_wordpiece(t, "##", find_text(t, "[UNK]"), pool, err)) return NULL;
    t->before = t->special.bos >= 0;
    t->after = t->special.eos >= 0;
    return t;
}

/* ================================================================================================================
 * tokenizer.json: byte-level BPE, and BPE with byte fallback (SentencePiece's pieces, with a list of merges)
 * ================================================================================================================ */
static const char *type_of(const Json *part) { return json_text(part, "type", "(no type)"); }
static int is_type(const Json *part, const char *type) { return !strcmp(type_of(part), type); }
static int is_text(const Json *object, const char *key, const char *text) { return !strcmp(json_text(object, key, ""), text); }

/* Step i of a part that is null, one step, or a Sequence of them (under `key`); NULL behind the last. */
static const Json *step(const Json *part, const char *key, size_t i) {
    const Json *j;
    if (!part || part->type == JSON_NULL) return NULL;
    if (!is_type(part, "Sequence")) return i ? NULL : part;
    j = json_get(part, key);
    for (j = j && j->type == JSON_ARRAY ? j->child : NULL; j && i; i--) j = j->next;
    return j;
}

/* Refuses a step of the kind `what` by its name. */
static int refuse_step(Error *err, const char *what, const Json *part) {
    return fail(err, E_UNSUPPORTED, what, type_of(part), 0, 0);
}

/* What a model of the type BPE may ask for and does not get. */
static int check_model(const Json *model, Error *err) {
    static const char *const affix[] = { "continuing_subword_prefix", "end_of_word_suffix" };
    const Json *type = json_get(model, "type");
    int i;
    if (!model || model->type != JSON_OBJECT) return fail(err, E_UNSUPPORTED, "a tokenizer without a model", "tokenizer.json", 0, 0);
    if (is_type(model, "WordPiece") || is_type(model, "Unigram")) return OK;
    if (type ? !is_type(model, "BPE") : !json_get(model, "merges")) return fail(err, E_UNSUPPORTED, "model type", type_of(model), 0, 0);
    if (json_number(model, "dropout", 0) != 0) return fail(err, E_UNSUPPORTED, "a model with dropout", "tokenizer.json", 0, 0);
    for (i = 0; i < 2; i++)
        if (*json_text(model, affix[i], "")) return fail(err, E_UNSUPPORTED, "a model with", affix[i], 0, 0);
    return OK;
}

/* Prepend U+2581, Replace the space by U+2581: Llama's two steps. Every text between added tokens has its own prefix. */
static int load_normalizer(Tokenizer *t, const Json *normalizer, Error *err) {
    const Json *s;
    size_t i;
    for (i = 0; (s = step(normalizer, "normalizers", i)) != NULL; i++) {
        if (t->kind == TOKENIZER_SENTENCEPIECE && is_type(s, "Prepend") && is_text(s, "prepend", blank)) t->add_dummy_prefix = t->prepends = 1;
        else if (t->kind == TOKENIZER_SENTENCEPIECE && is_type(s, "Replace") && is_text(s, "content", blank) &&
                 is_text(json_get(s, "pattern"), "String", " ")) t->escape_whitespaces = t->prepends = 1;
        else return refuse_step(err, "normalizer", s);
    }
    return OK;
}

/* The last of the steps that are allowed, a Metaspace: spaces become U+2581, and one is put before a text that does not begin with one:
 * always, or first (not behind an added token), or never. split: nothing merges over a U+2581. */
static int load_metaspace(Tokenizer *t, const Json *pre, Error *err) {
    const Json *s = step(pre, "pretokenizers", 0);
    const char *scheme;
    if (s && t->pipeline && is_type(s, "WhitespaceSplit")) t->split_words = 1;
    if (t->split_words) s = step(pre, "pretokenizers", 1);
    if (!s) return OK;
    if (!is_type(s, "Metaspace") || step(pre, "pretokenizers", 1 + (size_t)t->split_words) || t->prepends || strcmp(json_text(s, "replacement", blank), blank))
        return refuse_step(err, "pre_tokenizer", s);
    scheme = json_text(s, "prepend_scheme", json_bool(s, "add_prefix_space", 1) ? "always" : "never");
    t->only_first = !strcmp(scheme, "first");
    if (!t->only_first && strcmp(scheme, "always") && strcmp(scheme, "never"))
        return fail(err, E_UNSUPPORTED, "Metaspace with prepend_scheme", scheme, 0, 0);
    if (t->only_first && t->split_words) return fail(err, E_UNSUPPORTED, "WhitespaceSplit before a Metaspace with prepend_scheme", scheme, 0, 0);
    t->add_dummy_prefix = strcmp(scheme, "never") != 0;
    t->escape_whitespaces = t->unless_blank = 1;
    t->split_blanks = json_bool(s, "split", 1);
    return OK;
}

/* ByteLevel, or a Split by a pattern that we know before it. */
static int load_bytelevel(Tokenizer *t, const Json *pre, Error *err) {
    static const struct { const char *pattern; int split, digits; } known[] = {
        { "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", SPLIT_GPT2, 0 },
        { "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}"
          "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", SPLIT_LLAMA3, 3 },
        { "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
          "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", SPLIT_LLAMA3, 1 },
    };
    const Json *s = step(pre, "pretokenizers", 0), *pattern;
    size_t i;
    int split = -1;
    if (is_type(s, "Split")) {
        pattern = json_get(s, "pattern");
        for (i = 0; i < sizeof known / sizeof *known; i++)
            if (is_text(pattern, "Regex", known[i].pattern)) { split = known[i].split; t->digits = known[i].digits; }
        if (split < 0)
            return fail(err, E_UNSUPPORTED, "pre_tokenizer Split by another pattern", json_text(pattern, "Regex", "(no Regex)"), 0, 0);
        if (!is_text(s, "behavior", "Isolated") && !(is_text(s, "behavior", "Removed") && json_bool(s, "invert", 0)))
            return fail(err, E_UNSUPPORTED, "pre_tokenizer Split with behavior", json_text(s, "behavior", "(none)"), 0, 0);
        s = step(pre, "pretokenizers", 1);
        if (json_bool(s, "add_prefix_space", 1)) return fail(err, E_UNSUPPORTED, "add_prefix_space behind a Split", "tokenizer.json", 0, 0);
    }
    if (!s || !is_type(s, "ByteLevel")) return refuse_step(err, "pre_tokenizer", s);
    if (json_bool(s, "use_regex", 1) && split == SPLIT_LLAMA3)
        return fail(err, E_UNSUPPORTED, "use_regex behind a Split", "tokenizer.json", 0, 0);
    t->prefix_space = json_bool(s, "add_prefix_space", 1);
    t->split = split >= 0 ? split : json_bool(s, "use_regex", 1) ? SPLIT_GPT2 : SPLIT_NONE;
    s = step(pre, "pretokenizers", split >= 0 ? 2 : 1);
    return s ? refuse_step(err, "pre_tokenizer", s) : OK;
}

/* Byte pieces, and which bytes stand next to each other in a piece. */
static int index_fallback(Tokenizer *t, Error *err) {
    size_t k;
    int i, byte;
    t->byte_fallback = 1;
    for (i = 0; i < t->V; i++) {
        Piece *p = &t->piece[i];
        byte = p->text ? byte_of_piece(p) : -1;
        if (byte >= 0) { p->type = PIECE_BYTE; t->byte_id[byte] = i; }
        for (k = 1; k < p->length; k++) {
            unsigned pair = (unsigned)(unsigned char)p->text[k - 1] << 8 | (unsigned char)p->text[k];
            t->touch[pair / 8] |= (unsigned char)(1u << pair % 8);
        }
    }
    for (i = 0; i < 256; i++)
        if (t->byte_id[i] < 0) return fail_at(err, E_MISSING, "byte_fallback without a token for each byte", "byte %d", i);
    return OK;
}

/* merges: "left right", or ["left", "right"]. */
static int load_json_merges(Tokenizer *t, const Json *merges, Pool *pool, Error *err) {
    static const char place[] = "merge %d";
    const Json *j;
    int rank = 0, code;
    if (!merges || merges->type != JSON_ARRAY) return fail(err, E_FORMAT, "not a list", "merges", 0, 0);
    code = begin_merges(t, merges->count, pool, err);
    for (j = merges->child; j && !code; j = j->next, rank++) {
        const Json *a = j->type == JSON_ARRAY && j->count == 2 ? j->child : NULL, *b = a ? a->next : NULL;
        if (j->type == JSON_STRING) code = add_merge_line(t, j->string, j->length, rank, place, rank, pool, err);
        else if (a && a->type == JSON_STRING && b->type == JSON_STRING) {
            Text left = { a->string, a->length }, right = { b->string, b->length };
            code = add_merge(t, left, right, rank, place, rank, pool, err);
        } else code = fail_at(err, E_FORMAT, "not two tokens", place, rank);
    }
    return code;
}

static int load_added(Tokenizer *t, const Json *added, Pool *pool, Error *err) {
    const Json *j = added && added->type == JSON_ARRAY ? added->child : NULL;
    size_t count = 0;
    AddedToken *list = pool_take(pool, 1 + (j ? added->count : 0), sizeof *list);
    if (!list) return fail(err, E_MEMORY, "not enough memory", "added tokens", 0, 0);
    for (; j; j = j->next) if (parse_added(&list[count++], j, json_get(j, "id"), err)) return E_FORMAT;
    return add_tokens(t, list, count, pool, err);
}

/* ["</s>", 2] of RobertaProcessing. */
static int pair_id(const Tokenizer *t, const Json *pair, int *id) {
    return pair && pair->type == JSON_ARRAY && pair->count == 2 && is_id(pair->child->next, id) && *id < t->V;
}

/* TemplateProcessing's "single": at most one special token before the text and one behind it. */
static int load_template(Tokenizer *t, const Json *s, Error *err) {
    const Json *single = json_get(s, "single"), *specials = json_get(s, "special_tokens"), *j, *ids;
    int texts = 0, id;
    for (j = single && single->type == JSON_ARRAY ? single->child : NULL; j; j = j->next) {
        const Json *token = json_get(j, "SpecialToken");
        if (json_get(j, "Sequence")) { texts++; continue; }
        ids = json_get(json_get(specials, json_text(token, "id", "")), "ids");
        if (!ids || ids->type != JSON_ARRAY || ids->count != 1 || !is_id(ids->child, &id) || id >= t->V)
            return fail(err, E_FORMAT, "TemplateProcessing with a special token without one id", json_text(token, "id", "?"), 0, 0);
        if (texts ? t->after : t->before)
            return fail(err, E_UNSUPPORTED, "TemplateProcessing with two special tokens side by side", "tokenizer.json", 0, 0);
        if (texts) { t->after = 1; t->special.eos = id; } else { t->before = 1; t->special.bos = id; }
    }
    return texts == 1 ? OK : fail(err, E_FORMAT, "TemplateProcessing without its text", "tokenizer.json", texts, 1);
}

static int load_processor(Tokenizer *t, const Json *processor, Error *err) {
    const Json *s;
    size_t i;
    int code = OK;
    for (i = 0; !code && (s = step(processor, "processors", i)) != NULL; i++) {
        if (is_type(s, "TemplateProcessing")) code = load_template(t, s, err);
        else if (is_type(s, "RobertaProcessing") || is_type(s, "BertProcessing")) {
            t->before = t->after = 1;
            if (!pair_id(t, json_get(s, "cls"), &t->special.bos) || !pair_id(t, json_get(s, "sep"), &t->special.eos))
                code = fail(err, E_FORMAT, "a post_processor without its tokens", type_of(s), 0, 0);
        } else if (!is_type(s, "ByteLevel")) code = refuse_step(err, "post_processor", s);
    }
    return code;
}

/* ByteLevel; or Replace U+2581 by a space, ByteFallback, Fuse, and perhaps Strip of one space; or, of Unigram, Metaspace (to which the
 * pieces of bytes are like any others). */
static int load_decoder(Tokenizer *t, const Json *decoder, Error *err) {
    const Json *s = step(decoder, "decoders", 0);
    size_t i;
    int bytelevel = t->kind == TOKENIZER_BYTELEVEL, have = 0;
    if (t->pipeline && s && is_type(s, "Metaspace") && !step(decoder, "decoders", 1) && is_text(s, "replacement", blank)) {
        t->bare_first = !is_text(s, "prepend_scheme", "never") && json_bool(s, "add_prefix_space", 1);
        return OK;
    }
    for (i = 0; i < 256 && t->pipeline; i++) if (t->byte_id[i] >= 0) t->piece[t->byte_id[i]].type = PIECE_BYTE;
    for (i = 0; (s = step(decoder, "decoders", i)) != NULL; i++) {
        if (bytelevel && is_type(s, "ByteLevel")) have = 7;
        else if (!bytelevel && is_type(s, "Replace") && is_text(s, "content", " ") && is_text(json_get(s, "pattern"), "String", blank))
            have |= 1;
        else if (!bytelevel && is_type(s, "ByteFallback")) have |= 2;
        else if (!bytelevel && is_type(s, "Fuse")) have |= 4;
        else if (!bytelevel && have == 7 && is_type(s, "Strip") && is_text(s, "content", " ") && json_number(s, "stop", 0) == 0 &&
                 (json_number(s, "start", 0) == 0 || json_number(s, "start", 0) == 1)) t->strip = json_number(s, "start", 0) == 1;
        else return refuse_step(err, "decoder", s);
    }
    return have == 7 ? OK : fail(err, E_UNSUPPORTED, "a decoder without its usual steps",
                                 bytelevel ? "ByteLevel" : "Replace, ByteFallback, Fuse", 0, 0);
}

/* The special token of one of these names, where nothing else told. */
static void guess(const Tokenizer *t, int *id, const char *const *name) {
    for (; *id < 0 && *name; name++) {
        *id = tokenizer_find(t, *name, strlen(*name));
        if (*id >= 0 && t->piece[*id].type != PIECE_CONTROL) *id = -1;
    }
}

/* BertNormalizer, BertPreTokenizer, a WordPiece model and decoder. */
static int load_bert(Tokenizer *t, const Json *root, Pool *pool, Error *err) {
    const Json *model = json_get(root, "model"), *normalizer = json_get(root, "normalizer"), *pre = json_get(root, "pre_tokenizer"),
               *decoder = json_get(root, "decoder"), *added = json_get(root, "added_tokens");
    const char *unk = json_text(model, "unk_token", "[UNK]");
    double most = json_number(model, "max_input_chars_per_word", 100);
    int code;
    t->kind = TOKENIZER_WORDPIECE;
    if (!normalizer || !is_type(normalizer, "BertNormalizer")) return refuse_step(err, "normalizer of a WordPiece model", normalizer);
    if (!pre || !is_type(pre, "BertPreTokenizer")) return refuse_step(err, "pre_tokenizer of a WordPiece model", pre);
    if (!decoder || !is_type(decoder, "WordPiece") || !is_text(decoder, "prefix", "##")) return refuse_step(err, "decoder of a WordPiece model", decoder);
    if (strcmp(json_text(model, "continuing_subword_prefix", "##"), "##"))
        return fail(err, E_UNSUPPORTED, "a WordPiece model with another prefix than ##", "tokenizer.json", 0, 0);
    if (!(most >= 0 && most <= INT_MAX)) return fail(err, E_RANGE, "max_input_chars_per_word", "tokenizer.json", 0, 0);
    t->wordpiece.most = (int)most;
    t->bert.clean = json_bool(normalizer, "clean_text", 1);
    t->bert.ideographs = json_bool(normalizer, "handle_chinese_chars", 1);
    t->bert.lower = json_bool(normalizer, "lowercase", 1);
    t->bert.strip = json_bool(normalizer, "strip_accents", t->bert.lower);
    t->keep_spaces = !json_bool(decoder, "cleanup", 1);
    code = load_vocab(t, json_get(model, "vocab"), added && added->type == JSON_ARRAY ? added->count : 0, 1, pool, err);
    if (!code) code = finish_wordpiece(t, "##", find_text(t, unk), pool, err);
    if (!code) code = load_added(t, added, pool, err);
    return code ? code : load_processor(t, json_get(root, "post_processor"), err);
}

/* Bytes of base64, in *out; with its padding, as the reference wants it. */
static int read_base64(const char *s, size_t n, Text *out, Pool *pool, Error *err) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *bytes = pool_take(pool, n / 4 * 3 + 1, 1);
    uint32_t bits = 0;
    size_t i, made = 0, padding = n >= 2 && s[n - 1] == '=' ? 1 + (s[n - 2] == '=') : 0;
    if (!bytes) return fail(err, E_MEMORY, "not enough memory", "precompiled_charsmap", 0, 0);
    for (i = 0; i < n - padding && n % 4 == 0; i++) {
        const char *at = s[i] ? strchr(digits, s[i]) : NULL;
        if (!at) break;
        bits = bits << 6 | (uint32_t)(at - digits);
        if (i % 4) bytes[made++] = (char)(unsigned char)(bits >> (6 - 2 * (i % 4)) & 255);
    }
    if (!n || n % 4 || i != n - padding) return fail(err, E_FORMAT, "not base64", "precompiled_charsmap", 0, 0);
    out->text = bytes;
    out->length = made;
    return OK;
}

static int is_json_text(const Json *j, Text *out, Pool *pool) {
    if (!j || j->type != JSON_STRING || !(out->text = pool_text(pool, j->string, j->length))) return 0;
    out->length = j->length;
    return 1;
}

/* One normalizer of a Unigram model; `before` is NFD or NFKD, which only StripAccents may follow. */
static int load_step(Tokenizer *t, const Json *s, NormalStep *p, const Json *before, Pool *pool, Error *err) {
    const Json *pattern = json_get(s, "pattern"), *map = json_get(s, "precompiled_charsmap");
    Text table;
    memset(p, 0, sizeof *p);
    if (is_type(s, "StripAccents")) p->kind = !before ? STEP_ACCENTS : is_type(before, "NFD") ? STEP_BASE : STEP_COMPATIBLE;
    else if (before) return fail(err, E_UNSUPPORTED, "a normalizer without StripAccents behind it", type_of(before), 0, 0);
    else if (is_type(s, "Lowercase")) p->kind = STEP_LOWER;
    else if (is_type(s, "Strip")) {
        p->kind = STEP_STRIP;
        p->left = json_bool(s, "strip_left", 1);
        p->right = json_bool(s, "strip_right", 1);
    } else if (is_type(s, "Prepend") && is_json_text(json_get(s, "prepend"), &p->content, pool)) p->kind = STEP_PREPEND;
    else if (is_type(s, "Replace") && is_json_text(json_get(s, "content"), &p->content, pool)) {
        p->kind = is_text(pattern, "Regex", " {2,}") ? STEP_BLANKS : STEP_REPLACE;
        if (p->kind == STEP_REPLACE && (!is_json_text(json_get(pattern, "String"), &p->pattern, pool) || !p->pattern.length))
            return fail(err, E_UNSUPPORTED, "normalizer Replace of another pattern", json_text(pattern, "Regex", "(no text)"), 0, 0);
    } else if (is_type(s, "Precompiled") && map && map->type == JSON_STRING && !t->trie) {
        int code = read_base64(map->string, map->length, &table, pool, err);
        p->kind = STEP_RULES;
        return code ? code : set_rules(t, table, err);
    } else return refuse_step(err, "normalizer", s);
    return OK;
}

static int load_steps(Tokenizer *t, const Json *normalizer, Pool *pool, Error *err) {
    const Json *s, *before = NULL;
    size_t i;
    t->step = pool_take(pool, STEPS, sizeof *t->step);
    if (!t->step) return fail(err, E_MEMORY, "not enough memory", "normalizer", 0, 0);
    for (i = 0; (s = step(normalizer, "normalizers", i)) != NULL; i++) {
        int code;
        if (!before && (is_type(s, "NFD") || is_type(s, "NFKD"))) { before = s; continue; }
        if (t->steps == STEPS) return fail(err, E_UNSUPPORTED, "more normalizers than", "normalizer", (long long)i + 1, STEPS);
        code = load_step(t, s, &t->step[t->steps++], before, pool, err);
        if (code) return code;
        before = NULL;
    }
    return before ? fail(err, E_UNSUPPORTED, "a normalizer without StripAccents behind it", type_of(before), 0, 0) : OK;
}

/* A score as the reference reads it, which is not to the nearest double: all digits as a whole number, then divided by a power of ten. That
 * decides between segmentations that are equally good. The digits are the fewest that tell x = m 2^e, as files have them: d = x 10^p, rounded
 * in integers (m 5^p, of up to 128 bits), tells x if it is nearer than half a unit of m, which is 5^p / 2. */
static double as_read(double x) {
    double y = fabs(x), power;
    int e, places, n, whole = 1, p, shift, i;
    uint64_t m = (uint64_t)ldexp(frexp(y, &e), 53), five, low, middle, high, d, rest, half;
    for (power = 1; y >= 10 * power && whole < 16; power *= 10) whole++;        /* digits before the point; 0 and less: zeros behind it */
    for (power = 1; y < power && whole > -9; power /= 10) whole--;
    e -= 53;
    for (n = 15; n <= 17; n++) {
        p = n - whole;
        shift = -(e + p);
        if (m == 0 || p < 0 || p > 27 || shift < 1 || shift > 63) continue;
        for (five = 1, i = 0; i < p; i++) five *= 5;
        low = (m & 0xFFFFFFFFu) * (five & 0xFFFFFFFFu);
        middle = (m >> 32) * (five & 0xFFFFFFFFu) + (low >> 32);
        high = (m >> 32) * (five >> 32) + (middle >> 32);
        middle = (middle & 0xFFFFFFFFu) + (m & 0xFFFFFFFFu) * (five >> 32);
        high += middle >> 32;
        low = (low & 0xFFFFFFFFu) | middle << 32;
        half = (uint64_t)1 << (shift - 1);
        d = (high << (64 - shift)) | low >> shift;
        rest = low & (2 * half - 1);
        if (rest > half || (rest == half && d % 2)) { d++; rest = 2 * half - rest; }
        if (n < 17 && rest >= five - five / 2) continue;
        for (places = p; d % 10 == 0; places--) d /= 10;
        for (power = 1, i = 0; i < abs(places); i++) power *= 10;
        y = places > 0 ? (double)d / power : (double)d * power;
        return x < 0 ? -y : y;
    }
    return x;
}

/* The vocabulary, a list of [piece, score]: its place is its id. */
static int load_scores(Tokenizer *t, const Json *vocab, Pool *pool, Error *err) {
    double *exact, least = 1e300;
    const Json *j;
    int i = 0, byte;
    if (!vocab || vocab->type != JSON_ARRAY || !vocab->count || vocab->count > INT_MAX / 8)
        return fail(err, E_FORMAT, "not a list of pieces and scores", "vocab", 0, 0);
    t->piece = pool_take(pool, vocab->count, sizeof *t->piece);
    exact = t->piece ? pool_take(pool, vocab->count, sizeof *exact) : NULL;
    if (!exact) return fail(err, E_MEMORY, "not enough memory", "vocab", 0, 0);
    t->V = (int)vocab->count;
    for (j = vocab->child; j; j = j->next, i++) {
        const Json *a = j->type == JSON_ARRAY && j->count == 2 ? j->child : NULL;
        Piece *p = &t->piece[i];
        Text text;
        if (!a || a->type != JSON_STRING || a->next->type != JSON_NUMBER) return fail_at(err, E_FORMAT, "not a piece and its score", "vocab, id %d", i);
        if (!a->length) return fail_at(err, E_FORMAT, "a piece is empty", "vocab, id %d", i);
        if (!(fabs(a->next->number) < 1e30)) return fail_piece(err, E_NUMBER, "the score of a piece is out of range", a->string, a->length, 0, 0);
        if (table_find(&t->ordinary, a->string, a->length) >= 0)
            return fail_piece(err, E_FORMAT, "a piece is defined twice", a->string, a->length, 0, 0);
        if (!is_json_text(a, &text, pool) || table_add(&t->ordinary, pool, text.text, text.length, i))
            return fail(err, E_MEMORY, "not enough memory", "vocab", 0, 0);
        p->text = text.text; p->length = text.length; p->type = PIECE_NORMAL;
        p->score = (f32)a->next->number;
        exact[i] = as_read(a->next->number);
        if (exact[i] < least) least = exact[i];
        byte = t->byte_fallback ? byte_of_piece(p) : -1;
        if (byte >= 0) t->byte_id[byte] = i;
    }
    if (unigram_build(&t->unigram, t->piece, t->V, t->special.unk, pool)) return fail(err, E_MEMORY, "not enough memory", "vocab", 0, 0);
    t->unigram.exact = exact;
    t->unigram.unk_exact = least - 10;
    return OK;
}

/* A Unigram model, its normalizers, perhaps WhitespaceSplit, Metaspace. */
static int load_unigram(Tokenizer *t, const Json *root, Pool *pool, Error *err) {
    static const char *const bos[] = { "<s>", "[CLS]", NULL }, *const eos[] = { "</s>", "[SEP]", NULL }, *const pad[] = { "<pad>", "[PAD]", NULL };
    const Json *model = json_get(root, "model");
    int code;
    t->is_unigram = t->pipeline = 1;
    t->byte_fallback = json_bool(model, "byte_fallback", 0);
    if (!is_id(json_get(model, "unk_id"), &t->special.unk)) return fail(err, E_UNSUPPORTED, "a Unigram model without", "unk_id", 0, 0);
    code = load_steps(t, json_get(root, "normalizer"), pool, err);
    find_plain(t);
    if (!code) code = load_metaspace(t, json_get(root, "pre_tokenizer"), err);
    if (!code) code = load_scores(t, json_get(model, "vocab"), pool, err);
    if (!code && t->special.unk >= t->V) code = fail(err, E_RANGE, "unk_id is beyond the vocabulary", "Unigram", t->special.unk, t->V - 1);
    if (!code) code = index_words(t, pool, err);
    if (!code) code = load_added(t, json_get(root, "added_tokens"), pool, err);
    if (!code) code = load_processor(t, json_get(root, "post_processor"), err);
    if (!code) code = load_decoder(t, json_get(root, "decoder"), err);
    if (code) return code;
    guess(t, &t->special.bos, bos);
    guess(t, &t->special.eos, eos);
    guess(t, &t->special.pad, pad);
    return OK;
}

static int load_json(Tokenizer *t, const Json *root, Pool *pool, Error *err) {
    static const char *const bos[] = { "<s>", "<|begin_of_text|>", "<|endoftext|>", NULL },
                      *const eos[] = { "</s>", "<|end_of_text|>", "<|endoftext|>", NULL }, *const pad[] = { "<pad>", "[PAD]", NULL };
    const Json *model = json_get(root, "model"), *pre = json_get(root, "pre_tokenizer"), *added = json_get(root, "added_tokens"), *unk, *s;
    size_t i;
    int code = check_model(model, err);
    if (code) return code;
    if (is_type(model, "WordPiece")) return load_bert(t, root, pool, err);
    if (is_type(model, "Unigram")) return load_unigram(t, root, pool, err);
    for (i = 0; (s = step(pre, "pretokenizers", i)) != NULL; i++) if (is_type(s, "ByteLevel")) t->kind = TOKENIZER_BYTELEVEL;
    if (t->kind == TOKENIZER_SENTENCEPIECE && !json_bool(model, "byte_fallback", 0)) {
        s = step(pre, "pretokenizers", 0);
        return s ? refuse_step(err, "pre_tokenizer", s)
                 : fail(err, E_UNSUPPORTED, "BPE that is neither byte-level nor has byte_fallback", "tokenizer.json", 0, 0);
    }
    t->ignore_merges = json_bool(model, "ignore_merges", 0);
    t->fuse_unk = json_bool(model, "fuse_unk", 0);
    if (t->kind == TOKENIZER_SENTENCEPIECE && t->ignore_merges)
        return fail(err, E_UNSUPPORTED, "ignore_merges with byte_fallback", "tokenizer.json", 0, 0);
    if (t->kind == TOKENIZER_BYTELEVEL) byte_alphabet(t->byte_char, t->char_byte);
    code = load_normalizer(t, json_get(root, "normalizer"), err);
    if (!code) code = t->kind == TOKENIZER_BYTELEVEL ? load_bytelevel(t, pre, err) : load_metaspace(t, pre, err);
    if (!code) code = load_vocab(t, json_get(model, "vocab"), added && added->type == JSON_ARRAY ? added->count : 0, 1, pool, err);
    if (!code && t->kind == TOKENIZER_SENTENCEPIECE) code = index_fallback(t, err);
    if (!code) code = load_json_merges(t, json_get(model, "merges"), pool, err);
    if (t->kind == TOKENIZER_SENTENCEPIECE) find_plain(t);
    if (!code) code = index_words(t, pool, err);
    if (code) return code;
    unk = json_get(model, "unk_token");
    if (unk && unk->type == JSON_STRING) t->special.unk = t->missing = table_find(&t->ordinary, unk->string, unk->length);
    if (t->special.unk >= 0) t->piece[t->special.unk].type = PIECE_UNKNOWN;
    code = load_added(t, added, pool, err);
    if (!code) code = load_processor(t, json_get(root, "post_processor"), err);
    if (!code) code = load_decoder(t, json_get(root, "decoder"), err);
    if (code) return code;
    guess(t, &t->special.bos, bos);
    guess(t, &t->special.eos, eos);
    guess(t, &t->special.pad, pad);
    return OK;
}

Tokenizer *tokenizer_json(const void *bytes, size_t n, Pool *pool, Error *err) {
    Tokenizer *t = new_tokenizer(TOKENIZER_SENTENCEPIECE, pool);
    const Json *root;
    Pool tree;                              /* the parsed file is large, and nothing of it is kept */
    int code = E_FORMAT;
    if (t) t->file[0] = pool_text(pool, bytes, n);
    if (!t || !t->file[0]) { fail(err, E_MEMORY, "not enough memory", "tokenizer.json", 0, 0); return NULL; }
    t->file_length[0] = n;
    t->json = 1;
    memset(&tree, 0, sizeof tree);
    tree.source = pool->source;
    tree.sink = pool->sink;
    root = json_parse(t->file[0], n, &tree, err);
    if (root && root->type == JSON_OBJECT) code = load_json(t, root, pool, err);
    else if (root) fail(err, E_FORMAT, "not a JSON object", "tokenizer.json", 0, 0);
    pool_free(&tree);
    return code ? NULL : t;
}

/* ================================================================================================================
 * Questions, and writing
 * ================================================================================================================ */
int tokenizer_size(const Tokenizer *t) { return t->V; }
int tokenizer_kind(const Tokenizer *t) { return t->kind; }
SpecialIds tokenizer_specials(const Tokenizer *t) { return t->special; }

void tokenizer_template(const Tokenizer *t, int *before, int *after) {
    *before = t->before;
    *after = t->after;
}

int tokenizer_added(const Tokenizer *t, int i, AddedToken *token) {
    if (i < 0 || i >= t->addeds) return 0;
    *token = t->added[i];
    return 1;
}

int tokenizer_legacy(const Tokenizer *t) { return t->json || !t->only_first; }
const char *tokenizer_chat_template(const Tokenizer *t) { return t->chat_template; }

const char *tokenizer_class(const Tokenizer *t) {
    if (t->kind == TOKENIZER_WORDPIECE) return t->json ? "PreTrainedTokenizerFast" : "BertTokenizer";
    if (t->pipeline) return "PreTrainedTokenizerFast";
    if (t->kind == TOKENIZER_SENTENCEPIECE && t->is_unigram && t->after) return t->before ? "AlbertTokenizer" : "T5Tokenizer";
    if (t->kind == TOKENIZER_SENTENCEPIECE) return "LlamaTokenizer";
    if (t->json && (t->split != SPLIT_GPT2 || t->prefix_space || t->before != t->after)) return "PreTrainedTokenizerFast";
    return t->before ? "RobertaTokenizer" : "GPT2Tokenizer";
}

const char *tokenizer_piece(const Tokenizer *t, int id, size_t *length) {
    if (length) *length = id < 0 || id >= t->V ? 0 : t->piece[id].length;
    return id < 0 || id >= t->V ? NULL : t->piece[id].text;
}

int tokenizer_find(const Tokenizer *t, const char *piece, size_t length) {
    int id = find_piece(t, piece, length);
    return id >= 0 ? id : table_find(&t->extra, piece, length);
}

int tokenizer_write_sentencepiece(const Tokenizer *t, Buffer *model) {
    if (t->kind != TOKENIZER_SENTENCEPIECE || t->json) return E_ARGUMENT;
    buffer_bytes(model, t->file[0], t->file_length[0]);
    return model->failed ? E_MEMORY : OK;
}

int tokenizer_write_bytelevel(const Tokenizer *t, Buffer *vocab_json, Buffer *merges_txt) {
    if (t->kind != TOKENIZER_BYTELEVEL || t->json) return E_ARGUMENT;
    buffer_bytes(vocab_json, t->file[0], t->file_length[0]);
    buffer_bytes(merges_txt, t->file[1], t->file_length[1]);
    return vocab_json->failed || merges_txt->failed ? E_MEMORY : OK;
}

int tokenizer_write_wordpiece(const Tokenizer *t, Buffer *vocab_txt) {
    if (t->kind != TOKENIZER_WORDPIECE || t->json) return E_ARGUMENT;
    buffer_bytes(vocab_txt, t->file[0], t->file_length[0]);
    return vocab_txt->failed ? E_MEMORY : OK;
}

const BertRules *tokenizer_bert(const Tokenizer *t) { return t->kind == TOKENIZER_WORDPIECE ? &t->bert : NULL; }

int tokenizer_write_json(const Tokenizer *t, Buffer *json) {
    if (!t->json) return E_ARGUMENT;
    buffer_bytes(json, t->file[0], t->file_length[0]);
    return json->failed ? E_MEMORY : OK;
}

/* ================================================================================================================
 * Training: words with their counts; again and again the most frequent pair of symbols becomes a symbol
 * ================================================================================================================ */
enum { WORD_BYTES = 256,                    /* longer words are counted in pieces (no natural word is): a visit stays short */
       BARRIER = -1 };                      /* stands in a word where nothing may merge: a character that gets no piece */
typedef struct { const char *text; size_t bytes; int64_t count; int *symbol; int symbols; } Word;
typedef struct { const char *text; size_t bytes; int chars; } Unit;    /* a symbol: a character, or a merge of two */
typedef struct Place Place;
struct Place { int word; Place *next; };    /* a word in which a pair stands (or once stood) */
typedef struct { int left, right, fresh; int64_t count; Place *place; } Pair;
typedef struct { int64_t count; int pair; } Rank;                       /* what a pair counted when it was put on the heap */
typedef struct { int left, right, id; } Learnt;
typedef struct {
    Pool pool;
    int bytelevel, failed;                  /* failed: out of memory */
    Word *word; size_t words, word_room; Table word_table;
    Unit *unit; int units, unit_room; Table unit_table;
    Pair *pair; size_t pairs, pair_room; int *slot; size_t slots;      /* open addressing: slot holds pair + 1 */
    Rank *heap; size_t waiting, heap_room;
    int *fresh; size_t freshes, fresh_room; /* pairs that grew during this merge */
    Place *free_place; size_t free_places;
    Learnt *learnt; size_t learnts, learnt_room;
} Trainer;

/* `array` with room for more than `used` elements; the old one stays unused in the pool. NULL (and failed): no memory. */
static void *grow(Trainer *tr, void *array, size_t used, size_t *room, size_t size) {
    void *bigger;
    if (used < *room) return array;
    if (used >= INT_MAX / 2) { tr->failed = 1; return array; }
    bigger = pool_take(&tr->pool, used ? 2 * used : 1024, size);
    if (!bigger) { tr->failed = 1; return array; }
    if (used) memcpy(bigger, array, used * size);
    *room = used ? 2 * used : 1024;
    return bigger;
}

static void add_word(Trainer *tr, const char *text, size_t n) {
    Word *w;
    int i;
    if (!n || tr->failed) return;
    i = table_find(&tr->word_table, text, n);
    if (i >= 0) { tr->word[i].count++; return; }
    tr->word = grow(tr, tr->word, tr->words, &tr->word_room, sizeof *tr->word);
    if (tr->failed) return;
    w = &tr->word[tr->words];
    w->text = pool_text(&tr->pool, text, n);
    w->bytes = n;
    w->count = 1;
    if (!w->text || table_add(&tr->word_table, &tr->pool, w->text, n, (int)tr->words)) tr->failed = 1;
    else tr->words++;
}

/* The number of the symbol spelt so, made if need be; -1: no memory. */
static int add_unit(Trainer *tr, const char *text, size_t n, int chars) {
    size_t room = (size_t)tr->unit_room;
    Unit *u;
    int i = table_find(&tr->unit_table, text, n);
    if (i >= 0) return i;
    tr->unit = grow(tr, tr->unit, (size_t)tr->units, &room, sizeof *tr->unit);
    tr->unit_room = (int)room;
    if (tr->failed) return -1;
    u = &tr->unit[tr->units];
    u->text = pool_text(&tr->pool, text, n);
    u->bytes = n;
    u->chars = chars;
    if (!u->text || table_add(&tr->unit_table, &tr->pool, u->text, n, tr->units)) { tr->failed = 1; return -1; }
    return tr->units++;
}

/* Byte i of the text of a pair. */
static int pair_byte(const Trainer *tr, const Pair *p, size_t i) {
    size_t n = tr->unit[p->left].bytes;
    return (unsigned char)(i < n ? tr->unit[p->left].text[i] : tr->unit[p->right].text[i - n]);
}

/* Of two pairs that are equally frequent: byte-level takes the smaller numbers; SentencePiece fewer characters, then the
 * alphabet. */
static int pair_before(const Trainer *tr, const Pair *a, const Pair *b) {
    if (!tr->bytelevel) {
        int p = tr->unit[a->left].chars + tr->unit[a->right].chars, q = tr->unit[b->left].chars + tr->unit[b->right].chars;
        size_t m = tr->unit[a->left].bytes + tr->unit[a->right].bytes, n = tr->unit[b->left].bytes + tr->unit[b->right].bytes, i;
        if (p != q) return p < q;
        for (i = 0; i < m && i < n; i++)
            if (pair_byte(tr, a, i) != pair_byte(tr, b, i)) return pair_byte(tr, a, i) < pair_byte(tr, b, i);
        if (m != n) return m < n;           /* else two ways to spell the same: by numbers */
    }
    return a->left != b->left ? a->left < b->left : a->right < b->right;
}

static int rank_before(const Trainer *tr, Rank a, Rank b) {
    return a.count != b.count ? a.count > b.count : pair_before(tr, &tr->pair[a.pair], &tr->pair[b.pair]);
}

static void rank_push(Trainer *tr, Rank r) {
    size_t i;
    tr->heap = grow(tr, tr->heap, tr->waiting, &tr->heap_room, sizeof *tr->heap);
    if (tr->failed) return;
    for (i = tr->waiting++; i && rank_before(tr, r, tr->heap[(i - 1) / 2]); i = (i - 1) / 2) tr->heap[i] = tr->heap[(i - 1) / 2];
    tr->heap[i] = r;
}

static Rank rank_pop(Trainer *tr) {
    Rank best = tr->heap[0], r = tr->heap[--tr->waiting];
    size_t i = 0, child;
    for (; (child = 2 * i + 1) < tr->waiting; i = child) {
        if (child + 1 < tr->waiting && rank_before(tr, tr->heap[child + 1], tr->heap[child])) child++;
        if (!rank_before(tr, tr->heap[child], r)) break;
        tr->heap[i] = tr->heap[child];
    }
    tr->heap[i] = r;
    return best;
}

static int *pair_slot(const Trainer *tr, int left, int right) {
    size_t i = merge_hash(left, right) & (tr->slots - 1);
    while (tr->slot[i] && (tr->pair[tr->slot[i] - 1].left != left || tr->pair[tr->slot[i] - 1].right != right))
        i = (i + 1) & (tr->slots - 1);
    return &tr->slot[i];
}

/* The pair (left, right), made if need be; NULL: no memory. */
static Pair *find_pair(Trainer *tr, int left, int right) {
    int *slot;
    if (2 * tr->pairs >= tr->slots) {
        size_t i, slots = tr->slots ? 2 * tr->slots : 4096;
        int *s = pool_take(&tr->pool, slots, sizeof *s);
        if (!s) { tr->failed = 1; return NULL; }
        tr->slot = s;
        tr->slots = slots;
        for (i = 0; i < tr->pairs; i++) *pair_slot(tr, tr->pair[i].left, tr->pair[i].right) = (int)i + 1;
    }
    slot = pair_slot(tr, left, right);
    if (!*slot) {
        tr->pair = grow(tr, tr->pair, tr->pairs, &tr->pair_room, sizeof *tr->pair);
        if (tr->failed) return NULL;
        memset(&tr->pair[tr->pairs], 0, sizeof *tr->pair);
        tr->pair[tr->pairs].left = left;
        tr->pair[tr->pairs].right = right;
        *slot = (int)++tr->pairs;
    }
    return &tr->pair[*slot - 1];
}

/* Counts the pair (left, right) `more` times more in a word. Pieces of SentencePiece have at most 16 characters. */
static void count_pair(Trainer *tr, int left, int right, int64_t more, int word) {
    Pair *p;
    if (left < 0 || right < 0 || tr->failed || (!tr->bytelevel && tr->unit[left].chars + tr->unit[right].chars > 16)) return;
    p = find_pair(tr, left, right);
    if (!p) return;
    p->count += more;
    if (more < 0) return;
    if (!p->place || p->place->word != word) {
        Place *place = tr->free_place;
        if (!tr->free_places) {
            place = pool_take(&tr->pool, 4096, sizeof *place);
            if (!place) { tr->failed = 1; return; }
            tr->free_places = 4096;
        }
        tr->free_place = place + 1;
        tr->free_places--;
        place->word = word;
        place->next = p->place;
        p->place = place;
    }
    if (p->fresh) return;
    tr->fresh = grow(tr, tr->fresh, tr->freshes, &tr->fresh_room, sizeof *tr->fresh);
    if (tr->failed) return;
    p->fresh = 1;
    tr->fresh[tr->freshes++] = (int)(p - tr->pair);
}

/* Puts the pairs that grew on the heap. Pairs that shrank stay where they are until they come up (see learn). */
static void rank_fresh(Trainer *tr) {
    size_t i;
    for (i = 0; i < tr->freshes && !tr->failed; i++) {
        Rank r;
        r.pair = tr->fresh[i];
        r.count = tr->pair[r.pair].count;
        tr->pair[r.pair].fresh = 0;
        rank_push(tr, r);
    }
    tr->freshes = 0;
}

/* Replaces a b by c in a word, from left to right; the counts follow each single step. */
static void replace_pair(Trainer *tr, int word, int a, int b, int c) {
    Word *w = &tr->word[word];
    int i, n = 0;
    for (i = 0; i < w->symbols; i++) {
        if (w->symbol[i] == a && i + 1 < w->symbols && w->symbol[i + 1] == b) {
            int before = n ? w->symbol[n - 1] : BARRIER, behind = i + 2 < w->symbols ? w->symbol[i + 2] : BARRIER;
            count_pair(tr, before, a, -w->count, word);
            count_pair(tr, a, b, -w->count, word);
            count_pair(tr, b, behind, -w->count, word);
            count_pair(tr, before, c, w->count, word);
            count_pair(tr, c, behind, w->count, word);
            w->symbol[n++] = c;
            i++;
        } else w->symbol[n++] = w->symbol[i];
    }
    w->symbols = n;
}

/* Merges until there are `units` symbols; fewer when no pair is left. A pair that spells an existing symbol
 * becomes that symbol. */
static void learn(Trainer *tr, int units) {
    char *text;
    size_t i;
    int k;
    for (i = 0; i < tr->words && !tr->failed; i++)
        for (k = 0; k + 1 < tr->word[i].symbols; k++)
            count_pair(tr, tr->word[i].symbol[k], tr->word[i].symbol[k + 1], tr->word[i].count, (int)i);
    rank_fresh(tr);
    while (tr->units < units && tr->waiting && !tr->failed) {
        Rank r = rank_pop(tr);
        Pair p = tr->pair[r.pair];
        Place *place;
        Unit left, right;
        PoolMark mark;
        Learnt *l;
        if (p.count <= 0) continue;
        if (p.count != r.count) {           /* it shrank since: again, where it belongs now */
            r.count = p.count;
            rank_push(tr, r);
            continue;
        }
        left = tr->unit[p.left];
        right = tr->unit[p.right];
        tr->learnt = grow(tr, tr->learnt, tr->learnts, &tr->learnt_room, sizeof *tr->learnt);
        mark = pool_mark(&tr->pool);
        text = pool_take(&tr->pool, left.bytes + right.bytes, 1);
        if (!text || tr->failed) { tr->failed = 1; return; }
        memcpy(text, left.text, left.bytes);
        memcpy(text + left.bytes, right.text, right.bytes);
        l = &tr->learnt[tr->learnts++];
        l->left = p.left;
        l->right = p.right;
        l->id = table_find(&tr->unit_table, text, left.bytes + right.bytes);
        if (l->id >= 0) pool_release(&tr->pool, mark);
        else l->id = add_unit(tr, text, left.bytes + right.bytes, left.chars + right.chars);
        if (l->id < 0) return;
        tr->pair[r.pair].place = NULL;
        for (place = p.place; place && !tr->failed; place = place->next) replace_pair(tr, place->word, p.left, p.right, l->id);
        rank_fresh(tr);
    }
}

static void trainer_begin(Trainer *tr, const Pool *like, int bytelevel) {
    memset(tr, 0, sizeof *tr);
    tr->pool.source = like->source;
    tr->pool.sink = like->sink;
    tr->bytelevel = bytelevel;
}

/* Room for the symbols of word i: at most one for each byte. */
static int *word_symbols(Trainer *tr, size_t i) {
    Word *w = &tr->word[i];
    w->symbols = 0;
    w->symbol = pool_take(&tr->pool, w->bytes, sizeof *w->symbol);
    if (!w->symbol) tr->failed = 1;
    return w->symbol;
}

/* ---- SentencePiece, as Llama's: <unk> <s> </s>, 256 bytes, merges, characters ---- */
enum { LLAMA_RESERVED = 3 + 256, CODES = 0x110000 };

/* Cuts a text into words that no piece crosses: at spaces (a word begins with its space, and the text with one), at line breaks
 * and other control characters, and between letters, digits and the rest; a digit is always alone. Marks of a script count as
 * its letters. */
static void cut_words(Trainer *tr, const char *text, size_t n) {
    enum { CONTROL = OTHER + 1 };
    char word[WORD_BYTES];
    size_t i, length, have = 0;
    int before = SPACE;
    for (i = 0; i < n; i += length) {
        int32_t code;
        int class;
        if (i == 0) { memcpy(word, blank, BLANK_LENGTH); have = BLANK_LENGTH; }
        length = (size_t)utf8_decode(text + i, n - i, &code);
        class = code == ' ' || code == 0x2581 ? SPACE : code < 32 || code == 127 ? CONTROL
              : char_class(code) == SPACE ? OTHER : char_class(code);
        if (class == OTHER && code >= 0x300 && code < 0x2000) class = LETTER;
        if (class == SPACE || class == NUMBER || class == CONTROL || (before != SPACE && class != before)
            || have + length > WORD_BYTES) {
            add_word(tr, word, have);
            have = 0;
        }
        if (class == SPACE) { memcpy(word, blank, BLANK_LENGTH); have = BLANK_LENGTH; }
        else if (class != CONTROL) { memcpy(word + have, text + i, length); have += length; }
        before = class;
    }
    add_word(tr, word, have);
}

typedef struct { int64_t count; int32_t code; } Count;

static int compare_count(const void *a, const void *b) {
    const Count *p = a, *q = b;
    return p->count != q->count ? (p->count < q->count) - (p->count > q->count) : (p->code > q->code) - (p->code < q->code);
}

/* The first symbols: the most frequent characters, until they make up 99.95 % of the text. */
static void add_characters(Trainer *tr) {
    int64_t *count = pool_take(&tr->pool, CODES, sizeof *count), total = 0, sum = 0;
    Count *list;
    size_t i, at, n = 0;
    int32_t code;
    if (!count) { tr->failed = 1; return; }
    for (i = 0; i < tr->words; i++)
        for (at = 0; at < tr->word[i].bytes; ) {
            at += (size_t)utf8_decode(tr->word[i].text + at, tr->word[i].bytes - at, &code);
            if (code < 0) continue;
            n += count[code] == 0;
            count[code] += tr->word[i].count;
            total += tr->word[i].count;
        }
    list = pool_take(&tr->pool, n, sizeof *list);
    if (!list) { tr->failed = 1; return; }
    for (i = 0, code = 0; code < CODES; code++) if (count[code]) { list[i].count = count[code]; list[i++].code = code; }
    qsort(list, n, sizeof *list, compare_count);
    for (i = 0; i < n && (double)sum < 0.9995 * (double)total; i++) {
        char c[4];
        sum += list[i].count;
        add_unit(tr, c, (size_t)utf8_encode(c, list[i].code), 1);
    }
}

static void spell_words(Trainer *tr) {
    size_t i, at, length;
    int32_t code;
    for (i = 0; i < tr->words && !tr->failed; i++) {
        Word *w = &tr->word[i];
        if (!word_symbols(tr, i)) return;
        for (at = 0; at < w->bytes; at += length) {
            length = (size_t)utf8_decode(w->text + at, w->bytes - at, &code);
            w->symbol[w->symbols++] = table_find(&tr->unit_table, w->text + at, length);       /* not found: BARRIER */
        }
    }
}

static void put_varint(Buffer *b, uint64_t v) {
    for (; v >= 128; v >>= 7) buffer_u8(b, (unsigned)(v & 127) | 128);
    buffer_u8(b, (unsigned)v);
}

static void put_number(Buffer *b, unsigned number, uint64_t v) { put_varint(b, number << 3 | VARINT); put_varint(b, v); }

static void put_piece_message(Buffer *b, const char *text, size_t n, f32 score, int type) {
    size_t digits = n < 128 ? 1 : 2;        /* no piece is longer than 64 bytes */
    put_varint(b, 1 << 3 | BYTES);
    put_varint(b, 1 + digits + n + 5 + (type == PIECE_NORMAL ? 0 : 2));
    put_varint(b, 1 << 3 | BYTES);
    put_varint(b, n);
    buffer_bytes(b, text, n);
    put_varint(b, 2 << 3 | FIXED32);
    buffer_u32(b, bits_of_f32(score));
    if (type != PIECE_NORMAL) put_number(b, 3, (uint64_t)type);
}

/* The model file of what was learnt: pieces with their scores. kind: 1 unigram, 2 BPE. */
static void put_model(Buffer *b, const Piece *piece, int pieces, int kind) {
    static const char *const meta[] = { "<unk>", "<s>", "</s>" };
    static const char digit[] = "0123456789ABCDEF";
    char byte[] = "<0x00>";
    Buffer spec;
    int i;
    for (i = 0; i < 3; i++) put_piece_message(b, meta[i], strlen(meta[i]), 0, i ? PIECE_CONTROL : PIECE_UNKNOWN);
    for (i = 0; i < 256; i++) {
        byte[3] = digit[i / 16];
        byte[4] = digit[i % 16];
        put_piece_message(b, byte, 6, 0, PIECE_BYTE);
    }
    for (i = 0; i < pieces; i++) put_piece_message(b, piece[i].text, piece[i].length, piece[i].score, PIECE_NORMAL);
    memset(&spec, 0, sizeof spec);
    spec.pool = b->pool;
    put_number(&spec, 3, (uint64_t)kind);   /* model_type */
    put_number(&spec, 4, (uint64_t)(LLAMA_RESERVED + pieces));
    put_number(&spec, 25, 1);               /* split_digits */
    put_number(&spec, 35, 1);               /* byte_fallback */
    put_number(&spec, 40, 0);               /* unk, bos, eos, pad */
    put_number(&spec, 41, 1);
    put_number(&spec, 42, 2);
    put_number(&spec, 43, UINT64_MAX);      /* -1 */
    put_varint(b, 2 << 3 | BYTES);
    put_varint(b, spec.length);
    buffer_bytes(b, spec.data, spec.length);
    spec.length = 0;
    put_varint(&spec, 1 << 3 | BYTES);
    put_varint(&spec, 8);
    buffer_text(&spec, "identity");
    put_number(&spec, 3, 1);                /* add_dummy_prefix */
    put_number(&spec, 4, 0);                /* remove_extra_whitespaces */
    put_number(&spec, 5, 1);                /* escape_whitespaces */
    put_varint(b, 3 << 3 | BYTES);
    put_varint(b, spec.length);
    buffer_bytes(b, spec.data, spec.length);
    if (spec.failed) b->failed = 1;
}

/* BPE: merges score 0, -1, -2, ..., and the characters go on from there. */
static void learn_merges(Trainer *tr, int characters, int V, Piece *piece, int *pieces) {
    int i, merges;
    spell_words(tr);
    if (!tr->failed) learn(tr, V);
    merges = tr->units - characters;
    for (i = 0; i < tr->units && i < V; i++) {
        const Unit *u = &tr->unit[i < merges ? characters + i : i - merges];
        piece[i].text = u->text;
        piece[i].length = u->bytes;
        piece[i].score = -(f32)i;
    }
    *pieces = i;
}

/* Unigram, from the same words and characters. */
static void learn_unigram(Trainer *tr, int V, Piece **piece, int *pieces) {
    UnigramWord *word = pool_take(&tr->pool, tr->words, sizeof *word);
    Piece *character = pool_take(&tr->pool, (size_t)tr->units + 1, sizeof *character);
    size_t i;
    int k;
    if (!word || !character) { tr->failed = 1; return; }
    for (i = 0; i < tr->words; i++) {
        word[i].text = tr->word[i].text;
        word[i].bytes = tr->word[i].bytes;
        word[i].count = tr->word[i].count;
    }
    for (k = 0; k < tr->units; k++) {
        character[k].text = tr->unit[k].text;
        character[k].length = tr->unit[k].bytes;
        character[k].type = PIECE_NORMAL;
    }
    if (unigram_train(word, tr->words, character, tr->units, V, &tr->pool, piece, pieces)) tr->failed = 1;
}

/* kind: 1 unigram, 2 BPE. */
static int train_sentencepiece(Trainer *tr, TextSource source, int V, int kind, Buffer *model, Error *err) {
    const char *text;
    size_t n;
    int room = V - LLAMA_RESERVED, pieces = 0;
    Piece *piece = NULL;
    while (!tr->failed && source.next(source.context, &text, &n)) cut_words(tr, text, n);
    if (!tr->failed && !tr->words) return fail(err, E_ARGUMENT, "no text to train a tokenizer on", "", 0, 0);
    if (!tr->failed) add_characters(tr);
    if (!tr->failed && room < tr->units)
        return fail(err, E_RANGE, "the vocabulary is too small for <unk> <s> </s>, 256 bytes and the characters", "", V,
                    LLAMA_RESERVED + tr->units);
    if (!tr->failed && kind == 1) learn_unigram(tr, room, &piece, &pieces);
    else if (!tr->failed) {
        piece = pool_take(&tr->pool, (size_t)room + 1, sizeof *piece);
        if (piece) learn_merges(tr, tr->units, room, piece, &pieces); else tr->failed = 1;
    }
    if (!tr->failed && pieces < room)
        return fail(err, E_RANGE, "the text is too small for so large a vocabulary", "", V, LLAMA_RESERVED + pieces);
    if (!tr->failed) put_model(model, piece, pieces, kind);
    return tr->failed || model->failed ? fail(err, E_MEMORY, "not enough memory", "training a tokenizer", 0, 0) : OK;
}

static Tokenizer *train_model(TextSource source, int V, int kind, Pool *pool, Error *err) {
    Trainer tr;
    Buffer model;
    int code;
    memset(&model, 0, sizeof model);
    model.pool = pool;
    trainer_begin(&tr, pool, 0);
    code = train_sentencepiece(&tr, source, V, kind, &model, err);
    pool_free(&tr.pool);
    return code ? NULL : tokenizer_sentencepiece(model.data, model.length, pool, err);
}

Tokenizer *tokenizer_train_sentencepiece(TextSource source, int V, Pool *pool, Error *err) { return train_model(source, V, 2, pool, err); }
Tokenizer *tokenizer_train_unigram(TextSource source, int V, Pool *pool, Error *err) { return train_model(source, V, 1, pool, err); }

/* ---- byte-level, in RoBERTa's order: <s> <pad> </s> <unk>, bytes, merges, <mask> ---- */
enum { ROBERTA_FIRST = 4, ROBERTA_LAST = 1 };

static void put_token_id(Buffer *b, const char *text, size_t n, int id) {
    buffer_u8(b, id ? ',' : '{');
    buffer_u8(b, ' ');
    buffer_json_string(b, text, n);
    buffer_text(b, ": ");
    buffer_integer(b, id);
}

static void put_vocab(Buffer *vocab, Buffer *merges, const Trainer *tr) {
    static const char *const first[] = { "<s>", "<pad>", "</s>", "<unk>" };
    size_t k;
    int i;
    for (i = 0; i < ROBERTA_FIRST; i++) put_token_id(vocab, first[i], strlen(first[i]), i);
    for (i = 0; i < tr->units; i++) put_token_id(vocab, tr->unit[i].text, tr->unit[i].bytes, ROBERTA_FIRST + i);
    put_token_id(vocab, "<mask>", 6, ROBERTA_FIRST + tr->units);
    buffer_text(vocab, "}\n");
    buffer_text(merges, "#version: 0.2\n");
    for (k = 0; k < tr->learnts; k++) {
        const Unit *left = &tr->unit[tr->learnt[k].left], *right = &tr->unit[tr->learnt[k].right];
        buffer_bytes(merges, left->text, left->bytes);
        buffer_u8(merges, ' ');
        buffer_bytes(merges, right->text, right->bytes);
        buffer_u8(merges, '\n');
    }
}

static int train_bytelevel(Trainer *tr, TextSource source, int V, Buffer *vocab, Buffer *merges, Error *err) {
    int32_t byte_char[256];
    int char_byte[0x144], unit[256], b, c;
    const char *text;
    size_t n, at, i, length;
    byte_alphabet(byte_char, char_byte);
    if (V < ROBERTA_FIRST + 256 + ROBERTA_LAST)
        return fail(err, E_RANGE, "the vocabulary is too small for 256 bytes and five special tokens", "", V,
                    ROBERTA_FIRST + 256 + ROBERTA_LAST);
    for (c = 0; c < 0x144; c++) {           /* bytes in the order of their characters */
        char s[4];
        if (char_byte[c] >= 0) unit[char_byte[c]] = add_unit(tr, s, (size_t)utf8_encode(s, c), 1);
    }
    while (!tr->failed && source.next(source.context, &text, &n))
        for (at = 0; at < n; at += length) {
            length = split_gpt2(text + at, n - at);
            for (i = 0; i < length; i += WORD_BYTES)
                add_word(tr, text + at + i, length - i < WORD_BYTES ? length - i : WORD_BYTES);
        }
    if (!tr->failed && !tr->words) return fail(err, E_ARGUMENT, "no text to train a tokenizer on", "", 0, 0);
    for (i = 0; i < tr->words && !tr->failed && word_symbols(tr, i); i++)
        for (b = 0; b < (int)tr->word[i].bytes; b++)
            tr->word[i].symbol[tr->word[i].symbols++] = unit[(unsigned char)tr->word[i].text[b]];
    if (!tr->failed) learn(tr, V - ROBERTA_FIRST - ROBERTA_LAST);
    if (!tr->failed && tr->units < V - ROBERTA_FIRST - ROBERTA_LAST)
        return fail(err, E_RANGE, "the text is too small for so large a vocabulary", "", V,
                    ROBERTA_FIRST + ROBERTA_LAST + tr->units);
    if (!tr->failed) put_vocab(vocab, merges, tr);
    return tr->failed || vocab->failed || merges->failed
         ? fail(err, E_MEMORY, "not enough memory", "training a tokenizer", 0, 0) : OK;
}

Tokenizer *tokenizer_train_bytelevel(TextSource source, int V, Pool *pool, Error *err) {
    Trainer tr;
    Buffer vocab, merges;
    int code;
    memset(&vocab, 0, sizeof vocab);
    vocab.pool = pool;
    merges = vocab;
    trainer_begin(&tr, pool, 1);
    code = train_bytelevel(&tr, source, V, &vocab, &merges, err);
    pool_free(&tr.pool);
    return code ? NULL : tokenizer_bytelevel(vocab.data, vocab.length, merges.data, merges.length, pool, err);
}
