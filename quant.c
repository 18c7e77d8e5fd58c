/* quant.c - number formats: 16-bit floats, and weights in 4 bits (NF4, FP4) as bitsandbytes stores them.
 * Source   bfloat16: the upper half of an IEEE 754 binary32. float16: IEEE 754 binary16, 1 sign, 5 exponent (bias 15), 10 fraction bits.
 *          4 bits: Dettmers et al. 2023 (QLoRA), sections 2 and 3, with the tables, thresholds and roundings of bitsandbytes.
 * Needs    a 32-bit IEEE float (f32 in rlhf.h); <string.h> for memcpy. No heap, no stdio, no globals.
 * Never    calls libm, or has two float operations in one expression: the same bits on every machine. 16-bit floats are integer arithmetic.
 * Edges    ties to even, subnormals, overflow to infinity, NaN (kept, made quiet when narrowed): all in tests/base.c.
 *          4 bits: x on a threshold takes the lower code; a short last block has its own absmax; the unused half of the last byte is 0; a
 *          block of zeros has the codes of 0 (7 in NF4); NaN and infinity are refused, with their index: all in tests/quant.c. */
#include "rlhf.h"
#include <float.h>

static uint32_t bits_of(f32 x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static f32 from_bits(uint32_t u) {
    f32 x;
    memcpy(&x, &u, sizeof x);
    return x;
}

f32 bf16_to_f32(uint16_t bits) { return from_bits((uint32_t)bits << 16); }

/* Adding 0x7FFF and the last kept bit rounds to nearest, ties to even: a carry walks into the exponent, where it belongs,
 * up to infinity. A NaN keeps its upper bits and becomes quiet, so that cutting cannot turn it into infinity. */
uint16_t f32_to_bf16(f32 x) {
    uint32_t u = bits_of(x);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)(u >> 16 | 0x40u);
    return (uint16_t)((u + 0x7FFFu + (u >> 16 & 1u)) >> 16);
}

f32 f16_to_f32(uint16_t bits) {
    uint32_t sign = (uint32_t)(bits & 0x8000u) << 16, exponent = bits >> 10 & 31u, fraction = bits & 0x3FFu;
    if (exponent == 31) return from_bits(sign | 0x7F800000u | fraction << 13);          /* infinity, NaN */
    if (exponent == 0) {
        if (fraction == 0) return from_bits(sign);
        exponent = 1;                                   /* subnormal: fraction * 2^-24; shifted until it has its leading 1 */
        while (!(fraction & 0x400u)) { fraction <<= 1; exponent--; }
        fraction &= 0x3FFu;                             /* exponent may have wrapped below 0; the next sum brings it back */
    }
    return from_bits(sign | (exponent + 112u) << 23 | fraction << 13);                  /* bias 127 instead of 15 */
}

/* value >> shift, rounded to nearest, ties to even; shift 1..31. */
static uint32_t shift_round(uint32_t value, unsigned shift) {
    uint32_t rest = value & ((1u << shift) - 1u), half = 1u << (shift - 1), kept = value >> shift;
    return kept + (rest > half || (rest == half && (kept & 1u)));
}

/* Below 2^-14 the result is subnormal: the fraction with its leading 1 is shifted to multiples of 2^-24. A carry out of the
 * fraction makes the next exponent, also from subnormal to normal and from 65504 to infinity. */
uint16_t f32_to_f16(f32 x) {
    uint32_t u = bits_of(x), sign = u >> 16 & 0x8000u, magnitude = u & 0x7FFFFFFFu, exponent = magnitude >> 23;
    if (magnitude > 0x7F800000u) return (uint16_t)(sign | 0x7E00u | (magnitude >> 13 & 0x3FFu));      /* NaN, quiet */
    if (exponent >= 143) return (uint16_t)(sign | 0x7C00u);                             /* 2^16 and more, infinity */
    if (exponent >= 113) return (uint16_t)(sign | shift_round(magnitude - (112u << 23), 13));
    if (exponent < 102) return (uint16_t)sign;                                          /* below 2^-25: nearest is 0 */
    return (uint16_t)(sign | shift_round((magnitude & 0x7FFFFFu) | 0x800000u, 126u - exponent));
}

/* ---- 4-bit weights ----
 * Blocks of `block` weights in flat order, each divided by its largest magnitude, absmax, so that it fills -1 .. 1; there, the nearest of
 * 16 values. bitsandbytes multiplies by 1/absmax instead, which now and then ends on the other side of a threshold: so do we. */

/* NF4: 16 quantiles of a normal distribution, scaled to -1 .. 1, with a 0 (Dettmers et al. 2023, appendix E). */
static const f32 nf4[16] = {
    -1.0f, -0.696192801f, -0.525073051f, -0.394917488f, -0.284441382f, -0.184773430f, -0.0910500363f, 0.0f,
    0.0795802996f, 0.160930201f, 0.246112302f, 0.337915242f, 0.440709829f, 0.562617004f, 0.722956836f, 1.0f };

/* FP4: a sign (8), two bits of exponent, one of fraction, over the largest value, 12; codes are not in the order of their values.
 * bitsandbytes' thresholds are rounded decimals, not exact midpoints. */
static const f32 fp4[8] = { 0.0f, 1.0f / 192, 2.0f / 3, 1.0f, 1.0f / 3, 0.5f, 1.0f / 6, 0.25f };
static const unsigned char fp4_order[8] = { 0, 1, 6, 7, 4, 5, 2, 3 };
static const f32 fp4_threshold[7] = { 0.00260417f, 0.0859375f, 0.20833333f, 0.29166667f, 0.4166667f, 0.583333f, 0.8333333f };

size_t quant_blocks(size_t n, int block) { return n / (size_t)block + (n % (size_t)block != 0); }

void quant_table(f32 table[16], int kind) {
    for (int i = 0; i < 16; i++)
        table[i] = kind == QUANT_NF4 ? nf4[i] : i < 8 ? fp4[i] : 0.0f - fp4[i - 8];     /* code 8 is 0, not -0 */
}

/* How many of 2^k - 1 ascending thresholds are below x, by k comparisons and no branch (it would be guessed wrongly half the time). x on a
 * threshold is not above it. */
static unsigned count_below(f32 x, const f32 *threshold, unsigned thresholds) {
    unsigned count = 0;
    for (unsigned half = (thresholds + 1) / 2; half > 0; half /= 2)
        count += half * (x > threshold[count + half - 1]);
    return count;
}

/* The code of x in -1 .. 1. NF4's thresholds are the midpoints of its values; FP4's are for |x|, and -0 has no sign. */
static unsigned encode(f32 x, int kind, const f32 *threshold) {
    if (kind == QUANT_NF4) return count_below(x, threshold, 15);
    return x < 0 ? 8u + fp4_order[count_below(-x, threshold, 7)] : fp4_order[count_below(x, threshold, 7)];
}

/* 1/absmax. The floor is bitsandbytes' (in PyTorch): a block of zeros gets 0 * 1e38 and not 0 * infinity, and with it the codes of 0. */
static f32 reciprocal(f32 absmax) { return 1.0f / (absmax > 1e-38f ? absmax : 1e-38f); }

int quantize_4bit(unsigned char *packed, f32 *absmax, const f32 *x, size_t n, int block, int kind, size_t *where) {
    f32 threshold[15];
    if (block < 32 || block > 4096 || (block & (block - 1)) != 0 || (kind != QUANT_NF4 && kind != QUANT_FP4)) return E_ARGUMENT;
    if (kind == QUANT_FP4) memcpy(threshold, fp4_threshold, sizeof fp4_threshold);
    else for (int i = 0; i < 15; i++) {
        f32 sum = nf4[i] + nf4[i + 1];
        threshold[i] = sum * 0.5f;
    }
    for (size_t first = 0, b = 0; first < n; first += (size_t)block, b++) {
        size_t end = n - first < (size_t)block ? n : first + (size_t)block;
        f32 largest = 0;
        for (size_t i = first; i < end; i++) {
            f32 magnitude = x[i] < 0 ? -x[i] : x[i];
            if (!(magnitude <= FLT_MAX)) {
                if (where) *where = i;
                return E_NUMBER;
            }
            if (magnitude > largest) largest = magnitude;
        }
        f32 inverse = reciprocal(largest);
        absmax[b] = largest;
        for (size_t i = first; i < end; i += 2) {       /* a block begins with a whole byte */
            f32 one = x[i] * inverse, two = i + 1 < end ? x[i + 1] * inverse : 0;
            unsigned high = encode(one, kind, threshold), low = i + 1 < end ? encode(two, kind, threshold) : 0;
            packed[i / 2] = (unsigned char)(high << 4 | low);
        }
    }
    return OK;
}

/* ---- double quantisation: absmax itself in 8 bits ----
 * absmax is always positive; less its mean, it fills a map with both signs. d = absmax - mean goes in blocks of QUANT_NESTED, divided by
 * their largest |d| (Dettmers et al. 2023, section 3; the map: Dettmers et al. 2022, dynamic tree quantisation). */

/* The positive side of the map: for i = 0 .. 6, the middles of 2^i equal cells of 0.1 .. 1, times 10^(i-6). As bits, because they are what
 * bitsandbytes stores, with the roundings of the vector code that made them. */
static const uint32_t dynamic[127] = {
    0x3513a3b7, 0x365a1a94, 0x370205ff, 0x37b24206, 0x38378034, 0x388aefb3, 0x38ba1f4b, 0x3923d70b, 0x398ce705, 0x39c7e283, 0x3a016f01,
    0x3a1eecc1, 0x3a3c6a80, 0x3a59e83e, 0x3a7765ff, 0x3aa7ef9d, 0x3af1a9fc, 0x3b1db22d, 0x3b428f5c, 0x3b676c8a, 0x3b8624dd, 0x3b989374,
    0x3bab020d, 0x3bbd70a4, 0x3bcfdf3b, 0x3be24dd3, 0x3bf4bc6a, 0x3c039581, 0x3c0ccccd, 0x3c160418, 0x3c1f3b64, 0x3c3ae148, 0x3c68f5c3,
    0x3c8b851f, 0x3ca28f5c, 0x3cb9999a, 0x3cd0a3d7, 0x3ce7ae13, 0x3cfeb852, 0x3d0ae147, 0x3d166667, 0x3d21eb85, 0x3d2d70a3, 0x3d38f5c3,
    0x3d447ae1, 0x3d500000, 0x3d5b851f, 0x3d670a3d, 0x3d728f5d, 0x3d7e147a, 0x3d84cccd, 0x3d8a8f5d, 0x3d9051eb, 0x3d96147b, 0x3d9bd70a,
    0x3da1999a, 0x3da75c28, 0x3dad1eb8, 0x3db2e148, 0x3db8a3d7, 0x3dbe6667, 0x3dc428f5, 0x3dc9eb85, 0x3ddb3334, 0x3df80000, 0x3e0a6666,
    0x3e18cccd, 0x3e273333, 0x3e359999, 0x3e440000, 0x3e526666, 0x3e60cccd, 0x3e6f3334, 0x3e7d999a, 0x3e860000, 0x3e8d3334, 0x3e946666,
    0x3e9b999a, 0x3ea2cccc, 0x3eaa0000, 0x3eb13332, 0x3eb86666, 0x3ebf999a, 0x3ec6cccc, 0x3ece0000, 0x3ed53332, 0x3edc6666, 0x3ee3999a,
    0x3eeacccc, 0x3ef20000, 0x3ef93334, 0x3f003333, 0x3f03cccd, 0x3f076666, 0x3f0b0000, 0x3f0e999a, 0x3f123334, 0x3f15cccd, 0x3f196666,
    0x3f1d0000, 0x3f20999a, 0x3f243333, 0x3f27cccd, 0x3f2b6667, 0x3f2f0000, 0x3f32999a, 0x3f363334, 0x3f39cccd, 0x3f3d6667, 0x3f410000,
    0x3f44999a, 0x3f483333, 0x3f4bcccc, 0x3f4f6666, 0x3f530000, 0x3f569999, 0x3f5a3333, 0x3f5dcccc, 0x3f616666, 0x3f650000, 0x3f68999a,
    0x3f6c3333, 0x3f6fcccc, 0x3f736666, 0x3f770000, 0x3f7a9999, 0x3f7e3333 };

/* 127 negative values, 0, 127 positive ones and 1, ascending. There is no -1. */
void quant_map(f32 map[256]) {
    for (int i = 0; i < 127; i++) {
        map[128 + i] = from_bits(dynamic[i]);
        map[126 - i] = -map[128 + i];
    }
    map[127] = 0;
    map[255] = 1;
}

/* The index of the value nearest to x; halfway, the even one of the two. */
static unsigned nearest(f32 x, const f32 map[256]) {
    unsigned upper = count_below(x, map, 255);          /* map[upper-1] < x <= map[upper], but that x may be above the last */
    if (upper == 0) return 0;
    f32 sum = map[upper - 1] + map[upper], middle = sum * 0.5f;
    if (x == middle) return upper & ~1u;
    return x > middle ? upper : upper - 1;
}

/* The order of the mean's sum is free in bitsandbytes. Ours: from first to last in double, rounded once at the end. */
void quantize_absmax(unsigned char *code, f32 *nested, f32 *offset, const f32 *map, const f32 *absmax, size_t blocks) {
    double sum = 0;
    for (size_t b = 0; b < blocks; b++) sum += (double)absmax[b];
    f32 mean = blocks ? (f32)(sum / (double)blocks) : 0;
    *offset = mean;
    for (size_t first = 0; first < blocks; first += QUANT_NESTED) {
        size_t end = blocks - first < QUANT_NESTED ? blocks : first + QUANT_NESTED;
        f32 largest = 0;
        for (size_t b = first; b < end; b++) {
            f32 d = absmax[b] - mean, magnitude = d < 0 ? -d : d;
            if (magnitude > largest) largest = magnitude;
        }
        f32 inverse = reciprocal(largest);
        nested[first / QUANT_NESTED] = largest;
        for (size_t b = first; b < end; b++) {
            f32 d = absmax[b] - mean, scaled = d * inverse;
            code[b] = (unsigned char)nearest(scaled, map);
        }
    }
}

static f32 block_scale(const Quant *q, size_t b) {
    if (q->absmax) return q->absmax[b];
    f32 d = q->map[q->code[b]] * q->nested[b / QUANT_NESTED];
    return d + q->offset;
}

/* A block has at most 16 different weights: they are multiplied once, and looked up after that. */
void dequantize_4bit(f32 *x, const unsigned char *packed, const Quant *q, size_t at, size_t n) {
    size_t block = (size_t)q->block, end = at + n;
    while (at < end) {
        size_t b = at / block, stop = end - b * block < block ? end : (b + 1) * block;
        f32 scale = block_scale(q, b), value[16];
        for (int i = 0; i < 16; i++) value[i] = q->table[i] * scale;
        if (at % 2) {                                   /* begins within a byte */
            *x++ = value[packed[at / 2] & 15];
            at++;
        }
        for (; at + 1 < stop; at += 2, x += 2) {
            x[0] = value[packed[at / 2] >> 4];
            x[1] = value[packed[at / 2] & 15];
        }
        if (at < stop) {                                /* ends within a byte */
            *x++ = value[packed[at / 2] >> 4];
            at++;
        }
    }
}
