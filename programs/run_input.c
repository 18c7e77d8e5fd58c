/* run_input.c - what the commands of run read: lines, JSON lines, datasets; how they print ids and errors. */
#include "run.h"
#include <stdio.h>

void require(int code, const char *what, const char *where, long long got, long long wanted,
             const char *hint) {
    Error err = { 0 };
    if (code) must(fail(&err, code, what, where, got, wanted), &err, hint);
}

const char no_number[] = "a logit is a NaN or an infinity";

/* ---- input: lines of text or of ids, JSON lines, or the documents of a dataset ---- */

Input input_open(const char *path, int jsonl, int ids, int prompts, Pool *pool, Pool *scratch) {
    Error err = { 0 };
    Input in = { .path = path ? path : "-", .jsonl = jsonl, .prompts = prompts, .scratch = scratch,
                 .begin = pool_mark(scratch) };
    if (ids && jsonl) usage_error("--ids or --jsonl, not both", NULL);
    if (!path || !dataset_exists(path)) {
        in.lines = lines_open(in.path, pool, &err);
        must(err.code, &err, "give a file, or nothing to read standard input");
        return in;
    }
    if (ids || jsonl) usage_error(ids ? "a dataset holds texts: leave out --ids"
                                      : "a dataset is not JSONL: leave out --jsonl", path);
    must(dataset_read(&in.data, path, pool, &err), &err, NULL);
    require(prompts && in.data.kind == DATA_PAIRS ? E_ARGUMENT : OK, "a dataset of pairs has no prompts",
            path, 0, 0, "a dataset of texts or of prompts with responses");
    return in;
}

const char *input_name(const Input *in) { return strcmp(in->path, "-") ? in->path : "standard input"; }

const char *unit_of(const Input *in) { return in->lines ? "line" : "document"; }

int *line_error(Input *in, int code, const char *what, const char *advice) {
    char where[200];
    if (in->number) snprintf(where, sizeof where, "%.120s, %s %lld", input_name(in), unit_of(in), in->number);
    else snprintf(where, sizeof where, "%.120s", input_name(in));
    fail(&in->err, code, what, where, 0, 0);
    advise(&in->err, advice);
    return NULL;
}

int *line_too_large(Input *in, const char *what, long long got, long long most, const char *advice) {
    char text[160];
    snprintf(text, sizeof text, "%.90s: %lld; at most %lld", what, got, most);
    return line_error(in, E_RANGE, text, advice);
}

void forward_error(Input *in, int code, int compute) {
    if (code == E_NUMBER) line_error(in, code, no_number, damaged_hint(compute));
    else line_error(in, code, "the model's forward failed", NULL);
}

/* Sets in->text to the string under "text" (or "prompt", if prompts are read) of the JSON line. */
static void take_json(Input *in) {
    Error err = { 0 };
    const Json *root = json_parse(in->text, in->n, in->scratch, &err), *text;
    in->row = root;
    text = in->prompts ? json_get(root, "prompt") : NULL;
    if (!text) text = json_get(root, "text");
    if (text && text->type == JSON_STRING) { in->text = text->string; in->n = text->length; }
    else line_error(in, E_FORMAT, !root ? err.what : in->prompts
                        ? "not a JSON object with a string \"prompt\" or \"text\""
                        : "not a JSON object with a string \"text\"", "correct the line");
}

/* Reads the next text of the dataset: of a pair, chosen, then rejected; prompt and response as one text, or
 * the prompt alone if prompts are read. Returns 0 at the end. */
static int take_document(Input *in) {
    const uint64_t each = in->data.kind == DATA_PAIRS ? 2 : 1, at = in->texts / each;
    if (at >= in->data.count) return 0;
    const Document *d = &in->data.document[at];
    const int k = (int)(in->texts++ % each);
    in->number = (long long)at + 1;
    in->text = d->text[k];
    in->n = d->length[k];
    if (in->data.kind != DATA_PROMPTS || in->prompts) return 1;
    char *both = pool_need(in->scratch, (size_t)d->length[0] + d->length[1] + 1, 1, "a text");
    memcpy(both, d->text[0], d->length[0]);
    memcpy(both + d->length[0], d->text[1], d->length[1]);
    in->text = both;
    in->n += d->length[1];
    in->joined = 1;
    in->split = d->length[0];
    return 1;
}

int input_next(Input *in) {
    pool_release(in->scratch, in->begin);
    memset(&in->err, 0, sizeof in->err);
    in->joined = 0;
    close_line();
    if (!in->lines) return take_document(in);
    do {
        if (!lines_next(in->lines, &in->text, &in->n)) return 0;
        in->number++;
    } while (in->jsonl && blank_line(in->text, in->n));
    if (!utf8_valid(in->text, in->n)) line_error(in, E_FORMAT, "invalid UTF-8", TO_UTF8);
    else if (in->jsonl) take_json(in);
    return 1;
}

int input_close(Input *in) {
    Error err = { 0 };
    must(lines_close(in->lines, &err), &err, NULL);
    return cli_exit_code(in->failed);
}

void need_buffer(const Buffer *b) {
    require(b->failed ? E_MEMORY : OK, "out of memory", "scratch", 0, 0, NULL);
}

void print_string(const char *text, size_t n, Pool *pool) {
    Buffer b = { 0 };
    b.pool = pool;
    buffer_json_string(&b, text, n);
    need_buffer(&b);
    fwrite(b.data, 1, b.length, stdout);
}

int line_failed(Input *in, int json) {
    if (!in->err.code) return 0;
    cli_warn(&in->err, NULL);
    in->failed = 1;
    if (json) {
        printf("{\"error\": ");
        print_string(in->err.what, strlen(in->err.what), in->scratch);
        printf("}");
    }
    putchar('\n');
    return 1;
}

int *parse_ids(Input *in, int V, int *count) {
    static const char not_ids[] = "not a list of ids";
    static const char advice[] = "numbers below the size of the vocabulary, separated by spaces";
    const char *s = in->text;
    int *ids = pool_need(in->scratch, in->n / 2 + 1, sizeof *ids, "ids");
    size_t i = 0;
    *count = 0;
    for (;;) {
        long long v = 0;
        while (i < in->n && (s[i] == ' ' || s[i] == '\t')) i++;
        if (i == in->n) return ids;
        if (s[i] < '0' || s[i] > '9') return line_error(in, E_FORMAT, not_ids, advice);
        for (; i < in->n && s[i] >= '0' && s[i] <= '9'; i++)
            v = v > INT_MAX ? v : v * 10 + (s[i] - '0');
        if (i < in->n && s[i] != ' ' && s[i] != '\t') return line_error(in, E_FORMAT, not_ids, advice);
        if (v >= V) return line_too_large(in, "an id outside the vocabulary", v, V - 1, advice);
        ids[(*count)++] = (int)v;
    }
}

int *text_ids(const Tokenizer *t, const char *text, size_t n, int special, Pool *pool, int *count) {
    SpecialIds s = tokenizer_specials(t);
    int before = 0, after = 0, *content, length, *ids;
    require(tokenizer_encode(t, text, n, pool, &content, &length), "out of memory", "tokenizer", 0, 0, NULL);
    if (special) tokenizer_template(t, &before, &after);
    ids = pool_need(pool, (size_t)length + 2, sizeof *ids, "ids");
    *count = 0;
    if (before) ids[(*count)++] = s.bos;
    for (int i = 0; i < length; i++) ids[(*count)++] = content[i];
    if (after) ids[(*count)++] = s.eos;
    return ids;
}

int *line_ids(Input *in, const Tokenizer *t, int V, int *count) {
    char what[160];
    int *ids, i;
    if (in->err.code) return NULL;
    if (!t) return parse_ids(in, V, count);
    ids = text_ids(t, in->text, in->n, 1, in->scratch, count);
    i = first_beyond(ids, *count, V);
    if (i < 0) return ids;
    snprintf(what, sizeof what, "the model has no embedding for the token %.60s, id",
             tokenizer_piece(t, ids[i], NULL));
    return line_too_large(in, what, ids[i], V - 1, resized_model);
}

void print_ids(const int *ids, int n, const char *separator) {
    for (int i = 0; i < n; i++) printf("%s%d", i ? separator : "", ids[i]);
}
