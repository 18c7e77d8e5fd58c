/* judges.c - whole judges against transformers (tests/golden/hf/models): logits, the two losses and the
 * gradients of every tensor; and folders written back. */
#include "golden.h"

static Arena memory, ws;

/* A judge with its texts. */
typedef struct { RewardConfig config; RewardModel m; RewardSaved saved; Texts texts; float *logits; } Case;

static int open_case(Case *c, const char *folder, const Golden *g) {
    Error err = { 0 };
    size_t N, B;
    const int *ids = ints(g, "ids", &N), *lens = ints(g, "seq_lens", &B);
    int *start = pool_take(&pool, B + 1, sizeof *start);
    memory.used = 0;
    memset(memory.base, 0, memory.capacity);                /* gradients start at 0 */
    memset(c, 0, sizeof *c);
    for (size_t b = 0; b < B; b++) start[b + 1] = start[b] + lens[b];
    c->texts = (Texts){ (int)N, (int)B, ids, start };
    int bad = !ids || !lens || reward_config_load(&c->config, folder, &pool, &err)
        || reward_carve(&c->m, &c->config, NULL, 1, &pool, &memory, &err)
        || checkpoint_load(folder, "model", c->m.tensor, c->m.tensors, &pool, &err);
    CHECK(!bad, "%s loads: %s: %s", folder, err.what, err.where);
    if (bad) return 0;
    c->logits = pool_take(&pool, B * (size_t)c->config.labels, sizeof(float));
    reward_saved_carve(&c->saved, &c->config, (int)N, (int)B, 0, &memory);
    return !memory.failed;
}

/* Computes the loss, the mean over texts or pairs, and checks it with the gradients of all tensors. */
static void check_loss(Case *c, const Golden *g, const char *prefix, const char *folder) {
    const int B = c->texts.B, labels = c->config.labels, pairs = strcmp(prefix, "pair.") == 0;
    float loss[8] = { 0 }, slope[8], dlogits[8 * LABELS_MAX] = { 0 };
    char name[32];
    size_t n;
    double sum = 0;
    const int terms = pairs ? B / 2 : B, *label = ints(g, "labels", &n);
    snprintf(name, sizeof name, "%sloss", prefix);
    const float *want = floats(g, name, &n);
    for (int i = 0; i < terms; i++) slope[i] = 1.0f / (float)terms;
    gradient_zero(c->m.tensor, c->m.tensors);
    CHECK(reward_forward(&c->m, NULL, &c->texts, &c->saved, c->logits, &ws) == OK, "%s: forward", folder);
    if (pairs) {
        ranking_forward(loss, c->logits, NULL, labels, terms);
        ranking_backward(dlogits, slope, c->logits, NULL, labels, terms);
    } else {
        cross_entropy_forward(loss, c->logits, label, terms, labels);
        cross_entropy_backward(dlogits, slope, loss, c->logits, label, terms, labels);
    }
    for (int i = 0; i < terms; i++) sum += (double)loss[i] / terms;
    CHECK(fabs(sum - (double)want[0]) < 1e-5, "%s: %s is %.7f, wanted %.7f", folder, name, sum,
          (double)want[0]);
    CHECK(reward_backward(&c->m, NULL, &c->texts, &c->saved, dlogits, &ws) == OK, "%s: backward", folder);
    snprintf(name, sizeof name, "%sgrad.", prefix);
    check_gradients(c->m.tensor, c->m.tensors, g, name, folder);
}

static void written_back(const Case *c, const char *folder) {
    char out[64];
    Error err = { 0 };
    RewardConfig again;
    out_folder(out, sizeof out);
    int bad = reward_config_save(&c->config, out, F32, &pool, &err)
        || checkpoint_save(out, "model", c->m.tensor, c->m.tensors, F32, 0, &pool, &err)
        || reward_config_load(&again, out, &pool, &err);
    CHECK(!bad, "%s: written: %s: %s", folder, err.what, err.where);
    if (bad) return;
    again.problem = c->config.problem;      /* what files leave unsaid is written */
    CHECK(memcmp(&c->config, &again, sizeof again) == 0, "%s: the same configuration, read again", folder);
    compare_folders(folder, out);
}

static void judge_case(const char *folder) {
    char path[256];
    size_t n;
    Case c;
    snprintf(path, sizeof path, "%s/golden.safetensors", folder);
    Golden g = golden_open(path);
    const float *want = floats(&g, "logits", &n);
    if (!open_case(&c, folder, &g)) return;
    CHECK(reward_forward(&c.m, NULL, &c.texts, NULL, c.logits, &ws) == OK, "%s: forward alone", folder);
    double d = n == (size_t)(c.texts.B * c.config.labels) ? distance(c.logits, want, n, 0) : 1e9;
    CHECK(d < 2e-5, "%s: logits differ by %.2g (2e-5)", folder, d);
    if (floats(&g, "loss", &n)) check_loss(&c, &g, "", folder);
    if (floats(&g, "pair.loss", &n)) check_loss(&c, &g, "pair.", folder);
    written_back(&c, folder);
}

int main(void) {
    static const char *const family[] = { "bert", "distilbert", "xlm-roberta", "electra", "llama-judge",
                                          "qwen2-judge", "gpt2-judge" };
    memory = test_arena((size_t)16 << 20);
    ws = test_arena((size_t)16 << 20);
    pool = test_pool();
    for (size_t i = 0; i < sizeof family / sizeof *family; i++) {
        char folder[64];
        snprintf(folder, sizeof folder, "tests/golden/hf/models/%s", family[i]);
        judge_case(folder);
    }
    CHECK(!memory.failed && !ws.failed, "memory suffices");
    pool_free(&pool);
    return test_end("judges");
}
