/* fast/threads.c - how many threads a loop gets: OpenMP's number, if the compiler has OpenMP, otherwise one.
 *
 * Needs    nothing. Loops are shared by the macros IN_PARTS and PARALLEL_FOR alone.
 * State    when the threads last met, and how long that took. It decides about time, never about a result. */
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

/* Threads that share a loop end it together. If another process uses a processor, each loop may wait
 * milliseconds for a thread that waits for its turn, and two threads become many times slower than one. So
 * now and then all threads are asked to meet, which takes microseconds. The time that late meetings take, as
 * a part of all time since the meeting before, is what loops lose. If the sliding mean of that part is more
 * than LOSS, there is one thread for a while. (A host that now and then takes a virtual processor away causes
 * late meetings too, but fewer.) Only time depends on this, no result does. */
#ifdef _OPENMP
/* seconds; between meetings, after late ones, and alone */
static const double LATE = 4e-4, OFTEN = 20e-3, WARY = 2e-3, ALONE = 0.5;
static const double LOSS = 0.18, WEIGHT = 0.1;                          /* of the newest part in the mean */

/* Returns the seconds that the threads took to meet, or -1 if there are not so many. */
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
