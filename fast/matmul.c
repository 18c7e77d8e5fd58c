/* fast/matmul.c - the twins of ops.c's linears: one product, packed and in tiles, shared by threads.
 *
 *     C (M,J) = or += A (M,K) B (K,J)         each element of C is one sum, added in order of k
 *
 * It has three uses:    y = x W^T        A = x       B = W^T
 *                       dx += dy W       A = dy      B = W
 *                       dW += dy^T x     A = dy^T    B = x
 *
 * Packing  A is packed into tiles of R = 4 rows, B into panels of S = 8 columns: one step of k after
 *          another, R or S numbers to a step, 256 steps at a time (up to 320 if there are no more).
 *          A panel is 8 KB and stays in the first-level cache while it is multiplied by all tiles.
 *          The 4 x 8 accumulators of a tile are in registers. They are stored in C after each block
 *          of k and loaded before the next, so that the sum is the plain loop's. A thread takes up
 *          to 528 rows and 256 columns.
 * Kernels  If fast/choose.c has a kernel, R, S, the innermost loop and the interleaving are the kernel's.
 *          The rest of the code is the same for all.
 * Few rows If x has few rows (as in sampling), packing W does not pay: reading W takes most of the time.
 *          For up to FEW_ROWS rows a kernel may have a function that packs nothing (`few`). For up to S
 *          rows there is a tile that reads W's rows as they are in memory: then x is the panel and W's rows
 *          are the tiles. The product of two numbers is the same in either order, so a row has the same
 *          bits as among many rows. 4-bit weights always become panels of floats. Short rows of A are not
 *          packed either, nor is W if few rows of A use it (attention).
 * Needs    core.c (arena), quant.c, fast/threads.c, choose.c, half.c. No heap, no stdio, no globals.
 * Edges    M = 0 is allowed; K = 0 gives zeros, or leaves C as it is if the product is added. */
#include "fast.h"

enum {
    TILE_M = 4, TILE_J = 8,                 /* R and S of the plain tile */
    STEPS = 256, BLOCK_K = 320,           /* steps of a panel: STEPS, or up to BLOCK_K if there are no more */
    CHUNK_K = 16 * STEPS,                   /* steps of A that are packed at a time, to limit the scratch */
    BLOCK_M = 528, BLOCK_J = 256,           /* rows and columns of C that a thread takes at a time */
    TILES = 16,                             /* tiles of A that are packed together */
    /* floats between panels: without a gap all panels would compete for the same lines of the cache */
    GAP = 16
};

#if defined(__GNUC__) && !defined(__TINYC__)
#define PREFETCH(address) __builtin_prefetch(address)
#define INLINE static inline __attribute__((always_inline))
#else
#define PREFETCH(address) ((void)0)
#define INLINE static inline
#endif

static int smaller(int a, int b) { return a < b ? a : b; }

/* ---- the plain kernel ---- */

static int always(void) { return 1; }

static void plain_tile(float *restrict c, size_t stride, const float *restrict a, const float *restrict b,
                       int k, int add) {
    float s[TILE_M * TILE_J];
    for (int i = 0; i < TILE_M; i++)
        for (int j = 0; j < TILE_J; j++) s[i * TILE_J + j] = add ? c[(size_t)i * stride + (size_t)j] : 0;
    for (; k > 0; k--, a += TILE_M, b += TILE_J)
        for (int i = 0; i < TILE_M; i++)
            for (int j = 0; j < TILE_J; j++) s[i * TILE_J + j] += a[i] * b[j];
    for (int i = 0; i < TILE_M; i++)
        for (int j = 0; j < TILE_J; j++) c[(size_t)i * stride + (size_t)j] = s[i * TILE_J + j];
}

static void plain_interleave(float *restrict p, int width, const float *restrict a, size_t row, int rows,
                             int K) {
    for (int i = 0; i < rows; i++)
        for (int k = 0; k < K; k++) p[(size_t)k * (size_t)width + (size_t)i] = a[(size_t)i * row + (size_t)k];
}

static const Kernel kernel_plain = { "plain", TILE_M, TILE_J, 0, always, plain_tile, NULL, NULL, 0, 0, NULL,
                                     plain_interleave, NULL, NULL };

static const Kernel *kernel_now(void) {
    const Kernel *kernel = fast_kernel();
    return kernel ? kernel : &kernel_plain;
}

/* ---- packing A ---- */

/* Returns the number of steps of a panel, and of a block of packed A, if there are K steps in all. */
static int steps(int K) { return K <= BLOCK_K ? BLOCK_K : STEPS; }

/* Sets p[k*width + i] = a[i*row + k], i < rows, k < K. Columns from `rows` to width-1 become 0. */
static void pack_rows(float *p, int width, const float *a, size_t row, int rows, int K,
                      const Kernel *kernel) {
    if (rows < width) memset(p, 0, (size_t)K * (size_t)width * sizeof *p);
    kernel->interleave(p, width, a, row, rows, K);
}

/* Packs K steps of several tiles or panels, which are `width` wide and `distance` apart. A step is n
 * numbers from `row` on; the next step is `next` numbers further. Numbers that the last tile lacks become
 * 0. Steps are far apart in memory and processors do not foresee the next one, so it is prefetched. */
INLINE void spread_text(float *p, size_t width, size_t distance, const float *row, size_t next, size_t n,
                        int K) {
    for (; K > 0; K--, p += width, row += next) {
        float *to = p;
        size_t i = 0;
        if (K > 4) for (size_t line = 0; line < n; line += 16) PREFETCH(row + 4 * next + line);
        /* widths 16 and 6 are constants for the compiler; other widths are multiples of 4 */
        for (; i + width <= n; i += width, to += distance) {
            if (width == 16) memcpy(to, row + i, 16 * sizeof *to);
            else if (width == 6) memcpy(to, row + i, 6 * sizeof *to);
            else for (size_t j = 0; j < width; j += 4) memcpy(to + j, row + i + j, 4 * sizeof *to);
        }
        for (size_t j = 0; j < width && i < n; j++) to[j] = i + j < n ? row[i + j] : 0;
    }
}
#ifdef HAS_WIDE
__attribute__((target("avx2")))
static void spread_wide(float *p, size_t width, size_t distance, const float *row, size_t next, size_t n,
                        int K) {
    spread_text(p, width, distance, row, next, n, K);
}
#else
#define spread_wide spread_text
#endif
static void spread(float *p, size_t width, size_t distance, const float *row, size_t next, size_t n, int K) {
    if (fast_wide()) spread_wide(p, width, distance, row, next, n, K);
    else spread_text(p, width, distance, row, next, n, K);
}

/* Packs steps k0 .. k1-1 of A: one block of steps() after another, and in a block one tile of R rows
 * after another. The block of step k begins at (k - k0) * tiles * R. A part of this work is up to
 * TILES tiles of a block. */
static void pack_a_part(float *packed, View v, int M, int k0, int k1, const Kernel *kernel, size_t from,
                        size_t to) {
    int R = kernel->rows, tiles = (M + R - 1) / R, groups = (tiles + TILES - 1) / TILES;
    for (int item = (int)from; item < (int)to; item++) {
        int t = item % groups * TILES, some = smaller(tiles - t, TILES), m = t * R,
            rows = smaller(M - m, some * R);
        int most = steps(k1 - k0), k = k0 + item / groups * most, nk = smaller(k1 - k, most);
        float *p = packed + (size_t)R * ((size_t)(k - k0) * (size_t)tiles + (size_t)t * (size_t)nk);
        const float *a = v.a + (size_t)m * v.row + (size_t)k * v.step;
        size_t distance = (size_t)nk * (size_t)R;
        if (v.step == 1)
            for (int i = 0; i < some; i++, a += (size_t)R * v.row, p += distance)
                pack_rows(p, R, a, v.row, smaller(rows - i * R, R), nk, kernel);
        else spread(p, (size_t)R, distance, a, v.step, (size_t)rows, nk);
    }
}
static void pack_a(float *packed, View v, int M, int k0, int k1, const Kernel *kernel) {
    int tiles = (M + kernel->rows - 1) / kernel->rows,
        blocks = (k1 - k0 + steps(k1 - k0) - 1) / steps(k1 - k0);
    int parts = (tiles + TILES - 1) / TILES * blocks;
    IN_PARTS((double)M * (k1 - k0) * 8, parts, pack_a_part(packed, v, M, k0, k1, kernel, from, to));
}

/* ---- packing W, which may be 16-bit or 4-bit ---- */

/* Sets out (n) to 4-bit weights from element `first` on, rounded to the compute type. A block has only 16
 * different weights: they are computed and rounded once, and then looked up. */
static void widen_4bit(float *out, const Matrix *w, size_t first, size_t n, const Kernel *kernel) {
    enum { BLOCKS = 8 };
    const Quant *q = w->quant;
    const unsigned char *packed = w->data;
    size_t block = (size_t)q->block;
    f32 values[16 * BLOCKS];
    for (size_t run; n > 0; first += run, out += run, n -= run) {
        /* rest: weights from `first` to the end of its block */
        size_t blocks = 1, rest = block - first % block;
        run = rest < n ? rest : n;
        if (!kernel->unpack || first % 2 || run % 8) {
            dequantize_4bit(out, packed, q, first, run);
            halves_round(out, w->compute, run);
            continue;
        }
        if (rest == block && n > block) {                       /* several whole blocks */
            blocks = n / block < BLOCKS ? n / block : BLOCKS;
            run = blocks * block;
        }
        for (size_t b = 0; b < blocks; b++) {
            f32 scale = quant_scale(q, first / block + b);
            for (int i = 0; i < 16; i++) values[16 * b + (size_t)i] = q->table[i] * scale;
        }
        halves_round(values, w->compute, 16 * blocks);
        kernel->unpack(out, packed + first / 2, values, (int)(block < run ? block : run), (int)run);
    }
}

/* Sets out (n) to the weights from element `first` on, as floats, rounded to the compute type. */
static void widen(float *out, const Matrix *w, size_t first, int n, const Kernel *kernel) {
    if (w->type == NF4) {
        widen_4bit(out, w, (size_t)w->first * (size_t)w->I + first, (size_t)n, kernel);
        return;
    }
    if (w->type == F32) memcpy(out, (const float *)w->data + first, (size_t)n * sizeof *out);
    else halves_widen(out, (const uint16_t *)w->data + first, w->type, (size_t)n);
    if (w->type != w->compute) halves_round(out, w->compute, (size_t)n);
}

/* Returns 1 if the product multiplies by W's numbers as they are in memory. */
static int as_it_is(const Matrix *w) { return w->type == F32 && w->compute == F32; }

enum { LINES = 8 };                    /* rows of W that are widened at a time, before they are interleaved */

/* Returns 1 if the kernel can unpack 4-bit weights to columns: every row of W ends with the end of a
 * block, and the compute type is not F16. */
static int has_columns(const Matrix *w, const Kernel *kernel) {
    return w->type == NF4 && kernel->unpack_columns && w->I % w->quant->block == 0 && w->compute != F16;
}

/* Unpacks LINES rows of 4-bit weights, from row j0 and step k0 on, to columns: p[k*S + i], k < K <=
 * BLOCK_K. k0 is a multiple of STEPS. */
static void unpack_lines(float *p, const Matrix *w, int k0, int K, int j0, const Kernel *kernel) {
    enum { SMALLEST = 32 };                 /* the smallest block */
    const Quant *q = w->quant;
    f32 scale[BLOCK_K / SMALLEST * LINES];
    int block = smaller(q->block, BLOCK_K);
    j0 += w->first;
    /* row: blocks of a row of W; first: the block of row j0 and step k0 */
    size_t row = (size_t)(w->I / q->block), first = (size_t)j0 * row + (size_t)(k0 / q->block);
    const unsigned char *packed = (const unsigned char *)w->data +
        ((size_t)j0 * (size_t)w->I + (size_t)k0) / 2;
    const unsigned char *next = packed + LINES * (size_t)w->I / 2 + (size_t)k0 * LINES / 2;
    for (int i = 0; i < LINES; i++)
        for (int b = 0; b * block < K; b++) {
            size_t n = first + (size_t)i * row + (size_t)b;
            scale[b * LINES + i] = q->absmax ? q->absmax[n] : quant_scale(q, n);
        }
    for (int b = 0; b < K * LINES / 2; b += 64) PREFETCH(next + b);
    kernel->unpack_columns(p, (size_t)kernel->columns, packed, (size_t)w->I / 2, scale, q->table, block,
                           w->compute == BF16, K);
}

/* Packs panels of W^T, each K x S, one after another: p[j/S][k*S + j%S] = W[j0+j][k0+k], k < K, j < J.
 * Missing columns become 0. Columns of W^T are rows of W, which are contiguous in memory, so that each
 * panel is interleaved by itself. */
static void pack_transposed(float *p, const Matrix *w, int k0, int K, int j0, int J, const Kernel *kernel) {
    int S = kernel->columns;
    size_t I = (size_t)w->I;
    for (int j = 0; j < J; j += S, p += (size_t)K * (size_t)S + GAP) {
        int columns = smaller(J - j, S);
        size_t first = (size_t)(j0 + j) * I + (size_t)k0;
        if (as_it_is(w)) { pack_rows(p, S, (const float *)w->data + first, I, columns, K, kernel); continue; }
        if (columns < S) memset(p, 0, (size_t)K * (size_t)S * sizeof *p);
        for (int i = 0; i < columns; i += LINES) {
            float lines[LINES * BLOCK_K];
            int rows = smaller(columns - i, LINES);
            if (rows == LINES && has_columns(w, kernel)) {
                unpack_lines(p + i, w, k0, K, j0 + j + i, kernel);
                continue;
            }
            for (int r = 0; r < rows; r++)
                widen(lines + r * BLOCK_K, w, first + (size_t)(i + r) * I, K, kernel);
            kernel->interleave(p + i, S, lines, BLOCK_K, rows, K);
        }
    }
}

/* Packs panels of W itself, p[j/S][k*S + j%S] = W[k0+k][j0+j]: one row of W after
 * another, each into all panels. */
static void pack_straight(float *p, const Matrix *w, int k0, int K, int j0, int J, const Kernel *kernel) {
    size_t S = (size_t)kernel->columns, distance = (size_t)K * S + GAP,
        first = (size_t)k0 * (size_t)w->I + (size_t)j0;
    float line[BLOCK_J];
    if (as_it_is(w)) {
        spread(p, S, distance, (const float *)w->data + first, (size_t)w->I, (size_t)J, K);
        return;
    }
    for (int k = 0; k < K; k++, p += S, first += (size_t)w->I) {
        widen(line, w, first, J, kernel);
        spread(p, S, distance, line, 0, (size_t)J, 1);
    }
}

/* ---- one part of a product ---- */

typedef struct { int m0, m1, j0, j1, k0, k1; } Part;            /* m: rows, j: columns, k: steps */

/* Computes a tile at the edge of C, which has M rows and J columns inside C: computes a whole tile and
 * copies these. row: the distance between A's rows, or 0 if A is packed. b is packed. */
static void edge_tile(float *C, size_t stride, const float *a, size_t row, const float *b, int M, int J,
                      int k, int add, const Kernel *kernel) {
    float c[KERNEL_ROWS * KERNEL_COLUMNS];
    size_t S = (size_t)kernel->columns, bytes = (size_t)J * sizeof *c;
    memset(c, 0, (size_t)kernel->rows * S * sizeof *c);
    for (int i = 0; i < M && add; i++) memcpy(c + (size_t)i * S, C + (size_t)i * stride, bytes);
    if (row) kernel->tile_in_place(c, S, a, row, b, S, M, k, add);
    else kernel->tile(c, S, a, b, k, add);
    for (int i = 0; i < M; i++) memcpy(C + (size_t)i * stride, c + (size_t)i * S, bytes);
}

/* Return 1 if A (or W) is not packed. A is not packed if its rows are short or few and the kernel can read
 * them as they are in memory. W is not packed if, besides, few rows of A use it. */
static int a_in_place(const Product *p) {
    return p->kernel->tile_in_place && p->a.step == 1 && (p->a.row <= 512 || p->M <= FEW_ROWS);
}
static int w_in_place(const Product *p) {
    return a_in_place(p) && !p->transposed && p->M <= 64 && p->w->I <= 512 && as_it_is(p->w);
}

/* Computes one part of C. A: all rows of steps k0 .. k1-1, packed, or unused if A is read in place. b:
 * room for the panels of one block of k. */
static void product_part(const Product *p, Part at, const float *A, float *b) {
    const Kernel *kernel = p->kernel;
    int R = kernel->rows, S = kernel->columns, padded = (p->M + R - 1) / R * R, most = steps(at.k1 - at.k0);
    /* columns from `packed` on are in packed panels */
    int packed = w_in_place(p) ? at.j1 - (at.j1 - at.j0) % S : at.j0;
    size_t row = a_in_place(p) ? p->a.row : 0, I = (size_t)p->w->I;
    for (int k = at.k0; k == at.k0 || k < at.k1; k += most) {   /* runs once even if K is 0: then C = 0 */
        int nk = smaller(at.k1 - k, most), more = k > 0 || p->add;
        const float *panel = b, *a = row ? p->a.a + k : A + (size_t)(k - at.k0) * (size_t)padded;
        if (p->transposed) pack_transposed(b, p->w, k, nk, at.j0, at.j1 - at.j0, kernel);
        else if (packed < at.j1) pack_straight(b, p->w, k, nk, packed, at.j1 - packed, kernel);
        for (int j = at.j0; j < at.j1; j += S) {
            const float *w = j < packed ? (const float *)p->w->data + (size_t)k * I + (size_t)j : panel;
            for (int m = at.m0; m < at.m1; m += R) {
                int rows = smaller(at.m1 - m, R), columns = smaller(at.j1 - j, S);
                const float *tile = a + (size_t)m * (row ? row : (size_t)nk);
                float *c = p->C + (size_t)m * p->stride + (size_t)j;
                if (columns < S || (rows < R && !row))
                    edge_tile(c, p->stride, tile, row, w, rows, columns, nk, more, kernel);
                else if (row)
                    kernel->tile_in_place(c, p->stride, tile, row, w, j < packed ? I : (size_t)S, rows, nk,
                                          more);
                else kernel->tile(c, p->stride, tile, w, nk, more);
            }
            if (j >= packed) panel += (size_t)nk * (size_t)S + GAP;
        }
    }
    for (int m = at.m0; m < at.m1 && p->bias && at.k1 == p->K; m++)
        for (int j = at.j0; j < at.j1; j++) p->C[(size_t)m * p->stride + (size_t)j] += p->bias[j];
}

/* ---- few rows of x ---- */

/* Computes M <= FEW_ROWS rows of x times FEW_COLUMNS rows of W, from row j0 on. Nothing is packed. W's
 * rows are copied only if they are 4-bit, have to be rounded, or are fewer than FEW_COLUMNS. */
static void few_rows_group(const Product *p, int j0) {
    const Kernel *kernel = p->kernel;
    const Matrix *w = p->w;
    int J = smaller(p->J - j0, FEW_COLUMNS);
    int in_place = J == FEW_COLUMNS && w->type != NF4 && (w->compute == F32 || w->compute == w->type);
    int step = in_place ? p->K : STEPS;
    size_t size = w->type == F32 ? sizeof(float) : sizeof(uint16_t), row = (size_t)w->I;
    size_t stride = J < FEW_COLUMNS ? FEW_COLUMNS : p->stride;
    float edge[FEW_ROWS * FEW_COLUMNS], lines[FEW_COLUMNS * STEPS], *C = p->C + j0,
        *c = J < FEW_COLUMNS ? edge : C;
    for (int m = 0; m < p->M && c == edge; m++)
        for (int j = 0; j < FEW_COLUMNS; j++)
            edge[m * FEW_COLUMNS + j] = p->add && j < J ? C[(size_t)m * p->stride + (size_t)j] : 0;
    for (int k = 0; k == 0 || k < p->K; k += step) {
        int nk = smaller(p->K - k, step), more = k > 0 || p->add;
        size_t first = (size_t)j0 * row + (size_t)k;
        const float *x = p->a.a + k;
        if (in_place) {
            kernel->few(c, stride, x, p->a.row, (const char *)w->data + first * size, row, w->type, p->M, nk,
                        more);
            continue;
        }
        for (int j = 0; j < FEW_COLUMNS; j++)
            if (j < J) widen(lines + j * STEPS, w, first + (size_t)j * row, nk, kernel);
            else memset(lines + j * STEPS, 0, (size_t)nk * sizeof *lines);
        kernel->few(c, stride, x, p->a.row, lines, STEPS, F32, p->M, nk, more);
    }
    for (int m = 0; m < p->M; m++)
        for (int j = 0; j < J; j++) {
            if (c == edge) C[(size_t)m * p->stride + (size_t)j] = edge[m * FEW_COLUMNS + j];
            if (p->bias) C[(size_t)m * p->stride + (size_t)j] += p->bias[j0 + j];
        }
}

static void few_rows_part(const Product *p, size_t from, size_t to) {
    for (int i = (int)from; i < (int)to; i++) few_rows_group(p, i * FEW_COLUMNS);
}

/* Computes M <= S rows of x times R rows of W, from row j0 on. x (K,S) is packed as a panel, and the
 * tile is C's transpose. */
static void slim_tile(const Product *p, const float *x, int j0, int R, int S) {
    const Kernel *kernel = p->kernel;
    int J = smaller(p->J - j0, R);
    float c[KERNEL_ROWS * KERNEL_COLUMNS], lines[KERNEL_ROWS * BLOCK_K];
    memset(c, 0, (size_t)(R * S) * sizeof *c);
    for (int m = 0; m < p->M && p->add; m++)
        for (int j = 0; j < J; j++) c[j * S + m] = p->C[(size_t)m * p->stride + (size_t)(j0 + j)];
    for (int k0 = 0; k0 < p->K; k0 += STEPS, x += STEPS * S) {
        int nk = smaller(p->K - k0, STEPS);
        size_t row = (size_t)p->w->I, first = (size_t)j0 * row + (size_t)k0;
        const float *a = lines;
        if (as_it_is(p->w) && J == R) a = (const float *)p->w->data + first;
        else {
            for (int j = 0; j < R; j++)
                if (j < J) widen(lines + j * BLOCK_K, p->w, first + (size_t)j * row, nk, kernel);
                else memset(lines + j * BLOCK_K, 0, (size_t)nk * sizeof *lines);
            row = BLOCK_K;
        }
        if (S == kernel->columns) kernel->tile_in_place(c, (size_t)S, a, row, x, (size_t)S, R, nk, 1);
        else kernel->narrow_in_place(c, (size_t)S, a, row, x, nk, 1);
    }
    for (int m = 0; m < p->M; m++)
        for (int j = 0; j < J; j++)
            p->C[(size_t)m * p->stride + (size_t)(j0 + j)] = c[j * S + m] + (p->bias ? p->bias[j0 + j] : 0);
}

static void slim_part(const Product *p, const float *x, int R, int S, size_t from, size_t to) {
    for (int i = (int)from; i < (int)to; i++) slim_tile(p, x, i * R, R, S);
}

/* Computes y = x W^T if x has too few rows to make packing W worth its time. */
static void slim(const Product *p, float *panel) {
    const Kernel *kernel = p->kernel;
    int narrow = p->M <= kernel->narrow_columns, R = narrow ? kernel->narrow_rows : kernel->rows;
    int S = narrow ? kernel->narrow_columns : kernel->columns;
    pack_rows(panel, S, p->a.a, p->a.row, p->M, p->K, kernel);
    IN_PARTS((double)p->M * p->J * p->K / 4, (p->J + R - 1) / R, slim_part(p, panel, R, S, from, to));
}

/* ---- the whole product ---- */

/* Return the floats of scratch: for the steps of A that are packed at a time (all steps if A has few
 * rows), and for one thread's panels of B. Both grow with each size, so that the scratch measured for the
 * largest product is enough for all. */
static size_t floats_of_a(int M, int K) {
    size_t few = (size_t)(KERNEL_COLUMNS + smaller(M, KERNEL_COLUMNS)) * (size_t)K;
    size_t many = (size_t)(KERNEL_COLUMNS + M) * (size_t)smaller(K, CHUNK_K);
    return few > many ? few : many;
}
static size_t floats_of_b(int J, int K) {
    size_t columns = KERNEL_COLUMNS + (size_t)smaller(J, BLOCK_J);
    return (size_t)smaller(K, BLOCK_K) * columns + columns / TILE_J * GAP;
}
size_t fast_product_floats(int M, int J, int K) {
    return floats_of_a(M, K) + (size_t)threads_max() * floats_of_b(J, K);
}

/* Returns where part i begins if n things are divided into `parts` parts. */
static int share(int i, int parts, int n) { return (int)((double)i * n / parts); }

/* The division of C into groups of panels and blocks of tiles. All groups (blocks) have the same number of
 * panels (tiles), or differ by one. k0 .. k1-1: the steps. */
typedef struct { int groups, blocks, panels, tiles, k0, k1; } Grid;

static void product_parts(const Product *p, const Grid *grid, const float *A, float *b,
                          size_t from, size_t to) {
    int R = p->kernel->rows, S = p->kernel->columns;
    for (int item = (int)from; item < (int)to; item++) {
        int g = item % grid->groups, m = item / grid->groups;
        Part part;
        part.m0 = share(m, grid->blocks, grid->tiles) * R;
        part.m1 = smaller(share(m + 1, grid->blocks, grid->tiles) * R, p->M);
        part.j0 = share(g, grid->groups, grid->panels) * S;
        part.j1 = smaller(share(g + 1, grid->groups, grid->panels) * S, p->J);
        part.k0 = grid->k0;
        part.k1 = grid->k1;
        product_part(p, part, A, b);
    }
}

/* Returns the division of C: at least four parts for each thread if C is large enough, and the same number
 * of groups for each thread. */
static Grid grid_of(const Product *p, int few) {
    int R = p->kernel->rows, S = p->kernel->columns, threads = threads_max(), most = few ? 1 : BLOCK_J / S;
    Grid g = { 0, 0, 0, 0, 0, 0 };
    g.tiles = (p->M + R - 1) / R;
    g.panels = (p->J + S - 1) / S;
    g.blocks = (p->M + BLOCK_M - 1) / BLOCK_M;
    g.groups = (g.panels + most - 1) / most;
    while (g.groups % threads && g.groups < g.panels) g.groups++;
    while (g.groups * g.blocks < 4 * threads && g.groups + threads <= g.panels) g.groups += threads;
    while (g.groups * g.blocks < 4 * threads && 16 * g.blocks < g.tiles) g.blocks++;
    return g;
}

void fast_product(Product p, Arena *ws) {
    const Kernel *kernel = p.kernel = kernel_now();
    int M = p.M, J = p.J, K = p.K, few = p.transposed && M <= kernel->columns;
    size_t mark = ws->used, each = floats_of_b(J, K);
    float *A = arena_take(ws, fast_product_floats(M, J, K), sizeof *A);
    ws->used = mark;
    if (!A || M < 1) return;                                    /* ws only measures or has failed */
    float *B = A + floats_of_a(M, K);
    int packs = !few || has_columns(p.w, kernel);   /* many rows, or 4-bit weights that become columns */
    if (!packs && M <= FEW_ROWS && kernel->few) {
        IN_PARTS((double)J * K * (4 + M / 4), (J + FEW_COLUMNS - 1) / FEW_COLUMNS,
                 few_rows_part(&p, from, to));
        return;
    }
    if (!packs && kernel->tile_in_place) { slim(&p, A); return; }
    Grid grid = grid_of(&p, few);
    for (int k0 = 0; k0 == 0 || k0 < K; k0 += CHUNK_K) {
        grid.k0 = k0;
        grid.k1 = K - k0 < CHUNK_K ? K : k0 + CHUNK_K;
        if (!a_in_place(&p)) pack_a(A, p.a, M, k0, grid.k1, kernel);
        IN_PARTS((double)M * J * (grid.k1 - k0) / 4, grid.groups * grid.blocks,
                 product_parts(&p, &grid, A, B + (size_t)thread_index() * each, from, to));
    }
}

Matrix fast_rows(const float *x, int stride) {
    Matrix m = { F32, 0, 0, 0, NULL, NULL, NULL, F32, F32, 0 };
    m.I = stride;
    m.data = (void *)(uintptr_t)x;
    return m;
}

/* ---- the twins of ops.c's linears ---- */

/* Returns 1 if the linear computes in bf16 and the processor multiplies bf16 numbers: then
 * half.c computes the product. */
static int in_halves(int compute) { return compute == BF16 && fast_half(); }

static void round_part(float *y, const float *x, int type, size_t from, size_t to) {
    memcpy(y + from, x + from, (to - from) * sizeof *y);
    halves_round(y + from, type, to - from);
}

/* Returns a copy of x (n), rounded to the compute type; x itself if the type is F32 or if half.c rounds;
 * NULL if ws only measures or is too small. */
static const float *rounded(const float *x, int type, size_t n, Arena *ws) {
    if (type == F32 || in_halves(type)) return x;
    float *y = arena_take(ws, n, sizeof *y);
    if (y) IN_PARTS((double)n * 4, n, round_part(y, x, type, from, to));
    return y;
}

/* Rounds y in place and, if `add`, adds it to C. Without `add`, y is C. */
static void settle_part(float *C, float *y, int type, int add, size_t from, size_t to) {
    halves_round(y + from, type, to - from);
    for (size_t i = from; i < to && add; i++) C[i] += y[i];
}

/* Computes p, whose A is rounded already and whose C is contiguous. The product is rounded to p.output
 * before it is added to C. */
static void linear(Product p, Arena *ws) {
    size_t mark = ws->used, n = (size_t)p.M * (size_t)p.J;
    float *C = p.C;
    int apart = p.add && p.output != F32;
    if (in_halves(p.w->compute)) { half_product(p, fast_half(), kernel_now(), ws); return; }
    if (apart) { p.C = arena_take(ws, n, sizeof *p.C); p.add = 0; }
    fast_product(p, ws);
    if (p.output != F32 && ws->base && !ws->failed)
        IN_PARTS((double)n * 4, n, settle_part(C, p.C, p.output, apart, from, to));
    ws->used = mark;
}

static void forward(float *y, const float *x, const Matrix *w, const float *bias, int add, int N, Arena *ws) {
    size_t mark = ws->used, I = (size_t)w->I;
    View a = { rounded(x, w->compute, (size_t)N * I, ws), I, 1 };
    Product p = { y, (size_t)w->O, a, w, 1, bias, add, w->output, N, w->O, w->I, NULL, NULL };
    linear(p, ws);
    ws->used = mark;
}

void fast_linear_forward(float *y, const float *x, const Matrix *w, const float *bias, int N, Arena *ws) {
    forward(y, x, w, bias, 0, N, ws);
}
void fast_linear_add(float *y, const float *x, const Matrix *w, const float *bias, int N, Arena *ws) {
    forward(y, x, w, bias, 1, N, ws);
}

void fast_linear_backward(float *dx, float *dbias, const float *dy, const float *x, const Matrix *w, int N,
                          Arena *ws) {
    int O = w->O, I = w->I;
    size_t mark = ws->used;
    const float *g = rounded(dy, w->compute, (size_t)N * (size_t)O, ws);
    if (dx) {                                                   /* dx += dy W */
        View rows = { g, (size_t)O, 1 };
        Product p = { dx, (size_t)I, rows, w, 0, NULL, 1, w->output, N, I, O, NULL, NULL };
        linear(p, ws);
    }
    if (w->grad) {  /* dW += dy^T x: x is the W of the product */
        View columns = { g, 1, (size_t)O };
        Matrix input = fast_rows(x, I);
        input.compute = w->compute;
        Product p = { w->grad, (size_t)I, columns, &input, 0, NULL, 1, F32, O, I, N, NULL, NULL };
        linear(p, ws);
    }
    for (int n = 0; n < N && dbias && ws->base; n++)
        for (int o = 0; o < O; o++) dbias[o] += dy[(size_t)n * (size_t)O + (size_t)o];
    ws->used = mark;
}

void fast_linear_measure(Arena *ws, int N, int I, int O, int compute) {
    size_t mark = ws->used, most = fast_product_floats(N, O, I), input = fast_product_floats(N, I, O),
        weight = fast_product_floats(O, I, N);
    if (in_halves(compute)) {
        half_measure(ws, N, O, I);
        half_measure(ws, N, I, O);
        half_measure(ws, O, I, N);
        return;
    }
    if (compute != F32) {                                   /* rounded copies: of an input and of a product */
        arena_take(ws, (size_t)N * (size_t)I, sizeof(float));
        arena_take(ws, (size_t)N * (size_t)O, sizeof(float));
    }
    if (input > most) most = input;
    /* the largest scratch that y, dx or dW needs */
    arena_take(ws, weight > most ? weight : most, sizeof(float));
    ws->used = mark;
}
