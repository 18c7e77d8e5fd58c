/* fast/half.c - computes a product of bf16 numbers with the tile of fast/amx.c.
 *
 *     C (M,J) = or += A (M,K) B (K,J),  B = W or W^T, A floats;  A and W are rounded to bf16, sums are floats
 *
 * Blocks   The tile reads blocks of 32 x 32 numbers, each 2 KB in one piece. A block of the tile's left
 *          side is stored row after row. A block of its right side is stored two k at a time, column after
 *          column. Missing rows, columns and k are zeros, so that there are no edges.
 * Sides    A, of M rows, is made into blocks once, for all threads. B is divided into groups of columns. A
 *          thread makes blocks of one group and a span of k, at most 1 MB, which stay in its second-level
 *          cache while the thread multiplies all of A by them. So W, whatever its type, is read, widened
 *          and rounded once, and 4 bits become 16 by a look-up.
 *            y = x W^T     W's rows, contiguous along k, are the left side; the tile is of y's transpose
 *            dx = dy W, dW = dy^T x     rows of W (of x) are k, and two rows at a time become the right side
 * Order    An element's sum adds the blocks of k from 0 on, each block as the tile does it. So an element
 *          has the same bits wherever its row and column are, with any number of rows and threads. The
 *          bits are not those of the float kernels. The whole sum is rounded to `output`, then added to C.
 * Needs    core.c (arena), fast/threads.c, quant.c; the caller passes the kernels. No
 *          heap, no stdio, no globals.
 * Edges    M = 0 is allowed; K = 0 gives zeros. Numbers below 2^-126 count as 0, as in the tile. */
#include "fast.h"

enum {
    SIDE = HALF_SIDE, BLOCK = SIDE * SIDE,
    /* blocks of k that are multiplied at a time: 32 KB of A, which stay in the first-level cache while a
     * group's tiles use them */
    CHUNK = 16,
    SPAN = 64,                              /* blocks of k of a group that a thread has at a time */
    MOST = 8                                /* the most tiles of a group */
};

static int blocks_of(int n) { return (n + SIDE - 1) / SIDE; }
static int smaller(int a, int b) { return a < b ? a : b; }

/* Return the number of blocks that a thread needs. group_blocks: for one span of one group. tile_blocks:
 * for C, one for each tile of the group, and this for all rows of A if there is more than one span,
 * because then each tile is continued later. */
static size_t group_blocks(int J, int K) {
    return (size_t)smaller(MOST, blocks_of(J)) * (size_t)smaller(SPAN, blocks_of(K));
}
static size_t tile_blocks(int M, int J, int K) {
    return (size_t)smaller(MOST, blocks_of(J)) * (size_t)(blocks_of(K) > SPAN ? blocks_of(M) : 1);
}
static size_t thread_bytes(int M, int J, int K) {
    return BLOCK * (group_blocks(J, K) * sizeof(uint16_t) + tile_blocks(M, J, K) * sizeof(float));
}
static size_t shared_bytes(int M, int K) {
    return BLOCK * sizeof(uint16_t) * (size_t)blocks_of(M) * (size_t)blocks_of(K);
}

enum { CACHE_LINE = 64 };                                       /* bytes; blocks begin at a multiple of it */
static unsigned char *scratch(Arena *ws, int M, int J, int K) {
    unsigned char *bytes = arena_take(ws, CACHE_LINE + shared_bytes(M, K) +
                                      (size_t)threads_max() * thread_bytes(M, J, K), 1);
    return bytes ? bytes + (CACHE_LINE - (uintptr_t)bytes % CACHE_LINE) % CACHE_LINE : NULL;
}

void half_measure(Arena *ws, int M, int J, int K) {
    size_t mark = ws->used;
    scratch(ws, M, J, K);
    ws->used = mark;
}

/* Rounds n floats to bf16 and writes them as lines of 32: each line begins `next` numbers after the line
 * before. Zeros fill up the last line. */
static void narrow(uint16_t *half, size_t next, const float *x, int n, const HalfKernel *kernel) {
    if (kernel->narrow && n >= SIDE) {
        kernel->narrow(half, next, x, (size_t)(n - n % SIDE));
        half += (size_t)(n / SIDE) * next;
        x += n - n % SIDE;
        n %= SIDE;
    }
    for (; n > 0; n -= SIDE, half += next, x += SIDE) {
        if (n < SIDE) memset(half, 0, SIDE * sizeof *half);
        halves_narrow(half, x, BF16, (size_t)smaller(n, SIDE));
    }
}

/* Writes n <= CHUNK * SIDE weights, from element `at` on, as lines, as narrow() does. */
static void weights(uint16_t *half, size_t next, const Matrix *w, size_t at, int n,
                    const HalfKernel *kernel) {
    float x[CHUNK * SIDE];
    if (w->type == NF4) at += (size_t)w->first * (size_t)w->I;
    if (w->type == F32) { narrow(half, next, (const float *)w->data + at, n, kernel); return; }
    if (w->type == BF16 && n % SIDE == 0) {
        const uint16_t *from = (const uint16_t *)w->data + at;
        for (; n > 0; n -= SIDE, half += next, from += SIDE) memcpy(half, from, SIDE * sizeof *half);
        return;
    }
    /* a block of NF4 has 32 weights, or a multiple of 32 */
    if (w->type == NF4 && kernel->codes && at % SIDE == 0 && n % SIDE == 0) {
        size_t block = (size_t)w->quant->block;
        for (size_t run, rest; n > 0; at += run, half += run / SIDE * next, n -= (int)run) {
            rest = block - at % block;
            run = rest < (size_t)n ? rest : (size_t)n;
            kernel->codes(half, next, (const unsigned char *)w->data + at / 2, w->quant->table,
                          quant_scale(w->quant, at / block), run);
        }
        return;
    }
    if (w->type == NF4) dequantize_4bit(x, w->data, w->quant, at, (size_t)n);
    else halves_widen(x, (const uint16_t *)w->data + at, w->type, (size_t)n);
    narrow(half, next, x, n, kernel);
}

/* Interleaves two lines of 32 columns, those of k and k+1, as the right side needs them. */
static void pairs(uint16_t *b, const uint16_t *even, const uint16_t *odd) {
    for (int j = 0; j < SIDE; j++) {
        b[2 * j] = even[j];
        b[2 * j + 1] = odd[j];
    }
}

/* Packs blocks k0 .. k1-1 of tile t of W^T: 32 rows of W as the left side. */
static void pack_left(uint16_t *block, const Product *p, int t, int k0, int k1) {
    int last = smaller(k1 * SIDE, p->K), rows = smaller(SIDE, p->J - t * SIDE);
    if (rows < SIDE) memset(block, 0, (size_t)(k1 - k0) * BLOCK * sizeof *block);
    for (int r = 0; r < rows; r++)
        for (int k = k0 * SIDE; k < last; k += CHUNK * SIDE)
            weights(block + (size_t)(k - k0 * SIDE + r) * SIDE, BLOCK, p->w,
                    (size_t)(t * SIDE + r) * (size_t)p->w->I + (size_t)k,
                    smaller(CHUNK * SIDE, last - k), p->half);
}

/* Packs blocks k0 .. k1-1 of tiles t0 .. t1-1 of W, whose rows are k: 32 columns for each
 * tile, as the right side. */
static void pack_right(uint16_t *block, const Product *p, int t0, int t1, int k0, int k1) {
    uint16_t line[2][MOST * SIDE];
    int j = t0 * SIDE, n = smaller(p->J - j, (t1 - t0) * SIDE);
    memset(line, 0, sizeof line);
    for (int k = k0 * SIDE; k < k1 * SIDE; k += 2, block += 2 * SIDE) {
        for (int i = 0; i < 2; i++)
            if (k + i < p->K)
                weights(line[i], SIDE, p->w, (size_t)(k + i) * (size_t)p->w->I + (size_t)j, n, p->half);
            else memset(line[i], 0, sizeof line[i]);
        for (int t = 0; t < t1 - t0; t++)
            pairs(block + (size_t)t * (size_t)(k1 - k0) * BLOCK, line[0] + t * SIDE, line[1] + t * SIDE);
    }
}

/* Packs block (t,k) of an A that has to be transposed: interleaves its rows or steps, then rounds. In a
 * product with W^T the block is for the right side, in others for the left side. */
static void pack_across(uint16_t *block, const Product *p, int t, int k) {
    float x[BLOCK];
    uint16_t line[BLOCK];
    int rows = smaller(SIDE, p->M - t * SIDE), steps = smaller(SIDE, p->K - k * SIDE);
    const float *a = p->a.a + (size_t)t * SIDE * p->a.row + (size_t)k * SIDE * p->a.step;
    if (rows < SIDE || steps < SIDE) memset(x, 0, sizeof x);
    if (p->a.step == 1) p->kernel->interleave(x, SIDE, a, p->a.row, rows, steps);
    else p->kernel->interleave(x, SIDE, a, p->a.step, steps, rows);
    narrow(p->transposed ? line : block, SIDE, x, BLOCK, p->half);
    for (int i = 0; i < SIDE && p->transposed; i += 2)
        pairs(block + i * SIDE, line + i * SIDE, line + (i + 1) * SIDE);
}

/* Packs all of A. A part of this work is CHUNK blocks of a tile of 32 rows. */
static void pack_shared(uint16_t *shared, const Product *p, size_t from, size_t to) {
    int blocks = blocks_of(p->K), chunks = (blocks + CHUNK - 1) / CHUNK;
    for (int item = (int)from; item < (int)to; item++) {
        int t = item / chunks, k = item % chunks * CHUNK, last = smaller(k + CHUNK, blocks),
            rows = smaller(SIDE, p->M - t * SIDE);
        uint16_t *block = shared + ((size_t)t * (size_t)blocks + (size_t)k) * BLOCK;
        const float *a = p->a.a + (size_t)t * SIDE * p->a.row + (size_t)k * SIDE;
        if (p->transposed || p->a.step != 1)
            for (; k < last; k++, block += BLOCK) pack_across(block, p, t, k);
        else {
            if (rows < SIDE) memset(block, 0, (size_t)(last - k) * BLOCK * sizeof *block);
            for (int r = 0; r < rows; r++)
                narrow(block + r * SIDE, BLOCK, a + (size_t)r * p->a.row,
                       smaller(CHUNK * SIDE, p->K - k * SIDE), p->half);
        }
    }
}

/* Writes a whole tile to its place in C, the rows of s and the columns of t. If W is the left side, c
 * is the tile's transpose. */
static void settle(const Product *p, float *c, int s, int t) {
    float turned[BLOCK], *d = c;
    uint16_t rounded[BLOCK];
    int rows = smaller(SIDE, p->M - s * SIDE), columns = smaller(SIDE, p->J - t * SIDE);
    if (p->transposed) p->kernel->interleave(d = turned, SIDE, c, SIDE, SIDE, SIDE);
    for (int i = 0; i < rows && p->bias; i++)
        for (int j = 0; j < columns; j++) d[i * SIDE + j] += p->bias[t * SIDE + j];
    if (p->output == BF16) {
        narrow(rounded, SIDE, d, BLOCK, p->half);
        halves_widen(d, rounded, BF16, BLOCK);
    }
    for (int i = 0; i < rows; i++, d += SIDE) {
        float *C = p->C + (size_t)(s * SIDE + i) * p->stride + (size_t)t * SIDE;
        if (p->add) for (int j = 0; j < columns; j++) C[j] += d[j];
        else memcpy(C, d, (size_t)columns * sizeof *C);
    }
}

/* Returns 1 if W's tile t needs no packing: it has whole rows and blocks of bf16, and it is used once. */
static int in_place(const Product *p, int t) {
    return p->transposed && p->w->type == BF16 && p->M <= SIDE && p->K % SIDE == 0 && (t + 1) * SIDE <= p->J;
}

/* Adds the products of blocks k0 .. k1-1 to c, the tiles of row s and columns t0 .. t1-1; if k0 is 0, c is
 * overwritten. own: the packed blocks of these columns. */
static void span_product(float *c, const Product *p, const uint16_t *shared, const uint16_t *own, int s,
                         int t0, int t1, int k0, int k1) {
    const size_t I = (size_t)p->w->I, span = (size_t)(k1 - k0) * BLOCK;
    for (int k = k0; k == k0 || k < k1; k += CHUNK) {
        int n = smaller(CHUNK, k1 - k), add = k > 0;
        const uint16_t *a = shared + ((size_t)s * (size_t)blocks_of(p->K) + (size_t)k) * BLOCK,
            *b = own + (size_t)(k - k0) * BLOCK;
        for (int t = t0; t < t1; t++, b += span) {
            float *tile = c + (t - t0) * BLOCK;
            if (in_place(p, t))
                p->half->tile(tile, (const uint16_t *)p->w->data + ((size_t)t * I + (size_t)k) * SIDE, I,
                              SIDE, a, n, add);
            else p->half->tile(tile, p->transposed ? b : a, SIDE, BLOCK, p->transposed ? a : b, n, add);
        }
    }
}

/* Computes all rows of C in the columns of tiles t0 .. t1-1. */
static void group(const Product *p, const uint16_t *shared, uint16_t *own, float *c, int t0, int t1) {
    const int blocks = blocks_of(p->K), returns = blocks > SPAN;
    for (int k0 = 0, k1; k0 == 0 || k0 < blocks; k0 += SPAN) {
        k1 = smaller(k0 + SPAN, blocks);
        if (!p->transposed) pack_right(own, p, t0, t1, k0, k1);
        for (int t = t0; t < t1 && p->transposed; t++)
            if (!in_place(p, t)) pack_left(own + (size_t)(t - t0) * (size_t)(k1 - k0) * BLOCK, p, t, k0, k1);
        for (int s = 0; s < blocks_of(p->M); s++) {
            float *tile = c + (returns ? (size_t)s * (size_t)(t1 - t0) * BLOCK : 0);
            span_product(tile, p, shared, own, s, t0, t1, k0, k1);
            for (int t = t0; t < t1 && k1 == blocks; t++) settle(p, tile + (t - t0) * BLOCK, s, t);
        }
    }
}

static void groups_part(const Product *p, const uint16_t *shared, unsigned char *scratch_of_thread,
                        int groups, size_t from, size_t to) {
    int tiles = blocks_of(p->J);
    uint16_t *own = (uint16_t *)(void *)scratch_of_thread;
    float *c = (float *)(void *)(own + BLOCK * group_blocks(p->J, p->K));
    p->half->begin();
    for (size_t g = from; g < to; g++)
        group(p, shared, own, c, (int)(g * (size_t)tiles / (size_t)groups),
              (int)((g + 1) * (size_t)tiles / (size_t)groups));
    p->half->end();
}

void half_product(Product p, const HalfKernel *half, const Kernel *kernel, Arena *ws) {
    int M = p.M, J = p.J, K = p.K, tiles = blocks_of(J), blocks = blocks_of(K), threads = threads_max();
    size_t mark = ws->used, each = thread_bytes(M, J, K);
    unsigned char *shared = scratch(ws, M, J, K), *own = shared ? shared + shared_bytes(M, K) : NULL;
    uint16_t *a = (uint16_t *)(void *)shared;
    ws->used = mark;
    if (!shared || M < 1) return;
    p.half = half;
    p.kernel = kernel;
    /* few rows of A: a group is one tile, which they use while it is in the first-level cache. All threads
     * get the same number of groups. */
    int size = p.transposed && M <= 2 * SIDE ? 1 : MOST, groups = (tiles + size - 1) / size;
    while (groups % threads && groups < tiles) groups++;
    IN_PARTS((double)M * K * 4, blocks_of(M) * ((blocks + CHUNK - 1) / CHUNK), pack_shared(a, &p, from, to));
    IN_PARTS((double)M * J * K / 32 + (double)J * K / 4, groups,
             groups_part(&p, a, own + (size_t)thread_index() * each, groups, from, to));
}
