/* text/train_unigram.c - learns a unigram model. Begins with many pieces; then, again and again, computes
 *          their probabilities by expectation-maximisation and removes the least useful pieces.
 * Source   Kudo 2018, section 3.2, and the sentencepiece library's unigram_model_trainer.cc.
 * Needs    core.c, text/pieces.c, text/unigram.c.
 * Memory   takes a few hundred bytes for each byte of the words, from the caller's pool.
 * Edges    words with characters that get no piece, long words (their probabilities underflow), equal scores.
 * exp, log are our own, in double: they give the same bits on every machine, so that training
 *          gives the same model. */
#include "text.h"

/* ==============================================================================================
 * exp and log
 * ============================================================================================== */

/* Returns e^x = 2^k e^r with |r| <= ln 2 / 2; the series of e^r has as many terms as a double can show. */
static double own_exp(double x) {
    double k, r, sum = 1;
    int i;
    if (!(x > -745)) return 0;              /* also if x is not a number */
    if (x > 709) x = 709;
    k = floor(x * 1.4426950408889634 + 0.5);
    r = (x - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10;
    for (i = 14; i > 0; i--) sum = 1 + sum * r / i;
    return ldexp(sum, (int)k);
}

/* Returns log x (x > 0) = k ln 2 + 2 (z + z^3/3 + z^5/5 + ...), where x = 2^k m with m near 1, and
 * z = (m - 1) / (m + 1). */
static double own_log(double x) {
    int k, i;
    double m = frexp(x, &k), z, sum = 0;
    if (m < 0.70710678118654752440) { m *= 2; k--; }
    z = (m - 1) / (m + 1);
    for (i = 23; i > 0; i -= 2) sum = sum * z * z + 1.0 / i;
    return 2 * z * sum + k * 0.69314718055994530942;
}

/* ==============================================================================================
 * All pieces that begin at one place of a text
 * ============================================================================================== */

/* An iterator over the pieces that begin at s[i], the shortest first. If no piece is just the character at
 * s[i], the unknown piece comes last. */
typedef struct {
    const Unigram *u; const char *s; size_t n, i, j, step;
    uint32_t node; int id, single, last; double score;
} Edges;

static void edges_at(Edges *e, const Unigram *u, const char *s, size_t n, size_t i) {
    e->u = u; e->s = s; e->n = n;
    e->i = e->j = i;
    e->step = unigram_character(s + i, n - i);
    e->node = 0;
    e->single = e->last = 0;
}

/* Finds the next piece: its id is e->id, its score e->score, and it ends at s[e->j]. Returns 0
 * if there are no more. */
static int next_edge(Edges *e) {
    const Unigram *u = e->u;
    while (!e->last && e->j < e->n) {
        e->node = trie_child(&u->trie, e->node, (unsigned char)e->s[e->j]);
        if (!e->node) break;
        e->id = u->trie.node[e->node].value;
        e->j++;
        if (e->id < 0) continue;
        if (e->j - e->i == e->step) e->single = 1;
        e->score = unigram_score(u, e->id, e->j - e->i);
        return 1;
    }
    if (e->last || e->single) return 0;
    e->last = 1;
    e->j = e->i + e->step;
    e->id = u->unk;
    e->score = u->unk_score;
    return 1;
}

/* ==============================================================================================
 * The state of a training
 * ============================================================================================== */
enum { PIECE_CHARACTERS = 16, PIECE_BYTES = 4 * PIECE_CHARACTERS, SEEDS = 1000000, SUB_ITERATIONS = 2 };
typedef struct { const char *s; double count; } Suffix;         /* s ends with a NUL */
typedef struct { const char *s; size_t bytes; double score; } Seed;
/* piece id covers the bytes [from, to) of a word; p: its probability */
typedef struct { uint32_t from, to; int id; double p; } Link;
typedef struct {
    Pool *pool; PoolMark mark;              /* scratch; rebuild() frees all after the mark */
    const UnigramWord *word; size_t words, longest;
    Piece *piece; int pieces;
    Unigram u;
    /* p, expected (pieces+1): the probability and the expected count of each piece; the last:
     * of the unknown piece */
    double *p, *expected;
    /* for one word; alpha, beta, best: (longest+1); link: all edges */
    double *alpha, *beta; BestPiece *best; Link *link;
    int failed;
} Em;

/* ==============================================================================================
 * Seeds: strings that occur often
 * ============================================================================================== */

/* Returns how many characters at the start of a and b are equal, up to PIECE_CHARACTERS + 1;
 * *bytes: their bytes. */
static size_t common_characters(const char *a, const char *b, size_t *bytes) {
    size_t i, n = 0;
    *bytes = 0;
    for (i = 0; n < PIECE_CHARACTERS + 1; i++) {
        if (i && ((unsigned char)a[i] & 0xC0) != 0x80 && ((unsigned char)b[i] & 0xC0) != 0x80) {
            n++;
            *bytes = i;
        }
        if (a[i] != b[i] || !a[i]) break;
    }
    return n;
}

static int compare_suffix(const void *a, const void *b) {
    return strcmp(((const Suffix *)a)->s, ((const Suffix *)b)->s);
}

static int compare_seed(const void *a, const void *b) {
    const Seed *p = a, *q = b;
    size_t n = p->bytes < q->bytes ? p->bytes : q->bytes;
    int order;
    if (p->score != q->score) return p->score > q->score ? -1 : 1;
    order = memcmp(p->s, q->s, n);
    return order ? order : (p->bytes > q->bytes) - (p->bytes < q->bytes);
}

/* Returns the sorted list of all suffixes of all words, each with the count of its word; NULL: no memory. A
 * word has at most 256 bytes. */
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

/* A prefix of the current suffix: its length, and how often it occurs in all words. */
typedef struct { size_t depth /* in characters */, bytes; double count; } Node;

/* Adds the string s of a node to the seeds if it occurs at least twice, has from 2 to PIECE_CHARACTERS
 * characters, and each of them has a piece. */
static void add_seed(const Em *m, Seed *list, size_t *seeds, const char *s, const Node *node) {
    size_t at, length;
    int id;
    if (node->count < 2 || node->depth < 2 || node->depth > PIECE_CHARACTERS) return;
    for (at = 0; at < node->bytes; at += length) {
        length = trie_longest(&m->u.trie, s + at, node->bytes - at, &id);
        if (!length) return;
    }
    list[*seeds].s = s;
    list[*seeds].bytes = node->bytes;
    list[(*seeds)++].score = node->count * (double)node->depth;
}

/* Puts a node on the stack if it is deeper than the top node. Returns the index of the top node. */
static size_t push_deeper(Node *stack, size_t top, size_t depth, size_t bytes) {
    if (stack[top].depth >= depth) return top;
    stack[++top].depth = depth;
    stack[top].bytes = bytes;
    stack[top].count = 0;
    return top;
}

/* Finds the strings that are followed by different characters, or end a word (the nodes of a suffix tree).
 * Returns them sorted: first those that cover most characters. NULL: no memory. The stack holds the nodes
 * that are prefixes of the current suffix. */
static Seed *find_seeds(Em *m, size_t *seeds) {
    Node stack[PIECE_CHARACTERS + 3];
    size_t n, i, top = 0, depth, bytes;
    Suffix *suffix = sort_suffixes(m, &n);
    Seed *list = suffix ? pool_take(m->pool, 2 * n + 1, sizeof *list) : NULL;
    *seeds = 0;
    if (!list) return NULL;
    stack[0].depth = stack[0].bytes = 0;
    stack[0].count = 0;
    for (i = 0; i < n; i++) {
        const char *s;
        double count = suffix[i].count;
        while (i + 1 < n && !strcmp(suffix[i].s, suffix[i + 1].s)) count += suffix[++i].count;
        s = suffix[i].s;
        /* adds the node of the whole suffix, or of its first PIECE_CHARACTERS + 1 characters */
        depth = common_characters(s, s, &bytes);
        top = push_deeper(stack, top, depth, bytes);
        stack[top].count += count;
        depth = i + 1 < n ? common_characters(s, suffix[i + 1].s, &bytes) : 0;
        if (i + 1 == n) bytes = 0;
        while (stack[top].depth > depth) {
            count = stack[top].count;
            add_seed(m, list, seeds, s, &stack[top]);
            if (stack[top - 1].depth >= depth) { stack[--top].count += count; continue; }
            stack[top].depth = depth;       /* the node's parent is new: it takes the node's place, count */
            stack[top].bytes = bytes;
        }
        top = push_deeper(stack, top, depth, bytes);
    }
    qsort(list, *seeds, sizeof *list, compare_seed);
    if (*seeds > SEEDS) *seeds = SEEDS;
    return list;
}

/* ==============================================================================================
 * Expectation and maximisation
 * ============================================================================================== */

/* Rebuilds the unigram model and the arrays for the present pieces. Sets m->failed without memory. */
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

/* Adds to m->expected the expected count of each piece in word w, over all segmentations (forward-backward),
 * times the word's count. growth[k]: the factor by which the probability of each piece of k bytes is
 * multiplied, so that long words do not underflow. Returns the probability of the word with these factors;
 * below 1e-250 nothing is added. */
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

/* Computes m->expected, the expected counts of all pieces in all words. */
static void expect(Em *m) {
    double even[PIECE_BYTES + 1], growth[PIECE_BYTES + 1];
    size_t i, k;
    for (k = 0; k <= PIECE_BYTES; k++) even[k] = 1;
    for (i = 0; i < m->words; i++) {
        const UnigramWord *w = &m->word[i];
        if (!w->bytes || expect_word(m, w, even) >= 1e-250) continue;
        /* repeats with factors that make the probability of the best path about 1 */
        m->best[0].score = 0;
        unigram_best(&m->u, w->text, w->bytes, m->best, -1);
        growth[0] = 1;
        growth[1] = own_exp(-(double)m->best[w->bytes].score / (double)w->bytes);
        for (k = 2; k <= PIECE_BYTES; k++) growth[k] = growth[k - 1] * growth[1];
        expect_word(m, w, growth);
    }
}

/* Returns digamma(x) = log x - 1/(2x) - 1/(12 x^2) + ..., the derivative of log Gamma(x). */
static double digamma(double x) {
    double sum = 0, y;
    for (; x < 7; x++) sum -= 1 / x;
    y = 1 / (x * x);
    return sum + own_log(x) - 0.5 / x - y * (1.0 / 12 - y * (1.0 / 120 - y * (1.0 / 252 - y / 240)));
}

/* Removes the pieces whose expected count is below 0.5. Sets the scores of the others to digamma(expected) -
 * digamma(sum of expected), which favours few pieces. */
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

/* ==============================================================================================
 * Pruning
 * ============================================================================================== */
typedef struct { int id; double loss; } Loss;

static int compare_loss(const void *a, const void *b) {
    const Loss *p = a, *q = b;
    return p->loss != q->loss ? (p->loss < q->loss) - (p->loss > q->loss) : (p->id > q->id) - (p->id < q->id);
}

/* Returns how much the log-probability of the text falls if piece i is replaced by its best segmentation into
 * k other pieces j: f[i] (log (f[i] / sum) - sum over j of log ((f[j] + f[i]) / (sum + f[i] (k - 1)))). f:
 * how often each piece occurs in the best segmentations of the words; sum: the sum of f. Returns 1e300 if no
 * other pieces spell the piece, -1 if the piece is of no use. */
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
    for (at = p->length; at; at = m->best[at].from)
        other += own_log((f[m->best[at].id] + f[i]) / (sum + f[i] * (count - 1)));
    loss = f[i] * (own_log(f[i] / sum) - other);
    return loss > 0 ? loss : 0;
}

/* Removes the pieces whose loss is smallest: a quarter of the pieces, or fewer so that at least `least` stay;
 * and all that are of no use. */
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
    return p->score != q->score ? (p->score < q->score) - (p->score > q->score) : compare_pieces(a, b);
}

/* Lists up to V pieces, the best first: each character (one whose piece was removed gets a score below all
 * others), then the best of the other pieces. */
static void finish(Em *m, const Piece *character, int characters, int V) {
    f32 least = 0;
    int i, missing = 0, n = 0, id = 0;
    Piece *out = pool_take(m->pool, (size_t)m->pieces + (size_t)characters, sizeof *out);
    if (!out) { m->failed = 1; return; }
    for (i = 0; i < m->pieces; i++) if (m->piece[i].score < least) least = m->piece[i].score;
    for (i = 0; i < characters; i++) {
        out[n] = character[i];
        if (trie_longest(&m->u.trie, character[i].text, character[i].length, &id) == character[i].length)
            out[n].score = m->piece[id].score;
        else out[n].score = least - 1 - 0.0001f * (f32)missing++;
        n++;
    }
    qsort(m->piece, (size_t)m->pieces, sizeof *m->piece, by_score);
    for (i = 0; i < m->pieces && n < V; i++)
        if (unigram_character(m->piece[i].text, m->piece[i].length) < m->piece[i].length)
            out[n++] = m->piece[i];
    qsort(out, (size_t)n, sizeof *out, by_score);
    memcpy(m->piece, out, (size_t)n * sizeof *out);
    m->pieces = n;
}

/* Adds to m->expected how often each character occurs in the text. */
static void count_characters(Em *m) {
    size_t i, at, k;
    int id;
    for (i = 0; i < m->words; i++) {
        const UnigramWord *w = &m->word[i];
        for (at = 0; at < w->bytes; at += k) {
            k = trie_longest(&m->u.trie, w->text + at, w->bytes - at, &id);
            if (k) m->expected[id] += (double)w->count;
            else k = unigram_character(w->text + at, w->bytes - at);
        }
    }
}

/* Lists the first pieces, the characters and the seeds, with scores from their counts. OK or E_MEMORY. */
static int first_pieces(Em *m, const UnigramText *text) {
    size_t characters = (size_t)text->characters, seeds, i;
    Seed *seed;
    double total = 0;
    int id;
    m->piece = pool_take(m->pool, characters + 1, sizeof *m->piece);
    if (!m->piece) return E_MEMORY;
    if (characters) memcpy(m->piece, text->character, characters * sizeof *m->piece);
    m->pieces = text->characters;
    m->mark = pool_mark(m->pool);
    rebuild(m);
    seed = m->failed ? NULL : find_seeds(m, &seeds);
    m->piece = seed ? pool_take(m->pool, characters + seeds + 1, sizeof *m->piece) : NULL;
    if (!m->piece) return E_MEMORY;
    m->mark = pool_mark(m->pool);
    if (characters) memcpy(m->piece, text->character, characters * sizeof *m->piece);
    count_characters(m);
    for (id = 0; id < m->pieces; id++) total += m->expected[id];
    for (i = 0; i < seeds; i++) total += seed[i].score;
    for (id = 0; id < m->pieces; id++)
        m->piece[id].score = (f32)own_log((m->expected[id] > 0 ? m->expected[id] : 0.5) / total);
    for (i = 0; i < seeds; i++, m->pieces++) {
        Piece *p = &m->piece[m->pieces];
        p->text = seed[i].s; p->length = seed[i].bytes; p->type = PIECE_NORMAL;
        p->score = (f32)own_log(seed[i].score / total);
    }
    rebuild(m);
    return OK;
}

int unigram_train(const UnigramText *text, int V, Pool *pool, Piece **piece, int *pieces) {
    Em m;
    size_t i;
    int k, before, least = (int)(1.1 * V);
    memset(&m, 0, sizeof m);
    m.pool = pool; m.word = text->word; m.words = text->words;
    for (i = 0; i < m.words; i++) if (m.word[i].bytes > m.longest) m.longest = m.word[i].bytes;
    if (m.longest < PIECE_BYTES) m.longest = PIECE_BYTES;
    if (text->characters > V || first_pieces(&m, text)) return E_MEMORY;
    do {
        before = m.pieces;
        for (k = 0; k < SUB_ITERATIONS && !m.failed; k++) {
            expect(&m);
            maximise(&m);
        }
        if (!m.failed && m.pieces > least) prune(&m, least);
    } while (!m.failed && m.pieces > least && m.pieces < before);
    if (!m.failed) finish(&m, text->character, text->characters, V);
    *piece = m.piece;
    *pieces = m.pieces;
    return m.failed ? E_MEMORY : OK;
}
