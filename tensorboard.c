/* tensorboard.c - lines of a log as the bytes of TensorBoard's event files.
 *
 * Source   TensorFlow: lib/io/record_writer.h (a record: u64 length, u32 check of it, the bytes, u32 check of
 *          them), lib/hash/crc32c.h (the mask), core/util/event.proto and core/framework/summary.proto
 *          (protocol buffers: a field is its number * 8 + its type, then its value).
 * Needs    core.c. Never opens a file.
 * Edges    null, texts and `step` itself are no scalars; a line without a step is no event. */
#include "programs.h"

enum { VARINT = 0, WIDE = 1, BYTES = 2, NARROW = 5 };           /* types of fields */

uint32_t crc32c(const void *bytes, size_t n) {
    const unsigned char *s = bytes;
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < n; i++) {
        crc ^= s[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
    }
    return crc ^ 0xFFFFFFFFu;
}

/* The check of a record: a check of bytes that hold checks themselves would be weak, so it is masked. */
static void put_check(Buffer *b, const void *bytes, size_t n) {
    const uint32_t crc = crc32c(bytes, n);
    buffer_u32(b, (crc >> 15 | crc << 17) + 0xA282EAD8u);
}

static void put_varint(Buffer *b, uint64_t v) {
    for (; v > 127; v >>= 7) buffer_u8(b, (unsigned)(v & 127) | 128);
    buffer_u8(b, (unsigned)v);
}

/* The bits of a number, which files have in little-endian order. */
static uint64_t bits_of(double x) { uint64_t u; memcpy(&u, &x, sizeof u); return u; }
static uint32_t bits_of_float(f32 x) { uint32_t u; memcpy(&u, &x, sizeof u); return u; }

/* Returns the number as a float; one that is too large for a float becomes an infinity of its sign. */
static f32 float_of(double x) {
    return fabs(x) < 3.4e38 ? (f32)x : x < 0 ? -HUGE_VALF : HUGE_VALF;
}

static void put_field(Buffer *b, int number, int type) { buffer_u8(b, (unsigned)(number << 3 | type)); }
static void put_bytes(Buffer *b, int number, const void *bytes, size_t n) {
    put_field(b, number, BYTES);
    put_varint(b, n);
    if (n) buffer_bytes(b, bytes, n);
}

/* Appends a record with an event: wall_time (1), step (2), and the field `what` with n bytes. */
static void put_event(Buffer *b, double time, double step, int what, const void *bytes, size_t n) {
    Buffer event = { 0 }, length = { 0 };
    event.pool = length.pool = b->pool;
    put_field(&event, 1, WIDE);
    buffer_u64(&event, bits_of(time));
    if (step > 0) put_field(&event, 2, VARINT);         /* 0 is left out, as protocol buffers do */
    if (step > 0) put_varint(&event, (uint64_t)step);
    put_bytes(&event, what, bytes, n);
    buffer_u64(&length, event.length);
    if (event.failed || length.failed) { b->failed = 1; return; }
    buffer_bytes(b, length.data, length.length);
    put_check(b, length.data, length.length);
    buffer_bytes(b, event.data, event.length);
    put_check(b, event.data, event.length);
}

void tensorboard_begin(Buffer *b, double time, double step) {
    enum { FILE_VERSION = 3, SESSION = 7 };
    static const char version[] = "brain.Event:2", start[] = { 1 << 3 | VARINT, 1 };     /* status: START */
    put_event(b, time, 0, FILE_VERSION, version, sizeof version - 1);
    if (step > 0) put_event(b, time, step, SESSION, start, sizeof start);
}

int tensorboard_line(Buffer *b, const char *line, size_t n, double time) {
    enum { TAG = 1, SIMPLE_VALUE = 2, VALUE = 1, SUMMARY = 5 };
    const PoolMark mark = pool_mark(b->pool);
    Error why = { 0 };
    const Json *fields = json_parse(line, n, b->pool, &why);
    const double step = json_number(fields, "step", -1);
    Buffer summary = { 0 };
    summary.pool = b->pool;
    if (why.code == E_MEMORY) b->failed = 1;
    if (!(step >= 0 && step < 1e15)) {
        pool_release(b->pool, mark);
        return 0;
    }
    int count = 0;
    for (const Json *j = fields->child; j; j = j->next) {
        Buffer value = { 0 };
        value.pool = b->pool;
        if (j->type != JSON_NUMBER || !strcmp(j->key, "step")) continue;
        put_bytes(&value, TAG, j->key, j->key_length);
        put_field(&value, SIMPLE_VALUE, NARROW);
        buffer_u32(&value, bits_of_float(float_of(j->number)));
        if (value.failed) summary.failed = 1;
        else put_bytes(&summary, VALUE, value.data, value.length);
        count++;
    }
    if (summary.failed) b->failed = 1;
    else if (count) put_event(b, time, step, SUMMARY, summary.data, summary.length);
    return count;
}
