/* prep.c - text into datasets, and datasets into tokenizers: `prep grammar | data | tokenizer | show`.
 *
 * What it is   The first program of the pipeline. A dataset holds documents, not tokens (DESIGN section 4), so that policy
 *              and judge each cut it with their own tokenizer; 5 % of it, chosen by a hash of the text, is held out.
 * Needs        core.c (JSON, UTF-8, random streams), tokenizer.c (training), io.c (files, datasets), cli.c.
 * Never        skips a malformed row in silence: it names file, line and field, and stops. Two runs give the same bytes.
 * Grammar      weighted context-free rules in which every rule has a good and a bad sense; the notation is explained at the
 *              top of data/grammar.txt. Document i is drawn from the stream (seed, 0, i): one that comes out too short, too
 *              long, or equal to an earlier one is drawn again from the same stream.
 * Edges        CSV as RFC 4180 has it: quoted fields may hold commas, doubled quotes and line breaks; \n and \r\n end a
 *              record; names in the header are compared without case. Empty lines are no records. */
#include "rlhf.h"
#include <stdio.h>

static Pool pool;                           /* everything that lives to the end of the program */

/* `what: FILE, line N, field F`, then what to try. */
static void stop_at(int code, const char *what, const char *file, long long line, const char *field, const char *hint) {
    Error err = { 0 };
    char where[256];
    if (line > 0) snprintf(where, sizeof where, "%.150s, line %lld%s%.60s", file, line, field ? ", field " : "", field ? field : "");
    else snprintf(where, sizeof where, "%.150s%s%.60s", file, field ? ", field " : "", field ? field : "");
    fail(&err, code, what, where, 0, 0);
    die(&err, hint);
}
static void *need(void *memory) {
    Error err = { 0 };
    if (!memory) must(fail(&err, E_MEMORY, "out of memory", "the documents", 0, 0), &err, "use a smaller input, or --max-documents");
    return memory;
}
static void *take(size_t count, size_t size) { return need(pool_take(&pool, count, size)); }
static char *keep(const char *text, size_t n) { return need(pool_text(&pool, text, n)); }

/* ---- the documents that a command collects ---- */

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

static uint64_t words_of(const char *s, size_t n) {
    uint64_t words = 0;
    for (size_t i = 0; i < n; i++)
        words += (unsigned char)s[i] > ' ' && (i == 0 || (unsigned char)s[i - 1] <= ' ');
    return words;
}

/* Documents, labels, splits, mean words: what every command prints at its end. */
static void print_statistics(const Dataset *d, const char *path) {
    static const char *const kind[] = { "", "texts", "pairs (chosen, rejected)", "prompts with responses" };
    uint64_t held_out = 0, words = 0, bytes = 0;
    printf("%s: %llu %s", path, (unsigned long long)d->count, kind[d->kind]);
    for (uint64_t i = 0; i < d->count; i++) {
        const Document *doc = &d->document[i];
        held_out += doc->split != 0;
        for (int k = 0; k < (d->kind == DATA_TEXT ? 1 : 2); k++) { words += words_of(doc->text[k], doc->length[k]); bytes += doc->length[k]; }
    }
    printf(", %llu held out, %.1f words and %.1f bytes each\n", (unsigned long long)held_out,
           d->count ? (double)words / (double)d->count : 0.0, d->count ? (double)bytes / (double)d->count : 0.0);
    for (int k = -1; k < d->labels; k++) {
        uint64_t n = 0;
        for (uint64_t i = 0; i < d->count; i++) n += d->document[i].label == k;
        if (k >= 0 || (n && d->labels)) printf("  label %-12s %llu\n", k < 0 ? "(none)" : d->label[k], (unsigned long long)n);
    }
}

static void write_dataset(Dataset *d, const char *path) {
    Error err = { 0 };
    must(dataset_write(d, path, &pool, &err), &err, "check --out: its folder, its permissions, the free space");
    print_statistics(d, path);
}

/* ================================================================================================================
 * prep grammar
 * ================================================================================================================ */
/* A grammar as it is read: rules own alternatives, alternatives own items, all in lists. An item is a piece of text or a
 * reference; a group in brackets is a rule without a name. */
enum { ITEM_TEXT, ITEM_RULE, ITEM_ARGUMENT };                   /* ITEM_ARGUMENT: {*} */
enum { SAME, OPPOSITE, COIN };                                  /* {x} {!x} {?x} */
enum { DEPTH_MAX = 64, MEMORY_MAX = 64, TRIES_MAX = 1000, USED_TRIES = 8, PLAIN_MIN = 8 };
typedef struct Rule Rule;
typedef struct Item Item;
typedef struct Alternative Alternative;
struct Item { int type, turn; const char *text; size_t length; Rule *rule, *argument; const char *tag; Item *next; };
struct Alternative { int sense; uint64_t weight, used; Item *first; Alternative *next; };      /* sense 0: both, else +1 or -1 */
struct Rule { const char *name; size_t length; long long line; Alternative *first; int alternatives, plain, once; uint64_t total[2]; Rule *next; };
typedef struct { const Rule *rule; const char *tag; size_t at, length; } Memory;    /* {x#1}: where its text stands in `kept` */
typedef struct {
    const char *path;
    Rule *rules, *start;
    long long words_min, words_max;
    double noise;
    /* the document that is being written */
    Rng rng;
    uint64_t document;                      /* stamps the alternatives that it has used */
    Memory memory[MEMORY_MAX]; int memories;
    Buffer out, kept;
} Grammar;

static void grammar_stop(const Grammar *g, long long line, const char *what, const char *name, size_t n) {
    char field[64];
    snprintf(field, sizeof field, "%.*s", (int)(n < 60 ? n : 60), name);
    stop_at(E_FORMAT, what, g->path, line, n ? field : NULL, "the notation is explained at the top of data/grammar.txt");
}

static int is_name(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; }
static size_t name_length(const char *s, size_t n) { size_t i = 0; while (i < n && is_name(s[i])) i++; return i; }

/* The rule of that name, made when it is not there yet (it may be defined further down). */
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

/* {name} {!name} {?name} {name:argument} {name#tag} {*}: s points behind the brace; returns the letters used, with the last brace. */
static size_t parse_reference(Grammar *g, Item *item, const char *s, size_t n, long long line) {
    size_t i = 0, k;
    if (i < n && (s[i] == '!' || s[i] == '?')) item->turn = s[i++] == '!' ? OPPOSITE : COIN;
    if (i < n && s[i] == '*') { item->type = ITEM_ARGUMENT; i++; }
    else {
        k = name_length(s + i, n - i);
        if (!k) grammar_stop(g, line, "a name is missing behind {", s, n < 20 ? n : 20);
        item->type = ITEM_RULE;
        item->rule = rule_named(g, s + i, k, line);
        i += k;
    }
    if (i < n && s[i] == ':') {
        k = name_length(s + i + 1, n - i - 1);
        if (!k) grammar_stop(g, line, "a name is missing behind :", s, n < 20 ? n : 20);
        item->argument = rule_named(g, s + i + 1, k, line);
        i += 1 + k;
    }
    if (i < n && s[i] == '#') {
        k = name_length(s + i + 1, n - i - 1);
        if (!k) grammar_stop(g, line, "a name is missing behind #", s, n < 20 ? n : 20);
        item->tag = keep(s + i + 1, k);
        i += 1 + k;
    }
    if (i == n || s[i] != '}') grammar_stop(g, line, "} is missing", s, n < 20 ? n : 20);
    return i + 1;
}

/* The length of what stands before the bracket that closes the one before s. */
static size_t group_length(const Grammar *g, const char *s, size_t n, long long line) {
    int depth = 1;
    for (size_t i = 0; i < n; i++) {
        depth += (s[i] == '(') - (s[i] == ')');
        if (!depth) return i;
    }
    grammar_stop(g, line, ") is missing", s, n < 20 ? n : 20);
    return 0;
}

/* One alternative: [weight*] text, references and groups. */
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
                if (s[i] == '}' || s[i] == ')') grammar_stop(g, line, "a bracket closes that was never opened", s, n < 20 ? n : 20);
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

/* Alternatives separated by | outside of brackets. */
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

/* %start NAME, %words MIN MAX, %noise X. */
static void parse_directive(Grammar *g, const char *line, long long number) {
    char name[64];
    long long a = 0, b = 0;
    double x = 0;
    if (sscanf(line, "%%start %60s", name) == 1) g->start = rule_named(g, name, strlen(name), number);
    else if (sscanf(line, "%%words %lld %lld", &a, &b) == 2 && a > 0 && a <= b) { g->words_min = a; g->words_max = b; }
    else if (sscanf(line, "%%noise %lf", &x) == 1 && x >= 0 && x <= 0.5) g->noise = x;
    else grammar_stop(g, number, "no such directive (%start NAME, %words MIN MAX, %noise 0 to 0.5)", line, strlen(line));
}

/* A line at the margin is a header (`name:`, `name good:`, `name bad:`, `name once:`), perhaps with alternatives behind it; a line that begins
 * with a space has more alternatives; # makes a comment of a whole line. */
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
        const char *s = keep(line, n);      /* items point into it */
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
            if (n <= k || s[k] != ':') grammar_stop(g, number, "a header is `name:`, `name good:`, `name bad:` or `name once:`", s, n < 20 ? n : 20);
            s += k + 1; n -= k + 1;
            if (strspn(s, " ") == n) continue;
        } else if (!rule) grammar_stop(g, number, "an alternative before the first rule", "", 0);
        parse_choices(g, rule, sense, s, n, number);
    }
    must(lines_close(lines, &err), &err, NULL);
    for (Rule *r = g->rules; r; r = r->next)
        if (!r->first) grammar_stop(g, r->line, "a rule without alternatives", r->name, r->length);
    if (!g->start) stop_at(E_MISSING, "no %start directive", path, 0, NULL, "add a line `%start NAME`");
}

/* An alternative that fits the sense (+1 or -1), by weight. `once` rules and rules of many plain
 * texts avoid what the document has said already. */
static const Alternative *draw(Grammar *g, const Rule *r, int sense) {
    uint64_t total = r->total[sense < 0];
    Alternative *a = NULL;
    if (!total) grammar_stop(g, r->line, sense > 0 ? "a rule without a good side is used in a good sense" : "a rule without a bad side is used in a bad sense", r->name, r->length);
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

/* {rule#tag}: the first expansion is kept, later ones repeat it. */
static void expand_kept(Grammar *g, const Item *item, const Rule *argument, int sense, int depth) {
    size_t from = g->out.length;
    for (int i = 0; i < g->memories; i++) {
        const Memory *m = &g->memory[i];
        if (m->rule != item->rule || strcmp(m->tag, item->tag)) continue;
        buffer_bytes(&g->out, g->kept.data + m->at, m->length);
        return;
    }
    expand(g, item->rule, argument, sense, depth);
    if (g->memories == MEMORY_MAX) grammar_stop(g, item->rule->line, "too many {name#tag} in one document", item->rule->name, item->rule->length);
    g->memory[g->memories].rule = item->rule;
    g->memory[g->memories].tag = item->tag;
    g->memory[g->memories].at = g->kept.length;
    g->memory[g->memories++].length = g->out.length - from;
    buffer_bytes(&g->kept, g->out.data + from, g->out.length - from);
}

static void expand(Grammar *g, const Rule *r, const Rule *argument, int sense, int depth) {
    if (depth > DEPTH_MAX) grammar_stop(g, r->line, "a rule contains itself without an end", r->name, r->length);
    for (const Item *item = draw(g, r, sense)->first; item; item = item->next) {
        int turned = item->turn == OPPOSITE ? -sense : item->turn == COIN && rng_below(&g->rng, 2) ? -sense : sense;
        const Rule *given = item->argument ? item->argument : argument;
        if (item->type == ITEM_TEXT) buffer_bytes(&g->out, item->text, item->length);
        else if (item->type == ITEM_ARGUMENT) {
            if (!argument) grammar_stop(g, r->line, "{*} in a rule that was used without an argument", r->name, r->length);
            expand(g, argument, NULL, turned, depth + 1);
        } else if (item->tag) expand_kept(g, item, given, turned, depth + 1);
        else expand(g, item->rule, given, turned, depth + 1);
    }
}

/* "a" or "an" by the letters of the next word; enough for a grammar whose words we chose. */
static int sounds_as_vowel(const char *s, size_t n) {
    static const char *const consonant[] = { "uni", "use", "usu", "eu", "one", "once" }, *const vowel[] = { "hour", "hon", "heir" };
    for (size_t k = 0; k < sizeof consonant / sizeof *consonant; k++)
        if (n >= strlen(consonant[k]) && !memcmp(s, consonant[k], strlen(consonant[k]))) return 0;
    for (size_t k = 0; k < sizeof vowel / sizeof *vowel; k++)
        if (n >= strlen(vowel[k]) && !memcmp(s, vowel[k], strlen(vowel[k]))) return 1;
    return n && strchr("aeiouAEIOU", s[0]) != NULL;
}

/* Single spaces, none before punctuation, a capital at the beginning of a sentence, a or an. Returns the number of words. */
static uint64_t tidy(Buffer *out, const char *s, size_t n) {
    int capital = 1;
    uint64_t words = 0;
    for (size_t i = 0; i < n; i++) {
        int first = i == 0 || s[i - 1] == ' ' || s[i - 1] == '"';
        char c = s[i];
        if (c == ' ') {
            if (out->length && out->data[out->length - 1] != ' ' && i + 1 < n && !strchr(" ,.;:!?", s[i + 1])) buffer_u8(out, ' ');
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

/* Document `index`: the sense first, then the text in this sense, then perhaps the wrong label. */
static void draw_document(Grammar *g, uint64_t seed, uint64_t index, Document *doc, Buffer *text, uint64_t *seen, uint64_t slots) {
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
        buffer_u8(&g->out, 0);              /* tidy looks ahead with strspn */
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
        doc->split = dataset_split(doc->text[0], text->length);
        return;
    }
    stop_at(E_RANGE, "no new document of the wanted length after 1000 tries", g->path, 0, NULL, "ask for fewer documents (--count), or widen %words");
}

static int command_grammar(int argc, char **argv) {
    static int count;
    static uint64_t seed;
    static const char *out;
    static Option option[] = {
        { "out", OPT_TEXT, &out, "data/imdb.bin", 0, 0, NULL, "the dataset to write" },
        { "count", OPT_INT, &count, "20000", 1, 50000000, NULL, "documents" },
        { "seed", OPT_SEED, &seed, "1", 0, 0, NULL, "of the random streams" },
    };
    static const Program program = { "prep grammar", "GRAMMAR.txt [--out FILE.bin] [--count N] [--seed N]",
        "Expands a grammar into a labelled dataset (negative, positive). The notation is explained at the top of data/grammar.txt.",
        option, sizeof option / sizeof *option, NULL, 0 };
    static Grammar grammar;
    static char negative[] = "negative", positive[] = "positive";
    static char *label[] = { negative, positive };
    const char *path[1];
    Dataset d = { DATA_TEXT, 2, 0, label, NULL };
    Buffer text = { &pool, NULL, 0, 0, 0 };
    uint64_t slots = 1024, *seen;
    if (cli_parse(&program, NULL, argc, argv, path, 1) < 1) usage_error("a grammar is missing", NULL);
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

/* ================================================================================================================
 * prep tokenizer
 * ================================================================================================================ */
typedef struct { const Dataset *data; uint64_t document; int text; } TrainTexts;

/* Both texts of every document of the train split. */
static int next_text(void *context, const char **text, size_t *length) {
    TrainTexts *t = context;
    int texts = t->data->kind == DATA_TEXT ? 1 : 2;
    while (t->document < t->data->count && (t->data->document[t->document].split || t->text == texts)) { t->document++; t->text = 0; }
    if (t->document == t->data->count) return 0;
    *text = t->data->document[t->document].text[t->text];
    *length = t->data->document[t->document].length[t->text];
    t->text++;
    return 1;
}

static int command_tokenizer(int argc, char **argv) {
    static int kind, vocab, max_length;
    static const char *out;
    static Option option[] = {
        { "kind", OPT_CHOICE, &kind, "sentencepiece", 0, 0, "sentencepiece|bytelevel",
          "sentencepiece: BPE with byte fallback, as Llama's; bytelevel: BPE over bytes, as RoBERTa's" },
        { "vocab", OPT_INT, &vocab, "1024", 1, 1000000, NULL, "ids, the special ones and the 256 bytes included" },
        { "max-length", OPT_INT, &max_length, "512", 1, 1000000, NULL, "model_max_length in tokenizer_config.json" },
        { "out", OPT_TEXT, &out, NULL, 0, 0, NULL, "the folder to write (it is made)" },
    };
    static const Program program = { "prep tokenizer", "DATA.bin --out DIR [--kind sentencepiece|bytelevel] [--vocab N]",
        "Trains a tokenizer on the train split of a dataset and saves it with the files that Hugging Face tools read.",
        option, sizeof option / sizeof *option, NULL, 0 };
    const char *path[1];
    Error err = { 0 };
    Dataset d;
    TrainTexts texts = { &d, 0, 0 };
    TextSource source;
    Tokenizer *t;
    if (cli_parse(&program, NULL, argc, argv, path, 1) < 1) usage_error("a dataset is missing", NULL);
    if (!out) usage_error("a folder to write is missing: give --out DIR", NULL);
    must(dataset_read(&d, path[0], &pool, &err), &err, "make the dataset with prep grammar or prep data");
    source.next = next_text;
    source.context = &texts;
    t = kind == TOKENIZER_SENTENCEPIECE ? tokenizer_train_sentencepiece(source, vocab, &pool, &err)
                                        : tokenizer_train_bytelevel(source, vocab, &pool, &err);
    if (!t) die(&err, "use another --vocab, or more text");
    must(folder_make(out, &err), &err, NULL);
    must(tokenizer_save(t, out, max_length, &pool, &err), &err, NULL);
    printf("%s: %s tokenizer of %d ids, trained on %s\n", out, kind == TOKENIZER_SENTENCEPIECE ? "SentencePiece" : "byte-level BPE",
           tokenizer_size(t), path[0]);
    return 0;
}

/* ================================================================================================================
 * prep show
 * ================================================================================================================ */
static int command_show(int argc, char **argv) {
    static int count, held_out;
    static Option option[] = {
        { "n", OPT_INT, &count, "5", 0, INT_MAX, NULL, "documents to print" },
        { "held-out", OPT_FLAG, &held_out, NULL, 0, 0, NULL, "print documents of the held-out part instead of the train part" },
    };
    static const Program program = { "prep show", "DATA.bin [-n N] [--held-out]", "Prints what a dataset holds, and some of its documents.",
        option, sizeof option / sizeof *option, NULL, 0 };
    static const char *const name[][2] = { { "", "" }, { "", "" }, { "chosen: ", "rejected: " }, { "prompt: ", "response: " } };
    const char *path[1];
    Error err = { 0 };
    Dataset d;
    if (cli_parse(&program, NULL, argc, argv, path, 1) < 1) usage_error("a dataset is missing", NULL);
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
            fwrite(doc->text[k], 1, doc->length[k], stdout);
            printf("\n");
        }
    }
    return 0;
}

/* ================================================================================================================ */

int main(int argc, char **argv) {
    static const struct { const char *name; int (*run)(int, char **); const char *help; } command[] = {
        { "grammar", command_grammar, "expand a grammar into a labelled dataset" },
        { "tokenizer", command_tokenizer, "train a tokenizer on a dataset" },
        { "show", command_show, "print what a dataset holds" },
    };
    static const Program program = { "prep", "COMMAND ... (each command has its own --help)",
        "Text into datasets, and datasets into tokenizers. Commands:\n"
        "  grammar    expand a grammar into a labelled dataset\n"
        "  tokenizer  train a tokenizer on a dataset\n"
        "  show       print what a dataset holds", NULL, 0, NULL, 0 };
    const char *none[1];
    int code;
    pool = cli_pool();
    for (size_t k = 0; argc > 1 && k < sizeof command / sizeof *command; k++)
        if (!strcmp(argv[1], command[k].name)) {
            code = command[k].run(argc - 1, argv + 1);
            if (fflush(stdout) || ferror(stdout)) stop_at(E_WRITE, "cannot write", "standard output", 0, NULL, NULL);
            pool_free(&pool);
            return code;
        }
    cli_parse(&program, NULL, argc, argv, none, argc > 1 ? 1 : 0);
    usage_error(argc > 1 ? "no such command (grammar, data, tokenizer, show)" : "a command is missing (grammar, data, tokenizer, show)",
                argc > 1 ? argv[1] : NULL);
    return 2;
}
