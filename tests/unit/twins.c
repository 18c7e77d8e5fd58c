/* twins.c - every twin against its definition, bit for bit: linears and attention, forward and backward, with
 * each kernel that is here, on awkward shapes, for all weight types and compute types, with 1 and 2 threads.
 *
 * The definition (ops.c, RLHF_ISA=definition) is compared with loops that are written here once more. A twin
 * whose multiply-adds round once is compared with the same loops, whose step is then fmaf; any other has the
 * definition's bits. Products of bf16 numbers on tile registers have an order of sums of their own: amx.c. */
#include "test.h"
#include "../../lanes.h"
#ifndef PLAIN
#include "../../fast/fast.h"
#endif

static Arena memory, ws;
static int fused;                           /* the kernel's multiply-adds round once */

static float step(float sum, float a, float b) { return fused ? fmaf(a, b, sum) : sum + a * b; }

/* Chooses a kernel. Returns 0 if it is not here. */
static int use(const char *name) {
    if (fast_use(name) != OK) return 0;
#ifndef PLAIN
    fused = fast_kernel() && fast_kernel()->fused;
#endif
    return 1;
}

/* Returns 1 if a linear of this compute type runs on tile registers. */
static int on_tiles(int compute) {
#ifndef PLAIN
    return compute == BF16 && fast_half();
#else
    (void)compute;
    return 0;
#endif
}

static float *numbers(Rng *r, size_t n) {
    float *x = arena_take(&memory, n, sizeof *x);
    for (size_t i = 0; x && i < n; i++) x[i] = (float)rng_normal(r);
    return x;
}
static float *copy(const float *from, size_t n) {
    float *x = arena_take(&memory, n, sizeof *x);
    if (x) memcpy(x, from, n * sizeof *x);
    return x;
}

/* ---- linears ---- */

/* How weights are stored: type, and of 4 bits the rest. */
typedef struct { const char *name; int type, kind, block, doubled; } Store;
static const Store store[] = {
    { "F32", F32, 0, 0, 0 }, { "BF16", BF16, 0, 0, 0 }, { "F16", F16, 0, 0, 0 },
        { "NF4", NF4, QUANT_NF4, 64, 0 },
    { "NF4, doubled", NF4, QUANT_NF4, 32, 1 }, { "FP4", NF4, QUANT_FP4, 128, 0 }
};
enum { STORES = sizeof store / sizeof *store };

/* What a linear does: y = x W^T + bias; z += x W^T + bias; dx, dw and db += their gradients. */
typedef struct { float *y, *z, *dx, *dw, *db; } Results;
typedef struct { int N, O, I; Matrix w; const float *x, *dy, *bias,
                 *value /* of W */; Results before; } Linear;

/* Stores w (O,I) in m; value becomes the numbers that m stands for. */
static void put(Matrix *m, float *value, float *w, const Store *s) {
    size_t n = (size_t)m->O * (size_t)m->I;
    m->type = s->type;
    m->data = w;
    memcpy(value, w, n * sizeof *w);
    if (s->type == BF16 || s->type == F16) {
        m->data = arena_take(&memory, n, sizeof(uint16_t));
        halves_narrow(m->data, w, s->type, n);
        halves_widen(value, m->data, s->type, n);
    }
    if (s->type != NF4) return;
    /* the largest of a block lies halfway between two bf16, above an even or an odd one */
    for (size_t i = 0; i < n; i++)
        w[i] = i % (size_t)s->block ? w[i] / 8 : i / (size_t)s->block % 2 ? 1.00390625f : 1.01171875f;
    m->data = arena_take(&memory, (n + 1) / 2, 1);
    tensor_carve_quant(m, s->kind, s->block, s->doubled, &memory);
    size_t blocks = quant_blocks(n, s->block);
    float *absmax = s->doubled ? arena_take(&memory, blocks, sizeof *absmax) : m->quant->absmax;
    quantize_4bit(m->data, absmax, w, n, s->block, s->kind, NULL);
    if (s->doubled)
        quantize_absmax(m->quant->code, m->quant->nested, &m->quant->offset, m->quant->map, absmax, blocks);
    dequantize_4bit(value, m->data, m->quant, 0, n);
}

static Linear make(int N, int O, int I, const Store *s, int compute, int output, uint64_t seed) {
    Rng r = rng_stream(1, seed, (uint64_t)(N * 1000 + O));
    size_t NI = (size_t)(N * I), NO = (size_t)(N * O), OI = (size_t)(O * I);
    Linear l;
    memset(&l, 0, sizeof l);
    memory.used = 0;
    l.N = N; l.O = l.w.O = O; l.I = l.w.I = I;
    l.w.compute = compute; l.w.output = output;
    float *w = numbers(&r, OI), *value = numbers(&r, OI);
    put(&l.w, value, w, s);
    l.value = value;
    l.x = numbers(&r, NI); l.dy = numbers(&r, NO); l.bias = numbers(&r, (size_t)O);
    l.before.y = numbers(&r, NO); l.before.z = numbers(&r, NO); l.before.dx = numbers(&r, NI);
    l.before.dw = numbers(&r, OI); l.before.db = numbers(&r, (size_t)O);
    return l;
}

static Results fresh(const Linear *l) {
    Results r;
    r.y = copy(l->before.y, (size_t)(l->N * l->O)); r.z = copy(l->before.z, (size_t)(l->N * l->O));
    r.dx = copy(l->before.dx, (size_t)(l->N * l->I)); r.dw = copy(l->before.dw, (size_t)(l->O * l->I));
    r.db = copy(l->before.db, (size_t)l->O);
    return r;
}

/* Returns y, rounded to the output's type, or old + y, y rounded; `sum` began at old if it is not rounded. */
static float ended(float sum, float old, int output) {
    if (output == F32) return sum;
    halves_round(&sum, output, 1);
    return old + sum;
}

/* The loops. */
static Results by_loops(const Linear *l) {
    int N = l->N, O = l->O, I = l->I, output = l->w.output;
    Results r = fresh(l);
    float *x = copy(l->x, (size_t)(N * I)), *w = copy(l->value, (size_t)(O * I)),
        *dy = copy(l->dy, (size_t)(N * O));
    halves_round(x, l->w.compute, (size_t)(N * I));
    halves_round(w, l->w.compute, (size_t)(O * I));
    halves_round(dy, l->w.compute, (size_t)(N * O));
    for (int n = 0; n < N; n++)
        for (int o = 0; o < O; o++) {
            float y = 0, z = output == F32 ? r.z[n * O + o] : 0;
            for (int i = 0; i < I; i++) {
                y = step(y, x[n * I + i], w[o * I + i]);
                z = step(z, x[n * I + i], w[o * I + i]);
            }
            r.y[n * O + o] = ended(y + l->bias[o], 0, output);
            r.z[n * O + o] = ended(z + l->bias[o], r.z[n * O + o], output);
            r.db[o] += l->dy[n * O + o];
        }
    for (int n = 0; n < N; n++)
        for (int i = 0; i < I; i++) {
            float dx = output == F32 ? r.dx[n * I + i] : 0;
            for (int o = 0; o < O; o++) dx = step(dx, dy[n * O + o], w[o * I + i]);
            r.dx[n * I + i] = ended(dx, r.dx[n * I + i], output);
        }
    for (int o = 0; o < O && l->w.type == F32; o++)
        for (int i = 0; i < I; i++)
            for (int n = 0; n < N; n++) r.dw[o * I + i] = step(r.dw[o * I + i], dy[n * O + o], x[n * I + i]);
    return r;
}

static Results by_ops(const Linear *l) {
    Results r = fresh(l);
    Matrix w = l->w;
    if (w.type == F32) w.grad = r.dw;       /* only float32 is trained */
    linear_forward(r.y, l->x, &w, l->bias, l->N, &ws);
    linear_add(r.z, l->x, &w, l->bias, l->N, &ws);
    linear_backward(r.dx, r.db, l->dy, l->x, &w, l->N, &ws);
    return r;
}

static int same(const Linear *l, const Results *a, const Results *b) {
    size_t NI = (size_t)(l->N * l->I), NO = (size_t)(l->N * l->O), OI = (size_t)(l->O * l->I),
        f = sizeof(float);
    return !memcmp(a->y, b->y, NO * f) && !memcmp(a->z, b->z, NO * f) && !memcmp(a->dx, b->dx, NI * f) &&
           !memcmp(a->dw, b->dw, OI * f) && !memcmp(a->db, b->db, (size_t)l->O * f);
}

static void linears(const char *kernel, int N, int O, int I, const Store *s, uint64_t seed) {
    int good = 1;
    for (int compute = F32; compute <= F16; compute++)
        for (int output = F32; output <= compute; output += compute ? compute : 1) {
            if (on_tiles(compute)) continue;
            Linear l = make(N, O, I, s, compute, output, seed);
            Results wanted = by_loops(&l);
            size_t mark = memory.used;
            for (int t = 1; t <= MOST_THREADS; t++, memory.used = mark) {
                threads(t);
                Results got = by_ops(&l);
                good &= same(&l, &wanted, &got);
            }
        }
    CHECK(good, "%s, %s weights, %d rows, %d x %d: all results have the loop's bits, in each compute type",
          kernel, s->name, N, O, I);
}

static void all_linears(const char *kernel) {
    static const int shape[][3] = {
        {1,1,1}, {1,7,3}, {3,8,5}, {2,9,1}, {5,64,17}, {8,100,33}, {4,8,256}, {6,33,260}, {7,19,30},
            {13,31,257}, {61,96,513}, {64,1,40},
        {9,21,70}, {9,21,320}, {1,40,544}, {6,16,96}, {17,24,512}, {40,50,192}, {2,17,128}, {70,33,64},
            {19,270,21} };
    static const int large[][3] = { {130,9,300}, {600,30,40}, {20,40,4500}, {3,20,8300}, {60,10,4200},
                                    {30,520,20} };
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
        for (int s = 0; s < STORES; s++) linears(kernel, shape[i][0], shape[i][1], shape[i][2], &store[s], i);
    for (size_t i = 0; i < sizeof large / sizeof *large; i++)
        for (int s = 0; s < STORES; s += 3)
            linears(kernel, large[i][0], large[i][1], large[i][2], &store[s], 100 + i);
}

/* ---- attention ---- */

enum { ROWS = 400, BUCKETS = 9, REACH = ROWS };
static int first[ROWS], count[ROWS], own[ROWS], bucket[2 * REACH + 1];
static const Keys keys = { first, count, own };

typedef struct { float *y, *dq, *dk, *dv, *dbias; } Passed;
typedef struct { int N, H, K, D; float *q, *k, *v, *dy, *bias; Passed before; } Case;

/* The loops, of head h: queries of one head one after another, and heads one after another. */
static void one_query(const Case *c, const Heads *heads, Passed *r, int h, int n) {
    static float p[ROWS], ds[ROWS];
    int D = c->D, width = c->K * D, key = first[n] * width + h / (c->H / c->K) * D;
    const float *q = c->q + (n * c->H + h) * D, *dy = c->dy + (n * c->H + h) * D;
    float *y = r->y + (n * c->H + h) * D, *dq = r->dq + (n * c->H + h) * D;
    for (int j = 0; j < count[n]; j++) {
        p[j] = 0;
        for (int d = 0; d < D; d++) p[j] = step(p[j], q[d], c->k[key + j * width + d]);
    }
    attention_row(p, &keys, heads, n, h);
    for (int d = 0; d < D; d++) {
        y[d] = 0;
        for (int j = 0; j < count[n]; j++) y[d] = step(y[d], p[j], c->v[key + j * width + d]);
    }
    for (int j = 0; j < count[n]; j++) {
        ds[j] = 0;
        for (int d = 0; d < D; d++) ds[j] = step(ds[j], dy[d], c->v[key + j * width + d]);
    }
    attention_row_backward(ds, p, dot(dy, y, D), &keys, heads, n, h);
    for (int j = 0; j < count[n]; j++)
        for (int d = 0; d < D; d++) {
            dq[d] = step(dq[d], ds[j], c->k[key + j * width + d]);
            r->dk[key + j * width + d] = step(r->dk[key + j * width + d], ds[j], q[d]);
            r->dv[key + j * width + d] = step(r->dv[key + j * width + d], p[j], dy[d]);
        }
}

static Passed passed(const Case *c) {
    Passed r;
    size_t queries = (size_t)(c->N * c->H * c->D), rows = (size_t)(ROWS * c->K * c->D);
    r.y = copy(c->before.y, queries); r.dq = copy(c->before.dq, queries); r.dk = copy(c->before.dk, rows);
    r.dv = copy(c->before.dv, rows); r.dbias = copy(c->before.dbias, (size_t)(BUCKETS * c->H));
    return r;
}

static Case make_case(int N, int H, int K, int D) {
    Rng r = rng_stream(2, (uint64_t)(N * 100 + H * 10 + K), (uint64_t)D);
    Case c = { N, H, K, D, NULL, NULL, NULL, NULL, NULL, { NULL, NULL, NULL, NULL, NULL } };
    size_t queries = (size_t)(N * H * D), rows = (size_t)(ROWS * K * D);
    memory.used = 0;
    c.q = numbers(&r, queries); c.k = numbers(&r, rows); c.v = numbers(&r, rows); c.dy = numbers(&r, queries);
    c.bias = numbers(&r, (size_t)(BUCKETS * H));
    c.before.y = numbers(&r, queries); c.before.dq = numbers(&r, queries); c.before.dk = numbers(&r, rows);
    c.before.dv = numbers(&r, rows); c.before.dbias = numbers(&r, (size_t)(BUCKETS * H));
    return c;
}

static int same_passed(const Case *c, const Passed *a, const Passed *b) {
    size_t queries = (size_t)(c->N * c->H * c->D), rows = (size_t)(ROWS * c->K * c->D), f = sizeof(float);
    return !memcmp(a->y, b->y, queries * f) && !memcmp(a->dq, b->dq, queries * f) &&
        !memcmp(a->dk, b->dk, rows * f) &&
           !memcmp(a->dv, b->dv, rows * f) && !memcmp(a->dbias, b->dbias, (size_t)(BUCKETS * c->H) * f);
}

enum { CAUSAL, BOTH_WAYS, WINDOW, MIXED, SIGHTS };
static const char *const sight_name[SIGHTS] = { "causal", "both ways", "sliding window", "several texts" };
static void look(int sight, int N) {
    for (int n = 0; n < N; n++) {
        int text = n / 90 * 90, width = 17;                     /* texts of 90 rows in `several texts` */
        first[n] = sight == MIXED ? text : sight == WINDOW && n >= width ? n - width + 1 : 0;
        count[n] = sight == BOTH_WAYS ? N : n - first[n] + 1;
        own[n] = n;
        /* any rows at all */
        if (sight == MIXED && n % 7 == 3) { first[n] = text + n % 5; count[n] = 1 + n % 90; }
    }
}

static void attention(const char *kernel, int sight, int N, int H, int K, int D) {
    int good = 1;
    look(sight, N);
    for (int biased = 0; biased < 2; biased++) {
        Case c = make_case(N, H, K, D);
        Qkv in = { c.q, c.k, c.v };
        Passed wanted = passed(&c);
        Heads heads = { 0, 0, 0, 0, NULL, NULL, bucket, REACH };
        heads.H = H; heads.K = K; heads.D = D;
        heads.scale = biased ? 1 : 1 / sqrtf((float)D);
        if (biased) { heads.bias = c.bias; heads.dbias = wanted.dbias; }
        for (int h = 0; h < H; h++) for (int n = 0; n < N; n++) one_query(&c, &heads, &wanted, h, n);
        size_t mark = memory.used;
        for (int t = 1; t <= MOST_THREADS; t++, memory.used = mark) {
            threads(t);
            Passed got = passed(&c);
            Qkv d = { got.dq, got.dk, got.dv };
            if (biased) heads.dbias = got.dbias;
            attention_forward(got.y, &in, &keys, N, &heads, &ws);
            attention_backward(&d, c.dy, got.y, &in, &keys, N, &heads, &ws);
            good &= same_passed(&c, &wanted, &got);
        }
    }
    CHECK(good, "%s, attention, %s: %d queries, %d heads of %d on %d: all results have the loop's bits",
          kernel, sight_name[sight], N, H, D, K);
}

static void all_attention(const char *kernel) {
    static const int shape[][4] = { {1,1,1,1}, {5,4,2,6}, {17,6,3,5}, {70,4,2,8}, {150,2,2,13}, {200,3,1,4},
                                    {90,8,2,40} };
    for (int i = 0; i <= 2 * REACH; i++) bucket[i] = (i * 5 + i / 7) % BUCKETS;
    for (int sight = 0; sight < SIGHTS; sight++)
        for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
            attention(kernel, sight, shape[i][0], shape[i][1], shape[i][2], shape[i][3]);
}

/* Returns 1 if the C library's fmaf rounds once (mingw's does not). In double the product of two floats is
 * exact, and the sum is so nearly exact that it rounds to the same float. */
static int fmaf_is_right(void) {
    Rng r = rng_stream(1, 2, 3);
    for (int i = 0; i < 1000; i++) {
        const float a = (float)rng_normal(&r), b = (float)rng_normal(&r), c = (float)rng_normal(&r);
        if (fmaf(a, b, c) != (float)((double)a * (double)b + (double)c)) return 0;
    }
    return 1;
}

int main(void) {
    memory = test_arena((size_t)64 << 20);
    ws = test_arena((size_t)32 << 20);
    for (int i = 0; fast_name(i); i++) {
        if (!use(fast_name(i))) { SKIP("the kernel %s: not on this processor", fast_name(i)); continue; }
        if (fused && !fmaf_is_right()) { SKIP("the kernel %s: fmaf is wrong here", fast_name(i)); continue; }
        all_linears(fast_name(i));
        all_attention(fast_name(i));
    }
    CHECK(!memory.failed && !ws.failed, "memory suffices");
    CHECK(use("exact") && !fused, "there always is a kernel with the definition's bits");
    CHECK(fast_use("no such") == E_UNSUPPORTED && fast_use("") == OK, "a kernel that no file has is refused");
    return test_end("twins");
}
