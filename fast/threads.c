/* fast/threads.c - how many threads a loop gets (OpenMP's, where the compiler has it; one otherwise).
 *
 * Needs    nothing. Everything that is shared goes through the two macros of rlhf.h, IN_PARTS and
 *          PARALLEL_FOR.
 * State    when the threads last met, and how that went: it decides about time alone, never about a
 *          result. */
#include "../rlhf.h"
#ifdef _OPENMP
#include <omp.h>
#endif

int threads_max(void) {
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

/* Threads that share a loop end it together. Where another process takes a processor, each loop may wait for
 * a thread that waits for its turn, milliseconds at a time, and two threads become many times slower than
 * one. So now and then all threads are asked to meet, which takes microseconds. What late meetings take, as a
 * part of all time since the one before, is what loops lose; if that is more than LOSS in the sliding mean,
 * there is one thread for a while. (A host that takes a virtual processor away now and then makes a late
 * meeting too, but not so many.) Only time depends on this, no result does. */
#ifdef _OPENMP
/* seconds; between meetings, after late ones, and alone */
static const double LATE = 4e-4, OFTEN = 20e-3, WARY = 2e-3, ALONE = 0.5;
static const double LOSS = 0.18, WEIGHT = 0.1;                          /* of the newest part in the mean */

/* Seconds that the threads took to meet, or -1: there are not so many. */
static double meeting(int threads) {
    double begin = omp_get_wtime();
    int met = 0;
#pragma omp parallel num_threads(threads) reduction(+ : met)
    met++;
    return met < threads ? -1 : omp_get_wtime() - begin;
}
#endif

int threads_for(double work) {
#ifdef _OPENMP
    static double last, next, lost;  /* times of meetings; the part of time that was lost, a sliding mean */
    static int alone;
    int threads = omp_get_max_threads();
    if (!(work > 200000) || threads < 2 || omp_in_parallel()) return 1;
    double now = omp_get_wtime();
    if (now < next) return alone ? 1 : threads;
    double took = meeting(threads);
    double part = took < 0 ? 1 : took > LATE ? took / (now + took - last) : 0;
    lost = (alone ? LOSS : lost) * (1 - WEIGHT) + part * WEIGHT;
    alone = lost > LOSS;
    last = now + (took > 0 ? took : 0);
    next = last + (alone ? ALONE : part > 0 || lost > WEIGHT ? WARY : OFTEN);
    return alone ? 1 : threads;
#else
    (void)work;
    return 1;
#endif
}

int thread_index(void) {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}
