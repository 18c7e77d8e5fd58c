/* agreement.c - how far several labellers agree: Krippendorff's alpha.
 * Source   K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), whose example the test has.
 * Needs    nothing. Pure arithmetic over arrays.
 * Edges    Labellers may be missing: each unit counts with the values that it got. A unit with fewer than two
 *          values says nothing about agreement and does not count. */
#include "rlhf.h"

/* Returns the squared difference of the values c and k. n (values): how often each value was given. Nominal:
 * 1 if they differ. Ordinal: the square of how many given values lie between them, ends counting half. */
static double difference(const double *n, int c, int k, int ordinal) {
    double sum = 0;
    if (c == k) return 0;
    if (!ordinal) return 1;
    const int low = c < k ? c : k, high = c < k ? k : c;
    for (int g = low; g <= high; g++) sum += n[g];
    sum -= (n[low] + n[high]) / 2;
    return sum * sum;
}

double krippendorff_alpha(const int *count, int units, int values, int ordinal) {
    double n[AGREEMENT_VALUES] = { 0 }, all = 0, seen = 0, expected = 0;
    for (int u = 0; u < units; u++) {
        int m = 0;
        for (int v = 0; v < values; v++) m += count[u * values + v];
        for (int v = 0; v < values && m > 1; v++) n[v] += count[u * values + v];
        all += m > 1 ? m : 0;
    }
    for (int u = 0; u < units; u++) {
        const int *x = count + u * values;
        int m = 0;
        for (int v = 0; v < values; v++) m += x[v];
        for (int c = 0; c < values && m > 1; c++)
            for (int k = 0; k < values; k++)
                seen += (double)x[c] * x[k] * difference(n, c, k, ordinal) / (m - 1);
    }
    for (int c = 0; c < values; c++)
        for (int k = 0; k < values; k++) expected += n[c] * n[k] * difference(n, c, k, ordinal);
    return expected > 0 ? 1 - (all - 1) * seen / expected : NAN;
}
