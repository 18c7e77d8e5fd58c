/* prep_data.c - prep data: makes a dataset from files, folders and the options that say how to read them. */
#include "prep.h"
#include <stdio.h>

enum { INPUTS_MAX = 64 };
static DataOptions given;

static void read_lines(Collector *c, const char *path) {
    Error err = { 0 };
    Span text[3] = { { NULL, 0 }, { NULL, 0 }, { NULL, 0 } };
    Place at = { path, 0 };
    c->data.kind = DATA_TEXT;
    if (c->given->whole) {
        char *bytes;
        must(text_read_all(path, prep_pool(), &bytes, &text[0].length, &err), &err, NULL);
        text[0].text = bytes;
        add_row(c, text, -1, at);
    } else {
        Lines *lines = lines_open(path, prep_pool(), &err);
        must(err.code, &err, NULL);
        while (lines_next(lines, &text[0].text, &text[0].length)) {
            PoolMark mark = pool_mark(&c->scratch);
            at.line++;
            if (text[0].length) add_row(c, text, -1, at);
            pool_release(&c->scratch, mark);
        }
        must(lines_close(lines, &err), &err, NULL);
    }
}

/* Reads FOLDER/train/{neg,pos}/ID_RATING.txt (or {neg,pos} in FOLDER itself), negative reviews first. */
static void read_imdb(Collector *c, const char *folder) {
    static const char *const part[] = { "neg", "pos" }, *const raw[] = { "negative", "positive" };
    const char *train = path_of(folder, "train"), *root = folder_exists(train) ? train : folder;
    Error err = { 0 };
    c->data.kind = DATA_TEXT;
    if (!c->given->labels) c->given->labels = "negative,positive";
    if (!c->values) parse_labels(c);
    for (int k = 0; k < 2; k++) {
        const char *from = path_of(root, part[k]);
        char **name;
        int count;
        if (!folder_exists(from))
            prep_stop(E_MISSING, "no folder", from, 0, NULL,
                      "give the aclImdb folder (with train/pos and train/neg), or another --format");
        out_file_check("--out", c->given->out, &from, 1);
        must(folder_list(from, 0, prep_pool(), &name, &count, &err), &err, NULL);
        for (int i = 0; i < count; i++) {
            PoolMark mark = pool_mark(&c->scratch);
            Place at = { path_of(from, name[i]), 0 };
            Span text[3] = { { NULL, 0 }, { NULL, 0 }, { NULL, 0 } }, label = { raw[k], 8 };
            size_t id = strspn(name[i], "0123456789");
            size_t rating = name[i][id] == '_' ? strspn(name[i] + id + 1, "0123456789") : 0;
            char *bytes;
            if (!id || !rating || strcmp(name[i] + id + 1 + rating, ".txt"))
                prep_stop(E_FORMAT, "a name that is not ID_RATING.txt", at.file, 0, NULL,
                          "remove the file, or use --format text --whole");
            must(text_read_all(at.file, &c->scratch, &bytes, &text[0].length, &err), &err, NULL);
            text[0].text = bytes;
            add_row(c, text, label_of(c, label, at), at);
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
    prep_stop(E_UNSUPPORTED, "the name does not tell the format", path, 0, NULL,
            "give --format jsonl, csv, tsv, text, imdb or pairs");
    return FORMAT_AUTO;
}

static int input_format(const char *path) {
    return given.format == FORMAT_AUTO ? format_of(path) : given.format;
}

/* Refuses options that have no effect on any of the inputs. */
static void check_formats(const Program *p, const Collector *c, const char **path, int paths) {
    enum { JSON = 1 << FORMAT_JSONL | 1 << FORMAT_PAIRS, TABLE = 1 << FORMAT_CSV | 1 << FORMAT_TSV,
           TEXT = 1 << FORMAT_TEXT, IMDB = 1 << FORMAT_IMDB };
    const struct { const char *option; int formats; } acts[] = {
        { "template", c->chat ? JSON : JSON | TABLE }, { "no-quotes", TABLE }, { "whole", TEXT },
        { "labels", JSON | TABLE | IMDB }, { "where", JSON | TABLE },
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
      "field with the text; a.b is field b of object a; or a text with {NAME} places, as in --template: "
      "'{prompt.text}{continuation.text}' (default: text, review, sentence, tweet, content, document or "
      "messages)" },
    { "label", OPT_TEXT, &given.label, NULL, 0, 0, NULL,
      "field with the label: a string, whole number or truth value (default: label or sentiment, if there "
      "is such a field); of pairs, with the probability that the first text is better, from 0 to 1 (default: "
      "probability; rows without it: 1)" },
    { "no-label", OPT_FLAG, &given.no_label, NULL, 0, 0, NULL, "read no label, or of pairs no probability" },
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
    { "template", OPT_TEXT, &given.template, "none", 0, 0, NULL,
      "a text with {NAME} places, such as 'Summarize.\\n\\n{dialogue}\\n\\nSummary:\\n': makes the prompt "
      "from the row's fields; {{ and }} are braces; \\n, \\t, \\\\ a line break, tab, backslash. Or chatml, "
      "zephyr: the form of fields that are lists of messages (role, content) in JSONL; none: such fields are "
      "refused" },
    { "where", OPT_TEXT, &given.where, NULL, 0, 0, NULL,
      "leave out rows for which this does not hold: FIELD > VALUE, or with >=, <, <=, = or != between them; "
      "with the first four a field without a number (null, an empty cell) is left out; 'FIELD !=' leaves out "
      "null and empty texts. TRL's detoxifying example: 'prompt.toxicity > 0.3'" },
    { "min-length", OPT_INT, &given.min_length, "0", 0, INT_MAX, NULL,
      "leave out documents of fewer characters (code points; those of a pair's texts are added; of a "
      "template, those of its fields). TRL's sentiment example: 201" },
    { "max-length", OPT_INT, &given.max_length, "0", 0, INT_MAX, NULL,
      "leave out documents of more characters (0: any length)" },
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

/* Reads --template, and refuses options for fields that exclude each other. */
static void check_fields(Collector *c) {
    const int pairs = given.chosen || given.rejected;
    if (!strcmp(given.template, "chatml")) c->chat = CHAT_ML;
    else if (!strcmp(given.template, "zephyr")) c->chat = CHAT_ZEPHYR;
    else if (strcmp(given.template, "none")) template_parse(&c->template, "--template", given.template);
    if (given.text && (given.prompt || given.response || pairs))
        usage_error("--text excludes --prompt, --response, --chosen and --rejected", NULL);
    if (given.response && pairs) usage_error("--response excludes --chosen and --rejected", NULL);
    if (given.no_prompt && (given.prompt || given.response || given.text))
        usage_error("--no-prompt excludes --prompt, --response and --text", NULL);
    if (c->template.parts && (given.prompt || given.no_prompt || given.text))
        usage_error("--template with places makes the prompt: it excludes --prompt, --no-prompt and --text",
                    NULL);
    if (!given.text || !strchr(given.text, '{')) return;
    if (c->chat) usage_error("--text with places makes the text: it excludes --template", NULL);
    template_parse(&c->template, "--text", given.text);
}

/* Prints what the dataset lacks. */
static void print_left_out(const Collector *c) {
    char number[64];
    if (c->unlabelled) say("  no label: there is no field label or sentiment (--label names another)");
    if (c->field[2]) printf("  the prompt (field %s) comes before both texts\n", c->field[2]);
    if (c->doubled)
        say("  twice: both texts of %s began with the prompt already (--no-prompt adds none)",
            counted(number, (size_t)c->doubled, "pair"));
    if (c->not_where)
        printf("  left out: %llu, --where '%s'\n", (unsigned long long)c->not_where, given.where);
    if (c->empty) printf("  left out: %llu without text\n", (unsigned long long)c->empty);
    if (c->too_short)
        say("  left out: %llu shorter than %s", (unsigned long long)c->too_short,
            counted(number, (size_t)given.min_length, "character"));
    if (c->too_long)
        say("  left out: %llu longer than %s", (unsigned long long)c->too_long,
            counted(number, (size_t)given.max_length, "character"));
}

int command_data(int argc, char **argv) {
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
    const char *path[INPUTS_MAX];
    int paths = cli_parse(&program, argc, argv, path, INPUTS_MAX);
    if (!paths) usage_error("an input is missing", NULL);
    if (!given.out) usage_error("a file to write is missing: give --out FILE.bin", NULL);
    c.given = &given;
    c.made = -1;
    check_fields(&c);
    check_formats(&program, &c, path, paths);
    for (int i = 0; i < paths; i++)
        if (!folder_exists(path[i])) out_file_check("--out", given.out, &path[i], 1);
    c.scratch = cli_pool();
    if (given.where) where_parse(&c.where, given.where);
    if (given.labels) parse_labels(&c);
    for (int i = 0; i < paths; i++) read_input(&c, path[i]);
    if (!c.data.count)
        prep_stop(E_MISSING, "no documents", path[0], 0, NULL,
                  "check the input, --where, --min-length, --max-length and the fields");
    sort_labels(&c);
    keep_some(&c.data);
    c.data.label = c.name;
    write_dataset(&c.data, given.out);
    print_left_out(&c);
    pool_free(&c.scratch);
    return 0;
}
