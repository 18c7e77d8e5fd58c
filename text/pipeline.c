/* text/pipeline.c - the Unigram models of tokenizer.json (T5, ALBERT, XLM-R): normalises a text in steps,
 *          each over the whole text, cuts it into words, and finds the best segmentation of each word.
 * Source   Hugging Face's tokenizers (normalizers, Metaspace, unigram/model.rs), quirks included.
 * Needs    core.c, text/{unicode,pieces,added,normal,unigram,encoder,sentencepiece}.c.
 * Edges    an empty normal form, steps that remove the start of the text, several unknown pieces in a
 *          row (they become one), ties. NFKD and StripAccents of Hugging Face use an older Unicode,
 *          which lacks newer marks. */
#include "text.h"

/* ==============================================================================================
 * One step
 * ============================================================================================== */
enum { STEP_BYTES = 80 };                   /* the most bytes that a step makes of a character */

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

/* The result of a step at one place of a text. made: the new text, whose bytes may be in `small`;
 * inside: see apply_rules. */
typedef struct { size_t inside; Text made; char small[STEP_BYTES]; } Making;

/* Sets w->made to what a step makes of the start of s (n > 0 bytes); returns the number of bytes used. */
static size_t step_prefix(const Normal *m, const NormalStep *p, const char *s, size_t n, Making *w) {
    int32_t code, to[18];
    size_t used;
    int i, count = 1;
    if (p->kind == STEP_RULES) return apply_rules(m, s, n, &w->inside, &w->made);
    w->made = p->content;
    if (p->kind == STEP_REPLACE && starts_with(s, n, p->pattern.text, p->pattern.length))
        return p->pattern.length;
    if (p->kind == STEP_BLANKS && starts_with(s, n, "  ", 2)) {
        for (used = 2; used < n && s[used] == ' '; ) used++;
        return used;
    }
    used = (size_t)utf8_decode(s, n, &code);
    to[0] = code < 0 ? 0xFFFD : code;
    if (p->kind == STEP_LOWER) count = unicode_lower(to[0], to);
    else if (p->kind == STEP_ACCENTS) count = !unicode_is_accent(to[0]);
    else if (p->kind == STEP_COMPATIBLE || p->kind == STEP_BASE) {
        int bases = unicode_decompose(to[0], p->kind == STEP_COMPATIBLE, to);
        for (i = count = 0; i < bases; i++) if (!unicode_is_accent(to[i])) to[count++] = to[i];
    }
    w->made.text = w->small;
    for (i = 0, w->made.length = 0; i < count; i++)
        w->made.length += (size_t)utf8_encode(w->small + w->made.length, to[i]);
    return used;
}

/* Returns 1 if the step surely leaves s[0] (n > 0 bytes) as it is, whatever is before it. This holds
 * for most of a text. */
static inline int step_keeps(const Normal *m, const NormalStep *p, const char *s, size_t n) {
    unsigned char c = (unsigned char)*s;
    if (p->kind == STEP_REPLACE) return *s != *p->pattern.text;
    if (c >= 128) return 0;
    if (p->kind == STEP_BLANKS) return c != ' ' || n == 1 || s[1] != ' ';
    if (p->kind == STEP_LOWER) return c < 'A' || c > 'Z';
    if (p->kind == STEP_RULES) return m->plain[c] && (n == 1 || (unsigned char)s[1] < 128);
    return 1;
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
static size_t run_step(const Normal *m, const NormalStep *p, Pass *w) {
    const char *s = w->in.text;
    size_t at = 0, end = w->in.length, n = 0, i, used;
    Making k;
    k.inside = 0;
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
        for (used = 0; !k.inside && at + used < end && step_keeps(m, p, s + at + used, end - at - used); )
            used++;
        k.made.text = s + at; k.made.length = used;
        if (!used) {
            used = step_prefix(m, p, s + at, end - at, &k);
            i = k.made.length == used && !memcmp(k.made.text, s + at, used);
            if (!i && !n && p->kind != STEP_RULES &&
                (!k.made.length || used > unigram_character(s + at, end - at))) w->changed |= LOST;
        }
        n += put_step(w, n, at, used, k.made);
    }
    if (w->origin) w->origin[n].from = w->origin[n].to = end ? w->from[end - 1].to : w->from[0].from;
    return n;
}

/* Runs all steps over *text, which becomes the result, in pool. *origin: the origins of its bytes (NULL: not
 * wanted), which become those of the result. *lost: 1 if a step lost the start of the text. A step that
 * changes nothing copies nothing. OK or E_MEMORY. */
static int run_steps(const Tokenizer *t, Text *text, Origin **origin, int *lost, Pool *pool) {
    NormalStep valid;
    int i;
    memset(&valid, 0, sizeof valid);
    *lost = 0;
    for (i = -1; i < t->pipeline.steps; i++) {
        const NormalStep *p = i < 0 ? &valid : &t->pipeline.step[i];
        Pass w = { *text, NULL, NULL, NULL, 0 };
        size_t n = run_step(&t->normal, p, &w);
        if (!w.changed) continue;
        if (w.changed & LOST) *lost = 1;
        w.from = *origin;
        w.out = n < INT_MAX / 8 ? pool_take(pool, n + 1, 1) : NULL;
        if (w.out && *origin) w.origin = pool_take(pool, n + 1, sizeof *w.origin);
        if (!w.out || (*origin && !w.origin)) return E_MEMORY;
        run_step(&t->normal, p, &w);
        text->text = w.out;
        text->length = n;
        *origin = w.origin;
    }
    return OK;
}

static int normal_form(const Tokenizer *t, Text *text, Pool *pool) {
    Origin *none = NULL;
    int lost;
    return run_steps(t, text, &none, &lost, pool);
}

/* ==============================================================================================
 * Words, and their best segmentation
 * ============================================================================================== */

/* Appends piece id, which covers the bytes [at, at + n) of the normal form. If it is the unknown piece:
 * appends instead the piece that has just this text, if there is one, or else, with byte_fallback, the pieces
 * of the bytes, if each byte has one. */
static void put_unknown(Encoder *e, int id, size_t at, size_t n) {
    const Tokenizer *t = e->t;
    const char *s = e->scratch + at;
    int whole = id == t->special.unk ? table_find(&t->ordinary, s, n) : id;
    size_t i = 0;
    if (whole < 0 && t->sentencepiece.byte_fallback)
        while (i < n && t->byte_id[(unsigned char)s[i]] >= 0) i++;
    if (whole < 0 && i == n)
        for (i = 0; i < n; i++) put_one(e, t->byte_id[(unsigned char)s[i]], at + i, at + i + 1);
    else put_one(e, whole < 0 ? id : whole, at, at + n);
}

/* Encodes the word e->scratch[at .. at+n): reverses the links of the best path, then follows them. Several
 * unknown pieces in a row become one. OK or E_MEMORY. */
static int encode_exact(Encoder *e, size_t at, size_t n) {
    const Tokenizer *t = e->t;
    const char *s = e->scratch + at;
    size_t i, from, next;
    int id = table_find(&t->words, s, n);
    BestExact *best;
    if (id >= 0) { put_one(e, id, at, at + n); return OK; }
    if (exact_room(&e->paths, n, e->pool)) return E_MEMORY;
    best = e->paths.exact;
    unigram_best_exact(&t->unigram, s, n, best, -1);
    for (i = n, next = 0; i; next = i, i = from) {
        from = best[i].from;
        best[i].from = (uint32_t)next;
    }
    for (i = 0, from = next; from; ) {
        id = best[from].id;
        next = best[from].from;
        while (id == t->special.unk && next && best[next].id == id) { from = next; next = best[from].from; }
        put_unknown(e, id, at + i, from - i);
        i = from;
        from = next;
    }
    return OK;
}

/* Returns 1 if the piece is at least as good as its best segmentation into other pieces: of equal paths the
 * one with the whole piece is taken. */
static int is_word(Encoder *e, int id, Text *text, Pool *pool) {
    const Unigram *u = &e->t->unigram;
    (void)pool;
    if (exact_room(&e->paths, text->length, e->pool)) return 0;
    unigram_best_exact(u, text->text, text->length, e->paths.exact, id);
    return u->exact[id] >= e->paths.exact[text->length].score;
}

/* Writes a word as Metaspace does: U+2581 for each space, and one before the word if prefix is 1 and the word
 * has none there. Then encodes it; with split_blanks, each part that begins with a U+2581 separately. origin:
 * the origins of the bytes of the word (NULL: not wanted). */
static int encode_metaspace(Encoder *e, Text word, const Origin *origin, int prefix) {
    const Tokenizer *t = e->t;
    size_t n = 0, i, k, end;
    int code = OK;
    if (prefix && !starts_with(word.text, word.length, BLANK, BLANK_LENGTH) && *word.text != ' ') {
        memcpy(e->scratch, BLANK, BLANK_LENGTH);
        for (; n < BLANK_LENGTH; n++) if (origin) e->origin[n].from = e->origin[n].to = origin[0].from;
    }
    for (i = 0; i < word.length; i++) {
        size_t width = t->normal.escape_whitespaces && word.text[i] == ' ' ? BLANK_LENGTH : 1;
        if (width > 1) memcpy(e->scratch + n, BLANK, BLANK_LENGTH); else e->scratch[n] = word.text[i];
        for (k = 0; origin && k < width; k++) e->origin[n + k] = origin[i];
        n += width;
    }
    e->normal = n;
    if (origin) e->origin[n] = origin[word.length];
    for (i = 0; !code && i < n; i = end) {
        for (end = i + 1; end < n; end++)
            if (t->sentencepiece.split_blanks && starts_with(e->scratch + end, n - end, BLANK, BLANK_LENGTH))
                break;
        code = encode_exact(e, i, end - i);
    }
    return code;
}

/* Encodes a part of a normal form, which is between added tokens: word by word, or without split_words all of
 * it at once. first 1: the part is the start of the text. */
static int encode_part(Encoder *e, Text part, const Origin *origin, int first) {
    const Tokenizer *t = e->t;
    size_t at = 0, end, length;
    int prefix = t->normal.add_dummy_prefix && (first || !t->normal.only_first);
    int code = OK, words = t->pipeline.split_words;
    for (; !code && at < part.length; at = end) {
        Text word;
        if (words) at = space_after(part.text, at, part.length);
        end = words ? at : part.length;
        while (end < part.length && class_at(part.text + end, part.length - end, &length) != CHAR_SPACE)
            end += length;
        word.text = part.text + at; word.length = end - at;
        if (word.length) code = encode_metaspace(e, word, origin ? origin + at : NULL, prefix);
    }
    return code;
}

/* Bounds the number of ids by the number of bytes: each word may get a U+2581 before it, and each space
 * becomes a U+2581, which is three bytes. */
static int measure(Encoder *e, Text s) {
    PoolMark mark = pool_mark(e->pool);
    Origin *none = NULL;
    size_t i, n;
    int lost;
    if (run_steps(e->t, &s, &none, &lost, e->pool)) return E_MEMORY;
    n = s.length + BLANK_LENGTH;
    for (i = 0; i < s.length; i++)
        if ((unsigned char)s.text[i] <= ' ' || (unsigned char)s.text[i] >= 128) n += BLANK_LENGTH;
    e->bound += n;
    if (n > e->widest) e->widest = n;
    pool_release(e->pool, mark);
    return OK;
}

/* Encodes the normal form of s, and the added tokens that are found in it. */
static int encode(Encoder *e, Text s) {
    size_t i, from = (size_t)(s.text - e->start);
    int first = e->first && s.text == e->start, lost, id, code;
    Origin *origin = NULL;
    Parts parts;
    Text part;
    if (e->span) {
        origin = pool_take(e->pool, s.length + 1, sizeof *origin);
        if (!origin) return E_MEMORY;
        for (i = 0; i <= s.length; i++) {
            origin[i].from = from + i;
            origin[i].to = from + i + (i < s.length);
        }
    }
    code = run_steps(e->t, &s, &origin, &lost, e->pool);
    if (code) return code;
    begin_parts(&parts, e->t, e->plain ? NULL : &e->t->cut[1], s);
    while (!code && next_part(&parts, &part, &id)) {
        size_t at = (size_t)(part.text - s.text);
        if (id < 0) code = encode_part(e, part, origin ? origin + at : NULL, first && !at && !lost);
        else {
            if (origin) {
                TokenSpan *span = &e->span[e->count];
                span->from = origin[at].from;
                span->to = origin[parts.at - 1].to;
                span->exact = 1;
            }
            e->ids[e->count++] = id;
        }
    }
    return code;
}

static const char *class_name(const Tokenizer *t) { (void)t; return "PreTrainedTokenizerFast"; }

const TokenizerKind pipeline_kind = {
    TOKENIZER_SENTENCEPIECE, measure, encode, NULL, decode_joined, is_word, normal_form, class_name, NULL
};
