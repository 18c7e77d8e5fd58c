/* run.c - use what was trained: tokenize, logprobs, score, generate, chat, merge.
 *
 * Source   DESIGN: "run speaks one line per text, for people and scripts alike".
 * Needs    every library file below it. Memory: the weights in one arena measured from the config, then one more for adapter,
 *          cache and work space; a pool of scratch that is emptied after every line.
 * Weights  are held as the folder has them (16 bits, 4 bits), or quantised while they are read (--nf4, --fp4). merge works on floats.
 * Never    changes a file that it reads. Training is the business of sft, rm and ppo.
 * Edges    exactly one output line per input line, also for empty ones (only `generate --prompt`, `chat` and `tokenize --show` write for
 *          people, and `tokenize --decode` the text as it is: with --jsonl it stays on one line). A line that cannot be used ends the program
 *          with its number and exit 1; it is never skipped. */
#include "programs.h"
#include <signal.h>
#include <stdio.h>

enum { BLOCK = 256 };                       /* rows of one forward: longer texts go through the cache in blocks, with the same bits */

/* ---- lines in ---- */

typedef struct { Lines *lines; const char *path; long long number; } Input;

static Input input_open(const char *path, Pool *pool) {
    Error err = { 0 };
    Input in = { NULL, path ? path : "-", 0 };
    in.lines = lines_open(in.path, pool, &err);
    must(err.code, &err, "give a file, or nothing to read standard input");
    return in;
}

/* What is answered so far goes out before the next line is waited for: the other end may be a program that talks with this one. */
static int input_next(Input *in, const char **line, size_t *n) {
    fflush(stdout);
    if (!lines_next(in->lines, line, n)) return 0;
    in->number++;
    return 1;
}

/* Also the last moment to see that everything written has arrived. */
static void input_close(Input *in) {
    Error err = { 0 };
    must(lines_close(in->lines, &err), &err, NULL);
    if (fflush(stdout) || ferror(stdout)) must(fail(&err, E_WRITE, "cannot write", "standard output", 0, 0), &err, NULL);
}

static void bad_line(const Input *in, int code, const char *what, long long got, long long wanted) {
    Error err = { 0 };
    char where[200];
    snprintf(where, sizeof where, "%.120s, line %lld", strcmp(in->path, "-") ? in->path : "standard input", in->number);
    fail(&err, code, what, where, got, wanted);
    die(&err, "everything before this line was answered");
}

static void memory(const void *p) {
    Error err = { 0 };
    if (!p) must(fail(&err, E_MEMORY, "out of memory", "scratch", 0, 0), &err, NULL);
}

/* Ids separated by spaces or tabs, each 0 .. V-1. */
static int *parse_ids(const Input *in, const char *s, size_t n, int V, Pool *pool, int *count) {
    int *ids = pool_take(pool, n / 2 + 1, sizeof *ids);
    size_t i = 0;
    memory(ids);
    *count = 0;
    for (;;) {
        long long v = 0;
        while (i < n && (s[i] == ' ' || s[i] == '\t')) i++;
        if (i == n) return ids;
        if (s[i] < '0' || s[i] > '9') bad_line(in, E_FORMAT, "not a list of ids (numbers separated by spaces)", 0, 0);
        while (i < n && s[i] >= '0' && s[i] <= '9') {
            v = v * 10 + (s[i++] - '0');
            if (v > INT_MAX) bad_line(in, E_RANGE, "an id is too large", v, INT_MAX);
        }
        if (i < n && s[i] != ' ' && s[i] != '\t') bad_line(in, E_FORMAT, "not a list of ids (numbers separated by spaces)", 0, 0);
        if (v >= V) bad_line(in, E_RANGE, "an id outside the vocabulary (got it, wanted less than)", v, V);
        ids[(*count)++] = (int)v;
    }
}

/* Ids of a text inside the tokenizer's own template. limit > 0: content is cut so that the whole has at most limit ids. */
static int *text_ids(const Tokenizer *t, const char *text, size_t n, int special, int limit, Pool *pool, int *count) {
    SpecialIds s = tokenizer_specials(t);
    Error err = { 0 };
    int before = 0, after = 0, *content, length, *ids;
    if (tokenizer_encode(t, text, n, pool, &content, &length)) must(fail(&err, E_MEMORY, "out of memory", "tokenizer", 0, 0), &err, NULL);
    if (special) tokenizer_template(t, &before, &after);
    if (limit > 0 && length > limit - before - after) length = limit - before - after;
    ids = pool_take(pool, (size_t)length + 2, sizeof *ids);
    memory(ids);
    *count = 0;
    if (before) ids[(*count)++] = s.bos;
    for (int i = 0; i < length; i++) ids[(*count)++] = content[i];
    if (after) ids[(*count)++] = s.eos;
    return ids;
}

/* ---- JSON out ---- */

static void print_number(double x) {
    if (isfinite(x)) printf("%.9g", x); else printf("null");
}

static void print_string(const char *text, size_t n, Pool *pool) {
    Buffer b = { 0 };
    b.pool = pool;
    buffer_json_string(&b, text, n);
    memory(b.failed ? NULL : b.data);
    fwrite(b.data, 1, b.length, stdout);
}

static void print_ids(const int *ids, int n, const char *separator) {
    for (int i = 0; i < n; i++) printf("%s%d", i ? separator : "", ids[i]);
}

/* ---- tokenize ---- */

static void decode_line(const Input *in, const Tokenizer *t, const char *line, size_t n, int jsonl, int special, Pool *scratch) {
    Error err = { 0 };
    int count, *ids = parse_ids(in, line, n, tokenizer_size(t), scratch, &count);
    char *text;
    size_t length;
    must(fail(&err, (special ? tokenizer_decode_all : tokenizer_decode)(t, ids, count, scratch, &text, &length), "cannot decode", in->path, 0, 0), &err, NULL);
    if (jsonl) { printf("{\"text\": "); print_string(text, length, scratch); printf("}"); }
    else fwrite(text, 1, length, stdout);
    putchar('\n');
}

/* Bytes for a person's eyes: what a terminal would act upon, and what is no whole character, as \xNN. */
static void print_visible(const char *s, size_t n) {
    for (size_t i = 0, length; i < n; i += length) {
        int32_t code;
        length = (size_t)utf8_decode(s + i, n - i, &code);
        /* malformed, controls (C0, C1), line separators and what turns the direction of writing */
        if (code < 32 || (code >= 127 && code < 0xA0) || (code >= 0x2028 && code <= 0x202E))
            for (size_t k = 0; k < length; k++) printf("\\x%02X", (unsigned)(unsigned char)s[i + k]);
        else fwrite(s + i, 1, length, stdout);
    }
}

/* The same on the background of the i-th token, which its neighbours do not have. */
static void print_token(const char *s, size_t n, int i, int color) {
    if (color) fputs(i % 2 ? "\033[30;43m" : "\033[30;46m", stdout);
    print_visible(s, n);
    if (color) fputs("\033[0m", stdout);
}

/* The text with each token on its own background; bytes that two tokens claim are shown once, those of none as they are. */
static void print_colored(const char *text, size_t n, const TokenSpan *span, int count) {
    size_t at = 0;
    for (int i = 0; i < count; i++) {
        if (span[i].from > at) { print_visible(text + at, span[i].from - at); at = span[i].from; }
        if (span[i].to > at) { print_token(text + at, span[i].to - at, i, 1); at = span[i].to; }
    }
    print_visible(text + at, n - at);
    putchar('\n');
}

/* One line for each token: id, from..to (bytes of the text; ~ where that is not exact), the vocabulary's piece, and the bytes themselves. */
static void show_line(const Input *in, const Tokenizer *t, const char *text, size_t n, int special, int color, Pool *scratch) {
    SpecialIds s = tokenizer_specials(t);
    TokenSpan *inner, *span;
    int before = 0, after = 0, count, *content, *ids;
    Error err = { 0 };
    if (tokenizer_encode_spans(t, text, n, scratch, &content, &inner, &count)) must(fail(&err, E_MEMORY, "out of memory", "tokenizer", 0, 0), &err, NULL);
    if (special) tokenizer_template(t, &before, &after);
    ids = pool_take(scratch, (size_t)count + 2, sizeof *ids);
    span = pool_take(scratch, (size_t)count + 2, sizeof *span);
    memory(ids); memory(span);
    for (int i = 0; i < count; i++) { ids[before + i] = content[i]; span[before + i] = inner[i]; }
    count += before + after;
    if (before) { ids[0] = s.bos; span[0].from = span[0].to = 0; span[0].exact = 1; }
    if (after) { ids[count - 1] = s.eos; span[count - 1].from = span[count - 1].to = n; span[count - 1].exact = 1; }
    printf("line %lld: %d token%s, %llu byte%s\n", in->number, count, count == 1 ? "" : "s", (unsigned long long)n, n == 1 ? "" : "s");
    if (color && n) print_colored(text, n, span, count);
    for (int i = 0; i < count; i++) {
        char place[64];
        size_t length;
        const char *piece = tokenizer_piece(t, ids[i], &length);
        snprintf(place, sizeof place, "%s%llu..%llu", span[i].exact ? "" : "~", (unsigned long long)span[i].from, (unsigned long long)span[i].to);
        printf("%8d  %12s  ", ids[i], place);
        if (piece) print_token(piece, length, i, color);
        fputs("  \"", stdout);
        print_visible(text + span[i].from, span[i].to - span[i].from);
        fputs("\"\n", stdout);
    }
}

typedef struct { int jsonl, special, decode, show, color; } TokenizeOptions;

static void encode_line(const Input *in, const Tokenizer *t, const char *line, size_t n, const TokenizeOptions *o, Pool *scratch) {
    int count, *ids;
    if (o->jsonl) {
        const Json *root = json_parse(line, n, scratch, NULL), *text = json_get(root, "text");
        if (!text || text->type != JSON_STRING) bad_line(in, E_FORMAT, "not a JSON object with a string \"text\"", 0, 0);
        else { line = text->string; n = text->length; }
    }
    if (o->show) { show_line(in, t, line, n, o->special, o->color, scratch); return; }
    ids = text_ids(t, line, n, o->special, 0, scratch, &count);
    print_ids(ids, count, " ");
    putchar('\n');
}

enum { COLOR_AUTO, COLOR_ALWAYS, COLOR_NEVER };

/* NO_COLOR (no-color.org): set and not empty, it speaks for a user who did not ask for colours in so many words. */
static int wants_color(int asked) {
    const char *no = getenv("NO_COLOR");
    return asked == COLOR_ALWAYS || (asked == COLOR_AUTO && cli_terminal() && !(no && *no));
}

static int run_tokenize(int argc, char **argv) {
    TokenizeOptions o;
    Option option[] = {
        { "jsonl", OPT_FLAG, &o.jsonl, NULL, 0, 0, NULL, "lines are {\"text\": ...}, so that a text may hold line breaks" },
        { "special", OPT_FLAG, &o.special, NULL, 0, 0, NULL, "with the special tokens of the tokenizer's own template; with --decode, special tokens are written out" },
        { "decode", OPT_FLAG, &o.decode, NULL, 0, 0, NULL, "the way back: lines of ids into text" },
        { "show", OPT_FLAG, &o.show, NULL, 0, 0, NULL, "for people: a line for each token, with its id, the bytes from..to of the text that it "
          "stands for (~: not exact), its piece, and these bytes" },
        { "color", OPT_CHOICE, &o.color, "auto", 0, 0, "auto|always|never", "of --show; auto: in a terminal, unless NO_COLOR is set" },
    };
    Program program = { "run tokenize", "TOKENIZER [FILE] [options]",
        "Ids of each line, separated by spaces. TOKENIZER is a folder with a tokenizer, or a tokenizer.json, tokenizer.model or vocab.json.",
        option, sizeof option / sizeof *option, NULL, 0 };
    const char *positional[2] = { NULL, NULL }, *line;
    int given = cli_parse(&program, NULL, argc, argv, positional, 2);
    Pool keep = cli_pool(), scratch = cli_pool();
    Error err = { 0 };
    size_t n;
    if (given < 1) usage_error("which tokenizer?", "run tokenize TOKENIZER [FILE]");
    if (o.show && o.decode) usage_error("--show is of text into ids: without", "--decode");
    o.color = wants_color(o.color);
    Tokenizer *t = tokenizer_open(positional[0], &keep, &err);
    must(err.code, &err, "TOKENIZER is a tokenizer.json, a tokenizer.model, or a folder with one of them or with vocab.json and merges.txt");
    Input in = input_open(given > 1 ? positional[1] : NULL, &keep);
    while (input_next(&in, &line, &n)) {
        PoolMark mark = pool_mark(&scratch);
        if (o.decode) decode_line(&in, t, line, n, o.jsonl, o.special, &scratch);
        else encode_line(&in, t, line, n, &o, &scratch);
        pool_release(&scratch, mark);
    }
    input_close(&in);
    pool_free(&keep); pool_free(&scratch);
    return 0;
}

/* ---- a policy, with the adapter of a run if one is given ---- */

typedef struct {
    ModelConfig config; Model model; Lora lora; const Lora *adapter; Tokenizer *tokenizer;
    Arena weights, adapted, work, ws;
    Cache kv;
    int N, *token, *sequence, *position, *target; unsigned char *wants; float *hidden, *logprob;   /* one block of rows */
} Policy;

static int in_folder(const char *folder, const char *name) {
    char path[1024];
    int n = snprintf(path, sizeof path, "%s/%s", folder, name);
    return n > 0 && (size_t)n < sizeof path && file_exists(path);
}

/* The tokenizer of the first folder that has one; NULL where neither has, or it cannot be read (*err). */
static Tokenizer *find_tokenizer(const char *folder, const char *other, Pool *pool, Error *err) {
    const char *at = tokenizer_exists(folder, pool) ? folder : other && tokenizer_exists(other, pool) ? other : NULL;
    return at ? tokenizer_open(at, pool, err) : NULL;
}

static const char tokenizer_hint[] = "the tokenizer's files are damaged or of another kind; --ids works without them";

/* Where the weights are: in the model's folder, but when run is a whole model (ppo and sft write one where all weights were trained), it
 * is the model. */
static const char *weights_folder(const char *folder, const char *run) {
    return run && !in_folder(run, "adapter_config.json") ? run : folder;
}

#define NF4_HELP "hold the linears in 4-bit NF4, as sft --nf4 and ppo --nf4 train next to them"

/* What these weights are to be held in. */
static WeightTypes choose_types(const Program *program, const QuantOptions *q, const char *folder, const char *run, Pool *pool) {
    WeightTypes types;
    quant_options_types(&types, program, q, weights_folder(folder, run), 0, pool);
    return types;
}

/* Weights of folder, with run's adapter next to them. positions: how far texts will reach. */
static void policy_open(Policy *p, const WeightTypes *types, const char *folder, const char *run, int positions, Pool *pool) {
    Error err = { 0 };
    Arena measure = { 0 };
    const char *weights = weights_folder(folder, run);
    memset(p, 0, sizeof *p);
    must(config_load(&p->config, weights, pool, &err), &err, "MODEL is a Hugging Face folder with config.json and model.safetensors");
    if (positions > p->config.positions)
        must(fail(&err, E_RANGE, "longer than the model's positions", weights, positions, p->config.positions), &err, "a shorter prompt, a smaller -n or --context");
    must(model_carve(&p->model, &p->config, types, 0, positions, pool, &measure, &err), &err, NULL);
    p->weights = cli_arena(measure.used, "the model's weights");
    must(model_carve(&p->model, &p->config, types, 0, positions, pool, &p->weights, &err), &err, NULL);
    must(checkpoint_load(weights, "model", "", p->model.tensor, p->model.tensors, pool, &err), &err, NULL);
    if (run && weights != run) {
        Lora c = { 0 };
        memset(&measure, 0, sizeof measure);
        must(adapter_config_load(&c, run, pool, &err), &err, "--adapter takes a run folder of ppo or sft, or any PEFT LoRA folder");
        must(lora_carve(&p->lora, p->model.tensor, p->model.tensors, c.R, c.alpha, c.rslora, c.targets, 0, pool, &measure, &err), &err, NULL);
        p->adapted = cli_arena(measure.used, "the adapter");
        must(lora_carve(&p->lora, p->model.tensor, p->model.tensors, c.R, c.alpha, c.rslora, c.targets, 0, pool, &p->adapted, &err), &err, NULL);
        must(checkpoint_load(run, "adapter_model", "base_model.model.", p->lora.tensor, p->lora.tensors, pool, &err), &err,
             "was this adapter trained on another model?");
        p->adapter = &p->lora;
    }
}

/* Where text is read or written: the folder must have a tokenizer that fits. */
static void need_tokenizer(Policy *p, const char *folder, const char *run, Pool *pool) {
    Error err = { 0 };
    p->tokenizer = find_tokenizer(folder, run, pool, &err);
    must(err.code, &err, tokenizer_hint);
    if (!p->tokenizer) must(fail(&err, E_MISSING, "no tokenizer.json, no tokenizer.model and no vocab.json", folder, 0, 0), &err, "put one there, or use --ids");
    if (tokenizer_size(p->tokenizer) > p->config.V)
        must(fail(&err, E_RANGE, "the tokenizer has more ids than the model", folder, tokenizer_size(p->tokenizer), p->config.V), &err,
             "is this another model's tokenizer?");
}

/* Arrays for blocks of N rows and a cache of T positions; measured, then carved. ws: what the caller measured for itself. */
static void work_carve(Policy *p, int N, int T, size_t ws, Arena *a) {
    size_t n = (size_t)N;
    p->N = N;
    cache_carve(&p->kv, &p->config, 1, T, a);
    p->token = arena_take(a, n, sizeof(int)); p->sequence = arena_take(a, n, sizeof(int));
    p->position = arena_take(a, n, sizeof(int)); p->target = arena_take(a, n, sizeof(int));
    p->wants = arena_take(a, n, 1);
    p->hidden = arena_take(a, n * (size_t)p->config.C, sizeof(float));
    p->logprob = arena_take(a, n, sizeof(float));
    p->ws.base = arena_take(a, ws, 1);
    p->ws.capacity = ws;
}

static void policy_work(Policy *p, int N, int T, size_t ws) {
    Arena measure = { 0 };
    work_carve(p, N, T, ws, &measure);
    p->work = cli_arena(measure.used, "the cache and work space");
    work_carve(p, N, T, ws, &p->work);
}

/* ---- logprobs ---- */

/* logprob[i] = log p(ids[i+1] | ids[0..i]), i = 0 .. n-2: blocks of rows, earlier blocks stand in the cache. */
static int policy_logprobs(Policy *p, const int *ids, int n, float *logprob) {
    for (int at = 0; at < n - 1; at += p->N) {
        int rows = n - 1 - at < p->N ? n - 1 - at : p->N, code;     /* the last id predicts nothing: it needs no row */
        Rows r = { rows, p->token, p->sequence, p->position, p->wants };
        for (int i = 0; i < rows; i++) {
            p->token[i] = ids[at + i]; p->target[i] = ids[at + i + 1];
            p->sequence[i] = 0; p->position[i] = at + i;
            p->wants[i] = 1;
        }
        code = model_forward(&p->model, p->adapter, &r, &p->kv, NULL, p->hidden, &p->ws);
        if (!code) code = model_logprobs(&p->model, p->hidden, &r, p->target, 1, logprob + at, NULL, NULL, NULL, NULL, &p->ws);
        if (code) return code;
    }
    return OK;
}

static size_t logprobs_bytes(const Policy *p, int N, int T) {
    Arena measure = { 0 };
    Cache kv = { 0 };
    Rows rows = { N, NULL, NULL, NULL, NULL };
    kv.L = p->config.L; kv.B = 1; kv.T = T; kv.width = p->config.K * p->config.D;
    model_forward(&p->model, p->adapter, &rows, &kv, NULL, NULL, &measure);
    model_logprobs(&p->model, NULL, &rows, NULL, 1, NULL, NULL, NULL, NULL, NULL, &measure);
    return measure.peak;
}

/* The longest text that will be served: the model's positions, but no cache for 100,000 of them unless asked. */
static int context_length(int asked, const char *folder, Pool *pool) {
    Error err = { 0 };
    ModelConfig c;
    must(config_load(&c, folder, pool, &err), &err, "MODEL is a Hugging Face folder with config.json and model.safetensors");
    return asked ? asked : c.positions < 2048 ? c.positions : 2048;
}

static int run_logprobs(int argc, char **argv) {
    const char *adapter, *positional[2] = { NULL, NULL }, *line;
    int as_ids, context;
    QuantOptions quant = { 0 };
    Option option[] = {
        { "adapter", OPT_TEXT, &adapter, NULL, 0, 0, NULL, "a run folder of ppo or sft, or any PEFT LoRA folder" },
        { "ids", OPT_FLAG, &as_ids, NULL, 0, 0, NULL, "lines of ids separated by spaces, as they are, instead of text" },
        { "context", OPT_INT, &context, "0", 0, 1e9, NULL, "longest text in tokens (0: the model's positions, at most 2048)" },
        QUANT_OPTIONS(quant, NF4_HELP),
        COMPUTE_OPTION(quant),
    };
    Program program = { "run logprobs", "MODEL [FILE] [options]",
        "A JSON line per line: the ids, and the log-probability of each id after the first given those before it.",
        option, sizeof option / sizeof *option, NULL, 0 };
    int given = cli_parse(&program, NULL, argc, argv, positional, 2), count;
    Pool keep = cli_pool(), scratch = cli_pool();
    Policy p;
    size_t n;
    if (given < 1) usage_error("which model?", "run logprobs MODEL [FILE]");
    quant_options_check(&program, &quant, NULL, NULL, 0);
    context = context_length(context, positional[0], &keep);
    const WeightTypes types = choose_types(&program, &quant, positional[0], adapter, &keep);
    policy_open(&p, &types, positional[0], adapter, context, &keep);
    if (!as_ids) need_tokenizer(&p, positional[0], adapter, &keep);
    int N = context < BLOCK ? context : BLOCK;
    policy_work(&p, N, context, logprobs_bytes(&p, N, context));
    Input in = input_open(given > 1 ? positional[1] : NULL, &keep);
    while (input_next(&in, &line, &n)) {
        PoolMark mark = pool_mark(&scratch);
        int *ids = as_ids ? parse_ids(&in, line, n, p.config.V, &scratch, &count) : text_ids(p.tokenizer, line, n, 1, 0, &scratch, &count);
        float *logprob = pool_take(&scratch, (size_t)count + 1, sizeof(float));
        memory(logprob);
        if (count > context) bad_line(&in, E_RANGE, "more tokens than --context", count, context);
        int code = policy_logprobs(&p, ids, count, logprob);
        if (code) bad_line(&in, code, "the model's forward failed", 0, 0);
        printf("{\"ids\": [");
        print_ids(ids, count, ", ");
        printf("], \"logprobs\": [");
        for (int i = 0; i + 1 < count; i++) { if (i) printf(", "); print_number((double)logprob[i]); }
        printf("]}\n");
        pool_release(&scratch, mark);
    }
    input_close(&in);
    return 0;
}

/* ---- score ---- */

typedef struct { RewardConfig config; RewardModel model; Tokenizer *tokenizer; Arena weights, work; } Judge;

static void judge_open(Judge *j, const char *folder, int compute, int text, Pool *pool) {
    Error err = { 0 };
    Arena measure = { 0 }, ws = { 0 };
    memset(j, 0, sizeof *j);
    must(reward_config_load(&j->config, folder, pool, &err), &err, "REWARD is a folder with config.json and model.safetensors");
    must(reward_carve(&j->model, &j->config, F32, compute, 0, pool, &measure, &err), &err, NULL);
    j->weights = cli_arena(measure.used, "the reward model's weights");
    must(reward_carve(&j->model, &j->config, F32, compute, 0, pool, &j->weights, &err), &err, NULL);
    must(checkpoint_load(folder, "model", "", j->model.tensor, j->model.tensors, pool, &err), &err, NULL);
    int start[2] = { 0, reward_max_tokens(&j->config) };
    Texts longest = { start[1], 1, NULL, start };
    reward_forward(&j->model, &longest, NULL, NULL, &ws);
    j->work = cli_arena(ws.peak, "work space");
    if (!text) return;
    j->tokenizer = find_tokenizer(folder, NULL, pool, &err);
    must(err.code, &err, tokenizer_hint);
    if (!j->tokenizer) must(fail(&err, E_MISSING, "no tokenizer.json, no tokenizer.model and no vocab.json", folder, 0, 0), &err, "put one there, or use --ids");
    if (tokenizer_size(j->tokenizer) > j->config.V)
        must(fail(&err, E_RANGE, "the tokenizer has more ids than the model", folder, tokenizer_size(j->tokenizer), j->config.V), &err, NULL);
}

static void score_line(Judge *j, const Input *in, const int *ids, int count, Pool *scratch) {
    float logits[LABELS_MAX];
    int start[2] = { 0, count }, best = 0, labels = count ? j->config.labels : 0;
    Texts text = { count, 1, ids, start };
    if (count > reward_max_tokens(&j->config))
        bad_line(in, E_RANGE, "more tokens than the reward model takes (ids are used as they are)", count, reward_max_tokens(&j->config));
    int code = count ? reward_forward(&j->model, &text, NULL, logits, &j->work) : OK;
    if (code) bad_line(in, code, "the reward model's forward failed", 0, 0);
    printf("{\"logits\": [");
    for (int i = 0; i < labels; i++) {
        if (i) printf(", ");
        print_number((double)logits[i]);
        if (logits[i] > logits[best]) best = i;
    }
    printf("], \"label\": ");
    if (labels) print_string(j->config.label[best], strlen(j->config.label[best]), scratch); else printf("null");
    printf("}\n");
}

static int run_score(int argc, char **argv) {
    const char *positional[2] = { NULL, NULL }, *line;
    int as_ids, count;
    QuantOptions quant = { 0 };
    Option option[] = {
        { "ids", OPT_FLAG, &as_ids, NULL, 0, 0, NULL, "lines of ids separated by spaces, as they are, instead of text" },
        COMPUTE_OPTION(quant),
    };
    Program program = { "run score", "REWARD [FILE] [options]",
        "Prints a JSON line for each line: the reward model's logits and the label with the largest one. A text that is too long is cut "
        "at its end. An empty text is scored as bos or eos alone if the tokenizer's template adds no token.",
        option, sizeof option / sizeof *option, NULL, 0 };
    int given = cli_parse(&program, NULL, argc, argv, positional, 2);
    Pool keep = cli_pool(), scratch = cli_pool();
    Judge j;
    size_t n;
    if (given < 1) usage_error("which reward model?", "run score REWARD [FILE]");
    judge_open(&j, positional[0], quant.compute, !as_ids, &keep);
    Input in = input_open(given > 1 ? positional[1] : NULL, &keep);
    while (input_next(&in, &line, &n)) {
        PoolMark mark = pool_mark(&scratch);
        int *ids = as_ids ? parse_ids(&in, line, n, j.config.V, &scratch, &count)
                          : text_ids(j.tokenizer, line, n, 1, reward_max_tokens(&j.config), &scratch, &count);
        if (!as_ids && !count && empty_text_id(j.tokenizer) >= 0) ids[count++] = empty_text_id(j.tokenizer);
        score_line(&j, &in, ids, count, &scratch);
        pool_release(&scratch, mark);
    }
    input_close(&in);
    return 0;
}

/* ---- generate ---- */

/* A text being printed while its ids arrive. The whole list is decoded each time and what is new is printed, because a tokenizer
 * decides spaces and bytes from neighbours; an unfinished character at the end waits for its other bytes. */
typedef struct { const Tokenizer *tokenizer; const int *ids; int count; size_t printed; Pool *pool; int hidden; } Stream;

/* Bytes of text that no later token can change: without a last cut character and without U+FFFD that stand for cut ones. */
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

static void stream_print(Stream *s, int last) {
    PoolMark mark = pool_mark(s->pool);
    char *text;
    size_t n;
    if (tokenizer_decode(s->tokenizer, s->ids, s->count, s->pool, &text, &n) == OK) {
        if (!last) n = settled(text, n);
        if (n > s->printed) { fwrite(text + s->printed, 1, n - s->printed, stdout); s->printed = n; }
        fflush(stdout);
    }
    pool_release(s->pool, mark);
}

/* Ctrl-C while a reply is written ends the reply; again, or while nothing is written, it ends the program. */
static volatile sig_atomic_t reply_stopped;
static void on_interrupt(int number) {
    signal(number, SIG_DFL);
    reply_stopped = 1;
}

/* model_generate's listener. A `hidden` token ends the text and is not shown (a chat template's end of turn). */
static int stream_token(void *context, int sequence, int token) {
    Stream *s = context;
    (void)sequence;
    if (token == s->hidden) return 1;
    s->count++;
    stream_print(s, 0);
    return cli_stopping() || reply_stopped;
}

typedef struct { int *ids; int count; } Prompt;

static size_t generate_bytes(const Policy *p, Sequence seq, Cache kv) {
    Arena measure = { 0 };
    Sampling greedy = { 0, 0, 1 };
    kv.k = kv.v = NULL;
    model_generate(&p->model, p->adapter, NULL, &seq, 1, &kv, &greedy, NULL, NULL, &measure);
    return measure.peak;
}

/* Room for one sequence of T tokens whose prompt has at most `longest`. */
static Sequence sequence_open(Policy *p, int longest, int T, Pool *pool) {
    Sequence s = { 0 };
    Cache kv = { 0 };
    kv.L = p->config.L; kv.B = 1; kv.T = T; kv.width = p->config.K * p->config.D;
    s.token = pool_take(pool, (size_t)T, sizeof(int));
    s.logprob = pool_take(pool, (size_t)T, sizeof(float));
    memory(s.token); memory(s.logprob);
    s.prompt = s.length = longest ? longest : 1; s.capacity = T;
    policy_work(p, 1, T, generate_bytes(p, s, kv));
    return s;
}

typedef struct { const char *adapter, *prompt; int as_ids, n, greedy, top_k, ignore_eos; double temperature, top_p; uint64_t seed;
                 QuantOptions quant; } Generate;

/* One prompt, answered. As text: printed while it is written when it is the only one, else as a JSON line. */
static void generate_one(Policy *p, const Generate *g, Sequence *s, const Prompt *prompt, int index, Pool *scratch) {
    Sampling how = { g->greedy ? 0 : (float)g->temperature, g->top_k, (float)g->top_p };
    Stream stream = { p->tokenizer, s->token, prompt->count, 0, scratch, -1 };
    int live = !g->as_ids && g->prompt;
    Error err = { 0 };
    memcpy(s->token, prompt->ids, (size_t)prompt->count * sizeof(int));
    s->prompt = s->length = prompt->count;
    s->capacity = prompt->count + (prompt->count ? g->n : 0);       /* nothing can follow nothing */
    s->stop_at_eos = !g->ignore_eos; s->done = 0;
    s->rng = rng_stream(g->seed, 0, (uint64_t)index);
    if (live) stream_print(&stream, 0);
    if (prompt->count && g->n)
        must(fail(&err, model_generate(&p->model, p->adapter, NULL, s, 1, &p->kv, &how, live ? stream_token : NULL, &stream, &p->ws),
                  "generating failed", "model_generate", 0, 0), &err, NULL);
    stream.count = s->length;
    if (live) stream_print(&stream, 1);
    else if (g->as_ids) print_ids(s->token, s->length, " ");
    else {
        char *text;
        size_t n;
        must(fail(&err, tokenizer_decode(p->tokenizer, s->token, s->length, scratch, &text, &n), "cannot decode", "output", 0, 0), &err, NULL);
        printf("{\"text\": ");
        print_string(text, n, scratch);
        printf("}");
    }
    putchar('\n');
    fflush(stdout);
}

/* All prompts, before anything is allocated for them: the one of --prompt, or a line each. */
static Prompt *read_prompts(const Policy *p, const Generate *g, const char *path, Pool *pool, int *count, int *longest) {
    Prompt *prompt = NULL;
    int capacity = 0, more = 1;
    const char *line = g->prompt;
    size_t n = g->prompt ? strlen(g->prompt) : 0;
    Input in = { NULL, "--prompt", 1 };
    if (!g->prompt) { in = input_open(path, pool); more = input_next(&in, &line, &n); }
    *count = *longest = 0;
    while (more) {
        if (*count == capacity) {
            Prompt *wider = capacity < INT_MAX / 4 ? pool_take(pool, (size_t)capacity * 2 + 16, sizeof *wider) : NULL;
            memory(wider);
            if (capacity) memcpy(wider, prompt, (size_t)capacity * sizeof *wider);
            prompt = wider; capacity = capacity * 2 + 16;
        }
        Prompt *at = &prompt[(*count)++];
        at->ids = g->as_ids ? parse_ids(&in, line, n, p->config.V, pool, &at->count) : text_ids(p->tokenizer, line, n, 1, 0, pool, &at->count);
        if (at->count > *longest) *longest = at->count;
        more = !g->prompt && input_next(&in, &line, &n);
    }
    if (!g->prompt) input_close(&in);
    return prompt;
}

static int run_generate(int argc, char **argv) {
    Generate g;
    const char *positional[2] = { NULL, NULL };
    Option option[] = {
        { "prompt", OPT_TEXT, &g.prompt, NULL, 0, 0, NULL, "the beginning of the text; without it, a prompt per line of FILE or standard input" },
        { "n", OPT_INT, &g.n, "0", 0, 1e9, NULL, "new tokens at most (0: 256, or as many as the model's positions leave)" },
        { "greedy", OPT_FLAG, &g.greedy, NULL, 0, 0, NULL, "always the most probable token" },
        { "temperature", OPT_REAL, &g.temperature, "1", 0, 100, NULL, "divides the logits; 0 is --greedy" },
        { "top-k", OPT_INT, &g.top_k, "0", 0, 1e9, NULL, "only the K most probable tokens (0: all)" },
        { "top-p", OPT_REAL, &g.top_p, "1", 0, 1, NULL, "only the most probable tokens that together reach P" },
        { "seed", OPT_SEED, &g.seed, "1", 0, 0, NULL, "of the random numbers; the same seed gives the same text" },
        { "adapter", OPT_TEXT, &g.adapter, NULL, 0, 0, NULL, "a run folder of ppo or sft, or any PEFT LoRA folder" },
        { "ids", OPT_FLAG, &g.as_ids, NULL, 0, 0, NULL, "prompts are ids, and prompt and new ids come out" },
        { "ignore-eos", OPT_FLAG, &g.ignore_eos, NULL, 0, 0, NULL, "do not stop at the end-of-text token" },
        QUANT_OPTIONS(g.quant, NF4_HELP),
        COMPUTE_OPTION(g.quant),
    };
    Program program = { "run generate", "MODEL [FILE] [options]",
        "Continues a text (--prompt, written as it comes), or every line of FILE or standard input (a JSON line each; with --ids, ids).",
        option, sizeof option / sizeof *option, NULL, 0 };
    int given = cli_parse(&program, NULL, argc, argv, positional, 2), prompts, longest;
    Pool keep = cli_pool(), scratch = cli_pool();
    Error err = { 0 };
    Policy p = { 0 };
    if (given < 1) usage_error("which model?", "run generate MODEL --prompt TEXT");
    quant_options_check(&program, &g.quant, NULL, NULL, 0);
    if (g.prompt && given > 1) usage_error("--prompt or a file of prompts, not both", positional[1]);
    const char *weights = weights_folder(positional[0], g.adapter);
    must(config_load(&p.config, weights, &keep, &err), &err, "MODEL is a Hugging Face folder with config.json and model.safetensors");
    if (!g.as_ids) need_tokenizer(&p, positional[0], g.adapter, &keep);
    Prompt *prompt = read_prompts(&p, &g, positional[1], &keep, &prompts, &longest);
    if (!prompts) return 0;
    Tokenizer *tokenizer = p.tokenizer;
    if (!g.n) g.n = p.config.positions - longest < 256 ? p.config.positions - longest : 256;
    long long T = (long long)longest + g.n;
    if (T > p.config.positions || g.n < 0)
        must(fail(&err, E_RANGE, "prompt and new tokens are more than the model's positions", weights, T < longest ? longest : T, p.config.positions),
             &err, "a smaller -n or a shorter prompt");
    if (T < 1) T = 1;
    const WeightTypes types = choose_types(&program, &g.quant, positional[0], g.adapter, &keep);
    policy_open(&p, &types, positional[0], g.adapter, (int)T, &keep);
    p.tokenizer = tokenizer;
    if (tokenizer) report_padding(p.config.V, tokenizer);
    Sequence s = sequence_open(&p, longest, (int)T, &keep);
    cli_interrupts();
    for (int i = 0; i < prompts && !cli_stopping(); i++) {
        PoolMark mark = pool_mark(&scratch);
        generate_one(&p, &g, &s, &prompt[i], i, &scratch);
        pool_release(&scratch, mark);
    }
    return fflush(stdout) || ferror(stdout) ? 1 : 0;
}

/* ---- chat ---- */

/* How a message is written down: BEGIN before ROLE behind CONTENT END line break. BEGIN and END are tokens where the vocabulary has them. */
typedef struct { const char *begin, *before, *behind, *end; } ChatTemplate;
enum { CHAT_AUTO, CHAT_NONE, CHAT_ML, CHAT_ZEPHYR };
static const ChatTemplate chat_template[] = {
    { NULL, NULL, NULL, NULL },
    { NULL, "", "", NULL },                 /* plain text after plain text */
    { "<|im_start|>", "", "\n", "<|im_end|>" },
    { NULL, "<|", "|>\n", "</s>" },
};

/* What is written but not yet encoded is one segment: a text between tokens, encoded as a whole. */
typedef struct { Policy *p; const ChatTemplate *how; Sequence s; int T, bos, full, line_break; Buffer segment; Pool *pool; } Chat;

static void chat_push(Chat *c, const int *ids, int count) {
    if (count > c->T - c->s.length) c->full = 1;
    for (int i = 0; i < count && !c->full; i++) c->s.token[c->s.length++] = ids[i];
}

/* Encodes the segment. No token is looked for in it, so nobody can type one. */
static void chat_flush(Chat *c) {
    int *ids, count, first = c->s.length == (c->bos >= 0);
    memory(c->segment.failed ? NULL : c);
    if (!c->segment.length) return;
    if (tokenizer_encode_plain(c->p->tokenizer, (const char *)c->segment.data, c->segment.length, first, c->pool, &ids, &count)) memory(NULL);
    chat_push(c, ids, count);
    c->segment.length = 0;
}

/* A marker of the template: its token, or its letters where the vocabulary has no such token. */
static void chat_marker(Chat *c, const char *marker) {
    int id = marker ? tokenizer_find(c->p->tokenizer, marker, strlen(marker)) : -1;
    if (!marker) return;
    if (id < 0) { buffer_text(&c->segment, marker); return; }
    chat_flush(c);
    chat_push(c, &id, 1);
}

static void chat_role(Chat *c, const char *role) {
    if (c->line_break) buffer_text(&c->segment, "\n");
    c->line_break = 0;
    chat_marker(c, c->how->begin);
    buffer_text(&c->segment, c->how->before);
    if (c->how->end) buffer_text(&c->segment, role);
    buffer_text(&c->segment, c->how->behind);
}

static void chat_message(Chat *c, const char *role, const char *text, size_t n) {
    chat_role(c, role);
    buffer_bytes(&c->segment, text, n);
    chat_marker(c, c->how->end);
    c->line_break = c->how->end != NULL;
}

/* From the beginning: <s>, and what the system is told. */
static void chat_begin(Chat *c, const char *system) {
    c->s.length = c->full = c->line_break = 0;
    if (c->bos >= 0) chat_push(c, &c->bos, 1);
    if (system) chat_message(c, "system", system, strlen(system));
}

/* The answer to what stands in the conversation, printed as it comes. It stays there without the token that ended it. */
static void chat_answer(Chat *c, int longest, const Sampling *sampling) {
    Error err = { 0 };
    const ModelConfig *config = &c->p->config;
    int stop = c->how->end ? tokenizer_find(c->p->tokenizer, c->how->end, strlen(c->how->end)) : -1, last, ended = 0;
    int from = c->how->end ? c->s.length : 0;                               /* plain text: a space may begin the answer */
    Stream stream = { c->p->tokenizer, c->s.token + from, c->s.length - from, 0, c->pool, stop };
    char *text;
    if (tokenizer_decode(c->p->tokenizer, stream.ids, stream.count, c->pool, &text, &stream.printed)) stream.printed = 0;
    c->s.prompt = c->s.length;
    c->s.capacity = longest < c->T - c->s.length ? c->s.length + longest : c->T;
    c->s.stop_at_eos = 1; c->s.done = 0;
    reply_stopped = 0;
    signal(SIGINT, on_interrupt);
    must(fail(&err, model_generate(&c->p->model, c->p->adapter, NULL, &c->s, 1, &c->p->kv, sampling, stream_token, &stream, &c->p->ws),
              "generating failed", "model_generate", 0, 0), &err, NULL);
    signal(SIGINT, SIG_DFL);
    stream_print(&stream, 1);
    putchar('\n');
    last = c->s.length > c->s.prompt ? c->s.token[c->s.length - 1] : -1;
    for (int i = 0; i < config->eos_count; i++) ended |= last == config->eos[i];
    if (last >= 0 && c->how->end && (ended || last == stop)) c->s.length--;
    else if (!ended && !reply_stopped && c->s.length == c->T)
        fprintf(stderr, "run chat: the answer ends here: the conversation fills the %d positions that there are\n", c->T);
    chat_marker(c, c->how->end);
    c->line_break = c->how->end != NULL;
}

/* One turn. 0 when what was typed does not fit any more; then it is not in the conversation. */
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
    if (c->s.length) chat_answer(c, longest, sampling);                     /* else nothing was said yet, and there is no <s> to start from */
    chat_flush(c);
    c->full = 0;
    pool_release(c->pool, mark);
    return 1;
}

/* The template that the folder tells: by the markers in tokenizer_config.json's chat_template or chat_template.jinja, which are never
 * executed; without these by the tokens that were added. */
static int find_template(const Tokenizer *t, const char *folder, Pool *pool) {
    Error err = { 0 };
    const char *text = tokenizer_chat_template(t);
    char path[1024], *bytes;
    size_t n;
    if (!text && in_folder(folder, "chat_template.jinja")) {
        snprintf(path, sizeof path, "%s/chat_template.jinja", folder);
        must(file_read_all(path, pool, &bytes, &n, &err), &err, "--template says it too");
        text = bytes;
    }
    if (!text && tokenizer_find(t, "<|im_start|>", 12) >= 0 && tokenizer_find(t, "<|im_end|>", 10) >= 0) return CHAT_ML;
    if (text && strstr(text, "<|im_start|>")) return CHAT_ML;
    if (text && strstr(text, "<|user|>") && strstr(text, "<|assistant|>") && !strstr(text, "<|end|>")) return CHAT_ZEPHYR;
    fail(&err, text ? E_UNSUPPORTED : E_MISSING, text ? "its chat_template is neither chatml nor zephyr" : "it does not tell its chat template",
         folder, 0, 0);
    die(&err, "--template chatml, --template zephyr, or --template none for plain text after plain text");
    return CHAT_NONE;
}

typedef struct { const char *adapter, *system; int n, top_k, template, context; double temperature, top_p; uint64_t seed; QuantOptions quant; } ChatOptions;

/* The conversation, line by line. Exit code: 1 if something did not fit. */
static int chat_loop(Chat *c, const ChatOptions *o, Pool *keep) {
    Sampling sampling = { (float)o->temperature, o->top_k, (float)o->top_p };
    Input in = input_open(NULL, keep);
    const char *line;
    size_t n;
    int refused = 0, more = 1;
    memset(&c->segment, 0, sizeof c->segment);
    c->segment.pool = keep;
    chat_begin(c, o->system);
    chat_flush(c);
    while (more && !c->full) {
        fprintf(stderr, "> ");
        more = input_next(&in, &line, &n);
        if (!more || (n == 5 && !memcmp(line, "/quit", 5))) break;
        if (n == 4 && !memcmp(line, "/new", 4)) {
            c->segment.pool = keep; c->segment.data = NULL; c->segment.length = c->segment.capacity = 0;
            chat_begin(c, o->system);
            chat_flush(c);
        } else if (!chat_turn(c, line, n, o->n, &sampling)) {
            refused = 1;
            fprintf(stderr, "run chat: that does not fit: the conversation fills the %d positions that there are; /new begins anew\n", c->T);
        }
    }
    if (c->full) fprintf(stderr, "run chat: --system alone fills the %d positions that there are\n", c->T);
    fprintf(stderr, "\n");
    input_close(&in);
    return refused || c->full;
}

static int run_chat(int argc, char **argv) {
    const char *positional[1] = { NULL };
    ChatOptions o;
    Option option[] = {
        { "template", OPT_CHOICE, &o.template, "auto", 0, 0, "auto|none|chatml|zephyr",
          "how turns are written down; auto: as the folder tells, none: plain text after plain text" },
        { "system", OPT_TEXT, &o.system, NULL, 0, 0, NULL, "what the model is told before the conversation" },
        { "n", OPT_INT, &o.n, "256", 1, 1e9, NULL, "tokens of an answer at most" },
        { "context", OPT_INT, &o.context, "0", 0, 1e9, NULL, "longest conversation in tokens (0: the model's positions, at most 2048)" },
        { "temperature", OPT_REAL, &o.temperature, "0.7", 0, 100, NULL, "divides the logits; 0: always the most probable token" },
        { "top-k", OPT_INT, &o.top_k, "0", 0, 1e9, NULL, "only the K most probable tokens (0: all)" },
        { "top-p", OPT_REAL, &o.top_p, "0.9", 0, 1, NULL, "only the most probable tokens that together reach P" },
        { "seed", OPT_SEED, &o.seed, "1", 0, 0, NULL, "of the random numbers" },
        { "adapter", OPT_TEXT, &o.adapter, NULL, 0, 0, NULL, "a run folder of ppo or sft, or any PEFT LoRA folder" },
        QUANT_OPTIONS(o.quant, NF4_HELP),
        COMPUTE_OPTION(o.quant),
    };
    Program program = { "run chat", "MODEL [options]",
        "A conversation: a line from you, an answer from the model, until /quit or the end of input; /new begins anew. Ctrl-C ends an answer.",
        option, sizeof option / sizeof *option, NULL, 0 };
    int given = cli_parse(&program, NULL, argc, argv, positional, 1), before, after;
    Pool keep = cli_pool(), scratch = cli_pool();
    Error err = { 0 };
    Policy p = { 0 };
    Chat c = { 0 };
    if (given < 1) usage_error("which model?", "run chat MODEL");
    quant_options_check(&program, &o.quant, NULL, NULL, 0);
    const char *folder = weights_folder(positional[0], o.adapter);
    c.T = context_length(o.context, folder, &keep);
    must(config_load(&p.config, folder, &keep, &err), &err, NULL);
    need_tokenizer(&p, positional[0], o.adapter, &keep);
    Tokenizer *t = p.tokenizer;
    c.how = &chat_template[o.template == CHAT_AUTO ? find_template(t, positional[0], &keep) : o.template];
    const WeightTypes types = choose_types(&program, &o.quant, positional[0], o.adapter, &keep);
    policy_open(&p, &types, positional[0], o.adapter, c.T, &keep);
    p.tokenizer = t;
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

/* 1 if both are one folder, by whatever names: a file made in one is seen in the other. */
static int same_folder(const char *a, const char *b, Pool *pool) {
    static const char name[] = "merge.probe";
    Error err = { 0 };
    char path[1024];
    int same = 0, n = snprintf(path, sizeof path, "%s/%s", a, name);
    if (n < 0 || (size_t)n >= sizeof path || !b || !folder_exists(a) || !folder_exists(b) || file_exists(path) || in_folder(b, name)) return 0;
    must(file_write_all(path, "", 0, pool, &err), &err, NULL);
    same = in_folder(b, name);
    remove(path);
    return same;
}

/* The model's 4-bit linears become the floats that the forward sees (at compute type F32), in a model of their own. */
static void dequantise(Policy *p, Pool *pool) {
    Error err = { 0 };
    Arena measure = { 0 };
    Model floats;
    must(model_carve(&floats, &p->config, NULL, 0, 1, pool, &measure, &err), &err, NULL);
    measure = cli_arena(measure.used, "the dequantised weights");
    must(model_carve(&floats, &p->config, NULL, 0, 1, pool, &measure, &err), &err, NULL);
    for (int i = 0; i < floats.tensors; i++) {
        const Matrix *from = p->model.tensor[i].matrix, *to = floats.tensor[i].matrix;
        const size_t n = (size_t)to->O * (size_t)to->I;
        if (floats.tensor[i].flags & TENSOR_TIED) continue;
        if (from->type == NF4) dequantize_4bit(to->data, from->data, from->quant, 0, n);
        else memcpy(to->data, from->data, n * sizeof(float));
    }
    p->model = floats;
}

/* W += scale B A for every linear that the adapter adapts. */
static void merge_adapter(Policy *p) {
    Arena ws = { 0 };
    for (int i = 0; i < p->model.tensors; i++) lora_merge(p->adapter, p->model.tensor[i].matrix, &ws);
    p->work = cli_arena(ws.peak, "work space");
    for (int i = 0; i < p->model.tensors; i++)
        if (!(p->model.tensor[i].flags & TENSOR_TIED)) lora_merge(p->adapter, p->model.tensor[i].matrix, &p->work);
}

static int run_merge(int argc, char **argv) {
    const char *adapter, *out, *positional[1] = { NULL };
    int dtype, shard;
    QuantOptions quant = { 0 };
    static const int type[] = { F32, BF16, F16 };
    Option option[] = {
        { "adapter", OPT_TEXT, &adapter, NULL, 0, 0, NULL, "a run folder of ppo or sft, or any PEFT LoRA folder" },
        { "out", OPT_TEXT, &out, NULL, 0, 0, NULL, "the folder to write" },
        { "dtype", OPT_CHOICE, &dtype, "f32", 0, 0, "f32|bf16|f16", "numbers as written" },
        QUANT_OPTIONS(quant, "merge into the NF4 weights that the adapter was trained next to, dequantised"),
        { "shard-mb", OPT_INT, &shard, "0", 0, 1e6, NULL, "split the weights into files of about so many megabytes (0: one file)" },
    };
    Program program = { "run merge", "MODEL --adapter RUN --out DIR [options]",
        "Adds the adapter's products to the weights and writes a whole model folder, of floats: 4-bit weights are dequantised before.",
        option, sizeof option / sizeof *option, NULL, 0 };
    int given = cli_parse(&program, NULL, argc, argv, positional, 1);
    Pool keep = cli_pool();
    Error err = { 0 };
    Policy p;
    if (given < 1 || !adapter || !out) usage_error("model, adapter and output are needed", "run merge MODEL --adapter RUN --out DIR");
    quant_options_check(&program, &quant, NULL, NULL, 0);
    if (same_folder(out, positional[0], &keep) || same_folder(out, adapter, &keep))
        must(fail(&err, E_ARGUMENT, "merging would overwrite what it reads", out, 0, 0), &err, "another folder for --out");
    WeightTypes types = choose_types(&program, &quant, positional[0], adapter, &keep);
    types.tables = F32;
    if (types.layers != NF4) types.layers = F32;
    policy_open(&p, &types, positional[0], adapter, 1, &keep);
    if (types.layers == NF4) dequantise(&p, &keep);
    if (p.adapter) merge_adapter(&p);
    if (!tensors_are_numbers(p.model.tensor, p.model.tensors, type[dtype]))
        must(fail(&err, E_NUMBER, "a merged weight is no number, or too large for --dtype", out, 0, 0), &err, "--dtype f32 or bf16");
    p.tokenizer = find_tokenizer(positional[0], adapter, &keep, &err);
    if (err.code) {
        fprintf(stderr, "run merge: the tokenizer is left out, copy it yourself: %s: %s\n", err.what, err.where);
        memset(&err, 0, sizeof err);
    }
    must(folder_make(out, &err), &err, NULL);
    if (p.tokenizer) must(tokenizer_save(p.tokenizer, out, p.config.positions, &keep, &err), &err, NULL);
    must(config_save(&p.config, NULL, out, type[dtype], &keep, &err), &err, NULL);
    must(checkpoint_save(out, "model", "", p.model.tensor, p.model.tensors, type[dtype], (uint64_t)shard * 1000000u, &keep, &err), &err, NULL);
    printf("%s: %.1f million numbers\n", out, (double)tensor_values(p.model.tensor, p.model.tensors, 0) / 1e6);
    if (types.layers == NF4) printf("the %s linears were dequantised before the adapter was added, as peft does it; they are not quantised again\n",
                                    types.kind == QUANT_NF4 ? "NF4" : "FP4");
    return 0;
}

/* ---- the list ---- */

static const struct { const char *name; int (*run)(int argc, char **argv); const char *help; } command[] = {
    { "tokenize", run_tokenize, "text into ids and back:  run tokenize TOKENIZER [FILE]" },
    { "logprobs", run_logprobs, "log-probabilities of texts:  run logprobs MODEL [FILE] [--adapter RUN]" },
    { "score",    run_score,    "a reward model's opinion:  run score REWARD [FILE]" },
    { "generate", run_generate, "write on:  run generate MODEL --prompt TEXT [-n N] [--adapter RUN]" },
    { "chat",     run_chat,     "talk:  run chat MODEL [--template chatml|zephyr|none]" },
    { "merge",    run_merge,    "adapter into weights:  run merge MODEL --adapter RUN --out DIR" },
};

static void print_commands(FILE *to) {
    fprintf(to, "usage: run COMMAND ...   (run COMMAND --help says more)\n\n");
    for (size_t i = 0; i < sizeof command / sizeof *command; i++) fprintf(to, "  %-9s %s\n", command[i].name, command[i].help);
}

int main(int argc, char **argv) {
    if (argc < 2) { fprintf(stderr, "run: which command?\n\n"); print_commands(stderr); return 2; }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) { print_commands(stdout); return 0; }
    for (size_t i = 0; i < sizeof command / sizeof *command; i++)
        if (!strcmp(argv[1], command[i].name)) return command[i].run(argc - 1, argv + 1);
    fprintf(stderr, "run: unknown command: %s\n\n", argv[1]);
    print_commands(stderr);
    return 2;
}
