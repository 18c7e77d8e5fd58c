/* model.c - the policy: embeddings, a causal stack, the head, a value head, forward and backward; sampling.
 *
 * One forward. Sampling and training run the same lines. Work comes in rows: one token of one sequence at one
 * position. Rows of several sequences of different lengths come one after another, without padding. Keys and
 * values go into the cache of their sequence, and attention reads them from there. Sampling adds one row per
 * living sequence, a prompt many, training all rows of a mini-batch and a place to save activations; nothing
 * else differs. Every operation gives a row the same bits whatever other rows are computed with it (ops.c).
 * So the log-prob of a sampled token is, bit for bit, the one that training computes.
 *
 * Source   Hugging Face's LlamaForCausalLM (Touvron et al. 2023), and whatever else a StackKind asks for
 *          (stack.c).
 * Needs    core.c, ops.c, lora.c, stack.c. No heap, no stdio.
 * Memory   weights, cache and saved activations from the caller's arena. Scratch from ws, measured by the
 *          same calls with ws->base == NULL: rows->N, rows->W and the cache's shape must be those of the
 *          largest batch, and nothing else is read.
 * Prompt   the rows of an adapter's soft prompt are rows as all others, with keys and values in the cache.
 * Edges    tokens, sequences and positions out of range are E_RANGE; so is a text longer than the cache. */
#include "rlhf.h"

/* ===================================================================================================
 * The list of tensors
 * =================================================================================================== */
int model_carve(Model *m, const ModelConfig *c, const WeightTypes *types, int trainable, int positions,
                Pool *lists, Arena *a, Error *err) {
    static const WeightTypes floats = { F32, F32, 0, 0, 0, 0, NULL };
    const WeightTypes *w = types ? types : &floats;
    const Names *names = c->names;
    const int C = c->stack.C;
    memset(m, 0, sizeof *m);
    m->config = *c;
    const size_t most = 3 + stack_tensors(&c->stack) + stack_tensors(&c->encoder);
    m->tensor = pool_take(lists, most, sizeof *m->tensor);
    TensorList t = { m->tensor, 0, trainable, a };
    if (!m->tensor) return fail(err, E_MEMORY, "no memory for the list of tensors", "", 0, 0);
    if (!c->stack.causal) return fail(err, E_ARGUMENT, "a policy's stack has to be causal", "", 0, 0);
    if (trainable && w->tables != F32)
        return fail(err, E_UNSUPPORTED, "weights that are trained have to be F32", "", 0, 0);
    tensor_carve(&t, &m->embedding, stack_name(names, NAME_WORD), 0, w->tables, c->V, C, TENSOR_EMBEDDING);
    if (c->learned)
        tensor_carve(&t, &m->position, stack_name(names, NAME_POSITION), 0, w->tables, c->positions, C,
                     TENSOR_EMBEDDING);
    int code = stack_carve(&m->stack, &c->stack, names, w, positions, &t, lists, err);
    if (!code && c->encoder.L)
        code = stack_carve(&m->encoder, &c->encoder, c->encoder_names, w, positions, &t, lists, err);
    if (code) return code;
    /* the head is the embedding: the gradients of both uses add up in one array */
    if (c->tied) {
        Arena nothing = { NULL, 0, 0, 0, 0 };
        TensorList tied = { m->tensor, t.tensors, 0, &nothing };
        tensor_carve(&tied, &m->head, stack_name(names, NAME_HEAD), 0, w->tables, c->V, C,
                     TENSOR_HEAD | TENSOR_TIED);
        m->head.data = m->embedding.data;
        m->head.grad = m->embedding.grad;
        t.tensors = tied.tensors;
    } else tensor_carve(&t, &m->head, stack_name(names, NAME_HEAD), 0, w->tables, c->V, C, TENSOR_HEAD);
    /* its output stays F32: a logit of 10 in bf16 would be off by up to 1/32 */
    m->head.compute = w->compute;
    m->tensors = t.tensors;
    return a->failed ? fail(err, E_MEMORY, "no memory for the model", "", 0, 0) : OK;
}

/* A T5 has no scale of its scores, so that its linears start as the published one's: 1 / sqrt(I), queries
 * 1 / sqrt(I D), the embedding 1. Its head, if it has one of its own, starts as a linear. */
static void init_seq2seq(Model *m, uint64_t seed) {
    const StackKind *k = &m->config.stack;
    for (int i = 0; i < m->tensors; i++) {
        const Tensor *t = &m->tensor[i];
        const Matrix *w = t->matrix;
        int query = 0;
        for (int l = 0; l < k->L; l++)
            query |= w == &m->stack.block[l].self.q || w == &m->stack.block[l].cross.q;
        for (int l = 0; l < m->config.encoder.L; l++) query |= w == &m->encoder.block[l].self.q;
        if (t->flags & TENSOR_TIED) continue;
        if (t->flags & TENSOR_VECTOR) tensor_fill(w, t->flags & TENSOR_NORM ? 1 : 0);
        else if (w == &m->embedding) tensor_normal(w, 1, seed);
        else tensor_normal(w, 1 / sqrt((double)w->I * (query ? k->D : 1)), seed);
    }
}

/* Fills the weights with normal numbers of deviation 0.02. Linears that add to the residual stream get
 * 0.02 / sqrt(2L), so that the stream keeps its size over L layers (GPT-2). */
void model_init(Model *m, uint64_t seed) {
    double residual = 0.02 / sqrt(2.0 * m->config.stack.L);
    if (m->config.encoder.L) { init_seq2seq(m, seed); return; }
    for (int i = 0; i < m->tensors; i++) {
        const Tensor *t = &m->tensor[i];
        if (t->flags & TENSOR_TIED) continue;
        if (t->flags & TENSOR_VECTOR) tensor_fill(t->matrix, t->flags & TENSOR_NORM ? 1 : 0);
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

void value_head_carve(ValueHead *h, int C, int layers, int trainable, Arena *a) {
    const int two = layers == 2, M = two ? 2 * C : C;
    TensorList list = { h->tensor, 0, trainable, a };
    memset(h, 0, sizeof *h);
    if (two) {
        tensor_carve(&list, &h->up, "v_head.0.weight", 0, F32, M, C, TENSOR_HEAD);
        tensor_carve(&list, &h->up_b, "v_head.0.bias", 0, F32, 1, M, TENSOR_BIAS);
    }
    tensor_carve(&list, &h->weight, two ? "v_head.2.weight" : "v_head.summary.weight", 0, F32, 1, M,
                 TENSOR_HEAD);
    tensor_carve(&list, &h->bias, two ? "v_head.2.bias" : "v_head.summary.bias", 0, F32, 1, 1, TENSOR_BIAS);
    h->tensors = list.tensors;
}

void value_head_init(ValueHead *h, uint64_t seed, int zero) {
    Rng r = rng_stream(seed, 0, 2);
    const float first = h->up.O ? 1 / sqrtf((float)h->up.I) : 0;
    const float last = zero ? 0 : 1 / sqrtf((float)h->weight.I);
    for (int i = 0; i < h->tensors; i++)
        tensor_uniform(h->tensor[i].matrix, i < h->tensors - 2 ? first : last, &r);
}

/* ===================================================================================================
 * Forward and backward
 * =================================================================================================== */

int model_prompt(const Model *m, const Lora *adapter) {
    return m->config.encoder.L ? 0 : lora_prompt(adapter);
}

static int check_rows(const Model *m, const Lora *adapter, const Rows *rows, const Cache *kv) {
    const int prompt = model_prompt(m, adapter);
    int positions = m->config.learned ? m->config.positions : m->stack.positions;
    if (m->stack.kind.cross && (!kv->reading || kv->reading->texts.B < kv->B)) return E_RANGE;
    for (int n = 0; n < rows->N; n++) {
        const int token = rows->token[n], sequence = rows->sequence[n], position = rows->position[n];
        if (token < -prompt || token >= m->config.V || sequence < 0 || sequence >= kv->B) return E_RANGE;
        if (position < 0 || position >= kv->T || position >= positions) return E_RANGE;
    }
    return OK;
}

/* Lays out the rows as a stack takes them. Row n has its key in its sequence's slot for its position, and
 * sees the slots from position 0 to its own. The arrays come from ws. */
static StackRows stack_rows(const Rows *rows, const Cache *kv, Arena *ws) {
    const size_t N = (size_t)rows->N;
    int *first = arena_take(ws, N, sizeof(int)), *count = arena_take(ws, N, sizeof(int));
    int *slot = arena_take(ws, N, sizeof(int));
    /* while measuring, lists are not NULL, but nobody reads them; a list of wanted rows is always counted */
    static const int unread = 0;
    const int some = rows->W < rows->N || !ws->base;
    int *want = some ? arena_take(ws, (size_t)rows->W, sizeof(int)) : NULL;
    StackRows s = { rows->N, rows->W, want, rows->position, slot, { first, count, slot }, kv->T, NULL };
    if (!ws->base) s.want = s.slot = &unread;
    if (!ws->base || ws->failed) return s;
    for (int n = 0, w = 0; n < rows->N; n++) {
        first[n] = rows->sequence[n] * kv->T;
        count[n] = rows->position[n] + 1;
        slot[n] = first[n] + rows->position[n];
        if (want && rows->wants[n] && w < rows->W) want[w++] = n;
    }
    return s;
}

/* Returns which rows of the encoder each row of the decoder sees: all of its sequence's text. */
static Encoded encoded_rows(const Rows *rows, const Reading *reading, Arena *ws) {
    Encoded e = reading->encoded;
    int *first = arena_take(ws, (size_t)rows->N, sizeof(int));
    int *count = arena_take(ws, (size_t)rows->N, sizeof(int));
    for (int n = 0; ws->base && !ws->failed && n < rows->N; n++) {
        const int *start = reading->texts.start + rows->sequence[n];
        first[n] = start[0];
        count[n] = start[1] - start[0];
    }
    e.keys.first = first;
    e.keys.count = count;
    e.keys.self = NULL;
    return e;
}

/* x (N,C) = the row of each token, plus the row of its position if positions are learned. room (N,C) is
 * scratch. */
static void embed(float *x, float *room, const Model *m, const Lora *adapter, const Rows *rows, Arena *ws) {
    lora_embedding(x, rows->token, adapter, &m->embedding, rows->N, ws);
    if (!m->config.learned) return;
    lora_embedding(room, rows->position, adapter, &m->position, rows->N, ws);
    if (!ws->base) return;
    for (size_t i = 0; i < (size_t)rows->N * (size_t)m->config.stack.C; i++) x[i] += room[i];
}

void reading_carve(Reading *s, const ModelConfig *c, int N, int B, int trained, int recompute, Arena *a) {
    const size_t n = (size_t)N * (size_t)c->stack.C;
    memset(s, 0, sizeof *s);
    s->texts.N = s->encoded.N = N;
    s->texts.B = B;
    s->trained = trained;
    s->encoded.hidden = arena_take(a, n, sizeof(float));
    cache_carve(&s->encoded.kv, &c->stack, c->stack.L, 1, N, a);
    cache_carve(&s->kv, &c->encoder, trained && !recompute ? c->encoder.L : 1, 1, N, a);
    if (!trained) return;
    s->encoded.dhidden = arena_take(a, n, sizeof(float));
    saved_carve(&s->saved, &c->encoder, N, N, recompute, a);
}

/* Lays out the encoder's rows: each sees all of its text. prompt: rows of the adapter's soft prompt. The
 * arrays come from ws. OK or E_RANGE. */
static int text_rows(StackRows *r, const Model *m, const Texts *t, int prompt, Arena *ws) {
    const size_t N = (size_t)t->N;
    int *first = arena_take(ws, N, sizeof(int)), *count = arena_take(ws, N, sizeof(int));
    int *self = arena_take(ws, N, sizeof(int));
    const StackRows rows = { t->N, t->N, NULL, NULL, NULL, { first, count, self }, t->N, NULL };
    *r = rows;
    if (!ws->base || ws->failed) return OK;
    if (t->start[0] != 0 || t->start[t->B] != t->N) return E_RANGE;     /* each row belongs to a text */
    for (int b = 0; b < t->B; b++) {
        if (t->start[b] < 0 || t->start[b] >= t->start[b + 1] || t->start[b + 1] > t->N) return E_RANGE;
        if (t->start[b + 1] - t->start[b] > m->encoder.positions) return E_RANGE;
        for (int n = t->start[b]; n < t->start[b + 1]; n++) {
            if (t->token[n] < -prompt || t->token[n] >= m->config.V) return E_RANGE;
            first[n] = t->start[b];
            count[n] = t->start[b + 1] - t->start[b];
            self[n] = n;
        }
    }
    return OK;
}

int model_encode(const Model *m, const Lora *adapter, const Texts *texts, Reading *s, Arena *ws) {
    const size_t mark = ws->used, n = (size_t)texts->N * (size_t)m->config.stack.C;
    const Lora reader = lora_of_texts(adapter);
    float *x;
    StackRows rows;
    if (adapter) adapter = &reader;
    int code = ws->base && (texts->N > s->kv.T || (s->trained && texts->N > s->saved.N)) ? E_RANGE : OK;
    if (code == OK) code = text_rows(&rows, m, texts, lora_prompt(adapter), ws);
    if (code != OK) { ws->used = mark; return code; }
    s->texts = *texts;
    s->encoded.N = texts->N;
    x = s->trained ? s->saved.x : arena_take(ws, n, sizeof *x);
    if (!ws->failed) lora_embedding(x, texts->token, adapter, &m->embedding, texts->N, ws);
    if (!ws->failed)
        code = stack_forward(&m->encoder, adapter, &rows, &s->kv, s->trained ? &s->saved : NULL, x,
                             s->encoded.hidden, ws);
    if (code == OK && !ws->failed) code = stack_encoded(&m->stack, adapter, &s->encoded, ws);
    ws->used = mark;
    return ws->failed ? E_MEMORY : code;
}

/* Carries the gradient of the encoder's states on through the encoder to the embedding. */
static void encoder_backward(const Model *m, const Lora *adapter, Reading *s, Arena *ws) {
    const size_t mark = ws->used;
    const Lora reader = lora_of_texts(adapter);
    StackRows rows;
    if (adapter) adapter = &reader;
    text_rows(&rows, m, &s->texts, lora_prompt(adapter), ws);
    float *dx = arena_take(ws, (size_t)s->texts.N * (size_t)m->config.stack.C, sizeof *dx);
    if (!ws->failed)
        stack_backward(&m->encoder, adapter, &rows, &s->kv, &s->saved, s->encoded.dhidden, dx, ws);
    if (!ws->failed) lora_embedding_backward(dx, s->texts.token, adapter, &m->embedding, s->texts.N, ws);
    ws->used = mark;
}

int model_forward(const Model *m, const Lora *adapter, const Rows *rows, Cache *kv, Saved *saved,
                  float *hidden, Arena *ws) {
    const size_t mark = ws->used, n = (size_t)rows->N * (size_t)m->config.stack.C;
    const int code = ws->base ? saved && saved->N < rows->N ? E_RANGE : check_rows(m, adapter, rows, kv)
                               : OK;
    if (code) return code;
    StackRows s = stack_rows(rows, kv, ws);
    Encoded e;
    if (m->stack.kind.cross) { e = encoded_rows(rows, kv->reading, ws); s.encoded = &e; }
    float *x = saved ? saved->x : arena_take(ws, n, sizeof *x);
    float *room = m->config.learned ? arena_take(ws, n, sizeof *x) : NULL;
    if (!ws->failed) embed(x, room, m, adapter, rows, ws);
    if (!ws->failed) stack_forward(&m->stack, adapter, &s, kv, saved, x, hidden, ws);
    ws->used = mark;
    return ws->failed ? E_MEMORY : OK;
}

int model_backward(const Model *m, const Lora *adapter, const Rows *rows, Cache *kv, const Saved *saved,
                   const float *dhidden, Arena *ws) {
    const size_t mark = ws->used;
    StackRows s = stack_rows(rows, kv, ws);
    Encoded e;
    float *dx = arena_take(ws, (size_t)rows->N * (size_t)m->config.stack.C, sizeof *dx);
    if (m->stack.kind.cross) {
        const size_t n = (size_t)kv->reading->encoded.N * (size_t)m->config.stack.C;
        e = encoded_rows(rows, kv->reading, ws);
        s.encoded = &e;
        if (ws->base && !ws->failed) memset(e.dhidden, 0, n * sizeof *e.dhidden);
    }
    if (!ws->failed) stack_backward(&m->stack, adapter, &s, kv, saved, dhidden, dx, ws);
    if (!ws->failed) {
        lora_embedding_backward(dx, rows->token, adapter, &m->embedding, rows->N, ws);
        if (m->config.learned)
            lora_embedding_backward(dx, rows->position, adapter, &m->position, rows->N, ws);
    }
    ws->used = mark;
    if (m->stack.kind.cross && !ws->failed) encoder_backward(m, adapter, kv->reading, ws);
    return ws->failed ? E_MEMORY : OK;
}

/* ===================================================================================================
 * The head: log-probs, their gradient, exact KL, values. Block by block of rows.
 * =================================================================================================== */
enum { HEAD_ROWS = 512, HEAD_LOGITS = 1 << 21 };

/* Returns how many rows have logits in memory at a time: 64 with a large vocabulary, more with a small one,
 * so that the products have enough rows. */
static int head_rows(int V) {
    int rows = HEAD_LOGITS / V;
    return rows < 64 ? 64 : rows > HEAD_ROWS ? HEAD_ROWS : rows;
}

/* Returns 1 if all n logits are numbers. One that is not need not show in the log-prob of a token: beside a
 * logit of minus infinity, all log-probs but its own are numbers. */
static int are_numbers(const float *logit, int n) {
    int bad = 0;
    for (int v = 0; v < n; v++) bad |= !(logit[v] - logit[v] == 0);
    return !bad;
}

/* logits (n,V) of hidden states h (n,C) */
static void head_forward(const Model *m, const Lora *adapter, float *logits, const float *h, int n,
                         Arena *ws) {
    lora_linear(logits, h, adapter, &m->head, NULL, n, ws);
    if (!m->config.scaled) return;
    const float scale = 1 / sqrtf((float)m->config.stack.C);
    for (size_t i = 0; i < (size_t)n * (size_t)m->config.V; i++) logits[i] *= scale;
}

/* Adds to dh (n,C) and to the gradients of the head; dlogits (n,V) are overwritten. */
static void head_backward(const Model *m, const Lora *adapter, float *dh, float *dlogits, const float *h,
                          int n, Arena *ws) {
    const float scale = 1 / sqrtf((float)m->config.stack.C);
    for (size_t i = 0; m->config.scaled && i < (size_t)n * (size_t)m->config.V; i++) dlogits[i] *= scale;
    lora_linear_backward(dh, dlogits, h, adapter, &m->head, NULL, n, ws);
}

/* The logit of a token that may not be drawn. Its probability becomes exactly 0, and 0 times it is 0. */
#define CUT_LOGIT ((float)-1e30)

size_t kept_bytes(int V) { return ((size_t)V + 7) / 8; }

/* Cuts the logits (V) of all tokens that are not in the set. One that is not a number stays: it has to be
 * seen. */
static void keep_only(float *logits, const unsigned char *kept, int V) {
    for (int v = 0; v < V; v++)
        if (!(kept[v / 8] >> (v % 8) & 1) && logits[v] - logits[v] == 0) logits[v] = CUT_LOGIT;
}

/* Does so for n rows; kept NULL: does nothing. */
static void keep_rows(float *logits, const unsigned char *const *kept, int n, int V) {
    for (int i = 0; kept && i < n; i++) keep_only(logits + (size_t)i * (size_t)V, kept[i], V);
}

int model_logprobs(const Model *m, const Lora *adapter, const float *hidden, int W, const HeadTask *t,
                   Arena *ws) {
    const int V = m->config.V, block = head_rows(V);
    const size_t mark = ws->used, C = (size_t)m->config.stack.C, size = (size_t)block * (size_t)V;
    float *logits = arena_take(ws, size, sizeof *logits);
    float *dlogits = arena_take(ws, t->loss ? size : 0, sizeof *dlogits);
    Lora part;                              /* the adapter at the block's first row, for its dropout */
    lora_measure(adapter, &m->head, block, ws);
    if (!ws->base || ws->failed) { ws->used = mark; return ws->failed ? E_MEMORY : OK; }
    for (int w = 0; w < W; w++)
        if (t->target[w] < 0 || t->target[w] >= V) { ws->used = mark; return E_RANGE; }
    for (int at = 0; at < W; at += block) {
        const int n = W - at < block ? W - at : block, *target = t->target + at;
        const float *h = hidden + (size_t)at * C;
        float dlogprob[HEAD_ROWS] = {0}, *logprob = t->logprob + at;
        if (adapter) { part = *adapter; part.dropout.row += (uint64_t)at; }
        head_forward(m, adapter ? &part : NULL, logits, h, n, ws);
        keep_rows(logits, t->kept ? t->kept + at : NULL, n, V);
        logprob_forward(logprob, t->entropy ? t->entropy + at : NULL, logits, target, t->temperature, n, V);
        for (int i = 0; i < n; i++)
            if (!are_numbers(logits + (size_t)i * (size_t)V, V)) logprob[i] = NAN;
        if (!t->loss) continue;
        t->loss(t->context, at, n, logprob, dlogprob);
        memset(dlogits, 0, (size_t)n * (size_t)V * sizeof *dlogits);
        logprob_backward(dlogits, dlogprob, logprob, logits, target, t->temperature, n, V);
        if (t->dentropy) entropy_backward(dlogits, t->dentropy + at, logits, t->temperature, n, V);
        head_backward(m, adapter ? &part : NULL, t->dhidden + (size_t)at * C, dlogits, h, n, ws);
    }
    ws->used = mark;
    return ws->failed ? E_MEMORY : OK;
}

int model_full_kl(const States *a, const States *b, const unsigned char *const *kept, int W,
                  float temperature, float *kl, Arena *ws) {
    const int V = a->model->config.V, block = head_rows(V);
    const size_t mark = ws->used, C = (size_t)a->model->config.stack.C, size = (size_t)block * (size_t)V;
    float *logits = arena_take(ws, size, sizeof *logits), *other = arena_take(ws, size, sizeof *logits);
    lora_measure(a->adapter, &a->model->head, block, ws);
    lora_measure(b->adapter, &b->model->head, block, ws);
    if (!ws->base || ws->failed) { ws->used = mark; return ws->failed ? E_MEMORY : OK; }
    for (int at = 0; at < W; at += block) {
        const int n = W - at < block ? W - at : block;
        head_forward(a->model, a->adapter, logits, a->hidden + (size_t)at * C, n, ws);
        head_forward(b->model, b->adapter, other, b->hidden + (size_t)at * C, n, ws);
        keep_rows(logits, kept ? kept + at : NULL, n, V);
        full_kl_forward(kl + at, logits, other, temperature, n, V);
    }
    ws->used = mark;
    return ws->failed ? E_MEMORY : OK;
}

/* Returns what the last layer of a value head reads: hidden (W,C), or of two layers ReLU(up hidden) (W,2C),
 * which is in ws. */
static const float *value_inputs(const ValueHead *h, const float *hidden, int W, Arena *ws) {
    const size_t n = (size_t)W * (size_t)h->up.O;
    if (!h->up.O) return hidden;
    float *mid = arena_take(ws, n, sizeof *mid);
    if (ws->failed) return NULL;
    linear_forward(mid, hidden, &h->up, h->up_b.data, W, ws);
    if (ws->base) activation_forward(mid, mid, ACT_RELU, n);
    return mid;
}

void model_values(const ValueHead *h, const float *hidden, float *value, int W, Arena *ws) {
    const size_t mark = ws->used;
    const float *x = value_inputs(h, hidden, W, ws);
    if (!ws->failed) linear_forward(value, x, &h->weight, h->bias.data, W, ws);
    ws->used = mark;
}

void model_values_backward(const ValueHead *h, const float *dvalue, const float *hidden, float *dhidden,
                           int W, Arena *ws) {
    const size_t mark = ws->used, n = (size_t)W * (size_t)h->up.O;
    const float *x = value_inputs(h, hidden, W, ws);
    float *dmid = arena_take(ws, n, sizeof *dmid), *dup = arena_take(ws, n, sizeof *dup);
    /* while measuring there is no dvalue, and linear_backward would measure nothing */
    if (!ws->base) {
        linear_measure(ws, W, h->weight.I, 1, F32);
        if (n) linear_measure(ws, W, h->up.I, h->up.O, F32);
    } else if (!ws->failed && !n) linear_backward(dhidden, h->bias.grad, dvalue, x, &h->weight, W, ws);
    else if (!ws->failed) {
        memset(dmid, 0, n * sizeof *dmid);
        memset(dup, 0, n * sizeof *dup);
        linear_backward(dmid, h->bias.grad, dvalue, x, &h->weight, W, ws);
        activation_backward(dup, dmid, x, ACT_RELU, n);     /* ReLU(x) has the slope of x */
        linear_backward(dhidden, h->up_b.grad, dup, hidden, &h->up, W, ws);
    }
    ws->used = mark;
}

/* ===================================================================================================
 * Sampling
 * =================================================================================================== */
/* Returns 1 if id a comes before id b: if its logit is larger, or equal and its number smaller. */
static int ahead(const float *z, int a, int b) { return z[a] > z[b] || (z[a] == z[b] && a < b); }

/* Sifts id i of a heap of n ids down; the root of a heap is the id that comes first. */
static void sift(int *order, const float *z, int i, int n) {
    for (int child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && ahead(z, order[child + 1], order[child])) child++;
        if (ahead(z, order[i], order[child])) return;
        int swap = order[i]; order[i] = order[child]; order[child] = swap;
    }
}

/* Finds the ids that top-k and top-p leave, the most likely first: p[i] (not normalised) belongs to id
 * order[V-1-i]. Returns how many. The rules are Hugging Face's: top-k keeps ties at its threshold; top-p then
 * keeps the shortest beginning of the list whose sum reaches top_p of the total. */
static int nucleus(float *p, int *order, const float *z, int V, const Sampling *s) {
    int kept = 0, heap = V;
    float total = 0, sum = 0, max;
    for (int v = 0; v < V; v++) order[v] = v;
    for (int i = V / 2 - 1; i >= 0; i--) sift(order, z, i, V);
    max = z[order[0]];
    /* moves ids from the heap to the end of the array, the largest logit first */
    while (heap > 0) {
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

/* Writes the set of tokens that can be drawn: those with p[i] > 0 of the first n of order, from its end on,
 * or if order is NULL of all. */
static void write_kept(unsigned char *set, const float *p, const int *order, int n, int V) {
    memset(set, 0, kept_bytes(V));
    for (int i = 0; i < n; i++) {
        const int v = order ? order[V - 1 - i] : i;
        if (p[i] > 0) set[v / 8] |= (unsigned char)(1u << (v % 8));
    }
}

int sample_token(const float *logits, int V, const Sampling *s, Rng *rng, float *logprob,
                 unsigned char *kept, float *scratch, int *order) {
    const int cut = s->top_k > 0 || s->top_p < 1;
    int token = 0, n = V;
    double left = 0;
    if (s->temperature > 0) {               /* the token at a uniform point of the cumulative distribution */
        if (cut) n = nucleus(scratch, order, logits, V, s);
        else softmax_weights(scratch, logits, s->temperature, V);
        for (int i = 0; i < n; i++) left += (double)scratch[i];
        left *= rng_unit(rng);
        for (int i = 0; i < n; i++)
            if (scratch[i] > 0) {
                token = cut ? order[V - 1 - i] : i;
                if ((left -= (double)scratch[i]) < 0) break;
            }
        if (kept) write_kept(kept, scratch, cut ? order : NULL, n, V);
    } else
        for (int v = 1; v < V; v++) if (logits[v] > logits[token]) token = v;
    if (kept) {                             /* training computes the log-prob from the same numbers */
        memcpy(scratch, logits, (size_t)V * sizeof *scratch);
        keep_only(scratch, kept, V);
        logits = scratch;
    }
    const float temperature = s->temperature > 0 ? s->temperature : 1;
    if (logprob) logprob_forward(logprob, NULL, logits, &token, temperature, 1, V);
    return token;
}

static int is_eos(const ModelConfig *c, int token) {
    for (int i = 0; i < c->eos_count; i++) if (c->eos[i] == token) return 1;
    return 0;
}

/* The arrays of one step of writing: the rows of the next forward, and the sequences that are not done. */
typedef struct {
    Rows rows;
    int *token, *sequence, *position;       /* (N) what rows points to */
    unsigned char *wants;                   /* (N) 1: the last row of its sequence */
    int *live, alive;                       /* (B) the sequences that are not done; how many */
    float *logits, *logprob; int *next;     /* (block,V) (block) (block): drawn a block at a time */
    float *scratch; int *order;             /* (threads,V) for sample_token */
} Step;

/* Lays out the rows of the next forward: at the start the `soft` rows of the soft prompt and whole prompts,
 * then one row for each sequence that is not done. */
static void next_rows(Step *s, const Sequence *seq, int B, int soft, int start) {
    int N = 0;
    s->alive = 0;
    for (int b = 0; b < B; b++) {
        if (seq[b].done) continue;
        for (int t = start ? -soft : seq[b].length - 1; t < seq[b].length; t++, N++) {
            s->token[N] = t < 0 ? -1 - (t + soft) : seq[b].token[t];
            s->sequence[N] = b;
            s->position[N] = t + soft;
            s->wants[N] = t + 1 == seq[b].length;
        }
        s->live[s->alive++] = b;
    }
    s->rows.N = N;
    s->rows.W = s->alive;
}

/* Appends a token to sequence b, and sets its `done` if the sequence ends. */
static void append(Sequence *s, int b, int token, float logprob, float value, const ModelConfig *c,
                   const Writing *w) {
    int i = s->length - s->prompt;
    if (s->logprob) s->logprob[i] = logprob;
    if (s->value) s->value[i] = value;
    s->token[s->length++] = token;
    s->done = s->length >= s->capacity || (s->stop_at_eos && is_eos(c, token));
    if (w->on_token && w->on_token(w->context, b, token)) s->done = 1;
}

/* Draws the next token of sequences live[from] .. live[to-1]; row i of the logits belongs to live[i]. If not
 * all logits of a row are numbers, its log-prob is a NaN. Each thread has its own scratch. */
static void sample_rows(const Step *s, const int *live, Sequence *seq, const Sampling *how,
                        const ModelConfig *c, size_t from, size_t to) {
    const size_t V = (size_t)c->V, own = (size_t)thread_index() * V;
    for (size_t i = from; i < to; i++) {
        float *logits = s->logits + i * V;
        Sequence *one = &seq[live[i]];
        const int written = one->length - one->prompt, good = are_numbers(logits, c->V);
        unsigned char *kept = one->kept ? one->kept + (size_t)written * kept_bytes(c->V) : NULL;
        for (int k = 0; k < c->eos_count && written < one->least; k++)
            if (c->eos[k] >= 0 && c->eos[k] < c->V) logits[c->eos[k]] = CUT_LOGIT;
        s->next[i] = sample_token(logits, c->V, how, &one->rng, &s->logprob[i], kept, s->scratch + own,
                                  s->order + own);
        if (!good) s->logprob[i] = NAN;
    }
}

static Step step_take(int prompts, int B, int block, int V, Arena *ws) {
    const size_t N = (size_t)prompts, rows = (size_t)block, own = (size_t)threads_max() * (size_t)V;
    Step s;
    memset(&s, 0, sizeof s);
    s.token = arena_take(ws, N, sizeof *s.token);
    s.sequence = arena_take(ws, N, sizeof *s.sequence);
    s.position = arena_take(ws, N, sizeof *s.position);
    s.wants = arena_take(ws, N, 1);
    s.live = arena_take(ws, (size_t)B, sizeof *s.live);
    s.next = arena_take(ws, rows, sizeof *s.next);
    s.logits = arena_take(ws, rows * (size_t)V, sizeof *s.logits);
    s.logprob = arena_take(ws, rows, sizeof *s.logprob);
    s.scratch = arena_take(ws, own, sizeof *s.scratch);
    s.order = arena_take(ws, own, sizeof *s.order);
    s.rows.N = prompts;
    s.rows.W = B < prompts ? B : prompts;
    s.rows.token = s.token;
    s.rows.sequence = s.sequence;
    s.rows.position = s.position;
    s.rows.wants = s.wants;
    return s;
}

/* Returns the rows of the first forward, or -1 if a sequence cannot be written. soft: rows of the soft
 * prompt. */
static int begin_sequences(Sequence *seq, int B, int soft, const Cache *kv) {
    int prompts = 0;
    if (B > kv->B) return -1;
    for (int b = 0; b < B; b++) {
        if (seq[b].prompt < 1 || seq[b].length < seq[b].prompt || seq[b].capacity > kv->T - soft)
            return -1;
        seq[b].done = seq[b].length >= seq[b].capacity;
        prompts += soft + seq[b].length;
    }
    return prompts;
}

int model_generate(const Model *m, const Writing *w, Sequence *seq, int B, Cache *kv, Arena *ws) {
    const ModelConfig *c = &m->config;
    const int soft = model_prompt(m, w->adapter), prompts = begin_sequences(seq, B, soft, kv), V = c->V;
    const int block = head_rows(V) < B ? head_rows(V) : B;
    const size_t mark = ws->used, C = (size_t)c->stack.C;
    int code = OK;
    if (prompts < 0) return E_RANGE;
    Step s = step_take(prompts, B, block, V, ws);
    float *hidden = arena_take(ws, (size_t)B * C, sizeof *hidden);
    float *value = arena_take(ws, (size_t)B, sizeof *value);
    if (!ws->base) {
        model_forward(m, w->adapter, &s.rows, kv, NULL, hidden, ws);
        lora_measure(w->adapter, &m->head, block, ws);
        if (w->head) model_values(w->head, hidden, value, B, ws);
    }
    if (!ws->base || ws->failed) { ws->used = mark; return ws->failed ? E_MEMORY : OK; }
    for (int start = 1; code == OK; start = 0) {
        next_rows(&s, seq, B, soft, start);
        if (!s.alive) break;
        if ((code = model_forward(m, w->adapter, &s.rows, kv, NULL, hidden, ws)) != OK) break;
        if (w->head) model_values(w->head, hidden, value, s.alive, ws);
        for (int i0 = 0; i0 < s.alive && code == OK; i0 += block) {
            const int n = s.alive - i0 < block ? s.alive - i0 : block, *live = s.live + i0;
            head_forward(m, w->adapter, s.logits, hidden + (size_t)i0 * C, n, ws);
            IN_PARTS((double)n * V * 32, n, sample_rows(&s, live, seq, &w->sampling, c, from, to));
            for (int i = 0; i < n; i++)
                if (s.logprob[i] != s.logprob[i]) code = E_NUMBER;
            for (int i = 0; i < n && code == OK; i++)
                append(&seq[live[i]], live[i], s.next[i], s.logprob[i], w->head ? value[i0 + i] : 0, c, w);
        }
    }
    ws->used = mark;
    return code;
}
