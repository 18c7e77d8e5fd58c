/* chart.c - curves and histograms as SVG (ticks, gaps, one point, constants, many points, hostile numbers and
 * names), and what record.c reads of a run whose files are torn, damaged or another program's. */
#include "test.h"
#include "../programs.h"

static Pool pool;
static const char folder[] = "build/tests/chart.run";

/* ---- axes ---- */

static void ticks_are(double low, double high, int most, double step, double first, int count) {
    double tick[CHART_TICKS], got;
    const int n = chart_ticks(tick, most, low, high, &got);
    CHECK(n == count && fabs(got / step - 1) < 1e-9 && fabs(tick[0] - first) <= 1e-9 * step,
          "ticks of %g .. %g: %d, %g apart, from %g", low, high, n, got, n ? tick[0] : NAN);
}

static void test_ticks(void) {
    ticks_are(0, 1, 6, 0.2, 0, 6);
    ticks_are(-0.3, 2.7, 6, 1, 0, 3);
    ticks_are(1, 38, 7, 10, 10, 3);
    ticks_are(0.0001, 0.00034, 6, 0.00005, 0.0001, 5);
    ticks_are(-7e9, 5e9, 4, 5e9, -5e9, 3);
    ticks_are(3, 3, 6, 1, 3, 1);                        /* no width */
    double tick[CHART_TICKS], step;
    for (int k = 0; k < 2000; k++) {
        const double low = sin(k) * pow(10, k % 200 - 100), high = low + pow(10, k % 190 - 90);
        const int n = chart_ticks(tick, 7, low, high, &step);
        int good = n >= 0 && n <= 7 && step > 0;
        for (int i = 0; i < n; i++) good &= tick[i] >= low - 1e-6 * step && tick[i] <= high + 1e-6 * step;
        if (!good) CHECK(0, "ticks of %g .. %g: %d", low, high, n);
    }
}

static void number_is(double value, double step, const char *wanted) {
    char out[32];
    CHECK(!strcmp(chart_number(out, value, step), wanted), "%g, %g apart: %s", value, step, out);
}

static void test_numbers(void) {
    number_is(0, 0.1, "0");
    number_is(0.5, 0.5, "0.5");
    number_is(-1, 0.25, "-1.00");
    number_is(12000, 2000, "12k");
    number_is(38, 1, "38");
    number_is(0.1995, 5e-4, "0.1995");   /* beside 0.2 and 0.199: neighbours have labels of their own */
    number_is(0.2, 0.0005, "0.2000");
    number_is(1.4e-4, 5e-6, "1.4e-4");
    number_is(3e6, 1e6, "3M");
    number_is(0.00014, 0.00001, "1.4e-4");
    number_is(2e30, 1e30, "2e30");
}

/* ---- drawings ---- */

static Buffer drawn;

/* Counts how often a text occurs in the drawing. */
static int count(const char *text) {
    int n = 0;
    for (const char *at = (const char *)drawn.data; (at = strstr(at, text)) != NULL; at += strlen(text)) n++;
    return n;
}

/* Draws one curve of n points, with steps 1, 2 ... */
static int from_zero;
static void draw(const double *y, const double *spread, int n, double level) {
    static double x[5000];
    const Curve curve = { "a<b", x, y, spread, n, 9, 0 };
    const Chart chart = { "t\"<t", "<level>", &curve, 1, level, NAN, from_zero };
    for (int i = 0; i < n; i++) x[i] = i + 1;
    memset(&drawn, 0, sizeof drawn);
    drawn.pool = &pool;
    chart_curves(&drawn, &chart);
    buffer_u8(&drawn, 0);
    CHECK(!drawn.failed && !count("nan") && !count("inf") && !count("<t\"") && !count("a<b") &&
          !count("<level>") && count("<svg ") == count("</svg>"), "a drawing without numbers that are none");
}

static void test_curves(void) {
    static double y[5000];
    const double one[1] = { 0.5 }, gaps[7] = { 1, 2, NAN, 4, HUGE_VAL, 6, 7 };
    const double constant[3] = { -2, -2, -2 }, none[2] = { NAN, NAN }, far[3] = { 1e300, -1e300, 1e99 };
    const double spread[7] = { 1, 1, NAN, 1, 1, NAN, 1 };
    draw(one, NULL, 1, NAN);
    CHECK(count("class=\"d c1\"") == 1 && !count("class=\"l"), "one point: a dot");
    CHECK(count("aria-label=\"t&quot;&lt;t\"") == 1, "the title is a text");
    draw(gaps, NULL, 7, NAN);
    CHECK(count("class=\"l c1 s\"") == 2 && count("class=\"d") == 5 && count("class=\"h\"") == 5,
          "gaps: two lines, and a dot between them");
    CHECK(count("step 4: 4</title>") == 1 && count("a&lt;b, step 7") == 1, "points have their numbers");
    draw(gaps, spread, 7, NAN);
    CHECK(count("class=\"a c1\"") == 1, "a band has the gaps of the spread, too");
    draw(constant, NULL, 3, NAN);
    CHECK(count("class=\"l") == 1 && count(">-2.0</text>") == 1, "a constant has an axis around it");
    draw(constant, NULL, 3, 6);
    CHECK(count("class=\"v\"") == 2 && count("&lt;level&gt;") == 1 && count(">4</text>") == 1,
          "a level is drawn, and belongs to the axis");
    CHECK(strstr((char *)drawn.data, "<text class=\"v\"") > strstr((char *)drawn.data, "class=\"l c1"),
          "its name is over the curve");
    static const double near[3] = { 454, 455, 455 };
    draw(near, NULL, 3, NAN);
    CHECK(!count(">0</text>") && count(">454.4</text>") == 1, "an axis of neighbours has no 0");
    from_zero = 1;
    draw(near, NULL, 3, NAN);
    CHECK(count(">0</text>") == 1 && !count(">454.4</text>"), "unless it begins at 0");
    from_zero = 0;
    draw(none, NULL, 2, NAN);
    CHECK(count("No number yet") == 1 && !count("<svg"), "no numbers: a sentence");
    draw(none, NULL, 0, 3);
    CHECK(count("No number yet") == 1, "no points: a sentence");
    draw(far, NULL, 3, NAN);
    CHECK(count("class=\"d") == 1, "numbers beyond 1e100 are gaps");
    for (int i = 0; i < 4800; i++) y[i] = i % 2 ? 1 : 3;
    draw(y, NULL, 4800, NAN);
    CHECK(count("class=\"a") == 1 && drawn.length < 20000 && !count("class=\"h\""),
          "4800 points: their means and a band, %lu bytes", (unsigned long)drawn.length);
    CHECK(count("M54.0 76.9L") == 1, "each point is a mean of 20: 2 on an axis from 0 to 3.08");
}

static void test_histogram(void) {
    static double y[1000];
    const double same[2] = { 4, 4 }, none[1] = { NAN };
    Curve set[2] = { { "before", NULL, y, NULL, 1000, 1, 0 }, { "after", NULL, same, NULL, 2, 0, 0 } };
    for (int i = 0; i < 1000; i++) y[i] = i % 10 ? i % 100 : NAN;
    for (int k = 0; k < 3; k++) {
        const Curve empty = { "x", NULL, none, NULL, 1, 0, 0 };
        memset(&drawn, 0, sizeof drawn);
        drawn.pool = &pool;
        chart_histogram(&drawn, "h", k == 2 ? &empty : set + k, k == 0 ? 2 : 1);
        buffer_u8(&drawn, 0);
        CHECK(!drawn.failed && !count("nan") && !count("inf"), "a histogram of %d", k);
        CHECK(count("class=\"a") == (k == 0 ? 2 : k == 1) && count("No number yet") == (k == 2),
              "a histogram has its sets (%d)", k);
    }
}

/* ---- records ---- */

/* Reads a run whose log.jsonl is this text. Returns OK or a code. */
static int read_run(RunRecord *r, const char *log) {
    Error err = { 0 };
    char path[64];
    snprintf(path, sizeof path, "%s/log.jsonl", folder);
    file_write_all(path, log, strlen(log), &pool, &err);
    return record_read(r, folder, &pool, &err);
}

#define FIRST "{\"program\": \"ppo\", \"data\": \"d.bin\", \"options\": {\"steps\": 9}}\n"
static void test_record(void) {
    RunRecord r;
    CHECK(read_run(&r, FIRST "{\"step\": 1, \"a\": 5, \"b\": null}\n"
                       "{\"step\": 2, \"a\": NaN, \"c\": \"t\"}\n") == OK && !strcmp(r.program, "ppo") &&
          !strcmp(r.data, "d.bin") && json_number(r.options, "steps", 0) == 9 &&
          !strcmp(r.name, "chart.run") && r.count == 2 && r.last_step == 2, "a log is read");
    const Series *a = record_series(&r, "a"), *b = record_series(&r, "b");
    CHECK(a && a->n == 2 && a->step[1] == 2 && a->value[0] == 5 && a->value[1] != a->value[1], "NaN is NaN");
    CHECK(b && b->n == 1 && b->value[0] != b->value[0] && !record_series(&r, "c"),
          "null is NaN, texts are left out");
    CHECK(!r.damaged && !r.torn, "nothing is left out");
    CHECK(read_run(&r, FIRST "{\"step\": 1, \"a\": 5}\n{\"step\": 2, \"a\":") == OK && r.torn == 1 &&
          !r.damaged && r.last_step == 1, "a torn last line");
    CHECK(read_run(&r, FIRST "rubbish\n[1]\n{\"a\": 1}\n{\"step\": \"x\"}\n{\"step\": -1}\n"
                       "{\"step\": 3, \"a\": 1}\n") == OK && r.damaged == 5 && r.first_damaged == 2 &&
          !r.torn && record_series(&r, "a")->n == 1,
          "foreign lines are counted: %d", r.damaged);
    CHECK(read_run(&r, FIRST "{\"step\": 1, \"a\": 1}\n{\"step\": 2, \"a\": 2}\n{\"step\": 3, \"a\": 3}\n"
                       "{\"step\": 2, \"a\": 20}\n{\"step\": 3, \"a\": 30, \"a\": 31}\n") == OK,
          "a run that went back");
    a = record_series(&r, "a");
    CHECK(a->n == 3 && a->value[1] == 20 && a->value[2] == 31,
          "its later steps count, and the last of two keys");
    CHECK(read_run(&r, "{\"step\": 1}\n") == E_FORMAT && read_run(&r, "") == E_FORMAT &&
          read_run(&r, "{\"program\": 3}\n") == E_FORMAT, "no first line of a run");
    CHECK(read_run(&r, FIRST) == OK && !r.count && !record_series(&r, "a"), "no step yet");
}

static void test_many(void) {
    RunRecord r;
    Buffer b = { 0 };
    Error err = { 0 };
    b.pool = &pool;
    buffer_text(&b, FIRST);
    for (int step = 1; step < 2000; step++) {
        buffer_text(&b, "{\"step\": ");
        buffer_integer(&b, step);
        for (int k = 0; k < (step < 3 ? 400 : 3); k++) {
            buffer_text(&b, ", \"k");
            buffer_integer(&b, k);
            buffer_text(&b, "\": 1e300");
        }
        buffer_text(&b, "}\n");
    }
    file_write_all("build/tests/chart.run/log.jsonl", b.data, b.length, &pool, &err);
    CHECK(record_read(&r, folder, &pool, &err) == OK && r.count == RECORD_SERIES && r.series[0].n == 1999 &&
          r.series[100].n == 2 && r.series[0].value[9] != r.series[0].value[9] && r.last_step == 1999,
          "1999 steps, of which some have 400 numbers: %d are kept", r.count);
    Pool none = { 0 };
    CHECK(record_read(&r, folder, &none, &err) == E_MEMORY, "no memory");
}

static void test_samples(void) {
    static const char text[] =
        "{\"query\": \"q\\u0000\", \"response_before\": \"b\", \"reward_before\": 1, \"kl_after\": 2}\n"
        "rubbish\n{\"x\": 1}\n{\"query\": 5, \"reward_after\": null}\n{\"query\": \"to";
    RunSamples s;
    Error err = { 0 };
    CHECK(record_samples(&s, "build/tests/no such", &pool, &err) == OK && !s.count, "no samples.jsonl");
    file_write_all("build/tests/chart.run/samples.jsonl", text, sizeof text - 1, &pool, &err);
    CHECK(record_samples(&s, folder, &pool, &err) == OK && s.count == 2 && s.damaged == 3,
          "samples, and damaged lines");
    CHECK(s.sample[0].query.length == 2 && !s.sample[0].response[1].length && s.sample[0].reward[0] == 1 &&
          s.sample[0].reward[1] != s.sample[0].reward[1] && s.sample[0].kl == 2 && !s.sample[1].query.length,
          "what a sample lacks is empty, or NaN");
}

int main(void) {
    pool = test_pool();
    folder_make(folder, NULL);
    test_ticks();
    test_numbers();
    test_curves();
    test_histogram();
    test_record();
    test_many();
    test_samples();
    folder_empty(folder, &pool, NULL);
    folder_remove(folder, NULL);
    pool_free(&pool);
    return test_end("chart");
}
