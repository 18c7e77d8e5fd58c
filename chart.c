/* chart.c - curves and histograms as SVG: pure text, which a page sets in line and colours by CSS.
 *
 * Classes  c0 to c7: a colour (stroke of .l, fill of .a and .d); .l line, .s dashed, .a band, .d point, .h
 *          place for the pointer, .t line of a tick, .v level.
 * Needs    core.c (buffers) and html.c (texts).
 * Never    prints; believes a number: what is not finite is a gap.
 * Edges    one point, no point, a constant, gaps, thousands of points: see tests/unit/chart.c. */
#include "programs.h"
#include <stdio.h>

enum { WIDTH = 400, HEIGHT = 210, LEFT = 54, RIGHT = 390, TOP = 18, BOTTOM = 186,
       POINTS = 240,                        /* more are drawn as means */
       NAMED = 120,                         /* up to so many points show their numbers under the pointer */
       DOTTED = 20,                         /* up to so many points are dots, too */
       BINS = 64 };

/* ---- axes ---- */

int chart_ticks(double *tick, int most, double low, double high, double *step) {
    static const double round[] = { 1, 2, 5, 10 };
    const double least = (high - low) / (most - 1);
    double power = least > 0 ? pow(10, floor(log10(least))) : 1;
    int n = 0;
    *step = power;
    for (int i = 0; i < 4 && *step < least * (1 - 1e-9); i++) *step = round[i] * power;
    for (double k = ceil(low / *step - 1e-9); k * *step <= high + *step * 1e-9 && n < most; k++)
        tick[n++] = k == 0 ? 0 : k * *step;
    return n;
}

const char *chart_number(char out[32], double value, double step) {
    const double size = fabs(value);
    int decimals = 0;
    if (value == 0) return strcpy(out, "0");
    if (!(size < 1e9) || step < 1e-6 || (step < 1e-3 && size < 1e-3)) {
        const int power = (int)floor(log10(size) + 1e-9);
        const int digits = step > 0 ? power - (int)floor(log10(step) + 1e-9) + 1 : 3;
        snprintf(out, 32, "%.*ge%d", digits < 3 ? 3 : digits > 12 ? 12 : digits, value / pow(10, power),
                 power);
    }
    else if (size >= 1e6 && step >= 1e4) snprintf(out, 32, "%.6gM", value / 1e6);
    else if (size >= 1e4 && step >= 10) snprintf(out, 32, "%.6gk", value / 1e3);
    else {
        while (decimals < 7 && fabs(step * pow(10, decimals) - floor(step * pow(10, decimals) + 0.5)) > 1e-6)
            decimals++;
        snprintf(out, 32, "%.*f", decimals, value);
    }
    return out;
}

/* The smallest and largest finite numbers of something; none: low > high. */
typedef struct { double low, high; } Span;
static void span_add(Span *s, double x) {
    if (!(fabs(x) < 1e101)) return;
    if (x < s->low) s->low = x;
    if (x > s->high) s->high = x;
}

/* Widens a span of one number, and lets one that is near 0 begin or end there. */
static void span_round(Span *s) {
    const double width = s->high - s->low;
    if (s->low > 0 && s->low < 0.6 * s->high) s->low = 0;
    if (s->high < 0 && s->high > 0.6 * s->low) s->high = 0;
    if (width > 1e-9 * (fabs(s->low) + fabs(s->high))) {
        if (s->low != 0) s->low -= 0.04 * width;
        if (s->high != 0) s->high += 0.04 * width;
        return;
    }
    const double room = s->high != 0 ? 0.1 * fabs(s->high) : 1;
    s->low -= room;
    s->high += room;
}

/* A plot: what its corners are. whole 1: x are whole numbers, and so are its ticks. */
typedef struct { Buffer *b; Span x, y; int whole; } Plot;
static double place_x(const Plot *p, double x) {
    return LEFT + (RIGHT - LEFT) * (p->x.high > p->x.low ? (x - p->x.low) / (p->x.high - p->x.low) : 0.5);
}
static double place_y(const Plot *p, double y) {
    const double share = (y - p->y.low) / (p->y.high - p->y.low);
    return BOTTOM - (BOTTOM - TOP) * (share < 0 ? 0 : share > 1 ? 1 : share);
}

/* Opens the svg and draws both axes. unit: follows the numbers of the upright axis. */
static void plot_begin(const Plot *p, const char *title, const char *unit) {
    double tick[CHART_TICKS], step;
    char number[32];
    html_print(p->b, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", WIDTH, HEIGHT);
    html_put(p->b, title, strlen(title));
    buffer_text(p->b, "\">");
    int n = chart_ticks(tick, 8, p->y.low, p->y.high, &step);
    for (int i = 0; i < n; i++) {
        const double y = place_y(p, tick[i]);
        html_print(p->b, "<path class=\"t\" d=\"M%d %.1fH%d\"/>", LEFT, y, RIGHT);
        html_print(p->b, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s%s</text>", LEFT - 6, y + 4,
                   chart_number(number, tick[i], step), unit);
    }
    n = chart_ticks(tick, 7, p->x.low, p->x.high, &step);
    for (int i = 0; i < n; i++) {
        if (p->whole && step < 1 && fabs(tick[i] - floor(tick[i] + 0.5)) > 1e-6) continue;
        html_print(p->b, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>", place_x(p, tick[i]),
                   BOTTOM + 17, chart_number(number, tick[i], p->whole && step < 1 ? 1 : step));
    }
}

/* ---- curves ---- */

/* What of a curve is drawn: n points with a band from low to high (NaN: no band). */
typedef struct { int n, band; double x[POINTS], y[POINTS], low[POINTS], high[POINTS]; } Drawn;

/* Fills point k of *d with the mean of the curve's points `from` .. to-1. */
static void condense(Drawn *d, int k, const Curve *c, int from, int to) {
    double x = 0, y = 0, spread = 0;
    Span s = { HUGE_VAL, -HUGE_VAL };
    int n = 0;
    for (int i = from; i < to; i++) {
        if (!(fabs(c->y[i]) < 1e101) || !(fabs(c->x[i]) < 1e101)) continue;
        n++;
        x += (c->x[i] - x) / n;
        y += (c->y[i] - y) / n;
        if (c->spread) spread += (c->spread[i] - spread) / n;
        span_add(&s, c->y[i]);
    }
    d->x[k] = n ? x : c->x[from];
    d->y[k] = n ? y : NAN;
    d->low[k] = !n ? NAN : c->spread ? y - spread : s.low;
    d->high[k] = !n ? NAN : c->spread ? y + spread : s.high;
}

static void draw_points(Drawn *d, const Curve *c) {
    const int each = (c->n + POINTS - 1) / POINTS;
    d->n = 0;
    d->band = c->spread || each > 1;
    for (int from = 0; from < c->n; from += each)
        condense(d, d->n++, c, from, from + each < c->n ? from + each : c->n);
}

/* Draws the band of the points from .. to-1, which have no gap. */
static void draw_band(const Plot *p, const Drawn *d, int from, int to, int color) {
    html_print(p->b, "<path class=\"a c%d\" d=\"", color % 8);
    for (int i = from; i < to; i++)
        html_print(p->b, "%c%.1f %.1f", i == from ? 'M' : 'L', place_x(p, d->x[i]), place_y(p, d->high[i]));
    for (int i = to - 1; i >= from; i--)
        html_print(p->b, "L%.1f %.1f", place_x(p, d->x[i]), place_y(p, d->low[i]));
    buffer_text(p->b, "Z\"/>");
}

/* Draws the points from .. to-1, which have no gap: a line, with dots if they are few or one. */
static void draw_line(const Plot *p, const Drawn *d, int from, int to, const Curve *c) {
    for (int i = from; i < to && (d->n <= DOTTED || to - from == 1); i++)
        html_print(p->b, "<circle class=\"d c%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>", c->color % 8,
                   place_x(p, d->x[i]), place_y(p, d->y[i]));
    if (to - from == 1) return;
    html_print(p->b, "<path class=\"l c%d%s\" d=\"", c->color % 8, c->dashed || c->color >= 8 ? " s" : "");
    for (int i = from; i < to; i++)
        html_print(p->b, "%c%.1f %.1f", i == from ? 'M' : 'L', place_x(p, d->x[i]), place_y(p, d->y[i]));
    buffer_text(p->b, "\"/>");
}

/* Calls both for each part of the curve that has no gap. */
static void draw_curve(const Plot *p, const Drawn *d, const Curve *c) {
    for (int pass = d->band ? 0 : 1; pass < 2; pass++)
        for (int from = 0, to; from < d->n; from = to) {
            const int gap = !(fabs(pass ? d->y[from] : d->low[from] - d->high[from]) < HUGE_VAL);
            for (to = from + 1; !gap && to < d->n; to++)
                if (!(fabs(pass ? d->y[to] : d->low[to] - d->high[to]) < HUGE_VAL)) break;
            if (!gap && pass) draw_line(p, d, from, to, c);
            else if (!gap && to - from > 1) draw_band(p, d, from, to, c->color);
        }
}

/* Adds circles that show their numbers under the pointer. */
static void draw_names(const Plot *p, const Drawn *d, const Curve *c) {
    char number[32];
    for (int i = 0; i < d->n; i++) {
        if (!(fabs(d->y[i]) < HUGE_VAL)) continue;
        html_print(p->b, "<circle class=\"h\" cx=\"%.1f\" cy=\"%.1f\" r=\"7\"><title>", place_x(p, d->x[i]),
                   place_y(p, d->y[i]));
        html_put(p->b, c->name, strlen(c->name));
        html_print(p->b, ", step %s: %.5g</title></circle>", chart_number(number, d->x[i], 1), d->y[i]);
    }
}

/* Draws the line of the level, or above it its name. */
static void draw_level(const Plot *p, const Chart *c, int name) {
    const double y = place_y(p, c->level);
    if (!(fabs(c->level) < 1e100)) return;
    if (!name) {
        html_print(p->b, "<path class=\"v\" d=\"M%d %.1fH%d\"/>", LEFT, y, RIGHT);
        return;
    }
    html_print(p->b, "<text class=\"v\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">", RIGHT - 2, y - 5);
    html_put(p->b, c->level_name, strlen(c->level_name));
    buffer_text(p->b, "</text>");
}

void chart_curves(Buffer *b, const Chart *c) {
    Plot p = { b, { HUGE_VAL, -HUGE_VAL }, { HUGE_VAL, -HUGE_VAL }, 1 };
    Drawn d;
    int points = 0;
    for (int k = 0; k < c->curves; k++) {
        draw_points(&d, &c->curve[k]);
        for (int i = 0; i < d.n; i++) {
            if (!(fabs(d.y[i]) < HUGE_VAL)) continue;
            points++;
            span_add(&p.x, d.x[i]);
            span_add(&p.y, d.y[i]);
            if (d.band) span_add(&p.y, d.low[i]);
            if (d.band) span_add(&p.y, d.high[i]);
        }
    }
    if (!points) {
        buffer_text(b, "<p class=\"none\">No number yet.</p>");
        return;
    }
    span_add(&p.y, c->level);
    if (c->from_zero) span_add(&p.y, 0);
    if (p.y.low < c->least) p.y.low = c->least;
    if (p.y.high < p.y.low) p.y.high = p.y.low;
    span_round(&p.y);
    if (p.x.high <= p.x.low) { p.x.low -= 1; p.x.high += 1; }
    plot_begin(&p, c->title, "");
    draw_level(&p, c, 0);
    for (int k = 0; k < c->curves; k++) {
        draw_points(&d, &c->curve[k]);
        draw_curve(&p, &d, &c->curve[k]);
        if (points <= NAMED) draw_names(&p, &d, &c->curve[k]);
    }
    draw_level(&p, c, 1);                   /* over the curves */
    buffer_text(b, "</svg>");
}

/* ---- histograms ---- */

/* Counts in share (n) the values of a curve in the bins of a width that begin at low: percent of them. */
static void count_values(double *share, int n, const Curve *c, double low, double width) {
    double all = 0;
    for (int i = 0; i < n; i++) share[i] = 0;
    for (int i = 0; i < c->n; i++) {
        if (!(fabs(c->y[i]) < 1e100)) continue;
        const double at = (c->y[i] - low) / width;
        share[at < 0 ? 0 : at < n ? (int)at : n - 1]++;
        all++;
    }
    for (int i = 0; i < n && all > 0; i++) share[i] *= 100 / all;
}

static void draw_bins(const Plot *p, const double *share, int n, int color) {
    const double width = (p->x.high - p->x.low) / n;
    for (int pass = 0; pass < 2; pass++) {
        html_print(p->b, "<path class=\"%c c%d%s\" d=\"M%.1f %d", pass ? 'l' : 'a', color % 8,
                   pass && color >= 8 ? " s" : "", place_x(p, p->x.low), BOTTOM);
        for (int i = 0; i < n; i++)
            html_print(p->b, "V%.1fH%.1f", place_y(p, share[i]), place_x(p, p->x.low + (i + 1) * width));
        html_print(p->b, "V%d\"/>", BOTTOM);
    }
}

void chart_histogram(Buffer *b, const char *title, const Curve *set, int sets) {
    Plot p = { b, { HUGE_VAL, -HUGE_VAL }, { 0, 0 }, 0 };
    double tick[CHART_TICKS], share[BINS], width;
    for (int k = 0; k < sets; k++)
        for (int i = 0; i < set[k].n; i++) span_add(&p.x, set[k].y[i]);
    if (p.x.low > p.x.high) {
        buffer_text(b, "<p class=\"none\">No number yet.</p>");
        return;
    }
    if (!(p.x.high - p.x.low > 1e-9 * (fabs(p.x.low) + fabs(p.x.high)))) {     /* all values are the same */
        const double room = p.x.low != 0 ? 0.1 * fabs(p.x.low) : 1;
        p.x.low -= room;
        p.x.high += room;
    }
    chart_ticks(tick, 7, p.x.low, p.x.high, &width);
    for (width /= 4; (p.x.high - p.x.low) / width < 20; ) width /= 2;
    p.x.low = floor(p.x.low / width) * width;
    int n = (int)ceil((p.x.high - p.x.low) / width + 1e-9);
    if (n > BINS) n = BINS;
    p.x.high = p.x.low + n * width;
    for (int k = 0; k < sets; k++) {
        count_values(share, n, &set[k], p.x.low, width);
        for (int i = 0; i < n; i++) span_add(&p.y, share[i] * 1.04);
    }
    plot_begin(&p, title, "%");
    for (int k = 0; k < sets; k++) {
        count_values(share, n, &set[k], p.x.low, width);
        draw_bins(&p, share, n, set[k].color);
    }
    buffer_text(b, "</svg>");
}
