/* state.c - the file `state` of a run's folder: all that a stopped run needs to go on as if it had not
 * stopped.
 *
 * Format   all numbers are little-endian. The 8 letters "rlhfstat", the version (u32), then fields, then 4
 *          zero bytes, then a checksum (u64) of all bytes before it. A field is: the length of its name (u32,
 *          not 0), the name, its kind (u32), how many values it has (u64), the values: whole numbers of 8
 *          bytes (two's complement), doubles of 8, floats of 4 (IEEE 754), or bytes. The checksum is
 *          hash_bytes of each STATE_BLOCK bytes in turn, whose seed is the hash of those before.
 * Read     one function of a program visits all fields, and both writes and reads them, so that the order of
 *          the two cannot differ. A field that was not expected is refused by its name.
 * Needs    core.c (buffers), io.c (files). The memory of one block; a state may be larger than the memory.
 * Never    changes a value before the checksum of the whole file is known to be right; accepts a number that
 *          is outside its limits; leaves half a file: the old state stays until the new one is complete. */
#include "programs.h"

static const char magic[] = "rlhfstat";
enum { STATE_VERSION = 2, STATE_BLOCK = 1 << 16, STATE_END = 12 /* 4 zero bytes and the checksum */ };
enum { INTEGERS = 1, REALS, FLOATS, BYTES };
static const int value_size[] = { 0, 8, 8, 4, 1 };

/* Keeps the first error. */
static void state_fail(State *s, int code, const char *what, const char *where) {
    if (s->code == OK) s->code = fail(s->err, code, what, where ? where : s->path, 0, 0);
}

/* ---- bytes, in blocks ---- */

/* Writes the block that is full, or the last one. */
static void flush_block(State *s) {
    if (!s->used || s->code != OK) return;
    s->sum = hash_bytes(s->block, s->used, s->sum);
    s->code = writer_write(s->writer, s->block, s->used);   /* writer_close says why */
    s->used = 0;
}

/* Reads the next block. */
static void fill_block(State *s) {
    const uint64_t left = s->size - s->at;
    s->used = left < STATE_BLOCK ? (size_t)left : STATE_BLOCK;
    s->next = 0;
    if (s->code == OK) s->code = file_read_at(s->file, s->at, s->block, s->used, s->err);
    s->at += s->used;
}

/* Writes n bytes, or reads them. After an error, bytes that are read are 0. */
static void pass_bytes(State *s, void *bytes, size_t n) {
    unsigned char *p = bytes;
    while (n > 0 && s->code == OK) {
        const size_t end = s->file ? s->used : (size_t)STATE_BLOCK;
        size_t part = end - s->next;
        if (part > n) part = n;
        if (part && s->file) memcpy(p, s->block + s->next, part);
        else if (part) memcpy(s->block + s->next, p, part);
        s->next += part;
        p += part;
        n -= part;
        if (s->next < end) continue;
        if (!s->file) {
            s->used = STATE_BLOCK;
            flush_block(s);
            s->next = 0;
        } else if (s->at < s->size) fill_block(s);
        else if (n) state_fail(s, E_TRUNCATED, "ends too early", NULL);
    }
    if (s->file && n) memset(p, 0, n);
}

/* Writes or reads the lowest `size` bytes of a number, the lowest first. */
static uint64_t pass_number(State *s, uint64_t x, int size) {
    unsigned char byte[8] = { 0 };
    for (int i = 0; i < size; i++) byte[i] = (unsigned char)(x >> 8 * i);
    pass_bytes(s, byte, (size_t)size);
    x = 0;
    for (int i = 0; i < size; i++) x |= (uint64_t)byte[i] << 8 * i;
    return x;
}

/* ---- fields ---- */

/* Writes the head of a field, or reads one and checks that it is this field. Returns how many values it has:
 * when reading, any number that the file has room for if count is UINT64_MAX, else exactly count. */
static uint64_t pass_head(State *s, const char *name, int kind, uint64_t count) {
    char found[STATE_NAME] = "";
    const size_t n = strlen(name);
    const size_t length = (size_t)pass_number(s, n, 4);
    if (s->code == OK && length != n)
        state_fail(s, E_FORMAT, "the state has another field than this one", name);
    if (s->code != OK || n >= sizeof found) {
        state_fail(s, E_FORMAT, "too long a name for a field", name);
        return 0;
    }
    memcpy(found, name, n);
    pass_bytes(s, found, n);
    const uint64_t type = pass_number(s, (uint64_t)kind, 4), values = pass_number(s, count, 8);
    if (s->code != OK) return 0;
    if (memcmp(found, name, n) != 0 || type != (uint64_t)kind)
        state_fail(s, E_FORMAT, "the state has another field than this one", name);
    else if (count != UINT64_MAX && values != count)
        state_fail(s, E_SHAPE, "the state has another number of values for this field", name);
    else if (s->file && values > (s->size - s->at + s->used - s->next) / (uint64_t)value_size[kind])
        state_fail(s, E_TRUNCATED, "the state ends inside this field", name);
    return s->code == OK ? values : 0;
}

/* Writes a whole number, or reads one within its limits. Returns it; x if there is an error. */
static long long pass_integer(State *s, const char *name, long long x, long long low, long long high) {
    const uint64_t bits = pass_number(s, (uint64_t)x, 8);
    const long long value = bits <= LLONG_MAX ? (long long)bits : -1 - (long long)~bits;
    if (s->code == OK && s->file && (value < low || value > high))
        state_fail(s, E_RANGE, "the state has a number outside its limits", name);
    return s->code == OK ? value : x;
}

void state_integer(State *s, const char *name, long long *x, long long low, long long high) {
    pass_head(s, name, INTEGERS, 1);
    *x = pass_integer(s, name, *x, low, high);
}

void state_int(State *s, const char *name, int *x, int low, int high) {
    long long value = *x;
    state_integer(s, name, &value, low, high);
    if (s->code == OK) *x = (int)value;
}

void state_ints(State *s, const char *name, int *x, size_t n, int low, int high) {
    pass_head(s, name, INTEGERS, n);
    for (size_t i = 0; i < n && s->code == OK; i++) x[i] = (int)pass_integer(s, name, x[i], low, high);
}

void state_reals(State *s, const char *name, double *x, size_t n) {
    pass_head(s, name, REALS, n);
    for (size_t i = 0; i < n && s->code == OK; i++) {
        uint64_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits = pass_number(s, bits, 8);
        if (s->code == OK) memcpy(&x[i], &bits, sizeof bits);
    }
}

void state_real(State *s, const char *name, double *x) { state_reals(s, name, x, 1); }

void state_floats(State *s, const char *name, float *x, size_t n) {
    enum { PART = 1024 };
    unsigned char byte[4 * PART];
    pass_head(s, name, FLOATS, n);
    for (size_t from = 0; from < n && s->code == OK; from += PART) {
        const size_t part = n - from < PART ? n - from : PART;
        uint32_t bits;
        for (size_t i = 0; i < part; i++) {
            memcpy(&bits, &x[from + i], sizeof bits);
            for (int k = 0; k < 4; k++) byte[4 * i + (size_t)k] = (unsigned char)(bits >> 8 * k);
        }
        pass_bytes(s, byte, 4 * part);
        for (size_t i = 0; i < part && s->file && s->code == OK; i++) {
            bits = 0;
            for (int k = 0; k < 4; k++) bits |= (uint32_t)byte[4 * i + (size_t)k] << 8 * k;
            memcpy(&x[from + i], &bits, sizeof bits);
        }
    }
}

void state_text(State *s, const char *name, const char **text, size_t *length) {
    const uint64_t n = pass_head(s, name, BYTES, s->file ? UINT64_MAX : *length);
    char *copy = NULL;
    if (s->code != OK) return;
    if (!s->file) { pass_bytes(s, (void *)(uintptr_t)*text, *length); return; }
    if (n < SIZE_MAX) copy = pool_take(s->pool, (size_t)n + 1, 1);
    if (!copy) { state_fail(s, E_MEMORY, "not enough memory for this field of the state", name); return; }
    pass_bytes(s, copy, (size_t)n);
    *text = copy;
    *length = (size_t)n;
}

void state_same(State *s, const char *name, uint64_t hash, const char *message, const char *where) {
    pass_head(s, name, INTEGERS, 1);
    if (pass_number(s, hash, 8) != hash && s->code == OK) state_fail(s, E_FORMAT, message, where);
}

void state_trained(State *s, const Tensor *list, int tensors, Optimizer *o) {
    for (int i = 0; i < tensors && s->code == OK; i++) {
        const Matrix *w = list[i].matrix;
        if (!(list[i].flags & TENSOR_TRAINED) || list[i].flags & TENSOR_TIED) continue;
        state_floats(s, list[i].name, w->data, (size_t)w->O * (size_t)w->I);
    }
    state_floats(s, "Adam's first moments", o->m, o->n);
    state_floats(s, "Adam's second moments", o->v, o->n);
    state_integer(s, "Adam's steps", &o->t, 0, INT_MAX * 1000000LL);
}

/* ---- the file ---- */

static void state_begin(State *s, const char *path, Pool *pool, Error *err) {
    memset(s, 0, sizeof *s);
    s->path = path;
    s->pool = pool;
    s->err = err;
    s->block = pool_take(pool, STATE_BLOCK, 1);
    if (!s->block) state_fail(s, E_MEMORY, "not enough memory for the state", NULL);
}

/* The letters and the version at the beginning. */
static void pass_begin(State *s) {
    char letters[8];
    memcpy(letters, magic, sizeof letters);
    pass_bytes(s, letters, sizeof letters);
    const uint64_t version = pass_number(s, STATE_VERSION, 4);
    if (s->code == OK && memcmp(letters, magic, sizeof letters) != 0)
        state_fail(s, E_FORMAT, "this is not the state of a run", NULL);
    if (s->code == OK && version != STATE_VERSION)
        state_fail(s, E_UNSUPPORTED, "the state has another version than this program supports", NULL);
}

int state_write(const char *path, StateVisit visit, void *run, Pool *pool, Error *err) {
    const PoolMark mark = pool_mark(pool);
    State s;
    state_begin(&s, path, pool, err);
    s.writer = s.code == OK ? writer_open(path, pool, err) : NULL;
    if (!s.writer) {
        pool_release(pool, mark);
        return s.code != OK ? s.code : err->code;
    }
    pass_begin(&s);
    visit(run, &s);
    pass_number(&s, 0, 4);
    s.used = s.next;
    flush_block(&s);
    s.next = 0;
    pass_number(&s, s.sum, 8);
    if (s.code == OK) s.code = writer_write(s.writer, s.block, s.next);
    int code = s.code;
    if (code == OK || code == E_WRITE) code = writer_close(s.writer, err);
    else writer_abandon(s.writer);
    pool_release(pool, mark);
    return code;
}

/* Opens the file for reading, and reads its beginning. */
static void state_open(State *s, const char *path, Pool *pool, Error *err) {
    state_begin(s, path, pool, err);
    if (s->code == OK) s->file = file_open(path, pool, err);
    if (s->code == OK && !s->file) s->code = err->code;
    if (s->code != OK) return;
    s->size = file_size(s->file);
    if (s->size < sizeof magic - 1 + 4 + STATE_END) {
        state_fail(s, E_TRUNCATED, "ends too early", NULL);
        return;
    }
    s->size -= STATE_END;
    fill_block(s);
    pass_begin(s);
}

/* Reads the whole file once, and checks its checksum. */
static void check_sum(State *s) {
    uint64_t sum = 0, found;
    unsigned char end[STATE_END];
    s->at = 0;
    s->size += 4;                           /* the zero bytes count */
    while (s->code == OK && s->at < s->size) {
        fill_block(s);
        if (s->code == OK) sum = hash_bytes(s->block, s->used, sum);
    }
    s->size -= 4;
    if (s->code == OK) s->code = file_read_at(s->file, s->size, end, sizeof end, s->err);
    Reader r = { end, end + sizeof end, 0 };
    const uint32_t zero = read_u32(&r);
    found = read_u64(&r);
    if (s->code == OK && (zero || found != sum))
        state_fail(s, E_FORMAT, "the state is damaged: its checksum is wrong", NULL);
}

int state_read(const char *path, StateVisit visit, void *run, Pool *pool, Error *err) {
    State s;
    state_open(&s, path, pool, err);
    if (s.code == OK) {
        check_sum(&s);
        s.at = 0;
        fill_block(&s);
        pass_begin(&s);
        visit(run, &s);
        if (s.code == OK && s.at - s.used + s.next != s.size)
            state_fail(&s, E_FORMAT, "the state has more fields than this program reads", NULL);
    }
    file_close(s.file);
    return s.code;
}

int state_peek(const char *path, StateVisit visit, void *run, Pool *pool, Error *err) {
    State s;
    state_open(&s, path, pool, err);
    if (s.code == OK) visit(run, &s);
    file_close(s.file);
    return s.code;
}

/* ---- what must not change while a run is stopped ---- */

int file_hash(const char *path, uint64_t *hash, Pool *pool, Error *err) {
    const PoolMark mark = pool_mark(pool);
    unsigned char *block = pool_take(pool, STATE_BLOCK, 1);
    File *f = block ? file_open(path, pool, err) : NULL;
    int code = f ? OK : block ? err->code : fail(err, E_MEMORY, "not enough memory to read", path, 0, 0);
    *hash = 0;
    for (uint64_t at = 0; code == OK && at < file_size(f); ) {
        const uint64_t left = file_size(f) - at;
        const size_t n = left < STATE_BLOCK ? (size_t)left : STATE_BLOCK;
        code = file_read_at(f, at, block, n, err);
        if (code == OK) *hash = hash_bytes(block, n, *hash);
        at += n;
    }
    file_close(f);
    pool_release(pool, mark);
    return code;
}

/* FNV-1a over numbers instead of bytes: the same on machines of either byte order. */
uint64_t frozen_hash(const Tensor *list, int tensors) {
    const uint64_t prime = 0x100000001b3u;
    uint64_t hash = 0xcbf29ce484222325u;
    for (int i = 0; i < tensors; i++) {
        const Matrix *w = list[i].matrix;
        const size_t n = list[i].flags & (TENSOR_TIED | TENSOR_TRAINED) ? 0 : (size_t)w->O * (size_t)w->I;
        const float *number = w->data;
        const uint16_t *half = w->data;
        const unsigned char *pair = w->data;
        for (size_t k = 0; w->type == F32 && k < n; k++) {
            uint32_t bits;
            memcpy(&bits, &number[k], sizeof bits);
            hash = (hash ^ bits) * prime;
        }
        for (size_t k = 0; w->type == NF4 && k < (n + 1) / 2; k++) hash = (hash ^ pair[k]) * prime;
        for (size_t k = 0; (w->type == BF16 || w->type == F16) && k < n; k++) hash = (hash ^ half[k]) * prime;
    }
    return hash;
}
