/* tests/unit/torch.c - PyTorch's checkpoint files: every golden container against the same weights in
 * safetensors, bit for bit; a file with one of every kind of tensor; every refusal by its name; and hundreds
 * of broken files of each container (tests/fuzz/fuzz.c: thousands). */
#include "files/files.h"
#include "torch_files.h"
#include <time.h>

static char base[64];
static Pool pool;
static Error err;

static const char *at_base(const char *name) {
    static char path[256];
    sprintf(path, "%s/%s", base, name);
    return path;
}
/* Indexes a file, which stays open. */
static int index_file(TorchFile *t, File **f, const char *path) {
    memset(&err, 0, sizeof err);
    *f = file_open(path, &pool, &err);
    return *f ? torch_index(t, *f, &pool, &err) : err.code;
}
static int index_bytes(TorchFile *t, File **f, const Buffer *b) {
    FILE *out;    /* not file_write_all, which waits for the disk */
    remove(at_base("x.bin"));
    out = fopen(at_base("x.bin"), "wb");
    if (!out || fwrite(b->data, 1, b->length, out) != b->length || fclose(out)) {
        printf("cannot write %s\n", at_base("x.bin"));
        exit(2);
    }
    return index_file(t, f, at_base("x.bin"));
}
static const TorchTensor *find(const TorchFile *t, const char *name) {
    for (int i = 0; i < t->tensors; i++) if (strcmp(t->tensor[i].name, name) == 0) return &t->tensor[i];
    return NULL;
}
static size_t elements_of(const TorchTensor *t) {
    size_t n = 1;
    if (t->dims > TORCH_DIMS) return SIZE_MAX;
    for (int d = 0; d < t->dims; d++) n *= (size_t)t->shape[d];
    return n;
}
/* Reads the whole tensor, and again in pieces of every small length from every place. NULL: other bits. */
static f32 *read_ways(const TorchTensor *t, File *f) {
    size_t n = elements_of(t), odd = 0;
    f32 *x = pool_take(&pool, n + 1, sizeof *x), *y = pool_take(&pool, n + 1, sizeof *y);
    x[n] = y[n] = 42;
    if (torch_read(x, t, f, 0, n, &err) != OK) return NULL;
    for (size_t length = 1; length <= 7 && length <= n; length++)
        for (size_t from = 0; from + length <= n && from < 200; from++) {
            if (torch_read(y, t, f, from, length, &err) != OK || memcmp(y, x + from, length * sizeof *x))
                odd++;
        }
    for (size_t from = 0, length = 501; from < n; from += length) {
        if (length > n - from) length = n - from;
        if (torch_read(y + from, t, f, from, length, &err) != OK) odd++;
    }
    return odd || memcmp(x, y, (n ? n : 1) * sizeof *x) || x[n] != 42 || y[n] != 42 ? NULL : x;
}

/* ---- goldens ---- */

static void golden(const char *name, const char *twin) {
    char path[256];
    char *bytes;
    size_t size;
    uint64_t header = 0;
    const Json *root, *j;
    TorchFile t;
    File *f;
    int code, wrong = 0, count = 0;
    sprintf(path, "tests/golden/models/%s/pytorch_model.bin", name);
    code = index_file(&t, &f, path);
    CHECK(code == OK, "%s is read: %s", name, err.what);
    if (code != OK) return;
    sprintf(path, "tests/golden/models/%s/model.safetensors", twin);
    CHECK(file_read_all(path, &pool, &bytes, &size, &err) == OK, "%s is there", path);
    for (int i = 0; i < 8; i++) header |= (uint64_t)(unsigned char)bytes[i] << (8 * i);
    root = json_parse(bytes + 8, (size_t)header, &pool, &err);
    for (j = root ? root->child : NULL; j; j = j->next) {
        const TorchTensor *a = find(&t, j->key);
        const Json *offsets = json_get(j, "data_offsets"), *shape = json_get(j, "shape");
        const char *dtype = json_text(j, "dtype", "");
        f32 *x = a ? read_ways(a, f) : NULL;
        if (strcmp(j->key, "__metadata__") == 0) continue;
        count++;
        if (!x || a->dims != (int)shape->count || (uint64_t)shape->child->number != a->shape[0]) {
            wrong++;
            continue;
        }
        for (size_t i = 0; i < elements_of(a); i++) {
            const unsigned char *b = (const unsigned char *)bytes + 8 + header
                + (size_t)offsets->child->number + i * (strcmp(dtype, "F32") ? 2 : 4);
            uint32_t u = (uint32_t)b[0] | (uint32_t)b[1] << 8, v;
            u = strcmp(dtype, "F32") ? u << 16 : u | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
            memcpy(&v, &x[i], 4);
            if (u != v) { wrong++; break; }
        }
    }
    CHECK(count == 21 && t.tensors == 21 && wrong == 0, "%s holds the weights of %s bit for bit (%d of %d "
          "differ)", name, twin, wrong, count);
    for (int i = 1; i < t.tensors; i++) if (strcmp(t.tensor[i - 1].name, t.tensor[i].name) >= 0) wrong++;
    CHECK(wrong == 0, "%s: sorted by name", name);
    file_close(f);
}

static void meta_names(void) {
    char path[512];
    TorchFile t;
    File *f;
    const TorchTensor *w;
    sprintf(path, "%.400s/data/torch/tiny_llama_meta_names.pt", shared());
    if (!file_exists(path)) { SKIP("no %s", path); return; }
    CHECK(index_file(&t, &f, path) == OK, "Meta's names: %s", err.what);
    if (err.code) return;
    w = find(&t, "layers.1.feed_forward.w2.weight");
    CHECK(t.tensors == 21 && w && w->dims == 2 && w->dtype == F32 && w->shape[0] == 32,
          "Meta's names: 21 tensors (%d)", t.tensors);
    w = find(&t, "tok_embeddings.weight");
    CHECK(w && w->shape[0] == 500 && w->shape[1] == 32 && read_ways(w, f), "Meta's names: the embedding");
    file_close(f);
}

/* ---- the sample ---- */

/* Returns element i of sample s, as the table has it. */
static f32 sample_value(const Sample *s, size_t i) {
    long long e = s->first;
    for (int d = s->dims - 1; d >= 0; d--) {
        e += (long long)(i % (size_t)s->size[d]) * s->stride[d];
        i /= (size_t)s->size[d];
    }
    if (strcmp(s->type, "BFloat16Storage") == 0) return bf16_to_f32((uint16_t)sample_bf16((int)e));
    return strcmp(s->type, "HalfStorage") == 0 ? f16_to_f32((uint16_t)sample_half((int)e))
        : sample_float((int)e);
}

static void check_sample(const char *name, const Buffer *b) {
    TorchFile t;
    File *f;
    int code = index_bytes(&t, &f, b);
    f32 none = 0;
    CHECK(code == OK && t.tensors == SAMPLES, "%s: %d tensors: %s", name, t.tensors, err.what);
    if (code != OK) { file_close(f); return; }
    for (int i = 0; i < SAMPLES; i++) {
        const TorchTensor *a = find(&t, sample[i].name);
        int refused = sample[i].dims > TORCH_DIMS || strcmp(sample[i].type, "LongStorage") == 0, wrong = 0;
        f32 *x;
        CHECK(a && a->dims == sample[i].dims && (a->dtype == -1) == refused, "%s: %s is there", name,
              sample[i].name);
        if (!a) continue;
        memset(&err, 0, sizeof err);
        if (refused) {
            CHECK(torch_read(&none, a, f, 0, 1, &err) == E_UNSUPPORTED && strstr(err.what, a->name),
                  "%s: %s is refused: %s", name, a->name, err.what);
            continue;
        }
        x = read_ways(a, f);
        for (size_t k = 0; x && k < elements_of(a); k++) {
            f32 want = sample_value(&sample[i], k);
            wrong += memcmp(&want, &x[k], 4) != 0;
        }
        CHECK(x && !wrong, "%s: the values of %s: %s", name, a->name, err.what);
        CHECK(torch_read(&none, a, f, elements_of(a), 1, &err) == E_RANGE, "%s: an element beyond %s", name,
              a->name);
    }
    file_close(f);
}

static Buffer empty(void) { Buffer b; memset(&b, 0, sizeof b); b.pool = &pool; return b; }

static void samples(void) {
    static const char *const wraps[] = { NULL, "model", "state_dict", "module" };
    for (int k = 0; k < 4; k++)
        for (int legacy = 0; legacy < 2; legacy++) {
            Buffer p = empty(), b = empty();
            char name[64];
            pickle_sample(&p, legacy, wraps[k]);
            if (legacy) pickle_legacy(&b, &p, 1);
            else pickle_zip(&b, &p, k ? "little" : NULL, k == 2, &pool);
            sprintf(name, "%s, %s", legacy ? "legacy" : k == 2 ? "zip64" : "zip", wraps[k] ? wraps[k] :
                    "plain");
            check_sample(name, &b);
        }
}

/* Checks large transposed matrices, and some with a step, that take several reads; of floats and of
 * bfloat16. */
static void large(int half) {
    enum { ROWS = 1100, COLUMNS = 70 };
    static const struct { const char *name; long long size[2], stride[2], first; } view[] = {
        { "transposed", { ROWS, COLUMNS }, { 1, ROWS }, 0 }, { "reversed order", { COLUMNS, ROWS },
        { ROWS, 1 }, 0 },
        { "steps", { COLUMNS, ROWS / 3 }, { ROWS, 3 }, 2 }, { "far steps", { 3, COLUMNS / 7 },
        { 1, 7 * ROWS }, 5 },
        { "transposed steps", { ROWS / 2, COLUMNS }, { 2, ROWS }, 1 } };
    enum { VIEWS = sizeof view / sizeof *view };
    Buffer p = empty(), data = empty();
    ZipWriter z;
    TorchFile t;
    File *f;
    buffer_bytes(&p, "\x80\2}(", 4);
    for (int i = 0; i < VIEWS; i++) {
        pickle_text(&p, view[i].name);
        pickle_tensor(&p, (PickledTensor){ half ? "BFloat16Storage" : "FloatStorage", "0", ROWS * COLUMNS,
            view[i].first, 2, view[i].size, view[i].stride, 0 });
    }
    buffer_text(&p, "u.");
    /* element i is i, or the number whose bits are i modulo 32,000 */
    for (int i = 0; i < ROWS * COLUMNS; i++) {
        float x = (float)i;
        uint32_t u;
        memcpy(&u, &x, 4);
        if (half) buffer_u16(&data, (unsigned)i % 32000);
        else buffer_u32(&data, u);
    }
    zip_start(&z, &pool);
    zip_add(&z, "a/data.pkl", p.data, p.length);
    zip_add(&z, "a/data/0", data.data, data.length);
    zip_finish(&z);
    CHECK(index_bytes(&t, &f, &z.body) == OK && t.tensors == VIEWS, "large views: %s", err.what);
    for (int i = 0; i < VIEWS && err.code == OK; i++) {
        const TorchTensor *a = find(&t, view[i].name);
        f32 *x = read_ways(a, f);
        int wrong = 0;
        for (long long r = 0; x && r < view[i].size[0]; r++)
            for (long long c = 0; c < view[i].size[1]; c++) {
                long long e = view[i].first + r * view[i].stride[0] + c * view[i].stride[1];
                wrong += x[r * view[i].size[1] + c] != (half ? bf16_to_f32((uint16_t)(e % 32000)) : (float)e);
            }
        CHECK(x && !wrong, "large view%s, %s (%d wrong)", half ? " of bfloat16" : "", view[i].name, wrong);
    }
    file_close(f);
}

/* Returns number e of the matrix below: of both signs, at least 0.002 in size. */
static unsigned turned_bits(size_t e) {
    return 0x3B00u + (unsigned)(e * 7919u % 0x400u) + (e % 3 ? 0 : 0x8000u);
}

/* Loads a transposed matrix (O,I) of bfloat16, larger than what checkpoint_load turns at once, as every type:
 * the same numbers as of the whole matrix, rounded or quantised. Rows of 1024 end with a block, rows of 1027
 * do not. */
static void turned(int O, int I) {
    size_t n = (size_t)O * (size_t)I, blocks = quant_blocks(n, 64), where;
    const long long size[2] = { O, I }, stride[2] = { 1, O };
    f32 *x = pool_take(&pool, n, sizeof *x), *absmax = pool_take(&pool, blocks, sizeof *x);
    unsigned char *packed = pool_take(&pool, n, 1), *got = pool_take(&pool, n, 4);
    Buffer p = empty(), data = empty();
    ZipWriter z;
    buffer_bytes(&p, "\x80\2}(", 4);
    pickle_text(&p, "w");
    pickle_tensor(&p, (PickledTensor){ "BFloat16Storage", "0", (long long)n, 0, 2, size, stride, 0 });
    buffer_text(&p, "u.");
    for (size_t k = 0; k < n; k++) buffer_u16(&data, turned_bits(k % (size_t)O * (size_t)I + k / (size_t)O));
    zip_start(&z, &pool);
    zip_add(&z, "a/data.pkl", p.data, p.length);
    zip_add(&z, "a/data/0", data.data, data.length);
    zip_finish(&z);
    memset(&err, 0, sizeof err);
    file_write_all(at_base("pytorch_model.bin"), z.body.data, z.body.length, &pool, &err);
    for (size_t k = 0; k < n; k++) x[k] = bf16_to_f32((uint16_t)turned_bits(k));
    quantize_4bit(packed, absmax, x, n, 64, QUANT_NF4, &where);
    for (int type = F32; type <= NF4; type++) {
        Quant q;
        Matrix m = { type, O, I, 0, got, &q, NULL, F32, F32, 0 };
        Tensor t = { "w", &m, 0 };
        size_t wrong = 0;
        memset(&q, 0, sizeof q);
        q.block = 64;
        q.absmax = pool_take(&pool, blocks, sizeof *q.absmax);
        CHECK(checkpoint_load(base, "model", &t, 1, &pool, &err) == OK, "a turned matrix: %s", err.what);
        for (size_t k = 0; k < n && type != NF4; k++) {
            uint16_t h;
            f32 y;
            memcpy(&h, got + 2 * k, 2);
            memcpy(&y, got + 4 * (type == F32 ? k : 0), 4);
            wrong += type == F32 ? y != x[k] : h != (type == BF16 ? turned_bits(k) : f32_to_f16(x[k]));
        }
        if (type == NF4) wrong = memcmp(got, packed, n / 2) || memcmp(q.absmax, absmax, blocks * 4);
        CHECK(!wrong, "a turned matrix (%d,%d) as type %d: %d wrong", O, I, type, (int)wrong);
    }
    remove(at_base("pytorch_model.bin"));
}

/* ---- refusals: the error has to say `says` ---- */

static void refused(const char *name, const Buffer *b, int code, const char *says) {
    TorchFile t;
    File *f;
    int got = index_bytes(&t, &f, b);
    file_close(f);
    CHECK(got == code && strstr(err.what, says) && t.tensors == 0 && !t.tensor, "%s: code %d, wanted %d: %s",
          name, got, code, err.what);
}

/* Writes a zip whose pickle is these n bytes. */
static void refused_pickle(const char *name, const void *bytes, size_t n, int code, const char *says) {
    Buffer p = empty(), b = empty();
    buffer_bytes(&p, bytes, n);
    pickle_zip(&b, &p, NULL, 0, &pool);
    refused(name, &b, code, says);
}
#define PICKLE(name, text, code, says) refused_pickle(name, text, sizeof text - 1, code, says)

static void refused_tensor(const char *name, PickledTensor t, int code, const char *says) {
    Buffer p = empty();
    buffer_bytes(&p, "\x80\2}", 3);
    pickle_text(&p, "w");
    pickle_tensor(&p, t);
    buffer_text(&p, "s.");
    refused_pickle(name, p.data, p.length, code, says);
}

static void refusals_pickle(void) {
    PICKLE("a call of the system", "\x80\2cos\nsystem\nX\7\0\0\0echo hi\x85R.", E_UNSUPPORTED, "os.system");
    PICKLE("eval by STACK_GLOBAL", "\x80\4\x8c\x08" "builtins\x8c\4eval\x93.", E_UNSUPPORTED,
           "builtins.eval");
    PICKLE("a whole model", "\x80\2c__main__\nNet\n)\x81}.", E_UNSUPPORTED, "__main__.Net");
    PICKLE("INST", "\x80\2(ios\nsystem\n.", E_UNSUPPORTED, "INST");
    PICKLE("OBJ", "\x80\2(o.", E_UNSUPPORTED, "0x6f OBJ");
    PICKLE("EXT1", "\x80\2\x82\1.", E_UNSUPPORTED, "EXT1");
    PICKLE("an opcode that nobody has", "\x80\2\xff.", E_UNSUPPORTED, "0xff");
    PICKLE("protocol 0", "(dp0\n.", E_UNSUPPORTED, "DICT");
    PICKLE("a later protocol", "\x80\6N.", E_UNSUPPORTED, "protocol");
    PICKLE("another persistent id", "\x80\2X\6\0\0\0module\x85Q.", E_UNSUPPORTED, "module");
    PICKLE("a call of a storage", "\x80\2ctorch\nFloatStorage\nK\4\x85R.", E_UNSUPPORTED, "FloatStorage");
    PICKLE("OrderedDict with arguments", "\x80\2" "ccollections\nOrderedDict\n]\x85R.", E_UNSUPPORTED,
           "OrderedDict");
    PICKLE("BUILD of a tuple", "\x80\2)}b.", E_UNSUPPORTED, "BUILD");
    PICKLE("no end", "\x80\2}", E_TRUNCATED, "ends too early");
    PICKLE("a text beyond the end", "\x80\2X\xff\xff\xff\xff" "ab.", E_TRUNCATED, "text");
    PICKLE("an empty stack", "\x80\2\x87.", E_FORMAT, "stack is empty");
    PICKLE("popping a mark", "\x80\2(\x85.", E_FORMAT, "stack is empty");
    PICKLE("no mark", "\x80\2t.", E_FORMAT, "no mark");
    PICKLE("a memo never written", "\x80\2h\5.", E_FORMAT, "memo");
    PICKLE("a memo beyond any pickler's", "\x80\2}r\xff\xff\xff\x7f.", E_RANGE, "memo");
    PICKLE("half a pair", "\x80\2}(K\1u.", E_FORMAT, "no dict");
    PICKLE("items for a tuple", "\x80\2)K\1K\2s.", E_FORMAT, "no dict");
    PICKLE("two values", "\x80\2}}.", E_FORMAT, "left on the stack");
    PICKLE("more after the pickle", "\x80\2}.}", E_FORMAT, "after its pickle");
    PICKLE("a list", "\x80\2].", E_FORMAT, "not a dict");
    PICKLE("an empty dict", "\x80\2}.", E_MISSING, "without tensors");
    PICKLE("a dict in itself", "\x80\2}q\0X\5\0\0\0modelh\0s.", E_MISSING, "without tensors");
}

static void refusals_tensors(void) {
    static const long long a[] = { 2, 4 }, b[] = { 4, 1 }, c[] = { 5, 1 }, zero[] = { 0, 0 },
        huge[] = { 1ll << 40, 1ll << 40 }, minus[] = { -2, 4 };
    long long many[70], ones[70];
    for (int i = 0; i < 70; i++) many[i] = ones[i] = 1;
    refused_tensor("a size too many", (PickledTensor){ "FloatStorage", "0", 8, 1, 2, a, b, 0 }, E_RANGE,
                   "beyond storage 0");
    refused_tensor("a stride too long", (PickledTensor){ "FloatStorage", "0", 8, 0, 2, a, c, 0 }, E_RANGE,
                   "beyond storage 0");
    refused_tensor("sizes that overflow", (PickledTensor){ "FloatStorage", "0", 8, 0, 2, huge, zero, 0 },
                   E_RANGE, "overflow");
    refused_tensor("a negative size", (PickledTensor){ "FloatStorage", "0", 8, 0, 2, minus, b, 0 }, E_RANGE,
                   "no count");
    refused_tensor("a negative stride", (PickledTensor){ "FloatStorage", "0", 8, 7, 2, a, minus, 0 }, E_RANGE,
                   "no count");
    refused_tensor("a negative place", (PickledTensor){ "FloatStorage", "0", 8, -1, 2, a, b, 0 }, E_RANGE,
                   "storage 0");
    refused_tensor("more elements than the file", (PickledTensor){ "FloatStorage", "0", 1ll << 40, 0, 2, a, b,
        0 }, E_RANGE, "storage 0");
    refused_tensor("another number of elements", (PickledTensor){ "FloatStorage", "0", 9, 0, 2, a, b, 0 },
                   E_FORMAT, "data/0");
    refused_tensor("another type", (PickledTensor){ "HalfStorage", "0", 8, 0, 2, a, b, 0 }, E_FORMAT,
                   "data/0");
    refused_tensor("no such storage", (PickledTensor){ "FloatStorage", "7", 8, 0, 2, a, b, 0 }, E_MISSING,
                   "data/7");
    refused_tensor("a path as key", (PickledTensor){ "FloatStorage", "../version", 8, 0, 2, a, b, 0 },
                   E_MISSING, "version");
    refused_tensor("a type that nobody knows", (PickledTensor){ "Float7Storage", "0", 8, 0, 2, a, b, 0 },
                   E_UNSUPPORTED, "torch.Float7Storage");
    refused_tensor("70 dimensions", (PickledTensor){ "FloatStorage", "0", 8, 0, 70, many, ones, 0 },
                   E_UNSUPPORTED, "64 dimensions");
}

/* Reads a megabyte of one opcode (or a few) repeated: memory stays below 100 times that. */
static void hungry(const char *name, const char *piece, size_t n) {
    static const long long size[] = { 2 }, stride[] = { 1 };
    Pool own = test_pool(), kept = pool;
    Buffer p = empty(), b = empty();
    TorchFile t;
    File *f;
    int code;
    buffer_bytes(&p, "\x80\2", 2);
    pickle_tensor(&p, (PickledTensor){ "FloatStorage", "0", 8, 0, 1, size, stride, 0 });
    buffer_bytes(&p, "q\1", 2);
    buffer_u8(&p, '('); pickle_text(&p, "storage"); pickle_global(&p, "torch", "FloatStorage");
        pickle_text(&p, "0"); pickle_text(&p, "cpu"); pickle_int(&p, 8);
    buffer_text(&p, "t");
    buffer_bytes(&p, "q\2]", 3);
    while (p.length < 1 << 20) buffer_bytes(&p, piece, n);
    buffer_u8(&p, '.');
    pickle_zip(&b, &p, NULL, 0, &pool);
    pool = own;
    code = index_bytes(&t, &f, &b);
    CHECK(code != OK && err.what[0] && pool.total < 100u << 20, "a megabyte of %s: %d MB: %s", name,
          (int)(pool.total >> 20), err.what);
    file_close(f);
    pool_free(&pool);
    pool = kept;
}
static void hunger(void) {
    hungry("marks", "(", 1);
    hungry("dicts", "}", 1);
    hungry("dicts in a list", "}a", 2);
    hungry("memos", "\x94", 1);
    hungry("dicts and memos", "}\x94", 2);
    hungry("empty texts", "\x8c\0", 2);
    hungry("storages", "h\2Q", 3);
    hungry("tuples", "))\x86", 3);
    hungry("a tensor in a list", "h\1a", 3);
}

/* Writes the zip of a valid pickle, for the caller to change. */
static ZipWriter start_zip(const char *folder, unsigned method) {
    static const long long size[] = { 2 }, stride[] = { 1 };
    char name[64];
    Buffer p = empty();
    ZipWriter z;
    buffer_bytes(&p, "\x80\2}", 3);
    pickle_text(&p, "w");
    pickle_tensor(&p, (PickledTensor){ "FloatStorage", "0", 2, 0, 1, size, stride, 0 });
    buffer_text(&p, "s.");
    zip_start(&z, &pool);
    sprintf(name, "%s/data.pkl", folder);
    zip_add(&z, name, p.data, p.length);
    z.method = method;
    sprintf(name, "%s/data/0", folder);
    zip_add(&z, name, "abcdefgh", 8);
    return z;
}

static void refusals_container(void) {
    Buffer p = empty(), good = empty(), b;
    ZipWriter z;
    pickle_sample(&p, 0, NULL);
    pickle_zip(&good, &p, "big", 0, &pool);
    refused("a big-endian zip", &good, E_UNSUPPORTED, "byteorder");
    z = start_zip("x", 8); zip_finish(&z);
    refused("a compressed entry", &z.body, E_UNSUPPORTED, "compressed entry x/data/0");
    z = start_zip("x", 0); z.directory.data[8] |= 1; zip_finish(&z);
    refused("an encrypted entry", &z.body, E_UNSUPPORTED, "encrypted entry x/data.pkl");
    z = start_zip("x", 0); zip_add(&z, "x/data/0", "abcdefgh", 8); zip_finish(&z);
    refused("an entry twice", &z.body, E_FORMAT, "x/data/0 is there twice");
    z = start_zip("x", 0); zip_add(&z, "y/data.pkl", "N.", 2); zip_finish(&z);
    refused("two pickles", &z.body, E_FORMAT, "two folders");
    z = start_zip("x", 0); z.directory.data[42] = 1; zip_finish(&z);
    refused("an offset into nothing", &z.body, E_FORMAT, "x/data.pkl");
    z = start_zip("x", 0); z.directory.data[46 + 10 + 24] = 200; z.directory.data[46 + 10 + 20] = 200;
        zip_finish(&z);
    refused("an entry that overlaps", &z.body, E_FORMAT, "overlaps");
    z = start_zip("x", 0); z.body.data[31] = 'y'; zip_finish(&z);
    refused("two names for an entry", &z.body, E_FORMAT, "another header");
    z = start_zip("x/y", 0); zip_finish(&z);
    refused("no data.pkl in the first folder", &z.body, E_MISSING, "data.pkl");
    z = start_zip("x", 0); zip_finish(&z);
    check_sample("(a good zip is read)", (p.length = 0, pickle_sample(&p, 0, NULL), b = empty(),
                                          pickle_zip(&b, &p, "little", 0, &pool), &b));
    z.body.length -= 1;
    refused("a zip cut short", &z.body, E_TRUNCATED, "end");
    z.body.length += 1;
    z.body.data[z.body.length - 6]++;
    refused("two end records that do not agree", &z.body, E_FORMAT, "agree");
    b = empty(); p.length = 0; pickle_sample(&p, 1, NULL); pickle_legacy(&b, &p, 0);
    refused("a big-endian legacy file", &b, E_UNSUPPORTED, "big-endian");
    b = empty(); pickle_legacy(&b, &p, 1); buffer_u8(&b, 0);
    refused("a byte too many in a legacy file", &b, E_FORMAT, "after the last storage");
    b.length -= 2;
    refused("a byte too few in a legacy file", &b, E_TRUNCATED, "storage");
    b.data[3]++;
    refused("a pickle of something else", &b, E_FORMAT, "not from torch.save");
    b = empty(); buffer_text(&b, "{\"model\": 1}");
    refused("JSON", &b, E_FORMAT, "neither a zip nor a pickle");
    b = empty(); buffer_u8(&b, 'P');
    refused("one byte", &b, E_TRUNCATED, "");
}

/* ---- broken files: refused with a text, or read, and then every tensor can be read ---- */

static void broken(const char *name, const Buffer *valid, size_t rounds) {
    unsigned char *copy = malloc(valid->length);
    int accepted = 0, said = 0, wrong = 0;
    for (size_t round = 0; round < rounds; round++) {
        Rng r = rng_stream(7, round, valid->length);
        size_t n = valid->length, changes = 1 + (size_t)rng_below(&r, 3);
        Buffer b = empty();
        PoolMark mark = pool_mark(&pool);
        TorchFile t;
        File *f;
        f32 x[64];
        int code;
        memcpy(copy, valid->data, n);
        if (round % 10 == 0) n = (size_t)rng_below(&r, n);
        for (; changes && n; changes--) {
            size_t at = (size_t)rng_below(&r, n);
            copy[at] = (unsigned char)(rng_below(&r, 2) ? rng_next(&r) : copy[at] ^ 1u << rng_below(&r, 8));
            if (rng_below(&r, 4) == 0) memset(copy + at, 255, n - at < 4 ? n - at : 4);
        }
        b.data = copy;
        b.length = n;
        code = index_bytes(&t, &f, &b);
        if (code == OK) accepted++; else said += err.code == code && err.what[0];
        for (int i = 0; i < t.tensors && code == OK; i++) {
            const TorchTensor *a = &t.tensor[i];
            int known = a->dtype >= 0, small = elements_of(a) <= 64;
            if (small && (torch_read(x, a, f, 0, elements_of(a), &err) == OK) != known) wrong++;
        }
        file_close(f);
        pool_release(&pool, mark);
    }
    free(copy);
    CHECK(accepted + said == (int)rounds && !wrong && said > 0,
          "%s: of %d broken files %d are read, %d refused with words", name, (int)rounds, accepted, said);
}

static void mutations(void) {
    for (int legacy = 0; legacy < 2; legacy++)
        for (int wrap = 0; wrap < 2; wrap++) {
            Buffer p = empty(), b = empty();
            pickle_sample(&p, legacy, wrap ? "model" : NULL);
            if (legacy) pickle_legacy(&b, &p, 1); else pickle_zip(&b, &p, "little", wrap, &pool);
            broken(legacy ? "legacy" : wrap ? "zip64" : "zip", &b, 500);
        }
}

int main(void) {
    char command[100];
    pool = test_pool();
    sprintf(base, "/tmp/rlhf-torch-%08lx", (unsigned long)(time(NULL) * 7919u + clock()) & 0xffffffffu);
    folder_make(base, &err);
    golden("llama-torch-zip", "llama-gqa");
    golden("llama-torch-views", "llama-gqa");
    golden("llama-torch-legacy", "llama-gqa");
    golden("llama-torch-zip-bf16", "llama-bf16");
    meta_names();
    samples();
    large(0);
    large(1);
    turned(1030, 1024);
    turned(1030, 1027);
    refusals_pickle();
    refusals_tensors();
    refusals_container();
    hunger();
    mutations();
    sprintf(command, "rm -rf %s", base);
    if (system(command)) printf("could not remove %s\n", base);
    pool_free(&pool);
    return test_end("torch");
}
