/* tests/golden/seq2seq.c - encoder-decoder policies against transformers (tests/golden/hf/models/t5,
 * flan-t5): the encoder's states, logits, log-probs, the gradients of every tensor, also those of a LoRA
 * adapter in both stacks, greedy tokens; the same bits with layers computed again; folders written back. */
#include "golden.h"

static Arena memory, ws;

/* A policy with its texts: the decoder's rows, and the encoder's texts that they read. */
typedef struct {
    Model m; Lora lora; const Lora *adapter; Cache kv; Saved saved; Reading reading; Texts texts; Rows rows;
    int *target, wanting; float *hidden, *dhidden, *logprob;
} Case;

static void carve_rows(Case *c, const Golden *g, int recompute) {
    size_t N, B, E, b;
    const int *ids = ints(g, "decoder_ids", &N), *lens = ints(g, "decoder_lens", &B);
    const int *text = ints(g, "encoder_ids", &E), *text_lens = ints(g, "encoder_lens", &b);
    int *sequence = pool_take(&pool, N, sizeof(int)), *position = pool_take(&pool, N, sizeof(int));
    int *start = pool_take(&pool, B + 1, sizeof(int)), n = 0;
    unsigned char *wants = pool_take(&pool, N, 1);
    c->target = pool_take(&pool, N, sizeof(int));
    for (b = 0; b < B; b++) {
        start[b + 1] = start[b] + text_lens[b];
        for (int t = 0; t < lens[b]; t++, n++) {
            sequence[n] = (int)b;
            position[n] = t;
            wants[n] = t + 1 < lens[b];
            if (wants[n]) c->target[c->wanting++] = ids[n + 1];
        }
    }
    c->texts = (Texts){ (int)E, (int)B, text, start };
    c->rows = (Rows){ (int)N, (int)N, ids, sequence, position, wants };
    const ModelConfig *k = &c->m.config;
    cache_carve(&c->kv, &k->stack, k->stack.L, (int)B, 24, &memory);
    saved_carve(&c->saved, &k->stack, (int)N, (int)N, recompute, &memory);
    reading_carve(&c->reading, k, (int)E, (int)B, 1, recompute, &memory);
    c->kv.reading = &c->reading;
    c->hidden = arena_take(&memory, N * (size_t)k->stack.C, sizeof(float));
    c->dhidden = arena_take(&memory, N * (size_t)k->stack.C, sizeof(float));
    c->logprob = arena_take(&memory, N, sizeof(float));
}

static int open_case(Case *c, const char *folder, const Golden *g, int lora, int recompute) {
    Error err = { 0 };
    ModelConfig config;
    char adapter[256];
    memory.used = 0;
    memset(memory.base, 0, memory.capacity);                /* gradients start at 0 */
    memset(c, 0, sizeof *c);
    int bad = config_load(&config, folder, &pool, &err)
        || model_carve(&c->m, &config, NULL, !lora, config.positions, &pool, &memory, &err)
        || checkpoint_load(folder, "model", c->m.tensor, c->m.tensors, &pool, &err);
    snprintf(adapter, sizeof adapter, "%s/adapter", folder);
    if (!bad && lora) {
        bad = adapter_config_load(&c->lora.config, adapter, &pool, &err) ||
              lora_carve(&c->lora, c->m.tensor, c->m.tensors, &c->lora.config, 1, &pool, &memory, &err) ||
              checkpoint_load(adapter, "adapter_model", c->lora.tensor, c->lora.tensors, &pool, &err);
        c->adapter = &c->lora;
    }
    CHECK(!bad, "%s%s loads: %s: %s", folder, lora ? " with adapter" : "", err.what, err.where);
    if (bad) return 0;
    carve_rows(c, g, recompute);
    return !memory.failed;
}

static void minus_mean(void *context, int first, int n, const float *logprob, float *dlogprob) {
    (void)first; (void)logprob;
    for (int i = 0; i < n; i++) dlogprob[i] = -1.0f / (float)*(int *)context;
}

/* Compares numbers with the expected ones of a name. */
static void near(const float *got, const Golden *g, const char *prefix, const char *name, size_t size,
                 const char *folder) {
    char full[64];
    size_t n;
    snprintf(full, sizeof full, "%s%s", prefix, name);
    const float *want = floats(g, full, &n);
    const double d = want && n == size ? distance(got, want, n, 0) : 1e9;
    CHECK(d < 2e-5, "%s: %s differ by %.2g (2e-5)", folder, full, d);
}

/* Checks states, logits, log-probs, loss and gradients. prefix: "" or "lora." */
static void numbers(Case *c, const Golden *g, const char *prefix, const char *folder) {
    const size_t C = (size_t)c->m.config.stack.C, N = (size_t)c->rows.N;
    const HeadTask task = { .target = c->target, .temperature = 1, .logprob = c->logprob,
                            .loss = minus_mean, .context = &c->wanting, .dhidden = c->dhidden };
    char name[64];
    size_t n;
    float *logits = pool_take(&pool, N * (size_t)c->m.config.V, sizeof(float));
    CHECK(model_encode(&c->m, c->adapter, &c->texts, &c->reading, &ws) == OK, "%s: the encoder", folder);
    near(c->reading.encoded.hidden, g, prefix, "encoder_states", (size_t)c->texts.N * C, folder);
    c->rows.W = c->rows.N;
    CHECK(model_forward(&c->m, c->adapter, &c->rows, &c->kv, &c->saved, c->hidden, &ws) == OK, "%s: forward",
          folder);
    linear_forward(logits, c->hidden, &c->m.head, NULL, c->rows.N, &ws);
    for (size_t i = 0; c->m.config.scaled && i < N * (size_t)c->m.config.V; i++) logits[i] /= sqrtf((float)C);
    near(logits, g, prefix, "logits", N * (size_t)c->m.config.V, folder);
    c->rows.W = c->wanting;
    CHECK(model_forward(&c->m, c->adapter, &c->rows, &c->kv, &c->saved, c->hidden, &ws) == OK
          && model_logprobs(&c->m, c->adapter, c->hidden, c->wanting, &task, &ws) == OK
          && model_backward(&c->m, c->adapter, &c->rows, &c->kv, &c->saved, c->dhidden, &ws) == OK,
          "%s: forward and backward", folder);
    near(c->logprob, g, prefix, "logprobs", (size_t)c->wanting, folder);
    snprintf(name, sizeof name, "%sloss", prefix);
    const float *loss = floats(g, name, &n);
    double sum = 0;
    for (int i = 0; i < c->wanting; i++) sum -= (double)c->logprob[i] / c->wanting;
    CHECK(loss && fabs(sum - (double)loss[0]) < 1e-5, "%s: %s is %.7f", folder, name, sum);
    snprintf(name, sizeof name, "%sgrad.", prefix);
    if (c->adapter) check_gradients(c->lora.tensor, c->lora.tensors, g, name, folder);
    else check_gradients(c->m.tensor, c->m.tensors, g, name, folder);
}

static void greedy(Case *c, const Golden *g, const char *folder) {
    size_t n;
    const int *want = ints(g, "greedy", &n), start[2] = { 0, c->texts.start[1] };
    const Texts first = { c->texts.start[1], 1, c->texts.token, start };
    const Writing writing = { NULL, NULL, { 0, 0, 1 }, NULL, NULL };
    int out[64] = { 0 };
    Sequence s;
    memset(&s, 0, sizeof s);
    out[0] = c->m.config.start;
    s.token = out;
    s.prompt = s.length = 1;
    s.capacity = (int)n;
    c->kv.B = 1;
    CHECK(model_encode(&c->m, NULL, &first, &c->reading, &ws) == OK
          && model_generate(&c->m, &writing, &s, 1, &c->kv, &ws) == OK
          && !memcmp(out, want, n * sizeof(int)), "%s: greedy tokens", folder);
}

static void written_back(const Case *c, const char *folder) {
    char out[64];
    Error err = { 0 };
    ModelConfig again;
    out_folder(out, sizeof out);
    int bad = config_save(&c->m.config, NULL, out, F32, &pool, &err)
        || checkpoint_save(out, "model", c->m.tensor, c->m.tensors, F32, 0, &pool, &err)
        || config_load(&again, out, &pool, &err);
    CHECK(!bad, "%s: written: %s: %s", folder, err.what, err.where);
    if (bad) return;
    CHECK(memcmp(&c->m.config, &again, sizeof again) == 0, "%s: the same configuration, read again", folder);
    compare_folders(folder, out);
}

static void one_case(const char *folder) {
    char path[256];
    Case c;
    snprintf(path, sizeof path, "%s/golden.safetensors", folder);
    Golden g = golden_open(path);
    if (!open_case(&c, folder, &g, 0, 0)) return;
    numbers(&c, &g, "", folder);
    greedy(&c, &g, folder);
    written_back(&c, folder);
    for (int recompute = 0; recompute <= 1; recompute++)
        if (open_case(&c, folder, &g, 1, recompute)) numbers(&c, &g, "lora.", folder);
}

int main(void) {
    memory = test_arena((size_t)16 << 20);
    ws = test_arena((size_t)16 << 20);
    pool = test_pool();
    one_case("tests/golden/hf/models/t5");
    one_case("tests/golden/hf/models/flan-t5");
    CHECK(!memory.failed && !ws.failed, "memory suffices");
    pool_free(&pool);
    return test_end("seq2seq");
}
