/* tests/unit/cli.c - options, messages, lines that fit, progress, logs. Functions that exit are tested from
 * outside: this program runs itself as a toy (`cli toy ...`), and reads its output and its exit code. */
#include "test.h"
#include "../programs.h"
#include <signal.h>

enum { TEXT_MAX = 16384 };
static const char *self;                    /* argv[0] */
static char said[TEXT_MAX];                 /* the toy's output and errors, and then "exit N" */

/* ---- the toy: one option of each type, two presets ---- */
static struct { int flag, steps, n, kind; uint64_t seed; double rate; const char *out, *none; } toy;
static Option toy_option[] = {
    { "loud", OPT_FLAG, &toy.flag, NULL, 0, 0, NULL, "say more" },
    { "steps", OPT_INT, &toy.steps, "60", 1, 1000, NULL, "steps of training" },
    { "n", OPT_INT, &toy.n, "1", -5, 5, NULL, "the short one" },
    { "kl-penalty", OPT_CHOICE, &toy.kind, "kl", 0, 0, "kl|abs|mse",
      "which estimate of the divergence is paid for, a help text that is so long "
      "that it has to be broken into two lines at least" },
    { "seed", OPT_SEED, &toy.seed, "1", 0, 0, NULL, "random seed" },
    { "learning-rate|lr", OPT_REAL, &toy.rate, "1e-3", -1, 1, NULL, "AdamW's" },
    { "out", OPT_TEXT, &toy.out, "runs", 0, 1, NULL, "folder" },
    { "none", OPT_TEXT, &toy.none, NULL, 0, 0, NULL, "no fallback" },
};
static const char *const small_set[] = { "steps", "7", "loud", "1", NULL };
static const char *const large_set[] = { "steps", "900", "kl-penalty", "mse", NULL };
static const Preset toy_preset[] = { { "small", "for a look", small_set },
                                     { "large", "for a night", large_set } };
static const Need toy_need[] = {
    { "steps|seed|none", "loud|kl-penalty", NULL }, { "learning-rate", "!kl-penalty|none", "why not" },
    { NULL, NULL, NULL } };
static const char *toy_usual(const char **why) {
    *why = toy.n == 3 ? "n is 3" : "n is not 3";
    return toy.n == 3 ? "large" : "small";
}
static void toy_check(const Program *p) {
    (void)p;
    if (toy.n == 2) toy.rate = 0.5;
    if (toy.n == -4) usage_error("not with -4", "-n");
}
static const Program toy_program = {
    .program = "toy", .usage = "DATA [options]", .about = "A toy that tests cli.c.", OPTIONS(toy_option),
    PRESETS(toy_preset), .need = toy_need, .usual = toy_usual, .check = toy_check };

static int toy_main(int argc, char **argv) {
    const char *positional[2];
    Pool pool = cli_pool();
    Buffer b;
    int n = cli_parse(&toy_program, argc, argv, positional, 2);
    if (toy.n == 4) out_check(toy.out, 0, &toy.none, 1);
    memset(&b, 0, sizeof b);
    b.pool = &pool;
    cli_options_json(&toy_program, &b);
    printf("%.*s given=%d", (int)b.length, (char *)b.data,
           cli_given(&toy_program, "steps") + 2 * cli_given(&toy_program, "n"));
    for (int i = 0; i < n; i++) printf(" [%s]", positional[i]);
    printf("\n");
    pool_free(&pool);
    return 0;
}

/* Other ways to end a program. */
static int act(const char *what) {
    Error e;
    memset(&e, 0, sizeof e);
    if (!strcmp(what, "die")) {
        fail(&e, E_SHAPE, "wrong shape", "model.norm.weight", 3, 5);
        die(&e, "another file");
    } else if (!strcmp(what, "unsupported")) {
        fail(&e, E_UNSUPPORTED, "rope_scaling type 'yarn'", "config.json", 0, 0);
        die(&e, "");
    } else if (!strcmp(what, "must")) {
        must(OK, &e, "nothing");
        must(E_OPEN, NULL, NULL);
    } else if (!strcmp(what, "nan")) {
        die_not_a_number("the loss", 8, 7, "runs/x", "a smaller --lr");
    } else if (!strcmp(what, "nan-early")) {
        die_not_a_number("the loss", 1, 0, "runs/x", "a smaller --lr");
    } else if (!strcmp(what, "diverged")) {
        static RunFolder f;
        Health h;
        memset(&h, 0, sizeof h);
        h.start = 1.5;
        h.blind = 7.6;
        f.saved = 3;
        strcpy(f.where, "runs/x");
        health_of_held_out(&h, 20);
        health_warn(&h, 4, "a smaller --lr");
        health_warn(&h, 5, "a smaller --lr");
        health_end(&h, &f, "another way");
    } else if (!strcmp(what, "memory")) cli_arena(SIZE_MAX / 2, "weights");
    else if (!strcmp(what, "full")) {
        if (!freopen("/dev/full", "w", stdout)) return 0;
        cli_begin(&toy_program);
        printf("lost\n");
    } else if (!strcmp(what, "interrupt")) {
        cli_interrupts();
        printf("before %d\n", cli_stopping());
        fflush(stdout);
        raise(SIGINT);
        printf("after %d\n", cli_stopping());
        fflush(stdout);
        raise(SIGINT);
        printf("still here\n");
    } else if (!strcmp(what, "bill")) {
        Bill b = { { NULL }, { 0 }, 0, 0 };
        bill_add(&b, "policy", 1234567);
        bill_add(&b, "cache", 999);
        bill_add(&b, "rows", 1000000);
        bill_print(&b);
    } else if (!strcmp(what, "wrap")) {
        print_wrapped("1 text and  22 others", 0, 2, 14);
        printf("\n");
        print_wrapped("one of (aaa|bb|ccccc|dd|eee; now aaa)", 0, 2, 14);
        printf("\n");
        print_wrapped("a/word/of/its/own|or two", 0, 2, 14);
        printf("\n");
    } else if (!strcmp(what, "progress")) {
        for (int i = 0; i <= 1000; i++) progress("reward 1.5", i, 1000, i == 1000);
    }
    return 0;
}

/* ---- from outside ---- */

/* Runs this program again with a shell's arguments and reads all its output into `said`. Returns its exit
 * code. */
static int call_with(const char *before, const char *arguments) {
    static char command[4096];
    FILE *f;
    size_t n = 0;
    const char *code;
    snprintf(command, sizeof command, "%s %s %s > build/cli.out 2>&1; echo exit $? >> build/cli.out", before,
             self, arguments);
    if (system(command) != 0) { said[0] = 0; return -1; }
    f = fopen("build/cli.out", "rb");
    if (f) { n = fread(said, 1, TEXT_MAX - 1, f); fclose(f); }
    said[n] = 0;
    code = strstr(said, "exit ");
    for (const char *next = code; next; next = strstr(next + 1, "exit ")) code = next;
    return code ? atoi(code + 5) : -1;
}
static int call(const char *arguments) { return call_with("COLUMNS=80", arguments); }
static int has(const char *text) { return strstr(said, text) != NULL; }

static void test_values(void) {
    CHECK(call("toy data.bin") == 0, "a plain call is right: %s", said);
    CHECK(has("{\"preset\":\"small\",\"loud\":true,\"steps\":7,\"n\":1,\"kl-penalty\":\"kl\",\"seed\":1,"
              "\"learning-rate\":0.001,\"out\":\"runs\",\"none\":null} given=0 [data.bin]"),
          "fallback, then preset: %s", said);
    CHECK(call("toy --steps 8 --preset large a --loud") == 0
          && has("\"preset\":\"large\",\"loud\":true,\"steps\":8,") && has("mse") && has("given=1 [a]"),
          "the command line wins over a preset that comes after it: %s", said);
    CHECK(call("toy --loud=no --learning-rate=-0.25 -n -3") == 0 && has("\"loud\":false") && has("-0.25")
          && has("\"n\":-3") && has("given=2"), "= form, negative values, -n: %s", said);
    CHECK(call("toy --out '' --none='a \"b\"' -- --steps -x") == 0 && has("\"out\":\"\"")
          && has("\"none\":\"a \\\"b\\\"\"") && has("[--steps] [-x]"),
          "-- ends the options; any text is a value: %s", said);
    CHECK(call("toy - --steps 3 --steps 4") == 0 && has("[-]") && has("\"steps\":4"),
          "- is an argument; the last of two wins: %s", said);
    CHECK(call("toy -n 4 --out build/new --none ./tests") == 0, "nothing to refuse: %s", said);
    CHECK(call("toy --seed=18446744073709551615") == 0 && has(":18446744073709551615,"), "large: %s",
          said);
    CHECK(call("toy --lr 0.5 a") == 0 && has("\"learning-rate\":0.5,") && has("[a]"),
          "another name of an option, and its own name in the log: %s", said);
    CHECK(call("toy --learning_rate=0.25") == 0 && has("\"learning-rate\":0.25,"), "_ is read as -: %s",
          said);
    CHECK(call("toy -n 3") == 0 && has("\"preset\":\"large\"") && has("\"steps\":900"),
          "the options choose the preset: %s", said);
    CHECK(call("toy -n 3 --preset small") == 0 && has("\"preset\":\"small\"") && has("\"steps\":7"),
          "--preset wins: %s", said);
    CHECK(call("toy -n 2") == 0 && has("\"learning-rate\":0.5,"), "p->check may change a value: %s", said);
    CHECK(call("toy --kl-penalty mse --loud=no --steps 3") == 0 && call("toy --loud=no --lr 0") == 0,
          "options that have an effect: %s", said);
    CHECK(call("toy --learning-rate 1e-05") == 0 && has("\"learning-rate\":1e-05,"), "short digits: %s",
          said);
}

static void test_refusals(void) {
    static const struct { const char *arguments, *message; } bad[] = {
        { "--step 3", "unknown option (did you mean --steps?): --step" },
        { "--learing-rate=3", "did you mean --learning-rate?" },
        { "--kl 3", "did you mean --kl-penalty?" },
        { "--presets small", "did you mean --preset?" },
        { "-steps 3", "did you mean --steps?): -steps" },
        { "-x", "unknown option" },
        { "--steps", "a value is missing after: --steps" },
        { "--steps --loud", "a value is missing after: --steps" },
        { "--steps 3x", "--steps needs a whole number: 3x" },
        { "--none ''", "--none needs a text that is not empty: (nothing)" },
        { "--steps ''", "--steps needs a whole number: (nothing)" },
        { "--steps ' 3'", "--steps needs a whole number:  3" },
        { "--steps 3.5", "--steps needs a whole number" },
        { "--steps 0", "--steps has to be from 1 to 1000: 0" },
        { "--steps 1001", "--steps has to be from 1 to 1000" },
        { "--steps 99999999999999999999", "--steps is too large a number" },
        { "--learning-rate nan", "--learning-rate needs a number" },
        { "--learning-rate inf", "--learning-rate needs a number" },
        { "--learning-rate 1e999", "--learning-rate needs a number" },
        { "--learning-rate 1,5", "--learning-rate needs a number: 1,5" },
        { "--seed -1", "--seed needs a whole number from 0" },
        { "--seed 18446744073709551616", "--seed needs a whole number from 0" },
        { "--kl-penalty k", "--kl-penalty has to be one of kl|abs|mse: k" },
        { "--loud=perhaps", "--loud has to be yes or no" },
        { "--preset medium", "--preset has to be one of small, large: medium" },
        { "a b c", "one argument too many: c" },
        { "-n 4 --out Makefile", "--out is a file, and has to be a folder or nothing yet: Makefile" },
        { "-n 4 --out ''", "--out needs the name of a folder: (nothing)" },
        { "--nonsense 3", "toy: unknown option: --nonsense" },
        { "--zzzzz", "toy: unknown option: --zzzzz" },
        { "--sted 3", "did you mean --seed?" },
        { "-n -4", "not with -4: -n" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char line[256];
        int code;
        snprintf(line, sizeof line, "toy %s", bad[i].arguments);
        code = call(line);
        CHECK(code == 2 && has(bad[i].message) && has("toy: ") && has("try: ./toy --help"),
              "%s: exit %d, %s", line, code, said);
    }
    CHECK(call("toy -n 4 --out build/../tests/ --none ./tests") == 2 &&
          has("--out would overwrite what is read: build/../tests/\n  try: another --out\n"), "%s", said);
}

/* An option that has no effect beside the others is refused, with advice that works. */
static void test_needs(void) {
    static const struct { const char *arguments, *message; } bad[] = {
        { "--loud=no --steps 3", "toy: no effect without --loud or --kl-penalty: --steps\n  try: leave "
                                 "--steps out\n" },
        { "--loud=no --seed 3", "without --loud or --kl-penalty: --seed\n" },
        { "--none x --lr 0.5", "toy: no effect with --none (why not): --learning-rate\n  try: leave "
                               "--learning-rate out\n" },
        { "--kl-penalty abs --lr 1", "toy: no effect with --kl-penalty abs (why not): --learning-rate\n" } };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char line[256];
        snprintf(line, sizeof line, "toy %s", bad[i].arguments);
        const int code = call(line);
        CHECK(code == 2 && has(bad[i].message), "%s: exit %d, %s", line, code, said);
    }
    CHECK(call("toy --loud=no --preset large") == 0 && call("toy --loud=no --steps=7 --kl-penalty abs") == 0,
          "a preset's values are not refused: %s", said);
}

static void test_standard_options(void) {
    CHECK(call("toy --version --nonsense") == 0 && has("toy of rlhf.c " RLHF_VERSION "\ncompiler: ")
          && has("\nkernel:   ") && has("\nthreads:  "), "--version: %s", said);
    CHECK(call("toy --show-options -n 2 --seed 9") == 0 && has("preset small: n is not 3\n")
          && has("  --loud                          yes                 preset\n")
          && has("  --seed                          9                   command line\n")
          && has("  --learning-rate                 0.5                 other options\n")
          && has("  --out                           runs                default\n")
          && has("  --none                          (none)              default\n"),
          "--show-options: each value and from where: %s", said);
    CHECK(call("toy --show-options --preset large") == 0
          && has("preset large: asked for by --preset\n") && has(" 900 "), "a preset's values: %s", said);
}

static void test_help(void) {
    size_t longest = 0, n = 0;
    CHECK(call("toy --help") == 0, "--help ends well");
    CHECK(has("usage: ./toy DATA [options]") && has("A toy that tests cli.c."), "usage and about: %s", said);
    CHECK(has("  --steps N               steps of training (1 to 1000; small 7, large 900)\n"),
          "limits, the presets' values, aligned: %s", said);
    CHECK(has("  -n N   ") && has("(kl|abs|mse; default kl, large mse)") && has("\n  --seed N ")
          && has("random seed (default 1)") && has("\n  small         for a look\n"),
          "the short option, choices, presets: %s", said);
    CHECK(has("  --learning-rate, --lr X\n"), "all names of an option: %s", said);
    for (int k = 0; k < 3; k++) {
        static const char *const columns[] = { "COLUMNS=80", "COLUMNS=40", "COLUMNS=200" };
        const int code = call_with(columns[k], "toy --help");
        longest = n = 0;
        for (const char *s = said; *s; s++) {
            n = *s == '\n' ? 0 : n + 1;
            if (n > longest) longest = n;
        }
        CHECK(code == 0 && longest <= (k == 0 ? 80 : k == 1 ? 40 : 100),
              "%s: the longest line has %d letters", columns[k], (int)longest);
    }
    CHECK(call("toy a --steps 4 -h") == 0 && has("usage: "), "-h after other arguments");
}

static void test_endings(void) {
    CHECK(call("act die") == 1 && has(": wrong shape: model.norm.weight (3 instead of 5)\n  try: another "
                                      "file\n"), "die: %s", said);
    CHECK(call("act unsupported") == 1 && has(": not supported: rope_scaling type 'yarn': config.json\n  "
                                              "try: use a file"), "unsupported: %s", said);
    CHECK(call("act must") == 1 && has(": cannot open\n  try: check"), "must without a record: %s", said);
    CHECK(call("act nan") == EXIT_DIVERGED &&
          has(": the loss in step 8; the weights saved are those after step 7: runs/x\n  try: a smaller"),
          "a loss that is no number: %s", said);
    CHECK(call("act nan-early") == EXIT_DIVERGED &&
          has(": the loss in step 1; no weights were written: runs/x\n"), "in the first step: %s", said);
    CHECK(call("act memory") == 1 && has("out of memory: 9.2 EB wanted: weights") && has("try: "),
          "out of memory: %s", said);
    CHECK(call("act bill") == 0 && has("policy ") && has(" 1.2 MB\n") && has("  999 B\n")
          && has("memory in total ") && has("  2.2 MB\n"), "the bill: %s", said);
    CHECK(!file_exists("/dev/full") || (call("act full") == 1
          && has("toy: cannot write: standard output: No space left on device\n  try: ")),
          "a full disk is noticed at the end: %s", said);
    CHECK(call("act wrap") == 0 && has("1 text and  22\n  others\n"), "lines of 14 columns: %s", said);
    CHECK(has("one of\n  (aaa|bb|\n  ccccc|dd|\n  eee; now\n  aaa)\n") && has("\na/word/of/its/own|\n  or two\n"),
          "a list that is wider than a line is broken after a |: %s", said);
    CHECK(call("act interrupt") > 128 && has("before 0") && has("after 1") && !has("still here"),
          "two interrupts: %s", said);
    {
        int lines = 0;
        CHECK(call("act progress") == 0 && has("0/1000  reward 1.5\n")
              && has("1000/1000  reward 1.5  in 0.1 s\n") && !has("\r"), "progress without a terminal: %s",
              said);
        for (const char *s = said; *s; s++) lines += *s == '\n';
        CHECK(lines >= 20 && lines <= 25, "a sensible number of lines: %d", lines);
    }
}

/* ---- from inside ---- */

static void test_words(void) {
    static const struct { size_t n; const char *noun, *text; } row[] = {
        { 1, "text", "1 text" }, { 0, "text", "0 texts" }, { 1234567, "token", "1,234,567 tokens" },
        { 1, "query", "1 query" }, { 2, "query", "2 queries" }, { 3, "day", "3 days" } };
    static const struct { int code; long long got, wanted; const char *text; } number[] = {
        { E_RANGE, 5009, 256, " (5009; at most 256)" }, { E_RANGE, -1, 0, " (-1; at least 0)" },
        { E_SHAPE, 3, 5, " (3 instead of 5)" }, { E_TRUNCATED, 7, 8, " (7; at least 8)" },
        { E_RANGE, 4, 4, "" } };
    static const struct { double seconds; const char *text; } time[] = {
        { 0, "0.1 s" }, { 3.21, "3.2 s" }, { 42, "0:42" }, { 725, "12:05" }, { 11220, "3h07m" } };
    char out[64];
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        CHECK(!strcmp(counted(out, row[i].n, row[i].noun), row[i].text), "counted: %s", out);
    for (size_t i = 0; i < sizeof number / sizeof *number; i++) {
        Error e = { 0 };
        fail(&e, number[i].code, "what", "where", number[i].got, number[i].wanted);
        CHECK(!strcmp(numbers_of(out, &e), number[i].text), "an error's numbers: '%s'", out);
    }
    for (size_t i = 0; i < sizeof time / sizeof *time; i++) {
        readable_time(out, time[i].seconds);
        CHECK(!strcmp(out, time[i].text), "a duration: %s", out);
    }
    CHECK(!strcmp(from_to(out, 32, 32), "32") && strcmp(from_to(out, 4, 32), "32"), "no \"32 to 32\"");
    CHECK(!strcmp(from_to(out, 4, 32), "4 to 32"), "a range: %s", out);
}

#define DRAWN "\342\226\201\342\226\210"
/* A line of progress that is too wide loses its bar first, the first two fields last. */
static void test_progress_line(void) {
    static const struct { int width; const char *line; } row[] = {
        { 90, "[##########..........] 5/10  0:07 left  reward +1.250  KL 2.50  " DRAWN "  coef 0.2" },
        { 70, "[#######.......] 5/10  0:07 left  reward +1.250  KL 2.50  " DRAWN "  coef 0.2" },
        { 60, "5/10  0:07 left  reward +1.250  KL 2.50  " DRAWN "  coef 0.2" },
        { 50, "5/10  0:07 left  reward +1.250  KL 2.50  " DRAWN },
        { 39, "5/10  0:07 left  reward +1.250  KL 2.50" },
        { 38, "5/10  reward +1.250  KL 2.50" }, { 27, "reward +1.250  KL 2.50" },
        { 9, "reward +1.250  KL 2.50" } };
    char out[256];
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        progress_line(out, sizeof out, "reward +1.250  KL 2.50  " DRAWN "  coef 0.2", 5, 10,
                      "0:07 left  ", row[i].width);
        CHECK(!strcmp(out, row[i].line), "%d columns: %s", row[i].width, out);
        CHECK(i == 7 || text_columns(out, strlen(out)) <= row[i].width, "it fits %d columns", row[i].width);
    }
}

static void test_sparkline(void) {
    const double x[] = { 5, 0, 1, 2, 3, 4, 5, 6, 7 }, flat[] = { 2, 2 }, holes[] = { 0, NAN, 1 };
    char out[64];
    sparkline(out, sizeof out, x, 9, 8);
    CHECK(!strcmp(out,
                  "\342\226\201\342\226\202\342\226\203\342\226\204"
                  "\342\226\205\342\226\206\342\226\207\342\226\210"),
          "the last eight, each height: %s", out);
    sparkline(out, sizeof out, flat, 2, 8);
    CHECK(!strcmp(out, "\342\226\201\342\226\201"), "equal values: %s", out);
    sparkline(out, sizeof out, holes, 3, 8);
    CHECK(!strcmp(out, "\342\226\201 \342\226\210"), "a hole: %s", out);
    sparkline(out, 8, x, 9, 8);
    CHECK(strlen(out) == 6, "whole blocks in a small buffer: %d bytes", (int)strlen(out));
}

static void test_run_folder(void) {
    char a[128] = "", b[128] = "", tiny[8];
    Error e;
    memset(&e, 0, sizeof e);
    if (system("rm -rf build/cli-runs")) return;
    CHECK(run_folder(a, sizeof a, "build/cli-runs/deep", "ppo", &e) == OK
          && !strcmp(a, "build/cli-runs/deep/ppo-0001"), "the first: %s", a);
    CHECK(run_folder(b, sizeof b, "build/cli-runs/deep", "ppo", &e) == OK
          && !strcmp(b, "build/cli-runs/deep/ppo-0002"), "the second: %s", b);
    CHECK(folder_exists(a) && folder_exists(b), "both are made");
    CHECK(run_folder(b, sizeof b, "build/cli-runs/deep", "sft", &e) == OK
          && !strcmp(b, "build/cli-runs/deep/sft-0001"), "another kind: %s", b);
    CHECK(folder_remove("build/cli-runs/deep/ppo-0001", &e) == OK
          && run_folder(a, sizeof a, "build/cli-runs/deep", "ppo", &e) == OK
          && !strcmp(a, "build/cli-runs/deep/ppo-0003"), "a number that was there is not used again: %s", a);
    CHECK(run_folder(tiny, sizeof tiny, "build/cli-runs/deep", "ppo", &e) == E_RANGE, "no room for the name");
    memset(&e, 0, sizeof e);
    CHECK(run_folder(a, sizeof a, "Makefile", "ppo", &e) != OK && e.code != OK, "a file is no folder");
}

static void test_log(void) {
    Pool pool = cli_pool();
    Error e;
    Log l;
    char *bytes = NULL;
    size_t n = 0;
    const char *path = "build/cli-log.jsonl";
    memset(&e, 0, sizeof e);
    remove(path);
    for (int i = 0; i < 2; i++) {
        log_begin(&l, path, &pool);
        log_integer(&l, "step", i);
        log_number(&l, "third", 1.0 / 3);
        log_number(&l, "nan", NAN);
        log_number(&l, "inf", -HUGE_VAL);
        log_text(&l, "query", "a\n\"b\"", 5);
        CHECK(log_end(&l, &e) == OK, "line %d is written", i);
    }
    CHECK(file_read_all(path, &pool, &bytes, &n, &e) == OK && !strcmp(bytes,
          "{\"step\": 0, \"third\": 0.333333333, \"nan\": null, \"inf\": null, \"query\": "
          "\"a\\n\\\"b\\\"\"}\n"
          "{\"step\": 1, \"third\": 0.333333333, \"nan\": null, \"inf\": null, \"query\": "
          "\"a\\n\\\"b\\\"\"}\n"),
          "two lines: %s", bytes ? bytes : "none");
    log_begin(&l, "build/no/such/folder/log", &pool);
    CHECK(log_end(&l, &e) != OK, "a log that cannot be written is an error");
    pool_free(&pool);
}

/* Without a wanted label exactly one name has to match, ignoring case. */
static void test_label_find(void) {
    static const struct { const char *label[3]; int labels; const char *wanted; int found; } row[] = {
        { { "reward" }, 1, NULL, 0 }, { { "reward" }, 1, "REWARD", 0 }, { { "reward" }, 1, "positive", -1 },
        { { "negative", "positive" }, 2, NULL, 1 }, { { "Positive", "Negative" }, 2, NULL, 0 },
        { { "NEG", "POS" }, 2, NULL, 1 },
        { { "nothate", "hate" }, 2, NULL, 0 }, { { "toxic", "Non-Toxic" }, 2, NULL, 1 },
        { { "positively", "po" }, 2, NULL, -1 },
        { { "pos", "neutral", "positive" }, 3, NULL, -1 }, { { "LABEL_0", "LABEL_1" }, 2, NULL, -1 },
        { { "LABEL_0", "LABEL_1" }, 2, "label_1", 1 }, { { "a", "A" }, 2, "a", -1 },
        { { "a", "b" }, 2, "", -1 },
        { { "negative", "positive" }, 2, "negative", 0 } };
    char names[16];
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        RewardConfig c;
        memset(&c, 0, sizeof c);
        c.labels = row[i].labels;
        for (int k = 0; k < c.labels; k++) strcpy(c.label[k], row[i].label[k]);
        CHECK(label_find(&c, row[i].wanted) == row[i].found, "label row %d: %d", (int)i,
              label_find(&c, row[i].wanted));
        label_names(&c, names, sizeof names);
        CHECK(!strncmp(names, row[i].label[0], strlen(row[i].label[0])) && strlen(names) < sizeof names,
              "names: %s", names);
        if (i == 9) CHECK(!strcmp(names, "pos, neutral, p"), "names that do not all fit are cut: %s", names);
    }
}

/* Returns h.bad after these losses of steps, which end with a 0. */
static int steps_bad(double start, double blind, const double *loss) {
    Health h;
    memset(&h, 0, sizeof h);
    h.start = start;
    h.blind = blind;
    for (; *loss > 0; loss++) health_of_step(&h, *loss);
    return h.bad;
}

static void test_health(void) {
    const double falls[] = { 7.6, 7, 6, 3, 0 }, high[] = { 12, 13, 12, 11, 0 }, wild[] = { 1.4, 26, 300, 0 };
    const double spike[] = { 1.4, 1.4, 40, 1.4, 0 };
    const double over[] = { 2, 30, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0 };
    const double once[] = { 0.5, 6, 0.5, 5, 0.1, 4, 0.2, 5, 0 };        /* batches of one, a fair judge's */
    CHECK(!steps_bad(0, 7.6, falls), "a loss that falls");
    CHECK(!steps_bad(0, 7.6, high), "a loss that was as high at the start");
    CHECK(steps_bad(0, 7.6, wild) && steps_bad(1.4, 0.69, wild), "a loss far above both");
    CHECK(!steps_bad(0, 7.6, spike), "one step is not a run");
    CHECK(!steps_bad(0, 0.69, over), "a rise that is over");
    CHECK(!steps_bad(0, 0.69, once), "single examples");
    const struct { double start, blind, loss; int bad; } held[] = {
        { 1.4, 7.6, 9.5, 0 }, { 1.4, 7.6, 9.7, 1 }, { 0.5, 0.69, 2.6, 0 }, { 0.5, 0.69, 2.8, 1 },
        { 9, 7.6, 10.9, 0 }, { 1.4, 7.6, HUGE_VAL, 1 }, { 1.4, 7.6, NAN, 1 } };
    for (size_t i = 0; i < sizeof held / sizeof *held; i++) {
        Health h;
        memset(&h, 0, sizeof h);
        h.start = held[i].start;
        h.blind = held[i].blind;
        health_of_held_out(&h, held[i].loss);
        CHECK(h.bad == held[i].bad, "held-out loss, row %d", (int)i);
    }
    const struct { double kl, tokens, entropy, target; int bad; } policy[] = {
        { 8, 32, 1.6, 6, 0 }, { 226, 32, 1.6, 6, 1 }, { 70, 500, 1.6, 6, 0 }, { 59, 15, 1.6, 6, 0 },
        { 61, 15, 1.6, 6, 1 }, { 3, 32, 1e-3, 6, 0 }, { 7, 32, 1e-3, 6, 1 }, { 40, 32, 1, 0.1, 1 },
        { -20, 32, 1, 6, 0 }, { NAN, 32, 1, 6, 1 } };
    for (size_t i = 0; i < sizeof policy / sizeof *policy; i++) {
        Health h;
        memset(&h, 0, sizeof h);
        health_of_policy(&h, policy[i].kl, policy[i].tokens, policy[i].entropy, policy[i].target);
        CHECK(h.bad == policy[i].bad, "policy, row %d", (int)i);
    }
    CHECK(call("act diverged") == EXIT_DIVERGED &&
          has(": the run has diverged: the held-out loss is 20; at the start 1.5, of a blind guess 7.6: step "
              "4; until this is over, nothing is saved over earlier weights\n  try: a smaller --lr\n") &&
          has(" guess 7.6: runs/x has the weights after step 3\n  try: another way\n") && !has("step 5"),
          "a run that diverged: %s", said);
}

/* Of two tensors, whose gradients are g: what is wrong before an update, and after it. */
static void test_faults(void) {
    const struct { double loss, clip; float g; const char *says; } row[] = {
        { 1, 0, 2, NULL }, { NAN, 0, 2, "the loss is not a number" },
        { HUGE_VAL, 1, 2, "the loss is not a number" },
        { 1, 1, NAN, "the gradient of tensor b is not a number" },
        { 1, 0, -HUGE_VALF, "the gradient of tensor b is not a number" },
        { 1, 0, 1e19f, NULL }, { 1, 0, -3e20f, "the gradient is too large: its norm is 3e+20" },
        { 1, 5, 3e20f, NULL } };
    float x[2] = { 1, 2 }, g[2] = { 1, 1 };
    Matrix m[2];
    Tensor list[2];
    char why[160];
    memset(m, 0, sizeof m);
    memset(list, 0, sizeof list);
    for (int i = 0; i < 2; i++) {
        m[i].type = F32; m[i].O = m[i].I = 1; m[i].data = x + i; m[i].grad = g + i;
        list[i].matrix = m + i;
        list[i].flags = TENSOR_TRAINED;
        strcpy(list[i].name, i ? "b" : "a");
    }
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        g[1] = row[i].g;
        const char *says = step_fault(why, row[i].loss, gradient_norm(list, 2), row[i].clip, list, 2);
        CHECK(row[i].says ? says && !strcmp(says, row[i].says) : !says, "row %d: %s", (int)i,
              says ? says : "nothing");
    }
    CHECK(!weights_fault(why, list, 2, F16), "weights that are numbers");
    x[1] = 70000;
    CHECK(!weights_fault(why, list, 2, F32) && weights_fault(why, list, 2, F16) &&
          !strcmp(why, "tensor b has a weight that is too large for --dtype"), "f16: %s", why);
    x[1] = NAN;
    CHECK(weights_fault(why, list, 2, F16) && !strcmp(why, "tensor b has a NaN or an infinity"), "NaN: %s",
          why);
}

static void test_tensor_not_numbers(void) {
    const struct { float value; int dtype, good; } row[] = {
        { 1, F32, 1 }, { NAN, F32, 0 }, { HUGE_VALF, F32, 0 }, { -HUGE_VALF, BF16, 0 }, { 3.4e38f, F32, 1 },
        { -3.4e38f, BF16, 0 },
        { 3.38e38f, BF16, 1 }, { 65519, F16, 1 }, { -65520, F16, 0 }, { 65520, BF16, 1 } };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        for (int at = 0; at < 6; at += 5) {
            float x[6] = { 0, 0, 0, 0, 0, 0 };
            Matrix m;
            Tensor list[2];
            memset(&m, 0, sizeof m);
            memset(list, 0, sizeof list);
            m.type = F32; m.O = 2; m.I = 3; m.data = x;
            list[0].matrix = list[1].matrix = &m;
            list[0].flags = TENSOR_TIED;
            x[at] = row[i].value;
            CHECK(tensor_not_numbers(list, 2, row[i].dtype) == (row[i].good ? NULL : list + 1),
                  "row %d, number %d", (int)i, at);
            CHECK(!tensor_not_numbers(list, 1, row[i].dtype), "a tied tensor is looked at once, where it is");
        }
    CHECK(f16_to_f32(f32_to_f16(65519)) < HUGE_VALF && !(f16_to_f32(f32_to_f16(65520)) < HUGE_VALF),
          "F16's limit is quant.c's");
    CHECK(bf16_to_f32(f32_to_bf16(3.3961774e38f)) < HUGE_VALF
          && !(bf16_to_f32(f32_to_bf16(3.3961776e38f)) < HUGE_VALF), "BF16's limit too");
}

/* Reads the first line of a log, which replaces an older log. */
static void test_log_options(void) {
    static int steps = 3;
    static Option option[] = { { "steps", OPT_INT, &steps, "3", 0, 0, NULL, "" } };
    static const Program program = {
        .program = "toy",
        .usage = "",
        .about = "",
        OPTIONS(option) };
    Pool pool = cli_pool();
    char *bytes = NULL;
    size_t n;
    for (int i = 0; i < 2; i++) 
        log_options("build/cli-log.jsonl", &program, "a \"b\".bin", 0x0123456789abcdefu, &pool);
    CHECK(file_read_all("build/cli-log.jsonl", &pool, &bytes, &n, NULL) == OK &&
          !strcmp(bytes, "{\"program\": \"toy\", \"version\": \"" RLHF_VERSION "\", "
                         "\"data\": \"a \\\"b\\\".bin\", \"data_hash\": \"0123456789abcdef\", \"options\": {\"steps\":3}, "
                         "\"given\": {}}\n"),
          "one line: %s", bytes ? bytes : "none");
    log_machine("build/cli-log.jsonl", &program, &pool);
    CHECK(file_read_all("build/cli-log.jsonl", &pool, &bytes, &n, NULL) == OK, "the log of times");
    const Json *j = json_parse(bytes, n, &pool, NULL);
    CHECK(!strcmp(json_text(j, "program", ""), "toy") && json_number(j, "threads", 0) >= 1 &&
          !strcmp(json_text(j, "kernel", ""), fast_chosen()) && strlen(json_text(j, "started", "")) == 20 &&
          strstr(json_text(j, "flags", ""), "-std=c99"), "begins with what the run is on: %s", bytes);
    pool_free(&pool);
}

static void test_cli_arena(void) {
    Arena a = cli_arena(1000, "a test");
    int sum = 0;
    for (int i = 0; i < 1000; i++) sum += a.base[i];
    CHECK(a.capacity == 1000 && a.used == 0 && sum == 0 && (uintptr_t)a.base % 64 == 0,
          "zeroed and on a cache line");
}

int main(int argc, char **argv) {
    self = argv[0];
    if (argc > 1 && !strcmp(argv[1], "toy")) return toy_main(argc - 1, argv + 1);
    if (argc > 2 && !strcmp(argv[1], "act")) return act(argv[2]);
    test_values();
    test_refusals();
    test_help();
    test_needs();
    test_standard_options();
    test_words();
    test_progress_line();
    test_endings();
    test_sparkline();
    test_run_folder();
    test_log();
    test_log_options();
    test_label_find();
    test_faults();
    test_tensor_not_numbers();
    test_health();
    test_cli_arena();
    return test_end("cli");
}
