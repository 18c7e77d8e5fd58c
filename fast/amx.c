/* fast/amx.c - a tile of products of bf16 numbers, for x86-64 processors with AMX.
 *
 * What     C (32,32) = or += A B: A (32,k) rows of bf16, B (k,32) packed, C floats. The processor has eight
 *          tile registers of 16 rows of 64 bytes. Four hold C as two by two, two hold 16 rows x 32 steps of A
 *          each, and two hold the same of B. A step of 32 k is four loads and four TDPBF16PS, each 16,384
 *          operations. fast/half.c is the product around the tile.
 * B        TDPBF16PS multiplies pairs: numbers k and k+1 of a row of A by numbers k and k+1 of a column of B.
 *          These two are neighbours in memory: b[k/2 * 64 + 2j + k%2].
 * Order    For every 32 k the processor adds the products of even k and those of odd k, each in order and
 *          rounding once, then the two sums, then the result to C (Intel's manual, TDPBF16PS). Numbers below
 *          2^-126 count as 0, as inputs and as results. The blocks of 32 are at fixed places, so an element
 *          of C has the same bits whatever the other rows and columns are. They are not the bits of the float
 *          kernels, which add in another order.
 * Also     The file converts floats to bf16 by one instruction (which takes numbers below 2^-126 for 0, too),
 *          and 4-bit codes to bf16 by look-ups.
 * Needs    Linux, which a process must ask before it uses the tile registers (here() asks), and a compiler
 *          that knows AMX (gcc 11, clang 12). Elsewhere the file has a kernel whose here() is always 0. Every
 *          thread that calls tile() calls begin() before and end() after.
 * Edges    Whole blocks of 32 are read and written: fast/half.c pads with zeros. */
#if defined(__linux__) && !defined(_DEFAULT_SOURCE)
#define _DEFAULT_SOURCE                                         /* syscall() */
#endif
#include "fast.h"

#if defined(AMX_MODEL)                  /* tests/unit/amx_model.h: the instructions in plain C */
#define AMX 1
#elif defined(FAST) && defined(__x86_64__) && defined(__linux__) && !defined(__TINYC__) && \
      ((defined(__clang__) && __clang_major__ >= 12) || \
       (!defined(__clang__) && defined(__GNUC__) && __GNUC__ >= 11))
#define AMX 1
/* noinline: gcc's tile loads do not say that they read memory. */
#define AMX_TARGET __attribute__((target("amx-tile,amx-bf16"), noinline))
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Returns 1 if the processor has AMX (CPUID leaf 7), the system saves its registers (XCR0), and this process
 * may use them (arch_prctl). */
static int amx_here(void) {
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18, XCR0_TILES = 3 << 17 };
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return 0;
    /* AMX-BF16, AMX-TILE */
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 22 & 1) || !(d >> 24 & 1)) return 0;
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a >> 5 & 1)) return 0;  /* AVX512-BF16 */
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx2")) return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & XCR0_TILES) == XCR0_TILES && !syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA);
}
#endif

#ifdef AMX
enum { SIDE = 16, COLUMNS = 2 * SIDE, STEPS = 32 };

/* LDTILECFG's 64 bytes: eight registers of 16 rows of 64 bytes. They are a constant because gcc believes that
 * the instruction reads only the first bytes, and would remove writes to the others. */
static const struct {
    uint8_t palette, start, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} registers = {
    1, 0, { 0 }, { 64, 64, 64, 64, 64, 64, 64, 64 }, { SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE } };

AMX_TARGET
static void amx_begin(void) { _tile_loadconfig(&registers); }

AMX_TARGET
static void amx_end(void) { _tile_release(); }

/* The numbers 0 to 7 are registers: C is 0 1 / 2 3, A is 4 / 5, B is 6 7. */
AMX_TARGET
static void amx_tile(float *c, const uint16_t *a, size_t row, size_t next, const uint16_t *b, int blocks,
                     int add) {
    float *c_lower = c + SIDE * COLUMNS;
    const size_t c_bytes = COLUMNS * sizeof *c, a_bytes = row * sizeof *a, b_bytes = 2 * COLUMNS * sizeof *b;
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
    if (add) {
        _tile_loadd(0, c, c_bytes);
        _tile_loadd(1, c + SIDE, c_bytes);
        _tile_loadd(2, c_lower, c_bytes);
        _tile_loadd(3, c_lower + SIDE, c_bytes);
    }
    for (; blocks > 0; blocks--, a += next, b += STEPS * COLUMNS) {
        _tile_loadd(4, a, a_bytes);
        _tile_loadd(6, b, b_bytes);
        _tile_loadd(7, b + COLUMNS, b_bytes);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(5, a + SIDE * row, a_bytes);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, c_bytes);
    _tile_stored(1, c + SIDE, c_bytes);
    _tile_stored(2, c_lower, c_bytes);
    _tile_stored(3, c_lower + SIDE, c_bytes);
}
#endif

/* ---- making blocks: processors with AMX have AVX-512 with BW and BF16, too ---- */
#if defined(AMX) && defined(__x86_64__) && defined(__GNUC__) && !defined(__TINYC__)
#include <immintrin.h>
#ifndef AMX_LOOK_UP
#define AMX_LOOK_UP "avx2,avx512f,avx512bw"
#endif

/* Rounds to the nearest bf16, ties to even: returns the upper half of the bits after 0x7FFF and the last bit
 * that stays are added. */
__attribute__((target("avx2")))
static inline __m256i upper_halves(__m256 x) {
    __m256i bits = _mm256_castps_si256(x), last =
        _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    return _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(last, _mm256_set1_epi32(0x7FFF))), 16);
}

/* The register has the sixteen values twice, because a look-up of 32 codes reads five bits of each. A byte
 * becomes two codes, its high half first; the second keeps one bit of the first above it, and which of the
 * two equal values it chooses does not matter. */
__attribute__((target(AMX_LOOK_UP)))
static void amx_codes(uint16_t *half, size_t next, const unsigned char *packed, const f32 *table, f32 scale,
                      size_t n) {
    const __m256 s = _mm256_set1_ps(scale);
    const __m256i lower = upper_halves(_mm256_mul_ps(_mm256_loadu_ps(table), s)),
        upper = upper_halves(_mm256_mul_ps(_mm256_loadu_ps(table + 8), s));
    const __m512i values = _mm512_broadcast_i64x4(_mm256_permute4x64_epi64(_mm256_packus_epi32(lower, upper),
                                                                           0xD8));
    for (; n > 0; n -= 32, packed += 16, half += next) {
        __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)packed));
        __m512i codes = _mm512_or_si512(_mm512_srli_epi32(bytes, 4), _mm512_slli_epi32(bytes, 16));
        _mm512_storeu_si512(half, _mm512_permutexvar_epi16(codes, values));
    }
}
#else
#define amx_codes NULL
#endif

#if defined(AMX) && !defined(AMX_MODEL)
__attribute__((target("avx512f,avx512bf16")))
static void amx_narrow(uint16_t *half, size_t next, const f32 *x, size_t n) {
    for (; n > 0; n -= 32, x += 32, half += next) {
        _mm256_storeu_si256((__m256i *)half, (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(x)));
        _mm256_storeu_si256((__m256i *)(half + 16), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(x + 16)));
    }
}
#else
#define amx_narrow NULL
#endif

#ifdef AMX
const HalfKernel kernel_amx = { "amx", amx_here, amx_begin, amx_end, amx_tile, amx_narrow, amx_codes };
#else
static int here(void) { return 0; }
const HalfKernel kernel_amx = { "amx", here, NULL, NULL, NULL, NULL, NULL };
#endif
