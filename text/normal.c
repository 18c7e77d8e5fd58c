/* text/normal.c - writes SentencePiece's normal form of a text (rules, spaces, the dummy prefix), and the
 *          origin of each of its bytes.
 * Source   sentencepiece's normalizer.cc; the rules (precompiled_charsmap) are a double array of darts-clone.
 * Needs    core.c, text/pieces.c, text/encoder.c.
 * Never    writes more than normal_bound() bytes.
 * Edges    malformed UTF-8 (each byte becomes U+FFFD), rules that give a wrong size, a text
 *          of white space alone. */
#include "text.h"

/* ==============================================================================================
 * Rules
 * ============================================================================================== */

/* Reads the size in bytes of the double array (u32), the double array, and the replacements, each
 * with a NUL after it. */
int normal_rules(Normal *m, Text table, const char *where, Error *err) {
    Reader r;
    uint32_t bytes;
    if (!table.length) return OK;
    r.at = (const unsigned char *)table.text; r.end = r.at + table.length; r.bad = 0;
    bytes = read_u32(&r);
    m->trie = read_bytes(&r, bytes);
    if (r.bad || bytes < 4 || bytes % 4 || r.at == r.end || r.end[-1] != 0)
        return fail(err, E_FORMAT, "broken precompiled_charsmap", where, 0, 0);
    m->trie_units = bytes / 4;
    m->replacement = (const char *)r.at;
    m->replacement_bytes = (size_t)(r.end - r.at);
    return OK;
}

static uint32_t unit_at(const Normal *m, size_t i) {
    const unsigned char *p = m->trie + 4 * i;
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static size_t offset_of(uint32_t unit) { return (size_t)(unit >> 10) << ((unit & 0x200) >> 6); }

size_t rule_prefix(const Normal *m, const char *s, size_t n, int shortest, Text *out) {
    size_t at, i, found = 0;
    if (!m->trie_units) return 0;
    at = offset_of(unit_at(m, 0));
    for (i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        uint32_t unit;
        at ^= c;
        if (at >= m->trie_units) break;
        unit = unit_at(m, at);
        if ((unit & 0x800000FFu) != c) break;
        at ^= offset_of(unit);
        if (at >= m->trie_units) break;
        if (unit & 0x100) {                 /* a key ends here; its value is the child for label 0 */
            size_t v = unit_at(m, at) & 0x7FFFFFFF;
            if (v < m->replacement_bytes) { found = i + 1; out->text = m->replacement + v; }
            if (shortest) break;
        }
    }
    if (found) out->length = strlen(out->text);         /* normal_rules() checked that the last byte is NUL */
    return found;
}

/* Returns 1 if the text that some rule replaces may begin with s (n > 0 bytes). */
static int may_begin(const Normal *m, const char *s, size_t n) {
    size_t at, i;
    if (!m->trie_units) return 0;
    at = offset_of(unit_at(m, 0));
    for (i = 0; i < n; i++) {
        uint32_t unit;
        at ^= (unsigned char)s[i];
        if (at >= m->trie_units) return 0;
        unit = unit_at(m, at);
        if ((unit & 0x800000FFu) != (unsigned char)s[i]) return 0;
        at ^= offset_of(unit);
    }
    return 1;
}

size_t user_prefix(const Normal *m, const char *s, size_t n) {
    int which;
    return m->users ? longest_prefix(m->user, m->users, s, n, &which) : 0;
}

/* Finds the ASCII characters that no rule changes if another ASCII character follows, as in most of a text.
 * Before a character beyond ASCII they are not safe: a rule may replace both (a letter and its accent). */
void normal_plain(Normal *m) {
    int a, b;
    for (a = 0; a < 128; a++) {
        char s[2];
        Text made;
        s[0] = (char)a;
        m->plain[a] = rule_prefix(m, s, 1, 0, &made) == 0;
        for (b = 0; b < 128 && m->plain[a]; b++) {
            s[1] = (char)b;
            if (may_begin(m, s, 2)) m->plain[a] = 0;
        }
        for (b = 0; b < m->users; b++) if (m->user[b].text[0] == a) m->plain[a] = 0;
    }
}

/* Sets *out to what the start of s (n > 0 bytes) becomes. A user-defined piece stays as it is; else a
 * rule replaces it; else one character stays as it is, or a malformed byte becomes U+FFFD. Returns the
 * number of bytes used. */
static size_t normal_prefix(const Normal *m, const char *s, size_t n, Text *out) {
    int32_t code;
    size_t length = user_prefix(m, s, n);
    out->text = s;
    out->length = length;
    if (length) return length;
    length = rule_prefix(m, s, n, 0, out);
    if (length) return length;
    length = (size_t)utf8_decode(s, n, &code);
    out->length = length;
    if (code < 0) { out->text = BAD_CHARACTER; out->length = 3; }
    return length;
}

/* ==============================================================================================
 * The whole text
 * ============================================================================================== */
int wants_prefix(const Normal *m, Text s, int first) {
    if (!m->add_dummy_prefix || (m->only_first && !first)) return 0;
    return !m->unless_blank || !(starts_with(s.text, s.length, " ", 1) ||
                                 starts_with(s.text, s.length, BLANK, BLANK_LENGTH));
}

/* A normal form that is being written. out NULL: only its length is counted. space: the `width` bytes that
 * are written for a space. remove 1: extra spaces are removed; after_space 1: the next space is extra. */
typedef struct { char *out; size_t length, width; const char *space; int after_space, remove; } Form;

static void put_space(Form *f) {
    if (f->out) memcpy(f->out + f->length, f->space, f->width);
    f->length += f->width;
}

/* Appends p, the text that some characters became, with f->space for each space. */
static void put_made(Form *f, Text p) {
    size_t i;
    while (f->after_space && p.length && p.text[0] == ' ') { p.text++; p.length--; }
    for (i = 0; i < p.length; i++)
        if (p.text[i] == ' ') put_space(f);
        else {
            if (f->out) f->out[f->length] = p.text[i];
            f->length++;
        }
    if (p.length) f->after_space = f->remove && p.text[p.length - 1] == ' ';
}

/* Appends the normal form of the text from s.text[at] on, and its origins (origin NULL: not wanted). */
static void put_body(const Normal *m, Form *f, Text s, size_t at, Origin *origin) {
    Text p;
    while (at < s.length) {
        unsigned char c = (unsigned char)s.text[at];
        Source from = { s.text, at, 0 };
        size_t before = f->length;
        int plain = c < 128 && m->plain[c] && (at + 1 == s.length || (unsigned char)s.text[at + 1] < 128);
        if (plain && !origin) {
            at++;
            if (c != ' ') {
                if (f->out) f->out[f->length] = (char)c;
                f->length++;
                f->after_space = 0;
            } else if (!f->after_space) {
                put_space(f);
                f->after_space = f->remove;
            }
            continue;
        }
        from.used = normal_prefix(m, s.text + at, s.length - at, &p);
        put_made(f, p);
        if (origin) put_origin(origin, f->out, before, f->length, from);
        at += from.used;
    }
}

size_t normalise(const Normal *m, Text s, int prefix, char *out, Origin *origin) {
    Form f = { out, 0, 1, " ", m->remove_extra_whitespaces, m->remove_extra_whitespaces };
    Source nothing = { s.text, 0, 0 };
    Text p;
    if (m->escape_whitespaces) { f.space = BLANK; f.width = BLANK_LENGTH; }
    while (f.remove && nothing.at < s.length) {
        size_t used = normal_prefix(m, s.text + nothing.at, s.length - nothing.at, &p);
        if (p.length != 1 || p.text[0] != ' ') break;
        nothing.at += used;
    }
    if (nothing.at == s.length) return 0;
    if (prefix && !m->whitespace_suffix) put_space(&f);
    if (origin) put_origin(origin, out, 0, f.length, nothing);
    put_body(m, &f, s, nothing.at, origin);
    if (f.remove && out)
        while (f.length >= f.width && !memcmp(out + f.length - f.width, f.space, f.width))
            f.length -= f.width;
    if (prefix && m->whitespace_suffix) {
        put_space(&f);
        nothing.at = s.length;
        if (origin) put_origin(origin, out, f.length - f.width, f.length, nothing);
    }
    return f.length;
}

size_t normal_bound(const Normal *m, Text s) {
    size_t i, wide = 0;
    if (m->trie_units) return normalise(m, s, 1, NULL, NULL);
    for (i = 0; i < s.length; i++) wide += s.text[i] == ' ' || (unsigned char)s.text[i] >= 128;
    return s.length + 2 * wide + BLANK_LENGTH;          /* a space or a malformed byte becomes three bytes */
}
