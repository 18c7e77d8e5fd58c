/* test.h - the least that a test program needs: named checks, counted; the last line says how many.
 * Every test program prints `NAME: N passed, N failed, N skipped` last; tests/tools/run.sh adds them up. */
#ifndef TEST_H
#define TEST_H
#include "../rlhf.h"
#include <stdio.h>
#include <stdlib.h>

static int test_passed, test_failed, test_skipped;    /* of this program */

/* One check with a name (printf style). A failure is printed; success is silent unless VERBOSE is set in the environment. */
#define CHECK(condition, ...) do { \
    if (condition) { test_passed++; if (getenv("VERBOSE")) { printf("  ok    "); printf(__VA_ARGS__); printf("\n"); } } \
    else { test_failed++; printf("  FAIL  %s:%d: ", __FILE__, __LINE__); printf(__VA_ARGS__); printf("\n"); } \
} while (0)
#define SKIP(...) do { test_skipped++; printf("  skip  "); printf(__VA_ARGS__); printf("\n"); } while (0)

static inline int test_end(const char *name) {
    printf("%s: %d passed, %d failed, %d skipped\n", name, test_passed, test_failed, test_skipped);
    return test_failed != 0;
}

/* A pool over malloc, and an arena of `bytes` (zeroed). */
static inline Pool test_pool(void) { Pool p; memset(&p, 0, sizeof p); p.source = malloc; p.sink = free; return p; }
static inline Arena test_arena(size_t bytes) { Arena a; memset(&a, 0, sizeof a); a.base = calloc(1, bytes); a.capacity = a.base ? bytes : 0; return a; }
/* ../shared, or $SHARED */
static inline const char *shared(void) { const char *s = getenv("SHARED"); return s ? s : "../shared"; }
#endif
