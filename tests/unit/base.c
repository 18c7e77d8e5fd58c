/* tests/unit/base.c - core.c, quant.c and io.c: memory, bytes, UTF-8, JSON, random streams, 16-bit floats,
 * files, datasets.
 * Needs    the folder build/base, which it makes. Runs in about two seconds; to be run under the sanitizers
 *          too. */
#if defined(__unix__) || defined(__unix) || (defined(__APPLE__) && defined(__MACH__))
#define POSIX_SYSTEM
#define _XOPEN_SOURCE 700
#define _FILE_OFFSET_BITS 64
#endif
#include "test.h"
#include <float.h>
#ifdef POSIX_SYSTEM
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

#define WORK "build/base"
#define COUNT(a) (sizeof (a) / sizeof *(a))

static Error none(void) { Error e; memset(&e, 0, sizeof e); return e; }

/* ---- errors and text ---- */

static void check_errors(void) {
    Error e = none();
    char big[400], out[8];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    CHECK(fail(&e, E_SHAPE, big, big, 3, 4) == E_SHAPE && e.code == E_SHAPE && e.got == 3 && e.wanted == 4,
          "fail fills the record");
    CHECK(strlen(e.what) == sizeof e.what - 1 && strlen(e.where) == sizeof e.where - 1,
          "long texts are cut, with a NUL");
    CHECK(fail(&e, E_READ, "second", "s", 0, 0) == E_READ && e.code == E_SHAPE && e.what[0] == 'x',
          "the first error is kept");
    CHECK(fail(NULL, E_OPEN, "w", "w", 0, 0) == E_OPEN, "fail without a record");
    CHECK(name_format(big, sizeof big, "layers.%d.w%d%%.%s", -12) == OK
          && !strcmp(big, "layers.-12.w-12%%.%s"), "name_format: %s", big);
    CHECK(name_format(out, sizeof out, "abc.%d", 123) == OK && !strcmp(out, "abc.123"),
          "name_format fits exactly");
    CHECK(name_format(out, sizeof out, "abc.%d", 1234) == E_RANGE && !strcmp(out, "abc.123"),
          "name_format tells when it cuts");
    CHECK(name_format(out, 0, "a", 0) == E_RANGE && out[0] == 'a', "name_format writes nothing into nothing");
    CHECK(threads_max() >= 1 && thread_index() == 0, "threads");
}

/* ---- memory ---- */

/* Carves pieces of awkward sizes, as a program would. Returns how many pieces it got. */
static int carve(Arena *a, unsigned char *piece[6]) {
    static const size_t count[6] = { 1, 63, 64, 65, 0, 1000 };
    int i, n = 0;
    for (i = 0; i < 6; i++) n += (piece[i] = arena_take(a, count[i], i % 2 ? 1 : 4)) != NULL;
    return n;
}

static void check_arena(void) {
    Arena measure, a;
    unsigned char *piece[6], *block = malloc(8192 + 64), *aligned = block + (64 - (uintptr_t)block % 64) % 64;
    int i, ok = 1;
    memset(&measure, 0, sizeof measure);
    CHECK(carve(&measure, piece) == 0 && !measure.failed && measure.used == measure.peak,
          "measuring hands out nothing");
    memset(&a, 0, sizeof a);
    a.base = aligned;
    a.capacity = measure.used;
    CHECK(carve(&a, piece) == 6 && !a.failed && a.used == measure.used,
          "a block of the measured size is exactly enough");
    for (i = 0; i < 6; i++) ok &= ((uintptr_t)piece[i] % 64 == 0) && (i == 0 || piece[i] >= piece[i - 1]);
    CHECK(ok && piece[2] >= piece[1] + 63, "pieces are 64-byte aligned and do not overlap");
    a.used = 0;
    a.capacity--;
    CHECK(carve(&a, piece) == 5 && a.failed && !piece[5], "one byte less fails");
    CHECK(arena_take(&a, 1, 1) == NULL || a.failed, "failed stays");
    memset(&a, 0, sizeof a);
    a.base = aligned;
    a.capacity = 8192;
    CHECK(!arena_take(&a, SIZE_MAX / 2, 4) && a.failed && a.used == 0, "count * size overflows");
    a.failed = 0;
    arena_take(&a, 100, 1);
    CHECK(!arena_take(&a, SIZE_MAX - 64, 1) && a.failed && a.used == 100, "used + bytes overflows");
    a.failed = 0;
    CHECK(!arena_take(&a, SIZE_MAX - 200, 1) && a.failed && a.used == 100, "larger than the block");
    memset(&measure, 0, sizeof measure);
    arena_take(&measure, SIZE_MAX - 10, 1);
    CHECK(!measure.failed && !arena_take(&measure, 1, 1) && measure.failed,
          "overflow is seen while measuring");
    memset(&a, 0, sizeof a);
    a.base = aligned;
    a.capacity = 8192;
    arena_take(&a, 5000, 1);
    a.used = 0;
    arena_take(&a, 10, 1);
    CHECK(a.peak == 5000 && a.used == 10, "peak outlives the stack's fall");
    a.used = 70;
    a.capacity = 100;
    CHECK(!arena_take(&a, 1, 1) && a.failed && a.used == 70, "the next multiple of 64 is past the end");
    free(block);
}

static int sources, sinks, sources_left;
static void *counting_source(size_t n) {
    void *p = sources_left-- > 0 ? malloc(n) : NULL;
    if (p) { sources++; memset(p, 0xAA, n); }
    return p;
}
static void counting_sink(void *p) { sinks++; free(p); }

static int all_zero(const unsigned char *p, size_t n) {
    size_t i;
    for (i = 0; i < n; i++) if (p[i]) return 0;
    return 1;
}

static void check_pool(void) {
    static const size_t size[] = { 1, 17, 100000, 64, 3000000, 5, 65536, 0, 40000, 16 };
    Pool p;
    PoolMark empty, mark;
    unsigned char *first;
    size_t total = 0;
    int round, zero = 1, aligned = 1, i, n = (int)COUNT(size);
    memset(&p, 0, sizeof p);
    p.source = counting_source;
    p.sink = counting_sink;
    sources_left = 1000;
    empty = pool_mark(&p);
    first = pool_take(&p, 10, 1);
    mark = pool_mark(&p);
    memset(first, 7, 10);
    for (round = 0; round < 4; round++) {
        for (i = 0; i < 3 * n; i++) {
            unsigned char *q = pool_take(&p, size[(i * 7 + round) % n], 1);
            zero &= all_zero(q, size[(i * 7 + round) % n]);
            aligned &= (uintptr_t)q % 16 == 0;
            memset(q, 0x55, size[(i * 7 + round) % n]);
        }
        pool_release(&p, mark);
        if (round == 0) total = p.total;
    }
    CHECK(zero, "everything handed out is zeroed, again and again");
    CHECK(aligned, "and 16-byte aligned");
    CHECK(p.total <= total + total / 2,
          "released blocks are used again: %lu, then %lu bytes", (unsigned long)total,
          (unsigned long)p.total);
    CHECK(first[0] == 7 && first[9] == 7, "what was taken before the mark stays");
    pool_release(&p, empty);
    total = p.total;
    CHECK(pool_take(&p, 2000000, 1) && p.total == total, "a mark of the empty pool releases everything");
    CHECK(!pool_take(&p, SIZE_MAX / 4, 8) && !pool_take(&p, SIZE_MAX, 1) && !pool_take(&p, SIZE_MAX - 40, 1),
          "overflow is refused");
    CHECK(!pool_text(&p, "x", SIZE_MAX), "an endless text is refused");
    sources_left = 0;
    CHECK(!pool_take(&p, 50000000, 1) && p.total == total, "no more memory: NULL");
    CHECK(!strcmp(pool_text(&p, "ab\0cd", 5), "ab") && !memcmp(pool_text(&p, "ab\0cd", 5), "ab\0cd", 6),
          "pool_text keeps NULs");
    pool_free(&p);
    CHECK(sources == sinks && sources > 0 && !p.first && !p.total, "every block went back (%d of %d)", sinks,
          sources);
    pool_free(&p);
    memset(&p, 0, sizeof p);
    p.source = counting_source;
    CHECK(!pool_take(&p, 1, 1), "a pool that never gets a block");
}

    /* Small pieces share a block. */
static void check_pool_growth(void) {
    Pool p;
    int i, before = sources;
    memset(&p, 0, sizeof p);
    p.source = counting_source;
    p.sink = counting_sink;
    sources_left = 1000000;
    for (i = 0; i < 200000; i++) pool_take(&p, 100, 1);
    CHECK(sources - before < 60, "22 MB of small pieces came in %d blocks", sources - before);
    pool_free(&p);
}

/* ---- bytes ---- */

static void check_buffer(void) {
    static const unsigned char wanted[] = { 0xFE, 0x34, 0x12, 0xEF, 0xBE, 0xAD, 0xDE, 8, 7, 6, 5, 4, 3, 2, 1,
                                            'h', 'i' };
    Pool p = test_pool(), dry;
    Buffer b, json, d;
    int i, ok = 1;
    memset(&b, 0, sizeof b);
    b.pool = &p;
    buffer_u8(&b, 0xFE);
    buffer_u16(&b, 0x1234);
    buffer_u32(&b, 0xDEADBEEFu);
    buffer_u64(&b, 0x0102030405060708u);
    buffer_text(&b, "hi");
    CHECK(!b.failed && b.length == sizeof wanted && !memcmp(b.data, wanted, sizeof wanted),
          "little-endian bytes");
    b.length = 0;
    buffer_integer(&b, 0);
    buffer_integer(&b, -7);
    buffer_integer(&b, LLONG_MAX);
    buffer_integer(&b, LLONG_MIN);
    buffer_u8(&b, 0);
    CHECK(!strcmp((char *)b.data, "0-79223372036854775807-9223372036854775808"), "decimal: %s",
          (char *)b.data);
    b.length = 0;
    for (i = 0; i < 300000; i++) buffer_u32(&b, (uint32_t)i);
    for (i = 0; i < 300000; i++) ok &= b.data[4 * i] == (i & 255) && b.data[4 * i + 2] == (i >> 16 & 255);
    CHECK(ok && b.length == 1200000 && !b.failed, "growth keeps the bytes");
    d = b;
    d.data = NULL;
    d.length = d.capacity = 0;
    buffer_bytes(&d, b.data, 1200000);
    CHECK(d.length == 1200000 && d.capacity >= d.length && !memcmp(d.data, b.data, d.length),
          "one large piece into an empty buffer");
    memset(&json, 0, sizeof json);
    json.pool = &p;
    buffer_json_string(&json, "a\"\\\b\f\n\r\t/\0\x01\x1f\x7f\xc3\xa9\xf0\x9f\x98\x80\xff\xc0\x80z", 23);
    buffer_u8(&json, 0);
    CHECK(!strcmp((char *)json.data,
                  "\"a\\\"\\\\\\b\\f\\n\\r\\t/\\u0000\\u0001\\u001f\x7f\xc3\xa9\xf0\x9f\x98\x80"
                  "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz\""), "JSON string: %s", (char *)json.data);
    memset(&dry, 0, sizeof dry);
    dry.source = counting_source;
    sources_left = 0;
    memset(&d, 0, sizeof d);
    d.pool = &dry;
    buffer_u32(&d, 1);
    buffer_text(&d, "x");
    CHECK(d.failed && d.length == 0, "without memory: failed, and it stays");
    pool_free(&p);
}

static void check_reader(void) {
    static const unsigned char bytes[] = { 0xFE, 0x34, 0x12, 0xEF, 0xBE, 0xAD, 0xDE, 8, 7, 6, 5, 4, 3, 2,
                                           0xF1, 'h', 'i', '!' };
    Reader r;
    r.at = bytes;
    r.end = bytes + sizeof bytes;
    r.bad = 0;
    CHECK(read_u8(&r) == 0xFE, "u8");
    CHECK(read_u16(&r) == 0x1234, "u16");
    CHECK(read_u32(&r) == 0xDEADBEEFu, "u32");
    CHECK(read_u64(&r) == 0xF102030405060708u, "u64");
    CHECK(read_bytes(&r, 2) == bytes + 15 && !r.bad, "bytes");
    CHECK(read_u16(&r) == 0 && r.bad, "beyond the end: 0 and bad");
    CHECK(read_u8(&r) == 0 && !read_bytes(&r, 0) && r.bad, "bad stays, though a byte is left");
    r.bad = 0;
    CHECK(!read_bytes(&r, UINT64_MAX) && r.bad && r.at == bytes + 17, "a length of 2^64 - 1");
    r.bad = 0;
    CHECK(read_u8(&r) == '!' && !r.bad && read_bytes(&r, 0) == bytes + 18 && !r.bad && read_u64(&r) == 0
          && r.bad, "exactly to the end");
}

/* ---- UTF-8 ---- */

static void check_utf8(void) {
    static const struct { const char *bytes; int n; int32_t code; int length; } t[] = {
        { "A", 1, 'A', 1 }, { "\0", 1, 0, 1 }, { "\x7f", 1, 0x7F, 1 }, { "\xc2\x80", 2, 0x80, 2 },
        { "\xdf\xbf", 2, 0x7FF, 2 },
        { "\xe0\xa0\x80", 3, 0x800, 3 }, { "\xed\x9f\xbf", 3, 0xD7FF, 3 }, { "\xee\x80\x80", 3, 0xE000, 3 },
        { "\xef\xbf\xbf", 3, 0xFFFF, 3 },
        { "\xf0\x90\x80\x80", 4, 0x10000, 4 }, { "\xf4\x8f\xbf\xbf", 4, 0x10FFFF, 4 },
        { "\xc3\xa9z", 3, 0xE9, 2 },
        { "\x80", 1, -1, 1 }, { "\xbf\x80", 2, -1, 1 },    /* a continuation byte alone */
        /* overlong */
        { "\xc0\x80", 2, -1, 1 }, { "\xc1\xbf", 2, -1, 1 }, { "\xe0\x80\x80", 3, -1, 1 },
        { "\xe0\x9f\xbf", 3, -1, 1 },
        { "\xf0\x80\x80\x80", 4, -1, 1 }, { "\xf0\x8f\xbf\xbf", 4, -1, 1 },
        { "\xed\xa0\x80", 3, -1, 1 }, { "\xed\xbf\xbf", 3, -1, 1 },                 /* surrogates */
        { "\xf4\x90\x80\x80", 4, -1, 1 }, { "\xf5\x80\x80\x80", 4, -1, 1 },
        { "\xf8\x88\x80\x80\x80", 5, -1, 1 }, { "\xff", 1, -1, 1 },
        { "\xc3", 1, -1, 1 }, { "\xe2\x82", 2, -1, 1 }, { "\xf0\x9f\x98", 3, -1, 1 },   /* truncated */
        { "\xc3z", 2, -1, 1 }, { "\xe2\x82z", 3, -1, 1 }, { "\xe2z\xac", 3, -1, 1 },
        { "\xf0\x9f\x98z", 4, -1, 1 }, { "\xf0\x9f\xc3\xa9", 4, -1, 1 },
    };
    static const int32_t odd[] = { -1, 0xD800, 0xDFFF, 0x110000, INT32_MAX, INT32_MIN };
    char out[4];
    size_t i;
    int32_t c, code;
    int ok = 1;
    for (i = 0; i < COUNT(t); i++) {
        char *exact = malloc((size_t)t[i].n);           /* so that the sanitizer sees a read past the end */
        int length;
        memcpy(exact, t[i].bytes, (size_t)t[i].n);
        length = utf8_decode(exact, (size_t)t[i].n, &code);
        CHECK(code == t[i].code && length == t[i].length, "utf8_decode case %d: %ld, %d", (int)i, (long)code,
              length);
        free(exact);
    }
    for (c = 0; c <= 0x10FFFF; c++) {
        int n = utf8_encode(out, c), surrogate = c >= 0xD800 && c < 0xE000;
        ok &= n == (c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4);
        ok &= utf8_decode(out, (size_t)n, &code) == n && code == (surrogate ? 0xFFFD : c);
    }
    CHECK(ok, "every code point there and back");
    for (i = 0; i < COUNT(odd); i++)
        CHECK(utf8_encode(out, odd[i]) == 3 && !memcmp(out, "\xef\xbf\xbd", 3), "no character: %ld",
              (long)odd[i]);
}

/* ---- JSON ---- */

/* Appends a value as compact text, to compare what the parser understood. */
static void dump(const Json *v, Buffer *b) {
    const Json *c;
    char number[40];
    switch (v->type) {
    case JSON_NULL: buffer_text(b, "null"); break;
    case JSON_FALSE: buffer_text(b, "false"); break;
    case JSON_TRUE: buffer_text(b, "true"); break;
    case JSON_NUMBER: snprintf(number, sizeof number, "%.17g", v->number); buffer_text(b, number); break;
    case JSON_STRING: buffer_json_string(b, v->string, v->length); break;
    default:
        buffer_u8(b, v->type == JSON_OBJECT ? '{' : '[');
        for (c = v->child; c; c = c->next) {
            if (v->type == JSON_OBJECT) { buffer_json_string(b, c->key, c->key_length); buffer_u8(b, ':'); }
            dump(c, b);
            if (c->next) buffer_u8(b, ',');
        }
        buffer_u8(b, v->type == JSON_OBJECT ? '}' : ']');
    }
}

#define TEXT(s) s, sizeof (s) - 1
static const struct { const char *text; size_t n; const char *dump; } good[] = {
    { TEXT("null"), "null" }, { TEXT("true"), "true" }, { TEXT("false"), "false" },
    { TEXT(" \t\r\n 1 \n"), "1" },
    { TEXT("0"), "0" }, { TEXT("-0"), "-0" }, { TEXT("-0.0"), "-0" }, { TEXT("0.5"), "0.5" },
    { TEXT("-12.25"), "-12.25" },
    { TEXT("1e3"), "1000" }, { TEXT("1E+3"), "1000" }, { TEXT("1.5e-1"), "0.14999999999999999" },
    { TEXT("0e99999"), "0" },
    { TEXT("0.1"), "0.10000000000000001" }, { TEXT("3.141592653589793"), "3.1415926535897931" },
    { TEXT("9007199254740991"), "9007199254740991" }, { TEXT("-9007199254740992"), "-9007199254740992" },
    { TEXT("9007199254740993"), "9007199254740992" },
    { TEXT("123456789012345678901234567890"), "1.2345678901234568e+29" },
    { TEXT("1.7976931348623157e308"), "1.7976931348623157e+308" },
    { TEXT("4.9e-324"), "4.9406564584124654e-324" },
    { TEXT("1e-400"), "0" }, { TEXT("1e-99999999999999999999999999"), "0" },
    { TEXT("2.2250738585072011e-308"), "2.2250738585072009e-308" },
    { TEXT("1000000000000000000000000000000000000000000000000000000000000000000000000000000e-78"), "1" },
    { TEXT("0.00000000000000000000000000000000000000000000000000000000000000000000000000000001e80"), "1" },
    { TEXT("\"\""), "\"\"" }, { TEXT("\"a b\""), "\"a b\"" },
    { TEXT("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""), "\"\\\"\\\\/\\b\\f\\n\\r\\t\"" },
    { TEXT("\"\\u0041\\u00e9\\u20AC\""), "\"A\xc3\xa9\xe2\x82\xac\"" },
    { TEXT("\"\\ud83d\\ude00\""), "\"\xf0\x9f\x98\x80\"" },
    { TEXT("\"\\uD834\\udd1ex\""), "\"\xf0\x9d\x84\x9ex\"" },
    { TEXT("\"\\u0000x\""), "\"\\u0000x\"" }, { TEXT("\"\x7f\""), "\"\x7f\"" },
    { TEXT("\"\xc3\xa9\xf4\x8f\xbf\xbf\""), "\"\xc3\xa9\xf4\x8f\xbf\xbf\"" },
    { TEXT("\"\\\\\""), "\"\\\\\"" },
    { TEXT("[]"), "[]" }, { TEXT("[ ]"), "[]" }, { TEXT("[1]"), "[1]" },
    { TEXT("[1, [2,[]] ,\"x\"]"), "[1,[2,[]],\"x\"]" },
    { TEXT("{}"), "{}" }, { TEXT("{ }"), "{}" }, { TEXT("{\"a\" : 1 , \"\":{}}"), "{\"a\":1,\"\":{}}" },
    { TEXT("{\"a\":1,\"a\":2}"), "{\"a\":1,\"a\":2}" },
    { TEXT("{\"\\u0061\\u0000\":true}"), "{\"a\\u0000\":true}" },
};
static const struct { const char *text; size_t n; int code; } bad[] = {
    { TEXT(""), E_TRUNCATED }, { TEXT("  "), E_TRUNCATED }, { TEXT("["), E_TRUNCATED },
    { TEXT("[1"), E_TRUNCATED }, { TEXT("[1,"), E_TRUNCATED },
    { TEXT("{\"a\":"), E_TRUNCATED }, { TEXT("{\"a\":1"), E_TRUNCATED }, { TEXT("\"abc"), E_TRUNCATED },
    { TEXT("\"abc\\"), E_TRUNCATED },
    { TEXT("\"abc\\\""), E_TRUNCATED }, { TEXT("{"), E_FORMAT }, { TEXT("{\"a\""), E_FORMAT },
    { TEXT("{\"a\" 1}"), E_FORMAT },
    { TEXT("{\"a\":1,}"), E_FORMAT }, { TEXT("{,}"), E_FORMAT }, { TEXT("{a:1}"), E_FORMAT },
    { TEXT("{'a':1}"), E_FORMAT },
    { TEXT("{1:1}"), E_FORMAT },
    { TEXT("[1,]"), E_FORMAT }, { TEXT("[,1]"), E_FORMAT }, { TEXT("[1 2]"), E_FORMAT },
    { TEXT("[1}"), E_FORMAT }, { TEXT("]"), E_FORMAT },
    { TEXT("1 2"), E_FORMAT }, { TEXT("{}x"), E_FORMAT }, { TEXT("null\0"), E_FORMAT },
    { TEXT("nul"), E_FORMAT }, { TEXT("True"), E_FORMAT },
    { TEXT("nan"), E_FORMAT }, { TEXT("NaNs"), E_FORMAT }, { TEXT("Infinit"), E_FORMAT },
    { TEXT("-NaN"), E_FORMAT }, { TEXT("+Infinity"), E_FORMAT }, { TEXT("inf"), E_FORMAT },
    { TEXT("-"), E_FORMAT },
    { TEXT("+1"), E_FORMAT }, { TEXT("01"), E_FORMAT }, { TEXT("-01"), E_FORMAT }, { TEXT(".5"), E_FORMAT },
    { TEXT("1."), E_FORMAT },
    { TEXT("1.e1"), E_FORMAT }, { TEXT("1e"), E_FORMAT }, { TEXT("1e+"), E_FORMAT },
    { TEXT("0x10"), E_FORMAT }, { TEXT("1_000"), E_FORMAT },
    { TEXT("1e999"), E_RANGE }, { TEXT("-1e309"), E_RANGE }, { TEXT("1.7976931348623159e308"), E_RANGE },
    { TEXT("1e99999999999999999999999"), E_RANGE },
    { TEXT("\"\\x\""), E_FORMAT }, { TEXT("\"\\u12\""), E_FORMAT }, { TEXT("\"\\u12g4\""), E_FORMAT },
    { TEXT("\"\\ud83d\\u12\""), E_FORMAT }, { TEXT("\"\\ud83d\""), E_FORMAT },
    { TEXT("\"\\ude00\""), E_FORMAT },
    { TEXT("\"\\ud83dA\""), E_FORMAT }, { TEXT("\"\\ud83d\\u0041\""), E_FORMAT },
    { TEXT("\"\\ud83d\\ud83d\\ude00\""), E_FORMAT }, { TEXT("\"\\ud83d\\uf000\""), E_FORMAT },
    { TEXT("\"\\ud83d\\n\""), E_FORMAT },
    { TEXT("\"\\'\""), E_FORMAT }, { TEXT("\"\\U0041\""), E_FORMAT }, { TEXT("\"a\nb\""), E_FORMAT },
    { TEXT("\"a\tb\""), E_FORMAT }, { TEXT("\"a\0b\""), E_FORMAT },
    { TEXT("\"\\\0\""), E_FORMAT }, { TEXT("\"\xff\""), E_FORMAT }, { TEXT("\"\xc3\""), E_FORMAT },
    { TEXT("\"\xc0\x80\""), E_FORMAT },
    { TEXT("\"\xed\xa0\x80\""), E_FORMAT }, { TEXT("{\"\xfe\":1}"), E_FORMAT },
    { TEXT("\xef\xbb\xbf{}"), E_FORMAT }, { TEXT("// c\n1"), E_FORMAT },
};

/* Parses a copy that ends where its memory ends, so that the sanitizer sees every read past the end. */
static const Json *parse_exact(const char *text, size_t n, Pool *p, Error *e) {
    char *exact = malloc(n ? n : 1);
    const Json *v;
    if (n) memcpy(exact, text, n);
    v = json_parse(exact, n, p, e);
    free(exact);
    return v;
}

static void check_json(void) {
    Pool p = test_pool();
    Error e;
    size_t i, k;
    int ok = 1;
    for (i = 0; i < COUNT(good); i++) {
        const Json *v;
        Buffer b;
        e = none();
        memset(&b, 0, sizeof b);
        b.pool = &p;
        v = parse_exact(good[i].text, good[i].n, &p, &e);
        if (v) dump(v, &b);
        buffer_u8(&b, 0);
        CHECK(v && !e.code && !strcmp((char *)b.data, good[i].dump), "JSON %s: %s %s", good[i].text,
              (char *)b.data, e.what);
        for (k = 0; k < good[i].n; k++) {               /* every prefix gives a value or an error */
            Error cut = none();
            ok &= parse_exact(good[i].text, k, &p, &cut) ? !cut.code : cut.code != OK;
        }
    }
    CHECK(ok, "every prefix of every good text");
    for (i = 0; i < COUNT(bad); i++) {
        e = none();
        CHECK(!parse_exact(bad[i].text, bad[i].n, &p, &e) && e.code == bad[i].code && e.got >= 0
              && (size_t)e.got <= bad[i].n, "bad JSON %s: code %d instead of %d (%s)", bad[i].text, e.code,
              bad[i].code, e.what);
    }
    pool_free(&p);
}

static void check_json_access(void) {
    Pool p = test_pool();
    Error e = none();
    char deep[400];
    const char *text =
        "{\"n\":2.5,\"t\":true,\"f\":false,\"s\":\"x\\u0000y\",\"z\":null,\"a\":[1,2,3],\"n2\":1,\"n2\":7}";
    const Json *v = json_parse(text, strlen(text), &p, &e), *a;
    CHECK(v && v->count == 8 && json_number(v, "n", 9) == 2.5 && json_number(v, "n2", 9) == 7,
          "numbers; of duplicates the last");
    {
        const char *unasked = "{\"a\":NaN,\"b\":[Infinity,-Infinity],\"n\":3}";
        const Json *u = json_parse(unasked, strlen(unasked), &p, &e), *b = json_get(u, "b");
        CHECK(u && json_number(u, "n", 9) == 3 && isnan(json_number(u, "a", 9)) && b->count == 2
              && b->child->number == HUGE_VAL && b->child->next->number == -HUGE_VAL,
              "NaN and infinities are numbers, as in Python");
    }
    CHECK(json_number(v, "z", 9) == 9 && json_number(v, "q", 9) == 9 && json_number(v, "t", 9) == 9
          && json_number(NULL, "t", 9) == 9, "fallbacks");
    CHECK(json_bool(v, "t", 5) == 1 && json_bool(v, "f", 5) == 0 && json_bool(v, "z", 5) == 5
          && json_bool(v, "n", 5) == 5, "booleans");
    CHECK(json_get(v, "s")->length == 3 && !memcmp(json_get(v, "s")->string, "x\0y", 4)
          && !strcmp(json_text(v, "n", "fb"), "fb"), "texts");
    a = json_get(v, "a");
    CHECK(a && a->count == 3 && a->child->next->next->number == 3 && !a->child->next->next->next
          && !json_get(a, "n"), "arrays");
    memset(deep, '[', 200);
    memset(deep + 64, ']', 64);
    CHECK(json_parse(deep, 128, &p, &e) && !e.code, "64 deep");
    memset(deep, '[', 65);
    memset(deep + 65, ']', 65);
    CHECK(!json_parse(deep, 130, &p, &e) && e.code == E_RANGE && e.got == 64, "65 deep is refused");
    e = none();
    memset(deep, '[', sizeof deep);
    CHECK(!json_parse(deep, sizeof deep, &p, &e) && e.code == E_RANGE, "400 open brackets");
    e = none();
    CHECK(!json_parse("{\"a\":tru}", 9, &p, &e) && e.got == 5 && strstr(e.what, "byte 5"),
          "the place of an error: %s", e.what);
    sources_left = 0;
    p.source = counting_source;
    e = none();
    memset(deep, ' ', sizeof deep);
    for (v = NULL; !e.code; ) v = json_parse("[\"abcdefghijklmnop\"]", 20, &p, &e);
    CHECK(!v && e.code == E_MEMORY, "out of memory is an error: %s", e.what);
    pool_free(&p);
}

/* ---- random streams ---- */

static void check_rng(void) {
    static const uint64_t from0[] = { 0xE220A8397B1DCDAFu, 0x6E789E6AA1B965F4u, 0x06C45D188009454Fu,
                                      0xF88BB8A8724C81ECu };
    static const uint64_t from1234567[] = { 6457827717110365317u, 3203168211198807973u, 9817491932198370423u,
                                            4593380528125082431u, 16408922859458223821u };
    Rng r, s, t, u;
    int i, k, ok = 1, bucket[7] = { 0 }, order[5], seen[120] = { 0 };
    double mean = 0, var = 0, fourth = 0, chi = 0;
    r.state = 0;
    for (i = 0; i < 4; i++) ok &= rng_next(&r) == from0[i];
    r.state = 1234567;
    for (i = 0; i < 5; i++) ok &= rng_next(&r) == from1234567[i];
    CHECK(ok, "splitmix64's published values");
    r = rng_stream(1, 2, 3); s = rng_stream(1, 3, 2); t = rng_stream(2, 1, 3); u = rng_stream(1, 2, 3);
    CHECK(r.state == u.state && r.state != s.state && r.state != t.state,
          "streams depend on seed, step and index, each in its place");
    CHECK(r.state == 0x6AE515C1C0AC7E37u, "rng_stream(1, 2, 3) = %llx", (unsigned long long)r.state);
    for (i = 0, ok = 1; i < 10000; i++) { double x = rng_unit(&r); ok &= x >= 0 && x < 1; mean += x / 10000; }
    CHECK(ok && fabs(mean - 0.5) < 0.015, "rng_unit in [0,1), mean %g", mean);
    for (i = 0, mean = 0; i < 20000; i++) {
        double x = rng_normal(&r);
        mean += x / 20000;
        var += x * x / 20000;
        fourth += x * x * x * x / 20000;
    }
    CHECK(fabs(mean) < 0.03 && fabs(var - 1) < 0.04 && fabs(fourth - 2.9) < 0.25,
          "rng_normal: mean %g, variance %g, kurtosis %g", mean, var, fourth);
    for (i = 0, ok = 1; i < 70000; i++) { uint64_t x = rng_below(&r, 7); ok &= x < 7; bucket[x % 7]++; }
    for (i = 0; i < 7; i++) chi += (bucket[i] - 10000.0) * (bucket[i] - 10000.0) / 10000;
    CHECK(ok && chi < 22.5, "rng_below(7) is uniform: chi square %g with 6 degrees (22.5: one in a "
                            "thousand)", chi);
    for (i = 0, k = 0; i < 30000; i++) k += rng_below(&r, 0xC000000000000000u) < 0x4000000000000000u;
    CHECK(abs(k - 10000) < 330, "no modulo bias at 3/4 of 2^64: %d of 30000 in the first third (15000 with "
                                "bias)", k);
    CHECK(rng_below(&r, 1) == 0 && rng_below(&r, UINT64_MAX) < UINT64_MAX, "rng_below at its ends");
    for (i = 0; i < 24000; i++) {                       /* each of the 120 orders of five about 200 times */
        int code = 0, rest[5] = { 0, 1, 2, 3, 4 }, n, m;
        for (n = 0; n < 5; n++) order[n] = n;
        rng_shuffle(&r, order, 5);
        for (n = 0; n < 5; n++) {
            for (m = 0; rest[m] != order[n]; m++) { }
            code = code * (5 - n) + m;
            for (; m < 4 - n; m++) rest[m] = rest[m + 1];
        }
        seen[code]++;
    }
    for (i = 0, chi = 0; i < 120; i++) chi += (seen[i] - 200.0) * (seen[i] - 200.0) / 200;
    CHECK(chi < 175, "rng_shuffle: chi square %g with 119 degrees (175: one in two thousand)", chi);
}

/* Returns z mixed as splitmix64 mixes its state after the addition. rng_next adds the constant, so the state
 * starts that much lower. */
static uint64_t finish(uint64_t z) { Rng r; r.state = z - 0x9E3779B97F4A7C15u; return rng_next(&r); }

static void check_hash(void) {
    CHECK(hash_bytes("", 0, 0) == finish(0xCBF29CE484222325u), "FNV-1a of nothing");
    CHECK(hash_bytes("a", 1, 0) == finish(0xAF63DC4C8601EC8Cu), "FNV-1a of a");
    CHECK(hash_bytes("foobar", 6, 0) == finish(0x85944171F73967E8u), "FNV-1a of foobar");
    CHECK(hash_bytes("foobar", 6, 1) != hash_bytes("foobar", 6, 0), "the seed counts");
}

/* ---- 16-bit floats ---- */

static uint32_t bits(f32 x) { uint32_t u; memcpy(&u, &x, 4); return u; }
static f32 value(uint32_t u) { f32 x; memcpy(&x, &u, 4); return x; }

/* Returns the value of a finite pattern without its sign, by the definition: f fraction bits, bias b. */
static double defined(unsigned pattern, int f, int bias) {
    int exponent = (int)(pattern >> f), fraction = (int)(pattern & ((1u << f) - 1));
    return exponent ? ldexp((1 << f) + fraction, exponent - bias - f) : ldexp(fraction, 1 - bias - f);
}

/* Checks all 65,536 patterns there and back, and numbers between neighbours: the middle goes to the even one,
 * a number next to the middle to the nearer one. */
static void check_half(const char *name, f32 (*wide)(uint16_t), uint16_t (*narrow)(f32), int f, int bias) {
    const unsigned infinity = ((1u << (15 - f)) - 1) << f;
    unsigned h;
    long wrong_value = 0, wrong_trip = 0, wrong_nan = 0, wrong_tie = 0, wrong_side = 0;
    for (h = 0; h < 65536; h++) {
        unsigned magnitude = h & 0x7FFF, sign = h >> 15;
        f32 x = wide((uint16_t)h);
        uint16_t back = narrow(x);
        if (magnitude > infinity) {
            wrong_nan += x == x || (back & 0x7FFF) <= infinity || back >> 15 != sign
                || back != (h | 1u << (f - 1));
            continue;
        }
        if (magnitude == infinity) wrong_value += !(fabs((double)x) > FLT_MAX);
        else wrong_value += fabs((double)x) != defined(magnitude, f, bias);
        wrong_value += bits(x) >> 31 != sign;
        wrong_trip += back != h;
        if (magnitude < infinity) {    /* the largest number's neighbour is where the next power would be */
            double middle = (defined(magnitude, f, bias) + defined(magnitude + 1, f, bias)) / 2;
            uint32_t m = bits((f32)middle) | (uint32_t)sign << 31;
            if ((double)(f32)middle != middle) { wrong_tie++; continue; }
            wrong_tie += narrow(value(m)) != (h & 1 ? h + 1 : h);
            wrong_side += narrow(value(m - 1)) != h || narrow(value(m + 1)) != h + 1;
        }
    }
    CHECK(wrong_value == 0, "%s: all values as defined (%ld wrong)", name, wrong_value);
    CHECK(wrong_trip == 0, "%s: all there and back (%ld wrong)", name, wrong_trip);
    CHECK(wrong_nan == 0, "%s: NaN stays NaN, with its sign, quiet (%ld wrong)", name, wrong_nan);
    CHECK(wrong_tie == 0, "%s: ties to even (%ld wrong)", name, wrong_tie);
    CHECK(wrong_side == 0, "%s: beside the tie, the nearer one (%ld wrong)", name, wrong_side);
    CHECK(narrow(value(0x7F800001u)) > infinity && narrow(value(0xFF800001u)) > (infinity | 0x8000),
          "%s: a signalling NaN does not become infinity", name);
}

static void check_quant(void) {
    check_half("f16", f16_to_f32, f32_to_f16, 10, 15);
    check_half("bf16", bf16_to_f32, f32_to_bf16, 7, 127);
    CHECK(f32_to_f16(65504) == 0x7BFF && f32_to_f16(value(0x477FEFFFu)) == 0x7BFF
          && f32_to_f16(65520) == 0x7C00 && f32_to_f16(70000) == 0x7C00 && f32_to_f16(1e30f) == 0x7C00,
          "f16 overflow");
    CHECK(f32_to_f16(value(0x33000000u)) == 0 && f32_to_f16(value(0x33000001u)) == 1
          && f32_to_f16(1e-30f) == 0 && f32_to_f16(-1e-30f) == 0x8000, "f16 underflow");
    CHECK(f32_to_bf16(FLT_MAX) == 0x7F80 && f32_to_bf16(value(0x7F7F7FFFu)) == 0x7F7F
          && f32_to_bf16(value(1)) == 0, "bf16 at both ends");
    CHECK(f32_to_f16(1.0f) == 0x3C00 && f32_to_bf16(1.0f) == 0x3F80 && f32_to_f16(-2.0f) == 0xC000 &&
          f16_to_f32(0x3555) == value(0x3EAAA000u), "known values");
}

/* ---- files ---- */

/* Writes test input without fsync and renaming, because it is called many times. */
static void put(const char *path, const void *bytes, size_t n) {
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, n, f) != n) printf("  cannot write %s\n", path);
    if (f) fclose(f);
}

static int holds(const char *path, const char *text) {
    Pool p = test_pool();
    char *bytes;
    size_t n;
    int ok = file_read_all(path, &p, &bytes, &n, NULL) == OK && n == strlen(text)
        && !memcmp(bytes, text, n + 1);
    pool_free(&p);
    return ok;
}

static int file_count(const char *path) {
    Pool p = test_pool();
    char **names;
    int count, code = folder_list(path, 0, &p, &names, &count, NULL);
    pool_free(&p);
    return code == OK ? count : -1;
}

static void check_read(void) {
    Pool p = test_pool();
    Error e = none();
    File *f;
    char out[8], *bytes;
    size_t n;
    put(WORK "/ten", "0123456789", 10);
    put(WORK "/empty", "", 0);
    f = file_open(WORK "/ten", &p, &e);
    CHECK(f && file_size(f) == 10 && file_read_at(f, 7, out, 3, &e) == OK && !memcmp(out, "789", 3),
          "the last bytes");
    CHECK(file_read_at(f, 0, out, 4, &e) == OK && !memcmp(out, "0123", 4)
          && file_read_at(f, 10, out, 0, &e) == OK, "backwards, and nothing at the end");
    CHECK(file_read_at(f, 7, out, 4, &e) == E_TRUNCATED && e.got == 10 && e.wanted == 11
          && strstr(e.where, "ten"), "one byte too many");
    CHECK(file_read_at(f, 11, out, 0, NULL) == E_TRUNCATED
          && file_read_at(f, UINT64_MAX, out, 8, NULL) == E_TRUNCATED
          && file_read_at(f, 5, out, SIZE_MAX, NULL) == E_TRUNCATED, "offsets and lengths past every end");
    file_close(f);
    CHECK(file_read_at(f, 0, out, 1, NULL) == E_READ, "a closed file");
    file_close(f);
    e = none();
    CHECK(!file_open(WORK "/missing", &p, &e) && e.code == E_OPEN && strstr(e.where, "missing")
          && strchr(e.what, '('), "missing: %s", e.what);
    e = none();
    CHECK(file_read_all(WORK "/empty", &p, &bytes, &n, &e) == OK && n == 0 && bytes && bytes[0] == 0,
          "an empty file");
    CHECK(file_read_all(WORK "/ten", &p, &bytes, &n, &e) == OK && n == 10 && !strcmp(bytes, "0123456789"),
          "a whole file, with a NUL");
    CHECK(file_read_all(WORK, &p, &bytes, &n, &e) == E_OPEN && e.code == E_OPEN && !bytes,
          "a folder is no file: %s", e.what);
    CHECK(file_exists(WORK "/ten") && !file_exists(WORK "/missing") && !file_exists(WORK), "file_exists");
    pool_free(&p);
}

static void check_folders(void) {
    Pool p = test_pool();
    Error e = none();
    char **names;
    int count;
    CHECK(folder_make(WORK "/a/b//c/", &e) == OK && folder_exists(WORK "/a/b/c")
          && folder_make(WORK "/a/b/c", &e) == OK, "folder_make with parents, twice");
    CHECK(!folder_exists(WORK "/ten") && !folder_exists(WORK "/none"), "folder_exists");
    CHECK(folder_make(WORK "/ten/x", &e) == E_WRITE && strstr(e.where, "ten"), "a file in the way: %s",
          e.what);
    put(WORK "/a/b/zz", "", 0);
    put(WORK "/a/b/B", "", 0);
    put(WORK "/a/b/\xc3\xa9", "", 0);
    put(WORK "/a/b/a.txt", "", 0);
    e = none();
    CHECK(folder_list(WORK "/a/b", 0, &p, &names, &count, &e) == OK && count == 4 && !strcmp(names[0], "B")
          && !strcmp(names[1], "a.txt")
          && !strcmp(names[2], "zz") && !strcmp(names[3], "\xc3\xa9"),
          "folder_list: files only, in byte order (%d)", count);
    CHECK(folder_list(WORK "/none", 0, &p, &names, &count, &e) == E_OPEN && count == 0, "no such folder");
    CHECK(folder_make("", NULL) == E_ARGUMENT, "an empty path");
    pool_free(&p);
}

static void check_same(void) {
    CHECK(file_same(WORK "/ten", WORK "/./ten") && file_same(WORK "/ten", WORK "//ten")
          && !file_same(WORK "/ten", WORK "/empty") && file_same(WORK, WORK "/"), "file_same");
#ifdef POSIX_SYSTEM
    remove(WORK "/link");
    if (symlink("ten", WORK "/link") != 0) { SKIP("file_same: no links here"); return; }
    CHECK(file_same(WORK "/link", WORK "/a/../ten") && !file_same("/dev/null", "/dev/null"),
          "file_same: through links and .., and not devices");
    remove(WORK "/link");
#endif
}

#ifdef POSIX_SYSTEM
/* Folders without permission to write, and files without permission to read. Root may do everything, so this
 * process is another user meanwhile. */
static void check_permissions(void) {
    const int root = geteuid() == 0;
    Pool p = test_pool();
    Error e = none(), f = none(), g = none();
    char *bytes;
    size_t n;
    folder_make(WORK "/closed", NULL);
    put(WORK "/closed/secret", "s", 1);
    chmod(WORK "/closed/secret", 0);
    chmod(WORK "/closed", 0555);
    if (root && seteuid(65534) != 0) { SKIP("permissions: cannot be another user"); return; }
    folder_make(WORK "/closed/new", &e);
    writer_open(WORK "/closed/new", &p, &f);
    file_read_all(WORK "/closed/secret", &p, &bytes, &n, &g);
    const int there = file_exists(WORK "/closed/secret"), none_there = file_exists(WORK "/closed/no");
    if (root && seteuid(0) != 0) printf("  cannot be root again\n");
    chmod(WORK "/closed", 0755);
    remove(WORK "/closed/secret");
    CHECK(strstr(e.what, "ermission"), "a folder in a folder that cannot be written: %s", e.what);
    CHECK(strstr(f.what, "ermission"), "a file in it: %s", f.what);
    CHECK(strstr(g.what, "ermission") && there && !none_there, "a file that cannot be read is there: %s",
          g.what);
    pool_free(&p);
}

static void check_replace(void) {
    Pool p = test_pool();
    Error e = none();
    char full[600];
    folder_make(WORK "/old/in", NULL);
    folder_make(WORK "/new", NULL);
    put(WORK "/old/f", "old", 3);
    put(WORK "/new/g", "new", 3);
    CHECK(folder_empty(WORK "/old", &p, &e) == E_ARGUMENT && strstr(e.where, "/old/in")
          && holds(WORK "/old/f", "old"), "a folder with a folder in it is not emptied: %s", e.what);
    e = none();
    CHECK(folder_remove(WORK "/old/in", &e) == OK && folder_remove(WORK "/old", NULL) == E_WRITE,
          "only an empty folder is removed");
    CHECK(folder_replace(WORK "/new", WORK "/old", &p, &e) == OK && holds(WORK "/old/g", "new")
          && file_count(WORK "/old") == 1 && !folder_exists(WORK "/new"), "a folder is replaced as a whole");
    CHECK(folder_replace(WORK "/none", WORK "/old", &p, &e) != OK && holds(WORK "/old/g", "new"),
          "and stays if it cannot be: %s", e.what);
    e = none();
    CHECK(folder_resolve(full, sizeof full, WORK "/a/.././old//") == OK && full[0] == '/'
          && strstr(full, WORK "/old") && full[strlen(full) - 1] == 'd'
          && folder_resolve(full, 5, WORK) == E_RANGE, "folder_resolve: %s", full);
    folder_make(WORK "/old/prompt", NULL);
    put(WORK "/old/prompt/f", "soft", 4);
    CHECK(folder_empty(WORK "/old", &p, &e) == OK && folder_remove(WORK "/old", &e) == OK
          && !folder_exists(WORK "/old"), "emptied and removed, with a soft prompt in it: %s", e.what);
    pool_free(&p);
}

/* A lock that a child of this process holds, and one of a child that was killed. */
static void check_lock(void) {
    Error e = none();
    int handle, ready[2];
    long process;
    char byte;
    pid_t child;
    if (pipe(ready) != 0 || (child = fork()) < 0) { SKIP("locks: no second process"); return; }
    if (child == 0) {
        const int code = lock_take(WORK "/lock", &handle, &process, NULL);
        if (write(ready[1], code == OK ? "y" : "n", 1) == 1) pause();
        _exit(0);
    }
    CHECK(read(ready[0], &byte, 1) == 1 && byte == 'y', "a lock is taken");
    CHECK(lock_take(WORK "/lock", &handle, &process, &e) == E_OPEN && process == (long)child,
          "and no second time: %s (%ld)", e.what, process);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    e = none();
    CHECK(lock_take(WORK "/lock", &handle, &process, &e) == OK && process == (long)child,
          "the lock of a process that ended is taken over");
    lock_release(WORK "/lock", handle);
    CHECK(!file_exists(WORK "/lock") && lock_take(WORK "/lock", &handle, &process, &e) == OK && process == 0,
          "a lock that was released is gone");
    lock_release(WORK "/lock", handle);
    close(ready[0]);
    close(ready[1]);
}
#endif

/* Removes the files of an earlier run, which may have been interrupted. */
static void empty_folder(const char *path) {
    Pool p = test_pool();
    char **names, full[512];
    int count, i;
    folder_list(path, 0, &p, &names, &count, NULL);
    for (i = 0; i < count; i++) {
        snprintf(full, sizeof full, "%s/%s", path, names[i]);
        remove(full);
    }
    pool_free(&p);
}

static void check_write(void) {
    Pool p = test_pool();
    Error e = none();
    Writer *w, *v;
    int before;
    folder_make(WORK "/w", &e);
    empty_folder(WORK "/w");
    CHECK(file_write_all(WORK "/w/f", "old", 3, &p, &e) == OK && holds(WORK "/w/f", "old")
          && file_count(WORK "/w") == 1, "a file is written");
    w = writer_open(WORK "/w/f", &p, &e);
    CHECK(w && writer_write(w, "new", 3) == OK && holds(WORK "/w/f", "old"),
          "while it is written, the old one is in place");
    CHECK(writer_close(w, &e) == OK && holds(WORK "/w/f", "new") && file_count(WORK "/w") == 1,
          "and then the new one");
    CHECK(writer_write(w, "x", 1) == E_WRITE && writer_close(w, NULL) == E_WRITE
          && holds(WORK "/w/f", "new"), "and is over");
    w = writer_open(WORK "/w/f", &p, &e);
    v = writer_open(WORK "/w/f", &p, &e);
    CHECK(w && v && writer_write(w, "one", 3) == OK && writer_write(v, "second", 6) == OK
          && writer_write(w, " more", 5) == OK, "two writers of one name");
    CHECK(writer_close(v, &e) == OK && holds(WORK "/w/f", "second") && writer_close(w, &e) == OK &&
          holds(WORK "/w/f", "one more"), "do not mix; the last wins");
    CHECK(file_count(WORK "/w") == 1 && !e.code, "nothing is left over");
    before = file_count(WORK);
    CHECK(!writer_open(WORK "/none/f", &p, &e) && e.code == E_OPEN, "no such folder: %s", e.what);
    e = none();
    CHECK(!writer_open(WORK "/w", &p, &e) && e.code == E_OPEN && file_count(WORK) == before,
          "a folder cannot be written: %s", e.what);
    remove(WORK "/log");
    CHECK(file_append(WORK "/log", "a\n", 2, NULL) == OK && file_append(WORK "/log", "b\n", 2, NULL) == OK &&
          holds(WORK "/log", "a\nb\n"), "file_append");
    e = none();
    CHECK(file_append(WORK "/none/log", "a", 1, &e) == E_OPEN && e.code == E_OPEN, "file_append nowhere");
    CHECK(writer_write(NULL, "a", 1) == E_WRITE && writer_close(NULL, NULL) == E_WRITE, "no writer at all");
    pool_free(&p);
}

/* Makes a disk full in two ways: by a limit on file sizes, and with /dev/full. */
static void check_full_disk(void) {
#ifdef POSIX_SYSTEM
    Pool p = test_pool();
    Error e = none();
    struct rlimit old, small;
    static char block[100000];
    FILE *full = fopen("/dev/full", "rb");
    int code, appended;
    if (getrlimit(RLIMIT_FSIZE, &old) == 0) {
        small = old;
        small.rlim_cur = 20000;
        signal(SIGXFSZ, SIG_IGN);
        file_write_all(WORK "/w/big", "old", 3, &p, &e);
        setrlimit(RLIMIT_FSIZE, &small);
        code = file_write_all(WORK "/w/big", block, sizeof block, &p, &e);
        file_append(WORK "/w/big2", "line\n", 5, NULL);
        appended = file_append(WORK "/w/big2", block, sizeof block, NULL);
        setrlimit(RLIMIT_FSIZE, &old);
        CHECK(holds(WORK "/w/big2", "line\n"), "a line that does not fit leaves no part of it");
        remove(WORK "/w/big2");
        CHECK(code == E_WRITE && e.code == E_WRITE && strstr(e.where, "big"), "a full disk is told: %s",
              e.what);
        CHECK(holds(WORK "/w/big", "old") && file_count(WORK "/w") == 2,
              "and leaves the old file alone, without rests");
        CHECK(appended == E_WRITE, "file_append tells, too");
    } else SKIP("no limits on file sizes here");
    remove(WORK "/full");    /* the devices are reached through links: as root, a fault here would replace */
    remove(WORK "/null");       /* the system's own devices */
    if (full && symlink("/dev/full", WORK "/full") == 0 && symlink("/dev/null", WORK "/null") == 0) {
        fclose(full);
        e = none();
        CHECK(file_write_all(WORK "/full", "abc", 3, &p, &e) == E_WRITE, "/dev/full: %s", e.what);
        e = none();
        CHECK(file_write_all(WORK "/null", "abc", 3, &p, &e) == OK && (full = fopen(WORK "/null", "rb"))
              && fgetc(full) == EOF, "/dev/null is written, not replaced");
        if (full) fclose(full);
    } else SKIP("no /dev/full here");
    remove(WORK "/full");
    remove(WORK "/null");
    pool_free(&p);
#else
    SKIP("no POSIX: full disk");
#endif
}

/* Makes a file with a hole of 5 GB, which has bytes only before and after 4 GB. */
static void check_large(void) {
#ifdef POSIX_SYSTEM
    Pool p = test_pool();
    Error e = none();
    const char *path = WORK "/large";
    const uint64_t edge = (uint64_t)1 << 32, far = 5000000000u;
    FILE *f = sizeof(off_t) >= 8 ? fopen(path, "wb") : NULL;
    int made = f && !fseeko(f, (off_t)(edge - 2), SEEK_SET) && fwrite("edge", 1, 4, f) == 4
        && !fseeko(f, (off_t)far, SEEK_SET) && fwrite("far", 1, 3, f) == 3;
    char out[4];
    if (f && fclose(f) != 0) made = 0;
    if (made) {
        File *r = file_open(path, &p, &e);
        CHECK(r && file_size(r) == far + 3, "a file of 5 GB has its size: %s", e.what);
        CHECK(r && file_read_at(r, edge - 2, out, 4, &e) == OK && !memcmp(out, "edge", 4),
              "bytes across 4 GB");
        CHECK(r && file_read_at(r, far, out, 3, &e) == OK && !memcmp(out, "far", 3) &&
              file_read_at(r, far, out, 4, NULL) == E_TRUNCATED, "bytes after 4 GB");
        CHECK(r && file_read_at(r, far - edge, out, 3, &e) == OK && !memcmp(out, "\0\0\0", 3),
              "not those at the offset modulo 2^32");
        file_close(r);
    } else SKIP("this file system has no sparse file over 4 GB");
    remove(path);
    pool_free(&p);
#else
    SKIP("no POSIX: file over 4 GB");
#endif
}

/* What is no UTF-8 text is named. programs/prep.sh does this with pipes, too. */
static void check_texts(void) {
    static const struct { const char *text; size_t n; const char *what, *advice; } t[] = {
        { TEXT("\xFF\xFE" "a\0\n\0"), "UTF-16", "iconv -f UTF-16 " },
        { TEXT("\xFE\xFF\0a\0\n"), "UTF-16", "iconv -f UTF-16 " },
        { TEXT("a\0b\0\n\0"), "UTF-16", "iconv -f UTF-16LE " },
        { TEXT("\0a\0b\0\n"), "UTF-16", "iconv -f UTF-16BE " },
        { TEXT("\x1F\x8B\x08\n"), "gzip", "unpack" }, { TEXT("PK\3\4\n"), "zip", "unpack" },
        { TEXT("PAR1\x15\4\x15\n"), "Parquet", "JSONL" }, { TEXT("BZh91AY&SY\x8e\n"), "bzip2", "unpack" },
        { TEXT("BZh1\x17rE8P\x90\0\0\0\0"), "bzip2", "unpack" },
        { TEXT("version https://git-lfs.github.com/spec/v1\noid sha256:01\n"), "Git LFS", "git lfs pull" },
        { TEXT("a\0"), "a zero byte in line 1", "tr -d" },
        { TEXT("a\0b\n"), "a zero byte in line 1", "tr -d" },
        { TEXT("\xC3\xA4\tb\nc\0\n"), "a zero byte in line 2", "tr -d" },
        { TEXT("RLHFDATA\1\0\0\0\n"), "dataset", "prep show" },
        { TEXT("\x89PNG a\0\0\0b\n"), "binary", "give a text" }, { TEXT("\0\1\0\0ab\n"), "binary", "a text" },
        { TEXT("SQLite format 3\0\x10\0\1\1\n"), "binary", "give a text" },
        { TEXT("` \0\0\0\0\0\0{\"a\": {}}\n"), "safetensors", "give a text" },
    };
    Pool p = test_pool();
    char *bytes;
    size_t n;
    for (size_t i = 0; i < COUNT(t); i++) {
        Error e = none();
        put(WORK "/text", t[i].text, t[i].n);
        CHECK(text_read_all(WORK "/text", &p, &bytes, &n, &e) == E_FORMAT && strstr(e.what, t[i].what)
              && e.advice && strstr(e.advice, t[i].advice), "text %d: %s", (int)i, e.what);
        e = none();
#ifdef POSIX_SYSTEM
        CHECK(!lines_open(WORK "/text", &p, &e) && strstr(e.what, t[i].what), "its lines: %s", e.what);
#endif
    }
    static const char *const fine[] = { "BZh is a name\n", "BZh9, and more\n", "PAR1\n", "PAR1 and PAR2\n",
                                        "version https://git\n" };
    for (size_t i = 0; i < COUNT(fine); i++) {
        Error e = none();
        put(WORK "/text", fine[i], strlen(fine[i]));
        CHECK(text_read_all(WORK "/text", &p, &bytes, &n, &e) == OK && n == strlen(fine[i]),
              "a text that begins as another file does: %s", e.what);
    }
    put(WORK "/text", "\xEF\xBB\xBF" "a\rb", 6);
    CHECK(text_read_all(WORK "/text", &p, &bytes, &n, NULL) == OK && n == 3 && !memcmp(bytes, "a\nb", 4),
          "\\r alone");
    put(WORK "/text", "a\rb\n", 4);
    CHECK(text_read_all(WORK "/text", &p, &bytes, &n, NULL) == OK && n == 4 && !memcmp(bytes, "a\rb\n", 5),
          "\\r in a line");
    pool_free(&p);
}

static void check_lines(void) {
    static const struct { const char *text; size_t n; const char *lines; int count; } t[] = {
        { TEXT(""), "", 0 }, { TEXT("\n"), "|", 1 }, { TEXT("a"), "a|", 1 }, { TEXT("a\n"), "a|", 1 },
        { TEXT("a\r\nb\r\n"), "a|b|", 2 },
        { TEXT("\r\n\n\r\n"), "|||", 3 }, { TEXT("a\rb\n\r"), "a\rb|\r|", 2 }, { TEXT("x\n\ny"), "x||y|", 3 },
        { TEXT("\xEF\xBB\xBF" "a\nb"), "a|b|", 2 }, { TEXT("\xEF\xBB\xBF" "a\rb"), "a|b|", 2 },
        { TEXT("a\r\rb\r"), "a||b|", 3 }, { TEXT("\r"), "|", 1 },       /* \r ends lines if there is no \n */
    };
    Pool p = test_pool();
    Error e = none();
    Lines *l;
    const char *line;
    size_t i, n, long_n = 3000000;
    char *big = malloc(long_n + 8);
    for (i = 0; i < COUNT(t); i++) {
        char joined[64] = "";
        int count = 0;
        put(WORK "/lines", t[i].text, t[i].n);
        l = lines_open(WORK "/lines", &p, &e);
        while (lines_next(l, &line, &n))
            { count++; strncat(joined, line, n); strcat(joined, "|"); if (line[n]) count = 99; }
        CHECK(lines_close(l, &e) == OK && count == t[i].count && !strcmp(joined, t[i].lines),
              "lines, case %d: %d", (int)i, count);
    }
    memset(big, 'y', long_n);
    memcpy(big + long_n, "\r\na\0b\n", 6);
    put(WORK "/lines", big, long_n + 6);
    l = lines_open(WORK "/lines", &p, &e);
    CHECK(lines_next(l, &line, &n) && n == long_n && !memcmp(line, big, n), "a line of 3 MB");
    CHECK(lines_next(l, &line, &n) && n == 3 && !memcmp(line, "a\0b", 3) && !lines_next(l, &line, &n) &&
          !lines_next(l, &line, &n), "a NUL in a line, then the end");
    CHECK(lines_close(l, &e) == OK && lines_close(l, &e) == OK, "closing twice");
    CHECK(!lines_open(WORK "/none", &p, &e) && e.code == E_OPEN, "no such file");
    free(big);
    e = none();
    put(WORK "/lines", "in 1\nin 2", 9);
    if (freopen(WORK "/lines", "rb", stdin)) {
        l = lines_open("-", &p, &e);
        CHECK(l && lines_next(l, &line, &n) && !strcmp(line, "in 1") && lines_next(l, &line, &n) &&
              !strcmp(line, "in 2") && !lines_next(l, &line, &n), "standard input");
        CHECK(lines_close(l, &e) == OK, "is left open");
    }
    pool_free(&p);
}

static void check_clock(void) {
    double a = wall_clock(), b = a;
    long i;
    for (i = 0; i < 100000000 && b - a < 1e-3; i++) b = wall_clock();
    CHECK(b > a && b - a < 5, "the clock goes forward: %g s", b - a);
}

/* ---- datasets ---- */

/* Returns the same small dataset in any kind: labels, both splits, an empty text, several alphabets, a
 * NUL. */
static Dataset sample(int kind, Document *doc, char **label) {
    static char positive[] = "positive", negative[] = "negative";
    static const struct { const char *text; uint32_t n; } text[] = {
        { TEXT("A fine film.") }, { TEXT("") }, { TEXT("Tr\xc3\xa8s bien \xf0\x9f\x98\x80") },
        { TEXT("one\nline\0and a NUL") }, { TEXT("last") } };
    Dataset d;
    int i;
    memset(&d, 0, sizeof d);
    d.kind = kind;
    d.labels = 2;
    d.count = 5;
    d.label = label;
    d.document = doc;
    label[0] = negative;
    label[1] = positive;
    memset(doc, 0, 5 * sizeof *doc);
    for (i = 0; i < 5; i++) {
        doc[i].label = i % 3 - 1;
        doc[i].split = i % 2;
        doc[i].text[0] = text[i].text;
        doc[i].length[0] = text[i].n;
        if (kind == DATA_TEXT) continue;
        doc[i].text[1] = text[(i + 2) % 5].text;
        doc[i].length[1] = text[(i + 2) % 5].n;
    }
    return d;
}

static int same_dataset(const Dataset *a, const Dataset *b) {
    uint64_t i;
    int k, ok = a->kind == b->kind && a->labels == b->labels && a->count == b->count;
    for (k = 0; ok && k < a->labels; k++) ok = !strcmp(a->label[k], b->label[k]);
    for (i = 0; ok && i < a->count; i++) {
        const Document *x = a->document + i, *y = b->document + i;
        ok = x->label == y->label && x->split == y->split;
        for (k = 0; ok && k < (a->kind == DATA_TEXT ? 1 : 2); k++)
            ok = x->length[k] == y->length[k] && !memcmp(x->text[k], y->text[k], x->length[k])
                 && y->text[k][y->length[k]] == 0;
    }
    return ok;
}

/* The label of a pair is a probability in millionths. */
static void check_pair_labels(void) {
    Pool p = test_pool();
    Error e = none();
    Dataset d, r;
    Document doc[5];
    char *label[2];
    d = sample(1, doc, label);
    d.kind = DATA_PAIRS;
    for (int i = 0; i < 5; i++) {
        static const int millionths[] = { 0, 1, 400000, PAIR_CERTAIN, -1 };
        doc[i].label = millionths[i];
        doc[i].text[1] = "";
    }
    CHECK(dataset_write(&d, WORK "/pairs.bin", &p, &e) == OK
          && dataset_read(&r, WORK "/pairs.bin", &p, &e) == OK && same_dataset(&d, &r),
          "probabilities of pairs, there and back: %s", e.what);
    doc[3].label = PAIR_CERTAIN + 1;
    e = none();
    CHECK(dataset_write(&d, WORK "/pairs.bin", &p, &e) == E_RANGE && strstr(e.what, "probability")
          && e.wanted == PAIR_CERTAIN, "a probability above 1 is not written: %s", e.what);
    pool_free(&p);
}

static void check_dataset(void) {
    static const unsigned char first[] = { 'R', 'L', 'H', 'F', 'D', 'A', 'T', 'A', 1, 0, 0, 0, 1, 0, 0, 0, 2,
                                           0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0,
        8, 0, 'n', 'e', 'g', 'a', 't', 'i', 'v', 'e', 8, 0, 'p', 'o', 's', 'i', 't', 'i', 'v', 'e',
        0xFF, 0xFF, 0xFF, 0xFF, 0, 12, 0, 0, 0, 'A', ' ', 'f', 'i', 'n', 'e', ' ', 'f', 'i', 'l', 'm', '.',
        0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 15, 0, 0, 0, 'T', 'r', 0xC3 };
    static char long_text[100000];
    Pool p = test_pool(), small;
    Error e = none();
    Dataset d, r;
    Document doc[5];
    char *label[2], *bytes;
    size_t n;
    int kind, before;
    for (kind = 1; kind <= 3; kind++) {
        d = sample(kind, doc, label);
        CHECK(dataset_write(&d, WORK "/d.bin", &p, &e) == OK && dataset_read(&r, WORK "/d.bin", &p, &e) == OK
              && same_dataset(&d, &r), "kind %d there and back: %s", kind, e.what);
        if (kind == 1) {
            CHECK(file_read_all(WORK "/d.bin", &p, &bytes, &n, &e) == OK && n > sizeof first &&
                  !memcmp(bytes, first, sizeof first), "the bytes of the format");
        }
    }
    memset(&d, 0, sizeof d);
    d.kind = DATA_TEXT;
    put(WORK "/text", "RLHFDAT\n", 8);
    CHECK(dataset_exists(WORK "/d.bin") && !dataset_exists(WORK "/text") && !dataset_exists(WORK "/none")
          && !dataset_exists(WORK), "which file is a dataset");
    CHECK(dataset_write(&d, WORK "/d0.bin", &p, &e) == OK && dataset_read(&r, WORK "/d0.bin", &p, &e) == OK &&
          r.count == 0 && r.labels == 0, "nothing in it: %s", e.what);
    d = sample(1, doc, label);
    doc[3].label = 2;
    CHECK(dataset_write(&d, WORK "/d.bin", &p, &e) == E_RANGE && strstr(e.where, "document 3 "),
          "a label too large is not written: %s", e.where);
    d = sample(1, doc, label);
    doc[4].text[0] = "a\xff";
    doc[4].length[0] = 2;
    e = none();
    CHECK(dataset_write(&d, WORK "/d.bin", &p, &e) == E_FORMAT && strstr(e.where, "document 4 ")
          && strstr(e.what, "UTF-8"), "nor is invalid UTF-8");
    CHECK(dataset_read(&r, WORK "/d.bin", &p, NULL) == OK && r.kind == 3,
          "and the file from before is still there");
    d.kind = 4;
    CHECK(dataset_write(&d, WORK "/d.bin", &p, NULL) == E_ARGUMENT, "nor is an unknown kind");
    memset(long_text, 'x', sizeof long_text);
    d = sample(1, doc, label);
    doc[4].text[0] = long_text;
    doc[4].length[0] = sizeof long_text;
    memset(&small, 0, sizeof small);
    small.source = counting_source;
    small.sink = counting_sink;
    sources_left = 1;
    before = file_count(WORK);
    CHECK(dataset_write(&d, WORK "/d.bin", &small, NULL) == E_MEMORY && file_count(WORK) == before &&
          dataset_read(&r, WORK "/d.bin", &p, NULL) == OK && r.kind == 3,
          "no memory: the old file stays, no other is left");
    pool_free(&small);
    pool_free(&p);
}

/* Changes one byte of a good file: each change is refused with its own code and a place. */
static void check_dataset_refused(void) {
    static const struct { int at; unsigned char byte; int code; const char *what; } t[] = {
        { 0, 'r', E_FORMAT, "RLHFDATA" }, { 8, 2, E_UNSUPPORTED, "version" },
        { 12, 0, E_UNSUPPORTED, "kind" }, { 12, 4, E_UNSUPPORTED, "kind" },
        { 19, 0x80, E_TRUNCATED, "label names" }, { 17, 1, E_TRUNCATED, "label names" },
        { 27, 0xFF, E_TRUNCATED, "more documents" }, { 21, 1, E_TRUNCATED, "more documents" },
        { 20, 4, E_FORMAT, "after the last" }, { 20, 6, E_TRUNCATED, "ends too early" },
        { 29, 1, E_TRUNCATED, "label names" },
        { 31, 0, E_FORMAT, "label name" }, { 31, 0xFF, E_FORMAT, "label name" },
        { 48, 0xFE, E_RANGE, "label" }, { 51, 0, E_RANGE, "label" }, { 52, 2, E_RANGE, "split" },
        { 52, 255, E_RANGE, "split" },
        { 56, 0x80, E_TRUNCATED, "ends too early" }, { 55, 1, E_TRUNCATED, "ends too early" },
        { 57, 0xFF, E_FORMAT, "UTF-8" }, { 57, 0xC3, E_FORMAT, "UTF-8" },
    };
    Pool p = test_pool();
    Dataset d, r;
    Document doc[5];
    char *label[2], *bytes;
    size_t n, i;
    d = sample(1, doc, label);
    dataset_write(&d, WORK "/d.bin", &p, NULL);
    file_read_all(WORK "/d.bin", &p, &bytes, &n, NULL);
    for (i = 0; i < COUNT(t); i++) {
        Error e = none();
        char kept = bytes[t[i].at];
        int code;
        bytes[t[i].at] = (char)t[i].byte;
        put(WORK "/m.bin", bytes, n);
        bytes[t[i].at] = kept;
        code = dataset_read(&r, WORK "/m.bin", &p, &e);
        CHECK(code == t[i].code && e.code == code && strstr(e.what, t[i].what) && strstr(e.where, "m.bin")
              && !r.document, "byte %d = %d: code %d, %s: %s", t[i].at, t[i].byte, code, e.what, e.where);
    }
    put(WORK "/m.bin", bytes, n + 1);                   /* with the NUL after it */
    CHECK(dataset_read(&r, WORK "/m.bin", &p, NULL) == E_FORMAT, "a byte too many");
    CHECK(dataset_read(&r, WORK "/empty", &p, NULL) == E_FORMAT
          && dataset_read(&r, WORK "/missing", &p, NULL) == E_OPEN, "empty, missing");
    pool_free(&p);
}

/* Damages a file, always in the same way for the same stream: changes some bytes, makes a field extreme, cuts
 * out or doubles a piece, or cuts off the end. Returns the new length. */
static size_t damage(unsigned char *b, size_t n, Rng *r) {
    static const unsigned char extreme[] = { 0, 1, 0x7F, 0x80, 0xFE, 0xFF };
    size_t at = (size_t)rng_below(r, n), length = 1 + (size_t)rng_below(r, 12), i;
    if (length > n - at) length = n - at;
    switch (rng_below(r, 6)) {
    case 0: b[at] ^= (unsigned char)(1u << rng_below(r, 8)); return n;
    case 1: for (i = 0; i < length; i++) b[at + i] = (unsigned char)rng_next(r); return n;
    case 2: for (i = 0; i < 4 && at + i < n; i++) b[at + i] = extreme[rng_below(r, 6)]; return n;
    case 3: return at;
    case 4: memmove(b + at, b + at + length, n - at - length); return n - length;
    default: memmove(b + at + length, b + at, n - at); return n + length;
    }
}

/* Reads 2,000 damaged files: each gives an error with words and a place, or a valid dataset, which gives the
 * same bytes when it is written again. */
static void check_dataset_damaged(void) {
    Pool p = test_pool();
    Document doc[5];
    char *label[2], *good_bytes[3], *again;
    size_t good_n[3], n, again_n;
    int i, refused = 0, accepted = 0, silent = 0, different = 0, k, times;
    for (k = 0; k < 3; k++) {
        Dataset d = sample(k + 1, doc, label);
        dataset_write(&d, WORK "/d.bin", &p, NULL);
        file_read_all(WORK "/d.bin", &p, &good_bytes[k], &good_n[k], NULL);
    }
    for (i = 0; i < 2000; i++) {
        Rng r = rng_stream(20240229, 1, (uint64_t)i);
        PoolMark mark = pool_mark(&p);
        unsigned char *b = pool_take(&p, 2000, 1);
        Error e = none();
        Dataset d;
        int code;
        n = good_n[i % 3];
        memcpy(b, good_bytes[i % 3], n);
        for (times = 1 + (int)rng_below(&r, 3); times > 0 && n; times--) n = damage(b, n, &r);
        put(WORK "/m.bin", b, n);
        code = dataset_read(&d, WORK "/m.bin", &p, &e);
        if (code != OK) {
            refused++;
            silent += e.code != code || !e.what[0] || !strstr(e.where, "m.bin");
        } else {
            accepted++;
            different += dataset_write(&d, WORK "/again.bin", &p, &e) != OK
                || file_read_all(WORK "/again.bin", &p, &again, &again_n, &e) != OK
                         || again_n != n || memcmp(again, b, n);
        }
        pool_release(&p, mark);
    }
    CHECK(refused > 1000 && silent == 0, "damaged datasets: %d refused, %d without words", refused, silent);
    CHECK(accepted > 50 && different == 0,
          "%d still valid, %d of them not the same bytes when written again", accepted, different);
    pool_free(&p);
}

int main(void) {
    check_errors();
    check_arena();
    check_pool_growth();
    check_pool();
    check_buffer();
    check_reader();
    check_utf8();
    check_json();
    check_json_access();
    check_rng();
    check_hash();
    check_quant();
    if (folder_make(WORK, NULL) == E_UNSUPPORTED) SKIP("files and datasets: no folders without POSIX");
    else {
        CHECK(folder_exists(WORK), "a place to write, " WORK);
        empty_folder(WORK);
        empty_folder(WORK "/a/b");
        check_read();
        check_folders();
        check_same();
#ifdef POSIX_SYSTEM
        check_permissions();
        check_replace();
        check_lock();
#endif
        check_write();
        check_full_disk();
        check_large();
        check_lines();
    check_texts();
        check_clock();
        check_dataset();
        check_pair_labels();
        check_dataset_refused();
        check_dataset_damaged();
    }
    return test_end("base");
}
