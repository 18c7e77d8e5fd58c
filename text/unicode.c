/* text/unicode.c - properties of characters (white space, letters, numbers, punctuation, controls, marks),
 *          their base letters and their lower case.
 * Source   Unicode 14.0.
 * Needs    text/unicode_tables.c.
 * Never    looks at neighbouring characters: a sigma at the end of a word gets the same lower
 *          case as any other sigma.
 * Edges    bytes that are not a character (code -1) are in no class. A decomposition without its \p{Mn} keeps
 *          the order of the combining characters that are in Mc. */
#include "text.h"

/* ==============================================================================================
 * Classes
 * ============================================================================================== */

/* Returns 1 if code is in the class, by binary search: it is if the number of edges that
 * are <= code is odd. */
static int inside(const UnicodeList *class, int32_t code) {
    size_t low = 0, high = class->items;    /* item[low - 1] <= code < item[high] */
    if (code < 0) return 0;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (class->item[middle] <= (uint32_t)code) low = middle + 1; else high = middle;
    }
    return low % 2 == 1;
}

int unicode_class(int32_t code) {
    if (code < 0) return CHAR_OTHER;
    if (code < 128) {
        if ((code | 32) >= 'a' && (code | 32) <= 'z') return CHAR_LETTER;
        if (code >= '0' && code <= '9') return CHAR_NUMBER;
        return code == ' ' || (code >= 9 && code <= 13) ? CHAR_SPACE : CHAR_OTHER;
    }
    if (code == 0x85 || code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) ||
        code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000)
        return CHAR_SPACE;
    if (inside(&unicode_letters, code)) return CHAR_LETTER;
    return inside(&unicode_numbers, code) ? CHAR_NUMBER : CHAR_OTHER;
}

int unicode_is_control(int32_t code) { return inside(&unicode_controls, code); }
int unicode_is_punctuation(int32_t code) { return inside(&unicode_punctuation, code); }
int unicode_is_mark(int32_t code) { return inside(&unicode_marks, code); }

int unicode_is_combining(int32_t code) {
    return code >= 0x300 && (inside(&unicode_marks, code) || inside(&unicode_spacing_marks, code));
}

int unicode_is_word(int32_t code) {
    return unicode_class(code) == CHAR_LETTER || inside(&unicode_words, code) || unicode_is_combining(code);
}

/* Returns 1 for marks, joiners, skin colours, tags and half-width voice marks. Returns 0 for prepended signs
 * and for flags, which also make clusters. */
int unicode_joins(int32_t code) {
    if (code < 0x300) return 0;
    if (code == 0xE33 || code == 0xEB3 || code == 0x200C || code == 0x200D) return 1;
    if (code == 0xFF9E || code == 0xFF9F) return 1;
    if ((code >= 0x1F3FB && code <= 0x1F3FF) || (code >= 0xE0020 && code <= 0xE007F)) return 1;
    return unicode_is_combining(code) && !inside(&unicode_apart_marks, code);
}

int unicode_is_ideograph(int32_t code) {
    return (code >= 0x4E00 && code <= 0x9FFF) || (code >= 0x3400 && code <= 0x4DBF) ||
           (code >= 0x20000 && code <= 0x2A6DF) || (code >= 0x2A700 && code <= 0x2B73F) ||
           (code >= 0x2B740 && code <= 0x2B81F) || (code >= 0x2B920 && code <= 0x2CEAF) ||
           (code >= 0xF900 && code <= 0xFAFF) || (code >= 0x2F800 && code <= 0x2FA1F);
}

/* ==============================================================================================
 * Base letters, lower case
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

/* Sets *out to the entry for code in a list that begins with the character `start`; 0 in the list: leaves
 * *out as it is. Returns 0 if code is outside of the list, else 1. */
static int ideograph(const UnicodeList *list, int32_t code, int32_t start, int32_t *out) {
    size_t i = (size_t)(code - start);
    if (code < start || i >= list->items) return 0;
    if (list->item[i]) *out = (int32_t)list->item[i];
    return 1;
}

/* Computes the two or three letters of a Hangul syllable; looks up all other characters. */
int unicode_base(int32_t code, int32_t out[3]) {
    int i, n;
    if (unicode_is_mark(code)) return 0;
    out[0] = code;
    if (code < 0xC0) return 1;
    if (code >= 0xAC00 && code < 0xAC00 + 11172) {
        int32_t s = code - 0xAC00;
        out[0] = 0x1100 + s / 588;
        out[1] = 0x1161 + s % 588 / 28;
        out[2] = 0x11A7 + s % 28;
        return s % 28 ? 3 : 2;
    }
    for (i = 0; i < UNICODE_BASE_STRINGS; i++) {
        const uint32_t *string = unicode_base_strings[i];
        if (string[0] != (uint32_t)code) continue;
        for (n = 0; n < 3 && string[n + 1]; n++) out[n] = (int32_t)string[n + 1];
        return n;
    }
    if (!ideograph(&unicode_ideographs_f900, code, 0xF900, out) &&
        !ideograph(&unicode_ideographs_2f800, code, 0x2F800, out))
        out[0] = mapped(&unicode_base_runs, code);
    return 1;
}

/* Returns the index in unicode_compatible_strings of the last entry whose character is <= code. */
static size_t compatible_entry(int32_t code) {
    const UnicodeList *list = &unicode_compatible_strings;
    size_t low = 0, high = list->items;
    while (low + 1 < high) {
        size_t middle = low + (high - low) / 2, head = middle;
        while (head < high && !(list->item[head] & UNICODE_HEAD)) head++;
        if (head < high && (list->item[head] & ~UNICODE_HEAD) <= (uint32_t)code) low = head;
        else high = middle;
    }
    return low;
}

int unicode_compatible(int32_t code, int32_t out[18]) {
    const UnicodeList *list = &unicode_compatible_strings;
    size_t i;
    int32_t base[3];
    int n = 0, k, bases;
    if (code < 0xA0) { out[0] = code; return 1; }
    i = compatible_entry(code);
    if (list->item[i] == (UNICODE_HEAD | (uint32_t)code)) {
        while (++i < list->items && !(list->item[i] & UNICODE_HEAD)) out[n++] = (int32_t)list->item[i];
        return n;
    }
    out[0] = mapped(&unicode_compatible_runs, code);
    if (out[0] != code) return 1;
    bases = unicode_base(code, base);
    for (k = 0; k < bases; k++) if (!unicode_is_combining(base[k])) out[n++] = base[k];
    return n;
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
