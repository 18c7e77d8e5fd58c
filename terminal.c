/* terminal.c - what the programs print and how it fits the terminal: the width, lines broken between words,
 * progress, small drawings, and numbers in words.
 *
 * Needs        core.c (UTF-8), io.c (the clock); libc; from POSIX isatty and, where it exists, TIOCGWINSZ.
 *              Without them the width is the variable COLUMNS, or 80.
 * Never        prints more columns than the terminal has, except for one word that is wider itself.
 * Edges        A list a|b|c that is wider than a line is broken after a |. Output that is no terminal gets
 *              tables 80 columns wide (or COLUMNS), each sentence as a line. A full disk or a closed pipe is
 *              noticed at the end of the program, which then exits 1. */
#if defined(__unix__) || (defined(__APPLE__) && defined(__MACH__))
#define TERMINAL_POSIX 1
#define _POSIX_C_SOURCE 200809L
#endif
#include "programs.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#ifdef TERMINAL_POSIX
#include <sys/ioctl.h>
#include <unistd.h>
#endif

enum { BAR = 20, BAR_MIN = 6, NARROWEST = 20, WIDEST = 1000, STANDARD = 80 };

/* The last line of the terminal, and the work that it shows. */
static struct {
    int error;                              /* errno of the first write that failed; 0: none did */
    int open;                               /* 1: the last line is progress, without a newline */
    int running;                            /* 1 from the first line of progress to its last */
    double start, shown;                    /* times of its first and its last line */
    long long first, bucket;                /* `done` in the first line; twentieths in the last */
} line;

/* ---- standard output ---- */

int terminal_here(void) {
#ifdef TERMINAL_POSIX
    const char *term = getenv("TERM");
    return isatty(1) && !(term && !strcmp(term, "dumb"));
#else
    return 0;
#endif
}

/* Returns the columns of standard output (1) or of the stream of messages (2). */
static int width_of(int handle) {
    const char *columns = getenv("COLUMNS");
    long n = columns ? strtol(columns, NULL, 10) : 0;
#ifdef TIOCGWINSZ
    struct winsize size;
    if (n <= 0 && isatty(handle) && !ioctl(handle, TIOCGWINSZ, &size)) n = size.ws_col;
#endif
    (void)handle;
    return n <= 0 ? STANDARD : n < NARROWEST ? NARROWEST : n > WIDEST ? WIDEST : (int)n;
}

int terminal_width(void) { return width_of(1); }

/* Returns 1 if messages go to a terminal. */
static int messages_here(void) {
#ifdef TERMINAL_POSIX
    return isatty(2);
#else
    return 0;
#endif
}

/* Flushes standard output, and keeps the operating system's reason if that fails. */
static void flush_output(void) {
    errno = 0;
    if (fflush(stdout) && !line.error) line.error = errno;
}

void close_line(void) {
    if (line.open) { fputc('\n', stdout); line.open = 0; }
    flush_output();
}

static const char *owner;                   /* the program whose output is watched; NULL: none yet */

/* Runs when the program ends: output that was not written is an error. */
static void check_output(void) {
    flush_output();
    if (!ferror(stdout) && !line.error) return;
    fprintf(stderr, "%s: cannot write: standard output: %s\n  try: an output with free space\n", owner,
            line.error ? strerror(line.error) : "not all of it was written");
    fflush(NULL);
    _Exit(1);
}

void watch_output(const char *program) {
    if (!owner) atexit(check_output);
    owner = program;
}

/* ---- text ---- */

int text_columns(const char *text, size_t n) {
    int columns = 0;
    for (size_t i = 0; i < n; ) {
        int32_t code;
        i += (size_t)utf8_decode(text + i, n - i, &code);
        columns += unicode_columns(code);
    }
    return columns;
}

/* Returns the bytes of the text's first part that a line may end with: up to a space, or as many of a list's
 * items "a|b|c" as `room` columns hold, at least one. */
static size_t part_length(const char *text, int room) {
    const size_t word = strcspn(text, " \n");
    size_t n = word, item;
    if (text_columns(text, word) <= room) return word;
    for (size_t at = 0; (item = strcspn(text + at, " \n|")) < word - at; at += item + 1) {
        if (n < word && text_columns(text, at + item + 1) > room) break;
        n = at + item + 1;                  /* with its | */
    }
    return n;
}

/* As print_wrapped, to a stream. */
static int wrap(FILE *f, const char *text, int column, int indent, int width) {
    int fresh = column <= indent, within = 0;       /* 1: no word is in this line yet; a list goes on */
    while (*text) {
        const size_t n = part_length(text, width - indent);
        const int columns = text_columns(text, n);
        if (!fresh && column + !within + columns > width) {
            fprintf(f, "\n%*s", indent, "");
            column = indent;
            fresh = 1;
        } else if (!fresh && !within) { putc(' ', f); column++; }
        fprintf(f, "%.*s", (int)n, text);
        column += columns;
        if (n) fresh = 0;
        text += n;
        within = *text && *text != ' ' && *text != '\n';
        if (*text == '\n') { fprintf(f, "\n%*s", indent, ""); column = indent; fresh = 1; }
        if (*text && !within) text++;
    }
    return column;
}

int print_wrapped(const char *text, int column, int indent, int width) {
    return wrap(stdout, text, column, indent, width);
}

/* Prints a line to f; with width above 0, a terminal's, broken between words. */
static void print_line(FILE *f, int width, const char *format, va_list list) {
    char text[4096];
    va_list again;
    va_copy(again, list);
    close_line();
    const int n = vsnprintf(text, sizeof text, format, list);
    if (width > 0 && n >= 0 && (size_t)n < sizeof text) {
        const int indent = (int)strspn(text, " ");
        fprintf(f, "%*s", indent, "");
        wrap(f, text + indent, indent, indent + 2, width);
    } else vfprintf(f, format, again);
    va_end(again);
    fprintf(f, "\n");
}

void say(const char *format, ...) {
    va_list list;
    va_start(list, format);
    print_line(stdout, terminal_here() ? terminal_width() : 0, format, list);
    va_end(list);
    flush_output();
}

void say_error(const char *format, ...) {
    va_list list;
    va_start(list, format);
    print_line(stderr, messages_here() ? width_of(2) : 0, format, list);
    va_end(list);
}

/* ---- numbers in words ---- */

const char *with_commas(char out[32], size_t n) {
    char digits[24];
    const int length = snprintf(digits, sizeof digits, "%llu", (unsigned long long)n);
    int at = 0;
    for (int i = 0; i < length; i++) {
        if (i && (length - i) % 3 == 0) out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = 0;
    return out;
}

const char *counted(char out[64], size_t n, const char *noun) {
    char number[32];
    const size_t length = strlen(noun);
    const char *end = n == 1 ? "" : "s";
    int kept = (int)length;
    if (n != 1 && length > 1 && noun[length - 1] == 'y' && !strchr("aeiou", noun[length - 2])) {
        end = "ies";
        kept--;
    }
    snprintf(out, 64, "%s %.*s%s", with_commas(number, n), kept < 24 ? kept : 24, noun, end);
    return out;
}

const char *from_to(char out[32], long long least, long long most) {
    if (least == most) snprintf(out, 32, "%lld", most);
    else snprintf(out, 32, "%lld to %lld", least, most);
    return out;
}

void readable_bytes(char out[32], size_t bytes) {
    static const char *const unit[] = { "B", "KB", "MB", "GB", "TB", "PB", "EB" };
    double v = (double)bytes;
    int k = 0;
    while (v >= 999.95 && k < 6) { v /= 1000; k++; }
    if (k) snprintf(out, 32, "%.1f %s", v, unit[k]);
    else snprintf(out, 32, "%d B", (int)v);
}

void readable_time(char out[32], double seconds) {
    long s = seconds < 1e8 ? (long)(seconds + 0.5) : 99999999L;
    if (seconds < 9.95) snprintf(out, 32, "%.1f s", seconds > 0.1 ? seconds : 0.1);
    else if (s < 3600) snprintf(out, 32, "%ld:%02ld", s / 60, s % 60);
    else snprintf(out, 32, "%ldh%02ldm", s / 3600, s / 60 % 60);
}

void print_bytes(const char *part, size_t bytes) {
    char size[32];
    const int room = terminal_width() - 13;
    close_line();
    readable_bytes(size, bytes);
    printf("  %-*s %10s\n", room < 40 ? room : 40, part, size);
    flush_output();
}

/* ---- progress ---- */

/* Takes the last of the text's fields off, which two spaces separate, but leaves the first two. Returns 0 if
 * there are no more than two. */
static int drop_field(char *text) {
    char *first = strstr(text, "  "), *second = first ? strstr(first + 2, "  ") : NULL, *last = second;
    if (!second) return 0;
    for (char *next = second; next; next = strstr(next + 2, "  ")) last = next;
    *last = 0;
    return 1;
}

void progress_line(char *out, size_t cap, const char *text, long long done, long long total, const char *left,
                   int width) {
    char count[64], kept[512], bar[BAR + 4] = "";
    int room, marks, whole = 1;             /* whole: nothing has been left out */
    snprintf(count, sizeof count, "%lld/%lld  ", done, total);
    snprintf(kept, sizeof kept, "%s", text);
    for (;;) {
        room = width - text_columns(count, strlen(count)) - text_columns(left, strlen(left))
             - text_columns(kept, strlen(kept));
        if (room >= 0) break;
        whole = 0;
        if (drop_field(kept)) continue;
        if (left[0]) left = "";
        else if (count[0]) count[0] = 0;
        else break;
    }
    marks = room - 3 < BAR ? room - 3 : BAR;
    if (whole && marks >= BAR_MIN) {
        const double share = total > 0 ? (double)done / (double)total : 0;
        bar[0] = '[';
        for (int i = 0; i < marks; i++) bar[i + 1] = i < (int)(share * marks) ? '#' : '.';
        strcpy(bar + marks + 1, "] ");
    }
    snprintf(out, cap, "%s%s%s%s", bar, count, left, kept);
}

/* Updates a terminal's line at most ten times a second. Other outputs get a line after each twentieth of the
 * work, and after half a minute without a line. */
void progress(const char *text, long long done, long long total, int last) {
    double now = wall_clock(), share = total > 0 ? (double)done / (double)total : 0;
    char left[48] = "", time[32], whole[768];
    int tty = terminal_here(), first = !line.running;
    long long bucket = (long long)(share * 20);
    if (first) { line.running = 1; line.start = now; line.first = done; }
    if (!first && !last && (tty ? now - line.shown < 0.1 : bucket == line.bucket && now - line.shown < 30))
        return;
    line.shown = now;
    line.bucket = bucket;
    if (last && !first) { readable_time(time, now - line.start); snprintf(left, sizeof left, "in %s", time); }
    else if (done > line.first && total >= done) {
        readable_time(time, (now - line.start) / (double)(done - line.first) * (double)(total - done));
        snprintf(left, sizeof left, "%s left", time);
    }
    if (tty) {    /* ESC[?7l makes the terminal cut a line that is too long instead of wrapping it */
        if (left[0]) strcat(left, "  ");
        progress_line(whole, sizeof whole, text, done, total, left, terminal_width() - 1);
        printf("\r\033[?7l%s\033[K\033[?7h%s", whole, last ? "\n" : "");
    } else printf("%lld/%lld  %s%s%s\n", done, total, text, left[0] ? "  " : "", left);
    line.open = tty && !last;
    if (last) line.running = 0;
    flush_output();
}

/* Uses the characters U+2581 (for the smallest value shown) to U+2588 (for the largest); a NaN or
 * an infinity becomes a space. */
void sparkline(char *out, size_t cap, const double *x, int n, int width) {
    double low = HUGE_VAL, high = -HUGE_VAL;
    size_t used = 0;
    int first = n > width ? n - width : 0;
    if (!cap) return;
    for (int i = first; i < n; i++)
        if (fabs(x[i]) < HUGE_VAL) {
            if (x[i] < low) low = x[i];
            if (x[i] > high) high = x[i];
        }
    for (int i = first; i < n && used + 3 < cap; i++) {
        double share = high > low ? (x[i] - low) / (high - low) : 0;
        if (fabs(x[i]) < HUGE_VAL) used += (size_t)utf8_encode(out + used, 0x2581 + (int)(share * 7 + 0.5));
        else out[used++] = ' ';
    }
    out[used] = 0;
}
