/* run_table.c - tables whose lines fit the terminal: columns that do not fit beside the others come in a
 * table of their own below. */
#include "run.h"
#include <stdio.h>

static int larger(int a, int b) { return a > b ? a : b; }

static int cell_columns(const char *text) { return text_columns(text, strlen(text)); }

/* Returns the columns that column k of the table needs, with the space before it. */
static int column_width(const Table *t, int k) {
    int width = cell_columns(t->title[k]);
    for (int i = 0; i < t->rows; i++) width = larger(width, cell_columns(t->cell[i * t->columns + k]));
    return width + 2;
}

/* Prints a name in `width` columns; of a longer one, "..." and its end. */
static void print_name(const char *name, int width) {
    int columns = cell_columns(name);
    if (columns > width) {
        printf("...");
        for (; columns + 3 > width && *name; columns--)
            do name++; while (((unsigned char)*name & 0xC0) == 0x80);
        columns += 3;
    }
    print_visible(name, strlen(name), 0);
    for (; columns < width; columns++) putchar(' ');
}

static void print_right(const char *text, int width) {
    for (int k = cell_columns(text); k < width; k++) putchar(' ');
    printf("%s", text);
}

void table_print(const Table *t) {
    const int width = terminal_width();
    int first = cell_columns(t->names), from = 0;
    for (int i = 0; i < t->rows; i++) first = larger(first, cell_columns(t->name[i]));
    if (first > larger(width * 2 / 5, 12)) first = larger(width * 2 / 5, 12);
    while (from < t->columns) {
        int to = from, used = first;
        do used += column_width(t, to++);
        while (to < t->columns && used + column_width(t, to) <= width);
        if (from) putchar('\n');
        print_name(t->names, first);
        for (int k = from; k < to; k++) print_right(t->title[k], column_width(t, k));
        putchar('\n');
        for (int i = 0; i < t->rows; i++) {
            print_name(t->name[i], first);
            for (int k = from; k < to; k++) print_right(t->cell[i * t->columns + k], column_width(t, k));
            putchar('\n');
        }
        from = to;
    }
}
