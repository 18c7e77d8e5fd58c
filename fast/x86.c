/* fast/x86.c - two kernels for x86-64: one for AVX, one for AVX2 with fused multiply-add. They have the tile
 * of a product, packing, and the look-up of 4-bit weights.
 *
 * Shape    A tile is 6 x 16. It uses fifteen of the sixteen registers: twelve accumulators of 8 floats,
 *          two for B, one for A. Each step of k loads 16 numbers of B and broadcasts 6 of A, for 192
 *          operations. avx2_few is for few rows of x.
 * Order    An accumulator adds its products in order of k, so that a kernel of another width gives the
 *          same bits. The AVX tile rounds each product and each sum: its bits are the plain tile's. The
 *          AVX2 tile rounds both at once.
 * Needs    A compiler with GNU attributes (gcc, clang), which compiles these functions alone for the newer
 *          processor. For other compilers and machines the file has kernels whose here() returns 0. */
#include "fast.h"

#if defined(FAST) && defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__)) && !defined(__TINYC__)
#include <immintrin.h>

enum { ROWS = 6, COLUMNS = 16, LINE = 16 /* floats of a cache line */ };

/* Row i of the tile is in two variables, left_i and right_i, because gcc would keep an
 * array of them in memory. */
#define EACH_ROW(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5)
#define START(i) \
    __m256 left_##i = _mm256_setzero_ps(), right_##i = _mm256_setzero_ps(); \
    if (M > i) { \
        _mm_prefetch((const char *)(c + (ROWS + i) * stride), _MM_HINT_T0);    /* the next tile's row */ \
        if (add) { \
            left_##i = _mm256_loadu_ps(c + i * stride); \
            right_##i = _mm256_loadu_ps(c + i * stride + 8); \
        } \
    }
#define STEP(i) \
    if (M > i) { \
        ai = _mm256_broadcast_ss(a + i * row); \
        left_##i = _mm256_add_ps(left_##i, _mm256_mul_ps(ai, b_left)); \
        right_##i = _mm256_add_ps(right_##i, _mm256_mul_ps(ai, b_right)); \
    }
#define FUSED_STEP(i) \
    if (M > i) { \
        ai = _mm256_broadcast_ss(a + i * row); \
        left_##i = _mm256_fmadd_ps(ai, b_left, left_##i); \
        right_##i = _mm256_fmadd_ps(ai, b_right, right_##i); \
    }
/* Prefetches the cache line of the next tile's row i at this step: if a is W, it is in main memory. */
#define AHEAD(i) if (M > i) _mm_prefetch((const char *)(a + (i + ROWS) * row), _MM_HINT_T0);
#define STORE(i) \
    if (M > i) { \
        _mm256_storeu_ps(c + i * stride, left_##i); \
        _mm256_storeu_ps(c + i * stride + 8, right_##i); \
    }

static int avx_here(void) { return __builtin_cpu_supports("avx"); }
static int avx2_here(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

/* Computes the first M rows of a tile. Element (i,k) of a is a[i*row + k*step], element (k,j) of b is
 * b[k*b_row + j]. It is inlined with constant M, and constant row or step. */
__attribute__((target("avx"), always_inline))
static inline void avx_product(int M, float *c, size_t stride, const float *a, size_t row, size_t step,
                               const float *b, size_t b_row, int k, int add) {
    EACH_ROW(START)
    for (int some; k > 0; k -= some) {
        some = k;
        if (step == 1) {
            some = k < LINE ? k : LINE;
            EACH_ROW(AHEAD)
        }
        for (int i = 0; i < some; i++, a += step, b += b_row) {
            __m256 b_left = _mm256_loadu_ps(b), b_right = _mm256_loadu_ps(b + 8), ai;
            EACH_ROW(STEP)
        }
    }
    EACH_ROW(STORE)
}

__attribute__((target("avx2,fma"), always_inline))
static inline void avx2_product(int M, float *c, size_t stride, const float *a, size_t row, size_t step,
                                const float *b, size_t b_row, int k, int add) {
    EACH_ROW(START)
    for (int some; k > 0; k -= some) {
        some = k;
        if (step == 1) {
            some = k < LINE ? k : LINE;
            EACH_ROW(AHEAD)
        }
        for (int i = 0; i < some; i++, a += step, b += b_row) {
            __m256 b_left = _mm256_loadu_ps(b), b_right = _mm256_loadu_ps(b + 8), ai;
            EACH_ROW(FUSED_STEP)
        }
    }
    EACH_ROW(STORE)
}

__attribute__((target("avx")))
static void avx_tile(float *c, size_t stride, const float *a, const float *b, int k, int add) {
    avx_product(ROWS, c, stride, a, 1, ROWS, b, COLUMNS, k, add);
}
__attribute__((target("avx")))
static void avx_tile_in_place(float *c, size_t stride, const float *a, size_t row, const float *b,
                              size_t b_row, int M, int k, int add) {
    KNOWN_ROWS(M, avx_product, c, stride, a, row, 1, b, b_row, k, add)
}
__attribute__((target("avx2,fma")))
static void avx2_tile(float *c, size_t stride, const float *a, const float *b, int k, int add) {
    avx2_product(ROWS, c, stride, a, 1, ROWS, b, COLUMNS, k, add);
}
__attribute__((target("avx2,fma")))
static void avx2_tile_in_place(float *c, size_t stride, const float *a, size_t row, const float *b,
                               size_t b_row, int M, int k, int add) {
    KNOWN_ROWS(M, avx2_product, c, stride, a, row, 1, b, b_row, k, add)
}

/* Computes up to eight rows of x times eight rows of W. Row m of C is one register, sum_m, with a lane for
 * each row of W. The loop takes four steps of k at a time: it loads four numbers of each row of W and
 * transposes them, so that a register holds one step of all eight rows. It takes eight rows of W because a
 * first-level cache holds eight lines that have the same offset in their pages. */
#define EACH_OF_8(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7)
#define FEW_START(m) __m256 sum_##m = M > m && add ? _mm256_loadu_ps(c + m * stride) : _mm256_setzero_ps();
#define FEW_STEP(m) \
    if (M > m) { \
        const float *xm = x + m * x_row; \
        sum_##m = _mm256_fmadd_ps(_mm256_broadcast_ss(xm), w0, sum_##m); \
        sum_##m = _mm256_fmadd_ps(_mm256_broadcast_ss(xm + 1), w1, sum_##m); \
        sum_##m = _mm256_fmadd_ps(_mm256_broadcast_ss(xm + 2), w2, sum_##m); \
        sum_##m = _mm256_fmadd_ps(_mm256_broadcast_ss(xm + 3), w3, sum_##m); \
    }
#define FEW_LAST(m) if (M > m) sum_##m = _mm256_fmadd_ps(_mm256_broadcast_ss(x + m * x_row), w_all, sum_##m);
#define FEW_STORE(m) if (M > m) _mm256_storeu_ps(c + m * stride, sum_##m);

/* Returns four numbers from a on and four from b on, as floats. */
__attribute__((target("avx2,f16c"), always_inline))
static inline __m256 four_and_four(const char *a, const char *b, int type) {
    if (type == F32) {
        __m128 low = _mm_loadu_ps((const float *)(const void *)a),
            high = _mm_loadu_ps((const float *)(const void *)b);
        return _mm256_insertf128_ps(_mm256_castps128_ps256(low), high, 1);
    }
    __m128i both = _mm_unpacklo_epi64(_mm_loadl_epi64((const __m128i *)(const void *)a),
                                      _mm_loadl_epi64((const __m128i *)(const void *)b));
    if (type == F16) return _mm256_cvtph_ps(both);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(both), 16));
}

/* Returns one number of each of eight rows, `row` bytes apart, as floats: for the last steps of k. */
__attribute__((target("avx2,f16c"), always_inline))
static inline __m256 one_of_eight(const char *w, size_t row, int type) {
    float x[FEW_COLUMNS];
    uint16_t half;
    for (int i = 0; i < FEW_COLUMNS; i++, w += row) {
        if (type == F32) { memcpy(&x[i], w, sizeof x[i]); continue; }
        memcpy(&half, w, sizeof half);
        x[i] = type == F16 ? f16_to_f32(half) : bf16_to_f32(half);
    }
    return _mm256_loadu_ps(x);
}

__attribute__((target("avx2,fma,f16c"), always_inline))
static inline void few_product(int M, int type, float *c, size_t stride, const float *x, size_t x_row,
                               const void *weights, size_t w_row, int k, int add) {
    const size_t size = type == F32 ? sizeof(float) : sizeof(uint16_t), row = w_row * size;
    const char *w = weights, *next = w + FEW_COLUMNS * row;
    EACH_OF_8(FEW_START)
    for (; k >= 4; k -= 4, w += 4 * size, x += 4) {
        /* short rows: prefetches the next eight rows, line by line; along long rows the processor does */
        if (row <= 4096)
            for (size_t line = 0; line < 4 * FEW_COLUMNS * size; line += 64, next += 64)
                _mm_prefetch(next, _MM_HINT_T0);
        __m256 r0 = four_and_four(w, w + 4 * row, type), r1 = four_and_four(w + row, w + 5 * row, type);
        __m256 r2 = four_and_four(w + 2 * row, w + 6 * row, type),
            r3 = four_and_four(w + 3 * row, w + 7 * row, type);
        __m256 lo01 = _mm256_unpacklo_ps(r0, r1), lo23 = _mm256_unpacklo_ps(r2, r3),
            hi01 = _mm256_unpackhi_ps(r0, r1), hi23 = _mm256_unpackhi_ps(r2, r3);
        __m256 w0 = _mm256_shuffle_ps(lo01, lo23, 0x44), w1 = _mm256_shuffle_ps(lo01, lo23, 0xEE);
        __m256 w2 = _mm256_shuffle_ps(hi01, hi23, 0x44), w3 = _mm256_shuffle_ps(hi01, hi23, 0xEE);
        EACH_OF_8(FEW_STEP)
    }
    for (; k > 0; k--, w += size, x++) {
        __m256 w_all = one_of_eight(w, row, type);
        EACH_OF_8(FEW_LAST)
    }
    EACH_OF_8(FEW_STORE)
}

__attribute__((target("avx2,fma,f16c")))                        /* every processor with AVX2 has F16C */
void avx2_few(float *c, size_t stride, const float *x, size_t x_row, const void *w, size_t w_row, int type,
              int M, int k, int add) {
    if (type == F32) KNOWN_ROWS(M, few_product, F32, c, stride, x, x_row, w, w_row, k, add)
    else if (type == BF16) KNOWN_ROWS(M, few_product, BF16, c, stride, x, x_row, w, w_row, k, add)
    else KNOWN_ROWS(M, few_product, F16, c, stride, x, x_row, w, w_row, k, add)
}

/* Looks up eight codes at a time. Each is shifted to the low end of its own lane. Its low three bits
 * choose one of eight values, and its fourth bit chooses which eight. */
__attribute__((target("avx2")))
static void avx2_unpack(float *out, const unsigned char *packed, const f32 *values, int block, int n) {
    const __m256i shift = _mm256_setr_epi32(4, 0, 12, 8, 20, 16, 28, 24);
    for (; n > 0; n -= block, values += 16) {
        __m256 low = _mm256_loadu_ps(values), high = _mm256_loadu_ps(values + 8);
        for (int i = 0; i < block; i += 8, packed += 4, out += 8) {
            int four;
            memcpy(&four, packed, sizeof four);
            __m256i code = _mm256_srlv_epi32(_mm256_set1_epi32(four), shift);
            /* the fourth bit as a sign, which blendv reads */
            __m256 fourth = _mm256_castsi256_ps(_mm256_slli_epi32(code, 28));
            _mm256_storeu_ps(out, _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, code),
                                                   _mm256_permutevar8x32_ps(high, code), fourth));
        }
    }
}

/* Rounds to the nearest bf16, a tie to the even one; x is finite. */
__attribute__((target("avx2")))
static inline __m256 to_bf16(__m256 x) {
    __m256i bits = _mm256_castps_si256(x), odd =
        _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    bits = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
    return _mm256_castsi256_ps(_mm256_and_si256(bits, _mm256_set1_epi32((int)0xFFFF0000)));
}

/* Unpacks eight rows of 4-bit codes as columns of floats. A byte shuffle looks up 32 codes at a time, but
 * finds one byte for each. So the table of 16 values is split into four tables of bytes, and the four
 * results are interleaved, first by bytes and then by pairs: this gives the floats. Before the look-up the
 * bytes of the rows are transposed four rows at a time, so that floats of rows 0 to 3 are in the lower
 * half of a register, and those of rows 4 to 7 in the upper half. */
#define ROW(i) _mm_loadu_si128((const __m128i *)(const void *)(packed + (i) * row_bytes))
#define TWO_ROWS(i) _mm256_inserti128_si256(_mm256_castsi128_si256(ROW(i)), ROW(i + 4), 1)

__attribute__((target("avx2"), always_inline))
static inline void unpack_columns(float *p, size_t width, const unsigned char *packed, size_t row_bytes,
                                  const f32 *scale, const f32 *table, int block, int rounded, int K) {
    const __m256i turn = _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0, 4, 8, 12,
                                          1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m256i half = _mm256_set1_epi8(15);
    unsigned char bytes[4][16];
    __m256i byte[4];
    for (int i = 0; i < 16; i++)
        for (int b = 0; b < 4; b++) memcpy(&bytes[b][i], (const unsigned char *)&table[i] + b, 1);
    for (int b = 0; b < 4; b++)
        byte[b] = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)bytes[b]));
    for (int k = 0; k < K; k += 32, packed += 16) {             /* 16 bytes of a row: 32 codes */
        __m256 scales = _mm256_loadu_ps(scale + k / block * 8);
        __m256i r0 = TWO_ROWS(0), r1 = TWO_ROWS(1), r2 = TWO_ROWS(2),
            r3 = TWO_ROWS(3);
        __m256i lo01 = _mm256_unpacklo_epi32(r0, r1), lo23 = _mm256_unpacklo_epi32(r2, r3);
        __m256i hi01 = _mm256_unpackhi_epi32(r0, r1), hi23 = _mm256_unpackhi_epi32(r2, r3);
        /* four bytes of each row */
        __m256i four[4] = { _mm256_unpacklo_epi64(lo01, lo23), _mm256_unpackhi_epi64(lo01, lo23),
                            _mm256_unpacklo_epi64(hi01, hi23), _mm256_unpackhi_epi64(hi01, hi23) };
        for (int g = 0; g < 4; g++, p += 8 * width) {
            __m256i by_column = _mm256_shuffle_epi8(four[g], turn);
            for (int odd = 0; odd < 2; odd++) {                 /* even k: high 4 bits */
                __m256i code = _mm256_and_si256(odd ? by_column : _mm256_srli_epi16(by_column, 4), half);
                __m256i b0 = _mm256_shuffle_epi8(byte[0], code), b1 = _mm256_shuffle_epi8(byte[1], code);
                __m256i b2 = _mm256_shuffle_epi8(byte[2], code), b3 = _mm256_shuffle_epi8(byte[3], code);
                __m256i low01 = _mm256_unpacklo_epi8(b0, b1), low23 = _mm256_unpacklo_epi8(b2, b3);
                __m256i high01 = _mm256_unpackhi_epi8(b0, b1), high23 = _mm256_unpackhi_epi8(b2, b3);
                __m256i value[4] = { _mm256_unpacklo_epi16(low01, low23), _mm256_unpackhi_epi16(low01, low23),
                                     _mm256_unpacklo_epi16(high01, high23),
                                         _mm256_unpackhi_epi16(high01, high23) };
                for (int i = 0; i < 4; i++) {
                    __m256 x = _mm256_mul_ps(_mm256_castsi256_ps(value[i]), scales);
                    _mm256_storeu_ps(p + (size_t)(2 * i + odd) * width, rounded ? to_bf16(x) : x);
                }
            }
        }
    }
}
__attribute__((target("avx2")))
void avx2_unpack_columns(float *p, size_t width, const unsigned char *packed, size_t row_bytes,
                         const f32 *scale, const f32 *table, int block, int rounded, int K) {
    if (rounded) unpack_columns(p, width, packed, row_bytes, scale, table, block, 1, K);
    else unpack_columns(p, width, packed, row_bytes, scale, table, block, 0, K);
}

/* Transposes 8 rows of 8 numbers: first pairs, then fours, then halves of registers. */
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

/* Sets p[k*width + i] = a[i*row + k]: eight steps of eight rows, or of a tile's six rows, at a time,
 * and the rest one by one. */
__attribute__((target("avx")))
static void avx_interleave(float *p, int width, const float *a, size_t row, int rows, int K) {
    for (; rows > 0; rows -= 8, p += 8, a += 8 * row) {
        int k = 0, some = rows < 8 ? rows : 8;
        for (; k + 8 <= K && (some == 8 || some == ROWS); k += 8) {
            __m256 r[8];
            for (int i = 0; i < ROWS; i++) r[i] = _mm256_loadu_ps(a + (size_t)i * row + k);
            for (int i = ROWS; i < 8; i++)
                r[i] = some == 8 ? _mm256_loadu_ps(a + (size_t)i * row + k) : _mm256_setzero_ps();
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
            for (int i = 0; i < some; i++)
                p[(size_t)k * (size_t)width + (size_t)i] = a[(size_t)i * row + (size_t)k];
    }
}

const Kernel kernel_avx2 = { "avx2", ROWS, COLUMNS, 1, avx2_here, avx2_tile, avx2_tile_in_place, avx2_few, 0,
                             0, NULL, avx_interleave,
                             avx2_unpack, avx2_unpack_columns };
const Kernel kernel_avx = { "avx", ROWS, COLUMNS, 0, avx_here, avx_tile, avx_tile_in_place, NULL, 0, 0, NULL,
                            avx_interleave, NULL, NULL };
#else
static int here(void) { return 0; }
const Kernel kernel_avx2 = { "avx2", 1, 1, 1, here, NULL, NULL, NULL, 0, 0, NULL, NULL, NULL, NULL };
const Kernel kernel_avx = { "avx", 1, 1, 0, here, NULL, NULL, NULL, 0, 0, NULL, NULL, NULL, NULL };
#endif
