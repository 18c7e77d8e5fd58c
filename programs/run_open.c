/* run_open.c - opens policies and judges, with their adapters and tokenizers; log-probs of a text. */
#include "run.h"
#include <stdio.h>

int in_folder(const char *folder, const char *name) {
    char path[1024];
    int n = snprintf(path, sizeof path, "%s/%s", folder, name);
    return n > 0 && (size_t)n < sizeof path && file_exists(path);
}

Tokenizer *find_tokenizer(const char *folder, const char *other, Pool *pool, Error *err) {
    const char *at = tokenizer_exists(folder, pool) ? folder : NULL;
    if (!at && other && tokenizer_exists(other, pool)) at = other;
    return at ? tokenizer_open(at, pool, err) : NULL;
}

void plain_check(int plain, int as_ids) {
    if (plain && as_ids) usage_error("--ids reads no text, so leave out", "--no-special");
}

Tokenizer *need_tokenizer(const char *folder, const char *other, int V, int plain, Pool *pool) {
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

const char *weights_folder(const char *folder, const char *run) {
    return run && !in_folder(run, "adapter_config.json") ? run : folder;
}

const char model_hint[] = "MODEL is a Hugging Face folder with config.json and model.safetensors";

WeightTypes choose_types(const Program *program, const QuantOptions *q, const char *folder,
                         const char *run, Pool *pool) {
    WeightTypes types;
    quant_options_types(&types, program, q, weights_folder(folder, run), 0, pool);
    return types;
}

void policy_open(Policy *p, const WeightTypes *types, const char *folder, const char *run,
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

void reading_open(Policy *p, Reading *r, Cache *kv, int N, Arena *a) {
    if (!p->config.encoder.L) return;
    reading_carve(r, &p->config, N, kv->B, 0, 0, a);
    kv->reading = r;
}

int policy_read(Policy *p, Reading *r, const int *ids, int n, Arena *ws) {
    const Texts text = { n, 1, ids, p->text };
    p->text[0] = 0;
    p->text[1] = n;
    p->kv.B = 1;
    return model_encode(&p->model, p->adapter, &text, r, ws);
}

/* Lays out the arrays for blocks of N rows and a cache of B texts of T positions. ws: bytes of work space,
 * which the caller has measured. */
static void work_carve(Policy *p, int B, int N, int T, size_t ws, Arena *a) {
    size_t n = (size_t)N;
    p->N = N;
    cache_carve(&p->kv, &p->config.stack, p->config.stack.L, B, T, a);
    reading_open(p, &p->reading, &p->kv, T > B ? T : B, a);
    p->token = arena_take(a, n, sizeof(int)); p->sequence = arena_take(a, n, sizeof(int));
    p->position = arena_take(a, n, sizeof(int)); p->target = arena_take(a, n, sizeof(int));
    p->wants = arena_take(a, n, 1);
    p->hidden = arena_take(a, n * (size_t)p->config.stack.C, sizeof(float));
    p->logprob = arena_take(a, n, sizeof(float));
    p->ws.base = arena_take(a, ws, 1);
    p->ws.capacity = ws;
}

void policy_work(Policy *p, int B, int N, int T, size_t ws) {
    Arena measure = { 0 };
    work_carve(p, B, N, T, ws, &measure);
    p->work = cli_arena(measure.used, "the cache and work space");
    work_carve(p, B, N, T, ws, &p->work);
}

/* ---- logprobs ---- */

int policy_logprobs(Policy *p, const int *ids, int from, int n, float *logprob) {
    for (int at = from; at < n - 1; at += p->N) {
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

size_t logprobs_bytes(Policy *p, int N, int T) {
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

int context_length(int asked, const char *folder, Pool *pool) {
    Error err = { 0 };
    ModelConfig c;
    must(config_load(&c, folder, pool, &err), &err, model_hint);
    return asked ? asked : c.positions < 2048 ? c.positions : 2048;
}

/* ---- a judge ---- */

void judge_open(Judge *j, const Program *program, const QuantOptions *q, Pool *pool) {
    Arena weights = { 0 };
    judge_options_types(&j->types, program, q, &j->config, j->folder, 0, pool);
    judge_carve(j, pool, &weights);
    weights = cli_arena(weights.used, "the reward model's weights");
    judge_carve(j, pool, &weights);
    judge_load(j, "REWARD", pool);
}

Arena judge_work(const Judge *j) {
    int start[2] = { 0, reward_max_tokens(&j->config) };
    const Texts longest = { start[1], 1, NULL, start };
    Arena ws = { 0 };
    reward_forward(&j->model, j->adapter, &longest, NULL, NULL, &ws);
    return cli_arena(ws.peak, "work space");
}
