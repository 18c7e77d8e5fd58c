/* report.c - prints a finished run of ppo as a table (level 7): responses before and after training, their
 * rewards, and the KL to the reference.
 *
 * Needs    log.jsonl and samples.jsonl of a run folder, and nothing else. ppo calls this file at its end, and
 *          `run report DIR` prints the same table later.
 * Edges    a run that was stopped has no samples.jsonl, and so no table. */
#include "programs.h"
#include <stdio.h>

static int is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

/* ---- reading the log ---- */

/* The numbers of one evaluation on the held-out queries. */
typedef struct { double mean, median, std, kl, bigrams, toxicity, toxicity_std; } Evaluated;
enum { MARKS = 2 };
static const double kl_mark[MARKS] = { 3, 6 };
typedef struct {
    int steps, show, evaluations;           /* show: the run's --show; evaluations: how many were logged */
    Evaluated first, last;
    int mark_step[MARKS];                   /* the first step whose KL was above kl_mark; 0: there is none */
    double mark_reward[MARKS];              /* the mean reward of that step's batch */
} Summed;

/* Adds one line of the log to *s: an evaluation or a training step. */
static void read_log_line(Summed *s, const Json *line) {
    if (json_get(line, "eval/reward_mean")) {
        const Evaluated e = { json_number(line, "eval/reward_mean", 0),
                              json_number(line, "eval/reward_median", 0),
                              json_number(line, "eval/reward_std", 0), json_number(line, "eval/kl", 0),
                              json_number(line, "eval/distinct_bigrams", 0),
                              json_number(line, "eval/toxicity_mean", NAN),
                              json_number(line, "eval/toxicity_std", NAN) };
        if (!s->evaluations++) s->first = e;
        s->last = e;
    }
    if (json_get(line, "objective/kl")) {
        const double kl = json_number(line, "objective/kl", 0);
        s->steps = (int)json_number(line, "step", 0);
        for (int i = 0; i < MARKS; i++)
            if (!s->mark_step[i] && kl > kl_mark[i]) {
                s->mark_step[i] = s->steps;
                s->mark_reward[i] = json_number(line, "env/reward_mean", 0);
            }
    }
}

/* Reads the log of a run of ppo; dies if it is another program's. */
static Summed read_log(const char *path, Pool *pool) {
    Error err = { 0 };
    Summed s = { 0 };
    const char *text;
    size_t n;
    Lines *lines = lines_open(path, pool, &err);
    if (!lines) die(&err, "the folder of a run of ppo, such as runs/ppo-0001");
    for (int number = 0; lines_next(lines, &text, &n); number++) {
        PoolMark mark = pool_mark(pool);
        const Json *line = json_parse(text, n, pool, &err);
        if (!line) die(&err, "the folder of a run of ppo, whose log.jsonl is damaged");
        if (!number && strcmp(json_text(line, "program", ""), "ppo"))
            must(fail(&err, E_UNSUPPORTED, "a report of a run of another program than ppo", path, 0, 0), &err,
                 "the folder of a run of ppo, such as runs/ppo-0001");
        if (!number) s.show = (int)json_number(json_get(line, "options"), "show", 10);
        else read_log_line(&s, line);
        pool_release(pool, mark);
    }
    must(lines_close(lines, &err), &err, NULL);
    return s;
}

/* ---- the table ---- */

/* Widths of the table: of the query, of each response and of each reward. rise 1: there is room for a column
 * with the difference of the rewards. query 0: the terminal is too narrow for columns, and each sample is
 * printed as lines. */
typedef struct { int query, response, reward, width, rise; } Columns;

static Columns columns_that_fit(void) {
    enum { REWARD = 7, GAPS = 10, STACKED = 64, WIDE = 100, WIDEST_TEXT = 36 };
    Columns c = { 0, 0, REWARD, terminal_width(), 0 };
    if (c.width < STACKED) return c;
    c.rise = c.width >= WIDE;
    const int numbers = (2 + c.rise) * REWARD + c.rise;
    c.response = (c.width - GAPS - numbers) * 3 / 8;
    if (c.response > WIDEST_TEXT) c.response = WIDEST_TEXT;
    c.query = c.width - GAPS - numbers - 2 * c.response;
    if (c.query > 22) c.query = 22;
    return c;
}

/* Prints up to `width` characters of *text, up to a space if there is one, and moves *text after them.
 * Returns how many characters it printed. */
static int print_part(const char **text, size_t *left, int width) {
    size_t at = 0, end = 0;
    int columns = 0;
    while (*left && is_space(**text)) { ++*text; --*left; }
    while (at < *left && columns < width) {
        int32_t code;
        if (is_space((*text)[at])) end = at;
        at += (size_t)utf8_decode(*text + at, *left - at, &code);
        columns++;
    }
    if (at >= *left || is_space((*text)[at]) || !end) end = at;
    for (size_t i = 0; i < end; i++) {
        const unsigned char c = (unsigned char)(*text)[i];
        putchar(c < 32 || c == 127 ? ' ' : c);
    }
    columns = text_columns(*text, end);
    *text += end;
    *left -= end;
    return columns;
}

/* Prints a text in as many lines as it needs, which begin at column `indent`. */
static void print_lines(const char *text, size_t left, int indent, int width) {
    while (left) {
        printf("%*s", indent, "");
        print_part(&text, &left, width - indent);
        printf("\n");
    }
}

/* Prints one sample: the query, the responses before and after training, and both rewards. */
static void print_row(const Json *sample, const Columns *c) {
    static const char *const name[3] = { "query", "response_before", "response_after" };
    const double reward[2] = { json_number(sample, "reward_before", NAN),
                               json_number(sample, "reward_after", NAN) };
    const char *text[3] = { "", "", "" };
    size_t left[3] = { 0, 0, 0 };
    for (int k = 0; k < 3; k++) {
        const Json *j = json_get(sample, name[k]);
        if (j && j->type == JSON_STRING) { text[k] = j->string; left[k] = j->length; }
    }
    if (!c->query) {
        print_lines(text[0], left[0], 2, c->width);
        for (int k = 0; k < 2; k++) {
            printf("  %s: %.2f\n", k ? "after" : "before", (double)(float)reward[k]);
            print_lines(text[k + 1], left[k + 1], 4, c->width);
        }
        printf("\n");
        return;
    }
    for (int line = 0; line == 0 || left[0] + left[1] + left[2] > 0; line++) {
        int gap = 2;                        /* spaces before the next cell that is not empty */
        for (int k = 0; k < 3; k++) {
            const int width = k ? c->response : c->query;
            if (left[k]) printf("%*s", gap, "");
            if (left[k]) gap = 0;
            gap += width + 2 - print_part(&text[k], &left[k], width);
        }
        if (!line) printf("%*s%*.2f %*.2f", gap, "", c->reward, (double)(float)reward[0], c->reward,
                          (double)(float)reward[1]);
        if (!line && c->rise) printf(" %+*.2f", c->reward, (double)(float)(reward[1] - reward[0]));
        printf("\n");
    }
}

/* Prints the first `show` samples; returns how many the file has (0: there is no file). */
static int print_samples(const char *path, int show, Pool *pool) {
    Error err = { 0 };
    const char *text;
    size_t n;
    int count = 0;
    const Columns table = columns_that_fit();
    if (!file_exists(path)) return 0;
    Lines *lines = lines_open(path, pool, &err);
    if (!lines) die(&err, NULL);
    if (show) printf("\n");
    if (show && table.query)
        printf("  %-*s  %-*s  %-*s  %*s %*s%s\n", table.query, "query", table.response, "response before",
               table.response, "response after", table.reward, "before", table.reward, "after",
               table.rise ? "  change" : "");
    for (; lines_next(lines, &text, &n); count++) {
        PoolMark mark = pool_mark(pool);
        const Json *sample = json_parse(text, n, pool, &err);
        if (!sample) die(&err, "a run folder whose samples.jsonl is whole");
        if (count < show) print_row(sample, &table);
        pool_release(pool, mark);
    }
    must(lines_close(lines, &err), &err, NULL);
    return count;
}

/* Prints a row of the summary. rise 1: with the difference. */
static void print_mean(const char *name, double before, double after, int digits, int rise) {
    const int width = terminal_width() < 60 ? 9 : 10;
    printf("  %-*s %*.*f %*.*f", width < 10 ? 18 : 21, name, width, digits, before, width, digits, after);
    if (rise && width < 10)
        printf("\n  %-18s %*s %+*.*f", "  its rise", width, "", width, digits, after - before);
    else if (rise) printf("   (%+.*f)", digits, after - before);
    printf("\n");
}

static void print_summary(const Summed *s, int queries) {
    const Evaluated *a = &s->first, *b = &s->last;
    const int narrow = terminal_width() < 60;
    char count[64];
    counted(count, (size_t)queries, "held-out query");
    if (narrow) printf("\n  %s", count);
    printf("\n  %-*s %*s %*s\n", narrow ? 18 : 21, narrow ? "" : count,
           narrow ? 9 : 10, "before", narrow ? 9 : 10, "after");
    print_mean("mean reward", a->mean, b->mean, 4, 1);
    print_mean("median reward", a->median, b->median, 4, 0);
    print_mean("standard deviation", a->std, b->std, 4, 0);
    print_mean("KL per response", a->kl, b->kl, 4, 0);
    print_mean("distinct bigrams", a->bigrams, b->bigrams, 0, 0);
    if (a->toxicity - a->toxicity == 0) {
        print_mean("mean toxicity", a->toxicity, b->toxicity, 4, 0);
        print_mean("its deviation", a->toxicity_std, b->toxicity_std, 4, 0);
        if (a->toxicity > 0)
            say("  toxicity (1 - the probability of the rewarded label): an improvement of %.2f %%",
                100 * (a->toxicity - b->toxicity) / a->toxicity);
    }
}

int report_run(const char *folder, int show, Pool *pool) {
    const size_t n = strlen(folder) + 32;
    char *path = pool_take(pool, n, 1);
    must(path ? OK : E_MEMORY, NULL, NULL);
    snprintf(path, n, "%s/log.jsonl", folder);
    const Summed s = read_log(path, pool);
    snprintf(path, n, "%s/samples.jsonl", folder);
    const int queries = print_samples(path, show < 0 ? s.show : show, pool);
    if (queries && s.evaluations) print_summary(&s, queries);
    for (int i = 0; i < MARKS && s.steps; i++)
        if (!s.mark_step[i]) say("  KL never passed %g", kl_mark[i]);
        else say("  reward of the training batch whose KL first passed %g: %.4f (step %d)", kl_mark[i],
                 s.mark_reward[i], s.mark_step[i]);
    return queries;
}

int report_command(int argc, char **argv) {
    int show;
    Option option[] = {
        { "show", OPT_INT, &show, "-1", -1, INT_MAX, NULL,
          "rows of the table (-1: as many as the run's own --show)" },
    };
    const Program program = {
        .program = "run report",
        .usage = "DIR [--show N]",
        .about = "Prints the result of a run of ppo again: what the policy of the run folder DIR wrote "
                 "before and after, its rewards and its KL.",
        OPTIONS(option) };
    const char *folder = NULL;
    Pool pool = cli_pool();
    if (!cli_parse(&program, argc, argv, &folder, 1)) usage_error("which run?", "run report DIR");
    if (!report_run(folder, show, &pool))
        printf("  no samples.jsonl: the run was stopped, or evaluated nothing\n");
    pool_free(&pool);
    return 0;
}
