/* core.c - errors, memory, bytes, UTF-8, JSON, random streams: what every other file uses.
 * Source   JSON: RFC 8259. UTF-8: RFC 3629. splitmix64: Steele, Lea & Flood 2014. FNV-1a: Fowler, Noll & Vo,
 *          64 bits.
 * Needs    <string.h>, and strtod from <stdlib.h>.
 * Never    prints, exits, allocates by itself, keeps a global, or depends on the locale or on the machine's
 *          byte order.
 * Memory   An Arena is the caller's block; a Pool gets blocks from the caller's source(). Nothing else is
 *          used.
 * Edges    sizes that overflow, lone surrogates, malformed UTF-8, deep nesting, numbers too large for a
 *          double: see tests/unit/base.c. */
#include "rlhf.h"

/* ---- errors ---- */

/* Copies as much of s as fits to out, with a final NUL. s NULL: copies "". */
static void copy_cut(char *out, size_t cap, const char *s) {
    size_t n = s ? strlen(s) : 0;
    if (n > cap - 1) n = cap - 1;
    if (n) memcpy(out, s, n);
    out[n] = 0;
}

int fail(Error *err, int code, const char *what, const char *where, long long got, long long wanted) {
    if (!err || err->code != OK) return code;           /* the first error is the cause */
    err->code = code;
    copy_cut(err->what, sizeof err->what, what);
    copy_cut(err->where, sizeof err->where, where);
    err->got = got;
    err->wanted = wanted;
    return code;
}

void advise(Error *err, const char *advice) {
    if (err && err->code != OK && !err->advice) err->advice = advice;
}

/* ---- arena ---- */
enum { ARENA_ALIGN = 64 };                              /* a cache line, and the widest vector register */

/* Aligns the beginning of each piece, but not the end of the last piece: so a block of exactly the measured
 * size is enough. */
void *arena_take(Arena *a, size_t count, size_t size) {
    size_t gap = (ARENA_ALIGN - a->used % ARENA_ALIGN) % ARENA_ALIGN, at, bytes;
    if (size && count > SIZE_MAX / size) { a->failed = 1; return NULL; }
    bytes = count * size;
    if (gap > SIZE_MAX - a->used || bytes > SIZE_MAX - a->used - gap) { a->failed = 1; return NULL; }
    at = a->used + gap;
    if (a->base && (at > a->capacity || bytes > a->capacity - at)) { a->failed = 1; return NULL; }
    a->used = at + bytes;
    if (a->used > a->peak) a->peak = a->used;
    return a->base ? a->base + at : NULL;
}

/* ---- pool: a list of blocks; those after `current` are empty and are used again ---- */
enum { POOL_ALIGN = 16, POOL_SMALLEST = 64 * 1024, POOL_LARGEST = 1024 * 1024 };

/* Returns the first aligned address after the block's header; the block has POOL_ALIGN
 * spare bytes for that. */
static unsigned char *block_bytes(PoolBlock *b) {
    unsigned char *p = (unsigned char *)(b + 1);
    return p + (POOL_ALIGN - (uintptr_t)p % POOL_ALIGN) % POOL_ALIGN;
}

static size_t block_room(const PoolBlock *b) { return b->capacity - b->used; }

/* Sets `current` to a block with room for `bytes`: an empty block of the pool, or a new block (64
 * KiB, growing with the pool to 1 MiB; a larger request gets a block of its own size). Returns 0 if
 * there is no more memory. */
static int pool_advance(Pool *p, size_t bytes) {
    PoolBlock **link = p->current ? &p->current->next : &p->first, **from = link, *b;
    while (*from && (*from)->capacity < bytes) from = &(*from)->next;
    b = *from;
    if (b) *from = b->next;
    else {
        size_t capacity = p->total / 4;
        if (capacity < POOL_SMALLEST) capacity = POOL_SMALLEST;
        if (capacity > POOL_LARGEST) capacity = POOL_LARGEST;
        if (capacity < bytes) capacity = bytes;
        if (!p->source || capacity > SIZE_MAX - sizeof *b - POOL_ALIGN) return 0;
        b = p->source(capacity + sizeof *b + POOL_ALIGN);
        if (!b) return 0;
        b->capacity = capacity;
        p->total += capacity + sizeof *b + POOL_ALIGN;
    }
    b->used = 0;
    b->next = *link;                                    /* newer blocks stay after a mark's block */
    *link = b;
    p->current = b;
    return 1;
}

void *pool_take(Pool *p, size_t count, size_t size) {
    size_t bytes;
    unsigned char *out;
    if (size && count > (SIZE_MAX - POOL_ALIGN) / size) return NULL;
    bytes = (count * size + POOL_ALIGN - 1) / POOL_ALIGN * POOL_ALIGN;
    if (!p->current || block_room(p->current) < bytes)
        if (!pool_advance(p, bytes)) return NULL;
    out = block_bytes(p->current) + p->current->used;
    p->current->used += bytes;
    return memset(out, 0, bytes);
}

char *pool_text(Pool *p, const char *text, size_t length) {
    char *out = length < SIZE_MAX ? pool_take(p, length + 1, 1) : NULL;
    if (out && length) memcpy(out, text, length);
    return out;
}

PoolMark pool_mark(const Pool *p) {
    PoolMark m;
    m.block = p->current;
    m.used = p->current ? p->current->used : 0;
    return m;
}

void pool_release(Pool *p, PoolMark mark) {
    PoolBlock *b;
    p->current = mark.block;                            /* NULL: the pool was empty at the mark */
    if (mark.block) mark.block->used = mark.used;
    for (b = mark.block ? mark.block->next : p->first; b; b = b->next) b->used = 0;
}

void pool_free(Pool *p) {
    PoolBlock *b = p->first, *next;
    for (; b; b = next) {
        next = b->next;
        if (p->sink) p->sink(b);
    }
    p->first = p->current = NULL;
    p->total = 0;
}

/* ---- buffer ---- */

/* Makes room for n more bytes; sets failed and returns 0 if there is no memory. The capacity is doubled, so
 * that appending n bytes one by one copies O(n) bytes. */
static int buffer_reserve(Buffer *b, size_t n) {
    size_t capacity;
    unsigned char *data;
    if (b->failed) return 0;
    if (n <= b->capacity - b->length) return 1;
    b->failed = 1;
    if (n > SIZE_MAX / 2 - b->length) return 0;
    capacity = b->capacity < 128 ? 256 : b->capacity * 2;
    if (capacity < b->length + n) capacity = b->length + n;
    data = b->pool ? pool_take(b->pool, capacity, 1) : NULL;
    if (!data) return 0;
    if (b->length) memcpy(data, b->data, b->length);
    b->data = data;
    b->capacity = capacity;
    b->failed = 0;
    return 1;
}

void buffer_bytes(Buffer *b, const void *bytes, size_t n) {
    if (!n || !buffer_reserve(b, n)) return;
    memcpy(b->data + b->length, bytes, n);
    b->length += n;
}

/* Appends the lowest n bytes of v, little-endian. */
static void buffer_little(Buffer *b, uint64_t v, int n) {
    unsigned char out[8];
    int i;
    for (i = 0; i < n; i++) out[i] = (unsigned char)(v >> (8 * i) & 255);
    buffer_bytes(b, out, (size_t)n);
}

void buffer_u8(Buffer *b, unsigned v) { buffer_little(b, v, 1); }
void buffer_u16(Buffer *b, unsigned v) { buffer_little(b, v, 2); }
void buffer_u32(Buffer *b, uint32_t v) { buffer_little(b, v, 4); }
void buffer_u64(Buffer *b, uint64_t v) { buffer_little(b, v, 8); }
void buffer_text(Buffer *b, const char *text) { buffer_bytes(b, text, strlen(text)); }

/* Writes the decimal digits of v and a NUL to out; returns their number. */
static size_t decimal(char out[24], long long v) {
    unsigned long long rest = v < 0 ? 0ull - (unsigned long long)v : (unsigned long long)v;
    char reversed[24];
    size_t n = 0, length = 0;
    do reversed[n++] = (char)('0' + rest % 10); while (rest /= 10);
    if (v < 0) reversed[n++] = '-';
    while (n) out[length++] = reversed[--n];
    out[length] = 0;
    return length;
}

void buffer_integer(Buffer *b, long long v) {
    char digits[24];
    buffer_bytes(b, digits, decimal(digits, v));
}

void buffer_json_string(Buffer *b, const char *text, size_t length) {
    static const char plain[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt", hex[] = "0123456789abcdef";
    size_t i = 0;
    buffer_u8(b, '"');
    while (i < length) {
        int32_t code;
        int n = utf8_decode(text + i, length - i, &code);
        const char *escape = code > 0 && code < 128 ? strchr(plain, (char)code) : NULL;
        if (code < 0) buffer_bytes(b, "\xef\xbf\xbd", 3);
        else if (escape) { buffer_u8(b, '\\'); buffer_u8(b, (unsigned char)letter[escape - plain]); }
        else if (code < 0x20) {
            buffer_bytes(b, "\\u00", 4);
            buffer_u8(b, (unsigned char)hex[code >> 4]);
            buffer_u8(b, (unsigned char)hex[code & 15]);
        } else buffer_bytes(b, text + i, (size_t)n);
        i += (size_t)n;
    }
    buffer_u8(b, '"');
}

/* ---- reader ---- */

const unsigned char *read_bytes(Reader *r, uint64_t n) {
    const unsigned char *p = r->at;
    if (r->bad || n > (uint64_t)(r->end - r->at)) { r->bad = 1; return NULL; }
    r->at += (size_t)n;
    return p;
}

static uint64_t read_little(Reader *r, int n) {
    const unsigned char *p = read_bytes(r, (uint64_t)n);
    uint64_t v = 0;
    int i;
    if (p) for (i = 0; i < n; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}

unsigned read_u8(Reader *r) { return (unsigned)read_little(r, 1); }
unsigned read_u16(Reader *r) { return (unsigned)read_little(r, 2); }
uint32_t read_u32(Reader *r) { return (uint32_t)read_little(r, 4); }
uint64_t read_u64(Reader *r) { return read_little(r, 8); }

/* ---- UTF-8 ---- */

int utf8_decode(const char *s, size_t n, int32_t *code) {
    static const int32_t smallest[5] = { 0, 0, 0x80, 0x800, 0x10000 };      /* smaller codes are overlong */
    const unsigned char *p = (const unsigned char *)s;
    int length = p[0] < 0x80 ? 1 : p[0] < 0xC2 ? 0 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : p[0] < 0xF5 ? 4 : 0;
    int32_t c = length == 1 ? p[0] : length ? p[0] & (0x7F >> length) : -1;
    *code = -1;
    if (length == 0 || (size_t)length > n) return 1;
    for (int i = 1; i < length; i++) {
        if ((p[i] & 0xC0) != 0x80) return 1;
        c = c * 64 + (p[i] & 0x3F);
    }
    if (c < smallest[length] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) return 1;
    *code = c;
    return length;
}

int utf8_valid(const char *s, size_t n) {
    for (size_t i = 0; i < n; ) {
        int32_t code;
        if ((unsigned char)s[i] < 0x80) { i++; continue; }
        i += (size_t)utf8_decode(s + i, n - i, &code);
        if (code < 0) return 0;
    }
    return 1;
}

int utf8_encode(char out[4], int32_t code) {
    int length, i;
    if (code < 0 || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) code = 0xFFFD;
    if (code < 0x80) { out[0] = (char)code; return 1; }
    length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (i = length - 1; i > 0; i--, code >>= 6) out[i] = (char)(0x80 | (code & 0x3F));
    out[0] = (char)((0xF00 >> length & 0xFF) | code);   /* 110xxxxx, 1110xxxx, 11110xxx */
    return length;
}

/* ---- JSON by recursive descent, one function for each rule of the grammar ---- */
enum { JSON_DEPTH = 64 };
typedef struct { const char *text; size_t length, at; Pool *pool; Error *err; } JsonText;

/* Records "JSON: WHAT at byte N" and returns 0. */
static int json_fail(JsonText *j, int code, const char *what, size_t at) {
    char message[160] = "JSON: ", number[24];
    size_t n;
    decimal(number, (long long)at);
    copy_cut(message + 6, 100, what);
    n = strlen(message);
    copy_cut(message + n, sizeof message - n, " at byte ");
    n = strlen(message);
    copy_cut(message + n, sizeof message - n, number);
    fail(j->err, code, message, "", (long long)at, (long long)at);
    return 0;
}

/* Returns the next byte, or -1 at the end. */
static int json_peek(const JsonText *j) { return j->at < j->length ? (unsigned char)j->text[j->at] : -1; }

static void json_space(JsonText *j) {
    for (;;) {
        int c = json_peek(j);
        if (c != ' ' && c != '\t' && c != '\n' && c != '\r') return;
        j->at++;
    }
}

/* Reads four hexadecimal digits. Returns their value, or -1 at another character. */
static int32_t json_hex4(JsonText *j) {
    int32_t v = 0;
    int i;
    for (i = 0; i < 4; i++) {
        int c = json_peek(j), digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                    : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0) return -1;
        v = v * 16 + digit;
        j->at++;
    }
    return v;
}

/* Reads one escape, whose backslash is already read, and writes its character to out. Returns the number of
 * bytes written, 0 on an error. An escaped high surrogate and the escaped low surrogate after it make one
 * character; any other surrogate is an error, as invalid UTF-8 is. */
static int json_escape(JsonText *j, char *out) {
    static const char letter[] = "\"\\/bfnrt", plain[] = "\"\\/\b\f\n\r\t";
    int c = json_peek(j);
    const char *found = c > 0 ? strchr(letter, c) : NULL;
    int32_t code, low = 0;
    if (found) { j->at++; out[0] = plain[found - letter]; return 1; }
    if (c != 'u') return json_fail(j, E_FORMAT, "unknown escape", j->at);
    j->at++;
    code = json_hex4(j);
    if (code < 0) return json_fail(j, E_FORMAT, "four hexadecimal digits expected", j->at);
    if (code >= 0xD800 && code < 0xDC00 && j->length - j->at >= 6 && !memcmp(j->text + j->at, "\\u", 2)) {
        j->at += 2;
        low = json_hex4(j);
        if (low >= 0xDC00 && low < 0xE000) code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    if (code >= 0xD800 && code < 0xE000)
        return json_fail(j, E_FORMAT, "lone surrogate, which is half of a character,", j->at);
    return utf8_encode(out, code);
}

/* Reads a string; j->at is at its opening quote. An escape is at least as long as its character, so the
 * length with escapes is enough room. */
static int json_string(JsonText *j, const char **string, size_t *length) {
    size_t start = ++j->at, end = start, n = 0;
    char *out;
    while (end < j->length && j->text[end] != '"') end += j->text[end] == '\\' && end + 1 < j->length ? 2 : 1;
    if (end >= j->length) return json_fail(j, E_TRUNCATED, "string without an end", start - 1);
    out = pool_take(j->pool, end - start + 1, 1);
    if (!out) return json_fail(j, E_MEMORY, "not enough memory for a string", start - 1);
    while (j->at < end) {
        int c = json_peek(j), took;
        int32_t code;
        if (c == '\\') {
            j->at++;
            took = json_escape(j, out + n);
            if (!took) return 0;
        } else {
            if (c < 0x20) return json_fail(j, E_FORMAT, "control character in a string", j->at);
            took = utf8_decode(j->text + j->at, end - j->at, &code);
            if (code < 0) return json_fail(j, E_FORMAT, "invalid UTF-8 in a string", j->at);
            memcpy(out + n, j->text + j->at, (size_t)took);
            j->at += (size_t)took;
        }
        n += (size_t)took;
    }
    j->at++;                                            /* the closing quote */
    *string = out;
    *length = n;
    return 1;
}

/* Skips digits and returns their number. */
static size_t json_digits(JsonText *j) {
    size_t from = j->at;
    while (json_peek(j) >= '0' && json_peek(j) <= '9') j->at++;
    return j->at - from;
}

/* Converts a number whose bytes start .. end-1 are its part before the exponent. strtod would
 * expect the locale's decimal point, so the number is passed without a point: [-]d.ddd e x becomes
 * [-]dddd e (x - places). A number above the largest double fails with E_RANGE; a number too small
 * for a double becomes 0. */
static int json_decimal(JsonText *j, size_t start, size_t end, long long places, long long exponent,
                        double *value) {
    PoolMark mark = pool_mark(j->pool);
    char *copy = pool_take(j->pool, end - start + 26, 1);
    size_t i, n = 0;
    if (!copy) return json_fail(j, E_MEMORY, "not enough memory for a number", start);
    for (i = start; i < end; i++) if (j->text[i] != '.') copy[n++] = j->text[i];
    copy[n++] = 'e';
    decimal(copy + n, exponent - places);
    *value = strtod(copy, NULL);
    pool_release(j->pool, mark);
    if (!(fabs(*value) <= 1.7976931348623157e308)) return json_fail(j, E_RANGE, "number too large", start);
    return 1;
}

static int json_word(JsonText *j, const char *word) {
    size_t n = strlen(word);
    if (j->length - j->at < n || memcmp(j->text + j->at, word, n))
        return json_fail(j, E_FORMAT, "value expected", j->at);
    j->at += n;
    return 1;
}

static int json_number_value(JsonText *j, double *value) {
    size_t start = j->at, mantissa_end, places = 0, i, digits;
    long long exponent = 0;
    int negative = json_peek(j) == '-', simple = 1, down;
    if (negative) j->at++;
    if (json_peek(j) == 'I') {                          /* RFC 8259 has no such number, Python's json has */
        *value = negative ? -HUGE_VAL : HUGE_VAL;
        return json_word(j, "Infinity");
    }
    if (json_peek(j) == '0') { j->at++; digits = 1; } else digits = json_digits(j);
    if (!digits) return json_fail(j, E_FORMAT, "value expected", start);
    if (json_peek(j) == '.') {
        j->at++;
        simple = 0;
        places = json_digits(j);
        if (!places) return json_fail(j, E_FORMAT, "digit expected after the point", j->at);
    }
    mantissa_end = j->at;
    if (json_peek(j) == 'e' || json_peek(j) == 'E') {
        j->at++;
        simple = 0;
        down = json_peek(j) == '-';
        if (down || json_peek(j) == '+') j->at++;
        i = j->at;
        if (!json_digits(j)) return json_fail(j, E_FORMAT, "digit expected in the exponent", j->at);
        for (; i < j->at; i++)                          /* larger exponents give infinity or 0 as well */
            if (exponent < LLONG_MAX / 1000) exponent = exponent * 10 + (j->text[i] - '0');
        if (down) exponent = -exponent;
    }
    if (simple && digits <= 18) {                       /* integers: exact up to 2^53, then rounded once */
        long long whole = 0;
        for (i = start + (size_t)negative; i < mantissa_end; i++) whole = whole * 10 + (j->text[i] - '0');
        *value = negative ? -(double)whole : (double)whole;
        return 1;
    }
    return json_decimal(j, start, mantissa_end, (long long)places, exponent, value);
}

static int json_value(JsonText *j, Json *out, int depth);

/* Reads the elements of an array or object and its closing bracket; the opening one is already read. */
static int json_children(JsonText *j, Json *out, int depth) {
    const int object = out->type == JSON_OBJECT, close = object ? '}' : ']';
    const Json **link = &out->child;
    if (depth >= JSON_DEPTH) return json_fail(j, E_RANGE, "nested deeper than 64", j->at - 1);
    json_space(j);
    if (json_peek(j) == close) { j->at++; return 1; }
    for (;;) {
        Json *child = pool_take(j->pool, 1, sizeof *child);
        if (!child) return json_fail(j, E_MEMORY, "not enough memory", j->at);
        json_space(j);
        if (object) {
            if (json_peek(j) != '"') return json_fail(j, E_FORMAT, "key expected", j->at);
            if (!json_string(j, &child->key, &child->key_length)) return 0;
            json_space(j);
            if (json_peek(j) != ':') return json_fail(j, E_FORMAT, "':' expected", j->at);
            j->at++;
        }
        if (!json_value(j, child, depth + 1)) return 0;
        *link = child;
        link = &child->next;
        out->count++;
        json_space(j);
        if (json_peek(j) == close) { j->at++; return 1; }
        if (json_peek(j) != ',')
            return json_fail(j, j->at < j->length ? E_FORMAT : E_TRUNCATED,
                             object ? "',' or '}' expected" : "',' or ']' expected", j->at);
        j->at++;
    }
}

/* Skips white space and reads one value into out. Returns 0 on an error. */
static int json_value(JsonText *j, Json *out, int depth) {
    json_space(j);
    switch (json_peek(j)) {
    case '{': out->type = JSON_OBJECT; j->at++; return json_children(j, out, depth);
    case '[': out->type = JSON_ARRAY; j->at++; return json_children(j, out, depth);
    case '"': out->type = JSON_STRING; return json_string(j, &out->string, &out->length);
    case 't': out->type = JSON_TRUE; return json_word(j, "true");
    case 'f': out->type = JSON_FALSE; return json_word(j, "false");
    case 'n': out->type = JSON_NULL; return json_word(j, "null");
    case 'N': out->type = JSON_NUMBER; out->number = NAN; return json_word(j, "NaN");
    case -1: return json_fail(j, E_TRUNCATED, "value expected", j->at);
    default: out->type = JSON_NUMBER; return json_number_value(j, &out->number);
    }
}

const Json *json_parse(const char *text, size_t length, Pool *pool, Error *err) {
    JsonText j;
    Json *root = pool_take(pool, 1, sizeof *root);
    j.text = text; j.length = length; j.at = 0; j.pool = pool; j.err = err;
    if (!root) { json_fail(&j, E_MEMORY, "not enough memory", 0); return NULL; }
    if (!json_value(&j, root, 0)) return NULL;
    json_space(&j);
    if (j.at < length) { json_fail(&j, E_FORMAT, "something after the value", j.at); return NULL; }
    return root;
}

const Json *json_get(const Json *object, const char *key) {
    const Json *c, *found = NULL;
    size_t n = strlen(key);
    if (!object || object->type != JSON_OBJECT) return NULL;
    for (c = object->child; c; c = c->next)
        if (c->key_length == n && !memcmp(c->key, key, n)) found = c;
    return found;
}

double json_number(const Json *object, const char *key, double fallback) {
    const Json *v = json_get(object, key);
    return v && v->type == JSON_NUMBER ? v->number : fallback;
}

int json_bool(const Json *object, const char *key, int fallback) {
    const Json *v = json_get(object, key);
    return v && v->type == JSON_TRUE ? 1 : v && v->type == JSON_FALSE ? 0 : fallback;
}

const char *json_text(const Json *object, const char *key, const char *fallback) {
    const Json *v = json_get(object, key);
    return v && v->type == JSON_STRING ? v->string : fallback;
}

/* ---- random streams ---- */
static const uint64_t GOLDEN = 0x9E3779B97F4A7C15u;     /* 2^64 / golden ratio, odd: the step of splitmix64 */

/* Mixes z as the last step of splitmix64 does: a bijection in which each output bit
 * depends on each input bit. */
static uint64_t mix(uint64_t z) {
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

Rng rng_stream(uint64_t seed, uint64_t step, uint64_t index) {
    Rng r;
    r.state = mix(mix(mix(seed + GOLDEN) + step + GOLDEN) + index + GOLDEN);
    return r;
}

uint64_t rng_next(Rng *r) { return mix(r->state += GOLDEN); }

double rng_unit(Rng *r) { return (double)(rng_next(r) >> 11) / 9007199254740992.0; }        /* 2^53 */

/* Adds twelve uniform integers of 49 bits. Their sum has at most 53 bits, so nothing is rounded. */
double rng_normal(Rng *r) {
    uint64_t sum = 0;
    int i;
    for (i = 0; i < 12; i++) sum += rng_next(r) >> 15;
    return (double)sum / 562949953421312.0 - 6.0;       /* 2^49 */
}

/* Rejects draws below 2^64 mod n: in the draws that remain, each remainder is equally frequent. */
uint64_t rng_below(Rng *r, uint64_t n) {
    uint64_t x, reject;
    if (n < 2) return 0;
    reject = (0 - n) % n;
    do x = rng_next(r); while (x < reject);
    return x % n;
}

void rng_shuffle(Rng *r, int *a, int n) {
    int i;
    for (i = n - 1; i > 0; i--) {
        int k = (int)rng_below(r, (uint64_t)i + 1), t = a[i];
        a[i] = a[k];
        a[k] = t;
    }
}

uint64_t hash_bytes(const void *bytes, size_t n, uint64_t seed) {
    const unsigned char *p = bytes;
    uint64_t h = 0xCBF29CE484222325u ^ seed;
    size_t i;
    for (i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001B3u;
    return mix(h);
}

/* ---- text ---- */

int name_format(char *out, size_t cap, const char *pattern, int number) {
    char digits[24];
    size_t n = 0, k, length;
    if (!cap) return E_RANGE;
    for (; *pattern; pattern++) {
        const char *piece = pattern;
        length = 1;
        if (pattern[0] == '%' && pattern[1] == 'd') {
            length = decimal(digits, number);
            piece = digits;
            pattern++;
        }
        for (k = 0; k < length; k++) {
            if (n + 1 >= cap) { out[n] = 0; return E_RANGE; }
            out[n++] = piece[k];
        }
    }
    out[n] = 0;
    return OK;
}
