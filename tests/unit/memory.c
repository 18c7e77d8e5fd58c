/* memory.c - what is measured is enough, and no byte past it is touched: every call that has a workspace, of
 * a policy and a judge, for each kernel that is here and tiles of bf16, 1, 2 and 4 threads, each compute
 * type, weights in 32, 16 and 4 bits, with and without LoRA and recomputation, on sizes that are no multiples
 * of anything.
 *
 * As a program does: first models are carved in an arena that only measures, and each call is measured with
 * them for the most rows. Then they are carved again, and each call runs in exactly the bytes that were
 * measured for it, with the most rows and with fewer. */
#include "test.h"
#ifndef PLAIN
#include "../../fast/fast.h"
#include "amx_model.h"
#endif

/* lora: NO_LORA, or which linears have it; wide: the feed-forward is. */
enum { NO_LORA, EVERYWHERE, FEED_FORWARD };
typedef struct { int type, compute, lora, recompute, wide; } Setting;

enum { B = 3, T = 23, ROWS = B * T, CANARY = 4096, LABELS = 3, V = 300 };
static Pool pool;
static Arena memory;
static unsigned char *scratch;
static size_t room = (size_t)48 << 20;

/* ---- the models, and their calls: the only part that knows the library's interface ---- */

typedef struct {
    int live;                               /* 0: everything is measured */
    Model m; Lora lora; ValueHead head; Cache kv; Saved saved;
    RewardModel judge; Lora judge_lora; RewardSaved judge_saved;
    const Lora *adapter, *judge_adapter;
    float *hidden, *dhidden, *logprob, *value, *logits;
    int *token, *sequence, *position, *target, *start;
    unsigned char *wants;
    Rng rng;
} Models;

static void fill(const Models *x, const Tensor *t, int n) {
    for (int i = 0; i < n && x->live; i++) {
        const Matrix *w = t[i].matrix;
        size_t size = (size_t)w->O * (size_t)w->I;
        if (w->type == F32) tensor_normal(w, 0.1, 7);
        else memset(w->data, 17, tensor_bytes(w));          /* some finite number in every format */
        for (size_t b = 0; w->quant && b < quant_blocks(size, w->quant->block); b++)
            w->quant->absmax[b] = 0.1f;
        if (w->grad) memset(w->grad, 0, size * sizeof *w->grad);
    }
}

static WeightTypes types_of(const Setting *s) {
    WeightTypes t = { 0, 0, QUANT_NF4, 32, 0, 0, NULL };
    t.layers = s->type;
    t.tables = s->type == BF16 ? BF16 : F32;
    t.compute = s->compute;
    return t;
}

static void carve_policy(Models *x, const Setting *s, Arena *a, Error *err) {
    const LoraConfig lora = lora_config(5, 8, s->lora == FEED_FORWARD ? "gate_proj,up_proj" :
                                              "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj");
    const WeightTypes types = types_of(s);
    ModelConfig c;
    memset(&c, 0, sizeof c);
    c.V = V; c.positions = T; c.bos = c.pad = -1;
    c.stack.C = 45; c.stack.L = s->wide ? 1 : 2; c.stack.H = 6; c.stack.K = 3; c.stack.D = 10;
    c.stack.eps = 1e-5f; c.stack.rope.theta = 1e4;
    c.stack.F = s->wide ? 8300 : 77;
    config_policy(&c, "llama");
    model_carve(&x->m, &c, &types, !s->lora && s->type == F32, T, &pool, a, err);
    value_head_carve(&x->head, c.stack.C, s->wide ? 1 : 2, 1, a);
    cache_carve(&x->kv, &c.stack, c.stack.L, B, T, a);
    saved_carve(&x->saved, &c.stack, ROWS, ROWS, s->recompute, a);
    if (s->lora) lora_carve(&x->lora, x->m.tensor, x->m.tensors, &lora, 1, &pool, a, err);
    x->adapter = s->lora ? &x->lora : NULL;
    fill(x, x->m.tensor, x->m.tensors);
    fill(x, x->head.tensor, x->head.tensors);
    if (s->lora) fill(x, x->lora.tensor, x->lora.tensors);
}

static void carve_judge(Models *x, const Setting *s, Arena *a, Error *err) {
    LoraConfig lora = lora_config(5, 8, "query,key,value,dense");
    const WeightTypes types = types_of(s);
    const int trainable = !s->lora && s->type == F32;
    RewardConfig c;
    memset(&c, 0, sizeof c);
    c.V = V; c.positions = T + 2; c.types = 1; c.pad = 1; c.eos[0] = 2; c.eos_count = 1; c.labels = LABELS;
    c.stack.C = 44; c.stack.L = 2; c.stack.H = c.stack.K = 4; c.stack.D = 11; c.stack.F = 70;
    c.stack.eps = 1e-5f;
    config_judge(&c, "roberta");
    reward_carve(&x->judge, &c, &types, trainable, &pool, a, err);
    reward_saved_carve(&x->judge_saved, &c, ROWS, B, s->recompute, a);
    if (s->lora) lora.save = lora_head(x->judge.tensor, x->judge.tensors, &pool);
    if (s->lora) lora_carve(&x->judge_lora, x->judge.tensor, x->judge.tensors, &lora, 1, &pool, a, err);
    x->judge_adapter = s->lora ? &x->judge_lora : NULL;
    fill(x, x->judge.tensor, x->judge.tensors);
    if (s->lora) fill(x, x->judge_lora.tensor, x->judge_lora.tensors);
}

static void carve(Models *x, const Setting *s, Arena *a) {
    Error err = { 0 };
    memset(x, 0, sizeof *x);
    x->live = a->base != NULL;
    carve_policy(x, s, a, &err);
    carve_judge(x, s, a, &err);
    x->hidden = arena_take(a, ROWS * 45, sizeof(float));
    x->dhidden = arena_take(a, ROWS * 45, sizeof(float));
    x->logprob = arena_take(a, 2 * ROWS, sizeof(float));
    x->value = arena_take(a, 2 * ROWS, sizeof(float));
    x->logits = arena_take(a, B * LABELS, sizeof(float));
    x->token = pool_take(&pool, ROWS, sizeof(int));
    x->sequence = pool_take(&pool, ROWS, sizeof(int));
    x->position = pool_take(&pool, ROWS, sizeof(int));
    x->target = pool_take(&pool, ROWS, sizeof(int));
    x->start = pool_take(&pool, B + 1, sizeof(int));
    x->wants = pool_take(&pool, ROWS, 1);
    x->rng = rng_stream(3, 0, 0);
    CHECK(err.code == OK && !a->failed, "carving: %s %s", err.what, err.where);
}

/* The first N of all rows, in texts of T; the last of them, and every third, is wanted. */
static Rows rows_of_models(Models *x, int N) {
    Rows r = { 0, 0, x->token, x->sequence, x->position, x->wants };
    for (; r.N < N; r.N++) {
        x->token[r.N] = (r.N * 7) % V;
        x->sequence[r.N] = r.N / T;
        x->position[r.N] = r.N % T;
        x->target[r.N] = (r.N * 5) % V;
        x->wants[r.N] = r.N % 3 == 0 || r.N == N - 1;
        r.W += x->wants[r.N];
    }
    return r;
}

static void learn(void *context, int first, int n, const float *logprob, float *dlogprob) {
    (void)context; (void)first; (void)logprob;
    for (int i = 0; i < n; i++) dlogprob[i] = 0.1f;
}

static int call_forward(Models *x, int N, Arena *ws) {
    Rows r = rows_of_models(x, N);
    return model_forward(&x->m, x->adapter, &r, &x->kv, NULL, x->hidden, ws);
}
static int call_forward_saved(Models *x, int N, Arena *ws) {
    Rows r = rows_of_models(x, N);
    return model_forward(&x->m, x->adapter, &r, &x->kv, &x->saved, x->hidden, ws);
}
static int call_backward(Models *x, int N, Arena *ws) {
    Rows r = rows_of_models(x, N);
    return model_backward(&x->m, x->adapter, &r, &x->kv, &x->saved, x->dhidden, ws);
}
static int call_logprobs(Models *x, int N, Arena *ws) {
    Rows r = rows_of_models(x, N);
    const HeadTask task = { .target = x->target, .temperature = 1, .logprob = x->logprob,
                            .entropy = x->logprob + ROWS };
    return model_logprobs(&x->m, x->adapter, x->hidden, r.W, &task, ws);
}
static int call_learn(Models *x, int N, Arena *ws) {
    Rows r = rows_of_models(x, N);
    const HeadTask task = { .target = x->target, .temperature = 1, .logprob = x->logprob, .loss = learn,
                            .dhidden = x->dhidden };
    return model_logprobs(&x->m, x->adapter, x->hidden, r.W, &task, ws);
}
static int call_full_kl(Models *x, int N, Arena *ws) {
    Rows r = rows_of_models(x, N);
    const States s = { &x->m, x->adapter, x->hidden };
    return model_full_kl(&s, &s, NULL, r.W, 1, x->logprob, ws);
}
static int call_values(Models *x, int N, Arena *ws) {
    Rows r = rows_of_models(x, N);
    model_values(&x->head, x->hidden, x->value, r.W, ws);
    return ws->failed ? E_MEMORY : OK;
}
static int call_values_backward(Models *x, int N, Arena *ws) {
    Rows r = rows_of_models(x, N);
    model_values_backward(&x->head, x->value, x->hidden, x->dhidden, r.W, ws);
    return ws->failed ? E_MEMORY : OK;
}
/* N rows: texts, whose prompts have 1 to 12 tokens. */
static int call_generate(Models *x, int N, Arena *ws) {
    const Writing w = { x->adapter, &x->head, { 1, 0, 1 }, NULL, NULL };
    Sequence seq[B];
    int texts = (N + T - 1) / T;
    memset(seq, 0, sizeof seq);
    rows_of_models(x, ROWS);
    for (int b = 0; b < texts; b++) {
        seq[b].token = x->token + b * T;
        seq[b].prompt = seq[b].length = N < ROWS && b ? 1 : 12;
        seq[b].capacity = T;
        seq[b].logprob = x->logprob + b * T;
        seq[b].value = x->value + b * T;
        seq[b].rng = rng_stream(4, 0, (uint64_t)b);
    }
    return model_generate(&x->m, &w, seq, texts, &x->kv, ws);
}
static Texts texts_of(Models *x, int N) {
    Texts t = { N, (N + T - 1) / T, x->token, x->start };
    rows_of_models(x, N);
    for (int b = 0; b <= t.B; b++) x->start[b] = b < t.B ? b * T : N;
    return t;
}
static int call_judge(Models *x, int N, Arena *ws) {
    Texts t = texts_of(x, N);
    return reward_forward(&x->judge, x->judge_adapter, &t, NULL, x->logits, ws);
}
static int call_judge_saved(Models *x, int N, Arena *ws) {
    Texts t = texts_of(x, N);
    return reward_forward(&x->judge, x->judge_adapter, &t, &x->judge_saved, x->logits, ws);
}
static int call_judge_backward(Models *x, int N, Arena *ws) {
    Texts t = texts_of(x, N);
    return reward_backward(&x->judge, x->judge_adapter, &t, &x->judge_saved, x->logits, ws);
}

/* In an order in which each finds what it needs of the one before. */
typedef struct { const char *name; int (*run)(Models *x, int N, Arena *ws); } Call;
static const Call call[] = {
    { "forward", call_forward }, { "logprobs", call_logprobs }, { "full KL", call_full_kl },
        { "values", call_values },
    { "generate", call_generate }, { "forward, saved", call_forward_saved },
        { "logprobs with a loss", call_learn },
    { "values, backward", call_values_backward }, { "backward", call_backward }, { "judge", call_judge },
    { "judge, saved", call_judge_saved }, { "judge, backward", call_judge_backward }
};
enum { CALLS = sizeof call / sizeof *call };

/* ---- the sweep ---- */

/* Runs a call in exactly `bytes`, after which nothing may be written. Returns 1 if it succeeds. */
static int runs_in(const Call *c, Models *x, int N, size_t bytes) {
    Arena ws = { NULL, 0, 0, 0, 0 };
    int clean = 1;
    ws.base = scratch;
    ws.capacity = bytes;
    memset(scratch + bytes, 0xA5, CANARY);
    int code = c->run(x, N, &ws);
    for (int i = 0; i < CANARY; i++) clean &= scratch[bytes + (size_t)i] == 0xA5;
    return code == OK && !ws.failed && ws.used == 0 && ws.peak <= bytes && clean;
}

static void setting(const char *kernel, int team, const Setting *s) {
    static const int fewer[] = { ROWS, 1, 5, 19 };
    static const char *const type[] = { "F32", "BF16", "F16", "NF4" };
    const char *failed = NULL;
    size_t need[CALLS];
    Models x;
    Arena measure = { NULL, 0, 0, 0, 0 };
    PoolMark mark = pool_mark(&pool);
    threads(team);
    carve(&x, s, &measure);
    for (int i = 0; i < CALLS; i++) {
        Arena ws = { NULL, 0, 0, 0, 0 };
        int code = call[i].run(&x, ROWS, &ws);
        need[i] = ws.peak;
        if (code != OK || ws.failed || ws.used || need[i] == 0 || need[i] + CANARY > room)
            failed = call[i].name;
    }
    memory.used = 0;
    memory.failed = 0;
    carve(&x, s, &memory);
    CHECK(measure.used == memory.used, "%s: as much is carved as was measured", kernel);
    for (size_t n = 0; n < sizeof fewer / sizeof *fewer && !failed; n++)
        for (int i = 0; i < CALLS && !failed; i++)
            if (!runs_in(&call[i], &x, fewer[n], need[i])) failed = call[i].name;
    CHECK(!failed, "%s, %d threads, weights %s, compute %s, LoRA %d, recompute %d, wide %d: "
          "every call runs in what was measured: not %s", kernel, team, type[s->type], type[s->compute],
          s->lora, s->recompute, s->wide, failed ? failed : "");
    pool_release(&pool, mark);
}

/* ---- operations alone: linear_measure and attention_measure for the largest sizes are enough for all
 * smaller ones ---- */

/* x, y and their gradients for up to ROWS rows; w and its gradient; all of them zeros. */
typedef struct { Matrix w; float *x, *y, *dx; } Linear;

static int runs_linear(const Linear *l, int N, size_t bytes) {
    Arena ws = { NULL, 0, 0, 0, 0 };
    int clean = 1;
    ws.base = scratch;
    ws.capacity = bytes;
    memset(scratch + bytes, 0xA5, CANARY);
    linear_forward(l->y, l->x, &l->w, NULL, N, &ws);
    linear_add(l->y, l->x, &l->w, NULL, N, &ws);
    linear_backward(l->dx, NULL, l->y, l->x, &l->w, N, &ws);
    for (int i = 0; i < CANARY; i++) clean &= scratch[bytes + (size_t)i] == 0xA5;
    return !ws.failed && ws.used == 0 && clean;
}

static void linear_alone(const char *kernel, int team, int I, int O, int type, int compute) {
    static const int rows[] = { ROWS, 48, 33, 19, 8, 1 };
    Arena need = { NULL, 0, 0, 0, 0 };
    Linear l = { { F32, 0, 0, 0, NULL, NULL, NULL, F32, F32, 0 }, NULL, NULL, NULL };
    const size_t wide = (size_t)(I > O ? I : O) * ROWS, n = (size_t)I * (size_t)O;
    int good = 1;
    threads(team);
    memory.used = 0;
    l.x = arena_take(&memory, wide, sizeof(float));
    l.y = arena_take(&memory, wide, sizeof(float));
    l.dx = arena_take(&memory, wide, sizeof(float));
    l.w.type = type; l.w.I = I; l.w.O = O;
    l.w.compute = l.w.output = compute;
    l.w.data = arena_take(&memory, n, sizeof(float));
    if (type == NF4) {
        tensor_carve_quant(&l.w, QUANT_NF4, 32, 0, &memory);
        memset(l.w.quant->absmax, 0, quant_blocks(n, 32) * sizeof(float));
    } else l.w.grad = arena_take(&memory, n, sizeof(float));
    memset(l.x, 0, wide * sizeof(float));
    memset(l.dx, 0, wide * sizeof(float));
    memset(l.w.data, 0, n * sizeof(float));
    if (l.w.grad) memset(l.w.grad, 0, n * sizeof(float));
    linear_measure(&need, ROWS, I, O, compute);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) good &= runs_linear(&l, rows[i], need.peak);
    CHECK(good && need.used == 0 && !memory.failed,
          "%s, %d threads: a linear of %d x %d, type %d, compute %d, with up to %d rows", kernel,
          team, O, I, type, compute, ROWS);
}

static void attention_alone(const char *kernel, int team, int N, int most, int H, int K, int D) {
    static int first[ROWS], count[ROWS];
    const Keys keys = { first, count, NULL };
    Heads heads = { 0, 0, 0, 1, NULL, NULL, NULL, 0 };
    Arena need = { NULL, 0, 0, 0, 0 }, ws = { NULL, 0, 0, 0, 0 };
    const size_t queries = (size_t)N * (size_t)(H * D), rows = (size_t)(most + N) * (size_t)(K * D);
    float *x[7];
    int clean = 1;
    heads.H = H; heads.K = K; heads.D = D;
    threads(team);
    memory.used = 0;
    for (int i = 0; i < 7; i++) {
        x[i] = arena_take(&memory, i < 4 ? queries : rows, sizeof(float));
        memset(x[i], 0, (i < 4 ? queries : rows) * sizeof(float));
    }
    float *v = arena_take(&memory, rows, sizeof(float));
    memset(v, 0, rows * sizeof(float));
    Qkv in = { x[0], x[4], v }, d = { x[3], x[5], x[6] };
    /* windows that overlap */
    for (int n = 0; n < N; n++) { first[n] = n % 3 ? n : n / 2; count[n] = n % 5 ? most : 1 + n % most; }
    attention_measure(&need, most, &heads);
    ws.base = scratch;
    ws.capacity = need.peak;
    memset(scratch + need.peak, 0xA5, CANARY);
    attention_forward(x[1], &in, &keys, N, &heads, &ws);
    attention_backward(&d, x[2], x[1], &in, &keys, N, &heads, &ws);
    for (int i = 0; i < CANARY; i++) clean &= scratch[need.peak + (size_t)i] == 0xA5;
    CHECK(clean && !ws.failed && ws.used == 0 && need.used == 0 && !memory.failed,
          "%s, %d threads: attention of %d queries over up to %d rows, %d heads of %d on %d", kernel, team,
              N, most, H, D, K);
}

static void alone(const char *kernel, int team) {
    for (int compute = F32; compute <= F16; compute++)
        for (int type = F32; type <= NF4; type += NF4) {
            linear_alone(kernel, team, 8300, 40, type, compute);
            linear_alone(kernel, team, 40, 8300, type, compute);
            linear_alone(kernel, team, 33, 5, type, compute);
        }
    attention_alone(kernel, team, ROWS, 40, 4, 2, 10);
    attention_alone(kernel, team, ROWS, 4500, 2, 1, 6);
    attention_alone(kernel, team, 7, 3, 3, 3, 70);
}

/* teams: up to so many threads. */
static void sweep(const char *kernel, int teams) {
    static const int type[] = { F32, BF16, NF4 };
    Setting s = { 0, 0, 0, 0, 0 };
    alone(kernel, 1);
    if (MOST_THREADS == 1) teams = 1;
    if (teams > 1) alone(kernel, 2);
    for (int team = 1; team <= teams; team *= 2)
        for (int i = 0; i < 3; i++)
            for (s.compute = F32; s.compute <= F16; s.compute++)
                for (s.lora = NO_LORA; s.lora <= EVERYWHERE; s.lora++)
                    for (s.recompute = 0; s.recompute < 2; s.recompute++) {
                        s.type = type[i];
                        setting(kernel, team, &s);
                    }
    s.wide = 1;                             /* an inner width over 4096: few rows may need more than many */
    s.recompute = 0;
    for (s.lora = EVERYWHERE; s.lora <= FEED_FORWARD; s.lora++)
        for (s.compute = F32; s.compute <= BF16; s.compute++) setting(kernel, 1, &s);
}

#ifndef PLAIN
/* A tile that computes nothing but touches all numbers that the real one reads and writes: half.c's memory is
 * what is tested, and the instructions in plain C are slow. */
static void touch(f32 *c, const uint16_t *a, size_t row, size_t next, const uint16_t *b, int blocks,
                  int add) {
    unsigned read = 0;
    for (int n = 0; n < blocks; n++)
        read += a[(size_t)n * next] + a[(size_t)n * next + 31 * row + 31] + b[1024 * n] + b[1024 * n + 1023];
    for (int i = 0; i < 1024; i++) c[i] = add ? c[i] : 0;
    c[0] += read == 1;                      /* so that compilers read */
}
static int always(void) { return 1; }
static void nothing(void) { }

static void tile_kernels(void) {
    const HalfKernel touching = { "tiles", always, nothing, nothing, touch, NULL,
                                  MODEL_HAS_CODES ? kernel_model.codes : NULL };
    Setting s = { NF4, BF16, 1, 0, 0 };
    fast_use_half(&touching);
    sweep("tiles", 4);
    HalfKernel tile = kernel_model;
    if (!MODEL_HAS_CODES) tile.codes = NULL;
    fast_use_half(&tile);
    setting("the model of tile instructions", 2, &s);
    s.type = F32;
    s.lora = 0;
    setting("the model of tile instructions", 2, &s);
}
#else
static void tile_kernels(void) { }
#endif

int main(void) {
    memory = test_arena((size_t)96 << 20);
    scratch = malloc(room);
    pool = test_pool();
    for (int i = 0; fast_name(i); i++) {
        if (fast_use(fast_name(i)) == OK) sweep(fast_name(i), strcmp(fast_name(i), "definition") ? 4 : 1);
        else SKIP("the kernel %s: not on this processor", fast_name(i));
    }
    fast_use(NULL);
    tile_kernels();
    fast_use(NULL);
    free(scratch);
    free(memory.base);
    pool_free(&pool);
    return test_end("memory");
}
