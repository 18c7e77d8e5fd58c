/* quant.c - 16-bit number formats to float32 and back, by integer arithmetic on the bits.
 * Source   bfloat16: the upper half of an IEEE 754 binary32. float16: IEEE 754 binary16, 1 sign, 5 exponent (bias 15), 10 fraction bits.
 * Needs    a 32-bit IEEE float (f32 in rlhf.h); <string.h> for memcpy. No heap, no stdio, no globals.
 * Never    uses the processor's rounding mode or float arithmetic: the same bits on every machine.
 * Edges    ties to even, subnormals, overflow to infinity, NaN (kept, made quiet when narrowed): all in tests/base.c. */
#include "rlhf.h"

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
