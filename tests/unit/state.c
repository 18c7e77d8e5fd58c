/* tests/unit/state.c - the file of a stopped run: its bytes, every kind of field, blocks, limits, and what is
 * refused without a change. */
#include "test.h"
#include "../programs.h"

enum { MANY = 40000 };                  /* floats of more than two blocks */
typedef struct {
    int n, list[3];
    long long large;
    double real, reals[2];
    float *many;
    const char *text; size_t length;
    uint64_t hash; int high, extra;
} Values;

static const char *const path = "build/tests/state.tmp";
static Error err;

static void visit(void *run, State *s) {
    Values *v = run;
    state_int(s, "n", &v->n, -5, v->high);
    state_integer(s, "large", &v->large, LLONG_MIN, LLONG_MAX);
    state_ints(s, "list", v->list, 3, -1, 9);
    state_real(s, "real", &v->real);
    state_reals(s, "reals", v->reals, 2);
    state_floats(s, "many", v->many, MANY);
    state_text(s, "text", &v->text, &v->length);
    state_same(s, "hash", v->hash, "another hash", "somewhere");
    if (v->extra) state_int(s, "extra", &v->extra, 0, 1);
}
static void visit_small(void *run, State *s) { state_int(s, "ab", run, -5, 5); }
static void visit_other(void *run, State *s) { state_int(s, "ac", run, -5, 5); }
static void visit_real(void *run, State *s) { state_real(s, "ab", run); }
static void visit_two(void *run, State *s) { state_ints(s, "ab", run, 2, -5, 5); }
static void visit_long(void *run, State *s) { state_int(s, "abc", run, -5, 5); }

static Values some(Pool *pool) {
    Values v = { -3, { 1, -1, 9 }, LLONG_MIN, 0.1, { -0.0, 1e300 }, NULL, "a text\n", 7, 12345678901234567u,
                 5, 0 };
    v.many = pool_take(pool, MANY, sizeof *v.many);
    for (int i = 0; i < MANY; i++) v.many[i] = (float)i / 7 - 100;
    return v;
}

static int reads(StateVisit by, void *run, Pool *pool) {
    memset(&err, 0, sizeof err);
    return state_read(path, by, run, pool, &err);
}

static void round_trip(Pool *pool) {
    Values v = some(pool), w = some(pool);
    memset(&err, 0, sizeof err);
    CHECK(state_write(path, visit, &v, pool, &err) == OK, "written: %s", err.what);
    memset(w.many, 0, MANY * sizeof *w.many);
    memset(w.list, 0, sizeof w.list);
    w.n = 0, w.large = 0, w.real = w.reals[0] = w.reals[1] = 7, w.text = NULL, w.length = 0;
    CHECK(reads(visit, &w, pool) == OK, "read: %s: %s", err.what, err.where);
    CHECK(w.n == -3 && w.large == LLONG_MIN && !memcmp(v.list, w.list, sizeof v.list), "whole numbers");
    CHECK(!memcmp(&v.real, &w.real, sizeof v.real) && !memcmp(v.reals, w.reals, sizeof v.reals),
          "doubles, -0 too");
    CHECK(!memcmp(v.many, w.many, MANY * sizeof *v.many), "floats of several blocks");
    CHECK(w.length == 7 && !strcmp(w.text, "a text\n"), "a text, with a NUL");
    w.high = -4;
    CHECK(reads(visit, &w, pool) == E_RANGE && !strcmp(err.where, "n"),
          "a number above its limit is refused");
    w.high = 5;
    w.hash++;
    CHECK(reads(visit, &w, pool) == E_FORMAT && !strcmp(err.what, "another hash"),
          "another hash is refused");
    w.hash--;
    w.extra = 1;
    CHECK(reads(visit, &w, pool) == E_FORMAT || err.code == E_TRUNCATED,
          "a field that is not there is refused");
    v.extra = 1;
    state_write(path, visit, &v, pool, &err);
    w.extra = 0;
    CHECK(reads(visit, &w, pool) == E_FORMAT, "a field too many is refused: %s", err.what);
}

/* The bytes of a state, on machines of either byte order, and each of them changed or cut off. */
static void bytes(Pool *pool) {
    static const unsigned char wanted[] = {
        'r', 'l', 'h', 'f', 's', 't', 'a', 't', 2, 0, 0, 0,                 /* the version */
        2, 0, 0, 0, 'a', 'b', 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
        0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0 };
    char *file, *copy;
    size_t n;
    int x = -2, wrong = 0;
    double real = 0;
    int two[2] = { 0, 0 };
    CHECK(state_write(path, visit_small, &x, pool, &err) == OK &&
          file_read_all(path, pool, &file, &n, &err) == OK && n == sizeof wanted + 8 &&
          !memcmp(file, wanted, sizeof wanted), "the bytes of a state");
    uint64_t sum = hash_bytes(wanted, sizeof wanted, 0);
    for (int i = 0; i < 8; i++)
        wrong += (unsigned char)file[sizeof wanted + (size_t)i] != (sum >> 8 * i & 255);
    CHECK(!wrong, "its checksum");
    CHECK(reads(visit_other, &x, pool) == E_FORMAT && reads(visit_real, &real, pool) == E_FORMAT &&
          reads(visit_two, two, pool) == E_SHAPE && reads(visit_long, &x, pool) == E_FORMAT && x == -2,
          "another name, kind or number of values is refused");
    copy = pool_take(pool, n, 1);
    x = 4;
    for (size_t i = 0; i < n; i++)
        for (int bit = 0; bit < 8; bit++) {
            memcpy(copy, file, n);
            copy[i] = (char)(copy[i] ^ 1 << bit);
            file_write_all(path, copy, n, pool, &err);
            wrong += reads(visit_small, &x, pool) == OK || x != 4 || !err.what[0];
        }
    CHECK(!wrong, "every changed bit is refused, and changes nothing");
    for (size_t i = 0; i < n; i++) {
        file_write_all(path, file, i, pool, &err);
        wrong += reads(visit_small, &x, pool) == OK || x != 4 || !err.what[0];
    }
    CHECK(!wrong, "every cut is refused, and changes nothing");
    memset(&err, 0, sizeof err);
    CHECK(state_write("build/no/such/folder/state", visit_small, &x, pool, &err) != OK && err.what[0],
          "a folder that is not there");
}

static void hashes(Pool *pool) {
    static const uint32_t bits[4] = { 0x3F800000, 0x40000000, 0x40400000, 0x40800000 };
    float x[4] = { 1, 2, 3, 4 };
    Matrix m;
    Tensor t;
    uint64_t a, b;
    memset(&m, 0, sizeof m);
    memset(&t, 0, sizeof t);
    m.type = F32, m.O = 2, m.I = 2, m.data = x;
    t.matrix = &m;
    a = frozen_hash(&t, 1);
    b = frozen_hash(&t, 0);
    for (int i = 0; i < 4; i++) b = (b ^ bits[i]) * 0x100000001b3u;
    CHECK(a == b, "a hash of weights, on machines of either byte order");
    x[3] = 5;
    CHECK(frozen_hash(&t, 1) != a, "another weight has another hash");
    b = frozen_hash(&t, 1);
    t.flags = TENSOR_TRAINED;
    CHECK(frozen_hash(&t, 1) == frozen_hash(&t, 0) && b != frozen_hash(&t, 0),
          "trained weights do not count");
    file_write_all(path, "abc", 3, pool, &err);
    CHECK(file_hash(path, &a, pool, &err) == OK && a == hash_bytes("abc", 3, 0), "the hash of a file");
    file_write_all(path, "abd", 3, pool, &err);
    CHECK(file_hash(path, &b, pool, &err) == OK && a != b, "another file has another hash");
    CHECK(file_hash("build/no/such/file", &b, pool, &err) != OK, "a file that is not there");
}

int main(void) {
    Pool pool = test_pool();
    round_trip(&pool);
    bytes(&pool);
    hashes(&pool);
    file_remove(path, &err);
    pool_free(&pool);
    return test_end("state");
}
