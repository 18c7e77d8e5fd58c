/* rm_quality.c - how good a judge's answers are: right or wrong, how sure, and what is taken for what.
 * Source   Guo et al. 2017, "On Calibration of Modern Neural Networks" (expected calibration error). */
#include "rm.h"
#include <stdio.h>

enum { BINS = 10 };
/* The answers whose confidence is in one bin: how many, and the sums of their confidence and of the right. */
typedef struct { int n; double confidence, right; } Bin;

static int best_label(const float *logits, int labels) {
    int best = 0;
    for (int j = 1; j < labels; j++) if (logits[j] > logits[best]) best = j;
    return best;
}

/* Returns the margin of pair i: the score of its first text minus that of its second. */
static double margin(const Answers *a, int i) {
    const float *z = a->logits + (size_t)(2 * i) * (size_t)a->labels;
    return (double)z[0] - (double)z[a->labels];
}

/* Returns 1 if the first text of pair i is probably the better one, -1 if the second is, else 0. */
static int better(const Answers *a, int i) {
    return (a->truth[i] > PAIR_CERTAIN / 2) - (a->truth[i] < PAIR_CERTAIN / 2);
}

double answer_right(const Answers *a, int i) {
    if (!a->pairs) return best_label(a->logits + (size_t)i * (size_t)a->labels, a->labels) == a->truth[i];
    const double d = margin(a, i);
    return 0.5 * (1 + better(a, i) * ((d > 0) - (d < 0)));
}

/* Returns the probability that the judge gives its own answer. */
static double confidence(const Answers *a, int i) {
    if (a->pairs) return 1 / (1 + exp(-fabs(margin(a, i))));
    const float *z = a->logits + (size_t)i * (size_t)a->labels;
    const int best = best_label(z, a->labels);
    double sum = 0;
    for (int j = 0; j < a->labels; j++) sum += exp((double)z[j] - (double)z[best]);
    return 1 / sum;
}

/* Logs the bins that are not empty, as eval/calibration_count_90 and so on, and returns the error: the mean
 * distance of a bin's accuracy from its confidence, each bin counting as often as it has answers. */
static double calibrate(const Answers *a, Log *log) {
    Bin bin[BINS] = { { 0, 0, 0 } };
    double error = 0;
    for (int i = 0; i < a->n; i++) {
        const double p = confidence(a, i);
        Bin *b = &bin[p < 1 ? (int)(p * BINS) : BINS - 1];
        b->n++;
        b->confidence += p;
        b->right += answer_right(a, i);
    }
    for (int k = 0; k < BINS; k++) {
        static const char *const kind[] = { "count", "confidence", "accuracy" };
        const double value[] = { bin[k].n, bin[k].confidence / bin[k].n, bin[k].right / bin[k].n };
        char name[48];
        for (int v = 0; v < 3 && bin[k].n; v++) {
            snprintf(name, sizeof name, "eval/calibration_%s_%d", kind[v], k * 100 / BINS);
            if (v) log_number(log, name, value[v]);
            else log_integer(log, name, bin[k].n);
        }
        error += fabs(bin[k].confidence - bin[k].right) / a->n;
    }
    return error;
}

/* Prints a name in so many columns, to the right. */
static void print_cell(const char *name, int columns) {
    const size_t n = strlen(name);
    for (int k = text_columns(name, n); k < columns; k++) putchar(' ');
    print_visible(name, n, 0);
}

/* Prints how often which label (row) got which answer (column), if that fits the terminal; logs it anyway. */
static void confusion(const Answers *a, Log *log) {
    int count[LABELS_MAX][LABELS_MAX];
    static const char head[] = "label \\ answer";
    int first = (int)sizeof head - 1, cell = 6;
    char name[160];
    memset(count, 0, sizeof count);
    for (int i = 0; i < a->n; i++)
        count[a->truth[i]][best_label(a->logits + (size_t)i * (size_t)a->labels, a->labels)]++;
    for (int j = 0; j < a->labels; j++) {
        const int columns = text_columns(a->name[j], strlen(a->name[j]));
        if (columns > first) first = columns;
        if (columns > cell) cell = columns;
        for (int k = 0; k < a->labels; k++) {
            snprintf(name, sizeof name, "eval/confusion/%s/%s", a->name[j], a->name[k]);
            log_integer(log, name, count[j][k]);
        }
    }
    if (first + a->labels * (cell + 2) > terminal_width()) return;
    print_cell(head, first);
    for (int k = 0; k < a->labels; k++) print_cell(a->name[k], cell + 2);
    for (int j = 0; j < a->labels; j++) {
        printf("\n");
        print_cell(a->name[j], first);
        for (int k = 0; k < a->labels; k++) printf("%*d", cell + 2, count[j][k]);
    }
    printf("\n");
}

static double mean_margin(const Answers *a) {
    double sum = 0;
    int n = 0;
    for (int i = 0; i < a->n; i++) {
        sum += better(a, i) * margin(a, i);
        n += better(a, i) != 0;
    }
    return n ? sum / n : 0;
}

void report_quality(const Answers *a, Log *log) {
    const double error = calibrate(a, log);
    log_number(log, "eval/calibration_error", error);
    say("whole texts: expected calibration error %.4f, the mean distance of accuracy from confidence", error);
    if (!a->pairs) { confusion(a, log); return; }
    log_number(log, "eval/mean_margin", mean_margin(a));
    say("whole texts: mean margin %.3f, the score of the better text minus that of the other one",
        mean_margin(a));
}
