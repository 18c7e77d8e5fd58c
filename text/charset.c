/* text/charset.c - sets of characters, as regular expressions write them: unions, intersections, complements;
 *          categories and scripts by their names; \s, \d, \w, \h; both cases of letters.
 * Source   Oniguruma's syntax (doc/RE, doc/UNICODE_PROPERTIES); the names are those of UAX 44.
 * Needs    core.c, text/unicode.c. A set is a UnicodeList: the code points, rising, at which it begins, ends,
 *          begins again, ...
 * Edges    names in any spelling (Uppercase_Letter, uppercaseletter, Lu), empty sets, the set of all. */
#include "text.h"

static const uint32_t everything[] = { 0 };
static const uint32_t space[] = {
    9, 14, 32, 33, 0x85, 0x86, 0xA0, 0xA1, 0x1680, 0x1681, 0x2000, 0x200B, 0x2028, 0x202A, 0x202F, 0x2030,
    0x205F, 0x2060, 0x3000, 0x3001
};
static const uint32_t hexadecimal[] = { '0', '9' + 1, 'A', 'F' + 1, 'a', 'f' + 1 };
static const uint32_t ascii[] = { 0, 128 };
/* What \w has beside letters, marks, \p{Nd}, \p{Nl} and \p{Pc}: superscripts and fractions of Latin-1 (these
 * only outside of brackets), letters in circles and squares. */
static const uint32_t more_word[] = {
    0xB2, 0xB4, 0xB9, 0xBA, 0xBC, 0xBF, 0x24B6, 0x24EA, 0x1F130, 0x1F14A, 0x1F150, 0x1F16A, 0x1F170, 0x1F18A
};

#define FIXED(array) { array, sizeof array / sizeof *array }
static const UnicodeList all_list = FIXED(everything), space_list = FIXED(space), ascii_list = FIXED(ascii),
                         hexadecimal_list = FIXED(hexadecimal), word_list = FIXED(more_word);

int charset_combine(UnicodeList *out, UnicodeList a, UnicodeList b, int how, Pool *pool) {
    uint32_t *edge = pool_take(pool, a.items + b.items + 1, sizeof *edge);
    size_t i = 0, k = 0, n = 0;
    int inside = 0;
    if (!edge) return E_MEMORY;
    while (i < a.items || k < b.items) {
        uint32_t x = i < a.items ? a.item[i] : UINT32_MAX, y = k < b.items ? b.item[k] : UINT32_MAX;
        uint32_t at = x < y ? x : y;
        int in_a, in_b, now;
        i += x == at;
        k += y == at;
        in_a = i % 2 == 1; in_b = k % 2 == 1;
        now = how == SET_OR ? in_a | in_b : how == SET_AND ? in_a & in_b : in_a ^ in_b;
        if (now != inside) edge[n++] = at;
        inside = now;
    }
    out->item = edge;
    out->items = n;
    return OK;
}

int charset_not(UnicodeList *set, Pool *pool) { return charset_combine(set, *set, all_list, SET_XOR, pool); }

int charset_range(UnicodeList *out, int32_t first, int32_t last, Pool *pool) {
    uint32_t *edge = pool_take(pool, 2, sizeof *edge);
    if (!edge) return E_MEMORY;
    edge[0] = (uint32_t)first;
    edge[1] = (uint32_t)last + 1;
    out->item = edge;
    out->items = 2;
    return OK;
}

/* Sets *out to the characters of some categories. mask: bit k is category k. */
static int of_categories(UnicodeList *out, uint32_t mask, Pool *pool) {
    const UnicodeList *list = &unicode_categories;
    uint32_t *edge = NULL;
    size_t i, n = 0;
    int writes;
    for (writes = 0; writes < 2; writes++) {            /* first counts, then writes */
        for (i = n = 0; i < list->items; i++) {
            if ((mask >> (list->item[i] & 31) & 1) == n % 2) continue;
            if (writes) edge[n] = list->item[i] >> 5;
            n++;
        }
        if (!writes && !(edge = pool_take(pool, n + 1, sizeof *edge))) return E_MEMORY;
    }
    out->item = edge;
    out->items = n;
    return OK;
}

#define BIT(category) ((uint32_t)1 << CAT_##category)
#define BITS(from, to) (2 * BIT(to) - BIT(from))
static const struct { const char *brief, *name; uint32_t mask; } category[] = {
    { "l", "letter", BITS(LU, LO) }, { "lc", "casedletter", BITS(LU, LT) },
    { "lu", "uppercaseletter", BIT(LU) }, { "ll", "lowercaseletter", BIT(LL) },
    { "lt", "titlecaseletter", BIT(LT) }, { "lm", "modifierletter", BIT(LM) },
    { "lo", "otherletter", BIT(LO) }, { "m", "mark", BITS(MN, ME) }, { "mn", "nonspacingmark", BIT(MN) },
    { "mc", "spacingmark", BIT(MC) }, { "me", "enclosingmark", BIT(ME) }, { "n", "number", BITS(ND, NO) },
    { "nd", "decimalnumber", BIT(ND) }, { "nl", "letternumber", BIT(NL) }, { "no", "othernumber", BIT(NO) },
    { "p", "punctuation", BITS(PC, PO) }, { "pc", "connectorpunctuation", BIT(PC) },
    { "pd", "dashpunctuation", BIT(PD) }, { "ps", "openpunctuation", BIT(PS) },
    { "pe", "closepunctuation", BIT(PE) }, { "pi", "initialpunctuation", BIT(PI) },
    { "pf", "finalpunctuation", BIT(PF) }, { "po", "otherpunctuation", BIT(PO) },
    { "s", "symbol", BITS(SM, SO) }, { "sm", "mathsymbol", BIT(SM) }, { "sc", "currencysymbol", BIT(SC) },
    { "sk", "modifiersymbol", BIT(SK) }, { "so", "othersymbol", BIT(SO) },
    { "z", "separator", BITS(ZS, ZP) }, { "zs", "spaceseparator", BIT(ZS) },
    { "zl", "lineseparator", BIT(ZL) }, { "zp", "paragraphseparator", BIT(ZP) },
    { "c", "other", BITS(CC, CN) }, { "cc", "control", BIT(CC) }, { "cf", "format", BIT(CF) },
    { "cs", "surrogate", BIT(CS) }, { "co", "privateuse", BIT(CO) }, { "cn", "unassigned", BIT(CN) },
    { "punct", "punct", BITS(PC, PO) }, { "digit", "digit", BIT(ND) }, { "cntrl", "cntrl", BIT(CC) }
};

/* Returns 1 if the name is `plain`, whatever its case, spaces, '-' and '_'. */
static int is_name(Text name, const char *plain) {
    size_t i;
    for (i = 0; i < name.length; i++) {
        char c = name.text[i];
        if (c == ' ' || c == '-' || c == '_') continue;
        if (!*plain || (c | 32) != (*plain | 32)) return 0;
        plain++;
    }
    return !*plain;
}

int charset_escape(UnicodeList *out, char letter, int bare, Pool *pool) {
    UnicodeList word, more = word_list;
    if (letter == 's') *out = space_list;
    else if (letter == 'h') *out = hexadecimal_list;
    else if (letter == 'd') return of_categories(out, BIT(ND), pool);
    else {
        if (of_categories(&word, BITS(LU, NL) | BIT(PC), pool)) return E_MEMORY;
        if (!bare) { more.item += 6; more.items -= 6; }
        return charset_combine(out, word, more, SET_OR, pool);
    }
    return OK;
}

int charset_named(UnicodeList *out, Text name, Pool *pool) {
    size_t i;
    for (i = 0; i < sizeof category / sizeof *category; i++)
        if (is_name(name, category[i].brief) || is_name(name, category[i].name))
            return of_categories(out, category[i].mask, pool);
    for (i = 0; i < UNICODE_SCRIPTS; i++)
        if (is_name(name, unicode_scripts[i].name)) { *out = unicode_scripts[i].edges; return OK; }
    if (is_name(name, "any")) *out = all_list;
    else if (is_name(name, "ascii")) *out = ascii_list;
    else if (is_name(name, "xdigit")) *out = hexadecimal_list;
    else if (is_name(name, "space") || is_name(name, "whitespace")) *out = space_list;
    else if (is_name(name, "word")) return charset_escape(out, 'w', 0, pool);
    else return E_MISSING;
    return OK;
}

/* ==============================================================================================
 * Both cases
 * ============================================================================================== */

/* A set, and characters that are not in it but have to be. */
typedef struct { UnicodeList set; uint32_t *extra; size_t n, room; } Fold;

static int fold_has(const Fold *f, int32_t code) {
    size_t i;
    if (unicode_inside(&f->set, code)) return 1;
    for (i = f->n; i--; ) if (f->extra[i] == (uint32_t)code) return 1;
    return 0;
}

/* Adds the one of two characters that is missing, if the other one is there. */
static void fold_pair(Fold *f, int32_t a, int32_t b) {
    int in_a = fold_has(f, a), in_b = fold_has(f, b);
    if (in_a != in_b && f->n < f->room) f->extra[f->n++] = (uint32_t)(in_a ? b : a);
}

static int compare_codes(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Adds what f found to its set. OK or E_MEMORY. */
static int add_extra(Fold *f, Pool *pool) {
    uint32_t *edge = pool_take(pool, 2 * f->n + 1, sizeof *edge);
    UnicodeList found = { edge, 0 };
    size_t i;
    if (!edge) return E_MEMORY;
    qsort(f->extra, f->n, sizeof *f->extra, compare_codes);
    for (i = 0; i < f->n; i++) {
        if (found.items && edge[found.items - 1] == f->extra[i]) found.items--;
        else edge[found.items++] = f->extra[i];
        edge[found.items++] = f->extra[i] + 1;
    }
    return charset_combine(&f->set, f->set, found, SET_OR, pool);
}

/* Fills f->extra: adds the other case of each letter, again and again, because letters that share a lower
 * case follow each other. */
static void find_extra(Fold *f) {
    static const int32_t pair[][2] = { { 's', 0x17F }, { 0x3C3, 0x3C2 }, { 0xB5, 0x3BC } };
    size_t i, before;
    do {
        before = f->n;
        for (i = 0; i < unicode_lower_runs.runs; i++) {
            const UnicodeRun *r = &unicode_lower_runs.run[i];
            uint32_t c;
            for (c = r->first; c <= r->last; c += r->stride)
                fold_pair(f, (int32_t)c, (int32_t)(r->to + (c - r->first) / r->stride * r->delta));
        }
        for (i = 0; i < sizeof pair / sizeof *pair; i++) fold_pair(f, pair[i][0], pair[i][1]);
    } while (f->n > before);
}

/* A single letter has few other cases; a large set may have thousands. */
int charset_fold(UnicodeList *set, Pool *pool) {
    enum { FEW = 32, MANY = 4096 };
    uint32_t few[FEW];
    Fold f = { *set, few, 0, FEW };
    find_extra(&f);
    if (f.n == FEW) {
        f.extra = pool_take(pool, MANY, sizeof *f.extra);
        if (!f.extra) return E_MEMORY;
        f.n = 0;
        f.room = MANY;
        find_extra(&f);
    }
    if (f.n && add_extra(&f, pool)) return E_MEMORY;
    *set = f.set;
    return OK;
}
