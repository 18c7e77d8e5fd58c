/* base.h - what all other files use: errors, memory, bytes, JSON and random streams (core.c), files
 * (io.c), threads (fast/threads.c). rlhf.h includes it. To read the other files, it is enough to
 * know its first four structs: Error, Arena, Pool, Rng. */
#ifndef BASE_H
#define BASE_H

#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef float f32;      /* stays 32 bits wide while the gradient test compiles float as double */
#ifdef F64              /* the gradient test: the same source in double (tests/unit/grad.c) */
#define float double
#define fabsf fabs
#define sqrtf sqrt
#endif

enum { OK = 0,
    E_ARGUMENT,                     /* the caller asked for something that makes no sense */
    E_OPEN, E_READ, E_WRITE,        /* the operating system refused */
    E_FORMAT, E_TRUNCATED,          /* wrong bytes; bytes that end too early */
    E_RANGE, E_SHAPE,               /* a number outside its limits; a tensor of another shape */
    E_MISSING,                      /* a required tensor, file, key or token is not there */
    E_UNSUPPORTED,                  /* a known feature that is not supported: `what` names it */
    E_MEMORY,                       /* an arena, pool or workspace is too small */
    E_NUMBER                        /* a NaN or an infinity */
};
/* A function that returns an int returns OK (0) or an E_ code; one that returns a pointer returns
 * NULL on failure; an Error *err says why. Functions that have neither can fail only in their arena
 * or workspace: look at its `failed` afterwards. */
/* The record of an error; only programs print it (cli.c: die). got == wanted: there are no numbers.
 * advice: what the user can do about it, or NULL: then the program that prints it chooses. */
typedef struct { int code; char what[200], where[256]; long long got, wanted;
                 const char *advice; } Error;
/* An arena is one block of memory of a fixed size. With base NULL it only measures the size that is
 * needed. A workspace (ws) is an arena used as a stack: w = ws->used; take ...; ws->used = w. */
typedef struct { unsigned char *base; size_t used, capacity, peak; int failed; } Arena;
/* A pool is memory that grows, for parsed files. Its blocks are the program's: source returns a new
 * block or NULL, sink frees a block (cli_pool: malloc, free). total: bytes of all blocks. */
typedef struct PoolBlock PoolBlock;
typedef struct { void *(*source)(size_t bytes); void (*sink)(void *block);
                 PoolBlock *first, *current; size_t total; } Pool;
typedef struct { uint64_t state; } Rng;     /* splitmix64: the same bits on every machine */

/* ==== core.c: errors, memory, bytes, UTF-8, JSON, random streams; without stdio and heap ==== */
/* Fills *err, unless err is NULL, and returns code. If *err holds an error already, that error is
 * kept, because the first error is the cause. */
int fail(Error *err, int code, const char *what, const char *where, long long got,
         long long wanted);
/* Adds advice, a text that stays, to the error that is in *err. Earlier advice is kept. */
void advise(Error *err, const char *advice);

/* Returns count * size bytes, not cleared, at a multiple of 64 from base; NULL while
 * measuring. If they do not fit, returns NULL and sets a->failed, for good. a->peak: the
 * largest `used` so far. */
void *arena_take(Arena *a, size_t count, size_t size);

struct PoolBlock { PoolBlock *next; size_t used, capacity; };      /* the block's bytes follow it */
typedef struct { PoolBlock *block; size_t used; } PoolMark;
/* Returns count * size zeroed bytes, 16-byte aligned; NULL if memory is out or
 * the size overflows. */
void *pool_take(Pool *p, size_t count, size_t size);
char *pool_text(Pool *p, const char *text, size_t length);  /* returns a copy with a NUL, or NULL */
PoolMark pool_mark(const Pool *p);              /* returns the current end of the pool */
void pool_release(Pool *p, PoolMark mark);      /* frees what was taken since the mark */
void pool_free(Pool *p);                        /* frees every block, by sink */

/* A buffer is an array of bytes that grows in a pool. If memory is out, `failed` is set for good:
 * check it once, at the end. Integers are little-endian, in buffers and readers. */
typedef struct { Pool *pool; unsigned char *data; size_t length, capacity; int failed; } Buffer;
void buffer_bytes(Buffer *b, const void *bytes, size_t n);      /* appends n bytes */
void buffer_u8(Buffer *b, unsigned v);                          /* appends the lowest 8 bits */
void buffer_u16(Buffer *b, unsigned v);                         /* appends the lowest 16 bits */
void buffer_u32(Buffer *b, uint32_t v);                         /* appends 4 bytes */
void buffer_u64(Buffer *b, uint64_t v);                         /* appends 8 bytes */
void buffer_text(Buffer *b, const char *text);                  /* appends text without its NUL */
void buffer_integer(Buffer *b, long long v);                    /* appends decimal digits */
/* Appends a JSON string with quotes and escapes; invalid UTF-8 becomes U+FFFD. */
void buffer_json_string(Buffer *b, const char *text, size_t length);

/* A reader reads bytes one after another. A read past `end` sets `bad`; from then on every read
 * returns 0 or NULL. */
typedef struct { const unsigned char *at, *end; int bad; } Reader;
unsigned read_u8(Reader *r);                                    /* each returns the next number */
unsigned read_u16(Reader *r);
uint32_t read_u32(Reader *r);
uint64_t read_u64(Reader *r);
const unsigned char *read_bytes(Reader *r, uint64_t n);         /* returns the next n bytes */

/* Decodes the character at s (n > 0 bytes are left) into *code and returns its length, 1 to 4. If
 * it is malformed (overlong, surrogate, above 10FFFF, truncated), *code is -1 and the length 1. */
int utf8_decode(const char *s, size_t n, int32_t *code);
int utf8_valid(const char *s, size_t n);    /* returns 1 if no character of n bytes is malformed */
/* Writes a character to out; U+FFFD if `code` is not a character. Returns its length, 1 to 4. */
int utf8_encode(char out[4], int32_t code);

enum { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };
typedef struct Json Json;
struct Json {
    int type;
    size_t count;                           /* children of an array or object */
    const char *key; size_t key_length;     /* inside an object; unescaped, NUL-terminated */
    const char *string; size_t length;      /* JSON_STRING: UTF-8, NUL-terminated, may hold NULs */
    double number;      /* JSON_NUMBER: integers are exact up to 2^53; may be NaN or infinite */
    const Json *child, *next;               /* first child; next sibling */
};
/* Parses a text that is one JSON value (RFC 8259, at most 64 deep; duplicate keys are kept). As in
 * Python, NaN, Infinity and -Infinity are numbers, too. The nodes are in pool. Returns NULL on an
 * error, which *err describes (got: the byte where it is). */
const Json *json_parse(const char *text, size_t length, Pool *pool, Error *err);
/* Returns a key's value, or NULL if there is no such key or `object` is not an object. Of duplicate
 * keys the last value counts, as in serde and Python. */
const Json *json_get(const Json *object, const char *key);
/* The next three return a key's value, or `fallback` if there is no value of their type. */
double json_number(const Json *object, const char *key, double fallback);
int json_bool(const Json *object, const char *key, int fallback);
const char *json_text(const Json *object, const char *key, const char *fallback);

/* Returns the random stream of (seed, step, index); so draws do not depend on
 * batches or threads. */
Rng rng_stream(uint64_t seed, uint64_t step, uint64_t index);
uint64_t rng_next(Rng *r);                  /* returns 64 uniform bits */
double rng_unit(Rng *r);                    /* returns a uniform number in [0,1), of 53 bits */
double rng_normal(Rng *r);                  /* returns the sum of 12 uniforms - 6: mean 0, std 1 */
uint64_t rng_below(Rng *r, uint64_t n);     /* returns a uniform number in 0 .. n-1; n > 0 */
void rng_shuffle(Rng *r, int *a, int n);    /* shuffles a (n) (Fisher-Yates) */
/* Returns the FNV-1a hash of n bytes, finished by splitmix64. */
uint64_t hash_bytes(const void *bytes, size_t n, uint64_t seed);

/* Copies pattern to out (cap bytes, with the NUL), with number in place of "%d". OK, or E_RANGE if
 * out is too small: then the text is cut. */
int name_format(char *out, size_t cap, const char *pattern, int number);

/* ==== io.c: files, folders, lines, datasets, the clock; the only file that touches FILE* ==== */
typedef struct File File;           /* a file open for reading, of any size */
/* Opens a file. Returns NULL and *err on failure, and for folders and pipes. */
File *file_open(const char *path, Pool *pool, Error *err);
uint64_t file_size(const File *f);  /* returns its size in bytes */
/* Reads n bytes at offset; several threads may call it at once. OK, E_READ or E_TRUNCATED. */
int file_read_at(File *f, uint64_t offset, void *out, size_t n, Error *err);
void file_close(File *f);           /* does nothing if f is NULL or already closed */
/* Reads a whole file into pool: *n bytes, and a NUL after them. OK or a code. */
int file_read_all(const char *path, Pool *pool, char **bytes, size_t *n, Error *err);
/* Returns 1 if there is a file, even if it cannot be opened: then reading it says why. Plain C: only
 * if it can be opened. 0 for a folder. */
int file_exists(const char *path);
/* Returns 1 if both paths lead to the same file or folder, through links and ".." too; 0 for devices.
 * Plain C: if the paths are equal, apart from "." and doubled slashes. */
int file_same(const char *a, const char *b);
/* Makes a folder and its parents; OK also if it is there already. E_UNSUPPORTED in plain C. */
int folder_make(const char *path, Error *err);
/* Makes a folder that is not there yet. Returns E_OPEN, without an error in *err, if it is there. Plain C:
 * a folder that was made by hand is new until it has a log.jsonl. */
int folder_new(const char *path, Error *err);
int folder_exists(const char *path);        /* returns 1 or 0; plain C tries to make a file in it */
/* Lists the names in a folder, sorted by bytes, in pool: its regular files, or with all 1 everything but
 * "." and "..". E_UNSUPPORTED in plain C. */
int folder_list(const char *path, int all, Pool *pool, char ***names, int *count, Error *err);
/* Returns 1 if a folder of this name is a part of a run: `prompt`, `best`, `value_model` or
 * step-NUMBER. */
int folder_is_part(const char *name);
/* Deletes a folder's files and those parts; E_ARGUMENT, and no file is deleted, if it has another folder. */
int folder_empty(const char *path, Pool *pool, Error *err);
int folder_remove(const char *path, Error *err);    /* deletes an empty folder; OK or E_WRITE */
/* Renames the folder `from` to `to`. A folder that is there already is first renamed to a name beside
 * it, and then deleted with its files. OK or a code; if only that deleting failed, `to` is complete. */
int folder_replace(const char *from, const char *to, Pool *pool, Error *err);
/* Writes the path without links, "." and ".." to out if there is such a folder, and anyway without a
 * slash at its end. OK, or E_RANGE if out is too small. Plain C: the path as it is. */
int folder_resolve(char *out, size_t cap, const char *path);
/* Sets *bytes to the free bytes of the disk that a folder is on. OK, E_OPEN or E_UNSUPPORTED. */
int folder_room(const char *path, uint64_t *bytes);
/* Makes a file with the number of this process in it, and locks it: the system ends the lock when the
 * process ends in any way. Returns OK with *process 0, or the number of an ended process whose file it
 * was; E_OPEN if another process (*process) has locked it; E_WRITE. Plain C: locks nothing, OK. */
int lock_take(const char *path, int *handle, long *process, Error *err);
/* Returns 1 if another process has locked the file, and sets *process to its number. */
int lock_is_held(const char *path, long *process);
void lock_release(const char *path, int handle);    /* deletes the file and ends the lock */
/* Writing is atomic: a Writer writes to a temporary file in the same folder, and renames it. */
typedef struct Writer Writer;
/* Opens a file for writing. Returns NULL and *err on failure. */
Writer *writer_open(const char *path, Pool *pool, Error *err);
/* Writes n bytes. Returns OK or E_WRITE; after an error every later call returns E_WRITE, too. */
int writer_write(Writer *w, const void *bytes, size_t n);
/* Flushes the bytes to the disk and gives the file its name. Returns OK, or E_WRITE for this or an
 * earlier failure: then the temporary file is removed, and an older file at path is unchanged. */
int writer_close(Writer *w, Error *err);
void writer_abandon(Writer *w);     /* instead of writer_close: the file is not written, nor changed */
int file_remove(const char *path, Error *err);      /* deletes a file; OK or E_WRITE */
/* Writes a whole file, with a Writer. OK or a code. */
int file_write_all(const char *path, const void *bytes, size_t n, Pool *pool, Error *err);
/* Appends to a file and flushes it, for logs. Returns OK, E_OPEN or E_WRITE: then the file is as it
 * was before (plain C: a part of the bytes may stay). */
int file_append(const char *path, const void *bytes, size_t n, Error *err);
/* How a pointer of Git LFS begins, of how many bytes; what it is; advice. */
#define GIT_LFS "version https://git-lfs", 23, "a pointer of Git LFS, not the file itself", \
                "`git lfs install`, then `git lfs pull` in that folder"
/* Does what file_read_all does, for texts: checks them, leaves out UTF-8's mark at the beginning, and
 * if there is no \n, replaces each \r by \n. */
int text_read_all(const char *path, Pool *pool, char **bytes, size_t *n, Error *err);
typedef struct Lines Lines;         /* a text that is read line by line */
/* Opens a text, and checks it (if it is a pipe, its first line); path "-": standard input. Leaves out
 * UTF-8's mark at the beginning. Returns NULL and *err on failure. */
Lines *lines_open(const char *path, Pool *pool, Error *err);
/* Reads the next line, of any length, without \n or \r\n (or \r, if the text has no \n); it lasts
 * until the next call. Returns 0 at the end and on an error, which lines_close reports. */
int lines_next(Lines *l, const char **line, size_t *length);
int lines_close(Lines *l, Error *err);   /* returns OK, or the error of lines_next */
/* Returns 1 if a line has nothing but spaces, tabs and \r: readers of JSON lines leave such a line out. */
int blank_line(const char *line, size_t n);
double wall_clock(void);            /* returns seconds since some fixed moment */
double unix_clock(void);            /* returns seconds since 1970, UTC */

/* A dataset (*.bin) holds documents, not tokens; io.c describes its bytes. The two texts of a
 * document are chosen and rejected (DATA_PAIRS), or prompt and response (DATA_PROMPTS). label -1:
 * no label. The label of a pair is the probability, in millionths, that its first text is the
 * better one; -1: it is certain. split 1: held out; 0: train. */
enum { DATA_TEXT = 1, DATA_PAIRS = 2, DATA_PROMPTS = 3 };
enum { PAIR_CERTAIN = 1000000 };        /* the label of a pair whose first text is surely better */
typedef struct { int label, split; const char *text[2]; uint32_t length[2]; } Document;
typedef struct { int kind, labels; uint64_t count; char **label; Document *document; } Dataset;
int dataset_exists(const char *path);   /* returns 1 if the file begins as a dataset does */
/* Reads a dataset into pool and checks all of it. OK or a code; on an error *d is all zeros. */
int dataset_read(Dataset *d, const char *path, Pool *pool, Error *err);
/* Writes a dataset, atomically. Refuses a dataset that dataset_read would refuse. OK or a code. */
int dataset_write(const Dataset *d, const char *path, Pool *pool, Error *err);

/* ==== fast/threads.c: how many threads a loop gets ==== */
#ifndef PLAIN
int threads_max(void);          /* returns OpenMP's number of threads; 1 without OpenMP */
/* Returns how many threads the next loop gets: one if the work is little, if the loop is inside
 * another such loop, or while other processes use a processor. A unit of work is about 0.1 ns. */
int threads_for(double work);
int thread_index(void);         /* returns 0 .. threads_max()-1 inside a shared loop */
void threads_limit(int threads);    /* makes threads_max return this number; only before a loop */
#else                           /* `make PLAIN=1` builds without fast/ */
static inline int threads_max(void) { return 1; }
static inline int threads_for(double work) { (void)work; return 1; }
static inline int thread_index(void) { return 0; }
static inline void threads_limit(int threads) { (void)threads; }
#endif
/* IN_PARTS(work, n, call) splits n things into parts, one for each thread, and makes `call` for
 * each part, which is the things `from` .. to-1 (size_t). PARALLEL_FOR(work) lets threads share the
 * loop that follows. Splits are between outputs, never inside a sum: so the bits of the results do
 * not depend on the number of threads. */
#define PRAGMA_(x) _Pragma(#x)
#if defined(_OPENMP) && !defined(PLAIN)
#define SHARE_LOOP_(n) PRAGMA_(omp parallel for schedule(static) num_threads(n))
#define PARALLEL_FOR(work) SHARE_LOOP_(threads_for((double)(work)))
#else
#define PARALLEL_FOR(work)
#define SHARE_LOOP_(n)
#endif
#define IN_PARTS(work, n, call) do { \
        int parts_ = threads_for((double)(work)); \
        size_t n_ = (size_t)(n), p_ = (size_t)parts_; \
        if (parts_ < 2) { size_t from = 0, to = n_; call; } /* an OpenMP team of one costs time */ \
        else { \
            SHARE_LOOP_(parts_) \
            for (int part_ = 0; part_ < parts_; part_++) { \
                size_t i_ = (size_t)part_, from = n_ * i_ / p_, to = n_ * (i_ + 1) / p_; \
                if (from < to) { call; } \
            } \
        } \
    } while (0)

/* Chooses the functions that run in place of ops.c's, its twins: "definition" (no twins), "plain"
 * (twins in plain C), "avx2" ..., or "exact": the fastest that give the bits of ops.c. NULL or "":
 * the fastest. OK, or E_UNSUPPORTED if this machine lacks them. fast/fast.h has the rest. */
#ifndef PLAIN
int fast_use(const char *name);
const char *fast_name(int i);   /* returns the i-th name, except "exact"; NULL past the end */
int fast_here(int i);           /* returns 1 if this machine can run the i-th */
const char *fast_chosen(void);  /* returns the name of the kernel that runs */
#else                           /* `make PLAIN=1` builds without fast/ */
static inline const char *fast_name(int i) { return i == 0 ? "definition" : NULL; }
static inline int fast_here(int i) { return i == 0; }
static inline const char *fast_chosen(void) { return "definition"; }
static inline int fast_use(const char *name) {
    int here = !name || !*name || !strcmp(name, "definition") || !strcmp(name, "exact");
    return here ? OK : E_UNSUPPORTED;
}
#endif

#endif
