/* run_columns.c - texts in lines that fit a terminal, and several beside one another. */
#include "run.h"
#include <stdio.h>

/* Returns how many bytes of text, of at most `width` columns (2 or more), make the next line; *next: where
 * the one after it begins. Breaks at a space, or at the width if a word is longer. */
static size_t next_line(const char *text, size_t n, int width, size_t *next) {
    size_t at = 0, space = 0;
    for (int column = 0; at < n && text[at] != '\n'; ) {
        int32_t code;
        const size_t length = (size_t)utf8_decode(text + at, n - at, &code);
        if (code == ' ') space = at;
        column += unicode_columns(code);
        if (column > width) {
            *next = space ? space + 1 : at;
            return space ? space : at;
        }
        at += length;
    }
    *next = at < n ? at + 1 : at;
    return at;
}

void print_lines(Span text, int width) {
    for (size_t at = 0, next = 0; at < text.n; at += next) {
        const size_t n = next_line(text.text + at, text.n - at, width, &next);
        printf("%.*s\n", (int)n, text.text + at);
    }
}

void print_columns(const Span *text, int from, int to, int width) {
    size_t at[COLUMNS_MAX] = { 0 };
    for (int k = from; k < to; k++) printf("[%d]%*s", k + 1, k + 1 < to ? width + COLUMN_GAP - 3 : 0, "");
    for (int more = 1; more; ) {
        more = 0;
        putchar('\n');
        for (int k = from; k < to; k++) {
            size_t next = 0;
            const char *line = text[k].text + at[k];
            const size_t n = next_line(line, text[k].n - at[k], width, &next);
            at[k] += next;
            more |= at[k] < text[k].n;
            printf("%.*s", (int)n, line);
            if (k + 1 < to) printf("%*s", width + COLUMN_GAP - text_columns(line, n), "");
        }
    }
    putchar('\n');
}

Span visible_text(Span x, Pool *pool) {
    Buffer b = { .pool = pool };
    while (x.n && strchr(" \t\r\n", x.text[0])) { x.text++; x.n--; }
    while (x.n && strchr(" \t\r\n", x.text[x.n - 1])) x.n--;
    buffer_visible(&b, x.text, x.n, 1);
    need_buffer(&b);
    for (size_t i = 0; i < b.length; i++) if (b.data[i] == '\t') b.data[i] = ' ';
    return (Span){ b.length ? (const char *)b.data : "", b.length };
}
