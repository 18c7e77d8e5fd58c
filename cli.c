/* cli.c - the programs' command line: options, messages, memory from malloc, signals, progress, logs.
 *
 * What it is   One of the three library files that print, exit and use the heap (train.c and report.c are the
 *              others). Each option is one row of a table; the row says how the option is parsed, checked,
 *              explained by --help and written into the log.
 * Needs        core.c (buffers, pools, errors), io.c (files, folders, the clock); libc; from POSIX isatty,
 *              mkdir, stat, sigaction and write, each with a plain C fallback.
 * Never        clamps a value, guesses an option, or continues after wrong usage: it prints a message and
 *              exits 2. After any other failure it prints `program: what happened: to what`, then a second
 *              line with advice (try: ...), and exits 1.
 * Edges        A value that begins with "--" is written --name=value. --name=no unsets a flag that a preset
 *              has set. "-" is a positional argument (standard input). All arguments after "--" are
 *              positional. */
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

enum { OPTIONS_MAX = 256, NAME_MAX_LENGTH = 64, HELP_COLUMN = 30, HELP_WIDTH = 104, BAR = 20 };

/* The state of the one program that is running. */
static struct {
    const Program *program;
    const char *preset;                     /* the name of the preset in use, or NULL */
    unsigned char given[OPTIONS_MAX];       /* for each row of program->option: 1 if it was given */
    void *arenas;                           /* cli_arena's last block, a linked list of all blocks */
    int line_open;                          /* 1: the terminal's last line is progress, without a newline */
    int running;                            /* 1 from the first line of progress to its last */
    double start, shown;                    /* progress: times of its first and its last line */
    long long first, bucket;                /* `done` in the first line; twentieths in the last */
} cli;
static volatile sig_atomic_t stopped_by;    /* the signal that asked the program to stop; 0: none */

/* ---- messages ---- */

static const char *program_name(void) {
    return cli.program && cli.program->program ? cli.program->program : "rlhf.c";
}

/* Ends an open progress line and flushes standard output, so that a message begins on a new
 * line, after all earlier output. */
static void close_line(void) {
    if (cli.line_open) { fputc('\n', stdout); cli.line_open = 0; }
    fflush(stdout);
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
    { "out of memory", "use smaller sizes, batches or files" },
    { "not a finite number", "another file: this one is damaged" },
};
static int code_known(int code) { return code >= 0 && code < (int)(sizeof code_words / sizeof *code_words); }

void cli_warn(const Error *err, const char *hint) {
    int code = err && code_known(err->code) ? err->code : OK;
    if (err && err->advice) hint = err->advice;
    close_line();
    fprintf(stderr, "%s: ", program_name());
    /* err->what may be only the name of the feature that is not supported */
    if (code == E_UNSUPPORTED && !strstr(err->what, "support")) fprintf(stderr, "not supported: ");
    fprintf(stderr, "%s", err && err->what[0] ? err->what : code_words[code].what);
    if (err && err->where[0]) fprintf(stderr, ": %s", err->where);
    if (err && err->got != err->wanted) fprintf(stderr, " (got %lld, wanted %lld)", err->got, err->wanted);
    fprintf(stderr, "\n  try: %s\n", hint && hint[0] ? hint : code_words[code].hint);
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

void usage_error(const char *message, const char *argument) {
    const char *name = program_name();
    close_line();
    fprintf(stderr, "%s: %s", name, message);
    if (argument) fprintf(stderr, ": %s", argument);
    if (cli.program && cli.program->usage) fprintf(stderr, "\n  usage: ./%s %s", name, cli.program->usage);
    fprintf(stderr, "\n  try: ./%s --help\n", name);
    exit(2);
}

/* ---- the table of options ---- */

/* Returns the Levenshtein distance of a (n letters) and b: the fewest insertions, deletions and
 * replacements that turn a into b. */
static int edit_distance(const char *a, size_t n, const char *b) {
    int row[NAME_MAX_LENGTH + 1];
    size_t m = strlen(b);
    if (n > NAME_MAX_LENGTH || m > NAME_MAX_LENGTH) return INT_MAX;
    for (size_t j = 0; j <= m; j++) row[j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[m];
}

/* Returns the option's name that is most like the typed one. If the typed name is the beginning of an
 * option's name (--temp), that counts as one mistake. */
static const char *closest_option(const Program *p, const char *typed, size_t n) {
    const char *best = "help";
    int least = edit_distance(typed, n, best);
    for (int i = -1; i < p->options; i++) {
        const char *name = i < 0 ? "preset" : p->option[i].name;
        int distance;
        if (i < 0 && !p->presets) continue;
        distance = n >= 2 && strlen(name) > n && !strncmp(name, typed, n) ? 1 : edit_distance(typed, n, name);
        if (distance < least) { least = distance; best = name; }
    }
    return best;
}

/* Returns the row of the option with this name of n letters, or -1. */
static int find_option(const Program *p, const char *name, size_t n) {
    for (int i = 0; i < p->options; i++)
        if (strlen(p->option[i].name) == n && !strncmp(p->option[i].name, name, n)) return i;
    return -1;
}

/* Returns "-" for a name of one letter (-n), otherwise "--". */
static const char *dashes(const char *name) { return name[0] && !name[1] ? "-" : "--"; }

/* Finds the k-th choice of "a|b|c", from 0 on: returns its length and sets *at to its beginning; returns
 * 0 if there is no k-th choice. */
static size_t choice_at(const char *choices, int k, const char **at) {
    for (; k > 0; k--) {
        choices = strchr(choices, '|');
        if (!choices) return 0;
        choices++;
    }
    *at = choices;
    return strcspn(choices, "|");
}

/* Ends the program with wrong usage: the option `wanted` ("needs a number"), but got text. */
static void bad_value(const Option *o, const char *wanted, const char *text) {
    char message[320];
    snprintf(message, sizeof message, "%s%s %s", dashes(o->name), o->name, wanted);
    usage_error(message, text[0] ? text : "(nothing)");
}

static void check_limits(const Option *o, double value, const char *text) {
    char wanted[96];
    if (o->min == o->max || (value >= o->min && value <= o->max)) return;
    if (o->max >= (o->type == OPT_INT ? (double)INT_MAX : HUGE_VAL))
        snprintf(wanted, sizeof wanted, "has to be at least %.15g", o->min);
    else snprintf(wanted, sizeof wanted, "has to be from %.15g to %.15g", o->min, o->max);
    bad_value(o, wanted, text);
}

static void set_choice(const Option *o, const char *text) {
    char wanted[256];
    const char *at = NULL;
    size_t n;
    for (int k = 0; (n = choice_at(o->choices, k, &at)) > 0; k++)
        if (strlen(text) == n && !strncmp(text, at, n)) { *(int *)o->value = k; return; }
    snprintf(wanted, sizeof wanted, "has to be one of %s", o->choices);
    bad_value(o, wanted, text);
}

static void set_flag(const Option *o, const char *text) {
    if (!strcmp(text, "1") || !strcmp(text, "yes") || !strcmp(text, "true")) *(int *)o->value = 1;
    else if (!strcmp(text, "0") || !strcmp(text, "no") || !strcmp(text, "false")) *(int *)o->value = 0;
    else bad_value(o, "has to be yes or no", text);
}

/* Parses text, all of which has to be one number: "3x", "", " 3" and "1e999" are wrong usage. They are not
 * taken as 3, 0, 3 and infinity. */
static void set_number(const Option *o, const char *text) {
    char *end = NULL;
    int starts = text[0] == '-' || text[0] == '+' || text[0] == '.' || (text[0] >= '0' && text[0] <= '9');
    errno = 0;
    if (o->type == OPT_REAL) {
        double v = starts ? strtod(text, &end) : 0;
        if (!starts || end == text || *end || !(fabs(v) < HUGE_VAL)) bad_value(o, "needs a number", text);
        check_limits(o, v, text);
        *(double *)o->value = v;
    } else if (o->type == OPT_INT) {
        long long v = starts ? strtoll(text, &end, 10) : 0;
        if (!starts || end == text || *end) bad_value(o, "needs a whole number", text);
        if (errno || v < INT_MIN || v > INT_MAX) bad_value(o, "is too large a number", text);
        check_limits(o, (double)v, text);
        *(int *)o->value = (int)v;
    } else {
        unsigned long long v = starts && text[0] != '-' ? strtoull(text, &end, 10) : 0;
        if (!starts || text[0] == '-' || end == text || *end || errno)
            bad_value(o, "needs a whole number from 0 to 2^64 - 1", text);
        *(uint64_t *)o->value = (uint64_t)v;
    }
}

static void set_option(const Option *o, const char *text) {
    if (o->type == OPT_FLAG) set_flag(o, text);
    else if (o->type == OPT_CHOICE) set_choice(o, text);
    else if (o->type == OPT_TEXT) *(const char **)o->value = text;
    else set_number(o, text);
}

/* Sets the option's value to its fallback, or if it has none to NULL, 0, no or the first choice. */
static void set_fallback(const Option *o) {
    if (o->fallback) set_option(o, o->fallback);
    else if (o->type == OPT_TEXT) *(const char **)o->value = NULL;
    else if (o->type == OPT_REAL) *(double *)o->value = 0;
    else if (o->type == OPT_SEED) *(uint64_t *)o->value = 0;
    else *(int *)o->value = 0;
}

/* ---- help ---- */

/* Prints the words of text, the first at `column`, and breaks lines before HELP_WIDTH. The next lines begin
 * at `indent`. Returns the column after the last word. */
static int print_wrapped(const char *text, int column, int indent) {
    while (*text) {
        int n = (int)strcspn(text, " \n");
        if (column > indent && column + 1 + n > HELP_WIDTH) { printf("\n%*s", indent, ""); column = indent; }
        else if (column > indent) { putchar(' '); column++; }
        printf("%.*s", n, text);
        column += n;
        text += n;
        if (*text == '\n') { printf("\n%*s", indent, ""); column = indent; }
        if (*text) text++;
    }
    return column;
}

/* Prints the end of an option's help, "(1 to 1000; default 60)". A limit of 100,000
 * or more is not printed. */
static void help_values(const Option *o, int column) {
    char text[480], limits[80] = "", *d = text;
    const char *values = o->type == OPT_CHOICE ? o->choices : limits;
    if ((o->type == OPT_INT || o->type == OPT_REAL) && o->min != o->max) {
        if (o->max < 1e5) snprintf(limits, sizeof limits, "%.15g to %.15g", o->min, o->max);
        else if (o->min != 0) snprintf(limits, sizeof limits, "at least %.15g", o->min);
    }
    if (!values[0] && !o->fallback) return;
    d += snprintf(d, 400, "(%.390s", values);
    if (o->fallback) snprintf(d, 64, "%sdefault %.40s", values[0] ? "; " : "", o->fallback);
    if (column + 2 + (int)strlen(text) > HELP_WIDTH) {
        printf("\n%*s", HELP_COLUMN, "");
        column = HELP_COLUMN;
    }
    print_wrapped(text, column, HELP_COLUMN);
    putchar(')');
}

static void help_option(const Option *o) {
    static const char *const kind[] = { "", " N", " N", " X", " TEXT", " NAME" };
    int column = printf("  %s%s%s", dashes(o->name), o->name, kind[o->type]);
    if (column > HELP_COLUMN - 2) { putchar('\n'); column = 0; }
    printf("%*s", HELP_COLUMN - column, "");
    help_values(o, print_wrapped(o->help ? o->help : "", HELP_COLUMN, HELP_COLUMN));
    putchar('\n');
}

static void help_presets(const Program *p, const char *default_preset) {
    printf("\npresets (named sets of options; options on the command line win):\n");
    for (int i = 0; i < p->presets; i++) {
        const Preset *s = &p->preset[i];
        int usual = default_preset && !strcmp(s->name, default_preset), column;
        printf("  --preset %s%s\n      ", s->name, usual ? "  (the default)" : "");
        print_wrapped(s->help ? s->help : "", 6, 6);
        printf("\n      ");
        column = 6;
        for (const char *const *v = s->set; v && v[0] && v[1]; v += 2) {
            char pair[160];
            snprintf(pair, sizeof pair, "%s%s=%s", dashes(v[0]), v[0], v[1]);
            column = print_wrapped(pair, column, 6);
        }
        printf("\n");
    }
}

static void print_help(const Program *p, const char *default_preset) {
    printf("usage: ./%s %s\n\n", p->program, p->usage ? p->usage : "");
    if (p->about) { print_wrapped(p->about, 0, 0); printf("\n"); }
    printf("\noptions:\n");
    for (int i = 0; i < p->options; i++) help_option(&p->option[i]);
    printf("  --help%*sthis text\n", HELP_COLUMN - 8, "");
    if (p->presets) help_presets(p, default_preset);
    exit(fflush(stdout) ? 1 : 0);
}

/* ---- the command line ---- */

static const Preset *find_preset(const Program *p, const char *name) {
    char known[320] = "";
    for (int i = 0; i < p->presets; i++) {
        size_t used = strlen(known);
        if (!strcmp(p->preset[i].name, name)) return &p->preset[i];
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "--preset has to be one of ",
                 p->preset[i].name);
    }
    usage_error(known[0] ? known : "there are no presets", name);
    return NULL;
}

static void unknown_option(const Program *p, const char *argument) {
    char message[160];
    const char *name = argument + strspn(argument, "-"), *best = closest_option(p, name, strcspn(name, "="));
    snprintf(message, sizeof message, "unknown option (did you mean %s%s?)", dashes(best), best);
    usage_error(message, argument);
}

/* Reads the arguments once. apply 0: checks their form, and finds --preset and --help. apply 1: sets the
 * values; since this comes after the preset, an option wins even over a --preset that follows it. Returns the
 * number of positional arguments. */
static int walk(const Program *p, int argc, char **argv, int apply, const char *default_preset,
                const char **positional, int max_positional) {
    int positionals = 0, only_positional = 0;
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i], *name = a + (a[0] == '-' && a[1] == '-' ? 2 : 1), *value = NULL;
        size_t n = a[0] ? strcspn(name, "=") : 0;
        int row, preset;
        if (only_positional || a[0] != '-' || !a[1]) {
            if (positionals >= max_positional) usage_error("one argument too many", a);
            positional[positionals++] = a;
            continue;
        }
        if (!strcmp(a, "--")) { only_positional = 1; continue; }
        if (!strcmp(a, "--help") || !strcmp(a, "-h")) print_help(p, default_preset);
        row = a[1] == '-' || n == 1 ? find_option(p, name, n) : -1;     /* one dash: one letter */
        preset = p->presets && a[1] == '-' && n == 6 && !strncmp(name, "preset", 6);
        if (row < 0 && !preset) unknown_option(p, a);
        if (name[n] == '=') value = name + n + 1;
        else if (!preset && p->option[row].type == OPT_FLAG) value = "1";
        else if (i + 1 < argc && strncmp(argv[i + 1], "--", 2)) value = argv[++i];
        else usage_error("a value is missing after", a);
        if (preset) cli.preset = value;
        else if (apply) { set_option(&p->option[row], value); cli.given[row] = 1; }
    }
    return positionals;
}

int cli_parse(const Program *p, const char *default_preset, int argc, char **argv, const char **positional,
              int max_positional) {
    const char *kernel = getenv("RLHF_ISA");
    cli.program = p;
    cli.preset = default_preset;
    if (fast_use(kernel) != OK)
        usage_error("RLHF_ISA names a kernel that this processor or this build does not have "
                    "(plain is always there)", kernel);
    memset(cli.given, 0, sizeof cli.given);
    if (p->options > OPTIONS_MAX) usage_error("this program has too many options", NULL);
    walk(p, argc, argv, 0, default_preset, positional, max_positional);
    for (int i = 0; i < p->options; i++) set_fallback(&p->option[i]);
    if (cli.preset) {
        const Preset *s = find_preset(p, cli.preset);
        for (const char *const *v = s->set; v && v[0] && v[1]; v += 2) {
            int row = find_option(p, v[0], strlen(v[0]));
            if (row < 0) usage_error("a preset names an unknown option", v[0]);
            set_option(&p->option[row], v[1]);
        }
    }
    return walk(p, argc, argv, 1, default_preset, positional, max_positional);
}

int cli_given(const Program *p, const char *option) {
    int row = find_option(p, option, strlen(option));
    return row >= 0 && p == cli.program && cli.given[row];
}

void cli_refuse(const Program *p, const char *options, const char *why) {
    const char *at = NULL;
    size_t n;
    for (int k = 0; (n = choice_at(options, k, &at)) > 0; k++) {
        int row = find_option(p, at, n);
        char name[NAME_MAX_LENGTH + 3];
        if (row < 0 || !cli.given[row]) continue;
        snprintf(name, sizeof name, "--%s", p->option[row].name);
        usage_error(why, name);
    }
}

/* Appends a number with the fewest digits from which the same number is read back; a
 * NaN or an infinity as null. */
static void json_real(Buffer *b, double value) {
    char text[40];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    buffer_text(b, fabs(value) < HUGE_VAL ? text : "null");
}

void cli_options_json(const Program *p, Buffer *b) {
    buffer_text(b, "{");
    if (p->presets) {
        buffer_text(b, "\"preset\":");
        if (cli.preset) buffer_json_string(b, cli.preset, strlen(cli.preset));
        else buffer_text(b, "null");
    }
    for (int i = 0; i < p->options; i++) {
        const Option *o = &p->option[i];
        const char *text = NULL;
        size_t n = 0;
        if (i || p->presets) buffer_text(b, ",");
        buffer_json_string(b, o->name, strlen(o->name));
        buffer_text(b, ":");
        if (o->type == OPT_FLAG) buffer_text(b, *(int *)o->value ? "true" : "false");
        else if (o->type == OPT_INT) buffer_integer(b, *(int *)o->value);
        else if (o->type == OPT_REAL) json_real(b, *(double *)o->value);
        else if (o->type == OPT_SEED) {
            char digits[24];
            snprintf(digits, sizeof digits, "%llu", (unsigned long long)*(uint64_t *)o->value);
            buffer_text(b, digits);
        } else {
            if (o->type == OPT_CHOICE) n = choice_at(o->choices, *(int *)o->value, &text);
            else { text = *(const char **)o->value; n = text ? strlen(text) : 0; }
            if (text) buffer_json_string(b, text, n);
            else buffer_text(b, "null");
        }
    }
    buffer_text(b, "}");
}

/* ---- memory ---- */

void cli_bytes(char out[32], size_t bytes) {
    static const char *const unit[] = { "B", "KB", "MB", "GB", "TB", "PB", "EB" };
    double v = (double)bytes;
    int k = 0;
    while (v >= 999.95 && k < 6) { v /= 1000; k++; }
    if (k) snprintf(out, 32, "%.1f %s", v, unit[k]);
    else snprintf(out, 32, "%d B", (int)v);
}

static void out_of_memory(size_t bytes, const char *what) {
    char size[32];
    Error e;
    cli_bytes(size, bytes);
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

void cli_bill(const char *part, size_t bytes) {
    char size[32];
    close_line();
    cli_bytes(size, bytes);
    printf("  %-40s %10s\n", part, size);
    fflush(stdout);
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

int cli_stopping(void) { return stopped_by != 0; }

int cli_exit_code(int code) { return stopped_by ? 128 + (int)stopped_by : code; }

/* ---- progress ---- */

int cli_terminal(void) {
#ifdef CLI_POSIX
    const char *term = getenv("TERM");
    return isatty(1) && !(term && !strcmp(term, "dumb"));
#else
    return 0;
#endif
}

int cli_typed(void) {
#ifdef CLI_POSIX
    return isatty(0) && isatty(2);
#else
    return 0;
#endif
}

/* Writes a duration: "0:42", "12:05", "3h07m". */
static void readable_time(char out[32], double seconds) {
    long s = seconds < 1e8 ? (long)(seconds + 0.5) : 99999999L;
    if (s < 3600) snprintf(out, 32, "%ld:%02ld", s / 60, s % 60);
    else snprintf(out, 32, "%ldh%02ldm", s / 3600, s / 60 % 60);
}

/* Updates a terminal's line at most ten times a second. Other outputs get a line after each twentieth of the
 * work, and after half a minute without a line. */
void progress(const char *text, long long done, long long total, int last) {
    double now = wall_clock(), share = total > 0 ? (double)done / (double)total : 0;
    char left[48] = "", time[32], bar[BAR + 1];
    int tty = cli_terminal(), first = !cli.running;
    long long bucket = (long long)(share * 20);
    if (first) { cli.running = 1; cli.start = now; cli.first = done; }
    if (!first && !last && (tty ? now - cli.shown < 0.1 : bucket == cli.bucket && now - cli.shown < 30))
        return;
    cli.shown = now;
    cli.bucket = bucket;
    if (last) { readable_time(time, now - cli.start); snprintf(left, sizeof left, "  in %s", time); }
    else if (done > cli.first && total >= done) {
        readable_time(time, (now - cli.start) / (double)(done - cli.first) * (double)(total - done));
        snprintf(left, sizeof left, "  %s left", time);
    }
    if (tty) {    /* ESC[?7l makes the terminal cut a line that is too long instead of wrapping it */
        for (int i = 0; i < BAR; i++) bar[i] = i < (int)(share * BAR) ? '#' : '.';
        bar[BAR] = 0;
        printf("\r\033[?7l[%s] %lld/%lld%s  %s\033[K\033[?7h%s", bar, done, total, left, text,
               last ? "\n" : "");
    } else printf("%lld/%lld  %s%s\n", done, total, text, left);
    cli.line_open = tty && !last;
    if (last) cli.running = 0;
    fflush(stdout);
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

/* ---- logs ---- */

void log_options(const char *path, const Program *p, const char *data, Pool *pool) {
    Error err = { 0 };
    PoolMark mark = pool_mark(pool);
    Buffer b = { 0 };
    b.pool = pool;
    buffer_text(&b, "{\"program\": ");
    buffer_json_string(&b, p->program, strlen(p->program));
    buffer_text(&b, ", \"data\": ");
    buffer_json_string(&b, data, strlen(data));
    buffer_text(&b, ", \"options\": ");
    cli_options_json(p, &b);
    buffer_text(&b, "}\n");
    if (b.failed) must(fail(&err, E_MEMORY, "no memory for the options", path, 0, 0), &err, NULL);
    must(file_write_all(path, b.data, b.length, pool, &err), &err, NULL);
    pool_release(pool, mark);
}

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
