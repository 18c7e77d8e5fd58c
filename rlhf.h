/* rlhf.h - the library's map: every shared struct and prototype, grouped by file.
 *
 * Shape letters, the same everywhere: N rows, B sequences, T positions, C model width, H heads,
 * K key/value heads, D head width, F feed-forward width, L layers, V vocabulary, R LoRA rank, I/O
 * in/out features. Arrays are row-major: x (N,C) has element (n,c) at x[n*C + c]. A linear weight is
 * (O,I): y = x W^T.
 *
 * Pairs: x_forward overwrites its outputs, x_backward only ADDS to every d-array. Arguments come in
 * the order outputs, saved values, inputs, weights, scalars, sizes.
 *
 * Errors: a function that returns an int returns OK (0) or an E_ code, one that returns a pointer
 * returns NULL on failure, and an Error *err says why. Functions that have neither can fail only in
 * their arena or workspace: look at its `failed` afterwards.
 *
 * Log-probabilities, KL and entropy are in nats. Each .c file names the papers and formats that it
 * implements. A file calls only files of a lower level: the Makefile lists them, `make check` checks. */
#ifndef RLHF_H
#define RLHF_H

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

/* IN_PARTS(work, n, call): `call` for each of as many parts of n things as fast/threads.c gives threads for so much work (a unit is about 0.1 ns:
 * four multiply-adds of a product are one, a float that is copied or zeroed is four); it uses the part's `from` and `to` (size_t).
 * PARALLEL_FOR(work): the same for a loop, the next statement.
 * Splits fall between outputs, never inside a sum, so every result has the same bits for any number of threads. */
#define PRAGMA_(x) _Pragma(#x)
#if defined(_OPENMP) && !defined(PLAIN)
#define PARALLEL_FOR(work) PRAGMA_(omp parallel for schedule(static) num_threads(threads_for((double)(work))))
#define SHARE_PARTS_(parts) PRAGMA_(omp parallel for schedule(static) num_threads(parts))
#else
#define PARALLEL_FOR(work)
#define SHARE_PARTS_(parts)
#endif
#define IN_PARTS(work, n, call) do { \
        int parts_ = threads_for((double)(work)); \
        size_t n_ = (size_t)(n); \
        if (parts_ < 2) { size_t from = 0, to = n_; call; }     /* no team of one: OpenMP's costs microseconds */ \
        else { \
            SHARE_PARTS_(parts_) \
            for (int part_ = 0; part_ < parts_; part_++) { \
                size_t from = n_ * (size_t)part_ / (size_t)parts_, to = n_ * ((size_t)part_ + 1) / (size_t)parts_; \
                if (from < to) { call; } \
            } \
        } \
    } while (0)

/* ==============================================================================================
 * core.c (level 0): errors, memory, bytes, UTF-8, JSON, random streams; without stdio and heap
 * ============================================================================================== */
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
/* A record that only programs turn into words (cli.c: die). got == wanted: no numbers to show. */
typedef struct { int code; char what[160], where[256]; long long got, wanted; } Error;
/* Fills *err (or NULL) and returns code. A recorded error stays: it is the cause. */
int fail(Error *err, int code, const char *what, const char *where, long long got,
         long long wanted);

/* An arena is one fixed block, measured first and then carved; base NULL measures. A workspace is
 * an arena used as a stack: w = ws->used; take ...; ws->used = w. */
typedef struct { unsigned char *base; size_t used, capacity, peak; int failed; } Arena;
/* Returns count * size bytes, not cleared, at a multiple of 64 from base; NULL while measuring, and
 * NULL with a->failed set, for good, if they do not fit. a->peak is the largest `used` so far. */
void *arena_take(Arena *a, size_t count, size_t size);

/* A pool grows, for parsed files. The program gives its blocks: source returns one or NULL, sink
 * takes it back (cli_pool: malloc, free). total: bytes of all blocks. */
typedef struct PoolBlock PoolBlock;
struct PoolBlock { PoolBlock *next; size_t used, capacity; };      /* its bytes follow */
typedef struct { void *(*source)(size_t bytes); void (*sink)(void *block);
                 PoolBlock *first, *current; size_t total; } Pool;
typedef struct { PoolBlock *block; size_t used; } PoolMark;
/* Returns count * size zeroed bytes, 16-byte aligned; NULL without memory or on overflow. */
void *pool_take(Pool *p, size_t count, size_t size);
char *pool_text(Pool *p, const char *text, size_t length);  /* returns a copy with a NUL, or NULL */
PoolMark pool_mark(const Pool *p);              /* returns the current end of the pool */
void pool_release(Pool *p, PoolMark mark);      /* frees what was taken since the mark */
void pool_free(Pool *p);                        /* gives every block to the sink */

/* A buffer grows on a pool. `failed` is set, for good, if memory is out: check it once, at the end.
 * Integers are little-endian, as a reader's are. */
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

/* A reader takes bytes. A read past `end` sets `bad`; from then on every read returns 0 or NULL. */
typedef struct { const unsigned char *at, *end; int bad; } Reader;
unsigned read_u8(Reader *r);                                    /* each returns the next number */
unsigned read_u16(Reader *r);
uint32_t read_u32(Reader *r);
uint64_t read_u64(Reader *r);
const unsigned char *read_bytes(Reader *r, uint64_t n);         /* returns the next n bytes */

/* Decodes the character at s (n > 0 bytes left) into *code and returns its length, 1 to 4. If it is
 * malformed (overlong, surrogate, above 10FFFF, truncated): code -1, length 1. */
int utf8_decode(const char *s, size_t n, int32_t *code);
/* Writes a character, U+FFFD if `code` is none; returns its length, 1 to 4 bytes. */
int utf8_encode(char out[4], int32_t code);

enum { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };
typedef struct Json Json;
struct Json {
    int type;
    size_t count;                           /* children of an array or object */
    const char *key; size_t key_length;     /* inside an object; unescaped, NUL-terminated */
    const char *string; size_t length;      /* JSON_STRING: UTF-8, NUL-terminated, may hold NULs */
    double number;                          /* JSON_NUMBER; integers are exact up to 2^53 */
    const Json *child, *next;               /* first child; next sibling */
};
/* Parses a text that is one JSON value (RFC 8259, at most 64 deep; duplicate keys are kept). Its
 * nodes live in pool. Returns NULL and *err on an error (got: its byte). */
const Json *json_parse(const char *text, size_t length, Pool *pool, Error *err);
/* Returns a key's value, of duplicates the last one, as serde and Python do; NULL if there is none
 * or `object` is none. The others return fallback if there is no value of their type. */
const Json *json_get(const Json *object, const char *key);
double json_number(const Json *object, const char *key, double fallback);
int json_bool(const Json *object, const char *key, int fallback);
const char *json_text(const Json *object, const char *key, const char *fallback);

/* Random streams (splitmix64) draw the same bits on every machine. */
typedef struct { uint64_t state; } Rng;
/* Returns the stream hash(seed, step, index): draws depend neither on batching nor on threads. */
Rng rng_stream(uint64_t seed, uint64_t step, uint64_t index);
uint64_t rng_next(Rng *r);                  /* returns 64 uniform bits */
double rng_unit(Rng *r);                    /* returns a uniform number in [0,1), of 53 bits */
double rng_normal(Rng *r);                  /* returns the sum of 12 uniforms - 6: mean 0, std 1 */
uint64_t rng_below(Rng *r, uint64_t n);     /* returns a uniform number in 0 .. n-1; n > 0 */
void rng_shuffle(Rng *r, int *a, int n);    /* shuffles a (n) (Fisher-Yates) */
/* Returns the FNV-1a hash of n bytes, finished by splitmix64. */
uint64_t hash_bytes(const void *bytes, size_t n, uint64_t seed);

/* Copies pattern to out (cap bytes, with its NUL), "%d" replaced by number. OK, or E_RANGE: cut. */
int name_format(char *out, size_t cap, const char *pattern, int number);

/* ================================================================================================================
 * fast/threads.c (level 0): how many threads a loop gets
 * ================================================================================================================ */
#ifndef PLAIN
int threads_max(void);                      /* returns OpenMP's number of threads, 1 without it */
/* Returns how many of them the next loop gets: one for little work (waking them takes microseconds), inside another such loop, and
 * while other processes keep a processor busy (threads that wait for each other then wait for whole time slices). */
int threads_for(double work);
int thread_index(void);                     /* returns 0 .. threads_max()-1 inside a shared loop */
#else                                       /* `make PLAIN=1` builds without fast/ */
static inline int threads_max(void) { return 1; }
static inline int threads_for(double work) { (void)work; return 1; }
static inline int thread_index(void) { return 0; }
#endif

/* ==============================================================================================
 * quant.c (level 1): bfloat16 (a float's upper half), IEEE binary16, bitsandbytes' 4-bit blocks
 * ============================================================================================== */
f32 bf16_to_f32(uint16_t bits);     /* widens exactly */
uint16_t f32_to_bf16(f32 x);        /* rounds to nearest, ties to even; a NaN stays one (quiet) */
f32 f16_to_f32(uint16_t bits);      /* widens exactly, with subnormals, infinities and NaN */
uint16_t f32_to_f16(f32 x);         /* rounds to nearest, ties to even; overflow becomes infinity */
/* The same for n numbers of type BF16 or F16; halves_round rounds in place (F32: nothing). */
void halves_widen(f32 *x, const uint16_t *half, int type, size_t n);
void halves_narrow(uint16_t *half, const f32 *x, int type, size_t n);
void halves_round(f32 *x, int type, size_t n);
/* Turns n words of `width` bytes from little-endian into this machine's order or back, in place. */
void little_endian(void *words, size_t width, size_t n);
/* 4-bit weights (Dettmers et al. 2023; bitsandbytes): element i of the flat (row-major) weight is
 * table[nibble i] * absmax[i / block]; the first of a byte's two nibbles is the high one. Doubly
 * quantised, absmax[b] = map[code[b]] * nested[b / 256] + offset. */
enum { QUANT_NF4, QUANT_FP4 };
enum { QUANT_NESTED = 256 };        /* absmax values that share one of `nested` */
typedef struct {
    int kind, block;                /* QUANT_; weights that share an absmax: 32, 64 ... 4096 */
    f32 *absmax;                    /* (blocks), or NULL: doubly quantised, by the next four */
    unsigned char *code;            /* (blocks) */
    f32 *nested, offset, *map;      /* (blocks / 256 rounded up), 1, (256) */
    f32 table[16];
    int dtype;                      /* F32, BF16, F16: weights are rounded to it first */
} Quant;
size_t quant_blocks(size_t n, int block);       /* returns how many absmax values n weights have */
f32 quant_scale(const Quant *q, size_t b);      /* returns the absmax of block b */
void quant_table(f32 table[16], int kind);      /* fills in the values of the 16 codes */
void quant_map(f32 map[256]);                   /* fills in the signed dynamic 8-bit map */
/* Quantises x (n) to packed ((n+1)/2) and absmax (quant_blocks). Returns OK, E_ARGUMENT (block,
 * kind), or E_NUMBER at a NaN or an infinity: *where (or NULL) is the index of the first one, and
 * its block has no codes and an absmax that is no number. */
int quantize_4bit(unsigned char *packed, f32 *absmax, const f32 *x, size_t n, int block, int kind,
                  size_t *where);
/* Quantises absmax (blocks, finite) to code (blocks), nested (blocks / 256 rounded up) and *offset
 * (the mean) by the map. */
void quantize_absmax(unsigned char *code, f32 *nested, f32 *offset, const f32 *map,
                     const f32 *absmax, size_t blocks);
/* Computes x (n) = elements `at` .. at+n-1 of a 4-bit weight, the same bits for any range. */
void dequantize_4bit(f32 *x, const unsigned char *packed, const Quant *q, size_t at, size_t n);

/* ================================================================================================================
 * The shared shapes of tensors
 * ================================================================================================================ */
enum { F32, BF16, F16, NF4 };               /* Matrix.type: how `data` is stored (NF4: 4-bit, quant->kind says which) */
/* A weight (O,I). A vector (norm weight, bias) is a matrix with one row: O = 1. F32 data is float[O*I], BF16 and F16 are
 * uint16_t[O*I], NF4 unsigned char[(O*I+1)/2] with its scales in *quant (NULL otherwise). grad (O,I) float: NULL = frozen. id: place in its
 * model's list of tensors, where an adapter finds it. compute, output (F32, BF16, F16): as which numbers its linear multiplies (inputs, weights,
 * and in backward dy), and gives its products y and dx; sums are float32. */
typedef struct { int type, O, I, id; void *data; Quant *quant; float *grad; int compute, output; } Matrix;
enum { TENSOR_LINEAR = 1,                   /* a linear of a layer: what "all-linear" adapts, and what 4 bits hold */
       TENSOR_EMBEDDING = 2, TENSOR_HEAD = 4,
       TENSOR_NORM = 8, TENSOR_BIAS = 16,   /* vectors: one dimension in the file, [I] */
       TENSOR_VECTOR = TENSOR_NORM | TENSOR_BIAS,
       TENSOR_RESIDUAL = 32,                /* a linear whose output is added to the residual stream */
       TENSOR_TIED = 64,                    /* shares another tensor's data: never saved, loaded, trained or counted */
       TENSOR_OPTIONAL = 128,               /* may be missing in a file (then it keeps its value) */
       TENSOR_TRAINED = 256 };              /* has a gradient (also while measuring, when grad is still NULL) */
/* One list per model declares, sizes, loads, saves, prints, and names tensors in the gradient test. */
typedef struct { char name[96]; Matrix *matrix; int flags; } Tensor;
typedef struct { Tensor *tensor; int tensors, trainable; Arena *arena; } TensorList;       /* a list that is being laid out */
/* Every x_carve takes numbers from an Arena (which may only measure) and lists (Tensor, Block ...: some KB) from a Pool, so that a
 * model that was only measured can already be listed, counted and given to optimizer_carve. */

/* ==============================================================================================
 * rl.c (level 1): PPO as pure functions over float arrays (Schulman et al. 2017; TRL 0.11.4)
 * Ragged layout: the P response tokens of B sequences stand one after another, without padding;
 * start (B+1): the tokens of sequence b are start[b] .. start[b+1]-1.
 * ============================================================================================== */
enum { KL_K1, KL_ABS, KL_MSE, KL_FULL, KL_K3 };         /* kl, abs, mse (k2), full, k3 */
/* Fills kl (P), each token's penalty, from its log-probs under policy and reference. KL_FULL copies
 * full (P), the exact KL that the head computed; for other kinds full may be NULL. */
void kl_penalty(float *kl, const float *logprob, const float *ref_logprob, const float *full,
                int kind, int P);
/* Returns the mean over sequences of the sum over tokens: objective/kl. */
double kl_per_sequence(const float *kl, const int *start, int B);
/* Fills reward (P): -kl_coef * kl, plus score[b] on the last token of b (nowhere if b has none). */
void token_rewards(float *reward, const float *kl, const float *score, float kl_coef,
                   const int *start, int B);
/* Scales x (P) to (x - mean) / sqrt(var + 1e-8); shift_mean 0 adds the mean again. biased 0 divides
 * the squares by P - 1, 1 by P. P < 2 has no variance: x becomes 0 (shift_mean) or stays. */
void whiten(float *x, int P, int shift_mean, int biased);
/* Computes generalised advantage estimation (Schulman et al. 2015) over each response, whose value
 * after the last token is 0; returns = advantages + values, before any whitening. All (P). */
void gae(float *advantages, float *returns, const float *rewards, const float *values, float gamma,
         float lambda, const int *start, int B);
/* What updates report: sums over tokens, so that mini-batches of any size add up. value_error is
 * (v - R)^2 before clipping, max_ratio_deviation the largest |ratio - 1|. */
typedef struct {
    double tokens, policy_loss, value_loss, clip_fraction, value_clip_fraction, approx_kl;
    double policy_kl, ratio, entropy, value_error, value, max_ratio_deviation;
} PpoStats;
/* clip_range_value <= 0: values are not clipped. ratio_threshold <= 0: there is no ratio guard. */
typedef struct { float clip_range, clip_range_value, vf_coef, ratio_threshold; } PpoLoss;
/* Adds the clipped policy loss of n tokens to *s (2017, eq. 7): rho = exp(new - old),
 * l = max(-A rho, -A clip(rho, 1-e, 1+e)); dnew (n) += scale * dl/dnew. scale: 1 / (tokens of the
 * whole optimiser step). */
void policy_loss(float *dnew, const float *new_logprob, const float *old_logprob,
                 const float *advantage, const PpoLoss *c, float scale, int n, PpoStats *s);
/* Adds the clipped value loss to *s: l = 0.5 max((v - R)^2, (clip(v, old-e, old+e) - R)^2);
 * dvalue (n) += scale * vf_coef * dl/dv. */
void value_loss(float *dvalue, const float *value, const float *old_value, const float *returns,
                const PpoLoss *c, float scale, int n, PpoStats *s);
void ppo_stats_mean(PpoStats *s);           /* divides the sums by s->tokens, if there are any */
/* Returns 1 if the sums' mean ratio is above the threshold, or a NaN. */
int ratio_exceeds(const PpoStats *s, const PpoLoss *c);
/* Returns 1 if policy_kl, the mean of old - new, is above 1.5 target_kl; target_kl <= 0: never. */
int kl_early_stop(double policy_kl, double target_kl);
/* Updates the coefficient (Ziegler et al. 2019) after a step of n responses:
 * e = clip(kl/target - 1, -0.2, 0.2), coef *= 1 + e n / horizon. horizon <= 0: coef is fixed. */
typedef struct { double coef, target, horizon; } KlController;
void kl_controller_update(KlController *c, double kl_per_sequence, int n);
/* Running moments of the scores (TRL's RunningMoments): start with {0, 1, 1, 1e-24}. */
typedef struct { double mean, std, var, count; } Moments;
typedef struct { int scaling, norm; float clip; } ScoreRule;    /* clip <= 0: off */
/* With scaling, adds score (B) to *m and divides it by m->std, with norm also after subtracting
 * m->mean (norm alone does nothing, as in TRL); then clips it to +-clip. */
void process_scores(float *score, int B, const ScoreRule *rule, Moments *m);
typedef struct { double mean, median, std; } Summary;        /* std is unbiased; 0 for one value */
Summary summarise(const float *x, int n, float *scratch);   /* of x (n); scratch (n); n 0: zeros */

/* ==============================================================================================
 * tokenizer.c: text to ids and back, from memory. The kinds of tokenizers are in text/.
 * ============================================================================================== */
enum { TOKENIZER_SENTENCEPIECE, TOKENIZER_BYTELEVEL, TOKENIZER_WORDPIECE };
typedef struct Tokenizer Tokenizer;         /* its parts are in text/text.h; lives in its pool */
/* Opens a tokenizer from the bytes of its files; NULL and *err if they are bad. A program links
 * with the kinds whose openers it calls. */
Tokenizer *tokenizer_sentencepiece(const void *model, size_t n, Pool *pool, Error *err);
Tokenizer *tokenizer_bytelevel(const void *vocab, size_t vocab_n, const void *merges,
                               size_t merges_n, Pool *pool, Error *err);
Tokenizer *tokenizer_wordpiece(const void *vocab, size_t n, Pool *pool, Error *err);
Tokenizer *tokenizer_json(const void *bytes, size_t n, Pool *pool, Error *err);
/* Encodes text (n bytes, any bytes) without the template: *ids is an array of *count ints in pool.
 * Added tokens are cut out of the text first. Takes O(n log n) at most. OK or E_MEMORY. */
int tokenizer_encode(const Tokenizer *t, const char *text, size_t n, Pool *pool, int **ids,
                     int *count);
/* Does the same, and says which bytes [from, to) each id stands for. exact 0: a guess. */
typedef struct { size_t from, to; int exact; } TokenSpan;
int tokenizer_encode_spans(const Tokenizer *t, const char *text, size_t n, Pool *pool, int **ids,
                           TokenSpan **spans, int *count);
/* Does the same for text from a stranger: added tokens that it spells are letters. first: the text
 * begins here, not after an added token. */
int tokenizer_encode_plain(const Tokenizer *t, const char *text, size_t n, int first, Pool *pool,
                           int **ids, int *count);
/* Decodes ids: *length bytes in *text (and a NUL) in pool. Special tokens are left out (_all:
 * written), as are ids of tokenizer_size() and more. OK, E_RANGE (an id below 0) or E_MEMORY. */
int tokenizer_decode(const Tokenizer *t, const int *ids, int count, Pool *pool, char **text,
                     size_t *length);
int tokenizer_decode_all(const Tokenizer *t, const int *ids, int count, Pool *pool, char **text,
                         size_t *length);
int tokenizer_size(const Tokenizer *t);     /* number of ids */
int tokenizer_kind(const Tokenizer *t);     /* TOKENIZER_SENTENCEPIECE, _BYTELEVEL or _WORDPIECE */
typedef struct { int bos, eos, unk, pad; } SpecialIds;                  /* -1: none */
SpecialIds tokenizer_specials(const Tokenizer *t);
/* Sets *before (*after) to 1 if the template puts bos before (eos after) a text, else to 0. */
void tokenizer_template(const Tokenizer *t, int *before, int *after);
const char *tokenizer_chat_template(const Tokenizer *t);    /* or NULL; nothing here executes it */
const char *tokenizer_piece(const Tokenizer *t, int id, size_t *length);    /* NULL: no such id */
int tokenizer_find(const Tokenizer *t, const char *piece, size_t length);   /* its id, or -1 */
/* Trains a tokenizer of V ids, with Llama's layout (BPE or unigram) or RoBERTa's. next() gives one
 * text after another, and returns 0 at the end. NULL and *err if the texts cannot fill V ids, V is
 * too small, or memory is out. */
typedef struct { int (*next)(void *c, const char **text, size_t *n); void *context; } TextSource;
Tokenizer *tokenizer_train_sentencepiece(TextSource source, int V, Pool *pool, Error *err);
Tokenizer *tokenizer_train_unigram(TextSource source, int V, Pool *pool, Error *err);
Tokenizer *tokenizer_train_bytelevel(TextSource source, int V, Pool *pool, Error *err);

/* ==============================================================================================
 * io.c (level 1): files, folders, lines, datasets, the clock; the only file that touches FILE*
 * ============================================================================================== */
typedef struct File File;           /* a file open for reading, of any size */
/* Opens a file. Returns NULL and *err on failure, and for folders and pipes. */
File *file_open(const char *path, Pool *pool, Error *err);
uint64_t file_size(const File *f);  /* returns its bytes */
/* Reads n bytes at offset; threads may read at once. Returns OK, E_READ or E_TRUNCATED. */
int file_read_at(File *f, uint64_t offset, void *out, size_t n, Error *err);
void file_close(File *f);           /* does nothing if f is NULL or already closed */
/* Reads a whole file into pool: *n bytes, and a NUL after them. */
int file_read_all(const char *path, Pool *pool, char **bytes, size_t *n, Error *err);
int file_exists(const char *path);  /* returns 1 if it can be opened for reading */
/* Makes a folder and its parents; OK if it is there already. Plain C cannot: E_UNSUPPORTED. */
int folder_make(const char *path, Error *err);
int folder_exists(const char *path);        /* returns 1 or 0; plain C tries to make a file in it */
/* Lists a folder's regular files: names in pool, sorted by bytes. Plain C cannot: E_UNSUPPORTED. */
int folder_list(const char *path, Pool *pool, char ***names, int *count, Error *err);
/* Writing is atomic: a Writer's bytes go to a file of a temporary name in the same folder. */
typedef struct Writer Writer;
/* Opens a file for writing. Returns NULL and *err on failure. */
Writer *writer_open(const char *path, Pool *pool, Error *err);
int writer_write(Writer *w, const void *bytes, size_t n);   /* returns OK or E_WRITE, which stays */
/* Brings the bytes to the disk and gives the file its name. Returns OK, or E_WRITE, also for an
 * earlier failure: then the temporary file is gone, and a file that was at path before is
 * unchanged. */
int writer_close(Writer *w, Error *err);
/* Writes a whole file with a Writer. */
int file_write_all(const char *path, const void *bytes, size_t n, Pool *pool, Error *err);
/* Appends to a file and flushes it, for logs; not atomic. Returns OK, E_OPEN or E_WRITE. */
int file_append(const char *path, const void *bytes, size_t n, Error *err);
typedef struct Lines Lines;         /* a text that is read line by line */
/* Opens a text; path "-": standard input. Returns NULL and *err on failure. */
Lines *lines_open(const char *path, Pool *pool, Error *err);
/* Reads the next line, of any length, without \n or \r\n; it lasts until the next call. Returns 0
 * at the end and on an error, which lines_close reports. */
int lines_next(Lines *l, const char **line, size_t *length);
int lines_close(Lines *l, Error *err);   /* returns OK, or what ended the lines: E_READ, E_MEMORY */
double wall_clock(void);            /* returns seconds since some fixed moment */

/* A dataset (*.bin) holds documents, not tokens; io.c describes its bytes. Of DATA_PAIRS the texts
 * are chosen and rejected, of DATA_PROMPTS prompt and response. label -1: none. split: 1 held
 * out, 0 train. */
enum { DATA_TEXT = 1, DATA_PAIRS = 2, DATA_PROMPTS = 3 };
typedef struct { int label, split; const char *text[2]; uint32_t length[2]; } Document;
typedef struct { int kind, labels; uint64_t count; char **label; Document *document; } Dataset;
/* Reads a dataset into pool and checks all of it. On an error *d is all zeros. */
int dataset_read(Dataset *d, const char *path, Pool *pool, Error *err);
/* Writes a dataset, atomically. Refuses what dataset_read would refuse. */
int dataset_write(const Dataset *d, const char *path, Pool *pool, Error *err);

/* ================================================================================================================
 * fast/choose.c (level 2): which of ops.c's twins run (the rest of fast/ is private: fast/fast.h)
 * ================================================================================================================ */
/* Chooses "definition" (no twins), "plain" (twins in plain C), "avx2" ..., or "exact": the fastest that has the definition's bits.
 * NULL or "": the fastest, and "amx" is that too, where it is. OK, or E_UNSUPPORTED: not known, or not on this processor. */
#ifndef PLAIN
int fast_use(const char *name);
const char *fast_name(int i);               /* returns the i-th of these names but "exact"; NULL past the last */
#else
static inline const char *fast_name(int i) { return i == 0 ? "definition" : NULL; }
static inline int fast_use(const char *name) {
    return !name || !*name || !strcmp(name, "definition") || !strcmp(name, "exact") ? OK : E_UNSUPPORTED;
}
#endif

/* ================================================================================================================
 * ops.c (level 3): the layers as forward/backward pairs, each the plain definition; AdamW
 * Every `ws` is a workspace: with ws->base == NULL the function only measures (takes what it would take, computes nothing). One that
 * is too small sets ws->failed, and the outputs are not written: callers look once, at the end.
 * Sums have one fixed order, whatever the number of rows or threads: see the banner of ops.c.
 * ================================================================================================================ */
/* Lays out w (O,I) of this type, with a gradient if the list is trainable (flags gets TENSOR_TRAINED), and appends it to the
 * list, which has room (w->id: its index). name: a pattern whose "%d" becomes layer. list->tensor NULL: nothing happens. */
void tensor_carve(TensorList *list, Matrix *w, const char *name, int layer, int type, int O, int I, int flags);
/* Gives the 4-bit matrix w its Quant: kind, block, absmax (doubled: its 8-bit form). */
void tensor_carve_quant(Matrix *w, int kind, int block, int doubled, Arena *a);
size_t tensor_bytes(const Matrix *w);       /* of w->data alone */
void tensor_normal(const Matrix *w, double deviation, uint64_t seed);       /* random start: stream (seed, w->id, 0); F32 only */
void tensor_fill(const Matrix *w, float value);                             /* every number = value; F32 only */
/* y (N,O) = x (N,I) W^T + bias (O; NULL: none). Each output is one accumulator, added in order of i; the bias last.
 * With w->compute, x, W and in backward dy are rounded to it before they are multiplied; with w->output, y and dx are when they are whole,
 * before they are added. dW stays as its float32 sum, and so does dbias, whose dy is not rounded. */
void linear_forward(float *y, const float *x, const Matrix *w, const float *bias, int N, Arena *ws);
/* y (N,O) += x (N,I) W^T + bias (O; NULL: none): the accumulator starts from y, the bias is added last. */
void linear_add(float *y, const float *x, const Matrix *w, const float *bias, int N, Arena *ws);
/* dx (N,I) += dy (N,O) W (dx NULL: skip); w->grad (O,I) += dy^T x (grad NULL: skip); dbias (O) += sum over rows of dy (NULL: skip). */
void linear_backward(float *dx, float *dbias, const float *dy, const float *x, const Matrix *w, int N, Arena *ws);
/* Takes and gives back what the three directions need for N rows through (O,I) in this compute type: how a caller measures its workspace. */
void linear_measure(Arena *ws, int N, int I, int O, int compute);
void embedding_forward(float *y, const int *token, const Matrix *w, int N);                 /* y (N,C) = rows of w (V,C) */
void embedding_backward(const float *dy, const int *token, const Matrix *w, int N);         /* w->grad[token] += dy */
/* RMSNorm (Zhang & Sennrich 2019): y (N,C) = x / sqrt(mean(x^2) + eps) * w (C). Backward recomputes the norm from x. */
void rmsnorm_forward(float *y, const float *x, const float *w, float eps, int N, int C);
void rmsnorm_backward(float *dx, float *dw, const float *dy, const float *x, const float *w, float eps, int N, int C);  /* dw NULL: skip */
/* LayerNorm (Ba et al. 2016): y (N,C) = (x - mean) / sqrt(var + eps) * w (C) + b (C), biased variance. dw NULL: skip dw and db. */
void layernorm_forward(float *y, const float *x, const float *w, const float *b, float eps, int N, int C);
void layernorm_backward(float *dx, float *dw, float *db, const float *dy, const float *x, const float *w, float eps, int N, int C);
/* RoPE (Su et al. 2021), half rotation (Hugging Face's order), in place on x (N,H*D); position (N); cosine and sine tables
 * (positions, D/2). inverse 1: the rotation back, which is the backward pass. */
void rope_rotate(float *x, const int *position, const float *cosine, const float *sine, int inverse, int N, int H, int D);
/* The rows that each query sees: query n sees rows first[n] .. first[n]+count[n]-1 of k and v (count >= 1). self[n] is the row of
 * k that is the query's own: it is read only where there is a bias, and may be NULL otherwise. */
typedef struct { const int *first, *count, *self; } Keys;
/* H query heads, K key heads, D numbers each: head h uses key head h / (H/K). Scores are scale * q.k (1/sqrt(D); T5: 1), plus, if
 * bias is given, bias[bucket[reach + distance]][h], distance = key row - own row (Raffel et al. 2020). bias (buckets,H), bucket
 * (2*reach+1), -reach <= distance <= reach. dbias (buckets,H): where the gradient is added; NULL: frozen. */
typedef struct { int H, K, D; float scale; const float *bias; float *dbias; const int *bucket; int reach; } Heads;
typedef struct { float *q, *k, *v; } Qkv;   /* q (N,H*D), k and v (rows,K*D): numbers or their gradients */
/* Attention (Vaswani et al. 2017), grouped queries (Ainslie et al. 2023): y (N,H*D) = softmax(scores) v. in is only read. */
void attention_forward(float *y, const Qkv *in, const Keys *keys, int N, const Heads *heads, Arena *ws);
/* Adds to d->q, d->k, d->v and heads->dbias; y is the forward's output. */
void attention_backward(const Qkv *d, const float *dy, const float *y, const Qkv *in, const Keys *keys, int N, const Heads *heads,
                        Arena *ws);
/* Takes and gives back what both directions need when no query sees more than `keys` rows (they cannot measure themselves: they
 * would have to read count). */
void attention_measure(Arena *ws, int keys, const Heads *heads);
/* SiLU: x sigmoid(x). GELU: x Phi(x), the exact one. GELU_TANH: GPT-2's gelu_new, x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2. */
enum { ACT_SILU, ACT_GELU, ACT_GELU_TANH, ACT_RELU };
void activation_forward(float *y, const float *x, int activation, size_t n);                /* y (n) = act(x) */
void activation_backward(float *dx, const float *dy, const float *x, int activation, size_t n);
void gated_forward(float *y, const float *gate, const float *up, int activation, size_t n); /* y (n) = act(gate) up (Shazeer 2020) */
void gated_backward(float *dgate, float *dup, const float *dy, const float *gate, const float *up, int activation, size_t n);
void tanh_forward(float *y, const float *x, size_t n);
void tanh_backward(float *dx, const float *dy, const float *y, size_t n);                   /* from the output */
/* From logits z (N,V) / temperature: logprob (N) of token[n], entropy (N; NULL: skip). */
void logprob_forward(float *logprob, float *entropy, const float *logits, const int *token, float temperature, int N, int V);
/* dlogits (N,V) += dlogprob[n] * d logprob[n] / d logits; logprob (N) is the forward's output. */
void logprob_backward(float *dlogits, const float *dlogprob, const float *logprob, const float *logits, const int *token,
                      float temperature, int N, int V);
/* w (V) = e^((z - max z) / temperature): a row's softmax, not yet divided by its sum. */
void softmax_weights(float *w, const float *z, float temperature, int V);
/* kl (N) = sum over v of p (log p - log q), p and q from logits and ref_logits (N,V). */
void full_kl_forward(float *kl, const float *logits, const float *ref_logits, float temperature, int N, int V);
/* loss (N) = -log softmax(logits (N,C))[label[n]]; dlogits (N,C) += dloss[n] * (softmax - onehot). C: classes. */
void cross_entropy_forward(float *loss, const float *logits, const int *label, int N, int C);
void cross_entropy_backward(float *dlogits, const float *dloss, const float *loss /* the forward's */, const float *logits, const int *label, int N, int C);
float exp_own(float x);                     /* our exp: same bits on every machine (1.5 ulp); libm's under F64 */
float log1p_exp(float x);                   /* log(1 + e^x), no overflow */
/* AdamW over a list of tensors (Kingma & Ba 2015; Loshchilov & Hutter 2019). */
typedef struct { float lr, beta1, beta2, eps, weight_decay; int tf_style; /* eps inside, as TF1 has it */ } AdamW;
typedef struct { float *m, *v; size_t n; long long t; } Optimizer;      /* first and second moments, tensor after tensor; steps done */
void optimizer_carve(Optimizer *o, const Tensor *list, int tensors, Arena *a);  /* moments for what is trained; not cleared */
void optimizer_reset(Optimizer *o);         /* moments and t to 0 */
double gradient_norm(const Tensor *list, int tensors);                  /* L2 over all trainable tensors */
void gradient_zero(const Tensor *list, int tensors);
/* One step with gradients multiplied by grad_scale (clipping); vectors are not decayed. `from`: index of the list's first
 * moment, so that two lists share one optimizer: returns the index after its last. */
size_t optimizer_step(Optimizer *o, size_t from, const Tensor *list, int tensors, const AdamW *c, float grad_scale);
size_t tensor_values(const Tensor *list, int tensors, int trainable_only);      /* numbers in a list (tied ones not counted) */

/* ================================================================================================================
 * lora.c (level 4): low-rank adapters on any linear of any model (Hu et al. 2021; Hugging Face peft's conventions)
 * ================================================================================================================ */
typedef struct { Matrix A /* (R,I) */, B /* (O,R) */; } LoraPair;       /* R = 0: not adapted */
/* Dropout of the adapter's input (peft's lora_dropout), in training alone: each number of x is left out with probability p, the others are
 * divided by 1 - p. Which ones hangs on (seed, matrix, row + n) and on nothing else, so forward, backward and recomputing agree, and so
 * does any split of a step's rows when `row` is the number of rows before. p 0: off. x, dx (N,I): room for the largest I.
 * p is the configuration's rate in training, and 0 when it only measures. */
typedef struct { float p; uint64_t seed, row; float *x, *dx; } LoraDropout;
typedef struct { int R; float alpha; int rslora; float dropout; char targets[160]; /* comma-separated, in peft's names */ } LoraConfig;
typedef struct { LoraConfig config; float scale; LoraPair *pair; int pairs; /* one per tensor of the base model's list, by Matrix.id */
                 Tensor *tensor; int tensors; LoraDropout dropout; } Lora;
/* Attaches to every linear of base's layers whose name ends in ".TARGET.weight" for a target of the list. Returns OK, E_ARGUMENT (a rank
 * below 1; a target that matches no linear), E_RANGE (a name too long) or E_MEMORY. With a measuring arena only counts memory. */
int lora_carve(Lora *l, const Tensor *base, int tensors, const LoraConfig *c, int trainable, Pool *lists, Arena *a, Error *err);
LoraConfig lora_config(int R, float alpha, const char *targets);    /* without rslora and dropout; targets too long: R becomes 0, which is refused */
void lora_dropout_carve(Lora *l, int N, Arena *a);  /* room for dropout in up to N rows, which lora_carve leaves off */
void lora_init(Lora *l, uint64_t seed);     /* A uniform +-1/sqrt(I) (kaiming, a = sqrt 5), B = 0 */
void lora_copy(Lora *to, const Lora *from); /* values only, not gradients; same shapes */
/* y (N,O) += scale (x A^T) B^T where w is adapted by l; nothing when l is NULL or w is not. Backward adds to dx (N,I) and to the
 * gradients of A and B (frozen: skipped). */
void lora_forward(float *y, const float *x, const Lora *l, const Matrix *w, int N, Arena *ws);
void lora_backward(float *dx, const float *dy, const float *x, const Lora *l, const Matrix *w, int N, Arena *ws);
/* Reserves what both directions of w need in N rows, when they cannot measure themselves because there are no gradients yet. */
void lora_measure(const Lora *l, const Matrix *w, int N, Arena *ws);
void lora_merge(const Lora *l, const Matrix *w, Arena *ws);         /* W += scale B A (F32 weights only) */

/* ================================================================================================================
 * stack.c (level 5): the transformer: one block, forward and backward, for every model
 * ================================================================================================================ */
enum { NORM_RMS, NORM_LAYER };              /* StackKind.norm */
enum { PLACE_PRE, PLACE_POST };             /* StackKind.place: norms before each half, or after its sum */
enum { BIAS_QKV = 1, BIAS_O = 2, BIAS_MLP = 4 };                /* StackKind.biases: which linears have one */
enum { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3 };
typedef struct { int type; double theta, factor, low, high; int original; } Rope;
/* A stack of L blocks, as config.json describes it. What a field of zero means is the option that it does not name. */
typedef struct {
    int C, H, K, D, F, L;                   /* K key/value heads; D: width of a head */
    int norm, place, gated, activation, biases;     /* gated: down(act(gate x) * up x), else down(act(up x)); activation: ACT_ */
    int causal, window, cross;              /* causal: a row sees the rows before it and itself, of those the last `window` (0: all) */
    int rotary, qk_norm, buckets, distance; /* RoPE; a norm of each head's q and k (Qwen3); T5's bias by distance, up to `distance` */
    float scale, eps;                       /* scale of the scores: 0 means 1/sqrt(D) */
    Rope rope;
} StackKind;
/* Patterns of tensors' names in files ("%d": the layer), by part; NULL: there is no such tensor. */
enum { NAME_WORD, NAME_POSITION, NAME_TYPE, NAME_EMBEDDING_NORM, NAME_EMBEDDING_NORM_B,
       NAME_NORM1, NAME_NORM1_B, NAME_Q, NAME_Q_B, NAME_K, NAME_K_B, NAME_V, NAME_V_B, NAME_O, NAME_O_B, NAME_Q_NORM, NAME_K_NORM,
       NAME_CROSS, NAME_NORM2 = NAME_CROSS + NAME_K_NORM - NAME_NORM1 + 1 /* cross-attention's, in the order of the self-attention's */,
       NAME_NORM2_B, NAME_GATE, NAME_GATE_B, NAME_UP, NAME_UP_B, NAME_DOWN, NAME_DOWN_B, NAME_BUCKETS, NAME_NORM, NAME_NORM_B, NAME_HEAD,
       NAME_HEAD_B, NAME_DENSE, NAME_DENSE_B, NAMES };
typedef struct { const char *part[NAMES]; } Names;
/* How weights are stored. layers: the seven linears of every layer (F32, BF16, F16, NF4); tables: embedding and head (F32, BF16, F16);
 * norms are F32. Of NF4: kind (QUANT_NF4, QUANT_FP4), block, doubled (1: absmax in 8 bits). compute, of any of them (F32, BF16, F16; PyTorch's
 * autocast, bitsandbytes' compute type): inputs and weights of the layers' linears are rounded to it, and so are their outputs; of the head,
 * inputs and weights alone, logits stay float32, as do sums, norms, softmax, residual stream, cache, adapters, the value head, gradients
 * of weights, and weights that are trained. All zeros: everything F32. */
typedef struct { int layers, tables, kind, block, doubled, compute; } WeightTypes;

typedef struct { Matrix norm, norm_b, q, q_b, k, k_b, v, v_b, o, o_b, q_norm, k_norm; } AttentionWeights;      /* O == 0: not in this model */
typedef struct { AttentionWeights self, cross; Matrix norm2, norm2_b, gate, gate_b, up, up_b, down, down_b; } Block;
typedef struct { StackKind kind; Block *block; Matrix buckets /* (buckets,H) */, norm, norm_b; float *rope_cos, *rope_sin; int *bucket;
                 int positions, compute; } Stack;
typedef struct { int L, B, T, width /* K*D */; float *k, *v; } Cache;   /* k, v (L,B,T,width); L 1: one layer serves all in turn */
/* What backward needs. Layer l begins at row l N; the last layer has only the M rows that are wanted. recompute: only x is kept of each
 * layer; the others have room for one layer, and backward computes them again. A pointer that a kind does not need is NULL. */
typedef struct {
    int N, M, recompute;
    float *x;                               /* (L,N,C) the stream that enters each layer */
    float *q, *att, *mid, *gate, *up;       /* ((L-1)N+M,.) rotated queries, attention, the sum after it, the two products */
    float *q_in, *k_in, *cross_q, *cross_att, *cross_mid;       /* before the norms of q, k (L,N,K*D); cross-attention's */
    float *last;                            /* (M,C) the stream that leaves */
} Saved;
/* What a decoder's rows see of an encoder: N states (N,C), their gradient (added to), the keys of each row of the decoder, and keys and values
 * (stack_encoded computes them once). */
typedef struct { int N; const float *hidden; float *dhidden; Keys keys; Cache kv; } Encoded;
typedef struct {
    int N, M;                               /* rows that enter; rows that are wanted at the end */
    const int *want;                        /* (M) which, ascending; NULL: all (M == N) */
    const int *position;                    /* (N) for RoPE; NULL without */
    const int *place;                       /* (N) the row of the cache where a row's key and value go; NULL: row n */
    Keys keys;                              /* (N) the rows of the cache that each row sees */
    int most;                               /* no row sees more: what measuring goes by */
    Encoded *encoded;                       /* cross-attention's; NULL without */
} StackRows;
/* Lays out a stack's weights (types of its linears; what is trained has to be F32), and its tables for up to `positions` positions; appends its
 * tensors to list, which has room for stack_tensors(k). OK, E_UNSUPPORTED or E_MEMORY. */
int stack_carve(Stack *s, const StackKind *k, const Names *names, const WeightTypes *types, int positions, TensorList *list,
                Pool *lists, Error *err);
const char *stack_name(const Names *names, int part);      /* "" where names is NULL or has none */
size_t stack_tensors(const StackKind *k);   /* at most so many tensors */
void cache_carve(Cache *c, const StackKind *k, int layers, int B, int T, Arena *a);     /* B texts of up to T rows */
void saved_carve(Saved *s, const StackKind *k, int N, int M, int recompute, Arena *a);  /* up to N rows, M of them wanted */
/* y (M,C): the output, after the last norm, of the wanted rows of x (N,C). Keys and values of all rows enter kv. x is overwritten if saved is
 * NULL (inference); else it may be saved->x. adapter NULL: none. Measuring: N, M, most, the cache's shape (and encoded->N) alone are read.
 * OK or E_MEMORY. */
int stack_forward(const Stack *s, const Lora *adapter, const StackRows *rows, Cache *kv, Saved *saved, float *x, float *y, Arena *ws);
/* From dy (M,C): dx (N,C), the gradient of x, is overwritten; adds to every gradient of a weight that is not NULL, and to encoded->dhidden. OK
 * or E_MEMORY. */
int stack_backward(const Stack *s, const Lora *adapter, const StackRows *rows, Cache *kv, const Saved *saved, const float *dy,
                   float *dx, Arena *ws);
/* Keys and values of e->hidden for the cross-attention of every layer into e->kv (layers of e->N rows). OK or E_MEMORY. */
int stack_encoded(const Stack *s, const Lora *adapter, Encoded *e, Arena *ws);

/* ================================================================================================================
 * model.c (level 5): the policy. Llama today; config says what differs.
 * ================================================================================================================ */
typedef struct {
    int V, positions;                       /* positions: max_position_embeddings */
    int tied, learned;                      /* the head is the embedding; positions have rows of a table (GPT-2) */
    StackKind stack;
    const Names *names;                     /* of tensors in files; NULL: none */
    int bos, pad, eos[8], eos_count;        /* ids; -1: none */
} ModelConfig;
typedef struct { ModelConfig config; Matrix embedding, position, head; Stack stack; Tensor *tensor; int tensors; } Model;
typedef struct { Matrix weight /* (1,C) */, bias /* (1,1) */; Tensor tensor[2]; } ValueHead;    /* v_head.summary.weight, .bias */
/* Rows: a row is one token of one sequence at one position. Sequences one after another, positions ascending, ragged. wants (N): 1 for the W
 * rows whose hidden state is wanted; NULL: all are, W == N. */
typedef struct { int N, W; const int *token, *sequence, *position; const unsigned char *wants; } Rows;

/* Lays out weights (types NULL: F32; what is trained has to be F32, of any compute type), the list of tensors and the RoPE tables for `positions` positions. OK, or
 * E_MEMORY. */
int model_carve(Model *m, const ModelConfig *c, const WeightTypes *types, int trainable, int positions, Pool *lists, Arena *a, Error *err);
void model_init(Model *m, uint64_t seed);   /* normal 0.02 (output projections / sqrt(2L)), norms 1 */
void model_copy(Model *to, const Model *from);      /* weights only; same config and types */
void value_head_carve(ValueHead *h, int C, int trainable, Arena *a);
void value_head_init(ValueHead *h, uint64_t seed, int zero);        /* zero, or PyTorch's uniform +-1/sqrt(C) */
/* hidden (W,C): the states after the final norm of the wanted rows. Keys and values of the rows enter the cache; attention reads them there.
 * adapter NULL: the base model. saved NULL: inference. Returns OK, E_RANGE (token, sequence or position out of range) or E_MEMORY. */
int model_forward(const Model *m, const Lora *adapter, const Rows *rows, Cache *kv, Saved *saved, float *hidden, Arena *ws);
/* From dhidden (W,C) of a forward with saved, whose rows hold whole sequences from position 0: adds to every grad that is not NULL.
 * Returns OK or E_MEMORY. */
int model_backward(const Model *m, const Lora *adapter, const Rows *rows, Cache *kv, const Saved *saved, const float *dhidden,
                   Arena *ws);
/* The head, in blocks of rows: logits are never stored whole. Entry w of all arrays belongs to row w of hidden (W,C). logprob of target[w],
 * entropy (NULL: skip). With loss (training), it is called for each block to set dlogprob (n; zeroed before) of tokens first .. first+n-1, and
 * dhidden (W,C) and the head's grad are added to. temperature > 0. Returns OK, E_RANGE (a target) or E_MEMORY. */
typedef void (*TokenLoss)(void *context, int first, int n, const float *logprob, float *dlogprob);
typedef struct { const int *target; float temperature, *logprob, *entropy; TokenLoss loss; void *context; float *dhidden; } HeadTask;
int model_logprobs(const Model *m, const float *hidden, int W, const HeadTask *task, Arena *ws);
/* kl (W): exact KL(m || ref) over the vocabulary, from the hidden states (W,C) of both. OK or E_MEMORY. */
int model_full_kl(const Model *m, const float *hidden, const Model *ref, const float *ref_hidden, int W, float temperature, float *kl,
                  Arena *ws);
/* value (W) = hidden (W,C) weight^T + bias; backward adds to dhidden (W,C) and the head's gradients. */
void model_values(const ValueHead *h, const float *hidden, float *value, int W, Arena *ws);
void model_values_backward(const ValueHead *h, const float *dvalue, const float *hidden, float *dhidden, int W, Arena *ws);
/* Sampling. temperature 0: greedy (first maximum). top_k 0, top_p 1: off. */
typedef struct { float temperature; int top_k; float top_p; } Sampling;
/* One token from logits (V), and its log-prob (NULL: skip) under softmax(logits / temperature) before top-k and top-p (greedy: at
 * temperature 1). scratch (V), order (V; only read and written with top-k or top-p). Of the stream it takes one number, greedy none. */
int sample_token(const float *logits, int V, const Sampling *s, Rng *rng, float *logprob, float *scratch, int *order);
/* One text being written. token has room for `capacity`; the first `prompt` are given, `length` grows; stops after an eos of the
 * model's config (which is kept; stop_at_eos 0: never), or at capacity. logprob, value: of generated tokens, index length - prompt. */
typedef struct { int *token; int prompt, length, capacity, stop_at_eos, done; float *logprob, *value; Rng rng; } Sequence;
/* Who writes: adapter NULL: the base model; head NULL: no values; on_token (may be NULL) hears each new token, and a non-zero return ends that
 * sequence. */
typedef struct { const Lora *adapter; const ValueHead *head; Sampling sampling; int (*on_token)(void *context, int sequence, int token);
                 void *context; } Writing;
/* Fills B sequences (cache texts 0..B-1); finished ones leave the batch. Returns OK, E_RANGE (an empty prompt, a capacity beyond the cache, a
 * token) or E_MEMORY. Measuring: give prompts of the largest sizes; neither tokens nor cache are touched. */
int model_generate(const Model *m, const Writing *w, Sequence *seq, int B, Cache *kv, Arena *ws);

/* ================================================================================================================
 * reward.c (level 5): the judge. RoBERTa for sequence classification.
 * ================================================================================================================ */
enum { LABELS_MAX = 32 };
typedef struct {
    int V, positions, types;                /* positions: max_position_embeddings (514 means 512 usable) */
    StackKind stack;
    const Names *names;                     /* of tensors in files; NULL: none */
    int pad, bos, eos;
    int labels; char label[LABELS_MAX][48]; /* id2label */
} RewardConfig;
typedef struct { RewardConfig config; Matrix word, position, type, norm, norm_b; Stack stack; Matrix dense, dense_b, out, out_b;
                 Tensor *tensor; int tensors; } RewardModel;
/* B texts one after another: token (N), start (B+1). Each begins with <s>; longer than positions - pad - 1 is E_RANGE (truncate first). */
typedef struct { int N, B; const int *token, *start; } Texts;
/* What backward needs: the stack's, keys and values (one layer with recompute, else all), the sum of the embeddings (N,C), pooled (B,C). */
typedef struct { Saved stack; Cache kv; float *embed, *pooled; } RewardSaved;
/* types (NULL: F32): of the layers' linears and the embeddings, as for policies; the classifier's two linears stay float32. OK, E_UNSUPPORTED
 * (weights that are trained in another type), E_RANGE (the config's sizes) or E_MEMORY. */
enum { TRAIN_NOTHING, TRAIN_ALL, TRAIN_HEAD /* the classifier alone: what goes with an adapter */ };
int reward_carve(RewardModel *m, const RewardConfig *c, const WeightTypes *types, int trainable, Pool *lists, Arena *a, Error *err);
void reward_init(RewardModel *m, uint64_t seed);    /* linears normal 1/sqrt(I), embeddings 0.02, norms 1, biases 0 */
/* Up to N tokens in up to B texts. */
void reward_saved_carve(RewardSaved *s, const RewardConfig *c, int N, int B, int recompute, Arena *a);
int reward_max_tokens(const RewardConfig *c);       /* longest text in tokens, special tokens included */
/* Both return OK, E_RANGE (a token, a text too long or empty) or E_MEMORY. With a measuring ws, texts needs only N and B. logits and
 * dlogits (B,labels); saved NULL: inference. Backward adds to every grad of the model. */
int reward_forward(const RewardModel *m, const Lora *adapter, const Texts *texts, RewardSaved *saved, float *logits, Arena *ws);
int reward_backward(const RewardModel *m, const Lora *adapter, const Texts *texts, RewardSaved *saved, const float *dlogits, Arena *ws);
/* Bradley-Terry: texts 2i chosen, 2i+1 rejected; loss (B/2) = -log sigmoid(logit0 chosen - logit0 rejected). */
void ranking_forward(float *loss, const float *logits, int labels, int pairs);
void ranking_backward(float *dlogits, const float *dloss, const float *logits, int labels, int pairs);

/* ================================================================================================================
 * checkpoint.c (level 4): Hugging Face folders in and out. It fills the caller's list of tensors.
 * (Declared after the configs that it reads. It knows files and names, not models.)
 * ================================================================================================================ */
/* STEM is "model", "value_head" (both: names as in the list) or "adapter_model" (names after peft's "base_model.model."). */
/* Loads FOLDER/STEM.safetensors, or the shards of FOLDER/STEM.safetensors.index.json, or the same in PyTorch's
 * .bin (of "model": pytorch_model.bin). Every tensor that is neither OPTIONAL nor TIED must be there with its
 * shape; other names of it are tried too (files/config.c). Each tensor becomes what its matrix is. From F32,
 * F16, BF16 in the file: widened or rounded; into NF4: rounded to quant->dtype, then quantised as it is read
 * (quant->absmax NULL: doubly). From bitsandbytes' 4 bits: into NF4 of the same kind, block and doubling bit
 * for bit, and quant->dtype is set; into floats: dequantised, rounded to the dtype that was quantised.
 * OK, or a code and *err; then some of the weights may have been read. */
int checkpoint_load(const char *folder, const char *stem, const Tensor *list, int tensors, Pool *pool, Error *err);
/* How the file stores one tensor. */
typedef struct {
    int type, dtype;                        /* F32, BF16, F16, -1: another (dtype is the same); NF4: dtype is
                                             * what was quantised */
    int kind, block, doubled;               /* of NF4 */
    int rank; uint64_t shape[2];            /* the first two sizes; of NF4: of the weight */
    uint64_t bytes;                         /* in the file; of NF4 with its scales */
} Storage;
/* Finds out how tensor `name` is stored, from the files' headers alone: what to carve before loading. OK or a code. */
int checkpoint_storage(Storage *s, const char *folder, const char *stem, const char *name, Pool *pool, Error *err);
/* Writes FOLDER/STEM.safetensors in dtype F32, BF16 or F16; shard_bytes not 0: shards of at most so many bytes,
 * the index last. NF4 matrices are written as bitsandbytes has them (quant->dtype says what they become
 * again). Atomic: each file is complete or not there. OK or a code. */
int checkpoint_save(const char *folder, const char *stem, const Tensor *list, int tensors, int dtype,
                    uint64_t shard_bytes, Pool *pool, Error *err);
/* Sets a stack's kind and the names of tensors: Llama's (RMS norms before each half, gated SiLU, RoPE, causal); RoBERTa's (LayerNorm after each
 * sum, GELU, biases; K and D follow from C and H). */
void config_llama(ModelConfig *c);
void config_roberta(RewardConfig *c);
/* Configs: what is missing gets Hugging Face's default, what is not supported is refused by name. */
int config_load(ModelConfig *c, const char *folder, Pool *pool, Error *err);        /* config.json, generation_config.json's eos */
/* Writes config.json and generation_config.json; with a quantization_config if `types` (NULL: none) has layers of NF4. */
int config_save(const ModelConfig *c, const WeightTypes *types, const char *folder, int dtype, Pool *pool, Error *err);
/* config.json's quantization_config (bitsandbytes, 4 bits): layers NF4, kind, doubled, compute, and block 64, of which it says nothing
 * (checkpoint_storage does); all zeros where there is none. config_load refuses other methods. */
int config_quantization(WeightTypes *w, const char *folder, Pool *pool, Error *err);
/* How a policy's folder has its weights: what a frozen policy is best held in. E_UNSUPPORTED: in another way than F32, F16, BF16, 4 bits. */
int policy_types(WeightTypes *w, const char *folder, Pool *pool, Error *err);
int reward_config_load(RewardConfig *c, const char *folder, Pool *pool, Error *err);
int reward_config_save(const RewardConfig *c, const char *folder, int dtype, Pool *pool, Error *err);
/* adapter_config.json. Fills R, alpha, rslora, targets (a list of names; "all-linear" becomes the seven). Unsupported features
 * (use_dora, rank_pattern, modules_to_save, bias other than none ...) are refused by name. */
int adapter_config_load(LoraConfig *l, const char *folder, Pool *pool, Error *err);
int adapter_config_save(const LoraConfig *l, const char *folder, const char *base_model /* NULL: null */, Pool *pool, Error *err);
/* llama2.c's checkpoint at path (*.bin: legacy, version 1 or 2) as a Llama: config, and tensors in F32 with Hugging Face's names and order of
 * rows, all in pool. OK, or a code and *err. */
typedef struct { ModelConfig config; Tensor *tensor; int tensors, version /* 0: legacy */; } Llama2c;
int llama2c_load(Llama2c *l, const char *path, Pool *pool, Error *err);
/* A tokenizer from a folder that has tokenizer.json, tokenizer.model, spiece.model, vocab.json + merges.txt, or vocab.txt (the first of these
 * that is there and supported), with the tokens that added_tokens.json and tokenizer_config.json add; or from one such file, as it is. */
Tokenizer *tokenizer_open(const char *path, Pool *pool, Error *err);
int tokenizer_exists(const char *folder, Pool *pool);       /* 1 if it has one of these files */
/* Its own files, added_tokens.json, tokenizer_config.json (max_length: model_max_length, in tokens) and special_tokens_map.json. */
int tokenizer_save(const Tokenizer *t, const char *folder, int max_length, Pool *pool, Error *err);

#endif
