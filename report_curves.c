/* report_curves.c - the curves of report.html: which numbers of the log are drawn, and the sentence that says
 * what each curve should look like.
 *
 * Needs    record.c (the numbers of runs), chart.c (a drawing), html.c (texts).
 * Never    prints; lets a name of the data be markup: each goes through html_put.
 * Edges    a key that no run has: no drawing. Several runs: one curve for each on the same axes. */
#include "programs.h"
#include <stdio.h>

enum { JUDGES = 8 };                        /* single judges that are drawn */

/* ---- what is drawn ---- */

/* A chart: the series `key`, its band `spread`, and a second series of the same thing, `other` ("a|b": the
 * first one that there is). A chart without numbers is left out. level_name: there is a level. It is the
 * number of an option of the runs, where their option `if_set` is on (NULL: always); without an option, it is
 * `level`. worth: the chart is left out, too, if no number of it has this size, as a share of the level if it
 * has one (0: it is drawn always). least: values below it are drawn at it (0: none is). from_zero: see Chart.
 * say: what the curve should look like. */
typedef struct {
    const char *title, *key, *spread, *other, *level_name, *option, *if_set;
    double level, least, worth;
    int from_zero;
    const char *say;
} Shown;
static const Shown shown[] = {
    { .title = "Reward", .key = "env/reward_mean", .spread = "env/reward_std", .other = "eval/reward_mean",
      .say = "Rises, unevenly, and then flattens." },
    { .title = "KL from the reference, per response", .key = "objective/kl", .other = "eval/kl",
      .level_name = "target", .option = "target", .if_set = "adap-kl-ctrl",
      .say = "Exactly 0 at first, then rises: with <code>--adap-kl-ctrl</code> towards the target and "
             "somewhat beyond. Far beyond it the texts get worse." },
    { .title = "KL coefficient", .key = "objective/kl_coef",
      .say = "With <code>--adap-kl-ctrl</code> it falls while the KL is below the target, and rises while it "
             "is above; else it stays." },
    { .title = "KL in the loss, without its coefficient", .key = "ppo/loss/kl", .from_zero = 1,
      .say = "Rises slowly, as the KL does." },
    { .title = "Entropy of a token, nats", .key = "ppo/policy/entropy", .from_zero = 1,
      .say = "Falls slowly. Near 0 the policy always writes the same." },
    { .title = "Clip fraction", .key = "ppo/policy/clipfrac", .from_zero = 1,
      .level_name = "0.2", .level = 0.2,
      .say = "Stays below 0.2. Above it, each step moves the policy too far: a smaller "
             "<code>--learning-rate</code>." },
    { .title = "Value loss", .key = "ppo/loss/value", .from_zero = 1,
      .say = "Falls, and rises again with the spread of the rewards." },
    { .title = "Explained variance of the returns", .key = "ppo/val/var_explained", .level_name = "perfect",
      .level = 1, .least = -1,
      .say = "Rises from 0 or below. Well below 0 for long: a larger "
             "<code>--value-learning-rate</code>. (Drawn from -1 on.)" },
    { .title = "Response length, tokens", .key = "tokens/responses_len_mean",
      .spread = "tokens/responses_len_std", .from_zero = 1,
      .say = "Stays. If it steadily grows or shrinks, the judge rewards length." },
    { .title = "Correlation of reward and length", .key = "env/reward_length_correlation", .worth = 0.1,
      .say = "Near 0. Far above it the judge rewards long responses, far below it short ones: "
             "<code>--length-penalty</code>, or another judge." },
    { .title = "Share of responses that repeat another", .key = "tokens/responses_repeated",
      .worth = 0.02, .from_zero = 1,
      .say = "Near 0. Near 1 the policy always writes the same: a larger <code>--temperature</code>, or a "
             "smaller <code>--learning-rate</code>." },
    { .title = "Responses that end with --stop", .key = "tokens/responses_with_stop", .from_zero = 1,
      .level_name = "all", .option = "batch-size",
      .say = "Rises, if <code>--missing-stop-score</code> is low." },
    { .title = "Responses that the policy ends itself", .key = "tokens/responses_with_eos", .worth = 0.02,
      .from_zero = 1, .level_name = "all", .option = "batch-size",
      .say = "Rises with <code>--missing-eos-penalty</code>. Responses without an end are cut at "
             "<code>--response-max</code>." },
    { .title = "Distinct bigrams, held out", .key = "eval/distinct_bigrams", .from_zero = 1,
      .say = "Falls somewhat. By half or more: the same phrases are everywhere." },
    { .title = "Loss", .key = "loss", .other = "eval/loss|eval/loss_full",
      .say = "Falls, fast and then slowly. If the held-out loss rises while the loss falls: "
             "fewer <code>--epochs</code>." },
    { .title = "Held-out perplexity", .key = "eval/perplexity",
      .say = "Falls, and then flattens. If it rises again: fewer <code>--epochs</code>." },
    { .title = "Accuracy", .key = "accuracy", .other = "eval/accuracy_full", .level_name = "all right",
      .level = 1,
      .say = "Rises from 1 / number of labels (pairs: from 0.5). Held-out accuracy that stays behind: more "
             "texts." },
    { .title = "Gradient norm", .key = "grad_norm", .from_zero = 1,
      .say = "Steady. A jump that stays: a smaller <code>--learning-rate</code>, or "
             "<code>--max-grad-norm 1</code>." },
    { .title = "Learning rate", .key = "learning_rate", .from_zero = 1, .say = "What the options ask for." },
    { .title = "Tokens per second", .key = "tokens_per_second", .from_zero = 1,
      .say = "Steady. If it falls: another program uses the processor, or the texts grow." },
};
/* Returns the series of the first of the keys "a|b" that the run has; NULL if it has none of them. */
static const Series *first_series(const RunRecord *r, const char *keys) {
    char key[96];
    while (keys && *keys) {
        const size_t n = strcspn(keys, "|");
        snprintf(key, sizeof key, "%.*s", (int)n, keys);
        const Series *s = record_series(r, key);
        if (s) return s;
        keys += n + (keys[n] == '|');
    }
    return NULL;
}

/* Appends what the curves of a chart are: their colours and names. */
static void put_key(Buffer *b, const Curve *curve, int curves) {
    buffer_text(b, "<p class=\"key\">");
    for (int k = 0; k < curves; k++) {
        html_print(b, "<span><i class=\"c%d%s\"></i><bdi>", curve[k].color % 8,
                   curve[k].dashed || curve[k].color >= 8 ? " s" : "");
        html_put(b, curve[k].name, strlen(curve[k].name));
        buffer_text(b, "</bdi></span>");
    }
    buffer_text(b, "</p>");
}

/* Appends the names and colours of several runs, which stay in sight while the curves are. */
static void put_names(Buffer *b, const ReportedRun *run, int runs) {
    buffer_text(b, "<div class=\"stays\"><p class=\"key\">");
    for (int k = 0; k < runs; k++) {
        html_print(b, "<span><i class=\"c%d%s\"></i><bdi>", k % 8, k >= 8 ? " s" : "");
        html_put(b, run[k].record.name, strlen(run[k].record.name));
        buffer_text(b, "</bdi></span>");
    }
    buffer_text(b, "</p></div>");
}

/* Sets the level of a chart, if it has one and it is the same in all runs. */
static void set_level(Chart *c, char name[64], const Shown *s, const ReportedRun *run, int runs) {
    if (!s->level_name) return;
    c->level = s->level;
    c->level_name = s->level_name;
    for (int k = 0; k < runs && s->option; k++) {
        const Json *options = run[k].record.options;
        const int used = !s->if_set || json_bool(options, s->if_set, 0);
        const double value = used ? json_number(options, s->option, NAN) : NAN;
        c->level = !k || c->level == value ? value : NAN;
    }
    if (!s->option || !(fabs(c->level) < HUGE_VAL)) return;
    snprintf(name, 64, "%s %.6g", s->level_name, c->level);
    c->level_name = name;
}

static Curve curve_of(const char *name, const Series *s, const Series *spread, int color, int dashed) {
    const int same = spread && spread->n == s->n;
    const Curve c = { name, s->step, s->value, same ? spread->value : NULL, s->n, color, dashed };
    return c;
}

/* Returns 1 if a number of a curve is at least `worth` from 0, as a share of the level if there is one. */
static int is_worth(const Chart *c, double worth) {
    const double least = fabs(c->level) < HUGE_VAL ? worth * c->level : worth;
    for (int k = 0; k < c->curves; k++)
        for (int i = 0; i < c->curve[k].n; i++) if (fabs(c->curve[k].y[i]) >= least) return 1;
    return worth == 0;
}

/* Appends a chart with its title, the names of its curves if named is 1, and two sentences. */
static void put_figure(Buffer *b, const Chart *c, int named, const char *say, const char *more) {
    html_print(b, "<figure><h3>%s</h3>", c->title);
    if (named) put_key(b, c->curve, c->curves);
    chart_curves(b, c);
    html_print(b, "<figcaption>%s%s%s</figcaption></figure>\n", say, more,
               c->curve[0].spread ? " The band is one standard deviation to both sides." : "");
}

/* Appends a chart, unless no run has its numbers. curve: room for two curves a run. */
static void put_chart(Buffer *b, const Shown *s, const ReportedRun *run, int runs, Curve *curve) {
    Chart c = { s->title, "", curve, 0, NAN, s->least != 0 ? s->least : NAN, s->from_zero };
    char level[64];
    for (int k = 0; k < runs; k++) {
        const RunRecord *r = &run[k].record;
        const Series *main = record_series(r, s->key), *other = first_series(r, s->other);
        const Series *spread = s->spread && runs == 1 ? record_series(r, s->spread) : NULL;
        if (main) curve[c.curves++] = curve_of(runs > 1 ? r->name : "training", main, spread, k, 0);
        if (other && runs > 1) curve[c.curves++] = curve_of(r->name, other, NULL, k, 1);
        else if (other) curve[c.curves++] = curve_of("held out", other, NULL, 1, 0);
    }
    set_level(&c, level, s, run, runs);
    if (!c.curves || !is_worth(&c, s->worth)) return;
    put_figure(b, &c, runs == 1 && c.curves > 1, s->say, runs > 1 && s->other ? " Dashed: held out." : "");
}

/* Writes the name of judge k (from 0) to out: its part of the run's --reward A:0.7,B:0.3, or its number. */
static const char *judge_name(char out[128], const RunRecord *r, int k) {
    const char *part = json_text(r->options, "reward", "");
    for (int i = 0; i < k && part; i++) if ((part = strchr(part, ',')) != NULL) part++;
    const int n = part ? (int)strcspn(part, ",") : 0;
    if (n > 0 && n < 128) snprintf(out, 128, "%.*s", n, part);
    else snprintf(out, 128, "judge %d", k + 1);
    return out;
}

/* Appends the mean logits of single judges: of one run in one drawing, of several runs a drawing for each
 * judge. curve: room for JUDGES curves, and for one of each run. */
static void put_judges(Buffer *b, const ReportedRun *run, int runs, Curve *curve) {
    static const char say[] = "All rise together. A judge that falls while another one rises pays for it: "
                              "another weight in <code>--reward</code>.";
    char name[JUDGES][128], key[32], title[64] = "Mean logit of each judge";
    Chart c = { title, "", curve, 0, NAN, NAN, 0 };
    for (int judge = 0; judge < JUDGES; judge++) {
        snprintf(key, sizeof key, "env/judge_mean_%d", judge + 1);
        for (int k = 0; k < runs; k++) {
            const RunRecord *r = &run[k].record;
            const Series *s = record_series(r, key);
            const char *what = runs > 1 ? r->name : judge_name(name[judge], r, judge);
            if (s) curve[c.curves++] = curve_of(what, s, NULL, runs > 1 ? k : judge, 0);
        }
        if (runs == 1 || !c.curves) continue;
        snprintf(title, sizeof title, "Mean logit of judge %d", judge + 1);
        put_figure(b, &c, 0, say, "");
        c.curves = 0;
    }
    if (c.curves) put_figure(b, &c, 1, say, "");
}

/* Appends the histogram of the samples' rewards: before and after of one run, after of several. */
static void put_rewards(Buffer *b, const ReportedRun *run, int runs, Curve *curve, Pool *pool) {
    int sets = 0;
    for (int k = 0; k < runs; k++)
        for (int after = runs > 1; after < 2 && run[k].samples.count; after++) {
            const RunSamples *s = &run[k].samples;
            double *value = pool_take(pool, (size_t)s->count, sizeof *value);
            if (!value) { b->failed = 1; return; }
            for (int i = 0; i < s->count; i++) value[i] = s->sample[i].reward[after];
            const Curve c = { runs > 1 ? run[k].record.name : after ? "after" : "before", NULL, value, NULL,
                              s->count, runs > 1 ? k : !after, 0 };
            curve[sets++] = c;
        }
    if (!sets) return;
    buffer_text(b, "<figure><h3>Rewards of the held-out queries</h3>");
    if (runs == 1) put_key(b, curve, sets);
    chart_histogram(b, "rewards of the held-out queries", curve, sets);
    html_print(b, "<figcaption>%s. Share of the queries with each reward. The whole hill moves to the right; "
               "one narrow peak at the end: all responses are alike.</figcaption></figure>\n",
               runs > 1 ? "After training" : "Before and after training");
}

void report_curves(Buffer *b, const ReportedRun *run, int runs, Pool *pool) {
    Curve *curve = pool_take(pool, 2 * (size_t)runs + JUDGES, sizeof *curve);
    if (!curve) { b->failed = 1; return; }
    buffer_text(b, "<h2>Curves</h2><p class=\"dim\">Over the steps of training. The sentence under a curve "
                   "says what it should look like.</p>");
    if (runs > 1) put_names(b, run, runs);
    buffer_text(b, "<div class=\"charts\">\n");
    for (int i = 0; i < (int)(sizeof shown / sizeof *shown); i++) {
        put_chart(b, &shown[i], run, runs, curve);
        if (!i) put_judges(b, run, runs, curve);
    }
    put_rewards(b, run, runs, curve, pool);
    buffer_text(b, "</div>");
}
