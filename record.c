/* record.c - what a run has written about itself: its options and its numbers, step by step, and its samples.
 *
 * Needs    log.jsonl of a run folder; time.jsonl and samples.jsonl if they are there. core.c and io.c.
 * Never    prints, or changes a file: it may read while the run still writes.
 * Edges    a last line that is not whole (the run was killed, or writes it just now) is left out; so is any
 *          other line that is not a step's, and the count of those is kept. null is a NaN. A step that comes
 *          again (the run went on from an earlier save) replaces the later ones. See tests/unit/chart.c. */
#include "programs.h"

/* The last part of a path without slashes at its end, in pool; "." for the folder itself. */
static const char *last_part(const char *path, Pool *pool) {
    size_t n = strlen(path), begin;
    while (n > 1 && path[n - 1] == '/') n--;
    for (begin = n; begin > 0 && path[begin - 1] != '/'; ) begin--;
    return pool_text(pool, path + begin, n - begin);
}

/* Returns the series of a key, a new one if there is none yet; NULL if there is no room. */
static Series *series_of(RunRecord *r, const char *key, Pool *pool) {
    for (int i = 0; i < r->count; i++) if (!strcmp(r->series[i].key, key)) return &r->series[i];
    if (!r->series) r->series = pool_take(pool, RECORD_SERIES, sizeof *r->series);
    if (!r->series || r->count == RECORD_SERIES) return NULL;
    Series *s = &r->series[r->count];
    s->key = pool_text(pool, key, strlen(key));
    if (s->key) r->count++;
    return s->key ? s : NULL;
}

/* Adds a number. Points of this step or later ones are replaced. Returns OK or E_MEMORY. */
static int series_add(Series *s, double step, double value, Pool *pool) {
    while (s->n && s->step[s->n - 1] >= step) s->n--;
    if (s->n == s->room) {
        const int room = s->room ? s->room * 2 : 64;
        double *wider = s->room < INT_MAX / 4 ? pool_take(pool, (size_t)room, 2 * sizeof *wider) : NULL;
        if (!wider) return E_MEMORY;
        if (s->n) memcpy(wider, s->step, (size_t)s->n * sizeof *wider);
        if (s->n) memcpy(wider + room, s->value, (size_t)s->n * sizeof *wider);
        s->step = wider;
        s->value = wider + room;
        s->room = room;
    }
    s->step[s->n] = step;
    s->value[s->n++] = value;
    return OK;
}

/* Adds the numbers of a step's line. Returns OK, E_MEMORY, or E_FORMAT if the line is not a step's. */
static int add_line(RunRecord *r, const Json *line, Pool *pool) {
    const double step = json_number(line, "step", NAN);
    if (!(step >= 0 && step < 1e15)) return E_FORMAT;
    for (const Json *j = line->child; j; j = j->next) {
        if ((j->type != JSON_NUMBER && j->type != JSON_NULL) || !strcmp(j->key, "step")) continue;
        Series *s = series_of(r, j->key, pool);
        const double value = j->type == JSON_NUMBER && fabs(j->number) < 1e100 ? j->number : NAN;
        if (s && series_add(s, step, value, pool) != OK) return E_MEMORY;
        if (!s && r->count < RECORD_SERIES) return E_MEMORY;
    }
    r->last_step = step;
    return OK;
}

/* Reads the steps of log.jsonl or time.jsonl. *first: its first line, if that is not a step's. */
static int read_steps(RunRecord *r, const char *path, const Json **first, Pool *pool, Error *err) {
    Pool scratch = { 0 };
    const char *text;
    size_t n;
    int code = OK, torn = 0;
    scratch.source = pool->source;
    scratch.sink = pool->sink;
    Lines *lines = lines_open(path, pool, err);
    if (!lines) return err->code;
    for (int number = 1; code == OK && lines_next(lines, &text, &n); number++) {
        const PoolMark mark = pool_mark(&scratch);
        Error why = { 0 };
        const Json *line = json_parse(text, n, number == 1 ? pool : &scratch, &why);
        const int wrong = !line || line->type != JSON_OBJECT;
        if (why.code == E_MEMORY) code = E_MEMORY;
        else if (number == 1 && !wrong && !json_get(line, "step")) *first = line;
        else if (!wrong) code = add_line(r, line, pool);
        r->damaged += torn;                 /* the line before this one was no last line */
        if (torn && !r->first_damaged) r->first_damaged = number - 1;
        torn = wrong || code == E_FORMAT;
        if (code == E_FORMAT) code = OK;
        pool_release(&scratch, mark);
    }
    r->torn += torn;
    pool_free(&scratch);
    if (code != OK) fail(err, code, "no memory for the numbers of a run", path, 0, 0);
    const int closed = lines_close(lines, err);
    return code != OK ? code : closed;
}

int record_read(RunRecord *r, const char *folder, Pool *pool, Error *err) {
    const size_t n = strlen(folder) + 32;
    char *path = pool_take(pool, n, 1);
    memset(r, 0, sizeof *r);
    r->folder = folder;
    r->name = last_part(folder, pool);
    if (!path || !r->name) return fail(err, E_MEMORY, "no memory for a path", folder, 0, 0);
    strcat(strcpy(path, folder), "/log.jsonl");
    int code = read_steps(r, path, &r->first, pool, err);
    r->program = json_text(r->first, "program", "");
    r->data = json_text(r->first, "data", "");
    r->options = json_get(r->first, "options");
    if (code == OK && !r->program[0])
        code = fail(err, E_FORMAT, "the first line does not name a program: no log of a run", path, 0, 0);
    strcat(strcpy(path, folder), "/time.jsonl");
    if (code == OK && file_exists(path)) code = read_steps(r, path, &r->machine, pool, err);
    return code;
}

const Series *record_series(const RunRecord *r, const char *key) {
    for (int i = 0; i < r->count; i++) if (!strcmp(r->series[i].key, key)) return &r->series[i];
    return NULL;
}

/* Sets *text to the text of a key: "" if there is none. */
static void take_text(RunText *text, const Json *line, const char *key) {
    const Json *j = json_get(line, key);
    text->text = j && j->type == JSON_STRING ? j->string : "";
    text->length = j && j->type == JSON_STRING ? j->length : 0;
}

/* Adds a sample of zeros; returns it, or NULL if there is no memory. */
static RunSample *new_sample(RunSamples *s, Pool *pool) {
    if (s->count == s->room) {
        const int room = s->room ? s->room * 2 : 256;
        RunSample *wider = s->room < INT_MAX / 4 ? pool_take(pool, (size_t)room, sizeof *wider) : NULL;
        if (!wider) return NULL;
        if (s->count) memcpy(wider, s->sample, (size_t)s->count * sizeof *wider);
        s->sample = wider;
        s->room = room;
    }
    return &s->sample[s->count++];
}

int record_samples(RunSamples *s, const char *folder, Pool *pool, Error *err) {
    const size_t size = strlen(folder) + 32;
    char *path = pool_take(pool, size, 1);
    const char *text;
    size_t n;
    int code = OK;
    memset(s, 0, sizeof *s);
    if (!path) return fail(err, E_MEMORY, "no memory for a path", folder, 0, 0);
    strcat(strcpy(path, folder), "/samples.jsonl");
    if (!file_exists(path)) return OK;
    Lines *lines = lines_open(path, pool, err);
    if (!lines) return err->code;
    while (code == OK && lines_next(lines, &text, &n)) {
        Error why = { 0 };
        const Json *line = json_parse(text, n, pool, &why);
        const int good = line && line->type == JSON_OBJECT && json_get(line, "query");
        RunSample *x = good ? new_sample(s, pool) : NULL;
        if (why.code == E_MEMORY || (good && !x))
            code = fail(err, E_MEMORY, "no memory for the samples", path, 0, 0);
        if (!good) s->damaged++;
        if (!x) continue;
        take_text(&x->query, line, "query");
        take_text(&x->response[0], line, "response_before");
        take_text(&x->response[1], line, "response_after");
        x->reward[0] = json_number(line, "reward_before", NAN);
        x->reward[1] = json_number(line, "reward_after", NAN);
        x->kl = json_number(line, "kl_after", NAN);
    }
    const int closed = lines_close(lines, err);
    return code != OK ? code : closed;
}
