/* text/added.c - added tokens: keeps the list of them, and cuts them out of a text before it is encoded.
 * Source   Hugging Face's tokenizers (added_vocabulary.rs), quirks included.
 * Needs    core.c, text/unicode.c, text/pieces.c.
 * Edges    tokens that overlap (the one that begins first is taken; if both begin together, the longer one),
 *          white space that a token swallows on both sides. For single_word, a letter, a number or '_' is
 *          part of a word; a mark is not. */
#include "text.h"

/* ==============================================================================================
 * Cutting the tokens out of a text
 * ============================================================================================== */
void begin_parts(Parts *p, const Tokenizer *t, const Cuts *cuts, Text s) {
    p->t = t; p->cuts = cuts && cuts->keys ? cuts : NULL;
    p->text = s.text; p->n = s.length; p->at = 0;
    p->found = -1; p->stop = 0;
}

/* Returns 1 if the first character of s (last 1: the last one) is part of a word. n: the bytes of s. */
static int is_word(const char *s, size_t n, int last) {
    size_t length, k = n;
    int class;
    if (!n) return 0;
    if (last) {
        do k--; while (k && n - k < 4 && ((unsigned char)s[k] & 0xC0) == 0x80);
        s += k; n -= k;
    }
    class = class_at(s, n, &length);
    return class == CHAR_LETTER || class == CHAR_NUMBER || *s == '_';
}

/* Looks for the next token from p->at on. Returns the index where it begins, or where the white space that
 * it swallows begins. */
static size_t find_next(Parts *p) {
    size_t i, length, start = p->at;
    int which = 0;
    for (i = p->at; p->found < 0 && i < p->n; i++) {
        unsigned char c = (unsigned char)p->text[i];
        const AddedToken *a;
        if (!(p->cuts->first[c / 8] >> c % 8 & 1)) continue;
        length = longest_prefix(p->cuts->key, p->cuts->keys, p->text + i, p->n - i, &which);
        if (!length) continue;
        a = &p->t->added[p->cuts->key[which].type];
        p->stop = i + length;
        if (a->single_word && (is_word(p->text, i, 1) || is_word(p->text + p->stop, p->n - p->stop, 0))) {
            i = p->stop - 1;
            continue;
        }
        start = a->lstrip ? space_before(p->text, p->at, i) : i;
        if (a->rstrip) p->stop = space_after(p->text, p->stop, p->n);
        p->found = p->cuts->key[which].type;
    }
    return start;
}

int next_part(Parts *p, Text *part, int *id) {
    size_t start;
    *id = -1;
    part->text = p->text + (p->n ? p->at : 0);
    start = p->cuts ? find_next(p) : p->at;
    if (p->found >= 0 && start == p->at) {
        *id = p->t->added[p->found].id;
        p->at = p->stop;
        p->found = -1;
        return 1;
    }
    part->length = (p->found >= 0 ? start : p->n) - p->at;
    p->at += part->length;
    return part->length > 0;
}

/* ==============================================================================================
 * The list of added tokens
 * ============================================================================================== */
static int compare_added(const void *a, const void *b) {
    const AddedToken *p = a, *q = b;
    return (p->id > q->id) - (p->id < q->id);
}

/* Sorts the texts that are looked for. c 0: the texts of tokens without `normalized`, as they are; c 1: the
 * normal forms of tokens with `normalized` (only tokenizer.json has such tokens). */
static int make_cuts(Tokenizer *t, int c, Pool *pool, Error *err) {
    Cuts *cuts = &t->cut[c];
    int i, n = 0;
    memset(cuts, 0, sizeof *cuts);
    cuts->key = pool_take(pool, (size_t)t->addeds, sizeof *cuts->key);
    if (!cuts->key) return no_memory(err, "added tokens");
    for (i = 0; i < t->addeds; i++) {
        const AddedToken *a = &t->added[i];
        Piece *k = &cuts->key[n];
        Text text = { a->text, a->length };
        if ((a->normalized && t->json) != c) continue;
        if (c && t->added_normal && t->kind->normal_form(t, &text, pool))
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
    if (a->id < 0 || (size_t)a->id >= g->room)
        return fail_piece(err, E_UNSUPPORTED, "a hole between the ids of added tokens", text, a->id,
                          (long long)g->room - 1);
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

/* Adds the tokens to a copy of the list, then puts each among the pieces. Fails if some
 * id then has no piece. */
int add_tokens(Tokenizer *t, const AddedToken *token, size_t count, Pool *pool, Error *err) {
    Growing g = { NULL, NULL, t->addeds, t->V, (size_t)t->V + count };
    Piece *piece;
    size_t i;
    int code = OK, c;
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
    for (c = 0; c < g.n && !code; c++) code = place_added(t, &g.list[c], pool, err);
    for (c = 0; c < g.V && !code; c++)
        if (!piece[c].text) code = fail_at(err, E_UNSUPPORTED, "an id without a token", "id %d", c);
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
