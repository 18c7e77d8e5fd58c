/* threads.c - how many threads a loop gets (OpenMP's, where the compiler has it; one otherwise).
 *
 * Needs    nothing. Everything that is shared goes through the two macros of rlhf.h, IN_PARTS and PARALLEL_FOR.
 * State    when the threads last met, and how that went: it decides about time alone, never about a result. */
#include "rlhf.h"
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

/* Threads that share a loop end it together. Where another process takes a processor, each loop may wait for a thread that waits for its
 * turn, milliseconds at a time, and two threads become many times slower than one. So now and then all threads are asked to meet, which
 * takes microseconds; if it often takes longer than LATE, there is one thread for a while. Only time depends on this, no result does. */
#ifdef _OPENMP
enum { OFTEN = 3, ALONE_MS = 1000, CALM_MS = 20, WARY_MS = 2 };         /* meetings: every 20 ms, every 2 ms after a late one */
static const double LATE = 4e-4;

static int meet_late(int threads) {
    double begin = omp_get_wtime();
    int met = 0;
#pragma omp parallel num_threads(threads) reduction(+ : met)
    met++;
    return met < threads || omp_get_wtime() - begin > LATE;
}
#endif

int threads_for(double work) {
#ifdef _OPENMP
    static double next;                                         /* time of the next meeting */
    static int alone, suspicion;                                /* a late meeting adds 2, up to 2 * OFTEN; one in time takes 1 */
    int threads = omp_get_max_threads();
    if (!(work > 200000) || threads < 2 || omp_in_parallel()) return 1;
    double now = omp_get_wtime();
    if (now < next) return alone ? 1 : threads;
    if (alone) suspicion = OFTEN;
    suspicion += meet_late(threads) ? 2 : -1;
    if (suspicion < 0) suspicion = 0;
    alone = suspicion >= 2 * OFTEN;
    next = omp_get_wtime() + 1e-3 * (alone ? ALONE_MS : suspicion ? WARY_MS : CALM_MS);
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
