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

const char *weights_hint(const char *folder, const char *run) {
    return weights_folder(folder, run) == folder ? model_hint
         : "--adapter FOLDER, with adapter_config.json, or a run's folder with the whole model";
}

WeightTypes choose_types(const Program *program, const QuantOptions *q, const char *folder,
                         const char *run, Pool *pool) {
    WeightTypes types;
    quant_options_types(&types, program, q, weights_folder(folder, run), 0, pool);
    return types;
}

int text_positions(const ModelConfig *c, const char *run, Pool *pool) {
    const int adapted = run && in_folder(run, "adapter_config.json");
    const int soft = adapted ? open_adapter_config(run, 0, pool).prompt.rows : 0;
    require(soft < c->positions ? OK : E_RANGE, "the soft prompt leaves no positions for a text", run, soft,
            c->positions - 1, "an adapter of this model");
    return c->positions - soft;
}

/* Loads the adapter of `run`. */
static void adapter_open(Policy *p, const char *run, Pool *pool) {
    const LoraConfig c = open_adapter_config(run, 0, pool);
    const Tensor *list = p->model.tensor;
    Arena measure = { 0 };
    adapter_carve(&p->lora, &c, list, p->model.tensors, 0, pool, &measure);
    p->adapted = cli_arena(measure.used, "the adapter");
    adapter_carve(&p->lora, &c, list, p->model.tensors, 0, pool, &p->adapted);
    open_adapter(&p->lora, list, p->model.tensors, run, pool);
    p->adapter = &p->lora;
}

void policy_open(Policy *p, const WeightTypes *types, const char *folder, const char *run,
                 int positions, Pool *pool) {
    Error err = { 0 };
    Arena measure = { 0 };
    const char *weights = weights_folder(folder, run);
    p->compute = types->compute;
    if (weights != folder)
        say_error("%s is a whole model, not an adapter: its weights are used, not those of %s", run,
                  folder);
    open_config(&p->config, weights, weights_hint(folder, run), pool);
    p->positions = text_positions(&p->config, run, pool);
    const int soft = p->config.positions - p->positions;
    require(positions > p->positions ? E_RANGE : OK,
            soft ? "longer than the positions that the soft prompt leaves"
                 : "longer than the model's positions",
            weights, positions, p->positions, "a smaller --context");
    must(model_carve(&p->model, &p->config, types, 0, soft + positions, pool, &measure, &err), &err, NULL);
    p->weights = cli_arena(measure.used, "the model's weights");
    must(model_carve(&p->model, &p->config, types, 0, soft + positions, pool, &p->weights, &err), &err, NULL);
    open_weights(p->model.tensor, p->model.tensors, weights, "MODEL", NULL, pool);
    say_value_head(weights, pool);
    if (run && weights != run) adapter_open(p, run, pool);
}

int prompts_rows(const Policy *p, int B, int T) {
    const int soft = lora_prompt(p->adapter), longest = soft + T, several = B * (soft + 1);
    return longest > several ? longest : several;
}

void reading_open(Policy *p, Reading *r, Cache *kv, int N, Arena *a) {
    if (!p->config.encoder.L) return;
    reading_carve(r, &p->config, N, kv->B, 0, 0, a);
    p->read = arena_take(a, (size_t)N, sizeof *p->read);
    kv->reading = r;
}

int policy_read(Policy *p, Reading *r, const int *ids, int n, Arena *ws) {
    const int soft = lora_prompt(p->adapter);
    const Texts text = { soft + n, 1, p->read, p->text };
    if (ws->base && n > r->kv.T - soft) return E_RANGE;
    if (ws->base) memcpy(p->read + prompt_rows(p->read, soft), ids, (size_t)n * sizeof *ids);
    p->text[0] = 0;
    p->text[1] = soft + n;
    p->kv.B = 1;
    return model_encode(&p->model, p->adapter, &text, r, ws);
}

/* Lays out the arrays for blocks of N rows and a cache of B texts of T positions. ws: bytes of work space,
 * which the caller has measured. */
static void work_carve(Policy *p, int B, int N, int T, size_t ws, Arena *a) {
    const int soft = model_prompt(&p->model, p->adapter);
    const size_t n = (size_t)(soft + N);
    p->N = N;
    cache_carve(&p->kv, &p->config.stack, p->config.stack.L, B, soft + T, a);
    reading_open(p, &p->reading, &p->kv, prompts_rows(p, B, T), a);
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
    const int soft = model_prompt(&p->model, p->adapter);
    for (int at = from; at < n - 1; at += p->N) {
        /* The last id predicts nothing and needs no row. The first block begins with the soft prompt. */
        int rows = n - 1 - at < p->N ? n - 1 - at : p->N, code;
        const int before = at ? 0 : prompt_rows(p->token, soft);
        const Rows r = { before + rows, rows, p->token, p->sequence, p->position, p->wants };
        for (int i = 0; i < r.N; i++) {
            p->sequence[i] = 0;
            p->position[i] = soft + at + i - before;
            p->wants[i] = i >= before;
        }
        memcpy(p->token + before, ids + at, (size_t)rows * sizeof *ids);
        memcpy(p->target, ids + at + 1, (size_t)rows * sizeof *ids);
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
    const int soft = model_prompt(&p->model, p->adapter);
    const Rows rows = { soft + N, N, NULL, NULL, NULL, NULL };
    Arena nothing = { 0 };
    Reading reading;
    kv.L = p->config.stack.L; kv.B = 1; kv.T = soft + T; kv.width = p->config.stack.K * p->config.stack.D;
    reading_open(p, &reading, &kv, prompts_rows(p, 1, T), &nothing);
    if (kv.reading) policy_read(p, &reading, NULL, T, &measure);
    model_forward(&p->model, p->adapter, &rows, &kv, NULL, NULL, &measure);
    const HeadTask task = { .temperature = 1 };
    model_logprobs(&p->model, p->adapter, NULL, rows.W, &task, &measure);
    return measure.peak;
}

int context_length(int asked, const char *folder, const char *run, Pool *pool) {
    Error err = { 0 };
    ModelConfig c;
    must(config_load(&c, folder, pool, &err), &err, model_hint);
    const int most = text_positions(&c, run, pool);
    return asked ? asked : most < 2048 ? most : 2048;
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
