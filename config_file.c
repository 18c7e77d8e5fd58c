/* config_file.c - options from a file: --config FILE.
 *
 * What it is   Either lines "name: value" with the options' own names, or the log of a run (log.jsonl): from
 *              its first line the options that were given are taken.
 * Edges        "#" begins a comment at the beginning of a line or after a space. A value in '...' or "..."
 *              may hold "#" and spaces at its ends; there are no escapes. Lines may end in \r\n. A YAML
 *              reader reads such lines in the same way; YAML's lists and nested lines are refused. */
#include "programs.h"
#include <stdio.h>

static int is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

/* Puts a NUL after the value that a line ends with, and returns its beginning; NULL: it is malformed, or
 * there is none. */
static char *cut_value(char *v) {
    char *end;
    while (is_blank(*v)) v++;
    if (*v == '"' || *v == '\'') {
        end = strchr(v + 1, *v);
        if (!end) return NULL;
        *end++ = 0;
        while (is_blank(*end)) end++;
        return *end && *end != '#' ? NULL : v + 1;
    }
    for (end = v; *end; end++)
        if (*end == '#' && (end == v || is_blank(end[-1]))) break;
    while (end > v && is_blank(end[-1])) end--;
    *end = 0;
    return *v ? v : NULL;
}

/* Reads a line into *s, whose name becomes NULL if the line is empty or a comment. Returns 1, or 0 if it is
 * malformed. */
static int read_line(ConfigLine *s, char *line) {
    char *colon = strchr(line, ':'), *first = line;
    while (is_blank(*first)) first++;
    s->name = NULL;
    if (!*first || *first == '#' || !strcmp(first, "---")) return 1;
    if (first != line || !colon || colon == line || (colon[1] && !is_blank(colon[1]))) return 0;
    *colon = 0;
    s->name = line;
    s->value = cut_value(colon + 1);
    return s->value && !strpbrk(line, " \t#");
}

/* Reads lines "name: value". text ends with a NUL, and is cut into pieces. */
static int read_lines(ConfigFile *s, char *text, const char *path, Pool *pool, Error *err) {
    size_t lines = 1;
    for (const char *c = text; *c; c++) lines += *c == '\n';
    s->list = pool_take(pool, lines, sizeof *s->list);
    if (!s->list) return fail(err, E_MEMORY, "no memory for the options", path, 0, 0);
    for (int number = 1; text; number++) {
        char *next = strchr(text, '\n');
        ConfigLine *one = &s->list[s->count];
        if (next) *next++ = 0;
        if (!read_line(one, text)) {
            char where[300];
            snprintf(where, sizeof where, "line %d of %.240s", number, path);
            return fail(err, E_FORMAT, "not a line 'name: value'", where, 0, 0);
        }
        one->line = number;
        s->count += one->name != NULL;
        text = next;
    }
    return OK;
}

/* Reads the first line of a run's log: {"program": ..., "data": ..., "given": {name: value, ...}}. */
static int read_log(ConfigFile *s, const char *text, const char *path, Pool *pool, Error *err) {
    const Json *first = json_parse(text, strcspn(text, "\n"), pool, err), *given = json_get(first, "given");
    if (!first) return err->code;
    if (!given || given->type != JSON_OBJECT || !json_text(first, "program", NULL))
        return fail(err, E_FORMAT, "not the log of a run: its first line has no options that were given",
                    path, 0, 0);
    s->program = json_text(first, "program", NULL);
    s->list = pool_take(pool, given->count + 2, sizeof *s->list);
    if (!s->list) return fail(err, E_MEMORY, "no memory for the options", path, 0, 0);
    if (json_text(first, "data", NULL)) {
        s->list[s->count].name = "data";
        s->list[s->count++].value = json_text(first, "data", NULL);
    }
    for (const Json *one = given->child; one; one = one->next) {
        if (one->type != JSON_STRING)
            return fail(err, E_FORMAT, "an option that was given is not a text", path, 0, 0);
        s->list[s->count].name = one->key;
        s->list[s->count++].value = one->string;
    }
    return OK;
}

int config_file_read(ConfigFile *s, const char *path, Pool *pool, Error *err) {
    char *text;
    size_t n;
    memset(s, 0, sizeof *s);
    const int code = file_read_all(path, pool, &text, &n, err);
    if (code) return code;
    if (memchr(text, 0, n)) return fail(err, E_FORMAT, "not a text: it has a NUL", path, 0, 0);
    return text[strspn(text, " \t\r\n")] == '{' ? read_log(s, text, path, pool, err)
                                               : read_lines(s, text, path, pool, err);
}
