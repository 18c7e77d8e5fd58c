/* amx.c - the tile of bf16 products: fast_amx.c's own text over tile instructions written in plain C, and, where the processor has them,
 * over the real ones. Against sums in double, and bit for bit against itself: an element does not depend on what stands around it. */
#include "test.h"

/* ---- the instructions, as Intel's manual defines them (Software Developer's Manual, volume 2, TDPBF16PS and others) ---- */
static struct { int configured; unsigned char row[8][16][64]; } tiles;

/* Inputs and results below 2^-126 are 0. */
static float flush(float x) { return fabsf(x) < 1.17549435e-38f ? copysignf(0, x) : x; }
static float pair_half(const unsigned char *pair, int which) {
    uint16_t bits;
    memcpy(&bits, pair + 2 * which, sizeof bits);
    return flush(bf16_to_f32(bits));
}

static void model_loadconfig(const void *config) {
    const unsigned char *c = config;
    uint16_t bytes;
    tiles.configured = c[0] == 1 && c[1] == 0;
    for (int t = 0; t < 8; t++) {
        memcpy(&bytes, c + 16 + 2 * t, sizeof bytes);
        tiles.configured &= bytes == 64 && c[48 + t] == 16;
    }
}

static void model_release(void) { tiles.configured = 0; }

static void model_zero(int t) { memset(tiles.row[t], 0, sizeof tiles.row[t]); }

static void model_load(int t, const void *base, size_t stride) {
    for (int i = 0; i < 16; i++) memcpy(tiles.row[t][i], (const unsigned char *)base + (size_t)i * stride, 64);
}

static void model_store(int t, void *base, size_t stride) {
    for (int i = 0; i < 16; i++) memcpy((unsigned char *)base + (size_t)i * stride, tiles.row[t][i], 64);
}

/* For each row m and column n: even and odd products each in order of k, every step rounded once; their sum; then C. */
static void model_dot(int c, int a, int b) {
    for (int m = 0; m < 16; m++)
        for (int n = 0; n < 16; n++) {
            float sum[2] = { 0, 0 }, old;
            for (int k = 0; k < 16; k++)
                for (int h = 0; h < 2; h++)
                    sum[h] = flush(fmaf(pair_half(tiles.row[a][m] + 4 * k, h), pair_half(tiles.row[b][k] + 4 * n, h), sum[h]));
            memcpy(&old, tiles.row[c][m] + 4 * n, sizeof old);
            old = flush(flush(old) + flush(sum[0] + sum[1]));
            memcpy(tiles.row[c][m] + 4 * n, &old, sizeof old);
        }
}

#define AMX_MODEL
#define AMX_TARGET
#define kernel_amx kernel_model                                 /* the library has the real one */
#define _tile_loadconfig model_loadconfig
#define _tile_release model_release
#define _tile_zero model_zero
#define _tile_loadd model_load
#define _tile_stored model_store
#define _tile_dpbf16ps model_dot
extern const HalfKernel kernel_model;
static int amx_here(void) { return 1; }
#include "fast_amx.c"
#undef kernel_amx

/* ---- the tests ---- */
enum { MOST = 96, MOST_K = 320 };                               /* room for three tiles each way and ten blocks of k */
static uint16_t half_a[MOST * MOST_K], packed[MOST_K * 32];

static uint16_t rounded[MOST * MOST_K];                         /* what the double sums are of */
static float a[MOST * MOST_K], x[MOST * MOST_K];

static int up(int n) { return (n + 31) / 32 * 32; }

/* c (M,J) (+)= a (M,K) x^T (J,K) tile by tile, everything padded to 32: how ops.c would use it. `step` 1: x is row-major; else it is K x J. */
static void product(const HalfKernel *kernel, float *c, int M, int J, int K, int columns_of_x, int add) {
    size_t row = columns_of_x ? 1 : (size_t)K, step = columns_of_x ? (size_t)J : 1;
    static float tile[32 * 32];
    memset(half_a, 0, sizeof half_a);
    for (int m = 0; m < M; m++) for (int k = 0; k < K; k++) half_a[m * MOST_K + k] = f32_to_bf16(a[m * K + k]);
    kernel->begin();
    for (int j0 = 0; j0 < J; j0 += 32) {
        int columns = J - j0 < 32 ? J - j0 : 32;
        memset(packed, 0xAA, sizeof packed);                    /* pack has to overwrite all that tile reads */
        kernel->pack(packed, x + (size_t)j0 * row, row, step, columns, K);
        for (int m0 = 0; m0 < M; m0 += 32) {
            for (int i = 0; i < 32; i++) for (int j = 0; j < 32; j++) tile[i * 32 + j] = m0 + i < M && j < columns ? c[(m0 + i) * J + j0 + j] : 0;
            kernel->tile(tile, 32, half_a + m0 * MOST_K, MOST_K, packed, up(K), add);
            for (int i = 0; i < 32 && m0 + i < M; i++) for (int j = 0; j < columns; j++) c[(m0 + i) * J + j0 + j] = tile[i * 32 + j];
        }
    }
    kernel->end();
}

/* Against double. A sum passes at most 16 roundings in its chain, one where the chains meet, and one for each block: the error is below
 * (18 + K/32) 2^-24 times the sum of magnitudes; one unit more for the sum's own rounding to second order. */
static void against_double(const HalfKernel *kernel, const char *name) {
    static const int shape[][3] = { {1,1,1}, {1,7,3}, {2,33,31}, {16,16,32}, {17,15,33}, {31,32,64}, {32,1,65}, {33,65,97}, {64,64,256}, {61,3,257}, {96,37,319} };
    static float c[MOST * MOST], c0[MOST * MOST];
    for (size_t s = 0; s < sizeof shape / sizeof *shape; s++)
        for (int way = 0; way < 4; way++) {                     /* bit 0: add; bit 1: x lies the other way */
            int M = shape[s][0], J = shape[s][1], K = shape[s][2], add = way & 1, turned = way >> 1;
            double worst = 0;
            Rng r = rng_stream(31, s, (uint64_t)way);
            for (int i = 0; i < M * K; i++) a[i] = (float)rng_normal(&r);
            for (int i = 0; i < J * K; i++) x[i] = (float)rng_normal(&r);
            for (int i = 0; i < J * K; i++) rounded[i] = f32_to_bf16(x[i]);
            for (int i = 0; i < M * J; i++) c0[i] = c[i] = (float)rng_normal(&r);
            product(kernel, c, M, J, K, turned, add);
            for (int m = 0; m < M; m++)
                for (int j = 0; j < J; j++) {
                    double sum = add ? (double)c0[m * J + j] : 0, size = fabs(sum);
                    for (int k = 0; k < K; k++) {
                        double term = (double)bf16_to_f32(f32_to_bf16(a[m * K + k])) * (double)bf16_to_f32(rounded[turned ? k * J + j : j * K + k]);
                        sum += term;
                        size += fabs(term);
                    }
                    double d = fabs((double)c[m * J + j] - sum) / size;
                    if (!(d <= worst)) worst = d;
                }
            CHECK(worst < (19 + K / 32) * 5.97e-8, "%s: %d x %d x %d, add %d, turned %d: error %.3g of the magnitudes", name, M, J, K, add, turned, worst);
        }
}

/* Every row alone, and every column alone, in another place of the tile: the same bits as among the others. */
static void alone(const HalfKernel *kernel, const char *name) {
    enum { M = 45, J = 50, K = 130 };
    static float all[M * J], one[M * J], keep_a[M * K], keep_x[J * K];
    int rows = 1, columns = 1, differ = 0;
    Rng r = rng_stream(32, 0, 0);
    for (int i = 0; i < M * K; i++) a[i] = keep_a[i] = (float)rng_normal(&r);
    for (int i = 0; i < J * K; i++) x[i] = keep_x[i] = (float)rng_normal(&r);
    product(kernel, all, M, J, K, 0, 0);
    for (int m = 0; m < M; m++) {
        memcpy(a, keep_a + m * K, K * sizeof *a);
        product(kernel, one, 1, J, K, 0, 0);
        rows &= !memcmp(one, all + m * J, J * sizeof *one);
        differ |= memcmp(one, all, J * sizeof *one) != 0;
    }
    memcpy(a, keep_a, sizeof keep_a);
    for (int j = 0; j < J; j++) {
        memcpy(x, keep_x + j * K, K * sizeof *x);
        product(kernel, one, M, 1, K, 0, 0);
        for (int m = 0; m < M; m++) columns &= !memcmp(one + m, all + m * J + j, sizeof *one);
    }
    CHECK(rows && differ, "%s: a row alone has the bits that it has among %d", name, M);
    CHECK(columns, "%s: a column alone has the bits that it has among %d", name, J);
    memcpy(a, keep_x, sizeof keep_x);                           /* the weights from either side */
    memcpy(x, keep_a, sizeof keep_a);
    product(kernel, one, J, M, K, 0, 0);
    int turned = 1;
    for (int m = 0; m < M; m++) for (int j = 0; j < J; j++) turned &= !memcmp(one + j * M + m, all + m * J + j, sizeof *one);
    CHECK(turned, "%s: A B and the transpose of B^T A^T have the same bits", name);
    memcpy(a, keep_a, sizeof keep_a);
    memcpy(x, keep_x, sizeof keep_x);
    product(kernel, one, M, J, K, 0, 0);
    CHECK(!memcmp(one, all, sizeof one), "%s: the same again", name);
    /* The last tile again, in two parts: block by block C carries on. */
    enum { LAST = (J - 1) / 32 * 32, PART = 96 };
    kernel->begin();
    memset(packed, 0, sizeof packed);
    kernel->pack(packed, x + LAST * K, K, 1, J - LAST, K);
    kernel->tile(one, 32, half_a, MOST_K, packed, PART, 0);
    kernel->tile(one, 32, half_a + PART, MOST_K, packed + PART * 32, up(K) - PART, 1);
    kernel->end();
    int parts = 1;
    for (int m = 0; m < 32; m++) for (int j = LAST; j < J; j++) parts &= !memcmp(one + m * 32 + j - LAST, all + m * J + j, sizeof *one);
    CHECK(parts, "%s: a sum in two parts has the bits of the whole", name);
}

/* The order within 32 k, by sums that another order would round otherwise; TINY is half of 1's last bit. */
static void order_of_the_manual(void) {
#define TINY 5.9604644775390625e-08f
    static const struct { float term[6], sum; } known[] = {
        { { 1, -1, TINY, 0, TINY, 0 }, 0 },                     /* even: TINY is lost on 1, twice; odd: -1 */
        { { 1, 0, 0, TINY, 0, TINY }, 1 + 2 * TINY },           /* even: 1; odd: 2 TINY, which 1 keeps */
        { { TINY, TINY, 1, -1, 0, 0 }, TINY }                   /* even: lost; odd: TINY - 1 is exact */
    };
    float c[1] = { 0 };
    for (size_t s = 0; s < sizeof known / sizeof *known; s++) {
        for (int k = 0; k < 6; k++) { a[k] = known[s].term[k]; x[k] = 1; }
        product(&kernel_model, c, 1, 1, 6, 0, 0);
        CHECK(c[0] == known[s].sum, "the order of the manual, sum %d: %.9g", (int)s, (double)c[0]);
    }
}

int main(void) {
    CHECK(!tiles.configured, "no tile is configured");
    kernel_model.begin();
    CHECK(tiles.configured, "begin() configures eight tiles of 16 rows of 64 bytes");
    kernel_model.end();
    CHECK(!tiles.configured, "end() releases them");
    against_double(&kernel_model, "model");
    alone(&kernel_model, "model");
    order_of_the_manual();
    if (!kernel_amx.here()) SKIP("the real tile instructions: this processor, system or build has none");
    else {
        against_double(&kernel_amx, "amx");
        alone(&kernel_amx, "amx");
    }
    return test_end("amx");
}
