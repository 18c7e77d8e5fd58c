/* text/unicode.c - properties of characters (categories, white space, punctuation, marks), their
 *          decompositions and compositions, their lower case.
 * Source   The Unicode Standard: UAX 15 (normal forms), UAX 29 (clusters). Hugging Face's tokenizers go by
 *          several versions of it, and so does this file; text/unicode_tables.c lists them.
 * Needs    text/unicode_tables.c.
 * Never    looks at neighbouring characters: a sigma at the end of a word gets the same lower
 *          case as any other sigma.
 * Edges    bytes that are not a character (code -1) are taken for U+FFFD, the replacement character. */
#include "text.h"

/* ==============================================================================================
 * Classes
 * ============================================================================================== */

/* Returns the number of items that are <= wanted, by binary search. The items rise. */
static size_t items_up_to(const UnicodeList *list, uint32_t wanted) {
    size_t low = 0, high = list->items;     /* item[low - 1] <= wanted < item[high] */
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (list->item[middle] <= wanted) low = middle + 1; else high = middle;
    }
    return low;
}

int unicode_inside(const UnicodeList *class, int32_t code) {
    return items_up_to(class, (uint32_t)code) % 2 == 1;
}

int unicode_category(int32_t code) {
    const UnicodeList *list = &unicode_categories;
    return code < 0 ? CAT_SO : (int)(list->item[items_up_to(list, (uint32_t)code << 5 | 31) - 1] & 31);
}

/* Returns 1 for White_Space beyond ASCII. */
static int wide_space(int32_t code) {
    return code == 0x85 || code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) ||
           code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

int unicode_class(int32_t code) {
    int category;
    if (code >= 0 && code < 128) {
        if ((code | 32) >= 'a' && (code | 32) <= 'z') return CHAR_LETTER;
        if (code >= '0' && code <= '9') return CHAR_NUMBER;
        return code == ' ' || (code >= 9 && code <= 13) ? CHAR_SPACE : CHAR_OTHER;
    }
    if (wide_space(code)) return CHAR_SPACE;
    category = unicode_category(code);
    if (category <= CAT_LO) return CHAR_LETTER;
    return category >= CAT_ND && category <= CAT_NO ? CHAR_NUMBER : CHAR_OTHER;
}

/* The next three functions go by Unicode 8, as BERT does in Hugging Face's tokenizers. There U+166D and
 * U+111C9 are punctuation, U+1734 and U+1171E are in Mn. */
int unicode_is_control(int32_t code) {
    int category = unicode_category(code);
    if (category != CAT_CC && category != CAT_CF && category != CAT_CO) return 0;
    return !unicode_inside(&unicode_after_8, code);
}

int unicode_is_punctuation(int32_t code) {
    int category;
    if (code < 128)
        return (code > 32 && code < 48) || (code > 57 && code < 65) || (code > 90 && code < 97) ||
               (code > 122 && code < 127);
    if (code == 0x166D || code == 0x111C9) return 1;
    category = unicode_category(code);
    return category >= CAT_PC && category <= CAT_PO && !unicode_inside(&unicode_after_8, code);
}

int unicode_is_mark(int32_t code) {
    if (code < 0x300) return 0;
    if (code == 0x1734 || code == 0x1171E) return 1;
    return unicode_category(code) == CAT_MN && !unicode_inside(&unicode_after_8, code);
}

static int is_combining(int32_t code) {
    int category = code < 0x300 ? CAT_LO : unicode_category(code);
    return category >= CAT_MN && category <= CAT_ME;
}

/* Goes by Unicode 9, where U+1CF2 and U+1CF3 were marks. */
int unicode_is_accent(int32_t code) {
    if (code == 0x1CF2 || code == 0x1CF3) return 1;
    return is_combining(code) && !unicode_inside(&unicode_after_9, code);
}

/* Letters, marks, \p{Nd}, \p{Nl}, \p{Pc}, joiners, and letters in circles and squares. */
int unicode_is_word(int32_t code) {
    int category = unicode_category(code);
    if (category <= CAT_NL || category == CAT_PC || code == 0x200C || code == 0x200D) return 1;
    return (code >= 0x24B6 && code <= 0x24E9) || (code >= 0x1F130 && code <= 0x1F149) ||
           (code >= 0x1F150 && code <= 0x1F169) || (code >= 0x1F170 && code <= 0x1F189);
}

/* Returns 1 for marks, joiners, skin colours, tags and half-width voice marks. Returns 0 for prepended signs
 * and for flags, which also make clusters. */
int unicode_joins(int32_t code) {
    if (code < 0x300) return 0;
    if (code == 0xE33 || code == 0xEB3 || code == 0x200C || code == 0x200D) return 1;
    if (code == 0xFF9E || code == 0xFF9F) return 1;
    if ((code >= 0x1F3FB && code <= 0x1F3FF) || (code >= 0xE0020 && code <= 0xE007F)) return 1;
    return is_combining(code) && !unicode_inside(&unicode_apart_marks, code);
}

int unicode_columns(int32_t code) {
    if (code < 0x300) return 1;
    const int category = unicode_category(code);
    if (is_combining(code) ? category != CAT_MC : category == CAT_CF) return 0;
    if (code >= 0x1160 && code <= 0x11FF) return 0;         /* vowels and endings of a Hangul syllable */
    return 1 + unicode_inside(&unicode_wide, code);
}

int unicode_is_ideograph(int32_t code) {
    return (code >= 0x4E00 && code <= 0x9FFF) || (code >= 0x3400 && code <= 0x4DBF) ||
           (code >= 0x20000 && code <= 0x2A6DF) || (code >= 0x2A700 && code <= 0x2B73F) ||
           (code >= 0x2B740 && code <= 0x2B81F) || (code >= 0x2B920 && code <= 0x2CEAF) ||
           (code >= 0xF900 && code <= 0xFAFF) || (code >= 0x2F800 && code <= 0x2FA1F);
}

/* ==============================================================================================
 * Lower case, decompositions, compositions
 * ============================================================================================== */

/* Returns the character that a run of the list maps code to; code itself if it is in no run. */
static int32_t mapped(const UnicodeRuns *list, int32_t code) {
    size_t low = 0, high = list->runs;      /* at the end run low - 1 is the last one with first <= code */
    uint32_t c = (uint32_t)code;
    const UnicodeRun *r;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (list->run[middle].first <= c) low = middle + 1; else high = middle;
    }
    if (!low || code < 0) return code;
    r = &list->run[low - 1];
    if (c > r->last || (c - r->first) % r->stride) return code;
    return (int32_t)(r->to + (c - r->first) / r->stride * r->delta);
}

int unicode_lower(int32_t code, int32_t out[2]) {
    out[0] = mapped(&unicode_lower_runs, code);
    out[1] = 0x307;
    if (code != 0x130) return 1;
    out[0] = 'i';                           /* U+0130 is the one letter whose lower case is two characters */
    return 2;
}

/* Writes what a list of strings has for code; returns the number of characters, 0: it has none. */
static int listed(const UnicodeList *list, int32_t code, int32_t *out) {
    size_t low = 0, high = list->items;     /* the last entry whose character is <= code is in [low, high) */
    int n = 0;
    while (low + 1 < high) {
        size_t middle = low + (high - low) / 2, head = middle;
        while (head < high && !(list->item[head] & UNICODE_HEAD)) head++;
        if (head < high && (list->item[head] & ~UNICODE_HEAD) <= (uint32_t)code) low = head;
        else high = middle;
    }
    if (list->item[low] != (UNICODE_HEAD | (uint32_t)code)) return 0;
    while (++low < list->items && !(list->item[low] & UNICODE_HEAD)) out[n++] = (int32_t)list->item[low];
    return n;
}

enum { HANGUL = 0xAC00, HANGUL_L = 0x1100, HANGUL_V = 0x1161, HANGUL_T = 0x11A7, SYLLABLES = 11172 };

/* Writes one step of the decomposition of code to out; returns the number of characters, at most 18. */
static int decompose_once(int32_t code, int compatible, int32_t *out) {
    int n;
    if (code >= HANGUL && code < HANGUL + SYLLABLES) {
        int32_t s = code - HANGUL;
        out[0] = HANGUL_L + s / 588;
        out[1] = HANGUL_V + s % 588 / 28;
        out[2] = HANGUL_T + s % 28;
        return s % 28 ? 3 : 2;
    }
    n = listed(&unicode_canonical_strings, code, out);
    if (!n && compatible) n = listed(&unicode_compatible_strings, code, out);
    if (n) return n;
    out[0] = mapped(&unicode_canonical_runs, code);
    if (out[0] == code && compatible) out[0] = mapped(&unicode_compatible_runs, code);
    return 1;
}

int unicode_decompose(int32_t code, int compatible, int32_t out[18]) {
    int32_t step[18];
    int i = 0, n = 1, k, made;
    out[0] = code;
    if (code < 0xA0 || (code >= 0x3400 && code < 0xA000)) return 1;     /* none of these has one */
    while (i < n) {
        made = decompose_once(out[i], compatible, step);
        if (made == 1 && step[0] == out[i]) { i++; continue; }
        for (k = n - 1; k > i; k--) out[k + made - 1] = out[k];
        for (k = 0; k < made; k++) out[i + k] = step[k];
        n += made - 1;
    }
    return n;
}

int unicode_combining_class(int32_t code) {
    const UnicodeList *list = &unicode_combining_classes;
    return code < 0x300 ? 0 : (int)(list->item[items_up_to(list, (uint32_t)code << 8 | 255) - 1] & 255);
}

int32_t unicode_compose(int32_t a, int32_t b) {
    const UnicodeList *list = &unicode_composites;
    size_t low = 0, high = list->items;
    int32_t pair[18];
    if (a >= HANGUL_L && a < HANGUL_L + 19 && b >= HANGUL_V && b < HANGUL_V + 21)
        return HANGUL + ((a - HANGUL_L) * 21 + b - HANGUL_V) * 28;
    if (a >= HANGUL && a < HANGUL + SYLLABLES && (a - HANGUL) % 28 == 0 && b > HANGUL_T && b < HANGUL_T + 28)
        return a + b - HANGUL_T;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int32_t code = (int32_t)list->item[middle];
        decompose_once(code, 0, pair);
        if (pair[0] == a && pair[1] == b) return code;
        if (pair[0] < a || (pair[0] == a && pair[1] < b)) low = middle + 1; else high = middle;
    }
    return -1;
}

/* ==============================================================================================
 * White space before and after a place
 * ============================================================================================== */
size_t space_before(const char *s, size_t from, size_t at) {
    for (;;) {
        size_t k = at, length;
        while (k > from && at - k < 4 && (k == at || ((unsigned char)s[k] & 0xC0) == 0x80)) k--;
        if (k == at || class_at(s + k, at - k, &length) != CHAR_SPACE || length != at - k) return at;
        at = k;
    }
}

size_t space_after(const char *s, size_t at, size_t n) {
    size_t length;
    while (at < n && class_at(s + at, n - at, &length) == CHAR_SPACE) at += length;
    return at;
}
