/* reward.c - the judge: a stack with a classification head reads a text and gives one logit per label.
 *
 * Source   Hugging Face's ...ForSequenceClassification: RoBERTa (Liu et al. 2019), BERT (Devlin et al. 2018),
 *          DistilBERT (Sanh et al. 2019), ELECTRA (Clark et al. 2020), and the causal families. The pairwise
 *          loss is Bradley & Terry 1952 as in Ouyang et al. 2022, eq. 1.
 * Needs    core.c, ops.c, lora.c, stack.c. Weights and saved activations are in the caller's arena, the rest
 *          in a workspace.
 * Never    pads. Texts of different lengths come one after another, and a row sees the keys of its own text
 *          only. So a text has the same logits, bit for bit, whatever other texts are read with it.
 *
 *     an encoder:  x = LN(word[token] + position[index] + type[0]), for ELECTRA a linear of this
 *                  logits = out(act(dense(the stack's output at the first token)))
 *     causal:      x = word[token] (+ position[index])
 *                  logits = out(the stack's output at the last token that is not pad)
 *
 * The head reads one row of each text, so those are the rows that are wanted of the stack.
 *
 * Traps
 *   RoBERTa's positions start at pad + 1: 514 positions serve 512 tokens, and a pad token keeps position pad.
 *   GELU is the erf one. The epsilon of the norms is 1e-5 in RoBERTa's files, 1e-12 in BERT.
 *   The token type is always 0, but its row is added, and learns. */
#include "rlhf.h"

enum { SIZE_LIMIT = 1 << 24 };              /* the limit of widths, vocabularies, positions */

/* Returns the width of the tables of embeddings. */
static int embedding_width(const RewardConfig *c) { return c->embedding ? c->embedding : c->stack.C; }

static int config_check(const RewardConfig *c, Error *err) {
    const struct { const char *name; int value, least, most; } size[] = {
        { "vocab_size", c->V, 1, SIZE_LIMIT }, { "hidden_size", c->stack.C, 1, SIZE_LIMIT },
        { "embedding_size", embedding_width(c), 1, SIZE_LIMIT },
        { "num_hidden_layers", c->stack.L, 1, 4096 },
        { "num_attention_heads", c->stack.H, 1, SIZE_LIMIT },
        { "intermediate_size", c->stack.F, 1, SIZE_LIMIT },
        { "max_position_embeddings", c->positions, 1, SIZE_LIMIT },
        { "type_vocab_size", c->types, 0, SIZE_LIMIT },
        { "number of labels", c->labels, 1, LABELS_MAX } };
    for (size_t i = 0; i < sizeof size / sizeof *size; i++)
        if (size[i].value < size[i].least || size[i].value > size[i].most)
            return fail(err, E_RANGE, "reward model: size out of range", size[i].name, size[i].value,
                        size[i].value < size[i].least ? size[i].least : size[i].most);
    if (c->stack.D * c->stack.H != c->stack.C && !c->stack.causal)
        return fail(err, E_RANGE, "reward model: hidden_size is not a multiple of num_attention_heads",
                    "hidden_size", 0, 0);
    if (c->pad >= c->V || (c->pad < 0 && !c->from_zero))
        return fail(err, E_RANGE, "reward model: pad_token_id is not in the vocabulary", "pad_token_id",
                    c->pad, c->pad < 0 ? 0 : c->V - 1);
    if (reward_max_tokens(c) < 3)
        return fail(err, E_RANGE, "reward model: too few positions for <s>, a token and </s>",
                    "max_position_embeddings", c->positions, (long long)c->positions + 3
                    - reward_max_tokens(c));
    return OK;
}

int reward_max_tokens(const RewardConfig *c) {
    return c->from_zero ? c->positions : c->positions - c->pad - 1;
}

/* Places the tables of embeddings, and what follows them: a norm, but for causal stacks, and a linear if the
 * tables are not as wide as the stack. tables: the type of the two large tables. */
static void place_embeddings(RewardModel *m, TensorList *t, int tables) {
    const RewardConfig *c = &m->config;
    const Names *names = c->names;
    const int E = embedding_width(c);
    tensor_carve(t, &m->word, stack_name(names, NAME_WORD), 0, tables, c->V, E, TENSOR_EMBEDDING);
    if (!c->stack.rotary)
        tensor_carve(t, &m->position, stack_name(names, NAME_POSITION), 0, tables, c->positions, E,
                     TENSOR_EMBEDDING);
    if (c->types)
        tensor_carve(t, &m->type, stack_name(names, NAME_TYPE), 0, F32, c->types, E, TENSOR_EMBEDDING);
    if (c->stack.causal) return;
    tensor_carve(t, &m->norm, stack_name(names, NAME_EMBEDDING_NORM), 0, F32, 1, E, TENSOR_NORM);
    tensor_carve(t, &m->norm_b, stack_name(names, NAME_EMBEDDING_NORM_B), 0, F32, 1, E, TENSOR_BIAS);
    if (E == c->stack.C) return;
    tensor_carve(t, &m->project, stack_name(names, NAME_PROJECT), 0, F32, c->stack.C, E, 0);
    tensor_carve(t, &m->project_b, stack_name(names, NAME_PROJECT_B), 0, F32, 1, c->stack.C, TENSOR_BIAS);
}

static void place_head(RewardModel *m, TensorList *t) {
    const Names *names = m->config.names;
    const int C = m->config.stack.C, labels = m->config.labels;
    if (!m->config.stack.causal) {
        tensor_carve(t, &m->dense, stack_name(names, NAME_DENSE), 0, F32, C, C, TENSOR_HEAD);
        tensor_carve(t, &m->dense_b, stack_name(names, NAME_DENSE_B), 0, F32, 1, C,
                     TENSOR_BIAS | TENSOR_HEAD);
    }
    tensor_carve(t, &m->out, stack_name(names, NAME_HEAD), 0, F32, labels, C, TENSOR_HEAD);
    if (!m->config.stack.causal)
        tensor_carve(t, &m->out_b, stack_name(names, NAME_HEAD_B), 0, F32, 1, labels,
                     TENSOR_BIAS | TENSOR_HEAD);
}

int reward_carve(RewardModel *m, const RewardConfig *c, const WeightTypes *types, int trainable, Pool *lists,
                 Arena *a, Error *err) {
    static const WeightTypes floats = { F32, F32, 0, 0, 0, 0, NULL };
    const WeightTypes *w = types ? types : &floats;
    memset(m, 0, sizeof *m);
    m->config = *c;
    if (config_check(c, err) != OK) return E_RANGE;
    if (trainable && w->tables != F32)
        return fail(err, E_UNSUPPORTED, "reward model: weights that are trained have to be F32", "", 0, 0);
    m->tensor = pool_take(lists, 11 + stack_tensors(&c->stack), sizeof *m->tensor);
    if (!m->tensor) return fail(err, E_MEMORY, "reward model: no memory for its lists", "", 0, 0);
    TensorList t = { m->tensor, 0, trainable, a };
    place_embeddings(m, &t, w->tables);
    int code = stack_carve(&m->stack, &c->stack, c->names, w, c->positions, &t, lists, err);
    if (code) return code;
    place_head(m, &t);
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
    s->embed = arena_take(a, (size_t)N, (size_t)embedding_width(c) * sizeof(float));
    cache_carve(&s->kv, &c->stack, recompute ? 1 : c->stack.L, 1, N, a);
    saved_carve(&s->stack, &c->stack, N, B, recompute, a);
    s->state = arena_take(a, (size_t)B, C);
    s->dense = arena_take(a, (size_t)B, C);
}

/* ---- what forward and backward share ---- */

/* The rows of one pass over some texts: their positions (N), their token types (N, all 0), and the B rows
 * that the head reads. active 0: the pass only measures, and the arrays are NULL. */
typedef struct { StackRows rows; int *position, *type, *read, active; const Lora *adapter; Arena *ws; } Pass;

static int texts_check(const RewardConfig *c, const Texts *t, const Wanted *want, const RewardSaved *s) {
    const int M = want ? want->W : t->B;
    if (t->N < 0 || t->B < 0 || t->start[0] != 0 || t->start[t->B] != t->N) return E_RANGE;
    for (int b = 0; b < t->B; b++) {
        /* an empty text has no token for the head */
        if (t->start[b] < 0 || t->start[b] >= t->start[b + 1]) return E_RANGE;
        if (t->start[b + 1] - t->start[b] > reward_max_tokens(c)) return E_RANGE;
    }
    for (int n = 0; n < t->N; n++)
        if (t->token[n] < 0 || t->token[n] >= c->V) return E_RANGE;
    if (want && (!c->stack.causal || c->labels != 1 || want->W < 1)) return E_RANGE;
    for (int i = 0; want && i < want->W; i++)
        if (want->row[i] < (i ? want->row[i - 1] + 1 : 0) || want->row[i] >= t->N) return E_RANGE;
    return s && (t->N > s->stack.N || M > s->stack.M) ? E_MEMORY : OK;
}

/* Sets the positions of text b's rows, the rows that each of them sees (all of its text, or in a causal stack
 * those up to itself), and the row that the head reads. */
static void text_rows(Pass *p, int *first, int *count, const RewardConfig *c, const Texts *t, int b) {
    const int from = t->start[b], end = t->start[b + 1];
    int at = c->pad;
    for (int n = from; n < end; n++) {
        first[n] = from;
        count[n] = c->stack.causal ? n + 1 - from : end - from;
        p->position[n] = c->from_zero ? n - from : t->token[n] == c->pad ? c->pad : ++at;
    }
    p->read[b] = from;
    for (int n = from; n < end && c->stack.causal; n++) if (t->token[n] != c->pad) p->read[b] = n;
}

/* Checks the texts and lays out their rows. want: the rows that the head reads; NULL: one of each text. OK or
 * a code. */
static int pass_begin(Pass *p, const RewardModel *m, const Lora *adapter, const Texts *texts,
                      const Wanted *want, const RewardSaved *saved, Arena *ws) {
    const RewardConfig *c = &m->config;
    const int N = texts->N, B = texts->B, M = want ? want->W : B;
    static const int unread = 0;
    p->active = ws->base != NULL;
    p->adapter = adapter;
    p->ws = ws;
    if (p->active) {
        const int code = texts_check(c, texts, want, saved);
        if (code != OK) return code;
    }
    int *first = arena_take(ws, (size_t)N, sizeof(int)), *count = arena_take(ws, (size_t)N, sizeof(int));
    p->position = arena_take(ws, (size_t)N, sizeof(int));
    p->type = arena_take(ws, (size_t)N, sizeof(int));
    p->read = arena_take(ws, (size_t)B, sizeof(int));
    if (ws->failed) return E_MEMORY;
    if (p->type) memset(p->type, 0, (size_t)N * sizeof *p->type);
    StackRows rows = { N, M, !p->active ? &unread : want ? want->row : p->read, p->position, NULL,
                       { first, count, NULL }, N, NULL };
    if (rows.most > reward_max_tokens(c)) rows.most = reward_max_tokens(c);
    p->rows = rows;
    for (int b = 0; b < p->active * B; b++) text_rows(p, first, count, c, texts, b);
    return OK;
}

static float *floats(Arena *ws, int rows, int width) {
    return arena_take(ws, (size_t)rows, (size_t)width * sizeof(float));
}

/* ---- forward ---- */

static void add(float *y, const float *x, size_t n) { for (size_t i = 0; i < n; i++) y[i] += x[i]; }

/* embed (N,E) = word + type 0 + position; type and position only if there is such a table. room (N,E) is
 * scratch. */
static void embed_sum(float *embed, float *room, const RewardModel *m, const Texts *texts, const Pass *p) {
    const int N = texts->N;
    const size_t n = (size_t)(p->active * N) * (size_t)embedding_width(&m->config);
    lora_embedding(embed, texts->token, p->adapter, &m->word, N, p->ws);
    if (m->config.types) {
        lora_embedding(room, p->type, p->adapter, &m->type, N, p->ws);
        add(embed, room, n);
    }
    if (m->config.stack.rotary) return;
    lora_embedding(room, p->position, p->adapter, &m->position, N, p->ws);
    add(embed, room, n);
}

/* y (N,E) = the norm of the embeddings' sum */
static void embed_norm(float *y, const float *embed, const RewardModel *m, const Pass *p, int N) {
    const Matrix w = lora_own(p->adapter, &m->norm), b = lora_own(p->adapter, &m->norm_b);
    layernorm_forward(y, embed, w.data, b.data, m->config.stack.eps, N, embedding_width(&m->config));
}

/* x (N,C) = the embeddings' sum (causal), its norm, or the projection of its norm; room (N,E): scratch. */
static void embed_forward(float *x, float *embed, float *room, const RewardModel *m, const Texts *texts,
                          const Pass *p) {
    const int N = texts->N, projects = embedding_width(&m->config) != m->config.stack.C;
    if (m->config.stack.causal) { embed_sum(x, embed, m, texts, p); return; }
    embed_sum(embed, room, m, texts, p);
    embed_norm(projects ? room : x, embed, m, p, p->active * N);
    if (projects) lora_linear(x, room, p->adapter, &m->project, &m->project_b, N, p->ws);
}

/* y (n) = tanh, ReLU or GELU of x */
static void head_forward(float *y, const float *x, int head, size_t n) {
    if (head == HEAD_TANH) tanh_forward(y, x, n);
    else activation_forward(y, x, head == HEAD_RELU ? ACT_RELU : ACT_GELU, n);
}

static int forward(const RewardModel *m, const Lora *adapter, const Texts *texts, const Wanted *want,
                   RewardSaved *saved, float *logits, Arena *ws) {
    const size_t mark = ws->used;
    const int N = texts->N, C = m->config.stack.C, E = embedding_width(&m->config);
    Pass p;
    Cache one;
    int code = pass_begin(&p, m, adapter, texts, want, saved, ws);
    if (code != OK) { ws->used = mark; return code; }
    const int B = p.rows.M;                 /* rows that the head reads */
    float *x = saved ? saved->stack.x : floats(ws, N, C), *room = E == C ? x : floats(ws, N, E);
    float *embed = saved ? saved->embed : floats(ws, N, E), *state = saved ? saved->state : floats(ws, B, C);
    float *dense = saved ? saved->dense : floats(ws, B, C), *pooled = floats(ws, B, C);
    if (!saved) cache_carve(&one, &m->config.stack, 1, 1, N, ws);
    if (ws->failed) { ws->used = mark; return E_MEMORY; }
    embed_forward(x, embed, room, m, texts, &p);
    code = stack_forward(&m->stack, adapter, &p.rows, saved ? &saved->kv : &one, saved ? &saved->stack : NULL,
                         x, state, ws);
    if (m->config.stack.causal) lora_linear(logits, state, adapter, &m->out, NULL, B, ws);
    else {
        lora_linear(dense, state, adapter, &m->dense, &m->dense_b, B, ws);
        head_forward(pooled, dense, m->config.head, (size_t)(p.active * B) * (size_t)C);
        lora_linear(logits, pooled, adapter, &m->out, &m->out_b, B, ws);
    }
    ws->used = mark;
    return ws->failed ? E_MEMORY : code;
}

int reward_forward(const RewardModel *m, const Lora *adapter, const Texts *texts, RewardSaved *saved,
                   float *logits, Arena *ws) {
    return forward(m, adapter, texts, NULL, saved, logits, ws);
}

int reward_values(const RewardModel *m, const Texts *texts, const Wanted *want, RewardSaved *saved,
                  float *value, Arena *ws) {
    return forward(m, NULL, texts, want, saved, value, ws);
}

/* ---- backward ---- */

/* Computes dy (B,C), the gradient of what the head reads, from dlogits (B,labels); adds to the classifier's
 * gradients. pooled and dpooled (B,C): scratch. */
static void head_backward(float *dy, float *pooled, float *dpooled, const RewardModel *m,
                          const float *dlogits, const RewardSaved *saved, const Pass *p) {
    const int head = m->config.head, B = p->rows.M;
    const size_t n = (size_t)B * (size_t)m->config.stack.C;
    memset(dy, 0, n * sizeof *dy);
    if (m->config.stack.causal) {
        lora_linear_backward(dy, dlogits, saved->state, p->adapter, &m->out, NULL, B, p->ws);
        return;
    }
    head_forward(pooled, saved->dense, head, n);
    memset(dpooled, 0, n * sizeof *dpooled);
    lora_linear_backward(dpooled, dlogits, pooled, p->adapter, &m->out, &m->out_b, B, p->ws);
    if (head == HEAD_TANH) tanh_backward(dy, dpooled, pooled, n);
    else activation_backward(dy, dpooled, saved->dense, head == HEAD_RELU ? ACT_RELU : ACT_GELU, n);
    memcpy(dpooled, dy, n * sizeof *dy);
    memset(dy, 0, n * sizeof *dy);
    lora_linear_backward(dy, dpooled, saved->state, p->adapter, &m->dense, &m->dense_b, B, p->ws);
}

/* Adds dx (N,C), the gradient of what the stack reads, to the tables and to what stands between; room and
 * dnorm (N,E): scratch, dnorm only if there is a projection. */
static void embed_backward(const float *dx, float *room, float *dnorm, const RewardModel *m,
                           const Texts *texts, const RewardSaved *saved, const Pass *p) {
    const int N = texts->N, E = embedding_width(&m->config);
    const size_t size = (size_t)(p->active * N) * (size_t)E * sizeof *room;
    const float *dsum = m->config.stack.causal ? dx : room;
    if (dnorm) {
        memset(dnorm, 0, size);
        embed_norm(room, saved->embed, m, p, N);
        lora_linear_backward(dnorm, dx, room, p->adapter, &m->project, &m->project_b, N, p->ws);
    }
    if (!m->config.stack.causal && p->active) {
        const Matrix w = lora_own(p->adapter, &m->norm), b = lora_own(p->adapter, &m->norm_b);
        memset(room, 0, size);
        layernorm_backward(room, dnorm ? dnorm : dx, saved->embed, &w, &b, m->config.stack.eps, N, E);
    }
    lora_embedding_backward(dsum, texts->token, p->adapter, &m->word, N, p->ws);
    if (!m->config.stack.rotary)
        lora_embedding_backward(dsum, p->position, p->adapter, &m->position, N, p->ws);
    if (m->config.types) lora_embedding_backward(dsum, p->type, p->adapter, &m->type, N, p->ws);
}

static int backward(const RewardModel *m, const Lora *adapter, const Texts *texts, const Wanted *want,
                    RewardSaved *saved, const float *dlogits, Arena *ws) {
    const size_t mark = ws->used;
    const int N = texts->N, C = m->config.stack.C, E = embedding_width(&m->config);
    Pass p;
    int code = pass_begin(&p, m, adapter, texts, want, saved, ws);
    if (code != OK) { ws->used = mark; return code; }
    const int B = p.rows.M;
    float *dx = floats(ws, N, C), *room = floats(ws, N, E > C ? E : C), *dy = floats(ws, B, C);
    float *dnorm = E == C ? NULL : floats(ws, N, E);
    if (!p.active) {
        if (!m->config.stack.causal) lora_measure(adapter, &m->dense, B, ws);
        lora_measure(adapter, &m->out, B, ws);
        if (E != C) lora_measure(adapter, &m->project, N, ws);
    }
    if (ws->failed) { ws->used = mark; return E_MEMORY; }
    if (p.active) head_backward(dy, dx, room, m, dlogits, saved, &p);
    code = stack_backward(&m->stack, adapter, &p.rows, &saved->kv, &saved->stack, dy, dx, ws);
    if (m->word.grad || adapter) embed_backward(dx, room, dnorm, m, texts, saved, &p);
    ws->used = mark;
    return ws->failed ? E_MEMORY : code;
}

int reward_backward(const RewardModel *m, const Lora *adapter, const Texts *texts, RewardSaved *saved,
                    const float *dlogits, Arena *ws) {
    return backward(m, adapter, texts, NULL, saved, dlogits, ws);
}

int reward_values_backward(const RewardModel *m, const Texts *texts, const Wanted *want, RewardSaved *saved,
                           const float *dvalue, Arena *ws) {
    return backward(m, NULL, texts, want, saved, dvalue, ws);
}

/* ---- the pairwise loss ---- */

/* Returns the margin of pair i: logit 0 of text 2i minus logit 0 of text 2i + 1. */
static float margin(const float *logits, int labels, int i) {
    return logits[(size_t)(2 * i) * labels] - logits[(size_t)(2 * i + 1) * labels];
}

/* -log sigmoid(d) = log(1 + e^-d), and -log sigmoid(-d) is d more. */
void ranking_forward(float *loss, const float *logits, const float *target, int labels, int pairs) {
    for (int i = 0; i < pairs; i++) {
        const float d = margin(logits, labels, i);
        loss[i] = log1p_exp(-d) + (target ? (1 - target[i]) * d : 0);
    }
}

/* d loss / d margin = (1 - p) - sigmoid(-margin). The exponent is never positive, so e^ cannot overflow. */
void ranking_backward(float *dlogits, const float *dloss, const float *logits, const float *target,
                      int labels, int pairs) {
    for (int i = 0; i < pairs; i++) {
        const float d = margin(logits, labels, i), e = exp_own(-fabsf(d));
        const float slope = (target ? 1 - target[i] : 0) - (d > 0 ? e : 1.0f) / (1.0f + e);
        dlogits[(size_t)(2 * i) * labels] += dloss[i] * slope;
        dlogits[(size_t)(2 * i + 1) * labels] -= dloss[i] * slope;
    }
}
