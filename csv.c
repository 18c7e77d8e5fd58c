/* csv.c - reads records of CSV and TSV.
 *
 * Source   RFC 4180: quoted cells may hold separators, doubled quotes and line breaks; \n and \r\n end a
 *          record. Names in a header are compared ignoring case and the blanks around them.
 * Needs    core.c. The bytes are the caller's; a quoted cell is copied into a pool, other cells are not.
 * Edges    Empty lines are not records. A quote that is never closed, and text after a closing quote, are
 *          errors. */
#include "rlhf.h"

/* Records an error at a line of the text. */
static int csv_error(const Csv *c, int code, const char *what, long long line, Error *err) {
    char where[256], number[24];
    size_t n = strlen(c->path), digits = 0;
    if (n > 200) n = 200;
    for (long long rest = line; rest > 0; rest /= 10) number[digits++] = (char)('0' + rest % 10);
    memcpy(where, c->path, n);
    memcpy(where + n, ", line ", 7);
    for (n += 7; digits; ) where[n++] = number[--digits];
    where[n] = 0;
    return fail(err, code, what, where, 0, 0);
}

/* Reads a quoted cell, from after its first quote on. A doubled quote stands for one quote. */
static int quoted_cell(Csv *c, CsvCell *cell, Pool *pool, Error *err) {
    const char *s = c->at;
    const long long begun = c->line;
    while (s < c->end && !(*s == '"' && (s + 1 == c->end || s[1] != '"'))) s += *s == '"' ? 2 : 1;
    if (s >= c->end)
        return csv_error(c, E_TRUNCATED, "a quote that is never closed", begun, err);
    char *out = pool_take(pool, (size_t)(s - c->at) + 1, 1);
    if (!out) return csv_error(c, E_MEMORY, "out of memory", begun, err);
    cell->text = out;
    for (; c->at < s; c->at++) {
        c->line += *c->at == '\n';
        *out++ = *c->at;
        if (*c->at == '"') c->at++;
    }
    cell->length = (size_t)(out - cell->text);
    c->at = s + 1;
    if (c->at < c->end && *c->at != c->separator && *c->at != '\n' && *c->at != '\r')
        return csv_error(c, E_FORMAT, "text after a closing quote", c->line, err);
    return OK;
}

/* Reads a cell without quotes; without the \r of \r\n at the end of a record. */
static void plain_cell(Csv *c, CsvCell *cell) {
    cell->text = c->at;
    while (c->at < c->end && *c->at != c->separator && *c->at != '\n') c->at++;
    cell->length = (size_t)(c->at - cell->text);
    if (cell->length && (c->at == c->end || *c->at == '\n') && cell->text[cell->length - 1] == '\r')
        cell->length--;
}

int csv_next(Csv *c, CsvCell *cell, int *cells, Pool *pool, Error *err) {
    *cells = 0;
    while (c->at < c->end && (*c->at == '\n' || *c->at == '\r')) c->line += *c->at++ == '\n';
    c->begun = c->line;
    if (c->at == c->end) return OK;
    for (;; c->at++) {
        if (*cells == CSV_COLUMNS)
            return csv_error(c, E_UNSUPPORTED, "more than 1024 columns", c->begun, err);
        if (c->quotes && c->at < c->end && *c->at == '"') {
            c->at++;
            const int code = quoted_cell(c, &cell[*cells], pool, err);
            if (code) return code;
        } else plain_cell(c, &cell[*cells]);
        ++*cells;
        if (c->at < c->end && *c->at == '\r') c->at++;          /* the \r of \r\n after a quoted cell */
        if (c->at == c->end || *c->at != c->separator) break;
    }
    if (c->at < c->end && *c->at == '\n') { c->at++; c->line++; }
    return OK;
}

CsvCell csv_trimmed(CsvCell x) {
    while (x.length && (x.text[0] == ' ' || x.text[0] == '\t')) { x.text++; x.length--; }
    while (x.length && (x.text[x.length - 1] == ' ' || x.text[x.length - 1] == '\t')) x.length--;
    return x;
}

/* Returns 1 if the two names are equal, ignoring the case of ASCII letters. */
static int same_name(CsvCell a, const char *b) {
    size_t i = 0;
    for (; i < a.length && b[i]; i++) {
        char x = a.text[i], y = b[i];
        if (x >= 'A' && x <= 'Z') x = (char)(x + 32);
        if (y >= 'A' && y <= 'Z') y = (char)(y + 32);
        if (x != y) return 0;
    }
    return i == a.length && !b[i];
}

int csv_column(const CsvCell *header, int cells, const char *name) {
    for (int k = 0; k < cells; k++) if (same_name(csv_trimmed(header[k]), name)) return k;
    return -1;
}
