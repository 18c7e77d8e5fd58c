/* tests/unit/unicode.c - the tables of text/unicode_tables.c: what each function says of each character,
 * against hashes that were computed from the answers of Hugging Face's tokenizers 0.23. */
#include "test.h"
#include "text/text.h"

/* Each function below writes what is said of a character to out, and returns how many numbers that are. */
static int category(int32_t c, int32_t *out) { out[0] = unicode_category(c); return 1; }
static int class(int32_t c, int32_t *out) { out[0] = unicode_class(c); return 1; }
static int control(int32_t c, int32_t *out) { out[0] = unicode_is_control(c); return 1; }
static int punctuation(int32_t c, int32_t *out) { out[0] = unicode_is_punctuation(c); return 1; }
/* A mark that decomposes is removed as what it decomposes to. */
static int mark(int32_t c, int32_t *out) {
    int32_t to[18];
    out[0] = unicode_is_mark(c) && unicode_decompose(c, 0, to) == 1 && to[0] == c;
    return 1;
}
static int accent(int32_t c, int32_t *out) { out[0] = unicode_is_accent(c); return 1; }
static int word(int32_t c, int32_t *out) { out[0] = unicode_is_word(c); return 1; }
static int ideograph(int32_t c, int32_t *out) { out[0] = unicode_is_ideograph(c); return 1; }
static int lower(int32_t c, int32_t *out) { return unicode_lower(c, out); }
static int combining(int32_t c, int32_t *out) { out[0] = unicode_combining_class(c); return 1; }

/* Sorts, because a decomposition need not be in the order of the combining classes. */
static int decomposition(int32_t c, int compatible, int32_t *out) {
    int i, k, n = unicode_decompose(c, compatible, out);
    for (i = 1; i < n; i++)
        for (k = i; k && out[k - 1] > out[k]; k--) {
            int32_t x = out[k];
            out[k] = out[k - 1];
            out[k - 1] = x;
        }
    return n;
}
static int canonical(int32_t c, int32_t *out) { return decomposition(c, 0, out); }
static int compatible(int32_t c, int32_t *out) { return decomposition(c, 1, out); }

static void test_tables(void) {
    static const struct { const char *name; int (*says)(int32_t, int32_t *); uint32_t hash; } table[] = {
        { "General_Category", category, 0x3F17ACEBu },
        { "the class", class, 0x8F5AB2F7u },
        { "BERT's control", control, 0xF9358BA4u },
        { "BERT's punctuation", punctuation, 0x1098E095u },
        { "BERT's mark", mark, 0x588B1024u },
        { "a mark", accent, 0xAC8A2A54u },
        { "a word character", word, 0x58E4A004u },
        { "BERT's ideograph", ideograph, 0xD2CE6A45u },
        { "the lower case", lower, 0x7B45F388u },
        { "NFD", canonical, 0xEACE027Au },
        { "NFKD", compatible, 0x3E0583DAu },
        { "the combining class", combining, 0xBE7DF9A1u }
    };
    size_t k;
    int32_t c, out[18];
    int i, n, byte;
    for (k = 0; k < sizeof table / sizeof *table; k++) {
        uint32_t hash = 2166136261u;        /* FNV-1a over the bytes of the numbers */
        for (c = 0; c < 0x110000; c++) {
            if (c == 0xD800) c = 0xE000;
            n = table[k].says(c, out);
            for (i = 0; i < n; i++)
                for (byte = 0; byte < 4; byte++)
                    hash = (hash ^ ((uint32_t)out[i] >> 8 * byte & 255)) * 16777619u;
        }
        CHECK(hash == table[k].hash, "%s of every character (%08X)", table[k].name, (unsigned)hash);
    }
}

/* Composes what a character decomposes to, from the left. What comes out has to decompose to the same again;
 * it is the character itself, except for those that UAX 15 excludes. */
static void test_composition(void) {
    int32_t c, out[18], again[18];
    int found = 0, wrong = 0, i, n;
    for (c = 0xA0; c < 0x110000; c++) {
        int32_t composed;
        if ((n = unicode_decompose(c, 0, out)) < 2) continue;
        for (composed = out[0], i = 1; i < n && composed >= 0; i++)
            composed = unicode_compose(composed, out[i]);
        found += composed == c;
        if (composed < 0 || composed == c) continue;
        wrong += unicode_decompose(composed, 0, again) != n || memcmp(out, again, (size_t)n * sizeof *out);
    }
    CHECK(!wrong && found == 940 + 11172, "%d composed, %d wrong", found, wrong);
    CHECK(unicode_compose('e', 0x301) == 0xE9 && unicode_compose('e', 'e') < 0, "e and an accent");
    CHECK(unicode_compose(0x915, 0x93C) < 0 && unicode_compose(0x11935, 0x11930) < 0, "what is excluded");
}

/* Columns of a terminal: East_Asian_Width W and F are wide; what has no ink of its own takes none. */
static void test_columns(void) {
    static const struct { int32_t code; int columns; } row[] = {
        { 'a', 1 }, { 0xE9, 1 }, { 0x301, 0 }, { 0x200B, 0 }, { 0xFE0F, 0 }, { 0x20DD, 0 }, { 0x903, 1 },
        { 0x10FF, 1 }, { 0x1100, 2 }, { 0x115F, 2 }, { 0x1160, 0 }, { 0x3042, 2 }, { 0x303F, 1 },
        { 0x4E2D, 2 }, { 0xAC00, 2 }, { 0xFF21, 2 }, { 0xFF71, 1 }, { 0x2581, 1 }, { 0x2588, 1 },
        { 0x2614, 2 }, { 0x2616, 1 }, { 0x1F600, 2 }, { 0x1F321, 1 }, { 0x20000, 2 }, { 0x3FFFD, 2 },
        { 0x10FFFF, 1 }, { -1, 1 } };
    for (size_t k = 0; k < sizeof row / sizeof *row; k++)
        CHECK(unicode_columns(row[k].code) == row[k].columns, "U+%04X: %d columns", (unsigned)row[k].code,
              unicode_columns(row[k].code));
}

int main(void) {
    test_tables();
    test_columns();
    test_composition();
    return test_end("unicode");
}
