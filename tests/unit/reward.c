/* tests/unit/reward.c - the judge against PyTorch (tests/golden/models/roberta*), and its own promises: a
 * text's logits depend neither on the other texts of a batch nor on the number of threads; a text that is too
 * long is refused; positions begin after the padding index; activations computed again, an adapter with
 * B = 0, and weights held in 16 or 4 bits change no bit that they should not change. */
#include "test.h"

/* ---- goldens, read without checkpoint.c ---- */

typedef struct { const unsigned char *data; const Json *header; size_t bytes; } Golden;

static int golden_open(Golden *g, const char *folder, const char *file, Pool *pool) {
    char path[200], *bytes;
    size_t n;
    snprintf(path, sizeof path, "tests/golden/models/%s/%s", folder, file);
    if (file_read_all(path, pool, &bytes, &n, NULL) != OK || n < 8) return 0;
    Reader r = { (const unsigned char *)bytes, (const unsigned char *)bytes + n, 0 };
    uint64_t header = read_u64(&r);
    if (header > n - 8) return 0;
    g->header = json_parse(bytes + 8, (size_t)header, pool, NULL);
    g->data = (const unsigned char *)bytes + 8 + header;
    g->bytes = n - 8 - (size_t)header;
    return g->header != NULL;
}

/* Finds a tensor: returns how many 32-bit words it has and sets a reader over them; returns -1 if it is not
 * there. */
static int golden_words(const Golden *g, const char *name, Reader *r) {
    const Json *t = json_get(g->header, name), *span = json_get(t, "data_offsets");
    if (!span || span->count != 2) return -1;
    size_t from = (size_t)span->child->number, to = (size_t)span->child->next->number;
    if (to > g->bytes || from > to) return -1;
    r->at = g->data + from;
    r->end = g->data + to;
    r->bad = 0;
    return (int)((to - from) / 4);
}
static int golden_floats(const Golden *g, const char *name, float *out, int most) {
    Reader r;
    int n = golden_words(g, name, &r);
    for (int i = 0; i < n && i < most; i++) { uint32_t bits = read_u32(&r); memcpy(&out[i], &bits, 4); }
    return n;
}
static int golden_ints(const Golden *g, const char *name, int *out, int most) {
    Reader r;
    int n = golden_words(g, name, &r);
    for (int i = 0; i < n && i < most; i++) out[i] = (int)read_u32(&r);
    return n;
}

static RewardConfig golden_config(const char *folder, Pool *pool) {
    RewardConfig c;
    char path[200], *bytes;
    size_t n;
    memset(&c, 0, sizeof c);
    snprintf(path, sizeof path, "tests/golden/models/%s/config.json", folder);
    if (file_read_all(path, pool, &bytes, &n, NULL) != OK) return c;
    const Json *j = json_parse(bytes, n, pool, NULL);
    c.V = (int)json_number(j, "vocab_size", 0);
    c.stack.C = (int)json_number(j, "hidden_size", 0);
    c.stack.L = (int)json_number(j, "num_hidden_layers", 0);
    c.stack.H = (int)json_number(j, "num_attention_heads", 0);
    c.stack.F = (int)json_number(j, "intermediate_size", 0);
    c.positions = (int)json_number(j, "max_position_embeddings", 0);
    c.types = (int)json_number(j, "type_vocab_size", 0);
    c.stack.eps = (float)json_number(j, "layer_norm_eps", 0);
    c.pad = (int)json_number(j, "pad_token_id", 1);
    c.labels = (int)json_get(j, "id2label")->count;
    config_judge(&c, "roberta");
    return c;
}

/* ---- a judge on an arena of exactly the measured size ---- */

enum { MANY = 256 };        /* tokens in a test's texts */
/* How a judge is held: types of its weights, what is trained, whether backward computes layers again, and the
 * rank of its adapter (0: it has none). */
typedef struct { WeightTypes types; int trainable, recompute, rank; } Kind;
typedef struct {
    RewardModel model; RewardSaved saved; Lora lora; const Lora *adapter; Arena arena, ws; Pool lists;
    int token[MANY], start[33], label[32];
    Texts texts;
    float logits[32 * LABELS_MAX], dlogits[32 * LABELS_MAX], loss[32], dloss[32];
} Judge;

static int compute = F32;                   /* compute type of the judges that are opened next */
static void judge_parts(Judge *j, const RewardConfig *c, const Kind *kind, int N, int B) {
    const Texts most = { N, B, NULL, NULL };
    LoraConfig all_linear = lora_config(kind->rank, 2 * (float)kind->rank,
        "query, key, value, attention.output.dense, intermediate.dense, output.dense");
    reward_carve(&j->model, c, &kind->types, kind->trainable, &j->lists, &j->arena, NULL);
    if (kind->rank) {
        all_linear.save = lora_head(j->model.tensor, j->model.tensors, &j->lists);
        lora_carve(&j->lora, j->model.tensor, j->model.tensors, &all_linear, 1, &j->lists, &j->arena, NULL);
        j->adapter = &j->lora;
    }
    reward_saved_carve(&j->saved, c, N, B, kind->recompute, &j->arena);
    if (j->arena.base) return;
    memset(&j->ws, 0, sizeof j->ws);
    reward_forward(&j->model, j->adapter, &most, NULL, NULL, &j->ws);
    reward_forward(&j->model, j->adapter, &most, &j->saved, NULL, &j->ws);
    reward_backward(&j->model, j->adapter, &most, &j->saved, NULL, &j->ws);
}
static Judge *judge_of(const RewardConfig *c, const Kind *kind, int N, int B) {
    Judge *j = calloc(1, sizeof *j);
    j->lists = test_pool();
    threads(2);    /* each thread needs scratch for attention: measure for the most threads */
    judge_parts(j, c, kind, N, B);
    threads(1);
    CHECK(j->ws.used == 0 && j->ws.peak > 0, "a measuring pass gives back what it took");
    const size_t scratch = j->ws.peak;
    j->arena = test_arena(j->arena.peak);
    judge_parts(j, c, kind, N, B);
    CHECK(!j->arena.failed, "the measured arena holds the model and its saved activations");
    j->ws = test_arena(scratch);
    j->texts.token = j->token;
    j->texts.start = j->start;
    return j;
}
static Judge *judge_make(const RewardConfig *c, int trainable, int N, int B) {
    const Kind kind = { { F32, F32, 0, 0, 0, compute, NULL }, trainable, 0, 0 };
    return judge_of(c, &kind, N, B);
}
static void judge_free(Judge *j) { pool_free(&j->lists); free(j->arena.base); free(j->ws.base); free(j); }

static float *matrix_data(const Tensor *t) { return t->matrix->data; }
static int matrix_size(const Tensor *t) { return t->matrix->O * t->matrix->I; }

static Judge *judge_golden(const char *folder, int trainable, Golden *g, Pool *pool) {
    Golden weights;
    const RewardConfig c = golden_config(folder, pool);
    int lens[32];
    if (!golden_open(&weights, folder, "model.safetensors", pool)
        || !golden_open(g, folder, "golden.safetensors", pool))
        return NULL;
    const int B = golden_ints(g, "seq_lens", lens, 32), N = golden_ints(g, "ids", NULL, 0);
    Judge *j = judge_make(&c, trainable, N, B);
    for (int t = 0; t < j->model.tensors; t++) {
        const Tensor *x = &j->model.tensor[t];
        CHECK(golden_floats(&weights, x->name, matrix_data(x), matrix_size(x)) == matrix_size(x),
              "%s has %s", folder, x->name);
    }
    golden_ints(g, "ids", j->token, MANY);
    golden_ints(g, "labels", j->label, 32);
    for (int b = 0; b < B; b++) j->start[b + 1] = j->start[b] + lens[b];
    j->texts.N = N;
    j->texts.B = B;
    return j;
}

/* ---- PyTorch's numbers ---- */

static void compare_gradients(const Judge *j, const Golden *g, const char *prefix, const char *folder) {
    float *want = malloc(100000 * sizeof *want);
    for (int t = 0; t < j->model.tensors; t++) {
        const Tensor *x = &j->model.tensor[t];
        const int n = matrix_size(x);
        char name[160];
        double worst = 0, largest = 0;
        snprintf(name, sizeof name, "%s%s", prefix, x->name);
        CHECK(golden_floats(g, name, want, 100000) == n, "%s has %s", folder, name);
        for (int i = 0; i < n; i++) {
            const double error = fabs((double)x->matrix->grad[i] - (double)want[i]);
            if (error > worst || error != error) worst = error;       /* a NaN stays */
            if (fabs((double)want[i]) > largest) largest = fabs((double)want[i]);
        }
        /* The key biases' gradient is 0, since softmax does not depend on them: PyTorch's is rounding
         * noise. */
        if (largest < 1e-6) CHECK(worst < 1e-6, "%s %s: zero, off by %.2g", folder, name, worst);
        else CHECK(worst <= 1e-4 * largest, "%s %s: off by %.2g of %.2g", folder, name, worst, largest);
    }
    free(want);
}

static void test_golden(const char *folder) {
    Pool pool = test_pool();
    Golden g;
    Judge *j = judge_golden(folder, 1, &g, &pool);
    float want[32 * LABELS_MAX], loss = 0;
    CHECK(j != NULL, "tests/golden/models/%s can be read", folder);
    if (!j) return;
    const int B = j->texts.B, labels = j->model.config.labels, pairs = B / 2;
    CHECK(reward_forward(&j->model, NULL, &j->texts, &j->saved, j->logits, &j->ws) == OK, "%s: forward",
          folder);
    CHECK(golden_floats(&g, "logits", want, 32 * LABELS_MAX) == B * labels, "%s: size of logits", folder);
    double worst = 0;
    for (int i = 0; i < B * labels; i++) {
        const double error = fabs((double)j->logits[i] - (double)want[i]);
        if (error > worst || error != error) worst = error;
    }
    CHECK(worst <= 2e-5, "%s: logits off by %.2g", folder, worst);

    cross_entropy_forward(j->loss, j->logits, j->label, B, labels);
    for (int b = 0; b < B; b++) { loss += j->loss[b] / (float)B; j->dloss[b] = 1.0f / (float)B; }
    golden_floats(&g, "loss", want, 1);
    CHECK(fabs((double)loss - (double)want[0]) < 1e-5,
          "%s: cross-entropy %.7f, PyTorch %.7f", folder, (double)loss, (double)want[0]);
    cross_entropy_backward(j->dlogits, j->dloss, j->loss, j->logits, j->label, B, labels);
    CHECK(reward_backward(&j->model, NULL, &j->texts, &j->saved, j->dlogits, &j->ws) == OK, "%s: backward",
          folder);
    compare_gradients(j, &g, "grad.", folder);

    gradient_zero(j->model.tensor, j->model.tensors);
    memset(j->dlogits, 0, sizeof j->dlogits);
    ranking_forward(j->loss, j->logits, NULL, labels, pairs);
    loss = 0;
    for (int i = 0; i < pairs; i++) { loss += j->loss[i] / (float)pairs; j->dloss[i] = 1.0f / (float)pairs; }
    golden_floats(&g, "pair.loss", want, 1);
    CHECK(fabs((double)loss - (double)want[0]) < 1e-5, "%s: pair loss %.7f, PyTorch %.7f", folder,
          (double)loss, (double)want[0]);
    ranking_backward(j->dlogits, j->dloss, j->logits, NULL, labels, pairs);
    CHECK(reward_backward(&j->model, NULL, &j->texts, &j->saved, j->dlogits, &j->ws) == OK,
          "%s: backward of pairs", folder);
    compare_gradients(j, &g, "pair.grad.", folder);
    CHECK(!j->ws.failed && j->ws.used == 0, "%s: the measured workspace was enough", folder);
    judge_free(j);
    pool_free(&pool);
}

/* ---- promises ---- */

/* Runs texts first .. first+n-1 of j alone: their logits are the same, bit for bit, with saved activations
 * and without. */
static void check_company(Judge *j, const float *want, int first, int n, const char *what) {
    int start[33];
    float logits[32 * LABELS_MAX];
    const int labels = j->model.config.labels;
    const size_t bytes = (size_t)(n * labels) * sizeof *logits;
    Texts some = { j->start[first + n] - j->start[first], n, j->token + j->start[first], start };
    for (int b = 0; b <= n; b++) start[b] = j->start[first + b] - j->start[first];
    CHECK(reward_forward(&j->model, NULL, &some, NULL, logits, &j->ws) == OK
          && !memcmp(logits, want + first * labels, bytes), "texts %d to %d, %s: the same bits", first,
          first + n - 1, what);
    CHECK(reward_forward(&j->model, NULL, &some, &j->saved, logits, &j->ws) == OK
          && !memcmp(logits, want + first * labels, bytes), "texts %d to %d, %s, saving: the same bits",
          first, first + n - 1, what);
}

/* 16 bits change the logits by a few roundings (2^-9, 2^-12) of numbers of their size. */
static void compared_with_floats(Judge *j, Golden *g) {
    float want[32 * LABELS_MAX];
    double worst = 0, largest = 0, limit = compute == BF16 ? 0.03 : compute == F16 ? 0.004 : 2e-5;
    const int n = golden_floats(g, "logits", want, 32 * LABELS_MAX);
    for (int i = 0; i < n; i++) {
        const double error = fabs((double)j->logits[i] - (double)want[i]);
        if (error > worst || error != error) worst = error;
        largest = fmax(largest, fabs((double)want[i]));
    }
    CHECK(n > 0 && worst < limit * largest && (compute == F32 || worst > 1e-5 * largest),
          "compute type %d: logits off by %.2g of the largest", compute, worst / largest);
}

static void test_company(void) {
    Pool pool = test_pool();
    Golden g;
    Judge *j = judge_golden("roberta-odd", 1, &g, &pool);
    if (!j) return;
    for (int t = 1; t <= 2; t++) {
        threads(t);
        if (t == 1) reward_forward(&j->model, NULL, &j->texts, NULL, j->logits, &j->ws);
        if (t == 1) compared_with_floats(j, &g);
        for (int n = 1; n <= j->texts.B; n++)
            for (int first = 0; first + n <= j->texts.B; first++)
                check_company(j, j->logits, first, n, t == 1 ? "1 thread" : "2 threads");
    }
    threads(1);
    judge_free(j);
    pool_free(&pool);
}

/* The gradients are the same, bit for bit, with 1 and 2 threads. Backward adds: run twice, it doubles
 * them. */
static void test_gradients_and_threads(void) {
    Pool pool = test_pool();
    Golden g;
    Judge *j = judge_golden("roberta", 1, &g, &pool);
    if (!j) return;
    const size_t n = tensor_values(j->model.tensor, j->model.tensors, 1);
    float *once = calloc(n, sizeof *once);
    for (int t = 1; t <= 2; t++) {
        size_t at = 0, same = 0;
        threads(t);
        gradient_zero(j->model.tensor, j->model.tensors);
        CHECK(reward_forward(&j->model, NULL, &j->texts, &j->saved, j->logits, &j->ws) == OK, "forward");
        for (int i = 0; i < j->texts.B * j->model.config.labels; i++) j->dlogits[i] = (float)(i % 3) - 0.7f;
        CHECK(reward_backward(&j->model, NULL, &j->texts, &j->saved, j->dlogits, &j->ws) == OK, "backward");
        for (int k = 0; k < j->model.tensors; k++) {
            const Matrix *m = j->model.tensor[k].matrix;
            for (int i = 0; i < m->O * m->I; i++, at++) {
                if (t == 1) once[at] = m->grad[i];
                same += once[at] == m->grad[i];
            }
        }
        CHECK(same == n && at == n, "%d threads: %zu of %zu gradients have the same bits", t, same, n);
    }
    threads(1);
    reward_backward(&j->model, NULL, &j->texts, &j->saved, j->dlogits, &j->ws);
    double worst = 0, largest = 0;
    for (size_t at = 0, k = 0; k < (size_t)j->model.tensors; k++) {
        const Matrix *m = j->model.tensor[k].matrix;
        for (int i = 0; i < m->O * m->I; i++, at++) {
            const double error = fabs((double)m->grad[i] - 2 * (double)once[at]);
            if (error > worst || error != error) worst = error;
            if (fabs((double)once[at]) > largest) largest = fabs((double)once[at]);
        }
    }
    CHECK(worst < 1e-5 * largest && largest > 0, "a second backward adds the same again: off by %.2g of "
                                                 "%.2g", worst, largest);
    free(once);
    judge_free(j);
    pool_free(&pool);
}

static RewardConfig small_config(void) {
    RewardConfig c;
    memset(&c, 0, sizeof c);
    c.V = 19; c.stack.C = 12; c.stack.L = 2; c.stack.H = 3; c.stack.F = 20; c.stack.eps = 1e-5f;
    c.positions = 11; c.types = 1; c.pad = 1; c.bos = 0; c.eos[0] = 2; c.eos_count = 1; c.labels = 2;
    config_judge(&c, "roberta");
    return c;
}

/* Runs one text of n tokens through a new small judge; returns what reward_forward returned. */
static int forward_of(Judge *j, const int *token, int n) {
    for (int i = 0; i < n; i++) j->token[i] = token ? token[i] : 3 + i % 7;
    j->start[0] = 0;
    j->start[1] = n;
    j->texts.N = n;
    j->texts.B = 1;
    return reward_forward(&j->model, NULL, &j->texts, NULL, j->logits, &j->ws);
}

static void test_refusals(void) {
    const RewardConfig c = small_config();
    Judge *j = judge_make(&c, 1, 40, 4);
    const int high[3] = { 0, 19, 2 }, low[3] = { 0, -1, 2 };
    reward_init(&j->model, 1);
    CHECK(reward_max_tokens(&c) == 9, "11 positions with padding index 1 serve 9 tokens, not %d",
          reward_max_tokens(&c));
    CHECK(forward_of(j, NULL, 9) == OK, "the longest text is accepted");
    CHECK(forward_of(j, NULL, 10) == E_RANGE, "a text one token longer is refused");
    CHECK(forward_of(j, NULL, 0) == E_RANGE, "a text without tokens is refused");
    CHECK(forward_of(j, high, 3) == E_RANGE, "a token past the vocabulary is refused");
    CHECK(forward_of(j, low, 3) == E_RANGE, "a negative token is refused");
    forward_of(j, NULL, 5);
    j->start[1] = 4;
    CHECK(reward_forward(&j->model, NULL, &j->texts, NULL, j->logits, &j->ws) == E_RANGE,
          "starts that do not end at N are refused");
    j->start[1] = 5;
    j->saved.stack.N = 4;
    CHECK(reward_forward(&j->model, NULL, &j->texts, &j->saved, j->logits, &j->ws) == E_MEMORY,
          "more rows than there is room to save are refused");
    j->saved.stack.N = 40;
    j->ws.capacity = 64;
    CHECK(reward_forward(&j->model, NULL, &j->texts, NULL, j->logits, &j->ws) == E_MEMORY,
          "a workspace that is too small is refused");
    judge_free(j);
}

static void test_bad_configs(void) {
    Pool lists = test_pool();
    const struct { const char *what; int change; } bad[] = {
        { "no layers", 0 }, { "heads that do not divide the width", 1 },
        { "no labels", 2 }, { "too many labels", 3 }, { "no room for positions", 4 },
        { "a padding index outside the vocabulary", 5 },
        { "a negative vocabulary", 6 } };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        RewardConfig c = small_config();
        RewardModel m;
        Arena measure;
        Error err;
        memset(&measure, 0, sizeof measure);
        memset(&err, 0, sizeof err);
        if (bad[i].change == 0) c.stack.L = 0;
        if (bad[i].change == 1) c.stack.H = 5;
        if (bad[i].change == 2) c.labels = 0;
        if (bad[i].change == 3) c.labels = LABELS_MAX + 1;
        if (bad[i].change == 4) c.positions = 4;
        if (bad[i].change == 5) c.pad = 19;
        if (bad[i].change == 6) c.V = -5;
        CHECK(reward_carve(&m, &c, NULL, 1, &lists, &measure, &err) == E_RANGE && err.code == E_RANGE,
              "%s: refused", bad[i].what);
    }
    const WeightTypes bf16 = { BF16, BF16, 0, 0, 0, F32, NULL };
    RewardConfig c = small_config();
    RewardModel m;
    Arena measure;
    memset(&measure, 0, sizeof measure);
    CHECK(reward_carve(&m, &c, &bf16, 1, &lists, &measure, NULL) == E_UNSUPPORTED,
          "weights in another type: refused by name");
    Arena small = test_arena(1000);
    CHECK(reward_carve(&m, &c, NULL, 0, &lists, &small, NULL) == E_MEMORY,
          "an arena that is too small: refused");
    free(small.base);
    pool_free(&lists);
}

/* Trap: the first token has position pad + 1, so that it reads that row of the position table. Rows 0 .. pad
 * are never read. */
static void test_positions(void) {
    const RewardConfig c = small_config();
    Judge *j = judge_make(&c, 1, 40, 4);
    const int text[4] = { 0, 7, 8, 2 }, padded[5] = { 0, 7, 8, 2, 1 };
    float before[2];
    reward_init(&j->model, 5);
    float *table = j->model.position.data;
    forward_of(j, text, 4);
    memcpy(before, j->logits, sizeof before);
    for (int i = 0; i < 2 * c.stack.C; i++) table[i] += 10;
    forward_of(j, text, 4);
    CHECK(!memcmp(before, j->logits, sizeof before), "position rows 0 and 1 are not read");
    for (int row = 2; row < 6; row++) {
        const float kept = table[row * c.stack.C];
        table[row * c.stack.C] += 1;
        forward_of(j, text, 4);
        CHECK(memcmp(before, j->logits, sizeof before) != 0, "position row %d is read by a text of 4 tokens",
              row);
        table[row * c.stack.C] = kept;
    }
    for (int i = 6 * c.stack.C; i < c.positions * c.stack.C; i++) table[i] += 10;
    forward_of(j, text, 4);
    CHECK(!memcmp(before, j->logits, sizeof before),
          "position rows from 6 on are not read by a text of 4 tokens");
    forward_of(j, padded, 5);
    memcpy(before, j->logits, sizeof before);
    table[1 * c.stack.C] += 1;
    forward_of(j, padded, 5);
    CHECK(memcmp(before, j->logits, sizeof before) != 0, "a padding token keeps position 1");
    judge_free(j);
}

/* A frozen judge has no gradients and takes half the memory; backward still runs. */
static void test_frozen(void) {
    const RewardConfig c = small_config();
    Judge *j = judge_make(&c, 0, 40, 4);
    reward_init(&j->model, 5);
    forward_of(j, NULL, 6);
    CHECK(reward_forward(&j->model, NULL, &j->texts, &j->saved, j->logits, &j->ws) == OK, "frozen: forward");
    j->dlogits[0] = 1;
    CHECK(reward_backward(&j->model, NULL, &j->texts, &j->saved, j->dlogits, &j->ws) == OK,
          "frozen: backward");
    for (int t = 0; t < j->model.tensors; t++)
        CHECK(j->model.tensor[t].matrix->grad == NULL && j->model.tensor[t].matrix->id == t, "frozen: %s",
              j->model.tensor[t].name);
    judge_free(j);
}

/* Bradley-Terry far from zero does not overflow: its slope is -1 or 0. */
static void test_ranking_extremes(void) {
    const float logits[4] = { 200, -200, -200, 200 }, dloss[2] = { 1, 1 };
    float loss[2], d[4] = { 0, 0, 0, 0 };
    ranking_forward(loss, logits, NULL, 1, 2);
    ranking_backward(d, dloss, logits, NULL, 1, 2);
    CHECK(loss[0] >= 0 && loss[0] < 1e-6f && fabsf(loss[1] - 400) < 1e-3f, "losses %g and %g",
          (double)loss[0], (double)loss[1]);
    CHECK(fabsf(d[0]) < 1e-6f && fabsf(d[1]) < 1e-6f && fabsf(d[2] + 1) < 1e-6f && fabsf(d[3] - 1) < 1e-6f,
          "slopes");
}

/* A pair's probability: at p = sigmoid(margin) the loss is least, and its slope 0; p = 1 is certainty, bit
 * for bit; p and the two texts can be exchanged together; far from zero nothing overflows. */
static void test_ranking_probability(void) {
    const float logits[6] = { 1.5f, 0.5f, 0.5f, 1.5f, 200, -200 }, one[3] = { 1, 1, 1 };
    const float dloss[3] = { 1, 1, 1 };
    const float p[3] = { 0.7310586f, 0.2689414f, 0.25f };
    float loss[3], sure[3], same[3], d[6] = { 0 }, dsure[6] = { 0 }, dsame[6] = { 0 };
    ranking_forward(loss, logits, p, 1, 3);
    ranking_backward(d, dloss, logits, p, 1, 3);
    CHECK(fabsf(d[0]) < 1e-6f && fabsf(d[2]) < 1e-6f && fabsf(loss[0] - 0.5822031f) < 1e-6f
          && fabsf(loss[0] - loss[1]) < 1e-6f, "at p = sigmoid(1): slopes %g %g, losses %.7f %.7f",
          (double)d[0], (double)d[2], (double)loss[0], (double)loss[1]);
    CHECK(fabsf(loss[2] - 300) < 1e-3f && fabsf(d[4] - 0.75f) < 1e-6f && d[5] == -d[4], "far away: %g, %g",
          (double)loss[2], (double)d[4]);
    ranking_forward(sure, logits, NULL, 1, 3);
    ranking_backward(dsure, dloss, logits, NULL, 1, 3);
    ranking_forward(same, logits, one, 1, 3);
    ranking_backward(dsame, dloss, logits, one, 1, 3);
    CHECK(!memcmp(sure, same, sizeof sure) && !memcmp(dsure, dsame, sizeof dsure), "p = 1 is certainty");
}

/* ---- however a judge is held: the same bits ---- */

/* Stores x (O,I) in w, as w's type has it: in 16 bits, which x fits exactly, or quantised to 4. */
static void store(const Matrix *w, const float *x) {
    const size_t n = (size_t)w->O * (size_t)w->I;
    if (w->type == NF4) {
        Quant *q = w->quant;
        float *absmax = calloc(quant_blocks(n, q->block), sizeof *absmax);
        CHECK(quantize_4bit(w->data, absmax, x, n, q->block, q->kind, NULL) == OK, "weights are quantised");
        if (q->absmax) memcpy(q->absmax, absmax, quant_blocks(n, q->block) * sizeof *absmax);
        else quantize_absmax(q->code, q->nested, &q->offset, q->map, absmax, quant_blocks(n, q->block));
        free(absmax);
    } else if (w->type == F32) memcpy(w->data, x, n * sizeof *x);
    else halves_narrow(w->data, x, w->type, n);
}

/* Opens a small judge of this kind with random weights and texts, the same for every kind. 16 bits hold the
 * weights exactly. The adapter, if there is one, has B = 0. */
static Judge *judge_random(const Kind *kind) {
    RewardConfig c = small_config();
    c.stack.C = 36; c.stack.F = 68; c.stack.L = 3; c.positions = 40; c.stack.D = 0;
    config_judge(&c, "roberta");
    Judge *j = judge_of(&c, kind, 50, 4), *floats = judge_make(&c, 0, 4, 1);
    const int length[4] = { 1, 24, 9, 16 };
    reward_init(&floats->model, 5);
    for (int t = 0; t < j->model.tensors; t++) {
        float *x = matrix_data(&floats->model.tensor[t]);
        Rng r = rng_stream(6, (uint64_t)t, 0);
        for (int i = 0; i < matrix_size(&floats->model.tensor[t]); i++) {
            if (floats->model.tensor[t].flags & TENSOR_VECTOR) x[i] += (float)rng_normal(&r) * 0.1f;
            x[i] = bf16_to_f32(f32_to_bf16(x[i]));
            if (fabsf(x[i]) < 0x1p-14f) x[i] = 0;                   /* below, F16 has fewer bits */
        }
        store(j->model.tensor[t].matrix, x);
    }
    judge_free(floats);
    if (kind->rank) { lora_init(&j->lora, 7); lora_start(&j->lora, j->model.tensor); }
    for (int b = 0; b < 4; b++) j->start[b + 1] = j->start[b] + length[b];
    for (int n = 0; n < 50; n++) j->token[n] = (n * 7 + 3) % c.V;
    j->texts.N = 50;
    j->texts.B = 4;
    return j;
}

/* Gives B of every pair numbers, so that the adapter changes the logits. */
static void teach_adapter(Judge *j) {
    for (int t = 0; t < j->lora.tensors; t++)
        tensor_normal(j->lora.tensor[t].matrix, 0.2, (uint64_t)(90 + t));
}

/* Runs forward and backward; returns all gradients, of the judge and then of its adapter. */
static float *learn(Judge *j, size_t *n) {
    const Tensor *list[2] = { j->model.tensor, j->lora.tensor };
    const int tensors[2] = { j->model.tensors, j->lora.tensors };
    const size_t all = tensor_values(list[0], tensors[0], 1) + tensor_values(list[1], tensors[1], 1);
    float *out = malloc(all * sizeof *out);
    CHECK(reward_forward(&j->model, j->adapter, &j->texts, &j->saved, j->logits, &j->ws) == OK, "forward");
    for (int i = 0; i < 8; i++) j->dlogits[i] = (float)(i % 3) - 0.7f;
    gradient_zero(list[0], tensors[0]);
    gradient_zero(list[1], tensors[1]);
    CHECK(reward_backward(&j->model, j->adapter, &j->texts, &j->saved, j->dlogits, &j->ws) == OK, "backward");
    *n = 0;
    for (int k = 0; k < 2; k++)
        for (int t = 0; t < tensors[k]; t++) {
            const size_t size = (size_t)matrix_size(&list[k][t]);
            if (!list[k][t].matrix->grad) continue;
            memcpy(out + *n, list[k][t].matrix->grad, size * sizeof *out);
            *n += size;
        }
    CHECK(*n == all, "every trained tensor has a gradient");
    return out;
}

/* Gives b the numbers that a's 4-bit codes stand for. */
static void dequantise(Judge *b, const Judge *a) {
    for (int t = 0; t < a->model.tensors; t++) {
        const Matrix *w = a->model.tensor[t].matrix;
        if (w->type != NF4) continue;
        dequantize_4bit(matrix_data(&b->model.tensor[t]), w->data, w->quant, 0, (size_t)(w->O * w->I));
    }
}

/* Compares a judge with another that has to have the same logits and gradients. */
static void compare_judges(const Kind *one, const Kind *other, const char *what, const char *kernel) {
    Judge *a = judge_random(one), *b = judge_random(other);
    size_t n, m, zeros = 0;
    if (other->types.layers == F32) dequantise(b, a);
    teach_adapter(a);
    teach_adapter(b);
    float *x = learn(a, &n), *y = learn(b, &m);
    for (size_t i = 0; i < n; i++) zeros += x[i] == 0;
    CHECK(n > 0 && zeros < n / 2, "%s, %s: of %d gradients %d are 0", what, kernel, (int)n, (int)zeros);
    CHECK(!memcmp(a->logits, b->logits, 8 * sizeof(float)), "%s, %s: the same logits", what, kernel);
    CHECK(n == m && !memcmp(x, y, n * sizeof *x), "%s, %s: the same gradients", what, kernel);
    free(x);
    free(y);
    judge_free(a);
    judge_free(b);
}

/* A judge whose backward pass computes layers again has the gradients of one that saves activations. Weights
 * in 16 or 4 bits give the bits of the same numbers in float32. */
static void test_held(const char *kernel) {
    static const struct { WeightTypes types; int trainable, rank; const char *name; } held[] = {
        { { F32, F32, 0, 0, 0, F32, NULL }, 1, 0, "all weights trained" },
        { { F32, F32, 0, 0, 0, BF16, NULL }, 1, 0, "all weights trained, compute bf16" },
        { { F32, F32, 0, 0, 0, F32, NULL }, 0, 3, "an adapter" },
        { { BF16, BF16, 0, 0, 0, F32, NULL }, 0, 3, "an adapter, weights in bf16" },
        { { BF16, BF16, 0, 0, 0, BF16, NULL }, 0, 3, "an adapter, weights in bf16, compute bf16" },
        { { F16, F16, 0, 0, 0, F32, NULL }, 0, 3, "an adapter, weights in f16" },
        { { NF4, F32, QUANT_NF4, 64, 0, F32, NULL }, 0, 3, "an adapter, weights in NF4" },
        { { NF4, BF16, QUANT_NF4, 32, 1, BF16, NULL }, 0, 3,
          "an adapter, NF4 in NF4, compute bf16" },
        { { NF4, F16, QUANT_FP4, 64, 1, F16, NULL }, 0, 3,
          "an adapter, weights in FP4, compute f16" } };
    for (size_t i = 0; i < sizeof held / sizeof *held; i++) {
        const Kind saved = { held[i].types, held[i].trainable, 0, held[i].rank };
        Kind again = saved, floats = saved;
        char what[120];
        again.recompute = 1;
        floats.types.layers = floats.types.tables = F32;
        snprintf(what, sizeof what, "%s: computed again", held[i].name);
        compare_judges(&saved, &again, what, kernel);
        snprintf(what, sizeof what, "%s: against float32 weights", held[i].name);
        if (saved.types.layers != F32) compare_judges(&saved, &floats, what, kernel);
    }
}

/* An adapter with B = 0 gives the base model's logits; one with other numbers does not. */
static void test_new_adapter(void) {
    static const WeightTypes types[] = { { F32, F32, 0, 0, 0, F32, NULL },
                                         { BF16, BF16, 0, 0, 0, BF16, NULL },
                                         { NF4, F32, QUANT_NF4, 64, 1, F32, NULL } };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const Kind kind = { types[i], 0, 0, 4 };
        Judge *j = judge_random(&kind);
        float base[8];
        const int type = types[i].layers;
        CHECK(reward_forward(&j->model, NULL, &j->texts, NULL, base, &j->ws) == OK
              && reward_forward(&j->model, j->adapter, &j->texts, NULL, j->logits, &j->ws) == OK
              && !memcmp(base, j->logits, sizeof base), "layers of type %d: B = 0 changes no bit", type);
        teach_adapter(j);
        CHECK(reward_forward(&j->model, j->adapter, &j->texts, NULL, j->logits, &j->ws) == OK
              && memcmp(base, j->logits, sizeof base) != 0, "layers of type %d: another B does", type);
        for (int t = 0; t < j->model.tensors; t++) {
            const Tensor *x = &j->model.tensor[t];
            const Matrix *own = &j->lora.pair[t].saved;
            CHECK(!x->matrix->grad && (own->grad != NULL) == ((x->flags & TENSOR_HEAD) != 0),
                  "%s: only the adapter has gradients, and a copy of the classifier", x->name);
        }
        judge_free(j);
    }
}

int main(void) {
    threads(1);
    test_golden("roberta");
    test_golden("roberta-odd");
    for (compute = F32; compute <= F16; compute++) {
        test_company();
        test_gradients_and_threads();
    }
    compute = F32;
    test_refusals();
    test_bad_configs();
    test_positions();
    test_frozen();
    test_ranking_extremes();
    test_ranking_probability();
    test_new_adapter();
    for (int k = 0; fast_name(k); k++) {        /* every kernel of this processor */
        if (fast_use(fast_name(k)) != OK) continue;
        test_held(fast_name(k));
    }
    fast_use("");
    return test_end("reward");
}
