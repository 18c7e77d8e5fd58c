/* fast/arm.c - a kernel for 64-bit ARM with NEON, which every such processor has: the tile of a product,
 * packing, and the look-up of 4-bit weights.
 *
 * Shape    A tile is 8 x 12. It uses twenty-nine of the thirty-two registers: twenty-four accumulators of
 *          4 floats, three for B, two for A. Each step of k loads 12 numbers of B and 8 of A, for 192
 *          operations; FMLA takes its factor straight from one lane of A. For few rows of x a tile has
 *          8 rows and 8 columns: sixteen accumulators, eight registers for W, one for x.
 * Order    An accumulator adds its products in order of k, each with one rounding: its bits are those of
 *          every other fused kernel.
 * Needs    arm_neon.h, so gcc or clang; a little-endian processor, because the bytes that are looked up
 *          would otherwise be floats in the wrong byte order. For other compilers and machines the file
 *          has a kernel whose here() returns 0. */
#include "fast.h"

#if defined(FAST) && defined(__aarch64__) && defined(__ARM_NEON) && \
    (defined(__GNUC__) || defined(__clang__)) && !defined(__TINYC__) && \
    !defined(__AARCH64EB__)
#include <arm_neon.h>

enum { ROWS = 8, COLUMNS = 12, LANES = 4 };

/* Row i of the tile is in three variables, left_i, middle_i and right_i, because gcc would keep an array
 * of them in memory. Row i's number of A is a lane of `upper` or `lower`. */
#define EACH_ROW(DO) DO(0, upper, 0) DO(1, upper, 1) DO(2, upper, 2) DO(3, upper, 3) \
                     DO(4, lower, 0) DO(5, lower, 1) DO(6, lower, 2) DO(7, lower, 3)
#define START(i, half, lane) \
    float32x4_t left_##i = vdupq_n_f32(0), middle_##i = left_##i, right_##i = left_##i; \
    if (M > i && add) { \
        left_##i = vld1q_f32(c + i * stride); \
        middle_##i = vld1q_f32(c + i * stride + 4); \
        right_##i = vld1q_f32(c + i * stride + 8); \
    }
#define STEP(i, half, lane) \
    if (M > i) { \
        left_##i = vfmaq_laneq_f32(left_##i, b_left, half, lane); \
        middle_##i = vfmaq_laneq_f32(middle_##i, b_middle, half, lane); \
        right_##i = vfmaq_laneq_f32(right_##i, b_right, half, lane); \
    }
#define STORE(i, half, lane) \
    if (M > i) { \
        vst1q_f32(c + i * stride, left_##i); \
        vst1q_f32(c + i * stride + 4, middle_##i); \
        vst1q_f32(c + i * stride + 8, right_##i); \
    }

static int neon_here(void) { return 1; }

/* Returns a[0], a[row], a[2*row], a[3*row]. If row is not 1, only the first `rows` of them are read, and
 * 0 replaces the others. */
__attribute__((always_inline))
static inline float32x4_t four(const float *a, size_t row, int rows) {
    float32x4_t r = vdupq_n_f32(0);
    if (row == 1) return vld1q_f32(a);
    if (rows > 0) r = vld1q_lane_f32(a, r, 0);
    if (rows > 1) r = vld1q_lane_f32(a + row, r, 1);
    if (rows > 2) r = vld1q_lane_f32(a + 2 * row, r, 2);
    if (rows > 3) r = vld1q_lane_f32(a + 3 * row, r, 3);
    return r;
}

/* Computes the first M rows of a tile. Element (i,k) of a is a[i*row + k*step], element (k,j) of b is
 * b[k*b_row + j]. It is inlined with constant M, and constant row or step. */
__attribute__((always_inline))
static inline void neon_product(int M, float *c, size_t stride, const float *a, size_t row, size_t step,
                                const float *b, size_t b_row, int k, int add) {
    EACH_ROW(START)
    for (; k > 0; k--, a += step, b += b_row) {
        float32x4_t upper = four(a, row, M), lower = four(a + 4 * row, row, M - 4);
        float32x4_t b_left = vld1q_f32(b), b_middle = vld1q_f32(b + 4), b_right = vld1q_f32(b + 8);
        EACH_ROW(STEP)
    }
    EACH_ROW(STORE)
}

static void neon_tile(float *c, size_t stride, const float *a, const float *b, int k, int add) {
    neon_product(ROWS, c, stride, a, 1, ROWS, b, COLUMNS, k, add);
}
static void neon_tile_in_place(float *c, size_t stride, const float *a, size_t row, const float *b,
                               size_t b_row, int M, int k, int add) {
    KNOWN_ROWS(M, neon_product, c, stride, a, row, 1, b, b_row, k, add)
}

/* Transposes 4 rows of 4 numbers: zips each two rows that are two apart, then zips the results. */
static inline void transpose(float32x4_t r[LANES]) {
    float32x4_t even_lo = vzip1q_f32(r[0], r[2]), even_hi = vzip2q_f32(r[0], r[2]),
        odd_lo = vzip1q_f32(r[1], r[3]), odd_hi = vzip2q_f32(r[1], r[3]);
    r[0] = vzip1q_f32(even_lo, odd_lo);
    r[1] = vzip2q_f32(even_lo, odd_lo);
    r[2] = vzip1q_f32(even_hi, odd_hi);
    r[3] = vzip2q_f32(even_hi, odd_hi);
}

/* Sets p[k*width + i] = a[i*row + k]: four steps of four rows at a time, and the rest one by one. */
static void neon_interleave(float *p, int width, const float *a, size_t row, int rows, int K) {
    for (; rows > 0; rows -= LANES, p += LANES, a += LANES * row) {
        int k = 0, some = rows < LANES ? rows : LANES;
        for (; k + LANES <= K && some == LANES; k += LANES) {
            float32x4_t r[LANES];
            for (int i = 0; i < LANES; i++) r[i] = vld1q_f32(a + (size_t)i * row + k);
            transpose(r);
            for (int i = 0; i < LANES; i++) vst1q_f32(p + (size_t)(k + i) * (size_t)width, r[i]);
        }
        for (; k < K; k++)
            for (int i = 0; i < some; i++)
                p[(size_t)k * (size_t)width + (size_t)i] = a[(size_t)i * row + (size_t)k];
    }
}

/* Computes up to eight rows of x times eight rows of W. Row m of C is two registers, left_m and right_m,
 * each with a lane for each of four rows of W. The loop takes four steps of k at a time: it loads four
 * numbers of each row of W and transposes them, so that a register holds one step of four rows. Each step
 * multiplies by one lane of row m of x. */
#define FEW_START(m, ...) \
    float32x4_t left_##m = vdupq_n_f32(0), right_##m = left_##m; \
    if (M > m && add) { \
        left_##m = vld1q_f32(c + m * stride); \
        right_##m = vld1q_f32(c + m * stride + 4); \
    }
#define FEW_LANE(m, xm, lane) \
    left_##m = vfmaq_laneq_f32(left_##m, w_left[lane], xm, lane); \
    right_##m = vfmaq_laneq_f32(right_##m, w_right[lane], xm, lane);
#define FEW_STEPS(m, ...) \
    if (M > m) { \
        float32x4_t x4 = vld1q_f32(x + m * x_row); \
        FEW_LANE(m, x4, 0) FEW_LANE(m, x4, 1) FEW_LANE(m, x4, 2) FEW_LANE(m, x4, 3) \
    }
#define FEW_LAST(m, ...) \
    if (M > m) { \
        left_##m = vfmaq_n_f32(left_##m, w_left[0], x[m * x_row]); \
        right_##m = vfmaq_n_f32(right_##m, w_right[0], x[m * x_row]); \
    }
#define FEW_STORE(m, ...) \
    if (M > m) { \
        vst1q_f32(c + m * stride, left_##m); \
        vst1q_f32(c + m * stride + 4, right_##m); \
    }

/* Returns four 16-bit floats as floats. A bf16 is the upper half of a float. */
__attribute__((always_inline))
static inline float32x4_t widened(uint16x4_t half, int type) {
    return type == F16 ? vcvt_f32_f16(vreinterpret_f16_u16(half))
        : vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(half), 16));
}

/* Returns four numbers of a row of W as floats. */
__attribute__((always_inline))
static inline float32x4_t four_of_one(const void *w, int type) {
    return type == F32 ? vld1q_f32(w) : widened(vld1_u16(w), type);
}

/* Returns one number of each of four rows, `row` numbers apart, as floats: for the last steps of k. */
__attribute__((always_inline))
static inline float32x4_t one_of_four(const void *w, size_t row, int type) {
    const uint16_t *half = w;
    uint16x4_t r = vdup_n_u16(0);
    if (type == F32) return four(w, row, LANES);
    r = vld1_lane_u16(half, r, 0);
    r = vld1_lane_u16(half + row, r, 1);
    r = vld1_lane_u16(half + 2 * row, r, 2);
    r = vld1_lane_u16(half + 3 * row, r, 3);
    return widened(r, type);
}

__attribute__((always_inline))
static inline void few_product(int M, int type, float *c, size_t stride, const float *x, size_t x_row,
                               const void *weights, size_t w_row, int k, int add) {
    const size_t size = type == F32 ? sizeof(float) : sizeof(uint16_t), row = w_row * size;
    const char *w = weights;
    /* [step]: w_left has rows 0 to 3 of W, w_right has rows 4 to 7 */
    float32x4_t w_left[LANES], w_right[LANES];
    EACH_ROW(FEW_START)
    for (; k >= LANES; k -= LANES, w += LANES * size, x += LANES) {
        for (int i = 0; i < LANES; i++) {
            w_left[i] = four_of_one(w + (size_t)i * row, type);
            w_right[i] = four_of_one(w + (size_t)(i + LANES) * row, type);
        }
        transpose(w_left);
        transpose(w_right);
        EACH_ROW(FEW_STEPS)
    }
    for (; k > 0; k--, w += size, x++) {
        w_left[0] = one_of_four(w, w_row, type);
        w_right[0] = one_of_four(w + LANES * row, w_row, type);
        EACH_ROW(FEW_LAST)
    }
    EACH_ROW(FEW_STORE)
}

static void neon_few(float *c, size_t stride, const float *x, size_t x_row, const void *w, size_t w_row,
                     int type, int M, int k, int add) {
    if (type == F32) KNOWN_ROWS(M, few_product, F32, c, stride, x, x_row, w, w_row, k, add)
    else if (type == BF16) KNOWN_ROWS(M, few_product, BF16, c, stride, x, x_row, w, w_row, k, add)
    else KNOWN_ROWS(M, few_product, F16, c, stride, x, x_row, w, w_row, k, add)
}

/* Returns a table of 16 values as four tables of bytes: of the first bytes of the values, of the
 * second bytes, and so on. The instruction TBL looks up 16 codes at a time, but finds one byte for
 * each: four tables give the four bytes of a float. LD4 splits an array of floats in this way, and ST4
 * joins four results to floats. */
static inline uint8x16x4_t four_tables(const f32 *values) {
    return vld4q_u8((const unsigned char *)(const void *)values);
}

/* Looks up sixteen 4-bit codes; the first code of a byte is its high half. */
static inline void look_up(float *out, uint8x16x4_t table, uint8x8_t packed) {
    uint8x8_t even = vshr_n_u8(packed, 4), odd = vand_u8(packed, vdup_n_u8(15));
    uint8x16_t code = vcombine_u8(vzip1_u8(even, odd), vzip2_u8(even, odd));
    for (int b = 0; b < 4; b++) table.val[b] = vqtbl1q_u8(table.val[b], code);
    vst4q_u8((unsigned char *)(void *)out, table);
}

static void neon_unpack(float *out, const unsigned char *packed, const f32 *values, int block, int n) {
    for (; n > 0; n -= block, values += 16) {
        uint8x16x4_t table = four_tables(values);
        int i = 0;
        for (; i + 16 <= block; i += 16, packed += 8, out += 16) look_up(out, table, vld1_u8(packed));
        if (i < block) {                                        /* eight codes are left */
            unsigned char last[8] = { 0 };
            float values_of_last[16];
            memcpy(last, packed, 4);
            look_up(values_of_last, table, vld1_u8(last));
            memcpy(out, values_of_last, 8 * sizeof *out);
            packed += 4;
            out += 8;
        }
    }
}

/* Interleaves four registers by bytes: the first byte of each, then the second byte of each, and so on.
 * ST4 does this while it writes to memory; here the results stay in registers. */
static inline void weave(uint8x16_t r[4]) {
    uint8x16_t even_lo = vzip1q_u8(r[0], r[2]), even_hi = vzip2q_u8(r[0], r[2]),
        odd_lo = vzip1q_u8(r[1], r[3]), odd_hi = vzip2q_u8(r[1], r[3]);
    r[0] = vzip1q_u8(even_lo, odd_lo);
    r[1] = vzip2q_u8(even_lo, odd_lo);
    r[2] = vzip1q_u8(even_hi, odd_hi);
    r[3] = vzip2q_u8(even_hi, odd_hi);
}

/* Rounds to the nearest bf16, a tie to the even one; x is finite. */
static inline float32x4_t to_bf16(float32x4_t x) {
    uint32x4_t bits = vreinterpretq_u32_f32(x), odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    bits = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7FFF)));
    return vreinterpretq_f32_u32(vandq_u32(bits, vdupq_n_u32(0xFFFF0000)));
}

/* Unpacks eight rows of 4-bit codes as columns of floats. It transposes the bytes of the rows first, so
 * that the look-ups give one column after another. */
__attribute__((always_inline))
static inline void unpack_columns(float *p, size_t width, const unsigned char *packed, size_t row_bytes,
                                  const f32 *scale, const f32 *table, int block, int rounded, int K) {
    const uint8x16x4_t byte = four_tables(table);
    for (int k = 0; k < K; k += 32, packed += 16) {             /* 16 bytes of a row: 32 codes */
        const f32 *scales = scale + (size_t)(k / block) * 8;
        float32x4_t upper = vld1q_f32(scales), lower = vld1q_f32(scales + 4);
        uint8x16_t rows0246[4], rows1357[4];
        for (int i = 0; i < 4; i++) {
            rows0246[i] = vld1q_u8(packed + (size_t)(2 * i) * row_bytes);
            rows1357[i] = vld1q_u8(packed + (size_t)(2 * i + 1) * row_bytes);
        }
        weave(rows0246);
        weave(rows1357);
        for (int i = 0; i < 8; i++, p += 4 * width) {  /* two bytes of each row at a time: four columns */
            uint8x16_t two = i % 2 ? vzip2q_u8(rows0246[i / 2], rows1357[i / 2])
                : vzip1q_u8(rows0246[i / 2], rows1357[i / 2]);
            for (int odd = 0; odd < 2; odd++) {                 /* codes of even k are in the high halves */
                uint8x16_t code = odd ? vandq_u8(two, vdupq_n_u8(15)) : vshrq_n_u8(two, 4);
                uint8x16_t value[4] = { vqtbl1q_u8(byte.val[0], code), vqtbl1q_u8(byte.val[1], code),
                                        vqtbl1q_u8(byte.val[2], code), vqtbl1q_u8(byte.val[3], code) };
                weave(value);
                for (int j = 0; j < 2; j++) {
                    float *to = p + (size_t)(2 * j + odd) * width;
                    float32x4_t a = vmulq_f32(vreinterpretq_f32_u8(value[2 * j]), upper),
                        b = vmulq_f32(vreinterpretq_f32_u8(value[2 * j + 1]), lower);
                    vst1q_f32(to, rounded ? to_bf16(a) : a);
                    vst1q_f32(to + 4, rounded ? to_bf16(b) : b);
                }
            }
        }
    }
}
static void neon_unpack_columns(float *p, size_t width, const unsigned char *packed, size_t row_bytes,
                                const f32 *scale, const f32 *table, int block, int rounded, int K) {
    if (rounded) unpack_columns(p, width, packed, row_bytes, scale, table, block, 1, K);
    else unpack_columns(p, width, packed, row_bytes, scale, table, block, 0, K);
}

const Kernel kernel_neon = { "neon", ROWS, COLUMNS, 1, neon_here, neon_tile, neon_tile_in_place, neon_few, 0,
                             0, NULL, neon_interleave,
                             neon_unpack, neon_unpack_columns };
#else
static int here(void) { return 0; }
const Kernel kernel_neon = { "neon", 1, 1, 1, here, NULL, NULL, NULL, 0, 0, NULL, NULL, NULL, NULL };
#endif
