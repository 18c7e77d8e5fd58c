/* quant.c - number formats: 16-bit floats, and weights in 4 bits (NF4, FP4) as bitsandbytes stores them.
 * Source   bfloat16: the upper half of an IEEE 754 binary32. float16: IEEE 754 binary16 (1 sign bit, 5
 *          exponent bits with bias 15, 10 fraction bits). 4 bits: Dettmers et al. 2023 (QLoRA), sections 2
 *          and 3, with the tables, thresholds and roundings of bitsandbytes.
 * Needs    a 32-bit IEEE float (f32 in rlhf.h); <string.h> for memcpy. No heap, no stdio, no globals.
 * Never    calls libm, and never has two float operations that round in one expression: so all
 *          machines give the same bits.
 * Edges    16 bits: ties are rounded to even, subnormals are kept, overflow gives infinity, a NaN
 *          becomes quiet when it is narrowed (tests/unit/base.c). 4 bits: x on a threshold gets the
 *          lower code; a short last block has its own absmax; the unused half of the last byte is 0; a
 *          block of zeros gets the codes of 0 (7 in NF4); NaN and infinity are refused, with their
 *          index (tests/unit/quant.c). */
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

/* Adding 0x7FFF and the last kept bit rounds to nearest, ties to even. A carry goes into the
 * exponent, which is correct, even to infinity. A NaN keeps its upper bits and becomes quiet, so that
 * it cannot turn into infinity. */
uint16_t f32_to_bf16(f32 x) {
    uint32_t u = bits_of(x);
    uint32_t kept = (u + 0x7FFFu + (u >> 16 & 1u)) >> 16;
    return (uint16_t)((u & 0x7FFFFFFFu) > 0x7F800000u ? u >> 16 | 0x40u : kept);
}

/* A subnormal is its fraction * 2^-24, both exact. For other numbers the exponent's bias changes from 15 to
 * 127; infinity and NaN have exponent 31, which becomes 255. */
f32 f16_to_f32(uint16_t bits) {
    uint32_t sign = (uint32_t)(bits & 0x8000u) << 16, magnitude = bits & 0x7FFFu;
    uint32_t u = (magnitude << 13) + (112u << 23);
    f32 subnormal = (f32)(int32_t)magnitude * 0x1p-24f;
    if (magnitude >= 0x7C00u) u += 112u << 23;
    if (magnitude < 0x400u) u = bits_of(subnormal);
    return from_bits(sign | u);
}

/* Rounds as f32_to_bf16 does. Below 2^-14 the result is subnormal, a multiple of 2^-24: adding 0.5, whose
 * last bit is 2^-24, rounds to such a multiple. A carry out of the fraction goes into the exponent, also
 * from subnormal to normal and from 65504 to infinity. */
uint16_t f32_to_f16(f32 x) {
    uint32_t u = bits_of(x), sign = u >> 16 & 0x8000u, magnitude = u & 0x7FFFFFFFu;
    uint32_t half = (magnitude - (112u << 23) + 0xFFFu + (magnitude >> 13 & 1u)) >> 13;
    f32 subnormal = from_bits(magnitude) + 0.5f;
    if (magnitude < 113u << 23) half = bits_of(subnormal) - 0x3F000000u;
    if (magnitude >= 143u << 23) half = 0x7C00u;                           /* 2^16 and more become infinity */
    if (magnitude > 0x7F800000u) half = 0x7E00u | (magnitude >> 13 & 0x3FFu);   /* NaN, quiet */
    return (uint16_t)(sign | half);
}

/* The four functions above do not branch, so that a compiler vectorises these loops. */
void halves_widen(f32 *x, const uint16_t *half, int type, size_t n) {
    if (type == BF16) for (size_t i = 0; i < n; i++) x[i] = bf16_to_f32(half[i]);
    else for (size_t i = 0; i < n; i++) x[i] = f16_to_f32(half[i]);
}
void halves_narrow(uint16_t *half, const f32 *x, int type, size_t n) {
    if (type == BF16) for (size_t i = 0; i < n; i++) half[i] = f32_to_bf16(x[i]);
    else for (size_t i = 0; i < n; i++) half[i] = f32_to_f16(x[i]);
}
void halves_round(f32 *x, int type, size_t n) {
    if (type == BF16) for (size_t i = 0; i < n; i++) x[i] = bf16_to_f32(f32_to_bf16(x[i]));
    if (type == F16) for (size_t i = 0; i < n; i++) x[i] = f16_to_f32(f32_to_f16(x[i]));
}

void little_endian(void *words, size_t width, size_t n) {
    const uint16_t one = 1;
    unsigned char low;
    memcpy(&low, &one, 1);
    for (unsigned char *w = words; !low && n > 0; n--, w += width)
        for (size_t i = 0; i < width / 2; i++) {
            unsigned char byte = w[i];
            w[i] = w[width - 1 - i];
            w[width - 1 - i] = byte;
        }
}

/* ---- 4-bit weights ----
 * Each `block` consecutive weights are a block. They are divided by their largest magnitude, absmax, so that
 * they are in -1 .. 1; then each becomes the nearest of 16 values. bitsandbytes multiplies by 1/absmax
 * instead, which sometimes moves a weight to the other side of a threshold: so does this code. */

/* The values of NF4: 16 quantiles of a normal distribution, one of which is 0, scaled to -1 .. 1 (Dettmers
 * et al. 2023, appendix E). */
static const f32 nf4[16] = {
    -1.0f, -0.696192801f, -0.525073051f, -0.394917488f, -0.284441382f, -0.184773430f, -0.0910500363f, 0.0f,
    0.0795802996f, 0.160930201f, 0.246112302f, 0.337915242f, 0.440709829f, 0.562617004f, 0.722956836f, 1.0f };

/* The values of FP4: a sign bit (8), two bits of exponent and one of fraction, divided by the largest
 * value, 12. The codes are not in the order of their values. bitsandbytes' thresholds are rounded
 * decimals, not exact midpoints. */
static const f32 fp4[8] = { 0.0f, 1.0f / 192, 2.0f / 3, 1.0f, 1.0f / 3, 0.5f, 1.0f / 6, 0.25f };
static const f32 fp4_threshold[7] = { 0.00260417f, 0.0859375f, 0.20833333f, 0.29166667f, 0.4166667f,
                                      0.583333f, 0.8333333f };

size_t quant_blocks(size_t n, int block) { return n / (size_t)block + (n % (size_t)block != 0); }

void quant_table(f32 table[16], int kind) {
    for (int i = 0; i < 16; i++)
        table[i] = kind == QUANT_NF4 ? nf4[i] : i < 8 ? fp4[i] : 0.0f - fp4[i - 8];  /* code 8 is 0, not -0 */
}

/* Returns 1 / max(absmax, 1e-38), as bitsandbytes does in PyTorch: a block of zeros becomes 0 * 1e38, not
 * 0 * infinity, and so gets the codes of 0. */
static f32 reciprocal(f32 absmax) { return 1.0f / (absmax > 1e-38f ? absmax : 1e-38f); }

/* Returns the largest |x|. With the sign bit cleared, floats sort like their bits read as integers; infinity
 * and then NaN come last. */
static f32 largest_magnitude(const f32 *x, size_t n) {
    int32_t largest = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t magnitude = (int32_t)(bits_of(x[i]) & 0x7FFFFFFFu);
        largest = magnitude > largest ? magnitude : largest;
    }
    return from_bits((uint32_t)largest);
}

/* Finds the codes of v = x * inverse, in -1 .. 1. NF4: the code is the number of thresholds below v;
 * thresholds are the midpoints of the values. FP4: for c thresholds below |v|, the code is {0, 1, 6, 7, 4, 5,
 * 2, 3}[c] (if bit 1 of c is set, bit 2 is flipped), plus 8 if v < 0: a zero gets no sign.
 * The loops compare and do not branch: half of the branches would be predicted wrongly, and
 * comparisons can be vectorised. */
static void encode(int32_t *code, const f32 *x, f32 inverse, int kind, const f32 *threshold, size_t n) {
    if (kind == QUANT_NF4) for (size_t i = 0; i < n; i++) {
        f32 v = x[i] * inverse;
        int32_t count = 0;
        for (int t = 0; t < 15; t++) count += v > threshold[t];
        code[i] = count;
    } else for (size_t i = 0; i < n; i++) {
        f32 v = x[i] * inverse, magnitude = v < 0 ? -v : v;
        int32_t count = 0;
        for (int t = 0; t < 7; t++) count += magnitude > threshold[t];
        code[i] = (count ^ (count & 2) << 1) + 8 * (v < 0);
    }
}

/* Quantises a block of n weights, whose codes begin at a whole byte. Returns its absmax. If a weight is a
 * NaN or an infinity, absmax is one too, and nothing is packed. */
static f32 quantize_block(unsigned char *packed, const f32 *x, int kind, const f32 *threshold, size_t n) {
    enum { RUN = 64 };
    int32_t code[RUN + 1];
    f32 absmax = largest_magnitude(x, n), inverse = reciprocal(absmax);
    if (!(absmax <= FLT_MAX)) return absmax;
    for (size_t at = 0; at < n; at += RUN, packed += RUN / 2) {
        size_t run = n - at < RUN ? n - at : RUN;
        encode(code, x + at, inverse, kind, threshold, run);
        if (run % 2) code[run] = 0;
        for (size_t i = 0; i < (run + 1) / 2; i++)
            packed[i] = (unsigned char)(code[2 * i] << 4 | code[2 * i + 1]);
    }
    return absmax;
}

int quantize_4bit(unsigned char *packed, f32 *absmax, const f32 *x, size_t n, int block, int kind,
                  size_t *where) {
    f32 threshold[15];
    size_t size = (size_t)block, blocks;
    if (block < 32 || block > 4096 || (block & (block - 1)) != 0 || (kind != QUANT_NF4 && kind != QUANT_FP4))
        return E_ARGUMENT;
    if (kind == QUANT_FP4) memcpy(threshold, fp4_threshold, sizeof fp4_threshold);
    else for (int i = 0; i < 15; i++) {
        f32 sum = nf4[i] + nf4[i + 1];
        threshold[i] = sum * 0.5f;
    }
    blocks = quant_blocks(n, block);
    PARALLEL_FOR((double)n * 4)
    for (size_t b = 0; b < blocks; b++)
        absmax[b] = quantize_block(packed + b * size / 2, x + b * size, kind, threshold,
                                   n - b * size < size ? n - b * size : size);
    for (size_t b = 0; b < blocks; b++)
        if (!(absmax[b] <= FLT_MAX)) {
            size_t i = b * size;
            while (x[i] >= -FLT_MAX && x[i] <= FLT_MAX) i++;
            if (where) *where = i;
            return E_NUMBER;
        }
    return OK;
}

/* ---- double quantisation: absmax itself in 8 bits ----
 * absmax is never negative; d = absmax - mean has both signs, as the map has. In blocks of QUANT_NESTED, d
 * is divided by the block's largest |d| (Dettmers et al. 2023, section 3; the map: Dettmers et al. 2022,
 * dynamic tree quantisation). */

/* The positive values of the map: for i = 0 .. 6, the midpoints of 2^i equal cells of 0.1 .. 1, times
 * 10^(i-6). They are the bits that bitsandbytes stores, because these have the roundings of the vector
 * code that computed them. */
static const uint32_t dynamic[127] = {
    0x3513a3b7, 0x365a1a94, 0x370205ff, 0x37b24206, 0x38378034, 0x388aefb3, 0x38ba1f4b, 0x3923d70b,
    0x398ce705, 0x39c7e283, 0x3a016f01, 0x3a1eecc1, 0x3a3c6a80, 0x3a59e83e, 0x3a7765ff, 0x3aa7ef9d,
    0x3af1a9fc, 0x3b1db22d, 0x3b428f5c, 0x3b676c8a, 0x3b8624dd, 0x3b989374, 0x3bab020d, 0x3bbd70a4,
    0x3bcfdf3b, 0x3be24dd3, 0x3bf4bc6a, 0x3c039581, 0x3c0ccccd, 0x3c160418, 0x3c1f3b64, 0x3c3ae148,
    0x3c68f5c3, 0x3c8b851f, 0x3ca28f5c, 0x3cb9999a, 0x3cd0a3d7, 0x3ce7ae13, 0x3cfeb852, 0x3d0ae147,
    0x3d166667, 0x3d21eb85, 0x3d2d70a3, 0x3d38f5c3, 0x3d447ae1, 0x3d500000, 0x3d5b851f, 0x3d670a3d,
    0x3d728f5d, 0x3d7e147a, 0x3d84cccd, 0x3d8a8f5d, 0x3d9051eb, 0x3d96147b, 0x3d9bd70a, 0x3da1999a,
    0x3da75c28, 0x3dad1eb8, 0x3db2e148, 0x3db8a3d7, 0x3dbe6667, 0x3dc428f5, 0x3dc9eb85, 0x3ddb3334,
    0x3df80000, 0x3e0a6666, 0x3e18cccd, 0x3e273333, 0x3e359999, 0x3e440000, 0x3e526666, 0x3e60cccd,
    0x3e6f3334, 0x3e7d999a, 0x3e860000, 0x3e8d3334, 0x3e946666, 0x3e9b999a, 0x3ea2cccc, 0x3eaa0000,
    0x3eb13332, 0x3eb86666, 0x3ebf999a, 0x3ec6cccc, 0x3ece0000, 0x3ed53332, 0x3edc6666, 0x3ee3999a,
    0x3eeacccc, 0x3ef20000, 0x3ef93334, 0x3f003333, 0x3f03cccd, 0x3f076666, 0x3f0b0000, 0x3f0e999a,
    0x3f123334, 0x3f15cccd, 0x3f196666, 0x3f1d0000, 0x3f20999a, 0x3f243333, 0x3f27cccd, 0x3f2b6667,
    0x3f2f0000, 0x3f32999a, 0x3f363334, 0x3f39cccd, 0x3f3d6667, 0x3f410000, 0x3f44999a, 0x3f483333,
    0x3f4bcccc, 0x3f4f6666, 0x3f530000, 0x3f569999, 0x3f5a3333, 0x3f5dcccc, 0x3f616666, 0x3f650000,
    0x3f68999a, 0x3f6c3333, 0x3f6fcccc, 0x3f736666, 0x3f770000, 0x3f7a9999, 0x3f7e3333 };

/* Fills the map in ascending order: 127 negative values, 0, 127 positive ones, and 1. It has no -1. */
void quant_map(f32 map[256]) {
    for (int i = 0; i < 127; i++) {
        map[128 + i] = from_bits(dynamic[i]);
        map[126 - i] = -map[128 + i];
    }
    map[127] = 0;
    map[255] = 1;
}

/* Finds the index of the map's value that is nearest to each x (n); of two equally near values it takes
 * the one with the even index. Eight comparisons count the map's values below x. Each is made for all x
 * before the next, so that no comparison waits for the one before it. */
static void nearest(unsigned char *code, const f32 *x, const f32 *map, size_t n) {
    int32_t upper[QUANT_NESTED];    /* map[upper-1] < x <= map[upper]; x may be above the last value */
    memset(upper, 0, sizeof upper);
    for (int half = 128; half > 0; half /= 2)
        for (size_t i = 0; i < n; i++) upper[i] += half * (x[i] > map[upper[i] + half - 1]);
    for (size_t i = 0; i < n; i++) {
        int k = upper[i] ? upper[i] : 1;                /* x <= map[0] is below the first midpoint as well */
        f32 sum = map[k - 1] + map[k], middle = sum * 0.5f;
        code[i] = (unsigned char)(x[i] == middle ? k & ~1 : x[i] > middle ? k : k - 1);
    }
}

/* Quantises absmax to 8 bits. The sum for the mean is added from first to last in double, and the mean is
 * rounded once: bitsandbytes leaves the order open. */
void quantize_absmax(unsigned char *code, f32 *nested, f32 *offset, const f32 *map, const f32 *absmax,
                     size_t blocks) {
    double sum = 0;
    for (size_t b = 0; b < blocks; b++) sum += (double)absmax[b];
    f32 mean = blocks ? (f32)(sum / (double)blocks) : 0;
    *offset = mean;
    PARALLEL_FOR((double)blocks * 16)
    for (size_t first = 0; first < blocks; first += QUANT_NESTED) {
        size_t end = blocks - first < QUANT_NESTED ? blocks : first + QUANT_NESTED;
        f32 d[QUANT_NESTED], largest, inverse;
        for (size_t b = first; b < end; b++) d[b - first] = absmax[b] - mean;
        largest = largest_magnitude(d, end - first);
        inverse = reciprocal(largest);
        nested[first / QUANT_NESTED] = largest;
        for (size_t i = 0; i < end - first; i++) d[i] *= inverse;
        nearest(code + first, d, map, end - first);
    }
}

f32 quant_scale(const Quant *q, size_t b) {
    if (q->absmax) return q->absmax[b];
    f32 d = q->map[q->code[b]] * q->nested[b / QUANT_NESTED];
    return d + q->offset;
}

/* A block has at most 16 different weights: each is computed once and then looked up. */
void dequantize_4bit(f32 *x, const unsigned char *packed, const Quant *q, size_t at, size_t n) {
    size_t block = (size_t)q->block, end = at + n;
    while (at < end) {
        size_t b = at / block, stop = end - b * block < block ? end : (b + 1) * block;
        f32 scale = quant_scale(q, b), value[16];
        for (int i = 0; i < 16; i++) value[i] = q->table[i] * scale;
        if (at % 2) {                                   /* the range begins within a byte */
            *x++ = value[packed[at / 2] & 15];
            at++;
        }
        for (; at + 1 < stop; at += 2, x += 2) {
            unsigned two = packed[at / 2];
            x[0] = value[two >> 4];
            x[1] = value[two & 15];
        }
        if (at < stop) {                                /* the range ends within a byte */
            *x++ = value[packed[at / 2] >> 4];
            at++;
        }
    }
}
