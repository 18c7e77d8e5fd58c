/* fast_x86.c - the tile of ops.c's product for x86-64: AVX, and AVX2 with fused multiply-add.
 *
 * Shape    6 x 16: twelve accumulators of 8 floats, two of B, one of A: fifteen of the sixteen registers. Each step of k loads 16 numbers
 *          of B, and broadcasts 6 of A, for 192 operations.
 * Order    an accumulator adds its products in order of k, so a twin of another width gives the same bits. The AVX tile rounds product
 *          and sum each on its own: its bits are the plain tile's. The AVX2 tile rounds once.
 * Needs    a compiler with GNU attributes (gcc, clang), which compile these functions alone for the newer processor; for other
 *          compilers and machines the file holds kernels that are never here. */
#include "rlhf.h"

#if defined(FAST) && defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__)) && !defined(__TINYC__)
#include <immintrin.h>

enum { ROWS = 6, COLUMNS = 16 };

/* Row i of the tile is two variables, left_i and right_i: gcc keeps an array of them in memory. */
#define EACH_ROW(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5)
#define START(i) \
    __m256 left_##i = add ? _mm256_loadu_ps(c + i * stride) : _mm256_setzero_ps(); \
    __m256 right_##i = add ? _mm256_loadu_ps(c + i * stride + 8) : _mm256_setzero_ps();
#define STEP(i) \
    ai = _mm256_broadcast_ss(a + i); \
    left_##i = _mm256_add_ps(left_##i, _mm256_mul_ps(ai, b_left)); \
    right_##i = _mm256_add_ps(right_##i, _mm256_mul_ps(ai, b_right));
#define FUSED_STEP(i) \
    ai = _mm256_broadcast_ss(a + i); \
    left_##i = _mm256_fmadd_ps(ai, b_left, left_##i); \
    right_##i = _mm256_fmadd_ps(ai, b_right, right_##i);
#define STORE(i) \
    _mm256_storeu_ps(c + i * stride, left_##i); \
    _mm256_storeu_ps(c + i * stride + 8, right_##i);

static int avx_here(void) { return __builtin_cpu_supports("avx"); }
static int avx2_here(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

__attribute__((target("avx")))
static void avx_tile(float *c, size_t stride, const float *a, const float *b, int k, int add) {
    EACH_ROW(START)
    for (; k > 0; k--, a += ROWS, b += COLUMNS) {
        __m256 b_left = _mm256_loadu_ps(b), b_right = _mm256_loadu_ps(b + 8), ai;
        EACH_ROW(STEP)
    }
    EACH_ROW(STORE)
}

__attribute__((target("avx2,fma")))
static void avx2_tile(float *c, size_t stride, const float *a, const float *b, int k, int add) {
    EACH_ROW(START)
    for (; k > 0; k--, a += ROWS, b += COLUMNS) {
        __m256 b_left = _mm256_loadu_ps(b), b_right = _mm256_loadu_ps(b + 8), ai;
        EACH_ROW(FUSED_STEP)
    }
    EACH_ROW(STORE)
}

const Kernel kernel_avx2 = { "avx2", ROWS, COLUMNS, 1, avx2_here, avx2_tile };
const Kernel kernel_avx = { "avx", ROWS, COLUMNS, 0, avx_here, avx_tile };
#else
static int here(void) { return 0; }
const Kernel kernel_avx2 = { "avx2", 1, 1, 1, here, NULL };
const Kernel kernel_avx = { "avx", 1, 1, 0, here, NULL };
#endif
