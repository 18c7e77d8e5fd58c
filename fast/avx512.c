/* fast/avx512.c - a kernel for x86-64 with AVX-512.
 *
 * Shape    A tile is 8 x 48. It uses twenty-eight of the thirty-two registers: twenty-four accumulators of
 *          16 floats, three for B, one for A. Each step of k loads 48 numbers of B and broadcasts 8 of A,
 *          for 768 operations. The narrow tile is 16 x 16. Each of its multiply-adds broadcasts its own
 *          number of A, so that there are as many loads as operations. But its columns are rows of x, and
 *          if these are few, a narrow tile leaves few columns unused.
 * Order    An accumulator adds its products in order of k, each with one rounding: its bits are those of
 *          every other fused kernel.
 * Needs    A compiler with GNU attributes (gcc, clang), which compiles these functions alone for the newer
 *          processor. For other compilers and machines the file has a kernel whose here() returns 0. Only
 *          the foundation, AVX-512F, is used: every AVX-512 processor has it.
 * Edges    A processor may have AVX-512 while the system does not save its registers:
 *          __builtin_cpu_supports checks both. */
#include "fast.h"

#if defined(FAST) && defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__)) && !defined(__TINYC__)
#include <immintrin.h>

enum { ROWS = 8, COLUMNS = 48, NARROW_ROWS = 16, NARROW_COLUMNS = 16, LANES = 16 };

static int avx512_here(void) { return __builtin_cpu_supports("avx512f"); }

/* Row i of the tile is in three variables, left_i, middle_i and right_i, because gcc would keep an
 * array of them in memory. */
#define EACH_ROW(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7)
#define START(i) \
    __m512 left_##i = _mm512_setzero_ps(), middle_##i = left_##i, right_##i = left_##i; \
    if (M > i && add) { \
        left_##i = _mm512_loadu_ps(c + i * stride); \
        middle_##i = _mm512_loadu_ps(c + i * stride + 16); \
        right_##i = _mm512_loadu_ps(c + i * stride + 32); \
    }
#define STEP(i) \
    if (M > i) { \
        ai = _mm512_set1_ps(a[i * row]); \
        left_##i = _mm512_fmadd_ps(ai, b_left, left_##i); \
        middle_##i = _mm512_fmadd_ps(ai, b_middle, middle_##i); \
        right_##i = _mm512_fmadd_ps(ai, b_right, right_##i); \
    }
#define STORE(i) \
    if (M > i) { \
        _mm512_storeu_ps(c + i * stride, left_##i); \
        _mm512_storeu_ps(c + i * stride + 16, middle_##i); \
        _mm512_storeu_ps(c + i * stride + 32, right_##i); \
    }

/* Computes the first M rows of a tile. Element (i,k) of a is a[i*row + k*step], element (k,j) of b is
 * b[k*b_row + j]. It is inlined with constant M, and constant row or step. */
__attribute__((target("avx512f"), always_inline))
static inline void avx512_product(int M, float *c, size_t stride, const float *a, size_t row, size_t step,
                                  const float *b, size_t b_row, int k, int add) {
    EACH_ROW(START)
    for (; k > 0; k--, a += step, b += b_row) {
        __m512 b_left = _mm512_loadu_ps(b), b_middle = _mm512_loadu_ps(b + 16),
            b_right = _mm512_loadu_ps(b + 32), ai;
        EACH_ROW(STEP)
    }
    EACH_ROW(STORE)
}

__attribute__((target("avx512f")))
static void avx512_tile(float *c, size_t stride, const float *a, const float *b, int k, int add) {
    avx512_product(ROWS, c, stride, a, 1, ROWS, b, COLUMNS, k, add);
}
__attribute__((target("avx512f")))
static void avx512_tile_in_place(float *c, size_t stride, const float *a, size_t row, const float *b,
                                 size_t b_row, int M, int k, int add) {
    KNOWN_ROWS(M, avx512_product, c, stride, a, row, 1, b, b_row, k, add)
}

/* Row i of the narrow tile is one variable. The rows are two groups of eight, each with its own pointer
 * into A, because x86 addresses reach only eight rows from one pointer. */
#define EACH_OF_8(DO, group) \
    DO(group, 0) DO(group, 1) DO(group, 2) DO(group, 3) DO(group, 4) DO(group, 5) DO(group, 6) DO(group, 7)
#define EACH_OF_16(DO) EACH_OF_8(DO, upper) EACH_OF_8(DO, lower)
#define NARROW_START(group, i) \
    __m512 group##_##i = add ? _mm512_loadu_ps(c_##group + i * stride) : _mm512_setzero_ps();
#define NARROW_STEP(group, i) \
    group##_##i = _mm512_fmadd_ps(_mm512_set1_ps(a_##group[i * row]), b_all, group##_##i);
#define NARROW_STORE(group, i) _mm512_storeu_ps(c_##group + i * stride, group##_##i);

__attribute__((target("avx512f")))
static void avx512_narrow(float *c, size_t stride, const float *a, size_t row, const float *b, int k,
                          int add) {
    const float *a_upper = a, *a_lower = a + 8 * row;
    float *c_upper = c, *c_lower = c + 8 * stride;
    EACH_OF_16(NARROW_START)
    for (; k > 0; k--, a_upper++, a_lower++, b += NARROW_COLUMNS) {
        __m512 b_all = _mm512_loadu_ps(b);
        EACH_OF_16(NARROW_STEP)
    }
    EACH_OF_16(NARROW_STORE)
}

/* Looks up sixteen codes at a time, or the last eight of a block. Each is shifted to the low end of its
 * own lane, where its four bits choose one of sixteen values. */
__attribute__((target("avx512f")))
static void avx512_unpack(float *out, const unsigned char *packed, const f32 *values, int block, int n) {
    const __m512i shift = _mm512_setr_epi32(4, 0, 12, 8, 20, 16, 28, 24, 4, 0, 12, 8, 20, 16, 28, 24);
    for (; n > 0; n -= block, values += 16) {
        __m512 table = _mm512_loadu_ps(values);
        for (int i = 0; i < block; i += LANES) {
            int some = block - i < LANES ? LANES / 2 : LANES, eight[2] = { 0, 0 };
            memcpy(eight, packed, (size_t)some / 2);
            __m512i code = _mm512_srlv_epi32(_mm512_mask_set1_epi32(_mm512_set1_epi32(eight[0]), 0xFF00,
                                                                    eight[1]), shift);
            _mm512_mask_storeu_ps(out, (__mmask16)(0xFFFF >> (LANES - some)),
                                  _mm512_permutexvar_ps(code, table));
            packed += some / 2;
            out += some;
        }
    }
}

/* Transposes 16 rows of 16 numbers: first pairs and fours within each quarter of a
 * register, then the quarters. */
__attribute__((target("avx512f")))
static inline void transpose(__m512 r[LANES]) {
    __m512 t[LANES];
    for (int i = 0; i < LANES; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < LANES; i += 4) {
        r[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xEE);
        r[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xEE);
    }
    for (int i = 0; i < 4; i++) {  /* quarter q of r[4g + i] is column 4q + i of rows 4g .. 4g+3 */
        __m512 even_upper = _mm512_shuffle_f32x4(r[i], r[4 + i], 0x88),
            odd_upper = _mm512_shuffle_f32x4(r[i], r[4 + i], 0xDD);
        __m512 even_lower = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0x88),
            odd_lower = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0xDD);
        t[i] = _mm512_shuffle_f32x4(even_upper, even_lower, 0x88);
        t[4 + i] = _mm512_shuffle_f32x4(odd_upper, odd_lower, 0x88);
        t[8 + i] = _mm512_shuffle_f32x4(even_upper, even_lower, 0xDD);
        t[12 + i] = _mm512_shuffle_f32x4(odd_upper, odd_lower, 0xDD);
    }
    for (int i = 0; i < LANES; i++) r[i] = t[i];
}

/* Sets p[k*width + i] = a[i*row + k], sixteen steps of sixteen rows at a time. Masks leave out rows
 * and steps past the end. */
__attribute__((target("avx512f")))
static void avx512_interleave(float *p, int width, const float *a, size_t row, int rows, int K) {
    for (; rows > 0; rows -= LANES, p += LANES, a += LANES * row) {
        int some = rows < LANES ? rows : LANES;
        for (int k = 0; k < K; k += LANES) {
            int steps = K - k < LANES ? K - k : LANES;
            __mmask16 in = (__mmask16)(0xFFFF >> (LANES - steps)),
                out = (__mmask16)(0xFFFF >> (LANES - some));
            __m512 r[LANES];
            for (int i = 0; i < LANES; i++)
                r[i] = _mm512_maskz_loadu_ps(in, a + (size_t)(i < some ? i : 0) * row + k);
            transpose(r);
            for (int i = 0; i < LANES; i++)
                if (i < steps) _mm512_mask_storeu_ps(p + (size_t)(k + i) * (size_t)width, out, r[i]);
        }
    }
}

const Kernel kernel_avx512 = { "avx512", ROWS, COLUMNS, 1, avx512_here, avx512_tile, avx512_tile_in_place,
                               avx2_few, NARROW_ROWS, NARROW_COLUMNS, avx512_narrow,
                               avx512_interleave, avx512_unpack, avx2_unpack_columns };
#else
static int here(void) { return 0; }
const Kernel kernel_avx512 = { "avx512", 1, 1, 1, here, NULL, NULL, NULL, 0, 0, NULL, NULL, NULL, NULL };
#endif
