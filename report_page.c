/* report_page.c - report.html: the curves of runs, their rewards before and after, and their samples, as one
 * page for people.
 *
 * Needs    record.c (what a run has written), report_curves.c (curves), html.c (texts), cli.c (warnings).
 * Never    asks for another file or the network; runs a script; lets a text of the data be markup: every text
 *          goes through html_put. Never ends a run because the page cannot be written.
 * Edges    a run in progress: the page reloads itself. Several runs: one curve for each on the same axes. */
#include "programs.h"
#include <stdio.h>

enum { ROWS_SHOWN = 8, ROWS_MOST = 500,     /* samples that are seen first, and in all */
       TEXT_MOST = 2000 };                  /* bytes of a text */

/* ---- tables and style ---- */

/* The numbers whose first and last value tell what a run has changed. */
static const struct { const char *name, *key; } result[] = {
    { "mean reward, held out", "eval/reward_mean" }, { "median reward, held out", "eval/reward_median" },
    { "standard deviation of it", "eval/reward_std" }, { "KL per response, held out", "eval/kl" },
    { "distinct bigrams, held out", "eval/distinct_bigrams" },
    { "mean toxicity, held out", "eval/toxicity_mean" }, { "ROUGE-1, held out", "eval/rouge1" },
    { "ROUGE-2, held out", "eval/rouge2" }, { "ROUGE-L, held out", "eval/rougeL" },
    { "mean reward, training", "env/reward_mean" },
    { "loss", "loss" }, { "loss, held out", "eval/loss" }, { "perplexity, held out", "eval/perplexity" },
    { "loss, held out", "eval/loss_full" }, { "accuracy", "accuracy" },
    { "accuracy, held out", "eval/accuracy_full" },
};
#define COUNT_OF(table) (int)(sizeof (table) / sizeof *(table))

static const char style[] =
    ":root{--bg:#fff;--fg:#1c2024;--dim:#5b6570;--line:#dfe3e8;--card:#f7f8fa;--c0:#1f66d1;--c1:#d9660a;"
    "--c2:#0b8a5a;--c3:#c2277f;--c4:#7a45d6;--c5:#0c8599;--c6:#6b8e00;--c7:#c92a2a;color-scheme:light dark}"
    "@media(prefers-color-scheme:dark){:root{--bg:#14171a;--fg:#e6e8ea;--dim:#9aa4ae;--line:#333a41;"
    "--card:#1c2024;--c0:#6ea8fe;--c1:#ffa657;--c2:#4cc38a;--c3:#f783c0;--c4:#b197fc;--c5:#66d9e8;"
    "--c6:#b5d64c;"
    "--c7:#ff8787}}"
    "*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--fg);"
    "font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}"
    "main{max-width:1320px;margin:0 auto;padding:20px 16px 48px}h1{font-size:1.6em;margin:0;"
    "overflow-wrap:anywhere}h2{font-size:1.2em;margin:2em 0 .6em}p{margin:.4em 0}"
    ".dim,figcaption,th{color:var(--dim)}"
    ".charts{display:grid;gap:14px;grid-template-columns:repeat(auto-fill,minmax(min(100%,360px),1fr))}"
    "figure{margin:0;padding:12px 12px 10px;background:var(--card);border:1px solid var(--line);"
    "border-radius:8px}"
    "figure h3{font-size:1em;margin:0 0 4px}figcaption{font-size:.86em;line-height:1.4}"
    "svg{display:block;width:100%;height:auto;margin-bottom:4px}svg text{font-size:12px;fill:var(--dim)}"
    ".l{fill:none;stroke-width:2;stroke-linejoin:round;vector-effect:non-scaling-stroke}"
    ".s{stroke-dasharray:5 4}"
    ".a{opacity:.16;stroke:none}.h{fill:transparent}.t{stroke:var(--line);fill:none}"
    "path.v{stroke:var(--dim);stroke-dasharray:3 4;fill:none}"
    "p.key{display:flex;flex-wrap:wrap;gap:2px 14px;font-size:.86em;color:var(--dim)}"
    ".options th{text-align:left}.options td:first-child{white-space:nowrap}"
    ".key i{display:inline-block;width:18px;height:0;border-top:3px solid;vertical-align:middle;"
    "margin-right:5px}"
    ".key i.s{border-top-style:dotted}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}th,td{padding:4px 18px 4px 0;"
    "text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}th{font-weight:normal;"
    "font-size:.9em}"
    "td.n,th.n{text-align:right;white-space:nowrap}.wide{overflow-x:auto}"
    ".text{white-space:pre-wrap;overflow-wrap:anywhere;max-height:14em;overflow-y:auto}"
    ".samples{table-layout:fixed;width:100%}.samples col.q{width:20%}.samples col.r{width:88px}"
    ".options td{overflow-wrap:anywhere}.up{color:var(--c2)}.down{color:var(--c7)}"
    "code{white-space:nowrap;font:.95em ui-monospace,Consolas,monospace}"
    "progress{width:100%;max-width:480px;height:10px;accent-color:var(--c0)}summary{cursor:pointer;"
    "color:var(--dim)}"
    "svg text.v{paint-order:stroke;stroke:var(--card);stroke-width:4px}"
    ".stays{position:sticky;top:0;z-index:1;max-height:25vh;overflow-y:auto;background:var(--bg);"
    "padding:2px 0 6px}"
    ".note{border-left:4px solid var(--c1);padding:2px 12px}"
    "@media print{figure,tr{break-inside:avoid}h2,h3{break-after:avoid}.stays{position:static}"
    ".charts{grid-template-columns:1fr 1fr}.samples col.r{width:66px}th,td{padding-right:10px}"
    ".text{max-height:none;overflow:visible}main{padding:0}}"
    "@media(max-width:700px){th,td{padding-right:10px}td{font-size:.94em}"
    ".samples,.samples tbody,.samples tr,.samples td{display:block;width:auto}"
    ".samples thead,.samples colgroup{display:none}.samples tr{border:1px solid var(--line);"
    "border-radius:8px;"
    "background:var(--card);margin:0 0 12px;padding:8px 12px}.samples td{border:0;padding:3px 0}"
    ".samples td::before{content:attr(data-is);display:block;color:var(--dim);font-size:.8em}"
    ".samples td.n{display:inline-block;text-align:left;margin-right:20px}}";

/* ---- pieces ---- */

static void put_text(Buffer *b, const char *text) { html_put(b, text, strlen(text)); }

/* Appends the cell of a text of the data, which may be long, or written from right to left. */
static void put_data(Buffer *b, const char *what, const RunText *t) {
    size_t n = t->length;
    if (n > TEXT_MOST)      /* not in the middle of a character */
        for (n = TEXT_MOST; n > 0 && ((unsigned char)t->text[n] & 0xC0) == 0x80; ) n--;
    html_print(b, "<td data-is=\"%s\"><div class=\"text\"><bdi>", what);
    html_put(b, t->text, n);
    buffer_text(b, "</bdi>");
    if (n < t->length) html_print(b, " <span class=\"dim\">... (%lu more bytes)</span>",
                                  (unsigned long)(t->length - n));
    buffer_text(b, "</div></td>");
}

/* Writes a number to out with four digits; "-" if it is none. */
static const char *number_text(char out[32], double x) {
    if (!(fabs(x) < HUGE_VAL)) return strcpy(out, "-");
    snprintf(out, 32, fabs(x) >= 1000 && fabs(x) < 1e9 ? "%.0f" : "%.4g", x);
    return out;
}

/* Writes a number to out with two decimals; "-" if it is none. */
static const char *hundredths(char out[32], double x) {
    if (!(fabs(x) < 1e9)) return number_text(out, x);
    snprintf(out, 32, "%.2f", fabs(x) < 0.005 ? 0 : x);      /* not -0.00 */
    return out;
}

/* ---- the beginning: which runs, and how far they are ---- */

static const char *stage_of(const char *program) {
    static const char *const stage[][2] = { { "ppo", "PPO" }, { "sft", "Supervised fine-tuning" },
                                            { "rm", "Reward model" } };
    for (int i = 0; i < COUNT_OF(stage); i++) if (!strcmp(program, stage[i][0])) return stage[i][1];
    return program;
}

/* Appends the line about a run: its stage, data, steps and time. */
static void put_status(Buffer *b, const ReportedRun *run, int many, int color, int reloads) {
    const RunRecord *r = &run->record;
    const Series *seconds = record_series(r, "seconds");
    const double steps = json_number(r->options, "steps", -1);
    double total = 0;
    char time[32], lines[64];
    for (int i = 0; seconds && i < seconds->n; i++) if (seconds->value[i] > 0) total += seconds->value[i];
    html_print(b, "<p%s>", many ? " class=\"key\"" : "");
    if (many) html_print(b, "<span><i class=\"c%d\"></i><bdi>", color % 8);
    if (many) put_text(b, r->folder);
    if (many) buffer_text(b, "</bdi></span> ");
    buffer_text(b, "<span>");
    put_text(b, stage_of(r->program));
    buffer_text(b, " on <bdi>");
    put_text(b, r->data);
    html_print(b, "</bdi>: step %.0f", r->last_step);
    if (steps > 0 && steps < 1e15) html_print(b, " of %.0f", steps);
    readable_time(time, total < 1e9 ? total : 1e9);
    if (total > 0) html_print(b, ", %s of training", time);
    html_print(b, "%s%s</span></p>", run->running ? "; it is running" : "",
               run->running && reloads ? ", and this page reloads itself" : "");
    if (run->running && steps > 0 && steps < 1e15)
        html_print(b, "<progress value=\"%.0f\" max=\"%.0f\"></progress>", r->last_step, steps);
    if (r->damaged)
        html_print(b, "<p class=\"note\">Left out: %s of the log; the first is line %d.</p>",
                   counted(lines, (size_t)r->damaged, "damaged line"), r->first_damaged);
    if (r->torn && !run->running)
        buffer_text(b, "<p class=\"note\">The last line of the log is not whole, and is left out: the run "
                       "ended while it wrote the line.</p>");
    if (run->samples.damaged)
        html_print(b, "<p class=\"note\">Left out: %s of samples.jsonl.</p>",
                   counted(lines, (size_t)run->samples.damaged, "damaged line"));
}

/* ---- results ---- */

/* Appends the cell that names a run, with its colour. */
static void put_name(Buffer *b, const ReportedRun *run, int color) {
    html_print(b, "<th class=\"key n\"><i class=\"c%d%s\"></i><bdi>", color % 8, color >= 8 ? " s" : "");
    put_text(b, run->record.name);
    buffer_text(b, "</bdi></th>");
}

/* The decimals of a row whose largest number has this size, so that the row's numbers have the same; -1: four
 * digits for each. */
static int decimals_of(double largest) {
    if (!(largest < 1e9) || (largest > 0 && largest < 0.01)) return -1;
    return largest < 10 ? 4 : largest < 1000 ? 2 : 0;
}

/* Appends a number with so many decimals; sign 1: with its sign. */
static void put_cell(Buffer *b, double x, int decimals, int sign) {
    char number[32];
    if (decimals >= 0 && fabs(x) < 0.5 * pow(10, -decimals)) x = 0;         /* not -0.0000 */
    if (decimals < 0 || !(fabs(x) < 1e9)) number_text(number, x);
    else snprintf(number, sizeof number, sign && x != 0 ? "%+.*f" : "%.*f", decimals, x);
    html_print(b, "<td class=\"n\">%s</td>", number);
}

/* Appends a row of the results: the first and last value of one run, the last values of several. */
static void put_result(Buffer *b, const char *name, const char *key, const ReportedRun *run, int runs) {
    double largest = 0;
    int found = 0, whole = 1;
    for (int k = 0; k < runs; k++) {
        const Series *s = record_series(&run[k].record, key);
        found |= s != NULL;
        for (int i = 0; s && i < s->n; i += s->n > 1 ? s->n - 1 : 1) {
            largest = fmax(largest, fabs(s->value[i]));
            whole &= s->value[i] == floor(s->value[i]);
        }
    }
    if (!found) return;
    const int decimals = whole ? 0 : decimals_of(largest);
    html_print(b, "<tr><td>%s</td>", name);
    for (int k = 0; k < runs; k++) {
        const Series *s = record_series(&run[k].record, key);
        const int n = s ? s->n : 0, alone = n == 1 && s->step[0] > 1;       /* a number of the end alone */
        const double first = n && !alone ? s->value[0] : NAN;
        const double last = n > (runs == 1) || alone ? s->value[n - 1] : NAN;
        if (runs == 1) put_cell(b, first, decimals, 0);
        put_cell(b, last, decimals, 0);
        if (runs == 1) put_cell(b, last - first, decimals, 1);
    }
    buffer_text(b, "</tr>");
}

static void put_results(Buffer *b, const ReportedRun *run, int runs) {
    buffer_text(b, "<h2>Results</h2><div class=\"wide\"><table><tr><th></th>");
    if (runs == 1)
        buffer_text(b, "<th class=\"n\">first</th><th class=\"n\">last</th><th class=\"n\">change</th>");
    for (int k = 0; k < runs && runs > 1; k++) put_name(b, &run[k], k);
    buffer_text(b, "</tr>");
    for (int i = 0; i < COUNT_OF(result); i++) put_result(b, result[i].name, result[i].key, run, runs);
    buffer_text(b, "</table></div>");
}

/* ---- samples ---- */

static double change_of(const RunSample *s) { return s->reward[1] - s->reward[0]; }

/* The largest loss first; samples without a reward last. */
static int by_change(const void *a, const void *b) {
    const double x = change_of(*(const RunSample *const *)a), y = change_of(*(const RunSample *const *)b);
    return x - x != 0 || y - y != 0 ? (x - x != 0) - (y - y != 0) : (x > y) - (x < y);
}

static void put_sample(Buffer *b, const RunSample *s) {
    char number[32];
    const double change = change_of(s);
    buffer_text(b, "<tr>");
    put_data(b, "query", &s->query);
    put_data(b, "response before", &s->response[0]);
    put_data(b, "response after", &s->response[1]);
    html_print(b, "<td class=\"n\" data-is=\"before\">%s</td>", hundredths(number, s->reward[0]));
    html_print(b, "<td class=\"n\" data-is=\"after\">%s</td>", hundredths(number, s->reward[1]));
    html_print(b, "<td class=\"n%s\" data-is=\"change\">%s%s</td>",
               change <= -0.005 ? " down" : change >= 0.005 ? " up" : "", change >= 0.005 ? "+" : "",
               hundredths(number, change));
    html_print(b, "<td class=\"n\" data-is=\"KL\">%s</td></tr>\n", hundredths(number, s->kl));
}

/* Appends a table of the samples first, first + by, ... (`count` of them). */
static void put_rows(Buffer *b, RunSample *const *s, int first, int by, int count) {
    buffer_text(b, "<table class=\"samples\"><colgroup><col class=\"q\"><col><col><col class=\"r\">"
                   "<col class=\"r\"><col class=\"r\"><col class=\"r\"></colgroup>"
                   "<thead><tr><th>query</th><th>response before</th><th>response after</th>"
                   "<th class=\"n\">before</th><th class=\"n\">after</th><th class=\"n\">change</th>"
                   "<th class=\"n\">KL</th></tr></thead><tbody>\n");
    for (int i = 0; i < count; i++) put_sample(b, s[first + i * by]);
    buffer_text(b, "</tbody></table>");
}

static void put_samples(Buffer *b, const RunSamples *samples, Pool *pool) {
    const int n = samples->count;
    RunSample **s = pool_take(pool, (size_t)n + 1, sizeof *s);
    int numbers = 0, worse = 0;
    if (!s) { b->failed = 1; return; }
    for (int i = 0; i < n; i++) {
        s[i] = &samples->sample[i];
        numbers += change_of(s[i]) - change_of(s[i]) == 0;
        worse += change_of(s[i]) < 0;
    }
    qsort(s, (size_t)n, sizeof *s, by_change);
    const int losses = worse < ROWS_SHOWN ? worse : ROWS_SHOWN;
    const int rest = numbers - losses, gains = rest < ROWS_SHOWN ? rest : ROWS_SHOWN;
    html_print(b, "<h2>Samples</h2><p class=\"dim\">Held-out queries, continued by the policy before and "
               "after training. The reward of %d of %d fell.</p>", worse, numbers);
    if (losses) buffer_text(b, "<h3>What lost most</h3>");
    if (losses) put_rows(b, s, 0, 1, losses);
    if (gains) buffer_text(b, "<h3>What gained most</h3>");
    if (gains) put_rows(b, s, numbers - 1, -1, gains);
    const int all = n < ROWS_MOST ? n : ROWS_MOST;
    html_print(b, "<p></p><details><summary>%s %d, the largest losses first</summary>",
               n > all ? "The first" : "All", all);
    put_rows(b, s, 0, 1, all);
    buffer_text(b, "</details>");
}

/* ---- options ---- */

/* Appends the value of an option, or of a fact about the run. */
static void put_value(Buffer *b, const Json *j) {
    char number[40];
    buffer_text(b, "<td><bdi>");
    if (!j || j->type == JSON_NULL) buffer_text(b, "-");
    else if (j->type == JSON_STRING) html_put(b, j->string, j->length);
    else if (j->type == JSON_NUMBER) {
        snprintf(number, sizeof number, "%.15g", j->number);
        buffer_text(b, number);
    } else buffer_text(b, j->type == JSON_TRUE ? "yes" : j->type == JSON_FALSE ? "no" : "...");
    buffer_text(b, "</bdi></td>");
}

static int same_value(const Json *a, const Json *b) {
    if (!a || !b || a->type != b->type) return a == b;
    if (a->type == JSON_STRING) return a->length == b->length && !memcmp(a->string, b->string, a->length);
    return a->type != JSON_NUMBER || a->number == b->number;
}

/* Appends a row for each field of a run's object; of several runs, for each field that is not the same in
 * all. */
static void put_fields(Buffer *b, const Json *const *object, int runs) {
    for (const Json *j = object[0] ? object[0]->child : NULL; j; j = j->next) {
        int differ = runs == 1;
        for (int k = 1; k < runs; k++) differ |= !same_value(j, json_get(object[k], j->key));
        if (!differ || j->type == JSON_OBJECT || !strcmp(j->key, "program")) continue;      /* said above */
        buffer_text(b, "<tr><td>");
        html_put(b, j->key, j->key_length);
        buffer_text(b, "</td>");
        for (int k = 0; k < runs; k++) put_value(b, json_get(object[k], j->key));
        buffer_text(b, "</tr>\n");
    }
}

static void put_options(Buffer *b, const ReportedRun *run, int runs, Pool *pool) {
    const Json **object = pool_take(pool, 3 * (size_t)runs, sizeof *object);
    if (!object) { b->failed = 1; return; }
    for (int k = 0; k < runs; k++) {
        object[k] = run[k].record.first;
        object[runs + k] = run[k].record.machine;
        object[2 * runs + k] = run[k].record.options;
    }
    html_print(b, "<h2>%s</h2>%s<div class=\"wide\"><table class=\"options\">",
               runs > 1 ? "What differs" : "Options",
               runs > 1 ? "" : "<details><summary>All options of the run, and what it ran on</summary>");
    if (runs > 1) buffer_text(b, "<tr><th></th>");
    for (int k = 0; k < runs && runs > 1; k++) put_name(b, &run[k], k);
    if (runs > 1) buffer_text(b, "</tr>");
    for (int part = 0; part < 3; part++) put_fields(b, object + part * runs, runs);
    html_print(b, "</table></div>%s", runs > 1 ? "" : "</details>");
}

/* ---- the page ---- */

static void put_page(Buffer *b, const ReportedRun *run, int runs, int reloads, Pool *pool) {
    char number[64];
    buffer_text(b, "<!DOCTYPE html>\n" REPORT_MARK "\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                   "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">");
    if (reloads) buffer_text(b, "<meta http-equiv=\"refresh\" content=\"5\">");
    buffer_text(b, "<title>");
    if (runs == 1) put_text(b, run[0].record.name);
    else buffer_text(b, counted(number, (size_t)runs, "run"));
    buffer_text(b, "</title><style>");
    buffer_text(b, style);
    for (int i = 0; i < 8; i++)
        html_print(b, ".l.c%d{stroke:var(--c%d)}.a.c%d,.d.c%d{fill:var(--c%d)}i.c%d{color:var(--c%d)}", i, i,
                   i, i, i, i, i);
    buffer_text(b, "</style></head><body><main>\n<h1><bdi>");
    if (runs == 1) put_text(b, run[0].record.folder);
    else buffer_text(b, counted(number, (size_t)runs, "run"));
    buffer_text(b, "</bdi></h1>\n");
    for (int k = 0; k < runs; k++) put_status(b, &run[k], runs > 1, k, reloads);
    put_results(b, run, runs);
    report_curves(b, run, runs, pool);
    if (runs == 1 && run[0].samples.count) put_samples(b, &run[0].samples, pool);
    put_options(b, run, runs, pool);
    buffer_text(b, "\n</main></body></html>\n");
}

int report_read(ReportedRun *run, const char *folder, int running, Pool *pool, Error *err) {
    run->running = running;
    const int code = record_read(&run->record, folder, pool, err);
    return code == OK ? record_samples(&run->samples, folder, pool, err) : code;
}

int report_page(const char *path, const ReportedRun *run, int runs, int reloads, Pool *pool, Error *err) {
    Buffer b = { 0 };
    b.pool = pool;
    put_page(&b, run, runs, reloads, pool);
    if (b.failed) return fail(err, E_MEMORY, "no memory for the page", path, 0, 0);
    return file_write_all(path, b.data, b.length, pool, err);
}

/* ---- the page of a run that goes on ---- */

/* The run whose page this program writes (it has one run), and when the page was written last. */
static struct { RunFolder *folder; double written, cost; int warned; } live;

/* Writes the page of the run. A failure is said once, and is no reason to lose the run. */
static void write_live(int running) {
    char path[560];
    ReportedRun run;
    Error err = { 0 };
    Pool pool = { 0 };
    const double begin = wall_clock();
    pool.source = malloc;                   /* not cli_pool: without memory there is no page, but a run */
    pool.sink = free;
    snprintf(path, sizeof path, "%s/report.html", live.folder->path);
    if ((report_read(&run, live.folder->path, running, &pool, &err) != OK ||
         report_page(path, &run, 1, running, &pool, &err) != OK) && !live.warned) {
        live.warned = 1;
        cli_warn(&err, "make room; `run report` writes the page later, and the run does not need it");
    }
    pool_free(&pool);
    live.written = wall_clock();
    live.cost = live.written - begin;
}

/* The end of the program, however it comes: the page no longer reloads itself. */
static void end_live(void) {
    if (live.folder && live.folder->begun) write_live(0);
    live.folder = NULL;
}

void report_live(RunFolder *f) {
    enum { EVERY = 4, SHARE = 50 };         /* seconds between pages; at most 1 / SHARE of the run's time */
    if (!live.folder) atexit(end_live);     /* before folder.c's own end, which may delete the folder */
    else if (wall_clock() - live.written < EVERY + SHARE * live.cost) return;
    live.folder = f;
    write_live(1);
}
