/* fast_amx.c - a tile of products of bf16 numbers, for x86-64 processors with AMX.
 *
 * What     C (32,32) = or += A B: A (32,k) rows of bf16 as they lie in memory, B (k,32) packed, C floats. The processor has eight tile
 *          registers of 16 rows of 64 bytes. Four hold C as two by two, two hold 16 rows x 32 steps of A each, two the same of B; a step
 *          of 32 k is four loads and four TDPBF16PS, each 16,384 operations.
 * B        TDPBF16PS multiplies pairs: numbers k and k+1 of a row of A by numbers k and k+1 of a column of B, which therefore lie side by
 *          side: b[k/2 * 64 + 2j + k%2]. `pack` makes that of floats, and rounds them; their row or their step is 1.
 * Order    for every 32 k the processor adds the products of even k and those of odd k, each in order and rounding once, then the two
 *          sums, then the result to C (Intel's manual, TDPBF16PS; numbers below 2^-126 count as 0, in and out). The blocks of 32 lie at
 *          fixed places, so an element of C has the same bits wherever its row and column stand, and beside whatever others. They are
 *          not the bits of the float kernels, whose order is another.
 * Uses     y = x W^T: A = rows of W, B = x packed (row = its width, step = 1); c is a tile of y's transpose.
 *          dx = dy W: A = rows of dy, B = W packed (row = 1, step = its width).
 * Needs    quant.c for rounding. Linux, which wants to be asked before a process uses the tile registers (here() asks); a compiler that knows AMX (gcc 11,
 *          clang 12). Elsewhere the file holds a kernel that is never here. begin() and end() in every thread that calls tile().
 * Edges    k is a multiple of 32, and 32 rows and columns are read and written: callers pad with zeros. */
#if defined(__linux__) && !defined(_DEFAULT_SOURCE)
#define _DEFAULT_SOURCE                                         /* syscall() */
#endif
#include "rlhf.h"

#if defined(AMX_MODEL)                                          /* tests/amx.c: the instructions as plain C */
#define AMX 1
#elif defined(FAST) && defined(__x86_64__) && defined(__linux__) && !defined(__TINYC__) && \
      ((defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && defined(__GNUC__) && __GNUC__ >= 11))
#define AMX 1
#define AMX_TARGET __attribute__((target("amx-tile,amx-bf16"), noinline))       /* noinline: gcc's tile loads do not say that they read memory */
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The processor has it (CPUID leaf 7), the system saves its registers (XCR0), and this process may use them (arch_prctl). */
static int amx_here(void) {
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18, XCR0_TILES = 3 << 17 };
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 22 & 1) || !(d >> 24 & 1)) return 0;     /* AMX-BF16, AMX-TILE */
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & XCR0_TILES) == XCR0_TILES && !syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA);
}
#endif

#ifdef AMX
enum { SIDE = 16, ROWS = 2 * SIDE, COLUMNS = 2 * SIDE, STEPS = 32 };

/* LDTILECFG's 64 bytes: every register is 16 rows of 64 bytes. */
AMX_TARGET
static void amx_begin(void) {
    struct { uint8_t palette, start, reserved[14]; uint16_t row_bytes[16]; uint8_t rows[16]; } shape;
    memset(&shape, 0, sizeof shape);
    shape.palette = 1;
    for (int i = 0; i < 8; i++) { shape.row_bytes[i] = 64; shape.rows[i] = SIDE; }
    _tile_loadconfig(&shape);
}

AMX_TARGET
static void amx_end(void) { _tile_release(); }

/* b (K rounded up to 32, 32) = columns j < columns, whose number k is x[j*row + k*step], to the nearest bf16; the others are 0. */
static void amx_pack(uint16_t *b, const float *x, size_t row, size_t step, int columns, int K) {
    uint16_t line[STEPS];
    memset(b, 0, (size_t)((K + STEPS - 1) / STEPS) * STEPS * COLUMNS * sizeof *b);
    if (row == 1)                                               /* a line of memory is one k of every column */
        for (int k = 0; k < K; k++, x += step) {
            uint16_t *to = b + (size_t)(k / 2) * 2 * COLUMNS + k % 2;
            halves_narrow(line, x, BF16, (size_t)columns);
            for (int j = 0; j < columns; j++) to[2 * j] = line[j];
        }
    else                                                        /* it is 32 k of one column */
        for (int k0 = 0; k0 < K; k0 += STEPS, b += STEPS * COLUMNS)
            for (int j = 0; j < columns; j++) {
                int steps = K - k0 < STEPS ? K - k0 : STEPS;
                halves_narrow(line, x + (size_t)j * row + k0, BF16, (size_t)steps);
                for (int k = 0; k < steps; k++) b[k / 2 * 2 * COLUMNS + 2 * j + k % 2] = line[k];
            }
}

/* c[i*stride + j], i, j < 32, becomes (add 0: 0, 1: itself) + sum over k of a[i*row + k] b's (k,j). The numbers 0 to 7 are registers:
 * C is 0 1 / 2 3, A is 4 / 5, B is 6 7. */
AMX_TARGET
static void amx_tile(float *c, size_t stride, const uint16_t *a, size_t row, const uint16_t *b, int k, int add) {
    const uint16_t *a_lower = a + SIDE * row;
    float *c_lower = c + SIDE * stride;
    const size_t c_bytes = stride * sizeof *c, a_bytes = row * sizeof *a, b_bytes = 2 * COLUMNS * sizeof *b;
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
    if (add) {
        _tile_loadd(0, c, c_bytes);
        _tile_loadd(1, c + SIDE, c_bytes);
        _tile_loadd(2, c_lower, c_bytes);
        _tile_loadd(3, c_lower + SIDE, c_bytes);
    }
    for (; k > 0; k -= STEPS, a += STEPS, a_lower += STEPS, b += STEPS * COLUMNS) {
        _tile_loadd(4, a, a_bytes);
        _tile_loadd(5, a_lower, a_bytes);
        _tile_loadd(6, b, b_bytes);
        _tile_loadd(7, b + COLUMNS, b_bytes);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, c_bytes);
    _tile_stored(1, c + SIDE, c_bytes);
    _tile_stored(2, c_lower, c_bytes);
    _tile_stored(3, c_lower + SIDE, c_bytes);
}

const HalfKernel kernel_amx = { "amx", ROWS, COLUMNS, STEPS, amx_here, amx_begin, amx_end, amx_pack, amx_tile };
#else
static int here(void) { return 0; }
const HalfKernel kernel_amx = { "amx", 1, 1, 1, here, NULL, NULL, NULL, NULL };
#endif
