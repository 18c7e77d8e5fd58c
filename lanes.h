/* lanes.h - functions that ops.c and its twins in fast/ inline: sums of a row in eight lanes,
 * exp, the normal distribution, softmax and log-sum-exp of a row, attention's probabilities.
 *
 * Why      Twins need the same functions as ops.c, and compilers inline functions of a header
 *          into the loops that call them.
 * Order    A sum has eight lanes: lane k adds the elements at k, k + 8, k + 16 ... of the
 *          row. The lanes are added pairwise, then the tail, the last elements of a row that
 *          is not a multiple of eight. So compilers may add eight numbers at once, and the
 *          bits do not depend on it.
 * Maths    exp and the normal distribution are our own: the same bits on every machine. A NaN in
 *          the input gives a NaN. */
#ifndef LANES_H
#define LANES_H
#include "rlhf.h"

enum { LANES = 8 };

#if defined(__GNUC__) && !defined(__TINYC__)
#define INLINE static inline __attribute__((always_inline, unused))
#else
#define INLINE static inline
#endif

INLINE float lane_fold(const float s[LANES]) {
    return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
}

/* Returns the sum of a[i] b[i], i < n. */
INLINE float dot(const float *a, const float *b, int n) {
    float s[LANES] = {0}, tail = 0;
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++) s[k] += a[i + k] * b[i + k];
    for (; i < n; i++) tail += a[i] * b[i];
    return lane_fold(s) + tail;
}

/* Returns the sum of a[i], i < n. */
INLINE float lane_sum(const float *a, int n) {
    float s[LANES] = {0}, tail = 0;
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++) s[k] += a[i + k];
    for (; i < n; i++) tail += a[i];
    return lane_fold(s) + tail;
}

INLINE float largest(const float *z, int n) {
    float m[LANES], max = -HUGE_VALF;
    int i = 0;
    for (int k = 0; k < LANES; k++) m[k] = -HUGE_VALF;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++) m[k] = z[i + k] > m[k] ? z[i + k] : m[k];
    for (; i < n; i++) max = z[i] > max ? z[i] : max;
    for (int k = 0; k < LANES; k++) max = m[k] > max ? m[k] : max;
    return max;
}

#ifdef F64
INLINE float exp_inline(float x) { return exp(x); }
INLINE float upper_tail(float z, float gauss) {
    (void)gauss;
    return 0.5 * erfc(z * 0.70710678118654752440);
}
#else
/* Returns e^x = 2^n e^r, n = round(x / ln 2), |r| <= ln 2 / 2. e^r is its Taylor series to
 * r^7 (the rest is below half an ulp); 2^n is written into the exponent bits. Where x is
 * clamped, the result is 0 or infinity anyway; a NaN stays NaN. There is no branch and no
 * conversion between int and float, so that compilers compute several results at once (gcc
 * only with -fno-trapping-math). */
INLINE float exp_inline(float x) {
    /* 1.5 * 2^23: a float that is added to it is rounded to an integer, in the low bits */
    const float round = 12582912.0f;
    float y = x < -110.0f ? -110.0f : x;
    y = y > 89.0f ? 89.0f : y;
    float t = y * 1.44269504f + round, n = t - round;
    /* ln 2 is split into two parts. The first has few bits, so that n times it is exact. */
    float r = (y - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &t, sizeof bits);
    /* 2^n is two factors, n + 256 = half + rest, because one factor of 2^128 would overflow. */
    uint32_t whole = bits - 0x4B400000u + 256, half = whole >> 1;
    uint32_t bits_half = (half - 1) << 23, bits_rest = (whole - half - 1) << 23;
    float two_half, two_rest;
    memcpy(&two_half, &bits_half, sizeof two_half);
    memcpy(&two_rest, &bits_rest, sizeof two_rest);
    return p * two_half * two_rest;
}

/* Returns P(normal > z) for z >= 0, given gauss = e^(-z^2/2): gauss t Q(t) / 2,
 * where t = 1 / (1 + z / sqrt 8). Q is our least-squares fit of degree 9; the
 * relative error is below 2e-7. */
INLINE float upper_tail(float z, float gauss) {
    float t = 1.0f / (1.0f + z * 0.35355339f), s = 0.01384188631f;
    s = s * t - 0.1312567994f;
    s = s * t + 0.4466020221f;
    s = s * t - 0.6919876055f;
    s = s * t + 0.4381505762f;
    s = s * t - 0.1066047363f;
    s = s * t + 0.2281351257f;
    s = s * t + 0.2381473767f;
    s = s * t + 0.2829100265f;
    s = s * t + 0.2820621124f;
    return 0.5f * gauss * t * s;
}
#endif

INLINE float sigmoid(float x) { return 1 / (1 + exp_inline(-x)); }

/* Returns Phi(x) of the normal distribution; *density becomes phi(x). */
INLINE float normal_cdf(float x, float *density) {
    float gauss = exp_inline(-0.5f * x * x), tail = upper_tail(fabsf(x), gauss);
    *density = gauss * (float)0.39894228040143267794;
    return x < 0 ? tail : 1 - tail;
}

/* Returns (1 + tanh(u)) / 2 = sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3); *slope becomes
 * its derivative. Beyond +-16 the value is 0 or 1 in floats: x is clamped to +-16, so that its
 * powers do not overflow. */
INLINE float tanh_part(float x, float *slope) {
    const float c = (float)1.59576912160573071176, cube = (float)0.044715;      /* 2 sqrt(2 / pi) */
    x = x < -16 ? -16 : x > 16 ? 16 : x;
    float twice_u = c * (x + cube * x * x * x), e = exp_inline(-fabsf(twice_u));
    float less = e / (1 + e);  /* the smaller of p = sigmoid(2 u) and 1 - p */
    /* p (1 - p), without cancellation */
    *slope = c * (1 + 3 * cube * x * x) * (less / (1 + e));
    return twice_u < 0 ? less : 1 / (1 + e);
}

/* Computes *mean, the mean of x (C), and *rstd = 1 / sqrt(var + eps), with the biased variance. */
INLINE void moments_of_row(float *mean, float *rstd, const float *x, float eps, int C) {
    float s[LANES] = {0}, tail = 0, m = lane_sum(x, C) / (float)C;
    int c = 0;
    for (; c + LANES <= C; c += LANES)
        for (int k = 0; k < LANES; k++) s[k] += (x[c + k] - m) * (x[c + k] - m);
    for (; c < C; c++) tail += (x[c] - m) * (x[c] - m);
    *mean = m;
    *rstd = 1 / sqrtf((lane_fold(s) + tail) / (float)C + eps);
}

/* Returns log sum_v e^(z_v / T) of z (V). *mean (NULL: skip) becomes the mean of
 * z_v / T under the softmax. */
INLINE float log_sum_exp(float *mean, const float *z, float temperature, int V) {
    float cold = 1 / temperature, m = largest(z, V) * cold;
    float s[LANES] = {0}, sz[LANES] = {0}, tail = 0, tail_z = 0;
    int v = 0;
    for (; v + LANES <= V; v += LANES)
        for (int k = 0; k < LANES; k++) s[k] += exp_inline(z[v + k] * cold - m);
    for (; v < V; v++) tail += exp_inline(z[v] * cold - m);
    float sum = lane_fold(s) + tail;
    if (mean) {
        for (v = 0; v + LANES <= V; v += LANES)
            for (int k = 0; k < LANES; k++)
                sz[k] += exp_inline(z[v + k] * cold - m) * (z[v + k] * cold);
        for (; v < V; v++) tail_z += exp_inline(z[v] * cold - m) * (z[v] * cold);
        *mean = (lane_fold(sz) + tail_z) / sum;
    }
    return m + (float)log((double)sum);
}

/* Replaces p (n) by softmax(scale * p). */
INLINE void softmax_row(float *p, int n, float scale) {
    float max = largest(p, n), sum;
    for (int j = 0; j < n; j++) p[j] = exp_inline(scale * (p[j] - max));
    sum = lane_sum(p, n);
    for (int j = 0; j < n; j++) p[j] /= sum;
}

/* Returns the index in heads->bias of head h's bias for the distance from query n to the j-th
 * row that the query sees. */
INLINE size_t bias_at(const Keys *keys, const Heads *heads, int n, int h, int j) {
    int distance = keys->first[n] + j - keys->self[n];
    return (size_t)heads->bucket[heads->reach + distance] * (size_t)heads->H + (size_t)h;
}

/* Turns p (count[n]) from q.k of query n and head h, for each row that the query sees, into the
 * probabilities of these rows. */
INLINE void attention_row(float *p, const Keys *keys, const Heads *heads, int n, int h) {
    int count = keys->count[n];
    for (int j = 0; j < count && heads->bias; j++)
        p[j] = heads->scale * p[j] + heads->bias[bias_at(keys, heads, n, h, j)];
    softmax_row(p, count, heads->bias ? 1 : heads->scale);
}

/* Does what attention_row does for queries from .. to-1. Their rows of P have `width` numbers,
 * of which the first is for row `first` of k. P becomes 0 where a query does not see a row. */
INLINE void attention_rows(float *P, int width, int first, const Keys *keys, const Heads *heads,
                           int from, int to, int h) {
    for (int n = from; n < to; n++, P += width) {
        int begin = keys->first[n] - first, end = begin + keys->count[n];
        attention_row(P + begin, keys, heads, n, h);
        for (int j = 0; j < begin; j++) P[j] = 0;
        for (int j = end; j < width; j++) P[j] = 0;
    }
}

/* Turns ds (count[n]) from dP = dy.v, for each row that query n sees, into the gradient of
 * q.k, which is scale P (dP - delta), delta = dy.y. Adds the gradient of the score,
 * P (dP - delta), to heads->dbias. */
INLINE void attention_row_backward(float *ds, const float *p, float delta, const Keys *keys,
                                   const Heads *heads, int n, int h) {
    int count = keys->count[n];
    for (int j = 0; j < count && heads->bias && heads->dbias; j++)
        heads->dbias[bias_at(keys, heads, n, h, j)] += p[j] * (ds[j] - delta);
    for (int j = 0; j < count; j++) ds[j] = p[j] * (ds[j] - delta) * heads->scale;
}
#endif
