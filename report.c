/* report.c - prints a run as a table: responses before and after training, their rewards, and the KL to the
 * reference; of sft and rm the losses. And `run report`, which does so later, and writes the page of one run
 * or of several.
 *
 * Needs    the files of a run folder, as record.c reads them, and nothing else. ppo prints its result by it.
 * Edges    a run that was stopped has no samples.jsonl, and so no table. */
#include "programs.h"
#include <stdio.h>

static int is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

/* ---- the numbers of the run ---- */

enum { MARKS = 2 };
static const double kl_mark[MARKS] = { 3, 6 };

static double first_of(const Series *s) { return s && s->n ? s->value[0] : 0; }
static double last_of(const Series *s) { return s && s->n ? s->value[s->n - 1] : 0; }

/* Returns the number of a series at a step; 0 if it has none there. */
static double value_at(const Series *s, double step) {
    for (int i = 0; s && i < s->n; i++) if (s->step[i] == step) return s->value[i];
    return 0;
}

/* ---- the table ---- */

/* Widths of the table: of the query, of each response and of each reward. rise 1: there is room for a column
 * with the difference of the rewards. query 0: the terminal is too narrow for columns, or a query would take
 * many lines of its column, and each sample is printed as lines. */
typedef struct { int query, response, reward, width, rise; } Columns;

/* longest: bytes of the longest query. */
static Columns columns_that_fit(size_t longest) {
    enum { REWARD = 7, GAPS = 10, STACKED = 64, WIDE = 100, WIDEST_TEXT = 36, MOST_LINES = 8 };
    Columns c = { 0, 0, REWARD, terminal_width(), 0 };
    if (c.width < STACKED) return c;
    c.rise = c.width >= WIDE;
    const int numbers = (2 + c.rise) * REWARD + c.rise;
    c.response = (c.width - GAPS - numbers) * 3 / 8;
    if (c.response > WIDEST_TEXT) c.response = WIDEST_TEXT;
    c.query = c.width - GAPS - numbers - 2 * c.response;
    if (c.query > 22) c.query = 22;
    if (longest > (size_t)(MOST_LINES * c.query)) c.query = 0;
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
static void print_row(const RunSample *sample, const Columns *c) {
    const double *reward = sample->reward;
    const char *text[3] = { sample->query.text, sample->response[0].text, sample->response[1].text };
    size_t left[3] = { sample->query.length, sample->response[0].length, sample->response[1].length };
    if (!c->query) {
        print_lines(text[0], left[0], 2, c->width);
        for (int k = 0; k < 2; k++) {
            printf("  %s: %.2f\n", k ? "after" : "before", (double)(float)reward[k]);
            print_lines(text[k + 1], left[k + 1], 4, c->width);
        }
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

/* Prints the first `show` samples. */
static void print_samples(const RunSamples *s, int show) {
    size_t longest = 0;
    for (int i = 0; i < s->count && i < show; i++)
        if (s->sample[i].query.length > longest) longest = s->sample[i].query.length;
    const Columns table = columns_that_fit(longest);
    if (!show || !s->count) return;
    printf("\n");
    if (table.query)
        printf("  %-*s  %-*s  %-*s  %*s %*s%s\n", table.query, "query", table.response, "response before",
               table.response, "response after", table.reward, "before", table.reward, "after",
               table.rise ? "  change" : "");
    for (int i = 0; i < s->count && i < show; i++) {
        if (i && !table.query) printf("\n");
        print_row(&s->sample[i], &table);
    }
}

/* Prints a row of the summary. rise 1: with the difference. */
static void print_mean(const char *name, double before, double after, int digits, int rise) {
    const int narrow = terminal_width() < 60, width = narrow ? 8 : 10;
    printf("  %-*s %*.*f %*.*f", narrow ? 19 : 21, name, width, digits, before, width, digits, after);
    if (rise && narrow)
        printf("\n  %-19s %*s %+*.*f", "  its rise", width, "", width, digits, after - before);
    else if (rise) printf("   (%+.*f)", digits, after - before);
    printf("\n");
}

static void print_summary(const RunRecord *r, int queries) {
    static const struct { const char *name, *key; int digits, rise; } row[] = {
        { "mean reward", "eval/reward_mean", 4, 1 }, { "median reward", "eval/reward_median", 4, 0 },
        { "standard deviation", "eval/reward_std", 4, 0 }, { "KL per response", "eval/kl", 4, 0 },
        { "distinct bigrams", "eval/distinct_bigrams", 0, 0 },
        { "mean toxicity", "eval/toxicity_mean", 4, 0 },
        { "its deviation", "eval/toxicity_std", 4, 0 },
        { "ROUGE-1", "eval/rouge1", 4, 0 }, { "ROUGE-2", "eval/rouge2", 4, 0 },
        { "ROUGE-L", "eval/rougeL", 4, 0 }, { "ROUGE-Lsum", "eval/rougeLsum", 4, 0 } };
    const Series *toxicity = record_series(r, "eval/toxicity_mean");
    const int narrow = terminal_width() < 60;
    char count[64];
    counted(count, (size_t)queries, "held-out query");
    if (narrow) printf("\n  %s", count);
    printf("\n  %-*s %*s %*s\n", narrow ? 19 : 21, narrow ? "" : count,
           narrow ? 8 : 10, "before", narrow ? 8 : 10, "after");
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        const Series *s = record_series(r, row[i].key);
        if (s) print_mean(row[i].name, first_of(s), last_of(s), row[i].digits, row[i].rise);
    }
    if (first_of(toxicity) > 0)
        say("  toxicity (1 - the probability of the rewarded label): an improvement of %.2f %%",
            100 * (first_of(toxicity) - last_of(toxicity)) / first_of(toxicity));
}

/* Prints the reward when the KL first passed 3 and 6. */
static void print_marks(const RunRecord *r) {
    const Series *kl = record_series(r, "objective/kl"), *reward = record_series(r, "env/reward_mean");
    for (int i = 0; i < MARKS && kl; i++) {
        int at = 0;
        while (at < kl->n && !(kl->value[at] > kl_mark[i])) at++;
        if (at == kl->n) say("  KL never passed %g", kl_mark[i]);
        else say("  reward of the training batch whose KL first passed %g: %.4f (step %.0f)", kl_mark[i],
                 value_at(reward, kl->step[at]), kl->step[at]);
    }
}

/* Prints the first and last numbers of a run of sft or rm. */
static void print_losses(const RunRecord *r) {
    static const struct { const char *name, *key; } row[] = {
        { "loss", "loss" }, { "held-out loss", "eval/loss" }, { "held-out perplexity", "eval/perplexity" },
        { "accuracy", "accuracy" }, { "held-out loss", "eval/loss_full" },
        { "held-out accuracy", "eval/accuracy_full" } };
    const int narrow = terminal_width() < 60, width = narrow ? 8 : 10;
    printf("  %-*s %*s %*s\n", narrow ? 19 : 21, "", width, "first", width, "last");
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        const Series *s = record_series(r, row[i].key);
        if (s) print_mean(row[i].name, first_of(s), last_of(s), 4, 0);
    }
}

/* Says which lines of the run's files were left out. */
static void say_damage(const RunRecord *r, const RunSamples *s) {
    char lines[64];
    if (r->damaged) say("  %s of the log left out, as damaged; the first is line %d",
                        counted(lines, (size_t)r->damaged, "line"), r->first_damaged);
    if (r->torn) say("  the last line of the log is not whole, and is left out");
    if (s->damaged) say("  %s of samples.jsonl left out, as damaged",
                        counted(lines, (size_t)s->damaged, "line"));
}

/* Prints the result of a run that was read. */
static void print_run(const ReportedRun *run, int show) {
    const RunRecord *r = &run->record;
    const int ppo = !strcmp(r->program, "ppo");
    say_damage(r, &run->samples);
    print_samples(&run->samples, show < 0 ? (int)json_number(r->options, "show", 10) : show);
    if (run->samples.count && record_series(r, "eval/reward_mean")) print_summary(r, run->samples.count);
    if (ppo) print_marks(r);
    else print_losses(r);
}

/* Prints where the page is: the folder, then its file, in a line of its own if the terminal is narrow. */
static void say_page(const char *folder, const char *file) {
    static const char what[] = "  curves and all samples:";
    const int fits = sizeof what + strlen(folder) + strlen(file) <= (size_t)terminal_width();
    printf("%s%s%s%s\n", what, fits ? " " : "\n  ", folder, file);
}

static const char a_run[] = "the folder of a run of ppo, sft or rm, such as runs/ppo-0001";

void report_run(const char *folder, int show, Pool *pool) {
    Error err = { 0 };
    ReportedRun run;
    must(report_read(&run, folder, 0, pool, &err), &err, a_run);
    print_run(&run, show);
    if (run.record.last_step > 0 || run.samples.count) say_page(folder, "/report.html");
}

/* ---- run report ---- */

/* Returns where the page goes without --out: into the folder of one run, beside the first of several. Dies if
 * another program's file is there. */
static const char *usual_page(const char *const *folder, int runs, Pool *pool) {
    const size_t n = strlen(folder[0]) + 40;
    char *path = pool_need(pool, n, 1, "a path"), *bytes;
    Error err = { 0 };
    size_t length, at = strlen(folder[0]);
    while (at > 1 && folder[0][at - 1] == '/') at--;
    while (runs > 1 && at > 0 && folder[0][at - 1] != '/') at--;
    snprintf(path, n, "%.*s%sreport.html", (int)at, folder[0], runs > 1 ? "" : "/");
    if (!file_exists(path)) return path;
    must(file_read_all(path, pool, &bytes, &length, &err), &err, NULL);
    if (!strstr(bytes, REPORT_MARK))
        must(fail(&err, E_WRITE, "a file of another program is in the way", path, 0, 0), &err,
             "--out FILE.html, or move that file");
    return path;
}

/* Returns 1 if a program is writing to the run's folder. */
static int is_running(const char *folder, Pool *pool) {
    const size_t n = strlen(folder) + 8;
    char *path = pool_need(pool, n, 1, "a path");
    long process;
    snprintf(path, n, "%s/lock", folder);
    return lock_is_held(path, &process);
}

/* Returns a path's bytes without slashes at its end. */
static size_t path_length(const char *path) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    return n;
}

/* Returns 1 if a path is the n bytes at `end`, or ends with them as whole names. */
static int path_ends(const char *path, const char *end, size_t n) {
    const size_t all = path_length(path);
    return all >= n && !memcmp(path + all - n, end, n) && (all == n || path[all - n - 1] == '/');
}

/* Names each run by the shortest end of its path that no other run's path has: a/ppo-0001 and b/ppo-0001. */
static void name_runs(ReportedRun *run, const char *const *folder, int runs, Pool *pool) {
    for (int k = 0; k < runs; k++) {
        const size_t n = path_length(folder[k]);
        size_t begin = n;
        for (int alike = 1; alike && begin > 0; ) {
            if (begin < n) begin--;                         /* the slash before the name */
            while (begin > 0 && folder[k][begin - 1] != '/') begin--;
            alike = 0;
            for (int j = 0; j < runs; j++)
                alike |= j != k && path_ends(folder[j], folder[k] + begin, n - begin);
        }
        char *name = pool_need(pool, n - begin + 1, 1, "names");
        snprintf(name, n - begin + 1, "%s", folder[k] + begin);
        run[k].record.name = name;
    }
}

int report_command(int argc, char **argv) {
    enum { RUNS = 64 };
    int show;
    const char *out;
    Option option[] = {
        { "show", OPT_INT, &show, "-1", -1, INT_MAX, NULL,
          "rows of the table (-1: as many as the run's own --show)" },
        { "out", OPT_TEXT, &out, NULL, 0, 0, NULL,
          "the page (default: report.html, in the folder of one run, or beside the first of several)" },
    };
    const Program program = {
        .program = "run report",
        .usage = "DIR [DIR ...] [--out FILE.html] [--show N]",
        .about = "Prints the result of a run again, and writes a page with its curves and samples: DIR is "
                 "the run folder. Several runs are drawn on the same axes.",
        OPTIONS(option) };
    const char *folder[RUNS];
    Error err = { 0 };
    Pool pool = cli_pool();
    const int runs = cli_parse(&program, argc, argv, folder, RUNS);
    if (!runs) usage_error("which run?", "run report DIR");
    ReportedRun *run = pool_need(&pool, (size_t)runs, sizeof *run, "runs");
    if (out) out_file_check("--out", out, NULL, 0);
    for (int k = 0; k < runs; k++) {
        must(report_read(&run[k], folder[k], is_running(folder[k], &pool), &pool, &err), &err, a_run);
        if (runs > 1) say("%s%s", k ? "\n" : "", folder[k]);
        print_run(&run[k], show);
        if (!run[k].samples.count && !strcmp(run[k].record.program, "ppo"))
            say("  no samples.jsonl: the run goes on or was stopped, or evaluated nothing");
    }
    name_runs(run, folder, runs, &pool);
    const char *page = out ? out : usual_page(folder, runs, &pool);
    const int reloads = runs == 1 && !out && run[0].running;        /* the run writes this page again */
    must(report_page(page, run, runs, reloads, &pool, &err), &err,
         "--out FILE.html, in a place where files can be written");
    say_page(page, "");
    pool_free(&pool);
    return 0;
}
