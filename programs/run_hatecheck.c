/* run_hatecheck.c - run hatecheck: functional tests of a judge of hate speech: how often it is right, for
 * each kind of text.
 * Source   Röttger et al. 2021, "HateCheck: Functional Tests for Hate Speech Detection Models", whose CSV
 *          file has the columns functionality, test_case and label_gold (hateful or non-hateful). */
#include "run.h"
#include <stdio.h>

enum { GROUPS_MAX = 1024 };
typedef struct {
    const char *adapter, *label, *by;
    int json, plain;
    double threshold;
    QuantOptions quant;
} HateCheck;

/* The texts of one kind and one gold label: how many, and how many the judge is right about. */
typedef struct { const char *name; int hateful; long long texts, right; } Group;

/* Texts that wait for the judge, with their groups. */
typedef struct {
    const HateCheck *o;
    ScoreBatch scores; int label;
    Group *group; int groups;
    const char *text[SCORE_TEXTS]; size_t length[SCORE_TEXTS]; int of[SCORE_TEXTS], waiting, cut;
    float *logits;
    Pool keep, scratch;
} Check;

/* Lets the judge read the texts that wait, and counts its answers. */
static void judge_waiting(Check *c) {
    const RewardConfig *config = &c->scores.judge->config;
    c->cut += score_texts(&c->scores, c->text, c->length, c->waiting, c->logits, &c->scratch);
    for (int i = 0; i < c->waiting; i++) {
        Group *g = &c->group[c->of[i]];
        const float *logits = c->logits + (size_t)i * (size_t)config->labels;
        const int hateful = judge_probability(config, logits, c->label) >= c->o->threshold;
        g->texts++;
        g->right += hateful == g->hateful;
    }
    c->waiting = 0;
}

/* Returns the index of a group; of a new one, if there is none of this name and gold label. */
static int group_of(Check *c, CsvCell name, int hateful) {
    for (int i = 0; i < c->groups; i++)
        if (c->group[i].hateful == hateful && strlen(c->group[i].name) == name.length
            && !memcmp(c->group[i].name, name.text, name.length)) return i;
    require(c->groups == GROUPS_MAX ? E_RANGE : OK, "more than 1024 kinds of texts", c->o->by, 0, 0,
            "another column for --by");
    Group *g = &c->group[c->groups];
    g->name = pool_text(&c->keep, name.text, name.length);
    g->hateful = hateful;
    return c->groups++;
}

/* Returns 1 for hateful, 0 for non-hateful. Ends the program at any other label. */
static int gold_label(const Csv *csv, CsvCell cell) {
    static const char *const name[] = { "non-hateful", "hateful" };
    char where[256];
    for (int k = 0; k < 2; k++)
        if (cell.length == strlen(name[k]) && !memcmp(cell.text, name[k], cell.length)) return k;
    snprintf(where, sizeof where, "%.200s, line %lld", csv->path, csv->begun);
    require(E_FORMAT, "label_gold is neither hateful nor non-hateful", where, 0, 0, "correct the record");
    return -1;
}

static int need_column(const Csv *csv, const CsvCell *header, int cells, const char *name) {
    char what[160];
    const int k = csv_column(header, cells, name);
    snprintf(what, sizeof what, "there is no column %.100s", name);
    require(k < 0 ? E_MISSING : OK, what, csv->path, 0, 0,
            "HateCheck's CSV file, with the columns functionality, test_case and label_gold");
    return k;
}

/* Judges the texts of the file, which holds `size` bytes. */
static void check_file(Check *c, const char *path, char *bytes, size_t size) {
    Error err = { 0 };
    static const char quotes[] = "quotes inside a quoted cell have to be doubled";
    int header, cells;
    const char *const name[3] = { "test_case", "label_gold", c->o->by };
    int column[3];
    CsvCell *cell = pool_need(&c->keep, CSV_COLUMNS, sizeof *cell, "a record");
    Csv csv = { .path = path, .at = bytes, .end = bytes + size, .separator = ',', .quotes = 1, .line = 1 };
    must(csv_next(&csv, cell, &header, &c->keep, &err), &err, quotes);
    for (int k = 0; k < 3; k++) column[k] = need_column(&csv, cell, header, name[k]);
    for (;;) {
        must(csv_next(&csv, cell, &cells, &c->keep, &err), &err, quotes);
        if (!cells) break;
        char where[256];
        snprintf(where, sizeof where, "%.200s, line %lld", path, csv.begun);
        require(cells != header ? E_FORMAT : OK, "a record with another number of cells than the header",
                where, cells, header, "correct the record");
        const CsvCell text = cell[column[0]];
        require(utf8_valid(text.text, text.length) ? OK : E_FORMAT, "invalid UTF-8", where, 0, 0, TO_UTF8);
        c->of[c->waiting] = group_of(c, cell[column[2]], gold_label(&csv, csv_trimmed(cell[column[1]])));
        c->text[c->waiting] = text.text;
        c->length[c->waiting++] = text.length;
        if (c->waiting == SCORE_TEXTS) judge_waiting(c);
    }
    judge_waiting(c);
    require(c->groups ? OK : E_MISSING, "there are no texts", path, 0, 0, "HateCheck's CSV file");
}

static const char *gold_name(int hateful) { return hateful ? "hateful" : "non-hateful"; }

/* Prints a JSON line for each group. */
static void print_json(Check *c) {
    for (int i = 0; i < c->groups; i++) {
        const Group *g = &c->group[i];
        Buffer b = { .pool = &c->scratch };
        char numbers[160];
        buffer_text(&b, "{");
        buffer_json_string(&b, c->o->by, strlen(c->o->by));
        buffer_text(&b, ": ");
        buffer_json_string(&b, g->name, strlen(g->name));
        snprintf(numbers, sizeof numbers, ", \"label_gold\": \"%s\", \"texts\": %lld, \"right\": %lld, "
                 "\"accuracy\": %.9g}\n", gold_name(g->hateful), g->texts, g->right,
                 (double)g->right / (double)g->texts);
        buffer_text(&b, numbers);
        need_buffer(&b);
        fwrite(b.data, 1, b.length, stdout);
    }
}

/* Prints a row for each group, and for both gold labels and all texts. */
static void print_groups(Check *c) {
    static const char *const title[] = { "gold", "texts", "right", "accuracy" };
    const int rows = c->groups + 3;
    const char **name = pool_need(&c->keep, (size_t)rows, sizeof *name, "the table");
    char (*cell)[CELL] = pool_need(&c->keep, 4 * (size_t)rows, sizeof *cell, "the table");
    const Table t = { c->o->by, name, title, cell, rows, 4 };
    Group sum[3] = { { "all hateful", 1, 0, 0 }, { "all non-hateful", 0, 0, 0 }, { "all", 0, 0, 0 } };
    for (int i = 0; i < rows; i++) {
        const Group *g = i < c->groups ? &c->group[i] : &sum[i - c->groups];
        char (*to)[CELL] = &cell[4 * i];
        name[i] = g->name;
        snprintf(to[0], CELL, "%s", i == rows - 1 ? "" : gold_name(g->hateful));
        snprintf(to[1], CELL, "%lld", g->texts);
        snprintf(to[2], CELL, "%lld", g->right);
        if (g->texts) snprintf(to[3], CELL, "%.1f %%", 100.0 * (double)g->right / (double)g->texts);
        else snprintf(to[3], CELL, "-");
        for (int k = 0; k < 3 && i < c->groups; k++)
            if (k == 2 || sum[k].hateful == g->hateful) {
                sum[k].texts += g->texts;
                sum[k].right += g->right;
            }
    }
    table_print(&t);
    say("hateful: the probability of '%s' is at least %g", c->scores.judge->config.label[c->label],
        c->o->threshold);
}

static int hatecheck(const Program *program, const HateCheck *o, const char *folder, const char *path) {
    Check c = { .o = o };
    Judge j;
    Error err = { 0 };
    char number[64], *bytes;
    size_t size;
    c.keep = cli_pool();
    c.scratch = cli_pool();
    must(text_read_all(path, &c.keep, &bytes, &size, &err), &err, "HateCheck's CSV file");
    judge_find(&j, folder, o->adapter, &c.keep);
    c.label = o->label ? -1 : toxic_label(&j.config);
    if (c.label < 0) c.label = label_need(&j.config, o->label ? o->label : "hate", "--label");
    judge_open(&j, program, &o->quant, &c.keep);
    j.tokenizer = need_tokenizer(j.adapter_folder ? j.adapter_folder : j.folder, j.folder, j.config.V,
                                 o->plain, &c.keep);
    c.scores = score_open(&j, &c.keep);
    c.group = pool_need(&c.keep, GROUPS_MAX, sizeof *c.group, "kinds of texts");
    c.logits = pool_need(&c.keep, SCORE_TEXTS * (size_t)j.config.labels, sizeof *c.logits, "logits");
    check_file(&c, path, bytes, size);
    if (o->json) print_json(&c);
    else print_groups(&c);
    if (c.cut)
        say_error("run hatecheck: the judge read %s without the beginning, which was too long for it",
                  counted(number, (size_t)c.cut, "text"));
    return cli_exit_code(0);
}

int run_hatecheck(int argc, char **argv) {
    HateCheck o = { 0 };
    const char *positional[2] = { NULL, NULL };
    Option option[] = {
        { "label", OPT_TEXT, &o.label, NULL, 0, 0, NULL,
          "the judge's label for hate (default: one named toxic, toxicity, hate, hateful or hate speech)" },
        { "threshold", OPT_REAL, &o.threshold, "0.5", 0, 1, NULL,
          "least probability of that label for a text that is called hateful" },
        { "by", OPT_TEXT, &o.by, "functionality", 0, 0, NULL,
          "the column that says of which kind a text is, such as target_ident" },
        { "json", OPT_FLAG, &o.json, NULL, 0, 0, NULL,
          "print a JSON line for each kind instead of the table" },
        { "adapter", OPT_TEXT, &o.adapter, NULL, 0, 0, NULL,
          "a run folder of rm --lora-r, or any PEFT LoRA folder of a judge" },
        NO_SPECIAL_OPTION(o.plain),
        QUANT_OPTIONS(o.quant, "hold the linears in 4-bit NF4, as rm --nf4 and ppo --reward-nf4 do"),
        COMPUTE_OPTION(o.quant),
    };
    static const Need need[] = { QUANT_NEEDS, { NULL, NULL, NULL } };
    Program program = {
        .program = "run hatecheck",
        .usage = "JUDGE FILE.csv [options]",
        .about =
            "Functional tests of a judge of hate speech: how often it is right about each kind of text in "
            "HateCheck's CSV file (columns functionality, test_case, label_gold).",
        OPTIONS(option), .need = need };
    const int given = cli_parse(&program, argc, argv, positional, 2);
    if (given < 2) usage_error(given ? "which CSV file?" : "which judge?", NULL);
    quant_options_check(&program, &o.quant, NULL, NULL, 0);
    return hatecheck(&program, &o, positional[0], positional[1]);
}
