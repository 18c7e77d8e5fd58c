/* stack.c - the transformer: one block, forward and backward, and the loop over the blocks, for all models.
 *
 * Source   Vaswani et al. 2017; Touvron et al. 2023 (Llama), Radford et al. 2019 (GPT-2), Liu et al. 2019
 *          (RoBERTa), Raffel et al. 2020 (T5). Names, order of operations and constants are those of Hugging
 *          Face's implementations.
 * Needs    core.c, ops.c, lora.c. No heap, no stdio.
 *
 * A stack is data: a StackKind has its numbers and says which of these it does.
 *     PRE (Llama, GPT-2, T5):   mid = x + o(attention(q(n), k(n), v(n))), n = norm1(x)
 *                               y = mid + mlp(norm2(mid))
 *     POST (BERT, RoBERTa):     sum = x + o(attention(q(x), k(x), v(x))), m = norm1(sum)
 *                               y = m + mlp(m), and norm2(y) goes on
 *     cross-attention, between the two halves of a T5 decoder's block:
 *                               mid2 = mid + o(attention(q(norm(mid)), the encoder's keys and values))
 *     mlp(n) = down(act(gate(n)) * up(n)), or down(act(up(n)))
 *
 * The stream is what is handed from block to block: x and y above. With POST it is the sum before norm2, so
 * that norm2's backward pass has its input; the next block applies that norm first (input_of). The stack's
 * output is the stream after its last norm.
 *
 * Rows. N rows enter: one token each, of several texts, one after another, without padding. Keys and values
 * of every row go into a cache, and attention reads them from there. Only M of the rows may be wanted at the
 * end: then the last block computes keys and values for all rows, and everything else for the wanted rows
 * alone.
 *
 * Memory. Saved activations are the input of each linear that is costly to compute again. With recompute only
 * the streams are kept, and the backward pass runs a block's forward functions again: the same lines, the
 * same bits. Scratch comes from a workspace. A workspace with base == NULL is measured by the same lines:
 * `active` is then 0, so that operations without a workspace get no rows. */
#include "rlhf.h"

/* ===================================================================================================
 * The list of tensors, tables
 * =================================================================================================== */

/* Where a stack's tensors are placed: the list, the family's names, types of the linears, the layer. */
typedef struct { TensorList *list; const Names *names; const WeightTypes *types; int l; } Place;

const char *stack_name(const Names *names, int part) {
    return names && names->part[part] ? names->part[part] : "";
}

/* Returns the type in which a linear of layer l is held. */
static int linear_type(const WeightTypes *t, const char *pattern, int l) {
    char name[sizeof t->kept->name];
    if (t->layers != NF4 || !t->kept || name_format(name, sizeof name, pattern, l) != OK) return t->layers;
    for (const KeptLinear *k = t->kept; k->name[0]; k++) if (strcmp(k->name, name) == 0) return k->type;
    return NF4;
}

static void place_linear(const Place *p, Matrix *w, int part, int O, int I, int role) {
    const WeightTypes *t = p->types;
    const int type = linear_type(t, stack_name(p->names, part), p->l);
    if (p->names && p->names->transposed) role |= TENSOR_TRANSPOSED;
    tensor_carve(p->list, w, stack_name(p->names, part), p->l, type, O, I, TENSOR_LINEAR | role);
    w->compute = w->output = t->compute;
    if (type == NF4) tensor_carve_quant(w, t->kind, t->block, t->doubled, p->list->arena);
}

static void place_vector(const Place *p, Matrix *w, int part, int n, int role) {
    tensor_carve(p->list, w, stack_name(p->names, part), p->l, F32, 1, n, role);
}

static void place_norm(const Place *p, Matrix *w, Matrix *b, int part, const StackKind *k) {
    place_vector(p, w, part, k->C, TENSOR_NORM);
    if (k->norm == NORM_LAYER) place_vector(p, b, part + NAME_NORM1_B - NAME_NORM1, k->C, TENSOR_BIAS);
}

/* Places one matrix for queries, keys and values, and one vector of their biases; q, k and v are parts of
 * them. */
static void place_joined(const Place *p, AttentionWeights *w, const StackKind *k) {
    const int wide = k->H * k->D, narrow = k->K * k->D, both = wide + narrow;
    place_linear(p, &w->qkv, NAME_QKV, both + narrow, k->C, 0);
    w->q = matrix_part(&w->qkv, 0, wide);
    w->k = matrix_part(&w->qkv, wide, narrow);
    w->v = matrix_part(&w->qkv, both, narrow);
    if (!(k->biases & BIAS_QKV)) return;
    place_vector(p, &w->qkv_b, NAME_QKV_B, both + narrow, TENSOR_BIAS);
    w->q_b = matrix_part(&w->qkv_b, 0, wide);
    w->k_b = matrix_part(&w->qkv_b, wide, narrow);
    w->v_b = matrix_part(&w->qkv_b, both, narrow);
}

/* Places the tensors of one attention. shift: the distance of its names from the self-attention's. The norm
 * is placed first with PRE and last with POST, as in files. */
static void place_attention(const Place *p, AttentionWeights *w, const StackKind *k, int shift) {
    const int wide = k->H * k->D, narrow = k->K * k->D;
    if (k->norm_place == NORM_PRE) place_norm(p, &w->norm, &w->norm_b, NAME_NORM1 + shift, k);
    if (k->joined) place_joined(p, w, k);
    else {
        place_linear(p, &w->q, NAME_Q + shift, wide, k->C, 0);
        if (k->biases & BIAS_QKV) place_vector(p, &w->q_b, NAME_Q_B + shift, wide, TENSOR_BIAS);
        place_linear(p, &w->k, NAME_K + shift, narrow, k->C, 0);
        if (k->biases & BIAS_QKV) place_vector(p, &w->k_b, NAME_K_B + shift, narrow, TENSOR_BIAS);
        place_linear(p, &w->v, NAME_V + shift, narrow, k->C, 0);
        if (k->biases & BIAS_QKV) place_vector(p, &w->v_b, NAME_V_B + shift, narrow, TENSOR_BIAS);
    }
    place_linear(p, &w->o, NAME_O + shift, k->C, wide, TENSOR_RESIDUAL);
    if (k->biases & BIAS_O) place_vector(p, &w->o_b, NAME_O_B + shift, k->C, TENSOR_BIAS);
    if (k->qk_norm) {
        place_vector(p, &w->q_norm, NAME_Q_NORM + shift, k->D, TENSOR_NORM);
        place_vector(p, &w->k_norm, NAME_K_NORM + shift, k->D, TENSOR_NORM);
    }
    if (k->norm_place == NORM_POST) place_norm(p, &w->norm, &w->norm_b, NAME_NORM1 + shift, k);
}

static void place_block(const Place *p, Block *b, const StackKind *k) {
    place_attention(p, &b->self, k, 0);
    if (k->cross) place_attention(p, &b->cross, k, NAME_CROSS - NAME_NORM1);
    if (k->norm_place == NORM_PRE) place_norm(p, &b->norm2, &b->norm2_b, NAME_NORM2, k);
    if (k->gated) {
        place_linear(p, &b->gate, NAME_GATE, k->F, k->C, 0);
        if (k->biases & BIAS_MLP) place_vector(p, &b->gate_b, NAME_GATE_B, k->F, TENSOR_BIAS);
    }
    place_linear(p, &b->up, NAME_UP, k->F, k->C, 0);
    if (k->biases & BIAS_MLP) place_vector(p, &b->up_b, NAME_UP_B, k->F, TENSOR_BIAS);
    place_linear(p, &b->down, NAME_DOWN, k->C, k->F, TENSOR_RESIDUAL);
    if (k->biases & BIAS_MLP) place_vector(p, &b->down_b, NAME_DOWN_B, k->C, TENSOR_BIAS);
    if (k->norm_place == NORM_POST) place_norm(p, &b->norm2, &b->norm2_b, NAME_NORM2, k);
}

/* Returns the number of the frequency that turns `turns` times within the original positions. */
static double yarn_index(const Rope *r, int D, double turns) {
    const double pi = 3.14159265358979323846;
    return D * log(r->original / (turns * 2 * pi)) / (2 * log(r->theta));
}

/* Returns the part of frequency j that YaRN keeps (Peng et al. 2023, eq. 23): 1 for fast ones, 0 for slow
 * ones, a straight line between. transformers cuts the ends of the line to whole numbers, unless uncut. */
static double yarn_part(const Rope *r, int D, int j) {
    double low = yarn_index(r, D, r->high), high = yarn_index(r, D, r->low), part;
    if (!r->uncut) { low = floor(low); high = ceil(high); }
    if (low < 0) low = 0;
    if (high > D - 1) high = D - 1;
    if (low == high) high += 0.001;
    part = (j - low) / (high - low);
    return 1 - (part < 0 ? 0 : part > 1 ? 1 : part);
}

/* Returns theta^(-2j/D), scaled as config.json's rope_scaling asks: linear divides all frequencies; llama3
 * and yarn divide the slow ones, keep the fast ones, and blend between the two. */
static double inverse_frequency(const Rope *r, int D, int j) {
    double inv = (double)(f32)pow(r->theta, -2.0 * j / D);
    if (r->type == ROPE_LINEAR) return inv / r->factor;
    if (r->type == ROPE_YARN) {
        const double keep = yarn_part(r, D, j);
        return (1 - keep) * inv / r->factor + keep * inv;
    }
    if (r->type != ROPE_LLAMA3) return inv;
    double wavelength = 2 * 3.14159265358979323846 / inv, turns = r->original / wavelength;
    if (turns > r->high) return inv;
    if (turns < r->low) return inv / r->factor;
    double blend = (turns - r->low) / (r->high - r->low);
    return (1 - blend) * inv / r->factor + blend * inv;
}

static void rope_tables(Stack *s) {
    size_t half = (size_t)(s->kind.D / 2);
    const double scale = s->kind.rope.type == ROPE_YARN ? s->kind.rope.attention : 1;
    for (size_t j = 0; j < half; j++) {
        f32 inv = (f32)inverse_frequency(&s->kind.rope, s->kind.D, (int)j);
        for (int p = 0; p < s->positions; p++) {
            f32 angle = (f32)p * inv;                           /* transformers multiplies in float32 */
            s->rope_cos[(size_t)p * half + j] = (float)(cos((double)angle) * scale);
            s->rope_sin[(size_t)p * half + j] = (float)(sin((double)angle) * scale);
        }
    }
}

/* Returns the bucket of a distance = key - query (T5). Small distances have a bucket each; larger ones share
 * buckets by logarithm, up to k->distance. An encoder has half of the buckets for keys after the query; a
 * causal stack has all of them for keys before it. */
static int bucket_of(const StackKind *k, int distance) {
    int n = k->causal ? k->buckets : k->buckets / 2, first = !k->causal && distance > 0 ? n : 0,
        exact = n / 2, large;
    if (k->causal) distance = distance < 0 ? -distance : 0;
    else if (distance < 0) distance = -distance;
    if (distance < exact) return first + distance;
    f32 part = (f32)log((double)((f32)distance / (f32)exact)) / (f32)log((double)k->distance / exact);
    large = exact + (int)(part * (f32)(n - exact));
    return first + (large < n ? large : n - 1);
}

int stack_carve(Stack *s, const StackKind *k, const Names *names, const WeightTypes *types, int positions,
                TensorList *list,
                Pool *lists, Error *err) {
    Place place = { list, names, types, 0 };
    Arena *a = list->arena;
    memset(s, 0, sizeof *s);
    s->kind = *k;
    s->positions = positions;
    s->compute = types->compute;
    if (list->trainable && types->layers != F32)
        return fail(err, E_UNSUPPORTED, "weights that are trained have to be F32", "", 0, 0);
    if (k->cross && k->norm_place == NORM_POST)
        return fail(err, E_UNSUPPORTED, "cross-attention with norms after sums", "", 0, 0);
    if (k->cross && k->joined)
        return fail(err, E_UNSUPPORTED, "cross-attention with joined queries and keys", "", 0, 0);
    s->block = pool_take(lists, (size_t)k->L, sizeof *s->block);
    if (!s->block) return fail(err, E_MEMORY, "no memory for the list of layers", "", 0, 0);
    for (place.l = 0; place.l < k->L; place.l++) place_block(&place, &s->block[place.l], k);
    place.l = 0;
    if (k->buckets)                         /* no EMBEDDING, as nothing reads an adapter's pair for it */
        tensor_carve(list, &s->buckets, stack_name(names, NAME_BUCKETS), 0, F32, k->buckets, k->H, 0);
    if (k->norm_place == NORM_PRE) place_norm(&place, &s->norm, &s->norm_b, NAME_NORM, k);
    if (k->rotary) {
        s->rope_cos = arena_take(a, (size_t)positions * (size_t)(k->D / 2), sizeof *s->rope_cos);
        s->rope_sin = arena_take(a, (size_t)positions * (size_t)(k->D / 2), sizeof *s->rope_sin);
        if (s->rope_sin) rope_tables(s);
    }
    if (k->buckets) {
        s->bucket = arena_take(a, 2 * (size_t)positions + 1, sizeof *s->bucket);
        for (int d = -positions; s->bucket && d <= positions; d++) s->bucket[d + positions] = bucket_of(k, d);
    }
    return a->failed ? fail(err, E_MEMORY, "no memory for the layers", "", 0, 0) : OK;
}

size_t stack_tensors(const StackKind *k) { return (size_t)k->L * NAMES + 3; }

void cache_carve(Cache *c, const StackKind *k, int layers, int B, int T, Arena *a) {
    size_t width = (size_t)(k->K * k->D), n = (size_t)layers * (size_t)B * (size_t)T;
    c->L = layers;
    c->B = B;
    c->T = T;
    c->reading = NULL;
    c->width = k->K * k->D;
    c->k = arena_take(a, n, width * sizeof *c->k);
    c->v = arena_take(a, n, width * sizeof *c->v);
}

static float *floats(Arena *a, size_t rows, int width) {
    return arena_take(a, rows, (size_t)width * sizeof(float));
}

void saved_carve(Saved *s, const StackKind *k, int N, int M, int recompute, Arena *a) {
    const size_t n = (size_t)N, all = (size_t)k->L * n, wide = (size_t)(k->H * k->D);
    const size_t rows = !recompute ? (size_t)(k->L - 1) * n + (size_t)M : k->L > 1 ? n : (size_t)M;
    memset(s, 0, sizeof *s);
    s->N = N;
    s->M = M;
    s->recompute = recompute;
    s->x = floats(a, all, k->C);
    s->q = floats(a, rows, (int)wide);
    s->att = floats(a, rows, (int)wide);
    s->mid = floats(a, rows, k->C);
    if (k->qk_norm) {
        s->q_in = floats(a, rows, (int)wide);
        s->k_in = floats(a, recompute ? n : all, k->K * k->D);
    }
    if (k->cross) {
        s->cross_q = floats(a, rows, (int)wide);
        s->cross_att = floats(a, rows, (int)wide);
        s->cross_mid = floats(a, rows, k->C);
    }
    if (k->gated) s->gate = floats(a, rows, k->F);
    s->up = floats(a, rows, k->F);
    s->last = floats(a, (size_t)M, k->C);
}

/* ===================================================================================================
 * What forward and backward share
 * =================================================================================================== */

/* The arguments of one pass of rows through a stack. */
typedef struct {
    const Stack *s; const Lora *adapter; const StackRows *rows; Cache *kv; Arena *ws;
    /* 1: computing; 0: only measuring, and operations that take no workspace get 0 rows */
    int active;
    Heads heads;
    /* (M) the wanted rows' own, for the last layer; NULL: all rows are wanted */
    int *first, *count, *self, *position;
    int *near, *near_count;                 /* (N) what rows see in layers with a window */
} Pass;

/* The arrays that one layer works on. In training, those that its backward pass needs are part of the saved
 * activations. */
typedef struct {
    float *x;                               /* (N,C) the stream that enters */
    float *q, *att, *mid, *gate, *up;       /* (M,.) M is N, but for the last layer */
    float *q_in, *k_in;                     /* (M,H*D) (N,K*D) queries and keys before their norms */
    float *cross_q, *cross_att, *cross_mid; /* (M,.) */
    float *input, *norm, *act, *k, *v, *some;   /* scratch: (N,C) (N,C) (N,F) (N,K*D) (N,K*D) (M,C) */
} Layer;

static void copy(float *y, const float *x, size_t n) {
    if (n && y != x) IN_PARTS((double)n * 4, n, memcpy(y + from, x + from, (to - from) * sizeof *y));
}
static void zero(float *x, size_t n) {
    if (n) IN_PARTS((double)n * 4, n, memset(x + from, 0, (to - from) * sizeof *x));
}

/* Copies rows row[m] of x (N,C) to y (M,C); scatter_add adds dy (M,C) to rows row[m] of dx (N,C). */
static void gather(float *y, const float *x, const int *row, int M, int C) {
    const size_t c = (size_t)C;
    for (int m = 0; m < M; m++) memcpy(y + (size_t)m * c, x + (size_t)row[m] * c, c * sizeof *y);
}
static void scatter_add(float *dx, const float *dy, const int *row, int M, int C) {
    for (int m = 0; m < M; m++) {
        float *to = dx + (size_t)row[m] * (size_t)C;
        const float *from = dy + (size_t)m * (size_t)C;
        for (int c = 0; c < C; c++) to[c] += from[c];
    }
}

/* Returns 1 if layer l is the last one and computes only the wanted rows. */
static int selects(const Pass *p, int l) { return p->rows->want && l == p->s->kind.L - 1; }
static int rows_out(const Pass *p, int l) { return selects(p, l) ? p->rows->M : p->rows->N; }

static void norm_forward(const Pass *p, float *y, const float *x, const Matrix *w, const Matrix *b, int N) {
    const StackKind *k = &p->s->kind;
    const Matrix own = lora_own(p->adapter, w), own_b = lora_own(p->adapter, b);
    if (k->norm == NORM_RMS) rmsnorm_forward(y, x, own.data, k->eps, N, k->C);
    else layernorm_forward(y, x, own.data, own_b.data, k->eps, N, k->C);
}
static void norm_backward(const Pass *p, float *dx, const float *dy, const float *x, const Matrix *w,
                          const Matrix *b, int N) {
    const StackKind *k = &p->s->kind;
    const Matrix own = lora_own(p->adapter, w), own_b = lora_own(p->adapter, b);
    if (k->norm == NORM_RMS) rmsnorm_backward(dx, own.grad, dy, x, own.data, k->eps, N, k->C);
    else layernorm_backward(dx, dy, x, &own, &own_b, k->eps, N, k->C);
}

/* Returns the norm between the stream that enters layer l (L: that leaves the stack) and what the layer
 * reads, and its bias in *b; NULL if there is no norm. */
static const Matrix *boundary(const Stack *s, int l, const Matrix **b) {
    const int post = s->kind.norm_place == NORM_POST;
    if (post && l > 0) { *b = &s->block[l - 1].norm2_b; return &s->block[l - 1].norm2; }
    *b = &s->norm_b;
    return !post && l == s->kind.L ? &s->norm : NULL;
}

/* Returns what layer l reads: the stream itself, or its norm, which is computed into room (N,C). */
static const float *input_of(const Pass *p, int l, const float *stream, float *room, int N) {
    const Matrix *b, *w = boundary(p->s, l, &b);
    if (!w) return stream;
    norm_forward(p, room, stream, w, b, p->active * N);
    return room;
}

/* y (N,O) = x (N,I) W^T + bias, with the adapter's part; adapted_add adds both to y. */
static void adapted(const Pass *p, float *y, const float *x, const Matrix *w, const Matrix *bias, int N) {
    lora_linear(y, x, p->adapter, w, bias, N, p->ws);
}
static void adapted_add(const Pass *p, float *y, const float *x, const Matrix *w, const Matrix *bias, int N) {
    lora_linear_add(y, x, p->adapter, w, bias, N, p->ws);
}
static void adapted_backward(const Pass *p, float *dx, const float *dy, const float *x, const Matrix *w,
                             const Matrix *bias, int N) {
    /* gradients that do not exist yet cannot say what they will need */
    if (!p->active) lora_measure(p->adapter, w, N, p->ws);
    else lora_linear_backward(dx, dy, x, p->adapter, w, bias, N, p->ws);
}

/* Returns the index of layer l's first float in the cache. A cache of one layer serves all in turn. */
static size_t layer_at(const Cache *kv, int l) {
    return (size_t)(l % kv->L) * (size_t)kv->B * (size_t)kv->T * (size_t)kv->width;
}

/* Return 1 if layer l has the stack's window, and RoPE. */
static int has_window(const StackKind *k, int l) {
    return k->window > 0 && (!k->period || (k->windowed >> (l % k->period) & 1));
}
static int rotates(const StackKind *k, int l) {
    return k->rotary && !(k->period && (k->unrotated >> (l % k->period) & 1));
}

/* The queries (heads H) or keys (K) of layer l: N rows, their positions, the weights of each head's norm. */
typedef struct { int l, heads, N; const int *position; const Matrix *norm; } HeadRows;

/* Applies each head's norm (Qwen3) and layer l's rotation to queries or keys x (N, heads * D), in place. in
 * (the same shape; NULL: there is no such norm) receives a copy of what the norm reads. */
static void norm_and_rotate(const Pass *p, float *x, float *in, const HeadRows *r) {
    const StackKind *k = &p->s->kind;
    const int n = p->active * r->N;
    if (k->qk_norm) {
        const Matrix own = lora_own(p->adapter, r->norm);
        copy(in, x, (size_t)n * (size_t)(r->heads * k->D));
        rmsnorm_forward(x, in, own.data, k->eps, n * r->heads, k->D);
    }
    if (rotates(k, r->l)) rope_rotate(x, r->position, p->s->rope_cos, p->s->rope_sin, 0, n, r->heads, k->D);
}

/* Turns dx, the gradient after rotation and norm, into that before them; room (N, heads * D): scratch. */
static void norm_and_rotate_backward(const Pass *p, float *dx, const float *in, const HeadRows *r,
                                     float *room) {
    const StackKind *k = &p->s->kind;
    const int n = p->active * r->N;
    const size_t all = (size_t)n * (size_t)(r->heads * k->D);
    if (rotates(k, r->l)) rope_rotate(dx, r->position, p->s->rope_cos, p->s->rope_sin, 1, n, r->heads, k->D);
    if (!k->qk_norm) return;
    const Matrix own = lora_own(p->adapter, r->norm);
    copy(room, dx, all);
    zero(dx, all);
    rmsnorm_backward(dx, own.grad, room, in, own.data, k->eps, n * r->heads, k->D);
}

/* keys_of, positions_of: return the keys and positions of the rows for which layer l computes queries. */
static Keys keys_of(const Pass *p, int l) {
    const Keys some = { p->first, p->count, p->self };
    Keys all = p->rows->keys;
    if (selects(p, l)) return some;
    if (has_window(&p->s->kind, l)) { all.first = p->near; all.count = p->near_count; }
    return all;
}
static const int *positions_of(const Pass *p, int l) {
    return selects(p, l) ? p->position : p->rows->position;
}
static HeadRows queries_of(const Pass *p, int l) {
    const HeadRows r = { l, p->s->kind.H, rows_out(p, l), positions_of(p, l), &p->s->block[l].self.q_norm };
    return r;
}
static HeadRows keys_rows(const Pass *p, int l) {
    const HeadRows r = { l, p->s->kind.K, p->rows->N, p->rows->position, &p->s->block[l].self.k_norm };
    return r;
}

/* ===================================================================================================
 * Forward
 * =================================================================================================== */

/* Computes keys and values of n (N,C), for all rows of layer l, and stores them in the cache. */
static void store_keys(const Pass *p, Layer *b, const AttentionWeights *w, const float *n, int l) {
    const StackRows *r = p->rows;
    const size_t layer = layer_at(p->kv, l), width = (size_t)p->kv->width;
    const HeadRows rows = keys_rows(p, l);
    const int direct = !r->slot;           /* row n is row n of the cache */
    float *k = direct && p->active ? p->kv->k + layer : b->k;
    float *v = direct && p->active ? p->kv->v + layer : b->v;
    adapted(p, k, n, &w->k, &w->k_b, r->N);
    adapted(p, v, n, &w->v, &w->v_b, r->N);
    norm_and_rotate(p, k, b->k_in, &rows);
    for (int i = 0; i < p->active * r->N && !direct; i++) {
        size_t at = layer + (size_t)r->slot[i] * width;
        memcpy(p->kv->k + at, k + (size_t)i * width, width * sizeof *k);
        memcpy(p->kv->v + at, v + (size_t)i * width, width * sizeof *v);
    }
}

/* mid (M,C) = x + o(attention(q(n), keys, values)), n = norm1(x) or x */
static void self_attention(const Pass *p, Layer *b, int l) {
    const StackKind *k = &p->s->kind;
    const AttentionWeights *w = &p->s->block[l].self;
    const int N = p->rows->N, M = rows_out(p, l);
    const size_t layer = layer_at(p->kv, l);
    const float *x = input_of(p, l, b->x, b->input, N), *n = x, *query;
    const Keys keys = keys_of(p, l);
    const HeadRows queries = queries_of(p, l);
    Qkv in;
    if (k->norm_place == NORM_PRE) {
        norm_forward(p, b->norm, x, &w->norm, &w->norm_b, p->active * N);
        n = b->norm;
    }
    store_keys(p, b, w, n, l);
    query = n;
    if (selects(p, l)) {
        gather(b->some, n, p->rows->want, p->active * M, k->C);
        query = b->some;
    }
    adapted(p, b->q, query, &w->q, &w->q_b, M);
    norm_and_rotate(p, b->q, b->q_in, &queries);
    if (p->active) {
        in.q = b->q;
        in.k = p->kv->k + layer;
        in.v = p->kv->v + layer;
        attention_forward(b->att, &in, &keys, M, &p->heads, p->ws);
    } else attention_measure(p->ws, p->rows->most, &p->heads);
    if (selects(p, l)) gather(b->mid, x, p->rows->want, p->active * M, k->C);
    else copy(b->mid, x, (size_t)(p->active * M) * (size_t)k->C);
    adapted_add(p, b->mid, b->att, &w->o, &w->o_b, M);
}

/* Returns which of the encoder's rows each row of layer l sees. If only the wanted rows are computed, the
 * lists of self-attention, which has run by then, are filled with the encoder's. */
static Keys cross_keys(const Pass *p, int l) {
    const Keys *all = &p->rows->encoded->keys;
    if (!selects(p, l)) return *all;
    for (int m = 0; m < p->active * p->rows->M; m++) {
        p->first[m] = all->first[p->rows->want[m]];
        p->count[m] = all->count[p->rows->want[m]];
    }
    return keys_of(p, l);
}

static Heads without_bias(Heads h) {
    h.bias = NULL;
    h.dbias = NULL;
    return h;
}

/* cross_mid (M,C) = mid + o(attention(q(norm(mid)), the encoder's keys and values)) */
static void cross_attention(const Pass *p, Layer *b, int l) {
    const StackKind *k = &p->s->kind;
    const AttentionWeights *w = &p->s->block[l].cross;
    const Encoded *e = p->rows->encoded;
    const int M = rows_out(p, l);
    const Heads heads = without_bias(p->heads);
    const Keys keys = cross_keys(p, l);
    Qkv in;
    norm_forward(p, b->norm, b->mid, &w->norm, &w->norm_b, p->active * M);
    adapted(p, b->cross_q, b->norm, &w->q, &w->q_b, M);
    if (p->active) {
        in.q = b->cross_q;
        in.k = e->kv.k + layer_at(&e->kv, l);
        in.v = e->kv.v + layer_at(&e->kv, l);
        attention_forward(b->cross_att, &in, &keys, M, &heads, p->ws);
    } else attention_measure(p->ws, e->N, &heads);
    copy(b->cross_mid, b->mid, (size_t)(p->active * M) * (size_t)k->C);
    adapted_add(p, b->cross_mid, b->cross_att, &w->o, &w->o_b, M);
}

/* middle returns the sum that the feed-forward half starts from; read_middle computes what this half reads of
 * it: norm2 of the sum, or norm1 with POST. */
static const float *middle(const Pass *p, const Layer *b) { return p->s->kind.cross ? b->cross_mid : b->mid; }
static void read_middle(const Pass *p, const Layer *b, int l) {
    const Block *w = &p->s->block[l];
    const int post = p->s->kind.norm_place == NORM_POST;
    norm_forward(p, b->norm, middle(p, b), post ? &w->self.norm : &w->norm2,
                 post ? &w->self.norm_b : &w->norm2_b,
                 p->active * rows_out(p, l));
}

/* Computes gate and up (M,F). The backward pass of this half starts from them and from the sum. */
static void gate_and_up(const Pass *p, Layer *b, int l) {
    const Block *w = &p->s->block[l];
    read_middle(p, b, l);
    if (p->s->kind.gated) adapted(p, b->gate, b->norm, &w->gate, &w->gate_b, rows_out(p, l));
    adapted(p, b->up, b->norm, &w->up, &w->up_b, rows_out(p, l));
}

/* act (M,F) = act(gate) * up, or act(up) */
static void activate(const Pass *p, const Layer *b, int l) {
    const StackKind *k = &p->s->kind;
    const size_t n = (size_t)(p->active * rows_out(p, l)) * (size_t)k->F;
    if (k->gated) gated_forward(b->act, b->gate, b->up, k->activation, n);
    else activation_forward(b->act, b->up, k->activation, n);
}

/* Computes one block: from the stream b->x (N,C) to the stream y (M,C); y may be b->x. */
static void block_forward(const Pass *p, float *y, Layer *b, int l) {
    const StackKind *k = &p->s->kind;
    const int M = rows_out(p, l);
    self_attention(p, b, l);
    if (k->cross) cross_attention(p, b, l);
    gate_and_up(p, b, l);
    activate(p, b, l);
    copy(y, k->norm_place == NORM_POST ? b->norm : middle(p, b), (size_t)(p->active * M) * (size_t)k->C);
    adapted_add(p, y, b->act, &p->s->block[l].down, &p->s->block[l].down_b, M);
}

/* Returns b with layer l's arrays among the saved activations. With recompute, layers share all arrays but
 * the stream. */
static Layer layer_of(const Pass *p, Layer b, const Saved *s, int l) {
    const StackKind *k = &p->s->kind;
    if (!s) return b;
    const size_t all = (size_t)l * (size_t)s->N, row = s->recompute ? 0 : all;
    const size_t wide = row * (size_t)(k->H * k->D);
    const size_t C = row * (size_t)k->C, F = row * (size_t)k->F;
    b.x = p->active ? s->x + all * (size_t)k->C : NULL;
    b.q = p->active ? s->q + wide : NULL;
    b.att = p->active ? s->att + wide : NULL;
    b.mid = p->active ? s->mid + C : NULL;
    b.up = p->active ? s->up + F : NULL;
    if (k->gated && p->active) b.gate = s->gate + F;
    if (k->qk_norm && p->active) {
        b.q_in = s->q_in + wide;
        b.k_in = s->k_in + row * (size_t)(k->K * k->D);
    }
    if (k->cross && p->active) {
        b.cross_q = s->cross_q + wide;
        b.cross_att = s->cross_att + wide;
        b.cross_mid = s->cross_mid + C;
    }
    return b;
}

/* Takes a layer's scratch from the workspace. kept: the activations are saved, and need no scratch. */
static Layer layer_take(const Pass *p, int kept) {
    const StackKind *k = &p->s->kind;
    const size_t N = (size_t)p->rows->N;
    const int wide = k->H * k->D, narrow = k->K * k->D;
    Arena *ws = p->ws;
    Layer b;
    memset(&b, 0, sizeof b);
    if (!kept) {
        b.x = floats(ws, N, k->C);
        b.q = floats(ws, N, wide);
        b.att = floats(ws, N, wide);
        b.mid = floats(ws, N, k->C);
        if (k->gated) b.gate = floats(ws, N, k->F);
        b.up = floats(ws, N, k->F);
        if (k->qk_norm) {
            b.q_in = floats(ws, N, wide);
            b.k_in = floats(ws, N, narrow);
        }
        if (k->cross) {
            b.cross_q = floats(ws, N, wide);
            b.cross_att = floats(ws, N, wide);
            b.cross_mid = floats(ws, N, k->C);
        }
    }
    if (k->norm_place == NORM_POST) b.input = floats(ws, N, k->C);
    b.norm = floats(ws, N, k->C);
    b.act = floats(ws, N, k->F);
    if (p->rows->want) b.some = floats(ws, (size_t)p->rows->M, k->C);
    return b;
}

/* Fills in a pass: the heads, and room for the keys and positions of the wanted rows. */
static Pass pass_begin(const Stack *s, const Lora *adapter, const StackRows *rows, Cache *kv, Arena *ws) {
    const StackKind *k = &s->kind;
    Pass p = { s, adapter, rows, kv, ws, 0, { 0, 0, 0, 0, NULL, NULL, NULL, 0 }, NULL, NULL, NULL, NULL,
               NULL, NULL };
    const size_t M = (size_t)rows->M;
    p.active = ws->base != NULL;
    p.heads.H = k->H;
    p.heads.K = k->K;
    p.heads.D = k->D;
    p.heads.scale = k->scale > 0 ? k->scale : 1 / sqrtf((float)k->D);
    if (k->buckets) {
        const Matrix buckets = lora_own(adapter, &s->buckets);
        p.heads.bias = buckets.data;
        p.heads.dbias = buckets.grad;
        p.heads.bucket = s->bucket;
        p.heads.reach = s->positions;
    }
    if (k->window) {
        p.near = arena_take(ws, (size_t)rows->N, sizeof(int));
        p.near_count = arena_take(ws, (size_t)rows->N, sizeof(int));
        for (int n = 0; n < p.active * rows->N && !ws->failed; n++) {
            const int count = rows->keys.count[n], beyond = count > k->window ? count - k->window : 0;
            p.near[n] = rows->keys.first[n] + beyond;
            p.near_count[n] = count - beyond;
        }
    }
    if (!rows->want) return p;
    p.first = arena_take(ws, M, sizeof(int));
    p.count = arena_take(ws, M, sizeof(int));
    p.self = arena_take(ws, M, sizeof(int));
    p.position = arena_take(ws, M, sizeof(int));
    return p;
}

/* Fills p->first, count, self and position with those of the wanted rows in the last layer. */
static void select_keys(const Pass *p) {
    const StackRows *r = p->rows;
    const int window = has_window(&p->s->kind, p->s->kind.L - 1);
    const int *first = window ? p->near : r->keys.first, *count = window ? p->near_count : r->keys.count;
    for (int m = 0; r->want && m < p->active * r->M; m++) {
        p->first[m] = first[r->want[m]];
        p->count[m] = count[r->want[m]];
        p->self[m] = r->keys.self ? r->keys.self[r->want[m]] : 0;
        p->position[m] = r->position ? r->position[r->want[m]] : 0;
    }
}

int stack_forward(const Stack *s, const Lora *adapter, const StackRows *rows, Cache *kv, Saved *saved,
                  float *x, float *y, Arena *ws) {
    const StackKind *k = &s->kind;
    const size_t mark = ws->used;
    Pass p = pass_begin(s, adapter, rows, kv, ws);
    Layer b = layer_take(&p, saved != NULL), here;
    b.k = rows->slot ? floats(ws, (size_t)rows->N, kv->width) : NULL;
    b.v = rows->slot ? floats(ws, (size_t)rows->N, kv->width) : NULL;
    const int fits = !saved || (rows->N <= saved->N && rows->M <= saved->M);
    if (ws->failed || (p.active && !fits)) { ws->used = mark; return E_MEMORY; }
    if (!saved) b.x = x;
    else copy(layer_of(&p, b, saved, 0).x, x, (size_t)(p.active * rows->N) * (size_t)k->C);
    for (int l = 0; l < k->L; l++) {
        if (!p.active && l > 0 && l < k->L - 1) continue;         /* they measure as the first */
        here = layer_of(&p, b, saved, l);
        select_keys(&p);
        float *next = l + 1 < k->L ? layer_of(&p, b, saved, l + 1).x : saved ? saved->last : b.x;
        block_forward(&p, next, &here, l);
    }
    input_of(&p, k->L, saved ? saved->last : b.x, y, rows->M);
    ws->used = mark;
    return ws->failed ? E_MEMORY : OK;
}

/* ===================================================================================================
 * Backward: the forward's lines in reverse, each adding to what flows back
 * =================================================================================================== */

/* Gradients. dx: of the stream, (M,C) or (N,C); dnorm: of what a norm gave. */
typedef struct { float *dx, *dnorm, *dq, *dk, *dv, *datt, *dgate, *dup, *dact, *dcache_k, *dcache_v,
                 *dcross_k, *dcross_v, *spare; } Flow;

/* Turns dx (N,C), the gradient of what layer l reads, into the gradient of the stream that enters it. */
static void boundary_backward(const Pass *p, Flow *f, const float *stream, int l, int N) {
    const Matrix *b, *w = boundary(p->s, l, &b);
    const size_t n = (size_t)(p->active * N) * (size_t)p->s->kind.C;
    if (!w) return;
    copy(f->dnorm, f->dx, n);
    zero(f->dx, n);
    norm_backward(p, f->dx, f->dnorm, stream, w, b, p->active * N);
}

/* y = base + down(act): turns dx from the gradient of y into the gradient of the sum in the middle. */
static void feed_forward_backward(const Pass *p, Flow *f, Layer *b, int l) {
    const StackKind *k = &p->s->kind;
    const Block *w = &p->s->block[l];
    const int M = rows_out(p, l);
    const size_t MC = (size_t)(p->active * M) * (size_t)k->C, MF = (size_t)(p->active * M) * (size_t)k->F;
    activate(p, b, l);
    zero(f->dact, MF);
    adapted_backward(p, f->dact, f->dx, b->act, &w->down, &w->down_b, M);
    zero(f->dup, MF);
    if (k->gated) {
        zero(f->dgate, MF);
        gated_backward(f->dgate, f->dup, f->dact, b->gate, b->up, k->activation, MF);
    } else activation_backward(f->dup, f->dact, b->up, k->activation, MF);
    read_middle(p, b, l);
    /* with POST the residual path starts after the norm */
    if (k->norm_place == NORM_POST) copy(f->dnorm, f->dx, MC);
    else zero(f->dnorm, MC);
    if (k->gated) adapted_backward(p, f->dnorm, f->dgate, b->norm, &w->gate, &w->gate_b, M);
    adapted_backward(p, f->dnorm, f->dup, b->norm, &w->up, &w->up_b, M);
    if (k->norm_place == NORM_PRE) {
        norm_backward(p, f->dx, f->dnorm, middle(p, b), &w->norm2, &w->norm2_b, p->active * M);
        return;
    }
    zero(f->dx, MC);
    norm_backward(p, f->dx, f->dnorm, middle(p, b), &w->self.norm, &w->self.norm_b, p->active * M);
}

/* Turns dx (M,C) from the gradient of cross_mid into that of mid, and adds the gradient of the encoder's
 * states to dhidden. */
static void cross_attention_backward(const Pass *p, Flow *f, Layer *b, int l) {
    const StackKind *k = &p->s->kind;
    const AttentionWeights *w = &p->s->block[l].cross;
    const Encoded *e = p->rows->encoded;
    const int M = rows_out(p, l), active = p->active * M;
    const size_t MQ = (size_t)active * (size_t)(k->H * k->D);
    const size_t EK = (size_t)(p->active * e->N) * (size_t)(k->K * k->D);
    const Heads heads = without_bias(p->heads);
    const Keys keys = cross_keys(p, l);
    zero(f->datt, MQ);
    adapted_backward(p, f->datt, f->dx, b->cross_att, &w->o, &w->o_b, M);
    zero(f->dq, MQ);
    zero(f->dcross_k, EK);
    zero(f->dcross_v, EK);
    if (p->active) {
        const size_t layer = layer_at(&e->kv, l);
        const Qkv in = { b->cross_q, e->kv.k + layer, e->kv.v + layer };
        const Qkv d = { f->dq, f->dcross_k, f->dcross_v };
        attention_backward(&d, f->datt, b->cross_att, &in, &keys, M, &heads, p->ws);
    } else attention_measure(p->ws, e->N, &heads);
    norm_forward(p, b->norm, b->mid, &w->norm, &w->norm_b, active);
    zero(f->dnorm, (size_t)active * (size_t)k->C);
    adapted_backward(p, f->dnorm, f->dq, b->norm, &w->q, &w->q_b, M);
    norm_backward(p, f->dx, f->dnorm, b->mid, &w->norm, &w->norm_b, active);
    const Lora reader = lora_of_texts(p->adapter);
    Pass read = *p;
    if (p->adapter) read.adapter = &reader;
    adapted_backward(&read, e->dhidden, f->dcross_k, e->hidden, &w->k, &w->k_b, e->N);
    adapted_backward(&read, e->dhidden, f->dcross_v, e->hidden, &w->v, &w->v_b, e->N);
}

/* Copies the gradients of keys and values from each row's slot of the cache to f->dk and f->dv. */
static void fetch_keys(const Pass *p, Flow *f) {
    const size_t width = (size_t)p->kv->width;
    for (int n = 0; n < p->active * p->rows->N && p->rows->slot; n++) {
        size_t at = (size_t)p->rows->slot[n] * width;
        memcpy(f->dk + (size_t)n * width, f->dcache_k + at, width * sizeof *f->dk);
        memcpy(f->dv + (size_t)n * width, f->dcache_v + at, width * sizeof *f->dv);
    }
}

/* From datt: computes dq, dk and dv, the gradients of what the three projections gave. */
static void scores_backward(const Pass *p, Flow *f, const Layer *b, int l) {
    const StackKind *k = &p->s->kind;
    const HeadRows queries = queries_of(p, l), own = keys_rows(p, l);
    const int M = rows_out(p, l);
    const size_t slots = (size_t)p->kv->B * (size_t)p->kv->T * (size_t)p->kv->width;
    const size_t layer = layer_at(p->kv, l);
    const Keys keys = keys_of(p, l);
    zero(f->dq, (size_t)(p->active * M) * (size_t)(k->H * k->D));
    zero(f->dcache_k, p->active ? slots : 0);
    zero(f->dcache_v, p->active ? slots : 0);
    if (p->active) {
        const Qkv in = { b->q, p->kv->k + layer, p->kv->v + layer }, d = { f->dq, f->dcache_k, f->dcache_v };
        attention_backward(&d, f->datt, b->att, &in, &keys, M, &p->heads, p->ws);
    } else attention_measure(p->ws, p->rows->most, &p->heads);
    fetch_keys(p, f);
    norm_and_rotate_backward(p, f->dq, b->q_in, &queries, f->spare);
    norm_and_rotate_backward(p, f->dk, b->k_in, &own, f->spare);
}

/* mid = x + o(attention(q(n), k(n), v(n))): turns dx from the gradient of mid (M,C) into the gradient of what
 * the layer reads (N,C). */
static void self_attention_backward(const Pass *p, Flow *f, Layer *b, int l) {
    const StackKind *k = &p->s->kind;
    const AttentionWeights *w = &p->s->block[l].self;
    const int N = p->rows->N, M = rows_out(p, l), C = k->C;
    const int pre = k->norm_place == NORM_PRE, some = selects(p, l);
    const size_t NC = (size_t)(p->active * N) * (size_t)C, MC = (size_t)(p->active * M) * (size_t)C;
    const float *x, *n, *query;
    float *dn;
    zero(f->datt, (size_t)(p->active * M) * (size_t)(k->H * k->D));
    adapted_backward(p, f->datt, f->dx, b->att, &w->o, &w->o_b, M);
    scores_backward(p, f, b, l);
    n = x = input_of(p, l, b->x, b->input, N);
    if (pre) {
        norm_forward(p, b->norm, x, &w->norm, &w->norm_b, p->active * N);
        n = b->norm;
    }
    query = n;
    if (some) {                             /* dx of the wanted rows moves to their places among all */
        copy(b->some, f->dx, MC);
        zero(f->dx, NC);
        scatter_add(f->dx, b->some, p->rows->want, p->active * M, C);
        gather(b->some, n, p->rows->want, p->active * M, C);
        query = b->some;
    }
    dn = pre ? f->dnorm : f->dx;
    if (pre) zero(dn, NC);
    if (some) {
        float *dquery = f->dact;            /* its room is free now */
        zero(dquery, MC);
        adapted_backward(p, dquery, f->dq, query, &w->q, &w->q_b, M);
        scatter_add(dn, dquery, p->rows->want, p->active * M, C);
    } else adapted_backward(p, dn, f->dq, query, &w->q, &w->q_b, M);
    adapted_backward(p, dn, f->dk, n, &w->k, &w->k_b, N);
    adapted_backward(p, dn, f->dv, n, &w->v, &w->v_b, N);
    if (pre) norm_backward(p, f->dx, dn, x, &w->norm, &w->norm_b, p->active * N);
}

/* Turns dx from the gradient of the stream that leaves block l (M,C) into that of the stream that enters it
 * (N,C). */
static void block_backward(const Pass *p, Flow *f, Layer *b, int l) {
    feed_forward_backward(p, f, b, l);
    if (p->s->kind.cross) cross_attention_backward(p, f, b, l);
    select_keys(p);
    self_attention_backward(p, f, b, l);
    boundary_backward(p, f, b->x, l, p->rows->N);
}

static Flow flow_take(const Pass *p) {
    const StackKind *k = &p->s->kind;
    const size_t N = (size_t)p->rows->N, slots = (size_t)p->kv->B * (size_t)p->kv->T;
    const int wide = k->H * k->D, narrow = k->K * k->D, most = k->F > k->C ? k->F : k->C;
    Arena *ws = p->ws;
    Flow f;
    memset(&f, 0, sizeof f);
    f.dnorm = floats(ws, N, k->C);
    f.dq = floats(ws, N, wide);
    f.datt = floats(ws, N, wide);
    if (k->gated) f.dgate = floats(ws, N, k->F);
    f.dup = floats(ws, N, k->F);
    f.dact = floats(ws, N, most);
    f.dcache_k = floats(ws, slots, narrow);
    f.dcache_v = floats(ws, slots, narrow);
    f.dk = p->rows->slot ? floats(ws, N, narrow) : f.dcache_k;
    f.dv = p->rows->slot ? floats(ws, N, narrow) : f.dcache_v;
    if (k->qk_norm) f.spare = floats(ws, N, wide);
    if (k->cross) {
        f.dcross_k = floats(ws, (size_t)p->rows->encoded->N, narrow);
        f.dcross_v = floats(ws, (size_t)p->rows->encoded->N, narrow);
    }
    return f;
}

int stack_backward(const Stack *s, const Lora *adapter, const StackRows *rows, Cache *kv, const Saved *saved,
                   const float *dy,
                   float *dx, Arena *ws) {
    const StackKind *k = &s->kind;
    const size_t mark = ws->used, MC = (size_t)rows->M * (size_t)k->C;
    Pass p = pass_begin(s, adapter, rows, kv, ws);
    Layer b = layer_take(&p, 1), here;
    Flow f = flow_take(&p);
    f.dx = dx;
    b.k = f.dk;                             /* with recompute, keys go where their gradients go later */
    b.v = f.dv;
    if (ws->failed) { ws->used = mark; return E_MEMORY; }
    copy(f.dx, dy, p.active ? MC : 0);
    boundary_backward(&p, &f, saved->last, k->L, rows->M);
    for (int l = k->L - 1; l >= 0; l--) {
        if (!p.active && l > 0 && l < k->L - 1) continue;
        here = layer_of(&p, b, saved, l);
        if (saved->recompute) {             /* keys and values enter the cache again, with the same bits */
            select_keys(&p);
            self_attention(&p, &here, l);
            if (k->cross) cross_attention(&p, &here, l);
            gate_and_up(&p, &here, l);
        }
        block_backward(&p, &f, &here, l);
    }
    ws->used = mark;
    return ws->failed ? E_MEMORY : OK;
}

/* ===================================================================================================
 * An encoder's rows as a decoder sees them
 * =================================================================================================== */
int stack_encoded(const Stack *s, const Lora *adapter, Encoded *e, Arena *ws) {
    Pass p;
    memset(&p, 0, sizeof p);
    p.adapter = adapter;
    p.ws = ws;
    for (int l = 0; l < s->kind.L; l++) {
        const AttentionWeights *w = &s->block[l].cross;
        const size_t layer = layer_at(&e->kv, l);
        adapted(&p, ws->base ? e->kv.k + layer : NULL, e->hidden, &w->k, &w->k_b, e->N);
        adapted(&p, ws->base ? e->kv.v + layer : NULL, e->hidden, &w->v, &w->v_b, e->N);
    }
    return ws->failed ? E_MEMORY : OK;
}
