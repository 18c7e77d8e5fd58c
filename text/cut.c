/* text/cut.c - the pre-tokenizers of tokenizer.json: cut a normal form into words, step by step.
 * Source   Hugging Face's tokenizers (pre_tokenizers, NormalizedString::split), quirks included.
 * Needs    core.c, text/{unicode,pieces,regex,bytelevel}.c.
 * Edges    patterns that match no characters (they cut there), words that a step removes, a space that a step
 *          puts before each word (it comes from no byte of the text). */
#include "text.h"

/* The words that a step makes of one word, which begin at word[begin]. last: whether the part before was a
 * match; waiting 1: the match `next` waits for the part after it. failed 1: memory was out. */
typedef struct {
    WordAt *word; size_t n, room, begin;
    Pool *pool;
    int behavior, last, waiting, failed;
    WordAt next;
} Cutting;

static void put_word(Cutting *c, size_t from, size_t to) {
    if (c->n == c->room) {
        size_t room = c->room ? 2 * c->room : 64;
        WordAt *more = pool_take(c->pool, room, sizeof *more);
        if (!more) { c->failed = 1; return; }
        if (c->n) memcpy(more, c->word, c->n * sizeof *more);
        c->word = more;
        c->room = room;
    }
    c->word[c->n].from = from;
    c->word[c->n++].to = to;
}

/* Takes the next part of a word: a match, or what is between two matches. */
static void put_part(Cutting *c, size_t from, size_t to, int match) {
    int some = c->n > c->begin, joined = 0;
    switch (c->behavior) {
    case CUT_REMOVED: joined = match; break;
    case CUT_CONTIGUOUS:
    case CUT_WITH_PREVIOUS:
        joined = some && (c->behavior == CUT_CONTIGUOUS ? match == c->last : match && !c->last);
        if (joined) c->word[c->n - 1].to = to;
        break;
    case CUT_WITH_NEXT:
        if (c->waiting && match) put_word(c, c->next.from, c->next.to);
        else if (c->waiting) from = c->next.from;
        joined = c->waiting = match;
        c->next.from = from;
        c->next.to = to;
    }
    if (!joined) put_word(c, from, to);
    c->last = match;
}

/* Ends the parts of one word, and drops the empty ones. */
static void end_parts(Cutting *c) {
    size_t i, n = c->begin;
    if (c->waiting) put_word(c, c->next.from, c->next.to);
    for (i = c->begin; i < c->n; i++) if (c->word[i].to > c->word[i].from) c->word[n++] = c->word[i];
    c->n = c->begin = n;
    c->last = c->waiting = 0;
}

/* Cuts the word [from, to) of a text at the matches of a pattern. As in Oniguruma's iterator, a match without
 * characters just after another match does not count. */
static void cut_pattern(Cutting *c, const CutStep *p, const char *text, WordAt w) {
    Text s = { text + w.from, w.to - w.from };
    size_t at = 0, done = 0, from, to;
    int some = 0;
    while (at <= s.length && regex_find(&p->regex, s, at, &from, &to)) {
        at = to;
        if (from == to && some && from == done) {
            at += from < s.length ? unigram_character(s.text + from, s.length - from) : 1;
            continue;
        }
        if (from > done) put_part(c, w.from + done, w.from + from, p->invert);
        put_part(c, w.from + from, w.from + to, !p->invert);
        done = to;
        some = 1;
    }
    if (done < s.length) put_part(c, w.from + done, w.to, p->invert);
}

/* Cuts a word at the characters of a class; each of them is a match. */
static void cut_class(Cutting *c, const CutStep *p, const char *text, WordAt w) {
    size_t at, done = w.from, length;
    for (at = w.from; at < w.to; at += length) {
        int32_t code;
        length = (size_t)utf8_decode(text + at, w.to - at, &code);
        if (!p->in(code)) continue;
        if (at > done) put_part(c, done, at, 0);
        put_part(c, at, at + length, 1);
        done = at + length;
    }
    if (w.to > done) put_part(c, done, w.to, 0);
}

static int cut_step(const CutStep *p, Words *w, Pool *pool) {
    Cutting c;
    size_t i, at;
    memset(&c, 0, sizeof c);
    c.pool = pool;
    c.behavior = p->behavior;
    for (i = 0; i < w->words && !c.failed; i++) {
        WordAt one = w->word[i];
        if (p->kind == CUT_PATTERN) cut_pattern(&c, p, w->text.text, one);
        else if (p->kind == CUT_CLASS) cut_class(&c, p, w->text.text, one);
        else
            for (at = one.from; at < one.to; at = c.word[c.n - 1].to) {
                put_word(&c, at, at + bytelevel_word(w->text.text + at, one.to - at));
                if (c.failed) break;
            }
        end_parts(&c);
    }
    w->word = c.word;
    w->words = c.n;
    return c.failed ? E_MEMORY : OK;
}

/* A text that is being written anew. out NULL: only its length is counted. */
typedef struct { char *out; Origin *origin; size_t n; } Copy;

/* Appends bytes that come from `origin` (NULL: not wanted). */
static void put_copy(Copy *c, Text s, const Origin *origin) {
    size_t i;
    if (c->out) memcpy(c->out + c->n, s.text, s.length);
    for (i = 0; c->origin && i < s.length; i++) c->origin[c->n + i] = *origin;
    c->n += s.length;
}

/* Copies a word, with p->text before it (unless it begins with p->text, or its space becomes one), and, for
 * CUT_METASPACE, with p->text for each space. */
static void copy_word(const CutStep *p, const Words *w, size_t i, Copy *c) {
    const char *s = w->text.text;
    size_t at = w->word[i].from, to = w->word[i].to;
    int metaspace = p->kind == CUT_METASPACE;
    int there = starts_with(s + at, to - at, p->text.text, p->text.length) || (metaspace && s[at] == ' ');
    int wanted = p->scheme == PREPEND_ALWAYS || (p->scheme == PREPEND_FIRST && w->first && !at);
    if (wanted && !there) {
        Origin none = { 0, 0 };
        if (w->origin) none.from = none.to = w->origin[at].from;
        put_copy(c, p->text, &none);
    }
    for (; at < to; at++) {
        Text one = { s + at, 1 };
        put_copy(c, metaspace && s[at] == ' ' ? p->text : one, w->origin ? w->origin + at : NULL);
    }
}

/* Does CUT_PREFIX or CUT_METASPACE. OK or E_MEMORY. */
static int copy_step(const CutStep *p, Words *w, Pool *pool) {
    Copy c = { NULL, NULL, 0 };
    WordAt *word = pool_take(pool, w->words + 1, sizeof *word);
    size_t i;
    for (i = 0; i < w->words; i++) copy_word(p, w, i, &c);
    c.out = c.n < INT_MAX / 8 ? pool_take(pool, c.n + 1, 1) : NULL;
    if (w->origin) c.origin = pool_take(pool, c.n + 1, sizeof *c.origin);
    if (!word || !c.out || (w->origin && !c.origin)) return E_MEMORY;
    for (i = c.n = 0; i < w->words; i++) {
        word[i].from = c.n;
        copy_word(p, w, i, &c);
        word[i].to = c.n;
    }
    if (w->origin) c.origin[c.n] = w->origin[w->text.length];
    w->text.text = c.out;
    w->text.length = c.n;
    w->origin = c.origin;
    w->word = word;
    return OK;
}

int cut_text(const Pipeline *p, Words *w, Pool *pool) {
    int i, code = OK;
    w->word = pool_take(pool, 1, sizeof *w->word);
    if (!w->word) return E_MEMORY;
    w->word[0].to = w->text.length;
    w->words = w->text.length > 0;
    for (i = 0; i < p->cuts && !code; i++) {
        const CutStep *step = &p->cut[i];
        int copies = step->kind == CUT_PREFIX || step->kind == CUT_METASPACE;
        code = copies ? copy_step(step, w, pool) : cut_step(step, w, pool);
    }
    return code;
}

/* The first step sees one word. Later ones see at most as many words as bytes, and may put a prefix before
 * each of them. */
size_t cut_bound(const Pipeline *p, Text s) {
    size_t n = s.length, k, spaces = 0;
    int i;
    for (k = 0; k < s.length; k++) spaces += s.text[k] == ' ';
    for (i = 0; i < p->cuts; i++) {
        const CutStep *step = &p->cut[i];
        size_t length = step->text.length;
        if (step->kind != CUT_PREFIX && step->kind != CUT_METASPACE) continue;
        if (n > INT_MAX / 64) return INT_MAX;
        if (step->kind == CUT_METASPACE) n += (i ? n : spaces) * (length - 1);
        n += (i ? n : 1) * length;
    }
    return n;
}
