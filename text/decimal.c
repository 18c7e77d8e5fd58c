/* text/decimal.c - the fewest decimal digits that tell a number from its neighbours, in integers alone.
 * Needs    core.c. */
#include "text.h"

/* Computes the 128 bits of a * b: *high has the upper 64 bits, *low the lower ones. */
static void multiply(uint64_t a, uint64_t b, uint64_t *high, uint64_t *low) {
    uint64_t middle;
    *low = (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu);
    middle = (a >> 32) * (b & 0xFFFFFFFFu) + (*low >> 32);
    *high = (a >> 32) * (b >> 32) + (middle >> 32);
    middle = (middle & 0xFFFFFFFFu) + (a & 0xFFFFFFFFu) * (b >> 32);
    *high += middle >> 32;
    *low = (*low & 0xFFFFFFFFu) | middle << 32;
}

/* |x| is m 2^e. *d is |x| 10^p, rounded, in integers (m 5^p has up to 128 bits). It tells x if its rounding
 * error is less than half a unit of m, which is 5^p / 2. */
int shortest_decimal(double x, uint64_t *d, int *places) {
    double y = fabs(x), power;
    int e, n, whole = 1, p, shift, i;
    uint64_t m = (uint64_t)ldexp(frexp(y, &e), 53), five, low, high, rest, half;
    /* whole: the digits before the point. 0 or less: there are -whole zeros after the point. */
    for (power = 1; y >= 10 * power && whole < 16; power *= 10) whole++;
    for (power = 1; y < power && whole > -9; power /= 10) whole--;
    e -= 53;
    for (n = 15; n <= 17; n++) {
        p = n - whole;
        shift = -(e + p);
        if (m == 0 || p < 0 || p > 27 || shift < 1 || shift > 63) continue;
        for (five = 1, i = 0; i < p; i++) five *= 5;
        multiply(m, five, &high, &low);
        half = (uint64_t)1 << (shift - 1);
        *d = (high << (64 - shift)) | low >> shift;
        rest = low & (2 * half - 1);
        if (rest > half || (rest == half && *d % 2)) { ++*d; rest = 2 * half - rest; }
        if (n < 17 && rest >= five - five / 2) continue;
        *places = p;
        return 1;
    }
    return 0;
}
