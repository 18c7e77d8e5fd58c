/* run_label.c - run label: a person ranks several responses to each prompt.
 *
 * Idea     Ouyang et al. 2022 (InstructGPT), section 3.4: a labeller ranks K responses to a prompt at once;
 *          prep rankings makes pairs of them. The order on the screen is drawn anew for each labeller and
 *          prompt, so that a habit of choosing the first does not favour one response.
 * Saved    Each answer is one JSON line, appended and flushed before the next prompt is shown. "undo" appends
 *          a line, too: nothing that was written is changed, so an end at any moment loses no answer. A last
 *          line that was cut off (by a power failure, say) is removed when the labeller goes on; if only its
 *          line break is missing, this is added.
 * Never    needs colours, a terminal or single keys: a line of input is an answer. */
#include "run.h"
#include <stdio.h>

enum { RESPONSES_MAX = 9, COLUMN_MIN = 30 };

typedef struct {
    const char *policy, *adapter, *out, *labeller, *instructions;
    int responses, query, n, items, top_k;
    double temperature, top_p;
    uint64_t seed;
    QuantOptions quant;
} Labels;

/* A prompt with K responses. shown[i]: the response that has number i + 1 on the screen. */
typedef struct { Span prompt, response[RESPONSES_MAX]; int K, shown[RESPONSES_MAX]; } Item;

/* Where the `items` prompts and responses come from, and the labeller's answers. done: answers that are in
 * the file and not undone, one for each of the first prompts; skip: which of them are no rankings. */
typedef struct {
    const Labels *o;
    Policy policy; Batch batch;             /* batch.B 0: the responses are in the data */
    Dataset data; int *document, documents; /* the training documents of a dataset */
    const Json **line; int *number;         /* or the lines of a JSONL file, their numbers */
    const char *source;                     /* and its name */
    char *instructions; size_t instructions_length;
    int items, done; unsigned char *skip;
    char path[512];
    Lines *keys;
    Pool keep, scratch;
} Session;

/* ---- the file of answers ---- */

static Span item_prompt(Session *s, int i);

/* Counts one line of the file. Ends the program if it is not this labeller's answer to the next prompt. */
static void take_answer(Session *s, const char *text, size_t n, int number) {
    Error err = { 0 };
    char where[600];
    const Json *line = json_parse(text, n, &s->scratch, &err), *prompt = json_get(line, "prompt");
    const char *who = json_text(line, "labeller", NULL);
    snprintf(where, sizeof where, "%s, line %d", s->path, number);
    require(!who || !prompt || prompt->type != JSON_STRING ? E_FORMAT : OK, "not a line of run label", where,
            0, 0, "another --out");
    require(strcmp(who, s->o->labeller) ? E_ARGUMENT : OK, "these are answers of another labeller", who, 0, 0,
            "--labeller with this name, or another --out");
    if (json_bool(line, "undo", 0)) {
        require(s->done ? OK : E_FORMAT, "an \"undo\" without an answer", where, 0, 0, "another --out");
        s->done--;
        return;
    }
    require(s->done < s->items ? OK : E_RANGE, "more answers than prompts", where, s->done + 1, s->items,
            "the data that this file was begun with, or another --out");
    const Span asked = item_prompt(s, s->done);
    require(asked.n == prompt->length && !memcmp(asked.text, prompt->string, asked.n) ? OK : E_ARGUMENT,
            "an answer to another prompt", where, 0, 0,
            "the data, --query and policy that this file was begun with, or another --out");
    s->skip[s->done++] = (unsigned char)json_bool(line, "skipped", 0);
}

/* Repairs a last line (n bytes) without a line break: a whole answer gets one, another line is removed.
 * whole: the bytes before it. */
static void mend_last_line(Session *s, const char *bytes, size_t whole, size_t n, int number) {
    Error err = { 0 };
    const int answer = json_parse(bytes + whole, n, &s->scratch, NULL) != NULL;
    if (answer) {
        take_answer(s, bytes + whole, n, number);
        must(file_append(s->path, "\n", 1, &err), &err, "another --out");
        return;
    }
    say("%s: the last line was cut off, and is removed", s->path);
    must(file_write_all(s->path, bytes, whole, &s->keep, &err), &err, "another --out");
}

/* Reads the answers of earlier sessions. */
static void read_answers(Session *s) {
    Error err = { 0 };
    char *bytes;
    size_t n, at = 0;
    int number = 0;
    if (!file_exists(s->path)) return;
    must(file_read_all(s->path, &s->keep, &bytes, &n, &err), &err, "another --out");
    for (size_t i = 0; i < n; i++) {
        PoolMark mark = pool_mark(&s->scratch);
        if (bytes[i] != '\n') continue;
        number++;
        if (!blank_line(bytes + at, i - at)) take_answer(s, bytes + at, i - at, number);
        pool_release(&s->scratch, mark);
        at = i + 1;
    }
    if (at < n) mend_last_line(s, bytes, at, n - at, number + 1);
}

static struct { char path[520]; int handle; } answers_lock;
static void unlock_answers(void) { lock_release(answers_lock.path, answers_lock.handle); }

/* Sees to it that one process alone writes the file, until it ends. */
static void lock_answers(const Session *s) {
    Error err = { 0 };
    char what[80];
    long process;
    snprintf(answers_lock.path, sizeof answers_lock.path, "%s.lock", s->path);
    const int code = lock_take(answers_lock.path, &answers_lock.handle, &process, &err);
    snprintf(what, sizeof what, "another program (process %ld) is writing this file", process);
    require(code == E_OPEN ? code : OK, what, s->path, 0, 0, "that program, or another --out");
    must(code, &err, "--out FILE, in a place where files can be written");
    atexit(unlock_answers);
}

/* Begins a line of the file. */
static Buffer answer_begin(Session *s, Span prompt) {
    Buffer b = { .pool = &s->scratch };
    buffer_text(&b, "{\"labeller\": ");
    buffer_json_string(&b, s->o->labeller, strlen(s->o->labeller));
    buffer_text(&b, ", \"prompt\": ");
    buffer_json_string(&b, prompt.text, prompt.n);
    return b;
}

static void answer_end(Session *s, Buffer *b) {
    Error err = { 0 };
    buffer_text(b, "}\n");
    need_buffer(b);
    must(file_append(s->path, b->data, b->length, &err), &err, "the answers before this one are in the file");
}

/* Appends the answer to the item. rank (K): how many groups of responses are better; NULL: it was skipped. */
static void write_answer(Session *s, const Item *x, const int *rank, double seconds) {
    Buffer b = answer_begin(s, x->prompt);
    char number[40];
    for (int k = 0; k < x->K; k++) {
        buffer_text(&b, k ? ", " : ", \"responses\": [");
        buffer_json_string(&b, x->response[k].text, x->response[k].n);
    }
    buffer_text(&b, rank ? "], \"ranking\": [" : "], \"skipped\": true");
    for (int group = 0, count = 0; rank && count < x->K; group++) {
        buffer_text(&b, group ? ", [" : "[");
        for (int k = 0, any = 0; k < x->K; k++) {
            if (rank[k] != group) continue;
            if (any++) buffer_text(&b, ", ");
            buffer_integer(&b, k);
            count++;
        }
        buffer_text(&b, "]");
    }
    if (rank) buffer_text(&b, "]");
    snprintf(number, sizeof number, ", \"seconds\": %.1f", seconds);
    buffer_text(&b, number);
    answer_end(s, &b);
    s->skip[s->done++] = !rank;
}

/* Withdraws the last answer. */
static void undo(Session *s) {
    Buffer b = answer_begin(s, item_prompt(s, s->done - 1));
    buffer_text(&b, ", \"undo\": true");
    answer_end(s, &b);
    s->done--;
}

/* ---- items ---- */

/* Returns the text of ids, in s->scratch. */
static Span decoded(Session *s, const int *ids, int n) {
    char *text;
    size_t length;
    require(tokenizer_decode(s->policy.tokenizer, ids, n, &s->scratch, &text, &length), "cannot decode",
            "output", 0, 0, NULL);
    return (Span){ text, length };
}

/* Lets the policy write K responses to the prompt, `count` ids, of item i. The text of a response is what it
 * adds to the text of the prompt, since a tokenizer may write a text's first token in another way. */
static void write_responses(Session *s, Item *x, const int *ids, int count, int i) {
    const Labels *o = s->o;
    Job job[RESPONSES_MAX];
    const int encoder = s->policy.config.encoder.L > 0;
    const Writing w = { .adapter = s->policy.adapter,
                        .sampling = { (float)o->temperature, o->top_k, (float)o->top_p } };
    const int room = s->batch.T - (encoder ? 1 : count);
    require(room < 1 || count > s->batch.T ? E_RANGE : OK, "a prompt is longer than the model's positions",
            "", count, s->batch.T, "shorter prompts");
    x->K = o->responses;
    for (int k = 0; k < x->K; k++)
        job[k] = (Job){ .ids = ids, .count = count, .most = o->n < room ? o->n : room,
                        .rng = rng_stream(o->seed, (uint64_t)i, (uint64_t)k) };
    batch_write(&s->batch, &w, job, x->K, &s->scratch);
    const Span before = decoded(s, ids, count);
    for (int k = 0; k < x->K; k++) {
        const Job *j = &job[k];
        x->response[k] = decoded(s, j->token + encoder, j->length - encoder);
        if (encoder || x->response[k].n < before.n || memcmp(x->response[k].text, before.text, before.n)) {
            if (!encoder) x->response[k] = decoded(s, j->token + j->prompt, j->length - j->prompt);
            continue;
        }
        x->response[k].text += before.n;
        x->response[k].n -= before.n;
    }
}

/* Takes prompt and responses from line i, counted from 0: {"prompt": ..., "responses": [...]}. */
static void take_line(const Session *s, Item *x, int i) {
    const Json *prompt = json_get(s->line[i], "prompt"), *list = json_get(s->line[i], "responses");
    char where[600];
    snprintf(where, sizeof where, "%s, line %d", s->source, s->number[i]);
    int good = prompt && prompt->type == JSON_STRING && list && list->type == JSON_ARRAY;
    require(good ? OK : E_FORMAT, "not {\"prompt\": ..., \"responses\": [...]}", where, 0, 0,
            "correct the line");
    require(list->count < 2 || list->count > RESPONSES_MAX ? E_RANGE : OK, "not 2 to 9 responses", where, 0,
            0, "correct the line");
    x->prompt = (Span){ prompt->string, prompt->length };
    x->K = 0;
    for (const Json *r = list->child; r; r = r->next) {
        require(r->type == JSON_STRING ? OK : E_FORMAT, "a response is not a string", where, 0, 0,
                "correct the line");
        x->response[x->K++] = (Span){ r->string, r->length };
    }
}

/* Returns the ids of the prompt of item i of the dataset: a whole prompt, or the beginning of a text. */
static int *prompt_ids(Session *s, int i, int *count) {
    const Document *d = &s->data.document[s->document[i]];
    int *ids = text_ids(s->policy.tokenizer, d->text[0], d->length[0], 1, &s->scratch, count);
    need_rows(s->policy.tokenizer, ids, *count, s->policy.config.V, "policy");
    if (s->data.kind == DATA_TEXT && *count > s->o->query) *count = s->o->query;
    return ids;
}

static Span item_prompt(Session *s, int i) {
    Item x;
    if (s->line) { take_line(s, &x, i); return x.prompt; }
    const Document *d = &s->data.document[s->document[i]];
    int count, *ids = prompt_ids(s, i, &count);
    return s->data.kind == DATA_TEXT ? decoded(s, ids, count) : (Span){ d->text[0], d->length[0] };
}

/* Fills in prompt, responses and their order on the screen of item i. */
static void make_item(Session *s, Item *x, int i) {
    memset(x, 0, sizeof *x);
    if (s->line) take_line(s, x, i);
    else {
        int count, *ids = prompt_ids(s, i, &count);
        x->prompt = item_prompt(s, i);
        write_responses(s, x, ids, count, i);
    }
    Rng rng = rng_stream(s->o->seed + hash_bytes(s->o->labeller, strlen(s->o->labeller), 0), (uint64_t)i, 99);
    for (int k = 0; k < x->K; k++) x->shown[k] = k;
    rng_shuffle(&rng, x->shown, x->K);
}

/* ---- the screen ---- */

/* Shows the item: side by side if each column has room for COLUMN_MIN letters, else one under another. */
static void show_item(Session *s, const Item *x) {
    const int width = terminal_width(), each = (width + COLUMN_GAP) / x->K - COLUMN_GAP;
    Span text[RESPONSES_MAX], prompt = visible_text(x->prompt, &s->scratch);
    for (int k = 0; k < x->K; k++) {
        text[k] = visible_text(x->response[x->shown[k]], &s->scratch);
        if (!text[k].n) text[k] = (Span){ "(empty)", 7 };
    }
    int skipped = 0;
    for (int i = 0; i < s->done; i++) skipped += s->skip[i];
    printf("\n---- %d of %d", s->done + 1, s->items);
    if (skipped) printf(", %d skipped", skipped);
    printf(" ----\n");
    print_lines(prompt, width);
    putchar('\n');
    if (each >= COLUMN_MIN) print_columns(text, 0, x->K, each);
    for (int k = 0; each < COLUMN_MIN && k < x->K; k++) {
        if (k) putchar('\n');
        print_columns(text, k, k + 1, width);
    }
    putchar('\n');
}

static void show_instructions(Session *s) {
    static const char without[] = "Which response is best? Read the prompt, then all responses.";
    static const char keys[] = "Rank by their numbers, the best first: 2 1 3. Equally good: 2 1=3.\n"
        "s: skip, u: undo the last answer, i: these lines again, q: quit; the next call goes on.";
    const Span own = { s->instructions, s->instructions_length }, other = { without, sizeof without - 1 };
    print_lines(s->instructions ? visible_text(own, &s->scratch) : other, terminal_width());
    putchar('\n');
    print_lines((Span){ keys, sizeof keys - 1 }, terminal_width());
}

/* ---- answers ---- */

/* Reads a ranking of K responses, such as "2 1=3" or "213", into place (K): how many groups of responses are
 * better. Returns NULL, or what is wrong with it. */
static const char *parse_ranking(const char *s, size_t n, int K, int *place) {
    int group = 0, tie = 0, count = 0;
    for (int k = 0; k < K; k++) place[k] = -1;
    for (size_t i = 0; i < n; i++) {
        if (s[i] == ' ' || s[i] == ',' || s[i] == '>' || s[i] == '\t') continue;
        if (s[i] == '=') {
            if (!count || tie) return "\"=\" has to stand between two numbers";
            tie = 1;
            continue;
        }
        const int k = s[i] - '1';
        if (k < 0 || k >= K) return "only the numbers of the responses, spaces and = are read";
        if (place[k] >= 0) return "a number is there twice";
        if (!tie) group = count;
        place[k] = group;
        count++;
        tie = 0;
    }
    return tie ? "\"=\" has to stand between two numbers" : count < K ? "each response needs a place" : NULL;
}

/* Makes places 0, 0, 2 ... of the numbers on the screen into ranks 0, 0, 1 ... of the responses. */
static void ranks_of(const Item *x, const int *place, int *rank) {
    for (int k = 0; k < x->K; k++) {
        int better = 0, seen[RESPONSES_MAX] = { 0 };
        for (int j = 0; j < x->K; j++)
            if (place[j] < place[k] && !seen[place[j]]) { seen[place[j]] = 1; better++; }
        rank[x->shown[k]] = better;
    }
}

/* Does what a line says that is one of the letters s, u, i. Returns 1 if another item is to be shown. */
static int obey(Session *s, const Item *x, char letter, double begin) {
    if (letter == 's') { write_answer(s, x, NULL, wall_clock() - begin); return 1; }
    if (letter == 'u' && s->done) { undo(s); return 1; }
    if (letter == 'u') printf("there is no answer to undo\n");
    else show_instructions(s);
    return 0;
}

/* Asks until the item is answered. Returns 0 if the labeller quits. */
static int ask(Session *s, const Item *x) {
    const double begin = wall_clock();
    int place[RESPONSES_MAX], rank[RESPONSES_MAX];
    for (;;) {
        const char *line, *wrong;
        size_t n;
        printf("ranking (or s, u, i, q)> ");
        close_line();
        const int more = lines_next(s->keys, &line, &n);
        if (!more || !cli_typed()) putchar('\n');       /* no key was typed that ends the line */
        if (!more) return 0;
        while (n && (line[n - 1] == ' ' || line[n - 1] == '\t')) n--;
        while (n && (line[0] == ' ' || line[0] == '\t')) { line++; n--; }
        if (n == 1 && line[0] == 'q') return 0;
        if (n == 1 && strchr("sui", line[0])) {
            if (obey(s, x, line[0], begin)) return 1;
            continue;
        }
        wrong = parse_ranking(line, n, x->K, place);
        if (wrong) { printf("%s\n", wrong); continue; }
        ranks_of(x, place, rank);
        write_answer(s, x, rank, wall_clock() - begin);
        return 1;
    }
}

/* ---- the command ---- */

/* Opens the policy, for texts of the longest prompt and --n new tokens. */
static void open_writer(Session *s, const Program *program) {
    const Labels *o = s->o;
    Error err = { 0 };
    Policy *p = &s->policy;
    const char *folder = o->policy, *adapter = o->adapter;
    adapter_as_model(&folder, &adapter, "--policy BASE --adapter ADAPTER", &s->keep);
    must(config_load(&p->config, weights_folder(folder, adapter), &s->keep, &err), &err,
         weights_hint(folder, adapter));
    p->tokenizer = need_tokenizer(folder, adapter, p->config.V, 0, &s->keep);
    const int T = context_length(0, weights_folder(folder, adapter), adapter, &s->keep);
    const WeightTypes types = choose_types(program, &o->quant, folder, adapter, &s->keep);
    policy_open(p, &types, folder, adapter, T, &s->keep);
    s->batch = batch_open(p, o->responses, T, &s->keep);
}

/* Reads the lines of a JSONL file. */
static void open_lines(Session *s, const char *path) {
    Error err = { 0 };
    char *bytes, where[600];
    size_t n;
    int lines = 1, number = 1;
    must(text_read_all(path, &s->keep, &bytes, &n, &err), &err, "a dataset made by prep, or JSON lines");
    if (s->o->policy) usage_error("the responses are in the file: leave out --policy", path);
    s->source = path;
    for (size_t i = 0; i < n; i++) lines += bytes[i] == '\n';
    s->line = pool_need(&s->keep, (size_t)lines, sizeof *s->line, "the prompts");
    s->number = pool_need(&s->keep, (size_t)lines, sizeof *s->number, "the prompts");
    for (size_t at = 0, end; at < n; at = end + 1, number++) {
        const char *stop = memchr(bytes + at, '\n', n - at);
        Item x;
        end = stop ? (size_t)(stop - bytes) : n;
        if (blank_line(bytes + at, end - at)) continue;
        s->line[s->items] = json_parse(bytes + at, end - at, &s->keep, &err);
        s->number[s->items] = number;
        snprintf(where, sizeof where, "%s, line %d", path, number);
        require(err.code, err.what, where, 0, 0, "JSON lines {\"prompt\": ..., \"responses\": [...]}");
        take_line(s, &x, s->items);
        s->items++;
    }
}

/* Reads the prompts: the training documents of a dataset, or the lines of a JSONL file. */
static void open_data(Session *s, const char *path, const Program *program) {
    Error err = { 0 };
    if (!dataset_exists(path)) open_lines(s, path);
    else {
        if (!s->o->policy) usage_error("which policy writes the responses? --policy DIR", NULL);
        must(dataset_read(&s->data, path, &s->keep, &err), &err, NULL);
        require(s->data.kind == DATA_PAIRS ? E_ARGUMENT : OK, "a dataset of pairs has no prompts", path, 0, 0,
                "a dataset of texts or of prompts with responses");
        s->document = pool_need(&s->keep, (size_t)s->data.count + 1, sizeof *s->document, "the prompts");
        for (uint64_t i = 0; i < s->data.count && i < INT_MAX; i++)
            if (!s->data.document[i].split) s->document[s->items++] = (int)i;
        open_writer(s, program);
    }
    if (s->o->items && s->items > s->o->items) s->items = s->o->items;
    require(s->items ? OK : E_ARGUMENT, "no prompt", path, 0, 0, "another file");
    s->skip = pool_need(&s->keep, (size_t)s->items, 1, "the answers");
}

/* Shows one prompt after another until all are answered or the labeller quits. */
static int label_all(Session *s) {
    int more = 1;
    show_instructions(s);
    const PoolMark mark = pool_mark(&s->scratch);
    while (more && s->done < s->items) {
        Item x;
        pool_release(&s->scratch, mark);
        make_item(s, &x, s->done);
        show_item(s, &x);
        more = ask(s, &x);
    }
    say("%d of %d answered: %s", s->done, s->items, s->path);
    if (s->done < s->items) say("the same command goes on");
    return 0;
}

int run_label(int argc, char **argv) {
    static Labels o;
    static Session s;
    const char *positional[1];
    Error err = { 0 };
    Option option[] = {
        { "policy", OPT_TEXT, &o.policy, NULL, 0, 0, NULL,
          "model folder of the policy that writes the responses" },
        { "adapter", OPT_TEXT, &o.adapter, NULL, 0, 0, NULL, ADAPTER_HELP },
        { "responses", OPT_INT, &o.responses, "4", 2, RESPONSES_MAX, NULL, "responses to each prompt" },
        { "n", OPT_INT, &o.n, "48", 1, 1e6, NULL, "most tokens of a response" },
        { "query", OPT_INT, &o.query, "8", 1, 1e6, NULL,
          "of a dataset of texts: the first tokens of a text that are the prompt" },
        { "temperature", OPT_REAL, &o.temperature, "1", 0.01, 100, NULL, "divides the logits" },
        { "top-k", OPT_INT, &o.top_k, "0", 0, 1e9, NULL, "draw from the K most probable tokens (0: all)" },
        { "top-p", OPT_REAL, &o.top_p, "1", 0, 1, NULL,
          "draw from the most probable tokens whose probabilities together reach P" },
        { "labeller", OPT_TEXT, &o.labeller, "me", 0, 0, NULL, "the name of the person who ranks" },
        { "out", OPT_TEXT, &o.out, NULL, 0, 0, NULL,
          "the file of answers (without it: labels-NAME.jsonl); if it is there, the labeller goes on" },
        { "instructions", OPT_TEXT, &o.instructions, NULL, 0, 0, NULL, "a text that is shown first" },
        { "items", OPT_INT, &o.items, "0", 0, 1e9, NULL, "only the first so many prompts (0: all)" },
        { "seed", OPT_SEED, &o.seed, "1", 0, 0, NULL, "of the responses and of their order on the screen" },
        QUANT_OPTIONS(o.quant, NF4_HELP),
        COMPUTE_OPTION(o.quant),
    };
    static const Need need[] = {
        { "adapter|responses|n|query|temperature|top-k|top-p|nf4|fp4|compute", "policy",
          "the responses are in the file" },
        QUANT_NEEDS, { NULL, NULL, NULL } };
    Program program = {
        .program = "run label",
        .usage = "DATA [--policy DIR] [options]",
        .about = "Shows a prompt with several responses and takes a ranking, for each training document of a "
                 "dataset, or for each line {\"prompt\": ..., \"responses\": [...]} of a file. "
                 "./prep rankings makes pairs of the answers.",
        OPTIONS(option), .need = need };
    if (cli_parse(&program, argc, argv, positional, 1) < 1) usage_error("which prompts?", NULL);
    quant_options_check(&program, &o.quant, NULL, NULL, 0);
    s.o = &o;
    s.keep = cli_pool();
    s.scratch = cli_pool();
    const int length = o.out ? snprintf(s.path, sizeof s.path, "%s", o.out)
                             : snprintf(s.path, sizeof s.path, "labels-%s.jsonl", o.labeller);
    require(length >= (int)sizeof s.path ? E_RANGE : OK, "a file name is too long", "--out", length,
            (int)sizeof s.path - 1, NULL);
    if (o.instructions)
        must(text_read_all(o.instructions, &s.keep, &s.instructions, &s.instructions_length, &err), &err,
             NULL);
    const char *const input[] = { positional[0], o.policy, o.instructions };
    out_file_check("--out", s.path, input, 3);
    open_data(&s, positional[0], &program);
    lock_answers(&s);
    read_answers(&s);
    if (s.done == s.items) { say("all %d prompts are answered: %s", s.items, s.path); return 0; }
    s.keys = lines_open("-", &s.keep, &err);
    must(err.code, &err, NULL);
    return label_all(&s);
}
