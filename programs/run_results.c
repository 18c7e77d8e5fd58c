/* run_results.c - a file of JSON lines that a command fills, one line for each of its inputs, and goes on
 * with if it was stopped: every line is appended as a whole, and a line that a crash has left incomplete is
 * cut off. A line has the "index" of its input; its prompt and principles say whether it belongs to this
 * run. So does the file FILE.options, one JSON object with the command, its options, and the paths and hashes
 * of the models and the constitution. */
#include "run.h"
#include <stdio.h>

static uint64_t hash_string(const char *text, size_t n, uint64_t seed, Pool *pool) {
    Buffer b = { pool, NULL, 0, 0, 0 };
    buffer_json_string(&b, text, n);        /* as it is written: U+FFFD for invalid UTF-8 */
    need_buffer(&b);
    return hash_bytes(b.data, b.length, seed);
}

uint64_t results_sign(const char *prompt, size_t n, Pool *pool) { return hash_string(prompt, n, 1, pool); }

uint64_t results_sign_principle(uint64_t sign, const char *principle, Pool *pool) {
    return hash_string(principle, strlen(principle), sign, pool);
}

/* Ends the program with a message about a line of the file. */
static void line_stop(const char *path, size_t line, const char *what, const char *hint) {
    char where[240];
    snprintf(where, sizeof where, "%.200s, line %llu", path, (unsigned long long)line);
    require(E_FORMAT, what, where, 0, 0, hint);
}

/* Sets what a line of the file says about itself. Returns 0 if it does not. */
static int read_line(const char *line, size_t n, long long *index, uint64_t *sign, Pool *pool) {
    const Json *root = json_parse(line, n, pool, NULL), *prompt = json_get(root, "prompt");
    const Json *rounds = json_get(root, "rounds");
    const char *principle = json_text(root, "principle", NULL);
    const double number = json_number(root, "index", 0);
    if (!root || !prompt || prompt->type != JSON_STRING || !(number >= 1 && number < 1e15)) return 0;
    *index = (long long)number;
    *sign = results_sign(prompt->string, prompt->length, pool);
    if (principle) *sign = results_sign_principle(*sign, principle, pool);
    for (const Json *r = rounds && rounds->type == JSON_ARRAY ? rounds->child : NULL; r; r = r->next)
        *sign = results_sign_principle(*sign, json_text(r, "principle", ""), pool);
    return 1;
}

/* ---- FILE.options ---- */

/* Options that are no part of what a line says, or whose files have hashes. */
static const char not_compared[] = "out|batch|constitution|adapter|writer";

static const char *options_path(const char *path, Pool *pool) {
    const size_t n = strlen(path) + sizeof ".options";
    char *name = pool_need(pool, n, 1, "a file's name");
    snprintf(name, n, "%s.options", path);
    return name;
}

/* Ends the program: the lines were made with another value of this option. was: it, or NULL. */
static void other_option(const char *path, const char *option, const char *was) {
    char message[200], hint[400];
    snprintf(message, sizeof message, "the lines that are there were made with another %.100s", option);
    if (was)
        snprintf(hint, sizeof hint, "%.100s%s%.200s as before, or another --out", option,
                 option[0] == '-' ? "=" : " ", was);
    else snprintf(hint, sizeof hint, "no %.100s, as before, or another --out", option);
    usage_hint(message, path, hint);
}

/* Ends the program if an option has another value than in the object `was`. An option that is not there, since
 * an older version did not have it, has to have its default now. */
static void same_options(const char *path, const Program *program, const Json *was, Pool *pool) {
    Buffer b = { .pool = pool };
    cli_values(program, not_compared, &b);
    need_buffer(&b);
    const Json *now = json_parse((const char *)b.data, b.length, pool, NULL);
    for (const Json *j = now ? now->child : NULL; j; j = j->next) {
        const char *old = json_text(was, j->key, NULL);
        const int given = cli_given(program, j->key + strspn(j->key, "-"));
        if (old ? strcmp(old, j->string) != 0 : given) other_option(path, j->key, old);
    }
    for (const Json *j = was ? was->child : NULL; j; j = j->next)
        if (!json_get(now, j->key)) other_option(path, j->key, json_text(was, j->key, ""));
}

/* Reads FILE.options of a file that has lines, and compares the options. Returns NULL if it is not there. */
static const Json *read_options(const char *path, const Program *program, Pool *pool) {
    Error err = { 0 };
    char *text, message[160];
    size_t n;
    const char *name = options_path(path, pool);
    if (!file_exists(name)) {
        say_error("%s: nobody knows with which options the lines in %s were made: %s is missing",
                  program_name(), path, name);
        return NULL;
    }
    must(file_read_all(name, pool, &text, &n, &err), &err, NULL);
    const Json *made = json_parse(text, n, pool, &err);
    const char *by = json_text(made, "program", NULL);
    require(by ? OK : E_FORMAT, "not a file that this command has written", name, 0, 0, "another --out");
    snprintf(message, sizeof message, "the lines that are there were made by %.100s", by);
    if (strcmp(by, program->program)) usage_hint(message, path, "another --out");
    same_options(path, program, json_get(made, "options"), pool);
    return made;
}

/* Ends the program if a source is another one than in the object `was`. */
static void same_source(const char *path, const Source *s, const char *hash, const Json *was) {
    char message[200];
    const char *old = json_text(was, "path", NULL);
    if (!strcmp(json_text(was, "hash", ""), hash)) return;
    if (!old || !s->path || strcmp(old, s->path)) other_option(path, s->option, old);
    snprintf(message, sizeof message, "%.100s has changed since the lines that are there were made",
             s->option);
    usage_hint(message, path, "another --out");
}

void results_made(const Results *r, const Program *program, const Source *source, int sources, Pool *pool) {
    Buffer b = { .pool = pool };
    Error err = { 0 };
    buffer_text(&b, "{\"program\": ");
    buffer_json_string(&b, program->program, strlen(program->program));
    buffer_text(&b, ", \"version\": \"" RLHF_VERSION "\", \"options\": ");
    cli_values(program, not_compared, &b);
    for (int i = 0; i < sources; i++) {
        const Source *s = &source[i];
        char hash[24];
        snprintf(hash, sizeof hash, "%08lx%08lx", (unsigned long)(s->hash >> 32),
                 (unsigned long)(s->hash & 0xFFFFFFFFu));
        if (r->made) same_source(r->path, s, hash, json_get(r->made, s->option));
        buffer_text(&b, ", ");
        buffer_json_string(&b, s->option, strlen(s->option));
        buffer_text(&b, ": {\"path\": ");
        if (s->path) buffer_json_string(&b, s->path, strlen(s->path));
        else buffer_text(&b, "null");
        buffer_text(&b, ", \"hash\": \"");
        buffer_text(&b, hash);
        buffer_text(&b, "\"}");
    }
    buffer_text(&b, "}\n");
    need_buffer(&b);
    if (r->count) return;
    must(file_write_all(options_path(r->path, pool), b.data, b.length, pool, &err), &err, NULL);
}

/* ---- the lines ---- */

Results results_open(const char *path, const Program *program, Pool *pool) {
    Results r = { .path = path };
    Error err = { 0 };
    char *text;
    size_t n, at = 0, lines = 0, line = 0;
    if (!path || !file_exists(path)) return r;
    Pool scratch = cli_pool();
    must(file_read_all(path, &scratch, &text, &n, &err), &err, NULL);
    for (size_t i = 0; i < n; i++) lines += text[i] == '\n';
    r.index = pool_need(pool, lines + 1, sizeof *r.index, "the lines of --out");
    r.sign = pool_need(pool, lines + 1, sizeof *r.sign, "the lines of --out");
    r.line = pool_need(pool, lines + 1, sizeof *r.line, "the lines of --out");
    while (at < n) {
        const char *end = memchr(text + at, '\n', n - at);
        const PoolMark mark = pool_mark(&scratch);
        if (!end) break;
        const size_t length = (size_t)(end - text) - at, k = r.count;
        r.line[k] = ++line;
        r.count += !blank_line(text + at, length);
        if (r.count > k && !read_line(text + at, length, &r.index[k], &r.sign[k], &scratch))
            line_stop(path, line, "a line that this command did not write", "another --out");
        at = (size_t)(end - text) + 1;
        pool_release(&scratch, mark);
    }
    if (r.count) r.made = read_options(path, program, pool);
    if (at < n) {
        say_error("%s: the last line is not complete, and is made again: %s", program_name(), path);
        must(out_cut(path, (long long)at, &err), &err, NULL);
    }
    pool_free(&scratch);
    return r;
}

int results_has(Results *r, long long index, uint64_t sign) {
    if (r->next == r->count || r->index[r->next] > index) return 0;
    if (r->index[r->next] != index || r->sign[r->next] != sign)
        line_stop(r->path, r->line[r->next],
                  "made from other data, or with another --constitution, --seed or --rounds",
                  "the same DATA and options as before, or another --out");
    r->next++;
    return 1;
}

void results_add(Results *r, Buffer *line) {
    Error err = { 0 };
    buffer_text(line, "\n");
    need_buffer(line);
    if (r->path) must(file_append(r->path, line->data, line->length, &err), &err, NULL);
    else { fwrite(line->data, 1, line->length, stdout); close_line(); }
    r->added++;
}

int results_end(const Results *r, int code) {
    char number[64];
    if (!cli_stopping() && r->next < r->count)
        line_stop(r->path, r->line[r->next], "there is no such input any more",
                  "the same DATA as before, or another --out");
    if (r->path) {
        say("%s: %s written, %lld were there", r->path, counted(number, r->added, "line"),
            (long long)r->next);
        if (cli_stopping()) say("stopped; the same command goes on");
    }
    return cli_exit_code(code);
}
