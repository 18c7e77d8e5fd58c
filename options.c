/* options.c - a program's table of options: parsing, checking, --help, --version, --show-options, the log.
 *
 * What it is   Each option is one row of a table; the row says how the option is parsed, checked, explained
 *              by --help and written into the log. A second table, of needs, says beside which other options
 *              an option has no effect: there it is refused.
 * Needs        cli.c (messages), terminal.c (lines that fit); from POSIX fork and waitpid, to try whether
 *              threads can be started; without them nothing is tried.
 * Never        clamps a value, guesses an option, or continues after wrong usage: it prints a message and
 *              exits 2.
 * Edges        A value that begins with "--" is written --name=value. --name=no unsets a flag that a preset
 *              has set. "-" is a positional argument (standard input). All arguments after "--" are
 *              positional. In an option's name "_" is read as "-". */
#if defined(__unix__) || (defined(__APPLE__) && defined(__MACH__))
#define OPTIONS_POSIX 1
#define _POSIX_C_SOURCE 200809L
#endif
#include "programs.h"
#include <errno.h>
#include <stdio.h>
#include <time.h>
#ifdef OPTIONS_POSIX
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

enum { OPTIONS_MAX = 256, NAME_MAX_LENGTH = 64, HELP_COLUMN = 26, HELP_WIDTH = 100, HELP_NARROW = 60 };
enum { FROM_DEFAULT, FROM_PRESET, FROM_COMMAND_LINE, FROM_FILE };

/* The command line of the one program that is running. */
static struct {
    const Program *program;
    const char *preset, *why;               /* the preset in use (NULL: none), and why this one */
    unsigned char typed[OPTIONS_MAX];       /* 1: the command line has the option */
    unsigned char from[OPTIONS_MAX];        /* for each row of program->option: who set it last */
    int show;                               /* 1: --show-options was given */
    const char *config, *config_data;       /* --config FILE, and the data that it names; or NULL */
    int resumes;                            /* 1: the values are those of a stopped run */
    const char *data;                       /* the first positional argument */
} cli;

/* ---- names of options ---- */

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

/* Writes the first n letters of a name with its dashes: "-" before one letter (-n), otherwise "--". */
static const char *dashed(char out[NAME_MAX_LENGTH + 3], const char *name, size_t n) {
    snprintf(out, NAME_MAX_LENGTH + 3, "%s%.*s", n == 1 ? "-" : "--",
             (int)(n < NAME_MAX_LENGTH ? n : NAME_MAX_LENGTH), name);
    return out;
}

/* Writes an option's own name, the first of its names, with its dashes. */
static const char *own_name(char out[NAME_MAX_LENGTH + 3], const Option *o) {
    return dashed(out, o->name, strcspn(o->name, "|"));
}

/* Returns 1 if a typed name of n letters is this name of m letters. */
static int same_name(const char *typed, size_t n, const char *name, size_t m) {
    for (size_t i = 0; i < n && n == m; i++)
        if (typed[i] != name[i] && !(typed[i] == '_' && name[i] == '-')) return 0;
    return n == m;
}

/* Returns the row of the option that has this name of n letters among its names, or -1. */
static int find_option(const Program *p, const char *name, size_t n) {
    const char *at = NULL;
    size_t m;
    for (int i = 0; i < p->options; i++)
        for (int k = 0; (m = choice_at(p->option[i].name, k, &at)) > 0; k++)
            if (same_name(name, n, at, m)) return i;
    return -1;
}

/* Returns the Levenshtein distance of a (n letters) and b (m letters): the fewest insertions, deletions and
 * replacements that turn a into b. */
static int edit_distance(const char *a, size_t n, const char *b, size_t m) {
    int row[NAME_MAX_LENGTH + 1];
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

/* Counts the mistakes in a typed name. The beginning of a name (--temp) counts as one mistake. */
static int mistakes(const char *typed, size_t n, const char *name, size_t m) {
    return n >= 2 && m > n && same_name(typed, n, name, n) ? 1 : edit_distance(typed, n, name, m);
}

/* Finds the name of a list, "steps|seed|...", that is most like the typed one. A name with more mistakes than
 * a third of the typed letters is nothing like it. Returns the name's length (0: there is none). */
static size_t closest(const char *names, const char *typed, size_t n, int *least, const char **best) {
    const char *at = NULL;
    size_t m, found = 0;
    for (int k = 0; (m = choice_at(names, k, &at)) > 0; k++) {
        const int wrong = mistakes(typed, n, at, m);
        if (wrong < *least && wrong <= (n < 6 ? 1 : (int)n / 3) && (size_t)wrong < n) {
            *least = wrong;
            *best = at;
            found = m;
        }
    }
    return found;
}

static void unknown_option(const Program *p, const char *argument) {
    char message[160] = "unknown option", name[NAME_MAX_LENGTH + 3];
    const char *typed = argument + strspn(argument, "-"), *best = NULL;
    const size_t n = strcspn(typed, "=");
    size_t m = 0, length;
    int least = INT_MAX;
    for (int i = 0; i < p->options; i++)
        if ((length = closest(p->option[i].name, typed, n, &least, &best)) > 0) m = length;
    static const char standard[] = "help|version|show-options|config|preset";
    length = closest(p->presets ? standard : "help|version|show-options|config", typed, n,
                     &least, &best);
    if (length) m = length;
    if (m) snprintf(message, sizeof message, "unknown option (did you mean %s?)", dashed(name, best, m));
    usage_error(message, argument);
}

/* ---- values ---- */

/* Ends the program with wrong usage: the option `wanted` ("needs a number"), but got text. */
static void bad_value(const Option *o, const char *wanted, const char *text) {
    char message[400], name[NAME_MAX_LENGTH + 3];
    snprintf(message, sizeof message, "%s %s", own_name(name, o), wanted);
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
    else if (o->type == OPT_TEXT) {
        if (!*text && !o->max) bad_value(o, "needs a text that is not empty", text);
        *(const char **)o->value = text;
    } else set_number(o, text);
}

/* Sets the option's value to its fallback, or if it has none to NULL, 0, no or the first choice. */
static void set_fallback(const Option *o) {
    if (o->fallback) set_option(o, o->fallback);
    else if (o->type == OPT_TEXT) *(const char **)o->value = NULL;
    else if (o->type == OPT_REAL) *(double *)o->value = 0;
    else if (o->type == OPT_SEED) *(uint64_t *)o->value = 0;
    else *(int *)o->value = 0;
}

/* Returns the option's value as text, *n letters; NULL: a TEXT that is not given. A real number gets the
 * fewest digits from which the same number is read back. */
static const char *value_text(const Option *o, char number[40], size_t *n) {
    const char *text = number;
    *n = 0;
    if (o->type == OPT_CHOICE) { *n = choice_at(o->choices, *(int *)o->value, &text); return text; }
    if (o->type == OPT_TEXT) text = *(const char **)o->value;
    else if (o->type == OPT_FLAG) text = *(int *)o->value ? "yes" : "no";
    else if (o->type == OPT_INT) snprintf(number, 40, "%d", *(int *)o->value);
    else if (o->type == OPT_SEED) snprintf(number, 40, "%llu", (unsigned long long)*(uint64_t *)o->value);
    else if (fabs(*(double *)o->value) < 1e9 && floor(*(double *)o->value) == *(double *)o->value)
        snprintf(number, 40, "%.0f", *(double *)o->value);
    else
        for (int digits = 1; digits <= 17; digits++) {
            snprintf(number, 40, "%.*g", digits, *(double *)o->value);
            if (strtod(number, NULL) == *(double *)o->value) break;
        }
    *n = text ? strlen(text) : 0;
    return text;
}

/* ---- help ---- */

static int help_width(void) { return terminal_width() < HELP_WIDTH ? terminal_width() : HELP_WIDTH; }
static int help_column(void) { return help_width() < HELP_NARROW ? 6 : HELP_COLUMN; }

/* Returns the value that a preset gives to the option, or NULL. If it sets it twice, the last value holds. */
static const char *preset_value(const Program *p, const Preset *s, const Option *o) {
    const char *value = NULL;
    for (const char *const *v = s->set; v && v[0] && v[1]; v += 2)
        if (find_option(p, v[0], strlen(v[0])) == (int)(o - p->option)) value = v[1];
    return value;
}

/* Writes the values that an option has if it is not given: "default 157", or for each preset its own. */
static void default_values(const Program *p, const Option *o, char *out, size_t cap) {
    const char *usual = o->fallback;
    size_t used = 0;
    int differ = 0, unset = !p->presets;
    out[0] = 0;
    for (int i = 0; i < p->presets; i++) {
        const char *value = preset_value(p, &p->preset[i], o);
        if (!value) unset = 1;
        else if (!usual || strcmp(value, usual)) differ = 1;
    }
    if (usual && (unset || !differ)) used += (size_t)snprintf(out, cap, "default %.60s", usual);
    for (int i = 0; differ && i < p->presets && used < cap; i++) {
        const char *value = preset_value(p, &p->preset[i], o);
        if (value) used += (size_t)snprintf(out + used, cap - used, "%s%s %.60s", used ? ", " : "",
                                            p->preset[i].name, value);
    }
}

/* Prints the end of an option's help, "(1 to 1000; default 60)". A limit of 100,000 or more is not
 * printed. */
static void help_values(const Program *p, const Option *o, int column) {
    char text[800], limits[80] = "", usual[320];
    const char *values = o->type == OPT_CHOICE ? o->choices : limits;
    const int width = help_width(), indent = help_column();
    if ((o->type == OPT_INT || o->type == OPT_REAL) && o->min != o->max) {
        if (o->max < 1e5) snprintf(limits, sizeof limits, "%.15g to %.15g", o->min, o->max);
        else if (o->min != 0) snprintf(limits, sizeof limits, "at least %.15g", o->min);
    }
    default_values(p, o, usual, sizeof usual);
    if (!values[0] && !usual[0]) return;
    snprintf(text, sizeof text, "(%.390s%s%s)", values, values[0] && usual[0] ? "; " : "", usual);
    if (column > indent && column + 1 + (int)strlen(text) > width && indent + (int)strlen(text) <= width) {
        printf("\n%*s", indent, "");
        column = indent;
    }
    print_wrapped(text, column, indent, width);
}

static void help_option(const Program *p, const Option *o) {
    static const char *const kind[] = { "", " N", " N", " X", " TEXT", " NAME" };
    char name[NAME_MAX_LENGTH + 3];
    const char *at = NULL;
    size_t n;
    const int indent = help_column();
    int column = 0;
    for (int k = 0; (n = choice_at(o->name, k, &at)) > 0; k++)
        column += printf("%s%s", k ? ", " : "  ", dashed(name, at, n));
    column += printf("%s", kind[o->type]);
    if (column > indent - 2) { putchar('\n'); column = 0; }
    printf("%*s", indent - column, "");
    help_values(p, o, print_wrapped(o->help ? o->help : "", indent, indent, help_width()));
    putchar('\n');
}

/* Prints a name and its explanation, which begins at column `indent`, if need be on a line of its own. */
static void help_row(const char *name, const char *help, int indent) {
    int column = printf("  %s", name);
    if (column > indent - 2) { putchar('\n'); column = 0; }
    printf("%*s", indent - column, "");
    print_wrapped(help, indent, indent, help_width());
    putchar('\n');
}

static void print_help(const Program *p) {
    int column = printf("usage: ./%s", p->program);
    print_wrapped(p->usage ? p->usage : "", column, 8, help_width());
    printf("\n\n");
    if (p->about) { print_wrapped(p->about, 0, 0, help_width()); printf("\n\n"); }
    for (int i = 0; i < p->commands; i++) help_row(p->command[i].name, p->command[i].help, 13);
    printf(p->commands ? "\noptions:\n" : "options:\n");
    for (int i = 0; i < p->options; i++) help_option(p, &p->option[i]);
    if (p->presets)
        help_row("--preset NAME", "named values of options, see below; options that are given win",
                 help_column());
    if (p->options)
        help_row("--config FILE", "options from a file, lines 'name: value' (data: the dataset; # begins a "
                 "comment), or those of a run, from its log.jsonl; options that are given win",
                 help_column());
    if (p->options)
        help_row("--show-options", "print the value that each option has here, and from where, and stop",
                 help_column());
    help_row("--version", "print the version, the compiler and the kernel, and stop", help_column());
    help_row("--help, -h", "this text", help_column());
    if (p->presets) printf("\npresets:\n");
    for (int i = 0; i < p->presets; i++) help_row(p->preset[i].name, p->preset[i].help, 16);
    exit(0);
}

/* ---- version ---- */

#define TEXT_OF_(x) #x
#define TEXT_OF(x) TEXT_OF_(x)
#if defined(__clang__)
#define COMPILER "clang " __clang_version__
#elif defined(__TINYC__)
#define COMPILER "tcc " TEXT_OF(__TINYC__)
#elif defined(__GNUC__)
#define COMPILER "gcc " __VERSION__
#else
#define COMPILER "an unknown compiler"
#endif

/* The command that compiled this file; the Makefile gives it. */
#ifndef BUILD_FLAGS
#define BUILD_FLAGS "unknown"
#endif

static void print_version(const Program *p) {
    char also[200] = "";
    printf("%s of rlhf.c " RLHF_VERSION "\n", p->program);
    printf("compiler: " COMPILER "\n");
    say("flags:    " BUILD_FLAGS);
    for (int i = 0; fast_name(i); i++)
        if (strcmp(fast_name(i), fast_chosen()) && fast_here(i) && strlen(also) + 40 < sizeof also)
            strcat(strcat(also, " "), fast_name(i));
    say("kernel:   %s; here are also:%s (RLHF_ISA=NAME)", fast_chosen(), also);
    printf("threads:  %d", threads_max());
#ifdef _OPENMP
    printf(" (OpenMP)");
#else
    printf(" (built without OpenMP)");
#endif
    printf("\nbuild:   "
#ifdef FAST
           " FAST=1"
#else
           " FAST=0"
#endif
#ifdef PLAIN
           " PLAIN=1"
#endif
           "\n");
    exit(0);
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
    usage_error(known, name);
    return NULL;
}

/* Does what an option that every program has asks for. Returns 0 if this is none of them. */
static int standard_option(const Program *p, const char *a) {
    if (!strcmp(a, "--help") || !strcmp(a, "-h")) print_help(p);
    if (!strcmp(a, "--version")) print_version(p);
    if (strcmp(a, "--show-options")) return 0;
    cli.show = 1;
    return 1;
}

/* Returns 1 if "a|b|c" has the option's own name. */
static int in_names(const char *names, const Option *o) {
    const char *at = NULL;
    size_t n;
    for (int k = 0; names && (n = choice_at(names, k, &at)) > 0; k++)
        if (same_name(at, n, o->name, strcspn(o->name, "|"))) return 1;
    return 0;
}

/* Options of one start of a program: they are not in the log, nor in the state. */
static const char of_this_start[] = "resume|max-minutes|dry-run";

/* Sets an option of a run that goes on. Returns 1 if that changes the value; ends the program if it may
 * not. */
static int set_again(const Program *p, const Option *o, const char *text) {
    char message[160], hint[200], name[NAME_MAX_LENGTH + 3], number[40], value[100];
    size_t n;
    const char *old = value_text(o, number, &n);
    const uint64_t before = hash_bytes(old ? old : "", n, 0);
    snprintf(value, sizeof value, "%.*s", old ? (int)(n < 99 ? n : 99) : 6, old ? old : "(none)");
    set_option(o, text);
    const char *now = value_text(o, number, &n);
    if (hash_bytes(now ? now : "", n, 0) == before) return 0;
    if (in_names(p->may_change, o)) return 1;
    snprintf(message, sizeof message, "a run that goes on cannot change %s", own_name(name, o));
    snprintf(hint, sizeof hint, "leave %s out: the run has %s", name, value);
    usage_hint(message, text, hint);
    return 1;
}

/* Reads the arguments once, and sets the values. Returns the number of positional arguments. Called before
 * the preset is known, and again after the preset has set its values: so an option wins even over a --preset
 * that follows it. */
static int walk(const Program *p, int argc, char **argv, const char **positional, int max_positional) {
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
        if (standard_option(p, a)) continue;
        row = a[1] == '-' || n == 1 ? find_option(p, name, n) : -1;     /* one dash: one letter */
        preset = p->presets && a[1] == '-' && n == 6 && !strncmp(name, "preset", 6);
        const int config = row < 0 && a[1] == '-' && n == 6 && !strncmp(name, "config", 6);
        if (row < 0 && !preset && !config) unknown_option(p, a);
        if (name[n] == '=') value = name + n + 1;
        else if (!preset && !config && p->option[row].type == OPT_FLAG) value = "1";
        else if (i + 1 < argc && strncmp(argv[i + 1], "--", 2)) value = argv[++i];
        else usage_error("a value is missing after", a);
        if (preset) { cli.preset = value; cli.why = "asked for by --preset"; }
        else if (config) cli.config = value;
        else {
            if (!cli.resumes) set_option(&p->option[row], value);
            if (!cli.resumes || set_again(p, &p->option[row], value)) cli.from[row] = FROM_COMMAND_LINE;
            cli.typed[row] = 1;
        }
    }
    return positionals;
}

/* Ends the program with wrong usage because of a line of the file of --config. */
static void bad_config(const ConfigLine *line, const char *what) {
    char message[300];
    if (line->line) snprintf(message, sizeof message, "line %d of %.200s: %s", line->line, cli.config, what);
    else snprintf(message, sizeof message, "%.200s: %s", cli.config, what);
    usage_error(message, line->name);
}

/* Ends the program if an earlier line of the file has the same option, by any of its names. row: that of the
 * option; after the last rows come preset and data. line: for each row 0, the line that has it, or -1: a
 * log has it. */
static void check_twice(const ConfigLine *one, int row, int *line) {
    char what[80];
    if (!line[row]) { line[row] = one->line ? one->line : -1; return; }
    if (line[row] > 0) snprintf(what, sizeof what, "line %d has this option already", line[row]);
    bad_config(one, line[row] > 0 ? what : "this option is there twice");
}

/* Sets what the file of --config says. A preset is only remembered, unless the command line has named one. */
static void set_from_file(const Program *p) {
    static Pool kept;                       /* holds the texts of the options */
    int seen[OPTIONS_MAX + 2] = { 0 };
    ConfigFile file;
    Error err = { 0 };
    kept = cli_pool();
    must(config_file_read(&file, cli.config, &kept, &err), &err,
         "lines 'name: value' with the names that --help has, or a run's log.jsonl");
    if (file.program && strcmp(file.program, p->program)) {
        fail(&err, E_ARGUMENT, "this is the log of another program", cli.config, 0, 0);
        die(&err, "a log of this program");
    }
    for (int i = 0; i < file.count; i++) {
        const ConfigLine *line = &file.list[i];
        const int row = find_option(p, line->name, strlen(line->name));
        const int preset = row < 0 && p->presets && !strcmp(line->name, "preset");
        const int data = row < 0 && !strcmp(line->name, "data");
        if (row < 0 && !preset && !data) bad_config(line, "unknown option");
        check_twice(line, row >= 0 ? row : p->options + data, seen);
        if (row >= 0) {
            set_option(&p->option[row], line->value);
            cli.from[row] = FROM_FILE;
        } else if (data) cli.config_data = line->value;
        else if (!cli.preset) { cli.preset = line->value; cli.why = "asked for by --config"; }
    }
}

/* Sets all options: first those of the file, then those of the command line, which win. Returns the number of
 * positional arguments. */
static int set_given(const Program *p, int argc, char **argv, const char **positional, int max_positional) {
    if (cli.config) set_from_file(p);
    return walk(p, argc, argv, positional, max_positional);
}

static void set_preset(const Program *p, const Preset *s) {
    for (const char *const *v = s->set; v && v[0] && v[1]; v += 2) {
        int row = find_option(p, v[0], strlen(v[0]));
        if (row < 0) usage_error("a preset names an unknown option", v[0]);
        set_option(&p->option[row], v[1]);
        cli.from[row] = FROM_PRESET;
    }
}

/* ---- a run that goes on: its options are in its state ---- */

typedef struct { const char *program, *data, *options, *kernel; } Beginning;

/* Appends the preset and each option as NAME=xVALUE and a NUL, x being a digit that says who set it. */
static void options_text(const Program *p, Buffer *b) {
    buffer_text(b, "preset=0");
    buffer_text(b, cli.preset ? cli.preset : "");
    buffer_u8(b, 0);
    for (int i = 0; i < p->options; i++) {
        const Option *o = &p->option[i];
        char number[40];
        size_t n;
        const char *text = value_text(o, number, &n);
        if (!text || in_names(of_this_start, o)) continue;
        buffer_bytes(b, o->name, strcspn(o->name, "|"));
        buffer_u8(b, '=');
        buffer_u8(b, (unsigned)('0' + cli.from[i]));
        buffer_bytes(b, text, n);
        buffer_u8(b, 0);
    }
}

/* Visits the fields; a text ends with a NUL that is not part of it. */
static void visit_beginning(void *run, State *s) {
    Beginning *b = run;
    const char **const text[] = { &b->program, &b->data, &b->kernel };
    static const char *const name[] = { "program", "data", "kernel" };
    for (int i = 0; i < 3; i++) {
        size_t n = *text[i] ? strlen(*text[i]) : 0;
        state_text(s, name[i], text[i], &n);
    }
    Buffer options = { 0 };
    options.pool = s->pool;
    if (!s->file) options_text(cli.program, &options);
    b->options = (const char *)options.data;
    state_text(s, "options", &b->options, &options.length);
    if (s->code == OK && s->file && (!options.length || b->options[options.length - 1]))
        s->code = fail(s->err, E_FORMAT, "the state's options have no end", s->path, 0, 0);
}

void cli_state(State *s) {
    Beginning b = { cli.program->program, cli.data, NULL, fast_chosen() };
    const int reads = s->file != NULL;
    visit_beginning(&b, s);
    if (reads && s->code == OK && strcmp(b.kernel, fast_chosen()))
        say("the run began with the kernel %s, and goes on with %s: last digits may differ (RLHF_ISA=%s)",
            b.kernel, fast_chosen(), b.kernel);
}

/* Sets the options to the values of a state, each NAME=xVALUE and a NUL. Options that it lacks keep their
 * fallbacks. */
static void take_options(const Program *p, const char *at) {
    Error err = { 0 };
    memset(cli.from, FROM_DEFAULT, sizeof cli.from);
    for (int i = 0; i < p->options; i++) set_fallback(&p->option[i]);
    for (; *at; at += strlen(at) + 1) {
        const size_t n = strcspn(at, "=");
        const int row = find_option(p, at, n), preset = n == 6 && !strncmp(at, "preset", n);
        if (!at[n] || !at[n + 1] || (row < 0 && !preset)) {
            fail(&err, E_UNSUPPORTED, "the state has an option that this version does not support", at, 0, 0);
            die(&err, "the version of rlhf.c that began the run");
        }
        if (preset) {
            cli.preset = at[n + 2] ? at + n + 2 : NULL;
            cli.why = "the preset of the run that goes on";
            continue;
        }
        set_option(&p->option[row], at + n + 2);
        cli.from[row] = (unsigned char)(at[n + 1] >= '0' && at[n + 1] <= '3' ? at[n + 1] - '0' : 0);
    }
}

/* Returns the folder of --resume, or NULL. */
static const char **resumed_folder(const Program *p) {
    const int row = p->may_change ? find_option(p, "resume", 6) : -1;
    return row < 0 ? NULL : (const char **)p->option[row].value;
}

/* Reads the options of the run in the folder of --resume, then the command line again. Returns the number of
 * positional arguments: 1, the data. */
static int resume_options(const Program *p, int argc, char **argv, const char **positional,
                          int max_positional) {
    static Pool kept;                       /* holds the texts of the options */
    Beginning b = { NULL, NULL, NULL, NULL };
    Error err = { 0 };
    char path[600], hint[700];
    const char *folder = *resumed_folder(p);
    kept = cli_pool();
    snprintf(path, sizeof path, "%.500s/state", folder);
    if (!file_exists(path)) {
        fail(&err, E_MISSING, "no run that can go on is in this folder: there is no state", folder, 0, 0);
        die(&err, "the folder of a run that was stopped and saved; a finished run of sft or rm has no state");
    }
    const int code = state_peek(path, visit_beginning, &b, &kept, &err);
    must(code, &err, code == E_UNSUPPORTED ? "the version of the programs that began the run, or start it anew"
                                           : "start the run anew: its state is damaged");
    if (strcmp(b.program, p->program)) {
        fail(&err, E_ARGUMENT, "this is a run of another program", folder, 0, 0);
        snprintf(hint, sizeof hint, "./%.20s --resume %s", b.program, folder);
        die(&err, hint);
    }
    take_options(p, b.options);
    cli.resumes = 1;
    const int found = walk(p, argc, argv, positional, max_positional);
    if (!found && !file_exists(b.data)) {
        fail(&err, E_MISSING, "the dataset of the run is not to be found from here", b.data, 0, 0);
        die(&err, "start it in the folder where the run began: its paths count from there");
    }
    if (!found) positional[0] = b.data;
    *resumed_folder(p) = folder;
    return 1;
}

/* ---- options that need others ---- */

/* Returns 1 if the option is on: a flag that is set, a number above 0, a text, a choice other than the
 * first. */
static int is_on(const Option *o) {
    if (o->type == OPT_TEXT) return *(const char **)o->value != NULL;
    if (o->type == OPT_REAL) return *(double *)o->value > 0;
    return o->type == OPT_SEED || *(int *)o->value > 0;
}

/* Returns the row of a name of n letters in the table of needs; if no option has it, the table is wrong. */
static int needed_row(const Program *p, const char *name, size_t n) {
    int row = find_option(p, name, n);
    if (row < 0) usage_error("the table of needs names an unknown option", name);
    return row;
}

/* Returns 1 if one of the options "nf4|fp4" is on, or with "!a|b" if all of them are off. */
static int is_met(const Program *p, const char *with) {
    const char *at = NULL;
    const int off = with[0] == '!';
    size_t n;
    for (int k = 0; (n = choice_at(with + off, k, &at)) > 0; k++)
        if (is_on(&p->option[needed_row(p, at, n)])) return !off;
    return off;
}

/* Ends the program with wrong usage: the option o was given and has no effect. */
static void no_effect(const Program *p, const Option *o, const Need *need) {
    char message[400], hint[2 * NAME_MAX_LENGTH + 40], name[NAME_MAX_LENGTH + 3], number[40];
    const char *at = NULL, *with = need->with + (need->with[0] == '!');
    const int off = need->with[0] == '!';
    size_t n, used;
    used = (size_t)snprintf(message, sizeof message, "no effect %s ", off ? "with" : "without");
    for (int k = 0; (n = choice_at(with, k, &at)) > 0; k++) {
        if (off && !is_on(&p->option[needed_row(p, at, n)])) continue;
        const Option *beside = &p->option[needed_row(p, at, n)];
        used += (size_t)snprintf(message + used, sizeof message - used, "%s%s", k && !off ? " or " : "",
                                 dashed(name, at, n));
        if (!off) continue;
        const char *value = value_text(beside, number, &n);
        if (beside->type == OPT_CHOICE)
            used += (size_t)snprintf(message + used, sizeof message - used, " %.*s", (int)n, value);
        break;
    }
    if (need->why) snprintf(message + used, sizeof message - used, " (%s)", need->why);
    snprintf(hint, sizeof hint, "leave %s out", own_name(name, o));
    usage_hint(message, own_name(name, o), hint);
}

/* Refuses each option that was given and has no effect. An option that was turned off (0, no) passes. */
static void check_needs(const Program *p) {
    const char *at = NULL;
    size_t n;
    for (const Need *need = p->need; need && need->options; need++)
        for (int k = 0; (n = choice_at(need->options, k, &at)) > 0; k++) {
            const int row = needed_row(p, at, n);
            const Option *o = &p->option[row];
            const int off = (o->type == OPT_FLAG || o->type == OPT_INT || o->type == OPT_REAL) && !is_on(o);
            if (cli.from[row] >= FROM_COMMAND_LINE && !off && !is_met(p, need->with)) no_effect(p, o, need);
        }
}

/* ---- the values in force ---- */

/* Prints each option with its value and from where it is, and ends the program. before: hashes of the values
 * before p->check saw them. */
static void show_options(const Program *p, const uint64_t *before) {
    static const char *const from[] = { "default", "preset", "command line", "--config" };
    char name[NAME_MAX_LENGTH + 3], number[40];
    const int width = help_width(), narrow = width < HELP_NARROW, room = narrow ? width - 16 : 52;
    if (p->presets) cli_say_preset();
    for (int i = 0; i < p->options; i++) {
        size_t n;
        const char *text = value_text(&p->option[i], number, &n);
        int column = printf("  %-*s ", narrow ? 0 : 31, own_name(name, &p->option[i]));
        column += printf("%.*s", text ? (int)n : 6, text ? text : "(none)");
        if (column > room) { putchar('\n'); column = 0; }
        printf("%*s  %s\n", room - column, "",
               hash_bytes(text ? text : "", n, 0) != before[i] ? "other options" : from[cli.from[i]]);
    }
    exit(0);
}

/* Fills hash with a hash of each option's value. */
static void hash_values(const Program *p, uint64_t *hash) {
    char number[40];
    for (int i = 0; i < p->options; i++) {
        size_t n;
        const char *text = value_text(&p->option[i], number, &n);
        hash[i] = hash_bytes(text ? text : "", n, 0);
    }
}

/* ---- threads ---- */

#if defined(_OPENMP) && defined(OPTIONS_POSIX)
/* Returns 1 if all threads can be started. A second process tries, because OpenMP ends a process that
 * cannot start a thread. */
static int threads_start(void) {
    int status = 1;
    fflush(NULL);
    const pid_t child = fork();
    if (child < 0) return 0;
    if (!child) {
        if (!freopen("/dev/null", "w", stderr)) _exit(1);
        threads_for(1e9);
        _exit(0);
    }
    return waitpid(child, &status, 0) == child && status == 0;
}

/* Starts all threads now, before large memory is taken that would leave no room for theirs; fewer if the
 * limits of this process (ulimit -v, ulimit -u, a container's) forbid some. */
static void check_threads(void) {
    const int all = threads_max();
    int threads = all;
    while (threads > 1 && !threads_start()) threads_limit(threads /= 2);
    threads_for(1e9);
    if (threads == all) return;
    say_error("%s: only %d of %d threads can be started: slower", program_name(), threads, all);
    say_error("  try: higher limits (ulimit -u, ulimit -v)");
}
#else
static void check_threads(void) { }
#endif

/* ---- what the programs call ---- */

int cli_parse(const Program *p, int argc, char **argv, const char **positional, int max_positional) {
    const char *kernel = getenv("RLHF_ISA");
    uint64_t before[OPTIONS_MAX];
    int found;
    cli_begin(p);
    cli.program = p;
    cli.preset = cli.why = cli.config = cli.config_data = NULL;
    cli.show = cli.resumes = 0;
    memset(cli.from, FROM_DEFAULT, sizeof cli.from);
    memset(cli.typed, 0, sizeof cli.typed);
    if (fast_use(kernel) != OK)
        usage_error("RLHF_ISA names a kernel that this processor or this build does not have "
                    "(plain is always there)", kernel);
    if (p->options > OPTIONS_MAX) usage_error("this program has too many options", NULL);
    for (int i = 0; i < p->options; i++) set_fallback(&p->option[i]);
    found = walk(p, argc, argv, positional, max_positional);
    if (cli.config) found = set_given(p, argc, argv, positional, max_positional);
    if (resumed_folder(p) && *resumed_folder(p) && cli.config)
        usage_hint("a run that goes on has its options already", "--config", "leave --config out");
    if (resumed_folder(p) && *resumed_folder(p))
        found = resume_options(p, argc, argv, positional, max_positional);
    else if (!cli.preset && p->usual) cli.preset = p->usual(&cli.why);
    if (cli.preset && !cli.resumes) {
        set_preset(p, find_preset(p, cli.preset));
        set_given(p, argc, argv, positional, max_positional);
    }
    if (!found && cli.config_data && max_positional) { positional[0] = cli.config_data; found = 1; }
    hash_values(p, before);
    if (p->check) p->check(p);
    check_needs(p);
    if (cli.show) show_options(p, before);
    if (found) cli.data = positional[0];
    check_threads();
    return found;
}

int cli_given(const Program *p, const char *option) {
    int row = find_option(p, option, strlen(option));
    return row >= 0 && p == cli.program && cli.from[row] >= FROM_COMMAND_LINE;
}

int cli_typed_option(const Program *p, const char *option) {
    const int row = find_option(p, option, strlen(option));
    return row >= 0 && p == cli.program && cli.typed[row];
}

void cli_say_preset(void) { say("preset %s: %s", cli.preset, cli.why); }

int cli_command(const char *program, const char *about, const Command *command, int commands, int argc,
                char **argv) {
    char message[160] = "no such command", names[320] = "";
    const char *typed = argc > 1 ? argv[1] : "", *best = NULL, *none[1];
    int least = INT_MAX;
    for (int k = 0; k < commands; k++) {
        const size_t n = strlen(names);
        if (!strcmp(typed, command[k].name)) return command[k].run(argc - 1, argv + 1);
        snprintf(names + n, sizeof names - n, "%s%s", k ? "|" : "", command[k].name);
    }
    const Program p = { .program = program, .usage = "COMMAND ... (each command has its own --help)",
                        .about = about, .command = command, .commands = commands };
    if (typed[0] == '-') cli_parse(&p, argc, argv, none, 0);
    cli_begin(&p);
    if (argc < 2 || typed[0] == '-') usage_error("which command", names);
    const size_t m = closest(names, typed, strlen(typed), &least, &best);
    if (m) snprintf(message, sizeof message, "no such command (did you mean %.*s?)", (int)m, best);
    usage_error(message, typed);
    return 2;
}

void cli_options_json(const Program *p, Buffer *b) {
    buffer_text(b, "{");
    if (p->presets) {
        buffer_text(b, "\"preset\":");
        if (cli.preset) buffer_json_string(b, cli.preset, strlen(cli.preset));
        else buffer_text(b, "null");
    }
    for (int i = 0, written = p->presets > 0; i < p->options; i++) {
        const Option *o = &p->option[i];
        char number[40];
        size_t n;
        const char *text = value_text(o, number, &n);
        if (in_names(of_this_start, o)) continue;
        if (written++) buffer_text(b, ",");
        buffer_json_string(b, o->name, strcspn(o->name, "|"));
        buffer_text(b, ":");
        if (!text) buffer_text(b, "null");
        else if (o->type == OPT_FLAG) buffer_text(b, *(int *)o->value ? "true" : "false");
        else if (o->type == OPT_TEXT || o->type == OPT_CHOICE) buffer_json_string(b, text, n);
        else buffer_text(b, text);
    }
    buffer_text(b, "}");
}

/* Appends "name": "value" to a JSON object that has so many fields. */
static void put_value(Buffer *b, int *fields, const char *name, size_t length, const char *text, size_t n) {
    buffer_text(b, (*fields)++ ? ", " : "");
    buffer_json_string(b, name, length);
    buffer_text(b, ": ");
    buffer_json_string(b, text, n);
}

void cli_values(const Program *p, const char *without, Buffer *b) {
    int fields = 0;
    buffer_text(b, "{");
    for (int i = 0; i < p->options; i++) {
        char number[40], name[NAME_MAX_LENGTH + 3];
        size_t n;
        const char *text = value_text(&p->option[i], number, &n);
        if (!text || in_names(without, &p->option[i])) continue;
        own_name(name, &p->option[i]);
        put_value(b, &fields, name, strlen(name), text, n);
    }
    buffer_text(b, "}");
}

/* Appends {"name": "value", ...}: the preset, and the options that were given, from which --config makes the
 * same run again. */
static void given_json(const Program *p, Buffer *b) {
    int fields = 0;
    buffer_text(b, "{");
    for (int i = p->presets && cli.preset ? -1 : 0; i < p->options; i++) {
        const Option *o = i < 0 ? NULL : &p->option[i];
        char number[40];
        size_t n = o ? 0 : strlen(cli.preset);
        const char *text = o ? value_text(o, number, &n) : cli.preset;
        if (o && (cli.from[i] < FROM_COMMAND_LINE || in_names(of_this_start, o) || !text)) continue;
        put_value(b, &fields, o ? o->name : "preset", o ? strcspn(o->name, "|") : 6, text, n);
    }
    buffer_text(b, "}");
}

/* Returns the first line of a log. */
static Buffer first_line(const Program *p, const char *data, uint64_t hash, Pool *pool) {
    char digits[24];
    Buffer b = { 0 };
    b.pool = pool;
    snprintf(digits, sizeof digits, "%08lx%08lx", (unsigned long)(hash >> 32),
             (unsigned long)(hash & 0xFFFFFFFFu));
    buffer_text(&b, "{\"program\": ");
    buffer_json_string(&b, p->program, strlen(p->program));
    buffer_text(&b, ", \"version\": \"" RLHF_VERSION "\", \"data\": ");
    buffer_json_string(&b, data, strlen(data));
    buffer_text(&b, ", \"data_hash\": \"");
    buffer_text(&b, digits);
    buffer_text(&b, "\", \"options\": ");
    cli_options_json(p, &b);
    buffer_text(&b, ", \"given\": ");
    given_json(p, &b);
    buffer_text(&b, "}\n");
    return b;
}

int log_resume(const char *path, uint64_t length, const Program *p, const char *data, uint64_t hash,
               Pool *pool, Error *err) {
    const PoolMark mark = pool_mark(pool);
    char *old = NULL;
    size_t n = 0, from = 0;
    int code = file_exists(path) ? file_read_all(path, pool, &old, &n, err) : OK;
    while (from < n && old[from] != '\n') from++;
    if (from < n) from++;
    const int shorter = n - from < length;
    if (!shorter) n = from + (size_t)length;
    Buffer b = first_line(p, data, hash, pool);
    if (n > from) buffer_bytes(&b, old + from, n - from);
    if (code == OK && b.failed) code = fail(err, E_MEMORY, "no memory for the log", path, 0, 0);
    if (code == OK) code = file_write_all(path, b.data, b.length, pool, err);
    pool_release(pool, mark);
    if (code == OK && shorter)
        code = fail(err, E_TRUNCATED, "the log has lost lines since the run was saved", path, 0, 0);
    return code;
}

void log_options(const char *path, const Program *p, const char *data, uint64_t hash, Pool *pool) {
    Error err = { 0 };
    PoolMark mark = pool_mark(pool);
    Buffer b = first_line(p, data, hash, pool);
    if (b.failed) must(fail(&err, E_MEMORY, "no memory for the options", path, 0, 0), &err, NULL);
    must(file_write_all(path, b.data, b.length, pool, &err), &err, NULL);
    pool_release(pool, mark);
}

void log_machine(const char *path, const Program *p, Pool *pool) {
    static const char flags[] = BUILD_FLAGS;
    Error err = { 0 };
    const PoolMark mark = pool_mark(pool);
    const time_t now = time(NULL);
    const struct tm *utc = gmtime(&now);
    char started[32] = "";
    Log l;
    if (utc) strftime(started, sizeof started, "%Y-%m-%dT%H:%M:%SZ", utc);
    must(file_write_all(path, "", 0, pool, &err), &err, NULL);
    log_begin(&l, path, pool);
    log_text(&l, "program", p->program, strlen(p->program));
    log_text(&l, "compiler", COMPILER, strlen(COMPILER));
    log_text(&l, "flags", flags, sizeof flags - 1);
    log_text(&l, "kernel", fast_chosen(), strlen(fast_chosen()));
    log_integer(&l, "threads", threads_max());
    log_text(&l, "started", started, strlen(started));
    must(log_end(&l, &err), &err, NULL);
    pool_release(pool, mark);
}
