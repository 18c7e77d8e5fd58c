/* fast_arm.c - the tile of ops.c's product for 64-bit ARM: NEON, which every such processor has.
 *
 * Shape    8 x 12: twenty-four accumulators of 4 floats, three registers of B, two of A: twenty-nine of the thirty-two. Each step of k
 *          loads 12 numbers of B and 8 of A, for 192 operations; FMLA takes its factor straight from one lane of A.
 * Order    an accumulator adds its products in order of k, each in one rounding: the bits of every other fused twin.
 * Needs    arm_neon.h, so gcc or clang. For other compilers and machines the file holds a kernel that is never here. */
#include "rlhf.h"

#if defined(FAST) && defined(__aarch64__) && defined(__ARM_NEON) && (defined(__GNUC__) || defined(__clang__)) && !defined(__TINYC__)
#include <arm_neon.h>

enum { ROWS = 8, COLUMNS = 12, LANES = 4 };

/* Row i of the tile is three variables: left_i, middle_i, right_i (gcc keeps an array of them in memory). Its number of A is a lane of
 * `upper` or `lower`. */
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

/* a[0], a[row], a[2*row], a[3*row], as many of them as there are rows */
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

/* The first M rows of a tile; element (i,k) of a at a[i*row + k*step]. Inlined where M, and row or step, are known. */
__attribute__((always_inline))
static inline void neon_product(int M, float *c, size_t stride, const float *a, size_t row, size_t step, const float *b, int k, int add) {
    EACH_ROW(START)
    for (; k > 0; k--, a += step, b += COLUMNS) {
        float32x4_t upper = four(a, row, M), lower = four(a + 4 * row, row, M - 4);
        float32x4_t b_left = vld1q_f32(b), b_middle = vld1q_f32(b + 4), b_right = vld1q_f32(b + 8);
        EACH_ROW(STEP)
    }
    EACH_ROW(STORE)
}

static void neon_tile(float *c, size_t stride, const float *a, const float *b, int k, int add) { neon_product(ROWS, c, stride, a, 1, ROWS, b, k, add); }
static void neon_tile_in_place(float *c, size_t stride, const float *a, size_t row, const float *b, int M, int k, int add) {
    KNOWN_ROWS(M, neon_product, c, stride, a, row, 1, b, k, add)
}

/* The transpose of 4 rows of 4 numbers: rows two apart are zipped, then the results. */
static inline void transpose(float32x4_t r[LANES]) {
    float32x4_t even_lo = vzip1q_f32(r[0], r[2]), even_hi = vzip2q_f32(r[0], r[2]), odd_lo = vzip1q_f32(r[1], r[3]), odd_hi = vzip2q_f32(r[1], r[3]);
    r[0] = vzip1q_f32(even_lo, odd_lo);
    r[1] = vzip2q_f32(even_lo, odd_lo);
    r[2] = vzip1q_f32(even_hi, odd_hi);
    r[3] = vzip2q_f32(even_hi, odd_hi);
}

/* p[k*width + i] = a[i*row + k]: four rows and four steps at a time, what is left one by one */
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
            for (int i = 0; i < some; i++) p[(size_t)k * (size_t)width + (size_t)i] = a[(size_t)i * row + (size_t)k];
    }
}

const Kernel kernel_neon = { "neon", ROWS, COLUMNS, 1, neon_here, neon_tile, neon_tile_in_place, NULL, 0, 0, NULL, neon_interleave, NULL, NULL };
#else
static int here(void) { return 0; }
const Kernel kernel_neon = { "neon", 1, 1, 1, here, NULL, NULL, NULL, 0, 0, NULL, NULL, NULL, NULL };
#endif
