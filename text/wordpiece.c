/* text/wordpiece.c - WordPiece (BERT, DistilBERT): cuts a text into BERT's words, and each word into the
 *          longest pieces; reads vocab.txt.
 * Source   Devlin et al. 2018 (BERT's basic tokeniser), Wu et al. 2016 (WordPiece); rules and quirks of
 *          Hugging Face's BertNormalizer, BertPreTokenizer and WordPiece.
 * Needs    core.c, text/{unicode,pieces,added,encoder}.c.
 * Edges    malformed UTF-8 (each byte becomes U+FFFD, which cleaning removes), a word with too many
 *          characters or with a part that no piece spells (it becomes one unknown piece), a word of marks
 *          alone (nothing is left of it). */
#include "text.h"

/* ==============================================================================================
 * Words
 * ============================================================================================== */
typedef struct { char *out; size_t length; } Written;

static void put_code(Written *w, int32_t code) {
    char c[4];
    size_t n = (size_t)utf8_encode(c, code);
    if (w->out) memcpy(w->out + w->length, c, n);
    w->length += n;
}

/* Writes the normal form of one character, which cleaning has kept. */
static void put_character(Written *w, int32_t code, const BertRules *rules) {
    int32_t base[18], small[2];
    int i, k, n = 1, m;
    int apart = rules->ideographs && unicode_is_ideograph(code);
    base[0] = code;
    if (apart) put_code(w, ' ');
    if (rules->strip) n = unicode_decompose(code, 0, base);
    for (i = 0; i < n; i++) {
        if (rules->strip && unicode_is_mark(base[i])) continue;
        small[0] = base[i];
        m = rules->lower ? unicode_lower(base[i], small) : 1;
        for (k = 0; k < m; k++) put_code(w, small[k]);
    }
    if (apart) put_code(w, ' ');
}

size_t bert_normalise(char *out, const char *text, size_t n, const BertRules *rules) {
    Written w = { out, 0 };
    size_t at;
    for (at = 0; at < n; ) {
        int32_t code = (unsigned char)text[at];
        if (code > ' ' && code < 127) {     /* most of a text: only capitals change */
            if (rules->lower && code >= 'A' && code <= 'Z') code += 'a' - 'A';
            if (out) out[w.length] = (char)code;
            w.length++;
            at++;
            continue;
        }
        at += (size_t)utf8_decode(text + at, n - at, &code);
        if (code < 0) code = 0xFFFD;
        if (rules->clean) {
            int blank = code == '\t' || code == '\n' || code == '\r';
            if (!code || code == 0xFFFD || (!blank && unicode_is_control(code))) continue;
            if (blank || unicode_class(code) == CHAR_SPACE) code = ' ';
        }
        put_character(&w, code, rules);
    }
    return w.length;
}

size_t bert_word(const char *s, size_t n, size_t *space) {
    size_t at = 0, from, length;
    int32_t code;
    for (; at < n; at += length) {
        length = (size_t)utf8_decode(s + at, n - at, &code);
        if (unicode_class(code) != CHAR_SPACE) break;
    }
    *space = from = at;
    for (; at < n; at += length) {
        length = 1;
        code = (unsigned char)s[at];
        if ((code | 32) >= 'a' && (code | 32) <= 'z') continue;
        length = (size_t)utf8_decode(s + at, n - at, &code);
        if (unicode_is_punctuation(code)) return at == from ? length : at - from;
        if (unicode_class(code) == CHAR_SPACE) break;
    }
    return at - from;
}

/* ==============================================================================================
 * Pieces
 * ============================================================================================== */

/* Builds two tries: `first` of all pieces as they are, `rest` of the pieces that begin with "##", without the
 * "##". OK or E_MEMORY. */
static int build_tries(WordPiece *w, const Piece *piece, int V, Pool *pool) {
    Piece *first = pool_take(pool, (size_t)V, sizeof *first);
    Piece *rest = pool_take(pool, (size_t)V, sizeof *rest);
    int i;
    if (!first || !rest) return E_MEMORY;
    for (i = 0; i < V; i++) {
        if (!piece[i].text) continue;
        first[i] = rest[i] = piece[i];
        first[i].type = PIECE_NORMAL;
        rest[i].type = piece[i].length > 2 && !memcmp(piece[i].text, "##", 2) ? PIECE_NORMAL : PIECE_UNUSED;
        rest[i].text += 2;
        rest[i].length -= rest[i].length > 2 ? 2 : rest[i].length;
    }
    if (trie_build(&w->first, first, V, pool)) return E_MEMORY;
    return trie_build(&w->rest, rest, V, pool);
}

int word_ids(const WordPiece *w, const char *word, size_t n, int *ids) {
    size_t at, characters = 0;
    int count = 0;
    for (at = 0; at < n; at++) characters += ((unsigned char)word[at] & 0xC0) != 0x80;
    for (at = 0; at < n && characters <= (size_t)w->most; ) {
        int id;
        size_t length = trie_longest(at ? &w->rest : &w->first, word + at, n - at, &id);
        if (!length) break;
        ids[count++] = id;
        at += length;
    }
    if (at == n) return count;
    ids[0] = w->unk;
    return 1;
}

/* ==============================================================================================
 * Encoding
 * ============================================================================================== */
static int measure(Encoder *e, Text s) {
    size_t n = bert_normalise(NULL, s.text, s.length, &e->t->wordpiece.rules);
    e->bound += n;
    if (n > e->widest) e->widest = n;
    return OK;
}

/* Sets the origins of the normal form of s, which is made character by character. */
static void word_origins(Encoder *e, Text s) {
    size_t at, used, n = 0, from = (size_t)(s.text - e->start);
    for (at = 0; at < s.length; at += used) {
        int32_t code;
        size_t before = n;
        Source source = { e->start, from + at, 0 };
        int apart;                          /* 1: an ideograph; the spaces around it come from no byte */
        used = (size_t)utf8_decode(s.text + at, s.length - at, &code);
        n += bert_normalise(e->scratch + n, s.text + at, used, &e->t->wordpiece.rules);
        apart = n > before + 2 && e->scratch[before] == ' ' && e->scratch[n - 1] == ' ';
        if (apart) {
            put_origin(e->origin, e->scratch, before, before + 1, source);
            source.at += used;
            put_origin(e->origin, e->scratch, n - 1, n, source);
            source.at -= used;
        }
        source.used = used;
        put_origin(e->origin, e->scratch, before + (size_t)apart, n - (size_t)apart, source);
    }
    e->normal = n;
    e->origin[n].from = from + s.length;
}

/* The pieces after the first one begin with "##", which stands for no bytes. */
void trace_word(Encoder *e, int first, size_t at, size_t to) {
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

/* Encodes the words of the bytes [at, to) of the normal form. */
static void encode_words(Encoder *e, size_t at, size_t to) {
    size_t word, space;
    for (; (word = bert_word(e->scratch + at, to - at, &space)) != 0; at += word) {
        int first = e->count;
        at += space;
        e->count += word_ids(&e->t->wordpiece, e->scratch + at, word, e->ids + e->count);
        trace_word(e, first, at, at + word);
    }
}

/* Encodes the normal form of s, and the added tokens that are found in it. */
static int encode(Encoder *e, Text s) {
    Text normal = { e->scratch, 0 }, part;
    Parts parts;
    int id;
    normal.length = bert_normalise(e->scratch, s.text, s.length, &e->t->wordpiece.rules);
    if (e->span) word_origins(e, s);
    begin_parts(&parts, e->t, e->plain ? NULL : &e->t->cut[1], normal);
    while (next_part(&parts, &part, &id)) {
        size_t from = (size_t)(part.text - e->scratch);
        if (id >= 0) put_one(e, id, from, parts.at);
        else encode_words(e, from, from + part.length);
    }
    return OK;
}

static int normal_form(const Tokenizer *t, Text *text, Pool *pool) {
    const BertRules *rules = &t->wordpiece.rules;
    char *out = pool_take(pool, bert_normalise(NULL, text->text, text->length, rules) + 1, 1);
    if (!out) return E_MEMORY;
    text->length = bert_normalise(out, text->text, text->length, rules);
    text->text = out;
    return OK;
}

/* ==============================================================================================
 * Decoding
 * ============================================================================================== */

/* Writes the pieces with a space before each, except before pieces that begin with "##" (which is left out),
 * and, unless keep_spaces is 1, before punctuation and endings such as "n't". */
size_t decode_words(const Tokenizer *t, const Ids *ids, char *out, char *bytes) {
    static const char *const glued[] = { ".", "?", "!", ",", "n't", "'m", "'s", "'ve", "'re" };
    size_t at = 0, k;
    int i, first = 1;
    (void)bytes;
    for (i = 0; i < ids->count; i++) {
        Text s = shown_text(t, ids->id[i]);
        int type = t->piece[ids->id[i]].type;
        int rest = starts_with(s.text, s.length, "##", 2), apart = !first && !rest;
        if (!ids->all && (type == PIECE_CONTROL || type == PIECE_UNKNOWN)) continue;
        for (k = 0; k < sizeof glued / sizeof *glued && apart && !t->wordpiece.keep_spaces; k++)
            if (starts_with(s.text, s.length, glued[k], strlen(glued[k]))) apart = 0;
        if (apart) at = append_text(out, at, " ", 1);
        rest = rest && !first ? 2 : 0;
        at = append_text(out, at, s.text + rest, s.length - (size_t)rest);
        first = 0;
    }
    return at;
}

/* ==============================================================================================
 * vocab.txt, and the kind
 * ============================================================================================== */
int finish_wordpiece(Tokenizer *t, int unk, Pool *pool, Error *err) {
    static const char *const control[] = { "[CLS]", "[SEP]", "[PAD]", "[MASK]" };
    size_t i;
    if (unk < 0) return fail(err, E_MISSING, "there is no unknown piece", "WordPiece vocabulary", 0, 0);
    t->special.unk = t->wordpiece.unk = unk;
    t->added_normal = 1;
    if (build_tries(&t->wordpiece, t->piece, t->V, pool)) return no_memory(err, "WordPiece vocabulary");
    t->piece[unk].type = PIECE_UNKNOWN;
    for (i = 0; i < sizeof control / sizeof *control; i++)
        if (find_ordinary(t, control[i]) >= 0) t->piece[find_ordinary(t, control[i])].type = PIECE_CONTROL;
    t->special.bos = find_ordinary(t, "[CLS]");
    t->special.eos = find_ordinary(t, "[SEP]");
    t->special.pad = find_ordinary(t, "[PAD]");
    return OK;
}

/* Reads the pieces, one per line, without the white space at the end of each line. OK or *err. */
static int load_lines(Tokenizer *t, const char *s, size_t n, Pool *pool, Error *err) {
    const char *p, *end = s + n, *stop;
    size_t lines = 0;
    int id;
    for (p = s; p < end; p++) lines += *p == '\n' || p + 1 == end;
    if (!lines || lines > INT_MAX / 8)
        return fail(err, E_FORMAT, "not a list of tokens, one a line", "vocab.txt", 0, 0);
    t->V = (int)lines;
    t->piece = pool_take(pool, lines, sizeof *t->piece);
    if (!t->piece) return no_memory(err, "vocab.txt");
    for (id = 0, p = s; p < end; p = stop + 1, id++) {
        Piece *piece = &t->piece[id];
        Text text = { p, 0 };
        stop = memchr(p, '\n', (size_t)(end - p));
        if (!stop) stop = end;
        for (text.length = (size_t)(stop - p); text.length && strchr(" \t\r", p[text.length - 1]); )
            text.length--;
        piece->text = p;
        piece->length = text.length;
        piece->type = PIECE_NORMAL;
        if (!text.length) return fail_at(err, E_FORMAT, "a token is empty", "vocab.txt, line %d", id + 1);
        if (table_find(&t->ordinary, p, text.length) >= 0)
            return fail_piece(err, E_FORMAT, "a token is in the vocabulary twice", text, 0, 0);
        if (table_add(&t->ordinary, pool, p, text.length, id)) return no_memory(err, "vocab.txt");
    }
    return OK;
}

Tokenizer *tokenizer_wordpiece(const void *vocab, size_t n, Pool *pool, Error *err) {
    Tokenizer *t = new_tokenizer(&wordpiece_kind, pool);
    const char *lines = t ? tokenizer_keep(t, "vocab.txt", vocab, n, pool) : NULL;
    BertRules *rules;
    if (!lines) { no_memory(err, "vocab.txt"); return NULL; }
    if (load_lines(t, lines, n, pool, err)) return NULL;
    rules = &t->wordpiece.rules;
    rules->clean = rules->ideographs = rules->strip = rules->lower = 1;
    t->wordpiece.most = 100;
    if (finish_wordpiece(t, find_ordinary(t, "[UNK]"), pool, err)) return NULL;
    t->before = t->special.bos >= 0;
    t->after = t->special.eos >= 0;
    return t;
}

/* Reads the rules from tokenizer_config.json. strip_accents null: do_lower_case decides. */
static int configure(Tokenizer *t, const Json *config, Error *err) {
    BertRules *rules = &t->wordpiece.rules, before = *rules;
    (void)err;
    if (!class_counts(t, config)) return OK;
    rules->lower = json_bool(config, "do_lower_case", rules->lower);
    if (rules->lower != before.lower) rules->strip = rules->lower;
    rules->strip = json_bool(config, "strip_accents", rules->strip);
    rules->ideographs = json_bool(config, "tokenize_chinese_chars", rules->ideographs);
    t->wordpiece.configured = memcmp(rules, &before, sizeof before) != 0;
    return OK;
}

/* A tokenizer.json that asks for just what transformers' BertTokenizer does has this class. */
static const char *class_name(const Tokenizer *t) {
    const WordPiece *w = &t->wordpiece;
    int bert = w->rules.clean && !w->keep_spaces && w->most == 100 && t->before && t->after;
    return t->json && !w->configured && !bert ? "PreTrainedTokenizerFast" : "BertTokenizer";
}

const TokenizerKind wordpiece_kind = {
    TOKENIZER_WORDPIECE, measure, encode, NULL, decode_words, NULL, normal_form, class_name, configure
};
