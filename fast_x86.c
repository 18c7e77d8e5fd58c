/* fast_x86.c - ops.c's product for x86-64, AVX, and AVX2 with fused multiply-add: its tile, packing, and the look-up of 4-bit weights.
 *
 * Shape    6 x 16: twelve accumulators of 8 floats, two of B, one of A: fifteen of the sixteen registers. Each step of k loads 16 numbers
 *          of B, and broadcasts 6 of A, for 192 operations. For up to eight columns 12 x 8, which wastes fewer.
 * Order    an accumulator adds its products in order of k, so a twin of another width gives the same bits. The AVX tile rounds product
 *          and sum each on its own: its bits are the plain tile's. The AVX2 tile rounds once.
 * Needs    a compiler with GNU attributes (gcc, clang), which compile these functions alone for the newer processor; for other
 *          compilers and machines the file holds kernels that are never here. */
#include "rlhf.h"

#if defined(FAST) && defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__)) && !defined(__TINYC__)
#include <immintrin.h>

enum { ROWS = 6, COLUMNS = 16, NARROW_ROWS = 12, LINE = 16 /* floats of a cache line */ };

/* Row i of the tile is two variables, left_i and right_i: gcc keeps an array of them in memory. */
#define EACH_ROW(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5)
#define START(i) \
    _mm_prefetch((const char *)(c + (ROWS + i) * stride), _MM_HINT_T0);        /* the next tile's row */ \
    __m256 left_##i = add ? _mm256_loadu_ps(c + i * stride) : _mm256_setzero_ps(); \
    __m256 right_##i = add ? _mm256_loadu_ps(c + i * stride + 8) : _mm256_setzero_ps();
#define STEP(i) \
    ai = _mm256_broadcast_ss(a + i * row); \
    left_##i = _mm256_add_ps(left_##i, _mm256_mul_ps(ai, b_left)); \
    right_##i = _mm256_add_ps(right_##i, _mm256_mul_ps(ai, b_right));
#define FUSED_STEP(i) \
    ai = _mm256_broadcast_ss(a + i * row); \
    left_##i = _mm256_fmadd_ps(ai, b_left, left_##i); \
    right_##i = _mm256_fmadd_ps(ai, b_right, right_##i);
#define EACH_OF_12(DO) EACH_ROW(DO) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define NARROW_START(i) __m256 sum_##i = add ? _mm256_loadu_ps(c + i * stride) : _mm256_setzero_ps();
#define NARROW_STEP(i) sum_##i = _mm256_add_ps(sum_##i, _mm256_mul_ps(_mm256_broadcast_ss(a + i * row), b_all));
#define NARROW_FUSED_STEP(i) sum_##i = _mm256_fmadd_ps(_mm256_broadcast_ss(a + i * row), b_all, sum_##i);
#define NARROW_STORE(i) _mm256_storeu_ps(c + i * stride, sum_##i);
/* W comes from far: the line of the next tile's row that lies where this one's does. */
#define AHEAD(i) _mm_prefetch((const char *)(a + (i + ROWS) * row), _MM_HINT_T0);
#define NARROW_AHEAD(i) _mm_prefetch((const char *)(a + (i + NARROW_ROWS) * row), _MM_HINT_T0);
#define STORE(i) \
    _mm256_storeu_ps(c + i * stride, left_##i); \
    _mm256_storeu_ps(c + i * stride + 8, right_##i);

static int avx_here(void) { return __builtin_cpu_supports("avx"); }
static int avx2_here(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

/* Element (i,k) of a at a[i*row + k*step]. Inlined where row and step are known. */
__attribute__((target("avx"), always_inline))
static inline void avx_product(float *c, size_t stride, const float *a, size_t row, size_t step, const float *b, int k, int add) {
    EACH_ROW(START)
    for (int some; k > 0; k -= some) {
        some = k;
        if (step == 1) {
            some = k < LINE ? k : LINE;
            EACH_ROW(AHEAD)
        }
        for (int i = 0; i < some; i++, a += step, b += COLUMNS) {
            __m256 b_left = _mm256_loadu_ps(b), b_right = _mm256_loadu_ps(b + 8), ai;
            EACH_ROW(STEP)
        }
    }
    EACH_ROW(STORE)
}

__attribute__((target("avx2,fma"), always_inline))
static inline void avx2_product(float *c, size_t stride, const float *a, size_t row, size_t step, const float *b, int k, int add) {
    EACH_ROW(START)
    for (int some; k > 0; k -= some) {
        some = k;
        if (step == 1) {
            some = k < LINE ? k : LINE;
            EACH_ROW(AHEAD)
        }
        for (int i = 0; i < some; i++, a += step, b += COLUMNS) {
            __m256 b_left = _mm256_loadu_ps(b), b_right = _mm256_loadu_ps(b + 8), ai;
            EACH_ROW(FUSED_STEP)
        }
    }
    EACH_ROW(STORE)
}

__attribute__((target("avx")))
static void avx_tile(float *c, size_t stride, const float *a, const float *b, int k, int add) {
    avx_product(c, stride, a, 1, ROWS, b, k, add);
}
__attribute__((target("avx")))
static void avx_tile_in_place(float *c, size_t stride, const float *a, size_t row, const float *b, int k, int add) {
    avx_product(c, stride, a, row, 1, b, k, add);
}
__attribute__((target("avx2,fma")))
static void avx2_tile(float *c, size_t stride, const float *a, const float *b, int k, int add) {
    avx2_product(c, stride, a, 1, ROWS, b, k, add);
}
__attribute__((target("avx2,fma")))
static void avx2_tile_in_place(float *c, size_t stride, const float *a, size_t row, const float *b, int k, int add) {
    avx2_product(c, stride, a, row, 1, b, k, add);
}

/* Twelve rows of eight: twelve accumulators too, for up to eight columns. */
__attribute__((target("avx")))
static void avx_narrow(float *c, size_t stride, const float *a, size_t row, const float *b, int k, int add) {
    EACH_OF_12(NARROW_START)
    for (int some; k > 0; k -= some) {
        some = k < LINE ? k : LINE;
        EACH_OF_12(NARROW_AHEAD)
        for (int i = 0; i < some; i++, a++, b += 8) {
            __m256 b_all = _mm256_loadu_ps(b);
            EACH_OF_12(NARROW_STEP)
        }
    }
    EACH_OF_12(NARROW_STORE)
}
__attribute__((target("avx2,fma")))
static void avx2_narrow(float *c, size_t stride, const float *a, size_t row, const float *b, int k, int add) {
    EACH_OF_12(NARROW_START)
    for (int some; k > 0; k -= some) {
        some = k < LINE ? k : LINE;
        EACH_OF_12(NARROW_AHEAD)
        for (int i = 0; i < some; i++, a++, b += 8) {
            __m256 b_all = _mm256_loadu_ps(b);
            EACH_OF_12(NARROW_FUSED_STEP)
        }
    }
    EACH_OF_12(NARROW_STORE)
}

/* Eight codes at a time: each to the low end of a lane of its own, where three bits choose one of eight values, and the fourth which eight. */
__attribute__((target("avx2")))
static void avx2_unpack(float *out, const unsigned char *packed, const f32 *values, int block, int n) {
    const __m256i shift = _mm256_setr_epi32(4, 0, 12, 8, 20, 16, 28, 24);
    for (; n > 0; n -= block, values += 16) {
        __m256 low = _mm256_loadu_ps(values), high = _mm256_loadu_ps(values + 8);
        for (int i = 0; i < block; i += 8, packed += 4, out += 8) {
            int four;
            memcpy(&four, packed, sizeof four);
            __m256i code = _mm256_srlv_epi32(_mm256_set1_epi32(four), shift);
            __m256 fourth = _mm256_castsi256_ps(_mm256_slli_epi32(code, 28));   /* in the sign, which is what blendv looks at */
            _mm256_storeu_ps(out, _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, code), _mm256_permutevar8x32_ps(high, code), fourth));
        }
    }
}

/* The transpose of 8 rows of 8 numbers: pairs, fours, halves. */
__attribute__((target("avx")))
static inline void transpose(__m256 r[8]) {
    __m256 t[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xEE);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xEE);
    }
    for (int i = 0; i < 4; i++) t[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
    for (int i = 0; i < 4; i++) t[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
    for (int i = 0; i < 8; i++) r[i] = t[i];
}

/* p[k*width + i] = a[i*row + k]: eight rows, or the six of a tile, and eight steps at a time */
__attribute__((target("avx")))
static void avx_interleave(float *p, int width, const float *a, size_t row, int rows, int K) {
    for (; rows > 0; rows -= 8, p += 8, a += 8 * row) {
        int k = 0, some = rows < 8 ? rows : 8;
        for (; k + 8 <= K && (some == 8 || some == ROWS); k += 8) {
            __m256 r[8];
            for (int i = 0; i < ROWS; i++) r[i] = _mm256_loadu_ps(a + (size_t)i * row + k);
            for (int i = ROWS; i < 8; i++) r[i] = some == 8 ? _mm256_loadu_ps(a + (size_t)i * row + k) : _mm256_setzero_ps();
            transpose(r);
            for (int i = 0; i < 8; i++) {
                float *to = p + (size_t)(k + i) * (size_t)width;
                if (some == 8) _mm256_storeu_ps(to, r[i]);
                else {
                    _mm_storeu_ps(to, _mm256_castps256_ps128(r[i]));
                    _mm_storel_pi((__m64 *)(to + 4), _mm256_extractf128_ps(r[i], 1));
                }
            }
        }
        for (; k < K; k++)
            for (int i = 0; i < some; i++) p[(size_t)k * (size_t)width + (size_t)i] = a[(size_t)i * row + (size_t)k];
    }
}

const Kernel kernel_avx2 = { "avx2", ROWS, COLUMNS, 1, avx2_here, avx2_tile, avx2_tile_in_place, NARROW_ROWS, 8, avx2_narrow, avx_interleave, avx2_unpack };
const Kernel kernel_avx = { "avx", ROWS, COLUMNS, 0, avx_here, avx_tile, avx_tile_in_place, NARROW_ROWS, 8, avx_narrow, avx_interleave, NULL };
#else
static int here(void) { return 0; }
const Kernel kernel_avx2 = { "avx2", 1, 1, 1, here, NULL, NULL, 0, 0, NULL, NULL, NULL };
const Kernel kernel_avx = { "avx", 1, 1, 0, here, NULL, NULL, 0, 0, NULL, NULL, NULL };
#endif
