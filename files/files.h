/* files/files.h - what the files of this room share. Only this room and checkpoint.c see it. */
#ifndef FILES_H
#define FILES_H

#include "../rlhf.h"

/* ---- files/fields.c: paths, complaints, and JSON files that hold one object with fields ---- */
/* of widths, vocabularies, positions: products stay below 2^48 */
#define SIZE_LIMIT (1 << 24)
/* fail() with a text that is composed as by printf; control characters, as a file's names may have,
 * become '?'. Returns code. */
int refuse(Error *err, int code, const char *where, const char *format, ...);
/* Passes on an error of a function that sees bytes and does not know their file: with the file's
 * name. Returns its code. */
int fail_in(Error *err, const Error *inner, const char *path);
/* Returns the path FOLDER/STEM + EXTENSION, in pool; NULL if there is no memory. */
char *path_in(const char *folder, const char *stem, const char *extension, Pool *pool);
/* Reads the file at path into *object. OK; E_FORMAT if it does not hold one JSON object; or what
 * reading or parsing says. */
int json_file(const Json **object, const char *path, Pool *pool, Error *err);
/* Returns 1 and sets *value if j is a whole number from 0 to 2^53, otherwise 0. */
int json_whole(const Json *j, uint64_t *value);
/* Returns F32, BF16 or F16 for PyTorch's names "float32", "bfloat16", "float16", -1 for others; and
 * the name of such a type. */
int dtype_named(const char *name);
const char *torch_dtype(int type);
const char *quant_name(int kind);           /* "nf4" of QUANT_NF4, "fp4" of QUANT_FP4 */

/* An object whose fields are read one by one. The first complaint is kept in `code` (and *err);
 * later ones change nothing. */
typedef struct { const Json *object; const char *path; Error *err; int code; } Fields;
/* Opens FOLDER/NAME. OK, E_MISSING if there is no such file, E_MEMORY, or what json_file
 * returns. */
int fields_open(Fields *f, const char *folder, const char *name, Pool *pool, Error *err);
void complain(Fields *f, int code, const char *what, const char *key);      /* "WHAT 'KEY'" */
const Json *field(const Fields *f, const char *key);    /* NULL if the key is absent or null */
/* Each returns `fallback` for an absent or null key, and complains about a value of another type or
 * outside min .. max. */
double field_real(Fields *f, const char *key, double fallback, double min, double max);
int field_int(Fields *f, const char *key, int fallback, int min, int max);
int field_bool(Fields *f, const char *key, int fallback);
const char *field_text(Fields *f, const char *key, const char *fallback);
int field_id(Fields *f, const char *key, int fallback);         /* a token id; -1 for null */
/* Refuses every text except `only`; the key may be absent. */
void field_must_be(Fields *f, const char *key, const char *only);
/* Refuses by name every value of a feature except absent, null, false, 0, "", [] and {}. */
void field_must_be_off(Fields *f, const char *key);

/* Writing an object, two spaces deep: the caller begins with "{" in b, put_file ends it. */
void put_key(Buffer *b, const char *key);
void put_raw(Buffer *b, const char *key, const char *json);                 /* json as it is */
void put_int(Buffer *b, const char *key, long long v);
void put_bool(Buffer *b, const char *key, int v);
void put_text(Buffer *b, const char *key, const char *text);
void put_id(Buffer *b, const char *key, int id);                            /* null for -1 */
void put_real(Buffer *b, const char *key, double x, int single);            /* buffer_real */
/* Appends the shortest decimal that is read back as exactly x (single: as the float x), with a
 * point or an exponent. */
void buffer_real(Buffer *b, double x, int single);
/* Closes the object and writes FOLDER/NAME. OK or a code. */
int put_file(Buffer *b, const char *folder, const char *name, Error *err);

/* ---- files/config.c: the table of families ---- */
/* of the family's tensors; NULL: no such family */
/* Writes into out (cap bytes) the k-th other name, from 0 on, under which files may hold the tensor
 * `name`; *paired: 1 if the rows of each head are in Meta's order there. Returns 0 if there is no
 * k-th, or if it is too long. */
int family_name(char *out, size_t cap, const char *name, int k, int *paired);

/* ---- files/torch.c: PyTorch's checkpoint files: which tensors they hold, and where in the file
 * ---- */
enum { TORCH_DIMS = 4 };
typedef struct {
    const char *name;    /* as in the state dict, "model.layers.0.self_attn.q_proj.weight" */
    int dtype;                      /* F32, F16, BF16; -1: another type, or more than TORCH_DIMS
                                     * dimensions: such a tensor cannot be read */
    int dims; uint64_t shape[TORCH_DIMS], stride[TORCH_DIMS];   /* strides in elements: any */
    uint64_t at, elements;    /* of its storage: the byte in the file where it begins; its size */
    uint64_t first;                 /* element of the storage where the tensor begins */
} TorchTensor;
typedef struct { TorchTensor *tensor; int tensors; } TorchFile; /* sorted by name, each name once */
/* Reads the names and places in a zip file (torch >= 1.6) or a legacy file; the state dict may be
 * nested in "model", "state_dict" or "module". Checks that every view lies within its storage and
 * every storage within the file. OK, or a code, *err naming what is refused (`where` is no path:
 * the caller knows it) and *t all zeros. Takes at most 100 times the bytes of the file's pickle
 * from pool. */
int torch_index(TorchFile *t, File *f, Pool *pool, Error *err);
/* Reads elements `from` .. from+n-1 of the tensor in row-major order into out (n), as floats. Fast
 * if the tensor is contiguous; of a transposed matrix, best many whole rows at once. OK,
 * E_UNSUPPORTED (dtype -1), E_RANGE, E_READ ... */
int torch_read(f32 *out, const TorchTensor *t, File *f, uint64_t from, size_t n, Error *err);

/* ---- checkpoint.c, config.c: how a file stores one tensor ---- */
typedef struct {
    /* F32, BF16, F16, -1: another; NF4: dtype is what was quantised */
    int type, dtype;
    int kind, block, doubled;               /* of NF4 */
    int rank; uint64_t shape[2];            /* the first two sizes; of NF4: of the weight */
    uint64_t bytes;                         /* in the file; of NF4 with its scales */
} Storage;
/* Finds out from the files' headers alone how tensor `name` is stored. OK or a code. */
int checkpoint_storage(Storage *s, const char *folder, const char *stem, const char *name,
                       Pool *pool, Error *err);
/* Reads config.json's quantization_config (bitsandbytes, 4 bits): layers NF4, kind, doubled,
 * compute, and block 64, of which the file says nothing; all zeros if there is none. config_load
 * refuses other methods. */
int config_quantization(WeightTypes *w, const char *folder, Pool *pool, Error *err);

#endif
