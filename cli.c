/* cli.c - what all programs do with the system: messages, memory from malloc, signals, run folders, logs.
 *
 * What it is   One of the five library files that print, exit and use the heap (the others are terminal.c,
 *              options.c, train.c and report.c).
 * Needs        core.c (buffers, pools, errors), io.c (files, folders), terminal.c; libc; from POSIX mkdir,
 *              stat, sigaction and write, each with a plain C fallback.
 * Never        continues after a failure: it prints `program: what happened: to what`, then a second line
 *              with advice (try: ...), and exits 1, or 2 after wrong usage. */
#if defined(__unix__) || (defined(__APPLE__) && defined(__MACH__))
#define CLI_POSIX 1
#define _POSIX_C_SOURCE 200809L
#endif
#include "programs.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#ifdef CLI_POSIX
#include <unistd.h>
#endif

/* The state of the one program that is running. */
static struct {
    const Program *program;
    double began, limit;                    /* of wall_clock: the beginning; seconds, 0: no limit */
    void *arenas;                           /* cli_arena's last block, a linked list of all blocks */
} cli;
static volatile sig_atomic_t stopped_by;    /* the signal that asked the program to stop; 0: none */

/* ---- messages ---- */

void cli_begin(const Program *p) {
    cli.program = p;
    cli.began = wall_clock();
    watch_output(p->program);
}

const char *program_name(void) {
    return cli.program && cli.program->program ? cli.program->program : "rlhf.c";
}

/* For each error code: the words for an Error without words, and the advice if the program gives none. */
static const struct { const char *what, *hint; } code_words[] = {
    { "no error", "report this as a bug" },
    { "this makes no sense", "see --help" },
    { "cannot open", "check the path and its permissions" },
    { "cannot read", "check the file and its permissions" },
    { "cannot write", "check the path, its permissions and the free space" },
    { "not in the format it should be", "check that this is the right file" },
    { "ends too early", "the file is incomplete: copy or make it again" },
    { "out of range", "see --help for the limits" },
    { "has another shape", "check that the files belong together" },
    { "missing", "check that the folder is complete" },
    { "not supported", "use a file without it" },
    { "out of memory", "use smaller sizes, batches or files, or fewer threads (OMP_NUM_THREADS)" },
    { "not a finite number", "another file: this one is damaged" },
};
static int code_known(int code) { return code >= 0 && code < (int)(sizeof code_words / sizeof *code_words); }

const char *numbers_of(char out[64], const Error *err) {
    const int limit = err->code == E_RANGE || err->code == E_TRUNCATED || err->code == E_ARGUMENT;
    if (err->got == err->wanted) out[0] = 0;
    else snprintf(out, 64, limit ? " (%lld; %s %lld)" : " (%lld %s %lld)", err->got,
                  !limit ? "instead of" : err->got > err->wanted ? "at most" : "at least", err->wanted);
    return out;
}

void cli_warn(const Error *err, const char *hint) {
    char numbers[64];
    int code = err && code_known(err->code) ? err->code : OK;
    if (err && err->advice) hint = err->advice;
    /* err->what may be only the name of the feature that is not supported */
    const int name = code == E_UNSUPPORTED && !strstr(err->what, "support"), where = err && err->where[0];
    say_error("%s: %s%s%s%s%s", program_name(), name ? "not supported: " : "",
              err && err->what[0] ? err->what : code_words[code].what, where ? ": " : "",
              where ? err->where : "", err ? numbers_of(numbers, err) : "");
    say_error("  try: %s", hint && hint[0] ? hint : code_words[code].hint);
}

void die(const Error *err, const char *hint) {
    cli_warn(err, hint);
    exit(1);
}

void must(int code, const Error *err, const char *hint) {
    Error e;
    if (code == OK) return;
    if (err && err->code != OK) die(err, hint);
    memset(&e, 0, sizeof e);                /* a function failed and did not fill the record */
    e.code = code;
    die(&e, hint);
}

void usage_hint(const char *message, const char *argument, const char *hint) {
    const char *name = program_name();
    say_error("%s: %s%s%s", name, message, argument ? ": " : "", argument ? argument : "");
    if (hint) say_error("  try: %s", hint);
    else {
        if (cli.program && cli.program->usage) say_error("  usage: ./%s %s", name, cli.program->usage);
        say_error("  try: ./%s --help", name);
    }
    exit(2);
}

void usage_error(const char *message, const char *argument) { usage_hint(message, argument, NULL); }

/* ---- memory ---- */

static void out_of_memory(size_t bytes, const char *what) {
    char size[32];
    Error e;
    readable_bytes(size, bytes);
    memset(&e, 0, sizeof e);
    e.code = E_MEMORY;
    snprintf(e.what, sizeof e.what, "out of memory: %s wanted", size);
    snprintf(e.where, sizeof e.where, "%s", what ? what : "");
    die(&e, NULL);
}

static void *pool_source(size_t bytes) {
    void *block = malloc(bytes ? bytes : 1);
    if (!block) out_of_memory(bytes, "parsed files and text");
    return block;
}

Pool cli_pool(void) {
    Pool p;
    memset(&p, 0, sizeof p);
    p.source = pool_source;
    p.sink = free;
    return p;
}

Arena cli_arena(size_t bytes, const char *what) {
    Arena a;
    unsigned char *block = bytes <= SIZE_MAX - 128 ? calloc(1, bytes + 128) : NULL;
    if (!block) out_of_memory(bytes, what);
    memcpy(block, &cli.arenas, sizeof cli.arenas);  /* links all blocks: leak checkers can reach them */
    cli.arenas = block;
    memset(&a, 0, sizeof a);
    a.base = block + 128 - (uintptr_t)block % 64;           /* a multiple of 64, after the link */
    a.capacity = bytes;
    return a;
}

/* ---- signals that stop a program ---- */

/* Keeps the first signal's number. A second Ctrl-C ends the program, since a person is waiting. A second
 * SIGTERM or SIGHUP changes nothing: a closed terminal sends SIGHUP twice, and a batch system that does not
 * want to wait sends SIGKILL. */
static void on_signal(int number) {
#ifdef CLI_POSIX
    static const char text[] = "\nstopping after this step (Ctrl-C again stops at once)\n";
    ssize_t written = 0;
    if (!stopped_by) written = write(2, text, sizeof text - 1);     /* printf is not allowed here */
    (void)written;
#else
    signal(number, SIG_DFL);
#endif
    if (!stopped_by) stopped_by = number;
}

void cli_interrupts(void) {
#ifdef CLI_POSIX
    struct sigaction s, old;
    memset(&s, 0, sizeof s);
    s.sa_handler = on_signal;
    sigemptyset(&s.sa_mask);
    s.sa_flags = SA_RESTART;
    sigaction(SIGTERM, &s, NULL);
    if (sigaction(SIGHUP, NULL, &old) == 0 && old.sa_handler != SIG_IGN)        /* nohup ignores it */
        sigaction(SIGHUP, &s, NULL);
    s.sa_flags = (int)(SA_RESTART | SA_RESETHAND);              /* a second Ctrl-C ends the program */
    sigaction(SIGINT, &s, NULL);
#else
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
#endif
}

int cli_stopping(void) {
    return stopped_by != 0 || (cli.limit > 0 && wall_clock() - cli.began >= cli.limit);
}

void cli_time_limit(double minutes) { cli.limit = 60 * minutes; }

int cli_exit_code(int code) { return stopped_by ? 128 + (int)stopped_by : code; }

int cli_typed(void) {
#ifdef CLI_POSIX
    return isatty(0) && isatty(2);
#else
    return 0;
#endif
}

/* ---- logs ---- */

void log_begin(Log *l, const char *path, Pool *pool) {
    memset(l, 0, sizeof *l);
    l->path = path;
    l->line.pool = pool;
    buffer_text(&l->line, "{");
}

/* Appends the separator and the field's name to the line. */
static void log_name(Log *l, const char *name) {
    if (l->fields++) buffer_text(&l->line, ", ");
    buffer_json_string(&l->line, name, strlen(name));
    buffer_text(&l->line, ": ");
}

void log_number(Log *l, const char *name, double value) {
    char text[40] = "null";
    if (fabs(value) < HUGE_VAL) snprintf(text, sizeof text, "%.9g", value);
    log_name(l, name);
    buffer_text(&l->line, text);
}

void log_integer(Log *l, const char *name, long long value) {
    log_name(l, name);
    buffer_integer(&l->line, value);
}

void log_text(Log *l, const char *name, const char *text, size_t length) {
    log_name(l, name);
    if (text) buffer_json_string(&l->line, text, length);
    else buffer_text(&l->line, "null");
}

int log_end(Log *l, Error *err) {
    buffer_text(&l->line, "}\n");
    if (l->line.failed) return fail(err, E_MEMORY, "no memory for a line of the log", l->path, 0, 0);
    return file_append(l->path, l->line.data, l->line.length, err);
}
