/* tests/unit/nf4.c - QLoRA against PyTorch (tests/golden/models/nf4-policy, made by tests/programs/qlora.py):
 * a policy held in 4 bits with an adapter, its logits, its loss and the adapter's gradients at compute types
 * F32, BF16 and F16. Also what has to be the same bits: an adapter that was saved, weights that were merged,
 * a folder in bitsandbytes' layout, activations that were computed again, dropout.
 *
 *   nf4                                     the test
 *   nf4 quantise MODEL OUT [double]         writes MODEL as bitsandbytes would: NF4 linears in blocks of 64
 *                                           (for tests/programs/qlora.sh)
 *   nf4 merged MODEL ADAPTER FOLDER DTYPE [folder]
 *                                           checks that FOLDER, bit for bit in DTYPE (f32, bf16, f16), is
 *                                           MODEL in NF4 (folder: as its folder holds it), dequantised, with
 *                                           ADAPTER added
 *
 * Tolerances are relative to the largest number of the golden. At F32 1e-4: only the order of sums differs.
 * At BF16 (8 bits) and F16 (11 bits) a linear rounds at the same places: its outputs are PyTorch's, bit for
 * bit, but for a sum so near to a tie that its order decides, which gives the neighbouring number. In a whole
 * policy the inputs of linears come from norms and an attention whose last bits differ. So now and then an
 * input is rounded to the neighbour, and changes all that follows by about as much as rounding itself does:
 * hence 2^-7 (2^-10) for logits and twice that for gradients, one step and two of the type; and on average
 * (root of the mean square) at most half of what the rounding itself does. */
#include "test.h"

static const char folder[] = "tests/golden/models/nf4-policy",
    adapter_folder[] = "tests/golden/models/nf4-policy/adapter";
static char base[64];
static Arena memory, ws;
static Pool pool;
static Error err;

static Error *fresh(void) { memset(&err, 0, sizeof err); return &err; }
static const char *in_base(const char *name) {
    static char path[4][160];
    static int turn;
    char *p = path[turn = (turn + 1) % 4];
    sprintf(p, "%.60s/%.60s", base, name);
    return p;
}

/* ---- a golden.safetensors in memory ---- */
typedef struct { const Json *header; const char *data; } Golden;
static Golden golden;

static int golden_open(void) {
    char path[128], *bytes;
    size_t n;
    sprintf(path, "%s/golden.safetensors", folder);
    if (file_read_all(path, &pool, &bytes, &n, fresh()) || n < 8) return 0;
    Reader r = { (const unsigned char *)bytes, (const unsigned char *)bytes + n, 0 };
    uint64_t head = read_u64(&r);
    golden.header = json_parse(bytes + 8, (size_t)head, &pool, fresh());
    golden.data = bytes + 8 + head;
    return golden.header != NULL;
}

/* The 32-bit words of an entry; count in *n */
static const void *words(const char *name, size_t *n) {
    const Json *o = json_get(json_get(golden.header, name), "data_offsets");
    *n = 0;
    if (!o) return NULL;
    size_t begin = (size_t)o->child->number, end = (size_t)o->child->next->number;
    Reader r = { (const unsigned char *)golden.data + begin, (const unsigned char *)golden.data + end, 0 };
    uint32_t *out = pool_take(&pool, (end - begin) / 4 + 1, sizeof *out);
    for (; *n < (end - begin) / 4; ++*n) out[*n] = read_u32(&r);
    return out;
}

/* Largest difference over the largest of b. */
static double distance(const float *a, const float *b, size_t n) {
    double worst = 0, largest = 1e-30;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (d > worst || d != d) worst = d;
        if (fabs((double)b[i]) > largest) largest = fabs((double)b[i]);
    }
    return worst / largest;
}

/* Roots of mean squares: that of the difference over that of b. */
static double spread(const float *a, const float *b, size_t n) {
    double difference = 0, whole = 1e-60;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        whole += (double)b[i] * (double)b[i];
    }
    return sqrt(difference / whole);
}

/* ---- a policy with its adapter, and the golden's texts as rows ---- */
typedef struct { Model m; Lora lora; Cache kv; Saved saved; Rows rows; int *target, wanting;
float *hidden, *dhidden, *logprob, *logits; size_t values; } Case;

static void open_rows(Case *c, int recompute) {
    size_t n, B;
    const int *ids = words("ids", &n), *lens = words("seq_lens", &B);
    int at = 0, N = (int)n;
    int *sequence = pool_take(&pool, n, sizeof(int)), *position = pool_take(&pool, n, sizeof(int));
    unsigned char *wants = pool_take(&pool, n, 1);
    c->target = pool_take(&pool, n, sizeof(int));
    for (size_t b = 0; b < B; b++)
        for (int t = 0; t < lens[b]; t++, at++) {
            sequence[at] = (int)b; position[at] = t; wants[at] = t + 1 < lens[b];
            if (wants[at]) c->target[c->wanting++] = ids[at + 1];
        }
    /* all rows while W == N */
    c->rows.N = c->rows.W = N; c->rows.token = ids; c->rows.sequence = sequence; c->rows.position = position;
    c->rows.wants = wants;
    cache_carve(&c->kv, &c->m.config.stack, c->m.config.stack.L, (int)B, 32, &memory);
    saved_carve(&c->saved, &c->m.config.stack, N, N, recompute, &memory);
    c->hidden = arena_take(&memory, n * (size_t)c->m.config.stack.C, sizeof(float));
    c->dhidden = arena_take(&memory, n * (size_t)c->m.config.stack.C, sizeof(float));
    c->logprob = arena_take(&memory, n, sizeof(float));
    c->values = n * (size_t)c->m.config.V;
    c->logits = arena_take(&memory, c->values, sizeof(float));
}

static int read_adapter(Case *c, const char *from) {
    if (adapter_config_load(&c->lora.config, from, &pool, fresh())) return 0;
    if (lora_carve(&c->lora, c->m.tensor, c->m.tensors, &c->lora.config, 1, &pool, &memory, &err)) return 0;
    return checkpoint_load(from, "adapter_model", c->lora.tensor, c->lora.tensors, &pool, &err) == OK;
}

static void open_case(Case *c, const char *model, const char *adapter, const WeightTypes *types,
                      int recompute) {
    ModelConfig config;
    memset(c, 0, sizeof *c);
    int bad = config_load(&config, model, &pool, fresh()) || model_carve(&c->m, &config, types, 0, 32, &pool,
                                                            &memory, &err) ||
              checkpoint_load(model, "model", c->m.tensor, c->m.tensors, &pool, &err) || !read_adapter(c,
                                                            adapter);
    CHECK(!bad, "%s with %s loads: %s: %s", model, adapter, err.what, err.where);
    if (bad) exit(test_end("nf4"));
    open_rows(c, recompute);
    CHECK(!memory.failed, "memory");
}

static void minus_mean(void *context, int first, int n, const float *logprob, float *dlogprob) {
    (void)first; (void)logprob;
    for (int i = 0; i < n; i++) dlogprob[i] = -1.0f / (float)*(int *)context;
}

static const float *forward(Case *c, const Lora *adapter) {
    int code = model_forward(&c->m, adapter, &c->rows, &c->kv, &c->saved, c->hidden, &ws);
    linear_forward(c->logits, c->hidden, &c->m.head, NULL, c->rows.N, &ws);
    CHECK(code == OK && !ws.failed, "forward");
    return c->logits;
}

/* Loss = mean of -log p over all tokens; gradients from zero. */
static double learn(Case *c) {
    double loss = 0;
    gradient_zero(c->lora.tensor, c->lora.tensors);
    memset(c->dhidden, 0, (size_t)c->rows.N * (size_t)c->m.config.stack.C * sizeof(float));
    const HeadTask task = { .target = c->target, .temperature = 1, .logprob = c->logprob,
                            .loss = minus_mean, .context = &c->wanting, .dhidden = c->dhidden };
    Rows rows = c->rows;
    rows.W = c->wanting;
    int code = model_forward(&c->m, &c->lora, &rows, &c->kv, &c->saved, c->hidden, &ws);
    if (!code) code = model_logprobs(&c->m, &c->lora, c->hidden, c->wanting, &task, &ws);
    if (!code) code = model_backward(&c->m, &c->lora, &rows, &c->kv, &c->saved, c->dhidden, &ws);
    CHECK(code == OK, "forward and backward");
    for (int i = 0; i < c->wanting; i++) loss -= (double)c->logprob[i];
    return loss / c->wanting;
}

/* The worst of all the adapter's gradients, by one measure or the other; -1 where one is missing. */
static double gradients(const Case *c, const char *name,
                        double (*measure)(const float *, const float *, size_t)) {
    double worst = 0;
    for (int i = 0; i < c->lora.tensors; i++) {
        char key[160];
        size_t n;
        const Matrix *w = c->lora.tensor[i].matrix;
        sprintf(key, "%s.grad.%s", name, c->lora.tensor[i].name);
        const float *want = words(key, &n);
        double d = want && n == (size_t)w->O * (size_t)w->I ? measure(w->grad, want, n) : -1;
        if (d < 0) return -1;
        if (d > worst || d != d) worst = d;
    }
    return worst;
}

/* ---- against PyTorch ---- */
static const struct { const char *name; WeightTypes types; double logits, grads; } way[] = {
    { "nf4", { NF4, BF16, QUANT_NF4, 64, 0, F32, NULL }, 1e-4, 1e-4 },
        { "doubled", { NF4, F32, QUANT_NF4, 64, 1, F32, NULL }, 1e-4, 1e-4 },
    { "fp4", { NF4, BF16, QUANT_FP4, 128, 0, F32, NULL }, 1e-4, 1e-4 },
        { "bf16", { NF4, BF16, QUANT_NF4, 64, 0, BF16, NULL }, 1.0 / 128, 1.0 / 64 },
    { "f16", { NF4, BF16, QUANT_NF4, 64, 0, F16, NULL }, 1.0 / 1024, 1.0 / 512 },
};
enum { WAYS = sizeof way / sizeof *way };

static void golden_logits(const char *kernel) {
    for (int k = 0; k < WAYS; k++) {
        Case c;
        char key[64];
        size_t n, one;
        memory.used = 0;
        open_case(&c, folder, adapter_folder, &way[k].types, 0);
        sprintf(key, "%s.logits", way[k].name);
        const float *want = words(key, &n), *exact = words(k ? "nf4.logits" : "fp4.logits", &n), *loss;
        sprintf(key, "%s.loss", way[k].name);
        loss = words(key, &one);
        CHECK(want && exact && loss && n == c.values, "%s: the golden is there", way[k].name);
        if (!want || !exact || !loss || n != c.values) continue;
        double d = distance(forward(&c, &c.lora), want, n), s = spread(c.logits, want, n),
            other = spread(c.logits, exact, n);
        CHECK(d < way[k].logits, "%s, %s: logits differ by %.2g of the largest (%.2g)", way[k].name, kernel,
              d, way[k].logits);
        CHECK(s < other / 2, "%s, %s: by %.2g on the average, and by %.2g from those of another way",
              way[k].name, kernel, s, other);
        d = learn(&c);
        CHECK(fabs(d - (double)*loss) < way[k].logits * d, "%s, %s: loss %.7f, PyTorch's %.7f", way[k].name,
              kernel, d, (double)*loss);
        d = gradients(&c, way[k].name, distance);
        s = gradients(&c, way[k].name, spread);
        other = gradients(&c, k ? "nf4" : "fp4", spread);
        CHECK(d >= 0 && d < way[k].grads,
              "%s, %s: the adapter's gradients differ by %.2g of the largest (%.2g)", way[k].name, kernel, d,
                  way[k].grads);
        CHECK(s >= 0 && s < other / 2,
              "%s, %s: by %.2g on the average, and by %.2g from those of another way", way[k].name, kernel, s,
                  other);
    }
    CHECK(!ws.failed, "work space");
}

/* One 4-bit linear, forward and backward: PyTorch's 16-bit numbers, or now and then the one next to it. */
static int steps_apart(float a, float b, int dtype) {
    int x = dtype == BF16 ? f32_to_bf16(a) : f32_to_f16(a),
        y = dtype == BF16 ? f32_to_bf16(b) : f32_to_f16(b);
    float back = dtype == BF16 ? bf16_to_f32((uint16_t)x) : f16_to_f32((uint16_t)x);
    return back != a ? 9999 : x > y ? x - y : y - x;        /* a has to be a 16-bit number */
}

static void one_linear(const char *kernel) {
    for (int k = 3; k < WAYS; k++)
        for (int backward = 0; backward < 2; backward++) {
            Case c;
            char key[64];
            size_t n, inputs;
            int near = 0, far = 0;
            memory.used = 0;
            open_case(&c, folder, adapter_folder, &way[k].types, 0);
            const Matrix *gate = &c.m.stack.block[0].gate;
            const float *x = words(backward ? "linear.dy" : "linear.x", &inputs), *want;
            sprintf(key, "linear.%s.%s", way[k].name, backward ? "dx" : "y");
            want = words(key, &n);
            const size_t rows = inputs / (size_t)(backward ? gate->O : gate->I);
            CHECK(x && want && n == rows * (size_t)(backward ? gate->I : gate->O), "%s: the golden is there",
                  key);
            if (!x || !want) continue;
            float *y = arena_take(&memory, n, sizeof *y);
            memset(y, 0, n * sizeof *y);
            if (backward) linear_backward(y, NULL, x, NULL, gate, (int)rows, &ws);
            else linear_forward(y, x, gate, NULL, (int)rows, &ws);
            for (size_t i = 0; i < n; i++) {
                const int steps = steps_apart(y[i], want[i], way[k].types.compute);
                near += steps == 1;
                /* next to 0 a sum's error is many steps */
                far += steps > 1 && fabs((double)want[i]) > 1e-2;
            }
            CHECK(!far && near <= (int)n / 50,
                  "%s, %s: of %d numbers %d are the one next to PyTorch's, %d others", key, kernel, (int)n,
                      near, far);
        }
}

/* ---- what has to be the same bits ---- */

/* Activations that are computed again give the same gradients, at every compute type, and dropout draws the
 * same masks. */
static void recomputed(void) {
    for (int k = 0; k < WAYS; k++)
        for (int dropout = 0; dropout < 2; dropout++) {
            Case c[2];
            int same = 1;
            memory.used = 0;
            for (int i = 0; i < 2; i++) {
                open_case(&c[i], folder, adapter_folder, &way[k].types, i);
                lora_dropout_carve(&c[i].lora, c[i].rows.N, &memory);
                c[i].lora.dropout.p = dropout ? 0.3f : 0;
                c[i].lora.dropout.seed = 7;
                learn(&c[i]);
            }
            for (int t = 0; t < c[0].lora.tensors; t++) {
                const Matrix *a = c[0].lora.tensor[t].matrix, *b = c[1].lora.tensor[t].matrix;
                same = same && !memcmp(a->grad, b->grad, (size_t)a->O * (size_t)a->I * sizeof(float));
            }
            CHECK(same, "%s%s: gradients through recomputed activations have the same bits", way[k].name,
                  dropout ? ", dropout" : "");
        }
}

/* An adapter that was trained a little, saved and loaded: the live logits, bit for bit. */
static void saved_adapter(void) {
    for (int k = 0; k < WAYS; k++) {
        Case live, again;
        const AdamW adam = { 1e-2f, 0.9f, 0.999f, 1e-8f, 0, 0 };
        Optimizer o;
        memory.used = 0;
        open_case(&live, folder, adapter_folder, &way[k].types, 0);
        optimizer_carve(&o, live.lora.tensor, live.lora.tensors, &memory);
        optimizer_reset(&o);
        double before = learn(&live), after;
        optimizer_step(&o, 0, live.lora.tensor, live.lora.tensors, &adam, 1);
        after = learn(&live);
        CHECK(after < before - 0.01, "%s: a step lowers the loss: %.3f, %.3f", way[k].name, before, after);
        CHECK(adapter_config_save(&live.lora.config, in_base("adapter"), NULL, &pool, fresh()) == OK &&
              checkpoint_save(in_base("adapter"), "adapter_model", live.lora.tensor, live.lora.tensors, F32,
                              0, &pool, &err) == OK,
              "adapter saved: %s", err.what);
        forward(&live, &live.lora);
        open_case(&again, folder, in_base("adapter"), &way[k].types, 0);
        CHECK(!memcmp(live.logits, forward(&again, &again.lora), live.values * sizeof(float)),
              "%s: a loaded adapter gives the live logits, bit for bit", way[k].name);
    }
}

/* c's 4-bit linears as floats, with the adapter added: the model that `run merge` writes. */
static void merge_case(Case *merged, Case *c) {
    *merged = *c;
    CHECK(model_carve(&merged->m, &c->m.config, NULL, 0, 32, &pool, &memory, fresh()) == OK,
          "a model of floats");
    for (int i = 0; i < c->m.tensors; i++) {
        const Matrix *from = c->m.tensor[i].matrix, *to = merged->m.tensor[i].matrix;
        for (int o = 0; o < to->O && !(c->m.tensor[i].flags & TENSOR_TIED); o++) {
            float *row = (float *)to->data + (size_t)o * (size_t)to->I;
            if (from->type == NF4) dequantize_4bit(row, from->data, from->quant, (size_t)o * (size_t)to->I,
                                                   (size_t)to->I);
            else embedding_forward(row, &o, from, 1);       /* a row, widened */
        }
        if (!(c->m.tensor[i].flags & TENSOR_TIED)) lora_merge(&c->lora, to, &ws);
    }
}

/* How many numbers of what a folder holds are not those of m, rounded to dtype. */
static long long differing(const Model *m, const char *from, int dtype) {
    Model got;
    long long wrong = 0;
    if (model_carve(&got, &m->config, NULL, 0, 32, &pool, &memory, fresh())) return -1;
    if (checkpoint_load(from, "model", got.tensor, got.tensors, &pool, &err)) return -1;
    for (int i = 0; i < m->tensors; i++) {
        const Matrix *a = m->tensor[i].matrix, *b = got.tensor[i].matrix;
        for (size_t k = 0; k < (size_t)a->O * (size_t)a->I; k++) {
            float x = ((const float *)a->data)[k];
            x = dtype == BF16 ? bf16_to_f32(f32_to_bf16(x)) : dtype == F16 ? f16_to_f32(f32_to_f16(x)) : x;
            wrong += memcmp(&x, (const float *)b->data + k, sizeof x) != 0;
        }
    }
    return wrong;
}

/* Merged weights: in F32 the sums are those of the live adapter in another order (1e-4). Written in BF16 or
 * F16, every weight is off by up to 2^-9 or 2^-12 of itself, at random; a sum over I weights by as much of
 * its own size, and so the logits: 2^-9 and 2^-12, twice that for safety. */
static void merged_weights(void) {
    static const struct { const char *name; int dtype; double near;
    } as[] = { { "f32", F32, 1e-4 }, { "bf16", BF16, 1.0 / 128 }, { "f16", F16, 1.0 / 1024 } };
    for (int k = 0; k < 3; k++) {
        Case live, m, loaded;
        memory.used = 0;
        open_case(&live, folder, adapter_folder, &way[1].types, 0);
        forward(&live, &live.lora);
        merge_case(&m, &live);
        CHECK(config_save(&m.m.config, NULL, in_base(as[k].name), as[k].dtype, &pool, fresh()) == OK &&
              checkpoint_save(in_base(as[k].name), "model", m.m.tensor, m.m.tensors, as[k].dtype, 0, &pool,
                              &err) == OK, "merged, written: %s", err.what);
        CHECK(differing(&m.m, in_base(as[k].name), as[k].dtype) == 0,
              "merged, loaded again: the same bits in %s", as[k].name);
        const WeightTypes types = { as[k].dtype, as[k].dtype, 0, 0, 0, F32, NULL };
        open_case(&loaded, in_base(as[k].name), adapter_folder, &types, 0);
        double d = distance(forward(&loaded, NULL), live.logits, live.values);
        CHECK(d < as[k].near && (k == 0 || d > 1e-6),
              "merged in %s: its logits differ from the live ones by %.2g (%.2g)", as[k].name, d, as[k].near);
        CHECK(distance(forward(&loaded, &loaded.lora), live.logits, live.values) > 0.02,
              "with the adapter added twice they do not agree");
    }
}

/* A folder in bitsandbytes' layout: what it says it is, the same bits as quantising the floats, and the base
 * of a merge. */
static int write_quantised(const char *model, const char *out, const WeightTypes *types, int dtype) {
    ModelConfig config;
    Model m;
    return config_load(&config, model, &pool, fresh()) || model_carve(&m, &config, types, 0, 32, &pool,
                                                            &memory, &err) ||
           checkpoint_load(model, "model", m.tensor, m.tensors, &pool, &err) || config_save(&config, types,
                                                            out, dtype, &pool, &err) ||
           checkpoint_save(out, "model", m.tensor, m.tensors, dtype, 0, &pool, &err) ? err.code : OK;
}

static void prequantised(void) {
    for (int k = 0; k < WAYS; k++) {
        Case live, again;
        WeightTypes got;
        ModelConfig config;
        memory.used = 0;
        CHECK(write_quantised(folder, in_base(way[k].name), &way[k].types, F32) == OK, "%s: written: %s %s",
              way[k].name, err.what, err.where);
        CHECK(config_load(&config, folder, &pool, fresh()) == OK
              && folder_types(&got, in_base(way[k].name), config.names, &pool, fresh()) == OK &&
                  got.layers == NF4 && got.tables == F32 &&
              got.kind == way[k].types.kind && got.block == way[k].types.block &&
                  got.doubled == way[k].types.doubled &&
              got.compute == way[k].types.compute, "%s: the folder says so", way[k].name);
        open_case(&live, folder, adapter_folder, &way[k].types, 0);
        forward(&live, &live.lora);
        open_case(&again, in_base(way[k].name), adapter_folder, &got, 0);
        CHECK(!memcmp(live.logits, forward(&again, &again.lora), live.values * sizeof(float)),
              "%s: quantised before or while loading: the same logits", way[k].name);
    }
}

/* A folder of which some linears are not in 4 bits (bitsandbytes' llm_int8_skip_modules, unsloth's dynamic 4
 * bits), the first one among them: they stay as the file has them. */
static void partly_quantised(void) {
    static const KeptLinear kept[] = { { "model.layers.0.self_attn.q_proj.weight", BF16 },
                                       { "model.layers.1.mlp.down_proj.weight", BF16 }, { "", 0 } };
    const WeightTypes some = { NF4, BF16, QUANT_NF4, 64, 1, F32, kept };
    const WeightTypes none = { NF4, BF16, QUANT_NF4, 64, 1, F32, NULL };
    WeightTypes got;
    ModelConfig config;
    Case live, again, all;
    char *text;
    size_t n;
    memory.used = 0;
    CHECK(write_quantised(folder, in_base("some"), &some, BF16) == OK, "partly quantised: %s", err.what);
    CHECK(!file_read_all(in_base("some/config.json"), &pool, &text, &n, fresh()) && strstr(text,
          "[\"lm_head\", \"model.layers.0.self_attn.q_proj\", \"model.layers.1.mlp.down_proj\"]"),
          "its config.json names them");
    CHECK(config_load(&config, folder, &pool, fresh()) == OK
          && folder_types(&got, in_base("some"), config.names, &pool, &err) == OK && got.layers == NF4
          && got.tables == BF16 && got.doubled && got.kept && !memcmp(got.kept, kept, sizeof kept),
          "partly quantised: which linears are not is read from the file: %s", err.what);
    if (err.code != OK || !got.kept) return;
    open_case(&live, folder, adapter_folder, &some, 0);
    open_case(&again, in_base("some"), adapter_folder, &got, 0);
    open_case(&all, in_base("some"), adapter_folder, &none, 0);
    CHECK(again.m.stack.block[0].self.q.type == BF16 && again.m.stack.block[0].self.k.type == NF4
          && again.m.stack.block[1].down.type == BF16, "their matrices have the file's type");
    forward(&live, &live.lora);
    CHECK(!memcmp(live.logits, forward(&again, &again.lora), live.values * sizeof(float)),
          "partly quantised before or while loading: the same logits");
    CHECK(distance(forward(&all, &all.lora), live.logits, live.values) > 1e-3,
          "quantising the others, too, would be another model");
}

/* ---- dropout alone: inverted scaling, the share, and masks that follow from seed, matrix and row ---- */
static void dropout(void) {
    enum { N = 40, I = 48 };
    Case c;
    float x[N * I], whole[N * 48], half[N * 48], plain[N * 48];
    memory.used = 0;
    open_case(&c, folder, adapter_folder, &way[0].types, 0);
    const Matrix *q = &c.m.stack.block[0].self.q, *k = &c.m.stack.block[1].self.q;
    LoraDropout *d = &c.lora.dropout;
    for (int i = 0; i < N * I; i++) x[i] = 1;
    memset(plain, 0, sizeof plain);
    lora_forward(plain, x, &c.lora, q, N, &ws);
    CHECK(d->p == 0 && !d->x, "an adapter starts without dropout");
    lora_dropout_carve(&c.lora, N, &memory);
    d->p = 0.25f; d->seed = 3; d->row = 100;
    memset(whole, 0, sizeof whole);
    lora_forward(whole, x, &c.lora, q, N, &ws);
    int dropped = 0, other = 0, rows_equal = 0;
    for (int i = 0; i < N * I; i++) { dropped += d->x[i] == 0;
    other += d->x[i] != 0 && d->x[i] != 1 / (1 - 0.25f); }
    CHECK(dropped > 0.25 * N * I - 4 * 19 && dropped < 0.25 * N * I + 4 * 19 && !other,
          "%d of %d inputs are dropped, the others scaled", dropped, N * I);
    for (int n = 1; n < N; n++) rows_equal += !memcmp(d->x, d->x + n * I, I * sizeof(float));
    CHECK(!rows_equal && memcmp(plain, whole, sizeof plain), "every row has a mask of its own");
    memset(half, 0, sizeof half);
    lora_forward(half, x, &c.lora, q, 13, &ws);
    d->row += 13;
    lora_forward(half + 13 * 48, x + 13 * I, &c.lora, q, N - 13, &ws);
    CHECK(!memcmp(whole, half, sizeof whole), "rows in two parts have the same masks");
    d->row = 100;
    memset(half, 0, sizeof half);
    lora_forward(half, x, &c.lora, k, N, &ws);
    int again = 0;
    for (int i = 0; i < N * I; i++) again += d->x[i] == 0;
    CHECK(again != dropped && memcmp(whole, half, sizeof whole), "another matrix has other masks");
    d->seed = 4;
    memset(half, 0, sizeof half);
    lora_forward(half, x, &c.lora, q, N, &ws);
    CHECK(memcmp(whole, half, sizeof whole), "another seed has other masks");
    d->p = 0;
    memset(half, 0, sizeof half);
    lora_forward(half, x, &c.lora, q, N, &ws);
    CHECK(!memcmp(plain, half, sizeof plain), "switched off, it is the plain adapter");
}

/* ---- for tests/programs/qlora.sh ---- */
static int command(int argc, char **argv) {
    static const char *const name[] = { "f32", "bf16", "f16" };
    WeightTypes types = { NF4, F32, QUANT_NF4, 64, 0, F32, NULL };
    int dtype = 0;
    memory = test_arena((size_t)64 << 20);
    ws = test_arena((size_t)16 << 20);
    if (!strcmp(argv[1], "quantise") && argc >= 4) {
        types.doubled = argc > 4;
        if (write_quantised(argv[2], argv[3], &types, F32) == OK) return 0;
    } else if (!strcmp(argv[1], "merged") && argc >= 6) {
        ModelConfig config;
        Case c, m;
        memset(&c, 0, sizeof c);
        while (dtype < 2 && strcmp(argv[5], name[dtype])) dtype++;
        if (!config_load(&config, argv[2], &pool, fresh()) &&
            (argc <= 6 || !folder_types(&types, argv[2], config.names, &pool, fresh())) && !model_carve(&c.m,
                                                            &config, &types, 0, 32, &pool, &memory, &err) &&
            !checkpoint_load(argv[2], "model", c.m.tensor, c.m.tensors, &pool, &err) && read_adapter(&c,
                                                            argv[3])) {
            merge_case(&m, &c);
            long long wrong = differing(&m.m, argv[4], dtype);
            if (wrong) printf("%s: %lld numbers differ\n", argv[4], wrong);
            return wrong != 0 || test_failed;
        }
    } else printf("nf4: see the top of tests/unit/nf4.c\n");
    printf("nf4: %s: %s\n", err.what, err.where);
    return 1;
}

int main(int argc, char **argv) {
    char remove_all[100];
    pool = test_pool();
    if (argc > 1) return command(argc, argv);
    memory = test_arena((size_t)16 << 20);
    ws = test_arena((size_t)8 << 20);
    sprintf(base, "/tmp/rlhf-nf4-%08lx",
            (unsigned long)((uintptr_t)memory.base ^ (uintptr_t)(wall_clock() * 1e6)) & 0xffffffffu);
    folder_make(base, fresh());
    if (golden_open()) {
        for (int i = 0; fast_name(i); i++) if (fast_use(fast_name(i)) == OK) {
            golden_logits(fast_name(i));
            one_linear(fast_name(i));
        }
        fast_use(NULL);
        recomputed();
        saved_adapter();
        merged_weights();
        prequantised();
    partly_quantised();
        dropout();
    } else CHECK(0, "%s/golden.safetensors: %s", folder, err.what);
    sprintf(remove_all, "rm -rf %s", base);
    if (system(remove_all)) printf("could not remove %s\n", base);
    return test_end("nf4");
}
