/* run.c - use what was trained: tokenize, logprobs, score, generate, chat, merge.
 *
 * Source   DESIGN: "run speaks one line per text, for people and scripts alike".
 * Needs    every library file below it. Memory: the weights in one arena measured from the config, then one more for adapter,
 *          cache and work space; a pool of scratch that is emptied after every line.
 * Never    changes a file that it reads. Training is the business of sft, rm and ppo.
 * Edges    exactly one output line per input line, also for empty ones (only `generate --prompt` and `chat` write free text, and
 *          `tokenize --decode` the text as it is: with --jsonl it stays on one line). A line that cannot be used ends the program
 *          with its number and exit 1; it is never skipped. */
#include "rlhf.h"
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

static void decode_line(const Input *in, const Tokenizer *t, const char *line, size_t n, int jsonl, Pool *scratch) {
    Error err = { 0 };
    int count, *ids = parse_ids(in, line, n, tokenizer_size(t), scratch, &count);
    char *text;
    size_t length;
    must(fail(&err, tokenizer_decode(t, ids, count, scratch, &text, &length), "cannot decode", in->path, 0, 0), &err, NULL);
    if (jsonl) { printf("{\"text\": "); print_string(text, length, scratch); printf("}"); }
    else fwrite(text, 1, length, stdout);
    putchar('\n');
}

static void encode_line(const Input *in, const Tokenizer *t, const char *line, size_t n, int jsonl, int special, Pool *scratch) {
    int count, *ids;
    if (jsonl) {
        const Json *root = json_parse(line, n, scratch, NULL), *text = json_get(root, "text");
        if (!text || text->type != JSON_STRING) bad_line(in, E_FORMAT, "not a JSON object with a string \"text\"", 0, 0);
        else { line = text->string; n = text->length; }
    }
    ids = text_ids(t, line, n, special, 0, scratch, &count);
    print_ids(ids, count, " ");
    putchar('\n');
}

static int run_tokenize(int argc, char **argv) {
    int jsonl, special, decode;
    Option option[] = {
        { "jsonl", OPT_FLAG, &jsonl, NULL, 0, 0, NULL, "lines are {\"text\": ...}, so that a text may hold line breaks" },
        { "special", OPT_FLAG, &special, NULL, 0, 0, NULL, "with the special tokens of the tokenizer's own template" },
        { "decode", OPT_FLAG, &decode, NULL, 0, 0, NULL, "the way back: lines of ids into text" },
    };
    Program program = { "run tokenize", "TOKENIZER [FILE] [options]",
        "Ids of each line, separated by spaces. TOKENIZER is a tokenizer.model or a folder that has one or vocab.json and merges.txt.",
        option, sizeof option / sizeof *option, NULL, 0 };
    const char *positional[2] = { NULL, NULL }, *line;
    int given = cli_parse(&program, NULL, argc, argv, positional, 2);
    Pool keep = cli_pool(), scratch = cli_pool();
    Error err = { 0 };
    size_t n;
    if (given < 1) usage_error("which tokenizer?", "run tokenize TOKENIZER [FILE]");
    Tokenizer *t = tokenizer_open(positional[0], &keep, &err);
    must(err.code, &err, "TOKENIZER is a tokenizer.model, or a folder with one or with vocab.json and merges.txt");
    Input in = input_open(given > 1 ? positional[1] : NULL, &keep);
    while (input_next(&in, &line, &n)) {
        PoolMark mark = pool_mark(&scratch);
        if (decode) decode_line(&in, t, line, n, jsonl, &scratch);
        else encode_line(&in, t, line, n, jsonl, special, &scratch);
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

/* The tokenizer of the first folder that has one; NULL where neither has. */
static Tokenizer *find_tokenizer(const char *folder, const char *other, Pool *pool) {
    static const char *const name[] = { "tokenizer.model", "spiece.model", "vocab.json" };
    Error err = { 0 };
    for (int f = 0; f < 2; f++) for (int i = 0; i < 3; i++) {
        const char *at = f ? other : folder;
        if (!at || !in_folder(at, name[i])) continue;
        Tokenizer *t = tokenizer_open(at, pool, &err);
        must(err.code, &err, "the tokenizer's files are damaged; --ids works without them");
        return t;
    }
    return NULL;
}

/* Weights of folder, with run's adapter next to them. When run is a whole model (ppo and sft write one where all weights were
 * trained), it is the model. positions: how far texts will reach; 0: see below. */
static void policy_open(Policy *p, const char *folder, const char *run, int positions, Pool *pool) {
    Error err = { 0 };
    Arena measure = { 0 };
    int whole = run && !in_folder(run, "adapter_config.json");
    const char *weights = whole ? run : folder;
    memset(p, 0, sizeof *p);
    must(config_load(&p->config, weights, pool, &err), &err, "MODEL is a Hugging Face folder with config.json and model.safetensors");
    if (positions > p->config.positions)
        must(fail(&err, E_RANGE, "longer than the model's positions", weights, positions, p->config.positions), &err, "a shorter prompt, a smaller -n or --context");
    must(model_carve(&p->model, &p->config, F32, 0, positions, pool, &measure, &err), &err, NULL);
    p->weights = cli_arena(measure.used, "the model's weights");
    must(model_carve(&p->model, &p->config, F32, 0, positions, pool, &p->weights, &err), &err, NULL);
    must(checkpoint_load(weights, "model", "", p->model.tensor, p->model.tensors, pool, &err), &err, NULL);
    if (run && !whole) {
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
    p->tokenizer = find_tokenizer(folder, run, pool);
    if (!p->tokenizer) must(fail(&err, E_MISSING, "no tokenizer.model and no vocab.json", folder, 0, 0), &err, "put one there, or use --ids");
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
    Option option[] = {
        { "adapter", OPT_TEXT, &adapter, NULL, 0, 0, NULL, "a run folder of ppo or sft, or any PEFT LoRA folder" },
        { "ids", OPT_FLAG, &as_ids, NULL, 0, 0, NULL, "lines of ids separated by spaces, as they are, instead of text" },
        { "context", OPT_INT, &context, "0", 0, 1e9, NULL, "longest text in tokens (0: the model's positions, at most 2048)" },
    };
    Program program = { "run logprobs", "MODEL [FILE] [options]",
        "A JSON line per line: the ids, and the log-probability of each id after the first given those before it.",
        option, sizeof option / sizeof *option, NULL, 0 };
    int given = cli_parse(&program, NULL, argc, argv, positional, 2), count;
    Pool keep = cli_pool(), scratch = cli_pool();
    Policy p;
    size_t n;
    if (given < 1) usage_error("which model?", "run logprobs MODEL [FILE]");
    context = context_length(context, positional[0], &keep);
    policy_open(&p, positional[0], adapter, context, &keep);
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

static void judge_open(Judge *j, const char *folder, int text, Pool *pool) {
    Error err = { 0 };
    Arena measure = { 0 }, ws = { 0 };
    memset(j, 0, sizeof *j);
    must(reward_config_load(&j->config, folder, pool, &err), &err, "REWARD is a folder with config.json and model.safetensors");
    must(reward_carve(&j->model, &j->config, F32, 0, pool, &measure, &err), &err, NULL);
    j->weights = cli_arena(measure.used, "the reward model's weights");
    must(reward_carve(&j->model, &j->config, F32, 0, pool, &j->weights, &err), &err, NULL);
    must(checkpoint_load(folder, "model", "", j->model.tensor, j->model.tensors, pool, &err), &err, NULL);
    int start[2] = { 0, reward_max_tokens(&j->config) };
    Texts longest = { start[1], 1, NULL, start };
    reward_forward(&j->model, &longest, NULL, NULL, &ws);
    j->work = cli_arena(ws.peak, "work space");
    if (!text) return;
    j->tokenizer = find_tokenizer(folder, NULL, pool);
    if (!j->tokenizer) must(fail(&err, E_MISSING, "no tokenizer.model and no vocab.json", folder, 0, 0), &err, "put one there, or use --ids");
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
    Option option[] = {
        { "ids", OPT_FLAG, &as_ids, NULL, 0, 0, NULL, "lines of ids separated by spaces, as they are, instead of text" },
    };
    Program program = { "run score", "REWARD [FILE] [options]",
        "A JSON line per line: the reward model's logits and the best label. A text that is too long is cut at its end.",
        option, sizeof option / sizeof *option, NULL, 0 };
    int given = cli_parse(&program, NULL, argc, argv, positional, 2);
    Pool keep = cli_pool(), scratch = cli_pool();
    Judge j;
    size_t n;
    if (given < 1) usage_error("which reward model?", "run score REWARD [FILE]");
    judge_open(&j, positional[0], !as_ids, &keep);
    Input in = input_open(given > 1 ? positional[1] : NULL, &keep);
    while (input_next(&in, &line, &n)) {
        PoolMark mark = pool_mark(&scratch);
        int *ids = as_ids ? parse_ids(&in, line, n, j.config.V, &scratch, &count)
                          : text_ids(j.tokenizer, line, n, 1, reward_max_tokens(&j.config), &scratch, &count);
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

/* model_generate's listener. A `hidden` token ends the text and is not shown (a chat template's end of turn). */
static int stream_token(void *context, int sequence, int token) {
    Stream *s = context;
    (void)sequence;
    if (token == s->hidden) return 1;
    s->count++;
    stream_print(s, 0);
    return cli_stopping();
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

typedef struct { const char *adapter, *prompt; int as_ids, n, greedy, top_k, ignore_eos; double temperature, top_p; uint64_t seed; } Generate;

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
    };
    Program program = { "run generate", "MODEL [FILE] [options]",
        "Continues a text (--prompt, written as it comes), or every line of FILE or standard input (a JSON line each; with --ids, ids).",
        option, sizeof option / sizeof *option, NULL, 0 };
    int given = cli_parse(&program, NULL, argc, argv, positional, 2), prompts, longest;
    Pool keep = cli_pool(), scratch = cli_pool();
    Error err = { 0 };
    Policy p = { 0 };
    if (given < 1) usage_error("which model?", "run generate MODEL --prompt TEXT");
    if (g.prompt && given > 1) usage_error("--prompt or a file of prompts, not both", positional[1]);
    const char *weights = g.adapter && !in_folder(g.adapter, "adapter_config.json") ? g.adapter : positional[0];
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
    policy_open(&p, positional[0], g.adapter, (int)T, &keep);
    p.tokenizer = tokenizer;
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

/* How a turn is written down. `stop` ends an answer; the markers count as tokens of their own where the vocabulary has them. */
typedef struct { const char *user, *assistant, *stop, *next; } ChatTemplate;
static const ChatTemplate chat_template[] = {
    { "", "", NULL, "" },
    { "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>", "\n" },
    { "<|user|>\n", "</s>\n<|assistant|>\n", "</s>", "\n" },
};
static const char *const chat_marker[] = { "<|im_start|>", "<|im_end|>", "</s>" };

typedef struct { Policy *p; Sequence s; int T; Pool *pool; } Chat;

/* Appends text to the conversation's ids, markers as single ids. 0 when it does not fit any more. trusted 0: what a person typed
 * holds no markers. */
static int chat_append(Chat *c, const char *text, size_t n, int trusted) {
    const Tokenizer *t = c->p->tokenizer;
    while (n) {
        size_t at = 0, marker = 0;
        int id = -1, count = 0, *ids = NULL;
        for (; trusted && at < n && id < 0; at++)
            for (int m = 0; m < 3 && id < 0; m++) {
                marker = strlen(chat_marker[m]);
                if (n - at >= marker && !memcmp(text + at, chat_marker[m], marker)) id = tokenizer_find(t, chat_marker[m], marker);
            }
        at = id >= 0 ? at - 1 : n;
        if (at && tokenizer_encode(t, text, at, c->pool, &ids, &count)) return 0;
        if (count + (id >= 0) > c->T - c->s.length) return 0;
        for (int i = 0; i < count; i++) c->s.token[c->s.length++] = ids[i];
        if (id >= 0) c->s.token[c->s.length++] = id;
        text += id >= 0 ? at + marker : at;
        n -= id >= 0 ? at + marker : at;
    }
    return 1;
}

/* One turn: what was typed goes into the conversation, the answer is printed and stays in it. 0 when the model's positions are full. */
static int chat_turn(Chat *c, const ChatTemplate *how, const char *line, size_t n, int longest, const Sampling *sampling) {
    Error err = { 0 };
    int stop = how->stop ? tokenizer_find(c->p->tokenizer, how->stop, strlen(how->stop)) : -1;
    if (!chat_append(c, how->user, strlen(how->user), 1) || !chat_append(c, line, n, 0) ||
        !chat_append(c, how->assistant, strlen(how->assistant), 1) || c->s.length >= c->T) return 0;
    if (!c->s.length) return 1;                                             /* nothing said yet, and no <s> to start from */
    Stream stream = { c->p->tokenizer, c->s.token, c->s.length, 0, c->pool, stop };
    PoolMark mark = pool_mark(c->pool);
    char *text;
    if (tokenizer_decode(c->p->tokenizer, c->s.token, c->s.length, c->pool, &text, &stream.printed)) stream.printed = 0;
    pool_release(c->pool, mark);
    c->s.prompt = c->s.length;
    c->s.capacity = longest < c->T - c->s.length ? c->s.length + longest : c->T;
    c->s.stop_at_eos = 1; c->s.done = 0;
    must(fail(&err, model_generate(&c->p->model, c->p->adapter, NULL, &c->s, 1, &c->p->kv, sampling, stream_token, &stream, &c->p->ws),
              "generating failed", "model_generate", 0, 0), &err, NULL);
    stream_print(&stream, 1);
    putchar('\n');
    if (how->stop && c->s.token[c->s.length - 1] != stop && !chat_append(c, how->stop, strlen(how->stop), 1)) return 0;
    return chat_append(c, how->next, strlen(how->next), 1);
}

static int run_chat(int argc, char **argv) {
    const char *adapter, *positional[1] = { NULL }, *line;
    int n, top_k, template, context, open = 1;
    double temperature, top_p;
    uint64_t seed;
    Option option[] = {
        { "template", OPT_CHOICE, &template, "none", 0, 0, "none|chatml|zephyr", "how turns are written down; none: plain text after plain text" },
        { "n", OPT_INT, &n, "256", 1, 1e9, NULL, "tokens of an answer at most" },
        { "context", OPT_INT, &context, "0", 0, 1e9, NULL, "longest conversation in tokens (0: the model's positions, at most 2048)" },
        { "temperature", OPT_REAL, &temperature, "0.7", 0, 100, NULL, "divides the logits; 0: always the most probable token" },
        { "top-k", OPT_INT, &top_k, "0", 0, 1e9, NULL, "only the K most probable tokens (0: all)" },
        { "top-p", OPT_REAL, &top_p, "0.9", 0, 1, NULL, "only the most probable tokens that together reach P" },
        { "seed", OPT_SEED, &seed, "1", 0, 0, NULL, "of the random numbers" },
        { "adapter", OPT_TEXT, &adapter, NULL, 0, 0, NULL, "a run folder of ppo or sft, or any PEFT LoRA folder" },
    };
    Program program = { "run chat", "MODEL [options]", "A conversation: a line from you, an answer from the model, until the end of input.",
        option, sizeof option / sizeof *option, NULL, 0 };
    int given = cli_parse(&program, NULL, argc, argv, positional, 1), before, after;
    Pool keep = cli_pool(), scratch = cli_pool();
    Policy p;
    size_t length;
    if (given < 1) usage_error("which model?", "run chat MODEL");
    Chat c = { &p, { 0 }, context_length(context, positional[0], &keep), &scratch };
    policy_open(&p, positional[0], adapter, c.T, &keep);
    need_tokenizer(&p, positional[0], adapter, &keep);
    c.s = sequence_open(&p, c.T, c.T, &keep);
    c.s.length = 0;
    c.s.rng = rng_stream(seed, 0, 0);
    tokenizer_template(p.tokenizer, &before, &after);
    if (before) c.s.token[c.s.length++] = tokenizer_specials(p.tokenizer).bos;
    Sampling sampling = { (float)temperature, top_k, (float)top_p };
    Input in = input_open(NULL, &keep);
    while (open) {
        PoolMark mark = pool_mark(&scratch);
        fprintf(stderr, "> ");
        if (!input_next(&in, &line, &length)) break;
        open = chat_turn(&c, &chat_template[template], line, length, n, &sampling);
        if (!open) fprintf(stderr, "run chat: the conversation fills the %d positions that there are; start anew, or give --context\n", c.T);
        pool_release(&scratch, mark);
    }
    fprintf(stderr, "\n");
    if (open) input_close(&in);
    return !open;
}

/* ---- merge ---- */

static int run_merge(int argc, char **argv) {
    const char *adapter, *out, *positional[1] = { NULL };
    int dtype, shard;
    static const int type[] = { F32, BF16, F16 };
    Option option[] = {
        { "adapter", OPT_TEXT, &adapter, NULL, 0, 0, NULL, "a run folder of ppo or sft, or any PEFT LoRA folder" },
        { "out", OPT_TEXT, &out, NULL, 0, 0, NULL, "the folder to write" },
        { "dtype", OPT_CHOICE, &dtype, "f32", 0, 0, "f32|bf16|f16", "numbers as written" },
        { "shard-mb", OPT_INT, &shard, "0", 0, 1e6, NULL, "split the weights into files of about so many megabytes (0: one file)" },
    };
    Program program = { "run merge", "MODEL --adapter RUN --out DIR [options]",
        "Adds the adapter's products to the weights and writes a whole model folder.", option, sizeof option / sizeof *option, NULL, 0 };
    int given = cli_parse(&program, NULL, argc, argv, positional, 1);
    Pool keep = cli_pool();
    Error err = { 0 };
    Policy p;
    if (given < 1 || !adapter || !out) usage_error("model, adapter and output are needed", "run merge MODEL --adapter RUN --out DIR");
    policy_open(&p, positional[0], adapter, 1, &keep);
    if (p.adapter) {
        Arena ws = { 0 };
        for (int i = 0; i < p.model.tensors; i++) lora_merge(p.adapter, p.model.tensor[i].matrix, &ws);
        p.work = cli_arena(ws.peak, "work space");
        for (int i = 0; i < p.model.tensors; i++)
            if (!(p.model.tensor[i].flags & TENSOR_TIED)) lora_merge(p.adapter, p.model.tensor[i].matrix, &p.work);
    }
    p.tokenizer = find_tokenizer(positional[0], adapter, &keep);
    must(folder_make(out, &err), &err, NULL);
    if (p.tokenizer) must(tokenizer_save(p.tokenizer, out, p.config.positions, &keep, &err), &err, NULL);
    must(config_save(&p.config, out, type[dtype], &keep, &err), &err, NULL);
    must(checkpoint_save(out, "model", "", p.model.tensor, p.model.tensors, type[dtype], (uint64_t)shard * 1000000u, &keep, &err), &err, NULL);
    printf("%s: %.1f million numbers\n", out, (double)tensor_values(p.model.tensor, p.model.tensors, 0) / 1e6);
    return 0;
}

/* ---- the list ---- */

static const struct { const char *name; int (*run)(int argc, char **argv); const char *help; } command[] = {
    { "tokenize", run_tokenize, "text into ids and back:  run tokenize TOKENIZER [FILE]" },
    { "logprobs", run_logprobs, "log-probabilities of texts:  run logprobs MODEL [FILE] [--adapter RUN]" },
    { "score",    run_score,    "a reward model's opinion:  run score REWARD [FILE]" },
    { "generate", run_generate, "write on:  run generate MODEL --prompt TEXT [-n N] [--adapter RUN]" },
    { "chat",     run_chat,     "talk:  run chat MODEL [--template chatml]" },
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
