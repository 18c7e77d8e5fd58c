/* tensorboard.c - the bytes of TensorBoard's event files: checks of RFC 3720, the first bytes that TensorFlow
 * itself writes, a whole event. programs/report.sh reads whole files of runs. */
#include "test.h"
#include "../programs.h"

static Pool pool;

static void check_is(const char *what, const void *bytes, size_t n, uint32_t wanted) {
    CHECK(crc32c(bytes, n) == wanted, "CRC-32C of %s: %08lx", what, (unsigned long)crc32c(bytes, n));
}

static void test_checks(void) {
    unsigned char zeros[32] = { 0 }, ones[32], rising[32];
    memset(ones, 255, sizeof ones);
    for (int i = 0; i < 32; i++) rising[i] = (unsigned char)i;
    check_is("32 zeros", zeros, 32, 0x8A9136AAu);                       /* RFC 3720, appendix B.4 */
    check_is("32 bytes of 255", ones, 32, 0x62A8AB43u);
    check_is("0 to 31", rising, 32, 0x46DD794Eu);
    check_is("123456789", "123456789", 9, 0xE3069283u);
    check_is("nothing", "", 0, 0);
}

static Buffer new_buffer(void) {
    Buffer b = { 0 };
    b.pool = &pool;
    return b;
}

static void test_begin(void) {
    /* a record of 24 bytes, and the check of this length, as each file of TensorFlow begins */
    static const unsigned char first[] = { 0x18, 0, 0, 0, 0, 0, 0, 0, 0xA3, 0x7F, 0x4B, 0x22, 9 };
    Buffer b = new_buffer();
    tensorboard_begin(&b, 1.5e9, 0);
    CHECK(b.length == 40 && !memcmp(b.data, first, sizeof first) &&
          !memcmp(b.data + 21, "\x1A\x0D" "brain.Event:2", 15), "a file begins as TensorFlow's: %lu bytes", (unsigned long)b.length);
    Buffer c = new_buffer();
    tensorboard_begin(&c, 1.5e9, 300);
    CHECK(c.length == 40 + 12 + 9 + 3 + 4 + 4 &&
          !memcmp(c.data + 40 + 12 + 9, "\x10\xAC\x02\x3A\x02\x08\x01", 7), "a run that goes on: the start of a session at step 300");
}

/* Returns the bytes that a line becomes. */
static Buffer line_of(const char *line, int wanted) {
    Buffer b = new_buffer();
    const int count = tensorboard_line(&b, line, strlen(line), 2);
    CHECK(count == wanted && !b.failed && (count || !b.length), "%s: %d numbers", line, count);
    return b;
}

static void test_line(void) {
    /* step 1; in the summary two values: tag "a/b" 0.5, tag "n" -2 */
    static const unsigned char event[] = {
        0x09, 0, 0, 0, 0, 0, 0, 0, 0x40, 0x10, 1, 0x2A, 22, 0x0A, 10, 0x0A, 3, 'a', '/', 'b', 0x15, 0, 0, 0,
        0x3F, 0x0A, 8, 0x0A, 1, 'n', 0x15, 0, 0, 0, 0xC0 };
    const Buffer b = line_of("{\"step\": 1, \"a/b\": 0.5, \"x\": null, \"t\": \"text\", \"n\": -2}\n", 2);
    CHECK(b.length == 16 + sizeof event && b.data[0] == sizeof event &&
          !memcmp(b.data + 12, event, sizeof event), "an event, byte for byte");
    /* the masked checks of its length and of its bytes, from Debian's python3-crc32c */
    Reader length = { b.data + 8, b.data + b.length, 0 }, bytes = { b.data + 12 + sizeof event, b.data + b.length, 0 };
    CHECK(read_u32(&length) == 0x43779FB0u && !length.bad, "the check of its length");
    CHECK(read_u32(&bytes) == 0x0B036198u && !bytes.bad, "and of its bytes");
    line_of("{\"step\": 1}", 0);
    line_of("{\"program\": \"ppo\", \"options\": {}}", 0);
    line_of("{\"query\": \"q\", \"reward_after\": 1}", 0);
    line_of("{\"step\": -1, \"a\": 1}", 0);
    line_of("rubbish", 0);
    const Buffer large = line_of("{\"step\": 300, \"a\": 1e300}", 1);
    CHECK(!memcmp(large.data + 12 + 9, "\x10\xAC\x02", 3) &&
          !memcmp(large.data + large.length - 8, "\0\0\x80\x7F", 4),
          "a number that no float holds is an infinity");
    const Buffer low = line_of("{\"step\": 300, \"a\": -1e300}", 1);
    CHECK(!memcmp(low.data + low.length - 8, "\0\0\x80\xFF", 4), "with the number's sign");
}

int main(void) {
    pool = test_pool();
    test_checks();
    test_begin();
    test_line();
    pool_free(&pool);
    return test_end("tensorboard");
}
