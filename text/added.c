/* text/added.c - added tokens: keeps the list of them, and cuts them out of a text before it is encoded.
 * Source   Hugging Face's tokenizers (added_vocabulary.rs), quirks included.
 * Needs    core.c, text/unicode.c, text/pieces.c.
 * Edges    tokens that overlap (the one that begins first is taken; if both begin together, the longer one),
 *          white space that a token swallows on both sides, a token in the white space that the one before it
 *          has swallowed (it is found), ids between the added ones that no token has. */
#include "text.h"

/* ==============================================================================================
 * Cutting the tokens out of a text
 * ============================================================================================== */
void begin_parts(Parts *p, const Tokenizer *t, const Cuts *cuts, Text s) {
    p->t = t; p->cuts = cuts && cuts->keys ? cuts : NULL;
    p->text = s.text; p->n = s.length; p->at = p->scan = 0;
    p->found = -1; p->start = p->stop = 0;
}

/* Returns 1 if the first character of s (last 1: the last one) is part of a word. n: the bytes of s. */
static int is_word(const char *s, size_t n, int last) {
    int32_t code;
    size_t k = n;
    if (!n) return 0;
    if (last) {
        do k--; while (k && n - k < 4 && ((unsigned char)s[k] & 0xC0) == 0x80);
        s += k; n -= k;
    }
    utf8_decode(s, n, &code);
    return unicode_is_word(code);
}

/* Returns 1 if the token that was found at text[at..end) is not cut out there. */
static int passes_over(const Parts *p, const AddedToken *a, size_t at, size_t end) {
    if (a->special && p->t->split_special) return 1;
    return a->single_word && (is_word(p->text, at, 1) || is_word(p->text + end, p->n - end, 0));
}

/* Looks for the next token from p->scan on. As in the reference, the search goes on just after the token
 * itself, not after the white space that the token swallows. */
static void find_next(Parts *p) {
    size_t i, length;
    int which = 0;
    for (i = p->scan; i < p->n; i++) {
        unsigned char c = (unsigned char)p->text[i];
        const AddedToken *a;
        if (!(p->cuts->first[c / 8] >> c % 8 & 1)) continue;
        length = longest_prefix(p->cuts->key, p->cuts->keys, p->text + i, p->n - i, &which);
        if (!length) continue;
        a = &p->t->added[p->cuts->key[which].type];
        p->scan = i + length;
        if (passes_over(p, a, i, p->scan)) {
            i = p->scan - 1;
            continue;
        }
        p->start = a->lstrip && i > p->at ? space_before(p->text, p->at, i) : i;
        p->stop = a->rstrip ? space_after(p->text, p->scan, p->n) : p->scan;
        p->found = p->cuts->key[which].type;
        return;
    }
    p->scan = p->n;
}

int next_part(Parts *p, Text *part, int *id) {
    size_t end;
    *id = -1;
    if (p->cuts && p->found < 0) find_next(p);
    if (p->found >= 0 && p->start <= p->at) {
        *id = p->t->added[p->found].id;
        part->text = p->text + p->start;
        part->length = p->stop - p->start;
        p->at = p->stop;
        p->found = -1;
        return 1;
    }
    end = p->found >= 0 ? p->start : p->n;
    part->text = p->text + (p->n ? p->at : 0);
    part->length = end - p->at;
    p->at = end;
    return part->length > 0;
}

/* ==============================================================================================
 * The list of added tokens
 * ============================================================================================== */
static int compare_added(const void *a, const void *b) {
    const AddedToken *p = a, *q = b;
    return (p->id > q->id) - (p->id < q->id);
}

/* Notes that decoding begins with `text` for an added token, if it is another text than the token's. OK or
 * E_MEMORY. */
static int show(Tokenizer *t, const AddedToken *a, Text text, Pool *pool) {
    if (text.length == a->length && !memcmp(text.text, a->text, a->length)) return OK;
    if (!t->shown) t->shown = pool_take(pool, (size_t)t->V, sizeof *t->shown);
    if (!t->shown) return E_MEMORY;
    t->shown[a->id] = text;
    return OK;
}

/* Sorts the texts that are looked for. c 0: the texts of tokens without `normalized`, as they are; c 1: the
 * normal forms of tokens with `normalized` (SentencePiece's own files have no such tokens). */
static int make_cuts(Tokenizer *t, int c, Pool *pool, Error *err) {
    int normal = t->json || t->added_normal;    /* 1: the kind looks for tokens in the normal form */
    Cuts *cuts = &t->cut[c];
    int i, n = 0;
    memset(cuts, 0, sizeof *cuts);
    cuts->key = pool_take(pool, (size_t)t->addeds, sizeof *cuts->key);
    if (!cuts->key) return no_memory(err, "added tokens");
    for (i = 0; i < t->addeds; i++) {
        const AddedToken *a = &t->added[i];
        Piece *k = &cuts->key[n];
        Text text = { a->text, a->length };
        if ((a->normalized && normal) != c) continue;
        if (c && t->added_normal && (t->kind->normal_form(t, &text, pool) || show(t, a, text, pool)))
            return no_memory(err, "added tokens");
        if (!text.length) continue;
        k->text = text.text; k->length = text.length; k->type = i;
        cuts->first[(unsigned char)*k->text / 8] |= (unsigned char)(1u << (unsigned char)*k->text % 8);
        n++;
    }
    if (n) qsort(cuts->key, (size_t)n, sizeof *cuts->key, compare_pieces);
    for (i = 0; i < n; i++)                 /* keeps one of several equal normal forms */
        if (!i || compare_pieces(&cuts->key[i], &cuts->key[cuts->keys - 1]))
            cuts->key[cuts->keys++] = cuts->key[i];
    return OK;
}

/* Puts an added token among the pieces, at its id. OK or *err. */
static int place_added(Tokenizer *t, AddedToken *a, Pool *pool, Error *err) {
    Piece *p = &t->piece[a->id];
    Text text = { a->text, a->length };
    int id = find_token(t, a->text, a->length);
    if (id >= 0 && id != a->id)
        return fail_piece(err, E_FORMAT, "an added token has two ids", text, a->id, id);
    if (p->text && (p->length != a->length || memcmp(p->text, a->text, a->length)))
        return fail_piece(err, E_FORMAT, "the id of an added token is another token's", text, 0, 0);
    if (!p->text) {
        p->text = a->text; p->length = a->length;
        p->type = a->special ? PIECE_CONTROL : PIECE_ADDED;
        if (table_add(&t->extra, pool, a->text, a->length, a->id)) return no_memory(err, "added tokens");
    } else if (a->special && (p->type == PIECE_NORMAL || p->type == PIECE_ADDED)) p->type = PIECE_CONTROL;
    a->beyond = table_find(&t->extra, a->text, a->length) >= 0;
    return OK;
}

/* A growing list of added tokens. place (room): for each id, 1 + its index in the list; 0: the list lacks it.
 * V: 1 + the largest id. */
typedef struct { AddedToken *list; int *place, n, V; size_t room; } Growing;

/* Adds `a` to the list; it replaces the token with the same id if there is one. OK or *err. */
static int merge_added(Growing *g, const AddedToken *a, Pool *pool, Error *err) {
    Text text = { a->text, a->length };
    AddedToken *to;
    if (!a->length) return OK;
    if (!g->place[a->id]) g->place[a->id] = ++g->n;
    to = &g->list[g->place[a->id] - 1];
    if (to->length && (to->length != a->length || memcmp(to->text, a->text, a->length)))
        return fail_piece(err, E_FORMAT, "two added tokens have one id", text, 0, 0);
    *to = *a;
    to->text = pool_text(pool, a->text, a->length);
    if (!to->text) return no_memory(err, "added tokens");
    if (a->id >= g->V) g->V = a->id + 1;
    return OK;
}

/* Sets *room to 1 + the largest id, of a piece or of one of `count` added tokens. OK or *err. */
static int room_for(const Tokenizer *t, const AddedToken *token, size_t count, size_t *room, Error *err) {
    size_t i, most = (size_t)t->V + count + MOST_GAPS;
    *room = (size_t)t->V;
    for (i = 0; i < count; i++) {
        Text text = { token[i].text, token[i].length };
        if (token[i].length && (size_t)token[i].id >= most)
            return fail_piece(err, E_RANGE, "the id of an added token is too large", text, token[i].id,
                              (long long)most - 1);
        if (token[i].length && (size_t)token[i].id >= *room) *room = (size_t)token[i].id + 1;
    }
    return OK;
}

/* Adds the tokens to a copy of the list, then puts each among the pieces. */
int add_tokens(Tokenizer *t, const AddedToken *token, size_t count, Pool *pool, Error *err) {
    Growing g = { NULL, NULL, t->addeds, t->V, 0 };
    Piece *piece;
    size_t i;
    int code = room_for(t, token, count, &g.room, err), c;
    if (code) return code;
    g.place = count < INT_MAX / 8 ? pool_take(pool, g.room, sizeof *g.place) : NULL;
    g.list = g.place ? pool_take(pool, (size_t)t->addeds + count, sizeof *g.list) : NULL;
    piece = g.list ? pool_take(pool, g.room, sizeof *piece) : NULL;
    if (!piece) return no_memory(err, "added tokens");
    for (c = 0; c < t->addeds; c++) { g.list[c] = t->added[c]; g.place[g.list[c].id] = c + 1; }
    for (i = 0; i < count && !code; i++) code = merge_added(&g, &token[i], pool, err);
    if (code) return code;
    if (t->V) memcpy(piece, t->piece, (size_t)t->V * sizeof *piece);
    t->piece = piece; t->V = g.V;
    t->added = g.list; t->addeds = g.n;
    t->shown = NULL;
    for (c = 0; c < g.n && !code; c++) code = place_added(t, &g.list[c], pool, err);
    if (g.n) qsort(g.list, (size_t)g.n, sizeof *g.list, compare_added);
    for (c = 0; c < 2 && !code && g.n; c++) code = make_cuts(t, c, pool, err);
    return code;
}

int parse_added(AddedToken *a, const Json *j, const Json *id, Error *err) {
    const Json *content = json_get(j, "content");
    memset(a, 0, sizeof *a);
    if (!content || content->type != JSON_STRING)
        return fail(err, E_FORMAT, "an added token without content", "added tokens", 0, 0);
    a->text = content->string; a->length = content->length;
    if (!json_id(id, &a->id)) {
        Text text = { a->text, a->length };
        return fail_piece(err, E_FORMAT, "the id of an added token is not a number", text, 0, 0);
    }
    a->special = json_bool(j, "special", 0);
    a->lstrip = json_bool(j, "lstrip", 0);
    a->rstrip = json_bool(j, "rstrip", 0);
    a->single_word = json_bool(j, "single_word", 0);
    a->normalized = json_bool(j, "normalized", !a->special);
    return OK;
}
