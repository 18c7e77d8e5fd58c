/* tests/bench/bench_models.c - whole models for `make bench`: a policy that writes (a prompt, one sequence,
 * 16 sequences) and a judge that reads. Both are folders; their weights may be random (tests/tools/shapes.c),
 * since no time depends on them.
 *
 * Bound    One sequence reads every weight for each token, so memory bounds its speed: the bytes of the
 *          weights against the rate that memory_rate measures in the same minute. A prompt and 16 sequences
 *          use each weight several times. */
#include "bench.h"

/* ---- a policy that writes ---- */

typedef struct {
    Model model; ModelConfig config; Cache kv; Arena ws;
    Sequence *seq; int B, prompt, length; double at_first;
} WritingBench;

static int note_first(void *context, int sequence, int token) {
    WritingBench *w = context;
    (void)sequence; (void)token;
    if (w->at_first == 0) w->at_first = wall_clock();
    return 0;
}

static int generate(WritingBench *w, Arena *ws) {
    const Writing writing = { NULL, NULL, { 1, 0, 1 }, note_first, w };
    w->at_first = 0;
    for (int b = 0; b < w->B; b++) {
        w->seq[b].prompt = w->seq[b].length = w->prompt;
        w->seq[b].capacity = w->length;
        w->seq[b].done = 0;
        w->seq[b].rng = rng_stream(5, 6, (uint64_t)b);
    }
    return model_generate(&w->model, &writing, w->seq, w->B, &w->kv, ws);
}

static void generate_run(void *context) {
    WritingBench *w = context;
    must(generate(w, &w->ws), NULL, "generating");
}

/* Holds the weights as the folder has them, or in NF4. */
static void load_policy(WritingBench *w, Pool *pool) {
    Error err = { 0 };
    WeightTypes types;
    Arena a;
    memset(&a, 0, sizeof a);
    memset(&types, 0, sizeof types);
    must(config_load(&w->config, opt.policy, pool, &err), &err, NULL);
    must(folder_types(&types, opt.policy, w->config.names, pool, &err), &err, NULL);
    if (opt.nf4) {
        types.layers = NF4;
        types.kind = QUANT_NF4;
        types.block = 64;
    }
    types.compute = opt.compute;
    must(model_carve(&w->model, &w->config, &types, 0, w->config.positions, pool, &a, &err), &err, NULL);
    a = cli_arena(a.used, "the policy");
    must(model_carve(&w->model, &w->config, &types, 0, w->config.positions, pool, &a, &err), &err, NULL);
    must(checkpoint_load(opt.policy, "model", w->model.tensor, w->model.tensors, pool, &err), &err, NULL);
}

/* Returns the bytes that a token reads: every matrix once, but of the embedding one row, unless it is also
 * the head. */
static double bytes_read(const Model *m) {
    double bytes = 0;
    for (int i = 0; i < m->tensors; i++) {
        const Matrix *w = m->tensor[i].matrix;
        if (w == &m->embedding && !m->config.tied) continue;
        if (m->tensor[i].flags & TENSOR_TIED) continue;
        bytes += (double)tensor_bytes(w);
        if (w->type == NF4) bytes += 4.0 * (double)quant_blocks((size_t)w->O * (size_t)w->I, w->quant->block);
    }
    return bytes;
}

static void writing_carve(WritingBench *w, int B, int prompt, int length, Pool *pool) {
    Arena a;
    Rng rng = rng_stream(7, 8, 9);
    w->B = B;
    w->prompt = prompt;
    w->length = length;
    w->seq = pool_take(pool, (size_t)B, sizeof *w->seq);
    for (int b = 0; b < B; b++) {
        w->seq[b].token = pool_take(pool, (size_t)length, sizeof(int));
        for (int t = 0; t < prompt; t++) w->seq[b].token[t] = (int)rng_below(&rng, (uint64_t)w->config.V);
    }
    memset(&a, 0, sizeof a);
    memset(&w->ws, 0, sizeof w->ws);
    cache_carve(&w->kv, &w->config.stack, w->config.stack.L, B, length, &a);
    must(generate(w, &w->ws), NULL, "measuring");
    a = bench_arena(a.used + w->ws.peak + 128);
    cache_carve(&w->kv, &w->config.stack, w->config.stack.L, B, length, &a);
    w->ws.capacity = w->ws.peak;
    w->ws.base = arena_take(&a, w->ws.capacity, 1);
    w->ws.used = w->ws.peak = 0;
}

void bench_generate(void) {
    WritingBench w;
    Pool pool = cli_pool();
    static const struct { const char *what; int B, prompt, length; } part[] = {
        { "one sequence", 1, 1, 0 }, { "a prompt of 128 tokens", 1, 128, 129 },
        { "16 sequences of 8 + 24 tokens", 16, 8, 32 } };
    if (!opt.policy) usage_error("generate needs", "--policy DIR");
    memset(&w, 0, sizeof w);
    load_policy(&w, &pool);
    printf("\n%s%s writes, tokens/s. A token reads %.3f GB\n", opt.policy, opt.nf4 ? " in NF4" : "",
           bytes_read(&w.model) / 1e9);
    fflush(stdout);
    for (int i = 0; i < 3; i++) {
        int length = part[i].length ? part[i].length : 1 + opt.tokens,
            tokens = part[i].prompt == 128 ? 128 : part[i].B * (length - part[i].prompt);
        if (length > w.config.positions) length = w.config.positions;
        for (int threads = threads_next(0); threads; threads = threads_next(threads)) {
            Contest c;
            double rate = i ? 0 : memory_rate(threads);
            writing_carve(&w, part[i].B, part[i].prompt, length, &pool);
            use_threads(threads);
            c = contest(generate_run, &w, NULL, NULL);
            printf("  %-30s %d thread%s", part[i].what, threads, threads > 1 ? "s" : " ");
            print_rate(tokens, 1, &c.ours);
            if (i == 0)
                printf("  memory (%.1f GB/s) allows %.4g: %.2f of it", rate / 1e9,
                       rate / bytes_read(&w.model), tokens / c.ours.median * bytes_read(&w.model) / rate);
            printf("\n");
            fflush(stdout);
        }
    }
    pool_free(&pool);
}

/* ---- a judge that reads ---- */

enum { TEXTS = 16 };
typedef struct { RewardModel model; Texts texts; float logits[TEXTS * LABELS_MAX]; Arena ws; } Judging;
static void judge_run(void *context) {
    Judging *r = context;
    must(reward_forward(&r->model, NULL, &r->texts, NULL, r->logits, &r->ws), NULL, "the judge");
}

/* Returns the multiply-adds of one text of T tokens: linears and attention. */
static double judge_products(const RewardConfig *c, double T) {
    double C = c->stack.C, F = c->stack.F;
    return c->stack.L * T * (4 * C * C + 2 * C * F + 2 * T * C);
}

void bench_judge(void) {
    Error err = { 0 };
    Pool pool = cli_pool();
    Arena a;
    RewardConfig config;
    Judging r;
    int token[16 * 512], start[TEXTS + 1], T = opt.tokens;
    Rng rng = rng_stream(9, 9, 9);
    const WeightTypes types = { F32, F32, 0, 0, 0, opt.compute, NULL };
    if (!opt.reward) usage_error("judge needs", "--reward DIR");
    memset(&r, 0, sizeof r);
    memset(&a, 0, sizeof a);
    must(reward_config_load(&config, opt.reward, &pool, &err), &err, NULL);
    must(reward_carve(&r.model, &config, &types, 0, &pool, &a, &err), &err, NULL);
    if (T > reward_max_tokens(&config)) T = reward_max_tokens(&config);
    if (T > 512) T = 512;
    for (int b = 0; b <= TEXTS; b++) start[b] = b * T;
    for (int i = 0; i < TEXTS * T; i++)
        token[i] = i % T ? 3 + (int)rng_below(&rng, (uint64_t)config.V - 3) : config.bos;
    r.texts.N = TEXTS * T;
    r.texts.B = TEXTS;
    must(reward_forward(&r.model, NULL, &r.texts, NULL, r.logits, &r.ws), NULL, "measuring");
    a = cli_arena(a.used + r.ws.peak + 128, "the judge");
    must(reward_carve(&r.model, &config, &types, 0, &pool, &a, &err), &err, NULL);
    must(checkpoint_load(opt.reward, "model", r.model.tensor, r.model.tensors, &pool, &err), &err, NULL);
    r.ws.capacity = r.ws.peak;
    r.ws.base = arena_take(&a, r.ws.capacity, 1);
    r.ws.used = r.ws.peak = 0;
    r.texts.token = token;
    r.texts.start = start;
    printf("\n%s reads %d texts of %d tokens: ms, GFLOP/s\n", opt.reward, TEXTS, T);
    for (int threads = threads_next(0); threads; threads = threads_next(threads)) {
        Contest c;
        use_threads(threads);
        c = contest(judge_run, &r, NULL, NULL);
        printf("  %d thread%s  %.4g ms ", threads, threads > 1 ? "s" : " ", c.ours.median * 1e3);
        print_rate(2 * TEXTS * judge_products(&config, T), 1e9, &c.ours);
        printf("\n");
        fflush(stdout);
    }
    pool_free(&pool);
}
