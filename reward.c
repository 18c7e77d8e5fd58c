/* reward.c - the judge: an encoder with a classification head reads a text and gives one logit per label.
 *
 * Source   Liu et al. 2019 (RoBERTa) on Devlin et al. 2018 (BERT) and Vaswani et al. 2017; names and details
 *          as Hugging Face's RobertaForSequenceClassification has them. The pairwise loss is Bradley & Terry
 *          1952 as in Ouyang et al. 2022, eq. 1.
 * Needs    core.c, ops.c, lora.c, stack.c. Weights and saved activations are in the caller's arena, the rest
 *          in a workspace.
 * Never    pads. Texts of different lengths come one after another, and a row sees the keys of its own text
 *          only. So a text has the same logits, bit for bit, whatever other texts are read with it.
 *
 *     embed  = word[token] + type[0] + position[pad + 1 + index]
 *     logits = out(tanh(dense(the stack's output at the first token)))       of x = LN(embed)
 *
 * The head reads only the first token of each text, so those are the rows that are wanted of the stack.
 *
 * Traps
 *   Positions start at pad + 1, not at 0: 514 positions serve 512 tokens. A pad token keeps position pad.
 *   GELU is the erf one. The epsilon of the norms is 1e-5 here, 1e-12 in BERT.
 *   The token type is always 0, but its row is added, and learns. */
#include "rlhf.h"

enum { SIZE_LIMIT = 1 << 24 };              /* the limit of widths, vocabularies, positions */

static int config_check(const RewardConfig *c, Error *err) {
    const struct { const char *name; int value, most; } size[] = {
        { "vocab_size", c->V, SIZE_LIMIT }, { "hidden_size", c->stack.C, SIZE_LIMIT },
        { "num_hidden_layers", c->stack.L, 4096 },
        { "num_attention_heads", c->stack.H, SIZE_LIMIT }, { "intermediate_size", c->stack.F, SIZE_LIMIT },
        { "max_position_embeddings", c->positions, SIZE_LIMIT }, { "type_vocab_size", c->types, SIZE_LIMIT },
        { "number of labels", c->labels, LABELS_MAX } };
    for (size_t i = 0; i < sizeof size / sizeof *size; i++)
        if (size[i].value < 1 || size[i].value > size[i].most)
            return fail(err, E_RANGE, "reward model: size out of range", size[i].name, size[i].value,
                        size[i].value < 1 ? 1 : size[i].most);
    if (c->stack.C % c->stack.H != 0)
        return fail(err, E_RANGE, "reward model: hidden_size is not a multiple of num_attention_heads",
                    "hidden_size", c->stack.C, c->stack.H);
    if (c->pad < 0 || c->pad >= c->V)
        return fail(err, E_RANGE, "reward model: pad_token_id is not in the vocabulary", "pad_token_id",
                    c->pad, c->V);
    if (reward_max_tokens(c) < 3)
        return fail(err, E_RANGE, "reward model: too few positions for <s>, a token and </s>",
                    "max_position_embeddings", c->positions, (long long)c->pad + 4);
    return OK;
}

int reward_max_tokens(const RewardConfig *c) { return c->positions - c->pad - 1; }

int reward_carve(RewardModel *m, const RewardConfig *c, const WeightTypes *types, int trainable, Pool *lists,
                 Arena *a, Error *err) {
    static const WeightTypes floats = { F32, F32, 0, 0, 0, 0 };
    const WeightTypes *w = types ? types : &floats;
    const Names *names = c->names;
    const int C = c->stack.C;
    memset(m, 0, sizeof *m);
    m->config = *c;
    if (config_check(c, err) != OK) return E_RANGE;
    if (trainable == TRAIN_ALL && w->tables != F32)
        return fail(err, E_UNSUPPORTED, "reward model: weights that are trained have to be F32", "", 0, 0);
    m->tensor = pool_take(lists, 9 + stack_tensors(&c->stack), sizeof *m->tensor);
    if (!m->tensor) return fail(err, E_MEMORY, "reward model: no memory for its lists", "", 0, 0);
    TensorList t = { m->tensor, 0, trainable == TRAIN_ALL, a };
    tensor_carve(&t, &m->word, stack_name(names, NAME_WORD), 0, w->tables, c->V, C, TENSOR_EMBEDDING);
    tensor_carve(&t, &m->position, stack_name(names, NAME_POSITION), 0, w->tables, c->positions, C,
                 TENSOR_EMBEDDING);
    tensor_carve(&t, &m->type, stack_name(names, NAME_TYPE), 0, F32, c->types, C, TENSOR_EMBEDDING);
    tensor_carve(&t, &m->norm, stack_name(names, NAME_EMBEDDING_NORM), 0, F32, 1, C, TENSOR_NORM);
    tensor_carve(&t, &m->norm_b, stack_name(names, NAME_EMBEDDING_NORM_B), 0, F32, 1, C, TENSOR_BIAS);
    int code = stack_carve(&m->stack, &c->stack, names, w, c->positions, &t, lists, err);
    if (code) return code;
    t.trainable = trainable != TRAIN_NOTHING;
    tensor_carve(&t, &m->dense, stack_name(names, NAME_DENSE), 0, F32, C, C, TENSOR_HEAD);
    tensor_carve(&t, &m->dense_b, stack_name(names, NAME_DENSE_B), 0, F32, 1, C, TENSOR_BIAS | TENSOR_HEAD);
    tensor_carve(&t, &m->out, stack_name(names, NAME_HEAD), 0, F32, c->labels, C, TENSOR_HEAD);
    tensor_carve(&t, &m->out_b, stack_name(names, NAME_HEAD_B), 0, F32, 1, c->labels,
                 TENSOR_BIAS | TENSOR_HEAD);
    m->tensors = t.tensors;
    return a->failed ? fail(err, E_MEMORY, "reward model: the weights do not fit", "", 0, 0) : OK;
}

/* Fills embeddings with normal numbers of deviation 0.02, linears with 1 / sqrt(I), norms with 1, biases with
 * 0. BERT starts linears with 0.02, which at its width (768) is half of that; at a width of 64 the attention
 * to the first token would then pass on almost nothing of the text. */
void reward_init(RewardModel *m, uint64_t seed) {
    for (int t = 0; t < m->tensors; t++) {
        const Tensor *x = &m->tensor[t];
        if (x->flags & TENSOR_VECTOR) tensor_fill(x->matrix, x->flags & TENSOR_NORM ? 1.0f : 0.0f);
        else if (x->flags & TENSOR_EMBEDDING) tensor_normal(x->matrix, 0.02, seed);
        else tensor_normal(x->matrix, 1 / sqrt((double)x->matrix->I), seed);
    }
}

void reward_saved_carve(RewardSaved *s, const RewardConfig *c, int N, int B, int recompute, Arena *a) {
    const size_t C = (size_t)c->stack.C * sizeof(float);
    s->embed = arena_take(a, (size_t)N, C);
    cache_carve(&s->kv, &c->stack, recompute ? 1 : c->stack.L, 1, N, a);
    saved_carve(&s->stack, &c->stack, N, B, recompute, a);
    s->pooled = arena_take(a, (size_t)B, C);
}

/* ---- what forward and backward share ---- */

/* The rows of one pass over some texts. active 0: the pass only measures, and the arrays are NULL. */
typedef struct { StackRows rows; int *position /* (N) rows of the position table */; int active; } Pass;

static int texts_check(const RewardConfig *c, const Texts *t, const RewardSaved *s) {
    if (t->N < 0 || t->B < 0 || t->start[0] != 0 || t->start[t->B] != t->N) return E_RANGE;
    for (int b = 0; b < t->B; b++) {
        /* an empty text has no first token for the head */
        if (t->start[b] < 0 || t->start[b] >= t->start[b + 1]) return E_RANGE;
        if (t->start[b + 1] - t->start[b] > reward_max_tokens(c)) return E_RANGE;
    }
    for (int n = 0; n < t->N; n++)
        if (t->token[n] < 0 || t->token[n] >= c->V) return E_RANGE;
    return s && (t->N > s->stack.N || t->B > s->stack.M) ? E_MEMORY : OK;
}

/* Checks the texts, and sets each row's position and the rows that it sees: all of its text. The first row of
 * each text is wanted. OK or a code. */
static int pass_begin(Pass *p, const RewardModel *m, const Texts *texts, const RewardSaved *saved,
                      Arena *ws) {
    const RewardConfig *c = &m->config;
    const int N = texts->N, B = texts->B;
    static const int unread = 0;
    p->active = ws->base != NULL;
    if (p->active) {
        const int code = texts_check(c, texts, saved);
        if (code != OK) return code;
    }
    int *first = arena_take(ws, (size_t)N, sizeof(int)), *count = arena_take(ws, (size_t)N, sizeof(int));
    p->position = arena_take(ws, (size_t)N, sizeof(int));
    if (ws->failed) return E_MEMORY;
    StackRows rows = { N, B, p->active ? texts->start : &unread, NULL, NULL, { first, count, NULL }, N,
                       NULL };
    if (rows.most > reward_max_tokens(c)) rows.most = reward_max_tokens(c);
    p->rows = rows;
    for (int b = 0; b < p->active * B; b++) {
        int at = c->pad;
        for (int n = texts->start[b]; n < texts->start[b + 1]; n++) {
            p->position[n] = texts->token[n] == c->pad ? c->pad : ++at;
            first[n] = texts->start[b];
            count[n] = texts->start[b + 1] - texts->start[b];
        }
    }
    return OK;
}

static float *floats(Arena *ws, int rows, int width) {
    return arena_take(ws, (size_t)rows, (size_t)width * sizeof(float));
}
static const float *vec(const Matrix *m) { return m->data; }

/* ---- forward ---- */

/* embed (N,C) = word + type 0 + position;  x (N,C) = LN(embed). x also serves as room for the positions. */
static void embed_forward(float *x, float *embed, const RewardModel *m, const Texts *texts, const Pass *p) {
    const int N = p->active * texts->N, C = m->config.stack.C;
    const float *type = vec(&m->type);
    embedding_forward(embed, texts->token, &m->word, N);
    embedding_forward(x, p->position, &m->position, N);
    for (int n = 0; n < N; n++) {
        float *e = embed + (size_t)n * (size_t)C, *position = x + (size_t)n * (size_t)C;
        for (int i = 0; i < C; i++) e[i] = e[i] + type[i] + position[i];
    }
    layernorm_forward(x, embed, vec(&m->norm), vec(&m->norm_b), m->config.stack.eps, N, C);
}

int reward_forward(const RewardModel *m, const Lora *adapter, const Texts *texts, RewardSaved *saved,
                   float *logits, Arena *ws) {
    const size_t mark = ws->used;
    const int N = texts->N, B = texts->B, C = m->config.stack.C;
    Pass p;
    Cache one;
    int code = pass_begin(&p, m, texts, saved, ws);
    if (code != OK) { ws->used = mark; return code; }
    float *x = saved ? saved->stack.x : floats(ws, N, C), *y = floats(ws, B, C);
    float *embed = saved ? saved->embed : floats(ws, N, C);
    float *pooled = saved ? saved->pooled : floats(ws, B, C);
    if (!saved) cache_carve(&one, &m->config.stack, 1, 1, N, ws);
    if (ws->failed) { ws->used = mark; return E_MEMORY; }
    embed_forward(x, embed, m, texts, &p);
    code = stack_forward(&m->stack, adapter, &p.rows, saved ? &saved->kv : &one, saved ? &saved->stack : NULL,
                         x, y, ws);
    linear_forward(pooled, y, &m->dense, vec(&m->dense_b), B, ws);
    tanh_forward(pooled, pooled, (size_t)(p.active * B) * (size_t)C);
    linear_forward(logits, pooled, &m->out, vec(&m->out_b), B, ws);
    ws->used = mark;
    return ws->failed ? E_MEMORY : code;
}

/* ---- backward ---- */

/* Computes dy (B,C), the gradient of the stack's output, from dlogits (B,labels); adds to the classifier's
 * gradients. The output y (B,C) is computed again; room (B,C) is scratch. */
static void head_backward(float *dy, float *y, float *room, const RewardModel *m, const float *dlogits,
                          const RewardSaved *saved, int B,
                          Arena *ws) {
    const Block *last = &m->stack.block[m->config.stack.L - 1];
    const int C = m->config.stack.C;
    const size_t n = (size_t)B * (size_t)C * sizeof *dy;
    memset(dy, 0, n);
    memset(room, 0, n);
    linear_backward(dy, m->out_b.grad, dlogits, saved->pooled, &m->out, B, ws);
    tanh_backward(room, dy, saved->pooled, (size_t)B * (size_t)C);
    layernorm_forward(y, saved->stack.last, vec(&last->norm2), vec(&last->norm2_b), m->config.stack.eps, B,
                      C);
    memset(dy, 0, n);
    linear_backward(dy, m->dense_b.grad, room, y, &m->dense, B, ws);
}

/* Adds dx (N,C), the gradient after the embeddings' norm, to the three tables; room (N,C) is scratch. */
static void embed_backward(const float *dx, float *room, const RewardModel *m, const Texts *texts,
                           const RewardSaved *saved, const Pass *p) {
    const int N = texts->N, C = m->config.stack.C;
    memset(room, 0, (size_t)N * (size_t)C * sizeof *room);
    layernorm_backward(room, dx, saved->embed, &m->norm, &m->norm_b, m->config.stack.eps, N, C);
    embedding_backward(room, texts->token, &m->word, N);
    embedding_backward(room, p->position, &m->position, N);
    for (int n = 0; n < N && m->type.grad; n++)
        for (int i = 0; i < C; i++) m->type.grad[i] += room[(size_t)n * C + i];
}

int reward_backward(const RewardModel *m, const Lora *adapter, const Texts *texts, RewardSaved *saved,
                    const float *dlogits, Arena *ws) {
    const size_t mark = ws->used;
    const int N = texts->N, B = texts->B, C = m->config.stack.C;
    Pass p;
    int code = pass_begin(&p, m, texts, saved, ws);
    if (code != OK) { ws->used = mark; return code; }
    float *dx = floats(ws, N, C), *room = floats(ws, N, C), *dy = floats(ws, B, C);
    if (!p.active) {
        linear_measure(ws, B, C, C, F32);
        linear_measure(ws, B, C, m->config.labels, F32);
    }
    if (ws->failed) { ws->used = mark; return E_MEMORY; }
    if (p.active) head_backward(dy, dx, room, m, dlogits, saved, B, ws);
    code = stack_backward(&m->stack, adapter, &p.rows, &saved->kv, &saved->stack, dy, dx, ws);
    if (p.active && m->word.grad) embed_backward(dx, room, m, texts, saved, &p);
    ws->used = mark;
    return ws->failed ? E_MEMORY : code;
}

/* ---- the pairwise loss ---- */

/* Returns the margin of pair i: logit 0 of text 2i (chosen) minus logit 0 of text 2i + 1 (rejected). */
static float margin(const float *logits, int labels, int i) {
    return logits[(size_t)(2 * i) * labels] - logits[(size_t)(2 * i + 1) * labels];
}

/* loss = -log sigmoid(margin) = log(1 + e^-margin) */
void ranking_forward(float *loss, const float *logits, int labels, int pairs) {
    for (int i = 0; i < pairs; i++) loss[i] = log1p_exp(-margin(logits, labels, i));
}

/* d loss / d margin = -sigmoid(-margin). The exponent is never positive, so e^ cannot overflow. */
void ranking_backward(float *dlogits, const float *dloss, const float *logits, int labels, int pairs) {
    for (int i = 0; i < pairs; i++) {
        const float d = margin(logits, labels, i), e = exp_own(-fabsf(d));
        const float slope = -(d > 0 ? e : 1.0f) / (1.0f + e);
        dlogits[(size_t)(2 * i) * labels] += dloss[i] * slope;
        dlogits[(size_t)(2 * i + 1) * labels] -= dloss[i] * slope;
    }
}
