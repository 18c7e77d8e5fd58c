/* checkpoint.c - loads weights from safetensors and from PyTorch's files, in one file or in shards, also
 * bitsandbytes' 4-bit weights; saves weights as safetensors.
 * Source   safetensors' README ("Format") and the checks of its tensor.rs; transformers'
 *          convert_llama_weights_to_hf.py (Meta's names and order of rows); bitsandbytes' QuantState.as_dict
 *          (4-bit weights).
 * Needs    core, quant, io, files/fields, files/torch, files/config; a pool for headers, JSON and a tensor's
 *          scales, which are freed at the end. One tensor is read at a time, 4096 weights at a time in each
 *          thread, and quantised while it is read. So loading needs the model's own memory, the headers, and
 *          four bytes for each block of the tensor that is being read (4 MB for a tensor that PyTorch has
 *          stored transposed). <stdio.h> for snprintf only.
 * Never    knows a model: it fills and writes the caller's list of tensors, in the types that the list has.
 *          Never guesses: a feature that a folder uses and this project does not support is refused by name.
 * Edges    any number in a file may be hostile: sizes are checked in 64 bits before they are used; names,
 *          shapes and types of all tensors are checked before the first weight is read. NaN and infinities in
 *          weights are loaded unchanged, but cannot be quantised. A tied tensor is neither required nor
 *          written, and a copy of it in the file has to be equal. Every other tensor of the files is used,
 *          or is one that a model does not need (family_spares), or is refused by name. What wrappers put
 *          before the names of tensors (torch.compile, peft ...) is taken off. */
#include "files/files.h"
#include <stdio.h>

enum { STATE_MAX = 16384,                       /* the largest quant_state, in bytes */
       STEP = 4096,                             /* weights a thread reads at a time; whole 4-bit blocks */
       STEPS = 1024,                            /* steps that threads do before errors are looked for */
       TURNED = 1 << 20 };                      /* weights of a transposed tensor that are read at a time */
#define HEADER_MAX 100000000u                   /* tensor.rs's limit for a safetensors header, in bytes */

/* ---- containers: the tensors that one file holds, and where in the file they are ---- */

/* The dtypes of safetensors. bits: of one element; type -1: such a tensor is never loaded. */
static const struct { char name[12]; int bits, type; } dtypes[] = {
    { "F32", 32, F32 }, { "BF16", 16, BF16 }, { "F16", 16, F16 }, { "F64", 64, -1 }, { "C64", 64, -1 },
    { "I64", 64, -1 }, { "U64", 64, -1 }, { "I32", 32, -1 }, { "U32", 32, -1 }, { "I16", 16, -1 },
    { "U16", 16, -1 }, { "I8", 8, -1 }, { "U8", 8, -1 }, { "BOOL", 8, -1 }, { "F8_E4M3", 8, -1 },
    { "F8_E5M2", 8, -1 }, { "F8_E8M0", 8, -1 }, { "F8_E4M3FNUZ", 8, -1 }, { "F8_E5M2FNUZ", 8, -1 },
    { "F6_E2M3", 6, -1 }, { "F6_E3M2", 6, -1 }, { "F4", 4, -1 },
};
enum { DTYPES = sizeof dtypes / sizeof *dtypes };

typedef struct {
    const char *name; size_t length;        /* without wrappers */
    int used;                               /* 1: it was asked for by its name */
    int type; const char *dtype;            /* F32, BF16, F16 or -1; the dtype's name in the file (in an
                                             * index: the shard's name) */
    int rank; uint64_t shape[2];            /* rank: number of dimensions; shape: the first two sizes */
    uint64_t begin, end;                    /* safetensors: the tensor's bytes, counted from Container.data */
    const TorchTensor *torch;               /* PyTorch: the tensor's place and strides; NULL: safetensors */
} Entry;
typedef struct {
    const char *shard, *path;               /* shard: name in the index; path: NULL before the first use */
    uint64_t data;                          /* byte of the file where the tensors begin */
    Entry *entry; size_t count;             /* the file's tensors, sorted by name */
} Container;

/* Compares two strings of given lengths byte by byte, as names may hold NULs. Returns <0, 0 or >0. */
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

/* Reads the record of one tensor in a safetensors header. Checks that the tensor has as many bytes as its
 * dtype and shape need. */
static int entry_parse(Entry *e, const Json *j, const char *path, Error *err) {
    const Json *dtype = json_get(j, "dtype"), *shape = json_get(j, "shape"), *d;
    const Json *offsets = json_get(j, "data_offsets");
    uint64_t n = 1;
    int kind;
    e->name = j->key;
    e->length = j->key_length;
    if (!dtype || dtype->type != JSON_STRING || !shape || shape->type != JSON_ARRAY
        || !offsets || offsets->type != JSON_ARRAY || offsets->count != 2
        || !json_whole(offsets->child, &e->begin) || !json_whole(offsets->child->next, &e->end))
        return refuse(err, E_FORMAT, path, "tensor %.96s: not {dtype, shape, data_offsets}", e->name);
    for (kind = 0; kind < DTYPES && strcmp(dtypes[kind].name, dtype->string) != 0; kind++) ;
    if (kind == DTYPES)
        return refuse(err, E_UNSUPPORTED, path, "dtype %.24s of tensor %.96s", dtype->string, e->name);
    e->type = dtypes[kind].type;
    e->dtype = dtypes[kind].name;
    for (d = shape->child, e->rank = 0; d; d = d->next, e->rank++) {
        uint64_t size;
        if (!json_whole(d, &size))
            return refuse(err, E_FORMAT, path, "tensor %.96s: a size that is not a whole number", e->name);
        if (size && n > UINT64_MAX / 64 / size)
            return refuse(err, E_RANGE, path, "tensor %.96s: its sizes overflow", e->name);
        n *= size;
        if (e->rank < 2) e->shape[e->rank] = size;
    }
    n *= (uint64_t)dtypes[kind].bits;
    if (e->end < e->begin || n % 8 || n / 8 != e->end - e->begin)
        return refuse(err, E_FORMAT, path, "tensor %.96s: its offsets do not fit its shape", e->name);
    return OK;
}

/* Returns the length of what a wrapper of the model has put before a name: DataParallel, torch.compile, TRL's
 * model with a value head, peft. 0: nothing. */
static size_t wrapper_length(const Entry *e) {
    static const char wrapper[][20] = { "module.", "_orig_mod.", "pretrained_model.", "base_model.model." };
    for (size_t i = 0; i < sizeof wrapper / sizeof *wrapper; i++) {
        size_t n = strlen(wrapper[i]);
        if (e->length > n && memcmp(e->name, wrapper[i], n) == 0) return n;
    }
    return 0;
}

/* The part that peft adds to the names of an adapted module's own tensors. */
static const char base_layer[] = ".base_layer.";

/* Takes wrappers off a name, peft's "base_layer", and the name of peft's adapter ("default"), which only
 * names in memory have: "base_model.model.lm_head.lora_A.default.weight" becomes "lm_head.lora_A.weight". OK
 * or E_MEMORY. */
static int unwrap(Entry *e, Pool *pool) {
    /* kept: how many of its bytes stay */
    static const struct { char text[28]; size_t kept; } inner[] = {
        { ".lora_A.default.", 8 }, { ".lora_B.default.", 8 }, { ".modules_to_save.default.", 1 },
        { ".base_layer.", 1 } };
    for (size_t n; (n = wrapper_length(e)) > 0; e->length -= n) e->name += n;
    for (size_t i = 0; i < sizeof inner / sizeof *inner; i++) {
        const char *at = strstr(e->name, inner[i].text);
        size_t before = at ? (size_t)(at - e->name) + inner[i].kept : 0;
        size_t cut = strlen(inner[i].text) - inner[i].kept;
        char *copy = at ? pool_text(pool, e->name, e->length) : NULL;
        if (!at) continue;
        if (!copy) return E_MEMORY;
        memmove(copy + before, copy + before + cut, e->length - before - cut + 1);
        e->name = copy;
        e->length -= cut;
    }
    return OK;
}

/* Unwraps the names of the tensors and sorts the tensors by name. Refuses a name that is there twice. */
static int check_names(Container *c, Pool *pool, Error *err) {
    for (size_t i = 0; i < c->count; i++)
        if (unwrap(&c->entry[i], pool) != OK) return fail(err, E_MEMORY, "memory for names", c->path, 0, 0);
    qsort(c->entry, c->count, sizeof *c->entry, by_name);
    for (size_t i = 1; i < c->count; i++)
        if (by_name(&c->entry[i - 1], &c->entry[i]) == 0)
            return refuse(err, E_FORMAT, c->path, "tensor %.96s is there twice", c->entry[i].name);
    return OK;
}

/* Checks, as safetensors' tensor.rs does, that the tensors follow one another without gap or overlap from the
 * end of the header to the end of the file. */
static int check_offsets(Container *c, uint64_t size, Error *err) {
    uint64_t at = 0, wanted = size - c->data;
    qsort(c->entry, c->count, sizeof *c->entry, by_offset);
    for (size_t i = 0; i < c->count; i++) {
        if (c->entry[i].begin != at)
            return refuse(err, E_FORMAT, c->path, "tensor %.96s: a gap or an overlap before it",
                          c->entry[i].name);
        at = c->entry[i].end;
    }
    if (at > wanted)
        return fail(err, E_TRUNCATED, "bytes of tensors", c->path, (long long)wanted, (long long)at);
    if (at < wanted)
        return fail(err, E_FORMAT, "bytes after the last tensor", c->path, (long long)wanted, (long long)at);
    return OK;
}

/* Reads the header of a safetensors file. The file is u64 N, then N bytes of JSON, {name: {dtype, shape,
 * data_offsets}, ...}, then the bytes of the tensors. */
static int safetensors_header(Container *c, File *f, Pool *pool, Error *err) {
    uint64_t size = file_size(f), n;
    unsigned char first[STRANGER_BYTES] = { 0 };
    Reader r = { first, first + 8, 0 };
    Error inner;
    const Json *header, *j;
    char *text;
    int code;
    memset(&inner, 0, sizeof inner);
    if (size < 8) return fail(err, E_TRUNCATED, "too short for safetensors", c->path, (long long)size, 8);
    n = size < sizeof first ? size : sizeof first;
    code = file_read_at(f, 0, first, (size_t)n, err);
    if (code != OK) return code;
    if (first[8] != '{' && recognise(err, c->path, first, (size_t)n)) return E_FORMAT;
    n = read_u64(&r);
    if (n > HEADER_MAX)
        return refuse(err, E_RANGE, c->path, "safetensors header of more than 100 MB (not safetensors?)");
    if (n > size - 8)
        return fail(err, E_TRUNCATED, "safetensors header", c->path, (long long)(size - 8), (long long)n);
    c->data = 8 + n;
    text = pool_take(pool, (size_t)n + 1, 1);
    if (!text) return fail(err, E_MEMORY, "memory for the header", c->path, 0, 0);
    code = file_read_at(f, 8, text, (size_t)n, err);
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
        if (j->type != JSON_OBJECT)
            return fail(err, E_FORMAT, "__metadata__ is not an object", c->path, 0, 0);
        for (const Json *m = j->child; m; m = m->next)
            if (m->type != JSON_STRING)
                return fail(err, E_FORMAT, "__metadata__ holds more than strings", c->path, 0, 0);
    }
    return check_offsets(c, size, err);
}

static const char *dtype_name(int type) { return type == F32 ? "F32" : type == BF16 ? "BF16" : "F16"; }
static size_t dtype_bytes(int type) { return type == F32 ? 4 : 2; }

/* Lists the tensors of a PyTorch file. files/torch.c, which reads the format, has checked that every tensor
 * is inside the file. */
static int torch_header(Container *c, File *f, Pool *pool, Error *err) {
    TorchFile t;
    Error inner;
    memset(&t, 0, sizeof t);
    memset(&inner, 0, sizeof inner);
    if (torch_index(&t, f, pool, &inner) != OK) return fail_in(err, &inner, c->path);
    c->entry = pool_take(pool, (size_t)t.tensors + 1, sizeof *c->entry);
    if (!c->entry) return fail(err, E_MEMORY, "memory for the names of tensors", c->path, 0, 0);
    for (int i = 0; i < t.tensors; i++) {
        const TorchTensor *from = &t.tensor[i];
        Entry *e = &c->entry[c->count++];
        e->name = from->name;
        e->length = strlen(from->name);
        e->type = from->dtype;
        e->dtype = e->type < 0 ? "other than F32, BF16 and F16" : dtype_name(e->type);
        e->rank = from->dims;
        for (int d = 0; d < 2 && d < from->dims; d++) e->shape[d] = from->shape[d];
        e->torch = from;
    }
    return OK;
}

/* Returns how many values a tensor has that has at most two dimensions; 0: it has more, or too many. */
static uint64_t entry_values(const Entry *e) {
    uint64_t rows = e->rank > 0 ? e->shape[0] : 1, columns = e->rank > 1 ? e->shape[1] : 1;
    return e->rank > 2 || (columns && rows > UINT64_MAX / columns) ? 0 : rows * columns;
}

static Entry *container_find(const Container *c, const char *name) {
    size_t low = 0, high = c->count, n = strlen(name);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare_names(c->entry[middle].name, c->entry[middle].length, name, n);
        if (order == 0) return &c->entry[middle];
        if (order < 0) low = middle + 1; else high = middle;
    }
    return NULL;
}

/* ---- a checkpoint: one file, or the files that an index names; at most one file is open ---- */

typedef struct {
    const char *folder, *path;              /* path: the single file's, or the index's */
    int torch;                              /* 1: the containers are PyTorch's */
    int adapter;                            /* 1: the file is peft's adapter_model */
    Container map;                          /* the index; map.entry NULL: a single file */
    Container *part; size_t parts;
    File *file; const Container *open;      /* the open file, and its container */
    int head;                               /* width of an attention head; 0: not read yet */
    Pool *pool; Error *err;
} Source;

/* Opens the file of c as s->file, unless it is open already. */
static int source_file(Source *s, const Container *c) {
    if (s->open == c) return OK;
    file_close(s->file);                    /* the File itself stays in the pool */
    s->open = NULL;
    s->file = file_open(c->path, s->pool, s->err);
    if (!s->file) return s->err && s->err->code ? s->err->code : E_OPEN;
    s->open = c;
    return OK;
}

/* Reads the header of c, unless it was read before. */
static int source_header(Source *s, Container *c) {
    int code;
    if (c->entry) return OK;
    if (!c->path) c->path = path_in(s->folder, c->shard, "", s->pool);
    if (!c->path) return fail(s->err, E_MEMORY, "memory for a checkpoint", s->path, 0, 0);
    code = source_file(s, c);
    if (code == OK) code = (s->torch ? torch_header : safetensors_header)(c, s->file, s->pool, s->err);
    return code == OK ? check_names(c, s->pool, s->err) : code;
}

static int by_text(const void *left, const void *right) {
    const char *const *a = left, *const *b = right;
    return strcmp(*a, *b);
}

/* Reads the index, {"weight_map": {tensor: shard file}}, and makes one container for each file that it names.
 * Shards are in the index's folder: a shard's name that has a folder in it is refused. */
static int source_index(Source *s) {
    const Json *root, *map, *j;
    const char **shard;
    size_t n = 0;
    int code = json_file(&root, s->path, s->pool, s->err);
    if (code != OK) return code;
    map = json_get(root, "weight_map");
    if (!map || map->type != JSON_OBJECT) return fail(s->err, E_FORMAT, "no weight_map", s->path, 0, 0);
    shard = pool_take(s->pool, map->count + 1, sizeof *shard);
    s->map.path = s->path;
    s->map.entry = pool_take(s->pool, map->count + 1, sizeof *s->map.entry);
    s->part = pool_take(s->pool, map->count + 1, sizeof *s->part);
    if (!shard || !s->map.entry || !s->part)
        return fail(s->err, E_MEMORY, "memory for the index", s->path, 0, 0);
    for (j = map->child; j; j = j->next) {
        Entry *e = &s->map.entry[s->map.count++];
        if (j->type != JSON_STRING)
            return fail(s->err, E_FORMAT, "weight_map holds more than strings", s->path, 0, 0);
        if (!j->length || j->length > 200 || strlen(j->string) != j->length || strpbrk(j->string, "/\\:")
            || j->string[0] == '.')
            return refuse(s->err, E_FORMAT, s->path, "shard name '%.100s'", j->string);
        e->name = j->key;
        e->length = j->key_length;
        e->dtype = shard[n++] = j->string;
    }
    qsort(shard, n, sizeof *shard, by_text);
    for (size_t i = 0; i < n; i++)
        if (!i || strcmp(shard[i], shard[i - 1]) != 0) s->part[s->parts++].shard = shard[i];
    return check_names(&s->map, s->pool, s->err);
}

static int is_adapter(const char *stem) { return strcmp(stem, "adapter_model") == 0; }

/* Opens the first of four files that the folder has, in Hugging Face's order of preference. The caller calls
 * source_close at the end, also after an error. */
static int source_open(Source *s, const char *folder, const char *stem, Pool *pool, Error *err) {
    static const char extension[][24] = { ".safetensors", ".safetensors.index.json",
                                          ".bin", ".bin.index.json" };
    const char *first = NULL;
    memset(s, 0, sizeof *s);
    s->folder = folder;
    s->adapter = is_adapter(stem);
    s->pool = pool;
    s->err = err;
    for (int i = 0; i < 4; i++) {
        s->torch = i >= 2;
        s->path = path_in(folder, s->torch && strcmp(stem, "model") == 0 ? "pytorch_model" : stem,
                          extension[i], pool);
        if (!s->path) return fail(err, E_MEMORY, "memory for a checkpoint", folder, 0, 0);
        if (!first) first = s->path;
        if (!file_exists(s->path)) continue;
        if (i & 1) return source_index(s);
        s->part = pool_take(pool, 1, sizeof *s->part);
        if (!s->part) return fail(err, E_MEMORY, "memory for a checkpoint", folder, 0, 0);
        s->parts = 1;
        s->part->path = s->path;
        return source_header(s, s->part);
    }
    return fail(err, E_MISSING, "no weights", first, 0, 0);
}
static void source_close(Source *s) { file_close(s->file); }

/* scratch_end frees the memory that was taken from the pool since scratch_begin. It closes a file that was
 * opened in between, because that file's memory is freed, too. */
typedef struct { PoolMark mark; File *file; } Scratch;
static Scratch scratch_begin(Source *s) {
    Scratch b;
    b.mark = pool_mark(s->pool);
    b.file = s->file;
    return b;
}
static void scratch_end(Source *s, Scratch b) {
    if (s->file != b.file) {
        file_close(s->file);
        s->file = NULL;
        s->open = NULL;
    }
    pool_release(s->pool, b.mark);
}

/* The place of a tensor: its container and its entry (NULL: there is no such tensor). head: width of a head
 * if the rows are in Meta's order (read_rows); 0: they are in Hugging Face's order. */
typedef struct { Container *in; Entry *entry; int head; } Place;

/* Finds the tensor that has exactly this name. If there is no such tensor, returns OK,
 * and *p has no entry. */
static int source_find(Source *s, const char *name, Place *p) {
    const Entry *listed = s->map.entry ? container_find(&s->map, name) : NULL;
    size_t i = 0;
    int code;
    memset(p, 0, sizeof *p);
    if (s->map.entry && !listed) return OK;
    while (listed && strcmp(s->part[i].shard, listed->dtype) != 0) i++;  /* ends, as every shard has a part */
    code = source_header(s, &s->part[i]);
    if (code != OK) return code;
    p->entry = container_find(&s->part[i], name);
    if (p->entry) { p->in = &s->part[i]; p->entry->used = 1; }
    else if (listed)
        return refuse(s->err, E_MISSING, s->part[i].path,
                      "tensor %.96s is not in the shard that the index names", name);
    return OK;
}

/* Finds a tensor by its own name or by another name that files use for it (files/families.c). If there is no
 * such tensor, returns OK, and *p has no entry. */
static int source_tensor(Source *s, const char *tensor, Place *p) {
    char name[256];
    int paired = 0, code = OK;
    memset(p, 0, sizeof *p);
    if (strlen(tensor) >= sizeof name) return OK;
    strcpy(name, tensor);
    for (int k = 0; code == OK; k++) {
        code = source_find(s, name, p);
        if (code != OK || p->entry || !family_name(name, sizeof name, tensor, k, &paired)) break;
    }
    if (code != OK || !p->entry || !paired) return code;
    if (!s->head) {                             /* rows in Meta's order: how wide is a head? */
        ModelConfig c;
        code = config_load(&c, s->folder, s->pool, s->err);
        if (code == OK) s->head = c.stack.D;
    }
    p->head = s->head;
    return code;
}

/* ---- values: little-endian bytes of a file <-> float32 <-> Matrix data ---- */

/* Rounds x (n) to type `to` and stores it in data, of that type, as the n elements from `at` on. */
static void values_store(void *data, int to, size_t at, const f32 *x, size_t n) {
    if (to != F32) halves_narrow((uint16_t *)data + at, x, to, n);
    else if ((f32 *)data + at != x) memcpy((f32 *)data + at, x, n * sizeof *x);
}

/* Converts the n elements from `at` on of data, of type `from`, to words (n) of type `to` in a file's byte
 * order; n <= STEP. If both types are the same, the bits are copied. */
static void values_out(void *words, int to, const void *data, int from, size_t at, size_t n) {
    f32 x[STEP];
    const f32 *floats = from == F32 ? (const f32 *)data + at : x;
    if (from == to) memcpy(words, (const unsigned char *)data + at * dtype_bytes(from), n * dtype_bytes(to));
    else {
        if (from != F32) halves_widen(x, (const uint16_t *)data + at, from, n);
        values_store(words, to, 0, floats, n);
    }
    little_endian(words, dtype_bytes(to), n);
}

/* Reads the n elements from `at` on of a tensor in a safetensors file into words, in the file's type but in
 * this machine's byte order. */
static int read_words(const Source *s, const Place *p, uint64_t at, void *words, size_t n) {
    size_t width = dtype_bytes(p->entry->type);
    int code = file_read_at(s->file, p->in->data + p->entry->begin + at * width, words, n * width, s->err);
    if (code == OK) little_endian(words, width, n);
    return code;
}

/* Reads the n elements from `at` on of a tensor of a float type into x (n). The caller has checked that the
 * tensor has these elements. */
static int read_values(Source *s, const Place *p, uint64_t at, f32 *x, size_t n) {
    uint16_t half[STEP];
    int type = p->entry->type, code = source_file(s, p->in);
    if (code == OK && p->entry->torch) return torch_read(x, p->entry->torch, s->file, at, n, s->err);
    if (code == OK && type == F32) return read_words(s, p, at, x, n);
    for (size_t done = 0, part; done < n && code == OK; done += part) {
        part = n - done < STEP ? n - done : STEP;
        code = read_words(s, p, at + done, half, part);
        if (code == OK) halves_widen(x + done, half, type, part);
    }
    return code;
}

/* Reads elements as read_values does, of a matrix with I columns. Rows in Meta's order (p->head is not 0) are
 * put into Hugging Face's order: in a head of D rows, Hugging Face rotates row j with row j + D/2, Meta row
 * 2j with row 2j + 1. So row half * D/2 + j of a head is row 2j + half of Meta's head. */
static int read_rows(Source *s, const Place *p, uint64_t I, uint64_t at, f32 *x, size_t n) {
    uint64_t D = (uint64_t)p->head;
    if (!D) return read_values(s, p, at, x, n);
    for (size_t done = 0, part; done < n; done += part) {
        uint64_t row = (at + done) / I, column = (at + done) % I, i = row % D;
        uint64_t from = row - i + i % (D / 2) * 2 + i / (D / 2);
        int code;
        part = n - done < I - column ? n - done : (size_t)(I - column);
        code = read_values(s, p, from * I + column, x + done, part);
        if (code != OK) return code;
    }
    return OK;
}

/* Reads the n bytes from `at` on of a tensor in a safetensors file into out (n), unchanged. */
static int read_raw(Source *s, const Place *p, uint64_t at, void *out, size_t n) {
    int code = source_file(s, p->in);
    return code == OK ? file_read_at(s->file, p->in->data + p->entry->begin + at, out, n, s->err) : code;
}

/* ---- bitsandbytes' 4-bit weights: NAME holds the codes, NAME.absmax and others scales and tables ---- */

typedef struct {
    int kind, block;                        /* QUANT_NF4 or QUANT_FP4; weights that share an absmax */
    int doubled;                            /* 1: doubly quantised, the absmax values are in 8 bits */
    int dtype;                              /* F32, BF16, F16: the weights' type before they were quantised */
    uint64_t O, I;                          /* the weight's shape */
    f32 offset;                             /* if doubled: added to every absmax */
    uint64_t bytes;                         /* the size of codes, scales and tables in the file, together */
} Packed;

static const char state_name[2][40] = { ".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4" };

static int block_known(uint64_t block) { return block >= 32 && block <= STEP && (block & (block - 1)) == 0; }

/* Finds tensor NAME + suffix, where NAME is the weight's name. If there is no such tensor, *p has no entry,
 * and if it is `required`, E_MISSING is returned. */
static int companion(Source *s, const Entry *weight, const char *suffix, int required, Place *p) {
    char name[320];
    int code;
    memset(p, 0, sizeof *p);
    if (weight->length + strlen(suffix) >= sizeof name || strlen(weight->name) != weight->length) return OK;
    strcpy(name, weight->name);
    strcat(name, suffix);
    code = source_find(s, name, p);
    if (code == OK && required && !p->entry)
        return refuse(s->err, E_MISSING, s->path, "tensor %.140s is missing", name);
    return code;
}

/* Reads a quant_state, a JSON object with "quant_type", "blocksize", "dtype" and "shape", and if the weight
 * is doubly quantised "nested_blocksize", "nested_dtype" and "nested_offset". */
static int packed_parse(Packed *q, const Json *j, const char *name, const char *path, Error *err) {
    const Json *shape = json_get(j, "shape");
    const char *type = json_text(j, "quant_type", "?"), *dtype = json_text(j, "dtype", "?");
    const char *nested = json_text(j, "nested_dtype", "float32");
    uint64_t block, inner = QUANT_NESTED;
    double offset = json_number(j, "nested_offset", 0);
    q->doubled = json_get(j, "nested_blocksize") != NULL;
    q->dtype = dtype_named(dtype);
    if (strcmp(type, quant_name(q->kind)) != 0)
        return refuse(err, E_FORMAT, path, "quant_type '%.16s' of tensor %.80s", type, name);
    if (!json_whole(json_get(j, "blocksize"), &block) || !block_known(block))
        return refuse(err, E_UNSUPPORTED, path, "blocksize %g of tensor %.80s",
                      json_number(j, "blocksize", 0), name);
    if (q->dtype < 0)
        return refuse(err, E_UNSUPPORTED, path, "quantised from dtype '%.16s': tensor %.80s", dtype, name);
    if (q->doubled && (!json_whole(json_get(j, "nested_blocksize"), &inner) || inner != QUANT_NESTED))
        return refuse(err, E_UNSUPPORTED, path, "nested_blocksize %g of tensor %.80s",
                      json_number(j, "nested_blocksize", 0), name);
    if (strcmp(nested, "float32") != 0)
        return refuse(err, E_UNSUPPORTED, path, "nested_dtype '%.16s' of tensor %.80s", nested, name);
    if (q->doubled && !(fabs(offset) <= 3.4028234663852886e38 && json_get(j, "nested_offset")))
        return refuse(err, E_FORMAT, path, "nested_offset of tensor %.80s", name);
    if (!shape || shape->type != JSON_ARRAY || shape->count != 2 || !json_whole(shape->child, &q->O)
        || !json_whole(shape->child->next, &q->I) || q->O > INT_MAX || q->I > INT_MAX)
        return refuse(err, E_FORMAT, path, "quant_state of tensor %.80s: its shape", name);
    q->block = (int)block;
    q->offset = (f32)offset;
    return OK;
}

/* Checks that NAME.absmax and the other parts are there (optional 1: they may be missing). Sets q->bytes to
 * the bytes of the codes and of all parts. */
static int packed_parts(Source *s, const Entry *weight, int optional, Packed *q) {
    static const char suffix[][20] = { ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map" };
    int code = OK;
    q->bytes = weight->end - weight->begin;
    for (int i = 0; i < 4 && code == OK; i++) {
        Place p;
        code = companion(s, weight, suffix[i], !optional && (i < 2 || q->doubled), &p);
        if (p.entry) q->bytes += p.entry->end - p.entry->begin;
    }
    return code;
}

/* Reads the tensor whose bytes are the text of a quant_state. */
static int packed_read(Source *s, const Place *state, const char *name, Packed *q) {
    Error inner;
    const Json *j;
    size_t n = (size_t)(state->entry->end - state->entry->begin);
    char *text;
    int code;
    memset(&inner, 0, sizeof inner);
    if (state->entry->end - state->entry->begin > STATE_MAX || strcmp(state->entry->dtype, "U8") != 0)
        return refuse(s->err, E_FORMAT, state->in->path, "quant_state of tensor %.80s is not a text", name);
    text = pool_take(s->pool, n + 1, 1);
    if (!text) return fail(s->err, E_MEMORY, "memory for a quant_state", state->in->path, 0, 0);
    code = read_raw(s, state, 0, text, n);
    if (code != OK) return code;
    j = json_parse(text, n, s->pool, &inner);
    if (!j && inner.code == E_MEMORY) return fail_in(s->err, &inner, state->in->path);
    if (!j)
        return refuse(s->err, E_FORMAT, state->in->path, "quant_state of tensor %.80s: %.40s", name,
                      inner.what);
    return packed_parse(q, j, name, state->in->path, s->err);
}

/* Finds out whether the tensor is in 4 bits. If it is, sets *found to 1 and *q to its form, and checks that
 * all of its parts are there and that it has one code for each weight. */
static int packed_state(Source *s, const Place *p, Packed *q, int *found) {
    const Entry *e = p->entry;
    Scratch scratch;
    Place state;
    int code = OK;
    memset(q, 0, sizeof *q);
    memset(&state, 0, sizeof state);
    for (int kind = 0; kind < 2 && code == OK && !state.entry; kind++) {
        q->kind = kind;
        code = companion(s, e, state_name[kind], 0, &state);
    }
    *found = code == OK && state.entry;
    if (!*found) return code;
    if (s->torch)
        return refuse(s->err, E_UNSUPPORTED, p->in->path, "4-bit tensor %.96s in a PyTorch file", e->name);
    code = packed_parts(s, e, 1, q);        /* before scratch_begin: headers of other shards have to stay */
    if (code != OK) return code;
    scratch = scratch_begin(s);
    code = packed_read(s, &state, e->name, q);
    if (code == OK && e->end - e->begin != (q->O * q->I + 1) / 2)
        code = refuse(s->err, E_FORMAT, p->in->path,
                      "tensor %.80s: its bytes do not fit the shape of its quant_state", e->name);
    scratch_end(s, scratch);
    return code == OK ? packed_parts(s, e, 0, q) : code;
}

/* Reads tensor NAME + suffix, which has to be n finite numbers of F32, into x (n). */
static int companion_floats(Source *s, const Entry *weight, const char *suffix, f32 *x, size_t n) {
    Place p;
    int code = companion(s, weight, suffix, 1, &p);
    if (code != OK) return code;
    if (p.entry->type != F32 || p.entry->end - p.entry->begin != (uint64_t)n * 4)
        return refuse(s->err, E_FORMAT, p.in->path, "tensor %.96s: not %llu numbers of F32", p.entry->name,
                      (unsigned long long)n);
    code = read_values(s, &p, 0, x, n);
    for (size_t i = 0; i < n && code == OK; i++)
        if (!isfinite(x[i]))
            code = refuse(s->err, E_NUMBER, p.in->path, "tensor %.96s: number %llu is NaN or infinite",
                          p.entry->name, (unsigned long long)i);
    return code;
}

/* Reads tensor NAME + suffix, which has to be n bytes, into b (n). */
static int companion_bytes(Source *s, const Entry *weight, const char *suffix, unsigned char *b, size_t n) {
    Place p;
    int code = companion(s, weight, suffix, 1, &p);
    if (code != OK) return code;
    if (strcmp(p.entry->dtype, "U8") != 0 || p.entry->end - p.entry->begin != (uint64_t)n)
        return refuse(s->err, E_FORMAT, p.in->path, "tensor %.96s: not %llu bytes", p.entry->name,
                      (unsigned long long)n);
    return read_raw(s, &p, 0, b, n);
}

/* Reads the scales and tables of a 4-bit tensor into q, which has room for them. q->table and q->map are read
 * from the file, too, not computed. */
static int packed_scales(Source *s, const Entry *weight, const Packed *p, Quant *q) {
    size_t blocks = quant_blocks((size_t)(p->O * p->I), p->block);
    int code = companion_floats(s, weight, ".quant_map", q->table, 16);
    if (code == OK && !p->doubled) code = companion_floats(s, weight, ".absmax", q->absmax, blocks);
    if (code != OK || !p->doubled) return code;
    code = companion_bytes(s, weight, ".absmax", q->code, blocks);
    if (code == OK)
        code = companion_floats(s, weight, ".nested_absmax", q->nested,
                                (blocks + QUANT_NESTED - 1) / QUANT_NESTED);
    if (code == OK) code = companion_floats(s, weight, ".nested_quant_map", q->map, 256);
    q->offset = p->offset;
    return code;
}

/* Reads a 4-bit tensor into a matrix of floats. The numbers are those of bitsandbytes' dequantize_4bit,
 * rounded to the dtype that was quantised. */
static int read_dequantised(Source *s, const Place *p, const Packed *packed, const Matrix *m) {
    unsigned char nibbles[STEP / 2];
    f32 x[STEP], *absmax;
    size_t total = (size_t)m->O * (size_t)m->I, blocks = quant_blocks(total, packed->block);
    Quant q;
    int code;
    memset(&q, 0, sizeof q);
    q.kind = packed->kind;
    q.block = packed->block;
    q.absmax = absmax = pool_take(s->pool, blocks, sizeof *absmax);
    q.code = pool_take(s->pool, blocks, 1);
    q.nested = pool_take(s->pool, blocks / QUANT_NESTED + 1, sizeof *q.nested);
    q.map = pool_take(s->pool, 256, sizeof *q.map);
    if (!absmax || !q.code || !q.nested || !q.map)
        return fail(s->err, E_MEMORY, "memory for the scales of a tensor", p->in->path, 0, 0);
    code = packed_scales(s, p->entry, packed, &q);
    for (size_t b = 0; packed->doubled && code == OK && b < blocks; b++)
        absmax[b] = q.map[q.code[b]] * q.nested[b / QUANT_NESTED] + q.offset;
    for (size_t at = 0; at < total && code == OK; at += STEP) {
        size_t n = total - at < STEP ? total - at : STEP;
        code = read_raw(s, p, at / 2, nibbles, (n + 1) / 2);
        if (code != OK) return code;
        q.absmax = absmax + at / (size_t)q.block;
        dequantize_4bit(x, nibbles, &q, 0, n);
        halves_round(x, packed->dtype, n);
        values_store(m->data, m->type, at, x, n);
    }
    return code;
}

/* ---- loading ---- */

/* Checks that a tensor has the same shape in the file as in the list. OK or E_SHAPE. */
static int check_shape(Source *s, const Place *p, const Packed *packed, const Tensor *t) {
    const Entry *e = p->entry;
    const Matrix *m = t->matrix;
    char file[48], list[48];
    int vector = (t->flags & TENSOR_VECTOR) != 0, rank = packed ? 2 : e->rank;
    int turned = (t->flags & TENSOR_TRANSPOSED) && !packed;
    uint64_t rows = packed ? packed->O : e->shape[0], columns = packed ? packed->I : e->shape[1];
    uint64_t O = (uint64_t)(turned ? m->I : m->O), I = (uint64_t)(turned ? m->O : m->I);
    if (vector ? rank == 1 && rows == I : rank == 2 && rows == O && columns == I) return OK;
    if (rank == 1) snprintf(file, sizeof file, "[%llu]", (unsigned long long)rows);
    else if (rank == 2)
        snprintf(file, sizeof file, "[%llu,%llu]", (unsigned long long)rows, (unsigned long long)columns);
    else snprintf(file, sizeof file, "of %d dimensions", rank);
    if (vector) snprintf(list, sizeof list, "[%d]", m->I);
    else snprintf(list, sizeof list, "[%d,%d]", (int)O, (int)I);
    refuse(s->err, E_SHAPE, p->in->path, "tensor %s is %s, wanted %s", t->name, file, list);
    if (s->adapter && rank == 2 && rows != O && columns == I && t->flags & (TENSOR_EMBEDDING | TENSOR_HEAD))
        advise(s->err, "the vocabulary was resized for this adapter: a base model that was resized, too "
                       "(transformers: resize_token_embeddings, save_pretrained)");
    return E_SHAPE;
}

/* Writes a 4-bit form in words to out: "nf4 in blocks of 64, doubly quantised". */
static void describe_4bit(char *out, size_t cap, int kind, int block, int doubled) {
    snprintf(out, cap, "%s in blocks of %d%s", quant_name(kind), block, doubled ? ", doubly quantised" : "");
}

/* Checks, before any weight is read, that the tensor in the file can be loaded into the
 * tensor of the list. */
static int check_tensor(Source *s, const Place *p, const Tensor *t) {
    const Matrix *m = t->matrix;
    const Quant *q = m->type == NF4 ? m->quant : NULL;
    char file[64], list[64];
    Packed packed;
    int found, code = packed_state(s, p, &packed, &found);
    if (code != OK) return code;
    if (!found && p->entry->type < 0)
        return refuse(s->err, E_UNSUPPORTED, p->in->path, "dtype %s of tensor %s", p->entry->dtype, t->name);
    code = check_shape(s, p, found ? &packed : NULL, t);
    if (code != OK) return code;
    if (p->head && (m->O % p->head || p->head % 2))
        return refuse(s->err, E_SHAPE, p->in->path, "rows of tensor %s: not a multiple of a head's width",
                      t->name);
    if (m->type == NF4 ? !q || !block_known((uint64_t)q->block) : m->type != F32 && m->type != BF16
        && m->type != F16)
        return refuse(s->err, E_UNSUPPORTED, p->in->path, "loading into the stored type of tensor %s",
                      t->name);
    if (!found || !q) return OK;
    if (q->kind == packed.kind && q->block == packed.block && (q->absmax == NULL) == packed.doubled)
        return OK;
    describe_4bit(file, sizeof file, packed.kind, packed.block, packed.doubled);
    describe_4bit(list, sizeof list, q->kind, q->block, !q->absmax);
    return refuse(s->err, E_UNSUPPORTED, p->in->path, "tensor %.50s is %s, wanted %s", t->name, file, list);
}

/* Stores x (n), the tensor's n elements from `at` on, in the matrix. For a matrix in 4 bits, x is first
 * rounded to the matrix's dtype, as Hugging Face casts before bitsandbytes quantises; `at` is the start of a
 * block, and absmax is the whole tensor's array. */
static int put_values(const Source *s, const Place *p, const Tensor *t, f32 *absmax, size_t at, f32 *x,
                      size_t n) {
    const Matrix *m = t->matrix;
    const Quant *q = m->quant;
    size_t where = 0;
    int code;
    if (m->type != NF4) {
        values_store(m->data, m->type, at, x, n);
        return OK;
    }
    halves_round(x, q->dtype, n);
    code = quantize_4bit((unsigned char *)m->data + at / 2, absmax + at / (size_t)q->block, x, n, q->block,
                         q->kind, &where);
    if (code == OK) return OK;
    return refuse(s->err, code, p->in->path, "tensor %.80s: weight %llu is NaN or infinite in %s", t->name,
                  (unsigned long long)(at + where), torch_dtype(q->dtype));
}

/* Reads STEP weights from `at` on, or as many as are left. Several threads may call this at the same time: it
 * does not change s, because the file is open already. */
static int read_step(Source *s, const Place *p, const Tensor *t, f32 *absmax, size_t at) {
    const Matrix *m = t->matrix;
    f32 x[STEP], *to = m->type == F32 ? (f32 *)m->data + at : x;
    size_t total = (size_t)m->O * (size_t)m->I, n = total - at < STEP ? total - at : STEP;
    int code;
    if (m->type == p->entry->type && !p->head && !p->entry->torch)         /* the bits are copied */
        return read_words(s, p, at, (unsigned char *)m->data + at * dtype_bytes(m->type), n);
    code = read_rows(s, p, (uint64_t)m->I, at, to, n);
    return code == OK ? put_values(s, p, t, absmax, at, to, n) : code;
}

/* Reads a tensor in steps. Threads share STEPS steps at a time, so that the file is read from its start to
 * its end. A step that fails is repeated after the others, to record its error. */
static int read_steps(Source *s, const Place *p, const Tensor *t, f32 *absmax) {
    int steps, failed[STEPS], code = source_file(s, p->in);
    size_t total = (size_t)t->matrix->O * (size_t)t->matrix->I;
    Source quiet = *s;
    quiet.err = NULL;
    for (size_t at = 0; at < total && code == OK; at += (size_t)STEP * STEPS) {
        steps = total - at < (size_t)STEP * STEPS ? (int)((total - at + STEP - 1) / STEP) : STEPS;
        PARALLEL_FOR((double)steps * STEP * 4)
        for (int k = 0; k < steps; k++) failed[k] = read_step(&quiet, p, t, absmax, at + (size_t)k * STEP);
        for (int k = 0; k < steps && code == OK; k++)
            if (failed[k] != OK) code = read_step(s, p, t, absmax, at + (size_t)k * STEP);
    }
    return code;
}

/* Reads a matrix that PyTorch has stored transposed, about TURNED weights at a time, because torch_read is
 * fast for many whole rows. For a matrix in 4 bits, each part has to begin with a new block: parts are whole
 * rows only if a row is a whole number of blocks. */
static int read_turned(Source *s, const Place *p, const Tensor *t, f32 *absmax) {
    const Matrix *m = t->matrix;
    size_t total = (size_t)m->O * (size_t)m->I, I = (size_t)m->I, step = total < TURNED ? total : TURNED;
    int code = source_file(s, p->in), rows = m->type != NF4 || I % (size_t)m->quant->block == 0;
    f32 *x = m->type == F32 ? NULL : pool_take(s->pool, step, sizeof *x);
    if (m->type == F32) return code == OK ? read_rows(s, p, I, 0, m->data, total) : code;
    if (!x) return fail(s->err, E_MEMORY, "memory for a transposed tensor", p->in->path, 0, 0);
    if (rows && I < step) step -= step % I;
    for (size_t at = 0, n; at < total && code == OK; at += n) {
        n = total - at < step ? total - at : step;
        code = read_rows(s, p, I, at, x, n);
        if (code == OK) code = put_values(s, p, t, absmax, at, x, n);
    }
    return code;
}

/* Reads a matrix that the file has as (I,O): some rows at a time, which are columns of the file.
 * Rows are read in multiples of a block's size, so that each part begins with a new block. */
static int read_columns(Source *s, const Place *p, const Tensor *t, f32 *absmax) {
    const Matrix *m = t->matrix;
    const size_t O = (size_t)m->O, I = (size_t)m->I, block = m->type == NF4 ? (size_t)m->quant->block : 1;
    size_t step = TURNED / I / block * block;
    if (step < block) step = block;
    if (step > O) step = O;
    f32 *line = pool_take(s->pool, step, sizeof *line), *x = pool_take(s->pool, step * I, sizeof *x);
    int code = line && x ? OK : fail(s->err, E_MEMORY, "memory for a transposed tensor", p->in->path, 0, 0);
    for (size_t o = 0, n; o < O && code == OK; o += n) {
        n = O - o < step ? O - o : step;
        for (size_t i = 0; i < I && code == OK; i++) {
            code = read_values(s, p, i * O + o, line, n);
            for (size_t k = 0; k < n; k++) x[k * I + i] = line[k];
        }
        if (code == OK) code = put_values(s, p, t, absmax, o * I, x, n * I);
    }
    return code;
}

/* Reads a tensor of floats into a matrix of any type. For a doubly quantised matrix, the absmax values are
 * computed as floats in scratch memory first. */
static int read_floats(Source *s, const Place *p, const Tensor *t) {
    const TorchTensor *torch = p->entry->torch;
    Quant *q = t->matrix->type == NF4 ? t->matrix->quant : NULL;
    size_t blocks = q ? quant_blocks((size_t)t->matrix->O * (size_t)t->matrix->I, q->block) : 0;
    f32 *absmax = q && !q->absmax ? pool_take(s->pool, blocks, sizeof *absmax) : q ? q->absmax : NULL;
    int turned, code;
    if (q && !absmax) return fail(s->err, E_MEMORY, "memory for the scales of a tensor", p->in->path, 0, 0);
    turned = torch && torch->dims == 2 && torch->stride[0] < torch->stride[1] && !p->head;
    code = (t->flags & TENSOR_TRANSPOSED ? read_columns : turned ? read_turned : read_steps)(s, p, t, absmax);
    if (!q || code != OK) return code;
    quant_table(q->table, q->kind);
    if (q->absmax) return OK;
    quant_map(q->map);
    quantize_absmax(q->code, q->nested, &q->offset, q->map, absmax, blocks);
    return OK;
}

/* Reads one tensor, of floats or in 4 bits, into a matrix of any type that check_tensor allows. */
static int read_tensor(Source *s, const Place *p, const Tensor *t) {
    const Matrix *m = t->matrix;
    Packed packed;
    int found, code = packed_state(s, p, &packed, &found);
    if (code != OK) return code;
    if (!found) return read_floats(s, p, t);
    if (m->type != NF4) return read_dequantised(s, p, &packed, m);
    code = read_raw(s, p, 0, m->data, ((size_t)m->O * (size_t)m->I + 1) / 2);
    m->quant->dtype = packed.dtype;
    return code == OK ? packed_scales(s, p->entry, &packed, m->quant) : code;
}

/* Refuses a checkpoint that lacks a required tensor. Names the first missing tensor, and says how
 * many more are missing. */
static int check_complete(Source *s, const Tensor *list, int tensors, const Place *place) {
    int first = -1, missing = 0;
    for (int t = 0; t < tensors; t++)
        if (!place[t].entry && !(list[t].flags & (TENSOR_TIED | TENSOR_OPTIONAL))) {
            if (first < 0) first = t;
            missing++;
        }
    if (!missing) return OK;
    if (missing == 1) refuse(s->err, E_MISSING, s->path, "tensor %s is missing", list[first].name);
    else refuse(s->err, E_MISSING, s->path, "tensor %s is missing, and %d more", list[first].name,
                missing - 1);
    if (list[first].flags & TENSOR_HEAD && !s->adapter)
        advise(s->err, "a folder of the whole model: this one has no head (`rm --reward FOLDER --new-head` "
                       "trains a judge's)");
    return E_MISSING;
}

/* Refuses a checkpoint that has a tensor which nobody asked for: the model would not be the one that was
 * saved. Names the first one, and says how many more there are. own: see family_spares. */
static int check_used(Source *s, const char *own) {
    const Entry *first = NULL;
    const char *where = s->path;
    int code = OK, more = 0;
    for (size_t i = 0; i < s->parts && code == OK; i++) {
        code = source_header(s, &s->part[i]);
        for (size_t k = 0; k < s->part[i].count && code == OK; k++) {
            const Entry *e = &s->part[i].entry[k];
            if (e->used) continue;
            if (!s->adapter && family_spares(own, e->name)) continue;
            if (!s->adapter && strncmp(e->name, "v_head.", 7) == 0) continue;   /* TRL's value head */
            if (first) more++;
            else { first = e; where = s->part[i].path; }
        }
    }
    if (code != OK || !first) return code;
    if (more) refuse(s->err, E_UNSUPPORTED, where, "tensor %.96s has no place in the model, and %d more",
                     first->name, more);
    else refuse(s->err, E_UNSUPPORTED, where, "tensor %.96s has no place in the model", first->name);
    if (s->adapter)
        advise(s->err, MERGE_ADVICE);
    else if (strstr(first->name, ".lora_"))
        advise(s->err, "these are a model and an adapter in one file: merge them "
                       "(peft: merge_and_unload, save_pretrained)");
    else advise(s->err, "a config.json that fits these weights, or a file without what does not matter");
    return E_UNSUPPORTED;
}

/* Sets *same to 1 if a tensor of the files, of n floats, has the values of another one, or if b has no entry,
 * of the matrix m, which was loaded before. */
static int compare_values(Source *s, const Place *a, const Place *b, const Matrix *m, size_t n, int *same) {
    Scratch scratch = scratch_begin(s);
    size_t step = n < TURNED ? n : TURNED;
    f32 *x = pool_take(s->pool, step, sizeof *x), *y = pool_take(s->pool, step, sizeof *y);
    int code = x && y ? OK : fail(s->err, E_MEMORY, "memory for a comparison", s->path, 0, 0);
    *same = 1;
    for (size_t at = 0, part; at < n && *same && code == OK; at += part) {
        part = n - at < step ? n - at : step;
        code = read_values(s, a, at, x, part);
        if (code == OK && b->entry) code = read_values(s, b, at, y, part);
        else if (code == OK) tensor_read(y, m, at, part);
        if (code == OK) *same = memcmp(x, y, part * sizeof *x) == 0;
    }
    scratch_end(s, scratch);
    return code;
}

/* Checks that a tied tensor of the files has the values of the tensor that it is tied to. An adapter's file
 * may lack that one: then it has its values already. */
static int check_tied(Source *s, const Tensor *list, int tensors, const Place *place, int tied) {
    const Matrix *m = list[tied].matrix;
    int u = 0, same = 1, code = OK;
    while (u < tensors && (list[u].matrix->data != m->data || list[u].flags & TENSOR_TIED)) u++;
    if (u == tensors || !place[tied].entry) return OK;
    code = check_tensor(s, &place[tied], &list[tied]);
    if (code == OK && place[tied].entry->type >= 0 && (!place[u].entry || place[u].entry->type >= 0))
        code = compare_values(s, &place[tied], &place[u], m, (size_t)m->O * (size_t)m->I, &same);
    if (code != OK || same) return code;
    refuse(s->err, E_UNSUPPORTED, s->path, "tensor %s is not equal to %s, to which the model ties it",
           list[tied].name, list[u].name);
    advise(s->err, s->adapter ? MERGE_ADVICE
                              : "\"tie_word_embeddings\": false in config.json keeps both");
    return E_UNSUPPORTED;
}

/* Finds and checks all tensors before the first weight is read, then reads them, file by file. part 1: the
 * list is only a part of the files' tensors. */
static int load(Source *s, const Tensor *list, int tensors, int part) {
    Place *place = pool_take(s->pool, (size_t)(tensors > 0 ? tensors : 0) + 1, sizeof *place);
    int code = OK;
    if (!place) return fail(s->err, E_MEMORY, "memory for a checkpoint", s->path, 0, 0);
    for (int t = 0; t < tensors && code == OK; t++)
        code = source_tensor(s, list[t].name, &place[t]);
    if (code == OK) code = check_complete(s, list, tensors, place);
    for (int t = 0; t < tensors && code == OK; t++)
        if (place[t].entry && !(list[t].flags & TENSOR_TIED)) code = check_tensor(s, &place[t], &list[t]);
    for (int t = 0; t < tensors && code == OK; t++)
        if (list[t].flags & TENSOR_TIED) code = check_tied(s, list, tensors, place, t);
    if (code == OK && !part && tensors > 0) code = check_used(s, list[0].name);
    for (size_t i = 0; i < s->parts; i++)
        for (int t = 0; t < tensors && code == OK; t++) {
            Scratch scratch;
            if (place[t].in != &s->part[i] || list[t].flags & TENSOR_TIED) continue;
            code = source_file(s, place[t].in);
            scratch = scratch_begin(s);
            if (code == OK) code = read_tensor(s, &place[t], &list[t]);
            scratch_end(s, scratch);
        }
    return code;
}

static int load_folder(const char *folder, const char *stem, const Tensor *list, int tensors, int part,
                       Pool *pool, Error *err) {
    PoolMark mark = pool_mark(pool);
    Source s;
    int code = source_open(&s, folder, stem, pool, err);
    if (code == OK) code = load(&s, list, tensors, part);
    source_close(&s);
    pool_release(pool, mark);
    return code;
}
int checkpoint_load(const char *folder, const char *stem, const Tensor *list, int tensors, Pool *pool,
                    Error *err) {
    return load_folder(folder, stem, list, tensors, 0, pool, err);
}
int checkpoint_load_part(const char *folder, const char *stem, const Tensor *list, int tensors, Pool *pool,
                         Error *err) {
    return load_folder(folder, stem, list, tensors, 1, pool, err);
}

/* Appends a tensor to the list, unless one of the first n has its name. */
static void add_unless(Tensor *list, int *count, int n, const Tensor *t) {
    for (int i = 0; i < n; i++) if (strcmp(list[i].name, t->name) == 0) return;
    list[*count] = *t;
    list[(*count)++].flags |= TENSOR_OPTIONAL;
}

/* Returns the folder of an adapter's soft prompt: beside pairs it has one of its own, in the adapter's, since
 * a folder of peft has one adapter. NULL: no memory. */
static const char *prompt_folder(const Lora *l, const char *folder, Pool *pool) {
    return l->config.R ? path_in(folder, "prompt", "", pool) : folder;
}

/* Loads the soft prompt. The file may have more rows, of which the first are used. OK or a code. */
static int prompt_load(const Lora *l, const char *folder, Pool *pool, Error *err) {
    const PoolMark mark = pool_mark(pool);
    const char *own = prompt_folder(l, folder, pool);
    const PromptConfig *p = &l->config.prompt;
    Tensor all = l->tensor[0];
    Matrix rows = l->prompt;
    int code;
    all.matrix = &rows;
    if (p->stored > p->rows) {
        rows.O = p->stored;
        rows.data = pool_take(pool, tensor_bytes(&rows), 1);
    }
    code = own && rows.data ? checkpoint_load(own, "adapter_model", &all, 1, pool, err)
                            : fail(err, E_MEMORY, "memory for a soft prompt", folder, 0, 0);
    if (code == OK && rows.data != l->prompt.data)
        memcpy(l->prompt.data, rows.data, tensor_bytes(&l->prompt));
    pool_release(pool, mark);
    return code;
}

int adapter_load(Lora *l, const Tensor *base, int tensors, const char *folder, Pool *pool, Error *err) {
    const int soft = l->prompt.O > 0;
    int n = l->tensors - soft, code = soft ? prompt_load(l, folder, pool, err) : OK;
    if (code != OK || !l->config.R) return code;
    PoolMark mark = pool_mark(pool);
    Tensor *list = pool_take(pool, (size_t)(n + tensors) + 1, sizeof *list);
    if (!list) return fail(err, E_MEMORY, "memory for a list of tensors", folder, 0, 0);
    lora_start(l, base);
    memcpy(list, l->tensor + soft, (size_t)n * sizeof *list);
    for (int i = 0; i < n; i++) {
        char *at = strstr(list[i].name, base_layer);
        if (at) memmove(at, at + sizeof base_layer - 2, strlen(at + sizeof base_layer - 2) + 1);
    }
    for (int i = 0; i < tensors; i++)       /* what is read into 4 bits would be quantised, another weight */
        if (base[i].matrix->type != NF4) add_unless(list, &n, l->tensors - soft, &base[i]);
    code = checkpoint_load(folder, "adapter_model", list, n, pool, err);
    pool_release(pool, mark);
    return code;
}

int checkpoint_untie(ModelConfig *c, int *untied, const char *folder, Pool *pool, Error *err) {
    PoolMark mark = pool_mark(pool);
    const size_t n = (size_t)c->V * (size_t)c->stack.C;
    Source s;
    Place word, head;
    int same = 1, code = OK;
    *untied = 0;
    if (!c->tied || !c->names) return OK;
    code = source_open(&s, folder, "model", pool, err);
    if (code == OK) code = source_tensor(&s, c->names->part[NAME_HEAD], &head);
    if (code == OK) code = source_tensor(&s, c->names->part[NAME_WORD], &word);
    if (code == OK && head.entry && word.entry && head.entry->type >= 0 && word.entry->type >= 0
        && entry_values(head.entry) == n && entry_values(word.entry) == n)
        code = compare_values(&s, &head, &word, NULL, n, &same);
    source_close(&s);
    pool_release(pool, mark);
    if (code == OK && !same) { *untied = 1; c->tied = 0; }
    return code;
}

/* Sets *out, which is all zeros, to how tensor `name` is stored. */
static int storage(Storage *out, Source *s, const char *name) {
    const Entry *e;
    Place p;
    Packed q;
    int found, code = source_tensor(s, name, &p);
    if (code != OK) return code;
    if (!p.entry) return refuse(s->err, E_MISSING, s->path, "tensor %s is missing", name);
    e = p.entry;
    code = packed_state(s, &p, &q, &found);
    if (code != OK) return code;
    if (found) {
        out->type = NF4;
        out->dtype = q.dtype;
        out->kind = q.kind;
        out->block = q.block;
        out->doubled = q.doubled;
        out->rank = 2;
        out->shape[0] = q.O;
        out->shape[1] = q.I;
        out->bytes = q.bytes;
        return OK;
    }
    out->type = out->dtype = e->type;
    out->rank = e->rank;
    out->bytes = e->end - e->begin;
    for (int d = 0; d < 2; d++) out->shape[d] = e->shape[d];
    if (!e->torch || e->type < 0) return OK;
    out->bytes = dtype_bytes(e->type);
    for (int d = 0; d < e->torch->dims; d++) out->bytes *= e->torch->shape[d];
    return OK;
}

int checkpoint_storage(Storage *out, const char *folder, const char *stem, const char *name, Pool *pool,
                       Error *err) {
    PoolMark mark = pool_mark(pool);
    Source s;
    int code;
    memset(out, 0, sizeof *out);
    code = source_open(&s, folder, stem, pool, err);
    if (code == OK) code = storage(out, &s, name);
    source_close(&s);
    pool_release(pool, mark);
    return code;
}

size_t checkpoint_rows(const char *folder, const char *stem, const char *name, Pool *pool) {
    Storage s;
    if (checkpoint_storage(&s, folder, stem, name, pool, NULL) != OK) return 0;
    return s.rank > 1 ? (size_t)s.shape[0] : 1;
}

/* Returns the type that holds the floats of two types without loss. */
static int wider(int a, int b) { return a == b ? a : F32; }

/* Finds the types of the linears of all layers. The first 4-bit linear decides about w->layers and the form
 * of 4 bits. Stores those that are not in 4 bits in kept (NULL: does not), and their number in *count. */
static int scan_linears(Source *s, const Names *names, WeightTypes *w, KeptLinear *kept, int *count) {
    static const int linear[] = { NAME_QKV, NAME_Q, NAME_K, NAME_V, NAME_O, NAME_GATE, NAME_UP, NAME_DOWN };
    char name[sizeof kept->name];
    int found = 1;
    *count = 0;
    w->layers = -1;
    for (int l = 0; found; l++) {
        found = 0;
        for (size_t i = 0; i < sizeof linear / sizeof *linear; i++) {
            const char *pattern = names->part[linear[i]];
            Storage x = { 0 };
            Place p;
            int code;
            if (!pattern || name_format(name, sizeof name, pattern, l) != OK) continue;
            code = source_tensor(s, name, &p);
            if (code == OK && (p.entry || (l == 0 && !found))) code = storage(&x, s, name);
            if (code != OK) return code;
            if (!p.entry) continue;
            found = 1;
            if (x.type < 0)
                return refuse(s->err, E_UNSUPPORTED, s->path, "dtype %s of tensor %s", p.entry->dtype, name);
            if (x.type != NF4) {
                if (kept) { strcpy(kept[*count].name, name); kept[*count].type = x.type; }
                ++*count;
                if (w->layers != NF4) w->layers = w->layers < 0 ? x.type : wider(w->layers, x.type);
            } else if (w->layers != NF4) {
                w->layers = NF4;
                w->kind = x.kind;
                w->block = x.block;
                w->doubled = x.doubled;
            }
        }
    }
    return OK;
}

/* Finds the type of the tables, embedding and head. */
static int scan_tables(Source *s, const Names *names, WeightTypes *w) {
    static const int table[] = { NAME_WORD, NAME_POSITION, NAME_HEAD };
    for (int i = 0; i < 3; i++) {
        const char *name = names->part[table[i]];
        Storage x = { 0 };
        Place p;
        int code = name ? source_tensor(s, name, &p) : OK;
        if (code == OK && name && (p.entry || i == 0)) code = storage(&x, s, name);
        if (code != OK) return code;
        if (!name || !p.entry) continue;
        if (x.type < 0 || x.type == NF4)
            return refuse(s->err, E_UNSUPPORTED, s->path, "%s tensor %s", x.type == NF4 ? "the 4-bit"
                          : p.entry->dtype, name);
        w->tables = i == 0 ? x.type : wider(w->tables, x.type);
    }
    return OK;
}

int folder_types(WeightTypes *w, const char *folder, const Names *names, Pool *pool, Error *err) {
    KeptLinear *kept = NULL;
    int count = 0, code = config_quantization(w, folder, pool, err);
    for (int pass = 0; pass < 2 && code == OK; pass++) {   /* the second one fills the list */
        PoolMark mark = pool_mark(pool);
        Source s;
        code = source_open(&s, folder, "model", pool, err);
        if (code == OK) code = scan_linears(&s, names, w, kept, &count);
        if (code == OK && !pass) code = scan_tables(&s, names, w);
        source_close(&s);
        pool_release(pool, mark);
        if (code != OK || w->layers != NF4 || !count) break;
        if (!pass) kept = pool_take(pool, (size_t)count + 1, sizeof *kept);
        if (!kept) return fail(err, E_MEMORY, "memory for the list of linears", folder, 0, 0);
    }
    if (w->layers != NF4) w->compute = F32;
    w->kept = kept;
    return code;
}

/* ---- saving ---- */

/* An Item is one tensor of the file to be written: n values of type `from` at data, written as type `to`; U8:
 * bytes, written unchanged. A 4-bit matrix becomes four items, or six (ITEMS) if it is doubly quantised.
 * turned 1: data is the transpose of what is written. */
enum { U8 = -1, ITEMS = 6 };
typedef struct {
    const char *name; const void *data; int to, from, rank, turned, shard; uint64_t shape[2]; size_t n;
} Item;
typedef struct { const char *folder, *stem, *prefix; int dtype; Pool *pool; Error *err; } Saving;

static uint64_t item_bytes(const Item *i) { return (uint64_t)i->n * (i->to == U8 ? 1 : dtype_bytes(i->to)); }

/* Compares two items for sorting, in the order of safetensors' own writer: F32, BF16,
 * F16, U8; then by name. */
static int by_item(const void *left, const void *right) {
    const Item *a = left, *b = right;
    int x = a->to == U8 ? NF4 : a->to, y = b->to == U8 ? NF4 : b->to;
    return x != y ? x - y : strcmp(a->name, b->name);
}

/* Appends an item named prefix + name + suffix with n values in one dimension, and returns it. If there is no
 * memory, its name is NULL. */
static Item *put_item(Item *items, int *count, const Saving *s, const char *name, const char *suffix,
                      int type, const void *data, size_t n) {
    Item *i = &items[(*count)++];
    size_t a = strlen(s->prefix), b = strlen(name), c = strlen(suffix);
    char *full = pool_take(s->pool, a + b + c + 1, 1);
    memset(i, 0, sizeof *i);
    if (full) { memcpy(full, s->prefix, a); memcpy(full + a, name, b); memcpy(full + a + b, suffix, c); }
    i->name = full;
    i->data = data;
    i->to = i->from = type;
    i->rank = 1;
    i->shape[0] = i->n = n;
    return i;
}

/* Writes the quant_state of a matrix to b: the JSON text that bitsandbytes stores as a tensor of bytes. */
static void put_state(Buffer *b, const Matrix *m) {
    const Quant *q = m->quant;
    buffer_text(b, "{\"quant_type\": \"");
    buffer_text(b, quant_name(q->kind));
    buffer_text(b, "\", \"blocksize\": ");
    buffer_integer(b, q->block);
    buffer_text(b, ", \"dtype\": \"");
    buffer_text(b, torch_dtype(q->dtype));
    buffer_text(b, "\", \"shape\": [");
    buffer_integer(b, m->O);
    buffer_text(b, ", ");
    buffer_integer(b, m->I);
    buffer_text(b, "]");
    if (!q->absmax) {
        buffer_text(b, ", \"nested_blocksize\": ");
        buffer_integer(b, QUANT_NESTED);
        buffer_text(b, ", \"nested_dtype\": \"float32\", \"nested_offset\": ");
        buffer_real(b, q->offset, 0);
    }
    buffer_text(b, "}");
}

/* Appends the items of one tensor of the list. OK or E_MEMORY. */
static int put_items(Item *items, int *count, const Saving *s, const Tensor *t) {
    const Matrix *m = t->matrix;
    const Quant *q = m->quant;
    size_t n = (size_t)m->O * (size_t)m->I, blocks;
    Buffer state = { s->pool, NULL, 0, 0, 0 };
    Item *i;
    if (m->type != NF4) {
        i = put_item(items, count, s, t->name, "", m->type, m->data, n);
        i->to = s->dtype;
        if (t->flags & TENSOR_VECTOR) return OK;
        i->rank = 2;
        i->turned = (t->flags & TENSOR_TRANSPOSED) != 0;
        i->shape[0] = (uint64_t)(i->turned ? m->I : m->O);
        i->shape[1] = (uint64_t)(i->turned ? m->O : m->I);
        return OK;
    }
    i = put_item(items, count, s, t->name, "", U8, m->data, (n + 1) / 2);
    i->rank = 2;                            /* bitsandbytes' shape of the codes is [bytes,1] */
    i->shape[1] = 1;
    blocks = quant_blocks(n, q->block);
    if (q->absmax) put_item(items, count, s, t->name, ".absmax", F32, q->absmax, blocks);
    else {
        put_item(items, count, s, t->name, ".absmax", U8, q->code, blocks);
        put_item(items, count, s, t->name, ".nested_absmax", F32, q->nested,
                 (blocks + QUANT_NESTED - 1) / QUANT_NESTED);
        put_item(items, count, s, t->name, ".nested_quant_map", F32, q->map, 256);
    }
    put_item(items, count, s, t->name, ".quant_map", F32, q->table, 16);
    put_state(&state, m);
    put_item(items, count, s, t->name, state_name[q->kind], U8, state.data, state.length);
    return state.failed ? E_MEMORY : OK;
}

/* Writes the start of a safetensors file to `file`: the header's length as u64, then the header. */
static void put_header(Buffer *file, Buffer *header, const Item *items, int count) {
    uint64_t at = 0;
    buffer_text(header, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (const Item *i = items; i < items + count; i++) {
        buffer_text(header, ",");
        buffer_json_string(header, i->name, strlen(i->name));
        buffer_text(header, ":{\"dtype\":\"");
        buffer_text(header, i->to == U8 ? "U8" : dtype_name(i->to));
        buffer_text(header, "\",\"shape\":[");
        buffer_integer(header, (long long)i->shape[0]);
        if (i->rank == 2) { buffer_text(header, ","); buffer_integer(header, (long long)i->shape[1]); }
        buffer_text(header, "],\"data_offsets\":[");
        buffer_integer(header, (long long)at);
        at += item_bytes(i);
        buffer_text(header, ",");
        buffer_integer(header, (long long)at);
        buffer_text(header, "]}");
    }
    buffer_text(header, "}");
    /* spaces are added, so that the data begin at a multiple of 8 */
    while (header->length % 8 && !header->failed) buffer_text(header, " ");
    buffer_u64(file, header->length);
    if (header->failed) file->failed = 1;
    else buffer_bytes(file, header->data, header->length);
}

/* Converts the n <= STEP values of an item from `at` on to words, as values_out does; it may be turned. */
static void item_words(void *words, const Item *i, size_t at, size_t n) {
    f32 x[STEP];
    uint16_t *half = (uint16_t *)(void *)x;
    const size_t rows = (size_t)i->shape[0], columns = (size_t)i->shape[1];
    if (!i->turned) { values_out(words, i->to, i->data, i->from, at, n); return; }
    for (size_t k = 0; k < n; k++) {
        const size_t from = (at + k) % columns * rows + (at + k) / columns;
        if (i->from == F32) x[k] = ((const f32 *)i->data)[from];
        else half[k] = ((const uint16_t *)i->data)[from];
    }
    values_out(words, i->to, x, i->from, 0, n);
}

/* Sorts `count` items and writes them to one safetensors file. */
static int save_file(const Saving *s, const char *path, Item *items, int count) {
    f32 chunk[STEP];
    Buffer file = { s->pool, NULL, 0, 0, 0 }, header = { s->pool, NULL, 0, 0, 0 };
    Writer *w;
    qsort(items, (size_t)count, sizeof *items, by_item);
    put_header(&file, &header, items, count);
    if (file.failed) return fail(s->err, E_MEMORY, "memory for the header", path, 0, 0);
    w = writer_open(path, s->pool, s->err);
    if (!w) return s->err && s->err->code ? s->err->code : E_OPEN;
    writer_write(w, file.data, file.length);
    for (const Item *i = items; i < items + count; i++) {
        size_t step = i->to == U8 ? i->n : STEP;
        for (size_t at = 0, n; at < i->n; at += n) {
            n = i->n - at < step ? i->n - at : step;
            if (i->to != U8) item_words(chunk, i, at, n);
            writer_write(w, i->to == U8 ? i->data : chunk, i->to == U8 ? n : n * dtype_bytes(i->to));
        }                                       /* the writer keeps an error for writer_close */
    }
    return writer_close(w, s->err);
}

/* Writes the file name of a shard to out: "STEM-00001-of-00002.safetensors", with at least five digits. */
static void shard_name(char *out, size_t cap, const char *stem, int number, int of) {
    snprintf(out, cap, "%.64s-%05d-of-%05d.safetensors", stem, number, of);
}

/* Writes all shards, and the index last: without an index, shards are not a checkpoint. */
static int save_shards(const Saving *s, Item *items, int count, int shards) {
    Buffer index = { s->pool, NULL, 0, 0, 0 };
    const char *path = path_in(s->folder, s->stem, ".safetensors.index.json", s->pool);
    uint64_t total = 0;
    char name[128];
    for (int i = 0; i < count; i++) total += item_bytes(&items[i]);
    buffer_text(&index, "{\"metadata\": {\"total_size\": ");
    buffer_integer(&index, (long long)total);
    buffer_text(&index, "}, \"weight_map\": {");
    for (int i = 0; i < count; i++) {
        if (i) buffer_text(&index, ", ");
        buffer_json_string(&index, items[i].name, strlen(items[i].name));
        buffer_text(&index, ": ");
        shard_name(name, sizeof name, s->stem, items[i].shard, shards);
        buffer_json_string(&index, name, strlen(name));
    }
    buffer_text(&index, "}}\n");
    if (index.failed || !path) return fail(s->err, E_MEMORY, "memory for the index", s->folder, 0, 0);
    for (int i = 0, next; i < count; i = next) {
        const char *file;
        int code;
        for (next = i; next < count && items[next].shard == items[i].shard; next++) ;
        shard_name(name, sizeof name, s->stem, items[i].shard, shards);
        file = path_in(s->folder, name, "", s->pool);
        if (!file) return fail(s->err, E_MEMORY, "memory for the index", s->folder, 0, 0);
        code = save_file(s, file, items + i, next - i);
        if (code != OK) return code;
    }
    return file_write_all(path, index.data, index.length, s->pool, s->err);
}

/* Checks that the tensor's matrix has a type that can be saved. OK or E_UNSUPPORTED. */
static int check_saved(const Saving *s, const Tensor *t, const char *path) {
    const Matrix *m = t->matrix;
    const Quant *q = m->type == NF4 ? m->quant : NULL;
    if (m->type == F32 || m->type == BF16 || m->type == F16) return OK;
    if (q && block_known((uint64_t)q->block) && (q->kind == QUANT_NF4 || q->kind == QUANT_FP4)
        && (q->absmax || isfinite(q->offset))) return OK;
    return refuse(s->err, E_UNSUPPORTED, path, "saving the stored type of tensor %s", t->name);
}

/* Saves a list of tensors. The list's order decides which shard a tensor is in: a shard ends before the
 * tensor that would make it larger than `limit` bytes (0: one file). */
static int save(const Saving *s, const Tensor *list, int tensors, uint64_t limit) {
    Item *items = pool_take(s->pool, ITEMS * (size_t)(tensors > 0 ? tensors : 0) + 1, sizeof *items);
    const char *path = path_in(s->folder, s->stem, ".safetensors", s->pool);
    int count = 0, shards = 1, code = folder_make(s->folder, s->err);
    uint64_t used = 0;
    if (code != OK) return code;
    if (!items || !path) return fail(s->err, E_MEMORY, "memory for a checkpoint", s->folder, 0, 0);
    if (s->dtype != F32 && s->dtype != BF16 && s->dtype != F16)
        return fail(s->err, E_ARGUMENT, "dtype to save in", path, s->dtype, F32);
    for (int t = 0; t < tensors; t++) {
        int first = count;
        uint64_t bytes = 0;
        if (list[t].flags & TENSOR_TIED) continue;
        code = check_saved(s, &list[t], path);
        if (code != OK) return code;
        if (put_items(items, &count, s, &list[t]) != OK)
            return fail(s->err, E_MEMORY, "memory for a checkpoint", path, 0, 0);
        for (int i = first; i < count; i++) bytes += item_bytes(&items[i]);
        if (limit && used && (bytes > limit || used > limit - bytes)) { shards++; used = 0; }
        used += bytes;
        for (int i = first; i < count; i++) {
            if (!items[i].name) return fail(s->err, E_MEMORY, "memory for a checkpoint", path, 0, 0);
            items[i].shard = shards;
        }
    }
    if (shards <= 1) return save_file(s, path, items, count);
    /* readers look for the single file first, so an old one would hide the new shards */
    if (file_exists(path))
        return fail(s->err, E_WRITE, "shards would be hidden by a file that is there already", path, 0, 0);
    return save_shards(s, items, count, shards);
}

int checkpoint_save(const char *folder, const char *stem, const Tensor *list, int tensors, int dtype,
                    uint64_t shard_bytes, Pool *pool, Error *err) {
    PoolMark mark = pool_mark(pool);
    Saving s;
    int code;
    s.folder = folder;
    s.stem = stem;
    s.prefix = is_adapter(stem) ? "base_model.model." : "";
    s.dtype = dtype;
    s.pool = pool;
    s.err = err;
    code = save(&s, list, tensors, shard_bytes);
    pool_release(pool, mark);
    return code;
}

int adapter_save(const Lora *l, const char *folder, int dtype, Pool *pool, Error *err) {
    const PoolMark mark = pool_mark(pool);
    const int soft = l->prompt.O > 0;
    const Saving s = { prompt_folder(l, folder, pool), "adapter_model", "", dtype, pool, err };
    int code = s.folder ? OK : fail(err, E_MEMORY, "memory for a soft prompt", folder, 0, 0);
    if (code == OK && soft) code = save(&s, l->tensor, 1, 0);
    if (code == OK && l->config.R)
        code = checkpoint_save(folder, "adapter_model", l->tensor + soft, l->written - soft, dtype, 0, pool,
                               err);
    pool_release(pool, mark);
    return code;
}
