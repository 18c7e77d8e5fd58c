/* text/rouge.c - ROUGE: how much of a reference a text has.
 * Source   Lin 2004, "ROUGE: a Package for Automatic Evaluation of Summaries"; the words, the choice among
 *          equally long subsequences, and the counting of ROUGE-Lsum are those of Google's rouge_score
 *          without its stemmer.
 * Needs    core.c, text/pieces.c (a table of words).
 * Memory   takes scratch from the pool: for ROUGE-L a number for each pair of words.
 * Edges    texts without a word (all scores are 0), bytes that are no ASCII letters or digits (they end a
 *          word), two characters whose lower case begins with an ASCII letter. */
#include "text.h"

/* ==============================================================================================
 * Words
 * ============================================================================================== */
/* The words of a text as numbers, equal for equal words: id (words). Sentence s has the words start[s] ..
 * start[s+1]-1; a line break ends it. */
typedef struct { int *id, words, *start, sentences; } Numbered;
typedef struct { Table known; int count; Pool *pool; } Vocabulary;

/* Returns the letter or digit that s (n > 0 bytes) begins with, in lower case, or 0; *length: its bytes. The
 * lower case of U+0130 is i and a mark, that of U+212A is k. */
static char letter_of(const char *s, size_t n, size_t *length) {
    *length = 1;
    if (*s >= 'A' && *s <= 'Z') return (char)(*s + 32);
    if ((*s >= 'a' && *s <= 'z') || (*s >= '0' && *s <= '9')) return *s;
    if (n >= 2 && !memcmp(s, "\xC4\xB0", 2)) { *length = 2; return 'i'; }
    if (n >= 3 && !memcmp(s, "\xE2\x84\xAA", 3)) { *length = 3; return 'k'; }
    return 0;
}

/* Appends a word (n bytes; 0: none) to d. Returns 0 if memory is out. */
static int add_word(Numbered *d, Vocabulary *v, const char *word, size_t n) {
    int id = n ? table_find(&v->known, word, n) : -1;
    if (!n) return 1;
    if (id < 0) {
        const char *kept = pool_text(v->pool, word, n);
        id = v->count++;
        if (!kept || table_add(&v->known, v->pool, kept, n, id)) return 0;
    }
    d->id[d->words++] = id;
    return 1;
}

/* Cuts a text into words and sentences. OK or E_MEMORY. */
static int number_words(Numbered *d, Vocabulary *v, const char *s, size_t n) {
    char *word = n < INT_MAX / 2 ? pool_take(v->pool, n + 1, 1) : NULL;
    size_t at, length = 1, have = 0;
    memset(d, 0, sizeof *d);
    d->id = word ? pool_take(v->pool, n + 1, sizeof *d->id) : NULL;
    d->start = word ? pool_take(v->pool, n + 2, sizeof *d->start) : NULL;
    if (!d->id || !d->start) return E_MEMORY;
    for (at = 0; at <= n; at += length) {
        const char letter = at < n ? letter_of(s + at, n - at, &length) : 0;
        if (letter) word[have++] = letter;
        if (letter && length != 2) continue;
        if (!add_word(d, v, word, have)) return E_MEMORY;
        have = 0;
        if (at == n || s[at] == '\n') d->start[++d->sentences] = d->words;
    }
    return OK;
}

/* ==============================================================================================
 * Scores
 * ============================================================================================== */
static Rouge score_of(double hits, int reference, int text) {
    Rouge r = { 0, 0, 0 };
    if (text > 0) r.precision = hits / text;
    if (reference > 0) r.recall = hits / reference;
    if (hits > 0) r.f = 2 * r.precision * r.recall / (r.precision + r.recall);
    return r;
}

static int compare_grams(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Returns the sorted n-grams (n 1 or 2) of d, each as one number; *count: how many. NULL: no memory. */
static uint64_t *sorted_grams(const Numbered *d, int n, int *count, Pool *pool) {
    uint64_t *gram = pool_take(pool, (size_t)d->words + 1, sizeof *gram);
    *count = d->words >= n ? d->words - n + 1 : 0;
    if (!gram) return NULL;
    for (int i = 0; i < *count; i++)
        gram[i] = (uint64_t)d->id[i] << 32 | (uint32_t)(n == 2 ? d->id[i + 1] : 0);
    qsort(gram, (size_t)*count, sizeof *gram, compare_grams);
    return gram;
}

/* Counts the n-grams that both texts have, each as often as both have it. OK or E_MEMORY. */
static int score_grams(Rouge *out, const Numbered *reference, const Numbered *text, int n, Pool *pool) {
    int a, b, i = 0, j = 0, hits = 0;
    const uint64_t *x = sorted_grams(reference, n, &a, pool), *y = sorted_grams(text, n, &b, pool);
    if (!x || !y) return E_MEMORY;
    while (i < a && j < b) {
        hits += x[i] == y[j];
        if (x[i] < y[j]) i++;
        else if (x[i] > y[j]) j++;
        else { i++; j++; }
    }
    *out = score_of(hits, a, b);
    return OK;
}

/* Returns table (n+1,m+1): entry (i,j) is the length of the longest common subsequence of the first i words
 * of a and the first j of b. NULL: no memory. */
static int *common_lengths(const int *a, int n, const int *b, int m, Pool *pool) {
    const size_t width = (size_t)m + 1;
    int *t = (size_t)n + 1 < INT_MAX / width ? pool_take(pool, ((size_t)n + 1) * width, sizeof *t) : NULL;
    for (int i = 1; t && i <= n; i++)
        for (int j = 1; j <= m; j++) {
            int *at = t + (size_t)i * width + (size_t)j;
            *at = a[i - 1] == b[j - 1] ? at[-(ptrdiff_t)width - 1] + 1
                : at[-(ptrdiff_t)width] > at[-1] ? at[-(ptrdiff_t)width] : at[-1];
        }
    return t;
}

static int score_longest(Rouge *out, const Numbered *reference, const Numbered *text, Pool *pool) {
    const int *t = common_lengths(reference->id, reference->words, text->id, text->words, pool);
    if (!t) return E_MEMORY;
    *out = score_of(t[((size_t)reference->words + 1) * ((size_t)text->words + 1) - 1], reference->words,
                    text->words);
    return OK;
}

/* Marks (n) the words of a that are in a longest common subsequence of a and b. OK or E_MEMORY. */
static int mark_common(unsigned char *mark, const int *a, int n, const int *b, int m, Pool *pool) {
    const size_t width = (size_t)m + 1;
    const PoolMark room = pool_mark(pool);
    const int *t = common_lengths(a, n, b, m, pool);
    while (t && n > 0 && m > 0) {
        const int *at = t + (size_t)n * width + (size_t)m;
        if (a[n - 1] == b[m - 1]) { mark[--n] = 1; m--; }
        else if (at[-1] > at[-(ptrdiff_t)width]) m--;
        else n--;
    }
    pool_release(pool, room);
    return t ? OK : E_MEMORY;
}

/* For each sentence of the reference, the words that it has in common with any sentence of the text count,
 * but no word more often than both texts have it. OK or E_MEMORY. */
static int score_sentences(Rouge *out, const Numbered *reference, const Numbered *text, int words,
                           Pool *pool) {
    int *left = pool_take(pool, 2 * (size_t)words + 1, sizeof *left), *mine = left + words, hits = 0;
    unsigned char *mark = pool_take(pool, (size_t)reference->words + 1, 1);
    if (!left || !mark) return E_MEMORY;
    for (int i = 0; i < reference->words; i++) left[reference->id[i]]++;
    for (int i = 0; i < text->words; i++) mine[text->id[i]]++;
    for (int s = 0; s < reference->sentences; s++) {
        const int from = reference->start[s], n = reference->start[s + 1] - from;
        for (int k = 0; k < text->sentences; k++)
            if (mark_common(mark + from, reference->id + from, n, text->id + text->start[k],
                            text->start[k + 1] - text->start[k], pool)) return E_MEMORY;
        for (int i = from; i < from + n; i++) {
            const int id = reference->id[i];
            if (!mark[i] || !left[id] || !mine[id]) continue;
            hits++;
            left[id]--;
            mine[id]--;
        }
    }
    *out = score_of(hits, reference->words, text->words);
    return OK;
}

int rouge_score(Rouge out[ROUGE_KINDS], const char *reference, size_t reference_length, const char *text,
                size_t length, Pool *pool) {
    const PoolMark mark = pool_mark(pool);
    Vocabulary v;
    Numbered a, b;
    int code;
    memset(&v, 0, sizeof v);
    v.pool = pool;
    code = number_words(&a, &v, reference, reference_length);
    if (!code) code = number_words(&b, &v, text, length);
    if (!code) code = score_grams(&out[ROUGE_1], &a, &b, 1, pool);
    if (!code) code = score_grams(&out[ROUGE_2], &a, &b, 2, pool);
    if (!code) code = score_longest(&out[ROUGE_L], &a, &b, pool);
    if (!code) code = score_sentences(&out[ROUGE_LSUM], &a, &b, v.count, pool);
    pool_release(pool, mark);
    return code;
}
