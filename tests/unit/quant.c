/* tests/unit/quant.c - 4-bit weights (quant.c) against bitsandbytes' tables, thresholds and published errors
 * (tests/golden/nf4), against whole tensors (tests/golden/models/nf4), and against a second, plain quantiser
 * in this file. All comparisons are bit for bit, except for the mean errors. */
#include "test.h"

static Arena memory;
static Pool pool;

static uint32_t bits(f32 x) { uint32_t u; memcpy(&u, &x, sizeof u); return u; }
static f32 value(uint32_t u) { f32 x; memcpy(&x, &u, sizeof x); return x; }
static f32 *floats(size_t n) { return arena_take(&memory, n, sizeof(f32)); }
static unsigned char *bytes(size_t n) { return arena_take(&memory, n, 1); }
static int same(const f32 *a, const f32 *b, size_t n) {
    for (size_t i = 0; i < n; i++) if (bits(a[i]) != bits(b[i])) return 0;
    return 1;
}

/* Returns a normal number by Box and Muller: core.c's rng_normal has no tails, on which the errors depend. */
static void fill_normal(f32 *x, size_t n, uint64_t seed) {
    Rng r = rng_stream(seed, 0, 0);
    for (size_t i = 0; i < n; i++) {
        double radius = sqrt(-2 * log(1 - rng_unit(&r)));
        x[i] = (f32)(radius * cos(6.283185307179586 * rng_unit(&r)));
    }
}

/* ---- goldens ---- */
static const Json *parse(const char *path) {
    char *text;
    size_t n;
    Error err = { 0 };
    const Json *j = file_read_all(path, &pool, &text, &n, &err) ? NULL : json_parse(text, n, &pool, &err);
    CHECK(j, "%s: %s", path, err.what);
    return j;
}
/* Returns an array of strings, each 8 hexadecimal digits of a float; *n: how many. */
static f32 *hex_floats(const Json *object, const char *name, size_t *n) {
    const Json *list = json_get(object, name);
    *n = list ? list->count : 0;
    f32 *x = floats(*n + 1);
    size_t i = 0;
    for (const Json *e = list ? list->child : NULL; e; e = e->next)
        x[i++] = value((uint32_t)strtoul(e->string, NULL, 16));
    CHECK(i > 0, "%s is there", name);
    return x;
}

/* ---- the second quantiser: the thresholds below x, one after another ---- */
static f32 nf4_threshold[15];           /* as in the golden file */
static const f32 fp4_threshold[7] = { 0.00260417f, 0.0859375f, 0.20833333f, 0.29166667f, 0.4166667f,
                                      0.583333f, 0.8333333f };
static unsigned plain_code(f32 x, int kind) {
    static const unsigned order[8] = { 0, 1, 6, 7, 4, 5, 2, 3 };
    unsigned count = 0;
    if (kind == QUANT_NF4) for (int i = 0; i < 15; i++) count += x > nf4_threshold[i];
    else for (int i = 0; i < 7; i++) count += fabs((double)x) > (double)fp4_threshold[i];
    return kind == QUANT_NF4 ? count : order[count] + (x < 0 ? 8u : 0u);
}
/* Returns the code of weight i; and the first of n weights whose code or absmax differs from the second
 * quantiser's (n if there is none). */
static unsigned code_at(const unsigned char *packed,
                        size_t i) { return i % 2 ? packed[i / 2] & 15u : packed[i / 2] >> 4; }
static size_t first_wrong(const unsigned char *packed, const f32 *absmax, const f32 *x, size_t n, int block,
                          int kind) {
    for (size_t i = 0; i < n; i++) {
        size_t b = i / (size_t)block;
        f32 largest = 0;
        for (size_t k = b * (size_t)block; k < n && k < (b + 1) * (size_t)block; k++)
            if (fabs((double)x[k]) > (double)largest) largest = (f32)fabs((double)x[k]);
        f32 inverse = 1.0f / (largest > 1e-38f ? largest : 1e-38f), scaled = x[i] * inverse;
        if (bits(largest) != bits(absmax[b]) || code_at(packed, i) != plain_code(scaled, kind)) return i;
    }
    return n;
}

/* ---- a weight, with room for singly and doubly quantised forms ---- */
typedef struct { size_t n, blocks; unsigned char *packed; f32 *absmax, *x; Quant q; } Weight;
static Weight weight_new(size_t n, int block, int kind) {
    Weight w;
    memset(&w, 0, sizeof w);
    w.n = n;
    w.blocks = quant_blocks(n, block);
    w.packed = bytes((n + 1) / 2 + 1);
    w.absmax = floats(w.blocks + 1);
    w.x = floats(n + 1);
    w.q.kind = kind;
    w.q.block = block;
    w.q.absmax = w.absmax;
    quant_table(w.q.table, kind);
    return w;
}
static int weight_quantize(Weight *w, const f32 *x) { return quantize_4bit(w->packed, w->absmax, x, w->n,
                                                                           w->q.block, w->q.kind, NULL); }
/* Quantises absmax too: from here on it is in 8 bits. */
static void weight_double(Weight *w) {
    w->q.code = bytes(w->blocks);
    w->q.nested = floats(quant_blocks(w->blocks, QUANT_NESTED));
    w->q.map = floats(256);
    quant_map(w->q.map);
    quantize_absmax(w->q.code, w->q.nested, &w->q.offset, w->q.map, w->absmax, w->blocks);
    w->q.absmax = NULL;
}

/* ---- arrays of 16-bit floats: each number becomes what it becomes alone ---- */
static void halves(void) {
    enum { ALL = 65536, N = 200003 };
    for (int type = BF16; type <= F16; type++) {
        memory.used = 0;
        uint16_t *half = arena_take(&memory, N + 1, sizeof *half),
            (*narrow)(f32) = type == BF16 ? f32_to_bf16 : f32_to_f16;
        f32 *x = floats(N + 1), (*wide)(uint16_t) = type == BF16 ? bf16_to_f32 : f16_to_f32;
        int right = 1;
        for (int i = 0; i < ALL; i++) half[i] = (uint16_t)i;
        halves_widen(x, half, type, ALL);
        for (int i = 0; i < ALL; i++) right &= bits(x[i]) == bits(wide((uint16_t)i));
        CHECK(right, "type %d: all 65,536 widened", type);
        /* any bits, and as often small exponents, numbers near the ends of F16, and ties */
        Rng r = rng_stream(1, 2, (uint64_t)type);
        for (int i = 0; i < N; i++) {
            uint32_t u = (uint32_t)rng_next(&r);
            x[i] = value(i % 4 == 0 ? u : i % 4 == 1 ? (u & 0x87FFFFFFu) + 0x30000000u : i % 4 == 2
                         ? (u & 0x9FFFF000u) + 0x30000000u : u & 0xFFFF8000u);
        }
        for (int n = 0; n <= N; n += n < 40 ? 1 : N - 40) {      /* each short length, and the whole */
            half[n] = 0xA5A5;
            x[N] = -7;
            halves_narrow(half, x, type, (size_t)n);
            for (int i = 0; i < n; i++) right &= half[i] == narrow(x[i]);
            right &= half[n] == 0xA5A5;
        }
        CHECK(right, "type %d: narrowed", type);
        halves_round(x, type, N);
        for (int i = 0; i < N; i++) right &= bits(x[i]) == bits(wide(half[i]));
        CHECK(right && x[N] == -7, "type %d: rounded in place", type);
    }
    unsigned char file[8] = { 0x44, 0x33, 0x22, 0x11, 0x88, 0x77, 0x66, 0x55 };
    uint32_t word[2];
    uint16_t short_[4];
    memcpy(word, file, 8);
    little_endian(word, 4, 2);
    CHECK(word[0] == 0x11223344u && word[1] == 0x55667788u, "words of a file");
    little_endian(word, 4, 2);
    CHECK(!memcmp(word, file, 8), "and back");
    memcpy(short_, file, 8);
    little_endian(short_, 2, 4);
    CHECK(short_[0] == 0x3344 && short_[3] == 0x5566, "short words");
}

/* ---- tables ---- */
static void tables(const Json *j) {
    size_t n;
    f32 table[16], map[256], *golden = hex_floats(j, "nf4_code_hex_be", &n);
    quant_table(table, QUANT_NF4);
    CHECK(n == 16 && same(table, golden, 16), "NF4: bitsandbytes' 16 values");
    quant_table(table, QUANT_FP4);
    static const double twelfths[8] = { 0, 0.0625, 8, 12, 4, 6, 2, 3 };     /* functional.py, get_4bit_type */
    int right = 1;
    for (int i = 0; i < 8; i++) {
        f32 v = (f32)(twelfths[i] / 12);
        right &= bits(table[i]) == bits(v) && bits(table[8 + i]) == (i ? bits(-v) : 0);
    }
    CHECK(right, "FP4: bitsandbytes' 16 values, code 8 being 0");
    golden = hex_floats(j, "dynamic_map_hex_be", &n);
    quant_map(map);
    CHECK(n == 256 && same(map, golden, 256), "the dynamic map: bitsandbytes' 256 values");
    int ascending = 1, close = 1;
    for (int i = 0; i < 255; i++) ascending &= map[i] < map[i + 1];
    for (int i = 0, at = 128; i < 7; i++)
        for (int cells = 1 << i, c = 0; c < cells; c++, at++) {
            double v = pow(10, i - 6) * (0.1 + 0.9 * (c + 0.5) / cells);
            close &= fabs((double)map[at] / v - 1) < 4e-7 && map[254 - at] == -map[at];
        }
    CHECK(ascending && close && map[127] == 0 && map[255] == 1,
          "the dynamic map: the middles of 2^i cells of 0.1 .. 1, times 10^(i-6)");
    golden = hex_floats(j, "nf4_thresholds_cuda_hex_be", &n);
    CHECK(n == 15, "15 thresholds");
    for (size_t i = 0; i < 15 && i < n; i++) nf4_threshold[i] = golden[i];
}

/* Quantises t in a block with absmax 1, and the floats next to t. */
static void one_threshold(f32 t, int kind, unsigned low, unsigned high) {
    f32 x[32] = { 1 }, absmax;
    unsigned char packed[16];
    int away = t < 0 ? -1 : 1;                              /* one more in the bits is away from 0 */
    x[1] = value(bits(t) - (uint32_t)away);
    x[2] = t;
    x[3] = value(bits(t) + (uint32_t)away);
    CHECK(quantize_4bit(packed, &absmax, x, 32, 32, kind, NULL) == OK && absmax == 1, "absmax 1");
    /* FP4's are for |x|: the lower code is nearer to 0 */
    unsigned on = kind == QUANT_FP4 && t < 0 ? high : low;
    CHECK(code_at(packed, 1) == low && code_at(packed, 2) == on && code_at(packed, 3) == high,
          "kind %d, threshold %.9g: codes %u %u %u below, on, above; not %u %u %u", kind, (double)t,
          code_at(packed, 1), code_at(packed, 2),
          code_at(packed, 3), low, on, high);
}
static void thresholds(void) {
    static const unsigned order[8] = { 0, 1, 6, 7, 4, 5, 2, 3 };
    for (unsigned i = 0; i < 15; i++) one_threshold(nf4_threshold[i], QUANT_NF4, i, i + 1);
    for (unsigned i = 0; i < 7; i++) {
        one_threshold(fp4_threshold[i], QUANT_FP4, order[i], order[i + 1]);
        one_threshold(-fp4_threshold[i], QUANT_FP4, order[i + 1] + 8, order[i] + 8);
    }
}

/* ---- goldens of whole blocks and tensors ---- */
static void golden_blocks(void) {
    const Json *j = parse("tests/golden/nf4/nf4_golden_blocks.json");
    size_t n, k, m;
    if (!j) return;
    f32 *x = hex_floats(j, "input_hex_be", &n), *absmax = hex_floats(j, "absmax_hex_be", &k),
        *out = hex_floats(j, "dequant_hex_be", &m);
    const char *hex = json_text(j, "packed_hex", "");
    Weight w = weight_new(n, (int)json_number(j, "blocksize", 0), QUANT_NF4);
    CHECK(k == w.blocks && m == n && strlen(hex) == n && weight_quantize(&w, x) == OK,
          "golden blocks: sizes");
    CHECK(same(w.absmax, absmax, k), "golden blocks: absmax");
    size_t right = 0;
    for (size_t i = 0; i < n && hex[i]; i++) right += code_at(w.packed, i)
        == strtoul((char[2]){ hex[i], 0 }, NULL, 16);
    CHECK(right == n && n == 256, "golden blocks: %d of %d codes", (int)right, (int)n);
    dequantize_4bit(w.x, w.packed, &w.q, 0, n);
    CHECK(same(w.x, out, n), "golden blocks: weights");
    /* The golden's 257 values are symmetric, so that their mean is 0, and begin with -1: code[i] is that of
     * value i. */
    x = hex_floats(j, "dynamic8_input_hex_be", &n);
    unsigned char *code = bytes(n);
    f32 map[256], nested[2], offset = 1;
    quant_map(map);
    quantize_absmax(code, nested, &offset, map, x, n);
    const Json *list = json_get(j, "dynamic8_codes");
    right = 0, k = 0;
    for (const Json *e = list ? list->child : NULL; e && k < n; e = e->next, k++)
        right += (double)code[k] == e->number;
    CHECK(right == n && n == 257 && offset == 0 && nested[0] == 1 && nested[1] == 1,
          "the dynamic map: %d of %d codes", (int)right, (int)n);
}

/* Returns an entry of a safetensors file: its little-endian words as floats, or its bytes. */
static const unsigned char *entry(const Json *header, const unsigned char *data, const char *tensor,
                                  const char *part, size_t *n) {
    char name[64];
    Buffer b = { &pool, NULL, 0, 0, 0 };
    buffer_text(&b, tensor);
    buffer_text(&b, part);
    size_t length = b.length < sizeof name ? b.length : sizeof name - 1;
    memcpy(name, b.data, length);
    name[length] = 0;
    const Json *o = json_get(json_get(header, name), "data_offsets");
    CHECK(o, "%s is there", name);
    *n = o ? (size_t)(o->child->next->number - o->child->number) : 0;
    return o ? data + (size_t)o->child->number : NULL;
}
static f32 *entry_floats(const Json *header, const unsigned char *data, const char *tensor, const char *part,
                         size_t *n) {
    const unsigned char *at = entry(header, data, tensor, part, n);
    Reader r = { at, at + *n, 0 };
    *n /= 4;
    f32 *x = floats(*n + 1);
    for (size_t i = 0; i < *n; i++) x[i] = value(read_u32(&r));
    return x;
}
static void golden_tensors(void) {
    static const char *const name[] = { "normal", "ragged", "tiny", "outliers", "zeros" };
    static const size_t size[] = { 96 * 128, 7 * 37, 5, 64 * 64, 128 };
    char *text;
    size_t n, k, m, length;
    Error err = { 0 };
    int bad = file_read_all("tests/golden/models/nf4/golden.safetensors", &pool, &text, &n, &err);
    CHECK(!bad && n > 8, "tests/golden/models/nf4: %s", err.what);
    if (bad) return;
    Reader r = { (const unsigned char *)text, (const unsigned char *)text + n, 0 };
    size_t head = (size_t)read_u64(&r);
    const Json *header = json_parse(text + 8, head, &pool, &err);
    const unsigned char *data = (const unsigned char *)text + 8 + head;
    for (size_t c = 0; c < sizeof size / sizeof *size; c++) {
        memory.used = 0;
        f32 *x = entry_floats(header, data, name[c], ".weight", &n),
            *absmax = entry_floats(header, data, name[c], ".absmax", &k);
        f32 *out = entry_floats(header, data, name[c], ".dequantized", &m);
        const unsigned char *packed = entry(header, data, name[c], ".packed", &length);
        Weight w = weight_new(n, 64, QUANT_NF4);
        CHECK(n == size[c] && m == n && k == w.blocks && length == (n + 1) / 2, "%s: sizes", name[c]);
        if (n != size[c] || m != n || k != w.blocks || length != (n + 1) / 2) continue;
        CHECK(weight_quantize(&w, x) == OK && !memcmp(w.packed, packed, length), "%s: codes", name[c]);
        CHECK(same(w.absmax, absmax, k), "%s: absmax", name[c]);
        dequantize_4bit(w.x, packed, &w.q, 0, n);
        CHECK(same(w.x, out, n), "%s: weights", name[c]);
    }
}

/* ---- bitsandbytes' mean |error| and |error| / |x| of a million normal numbers, within 7 deviations ---- */
static void errors_of(const Weight *w, const f32 *x, double *absolute, double *relative) {
    *absolute = *relative = 0;
    for (size_t i = 0; i < w->n; i++) {
        double e = fabs((double)x[i] - (double)w->x[i]);
        *absolute += e / (double)w->n;
        *relative += e / (fabs((double)x[i]) + 1e-8) / (double)w->n;
    }
}
static void published_errors(const Json *j) {
    static const char *const size[] = { "32", "64", "128", "256", "512", "1024", "2048", "4096" };
    const Json *published = json_get(j, "published_expected_error_nf4_N01");
    size_t n = 1 << 20;
    f32 *x = floats(n);
    fill_normal(x, n, 11);
    size_t mark = memory.used;
    for (int s = 0; s < 8; s++) {
        const Json *a = json_get(json_get(published, "abs"), size[s]),
            *r = json_get(json_get(published, "rel"), size[s]);
        CHECK(a && r && a->count == 2 && r->count == 2, "published figures of block %s", size[s]);
        if (!a || !r) continue;
        memory.used = mark;
        Weight w = weight_new(n, atoi(size[s]), QUANT_NF4);
        double absolute, relative, doubled;
        CHECK(weight_quantize(&w, x) == OK, "quantised");
        dequantize_4bit(w.x, w.packed, &w.q, 0, n);
        errors_of(&w, x, &absolute, &relative);
        CHECK(fabs(absolute - a->child->number) < 7 * a->child->next->number &&
              fabs(relative - r->child->number) < 7 * r->child->next->number,
              "block %s: errors %.6f %.6f, published %.6f %.6f", size[s], absolute, relative,
              a->child->number, r->child->number);
        weight_double(&w);
        dequantize_4bit(w.x, w.packed, &w.q, 0, n);
        errors_of(&w, x, &doubled, &relative);
        CHECK(doubled > absolute && doubled < 1.004 * absolute, "block %s doubly: error %.6f, singly %.6f",
              size[s], doubled, absolute);
    }
}

/* ---- properties ---- */
/* For all kinds, block sizes, and lengths near the end of a block: the codes are the second quantiser's,
 * nothing is written outside, the unused half byte is 0, and each weight becomes the value nearest to it. */
static void lengths(void) {
    static const size_t length[] = { 1, 2, 3, 31, 32, 33, 63, 64, 65, 127, 129, 1000, 4095, 4096, 4097,
                                     9001 };
    for (int kind = QUANT_NF4; kind <= QUANT_FP4; kind++)
        for (int block = 32; block <= 4096; block *= 2)
            for (size_t l = 0; l < sizeof length / sizeof *length; l++) {
                size_t n = length[l], inside, nearest = 1;
                memory.used = 0;
                f32 *x = floats(n);
                fill_normal(x, n, (uint64_t)(block + kind) + n);
                Weight w = weight_new(n, block, kind);
                w.packed[(n + 1) / 2] = 0xA5;
                w.absmax[w.blocks] = w.x[n] = -7;
                CHECK(weight_quantize(&w, x) == OK, "quantised");
                dequantize_4bit(w.x, w.packed, &w.q, 0, n);
                inside = w.packed[(n + 1) / 2] == 0xA5 && w.absmax[w.blocks] == -7 && w.x[n] == -7;
                inside &= w.blocks == (n + (size_t)block - 1) / (size_t)block
                    && (n % 2 == 0 || (w.packed[n / 2] & 15) == 0);
                CHECK(inside, "kind %d, block %d, %d weights: what is written", kind, block, (int)n);
                size_t wrong = first_wrong(w.packed, w.absmax, x, n, block, kind);
                CHECK(wrong == n, "kind %d, block %d, %d weights: weight %d differs", kind, block, (int)n,
                      (int)wrong);
                for (size_t i = 0; i < n; i++) {
                    double absmax = (double)w.absmax[i / (size_t)block],
                        error = fabs((double)x[i] - (double)w.x[i]);
                    for (int c = 0; c < 16; c++)
                        nearest &= error <= fabs((double)x[i] - (double)w.q.table[c]
                                                 * absmax) + 1e-6 * absmax;
                }
                CHECK(nearest, "kind %d, block %d, %d weights: the nearest value", kind, block, (int)n);
            }
}

/* Enough weights for several threads give the same codes; of several NaNs and infinities the first one is
 * found. */
static void many(void) {
    enum { N = 300001 };
    for (int kind = QUANT_NF4; kind <= QUANT_FP4; kind++)
        for (int block = 32; block <= 4096; block *= 128) {
            memory.used = 0;
            f32 *x = floats(N), keep[3];
            static const size_t bad[3] = { 123457, 123458, N - 1 };
            size_t where = 0;
            fill_normal(x, N, 12);
            Weight w = weight_new(N, block, kind);
            CHECK(weight_quantize(&w, x) == OK, "quantised");
            size_t checked = 20000, from = N / 4096 * 4096 - checked / 4096 * 4096;
            CHECK(first_wrong(w.packed, w.absmax, x, checked, block, kind) >= checked / 4096 * 4096 &&
                  first_wrong(w.packed + from / 2, w.absmax + from / (size_t)block, x + from, N - from,
                              block, kind) == N - from,
                  "kind %d, block %d, many weights", kind, block);
            for (int k = 0; k < 3; k++) {
                keep[k] = x[bad[k]];
                x[bad[k]] = value(k == 1 ? 0xFF800000u : 0x7FC00000u);
            }
            for (int k = 0; k < 3; k++) {
                CHECK(quantize_4bit(w.packed, w.absmax, x, N, block, kind, &where) == E_NUMBER
                      && where == bad[k], "no number: the first of many");
                x[bad[k]] = keep[k];
            }
            CHECK(weight_quantize(&w, x) == OK, "all are numbers again");
        }
}

/* Blocks of any magnitude, also near the floor of absmax (1e-38) and among the subnormals. */
static void magnitudes(void) {
    enum { N = 128 };
    for (int exponent = -149; exponent < 126; exponent++) {
        memory.used = 0;
        f32 *x = floats(N);
        fill_normal(x, N, 3);
        for (int i = 0; i < N; i++) x[i] = (f32)ldexp((double)x[i], exponent);
        Weight w = weight_new(N, 32, exponent % 2 ? QUANT_FP4 : QUANT_NF4);
        CHECK(weight_quantize(&w, x) == OK && first_wrong(w.packed, w.absmax, x, N, 32, w.q.kind) == N,
              "weights of about 2^%d", exponent);
    }
}

/* Each range has the bits of the whole, singly and doubly quantised; the whole is table[code] * absmax. */
static void ranges(void) {
    enum { N = 2 * 257 * 32 + 13, SMALL = 149 };
    static const size_t far[] = { 0, 1, 31, 32, 33, 8191, 8192, 8193, 16384, 16413 };
    for (int form = 0; form < 4; form++) {
        memory.used = 0;
        f32 *x = floats(N), *part = floats(N + 1);
        fill_normal(x, N, 5);
        Weight w = weight_new(N, 32, form % 2 ? QUANT_FP4 : QUANT_NF4);
        CHECK(weight_quantize(&w, x) == OK, "quantised");
        if (form / 2) weight_double(&w);
        dequantize_4bit(w.x, w.packed, &w.q, 0, N);
        int plain = 1, equal = 1;
        for (size_t i = 0; i < N; i++) {
            f32 scale = w.absmax[i / 32];
            if (form / 2) {
                f32 d = w.q.map[w.q.code[i / 32]] * w.q.nested[i / 32 / 256];
                scale = d + w.q.offset;
            }
            f32 want = w.q.table[code_at(w.packed, i)] * scale;
            plain &= bits(w.x[i]) == bits(want);
        }
        CHECK(plain, "form %d: each weight is table[code] * absmax", form);
        for (size_t at = 0; at < SMALL; at++)
            for (size_t n = 0; at + n <= SMALL; n++) {
                part[n] = -7;
                dequantize_4bit(part, w.packed, &w.q, at, n);
                equal &= same(part, w.x + at, n) && part[n] == -7;
            }
        for (size_t a = 0; a < sizeof far / sizeof *far; a++)
            for (size_t e = 0; e < 70; e++) {
                size_t at = far[a], n = (N - at) * e / 69;
                part[n] = -7;
                dequantize_4bit(part, w.packed, &w.q, at, n);
                equal &= same(part, w.x + at, n) && part[n] == -7;
            }
        CHECK(equal, "form %d: a range has the bits of the whole", form);
    }
}

/* A flipped bit of the codes changes its own weight alone; in the unused half byte it changes nothing. */
static void flips(void) {
    enum { N = 101 };
    memory.used = 0;
    f32 *x = floats(N), *y = floats(N);
    fill_normal(x, N, 6);
    Weight w = weight_new(N, 32, QUANT_NF4);
    CHECK(weight_quantize(&w, x) == OK, "quantised");
    dequantize_4bit(y, w.packed, &w.q, 0, N);
    int seen = 1;
    for (size_t bit = 0; bit < (N + 1) / 2 * 8; bit++) {
        size_t its = bit / 8 * 2 + (bit % 8 < 4);
        w.packed[bit / 8] ^= (unsigned char)(1u << bit % 8);
        dequantize_4bit(w.x, w.packed, &w.q, 0, N);
        w.packed[bit / 8] ^= (unsigned char)(1u << bit % 8);
        for (size_t i = 0; i < N; i++) seen &= (bits(w.x[i]) != bits(y[i])) == (i == its);
    }
    CHECK(seen, "a flipped bit changes its weight alone");
}

static void edges(void) {
    enum { N = 100 };
    f32 x[N] = { 0 }, y[N], absmax[4];
    unsigned char packed[N / 2];
    /* zeros of both signs, between blocks of other numbers */
    for (int kind = QUANT_NF4; kind <= QUANT_FP4; kind++) {
        unsigned char zero = kind == QUANT_NF4 ? 0x77 : 0;
        Quant q;
        memset(&q, 0, sizeof q);
        q.kind = kind; q.block = 32; q.absmax = absmax;
        quant_table(q.table, kind);
        memset(x, 0, sizeof x);
        x[3] = 2; x[98] = -3;
        x[40] = x[41] = -0.0f;
        CHECK(quantize_4bit(packed, absmax, x, N, 32, kind, NULL) == OK && absmax[0] == 2 && absmax[1] == 0
              && absmax[2] == 0 && absmax[3] == 3, "kind %d: absmax of zeros is 0", kind);
        int zeros = 1, all = 1;
        for (int i = 16; i < 48; i++) zeros &= packed[i] == zero;
        dequantize_4bit(y, packed, &q, 0, N);
        for (int i = 0; i < N; i++) all &= bits(y[i]) == bits(i == 3 ? 2.0f : i == 98 ? -3.0f : 0.0f);
        CHECK(zeros && all, "kind %d: zeros have the codes of 0 and come back as 0", kind);
        /* The smallest and the largest floats: nothing becomes infinite or NaN. */
        for (int i = 0; i < N; i++) x[i] = value((i < 64 ? 1u : 0x7F7FFFFFu) | (i % 2 ? 0x80000000u : 0));
        CHECK(quantize_4bit(packed, absmax, x, N, 32, kind, NULL) == OK,
              "kind %d: the smallest and the largest floats", kind);
        dequantize_4bit(y, packed, &q, 0, N);
        all = 1;
        for (int i = 0; i < N; i++) all &= i < 64 ? fabs((double)y[i]) <= (double)value(1) : bits(y[i])
            == bits(x[i]);
        CHECK(all, "kind %d: the smallest and the largest floats come back finite", kind);
    }
    static const uint32_t no_number[] = { 0x7F800000u, 0xFF800000u, 0x7FC00000u, 0xFFC00001u, 0x7F800001u };
    int found = 1;
    memset(x, 0, sizeof x);
    for (size_t k = 0; k < 5; k++)
        for (size_t i = 0; i < N; i++) {
            size_t where = 999;
            uint32_t bad = no_number[k], one = 0x3F800000u;
            memcpy(&x[i], &bad, 4);
            if (i + 1 < N) memcpy(&x[N - 1], &bad, 4);          /* a second one, which is not reported */
            found &= quantize_4bit(packed, absmax, x, N, 32, QUANT_NF4, &where) == E_NUMBER && where == i;
            found &= quantize_4bit(packed, absmax, x, N, 32, QUANT_FP4, NULL) == E_NUMBER;
            memcpy(&x[i], &one, 4);
            memcpy(&x[N - 1], &one, 4);
        }
    CHECK(found, "NaN and infinity are refused, with their index");
    static const int block[] = { 0, -64, 1, 16, 31, 48, 96, 4095, 8192, INT_MIN };
    for (size_t k = 0; k < sizeof block / sizeof *block; k++)
        CHECK(quantize_4bit(packed, absmax, x, N, block[k], QUANT_NF4, NULL) == E_ARGUMENT,
              "a block of %d is refused", block[k]);
    CHECK(quantize_4bit(packed, absmax, x, N, 64, 2, NULL) == E_ARGUMENT
          && quantize_4bit(packed, absmax, x, N, 64, -1, NULL) == E_ARGUMENT, "kind");
    CHECK(quantize_4bit(NULL, NULL, NULL, 0, 64, QUANT_NF4, NULL) == OK && quant_blocks(0, 64) == 0,
          "no weights");
    CHECK(quant_blocks(SIZE_MAX, 64) == SIZE_MAX / 64 + 1 && quant_blocks(65, 64) == 2
          && quant_blocks(64, 64) == 1, "quant_blocks");
}

/* ---- double quantisation ---- */
/* Between two values of the map the nearer one is taken, in the middle the even index. { 1, -1, x, -x } has
 * the mean 0 and the largest magnitude 1, so x itself is coded. */
static void dynamic_ties(void) {
    f32 map[256], nested, offset;
    unsigned char code[4];
    quant_map(map);
    int ties = 0, right = 1;
    for (unsigned i = 0; i < 255; i++) {
        f32 sum = map[i] + map[i + 1], middle = sum * 0.5f;
        for (int d = -1; d <= 1; d++) {
            uint32_t up = (uint32_t)(middle < 0 ? -d : d);
            f32 x = value(bits(middle) + up), absmax[4] = { 1, -1 };
            absmax[2] = x; absmax[3] = -x;
            double below = (double)x - (double)map[i], above = (double)map[i + 1] - (double)x;
            quantize_absmax(code, &nested, &offset, map, absmax, 4);
            right &= nested == 1 && offset == 0 && code[0] == 255 && code[1] == 0;
            right &= code[2] == (d < 0 ? i : d > 0 ? i + 1 : (i + 1) / 2 * 2);
            ties += d == 0 && below == above;
        }
    }
    CHECK(right && ties > 100, "the dynamic map: the nearest value; on the middle, the even index (%d exact "
                               "ties)", ties);
}

/* d is multiplied by 1 / nested and not divided by nested: values near a middle tell the two apart. */
static void dynamic_reciprocal(void) {
    f32 map[256], nested, offset;
    unsigned char code[4];
    Rng r = rng_stream(8, 0, 0);
    quant_map(map);
    int cases = 0, right = 1;
    for (int k = 0; k < 2000; k++) {
        unsigned i = 192 + (unsigned)rng_below(&r, 60);
        f32 sum = map[i] + map[i + 1], middle = sum * 0.5f, largest = (f32)(1 + rng_unit(&r)),
            inverse = 1.0f / largest, x = middle * largest;
        f32 product = x * inverse, quotient = x / largest, absmax[4] = { 0 };
        if (bits(product) == bits(quotient)) continue;
        absmax[0] = largest; absmax[1] = -largest; absmax[2] = x; absmax[3] = -x;
        quantize_absmax(code, &nested, &offset, map, absmax, 4);
        right &= code[2] == (product > middle ? i + 1 : product < middle ? i : (i + 1) / 2 * 2);
        cases++;
    }
    CHECK(right && cases > 50, "the dynamic map: multiplied by the reciprocal (%d cases)", cases);
}

static void doubly(void) {
    static const size_t length[] = { 1, 2, 255, 256, 257, 512, 513, 5000 };
    for (size_t l = 0; l < sizeof length / sizeof *length; l++) {
        size_t n = length[l];
        memory.used = 0;
        f32 *x = floats(n * 32);
        fill_normal(x, n * 32, 9 + n);
        /* one block is far larger */
        for (size_t i = 0; i < n * 32; i += 32) x[i] *= 1 + 9 * (i / 32 == n / 2);
        Weight w = weight_new(n * 32, 32, QUANT_NF4);
        CHECK(weight_quantize(&w, x) == OK, "quantised");
        size_t groups = quant_blocks(n, QUANT_NESTED);
        f32 *nested = floats(groups + 1), offset, map[256];
        unsigned char *code = bytes(n + 1);
        quant_map(map);
        code[n] = 0xA5;
        nested[groups] = -7;
        quantize_absmax(code, nested, &offset, map, w.absmax, n);
        double mean = 0;
        for (size_t b = 0; b < n; b++) mean += (double)w.absmax[b] / (double)n;
        CHECK(fabs((double)offset - mean) <= 1e-7 * mean && code[n] == 0xA5 && nested[groups] == -7,
              "%d blocks: the offset is the mean", (int)n);
        int near = 1, largest = 1;
        for (size_t g = 0; g < groups; g++) {
            f32 most = 0;
            for (size_t b = g * 256; b < n && b < (g + 1) * 256; b++) {
                f32 d = w.absmax[b] - offset;
                if (fabs((double)d) > (double)most) most = (f32)fabs((double)d);
            }
            largest &= bits(most) == bits(nested[g]);
            for (size_t b = g * 256; b < n && b < (g + 1) * 256; b++) {
                double d = (double)w.absmax[b] - (double)offset,
                    error = fabs(d - (double)map[code[b]] * (double)most);
                for (int c = 0; c < 256; c++)
                    near &= error <= fabs(d - (double)map[c] * (double)most) + 2e-7 * (double)most;
            }
        }
        CHECK(largest, "%d blocks: nested is the largest of its 256", (int)n);
        CHECK(near, "%d blocks: the nearest value of the map", (int)n);
    }
    f32 same_[300], nested[2], offset, map[256];
    unsigned char code[300];
    quant_map(map);
    for (int i = 0; i < 300; i++) same_[i] = 0.1f;
    quantize_absmax(code, nested, &offset, map, same_, 300);
    int exact = nested[0] == 0 && nested[1] == 0 && offset == 0.1f;
    for (int i = 0; i < 300; i++) exact &= map[code[i]] * nested[i / 256] + offset == 0.1f;
    CHECK(exact, "blocks with the same absmax keep it");
    quantize_absmax(NULL, NULL, &offset, map, NULL, 0);
    CHECK(offset == 0, "no blocks");
}

int main(void) {
    memory = test_arena((size_t)24 << 20);
    pool = test_pool();
    const Json *j = parse("tests/golden/nf4/nf4.json");
    tables(j);
    thresholds();
    golden_blocks();
    memory.used = 0;
    published_errors(j);
    golden_tensors();
    halves();
    lengths();
    many();
    magnitudes();
    ranges();
    flips();
    edges();
    dynamic_ties();
    dynamic_reciprocal();
    doubly();
    CHECK(!memory.failed, "the tests' memory");
    pool_free(&pool);
    free(memory.base);
    return test_end("quant");
}
