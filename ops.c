/* ops.c - the layers of a transformer as forward/backward pairs, each the plain definition; AdamW.
 *
 * Needs    core.c (arena), fast/threads.c, quant.c (16-bit and 4-bit weights), fast/choose.c and fast/half.c if it is built with them. No heap, no stdio, no globals.
 * Rules    x_forward overwrites its outputs; x_backward only ADDS to every d-array. Inputs are const.
 * Order    Every sum has one fixed order, so that a result has the same bits for any number of rows and threads, under every
 *          C99 compiler (with -ffp-contract=off):
 *            - a linear output is one accumulator, added in order of the inner index, and so are attention's scores and mixtures;
 *              the packed product below carries its accumulators across blocks and equals the three-line loop bit for bit
 *              (tests/unit/props.c); a fused twin of fast/choose.c equals the loop whose step is fmaf;
 *            - norms and softmax sums use eight lanes folded pairwise (lane_sum), at absolute positions;
 *            - threads split outputs, never a sum.
 *          That is why the log-prob of a sampled token equals, bit for bit, the one that training computes.
 * Maths    exp and the normal distribution are our own (same bits on every machine); log, tanh are libm's in double, rounded.
 * Memory   scratch comes from a workspace; with ws->base == NULL a function only measures.
 * Edges    N = 0 rows is fine everywhere. NaN in, NaN out: programs check the loss. */
#include "rlhf.h"

/* ================================================================================================================
 * Sums and elementary functions
 * ================================================================================================================ */
enum { LANES = 8 };

/* Loops over rows and numbers are functions of a part, from .. to-1, which threads share (IN_PARTS). TWICE compiles one of them a second
 * time, for eight floats at once (AVX2), and WIDE is the one for this processor. The text is the same, and so are the bits: LANES stay
 * eight, and no product is fused with a sum. */
#if defined(FAST) && !defined(F64) && defined(__x86_64__) && defined(__GNUC__) && !defined(__TINYC__)
#define INLINE static inline __attribute__((always_inline))
#define TWICE(name, parameters, arguments) \
    static void name##_plain parameters { name arguments; } \
    __attribute__((target("avx2"))) static void name##_wide parameters { name arguments; }
#define WIDE(name) (fast_wide() ? name##_wide : name##_plain)
#else
#define INLINE static inline
#define TWICE(name, parameters, arguments)
#define WIDE(name) name
#endif

INLINE float lane_fold(const float s[LANES]) { return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7])); }

INLINE float dot(const float *a, const float *b, int n) {
    float s[LANES] = {0}, tail = 0;
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++) s[k] += a[i + k] * b[i + k];
    for (; i < n; i++) tail += a[i] * b[i];
    return lane_fold(s) + tail;
}

INLINE float lane_sum(const float *a, int n) {
    float s[LANES] = {0}, tail = 0;
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++) s[k] += a[i + k];
    for (; i < n; i++) tail += a[i];
    return lane_fold(s) + tail;
}

INLINE float largest(const float *z, int n) {
    float m[LANES], max = -HUGE_VALF;
    int i = 0;
    for (int k = 0; k < LANES; k++) m[k] = -HUGE_VALF;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++) m[k] = z[i + k] > m[k] ? z[i + k] : m[k];
    for (; i < n; i++) max = z[i] > max ? z[i] : max;
    for (int k = 0; k < LANES; k++) max = m[k] > max ? m[k] : max;
    return max;
}

#ifdef F64
INLINE float exp_inline(float x) { return exp(x); }
INLINE float upper_tail(float z, float gauss) { (void)gauss; return 0.5 * erfc(z * 0.70710678118654752440); }
#else
/* e^x = 2^n e^r, n = round(x / ln 2), |r| <= ln2 / 2: e^r by its Taylor series to r^7 (the rest is below half an ulp), 2^n by
 * writing the exponent bits. The clamps lie where the result is 0 or infinity anyway; NaN passes them. No branch, no conversion
 * between int and float: compilers take several at a time (gcc needs -fno-trapping-math to see that it may). */
INLINE float exp_inline(float x) {
    const float round = 12582912.0f;                            /* 1.5 * 2^23: adding it rounds to an integer, in the low bits */
    float y = x < -110.0f ? -110.0f : x;
    y = y > 89.0f ? 89.0f : y;
    float t = y * 1.44269504f + round, n = t - round;
    float r = (y - n * 0.693359375f) + n * 2.12194440e-4f;      /* ln 2 in two parts: the first has few bits, n * it is exact */
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &t, sizeof bits);
    uint32_t whole = bits - 0x4B400000u + 256, half = whole >> 1;       /* n + 256 = half + rest: two factors, 2^128 would overflow */
    uint32_t bits_half = (half - 1) << 23, bits_rest = (whole - half - 1) << 23;
    float two_half, two_rest;
    memcpy(&two_half, &bits_half, sizeof two_half);
    memcpy(&two_rest, &bits_rest, sizeof two_rest);
    return p * two_half * two_rest;
}

/* P(normal > z) for z >= 0, given gauss = e^(-z^2/2): gauss t Q(t), t = 1 / (1 + z / sqrt 8); Q is our least-squares fit of
 * degree 9, relative error below 2e-7. */
INLINE float upper_tail(float z, float gauss) {
    float t = 1.0f / (1.0f + z * 0.35355339f), s = 0.01384188631f;
    s = s * t - 0.1312567994f;
    s = s * t + 0.4466020221f;
    s = s * t - 0.6919876055f;
    s = s * t + 0.4381505762f;
    s = s * t - 0.1066047363f;
    s = s * t + 0.2281351257f;
    s = s * t + 0.2381473767f;
    s = s * t + 0.2829100265f;
    s = s * t + 0.2820621124f;
    return 0.5f * gauss * t * s;
}
#endif

float exp_own(float x) { return exp_inline(x); }

float log1p_exp(float x) {
    double d = (double)x;
    return (float)(d > 0 ? d + log1p(exp(-d)) : log1p(exp(d)));
}

/* ================================================================================================================
 * The product. Everything that takes time goes through here.
 *
 *     C (M,J) = or += A (M,K) B (K,J)         each C element is one accumulator, added in order of k
 *
 * A is packed into tiles of R = 4 rows (k-major, 4 numbers a step), B into panels of S = 8 columns (k-major, 8 numbers a step), 256 steps at
 * a time (up to 320 if these are all): a panel is 8 KB, in the first-level cache while all tiles pass it. The 4x8 accumulators of a tile
 * live in registers, return to C between blocks of k, and go on from there: the sum is the same as the plain loop's. A thread takes up to
 * 528 rows and 256 columns.
 * Three directions:    y = x W^T: A = x, B = W^T     dx += dy W: A = dy, B = W     dW += dy^T x: A = dy^T, B = x
 * Where fast/choose.c has a twin of the tile, R, S, the innermost loop and the interleaving are the twin's; everything else is the same text.
 * A few rows of x (as in sampling) do not repay the packing of W, and wait for memory. For up to FEW_ROWS a twin may have a function that
 * packs nothing (`few`); for up to S, a tile that reads W's rows where they lie: then x is the panel and W the tiles. A product of two
 * numbers is the same from either side, so a row has the same bits as among many. 4-bit weights become floats as panels in any case.
 * Short rows of A, and W where few rows of A use it (attention), are not packed either: the twin's tile_in_place reads them where they lie.
 * ================================================================================================================ */
enum {
    TILE_M = 4, TILE_J = 8,                 /* R and S of the plain tile */
    STEPS = 256, BLOCK_K = 320,             /* steps of a panel; at most, if that is all */
    CHUNK_K = 16 * STEPS,                   /* steps of A that are packed at a time: what bounds the scratch */
    BLOCK_M = 528, BLOCK_J = 256,           /* rows and columns of C that a thread takes at a time */
    TILES = 16,                             /* tiles of A that are packed side by side */
    GAP = 16                                /* floats between panels, or all would lie at the same place of the cache */
};

#if defined(__GNUC__) && !defined(__TINYC__)
#define PREFETCH(address) __builtin_prefetch(address)
#else
#define PREFETCH(address) ((void)0)
#endif

/* c (R,S), rows of `stride` floats, = or += a b over k steps: a[k*R + i], b[k*S + j] */
static void tile_product(float *restrict c, size_t stride, const float *restrict a, const float *restrict b, int k, int add) {
    float s[TILE_M * TILE_J];
    for (int i = 0; i < TILE_M; i++)
        for (int j = 0; j < TILE_J; j++) s[i * TILE_J + j] = add ? c[(size_t)i * stride + (size_t)j] : 0;
    for (; k > 0; k--, a += TILE_M, b += TILE_J)
        for (int i = 0; i < TILE_M; i++)
            for (int j = 0; j < TILE_J; j++) s[i * TILE_J + j] += a[i] * b[j];
    for (int i = 0; i < TILE_M; i++)
        for (int j = 0; j < TILE_J; j++) c[(size_t)i * stride + (size_t)j] = s[i * TILE_J + j];
}

/* p[k*width + i] = a[i*row + k], i < rows <= width, k < K: rows that lie along memory become columns. */
static void interleave(float *restrict p, int width, const float *restrict a, size_t row, int rows, int K) {
    for (int i = 0; i < rows; i++)
        for (int k = 0; k < K; k++) p[(size_t)k * (size_t)width + (size_t)i] = a[(size_t)i * row + (size_t)k];
}

/* Steps of a panel, and of a block of packed A, of K in all. */
static int steps(int K) { return K <= BLOCK_K ? BLOCK_K : STEPS; }

static Kernel best_kernel(void) {
#if defined FAST && !defined F64
    const Kernel *twin = fast_kernel();
    if (twin) return *twin;
#endif
    Kernel plain = { "plain", TILE_M, TILE_J, 0, NULL, tile_product, NULL, NULL, 0, 0, NULL, interleave, NULL, NULL };
    return plain;
}

/* One operand as it lies in memory: element (i,k) at a[i*row + k*step]; row or step is 1. */
typedef struct { const float *a; size_t row, step; } View;

/* p[k*width + i] = a[i*row + k], k < K: `rows` rows that run along memory; the others up to width are 0. */
static void pack_rows(float *p, int width, const float *a, size_t row, int rows, int K, const Kernel *kernel) {
    if (rows < width) memset(p, 0, (size_t)K * (size_t)width * sizeof *p);
    kernel->interleave(p, width, a, row, rows, K);
}

/* K steps of several tiles or panels, `width` wide, that lie `distance` apart: a step is n numbers at row, the next one's lie `next` further.
 * What is missing in the last is 0. Rows lie far apart, and processors do not foresee the next: it is asked for. */
INLINE void spread(float *p, size_t width, size_t distance, const float *row, size_t next, size_t n, int K) {
    for (; K > 0; K--, p += width, row += next) {
        float *to = p;
        size_t i = 0;
        if (K > 4) for (size_t line = 0; line < n; line += 16) PREFETCH(row + 4 * next + line);
        for (; i + width <= n; i += width, to += distance) {    /* sizes that the compiler knows; other widths are multiples of 4 */
            if (width == 16) memcpy(to, row + i, 16 * sizeof *to);
            else if (width == 6) memcpy(to, row + i, 6 * sizeof *to);
            else for (size_t j = 0; j < width; j += 4) memcpy(to + j, row + i + j, 4 * sizeof *to);
        }
        for (size_t j = 0; j < width && i < n; j++) to[j] = i + j < n ? row[i + j] : 0;
    }
}
TWICE(spread, (float *p, size_t width, size_t distance, const float *row, size_t next, size_t n, int K), (p, width, distance, row, next, n, K))

/* Steps k0 .. k1-1 of A, a block of steps() after another, in each the tiles of R rows: the block of step k begins at (k - k0) * tiles * R.
 * Parts: up to TILES of a block. */
static void pack_a_part(float *packed, View v, int M, int k0, int k1, const Kernel *kernel, size_t from, size_t to) {
    int R = kernel->rows, tiles = (M + R - 1) / R, groups = (tiles + TILES - 1) / TILES;
    for (int item = (int)from; item < (int)to; item++) {
        int t = item % groups * TILES, some = tiles - t < TILES ? tiles - t : TILES, m = t * R, rows = M - m < some * R ? M - m : some * R;
        int most = steps(k1 - k0), k = k0 + item / groups * most, nk = k1 - k < most ? k1 - k : most;
        float *p = packed + (size_t)R * ((size_t)(k - k0) * (size_t)tiles + (size_t)t * (size_t)nk);
        const float *a = v.a + (size_t)m * v.row + (size_t)k * v.step;
        size_t distance = (size_t)nk * (size_t)R;
        if (v.step == 1)
            for (int i = 0; i < some; i++, a += (size_t)R * v.row, p += distance)
                pack_rows(p, R, a, v.row, rows - i * R < R ? rows - i * R : R, nk, kernel);
        else WIDE(spread)(p, (size_t)R, distance, a, v.step, (size_t)rows, nk);
    }
}
static void pack_a(float *packed, View v, int M, int k0, int k1, const Kernel *kernel) {
    int tiles = (M + kernel->rows - 1) / kernel->rows, parts = (tiles + TILES - 1) / TILES * ((k1 - k0 + steps(k1 - k0) - 1) / steps(k1 - k0));
    IN_PARTS((double)M * (k1 - k0) * 8, parts, pack_a_part(packed, v, M, k0, k1, kernel, from, to));
}

/* Each x to the nearest number of a compute type. */
static void round_to(float *x, int type, size_t n) {
#ifndef F64
    halves_round(x, type, n);
#else
    (void)x; (void)type; (void)n;
#endif
}

#ifndef F64
/* n 4-bit weights from element `at` on. A block has only 16 different ones: those are multiplied and rounded, and then looked up. */
static void widen_4bit(float *out, const Matrix *w, size_t at, size_t n, const Kernel *kernel) {
    enum { BLOCKS = 8 };
    const Quant *q = w->quant;
    const unsigned char *packed = w->data;
    size_t block = (size_t)q->block;
    f32 values[16 * BLOCKS];
    for (size_t run; n > 0; at += run, out += run, n -= run) {
        size_t blocks = 1, rest = block - at % block;           /* of the block that `at` is in */
        run = rest < n ? rest : n;
        if (!kernel->unpack || at % 2 || run % 8) {
            dequantize_4bit(out, packed, q, at, run);
            round_to(out, w->compute, run);
            continue;
        }
        if (rest == block && n > block) {                       /* several whole ones */
            blocks = n / block < BLOCKS ? n / block : BLOCKS;
            run = blocks * block;
        }
        for (size_t b = 0; b < blocks; b++) {
            f32 scale = quant_scale(q, at / block + b);
            for (int i = 0; i < 16; i++) values[16 * b + (size_t)i] = q->table[i] * scale;
        }
        halves_round(values, w->compute, 16 * blocks);
        kernel->unpack(out, packed + at / 2, values, (int)(block < run ? block : run), (int)run);
    }
}
#endif

/* n weights from element `at` on, as floats, rounded to the compute type where there is one. */
static void widen(float *out, const Matrix *w, size_t at, int n, const Kernel *kernel) {
#ifndef F64
    if (w->type == NF4) { widen_4bit(out, w, at, (size_t)n, kernel); return; }
    if (w->type == BF16 || w->type == F16) halves_widen(out, (const uint16_t *)w->data + at, w->type, (size_t)n);
    else
#endif
    memcpy(out, (const float *)w->data + at, (size_t)n * sizeof *out);
    if (w->type != w->compute) round_to(out, w->compute, (size_t)n);
    (void)kernel;
}

/* Is W in memory what the product multiplies by? */
static int as_it_lies(const Matrix *w) { return w->type == F32 && w->compute == F32; }

enum { LINES = 8 };                                             /* rows of W that are widened before they are interleaved */

#ifndef F64
/* 1: columns of 4-bit weights, K from k0 on, can be had at once: rows end with their last block, and the twin knows the rounding. */
static int has_columns(const Matrix *w, const Kernel *kernel) {
    return w->type == NF4 && kernel->unpack_columns && w->I % w->quant->block == 0 && w->compute != F16;
}

/* LINES rows of 4-bit weights, j0 on, as columns: p[k*S + i], k < K <= BLOCK_K; k0 is a multiple of STEPS. */
static void unpack_lines(float *p, const Matrix *w, int k0, int K, int j0, const Kernel *kernel) {
    enum { SMALLEST = 32 };                                     /* block */
    const Quant *q = w->quant;
    f32 scale[BLOCK_K / SMALLEST * LINES];
    int block = q->block < BLOCK_K ? q->block : BLOCK_K;
    size_t row = (size_t)w->I / (size_t)q->block, first = (size_t)j0 * row + (size_t)(k0 / q->block);      /* blocks of a row; the first here */
    const unsigned char *packed = (const unsigned char *)w->data + ((size_t)j0 * (size_t)w->I + (size_t)k0) / 2;
    for (int i = 0; i < LINES; i++)
        for (int b = 0; b * block < K; b++) {
            size_t n = first + (size_t)i * row + (size_t)b;
            scale[b * LINES + i] = q->absmax ? q->absmax[n] : quant_scale(q, n);
        }
    for (int b = 0; b < K * LINES / 2; b += 64) PREFETCH(packed + LINES * (size_t)w->I / 2 + (size_t)k0 * LINES / 2 + b);   /* of the next ones */
    kernel->unpack_columns(p, (size_t)kernel->columns, packed, (size_t)w->I / 2, scale, q->table, block, w->compute == BF16, K);
}
#else
static int has_columns(const Matrix *w, const Kernel *kernel) { (void)w; (void)kernel; return 0; }
static void unpack_lines(float *p, const Matrix *w, int k0, int K, int j0, const Kernel *kernel) { (void)p; (void)w; (void)k0; (void)K; (void)j0; (void)kernel; }
#endif

/* Panels of B side by side, each K x S: p[j/S][k*S + j%S] = B[k0+k][j0+j], k < K, j < J; missing columns are 0.
 * W^T (columns are rows of W, which run along memory): panel by panel, interleaved. */
static void pack_transposed(float *p, const Matrix *w, int k0, int K, int j0, int J, const Kernel *kernel) {
    int S = kernel->columns;
    for (int j = 0; j < J; j += S, p += (size_t)K * (size_t)S + GAP) {
        int columns = J - j < S ? J - j : S;
        if (as_it_lies(w)) {
            pack_rows(p, S, (const float *)w->data + (size_t)(j0 + j) * (size_t)w->I + (size_t)k0, (size_t)w->I, columns, K, kernel);
            continue;
        }
        if (columns < S) memset(p, 0, (size_t)K * (size_t)S * sizeof *p);
        for (int i = 0; i < columns; i += LINES) {
            float lines[LINES * BLOCK_K];
            int rows = columns - i < LINES ? columns - i : LINES;
            if (rows == LINES && has_columns(w, kernel)) { unpack_lines(p + i, w, k0, K, j0 + j + i, kernel); continue; }
            for (int r = 0; r < rows; r++) widen(lines + r * BLOCK_K, w, (size_t)(j0 + j + i + r) * (size_t)w->I + (size_t)k0, K, kernel);
            kernel->interleave(p + i, S, lines, BLOCK_K, rows, K);
        }
    }
}

/* W itself: row by row, each over all panels. */
static void pack_straight(float *p, const Matrix *w, int k0, int K, int j0, int J, const Kernel *kernel) {
    size_t S = (size_t)kernel->columns, distance = (size_t)K * S + GAP, at = (size_t)k0 * (size_t)w->I + (size_t)j0;
    float line[BLOCK_J];
    if (as_it_lies(w)) { WIDE(spread)(p, S, distance, (const float *)w->data + at, (size_t)w->I, (size_t)J, K); return; }
    for (int k = 0; k < K; k++, p += S, at += (size_t)w->I) {
        widen(line, w, at, J, kernel);
        WIDE(spread)(p, S, distance, line, 0, (size_t)J, 1);
    }
}

/* One tile at the edge of C, M x J of it inside: by way of a whole one. row: distance of A's rows, 0 where it is packed. b is. */
static void edge_tile(float *C, size_t stride, const float *a, size_t row, const float *b, int M, int J, int k, int add, const Kernel *kernel) {
    float c[KERNEL_ROWS * KERNEL_COLUMNS];
    size_t S = (size_t)kernel->columns, bytes = (size_t)J * sizeof *c;
    memset(c, 0, (size_t)kernel->rows * S * sizeof *c);
    for (int i = 0; i < M && add; i++) memcpy(c + (size_t)i * S, C + (size_t)i * stride, bytes);
    if (row) kernel->tile_in_place(c, S, a, row, b, S, M, k, add);
    else kernel->tile(c, S, a, b, k, add);
    for (int i = 0; i < M; i++) memcpy(C + (size_t)i * stride, c + (size_t)i * S, bytes);
}

/* What a product works on: C (M,J), rows of `stride` floats; B is w or its transpose, w->I only the distance between its rows.
 * add 0: start from 0; 1: start from C. bias (J) is added last. */
typedef struct { float *C; size_t stride; View a; const Matrix *w; const float *bias; int transposed, add, M, J, K; Kernel kernel; } Product;
typedef struct { int m0, m1, j0, j1, k0, k1; } Part;            /* rows, columns and steps */

/* Short rows of A, and few, stay where they lie, if the twin can read them there; and so do W's, where few rows of A use them. */
static int a_in_place(const Product *p) { return p->kernel.tile_in_place && p->a.step == 1 && (p->a.row <= 512 || p->M <= FEW_ROWS); }
static int w_in_place(const Product *p) { return a_in_place(p) && !p->transposed && p->M <= 64 && p->w->I <= 512 && as_it_lies(p->w); }

/* A: all rows of steps k0 .. k1-1, packed, unless they are read in place; b: room for the panels of one block of k */
static void product_part(const Product *p, Part at, const float *A, float *b) {
    const Kernel *kernel = &p->kernel;
    int R = kernel->rows, S = kernel->columns, padded = (p->M + R - 1) / R * R, most = steps(at.k1 - at.k0);
    int packed = w_in_place(p) ? at.j1 - (at.j1 - at.j0) % S : at.j0;  /* the first column whose panel is packed */
    size_t row = a_in_place(p) ? p->a.row : 0, I = (size_t)p->w->I;
    for (int k = at.k0; k == at.k0 || k < at.k1; k += most) {           /* once even for K = 0: C = 0 */
        int nk = at.k1 - k < most ? at.k1 - k : most, more = k > 0 || p->add;
        const float *panel = b, *a = row ? p->a.a + k : A + (size_t)(k - at.k0) * (size_t)padded;
        if (p->transposed) pack_transposed(b, p->w, k, nk, at.j0, at.j1 - at.j0, kernel);
        else if (packed < at.j1) pack_straight(b, p->w, k, nk, packed, at.j1 - packed, kernel);
        for (int j = at.j0; j < at.j1; j += S) {
            const float *w = j < packed ? (const float *)p->w->data + (size_t)k * I + (size_t)j : panel;
            for (int m = at.m0; m < at.m1; m += R) {
                int rows = at.m1 - m < R ? at.m1 - m : R, columns = at.j1 - j < S ? at.j1 - j : S;
                const float *tile = a + (size_t)m * (row ? row : (size_t)nk);
                float *c = p->C + (size_t)m * p->stride + (size_t)j;
                if (columns < S || (rows < R && !row)) edge_tile(c, p->stride, tile, row, w, rows, columns, nk, more, kernel);
                else if (row) kernel->tile_in_place(c, p->stride, tile, row, w, j < packed ? I : (size_t)S, rows, nk, more);
                else kernel->tile(c, p->stride, tile, w, nk, more);
            }
            if (j >= packed) panel += (size_t)nk * (size_t)S + GAP;
        }
    }
    for (int m = at.m0; m < at.m1 && p->bias && at.k1 == p->K; m++)
        for (int j = at.j0; j < at.j1; j++) p->C[(size_t)m * p->stride + (size_t)j] += p->bias[j];
}

/* M <= FEW_ROWS rows of x against FEW_COLUMNS rows of W, j0 on; both lie where they lie, unless W's have to be rounded. */
static void few_rows_group(const Product *p, int j0) {
    const Matrix *w = p->w;
    int J = p->J - j0 < FEW_COLUMNS ? p->J - j0 : FEW_COLUMNS, in_place = J == FEW_COLUMNS && w->type != NF4 && (w->compute == F32 || w->compute == w->type);
    int step = in_place ? p->K : STEPS;
    size_t size = w->type == F32 ? sizeof(float) : sizeof(uint16_t);
    float edge[FEW_ROWS * FEW_COLUMNS], lines[FEW_COLUMNS * STEPS], *C = p->C + j0, *c = J < FEW_COLUMNS ? edge : C;
    size_t stride = J < FEW_COLUMNS ? FEW_COLUMNS : p->stride, row = (size_t)w->I;
    for (int m = 0; m < p->M && c == edge; m++)
        for (int j = 0; j < FEW_COLUMNS; j++) edge[m * FEW_COLUMNS + j] = p->add && j < J ? C[(size_t)m * p->stride + (size_t)j] : 0;
    for (int k = 0; k == 0 || k < p->K; k += step) {
        int nk = p->K - k < step ? p->K - k : step, more = k > 0 || p->add;
        size_t at = (size_t)j0 * row + (size_t)k;
        if (in_place) { p->kernel.few(c, stride, p->a.a + k, p->a.row, (const char *)w->data + at * size, row, w->type, p->M, nk, more); continue; }
        for (int j = 0; j < FEW_COLUMNS; j++)
            if (j < J) widen(lines + j * STEPS, w, at + (size_t)j * row, nk, &p->kernel);
            else memset(lines + j * STEPS, 0, (size_t)nk * sizeof *lines);
        p->kernel.few(c, stride, p->a.a + k, p->a.row, lines, STEPS, F32, p->M, nk, more);
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

/* M <= S rows against R rows of W, j0 on: x (K,S) is packed as a panel, and the tile is C's transpose. */
static void slim_tile(const Product *p, const float *x, int j0, int R, int S) {
    const Kernel *kernel = &p->kernel;
    int J = p->J - j0 < R ? p->J - j0 : R;
    float c[KERNEL_ROWS * KERNEL_COLUMNS], lines[KERNEL_ROWS * BLOCK_K];
    memset(c, 0, (size_t)(R * S) * sizeof *c);
    for (int m = 0; m < p->M && p->add; m++)
        for (int j = 0; j < J; j++) c[j * S + m] = p->C[(size_t)m * p->stride + (size_t)(j0 + j)];
    for (int k0 = 0; k0 < p->K; k0 += STEPS, x += STEPS * S) {
        int nk = p->K - k0 < STEPS ? p->K - k0 : STEPS;
        size_t at = (size_t)j0 * (size_t)p->w->I + (size_t)k0, row = (size_t)p->w->I;
        const float *a = lines;
        if (as_it_lies(p->w) && J == R) a = (const float *)p->w->data + at;
        else {
            for (int j = 0; j < R; j++)
                if (j < J) widen(lines + j * BLOCK_K, p->w, at + (size_t)j * row, nk, kernel);
                else memset(lines + j * BLOCK_K, 0, (size_t)nk * sizeof *lines);
            row = BLOCK_K;
        }
        if (S == kernel->columns) kernel->tile_in_place(c, (size_t)S, a, row, x, (size_t)S, R, nk, 1);
        else kernel->narrow_in_place(c, (size_t)S, a, row, x, nk, 1);
    }
    for (int m = 0; m < p->M; m++)
        for (int j = 0; j < J; j++) p->C[(size_t)m * p->stride + (size_t)(j0 + j)] = c[j * S + m] + (p->bias ? p->bias[j0 + j] : 0);
}

static void slim_part(const Product *p, const float *x, int R, int S, size_t from, size_t to) {
    for (int i = (int)from; i < (int)to; i++) slim_tile(p, x, i * R, R, S);
}

/* y = x W^T for too few rows to repay the packing of W. */
static void slim(const Product *p, View x, float *panel) {
    int narrow = p->M <= p->kernel.narrow_columns, R = narrow ? p->kernel.narrow_rows : p->kernel.rows;
    int S = narrow ? p->kernel.narrow_columns : p->kernel.columns;
    pack_rows(panel, S, x.a, x.row, p->M, p->K, &p->kernel);
    IN_PARTS((double)p->M * p->J * p->K / 4, (p->J + R - 1) / R, slim_part(p, panel, R, S, from, to));
}

/* Floats of scratch: steps of A that are packed at a time, and a thread's panels of B. */
static size_t floats_of_a(int M, int K) { return ((size_t)M + KERNEL_COLUMNS) * (size_t)(K < CHUNK_K || M <= KERNEL_COLUMNS ? K : CHUNK_K); }
static size_t floats_of_b(int J, int K) {
    size_t columns = KERNEL_COLUMNS + (size_t)(J < BLOCK_J ? J : BLOCK_J);
    return (size_t)(K < BLOCK_K ? K : BLOCK_K) * columns + columns / TILE_J * GAP;
}
static size_t product_floats(int M, int J, int K) { return floats_of_a(M, K) + (size_t)threads_max() * floats_of_b(J, K); }

/* Where part i of `parts` begins, of n things. */
static int share(int i, int parts, int n) { return (int)((double)i * n / parts); }

/* All rows and columns as groups x blocks parts, each of whole panels and tiles, and as large as another up to one of those. */
typedef struct { int groups, blocks, panels, tiles, k0, k1; } Grid;

static void product_parts(const Product *p, const Grid *grid, const float *A, float *b, size_t from, size_t to) {
    int R = p->kernel.rows, S = p->kernel.columns;
    for (int item = (int)from; item < (int)to; item++) {
        int g = item % grid->groups, m = item / grid->groups;
        Part part = { share(m, grid->blocks, grid->tiles) * R, share(m + 1, grid->blocks, grid->tiles) * R,
                      share(g, grid->groups, grid->panels) * S, share(g + 1, grid->groups, grid->panels) * S, grid->k0, grid->k1 };
        if (part.m1 > p->M) part.m1 = p->M;
        if (part.j1 > p->J) part.j1 = p->J;
        product_part(p, part, A, b);
    }
}

static void product(float *C, size_t stride, View a, const Matrix *w, int transposed, const float *bias, int add, int M, int J, int K, Arena *ws) {
    const Product p = { C, stride, a, w, bias, transposed, add, M, J, K, best_kernel() };
    int R = p.kernel.rows, S = p.kernel.columns, tiles = (M + R - 1) / R, panels = (J + S - 1) / S, threads = threads_max();
    int blocks = (M + BLOCK_M - 1) / BLOCK_M, few = transposed && M <= S, most = few ? 1 : BLOCK_J / S, groups = (panels + most - 1) / most;
    size_t mark = ws->used, each = floats_of_b(J, K);
    float *A = arena_take(ws, product_floats(M, J, K), sizeof *A), *B = A + floats_of_a(M, K);
    ws->used = mark;
    if (!A || M < 1) return;                                    /* measuring, or the workspace has failed */
    int packs = !few || has_columns(w, &p.kernel);              /* few rows and 4 bits: a panel at a time */
    if (!packs && M <= FEW_ROWS && p.kernel.few) {
        IN_PARTS((double)J * K * (4 + M / 4), (J + FEW_COLUMNS - 1) / FEW_COLUMNS, few_rows_part(&p, from, to));
        return;
    }
    if (!packs && p.kernel.tile_in_place) { slim(&p, a, A); return; }
    /* at least four parts for each thread, where there is so much, and as many for one as for another */
    while (groups % threads && groups < panels) groups++;
    while (groups * blocks < 4 * threads && groups + threads <= panels) groups += threads;
    while (groups * blocks < 4 * threads && 16 * blocks < tiles) blocks++;
    for (int k0 = 0; k0 == 0 || k0 < K; k0 += CHUNK_K) {
        int k1 = K - k0 < CHUNK_K ? K : k0 + CHUNK_K;
        if (!a_in_place(&p)) pack_a(A, a, M, k0, k1, &p.kernel);
        Grid grid = { groups, blocks, panels, tiles, k0, k1 };
        IN_PARTS((double)M * J * (k1 - k0) / 4, groups * blocks, product_parts(&p, &grid, A, B + (size_t)thread_index() * each, from, to));
    }
}

/* Rows of floats, `stride` apart, in the part of a product's B. They are only read. */
static Matrix rows_as_matrix(const float *x, int stride) {
    Matrix m = { F32, 0, 0, 0, NULL, NULL, NULL, F32, F32 };
    m.I = stride;
    m.data = (void *)(uintptr_t)x;
    return m;
}

/* Where the processor multiplies bf16 numbers, fast/half.c has the product of linears that compute in them. */
#if defined FAST && !defined F64
static int in_halves(int compute) { return compute == BF16 && fast_half(); }

static void half_linear(float *C, View a, const Matrix *w, int transposed, const float *bias, int add, int M, int J, int K, Arena *ws) {
    const Kernel kernel = best_kernel();
    const HalfProduct p = { fast_half(), &kernel, C, (size_t)J, a.a, a.row, a.step, w, transposed, bias, add, w->output, M, J, K };
    half_product(&p, ws);
}

static void half_linear_measure(Arena *ws, int N, int I, int O) {
    half_measure(ws, N, O, I);
    half_measure(ws, N, I, O);
    half_measure(ws, O, I, N);
}
#else
static int in_halves(int compute) { (void)compute; return 0; }
#define half_linear(...) ((void)0)
#define half_linear_measure(...) ((void)0)
#endif

/* x (n) to the nearest numbers of the compute type, in a copy; x itself: F32, or fast/half.c rounds it. */
static void round_part(float *y, const float *x, int type, size_t from, size_t to) {
    memcpy(y + from, x + from, (to - from) * sizeof *y);
    round_to(y + from, type, to - from);
}
static const float *rounded(const float *x, int type, size_t n, Arena *ws) {
    if (type == F32 || in_halves(type)) return x;
    float *y = arena_take(ws, n, sizeof *y);
    if (y) IN_PARTS((double)n * 4, n, round_part(y, x, type, from, to));
    return y;
}

/* C = or += y, rounded; y may be C */
static void settle_part(float *C, float *y, int type, int add, size_t from, size_t to) {
    round_to(y + from, type, to - from);
    for (size_t i = from; i < to && add; i++) C[i] += y[i];
}

/* C (M,J) = or += product of A (M,K), rounded already, and w or its transpose; a product that is rounded is so before it is added. */
static void linear(float *C, View a, const Matrix *w, int transposed, const float *bias, int add, int M, int J, int K, Arena *ws) {
    size_t mark = ws->used, n = (size_t)M * (size_t)J;
    int apart = add && w->output != F32;
    if (in_halves(w->compute)) { half_linear(C, a, w, transposed, bias, add, M, J, K, ws); return; }
    float *y = apart ? arena_take(ws, n, sizeof *y) : C;
    product(y, (size_t)J, a, w, transposed, bias, add && !apart, M, J, K, ws);
    if (w->output != F32 && ws->base && !ws->failed) IN_PARTS((double)n * 4, n, settle_part(C, y, w->output, apart, from, to));
    ws->used = mark;
}

void linear_measure(Arena *ws, int N, int I, int O, int compute) {
    size_t mark = ws->used, most = product_floats(N, O, I), input = product_floats(N, I, O), weight = product_floats(O, I, N);
    if (in_halves(compute)) { half_linear_measure(ws, N, I, O); return; }
    if (compute != F32) {                                       /* what is rounded: an input and a product */
        arena_take(ws, (size_t)N * (size_t)I, sizeof(float));
        arena_take(ws, (size_t)N * (size_t)O, sizeof(float));
    }
    if (input > most) most = input;
    arena_take(ws, weight > most ? weight : most, sizeof(float));   /* the largest of the three directions */
    ws->used = mark;
}

static void forward(float *y, const float *x, const Matrix *w, const float *bias, int add, int N, Arena *ws) {
    size_t mark = ws->used;
    View a = { rounded(x, w->compute, (size_t)N * (size_t)w->I, ws), (size_t)w->I, 1 };
    linear(y, a, w, 1, bias, add, N, w->O, w->I, ws);
    ws->used = mark;
}
void linear_forward(float *y, const float *x, const Matrix *w, const float *bias, int N, Arena *ws) { forward(y, x, w, bias, 0, N, ws); }
void linear_add(float *y, const float *x, const Matrix *w, const float *bias, int N, Arena *ws) { forward(y, x, w, bias, 1, N, ws); }

void linear_backward(float *dx, float *dbias, const float *dy, const float *x, const Matrix *w, int N, Arena *ws) {
    int O = w->O, I = w->I;
    size_t mark = ws->used;
    const float *g = rounded(dy, w->compute, (size_t)N * (size_t)O, ws);
    View rows = { g, (size_t)O, 1 }, columns = { g, 1, (size_t)O };
    if (dx) linear(dx, rows, w, 0, NULL, 1, N, I, O, ws);       /* dx += dy W */
    if (w->grad) {                                              /* dW += dy^T x: x plays the part of the weight */
        Matrix input = rows_as_matrix(x, I);
        input.compute = w->compute;
        linear(w->grad, columns, &input, 0, NULL, 1, O, I, N, ws);
    }
    if (dbias && ws->base)
        for (int n = 0; n < N; n++)
            for (int o = 0; o < O; o++) dbias[o] += dy[(size_t)n * (size_t)O + (size_t)o];
    ws->used = mark;
}

/* ================================================================================================================
 * Embedding and norms
 * ================================================================================================================ */
void embedding_forward(float *y, const int *token, const Matrix *w, int N) {
    Kernel kernel = best_kernel();
    for (int n = 0; n < N; n++) widen(y + (size_t)n * (size_t)w->I, w, (size_t)token[n] * (size_t)w->I, w->I, &kernel);
}

void embedding_backward(const float *dy, const int *token, const Matrix *w, int N) {
    int C = w->I;
    if (!w->grad) return;
    for (int n = 0; n < N; n++) {
        float *g = w->grad + (size_t)token[n] * (size_t)C;
        for (int c = 0; c < C; c++) g[c] += dy[(size_t)n * (size_t)C + (size_t)c];
    }
}

/* y = x r w,  r = 1 / sqrt(mean(x^2) + eps)                                            [Zhang & Sennrich 2019] */
INLINE void rmsnorm_rows(float *y, const float *x, const float *w, float eps, int C, size_t from, size_t to) {
    for (size_t n = from; n < to; n++) {
        const float *xn = x + n * (size_t)C;
        float *yn = y + n * (size_t)C, r = 1 / sqrtf(dot(xn, xn, C) / (float)C + eps);
        for (int c = 0; c < C; c++) yn[c] = xn[c] * r * w[c];
    }
}
TWICE(rmsnorm_rows, (float *y, const float *x, const float *w, float eps, int C, size_t from, size_t to), (y, x, w, eps, C, from, to))

void rmsnorm_forward(float *y, const float *x, const float *w, float eps, int N, int C) {
    IN_PARTS((double)N * C * 4, N, WIDE(rmsnorm_rows)(y, x, w, eps, C, from, to));
}

/* with g = dy w:   dx += r (g - x r^2 mean(g x))     dw += sum over rows of dy x r */
INLINE void rmsnorm_backward_rows(float *dx, const float *dy, const float *x, const float *w, float eps, int C, size_t from, size_t to) {
    for (size_t n = from; n < to; n++) {
        const float *xn = x + n * (size_t)C, *dyn = dy + n * (size_t)C;
        float *dxn = dx + n * (size_t)C, r = 1 / sqrtf(dot(xn, xn, C) / (float)C + eps), gx = 0;
        for (int c = 0; c < C; c++) gx += dyn[c] * w[c] * xn[c];
        gx = gx * r * r / (float)C;
        for (int c = 0; c < C; c++) dxn[c] += r * (dyn[c] * w[c] - xn[c] * gx);
    }
}
TWICE(rmsnorm_backward_rows, (float *dx, const float *dy, const float *x, const float *w, float eps, int C, size_t from, size_t to),
      (dx, dy, x, w, eps, C, from, to))

INLINE void rmsnorm_weight(float *dw, const float *dy, const float *x, float eps, int N, int C) {
    for (int n = 0; n < N; n++) {
        const float *xn = x + (size_t)n * (size_t)C, *dyn = dy + (size_t)n * (size_t)C;
        float r = 1 / sqrtf(dot(xn, xn, C) / (float)C + eps);
        for (int c = 0; c < C; c++) dw[c] += dyn[c] * xn[c] * r;
    }
}
TWICE(rmsnorm_weight, (float *dw, const float *dy, const float *x, float eps, int N, int C), (dw, dy, x, eps, N, C))

void rmsnorm_backward(float *dx, float *dw, const float *dy, const float *x, const float *w, float eps, int N, int C) {
    IN_PARTS((double)N * C * 8, N, WIDE(rmsnorm_backward_rows)(dx, dy, x, w, eps, C, from, to));
    if (dw) WIDE(rmsnorm_weight)(dw, dy, x, eps, N, C);
}

/* mean and 1 / sqrt(var + eps) of one row */
INLINE void moments_of_row(float *mean, float *rstd, const float *x, float eps, int C) {
    float s[LANES] = {0}, tail = 0, m = lane_sum(x, C) / (float)C;
    int c = 0;
    for (; c + LANES <= C; c += LANES)
        for (int k = 0; k < LANES; k++) s[k] += (x[c + k] - m) * (x[c + k] - m);
    for (; c < C; c++) tail += (x[c] - m) * (x[c] - m);
    *mean = m;
    *rstd = 1 / sqrtf((lane_fold(s) + tail) / (float)C + eps);
}

/* y = (x - mean) r w + b,  r = 1 / sqrt(var + eps), biased variance                    [Ba et al. 2016] */
INLINE void layernorm_rows(float *y, const float *x, const float *w, const float *b, float eps, int C, size_t from, size_t to) {
    for (size_t n = from; n < to; n++) {
        const float *xn = x + n * (size_t)C;
        float *yn = y + n * (size_t)C, mean, r;
        moments_of_row(&mean, &r, xn, eps, C);
        for (int c = 0; c < C; c++) yn[c] = (xn[c] - mean) * r * w[c] + b[c];
    }
}
TWICE(layernorm_rows, (float *y, const float *x, const float *w, const float *b, float eps, int C, size_t from, size_t to),
      (y, x, w, b, eps, C, from, to))

void layernorm_forward(float *y, const float *x, const float *w, const float *b, float eps, int N, int C) {
    IN_PARTS((double)N * C * 6, N, WIDE(layernorm_rows)(y, x, w, b, eps, C, from, to));
}

/* with h = (x - mean) r, g = dy w:   dx += r (g - mean(g) - h mean(g h))    dw += sum dy h    db += sum dy */
INLINE void layernorm_backward_rows(float *dx, const float *dy, const float *x, const float *w, float eps, int C, size_t from, size_t to) {
    for (size_t n = from; n < to; n++) {
        const float *xn = x + n * (size_t)C, *dyn = dy + n * (size_t)C;
        float *dxn = dx + n * (size_t)C, mean, r, g1 = 0, gh = 0;
        moments_of_row(&mean, &r, xn, eps, C);
        for (int c = 0; c < C; c++) { g1 += dyn[c] * w[c]; gh += dyn[c] * w[c] * (xn[c] - mean) * r; }
        g1 /= (float)C;
        gh /= (float)C;
        for (int c = 0; c < C; c++) dxn[c] += r * (dyn[c] * w[c] - g1 - (xn[c] - mean) * r * gh);
    }
}
TWICE(layernorm_backward_rows, (float *dx, const float *dy, const float *x, const float *w, float eps, int C, size_t from, size_t to),
      (dx, dy, x, w, eps, C, from, to))

INLINE void layernorm_weight(float *dw, float *db, const float *dy, const float *x, float eps, int N, int C) {
    for (int n = 0; n < N; n++) {
        const float *xn = x + (size_t)n * (size_t)C, *dyn = dy + (size_t)n * (size_t)C;
        float mean, r;
        moments_of_row(&mean, &r, xn, eps, C);
        for (int c = 0; c < C; c++) { dw[c] += dyn[c] * (xn[c] - mean) * r; db[c] += dyn[c]; }
    }
}
TWICE(layernorm_weight, (float *dw, float *db, const float *dy, const float *x, float eps, int N, int C), (dw, db, dy, x, eps, N, C))

void layernorm_backward(float *dx, float *dw, float *db, const float *dy, const float *x, const float *w, float eps, int N, int C) {
    IN_PARTS((double)N * C * 10, N, WIDE(layernorm_backward_rows)(dx, dy, x, w, eps, C, from, to));
    if (dw) WIDE(layernorm_weight)(dw, db, dy, x, eps, N, C);
}

/* ================================================================================================================
 * Positions and attention
 * ================================================================================================================ */
/* Half j and half j + D/2 of each head turn by position * inv_freq[j]:  a' = a cos - b sin,  b' = b cos + a sin   [Su et al. 2021] */
INLINE void rope_rows(float *x, const int *position, const float *cosine, const float *sine, int inverse, int H, int D, size_t from, size_t to) {
    int half = D / 2;
    for (size_t n = from; n < to; n++) {
        const float *c = cosine + (size_t)position[n] * (size_t)half, *s = sine + (size_t)position[n] * (size_t)half;
        for (int h = 0; h < H; h++) {
            float *restrict a = x + (n * (size_t)H + (size_t)h) * (size_t)D, *restrict b = a + half;
            for (int j = 0; j < half; j++) {
                float u = a[j], v = b[j], sj = inverse ? -s[j] : s[j];
                a[j] = u * c[j] - v * sj;
                b[j] = v * c[j] + u * sj;
            }
        }
    }
}
TWICE(rope_rows, (float *x, const int *position, const float *cosine, const float *sine, int inverse, int H, int D, size_t from, size_t to),
      (x, position, cosine, sine, inverse, H, D, from, to))

void rope_rotate(float *x, const int *position, const float *cosine, const float *sine, int inverse, int N, int H, int D) {
    IN_PARTS((double)N * H * D * 2, N, WIDE(rope_rows)(x, position, cosine, sine, inverse, H, D, from, to));
}

/* Attention as small products: for up to 64 queries and one head, S = Q K^T, P = softmax(scale S + bias), Y = P V. A query
 * that may not see a key has p = 0 there, which adds exactly nothing: so a row's bits do not depend on its neighbours. */
enum { QUERIES = 64 };

/* Queries m0 .. m0+M-1 see rows first .. first+keys-1 of k and v between them; there are at most QUERIES more rows than one query sees. */
typedef struct { int m0, M, first, keys; } Span;

/* What a pass over attention knows. most: the most rows that one query sees; floats: scratch of each thread, which begins at scratch. */
typedef struct { const Qkv *in; const Keys *keys; const Heads *heads; int N, most; size_t floats; float *scratch; } Attention;

/* The next span from row m on: rows one after another, each of which begins among the rows that those before it see. */
static Span next_span(const Attention *a, int m) {
    const int *first = a->keys->first, *count = a->keys->count;
    Span s = { 0, 0, 0, 0 };
    s.m0 = m;
    s.first = first[m];
    for (; m < a->N && s.M < QUERIES; m++, s.M++) {
        int from = first[m] - s.first, to = from + count[m];
        if (from < 0 || (from > 0 && (from >= s.keys || to > a->most + QUERIES))) break;
        if (to > s.keys) s.keys = to;
    }
    return s;
}

static size_t span_floats(int keys, int D) {                    /* two score matrices, and the packed A of a product over either */
    int most = keys + QUERIES, wide = most > D ? most : D;
    size_t side = product_floats(QUERIES, wide, wide), other = product_floats(wide, D, QUERIES);
    return 2 * (size_t)QUERIES * (size_t)wide + (side > other ? side : other) + 64;
}

void attention_measure(Arena *ws, int keys, const Heads *heads) {
    size_t mark = ws->used;
    arena_take(ws, (size_t)threads_max() * span_floats(keys, heads->D), sizeof(float));
    ws->used = mark;
}

/* This thread's part of the scratch, as a workspace of its own. */
static Arena span_scratch(const Attention *a) {
    Arena own = { NULL, 0, 0, 0, 0 };
    own.base = (unsigned char *)(a->scratch + (size_t)thread_index() * a->floats);
    own.capacity = a->floats * sizeof *a->scratch;
    return own;
}

/* p (n) becomes softmax(scale * p) */
INLINE void softmax_row(float *p, int n, float scale) {
    float max = largest(p, n), sum;
    for (int j = 0; j < n; j++) p[j] = exp_inline(scale * (p[j] - max));
    sum = lane_sum(p, n);
    for (int j = 0; j < n; j++) p[j] /= sum;
}

/* p (M,keys): scores of head h become probabilities, those of rows of k that a query does not see 0 */
INLINE void softmax_rows(float *p, const Attention *a, Span s, int h) {
    const Heads *heads = a->heads;
    for (int m = s.m0; m < s.m0 + s.M; m++, p += s.keys) {
        int from = a->keys->first[m] - s.first, n = a->keys->count[m];
        if (heads->bias) {
            const int *bucket = heads->bucket + heads->reach + (a->keys->first[m] - a->keys->self[m]);
            for (int j = 0; j < n; j++) p[from + j] = heads->scale * p[from + j] + heads->bias[(size_t)bucket[j] * (size_t)heads->H + (size_t)h];
        }
        softmax_row(p + from, n, heads->bias ? 1 : heads->scale);
        for (int j = 0; j < from; j++) p[j] = 0;
        for (int j = from + n; j < s.keys; j++) p[j] = 0;
    }
}
TWICE(softmax_rows, (float *p, const Attention *a, Span s, int h), (p, a, s, h))

/* Where the first numbers of span s and head h are in q (and y), and in k (and v). */
static size_t query_at(const Heads *heads, Span s, int h) { return ((size_t)s.m0 * (size_t)heads->H + (size_t)h) * (size_t)heads->D; }
static size_t key_at(const Heads *heads, Span s, int h) {
    return ((size_t)s.first * (size_t)heads->K + (size_t)(h / (heads->H / heads->K))) * (size_t)heads->D;
}

/* P (M,keys) = softmax(scale q k^T + bias) of head h, 0 at keys that a row does not see */
static void probabilities(float *P, const Attention *a, Span s, int h, Arena *ws) {
    const Heads *heads = a->heads;
    View q = { a->in->q + query_at(heads, s, h), (size_t)heads->H * (size_t)heads->D, 1 };
    Matrix k = rows_as_matrix(a->in->k + key_at(heads, s, h), heads->K * heads->D);
    product(P, (size_t)s.keys, q, &k, 1, NULL, 0, s.M, s.keys, heads->D, ws);
    WIDE(softmax_rows)(P, a, s, h);
}

static void attention_heads(float *y, const Attention *a, size_t from, size_t to) {
    const Heads *heads = a->heads;
    for (int h = (int)from; h < (int)to; h++)
        for (int m = 0; m < a->N;) {
            Span s = next_span(a, m);
            Arena own = span_scratch(a);
            float *P = arena_take(&own, (size_t)s.M * (size_t)s.keys, sizeof *P);
            View p = { P, (size_t)s.keys, 1 };
            Matrix v = rows_as_matrix(a->in->v + key_at(heads, s, h), heads->K * heads->D);
            probabilities(P, a, s, h, &own);
            product(y + query_at(heads, s, h), (size_t)heads->H * (size_t)heads->D, p, &v, 0, NULL, 0, s.M, heads->D, s.keys, &own);
            m += s.M;
        }
}

/* Reserves the scratch: 1, or 0 if there is none (measuring, or too small a workspace). */
static int attention_begin(Attention *a, Arena *ws) {
    size_t mark = ws->used;
    a->most = 1;
    for (int n = 0; n < a->N && ws->base; n++) if (a->keys->count[n] > a->most) a->most = a->keys->count[n];
    a->floats = ws->base ? span_floats(a->most, a->heads->D) : 0;
    a->scratch = arena_take(ws, (size_t)threads_max() * a->floats, sizeof *a->scratch);
    ws->used = mark;
    return a->scratch != NULL;
}

void attention_forward(float *y, const Qkv *in, const Keys *keys, int N, const Heads *heads, Arena *ws) {
    Attention a = { in, keys, heads, N, 0, 0, NULL };
    if (!attention_begin(&a, ws)) return;
    IN_PARTS((double)N * heads->H * heads->D * 64, heads->H, attention_heads(y, &a, from, to));
}

/* dS (M,keys), which comes as dP = dY V^T, becomes scale P (dP - dy.y); dbias += P (dP - dy.y) */
static void softmax_backward(float *dS, const float *P, const float *dy, const float *y, const Attention *a, Span s, int h) {
    const Heads *heads = a->heads;
    size_t width = (size_t)heads->H * (size_t)heads->D, keys = (size_t)s.keys;
    for (int m = 0; m < s.M; m++, dS += keys, P += keys, dy += width, y += width) {
        float delta = dot(dy, y, heads->D);
        if (heads->bias && heads->dbias) {
            int from = a->keys->first[s.m0 + m] - s.first;
            const int *bucket = heads->bucket + heads->reach + (a->keys->first[s.m0 + m] - a->keys->self[s.m0 + m]);
            for (int j = 0; j < a->keys->count[s.m0 + m]; j++)
                heads->dbias[(size_t)bucket[j] * (size_t)heads->H + (size_t)h] += P[from + j] * (dS[from + j] - delta);
        }
        for (size_t j = 0; j < keys; j++) dS[j] = P[j] * (dS[j] - delta) * heads->scale;
    }
}

/* One span of one head. With P as in the forward and dP = dY V^T:
 *     dS = scale P (dP - dy.y)      dQ += dS K      dK += dS^T Q      dV += P^T dY */
static void span_backward(const Qkv *d, const float *dy, const float *y, const Attention *a, Span s, int h) {
    const Heads *heads = a->heads;
    int D = heads->D, keys = s.keys;
    size_t width = (size_t)heads->H * (size_t)D, kv = (size_t)heads->K * (size_t)D, row = query_at(heads, s, h), key = key_at(heads, s, h);
    Arena own = span_scratch(a);
    float *P = arena_take(&own, (size_t)s.M * (size_t)keys, sizeof *P), *dS = arena_take(&own, (size_t)s.M * (size_t)keys, sizeof *dS);
    View of_dy = { dy + row, width, 1 }, of_dS = { dS, (size_t)keys, 1 }, of_dS_t = { dS, 1, (size_t)keys }, of_P_t = { P, 1, (size_t)keys };
    Matrix k = rows_as_matrix(a->in->k + key, (int)kv), v = rows_as_matrix(a->in->v + key, (int)kv);
    Matrix q = rows_as_matrix(a->in->q + row, (int)width), dY = rows_as_matrix(dy + row, (int)width);
    probabilities(P, a, s, h, &own);
    product(dS, (size_t)keys, of_dy, &v, 1, NULL, 0, s.M, keys, D, &own);
    softmax_backward(dS, P, dy + row, y + row, a, s, h);
    product(d->q + row, width, of_dS, &k, 0, NULL, 1, s.M, D, keys, &own);
    product(d->k + key, kv, of_dS_t, &q, 0, NULL, 1, keys, D, s.M, &own);
    product(d->v + key, kv, of_P_t, &dY, 0, NULL, 1, keys, D, s.M, &own);
}

static void attention_backward_heads(const Qkv *d, const float *dy, const float *y, const Attention *a, size_t from, size_t to) {
    int group = a->heads->H / a->heads->K;
    for (int kh = (int)from; kh < (int)to; kh++)
        for (int m = 0; m < a->N;) {
            Span s = next_span(a, m);
            for (int h = kh * group; h < (kh + 1) * group; h++) span_backward(d, dy, y, a, s, h);
            m += s.M;
        }
}

/* Threads take key heads: all queries of one key head add to its keys in order. */
void attention_backward(const Qkv *d, const float *dy, const float *y, const Qkv *in, const Keys *keys, int N, const Heads *heads, Arena *ws) {
    Attention a = { in, keys, heads, N, 0, 0, NULL };
    if (!attention_begin(&a, ws)) return;
    IN_PARTS((double)N * heads->H * heads->D * 64, heads->K, attention_backward_heads(d, dy, y, &a, from, to));
}

/* ================================================================================================================
 * Activations
 * ================================================================================================================ */
INLINE float sigmoid(float x) { return 1 / (1 + exp_inline(-x)); }

/* Phi(x) and, in *density, phi(x) of the normal distribution */
INLINE float normal_cdf(float x, float *density) {
    float gauss = exp_inline(-0.5f * x * x), tail = upper_tail(fabsf(x), gauss);
    *density = gauss * (float)0.39894228040143267794;
    return x < 0 ? tail : 1 - tail;
}

/* Each activation is x times a part of it, part(x), between 0 and 1:
 *     SILU       sigmoid(x)                                                            [Elfwing et al. 2017]
 *     GELU       Phi(x) = (1 + erf(x / sqrt 2)) / 2                                    [Hendrycks & Gimpel 2016]
 *     GELU_TANH  (1 + tanh(u)) / 2 = sigmoid(2 u),  u = sqrt(2 / pi) (x + 0.044715 x^3)      [the same; GPT-2's]
 *     RELU       1 if x > 0, otherwise 0
 * Beyond +-16 sigmoid(2 u) is 0 or 1 in floats: x is held there, so that its powers do not overflow. */
INLINE float tanh_part(float x, float *slope) {                 /* *slope: its derivative */
    const float c = (float)1.59576912160573071176, cube = (float)0.044715;      /* 2 sqrt(2 / pi) */
    x = x < -16 ? -16 : x > 16 ? 16 : x;
    float twice_u = c * (x + cube * x * x * x), e = exp_inline(-fabsf(twice_u)), less = e / (1 + e);   /* the smaller of p and 1 - p */
    *slope = c * (1 + 3 * cube * x * x) * (less / (1 + e));     /* p (1 - p): nothing cancels */
    return twice_u < 0 ? less : 1 / (1 + e);
}
INLINE float part(float x, int activation) {
    float unused;
    if (activation == ACT_SILU) return sigmoid(x);
    if (activation == ACT_GELU) return normal_cdf(x, &unused);
    if (activation == ACT_GELU_TANH) return tanh_part(x, &unused);
    return x > 0 ? 1.0f : 0.0f;
}

/* dy times the derivative at x, part(x) + x part'(x) */
INLINE float pulled(float dy, float x, int activation) {
    float slope, p;
    if (activation == ACT_SILU) { p = sigmoid(x); return dy * p * (1 + x * (1 - p)); }
    if (activation == ACT_GELU) { p = normal_cdf(x, &slope); return dy * (p + x * slope); }
    if (activation == ACT_GELU_TANH) { p = tanh_part(x, &slope); return dy * (p + x * slope); }
    return x > 0 ? dy : 0;
}

/* f(activation, ...) in a text of its own for each activation, so that compilers see which it is before the loop. */
#define BY_ACTIVATION(f, ...) \
    switch (activation) { \
    case ACT_SILU: f(ACT_SILU, __VA_ARGS__); break; case ACT_GELU: f(ACT_GELU, __VA_ARGS__); break; \
    case ACT_GELU_TANH: f(ACT_GELU_TANH, __VA_ARGS__); break; default: f(ACT_RELU, __VA_ARGS__); }

INLINE void activate(int activation, float *y, const float *x, size_t from, size_t to) {
    for (size_t i = from; i < to; i++) y[i] = x[i] * part(x[i], activation);
}
INLINE void activate_backward(int activation, float *dx, const float *dy, const float *x, size_t from, size_t to) {
    for (size_t i = from; i < to; i++) dx[i] += pulled(dy[i], x[i], activation);
}
INLINE void gate_up(int activation, float *y, const float *gate, const float *up, size_t from, size_t to) {
    for (size_t i = from; i < to; i++) y[i] = gate[i] * part(gate[i], activation) * up[i];
}
INLINE void gate_up_backward(int activation, float *dgate, float *dup, const float *dy, const float *gate, const float *up, size_t from, size_t to) {
    for (size_t i = from; i < to; i++) {
        dgate[i] += pulled(dy[i] * up[i], gate[i], activation);
        dup[i] += dy[i] * gate[i] * part(gate[i], activation);
    }
}

INLINE void activation_part(float *y, const float *x, int activation, size_t from, size_t to) { BY_ACTIVATION(activate, y, x, from, to) }
TWICE(activation_part, (float *y, const float *x, int activation, size_t from, size_t to), (y, x, activation, from, to))
void activation_forward(float *y, const float *x, int activation, size_t n) {
    IN_PARTS((double)n * 24, n, WIDE(activation_part)(y, x, activation, from, to));
}

INLINE void activation_backward_part(float *dx, const float *dy, const float *x, int activation, size_t from, size_t to) {
    BY_ACTIVATION(activate_backward, dx, dy, x, from, to)
}
TWICE(activation_backward_part, (float *dx, const float *dy, const float *x, int activation, size_t from, size_t to), (dx, dy, x, activation, from, to))
void activation_backward(float *dx, const float *dy, const float *x, int activation, size_t n) {
    IN_PARTS((double)n * 24, n, WIDE(activation_backward_part)(dx, dy, x, activation, from, to));
}

/* y = act(gate) up; with SILU it is SwiGLU                                              [Shazeer 2020] */
INLINE void gated_part(float *y, const float *gate, const float *up, int activation, size_t from, size_t to) {
    BY_ACTIVATION(gate_up, y, gate, up, from, to)
}
TWICE(gated_part, (float *y, const float *gate, const float *up, int activation, size_t from, size_t to), (y, gate, up, activation, from, to))
void gated_forward(float *y, const float *gate, const float *up, int activation, size_t n) {
    IN_PARTS((double)n * 16, n, WIDE(gated_part)(y, gate, up, activation, from, to));
}

INLINE void gated_backward_part(float *dgate, float *dup, const float *dy, const float *gate, const float *up, int activation, size_t from, size_t to) {
    BY_ACTIVATION(gate_up_backward, dgate, dup, dy, gate, up, from, to)
}
TWICE(gated_backward_part, (float *dgate, float *dup, const float *dy, const float *gate, const float *up, int activation, size_t from, size_t to),
      (dgate, dup, dy, gate, up, activation, from, to))
void gated_backward(float *dgate, float *dup, const float *dy, const float *gate, const float *up, int activation, size_t n) {
    IN_PARTS((double)n * 16, n, WIDE(gated_backward_part)(dgate, dup, dy, gate, up, activation, from, to));
}

void tanh_forward(float *y, const float *x, size_t n) { for (size_t i = 0; i < n; i++) y[i] = (float)tanh((double)x[i]); }
void tanh_backward(float *dx, const float *dy, const float *y, size_t n) { for (size_t i = 0; i < n; i++) dx[i] += dy[i] * (1 - y[i] * y[i]); }

/* ================================================================================================================
 * Softmax and what is read off it
 * ================================================================================================================ */
/* log sum_v e^(z_v / T) over one row. *mean (NULL: skip) is the mean of z_v / T under the softmax. */
INLINE float log_sum_exp(float *mean, const float *z, float temperature, int V) {
    float cold = 1 / temperature, m = largest(z, V) * cold, s[LANES] = {0}, sz[LANES] = {0}, tail = 0, tail_z = 0;
    int v = 0;
    for (; v + LANES <= V; v += LANES)
        for (int k = 0; k < LANES; k++) s[k] += exp_inline(z[v + k] * cold - m);
    for (; v < V; v++) tail += exp_inline(z[v] * cold - m);
    float sum = lane_fold(s) + tail;
    if (mean) {
        for (v = 0; v + LANES <= V; v += LANES)
            for (int k = 0; k < LANES; k++) sz[k] += exp_inline(z[v + k] * cold - m) * (z[v + k] * cold);
        for (; v < V; v++) tail_z += exp_inline(z[v] * cold - m) * (z[v] * cold);
        *mean = (lane_fold(sz) + tail_z) / sum;
    }
    return m + (float)log((double)sum);
}

INLINE void weights_of_row(float *w, const float *z, float temperature, int V) {
    float cold = 1 / temperature, m = largest(z, V) * cold;
    for (int v = 0; v < V; v++) w[v] = exp_inline(z[v] * cold - m);
}
TWICE(weights_of_row, (float *w, const float *z, float temperature, int V), (w, z, temperature, V))

void softmax_weights(float *w, const float *z, float temperature, int V) { WIDE(weights_of_row)(w, z, temperature, V); }

/* logprob = z_token / T - lse;   entropy = lse - sum_v p_v z_v / T */
INLINE void logprob_rows(float *logprob, float *entropy, const float *logits, const int *token, float temperature, int V, size_t from, size_t to) {
    for (size_t n = from; n < to; n++) {
        const float *z = logits + n * (size_t)V;
        float mean = 0, lse = log_sum_exp(entropy ? &mean : NULL, z, temperature, V);
        logprob[n] = z[token[n]] * (1 / temperature) - lse;
        if (entropy) entropy[n] = lse - mean;
    }
}
TWICE(logprob_rows, (float *logprob, float *entropy, const float *logits, const int *token, float temperature, int V, size_t from, size_t to),
      (logprob, entropy, logits, token, temperature, V, from, to))

void logprob_forward(float *logprob, float *entropy, const float *logits, const int *token, float temperature, int N, int V) {
    IN_PARTS((double)N * V * 16, N, WIDE(logprob_rows)(logprob, entropy, logits, token, temperature, V, from, to));
}

/* d logprob / d z_v = ([v = token] - p_v) / T,  p_v = e^(z_v / T - lse),  and the forward's output tells lse = z_token / T - logprob */
INLINE void logprob_backward_rows(float *dlogits, const float *dlogprob, const float *logprob, const float *logits, const int *token,
                                  float temperature, int V, size_t from, size_t to) {
    for (size_t n = from; n < to; n++) {
        const float *z = logits + n * (size_t)V;
        float *dz = dlogits + n * (size_t)V, cold = 1 / temperature, lse = z[token[n]] * cold - logprob[n], g = dlogprob[n] * cold;
        for (int v = 0; v < V; v++) dz[v] -= g * exp_inline(z[v] * cold - lse);
        dz[token[n]] += g;
    }
}
TWICE(logprob_backward_rows, (float *dlogits, const float *dlogprob, const float *logprob, const float *logits, const int *token,
                              float temperature, int V, size_t from, size_t to), (dlogits, dlogprob, logprob, logits, token, temperature, V, from, to))

void logprob_backward(float *dlogits, const float *dlogprob, const float *logprob, const float *logits, const int *token,
                      float temperature, int N, int V) {
    IN_PARTS((double)N * V * 16, N, WIDE(logprob_backward_rows)(dlogits, dlogprob, logprob, logits, token, temperature, V, from, to));
}

INLINE void full_kl_rows(float *kl, const float *logits, const float *ref_logits, float temperature, int V, size_t from, size_t to) {
    for (size_t n = from; n < to; n++) {
        const float *z = logits + n * (size_t)V, *r = ref_logits + n * (size_t)V;
        float cold = 1 / temperature, lse = log_sum_exp(NULL, z, temperature, V), ref_lse = log_sum_exp(NULL, r, temperature, V), total = 0;
        for (int v = 0; v < V; v++) total += exp_inline(z[v] * cold - lse) * ((z[v] * cold - lse) - (r[v] * cold - ref_lse));
        kl[n] = total;
    }
}
TWICE(full_kl_rows, (float *kl, const float *logits, const float *ref_logits, float temperature, int V, size_t from, size_t to),
      (kl, logits, ref_logits, temperature, V, from, to))

void full_kl_forward(float *kl, const float *logits, const float *ref_logits, float temperature, int N, int V) {
    IN_PARTS((double)N * V * 32, N, WIDE(full_kl_rows)(kl, logits, ref_logits, temperature, V, from, to));
}

void cross_entropy_forward(float *loss, const float *logits, const int *label, int N, int C) {
    logprob_forward(loss, NULL, logits, label, 1, N, C);
    for (int n = 0; n < N; n++) loss[n] = -loss[n];
}

void cross_entropy_backward(float *dlogits, const float *dloss, const float *loss, const float *logits, const int *label, int N, int C) {
    for (int n = 0; n < N; n++) {
        float minus = -dloss[n], logprob = -loss[n];
        size_t at = (size_t)n * (size_t)C;
        logprob_backward(dlogits + at, &minus, &logprob, logits + at, label + n, 1, 1, C);
    }
}

/* ================================================================================================================
 * Lists of tensors; AdamW over them
 * ================================================================================================================ */
static size_t tensor_size(const Tensor *t) { return (size_t)t->matrix->O * (size_t)t->matrix->I; }
static int is_trained(const Tensor *t) { return (t->flags & TENSOR_TRAINED) && !(t->flags & TENSOR_TIED); }

void tensor_carve(TensorList *list, Matrix *w, const char *name, int layer, int type, int O, int I, int flags) {
    Arena *a = list->arena;
    size_t n = (size_t)O * (size_t)I;
    if (!list->tensor) return;
    Tensor *t = &list->tensor[list->tensors];
    name_format(t->name, sizeof t->name, name, layer);
    w->type = type;
    w->O = O;
    w->I = I;
    w->id = list->tensors;
    w->compute = w->output = F32;
    w->quant = NULL;
    w->data = type == NF4 ? arena_take(a, (n + 1) / 2, 1) : arena_take(a, n, type == F32 ? sizeof(float) : sizeof(uint16_t));
    w->grad = list->trainable ? arena_take(a, n, sizeof(float)) : NULL;
    t->matrix = w;
    t->flags = flags | (list->trainable ? TENSOR_TRAINED : 0);
    list->tensors++;
}

void tensor_carve_quant(Matrix *w, int kind, int block, int doubled, Arena *a) {
    size_t blocks = quant_blocks((size_t)w->O * (size_t)w->I, block), nested = (blocks + QUANT_NESTED - 1) / QUANT_NESTED;
    Quant q, *place = arena_take(a, 1, sizeof *place);
    memset(&q, 0, sizeof q);
    q.kind = kind;
    q.block = block;
    if (!doubled) q.absmax = arena_take(a, blocks, sizeof *q.absmax);
    else {
        q.code = arena_take(a, blocks, 1);
        q.nested = arena_take(a, nested, sizeof *q.nested);
        q.map = arena_take(a, 256, sizeof *q.map);
        if (q.map) quant_map(q.map);
    }
    quant_table(q.table, kind);
    if (place) *place = q;
    w->quant = place;
}

size_t tensor_bytes(const Matrix *w) {
    size_t n = (size_t)w->O * (size_t)w->I;
    return w->type == NF4 ? (n + 1) / 2 : n * (w->type == F32 ? sizeof(float) : sizeof(uint16_t));
}

void tensor_normal(const Matrix *w, double deviation, uint64_t seed) {
    Rng r = rng_stream(seed, (uint64_t)w->id, 0);
    float *x = w->data;
    for (size_t i = 0; i < (size_t)w->O * (size_t)w->I; i++) x[i] = (float)(deviation * rng_normal(&r));
}

void tensor_fill(const Matrix *w, float value) {
    float *x = w->data;
    for (size_t i = 0; i < (size_t)w->O * (size_t)w->I; i++) x[i] = value;
}

size_t tensor_values(const Tensor *list, int tensors, int trainable_only) {
    size_t n = 0;
    for (int i = 0; i < tensors; i++)
        if (!(list[i].flags & TENSOR_TIED) && (!trainable_only || is_trained(&list[i]))) n += tensor_size(&list[i]);
    return n;
}

void optimizer_carve(Optimizer *o, const Tensor *list, int tensors, Arena *a) {
    o->n = tensor_values(list, tensors, 1);
    o->m = arena_take(a, o->n, sizeof *o->m);
    o->v = arena_take(a, o->n, sizeof *o->v);
    o->t = 0;
}

void optimizer_reset(Optimizer *o) {
    memset(o->m, 0, o->n * sizeof *o->m);
    memset(o->v, 0, o->n * sizeof *o->v);
    o->t = 0;
}

enum { PARTS = 16 };                                            /* of a sum that threads share: as many for any number of threads */

/* The sums of squares of parts of g (n), each a sixteenth of it */
static void squares(double *sum, const float *g, size_t n, size_t from, size_t to) {
    for (size_t part = from; part < to; part++) {
        size_t k = n * part / PARTS, end = n * (part + 1) / PARTS;
        double s[LANES] = {0}, tail = 0;
        for (; k + LANES <= end; k += LANES)
            for (int l = 0; l < LANES; l++) s[l] += (double)g[k + (size_t)l] * (double)g[k + (size_t)l];
        for (; k < end; k++) tail += (double)g[k] * (double)g[k];
        sum[part] = ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7])) + tail;
    }
}

double gradient_norm(const Tensor *list, int tensors) {
    double total = 0, sum[PARTS];
    for (int i = 0; i < tensors; i++) {
        if (!is_trained(&list[i])) continue;
        size_t n = tensor_size(&list[i]);
        IN_PARTS((double)n * 8, PARTS, squares(sum, list[i].matrix->grad, n, from, to));
        for (int part = 0; part < PARTS; part++) total += sum[part];
    }
    return sqrt(total);
}

void gradient_zero(const Tensor *list, int tensors) {
    for (int i = 0; i < tensors; i++)
        if (is_trained(&list[i])) {
            float *grad = list[i].matrix->grad;
            size_t n = tensor_size(&list[i]);
            IN_PARTS((double)n * 4, n, memset(grad + from, 0, (to - from) * sizeof *grad));
        }
}

/* m = b1 m + (1-b1) g    v = b2 v + (1-b2) g^2    theta = theta (1 - lr wd) - step m / (sqrt(v) root + eps)
 * PyTorch: step = lr / (1-b1^t), root = 1 / sqrt(1-b2^t).   TF1: step = lr sqrt(1-b2^t) / (1-b1^t), root = 1. */
INLINE void adamw(float *restrict w, float *restrict m, float *restrict v, const float *restrict g, const AdamW *c,
                  float scale, float step, float root, float decay, size_t from, size_t to) {
    for (size_t i = from; i < to; i++) {
        float gi = g[i] * scale;
        m[i] = c->beta1 * m[i] + (1 - c->beta1) * gi;
        v[i] = c->beta2 * v[i] + (1 - c->beta2) * gi * gi;
        w[i] = w[i] * decay - step * m[i] / (sqrtf(v[i]) * root + c->eps);
    }
}
TWICE(adamw, (float *restrict w, float *restrict m, float *restrict v, const float *restrict g, const AdamW *c,
              float scale, float step, float root, float decay, size_t from, size_t to), (w, m, v, g, c, scale, step, root, decay, from, to))

size_t optimizer_step(Optimizer *o, size_t begin, const Tensor *list, int tensors, const AdamW *c, float grad_scale) {
    if (begin == 0) o->t++;
    double one = 1 - pow((double)c->beta1, (double)o->t), two = sqrt(1 - pow((double)c->beta2, (double)o->t));
    float step = (float)(c->tf_style ? (double)c->lr * two / one : (double)c->lr / one), root = (float)(c->tf_style ? 1 : 1 / two);
    for (int i = 0; i < tensors; i++) {
        if (!is_trained(&list[i])) continue;
        float decay = list[i].flags & TENSOR_VECTOR ? 1 : 1 - c->lr * c->weight_decay;
        size_t n = tensor_size(&list[i]);
        float *w = list[i].matrix->data, *m = o->m + begin, *v = o->v + begin;
        IN_PARTS((double)n * 24, n, WIDE(adamw)(w, m, v, list[i].matrix->grad, c, grad_scale, step, root, decay, from, to));
        begin += n;
    }
    return begin;
}
