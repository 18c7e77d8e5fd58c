/* unigram.c - the unigram language model of text pieces: the best segmentation of a text, the n best, a random one; and learning it.
 * Source   Kudo 2018 (subword regularisation): a segmentation x of a text has log-probability sum over its pieces of score(x_i).
 *          The arithmetic is the sentencepiece library's, roundings included, since equal scores are told apart by them.
 * Needs    core.c. Pieces are found with a trie in a double array: node i's child for byte c is node base[i] + c, if that node's
 *          `check` says i (Aoe 1989).
 * Never    looks at a text's meaning: normalisation, unknown pieces as bytes, and ids beyond the vocabulary are tokenizer.c's.
 * Edges    a text without any piece (each character is unknown), malformed UTF-8 (a character is as long as its first byte says, the
 *          text's end permitting), equal scores (the path that was found first stays), scores that underflow as probabilities.
 * exp, log Our own, in double: the same bits on every machine, so that a training gives one model. */
#include "rlhf.h"

/* ================================================================================================================
 * exp and log
 * ================================================================================================================ */

/* e^x = 2^k e^r with |r| <= ln 2 / 2; the series of e^r ends where a double does. */
static double own_exp(double x) {
    double k, r, sum = 1;
    int i;
    if (x < -745) return 0;
    if (x > 709) x = 709;
    k = floor(x * 1.4426950408889634 + 0.5);
    r = (x - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10;
    for (i = 14; i > 0; i--) sum = 1 + sum * r / i;
    return ldexp(sum, (int)k);
}

/* log x = k ln 2 + 2 (z + z^3/3 + z^5/5 + ...) with z = (m - 1) / (m + 1), x = 2^k m, m near 1. x > 0. */
static double own_log(double x) {
    int k, i;
    double m = frexp(x, &k), z, sum = 0;
    if (m < 0.70710678118654752440) { m *= 2; k--; }
    z = (m - 1) / (m + 1);
    for (i = 23; i > 0; i -= 2) sum = sum * z * z + 1.0 / i;
    return 2 * z * sum + k * 0.69314718055994530942;
}

/* log(e^a + e^b) */
static double log_sum(double a, double b) {
    double most = a > b ? a : b, least = a > b ? b : a;
    return least < most - 50 ? most : most + own_log(1 + own_exp(least - most));
}

/* ================================================================================================================
 * The trie
 * ================================================================================================================ */
typedef struct { uint32_t node; int low, high; size_t depth; } Range;    /* keys [low, high) agree in `depth` bytes, which lead to node */
enum { BYTES = 256, TRIES = 512 };

/* Room for nodes 0 .. nodes-1. */
static int more_nodes(Unigram *u, size_t nodes, Pool *pool) {
    size_t room = u->nodes, i;
    TrieNode *node;
    if (nodes <= room) return OK;
    while (room < nodes) room = room ? 2 * room : 4 * BYTES;
    if (room > UINT32_MAX / 2) return E_MEMORY;
    node = pool_take(pool, room, sizeof *node);
    if (!node) return E_MEMORY;
    if (u->nodes) memcpy(node, u->node, u->nodes * sizeof *node);
    for (i = u->nodes; i < room; i++) { node[i].check = UINT32_MAX; node[i].value = -1; }
    u->node = node;
    u->nodes = room;
    return OK;
}

/* A base from which every child (count bytes, rising) falls on a free node. Looks at few places, then takes the end, where all
 * are free: a hostile vocabulary costs memory, not hours. *first: no node before it is free. *last: behind the last used one. */
static int place_children(Unigram *u, const unsigned char *child, int count, size_t *first, size_t *last, uint32_t *base, Pool *pool) {
    size_t at, steps;
    int i;
    while (*first < *last && u->node[*first].check != UINT32_MAX) ++*first;
    at = *first < (size_t)child[0] + 1 ? (size_t)child[0] + 1 : *first;
    for (steps = 0; steps < TRIES && at < *last; steps++, at++) {
        if (u->node[at].check != UINT32_MAX) continue;
        if (more_nodes(u, at + BYTES, pool)) return E_MEMORY;
        for (i = 1; i < count && u->node[at + child[i] - child[0]].check == UINT32_MAX; i++) { }
        if (i == count) break;
    }
    if (steps == TRIES || at >= *last) at = *last < (size_t)child[0] + 1 ? (size_t)child[0] + 1 : *last;
    if (more_nodes(u, at + BYTES, pool)) return E_MEMORY;
    *base = (uint32_t)(at - child[0]);
    if (*last <= at + child[count - 1] - child[0]) *last = at + child[count - 1] - child[0] + 1;
    return OK;
}

/* key (keys): sorted by their bytes, none twice, none empty; id: what each is worth. */
static int build_trie(Unigram *u, const Piece *const *key, const int *id, int keys, Pool *pool) {
    Range *stack = pool_take(pool, (size_t)keys + 1, sizeof *stack), r;
    size_t first = 1, last = 1;
    int waiting = 0, k, count, i;
    if (!stack || more_nodes(u, 1, pool)) return E_MEMORY;
    u->node[0].check = 0;
    if (!keys) return OK;
    r.node = 0; r.low = 0; r.high = keys; r.depth = 0;
    stack[waiting++] = r;
    while (waiting) {
        unsigned char child[BYTES];
        uint32_t base;
        r = stack[--waiting];
        if (key[r.low]->length == r.depth) {
            u->node[r.node].score = key[r.low]->score;
            u->node[r.node].value = id[r.low++];
        }
        if (r.low == r.high) continue;
        for (count = 0, k = r.low; k < r.high; k++) {
            unsigned char c = (unsigned char)key[k]->text[r.depth];
            if (!count || child[count - 1] != c) child[count++] = c;
        }
        if (place_children(u, child, count, &first, &last, &base, pool)) return E_MEMORY;
        u->node[r.node].base = base;
        for (i = 0, k = r.low; i < count; i++) {
            Range next;
            next.node = base + child[i];
            next.low = k;
            next.depth = r.depth + 1;
            while (k < r.high && (unsigned char)key[k]->text[r.depth] == child[i]) k++;
            next.high = k;
            u->node[next.node].check = r.node;
            stack[waiting++] = next;
        }
    }
    return OK;
}

/* Node's child for byte c, or 0 (the root is nobody's child). */
static inline uint32_t child_of(const Unigram *u, uint32_t node, unsigned char c) {
    uint32_t to = u->node[node].base + c;
    return u->node[to].check == node ? to : 0;
}

static int compare_piece(const void *a, const void *b) {
    const Piece *p = *(const Piece *const *)a, *q = *(const Piece *const *)b;
    size_t n = p->length < q->length ? p->length : q->length;
    int order = memcmp(p->text, q->text, n);
    return order ? order : (p->length > q->length) - (p->length < q->length);
}

/* score(piece): its own, or for a user-defined one length max - 0.1. The reference adds in double, and keeps floats. */
static inline double piece_score(const Unigram *u, int id, size_t length) {
    const Piece *p = &u->piece[id];
    return p->type == PIECE_USER_DEFINED ? (double)((f32)length * u->max_score) - 0.1 : (double)p->score;
}

int unigram_build(Unigram *u, const Piece *piece, int V, int unk, Pool *pool) {
    const Piece **key = pool_take(pool, (size_t)V, sizeof *key);
    int *id = pool_take(pool, (size_t)V, sizeof *id), keys = 0, i;
    f32 least = 3.402823466e+38f;
    memset(u, 0, sizeof *u);
    if (!key || !id) return E_MEMORY;
    u->piece = piece;
    u->unk = unk;
    u->max_score = 1.17549435e-38f;         /* where the reference starts */
    for (i = 0; i < V; i++) {
        if (piece[i].type == PIECE_NORMAL) {
            if (piece[i].score < least) least = piece[i].score;
            if (piece[i].score > u->max_score) u->max_score = piece[i].score;
        }
        if (piece[i].type == PIECE_USER_DEFINED) u->users = 1;
        if (piece[i].type == PIECE_NORMAL || piece[i].type == PIECE_USER_DEFINED) key[keys++] = &piece[i];
    }
    u->unk_score = least - 10;
    qsort(key, (size_t)keys, sizeof *key, compare_piece);
    for (i = 0; i < keys; i++) id[i] = (int)(key[i] - piece);
    return build_trie(u, key, id, keys, pool);
}

/* Bytes of the longest piece that s begins with, and which one; 0: none. */
size_t unigram_longest(const Unigram *u, const char *s, size_t n, int *id) {
    size_t i, found = 0;
    uint32_t node = 0;
    for (i = 0; i < n && (node = child_of(u, node, (unsigned char)s[i])) != 0; i++)
        if (u->node[node].value >= 0) { found = i + 1; *id = u->node[node].value; }
    return found;
}

/* ================================================================================================================
 * The best segmentation
 * ================================================================================================================ */

/* Bytes of the character that begins with c, as the reference counts them. */
static inline size_t char_bytes(unsigned char c) { return c < 0xC0 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4; }

size_t unigram_character(const char *s, size_t n) {
    size_t k = char_bytes((unsigned char)*s);
    return k < n ? k : n;
}

/* Viterbi: best[j] = max over pieces s[i..j) of best[i] + score(s[i..j)), in the order of i, then of j; of equals the first stays.
 * A character that is no piece is unknown: a piece of the score min - 10. best (n+1), best[0].score given. */
void unigram_best(const Unigram *u, const char *s, size_t n, Best *best, int without) {
    size_t i, j, step;
    for (i = 1; i <= n; i++) best[i].id = -1;
    for (i = 0; i < n; i += step) {
        f32 here = best[i].score;
        uint32_t node = 0;
        int single = 0;
        step = unigram_character(s + i, n - i);
        for (j = i; j < n && (node = child_of(u, node, (unsigned char)s[j])) != 0; ) {
            int id = u->node[node].value;
            double score;
            j++;
            if (id < 0 || id == without) continue;
            score = (u->users ? piece_score(u, id, j - i) : u->node[node].score) + (double)here;
            if (best[j].id < 0 || score > best[j].score) {
                best[j].score = (f32)score;
                best[j].id = id;
                best[j].from = (uint32_t)i;
            }
            if (j - i == step) single = 1;
        }
        if (!single) {
            f32 score = u->unk_score + here;
            j = i + step;
            if (best[j].id < 0 || score > best[j].score) {
                best[j].score = score;
                best[j].id = u->unk;
                best[j].from = (uint32_t)i;
            }
        }
    }
}

/* ================================================================================================================
 * Other segmentations
 * ================================================================================================================ */

/* The pieces that begin at s[i], shortest first, and the unknown one where no piece is just one character. */
typedef struct { const Unigram *u; const char *s; size_t n, i, j, step; uint32_t node; int id, single, last; double score; } Edges;

static void edges_at(Edges *e, const Unigram *u, const char *s, size_t n, size_t i) {
    e->u = u; e->s = s; e->n = n;
    e->i = e->j = i;
    e->step = unigram_character(s + i, n - i);
    e->node = 0;
    e->single = e->last = 0;
}

/* The next one: it ends at e->j, its piece and score in e->id, e->score. 0: no more. */
static int next_edge(Edges *e) {
    const Unigram *u = e->u;
    while (!e->last && e->j < e->n && (e->node = child_of(u, e->node, (unsigned char)e->s[e->j])) != 0) {
        e->id = u->node[e->node].value;
        e->j++;
        if (e->id < 0) continue;
        if (e->j - e->i == e->step) e->single = 1;
        e->score = piece_score(u, e->id, e->j - e->i);
        return 1;
    }
    if (e->last || e->single) return 0;
    e->last = 1;
    e->j = e->i + e->step;
    e->id = u->unk;
    e->score = u->unk_score;
    return 1;
}

/* Draws a segmentation with probability proportional to exp(theta sum of scores): beta[i] = log of the sum over the segmentations of
 * s[i..n), from the end; then from the start one piece after another. beta (n+1) scratch; best (n+1) as unigram_best leaves its own path. */
void unigram_sample(const Unigram *u, const char *s, size_t n, double theta, Rng *rng, Best *best, double *beta) {
    Edges e;
    size_t i, to;
    for (i = 0; i <= n; i++) { beta[i] = -1e300; best[i].id = -1; }     /* not reached: within a character */
    beta[n] = 0;
    for (i = n; i-- > 0; )
        for (edges_at(&e, u, s, n, i); next_edge(&e); )
            if (beta[e.j] > -1e299) beta[i] = log_sum(beta[i], theta * e.score + beta[e.j]);
    for (i = 0; i < n; i = to) {
        double left = rng_unit(rng);
        to = 0;
        for (edges_at(&e, u, s, n, i); left >= 0 && next_edge(&e); ) {
            if (beta[e.j] <= -1e299) continue;
            left -= own_exp(theta * e.score + beta[e.j] - beta[i]);
            to = e.j;
            best[to].id = e.id;
            best[to].from = (uint32_t)i;
        }
    }
}

/* A* from the end of the text: a hypothesis is a path from `at` to the end; what is still before it is known exactly, the best path to
 * `at`. The best hypothesis is at heap[0]; of equals the older one. */
typedef struct { size_t at; int edge, next; f32 sum, bound; } Hypothesis;
typedef struct { uint32_t from; int id, next; f32 score; } Edge;        /* next: another edge that ends where this one does, -1: none */
typedef struct {
    Pool *pool;
    Edge *edge; int edges, *into;           /* into (n+1): the first edge that ends there */
    f32 *best;                              /* (n+1) of the best path that ends there */
    Hypothesis *h; int count; size_t room;
    int *heap; int waiting; size_t heap_room;
} Search;

static int ahead(const Search *q, int a, int b) { return q->h[a].bound > q->h[b].bound || (q->h[a].bound == q->h[b].bound && a < b); }

static void *bigger(Pool *pool, void *array, size_t used, size_t *room, size_t size) {
    void *more;
    if (used < *room) return array;
    more = used < INT_MAX / 4 ? pool_take(pool, used ? 2 * used : 1024, size) : NULL;
    if (!more) return NULL;
    if (used) memcpy(more, array, used * size);
    *room = used ? 2 * used : 1024;
    return more;
}

static int push(Search *q, Hypothesis h) {
    int i, n;
    Hypothesis *list = bigger(q->pool, q->h, (size_t)q->count, &q->room, sizeof *q->h);
    int *heap = list ? bigger(q->pool, q->heap, (size_t)q->waiting, &q->heap_room, sizeof *q->heap) : NULL;
    if (!heap) return E_MEMORY;
    q->h = list; q->heap = heap;
    n = q->count++;
    q->h[n] = h;
    for (i = q->waiting++; i && ahead(q, n, heap[(i - 1) / 2]); i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
    heap[i] = n;
    return OK;
}

static int pop(Search *q) {
    int top = q->heap[0], last = q->heap[--q->waiting], i = 0, child;
    for (; (child = 2 * i + 1) < q->waiting; i = child) {
        if (child + 1 < q->waiting && ahead(q, q->heap[child + 1], q->heap[child])) child++;
        if (!ahead(q, q->heap[child], last)) break;
        q->heap[i] = q->heap[child];
    }
    q->heap[i] = last;
    return top;
}

/* All edges, by where they end, and the best score to every place. Equal sums as the reference's lattice has them: floats. */
static int begin_search(Search *q, const Unigram *u, const char *s, size_t n) {
    Edges e;
    size_t i, room = 0;
    q->into = pool_take(q->pool, n + 1, sizeof *q->into);
    q->best = pool_take(q->pool, n + 1, sizeof *q->best);
    if (!q->into || !q->best) return E_MEMORY;
    for (i = 0; i <= n; i++) q->into[i] = -1;
    for (i = 0; i < n; i++) {
        if (i && q->into[i] < 0) continue;
        for (edges_at(&e, u, s, n, i); next_edge(&e); ) {
            Edge *list = bigger(q->pool, q->edge, (size_t)q->edges, &room, sizeof *q->edge), *edge;
            f32 sum;
            if (!list) return E_MEMORY;
            q->edge = list;
            edge = &q->edge[q->edges];
            edge->from = (uint32_t)i;
            edge->id = e.id;
            edge->score = (f32)e.score;
            edge->next = q->into[e.j];
            sum = q->best[i] + edge->score;
            if (edge->next < 0 || sum > q->best[e.j]) q->best[e.j] = sum;
            q->into[e.j] = q->edges++;
        }
    }
    return OK;
}

int unigram_nbest(const Unigram *u, const char *s, size_t n, int wanted, Pool *pool, UnigramPath **list, int *found) {
    Search q;
    Hypothesis h;
    memset(&q, 0, sizeof q);
    q.pool = pool;
    *found = 0;
    *list = pool_take(pool, (size_t)wanted, sizeof **list);
    if (!*list || begin_search(&q, u, s, n)) return E_MEMORY;
    h.at = n; h.edge = h.next = -1; h.sum = 0; h.bound = q.best[n];
    if (push(&q, h)) return E_MEMORY;
    while (*found < wanted && q.waiting) {
        int top = pop(&q), k, i;
        if (!q.h[top].at) {                 /* a whole path, from its first edge on */
            UnigramPath *p = &(*list)[(*found)++];
            for (k = top; q.h[k].edge >= 0; k = q.h[k].next) p->count++;
            p->id = pool_take(pool, (size_t)p->count + 1, sizeof *p->id);
            p->end = pool_take(pool, (size_t)p->count + 1, sizeof *p->end);
            if (!p->id || !p->end) return E_MEMORY;
            for (i = 0, k = top; i < p->count; i++, k = q.h[k].next) {
                p->id[i] = q.edge[q.h[k].edge].id;
                p->end[i] = (uint32_t)q.h[q.h[k].next].at;
                p->score += q.edge[q.h[k].edge].score;
            }
            continue;
        }
        for (k = q.into[q.h[top].at]; k >= 0; k = q.edge[k].next) {
            h.at = q.edge[k].from; h.edge = k; h.next = top;
            h.sum = q.edge[k].score + q.h[top].sum;
            h.bound = q.best[h.at] + q.h[top].sum + q.edge[k].score;
            if (push(&q, h)) return E_MEMORY;
        }
    }
    return OK;
}
