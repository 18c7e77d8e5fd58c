/* reward.c - the judge: a RoBERTa encoder with a classification head reads a text and gives one logit per label.
 *
 * Source   Liu et al. 2019 (RoBERTa) on Devlin et al. 2018 (BERT) and Vaswani et al. 2017; names and details as Hugging Face's
 *          RobertaForSequenceClassification has them. The pairwise loss is Bradley & Terry 1952 as in Ouyang et al. 2022, eq. 1.
 * Needs    ops.c. Memory: the caller's arena for weights and saved activations, a workspace for everything else.
 * Never    pads. Texts of different lengths stand one after another; a row looks at the keys of its own text only, so a text
 *          has the same logits, bit for bit, whatever stands beside it.
 *
 * The network (post-LN: the norm comes after the sum):
 *   x      = LN(word[token] + type[0] + position[pad + 1 + index])
 *   res1   = x + o(attention(q(x), k(x), v(x)))        mid = LN(res1)       both directions: every key of the text
 *   res2   = mid + down(gelu(up(mid)))                 x   = LN(res2)
 *   logits = out(tanh(dense(x of the first token)))
 *
 * The head reads only the first token of each text, so the last layer computes queries, attention and feed-forward for those
 * rows alone (M = B instead of N); keys and values still come from all rows.
 *
 * Traps
 *   Positions start at pad + 1, not at 0 (514 positions serve 512 tokens); a pad token itself keeps position pad.
 *   GELU is the erf one. The epsilon of the norms is 1e-5 here, 1e-12 in BERT.
 *   The token type is always 0, but its row is added, and learns. */
#include "rlhf.h"

enum { SIZE_LIMIT = 1 << 24 };              /* no side of a weight is larger, so that products of sizes fit */

/* ---- the list of tensors: field, shape (O,I), flags, name in the file ---- */
#define EMBEDDING_TENSORS(X) \
    X(word,     c->V,         c->stack.C, TENSOR_EMBEDDING, "roberta.embeddings.word_embeddings.weight") \
    X(position, c->positions, c->stack.C, TENSOR_EMBEDDING, "roberta.embeddings.position_embeddings.weight") \
    X(type,     c->types,     c->stack.C, TENSOR_EMBEDDING, "roberta.embeddings.token_type_embeddings.weight") \
    X(norm,     1,            c->stack.C, TENSOR_NORM  , "roberta.embeddings.LayerNorm.weight") \
    X(norm_b,   1,            c->stack.C, TENSOR_BIAS  , "roberta.embeddings.LayerNorm.bias")
#define BLOCK_TENSORS(X) \
    X(q,       c->stack.C, c->stack.C, TENSOR_LINEAR, "roberta.encoder.layer.%d.attention.self.query.weight") \
    X(q_b,     1,    c->stack.C, TENSOR_BIAS,   "roberta.encoder.layer.%d.attention.self.query.bias") \
    X(k,       c->stack.C, c->stack.C, TENSOR_LINEAR, "roberta.encoder.layer.%d.attention.self.key.weight") \
    X(k_b,     1,    c->stack.C, TENSOR_BIAS,   "roberta.encoder.layer.%d.attention.self.key.bias") \
    X(v,       c->stack.C, c->stack.C, TENSOR_LINEAR, "roberta.encoder.layer.%d.attention.self.value.weight") \
    X(v_b,     1,    c->stack.C, TENSOR_BIAS,   "roberta.encoder.layer.%d.attention.self.value.bias") \
    X(o,       c->stack.C, c->stack.C, TENSOR_LINEAR | TENSOR_RESIDUAL, "roberta.encoder.layer.%d.attention.output.dense.weight") \
    X(o_b,     1,    c->stack.C, TENSOR_BIAS,   "roberta.encoder.layer.%d.attention.output.dense.bias") \
    X(norm1,   1,    c->stack.C, TENSOR_NORM  , "roberta.encoder.layer.%d.attention.output.LayerNorm.weight") \
    X(norm1_b, 1,    c->stack.C, TENSOR_BIAS  , "roberta.encoder.layer.%d.attention.output.LayerNorm.bias") \
    X(up,      c->stack.F, c->stack.C, TENSOR_LINEAR, "roberta.encoder.layer.%d.intermediate.dense.weight") \
    X(up_b,    1,    c->stack.F, TENSOR_BIAS,   "roberta.encoder.layer.%d.intermediate.dense.bias") \
    X(down,    c->stack.C, c->stack.F, TENSOR_LINEAR | TENSOR_RESIDUAL, "roberta.encoder.layer.%d.output.dense.weight") \
    X(down_b,  1,    c->stack.C, TENSOR_BIAS,   "roberta.encoder.layer.%d.output.dense.bias") \
    X(norm2,   1,    c->stack.C, TENSOR_NORM  , "roberta.encoder.layer.%d.output.LayerNorm.weight") \
    X(norm2_b, 1,    c->stack.C, TENSOR_BIAS  , "roberta.encoder.layer.%d.output.LayerNorm.bias")
#define HEAD_TENSORS(X) \
    X(dense,   c->stack.C,      c->stack.C,      TENSOR_HEAD, "classifier.dense.weight") \
    X(dense_b, 1,         c->stack.C,      TENSOR_BIAS,   "classifier.dense.bias") \
    X(out,     c->labels, c->stack.C,      TENSOR_HEAD, "classifier.out_proj.weight") \
    X(out_b,   1,         c->labels, TENSOR_BIAS,   "classifier.out_proj.bias")
#define COUNT(field, O, I, flags, name) + 1

static int config_check(const RewardConfig *c, Error *err) {
    const struct { const char *name; int value, most; } size[] = {
        { "vocab_size", c->V, SIZE_LIMIT }, { "hidden_size", c->stack.C, SIZE_LIMIT }, { "num_hidden_layers", c->stack.L, 4096 },
        { "num_attention_heads", c->stack.H, SIZE_LIMIT }, { "intermediate_size", c->stack.F, SIZE_LIMIT },
        { "max_position_embeddings", c->positions, SIZE_LIMIT }, { "type_vocab_size", c->types, SIZE_LIMIT },
        { "number of labels", c->labels, LABELS_MAX } };
    for (size_t i = 0; i < sizeof size / sizeof *size; i++)
        if (size[i].value < 1 || size[i].value > size[i].most)
            return fail(err, E_RANGE, "reward model: size out of range", size[i].name, size[i].value, size[i].value < 1 ? 1 : size[i].most);
    if (c->stack.C % c->stack.H != 0) return fail(err, E_RANGE, "reward model: hidden_size is not a multiple of num_attention_heads", "hidden_size", c->stack.C, c->stack.H);
    if (c->pad < 0 || c->pad >= c->V) return fail(err, E_RANGE, "reward model: pad_token_id is not in the vocabulary", "pad_token_id", c->pad, c->V);
    if (reward_max_tokens(c) < 3) return fail(err, E_RANGE, "reward model: too few positions for <s>, a token and </s>", "max_position_embeddings",
                                              c->positions, (long long)c->pad + 4);
    return OK;
}

int reward_max_tokens(const RewardConfig *c) { return c->positions - c->pad - 1; }

/* The layers' linears compute in this type. */
static void compute_in(RewardModel *m, int compute) {
    for (int l = 0; l < m->config.stack.L; l++) {
        RewardBlock *b = &m->block[l];
        Matrix *const linear[] = { &b->q, &b->k, &b->v, &b->o, &b->up, &b->down };
        for (size_t i = 0; i < sizeof linear / sizeof *linear; i++) linear[i]->compute = linear[i]->output = compute;
    }
}

int reward_carve(RewardModel *m, const RewardConfig *c, int type, int compute, int trainable, Pool *lists, Arena *a, Error *err) {
    memset(m, 0, sizeof *m);
    m->config = *c;
    m->compute = compute;
    if (type != F32) return fail(err, E_UNSUPPORTED, "reward model: weights are kept in float32 only", "", 0, 0);
    if (config_check(c, err) != OK) return E_RANGE;
    m->tensor = pool_take(lists, (size_t)(0 EMBEDDING_TENSORS(COUNT) HEAD_TENSORS(COUNT)) + (size_t)c->stack.L * (0 BLOCK_TENSORS(COUNT)), sizeof *m->tensor);
    m->block = pool_take(lists, (size_t)c->stack.L, sizeof *m->block);
    TensorList list = { m->tensor, 0, trainable, a };
    if (!m->tensor || !m->block) return fail(err, E_MEMORY, "reward model: no memory for its lists", "", 0, 0);
#define PLACE(field, O, I, flags, name) tensor_carve(&list, &m->field, name, 0, type, O, I, flags);
#define PLACE_IN_BLOCK(field, O, I, flags, name) tensor_carve(&list, &m->block[l].field, name, l, type, O, I, flags);
    EMBEDDING_TENSORS(PLACE)
    for (int l = 0; l < c->stack.L; l++) {
        BLOCK_TENSORS(PLACE_IN_BLOCK)
    }
    HEAD_TENSORS(PLACE)
    m->tensors = list.tensors;
    compute_in(m, compute);
    if (a->failed) return fail(err, E_MEMORY, "reward model: the weights do not fit", "", 0, 0);
    return OK;
}

/* Embeddings normal with deviation 0.02, linears with 1 / sqrt(I), norms the identity, biases 0. BERT has 0.02 everywhere, which at its
 * width (768) is half of that; at a width of 64 it would let next to nothing of the text through the attention to the first token. */
void reward_init(RewardModel *m, uint64_t seed) {
    for (int t = 0; t < m->tensors; t++) {
        const Tensor *x = &m->tensor[t];
        if (x->flags & TENSOR_VECTOR) tensor_fill(x->matrix, x->flags & TENSOR_NORM ? 1.0f : 0.0f);
        else tensor_normal(x->matrix, x->flags & TENSOR_EMBEDDING ? 0.02 : 1 / sqrt((double)x->matrix->I), seed);
    }
}

/* Kept for backward: what a linear or a norm has read and is dear to compute again. The norms' and GELU's outputs are cheap and
 * are computed again. Slot l of each array starts at row l N; the last layer uses B rows of its slot, so that is all it has. */
void reward_saved_carve(RewardSaved *s, const RewardConfig *c, int N, int B, Arena *a) {
    const size_t all = (size_t)c->stack.L * (size_t)N, some = (size_t)(c->stack.L - 1) * (size_t)N + (size_t)B;
    const size_t C = (size_t)c->stack.C * sizeof(float), F = (size_t)c->stack.F * sizeof(float);
    s->N = N;
    s->B = B;
    s->embed = arena_take(a, (size_t)N, C);
    s->k = arena_take(a, all, C);
    s->v = arena_take(a, all, C);
    s->q = arena_take(a, some, C);
    s->att = arena_take(a, some, C);
    s->res1 = arena_take(a, some, C);
    s->res2 = arena_take(a, some, C);
    s->up = arena_take(a, some, F);
    s->pooled = arena_take(a, (size_t)B, C);
}

/* ---- what forward and backward share ---- */

/* One pass over some texts. live is 0 while the workspace only measures: operations without a workspace then get no rows. */
typedef struct {
    const RewardConfig *c; const Texts *texts; Arena *ws; int live;
    int *position;                          /* (N) row of the position table */
    int *first, *count;                     /* (N) the keys that each row looks at: its whole text */
    int *length;                            /* (B) the same for the rows of the last layer, with texts->start */
} Pass;
typedef struct { float *q, *k, *v, *att, *res1, *up, *res2; } Layer;   /* one layer's slot */

static float *floats(Arena *ws, int rows, int width) { return arena_take(ws, (size_t)rows, (size_t)width * sizeof(float)); }
static const float *vec(const Matrix *m) { return m->data; }

static void zero(float *x, size_t n) { for (size_t i = 0; i < n; i++) x[i] = 0; }
static void add(float *y, const float *x, size_t n) { for (size_t i = 0; i < n; i++) y[i] += x[i]; }

/* y (B,C) = rows row[b] of x; and the way back: rows row[b] of dx += dy. */
static void gather(float *y, const float *x, const int *row, int B, int C) {
    for (int b = 0; b < B; b++)
        for (int i = 0; i < C; i++) y[(size_t)b * C + i] = x[(size_t)row[b] * C + i];
}
static void scatter_add(float *dx, const float *dy, const int *row, int B, int C) {
    for (int b = 0; b < B; b++)
        for (int i = 0; i < C; i++) dx[(size_t)row[b] * C + i] += dy[(size_t)b * C + i];
}

static int texts_check(const RewardConfig *c, const Texts *t, const RewardSaved *s) {
    if (t->N < 0 || t->B < 0 || t->start[0] != 0 || t->start[t->B] != t->N) return E_RANGE;
    for (int b = 0; b < t->B; b++) {
        if (t->start[b] < 0 || t->start[b] >= t->start[b + 1]) return E_RANGE;      /* every text has a first token for the head to read */
        if (t->start[b + 1] - t->start[b] > reward_max_tokens(c)) return E_RANGE;
    }
    for (int n = 0; n < t->N; n++)
        if (t->token[n] < 0 || t->token[n] >= c->V) return E_RANGE;
    return s && (t->N > s->N || t->B > s->B) ? E_MEMORY : OK;
}

/* Checks the texts, and lays out who stands where and who looks at whom. */
static int pass_begin(Pass *p, const RewardModel *m, const Texts *texts, const RewardSaved *saved, Arena *ws) {
    const int N = texts->N, B = texts->B;
    p->c = &m->config;
    p->texts = texts;
    p->ws = ws;
    p->live = ws->base != NULL;
    if (p->live) {
        const int code = texts_check(p->c, texts, saved);
        if (code != OK) return code;
    }
    p->position = arena_take(ws, (size_t)N, sizeof(int));
    p->first = arena_take(ws, (size_t)N, sizeof(int));
    p->count = arena_take(ws, (size_t)N, sizeof(int));
    p->length = arena_take(ws, (size_t)B, sizeof(int));
    if (ws->failed) return E_MEMORY;
    for (int b = 0; b < p->live * B; b++) {
        int at = p->c->pad;
        p->length[b] = texts->start[b + 1] - texts->start[b];
        for (int n = texts->start[b]; n < texts->start[b + 1]; n++) {
            p->position[n] = texts->token[n] == p->c->pad ? p->c->pad : ++at;
            p->first[n] = texts->start[b];
            p->count[n] = p->length[b];
        }
    }
    return OK;
}

static Layer layer_slot(const RewardSaved *s, const RewardConfig *c, int N, int l) {
    Layer slot = { NULL, NULL, NULL, NULL, NULL, NULL, NULL };
    const size_t C = (size_t)l * (size_t)N * (size_t)c->stack.C, F = (size_t)l * (size_t)N * (size_t)c->stack.F;
    if (s->embed) {
        slot.q = s->q + C;
        slot.k = s->k + C;
        slot.v = s->v + C;
        slot.att = s->att + C;
        slot.res1 = s->res1 + C;
        slot.res2 = s->res2 + C;
        slot.up = s->up + F;
    }
    return slot;
}

static Heads heads_of(const RewardConfig *c) {
    Heads heads = { 0, 0, 0, 0, NULL, NULL, NULL, 0 };
    heads.H = heads.K = c->stack.H;
    heads.D = c->stack.C / c->stack.H;
    heads.scale = 1 / sqrtf((float)heads.D);
    return heads;
}

/* ---- forward ---- */

/* embed (N,C) = word + type 0 + position;  x (N,C) = LN(embed).  y (N,C) is scratch. */
static void embed_forward(float *x, float *embed, float *y, const RewardModel *m, const Pass *p) {
    const int N = p->live * p->texts->N, C = p->c->stack.C;
    const float *type = vec(&m->type);
    embedding_forward(embed, p->texts->token, &m->word, N);
    embedding_forward(y, p->position, &m->position, N);
    for (int n = 0; n < N; n++)
        for (int i = 0; i < C; i++) embed[(size_t)n * C + i] = embed[(size_t)n * C + i] + type[i] + y[(size_t)n * C + i];
    layernorm_forward(x, embed, vec(&m->norm), vec(&m->norm_b), p->c->stack.eps, N, C);
}

/* One layer: x (N,C) in, x (M,C) out; M = N, or B in the last layer, whose rows are the first tokens.
 * mid (M,C), rows (B,C) and act (M,F; may be s->up itself when nothing is kept) are scratch. */
static void block_forward(float *x, const Layer *s, float *mid, float *rows, float *act, const RewardBlock *b, const Pass *p, int last) {
    const Texts *t = p->texts;
    const int N = t->N, M = last ? t->B : N, C = p->c->stack.C, F = p->c->stack.F, live = p->live * M;
    const float *query = last ? rows : x;
    if (last) gather(rows, x, t->start, live, C);
    linear_forward(s->q, query, &b->q, vec(&b->q_b), M, p->ws);
    linear_forward(s->k, x, &b->k, vec(&b->k_b), N, p->ws);
    linear_forward(s->v, x, &b->v, vec(&b->v_b), N, p->ws);
    const Heads heads = heads_of(p->c);
    const Keys keys = { last ? t->start : p->first, last ? p->length : p->count, NULL };
    const Qkv in = { s->q, s->k, s->v };
    attention_forward(s->att, &in, &keys, M, &heads, p->ws);
    linear_forward(s->res1, s->att, &b->o, vec(&b->o_b), M, p->ws);
    add(s->res1, query, (size_t)live * C);
    layernorm_forward(mid, s->res1, vec(&b->norm1), vec(&b->norm1_b), p->c->stack.eps, live, C);
    linear_forward(s->up, mid, &b->up, vec(&b->up_b), M, p->ws);
    activation_forward(act, s->up, ACT_GELU, (size_t)live * F);
    linear_forward(s->res2, act, &b->down, vec(&b->down_b), M, p->ws);
    add(s->res2, mid, (size_t)live * C);
    layernorm_forward(x, s->res2, vec(&b->norm2), vec(&b->norm2_b), p->c->stack.eps, live, C);
}

/* No token of N looks at more keys than this. */
static int most_keys(const RewardConfig *c, int N) { return N < reward_max_tokens(c) ? N : reward_max_tokens(c); }

static int forward(const RewardModel *m, const RewardSaved *saved, float *logits, const Pass *p) {
    Arena *ws = p->ws;
    const RewardConfig *c = p->c;
    const int N = p->texts->N, B = p->texts->B;
    Layer s = { NULL, NULL, NULL, NULL, NULL, NULL, NULL };
    float *x = floats(ws, N, c->stack.C), *mid = floats(ws, N, c->stack.C), *rows = floats(ws, B, c->stack.C), *act = floats(ws, N, c->stack.F);
    float *embed = saved ? saved->embed : mid, *pooled = saved ? saved->pooled : rows, *scratch = saved ? mid : floats(ws, N, c->stack.C);
    if (!saved) {                           /* one slot serves every layer */
        s.q = scratch;
        s.k = floats(ws, N, c->stack.C);
        s.v = floats(ws, N, c->stack.C);
        s.att = floats(ws, N, c->stack.C);
        s.res1 = floats(ws, N, c->stack.C);
        s.res2 = floats(ws, N, c->stack.C);
        s.up = act;
    }
    const Heads heads = heads_of(c);
    if (!p->live) attention_measure(ws, most_keys(c, N), &heads);
    if (ws->failed) return E_MEMORY;
    embed_forward(x, embed, scratch, m, p);
    for (int l = 0; l < c->stack.L; l++) {
        if (saved) s = layer_slot(saved, c, N, l);
        block_forward(x, &s, mid, rows, act, &m->block[l], p, l == c->stack.L - 1);
    }
    linear_forward(pooled, x, &m->dense, vec(&m->dense_b), B, ws);
    tanh_forward(pooled, pooled, (size_t)(p->live * B) * c->stack.C);
    linear_forward(logits, pooled, &m->out, vec(&m->out_b), B, ws);
    return ws->failed ? E_MEMORY : OK;
}

int reward_forward(const RewardModel *m, const Texts *texts, RewardSaved *saved, float *logits, Arena *ws) {
    const size_t mark = ws->used;
    Pass pass;
    int code = pass_begin(&pass, m, texts, saved, ws);
    if (code == OK) code = forward(m, saved, logits, &pass);
    ws->used = mark;
    return code;
}

/* ---- backward ---- */

/* Gradients and what is computed again, (N,.) each; d... are added to by the operations, so each is zeroed before its first use. */
typedef struct { float *dx, *dres1, *dres2, *datt, *dq, *dk, *dv, *x, *rows /* (B,C) */, *act, *dact /* (N,F) */; } Scratch;

/* dlogits -> g->dx (B,C), the gradient at the last layer's output. */
static void head_backward(const Scratch *g, const RewardModel *m, const float *dlogits, const float *pooled, const float *res2, const Pass *p) {
    const RewardBlock *b = &m->block[p->c->stack.L - 1];
    const int B = p->texts->B, live = p->live * B, C = p->c->stack.C;
    zero(g->dres1, (size_t)live * C);
    zero(g->dres2, (size_t)live * C);
    zero(g->dx, (size_t)live * C);
    linear_backward(g->dres1, m->out_b.grad, dlogits, pooled, &m->out, B, p->ws);
    tanh_backward(g->dres2, g->dres1, pooled, (size_t)live * C);
    layernorm_forward(g->x, res2, vec(&b->norm2), vec(&b->norm2_b), p->c->stack.eps, live, C);
    linear_backward(g->dx, m->dense_b.grad, g->dres2, g->x, &m->dense, B, p->ws);
}

/* The feed-forward half: g->dx (M,C) at the layer's output -> g->dres1 (M,C).
 * forward was: mid = LN(res1), res2 = mid + down(gelu(up(mid))), out = LN(res2) */
static void feed_forward_backward(const Scratch *g, const Layer *s, const RewardBlock *b, const Pass *p, int M) {
    const int C = p->c->stack.C, F = p->c->stack.F, live = p->live * M;
    const float eps = p->c->stack.eps;
    float *dmid = g->dres2, *mid = g->x, *dup = g->act;
    zero(g->dres2, (size_t)live * C);
    layernorm_backward(g->dres2, b->norm2.grad, b->norm2_b.grad, g->dx, s->res2, vec(&b->norm2), eps, live, C);
    activation_forward(g->act, s->up, ACT_GELU, (size_t)live * F);
    zero(g->dact, (size_t)live * F);
    linear_backward(g->dact, b->down_b.grad, g->dres2, g->act, &b->down, M, p->ws);
    zero(dup, (size_t)live * F);            /* act has served */
    activation_backward(dup, g->dact, s->up, ACT_GELU, (size_t)live * F);
    layernorm_forward(mid, s->res1, vec(&b->norm1), vec(&b->norm1_b), eps, live, C);
    linear_backward(dmid, b->up_b.grad, dup, mid, &b->up, M, p->ws);    /* onto dres2: the residual path is there already */
    zero(g->dres1, (size_t)live * C);
    layernorm_backward(g->dres1, b->norm1.grad, b->norm1_b.grad, dmid, s->res1, vec(&b->norm1), eps, live, C);
}

/* The attention half: g->dres1 (M,C) -> g->dx (N,C) at the layer's input; g->x (N,C) holds that input.
 * forward was: res1 = x + o(attention(q(x), k(x), v(x))) */
static void attention_half_backward(const Scratch *g, const Layer *s, const RewardBlock *b, const Pass *p, int last) {
    const Texts *t = p->texts;
    const int N = t->N, M = last ? t->B : N, C = p->c->stack.C, live = p->live * M, live_all = p->live * N;
    const float *query = last ? g->rows : g->x;
    zero(g->datt, (size_t)live * C);
    zero(g->dq, (size_t)live * C);
    zero(g->dk, (size_t)live_all * C);
    zero(g->dv, (size_t)live_all * C);
    zero(g->dx, (size_t)live_all * C);
    linear_backward(g->datt, b->o_b.grad, g->dres1, s->att, &b->o, M, p->ws);
    const Heads heads = heads_of(p->c);
    const Keys keys = { last ? t->start : p->first, last ? p->length : p->count, NULL };
    const Qkv in = { s->q, s->k, s->v }, d = { g->dq, g->dk, g->dv };
    attention_backward(&d, g->datt, s->att, &in, &keys, M, &heads, p->ws);
    if (last) gather(g->rows, g->x, t->start, live, C);
    linear_backward(g->dres1, b->q_b.grad, g->dq, query, &b->q, M, p->ws);          /* onto dres1: the residual path */
    if (last) scatter_add(g->dx, g->dres1, t->start, live, C);
    else add(g->dx, g->dres1, (size_t)live * C);
    linear_backward(g->dx, b->k_b.grad, g->dk, g->x, &b->k, N, p->ws);
    linear_backward(g->dx, b->v_b.grad, g->dv, g->x, &b->v, N, p->ws);
}

/* g->dx (N,C) at the embeddings' norm -> the three tables. */
static void embed_backward(const Scratch *g, const RewardModel *m, const float *embed, const Pass *p) {
    const int N = p->live * p->texts->N, C = p->c->stack.C;
    zero(g->dres1, (size_t)N * C);
    layernorm_backward(g->dres1, m->norm.grad, m->norm_b.grad, g->dx, embed, vec(&m->norm), p->c->stack.eps, N, C);
    if (m->word.grad) embedding_backward(g->dres1, p->texts->token, &m->word, N);
    if (m->position.grad) embedding_backward(g->dres1, p->position, &m->position, N);
    if (m->type.grad)
        for (int n = 0; n < N; n++) add(m->type.grad, g->dres1 + (size_t)n * C, (size_t)C);
}

static Scratch scratch_take(const RewardConfig *c, int N, int B, Arena *ws) {
    Scratch g;
    g.dx = floats(ws, N, c->stack.C);
    g.dres1 = floats(ws, N, c->stack.C);
    g.dres2 = floats(ws, N, c->stack.C);
    g.datt = floats(ws, N, c->stack.C);
    g.dq = floats(ws, N, c->stack.C);
    g.dk = floats(ws, N, c->stack.C);
    g.dv = floats(ws, N, c->stack.C);
    g.x = floats(ws, N, c->stack.C);
    g.rows = floats(ws, B, c->stack.C);
    g.act = floats(ws, N, c->stack.F);
    g.dact = floats(ws, N, c->stack.F);
    return g;
}

static int backward(const RewardModel *m, const RewardSaved *saved, const float *dlogits, const Pass *p) {
    const RewardConfig *c = p->c;
    const int N = p->texts->N, B = p->texts->B;
    const Scratch g = scratch_take(c, N, B, p->ws);
    if (!p->live) {                         /* a backward product without gradients in hand measures nothing by itself */
        linear_measure(p->ws, N, c->stack.C, c->stack.C, m->compute);
        linear_measure(p->ws, N, c->stack.C, c->stack.F, m->compute);
        linear_measure(p->ws, B, c->stack.C, c->stack.C, F32);
        linear_measure(p->ws, B, c->stack.C, c->labels, F32);
        const Heads heads = heads_of(c);
        attention_measure(p->ws, most_keys(c, N), &heads);
    }
    if (p->ws->failed) return E_MEMORY;
    head_backward(&g, m, dlogits, saved->pooled, layer_slot(saved, c, N, c->stack.L - 1).res2, p);
    for (int l = c->stack.L - 1; l >= 0; l--) {
        const RewardBlock *b = &m->block[l], *below = l ? b - 1 : NULL;
        const Layer s = layer_slot(saved, c, N, l);
        const int last = l == c->stack.L - 1;
        feed_forward_backward(&g, &s, b, p, last ? B : N);
        if (below) layernorm_forward(g.x, layer_slot(saved, c, N, l - 1).res2, vec(&below->norm2), vec(&below->norm2_b), c->stack.eps, p->live * N, c->stack.C);
        else layernorm_forward(g.x, saved->embed, vec(&m->norm), vec(&m->norm_b), c->stack.eps, p->live * N, c->stack.C);
        attention_half_backward(&g, &s, b, p, last);
    }
    embed_backward(&g, m, saved->embed, p);
    return p->ws->failed ? E_MEMORY : OK;
}

int reward_backward(const RewardModel *m, const Texts *texts, const RewardSaved *saved, const float *dlogits, Arena *ws) {
    const size_t mark = ws->used;
    Pass pass;
    int code = pass_begin(&pass, m, texts, saved, ws);
    if (code == OK) code = backward(m, saved, dlogits, &pass);
    ws->used = mark;
    return code;
}

/* ---- the pairwise loss ---- */

/* margin of pair i: logit 0 of its chosen text (2i) less that of its rejected one (2i + 1) */
static float margin(const float *logits, int labels, int i) {
    return logits[(size_t)(2 * i) * labels] - logits[(size_t)(2 * i + 1) * labels];
}

/* -log sigmoid(d) = log(1 + e^-d) */
void ranking_forward(float *loss, const float *logits, int labels, int pairs) {
    for (int i = 0; i < pairs; i++) loss[i] = log1p_exp(-margin(logits, labels, i));
}

/* d loss / d margin = -sigmoid(-margin); the exponent is never positive, so nothing overflows */
void ranking_backward(float *dlogits, const float *dloss, const float *logits, int labels, int pairs) {
    for (int i = 0; i < pairs; i++) {
        const float d = margin(logits, labels, i), e = exp_own(-fabsf(d));
        const float slope = -(d > 0 ? e : 1.0f) / (1.0f + e);
        dlogits[(size_t)(2 * i) * labels] += dloss[i] * slope;
        dlogits[(size_t)(2 * i + 1) * labels] -= dloss[i] * slope;
    }
}
