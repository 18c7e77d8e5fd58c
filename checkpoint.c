/* checkpoint.c - Hugging Face folders in and out: weights, configurations, adapters, tokenizers.
 * Source   safetensors' README ("Format") and the checks of its tensor.rs; transformers' configuration_llama.py and
 *          configuration_roberta.py (keys and defaults); peft's LoraConfig (adapter_config.json).
 * Needs    core, quant, tokenizer, io; a pool for headers and JSON, given back before it returns. Weights are streamed:
 *          one tensor at a time, 16 KB at a time, so a model needs its own memory and no more. <stdio.h> for snprintf only.
 * Never    knows a model: it fills and writes the caller's list of tensors. Never guesses: what a folder asks for and the
 *          rest of this project does not do is refused by name.
 * Edges    every number in a file is hostile: sizes are checked in 64 bits before they are used; NaN and infinities in
 *          weights are loaded as they are; a tied tensor is neither required nor written, a copy of it in the file is ignored;
 *          other unknown tensors (rotary inv_freq, position_ids) are ignored, whatever their type. */
#include "rlhf.h"
#include <stdarg.h>
#include <stdio.h>

enum { CHUNK = 16384 };                         /* bytes of a tensor in flight */
#define HEADER_MAX 100000000u                   /* the reference's limit for a safetensors header */
#define EXACT_MAX 9007199254740992.0            /* 2^53: JSON integers are exact up to here */
#define SIZE_LIMIT (1 << 24)                    /* widths, vocabulary, positions: products of two stay below 2^48 */

/* fail() with a composed text. Returns code. */
static int refuse(Error *err, int code, const char *where, const char *format, ...) {
    char what[160];
    va_list list;
    va_start(list, format);
    vsnprintf(what, sizeof what, format, list);
    va_end(list);
    return fail(err, code, what, where, 0, 0);
}

/* FOLDER/STEM + EXTENSION in pool. */
static char *path_in(const char *folder, const char *stem, const char *extension, Pool *pool) {
    size_t a = strlen(folder), b = strlen(stem), c = strlen(extension), slash = a && folder[a - 1] != '/';
    char *path = pool_take(pool, a + b + c + 2, 1);
    if (!path) return NULL;
    memcpy(path, folder, a);
    if (slash) path[a] = '/';
    memcpy(path + a + slash, stem, b);
    memcpy(path + a + slash + b, extension, c);     /* the pool is zeroed: a NUL follows */
    return path;
}

/* An error of a function that sees bytes and not their file, passed on with the file's name. */
static int fail_in(Error *err, const Error *inner, const char *path) {
    return fail(err, inner->code, inner->what, path, inner->got, inner->wanted);
}

/* A file that holds one JSON object. */
static int json_file(const Json **object, const char *path, Pool *pool, Error *err) {
    Error inner;
    char *text;
    size_t n;
    int code = file_read_all(path, pool, &text, &n, err);
    memset(&inner, 0, sizeof inner);
    if (code != OK) return code;
    *object = json_parse(text, n, pool, &inner);
    if (!*object) return fail_in(err, &inner, path);
    return (*object)->type == JSON_OBJECT ? OK : fail(err, E_FORMAT, "not a JSON object", path, 0, 0);
}

/* ---- safetensors: u64 N, N bytes of JSON {name: {dtype, shape, data_offsets}}, then the tensors' bytes ---- */

static const struct { char name[12]; int bits, type; } dtypes[] = {     /* type -1: known, never asked for */
    { "F32", 32, F32 }, { "BF16", 16, BF16 }, { "F16", 16, F16 }, { "F64", 64, -1 }, { "I64", 64, -1 }, { "U64", 64, -1 },
    { "C64", 64, -1 }, { "I32", 32, -1 }, { "U32", 32, -1 }, { "I16", 16, -1 }, { "U16", 16, -1 }, { "I8", 8, -1 },
    { "U8", 8, -1 }, { "BOOL", 8, -1 }, { "F8_E4M3", 8, -1 }, { "F8_E5M2", 8, -1 }, { "F8_E8M0", 8, -1 },
    { "F8_E4M3FNUZ", 8, -1 }, { "F8_E5M2FNUZ", 8, -1 }, { "F6_E2M3", 6, -1 }, { "F6_E3M2", 6, -1 }, { "F4", 4, -1 },
};
enum { DTYPES = sizeof dtypes / sizeof *dtypes };

typedef struct { const char *name; size_t length; int dtype /* index in dtypes */, rank; uint64_t shape[2], begin, end; } Entry;
typedef struct {
    File *file; const char *path;
    uint64_t data;                          /* where the tensors begin */
    Entry *entry; size_t count;
} Container;

/* Strings with lengths (names may hold NULs), by bytes: <0, 0, >0. */
static int compare_names(const char *a, size_t an, const char *b, size_t bn) {
    int c = memcmp(a, b, an < bn ? an : bn);
    return c ? c : (an > bn) - (an < bn);
}
static int by_offset(const void *left, const void *right) {
    const Entry *a = left, *b = right;
    if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
    return (a->end > b->end) - (a->end < b->end);
}
static int by_name(const void *left, const void *right) {
    const Entry *a = left, *b = right;
    return compare_names(a->name, a->length, b->name, b->length);
}

/* A JSON number that is a whole one from 0 to 2^53. */
static int whole(const Json *j, uint64_t *value) {
    if (!j || j->type != JSON_NUMBER || !(j->number >= 0 && j->number <= EXACT_MAX) || floor(j->number) != j->number) return 0;
    *value = (uint64_t)j->number;
    return 1;
}

/* One tensor's record; its number of bytes has to be what dtype and shape say. */
static int entry_parse(Entry *e, const Json *j, const char *path, Error *err) {
    const Json *dtype = json_get(j, "dtype"), *shape = json_get(j, "shape"), *offsets = json_get(j, "data_offsets"), *d;
    uint64_t n = 1;
    e->name = j->key;
    e->length = j->key_length;
    if (!dtype || dtype->type != JSON_STRING || !shape || shape->type != JSON_ARRAY || !offsets || offsets->type != JSON_ARRAY
        || offsets->count != 2 || !whole(offsets->child, &e->begin) || !whole(offsets->child->next, &e->end))
        return refuse(err, E_FORMAT, path, "tensor %.96s: not {dtype, shape, data_offsets}", e->name);
    for (e->dtype = 0; e->dtype < DTYPES && strcmp(dtypes[e->dtype].name, dtype->string) != 0; e->dtype++) ;
    if (e->dtype == DTYPES) return refuse(err, E_UNSUPPORTED, path, "dtype %.24s of tensor %.96s", dtype->string, e->name);
    for (d = shape->child, e->rank = 0; d; d = d->next, e->rank++) {
        uint64_t size;
        if (!whole(d, &size)) return refuse(err, E_FORMAT, path, "tensor %.96s: a size that is no whole number", e->name);
        if (size && n > UINT64_MAX / 64 / size) return refuse(err, E_RANGE, path, "tensor %.96s: its sizes overflow", e->name);
        n *= size;
        if (e->rank < 2) e->shape[e->rank] = size;
    }
    n *= (uint64_t)dtypes[e->dtype].bits;
    if (e->end < e->begin || n % 8 || n / 8 != e->end - e->begin)
        return refuse(err, E_FORMAT, path, "tensor %.96s: its offsets do not fit its shape", e->name);
    return OK;
}

/* The reference's checks of the whole: names once each; tensors one after another without gap or overlap, from the end of the
 * header to the end of the file. Leaves the entries sorted by name. */
static int container_check(Container *c, Error *err) {
    uint64_t at = 0, wanted = file_size(c->file) - c->data;
    qsort(c->entry, c->count, sizeof *c->entry, by_offset);
    for (size_t i = 0; i < c->count; i++) {
        if (c->entry[i].begin != at)
            return refuse(err, E_FORMAT, c->path, "tensor %.96s: a gap or an overlap before it", c->entry[i].name);
        at = c->entry[i].end;
    }
    if (at > wanted) return fail(err, E_TRUNCATED, "bytes of tensors", c->path, (long long)wanted, (long long)at);
    if (at < wanted) return fail(err, E_FORMAT, "bytes after the last tensor", c->path, (long long)wanted, (long long)at);
    qsort(c->entry, c->count, sizeof *c->entry, by_name);
    for (size_t i = 1; i < c->count; i++)
        if (by_name(&c->entry[i - 1], &c->entry[i]) == 0)
            return refuse(err, E_FORMAT, c->path, "tensor %.96s is there twice", c->entry[i].name);
    return OK;
}

/* The header of an open file. */
static int container_header(Container *c, Pool *pool, Error *err) {
    uint64_t size = file_size(c->file), n;
    unsigned char first[8];
    Reader r = { first, first + 8, 0 };
    Error inner;
    const Json *header, *j;
    char *text;
    int code;
    memset(&inner, 0, sizeof inner);
    if (size < 8) return fail(err, E_TRUNCATED, "too short for safetensors", c->path, (long long)size, 8);
    code = file_read_at(c->file, 0, first, 8, err);
    if (code != OK) return code;
    n = read_u64(&r);
    if (n > HEADER_MAX) return refuse(err, E_RANGE, c->path, "safetensors header of more than 100 MB (not safetensors?)");
    if (n > size - 8) return fail(err, E_TRUNCATED, "safetensors header", c->path, (long long)(size - 8), (long long)n);
    c->data = 8 + n;
    text = pool_take(pool, (size_t)n + 1, 1);
    if (!text) return fail(err, E_MEMORY, "memory for the header", c->path, 0, 0);
    code = file_read_at(c->file, 8, text, (size_t)n, err);
    if (code != OK) return code;
    if (text[0] != '{') return fail(err, E_FORMAT, "safetensors header does not begin with {", c->path, 0, 0);
    header = json_parse(text, (size_t)n, pool, &inner);
    if (!header) return fail_in(err, &inner, c->path);
    c->entry = pool_take(pool, header->count + 1, sizeof *c->entry);
    if (!c->entry) return fail(err, E_MEMORY, "memory for the header", c->path, 0, 0);
    for (j = header->child; j; j = j->next) {
        int metadata = j->key_length == 12 && memcmp(j->key, "__metadata__", 12) == 0;
        if (!metadata) {
            code = entry_parse(&c->entry[c->count++], j, c->path, err);
            if (code != OK) return code;
            continue;
        }
        if (j->type != JSON_OBJECT) return fail(err, E_FORMAT, "__metadata__ is no object", c->path, 0, 0);
        for (const Json *m = j->child; m; m = m->next)
            if (m->type != JSON_STRING) return fail(err, E_FORMAT, "__metadata__ holds more than strings", c->path, 0, 0);
    }
    return container_check(c, err);
}

static int container_open(Container *c, const char *path, Pool *pool, Error *err) {
    int code;
    memset(c, 0, sizeof *c);
    c->path = path;
    c->file = file_open(path, pool, err);
    if (!c->file) return err && err->code ? err->code : E_OPEN;
    code = container_header(c, pool, err);
    if (code != OK) file_close(c->file);
    return code;
}

static const Entry *container_find(const Container *c, const char *name) {
    size_t low = 0, high = c->count, n = strlen(name);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare_names(c->entry[middle].name, c->entry[middle].length, name, n);
        if (order == 0) return &c->entry[middle];
        if (order < 0) low = middle + 1; else high = middle;
    }
    return NULL;
}

/* ---- values: little-endian bytes of a file <-> Matrix data ---- */

static uint32_t float_bits(f32 x) { uint32_t u; memcpy(&u, &x, 4); return u; }
static f32 bits_float(uint32_t u) { f32 x; memcpy(&x, &u, 4); return x; }
static size_t dtype_bytes(int type) { return type == F32 ? 4 : 2; }
static const char *dtype_name(int type) { return type == F32 ? "F32" : type == BF16 ? "BF16" : "F16"; }

/* n values: bytes of type `from` into data of type `to`, from element `at` on. Same type: the same bits. */
static void values_in(void *data, int to, size_t at, const unsigned char *b, int from, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t u = (uint32_t)b[0] | (uint32_t)b[1] << 8;
        if (from == F32) u |= (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
        b += dtype_bytes(from);
        if (from != to) {                       /* widen to F32 bits, then narrow */
            if (from != F32) u = float_bits(from == BF16 ? bf16_to_f32((uint16_t)u) : f16_to_f32((uint16_t)u));
            if (to != F32) u = to == BF16 ? f32_to_bf16(bits_float(u)) : f32_to_f16(bits_float(u));
        }
        if (to == F32) memcpy((unsigned char *)data + 4 * (at + i), &u, 4);
        else ((uint16_t *)data)[at + i] = (uint16_t)u;
    }
}

/* The same way back. */
static void values_out(unsigned char *b, int to, const void *data, int from, size_t at, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t u;
        if (from == F32) memcpy(&u, (const unsigned char *)data + 4 * (at + i), 4);
        else u = ((const uint16_t *)data)[at + i];
        if (from != to) {
            if (from != F32) u = float_bits(from == BF16 ? bf16_to_f32((uint16_t)u) : f16_to_f32((uint16_t)u));
            if (to != F32) u = to == BF16 ? f32_to_bf16(bits_float(u)) : f32_to_f16(bits_float(u));
        }
        *b++ = (unsigned char)u;
        *b++ = (unsigned char)(u >> 8);
        if (to == F32) { *b++ = (unsigned char)(u >> 16); *b++ = (unsigned char)(u >> 24); }
    }
}

/* ---- loading ---- */

/* The names under which a tensor may stand in a file, by k = 0..3: as listed; without its leading "model." or "roberta.";
 * with the LayerNorm names of very old files. 0: there is no such name. */
static int candidate(char *out, size_t cap, const char *prefix, const char *name, int k) {
    size_t n;
    if (k & 1) {
        if (strncmp(name, "model.", 6) == 0) name += 6;
        else if (strncmp(name, "roberta.", 8) == 0) name += 8;
        else return 0;
    }
    if (strlen(prefix) + strlen(name) >= cap) return 0;
    strcpy(out, prefix);
    strcat(out, name);
    if (k & 2) {
        n = strlen(out);
        if (n > 17 && strcmp(out + n - 17, ".LayerNorm.weight") == 0) strcpy(out + n - 6, "gamma");
        else if (n > 15 && strcmp(out + n - 15, ".LayerNorm.bias") == 0) strcpy(out + n - 4, "beta");
        else return 0;
    }
    return 1;
}

/* The shape of a list's tensor and of a file's, side by side. */
static int check_shape(const Entry *e, const Tensor *t, const char *path, Error *err) {
    const Matrix *m = t->matrix;
    char file[48], list[48];
    int vector = (t->flags & TENSOR_VECTOR) != 0;
    if (vector ? e->rank == 1 && e->shape[0] == (uint64_t)m->I
               : e->rank == 2 && e->shape[0] == (uint64_t)m->O && e->shape[1] == (uint64_t)m->I) return OK;
    if (e->rank == 1) snprintf(file, sizeof file, "[%llu]", (unsigned long long)e->shape[0]);
    else if (e->rank == 2)
        snprintf(file, sizeof file, "[%llu,%llu]", (unsigned long long)e->shape[0], (unsigned long long)e->shape[1]);
    else snprintf(file, sizeof file, "of %d dimensions", e->rank);
    if (vector) snprintf(list, sizeof list, "[%d]", m->I);
    else snprintf(list, sizeof list, "[%d,%d]", m->O, m->I);
    return refuse(err, E_SHAPE, path, "tensor %s is %s, wanted %s", t->name, file, list);
}

/* One tensor, chunk by chunk. Shape and bytes are checked already. */
static int tensor_read(const Container *c, const Entry *e, const Tensor *t, Error *err) {
    unsigned char chunk[CHUNK];
    int type = dtypes[e->dtype].type;
    const Matrix *m = t->matrix;
    size_t total = (size_t)m->O * (size_t)m->I, width, step;
    if (type < 0) return refuse(err, E_UNSUPPORTED, c->path, "dtype %s of tensor %s", dtypes[e->dtype].name, t->name);
    if (m->type != F32 && m->type != BF16 && m->type != F16)
        return refuse(err, E_UNSUPPORTED, c->path, "loading into the stored type of tensor %s", t->name);
    width = dtype_bytes(type);
    step = CHUNK / width;
    for (size_t at = 0; at < total; at += step) {
        size_t n = total - at < step ? total - at : step;
        int code = file_read_at(c->file, c->data + e->begin + (uint64_t)at * width, chunk, n * width, err);
        if (code != OK) return code;
        values_in(m->data, m->type, at, chunk, type, n);
    }
    return OK;
}

/* Reads every tensor of the list that this container has (and that weight_map, if there is one, expects in `shard`). */
static int take_tensors(const Container *c, const Json *map, const char *shard, const char *prefix, const Tensor *list,
                        int tensors, unsigned char *seen, Error *err) {
    char name[256];
    for (int t = 0; t < tensors; t++) {
        if (seen[t] || (list[t].flags & TENSOR_TIED)) continue;
        for (int k = 0; k < 4 && !seen[t]; k++) {
            const Entry *e;
            int code;
            if (!candidate(name, sizeof name, prefix, list[t].name, k)) continue;
            if (map && strcmp(json_text(map, name, ""), shard) != 0) continue;
            e = container_find(c, name);
            if (!e) continue;
            code = check_shape(e, &list[t], c->path, err);
            if (code == OK) code = tensor_read(c, e, &list[t], err);
            if (code != OK) return code;
            seen[t] = 1;
        }
    }
    return OK;
}

/* The shard that the index names for a tensor; NULL: the index does not know it. */
static const char *shard_of(const Json *map, const char *prefix, const char *tensor) {
    char name[256];
    const char *shard = NULL;
    for (int k = 0; k < 4 && !shard; k++)
        if (candidate(name, sizeof name, prefix, tensor, k)) shard = json_text(map, name, NULL);
    return shard;
}

/* {"weight_map": {tensor: shard file}}: opens each shard once, for all of its tensors. A shard stands beside its index: names
 * with path parts are refused. */
static int load_shards(const char *folder, const char *index, const char *prefix, const Tensor *list, int tensors,
                       unsigned char *seen, Pool *pool, Error *err) {
    const Json *root, *map, *j;
    int code = json_file(&root, index, pool, err);
    if (code != OK) return code;
    map = json_get(root, "weight_map");
    if (!map || map->type != JSON_OBJECT) return fail(err, E_FORMAT, "no weight_map", index, 0, 0);
    for (j = map->child; j; j = j->next) {
        if (j->type != JSON_STRING) return fail(err, E_FORMAT, "weight_map holds more than strings", index, 0, 0);
        if (!j->length || j->length > 200 || strlen(j->string) != j->length || strpbrk(j->string, "/\\:") || j->string[0] == '.')
            return refuse(err, E_FORMAT, index, "shard name '%.100s'", j->string);
    }
    for (int t = 0; t < tensors; t++) {
        const char *shard = seen[t] || (list[t].flags & TENSOR_TIED) ? NULL : shard_of(map, prefix, list[t].name);
        PoolMark mark = pool_mark(pool);
        const char *path;
        Container c;
        if (!shard) continue;
        path = path_in(folder, shard, "", pool);
        if (!path) return fail(err, E_MEMORY, "memory for the index", index, 0, 0);
        code = container_open(&c, path, pool, err);
        if (code != OK) return code;
        code = take_tensors(&c, map, shard, prefix, list, tensors, seen, err);
        file_close(c.file);
        if (code == OK && !seen[t])
            code = refuse(err, E_MISSING, path, "tensor %s is not in the shard that the index names", list[t].name);
        if (code != OK) return code;
        pool_release(pool, mark);
    }
    return OK;
}

/* Names the first tensor that was not found, and how many others. */
static int check_complete(const char *path, const char *prefix, const Tensor *list, int tensors, const unsigned char *seen,
                          Error *err) {
    int first = -1, missing = 0;
    for (int t = 0; t < tensors; t++)
        if (!seen[t] && !(list[t].flags & (TENSOR_TIED | TENSOR_OPTIONAL))) {
            if (first < 0) first = t;
            missing++;
        }
    if (!missing) return OK;
    if (missing == 1) return refuse(err, E_MISSING, path, "tensor %s%s is missing", prefix, list[first].name);
    return refuse(err, E_MISSING, path, "tensor %s%s is missing, and %d more", prefix, list[first].name, missing - 1);
}

static int load(const char *folder, const char *stem, const char *prefix, const Tensor *list, int tensors, Pool *pool,
                Error *err) {
    const char *path = path_in(folder, stem, ".safetensors", pool);
    const char *index = path_in(folder, stem, ".safetensors.index.json", pool);
    const char *pickle = path_in(folder, strcmp(stem, "model") == 0 ? "pytorch_model" : stem, ".bin", pool);
    unsigned char *seen = pool_take(pool, (size_t)(tensors > 0 ? tensors : 0) + 1, 1);
    int code;
    if (!path || !index || !pickle || !seen) return fail(err, E_MEMORY, "memory for a checkpoint", folder, 0, 0);
    if (file_exists(path)) {
        Container c;
        code = container_open(&c, path, pool, err);
        if (code != OK) return code;
        code = take_tensors(&c, NULL, "", prefix, list, tensors, seen, err);
        file_close(c.file);
    } else if (file_exists(index)) {
        code = load_shards(folder, index, prefix, list, tensors, seen, pool, err);
        path = index;
    } else if (file_exists(pickle))
        code = fail(err, E_UNSUPPORTED, "PyTorch .bin weights (save them as safetensors)", pickle, 0, 0);
    else code = fail(err, E_MISSING, "no weights", path, 0, 0);
    return code == OK ? check_complete(path, prefix, list, tensors, seen, err) : code;
}

int checkpoint_load(const char *folder, const char *stem, const char *prefix, const Tensor *list, int tensors, Pool *pool,
                    Error *err) {
    PoolMark mark = pool_mark(pool);
    int code = load(folder, stem, prefix, list, tensors, pool, err);
    pool_release(pool, mark);
    return code;
}

/* ---- saving ---- */

typedef struct { const Tensor *list; const char *prefix; int dtype; Pool *pool; Error *err; } Saving;

static uint64_t saved_bytes(const Matrix *m, int dtype) { return (uint64_t)m->O * (uint64_t)m->I * dtype_bytes(dtype); }

static int by_tensor_name(const void *left, const void *right) {
    const Tensor *const *a = left, *const *b = right;
    return strcmp((*a)->name, (*b)->name);
}

/* Quoted prefix + name. */
static void put_name(Buffer *b, const char *prefix, const char *name) {
    char full[256];
    if (!candidate(full, sizeof full, prefix, name, 0)) { b->failed = 1; return; }
    buffer_json_string(b, full, strlen(full));
}

/* u64 length, then the header; all tensors have one dtype, so the reference's order (dtype, then name) is the names' order. */
static void put_header(Buffer *file, Buffer *header, const Saving *s, const Tensor *const *part, int count) {
    uint64_t at = 0;
    buffer_text(header, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (int i = 0; i < count; i++) {
        const Matrix *m = part[i]->matrix;
        buffer_text(header, ",");
        put_name(header, s->prefix, part[i]->name);
        buffer_text(header, ":{\"dtype\":\"");
        buffer_text(header, dtype_name(s->dtype));
        buffer_text(header, "\",\"shape\":[");
        if (!(part[i]->flags & TENSOR_VECTOR)) { buffer_integer(header, m->O); buffer_text(header, ","); }
        buffer_integer(header, m->I);
        buffer_text(header, "],\"data_offsets\":[");
        buffer_integer(header, (long long)at);
        at += saved_bytes(m, s->dtype);
        buffer_text(header, ",");
        buffer_integer(header, (long long)at);
        buffer_text(header, "]}");
    }
    buffer_text(header, "}");
    while (header->length % 8 && !header->failed) buffer_text(header, " ");     /* the data begin at a multiple of 8 */
    buffer_u64(file, header->length);
    if (header->failed) file->failed = 1;
    else buffer_bytes(file, header->data, header->length);
}

/* One safetensors file with `count` tensors; sorts `part`. */
static int save_file(const Saving *s, const char *path, const Tensor **part, int count) {
    unsigned char chunk[CHUNK];
    size_t width = dtype_bytes(s->dtype), step = CHUNK / width;
    Buffer file = { s->pool, NULL, 0, 0, 0 }, header = { s->pool, NULL, 0, 0, 0 };
    Writer *w;
    qsort(part, (size_t)count, sizeof *part, by_tensor_name);
    put_header(&file, &header, s, part, count);
    if (file.failed) return fail(s->err, E_MEMORY, "memory for the header", path, 0, 0);
    w = writer_open(path, s->pool, s->err);
    if (!w) return s->err && s->err->code ? s->err->code : E_OPEN;
    writer_write(w, file.data, file.length);
    for (int i = 0; i < count; i++) {
        const Matrix *m = part[i]->matrix;
        size_t total = (size_t)m->O * (size_t)m->I;
        for (size_t at = 0; at < total; at += step) {
            size_t n = total - at < step ? total - at : step;
            values_out(chunk, s->dtype, m->data, m->type, at, n);
            if (writer_write(w, chunk, n * width) != OK) at = total - n;    /* sticky: writer_close reports it */
        }
    }
    return writer_close(w, s->err);
}

/* STEM-00001-of-00002: five digits, more where needed. */
static void shard_name(char *out, size_t cap, const char *stem, int number, int of) {
    snprintf(out, cap, "%.64s-%05d-of-%05d.safetensors", stem, number, of);
}

/* Tensors in the list's order; shard[i] (from 1) is where tensor i goes: a shard is closed before it would grow above
 * the limit. */
static int assign_shards(int *shard, const Tensor *const *part, int count, int dtype, uint64_t limit) {
    uint64_t used = 0;
    int number = count > 0;
    for (int i = 0; i < count; i++) {
        uint64_t n = saved_bytes(part[i]->matrix, dtype);
        if (used && (n > limit || used > limit - n)) { number++; used = 0; }
        used += n;
        shard[i] = number;
    }
    return number;
}

/* All shards, then the index that makes them a checkpoint. */
static int save_shards(const Saving *s, const char *folder, const char *stem, const Tensor **part, int count, const int *shard,
                       int shards) {
    Buffer index = { s->pool, NULL, 0, 0, 0 };
    const char *path = path_in(folder, stem, ".safetensors.index.json", s->pool);
    uint64_t total = 0;
    char name[128];
    for (int i = 0; i < count; i++) total += saved_bytes(part[i]->matrix, s->dtype);
    buffer_text(&index, "{\"metadata\": {\"total_size\": ");
    buffer_integer(&index, (long long)total);
    buffer_text(&index, "}, \"weight_map\": {");
    for (int i = 0; i < count; i++) {
        if (i) buffer_text(&index, ", ");
        put_name(&index, s->prefix, part[i]->name);
        buffer_text(&index, ": ");
        shard_name(name, sizeof name, stem, shard[i], shards);
        buffer_json_string(&index, name, strlen(name));
    }
    buffer_text(&index, "}}\n");
    if (index.failed || !path) return fail(s->err, E_MEMORY, "memory for the index", folder, 0, 0);
    for (int i = 0, next; i < count; i = next) {
        const char *file;
        int code;
        for (next = i; next < count && shard[next] == shard[i]; next++) ;
        shard_name(name, sizeof name, stem, shard[i], shards);
        file = path_in(folder, name, "", s->pool);
        if (!file) return fail(s->err, E_MEMORY, "memory for the index", folder, 0, 0);
        code = save_file(s, file, part + i, next - i);
        if (code != OK) return code;
    }
    return file_write_all(path, index.data, index.length, s->pool, s->err);
}

static int save(const Saving *s, const char *folder, const char *stem, int tensors, uint64_t shard_bytes) {
    const Tensor **part = pool_take(s->pool, (size_t)(tensors > 0 ? tensors : 0) + 1, sizeof *part);
    int *shard = pool_take(s->pool, (size_t)(tensors > 0 ? tensors : 0) + 1, sizeof *shard), count = 0, shards = 1;
    const char *path = path_in(folder, stem, ".safetensors", s->pool);
    int code = folder_make(folder, s->err);
    if (code != OK) return code;
    if (!part || !shard || !path) return fail(s->err, E_MEMORY, "memory for a checkpoint", folder, 0, 0);
    if (s->dtype != F32 && s->dtype != BF16 && s->dtype != F16)
        return fail(s->err, E_ARGUMENT, "dtype to save in", path, s->dtype, F32);
    for (int t = 0; t < tensors; t++) {
        int type = s->list[t].matrix->type;
        if (s->list[t].flags & TENSOR_TIED) continue;
        if (type != F32 && type != BF16 && type != F16)
            return refuse(s->err, E_UNSUPPORTED, path, "saving the stored type of tensor %s", s->list[t].name);
        part[count++] = &s->list[t];
    }
    if (shard_bytes) shards = assign_shards(shard, part, count, s->dtype, shard_bytes);
    if (shards <= 1) return save_file(s, path, part, count);
    /* readers look for the single file first, so an old one would hide what we write */
    if (file_exists(path)) return fail(s->err, E_WRITE, "shards would be hidden by a file that is there already", path, 0, 0);
    return save_shards(s, folder, stem, part, count, shard, shards);
}

int checkpoint_save(const char *folder, const char *stem, const char *prefix, const Tensor *list, int tensors, int dtype,
                    uint64_t shard_bytes, Pool *pool, Error *err) {
    PoolMark mark = pool_mark(pool);
    Saving s = { list, prefix, dtype, pool, err };
    int code = save(&s, folder, stem, tensors, shard_bytes);
    pool_release(pool, mark);
    return code;
}

/* ---- configuration files: reading fields. Sticky: the first complaint is kept in `code`. ---- */

typedef struct { const Json *object; const char *path; Error *err; int code; } Fields;

static void complain(Fields *f, int code, const char *what, const char *key) {
    if (f->code == OK) f->code = refuse(f->err, code, f->path, "%s '%s'", what, key);
}

/* The value of key; NULL when absent or null. */
static const Json *field(const Fields *f, const char *key) {
    const Json *j = json_get(f->object, key);
    return j && j->type != JSON_NULL ? j : NULL;
}

static double field_real(Fields *f, const char *key, double fallback, double min, double max) {
    const Json *j = field(f, key);
    if (!j) return fallback;
    if (j->type != JSON_NUMBER) { complain(f, E_FORMAT, "not a number:", key); return fallback; }
    if (!(j->number >= min && j->number <= max)) { complain(f, E_RANGE, "out of range:", key); return fallback; }
    return j->number;
}

static int field_int(Fields *f, const char *key, int fallback, int min, int max) {
    double x = field_real(f, key, fallback, min, max);
    if (floor(x) != x) { complain(f, E_FORMAT, "not a whole number:", key); return fallback; }
    return (int)x;
}

static int field_bool(Fields *f, const char *key, int fallback) {
    const Json *j = field(f, key);
    if (!j) return fallback;
    if (j->type != JSON_TRUE && j->type != JSON_FALSE) complain(f, E_FORMAT, "neither true nor false:", key);
    return j->type == JSON_TRUE;
}

static const char *field_text(Fields *f, const char *key, const char *fallback) {
    const Json *j = field(f, key);
    if (!j) return fallback;
    if (j->type != JSON_STRING) { complain(f, E_FORMAT, "not a string:", key); return fallback; }
    return j->string;
}

/* A token id: -1 when null, `fallback` when absent. */
static int field_id(Fields *f, const char *key, int fallback) {
    return json_get(f->object, key) ? field_int(f, key, -1, -1, INT_MAX - 1) : fallback;
}

/* A text that has to be one of the words we know: key 'value' is refused by name. */
static void field_must_be(Fields *f, const char *key, const char *only) {
    const char *value = field_text(f, key, only);
    if (f->code == OK && strcmp(value, only) != 0) f->code = refuse(f->err, E_UNSUPPORTED, f->path, "%s '%.64s'", key, value);
}

/* Features that are off when absent, null, false, 0, "" or empty; anything else is refused by name. */
static void field_must_be_off(Fields *f, const char *key) {
    const Json *j = field(f, key);
    if (!j || j->type == JSON_FALSE || (j->type == JSON_NUMBER && j->number == 0) || (j->type == JSON_STRING && !j->length)
        || ((j->type == JSON_ARRAY || j->type == JSON_OBJECT) && !j->count)) return;
    complain(f, E_UNSUPPORTED, "not supported:", key);
}

typedef struct { char architecture[36], type[8]; } Architecture;

/* "architectures" and "model_type" (one of them is enough) have to name one that we know: returns which. */
static int field_architecture(Fields *f, const Architecture *known, int count) {
    const Json *list = field(f, "architectures"), *j;
    const char *type = field_text(f, "model_type", NULL);
    int which = -1;
    if (list && list->type != JSON_ARRAY) complain(f, E_FORMAT, "not a list:", "architectures");
    for (j = list ? list->child : NULL; j && f->code == OK; j = j->next) {
        for (int i = 0; i < count && which < 0; i++)
            if (j->type == JSON_STRING && strcmp(j->string, known[i].architecture) == 0) which = i;
        if (which < 0) complain(f, E_UNSUPPORTED, "architecture", j->type == JSON_STRING ? j->string : "?");
    }
    for (int i = 0; type && i < count && which < 0; i++)
        if (strcmp(type, known[i].type) == 0) which = i;
    if (which < 0 && type) complain(f, E_UNSUPPORTED, "model_type", type);
    else if (which < 0) complain(f, E_MISSING, "config.json without", "model_type");
    else if (type && strcmp(type, known[which].type) != 0) complain(f, E_UNSUPPORTED, "model_type", type);
    return which < 0 ? 0 : which;
}

/* Fields of folder/name. */
static int fields_open(Fields *f, const char *folder, const char *name, Pool *pool, Error *err) {
    memset(f, 0, sizeof *f);
    f->err = err;
    f->path = path_in(folder, name, "", pool);
    if (!f->path) return fail(err, E_MEMORY, "memory for a configuration", folder, 0, 0);
    if (!file_exists(f->path)) return fail(err, E_MISSING, "no such file", f->path, 0, 0);
    return json_file(&f->object, f->path, pool, err);
}

/* ---- Llama's config.json ---- */

static int add_eos(ModelConfig *c, int id) {
    for (int i = 0; i < c->eos_count; i++) if (c->eos[i] == id) return 1;
    if (c->eos_count == (int)(sizeof c->eos / sizeof *c->eos)) return 0;
    c->eos[c->eos_count++] = id;
    return 1;
}

/* eos_token_id: an id or a list of ids. fallback (-1: none) when absent. */
static void read_eos(Fields *f, ModelConfig *c, int fallback) {
    const Json *j = json_get(f->object, "eos_token_id"), *id;
    if (!j) { if (fallback >= 0) add_eos(c, fallback); return; }
    if (j->type == JSON_NULL) return;
    id = j->type == JSON_ARRAY ? j->child : j;
    for (; id; id = j->type == JSON_ARRAY ? id->next : NULL) {
        uint64_t value;
        if (!whole(id, &value) || value >= INT_MAX) { complain(f, E_FORMAT, "not a token id:", "eos_token_id"); return; }
        if (!add_eos(c, (int)value)) { complain(f, E_RANGE, "more ids than we keep:", "eos_token_id"); return; }
    }
}

/* rope_theta and rope_scaling, or rope_parameters, which holds both (transformers 5). */
static void read_rope(Fields *f, ModelConfig *c) {
    const Json *scaling = field(f, "rope_parameters");
    Fields s = *f;
    const char *type;
    c->rope_theta = field_real(f, "rope_theta", 10000.0, 1e-3, 1e30);
    if (!scaling) scaling = field(f, "rope_scaling");
    c->rope_type = ROPE_PLAIN;
    if (!scaling) return;
    if (scaling->type != JSON_OBJECT) { complain(f, E_FORMAT, "not an object:", "rope_scaling"); return; }
    s.object = scaling;
    c->rope_theta = field_real(&s, "rope_theta", c->rope_theta, 1e-3, 1e30);
    type = field_text(&s, "rope_type", field_text(&s, "type", "default"));
    if (!field(&s, "rope_type") && !field(&s, "type") && field(&s, "factor"))
        complain(&s, E_MISSING, "rope_scaling without", "rope_type");
    if (strcmp(type, "linear") == 0) c->rope_type = ROPE_LINEAR;
    else if (strcmp(type, "llama3") == 0) c->rope_type = ROPE_LLAMA3;
    else if (strcmp(type, "default") != 0) complain(&s, E_UNSUPPORTED, "rope_scaling type", type);
    for (const Json *j = scaling->child; j; j = j->next)
        if (j->type == JSON_OBJECT) complain(&s, E_UNSUPPORTED, "rope_parameters for a kind of layer:", j->key);
    if (c->rope_type != ROPE_PLAIN) {
        c->rope_factor = field_real(&s, "factor", 0, 1e-6, 1e6);
        if (!field(&s, "factor")) complain(&s, E_MISSING, "rope_scaling without", "factor");
    }
    if (c->rope_type == ROPE_LLAMA3) {
        static const char keys[][40] = { "low_freq_factor", "high_freq_factor", "original_max_position_embeddings" };
        for (int i = 0; i < 3; i++) if (!field(&s, keys[i])) complain(&s, E_MISSING, "rope_scaling without", keys[i]);
        c->rope_low = field_real(&s, keys[0], 1, 1e-6, 1e6);
        c->rope_high = field_real(&s, keys[1], 4, 1e-6, 1e6);
        c->rope_original = field_int(&s, keys[2], 8192, 1, SIZE_LIMIT);
        if (c->rope_high <= c->rope_low) complain(&s, E_RANGE, "not above low_freq_factor:", keys[1]);
    }
    f->code = s.code;
}

/* Sizes, and what has to hold between them. mistral: the defaults of that class. */
static void read_sizes(Fields *f, ModelConfig *c, int mistral) {
    c->V = field_int(f, "vocab_size", 32000, 1, SIZE_LIMIT);
    c->C = field_int(f, "hidden_size", 4096, 1, SIZE_LIMIT);
    c->F = field_int(f, "intermediate_size", mistral ? 14336 : 11008, 1, SIZE_LIMIT);
    c->L = field_int(f, "num_hidden_layers", 32, 1, 4096);
    c->H = field_int(f, "num_attention_heads", 32, 1, 65536);
    c->K = field_int(f, "num_key_value_heads", mistral && !json_get(f->object, "num_key_value_heads") ? 8 : c->H, 1, 65536);
    c->D = field_int(f, "head_dim", c->C / c->H, 1, 65536);
    c->positions = field_int(f, "max_position_embeddings", mistral ? 131072 : 2048, 1, SIZE_LIMIT);
    c->norm_eps = (float)field_real(f, "rms_norm_eps", 1e-6, 1e-30, 1);
    c->tied = field_bool(f, "tie_word_embeddings", 0);
    if (f->code != OK) return;
    if (!field(f, "head_dim") && c->C % c->H) complain(f, E_RANGE, "no multiple of num_attention_heads:", "hidden_size");
    if (c->H % c->K) complain(f, E_RANGE, "no divisor of num_attention_heads:", "num_key_value_heads");
    if (c->D < 1 || c->D % 2) complain(f, E_RANGE, "not even:", "head_dim");
    if ((uint64_t)c->H * (uint64_t)c->D > SIZE_LIMIT) complain(f, E_RANGE, "too large with num_attention_heads:", "head_dim");
}

static int load_config(ModelConfig *c, const char *folder, Pool *pool, Error *err) {
    static const Architecture known[] = {
        { "LlamaForCausalLM", "llama" }, { "MistralForCausalLM", "mistral" }, { "LLaMAForCausalLM", "llama" } };
    static const char off[][24] = { "attention_bias", "mlp_bias", "quantization_config" };
    Fields f, g;
    int mistral, code = fields_open(&f, folder, "config.json", pool, err);
    char *generation;
    memset(c, 0, sizeof *c);
    if (code != OK) return code;
    mistral = field_architecture(&f, known, 3) == 1;
    /* Mistral's class attends to a window of 4096 unless its config says null */
    if (mistral && (!json_get(f.object, "sliding_window") || field(&f, "sliding_window")))
        complain(&f, E_UNSUPPORTED, "not supported:", "sliding_window");
    field_must_be(&f, "hidden_act", "silu");
    for (int i = 0; i < 3; i++) field_must_be_off(&f, off[i]);
    if (field_real(&f, "partial_rotary_factor", 1, -1e30, 1e30) != 1)
        complain(&f, E_UNSUPPORTED, "not supported:", "partial_rotary_factor");
    read_sizes(&f, c, mistral);
    read_rope(&f, c);
    c->bos = field_id(&f, "bos_token_id", 1);
    c->pad = field_id(&f, "pad_token_id", -1);
    read_eos(&f, c, 2);
    if (f.code != OK) return f.code;
    generation = path_in(folder, "generation_config.json", "", pool);       /* it may name more tokens that end a text */
    if (!generation) return fail(err, E_MEMORY, "memory for a configuration", folder, 0, 0);
    if (!file_exists(generation)) return OK;
    code = fields_open(&g, folder, "generation_config.json", pool, err);
    if (code != OK) return code;
    read_eos(&g, c, -1);
    return g.code;
}

int config_load(ModelConfig *c, const char *folder, Pool *pool, Error *err) {
    PoolMark mark = pool_mark(pool);
    int code = load_config(c, folder, pool, err);
    pool_release(pool, mark);
    return code;
}

/* ---- configuration files: writing fields, two spaces deep ---- */

static void put_key(Buffer *b, const char *key) {
    buffer_text(b, b->length <= 1 ? "\n  " : ",\n  ");          /* after the opening brace: no comma */
    buffer_json_string(b, key, strlen(key));
    buffer_text(b, ": ");
}
static void put_raw(Buffer *b, const char *key, const char *json) { put_key(b, key); buffer_text(b, json); }
static void put_int(Buffer *b, const char *key, long long v) { put_key(b, key); buffer_integer(b, v); }
static void put_text(Buffer *b, const char *key, const char *text) { put_key(b, key); buffer_json_string(b, text, strlen(text)); }
static void put_id(Buffer *b, const char *key, int id) { if (id < 0) put_raw(b, key, "null"); else put_int(b, key, id); }

/* The shortest decimal that comes back exactly (as a float if `single`), with a point or an exponent so that it stays a float. */
static void buffer_real(Buffer *b, double x, int single) {
    char text[40];
    for (int digits = 1; digits <= 17; digits++) {
        double back;
        snprintf(text, sizeof text, "%.*g", digits, x);
        back = strtod(text, NULL);
        if (single ? (f32)back == (f32)x : back == x) break;
    }
    buffer_text(b, text);
    if (!strpbrk(text, ".en")) buffer_text(b, ".0");
}
static void put_real(Buffer *b, const char *key, double x, int single) { put_key(b, key); buffer_real(b, x, single); }

static const char *torch_dtype(int dtype) { return dtype == BF16 ? "bfloat16" : dtype == F16 ? "float16" : "float32"; }

/* Closes the object and writes it to folder/name. */
static int put_file(Buffer *b, const char *folder, const char *name, Error *err) {
    const char *path = path_in(folder, name, "", b->pool);
    buffer_text(b, "\n}\n");
    if (b->failed || !path) return fail(err, E_MEMORY, "memory for a configuration", folder, 0, 0);
    return file_write_all(path, b->data, b->length, b->pool, err);
}

static void put_eos(Buffer *b, const ModelConfig *c) {
    if (c->eos_count <= 1) { put_id(b, "eos_token_id", c->eos_count ? c->eos[0] : -1); return; }
    put_key(b, "eos_token_id");
    for (int i = 0; i < c->eos_count; i++) { buffer_text(b, i ? ", " : "["); buffer_integer(b, c->eos[i]); }
    buffer_text(b, "]");
}

/* Old versions of transformers want exactly {type, factor} for linear scaling; llama3 came with the newer key. */
static void put_rope(Buffer *b, const ModelConfig *c) {
    put_real(b, "rope_theta", c->rope_theta, 0);
    if (c->rope_type == ROPE_PLAIN) { put_raw(b, "rope_scaling", "null"); return; }
    put_raw(b, "rope_scaling", c->rope_type == ROPE_LINEAR ? "{\"type\": \"linear\", \"factor\": "
                                                              : "{\"rope_type\": \"llama3\", \"factor\": ");
    buffer_real(b, c->rope_factor, 0);
    if (c->rope_type == ROPE_LLAMA3) {
        buffer_text(b, ", \"low_freq_factor\": ");
        buffer_real(b, c->rope_low, 0);
        buffer_text(b, ", \"high_freq_factor\": ");
        buffer_real(b, c->rope_high, 0);
        buffer_text(b, ", \"original_max_position_embeddings\": ");
        buffer_integer(b, c->rope_original);
    }
    buffer_text(b, "}");
}

int config_save(const ModelConfig *c, const char *folder, int dtype, Pool *pool, Error *err) {
    PoolMark mark = pool_mark(pool);
    Buffer b = { pool, NULL, 0, 0, 0 }, g = { pool, NULL, 0, 0, 0 };
    int code = folder_make(folder, err);
    buffer_text(&b, "{");
    put_raw(&b, "architectures", "[\"LlamaForCausalLM\"]");
    put_raw(&b, "attention_bias", "false");
    put_raw(&b, "attention_dropout", "0.0");
    put_id(&b, "bos_token_id", c->bos);
    put_eos(&b, c);
    put_int(&b, "head_dim", c->D);
    put_text(&b, "hidden_act", "silu");
    put_int(&b, "hidden_size", c->C);
    put_raw(&b, "initializer_range", "0.02");
    put_int(&b, "intermediate_size", c->F);
    put_int(&b, "max_position_embeddings", c->positions);
    put_raw(&b, "mlp_bias", "false");
    put_text(&b, "model_type", "llama");
    put_int(&b, "num_attention_heads", c->H);
    put_int(&b, "num_hidden_layers", c->L);
    put_int(&b, "num_key_value_heads", c->K);
    put_id(&b, "pad_token_id", c->pad);
    put_raw(&b, "pretraining_tp", "1");
    put_real(&b, "rms_norm_eps", c->norm_eps, 1);
    put_rope(&b, c);
    put_raw(&b, "tie_word_embeddings", c->tied ? "true" : "false");
    put_text(&b, "torch_dtype", torch_dtype(dtype));
    put_raw(&b, "use_cache", "true");
    put_int(&b, "vocab_size", c->V);
    buffer_text(&g, "{");
    put_raw(&g, "_from_model_config", "true");
    put_id(&g, "bos_token_id", c->bos);
    put_eos(&g, c);
    put_id(&g, "pad_token_id", c->pad);
    if (code == OK) code = put_file(&b, folder, "config.json", err);
    if (code == OK) code = put_file(&g, folder, "generation_config.json", err);
    pool_release(pool, mark);
    return code;
}

/* ---- RoBERTa's config.json ---- */

/* id2label {"0": name, ...}: every id from 0 on, once. Without it: LABEL_0 ... for num_labels (2). */
static void read_labels(Fields *f, RewardConfig *c) {
    const Json *map = field(f, "id2label"), *j;
    c->labels = field_int(f, "num_labels", 2, 1, LABELS_MAX);
    if (!map) {
        for (int i = 0; i < c->labels; i++) name_format(c->label[i], sizeof c->label[i], "LABEL_%d", i);
        return;
    }
    if (map->type != JSON_OBJECT || !map->count) { complain(f, E_FORMAT, "not an object with names:", "id2label"); return; }
    if (map->count > LABELS_MAX) { complain(f, E_RANGE, "more labels than 32:", "id2label"); return; }
    if (field(f, "num_labels") && (size_t)c->labels != map->count) complain(f, E_FORMAT, "does not fit num_labels:", "id2label");
    c->labels = (int)map->count;
    for (j = map->child; j; j = j->next) {
        char *end;
        long id = j->key[0] >= '0' && j->key[0] <= '9' ? strtol(j->key, &end, 10) : -1;
        if (id < 0 || id >= c->labels || *end || c->label[id][0] || j->type != JSON_STRING || !j->length) {
            complain(f, E_FORMAT, "not a list of names from 0 on:", "id2label");
            return;
        }
        if (j->length >= sizeof c->label[id]) { complain(f, E_RANGE, "label name too long:", j->string); return; }
        memcpy(c->label[id], j->string, j->length + 1);
    }
}

static int load_reward_config(RewardConfig *c, const char *folder, Pool *pool, Error *err) {
    static const Architecture known[] = { { "RobertaForSequenceClassification", "roberta" } };
    Fields f;
    int code = fields_open(&f, folder, "config.json", pool, err);
    memset(c, 0, sizeof *c);
    if (code != OK) return code;
    field_architecture(&f, known, 1);
    field_must_be(&f, "hidden_act", "gelu");
    field_must_be(&f, "position_embedding_type", "absolute");
    field_must_be_off(&f, "is_decoder");
    field_must_be_off(&f, "add_cross_attention");
    field_must_be_off(&f, "quantization_config");
    c->V = field_int(&f, "vocab_size", 50265, 1, SIZE_LIMIT);
    c->C = field_int(&f, "hidden_size", 768, 1, SIZE_LIMIT);
    c->L = field_int(&f, "num_hidden_layers", 12, 1, 4096);
    c->H = field_int(&f, "num_attention_heads", 12, 1, 65536);
    c->F = field_int(&f, "intermediate_size", 3072, 1, SIZE_LIMIT);
    c->positions = field_int(&f, "max_position_embeddings", 512, 1, SIZE_LIMIT);
    c->types = field_int(&f, "type_vocab_size", 2, 1, SIZE_LIMIT);
    c->norm_eps = (float)field_real(&f, "layer_norm_eps", 1e-12, 1e-30, 1);
    c->pad = field_int(&f, "pad_token_id", 1, 0, SIZE_LIMIT);
    c->bos = field_int(&f, "bos_token_id", 0, 0, SIZE_LIMIT);
    c->eos = field_int(&f, "eos_token_id", 2, 0, SIZE_LIMIT);
    read_labels(&f, c);
    if (f.code != OK) return f.code;
    if (c->C % c->H) complain(&f, E_RANGE, "no multiple of num_attention_heads:", "hidden_size");
    if (c->bos >= c->V || c->eos >= c->V || c->pad >= c->V)
        complain(&f, E_RANGE, "smaller than the ids of special tokens:", "vocab_size");
    if (c->positions < c->pad + 3)          /* the first token has position pad + 1 */
        complain(&f, E_RANGE, "no room for a text:", "max_position_embeddings");
    return f.code;
}

int reward_config_load(RewardConfig *c, const char *folder, Pool *pool, Error *err) {
    PoolMark mark = pool_mark(pool);
    int code = load_reward_config(c, folder, pool, err);
    pool_release(pool, mark);
    return code;
}

/* id2label and label2id. */
static void put_labels(Buffer *b, const RewardConfig *c) {
    put_key(b, "id2label");
    for (int i = 0; i < c->labels; i++) {
        buffer_text(b, i ? ", \"" : "{\"");
        buffer_integer(b, i);
        buffer_text(b, "\": ");
        buffer_json_string(b, c->label[i], strlen(c->label[i]));
    }
    buffer_text(b, "}");
    put_key(b, "label2id");
    for (int i = 0; i < c->labels; i++) {
        buffer_text(b, i ? ", " : "{");
        buffer_json_string(b, c->label[i], strlen(c->label[i]));
        buffer_text(b, ": ");
        buffer_integer(b, i);
    }
    buffer_text(b, "}");
}

int reward_config_save(const RewardConfig *c, const char *folder, int dtype, Pool *pool, Error *err) {
    PoolMark mark = pool_mark(pool);
    Buffer b = { pool, NULL, 0, 0, 0 };
    int code = folder_make(folder, err);
    buffer_text(&b, "{");
    put_raw(&b, "architectures", "[\"RobertaForSequenceClassification\"]");
    put_raw(&b, "attention_probs_dropout_prob", "0.1");
    put_int(&b, "bos_token_id", c->bos);
    put_raw(&b, "classifier_dropout", "null");
    put_int(&b, "eos_token_id", c->eos);
    put_text(&b, "hidden_act", "gelu");
    put_raw(&b, "hidden_dropout_prob", "0.1");
    put_int(&b, "hidden_size", c->C);
    put_raw(&b, "initializer_range", "0.02");
    put_int(&b, "intermediate_size", c->F);
    put_labels(&b, c);
    put_real(&b, "layer_norm_eps", c->norm_eps, 1);
    put_int(&b, "max_position_embeddings", c->positions);
    put_text(&b, "model_type", "roberta");
    put_int(&b, "num_attention_heads", c->H);
    put_int(&b, "num_hidden_layers", c->L);
    put_int(&b, "num_labels", c->labels);
    put_int(&b, "pad_token_id", c->pad);
    put_text(&b, "position_embedding_type", "absolute");
    put_text(&b, "problem_type", c->labels == 1 ? "regression" : "single_label_classification");
    put_text(&b, "torch_dtype", torch_dtype(dtype));
    put_int(&b, "type_vocab_size", c->types);
    put_raw(&b, "use_cache", "true");
    put_int(&b, "vocab_size", c->V);
    if (code == OK) code = put_file(&b, folder, "config.json", err);
    pool_release(pool, mark);
    return code;
}

/* ---- peft's adapter_config.json ---- */

/* One more name for the comma-separated list. */
static void add_target(Fields *f, Lora *l, const char *name, size_t length) {
    size_t used = strlen(l->targets);
    if (!length || strlen(name) != length || strchr(name, ',')) {
        complain(f, E_FORMAT, "not a module's name:", "target_modules");
        return;
    }
    if (used + length + 2 > sizeof l->targets) { complain(f, E_RANGE, "list too long:", "target_modules"); return; }
    if (used) l->targets[used++] = ',';
    memcpy(l->targets + used, name, length + 1);
}

/* A list of names; null means peft's default for Llama; of strings only "all-linear", since others are regular expressions. */
static void read_targets(Fields *f, Lora *l) {
    const Json *j = field(f, "target_modules"), *name;
    if (!j) strcpy(l->targets, "q_proj,v_proj");
    else if (j->type == JSON_STRING && strcmp(j->string, "all-linear") == 0)
        strcpy(l->targets, "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj");
    else if (j->type == JSON_STRING) complain(f, E_UNSUPPORTED, "target_modules as a regular expression:", j->string);
    else if (j->type != JSON_ARRAY || !j->count) complain(f, E_FORMAT, "not a list of names:", "target_modules");
    else for (name = j->child; name && f->code == OK; name = name->next) {
        if (name->type != JSON_STRING) complain(f, E_FORMAT, "not a list of names:", "target_modules");
        else add_target(f, l, name->string, name->length);
    }
}

static int load_adapter_config(Lora *l, const char *folder, Pool *pool, Error *err) {
    static const char off[][24] = {
        "use_dora", "use_qalora", "rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out", "lora_bias",
        "layers_to_transform", "layers_pattern", "layer_replication", "trainable_token_indices", "exclude_modules",
        "target_parameters", "megatron_config", "alora_invocation_tokens", "arrow_config" };
    Fields f;
    const Json *init;
    int code = fields_open(&f, folder, "adapter_config.json", pool, err);
    if (code != OK) return code;
    if (!field(&f, "peft_type")) complain(&f, E_MISSING, "adapter_config.json without", "peft_type");
    field_must_be(&f, "peft_type", "LORA");
    field_must_be(&f, "task_type", "CAUSAL_LM");
    field_must_be(&f, "bias", "none");
    for (size_t i = 0; i < sizeof off / sizeof *off; i++) field_must_be_off(&f, off[i]);
    init = field(&f, "init_lora_weights");      /* pissa, olora, loftq, corda: these change the base weights too */
    if (init && init->type == JSON_STRING && strcmp(init->string, "gaussian") != 0 && strcmp(init->string, "eva") != 0
        && strcmp(init->string, "orthogonal") != 0) complain(&f, E_UNSUPPORTED, "init_lora_weights", init->string);
    l->R = field_int(&f, "r", 8, 1, 65536);
    l->alpha = (float)field_real(&f, "lora_alpha", 8, -1e6, 1e6);
    l->rslora = field_bool(&f, "use_rslora", 0);
    l->targets[0] = 0;
    read_targets(&f, l);
    return f.code;
}

int adapter_config_load(Lora *l, const char *folder, Pool *pool, Error *err) {
    PoolMark mark = pool_mark(pool);
    int code = load_adapter_config(l, folder, pool, err);
    pool_release(pool, mark);
    return code;
}

int adapter_config_save(const Lora *l, const char *folder, const char *base_model, Pool *pool, Error *err) {
    PoolMark mark = pool_mark(pool);
    Buffer b = { pool, NULL, 0, 0, 0 };
    int code = folder_make(folder, err);
    const char *name, *end;
    buffer_text(&b, "{");
    put_raw(&b, "alpha_pattern", "{}");
    put_raw(&b, "auto_mapping", "null");
    if (base_model) put_text(&b, "base_model_name_or_path", base_model);
    else put_raw(&b, "base_model_name_or_path", "null");
    put_text(&b, "bias", "none");
    put_raw(&b, "fan_in_fan_out", "false");
    put_raw(&b, "inference_mode", "true");
    put_raw(&b, "init_lora_weights", "true");
    put_raw(&b, "layer_replication", "null");
    put_raw(&b, "layers_pattern", "null");
    put_raw(&b, "layers_to_transform", "null");
    put_raw(&b, "loftq_config", "{}");
    if (floor(l->alpha) == l->alpha && fabs(l->alpha) < 1e9) put_int(&b, "lora_alpha", (long long)l->alpha);
    else put_real(&b, "lora_alpha", l->alpha, 1);
    put_raw(&b, "lora_dropout", "0.0");
    put_raw(&b, "megatron_config", "null");
    put_text(&b, "megatron_core", "megatron.core");
    put_raw(&b, "modules_to_save", "null");
    put_text(&b, "peft_type", "LORA");
    put_int(&b, "r", l->R);
    put_raw(&b, "rank_pattern", "{}");
    put_raw(&b, "revision", "null");
    put_raw(&b, "target_modules", "[");
    for (name = l->targets; *name; name = *end ? end + 1 : end) {
        for (end = name; *end && *end != ','; end++) ;
        if (name != l->targets) buffer_text(&b, ", ");
        buffer_json_string(&b, name, (size_t)(end - name));
    }
    buffer_text(&b, "]");
    put_text(&b, "task_type", "CAUSAL_LM");
    put_raw(&b, "use_dora", "false");
    put_raw(&b, "use_rslora", l->rslora ? "true" : "false");
    if (code == OK) code = put_file(&b, folder, "adapter_config.json", err);
    pool_release(pool, mark);
    return code;
}

/* ---- tokenizers ---- */

static int ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* Passes on an error about bytes with the file's name in front of its place. */
static Tokenizer *opened(Tokenizer *t, const Error *inner, const char *path, Error *err) {
    char where[sizeof inner->where];
    snprintf(where, sizeof where, inner->where[0] ? "%.150s: %.100s" : "%.150s%s", path, inner->where);
    if (!t) fail(err, inner->code, inner->what, where, inner->got, inner->wanted);
    return t;
}

/* One file, read and understood: a SentencePiece model, or tokenizer.json. */
static Tokenizer *open_single(const char *path, int json, Pool *pool, Error *err) {
    Error inner;
    char *bytes;
    size_t n;
    memset(&inner, 0, sizeof inner);
    if (file_read_all(path, pool, &bytes, &n, err) != OK) return NULL;
    return opened(json ? tokenizer_json(bytes, n, pool, &inner) : tokenizer_sentencepiece(bytes, n, pool, &inner), &inner, path, err);
}

static Tokenizer *open_bytelevel(const char *vocab, const char *merges, Pool *pool, Error *err) {
    Error inner;
    char *v, *m;
    size_t vn, mn;
    memset(&inner, 0, sizeof inner);
    if (file_read_all(vocab, pool, &v, &vn, err) != OK || file_read_all(merges, pool, &m, &mn, err) != OK) return NULL;
    return opened(tokenizer_bytelevel(v, vn, m, mn, pool, &inner), &inner, vocab, err);
}

/* The path of a folder's file in pool, or NULL if it is not there. */
static const char *there(const char *folder, const char *name, Pool *pool) {
    const char *path = path_in(folder, name, "", pool);
    return path && file_exists(path) ? path : NULL;
}

typedef struct { const char *json, *model, *vocab, *merges; } TokenizerFiles;      /* NULL: not there */

static TokenizerFiles tokenizer_files(const char *folder, Pool *pool) {
    TokenizerFiles f;
    f.json = there(folder, "tokenizer.json", pool);
    f.model = there(folder, "tokenizer.model", pool);
    if (!f.model) f.model = there(folder, "spiece.model", pool);
    f.vocab = there(folder, "vocab.json", pool);
    f.merges = there(folder, "merges.txt", pool);
    if (!f.vocab || !f.merges) f.vocab = f.merges = NULL;
    return f;
}

int tokenizer_exists(const char *folder, Pool *pool) {
    TokenizerFiles f = tokenizer_files(folder, pool);
    return f.json || f.model || f.vocab;
}

/* What the files beside a tokenizer say about it. */
static int open_beside(Tokenizer *t, const char *folder, Pool *pool, Error *err) {
    static const char *const name[] = { "added_tokens.json", "tokenizer_config.json", "special_tokens_map.json" };
    const Json *file[3] = { NULL, NULL, NULL };
    const char *path;
    Error inner;
    memset(&inner, 0, sizeof inner);
    for (int i = 0; i < 3; i++) {
        path = there(folder, name[i], pool);
        if (path && json_file(&file[i], path, pool, err) != OK) return E_FORMAT;
    }
    if (tokenizer_beside(t, file[0], file[1], file[2], pool, &inner) == OK) return OK;
    opened(NULL, &inner, folder, err);
    return inner.code;
}

static Tokenizer *open_folder(const char *folder, Pool *pool, Error *err) {
    TokenizerFiles f = tokenizer_files(folder, pool);
    Tokenizer *t = NULL;
    Error inner;
    memset(&inner, 0, sizeof inner);
    if (f.json) t = open_single(f.json, 1, pool, &inner);
    if (!t && inner.code && (inner.code != E_UNSUPPORTED || !(f.model || f.vocab))) {
        fail(err, inner.code, inner.what, inner.where, inner.got, inner.wanted);
        return NULL;
    }
    if (!t && f.model) t = open_single(f.model, 0, pool, err);
    else if (!t && f.vocab) t = open_bytelevel(f.vocab, f.merges, pool, err);
    else if (!t) fail(err, E_MISSING, "no tokenizer.json, no tokenizer.model, and no vocab.json with merges.txt", folder, 0, 0);
    return t && open_beside(t, folder, pool, err) == OK ? t : NULL;
}

Tokenizer *tokenizer_open(const char *path, Pool *pool, Error *err) {
    size_t n = strlen(path), name = strlen("vocab.json");
    char *merges;
    if (folder_exists(path)) return open_folder(path, pool, err);
    if (!ends_with(path, "vocab.json")) return open_single(path, ends_with(path, ".json"), pool, err);
    merges = pool_take(pool, n + 1, 1);     /* merges.txt is as long */
    if (!merges) { fail(err, E_MEMORY, "not enough memory", path, 0, 0); return NULL; }
    memcpy(merges, path, n - name);
    memcpy(merges + n - name, "merges.txt", name);
    return open_bytelevel(path, merges, pool, err);
}

/* "key": the piece of id. Nothing when there is no such token. */
static void put_piece(Buffer *b, const char *key, const Tokenizer *t, int id) {
    size_t n = 0;
    const char *piece = id < 0 ? NULL : tokenizer_piece(t, id, &n);
    if (!piece) return;
    put_key(b, key);
    buffer_json_string(b, piece, n);
}

/* bos, eos, unk, pad; for RoBERTa also cls, sep and mask (transformers' class knows that mask swallows the space before it). */
static void put_specials(Buffer *b, const Tokenizer *t, int roberta) {
    SpecialIds s = tokenizer_specials(t);
    put_piece(b, "bos_token", t, s.bos);
    if (roberta) put_piece(b, "cls_token", t, s.bos);
    put_piece(b, "eos_token", t, s.eos);
    if (roberta) put_piece(b, "mask_token", t, tokenizer_find(t, "<mask>", 6));
    put_piece(b, "pad_token", t, s.pad);
    if (roberta) put_piece(b, "sep_token", t, s.eos);
    put_piece(b, "unk_token", t, s.unk);
}

/* "added_tokens_decoder": {"32000": {...}, ...}, if there are any; how many lie beyond the vocabulary in *beyond. */
static void put_added(Buffer *b, const Tokenizer *t, int *beyond) {
    AddedToken a;
    int i;
    *beyond = 0;
    if (!tokenizer_added(t, 0, &a)) return;
    put_key(b, "added_tokens_decoder");
    for (i = 0; tokenizer_added(t, i, &a); i++) {
        *beyond += a.beyond;
        buffer_text(b, i ? ",\n    \"" : "{\n    \"");
        buffer_integer(b, a.id);
        buffer_text(b, "\": {\"content\": ");
        buffer_json_string(b, a.text, a.length);
        buffer_text(b, a.lstrip ? ", \"lstrip\": true" : ", \"lstrip\": false");
        buffer_text(b, a.normalized ? ", \"normalized\": true" : ", \"normalized\": false");
        buffer_text(b, a.rstrip ? ", \"rstrip\": true" : ", \"rstrip\": false");
        buffer_text(b, a.single_word ? ", \"single_word\": true" : ", \"single_word\": false");
        buffer_text(b, a.special ? ", \"special\": true}" : ", \"special\": false}");
    }
    buffer_text(b, "\n  }");
}

/* added_tokens.json: {"[PAD]": 32000, ...} */
static int save_added(const Tokenizer *t, const char *folder, Pool *pool, Error *err) {
    Buffer b = { pool, NULL, 0, 0, 0 };
    AddedToken a;
    int i, first = 1;
    for (i = 0; tokenizer_added(t, i, &a); i++) {
        if (!a.beyond) continue;
        buffer_text(&b, first ? "{\n  " : ",\n  ");
        buffer_json_string(&b, a.text, a.length);
        buffer_text(&b, ": ");
        buffer_integer(&b, a.id);
        first = 0;
    }
    buffer_text(&b, "\n}\n");
    const char *path = path_in(folder, "added_tokens.json", "", pool);
    if (!path || b.failed) return fail(err, E_MEMORY, "not enough memory", folder, 0, 0);
    return file_write_all(path, b.data, b.length, pool, err);
}

/* tokenizer_config.json and special_tokens_map.json. */
static int save_tokenizer_configs(const Tokenizer *t, const char *folder, int max_length, Pool *pool, Error *err) {
    Buffer b = { pool, NULL, 0, 0, 0 }, map = { pool, NULL, 0, 0, 0 };
    const char *class = tokenizer_class(t), *chat = tokenizer_chat_template(t);
    int before, after, sentencepiece = tokenizer_kind(t) == TOKENIZER_SENTENCEPIECE, roberta, code, beyond;
    tokenizer_template(t, &before, &after);
    roberta = !sentencepiece && before && after;
    buffer_text(&b, "{");
    if (sentencepiece) {
        put_raw(&b, "add_bos_token", before ? "true" : "false");
        put_raw(&b, "add_eos_token", after ? "true" : "false");
        put_raw(&b, "legacy", "true");
        put_raw(&b, "sp_model_kwargs", "{}");
        put_raw(&b, "use_default_system_prompt", "false");
    } else if (!ends_with(class, "Fast")) {
        put_raw(&b, "add_prefix_space", "false");
        put_text(&b, "errors", "replace");
    }
    put_added(&b, t, &beyond);
    if (chat) put_text(&b, "chat_template", chat);
    put_raw(&b, "clean_up_tokenization_spaces", "false");
    put_int(&b, "model_max_length", max_length);
    put_text(&b, "tokenizer_class", class);
    put_specials(&b, t, roberta);
    code = put_file(&b, folder, "tokenizer_config.json", err);
    if (code == OK && beyond) code = save_added(t, folder, pool, err);
    if (code != OK) return code;
    buffer_text(&map, "{");
    put_specials(&map, t, roberta);
    return put_file(&map, folder, "special_tokens_map.json", err);
}

static int save_tokenizer(const Tokenizer *t, const char *folder, int max_length, Pool *pool, Error *err) {
    int sentencepiece = tokenizer_kind(t) == TOKENIZER_SENTENCEPIECE, code = folder_make(folder, err);
    Buffer a = { pool, NULL, 0, 0, 0 }, b = { pool, NULL, 0, 0, 0 };
    int json = tokenizer_write_json(t, &a) != E_ARGUMENT;
    const char *first = path_in(folder, json ? "tokenizer.json" : sentencepiece ? "tokenizer.model" : "vocab.json", "", pool);
    const char *second = path_in(folder, "merges.txt", "", pool);
    if (code != OK) return code;
    if (!json) code = sentencepiece ? tokenizer_write_sentencepiece(t, &a) : tokenizer_write_bytelevel(t, &a, &b);
    if (code != OK || a.failed || b.failed || !first || !second)
        return fail(err, code != OK ? code : E_MEMORY, "writing the tokenizer", folder, 0, 0);
    code = file_write_all(first, a.data, a.length, pool, err);
    if (code == OK && !json && !sentencepiece) code = file_write_all(second, b.data, b.length, pool, err);
    return code == OK ? save_tokenizer_configs(t, folder, max_length, pool, err) : code;
}

int tokenizer_save(const Tokenizer *t, const char *folder, int max_length, Pool *pool, Error *err) {
    PoolMark mark = pool_mark(pool);
    int code = save_tokenizer(t, folder, max_length, pool, err);
    pool_release(pool, mark);
    return code;
}
