/* files/fields.c - reads and writes the fields of small files that hold one JSON object, such as config.json.
 * Source   RFC 8259; the layout is that of Python's json.dumps(indent=2).
 * Needs    core, io; a pool for paths and parsed text. <stdio.h> for snprintf only.
 * Never    guesses: a field of another type or outside its limits is a complaint that names the file and the
 *          key.
 * Edges    null counts as absent, as in Hugging Face's classes. After a complaint the functions still return
 *          a value, so that a reader may go on, and look at `code` once, at the end. */
#include "files.h"
#include <stdarg.h>
#include <stdio.h>

#define EXACT_MAX 9007199254740992.0            /* 2^53: JSON integers are exact up to this one */

int refuse(Error *err, int code, const char *where, const char *format, ...) {
    char what[160];
    va_list list;
    va_start(list, format);
    vsnprintf(what, sizeof what, format, list);
    va_end(list);
    for (char *c = what; *c; c++) if ((unsigned char)*c < ' ' || *c == 127) *c = '?';
    return fail(err, code, what, where, 0, 0);
}

int fail_in(Error *err, const Error *inner, const char *path) {
    fail(err, inner->code, inner->what, path, inner->got, inner->wanted);
    advise(err, inner->advice);
    return inner->code;
}

#define HTML "a page of HTML, not the file itself", \
             "download the file: on Hugging Face its address has /resolve/ where the page's has /blob/"
int recognise(Error *err, const char *path, const void *bytes, size_t n) {
    static const struct { const char *begin; size_t n; const char *what, *advice; } stranger[] = {
        { GIT_LFS },
        { "<!doctype html", 14, HTML }, { "<html", 5, HTML },
        { "\x1f\x8b", 2, "a gzip file", "unpack it first: gunzip FILE, or tar xzf FILE" },
        { "GGUF", 4, "a GGUF file, llama.cpp's format",
          "the folder that it was made from, with config.json and model.safetensors" },
        { "PK\3\4", 4, "a zip file, as torch.save writes it", "call it pytorch_model.bin" },
        { "\x80\2\x8a\nl\xfc\x9c", 7, "an older file of torch.save", "call it pytorch_model.bin" },
    };
    const char *text = bytes;
    while (n && (*text == '\n' || *text == ' ' || *text == '\r' || *text == '\t')) { text++; n--; }
    for (size_t i = 0; i < sizeof stranger / sizeof *stranger; i++) {
        size_t k = 0;
        while (k < stranger[i].n && k < n && (text[k] == stranger[i].begin[k]
               || (text[k] >= 'A' && text[k] <= 'Z' && text[k] + 32 == stranger[i].begin[k]))) k++;
        if (k < stranger[i].n) continue;
        fail(err, E_FORMAT, stranger[i].what, path, 0, 0);
        advise(err, stranger[i].advice);
        return 1;
    }
    return 0;
}

char *path_in(const char *folder, const char *stem, const char *extension, Pool *pool) {
    size_t a = strlen(folder), b = strlen(stem), c = strlen(extension), slash = a && folder[a - 1] != '/';
    char *path = pool_take(pool, a + b + c + 2, 1);
    if (!path) return NULL;
    memcpy(path, folder, a);
    if (slash) path[a] = '/';
    memcpy(path + a + slash, stem, b);
    memcpy(path + a + slash + b, extension, c);     /* the pool is zeroed: a NUL follows */
    return path;
}

int dtype_named(const char *name) {
    return strcmp(name, "float32") == 0 ? F32 : strcmp(name, "bfloat16") == 0 ? BF16
        : strcmp(name, "float16") == 0 ? F16 : -1;
}
const char *torch_dtype(int type) { return type == BF16 ? "bfloat16" : type == F16 ? "float16" : "float32"; }
const char *quant_name(int kind) { return kind == QUANT_NF4 ? "nf4" : "fp4"; }

/* ---- reading ---- */

int json_file(const Json **object, const char *path, Pool *pool, Error *err) {
    Error inner;
    char *text;
    size_t n;
    int code = file_read_all(path, pool, &text, &n, err);
    memset(&inner, 0, sizeof inner);
    if (code != OK) return code;
    *object = json_parse(text, n, pool, &inner);
    if (!*object && inner.code != E_MEMORY && recognise(err, path, text, n)) return E_FORMAT;
    if (!*object) return fail_in(err, &inner, path);
    return (*object)->type == JSON_OBJECT ? OK : fail(err, E_FORMAT, "not a JSON object", path, 0, 0);
}

int json_whole(const Json *j, uint64_t *value) {
    if (!j || j->type != JSON_NUMBER || !(j->number >= 0 && j->number <= EXACT_MAX)
        || floor(j->number) != j->number) return 0;
    *value = (uint64_t)j->number;
    return 1;
}

int fields_open(Fields *f, const char *folder, const char *name, Pool *pool, Error *err) {
    memset(f, 0, sizeof *f);
    f->err = err;
    f->path = path_in(folder, name, "", pool);
    if (!f->path) return fail(err, E_MEMORY, "memory for a configuration", folder, 0, 0);
    if (!file_exists(f->path)) return fail(err, E_MISSING, "no such file", f->path, 0, 0);
    return json_file(&f->object, f->path, pool, err);
}

void complain(Fields *f, int code, const char *what, const char *key) {
    if (f->code == OK) f->code = refuse(f->err, code, f->path, "%s '%s'", what, key);
}

const Json *field(const Fields *f, const char *key) {
    const Json *j = json_get(f->object, key);
    return j && j->type != JSON_NULL ? j : NULL;
}

double field_real(Fields *f, const char *key, double fallback, double min, double max) {
    const Json *j = field(f, key);
    if (!j) return fallback;
    if (j->type != JSON_NUMBER) { complain(f, E_FORMAT, "not a number:", key); return fallback; }
    if (!(j->number >= min && j->number <= max)) { complain(f, E_RANGE, "out of range:", key);
        return fallback; }
    return j->number;
}

int field_int(Fields *f, const char *key, int fallback, int min, int max) {
    double x = field_real(f, key, fallback, min, max);
    if (floor(x) != x) { complain(f, E_FORMAT, "not a whole number:", key); return fallback; }
    return (int)x;
}

int field_bool(Fields *f, const char *key, int fallback) {
    const Json *j = field(f, key);
    if (!j) return fallback;
    if (j->type != JSON_TRUE && j->type != JSON_FALSE) complain(f, E_FORMAT, "neither true nor false:", key);
    return j->type == JSON_TRUE;
}

const char *field_text(Fields *f, const char *key, const char *fallback) {
    const Json *j = field(f, key);
    if (!j) return fallback;
    if (j->type != JSON_STRING) { complain(f, E_FORMAT, "not a string:", key); return fallback; }
    return j->string;
}

int field_id(Fields *f, const char *key, int fallback) {
    return json_get(f->object, key) ? field_int(f, key, -1, -1, INT_MAX - 1) : fallback;
}

void field_must_be(Fields *f, const char *key, const char *only) {
    const char *value = field_text(f, key, only);
    if (f->code == OK && strcmp(value, only) != 0)
        f->code = refuse(f->err, E_UNSUPPORTED, f->path, "%s '%.64s'", key, value);
}

void field_must_be_off(Fields *f, const char *key) {
    const Json *j = field(f, key);
    if (!j || j->type == JSON_FALSE || (j->type == JSON_NUMBER && j->number == 0)
        || (j->type == JSON_STRING && !j->length) || ((j->type == JSON_ARRAY || j->type == JSON_OBJECT)
                                                      && !j->count)) return;
    complain(f, E_UNSUPPORTED, "not supported:", key);
}

/* ---- writing ---- */

void buffer_real(Buffer *b, double x, int single) {
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

void put_key(Buffer *b, const char *key) {
    buffer_text(b, b->length <= 1 ? "\n  " : ",\n  ");          /* no comma after "{" */
    buffer_json_string(b, key, strlen(key));
    buffer_text(b, ": ");
}
void put_raw(Buffer *b, const char *key, const char *json) { put_key(b, key); buffer_text(b, json); }
void put_int(Buffer *b, const char *key, long long v) { put_key(b, key); buffer_integer(b, v); }
void put_bool(Buffer *b, const char *key, int v) { put_raw(b, key, v ? "true" : "false"); }
void put_text(Buffer *b, const char *key, const char *text) { put_key(b, key);
    buffer_json_string(b, text, strlen(text)); }
void put_id(Buffer *b, const char *key, int id) { if (id < 0) put_raw(b, key, "null");
    else put_int(b, key, id); }
void put_real(Buffer *b, const char *key, double x, int single) { put_key(b, key); buffer_real(b, x, single);
    }

int put_file(Buffer *b, const char *folder, const char *name, Error *err) {
    const char *path = path_in(folder, name, "", b->pool);
    buffer_text(b, "\n}\n");
    if (b->failed || !path) return fail(err, E_MEMORY, "memory for a configuration", folder, 0, 0);
    return file_write_all(path, b->data, b->length, b->pool, err);
}
