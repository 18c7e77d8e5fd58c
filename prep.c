/* prep.c - makes datasets from texts, tokenizers from datasets, and Hugging Face folders from llama2.c's
 * checkpoints: `prep grammar | data | tokenizer | show | llama2c`.
 *
 * What it is   The first program of the pipeline. A dataset holds documents, not tokens, so that policy and
 *              judge can use different tokenizers. 5 % of it, chosen by a hash of the text, is held out.
 * Needs        core.c (JSON, UTF-8, random streams), tokenizer.c (training), io.c (files, datasets),
 *              checkpoint.c (llama2c), html.c, cli.c.
 * Never        skips a malformed row: it names file, line and field, and stops.
 * Always       writes the same bytes from the same input and options.
 * Grammar      Weighted context-free rules, each with a good and a bad sense; data/grammar.txt explains the
 *              notation at its top. Document i is drawn from the stream (seed, 0, i); a document that is too
 *              short, too long, or equal to an earlier one is drawn again from the same stream.
 * Edges        CSV is that of RFC 4180: quoted fields may hold commas, doubled quotes and line breaks; \n and
 *              \r\n end a record; names in the header are compared ignoring case. Empty lines are not
 *              records. */
#include "programs.h"
#include <stdio.h>

static Pool pool;                           /* for memory that is used until the program ends */

/* Prints `what: FILE, line N, field F` and the hint, and exits 1. Line 0 and field NULL are not printed. */
static void stop_at(int code, const char *what, const char *file, long long line, const char *field,
                    const char *hint) {
    Error err = { 0 };
    char where[256];
    const char *mark = field ? ", field " : "", *name = field ? field : "";
    if (line > 0) snprintf(where, sizeof where, "%.150s, line %lld%s%.60s", file, line, mark, name);
    else snprintf(where, sizeof where, "%.150s%s%.60s", file, mark, name);
    fail(&err, code, what, where, 0, 0);
    die(&err, hint);
}
/* Returns memory; exits with a message if it is NULL. */
static void *need(void *memory) {
    Error err = { 0 };
    if (!memory) {
        fail(&err, E_MEMORY, "out of memory", "the documents", 0, 0);
        die(&err, "use a smaller input, or --max-documents");
    }
    return memory;
}
static void *take(size_t count, size_t size) { return need(pool_take(&pool, count, size)); }
static char *keep(const char *text, size_t n) { return need(pool_text(&pool, text, n)); }

/* ---- the documents that a command collects ---- */

/* Returns 1 for 5 % of texts, chosen by their hash. */
static int is_held_out(const char *text, size_t length) { return hash_bytes(text, length, 0) % 20 == 0; }

/* Appends a document to the dataset, which has room for *capacity. */
static void add_document(Dataset *d, uint64_t *capacity, const Document *doc) {
    if (d->count == *capacity) {
        uint64_t more = *capacity ? *capacity * 2 : 1024;
        Document *grown = more > SIZE_MAX / sizeof *grown ? need(NULL) : take((size_t)more, sizeof *grown);
        if (d->count) memcpy(grown, d->document, (size_t)d->count * sizeof *grown);
        d->document = grown;
        *capacity = more;
    }
    d->document[d->count++] = *doc;
}

/* Returns the number of words, which are separated by spaces or control characters. */
static uint64_t words_of(const char *s, size_t n) {
    uint64_t words = 0;
    for (size_t i = 0; i < n; i++)
        words += (unsigned char)s[i] > ' ' && (i == 0 || (unsigned char)s[i - 1] <= ' ');
    return words;
}

/* Prints how many documents there are, how many are held out, their mean length, and
 * how many have each label. */
static void print_statistics(const Dataset *d, const char *path) {
    static const char *const kind[][2] = { { "", "" }, { "texts", "text" },
                                           { "pairs (chosen, rejected)", "pair (chosen, rejected)" },
                                           { "prompts with responses", "prompt with a response" } };
    uint64_t held_out = 0, words = 0, bytes = 0;
    printf("%s: %llu %s", path, (unsigned long long)d->count, kind[d->kind][d->count == 1]);
    for (uint64_t i = 0; i < d->count; i++) {
        const Document *doc = &d->document[i];
        held_out += doc->split != 0;
        for (int k = 0; k < (d->kind == DATA_TEXT ? 1 : 2); k++) {
            words += words_of(doc->text[k], doc->length[k]);
            bytes += doc->length[k];
        }
    }
    printf(", %llu held out, %.1f words and %.1f bytes each\n", (unsigned long long)held_out,
           d->count ? (double)words / (double)d->count : 0.0,
           d->count ? (double)bytes / (double)d->count : 0.0);
    for (int k = -1; k < d->labels; k++) {
        uint64_t n = 0;
        for (uint64_t i = 0; i < d->count; i++) n += d->document[i].label == k;
        if (k >= 0 || (n && d->labels))
            printf("  label %-12s %llu\n", k < 0 ? "(none)" : d->label[k], (unsigned long long)n);
    }
}

static void write_dataset(Dataset *d, const char *path) {
    Error err = { 0 };
    must(dataset_write(d, path, &pool, &err), &err,
         "check --out: its folder, its permissions, the free space");
    print_statistics(d, path);
}

/* ================================================================================================
 * prep grammar
 * ================================================================================================ */
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
    stop_at(E_FORMAT, what, g->path, line, n ? field : NULL,
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
    r = take(1, sizeof *r);
    r->name = keep(name, n);
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
        item->tag = keep(s + i + 1, k);
        i += 1 + k;
    }
    if (i == n || s[i] != '}') grammar_stop(g, line, "} is missing", s, n < 20 ? n : 20);
    return i + 1;
}

/* Returns the bytes of a group's text: s begins after the opening bracket, the closing one is not counted. */
static size_t group_length(const Grammar *g, const char *s, size_t n, long long line) {
    int depth = 1;
    for (size_t i = 0; i < n; i++) {
        depth += (s[i] == '(') - (s[i] == ')');
        if (!depth) return i;
    }
    grammar_stop(g, line, ") is missing", s, n < 20 ? n : 20);
    return 0;
}

/* Reads one alternative, [weight*] text, references and groups, and appends it to the rule. */
static void parse_alternative(Grammar *g, Rule *r, int sense, const char *s, size_t n, long long line) {
    Alternative *a = take(1, sizeof *a), **end = &r->first;
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
        Item *item = take(1, sizeof *item);
        if (s[i] == '{') { i++; i += parse_reference(g, item, s + i, n - i, line); }
        else if (s[i] == '(') {
            size_t inside = group_length(g, s + i + 1, n - i - 1, line);
            item->type = ITEM_RULE;
            item->rule = rule_named(g, "", 0, line);
            parse_choices(g, item->rule, 0, s + i + 1, inside, line);
            i += inside + 2;
        } else {
            item->text = s + i;
            while (i < n && s[i] != '{' && s[i] != '(') {
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

/* Reads a grammar. A line that begins with a name is a header (`name:`, `name good:`, `name bad:`,
 * `name once:`), and may have alternatives after it. A line that begins with a space has more alternatives. A
 * line that begins with # is a comment. */
static void parse_grammar(Grammar *g, const char *path) {
    Error err = { 0 };
    Lines *lines = lines_open(path, &pool, &err);
    const char *line;
    size_t n;
    Rule *rule = NULL;
    int sense = 0;
    must(err.code, &err, "give the path of a grammar, such as data/grammar.txt");
    g->path = path;
    g->words_min = 1;
    g->words_max = 1000000;
    for (long long number = 1; lines_next(lines, &line, &n); number++) {
        const char *s = keep(line, n);      /* the grammar's items point into this copy */
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
    for (Rule *r = g->rules; r; r = r->next)
        if (!r->first) grammar_stop(g, r->line, "a rule without alternatives", r->name, r->length);
    if (!g->start) stop_at(E_MISSING, "%start is missing", path, 0, NULL, "add a line `%start NAME`");
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

/* Copies a text to out: replaces several spaces by one, removes spaces before punctuation, begins sentences
 * with a capital letter, and chooses "a" or "an". Returns the number of words. */
static uint64_t tidy(Buffer *out, const char *s, size_t n) {
    int capital = 1;
    uint64_t words = 0;
    for (size_t i = 0; i < n; i++) {
        int first = i == 0 || s[i - 1] == ' ' || s[i - 1] == '"';
        char c = s[i];
        if (c == ' ') {
            if (out->length && out->data[out->length - 1] != ' ' && i + 1 < n && !strchr(" ,.;:!?", s[i + 1]))
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
        if (c != '"') capital = (c == '.' || c == '!' || c == '?') && (i + 1 == n || s[i + 1] == ' ');
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
        if (g->out.failed || g->kept.failed) need(NULL);
        words = tidy(text, (const char *)g->out.data, g->out.length - 1);
        if (text->failed) need(NULL);
        if (words < (uint64_t)g->words_min || words > (uint64_t)g->words_max) continue;
        hash = hash_bytes(text->data, text->length, 0);
        hash += hash == 0;                  /* 0 marks a free slot */
        for (at = hash & (slots - 1); seen[at] && seen[at] != hash; at = (at + 1) & (slots - 1)) {}
        if (seen[at]) continue;
        seen[at] = hash;
        doc->text[0] = keep((const char *)text->data, text->length);
        doc->length[0] = (uint32_t)text->length;
        doc->split = is_held_out(doc->text[0], text->length);
        return;
    }
    stop_at(E_RANGE, "no new document of the wanted length after 1000 tries", g->path, 0, NULL,
            "ask for fewer documents (--count), or widen %words");
}

static int command_grammar(int argc, char **argv) {
    static int count;
    static uint64_t seed;
    static const char *out;
    static Option option[] = {
        { "out", OPT_TEXT, &out, "data/imdb.bin", 0, 0, NULL, "the dataset to write" },
        { "count", OPT_INT, &count, "20000", 1, 50000000, NULL, "number of documents" },
        { "seed", OPT_SEED, &seed, "1", 0, 0, NULL, "random seed" },
    };
    static const Program program = {
        .program = "prep grammar",
        .usage = "GRAMMAR.txt [--out FILE.bin] [--count N] [--seed N]",
        .about = "Expands a grammar into a labelled dataset (negative, positive). "
                 "The notation is explained at the top of data/grammar.txt.",
        OPTIONS(option) };
    static Grammar grammar;
    static char negative[] = "negative", positive[] = "positive";
    static char *label[] = { negative, positive };
    const char *path[1];
    Dataset d = { DATA_TEXT, 2, 0, label, NULL };
    Buffer text = { &pool, NULL, 0, 0, 0 };
    uint64_t slots = 1024, *seen;
    if (cli_parse(&program, argc, argv, path, 1) < 1) usage_error("a grammar is missing", NULL);
    out_file_check("--out", out, path, 1);
    while (slots < 2 * (uint64_t)count) slots *= 2;
    seen = take((size_t)slots, sizeof *seen);
    grammar.out.pool = grammar.kept.pool = &pool;
    parse_grammar(&grammar, path[0]);
    d.document = take((size_t)count, sizeof *d.document);
    for (; d.count < (uint64_t)count; d.count++)
        draw_document(&grammar, seed, d.count, &d.document[d.count], &text, seen, slots);
    write_dataset(&d, out);
    return 0;
}

/* ================================================================================================
 * prep data
 * ================================================================================================ */
enum { FORMAT_AUTO, FORMAT_JSONL, FORMAT_CSV, FORMAT_TSV, FORMAT_TEXT, FORMAT_IMDB, FORMAT_PAIRS };
enum { INPUTS_MAX = 64, COLUMNS_MAX = 1024 };
static struct {
    const char *out, *text, *label, *prompt, *response, *chosen, *rejected, *labels;
    int format, template, min_length, max_documents;
    int strip_html, fix_utf8, whole, no_quotes, no_label, no_prompt;
} given;                                    /* the options of `prep data` */
/* A value of the label field, the name of its label, and the label's index. They come from --labels, or from
 * the data. */
typedef struct { const char *value, *name; int label; } LabelValue;
typedef struct {
    Dataset data;
    uint64_t capacity, empty, too_short;
    uint64_t doubled;                       /* pairs whose texts both begin with the prompt by themselves */
    Pool scratch;                           /* memory for one row; emptied before the next row */
    /* names of the fields: two texts, the prompt that comes before both texts of a pair (NULL: none), and the
     * label (NULL: none); unlabelled: a file has none */
    const char *field[3], *label;
    int unlabelled;
    LabelValue value[2 * LABELS_MAX]; int values;
    char *name[LABELS_MAX];
} Collector;
typedef struct { const char *file; long long line; } Place;
typedef struct { const char *text; size_t length; } Span;

static void *scratch(Collector *c, size_t n) { return need(pool_take(&c->scratch, n, 1)); }

/* ---- text ---- */

/* Returns the text if it is valid UTF-8. Otherwise stops the program, or with --fix-utf8 returns a copy (in
 * scratch) with U+FFFD in place of each bad byte. */
static Span valid_text(Collector *c, Span p, Place at) {
    Buffer out = { &c->scratch, NULL, 0, 0, 0 };
    size_t good = 0;                        /* if `out` is not empty: it holds all text before `good` */
    int32_t code;
    for (size_t i = 0; i < p.length; ) {
        int n = utf8_decode(p.text + i, p.length - i, &code);
        if (code < 0) {
            if (!given.fix_utf8)
                stop_at(E_FORMAT, "invalid UTF-8", at.file, at.line, NULL,
                        "convert the file to UTF-8, or give --fix-utf8");
            buffer_bytes(&out, p.text + good, i - good);
            buffer_bytes(&out, "\xEF\xBF\xBD", 3);
            good = i + 1;
        }
        i += (size_t)n;
    }
    if (!out.length) return p;
    buffer_bytes(&out, p.text + good, p.length - good);
    if (out.failed) need(NULL);
    p.text = (const char *)out.data;
    p.length = out.length;
    return p;
}

/* Returns the code of the escape \\uXXXX at s (n bytes), or -1 if there is none. */
static int32_t escaped_code(const char *s, size_t n) {
    int32_t code = 0;
    if (n < 6 || s[0] != '\\' || s[1] != 'u') return -1;
    for (int k = 2; k < 6; k++) {
        const char *digits = "0123456789abcdef0123456789ABCDEF", *found = s[k] ? strchr(digits, s[k]) : NULL;
        if (!found) return -1;
        code = code * 16 + (int32_t)((found - digits) % 16);
    }
    return code;
}

/* Does for the escapes of a line of JSON what valid_text does for its bytes: a surrogate alone, which is half
 * of a character, stops the program, or is replaced by U+FFFD. */
static Span valid_escapes(Collector *c, Span line, Place at) {
    char *copy = NULL;
    for (size_t i = 0, used; i < line.length; i += used) {
        const char *s = line.text + i;
        const size_t left = line.length - i;
        const int32_t code = escaped_code(s, left), low = left > 6 ? escaped_code(s + 6, left - 6) : -1;
        used = *s == '\\' ? 2 : 1;
        if (code < 0xD800 || code > 0xDFFF) continue;
        used = code < 0xDC00 && low >= 0xDC00 && low <= 0xDFFF ? 12 : 6;
        if (used == 12) continue;
        if (!given.fix_utf8)
            stop_at(E_FORMAT, "a lone surrogate (half of a character, as \\ud83d)", at.file, at.line, NULL,
                    "correct the line, or give --fix-utf8");
        if (!copy) {
            copy = scratch(c, line.length);
            memcpy(copy, line.text, line.length);
            line.text = copy;
        }
        memcpy(copy + i, "\\ufffd", 6);
    }
    return line;
}

static size_t code_points(Span p) {
    size_t n = 0;
    for (size_t i = 0; i < p.length; i++) n += ((unsigned char)p.text[i] & 0xC0) != 0x80;
    return n;
}

/* ---- labels ---- */

/* Reads --labels. In "negative,positive" the values 0 and "negative" mean label 0, and so
 * on. "4=positive,0=negative" gives these values names; labels are numbered in the order in
 * which their names first occur. */
static void parse_labels(Collector *c) {
    const char *s = given.labels;
    for (int row = 0; s && *s; row++) {
        size_t n = strcspn(s, ","), equals = 0;
        LabelValue *v = &c->value[c->values];
        char digits[16];
        int k;
        while (equals < n && s[equals] != '=') equals++;
        v->name = equals < n ? keep(s + equals + 1, n - equals - 1) : keep(s, n);
        if (!v->name[0] || !equals)
            usage_error("--labels is a list of NAME or VALUE=NAME, separated by commas", given.labels);
        for (k = 0; k < c->data.labels && strcmp(c->name[k], v->name); k++) {}
        if (k == LABELS_MAX || c->values + 2 > 2 * LABELS_MAX)
            usage_error("--labels has more than 32 names", given.labels);
        if (k == c->data.labels) c->name[c->data.labels++] = keep(v->name, strlen(v->name));
        v->label = k;
        v->value = keep(s, equals);
        c->values++;
        if (equals == n) {                  /* a bare name also stands for its number */
            v[1] = v[0];
            name_format(digits, sizeof digits, "%d", row);
            v[1].value = keep(digits, strlen(digits));
            c->values++;
        }
        s += n + (s[n] == ',');
    }
}

/* Returns the label's index for a value of the label field. Without --labels, a new
 * value becomes a new label. */
static int label_of(Collector *c, Span raw, Place at) {
    static const char other_field[] = "choose another field with --label, or none with --no-label";
    for (int k = 0; k < c->values; k++)
        if (strlen(c->value[k].value) == raw.length && !memcmp(c->value[k].value, raw.text, raw.length))
            return c->value[k].label;
    if (given.labels) {
        char what[160] = "--labels does not name this value: ";
        size_t n = strlen(what), room = sizeof what - n - 1;
        memcpy(what + n, raw.text, raw.length < room ? raw.length : room);
        stop_at(E_FORMAT, what, at.file, at.line, c->label,
                "name every value, as in --labels 0=negative,1=positive");
    }
    if (c->data.labels == LABELS_MAX)
        stop_at(E_UNSUPPORTED, "more than 32 different labels", at.file, at.line, c->label, other_field);
    if (!raw.length || raw.length > 47)
        stop_at(E_FORMAT, "a label longer than 47 bytes", at.file, at.line, c->label, other_field);
    c->name[c->data.labels] = keep(raw.text, raw.length);
    c->value[c->values].value = c->value[c->values].name = c->name[c->data.labels];
    c->value[c->values++].label = c->data.labels;
    return c->data.labels++;
}

/* Returns 1 if a comes before b in sorted order: numbers by value, other texts by their bytes. */
static int before(const char *a, const char *b) {
    size_t n = strlen(a), m = strlen(b);
    int numbers = strspn(a, "0123456789") == n && strspn(b, "0123456789") == m;
    return numbers && n != m ? n < m : strcmp(a, b) < 0;
}

/* Sorts the labels that were found in the data, so that their numbers do not depend
 * on the order of the rows. */
static void sort_labels(Collector *c) {
    int place[LABELS_MAX], L = c->data.labels;
    char *name[LABELS_MAX];
    if (given.labels) return;
    for (int k = 0; k < L; k++) {
        place[k] = 0;
        for (int j = 0; j < L; j++) place[k] += before(c->name[j], c->name[k]);
        name[place[k]] = c->name[k];
    }
    for (int k = 0; k < L; k++) c->name[k] = name[k];
    for (uint64_t i = 0; i < c->data.count; i++)
        if (c->data.document[i].label >= 0) c->data.document[i].label = place[c->data.document[i].label];
}

/* ---- rows ---- */

/* Returns a then b, in scratch. */
static Span joined(Collector *c, Span a, Span b) {
    char *out = scratch(c, a.length + b.length + 1);
    if (a.length) memcpy(out, a.text, a.length);
    if (b.length) memcpy(out + a.length, b.text, b.length);
    b.text = out;
    b.length += a.length;
    return b;
}

static int begins_with(Span p, Span begin) {
    return p.length >= begin.length && !memcmp(p.text, begin.text, begin.length);
}

/* Adds a document: of one text, or of two if the kind has two. texts[2]: the prompt of a pair, which comes
 * before both texts (text NULL: none). raw: its label's value (text NULL: no label). Leaves out empty and too
 * short documents, and counts them. */
static void add_row(Collector *c, const Span texts[3], Span raw, Place at) {
    Document doc;
    size_t points = 0;
    int n = c->data.kind == DATA_TEXT ? 1 : 2, empty = 0;
    memset(&doc, 0, sizeof doc);
    doc.label = raw.text && raw.length ? label_of(c, raw, at) : -1;
    if (texts[2].length) c->doubled += begins_with(texts[0], texts[2]) && begins_with(texts[1], texts[2]);
    for (int k = 0; k < n; k++) {
        Span p = valid_text(c, texts[2].length ? joined(c, texts[2], texts[k]) : texts[k], at);
        if (given.strip_html && html_text(p.text, p.length, &c->scratch, &p.text, &p.length)) need(NULL);
        if (p.length > 0x7FFFFFFF)
            stop_at(E_RANGE, "a text of over 2 GB", at.file, at.line, c->field[k], "split the text");
        points += code_points(p);
        empty |= p.length == 0 || texts[k].length == 0;
        doc.text[k] = p.text;
        doc.length[k] = (uint32_t)p.length;
    }
    if (empty) { c->empty++; return; }
    if (points < (size_t)given.min_length) { c->too_short++; return; }
    for (int k = 0; k < n; k++) doc.text[k] = keep(doc.text[k], doc.length[k]);
    doc.split = is_held_out(doc.text[0], doc.length[0]);
    add_document(&c->data, &c->capacity, &doc);
}

static const char *const text_fields[] = { "text", "review", "sentence", "tweet", "content", "document",
                                           "messages", NULL };
static const char *const label_fields[] = { "label", "sentiment", NULL };
typedef int (*HasField)(const void *row, const char *name);

/* Returns the first name that the row has, or NULL. */
static const char *first_field(const char *const *names, HasField has, const void *row) {
    while (*names && !has(row, *names)) names++;
    return *names;
}

/* Returns the kind of dataset that the options, or else the fields of the first row, ask for. */
static int choose_kind(HasField has, const void *row) {
    static const char *const answer[] = { "response", "completion", NULL };
    if (given.chosen || given.rejected || given.format == FORMAT_PAIRS) return DATA_PAIRS;
    if (given.response) return DATA_PROMPTS;
    if (given.text) return DATA_TEXT;
    if (has(row, "chosen") && has(row, "rejected")) return DATA_PAIRS;
    if (given.prompt) return DATA_PROMPTS;
    return has(row, "prompt") && first_field(answer, has, row) && !first_field(text_fields, has, row)
               ? DATA_PROMPTS : DATA_TEXT;
}

/* Chooses the fields to read, by the options and by the fields that the first row has. */
static void choose_fields(Collector *c, HasField has, const void *row, Place at) {
    const int kind = choose_kind(has, row);
    if (c->data.kind && c->data.kind != kind)
        stop_at(E_FORMAT, "another kind of data than the file before", at.file, 0, NULL,
                "make one dataset of each");
    if (given.no_prompt && kind != DATA_PAIRS)
        stop_at(E_ARGUMENT, "--no-prompt is for pairs, chosen and rejected", at.file, at.line, NULL,
                "leave out --no-prompt");
    c->data.kind = kind;
    c->field[2] = NULL;
    if (kind == DATA_PROMPTS) {
        c->field[0] = given.prompt ? given.prompt : "prompt";
        c->field[1] = given.response ? given.response : has(row, "response") ? "response" : "completion";
    } else if (kind == DATA_PAIRS) {
        c->field[0] = given.chosen ? given.chosen : "chosen";
        c->field[1] = given.rejected ? given.rejected : "rejected";
        c->field[2] = given.prompt ? given.prompt : !given.no_prompt && has(row, "prompt") ? "prompt" : NULL;
    } else {
        c->field[0] = given.text ? given.text : first_field(text_fields, has, row);
        if (!c->field[0])
            stop_at(E_MISSING,
                    "none of the fields text, review, sentence, tweet, content, document, messages",
                    at.file, at.line, NULL, "name the field that holds the text with --text");
    }
    c->label = given.no_label ? NULL : given.label;
    if (!given.no_label && !c->label && kind == DATA_TEXT) c->label = first_field(label_fields, has, row);
    c->unlabelled |= kind == DATA_TEXT && !c->label && !given.no_label;
}

/* Stops if the row has a field that the first row lacked, and that would have been read. */
static void check_late_fields(const Collector *c, HasField has, const void *row, Place at) {
    const char *late = NULL, *hint = NULL;
    if (c->data.kind == DATA_TEXT && !c->label && !given.no_label) {
        late = first_field(label_fields, has, row);
        hint = "give the field to every row (null: no label), or give --no-label";
    } else if (c->data.kind == DATA_PAIRS && !c->field[2] && !given.no_prompt && has(row, "prompt")) {
        late = "prompt";
        hint = "give the field to every row (\"\": no prompt), or give --no-prompt";
    }
    if (late) stop_at(E_FORMAT, "a field that the first row does not have", at.file, at.line, late, hint);
}

/* ---- JSONL ---- */

/* Returns the field of that name, or NULL. "prompt.text" is the key of that name or, if there is none, the
 * field text of the object prompt. */
static const Json *json_field(const Json *object, const char *name) {
    const Json *found = json_get(object, name);
    const char *dot = strchr(name, '.');
    char head[128];
    if (found || !dot || (size_t)(dot - name) >= sizeof head) return found;
    memcpy(head, name, (size_t)(dot - name));
    head[dot - name] = 0;
    found = json_get(object, head);
    return found ? json_field(found, dot + 1) : NULL;
}
static int json_has(const void *row, const char *name) { return json_field(row, name) != NULL; }

/* Returns the label's value as text, from a string, a whole number or a truth value; text NULL for null. */
static Span json_label(Collector *c, const Json *row, Place at) {
    const Json *v = json_field(row, c->label);
    Span raw = { NULL, 0 };
    if (!v) stop_at(E_MISSING, "a field is missing", at.file, at.line, c->label,
                    "name it with --label, or give --no-label");
    if (v->type == JSON_STRING) { raw.text = v->string; raw.length = v->length; }
    else if (v->type == JSON_TRUE) { raw.text = "true"; raw.length = 4; }
    else if (v->type == JSON_FALSE) { raw.text = "false"; raw.length = 5; }
    else if (v->type == JSON_NUMBER && v->number == floor(v->number) && fabs(v->number) < 1e9) {
        char *digits = scratch(c, 24);
        name_format(digits, 24, "%d", (int)v->number);
        raw.text = digits;
        raw.length = strlen(digits);
    } else if (v->type != JSON_NULL)
        stop_at(E_FORMAT, "a label that is not a string, a whole number or a truth value", at.file, at.line,
                c->label, "choose another field with --label");
    return raw;
}

/* ---- lists of messages, {"role": ..., "content": ...}, as TRL reads them ---- */

/* Returns the string under a message's key; stops if there is none. */
static const Json *message_part(const Json *message, const char *key, const char *field, Place at) {
    const Json *v = json_get(message, key);
    if (!v || v->type != JSON_STRING)
        stop_at(E_FORMAT, "a message without a string \"role\" and a string \"content\"", at.file, at.line,
                field, "correct the line; a list holds {\"role\": \"user\", \"content\": \"...\"}");
    return v;
}

/* Returns a list of messages as text, in the form of --template. *head: the bytes before the content of the
 * first one. */
static Span messages_text(Collector *c, const Json *list, const char *field, Place at, size_t *head) {
    const ChatTemplate *how = chat_template(given.template);
    Buffer b = { &c->scratch, NULL, 0, 0, 0 };
    Span p;
    if (!how->end)
        stop_at(E_UNSUPPORTED, "a list of messages", at.file, at.line, field,
                "--template chatml or --template zephyr: the form in which messages become text");
    for (const Json *m = list->child; m; m = m->next) {
        const Json *role = message_part(m, "role", field, at);
        const Json *content = message_part(m, "content", field, at);
        buffer_text(&b, how->begin ? how->begin : "");
        buffer_text(&b, how->before);
        buffer_bytes(&b, role->string, role->length);
        buffer_text(&b, how->after);
        if (m == list->child) *head = b.length;
        buffer_bytes(&b, content->string, content->length);
        buffer_text(&b, how->end);
        buffer_text(&b, "\n");
    }
    if (b.failed) need(NULL);
    p.text = b.length ? (const char *)b.data : "";
    p.length = b.length;
    return p;
}

/* Returns 1 if v is a list of messages, one of which has this content. */
static int has_message(const Json *v, const Json *content) {
    for (const Json *m = v->type == JSON_ARRAY ? v->child : NULL; m; m = m->next) {
        const Json *own = json_get(m, "content");
        if (own && own->type == JSON_STRING && own->length == content->length
            && !memcmp(own->string, content->string, own->length)) return 1;
    }
    return 0;
}

/* Reads the fields of a row whose texts are lists of messages. The prompt of a pair may also be a string that
 * both lists have as a message. The prompt of DATA_PROMPTS ends where the content of the answer begins. */
static void read_messages(Collector *c, const Json *const v[3], Span text[3], Place at) {
    size_t head[3] = { 0, 0, 0 };
    text[2].length = 0;
    for (int k = 0; k < 3; k++) {
        if (!v[k]) continue;
        if (k == 2 && v[2]->type == JSON_STRING && has_message(v[0], v[2]) && has_message(v[1], v[2]))
            continue;
        if (v[k]->type != JSON_ARRAY)
            stop_at(E_FORMAT, "a string in a row whose other texts are lists of messages", at.file, at.line,
                    c->field[k], c->data.kind == DATA_PAIRS ? "correct the line, or give --no-prompt"
                                                            : "correct the line");
        text[k] = messages_text(c, v[k], c->field[k], at, &head[k]);
    }
    if (c->data.kind != DATA_PROMPTS) return;
    const Span begin = { text[1].text, head[1] };
    text[0] = joined(c, text[0], begin);
    text[1].text += head[1];
    text[1].length -= head[1];
}

/* ---- rows of JSONL ---- */

static int is_blank(Span line) {
    size_t i = 0;
    while (i < line.length && (line.text[i] == ' ' || line.text[i] == '\t' || line.text[i] == '\r')) i++;
    return i == line.length;
}

/* Returns the object on a line of JSONL, in scratch. */
static const Json *json_row(Collector *c, Span line, Place at) {
    Error err = { 0 };
    const Json *row = json_parse(line.text, line.length, &c->scratch, &err);
    if (!row) {
        char what[160] = "no JSON (";
        memcpy(what + 9, err.what, strlen(err.what) < 140 ? strlen(err.what) : 140);
        what[strlen(what)] = ')';
        stop_at(E_FORMAT, what, at.file, at.line, NULL,
                "correct or remove the line; JSONL has one object on each line");
    }
    if (row->type != JSON_OBJECT)
        stop_at(E_FORMAT, "no JSON object", at.file, at.line, NULL, "JSONL has one object on each line");
    return row;
}

/* Adds the document of a row. */
static void add_json_row(Collector *c, const Json *row, Place at) {
    const Json *v[3] = { NULL, NULL, NULL };
    Span text[3] = { { NULL, 0 }, { NULL, 0 }, { NULL, 0 } }, raw = { NULL, 0 };
    int lists = 0;
    for (int k = 0; k < 3; k++) {
        if (k == 2 ? !c->field[2] : k == 1 && c->data.kind == DATA_TEXT) continue;
        v[k] = json_field(row, c->field[k]);
        if (!v[k]) stop_at(E_MISSING, "a field is missing", at.file, at.line, c->field[k],
                           "name the fields with --text, --prompt and --response, or --chosen and "
                           "--rejected");
        lists |= v[k]->type == JSON_ARRAY;
        if (v[k]->type != JSON_STRING && v[k]->type != JSON_ARRAY)
            stop_at(E_FORMAT, "not a string", at.file, at.line, c->field[k],
                    "correct the line, or choose another field");
        text[k].text = v[k]->string;
        text[k].length = v[k]->length;
    }
    if (lists) read_messages(c, v, text, at);
    if (c->label) raw = json_label(c, row, at);
    add_row(c, text, raw, at);
}

static void read_jsonl(Collector *c, const char *path) {
    Error err = { 0 };
    Lines *lines = lines_open(path, &pool, &err);
    Place at = { path, 0 };
    Span line;
    int chosen = 0;
    must(err.code, &err, NULL);
    while (lines_next(lines, &line.text, &line.length)) {
        PoolMark mark = pool_mark(&c->scratch);
        at.line++;
        line = valid_escapes(c, valid_text(c, line, at), at);
        if (is_blank(line)) continue;
        const Json *row = json_row(c, line, at);
        if (!chosen) choose_fields(c, json_has, row, at);
        chosen = 1;
        check_late_fields(c, json_has, row, at);
        add_json_row(c, row, at);
        pool_release(&c->scratch, mark);
    }
    must(lines_close(lines, &err), &err, NULL);
}

/* ---- CSV and TSV ---- */

typedef struct { const char *at, *end; char separator; Place place; } Table;
typedef struct { Span *cell; int cells; } Record;

/* Reads a quoted cell, from after its first quote on. A doubled quote stands for one quote. */
static Span quoted_cell(Collector *c, Table *t) {
    Span p;
    const char *s = t->at;
    char *out;
    Place begun = t->place;
    while (s < t->end && !(*s == '"' && (s + 1 == t->end || s[1] != '"'))) s += *s == '"' ? 2 : 1;
    if (s >= t->end) stop_at(E_TRUNCATED, "a quote that is never closed", begun.file, begun.line, NULL,
                             "correct the file; --no-quotes takes quotes as they are");
    p.text = out = scratch(c, (size_t)(s - t->at) + 1);
    for (; t->at < s; t->at++) {
        t->place.line += *t->at == '\n';
        *out++ = *t->at;
        if (*t->at == '"') t->at++;
    }
    p.length = (size_t)(out - p.text);
    t->at = s + 1;
    if (t->at < t->end && *t->at != t->separator && *t->at != '\n' && *t->at != '\r')
        stop_at(E_FORMAT, "text after a closing quote", t->place.file, t->place.line, NULL,
                "double the quotes inside a quoted cell; --no-quotes takes quotes as they are");
    return p;
}

/* Reads the next record; *at: the place of its first line. Returns 0 at the end. Skips empty lines. */
static int next_record(Collector *c, Table *t, Record *r, Place *at) {
    while (t->at < t->end && (*t->at == '\n' || *t->at == '\r')) t->place.line += *t->at++ == '\n';
    if (t->at == t->end) return 0;
    *at = t->place;
    for (r->cells = 0; ; t->at++) {
        Span p;
        if (r->cells == COLUMNS_MAX)
            stop_at(E_UNSUPPORTED, "more than 1024 columns", at->file, at->line, NULL, NULL);
        if (t->at < t->end && *t->at == '"' && !given.no_quotes) { t->at++; p = quoted_cell(c, t); }
        else {
            p.text = t->at;
            while (t->at < t->end && *t->at != t->separator && *t->at != '\n') t->at++;
            p.length = (size_t)(t->at - p.text);
            if (p.length && (t->at == t->end || *t->at == '\n') && p.text[p.length - 1] == '\r') p.length--;
        }
        r->cell[r->cells++] = p;
        if (t->at < t->end && *t->at == '\r') t->at++;          /* the \r of \r\n after a quoted cell */
        if (t->at == t->end || *t->at != t->separator) break;
    }
    if (t->at < t->end && *t->at == '\n') { t->at++; t->place.line++; }
    return 1;
}

/* Returns the cell without blanks around it. */
static Span trimmed(Span p) {
    while (p.length && (p.text[0] == ' ' || p.text[0] == '\t')) { p.text++; p.length--; }
    while (p.length && (p.text[p.length - 1] == ' ' || p.text[p.length - 1] == '\t')) p.length--;
    return p;
}

/* Returns 1 if the two names are equal, ignoring the case of ASCII letters. */
static int same_name(Span a, const char *b) {
    size_t i = 0;
    for (; i < a.length && b[i]; i++) {
        char x = a.text[i], y = b[i];
        if (x >= 'A' && x <= 'Z') x = (char)(x + 32);
        if (y >= 'A' && y <= 'Z') y = (char)(y + 32);
        if (x != y) return 0;
    }
    return i == a.length && !b[i];
}
static int column_of(const Record *header, const char *name) {
    for (int k = 0; k < header->cells; k++) if (same_name(header->cell[k], name)) return k;
    return -1;
}
static int table_has(const void *row, const char *name) { return column_of(row, name) >= 0; }

/* Returns the column of that name; if there is none, exits with a list of the columns. */
static int need_column(const Record *header, const char *name, Place at) {
    char hint[200] = "the columns are: ";
    int k = column_of(header, name);
    for (int i = 0; k < 0 && i < header->cells; i++) {
        size_t n = strlen(hint), m = header->cell[i].length;
        if (n + m + 3 > sizeof hint) break;
        if (i) { memcpy(hint + n, ", ", 3); n += 2; }
        memcpy(hint + n, header->cell[i].text, m);
        hint[n + m] = 0;
    }
    if (k < 0) stop_at(E_MISSING, "no such column", at.file, at.line, name, hint);
    return k;
}

static void read_table(Collector *c, const char *path, char separator) {
    Error err = { 0 };
    Table t = { NULL, NULL, separator, { path, 1 } };
    Record header, row;
    Place at = { path, 1 };
    char *bytes;
    size_t size;
    int column[3] = { -1, -1, -1 }, label = -1;
    must(text_read_all(path, &pool, &bytes, &size, &err), &err, NULL);
    header.cell = take(COLUMNS_MAX, sizeof *header.cell);
    row.cell = take(COLUMNS_MAX, sizeof *row.cell);
    t.at = bytes;
    t.end = bytes + size;
    if (!next_record(c, &t, &header, &at))
        stop_at(E_TRUNCATED, "no header", path, 1, NULL, "the first record has to name the columns");
    for (int k = 0; k < header.cells; k++) header.cell[k] = trimmed(header.cell[k]);
    choose_fields(c, table_has, &header, at);
    for (int k = 0; k < 3; k++)
        if (k == 2 ? c->field[2] != NULL : k == 0 || c->data.kind != DATA_TEXT)
            column[k] = need_column(&header, c->field[k], at);
    if (c->label) label = need_column(&header, c->label, at);
    for (;;) {
        PoolMark mark = pool_mark(&c->scratch);
        Span text[3] = { { NULL, 0 }, { NULL, 0 }, { NULL, 0 } }, raw = { NULL, 0 };
        if (!next_record(c, &t, &row, &at)) break;
        if (row.cells != header.cells) {
            char where[256];
            snprintf(where, sizeof where, "%.200s, line %lld", path, at.line);
            fail(&err, E_FORMAT, "a record with another number of cells than the header", where, row.cells,
                 header.cells);
            die(&err, "correct the record; a cell with a separator, quote or line break has to be in quotes");
        }
        for (int k = 0; k < 3; k++) if (column[k] >= 0) text[k] = row.cell[column[k]];
        if (label >= 0) raw = trimmed(row.cell[label]);
        add_row(c, text, raw, at);
        pool_release(&c->scratch, mark);
    }
}

/* ---- plain text, aclImdb ---- */

static void read_lines(Collector *c, const char *path) {
    Error err = { 0 };
    Span text[3] = { { NULL, 0 }, { NULL, 0 }, { NULL, 0 } }, none = { NULL, 0 };
    Place at = { path, 0 };
    c->data.kind = DATA_TEXT;
    if (given.whole) {
        char *bytes;
        must(text_read_all(path, &pool, &bytes, &text[0].length, &err), &err, NULL);
        text[0].text = bytes;
        add_row(c, text, none, at);
    } else {
        Lines *lines = lines_open(path, &pool, &err);
        must(err.code, &err, NULL);
        while (lines_next(lines, &text[0].text, &text[0].length)) {
            PoolMark mark = pool_mark(&c->scratch);
            at.line++;
            if (text[0].length) add_row(c, text, none, at);
            pool_release(&c->scratch, mark);
        }
        must(lines_close(lines, &err), &err, NULL);
    }
}

static const char *path_of(const char *folder, const char *name) {
    Buffer b = { &pool, NULL, 0, 0, 0 };
    buffer_text(&b, folder);
    buffer_text(&b, "/");
    buffer_text(&b, name);
    buffer_u8(&b, 0);
    if (b.failed) need(NULL);
    return (const char *)b.data;
}

/* Reads FOLDER/train/{neg,pos}/ID_RATING.txt (or {neg,pos} in FOLDER itself), negative reviews first. */
static void read_imdb(Collector *c, const char *folder) {
    static const char *const part[] = { "neg", "pos" }, *const raw[] = { "negative", "positive" };
    const char *train = path_of(folder, "train"), *root = folder_exists(train) ? train : folder;
    Error err = { 0 };
    c->data.kind = DATA_TEXT;
    if (!given.labels) given.labels = "negative,positive";
    if (!c->values) parse_labels(c);
    for (int k = 0; k < 2; k++) {
        const char *from = path_of(root, part[k]);
        char **name;
        int count;
        if (!folder_exists(from))
            stop_at(E_MISSING, "no folder", from, 0, NULL,
                    "give the aclImdb folder (with train/pos and train/neg), or another --format");
        out_file_check("--out", given.out, &from, 1);
        must(folder_list(from, 0, &pool, &name, &count, &err), &err, NULL);
        for (int i = 0; i < count; i++) {
            PoolMark mark = pool_mark(&c->scratch);
            Place at = { path_of(from, name[i]), 0 };
            Span text[3] = { { NULL, 0 }, { NULL, 0 }, { NULL, 0 } }, label = { raw[k], 8 };
            size_t id = strspn(name[i], "0123456789");
            size_t rating = name[i][id] == '_' ? strspn(name[i] + id + 1, "0123456789") : 0;
            char *bytes;
            if (!id || !rating || strcmp(name[i] + id + 1 + rating, ".txt"))
                stop_at(E_FORMAT, "a name that is not ID_RATING.txt", at.file, 0, NULL,
                        "remove the file, or use --format text --whole");
            must(text_read_all(at.file, &c->scratch, &bytes, &text[0].length, &err), &err, NULL);
            text[0].text = bytes;
            add_row(c, text, label, at);
            pool_release(&c->scratch, mark);
        }
    }
}

/* Does what --max-documents N asks for: keeps N of M documents, evenly spread, so that an input that is
 * sorted by label keeps all labels. Keeps document i if a whole number is in (i N / M, (i+1) N / M]. */
static void keep_some(Dataset *d) {
    uint64_t N = (uint64_t)given.max_documents, M = d->count, kept = 0;
    if (!N || N >= M) return;
    for (uint64_t i = 0; i < M; i++)
        if ((i + 1) * N / M > i * N / M) d->document[kept++] = d->document[i];
    d->count = kept;
}

static int ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

/* Returns the format that --format auto means: aclImdb for a folder; for a file, the format
 * that the end of its name says. */
static int format_of(const char *path) {
    static const struct { const char *end; int format; } known[] = {
        { ".jsonl", FORMAT_JSONL }, { ".ndjson", FORMAT_JSONL }, { ".csv", FORMAT_CSV },
        { ".tsv", FORMAT_TSV }, { ".txt", FORMAT_TEXT },
        { ".gz", FORMAT_TEXT }, { ".bz2", FORMAT_TEXT }, { ".xz", FORMAT_TEXT }, { ".zst", FORMAT_TEXT }
        /* lines_open says of these that they are compressed */ };
    if (folder_exists(path)) return FORMAT_IMDB;
    for (size_t k = 0; k < sizeof known / sizeof *known; k++)
        if (ends_with(path, known[k].end)) return known[k].format;
    stop_at(E_UNSUPPORTED, "the name does not tell the format", path, 0, NULL,
            "give --format jsonl, csv, tsv, text, imdb or pairs");
    return FORMAT_AUTO;
}

static int input_format(const char *path) {
    return given.format == FORMAT_AUTO ? format_of(path) : given.format;
}

/* Refuses options that have no effect on any of the inputs. */
static void check_formats(const Program *p, const char **path, int paths) {
    enum { JSON = 1 << FORMAT_JSONL | 1 << FORMAT_PAIRS, TABLE = 1 << FORMAT_CSV | 1 << FORMAT_TSV,
           TEXT = 1 << FORMAT_TEXT, IMDB = 1 << FORMAT_IMDB };
    static const struct { const char *option; int formats; } acts[] = {
        { "template", JSON }, { "no-quotes", TABLE }, { "whole", TEXT }, { "labels", JSON | TABLE | IMDB },
        { "no-label", JSON | TABLE }, { "no-prompt", JSON | TABLE }, { "text", JSON | TABLE },
        { "label", JSON | TABLE }, { "prompt", JSON | TABLE }, { "response", JSON | TABLE },
        { "chosen", JSON | TABLE }, { "rejected", JSON | TABLE } };
    int formats = 0;
    for (int i = 0; i < paths; i++) formats |= 1 << input_format(path[i]);
    for (size_t k = 0; k < sizeof acts / sizeof *acts; k++) {
        char message[80];
        if ((formats & acts[k].formats) || !cli_given(p, acts[k].option)) continue;
        snprintf(message, sizeof message, "--%s has no effect on inputs of this format", acts[k].option);
        usage_error(message, path[0]);
    }
}

static void read_input(Collector *c, const char *path) {
    const int format = input_format(path);
    if (format == FORMAT_IMDB) read_imdb(c, path);
    else if (format == FORMAT_TEXT) read_lines(c, path);
    else if (format == FORMAT_CSV || format == FORMAT_TSV)
         read_table(c, path, format == FORMAT_CSV ? ',' : '\t');
    else read_jsonl(c, path);
}

static Option data_option[] = {
    { "out", OPT_TEXT, &given.out, NULL, 0, 0, NULL, "the dataset to write" },
    { "format", OPT_CHOICE, &given.format, "auto", 0, 0, "auto|jsonl|csv|tsv|text|imdb|pairs",
      "auto: chosen by the end of the file's name; pairs: JSONL with chosen and rejected" },
    { "text", OPT_TEXT, &given.text, NULL, 0, 0, NULL,
      "field with the text; a.b is field b of object a (default: text, review, sentence, tweet, content, "
      "document or messages)" },
    { "label", OPT_TEXT, &given.label, NULL, 0, 0, NULL,
      "field with the label: a string, whole number or truth value (default: label or sentiment, if there "
      "is such a field)" },
    { "no-label", OPT_FLAG, &given.no_label, NULL, 0, 0, NULL, "read no label" },
    { "labels", OPT_TEXT, &given.labels, NULL, 0, 0, NULL,
      "names in the order of their numbers (negative,positive), or values with names "
      "(0=negative,4=positive)" },
    { "prompt", OPT_TEXT, &given.prompt, NULL, 0, 0, NULL,
      "field with the prompt: makes a dataset of prompts with responses; with pairs, comes before both texts "
      "(default: prompt, if there is such a field)" },
    { "no-prompt", OPT_FLAG, &given.no_prompt, NULL, 0, 0, NULL,
      "with pairs: read no prompt, since the texts begin with it already" },
    { "response", OPT_TEXT, &given.response, NULL, 0, 0, NULL,
      "field with the response (default: response or completion)" },
    { "chosen", OPT_TEXT, &given.chosen, NULL, 0, 0, NULL,
      "field with the preferred text: makes a dataset of pairs" },
    { "rejected", OPT_TEXT, &given.rejected, NULL, 0, 0, NULL, "field with the other text" },
    { "template", OPT_CHOICE, &given.template, "none", 0, 0, "none|chatml|zephyr",
      "form of fields that are lists of messages (role, content) in JSONL; none: such fields are refused" },
    { "min-length", OPT_INT, &given.min_length, "0", 0, INT_MAX, NULL,
      "leave out documents of fewer characters (code points; those of a pair's texts are added). "
      "TRL's sentiment example: 201" },
    { "max-documents", OPT_INT, &given.max_documents, "0", 0, INT_MAX, NULL,
      "keep this many documents, evenly spread over the input (0: all)" },
    { "strip-html", OPT_FLAG, &given.strip_html, NULL, 0, 0, NULL,
      "tags and comments are left out (<br /> and the borders of paragraphs become a space), and &amp; "
      "and other references become characters" },
    { "fix-utf8", OPT_FLAG, &given.fix_utf8, NULL, 0, 0, NULL,
      "replace invalid UTF-8 by U+FFFD instead of stopping" },
    { "whole", OPT_FLAG, &given.whole, NULL, 0, 0, NULL,
      "with text: each file is one document, instead of each line" },
    { "no-quotes", OPT_FLAG, &given.no_quotes, NULL, 0, 0, NULL,
      "with csv, tsv: quotes have no special meaning" },
};

static int command_data(int argc, char **argv) {
    static const Need need[] = {
        { "label|labels", "!no-label", "no label is read" }, { NULL, NULL, NULL } };
    static const Program program = {
        .program = "prep data",
        .usage = "INPUT ... --out FILE.bin [--format NAME] [--text FIELD] [--label FIELD] ...",
        .about =
            "Makes a dataset from JSONL, CSV, TSV, plain text (each line a document), an aclImdb folder, "
            "preference pairs, or prompts with responses. "
            "Several inputs become one dataset. 5 % of the texts are held out, by their hash.",
        OPTIONS(data_option), .need = need };
    static Collector c;
    char number[64];
    const char *path[INPUTS_MAX];
    int paths = cli_parse(&program, argc, argv, path, INPUTS_MAX);
    if (!paths) usage_error("an input is missing", NULL);
    if (!given.out) usage_error("a file to write is missing: give --out FILE.bin", NULL);
    if (given.text && (given.prompt || given.response || given.chosen || given.rejected))
        usage_error("--text excludes --prompt, --response, --chosen and --rejected", NULL);
    if (given.response && (given.chosen || given.rejected))
        usage_error("--response excludes --chosen and --rejected", NULL);
    if (given.no_prompt && (given.prompt || given.response || given.text))
        usage_error("--no-prompt excludes --prompt, --response and --text", NULL);
    check_formats(&program, path, paths);
    for (int i = 0; i < paths; i++)
        if (!folder_exists(path[i])) out_file_check("--out", given.out, &path[i], 1);
    c.scratch = cli_pool();
    if (given.labels) parse_labels(&c);
    for (int i = 0; i < paths; i++) read_input(&c, path[i]);
    if (!c.data.count)
        stop_at(E_MISSING, "no documents", path[0], 0, NULL, "check the input, --min-length and the fields");
    sort_labels(&c);
    keep_some(&c.data);
    c.data.label = c.name;
    write_dataset(&c.data, given.out);
    if (c.unlabelled) say("  no label: there is no field label or sentiment (--label names another)");
    if (c.field[2]) printf("  the prompt (field %s) comes before both texts\n", c.field[2]);
    if (c.doubled)
        say("  twice: both texts of %s began with the prompt already (--no-prompt adds none)",
            counted(number, (size_t)c.doubled, "pair"));
    if (c.empty) printf("  left out: %llu without text\n", (unsigned long long)c.empty);
    if (c.too_short)
        say("  left out: %llu shorter than %s", (unsigned long long)c.too_short,
            counted(number, (size_t)given.min_length, "character"));
    pool_free(&c.scratch);
    return 0;
}

/* ================================================================================================
 * prep tokenizer
 * ================================================================================================ */
typedef struct { const Dataset *data; uint64_t document; int text; } TrainTexts;

/* Sets *text and *length to the next text of the training split (of pairs and prompts, both
 * texts). Returns 0 after the last. */
static int next_text(void *context, const char **text, size_t *length) {
    TrainTexts *t = context;
    int texts = t->data->kind == DATA_TEXT ? 1 : 2;
    const Document *doc = t->data->document;
    while (t->document < t->data->count && (doc[t->document].split || t->text == texts)) {
        t->document++;
        t->text = 0;
    }
    if (t->document == t->data->count) return 0;
    *text = doc[t->document].text[t->text];
    *length = doc[t->document].length[t->text];
    t->text++;
    return 1;
}

/* The kinds in the order of --kind's choices; `train` has those before WORDPIECE. */
enum { WORDPIECE = 4 };
static Tokenizer *(*const train[WORDPIECE])(TextSource, int, Pool *, Error *) = {
    tokenizer_train_sentencepiece, tokenizer_train_bytelevel, tokenizer_train_unigram, tokenizer_train_gpt2
};

static int command_tokenizer(int argc, char **argv) {
    static const char *const name[] = { "SentencePiece", "byte-level BPE", "SentencePiece unigram", "GPT-2",
        "WordPiece" };
    static int kind, vocab, cased, max_length, force;
    static const char *out;
    static RunFolder to;
    static Option option[] = {
        { "kind", OPT_CHOICE, &kind, "sentencepiece", 0, 0, "sentencepiece|bytelevel|unigram|gpt2|wordpiece",
          "sentencepiece: BPE with byte fallback, as Llama's; bytelevel: BPE over bytes, as RoBERTa's; "
          "unigram: SentencePiece's other model; gpt2: BPE over bytes with GPT-2's special token; wordpiece: "
          "BERT's and DistilBERT's, in lower case and without accents" },
        { "vocab", OPT_INT, &vocab, "1024", 1, 1000000, NULL,
          "number of ids, including special tokens and (but for wordpiece) 256 bytes" },
        { "cased", OPT_FLAG, &cased, NULL, 0, 0, NULL, "wordpiece: keep capitals and accents" },
        { "max-length", OPT_INT, &max_length, "512", 1, 1000000, NULL,
          "model_max_length in tokenizer_config.json" },
        { "out", OPT_TEXT, &out, NULL, 0, 0, NULL, "the folder to write" },
        FORCE_OPTION(force),
    };
    static const Program program = {
        .program = "prep tokenizer",
        .usage = "DATA.bin --out DIR [--kind KIND] [--vocab N]",
        .about =
            "Trains a tokenizer on the training documents of a dataset, and writes the files that Hugging "
            "Face tools read.",
        OPTIONS(option) };
    const char *path[1];
    Error err = { 0 };
    Dataset d;
    TrainTexts texts = { &d, 0, 0 };
    TextSource source;
    Tokenizer *t;
    if (cli_parse(&program, argc, argv, path, 1) < 1) usage_error("a dataset is missing", NULL);
    if (!out) usage_error("a folder to write is missing: give --out DIR", NULL);
    if (cased && kind != WORDPIECE) usage_error("--cased is for --kind wordpiece", NULL);
    out_check(out, force, path, 1);
    must(dataset_read(&d, path[0], &pool, &err), &err, "make the dataset with prep grammar or prep data");
    source.next = next_text;
    source.context = &texts;
    t = kind == WORDPIECE ? tokenizer_train_wordpiece(source, vocab, cased, &pool, &err)
        : train[kind](source, vocab, &pool, &err);
    if (!t) die(&err, "use another --vocab, or more text");
    out_open(&to, out, force, NULL, "tokenizer");
    must(tokenizer_save(t, to.path, max_length, &pool, &err), &err, NULL);
    must(out_commit(&to, &err), &err, NULL);
    printf("%s: %s tokenizer of %d ids, trained on %s\n", out,
           name[kind], tokenizer_size(t), path[0]);
    return 0;
}

/* ================================================================================================
 * prep show
 * ================================================================================================ */
static int command_show(int argc, char **argv) {
    static int count, held_out;
    static Option option[] = {
        { "n", OPT_INT, &count, "5", 0, INT_MAX, NULL, "documents to print" },
        { "held-out", OPT_FLAG, &held_out, NULL, 0, 0, NULL,
          "print held-out documents instead of training documents" },
    };
    static const Program program = {
        .program = "prep show",
        .usage = "DATA.bin [-n N] [--held-out]",
        .about = "Prints what a dataset holds, and some of its documents.",
        OPTIONS(option) };
    static const char *const name[][2] = { { "", "" }, { "", "" }, { "chosen: ", "rejected: " },
                                           { "prompt: ", "response: " } };
    const char *path[1];
    Error err = { 0 };
    Dataset d;
    if (cli_parse(&program, argc, argv, path, 1) < 1) usage_error("a dataset is missing", NULL);
    must(dataset_read(&d, path[0], &pool, &err), &err, "make the dataset with prep grammar or prep data");
    print_statistics(&d, path[0]);
    for (uint64_t i = 0; i < d.count && count > 0; i++) {
        const Document *doc = &d.document[i];
        if (doc->split != held_out) continue;
        count--;
        printf("\n#%llu", (unsigned long long)i);
        if (doc->label >= 0) printf(" [%s]", d.label[doc->label]);
        printf("\n");
        for (int k = 0; k < (d.kind == DATA_TEXT ? 1 : 2); k++) {
            printf("%s", name[d.kind][k]);
            print_visible(doc->text[k], doc->length[k], 1);
            printf("\n");
        }
    }
    return 0;
}

/* ================================================================================================
 * prep llama2c
 * ================================================================================================ */
/* Writes the model's tokenizer, and puts its special ids into the config. A file of
 * SentencePiece is also copied as it is. */
static void llama2c_tokenizer(Llama2c *l, const char *from, const char *out) {
    Error err = { 0 };
    Tokenizer *t = tokenizer_open(from, &pool, &err);
    SpecialIds special;
    char *bytes;
    size_t n;
    if (!t) die(&err, "give --tokenizer the model's tokenizer.model");
    if (tokenizer_size(t) > l->config.V) {
        fail(&err, E_RANGE, "more ids in the tokenizer than in the model", from, tokenizer_size(t),
             l->config.V);
        die(&err, "give --tokenizer the file that the model was trained with");
    }
    special = tokenizer_specials(t);
    l->config.bos = special.bos;
    l->config.eos[0] = special.eos;
    l->config.eos_count = special.eos >= 0;
    must(tokenizer_save(t, out, l->config.positions, &pool, &err), &err, NULL);
    if (tokenizer_kind(t) != TOKENIZER_SENTENCEPIECE || folder_exists(from)) return;
    must(file_read_all(from, &pool, &bytes, &n, &err), &err, NULL);
    must(file_write_all(path_of(out, "tokenizer.model"), bytes, n, &pool, &err), &err, NULL);
}

static int command_llama2c(int argc, char **argv) {
    static const char *tokenizer, *out;
    static int dtype, force;
    static RunFolder to;
    static Option option[] = {
        { "out", OPT_TEXT, &out, NULL, 0, 0, NULL, "the folder to write" },
        FORCE_OPTION(force),
        { "tokenizer", OPT_TEXT, &tokenizer, NULL, 0, 0, NULL,
          "the model's tokenizer.model (or a folder with it), which is copied; tokenizer.bin is not needed" },
        { "dtype", OPT_CHOICE, &dtype, "f32", 0, 0, "f32|bf16|f16", "type of the numbers in the file" },
    };
    static const Program program = {
        .program = "prep llama2c",
        .usage = "FILE.bin --out DIR [--tokenizer tokenizer.model]",
        .about =
            "Makes a Hugging Face folder (config.json, generation_config.json, model.safetensors) from a "
            "checkpoint of llama2.c: legacy, version 1 (float32) or version 2 (int8).",
        OPTIONS(option) };
    static const int type[] = { F32, BF16, F16 };
    Llama2c l;
    char number[2][64];
    const char *path;
    Error err = { 0 };
    if (cli_parse(&program, argc, argv, &path, 1) < 1) usage_error("a checkpoint is missing", NULL);
    if (!out) usage_error("a folder to write is missing: give --out DIR", NULL);
    const char *const input[] = { path, tokenizer };
    out_check(out, force, input, 2);
    must(llama2c_load(&l, path, &pool, &err), &err,
         "give a checkpoint of llama2.c (legacy, version 1 or version 2)");
    out_open(&to, out, force, NULL, "llama2c");
    if (tokenizer) llama2c_tokenizer(&l, tokenizer, to.path);
    must(checkpoint_save(to.path, "model", l.tensor, l.tensors, type[dtype], 0, &pool, &err), &err, NULL);
    must(config_save(&l.config, NULL, to.path, type[dtype], &pool, &err), &err, NULL);
    must(out_commit(&to, &err), &err, NULL);
    say("%s: %s of a Llama (%s, width %d, vocabulary %d), from llama2.c's %s", out,
        counted(number[0], (size_t)l.tensors, "tensor"),
        counted(number[1], (size_t)l.config.stack.L, "layer"), l.config.stack.C, l.config.V,
        l.version == 2 ? "version 2 (int8)" : l.version ? "version 1" : "legacy file");
    return 0;
}

/* ================================================================================================ */

int main(int argc, char **argv) {
    static const Command command[] = {
        { "grammar", command_grammar, "expand a grammar into a labelled dataset" },
        { "data", command_data, "make a dataset from JSONL, CSV, TSV, text, an aclImdb folder or "
                                "preference pairs" },
        { "tokenizer", command_tokenizer, "train a tokenizer on a dataset" },
        { "show", command_show, "print what a dataset holds" },
        { "llama2c", command_llama2c, "make a Hugging Face folder from a checkpoint of llama2.c" },
    };
    pool = cli_pool();
    const int code = cli_command("prep", "Makes datasets from texts, tokenizers from datasets, and Hugging "
                                 "Face folders from llama2.c's checkpoints.", command,
                                 (int)(sizeof command / sizeof *command), argc, argv);
    pool_free(&pool);
    return code;
}
