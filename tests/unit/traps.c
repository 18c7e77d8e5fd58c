/* tests/unit/traps.c - what is easy to get wrong in RLHF, one small test for each mistake. tests/README.md
 * has the numbered list, and says where the numbers that are missing here are tested.
 *
 * Every test was seen to fail on its mistake: the mistake was made in the library, the test was run, and the
 * mistake was undone. */
#include "test.h"
#include "programs.h"

enum { V = 40, C = 16, T = 24, PROMPT = 3 };
static Pool pool;
static Arena memory, ws;

static int near(double x, double y) { return fabs(x - y) < 1e-5; }

/* ---- a small policy, a small judge ---- */

static Model policy;
static Cache cache;
static Saved saved;
static float hidden[T * C], dhidden[T * C];

static ModelConfig policy_config(void) {
    ModelConfig c;
    memset(&c, 0, sizeof c);
    c.V = V; c.positions = T; c.bos = 1; c.pad = -1; c.eos[0] = 2; c.eos_count = 1;
    c.stack.C = C; c.stack.H = 4; c.stack.K = 2; c.stack.D = 4; c.stack.F = 24; c.stack.L = 2;
    c.stack.eps = 1e-5f; c.stack.rope.theta = 10000;
    config_policy(&c, "llama");
    return c;
}

/* Opens a policy with random weights, all trained, in place of the one that was open. */
static void open_small(const ModelConfig *c, int compute) {
    const WeightTypes types = { F32, F32, 0, 0, 0, compute, NULL };
    memory.used = 0;
    memset(memory.base, 0, memory.capacity);
    CHECK(model_carve(&policy, c, &types, 1, T, &pool, &memory, NULL) == OK, "a small policy");
    model_init(&policy, 3);
    for (int i = 0; i < policy.tensors; i++)
        if (!(policy.tensor[i].flags & TENSOR_VECTOR)) tensor_normal(policy.tensor[i].matrix, 0.4, 11);
    cache_carve(&cache, &c->stack, c->stack.L, 2, T, &memory);
    saved_carve(&saved, &c->stack, T, T, 0, &memory);
}

/* Writes a response of the policy to token (T), after three tokens; returns the finished sequence. */
static Sequence respond(int *token, float *logprob, const Sampling *how, int stop_at_eos) {
    const Writing w = { NULL, NULL, *how, NULL, NULL };
    Sequence s;
    memset(&s, 0, sizeof s);
    token[0] = 1; token[1] = 5; token[2] = 7;
    s.token = token; s.prompt = s.length = PROMPT; s.capacity = T; s.stop_at_eos = stop_at_eos;
    s.logprob = logprob;
    s.rng = rng_stream(1, 2, 3);
    CHECK(model_generate(&policy, &w, &s, 1, &cache, &ws) == OK, "a response");
    return s;
}

/* Lays out an adapter of the policy; returns what lora_carve returns. */
static int adapt(Lora *l, const LoraConfig *c) {
    return lora_carve(l, policy.tensor, policy.tensors, c, 1, &pool, &memory, NULL);
}

static void minus_one(void *context, int first, int n, const float *logprob, float *dlogprob) {
    (void)context; (void)first; (void)logprob;
    for (int i = 0; i < n; i++) dlogprob[i] = -1;
}

/* Computes the log-probs of the tokens after the prompt as training does, and the gradients of minus their
 * sum; returns how many tokens there are. */
static int train(const int *token, int length, float temperature, float *logprob) {
    RowList list;
    rows_take(&list, T, &pool);
    rows_add(&list, 0, 0, token, length, PROMPT);
    const Rows rows = rows_of(&list);
    const HeadTask task = { .target = list.target, .temperature = temperature, .logprob = logprob,
                            .loss = minus_one, .dhidden = dhidden };
    memset(dhidden, 0, sizeof dhidden);
    CHECK(model_forward(&policy, NULL, &rows, &cache, &saved, hidden, &ws) == OK
          && model_logprobs(&policy, NULL, hidden, rows.W, &task, &ws) == OK
          && model_backward(&policy, NULL, &rows, &cache, &saved, dhidden, &ws) == OK, "a training pass");
    return rows.W;
}

static RewardModel judge;
static RewardConfig judge_config(void) {
    RewardConfig c;
    memset(&c, 0, sizeof c);
    c.V = 19; c.stack.C = 12; c.stack.L = 1; c.stack.H = 3; c.stack.F = 20; c.stack.eps = 1e-5f;
    c.positions = 11; c.types = 1; c.pad = 1; c.eos[0] = 2; c.eos_count = 1; c.labels = 1;
    config_judge(&c, "roberta");
    return c;
}
static void open_small_judge(void) {
    const RewardConfig c = judge_config();
    memory.used = 0;
    CHECK(reward_carve(&judge, &c, NULL, 0, &pool, &memory, NULL) == OK, "a small judge");
    reward_init(&judge, 5);
}

/* Returns the judge's logit of one text of four tokens, after adding 1 to a number of a weight. */
static float logit_with(const Matrix *w, int index) {
    static const int token[4] = { 0, 7, 8, 2 }, start[2] = { 0, 4 };
    const Texts text = { 4, 1, token, start };
    float *data = w->data, kept = data[index], logit = 0;
    data[index] += 1;
    CHECK(reward_forward(&judge, NULL, &text, NULL, &logit, &ws) == OK, "the judge reads");
    data[index] = kept;
    return logit;
}

/* ---- models ---- */

static void T1_rope_pairs(void) {
    const float cosine[2] = { 0, 1 }, sine[2] = { 1, 0 };           /* the first pair turns by 90 degrees */
    const int position = 0;
    float x[4] = { 5, 6, 7, 8 };
    rope_rotate(x, &position, cosine, sine, 0, 1, 1, 4);
    CHECK(x[0] == -7 && x[1] == 6 && x[2] == 5 && x[3] == 8, "T1: RoPE turns (j, j + D/2), not (2j, 2j + 1)");
}

static void T2_positions(void) {
    open_small_judge();
    const float logit = logit_with(&judge.out_b, 0) - 1;
    for (int row = 0; row < 7; row++) {
        const int read = !near(logit_with(&judge.position, row * 12), logit);
        CHECK(read == (row >= 2 && row < 6), "T2: of four tokens, position row %d %s", row,
              read ? "is read" : "is not read");
    }
}

static void T3_roberta(void) {
    const float x = 2;
    RewardConfig c;
    float y = 0;
    activation_forward(&y, &x, judge_config().stack.activation, 1);
    CHECK(near((double)y, 1.9544997), "T3: RoBERTa's GELU is the exact one: of 2, 1.95450 (%.5f)", (double)y);
    const int code = reward_config_load(&c, "tests/golden/models/roberta", &pool, NULL);
    CHECK(code == OK && near((double)c.stack.eps * 1e5, 1),
          "T3: the norms' epsilon is the file's 1e-5, not BERT's 1e-12");
}

static void T4_shifted(void) {
    static const int token[5] = { 10, 11, 12, 13, 14 };
    RowList r;
    rows_take(&r, T, &pool);
    rows_add(&r, 0, 0, token, 5, 3);                                  /* the response: 13 and 14 */
    CHECK(r.N == 4 && r.W == 2 && !r.wants[1] && r.wants[2] && r.wants[3], "T4: rows 2 and 3 predict them");
    CHECK(r.target[0] == 13 && r.target[1] == 14, "T4: the log-prob of token t is read at row t - 1");
}

static void T5_nf4(void) {
    float x[64] = { 1, -1 }, absmax[2], y[64];                      /* the second block is all zeros */
    unsigned char packed[32];
    Quant q;
    memset(&q, 0, sizeof q);
    q.block = 32;
    q.absmax = absmax;
    quant_table(q.table, QUANT_NF4);
    CHECK(quantize_4bit(packed, absmax, x, 64, 32, QUANT_NF4, NULL) == OK, "weights are quantised");
    dequantize_4bit(y, packed, &q, 0, 64);
    CHECK(packed[0] == 0xF0 && y[0] == 1 && y[1] == -1, "T5: the first of two codes is the high nibble");
    CHECK(absmax[1] == 0 && packed[16] == 0x77 && y[32] == 0, "T5: a block of zeros stays zeros");
}

static void T6_new_adapter(void) {
    const ModelConfig c = policy_config();
    const LoraConfig all = lora_config(2, 4, "q_proj,v_proj,down_proj");
    const int token[8] = { 1, 5, 7, 9, 8, 6, 4, 3 }, position[8] = { 0, 1, 2, 3, 4, 5, 6, 7 };
    const int zeros[8] = { 0 };
    const Rows rows = { 8, 8, token, zeros, position, NULL };
    float base[8 * C];
    Lora lora;
    open_small(&c, F32);
    CHECK(adapt(&lora, &all) == OK, "an adapter");
    lora_init(&lora, 1);
    CHECK(model_forward(&policy, NULL, &rows, &cache, NULL, base, &ws) == OK
          && model_forward(&policy, &lora, &rows, &cache, NULL, hidden, &ws) == OK
          && !memcmp(base, hidden, sizeof base), "T6: a new adapter changes no bit, since B is 0");
    const float *A = lora.pair[policy.stack.block[0].self.q.id].A.data;
    CHECK(A[0] != 0, "T6: A is not 0, or nothing would learn");
}

static void T13_token_type(void) {
    open_small_judge();
    const float logit = logit_with(&judge.out_b, 0) - 1;
    CHECK(!near(logit_with(&judge.type, 0), logit), "T13: token type 0 has a row, which is added to all");
}

static void T14_grouped_queries(void) {
    static const int first[1] = { 0 }, count[1] = { 1 };
    const Keys keys = { first, count, NULL };
    const Heads heads = { 4, 2, 1, 1, NULL, NULL, NULL, 0 };
    float q[4] = { 1, 1, 1, 1 }, k[2] = { 1, 1 }, v[2] = { 10, 20 }, y[4];
    const Qkv in = { q, k, v };
    attention_forward(y, &in, &keys, 1, &heads, &ws);
    CHECK(y[0] == 10 && y[1] == 10 && y[2] == 20 && y[3] == 20, "T14: query heads 0 and 1 share key head 0");
}

/* Returns the last hidden state's first number for three tokens, of one layer with this window. */
static float last_with(int window, int a, int b) {
    const int token[3] = { a, b, 7 }, zeros[3] = { 0 }, position[3] = { 0, 1, 2 };
    const Rows rows = { 3, 3, token, zeros, position, NULL };
    ModelConfig c = policy_config();
    c.stack.L = 1;
    c.stack.window = window;
    open_small(&c, F32);
    CHECK(model_forward(&policy, NULL, &rows, &cache, NULL, hidden, &ws) == OK, "a window of %d", window);
    return hidden[2 * C];
}
static void T15_window(void) {
    CHECK(last_with(2, 4, 5) == last_with(2, 9, 5) && last_with(2, 4, 5) != last_with(2, 4, 9),
          "T15: a window of 2 is a row's own token and the one before it");
}

static void T16_norms(void) {
    const float x[2] = { 1, 3 }, one[2] = { 1, 1 }, zero[2] = { 0, 0 };
    float y[2];
    layernorm_forward(y, x, one, zero, 3, 1, 2);
    CHECK(near((double)y[0], -0.5) && near((double)y[1], 0.5),
          "T16: LayerNorm's variance is divided by C, and epsilon is inside the root");
    rmsnorm_forward(y, one, one, 3, 1, 2);
    CHECK(near((double)y[0], 0.5), "T16: RMSNorm has a mean of squares, epsilon inside the root");
}

static void T17_logits(void) {
    const ModelConfig c = policy_config();
    float x[C], logits[V], rounded[V];
    open_small(&c, BF16);
    for (int i = 0; i < C; i++) x[i] = (float)i / 3;
    linear_forward(logits, x, &policy.head, NULL, 1, &ws);
    memcpy(rounded, logits, sizeof logits);
    halves_round(rounded, BF16, V);
    CHECK(policy.head.compute == BF16 && memcmp(logits, rounded, sizeof logits) != 0,
          "T17: logits are not rounded to 16 bits");
}

static void T18_tied(void) {
    ModelConfig c = policy_config();
    const int token[5] = { 1, 5, 7, 9, 8 };
    float logprob[T];
    open_small(&c, F32);
    const size_t apart = tensor_values(policy.tensor, policy.tensors, 0);
    c.tied = 1;
    open_small(&c, F32);
    const size_t tied = tensor_values(policy.tensor, policy.tensors, 0);
    CHECK(policy.head.data == policy.embedding.data && tied == apart - V * C, "T18: a tied head counts once");
    train(token, 5, 1, logprob);                        /* which reads token 9, but not token 30 */
    const float *d = policy.embedding.grad;
    CHECK(d[30 * C] != 0 && d[9 * C] != d[30 * C], "T18: its matrix gets the gradients of both uses");
}

static void T19_backward_adds(void) {
    float w[1] = { 2 }, g[1] = { 1 }, x[1] = { 3 }, dy[1] = { 5 }, dx[1] = { 1 }, db[1] = { 1 };
    Matrix m = { F32, 1, 1, 0, w, NULL, g, F32, F32, 0 };
    linear_backward(dx, db, dy, x, &m, 1, &ws);
    CHECK(dx[0] == 11 && g[0] == 16 && db[0] == 6, "T19: a backward pass adds, to whatever is there");
}

static void T20_adamw(void) {
    float w[2] = { 1, 1 }, g[2] = { 0.5f, 0.5f };
    Matrix linear = { F32, 1, 1, 0, w, NULL, g, F32, F32, 0 };
    Matrix norm = { F32, 1, 1, 1, w + 1, NULL, g + 1, F32, F32, 0 };
    const Tensor list[2] = { { "linear", &linear, TENSOR_LINEAR | TENSOR_TRAINED },
                             { "norm", &norm, TENSOR_NORM | TENSOR_TRAINED } };
    const AdamW c = { 0.1f, 0.9f, 0.999f, 1e-8f, 0.1f, 0 };
    Optimizer o;
    memory.used = 0;
    optimizer_carve(&o, list, 2, &memory);
    optimizer_reset(&o);
    optimizer_step(&o, 0, list, 2, &c, 1);
    CHECK(near((double)w[1], 0.9), "T20: the first step is as long as the learning rate (bias correction)");
    CHECK(near((double)w[0], 0.89), "T20: weight decay does not enter the moments, and spares norms");
}

static void T28_lora_scale(void) {
    const ModelConfig c = policy_config();
    LoraConfig plain = lora_config(4, 8, "q_proj"), rs = plain;
    Lora a, b;
    rs.rslora = 1;
    open_small(&c, F32);
    const int q = policy.stack.block[0].self.q.id;
    CHECK(adapt(&a, &plain) == OK && a.pair[q].scale == 2, "T28: LoRA is scaled by alpha / R");
    CHECK(adapt(&b, &rs) == OK && b.pair[q].scale == 4, "T28: rslora by alpha / sqrt(R)");
}

static void T29_lora_targets(void) {
    static const char *const wrong[] = { "norm", "q_prj" }, *const right[] = { "lm_head", "embed_tokens" };
    const ModelConfig c = policy_config();
    Lora a;
    open_small(&c, F32);
    for (int i = 0; i < 2; i++) {
        const LoraConfig bad = lora_config(4, 8, wrong[i]), good = lora_config(4, 8, right[i]);
        CHECK(adapt(&a, &bad) == E_ARGUMENT, "T29: no forward reads an adapter of %s: refused", wrong[i]);
        CHECK(adapt(&a, &good) == OK && a.tensors == 2, "T29: the forward reads an adapter of %s", right[i]);
    }
    LoraConfig peft = lora_config(4, 8, "q_proj,c_attn"), wide = lora_config(65, 8, "o_proj");
    CHECK(adapt(&a, &peft) == E_ARGUMENT && adapt(&a, &wide) == E_ARGUMENT,
          "T29: a target that is not there, a rank of 65 at a width below: refused");
    peft.peft = wide.peft = "a folder";
    CHECK(adapt(&a, &peft) == OK && adapt(&a, &wide) == OK, "T29: but peft's files may have both");
    peft.targets = "c_attn";
    CHECK(adapt(&a, &peft) == E_ARGUMENT, "T29: if one target is there");
}

/* ---- numbers ---- */

static void T31_halves(void) {
    const uint32_t nan_bits = 0x7F800001u;
    f32 nan;
    memcpy(&nan, &nan_bits, sizeof nan);
    const f32 back = bf16_to_f32(f32_to_bf16(nan));
    CHECK(back != back, "T31: a NaN whose upper half is infinity's stays a NaN in bf16");
    CHECK(bf16_to_f32(f32_to_bf16(1.00390625f)) == 1 && bf16_to_f32(f32_to_bf16(1.01171875f)) == 1.015625f,
          "T31: ties go to the even number");
    CHECK(f16_to_f32(f32_to_f16(0x1p-24f)) == 0x1p-24f && f32_to_f16(65520) == 0x7C00,
          "T31: F16 has subnormals, and ends at 65504");
}

static void T33_doubly_quantised(void) {
    const f32 absmax[2] = { 1, 3 };                                 /* their mean is 2 */
    unsigned char code[2];
    f32 nested[1], map[256];
    Quant q;
    memset(&q, 0, sizeof q);
    quant_map(map);
    q.block = 64; q.code = code; q.nested = nested; q.map = map;
    quantize_absmax(code, nested, &q.offset, map, absmax, 2);
    CHECK(fabsf(quant_scale(&q, 0) - 1) < 0.01f && quant_scale(&q, 1) == 3,
          "T33: absmax is map * nested plus the mean");
}

static void T38_sizes(void) {
    Arena measure = { NULL, 0, 0, 0, 0 };
    Tensor tensor[1];
    Matrix w;
    TensorList list = { tensor, 0, 0, &measure };
    memset(&w, 0, sizeof w);
    tensor_carve(&list, &w, "", 0, F32, 1 << 18, 1 << 14, 0);
    if (sizeof(size_t) > 4)
        CHECK((uint64_t)measure.used == (uint64_t)1 << 34, "T38: 2^32 weights are 2^34 bytes, not 0");
    else CHECK(measure.failed, "T38: 2^34 bytes are too many");
}

static void T39_json(void) {
    static const char text[] = "{\"a\": 1, \"a\": 2}";
    const Json *object = json_parse(text, sizeof text - 1, &pool, NULL);
    CHECK(json_number(object, "a", 0) == 2, "T39: of a key that comes twice the last counts");
}

static void T40_contraction(void) {
    const float a = 1 + 0x1p-12f;           /* a^2 = 1 + 2^-11 + 2^-24, as a float 1 + 2^-11 */
    float w[2] = { 1, 0 }, x[2] = { -(1 + 0x1p-11f), 0 }, y = 1;
    Matrix m = { F32, 1, 2, 0, w, NULL, NULL, F32, F32, 0 };
    x[1] = w[1] = a;
    CHECK(fast_use("exact") == OK, "the definition's bits");
    linear_forward(&y, x, &m, NULL, 1, &ws);
    CHECK(y == 0, "T40: x*y + z is rounded twice, by every compiler (%g)", (double)y);
    fast_use("");
}

static void T41_softmax(void) {
    const float logits[2] = { 1000, 1 };
    const int token[1] = { 1 };
    float logprob = 0;
    logprob_forward(&logprob, NULL, logits, token, 0.5f, 1, 2);
    CHECK(near((double)logprob, -1998), "T41: a logit of 1000 does not overflow; temperature divides logits");
}

static void T53_all_logits(void) {
    const ModelConfig c = policy_config();
    const int target[1] = { 1 };
    float x[C] = { 1e9f }, logprob = 0;
    const HeadTask task = { .target = target, .temperature = 1, .logprob = &logprob };
    open_small(&c, F32);
    float *head = policy.head.data;
    for (int v = 0; v < V; v++) head[v * C] = 0;
    CHECK(model_logprobs(&policy, NULL, x, 1, &task, &ws) == OK && near((double)logprob, -log(V)),
          "T53: numbers");
    head[2 * C] = -3e38f;                   /* the logit of 2 is minus infinity */
    CHECK(model_logprobs(&policy, NULL, x, 1, &task, &ws) == OK && logprob != logprob,
          "T53: a logit that is not a number shows in the log-prob of another token");
    Sequence s;
    int token[T] = { 1, 5, 7 };
    const Writing w = { .sampling = { 1, 0, 1 } };
    memset(&s, 0, sizeof s);
    s.token = token; s.prompt = s.length = PROMPT; s.capacity = T;
    for (int i = 0; i < C; i++) head[3 * C + i] = i % 2 ? -3e38f : 3e38f;
    CHECK(model_generate(&policy, &w, &s, 1, &cache, &ws) == E_NUMBER && s.length == PROMPT,
          "T53: and ends a response");
}

/* ---- writing ---- */

static const Sampling plainly = { 1, 0, 1 }, warm = { 0.7f, 0, 1 };

static void T8_temperature(void) {
    const ModelConfig c = policy_config();
    int token[T];
    float old[T], new[T], other[T];
    open_small(&c, F32);
    const Sequence s = respond(token, old, &warm, 0);
    const int n = train(token, s.length, 0.7f, new);
    train(token, s.length, 1, other);
    const size_t bytes = (size_t)n * sizeof *old;
    CHECK(n == T - PROMPT && !memcmp(old, new, bytes) && memcmp(old, other, bytes) != 0,
          "T8: sampling and training divide the logits by the same temperature");
}

static void T9_eos(void) {
    ModelConfig c = policy_config();
    int token[T], again[T];
    float logprob[T] = { 0 };
    open_small(&c, F32);
    respond(token, logprob, &plainly, 0);
    policy.config.eos[0] = token[PROMPT + 4];                       /* a token that it writes becomes eos */
    logprob[4] = 1;
    const Sequence s = respond(again, logprob, &plainly, 1);
    int end = PROMPT;
    while (token[end] != policy.config.eos[0]) end++;
    CHECK(s.length == end + 1 && again[end] == policy.config.eos[0] && logprob[end - PROMPT] < 0,
          "T9: EOS is the response's last token, with a log-prob; nothing follows");
    static unsigned char kept[T][(T + 7) / 8 + 8];
    Sequence late;
    const Writing w = { .sampling = plainly };
    memset(&late, 0, sizeof late);
    late.token = again;
    late.prompt = late.length = PROMPT;
    late.capacity = T;
    late.stop_at_eos = 1;
    late.least = end - PROMPT + 1;
    late.logprob = logprob;
    late.kept = kept[0];
    late.rng = rng_stream(1, 2, 3);
    CHECK(model_generate(&policy, &w, &late, 1, &cache, &ws) == OK && late.length > end + 1
          && again[end] != policy.config.eos[0], "T9: none of the first `least` tokens is an EOS");
}

static void T10_first_ratio(void) {
    const PpoLoss loss = { .clip_range = 0.2f, .vf_coef = 0.1f };
    const ModelConfig c = policy_config();
    float old[T], new[T], A[T], d[T] = { 0 };
    PpoStats stats;
    int token[T];
    memset(&stats, 0, sizeof stats);
    open_small(&c, F32);
    const Sequence s = respond(token, old, &plainly, 0);
    const int n = train(token, s.length, 1, new);
    for (int i = 0; i < n; i++) A[i] = 1;
    policy_loss(d, POLICY(new, old, A), &loss, 1, n, &stats);
    CHECK(n == T - PROMPT && stats.max_ratio_deviation == 0, "T10: the first ratio is exactly 1 (off by %g)",
          stats.max_ratio_deviation);
}

static void T11_before_cutting(void) {
    static const float logits[4] = { 2, 1, 0, -1 };
    const Sampling one = { 1, 1, 1 }, nucleus = { 1, 0, 0.1f };
    float logprob = 0, scratch[4];
    int order[4];
    Rng r = { 1 };
    int token = sample_token(logits, 4, &one, &r, &logprob, NULL, scratch, order);
    CHECK(token == 0 && near((double)logprob, -0.4401897), "T11: the log-prob is that before top-k");
    token = sample_token(logits, 4, &nucleus, &r, &logprob, NULL, scratch, order);
    CHECK(token == 0 && near((double)logprob, -0.4401897), "T11: and before top-p");
    unsigned char kept = 0xff;
    const Sampling two = { 1, 2, 1 };
    token = sample_token(logits, 4, &two, &r, &logprob, &kept, scratch, order);
    CHECK(kept == 3 && near((double)logprob, token ? -1.3132617 : -0.3132617),
          "T11: or if the set is stored, that among its tokens");
}

static void T12_several_eos(void) {
    ModelConfig c = policy_config();
    int token[T], again[T];
    open_small(&c, F32);
    respond(token, NULL, &plainly, 0);
    policy.config.eos[0] = -1;
    policy.config.eos[1] = token[PROMPT + 4];
    policy.config.eos_count = 2;
    CHECK(respond(again, NULL, &plainly, 1).length <= PROMPT + 5, "T12: each of several EOS ids ends it");
}

static void T37_streams(void) {
    const ModelConfig c = policy_config();
    const Writing w = { NULL, NULL, plainly, NULL, NULL };
    int alone[T], both[2][T] = { { 1, 6 }, { 1, 5, 7 } };
    Sequence s[2];
    open_small(&c, F32);
    respond(alone, NULL, &plainly, 0);
    memset(s, 0, sizeof s);
    for (int b = 0; b < 2; b++) {
        s[b].token = both[b]; s[b].prompt = s[b].length = 2 + b; s[b].capacity = T;
        s[b].rng = rng_stream(1, 2, (uint64_t)(2 + b));
    }
    CHECK(model_generate(&policy, &w, s, 2, &cache, &ws) == OK && !memcmp(both[1], alone, sizeof alone),
          "T37: a response does not depend on its batch: each has a random stream of its own");
    const uint64_t state = rng_stream(1, 2, 3).state;
    CHECK(state != rng_stream(1, 2, 4).state && state != rng_stream(1, 3, 3).state
          && state != rng_stream(2, 2, 3).state, "T37: by seed, step and index");
}

/* ---- PPO's arithmetic ---- */

static void T7_rewards(void) {
    static const int start[4] = { 0, 2, 2, 3 };                     /* the second response has no token */
    const float logprob[3] = { -1, -2, -3 }, ref[3] = { -2, -1, -3 }, score[3] = { 10, 20, 30 };
    float kl[3], reward[3];
    kl_penalty(kl, logprob, ref, NULL, KL_K1, 3);
    token_rewards(reward, kl, score, 0.5f, start, 3);
    CHECK(reward[0] == -0.5f, "T7: what the reference finds less likely costs: minus coefficient times KL");
    CHECK(reward[1] == 10.5f && reward[2] == 30, "T7: a score goes on its own response's last token");
}

static void T21_kl_counts(void) {
    static const int start[3] = { 0, 3, 4 };
    const float kl[4] = { 1, 1, 1, 3 };
    KlController c = { 0.2, 6, 100 };
    CHECK(kl_per_sequence(kl, start, 2) == 3, "T21: KL: sum over tokens, mean over responses");
    kl_controller_update(&c, 12, 50);
    CHECK(near(c.coef, 0.22), "T21: the controller counts responses, and its error ends at 0.2");
}

static void T22_gae(void) {
    static const int start[3] = { 0, 2, 3 };
    const float reward[3] = { 0, 1, 5 }, value[3] = { 0, 0.5f, 2 };
    float A[3], R[3];
    gae(A, R, reward, value, 1, 1, start, 2);
    CHECK(A[1] == 0.5f && R[1] == 1 && R[0] == 1, "T22: the value after a response's last token is 0");
}

static void T23_whitening(void) {
    float two[2] = { 2, 3 }, kept[2] = { 2, 3 }, one[1] = { 7 };
    whiten(two, 2, 1, 0);
    whiten(kept, 2, 0, 0);
    whiten(one, 1, 1, 0);
    CHECK(near((double)two[0], -0.7071068), "T23: the variance is divided by P - 1");
    CHECK(near((double)kept[0] + (double)kept[1], 5), "T23: rewards keep their mean");
    CHECK(one[0] == 0, "T23: one token has no variance, and does not become NaN");
}

static void T24_clipping(void) {
    const PpoLoss c = { .clip_range = 0.2f, .clip_range_value = 0.2f, .vf_coef = 1 };
    const float old[4] = { 0 }, moved[4] = { 0.5f, 0.5f, -0.5f, -0.5f }, A[4] = { 1, -1, 1, -1 };
    const float value[1] = { 1 }, old_value[1] = { 0 }, returns[1] = { 2 };
    float d[4] = { 0 }, dvalue[1] = { 0 };
    PpoStats s;
    memset(&s, 0, sizeof s);
    policy_loss(d, POLICY(moved, old, A), &c, 1, 4, &s);
    CHECK(d[0] == 0 && d[1] > 0 && d[2] < 0 && d[3] == 0,
          "T24: the loss is flat only where the ratio moved far in the wanted direction");
    value_loss(dvalue, value, old_value, returns, &c, 1, 1, &s);
    CHECK(dvalue[0] == 0 && near(s.value_loss, 1.62), "T24: of a value's two errors the larger counts");
}

static void T26_not_a_number(void) {
    const PpoLoss c = { .clip_range = 0.2f, .vf_coef = 1, .ratio_threshold = 10 };
    const float bad[2] = { (float)NAN, 0 }, old[2] = { 0, 0 }, A[2] = { 1, 1 };
    float d[2] = { 0, 0 };
    PpoStats s;
    memset(&s, 0, sizeof s);
    policy_loss(d, POLICY(bad, old, A), &c, 1, 2, &s);
    CHECK(s.max_ratio_deviation != 0 && ratio_exceeds(&s, &c), "T26: a NaN stays, whatever comes next");
}

static void T50_schedule(void) {
    const double first = learning_rate(SCHEDULE_LINEAR, 1, 0, 1, 10);
    CHECK(near(first, 1) && near(learning_rate(SCHEDULE_LINEAR, 1, 0, 10, 10), 0.1),
          "T50: a linear schedule ends at rate / steps, since a last step of rate 0 would learn nothing");
}

/* ---- text ---- */

static void decodes(const Tokenizer *t, const int *ids, int n, const char *want, const char *what) {
    char *text;
    size_t length;
    const int code = tokenizer_decode(t, ids, n, &pool, &text, &length);
    CHECK(code == OK && !strcmp(text, want), "%s: \"%s\"", what, text);
}

static void T35_and_T36_text(void) {
    const Tokenizer *t = tokenizer_open("data/policy", &pool, NULL);
    int *ids, n;
    CHECK(t != NULL, "the shipped tokenizer");
    if (!t) return;
    CHECK(tokenizer_encode(t, "  a film", 8, &pool, &ids, &n) == OK, "encoded");
    decodes(t, ids, n, "  a film", "T36: a text's own spaces stay");
    CHECK(tokenizer_encode(t, "a film", 6, &pool, &ids, &n) == OK, "encoded");
    decodes(t, ids, n, "a film", "T36: the space that the tokenizer put before the first word goes");
    const int padded[3] = { tokenizer_size(t), ids[n - 1], tokenizer_size(t) + 60 };
    decodes(t, padded, 3, "film", "T35: ids past the tokenizer's, of a padded vocabulary, are nothing");
}

int main(void) {
    pool = test_pool();
    memory = test_arena((size_t)4 << 20);
    ws = test_arena((size_t)16 << 20);
    T1_rope_pairs(); T2_positions(); T3_roberta(); T4_shifted(); T5_nf4(); T6_new_adapter();
    T7_rewards(); T8_temperature(); T9_eos(); T10_first_ratio(); T11_before_cutting(); T12_several_eos();
    T13_token_type(); T14_grouped_queries(); T15_window(); T16_norms(); T17_logits(); T18_tied();
    T19_backward_adds(); T20_adamw(); T21_kl_counts(); T22_gae(); T23_whitening(); T24_clipping();
    T26_not_a_number(); T28_lora_scale(); T29_lora_targets(); T31_halves(); T33_doubly_quantised();
    T35_and_T36_text(); T37_streams(); T38_sizes(); T39_json(); T40_contraction(); T41_softmax();
    T50_schedule(); T53_all_logits();
    CHECK(!memory.failed && !ws.failed, "memory suffices");
    pool_free(&pool);
    return test_end("traps");
}
