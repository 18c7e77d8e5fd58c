/* test.h - the least that a test program needs: named checks, counted; the last line says how many.
 * A program prints `NAME: N passed, N failed, N skipped` last; tests/tools/run.sh adds them up. */
#ifndef TEST_H
#define TEST_H
#include "../rlhf.h"
#include <stdio.h>
#include <stdlib.h>
#ifdef _OPENMP
#include <omp.h>
#endif

static int test_passed, test_failed, test_skipped;    /* of this program */

/* Counts one check with a name (as for printf). Prints a failure, and success if VERBOSE is set. */
#define CHECK(condition, ...) do { \
    if (condition) { test_passed++; if (getenv("VERBOSE")) TEST_SAY("  ok    ", __VA_ARGS__); } \
    else { \
        test_failed++; \
        printf("  FAIL  %s:%d", __FILE__, __LINE__); TEST_SAY(": ", __VA_ARGS__); \
    } \
} while (0)
#define SKIP(...) do { test_skipped++; TEST_SAY("  skip  ", __VA_ARGS__); } while (0)
#define TEST_SAY(first, ...) do { \
    fputs(first, stdout); printf(__VA_ARGS__); putchar('\n'); \
} while (0)

/* The tokens of policy_loss: log-probs now and when they were sampled, and advantages. */
#define POLICY(now, old, A) (&(const PolicyTokens){ .logprob = now, .old_logprob = old, .advantage = A })

/* Prints the last line; returns main's exit code. */
static inline int test_end(const char *name) {
    printf("%s: %d passed, %d failed, %d skipped\n", name, test_passed, test_failed, test_skipped);
    return test_failed != 0;
}

/* Returns a pool over malloc. */
static inline Pool test_pool(void) {
    Pool p;
    memset(&p, 0, sizeof p);
    p.source = malloc;
    p.sink = free;
    return p;
}
/* Returns an arena of so many zeroed bytes. */
static inline Arena test_arena(size_t bytes) {
    Arena a;
    memset(&a, 0, sizeof a);
    a.base = calloc(1, bytes);
    a.capacity = a.base ? bytes : 0;
    return a;
}
/* Gives loops n threads. Without OpenMP they have one, whatever n is, so that trying several would test the
 * same again: tests try 1 to MOST_THREADS. */
#ifdef _OPENMP
enum { MOST_THREADS = 2 };
static inline void threads(int n) { omp_set_num_threads(n); }
#else
enum { MOST_THREADS = 1 };
static inline void threads(int n) { (void)n; }
#endif
/* Returns the folder of third-party files: ../shared, or $SHARED. */
static inline const char *shared(void) {
    const char *s = getenv("SHARED");
    return s ? s : "../shared";
}
#endif
