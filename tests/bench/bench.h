/* tests/bench/bench.h - what the parts of build/tests/bench share: timing in pairs, and the options
 * (see bench.c). */
#ifndef BENCH_H
#define BENCH_H
#include "../../programs.h"
#include <stdio.h>

typedef void (*Work)(void *context);
typedef struct { double median, low, high; } Times;     /* seconds of one repetition, or ratios */
/* ratio: their time / our time in the same pair */
typedef struct { Times ours, theirs, ratio; int runs; } Contest;

typedef struct {
    int rows, in, out, runs, quick, threads, tokens;
    double seconds, budget;
    const char *openblas, *tokenizer, *text, *policy, *reward;
    int nf4, compute;
} BenchOptions;
extern BenchOptions opt;
extern const Program program;

/* Runs both by turns, with the first one changing from pair to pair, so that noise hits both;
 * theirs NULL: ours alone. Quick work is repeated until --seconds are over; slow work gets fewer
 * pairs, but 3 at least. */
Contest contest(Work ours, void *context, Work theirs, void *their_context);
/* Prints "  62.3 (61.1 to 63.0)": work a second, in units of `unit`. */
void print_rate(double work, double unit, const Times *t);
void print_ratio(const Contest *c);                         /* prints "  1.04 (1.02 to 1.05)" */
/* Returns how many threads to measure after n, from 0: 1 (not with --quick), all, then 0. */
int threads_next(int n);
void use_threads(int n);
double memory_rate(int threads);        /* returns the bytes a second that are read from memory */
Arena bench_arena(size_t bytes);        /* returns zeroed memory; frees that of the call before */

/* bench_blas.c: OpenBLAS, loaded at run time */
typedef struct { char what[200]; } Blas;
/* path NULL: where systems have it. Returns 1; 0: prints that there is none */
int blas_open(Blas *b, const char *path);
void blas_threads(int n);
/* Computes C (M,J) = beta C + A (M,K) B (K,J). transpose_a: A is stored as (K,M); transpose_b: B
 * as (J,K). */
typedef struct { int M, J, K, transpose_a, transpose_b; float beta; } BlasShape;
void blas_product(float *C, const float *A, const float *B, const BlasShape *s);

/* bench_models.c */
void bench_generate(void);                  /* --policy DIR */
void bench_judge(void);                     /* --reward DIR */

#endif
