/* text/train_bpe.c - learns byte-pair encoding: counts words, then turns the most frequent pair of symbols
 *          into a new symbol, again and again. text/train.c makes the words and names the symbols.
 * Source   Sennrich et al. 2016.
 * Needs    core.c, text/{pieces,bpe}.c.
 * Memory   takes all from the trainer's own pool, which its caller frees.
 * Edges    equally frequent pairs (a rule orders them, so that training is deterministic), symbols that two
 *          different pairs spell. */
#include "text.h"

/* The words that have (or once had) a pair; a pair of symbols; and an entry of the heap, with the count that
 * the pair had when it was put there. */
typedef struct TrainerPlace Place;
struct TrainerPlace { int word; Place *next; };
typedef struct TrainerPair { int left, right, fresh; int64_t count; Place *place; } Pair;
typedef struct TrainerRank { int64_t count; int pair; } Rank;

/* ==============================================================================================
 * Words and symbols
 * ============================================================================================== */

/* Returns `array`, or a larger copy, with room for more than `used` elements; the smaller array stays in the
 * pool, unused. Without memory: sets tr->failed and returns `array` as it is. */
static void *grow(BpeTrainer *tr, void *array, size_t used, size_t *room, size_t size) {
    void *bigger;
    if (used < *room) return array;
    if (used >= INT_MAX / 2) { tr->failed = 1; return array; }
    bigger = pool_take(&tr->pool, used ? 2 * used : 1024, size);
    if (!bigger) { tr->failed = 1; return array; }
    if (used) memcpy(bigger, array, used * size);
    *room = used ? 2 * used : 1024;
    return bigger;
}

void trainer_word(BpeTrainer *tr, const char *text, size_t n) {
    TrainerWord *w;
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

int trainer_unit(BpeTrainer *tr, const char *text, size_t n, int chars) {
    size_t room = (size_t)tr->unit_room;
    TrainerUnit *u;
    int i = table_find(&tr->unit_table, text, n);
    if (i >= 0) return i;
    tr->unit = grow(tr, tr->unit, (size_t)tr->units, &room, sizeof *tr->unit);
    tr->unit_room = (int)room;
    if (tr->failed) return -1;
    u = &tr->unit[tr->units];
    u->text = pool_text(&tr->pool, text, n);
    u->bytes = n;
    u->chars = chars;
    if (!u->text || table_add(&tr->unit_table, &tr->pool, u->text, n, tr->units)) tr->failed = 1;
    return tr->failed ? -1 : tr->units++;
}

/* ==============================================================================================
 * Pairs, the most frequent first
 * ============================================================================================== */
/* Returns byte i of the text that a pair spells. */
static int pair_byte(const BpeTrainer *tr, const Pair *p, size_t i) {
    size_t n = tr->unit[p->left].bytes;
    return (unsigned char)(i < n ? tr->unit[p->left].text[i] : tr->unit[p->right].text[i - n]);
}

/* Returns 1 if pair a comes before pair b, which is equally frequent. by_number: the pair with the smaller
 * symbol numbers comes first. Else, as in SentencePiece: the pair with fewer characters, then the pair whose
 * bytes are smaller. */
static int pair_before(const BpeTrainer *tr, const Pair *a, const Pair *b) {
    if (!tr->by_number) {
        const TrainerUnit *c = &tr->unit[a->left], *d = &tr->unit[a->right];
        const TrainerUnit *e = &tr->unit[b->left], *f = &tr->unit[b->right];
        int p = c->chars + d->chars, q = e->chars + f->chars;
        size_t m = c->bytes + d->bytes, n = e->bytes + f->bytes, i;
        if (p != q) return p < q;
        for (i = 0; i < m && i < n; i++)
            if (pair_byte(tr, a, i) != pair_byte(tr, b, i)) return pair_byte(tr, a, i) < pair_byte(tr, b, i);
        if (m != n) return m < n;           /* else both texts are equal: the symbols' numbers decide */
    }
    return a->left != b->left ? a->left < b->left : a->right < b->right;
}

static int rank_before(const BpeTrainer *tr, Rank a, Rank b) {
    return a.count != b.count ? a.count > b.count : pair_before(tr, &tr->pair[a.pair], &tr->pair[b.pair]);
}

static void rank_push(BpeTrainer *tr, Rank r) {
    size_t i;
    tr->heap = grow(tr, tr->heap, tr->waiting, &tr->heap_room, sizeof *tr->heap);
    if (tr->failed) return;
    for (i = tr->waiting++; i && rank_before(tr, r, tr->heap[(i - 1) / 2]); i = (i - 1) / 2)
        tr->heap[i] = tr->heap[(i - 1) / 2];
    tr->heap[i] = r;
}

static Rank rank_pop(BpeTrainer *tr) {
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

static int *pair_slot(const BpeTrainer *tr, int left, int right) {
    size_t i = pair_hash(left, right) & (tr->slots - 1);
    for (; tr->slot[i]; i = (i + 1) & (tr->slots - 1)) {
        const Pair *p = &tr->pair[tr->slot[i] - 1];
        if (p->left == left && p->right == right) break;
    }
    return &tr->slot[i];
}

/* Returns the pair (left, right); adds it if there is none. NULL: no memory. */
static Pair *find_pair(BpeTrainer *tr, int left, int right) {
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

/* Adds a word to the list of the words that have the pair. */
static void add_place(BpeTrainer *tr, Pair *p, int word) {
    Place *place = tr->free_place;
    if (p->place && p->place->word == word) return;
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

/* Adds `more`, which may be negative, to the count of the pair (left, right); `word` is the word that
 * has it. Unless by_number is 1: ignores pairs of more than 16 characters, the most that a piece of
 * SentencePiece has. */
static void count_pair(BpeTrainer *tr, int left, int right, int64_t more, int word) {
    Pair *p;
    if (left < 0 || right < 0 || tr->failed) return;
    if (!tr->by_number && tr->unit[left].chars + tr->unit[right].chars > 16) return;
    p = find_pair(tr, left, right);
    if (!p) return;
    p->count += more;
    if (more < 0) return;
    add_place(tr, p, word);
    if (p->fresh || tr->failed) return;
    tr->fresh = grow(tr, tr->fresh, tr->freshes, &tr->fresh_room, sizeof *tr->fresh);
    if (tr->failed) return;
    p->fresh = 1;
    tr->fresh[tr->freshes++] = (int)(p - tr->pair);
}

/* Puts the pairs whose count grew on the heap. A pair whose count fell keeps its place there until it reaches
 * the top (see learn). */
static void rank_fresh(BpeTrainer *tr) {
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

/* ==============================================================================================
 * Learning
 * ============================================================================================== */
/* Replaces the symbols a b by c in a word, from left to right, and updates the counts of the
 * pairs at each place. */
static void replace_pair(BpeTrainer *tr, int word, int a, int b, int c) {
    TrainerWord *w = &tr->word[word];
    int i, n = 0;
    for (i = 0; i < w->symbols; i++) {
        if (w->symbol[i] == a && i + 1 < w->symbols && w->symbol[i + 1] == b) {
            int before = n ? w->symbol[n - 1] : BARRIER;
            int after = i + 2 < w->symbols ? w->symbol[i + 2] : BARRIER;
            count_pair(tr, before, a, -w->count, word);
            count_pair(tr, a, b, -w->count, word);
            count_pair(tr, b, after, -w->count, word);
            count_pair(tr, before, c, w->count, word);
            count_pair(tr, c, after, w->count, word);
            w->symbol[n++] = c;
            i++;
        } else w->symbol[n++] = w->symbol[i];
    }
    w->symbols = n;
}

/* Adds the merge of a pair to the list of merges. Returns the symbol that the pair becomes: the one that has
 * its text already, or a new one. -1: no memory. */
static int learn_pair(BpeTrainer *tr, const Pair *p) {
    TrainerUnit left = tr->unit[p->left], right = tr->unit[p->right];
    size_t n = left.bytes + right.bytes - tr->prefix;
    PoolMark mark;
    TrainerMerge *l;
    char *text;
    tr->learnt = grow(tr, tr->learnt, tr->learnts, &tr->learnt_room, sizeof *tr->learnt);
    mark = pool_mark(&tr->pool);
    text = pool_take(&tr->pool, n, 1);
    if (!text || tr->failed) { tr->failed = 1; return -1; }
    memcpy(text, left.text, left.bytes);
    memcpy(text + left.bytes, right.text + tr->prefix, right.bytes - tr->prefix);
    l = &tr->learnt[tr->learnts++];
    l->left = p->left;
    l->right = p->right;
    l->id = table_find(&tr->unit_table, text, n);
    if (l->id >= 0) pool_release(&tr->pool, mark);
    else l->id = trainer_unit(tr, text, n, left.chars + right.chars);
    return l->id;
}

void trainer_learn(BpeTrainer *tr, int units) {
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
        if (p.count <= 0) continue;
        if (p.count != r.count) {           /* the pair has become rarer: push it with its present count */
            r.count = p.count;
            rank_push(tr, r);
            continue;
        }
        k = learn_pair(tr, &p);
        if (k < 0) return;
        tr->pair[r.pair].place = NULL;
        for (place = p.place; place && !tr->failed; place = place->next)
            replace_pair(tr, place->word, p.left, p.right, k);
        rank_fresh(tr);
    }
}

void trainer_begin(BpeTrainer *tr, const Pool *like, int by_number, size_t prefix) {
    memset(tr, 0, sizeof *tr);
    tr->pool.source = like->source;
    tr->pool.sink = like->sink;
    tr->by_number = by_number;
    tr->prefix = prefix;
}

int *trainer_symbols(BpeTrainer *tr, size_t i) {
    TrainerWord *w = &tr->word[i];
    w->symbols = 0;
    w->symbol = pool_take(&tr->pool, w->bytes, sizeof *w->symbol);
    if (!w->symbol) tr->failed = 1;
    return w->symbol;
}
