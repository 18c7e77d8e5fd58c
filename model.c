/* model.c - the policy: a Llama (Touvron et al. 2023; Hugging Face's LlamaForCausalLM), forward and backward, its value head,
 * and sampling.
 *
 * One forward. Sampling and training run the same lines. Work comes in rows: one token of one sequence at one position; rows of
 * several sequences of different lengths stand one after another, without padding. Keys and values go into the cache of their
 * sequence, and attention reads them there. Sampling adds one row per living sequence, a prompt many, training all rows of a
 * mini-batch and a place to save activations; nothing else differs. Since every operation gives a row the same bits whatever
 * stands around it (ops.c), the log-prob of a sampled token is, bit for bit, the one that training computes.
 *
 * Needs    core.c, ops.c, lora.c. No heap, no stdio.
 * Memory   weights, cache and saved activations from the caller's arena; scratch from ws, measured by the same calls with
 *          ws->base == NULL (rows->N and the cache's shape must be those of the largest batch; nothing else is read).
 * Edges    tokens, sequences and positions out of range are E_RANGE; a text longer than the cache is E_RANGE. */
#include "rlhf.h"

/* ================================================================================================================
 * Shapes, lists, tables
 * ================================================================================================================ */
/* inv_freq_j = theta^(-2j/D), then scaled as config.json's rope_scaling asks (formats: linear divides all; llama3 divides the slow
 * ones, keeps the fast ones, and blends between). */
static double inverse_frequency(const ModelConfig *c, int j) {
    double inv = (double)(f32)pow(c->stack.rope.theta, -2.0 * j / c->stack.D);
    if (c->stack.rope.type == ROPE_LINEAR) return inv / c->stack.rope.factor;
    if (c->stack.rope.type != ROPE_LLAMA3) return inv;
    double wavelength = 2 * 3.14159265358979323846 / inv, turns = c->stack.rope.original / wavelength;
    if (turns > c->stack.rope.high) return inv;
    if (turns < c->stack.rope.low) return inv / c->stack.rope.factor;
    double blend = (turns - c->stack.rope.low) / (c->stack.rope.high - c->stack.rope.low);
    return (1 - blend) * inv / c->stack.rope.factor + blend * inv;
}

static void rope_tables(Model *m) {
    int half = m->config.stack.D / 2;
    for (int j = 0; j < half; j++) {
        f32 inv = (f32)inverse_frequency(&m->config, j);
        for (int p = 0; p < m->positions; p++) {
            f32 angle = (f32)p * inv;                           /* the reference multiplies in float32 */
            m->rope_cos[(size_t)p * (size_t)half + (size_t)j] = (float)cos((double)angle);
            m->rope_sin[(size_t)p * (size_t)half + (size_t)j] = (float)sin((double)angle);
        }
    }
}

/* A linear of layer l, stored as t says. */
static void carve_linear(TensorList *list, const char *name, int l, Matrix *w, const WeightTypes *t, int O, int I) {
    int residual = strstr(name, "o_proj") || strstr(name, "down_proj") ? TENSOR_RESIDUAL : 0;
    tensor_carve(list, w, name, l, t->layers, O, I, TENSOR_LINEAR | residual);
    w->compute = w->output = t->compute;
    if (t->layers == NF4) tensor_carve_quant(w, t->kind, t->block, t->doubled, list->arena);
}

int model_carve(Model *m, const ModelConfig *c, const WeightTypes *types, int trainable, int positions, Pool *lists, Arena *a, Error *err) {
    static const WeightTypes floats = { F32, F32, 0, 0, 0, 0 };
    const WeightTypes *w = types ? types : &floats;
    int wide = c->stack.H * c->stack.D, narrow = c->stack.K * c->stack.D;
    memset(m, 0, sizeof *m);
    m->config = *c;
    m->positions = positions;
    m->compute = w->compute;
    m->block = pool_take(lists, (size_t)c->stack.L, sizeof *m->block);
    m->tensor = pool_take(lists, 3 + 9 * (size_t)c->stack.L, sizeof *m->tensor);
    TensorList t = { m->tensor, 0, trainable, a };
    if (!m->tensor || !m->block) return fail(err, E_MEMORY, "no memory for the list of tensors", "", 0, 0);
    if (trainable && (w->layers != F32 || w->tables != F32)) return fail(err, E_UNSUPPORTED, "weights that are trained have to be F32", "", 0, 0);
    tensor_carve(&t, &m->embedding, "model.embed_tokens.weight", 0, w->tables, c->V, c->stack.C, TENSOR_EMBEDDING);
    for (int l = 0; l < c->stack.L; l++) {
        Block *b = &m->block[l];
        tensor_carve(&t, &b->attn_norm, "model.layers.%d.input_layernorm.weight", l, F32, 1, c->stack.C, TENSOR_NORM);
        carve_linear(&t, "model.layers.%d.self_attn.q_proj.weight", l, &b->q, w, wide, c->stack.C);
        carve_linear(&t, "model.layers.%d.self_attn.k_proj.weight", l, &b->k, w, narrow, c->stack.C);
        carve_linear(&t, "model.layers.%d.self_attn.v_proj.weight", l, &b->v, w, narrow, c->stack.C);
        carve_linear(&t, "model.layers.%d.self_attn.o_proj.weight", l, &b->o, w, c->stack.C, wide);
        tensor_carve(&t, &b->mlp_norm, "model.layers.%d.post_attention_layernorm.weight", l, F32, 1, c->stack.C, TENSOR_NORM);
        carve_linear(&t, "model.layers.%d.mlp.gate_proj.weight", l, &b->gate, w, c->stack.F, c->stack.C);
        carve_linear(&t, "model.layers.%d.mlp.up_proj.weight", l, &b->up, w, c->stack.F, c->stack.C);
        carve_linear(&t, "model.layers.%d.mlp.down_proj.weight", l, &b->down, w, c->stack.C, c->stack.F);
    }
    tensor_carve(&t, &m->norm, "model.norm.weight", 0, F32, 1, c->stack.C, TENSOR_NORM);
    if (c->tied) {                                              /* one matrix, two uses: gradients of both add up in it */
        Arena nothing = { NULL, 0, 0, 0, 0 };
        t.trainable = 0;
        t.arena = &nothing;
        tensor_carve(&t, &m->head, "lm_head.weight", 0, w->tables, c->V, c->stack.C, TENSOR_HEAD | TENSOR_TIED);
        m->head.data = m->embedding.data;
        m->head.grad = m->embedding.grad;
    } else tensor_carve(&t, &m->head, "lm_head.weight", 0, w->tables, c->V, c->stack.C, TENSOR_HEAD);
    m->head.compute = w->compute;                               /* not its output: a 16-bit logit of 10 would be off by up to 1/32 */
    m->tensors = t.tensors;
    m->rope_cos = arena_take(a, (size_t)positions * (size_t)(c->stack.D / 2), sizeof *m->rope_cos);
    m->rope_sin = arena_take(a, (size_t)positions * (size_t)(c->stack.D / 2), sizeof *m->rope_sin);
    if (a->failed) return fail(err, E_MEMORY, "no memory for the model", "", 0, 0);
    if (m->rope_sin) rope_tables(m);
    return OK;
}

/* Normal with deviation 0.02; what writes to the residual stream is smaller by sqrt(2L), so that its sum keeps its size (GPT-2). */
void model_init(Model *m, uint64_t seed) {
    double residual = 0.02 / sqrt(2.0 * m->config.stack.L);
    for (int i = 0; i < m->tensors; i++) {
        const Tensor *t = &m->tensor[i];
        if (t->flags & TENSOR_TIED) continue;
        if (t->flags & TENSOR_VECTOR) tensor_fill(t->matrix, 1);
        else tensor_normal(t->matrix, t->flags & TENSOR_RESIDUAL ? residual : 0.02, seed);
    }
}

void model_copy(Model *to, const Model *from) {
    for (int i = 0; i < to->tensors; i++) {
        const Matrix *w = to->tensor[i].matrix;
        if (!(to->tensor[i].flags & TENSOR_TIED))
            memcpy(w->data, from->tensor[i].matrix->data, tensor_bytes(w));
    }
}

void value_head_carve(ValueHead *h, int C, int trainable, Arena *a) {
    TensorList list = { h->tensor, 0, trainable, a };
    tensor_carve(&list, &h->weight, "v_head.summary.weight", 0, F32, 1, C, TENSOR_HEAD);
    tensor_carve(&list, &h->bias, "v_head.summary.bias", 0, F32, 1, 1, TENSOR_BIAS);
}

void value_head_init(ValueHead *h, uint64_t seed, int zero) {
    Rng r = rng_stream(seed, 0, 2);
    float *w = h->weight.data, *b = h->bias.data, bound = zero ? 0 : 1 / sqrtf((float)h->weight.I);
    for (int c = 0; c < h->weight.I; c++) w[c] = bound * (float)(2 * rng_unit(&r) - 1);
    b[0] = bound * (float)(2 * rng_unit(&r) - 1);
}

void cache_carve(Cache *c, const ModelConfig *m, int B, int T, Arena *a) {
    size_t n = (size_t)m->stack.L * (size_t)B * (size_t)T * (size_t)(m->stack.K * m->stack.D);
    c->L = m->stack.L;
    c->B = B;
    c->T = T;
    c->width = m->stack.K * m->stack.D;
    c->k = arena_take(a, n, sizeof *c->k);
    c->v = arena_take(a, n, sizeof *c->v);
}

void saved_carve(Saved *s, const ModelConfig *m, int N, int recompute, Arena *a) {
    size_t rows = (recompute ? 1 : (size_t)m->stack.L) * (size_t)N;
    s->N = N;
    s->recompute = recompute;
    s->x = arena_take(a, (size_t)m->stack.L * (size_t)N * (size_t)m->stack.C, sizeof(float));
    s->q = arena_take(a, rows * (size_t)(m->stack.H * m->stack.D), sizeof(float));
    s->att = arena_take(a, rows * (size_t)(m->stack.H * m->stack.D), sizeof(float));
    s->mid = arena_take(a, rows * (size_t)m->stack.C, sizeof(float));
    s->gate = arena_take(a, rows * (size_t)m->stack.F, sizeof(float));
    s->up = arena_take(a, rows * (size_t)m->stack.F, sizeof(float));
    s->last = arena_take(a, (size_t)N * (size_t)m->stack.C, sizeof(float));
}

static Heads heads_of(const ModelConfig *c) {
    Heads heads = { 0, 0, 0, 0, NULL, NULL, NULL, 0 };
    heads.H = c->stack.H;
    heads.K = c->stack.K;
    heads.D = c->stack.D;
    heads.scale = 1 / sqrtf((float)c->stack.D);
    return heads;
}

/* Scratch of the largest product of the trunk and of its attention over T keys, whichever way they run. */
static void measure_layer(const Model *m, const Lora *adapter, int N, int T, Arena *ws) {
    const ModelConfig *c = &m->config;
    const Heads heads = heads_of(c);
    size_t mark = ws->used;
    if (adapter) {
        arena_take(ws, 2 * (size_t)N * (size_t)adapter->config.R + 32, sizeof(float));
        linear_measure(ws, N, c->stack.F > c->stack.C ? c->stack.F : c->stack.C, adapter->config.R, F32);
        linear_measure(ws, N, c->stack.H * c->stack.D, adapter->config.R, F32);
    }
    linear_measure(ws, N, c->stack.C, c->stack.F, m->compute);
    linear_measure(ws, N, c->stack.C, c->stack.H * c->stack.D, m->compute);
    attention_measure(ws, T, &heads);
    ws->used = mark;
}

/* ================================================================================================================
 * Forward
 * ================================================================================================================ */
/* What one layer works on; in training the first six are the saved ones. */
typedef struct { float *x, *q, *att, *mid, *gate, *up, *norm, *k, *v, *act; const int *first, *count; } Layer;

static Layer layer_of(Layer scratch, const Saved *s, const ModelConfig *c, int l) {
    if (!s) return scratch;
    size_t row = s->recompute ? 0 : (size_t)l * (size_t)s->N;
    scratch.x = s->x + (size_t)l * (size_t)s->N * (size_t)c->stack.C;
    scratch.q = s->q + row * (size_t)(c->stack.H * c->stack.D);
    scratch.att = s->att + row * (size_t)(c->stack.H * c->stack.D);
    scratch.mid = s->mid + row * (size_t)c->stack.C;
    scratch.gate = s->gate + row * (size_t)c->stack.F;
    scratch.up = s->up + row * (size_t)c->stack.F;
    return scratch;
}

static int check_rows(const Model *m, const Rows *rows, const Cache *kv) {
    for (int n = 0; n < rows->N; n++)
        if (rows->token[n] < 0 || rows->token[n] >= m->config.V || rows->sequence[n] < 0 || rows->sequence[n] >= kv->B ||
            rows->position[n] < 0 || rows->position[n] >= kv->T || rows->position[n] >= m->positions) return E_RANGE;
    return OK;
}

/* y = x W^T, with the adapter's part */
static void adapted(float *y, const float *x, const Matrix *w, const Lora *adapter, int N, Arena *ws) {
    linear_forward(y, x, w, NULL, N, ws);
    lora_forward(y, x, adapter, w, N, ws);
}

/* Rows of k and v to their places in layer l of the cache. */
static void cache_store(const Cache *kv, const float *k, const float *v, const Rows *rows, int l) {
    size_t width = (size_t)kv->width;
    for (int n = 0; n < rows->N; n++) {
        size_t at = (((size_t)l * (size_t)kv->B + (size_t)rows->sequence[n]) * (size_t)kv->T + (size_t)rows->position[n]) * width;
        memcpy(kv->k + at, k + (size_t)n * width, width * sizeof *k);
        memcpy(kv->v + at, v + (size_t)n * width, width * sizeof *v);
    }
}

static void copy(float *y, const float *x, size_t n) { IN_PARTS((double)n * 4, n, memcpy(y + from, x + from, (to - from) * sizeof *y)); }

/* mid = x + attention(norm(x)) for all rows */
static void attention_block(Layer b, const Model *m, int l, const Lora *adapter, const Rows *rows, const Cache *kv, Arena *ws) {
    const ModelConfig *c = &m->config;
    const Block *w = &m->block[l];
    int N = rows->N;
    size_t layer = (size_t)l * (size_t)kv->B * (size_t)kv->T * (size_t)kv->width;
    rmsnorm_forward(b.norm, b.x, w->attn_norm.data, c->stack.eps, N, c->stack.C);
    adapted(b.q, b.norm, &w->q, adapter, N, ws);
    adapted(b.k, b.norm, &w->k, adapter, N, ws);
    adapted(b.v, b.norm, &w->v, adapter, N, ws);
    rope_rotate(b.q, rows->position, m->rope_cos, m->rope_sin, 0, N, c->stack.H, c->stack.D);
    rope_rotate(b.k, rows->position, m->rope_cos, m->rope_sin, 0, N, c->stack.K, c->stack.D);
    cache_store(kv, b.k, b.v, rows, l);
    const Heads heads = heads_of(c);
    const Keys keys = { b.first, b.count, NULL };
    const Qkv in = { b.q, kv->k + layer, kv->v + layer };
    attention_forward(b.att, &in, &keys, N, &heads, ws);
    copy(b.mid, b.x, (size_t)N * (size_t)c->stack.C);
    linear_add(b.mid, b.att, &w->o, NULL, N, ws);
    lora_forward(b.mid, b.att, adapter, &w->o, N, ws);
}

/* gate and up of norm(mid): with mid, what the backward pass of the MLP starts from */
static void gate_and_up(Layer b, const Model *m, int l, const Lora *adapter, int N, Arena *ws) {
    const Block *w = &m->block[l];
    rmsnorm_forward(b.norm, b.mid, w->mlp_norm.data, m->config.stack.eps, N, m->config.stack.C);
    adapted(b.gate, b.norm, &w->gate, adapter, N, ws);
    adapted(b.up, b.norm, &w->up, adapter, N, ws);
}

/* y = mid + down(swiglu(gate, up)); y (N,C) may be b.x of the next layer */
static void layer_forward(float *y, Layer b, const Model *m, int l, const Lora *adapter, const Rows *rows, Cache *kv, Arena *ws) {
    const ModelConfig *c = &m->config;
    const Block *w = &m->block[l];
    int N = rows->N;
    attention_block(b, m, l, adapter, rows, kv, ws);
    gate_and_up(b, m, l, adapter, N, ws);
    gated_forward(b.act, b.gate, b.up, ACT_SILU, (size_t)N * (size_t)c->stack.F);
    copy(y, b.mid, (size_t)N * (size_t)c->stack.C);
    linear_add(y, b.act, &w->down, NULL, N, ws);
    lora_forward(y, b.act, adapter, &w->down, N, ws);
}

/* The keys that each row looks at: its own sequence's slots 0..position. */
static void key_ranges(int *first, int *count, const Rows *rows, const Cache *kv) {
    for (int n = 0; n < rows->N; n++) {
        first[n] = rows->sequence[n] * kv->T;
        count[n] = rows->position[n] + 1;
    }
}

int model_forward(const Model *m, const Lora *adapter, const Rows *rows, Cache *kv, Saved *saved, float *hidden, Arena *ws) {
    const ModelConfig *c = &m->config;
    size_t mark = ws->used, N = (size_t)rows->N, C = (size_t)c->stack.C;
    int *first = arena_take(ws, N, sizeof *first), *count = arena_take(ws, N, sizeof *count);
    Layer b;
    b.first = first;
    b.count = count;
    b.x = arena_take(ws, N * C, sizeof(float));
    b.q = arena_take(ws, N * (size_t)(c->stack.H * c->stack.D), sizeof(float));
    b.att = arena_take(ws, N * (size_t)(c->stack.H * c->stack.D), sizeof(float));
    b.mid = arena_take(ws, N * C, sizeof(float));
    b.gate = arena_take(ws, N * (size_t)c->stack.F, sizeof(float));
    b.up = arena_take(ws, N * (size_t)c->stack.F, sizeof(float));
    b.norm = arena_take(ws, N * C, sizeof(float));
    b.k = arena_take(ws, N * (size_t)kv->width, sizeof(float));
    b.v = arena_take(ws, N * (size_t)kv->width, sizeof(float));
    b.act = arena_take(ws, N * (size_t)c->stack.F, sizeof(float));
    measure_layer(m, adapter, rows->N, kv->T, ws);
    if (!ws->base || ws->failed) { ws->used = mark; return ws->failed ? E_MEMORY : OK; }
    int code = saved && saved->N < rows->N ? E_RANGE : check_rows(m, rows, kv);
    if (code) { ws->used = mark; return code; }

    key_ranges(first, count, rows, kv);
    embedding_forward(layer_of(b, saved, c, 0).x, rows->token, &m->embedding, rows->N);
    for (int l = 0; l < c->stack.L; l++) {
        float *next = l + 1 < c->stack.L ? layer_of(b, saved, c, l + 1).x : saved ? saved->last : b.x;
        layer_forward(next, layer_of(b, saved, c, l), m, l, adapter, rows, kv, ws);
    }
    rmsnorm_forward(hidden, saved ? saved->last : b.x, m->norm.data, c->stack.eps, rows->N, c->stack.C);
    ws->used = mark;
    return ws->failed ? E_MEMORY : OK;
}

/* ================================================================================================================
 * Backward: the forward's lines in reverse, each adding to what flows back
 * ================================================================================================================ */
typedef struct { float *dx, *dnorm, *dq, *dk, *dv, *datt, *dgate, *dup, *dact, *dcache_k, *dcache_v; } Flow;

static void adapted_backward(float *dx, const float *dy, const float *x, const Matrix *w, const Lora *adapter, int N, Arena *ws) {
    linear_backward(dx, NULL, dy, x, w, N, ws);
    lora_backward(dx, dy, x, adapter, w, N, ws);
}

static void zero(float *x, size_t n) { IN_PARTS((double)n * 4, n, memset(x + from, 0, (to - from) * sizeof *x)); }

/* Gradients of the cache slots of each row, one layer's part (B,T,width), to rows. */
static void cache_fetch(float *dk, float *dv, const Flow *f, const Rows *rows, const Cache *kv) {
    size_t width = (size_t)kv->width;
    for (int n = 0; n < rows->N; n++) {
        size_t at = ((size_t)rows->sequence[n] * (size_t)kv->T + (size_t)rows->position[n]) * width;
        memcpy(dk + (size_t)n * width, f->dcache_k + at, width * sizeof *dk);
        memcpy(dv + (size_t)n * width, f->dcache_v + at, width * sizeof *dv);
    }
}

/* y = mid + down(swiglu(gate(norm(mid)), up(norm(mid)))): f.dx comes as dy and leaves as dmid */
static void mlp_backward(Flow f, Layer b, const Model *m, int l, const Lora *adapter, int N, Arena *ws) {
    const ModelConfig *c = &m->config;
    const Block *w = &m->block[l];
    size_t NC = (size_t)N * (size_t)c->stack.C, NF = (size_t)N * (size_t)c->stack.F;
    gated_forward(b.act, b.gate, b.up, ACT_SILU, NF);
    zero(f.dact, NF);
    adapted_backward(f.dact, f.dx, b.act, &w->down, adapter, N, ws);
    zero(f.dgate, NF);
    zero(f.dup, NF);
    gated_backward(f.dgate, f.dup, f.dact, b.gate, b.up, ACT_SILU, NF);
    rmsnorm_forward(b.norm, b.mid, w->mlp_norm.data, c->stack.eps, N, c->stack.C);
    zero(f.dnorm, NC);
    adapted_backward(f.dnorm, f.dgate, b.norm, &w->gate, adapter, N, ws);
    adapted_backward(f.dnorm, f.dup, b.norm, &w->up, adapter, N, ws);
    rmsnorm_backward(f.dx, w->mlp_norm.grad, f.dnorm, b.mid, w->mlp_norm.data, c->stack.eps, N, c->stack.C);
}

/* mid = x + o(attention(q, k, v of norm(x))): f.dx comes as dmid and leaves as dx */
static void attention_block_backward(Flow f, Layer b, const Model *m, int l, const Lora *adapter, const Rows *rows, const Cache *kv, Arena *ws) {
    const ModelConfig *c = &m->config;
    const Block *w = &m->block[l];
    int N = rows->N;
    size_t NC = (size_t)N * (size_t)c->stack.C, NQ = (size_t)N * (size_t)(c->stack.H * c->stack.D), slots = (size_t)kv->B * (size_t)kv->T * (size_t)kv->width;
    size_t layer = (size_t)l * slots;
    zero(f.datt, NQ);
    adapted_backward(f.datt, f.dx, b.att, &w->o, adapter, N, ws);
    zero(f.dq, NQ);
    zero(f.dcache_k, slots);
    zero(f.dcache_v, slots);
    const Heads heads = heads_of(c);
    const Keys keys = { b.first, b.count, NULL };
    const Qkv in = { b.q, kv->k + layer, kv->v + layer }, d = { f.dq, f.dcache_k, f.dcache_v };
    attention_backward(&d, f.datt, b.att, &in, &keys, N, &heads, ws);
    cache_fetch(f.dk, f.dv, &f, rows, kv);
    rope_rotate(f.dq, rows->position, m->rope_cos, m->rope_sin, 1, N, c->stack.H, c->stack.D);
    rope_rotate(f.dk, rows->position, m->rope_cos, m->rope_sin, 1, N, c->stack.K, c->stack.D);
    rmsnorm_forward(b.norm, b.x, w->attn_norm.data, c->stack.eps, N, c->stack.C);
    zero(f.dnorm, NC);
    adapted_backward(f.dnorm, f.dq, b.norm, &w->q, adapter, N, ws);
    adapted_backward(f.dnorm, f.dk, b.norm, &w->k, adapter, N, ws);
    adapted_backward(f.dnorm, f.dv, b.norm, &w->v, adapter, N, ws);
    rmsnorm_backward(f.dx, w->attn_norm.grad, f.dnorm, b.x, w->attn_norm.data, c->stack.eps, N, c->stack.C);
}

int model_backward(const Model *m, const Lora *adapter, const Rows *rows, const Cache *kv, const Saved *saved, const float *dhidden, Arena *ws) {
    const ModelConfig *c = &m->config;
    size_t mark = ws->used, N = (size_t)rows->N, C = (size_t)c->stack.C, NQ = N * (size_t)(c->stack.H * c->stack.D), NK = N * (size_t)kv->width;
    size_t NF = N * (size_t)c->stack.F, slots = (size_t)kv->B * (size_t)kv->T * (size_t)kv->width;
    int *first = arena_take(ws, N, sizeof *first), *count = arena_take(ws, N, sizeof *count);
    Layer b = { NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL };
    Flow f;
    b.first = first;
    b.count = count;
    b.norm = arena_take(ws, N * C, sizeof(float));
    b.act = arena_take(ws, NF, sizeof(float));
    f.dx = arena_take(ws, N * C, sizeof(float));
    f.dnorm = arena_take(ws, N * C, sizeof(float));
    f.dq = arena_take(ws, NQ, sizeof(float));
    f.datt = arena_take(ws, NQ, sizeof(float));
    f.dk = arena_take(ws, NK, sizeof(float));
    f.dv = arena_take(ws, NK, sizeof(float));
    b.k = f.dk;                                                 /* recomputing needs them before the gradients do */
    b.v = f.dv;
    f.dgate = arena_take(ws, NF, sizeof(float));
    f.dup = arena_take(ws, NF, sizeof(float));
    f.dact = arena_take(ws, NF, sizeof(float));
    f.dcache_k = arena_take(ws, slots, sizeof(float));
    f.dcache_v = arena_take(ws, slots, sizeof(float));
    measure_layer(m, adapter, rows->N, kv->T, ws);
    if (!ws->base || ws->failed) { ws->used = mark; return ws->failed ? E_MEMORY : OK; }

    key_ranges(first, count, rows, kv);
    zero(f.dx, N * C);
    rmsnorm_backward(f.dx, m->norm.grad, dhidden, saved->last, m->norm.data, c->stack.eps, rows->N, c->stack.C);
    for (int l = c->stack.L - 1; l >= 0; l--) {
        Layer here = layer_of(b, saved, c, l);
        if (saved->recompute) {                                 /* keys and values enter the cache again, the same bits */
            attention_block(here, m, l, adapter, rows, kv, ws);
            gate_and_up(here, m, l, adapter, rows->N, ws);
        }
        mlp_backward(f, here, m, l, adapter, rows->N, ws);
        attention_block_backward(f, here, m, l, adapter, rows, kv, ws);
    }
    embedding_backward(f.dx, rows->token, &m->embedding, rows->N);
    ws->used = mark;
    return ws->failed ? E_MEMORY : OK;
}

/* ================================================================================================================
 * The head: log-probs, their gradient, exact KL, values. Block by block of rows.
 * ================================================================================================================ */
enum { HEAD_ROWS = 512, HEAD_LOGITS = 1 << 21 };

/* Rows whose logits are held at a time: 64 of a large vocabulary, more of a small one, or the products would be slim. */
static int head_rows(int V) {
    int rows = HEAD_LOGITS / V;
    return rows < 64 ? 64 : rows > HEAD_ROWS ? HEAD_ROWS : rows;
}

/* The next rows that want logits, from row *at on: their indices in row[], how many is returned. */
static int wanting_rows(int row[HEAD_ROWS], const Rows *rows, int *at, int most) {
    int n = 0;
    for (; *at < rows->N && n < most; ++*at) if (rows->wants && rows->wants[*at]) row[n++] = *at;
    return n;
}

static void gather(float *out, const float *hidden, const int *row, int n, int C) {
    for (int i = 0; i < n; i++) memcpy(out + (size_t)i * (size_t)C, hidden + (size_t)row[i] * (size_t)C, (size_t)C * sizeof *out);
}

int model_logprobs(const Model *m, const float *hidden, const Rows *rows, const int *target, float temperature,
                   float *logprob, float *entropy, TokenLoss loss, void *context, float *dhidden, Arena *ws) {
    int V = m->config.V, C = m->config.stack.C, at = 0, done = 0, n, row[HEAD_ROWS];
    size_t mark = ws->used, block = (size_t)head_rows(V), training = loss ? 1 : 0;
    float *h = arena_take(ws, block * (size_t)C, sizeof *h), *logits = arena_take(ws, block * (size_t)V, sizeof *logits);
    float *dh = arena_take(ws, training * block * (size_t)C, sizeof *dh), *dlogits = arena_take(ws, training * block * (size_t)V, sizeof *dlogits);
    linear_measure(ws, (int)block, C, V, m->compute);
    if (!ws->base || ws->failed) { ws->used = mark; return ws->failed ? E_MEMORY : OK; }
    while ((n = wanting_rows(row, rows, &at, (int)block)) > 0) {
        float dlogprob[HEAD_ROWS] = {0};
        for (int i = 0; i < n; i++) if (target[done + i] < 0 || target[done + i] >= V) { ws->used = mark; return E_RANGE; }
        gather(h, hidden, row, n, C);
        linear_forward(logits, h, &m->head, NULL, n, ws);
        logprob_forward(logprob + done, entropy ? entropy + done : NULL, logits, target + done, temperature, n, V);
        if (training) {
            loss(context, done, n, logprob + done, dlogprob);
            zero(dlogits, (size_t)n * (size_t)V);
            zero(dh, (size_t)n * (size_t)C);
            logprob_backward(dlogits, dlogprob, logprob + done, logits, target + done, temperature, n, V);
            linear_backward(dh, NULL, dlogits, h, &m->head, n, ws);
            for (int i = 0; i < n; i++)
                for (int k = 0; k < C; k++) dhidden[(size_t)row[i] * (size_t)C + (size_t)k] += dh[(size_t)i * (size_t)C + (size_t)k];
        }
        done += n;
    }
    ws->used = mark;
    return ws->failed ? E_MEMORY : OK;
}

int model_full_kl(const Model *m, const float *hidden, const Model *ref, const float *ref_hidden, const Rows *rows,
                  float temperature, float *kl, Arena *ws) {
    int V = m->config.V, C = m->config.stack.C, at = 0, done = 0, n, row[HEAD_ROWS];
    size_t mark = ws->used, block = (size_t)head_rows(V);
    float *h = arena_take(ws, block * (size_t)C, sizeof *h);
    float *logits = arena_take(ws, block * (size_t)V, sizeof *logits), *ref_logits = arena_take(ws, block * (size_t)V, sizeof *logits);
    linear_measure(ws, (int)block, C, V, m->compute);
    if (!ws->base || ws->failed) { ws->used = mark; return ws->failed ? E_MEMORY : OK; }
    while ((n = wanting_rows(row, rows, &at, (int)block)) > 0) {
        gather(h, hidden, row, n, C);
        linear_forward(logits, h, &m->head, NULL, n, ws);
        gather(h, ref_hidden, row, n, C);
        linear_forward(ref_logits, h, &ref->head, NULL, n, ws);
        full_kl_forward(kl + done, logits, ref_logits, temperature, n, V);
        done += n;
    }
    ws->used = mark;
    return ws->failed ? E_MEMORY : OK;
}

void model_values(const ValueHead *h, const float *hidden, float *value, int N, Arena *ws) {
    linear_forward(value, hidden, &h->weight, h->bias.data, N, ws);
}

void model_values_backward(const ValueHead *h, const float *dvalue, const float *hidden, float *dhidden, int N, Arena *ws) {
    linear_backward(dhidden, h->bias.grad, dvalue, hidden, &h->weight, N, ws);
}

/* ================================================================================================================
 * Sampling
 * ================================================================================================================ */
/* Sift-down of a heap of n ids whose root has the largest (or, among equals, the first) logit. */
static void sift(int *order, const float *z, int i, int n) {
    for (int child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && (z[order[child + 1]] > z[order[child]] || (z[order[child + 1]] == z[order[child]] && order[child + 1] < order[child]))) child++;
        if (z[order[i]] > z[order[child]] || (z[order[i]] == z[order[child]] && order[i] < order[child])) return;
        int swap = order[i]; order[i] = order[child]; order[child] = swap;
    }
}

/* What top-k and top-p leave, most likely first: p[i] (not normalised) belongs to id order[V-1-i]. Returns how many.
 * As the reference: top-k keeps ties at its threshold; top-p then keeps the smallest head whose sum reaches top_p of the rest. */
static int nucleus(float *p, int *order, const float *z, int V, const Sampling *s) {
    int kept = 0, heap = V;
    float total = 0, sum = 0, max;
    for (int v = 0; v < V; v++) order[v] = v;
    for (int i = V / 2 - 1; i >= 0; i--) sift(order, z, i, V);
    max = z[order[0]];
    while (heap > 0) {                                          /* takes ids off the heap to the back of the array, largest first */
        if (s->top_k > 0 && kept >= s->top_k && z[order[0]] < z[order[heap]]) break;
        int best = order[0];
        p[kept] = exp_own((z[best] - max) / s->temperature);
        total += p[kept++];
        order[0] = order[--heap];
        order[heap] = best;
        sift(order, z, 0, heap);
    }
    for (int i = 0; s->top_p < 1 && i < kept; i++) {
        sum += p[i];
        if (sum >= s->top_p * total) return i + 1;
    }
    return kept;
}

int sample_token(const float *logits, int V, const Sampling *s, Rng *rng, float *logprob, float *scratch, int *order) {
    int token = 0;
    double left = 0;
    if (s->temperature > 0 && (s->top_k > 0 || s->top_p < 1)) {
        int kept = nucleus(scratch, order, logits, V, s);
        for (int i = 0; i < kept; i++) left += (double)scratch[i];
        left *= rng_unit(rng);
        for (int i = 0; i < kept; i++) {
            token = order[V - 1 - i];
            if ((left -= (double)scratch[i]) < 0) break;
        }
    } else if (s->temperature > 0) {                            /* walk along the cumulative distribution to a uniform point of it */
        softmax_weights(scratch, logits, s->temperature, V);
        for (int v = 0; v < V; v++) left += (double)scratch[v];
        left *= rng_unit(rng);
        for (int v = 0; v < V; v++)
            if (scratch[v] > 0) {
                token = v;
                if ((left -= (double)scratch[v]) < 0) break;
            }
    } else
        for (int v = 1; v < V; v++) if (logits[v] > logits[token]) token = v;
    if (logprob) logprob_forward(logprob, NULL, logits, &token, s->temperature > 0 ? s->temperature : 1, 1, V);
    return token;
}

static int is_eos(const ModelConfig *c, int token) {
    for (int i = 0; i < c->eos_count; i++) if (c->eos[i] == token) return 1;
    return 0;
}

/* The rows of the next forward: whole prompts at first, then one row per living sequence. row[i]: the last row of live[i]. */
static int next_rows(Rows *rows, int *token, int *sequence, int *position, int *live, int *row, const Sequence *seq, int B, int start) {
    int N = 0, alive = 0;
    for (int b = 0; b < B; b++) {
        if (seq[b].done) continue;
        for (int t = start ? 0 : seq[b].length - 1; t < seq[b].length; t++, N++) {
            token[N] = seq[b].token[t];
            sequence[N] = b;
            position[N] = t;
        }
        live[alive] = b;
        row[alive++] = N - 1;
    }
    rows->N = N;
    rows->token = token;
    rows->sequence = sequence;
    rows->position = position;
    rows->wants = NULL;
    return alive;
}

/* Appends a token to a sequence; decides whether it goes on. */
static void append(Sequence *s, int b, int token, float logprob, float value, const ModelConfig *c,
                   int (*on_token)(void *, int, int), void *context) {
    int i = s->length - s->prompt;
    if (s->logprob) s->logprob[i] = logprob;
    if (s->value) s->value[i] = value;
    s->token[s->length++] = token;
    s->done = s->length >= s->capacity || (s->stop_at_eos && is_eos(c, token));
    if (on_token && on_token(context, b, token)) s->done = 1;
}

/* The next token of sequences live[from] .. live[to-1], from row i of logits for live[i]; scratch and order: V for each thread. */
static void sample_rows(int *next, float *logprob, const float *logits, const int *live, Sequence *seq, const Sampling *s, int V,
                        float *scratch, int *order, size_t from, size_t to) {
    size_t own = (size_t)thread_index() * (size_t)V;
    for (size_t i = from; i < to; i++)
        next[i] = sample_token(logits + i * (size_t)V, V, s, &seq[live[i]].rng, &logprob[i], scratch + own, order + own);
}

int model_generate(const Model *m, const Lora *adapter, const ValueHead *h, Sequence *seq, int B, Cache *kv, const Sampling *s,
                   int (*on_token)(void *context, int sequence, int token), void *context, Arena *ws) {
    const ModelConfig *c = &m->config;
    size_t mark = ws->used, prompts = 0, b1 = (size_t)B, C = (size_t)c->stack.C, V = (size_t)c->V;
    int code = OK, alive;
    for (int b = 0; b < B; b++) {
        if (seq[b].prompt < 1 || seq[b].length < seq[b].prompt || seq[b].capacity > kv->T || B > kv->B) return E_RANGE;
        seq[b].done = seq[b].length >= seq[b].capacity;
        prompts += (size_t)seq[b].length;
    }
    int *token = arena_take(ws, prompts, sizeof *token), *sequence = arena_take(ws, prompts, sizeof *sequence);
    int *position = arena_take(ws, prompts, sizeof *position), *live = arena_take(ws, b1, sizeof *live), *row = arena_take(ws, b1, sizeof *row);
    float *hidden = arena_take(ws, prompts * C, sizeof *hidden), *last = arena_take(ws, b1 * C, sizeof *last), *value = arena_take(ws, b1, sizeof *value);
    int block = head_rows(c->V) < B ? head_rows(c->V) : B, *next = arena_take(ws, (size_t)block, sizeof *next);
    float *logits = arena_take(ws, (size_t)block * V, sizeof *logits), *logprob = arena_take(ws, (size_t)block, sizeof *logprob);
    float *scratch = arena_take(ws, (size_t)threads_max() * V, sizeof *scratch);
    int *order = arena_take(ws, (size_t)threads_max() * V, sizeof *order);
    Rows rows = { (int)prompts, token, sequence, position, NULL };
    if (!ws->base) {
        model_forward(m, adapter, &rows, kv, NULL, hidden, ws);
        linear_measure(ws, block, c->stack.C, c->V, m->compute);
        linear_measure(ws, B, c->stack.C, 1, F32);
    }
    if (!ws->base || ws->failed) { ws->used = mark; return ws->failed ? E_MEMORY : OK; }

    for (int start = 1; (alive = next_rows(&rows, token, sequence, position, live, row, seq, B, start)) > 0; start = 0) {
        if ((code = model_forward(m, adapter, &rows, kv, NULL, hidden, ws)) != OK) break;
        gather(last, hidden, row, alive, c->stack.C);
        if (h) model_values(h, last, value, alive, ws);
        for (int i0 = 0; i0 < alive; i0 += block) {
            int n = alive - i0 < block ? alive - i0 : block;
            linear_forward(logits, last + (size_t)i0 * C, &m->head, NULL, n, ws);
            IN_PARTS((double)n * c->V * 32, n, sample_rows(next, logprob, logits, live + i0, seq, s, c->V, scratch, order, from, to));
            for (int i = 0; i < n; i++)
                append(&seq[live[i0 + i]], live[i0 + i], next[i], logprob[i], h ? value[i0 + i] : 0, c, on_token, context);
        }
    }
    ws->used = mark;
    return code;
}
