/* tests/bench.c - how fast the operations are that take the time (`make bench`): the product in its three directions on one
 * thread and on all, the exponential, a tokenizer. Medians of several runs, and how far the runs lie apart.
 *
 *     make bench                                              usual shapes, 16, 64 and 512 rows
 *     make bench BENCH="--rows 64 --in 768 --out 2048"        one shape
 *     make bench BENCH="--tokenizer data/policy"              a tokenizer on data/imdb.bin (or --text FILE)
 *
 * A multiply and an add are two operations: y (N,O) = x (N,I) W^T has 2 N O I. Sizes come at run time, as in real use. */
#include "../rlhf.h"
#include <stdio.h>
#ifdef _OPENMP
#include <omp.h>
#endif

enum { RUNS_MAX = 101 };
enum { FORWARD, BACK_INPUT, BACK_WEIGHT };

static struct { int rows, in, out, runs; double seconds; const char *tokenizer, *text; } opt;
static Option option[] = {
    { "rows", OPT_INT, &opt.rows, NULL, 1, 1 << 20, NULL, "rows N of the product, instead of 16, 64 and 512" },
    { "in", OPT_INT, &opt.in, NULL, 1, 1 << 20, NULL, "in features I (with --out: this shape alone)" },
    { "out", OPT_INT, &opt.out, NULL, 1, 1 << 20, NULL, "out features O" },
    { "runs", OPT_INT, &opt.runs, "9", 1, RUNS_MAX, NULL, "runs, of which the median counts" },
    { "seconds", OPT_REAL, &opt.seconds, "0.03", 0.0001, 60, NULL, "shortest time of one run: what is quick is repeated" },
    { "tokenizer", OPT_TEXT, &opt.tokenizer, NULL, 0, 0, NULL, "a tokenizer to time" },
    { "text", OPT_TEXT, &opt.text, "data/imdb.bin", 0, 0, NULL, "the text for it: a dataset (*.bin) or any file" },
};
static const Program program = { "build/tests/bench", "[options]", "Times the product, the exponential and a tokenizer.", option, 7, NULL, 0 };

/* ---- medians ---- */

typedef struct { double median, low, high; } Times;         /* seconds of one repetition */

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static Times measure(void (*work)(void *), void *context) {
    double t[RUNS_MAX], begin = wall_clock();
    Times r;
    int repeat = 1;
    work(context);                                          /* warm: pages, caches, threads */
    begin = wall_clock();
    work(context);
    t[0] = wall_clock() - begin;
    if (t[0] < opt.seconds) repeat = 1 + (int)(opt.seconds / (t[0] > 1e-7 ? t[0] : 1e-7));
    for (int k = 0; k < opt.runs; k++) {
        begin = wall_clock();
        for (int i = 0; i < repeat; i++) work(context);
        t[k] = (wall_clock() - begin) / repeat;
    }
    qsort(t, (size_t)opt.runs, sizeof *t, ascending);
    r.median = t[opt.runs / 2];
    r.low = t[0];
    r.high = t[opt.runs - 1];
    return r;
}

/* "22.1 (21.8 to 22.3)": work per second, in units of `unit` */
static void print_rate(double work, double unit, const Times *t) {
    printf("  %6.2f (%.1f to %.1f)", work / t->median / unit, work / t->high / unit, work / t->low / unit);
}

static void use_threads(int n) {
#ifdef _OPENMP
    omp_set_num_threads(n);
#else
    (void)n;
#endif
}

/* ---- the product ---- */

typedef struct { int direction, N; Matrix w; float *x, *y, *dx, *dy; Arena ws; } Product;

static void product_run(void *context) {
    Product *p = context;
    Matrix w = p->w;
    size_t used = p->ws.used;
    if (p->direction != BACK_WEIGHT) w.grad = NULL;
    if (p->direction == FORWARD) linear_forward(p->y, p->x, &w, NULL, p->N, &p->ws);
    else linear_backward(p->direction == BACK_INPUT ? p->dx : NULL, NULL, p->dy, p->x, &w, p->N, &p->ws);
    p->ws.used = used;
}

static void carve_product(Product *p, Arena *a) {
    size_t N = (size_t)p->N, O = (size_t)p->w.O, I = (size_t)p->w.I;
    p->w.data = arena_take(a, O * I, sizeof(float));
    p->w.grad = arena_take(a, O * I, sizeof(float));
    p->x = arena_take(a, N * I, sizeof(float));
    p->dx = arena_take(a, N * I, sizeof(float));
    p->y = arena_take(a, N * O, sizeof(float));
    p->dy = arena_take(a, N * O, sizeof(float));
}

static void bench_product(int N, int O, int I, int threads_all) {
    static const char *const name[] = { "y = x W'", "dx += dy W", "dW += dy' x" };
    Product p;
    Arena a;
    float dummy = 0;
    memset(&p, 0, sizeof p);
    memset(&a, 0, sizeof a);
    p.N = N;
    p.w.O = O;
    p.w.I = I;
    use_threads(threads_all);
    carve_product(&p, &a);
    p.w.grad = &dummy;                                      /* measuring only asks whether there is one */
    linear_forward(NULL, NULL, &p.w, NULL, N, &p.ws);
    linear_backward(&dummy, NULL, NULL, NULL, &p.w, N, &p.ws);
    {
        Rng rng = rng_stream(1, 2, 3);
        size_t scratch = p.ws.peak > p.ws.used ? p.ws.peak : p.ws.used;
        Arena real = cli_arena(a.used + 64, "the product"), work = cli_arena(scratch + 64, "its workspace");
        carve_product(&p, &real);
        p.ws = work;
        for (size_t i = 0; i < (size_t)O * (size_t)I; i++) ((float *)p.w.data)[i] = (float)rng_unit(&rng) - 0.5f;
        for (size_t i = 0; i < (size_t)N * (size_t)I; i++) p.x[i] = (float)rng_unit(&rng) - 0.5f;
        for (size_t i = 0; i < (size_t)N * (size_t)O; i++) p.dy[i] = (float)rng_unit(&rng) - 0.5f;
    }
    for (p.direction = 0; p.direction < 3; p.direction++) {
        printf("%5d %5d %5d  %-12s", N, O, I, name[p.direction]);
        for (int threads = 1;; threads = threads_all) {
            Times t;
            use_threads(threads);
            t = measure(product_run, &p);
            print_rate(2.0 * N * O * I, 1e9, &t);
            if (threads == threads_all) break;
        }
        printf("\n");
        fflush(stdout);
    }
}

/* ---- the exponential ---- */

enum { EXPS = 4096 };
static float exp_in[EXPS], exp_out[EXPS];
static void exp_run(void *context) {
    (void)context;
    swiglu_forward(exp_out, exp_in, exp_in, EXPS);
}

/* ---- a tokenizer ---- */

typedef struct { const Tokenizer *tokenizer; Pool *pool; const char *text; size_t length; int *ids; int count; char *back; size_t back_length; } Work;
static void encode_run(void *context) {
    Work *w = context;
    PoolMark mark = pool_mark(w->pool);
    must(tokenizer_encode(w->tokenizer, w->text, w->length, w->pool, &w->ids, &w->count), NULL, "a shorter text");
    pool_release(w->pool, mark);
}
static void decode_run(void *context) {
    Work *w = context;
    PoolMark mark = pool_mark(w->pool);
    must(tokenizer_decode(w->tokenizer, w->ids, w->count, w->pool, &w->back, &w->back_length), NULL, "a shorter text");
    pool_release(w->pool, mark);
}

/* At most 4 MB of the text: the documents of a dataset, one after another, or any file. */
static void load_text(Work *w, Pool *pool) {
    Error err = { 0 };
    Dataset d;
    char *bytes = NULL;
    size_t n = strlen(opt.text), limit = 4000000;
    if (n > 4 && !strcmp(opt.text + n - 4, ".bin")) {
        Buffer b = { 0 };
        b.pool = pool;
        must(dataset_read(&d, opt.text, pool, &err), &err, "make data/imdb.bin");
        for (uint64_t i = 0; i < d.count && b.length < limit; i++) {
            buffer_bytes(&b, d.document[i].text[0], d.document[i].length[0]);
            buffer_u8(&b, '\n');
        }
        w->text = (const char *)b.data;
        w->length = b.length;
    } else {
        must(file_read_all(opt.text, pool, &bytes, &w->length, &err), &err, NULL);
        w->text = bytes;
        if (w->length > limit) w->length = limit;
    }
}

static void bench_tokenizer(void) {
    Error err = { 0 };
    Pool kept = cli_pool(), scratch = cli_pool();
    Work w = { 0 };
    Times t;
    PoolMark mark;
    w.tokenizer = tokenizer_open(opt.tokenizer, &kept, &err);
    if (!w.tokenizer) die(&err, "a folder with tokenizer.model, or with vocab.json and merges.txt");
    w.pool = &scratch;
    load_text(&w, &kept);
    t = measure(encode_run, &w);
    printf("tokenizer %s, %lu bytes:\n  encode MB/s", opt.tokenizer, (unsigned long)w.length);
    print_rate((double)w.length, 1e6, &t);
    mark = pool_mark(&scratch);
    must(tokenizer_encode(w.tokenizer, w.text, w.length, &scratch, &w.ids, &w.count), NULL, "a shorter text");
    t = measure(decode_run, &w);
    printf("\n  decode MB/s");
    print_rate((double)w.length, 1e6, &t);
    printf("\n  bytes per token  %.2f\n", (double)w.length / (w.count ? w.count : 1));
    pool_release(&scratch, mark);
    pool_free(&scratch);
    pool_free(&kept);
}

int main(int argc, char **argv) {
    static const int rows[] = { 16, 64, 512 }, shape[][2] = { { 128, 128 }, { 352, 128 }, { 768, 768 }, { 2048, 768 }, { 1024, 128 } };
    const char *none[1];
    int threads, shapes = (int)(sizeof shape / sizeof *shape);
    Times t;
    cli_parse(&program, NULL, argc, argv, none, 0);
    if (!opt.in != !opt.out) usage_error("--in and --out belong together", NULL);
    threads = threads_max();
    printf("GFLOP/s, median of %d runs (slowest to fastest)\n    N     O     I  %-12s  1 thread", opt.runs, "");
    if (threads > 1) printf("                 %d threads", threads);
    printf("\n");
    for (int s = 0; s < (opt.in ? 1 : shapes); s++)
        for (int r = 0; r < (opt.rows ? 1 : 3); r++)
            bench_product(opt.rows ? opt.rows : rows[r], opt.in ? opt.out : shape[s][0], opt.in ? opt.in : shape[s][1], threads);
    use_threads(1);
    for (int i = 0; i < EXPS; i++) exp_in[i] = (float)(i - EXPS / 2) * 0.005f;
    t = measure(exp_run, NULL);
    printf("swiglu (one exponential each), million/s, 1 thread:");
    print_rate(EXPS, 1e6, &t);
    printf("\n");
    use_threads(threads);
    if (opt.tokenizer) bench_tokenizer();
    return 0;
}
