/* tests/fuzz/bad.c - mutation fuzzing of every reader of bytes. From one valid file of each kind, thousands
 * of broken ones are made: cut, flipped, spliced, repeated, with huge numbers, with other JSON values, or
 * random. Each must be read, or be refused with an error that says something; never a crash, an endless loop
 * or a flood of memory. What was read is used, so that a wrong number that was accepted shows. Deterministic.
 * To be built with -fsanitize=address,undefined (`make test` does so).
 *     bad [ROUNDS]     mutations for each reader (2000) */
#include "test.h"
#include "../../files/files.h"
#include "../programs.h"
#include "text/text.h"
#include "torch_files.h"
#include <time.h>

static char base[64];
static Error err;
static int rounds = 2000;

/* ---- memory: limited, so that a small file that makes a reader take a lot is seen; it runs out on request
 * ---- */
enum { MEMORY_LIMIT = 64 << 20 };
static long allowed = -1;                       /* how many more blocks there are; -1: any number */
static size_t held;                             /* bytes of the pool's blocks */
static void *limited(size_t bytes) {
    size_t *block;
    if (allowed == 0 || bytes > MEMORY_LIMIT - held) return NULL;
    if (allowed > 0) allowed--;
    block = malloc(bytes + 16);
    if (!block) return NULL;
    *block = bytes;
    held += bytes;
    return (char *)block + 16;
}
static void give_back(void *block) {
    size_t *b = (size_t *)(void *)((char *)block - 16);
    held -= *b;
    free(b);
}
static Pool limited_pool(void) {
    Pool p;
    memset(&p, 0, sizeof p);
    p.source = limited;
    p.sink = give_back;
    return p;
}

/* ---- files ---- */
static const char *in_base(const char *name) {
    static char path[4][128];
    static int turn;
    char *p = path[turn = (turn + 1) % 4];
    sprintf(p, "%.60s/%.60s", base, name);
    return p;
}
static void spit(const char *path, const void *bytes, size_t n) {
    FILE *f = fopen(path, "wb");
    if (!f || (n && fwrite(bytes, 1, n, f) != n) || fclose(f)) { printf("cannot write %s\n", path); exit(2); }
}

/* ---- one valid file, in a block of exactly its length, so that the sanitizer sees a read past its end
 * ---- */
typedef struct { unsigned char *bytes; size_t n; } Blob;

static Blob blob(const void *bytes, size_t n) {
    Blob b;
    b.bytes = malloc(n ? n : 1);
    b.n = n;
    if (n) memcpy(b.bytes, bytes, n);
    return b;
}
static Blob blob_file(const char *path) {
    Pool pool = test_pool();
    char *bytes;
    size_t n;
    Blob b;
    if (file_read_all(path, &pool, &bytes, &n, NULL) != OK) { printf("cannot read %s\n", path); exit(2); }
    b = blob(bytes, n);
    pool_free(&pool);
    return b;
}

/* ---- mutations ---- */
static size_t below(Rng *r, size_t n) { return n ? (size_t)rng_below(r, n) : 0; }

/* Replaces `cut` bytes of b at `at` by n others. */
static void replace(Blob *b, size_t at, size_t cut, const void *with, size_t n) {
    Blob out;
    out.n = b->n - cut + n;
    out.bytes = malloc(out.n ? out.n : 1);
    memcpy(out.bytes, b->bytes, at);
    if (n) memcpy(out.bytes + at, with, n);
    memcpy(out.bytes + at + n, b->bytes + at + cut, b->n - at - cut);
    free(b->bytes);
    *b = out;
}

/* Finds the next decimal number, string or word from a random place on: *at and its length; 0: there is
 * none. */
static size_t next_token(const Blob *b, Rng *r, int digits, size_t *at) {
    size_t n = 0, i = below(r, b->n);
    for (; i < b->n; i++) {
        int c = b->bytes[i], digit = c >= '0' && c <= '9';
        int word = digit || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '.'
            || c == '"';
        if (digits ? digit : word) n++;
        else if (n) break;
    }
    *at = i - n;
    return n;
}

/* Repeats a token and the comma after it many times: lists become longer than a reader may expect. */
static void repeat(Blob *b, Rng *r) {
    size_t at, n = next_token(b, r, 0, &at), times = 1 + below(r, 60);
    Blob piece;
    if (!n) return;
    piece = blob(b->bytes + at, n);
    replace(&piece, n, 0, ",", 1);
    for (; times; times--) replace(b, at, 0, piece.bytes, piece.n);
    free(piece.bytes);
}

/* Breaks b in one of twelve ways. gentle: only other numbers and other values, which parsers accept more
 * often. */
static void mutate(Blob *b, Rng *r, int gentle) {
    static const char *const number[] = {
        "99999999999999999999", "-1", "0", "1e308", "0.5", "18446744073709551615", "4294967296", "2147483648",
        "2147483647", "65536", "1", "9007199254740993", "-0.0", "1e-400" };
    static const char *const value[] = { "null", "true", "[]", "{}", "\"\"", "[[[[[[[[", "{\"a\":",
        "\"\\u0000\"", "\"\\ud800\"", "7", "\"../x\"", "," };
    static const unsigned char odd[] = { 0, 255, 127, 128, '"', '{', '}', '[', ']', '\\', ',', ':', '-', 'e',
        '9', ' ', '\n' };
    unsigned char big[8];
    const char *w;
    Blob piece;
    size_t at, n;
    switch (gentle ? 6 + below(r, 5) : below(r, 12)) {
    case 0:                                     /* cuts the end off */
        b->n = below(r, b->n + 1);
        replace(b, b->n, 0, NULL, 0);
        break;
    case 1:                                     /* flips some bits */
        for (n = 1 + below(r, 4); b->n && n; n--)
            b->bytes[below(r, b->n)] ^= (unsigned char)(1u << below(r, 8));
        break;
    case 2: if (b->n) b->bytes[below(r, b->n)] = odd[below(r, sizeof odd)]; break;
    case 3:                                     /* repeats a piece in another place */
        at = below(r, b->n);
        n = below(r, b->n - at < 64 ? b->n - at + 1 : 64);
        piece = blob(b->bytes + at, n);
        replace(b, below(r, b->n + 1), 0, piece.bytes, n);
        free(piece.bytes);
        break;
    case 4: case 10: repeat(b, r); break;
    case 5:                                     /* leaves a piece out */
        at = below(r, b->n);
        replace(b, at, below(r, b->n - at < 64 ? b->n - at + 1 : 64), NULL, 0);
        break;
    case 6: case 7:                             /* writes a large number of 1 to 8 bytes */
        n = (size_t)1 << below(r, 4);
        for (size_t i = 0, kind = below(r, 4), shift = below(r, 64); i < 8; i++)
            big[i] = (unsigned char)(kind == 0 ? 255 : kind == 1 ? (i == n - 1 ? 127 : 255) : kind == 2
                                     ? (i == n - 1 ? 128 : 0) : i == shift / 8 ? 1u << shift % 8 : 0);
        if (b->n >= n) memcpy(b->bytes + (below(r, 3) ? below(r, b->n - n + 1) : 0), big, n);
        break;
    case 8:                                     /* another decimal number */
        n = next_token(b, r, 1, &at);
        w = number[below(r, sizeof number / sizeof *number)];
        if (n) replace(b, at, n, w, strlen(w));
        break;
    case 9:                                     /* another value, or another key */
        n = next_token(b, r, 0, &at);
        w = value[below(r, sizeof value / sizeof *value)];
        if (n && at + n < b->n && b->bytes[at + n] == ':') w = "\"model_type\"";
        if (n) replace(b, at, n, w, strlen(w));
        break;
    default:                                    /* noise, in a part or in all of it */
        at = below(r, 8) ? below(r, b->n) : 0;
        n = at ? below(r, b->n - at < 32 ? b->n - at + 1 : 32) : b->n;
        for (size_t i = 0; i < n; i++) b->bytes[at + i] = (unsigned char)rng_next(r);
    }
}

/* ---- the readers: each reads b, uses the result, and returns its code, or -1 if the result is wrong ---- */
typedef int (*Read)(const Blob *b, Pool *pool);
static Blob other;                              /* the second file of readers that need two */

static int use_tokenizer(const Tokenizer *t, Pool *pool) {
    static const char text[] = "the cats sat; a \xf0\x9f\xa6\x99 dog  on 3 m\xff\xc3ts\n <s> </s> "
        "[PAD]<|im_start|>ab";
    AddedToken added;
    Error inner = { 0 };
    SpecialIds s = tokenizer_specials(t);
    Buffer x = { pool, NULL, 0, 0, 0 };
    int size = tokenizer_size(t), *ids, count, id[2], before, after, code;
    size_t n, sum = 0;
    char *out;
    code = tokenizer_encode(t, text, sizeof text - 1, pool, &ids, &count);
    if (code == OK)
        for (int i = 0; i < count; i++) if (!tokenizer_piece(t, ids[i], NULL)) return -1;
    if (code == OK) code = tokenizer_decode(t, ids, count, pool, &out, &n);
    if (code == OK) code = tokenizer_decode_all(t, ids, count, pool, &out, &n);
    if (code == OK) code = tokenizer_encode_plain(t, text, sizeof text - 1, 0, pool, &ids, &count);
    if (code == E_MEMORY) return OK;            /* it was read, but memory ran out later */
    if (code != OK || size < 0) return -1;
    for (int i = 0; i < count; i++) if (ids[i] < 0 || ids[i] >= size) return -1;
    for (int i = 0, last = -1; tokenizer_added(t, i, &added); i++, last = added.id) {
        if (added.id <= last || added.id >= size || !added.text || !added.length
            || strlen(added.text) > added.length) return -1;
        if (tokenizer_find(t, added.text, added.length) < 0) return -1;
    }
    if (tokenizer_chat_template(t)) sum += strlen(tokenizer_chat_template(t));
    if (!tokenizer_class(t)) return -1;
    for (int i = -1; i <= size && i < 2000; i++) {
        const char *piece = tokenizer_piece(t, i, &n);
        if (piece && (i < 0 || i >= size)) return -1;  /* a number below size may be no token's */
        if (piece) for (size_t k = 0; k < n; k++) sum += (unsigned char)piece[k];
        if (piece && tokenizer_find(t, piece, n) >= size) return -1;
    }
    id[0] = s.bos;
    id[1] = size;
    code = tokenizer_decode(t, id + 1, 1, pool, &out, &n);     /* a padded vocabulary: nothing */
    if (code == E_MEMORY) return OK;
    if (code != OK || n) return -1;
    id[1] = -1;
    if (tokenizer_decode(t, id + 1, 1, pool, &out, &n) == OK) return -1;
    if (s.bos >= size || s.eos >= size || s.unk >= size || s.pad >= size) return -1;
    tokenizer_template(t, &before, &after);
    if (tokenizer_file(t, "tokenizer.json", &x) != OK) code = tokenizer_make_json(t, &x);
    if (code == OK && !json_parse((const char *)x.data, x.length, pool, &inner) && inner.code != E_MEMORY)
        return -1;
    tokenizer_file(t, "tokenizer.model", &x);
    tokenizer_file(t, "merges.txt", &x);
    return sum == 0xffffffffu ? -1 : OK;
}

static int read_sentencepiece(const Blob *b, Pool *pool) {
    Tokenizer *t = tokenizer_sentencepiece(b->bytes, b->n, pool, &err);
    return t ? use_tokenizer(t, pool) : err.code;
}
static int read_vocab(const Blob *b, Pool *pool) {
    Tokenizer *t = tokenizer_bytelevel(b->bytes, b->n, other.bytes, other.n, pool, &err);
    return t ? use_tokenizer(t, pool) : err.code;
}
static int read_merges(const Blob *b, Pool *pool) {
    Tokenizer *t = tokenizer_bytelevel(other.bytes, other.n, b->bytes, b->n, pool, &err);
    return t ? use_tokenizer(t, pool) : err.code;
}
static int read_tokenizer_json(const Blob *b, Pool *pool) {
    Tokenizer *t = tokenizer_json(b->bytes, b->n, pool, &err);
    return t ? use_tokenizer(t, pool) : err.code;
}
/* Compiles a regular expression, and finds its matches in a text. */
static int read_regex(const Blob *b, Pool *pool) {
    static const char s[] = "I'm  you've 123 \xc3\xa9t\xc3\xa9!?  \n\n x\xff\xe6\xbc\xa2  ";
    Text pattern = { (const char *)b->bytes, b->n }, text = { s, sizeof s - 1 };
    size_t at, from, to, last;
    Regex r;
    int code = regex_compile(&r, pattern, pool, &err);
    for (at = last = 0; code == OK && at < text.length && regex_find(&r, text, at, &from, &to); last = to) {
        if (from < at || from < last || to < from || to > text.length) code = -1;
        at = to > from ? to : from + 1;
    }
    return code;
}
/* Reads one of the three files that may be beside a tokenizer; `other` is the tokenizer's own file (a
 * tokenizer.model, a tokenizer.json, or a vocab.txt that begins with "["). */
enum { ADDED_TOKENS, TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP };
static int read_beside_file(const Blob *b, int which, Pool *pool) {
    int first = other.n ? other.bytes[0] : 0;
    Tokenizer *t = (first == '{' ? tokenizer_json : first == '[' ? tokenizer_wordpiece
                    : tokenizer_sentencepiece)(other.bytes, other.n, pool, &err);
    const Json *j = t ? json_parse((const char *)b->bytes, b->n, pool, &err) : NULL;
    const Json *file[3] = { NULL, NULL, NULL };
    int code;
    file[which] = j;
    code = !j ? err.code : tokenizer_beside(t, file[ADDED_TOKENS], file[TOKENIZER_CONFIG],
                                            file[SPECIAL_TOKENS_MAP], pool, &err);
    return code == OK ? use_tokenizer(t, pool) : code;
}
static int read_added_tokens(const Blob *b, Pool *pool) { return read_beside_file(b, ADDED_TOKENS, pool); }
static int read_tokenizer_config(const Blob *b, Pool *pool) {
    return read_beside_file(b, TOKENIZER_CONFIG, pool);
}
static int read_special_map(const Blob *b, Pool *pool) {
    return read_beside_file(b, SPECIAL_TOKENS_MAP, pool);
}
static size_t walk(const Json *j) {
    size_t n = 1, children = 0;
    for (const Json *c = j->child; c; c = c->next, children++) n += walk(c);
    if (j->type == JSON_STRING) n += strlen(j->string) > j->length;         /* finds the NUL */
    return children == j->count ? n : 0;
}
static int read_json(const Blob *b, Pool *pool) {
    const Json *j = json_parse((const char *)b->bytes, b->n, pool, &err);
    return !j ? err.code : walk(j) ? OK : -1;
}

/* Loads the two tensors that the small checkpoints below hold. */
static int load_small(Pool *pool) {
    f32 x[6], y[3];
    Matrix a, n;
    Tensor list[2];
    int code;
    memset(&a, 0, sizeof a);
    memset(&n, 0, sizeof n);
    memset(list, 0, sizeof list);
    a.O = 2; a.I = 3; a.data = x;
    n.O = 1; n.I = 3; n.data = y;
    strcpy(list[0].name, "model.a.weight");
    strcpy(list[1].name, "model.n.weight");
    list[0].matrix = &a;
    list[1].matrix = &n;
    list[1].flags = TENSOR_VECTOR;
    code = checkpoint_load(base, "model", list, 2, pool, &err);
    return code;
}
static int read_safetensors(const Blob *b, Pool *pool) {
    int code;
    spit(in_base("model.safetensors"), b->bytes, b->n);
    code = load_small(pool);
    remove(in_base("model.safetensors"));
    return code;
}
/* Loads a tensor in 4 bits, 3 x 43 in blocks of 32, into 4 bits of the same kind or into floats, and asks how
 * it is stored. */
static int load_4bit(int type, int doubled, Pool *pool) {
    unsigned char packed[65], code[5];
    f32 x[129], absmax[5], nested[1], map[256];
    Storage storage;
    Matrix a;
    Quant q;
    Tensor t;
    int answer;
    memset(&a, 0, sizeof a);
    memset(&t, 0, sizeof t);
    memset(&q, 0, sizeof q);
    memset(packed, 0, sizeof packed);
    memset(code, 0, sizeof code);
    memset(map, 0, sizeof map);
    nested[0] = 0;
    a.O = 3;
    a.I = 43;
    a.type = type;
    a.data = type == F32 ? (void *)x : (void *)packed;
    a.quant = type == F32 ? NULL : &q;
    q.block = 32;
    if (!doubled) q.absmax = absmax;
    q.code = code; q.nested = nested; q.map = map;
    strcpy(t.name, "model.a.weight");
    t.matrix = &a;
    answer = checkpoint_load(base, "model", &t, 1, pool, &err);
    if (answer == OK && type == NF4) dequantize_4bit(x, packed, &q, 0, 129);
    if (answer == OK) {
        Error inner;
        memset(&inner, 0, sizeof inner);
        if (checkpoint_storage(&storage, base, "model", "model.a.weight", pool, &inner) != OK)
            return inner.code == E_MEMORY ? OK : -1;
        if (storage.rank != 2 || storage.shape[0] != 3 || storage.shape[1] != 43) return -1;
        if (type == NF4 && (storage.type == NF4) && (storage.kind != QUANT_NF4 || storage.block != 32
                || storage.doubled != doubled)) return -1;
    }
    return answer;
}
static int read_4bit(const Blob *b, int type, int doubled, Pool *pool) {
    int code;
    spit(in_base("model.safetensors"), b->bytes, b->n);
    code = load_4bit(type, doubled, pool);
    remove(in_base("model.safetensors"));
    return code;
}
static int read_bnb(const Blob *b, Pool *pool) { return read_4bit(b, NF4, 0, pool); }
static int read_bnb_doubled(const Blob *b, Pool *pool) { return read_4bit(b, NF4, 1, pool); }
static int read_bnb_floats(const Blob *b, Pool *pool) { return read_4bit(b, F32, 0, pool); }
/* Reads b as a quant_state, in a file whose other parts (`other`) are valid. */
static int read_quant_state(const Blob *b, Pool *pool) {
    Blob file = blob(other.bytes, other.n);
    char header[1024];
    unsigned char n[8];
    int code;
    sprintf(header, "{\"model.a.weight\":{\"dtype\":\"U8\",\"shape\":[65,1],\"data_offsets\":[0,65]},"
            "\"model.a.weight.absmax\":{\"dtype\":\"F32\",\"shape\":[5],\"data_offsets\":[65,85]},"
            "\"model.a.weight.quant_map\":{\"dtype\":\"F32\",\"shape\":[16],\"data_offsets\":[85,149]},"
            "\"model.a.weight.quant_state.bitsandbytes__nf4\":{\"dtype\":\"U8\",\"shape\":[%d],"
            "\"data_offsets\":[149,%d]}}", (int)b->n, (int)b->n + 149);
    for (int i = 0; i < 8; i++) n[i] = (unsigned char)((uint64_t)strlen(header) >> (8 * i));
    replace(&file, 0, 0, header, strlen(header));
    replace(&file, 0, 0, n, 8);
    replace(&file, file.n, 0, b->bytes, b->n);
    code = read_bnb(&file, pool);
    free(file.bytes);
    return code;
}
/* Loads two tensors of a PyTorch file: a transposed one into floats, another into 4 bits. */
static int read_torch(const Blob *b, Pool *pool) {
    f32 x[6], absmax[1];
    unsigned char packed[3];
    Matrix a, h;
    Quant q;
    Tensor list[2];
    memset(&a, 0, sizeof a);
    memset(&h, 0, sizeof h);
    memset(&q, 0, sizeof q);
    memset(list, 0, sizeof list);
    a.O = 3; a.I = 2; a.data = x;
    h.O = 3; h.I = 2; h.type = NF4; h.data = packed; h.quant = &q;
    q.block = 32; q.absmax = absmax;
    strcpy(list[0].name, "a.transposed");
    strcpy(list[1].name, "i.half");
    list[0].matrix = &a;
    list[1].matrix = &h;
    spit(in_base("pytorch_model.bin"), b->bytes, b->n);
    return checkpoint_load_part(base, "model", list, 2, pool, &err);
}
/* Reads b as a safetensors header, with its length before it and data after it: only its contents are
 * wrong. */
static int read_header(const Blob *b, Pool *pool) {
    Blob file = blob(b->bytes, b->n);
    unsigned char n[8], data[36];
    int code;
    for (int i = 0; i < 8; i++) n[i] = (unsigned char)((uint64_t)b->n >> (8 * i));
    memset(data, 0, sizeof data);
    replace(&file, 0, 0, n, 8);
    replace(&file, file.n, 0, data, sizeof data);
    code = read_safetensors(&file, pool);
    free(file.bytes);
    return code;
}
static int read_index(const Blob *b, Pool *pool) {
    spit(in_base("model.safetensors.index.json"), b->bytes, b->n);
    return load_small(pool);
}

static int use_config(const ModelConfig *c, Pool *pool) {
    Arena measure;
    Model m;
    Error inner;
    memset(&measure, 0, sizeof measure);
    memset(&m, 0, sizeof m);
    memset(&inner, 0, sizeof inner);
    if (c->stack.D < 2 || c->stack.D % 2 || c->stack.K < 1 || c->stack.H % c->stack.K || c->eos_count < 0
        || c->eos_count > 8) return -1;
    /* measures what the model would take */
    model_carve(&m, c, NULL, 1, c->positions < 64 ? c->positions : 64, pool, &measure, &inner);
    return OK;
}
static int read_config(const Blob *b, Pool *pool) {
    ModelConfig c;
    int code;
    spit(in_base("config.json"), b->bytes, b->n);
    code = config_load(&c, base, pool, &err);
    return code == OK ? use_config(&c, pool) : code;
}
static int read_generation_config(const Blob *b, Pool *pool) {
    ModelConfig c;
    int code;
    spit(in_base("config.json"), other.bytes, other.n);
    spit(in_base("generation_config.json"), b->bytes, b->n);
    code = config_load(&c, base, pool, &err);
    remove(in_base("generation_config.json"));
    return code == OK ? use_config(&c, pool) : code;
}
static int read_reward_config(const Blob *b, Pool *pool) {
    Arena measure;
    RewardConfig c;
    RewardModel m;
    Error inner;
    int code;
    spit(in_base("config.json"), b->bytes, b->n);
    code = reward_config_load(&c, base, pool, &err);
    if (code != OK) return code;
    if (c.labels < 1 || c.labels > LABELS_MAX || reward_max_tokens(&c) < 1) return -1;
    for (int i = 0; i < c.labels; i++) if (!memchr(c.label[i], 0, sizeof c.label[i])) return -1;
    memset(&measure, 0, sizeof measure);
    memset(&m, 0, sizeof m);
    memset(&inner, 0, sizeof inner);
    reward_carve(&m, &c, NULL, 1, pool, &measure, &inner);
    return OK;
}
/* Reads a file of llama2.c, which has to give as many tensors as its sizes say, each of them in memory. */
static int read_llama2c(const Blob *b, Pool *pool) {
    Llama2c l;
    int code, sum = 0;
    spit(in_base("model.bin"), b->bytes, b->n);
    code = llama2c_load(&l, in_base("model.bin"), pool, &err);
    if (code != OK) return code;
    if (l.tensors != 9 * l.config.stack.L + 2 + !l.config.tied) return -1;
    for (int i = 0; i < l.tensors; i++) {
        const Matrix *m = l.tensor[i].matrix;
        size_t n = (size_t)m->O * (size_t)m->I;
        unsigned char first, last;
        memcpy(&first, m->data, 1);
        memcpy(&last, (unsigned char *)m->data + n * sizeof(f32) - 1, 1);
        sum += first + last;
    }
    return use_config(&l.config, pool) == OK && sum >= 0 ? OK : -1;
}
/* Visits a state of every kind of field, without its checksum, which would refuse everything. */
static void visit_state(void *run, State *s) {
    static float numbers[20];
    long long large = 5;
    double real[2] = { 1, 2 };
    int n = 3, list[4] = { 1, 2, 3, 4 };
    const char *text = "some text";
    size_t length = 9;
    (void)run;
    state_int(s, "small", &n, 0, 10);
    state_integer(s, "large", &large, -9, 9);
    state_ints(s, "list", list, 4, 0, 9);
    state_text(s, "text", &text, &length);
    state_reals(s, "reals", real, 2);
    state_floats(s, "floats", numbers, 20);
    state_same(s, "hash", 99, "another hash", NULL);
    if (s->code == OK && (n < 0 || n > 10 || list[3] > 9 || strlen(text) > length)) s->code = -1;
}
static int read_state(const Blob *b, Pool *pool) {
    int whole;
    spit(in_base("state"), b->bytes, b->n);
    whole = state_read(in_base("state"), visit_state, NULL, pool, &err);
    if (whole != OK) memset(&err, 0, sizeof err);
    const int code = state_peek(in_base("state"), visit_state, NULL, pool, &err);
    return whole == OK && code != OK && code != E_MEMORY ? -1 : code;
}
static int read_options(const Blob *b, Pool *pool) {
    ConfigFile c;
    size_t sum = 0;
    spit(in_base("options"), b->bytes, b->n);
    const int code = config_file_read(&c, in_base("options"), pool, &err);
    for (int i = 0; code == OK && i < c.count; i++)
        sum += (strlen(c.list[i].name) > 0) + strlen(c.list[i].value);
    return code != OK || sum >= (size_t)c.count || c.program ? code : -1;
}
static int read_adapter_config(const Blob *b, Pool *pool) {
    Arena measure;
    Matrix w;
    Tensor t;
    LoraConfig l;
    Lora m;
    Error inner;
    int code;
    memset(&l, 0, sizeof l);
    spit(in_base("adapter_config.json"), b->bytes, b->n);
    code = adapter_config_load(&l, base, pool, &err);
    if (code != OK) return code;
    if (l.prompt.rows < 0 || l.prompt.stored < l.prompt.rows) return -1;
    if (!l.prompt.rows && (!l.targets || l.R < 1)) return -1;
    memset(&measure, 0, sizeof measure);
    memset(&m, 0, sizeof m);
    memset(&w, 0, sizeof w);
    memset(&t, 0, sizeof t);
    memset(&inner, 0, sizeof inner);
    w.O = w.I = 4;
    t.matrix = &w;
    strcpy(t.name, "model.layers.0.self_attn.q_proj.weight");
    t.flags = TENSOR_LINEAR;
    lora_carve(&m, &t, 1, &l, 1, pool, &measure, &inner);
    return OK;
}
static int read_dataset(const Blob *b, Pool *pool) {
    Dataset d;
    size_t sum = 0;
    int code;
    spit(in_base("data.bin"), b->bytes, b->n);
    code = dataset_read(&d, in_base("data.bin"), pool, &err);
    if (code != OK) return code;
    for (int i = 0; i < d.labels; i++) sum += strlen(d.label[i]);
    for (uint64_t i = 0; i < d.count; i++) {
        const Document *x = &d.document[i];
        if (x->label < -1 || x->label >= (d.labels ? d.labels : INT_MAX) || x->split < 0 || x->split > 1)
            return -1;
        for (int k = 0; k < (d.kind == DATA_TEXT ? 1 : 2); k++)
            for (uint32_t c = 0; c < x->length[k]; c++) sum += (unsigned char)x->text[k][c];
    }
    return sum == 0xffffffffu ? -1 : OK;
}
static int read_html(const Blob *b, Pool *pool) {
    const char *text;
    size_t n, sum = 0;
    if (html_text((const char *)b->bytes, b->n, pool, &text, &n) != OK)
        return fail(&err, E_MEMORY, "no memory for the text", "", 0, 0);
    for (size_t i = 0; i < n; i++) sum += (unsigned char)text[i];
    return n > 2 * b->n || sum > n * 255 ? -1 : OK;
}
/* Reads the bytes as the log and as the samples of a run, and writes the page: no byte of the data may become
 * markup or a control character. */
static int read_run(const Blob *b, Pool *pool) {
    ReportedRun run;
    char *page;
    size_t n;
    Buffer events = { 0 };
    events.pool = pool;
    tensorboard_line(&events, (const char *)b->bytes, b->n, 0);
    spit(in_base("log.jsonl"), b->bytes, b->n);
    spit(in_base("samples.jsonl"), b->bytes, b->n);
    int code = report_read(&run, base, 0, pool, &err);
    if (code == OK) code = report_page(in_base("report.html"), &run, 1, 0, pool, &err);
    if (code == OK) code = file_read_all(in_base("report.html"), pool, &page, &n, &err);
    if (code != OK) return code;
    for (size_t i = 0; i < n; i++)
        if (((unsigned char)page[i] < 32 && page[i] != '\n' && page[i] != '\t') || page[i] == 127) return -1;
    return strstr(page, "<script") || strstr(page, "nan") || !strstr(page, "</html>") ? -1 : OK;
}
static int read_constitution(const Blob *b, Pool *pool) {
    Constitution c;
    size_t sum = 0;
    const int code = constitution_parse(&c, (const char *)b->bytes, b->n, "file", pool, &err);
    if (code != OK) return code;
    for (int kind = 0; kind < CONSTITUTION_KINDS; kind++)
        for (int i = 0; i < c.count[kind]; i++)
            for (int k = 0; k < (kind == PRINCIPLE ? 3 : 4); k++)
                sum += strlen(c.entry[kind][i].text[k]) + strlen(c.entry[kind][i].principle->name);
    return sum && c.count[PRINCIPLE] > 0 ? OK : -1;
}
static int read_lines(const Blob *b, Pool *pool) {
    Lines *l;
    const char *line;
    size_t n, sum = 0;
    char *bytes;
    spit(in_base("lines.txt"), b->bytes, b->n);
    if (text_read_all(in_base("lines.txt"), pool, &bytes, &n, NULL) == OK && n > b->n) return -1;
    l = lines_open(in_base("lines.txt"), pool, &err);
    if (!l) return err.code;
    while (lines_next(l, &line, &n)) for (size_t i = 0; i < n; i++) sum += (unsigned char)line[i] + 1u;
    return sum > b->n * 256 ? -1 : lines_close(l, &err);
}

/* The cells of a record are bytes of the file, or shorter copies of them; the lines are counted. */
static int read_csv(const Blob *b, Pool *pool) {
    Csv c = { .path = "table.csv", .at = (const char *)b->bytes, .separator = ',', .quotes = 1, .line = 1 };
    CsvCell *cell = pool_take(pool, CSV_COLUMNS, sizeof *cell);
    size_t sum = 0, bytes = 0;
    int cells, code = E_MEMORY;
    c.end = c.at + b->n;
    while (cell && (code = csv_next(&c, cell, &cells, pool, &err)) == OK && cells) {
        for (int k = 0; k < cells; k++) {
            bytes += cell[k].length;
            for (size_t i = 0; i < cell[k].length; i++) sum += (unsigned char)cell[k].text[i];
        }
        csv_column(cell, cells, "label");
        if (c.begun < 1 || c.line < c.begun || c.line > (long long)b->n + 1) return -1;
    }
    if (!cell) return fail(&err, E_MEMORY, "out of memory", "", 0, 0);
    return bytes > b->n || sum > b->n * 255 ? -1 : code;
}

/* ---- the rounds ---- */

/* Returns 1 if the code and the error record agree, and the record has a text. */
static int sound(int code) {
    if (code == OK) return 1;
    return code > OK && code <= E_NUMBER && err.code == code && memchr(err.what, 0, sizeof err.what)
        && memchr(err.where, 0, sizeof err.where) && err.what[0];
}

static void fuzz(const char *name, Read read, Blob valid, uint64_t seed) {
    Pool pool = limited_pool();
    int accepted = 0, refused = 0, wrong = 0, first = -1, code;
    long blocks;
    memset(&err, 0, sizeof err);
    code = read(&valid, &pool);
    CHECK(code == OK, "%s: the valid file is read: %d %s", name, code, err.what);
    pool_free(&pool);
    for (int i = 0; i < rounds; i++) {
        Rng r = rng_stream(seed, (uint64_t)i, 0);
        Blob b = blob(valid.bytes, valid.n);
        for (size_t k = 1 + below(&r, 2) * below(&r, 3); k; k--) mutate(&b, &r, i & 1);
        memset(&err, 0, sizeof err);
        code = read(&b, &pool);
        if (code == OK) accepted++; else refused++;
        if (!sound(code)) { wrong++; if (first < 0) first = i; }
        free(b.bytes);
        pool_free(&pool);
    }
    CHECK(wrong == 0, "%s: %d of %d mutations without a sound answer, the first is %d", name, wrong,
          rounds, first);
    CHECK((refused > 0) != (read == read_html), "%s: some mutations are refused (any bytes are HTML)", name);
    CHECK(held == 0, "%s: all memory is given back", name);
    /* memory runs out later and later */
    for (blocks = 0, wrong = 0, code = 1; blocks < 65536 && code != OK; blocks += 48) {
        allowed = 1;    /* one block, of which so much is left */
        if (!pool_take(&pool, (size_t)(65536 - blocks), 1)) break;
        memset(&err, 0, sizeof err);
        code = read(&valid, &pool);
        allowed = -1;
        pool_free(&pool);
        wrong += code != OK && (code != E_MEMORY || !sound(code));
    }
    CHECK(wrong == 0, "%s: with too little memory it says so (%d times not)", name, wrong);
    for (blocks = 0, wrong = 0; blocks < 100; blocks++) {
        memset(&err, 0, sizeof err);
        allowed = blocks;
        code = read(&valid, &pool);
        allowed = -1;
        pool_free(&pool);
        if (code == OK) break;
        wrong += code != E_MEMORY || !sound(code);
    }
    CHECK(wrong == 0 && code == OK, "%s: with too few blocks of memory it says so (%d)", name, code);
    if (getenv("VERBOSE"))
        printf("        %s: %d bytes, %d read, %d refused, %ld blocks\n", name, (int)valid.n, accepted,
               refused, blocks);
    free(valid.bytes);
}

/* ---- valid files ---- */
typedef struct { int at; } Corpus;
static int next_text(void *context, const char **text, size_t *length) {
    static const char *const lines[] = { "the cat sat on the mat", "the dog sat on the cat", "a mat is a mat",
        "cats and dogs and mats" };
    Corpus *s = context;
    if (s->at == 40) return 0;
    *text = lines[s->at++ % 4];
    *length = strlen(*text);
    return 1;
}

static void fuzz_tokenizers(void) {
    Corpus state = { 0 };
    TextSource source = { next_text, NULL };
    Pool pool = test_pool();
    Buffer model = { NULL, NULL, 0, 0, 0 }, vocab = { NULL, NULL, 0, 0, 0 }, merges = { NULL, NULL, 0, 0, 0 };
    Tokenizer *t;
    model.pool = vocab.pool = merges.pool = &pool;
    source.context = &state;
    t = tokenizer_train_sentencepiece(source, 276, &pool, &err);
    CHECK(t && tokenizer_file(t, "tokenizer.model", &model) == OK, "a tokenizer.model to start from: %s",
          err.what);
    if (t) fuzz("tokenizer.model", read_sentencepiece, blob(model.data, model.length), 1);
    state.at = 0;
    t = tokenizer_train_bytelevel(source, 266, &pool, &err);
    CHECK(t && tokenizer_file(t, "vocab.json", &vocab) == OK &&
          tokenizer_file(t, "merges.txt", &merges) == OK,
          "vocab.json and merges.txt to start from: %s", err.what);
    if (t) {
        other = blob(merges.data, merges.length);
        fuzz("vocab.json", read_vocab, blob(vocab.data, vocab.length), 2);
        free(other.bytes);
        other = blob(vocab.data, vocab.length);
        fuzz("merges.txt", read_merges, blob(merges.data, merges.length), 3);
        free(other.bytes);
    }
    pool_free(&pool);
}

/* ---- tokenizer.json, and the files beside a tokenizer ---- */
#define ADDED(id, text, special) \
    "{\"id\": " id ", \"content\": \"" text "\", \"single_word\": false, " \
    "\"lstrip\": false, \"rstrip\": true, " \
    "\"normalized\": false, \"special\": " special "}"
static const char json_gpt2[] = "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, "
    "\"added_tokens\": [" ADDED("0", "<s>", "true") ", " ADDED("1", "</s>", "true") ", "
    ADDED("12", "[PAD]", "false") "], \"normalizer\": null, "
    "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true}, "
    "\"post_processor\": {\"type\": \"RobertaProcessing\", \"sep\": [\"</s>\", 1], \"cls\": [\"<s>\", 0], "
    "\"trim_offsets\": true, \"add_prefix_space\": false}, \"decoder\": {\"type\": \"ByteLevel\"}, "
    "\"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
        "\"continuing_subword_prefix\": \"\", "
    "\"vocab\": {\"<s>\": 0, \"</s>\": 1, \"a\": 2, \"t\": 3, \"h\": 4, \"e\": 5, \"\\u0120\": 6, \"th\": 7, "
    "\"the\": 8, \"\\u0120the\": 9, \"at\": 10, \"\\u010a\": 11}, "
    "\"merges\": [\"t h\", [\"th\", \"e\"], \"\\u0120 the\", \"a t\"]}}";

/* Writes a tokenizer.json like that of Llama's fast tokenizer, with pieces for all bytes. */
static Buffer json_llama(Pool *pool) {
    static const char *const piece[] = { "\u2581", "a", "t", "s", "c", "\u2581a", "at", "cat", "\u2581cat" };
    Buffer b = { NULL, NULL, 0, 0, 0 };
    char byte[24];
    b.pool = pool;
    buffer_text(&b, "{\"version\": \"1.0\", \"added_tokens\": ["
        ADDED("0", "<unk>", "true") ", " ADDED("1", "<s>", "true") ", " ADDED("2", "</s>", "true") ", "
        ADDED("268", "<|user|>", "true") "], "
        "\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\", \"prepend\": "
        "\"\\u2581\"}, {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": "
            "\"\\u2581\"}]}, "
        "\"pre_tokenizer\": null, \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": "
        "[{\"SpecialToken\": {\"id\": \"<s>\", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", "
            "\"type_id\": 0}}], "
        "\"special_tokens\": {\"<s>\": {\"id\": \"<s>\", \"ids\": [1], \"tokens\": [\"<s>\"]}}}, "
        "\"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": "
        "{\"String\": \"\\u2581\"}, \"content\": \" \"}, {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}, "
        "{\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}]}, "
        "\"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": \"<unk>\", \"fuse_unk\": true, "
        "\"byte_fallback\": true, \"merges\": [\"\\u2581 a\", \"a t\", \"c at\", [\"\\u2581\", \"cat\"]], "
        "\"vocab\": {\"<unk>\": 0, \"<s>\": 1, \"</s>\": 2");
    for (int i = 0; i < 256; i++) {
        sprintf(byte, ", \"<0x%02X>\": %d", (unsigned)i, i + 3);
        buffer_text(&b, byte);
    }
    for (int i = 0; i < 9; i++) {
        buffer_text(&b, ", ");
        buffer_json_string(&b, piece[i], strlen(piece[i]));
        buffer_text(&b, ": ");
        buffer_integer(&b, 259 + i);
    }
    buffer_text(&b, "}}}");
    return b;
}

/* Breaks the files beside the tokenizer in `other`, which has `size` ids; these files add more. */
static void fuzz_beside(const char *of, int size, uint64_t seed) {
    static const char *const file[] = {
        "{\"[PAD]\": %d, \"<|im_start|>\": %d, \"<|im_end|>\": %d}",
        "{\"add_bos_token\": true, \"add_eos_token\": false, \"add_prefix_space\": true, "
            "\"do_lower_case\": false, \"extra_special_tokens\": [\"<new>\"], "
            "\"added_tokens_decoder\": {\"%d\": "
            "{\"content\": \"[PAD]\", \"lstrip\": true, "
        "\"normalized\": false, \"rstrip\": false, \"single_word\": true, \"special\": true}, \"%d\": "
            "{\"content\": \"<|im_start|>\", \"normalized\": true}, "
        "\"%d\": {\"content\": \"<|im_end|>\"}}, "
        "\"bos_token\": {\"__type\": \"AddedToken\", \"content\": \"<s>\"}, \"eos_token\": \"</s>\", "
            "\"pad_token\": \"[PAD]\", \"model_max_length\": 2048, "
        "\"chat_template\": \"{%% for m in messages %%}<|im_start|>{{ m }}{%% endfor %%}\", "
            "\"tokenizer_class\": \"LlamaTokenizer\", \"legacy\": true}",
        ("{\"bos_token\": {\"content\": \"<s>\", \"lstrip\": false}, \"eos_token\": \"</s>\", \"pad_token\": "
         "\"</s>\", " "\"additional_special_tokens\": [\"<s>\", {\"content\": \"</s>\", \"rstrip\": "
         "true}]}") };
    static const char *const called[] = { "added_tokens.json", "tokenizer_config.json",
        "special_tokens_map.json" };
    static const Read read[] = { read_added_tokens, read_tokenizer_config, read_special_map };
    char name[80], text[1024];
    for (int i = 0; i < 3; i++) {
        sprintf(name, "%s beside %s", called[i], of);
        if (i < 2) sprintf(text, file[i], size, size + 1, size + 2); else strcpy(text, file[i]);
        fuzz(name, read[i], blob(text, strlen(text)), seed + (uint64_t)i);
    }
}

/* Every normalizer and pre_tokenizer, and BPE of characters. */
static const char json_pipeline[] =
    "{\"added_tokens\": [{\"id\": 9, \"content\": \"<x>\"}], \"normalizer\": {\"type\": \"Sequence\", "
    "\"normalizers\": [{\"type\": \"NFKC\"}, {\"type\": \"Nmt\"}, {\"type\": \"Replace\", \"pattern\": "
    "{\"Regex\": \" {2,}|[.,](?=\\\\s)\"}, \"content\": \" \"}, {\"type\": \"BertNormalizer\"}, {\"type\": "
    "\"Strip\"}, {\"type\": \"Prepend\", \"prepend\": \"a\"}, {\"type\": \"NFD\"}, {\"type\": \"StripAccents"
    "\"}]}, \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern"
    "\": {\"Regex\": \"\\\\s?\\\\p{L}+|\\\\s+$\"}, \"behavior\": \"MergedWithNext\", \"invert\": false},"
    " {\"type\": \"Digits\", \"individual_digits\": true}, {\"type\": \"Metaspace\", \"replacement\": "
    "\"_\", \"prepend_scheme\": \"first\", \"split\": true}, {\"type\": \"Punctuation\", \"behavior\": "
    "\"MergedWithPrevious\"}, {\"type\": \"Whitespace\"}]}, \"decoder\": null, \"model\": {\"type\": \"BPE\""
    ", \"unk_token\": \"?\", \"fuse_unk\": true, \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2, \"?\": 3, "
    "\"_\": 4, \"_a\": 5}, \"merges\": [\"a b\", \"_ a\"]}}";

static void fuzz_tokenizer_json(void) {
    Corpus state = { 0 };
    TextSource source = { next_text, NULL };
    Pool pool = test_pool();
    Buffer llama = json_llama(&pool), model = { NULL, NULL, 0, 0, 0 };
    Tokenizer *t;
    model.pool = &pool;
    source.context = &state;
    fuzz("tokenizer.json (byte-level)", read_tokenizer_json, blob(json_gpt2, sizeof json_gpt2 - 1), 50);
    fuzz("tokenizer.json (byte fallback)", read_tokenizer_json, blob(llama.data, llama.length), 51);
    fuzz("tokenizer.json (a pipeline)", read_tokenizer_json, blob(json_pipeline, sizeof json_pipeline - 1),
         52);
    t = tokenizer_train_sentencepiece(source, 276, &pool, &err);
    CHECK(t && tokenizer_file(t, "tokenizer.model", &model) == OK, "a tokenizer.model to lie beside: %s",
          err.what);
    if (!t) return;
    other = blob(model.data, model.length);
    fuzz_beside("tokenizer.model", 276, 52);
    free(other.bytes);
    other = blob(json_gpt2, sizeof json_gpt2 - 1);
    fuzz_beside("tokenizer.json", 12, 55);
    free(other.bytes);
    other = blob("[UNK]\n[MASK]\na\nb\nthe", 21);
    fuzz_beside("vocab.txt", 5, 58);
    free(other.bytes);
    pool_free(&pool);
}

static void fuzz_checkpoints(void) {
    f32 x[6] = { 1, -2, 0.5f, 3e38f, 1e-40f, 0 };
    Pool pool = test_pool();
    Matrix a, n;
    Tensor list[2];
    Blob file;
    memset(&a, 0, sizeof a);
    memset(&n, 0, sizeof n);
    memset(list, 0, sizeof list);
    a.O = 2; a.I = 3; a.data = x;
    n.O = 1; n.I = 3; n.data = x;
    strcpy(list[0].name, "model.a.weight");
    strcpy(list[1].name, "model.n.weight");
    list[0].matrix = &a;
    list[1].matrix = &n;
    list[1].flags = TENSOR_VECTOR;
    CHECK(checkpoint_save(base, "model", list, 2, F32, 0, &pool, &err) == OK,
          "a checkpoint to start from: %s", err.what);
    file = blob_file(in_base("model.safetensors"));
    fuzz("safetensors header", read_header, blob(file.bytes + 8, file.n - 8 - 36), 20);
    fuzz("model.safetensors (F32)", read_safetensors, file, 4);
    CHECK(checkpoint_save(base, "model", list, 2, BF16, 0, &pool, &err) == OK, "a checkpoint in BF16");
    fuzz("model.safetensors (BF16)", read_safetensors, blob_file(in_base("model.safetensors")), 5);
    remove(in_base("model.safetensors"));
    CHECK(checkpoint_save(base, "model", list, 2, F32, 24, &pool, &err) == OK, "two shards to start from: %s",
          err.what);
    fuzz("model.safetensors.index.json", read_index, blob_file(in_base("model.safetensors.index.json")), 6);
    remove(in_base("model.safetensors.index.json"));
    pool_free(&pool);
}

static void fuzz_4bit(void) {
    static const char state[] = "{\"quant_type\": \"nf4\", \"blocksize\": 32, \"dtype\": \"bfloat16\", "
        "\"shape\": [3, 43]}";
    unsigned char packed[65], code[5];
    f32 x[129], absmax[5], nested[1], map[256], table[16];
    Pool pool = test_pool();
    Matrix a;
    Quant q;
    Tensor t;
    memset(&a, 0, sizeof a);
    memset(&t, 0, sizeof t);
    memset(&q, 0, sizeof q);
    a.O = 3; a.I = 43; a.type = NF4; a.data = packed; a.quant = &q;
    q.block = 32; q.code = code; q.nested = nested; q.map = map; q.absmax = absmax;
    strcpy(t.name, "model.a.weight");
    t.matrix = &a;
    for (int i = 0; i < 129; i++) x[i] = (f32)(i * i % 31 - 14);
    quant_table(q.table, QUANT_NF4);
    quant_map(map);
    CHECK(quantize_4bit(packed, absmax, x, 129, 32, QUANT_NF4, NULL) == OK, "a 4-bit tensor");
    quantize_absmax(code, nested, &q.offset, map, absmax, 5);
    CHECK(checkpoint_save(base, "model", &t, 1, F32, 0, &pool, &err) == OK, "4 bits to start from: %s",
          err.what);
    fuzz("4-bit safetensors", read_bnb, blob_file(in_base("model.safetensors")), 40);
    CHECK(checkpoint_save(base, "model", &t, 1, F32, 0, &pool, &err) == OK, "again");
    fuzz("4-bit safetensors, into floats", read_bnb_floats, blob_file(in_base("model.safetensors")), 41);
    q.absmax = NULL;
    CHECK(checkpoint_save(base, "model", &t, 1, F32, 0, &pool, &err) == OK, "and doubled");
    fuzz("4-bit safetensors, doubled", read_bnb_doubled, blob_file(in_base("model.safetensors")), 42);
    CHECK(checkpoint_save(base, "model", &t, 1, F32, 0, &pool, &err) == OK, "again");
    fuzz("4-bit safetensors, doubled, into floats", read_bnb_floats,
         blob_file(in_base("model.safetensors")), 43);
    quant_table(table, QUANT_NF4);
    other = blob(packed, 65);
    /* on a big-endian machine these are other numbers, which is no matter here */
    replace(&other, 65, 0, absmax, 20);
    replace(&other, 85, 0, table, 64);
    fuzz("quant_state", read_quant_state, blob(state, sizeof state - 1), 44);
    free(other.bytes);
    for (int legacy = 0; legacy < 2; legacy++) {
        Buffer pickle = { NULL, NULL, 0, 0, 0 }, out = { NULL, NULL, 0, 0, 0 };
        pickle.pool = out.pool = &pool;
        pickle_sample(&pickle, legacy, NULL);
        if (legacy) pickle_legacy(&out, &pickle, 1); else pickle_zip(&out, &pickle, "little", 0, &pool);
        fuzz(legacy ? "pytorch_model.bin (legacy)" : "pytorch_model.bin (zip)", read_torch,
             blob(out.data, out.length), 45 + (uint64_t)legacy);
    }
    remove(in_base("pytorch_model.bin"));
    pool_free(&pool);
}

/* Breaks a legacy file and one of version 2, of a Llama of width 4 with two layers and eight ids. */
static void fuzz_llama2c(void) {
    static const uint32_t size[7] = { 4, 6, 2, 2, 1, 8, 3 };
    enum { NUMBERS = 2 * 32 + 2 * (8 + 16 + 8 + 8 + 16 + 72) + 4 };
    Pool pool = test_pool();
    Blob file;
    for (int version = 0; version <= 2; version += 2) {
        Buffer b = { NULL, NULL, 0, 0, 0 };
        size_t more = version ? NUMBERS - 20 + (NUMBERS - 20) / 4 * 4 + 20 * 4 : (NUMBERS - 32 + 6) * 4;
        b.pool = &pool;
        if (version) { buffer_u32(&b, 0x616b3432); buffer_u32(&b, 2); }
        for (int i = 0; i < 7; i++) buffer_u32(&b, size[i]);
        if (version) { buffer_u8(&b, 0); buffer_u32(&b, 4); }
        while (version && b.length < 256) buffer_u8(&b, 0);
        for (size_t i = 0; i < more; i++) buffer_u8(&b, (unsigned)(i * 7 & 63));
        spit(in_base("model.bin"), b.data, b.length);
        file = blob(b.data, b.length);
        CHECK(read_llama2c(&file, &pool) == OK, "llama2.c's version %d: %s", version, err.what);
        free(file.bytes);
        fuzz(version ? "llama2.c (version 2)" : "llama2.c (legacy)", read_llama2c, blob(b.data, b.length),
             47 + (uint64_t)version);
    }
    pool_free(&pool);
}

static void fuzz_state(void) {
    Pool pool = test_pool();
    CHECK(state_write(in_base("state"), visit_state, NULL, &pool, &err) == OK, "a state to start from: %s",
          err.what);
    fuzz("state", read_state, blob_file(in_base("state")), 88);
    pool_free(&pool);
}

static void fuzz_dataset(void) {
    static const char *const called[] = { "dataset (texts)", "dataset (pairs)", "dataset (prompts)" };
    static char *labels[] = { "neg", "pos" };
    Pool pool = test_pool();
    Document doc[5];
    Dataset d;
    memset(doc, 0, sizeof doc);
    memset(&d, 0, sizeof d);
    for (int i = 0; i < 5; i++) {
        doc[i].label = i % 3 - 1;
        doc[i].split = i == 4;
        doc[i].text[0] = "a film about cats";
        doc[i].text[1] = "and dogs";
        doc[i].length[0] = 17 - (uint32_t)i;
        doc[i].length[1] = i == 2 ? 0 : 8;
    }
    d.document = doc;
    d.count = 5;
    for (int kind = DATA_TEXT; kind <= DATA_PROMPTS; kind++) {
        d.kind = kind;
        d.labels = kind == DATA_TEXT ? 2 : 0;
        d.label = labels;
        for (int i = 0; i < 5; i++)
            if (kind != DATA_TEXT) doc[i].label = kind == DATA_PAIRS ? i * PAIR_CERTAIN / 4 : -1;
        memset(&err, 0, sizeof err);
        CHECK(dataset_write(&d, in_base("data.bin"), &pool, &err) == OK, "a dataset to start from: %s",
              err.what);
        fuzz(called[kind - DATA_TEXT], read_dataset, blob_file(in_base("data.bin")), 6 + (uint64_t)kind);
    }
    pool_free(&pool);
}

/* Texts: JSON, HTML, tables, options, a run's files, a constitution, a regular expression. */
static void fuzz_texts(void) {
    static const char cl100k[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}++|\\p{N}{1,3}"
        "| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*+|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+$|\\bx|^(a|\\p{Han}*?)|[a-c&&[^b]]+";
    static const char run[] = "{\"program\": \"ppo\", \"data\": \"d<script>\", \"options\": {\"steps\": 3,"
        " \"show\": true, \"target\": 6, \"adap-kl-ctrl\": true}}\n"
        "{\"step\": 1, \"env/reward_mean\": 1.5, \"env/reward_std\": 1}\n"
        "{\"step\": 2, \"env/reward_mean\": null, \"objective/kl\": -3e5, \"loss\": 1, \"eval/loss\": 0.1}\n"
        "{\"step\": 3, \"env/reward_mean\": 1, \"seconds\": 2, \"tokens_per_second\": 1e4}\n"
        "{\"query\": \"<script>\", \"response_before\": \"b\\u0001\", \"response_after\": \"a\","
        " \"reward_before\": 1, \"reward_after\": 2, \"kl_after\": 3}\n"
        "{\"query\": \"q\", \"reward_before\": 3, \"reward_after\": -1}\n";
    static const char lines[] = "# options\ndata: data/imdb.bin\n\nsteps: 20   # few\nout: 'my # runs'\r\n"
        "reward-text: \"a b\"\n";
    static const char first_line[] = "{\"program\": \"ppo\", \"data\": \"d.bin\", \"options\": {}, "
        "\"given\": {\"preset\": \"imdb-small\", \"steps\": \"2\", \"out\": \"a\\\"b\"}}\n{\"step\": 1}\n";
    static const char csv[] =
        "id,Label ,text\r\n1,0,\"a, \"\"b\"\"\nc\"\r\n\n2,1,plain\n3,\"1\",\"\"\n4,0,end";
    static const char html[] = "<!DOCTYPE html><p class=\"a > b\" id='c'>caf&eacute; &#150; &#x41;"
        "&notit;<br/>x <3<!-- c --><script>if (a < b)</script><style></style>&nGt;&amp &hearts; end</p>";
    static const char constitution[] = "# text\nprinciple: one\ncritique: C\r\nrevision: R\n and R\n"
        "preference: P\n\nexample: one\nprompt: p\nresponse: r\ncritique: c\nrevision: r\n"
        "choice: one\nprompt: caf\303\251\na: x\nb: y\nanswer: B\n";
    fuzz("JSON", read_json, blob_file("tests/golden/models/roberta-odd/config.json"), 10);
    fuzz("HTML", read_html, blob(html, sizeof html - 1), 77);
    fuzz("a run's files", read_run, blob(run, sizeof run - 1), 78);
    fuzz("a constitution", read_constitution, blob(constitution, sizeof constitution - 1), 79);
    fuzz("lines", read_lines, blob_file("tests/golden/models/roberta-odd/config.json"), 11);
    fuzz("CSV", read_csv, blob(csv, sizeof csv - 1), 79);
    fuzz("options, as lines", read_options, blob(lines, sizeof lines - 1), 18);
    fuzz("options, from a log", read_options, blob(first_line, sizeof first_line - 1), 19);
    fuzz("a regular expression", read_regex, blob(cl100k, sizeof cl100k - 1), 17);
}

/* The configurations of models, adapters and texts that are generated. */
static void fuzz_configs(void) {
    static const char generation[] = "{\"_from_model_config\": true, \"bos_token_id\": 1, \"eos_token_id\": "
        "[2, 5], \"pad_token_id\": null}";
    static const char llama3[] = "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\","
        "\"vocab_size\":100,\"hidden_size\":64,\"num_attention_heads\":4,"
        "\"num_hidden_layers\":2,\"intermediate_size\":99,\"num_key_value_heads\":2,\"head_dim\":16,"
            "\"rms_norm_eps\":1e-05,\"eos_token_id\":[1,2],\"rope_theta\":500000.0,"
        "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
            "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":64}}";
    fuzz("config.json (Llama)", read_config, blob_file("tests/golden/models/llama-odd/config.json"), 12);
    fuzz("config.json (llama3 scaling)", read_config, blob(llama3, sizeof llama3 - 1), 13);
    other = blob(llama3, sizeof llama3 - 1);
    fuzz("generation_config.json", read_generation_config, blob(generation, sizeof generation - 1), 14);
    free(other.bytes);
    fuzz("config.json (RoBERTa)", read_reward_config,
         blob_file("tests/golden/models/roberta-odd/config.json"), 15);
    fuzz("adapter_config.json", read_adapter_config,
         blob_file("tests/golden/models/llama-odd/adapter/adapter_config.json"), 16);
    fuzz("a soft prompt's adapter_config.json", read_adapter_config,
         blob_file("tests/golden/hf/adapters/llama-prompt/adapter_config.json"), 16);
}

int main(int argc, char **argv) {
    char command[100];
    if (argc > 1) rounds = atoi(argv[1]);
    sprintf(base, "/tmp/rlhf-bad-%08lx", (unsigned long)(time(NULL) * 7919u + clock()) & 0xffffffffu);
    folder_make(base, &err);
    fuzz_texts();
    fuzz_configs();
    fuzz_checkpoints();
    fuzz_4bit();
    fuzz_llama2c();
    fuzz_dataset();
    fuzz_state();
    fuzz_tokenizers();
    fuzz_tokenizer_json();
    sprintf(command, "rm -rf %s", base);
    if (system(command)) printf("could not remove %s\n", base);
    return test_end("bad");
}
