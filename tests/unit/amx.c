/* amx.c - products of bf16 numbers: fast/amx.c's tile and fast/half.c's product around it, over tile
 * instructions written in plain C (amx_model.h), and, where the processor has them, over the real ones.
 * Against sums in double, and bit for bit against themselves: an element does not depend on what stands
 * around it, nor on threads. (Whole policies: tests/unit/props.c.) */
#include "test.h"
#ifdef PLAIN
int main(void) {
    SKIP("products of bf16 numbers on tile registers: a build of the definitions has none");
    return test_end("amx");
}
#else
#include "../../fast/fast.h"
#include "amx_model.h"

/* ---- the tile ---- */
enum { MOST = 96, MOST_K = 320 };  /* room for three tiles each way and ten blocks of k */
static uint16_t half_a[MOST * MOST_K], packed[MOST_K * 32];

static uint16_t rounded[MOST * MOST_K];                         /* what the double sums are of */
static float left[MOST * MOST_K], right[MOST * MOST_K];

static int up(int n) { return (n + 31) / 32 * 32; }

/* The right side's blocks: column j's number k is right[j*row + k*step]. */
static void pack(uint16_t *b, size_t row, size_t step, const float *from, int columns, int K) {
    memset(b, 0, (size_t)up(K) * 32 * sizeof *b);
    for (int k = 0; k < K; k++)
        for (int j = 0; j < columns; j++)
            b[k / 2 * 64 + 2 * j + k % 2] = f32_to_bf16(from[(size_t)j * row + (size_t)k * step]);
}

/* c (M,J) (+)= left (M,K) right^T (J,K) tile by tile, everything padded to 32. `step` 1: x is row-major; else
 * it is K x J. */
static void product(const HalfKernel *kernel, float *c, int M, int J, int K, int columns_of_x, int add) {
    size_t row = columns_of_x ? 1 : (size_t)K, step = columns_of_x ? (size_t)J : 1;
    static float tile[32 * 32];
    memset(half_a, 0, sizeof half_a);
    for (int m = 0; m < M; m++)
        for (int k = 0; k < K; k++) half_a[m * MOST_K + k] = f32_to_bf16(left[m * K + k]);
    kernel->begin();
    for (int j0 = 0; j0 < J; j0 += 32) {
        int columns = J - j0 < 32 ? J - j0 : 32;
        pack(packed, row, step, right + (size_t)j0 * row, columns, K);
        for (int m0 = 0; m0 < M; m0 += 32) {
            for (int i = 0; i < 32; i++)
                for (int j = 0; j < 32; j++)
                    tile[i * 32 + j] = m0 + i < M && j < columns ? c[(m0 + i) * J + j0 + j] : 0;
            kernel->tile(tile, half_a + m0 * MOST_K, MOST_K, 32, packed, up(K) / 32, add);
            for (int i = 0; i < 32 && m0 + i < M; i++)
                for (int j = 0; j < columns; j++) c[(m0 + i) * J + j0 + j] = tile[i * 32 + j];
        }
    }
    kernel->end();
}

/* Against double. A sum passes at most 16 roundings in its chain, one where the chains meet, and one for each
 * block: the error is below (18 + K/32) 2^-24 times the sum of magnitudes; one unit more for the sum's own
 * rounding to second order. */
static void against_double(const HalfKernel *kernel, const char *name) {
    static const int shape[][3] = { {1,1,1}, {1,7,3}, {2,33,31}, {16,16,32}, {17,15,33}, {31,32,64},
                                    {32,1,65}, {33,65,97}, {64,64,256}, {61,3,257}, {96,37,319} };
    static float c[MOST * MOST], c0[MOST * MOST];
    for (size_t s = 0; s < sizeof shape / sizeof *shape; s++)
        for (int way = 0; way < 4; way++) {                     /* bit 0: add; bit 1: x lies the other way */
            int M = shape[s][0], J = shape[s][1], K = shape[s][2], add = way & 1, turned = way >> 1;
            double worst = 0;
            Rng r = rng_stream(31, s, (uint64_t)way);
            for (int i = 0; i < M * K; i++) left[i] = (float)rng_normal(&r);
            for (int i = 0; i < J * K; i++) right[i] = (float)rng_normal(&r);
            for (int i = 0; i < J * K; i++) rounded[i] = f32_to_bf16(right[i]);
            for (int i = 0; i < M * J; i++) c0[i] = c[i] = (float)rng_normal(&r);
            product(kernel, c, M, J, K, turned, add);
            for (int m = 0; m < M; m++)
                for (int j = 0; j < J; j++) {
                    double sum = add ? (double)c0[m * J + j] : 0, size = fabs(sum);
                    for (int k = 0; k < K; k++) {
                        double a = (double)bf16_to_f32(f32_to_bf16(left[m * K + k]));
                        double term = a * (double)bf16_to_f32(rounded[turned ? k * J + j : j * K + k]);
                        sum += term;
                        size += fabs(term);
                    }
                    double d = fabs((double)c[m * J + j] - sum) / size;
                    if (d > worst || d != d) worst = d;
                }
            CHECK(worst < (19 + K / 32) * 5.97e-8,
                  "%s: %d x %d x %d, add %d, turned %d: error %.3g of the magnitudes", name, M, J, K, add,
                      turned, worst);
        }
}

/* Every row alone, and every column alone, in another place of the tile: the same bits as among the
 * others. */
static void alone(const HalfKernel *kernel, const char *name) {
    enum { M = 45, J = 50, K = 130 };
    static float all[M * J], one[M * J], keep_a[M * K], keep_x[J * K];
    int rows = 1, columns = 1, differ = 0;
    Rng r = rng_stream(32, 0, 0);
    for (int i = 0; i < M * K; i++) left[i] = keep_a[i] = (float)rng_normal(&r);
    for (int i = 0; i < J * K; i++) right[i] = keep_x[i] = (float)rng_normal(&r);
    product(kernel, all, M, J, K, 0, 0);
    for (int m = 0; m < M; m++) {
        memcpy(left, keep_a + m * K, K * sizeof *left);
        product(kernel, one, 1, J, K, 0, 0);
        rows &= !memcmp(one, all + m * J, J * sizeof *one);
        differ |= memcmp(one, all, J * sizeof *one) != 0;
    }
    memcpy(left, keep_a, sizeof keep_a);
    for (int j = 0; j < J; j++) {
        memcpy(right, keep_x + j * K, K * sizeof *right);
        product(kernel, one, M, 1, K, 0, 0);
        for (int m = 0; m < M; m++) columns &= !memcmp(one + m, all + m * J + j, sizeof *one);
    }
    CHECK(rows && differ, "%s: a row alone has the bits that it has among %d", name, M);
    CHECK(columns, "%s: a column alone has the bits that it has among %d", name, J);
    memcpy(left, keep_x, sizeof keep_x);                           /* the weights from either side */
    memcpy(right, keep_a, sizeof keep_a);
    product(kernel, one, J, M, K, 0, 0);
    int turned = 1;
    for (int m = 0; m < M; m++)
        for (int j = 0; j < J; j++) turned &= !memcmp(one + j * M + m, all + m * J + j, sizeof *one);
    CHECK(turned, "%s: A B and the transpose of B^T A^T have the same bits", name);
    memcpy(left, keep_a, sizeof keep_a);
    memcpy(right, keep_x, sizeof keep_x);
    product(kernel, one, M, J, K, 0, 0);
    CHECK(!memcmp(one, all, sizeof one), "%s: the same again", name);
    /* The last tile again, in two parts: block by block C carries on. */
    enum { LAST = (J - 1) / 32 * 32, PART = 96 };
    kernel->begin();
    pack(packed, K, 1, right + LAST * K, J - LAST, K);
    kernel->tile(one, half_a, MOST_K, 32, packed, PART / 32, 0);
    kernel->tile(one, half_a + PART, MOST_K, 32, packed + PART * 32, (up(K) - PART) / 32, 1);
    kernel->end();
    int parts = 1;
    for (int m = 0; m < 32; m++)
        for (int j = LAST; j < J; j++)
            parts &= !memcmp(one + m * 32 + j - LAST, all + m * J + j, sizeof *one);
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
        for (int k = 0; k < 6; k++) { left[k] = known[s].term[k]; right[k] = 1; }
        product(&kernel_model, c, 1, 1, 6, 0, 0);
        CHECK(c[0] == known[s].sum, "the order of the manual, sum %d: %.9g", (int)s, (double)c[0]);
    }
}

/* ---- making blocks ---- */

/* Floats to bf16 as halves_narrow does it, but that numbers below 2^-126 may become 0. */
static void narrowing(const HalfKernel *kernel, const char *name) {
    static const uint32_t bits[] = { 0, 0x80000000u, 0x3F800000u, 0x3F808000u, 0x3F818000u, 0x3F808001u,
                                     0x7F7FFFFFu, 0xFF7FFFFFu, 0x7F800000u, 0xFF800000u,
                                     0x00800000u, 0x00808000u, 0x00818000u, 0x7FC00000u };
    enum { N = 4096 };
    static float from[N];
    static uint16_t got[N], want[N];
    int same = 1;
    if (!kernel->narrow) { SKIP("%s: narrow is halves_narrow", name); return; }
    Rng r = rng_stream(33, 0, 0);
    for (int i = 0; i < N; i++) {
        uint32_t u = i < (int)(sizeof bits / sizeof *bits) ? bits[i] : (uint32_t)rng_next(&r);
        /* few are not numbers */
        if ((u & 0x7F800000u) == 0x7F800000u && (size_t)i >= sizeof bits / sizeof *bits) u ^= 0x40000000u;
        memcpy(from + i, &u, sizeof u);
    }
    kernel->narrow(got, 32, from, N);
    halves_narrow(want, from, BF16, N);
    for (int i = 0; i < N; i++)
        same &= got[i] == want[i] || (fabsf(from[i]) < 1.17549435e-38f && !(got[i] & 0x7FFF));
    CHECK(same, "%s: narrow is halves_narrow", name);
}

/* Codes by look-up are codes by dequantize_4bit, rounded: every byte, and several sizes of blocks. */
static void look_up(const HalfKernel *kernel, const char *name) {
    enum { N = 1024 };
    static float w[N], wide[N], absmax[N / 32];
    static unsigned char bytes[N / 2];
    static uint16_t got[N], want[N];
    if (!kernel->codes) { SKIP("%s: no look-up of codes here", name); return; }
    for (int kind = QUANT_NF4; kind <= QUANT_FP4; kind++)
        for (int block = 32; block <= N; block *= 2) {
            Quant q;
            Rng r = rng_stream(34, (uint64_t)kind, (uint64_t)block);
            memset(&q, 0, sizeof q);
            q.kind = kind; q.block = block; q.absmax = absmax;
            quant_table(q.table, kind);
            for (int i = 0; i < N; i++) w[i] = (float)rng_normal(&r) * (i < N / 2 ? 1 : 1e-6f);
            quantize_4bit(bytes, absmax, w, N, block, kind, NULL);
            if (block == 32) for (int i = 0; i < N / 2; i++) bytes[i] = (unsigned char)i;
            dequantize_4bit(wide, bytes, &q, 0, N);
            halves_narrow(want, wide, BF16, N);
            for (int i = 0; i < N; i += block)
                kernel->codes(got + i, 32, bytes + i / 2, q.table, quant_scale(&q, (size_t)(i / block)),
                              (size_t)block);
            CHECK(!memcmp(got, want, sizeof got), "%s: 4-bit codes of kind %d, blocks of %d, by look-up",
                  name, kind, block);
        }
}

/* ---- linears, as ops.c computes them where there is such a tile ---- */
static Arena memory, ws;
static float *floats(Rng *r, int n) {
    float *f = arena_take(&memory, (size_t)n, sizeof *f);
    for (int i = 0; i < n; i++) f[i] = (float)rng_normal(r);
    return f;
}

/* w (O,I) of this type, with what it stands for, rounded to bf16, in value. */
static Matrix matrix(Rng *r, int type, int O, int I, float *value) {
    Matrix m = { F32, O, I, 0, NULL, NULL, NULL, BF16, BF16, 0 };
    float *w = floats(r, O * I), *absmax = floats(r, O * I);
    uint16_t *half = arena_take(&memory, (size_t)(O * I), sizeof *half);
    m.type = type;
    m.data = type == F32 ? (void *)w : half;
    m.grad = floats(r, O * I);
    if (type == BF16 || type == F16) {
        halves_narrow(half, w, type, (size_t)(O * I));
        halves_widen(w, half, type, (size_t)(O * I));
    }
    if (type == NF4) {
        tensor_carve_quant(&m, QUANT_NF4, 64, 0, &memory);
        quantize_4bit(m.data, m.quant->absmax, w, (size_t)(O * I), 64, QUANT_NF4, NULL);
        dequantize_4bit(w, m.data, m.quant, 0, (size_t)(O * I));
    }
    (void)absmax;
    memcpy(value, w, (size_t)(O * I) * sizeof *w);
    halves_round(value, BF16, (size_t)(O * I));
    return m;
}

/* Is got = start + sum, where sum (of `terms` products, of magnitudes that add up to size) is rounded to
 * `output`? In units of what is allowed: the tile's roundings as above, half a step of bf16, and one rounding
 * of what is added to. */
static double off(float got, double start, double sum, double size, int terms, int output) {
    double allowed = (20 + terms / 32) * 5.97e-8 * (size + fabs(start)) +
        (output == BF16 ? fabs(sum) / 256 : 0);
    return fabs((double)got - (start + sum)) / (allowed + 1e-30);
}

static double larger(double a, double b) { return b > a || b != b ? b : a; }       /* a NaN stays one */

static void linears(int N, int O, int I, int type, int output, const char *name) {
    Rng r = rng_stream(35, (uint64_t)(N * 1000 + O), (uint64_t)(I * 8 + type));
    memory.used = 0;
    float *x = floats(&r, N * I), *dy = floats(&r, N * O), *bias = floats(&r, O), *w = floats(&r, O * I);
    Matrix m = matrix(&r, type, O, I, w);
    float *y = floats(&r, N * O), *z = floats(&r, N * O), *z0 = floats(&r, N * O), *dx = floats(&r, N * I),
        *dx0 = floats(&r, N * I), *dw0 = floats(&r, O * I);
    double forward = 0, input = 0, weight = 0;
    m.output = output;
    memcpy(z0, z, sizeof(float) * (size_t)(N * O)); memcpy(dx0, dx, sizeof(float) * (size_t)(N * I));
    memcpy(dw0, m.grad, sizeof(float) * (size_t)(O * I));
    memset(&ws, 0, sizeof ws);
    linear_measure(&ws, N, I, O, BF16);
    ws = test_arena(ws.peak);
    linear_forward(y, x, &m, bias, N, &ws);
    linear_add(z, x, &m, NULL, N, &ws);
    linear_backward(dx, NULL, dy, x, &m, N, &ws);
    CHECK(!ws.failed && ws.used == 0, "%s, %d x %d x %d: what was measured is enough", name, N, O, I);
    free(ws.base);
    halves_round(x, BF16, (size_t)(N * I));
    halves_round(dy, BF16, (size_t)(N * O));
    for (int n = 0; n < N; n++) for (int o = 0; o < O; o++) {
        double sum = 0, size = 0;
        for (int i = 0; i < I; i++) {
            double t = (double)x[n * I + i] * (double)w[o * I + i];
            sum += t;
            size += fabs(t);
        }
        forward = larger(forward, off(y[n * O + o], 0, sum + (double)bias[o], size + fabs((double)bias[o]),
                                      I, output));
        forward = larger(forward, off(z[n * O + o], (double)z0[n * O + o], sum, size, I, output));
    }
    for (int n = 0; n < N; n++) for (int i = 0; i < I; i++) {
        double sum = 0, size = 0;
        for (int o = 0; o < O; o++) {
            double t = (double)dy[n * O + o] * (double)w[o * I + i];
            sum += t;
            size += fabs(t);
        }
        input = larger(input, off(dx[n * I + i], (double)dx0[n * I + i], sum, size, O, output));
    }
    for (int o = 0; o < O; o++) for (int i = 0; i < I; i++) {
        double sum = 0, size = 0;
        for (int n = 0; n < N; n++) {
            double t = (double)dy[n * O + o] * (double)x[n * I + i];
            sum += t;
            size += fabs(t);
        }
        weight = larger(weight, off(m.grad[o * I + i], (double)dw0[o * I + i], sum, size, N, F32));
    }
    CHECK(forward <= 1 && input <= 1 && weight <= 1,
          "%s, %d x %d x %d, type %d, output %d: y, dx, dW off by %.2f %.2f %.2f of what is allowed",
          name, N, O, I, type, output, forward, input, weight);
}

/* Rows alone or in other company, one thread or several: the same bits of y and dx; of dW, with several
 * threads. */
static void company(int type, const char *name) {
    enum { N = 70, O = 100, I = 63 };
    Rng r = rng_stream(36, (uint64_t)type, 0);
    memory.used = 0;
    ws = test_arena((size_t)32 << 20);
    float *x = floats(&r, N * I), *dy = floats(&r, N * O), *w = floats(&r, O * I), *y = floats(&r, N * O),
        *dx = floats(&r, N * I);
    float *some_y = floats(&r, N * O), *some_dx = floats(&r, N * I), *dw = floats(&r, O * I);
    Matrix m = matrix(&r, type, O, I, w);
    int rows = 1, same = 1;
    threads(1);
    memset(dx, 0, sizeof(float) * N * I); memset(m.grad, 0, sizeof(float) * O * I);
    linear_forward(y, x, &m, NULL, N, &ws);
    linear_backward(dx, NULL, dy, x, &m, N, &ws);
    memcpy(dw, m.grad, sizeof(float) * O * I);
    m.grad = NULL;
    for (int n = 1; n <= N; n += n < 4 ? 1 : 11)
        for (int from = 0; from + n <= N; from += 17) {
            memset(some_dx, 0, sizeof(float) * N * I);
            linear_forward(some_y, x + from * I, &m, NULL, n, &ws);
            linear_backward(some_dx, NULL, dy + from * O, NULL, &m, n, &ws);
            rows &= !memcmp(some_y, y + from * O, sizeof(float) * (size_t)(n * O)) &&
                !memcmp(some_dx, dx + from * I, sizeof(float) * (size_t)(n * I));
        }
    CHECK(rows, "%s, weights of type %d: any rows alone have the bits that they have among all", name, type);
    m.grad = floats(&r, O * I);
    for (int t = 2; t <= 3; t++) {
        threads(t);
        memset(some_dx, 0, sizeof(float) * N * I); memset(m.grad, 0, sizeof(float) * O * I);
        linear_forward(some_y, x, &m, NULL, N, &ws);
        linear_backward(some_dx, NULL, dy, x, &m, N, &ws);
        same &= !memcmp(some_y, y, sizeof(float) * N * O) && !memcmp(some_dx, dx, sizeof(float) * N * I) &&
            !memcmp(m.grad, dw, sizeof(float) * O * I);
    }
    threads(1);
    CHECK(same, "%s, weights of type %d: 1, 2, 3 threads give the same bits", name, type);
    free(ws.base);
}

static void all_linears(const char *name) {
    static const int shape[][3] = { {1,1,1}, {1,32,64}, {2,31,33}, {7,63,100}, {31,33,63}, {32,64,96},
                                    {33,100,31}, {64,32,128}, {70,45,257}, {5,300,70}, {40,70,2100},
                                        {33,2100,64} };
    for (size_t s = 0; s < sizeof shape / sizeof *shape; s++)
        for (int type = F32; type <= NF4; type++)
            for (int output = F32; output <= BF16; output++)
                linears(shape[s][0], shape[s][1], shape[s][2], type, output, name);
    for (int type = F32; type <= NF4; type++) company(type, name);
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
    HalfKernel model = kernel_model;
    if (!MODEL_HAS_CODES) model.codes = NULL;
    look_up(&model, "model");
    memory = test_arena((size_t)64 << 20);
    long long dots = tiles.dots;
    fast_use_half(&model);
    all_linears("model");
    CHECK(tiles.dots > dots, "the model's tile was used");
    model.codes = NULL;
    linears(40, 70, 128, NF4, BF16, "model, without look-ups");
    CHECK(fast_use("plain") == OK && !fast_half(), "another kernel that is forced leaves the tile out");
    dots = tiles.dots;
    all_linears("rounded floats");
    CHECK(tiles.dots == dots, "it was not used");
    CHECK(fast_use("amx") == (kernel_amx.here() ? OK : E_UNSUPPORTED) && fast_use(NULL) == OK,
          "RLHF_ISA=amx where it is");
    CHECK(fast_half() == (kernel_amx.here() ? &kernel_amx : NULL), "and without it, where it is");
    if (!kernel_amx.here()) SKIP("the real tile instructions: this processor, system or build has none");
    else {
        against_double(&kernel_amx, "amx");
        alone(&kernel_amx, "amx");
        narrowing(&kernel_amx, "amx");
        look_up(&kernel_amx, "amx");
        all_linears("amx");
    }
    return test_end("amx");
}
#endif
