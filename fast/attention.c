/* fast/attention.c - the twins of ops.c's attention: small products of matrices instead of loops over rows.
 *
 * What     For up to 64 queries and one head it computes S = Q K^T, P = softmax(scale S + bias), Y = P V.
 *          If a query does not see a row of k, its p for this row is 0, which adds exactly nothing. So a
 *          query's bits are those of the definition and do not depend on the queries around it.
 * Order    Scores and mixtures are summed as products are (fast/matmul.c). The gradient of a row of k or v
 *          is summed over the heads of its group, and for each head over the queries, in order.
 * Threads  Threads share the heads in the forward pass, and the key heads in the backward pass: one thread
 *          adds all gradients of its rows of k and v, and of its columns of the bias.
 * Needs    fast/matmul.c, lanes.h; fast/wide.c on processors that have it. */
#include "fast.h"
#include "../lanes.h"

enum { QUERIES = 64 };

/* Queries m0 .. m0+M-1. Together they see rows first .. first+keys-1 of k and v; keys is at most QUERIES
 * more than the largest number of rows that one query sees. */
typedef struct { int m0, M, first, keys; } Span;

/* The arguments of one pass. most: the largest number of rows that one query sees. scratch: `floats`
 * floats for each thread. */
typedef struct {
    const Qkv *in; const Keys *keys; const Heads *heads;
    int N, most;
    size_t floats; float *scratch;
} Attention;

/* Returns the span that begins with query m. It has consecutive queries, and the first row that a query
 * sees is among the rows that the queries before it see. */
static Span next_span(const Attention *a, int m) {
    const int *first = a->keys->first, *count = a->keys->count;
    Span s = { 0, 0, 0, 0 };
    s.m0 = m;
    s.first = first[m];
    for (; m < a->N && s.M < QUERIES; m++, s.M++) {
        int from = first[m] - s.first, to = from + count[m];
        if (from < 0 || (from > 0 && (from >= s.keys || to > a->most + QUERIES))) break;
        if (to > s.keys) s.keys = to;
    }
    return s;
}

/* Returns the floats of scratch for a span: for two matrices of scores, and for a product
 * along either side of them. */
static size_t span_floats(int keys, int D) {
    int most = keys + QUERIES, wide = most > D ? most : D;
    size_t side = fast_product_floats(QUERIES, wide, wide), other = fast_product_floats(wide, D, QUERIES);
    return 2 * (size_t)QUERIES * (size_t)wide + (side > other ? side : other) + 64;
}

void fast_attention_measure(Arena *ws, int keys, const Heads *heads) {
    size_t mark = ws->used;
    arena_take(ws, (size_t)threads_max() * span_floats(keys, heads->D), sizeof(float));
    ws->used = mark;
}

/* Reserves the scratch. Returns 1, or 0 if there is none: ws only measures or is too small. */
static int attention_begin(Attention *a, Arena *ws) {
    size_t mark = ws->used;
    a->most = 1;
    for (int n = 0; n < a->N && ws->base; n++) if (a->keys->count[n] > a->most) a->most = a->keys->count[n];
    a->floats = ws->base ? span_floats(a->most, a->heads->D) : 0;
    a->scratch = arena_take(ws, (size_t)threads_max() * a->floats, sizeof *a->scratch);
    ws->used = mark;
    return a->scratch != NULL;
}

/* Returns this thread's part of the scratch as a workspace. */
static Arena span_scratch(const Attention *a) {
    Arena own = { NULL, 0, 0, 0, 0 };
    own.base = (unsigned char *)(a->scratch + (size_t)thread_index() * a->floats);
    own.capacity = a->floats * sizeof *a->scratch;
    return own;
}

/* Return where head h of span s begins in q and y (query_at), and in k and v (key_at). */
static size_t query_at(const Heads *heads, Span s, int h) {
    return ((size_t)s.m0 * (size_t)heads->H + (size_t)h) * (size_t)heads->D;
}
static size_t key_at(const Heads *heads, Span s, int h) {
    return ((size_t)s.first * (size_t)heads->K + (size_t)(h / (heads->H / heads->K))) * (size_t)heads->D;
}

/* Computes C (M,J) = A (M,K) W, or A W^T if `transposed`; adds it to C if `add`. All numbers are floats. */
static void multiply(float *C, size_t stride, View a, const Matrix *w, int transposed, int add, int M, int J,
                     int K, Arena *ws) {
    const Product p = { C, stride, a, w, transposed, NULL, add, F32, M, J, K, NULL, NULL };
    fast_product(p, ws);
}

/* Computes P (M,keys) = softmax(scale q k^T + bias) of head h. P is 0 where a query does not see a row. */
static void probabilities(float *P, const Attention *a, Span s, int h, Arena *ws) {
    const Heads *heads = a->heads;
    View q = { a->in->q + query_at(heads, s, h), (size_t)heads->H * (size_t)heads->D, 1 };
    Matrix k = fast_rows(a->in->k + key_at(heads, s, h), heads->K * heads->D);
    multiply(P, (size_t)s.keys, q, &k, 1, 0, s.M, s.keys, heads->D, ws);
#ifdef HAS_WIDE
    if (fast_wide()) {
        wide_attention_rows(P, s.keys, s.first, a->keys, heads, s.m0, s.m0 + s.M, h);
        return;
    }
#endif
    attention_rows(P, s.keys, s.first, a->keys, heads, s.m0, s.m0 + s.M, h);
}

static void forward_heads(float *y, const Attention *a, size_t from, size_t to) {
    const Heads *heads = a->heads;
    for (int h = (int)from; h < (int)to; h++)
        for (int m = 0; m < a->N;) {
            Span s = next_span(a, m);
            Arena own = span_scratch(a);
            float *P = arena_take(&own, (size_t)s.M * (size_t)s.keys, sizeof *P);
            View p = { P, (size_t)s.keys, 1 };
            Matrix v = fast_rows(a->in->v + key_at(heads, s, h), heads->K * heads->D);
            probabilities(P, a, s, h, &own);
            multiply(y + query_at(heads, s, h), (size_t)heads->H * (size_t)heads->D, p, &v, 0, 0, s.M,
                     heads->D, s.keys, &own);
            m += s.M;
        }
}

void fast_attention_forward(float *y, const Qkv *in, const Keys *keys, int N, const Heads *heads, Arena *ws) {
    Attention a = { in, keys, heads, N, 0, 0, NULL };
    if (!attention_begin(&a, ws)) return;
    IN_PARTS((double)N * heads->H * heads->D * 64, heads->H, forward_heads(y, &a, from, to));
}

/* Turns dS (M,keys) from dP = dY V^T into scale P (dP - dy.y). dS is 0 where a query does not see a row. */
static void softmax_backward(float *dS, const float *P, const float *dy, const float *y, const Attention *a,
                             Span s, int h) {
    size_t width = (size_t)a->heads->H * (size_t)a->heads->D;
    for (int n = s.m0; n < s.m0 + s.M; n++, dS += s.keys, P += s.keys, dy += width, y += width) {
        int from = a->keys->first[n] - s.first, to = from + a->keys->count[n];
        attention_row_backward(dS + from, P + from, dot(dy, y, a->heads->D), a->keys, a->heads, n, h);
        memset(dS, 0, (size_t)from * sizeof *dS);
        memset(dS + to, 0, (size_t)(s.keys - to) * sizeof *dS);
    }
}

/* Computes the gradients of one span of one head. With P as in the forward pass and dP = dY V^T:
 *     dS = scale P (dP - dy.y)      dQ += dS K      dK += dS^T Q      dV += P^T dY */
static void span_backward(const Qkv *d, const float *dy, const float *y, const Attention *a, Span s, int h) {
    const Heads *heads = a->heads;
    int D = heads->D, keys = s.keys;
    size_t width = (size_t)heads->H * (size_t)D, kv = (size_t)heads->K * (size_t)D, across = (size_t)keys;
    size_t row = query_at(heads, s, h), key = key_at(heads, s, h);
    Arena own = span_scratch(a);
    float *P = arena_take(&own, (size_t)s.M * across, sizeof *P),
        *dS = arena_take(&own, (size_t)s.M * across, sizeof *dS);
    View of_dy = { dy + row, width, 1 }, of_dS = { dS, across, 1 }, of_dS_t = { dS, 1, across },
        of_P_t = { P, 1, across };
    Matrix k = fast_rows(a->in->k + key, (int)kv), v = fast_rows(a->in->v + key, (int)kv);
    Matrix q = fast_rows(a->in->q + row, (int)width), dY = fast_rows(dy + row, (int)width);
    probabilities(P, a, s, h, &own);
    multiply(dS, across, of_dy, &v, 1, 0, s.M, keys, D, &own);
    softmax_backward(dS, P, dy + row, y + row, a, s, h);
    multiply(d->q + row, width, of_dS, &k, 0, 1, s.M, D, keys, &own);
    multiply(d->k + key, kv, of_dS_t, &q, 0, 1, keys, D, s.M, &own);
    multiply(d->v + key, kv, of_P_t, &dY, 0, 1, keys, D, s.M, &own);
}

static void backward_heads(const Qkv *d, const float *dy, const float *y, const Attention *a, size_t from,
                           size_t to) {
    int group = a->heads->H / a->heads->K;
    for (int h = (int)from * group; h < (int)to * group; h++)
        for (int m = 0; m < a->N;) {
            Span s = next_span(a, m);
            span_backward(d, dy, y, a, s, h);
            m += s.M;
        }
}

void fast_attention_backward(const Qkv *d, const float *dy, const float *y, const Qkv *in, const Keys *keys,
                             int N, const Heads *heads, Arena *ws) {
    Attention a = { in, keys, heads, N, 0, 0, NULL };
    if (!attention_begin(&a, ws)) return;
    IN_PARTS((double)N * heads->H * heads->D * 64, heads->K, backward_heads(d, dy, y, &a, from, to));
}
