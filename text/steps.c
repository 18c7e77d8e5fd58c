/* text/steps.c - the normalizers of tokenizer.json, one step after the other, each over the whole text:
 *          NFC, NFD, NFKC, NFKD, Nmt, Lowercase, StripAccents, BertNormalizer, Strip, Prepend, Replace,
 *          Precompiled.
 * Source   Hugging Face's tokenizers (normalizers), quirks included; UAX 15 (normal forms).
 * Needs    core.c, text/{unicode,pieces,regex,normal,wordpiece}.c.
 * Edges    steps that remove the start of the text; more than 256 marks on one letter (a normal form sorts
 *          them in parts); a Replace by a pattern that matches no characters (such matches are left out). */
#include "text.h"

/* ==============================================================================================
 * Normal forms
 * ============================================================================================== */
enum { SEGMENT = 256, DECOMPOSED = 18, STEP_BYTES = 4 * (SEGMENT + DECOMPOSED) };

/* Sorts each run of marks by their combining classes; equal ones keep their order. */
static void sort_marks(int32_t *list, int n) {
    int i, k;
    for (i = 1; i < n; i++) {
        int32_t c = list[i];
        int class = unicode_combining_class(c);
        for (k = i; class && k && unicode_combining_class(list[k - 1]) > class; k--) list[k] = list[k - 1];
        list[k] = c;
    }
}

/* Composes characters as NFC does. Returns how many are left. */
static int compose(int32_t *list, int n) {
    int i, k = 0, starter = -1, last = 0;   /* last: the class of the last character that stayed */
    for (i = 0; i < n; i++) {
        int class = unicode_combining_class(list[i]);
        int blocked = starter < 0 || (k > starter + 1 && last >= class);
        int32_t made = blocked ? -1 : unicode_compose(list[starter], list[i]);
        if (made >= 0) { list[starter] = made; continue; }
        list[k] = list[i];
        if (!class) starter = k;
        last = class;
        k++;
    }
    return k;
}

/* Returns 1 if the character `code` belongs to the n characters before it: if it is a mark, or composes with
 * them. */
static int belongs(const int32_t *list, int n, int32_t code, int composing) {
    int32_t first[DECOMPOSED], copy[SEGMENT + DECOMPOSED];
    int left;
    if (code < 0x300) return 0;
    unicode_decompose(code, 0, first);
    if (unicode_combining_class(first[0])) return 1;
    if (!composing || first[0] < 0x9BE) return 0;       /* no starter before U+09BE composes with others */
    memcpy(copy, list, (size_t)n * sizeof *copy);
    left = compose(copy, n);
    return unicode_compose(copy[left - 1], first[0]) >= 0;
}

/* Writes to out (STEP_BYTES) the normal form of the first character of s (n > 0 bytes) and of those after it
 * that belong to it; *length: its length. Returns the number of bytes used. */
static size_t normal_segment(int kind, const char *s, size_t n, char *out, size_t *length) {
    int composing = kind == STEP_NFC || kind == STEP_NFKC;
    int compatible = kind == STEP_NFKC || kind == STEP_NFKD;
    int32_t list[SEGMENT + DECOMPOSED], code;
    int count = 0, i;
    size_t at = 0, used = (size_t)utf8_decode(s, n, &code);
    do {
        count += unicode_decompose(code, compatible, list + count);
        at += used;
        used = at < n ? (size_t)utf8_decode(s + at, n - at, &code) : 0;
    } while (used && count < SEGMENT && belongs(list, count, code, composing));
    sort_marks(list, count);
    if (composing) count = compose(list, count);
    for (i = 0, *length = 0; i < count; i++) *length += (size_t)utf8_encode(out + *length, list[i]);
    return at;
}

/* Returns what Nmt makes of a character: itself, a space, or -1 (nothing). */
static int32_t nmt(int32_t code) {
    if (code == 9 || code == 10 || code == 12 || code == 13 || code == 0x1680 || code == 0x2028 ||
        code == 0x2029 || (code >= 0x200B && code <= 0x200F) || code == 0x2581 || code == 0xFEFF ||
        code == 0xFFFD) return ' ';
    return (code && code < 32) || code == 0x7F || code == 0x8F || code == 0x9F ? -1 : code;
}

/* ==============================================================================================
 * Rules (Precompiled)
 * ============================================================================================== */

/* Returns the length of the first cluster of s (n > 0 bytes): a character and the marks after it. Ignores
 * Unicode's rules that only make clusters of six or more bytes (flags, joined pictures, syllables of Hangul),
 * because STEP_RULES takes these character by character. */
static size_t cluster(const char *s, size_t n) {
    int32_t code;
    size_t at = (size_t)utf8_decode(s, n, &code), length;
    if (code == '\r') return n > 1 && s[1] == '\n' ? 2 : 1;
    if (code == 0x2028 || code == 0x2029 || (unicode_category(code) >= CAT_CC && !unicode_joins(code)))
        return at;
    for (; at < n; at += length) {
        length = (size_t)utf8_decode(s + at, n - at, &code);
        if (!unicode_joins(code)) break;
    }
    return at;
}

/* Applies the rules to the start of s (n > 0 bytes) as Hugging Face does. If a cluster has less than six
 * bytes and begins with the text of a rule, the shortest such rule replaces the whole cluster. Else each
 * character of the cluster is replaced by itself; *inside: the bytes of the cluster that are left. Returns
 * the number of bytes used. */
static size_t apply_rules(const Normal *m, const char *s, size_t n, size_t *inside, Text *out) {
    size_t used = *inside ? 0 : cluster(s, n);
    int32_t code;
    if (used && used < 6 && rule_prefix(m, s, used, 1, out)) return used;
    if (used) *inside = used;
    used = (size_t)utf8_decode(s, n, &code);
    *inside -= used < *inside ? used : *inside;
    out->text = s;
    out->length = used;
    rule_prefix(m, s, used, 1, out);
    return used;
}

/* ==============================================================================================
 * One step
 * ============================================================================================== */

/* The result of a step at one place of a text. made: the new text, whose bytes may be in `small`; inside: see
 * apply_rules. [from, to): the next match of a Replace, if searched is 1. */
typedef struct { size_t inside, from, to; int searched; Text made; char small[STEP_BYTES]; } Making;

/* Sets w->made to what a step makes of the start of s (n > 0 bytes); returns the number of bytes used. */
static size_t step_prefix(const Tokenizer *t, const NormalStep *p, const char *s, size_t n, Making *w) {
    int32_t code, to[2];
    size_t used;
    int i, count = 1;
    if (p->kind == STEP_RULES) return apply_rules(&t->normal, s, n, &w->inside, &w->made);
    w->made = p->content;
    if (p->kind == STEP_REPLACE) { w->searched = 0; return w->to - w->from; }
    w->made.text = w->small;
    if (p->kind >= STEP_NFC && p->kind <= STEP_NFKD)
        return normal_segment(p->kind, s, n, w->small, &w->made.length);
    used = (size_t)utf8_decode(s, n, &code);
    if (p->kind == STEP_BERT) {
        w->made.length = bert_normalise(w->small, s, used, &p->rules);
        return used;
    }
    to[0] = code < 0 ? 0xFFFD : code;
    if (p->kind == STEP_LOWER) count = unicode_lower(to[0], to);
    else if (p->kind == STEP_ACCENTS) count = !unicode_is_accent(to[0]);
    else if (p->kind == STEP_NMT) count = (to[0] = nmt(to[0])) >= 0;
    for (i = 0, w->made.length = 0; i < count; i++)
        w->made.length += (size_t)utf8_encode(w->small + w->made.length, to[i]);
    return used;
}

/* Returns 1 if the step surely leaves s[0] (n > 0 bytes) as it is, whatever is before it. This holds
 * for most of a text. */
static inline int step_keeps(const Tokenizer *t, const NormalStep *p, const char *s, size_t n) {
    unsigned char c = (unsigned char)*s;
    if (c >= 128) return 0;
    if (p->kind == STEP_LOWER) return c < 'A' || c > 'Z';
    if (p->kind == STEP_RULES) return t->normal.plain[c] && (n == 1 || (unsigned char)s[1] < 128);
    if (p->kind >= STEP_NFC && p->kind <= STEP_NFKD) return n == 1 || (unsigned char)s[1] < 128;
    return (c >= ' ' && c < 127 && (p->kind != STEP_BERT || c < 'A' || c > 'Z')) ||
           (p->kind != STEP_BERT && p->kind != STEP_NMT);
}

/* Returns the index of the first `wanted` (not empty) in s from the byte `at` on; s.length: there is none. */
static size_t find_text(Text s, size_t at, Text wanted) {
    while (at < s.length && !starts_with(s.text + at, s.length - at, wanted.text, wanted.length)) {
        const char *next = memchr(s.text + at + 1, *wanted.text, s.length - at - 1);
        at = next ? (size_t)(next - s.text) : s.length;
    }
    return at;
}

/* Looks for the next match of a Replace from s.text[at] on. w->from: the end of the text, if there is
 * none. */
static void next_match(const NormalStep *p, Text s, size_t at, Making *w) {
    if (w->searched && w->from >= at) return;
    w->searched = 1;
    if (!p->regex) {
        w->from = find_text(s, at, p->pattern);
        w->to = w->from + p->pattern.length;
        return;
    }
    while (regex_find(p->regex, s, at, &w->from, &w->to)) {
        if (w->to > w->from) return;
        if (w->to == s.length) break;
        at = w->to + unigram_character(s.text + w->to, s.length - w->to);
    }
    w->from = s.length;
}

/* One step over a text. in: the text before the step; from: the origins of its bytes (NULL: not wanted). out:
 * the text after the step (NULL: only its length is wanted); origin: the origins of its bytes. changed:
 * CHANGES if the step changes anything, LOST if Hugging Face then no longer knows where the text starts. */
enum { CHANGES = 1, LOST = 2 };
typedef struct { Text in; const Origin *from; char *out; Origin *origin; int changed; } Pass;

/* Writes `made`, which replaces the `used` bytes at in[at], to out[n]; returns its length. */
static size_t put_step(Pass *w, size_t n, size_t at, size_t used, Text made) {
    int same = made.length == used && !memcmp(made.text, w->in.text + at, used);
    size_t i;
    if (!same) w->changed |= CHANGES;
    if (w->out && made.length) memcpy(w->out + n, made.text, made.length);
    if (w->origin && same) memcpy(w->origin + n, w->from + at, used * sizeof *w->origin);
    else if (w->origin)
        for (i = 0; i < made.length; i++) {
            w->origin[n + i].from = w->from[at].from;
            w->origin[n + i].to = w->from[at + used - 1].to;
        }
    return made.length;
}

/* Runs one step over w->in; returns the length of the result. */
static size_t run_step(const Tokenizer *t, const NormalStep *p, Pass *w) {
    const char *s = w->in.text;
    size_t at = 0, end = w->in.length, n = 0, i, used;
    Making k;
    k.inside = 0; k.searched = 0;
    w->changed = 0;
    if (p->kind == STEP_STRIP) {
        if (p->left) at = space_after(s, 0, end);
        if (p->right) end = space_before(s, at, end);
        w->changed = (end - at != w->in.length) | (at ? LOST : 0);
    }
    if (p->kind == STEP_PREPEND && end) {
        if (w->out) memcpy(w->out, p->content.text, p->content.length);
        n = p->content.length;
        w->changed = n > 0;
        for (i = 0; w->origin && i < n; i++) w->origin[i].from = w->origin[i].to = w->from[0].from;
    }
    for (; at < end; at += used) {
        used = 0;
        if (p->kind == STEP_REPLACE) {
            next_match(p, w->in, at, &k);
            used = k.from - at;
        } else if (!k.inside)
            while (at + used < end && step_keeps(t, p, s + at + used, end - at - used)) used++;
        k.made.text = s + at; k.made.length = used;
        if (!used) {
            used = step_prefix(t, p, s + at, end - at, &k);
            i = k.made.length == used && !memcmp(k.made.text, s + at, used);
            if (!i && !n && p->kind != STEP_RULES &&
                (!k.made.length || (p->kind == STEP_REPLACE && used > unigram_character(s + at, end - at))))
                w->changed |= LOST;
        }
        n += put_step(w, n, at, used, k.made);
    }
    if (w->origin) w->origin[n].from = w->origin[n].to = end ? w->from[end - 1].to : w->from[0].from;
    return n;
}

/* A step that changes nothing copies nothing. */
int run_steps(const Tokenizer *t, Text *text, Origin **origin, int *lost, Pool *pool) {
    NormalStep valid;
    int i;
    memset(&valid, 0, sizeof valid);
    *lost = 0;
    for (i = -1; i < t->pipeline.steps; i++) {
        const NormalStep *p = i < 0 ? &valid : &t->pipeline.step[i];
        Pass w = { *text, NULL, NULL, NULL, 0 };
        size_t n = run_step(t, p, &w);
        if (!w.changed) continue;
        if (w.changed & LOST) *lost = 1;
        w.from = *origin;
        w.out = n < INT_MAX / 8 ? pool_take(pool, n + 1, 1) : NULL;
        if (w.out && *origin) w.origin = pool_take(pool, n + 1, sizeof *w.origin);
        if (!w.out || (*origin && !w.origin)) return E_MEMORY;
        run_step(t, p, &w);
        text->text = w.out;
        text->length = n;
        *origin = w.origin;
    }
    return OK;
}
