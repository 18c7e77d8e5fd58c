/* golden.c - whole policies against PyTorch: logits, log-probs, losses, gradients of every tensor, adapters,
 * values, greedy tokens (tests/golden/models/llama-*, which a reference of this project's own made in
 * PyTorch; the folders of tests/golden/hf/models as transformers writes them); and folders written back. On
 * the models of llama-*: the last layer computed for the wanted rows alone gives the same bits. */
#include "golden.h"

static Arena memory, ws;

/* ---- a case: a policy, and its texts as rows ---- */
typedef struct {
    Model m; Lora lora; ValueHead head; Cache kv; Saved saved; Rows rows; unsigned char *wants;
    int *target, wanting; float *hidden, *dhidden, *logprob, *value;
} Case;

/* Lays out the rows of B texts, each after the rows of the adapter's soft prompt, if it has one. */
static int carve_rows(Case *c, const int *ids, const int *lens, size_t B) {
    const int soft = model_prompt(&c->m, &c->lora);
    int n = 0, N = 0, longest = 0;
    for (size_t b = 0; b < B; b++) { N += soft + lens[b]; if (lens[b] > longest) longest = lens[b]; }
    int *token = pool_take(&pool, (size_t)N, sizeof(int)),
        *sequence = pool_take(&pool, (size_t)N, sizeof(int)),
        *position = pool_take(&pool, (size_t)N, sizeof(int));
    unsigned char *wants = pool_take(&pool, (size_t)N, 1);
    c->target = pool_take(&pool, (size_t)N, sizeof(int));
    c->wanting = 0;
    for (size_t b = 0; b < B; ids += lens[b++])
        for (int t = -soft; t < lens[b]; t++, n++) {
            token[n] = t < 0 ? -1 - (t + soft) : ids[t];
            sequence[n] = (int)b; position[n] = t + soft; wants[n] = t >= 0 && t + 1 < lens[b];
            if (wants[n]) c->target[c->wanting++] = ids[t + 1];
        }
    c->rows = (Rows){ N, N, token, sequence, position, NULL };
    c->wants = wants;
    const StackKind *k = &c->m.config.stack;
    cache_carve(&c->kv, k, k->L, (int)B, soft + (longest > 24 ? longest : 24), &memory);
    saved_carve(&c->saved, k, N, N, 0, &memory);
    c->hidden = arena_take(&memory, (size_t)N * (size_t)k->C, sizeof(float));
    c->dhidden = arena_take(&memory, (size_t)N * (size_t)k->C, sizeof(float));
    c->logprob = arena_take(&memory, (size_t)N, sizeof(float));
    c->value = arena_take(&memory, (size_t)N, sizeof(float));
    return memory.failed;
}

static int open_case(Case *c, const char *folder, const Golden *g, int trainable, int lora) {
    Error err = { 0 };
    ModelConfig config;
    char adapter[256];
    size_t n, B;
    memory.used = 0;
    memset(memory.base, 0, memory.capacity);                /* gradients start at 0 */
    memset(c, 0, sizeof *c);
    int bad = config_load(&config, folder, &pool, &err)
        || model_carve(&c->m, &config, NULL, trainable, config.positions, &pool, &memory, &err)
        || checkpoint_load(folder, "model", c->m.tensor, c->m.tensors, &pool, &err);
    snprintf(adapter, sizeof adapter, "%s/adapter", folder);
    if (!bad && lora) {
        value_head_carve(&c->head, config.stack.C, 1, 1, &memory);
        bad = adapter_config_load(&c->lora.config, adapter, &pool, &err) ||
              lora_carve(&c->lora, c->m.tensor, c->m.tensors, &c->lora.config, 1, &pool, &memory, &err) ||
              checkpoint_load(adapter, "adapter_model", c->lora.tensor, c->lora.tensors, &pool, &err) ||
              checkpoint_load(adapter, "value_head", c->head.tensor, c->head.tensors, &pool, &err);
    }
    CHECK(!bad, "%s%s loads: %s: %s", folder, lora ? " with adapter" : "", err.what, err.where);
    if (bad) return 0;
    const int *ids = ints(g, "ids", &n), *lens = ints(g, "seq_lens", &B);
    return !carve_rows(c, ids, lens, B);
}

static void minus_mean(void *context, int first, int n, const float *logprob, float *dlogprob) {
    (void)first; (void)logprob;
    for (int i = 0; i < n; i++) dlogprob[i] = -1.0f / (float)*(int *)context;
}

/* Computes the logits of all rows of texts, by a plain product. */
static void check_logits(Case *c, const Golden *g, const char *name, const Lora *adapter,
                         const char *folder) {
    size_t n, V = (size_t)c->m.config.V;
    const float *want = floats(g, name, &n);
    float *logits = pool_take(&pool, (size_t)c->rows.N * V, sizeof(float));
    CHECK(model_forward(&c->m, adapter, &c->rows, &c->kv, &c->saved, c->hidden, &ws) == OK, "%s: forward",
          folder);
    lora_linear(logits, c->hidden, adapter, &c->m.head, NULL, c->rows.N, &ws);
    size_t texts = 0;
    for (int i = 0; i < c->rows.N; i++)
        if (c->rows.token[i] >= 0) memmove(logits + texts++ * V, logits + (size_t)i * V, V * sizeof *logits);
    double d = want && n == texts * V ? distance(logits, want, n, 0) : 1e9;
    CHECK(d < 2e-5, "%s: %s differ by %.2g (2e-5)", folder, name, d);
}

/* Computes log-probs of the wanted tokens from their hidden states (W,C), and adds the gradient of -mean. */
static int learn(Case *c, const Lora *adapter, const float *hidden, float *dhidden) {
    const HeadTask task = { .target = c->target, .temperature = 1, .logprob = c->logprob,
                            .loss = minus_mean, .context = &c->wanting, .dhidden = dhidden };
    return model_logprobs(&c->m, adapter, hidden, c->wanting, &task, &ws);
}

/* Does the same from the hidden states of all rows, whose values are wanted too. */
static void learn_all(Case *c, const Lora *adapter) {
    size_t C = (size_t)c->m.config.stack.C, n = (size_t)c->wanting * C;
    float *some = pool_take(&pool, n, sizeof(float)), *dsome = pool_take(&pool, n, sizeof(float));
    for (int i = 0, w = 0; i < c->rows.N; i++)
        if (c->wants[i]) memcpy(some + (size_t)w++ * C, c->hidden + (size_t)i * C, C * sizeof(float));
    learn(c, adapter, some, dsome);
    for (int i = 0, w = 0; i < c->rows.N; i++)
        if (c->wants[i]) memcpy(c->dhidden + (size_t)i * C, dsome + (size_t)w++ * C, C * sizeof(float));
}

static void check_greedy(Case *c, const Golden *g, const char *folder) {
    size_t n;
    const int *want = ints(g, "greedy", &n);
    int out[64];
    Sequence s;
    const Writing greedy = { NULL, NULL, { 0, 0, 1 }, NULL, NULL };
    memset(&s, 0, sizeof s);
    for (int i = 0; i < 4; i++) out[i] = want[i];
    s.token = out; s.prompt = s.length = 4; s.capacity = (int)n;
    CHECK(model_generate(&c->m, &greedy, &s, 1, &c->kv, &ws) == OK
          && !memcmp(out, want, n * sizeof(int)), "%s: greedy tokens", folder);
}

/* Checks a policy without an adapter. */
static void base_case(const char *folder) {
    char path[256];
    size_t n;
    Case c;
    snprintf(path, sizeof path, "%s/golden.safetensors", folder);
    Golden g = golden_open(path);
    if (!open_case(&c, folder, &g, 1, 0)) return;
    check_logits(&c, &g, "logits", NULL, folder);
    memset(c.dhidden, 0, (size_t)c.rows.N * (size_t)c.m.config.stack.C * sizeof(float));
    c.rows.W = c.wanting;               /* the last layer computes the rows that predict a token, no others */
    c.rows.wants = c.wants;
    CHECK(model_forward(&c.m, NULL, &c.rows, &c.kv, &c.saved, c.hidden, &ws) == OK
          && learn(&c, NULL, c.hidden, c.dhidden) == OK, "%s: logprobs", folder);
    const float *lp = floats(&g, "logprobs", &n), *loss = floats(&g, "loss", &n);
    double sum = 0, d = distance(c.logprob, lp, (size_t)c.wanting, 0);
    for (int i = 0; i < c.wanting; i++) sum -= (double)c.logprob[i];
    CHECK(d < 2e-5, "%s: logprobs differ by %.2g", folder, d);
    CHECK(fabs(sum / c.wanting - (double)loss[0]) < 1e-5, "%s: loss %.7f, wanted %.7f", folder,
          sum / c.wanting, (double)loss[0]);
    model_backward(&c.m, NULL, &c.rows, &c.kv, &c.saved, c.dhidden, &ws);
    check_gradients(c.m.tensor, c.m.tensors, &g, "grad.", folder);
    check_greedy(&c, &g, folder);
}

/* ---- adapters that peft wrote ---- */

/* Gives a tensor the name that it has in peft's memory: with the adapter's name, "default". */
static void name_in_peft(Tensor *t) {
    if (!strcmp(t->name, "prompt_embeddings")) {
        strcpy(t->name, "prompt_encoder.default.embedding.weight");
        return;
    }
    const char *pair = strstr(t->name, ".lora_"), *dot = strrchr(t->name, '.');
    const char *place = strstr(t->name, ".bias") ? "" : pair ? ".default" : ".modules_to_save.default";
    const int stem = (int)((pair && dot == pair ? t->name + strlen(t->name) : dot) - t->name);
    const char *end = strstr(t->name, "vector") ? ".weight" : t->name + stem;
    char name[160];
    snprintf(name, sizeof name, "%.*s%s%s", stem, t->name, place, end);
    CHECK(strlen(name) < sizeof t->name, "%s fits", name);
    memcpy(t->name, name, sizeof t->name - 1);
}

/* Checks the loss of all tokens, and the gradients of all that the adapter trains. */
static void peft_gradients(Case *c, const Golden *g, const char *folder) {
    size_t n;
    Tensor *list = pool_take(&pool, (size_t)c->lora.tensors, sizeof *list);
    double sum = 0;
    const float *lp = floats(g, "logprobs", &n);
    c->rows.W = c->wanting;
    c->rows.wants = c->wants;
    memset(c->dhidden, 0, (size_t)c->rows.N * (size_t)c->m.config.stack.C * sizeof(float));
    CHECK(model_forward(&c->m, &c->lora, &c->rows, &c->kv, &c->saved, c->hidden, &ws) == OK
          && learn(c, &c->lora, c->hidden, c->dhidden) == OK
          && model_backward(&c->m, &c->lora, &c->rows, &c->kv, &c->saved, c->dhidden, &ws) == OK,
          "%s: forward and backward", folder);
    double d = lp && n == (size_t)c->wanting ? distance(c->logprob, lp, n, 0) : 1e9;
    CHECK(d < 2e-5, "%s: logprobs differ by %.2g", folder, d);
    for (int i = 0; i < c->wanting; i++) sum -= (double)c->logprob[i];
    CHECK(fabs(sum / c->wanting - (double)floats(g, "loss", &n)[0]) < 1e-5, "%s: loss %.7f", folder,
          sum / c->wanting);
    for (int t = 0; t < c->lora.tensors; t++) {
        list[t] = c->lora.tensor[t];
        name_in_peft(&list[t]);
    }
    int wanted = 0;
    for (const Json *j = g->header->child; j; j = j->next) wanted += strncmp(j->key, "grad.", 5) == 0;
    CHECK(wanted == c->lora.tensors, "%s: %d tensors are trained, by peft %d", folder, c->lora.tensors,
          wanted);
    check_gradients(list, c->lora.tensors, g, c->lora.prompt.O ? "grad." : "grad.base_model.model.", folder);
}

/* Checks that every key of one adapter_config.json that is set is in the other, with the same value. */
static void compare_configs(const char *folder, const char *out) {
    char path[128], *bytes;
    size_t n;
    const Json *config[2] = { NULL, NULL };
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/adapter_config.json", i ? out : folder);
        if (file_read_all(path, &pool, &bytes, &n, NULL) == OK) config[i] = json_parse(bytes, n, &pool, NULL);
        if (!config[i]) { CHECK(0, "%s is read", path); return; }
    }
    for (int i = 0; i < 2; i++)
        for (const Json *j = config[i]->child; j; j = j->next) {
            const Json *k = json_get(config[1 - i], j->key);
            const int other = !i && (!strcmp(j->key, "peft_version") || !strcmp(j->key, "qalora_group_size"));
            const int unset = other || j->type == JSON_NULL || j->type == JSON_FALSE
                || (j->type >= JSON_ARRAY && !j->count);
            CHECK((!k && unset) || json_equal(j, k), "%s: the key %s is as before", folder, j->key);
        }
}

/* Writes the adapter and compares the folders; adds the adapter to the base's weights: the same logits. */
static void peft_written(Case *c, const Golden *g, const char *folder, const char *base) {
    char out[64], path[128];
    Error err = { 0 };
    Golden file[2];
    out_folder(out, sizeof out);
    snprintf(path, sizeof path, "models/%s", base);
    int bad = adapter_config_save(&c->lora.config, out, path, &pool, &err)
        || adapter_save(&c->lora, out, F32, &pool, &err);
    CHECK(!bad, "%s is written: %s: %s", folder, err.what, err.where);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/adapter_model.safetensors", i ? out : folder);
        file[i] = golden_open(path);
    }
    const int missing = tensor_differences(&file[0], &file[1]), more = tensor_differences(&file[1], &file[0]);
    CHECK(missing == 0 && more == 0, "%s: the same tensors written back (%d missing or other, %d more)",
          folder, missing, more);
    compare_configs(folder, out);
    snprintf(path, sizeof path, "rm -rf %s", out);
    CHECK(system(path) == 0, "%s is removed", out);
    if (c->lora.prompt.O) return;                           /* it changes no weight */
    for (int i = 0; i < c->m.tensors; i++)
        if (!(c->m.tensor[i].flags & TENSOR_TIED)) lora_merge(&c->lora, c->m.tensor[i].matrix, &ws);
    c->rows.W = c->rows.N;
    c->rows.wants = NULL;
    check_logits(c, g, "logits", NULL, folder);
}

/* An adapter of tests/golden/hf/adapters on its base, a model of tests/golden/hf/models: logits, gradients,
 * the folder written back, the merged model (of low-rank pairs; a soft prompt cannot be merged). */
static void peft_case(const char *name, const char *base) {
    char folder[96], model[96], path[128];
    Error err = { 0 };
    Case c;
    snprintf(folder, sizeof folder, "tests/golden/hf/adapters/%s", name);
    snprintf(model, sizeof model, "tests/golden/hf/models/%s", base);
    snprintf(path, sizeof path, "%s/golden.safetensors", folder);
    Golden g = golden_open(path);
    if (!open_case(&c, model, &g, 0, 0)) return;
    int bad = adapter_config_load(&c.lora.config, folder, &pool, &err) ||
              lora_carve(&c.lora, c.m.tensor, c.m.tensors, &c.lora.config, 1, &pool, &memory, &err) ||
              adapter_load(&c.lora, c.m.tensor, c.m.tensors, folder, &pool, &err);
    if (!bad && c.lora.prompt.O) {
        size_t n, B;
        const int *ids = ints(&g, "ids", &n), *lens = ints(&g, "seq_lens", &B);
        bad = carve_rows(&c, ids, lens, B);
    }
    CHECK(!bad, "%s loads: %s: %s", name, err.what, err.where);
    if (bad) return;
    lora_norms(&c.lora, c.m.tensor, &ws);
    check_logits(&c, &g, "logits", &c.lora, name);
    peft_gradients(&c, &g, folder);
    peft_written(&c, &g, folder, base);
}

/* Checks a policy with the adapter and the value head of FOLDER/adapter. */
static void adapter_case(const char *folder) {
    char path[256];
    size_t n;
    Case c;
    snprintf(path, sizeof path, "%s/golden.safetensors", folder);
    Golden g = golden_open(path);
    if (!open_case(&c, folder, &g, 0, 1)) return;
    check_logits(&c, &g, "lora.logits", &c.lora, folder);
    model_values(&c.head, c.hidden, c.value, c.rows.N, &ws);
    const float *values = floats(&g, "lora.values", &n);
    double d = distance(c.value, values, n, 0);
    CHECK(d < 2e-5, "%s: values differ by %.2g", folder, d);
    memset(c.dhidden, 0, (size_t)c.rows.N * (size_t)c.m.config.stack.C * sizeof(float));
    learn_all(&c, &c.lora);
    for (int i = 0; i < c.rows.N; i++) c.value[i] = (c.value[i] - 0.5f) / (float)c.rows.N;
    model_values_backward(&c.head, c.value, c.hidden, c.dhidden, c.rows.N, &ws);
    model_backward(&c.m, &c.lora, &c.rows, &c.kv, &c.saved, c.dhidden, &ws);
    check_gradients(c.lora.tensor, c.lora.tensors, &g, "lora.grad.", folder);
    check_gradients(c.head.tensor, c.head.tensors, &g, "lora.grad.", folder);
}

/* ---- folders written back ---- */

/* Loads a policy, writes it, and compares the two folders. */
static void written_back(const char *folder) {
    char out[64];
    Error err = { 0 };
    ModelConfig config, again;
    Model m;
    out_folder(out, sizeof out);
    memory.used = 0;
    int bad = config_load(&config, folder, &pool, &err)
        || model_carve(&m, &config, NULL, 0, config.positions, &pool, &memory, &err)
        || checkpoint_load(folder, "model", m.tensor, m.tensors, &pool, &err)
        || config_save(&config, NULL, out, F32, &pool, &err)
        || checkpoint_save(out, "model", m.tensor, m.tensors, F32, 0, &pool, &err)
        || config_load(&again, out, &pool, &err);
    CHECK(!bad, "%s: loaded and written: %s: %s", folder, err.what, err.where);
    if (bad) return;
    CHECK(memcmp(&config, &again, sizeof config) == 0, "%s: the same configuration, read again", folder);
    compare_folders(folder, out);
}

static void container_case(const char *folder, const char *golden) {
    Case c;
    Golden g = golden_open(golden);
    if (open_case(&c, folder, &g, 0, 0)) check_logits(&c, &g, "logits", NULL, folder);
}

/* ---- the last layer computes the wanted rows alone: the same bits ---- */

/* Says which rows are wanted; returns how many. 0: those that predict a token; 1: every third; 2: one. */
static int choose_rows(const Case *c, unsigned char *wants, int pattern) {
    int W = 0;
    for (int n = 0; n < c->rows.N; n++) {
        wants[n] = pattern == 0 ? c->wants[n] : pattern == 1 ? n % 3 == 1 : n == c->rows.N / 2;
        W += wants[n];
    }
    return W;
}

/* Computes the gradients of a loss whose slopes at the wanted rows' hidden states are dhidden (W,C); returns
 * a copy of them in the pool. *n: how many. */
static float *gradients(Case *c, const Lora *adapter, Saved *saved, const float *dhidden, size_t *n) {
    const Tensor *list = adapter ? adapter->tensor : c->m.tensor;
    const int tensors = adapter ? adapter->tensors : c->m.tensors;
    float *copy = pool_take(&pool, tensor_values(list, tensors, 1), sizeof *copy);
    gradient_zero(list, tensors);
    CHECK(model_forward(&c->m, adapter, &c->rows, &c->kv, saved, c->hidden, &ws) == OK
          && model_backward(&c->m, adapter, &c->rows, &c->kv, saved, dhidden, &ws) == OK,
          "forward and backward");
    *n = 0;
    for (int t = 0; t < tensors; t++) {
        const Matrix *w = list[t].matrix;
        if (list[t].flags & TENSOR_TIED) continue;
        memcpy(copy + *n, w->grad, (size_t)w->O * (size_t)w->I * sizeof *copy);
        *n += (size_t)w->O * (size_t)w->I;
    }
    return copy;
}

/* Compares all rows computed (the others have a slope of 0) with the wanted rows alone, whose activations are
 * saved, or computed again. */
static void wanted_rows(Case *c, const Lora *adapter, int pattern, const char *what) {
    const size_t N = (size_t)c->rows.N, C = (size_t)c->m.config.stack.C;
    unsigned char *wants = pool_take(&pool, N, 1);
    float *all = pool_take(&pool, N * C, sizeof *all), *some = pool_take(&pool, N * C, sizeof *some);
    const int W = choose_rows(c, wants, pattern);
    const size_t mark = memory.used;
    Saved saved;
    size_t n, m, w = 0, same = 0;
    for (size_t i = 0; i < N; i++) {
        Rng r = rng_stream(3, 1, i);
        for (size_t k = 0; wants[i] && k < C; k++) some[w * C + k] = all[i * C + k] = (float)rng_normal(&r);
        w += wants[i];
    }
    c->rows.W = c->rows.N;
    c->rows.wants = NULL;
    const float *want = gradients(c, adapter, &c->saved, all, &n);
    memcpy(all, c->hidden, N * C * sizeof *all);
    c->rows.W = W;
    c->rows.wants = wants;
    for (int recompute = 0; recompute <= 1; recompute++) {
        saved_carve(&saved, &c->m.config.stack, c->rows.N, W, recompute, &memory);
        const float *got = gradients(c, adapter, &saved, some, &m);
        same = 0;
        w = 0;
        for (size_t i = 0; i < N; i++)
            if (wants[i]) same += !memcmp(all + i * C, c->hidden + w++ * C, C * sizeof *all);
        CHECK(same == (size_t)W, "%s, %d of %d rows: their hidden states", what, W, c->rows.N);
        CHECK(n == m && !memcmp(want, got, n * sizeof *got), "%s, %d of %d rows: %d gradients%s", what, W,
              c->rows.N, (int)n, recompute ? ", layers computed again" : "");
        memory.used = mark;
    }
}

static void wanted_case(const char *folder, int lora) {
    char path[256], what[160];
    Case c;
    snprintf(path, sizeof path, "%s/golden.safetensors", folder);
    Golden g = golden_open(path);
    if (!open_case(&c, folder, &g, !lora, lora)) return;
    for (int k = 0; fast_name(k); k++) {                    /* every kernel of this processor */
        if (fast_use(fast_name(k)) != OK) continue;
        snprintf(what, sizeof what, "%s%s, %s", folder, lora ? " with adapter" : "", fast_name(k));
        for (int pattern = 0; pattern < 3; pattern++) wanted_rows(&c, lora ? &c.lora : NULL, pattern, what);
    }
    fast_use("");
}

static void stories(void) {
    char folder[512], path[512];
    char *bytes;
    size_t n;
    Error err = { 0 };
    ModelConfig config;
    Model m;
    Cache kv;
    Sequence s;
    const Writing greedy = { NULL, NULL, { 0, 0, 1 }, NULL, NULL };
    int out[256];
    snprintf(folder, sizeof folder, "%s/data/stories260K", shared());
    snprintf(path, sizeof path, "%s/golden/stories260K_golden.json", shared());
    if (file_read_all(path, &pool, &bytes, &n, &err)) { SKIP("stories260K: no %s", path); return; }
    const Json *ids = json_get(json_parse(bytes, n, &pool, &err), "greedy_ids");
    memory.used = 0;
    int bad = !ids || config_load(&config, folder, &pool, &err)
        || model_carve(&m, &config, NULL, 0, config.positions, &pool, &memory, &err)
        || checkpoint_load(folder, "model", m.tensor, m.tensors, &pool, &err);
    CHECK(!bad, "stories260K loads: %s: %s", err.what, err.where);
    if (bad) return;
    cache_carve(&kv, &config.stack, config.stack.L, 1, 256, &memory);
    memset(&s, 0, sizeof s);
    out[0] = 1;
    s.token = out; s.prompt = s.length = 1; s.capacity = (int)ids->count;
    int code = model_generate(&m, &greedy, &s, 1, &kv, &ws), same = 0;
    for (const Json *e = ids->child; e && same < s.length && (int)e->number == out[same]; e = e->next) same++;
    CHECK(code == OK && same == (int)ids->count && same >= 200, "stories260K: %d of %d greedy tokens", same,
          (int)ids->count);
}

/* Folders of tests/golden/hf/models, one of each family. */
static const char *const families[] = { "llama", "qwen2", "gpt2", "llama-bias", "llama-yarn", "llama-3.2",
    "mistral-window", "qwen3", "smollm3", "gpt-neo" };

/* Folders of tests/golden/hf/adapters, and their bases. */
static const char *const adapters[][2] = { { "gpt2-lora", "gpt2" }, { "gpt2-lora-all", "gpt2" },
    { "llama-bias-all", "llama-bias" }, { "llama-dora", "llama" }, { "llama-embed-lora", "llama" },
    { "llama-exclude", "llama" }, { "llama-head-lora", "llama" }, { "llama-head-saved", "llama" },
    { "llama-layers", "llama" }, { "llama-rank-pattern", "llama" }, { "llama-regex", "llama" },
    { "qwen2-lora", "qwen2" }, { "gpt2-prompt", "gpt2" }, { "llama-prompt", "llama" } };

int main(void) {
    memory = test_arena((size_t)64 << 20);
    ws = test_arena((size_t)32 << 20);
    pool = test_pool();
    for (int i = 0; i < 3; i++) {
        static const char *const folder[] = { "tests/golden/models/llama-gqa",
            "tests/golden/models/llama-mha-tied",
                                              "tests/golden/models/llama-odd" };
        base_case(folder[i]);
        adapter_case(folder[i]);
    }
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        char folder[64];
        snprintf(folder, sizeof folder, "tests/golden/hf/models/%s", families[i]);
        base_case(folder);
        written_back(folder);
    }
    for (size_t i = 0; i < sizeof adapters / sizeof *adapters; i++) peft_case(adapters[i][0], adapters[i][1]);
    container_case("tests/golden/models/llama-bf16", "tests/golden/models/llama-bf16/golden.safetensors");
    container_case("tests/golden/models/llama-f16", "tests/golden/models/llama-f16/golden.safetensors");
    container_case("tests/golden/models/llama-sharded", "tests/golden/models/llama-gqa/golden.safetensors");
    static const char *const folder[] = { "llama-gqa", "llama-mha-tied", "llama-odd" };
    for (int i = 0; i < 6; i++) {
        char path[80];
        snprintf(path, sizeof path, "tests/golden/models/%s", folder[i / 2]);
        wanted_case(path, i % 2);
    }
    stories();
    CHECK(!memory.failed && !ws.failed, "memory suffices");
    pool_free(&pool);
    return test_end("golden");
}
