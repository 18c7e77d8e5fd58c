/* files/files.h - what the files of this folder share. Only they, checkpoint.c
 * and tests include it. */
#ifndef FILES_H
#define FILES_H

#include "../rlhf.h"

/* ---- files/fields.c: paths, complaints, and JSON files that hold one object with fields ---- */
/* the limit of widths, vocabularies, positions: the product of two is at most 2^48 */
#define SIZE_LIMIT (1 << 24)
/* Calls fail() with a text that is formatted as by printf. Control characters, which the names in a
 * file may have, become '?'. Returns code. */
int refuse(Error *err, int code, const char *where, const char *format, ...);
/* Records `inner`, the error of a function that does not know its file, with the file's path.
 * Returns its code. */
int fail_in(Error *err, const Error *inner, const char *path);
enum { STRANGER_BYTES = 64 };               /* recognise needs no more bytes */
/* If the first n bytes of a file show that it is something that users take for another file (a page
 * of HTML, a pointer of Git LFS, a gzip file ...), records that as an error with advice, and returns
 * 1. Else returns 0. */
int recognise(Error *err, const char *path, const void *bytes, size_t n);
/* The advice for an adapter that is not supported here. */
#define MERGE_ADVICE "merge the adapter into its base (`run merge`, or if that refuses it, too, in " \
                     "peft: merge_and_unload, save_pretrained) and use the whole model"
/* Returns the path FOLDER/STEM + EXTENSION, in pool; NULL if there is no memory. */
char *path_in(const char *folder, const char *stem, const char *extension, Pool *pool);
/* Reads a file that holds one JSON object into *object. OK, E_FORMAT if it holds something else, or
 * the code of reading or parsing. */
int json_file(const Json **object, const char *path, Pool *pool, Error *err);
/* Returns 1 and sets *value if j is a whole number from 0 to 2^53, otherwise 0. */
int json_whole(const Json *j, uint64_t *value);
/* Returns F32, BF16 or F16 for PyTorch's names "float32", "bfloat16", "float16"; -1 for others. */
int dtype_named(const char *name);
const char *torch_dtype(int type);          /* returns PyTorch's name of F32, BF16 or F16 */
const char *quant_name(int kind);           /* returns "nf4" for QUANT_NF4, "fp4" for QUANT_FP4 */

/* A JSON object whose fields are read one by one. The first complaint is kept in `code` and *err;
 * later complaints are ignored. */
typedef struct { const Json *object; const char *path; Error *err; int code; } Fields;
/* Reads FOLDER/NAME into *f. OK, E_MISSING if there is no such file, E_MEMORY, or
 * a code of json_file. */
int fields_open(Fields *f, const char *folder, const char *name, Pool *pool, Error *err);
/* Records the complaint "WHAT 'KEY'". */
void complain(Fields *f, int code, const char *what, const char *key);
/* Returns the value of a key, or NULL if the key is absent or null. */
const Json *field(const Fields *f, const char *key);
/* The next five return the value of a key, or `fallback` if the key is absent or null. They
 * complain about a value of another type, or outside min .. max. */
double field_real(Fields *f, const char *key, double fallback, double min, double max);
int field_int(Fields *f, const char *key, int fallback, int min, int max);
int field_bool(Fields *f, const char *key, int fallback);
const char *field_text(Fields *f, const char *key, const char *fallback);
int field_id(Fields *f, const char *key, int fallback);     /* for a token id: null returns -1 */
/* Complains about every value except the text `only`; the key may be absent. */
void field_must_be(Fields *f, const char *key, const char *only);
/* Complains about a feature that is not off; off are null, false, 0, "", [],
 * {} and an absent key. */
void field_must_be_off(Fields *f, const char *key);

/* Writing a JSON object, indented by two spaces: the caller puts "{" into b, put_file ends the
 * object, and each of these functions writes one field. */
void put_key(Buffer *b, const char *key);                               /* writes the key alone */
void put_raw(Buffer *b, const char *key, const char *json);             /* json: any JSON text */
void put_int(Buffer *b, const char *key, long long v);
void put_bool(Buffer *b, const char *key, int v);
void put_text(Buffer *b, const char *key, const char *text);
void put_id(Buffer *b, const char *key, int id);                        /* writes null for -1 */
void put_real(Buffer *b, const char *key, double x, int single);        /* uses buffer_real */
/* Appends the shortest decimal number that is read back as exactly x (single 1: as the float x). It
 * has a point or an exponent. */
void buffer_real(Buffer *b, double x, int single);
/* Ends the object and writes it to FOLDER/NAME. OK or a code. */
int put_file(Buffer *b, const char *folder, const char *name, Error *err);

/* ---- files/families.c: the table of families ---- */
/* Writes to out (cap bytes) the k-th other name (k >= 0) that files use for the tensor `name`. Sets
 * *paired to 1 if the rows of each head are in Meta's order in such files. Returns 0 if there is no
 * k-th name, or if it is too long for out. */
int family_name(char *out, size_t cap, const char *name, int k, int *paired);
/* Returns 1 if a model, one of whose tensors is called `own`, does not need the tensor `name` of its
 * files: a buffer that is computed, or the head of another class. */
int family_spares(const char *own, const char *name);

/* ---- files/torch.c: the tensors of PyTorch's checkpoint files, and their places ---- */
enum { TORCH_DIMS = 4 };
typedef struct {
    const char *name;               /* the key in the state dict, such as "lm_head.weight" */
    int dtype;                      /* F32, F16, BF16; -1: another type, or more than TORCH_DIMS
                                     * dimensions: such a tensor cannot be read */
    int dims; uint64_t shape[TORCH_DIMS], stride[TORCH_DIMS];   /* strides: any, in elements */
    uint64_t at, elements;          /* the storage: byte of the file where it begins; its size */
    uint64_t first;                 /* element of the storage where the tensor begins */
} TorchTensor;
typedef struct { TorchTensor *tensor; int tensors; } TorchFile; /* sorted by name, each name once */
/* Lists the tensors of a zip file (torch >= 1.6) or a legacy file. The state dict may be a value of
 * another dict, with the key "model", "state_dict" or "module". Checks that every tensor is inside
 * its storage and every storage inside the file. Takes from pool at most 100 times the bytes of the
 * file's pickle. Returns OK, or a code: then *t is all zeros, and *err names what was refused
 * (without the path, which the caller knows). */
int torch_index(TorchFile *t, File *f, Pool *pool, Error *err);
/* Reads the tensor's n elements from `from` on, in row-major order, into out (n) as floats. This is
 * fast if the tensor is contiguous; of a transposed matrix, read many whole rows at once. Returns
 * OK, E_UNSUPPORTED (dtype -1), E_RANGE, E_READ ... */
int torch_read(f32 *out, const TorchTensor *t, File *f, uint64_t from, size_t n, Error *err);

/* ---- checkpoint.c, config.c: how a file stores one tensor ---- */
typedef struct {
    int type, dtype;    /* type: F32, BF16, F16, NF4, or -1 for others; dtype: the same, but for NF4
                         * the type of the weights before they were quantised */
    int kind, block, doubled;               /* set for NF4: see WeightTypes */
    int rank; uint64_t shape[2];            /* the weight's dimensions, and the first two sizes */
    uint64_t bytes;                         /* in the file; for NF4 with scales and tables */
} Storage;
/* Finds out from the files' headers alone how tensor `name` is stored. OK or a code. */
int checkpoint_storage(Storage *s, const char *folder, const char *stem, const char *name,
                       Pool *pool, Error *err);
/* Reads quantization_config (bitsandbytes, 4 bits) from config.json. Sets w->layers to NF4, kind,
 * doubled, compute, and block to 64, which the file does not give; *w is all zeros if there is no
 * quantization_config. Refuses other methods. OK or a code. */
int config_quantization(WeightTypes *w, const char *folder, Pool *pool, Error *err);

#endif
