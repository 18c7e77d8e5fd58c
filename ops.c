/* ops.c - the layers of a transformer as forward/backward pairs, each the plain definition; AdamW.
 *
 * Needs    core.c (arena), quant.c (16-bit and 4-bit weights), lanes.h (dot products, exp, softmax
 *          and log-sum-exp of a row), and, unless it is built with -DPLAIN, the twins in fast/. No
 *          heap, no stdio, no globals.
 * Rules    x_forward overwrites its outputs; x_backward only ADDS to every d-array. Inputs are const.
 * Twins    A definition's twin is a faster function with the same results. RETURN_TWIN(name, arguments)
 *          calls the twin of a linear or of attention (fast/matmul.c, fast/attention.c) and returns,
 *          unless RLHF_ISA=definition. RETURN_WIDE(name, arguments) calls a second copy of the function
 *          itself and returns: fast/wide.c compiles this file again, for processors with AVX2. `make
 *          PLAIN=1` builds without both.
 * Order    Every sum has one fixed order, so that a result has the same bits for any number of rows and
 *          threads, under every C99 compiler (with -ffp-contract=off):
 *            - each output of a linear is one accumulator, added in order of the inner index, and so are
 *              attention's scores and mixtures. A twin has the same order, and the same bits, unless its
 *              multiply-adds round once: then it equals the loop whose step is fmaf (tests/unit/twins.c);
 *            - norms and softmax sums use eight lanes (lanes.h);
 *            - each output is computed by one thread.
 *          So the log-prob of a sampled token equals, bit for bit, the one that training computes.
 * Maths    exp and the normal distribution are our own (same bits on every machine); log and tanh are
 *          libm's, computed in double and rounded.
 * Memory   Scratch comes from a workspace; with ws->base == NULL a function only measures it.
 * Edges    N = 0 rows is allowed everywhere. A NaN in the input gives a NaN in the output:
 *          programs check the loss. */
#include "rlhf.h"
#include "lanes.h"

#if defined(PLAIN) || defined(F64) || defined(WIDE_COPY)
#define RETURN_TWIN(name, arguments)
#define RETURN_WIDE(name, arguments)
#define RETURN_WIDE_VALUE(name, arguments)
#else
#include "fast/fast.h"
#endif

/* Returns where row n begins among rows of `width` numbers. */
static size_t at(int n, int width) { return (size_t)n * (size_t)width; }

float exp_own(float x) { return exp_inline(x); }

float log1p_exp(float x) {
    double d = (double)x;
    return (float)(d > 0 ? d + log1p(exp(-d)) : log1p(exp(d)));
}

/* ---- The linear: its three directions take almost all time ---- */

/* y (N,O) += x (N,I) W^T, one column of it. row: row o of W; y points at column o. */
static void add_column(float *y, const float *x, const float *row, int N, int O, int I) {
    for (int n = 0; n < N; n++) {
        float sum = y[at(n, O)];
        for (int i = 0; i < I; i++) sum += x[at(n, I) + (size_t)i] * row[i];
        y[at(n, O)] = sum;
    }
}

/* dx (N,I) += dy (N,O) W, one term of the sum over o. row: row o of W; dy points at column o. */
static void add_rows(float *dx, const float *dy, const float *row, int N, int O, int I) {
    for (int n = 0; n < N; n++)
        for (int i = 0; i < I; i++) dx[at(n, I) + (size_t)i] += dy[at(n, O)] * row[i];
}

/* dW (O,I) += dy^T (O,N) x (N,I), one row of it. row: row o of dW; dy points at column o. */
static void add_row(float *row, const float *dy, const float *x, int N, int O, int I) {
    for (int n = 0; n < N; n++)
        for (int i = 0; i < I; i++) row[i] += dy[at(n, O)] * x[at(n, I) + (size_t)i];
}

/* Rounds each of x (n) to the nearest number of a compute type, in place. */
static void round_to(float *x, int type, size_t n) {
#ifndef F64
    halves_round(x, type, n);
#endif
    (void)x; (void)type; (void)n;
}

/* Returns row o of W (I numbers) as floats, rounded to the compute type: W's own row if it is float32 and
 * not rounded, otherwise a copy in line (I). */
static const float *weight_row(const Matrix *w, int o, float *line) {
    const size_t I = (size_t)w->I, first = at(o, w->I);
    const float *row = (const float *)w->data + first;
    if (w->type == F32 && w->compute == F32) return row;
    tensor_read(line, w, first, I);
    if (w->type != w->compute) round_to(line, w->compute, I);
    return line;
}

/* Returns x (n) rounded to the compute type: a copy in ws, or x itself if the type is F32. NULL: ws only
 * measures or is too small. */
static const float *rounded(const float *x, int type, size_t n, Arena *ws) {
    if (type == F32) return x;
    float *copy = arena_take(ws, n, sizeof *copy);
    if (!copy) return NULL;
    memcpy(copy, x, n * sizeof *copy);
    round_to(copy, type, n);
    return copy;
}

/* Returns the array in which to sum a product that will be added to y (n): y itself, or, if the product is
 * rounded first, zeros in ws. NULL: ws only measures or is too small. */
static float *sum_begin(float *y, int output, size_t n, Arena *ws) {
    if (output == F32) return ws->base && !ws->failed ? y : NULL;
    float *sum = arena_take(ws, n, sizeof *sum);
    if (sum) memset(sum, 0, n * sizeof *sum);
    return sum;
}

static void sum_end(float *y, float *sum, int output, size_t n) {
    if (sum == y) return;
    round_to(sum, output, n);
    for (size_t i = 0; i < n; i++) y[i] += sum[i];
}

static void add_bias(float *y, const float *bias, int N, int O) {
    for (size_t i = 0; i < at(N, O) && bias; i++) y[i] += bias[i % (size_t)O];
}

void linear_forward(float *y, const float *x, const Matrix *w, const float *bias, int N, Arena *ws) {
    RETURN_TWIN(linear_forward, (y, x, w, bias, N, ws));
    size_t mark = ws->used, n = at(N, w->O);
    const float *in = rounded(x, w->compute, at(N, w->I), ws);
    float *line = arena_take(ws, (size_t)w->I, sizeof *line);
    ws->used = mark;
    if (ws->failed || !line) return;
    memset(y, 0, n * sizeof *y);
    for (int o = 0; o < w->O; o++) add_column(y + o, in, weight_row(w, o, line), N, w->O, w->I);
    add_bias(y, bias, N, w->O);
    round_to(y, w->output, n);
}

void linear_add(float *y, const float *x, const Matrix *w, const float *bias, int N, Arena *ws) {
    RETURN_TWIN(linear_add, (y, x, w, bias, N, ws));
    size_t mark = ws->used, n = at(N, w->O);
    const float *in = rounded(x, w->compute, at(N, w->I), ws);
    float *line = arena_take(ws, (size_t)w->I, sizeof *line), *sum = sum_begin(y, w->output, n, ws);
    ws->used = mark;
    if (ws->failed || !sum) return;
    for (int o = 0; o < w->O; o++) add_column(sum + o, in, weight_row(w, o, line), N, w->O, w->I);
    add_bias(sum, bias, N, w->O);
    sum_end(y, sum, w->output, n);
}

void linear_backward(float *dx, float *dbias, const float *dy, const float *x, const Matrix *w, int N,
                     Arena *ws) {
    RETURN_TWIN(linear_backward, (dx, dbias, dy, x, w, N, ws));
    size_t mark = ws->used, n = at(N, w->I);
    const float *g = rounded(dy, w->compute, at(N, w->O), ws);
    const float *in = w->grad ? rounded(x, w->compute, n, ws) : NULL;
    float *line = arena_take(ws, (size_t)w->I, sizeof *line);
    float *sum = dx ? sum_begin(dx, w->output, n, ws) : NULL;
    ws->used = mark;
    if (ws->failed || !line) return;
    for (int o = 0; o < w->O && dx; o++) add_rows(sum, g + o, weight_row(w, o, line), N, w->O, w->I);
    if (dx) sum_end(dx, sum, w->output, n);
    for (int o = 0; o < w->O && w->grad; o++) add_row(w->grad + at(o, w->I), g + o, in, N, w->O, w->I);
    for (size_t i = 0; i < at(N, w->O) && dbias; i++) dbias[i % (size_t)w->O] += dy[i];
}

void linear_measure(Arena *ws, int N, int I, int O, int compute) {
    RETURN_TWIN(linear_measure, (ws, N, I, O, compute));
    size_t mark = ws->used;
    arena_take(ws, (size_t)I, sizeof(float));
    /* rounded copies: of x, of dy, and of a product of either shape */
    for (int i = 0; i < 2 && compute != F32; i++) {
        arena_take(ws, at(N, I), sizeof(float));
        arena_take(ws, at(N, O), sizeof(float));
    }
    ws->used = mark;
}

/* ---- Embedding and norms ---- */

void embedding_forward(float *y, const int *token, const Matrix *w, int N) {
    for (int n = 0; n < N; n++, y += w->I) {
        const float *row = weight_row(w, token[n], y);
        if (row != y) memcpy(y, row, (size_t)w->I * sizeof *y);
    }
}

void embedding_backward(const float *dy, const int *token, const Matrix *w, int N) {
    for (int n = 0; n < N && w->grad; n++, dy += w->I) {
        float *g = w->grad + at(token[n], w->I);
        for (int i = 0; i < w->I; i++) g[i] += dy[i];
    }
}

/* Computes rows from .. to-1 of y = x r w,  r = 1 / sqrt(mean(x^2) + eps)     [Zhang & Sennrich 2019] */
static void rmsnorm_rows(float *y, const float *x, const float *w, float eps, int C, size_t from, size_t to) {
    for (size_t n = from; n < to; n++) {
        const float *xn = x + n * (size_t)C;
        float *yn = y + n * (size_t)C, r = 1 / sqrtf(dot(xn, xn, C) / (float)C + eps);
        for (int c = 0; c < C; c++) yn[c] = xn[c] * r * w[c];
    }
}

void rmsnorm_forward(float *y, const float *x, const float *w, float eps, int N, int C) {
    RETURN_WIDE(rmsnorm_forward, (y, x, w, eps, N, C));
    IN_PARTS((double)N * C * 4, N, rmsnorm_rows(y, x, w, eps, C, from, to));
}

/* Computes, for rows from .. to-1 and g = dy w:   dx += r (g - x r^2 mean(g x)) */
static void rmsnorm_backward_rows(float *dx, const float *dy, const float *x, const float *w, float eps,
                                  int C, size_t from, size_t to) {
    for (size_t n = from; n < to; n++) {
        const float *xn = x + n * (size_t)C, *dyn = dy + n * (size_t)C;
        float *dxn = dx + n * (size_t)C, r = 1 / sqrtf(dot(xn, xn, C) / (float)C + eps), gx = 0;
        for (int c = 0; c < C; c++) gx += dyn[c] * w[c] * xn[c];
        gx = gx * r * r / (float)C;
        for (int c = 0; c < C; c++) dxn[c] += r * (dyn[c] * w[c] - xn[c] * gx);
    }
}

/* Computes dw += sum over rows of dy x r. */
static void rmsnorm_weight(float *dw, const float *dy, const float *x, float eps, int N, int C) {
    for (int n = 0; n < N; n++, x += C, dy += C) {
        float r = 1 / sqrtf(dot(x, x, C) / (float)C + eps);
        for (int c = 0; c < C; c++) dw[c] += dy[c] * x[c] * r;
    }
}

void rmsnorm_backward(float *dx, float *dw, const float *dy, const float *x, const float *w, float eps,
                      int N, int C) {
    RETURN_WIDE(rmsnorm_backward, (dx, dw, dy, x, w, eps, N, C));
    IN_PARTS((double)N * C * 8, N, rmsnorm_backward_rows(dx, dy, x, w, eps, C, from, to));
    if (dw) rmsnorm_weight(dw, dy, x, eps, N, C);
}

/* Computes rows from .. to-1 of y = (x - mean) r w + b,  r = 1 / sqrt(var + eps), biased variance
 *                                                                                       [Ba et al. 2016] */
static void layernorm_rows(float *y, const float *x, const float *w, const float *b, float eps, int C,
                           size_t from, size_t to) {
    for (size_t n = from; n < to; n++) {
        const float *xn = x + n * (size_t)C;
        float *yn = y + n * (size_t)C, mean, r;
        moments_of_row(&mean, &r, xn, eps, C);
        for (int c = 0; c < C; c++) yn[c] = (xn[c] - mean) * r * w[c] + b[c];
    }
}

void layernorm_forward(float *y, const float *x, const float *w, const float *b, float eps, int N, int C) {
    RETURN_WIDE(layernorm_forward, (y, x, w, b, eps, N, C));
    IN_PARTS((double)N * C * 6, N, layernorm_rows(y, x, w, b, eps, C, from, to));
}

/* Computes, for rows from .. to-1, h = (x - mean) r and g = dy w:   dx += r (g - mean(g) - h mean(g h)) */
static void layernorm_backward_rows(float *dx, const float *dy, const float *x, const float *w, float eps,
                                    int C, size_t from, size_t to) {
    for (size_t n = from; n < to; n++) {
        const float *xn = x + n * (size_t)C, *dyn = dy + n * (size_t)C;
        float *dxn = dx + n * (size_t)C, mean, r, g1 = 0, gh = 0;
        moments_of_row(&mean, &r, xn, eps, C);
        for (int c = 0; c < C; c++) { g1 += dyn[c] * w[c]; gh += dyn[c] * w[c] * (xn[c] - mean) * r; }
        g1 /= (float)C;
        gh /= (float)C;
        for (int c = 0; c < C; c++) dxn[c] += r * (dyn[c] * w[c] - g1 - (xn[c] - mean) * r * gh);
    }
}

/* Computes dw += sum over rows of dy h, and db += sum over rows of dy, with h = (x - mean) r. */
static void layernorm_weight(float *dw, float *db, const float *dy, const float *x, float eps, int N, int C) {
    for (int n = 0; n < N; n++, x += C, dy += C) {
        float mean, r;
        moments_of_row(&mean, &r, x, eps, C);
        for (int c = 0; c < C && dw; c++) dw[c] += dy[c] * (x[c] - mean) * r;
        for (int c = 0; c < C && db; c++) db[c] += dy[c];
    }
}

void layernorm_backward(float *dx, const float *dy, const float *x, const Matrix *w, const Matrix *b,
                        float eps, int N, int C) {
    RETURN_WIDE(layernorm_backward, (dx, dy, x, w, b, eps, N, C));
    IN_PARTS((double)N * C * 10, N, layernorm_backward_rows(dx, dy, x, w->data, eps, C, from, to));
    if (w->grad || b->grad) layernorm_weight(w->grad, b->grad, dy, x, eps, N, C);
}

/* ---- Positions and attention ---- */

/* Rotates numbers j and j + D/2 of each head of a row, a and b, by the angle position * inv_freq[j]; c and s
 * (D/2) are its cosines and sines:
 *     a' = a cos - b sin,  b' = b cos + a sin                                          [Su et al. 2021] */
static void rope_row(float *x, const float *c, const float *s, int inverse, int H, int D) {
    int half = D / 2;
    for (int h = 0; h < H; h++, x += D) {
        float *restrict a = x, *restrict b = x + half;
        for (int j = 0; j < half; j++) {
            float u = a[j], v = b[j], sj = inverse ? -s[j] : s[j];
            a[j] = u * c[j] - v * sj;
            b[j] = v * c[j] + u * sj;
        }
    }
}

void rope_rotate(float *x, const int *position, const float *cosine, const float *sine, int inverse, int N,
                 int H, int D) {
    RETURN_WIDE(rope_rotate, (x, position, cosine, sine, inverse, N, H, D));
    const size_t half = (size_t)(D / 2), row = at(H, D);
    IN_PARTS((double)N * H * D * 2, N,
             for (size_t n = from; n < to; n++)
                 rope_row(x + n * row, cosine + (size_t)position[n] * half, sine + (size_t)position[n] * half,
                          inverse, H, D));
}

/* Return where head h of query n begins in q and y (query_at), and where its key head begins in row j of
 * the rows of k and v that the query sees (key_at). */
static size_t query_at(const Heads *heads, int n, int h) {
    return (at(n, heads->H) + (size_t)h) * (size_t)heads->D;
}
static size_t key_at(const Keys *keys, const Heads *heads, int n, int h, int j) {
    return (at(keys->first[n] + j, heads->K) + (size_t)(h / (heads->H / heads->K))) * (size_t)heads->D;
}

/* Reserves two rows of probabilities. NULL: ws only measures (attention_measure says how
 * much) or is too small. */
static float *probabilities_take(const Keys *keys, int N, Arena *ws) {
    size_t mark = ws->used;
    int most = 1;
    for (int n = 0; n < N && ws->base; n++) if (keys->count[n] > most) most = keys->count[n];
    float *p = ws->base ? arena_take(ws, 2 * (size_t)most, sizeof *p) : NULL;
    ws->used = mark;
    return p;
}

/* Computes p (count[n]), the probabilities of the rows that query n sees under head h. */
static void probabilities(float *p, const Qkv *in, const Keys *keys, const Heads *heads, int n, int h) {
    const float *q = in->q + query_at(heads, n, h);
    for (int j = 0; j < keys->count[n]; j++) {
        const float *k = in->k + key_at(keys, heads, n, h, j);
        float score = 0;
        for (int d = 0; d < heads->D; d++) score += q[d] * k[d];
        p[j] = score;
    }
    attention_row(p, keys, heads, n, h);
}

void attention_forward(float *y, const Qkv *in, const Keys *keys, int N, const Heads *heads, Arena *ws) {
    RETURN_TWIN(attention_forward, (y, in, keys, N, heads, ws));
    float *p = probabilities_take(keys, N, ws);
    for (int h = 0; h < heads->H && p; h++)
        for (int n = 0; n < N; n++) {
            float *yn = y + query_at(heads, n, h);
            probabilities(p, in, keys, heads, n, h);
            memset(yn, 0, (size_t)heads->D * sizeof *yn);
            for (int j = 0; j < keys->count[n]; j++) {
                const float *v = in->v + key_at(keys, heads, n, h, j);
                for (int d = 0; d < heads->D; d++) yn[d] += p[j] * v[d];
            }
        }
}

/* With p as in the forward pass and dp = dy.v:
 *     ds = scale p (dp - dy.y)    dq += ds k    dk += ds q    dv += p dy
 * The gradients of a row of k and v are sums over the heads that use it, and for each head over
 * the queries, in order. */
void attention_backward(const Qkv *d, const float *dy, const float *y, const Qkv *in, const Keys *keys, int N,
                        const Heads *heads, Arena *ws) {
    RETURN_TWIN(attention_backward, (d, dy, y, in, keys, N, heads, ws));
    float *p = probabilities_take(keys, N, ws);
    for (int h = 0; h < heads->H && p; h++)
        for (int n = 0; n < N; n++) {
            size_t query = query_at(heads, n, h);
            float *ds = p + keys->count[n], delta = dot(dy + query, y + query, heads->D);
            probabilities(p, in, keys, heads, n, h);
            for (int j = 0; j < keys->count[n]; j++) {
                const float *v = in->v + key_at(keys, heads, n, h, j);
                float dp = 0;
                for (int i = 0; i < heads->D; i++) dp += dy[query + (size_t)i] * v[i];
                ds[j] = dp;
            }
            attention_row_backward(ds, p, delta, keys, heads, n, h);
            for (int j = 0; j < keys->count[n]; j++) {
                size_t q = query, k = key_at(keys, heads, n, h, j);
                for (int i = 0; i < heads->D; i++, q++, k++) {
                    d->q[q] += ds[j] * in->k[k];
                    d->k[k] += ds[j] * in->q[q];
                    d->v[k] += p[j] * dy[q];
                }
            }
        }
}

void attention_measure(Arena *ws, int keys, const Heads *heads) {
    RETURN_TWIN(attention_measure, (ws, keys, heads));
    size_t mark = ws->used;
    arena_take(ws, 2 * (size_t)keys, sizeof(float));
    ws->used = mark;
    (void)heads;
}

/* ---- Activations ---- */

/* An activation is x times a factor from 0 to 1, its part. part and part_and_slope return the part; for
 * the two GELUs *slope becomes the derivative of the part:
 *     SILU       sigmoid(x)                                   [Elfwing et al. 2017]
 *     GELU       Phi(x) = (1 + erf(x / sqrt 2)) / 2           [Hendrycks & Gimpel 2016]
 *     GELU_TANH  (1 + tanh(u)) / 2, see tanh_part; for GPT-2  [Hendrycks & Gimpel 2016]
 *     RELU       1 if x > 0, otherwise 0 */
INLINE float part_and_slope(float x, int activation, float *slope) {
    if (activation == ACT_SILU) return sigmoid(x);
    if (activation == ACT_GELU) return normal_cdf(x, slope);
    if (activation == ACT_GELU_TANH) return tanh_part(x, slope);
    return x > 0 ? 1.0f : 0.0f;
}
INLINE float part(float x, int activation) {
    float unused = 0;
    return part_and_slope(x, activation, &unused);
}

/* Returns dy times the activation's derivative at x: p + x p'(x), where p = part(x); *part_of_x becomes p. */
INLINE float through(float dy, float x, int activation, float *part_of_x) {
    float slope = 0, p = part_and_slope(x, activation, &slope);
    *part_of_x = p;
    if (activation == ACT_SILU) return dy * p * (1 + x * (1 - p));
    return dy * (p + x * slope);
}

/* Computes y = act(x) up, or y = act(x) if up is NULL. */
INLINE void activate(int activation, float *y, const float *x, const float *up, size_t from, size_t to) {
    if (up) for (size_t i = from; i < to; i++) y[i] = x[i] * part(x[i], activation) * up[i];
    else for (size_t i = from; i < to; i++) y[i] = x[i] * part(x[i], activation);
}
INLINE void activate_backward(int activation, float *dx, float *dup, const float *dy, const float *x,
                              const float *up, size_t from, size_t to) {
    float p;
    if (!up) for (size_t i = from; i < to; i++) dx[i] += through(dy[i], x[i], activation, &p);
    else for (size_t i = from; i < to; i++) {
        float add = through(dy[i] * up[i], x[i], activation, &p), add_up = dy[i] * x[i] * p;
        dx[i] += add;
        dup[i] += add_up;
    }
}

/* Calls f(activation, ...) with a constant activation: compilers build f for each one, and its
 * loop does not test it. */
#define BY_ACTIVATION(f, ...) \
    switch (activation) { \
    case ACT_SILU: f(ACT_SILU, __VA_ARGS__); break; case ACT_GELU: f(ACT_GELU, __VA_ARGS__); break; \
    case ACT_GELU_TANH: f(ACT_GELU_TANH, __VA_ARGS__); break; default: f(ACT_RELU, __VA_ARGS__); }
static void gated_part(float *y, const float *x, const float *up, int activation, size_t from, size_t to) {
    BY_ACTIVATION(activate, y, x, up, from, to)
}
static void gated_backward_part(float *dx, float *dup, const float *dy, const float *x, const float *up,
                                int activation, size_t from, size_t to) {
    BY_ACTIVATION(activate_backward, dx, dup, dy, x, up, from, to)
}

void gated_forward(float *y, const float *gate, const float *up, int activation, size_t n) {
    RETURN_WIDE(gated_forward, (y, gate, up, activation, n));
    IN_PARTS((double)n * 16, n, gated_part(y, gate, up, activation, from, to));
}

void gated_backward(float *dgate, float *dup, const float *dy, const float *gate, const float *up,
                    int activation, size_t n) {
    RETURN_WIDE(gated_backward, (dgate, dup, dy, gate, up, activation, n));
    IN_PARTS((double)n * 16, n, gated_backward_part(dgate, dup, dy, gate, up, activation, from, to));
}

void activation_forward(float *y, const float *x, int activation, size_t n) {
    gated_forward(y, x, NULL, activation, n);
}
void activation_backward(float *dx, const float *dy, const float *x, int activation, size_t n) {
    gated_backward(dx, NULL, dy, x, NULL, activation, n);
}

void tanh_forward(float *y, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = (float)tanh((double)x[i]);
}
void tanh_backward(float *dx, const float *dy, const float *y, size_t n) {
    for (size_t i = 0; i < n; i++) dx[i] += dy[i] * (1 - y[i] * y[i]);
}

/* ---- Softmax, log-probs, KL and cross-entropy (log_sum_exp is in lanes.h) ---- */

void softmax_weights(float *w, const float *z, float temperature, int V) {
    RETURN_WIDE(softmax_weights, (w, z, temperature, V));
    float cold = 1 / temperature, m = largest(z, V) * cold;
    for (int v = 0; v < V; v++) w[v] = exp_inline(z[v] * cold - m);
}

/* Computes, for rows from .. to-1:   logprob = z_token / T - lse;   entropy = lse - sum_v p_v z_v / T */
static void logprob_rows(float *logprob, float *entropy, const float *logits, const int *token,
                         float temperature, int V, size_t from, size_t to) {
    for (size_t n = from; n < to; n++) {
        const float *z = logits + n * (size_t)V;
        float mean = 0, lse = log_sum_exp(entropy ? &mean : NULL, z, temperature, V);
        logprob[n] = z[token[n]] * (1 / temperature) - lse;
        if (entropy) entropy[n] = lse - mean;
    }
}

void logprob_forward(float *logprob, float *entropy, const float *logits, const int *token, float temperature,
                     int N, int V) {
    RETURN_WIDE(logprob_forward, (logprob, entropy, logits, token, temperature, N, V));
    IN_PARTS((double)N * V * 16, N, logprob_rows(logprob, entropy, logits, token, temperature, V, from, to));
}

/* Adds to dz (V), for one row z of the logits, dlogprob times
 *     d logprob / d z_v = ([v = token] - p_v) / T,   p_v = e^(z_v / T - lse).
 * lse follows from the forward's output: lse = z_token / T - logprob. */
static void logprob_backward_row(float *dz, float dlogprob, float logprob, const float *z, int token,
                                 float temperature, int V) {
    float cold = 1 / temperature, lse = z[token] * cold - logprob, g = dlogprob * cold;
    for (int v = 0; v < V; v++) dz[v] -= g * exp_inline(z[v] * cold - lse);
    dz[token] += g;
}

void logprob_backward(float *dlogits, const float *dlogprob, const float *logprob, const float *logits,
                      const int *token, float temperature, int N, int V) {
    RETURN_WIDE(logprob_backward, (dlogits, dlogprob, logprob, logits, token, temperature, N, V));
    IN_PARTS((double)N * V * 16, N,
             for (size_t n = from; n < to; n++)
                 logprob_backward_row(dlogits + n * (size_t)V, dlogprob[n], logprob[n],
                                      logits + n * (size_t)V, token[n], temperature, V));
}

/* Adds to dlogits, for rows from .. to-1, dentropy times   d H / d z_v = -p_v (log p_v + H) / T. */
static void entropy_backward_rows(float *dlogits, const float *dentropy, const float *logits,
                                  float temperature, int V, size_t from, size_t to) {
    const float cold = 1 / temperature;
    for (size_t n = from; n < to; n++) {
        const float *z = logits + n * (size_t)V;
        float *dz = dlogits + n * (size_t)V, mean = 0, lse = log_sum_exp(&mean, z, temperature, V);
        const float g = dentropy[n] * cold, entropy = lse - mean;
        for (int v = 0; v < V; v++) {
            const float logprob = z[v] * cold - lse;
            dz[v] -= g * exp_inline(logprob) * (logprob + entropy);
        }
    }
}

void entropy_backward(float *dlogits, const float *dentropy, const float *logits, float temperature, int N,
                      int V) {
    RETURN_WIDE(entropy_backward, (dlogits, dentropy, logits, temperature, N, V));
    IN_PARTS((double)N * V * 32, N,
             entropy_backward_rows(dlogits, dentropy, logits, temperature, V, from, to));
}

static void full_kl_rows(float *kl, const float *logits, const float *ref_logits, float temperature, int V,
                         size_t from, size_t to) {
    for (size_t n = from; n < to; n++) {
        const float *z = logits + n * (size_t)V, *r = ref_logits + n * (size_t)V;
        float cold = 1 / temperature, total = 0;
        float lse = log_sum_exp(NULL, z, temperature, V), ref_lse = log_sum_exp(NULL, r, temperature, V);
        for (int v = 0; v < V; v++)
            total += exp_inline(z[v] * cold - lse) * ((z[v] * cold - lse) - (r[v] * cold - ref_lse));
        kl[n] = total;
    }
}

void full_kl_forward(float *kl, const float *logits, const float *ref_logits, float temperature, int N,
                     int V) {
    RETURN_WIDE(full_kl_forward, (kl, logits, ref_logits, temperature, N, V));
    IN_PARTS((double)N * V * 32, N, full_kl_rows(kl, logits, ref_logits, temperature, V, from, to));
}

void cross_entropy_forward(float *loss, const float *logits, const int *label, int N, int C) {
    logprob_forward(loss, NULL, logits, label, 1, N, C);
    for (int n = 0; n < N; n++) loss[n] = -loss[n];
}

void cross_entropy_backward(float *dlogits, const float *dloss, const float *loss, const float *logits,
                            const int *label, int N, int C) {
    for (int n = 0; n < N; n++, dlogits += C, logits += C) {
        float minus = -dloss[n], logprob = -loss[n];
        logprob_backward(dlogits, &minus, &logprob, logits, label + n, 1, 1, C);
    }
}

/* ---- Lists of tensors; AdamW over them ---- */

static size_t tensor_size(const Tensor *t) { return at(t->matrix->O, t->matrix->I); }
static int is_trained(const Tensor *t) { return (t->flags & TENSOR_TRAINED) && !(t->flags & TENSOR_TIED); }

size_t tensor_bytes(const Matrix *w) {
    size_t n = at(w->O, w->I);
    return w->type == NF4 ? (n + 1) / 2 : n * (w->type == F32 ? sizeof(float) : sizeof(uint16_t));
}

void tensor_read(float *x, const Matrix *w, size_t from, size_t n) {
    f32 part[256];
    const size_t step = sizeof part / sizeof *part;
    if (w->type == F32) { memcpy(x, (const float *)w->data + from, n * sizeof *x); return; }
    for (size_t i = 0, m; i < n; i += m) {
        m = n - i < step ? n - i : step;
        if (w->type == NF4) dequantize_4bit(part, w->data, w->quant, at(w->first, w->I) + from + i, m);
        else halves_widen(part, (const uint16_t *)w->data + from + i, w->type, m);
        for (size_t k = 0; k < m; k++) x[i + k] = part[k];
    }
}

void tensor_carve(TensorList *list, Matrix *w, const char *name, int layer, int type, int O, int I,
                  int flags) {
    Arena *a = list->arena;
    size_t n = at(O, I);
    if (!list->tensor) return;
    Tensor *t = &list->tensor[list->tensors];
    name_format(t->name, sizeof t->name, name, layer);
    w->type = type;
    w->O = O;
    w->I = I;
    w->id = list->tensors;
    w->compute = w->output = F32;
    w->first = 0;
    w->quant = NULL;
    if (type == NF4) w->data = arena_take(a, (n + 1) / 2, 1);
    else w->data = arena_take(a, n, type == F32 ? sizeof(float) : sizeof(uint16_t));
    w->grad = list->trainable ? arena_take(a, n, sizeof(float)) : NULL;
    t->matrix = w;
    t->flags = flags | (list->trainable ? TENSOR_TRAINED : 0);
    list->tensors++;
}

Matrix matrix_part(const Matrix *w, int first, int n) {
    const int vector = w->O == 1;
    const size_t from = vector ? (size_t)first : at(first, w->I);
    Matrix m = *w;
    if (vector) m.I = n;
    else m.O = n;
    m.first = w->first + first;
    if (m.grad) m.grad += from;
    if (m.data && m.type == F32) m.data = (float *)m.data + from;
    else if (m.data && m.type != NF4) m.data = (uint16_t *)m.data + from;
    return m;
}

void tensor_carve_quant(Matrix *w, int kind, int block, int doubled, Arena *a) {
    size_t blocks = quant_blocks(at(w->O, w->I), block), nested = (blocks + QUANT_NESTED - 1) / QUANT_NESTED;
    Quant q, *place = arena_take(a, 1, sizeof *place);
    memset(&q, 0, sizeof q);
    q.kind = kind;
    q.block = block;
    if (!doubled) q.absmax = arena_take(a, blocks, sizeof *q.absmax);
    else {
        q.code = arena_take(a, blocks, 1);
        q.nested = arena_take(a, nested, sizeof *q.nested);
        q.map = arena_take(a, 256, sizeof *q.map);
        if (q.map) quant_map(q.map);
    }
    quant_table(q.table, kind);
    if (place) *place = q;
    w->quant = place;
}

void tensor_normal(const Matrix *w, double deviation, uint64_t seed) {
    Rng r = rng_stream(seed, (uint64_t)w->id, 0);
    float *x = w->data;
    for (size_t i = 0; i < at(w->O, w->I); i++) x[i] = (float)(deviation * rng_normal(&r));
}

void tensor_uniform(const Matrix *w, float bound, Rng *r) {
    float *x = w->data;
    for (size_t i = 0; i < (size_t)w->O * (size_t)w->I; i++) x[i] = bound * (float)(2 * rng_unit(r) - 1);
}

void tensor_fill(const Matrix *w, float value) {
    float *x = w->data;
    for (size_t i = 0; i < at(w->O, w->I); i++) x[i] = value;
}

size_t tensor_values(const Tensor *list, int tensors, int trainable_only) {
    size_t n = 0;
    for (int i = 0; i < tensors; i++)
        if (!(list[i].flags & TENSOR_TIED) && (!trainable_only || is_trained(&list[i])))
            n += tensor_size(&list[i]);
    return n;
}

void optimizer_carve(Optimizer *o, const Tensor *list, int tensors, Arena *a) {
    o->n = tensor_values(list, tensors, 1);
    o->m = arena_take(a, o->n, sizeof *o->m);
    o->v = arena_take(a, o->n, sizeof *o->v);
    o->t = 0;
}

void optimizer_reset(Optimizer *o) {
    memset(o->m, 0, o->n * sizeof *o->m);
    memset(o->v, 0, o->n * sizeof *o->v);
    o->t = 0;
}

enum { PARTS = 16 };  /* threads share a sum in PARTS parts, whatever their number is */

/* Sets sum[part], for part = from .. to-1, to the sum of squares of that one of g's (n) PARTS parts. */
static void squares(double *sum, const float *g, size_t n, size_t from, size_t to) {
    for (size_t part = from; part < to; part++) {
        size_t k = n * part / PARTS, end = n * (part + 1) / PARTS;
        double s[LANES] = {0}, tail = 0;
        for (; k + LANES <= end; k += LANES)
            for (int l = 0; l < LANES; l++) s[l] += (double)g[k + (size_t)l] * (double)g[k + (size_t)l];
        for (; k < end; k++) tail += (double)g[k] * (double)g[k];
        sum[part] = ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7])) + tail;
    }
}

double gradient_norm(const Tensor *list, int tensors) {
    double total = 0, sum[PARTS];
    for (int i = 0; i < tensors; i++) {
        if (!is_trained(&list[i])) continue;
        size_t n = tensor_size(&list[i]);
        IN_PARTS((double)n * 8, PARTS, squares(sum, list[i].matrix->grad, n, from, to));
        for (int part = 0; part < PARTS; part++) total += sum[part];
    }
    return sqrt(total);
}

void gradient_zero(const Tensor *list, int tensors) {
    for (int i = 0; i < tensors; i++)
        if (is_trained(&list[i])) {
            float *grad = list[i].matrix->grad;
            size_t n = tensor_size(&list[i]);
            IN_PARTS((double)n * 4, n, memset(grad + from, 0, (to - from) * sizeof *grad));
        }
}

/* Makes a step with elements from .. to-1, g times scale:
 *     m = b1 m + (1-b1) g    v = b2 v + (1-b2) g^2    theta = theta decay - step m / (sqrt(v) root + eps)
 * decay = 1 - lr wd, or 1 for vectors.
 * PyTorch: step = lr / (1-b1^t), root = 1 / sqrt(1-b2^t).
 * TF1:     step = lr sqrt(1-b2^t) / (1-b1^t), root = 1. */
typedef struct { const AdamW *c; float scale, step, root, decay; } AdamStep;
static void adamw(float *restrict w, float *restrict m, float *restrict v, const float *restrict g,
                  const AdamStep *s, size_t from, size_t to) {
    const float b1 = s->c->beta1, b2 = s->c->beta2, eps = s->c->eps;
    const float scale = s->scale, step = s->step, root = s->root, decay = s->decay;
    for (size_t i = from; i < to; i++) {
        float gi = g[i] * scale;
        m[i] = b1 * m[i] + (1 - b1) * gi;
        v[i] = b2 * v[i] + (1 - b2) * gi * gi;
        w[i] = w[i] * decay - step * m[i] / (sqrtf(v[i]) * root + eps);
    }
}

size_t optimizer_step(Optimizer *o, size_t begin, const Tensor *list, int tensors, const AdamW *c,
                      float grad_scale) {
    RETURN_WIDE_VALUE(optimizer_step, (o, begin, list, tensors, c, grad_scale));
    if (begin == 0) o->t++;
    double one = 1 - pow((double)c->beta1, (double)o->t), two = sqrt(1 - pow((double)c->beta2, (double)o->t));
    float step = (float)(c->tf_style ? (double)c->lr * two / one : (double)c->lr / one);
    float root = (float)(c->tf_style ? 1 : 1 / two);
    for (int i = 0; i < tensors; i++) {
        if (!is_trained(&list[i])) continue;
        float decay = list[i].flags & TENSOR_VECTOR ? 1 : 1 - c->lr * c->weight_decay;
        size_t n = tensor_size(&list[i]);
        float *w = list[i].matrix->data, *m = o->m + begin, *v = o->v + begin;
        const AdamStep s = { c, grad_scale, step, root, decay };
        IN_PARTS((double)n * 24, n, adamw(w, m, v, list[i].matrix->grad, &s, from, to));
        begin += n;
    }
    return begin;
}
