/* run_results.c - a file of JSON lines that a command fills, one line for each of its inputs, and goes on
 * with if it was stopped: every line is appended as a whole, and a line that a crash has left incomplete is
 * cut off. A line has the "index" of its input; its prompt and principles say whether it belongs to this
 * run. */
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

Results results_open(const char *path, Pool *pool) {
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
    while (at < n) {
        const char *end = memchr(text + at, '\n', n - at);
        const PoolMark mark = pool_mark(&scratch);
        if (!end) break;
        const size_t length = (size_t)(end - text) - at, k = r.count;
        line++;
        r.count += !blank_line(text + at, length);
        if (r.count > k && !read_line(text + at, length, &r.index[k], &r.sign[k], &scratch))
            line_stop(path, line, "a line that this command did not write", "another --out");
        at = (size_t)(end - text) + 1;
        pool_release(&scratch, mark);
    }
    if (at < n) {
        fprintf(stderr, "%s: the last line is not complete, and is made again: %s\n", program_name(), path);
        must(out_cut(path, (long long)at, &err), &err, NULL);
    }
    pool_free(&scratch);
    return r;
}

int results_has(Results *r, long long index, uint64_t sign) {
    if (r->next == r->count || r->index[r->next] > index) return 0;
    if (r->index[r->next] != index || r->sign[r->next] != sign)
        line_stop(r->path, r->next + 1,
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
        line_stop(r->path, r->next + 1, "there is no such input any more",
                  "the same DATA as before, or another --out");
    if (r->path) {
        say("%s: %s written, %lld were there", r->path, counted(number, r->added, "line"),
            (long long)r->next);
        if (cli_stopping()) say("stopped; the same command goes on");
    }
    return cli_exit_code(code);
}
