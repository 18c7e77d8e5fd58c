/* torch_files.h - writes PyTorch checkpoint files of both containers, opcode by opcode, as torch.save does
 * (or, if a test asks for it, as it does not). The sample holds one of every kind of tensor that a state dict
 * may have. For tests/unit/torch.c and tests/fuzz. */
#ifndef TORCH_FILES_H
#define TORCH_FILES_H
#include "test.h"

/* ---- pickles ---- */
static inline void pickle_text(Buffer *b, const char *s) {
    buffer_u8(b, 'X');
    buffer_u32(b, (uint32_t)strlen(s));
    buffer_text(b, s);
}
static inline void pickle_int(Buffer *b, long long v) {
    if (v >= 0 && v < 256) { buffer_u8(b, 'K'); buffer_u8(b, (unsigned)v); }
    else if (v >= 0 && v < 65536) { buffer_u8(b, 'M'); buffer_u16(b, (unsigned)v); }
    else if (v >= -2147483647 && v <= 2147483647) { buffer_u8(b, 'J'); buffer_u32(b, (uint32_t)v); }
    /* LONG1 of 7 bytes */
    else { buffer_u8(b, 0x8a); buffer_u8(b, 7); buffer_u64(b, (uint64_t)v); b->length--; }
}
static inline void pickle_global(Buffer *b, const char *module, const char *name) {
    buffer_u8(b, 'c'); buffer_text(b, module); buffer_u8(b, '\n'); buffer_text(b, name); buffer_u8(b, '\n');
}
static inline void pickle_storage(Buffer *b, const char *type, const char *key, long long elements,
                                  int legacy) {
    buffer_u8(b, '(');
    pickle_text(b, "storage");
    pickle_global(b, "torch", type);
    pickle_text(b, key);
    pickle_text(b, "cpu");
    pickle_int(b, elements);
    if (legacy) buffer_u8(b, 'N');
    buffer_text(b, "tQ");
}
static inline void pickle_sizes(Buffer *b, int dims, const long long *size) {
    buffer_u8(b, '(');
    for (int d = 0; d < dims; d++) pickle_int(b, size[d]);
    buffer_u8(b, 't');
}
/* A tensor as a pickle describes it: of a storage with so many elements, from element `first` on. */
typedef struct {
    const char *type, *key; long long elements, first; int dims; const long long *size, *stride; int legacy;
} PickledTensor;
/* Writes _rebuild_tensor_v2(storage, first, sizes, strides, False, OrderedDict()). */
static inline void pickle_tensor(Buffer *b, PickledTensor t) {
    pickle_global(b, "torch._utils", "_rebuild_tensor_v2");
    buffer_u8(b, '(');
    pickle_storage(b, t.type, t.key, t.elements, t.legacy);
    pickle_int(b, t.first);
    pickle_sizes(b, t.dims, t.size);
    pickle_sizes(b, t.dims, t.stride);
    buffer_u8(b, 0x89);
    pickle_global(b, "collections", "OrderedDict");
    buffer_text(b, ")RtR");
}

/* ---- the sample: names, places, and the value of element i in row-major order ---- */
typedef struct { const char *name, *type, *key; int elements, first, dims; long long size[5], stride[5];
    } Sample;
static const Sample sample[] = {
    { "a.weight", "FloatStorage", "0", 8, 2, 2, { 2, 3 }, { 3, 1 } },
    { "a.transposed", "FloatStorage", "0", 8, 2, 2, { 3, 2 }, { 1, 3 } },              /* the same storage */
    { "b.scalar", "HalfStorage", "1", 1, 0, 0, { 0 }, { 0 } },
    { "c.four", "BFloat16Storage", "2", 9, 1, 4, { 2, 1, 2, 2 }, { 4, 4, 2, 1 } },
    { "c.slice", "BFloat16Storage", "2", 9, 1, 2, { 2, 2 }, { 4, 2 } },                 /* x[:, ::2] */
    { "d.longs", "LongStorage", "3", 3, 0, 1, { 3 }, { 1 } },
    { "e.expanded", "FloatStorage", "0", 8, 6, 2, { 4, 2 }, { 0, 1 } },
    { "f.empty", "FloatStorage", "4", 0, 0, 2, { 0, 5 }, { 5, 1 } },
    { "g.five", "FloatStorage", "0", 8, 0, 5, { 1, 1, 2, 2, 2 }, { 8, 8, 4, 2, 1 } },
    { "h.permuted", "FloatStorage", "0", 8, 0, 3, { 2, 2, 2 }, { 1, 4, 2 } },
    { "i.half", "HalfStorage", "5", 6, 0, 2, { 3, 2 }, { 2, 1 } },
};
enum { SAMPLES = sizeof sample / sizeof *sample, STORAGES = 6 };
static const struct { int elements, width; } sample_storage[STORAGES] = { { 8, 4 }, { 1, 2 }, { 9, 2 },
    { 3, 8 }, { 0, 4 }, { 6, 2 } };

/* Returns element e of the sample's storages 0 and 2; below, of its half-precision storages. */
static inline float sample_float(int e) { return 1.5f * (float)e - 3; }
static inline unsigned sample_bf16(int e) { return 0x3F80u + 0x23u * (unsigned)e; }
static inline unsigned sample_half(int e) {
    static const unsigned h[] = { 0x3555, 1, 0x7BFF, 0x8400, 0, 0xC000 };
    return h[e];
}

static inline void pickle_elements(Buffer *b, int storage) {
    for (int e = 0; e < sample_storage[storage].elements; e++) {
        float x = sample_float(e);
        uint32_t u;
        memcpy(&u, &x, 4);
        if (sample_storage[storage].width == 4) buffer_u32(b, u);
        else if (sample_storage[storage].width == 8) buffer_u64(b, (uint64_t)e);
        else buffer_u16(b, storage == 2 ? sample_bf16(e) : sample_half(e));
    }
}

/* Writes a state dict as modules have it: an OrderedDict with other values between the tensors, and _metadata
 * at its end. wrap not NULL: inside {"epoch": .., wrap: ..}, and the first tensor is a Parameter. */
static inline void pickle_sample(Buffer *b, int legacy, const char *wrap) {
    buffer_bytes(b, "\x80\2", 2);
    if (wrap) {
        buffer_bytes(b, "}q\0(", 4);
        pickle_text(b, "epoch");
        pickle_int(b, -70000);
        pickle_text(b, "optimizer");
        buffer_text(b, "](K\1K\2e");
        pickle_text(b, wrap);
    }
    pickle_global(b, "collections", "OrderedDict");
    buffer_bytes(b, ")Rq\1(", 5);
    for (int i = 0; i < SAMPLES; i++) {
        const Sample *s = &sample[i];
        pickle_text(b, s->name);
        if (wrap && i == 0) { pickle_global(b, "torch._utils", "_rebuild_parameter"); buffer_u8(b, '('); }
        pickle_tensor(b, (PickledTensor){ s->type, s->key, s->elements, s->first, s->dims, s->size, s->stride,
            legacy });
        if (wrap && i == 0) {
            buffer_u8(b, 0x88);
            pickle_global(b, "collections", "OrderedDict");
            buffer_text(b, ")RtR");
        }
        if (i == 3) {
            pickle_text(b, "step");
            pickle_int(b, 1ll << 40);
            pickle_text(b, "lr");
            buffer_bytes(b, "G\x3f\xf0\0\0\0\0\0\0", 9);
        }
        if (i == 5) {
            pickle_text(b, "note");
            pickle_text(b, "none");
            pickle_text(b, "nothing");
            buffer_u8(b, 'N');
            pickle_int(b, 7);
            buffer_u8(b, 0x88);
        }
    }
    buffer_u8(b, 'u');
    buffer_u8(b, '}');
    pickle_text(b, "_metadata");
    pickle_global(b, "collections", "OrderedDict");
    buffer_text(b, ")Rsb");
    if (wrap) buffer_u8(b, 'u');
    buffer_u8(b, '.');
}

/* ---- zip ---- */
/* big: sizes and offsets are in zip64's extra fields */
typedef struct { Buffer body, directory; unsigned count, method; int big; } ZipWriter;
static inline void zip_add(ZipWriter *z, const char *name, const void *bytes, size_t n) {
    size_t at = z->body.length, length = strlen(name), pad;
    Buffer *b = &z->body, *d = &z->directory;
    pad = (64 - (at + 30 + length + 4) % 64) % 64;
    buffer_u32(b, 0x04034b50); buffer_u16(b, 0); buffer_u16(b, 0x0808); buffer_u16(b, z->method);
    for (int i = 0; i < 4; i++) buffer_u32(b, 0);    /* time and date, checksum, sizes */
    buffer_u16(b, (unsigned)length); buffer_u16(b, (unsigned)pad + 4); buffer_text(b, name);
    buffer_text(b, "FB"); buffer_u16(b, (unsigned)pad);
    for (size_t i = 0; i < pad; i++) buffer_u8(b, 'Z');
    buffer_bytes(b, bytes, n);
    buffer_u32(b, 0x08074b50); buffer_u32(b, 0); buffer_u32(b, (uint32_t)n); buffer_u32(b, (uint32_t)n);
    buffer_u32(d, 0x02014b50); buffer_u32(d, 0); buffer_u16(d, 0x0808); buffer_u16(d, z->method);
        buffer_u64(d, 0);
    buffer_u32(d, z->big ? 0xFFFFFFFFu : (uint32_t)n); buffer_u32(d, z->big ? 0xFFFFFFFFu : (uint32_t)n);
    buffer_u16(d, (unsigned)length); buffer_u16(d, z->big ? 28 : 0); buffer_u16(d, 0); buffer_u64(d, 0);
    buffer_u32(d, z->big ? 0xFFFFFFFFu : (uint32_t)at); buffer_text(d, name);
    if (z->big) {
        buffer_u16(d, 1);
        buffer_u16(d, 24);
        buffer_u64(d, n);
        buffer_u64(d, n);
        buffer_u64(d, at);
    }
    z->count++;
}
/* Appends the directory, the zip64 record with its locator, and the end record: then the body is the file. */
static inline void zip_finish(ZipWriter *z) {
    Buffer *b = &z->body;
    size_t at = b->length, n = z->directory.length;
    buffer_bytes(b, z->directory.data, n);
    buffer_u32(b, 0x06064b50); buffer_u64(b, 44); buffer_u32(b, 0); buffer_u64(b, 0);
    buffer_u64(b, z->count); buffer_u64(b, z->count); buffer_u64(b, n); buffer_u64(b, at);
    buffer_u32(b, 0x07064b50); buffer_u32(b, 0); buffer_u64(b, at + n); buffer_u32(b, 1);
    buffer_u32(b, 0x06054b50); buffer_u32(b, 0); buffer_u16(b, z->count); buffer_u16(b, z->count);
    buffer_u32(b, z->big ? 0xFFFFFFFFu : (uint32_t)n); buffer_u32(b, z->big ? 0xFFFFFFFFu : (uint32_t)at);
        buffer_u16(b, 0);
}
static inline void zip_start(ZipWriter *z, Pool *pool) {
    memset(z, 0, sizeof *z);
    z->body.pool = z->directory.pool = pool;
}

/* Writes a zip with `pickle` and the sample's storages. endian NULL: without a byteorder entry. */
static inline void pickle_zip(Buffer *out, const Buffer *pickle, const char *endian, int big, Pool *pool) {
    ZipWriter z;
    char name[32] = "archive/data/0";
    zip_start(&z, pool);
    z.big = big;
    zip_add(&z, "archive/data.pkl", pickle->data, pickle->length);
    if (endian) zip_add(&z, "archive/byteorder", endian, strlen(endian));
    for (int i = 0; i < STORAGES; i++) {
        Buffer b = { NULL, NULL, 0, 0, 0 };
        b.pool = pool;
        pickle_elements(&b, i);
        name[13] = (char)('0' + i);
        zip_add(&z, name, b.data, b.length);
    }
    zip_add(&z, "archive/version", "3\n", 2);
    zip_finish(&z);
    *out = z.body;
}

/* ---- legacy ---- */
static inline void pickle_legacy(Buffer *b, const Buffer *pickle, int little) {
    char key[2] = "0";
    buffer_bytes(b, "\x80\2\x8a\n\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);
    buffer_bytes(b, "\x80\2M\xe9\3.", 6);
    buffer_bytes(b, "\x80\2}q\0(", 6);
    pickle_text(b, "protocol_version"); pickle_int(b, 1001);
    pickle_text(b, "little_endian"); buffer_u8(b, little ? 0x88 : 0x89);
    buffer_text(b, "u.");
    buffer_bytes(b, pickle->data, pickle->length);
    buffer_bytes(b, "\x80\2](", 4);
    for (int i = 0; i < STORAGES; i++) { key[0] = (char)('0' + i); pickle_text(b, key); }
    buffer_text(b, "e.");
    for (int i = 0; i < STORAGES; i++) {
        buffer_u64(b, (uint64_t)sample_storage[i].elements);
        pickle_elements(b, i);
    }
}
#endif
