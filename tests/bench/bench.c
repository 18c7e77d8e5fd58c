/* tests/bench/bench.c - measures the operations that take most of the time (`make bench`), next to other
 * libraries where they are installed: products in three directions (OpenBLAS), products with 4-bit weights,
 * quantising, the exponential (libm), tokenizers and how they cut texts, a policy that writes, a judge that
 * reads.
 *
 *     make bench
 *         everything; tests/bench/bench_peers.py adds whole PPO steps
 *     make bench BENCH="products --quick"
 *         one part, with some of its shapes and all threads only
 *     make bench BENCH="products --rows 64 --in 768 --out 2048"
 *         one shape
 *     build/tests/bench tokenizer --tokenizer data/policy
 *         a tokenizer, on data/imdb.bin or --text FILE
 *     build/tests/bench generate --policy /tmp/tinyllama --nf4
 *         a checkpoint (make shapes writes some with random weights)
 *
 * Ours and theirs run by turns in one process on the same numbers. Figures are medians, with the slowest and
 * the fastest run in parentheses; ratios are medians of the pairs' ratios, above 1 where ours is faster.
 * RLHF_ISA forces one of our kernels, OPENBLAS_CORETYPE one of OpenBLAS's. A multiply and an add count as two
 * operations: y (N,O) = x (N,I) W^T has 2 N O I. Sizes are known only at run time, as in real use. */
#include "bench.h"
#include "../../fast/fast.h"
#include "../../text/text.h"
#ifdef _OPENMP
#include <omp.h>
#endif

enum { RUNS_MAX = 101 };
enum { FORWARD, BACK_INPUT, BACK_WEIGHT, DIRECTIONS };

BenchOptions opt;
static Option option[] = {
    { "rows", OPT_INT, &opt.rows, NULL, 1, 1 << 20, NULL, "products: rows N, instead of the usual ones" },
    { "in", OPT_INT, &opt.in, NULL, 1, 1 << 20, NULL,
      "products: in features I (with --out: this shape alone)" },
    { "out", OPT_INT, &opt.out, NULL, 1, 1 << 20, NULL, "products: out features O" },
    { "quick", OPT_FLAG, &opt.quick, NULL, 0, 0, NULL, "fewer shapes and runs, all threads only" },
    { "runs", OPT_INT, &opt.runs, "9", 1, RUNS_MAX, NULL, "runs, of which the median counts" },
    { "seconds", OPT_REAL, &opt.seconds, "0.03", 0.0001, 60, NULL,
      "shortest time of one run: what is quick is repeated" },
    { "budget", OPT_REAL, &opt.budget, "3", 0.001, 3600, NULL,
      "seconds for one line, if three runs fit into it: what is slow gets fewer runs" },
    { "threads", OPT_INT, &opt.threads, "0", 0, 1024, NULL, "this number alone; 0: one, and all" },
    { "openblas", OPT_TEXT, &opt.openblas, NULL, 0, 0, NULL,
      "the library's path, if it is at an unusual place" },
    { "tokenizer", OPT_TEXT, &opt.tokenizer, "data/policy", 0, 0, NULL, "a tokenizer to time" },
    { "text", OPT_TEXT, &opt.text, "data/imdb.bin", 0, 0, NULL,
      "the text for it: a dataset (*.bin) or any file" },
    { "policy", OPT_TEXT, &opt.policy, NULL, 0, 0, NULL, "generate: a checkpoint's folder" },
    { "nf4", OPT_FLAG, &opt.nf4, NULL, 0, 0, NULL, "generate: its linears in NF4" },
    { "compute", OPT_CHOICE, &opt.compute, "f32", 0, 0, "f32|bf16|f16",
      "products, generate, judge: what linears multiply" },
    { "reward", OPT_TEXT, &opt.reward, NULL, 0, 0, NULL, "judge: a checkpoint's folder" },
    { "tokens", OPT_INT, &opt.tokens, "64", 1, 1 << 16, NULL,
      "generate: tokens of the one sequence; judge: of each text" },
};
const Program program = {
    .program = "build/tests/bench",
    .usage = "[products] [plain] [nf4] [quantise] [exp] [memory] [tokenizer] [split] [generate] "
             "[judge] [options]",
    .about = "Measures the operations that take most of the time.", OPTIONS(option) };

/* ---- medians ---- */

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static Times summary(double *t, int n) {
    Times r;
    qsort(t, (size_t)n, sizeof *t, ascending);
    r.median = t[n / 2];
    r.low = t[0];
    r.high = t[n - 1];
    return r;
}

static double seconds(Work work, void *context, int repeat) {
    double begin = wall_clock();
    for (int i = 0; i < repeat; i++) work(context);
    return (wall_clock() - begin) / repeat;
}

/* Chooses how often a run repeats the work. The first call only warms up pages, caches and threads. */
static int repeats(Work work, void *context, double *once) {
    double warm = seconds(work, context, 1);
    *once = warm > opt.budget / 4 ? warm : seconds(work, context, 1);
    return *once >= opt.seconds ? 1 : 1 + (int)(opt.seconds / (*once > 1e-7 ? *once : 1e-7));
}

Contest contest(Work ours, void *context, Work theirs, void *their_context) {
    double a[RUNS_MAX], b[RUNS_MAX], ratio[RUNS_MAX], once = 0, their_once = 0, pair;
    int repeat = repeats(ours, context, &once);
    int their_repeat = theirs ? repeats(theirs, their_context, &their_once) : 0;
    Contest c;
    memset(&c, 0, sizeof c);
    pair = once * repeat + their_once * their_repeat;
    c.runs = pair * opt.runs <= opt.budget ? opt.runs : pair * 3 > opt.budget ? 3 : (int)(opt.budget / pair);
    if (c.runs > opt.runs) c.runs = opt.runs;
    for (int k = 0; k < c.runs; k++) {
        if (k % 2 && theirs) b[k] = seconds(theirs, their_context, their_repeat);
        a[k] = seconds(ours, context, repeat);
        if (k % 2 == 0 && theirs) b[k] = seconds(theirs, their_context, their_repeat);
        ratio[k] = theirs ? b[k] / a[k] : 0;
    }
    c.ours = summary(a, c.runs);
    if (theirs) {
        c.theirs = summary(b, c.runs);
        c.ratio = summary(ratio, c.runs);
    }
    return c;
}

void print_rate(double work, double unit, const Times *t) {
    char text[64];
    snprintf(text, sizeof text, "%.4g (%.4g to %.4g)", work / t->median / unit, work / t->high / unit,
             work / t->low / unit);
    printf("  %-25s", text);
}

void print_ratio(const Contest *c) {
    printf("  %5.2f (%.2f to %.2f)", c->ratio.median, c->ratio.low, c->ratio.high);
}

void use_threads(int n) {
#ifdef _OPENMP
    omp_set_num_threads(n);
#endif
    blas_threads(n);
}

/* Returns one block for the part of the benchmark that runs; the block of the part before is freed. */
Arena bench_arena(size_t bytes) {
    static void *block;
    Arena a;
    free(block);
    block = calloc(1, bytes + 64);
    if (!block) usage_error("not enough memory for", "this part");
    memset(&a, 0, sizeof a);
    a.base = (unsigned char *)block + (64 - (uintptr_t)block % 64);
    a.capacity = bytes;
    return a;
}

static int all_threads;

int threads_next(int n) {
    if (opt.threads) return n ? 0 : opt.threads;
    if (n == all_threads) return 0;
    return n || opt.quick ? all_threads : 1;
}

/* ---- the product, beside OpenBLAS ---- */

typedef struct { int direction, N; Matrix w; float *x, *y, *dx, *dy; Arena ws; } LinearBench;

static void product_run(void *context) {
    LinearBench *p = context;
    Matrix w = p->w;
    size_t used = p->ws.used;
    if (p->direction != BACK_WEIGHT) w.grad = NULL;
    if (p->direction == FORWARD) linear_forward(p->y, p->x, &w, NULL, p->N, &p->ws);
    else linear_backward(p->direction == BACK_INPUT ? p->dx : NULL, NULL, p->dy, p->x, &w, p->N, &p->ws);
    p->ws.used = used;
}

static void blas_run(void *context) {
    LinearBench *p = context;
    int N = p->N, O = p->w.O, I = p->w.I;
    if (p->direction == FORWARD) blas_product(p->y, p->x, p->w.data, &(BlasShape){ N, O, I, 0, 1, 0 });
    if (p->direction == BACK_INPUT) blas_product(p->dx, p->dy, p->w.data, &(BlasShape){ N, I, O, 0, 0, 1 });
    if (p->direction == BACK_WEIGHT) blas_product(p->w.grad, p->dy, p->x, &(BlasShape){ O, I, N, 1, 0, 1 });
}

/* Lays out a product's arrays and the workspace of all three directions. A 4-bit weight has no gradient. */
static void carve_product(LinearBench *p, int N, int O, int I, int type, int compute, Arena *a) {
    Tensor one;
    TensorList list = { &one, 0, type == F32, a };
    size_t n = (size_t)N;
    p->N = N;
    tensor_carve(&list, &p->w, "w", 0, type, O, I, 0);
    if (type == NF4) tensor_carve_quant(&p->w, QUANT_NF4, 64, 0, a);
    p->w.compute = p->w.output = compute;
    p->x = arena_take(a, n * (size_t)I, sizeof(float));
    p->dx = arena_take(a, n * (size_t)I, sizeof(float));
    p->y = arena_take(a, n * (size_t)O, sizeof(float));
    p->dy = arena_take(a, n * (size_t)O, sizeof(float));
    memset(&p->ws, 0, sizeof p->ws);
    linear_measure(&p->ws, N, I, O, compute);
    p->ws.capacity = p->ws.peak;
    p->ws.base = arena_take(a, p->ws.capacity, 1);
    p->ws.used = p->ws.peak = 0;
}

static void fill(float *x, size_t n, uint64_t stream) {
    Rng rng = rng_stream(1, 2, stream);
    for (size_t i = 0; i < n; i++) x[i] = (float)((double)(rng_next(&rng) >> 40) / (1 << 24) - 0.5);
}

static void fill_product(LinearBench *p) {
    size_t N = (size_t)p->N, O = (size_t)p->w.O, I = (size_t)p->w.I;
    if (p->w.type == F32) fill(p->w.data, O * I, 0);
    /* about 0.01 */
    for (size_t i = 0; i < O * I && p->w.type == BF16; i++)
        ((uint16_t *)p->w.data)[i] = (uint16_t)(0x3C00 + i * 40503 % 512);
    fill(p->x, N * I, 1);
    fill(p->dy, N * O, 2);
}

/* Runs both directions that add from 0; returns the largest difference of two results, relative to the
 * largest number. */
enum { SAMPLES = 1000 };
static double difference(LinearBench *p) {
    static float one[SAMPLES];
    float *out = p->direction == FORWARD ? p->y : p->direction == BACK_INPUT ? p->dx : p->w.grad;
    size_t n = p->direction == BACK_WEIGHT ? (size_t)p->w.O * (size_t)p->w.I
        : (size_t)p->N * (size_t)(p->direction == FORWARD ? p->w.O : p->w.I);
    double most = 0, largest = 0;
    memset(out, 0, n * sizeof *out);
    product_run(p);
    for (size_t i = 0; i < SAMPLES; i++) one[i] = out[(n - 1) * i / SAMPLES];
    memset(out, 0, n * sizeof *out);
    blas_run(p);
    for (size_t i = 0; i < SAMPLES; i++) {
        double x = fabs((double)one[i]), d = fabs((double)one[i] - (double)out[(n - 1) * i / SAMPLES]);
        if (x > largest) largest = x;
        if (d > most || d != d) most = d;
    }
    return most / largest;
}

static const char *const direction_name[] = { "y = x W'", "dx += dy W", "dW += dy' x" };

/* Prints the geometric mean and the lowest ratio of each direction and number of threads. */
typedef struct { double log_sum, lowest; int n, N, O, I; } Mean;
static Mean mean[DIRECTIONS][2];

static void print_means(void) {
    for (int more = 0; more < 2; more++)
        for (int d = 0; d < DIRECTIONS; d++) {
            const Mean *m = &mean[d][more];
            if (m->n)
                printf("%s, %s: geometric mean of the ratios %.2f, the lowest %.2f (%d %d %d)\n",
                       direction_name[d], more ? "threads" : "1 thread", exp(m->log_sum / m->n), m->lowest,
                       m->N, m->O, m->I);
        }
}

static const char *const compute_name[] = { "f32", "bf16", "f16" };

static void bench_product(int N, int O, int I, Arena *memory, int blas) {
    LinearBench p;
    memory->used = 0;
    memset(&p, 0, sizeof p);
    carve_product(&p, N, O, I, F32, opt.compute, memory);
    fill_product(&p);
    for (p.direction = 0; p.direction < DIRECTIONS; p.direction++)
        for (int threads = threads_next(0); threads; threads = threads_next(threads)) {
            Contest c;
            use_threads(threads);
            c = contest(product_run, &p, blas ? blas_run : NULL, &p);
            printf("%4d %5d %5d  %-12s %3d", N, O, I, direction_name[p.direction], threads);
            print_rate(2.0 * N * O * I, 1e9, &c.ours);
            if (blas) {
                Mean *m = &mean[p.direction][threads > 1];
                double apart = difference(&p);
                print_rate(2.0 * N * O * I, 1e9, &c.theirs);
                print_ratio(&c);
                if (!(apart < (opt.compute == F32 ? 1e-3 : 3e-2))) printf("  RESULTS DIFFER by %.1e", apart);
                m->log_sum += log(c.ratio.median);
                if (!m->n++ || c.ratio.median < m->lowest) {
                    m->lowest = c.ratio.median;
                    m->N = N; m->O = O; m->I = I;
                }
            } else printf("  not installed");
            printf("\n");
            fflush(stdout);
        }
}

/* TinyLlama's linears and head, and those of a policy of 15 million weights. Rows: a mini-batch, and 16
 * sequences that are being written. */
static const int shape[][3] = {
    { 512, 2048, 2048 }, { 512, 5632, 2048 }, { 512, 2048, 5632 }, { 512, 32000, 2048 },
    { 128, 288, 288 }, { 128, 768, 288 }, { 128, 288, 768 }, { 128, 32000, 288 },
    { 16, 2048, 2048 }, { 16, 5632, 2048 }, { 16, 2048, 5632 }, { 16, 32000, 2048 },
    { 16, 288, 288 }, { 16, 768, 288 }, { 16, 288, 768 }, { 16, 32000, 288 } };
enum { SHAPES = sizeof shape / sizeof *shape };

static int shape_wanted(int s) {
    const int head = shape[s][1] == 32000 && shape[s][2] == 2048;
    return (!opt.rows || opt.rows == shape[s][0]) && !(opt.quick && head);
}

static void bench_products(void) {
    Blas b;
    int blas = blas_open(&b, opt.openblas);
    Arena most, a;
    LinearBench p;
    memset(&most, 0, sizeof most);
    memset(&a, 0, sizeof a);
    memset(&p, 0, sizeof p);
    if (opt.in) carve_product(&p, opt.rows ? opt.rows : 512, opt.out, opt.in, F32, opt.compute, &most);
    for (int s = 0; s < SHAPES && !opt.in; s++) {
        a.used = 0;
        if (shape_wanted(s)) carve_product(&p, shape[s][0], shape[s][1], shape[s][2], F32, opt.compute, &a);
        if (a.used > most.used) most.used = a.used;
    }
    a = bench_arena(most.used + 64);
    printf("\nproducts computed in %s, GFLOP/s. OpenBLAS, in fp32: %s\n   N     O     I  direction    "
           "threads  ours%23s OpenBLAS%18s ratio\n", compute_name[opt.compute], b.what, "", "");
    if (opt.in) bench_product(opt.rows ? opt.rows : 512, opt.out, opt.in, &a, blas);
    else for (int s = 0; s < SHAPES; s++)
        if (shape_wanted(s)) bench_product(shape[s][0], shape[s][1], shape[s][2], &a, blas);
    if (blas && !opt.in) print_means();
}

/* ---- the plain kernel, which runs on every machine ---- */

static void bench_plain(void) {
    static const int plain[][3] = { { 64, 768, 768 }, { 64, 2048, 768 }, { 512, 768, 768 },
                                    { 512, 2048, 2048 } };
    Arena most, a;
    LinearBench p;
    memset(&most, 0, sizeof most);
    memset(&p, 0, sizeof p);
    must(fast_use("plain"), NULL, NULL);
    use_threads(1);
    carve_product(&p, 512, 2048, 2048, F32, F32, &most);
    a = bench_arena(most.used + 64);
    printf("\nfp32 products by the plain kernel, GFLOP/s, 1 thread\n");
    for (size_t s = 0; s < sizeof plain / sizeof *plain; s++) {
        a.used = 0;
        carve_product(&p, plain[s][0], plain[s][1], plain[s][2], F32, F32, &a);
        fill_product(&p);
        printf("%4d %5d %5d ", plain[s][0], plain[s][1], plain[s][2]);
        for (p.direction = 0; p.direction < DIRECTIONS; p.direction++) {
            Contest c = contest(product_run, &p, NULL, NULL);
            printf("  %s", direction_name[p.direction]);
            print_rate(2.0 * p.N * p.w.O * p.w.I, 1e9, &c.ours);
        }
        printf("\n");
    }
    must(fast_use(getenv("RLHF_ISA")), NULL, NULL);
}

/* ---- products with weights in NF4 and bf16, next to our products of floats ---- */

static void random_codes(Matrix *w, uint64_t stream) {
    Rng rng = rng_stream(3, 4, stream);
    size_t bytes = ((size_t)w->O * (size_t)w->I + 1) / 2,
        blocks = quant_blocks((size_t)w->O * (size_t)w->I, w->quant->block);
    for (size_t i = 0; i < bytes; i++) ((unsigned char *)w->data)[i] = (unsigned char)rng_next(&rng);
    for (size_t i = 0; i < blocks; i++) w->quant->absmax[i] = 0.02f;
}

static void bench_nf4_shape(int N, int O, int I, int type, int compute, Arena *memory) {
    LinearBench p, q;
    memory->used = 0;
    memset(&p, 0, sizeof p);
    memset(&q, 0, sizeof q);
    carve_product(&p, N, O, I, type, compute, memory);
    carve_product(&q, N, O, I, F32, F32, memory);
    if (type == NF4) random_codes(&p.w, 0);
    fill_product(&p);
    fill_product(&q);
    for (p.direction = 0; p.direction < BACK_WEIGHT; p.direction++)
        for (int threads = threads_next(0); threads; threads = threads_next(threads)) {
            Contest c;
            q.direction = p.direction;
            use_threads(threads);
            c = contest(product_run, &p, product_run, &q);
            printf("%4d %5d %5d  %-12s %3d   %-4s  %-4s", N, O, I, direction_name[p.direction], threads,
                   type == NF4 ? "nf4" : "bf16", compute_name[compute]);
            print_rate(2.0 * N * O * I, 1e9, &c.ours);
            print_rate(2.0 * N * O * I, 1e9, &c.theirs);
            print_ratio(&c);
            printf("\n");
            fflush(stdout);
        }
}

/* All linears of a model of TinyLlama's shape, one after another: what one step of writing 16 sequences
 * computes. */
enum { LAYERS = 22, LINEARS = 7 };
typedef struct { LinearBench p[LAYERS * LINEARS + 1]; int n; } Stream;
static void stream_run(void *context) {
    Stream *s = context;
    for (int i = 0; i < s->n; i++) product_run(&s->p[i]);
}

static void carve_stream(Stream *s, int compute, Arena *a) {
    static const int linear[LINEARS][2] = { { 2048, 2048 }, { 256, 2048 }, { 256, 2048 }, { 2048, 2048 },
                                            { 5632, 2048 }, { 5632, 2048 }, { 2048, 5632 } };
    memset(s, 0, sizeof *s);
    for (int l = 0; l < LAYERS; l++)
        for (int i = 0; i < LINEARS; i++)
            carve_product(&s->p[s->n++], 16, linear[i][0], linear[i][1], NF4, compute, a);
    carve_product(&s->p[s->n++], 16, 32000, 2048, NF4, compute, a);
    /* they share the largest workspace, as in real use */
    for (int i = 0; i < s->n; i++) s->p[i].ws = s->p[s->n - 1].ws;
}

static void bench_stream(int compute) {
    static Stream s;
    Arena a;
    double weights = 0;
    memset(&a, 0, sizeof a);
    carve_stream(&s, compute, &a);
    a = bench_arena(a.used + 64);
    carve_stream(&s, compute, &a);
    for (int i = 0; i < s.n; i++) {
        random_codes(&s.p[i].w, (uint64_t)i);
        fill(s.p[i].x, 16u * (size_t)s.p[i].w.I, 1);
        weights += (double)s.p[i].w.O * s.p[i].w.I;
    }
    for (int threads = threads_next(0); threads; threads = threads_next(threads)) {
        Contest c;
        use_threads(threads);
        c = contest(stream_run, &s, NULL, NULL);
        printf("16 rows through %.3f billion weights in NF4, computed in %s, %d thread%s: %.0f ms (%.0f to "
               "%.0f)\n", weights / 1e9, compute_name[compute], threads, threads > 1 ? "s" : "",
               c.ours.median * 1e3, c.ours.low * 1e3, c.ours.high * 1e3);
        fflush(stdout);
    }
}

static void bench_nf4(void) {
    static const int rows[] = { 512, 16 };
    Arena a;
    LinearBench p, q;
    memset(&a, 0, sizeof a);
    memset(&p, 0, sizeof p);
    q = p;
    carve_product(&p, 512, 5632, 2048, BF16, BF16, &a);
    carve_product(&q, 512, 5632, 2048, F32, F32, &a);
    a = bench_arena(a.used + 64);
    printf("\nproducts with weights in NF4 and bf16, GFLOP/s\n   N     O     I  direction    threads weights "
           "compute%20s  floats, ours%13s  ratio\n", "", "");
    for (int r = 0; r < 2; r++)
        for (int k = 0; k < 3; k++) {
            const int type = k < 2 ? NF4 : BF16, compute = k ? BF16 : F32;
            if (opt.rows && opt.rows != rows[r]) continue;
            bench_nf4_shape(rows[r], 2048, 2048, type, compute, &a);
            bench_nf4_shape(rows[r], 5632, 2048, type, compute, &a);
            bench_nf4_shape(rows[r], 2048, 5632, type, compute, &a);
        }
    for (int compute = F32; compute <= BF16 && !opt.rows; compute++) bench_stream(compute);
}

/* ---- quantising: how fast a checkpoint becomes NF4 ---- */

enum { VALUES = 1 << 22 };
typedef struct { f32 *x, *absmax; uint16_t *half; unsigned char *packed; Quant q; } Quantise;
static void quantise_run(void *context) {
    Quantise *w = context;
    must(quantize_4bit(w->packed, w->absmax, w->x, VALUES, 64, QUANT_NF4, NULL), NULL, NULL);
}
static void quantise_bf16_run(void *context) {
    Quantise *w = context;
    for (size_t i = 0; i < VALUES; i++) w->x[i] = bf16_to_f32(w->half[i]);
    quantise_run(context);
}
static void dequantise_run(void *context) {
    Quantise *w = context;
    dequantize_4bit(w->x, w->packed, &w->q, 0, VALUES);
}

static void bench_quantise(void) {
    static const struct { const char *what; Work work; } part[] = {
        { "floats to NF4", quantise_run }, { "bf16 to NF4", quantise_bf16_run },
        { "NF4 to floats", dequantise_run } };
    Arena a = bench_arena((size_t)VALUES * 8);
    Quantise w;
    memset(&w, 0, sizeof w);
    w.x = arena_take(&a, VALUES, sizeof *w.x);
    w.half = arena_take(&a, VALUES, sizeof *w.half);
    w.packed = arena_take(&a, VALUES / 2, 1);
    w.absmax = arena_take(&a, quant_blocks(VALUES, 64), sizeof *w.absmax);
    fill(w.x, VALUES, 5);
    for (size_t i = 0; i < VALUES; i++) w.half[i] = f32_to_bf16(w.x[i]);
    w.q.block = 64;
    w.q.absmax = w.absmax;
    quant_table(w.q.table, QUANT_NF4);
    use_threads(1);
    printf("\n4-bit weights, GB/s of 4-byte floats, 1 thread\n");
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        Contest c = contest(part[i].work, &w, NULL, NULL);
        printf("  %-14s", part[i].what);
        print_rate(4.0 * VALUES, 1e9, &c.ours);
        printf("\n");
    }
}

/* ---- the exponential ---- */

enum { EXPS = 4096 };
static float exp_in[EXPS], exp_out[EXPS];
static void softmax_run(void *context) { (void)context; softmax_weights(exp_out, exp_in, 1, EXPS); }
static void swiglu_run(void *context) {
    (void)context;
    gated_forward(exp_out, exp_in, exp_in, ACT_SILU, EXPS);
}
static void gelu_run(void *context) { (void)context; activation_forward(exp_out, exp_in, ACT_GELU, EXPS); }
static void libm_run(void *context) {
    (void)context;
    for (int i = 0; i < EXPS; i++) exp_out[i] = expf(exp_in[i]);
}

static void bench_exp(void) {
    static const struct { const char *what; Work work; } part[] = {
        { "e^(z - max z)", softmax_run }, { "swiglu", swiglu_run }, { "gelu", gelu_run } };
    for (int i = 0; i < EXPS; i++) exp_in[i] = (float)(i - EXPS / 2) * 0.005f;
    use_threads(1);
    printf("\nthe exponential, billion/s, 1 thread    ours%23s libm's expf%15s ratio\n", "", "");
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        Contest c = contest(part[i].work, NULL, libm_run, NULL);
        printf("  %-36s", part[i].what);
        print_rate(EXPS, 1e9, &c.ours);
        print_rate(EXPS, 1e9, &c.theirs);
        print_ratio(&c);
        printf("\n");
    }
}

/* ---- memory, which bounds the speed of generating one sequence ---- */

enum { WORDS = 1 << 25, PARTS = 64 };
static volatile uint64_t part_sum[PARTS];  /* volatile, or the compiler would remove the loop that fills it */
static void memory_run(void *context) {
    const uint64_t *x = context;
    PARALLEL_FOR(WORDS)
    for (int part = 0; part < PARTS; part++) {
        const uint64_t *p = x + (size_t)part * (WORDS / PARTS);
        uint64_t s[8] = { 0 };
        for (int i = 0; i < WORDS / PARTS; i += 8)
            for (int k = 0; k < 8; k++) s[k] += p[i + k];
        part_sum[part] = s[0] + s[1] + s[2] + s[3] + s[4] + s[5] + s[6] + s[7];
    }
}

double memory_rate(int threads) {
    Arena a = bench_arena((size_t)WORDS * 8);
    Contest c;
    memset(a.base, 1, (size_t)WORDS * 8);
    use_threads(threads);
    c = contest(memory_run, a.base, NULL, NULL);
    return 8.0 * WORDS / c.ours.median;
}

static void bench_memory(void) {
    printf("\nmemory, read, GB/s:");
    for (int threads = threads_next(0); threads; threads = threads_next(threads))
        printf("   %d thread%s %.1f", threads, threads > 1 ? "s" : "", memory_rate(threads) / 1e9);
    printf("\n");
}

/* ---- a tokenizer ---- */

typedef struct { const char *text; size_t length; int *ids, count; } Sample;
typedef struct {
    const Tokenizer *tokenizer; Pool *pool, *kept;
    Sample *document; size_t documents, bytes, tokens;
} Corpus;
static void encode_run(void *context) {
    Corpus *w = context;
    for (size_t i = 0; i < w->documents; i++) {
        Sample *d = &w->document[i];
        PoolMark mark = pool_mark(w->pool);
        must(tokenizer_encode(w->tokenizer, d->text, d->length, w->pool, &d->ids, &d->count), NULL,
             "a shorter text");
        pool_release(w->pool, mark);
    }
}
static void decode_run(void *context) {
    Corpus *w = context;
    char *text;
    size_t length;
    for (size_t i = 0; i < w->documents; i++) {
        PoolMark mark = pool_mark(w->pool);
        must(tokenizer_decode(w->tokenizer, w->document[i].ids, w->document[i].count, w->pool, &text,
                              &length), NULL, "a shorter text");
        pool_release(w->pool, mark);
    }
}

/* Reads at most 4 MB of documents: a dataset's, or the lines of any file. */
enum { TEXT_BYTES = 4000000 };
static void add_document(Corpus *w, const char *text, size_t length) {
    Sample *d = &w->document[w->documents++];
    d->text = text;
    d->length = length;
    w->bytes += length + 1;
}

static void load_text(Corpus *w) {
    Error err = { 0 };
    Dataset d;
    char *bytes = NULL;
    size_t n = strlen(opt.text), length = 0;
    if (n > 4 && !strcmp(opt.text + n - 4, ".bin")) {
        must(dataset_read(&d, opt.text, w->kept, &err), &err, "make data/imdb.bin");
        w->document = pool_take(w->kept, (size_t)d.count + 1, sizeof *w->document);
        for (uint64_t i = 0; i < d.count && w->bytes < TEXT_BYTES; i++)
            add_document(w, d.document[i].text[0], d.document[i].length[0]);
    } else {
        size_t lines = 1, begin = 0;
        must(file_read_all(opt.text, w->kept, &bytes, &length, &err), &err, NULL);
        for (size_t i = 0; i < length; i++) lines += bytes[i] == '\n';
        w->document = pool_take(w->kept, lines, sizeof *w->document);
        for (size_t i = 0; i <= length && w->bytes < TEXT_BYTES; i++)
            if (i == length ? begin < length : bytes[i] == '\n') {
                add_document(w, bytes + begin, i - begin);
                begin = i + 1;
            }
    }
}

static void bench_tokenizer(void) {
    Error err = { 0 };
    Pool kept = cli_pool(), scratch = cli_pool();
    Corpus w = { 0 };
    Contest c;
    w.tokenizer = tokenizer_open(opt.tokenizer, &kept, &err);
    if (!w.tokenizer) die(&err, "a folder with tokenizer.model, or with vocab.json and merges.txt");
    w.pool = &scratch;
    w.kept = &kept;
    load_text(&w);
    use_threads(1);
    c = contest(encode_run, &w, NULL, NULL);
    printf("\ntokenizer %s, %lu bytes, 1 thread\n  encode MB/s ", opt.tokenizer, (unsigned long)w.bytes);
    print_rate((double)w.bytes, 1e6, &c.ours);
    for (size_t i = 0; i < w.documents; i++) {
        Sample *d = &w.document[i];
        must(tokenizer_encode(w.tokenizer, d->text, d->length, &kept, &d->ids, &d->count), NULL,
             "a shorter text");
        w.tokens += (size_t)d->count;
    }
    c = contest(decode_run, &w, NULL, NULL);
    printf("\n  decode MB/s ");
    print_rate((double)w.bytes, 1e6, &c.ours);
    printf("\n  tokens        %lu\n", (unsigned long)w.tokens);
    pool_free(&scratch);
    pool_free(&kept);
}

/* ---- cutting texts into words: by a pattern, and GPT-2's by hand ---- */
typedef struct { const Corpus *corpus; const Regex *regex; size_t words; } Cut;
static void cut_run(void *context) {
    Cut *c = context;
    c->words = 0;
    for (size_t i = 0; i < c->corpus->documents; i++) {
        Text s = { c->corpus->document[i].text, c->corpus->document[i].length };
        size_t at = 0, from, to;
        if (c->regex)
            for (; at < s.length && regex_find(c->regex, s, at, &from, &to); at = to) c->words++;
        else for (; at < s.length; at += bytelevel_word(s.text + at, s.length - at)) c->words++;
    }
}

static void bench_split(void) {
    static const struct { const char *name, *pattern; } row[] = {
        { "GPT-2, by hand", NULL },
        { "GPT-2", "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+" },
        { "Llama 3", "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}"
                     "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+" } };
    Pool kept = cli_pool();
    Corpus w = { 0 };
    w.kept = &kept;
    load_text(&w);
    use_threads(1);
    printf("\nwords of %lu bytes by regular expressions, 1 thread", (unsigned long)w.bytes);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        Error err = { 0 };
        Regex r;
        Cut c = { &w, row[i].pattern ? &r : NULL, 0 };
        Text pattern = { row[i].pattern, row[i].pattern ? strlen(row[i].pattern) : 0 };
        Contest k;
        if (row[i].pattern) must(regex_compile(&r, pattern, &kept, &err), &err, NULL);
        k = contest(cut_run, &c, NULL, NULL);
        printf("\n  %-15s MB/s ", row[i].name);
        print_rate((double)w.bytes, 1e6, &k.ours);
        printf(" %lu words", (unsigned long)c.words);
    }
    printf("\n");
    pool_free(&kept);
}

/* ---- the parts, and the machine ---- */

static void machine(void) {
    const Kernel *k = fast_kernel();
    Pool pool = cli_pool();
    Error err = { 0 };
    const char *line;
    size_t n;
    Lines *l = lines_open("/proc/cpuinfo", &pool, &err);
    printf("%d thread%s, kernel %s%s%s", all_threads, all_threads > 1 ? "s" : "", k ? k->name : "plain",
           fast_half() ? " and " : "", fast_half() ? fast_half()->name : "");
#ifdef __VERSION__
    printf(", compiled by %s", __VERSION__);
#endif
    while (l && lines_next(l, &line, &n))
        if (n > 10 && !memcmp(line, "model name", 10)) {
            const char *colon = memchr(line, ':', n);
            if (colon) printf(", %.*s", (int)(n - (size_t)(colon + 2 - line)), colon + 2);
            break;
        }
    if (l) lines_close(l, &err);
    printf("\nmedian (slowest to fastest run)\n");
    fflush(stdout);
    pool_free(&pool);
}

/* asked: the section runs only if the command line names it. */
static const struct { const char *name; void (*run)(void); int asked; } section[] = {
    { "products", bench_products, 0 }, { "plain", bench_plain, 0 }, { "nf4", bench_nf4, 0 },
    { "quantise", bench_quantise, 0 }, { "exp", bench_exp, 0 },
    { "memory", bench_memory, 0 }, { "tokenizer", bench_tokenizer, 0 }, { "split", bench_split, 0 },
    { "generate", bench_generate, 1 },
    { "judge", bench_judge, 1 } };
enum { SECTIONS = sizeof section / sizeof *section };

int main(int argc, char **argv) {
    const char *name[SECTIONS + 1];
    int names = cli_parse(&program, argc, argv, name, SECTIONS), ran = 0;
    if (!opt.in != !opt.out) usage_error("--in and --out belong together", NULL);
    if (opt.quick && !cli_given(&program, "runs")) opt.runs = 5;
    all_threads = threads_max();
    machine();
    for (int s = 0; s < SECTIONS; s++) {
        int wanted = names == 0 && !section[s].asked;
        for (int i = 0; i < names; i++) wanted |= !strcmp(name[i], section[s].name);
        if (wanted) section[s].run();
        ran += wanted;
    }
    if (ran < names) usage_error("parts:", program.usage);
    return 0;
}
