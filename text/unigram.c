/* text/unigram.c - the unigram language model of text pieces: the best segmentation of a text, and learning it.
 * Source   Kudo 2018 (section 3.2): a segmentation x of a text has log-probability sum over its pieces of score(x_i).
 *          The arithmetic is the sentencepiece library's, roundings included, since equal scores are told apart by them
 *          (unigram_best_exact: Hugging Face's).
 * Needs    core.c. Pieces are found with a trie in a double array: node i's child for byte c is node base[i] + c, if that node's
 *          `check` says i (Aoe 1989).
 * Never    looks at a text's meaning: normalisation, unknown pieces as bytes, and ids beyond the vocabulary are tokenizer.c's.
 * Edges    a text without any piece (each character is unknown), malformed UTF-8 (a character is as long as its first byte says, the
 *          text's end permitting), equal scores (the path that was found first stays), scores that underflow as probabilities.
 * exp, log Our own, in double: the same bits on every machine, so that a training gives one model. */
#include "text.h"

/* ================================================================================================================
 * exp and log
 * ================================================================================================================ */

/* e^x = 2^k e^r with |r| <= ln 2 / 2; the series of e^r ends where a double does. */
static double own_exp(double x) {
    double k, r, sum = 1;
    int i;
    if (!(x > -745)) return 0;              /* nor of what is no number */
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

/* The same in double, as Hugging Face's tokenizers do it: with scores of their own (u->exact), each text from 0. */
void unigram_best_exact(const Unigram *u, const char *s, size_t n, BestExact *best, int without) {
    size_t i, j, step;
    for (i = 1; i <= n; i++) best[i].id = -1;
    best[0].score = 0;
    for (i = 0; i < n; i += step) {
        double here = best[i].score, score;
        uint32_t node = 0;
        int single = 0, id;
        step = unigram_character(s + i, n - i);
        for (j = i; j < n && (node = child_of(u, node, (unsigned char)s[j])) != 0; ) {
            id = u->node[node].value;
            j++;
            if (id < 0 || id == without) continue;
            score = u->exact[id] + here;
            if (best[j].id < 0 || score > best[j].score) { best[j].score = score; best[j].id = id; best[j].from = (uint32_t)i; }
            if (j - i == step) single = 1;
        }
        score = u->unk_exact + here;
        j = i + step;
        if (!single && (best[j].id < 0 || score > best[j].score)) { best[j].score = score; best[j].id = u->unk; best[j].from = (uint32_t)i; }
    }
}

/* ================================================================================================================
 * Every piece of a text
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

/* ================================================================================================================
 * Learning: many pieces to begin with; expectation-maximisation gives their probabilities; again and again the least useful go
 * ================================================================================================================ */
enum { PIECE_CHARACTERS = 16, PIECE_BYTES = 4 * PIECE_CHARACTERS, SEEDS = 1000000, SUB_ITERATIONS = 2 };
typedef struct { const char *s; double count; } Suffix;         /* ends with a NUL */
typedef struct { const char *s; size_t bytes; double score; } Seed;
typedef struct { uint32_t from, to; int id; double p; } Link;
typedef struct {
    Pool *pool; PoolMark mark;              /* scratch; what lies behind the mark goes with every new model */
    const UnigramWord *word; size_t words, longest;
    Piece *piece; int pieces;
    Unigram u;
    double *p, *expected;                   /* (pieces+1) probability and expected count of each; the last is the unknown one */
    double *alpha, *beta; Best *best; Link *link;       /* of one word (longest+1, link: all edges) */
    int failed;
} Em;

static size_t common_characters(const char *a, const char *b, size_t *bytes) {
    size_t i, n = 0;
    *bytes = 0;
    for (i = 0; n < PIECE_CHARACTERS + 1; i++) {
        if (i && ((unsigned char)a[i] & 0xC0) != 0x80 && ((unsigned char)b[i] & 0xC0) != 0x80) { n++; *bytes = i; }
        if (a[i] != b[i] || !a[i]) break;
    }
    return n;
}

static int compare_suffix(const void *a, const void *b) { return strcmp(((const Suffix *)a)->s, ((const Suffix *)b)->s); }

static int compare_seed(const void *a, const void *b) {
    const Seed *p = a, *q = b;
    size_t n = p->bytes < q->bytes ? p->bytes : q->bytes;
    int order;
    if (p->score != q->score) return p->score > q->score ? -1 : 1;
    order = memcmp(p->s, q->s, n);
    return order ? order : (p->bytes > q->bytes) - (p->bytes < q->bytes);
}

/* All suffixes of all words, sorted, each with its word's count. A word has at most 256 bytes. */
static Suffix *sort_suffixes(Em *m, size_t *count) {
    Suffix *list;
    size_t i, k, n = 0;
    for (i = 0; i < m->words; i++) n += m->word[i].bytes;
    list = pool_take(m->pool, n + 1, sizeof *list);
    *count = 0;
    for (i = 0; i < m->words && list; i++)
        for (k = 0; k < m->word[i].bytes; k += unigram_character(m->word[i].text + k, m->word[i].bytes - k)) {
            list[*count].s = m->word[i].text + k;
            list[(*count)++].count = (double)m->word[i].count;
        }
    if (list) qsort(list, *count, sizeof *list, compare_suffix);
    return list;
}

/* A string of `characters` characters that occurs `count` times: a seed, if it is of characters that have pieces. */
static void add_seed(const Em *m, Seed *list, size_t *seeds, const char *s, size_t bytes, size_t characters, double count) {
    size_t at, length;
    int id;
    if (count < 2 || characters < 2 || characters > PIECE_CHARACTERS) return;
    for (at = 0; at < bytes; at += length) {
        length = unigram_longest(&m->u, s + at, bytes - at, &id);
        if (!length) return;
    }
    list[*seeds].s = s;
    list[*seeds].bytes = bytes;
    list[(*seeds)++].score = count * (double)characters;
}

/* The strings that go on in different ways, or end a word (the inner nodes of a suffix tree), most characters covered first. A stack holds
 * the nodes on the way to the current suffix: depth in characters, count so far. */
static Seed *find_seeds(Em *m, size_t *seeds) {
    struct { size_t depth, bytes; double count; } stack[PIECE_CHARACTERS + 3];
    size_t n, i, top = 0, depth, bytes;
    Suffix *suffix = sort_suffixes(m, &n);
    Seed *list = suffix ? pool_take(m->pool, 2 * n + 1, sizeof *list) : NULL;
    *seeds = 0;
    if (!list) return NULL;
    stack[0].depth = stack[0].bytes = 0;
    stack[0].count = 0;
    for (i = 0; i < n; i++) {
        double count = suffix[i].count;
        while (i + 1 < n && !strcmp(suffix[i].s, suffix[i + 1].s)) count += suffix[++i].count;
        depth = common_characters(suffix[i].s, suffix[i].s, &bytes);        /* the suffix itself is a leaf, or too long to be told apart */
        if (stack[top].depth < depth) {
            top++;
            stack[top].depth = depth; stack[top].bytes = bytes; stack[top].count = 0;
        }
        stack[top].count += count;
        depth = i + 1 < n ? common_characters(suffix[i].s, suffix[i + 1].s, &bytes) : 0;
        if (i + 1 == n) bytes = 0;
        while (stack[top].depth > depth) {
            count = stack[top].count;
            add_seed(m, list, seeds, suffix[i].s, stack[top].bytes, stack[top].depth, count);
            if (stack[top - 1].depth >= depth) { stack[--top].count += count; continue; }
            stack[top].depth = depth;       /* an inner node of which this was the first child */
            stack[top].bytes = bytes;
        }
        if (stack[top].depth < depth) {
            top++;
            stack[top].depth = depth; stack[top].bytes = bytes; stack[top].count = 0;
        }
    }
    qsort(list, *seeds, sizeof *list, compare_seed);
    if (*seeds > SEEDS) *seeds = SEEDS;
    return list;
}

/* The model of the pieces as they are now. */
static void rebuild(Em *m) {
    int i;
    pool_release(m->pool, m->mark);
    if (unigram_build(&m->u, m->piece, m->pieces, m->pieces, m->pool)) m->failed = 1;
    m->p = pool_take(m->pool, (size_t)m->pieces + 1, sizeof *m->p);
    m->expected = pool_take(m->pool, (size_t)m->pieces + 1, sizeof *m->expected);
    m->alpha = pool_take(m->pool, m->longest + 1, sizeof *m->alpha);
    m->beta = pool_take(m->pool, m->longest + 1, sizeof *m->beta);
    m->best = pool_take(m->pool, m->longest + 1, sizeof *m->best);
    m->link = pool_take(m->pool, (m->longest + 1) * (PIECE_CHARACTERS + 1), sizeof *m->link);
    if (!m->p || !m->expected || !m->alpha || !m->beta || !m->best || !m->link) m->failed = 1;
    for (i = 0; i < m->pieces && !m->failed; i++) m->p[i] = own_exp(m->piece[i].score);
    if (!m->failed) m->p[m->pieces] = own_exp(m->u.unk_score);
}

/* Expected counts of the pieces in word w, all segmentations taken together (forward-backward), times its count. growth[k]: what k
 * bytes are multiplied by, lest long words underflow. Returns the word's probability, so multiplied. */
static double expect_word(Em *m, const UnigramWord *w, const double *growth) {
    Edges e;
    size_t i, links = 0;
    double z;
    for (i = 0; i <= w->bytes; i++) m->alpha[i] = m->beta[i] = 0;
    m->alpha[0] = m->beta[w->bytes] = 1;
    for (i = 0; i < w->bytes; i++) {
        if (m->alpha[i] == 0) continue;
        for (edges_at(&e, &m->u, w->text, w->bytes, i); next_edge(&e); ) {
            Link *l = &m->link[links++];
            l->from = (uint32_t)i; l->to = (uint32_t)e.j; l->id = e.id;
            l->p = m->p[e.id] * growth[e.j - i];
            m->alpha[e.j] += m->alpha[i] * l->p;
        }
    }
    z = m->alpha[w->bytes];
    if (z < 1e-250) return z;
    while (links--) {
        const Link *l = &m->link[links];
        double p = l->p * m->beta[l->to];
        m->beta[l->from] += p;
        m->expected[l->id] += (double)w->count * m->alpha[l->from] * p / z;
    }
    return z;
}

static void expect(Em *m) {
    double even[PIECE_BYTES + 1], growth[PIECE_BYTES + 1];
    size_t i, k;
    for (k = 0; k <= PIECE_BYTES; k++) even[k] = 1;
    for (i = 0; i < m->words; i++) {
        const UnigramWord *w = &m->word[i];
        if (!w->bytes || expect_word(m, w, even) >= 1e-250) continue;
        m->best[0].score = 0;               /* again, so multiplied that the best path has about 1 */
        unigram_best(&m->u, w->text, w->bytes, m->best, -1);
        growth[0] = 1;
        growth[1] = own_exp(-(double)m->best[w->bytes].score / (double)w->bytes);
        for (k = 2; k <= PIECE_BYTES; k++) growth[k] = growth[k - 1] * growth[1];
        expect_word(m, w, growth);
    }
}

/* log x - 1/2x - ..., the derivative of log Gamma. */
static double digamma(double x) {
    double sum = 0, y;
    for (; x < 7; x++) sum -= 1 / x;
    y = 1 / (x * x);
    return sum + own_log(x) - 0.5 / x - y * (1.0 / 12 - y * (1.0 / 120 - y * (1.0 / 252 - y / 240)));
}

/* Pieces that are expected less than half a time go; score = digamma(expected) - digamma(sum), which favours few pieces. */
static void maximise(Em *m) {
    double sum = 0, base;
    int i, n = 0;
    for (i = 0; i < m->pieces; i++) if (m->expected[i] >= 0.5) sum += m->expected[i];
    base = sum > 0 ? digamma(sum) : 0;
    for (i = 0; i < m->pieces; i++) {
        if (m->expected[i] < 0.5) continue;
        m->piece[n] = m->piece[i];
        m->piece[n++].score = (f32)(digamma(m->expected[i]) - base);
    }
    m->pieces = n;
    rebuild(m);
}

typedef struct { int id; double loss; } Loss;

static int compare_loss(const void *a, const void *b) {
    const Loss *p = a, *q = b;
    return p->loss != q->loss ? (p->loss < q->loss) - (p->loss > q->loss) : (p->id > q->id) - (p->id < q->id);
}

/* What the text's log-probability would lose without piece i (frequency f of `sum` in the best segmentations), its occurrences being
 * written as its best segmentation into others: f (log f / sum - sum over these of log (f' + f) / (sum + f (number - 1))). Infinite: nothing
 * else spells it. -1: it is no use. */
static double loss_of(Em *m, const double *f, int i, double sum) {
    const Piece *p = &m->piece[i];
    double loss, other = 0;
    size_t at;
    int count = 0;
    if (f[i] == 0) return -1;
    m->best[0].score = 0;
    unigram_best(&m->u, p->text, p->length, m->best, i);
    if (m->best[p->length].score > p->score) return -1;
    for (at = p->length; at; at = m->best[at].from, count++) if (m->best[at].id == m->pieces) return 1e300;
    for (at = p->length; at; at = m->best[at].from) other += own_log((f[m->best[at].id] + f[i]) / (sum + f[i] * (count - 1)));
    loss = f[i] * (own_log(f[i] / sum) - other);
    return loss > 0 ? loss : 0;
}

/* Keeps the pieces that would be missed most: three quarters of them, but no fewer than `least`. */
static void prune(Em *m, int least) {
    double *f = pool_take(m->pool, (size_t)m->pieces + 1, sizeof *f), sum = 0;
    Loss *loss = pool_take(m->pool, (size_t)m->pieces + 1, sizeof *loss);
    Piece *kept = pool_take(m->pool, (size_t)m->pieces + 1, sizeof *kept);
    int i, n = 0, size = (int)(0.75 * m->pieces);
    size_t k, at;
    if (!f || !loss || !kept) { m->failed = 1; return; }
    for (k = 0; k < m->words; k++) {
        m->best[0].score = 0;
        unigram_best(&m->u, m->word[k].text, m->word[k].bytes, m->best, -1);
        for (at = m->word[k].bytes; at; at = m->best[at].from) f[m->best[at].id] += (double)m->word[k].count;
    }
    for (i = 0; i < m->pieces; i++) sum += f[i];
    for (i = 0; i < m->pieces; i++) {
        loss[n].id = i;
        loss[n].loss = loss_of(m, f, i, sum);
        if (loss[n].loss >= 0) n++;
    }
    qsort(loss, (size_t)n, sizeof *loss, compare_loss);
    if (size < least) size = least;
    if (size > n) size = n;
    for (i = 0; i < size; i++) kept[i] = m->piece[loss[i].id];
    memcpy(m->piece, kept, (size_t)size * sizeof *kept);
    m->pieces = size;
    rebuild(m);
}

static int by_score(const void *a, const void *b) {
    const Piece *p = a, *q = b;
    return p->score != q->score ? (p->score < q->score) - (p->score > q->score) : compare_piece(&a, &b);
}

/* Every character has a piece; those that lost theirs come behind all others. Then the best, V in all, the best first. */
static void finish(Em *m, const Piece *character, int characters, int V) {
    f32 least = 0;
    int i, missing = 0, n = 0, id = 0;
    Piece *out = pool_take(m->pool, (size_t)m->pieces + (size_t)characters, sizeof *out);
    if (!out) { m->failed = 1; return; }
    for (i = 0; i < m->pieces; i++) if (m->piece[i].score < least) least = m->piece[i].score;
    for (i = 0; i < characters; i++) {
        out[n] = character[i];
        if (unigram_longest(&m->u, character[i].text, character[i].length, &id) == character[i].length) out[n].score = m->piece[id].score;
        else out[n].score = least - 1 - 0.0001f * (f32)missing++;
        n++;
    }
    qsort(m->piece, (size_t)m->pieces, sizeof *m->piece, by_score);
    for (i = 0; i < m->pieces && n < V; i++)
        if (unigram_character(m->piece[i].text, m->piece[i].length) < m->piece[i].length) out[n++] = m->piece[i];
    qsort(out, (size_t)n, sizeof *out, by_score);
    memcpy(m->piece, out, (size_t)n * sizeof *out);
    m->pieces = n;
}

int unigram_train(const UnigramWord *word, size_t words, const Piece *character, int characters, int V, Pool *pool, Piece **piece, int *pieces) {
    Em m;
    Seed *seed;
    size_t seeds, i, at, k;
    double total = 0;
    int id = 0, before, least = (int)(1.1 * V);
    memset(&m, 0, sizeof m);
    m.pool = pool; m.word = word; m.words = words;
    for (i = 0; i < words; i++) if (word[i].bytes > m.longest) m.longest = word[i].bytes;
    if (m.longest < PIECE_BYTES) m.longest = PIECE_BYTES;
    m.piece = pool_take(pool, (size_t)characters + 1, sizeof *m.piece);
    if (!m.piece || characters > V) return E_MEMORY;
    if (characters) memcpy(m.piece, character, (size_t)characters * sizeof *character);
    m.pieces = characters;
    m.mark = pool_mark(pool);
    rebuild(&m);
    seed = m.failed ? NULL : find_seeds(&m, &seeds);
    m.piece = seed ? pool_take(pool, (size_t)characters + seeds + 1, sizeof *m.piece) : NULL;
    if (!m.piece) return E_MEMORY;
    m.mark = pool_mark(pool);
    if (characters) memcpy(m.piece, character, (size_t)characters * sizeof *character);
    for (i = 0; i < words; i++)             /* how often each character stands in the text */
        for (at = 0; at < word[i].bytes; at += k) {
            k = unigram_longest(&m.u, word[i].text + at, word[i].bytes - at, &id);
            if (k) m.expected[id] += (double)word[i].count; else k = unigram_character(word[i].text + at, word[i].bytes - at);
        }
    for (id = 0; id < characters; id++) total += m.expected[id];
    for (i = 0; i < seeds; i++) total += seed[i].score;
    for (id = 0; id < characters; id++) m.piece[id].score = (f32)own_log((m.expected[id] > 0 ? m.expected[id] : 0.5) / total);
    for (i = 0; i < seeds; i++, m.pieces++) {
        Piece *p = &m.piece[m.pieces];
        p->text = seed[i].s; p->length = seed[i].bytes; p->type = PIECE_NORMAL;
        p->score = (f32)own_log(seed[i].score / total);
    }
    rebuild(&m);
    do {
        before = m.pieces;
        for (id = 0; id < SUB_ITERATIONS && !m.failed; id++) {
            expect(&m);
            maximise(&m);
        }
        if (!m.failed && m.pieces > least) prune(&m, least);
    } while (!m.failed && m.pieces > least && m.pieces < before);
    if (!m.failed) finish(&m, character, characters, V);
    *piece = m.piece;
    *pieces = m.pieces;
    return m.failed ? E_MEMORY : OK;
}
