/* constitution.c - Constitutional AI (Bai et al. 2022, arXiv 2212.08073): the file with the principles, the
 * texts that a policy reads, and the preference between two answers.
 *
 * File         data/constitution.txt explains the format at its top. Every byte is checked; a message names
 *              the line.
 * Orders       A policy that has to choose (A) or (B) leans to one of the letters. So it is asked twice, with
 *              the answers in both orders, and the two probabilities are averaged (Lee et al. 2023, "RLAIF",
 *              arXiv 2309.00267, section 2.1). */
#include "programs.h"
#include <stdio.h>

enum { KEYS = 4 };
static const struct { const char *name, *key[KEYS]; } form[CONSTITUTION_KINDS] = {
    { "principle", { "critique", "revision", "preference", NULL } },
    { "example", { "prompt", "response", "critique", "revision" } },
    { "choice", { "prompt", "a", "b", "answer" } } };

/* The file as it is read: the entry in progress, of this kind (-1: none yet), and the text that a line which
 * begins with a space goes on with. */
typedef struct {
    Constitution *c; const char *path; long long line;
    Pool *pool; Error *err;
    int kind; Entry *entry; const char **text;
    Entry *first[CONSTITUTION_KINDS], **end[CONSTITUTION_KINDS];
} Parse;

static int bad_line(Parse *p, long long line, const char *what, const char *advice) {
    char where[200];
    snprintf(where, sizeof where, "%.150s, line %lld", p->path, line);
    fail(p->err, E_FORMAT, what, where, 0, 0);
    advise(p->err, advice);
    return E_FORMAT;
}

/* Checks n bytes of a line: valid UTF-8 without control characters but tabs. OK or E_FORMAT. */
static int check_bytes(Parse *p, const char *s, size_t n) {
    for (size_t i = 0; i < n; ) {
        int32_t code;
        i += (size_t)utf8_decode(s + i, n - i, &code);
        if (code < 0) return bad_line(p, p->line, "not valid UTF-8", "save the file as UTF-8");
        if ((code < ' ' && code != '\t') || code == 0x7F)
            return bad_line(p, p->line, "a control character", "remove it");
    }
    return OK;
}

static void trim(const char **s, size_t *n) {
    while (*n && strchr(" \t", (*s)[*n - 1])) --*n;
    while (*n && strchr(" \t", **s)) { ++*s; --*n; }
}

/* Checks that the entry in progress has all its texts. */
static int end_entry(Parse *p) {
    char what[100];
    for (int k = 0; p->kind >= 0 && k < KEYS; k++) {
        if (!form[p->kind].key[k]) continue;
        snprintf(what, sizeof what, "this %s has no `%s:`", form[p->kind].name, form[p->kind].key[k]);
        if (!p->entry->text[k])
            return bad_line(p, p->entry->line, what, "add the line; data/constitution.txt shows the form");
    }
    if (p->kind == CHOICE && strcmp(p->entry->text[CHOICE_ANSWER], "A")
        && strcmp(p->entry->text[CHOICE_ANSWER], "B"))
        return bad_line(p, p->entry->line, "the answer of this choice is neither A nor B", "answer: A");
    return OK;
}

/* Begins a new entry. */
static int begin_entry(Parse *p, int kind, const char *name) {
    int code = end_entry(p);
    if (code) return code;
    Entry *e = pool_take(p->pool, 1, sizeof *e);
    if (!e) return fail(p->err, E_MEMORY, "out of memory", p->path, 0, 0);
    for (const Entry *other = p->first[PRINCIPLE]; kind == PRINCIPLE && other; other = other->next)
        if (!strcmp(other->name, name))
            return bad_line(p, p->line, "an earlier principle has this name", "give each one its own");
    e->name = name;
    e->line = p->line;
    *p->end[kind] = e;
    p->end[kind] = &e->next;
    p->c->count[kind]++;
    p->kind = kind;
    p->entry = e;
    p->text = NULL;
    return OK;
}

/* Appends n bytes to the text in progress, after a space. */
static int continue_text(Parse *p, const char *s, size_t n) {
    if (!p->text)
        return bad_line(p, p->line, "a line that begins with a space goes on with a text, but there is none",
                        "begin the line with `critique:` or another key");
    const size_t before = strlen(*p->text);
    char *joined = pool_take(p->pool, before + n + 2, 1);
    if (!joined) return fail(p->err, E_MEMORY, "out of memory", p->path, 0, 0);
    memcpy(joined, *p->text, before);
    joined[before] = ' ';
    memcpy(joined + before + 1, s, n);
    *p->text = joined;
    return OK;
}

/* Reads a line `key: text`. */
static int read_key(Parse *p, const char *s, size_t n) {
    const char *colon = memchr(s, ':', n), *value = colon ? colon + 1 : NULL;
    size_t key = colon ? (size_t)(colon - s) : 0, length = colon ? n - key - 1 : 0;
    if (!colon) return bad_line(p, p->line, "no colon after a key", "`critique: text`, or `#` for a comment");
    trim(&value, &length);
    if (!length) return bad_line(p, p->line, "no text after the colon", "write the text on the same line");
    const char *text = pool_text(p->pool, value, length);
    if (!text) return fail(p->err, E_MEMORY, "out of memory", p->path, 0, 0);
    for (int kind = 0; kind < CONSTITUTION_KINDS; kind++)
        if (strlen(form[kind].name) == key && !memcmp(form[kind].name, s, key))
            return begin_entry(p, kind, text);
    if (p->kind < 0)
        return bad_line(p, p->line, "a key before the first entry", "begin with `principle: NAME`");
    for (int k = 0; k < KEYS; k++) {
        const char *name = form[p->kind].key[k];
        if (!name || strlen(name) != key || memcmp(name, s, key)) continue;
        if (p->entry->text[k])
            return bad_line(p, p->line, "a second text for the same key",
                            "a longer text goes on in lines that begin with a space");
        p->text = &p->entry->text[k];
        *p->text = text;
        return OK;
    }
    return bad_line(p, p->line, "no such key in this kind of entry",
                    p->kind == PRINCIPLE ? "a principle has critique, revision, preference" :
                    p->kind == EXAMPLE ? "an example has prompt, response, critique, revision"
                                       : "a choice has prompt, a, b, answer");
}

/* Turns the lists into arrays, and finds the principle of each example and choice. */
static int end_file(Parse *p) {
    Constitution *c = p->c;
    int code = end_entry(p);
    if (code) return code;
    if (!c->count[PRINCIPLE]) {
        fail(p->err, E_MISSING, "no principle", p->path, 0, 0);
        advise(p->err, "a constitution in the form of data/constitution.txt");
        return E_MISSING;
    }
    for (int kind = 0; kind < CONSTITUTION_KINDS; kind++) {
        c->entry[kind] = pool_take(p->pool, (size_t)c->count[kind] + 1, sizeof(Entry));
        if (!c->entry[kind]) return fail(p->err, E_MEMORY, "out of memory", p->path, 0, 0);
        int i = 0;
        for (const Entry *e = p->first[kind]; e; e = e->next) c->entry[kind][i++] = *e;
        for (i = 0; i < c->count[kind]; i++) {
            Entry *e = &c->entry[kind][i];
            for (int k = 0; k < c->count[PRINCIPLE] && !e->principle; k++)
                if (!strcmp(c->entry[PRINCIPLE][k].name, e->name)) e->principle = &c->entry[PRINCIPLE][k];
            if (!e->principle)
                return bad_line(p, e->line, "no principle has the name after this colon",
                                "examples and choices begin with the name of a principle of the file");
        }
    }
    return OK;
}

int constitution_parse(Constitution *c, const char *text, size_t n, const char *path, Pool *pool,
                       Error *err) {
    Parse p = { .c = c, .path = path, .pool = pool, .err = err, .kind = -1 };
    int code = OK;
    memset(c, 0, sizeof *c);
    for (int k = 0; k < CONSTITUTION_KINDS; k++) p.end[k] = &p.first[k];
    for (size_t at = 0; at < n && !code; ) {
        const char *s = text + at, *end = memchr(s, '\n', n - at);
        size_t length = end ? (size_t)(end - s) : n - at;
        at += length + 1;
        p.line++;
        if (length && s[length - 1] == '\r') length--;
        if ((code = check_bytes(&p, s, length)) != OK) break;
        const int goes_on = length && strchr(" \t", s[0]);
        if (!goes_on && length && s[0] == '#') continue;
        trim(&s, &length);
        if (length) code = goes_on ? continue_text(&p, s, length) : read_key(&p, s, length);
    }
    return code ? code : end_file(&p);
}

int constitution_read(Constitution *c, const char *path, Pool *pool, Error *err) {
    char *text;
    size_t n;
    int code = text_read_all(path, pool, &text, &n, err);
    return code ? code : constitution_parse(c, text, n, path, pool, err);
}

const Entry *constitution_draw(const Constitution *c, uint64_t seed, uint64_t index, uint64_t round) {
    Rng rng = rng_stream(seed ^ 0x636f6e7374697475u, index, round);
    return &c->entry[PRINCIPLE][rng_below(&rng, (uint64_t)c->count[PRINCIPLE])];
}

/* ---- the texts that a policy reads ---- */

static const char white[] = " \t\r\n";
static const char *const speaker[] = { "Human:", "Assistant:", "CritiqueRequest:", "Critique:",
                                       "RevisionRequest:", "Revision:" };

/* Appends the beginning of a message, up to its text. by_policy 1: the policy is to write the text. label:
 * its name where there is no template. */
static void open_turn(Buffer *b, const ChatTemplate *how, int by_policy, const char *label) {
    if (how->begin) buffer_text(b, how->begin);
    buffer_text(b, how->before);
    buffer_text(b, how->end ? by_policy ? "assistant" : "user" : label);
    buffer_text(b, how->end ? how->after : ":");
}

void constitution_answer(Buffer *b, const ChatTemplate *how, const char *text, size_t n) {
    if (!how->end) buffer_text(b, " ");
    buffer_bytes(b, text, n);
    if (!how->end) return;
    buffer_text(b, how->end);
    buffer_text(b, "\n");
}

/* Appends a message. */
static void add_turn(Buffer *b, const ChatTemplate *how, int by_policy, const char *label, const char *text,
                     size_t n) {
    open_turn(b, how, by_policy, label);
    constitution_answer(b, how, text, n);
    if (!how->end) buffer_text(b, "\n\n");
}

/* Appends the rest of a message that open_turn began, and a blank line where there is no template. */
static void end_turn(Buffer *b, const ChatTemplate *how, const char *text) {
    constitution_answer(b, how, text, strlen(text));
    if (!how->end) buffer_text(b, "\n\n");
}

void constitution_ask(Buffer *b, const ChatTemplate *how, const char *prompt, size_t n) {
    Buffer turn = { b->pool, NULL, 0, 0, 0 };
    open_turn(&turn, how, 1, "Assistant");
    size_t t = turn.length;
    if (turn.failed) { b->failed = 1; return; }
    while (n && strchr(white, prompt[n - 1])) n--;
    while (n && strchr(white, *prompt)) { prompt++; n--; }
    while (strchr(white, turn.data[t - 1])) t--;
    if (n >= t && !memcmp(prompt + n - t, turn.data, t)) buffer_bytes(b, prompt, n - t);
    else add_turn(b, how, 0, "Human", prompt, n);
    buffer_bytes(b, turn.data, turn.length);
}

/* Appends a critique in progress: up to the place of the critique, or if that is there, of the revision. */
static void add_steps(Buffer *b, const ChatTemplate *how, const char *response, const Entry *principle,
                      const char *critique) {
    const char *asks = principle->text[PRINCIPLE_CRITIQUE], *wants = principle->text[PRINCIPLE_REVISION];
    end_turn(b, how, response);
    add_turn(b, how, 0, "CritiqueRequest", asks, strlen(asks));
    open_turn(b, how, 1, "Critique");
    if (!critique) return;
    end_turn(b, how, critique);
    add_turn(b, how, 0, "RevisionRequest", wants, strlen(wants));
    open_turn(b, how, 1, "Revision");
}

void constitution_critique(Buffer *b, const Constitution *c, int shots, const char *ask, const char *response,
                           const Entry *principle, const char *critique) {
    for (int i = 0; i < shots && i < c->count[EXAMPLE]; i++) {
        const Entry *e = &c->entry[EXAMPLE][i];
        constitution_ask(b, c->how, e->text[SHOT_PROMPT], strlen(e->text[SHOT_PROMPT]));
        add_steps(b, c->how, e->text[SHOT_RESPONSE], e->principle, e->text[SHOT_CRITIQUE]);
        end_turn(b, c->how, e->text[SHOT_REVISION]);
    }
    buffer_text(b, ask);
    add_steps(b, c->how, response, principle, critique);
}

/* Appends a question up to the place of its answer. */
static void add_choice(Buffer *b, const Constitution *c, const char *prompt, const Entry *principle,
                       const char *first, const char *second) {
    static const ChatTemplate plain = { NULL, "", "", NULL };
    Buffer q = { b->pool, NULL, 0, 0, 0 };
    buffer_text(&q, "Consider the following conversation between a human and an assistant:\n\n");
    constitution_ask(&q, &plain, prompt, strlen(prompt));
    buffer_text(&q, "\n\n");
    buffer_text(&q, principle->text[PRINCIPLE_PREFERENCE]);
    buffer_text(&q, "\n\nOptions:\n(A) ");
    buffer_text(&q, first);
    buffer_text(&q, "\n(B) ");
    buffer_text(&q, second);
    buffer_text(&q, "\n\nThe answer is:");
    if (q.failed) b->failed = 1;
    else if (!c->how->end) buffer_bytes(b, q.data, q.length);
    else {
        add_turn(b, c->how, 0, "", (const char *)q.data, q.length);
        open_turn(b, c->how, 1, "");
    }
}

void constitution_choice(Buffer *b, const Constitution *c, int shots, const char *prompt,
                         const Entry *principle, const char *first, const char *second) {
    for (int i = 0; i < shots && i < c->count[CHOICE]; i++) {
        const Entry *e = &c->entry[CHOICE][i];
        const char letter[] = { '(', *e->text[CHOICE_ANSWER], ')', 0 };
        add_choice(b, c, e->text[CHOICE_PROMPT], e->principle, e->text[CHOICE_A], e->text[CHOICE_B]);
        end_turn(b, c->how, letter);
    }
    add_choice(b, c, prompt, principle, first, second);
}

int constitution_next_turn(const char *text, size_t n, size_t *length) {
    int found = 0;
    *length = n;
    for (size_t i = 0; i < n && !found; i++) {
        if (i && text[i - 1] != '\n') continue;
        for (size_t k = 0; k < sizeof speaker / sizeof *speaker && i; k++) {
            const size_t m = strlen(speaker[k]);
            if (n - i < m || memcmp(text + i, speaker[k], m)) continue;
            *length = i;
            found = 1;
            break;
        }
    }
    while (*length && strchr(white, text[*length - 1])) --*length;
    return found;
}

/* ---- the preference ---- */

double preference_of(double own, double other) { return 1 / (1 + exp(other - own)); }

double preference_mean(const double p[2]) { return (p[0] + p[1]) / 2; }

double preference_clamp(double p, double least) {
    return p < least ? least : p > 1 - least ? 1 - least : p;
}
