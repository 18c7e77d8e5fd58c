/* files/llama2c.c - reads llama2.c's checkpoints (*.bin) into a list of tensors with Hugging Face's names and
 * order of rows.
 * Source   Karpathy 2023: run.c, export.py, runq.c. All is little-endian; matrices are (out, in), layer after
 *          layer. There are three kinds of files:
 *          legacy     7 int32: dim, hidden, layers, heads, kv heads, vocabulary (negative: the head has its
 *                     own tensor), positions; then float32 numbers
 *          version 1  u32 0x616b3432, int32 1, the 7 int32, u8 (1: the head is the embedding), zeros up to
 *                     byte 256; then float32 numbers
 *          version 2  as version 1, with int32 2, and an int32 group size after the u8; norms are float32,
 *                     each matrix is n int8, then n / group float32 scales
 * Needs    core, quant, io, files/fields, files/config; a pool that keeps the weights.
 * Never    guesses the kind of a file: the file has to be exactly as long as its header says.
 * Edges    sizes are bounded before they are multiplied. llama2.c rotates the pairs (2j, 2j+1) of a head's
 *          queries and keys, Hugging Face the pairs (j, j + D/2): so the rows of q and k are reordered. */
#include "files.h"

/* The kinds of tensors, in the order of a legacy file. W_TABLES, RoPE's cosines and sines, are skipped. */
enum { W_EMBEDDING, W_ATTN_NORM, W_Q, W_K, W_V, W_O, W_MLP_NORM, W_GATE, W_DOWN, W_UP, W_NORM, W_TABLES,
       W_HEAD, KINDS };
static const int name[KINDS] = { NAME_WORD, NAME_NORM1, NAME_Q, NAME_K, NAME_V, NAME_O, NAME_NORM2, NAME_GATE,
                                 NAME_DOWN, NAME_UP, NAME_NORM, 0, NAME_HEAD };
/* The kinds in the order of a file of version 1 or 2. -1: no kind. */
static const int later_order[KINDS] = { W_ATTN_NORM, W_MLP_NORM, W_NORM, W_EMBEDDING, W_Q, W_K, W_V, W_O,
                                        W_GATE, W_DOWN, W_UP, W_HEAD, -1 };

/* The state of reading a file. at: the next byte; group: numbers that share a scale (version 2). */
typedef struct {
    Llama2c *out; const char *path; File *file; uint64_t at; int group; Pool *pool; Error *err;
} Layout;

static int is_norm(int kind) { return kind == W_ATTN_NORM || kind == W_MLP_NORM || kind == W_NORM; }

/* Sets *O and *I to the rows and columns of a tensor of this kind. Returns how many
 * such tensors there are. */
static int kind_shape(const ModelConfig *c, int kind, int *O, int *I) {
    *I = kind == W_DOWN ? c->stack.F : kind == W_TABLES ? c->stack.D / 2 : c->stack.C;
    *O = is_norm(kind) ? 1 : kind == W_EMBEDDING || kind == W_HEAD ? c->V : kind == W_K || kind == W_V
        ? c->stack.K * c->stack.D
       : kind == W_GATE || kind == W_UP ? c->stack.F : kind == W_TABLES ? c->positions : c->stack.C;
    if (kind == W_HEAD) return !c->tied;
    return kind == W_EMBEDDING || kind == W_NORM ? 1 : kind == W_TABLES ? 2 : c->stack.L;
}

/* Returns how many bytes a tensor of n numbers has in the file. */
static uint64_t kind_bytes(const Layout *r, int kind, uint64_t n) {
    return r->out->version == 2 && !is_norm(kind) ? n + n / (uint64_t)r->group * 4 : n * 4;
}

/* Checks that the file is as long as its sizes say. OK, E_RANGE or E_FORMAT. */
static int check_length(Layout *r) {
    const Llama2c *l = r->out;
    uint64_t wanted = r->at;
    for (int kind = 0; kind < KINDS && wanted <= file_size(r->file); kind++) {
        int O, I, count = kind_shape(&l->config, kind, &O, &I);
        uint64_t n = (uint64_t)O * (uint64_t)I;
        if (kind == W_TABLES && l->version) continue;
        if (l->version == 2 && !is_norm(kind) && (r->group < 1 || n % (uint64_t)r->group))
            return refuse(r->err, E_RANGE, r->path,
                          "a group size that does not divide the matrices: group_size");
        wanted += (uint64_t)count * kind_bytes(r, kind, n);     /* adds less than 4096 * 5 * 2^48 */
    }
    if (wanted == file_size(r->file)) return OK;
    return fail(r->err, E_FORMAT, "not a llama2.c file, or an incomplete one (bytes)", r->path,
                (long long)file_size(r->file), (long long)wanted);
}

/* Reads the header. Checks its sizes, and that the file has exactly the length that follows from them. */
static int read_header(Layout *r) {
    static const char *const field[7] = { "dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads",
        "vocab_size", "max_seq_len" };
    Llama2c *l = r->out;
    ModelConfig *c = &l->config;
    int *const size[7] = { &c->stack.C, &c->stack.F, &c->stack.L, &c->stack.H, &c->stack.K, &c->V,
        &c->positions };
    unsigned char b[256] = { 0 };
    Reader from = { b, b + sizeof b, 0 };
    int code = file_read_at(r->file, 0, b, file_size(r->file) < 256 ? (size_t)file_size(r->file) : 256,
                            r->err);
    if (code != OK) return code;
    if (read_u32(&from) == 0x616b3432) {
        l->version = (int)read_u32(&from);
        if (l->version != 1 && l->version != 2)
            return refuse(r->err, E_UNSUPPORTED, r->path, "a llama2.c file of another version than 1 and 2");
    } else from.at = b;
    for (int k = 0; k < 7; k++) {
        int32_t x = (int32_t)read_u32(&from);
        if (k == 5 && !l->version) { c->tied = x > 0; x = x < 0 && x != INT32_MIN ? -x : x; }
        if (x < 1 || x > SIZE_LIMIT || (k == 2 && x > 4096))
            return refuse(r->err, E_RANGE, r->path, "not a llama2.c file: %s is out of range", field[k]);
        *size[k] = x;
    }
    if (l->version) c->tied = read_u8(&from) != 0;
    if (l->version == 2) r->group = (int)read_u32(&from);
    if (c->stack.C % c->stack.H || c->stack.C / c->stack.H % 2 || c->stack.H % c->stack.K)
        return refuse(r->err, E_RANGE, r->path, "heads that do not divide the width evenly: n_heads");
    c->stack.D = c->stack.C / c->stack.H;
    r->at = l->version ? 256 : 28;
    return check_length(r);
}

/* Reads the n numbers of the next tensor into out. A number is a float32, or an int8
 * times its group's scale. */
static int read_numbers(Layout *r, int kind, f32 *out, size_t n) {
    PoolMark mark = pool_mark(r->pool);
    size_t size = (size_t)kind_bytes(r, kind, n);
    unsigned char *b;
    f32 *scale;
    int code;
    if (size == n * 4) {
        code = file_read_at(r->file, r->at, out, size, r->err);
        little_endian(out, 4, n);
        r->at += size;
        return code;
    }
    b = pool_take(r->pool, n, 1);
    scale = pool_take(r->pool, (size - n) / 4 + 1, sizeof *scale);
    if (!b || !scale) return fail(r->err, E_MEMORY, "memory for the weights", r->path, 0, 0);
    code = file_read_at(r->file, r->at, b, n, r->err);
    if (code == OK) code = file_read_at(r->file, r->at + n, scale, size - n, r->err);
    little_endian(scale, 4, (size - n) / 4);
    for (size_t i = 0; i < n && code == OK; i++)
        out[i] = (f32)(b[i] < 128 ? b[i] : b[i] - 256) * scale[i / (size_t)r->group];
    r->at += size;
    pool_release(r->pool, mark);
    return code;
}

/* Reorders the rows of w (O,I): in each head of D rows, row 2j + half becomes row half * D/2 + j. */
static int permute_heads(Layout *r, f32 *w, int O, int I, int D) {
    PoolMark mark = pool_mark(r->pool);
    size_t row = (size_t)I * sizeof *w;
    f32 *head = pool_take(r->pool, (size_t)D, row);
    if (!head) return fail(r->err, E_MEMORY, "memory for the weights", r->path, 0, 0);
    for (int h = 0; h < O; h += D) {
        f32 *to = w + (size_t)h * (size_t)I;
        memcpy(head, to, (size_t)D * row);
        for (int d = 0; d < D; d++)
            memcpy(to + (size_t)(d % 2 * (D / 2) + d / 2) * (size_t)I, head + (size_t)d * (size_t)I, row);
    }
    pool_release(r->pool, mark);
    return OK;
}

/* Reads the next tensor of the file, (O,I), into the list. `layer` counts the tensors of its kind. */
static int read_tensor(Layout *r, int kind, int layer, int O, int I) {
    Tensor *t = &r->out->tensor[r->out->tensors++];
    size_t n = (size_t)O * (size_t)I;
    int code;
    name_format(t->name, sizeof t->name, r->out->config.names->part[name[kind]], layer);
    t->flags = is_norm(kind) ? TENSOR_VECTOR : 0;
    t->matrix = pool_take(r->pool, 1, sizeof *t->matrix);
    if (t->matrix) t->matrix->data = pool_take(r->pool, n, sizeof(f32));
    if (!t->matrix || !t->matrix->data)
        return fail(r->err, E_MEMORY, "memory for the weights", r->path, 0, 0);
    t->matrix->type = F32;
    t->matrix->O = O;
    t->matrix->I = I;
    code = read_numbers(r, kind, t->matrix->data, n);
    if (code != OK || (kind != W_Q && kind != W_K)) return code;
    return permute_heads(r, t->matrix->data, O, I, r->out->config.stack.D);
}

static int read_all(Layout *r) {
    Llama2c *l = r->out;
    int code = read_header(r);
    if (code != OK) return code;
    l->tensor = pool_take(r->pool, (size_t)l->config.stack.L * 9 + 3, sizeof *l->tensor);
    if (!l->tensor) return fail(r->err, E_MEMORY, "memory for the weights", r->path, 0, 0);
    for (int k = 0; k < KINDS && code == OK; k++) {
        int kind = l->version ? later_order[k] : k, O, I;
        int count = kind < 0 ? 0 : kind_shape(&l->config, kind, &O, &I);
        for (int i = 0; i < count && code == OK; i++)
            if (kind == W_TABLES) r->at += (uint64_t)O * (uint64_t)I * 4;
            else code = read_tensor(r, kind, i, O, I);
    }
    return code;
}

int llama2c_load(Llama2c *l, const char *path, Pool *pool, Error *err) {
    Layout r;
    int code;
    memset(l, 0, sizeof *l);
    memset(&r, 0, sizeof r);
    config_policy(&l->config, "llama");
    l->config.stack.eps = 1e-5f;
    l->config.stack.rope.theta = 10000;
    l->config.bos = 1;
    l->config.pad = -1;
    l->config.eos[0] = 2;
    l->config.eos_count = 1;
    r.out = l;
    r.path = path;
    r.pool = pool;
    r.err = err;
    r.file = file_open(path, pool, err);
    if (!r.file) return err && err->code ? err->code : E_OPEN;
    code = read_all(&r);
    file_close(r.file);
    return code;
}
