/* props.c - properties that hold bit for bit, with each kernel that is here: a row does not depend on the
 * rows around it, the sampler's log-probs are the training forward's, an adapter with B = 0 is the base
 * model. And exp, activations and sampling. (Twins against definitions: twins.c.) */
#include "test.h"
#ifndef PLAIN
#include "../../fast/fast.h"
#include "amx_model.h"
#endif

static Arena memory, ws;
static Pool pool;

static void elementary(void) {          /* our exp and GELU against libm's */
    double worst = 0, gelu = 0, slope = 0;
    for (double x = -86; x < 88; x += 0.00373) {
        double e = exp((double)(float)x), d = fabs((double)exp_own((float)x) - e) / e;
        if (d > worst || d != d) worst = d;
    }
    for (double x = -9; x < 9; x += 0.0017) {
        float in = (float)x, out, din = 0, one = 1;
        double v = (double)in, phi = 0.5 * erfc(-v / sqrt(2.0)),
            pdf = exp(-0.5 * v * v) / sqrt(2 * acos(-1.0));
        activation_forward(&out, &in, ACT_GELU, 1);
        activation_backward(&din, &one, &in, ACT_GELU, 1);
        if (fabs((double)out - v * phi) > gelu) gelu = fabs((double)out - v * phi);
        if (fabs((double)din - (phi + v * pdf)) > slope) slope = fabs((double)din - (phi + v * pdf));
    }
    CHECK(worst < 2.0e-7, "exp_own: relative error %.3g", worst);
    CHECK(gelu < 1e-6 && slope < 1e-6, "gelu: error %.3g, slope %.3g", gelu, slope);
    CHECK(exp_own(-200.0f) == 0 && exp_own(200.0f) > 3e38f && exp_own(0) == 1, "exp_own at its ends");
    CHECK(exp_own((float)NAN) != exp_own((float)NAN), "exp_own keeps NaN");
    float in[3] = { 1, -2, 0 }, out[3];
    activation_forward(out, in, ACT_GELU, 3);
    CHECK(fabs((double)out[0] - 0.8413447460685429) < 2e-7 &&
          fabs((double)out[1] + 0.04550026389635842) < 2e-8 && out[2] == 0,
          "gelu's golden values");
    double error = 0, slopes = 0;
    for (double v = -12; v < 12; v += 0.0017) {                 /* GPT-2's, against its formula in double */
        float x = (float)v, y, dx = 0, one = 1;
        double w = (double)x, t = tanh(sqrt(2 / acos(-1.0)) * (w + 0.044715 * w * w * w));
        activation_forward(&y, &x, ACT_GELU_TANH, 1);
        activation_backward(&dx, &one, &x, ACT_GELU_TANH, 1);
        double d = 0.5 * (1 + t) + 0.5 * w * (1 - t * t) * sqrt(2 / acos(-1.0)) * (1 + 3 * 0.044715 * w * w);
        double off = fabs((double)y - 0.5 * w * (1 + t)), slope_off = fabs((double)dx - d);
        if (off > error || off != off) error = off;
        if (slope_off > slopes || slope_off != slope_off) slopes = slope_off;
    }
    CHECK(error < 1e-6 && slopes < 1e-6, "gelu_tanh: error %.3g, slope %.3g", error, slopes);
    float far[5] = { -3e38f, -20, 20, 3e38f, (float)NAN }, at[5], d[5] = { 0 }, ones[5] = { 1, 1, 1, 1, 1 };
    for (int kind = ACT_SILU; kind <= ACT_RELU; kind++) {       /* no overflow far from 0 */
        memset(d, 0, sizeof d);
        activation_forward(at, far, kind, 5);
        activation_backward(d, ones, far, kind, 5);
        CHECK(fabsf(at[0]) < 1e-4f && fabsf(at[1]) < 1e-4f && at[2] == 20 && at[3] == 3e38f &&
              at[4] != at[4], "activation %d far from 0", kind);
        CHECK(fabsf(d[0]) < 1e-4f && fabsf(d[1]) < 1e-4f && fabsf(d[2] - 1) < 1e-4f &&
              fabsf(d[3] - 1) < 1e-4f, "activation %d: its slope far from 0", kind);
    }
}

/* ---- one forward ---- */
enum { B = 6, T = 40, C = 36, V = 83, SOFT = 3 };
static Model model;
static Lora lora, prompted;                     /* prompted: with a soft prompt of SOFT rows, too */
static const LoraConfig all_linear = { .R = 4, .alpha = 8,
    .targets = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj" };
static ValueHead head;
static Cache cache;
static Saved saved, inputs;                     /* everything that backward needs; each layer's input alone */
static int length[B] = { 17, 3, 40, 9, 1, 22 }, text[B][T];

static void build(int compute) {
    ModelConfig c;
    WeightTypes types = { F32, F32, 0, 0, 0, F32, NULL };
    types.compute = compute;
    Error err = { 0 };
    memset(&c, 0, sizeof c);
    c.V = V; c.stack.C = C; c.stack.L = 3; c.stack.H = 6; c.stack.K = 3; c.stack.D = 6; c.stack.F = 50;
    c.positions = T; c.stack.eps = 1e-5f; c.stack.rope.theta = 10000; c.bos = c.pad = -1;
    config_policy(&c, "llama");
    memory.used = 0;
    CHECK(model_carve(&model, &c, &types, 1, T, &pool, &memory, &err) == OK, "carve: %s %s", err.what,
          err.where);
    CHECK(lora_carve(&lora, model.tensor, model.tensors, &all_linear, 1, &pool, &memory, &err) == OK,
          "lora: %s %s", err.what, err.where);
    LoraConfig soft = all_linear;
    soft.prompt.rows = SOFT;
    CHECK(lora_carve(&prompted, model.tensor, model.tensors, &soft, 1, &pool, &memory, &err) == OK,
          "lora and a soft prompt: %s %s", err.what, err.where);
    model_init(&model, 3);
    for (int i = 0; i < model.tensors; i++)
        if (!(model.tensor[i].flags & TENSOR_VECTOR)) tensor_normal(model.tensor[i].matrix, 0.3, 11);
    lora_init(&lora, 4);
    value_head_carve(&head, C, 2, 1, &memory);
    value_head_init(&head, 5, 0);
    cache_carve(&cache, &c.stack, c.stack.L, B, T, &memory);
    saved_carve(&saved, &c.stack, B * T, B * T, 0, &memory);
    saved_carve(&inputs, &c.stack, B * T, B * T, 1, &memory);
    Rng r = rng_stream(9, 0, 0);
    for (int b = 0; b < B; b++) for (int t = 0; t < T; t++) text[b][t] = (int)rng_below(&r, V);
}

/* Rows of sequences [b0,b1), positions [from,to) of each */
static int token[B * T], sequence[B * T], position[B * T];
static Rows rows_between(int b0, int b1, int from, int to) {
    Rows r = { 0, 0, token, sequence, position, NULL };
    for (int b = b0; b < b1; b++)
        for (int t = from; t < to && t < length[b]; t++, r.N++) {
            token[r.N] = text[b][t];
            sequence[r.N] = b;
            position[r.N] = t;
        }
    r.W = r.N;
    return r;
}

static float whole[B][T][C];
static void keep(float out[B][T][C], const Rows *r, const float *hidden) {
    for (int n = 0; n < r->N; n++)
        memcpy(out[r->sequence[n]][r->position[n]], hidden + (size_t)n * C, C * sizeof(float));
}
static int same(const Rows *r, const float *hidden) {
    for (int n = 0; n < r->N; n++)
        if (memcmp(whole[r->sequence[n]][r->position[n]], hidden + (size_t)n * C, C * sizeof(float)))
            return 0;
    return 1;
}

static void row_invariance(void) {
    static float hidden[B * T * C], plain[B * T * C];
    static const int step[] = { 1, 2, 3, 4, 5, 7, 16, 17, 40 };
    Rows all = rows_between(0, B, 0, T);
    threads(1);
    CHECK(model_forward(&model, &lora, &all, &cache, &saved, hidden, &ws) == OK,
          "forward with saved activations");
    keep(whole, &all, hidden);
    CHECK(model_forward(&model, NULL, &all, &cache, NULL, plain, &ws) == OK &&
          !memcmp(hidden, plain, sizeof(float) * (size_t)all.N * C),
          "an adapter with B = 0 is the base model, bit for bit");
    for (int i = 0; i < lora.tensors; i++) tensor_normal(lora.tensor[i].matrix, 0.2, 77);
    model_forward(&model, &lora, &all, &cache, &saved, hidden, &ws);
    keep(whole, &all, hidden);
    CHECK(memcmp(hidden, plain, sizeof(float) * (size_t)all.N * C), "an adapter with B != 0 is not");
    for (int th = 1; th <= MOST_THREADS; th++) {
        threads(th);
        for (size_t s = 0; s < sizeof step / sizeof *step; s++) {
            int ok = 1;
            for (int t = 0; t < T; t += step[s]) {
                Rows r = rows_between(0, B, t, t + step[s]);
                ok &= model_forward(&model, &lora, &r, &cache, NULL, hidden, &ws) == OK && same(&r, hidden);
            }
            CHECK(ok, "the cache filled %d positions a call, %d threads: same bits as the training forward",
                  step[s], th);
        }
        int ok = 1;
        for (int b = 0; b < B; b++) {
            Rows r = rows_between(b, b + 1, 0, T);
            ok &= model_forward(&model, &lora, &r, &cache, &saved, hidden, &ws) == OK && same(&r, hidden);
        }
        CHECK(ok, "one sequence at a time, %d threads: same bits", th);
    }
    Rows r = rows_between(2, 3, 0, T);  /* the trap: one cached key corrupted must show */
    model_forward(&model, &lora, &r, &cache, NULL, hidden, &ws);
    Rows last = rows_between(2, 3, T - 1, T);
    cache.k[((size_t)1 * B + 2) * T * (size_t)cache.width + 5 * (size_t)cache.width + 1] += 0.01f;
    model_forward(&model, &lora, &last, &cache, NULL, hidden, &ws);
    CHECK(!same(&last, hidden), "a corrupted key in the cache changes the bits: the comparison can fail");
}

/* A soft prompt of the embeddings of two ids is, bit for bit, these two tokens in front of the text. */
static void prompt_of_tokens(void) {
    static float hidden[T * C], soft[T * C];
    static const int id[2] = { 11, 70 };
    const int n = length[0];
    Lora alone;
    LoraConfig c = { .prompt = { .rows = SOFT } };
    Arena own = test_arena(1 << 16);
    int position_[T], zero[T] = { 0 }, with[T], softly[T];
    CHECK(lora_carve(&alone, model.tensor, model.tensors, &c, 0, &pool, &own, NULL) == OK, "a prompt alone");
    lora_prompt_init(&alone, &model.embedding, id, 2, 1);
    for (int i = 0; i < SOFT + n; i++) {
        position_[i] = i;
        with[i] = i < SOFT ? id[i % 2] : text[0][i - SOFT];     /* repeated: 11, 70, 11 */
        softly[i] = i < SOFT ? -1 - i : text[0][i - SOFT];
    }
    const Rows tokens = { SOFT + n, SOFT + n, with, zero, position_, NULL };
    Rows rows = tokens;
    rows.token = softly;
    CHECK(model_forward(&model, NULL, &tokens, &cache, NULL, hidden, &ws) == OK
          && model_forward(&model, &alone, &rows, &cache, NULL, soft, &ws) == OK
          && !memcmp(hidden, soft, sizeof(float) * (size_t)(SOFT + n) * C),
          "a soft prompt of embeddings is these tokens, bit for bit");
    CHECK(model_forward(&model, NULL, &rows, &cache, NULL, soft, &ws) == E_RANGE,
          "without the adapter its rows are refused");
    softly[0] = -1 - SOFT;
    CHECK(model_forward(&model, &alone, &rows, &cache, NULL, soft, &ws) == E_RANGE,
          "a row that the soft prompt has not is refused");
    free(own.base);
}

/* The sampler's log-probs and values against the training forward: the first ratio is exactly 1. With top-k
 * or top-p, training cuts its logits to the sampler's sets. */
static void first_ratio(int th, Sampling how, const Lora *adapter) {
    enum { SET = (V + 7) / 8 };
    static unsigned char set[B][T * SET];
    static const unsigned char *kept[B * T];
    static int out[B][T];
    static float lp[B][T], value[B][T], hidden[B * T * C], now[B * T], values[B * T];
    static unsigned char wants[B * T];
    Sequence seq[B];
    const Writing s = { adapter, &head, how, NULL, NULL };
    const int cuts = how.top_k > 0 || how.top_p < 1;
    int target[B * T], n = 0, w = 0, equal = 1, sampled = 0, left = 0;
    const int soft = model_prompt(&model, adapter);
    threads(th);
    memset(seq, 0, sizeof seq);
    for (int b = 0; b < B; b++) {
        memcpy(out[b], text[b], sizeof out[b]);
        seq[b].token = out[b]; seq[b].prompt = seq[b].length = 1 + b; seq[b].capacity = T - 3 * b - soft;
        seq[b].logprob = lp[b]; seq[b].value = value[b];
        seq[b].rng = rng_stream(1, 2, (uint64_t)b);
        if (cuts) seq[b].kept = set[b];
    }
    CHECK(model_generate(&model, &s, seq, B, &cache, &ws) == OK, "generate");
    for (int b = 0; b < B; b++)
        for (int t = -soft; t < seq[b].length; t++, n++) {
            token[n] = t < 0 ? -1 - (t + soft) : out[b][t]; sequence[n] = b; position[n] = t + soft;
            wants[n] = t >= seq[b].prompt - 1 && t + 1 < seq[b].length;
            kept[w] = set[b] + (t + 1 - seq[b].prompt) * SET;
            if (wants[n]) target[w++] = out[b][t + 1];
        }
    Rows rows = { n, w, token, sequence, position, wants };
    const HeadTask task = { .target = target, .temperature = how.temperature, .logprob = now,
                            .kept = cuts ? kept : NULL };
    model_forward(&model, adapter, &rows, &cache, &saved, hidden, &ws);
    model_logprobs(&model, NULL, hidden, w, &task, &ws);
    model_values(&head, hidden, values, w, &ws);
    w = n = 0;
    for (int b = 0; b < B; b++)
        for (int t = -soft; t < seq[b].length; t++, n++)
            if (wants[n]) {
                int i = t + 1 - seq[b].prompt;
                equal &= now[w] == lp[b][i] && exp((double)(now[w] - lp[b][i])) == 1.0 &&
                    values[w] == value[b][i];
                for (int v = 0; cuts && v < V; v++) left += kept[w][v / 8] >> (v % 8) & 1;
                w++;
                sampled++;
            }
    CHECK(equal && sampled > 100,
          "old log-prob and value of %d sampled tokens = the training forward's, %d threads, temperature %g, "
          "top-k %d, top-p %g, %d rows of a soft prompt", sampled, th, (double)how.temperature,
          how.top_k, (double)how.top_p, soft);
    CHECK(!cuts || (left >= sampled && left < sampled * V / 2), "%d of %d tokens were left", left,
          sampled * V);
}

/* A value head of two layers is Linear, ReLU, Linear. */
static void two_layers(void) {
    static float hidden[B * T * C], values[B * T];
    const float *u = head.up.data, *ub = head.up_b.data, *w = head.weight.data, *b = head.bias.data;
    const int rows = 20;
    int cut = 0;
    double worst = 0;
    for (int i = 0; i < rows * C; i++) hidden[i] = (float)((i * 37) % 101) / 50 - 1;
    model_values(&head, hidden, values, rows, &ws);
    for (int n = 0; n < rows; n++) {
        double y = b[0];
        for (int o = 0; o < 2 * C; o++) {
            double mid = ub[o];
            for (int c = 0; c < C; c++) mid += (double)u[o * C + c] * hidden[n * C + c];
            cut += mid < 0;
            y += mid > 0 ? w[o] * mid : 0;
        }
        if (!(fabs(values[n] - y) <= worst)) worst = fabs(values[n] - y);
    }
    CHECK(head.tensors == 4 && cut > 100 && worst < 1e-5, "two layers of a value head: values off by %.2g",
          worst);
}

/* 1 and 2 threads, and activations computed anew, give the same gradients */
static size_t elements(const Tensor *t) { return (size_t)t->matrix->O * (size_t)t->matrix->I; }

static void same_gradients(void) {
    static float hidden[B * T * C], dhidden[B * T * C], first[3][4000];
    for (int th = 1; th <= 3; th++) {
        const Saved *kept = th == 3 ? &inputs : &saved;
        threads(th == 2 ? 2 : 1);
        Rows all = rows_between(0, B, 0, T);
        gradient_zero(model.tensor, model.tensors);
        for (int i = 0; i < all.N * C; i++) dhidden[i] = (float)((i * 37) % 101) / 101 - 0.5f;
        model_forward(&model, &lora, &all, &cache, th == 3 ? &inputs : &saved, hidden, &ws);
        model_backward(&model, &lora, &all, &cache, kept, dhidden, &ws);
        int n = 0;
        for (int i = 0; i < model.tensors; i++)
            for (size_t k = 0; k < elements(&model.tensor[i]) && n < 4000; k += 5)
                first[th - 1][n++] = model.tensor[i].matrix->grad[k];
    }
    CHECK(!memcmp(first[0], first[1], sizeof first[0]), "gradients do not depend on the number of threads");
    CHECK(!memcmp(first[0], first[2], sizeof first[0]),
          "activations computed anew give the same gradients, bit for bit");
}

static void sampling(void) {
    float z[6] = { 1, 1.01f, 1.001f, 0, 2, 0 }, scratch[6];
    int order[6], seen[6] = {0};
    Sampling greedy = { 0, 0, 1 }, top2 = { 1, 2, 1 }, half = { 1, 0, 0.5f }, all = { 1, 0, 1 };
    Rng r = rng_stream(5, 0, 0);
    float lp;
    CHECK(sample_token(z, 6, &greedy, &r, &lp, NULL, scratch, order) == 4, "greedy takes the largest");
    for (int i = 0; i < 2000; i++) seen[sample_token(z, 6, &top2, &r, NULL, NULL, scratch, order)]++;
    CHECK(seen[4] > 0 && seen[1] > 0 && seen[0] + seen[2] + seen[3] + seen[5] == 0,
          "top-k 2 keeps the two largest");
    memset(seen, 0, sizeof seen);
    for (int i = 0; i < 2000; i++) seen[sample_token(z, 6, &half, &r, NULL, NULL, scratch, order)]++;
    CHECK(seen[4] > 0 && seen[1] > 0 && seen[0] + seen[2] + seen[3] + seen[5] == 0,
          "top-p 0.5: the smallest head of the distribution that reaches it");
    memset(seen, 0, sizeof seen);
    double sum = 0, worst = 0;
    for (int v = 0; v < 6; v++) sum += exp((double)z[v]);
    for (int i = 0; i < 60000; i++) seen[sample_token(z, 6, &all, &r, &lp, NULL, scratch, order)]++;
    for (int v = 0; v < 6; v++) {
        double d = fabs(seen[v] / 60000.0 - exp((double)z[v]) / sum);
        if (d > worst) worst = d;
    }
    CHECK(worst < 0.01, "sampling follows softmax: frequencies within %.4f", worst);
}

/* What measuring asks for is enough: whole forward, head, backward in an arena of just that size. */
static void measured(int compute) {
    static float hidden[B * T * C], dhidden[B * T * C], now[B * T];
    static unsigned char wants[B * T];
    static int target[B * T];
    Arena need, exact;
    Rows all = rows_between(0, B, 0, T);
    memset(&need, 0, sizeof need);
    memset(wants, 1, sizeof wants);
    const HeadTask task = { .target = target, .temperature = 1, .logprob = now };
    all.wants = wants;
    threads(2);
    for (int pass = 0; pass < 2; pass++) {
        Arena *a = pass ? &exact : &need;
        if (pass) exact = test_arena(need.peak);
        CHECK(model_forward(&model, &lora, &all, &cache, &saved, hidden, a) == OK &&
              model_logprobs(&model, NULL, hidden, all.W, &task, a) == OK &&
              model_backward(&model, &lora, &all, &cache, &saved, dhidden, a) == OK && !a->failed &&
                  a->used == 0, "compute type %d: pass %d in what was measured", compute, pass);
    }
    free(exact.base);
}

static void whole_model(int compute) {
    build(compute);
    row_invariance();
    for (int i = 0; i < prompted.tensors; i++) tensor_normal(prompted.tensor[i].matrix, 0.2, 78);
    for (int th = 1; th <= MOST_THREADS; th++) {
        static const Sampling how[4] = { { 1, 0, 1 }, { 0.7f, 0, 1 }, { 1, 7, 1 }, { 0.8f, 40, 0.6f } };
        for (int i = 0; i < 4; i++) first_ratio(th, how[i], &lora);
        first_ratio(th, how[1], &prompted);
        first_ratio(th, how[3], &prompted);
    }
    prompt_of_tokens();
    two_layers();
    same_gradients();
    measured(compute);
}

int main(void) {
    memory = test_arena((size_t)64 << 20);
    ws = test_arena((size_t)64 << 20);
    pool = test_pool();
    elementary();
    sampling();
    for (int i = 0; fast_name(i); i++)
        for (int compute = F32; compute <= F16 && fast_use(fast_name(i)) == OK; compute++)
            whole_model(compute);
    fast_use(NULL);
#ifndef PLAIN
    HalfKernel tile = kernel_model; /* and with the tile of bf16 products, over a model of its instructions */
    if (!MODEL_HAS_CODES) tile.codes = NULL;
    long long dots = tiles.dots;
    fast_use_half(&tile);
    whole_model(BF16);
    fast_use(NULL);
    CHECK(tiles.dots > dots, "the model's tile was used");
#endif
    CHECK(!memory.failed && !ws.failed, "memory suffices");
    pool_free(&pool);
    return test_end("props");
}
