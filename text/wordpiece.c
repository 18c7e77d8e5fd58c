/* text/wordpiece.c - BERT's words, and the pieces that they fall into: the longest first.
 * Source   Devlin et al. 2018 (BERT's basic tokeniser), Wu et al. 2016 (WordPiece); rules and quirks of Hugging Face's BertNormalizer,
 *          BertPreTokenizer and WordPiece.
 * Needs    core.c (UTF-8), text/unicode.c, text/unigram.c (its trie).
 * Never    allocates while encoding; the caller measures a text's normal form first.
 * Edges    malformed UTF-8 (each byte is U+FFFD, which cleaning removes), a word of too many characters, a word without pieces: one
 *          unknown piece each; a mark alone: nothing is left of it. */
#include "text.h"

/* ================================================================================================================
 * Words
 * ================================================================================================================ */
typedef struct { char *out; size_t length; } Written;

static void put_code(Written *w, int32_t code) {
    char c[4];
    size_t n = (size_t)utf8_encode(c, code);
    if (w->out) memcpy(w->out + w->length, c, n);
    w->length += n;
}

/* One character that is left after cleaning. */
static void put_character(Written *w, int32_t code, const BertRules *rules) {
    int32_t base[3], small[2];
    int i, k, n = 1, m;
    int apart = rules->ideographs && unicode_is_ideograph(code);
    base[0] = code;
    if (apart) put_code(w, ' ');
    if (rules->strip) n = unicode_base(code, base);
    for (i = 0; i < n; i++) {
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
        if (code > ' ' && code < 127) {     /* most text; nothing but capitals changes */
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

/* A word is what stands between white space; a punctuation mark is one by itself. */
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

/* ================================================================================================================
 * Pieces
 * ================================================================================================================ */

/* Two tries: of the pieces as they are, and of those that go on in a word, without their prefix. */
int wordpiece_build(WordPiece *w, const Piece *piece, int V, const char *prefix, Pool *pool) {
    size_t skip = strlen(prefix);
    Piece *first = pool_take(pool, (size_t)V, sizeof *first), *rest = pool_take(pool, (size_t)V, sizeof *rest);
    int i;
    if (!first || !rest) return E_MEMORY;
    for (i = 0; i < V; i++) {
        if (!piece[i].text) continue;
        first[i] = rest[i] = piece[i];
        first[i].type = PIECE_NORMAL;
        rest[i].type = skip < piece[i].length && !memcmp(piece[i].text, prefix, skip) ? PIECE_NORMAL : PIECE_UNUSED;
        rest[i].text += skip;
        rest[i].length -= skip < rest[i].length ? skip : rest[i].length;
    }
    if (unigram_build(&w->first, first, V, w->unk, pool)) return E_MEMORY;
    return unigram_build(&w->rest, rest, V, w->unk, pool);
}

/* From the left the longest piece, again and again; a word of which a part has no piece is unknown as a whole. */
int wordpiece_encode(const WordPiece *w, const char *word, size_t n, int *ids) {
    size_t at, characters = 0;
    int count = 0;
    for (at = 0; at < n; at++) characters += ((unsigned char)word[at] & 0xC0) != 0x80;
    for (at = 0; at < n && characters <= (size_t)w->most; ) {
        int id;
        size_t length = unigram_longest(at ? &w->rest : &w->first, word + at, n - at, &id);
        if (!length) break;
        ids[count++] = id;
        at += length;
    }
    if (at == n) return count;
    ids[0] = w->unk;
    return 1;
}
