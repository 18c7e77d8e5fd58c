/* prep_table.c - prep data: rows of CSV and TSV. */
#include "prep.h"
#include <stdio.h>

typedef struct { Span *cell; int cells; } Record;

/* Reads the next record; *at: the place of its first line. Returns 0 at the end. */
static int next_record(Collector *c, Csv *t, Record *r, Place *at) {
    Error err = { 0 };
    const int code = csv_next(t, r->cell, &r->cells, &c->scratch, &err);
    must(code, &err, code != E_TRUNCATED && code != E_FORMAT ? NULL
         : "quotes inside a quoted cell have to be doubled; --no-quotes takes all quotes as they are");
    at->line = t->begun;
    return r->cells > 0;
}

static int column_of(const Record *header, const char *name) {
    return csv_column(header->cell, header->cells, name);
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

/* Stops if the record has another number of cells than the header. */
static void check_cells(const Record *r, const Record *header, Place at) {
    Error err = { 0 };
    char where[256];
    if (r->cells == header->cells) return;
    snprintf(where, sizeof where, "%.200s, line %lld", at.file, at.line);
    fail(&err, E_FORMAT, "a record with another number of cells than the header", where, r->cells,
         header->cells);
    die(&err, "correct the record; a cell with a separator, quote or line break has to be in quotes");
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

/* Returns 1 if the condition of --where holds for a row, whose cell this is. */
static int is_wanted(Collector *c, Span cell, Place at) {
    const Json text = { .type = JSON_STRING, .string = cell.text, .length = cell.length };
    return where_holds(c, &text, at);
}

void read_table(Collector *c, const char *path, char separator) {
    Error err = { 0 };
    Csv t = { .path = path, .separator = separator, .quotes = !c->given->no_quotes, .line = 1 };
    Record header, row;
    const TableRow named = { &header, &row };
    Place at = { path, 1 };
    char *bytes;
    size_t size;
    int column[3] = { -1, -1, -1 }, label = -1, where = -1;
    must(text_read_all(path, prep_pool(), &bytes, &size, &err), &err, NULL);
    header.cell = prep_take(CSV_COLUMNS, sizeof *header.cell);
    row.cell = prep_take(CSV_COLUMNS, sizeof *row.cell);
    t.at = bytes;
    t.end = bytes + size;
    if (!next_record(c, &t, &header, &at))
        prep_stop(E_TRUNCATED, "no header", path, 1, NULL, "the first record has to name the columns");
    for (int k = 0; k < header.cells; k++) header.cell[k] = csv_trimmed(header.cell[k]);
    choose_fields(c, table_has, &header, at);
    for (int k = 0; k < 3; k++)
        if (c->field[k] && (k != 1 || c->data.kind != DATA_TEXT))
            column[k] = need_column(&header, c->field[k], at);
    if (c->label && (c->given->label || table_has(&header, c->label)))
        label = need_column(&header, c->label, at);
    if (c->where.holds) where = need_column(&header, c->where.field, at);
    for (;;) {
        PoolMark mark = pool_mark(&c->scratch);
        Span text[3] = { { NULL, 0 }, { NULL, 0 }, { NULL, 0 } };
        if (!next_record(c, &t, &row, &at)) break;
        check_cells(&row, &header, at);
        if (where < 0 || is_wanted(c, csv_trimmed(row.cell[where]), at)) {
            for (int k = 0; k < 3; k++) if (column[k] >= 0) text[k] = row.cell[column[k]];
            if (c->made >= 0) text[c->made] = template_text(c, table_text_of, &named, at);
            add_row(c, text, label >= 0 ? cell_label(c, csv_trimmed(row.cell[label]), at) : -1, at);
        } else c->not_where++;
        pool_release(&c->scratch, mark);
    }
}
