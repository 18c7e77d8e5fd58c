/* text/bytelevel.c - byte-level BPE (GPT-2, RoBERTa, Llama-3): cuts a text into words, and merges
 *          the bytes of each word.
 * Source   Radford et al. 2019; the files vocab.json and merges.txt of GPT-2; how GPT-2 splits a text.
 * Needs    core.c, text/unicode.c, text/pieces.c, text/encoder.c, text/bpe.c.
 * Edges    bytes without a token (they become <unk>, or are dropped), an empty merges.txt, tokens with
 *          characters that stand for no byte. */
#include "text.h"

/* ==============================================================================================
 * Cutting a text into words
 * ============================================================================================== */

/* Returns the length that the first matching alternative takes (" ?" is an optional space).
 *   's | 't | 're | 've | 'm | 'll | 'd | ?\p{L}+ | ?\p{N}+ | ?[^\s\p{L}\p{N}]+ | \s+(?!\S) | \s+ */
size_t bytelevel_word(const char *s, size_t n) {
    size_t at = 0, length, last = 0;
    int class;
    if (*s == '\'' && n > 1) {
        if (s[1] == 's' || s[1] == 't' || s[1] == 'm' || s[1] == 'd') return 2;
        if (n > 2 && (!memcmp(s + 1, "re", 2) || !memcmp(s + 1, "ve", 2) || !memcmp(s + 1, "ll", 2)))
            return 3;
    }
    if (*s == ' ' && n > 1 && class_at(s + 1, n - 1, &length) != CHAR_SPACE) at = 1;
    class = class_at(s + at, n - at, &length);
    for (at += length; at < n && class_at(s + at, n - at, &length) == class; at += length) last = at;
    /* The last character of a run of white space belongs to the word after it. */
    return class == CHAR_SPACE && at < n && last ? last : at;
}

/* ==============================================================================================
 * Bytes and characters
 * ============================================================================================== */

/* Fills byte_char and char_byte. A byte that is a printable Latin-1 character is written as this character;
 * the other 68 bytes are written as U+0100, U+0101, ..., in order. */
void bytelevel_alphabet(ByteLevel *b) {
    int i, next = 0x100;
    b->missing = -1;
    for (i = 0; i < BYTE_CHARS; i++) b->char_byte[i] = -1;
    for (i = 0; i < 256; i++) {
        int printable = (i >= 0x21 && i <= 0x7E) || (i >= 0xA1 && i <= 0xAC) || i >= 0xAE;
        b->byte_char[i] = printable ? i : next++;
        b->char_byte[b->byte_char[i]] = i;
    }
}

void bytelevel_ids(Tokenizer *t) {
    int i;
    for (i = 0; i < 256; i++) {
        char c[4];
        t->byte_id[i] = table_find(&t->ordinary, c, (size_t)utf8_encode(c, t->bytelevel.byte_char[i]));
    }
}

/* Writes to out the bytes that a token of vocab.json stands for, and returns their number; 0 if a character
 * of the token stands for no byte. */
static size_t token_bytes(const ByteLevel *b, Text token, char *out) {
    size_t i, length, n = 0;
    for (i = 0; i < token.length; i += length) {
        int32_t code;
        length = (size_t)utf8_decode(token.text + i, token.length - i, &code);
        if (code < 0 || code >= BYTE_CHARS || b->char_byte[code] < 0) return 0;
        out[n++] = (char)b->char_byte[code];
    }
    return n;
}

/* ==============================================================================================
 * Encoding
 * ============================================================================================== */

/* Makes a symbol of each byte of a word (n bytes). Returns 1 if bytes were dropped because
 * they have no token. */
static int spell_bytes(Merger *m, const char *s, size_t n) {
    const ByteLevel *b = &m->t->bytelevel;
    size_t i;
    int dropped = 0;
    m->symbols = 0;
    for (i = 0; i < n; i++) {
        int id = m->t->byte_id[(unsigned char)s[i]];
        Symbol *symbol = &m->symbol[m->symbols];
        if (id < 0) id = b->missing;
        if (id < 0) { dropped = 1; continue; }          /* the vocabulary has neither the byte nor <unk> */
        if (b->fuse_unk && id == b->missing && m->symbols && symbol[-1].id == id) continue;
        symbol->at = (uint32_t)i;
        symbol->length = 1;
        symbol->id = id;
        m->symbols++;
    }
    return dropped;
}

static int measure_bytes(Encoder *e, Text s) {
    e->bound += s.length + 1;
    if ((e->t->bytelevel.prefix_space || e->traced) && s.length + 1 > e->widest) e->widest = s.length + 1;
    return OK;
}

/* Sets the origins of the normal form of s: `before` spaces (0 or 1), which come from no byte, then the bytes
 * of s, each of which comes from itself. */
static void byte_origins(Encoder *e, Text s, size_t before) {
    size_t at, from = (size_t)(s.text - e->start);
    e->normal = s.length + before;
    e->origin[0].from = e->origin[0].to = from;
    for (at = 0; at < s.length; at++) {
        e->origin[before + at].from = from + at;
        e->origin[before + at].to = from + at + 1;
    }
    e->origin[e->normal].from = from + s.length;
}

int bytelevel_encode_word(Encoder *e, const char *s, size_t at, size_t length) {
    Merger *m = &e->merger;
    int i, dropped, id = known_word(e->t, s + at, length);
    if (id >= 0) { put_one(e, id, at, at + length); return OK; }
    if (merger_room(m, length, e->pool)) return E_MEMORY;
    dropped = spell_bytes(m, s + at, length);
    merge_symbols(m);
    for (i = 0; i >= 0 && i < m->symbols; i = m->symbol[i].next) {
        const Symbol *p = &m->symbol[i];
        size_t end = p->next < 0 ? length : m->symbol[p->next].at;
        if (e->span) set_span(e, e->count, at + p->at, at + end, !dropped);
        e->ids[e->count++] = p->id;
    }
    return OK;
}

static int encode_bytes(Encoder *e, Text s) {
    const ByteLevel *b = &e->t->bytelevel;
    int before = b->prefix_space && *s.text != ' ', code = OK;
    size_t at, length;
    if (e->span) byte_origins(e, s, (size_t)before);
    if (before) {
        e->scratch[0] = ' ';
        memcpy(e->scratch + 1, s.text, s.length++);
        s.text = e->scratch;
    }
    for (at = 0; at < s.length && !code; at += length) {
        length = bytelevel_word(s.text + at, s.length - at);
        code = bytelevel_encode_word(e, s.text, at, length);
    }
    return code;
}

int bytelevel_is_word(Encoder *e, int id, Text *text, Pool *pool) {
    const Tokenizer *t = e->t;
    char *raw = pool_take(pool, text->length, 1);
    size_t n = raw ? token_bytes(&t->bytelevel, *text, raw) : 0;
    if (!raw) return -1;
    if (!n) return 0;
    text->text = raw;
    text->length = n;
    if (t->bytelevel.ignore_merges) return 1;
    if (t->piece[id].type != PIECE_NORMAL || merger_room(&e->merger, n, e->pool)) return 0;
    e->merger.text = raw;
    spell_bytes(&e->merger, raw, n);
    merge_symbols(&e->merger);
    return merged_whole(&e->merger, n, id);
}

/* ==============================================================================================
 * Decoding
 * ============================================================================================== */

/* Writes the bytes that each token stands for. Writes a token as it is if one of its characters
 * stands for no byte. */
size_t decode_bytes(const Tokenizer *t, const Ids *ids, char *out, char *bytes) {
    Text s = { bytes, 0 };
    int i;
    for (i = 0; i < ids->count; i++) {
        Text token = shown_text(t, ids->id[i]);
        int type = t->piece[ids->id[i]].type;
        size_t n;
        if (!ids->all && (type == PIECE_CONTROL || type == PIECE_UNKNOWN)) continue;
        n = token_bytes(&t->bytelevel, token, bytes + s.length);
        s.length = n ? s.length + n : append_text(bytes, s.length, token.text, token.length);
    }
    return append_valid(out, 0, s, 0);
}

/* ==============================================================================================
 * vocab.json and merges.txt
 * ============================================================================================== */
static int load_merges(Tokenizer *t, const char *s, size_t n, Pool *pool, Error *err) {
    const char *end = s + n, *p, *stop;
    MergeLine line = { 0, "merges.txt, line %d", 0 };
    size_t lines = 1;
    int blank_line = 0, code;
    for (p = s; p < end; p++) lines += *p == '\n';
    code = begin_merges(t, lines, pool, err);
    for (p = s; !code && p < end; p = stop + (stop < end)) {
        Text text = { p, 0 };
        stop = memchr(p, '\n', (size_t)(end - p));
        if (!stop) stop = end;
        text.length = (size_t)(stop - p);
        if (text.length && p[text.length - 1] == '\r') text.length--;
        line.number++;
        if (starts_with(p, text.length, "#version", 8)) continue;
        if (!text.length) { blank_line = line.number; continue; }
        if (blank_line) return fail_at(err, E_FORMAT, "an empty line", line.place, blank_line);
        code = add_merge_line(t, text, &line, pool, err);
        line.rank++;
    }
    return code;
}

/* Finds the special tokens. They are RoBERTa's if the ids of <s> and </s> are 0 and 2, else GPT-2's. */
static void find_specials(Tokenizer *t) {
    static const char *const control[] = { "<s>", "<pad>", "</s>", "<mask>" };
    size_t i;
    t->bytelevel.roberta = find_ordinary(t, "<s>") == 0 && find_ordinary(t, "</s>") == 2;
    t->before = t->after = t->bytelevel.roberta;
    t->special.unk = find_ordinary(t, "<unk>");
    if (t->special.unk >= 0) t->piece[t->special.unk].type = PIECE_UNKNOWN;
    if (t->before) {
        t->special.bos = 0;
        t->special.eos = 2;
        t->special.pad = find_ordinary(t, "<pad>");
        for (i = 0; i < sizeof control / sizeof *control; i++)
            if (find_ordinary(t, control[i]) >= 0)
                t->piece[find_ordinary(t, control[i])].type = PIECE_CONTROL;
    } else {
        int end = find_ordinary(t, "<|endoftext|>");
        t->special.bos = t->special.eos = end;
        if (t->special.unk < 0) t->special.unk = end;
        if (end >= 0) t->piece[end].type = PIECE_CONTROL;
    }
    t->bytelevel.missing = t->special.unk;
}

Tokenizer *tokenizer_bytelevel(const void *vocab, size_t vocab_n, const void *merges, size_t merges_n,
                               Pool *pool, Error *err) {
    Tokenizer *t = new_tokenizer(&bytelevel_kind, pool);
    const char *v = t ? tokenizer_keep(t, "vocab.json", vocab, vocab_n, pool) : NULL;
    const char *m = v ? tokenizer_keep(t, "merges.txt", merges, merges_n, pool) : NULL;
    const Json *root;
    if (!m) { no_memory(err, "vocab.json"); return NULL; }
    bytelevel_alphabet(&t->bytelevel);
    root = json_parse(v, vocab_n, pool, err);
    if (!root || load_vocab(t, root, 0, pool, err)) return NULL;
    bytelevel_ids(t);
    if (load_merges(t, m, merges_n, pool, err) || index_words(t, pool, err)) return NULL;
    find_specials(t);
    return t;
}

/* Applies tokenizer_config.json. A vocabulary like RoBERTa's may belong to GPT-2's class (OPT has one): then
 * the template is empty unless the file names it. */
static int configure(Tokenizer *t, const Json *config, Error *err) {
    ByteLevel *b = &t->bytelevel;
    const Json *prefix = json_get(config, "add_prefix_space");
    int asked = json_bool(config, "add_prefix_space", 0);
    (void)err;
    if (!t->json && b->roberta && class_is(config, "GPT2Tokenizer")) b->roberta = t->before = t->after = 0;
    if (!json_is_bool(prefix) || !class_counts(t, config)) return OK;
    if (t->json && asked == b->prefix_space) return OK;
    b->prefix_space = t->asked_prefix = asked;
    return OK;
}

static const char *class_name(const Tokenizer *t) {
    const ByteLevel *b = &t->bytelevel;
    int plain = !b->prefix_space || t->asked_prefix > 0;
    if (t->json && (!plain || (t->before != t->after && t->asked_prefix < 0)))
        return "PreTrainedTokenizerFast";
    return (t->json ? t->before && t->after : b->roberta) ? "RobertaTokenizer" : "GPT2Tokenizer";
}

const TokenizerKind bytelevel_kind = {
    TOKENIZER_BYTELEVEL, measure_bytes, encode_bytes, NULL, decode_bytes, bytelevel_is_word, NULL, class_name,
    configure
};
