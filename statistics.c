/* statistics.c - what a comparison of models reports: intervals of means, the best of n, distinct n-grams.
 * Source   Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13 (percentile interval);
 *          Chen et al. 2021, "Evaluating Large Language Models Trained on Code", appendix A (all sets of n
 *          of K samples, there for pass@k); Li et al. 2016, "A Diversity-Promoting Objective Function"
 *          (distinct-1, distinct-2).
 * Needs    core.c, and qsort of libc.
 * Edges    one number, equal numbers, n = K, texts without words. */
#include "rlhf.h"

static int compare_numbers(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Returns the quantile q (0 to 1) of n ascending numbers, as numpy.quantile does it: between two numbers it
 * goes in a straight line. */
static double quantile(const double *sorted, int n, double q) {
    const double place = q * (n - 1);
    const int i = (int)place;
    return i + 1 < n ? sorted[i] + (place - i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

Interval bootstrap_mean(const double *x, int n, int resamples, uint64_t seed, double *scratch) {
    Interval s = { 0, 0, 0 };
    if (n < 1 || resamples < 1) return s;
    for (int i = 0; i < n; i++) s.mean += x[i];
    s.mean /= n;
    for (int r = 0; r < resamples; r++) {
        Rng rng = rng_stream(seed, 0, (uint64_t)r);
        double sum = 0;
        for (int i = 0; i < n; i++) sum += x[rng_below(&rng, (uint64_t)n)];
        scratch[r] = sum / n;
    }
    qsort(scratch, (size_t)resamples, sizeof *scratch, compare_numbers);
    s.low = quantile(scratch, resamples, 0.025);
    s.high = quantile(scratch, resamples, 0.975);
    return s;
}

/* Of all sets of n out of K numbers, the share whose largest is the i-th number in ascending order is
 * w_i = C(i-1, n-1) / C(K, n). So w_K = n / K, and w_i = w_i+1 (i+1-n) / i. */
double best_of(double *x, int K, int n) {
    double sum = 0, share = (double)n / K;
    qsort(x, (size_t)K, sizeof *x, compare_numbers);
    for (int i = K; i >= n; i--) {
        sum += share * x[i - 1];
        if (i > 1) share *= (double)(i - n) / (i - 1);
    }
    return sum;
}

static int compare_hashes(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

/* Writes the hash of each n-gram of a text to hash, and returns how many there are. word: room for `order`
 * hashes of words. */
static size_t hash_ngrams(uint64_t *hash, uint64_t *word, const char *text, size_t length, int order) {
    size_t count = 0;
    int words = 0;
    for (size_t at = 0; at < length; ) {
        const size_t begin = at;
        while (at < length && !is_space(text[at])) at++;
        if (at > begin) {
            memmove(word, word + 1, (size_t)(order - 1) * sizeof *word);
            word[order - 1] = hash_bytes(text + begin, at - begin, 1);
            if (++words >= order) hash[count++] = hash_bytes(word, (size_t)order * sizeof *word, 2);
        }
        while (at < length && is_space(text[at])) at++;
    }
    return count;
}

int distinct_ngrams(Ngrams *g, const char *const *text, const size_t *length, int n, int order, Pool *pool) {
    const PoolMark mark = pool_mark(pool);
    size_t words = 0, count = 0;
    g->distinct = g->all = 0;
    if (order < 1) return E_ARGUMENT;
    for (int i = 0; i < n; i++) words += length[i] / 2 + 1;
    uint64_t *hash = pool_take(pool, words + 1, sizeof *hash);
    uint64_t *word = pool_take(pool, (size_t)order, sizeof *word);
    if (!hash || !word) { pool_release(pool, mark); return E_MEMORY; }
    for (int i = 0; i < n; i++) count += hash_ngrams(hash + count, word, text[i], length[i], order);
    qsort(hash, count, sizeof *hash, compare_hashes);
    for (size_t i = 0; i < count; i++) g->distinct += !i || hash[i] != hash[i - 1];
    g->all = (long long)count;
    pool_release(pool, mark);
    return OK;
}
