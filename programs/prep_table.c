/* prep_table.c - prep data: rows of CSV and TSV.
 *
 * Edges        CSV is that of RFC 4180: quoted fields may hold commas, doubled quotes and line breaks; \n and
 *              \r\n end a record; names in the header are compared ignoring case. Empty lines are not
 *              records. */
#include "prep.h"
#include <stdio.h>

enum { COLUMNS_MAX = 1024 };
typedef struct { const char *at, *end; char separator; Place place; } Table;
typedef struct { Span *cell; int cells; } Record;

/* Reads a quoted cell, from after its first quote on. A doubled quote stands for one quote. */
static Span quoted_cell(Collector *c, Table *t) {
    Span p;
    const char *s = t->at;
    char *out;
    Place begun = t->place;
    while (s < t->end && !(*s == '"' && (s + 1 == t->end || s[1] != '"'))) s += *s == '"' ? 2 : 1;
    if (s >= t->end) prep_stop(E_TRUNCATED, "a quote that is never closed", begun.file, begun.line, NULL,
                               "correct the file; --no-quotes takes quotes as they are");
    p.text = out = scratch(c, (size_t)(s - t->at) + 1);
    for (; t->at < s; t->at++) {
        t->place.line += *t->at == '\n';
        *out++ = *t->at;
        if (*t->at == '"') t->at++;
    }
    p.length = (size_t)(out - p.text);
    t->at = s + 1;
    if (t->at < t->end && *t->at != t->separator && *t->at != '\n' && *t->at != '\r')
        prep_stop(E_FORMAT, "text after a closing quote", t->place.file, t->place.line, NULL,
                  "double the quotes inside a quoted cell; --no-quotes takes quotes as they are");
    return p;
}

/* Reads the next record; *at: the place of its first line. Returns 0 at the end. Skips empty lines. */
static int next_record(Collector *c, Table *t, Record *r, Place *at) {
    while (t->at < t->end && (*t->at == '\n' || *t->at == '\r')) t->place.line += *t->at++ == '\n';
    if (t->at == t->end) return 0;
    *at = t->place;
    for (r->cells = 0; ; t->at++) {
        Span p;
        if (r->cells == COLUMNS_MAX)
            prep_stop(E_UNSUPPORTED, "more than 1024 columns", at->file, at->line, NULL, NULL);
        if (t->at < t->end && *t->at == '"' && !c->given->no_quotes) { t->at++; p = quoted_cell(c, t); }
        else {
            p.text = t->at;
            while (t->at < t->end && *t->at != t->separator && *t->at != '\n') t->at++;
            p.length = (size_t)(t->at - p.text);
            if (p.length && (t->at == t->end || *t->at == '\n') && p.text[p.length - 1] == '\r') p.length--;
        }
        r->cell[r->cells++] = p;
        if (t->at < t->end && *t->at == '\r') t->at++;          /* the \r of \r\n after a quoted cell */
        if (t->at == t->end || *t->at != t->separator) break;
    }
    if (t->at < t->end && *t->at == '\n') { t->at++; t->place.line++; }
    return 1;
}

/* Returns the cell without blanks around it. */
static Span trimmed(Span p) {
    while (p.length && (p.text[0] == ' ' || p.text[0] == '\t')) { p.text++; p.length--; }
    while (p.length && (p.text[p.length - 1] == ' ' || p.text[p.length - 1] == '\t')) p.length--;
    return p;
}

/* Returns 1 if the two names are equal, ignoring the case of ASCII letters. */
static int same_name(Span a, const char *b) {
    size_t i = 0;
    for (; i < a.length && b[i]; i++) {
        char x = a.text[i], y = b[i];
        if (x >= 'A' && x <= 'Z') x = (char)(x + 32);
        if (y >= 'A' && y <= 'Z') y = (char)(y + 32);
        if (x != y) return 0;
    }
    return i == a.length && !b[i];
}
static int column_of(const Record *header, const char *name) {
    for (int k = 0; k < header->cells; k++) if (same_name(header->cell[k], name)) return k;
    return -1;
}
static int table_has(const void *row, const char *name) { return column_of(row, name) >= 0; }

/* Returns the column of that name; if there is none, exits with a list of the columns. */
static int need_column(const Record *header, const char *name, Place at) {
    char hint[200] = "the columns are: ";
    int k = column_of(header, name);
    for (int i = 0; k < 0 && i < header->cells; i++) list_name(hint, sizeof hint, header->cell[i]);
    if (k < 0) prep_stop(E_MISSING, "no such column", at.file, at.line, name, hint);
    return k;
}

/* A record with the header that names its cells. */
typedef struct { const Record *header, *row; } TableRow;

/* Returns a field for a place of the template. */
static Span table_text_of(Collector *c, const void *row, const char *name, Place at) {
    const TableRow *t = row;
    (void)c;
    return t->row->cell[need_column(t->header, name, at)];
}

/* Returns the label of a row, whose cell this is. */
static int cell_label(Collector *c, Span cell, Place at) {
    if (c->data.kind != DATA_PAIRS || !cell.length) return label_of(c, cell, at);
    const Json text = { .type = JSON_STRING };
    const Json *number = json_parse(cell.text, cell.length, &c->scratch, NULL);
    return probability_of(c, number ? number : &text, at);
}

void read_table(Collector *c, const char *path, char separator) {
    Error err = { 0 };
    Table t = { NULL, NULL, separator, { path, 1 } };
    Record header, row;
    const TableRow named = { &header, &row };
    Place at = { path, 1 };
    char *bytes;
    size_t size;
    int column[3] = { -1, -1, -1 }, label = -1;
    must(text_read_all(path, prep_pool(), &bytes, &size, &err), &err, NULL);
    header.cell = prep_take(COLUMNS_MAX, sizeof *header.cell);
    row.cell = prep_take(COLUMNS_MAX, sizeof *row.cell);
    t.at = bytes;
    t.end = bytes + size;
    if (!next_record(c, &t, &header, &at))
        prep_stop(E_TRUNCATED, "no header", path, 1, NULL, "the first record has to name the columns");
    for (int k = 0; k < header.cells; k++) header.cell[k] = trimmed(header.cell[k]);
    choose_fields(c, table_has, &header, at);
    for (int k = 0; k < 3; k++)
        if (c->field[k] && (k != 1 || c->data.kind != DATA_TEXT))
            column[k] = need_column(&header, c->field[k], at);
    if (c->label && (c->given->label || table_has(&header, c->label)))
        label = need_column(&header, c->label, at);
    for (;;) {
        PoolMark mark = pool_mark(&c->scratch);
        Span text[3] = { { NULL, 0 }, { NULL, 0 }, { NULL, 0 } };
        if (!next_record(c, &t, &row, &at)) break;
        if (row.cells != header.cells) {
            char where[256];
            snprintf(where, sizeof where, "%.200s, line %lld", path, at.line);
            fail(&err, E_FORMAT, "a record with another number of cells than the header", where, row.cells,
                 header.cells);
            die(&err, "correct the record; a cell with a separator, quote or line break has to be in quotes");
        }
        for (int k = 0; k < 3; k++) if (column[k] >= 0) text[k] = row.cell[column[k]];
        if (c->made >= 0) text[c->made] = template_text(c, table_text_of, &named, at);
        add_row(c, text, label >= 0 ? cell_label(c, trimmed(row.cell[label]), at) : -1, at);
        pool_release(&c->scratch, mark);
    }
}
