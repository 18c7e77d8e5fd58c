/* fast/amx.c - a tile of products of bf16 numbers, for x86-64 processors with AMX.
 *
 * What     C (32,32) = or += A B, with A (32,k) in rows of bf16, B (k,32) in packed bf16, C in floats.
 *          The processor has eight tile registers of 16 rows of 64 bytes. Four hold C, as two by two; two
 *          hold A, each 16 rows x 32 steps of k; two hold B, each 32 steps x 16 columns. 32 steps of k
 *          take four loads and four TDPBF16PS, each of 16,384 operations. fast/half.c computes whole
 *          products with this tile.
 * B        TDPBF16PS multiplies pairs: numbers k and k+1 of a row of A by numbers k and k+1 of a
 *          column of B. So these two numbers of B are next to each other in memory: element (k,j) is
 *          b[k/2 * 64 + 2j + k%2].
 * Order    For every 32 k the processor adds the products of even k and those of odd k, each sum in
 *          order and with one rounding per product; then it adds the two sums; then it adds the
 *          result to C (Intel's manual, TDPBF16PS; numbers below 2^-126 count as 0, in and out).
 *          Blocks begin at multiples of 32 k, so an element of C has the same bits wherever its row
 *          and column are and whatever other rows and columns there are. The float kernels add in
 *          another order and give other bits.
 * Also     amx_narrow converts floats to bf16 by one instruction, which also takes numbers below 2^-126
 *          for 0. amx_codes converts 4-bit codes to bf16 by look-ups.
 * Needs    Linux, where a process must ask before it uses the tile registers (amx_here asks); a compiler
 *          that knows AMX (gcc 11, clang 12). Elsewhere the file has a kernel whose here() returns 0.
 *          Every thread that calls tile() calls begin() before it and end() after it.
 * Edges    The tile reads and writes whole blocks of 32: fast/half.c pads with zeros. */
#if defined(__linux__) && !defined(_DEFAULT_SOURCE)
#define _DEFAULT_SOURCE                                         /* for syscall() */
#endif
#include "fast.h"

#if defined(AMX_MODEL)                  /* tests/unit/amx_model.h: the instructions in plain C */
#define AMX 1
#elif defined(FAST) && defined(__x86_64__) && defined(__linux__) && !defined(__TINYC__) && \
      ((defined(__clang__) && __clang_major__ >= 12) || \
       (!defined(__clang__) && defined(__GNUC__) && __GNUC__ >= 11))
#define AMX 1
/* noinline: gcc does not know that its tile loads read memory. */
#define AMX_TARGET __attribute__((target("amx-tile,amx-bf16"), noinline))
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Returns 1 if the processor has AMX (CPUID leaf 7), the system saves its registers (XCR0), and this
 * process may use them (arch_prctl asks for that). */
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

/* The 64 bytes that LDTILECFG reads: eight registers of 16 rows of 64 bytes. The struct is
 * constant because gcc believes that the instruction reads only the first bytes, and would leave
 * out earlier writes to the others. */
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

/* Computes a tile (fast.h: HalfKernel). The numbers 0 to 7 are registers. C is in 0 and 1 (upper half), 2
 * and 3 (lower half); A is in 4 (upper half) and 5 (lower half); B is in 6 (left half) and 7 (right half). */
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

/* ---- floats and 4-bit codes to bf16: processors with AMX have AVX-512 BW and BF16 too ---- */
#if defined(AMX) && defined(__x86_64__) && defined(__GNUC__) && !defined(__TINYC__)
#include <immintrin.h>
#ifndef AMX_LOOK_UP
#define AMX_LOOK_UP "avx2,avx512f,avx512bw"
#endif

/* Rounds x to bf16, to nearest, ties to even: adds 0x7FFF and the last bit that stays, and returns the
 * upper 16 bits of each sum, as 32-bit integers. */
__attribute__((target("avx2")))
static inline __m256i upper_halves(__m256 x) {
    __m256i bits = _mm256_castps_si256(x), last =
        _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    return _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(last, _mm256_set1_epi32(0x7FFF))), 16);
}

/* Looks up 32 codes at a time. An index has five bits, so the table holds the sixteen values twice. A
 * byte becomes two indices: its high half, and the whole byte, whose fifth bit is of the other code and
 * chooses between equal values. */
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
