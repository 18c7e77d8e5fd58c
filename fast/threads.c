/* fast/threads.c - decides how many threads a loop gets: OpenMP's, or one if the compiler lacks OpenMP.
 *
 * Needs    Nothing. Loops that threads share use one of the two macros of base.h,
 *          IN_PARTS or PARALLEL_FOR.
 * State    When the threads last met, and how much time was lost. It decides how long a loop
 *          takes, never its result. */
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
 * milliseconds for the thread that has no processor, and two threads become many times slower than one. So
 * threads_for now and then lets all threads meet, which takes microseconds if none is late. The time of a
 * late meeting, divided by the time since the meeting before, is the part of time that loops lose. While
 * the sliding mean of this part is above LOSS, loops get one thread. (A host that sometimes takes a
 * virtual processor away makes meetings late too, but not so many.) */
#ifdef _OPENMP
/* Seconds. A meeting that takes more than LATE is late. The next meeting is OFTEN after the last one, WARY
 * after a late one, ALONE after it while loops get one thread. */
static const double LATE = 4e-4, OFTEN = 20e-3, WARY = 2e-3, ALONE = 0.5;
static const double LOSS = 0.18, WEIGHT = 0.1;         /* WEIGHT: the weight of the newest part in the mean */

/* Lets `threads` threads meet. Returns the seconds that this took, or -1 if there were fewer threads. */
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
    /* last, next: times of the last and of the next meeting; lost: the lost part of time, a sliding mean */
    static double last, next, lost;
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

void threads_limit(int threads) {
#ifdef _OPENMP
    omp_set_num_threads(threads);
#else
    (void)threads;
#endif
}
