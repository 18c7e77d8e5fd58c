/* text/bpe.c - byte-pair encoding: merges neighbouring symbols of a part of a text, the best pair first,
 *          until no pair can merge.
 * Source   Sennrich et al. 2016. SentencePiece has no list of merges: any two symbols that together
 *          spell a piece merge, the piece with the best score first. The other kinds have a list: merge
 *          number r has the score -r.
 * Needs    core.c, text/pieces.c.
 * Speed    For few symbols, each merge looks at all pairs. For many, the pairs wait in a heap: n symbols
 *          take O(n log n) time.
 * Edges    equal scores (the pair further left merges first), a pair that comes twice in the list
 *          (the last one counts). */
#include "text.h"

/* ==============================================================================================
 * The list of merges (open addressing)
 * ============================================================================================== */
size_t pair_hash(int left, int right) {
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u;
    return (size_t)(h >> 32 ^ h >> 15);
}

/* Returns the slot of the pair; if the list lacks the pair, the free slot for it. */
static Merge *merge_slot(const Bpe *b, int left, int right) {
    size_t i = pair_hash(left, right) & (b->slots - 1);
    while (b->merge[i].id >= 0 && (b->merge[i].left != left || b->merge[i].right != right))
        i = (i + 1) & (b->slots - 1);
    return &b->merge[i];
}

int begin_merges(Tokenizer *t, size_t n, Pool *pool, Error *err) {
    Bpe *b = &t->bpe;
    size_t i;
    if (n > (1 << 24))                      /* floats hold all ranks up to this exactly */
        return fail(err, E_RANGE, "too many merges", "merges", (long long)n, 1 << 24);
    for (b->slots = 16; b->slots < 2 * n; ) b->slots *= 2;
    b->merge = pool_take(pool, b->slots, sizeof *b->merge);
    if (!b->merge) return no_memory(err, "merges");
    for (i = 0; i < b->slots; i++) b->merge[i].id = -1;
    return OK;
}

int add_merge(Tokenizer *t, Text left, Text right, const MergeLine *line, Pool *pool, Error *err) {
    PoolMark mark = pool_mark(pool);
    char *both = pool_take(pool, left.length + right.length, 1);
    Merge m;
    if (!left.length || !right.length)
        return fail_at(err, E_FORMAT, "not two tokens", line->place, line->number);
    if (!both) return no_memory(err, "merges");
    memcpy(both, left.text, left.length);
    memcpy(both + left.length, right.text, right.length);
    m.left = table_find(&t->ordinary, left.text, left.length);
    m.right = table_find(&t->ordinary, right.text, right.length);
    m.id = table_find(&t->ordinary, both, left.length + right.length);
    m.rank = line->rank;
    pool_release(pool, mark);
    if (m.left < 0 || m.right < 0 || m.id < 0)
        return fail_at(err, E_MISSING, "a merge of tokens that the vocabulary does not have", line->place,
                       line->number);
    *merge_slot(&t->bpe, m.left, m.right) = m;
    return OK;
}

int add_merge_line(Tokenizer *t, Text s, const MergeLine *line, Pool *pool, Error *err) {
    const char *gap = memchr(s.text, ' ', s.length);
    Text left = { s.text, gap ? (size_t)(gap - s.text) : 0 }, right = { NULL, 0 };
    if (gap) { right.text = gap + 1; right.length = s.length - left.length - 1; }
    if (!gap || memchr(right.text, ' ', right.length))
        return fail_at(err, E_FORMAT, "not two tokens", line->place, line->number);
    return add_merge(t, left, right, line, pool, err);
}

/* ==============================================================================================
 * Merging
 * ============================================================================================== */
enum { FEW = 40 };

/* Makes room for n symbols and 2 n candidates. The heap begins with up to n - 1 pairs; each of up to n - 1
 * merges takes one candidate from it and adds up to two. */
int merger_room(Merger *m, size_t symbols, Pool *pool) {
    if (symbols <= (size_t)m->room) return OK;
    if (symbols > INT_MAX / 4) return E_MEMORY;
    if (symbols < 2 * (size_t)m->room) symbols = 2 * (size_t)m->room;
    if (symbols < 64) symbols = 64;
    m->symbol = pool_take(pool, symbols, sizeof *m->symbol);
    m->heap = pool_take(pool, 2 * symbols, sizeof *m->heap);
    m->room = m->symbol && m->heap ? (int)symbols : 0;
    return m->room ? OK : E_MEMORY;
}

static int better(const Candidate *a, const Candidate *b) {
    return a->score > b->score || (a->score == b->score && a->left < b->left);
}

static void heap_push(Merger *m, Candidate c) {
    int i = m->waiting++;
    for (; i > 0 && better(&c, &m->heap[(i - 1) / 2]); i = (i - 1) / 2) m->heap[i] = m->heap[(i - 1) / 2];
    m->heap[i] = c;
}

static Candidate heap_pop(Merger *m) {
    Candidate best = m->heap[0], c = m->heap[--m->waiting];
    int i = 0, child;
    for (; (child = 2 * i + 1) < m->waiting; i = child) {
        if (child + 1 < m->waiting && better(&m->heap[child + 1], &m->heap[child])) child++;
        if (!better(&m->heap[child], &c)) break;
        m->heap[i] = m->heap[child];
    }
    m->heap[i] = c;
    return best;
}

/* Returns 1 if two neighbours can merge. *c: the id, the length and the score of the
 * piece that they become. */
static int can_merge(const Merger *m, const Symbol *left, const Symbol *right, Candidate *c) {
    const Tokenizer *t = m->t;
    c->length = left->length + right->length;
    if (t->bpe.merge) {
        const Merge *merge = merge_slot(&t->bpe, left->id, right->id);
        c->id = merge->id;
        c->score = -(f32)merge->rank;
        return merge->id >= 0;
    }
    if (left->id == SYMBOL_FROZEN || right->id == SYMBOL_FROZEN || c->length > t->longest) return 0;
    c->id = table_find(&t->ordinary, m->text + left->at, c->length);
    if (c->id < 0) return 0;
    c->score = t->piece[c->id].score;
    if (t->piece[c->id].type == PIECE_UNUSED) m->split[c->id] = left->length;
    return 1;
}

/* Puts symbol `left` and its right neighbour on the heap, if they can merge. */
static void propose(Merger *m, int left) {
    Candidate c;
    if (left < 0 || m->symbol[left].next < 0) return;
    if (!can_merge(m, &m->symbol[left], &m->symbol[m->symbol[left].next], &c)) return;
    c.left = left;
    heap_push(m, c);
}

/* Does the work of merge_symbols for up to FEW symbols: looks at all pairs before each merge. pair[i]:
 * symbols i and i + 1; its id is -1 if they cannot merge. */
static void merge_few(Merger *m) {
    Candidate pair[FEW];
    Symbol *s = m->symbol;
    int i, n = m->symbols;
    for (i = 0; i + 1 < n; i++) if (!can_merge(m, &s[i], &s[i + 1], &pair[i])) pair[i].id = -1;
    for (;;) {
        int best = -1;
        for (i = 0; i + 1 < n; i++)
            if (pair[i].id >= 0 && (best < 0 || pair[i].score > pair[best].score)) best = i;
        if (best < 0) break;
        s[best].id = pair[best].id;
        s[best].length = pair[best].length;
        n--;
        for (i = best + 1; i < n; i++) s[i] = s[i + 1];
        for (i = best + 1; i + 1 < n; i++) pair[i] = pair[i + 1];
        if (best && !can_merge(m, &s[best - 1], &s[best], &pair[best - 1])) pair[best - 1].id = -1;
        if (best + 1 < n && !can_merge(m, &s[best], &s[best + 1], &pair[best])) pair[best].id = -1;
    }
    for (i = 0; i < n; i++) s[i].next = i + 1 < n ? i + 1 : -1;
    m->symbols = n;
}

void merge_symbols(Merger *m) {
    int i;
    if (m->symbols <= FEW && !m->split) { merge_few(m); return; }
    m->waiting = 0;
    for (i = 0; i < m->symbols; i++) {
        m->symbol[i].previous = i - 1;
        m->symbol[i].next = i + 1 < m->symbols ? i + 1 : -1;
    }
    for (i = 0; i + 1 < m->symbols; i++) propose(m, i);
    while (m->waiting) {
        Candidate c = heap_pop(m);
        Symbol *s = &m->symbol[c.left], *gone;
        /* Symbols only grow: if the place and the length of a pair are unchanged, it is the
         * pair that was proposed. */
        if (!s->length || s->next < 0 || s->length + m->symbol[s->next].length != c.length) continue;
        gone = &m->symbol[s->next];
        s->length = c.length;
        s->id = c.id;
        s->next = gone->next;
        gone->length = 0;
        if (s->next >= 0) m->symbol[s->next].previous = c.left;
        propose(m, s->previous);
        propose(m, c.left);
    }
}

int merged_whole(const Merger *m, size_t n, int id) {
    const Symbol *s = m->symbol;
    if (m->symbols < 1 || (m->symbols > 1 && s->next >= 0)) return 0;
    return s->length == n && (!m->t->bpe.merge || s->id == id);
}
