/* prep_grammar.c - prep grammar: expands a grammar into a labelled dataset.
 *
 * Grammar      Weighted context-free rules, each with a good and a bad sense; data/grammar.txt explains the
 *              notation at its top. Document i is drawn from the stream (seed, 0, i); a document that is too
 *              short, too long, or equal to an earlier one is drawn again from the same stream. */
#include "prep.h"
#include <stdio.h>

/* A parsed grammar: a rule is a list of alternatives, and an alternative a list of items. An item is a piece
 * of text or a reference to a rule. A group in brackets is a rule without a name. */
enum { ITEM_TEXT, ITEM_RULE, ITEM_ARGUMENT };                   /* ITEM_ARGUMENT: {*} */
enum { SAME, OPPOSITE, COIN };                                  /* the sense of x in {x}, {!x}, {?x} */
enum { DEPTH_MAX = 64, MEMORY_MAX = 64, TRIES_MAX = 1000, USED_TRIES = 8, PLAIN_MIN = 8 };
typedef struct Rule Rule;
typedef struct Item Item;
typedef struct Alternative Alternative;
struct Item {
    int type, turn;                         /* type: ITEM_TEXT ...; turn: SAME, OPPOSITE or COIN */
    const char *text; size_t length;
    Rule *rule, *argument;
    const char *tag;
    Item *next;
};
/* sense: 1 good, -1 bad, 0 both. used: number of the last document that used this alternative. */
struct Alternative { int sense; uint64_t weight, used; Item *first; Alternative *next; };
struct Rule {
    const char *name; size_t length; long long line;            /* line: where the name first occurs */
    Alternative *first; int alternatives;
    int plain, once;                        /* plain: no alternative has a reference; once: `name once:` */
    uint64_t total[2];                      /* sum of the weights that fit a good [0] and a bad [1] sense */
    Rule *next;
};
/* The text that was drawn for {x#1}: the `length` bytes of Grammar.kept from `at` on. */
typedef struct { const Rule *rule; const char *tag; size_t at, length; } Memory;
typedef struct {
    const char *path;
    Rule *rules, *start;
    long long words_min, words_max;
    double noise;
    /* about the document in progress; document: its number */
    Rng rng;
    uint64_t document;
    Memory memory[MEMORY_MAX]; int memories;
    Buffer out, kept;
} Grammar;

/* Ends the program with a message about a line of the grammar (0: none); name: n bytes that it quotes. */
static void grammar_stop(const Grammar *g, long long line, const char *what, const char *name, size_t n) {
    char field[64];
    snprintf(field, sizeof field, "%.*s", (int)(n < 60 ? n : 60), name);
    prep_stop(E_FORMAT, what, g->path, line, n ? field : NULL,
              "the notation is explained at the top of data/grammar.txt");
}

static int is_name(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; }
static size_t name_length(const char *s, size_t n) {
    size_t i = 0;
    while (i < n && is_name(s[i])) i++;
    return i;
}

/* Returns the rule of that name (n 0: a new rule without a name). If no rule has the name yet, adds an empty
 * rule: the grammar may define it further down. */
static Rule *rule_named(Grammar *g, const char *name, size_t n, long long line) {
    Rule *r;
    for (r = g->rules; r; r = r->next)
        if (r->length == n && n && !memcmp(r->name, name, n)) return r;
    r = prep_take(1, sizeof *r);
    r->name = prep_keep(name, n);
    r->length = n;
    r->line = line;
    r->next = g->rules;
    return g->rules = r;
}

static void parse_choices(Grammar *g, Rule *r, int sense, const char *s, size_t n, long long line);

/* Reads a reference, {name} {!name} {?name} {name:argument} {name#tag} or {*}, from after its { on. Returns
 * how many bytes it read, the } included. */
static size_t parse_reference(Grammar *g, Item *item, const char *s, size_t n, long long line) {
    size_t i = 0, k;
    if (i < n && (s[i] == '!' || s[i] == '?')) item->turn = s[i++] == '!' ? OPPOSITE : COIN;
    if (i < n && s[i] == '*') { item->type = ITEM_ARGUMENT; i++; }
    else {
        k = name_length(s + i, n - i);
        if (!k) grammar_stop(g, line, "a name is missing after {", s, n < 20 ? n : 20);
        item->type = ITEM_RULE;
        item->rule = rule_named(g, s + i, k, line);
        i += k;
    }
    if (i < n && s[i] == ':') {
        k = name_length(s + i + 1, n - i - 1);
        if (!k) grammar_stop(g, line, "a name is missing after :", s, n < 20 ? n : 20);
        item->argument = rule_named(g, s + i + 1, k, line);
        i += 1 + k;
    }
    if (i < n && s[i] == '#') {
        k = name_length(s + i + 1, n - i - 1);
        if (!k) grammar_stop(g, line, "a name is missing after #", s, n < 20 ? n : 20);
        item->tag = prep_keep(s + i + 1, k);
        i += 1 + k;
    }
    if (i == n || s[i] != '}') grammar_stop(g, line, "} is missing", s, n < 20 ? n : 20);
    return i + 1;
}

/* Returns the bytes of a group's text: s begins after the opening bracket, the closing one is not counted. */
static size_t group_length(const Grammar *g, const char *s, size_t n, long long line) {
    int depth = 1;
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '\\') { i++; continue; }
        depth += (s[i] == '(') - (s[i] == ')');
        if (!depth) return i;
    }
    grammar_stop(g, line, ") is missing", s, n < 20 ? n : 20);
    return 0;
}

enum { CAPITAL = 1 };       /* the byte that \^ becomes, until tidy reads it */
/* Makes the item the text that a backslash and s[0] stand for: \n a line break, \^ CAPITAL, else the
 * character itself. */
static void parse_escape(const Grammar *g, Item *item, const char *s, size_t n, long long line) {
    if (!n || !strchr("n^\\(){}|", s[0]))
        grammar_stop(g, line, "a backslash stands before n or one of ^ \\ ( ) { } |", s, n < 20 ? n : 20);
    item->text = s[0] == 'n' ? "\n" : s[0] == '^' ? "\1" : s;
    item->length = 1;
}

/* Reads one alternative, [weight*] text, references and groups, and appends it to the rule. */
static void parse_alternative(Grammar *g, Rule *r, int sense, const char *s, size_t n, long long line) {
    Alternative *a = prep_take(1, sizeof *a), **end = &r->first;
    Item **link = &a->first;
    size_t i = 0, digits = 0;
    while (n && s[0] == ' ') { s++; n--; }
    while (n && s[n - 1] == ' ') n--;
    while (digits < n && digits < 6 && s[digits] >= '0' && s[digits] <= '9') digits++;
    a->sense = sense;
    a->weight = 1;
    if (digits && digits < n && s[digits] == '*') {
        a->weight = 0;
        for (; i < digits; i++) a->weight = a->weight * 10 + (uint64_t)(s[i] - '0');
        if (!a->weight) grammar_stop(g, line, "a weight has to be at least 1", s, n < 20 ? n : 20);
        i++;
        while (i < n && s[i] == ' ') i++;
    }
    while (i < n) {
        Item *item = prep_take(1, sizeof *item);
        if (s[i] == '{') { i++; i += parse_reference(g, item, s + i, n - i, line); }
        else if (s[i] == '\\') { parse_escape(g, item, s + i + 1, n - i - 1, line); i += 2; }
        else if (s[i] == '(') {
            size_t inside = group_length(g, s + i + 1, n - i - 1, line);
            item->type = ITEM_RULE;
            item->rule = rule_named(g, "", 0, line);
            parse_choices(g, item->rule, 0, s + i + 1, inside, line);
            i += inside + 2;
        } else {
            item->text = s + i;
            while (i < n && s[i] != '{' && s[i] != '(' && s[i] != '\\') {
                if (s[i] == '}' || s[i] == ')')
                    grammar_stop(g, line, "a bracket closes that was never opened", s, n < 20 ? n : 20);
                item->length++;
                i++;
            }
        }
        if (item->type != ITEM_TEXT) r->plain = 0;
        *link = item;
        link = &item->next;
    }
    while (*end) end = &(*end)->next;
    *end = a;
    if (sense >= 0) r->total[0] += a->weight;
    if (sense <= 0) r->total[1] += a->weight;
    r->alternatives++;
}

/* Reads alternatives separated by |, and appends them to the rule. A | inside
 * brackets belongs to an inner group. */
static void parse_choices(Grammar *g, Rule *r, int sense, const char *s, size_t n, long long line) {
    size_t from = 0;
    int depth = 0;
    if (!r->first) r->plain = 1;
    for (size_t i = 0; i <= n; i++) {
        if (i + 1 < n && s[i] == '\\') { i++; continue; }
        if (i < n) depth += (s[i] == '(' || s[i] == '{') - (s[i] == ')' || s[i] == '}');
        if (i < n && (s[i] != '|' || depth)) continue;
        parse_alternative(g, r, sense, s + from, i - from, line);
        from = i + 1;
    }
}

/* Reads %start NAME, %words MIN MAX or %noise X. */
static void parse_directive(Grammar *g, const char *line, long long number) {
    char name[64];
    long long a = 0, b = 0;
    double x = 0;
    if (sscanf(line, "%%start %60s", name) == 1) g->start = rule_named(g, name, strlen(name), number);
    else if (sscanf(line, "%%words %lld %lld", &a, &b) == 2 && a > 0 && a <= b) {
        g->words_min = a;
        g->words_max = b;
    } else if (sscanf(line, "%%noise %lf", &x) == 1 && x >= 0 && x <= 0.5) g->noise = x;
    else grammar_stop(g, number, "no such directive (%start NAME, %words MIN MAX, %noise 0 to 0.5)", line,
                      strlen(line));
}

/* Reads a grammar. start: the rule to expand, or NULL: that of %start. A line that begins with a name is a
 * header (`name:`, `name good:`, `name bad:`, `name once:`), and may have alternatives after it. A line that
 * begins with a space has more alternatives. A line that begins with # is a comment. */
static void parse_grammar(Grammar *g, const char *path, const char *start) {
    Error err = { 0 };
    Lines *lines = lines_open(path, prep_pool(), &err);
    const char *line;
    size_t n;
    Rule *rule = NULL;
    int sense = 0;
    must(err.code, &err, "give the path of a grammar, such as data/grammar.txt");
    g->path = path;
    g->words_min = 1;
    g->words_max = 1000000;
    for (long long number = 1; lines_next(lines, &line, &n); number++) {
        const char *s = prep_keep(line, n);      /* the grammar's items point into this copy */
        if (!n || s[0] == '#' || strspn(s, " ") == n) continue;
        for (size_t i = 0; i < n; i++)
            if ((unsigned char)s[i] < ' ') grammar_stop(g, number, "a control character or tab", "", 0);
        if (s[0] == '%') { parse_directive(g, s, number); continue; }
        if (s[0] != ' ') {
            size_t k = name_length(s, n);
            if (!k) grammar_stop(g, number, "neither a rule, a directive nor a comment", s, n < 20 ? n : 20);
            rule = rule_named(g, s, k, number);
            s += k; n -= k;
            if (n > 5 && !memcmp(s, " once:", 6)) { rule->once = 1; s += 5; n -= 5; }
            sense = n > 5 && !memcmp(s, " good:", 6) ? 1 : n > 4 && !memcmp(s, " bad:", 5) ? -1 : 0;
            k = sense > 0 ? 5 : sense < 0 ? 4 : 0;
            if (n <= k || s[k] != ':')
                grammar_stop(g, number, "a header is `name:`, `name good:`, `name bad:` or `name once:`", s,
                             n < 20 ? n : 20);
            s += k + 1; n -= k + 1;
            if (strspn(s, " ") == n) continue;
        } else if (!rule) grammar_stop(g, number, "an alternative before the first rule", "", 0);
        parse_choices(g, rule, sense, s, n, number);
    }
    must(lines_close(lines, &err), &err, NULL);
    if (start) g->start = rule_named(g, start, strlen(start), 0);
    for (Rule *r = g->rules; r; r = r->next)
        if (!r->first)
            grammar_stop(g, r->line, r->line ? "a rule without alternatives" : "--start: no such rule",
                         r->name, r->length);
    if (!g->start) prep_stop(E_MISSING, "%start is missing", path, 0, NULL, "add a line `%start NAME`");
}

/* Draws an alternative that fits the sense (+1 or -1), by weight. In `once` rules, and in rules
 * of many plain texts, it avoids alternatives that this document has already used, unless
 * USED_TRIES draws find no other. */
static const Alternative *draw(Grammar *g, const Rule *r, int sense) {
    uint64_t total = r->total[sense < 0];
    Alternative *a = NULL;
    if (!total)
        grammar_stop(g, r->line, sense > 0 ? "a rule without a good side is used in a good sense"
                                           : "a rule without a bad side is used in a bad sense",
                     r->name, r->length);
    for (int tries = 0; tries < USED_TRIES; tries++) {
        uint64_t left = rng_below(&g->rng, total);
        for (a = r->first; ; a = a->next) {
            if (a->sense && a->sense != sense) continue;
            if (left < a->weight) break;
            left -= a->weight;
        }
        if (a->used != g->document || !(r->once || (r->plain && r->alternatives >= PLAIN_MIN))) break;
    }
    a->used = g->document;
    return a;
}

static void expand(Grammar *g, const Rule *r, const Rule *argument, int sense, int depth);

/* Expands {rule#tag}: the first time in a document it draws a text and keeps it;
 * later it repeats this text. */
static void expand_kept(Grammar *g, const Item *item, const Rule *argument, int sense, int depth) {
    size_t from = g->out.length;
    Memory *added;
    for (int i = 0; i < g->memories; i++) {
        const Memory *m = &g->memory[i];
        if (m->rule != item->rule || strcmp(m->tag, item->tag)) continue;
        buffer_bytes(&g->out, g->kept.data + m->at, m->length);
        return;
    }
    expand(g, item->rule, argument, sense, depth);
    if (g->memories == MEMORY_MAX)
        grammar_stop(g, item->rule->line, "too many {name#tag} in one document", item->rule->name,
                     item->rule->length);
    added = &g->memory[g->memories++];
    added->rule = item->rule;
    added->tag = item->tag;
    added->at = g->kept.length;
    added->length = g->out.length - from;
    buffer_bytes(&g->kept, g->out.data + from, g->out.length - from);
}

/* Appends a random text of rule r in this sense to g->out. argument: the rule that
 * {*} stands for, or NULL. */
static void expand(Grammar *g, const Rule *r, const Rule *argument, int sense, int depth) {
    if (depth > DEPTH_MAX)
        grammar_stop(g, r->line, "a rule contains itself without an end", r->name, r->length);
    for (const Item *item = draw(g, r, sense)->first; item; item = item->next) {
        int turns = item->turn == OPPOSITE || (item->turn == COIN && rng_below(&g->rng, 2));
        int turned = turns ? -sense : sense;
        const Rule *given = item->argument ? item->argument : argument;
        if (item->type == ITEM_TEXT) buffer_bytes(&g->out, item->text, item->length);
        else if (item->type == ITEM_ARGUMENT) {
            if (!argument)
                grammar_stop(g, r->line, "{*} in a rule that was used without an argument", r->name,
                             r->length);
            expand(g, argument, NULL, turned, depth + 1);
        } else if (item->tag) expand_kept(g, item, given, turned, depth + 1);
        else expand(g, item->rule, given, turned, depth + 1);
    }
}

/* Returns 1 if "an" comes before this word. Decides by the word's letters, which is
 * enough for data/grammar.txt. */
static int sounds_as_vowel(const char *s, size_t n) {
    static const char *const consonant[] = { "uni", "use", "usu", "eu", "one", "once" };
    static const char *const vowel[] = { "hour", "hon", "heir" };
    for (size_t k = 0; k < sizeof consonant / sizeof *consonant; k++)
        if (n >= strlen(consonant[k]) && !memcmp(s, consonant[k], strlen(consonant[k]))) return 0;
    for (size_t k = 0; k < sizeof vowel / sizeof *vowel; k++)
        if (n >= strlen(vowel[k]) && !memcmp(s, vowel[k], strlen(vowel[k]))) return 1;
    return n && strchr("aeiouAEIOU", s[0]) != NULL;
}

/* Copies a text to out: replaces several spaces by one, removes spaces before punctuation and around line
 * breaks, begins lines and sentences with a capital letter, and chooses "a" or "an". Returns the number of
 * words. */
static uint64_t tidy(Buffer *out, const char *s, size_t n) {
    int capital = 1;
    uint64_t words = 0;
    for (size_t i = 0; i < n; i++) {
        int first = i == 0 || strchr(" \"\n\1", s[i - 1]);
        char c = s[i];
        if (c == CAPITAL) { capital = 1; continue; }
        if (c == ' ') {
            if (out->length && !strchr(" \n", out->data[out->length - 1]) && i + 1 < n &&
                !strchr(" \n,.;:!?", s[i + 1]))
                buffer_u8(out, ' ');
            continue;
        }
        if (first && c == 'a' && i + 1 < n && s[i + 1] == ' ') {
            size_t next = i + 1 + strspn(s + i + 1, " \"");
            buffer_bytes(out, capital ? "An" : "an", sounds_as_vowel(s + next, n - next) ? 2 : 1);
            capital = 0;
            continue;
        }
        if (capital && c >= 'a' && c <= 'z') c = (char)(c - 'a' + 'A');
        if (c != '"')
            capital = c == '\n' || ((c == '.' || c == '!' || c == '?') && (i + 1 == n || s[i + 1] == ' '));
        buffer_u8(out, (unsigned char)c);
    }
    while (out->length && out->data[out->length - 1] == ' ') out->length--;
    words = words_of((const char *)out->data, out->length);
    return words;
}

/* Draws document `index`: first its sense, then whether its label is wrong, then texts in that sense until
 * one has the wanted length and is new. seen (slots, a power of two): a hash set of the earlier texts. */
static void draw_document(Grammar *g, uint64_t seed, uint64_t index, Document *doc, Buffer *text,
                          uint64_t *seen, uint64_t slots) {
    int sense;
    g->rng = rng_stream(seed, 0, index);
    sense = rng_below(&g->rng, 2) ? 1 : -1;
    doc->label = sense > 0;
    if (rng_unit(&g->rng) < g->noise) doc->label = !doc->label;
    for (int tries = 0; tries < TRIES_MAX; tries++) {
        uint64_t words, hash, at;
        g->out.length = g->kept.length = text->length = 0;
        g->memories = 0;
        g->document++;
        expand(g, g->start, NULL, sense, 0);
        buffer_u8(&g->out, 0);              /* a NUL, which strspn in tidy needs */
        if (g->out.failed || g->kept.failed) prep_need(NULL);
        words = tidy(text, (const char *)g->out.data, g->out.length - 1);
        if (text->failed) prep_need(NULL);
        if (words < (uint64_t)g->words_min || words > (uint64_t)g->words_max) continue;
        hash = hash_bytes(text->data, text->length, 0);
        hash += hash == 0;                  /* 0 marks a free slot */
        for (at = hash & (slots - 1); seen[at] && seen[at] != hash; at = (at + 1) & (slots - 1)) {}
        if (seen[at]) continue;
        seen[at] = hash;
        doc->text[0] = prep_keep((const char *)text->data, text->length);
        doc->length[0] = (uint32_t)text->length;
        doc->split = is_held_out(doc->text[0], text->length);
        return;
    }
    prep_stop(E_RANGE, "no new document of the wanted length after 1000 tries", g->path, 0, NULL,
              "ask for fewer documents (--count), or widen %words");
}

int command_grammar(int argc, char **argv) {
    static int count;
    static uint64_t seed;
    static const char *out, *start;
    static Option option[] = {
        { "out", OPT_TEXT, &out, "data/imdb.bin", 0, 0, NULL, "the dataset to write" },
        { "start", OPT_TEXT, &start, NULL, 0, 0, NULL, "the rule to expand (default: that of %start)" },
        { "count", OPT_INT, &count, "20000", 1, 50000000, NULL, "number of documents" },
        { "seed", OPT_SEED, &seed, "1", 0, 0, NULL, "random seed" },
    };
    static const Program program = {
        .program = "prep grammar",
        .usage = "GRAMMAR.txt [--out FILE.bin] [--start RULE] [--count N] [--seed N]",
        .about = "Expands a grammar into a labelled dataset (negative, positive). "
                 "The notation is explained at the top of data/grammar.txt.",
        OPTIONS(option) };
    static Grammar grammar;
    static char negative[] = "negative", positive[] = "positive";
    static char *label[] = { negative, positive };
    const char *path[1];
    Dataset d = { DATA_TEXT, 2, 0, label, NULL };
    Buffer text = { prep_pool(), NULL, 0, 0, 0 };
    uint64_t slots = 1024, *seen;
    if (cli_parse(&program, argc, argv, path, 1) < 1) usage_error("a grammar is missing", NULL);
    out_file_check("--out", out, path, 1);
    while (slots < 2 * (uint64_t)count) slots *= 2;
    seen = prep_take((size_t)slots, sizeof *seen);
    grammar.out.pool = grammar.kept.pool = prep_pool();
    parse_grammar(&grammar, path[0], start);
    d.document = prep_take((size_t)count, sizeof *d.document);
    for (; d.count < (uint64_t)count; d.count++)
        draw_document(&grammar, seed, d.count, &d.document[d.count], &text, seen, slots);
    write_dataset(&d, out);
    return 0;
}
