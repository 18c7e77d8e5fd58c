/* run.c - uses what was trained: tokenize, logprobs, score, generate, chat, merge.
 *
 * Needs    every library file. The weights are in one arena whose size follows from the config; the adapter,
 *          the cache and the work space are in other arenas; a pool for scratch memory is emptied after
 *          every line.
 * Weights  are held as the folder stores them (16 bits, 4 bits), or quantised while they are read (--nf4,
 *          --fp4). merge works on floats.
 * Never    changes a file that it reads; never trains (sft, rm and ppo do).
 * Edges    Every input line, even an empty one, gives exactly one output line. Exceptions: `generate
 *          --prompt`, `chat` and `tokenize --show` write for people, and `tokenize --decode` writes texts as
 *          they are, with their line breaks (with --jsonl, each text is on one line). A line that cannot be
 *          used gives a message with its number, an output line {"error": ...} (an empty one where lines are
 *          ids), and in the end exit code 1; the lines after it are answered. */
#include "programs.h"
#include <signal.h>
#include <stdio.h>

/* Most rows of one forward. A longer text is read in blocks, with the cache, and gives the same bits. */
enum { BLOCK = 256 };

/* Does nothing if code is OK. Otherwise prints `run: what: where`, both numbers and the hint, and exits 1. */
static void require(int code, const char *what, const char *where, long long got, long long wanted,
                    const char *hint) {
    Error err = { 0 };
    if (code) must(fail(&err, code, what, where, got, wanted), &err, hint);
}

/* The message if the weights are numbers, but a sum in the forward pass is too large for a float. */
static const char no_number[] = "a logit is a NaN or an infinity";
static const char damaged_model[] = "--compute f32, or another model: this one is damaged";

/* ---- input: lines of text or of ids, JSON lines, or the documents of a dataset ---- */

/* text, n: what was read last; err: what is wrong with it (code OK: nothing). failed: something was wrong
 * with one line at least. Memory in scratch lasts until the next input_next. */
typedef struct {
    const char *path;
    Lines *lines;                           /* NULL: the documents of data, or a text from the command line */
    Dataset data;
    int jsonl, prompts, failed;             /* prompts 1: texts are to be continued */
    long long number;                       /* of the line, or of the document */
    uint64_t texts;                         /* texts of the dataset that were read */
    const char *text; size_t n;
    int joined; size_t split;               /* 1: prompt and response as one text; the prompt's bytes */
    Error err;
    Pool *scratch; PoolMark begin;
} Input;

/* Opens a dataset, a text or, if path is NULL, standard input. ids 1: it is to be lines of ids. */
static Input input_open(const char *path, int jsonl, int ids, int prompts, Pool *pool, Pool *scratch) {
    Error err = { 0 };
    Input in = { .path = path ? path : "-", .jsonl = jsonl, .prompts = prompts, .scratch = scratch,
                 .begin = pool_mark(scratch) };
    if (ids && jsonl) usage_error("--ids or --jsonl, not both", NULL);
    if (!path || !dataset_exists(path)) {
        in.lines = lines_open(in.path, pool, &err);
        must(err.code, &err, "give a file, or nothing to read standard input");
        return in;
    }
    if (ids || jsonl) usage_error(ids ? "a dataset holds texts: leave out --ids"
                                      : "a dataset is not JSONL: leave out --jsonl", path);
    must(dataset_read(&in.data, path, pool, &err), &err, NULL);
    require(prompts && in.data.kind == DATA_PAIRS ? E_ARGUMENT : OK, "a dataset of pairs has no prompts",
            path, 0, 0, "a dataset of texts or of prompts with responses");
    return in;
}

static const char *input_name(const Input *in) { return strcmp(in->path, "-") ? in->path : "standard input"; }

/* Returns what in->number counts. */
static const char *unit_of(const Input *in) { return in->lines ? "line" : "document"; }

/* Records what is wrong with the line that was read last, and what can be done about it. Returns NULL. */
static int *line_error(Input *in, int code, const char *what, const char *advice) {
    char where[200];
    if (in->number) snprintf(where, sizeof where, "%.120s, %s %lld", input_name(in), unit_of(in), in->number);
    else snprintf(where, sizeof where, "%.120s", input_name(in));
    fail(&in->err, code, what, where, 0, 0);
    advise(&in->err, advice);
    return NULL;
}

/* Does so for a number that is too large: the message is `what: got; at most MOST`. */
static int *line_too_large(Input *in, const char *what, long long got, long long most, const char *advice) {
    char text[160];
    snprintf(text, sizeof text, "%.90s: %lld; at most %lld", what, got, most);
    return line_error(in, E_RANGE, text, advice);
}

/* Does so for the code of a forward pass. */
static void forward_error(Input *in, int code) {
    if (code == E_NUMBER) line_error(in, code, no_number, damaged_model);
    else line_error(in, code, "the model's forward failed", NULL);
}

/* Sets in->text to the string under "text" (or "prompt", if prompts are read) of the JSON line. */
static void take_json(Input *in) {
    Error err = { 0 };
    const Json *root = json_parse(in->text, in->n, in->scratch, &err), *text;
    text = in->prompts ? json_get(root, "prompt") : NULL;
    if (!text) text = json_get(root, "text");
    if (text && text->type == JSON_STRING) { in->text = text->string; in->n = text->length; }
    else line_error(in, E_FORMAT, !root ? err.what : in->prompts
                        ? "not a JSON object with a string \"prompt\" or \"text\""
                        : "not a JSON object with a string \"text\"", "correct the line");
}

/* Reads the next text of the dataset: of a pair, chosen, then rejected; prompt and response as one text, or
 * the prompt alone if prompts are read. Returns 0 at the end. */
static int take_document(Input *in) {
    const uint64_t each = in->data.kind == DATA_PAIRS ? 2 : 1, at = in->texts / each;
    if (at >= in->data.count) return 0;
    const Document *d = &in->data.document[at];
    const int k = (int)(in->texts++ % each);
    in->number = (long long)at + 1;
    in->text = d->text[k];
    in->n = d->length[k];
    if (in->data.kind != DATA_PROMPTS || in->prompts) return 1;
    char *both = pool_need(in->scratch, (size_t)d->length[0] + d->length[1] + 1, 1, "a text");
    memcpy(both, d->text[0], d->length[0]);
    memcpy(both + d->length[0], d->text[1], d->length[1]);
    in->text = both;
    in->n += d->length[1];
    in->joined = 1;
    in->split = d->length[0];
    return 1;
}

/* Reads the next text; returns 0 at the end. Flushes all earlier output before it waits for input, since
 * another program may wait for this output before it writes its next line. */
static int input_next(Input *in) {
    pool_release(in->scratch, in->begin);
    memset(&in->err, 0, sizeof in->err);
    in->joined = 0;
    close_line();
    if (!in->lines) return take_document(in);
    if (!lines_next(in->lines, &in->text, &in->n)) return 0;
    in->number++;
    if (in->jsonl) take_json(in);
    return 1;
}

/* Closes the input. Returns the program's exit code: 1 if something was wrong with a line. */
static int input_close(Input *in) {
    Error err = { 0 };
    must(lines_close(in->lines, &err), &err, NULL);
    return cli_exit_code(in->failed);
}

/* Ends the program if a buffer ran out of memory. */
static void need_buffer(const Buffer *b) {
    require(b->failed ? E_MEMORY : OK, "out of memory", "scratch", 0, 0, NULL);
}

static void print_string(const char *text, size_t n, Pool *pool) {
    Buffer b = { 0 };
    b.pool = pool;
    buffer_json_string(&b, text, n);
    need_buffer(&b);
    fwrite(b.data, 1, b.length, stdout);
}

/* If something was wrong with the line, prints the message, and the output line (json 0: an empty one), and
 * returns 1. */
static int line_failed(Input *in, int json) {
    if (!in->err.code) return 0;
    cli_warn(&in->err, NULL);
    in->failed = 1;
    if (json) {
        printf("{\"error\": ");
        print_string(in->err.what, strlen(in->err.what), in->scratch);
        printf("}");
    }
    putchar('\n');
    return 1;
}

/* Returns the ids of the line: numbers in 0 .. V-1, separated by spaces or tabs; NULL if they are not. */
static int *parse_ids(Input *in, int V, int *count) {
    static const char not_ids[] = "not a list of ids";
    static const char advice[] = "numbers below the size of the vocabulary, separated by spaces";
    const char *s = in->text;
    int *ids = pool_need(in->scratch, in->n / 2 + 1, sizeof *ids, "ids");
    size_t i = 0;
    *count = 0;
    for (;;) {
        long long v = 0;
        while (i < in->n && (s[i] == ' ' || s[i] == '\t')) i++;
        if (i == in->n) return ids;
        if (s[i] < '0' || s[i] > '9') return line_error(in, E_FORMAT, not_ids, advice);
        for (; i < in->n && s[i] >= '0' && s[i] <= '9'; i++)
            v = v > INT_MAX ? v : v * 10 + (s[i] - '0');
        if (i < in->n && s[i] != ' ' && s[i] != '\t') return line_error(in, E_FORMAT, not_ids, advice);
        if (v >= V) return line_too_large(in, "an id outside the vocabulary", v, V - 1, advice);
        ids[(*count)++] = (int)v;
    }
}

/* Returns the ids of a text; special 1: with the tokenizer's template around them. */
static int *text_ids(const Tokenizer *t, const char *text, size_t n, int special, Pool *pool, int *count) {
    SpecialIds s = tokenizer_specials(t);
    int before = 0, after = 0, *content, length, *ids;
    require(tokenizer_encode(t, text, n, pool, &content, &length), "out of memory", "tokenizer", 0, 0, NULL);
    if (special) tokenizer_template(t, &before, &after);
    ids = pool_need(pool, (size_t)length + 2, sizeof *ids, "ids");
    *count = 0;
    if (before) ids[(*count)++] = s.bos;
    for (int i = 0; i < length; i++) ids[(*count)++] = content[i];
    if (after) ids[(*count)++] = s.eos;
    return ids;
}

/* Returns the ids of the line that was read last, with the tokenizer's template around them; t NULL: it is a
 * line of ids in 0 .. V-1. NULL: something is wrong with the line. */
static int *line_ids(Input *in, const Tokenizer *t, int V, int *count) {
    char what[160];
    int *ids, i;
    if (in->err.code) return NULL;
    if (!t) return parse_ids(in, V, count);
    ids = text_ids(t, in->text, in->n, 1, in->scratch, count);
    i = first_beyond(ids, *count, V);
    if (i < 0) return ids;
    snprintf(what, sizeof what, "the model has no embedding for the token %.60s, id",
             tokenizer_piece(t, ids[i], NULL));
    return line_too_large(in, what, ids[i], V - 1, resized_model);
}

static void print_ids(const int *ids, int n, const char *separator) {
    for (int i = 0; i < n; i++) printf("%s%d", i ? separator : "", ids[i]);
}

/* ---- tokenize ---- */

/* Prints the text of a line of ids. */
static void decode_line(Input *in, const Tokenizer *t, int jsonl, int special) {
    int count, *ids = parse_ids(in, tokenizer_size(t), &count);
    char *text;
    size_t length;
    if (line_failed(in, jsonl)) return;
    require((special ? tokenizer_decode_all : tokenizer_decode)(t, ids, count, in->scratch, &text, &length),
            "cannot decode", in->path, 0, 0, NULL);
    if (jsonl) { printf("{\"text\": "); print_string(text, length, in->scratch); printf("}"); }
    else fwrite(text, 1, length, stdout);
    putchar('\n');
}

/* Prints the text of the i-th token; color 1: on a background that differs from its neighbours'. */
static void print_token(const char *s, size_t n, int i, int color) {
    if (color) fputs(i % 2 ? "\033[30;43m" : "\033[30;46m", stdout);
    print_visible(s, n, 0);
    if (color) fputs("\033[0m", stdout);
}

/* Prints the text with a background for each token. Bytes that belong to two tokens are printed once; bytes
 * that belong to no token have no background. */
static void print_colored(const char *text, size_t n, const TokenSpan *span, int count) {
    size_t at = 0;
    for (int i = 0; i < count; i++) {
        if (span[i].from > at) { print_visible(text + at, span[i].from - at, 0); at = span[i].from; }
        if (span[i].to > at) { print_token(text + at, span[i].to - at, i, 1); at = span[i].to; }
    }
    print_visible(text + at, n - at, 0);
    putchar('\n');
}

/* Prints one line for each token: its id, the bytes from..to of the text that it stands for (~: the bounds
 * are not exact), its piece in the vocabulary, and these bytes. */
static void show_line(const Input *in, const Tokenizer *t, int special, int color) {
    const char *text = in->text;
    const size_t n = in->n;
    Pool *scratch = in->scratch;
    SpecialIds s = tokenizer_specials(t);
    TokenSpan *inner, *span;
    int before = 0, after = 0, count, *content, *ids;
    require(tokenizer_encode_spans(t, text, n, scratch, &content, &inner, &count), "out of memory",
            "tokenizer", 0, 0, NULL);
    if (special) tokenizer_template(t, &before, &after);
    ids = pool_need(scratch, (size_t)count + 2, sizeof *ids, "ids");
    span = pool_need(scratch, (size_t)count + 2, sizeof *span, "spans");
    for (int i = 0; i < count; i++) { ids[before + i] = content[i]; span[before + i] = inner[i]; }
    count += before + after;
    if (before) { ids[0] = s.bos; span[0] = (TokenSpan){ 0, 0, 1 }; }
    if (after) { ids[count - 1] = s.eos; span[count - 1] = (TokenSpan){ n, n, 1 }; }
    printf("%s %lld: %d token%s, %llu byte%s\n", unit_of(in), in->number, count, count == 1 ? "" : "s",
           (unsigned long long)n, n == 1 ? "" : "s");
    if (color && n) print_colored(text, n, span, count);
    for (int i = 0; i < count; i++) {
        char place[64];
        size_t length;
        const char *piece = tokenizer_piece(t, ids[i], &length);
        snprintf(place, sizeof place, "%s%llu..%llu", span[i].exact ? "" : "~",
                 (unsigned long long)span[i].from, (unsigned long long)span[i].to);
        printf("%8d  %12s  ", ids[i], place);
        if (piece) print_token(piece, length, i, color);
        fputs("  \"", stdout);
        print_visible(text + span[i].from, span[i].to - span[i].from, 0);
        fputs("\"\n", stdout);
    }
}

typedef struct { int jsonl, special, no_special, decode, show, color; } TokenizeOptions;

/* Prints the ids of a line, or with --show a line for each token. */
static void encode_line(Input *in, const Tokenizer *t, const TokenizeOptions *o) {
    int count, *ids;
    if (line_failed(in, 0)) return;
    if (o->show) { show_line(in, t, o->special, o->color); return; }
    ids = text_ids(t, in->text, in->n, o->special, in->scratch, &count);
    print_ids(ids, count, " ");
    putchar('\n');
}

enum { COLOR_AUTO, COLOR_ALWAYS, COLOR_NEVER };

/* Returns 1 if output is to be coloured. Under auto, an environment variable NO_COLOR that is not empty
 * (no-color.org) turns colours off. */
static int wants_color(int asked) {
    const char *no = getenv("NO_COLOR");
    return asked == COLOR_ALWAYS || (asked == COLOR_AUTO && terminal_here() && !(no && *no));
}

static int run_tokenize(int argc, char **argv) {
    TokenizeOptions o;
    Option option[] = {
        { "jsonl", OPT_FLAG, &o.jsonl, NULL, 0, 0, NULL,
          "lines are {\"text\": ...}, so that a text may hold line breaks" },
        { "special", OPT_FLAG, &o.special, NULL, 0, 0, NULL,
          "add the special tokens of the tokenizer's template; with --decode, print special tokens too" },
        NO_SPECIAL_OPTION(o.no_special),
        { "decode", OPT_FLAG, &o.decode, NULL, 0, 0, NULL, "turn lines of ids into text" },
        { "show", OPT_FLAG, &o.show, NULL, 0, 0, NULL,
          "for people: print a line for each token, with its id, the bytes from..to "
          "of the text that it stands for (~: not exact), its piece in the vocabulary, and these bytes" },
        { "color", OPT_CHOICE, &o.color, "auto", 0, 0, "auto|always|never",
          "whether --show uses colours; auto: only in a terminal, unless NO_COLOR is set" },
    };
    static const Need need[] = {
        { "color", "show", NULL }, { "decode", "!show", "--show is for turning text into ids" },
        { "no-special", "!decode", "it is for turning text into ids" },
        { NULL, NULL, NULL } };
    Program program = {
        .program = "run tokenize",
        .usage = "TOKENIZER [FILE] [options]",
        .about =
            "Prints the ids of each line, separated by spaces. "
            "TOKENIZER is a folder with a tokenizer, or a tokenizer.json, tokenizer.model, vocab.json (with "
            "merges.txt beside it) or vocab.txt.",
        OPTIONS(option), .need = need };
    const char *positional[2] = { NULL, NULL };
    int given = cli_parse(&program, argc, argv, positional, 2);
    Pool keep = cli_pool(), scratch = cli_pool();
    Error err = { 0 };
    if (given < 1) usage_error("which tokenizer?", NULL);
    o.color = wants_color(o.color);
    Tokenizer *t = tokenizer_open(positional[0], &keep, &err);
    must(err.code, &err, "TOKENIZER is a tokenizer.json, a tokenizer.model, or a folder with one of them "
                         "or with vocab.json and merges.txt");
    if (o.no_special) tokenizer_split_special(t);
    Input in = input_open(positional[1], o.jsonl && !o.decode, o.decode, 0, &keep, &scratch);
    while (input_next(&in)) {
        if (o.decode) decode_line(&in, t, o.jsonl, o.special);
        else encode_line(&in, t, &o);
    }
    const int code = input_close(&in);
    pool_free(&keep); pool_free(&scratch);
    return code;
}

/* ---- a policy, with the adapter of a run if --adapter is given ---- */

typedef struct {
    ModelConfig config; Model model; Lora lora; const Lora *adapter; Tokenizer *tokenizer;
    Arena weights, adapted, work, ws;
    Cache kv;
    Reading reading; int text[2];           /* with an encoder: the text that it reads, and its bounds */
    /* the arrays of one block of N rows */
    int N, *token, *sequence, *position, *target; unsigned char *wants; float *hidden, *logprob;
} Policy;

/* Returns 1 if the folder has a file of this name. */
static int in_folder(const char *folder, const char *name) {
    char path[1024];
    int n = snprintf(path, sizeof path, "%s/%s", folder, name);
    return n > 0 && (size_t)n < sizeof path && file_exists(path);
}

/* Opens the tokenizer of `folder`, or of `other` if `folder` has none. Returns NULL if neither folder has
 * one, or if it cannot be read (*err says why). */
static Tokenizer *find_tokenizer(const char *folder, const char *other, Pool *pool, Error *err) {
    const char *at = tokenizer_exists(folder, pool) ? folder : NULL;
    if (!at && other && tokenizer_exists(other, pool)) at = other;
    return at ? tokenizer_open(at, pool, err) : NULL;
}

/* Ends the program if --no-special (plain 1) cannot act, since texts are given as ids. */
static void plain_check(int plain, int as_ids) {
    if (plain && as_ids) usage_error("--ids reads no text, so leave out", "--no-special");
}

/* Opens the tokenizer of a model of V ids as find_tokenizer does; plain 1: special tokens in texts are plain
 * text. Ends the program if there is none. */
static Tokenizer *need_tokenizer(const char *folder, const char *other, int V, int plain, Pool *pool) {
    const char *advice = "the tokenizer's files are damaged or of another kind; --ids needs none";
    Error err = { 0 };
    Tokenizer *t = find_tokenizer(folder, other, pool, &err);
    if (!t && !err.code) {
        advice = "put one there, or use --ids";
        tokenizer_open(folder, pool, &err);     /* says which files it looks for */
    }
    must(err.code, &err, advice);
    check_rows(t, V, "model");
    if (plain) tokenizer_split_special(t);
    return t;
}

/* Returns the folder that has the weights: `run` if it is a whole model (ppo and sft write one if they train
 * all weights), else `folder`. */
static const char *weights_folder(const char *folder, const char *run) {
    return run && !in_folder(run, "adapter_config.json") ? run : folder;
}

#define NF4_HELP "hold the linears in 4-bit NF4, as sft --nf4 and ppo --nf4 do when they train an adapter"
#define ADAPTER_HELP "a run folder of ppo or sft, or any PEFT LoRA folder"
#define ADAPTER_ADVICE "BASE --adapter ADAPTER, where BASE is the folder of the model that it adapts"
#define JSONL_OPTION(jsonl) \
    { "jsonl", OPT_FLAG, &(jsonl), NULL, 0, 0, NULL, \
      "lines are {\"text\": ...}, so that a text may hold line breaks" }
#define CONTEXT_HELP "in tokens (0: the model's positions, at most 2048)"
static const char model_hint[] = "MODEL is a Hugging Face folder with config.json and model.safetensors";

/* Returns the number types in which the policy's weights are held. */
static WeightTypes choose_types(const Program *program, const QuantOptions *q, const char *folder,
                                const char *run, Pool *pool) {
    WeightTypes types;
    quant_options_types(&types, program, q, weights_folder(folder, run), 0, pool);
    return types;
}

/* Loads the weights of `folder`, and the adapter of `run` if it has one. positions:
 * tokens of the longest text. */
static void policy_open(Policy *p, const WeightTypes *types, const char *folder, const char *run,
                        int positions, Pool *pool) {
    Error err = { 0 };
    Arena measure = { 0 };
    const char *weights = weights_folder(folder, run);
    if (weights != folder)
        fprintf(stderr, "%s is a whole model, not an adapter: its weights are used, not those of %s\n", run,
                folder);
    open_config(&p->config, weights, model_hint, pool);
    require(positions > p->config.positions ? E_RANGE : OK, "longer than the model's positions", weights,
            positions, p->config.positions, "a smaller --context");
    must(model_carve(&p->model, &p->config, types, 0, positions, pool, &measure, &err), &err, NULL);
    p->weights = cli_arena(measure.used, "the model's weights");
    must(model_carve(&p->model, &p->config, types, 0, positions, pool, &p->weights, &err), &err, NULL);
    open_weights(p->model.tensor, p->model.tensors, weights, "MODEL", NULL, pool);
    say_value_head(weights, pool);
    if (run && weights != run) {
        const LoraConfig c = open_adapter_config(run, 0, pool);
        const Tensor *list = p->model.tensor;
        memset(&measure, 0, sizeof measure);
        must(lora_carve(&p->lora, list, p->model.tensors, &c, 0, pool, &measure, &err), &err, NULL);
        p->adapted = cli_arena(measure.used, "the adapter");
        must(lora_carve(&p->lora, list, p->model.tensors, &c, 0, pool, &p->adapted, &err), &err, NULL);
        open_adapter(&p->lora, list, p->model.tensors, run, pool);
        p->adapter = &p->lora;
    }
}

/* Lays out what an encoder, if there is one, makes of a text of T tokens. */
static void reading_open(Policy *p, Reading *r, Cache *kv, int T, Arena *a) {
    if (!p->config.encoder.L) return;
    reading_carve(r, &p->config, T, 1, 0, 0, a);
    kv->reading = r;
}

/* Lets the encoder read the n ids of a text, and computes what the decoder reads of it. OK or the model's
 * error. */
static int policy_read(Policy *p, Reading *r, const int *ids, int n, Arena *ws) {
    const Texts text = { n, 1, ids, p->text };
    p->text[0] = 0;
    p->text[1] = n;
    return model_encode(&p->model, p->adapter, &text, r, ws);
}

/* Lays out the arrays for blocks of N rows and a cache of T positions. ws: bytes of work space,
 * which the caller has measured. */
static void work_carve(Policy *p, int N, int T, size_t ws, Arena *a) {
    size_t n = (size_t)N;
    p->N = N;
    cache_carve(&p->kv, &p->config.stack, p->config.stack.L, 1, T, a);
    reading_open(p, &p->reading, &p->kv, T, a);
    p->token = arena_take(a, n, sizeof(int)); p->sequence = arena_take(a, n, sizeof(int));
    p->position = arena_take(a, n, sizeof(int)); p->target = arena_take(a, n, sizeof(int));
    p->wants = arena_take(a, n, 1);
    p->hidden = arena_take(a, n * (size_t)p->config.stack.C, sizeof(float));
    p->logprob = arena_take(a, n, sizeof(float));
    p->ws.base = arena_take(a, ws, 1);
    p->ws.capacity = ws;
}

/* Measures and reserves what work_carve lays out. */
static void policy_work(Policy *p, int N, int T, size_t ws) {
    Arena measure = { 0 };
    work_carve(p, N, T, ws, &measure);
    p->work = cli_arena(measure.used, "the cache and work space");
    work_carve(p, N, T, ws, &p->work);
}

/* ---- logprobs ---- */

/* Fills logprob[i] = log p(ids[i+1] | ids[0..i]), i = 0 .. n-2, in blocks of rows; the keys and values of
 * earlier blocks are in the cache. Returns OK, E_NUMBER or the model's error. */
static int policy_logprobs(Policy *p, const int *ids, int n, float *logprob) {
    for (int at = 0; at < n - 1; at += p->N) {
        /* The last id predicts nothing and needs no row. */
        int rows = n - 1 - at < p->N ? n - 1 - at : p->N, code;
        Rows r = { rows, rows, p->token, p->sequence, p->position, p->wants };
        for (int i = 0; i < rows; i++) {
            p->token[i] = ids[at + i]; p->target[i] = ids[at + i + 1];
            p->sequence[i] = 0; p->position[i] = at + i;
            p->wants[i] = 1;
        }
        code = model_forward(&p->model, p->adapter, &r, &p->kv, NULL, p->hidden, &p->ws);
        const HeadTask task = { .target = p->target, .temperature = 1, .logprob = logprob + at };
        if (!code) code = model_logprobs(&p->model, p->adapter, p->hidden, rows, &task, &p->ws);
        if (code) return code;
        for (int i = 0; i < rows; i++)
            if (!isfinite(logprob[at + i])) return E_NUMBER;
    }
    return OK;
}

/* Returns the bytes of work space that a block of N rows needs with a cache of T positions. */
static size_t logprobs_bytes(Policy *p, int N, int T) {
    Arena measure = { 0 };
    Cache kv = { 0 };
    Rows rows = { N, N, NULL, NULL, NULL, NULL };
    Arena nothing = { 0 };
    Reading reading;
    kv.L = p->config.stack.L; kv.B = 1; kv.T = T; kv.width = p->config.stack.K * p->config.stack.D;
    reading_open(p, &reading, &kv, T, &nothing);
    if (kv.reading) policy_read(p, &reading, NULL, T, &measure);
    model_forward(&p->model, p->adapter, &rows, &kv, NULL, NULL, &measure);
    const HeadTask task = { .temperature = 1 };
    model_logprobs(&p->model, p->adapter, NULL, rows.W, &task, &measure);
    return measure.peak;
}

/* Returns how many tokens the longest text may have: `asked`, or if that is 0, the model's positions but at
 * most 2048, since the cache grows with them. */
static int context_length(int asked, const char *folder, Pool *pool) {
    Error err = { 0 };
    ModelConfig c;
    must(config_load(&c, folder, pool, &err), &err, model_hint);
    return asked ? asked : c.positions < 2048 ? c.positions : 2048;
}

static void print_logprobs(const int *ids, int count, const float *logprob) {
    printf("{\"ids\": [");
    print_ids(ids, count, ", ");
    printf("], \"logprobs\": [");
    for (int i = 0; i + 1 < count; i++) printf("%s%.9g", i ? ", " : "", (double)logprob[i]);
    printf("]}\n");
}

/* Returns what to do about a text of n tokens, which are more than --context. */
static const char *length_advice(const Policy *p, int n) {
    return n > p->config.positions ? "a shorter text" : "a larger --context";
}

/* Lets the encoder read the prompt of the line, and returns the ids of the response: what follows the line's
 * first tab, or a dataset's response. With ids the response's first one is given, with texts it is the
 * model's. NULL: something is wrong with the line. *code: of the encoder. */
static int *read_pair(Policy *p, Input *in, int context, int *count, int *code) {
    const char *tab = in->joined ? in->text + in->split : memchr(in->text, '\t', in->n);
    const size_t skip = in->joined ? 0 : 1;
    Input prompt = *in, response = *in;
    int n, more, *ids, *answer;
    if (in->err.code) return NULL;
    if (!tab)
        return line_error(in, E_FORMAT, "no tab between what the encoder and what the decoder reads",
                          "PROMPT, a tab, RESPONSE; or a dataset of prompts with responses");
    prompt.n = (size_t)(tab - in->text);
    response.text = tab + skip;
    response.n = in->n - prompt.n - skip;
    ids = line_ids(&prompt, p->tokenizer, p->config.V, &n);
    answer = ids ? line_ids(&response, p->tokenizer, p->config.V, &more) : NULL;
    in->err = prompt.err.code ? prompt.err : response.err;
    if (!answer) return NULL;
    if (!n || n > context)
        return n ? line_too_large(in, "tokens of a prompt", n, context, length_advice(p, n))
                 : line_error(in, E_FORMAT, "an empty prompt", "at least one token before the tab");
    *code = policy_read(p, &p->reading, ids, n, &p->ws);
    if (!p->tokenizer) { *count = more; return answer; }
    ids = pool_need(in->scratch, (size_t)more + 1, sizeof *ids, "ids");
    ids[0] = p->config.start;
    memcpy(ids + 1, answer, (size_t)more * sizeof *ids);
    *count = more + 1;
    return ids;
}

static int run_logprobs(int argc, char **argv) {
    const char *adapter, *positional[2] = { NULL, NULL };
    int as_ids, jsonl, plain, context;
    QuantOptions quant = { 0 };
    Option option[] = {
        { "adapter", OPT_TEXT, &adapter, NULL, 0, 0, NULL, ADAPTER_HELP },
        { "ids", OPT_FLAG, &as_ids, NULL, 0, 0, NULL,
          "lines are ids separated by spaces; nothing is added to them" },
        JSONL_OPTION(jsonl),
        NO_SPECIAL_OPTION(plain),
        { "context", OPT_INT, &context, "0", 0, 1e9, NULL, "longest text " CONTEXT_HELP },
        QUANT_OPTIONS(quant, NF4_HELP),
        COMPUTE_OPTION(quant),
    };
    static const Need need[] = {
        QUANT_NEEDS,
        { NULL, NULL, NULL } };
    Program program = {
        .program = "run logprobs",
        .usage = "MODEL [FILE] [options]",
        .about =
            "Prints a JSON line for each line (or text of a dataset): its ids, and the log-probability of "
            "each id after the first, given the ids before it. A line that cannot be read gives "
            "{\"error\": ...}.",
        OPTIONS(option), .need = need };
    int given = cli_parse(&program, argc, argv, positional, 2), count;
    Pool keep = cli_pool(), scratch = cli_pool();
    Policy p = { 0 };
    if (given < 1) usage_error("which model?", NULL);
    plain_check(plain, as_ids);
    adapter_as_model(&positional[0], &adapter, ADAPTER_ADVICE, &keep);
    quant_options_check(&program, &quant, NULL, NULL, 0);
    context = context_length(context, weights_folder(positional[0], adapter), &keep);
    const WeightTypes types = choose_types(&program, &quant, positional[0], adapter, &keep);
    policy_open(&p, &types, positional[0], adapter, context, &keep);
    if (!as_ids) p.tokenizer = need_tokenizer(positional[0], adapter, p.config.V, plain, &keep);
    int N = context < BLOCK ? context : BLOCK;
    policy_work(&p, N, context, logprobs_bytes(&p, N, context));
    Input in = input_open(positional[1], jsonl, as_ids, 0, &keep, &scratch);
    while (input_next(&in)) {
        int code = OK;
        int *ids = p.config.encoder.L ? read_pair(&p, &in, context, &count, &code)
                                      : line_ids(&in, p.tokenizer, p.config.V, &count);
        if (ids && count > context)
            ids = line_too_large(&in, "tokens of a text", count, context, length_advice(&p, count));
        float *logprob = pool_need(&scratch, ids ? (size_t)count + 1 : 1, sizeof(float), "log-probabilities");
        if (ids && !code) code = policy_logprobs(&p, ids, count, logprob);
        if (code) forward_error(&in, code);
        if (!line_failed(&in, 1)) print_logprobs(ids, count, logprob);
    }
    return input_close(&in);
}

/* ---- score ---- */

/* Opens a reward model, and its adapter if it has one; without its tokenizer. */
static void judge_open(Judge *j, const Program *program, const QuantOptions *q, Pool *pool) {
    Arena weights = { 0 };
    judge_options_types(&j->types, program, q, &j->config, j->folder, 0, pool);
    judge_carve(j, pool, &weights);
    weights = cli_arena(weights.used, "the reward model's weights");
    judge_carve(j, pool, &weights);
    judge_load(j, "REWARD", pool);
}

/* Returns the work space for texts of the greatest length. */
static Arena judge_work(const Judge *j) {
    int start[2] = { 0, reward_max_tokens(&j->config) };
    const Texts longest = { start[1], 1, NULL, start };
    Arena ws = { 0 };
    reward_forward(&j->model, j->adapter, &longest, NULL, NULL, &ws);
    return cli_arena(ws.peak, "work space");
}

/* Returns the ids of a line's text; of an empty text, what stands for it. The end of a text that is too long
 * is cut off before the template's last id, as transformers does it; *cut: how many ids. */
static int *judge_ids(const Judge *j, Input *in, int *count, int *cut) {
    int *ids = line_ids(in, j->tokenizer, j->config.V, count), before, after;
    if (!ids) return NULL;
    const int most = judge_limit(&j->config, j->tokenizer), empty = empty_text_id(j->tokenizer);
    tokenizer_template(j->tokenizer, &before, &after);
    if (!*count && empty >= 0) ids[(*count)++] = empty;
    *cut = *count > most ? *count - most : 0;
    if (!*cut) return ids;
    if (after) ids[most - 1] = ids[*count - 1];
    *count = most;
    fprintf(stderr, "run score: the last %d tokens of a text were cut off, since the judge reads %d: %.120s, "
            "%s %lld\n", *cut, most - before - after, input_name(in), unit_of(in), in->number);
    return ids;
}

/* Prints "NAME": p, the probability of label k: of the softmax over the logits, or if there is only one, its
 * sigmoid, as in transformers' pipelines. */
static void print_probability(const Judge *j, const float *logits, int k, Pool *scratch) {
    const int labels = j->config.labels;
    double sum = 0;
    for (int i = 0; i < labels; i++) sum += exp((double)logits[i] - (double)logits[k]);
    print_string(j->config.label[k], strlen(j->config.label[k]), scratch);
    printf(": %.9g", labels > 1 ? 1 / sum : 1 / (1 + exp(-(double)logits[k])));
}

/* Prints the logits of one text, each label's probability, the label of the largest logit; and if the text's
 * end was cut off, of how many tokens. ids NULL: something is wrong with the line. */
static void score_line(const Judge *j, Arena *ws, Input *in, const int *ids, int count, int cut) {
    float logits[LABELS_MAX];
    int start[2] = { 0, count }, best = 0, labels = count ? j->config.labels : 0, code = OK;
    Texts text = { count, 1, ids, start };
    const int most = reward_max_tokens(&j->config);
    if (ids && count > most)
        ids = line_too_large(in, "ids for the reward model", count, most, "fewer ids: --ids are never cut");
    if (ids && count) code = reward_forward(&j->model, j->adapter, &text, NULL, logits, ws);
    for (int i = 0; ids && i < labels && !code; i++)
        if (!isfinite(logits[i])) code = E_NUMBER;
    if (code) forward_error(in, code);
    if (line_failed(in, 1)) return;
    printf("{\"logits\": [");
    for (int i = 0; i < labels; i++) {
        printf("%s%.9g", i ? ", " : "", (double)logits[i]);
        if (logits[i] > logits[best]) best = i;
    }
    printf("], \"probabilities\": {");
    for (int i = 0; i < labels; i++) {
        if (i) printf(", ");
        print_probability(j, logits, i, in->scratch);
    }
    printf("}, \"label\": ");
    if (labels) print_string(j->config.label[best], strlen(j->config.label[best]), in->scratch);
    else printf("null");
    if (cut) printf(", \"tokens_cut\": %d", cut);
    printf("}\n");
}

static int run_score(int argc, char **argv) {
    const char *adapter, *positional[2] = { NULL, NULL };
    int as_ids, jsonl, plain, count;
    QuantOptions quant = { 0 };
    Option option[] = {
        { "adapter", OPT_TEXT, &adapter, NULL, 0, 0, NULL,
          "a run folder of rm --lora-r, or any PEFT LoRA folder of a judge" },
        { "ids", OPT_FLAG, &as_ids, NULL, 0, 0, NULL,
          "lines are ids separated by spaces; nothing is added to them" },
        JSONL_OPTION(jsonl),
        NO_SPECIAL_OPTION(plain),
        QUANT_OPTIONS(quant, "hold the linears in 4-bit NF4, as rm --nf4 and ppo --reward-nf4 do"),
        COMPUTE_OPTION(quant),
    };
    static const Need need[] = {
        QUANT_NEEDS,
        { NULL, NULL, NULL } };
    Program program = {
        .program = "run score",
        .usage = "REWARD [FILE] [options]",
        .about =
            "Prints a JSON line for each line (or text of a dataset; of a pair, chosen, then rejected; "
            "prompt and response together): the reward model's logits, each label's probability (of the "
            "softmax; if there is one label, its sigmoid), and the label with the largest logit. "
            "The end of a text that is too long is cut off; a message and \"tokens_cut\" in its line say so. "
            "An empty text is scored as bos or eos alone if the tokenizer's template adds no token.",
        OPTIONS(option), .need = need };
    int given = cli_parse(&program, argc, argv, positional, 2);
    Pool keep = cli_pool(), scratch = cli_pool();
    Judge j;
    if (given < 1) usage_error("which reward model?", NULL);
    plain_check(plain, as_ids);
    quant_options_check(&program, &quant, NULL, NULL, 0);
    judge_find(&j, positional[0], adapter, &keep);
    judge_open(&j, &program, &quant, &keep);
    Arena work = judge_work(&j);
    if (!as_ids)
        j.tokenizer = need_tokenizer(j.adapter_folder ? j.adapter_folder : j.folder, j.folder, j.config.V,
                                     plain, &keep);
    Input in = input_open(positional[1], jsonl, as_ids, 0, &keep, &scratch);
    while (input_next(&in)) {
        int cut = 0;
        int *ids = as_ids ? line_ids(&in, NULL, j.config.V, &count) : judge_ids(&j, &in, &count, &cut);
        score_line(&j, &work, &in, ids, count, cut);
    }
    return input_close(&in);
}

/* ---- generate ---- */

/* A text that is printed while its ids arrive. Each time, all ids are decoded and only the new part of the
 * text is printed, because a token's neighbours may change its spaces and bytes. hidden: an id that ends the
 * text and is not printed; -1: there is none. */
typedef struct {
    const Tokenizer *tokenizer; const int *ids; int count;
    size_t printed; Pool *pool; int hidden;
} Stream;

/* Returns how many bytes of the text are final. Leaves out an incomplete character at the end, whose other
 * bytes are still to come, and each U+FFFD at the end, which may stand for such bytes. */
static size_t settled(const char *text, size_t n) {
    size_t back = 0;
    while (back < 3 && back < n && ((unsigned char)text[n - 1 - back] & 0xC0) == 0x80) back++;
    if (back < n) {
        unsigned lead = (unsigned char)text[n - 1 - back];
        size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
        if (length > back + 1) n -= back + 1;
    }
    while (n >= 3 && !memcmp(text + n - 3, "\xEF\xBF\xBD", 3)) n -= 3;
    return n;
}

/* Prints the new part of the text, up to its last final byte; last 1: to its end. */
static void stream_print(Stream *s, int last) {
    PoolMark mark = pool_mark(s->pool);
    char *text;
    size_t n;
    if (tokenizer_decode(s->tokenizer, s->ids, s->count, s->pool, &text, &n) == OK) {
        if (!last) n = settled(text, n);
        if (n > s->printed) { fwrite(text + s->printed, 1, n - s->printed, stdout); s->printed = n; }
        close_line();
    }
    pool_release(s->pool, mark);
}

/* During an answer of chat, the first Ctrl-C ends the answer, and the second one the program. Between
 * answers, the first one ends the program. */
static volatile sig_atomic_t reply_stopped;
static void on_interrupt(int number) {
    signal(number, SIG_DFL);
    reply_stopped = 1;
}

/* Prints the text up to a new token; model_generate calls this. Returns 1 if the text is to end. */
static int stream_token(void *context, int sequence, int token) {
    Stream *s = context;
    (void)sequence;
    if (token == s->hidden) return 1;
    s->count++;
    stream_print(s, 0);
    return cli_stopping() || reply_stopped;
}

/* Returns the bytes of work space that model_generate needs for this sequence and cache. */
static size_t generate_bytes(Policy *p, Sequence seq, Cache kv) {
    Arena measure = { 0 }, nothing = { 0 };
    Reading reading;
    const Writing greedy = { .adapter = p->adapter, .sampling = { 0, 0, 1 } };
    kv.k = kv.v = NULL;
    reading_open(p, &reading, &kv, kv.T, &nothing);
    if (kv.reading) policy_read(p, &reading, NULL, kv.T, &measure);
    model_generate(&p->model, &greedy, &seq, 1, &kv, &measure);
    return measure.peak;
}

/* Writes the tokens of one sequence; ends the program if that fails. */
static void write_tokens(Policy *p, const Writing *w, Sequence *s) {
    const int code = model_generate(&p->model, w, s, 1, &p->kv, &p->ws);
    if (code && w->on_token) putchar('\n');         /* the message begins after the text that is printed */
    require(code, code == E_NUMBER ? no_number : "the model's forward failed", "", 0, 0,
            damaged_model);
}

/* Reserves a sequence of T tokens, of which the prompt has at most `longest`, and its
 * cache and work space. */
static Sequence sequence_open(Policy *p, int longest, int T, Pool *pool) {
    Sequence s = { 0 };
    Cache kv = { 0 };
    kv.L = p->config.stack.L; kv.B = 1; kv.T = T; kv.width = p->config.stack.K * p->config.stack.D;
    s.token = pool_need(pool, (size_t)T, sizeof(int), "the sequence");
    s.logprob = pool_need(pool, (size_t)T, sizeof(float), "the sequence");
    s.prompt = s.length = longest ? longest : 1; s.capacity = T;
    policy_work(p, 1, T, generate_bytes(p, s, kv));
    return s;
}

typedef struct {
    const char *adapter, *prompt;
    int as_ids, jsonl, plain, n, context, greedy, top_k, ignore_eos;
    double temperature, top_p;
    uint64_t seed;
    QuantOptions quant;
} Generate;

/* Writes up to n tokens after the prompt, `count` ids. The text of --prompt is printed while it is written;
 * that of another prompt at its end, as a JSON line. */
static void generate_one(Policy *p, const Generate *g, Sequence *s, const int *ids, int count, int n,
                         Input *in) {
    const Sampling how = { g->greedy ? 0 : (float)g->temperature, g->top_k, (float)g->top_p };
    Stream stream = { p->tokenizer, s->token, count, 0, in->scratch, -1 };
    int live = !g->as_ids && g->prompt;
    const Writing writing = { .adapter = p->adapter, .sampling = how,
                              .on_token = live ? stream_token : NULL, .context = &stream };
    if (p->config.encoder.L) {
        require(policy_read(p, &p->reading, ids, count, &p->ws), "the model's encoder failed", "", 0, 0,
                damaged_model);
        if (g->as_ids) { print_ids(ids, count, " "); putchar('\t'); }
        s->token[0] = p->config.start;
        count = 1;
        stream.ids = s->token + 1;          /* the start is no part of the text */
        stream.count = 0;
    } else memcpy(s->token, ids, (size_t)count * sizeof(int));
    s->prompt = s->length = count;
    s->capacity = count + n;
    s->stop_at_eos = !g->ignore_eos; s->done = 0;
    if (live) stream_print(&stream, 0);
    if (n) write_tokens(p, &writing, s);
    stream.count = s->length - (int)(stream.ids - s->token);
    if (live) stream_print(&stream, 1);
    else if (g->as_ids) print_ids(s->token, s->length, " ");
    else {
        char *text;
        size_t length;
        require(tokenizer_decode(p->tokenizer, stream.ids, stream.count, in->scratch, &text, &length),
                "cannot decode", "output", 0, 0, NULL);
        printf("{\"text\": ");
        print_string(text, length, in->scratch);
        printf("}");
    }
    putchar('\n');
    close_line();
}

/* Returns how many new tokens a prompt of `count` ids may get, if T fit in all; 0 for a prompt without ids,
 * which cannot be continued. Records an error if the prompt is too long. positions: the model's. */
static int new_tokens(const Generate *g, Input *in, int count, int T, int positions) {
    const long long wanted = (long long)count + (g->n ? g->n : 1);
    const char *advice = wanted > positions ? "a smaller -n or a shorter prompt"
                                            : "a smaller -n, a shorter prompt, or a larger --context";
    if (!count) return 0;
    if (wanted > T) line_too_large(in, "tokens of the prompt and new ones", wanted, T, advice);
    return g->n ? g->n : T - count < 256 ? T - count : 256;
}

/* Returns how many tokens the longest prompt and its new ones may have; count: the ids of --prompt. */
static int generate_length(const Generate *g, int positions, int count) {
    const long long T = (g->prompt ? (long long)count : 2048) + (g->n ? g->n : 256);
    if (g->context) return g->context;
    return T < positions ? (int)T : positions;
}

/* Continues the prompt of --prompt, `count` ids, or every text of the input (ids NULL). Without --prompt, a
 * signal ends the program at once, since the program may be waiting for a line. Returns the exit code. */
static int generate_all(Policy *p, const Generate *g, Input *in, int *ids, int count, int T, Pool *keep) {
    Sequence s = sequence_open(p, T, T, keep);
    if (g->prompt) cli_interrupts();
    for (uint64_t i = 0; g->prompt ? i == 0 : input_next(in); i++) {
        if (!g->prompt) ids = line_ids(in, p->tokenizer, p->config.V, &count);
        const int more = ids ? new_tokens(g, in, count, T, p->config.positions) : 0;
        s.rng = rng_stream(g->seed, 0, i);
        if (!line_failed(in, !g->as_ids)) generate_one(p, g, &s, ids, count, more, in);
    }
    return input_close(in);
}

static int run_generate(int argc, char **argv) {
    Generate g;
    const char *positional[2] = { NULL, NULL };
    Option option[] = {
        { "prompt", OPT_TEXT, &g.prompt, NULL, 0, 1, NULL,
          "the beginning of the text; without it, each line of FILE or standard input is a prompt" },
        { "n", OPT_INT, &g.n, "0", 0, 1e9, NULL,
          "most new tokens (0: 256, or fewer if no more fit)" },
        { "context", OPT_INT, &g.context, "0", 0, 1e9, NULL,
          "tokens of the longest prompt and its new ones (0: the model's positions, at most 2048 + n)" },
        { "greedy", OPT_FLAG, &g.greedy, NULL, 0, 0, NULL, "always take the most probable token" },
        { "temperature", OPT_REAL, &g.temperature, "1", 0, 100, NULL, "divides the logits; 0 is --greedy" },
        { "top-k", OPT_INT, &g.top_k, "0", 0, 1e9, NULL, "draw from the K most probable tokens (0: all)" },
        { "top-p", OPT_REAL, &g.top_p, "1", 0, 1, NULL,
          "draw from the most probable tokens whose probabilities together reach P" },
        { "seed", OPT_SEED, &g.seed, "1", 0, 0, NULL, "random seed; the same seed gives the same text" },
        { "adapter", OPT_TEXT, &g.adapter, NULL, 0, 0, NULL, ADAPTER_HELP },
        { "ids", OPT_FLAG, &g.as_ids, NULL, 0, 0, NULL,
          "read prompts as ids, and write the ids of prompt and new text" },
        { "jsonl", OPT_FLAG, &g.jsonl, NULL, 0, 0, NULL,
          "lines are {\"prompt\": ...} or {\"text\": ...}, so that a prompt may hold line breaks" },
        NO_SPECIAL_OPTION(g.plain),
        { "ignore-eos", OPT_FLAG, &g.ignore_eos, NULL, 0, 0, NULL, "do not stop at the end-of-text token" },
        QUANT_OPTIONS(g.quant, NF4_HELP),
        COMPUTE_OPTION(g.quant),
    };
    static const Need need[] = {
        { "temperature|top-k|top-p|seed", "!greedy", "nothing is drawn" },
        { "top-k|top-p|seed", "temperature", "nothing is drawn" }, QUANT_NEEDS,
        { NULL, NULL, NULL } };
    Program program = {
        .program = "run generate",
        .usage = "MODEL [FILE] [options]",
        .about =
            "Continues --prompt, or each line of FILE or standard input, or each text or prompt of a dataset "
            "(a JSON line for each; with --ids, of ids). A line that cannot be used gives {\"error\": ...}.",
        OPTIONS(option), .need = need };
    int given = cli_parse(&program, argc, argv, positional, 2), count = 0, *ids = NULL;
    Pool keep = cli_pool(), scratch = cli_pool();
    Error err = { 0 };
    Policy p = { 0 };
    if (given < 1) usage_error("which model?", NULL);
    plain_check(g.plain, g.as_ids);
    adapter_as_model(&positional[0], &g.adapter, ADAPTER_ADVICE, &keep);
    quant_options_check(&program, &g.quant, NULL, NULL, 0);
    if (g.prompt && (given > 1 || g.jsonl))
        usage_error("--prompt or a file of prompts, not both", given > 1 ? positional[1] : "--jsonl");
    must(config_load(&p.config, weights_folder(positional[0], g.adapter), &keep, &err), &err, model_hint);
    if (!g.as_ids) p.tokenizer = need_tokenizer(positional[0], g.adapter, p.config.V, g.plain, &keep);
    Input in = { .path = "--prompt", .text = g.prompt, .scratch = &scratch };
    if (!g.prompt) in = input_open(positional[1], g.jsonl, g.as_ids, 1, &keep, &scratch);
    else { in.n = strlen(g.prompt); ids = line_ids(&in, p.tokenizer, p.config.V, &count); }
    const int T = generate_length(&g, p.config.positions, count);
    if (ids) new_tokens(&g, &in, count, T, p.config.positions);
    must(in.err.code, &in.err, NULL);
    const WeightTypes types = choose_types(&program, &g.quant, positional[0], g.adapter, &keep);
    policy_open(&p, &types, positional[0], g.adapter, T, &keep);
    if (p.tokenizer) report_padding(p.config.V, p.tokenizer);
    return generate_all(&p, &g, &in, ids, count, T, &keep);
}

/* ---- chat ---- */

/* T: how many tokens fit. full: something did not fit. line_break: a line break comes
 * before the next message. segment: text that is not encoded yet; the text between two
 * marker tokens is encoded as a whole. */
typedef struct {
    Policy *p; const ChatTemplate *how; Sequence s;
    int T, bos, full, line_break;
    Buffer segment;
    Pool *pool;
} Chat;

/* Appends ids to the conversation; if they do not fit, sets c->full. */
static void chat_push(Chat *c, const int *ids, int count) {
    if (count > c->T - c->s.length) c->full = 1;
    for (int i = 0; i < count && !c->full; i++) c->s.token[c->s.length++] = ids[i];
}

/* Encodes the segment as plain text, and appends its ids: a special token's letters that were
 * typed do not become that token. */
static void chat_flush(Chat *c) {
    int *ids, count, first = c->s.length == (c->bos >= 0);
    need_buffer(&c->segment);
    if (!c->segment.length) return;
    require(tokenizer_encode_plain(c->p->tokenizer, (const char *)c->segment.data, c->segment.length, first,
                                   c->pool, &ids, &count), "out of memory", "tokenizer", 0, 0, NULL);
    need_rows(c->p->tokenizer, ids, count, c->p->config.V, "model");
    chat_push(c, ids, count);
    c->segment.length = 0;
}

/* Appends a marker of the template (NULL: nothing): its token, or its letters if the
 * vocabulary has no such token. */
static void chat_marker(Chat *c, const char *marker) {
    int id = marker ? tokenizer_find(c->p->tokenizer, marker, strlen(marker)) : -1;
    if (!marker) return;
    if (id < 0 || id >= c->p->config.V) { buffer_text(&c->segment, marker); return; }
    chat_flush(c);
    chat_push(c, &id, 1);
}

/* Appends the beginning of a message, up to its content. */
static void chat_role(Chat *c, const char *role) {
    if (c->line_break) buffer_text(&c->segment, "\n");
    c->line_break = 0;
    chat_marker(c, c->how->begin);
    buffer_text(&c->segment, c->how->before);
    if (c->how->end) buffer_text(&c->segment, role);
    buffer_text(&c->segment, c->how->after);
}

/* Appends a whole message of n bytes. */
static void chat_message(Chat *c, const char *role, const char *text, size_t n) {
    chat_role(c, role);
    buffer_bytes(&c->segment, text, n);
    chat_marker(c, c->how->end);
    c->line_break = c->how->end != NULL;
}

/* Empties the conversation and begins a new one, with bos if the tokenizer's template has it, and with the
 * system's message if there is one. */
static void chat_begin(Chat *c, const char *system) {
    c->s.length = c->full = c->line_break = 0;
    if (c->bos >= 0) chat_push(c, &c->bos, 1);
    if (system) chat_message(c, "system", system, strlen(system));
}

/* Writes the model's answer, of at most `longest` tokens, and prints it while it is written. The conversation
 * keeps the answer without the token that ended it. */
static void chat_answer(Chat *c, int longest, const Sampling *sampling) {
    const ModelConfig *config = &c->p->config;
    int stop = c->how->end ? tokenizer_find(c->p->tokenizer, c->how->end, strlen(c->how->end)) : -1;
    /* plain text is decoded from its beginning, since the answer may begin with a space */
    int from = c->how->end ? c->s.length : 0, last, ended = 0;
    Stream stream = { c->p->tokenizer, c->s.token + from, c->s.length - from, 0, c->pool, stop };
    const Writing writing = { .adapter = c->p->adapter, .sampling = *sampling, .on_token = stream_token,
                              .context = &stream };
    char *text;
    if (tokenizer_decode(c->p->tokenizer, stream.ids, stream.count, c->pool, &text, &stream.printed))
        stream.printed = 0;
    c->s.prompt = c->s.length;
    c->s.capacity = longest < c->T - c->s.length ? c->s.length + longest : c->T;
    c->s.stop_at_eos = 1; c->s.done = 0;
    reply_stopped = 0;
    signal(SIGINT, on_interrupt);
    write_tokens(c->p, &writing, &c->s);
    signal(SIGINT, SIG_DFL);
    stream_print(&stream, 1);
    putchar('\n');
    last = c->s.length > c->s.prompt ? c->s.token[c->s.length - 1] : -1;
    for (int i = 0; i < config->eos_count; i++) ended |= last == config->eos[i];
    if (last >= 0 && c->how->end && (ended || last == stop)) c->s.length--;
    else if (!ended && !reply_stopped && c->s.length == c->T)
        fprintf(stderr, "run chat: the answer ends here: the conversation fills all %d positions\n", c->T);
    chat_marker(c, c->how->end);
    c->line_break = c->how->end != NULL;
}

/* Appends the user's text and the model's answer. If the user's text does not fit, removes it from the
 * conversation and returns 0; otherwise returns 1. */
static int chat_turn(Chat *c, const char *line, size_t n, int longest, const Sampling *sampling) {
    int length = c->s.length, line_break = c->line_break;
    PoolMark mark = pool_mark(c->pool);
    memset(&c->segment, 0, sizeof c->segment);
    c->segment.pool = c->pool;
    chat_message(c, "user", line, n);
    if (c->how->end) chat_role(c, "assistant");
    chat_flush(c);
    if (c->full || c->s.length >= c->T) {
        c->s.length = length; c->line_break = line_break; c->full = 0;
        pool_release(c->pool, mark);
        return 0;
    }
    if (c->s.length) chat_answer(c, longest, sampling);    /* without a token there is nothing to continue */
    chat_flush(c);
    c->full = 0;
    pool_release(c->pool, mark);
    return 1;
}

/* Returns the kind of template. The markers in chat_template of tokenizer_config.json, or in
 * chat_template.jinja, tell it; the template itself is never executed. Without both, the
 * vocabulary's tokens tell it. */
static int find_template(const Tokenizer *t, const char *folder, Pool *pool) {
    Error err = { 0 };
    const char *text = tokenizer_chat_template(t);
    char path[1024], *bytes;
    size_t n;
    if (!text && in_folder(folder, "chat_template.jinja")) {
        snprintf(path, sizeof path, "%s/chat_template.jinja", folder);
        must(file_read_all(path, pool, &bytes, &n, &err), &err, "name the template with --template");
        text = bytes;
    }
    if (!text && tokenizer_find(t, "<|im_start|>", 12) >= 0 && tokenizer_find(t, "<|im_end|>", 10) >= 0)
        return CHAT_ML;
    if (text && strstr(text, "<|im_start|>")) return CHAT_ML;
    if (text && strstr(text, "<|user|>") && strstr(text, "<|assistant|>") && !strstr(text, "<|end|>"))
        return CHAT_ZEPHYR;
    require(text ? E_UNSUPPORTED : E_MISSING, text ? "its chat_template is neither chatml nor zephyr"
                                                   : "the folder has no chat template", folder, 0, 0,
            "--template chatml, --template zephyr, or --template none for plain texts, one after another");
    return CHAT_NONE;
}

typedef struct {
    const char *adapter, *system;
    int n, top_k, template, context;
    double temperature, top_p;
    uint64_t seed;
    QuantOptions quant;
} ChatOptions;

static const char CHAT_HELP[] = "/new   a new conversation, which knows nothing of this one\n"
                                "/quit  the end, as the end of input\n"
                                "Ctrl-C ends an answer; between answers it ends the program\n"
                                "all else is said to the model\n";

static int is_command(const Input *in, const char *name) {
    return in->n == strlen(name) && !memcmp(in->text, name, in->n);
}

/* Reads the user's lines and answers each, until /quit or the end of input. Returns the program's exit code:
 * 1 if something did not fit, else 0. */
static int chat_loop(Chat *c, const ChatOptions *o, Pool *keep) {
    Sampling sampling = { (float)o->temperature, o->top_k, (float)o->top_p };
    Input in = input_open(NULL, 0, 0, 0, keep, c->pool);
    const int typed = cli_typed();
    int refused = 0;
    memset(&c->segment, 0, sizeof c->segment);
    c->segment.pool = keep;
    chat_begin(c, o->system);
    chat_flush(c);
    while (!c->full) {
        if (typed) fprintf(stderr, "> ");
        if (!input_next(&in) || is_command(&in, "/quit")) break;
        if (is_command(&in, "/help")) fputs(CHAT_HELP, stderr);
        else if (is_command(&in, "/new")) {
            c->segment.pool = keep; c->segment.data = NULL; c->segment.length = c->segment.capacity = 0;
            chat_begin(c, o->system);
            chat_flush(c);
        } else if (!chat_turn(c, in.text, in.n, o->n, &sampling)) {
            refused = 1;
            fprintf(stderr, "run chat: that does not fit: the conversation fills all %d positions; "
                            "/new starts a new one\n", c->T);
        }
    }
    if (c->full) fprintf(stderr, "run chat: --system alone fills all %d positions\n", c->T);
    if (typed) fprintf(stderr, "\n");
    in.failed = refused || c->full;
    return input_close(&in);
}

static int run_chat(int argc, char **argv) {
    const char *positional[1] = { NULL };
    ChatOptions o;
    Option option[] = {
        { "template", OPT_CHOICE, &o.template, "auto", 0, 0, "auto|none|chatml|zephyr",
          "form of messages; auto: as the folder says; none: plain texts, one after another" },
        { "system", OPT_TEXT, &o.system, NULL, 0, 0, NULL, "a message to the model before the conversation" },
        { "n", OPT_INT, &o.n, "256", 1, 1e9, NULL, "most tokens of an answer" },
        { "context", OPT_INT, &o.context, "0", 0, 1e9, NULL, "longest conversation " CONTEXT_HELP },
        { "temperature", OPT_REAL, &o.temperature, "0.7", 0, 100, NULL,
          "divides the logits; 0: always take the most probable token" },
        { "top-k", OPT_INT, &o.top_k, "0", 0, 1e9, NULL, "draw from the K most probable tokens (0: all)" },
        { "top-p", OPT_REAL, &o.top_p, "0.9", 0, 1, NULL,
          "draw from the most probable tokens whose probabilities together reach P" },
        { "seed", OPT_SEED, &o.seed, "1", 0, 0, NULL, "random seed" },
        { "adapter", OPT_TEXT, &o.adapter, NULL, 0, 0, NULL, ADAPTER_HELP },
        QUANT_OPTIONS(o.quant, NF4_HELP),
        COMPUTE_OPTION(o.quant),
    };
    static const Need need[] = {
        { "top-k|top-p|seed", "temperature", "nothing is drawn" }, QUANT_NEEDS,
        { NULL, NULL, NULL } };
    Program program = {
        .program = "run chat",
        .usage = "MODEL [options]",
        .about =
            "Holds a conversation: you type a line, the model answers, until /quit or the end of input. "
            "/new starts a new conversation, /help lists what may be typed. Ctrl-C ends an answer.",
        OPTIONS(option), .need = need };
    int given = cli_parse(&program, argc, argv, positional, 1), before, after;
    Pool keep = cli_pool(), scratch = cli_pool();
    Error err = { 0 };
    Policy p = { 0 };
    Chat c = { 0 };
    if (given < 1) usage_error("which model?", NULL);
    adapter_as_model(&positional[0], &o.adapter, ADAPTER_ADVICE, &keep);
    quant_options_check(&program, &o.quant, NULL, NULL, 0);
    const char *folder = weights_folder(positional[0], o.adapter);
    c.T = context_length(o.context, folder, &keep);
    must(config_load(&p.config, folder, &keep, &err), &err, NULL);
    require(p.config.encoder.L ? E_UNSUPPORTED : OK, "chat with a policy that has an encoder", folder, 0, 0,
            "run generate MODEL --prompt TEXT");
    Tokenizer *t = p.tokenizer = need_tokenizer(positional[0], o.adapter, p.config.V, 0, &keep);
    /* the option's first choice is auto, the others are the CHAT_ constants */
    c.how = chat_template(o.template ? o.template - 1 : find_template(t, positional[0], &keep));
    const WeightTypes types = choose_types(&program, &o.quant, positional[0], o.adapter, &keep);
    policy_open(&p, &types, positional[0], o.adapter, c.T, &keep);
    report_padding(p.config.V, t);
    c.p = &p;
    c.pool = &scratch;
    c.s = sequence_open(&p, c.T, c.T, &keep);
    c.s.rng = rng_stream(o.seed, 0, 0);
    tokenizer_template(t, &before, &after);
    c.bos = before ? tokenizer_specials(t).bos : -1;
    return chat_loop(&c, &o, &keep);
}

/* ---- merge ---- */

/* Replaces the model's 4-bit linears by floats: those that its forward pass computes
 * with (at compute type F32). */
static void dequantise(Policy *p, Pool *pool) {
    Error err = { 0 };
    Arena measure = { 0 };
    /* the list of its tensors points into it, so that it has to stay */
    Model *floats = pool_need(pool, 1, sizeof *floats, "the dequantised weights");
    must(model_carve(floats, &p->config, NULL, 0, 1, pool, &measure, &err), &err, NULL);
    measure = cli_arena(measure.used, "the dequantised weights");
    must(model_carve(floats, &p->config, NULL, 0, 1, pool, &measure, &err), &err, NULL);
    for (int i = 0; i < floats->tensors; i++) {
        const Matrix *from = p->model.tensor[i].matrix, *to = floats->tensor[i].matrix;
        if (floats->tensor[i].flags & TENSOR_TIED) continue;
        tensor_read(to->data, from, 0, (size_t)to->O * (size_t)to->I);
    }
    p->model = *floats;
}

/* Gives the policy a head of its own if the adapter makes a difference between the head and the embedding
 * that it is tied to. */
static void untie(Policy *p) {
    const int id = p->model.head.id;
    Matrix *head = p->model.tensor[id].matrix;
    const LoraPair *a = &p->lora.pair[p->model.embedding.id], *b = &p->lora.pair[id];
    if (!p->config.tied || !(a->A.O || a->saved.O || b->A.O || b->saved.O)) return;
    const size_t n = (size_t)head->O * (size_t)head->I;
    Arena own = cli_arena(n * sizeof(float), "the head");
    float *x = arena_take(&own, n, sizeof *x);
    tensor_read(x, head, 0, n);
    head->data = x;
    p->model.tensor[id].flags &= ~TENSOR_TIED;
    p->config.tied = p->model.config.tied = 0;
    fflush(stdout);
    fprintf(stderr, "run merge: the adapter changes embedding or head, each on its own: they are not tied in "
            "the merged model\n");
}

/* T5 divides the logits of a tied head by sqrt(C): a head that is no longer tied does so itself. */
static void unscale(Policy *p) {
    const Matrix *head = p->model.tensor[p->model.head.id].matrix;
    const float scale = 1 / sqrtf((float)head->I);
    float *x = head->data;
    if (!p->config.scaled || p->config.tied) return;
    for (size_t i = 0; i < (size_t)head->O * (size_t)head->I; i++) x[i] *= scale;
    p->config.scaled = p->model.config.scaled = 0;
}

/* Makes every tensor what the adapter makes of it: W += scale B A, or a saved module. */
static void merge_adapter(Policy *p) {
    untie(p);
    Arena ws = { 0 };
    for (int i = 0; i < p->model.tensors; i++) lora_merge(p->adapter, p->model.tensor[i].matrix, &ws);
    p->work = cli_arena(ws.peak, "work space");
    for (int i = 0; i < p->model.tensors; i++)
        if (!(p->model.tensor[i].flags & TENSOR_TIED))
            lora_merge(p->adapter, p->model.tensor[i].matrix, &p->work);
    unscale(p);
}

/* What run merge is asked for. */
typedef struct {
    const Program *program; const char *folder, *adapter, *out;
    int dtype, shard_mb, force; QuantOptions quant;
} Merge;

/* Opens the tokenizer as find_tokenizer does; a damaged one is left out. */
static Tokenizer *merge_tokenizer(const char *folder, const char *other, Pool *pool) {
    Error err = { 0 };
    Tokenizer *t = find_tokenizer(folder, other, pool, &err);
    if (err.code)
        fprintf(stderr, "run merge: the tokenizer is left out, copy it yourself: %s: %s\n", err.what,
                err.where);
    return t;
}

/* Writes the merged model, a policy or else (NULL) a judge. types: how its weights were held. */
static void merge_write(const Merge *m, const Model *policy, const RewardModel *judge, const Tokenizer *t,
                        const WeightTypes *types) {
    static RunFolder to;
    Error err = { 0 };
    const Tensor *list = policy ? policy->tensor : judge->tensor;
    const int tensors = policy ? policy->tensors : judge->tensors;
    const uint64_t shard = (uint64_t)m->shard_mb * 1000000u;
    require(tensor_not_numbers(list, tensors, m->dtype) ? E_NUMBER : OK,
            "a merged weight is not a number, or too large for --dtype", m->out, 0, 0, "--dtype f32 or bf16");
    out_open(&to, m->out, m->force, NULL, "merge");
    must(policy ? save_policy(policy, t, to.path, m->dtype, shard, &err)
                : save_judge(judge, t, to.path, m->dtype, shard, &err), &err, NULL);
    must(out_commit(&to, &err), &err, NULL);
    printf("%s: %.1f million numbers\n", m->out, (double)tensor_values(list, tensors, 0) / 1e6);
    if (types->layers == NF4)
        printf("the %s linears were dequantised before the adapter was added, as peft does it; "
               "they are not quantised again\n", types->kind == QUANT_NF4 ? "NF4" : "FP4");
}

static void merge_policy(const Merge *m, Pool *keep) {
    Policy p = { 0 };
    WeightTypes types = choose_types(m->program, &m->quant, m->folder, m->adapter, keep);
    types.tables = F32;
    if (types.layers != NF4) types.layers = F32;
    policy_open(&p, &types, m->folder, m->adapter, 1, keep);
    if (types.layers == NF4) dequantise(&p, keep);
    if (p.adapter) merge_adapter(&p);
    p.tokenizer = merge_tokenizer(m->folder, m->adapter, keep);
    merge_write(m, &p.model, NULL, p.tokenizer, &types);
}

static void merge_judge(const Merge *m, Pool *keep) {
    Error err = { 0 };
    Arena floats = { 0 }, ws = { 0 };
    RewardModel merged;
    Judge j;
    judge_find(&j, m->folder, m->adapter, keep);
    judge_open(&j, m->program, &m->quant, keep);
    j.tokenizer = merge_tokenizer(m->adapter, m->folder, keep);
    must(reward_carve(&merged, &j.config, NULL, 0, keep, &floats, &err), &err, NULL);
    floats = cli_arena(floats.used, "the merged weights");
    must(reward_carve(&merged, &j.config, NULL, 0, keep, &floats, &err), &err, NULL);
    weights_merge(merged.tensor, j.model.tensor, merged.tensors, j.adapter, &ws);
    ws = cli_arena(ws.peak, "work space");
    weights_merge(merged.tensor, j.model.tensor, merged.tensors, j.adapter, &ws);
    merge_write(m, NULL, &merged, j.tokenizer, &j.types);
}

/* Returns 1 if the adapter is a judge's: by its task_type, or without one by the class of the model. */
static int merges_judge(const Merge *m, Pool *pool) {
    LoraConfig l;
    ModelConfig c;
    if (adapter_config_load(&l, m->adapter, pool, NULL) == OK && l.task) return !strcmp(l.task, "SEQ_CLS");
    return config_load(&c, m->folder, pool, NULL) == E_UNSUPPORTED;
}

static int run_merge(int argc, char **argv) {
    const char *positional[1] = { NULL };
    Merge m = { 0 };
    static const int type[] = { F32, BF16, F16 };
    Option option[] = {
        { "adapter", OPT_TEXT, &m.adapter, NULL, 0, 0, NULL,
          "a run folder of ppo, sft or rm, or any PEFT LoRA folder" },
        { "out", OPT_TEXT, &m.out, NULL, 0, 0, NULL, "the folder to write" },
        FORCE_OPTION(m.force),
        { "dtype", OPT_CHOICE, &m.dtype, "f32", 0, 0, "f32|bf16|f16", "type of the numbers in the file" },
        QUANT_OPTIONS(m.quant, "quantise to NF4 and dequantise before merging: the weights that the adapter "
                               "was trained with"),
        { "shard-mb", OPT_INT, &m.shard_mb, "0", 0, 1e6, NULL,
          "split the weights into files of about this many megabytes (0: one file)" },
    };
    static const Need need[] = {
        QUANT_NEEDS,
        { NULL, NULL, NULL } };
    Program program = {
        .program = "run merge",
        .usage = "MODEL --adapter RUN --out DIR [options]",
        .about = "Adds the products of a policy's or a judge's adapter to the weights and writes a whole "
                 "model folder of floats. 4-bit weights are dequantised first.",
        OPTIONS(option), .need = need };
    const int given = cli_parse(&program, argc, argv, positional, 1);
    Pool keep = cli_pool();
    adapter_as_model(&positional[0], &m.adapter, ADAPTER_ADVICE, &keep);
    if (given < 1 || !m.adapter || !m.out)
        usage_error("model, adapter and output are needed", "run merge MODEL --adapter RUN --out DIR");
    quant_options_check(&program, &m.quant, NULL, NULL, 0);
    const char *const input[] = { positional[0], m.adapter };
    out_check(m.out, m.force, input, 2);
    m.program = &program;
    m.folder = positional[0];
    m.dtype = type[m.dtype];
    if (merges_judge(&m, &keep)) merge_judge(&m, &keep);
    else merge_policy(&m, &keep);
    return 0;
}

/* ---- the commands ---- */

static int run_models(int argc, char **argv) {
    Program program = { .program = "run models", .usage = "",
        .about = "Lists the classes of transformers whose folders open, as policies or as judges." };
    const char *none[1], *name;
    int judge;
    cli_parse(&program, argc, argv, none, 0);
    for (int k = 0; (name = config_class(k, &judge)) != NULL; k++)
        printf("%-8s %s\n", judge ? "judge" : "policy", name);
    return 0;
}

static const Command command[] = {
    { "tokenize", run_tokenize, "turn text into ids and back" },
    { "logprobs", run_logprobs, "log-probabilities of texts" },
    { "score",    run_score,    "a reward model's logits" },
    { "generate", run_generate, "continue a text" },
    { "chat",     run_chat,     "talk with a model" },
    { "merge",    run_merge,    "add an adapter to the weights" },
    { "report",   report_command, "print a run's result again" },
    { "models",   run_models,   "list the classes of models that open" },
};

int main(int argc, char **argv) {
    return cli_command("run", "Uses models: policies, judges, tokenizers and runs.", command,
                       (int)(sizeof command / sizeof *command), argc, argv);
}
