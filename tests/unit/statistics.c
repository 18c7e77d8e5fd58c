/* tests/unit/statistics.c - statistics.c against numbers that were counted by hand or follow from theory. */
#include "test.h"

enum { RESAMPLES = 10000, LARGE = 400 };
static double scratch[RESAMPLES];

static int near(double x, double y, double tolerance) { return fabs(x - y) <= tolerance; }

static void check_intervals(void) {
    double same[3] = { 2.5, 2.5, 2.5 }, two[2] = { 0, 1 }, x[LARGE], deviation = 0;
    Interval s = bootstrap_mean(same, 3, RESAMPLES, 1, scratch);
    CHECK(s.mean == 2.5 && s.low == 2.5 && s.high == 2.5, "equal numbers: no width");
    s = bootstrap_mean(same, 0, RESAMPLES, 1, scratch);
    CHECK(s.mean == 0 && s.low == 0 && s.high == 0, "no numbers: zeros");
    s = bootstrap_mean(two, 2, RESAMPLES, 1, scratch);
    CHECK(s.mean == 0.5 && s.low == 0 && s.high == 1, "0 and 1: a quarter of the resamples has mean 0");
    s = bootstrap_mean(two, 2, 1, 1, scratch);
    CHECK(s.low == s.high, "one resample");
    Rng rng = rng_stream(3, 0, 0);
    for (int i = 0; i < LARGE; i++) x[i] = 7 + rng_normal(&rng);
    s = bootstrap_mean(x, LARGE, RESAMPLES, 1, scratch);
    for (int i = 0; i < LARGE; i++) deviation += (x[i] - s.mean) * (x[i] - s.mean) / LARGE;
    const double width = 2 * 1.959964 * sqrt(deviation / LARGE);
    CHECK(near((s.high - s.low) / width, 1, 0.03) && near((s.high + s.low) / 2, s.mean, 0.05 * width),
          "the interval of 400 normal numbers is the normal one: %.4f, expected %.4f", s.high - s.low, width);
    Interval again = bootstrap_mean(x, LARGE, RESAMPLES, 1, scratch);
    CHECK(!memcmp(&s, &again, sizeof s), "the same seed, the same interval");
    again = bootstrap_mean(x, LARGE, RESAMPLES, 2, scratch);
    CHECK(s.low != again.low && near(s.low, again.low, 0.02), "another seed, nearly the same interval");
}

/* Of 2000 samples of 30 normal numbers, the interval of about 93 % holds the true mean. */
static void check_coverage(void) {
    int held = 0;
    for (int k = 0; k < 2000; k++) {
        double x[30];
        Rng rng = rng_stream(5, 1, (uint64_t)k);
        for (int i = 0; i < 30; i++) x[i] = rng_normal(&rng);
        const Interval s = bootstrap_mean(x, 30, 400, (uint64_t)k, scratch);
        held += s.low <= 0 && s.high >= 0;
    }
    CHECK(held >= 1830 && held <= 1900, "%d of 2000 intervals hold the true mean", held);
}

/* The mean of the largest over all sets of n of 5 numbers, one set after another. */
static double best_by_sets(const double *x, int n) {
    double sum = 0;
    int sets = 0;
    for (int set = 0; set < 32; set++) {
        int members = 0;
        double largest = -HUGE_VAL;
        for (int i = 0; i < 5; i++)
            if (set >> i & 1) { members++; largest = x[i] > largest ? x[i] : largest; }
        if (members == n) { sum += largest; sets++; }
    }
    return sum / sets;
}

static void check_best(void) {
    const double x[5] = { 2, -3, 10, 2, 0.5 };
    double y[5];
    for (int n = 1; n <= 5; n++) {
        memcpy(y, x, sizeof y);
        const double want = best_by_sets(x, n), got = best_of(y, 5, n);
        CHECK(near(got, want, 1e-12), "the best %d of 5: %.9g, expected %.9g", n, got, want);
    }
    memcpy(y, x, sizeof y);
    CHECK(best_of(y, 5, 5) == 10, "the best of all is exactly the largest");
    CHECK(y[0] == -3 && y[4] == 10, "the numbers are sorted");
    CHECK(best_of(y, 1, 1) == -3, "one number");
}

static void check_ngrams(void) {
    static const char *const text[] = { "the cat sat", " the  cat\tran ", "", "dog" };
    static const struct { int order; long long distinct, all; } want[] = {
        { 1, 5, 7 }, { 2, 3, 4 }, { 3, 2, 2 }, { 4, 0, 0 } };
    size_t length[4];
    Pool pool = test_pool();
    Ngrams g;
    for (int i = 0; i < 4; i++) length[i] = strlen(text[i]);
    for (int k = 0; k < 4; k++) {
        CHECK(distinct_ngrams(&g, text, length, 4, want[k].order, &pool) == OK, "counts");
        CHECK(g.distinct == want[k].distinct && g.all == want[k].all, "%d-grams: %lld of %lld differ",
              want[k].order, g.distinct, g.all);
    }
    CHECK(distinct_ngrams(&g, text, length, 0, 1, &pool) == OK && g.all == 0, "no texts");
    CHECK(distinct_ngrams(&g, text, length, 4, 0, &pool) == E_ARGUMENT, "n-grams of no word");
    pool_free(&pool);
}

int main(void) {
    check_intervals();
    check_coverage();
    check_best();
    check_ngrams();
    return test_end("statistics");
}
