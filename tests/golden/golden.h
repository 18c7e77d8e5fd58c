/* tests/golden/golden.h - what the tests of whole models share: the expected numbers of a folder, and the
 * comparison of gradients, of tensors and of configurations. */
#ifndef GOLDEN_H
#define GOLDEN_H
#include "test.h"
#include <time.h>

static Pool pool;

/* ---- a golden.safetensors in memory ---- */
typedef struct { const Json *header; const char *data; } Golden;
static Golden golden_open(const char *path) {
    Golden g = { NULL, NULL };
    char *bytes;
    size_t n;
    Error err = { 0 };
    if (file_read_all(path, &pool, &bytes, &n, &err) || n < 8) return g;
    Reader r = { (const unsigned char *)bytes, (const unsigned char *)bytes + n, 0 };
    uint64_t head = read_u64(&r);
    g.header = json_parse(bytes + 8, (size_t)head, &pool, &err);
    g.data = bytes + 8 + head;
    return g;
}
/* Returns the 32-bit words of an entry; *n: how many. */
static const uint32_t *words(const Golden *g, const char *name, size_t *n) {
    const Json *e = json_get(g->header, name), *o = json_get(e, "data_offsets");
    *n = 0;
    if (!o) return NULL;
    size_t begin = (size_t)o->child->number, end = (size_t)o->child->next->number;
    Reader r = { (const unsigned char *)g->data + begin, (const unsigned char *)g->data + end, 0 };
    uint32_t *out = pool_take(&pool, (end - begin) / 4 + 1, sizeof *out);
    for (*n = 0; *n < (end - begin) / 4; ++*n) out[*n] = read_u32(&r);
    return out;
}
static const float *floats(const Golden *g, const char *name, size_t *n) {
    return (const float *)(const void *)words(g, name, n);
}
static const int *ints(const Golden *g, const char *name, size_t *n) {
    return (const int *)(const void *)words(g, name, n);
}

/* Returns the largest difference; if `relative`, divided by the largest number, or by 1e-4 if that is larger:
 * the bias of the keys has no effect on a softmax, and its gradient is 0 but for rounding. */
static double distance(const float *a, const float *b, size_t n, int relative) {
    double worst = 0, largest = 1e-4;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (d > worst || d != d) worst = d;
        if (fabs((double)b[i]) > largest) largest = fabs((double)b[i]);
    }
    return relative ? worst / largest : worst;
}

/* Returns a tensor's gradient in the order of files: transposed, if files have it so. */
static const float *as_in_files(const Tensor *t) {
    const Matrix *w = t->matrix;
    const size_t O = (size_t)w->O, I = (size_t)w->I;
    if (!(t->flags & TENSOR_TRANSPOSED)) return w->grad;
    float *turned = pool_take(&pool, O * I, sizeof *turned);
    for (size_t o = 0; o < O; o++) for (size_t i = 0; i < I; i++) turned[i * O + o] = w->grad[o * I + i];
    return turned;
}

/* Returns the expected gradient of a tensor. In memory peft's names begin with base_model.model., and an
 * adapter's have ".default" before ".weight". */
static const float *expected_gradient(const Golden *g, const char *prefix, const char *tensor, size_t *n) {
    char name[256];
    const float *found;
    snprintf(name, sizeof name, "%s%s", prefix, tensor);
    found = floats(g, name, n);
    if (found) return found;
    snprintf(name, sizeof name, "%sbase_model.model.%.*s.default.weight", prefix,
             (int)(strlen(tensor) - strlen(".weight")), tensor);
    return floats(g, name, n);
}

static void check_gradients(const Tensor *t, int tensors, const Golden *g, const char *prefix,
                            const char *folder) {
    int checked = 0;
    double worst = 0;
    for (int i = 0; i < tensors; i++) {
        size_t n;
        if (t[i].flags & TENSOR_TIED) continue;
        const float *want = expected_gradient(g, prefix, t[i].name, &n);
        double d = want && n == (size_t)t[i].matrix->O * (size_t)t[i].matrix->I
            ? distance(as_in_files(&t[i]), want, n, 1) : 1e9;
        if (!(d < 1e-4))
            CHECK(0, "%s: %s%s differs by %.2g of its largest entry (1e-4)", folder, prefix, t[i].name, d);
        if (d > worst) worst = d;
        checked++;
    }
    CHECK(checked > 0 && worst < 1e-4, "%s: %d gradients, worst %.2g of the largest entry", folder, checked,
          worst);
}

/* ---- folders written back ---- */

static int json_equal(const Json *a, const Json *b) {
    if (!a || !b || a->type != b->type || a->count != b->count) return 0;
    if (a->type == JSON_NUMBER) return a->number == b->number;
    if (a->type == JSON_STRING) return a->length == b->length && memcmp(a->string, b->string, a->length) == 0;
    for (a = a->child, b = b->child; a; a = a->next, b = b->next) if (!json_equal(a, b)) return 0;
    return 1;
}

/* Compares the tensors of two safetensors files: names, types, shapes and bytes. Returns how many differ. */
static int tensor_differences(const Golden *a, const Golden *b) {
    int wrong = 0;
    for (const Json *j = a->header->child; j; j = j->next) {
        const Json *k = json_get(b->header, j->key);
        size_t n, m;
        if (strcmp(j->key, "__metadata__") == 0) continue;
        if (!k || !json_equal(json_get(j, "dtype"), json_get(k, "dtype"))
            || !json_equal(json_get(j, "shape"), json_get(k, "shape"))) { wrong++; continue; }
        const uint32_t *x = words(a, j->key, &n), *y = words(b, j->key, &m);
        wrong += n != m || memcmp(x, y, n * sizeof *x) != 0;
    }
    return wrong;
}

/* Counts the keys of a configuration that the one written back has not, or has with another value. Version 5
 * of transformers writes dtype and rope_parameters where this project writes the older torch_dtype,
 * rope_theta and rope_scaling, which version 5 reads too. */
static int key_differences(const char *folder, const char *out, const char **first) {
    static const char *const other[] = { "dtype", "rope_parameters", "transformers_version" };
    char path[256], *bytes;
    const Json *config[2] = { NULL, NULL };
    size_t n;
    int wrong = 0;
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/config.json", i ? out : folder);
        if (file_read_all(path, &pool, &bytes, &n, NULL) == OK) config[i] = json_parse(bytes, n, &pool, NULL);
        if (!config[i]) return -1;
    }
    for (const Json *j = config[0]->child; j; j = j->next) {
        int known = 0;
        for (int i = 0; i < 3; i++) known |= strcmp(j->key, other[i]) == 0;
        if (known || json_equal(j, json_get(config[1], j->key))) continue;
        if (!wrong++) *first = j->key;
    }
    return wrong;
}

/* Names a folder to write to. */
static void out_folder(char *out, size_t cap) {
    snprintf(out, cap, "/tmp/rlhf-golden-%08lx", (unsigned long)(time(NULL) * 7919u + clock()) & 0xffffffffu);
}

/* Checks that a folder that was written has the same tensors and keys as the one that was read. Removes the
 * written one. */
static void compare_folders(const char *folder, const char *out) {
    char path[256];
    const char *first = "";
    Golden g[2];
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/model.safetensors", i ? out : folder);
        g[i] = golden_open(path);
    }
    int missing = tensor_differences(&g[0], &g[1]), more = tensor_differences(&g[1], &g[0]);
    int keys = key_differences(folder, out, &first);
    CHECK(missing == 0 && more == 0, "%s: the same tensors written back (%d missing or other, %d more)",
          folder, missing, more);
    CHECK(keys == 0, "%s: the same keys written back (%d are not, as %s)", folder, keys, first);
    snprintf(path, sizeof path, "rm -rf %s", out);
    CHECK(system(path) == 0, "%s is removed", out);
}

#endif
