/* tests/bench/bench.h - what the parts of build/tests/bench share: timing in pairs, and the options. See bench.c. */
#ifndef BENCH_H
#define BENCH_H
#include "../../programs.h"
#include <stdio.h>

typedef void (*Work)(void *context);
typedef struct { double median, low, high; } Times;         /* seconds of one repetition (of a ratio: the ratio) */
typedef struct { Times ours, theirs, ratio; int runs; } Contest;    /* ratio: their time / our time of the same pair, so above 1 we are faster */

typedef struct {
    int rows, in, out, runs, quick, threads, tokens;
    double seconds, budget;
    const char *openblas, *tokenizer, *text, *policy, *reward;
    int nf4, compute;
} BenchOptions;
extern BenchOptions opt;
extern const Program program;

/* Runs both by turns, the first one changing from pair to pair, so that noise hits both; theirs NULL: ours alone. What is quick is repeated
 * until --seconds are over; what is slow gets fewer pairs, 3 at least. */
Contest contest(Work ours, void *context, Work theirs, void *their_context);
void print_rate(double work, double unit, const Times *t);  /* "  62.3 (61.1 to 63.0)": work per second, in units of `unit` */
void print_ratio(const Contest *c);                         /* "  1.04 (1.02 to 1.05)" */
int threads_next(int n);                    /* the numbers of threads to measure with: 1 (not with --quick), all, 0. From 0 on. */
void use_threads(int n);
double memory_rate(int threads);            /* bytes a second that are read from memory */
Arena bench_arena(size_t bytes);             /* zeroed; what was given before is free again */

/* bench_blas.c: OpenBLAS, found while running */
typedef struct { char what[200]; } Blas;
int blas_open(Blas *b, const char *path);   /* path NULL: where systems have it. 1, or 0: there is none (and what says so) */
void blas_threads(int n);
/* C (M,J) = beta C + A (M,K) B (K,J), rows of lda, ldb, ldc floats; transposed: A, B lie as (K,M), (J,K) */
void blas_product(float *C, const float *A, const float *B, int transpose_a, int transpose_b, int M, int J, int K, float beta, int lda, int ldb, int ldc);

/* bench_models.c */
void bench_generate(void);                  /* --policy DIR */
void bench_judge(void);                     /* --reward DIR */

#endif
