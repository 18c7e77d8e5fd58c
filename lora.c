/* lora.c - low-rank adapters on any linear and any embedding of any model; soft prompts; what else an adapter
 *          changes.
 * Source   Hu et al. 2021 (LoRA), eq. 3; Liu et al. 2024 (DoRA), eq. 5; Lester et al. 2021 (prompt tuning);
 *          scaling and initialisation as Hugging Face peft has them.
 * Needs    core.c, ops.c. No heap, no stdio.
 * Idea     y = x W^T + scale (x A^T) B^T with W (O,I) frozen, A (R,I) and B (O,R) trained: R (O+I) numbers
 *          instead of O I. B starts at 0, so the adapted model starts as the base model, bit for bit.
 * DoRA     Row o of W + scale B A is scaled to the length magnitude[o], which is trained. Its own length
 *          (norm) counts as a constant in the backward pass, as in peft.
 * Prompt   A soft prompt is a table of a few rows. They stand for the embeddings of tokens that come before a
 *          text, and are trained; nothing else of the model changes.
 * Saved    A module may be trained whole instead (peft: modules_to_save, bias). The adapter then has a tensor
 *          of its own that stands in for the base's.
 * Dropout  only in training, and only of the adapter's input; the frozen product sees all of x (peft). x
 *          becomes m x / (1 - p), and m is 0 with probability p (Srivastava et al. 2014, inverted). The
 *          backward pass draws the same mask again; no mask is stored.
 * Never    touches W (but for lora_merge) and is never a state of the model: the adapter is an argument of
 *          the forward, and the reference policy is the same forward without it. */
#include "rlhf.h"

static size_t values_of(const Matrix *w) { return (size_t)w->O * (size_t)w->I; }

/* ---- the adapter's numbers ---- */

void lora_init(Lora *l, uint64_t seed) {
    for (int i = 0; i < l->pairs; i++) {
        const LoraPair *p = &l->pair[i];
        const Matrix *A = &p->A;
        if (!A->O) continue;
        Rng r = rng_stream(seed, (uint64_t)i, 1);
        float *x = A->data, bound = 1 / sqrtf((float)A->I);
        if (p->embedding) { tensor_fill(A, 0); tensor_normal(&p->B, 1, r.state); continue; }
        for (size_t k = 0; k < values_of(A); k++) x[k] = bound * (float)(2 * rng_unit(&r) - 1);
        tensor_fill(&p->B, 0);
    }
}

int lora_prompt(const Lora *l) { return l ? l->prompt.O : 0; }

void lora_prompt_init(Lora *l, const Matrix *embedding, const int *id, int n, uint64_t seed) {
    const size_t C = (size_t)l->prompt.I;
    Rng r = rng_stream(seed, 0, 3);
    if (l->prompt.O && !n && l->config.prompt.init == PROMPT_NORMAL) {
        tensor_normal(&l->prompt, 1, r.state);
        return;
    }
    for (int i = 0; i < l->prompt.O; i++) {
        const size_t row = n ? (size_t)id[i % n] : (size_t)rng_below(&r, (uint64_t)embedding->O);
        tensor_read((float *)l->prompt.data + (size_t)i * C, embedding, row * C, C);
    }
}

void lora_start(Lora *l, const Tensor *base) {
    for (int i = 0; i < l->pairs; i++) {
        const Matrix *own = &l->pair[i].saved;
        if (own->O) tensor_read(own->data, base[i].matrix, 0, values_of(own));
    }
}

void lora_copy(Lora *to, const Lora *from) {
    for (int i = 0; i < to->tensors; i++) {
        const Matrix *w = to->tensor[i].matrix;
        memcpy(w->data, from->tensor[i].matrix->data, values_of(w) * sizeof(float));
    }
    for (int i = 0; i < to->pairs; i++) {
        const Matrix *norm = &to->pair[i].norm;
        if (norm->I) memcpy(norm->data, from->pair[i].norm.data, values_of(norm) * sizeof(float));
    }
}

/* Sets *p to the pair of w. If w is a part of a larger matrix, B, magnitude and norm are that part of the
 * larger one's. Returns 0 if w has no pair. */
static int pair_of(LoraPair *p, const Lora *l, const Matrix *w) {
    if (!l || !l->pair[w->id].A.O) return 0;
    *p = l->pair[w->id];
    if (p->embedding || p->B.O == w->O) return 1;
    p->B = matrix_part(&p->B, w->first, w->O);
    if (!p->magnitude.I) return 1;
    p->magnitude = matrix_part(&p->magnitude, w->first, w->O);
    p->norm = matrix_part(&p->norm, w->first, w->O);
    return 1;
}

Matrix lora_own(const Lora *l, const Matrix *w) {
    static const Matrix none;
    if (!w) return none;
    if (!l || !w->O || !l->pair[w->id].saved.O) return *w;
    const Matrix *own = &l->pair[w->id].saved;
    const int vector = own->O == 1, n = vector ? w->I : w->O;
    return n == (vector ? own->I : own->O) ? *own : matrix_part(own, w->first, n);
}

/* ---- the pair's own product ---- */

void lora_dropout_carve(Lora *l, int N, Arena *a) {
    size_t widest = 0;
    for (int i = 0; i < l->pairs; i++) {
        const Matrix *A = &l->pair[i].A;
        if (A->O && !l->pair[i].embedding && (size_t)A->I > widest) widest = (size_t)A->I;
    }
    l->dropout.x = arena_take(a, (size_t)N * widest, sizeof(float));
    l->dropout.dx = arena_take(a, (size_t)N * widest, sizeof(float));
}

Lora lora_of_texts(const Lora *l) {
    static const Lora none;
    Lora texts = l ? *l : none;
    texts.dropout.row = texts.dropout.text_row;
    return texts;
}

/* y (N,I) = m x / (1 - p), or += it (add). m: the dropout mask, 0 or 1, that belongs to weight w and to rows
 * d->row .. d->row + N-1 of the step. */
static void drop(float *y, const float *x, const LoraDropout *d, const Matrix *w, int add, int N) {
    const size_t I = (size_t)w->I;
    const float kept = 1 / (1 - d->p);
    PARALLEL_FOR((double)N * w->I * 4)
    for (int n = 0; n < N; n++) {
        Rng r = rng_stream(d->seed, (uint64_t)w->id, d->row + (uint64_t)n);
        for (size_t i = (size_t)n * I; i < ((size_t)n + 1) * I; i++) {
            const float v = rng_unit(&r) < (double)d->p ? 0 : x[i] * kept;
            y[i] = add ? y[i] + v : v;
        }
    }
}

/* y += (scale drop(x) A^T) B^T */
void lora_forward(float *y, const float *x, const Lora *l, const Matrix *w, int N, Arena *ws) {
    LoraPair p;
    if (!pair_of(&p, l, w)) return;
    size_t mark = ws->used;
    float *mid = arena_take(ws, (size_t)N * (size_t)p.A.O, sizeof *mid);
    if (mid && l->dropout.p > 0) {
        drop(l->dropout.x, x, &l->dropout, w, 0, N);
        x = l->dropout.x;
    }
    linear_forward(mid, x, &p.A, NULL, N, ws);
    if (mid) for (size_t i = 0; i < (size_t)N * (size_t)p.A.O; i++) mid[i] *= p.scale;
    linear_add(y, mid, &p.B, NULL, N, ws);
    ws->used = mark;
}

/* With mid = scale drop(x) A^T (recomputed):
 *     dB += dy^T mid     dmid = scale dy B     dA += dmid^T drop(x)     dx += drop(dmid A) */
void lora_backward(float *dx, const float *dy, const float *x, const Lora *l, const Matrix *w, int N,
                   Arena *ws) {
    LoraPair p;
    if (!pair_of(&p, l, w)) return;
    size_t mark = ws->used, n = (size_t)N * (size_t)p.A.O;
    float *mid = arena_take(ws, n, sizeof *mid), *dmid = arena_take(ws, n, sizeof *dmid), *dinput = dx;
    if (dmid && l->dropout.p > 0) {
        drop(l->dropout.x, x, &l->dropout, w, 0, N);
        x = l->dropout.x;
        dinput = l->dropout.dx;
        memset(dinput, 0, (size_t)N * (size_t)w->I * sizeof *dinput);
    }
    linear_forward(mid, x, &p.A, NULL, N, ws);
    if (dmid) for (size_t i = 0; i < n; i++) { mid[i] *= p.scale; dmid[i] = 0; }
    linear_backward(dmid, NULL, dy, mid, &p.B, N, ws);
    if (dmid) for (size_t i = 0; i < n; i++) dmid[i] *= p.scale;
    linear_backward(dinput, NULL, dmid, x, &p.A, N, ws);
    if (dmid && l->dropout.p > 0) drop(dx, dinput, &l->dropout, w, 1, N);
    ws->used = mark;
}

/* ---- linears ---- */

/* Fills row (I) with row o of W + scale B A. */
static void adapted_row(float *row, const Matrix *w, const LoraPair *p, int o) {
    const float *A = p->A.data, *B = p->B.data;
    const size_t I = (size_t)w->I, R = (size_t)p->A.O;
    tensor_read(row, w, (size_t)o * I, I);
    for (size_t r = 0; r < R; r++) {
        const float b = p->scale * B[(size_t)o * R + r];
        for (size_t i = 0; i < I; i++) row[i] += b * A[r * I + i];
    }
}

void lora_norms(const Lora *l, const Tensor *base, Arena *ws) {
    for (int t = 0; t < l->pairs; t++) {
        const LoraPair *p = &l->pair[t];
        const Matrix *w = base[t].matrix;
        const size_t mark = ws->used;
        float *row = p->norm.I ? arena_take(ws, (size_t)w->I, sizeof *row) : NULL, *norm = p->norm.data;
        for (int o = 0; row && o < w->O; o++) {
            double sum = 0;
            adapted_row(row, w, p, o);
            for (int i = 0; i < w->I; i++) sum += (double)row[i] * (double)row[i];
            norm[o] = (float)sqrt(sum);
        }
        ws->used = mark;
    }
}

/* Returns what DoRA multiplies column o of the product by. */
static float gain(const LoraPair *p, int o) {
    return ((const float *)p->magnitude.data)[o] / ((const float *)p->norm.data)[o];
}

/* z (N,O) = x W^T + scale (x A^T) B^T */
static void product(float *z, const float *x, const Lora *l, const Matrix *w, int N, Arena *ws) {
    linear_forward(z, x, w, NULL, N, ws);
    lora_forward(z, x, l, w, N, ws);
}

/* y (add 1: +=) gain z + bias, with z = x W^T + scale (x A^T) B^T */
static void dora_forward(float *y, const float *x, const Lora *l, const Matrix *w, const float *bias, int add,
                         int N, Arena *ws) {
    const size_t mark = ws->used, O = (size_t)w->O;
    float *z = arena_take(ws, (size_t)N * O, sizeof *z);
    LoraPair p;
    pair_of(&p, l, w);
    product(z, x, l, w, N, ws);
    for (size_t i = 0; z && i < (size_t)N * O; i++) {
        const int o = (int)(i % O);
        y[i] = (add ? y[i] : 0) + gain(&p, o) * z[i] + (bias ? bias[o] : 0);
    }
    ws->used = mark;
}

static int has_dora(const Lora *l, const Matrix *w) { return l && l->pair[w->id].magnitude.I > 0; }

void lora_linear(float *y, const float *x, const Lora *l, const Matrix *w, const Matrix *bias, int N,
                 Arena *ws) {
    const Matrix own = lora_own(l, w), b = lora_own(l, bias);
    if (has_dora(l, w)) { dora_forward(y, x, l, w, b.data, 0, N, ws); return; }
    linear_forward(y, x, &own, b.data, N, ws);
    lora_forward(y, x, l, w, N, ws);
}

void lora_linear_add(float *y, const float *x, const Lora *l, const Matrix *w, const Matrix *bias, int N,
                     Arena *ws) {
    const Matrix own = lora_own(l, w), b = lora_own(l, bias);
    if (has_dora(l, w)) { dora_forward(y, x, l, w, b.data, 1, N, ws); return; }
    linear_add(y, x, &own, b.data, N, ws);
    lora_forward(y, x, l, w, N, ws);
}

/* With g = gain, which depends on magnitude alone, and z as above:
 *     dmagnitude += sum over rows of dy z / norm     dz = g dy, which goes on to W, A, B and x */
static void dora_backward(float *dx, const float *dy, const float *x, const Lora *l, const Matrix *w, int N,
                          Arena *ws) {
    const size_t mark = ws->used, O = (size_t)w->O, n = (size_t)N * O;
    float *z = arena_take(ws, n, sizeof *z);
    LoraPair p;
    pair_of(&p, l, w);
    const float *norm = p.norm.data;
    product(z, x, l, w, N, ws);
    for (size_t i = 0; z && i < n; i++) {
        const int o = (int)(i % O);
        if (p.magnitude.grad) p.magnitude.grad[o] += dy[i] * z[i] / norm[o];
        z[i] = gain(&p, o) * dy[i];
    }
    linear_backward(dx, NULL, z, x, w, N, ws);
    lora_backward(dx, z, x, l, w, N, ws);
    ws->used = mark;
}

void lora_linear_backward(float *dx, const float *dy, const float *x, const Lora *l, const Matrix *w,
                          const Matrix *bias, int N, Arena *ws) {
    const Matrix own = lora_own(l, w), b = lora_own(l, bias);
    const int dora = has_dora(l, w);
    linear_backward(dora ? NULL : dx, b.grad, dy, x, &own, N, ws);
    if (dora) dora_backward(dx, dy, x, l, w, N, ws);
    else lora_backward(dx, dy, x, l, w, N, ws);
}

void lora_measure(const Lora *l, const Matrix *w, int N, Arena *ws) {
    LoraPair p;
    const size_t mark = ws->used;
    if (has_dora(l, w)) arena_take(ws, (size_t)N * (size_t)w->O, sizeof(float));
    linear_measure(ws, N, w->I, w->O, w->compute);
    if (pair_of(&p, l, w)) {
        arena_take(ws, 2 * (size_t)N * (size_t)p.A.O + 32, sizeof(float));
        linear_measure(ws, N, w->I, p.A.O, p.A.compute);
        linear_measure(ws, N, p.A.O, w->O, p.B.compute);
    }
    ws->used = mark;
}

/* ---- embeddings ---- */

/* mid (N,R): row n is scale times column row[n] of A */
static void columns_of(float *mid, const LoraPair *p, const int *row, int N) {
    const float *A = p->A.data;
    const size_t R = (size_t)p->A.O, V = (size_t)p->A.I;
    for (size_t n = 0; n < (size_t)N; n++)
        for (size_t r = 0; r < R; r++) mid[n * R + r] = p->scale * A[r * V + (size_t)row[n]];
}

/* lora_embedding without rows of the prompt */
static void table_rows(float *y, const int *row, const Lora *l, const Matrix *w, int N, Arena *ws) {
    const Matrix own = lora_own(l, w);
    const size_t mark = ws->used;
    LoraPair p;
    if (ws->base) embedding_forward(y, row, &own, N);
    if (!pair_of(&p, l, w)) return;
    float *mid = arena_take(ws, (size_t)N * (size_t)p.A.O, sizeof *mid);
    if (mid) columns_of(mid, &p, row, N);
    linear_add(y, mid, &p.B, NULL, N, ws);
    ws->used = mark;
}

/* dB += dy^T mid     dmid = dy B     column row[n] of dA += scale dmid[n] */
static void table_rows_backward(const float *dy, const int *row, const Lora *l, const Matrix *w, int N,
                                Arena *ws) {
    const Matrix own = lora_own(l, w);
    const size_t mark = ws->used;
    LoraPair p;
    if (ws->base) embedding_backward(dy, row, &own, N);
    if (!pair_of(&p, l, w)) return;
    const size_t R = (size_t)p.A.O, V = (size_t)p.A.I, n = (size_t)N * R;
    float *mid = arena_take(ws, n, sizeof *mid), *dmid = arena_take(ws, n, sizeof *dmid);
    if (!dmid) linear_measure(ws, N, p.A.O, p.B.O, p.B.compute);
    else {
        columns_of(mid, &p, row, N);
        memset(dmid, 0, n * sizeof *dmid);
        linear_backward(dmid, NULL, dy, mid, &p.B, N, ws);
    }
    for (size_t i = 0; dmid && p.A.grad && i < n; i++)
        p.A.grad[i % R * V + (size_t)row[i / R]] += p.scale * dmid[i];
    ws->used = mark;
}

/* Returns how many of the N > 0 rows, from the first on, are all tokens, or are all rows of the prompt. */
static int alike(const int *row, int N) {
    int n = 1;
    while (n < N && (row[n] < 0) == (row[0] < 0)) n++;
    return n;
}

void lora_embedding(float *y, const int *row, const Lora *l, const Matrix *w, int N, Arena *ws) {
    const size_t C = (size_t)w->I;
    if (!ws->base || !lora_prompt(l)) { table_rows(y, row, l, w, N, ws); return; }
    const float *prompt = l->prompt.data;
    for (int n = 0, some; n < N; n += some) {
        some = alike(row + n, N - n);
        if (row[n] >= 0) table_rows(y + (size_t)n * C, row + n, l, w, some, ws);
        else for (int i = n; i < n + some; i++)
            memcpy(y + (size_t)i * C, prompt + (size_t)(-1 - row[i]) * C, C * sizeof *y);
    }
}

void lora_embedding_backward(const float *dy, const int *row, const Lora *l, const Matrix *w, int N,
                             Arena *ws) {
    const size_t C = (size_t)w->I;
    if (!ws->base || !lora_prompt(l)) { table_rows_backward(dy, row, l, w, N, ws); return; }
    for (int n = 0, some; n < N; n += some) {
        some = alike(row + n, N - n);
        if (row[n] >= 0) table_rows_backward(dy + (size_t)n * C, row + n, l, w, some, ws);
        else for (int i = n; i < n + some && l->prompt.grad; i++)
            for (size_t c = 0; c < C; c++)
                l->prompt.grad[(size_t)(-1 - row[i]) * C + c] += dy[(size_t)i * C + c];
    }
}

/* ---- merging ---- */

/* Row v of the table gains scale times the sum over r of A[r][v] B[.][r]. */
static void merge_embedding(const LoraPair *p, const Matrix *w) {
    const float *A = p->A.data, *B = p->B.data;
    const size_t V = (size_t)w->O, C = (size_t)w->I, R = (size_t)p->A.O;
    float *x = w->data;
    for (size_t v = 0; v < V; v++)
        for (size_t c = 0; c < C; c++) {
            float sum = 0;
            for (size_t r = 0; r < R; r++) sum += A[r * V + v] * B[c * R + r];
            x[v * C + c] += p->scale * sum;
        }
}

/* W += scale B A. Row o of W gains scale sum_r B[o][r] A[r]: this is the backward product dx += dy W with
 * dy = scale B and W = A. */
static void merge_linear(const LoraPair *p, const Matrix *w, Arena *ws) {
    const size_t mark = ws->used, n = (size_t)w->O * (size_t)p->A.O;
    float *scaled = arena_take(ws, n, sizeof *scaled), *x = w->data;
    const float *B = p->B.data;
    Matrix A = p->A;
    A.grad = NULL;
    if (scaled) for (size_t i = 0; i < n; i++) scaled[i] = p->scale * B[i];
    linear_backward(x, NULL, scaled, NULL, &A, w->O, ws);
    for (size_t i = 0; scaled && p->norm.I && i < values_of(w); i++) x[i] *= gain(p, (int)(i / (size_t)w->I));
    ws->used = mark;
}

void lora_merge(const Lora *l, const Matrix *w, Arena *ws) {
    const Matrix own = lora_own(l, w);
    LoraPair p;
    if (ws->base && w->type == F32 && own.data != w->data)
        tensor_read(w->data, &own, 0, values_of(w));
    if (!pair_of(&p, l, w) || w->type != F32) return;
    if (!p.embedding) merge_linear(&p, w, ws);
    else if (ws->base) merge_embedding(&p, w);
}
