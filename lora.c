/* lora.c - low-rank adapters on any linear of any model.
 * Source   Hu et al. 2021 (LoRA), eq. 3; names, scaling and initialisation as Hugging Face peft has them.
 * Needs    core.c, ops.c. No heap, no stdio.
 * Idea     y = x W^T + scale (x A^T) B^T with W (O,I) frozen, A (R,I) and B (O,R) trained: R (O+I) numbers
 *          instead of O I. B starts at 0, so the adapted model starts as the base model, bit for bit.
 * Dropout  only in training, and only of the adapter's input; the frozen product sees all of x (peft). x
 *          becomes m x / (1 - p), and m is 0 with probability p (Srivastava et al. 2014, inverted). The
 *          backward pass draws the same mask again; no mask is stored.
 * Never    touches W (but for lora_merge) and is never a state of the model: the adapter is an argument of
 *          the forward, and the reference policy is the same forward without it. */
#include "rlhf.h"

/* Returns 1 if a target (name, n bytes: "q_proj") is the last part of a tensor's name, as it is of
 * "model.layers.0.self_attn.q_proj.weight". */
static int is_target(const char *tensor, const char *name, size_t n) {
    static const char suffix[] = ".weight";
    size_t length = strlen(tensor), tail = sizeof suffix - 1;
    if (length < tail + n || strcmp(tensor + length - tail, suffix) != 0) return 0;
    const char *at = tensor + length - tail - n;
    return memcmp(at, name, n) == 0 && (at == tensor || at[-1] == '.');
}

/* Takes the next name, of *n bytes, from a comma-separated list. Returns 0 if there is none. */
static int next_target(const char **list, const char **name, size_t *n) {
    while (**list == ',' || **list == ' ') ++*list;
    *name = *list;
    while (**list && **list != ',' && **list != ' ') ++*list;
    *n = (size_t)(*list - *name);
    return *n > 0;
}

/* The forward asks an adapter about the linears of the layers, and about nothing else: an adapter on a norm,
 * an embedding or the head would be trained and written, and would change nothing. */
static int is_layer_linear(const Tensor *t) { return (t->flags & TENSOR_LINEAR) != 0; }

static int is_adapted(const Tensor *t, const char *targets) {
    const char *name;
    size_t n;
    while (is_layer_linear(t) && next_target(&targets, &name, &n)) if (is_target(t->name, name, n)) return 1;
    return 0;
}

/* Turns "...q_proj.weight" into "...q_proj.lora_A.weight", if part is "lora_A". OK, or E_RANGE: too long. */
static int adapter_name(char *out, size_t cap, const char *tensor, const char *part) {
    size_t stem = strlen(tensor) - strlen("weight"), n = strlen(part);
    if (stem + n + sizeof ".weight" > cap) return E_RANGE;
    memcpy(out, tensor, stem);
    memcpy(out + stem, part, n);
    memcpy(out + stem + n, ".weight", sizeof ".weight");
    return OK;
}

/* Checks that every target matches a linear: a misspelt name would train nothing, and say nothing. In peft's
 * files one match is enough (peft's rule): whoever loads an adapter's weights refuses those without a place.
 * Checks also that no rank is above its linear's I: a larger rank adds numbers, but no products. */
static int check_targets(const Tensor *base, int tensors, const LoraConfig *c, const char *targets,
                         Error *err) {
    const char *list = targets, *name;
    size_t n;
    int some = 0;
    while (next_target(&list, &name, &n)) {
        int found = 0;
        for (int i = 0; i < tensors && !found; i++)
            found = is_layer_linear(&base[i]) && is_target(base[i].name, name, n);
        if (!found && !c->peft)
            return fail(err, E_ARGUMENT, "a LoRA target matches no linear of the layers", name, 0, 0);
        some |= found;
    }
    if (!some) return fail(err, E_ARGUMENT, "no LoRA target matches a linear of the layers", targets, 0, 0);
    for (int i = 0; i < tensors && !c->peft; i++)
        if (is_adapted(&base[i], targets) && c->R > base[i].matrix->I) {
            fail(err, E_ARGUMENT, "the LoRA rank is above the width of a linear's input", base[i].name, c->R,
                 base[i].matrix->I);
            advise(err, "a smaller --lora-r: at that width an adapter can change everything in the linear");
            return E_ARGUMENT;
        }
    return OK;
}

/* Writes the module names of all linears of the layers into out (cap bytes), each once, comma-separated: what
 * peft makes of "all-linear". OK or E_RANGE. */
static int all_linear(char *out, size_t cap, const Tensor *base, int tensors) {
    size_t used = 0;
    out[0] = 0;
    for (int i = 0; i < tensors; i++) {
        if (!is_layer_linear(&base[i]) || is_adapted(&base[i], out)) continue;
        const char *end = strrchr(base[i].name, '.'), *from = end;     /* of ".weight" */
        while (from > base[i].name && from[-1] != '.') from--;
        if (used + (size_t)(end - from) + 2 > cap) return E_RANGE;
        if (used) out[used++] = ',';
        memcpy(out + used, from, (size_t)(end - from));
        used += (size_t)(end - from);
        out[used] = 0;
    }
    return OK;
}

LoraConfig lora_config(int R, float alpha, const char *targets) {
    LoraConfig c = { .R = R, .alpha = alpha };
    if (strlen(targets) >= sizeof c.targets) c.R = 0;
    else memcpy(c.targets, targets, strlen(targets) + 1);
    return c;
}

int lora_carve(Lora *l, const Tensor *base, int tensors, const LoraConfig *c, int trainable, Pool *lists,
               Arena *a, Error *err) {
    char *targets = l->config.targets, name[96];
    const int R = c->R;
    int adapted = 0;
    if (R < 1) return fail(err, E_ARGUMENT, "LoRA rank or target list out of range", c->targets, R, 1);
    if (c != &l->config) l->config = *c;
    if (strcmp(targets, "all-linear") == 0 && all_linear(targets, sizeof l->config.targets, base, tensors))
        return fail(err, E_RANGE, "the names of all linears are too many", "all-linear", 0, 0);
    int code = check_targets(base, tensors, c, targets, err);
    if (code) return code;
    for (int i = 0; i < tensors; i++) adapted += is_adapted(&base[i], targets);
    l->scale = c->rslora ? c->alpha / sqrtf((float)R) : c->alpha / (float)R;
    memset(&l->dropout, 0, sizeof l->dropout);
    l->pairs = tensors;
    l->pair = pool_take(lists, (size_t)tensors, sizeof *l->pair);
    l->tensor = pool_take(lists, (size_t)adapted * 2 + 1, sizeof *l->tensor);
    TensorList list = { l->tensor, 0, trainable, a };
    if (!l->pair || !l->tensor) return fail(err, E_MEMORY, "no memory for the adapter's lists", "", 0, 0);
    for (int i = 0; i < tensors; i++) {
        if (!is_adapted(&base[i], targets)) continue;
        const Matrix *w = base[i].matrix;
        if (adapter_name(name, sizeof name, base[i].name, "lora_A"))
            return fail(err, E_RANGE, "tensor name too long", base[i].name, 0, 0);
        tensor_carve(&list, &l->pair[i].A, name, 0, F32, R, w->I, 0);
        adapter_name(name, sizeof name, base[i].name, "lora_B");
        tensor_carve(&list, &l->pair[i].B, name, 0, F32, w->O, R, 0);
    }
    l->tensors = list.tensors;
    return a->failed ? fail(err, E_MEMORY, "no memory for the adapter", "", 0, 0) : OK;
}

void lora_init(Lora *l, uint64_t seed) {
    for (int i = 0; i < l->pairs; i++) {
        const Matrix *A = &l->pair[i].A;
        if (!A->O) continue;
        Rng r = rng_stream(seed, (uint64_t)i, 1);
        float *x = A->data, bound = 1 / sqrtf((float)A->I);
        for (size_t k = 0; k < (size_t)A->O * (size_t)A->I; k++) x[k] = bound * (float)(2 * rng_unit(&r) - 1);
        tensor_fill(&l->pair[i].B, 0);
    }
}

void lora_copy(Lora *to, const Lora *from) {
    for (int i = 0; i < to->tensors; i++) {
        const Matrix *w = to->tensor[i].matrix;
        memcpy(w->data, from->tensor[i].matrix->data, (size_t)w->O * (size_t)w->I * sizeof(float));
    }
}

/* Sets *p to the pair of w. If w is a part of a larger matrix, B is that part of the larger one's. Returns 0
 * if w is not adapted. */
static int pair_of(LoraPair *p, const Lora *l, const Matrix *w) {
    if (!l || !l->pair[w->id].A.O) return 0;
    *p = l->pair[w->id];
    if (p->B.O != w->O) p->B = matrix_part(&p->B, w->first, w->O);
    return 1;
}

void lora_dropout_carve(Lora *l, int N, Arena *a) {
    size_t widest = 0;
    for (int i = 0; i < l->pairs; i++) {
        const Matrix *A = &l->pair[i].A;
        if (A->O && (size_t)A->I > widest) widest = (size_t)A->I;
    }
    l->dropout.x = arena_take(a, (size_t)N * widest, sizeof(float));
    l->dropout.dx = arena_take(a, (size_t)N * widest, sizeof(float));
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
    float *mid = arena_take(ws, (size_t)N * (size_t)l->config.R, sizeof *mid);
    if (mid && l->dropout.p > 0) {
        drop(l->dropout.x, x, &l->dropout, w, 0, N);
        x = l->dropout.x;
    }
    linear_forward(mid, x, &p.A, NULL, N, ws);
    if (mid) for (size_t i = 0; i < (size_t)N * (size_t)l->config.R; i++) mid[i] *= l->scale;
    linear_add(y, mid, &p.B, NULL, N, ws);
    ws->used = mark;
}

/* With mid = scale drop(x) A^T (recomputed):
 *     dB += dy^T mid     dmid = scale dy B     dA += dmid^T drop(x)     dx += drop(dmid A) */
void lora_backward(float *dx, const float *dy, const float *x, const Lora *l, const Matrix *w, int N,
                   Arena *ws) {
    LoraPair p;
    if (!pair_of(&p, l, w)) return;
    size_t mark = ws->used, n = (size_t)N * (size_t)l->config.R;
    float *mid = arena_take(ws, n, sizeof *mid), *dmid = arena_take(ws, n, sizeof *dmid), *dinput = dx;
    if (dmid && l->dropout.p > 0) {
        drop(l->dropout.x, x, &l->dropout, w, 0, N);
        x = l->dropout.x;
        dinput = l->dropout.dx;
        memset(dinput, 0, (size_t)N * (size_t)w->I * sizeof *dinput);
    }
    linear_forward(mid, x, &p.A, NULL, N, ws);
    if (dmid) for (size_t i = 0; i < n; i++) { mid[i] *= l->scale; dmid[i] = 0; }
    linear_backward(dmid, NULL, dy, mid, &p.B, N, ws);
    if (dmid) for (size_t i = 0; i < n; i++) dmid[i] *= l->scale;
    linear_backward(dinput, NULL, dmid, x, &p.A, N, ws);
    if (dmid && l->dropout.p > 0) drop(dx, dinput, &l->dropout, w, 1, N);
    ws->used = mark;
}

void lora_measure(const Lora *l, const Matrix *w, int N, Arena *ws) {
    LoraPair p;
    if (!pair_of(&p, l, w)) return;
    size_t mark = ws->used;
    arena_take(ws, 2 * (size_t)N * (size_t)l->config.R + 32, sizeof(float));
    linear_measure(ws, N, w->I, l->config.R, p.A.compute);
    linear_measure(ws, N, l->config.R, w->O, p.B.compute);
    ws->used = mark;
}

/* W += scale B A. Row o of W gains scale sum_r B[o][r] A[r]: this is the backward product dx += dy W with
 * dy = scale B and W = A. */
void lora_merge(const Lora *l, const Matrix *w, Arena *ws) {
    LoraPair p;
    if (!pair_of(&p, l, w) || w->type != F32) return;
    size_t mark = ws->used, n = (size_t)w->O * (size_t)l->config.R;
    float *scaled = arena_take(ws, n, sizeof *scaled);
    const float *B = p.B.data;
    Matrix A = p.A;
    A.grad = NULL;
    if (scaled) for (size_t i = 0; i < n; i++) scaled[i] = l->scale * B[i];
    linear_backward(w->data, NULL, scaled, NULL, &A, w->O, ws);
    ws->used = mark;
}
