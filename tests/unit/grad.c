/* tests/unit/grad.c - every backward pass against central differences of six points, in double: compiled with
 * -DF64, the same source with 29 more bits.
 *
 *   grad          every row must agree
 *   grad flip     the analytic gradient is negated: every row must FAIL, or the row proves nothing
 *
 * One row per operation, one leaf per input; whole models too, every tensor by name. The loss is sum(out *
 * weight) with random weights. Gradients start at 1, because a backward pass must ADD. A leaf whose gradient
 * is zero everywhere is a failure, but for the biases of keys without RoPE: such a bias adds the same number
 * to every score of a query, which softmax does not see. */
#include "test.h"

enum { LEAVES = 6, OUT_MAX = 4096 };
typedef struct { const char *name; float *value, *grad; size_t n; } Leaf;
typedef struct { const char *name; void (*setup)(void); void (*forward)(float *out);
void (*backward)(const float *dout); int out; } Row;

static Leaf leaf[256];
static int leaves;
static Arena memory, ws;
static Pool pool;
static Rng rng;

static float *take(size_t n) {
    float *x = arena_take(&memory, n, sizeof *x);
    for (size_t i = 0; x && i < n; i++) x[i] = rng_normal(&rng);
    return x;
}
static Leaf *add_leaf(const char *name, float *value, float *grad, size_t n) {
    Leaf *l = &leaf[leaves++];
    l->name = name; l->value = value; l->grad = grad; l->n = n;
    return l;
}
static Leaf *new_leaf(const char *name, size_t n) { float *v = take(n), *g = take(n);
return add_leaf(name, v, g, n); }
static Matrix matrix(int l, int O, int I) {
    Matrix m = { F32, 0, 0, 0, NULL, NULL, NULL, F32, F32, 0 };
    m.O = O; m.I = I; m.data = leaf[l].value; m.grad = leaf[l].grad;
    return m;
}
#define V(i) (leaf[i].value)
#define G(i) (leaf[i].grad)

/* ---- operations ---- */
enum { N = 5, I = 7, O = 11, H = 4, K = 2, D = 6, T = 3 };
static const int token[N] = { 2, 0, 2, 9, 10 };

static void linear_s(void) { new_leaf("x", N * I); new_leaf("W", O * I); new_leaf("bias", O); }
static void linear_f(float *y) { Matrix w = matrix(1, O, I); linear_forward(y, V(0), &w, V(2), N, &ws); }
static void linear_b(const float *dy) {
    Matrix w = matrix(1, O, I);
    linear_backward(G(0), G(2), dy, V(0), &w, N, &ws);
}
static void linear_add_s(void) { new_leaf("x", N * I); new_leaf("W", O * I); new_leaf("y", N * O); }
static void linear_add_f(float *y) {
    Matrix w = matrix(1, O, I);
    memcpy(y, V(2), N * O * sizeof *y);
    linear_add(y, V(0), &w, NULL, N, &ws);
}
static void linear_add_b(const float *dy) {
    Matrix w = matrix(1, O, I);
    linear_backward(G(0), NULL, dy, V(0), &w, N, &ws);
    for (int i = 0; i < N * O; i++) G(2)[i] += dy[i];
}

static void embedding_s(void) { new_leaf("table", O * I); }
static void embedding_f(float *y) { Matrix w = matrix(0, O, I); embedding_forward(y, token, &w, N); }
static void embedding_b(const float *dy) { Matrix w = matrix(0, O, I); embedding_backward(dy, token, &w, N); }

static void norm_s(void) { new_leaf("x", N * O); new_leaf("w", O); }
static void rms_f(float *y) { rmsnorm_forward(y, V(0), V(1), 0.03, N, O); }
static void rms_b(const float *dy) { rmsnorm_backward(G(0), G(1), dy, V(0), V(1), 0.03, N, O); }
static void ln_s(void) { norm_s(); new_leaf("b", O); }
static void ln_f(float *y) { layernorm_forward(y, V(0), V(1), V(2), 0.03, N, O); }
static void ln_b(const float *dy) {
    const Matrix w = matrix(1, 1, O), b = matrix(2, 1, O);
    layernorm_backward(G(0), dy, V(0), &w, &b, 0.03, N, O);
}

static float cosine[8 * D / 2], sine[8 * D / 2];
static const int position[N] = { 0, 1, 5, 3, 7 };
static void rope_s(void) {
    new_leaf("x", N * H * D);
    for (int p = 0; p < 8; p++)
        for (int j = 0; j < D / 2; j++) {
            cosine[p * D / 2 + j] = cos(p * pow(0.1, j));
            sine[p * D / 2 + j] = sin(p * pow(0.1, j));
        }
}
static void rope_f(float *y) {
    memcpy(y, V(0), N * H * D * sizeof *y);
    rope_rotate(y, position, cosine, sine, 0, N, H, D);
}
static void rope_b(const float *dy) {
    float d[N * H * D];
    memcpy(d, dy, sizeof d);
    rope_rotate(d, position, cosine, sine, 1, N, H, D);
    for (int i = 0; i < N * H * D; i++) G(0)[i] += d[i];
}

enum { KV = 70, REACH = 69, BUCKETS = 5 };     /* more keys than one block of 64 */
static int first_key[N], key_count[N], own_key[N], bucket[2 * REACH + 1];
static const Keys keys = { first_key, key_count, own_key };
static float scale;
static void att_leaves(int bias) {
    new_leaf("q", N * H * D);
    new_leaf("k", KV * K * D);
    new_leaf("v", KV * K * D);
    scale = bias ? 1 : 0.4;
    if (bias) new_leaf("bias", BUCKETS * H);
    /* several distances share one */
    for (int i = 0; i <= 2 * REACH; i++) bucket[i] = (i * 7 + i / 3) % BUCKETS;
}
static void see(int n, int first, int count, int self) {
    first_key[n] = first;
    key_count[n] = count;
    own_key[n] = self;
}
static void causal_rows(void) {
    for (int n = 0; n < N; n++) see(n, n < 2 ? 0 : 2, n < 2 ? n + 1 : n + 64, n < 2 ? n : n + 65);
}
static void bidirectional_rows(void) { for (int n = 0; n < N; n++) see(n, n < 3 ? 0 : 3, n < 3 ? 3 : 67, n); }
static void window_rows(void) {
    for (int n = 0; n < N; n++) see(n, n < 2 ? 4 + n : n == 4 ? 60 : 6 + n, n == 3 ? 8 : 6, n + 9);
}
static void cross_rows(void) { for (int n = 0; n < N; n++) see(n, n < 2 ? 0 : 30, n < 2 ? 30 : 40, 0); }
static void causal_s(void) { att_leaves(0); causal_rows(); }
static void bidirectional_s(void) { att_leaves(0); bidirectional_rows(); }
static void window_s(void) { att_leaves(0); window_rows(); }
static void cross_s(void) { att_leaves(0); cross_rows(); }
static void bias_causal_s(void) { att_leaves(1); causal_rows(); }
static void bias_bidirectional_s(void) { att_leaves(1); bidirectional_rows(); }
static void bias_window_s(void) { att_leaves(1); window_rows(); }
static Heads att_heads(void) {
    Heads h = { H, K, D, 0, NULL, NULL, bucket, REACH };
    h.scale = scale;
    if (leaves > 3) { h.bias = V(3); h.dbias = G(3); }
    return h;
}
static void att_f(float *y) {
    Heads h = att_heads();
    Qkv in = { V(0), V(1), V(2) };
    attention_forward(y, &in, &keys, N, &h, &ws);
}
static void att_b(const float *dy) {
    float y[N * H * D];
    Heads h = att_heads();
    Qkv in = { V(0), V(1), V(2) }, d = { G(0), G(1), G(2) };
    att_f(y);
    attention_backward(&d, dy, y, &in, &keys, N, &h, &ws);
}

static void gated_s(void) { new_leaf("gate", O); new_leaf("up", O); }
static void one_s(void) { new_leaf("x", O); }
#define ACTIVATION(name, kind) \
    static void name##_f(float *y) { activation_forward(y, V(0), kind, O); } \
    static void name##_b(const float *dy) { activation_backward(G(0), dy, V(0), kind, O); } \
    static void name##_gated_f(float *y) { gated_forward(y, V(0), V(1), kind, O); } \
    static void name##_gated_b(const float *dy) { gated_backward(G(0), G(1), dy, V(0), V(1), kind, O); }
ACTIVATION(silu, ACT_SILU)
ACTIVATION(gelu, ACT_GELU)
ACTIVATION(gelu_tanh, ACT_GELU_TANH)
ACTIVATION(relu, ACT_RELU)
static void tanh_f(float *y) { tanh_forward(y, V(0), O); }
static void tanh_b(const float *dy) { float y[O]; tanh_f(y); tanh_backward(G(0), dy, y, O); }

static void logits_s(void) { new_leaf("logits", N * O); }
static void logprob_f(float *y) { logprob_forward(y, NULL, V(0), token, 0.7, N, O); }
static void logprob_b(const float *dy) {
    float y[N];
    logprob_f(y);
    logprob_backward(G(0), dy, y, V(0), token, 0.7, N, O);
}
static void entropy_f(float *y) {
    float logprob[N];
    logprob_forward(logprob, y, V(0), token, 0.7, N, O);
}
static void entropy_b(const float *dy) { entropy_backward(G(0), dy, V(0), 0.7, N, O); }
static void ce_f(float *y) { cross_entropy_forward(y, V(0), token, N, O); }
static void ce_b(const float *dy) {
    float y[N];
    ce_f(y);
    cross_entropy_backward(G(0), dy, y, V(0), token, N, O);
}
static void rank_s(void) { new_leaf("logits", 6 * T); }
static void rank_f(float *y) { ranking_forward(y, V(0), NULL, T, 3); }
static void rank_b(const float *dy) { ranking_backward(G(0), dy, V(0), NULL, T, 3); }
static const float better[3] = { 0.7, 0, 0.5 };
static void rank_soft_f(float *y) { ranking_forward(y, V(0), better, T, 3); }
static void rank_soft_b(const float *dy) { ranking_backward(G(0), dy, V(0), better, T, 3); }

/* {ratio below, inside, above} x {advantage < 0, > 0} x 2: the kinks have a token on each side */
enum { P = 12 };
static PpoLoss ppo;
static float old[P], advantage[P], returns[P], ref[P], share[P];
static PolicyTokens tokens_at(int i) {
    const PolicyTokens x = { V(0) + i, old + i, advantage + i, ppo.kl_coef > 0 ? ref + i : NULL, share + i };
    return x;
}
static void policy_s(void) {
    Leaf *l = new_leaf("new_logprob", P);
    const PpoLoss plain = { .clip_range = 0.2, .clip_range_value = 0.2, .vf_coef = 0.1 };
    ppo = plain;
    for (int i = 0; i < P; i++) {
        old[i] = -2 - 0.1 * i;
        l->value[i] = old[i] + (i % 3 - 1) * 0.4 + 0.03 * (i / 6);
        advantage[i] = i % 2 ? 1.3 : -0.8;
        ref[i] = l->value[i] + (i % 5 < 3 ? 0.3 : -0.4) * (1 + 0.1 * i);
        share[i] = 1;
    }
}
/* a ratio of e^0.4 = 1.49 is between the bound of 1.2 and this one, and above that of the dual clip */
static void higher_s(void) { policy_s(); ppo.clip_range_high = 0.6; }
static void dual_s(void) { policy_s(); ppo.dual_clip = 1.3; }
static void weighted_s(void) {
    policy_s();
    for (int i = 0; i < P; i++) share[i] = token_weight(MEAN_SEQUENCE, i < 2 ? 2 : i < 9 ? 7 : 3, P, 3);
}
static void kl_loss_s(int kind) { policy_s(); ppo.kl_coef = 0.7; ppo.kl_kind = kind; }
static void kl_s(void) { kl_loss_s(KL_K1); }
static void abs_s(void) { kl_loss_s(KL_ABS); }
static void mse_s(void) { kl_loss_s(KL_MSE); }
static void k3_s(void) { kl_loss_s(KL_K3); }
static void policy_f(float *y) {
    for (int i = 0; i < P; i++) {
        PpoStats s;
        float d = 0;
        memset(&s, 0, sizeof s);
        const PolicyTokens x = tokens_at(i);
        policy_loss(&d, &x, &ppo, 1, 1, &s);
        y[i] = s.policy_loss + ppo.kl_coef * s.kl_loss;
    }
}
static void policy_b(const float *dy) {
    for (int i = 0; i < P; i++) {
        PpoStats s;
        memset(&s, 0, sizeof s);
        const PolicyTokens x = tokens_at(i);
        policy_loss(G(0) + i, &x, &ppo, dy[i], 1, &s);
    }
}
static void value_s(void) {
    Leaf *l = new_leaf("value", P);
    const PpoLoss plain = { .clip_range = 0.2, .clip_range_value = 0.2, .vf_coef = 0.1 };
    ppo = plain;
    for (int i = 0; i < P; i++) {
        old[i] = 0.1 * i;
        l->value[i] = old[i] + (i % 3 - 1) * 0.45;
        returns[i] = old[i] + (i % 2 ? 0.9 : -0.7);
    }
}
static void value_f(float *y) {
    for (int i = 0; i < P; i++) {
        PpoStats s;
        float d = 0;
        memset(&s, 0, sizeof s);
        value_loss(&d, V(0) + i, old + i, returns + i, &ppo, 1, 1, &s);
        y[i] = ppo.vf_coef * s.value_loss;
    }
}
static void value_b(const float *dy) {
    for (int i = 0; i < P; i++) {
        PpoStats s;
        memset(&s, 0, sizeof s);
        value_loss(G(0) + i, V(0) + i, old + i, returns + i, &ppo, dy[i], 1, &s);
    }
}

/* ---- whole models ---- */
static Model model;
static Lora lora;
static ValueHead head;
static RewardModel judge;
static Cache cache;
static Saved saved;
static RewardSaved judge_saved;
static const Lora *adapter;
static int values_too, sets_too;          /* sets_too: see m_kept */

static void tensor_leaves(Tensor *t, int n, double spread) {
    for (int i = 0; i < n; i++) {
        size_t size = (size_t)t[i].matrix->O * (size_t)t[i].matrix->I;
        if (t[i].flags & TENSOR_TIED) continue;
        float *x = t[i].matrix->data, middle = t[i].flags & TENSOR_VECTOR ? 1 : 0;
        for (size_t k = 0; k < size; k++) x[k] = middle + spread * rng_normal(&rng);
        if (t[i].flags & TENSOR_TRAINED) add_leaf(t[i].name, t[i].matrix->data, t[i].matrix->grad, size);
    }
}

/* Names of tensors, for messages, and for the one leaf whose gradient is 0 everywhere. */
static const Names names = { {
    [NAME_WORD] = "word.weight", [NAME_POSITION] = "position.weight", [NAME_TYPE] = "type",
        [NAME_EMBEDDING_NORM] = "embedding_norm",
    [NAME_EMBEDDING_NORM_B] = "embedding_norm.bias", [NAME_NORM1] = "%d.norm1.weight",
        [NAME_NORM1_B] = "%d.norm1.bias",
    [NAME_Q] = "%d.q_proj.weight", [NAME_Q_B] = "%d.q_proj.bias", [NAME_K] = "%d.k_proj.weight",
        [NAME_K_B] = "%d.k_proj.bias",
    [NAME_V] = "%d.v_proj.weight", [NAME_V_B] = "%d.v_proj.bias", [NAME_O] = "%d.o_proj.weight",
        [NAME_O_B] = "%d.o_proj.bias",
    [NAME_Q_NORM] = "%d.q_norm.weight", [NAME_K_NORM] = "%d.k_norm.weight", [NAME_CROSS] = "%d.cross.norm",
        [NAME_CROSS + 1] = "%d.cross.norm.bias",
    [NAME_CROSS + 2] = "%d.cross.q", [NAME_CROSS + 3] = "%d.cross.query.bias",
        [NAME_CROSS + 4] = "%d.cross.k",
    [NAME_CROSS + 5] = "%d.cross.key.bias", [NAME_CROSS + 6] = "%d.cross.v",
        [NAME_CROSS + 7] = "%d.cross.value.bias",
    [NAME_CROSS + 8] = "%d.cross.o", [NAME_CROSS + 9] = "%d.cross.o.bias", [NAME_NORM2] = "%d.norm2.weight",
    [NAME_NORM2_B] = "%d.norm2.bias",
    [NAME_GATE] = "%d.gate_proj.weight",
    [NAME_GATE_B] = "%d.gate_proj.bias",
    [NAME_UP] = "%d.up_proj.weight", [NAME_UP_B] = "%d.up_proj.bias", [NAME_DOWN] = "%d.down_proj.weight",
        [NAME_DOWN_B] = "%d.down_proj.bias",
    [NAME_BUCKETS] = "buckets", [NAME_NORM] = "norm.weight", [NAME_NORM_B] = "norm.bias",
    [NAME_HEAD] = "head.weight",
        [NAME_HEAD_B] = "head.bias", [NAME_QKV] = "%d.qkv_proj.weight", [NAME_QKV_B] = "%d.qkv_proj.bias",
    [NAME_PROJECT] = "project", [NAME_PROJECT_B] = "project.bias",
    [NAME_DENSE] = "dense.weight", [NAME_DENSE_B] = "dense.bias" }, 0 };

static void llama_kind(StackKind *k) {
    k->activation = ACT_SILU;
    k->gated = k->causal = k->rotary = 1;
}
static void roberta_kind(StackKind *k) {
    k->norm = NORM_LAYER;
    k->norm_place = NORM_POST;
    k->activation = ACT_GELU;
    k->biases = BIAS_QKV | BIAS_O | BIAS_MLP;
    k->K = k->H;
    k->D = k->C / k->H;
}

/* The rows of two texts, of 3 and 5 tokens; and the same after the two rows of a soft prompt. */
static const int m_token[8] = { 1, 5, 7, 2, 5, 3, 12, 0 }, m_sequence[8] = { 0, 0, 0, 1, 1, 1, 1, 1 },
    m_position[8] = { 0, 1, 2, 0, 1, 2, 3, 4 };
static const int p_token[12] = { -1, -2, 1, 5, 7, -1, -2, 2, 5, 3, 12, 0 },
    p_sequence[12] = { 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1 },
    p_position[12] = { 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6 };
static const unsigned char m_wants[8] = { 1, 1, 0, 0, 1, 1, 1, 0 },
    p_wants[12] = { 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 1, 0 };
static const int m_target[5] = { 5, 7, 3, 12, 0 };
static const Rows m_texts = { 8, 5, m_token, m_sequence, m_position, m_wants },
    m_prompted = { 12, 5, p_token, p_sequence, p_position, p_wants }, *m_rows;

static int head_layers = 1;                 /* of the value head */
static void policy_model(int tied, int trainable, int R, void (*change)(ModelConfig *), int recompute) {
    ModelConfig c;
    Error err = { 0 };
    memset(&c, 0, sizeof c);
    c.V = 13; c.stack.C = 8; c.stack.L = 2; c.stack.H = 4; c.stack.K = 2; c.stack.D = 4; c.stack.F = 10;
    c.positions = 16; c.tied = tied; c.stack.eps = 1e-5; c.stack.rope.theta = 100; c.bos = c.pad = -1;
    c.stack.rope.type = ROPE_LLAMA3; c.stack.rope.factor = 4; c.stack.rope.low = 1; c.stack.rope.high = 4;
    c.stack.rope.original = 8;
    llama_kind(&c.stack);
    c.names = &names;
    if (change) change(&c);
    model_carve(&model, &c, NULL, trainable, 16, &pool, &memory, &err);
    tensor_leaves(model.tensor, model.tensors, 0.4);
    adapter = NULL;
    values_too = R > 0;
    sets_too = 0;
    if (R) {
        LoraConfig c_lora = lora_config(R, 4, "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj");
        if (c.stack.joined) c_lora = lora_config(R, 4, "qkv_proj,down_proj");
        lora_carve(&lora, model.tensor, model.tensors, &c_lora, 1, &pool, &memory, &err);
        tensor_leaves(lora.tensor, lora.tensors, 0.4);
        value_head_carve(&head, c.stack.C, head_layers, 1, &memory);
        tensor_leaves(head.tensor, head.tensors, 0.4);
        adapter = &lora;
    }
    cache_carve(&cache, &c.stack, c.stack.L, 2, 8, &memory);
    saved_carve(&saved, &c.stack, 12, 5, recompute, &memory);
    m_rows = &m_texts;
    if (err.code || memory.failed) { printf("setup: %s %s\n", err.what, err.where); exit(1); }
}
static void llama_s(void) { policy_model(0, 1, 0, NULL, 0); }
static void sets_s(void) { policy_model(0, 1, 0, NULL, 0); sets_too = 1; }
static void tied_s(void) { policy_model(1, 1, 0, NULL, 0); }
static void lora_s(void) { policy_model(0, 0, 3, NULL, 0); }
static void two_layers_s(void) {
    head_layers = 2;
    policy_model(0, 0, 3, NULL, 0);
    head_layers = 1;
}
static void recompute_s(void) { policy_model(0, 1, 3, NULL, 1); }

/* What other families ask of the engine. */
static void gpt2(ModelConfig *c) {
    StackKind *k = &c->stack;
    k->norm = NORM_LAYER;
    k->gated = k->rotary = 0;
    k->activation = ACT_GELU_TANH;
    k->biases = BIAS_QKV | BIAS_O | BIAS_MLP;
    c->learned = 1;
}
static void qwen(ModelConfig *c) {          /* Qwen2's biases, Qwen3's norms of q and k, Mistral's window */
    c->stack.biases = BIAS_QKV;
    c->stack.qk_norm = 1;
    c->stack.window = 2;
}
/* Llama's attention_bias and mlp_bias, RoPE's linear scaling, a scale of the scores */
static void biases(ModelConfig *c) {
    c->stack.biases = BIAS_QKV | BIAS_O | BIAS_MLP;
    c->stack.rope.type = ROPE_LINEAR;
    c->stack.scale = 0.3;
}
static void relu(ModelConfig *c) {
    c->stack.gated = 0;
    c->stack.activation = ACT_RELU;
    c->stack.buckets = 6;
    c->stack.distance = 5;
    c->stack.rotary = 0;
}
static void joined(ModelConfig *c) {        /* q, k and v in one matrix, with two key heads */
    gpt2(c);
    c->stack.joined = 1;
}
static void smollm3(ModelConfig *c) {       /* the first layer has RoPE and a window, the second neither */
    c->stack.window = 2;
    c->stack.period = 2;
    c->stack.windowed = 1;
    c->stack.unrotated = 2;
    c->stack.rope.type = ROPE_YARN;
    c->stack.rope.high = 4;
    c->stack.rope.attention = 1.2;
}
static void gpt2_s(void) { policy_model(1, 1, 0, gpt2, 0); }
static void joined_s(void) { policy_model(1, 1, 0, joined, 0); }
static void joined_lora_s(void) { policy_model(0, 0, 3, joined, 1); }
static void smollm3_s(void) { policy_model(0, 1, 2, smollm3, 0); }
static void qwen_s(void) { policy_model(0, 1, 0, qwen, 0); }
static void qwen_recompute_s(void) { policy_model(0, 1, 2, qwen, 1); }
static void biases_s(void) { policy_model(0, 1, 0, biases, 0); }
static void relu_s(void) { policy_model(0, 1, 0, relu, 0); }
/* An adapter of embedding, head and joined linears with DoRA, with all biases, and norms trained whole. */
static void more_lora(int tied, void (*change)(ModelConfig *), LoraConfig c_lora) {
    Error err = { 0 };
    policy_model(tied, 0, 0, change, 1);
    memset(&lora, 0, sizeof lora);
    lora_carve(&lora, model.tensor, model.tensors, &c_lora, 1, &pool, &memory, &err);
    tensor_leaves(lora.tensor, lora.tensors, 0.4);
    lora_norms(&lora, model.tensor, &ws);
    adapter = &lora;
    if (err.code || memory.failed) { printf("setup: %s %s\n", err.what, err.where); exit(1); }
}
static void embedding_lora_s(void) {
    more_lora(1, joined, lora_config(3, 4, "word,position,head,qkv_proj"));
}
static void saved_s(void) {
    LoraConfig c = lora_config(2, 4, "q_proj,down_proj");
    c.save = "norm,o_proj,head";
    c.bias = LORA_BIAS_ALL;
    more_lora(0, biases, c);
}
static void bias_s(void) {
    LoraConfig c = lora_config(2, 4, "qkv_proj,down_proj");
    c.bias = LORA_BIAS_LORA_ONLY;
    more_lora(1, joined, c);
}
static void dora_s(void) {
    LoraConfig c = lora_config(2, 4, "qkv_proj,o_proj,head");
    c.dora = 1;
    c.bias = LORA_BIAS_ALL;
    more_lora(0, joined, c);
}
static void dropout_s(void) {
    policy_model(0, 0, 3, NULL, 0);
    lora_dropout_carve(&lora, 8, &memory);
    lora.dropout.p = 0.4;
    lora.dropout.seed = 5;
    lora.dropout.row = 3;
}

/* Soft prompts of two rows, alone (R 0) or beside pairs, with all weights trained, too. */
static void prompt_model(int tied, void (*change)(ModelConfig *), int recompute, int R, const char *targets) {
    LoraConfig c = lora_config(R, 4, targets);
    Error err = { 0 };
    policy_model(tied, 1, 0, change, recompute);
    memset(&lora, 0, sizeof lora);
    c.prompt.rows = 2;
    lora_carve(&lora, model.tensor, model.tensors, &c, 1, &pool, &memory, &err);
    tensor_leaves(lora.tensor, lora.tensors, 0.4);
    adapter = &lora;
    m_rows = &m_prompted;
    if (err.code || memory.failed) { printf("setup: %s %s\n", err.what, err.where); exit(1); }
}
static void prompt_s(void) { prompt_model(0, NULL, 0, 0, NULL); }
static void prompt_lora_s(void) { prompt_model(1, NULL, 1, 3, "q_proj,down_proj,word"); }
static void prompt_gpt2_s(void) { prompt_model(1, joined, 0, 0, NULL); }
static void prompt_gpt2_lora_s(void) { prompt_model(1, joined, 1, 2, "position,qkv_proj"); }

static float hidden[5 * 8];
static const float *loss_weight;
/* the logits of rows are cut to these sets, which have the targets, and entropies enter the loss */
static const unsigned char m_set[5][2] = { { 0x21, 0x06 }, { 0xff, 0xff }, { 0xaa, 0x01 }, { 0x0f, 0x10 },
                                           { 0x77, 0x77 } };
static const unsigned char *const m_kept[5] = { m_set[0], m_set[1], m_set[2], m_set[3], m_set[4] };
static void hook(void *context, int start, int n, const float *logprob, float *dlogprob) {
    (void)context; (void)logprob;
    for (int i = 0; i < n; i++) dlogprob[i] = loss_weight[start + i];
}
static void model_f(float *y) {
    model_forward(&model, adapter, m_rows, &cache, &saved, hidden, &ws);
    const HeadTask task = { .target = m_target, .temperature = 0.8, .logprob = y,
                            .entropy = y + 5, .kept = sets_too ? m_kept : NULL };
    model_logprobs(&model, adapter, hidden, 5, &task, &ws);
    for (int i = 0; !sets_too && i < 5; i++) y[5 + i] = 0;
    if (values_too) model_values(&head, hidden, y + 5, 5, &ws);
}
static void model_b(const float *dy) {
    float lp[5], dhidden[5 * 8] = {0};
    const HeadTask task = { .target = m_target, .temperature = 0.8, .logprob = lp, .loss = hook,
                            .dhidden = dhidden, .dentropy = sets_too ? dy + 5 : NULL,
                            .kept = sets_too ? m_kept : NULL };
    loss_weight = dy;
    model_forward(&model, adapter, m_rows, &cache, &saved, hidden, &ws);
    model_logprobs(&model, adapter, hidden, 5, &task, &ws);
    if (values_too) model_values_backward(&head, dy + 5, hidden, dhidden, 5, &ws);
    model_backward(&model, adapter, m_rows, &cache, &saved, dhidden, &ws);
}

/* A whole policy with an encoder, which reads texts of 3 and 2 tokens, each after a soft prompt. */
static Reading reading;
static const int e_token[9] = { -1, -2, 4, 11, 4, -1, -2, 9, 1 }, e_start[3] = { 0, 5, 9 };
static const Texts e_texts = { 9, 2, e_token, e_start };
static void seq2seq(ModelConfig *c) {
    StackKind *k = &c->stack;
    k->K = k->H;
    k->D = 3;
    k->scale = 1;
    k->buckets = 6;
    k->distance = 4;
    k->gated = k->rotary = 0;
    k->activation = ACT_GELU_TANH;
    c->encoder = *k;
    c->encoder.causal = 0;
    c->encoder_names = c->names;
    k->cross = 1;
    c->scaled = 1;
}
static void prompt_seq2seq(int recompute, int R) {
    prompt_model(1, seq2seq, recompute, R, "q_proj");
    m_rows = &m_texts;
    reading_carve(&reading, &model.config, 9, 2, 1, recompute, &memory);
    cache.reading = &reading;
}
static void prompt_seq2seq_s(void) { prompt_seq2seq(0, 0); }
static void prompt_seq2seq_lora_s(void) { prompt_seq2seq(1, 2); }
static void seq2seq_f(float *y) {
    model_encode(&model, adapter, &e_texts, &reading, &ws);
    model_f(y);
}
static void seq2seq_b(const float *dy) {
    model_encode(&model, adapter, &e_texts, &reading, &ws);
    model_b(dy);
}

static const int j_token[9] = { 0, 5, 7, 2, 0, 6, 6, 8, 2 }, j_start[3] = { 0, 4, 9 }, j_label[2] = { 1, 0 };
static const Texts j_texts = { 9, 2, j_token, j_start };
static int judge_rows = 2;                  /* that the head reads */
static void judge_model(int trainable, int R, int recompute, void (*change)(RewardConfig *)) {
    RewardConfig c;
    Error err = { 0 };
    memset(&c, 0, sizeof c);
    c.V = 10; c.stack.C = 8; c.stack.L = 2; c.stack.H = 2; c.stack.F = 12; c.positions = 12; c.types = 1;
    c.stack.eps = 1e-5;
    c.pad = 1; c.bos = 0; c.eos[0] = 2; c.eos_count = 1; c.labels = 2;
    roberta_kind(&c.stack);
    c.names = &names;
    if (change) change(&c);
    adapter = NULL;
    reward_carve(&judge, &c, NULL, trainable, &pool, &memory, &err);
    reward_saved_carve(&judge_saved, &c, 9, judge_rows, recompute, &memory);
    tensor_leaves(judge.tensor, judge.tensors, 0.4);
    if (R) {
        LoraConfig l = lora_config(R, 4, "q_proj,k_proj,v_proj,o_proj,up_proj,down_proj");
        l.save = lora_head(judge.tensor, judge.tensors, &pool);
        lora_carve(&lora, judge.tensor, judge.tensors, &l, 1, &pool, &memory, &err);
        tensor_leaves(lora.tensor, lora.tensors, 0.4);
        adapter = &lora;
    }
    if (err.code || memory.failed) { printf("setup: %s %s\n", err.what, err.where); exit(1); }
}
static void causal_judge(RewardConfig *c) { /* pad is 2: the head reads the token before it */
    StackKind k = { .C = 8, .H = 2, .K = 1, .D = 4, .F = 12, .L = 2, .eps = 1e-5, .rope = { .theta = 100 } };
    llama_kind(&k);
    c->stack = k;
    c->types = 0;
    c->from_zero = 1;
    c->pad = 2;
}
static void distilbert(RewardConfig *c) {
    c->head = HEAD_RELU;
    c->types = 0;
    c->from_zero = 1;
}
static void electra(RewardConfig *c) {
    c->head = HEAD_GELU;
    c->embedding = 6;
}
static void judge_s(void) { judge_model(1, 0, 0, NULL); }
static void judge_recompute_s(void) { judge_model(1, 0, 1, NULL); }
static void judge_lora_s(void) { judge_model(0, 3, 0, NULL); }
static void judge_lora_recompute_s(void) { judge_model(0, 3, 1, NULL); }
static void causal_judge_s(void) { judge_model(1, 0, 0, causal_judge); }
static void causal_judge_lora_s(void) { judge_model(0, 3, 1, causal_judge); }
static void distilbert_s(void) { judge_model(1, 0, 0, distilbert); }
static void electra_s(void) { judge_model(1, 0, 1, electra); }
/* A value model: its head reads 5 rows of the two texts. */
static const int v_rows[5] = { 0, 2, 3, 6, 7 };
static const Wanted v_want = { 5, v_rows };
static void value_model(RewardConfig *c) {
    causal_judge(c);
    c->labels = 1;
}
static void value_model_s(void) {
    judge_rows = 5;
    judge_model(1, 0, 0, value_model);
    judge_rows = 2;
}
static void value_model_recompute_s(void) {
    judge_rows = 5;
    judge_model(1, 0, 1, value_model);
    judge_rows = 2;
}
static void value_model_f(float *y) { reward_values(&judge, &j_texts, &v_want, &judge_saved, y, &ws); }
static void value_model_b(const float *dy) {
    float y[5];
    value_model_f(y);
    reward_values_backward(&judge, &j_texts, &v_want, &judge_saved, dy, &ws);
}
static void judge_f(float *y) {
    float z[4];
    reward_forward(&judge, adapter, &j_texts, &judge_saved, z, &ws);
    cross_entropy_forward(y, z, j_label, 2, 2);
    ranking_forward(y + 2, z, NULL, 2, 1);
}
static void judge_b(const float *dy) {
    float z[4], dz[4] = {0}, loss[2];
    reward_forward(&judge, adapter, &j_texts, &judge_saved, z, &ws);
    cross_entropy_forward(loss, z, j_label, 2, 2);
    cross_entropy_backward(dz, dy, loss, z, j_label, 2, 2);
    ranking_backward(dz, dy + 2, z, NULL, 2, 1);
    reward_backward(&judge, adapter, &j_texts, &judge_saved, dz, &ws);
}

/* ---- an encoder and a decoder (T5): texts of 3 and 2 rows, read by 4 and 3 rows; 5 are wanted ---- */
enum { EN = 5, DN = 7, DM = 5, TC = 8 };
static Stack encoder, decoder;
static Cache en_cache, de_cache;
static Saved en_saved, de_saved;
static Encoded encoded;
static float en_states[EN * TC], en_dstates[EN * TC];
static const int en_first[EN] = { 0, 0, 0, 3, 3 }, en_count[EN] = { 3, 3, 3, 2, 2 },
    en_self[EN] = { 0, 1, 2, 3, 4 };
static const int de_place[DN] = { 0, 1, 2, 3, 4, 5, 6 }, de_first[DN] = { 0, 0, 0, 0, 4, 4, 4 },
    de_count[DN] = { 1, 2, 3, 4, 1, 2, 3 };
static const int cross_first[DN] = { 0, 0, 0, 0, 3, 3, 3 }, cross_count[DN] = { 3, 3, 3, 3, 2, 2, 2 },
    de_want[DM] = { 1, 2, 3, 5, 6 };
static StackRows en_rows = { EN, EN, NULL, NULL, NULL, { en_first, en_count, en_self }, 3, NULL };
static StackRows de_rows = { DN, DM, de_want, NULL, de_place, { de_first, de_count, de_place }, 4, &encoded };

static void t5_model(int recompute, int R) {
    static const WeightTypes floats = { F32, F32, 0, 0, 0, 0, NULL };
    StackKind k;
    Error err = { 0 };
    Tensor *list = pool_take(&pool, 200, sizeof *list);
    TensorList t = { list, 0, !R, &memory };
    memset(&k, 0, sizeof k);
    k.C = TC; k.H = 4; k.K = 4; k.D = 3; k.F = 10; k.L = 2; k.eps = 1e-5; k.scale = 1; k.buckets = 6;
    k.distance = 4; k.activation = ACT_RELU;
    new_leaf("encoder input", EN * TC);
    new_leaf("decoder input", DN * TC);
    stack_carve(&encoder, &k, &names, &floats, 4, &t, &pool, &err);
    k.causal = k.cross = k.gated = 1;
    k.activation = ACT_GELU_TANH;
    cache_carve(&en_cache, &k, recompute ? 1 : k.L, 1, EN, &memory);
    cache_carve(&de_cache, &k, k.L, 1, DN, &memory);
    cache_carve(&encoded.kv, &k, k.L, 1, EN, &memory);
    stack_carve(&decoder, &k, &names, &floats, 4, &t, &pool, &err);
    saved_carve(&en_saved, &encoder.kind, EN, EN, recompute, &memory);
    saved_carve(&de_saved, &k, DN, DM, recompute, &memory);
    tensor_leaves(list, t.tensors, 0.4);
    adapter = NULL;
    if (R) {
        LoraConfig l = lora_config(R, 4, "q_proj,v_proj,q,v");
        for (int i = 0; i < t.tensors; i++)         /* cross-attention's names have no ".weight" yet */
            if (strstr(list[i].name, "cross.q") || strstr(list[i].name, "cross.v")) strcat(list[i].name,
                                                            ".weight");
        lora_carve(&lora, list, t.tensors, &l, 1, &pool, &memory, &err);
        tensor_leaves(lora.tensor, lora.tensors, 0.4);
        adapter = &lora;
    }
    encoded.N = EN;
    encoded.hidden = en_states;
    encoded.dhidden = en_dstates;
    encoded.keys.first = cross_first;
    encoded.keys.count = cross_count;
    if (err.code || memory.failed) { printf("setup: %s %s\n", err.what, err.where); exit(1); }
}
static void t5_s(void) { t5_model(0, 0); }
static void t5_recompute_s(void) { t5_model(1, 0); }
static void t5_lora_s(void) { t5_model(0, 2); }
static void t5_dropout_s(void) {
    t5_model(0, 2);
    lora_dropout_carve(&lora, DN, &memory);
    lora.dropout.p = 0.4;
    lora.dropout.seed = 5;
    lora.dropout.row = 3;
    lora.dropout.text_row = 40;
}
static void t5_f(float *y) {
    const Lora reader = lora_of_texts(adapter), *reads = adapter ? &reader : NULL;
    stack_forward(&encoder, reads, &en_rows, &en_cache, &en_saved, V(0), en_states, &ws);
    stack_encoded(&decoder, reads, &encoded, &ws);
    stack_forward(&decoder, adapter, &de_rows, &de_cache, &de_saved, V(1), y, &ws);
}
static void t5_b(const float *dy) {
    float y[DM * TC], dx[DN * TC];
    t5_f(y);
    memset(en_dstates, 0, sizeof en_dstates);
    stack_backward(&decoder, adapter, &de_rows, &de_cache, &de_saved, dy, dx, &ws);
    for (int i = 0; i < DN * TC; i++) G(1)[i] += dx[i];
    const Lora reader = lora_of_texts(adapter), *reads = adapter ? &reader : NULL;
    stack_backward(&encoder, reads, &en_rows, &en_cache, &en_saved, en_dstates, dx, &ws);
    for (int i = 0; i < EN * TC; i++) G(0)[i] += dx[i];
}

static const Row row[] = {
    { "linear", linear_s, linear_f, linear_b, N * O },
        { "linear_add", linear_add_s, linear_add_f, linear_add_b, N * O },
    { "embedding", embedding_s, embedding_f, embedding_b, N * I }, { "rmsnorm", norm_s, rms_f, rms_b, N * O },
    { "layernorm", ln_s, ln_f, ln_b, N * O }, { "rope", rope_s, rope_f, rope_b, N * H * D },
    { "attention, causal, grouped", causal_s, att_f, att_b, N * H * D },
        { "attention, bidirectional", bidirectional_s, att_f, att_b, N * H * D },
    { "attention, sliding window", window_s, att_f, att_b, N * H * D },
        { "attention, another text's keys", cross_s, att_f, att_b, N * H * D },
    { "attention, bias, causal", bias_causal_s, att_f, att_b, N * H * D },
    { "attention, bias, bidirectional", bias_bidirectional_s, att_f, att_b, N * H * D },
    { "attention, bias, sliding window", bias_window_s, att_f, att_b, N * H * D },
    { "silu", one_s, silu_f, silu_b, O }, { "gelu", one_s, gelu_f, gelu_b, O },
        { "gelu_tanh", one_s, gelu_tanh_f, gelu_tanh_b, O },
    { "relu", one_s, relu_f, relu_b, O }, { "silu, gated", gated_s, silu_gated_f, silu_gated_b, O },
    { "gelu, gated", gated_s, gelu_gated_f, gelu_gated_b, O },
        { "gelu_tanh, gated", gated_s, gelu_tanh_gated_f, gelu_tanh_gated_b, O },
    { "relu, gated", gated_s, relu_gated_f, relu_gated_b, O }, { "tanh", one_s, tanh_f, tanh_b, O },
    { "logprob at temperature 0.7", logits_s, logprob_f, logprob_b, N },
        { "entropy at temperature 0.7", logits_s, entropy_f, entropy_b, N },
        { "cross entropy", logits_s, ce_f, ce_b, N },
    { "ranking", rank_s, rank_f, rank_b, 3 },
    { "ranking by probabilities", rank_s, rank_soft_f, rank_soft_b, 3 },
    { "policy loss", policy_s, policy_f, policy_b, P },
        { "policy loss, clip-higher", higher_s, policy_f, policy_b, P },
        { "policy loss, dual clip", dual_s, policy_f, policy_b, P },
        { "policy loss, a mean over sequences", weighted_s, policy_f, policy_b, P },
        { "policy loss and kl", kl_s, policy_f, policy_b, P },
        { "policy loss and abs", abs_s, policy_f, policy_b, P },
        { "policy loss and mse", mse_s, policy_f, policy_b, P },
        { "policy loss and k3", k3_s, policy_f, policy_b, P },
        { "value loss", value_s, value_f, value_b, P },
    { "llama, all weights", llama_s, model_f, model_b, 10 }, { "llama, tied", tied_s, model_f, model_b, 10 },
    { "llama, cut logits, entropies in the loss", sets_s, model_f, model_b, 10 },
    { "llama, LoRA and value head", lora_s, model_f, model_b, 10 },
        { "llama, LoRA and a value head of two layers", two_layers_s, model_f, model_b, 10 },
        { "llama, LoRA with dropout", dropout_s, model_f, model_b, 10 },
    { "LoRA of embeddings and a tied head", embedding_lora_s, model_f, model_b, 10 },
    { "LoRA, norms, a linear and a head saved, all biases", saved_s, model_f, model_b, 10 },
    { "LoRA and the biases of its linears", bias_s, model_f, model_b, 10 },
    { "DoRA, joined, with all biases", dora_s, model_f, model_b, 10 },
    { "llama, computed again, LoRA too", recompute_s, model_f, model_b, 10 },
    { "gpt-2: LayerNorm, biases, learned positions", gpt2_s, model_f, model_b, 10 },
    { "gpt-2, q, k and v joined", joined_s, model_f, model_b, 10 },
    { "gpt-2, joined, LoRA, computed again", joined_lora_s, model_f, model_b, 10 },
    { "layers with and without RoPE and window, YaRN", smollm3_s, model_f, model_b, 10 },
    { "qwen: biases, norms of q and k, a window", qwen_s, model_f, model_b, 10 },
    { "qwen, computed again, LoRA", qwen_recompute_s, model_f, model_b, 10 },
    { "all biases, linear RoPE, a scale", biases_s, model_f, model_b, 10 },
    { "ReLU, not gated, buckets", relu_s, model_f, model_b, 10 },
    { "a soft prompt", prompt_s, model_f, model_b, 10 },
    { "a soft prompt and LoRA, tied, computed again", prompt_lora_s, model_f, model_b, 10 },
    { "a soft prompt, gpt-2", prompt_gpt2_s, model_f, model_b, 10 },
    { "a soft prompt, gpt-2, LoRA, computed again", prompt_gpt2_lora_s, model_f, model_b, 10 },
    { "t5, a soft prompt", prompt_seq2seq_s, seq2seq_f, seq2seq_b, 10 },
    { "t5, a soft prompt and LoRA, computed again", prompt_seq2seq_lora_s, seq2seq_f, seq2seq_b, 10 },
    { "roberta, all weights", judge_s, judge_f, judge_b, 3 },
        { "roberta, computed again", judge_recompute_s, judge_f, judge_b, 3 },
    { "roberta, LoRA and classifier", judge_lora_s, judge_f, judge_b, 3 },
    { "roberta, LoRA, computed again", judge_lora_recompute_s, judge_f, judge_b, 3 },
    { "distilbert", distilbert_s, judge_f, judge_b, 3 },
    { "electra, computed again", electra_s, judge_f, judge_b, 3 },
    { "a causal judge", causal_judge_s, judge_f, judge_b, 3 },
    { "a causal judge, LoRA, computed again", causal_judge_lora_s, judge_f, judge_b, 3 },
    { "a value model", value_model_s, value_model_f, value_model_b, 5 },
        { "a value model, computed again", value_model_recompute_s, value_model_f, value_model_b, 5 },
    { "t5: encoder and decoder", t5_s, t5_f, t5_b, DM * TC },
        { "t5, computed again", t5_recompute_s, t5_f, t5_b, DM * TC },
    { "t5, LoRA", t5_lora_s, t5_f, t5_b, DM * TC },
        { "t5, dropout of LoRA", t5_dropout_s, t5_f, t5_b, DM * TC },
};

static double loss(const Row *r, const float *weight) {
    static float out[OUT_MAX];
    double sum = 0;
    r->forward(out);
    for (int i = 0; i < r->out; i++) sum += (double)out[i] * (double)weight[i];
    return sum;
}

/* Worst relative error of one leaf over up to 40 of its entries. */
static double leaf_error(const Row *r, const Leaf *l, const float *weight, double flip, double *largest) {
    double worst = 0, h = 5e-4;
    size_t stride = l->n / 40 + 1;
    *largest = 0;
    for (size_t i = 0; i < l->n; i += stride) {
        float keep = l->value[i];
        double f[7];
        for (int k = -3; k <= 3; k++) { l->value[i] = keep + k * h; f[k + 3] = loss(r, weight); }
        l->value[i] = keep;
        double numeric = (45 * (f[4] - f[2]) - 9 * (f[5] - f[1]) + (f[6] - f[0])) / (60 * h),
            analytic = flip * ((double)l->grad[i] - 1);
        double error = fabs(numeric - analytic) / (1e-3 + fabs(numeric) + fabs(analytic));
        if (error > worst || error != error) worst = error;
        if (fabs(analytic) > *largest) *largest = fabs(analytic);
    }
    return worst;
}

int main(int argc, char **argv) {
    double flip = argc > 1 && !strcmp(argv[1], "flip") ? -1 : 1, tolerance = 1e-8;
    int good = 0, bad = 0, rows = (int)(sizeof row / sizeof *row);
    static float weight[OUT_MAX];
    if (sizeof(float) != sizeof(double)) { printf("grad: build me with -DF64\n"); return 1; }
    memory = test_arena((size_t)64 << 20);
    ws = test_arena((size_t)16 << 20);
    pool = test_pool();
    for (int k = 0; k < rows; k++) {
        const Row *r = &row[k];
        double worst = 0, least = 1e9;
        const char *where = "";
        leaves = 0;
        memory.used = 0;
        /* Another row changes no row's numbers. With seed 9 no ReLU is within the step of its kink. */
        rng = rng_stream(9, hash_bytes(r->name, strlen(r->name), 3), 0);
        r->setup();
        for (int i = 0; i < r->out; i++) weight[i] = rng_normal(&rng);
        for (int l = 0; l < leaves; l++) for (size_t i = 0; i < leaf[l].n; i++) leaf[l].grad[i] = 1;
        r->backward(weight);
        for (int l = 0; l < leaves; l++) {
            double largest, e = leaf_error(r, &leaf[l], weight, flip, &largest);
            if (!(e <= worst)) { worst = e; where = leaf[l].name; }
            /* the bias of the keys has no effect on a softmax */
            if (largest < least && !strstr(leaf[l].name, "k_proj.bias")
                && !strstr(leaf[l].name, "cross.key.bias")) least = largest;
        }
        int ok = worst < tolerance && least > 1e-4 && leaves > 0 && !ws.failed;
        ok ? good++ : bad++;
        if (!ok && flip > 0) printf("  FAIL  %s: relative error %.2g at %s, smallest leaf %.2g\n", r->name,
                                    worst, where, least);
        else if (getenv("VERBOSE")) printf("  %-4s  %-28s %3d leaves, worst %.2g at %s\n", ok ? "ok" : "bad",
                                           r->name, leaves, worst, where);
        if (flip < 0 && ok) printf("  FAIL  %s passes with its gradient negated: the row proves nothing\n",
                                   r->name);
    }
    pool_free(&pool);
    if (flip < 0) { printf("grad flip: %d passed, %d failed, 0 skipped\n", bad, good); return good != 0; }
    printf("grad: %d passed, %d failed, 0 skipped\n", good, bad);
    return bad != 0;
}
