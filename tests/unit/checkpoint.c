/* tests/unit/checkpoint.c - Hugging Face folders: every golden container is read and compared with a second,
 * naive reader, which is here; what the project writes is read back; every refusal has its text. Works in a
 * folder under /tmp. */
#include "test.h"
#include "files/files.h"
#include <time.h>

static Pool pool;
static Error err;
static char base[64];                           /* the folder that the tests write in */

static const char *in_base(const char *name) {
    static char path[8][256];
    static int turn;
    char *p = path[turn = (turn + 1) % 8];
    sprintf(p, "%.60s/%.180s", base, name);
    return p;
}
static Error *fresh(void) { memset(&err, 0, sizeof err); return &err; }
static void spit(const char *path, const void *bytes, size_t n) {
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f)) { printf("cannot write %s\n", path); exit(2); }
}
static char *slurp(const char *path, size_t *n) {
    char *bytes = NULL;
    if (file_read_all(path, &pool, &bytes, n, fresh()) != OK) { printf("cannot read %s\n", path); exit(2); }
    return bytes;
}

/* ---- lists of tensors ---- */
typedef struct { Tensor *tensor; int count; } List;

static void add(List *l, const char *name, int O, int I, int flags) {
    Tensor *t = &l->tensor[l->count++];
    memset(t, 0, sizeof *t);
    strcpy(t->name, name);
    t->flags = flags;
    t->matrix = calloc(1, sizeof *t->matrix);
    t->matrix->type = F32;
    t->matrix->O = O;
    t->matrix->I = I;
    t->matrix->data = malloc((size_t)O * (size_t)I * 4);
    memset(t->matrix->data, 0x5a, (size_t)O * (size_t)I * 4);
}
/* Adds a matrix of this type; p: of NF4, how it is quantised. */
typedef struct { int kind, block, doubled, dtype; } Packing;
static Quant *add_as(List *l, const char *name, int O, int I, int type, Packing p) {
    size_t n = (size_t)O * (size_t)I, blocks = type == NF4 ? quant_blocks(n, p.block) : 0;
    Matrix *m;
    add(l, name, O, I, 0);
    m = l->tensor[l->count - 1].matrix;
    m->type = type;
    if (type != NF4) return NULL;
    m->quant = calloc(1, sizeof *m->quant);
    m->quant->kind = p.kind;
    m->quant->block = p.block;
    m->quant->dtype = p.dtype;
    if (!p.doubled) m->quant->absmax = calloc(blocks, sizeof(f32));
    else {
        m->quant->code = calloc(blocks, 1);
        m->quant->nested = calloc(blocks / QUANT_NESTED + 1, sizeof(f32));
        m->quant->map = calloc(256, sizeof(f32));
    }
    return m->quant;
}
static List list_new(int capacity) {
    List l;
    l.tensor = calloc((size_t)capacity, sizeof *l.tensor);
    l.count = 0;
    return l;
}
static void list_free(List *l) {
    for (int i = 0; i < l->count; i++) {
        Quant *q = l->tensor[i].matrix->quant;
        if (q) { free(q->absmax); free(q->code); free(q->nested); free(q->map); free(q); }
        free(l->tensor[i].matrix->data);
        free(l->tensor[i].matrix);
    }
    free(l->tensor);
}

static List llama_list(const ModelConfig *c) {
    List l = list_new(3 + 9 * c->stack.L);
    char name[96];
    add(&l, "model.embed_tokens.weight", c->V, c->stack.C, 0);
    for (int i = 0; i < c->stack.L; i++) {
        struct { const char *name; int O, I, flags; } part[] = {
            { "input_layernorm", 1, c->stack.C, TENSOR_VECTOR }, { "self_attn.q_proj",
            c->stack.H * c->stack.D, c->stack.C, 0 },
            { "self_attn.k_proj", c->stack.K * c->stack.D, c->stack.C, 0 }, { "self_attn.v_proj",
            c->stack.K * c->stack.D, c->stack.C, 0 },
            { "self_attn.o_proj", c->stack.C, c->stack.H * c->stack.D, 0 }, { "post_attention_layernorm", 1,
            c->stack.C, TENSOR_VECTOR },
            { "mlp.gate_proj", c->stack.F, c->stack.C, 0 }, { "mlp.up_proj", c->stack.F, c->stack.C, 0 },
                { "mlp.down_proj", c->stack.C, c->stack.F, 0 } };
        for (int k = 0; k < 9; k++) {
            sprintf(name, "model.layers.%d.%s.weight", i, part[k].name);
            add(&l, name, part[k].O, part[k].I, part[k].flags);
        }
    }
    add(&l, "model.norm.weight", 1, c->stack.C, TENSOR_VECTOR);
    add(&l, "lm_head.weight", c->V, c->stack.C, c->tied ? TENSOR_TIED : 0);
    return l;
}

static List roberta_list(const RewardConfig *c) {
    static const struct { const char *name; int O, I; } part[] = {     /* 1: C, 2: F */
        { "attention.self.query", 1, 1 }, { "attention.self.key", 1, 1 }, { "attention.self.value", 1, 1 },
        { "attention.output.dense", 1, 1 }, { "attention.output.LayerNorm", 0, 1 },
            { "intermediate.dense", 2, 1 },
        { "output.dense", 1, 2 }, { "output.LayerNorm", 0, 1 } };
    List l = list_new(9 + 16 * c->stack.L);
    char name[96];
    add(&l, "roberta.embeddings.word_embeddings.weight", c->V, c->stack.C, 0);
    add(&l, "roberta.embeddings.position_embeddings.weight", c->positions, c->stack.C, 0);
    add(&l, "roberta.embeddings.token_type_embeddings.weight", c->types, c->stack.C, 0);
    add(&l, "roberta.embeddings.LayerNorm.weight", 1, c->stack.C, TENSOR_VECTOR);
    add(&l, "roberta.embeddings.LayerNorm.bias", 1, c->stack.C, TENSOR_VECTOR);
    for (int i = 0; i < c->stack.L; i++)
        for (int k = 0; k < 8; k++) {
            int O = part[k].O == 2 ? c->stack.F : c->stack.C, I = part[k].I == 2 ? c->stack.F : c->stack.C;
            sprintf(name, "roberta.encoder.layer.%d.%s.weight", i, part[k].name);
            add(&l, name, part[k].O ? O : 1, I, part[k].O ? 0 : TENSOR_VECTOR);
            sprintf(name, "roberta.encoder.layer.%d.%s.bias", i, part[k].name);
            add(&l, name, 1, O, TENSOR_VECTOR);
        }
    add(&l, "classifier.dense.weight", c->stack.C, c->stack.C, 0);
    add(&l, "classifier.dense.bias", 1, c->stack.C, TENSOR_VECTOR);
    add(&l, "classifier.out_proj.weight", c->labels, c->stack.C, 0);
    add(&l, "classifier.out_proj.bias", 1, c->labels, TENSOR_VECTOR);
    return l;
}

/* ---- a second reader: it finds a tensor by searching the header's text, without checks or JSON ---- */
typedef struct { char dtype[8]; long long rank, shape[2]; const unsigned char *data; size_t length; } Naive;

static int naive_find(Naive *out, const char *file, const char *name) {
    const unsigned char *u = (const unsigned char *)file;
    size_t header = (size_t)u[0] | (size_t)u[1] << 8 | (size_t)u[2] << 16;
    char key[160];
    const char *at, *p;
    unsigned long long from, to;
    sprintf(key, "\"%.100s\":{", name);
    at = strstr(file + 8, key);
    if (!at) return 0;
    if (sscanf(strstr(at, "\"dtype\":\"") + 9, "%7[A-Z0-9]", out->dtype) != 1) return 0;
    p = strstr(at, "\"shape\":[") + 9;
    out->rank = sscanf(p, "%lld,%lld", &out->shape[0], &out->shape[1]);
    if (sscanf(strstr(at, "\"data_offsets\":[") + 16, "%llu,%llu", &from, &to) != 2) return 0;
    out->data = u + 8 + header + from;
    out->length = (size_t)(to - from);
    return 1;
}
/* Returns value i, by the definition of each format. */
static double naive_value(const Naive *n, size_t i) {
    const unsigned char *b = n->data + i * (strcmp(n->dtype, "F32") == 0 ? 4 : 2);
    unsigned half = (unsigned)b[0] | (unsigned)b[1] << 8;
    uint32_t bits = strcmp(n->dtype, "F32") == 0 ? half | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24
        : (uint32_t)half << 16;
    f32 x;
    if (strcmp(n->dtype, "F16") == 0) {
        int e = half >> 10 & 31;
        double m = half & 1023, v = e == 31 ? (m > 0 ? NAN : INFINITY) : e ? ldexp(1024 + m, e - 25)
            : ldexp(m, -24);
        return half & 0x8000 ? -v : v;
    }
    memcpy(&x, &bits, 4);
    return x;
}

/* Compares every tensor of the list with what the second reader finds in `file` under prefix + name. Returns
 * the number of differences. */
static int differences(const List *l, const char *file, const char *prefix) {
    int wrong = 0;
    for (int t = 0; t < l->count; t++) {
        const Matrix *m = l->tensor[t].matrix;
        const f32 *x = m->data;
        char name[160];
        Naive n;
        if (l->tensor[t].flags & TENSOR_TIED) continue;
        sprintf(name, "%.40s%.100s", prefix, l->tensor[t].name);
        if (!naive_find(&n, file, name)) { wrong++; continue; }
        if (l->tensor[t].flags & TENSOR_VECTOR ? n.rank != 1 || n.shape[0] != m->I
                                               : n.rank != 2 || n.shape[0] != m->O
                                                   || n.shape[1] != m->I) { wrong++; continue; }
        for (size_t i = 0; i < (size_t)m->O * (size_t)m->I; i++)
            wrong += !((double)x[i] == naive_value(&n, i));
    }
    return wrong;
}
static size_t bit_differences(const List *a, const List *b) {
    size_t wrong = a->count != b->count;
    for (int t = 0; t < a->count && t < b->count; t++) {
        const Matrix *x = a->tensor[t].matrix, *y = b->tensor[t].matrix;
        if (!(a->tensor[t].flags & TENSOR_TIED))
            wrong += memcmp(x->data, y->data, (size_t)x->O * (size_t)x->I * 4) != 0;
    }
    return wrong;
}

/* ---- the goldens ---- */
static void golden_llama(void) {
    static const char *const names[] = { "llama-gqa", "llama-mha-tied", "llama-odd", "llama-bf16",
        "llama-f16" };
    ModelConfig c, gqa;
    char folder[128], path[200];
    size_t n;
    for (int i = 0; i < 5; i++) {
        List l;
        sprintf(folder, "tests/golden/models/%s", names[i]);
        CHECK(config_load(&c, folder, &pool, fresh()) == OK, "%s: config: %s", names[i], err.what);
        l = llama_list(&c);
        CHECK(checkpoint_load(folder, "model", l.tensor, l.count, &pool, fresh()) == OK,
              "%s: weights: %s", names[i], err.what);
        sprintf(path, "%s/model.safetensors", folder);
        CHECK(differences(&l, slurp(path, &n), "") == 0, "%s: every value and shape", names[i]);
        list_free(&l);
    }
    CHECK(config_load(&gqa, "tests/golden/models/llama-gqa", &pool, fresh()) == OK, "config of llama-gqa");
    {
        List a = llama_list(&gqa), b = llama_list(&gqa);
        CHECK(checkpoint_load("tests/golden/models/llama-gqa", "model", a.tensor, a.count, &pool,
                              fresh()) == OK, "one file");
        CHECK(checkpoint_load("tests/golden/models/llama-sharded", "model", b.tensor, b.count, &pool,
                              fresh()) == OK, "shards: %s", err.what);
        CHECK(bit_differences(&a, &b) == 0, "shards hold the same bits as one file");
        list_free(&b);
        for (int i = 0; i < 4; i++) {
            static const char *const torch[] = { "llama-torch-zip", "llama-torch-legacy", "llama-torch-views",
                "llama-torch-zip-bf16" };
            b = llama_list(&gqa);
            sprintf(folder, "tests/golden/models/%s", torch[i]);
            CHECK(checkpoint_load(folder, "model", b.tensor, b.count, &pool, fresh()) == OK, "%s: %s",
                  torch[i], err.what);
            if (i == 3)
                checkpoint_load("tests/golden/models/llama-bf16", "model", a.tensor, a.count, &pool, fresh());
            CHECK(bit_differences(&a, &b) == 0, "%s holds the same bits as safetensors", torch[i]);
            list_free(&b);
        }
        list_free(&a);
    }
}

/* The families' names are those that model.c and reward.c give a model without names. */
static void names_of_families(void) {
    Arena measure = { NULL, 0, 0, 0, 0 };
    ModelConfig c;
    RewardConfig r;
    Model m, n;
    RewardModel j, k;
    Lora lora;
    const LoraConfig all = lora_config(2, 4, "all-linear");
    int wrong = 0;
    CHECK(config_load(&c, "tests/golden/models/llama-gqa", &pool, fresh()) == OK && c.names
          && reward_config_load(&r, "tests/golden/models/roberta", &pool, fresh()) == OK && r.names,
              "a family has names: %s", err.what);
    CHECK(model_carve(&m, &c, NULL, 0, 8, &pool, &measure, fresh()) == OK && reward_carve(&j, &r, NULL, 0,
            &pool, &measure, &err) == OK, "models with names");
    c.names = r.names = NULL;
    CHECK(model_carve(&n, &c, NULL, 0, 8, &pool, &measure, fresh()) == OK && reward_carve(&k, &r, NULL, 0,
            &pool, &measure, &err) == OK, "models without names");
    for (int i = 0; i < m.tensors; i++) wrong += !m.tensor[i].name[0] || n.tensor[i].name[0];
    for (int i = 0; i < j.tensors; i++) wrong += !j.tensor[i].name[0] || k.tensor[i].name[0];
    CHECK(wrong == 0 && m.tensors == n.tensors && j.tensors == k.tensors && m.tensors > 20 && j.tensors > 20,
          "with names every tensor has one, without none has (%d)", wrong);
    memset(&lora, 0, sizeof lora);
    CHECK(lora_carve(&lora, m.tensor, m.tensors, &all, 0, &pool, &measure, fresh()) == OK
          && strstr(lora.config.targets, "layers.0.self_attn.q_proj,model.layers.0.self_attn.k_proj,")
          && lora.tensors == 14 * c.stack.L, "all linears of a Llama: %s", lora.config.targets);
    memset(&lora, 0, sizeof lora);
    CHECK(lora_carve(&lora, j.tensor, j.tensors, &all, 0, &pool, &measure, fresh()) == OK
          && !strstr(lora.config.targets, "classifier") && lora.tensors == 12 * r.stack.L,
          "all linears of a RoBERTa's layers, and not its classifier's: %s", lora.config.targets);
}

static void golden_adapters(void) {
    static const char *const names[] = { "llama-gqa", "llama-mha-tied", "llama-odd" };
    for (int i = 0; i < 3; i++) {
        ModelConfig c;
        LoraConfig lora;
        char folder[128], path[200], name[128];
        size_t n;
        List model, l, head = list_new(2);
        sprintf(folder, "tests/golden/models/%s", names[i]);
        if (config_load(&c, folder, &pool, fresh()) != OK) { CHECK(0, "%s: config", names[i]); continue; }
        strcat(folder, "/adapter");
        memset(&lora, 0, sizeof lora);
        CHECK(adapter_config_load(&lora, folder, &pool, fresh()) == OK && lora.R == 4 - (i == 1) + (i == 2)
              && lora.alpha == 2 * lora.R && !lora.rslora
              && strcmp(lora.targets, "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj") == 0,
              "%s: adapter_config.json: %s", names[i], err.what);
        model = llama_list(&c);
        l = list_new(2 * model.count);
        for (int t = 0; t < model.count; t++) {
            const Tensor *w = &model.tensor[t];
            if (!strstr(w->name, "_proj.weight")) continue;
            sprintf(name, "%.*s.lora_A.weight", (int)(strlen(w->name) - 7), w->name);
            add(&l, name, lora.R, w->matrix->I, 0);
            sprintf(name, "%.*s.lora_B.weight", (int)(strlen(w->name) - 7), w->name);
            add(&l, name, w->matrix->O, lora.R, 0);
        }
        CHECK(checkpoint_load(folder, "adapter_model", l.tensor, l.count, &pool, fresh()) == OK,
              "%s: adapter: %s", names[i], err.what);
        sprintf(path, "%s/adapter_model.safetensors", folder);
        CHECK(l.count == 14 * c.stack.L && differences(&l, slurp(path, &n), "base_model.model.") == 0,
              "%s: every value of the adapter", names[i]);
        add(&head, "v_head.summary.weight", 1, c.stack.C, 0);
        add(&head, "v_head.summary.bias", 1, 1, TENSOR_VECTOR);
        CHECK(checkpoint_load(folder, "value_head", head.tensor, 2, &pool, fresh()) == OK,
              "%s: value head: %s", names[i], err.what);
        sprintf(path, "%s/value_head.safetensors", folder);
        CHECK(differences(&head, slurp(path, &n), "") == 0, "%s: value head's values", names[i]);
        list_free(&model);
        list_free(&l);
        list_free(&head);
    }
}

static void golden_roberta(void) {
    static const char *const names[] = { "roberta", "roberta-odd" };
    for (int i = 0; i < 2; i++) {
        RewardConfig c;
        char folder[128], path[200];
        size_t n;
        List l;
        sprintf(folder, "tests/golden/models/%s", names[i]);
        CHECK(reward_config_load(&c, folder, &pool, fresh()) == OK, "%s: config: %s", names[i], err.what);
        CHECK(c.labels == 2 + i && strcmp(c.label[0], i ? "neg" : "nothate") == 0
              && strcmp(c.label[c.labels - 1], i ? "pos" : "hate") == 0, "%s: labels", names[i]);
        CHECK(c.V == (i ? 211 : 101) && c.stack.C == (i ? 54 : 48) && c.stack.L == 2 + i
              && c.stack.H == (i ? 6 : 4) && c.stack.F == (i ? 77 : 96) && c.positions == 66 && c.types == 1
              && c.stack.eps == 1e-5f && c.pad == 1 && c.bos == 0 && c.eos[0] == 2, "%s: sizes", names[i]);
        l = roberta_list(&c);
        CHECK(checkpoint_load(folder, "model", l.tensor, l.count, &pool, fresh()) == OK,
              "%s: weights: %s", names[i], err.what);
        sprintf(path, "%s/model.safetensors", folder);
        CHECK(differences(&l, slurp(path, &n), "") == 0, "%s: every value and shape", names[i]);
        list_free(&l);
    }
}

/* ---- what the project writes ---- */

/* Fills the tensors with awkward values: all exponents, ties of both half formats, subnormals, zeros,
 * infinities, NaN with a payload. */
static void fill(List *l) {
    static const uint32_t special[] = { 0, 0x80000000u, 1, 0x807fffffu, 0x7f800000u, 0xff800000u, 0x7fc12345u,
        0xffa00001u, 0x3f808000u,
        0x3f818000u, 0x3f801000u, 0x3f803000u, 0x7f7fffffu, 0x477fe000u, 0x477ff000u, 0x33000000u,
            0x33000001u, 0x38800000u, 0x387fe000u };
    Rng r = rng_stream(1, 2, 3);
    for (int t = 0; t < l->count; t++) {
        const Matrix *m = l->tensor[t].matrix;
        for (size_t i = 0; i < (size_t)m->O * (size_t)m->I; i++) {
            uint32_t u = i < sizeof special / sizeof *special ? special[i] : (uint32_t)rng_next(&r);
            memcpy((char *)m->data + 4 * i, &u, 4);
        }
    }
}

/* Rounds to nearest even with `bits` of fraction and the smallest exponent `low`, in double; what is too
 * large becomes infinity. */
static double rounded(double x, int bits, int low, double largest) {
    int e;
    double unit, q, down;
    if (x == 0 || isnan(x) || isinf(x)) return x;
    frexp(x, &e);
    unit = ldexp(1, (e - 1 < low ? low : e - 1) - bits);
    q = fabs(x) / unit;
    down = floor(q);
    q = (q - down > 0.5 || (q - down == 0.5 && fmod(down, 2) == 1) ? down + 1 : down) * unit;
    if (q > largest) q = INFINITY;
    return x < 0 ? -q : q;
}

static List small_list(void) {
    List l = list_new(8);
    add(&l, "model.b.weight", 33, 301, 0);          /* more than two chunks */
    add(&l, "model.a.weight", 1, 4097, TENSOR_VECTOR);
    add(&l, "model.norm.weight", 1, 20, TENSOR_VECTOR);
    add(&l, "model.head.weight", 5, 7, TENSOR_TIED);
    add(&l, "model.one.weight", 1, 19, 0);          /* one row, but two dimensions */
    add(&l, "model.extra.weight", 4, 5, TENSOR_OPTIONAL);
    fill(&l);
    return l;
}

static void round_trips(void) {
    List a = small_list(), b = small_list(), s = small_list();
    size_t n, header;
    char *file, *at;
    for (int t = 0; t < b.count; t++)
        memset(b.tensor[t].matrix->data, 0x77, (size_t)b.tensor[t].matrix->O
               * (size_t)b.tensor[t].matrix->I * 4);
    CHECK(checkpoint_save(in_base("f32"), "model", a.tensor, a.count, F32, 0, &pool, fresh()) == OK,
          "save F32: %s", err.what);
    CHECK(checkpoint_load(in_base("f32"), "model", b.tensor, b.count, &pool, fresh()) == OK, "load F32: %s",
          err.what);
    CHECK(bit_differences(&a, &b) == 0, "F32 comes back bit for bit, NaN payloads too");
    file = slurp(in_base("f32/model.safetensors"), &n);
    header = (unsigned char)file[0] | (size_t)(unsigned char)file[1] << 8;
    CHECK(header % 8 == 0 && n == 8 + header + 4 * (33 * 301 + 4097 + 20 + 19 + 20),
          "padded header, exact length");
    CHECK(strncmp(file + 8, "{\"__metadata__\":{\"format\":\"pt\"}", 31) == 0, "metadata format pt");
    at = strstr(file + 8, "model.a.weight");
    CHECK(at && strstr(at, "model.b.weight") && strstr(at, "model.one.weight")
          && strstr(at, "\"data_offsets\":[0,16388]"), "names in order");
    CHECK(!strstr(file + 8, "head"), "a tied tensor is not written");
    for (int type = BF16; type <= F16; type++) {
        const char *name = type == BF16 ? "BF16" : "F16";
        int wrong = 0;
        CHECK(checkpoint_save(in_base(name), "model", a.tensor, a.count, type, 0, &pool, fresh()) == OK,
              "save %s: %s", name, err.what);
        CHECK(checkpoint_load(in_base(name), "model", b.tensor, b.count, &pool, fresh()) == OK,
              "load %s: %s", name, err.what);
        for (int t = 0; t < a.count; t++)
            for (size_t i = 0; i < (size_t)a.tensor[t].matrix->O * (size_t)a.tensor[t].matrix->I; i++) {
                double x = ((f32 *)a.tensor[t].matrix->data)[i], y = ((f32 *)b.tensor[t].matrix->data)[i];
                double want = type == BF16 ? rounded(x, 7, -126, 3.3895313892515355e38) : rounded(x, 10,
                        -14, 65504);
                if (!(a.tensor[t].flags & TENSOR_TIED)) wrong += !(y == want || (isnan(y) && isnan(want)));
            }
        CHECK(wrong == 0, "%s: every value is rounded to nearest even (%d wrong)", name, wrong);
    }
    CHECK(checkpoint_save(in_base("shards"), "model", a.tensor, a.count, F32, 20000, &pool, fresh()) == OK,
          "save shards: %s", err.what);
    CHECK(checkpoint_load(in_base("shards"), "model", s.tensor, s.count, &pool, fresh()) == OK,
          "load shards: %s", err.what);
    CHECK(bit_differences(&a, &s) == 0, "shards come back bit for bit");
    CHECK(file_exists(in_base("shards/model-00002-of-00002.safetensors"))
          && !file_exists(in_base("shards/model.safetensors")), "two shards");
    file = slurp(in_base("shards/model.safetensors.index.json"), &n);
    CHECK(strstr(file, "\"total_size\": 56356}") != NULL, "the index counts all bytes");
    slurp(in_base("shards/model-00002-of-00002.safetensors"), &n);
    CHECK(n < 20000, "the limit holds for shards of several tensors");
    CHECK(checkpoint_save(in_base("f32"), "model", a.tensor, a.count, F32, 20000, &pool, fresh()) == E_WRITE,
          "shards beside an old single file are refused");
    CHECK(checkpoint_save(in_base("large"), "model", a.tensor, a.count, F32, 1 << 30, &pool, fresh()) == OK
          && file_exists(in_base("large/model.safetensors")), "one file where one is enough");
    list_free(&a);
    list_free(&b);
    list_free(&s);
}

/* ---- hand-made files ---- */
static void write_safetensors(const char *path, const char *header, size_t data) {
    size_t n = strlen(header);
    unsigned char *bytes = calloc(1, 8 + n + data);
    for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)((uint64_t)n >> (8 * i));
    memcpy(bytes + 8, header, n);
    for (size_t i = 0; i < data; i++) bytes[8 + n + i] = (unsigned char)(i & 3 ? 0 : 1);   /* 1.4e-45 */
    spit(path, bytes, 8 + n + data);
    free(bytes);
}

#define T(name, dtype, shape, from, to) \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #from "," #to "]}"
static const struct { const char *name, *header; size_t data; int code; const char *says; } containers[] = {
    { "plain", "{" T("a", "F32", "[2,3]", 0, 24) "," T("n", "F32", "[3]", 24, 36) "}", 36, OK, "" },
    { "padded, any order, tensors of other types that no model needs",
      "{" T("n", "F32", "[3]", 32, 44) "," T("model.rotary_emb.inv_freq", "F64", "[1]", 0, 8) ","
      T("a", "F32", "[2,3]", 8, 32) "," T("bert.embeddings.position_ids", "I64", "[]", 44, 52) ","
      T("h.0.rotary_emb.inv_freq", "BOOL", "[0,7]", 8, 8) "}   ", 52, OK, "" },
    { "a tensor that the model lacks", "{" T("a", "F32", "[2,3]", 0, 24) "," T("n", "F32", "[3]", 24, 36) ","
      T("a.bias", "F32", "[1]", 36, 40) "}", 40, E_UNSUPPORTED, "tensor a.bias has no place in the model" },
    { "two of them", "{" T("a", "F32", "[2,3]", 0, 24) "," T("n", "F32", "[3]", 24, 36) ","
      T("z", "I64", "[]", 36, 44) "," T("b", "I64", "[]", 44, 52) "}", 52, E_UNSUPPORTED,
      "tensor b has no place in the model, and 1 more" },
    { "a pooler, but not of RoBERTa", "{" T("a", "F32", "[2,3]", 0, 24) "," T("n", "F32", "[3]", 24, 36) ","
      T("pooler.bias", "F32", "[1]", 36, 40) "}", 40, E_UNSUPPORTED, "tensor pooler.bias has no place" },
    { "TRL's value head", "{" T("a", "F32", "[2,3]", 0, 24) "," T("n", "F32", "[3]", 24, 36) ","
      T("v_head.summary.bias", "F32", "[1]", 36, 40) "}", 40, OK, "" },
    { "wrapped by several", "{" T("_orig_mod.module.a", "F32", "[2,3]", 0, 24) ","
      T("pretrained_model.base_model.model.n", "F32", "[3]", 24, 36) "}", 36, OK, "" },
    { "wrapped and not", "{" T("a", "F32", "[2,3]", 0, 24) "," T("module.a", "F32", "[2,3]", 24, 48) ","
      T("n", "F32", "[3]", 48, 60) "}", 60, E_FORMAT, "tensor a is there twice" },
    { "unknown keys, metadata", "{\"__metadata__\":{\"x\":\"y\"},\"a\":{\"dtype\":\"F32\",\"q\":1,"
    "\"shape\":[2,3],\"data_offsets\":[0,24]},"
      T("n", "F32", "[3]", 24, 36) "}", 36, OK, "" },
    { "16 bits", "{" T("a", "BF16", "[2,3]", 0, 12) "," T("n", "F16", "[3]", 12, 18) "}", 18, OK, "" },
    { "missing one", "{" T("a", "F32", "[2,3]", 0, 24) "}", 24, E_MISSING, "tensor n is missing" },
    { "missing two", "{" T("b", "F32", "[2,3]", 0, 24) "}", 24, E_MISSING,
    "tensor a is missing, and 1 more" },
    { "transposed", "{" T("a", "F32", "[3,2]", 0, 24) "," T("n", "F32", "[3]", 24, 36) "}", 36, E_SHAPE,
    "tensor a is [3,2], wanted [2,3]" },
    { "matrix for a vector", "{" T("a", "F32", "[2,3]", 0, 24) "," T("n", "F32", "[1,3]", 24, 36) "}", 36,
    E_SHAPE, "tensor n is [1,3], wanted [3]" },
    { "three dimensions", "{" T("a", "F32", "[2,3,1]", 0, 24) "," T("n", "F32", "[3]", 24, 36) "}", 36,
    E_SHAPE, "of 3 dimensions" },
    { "double", "{" T("a", "F64", "[2,3]", 0, 48) "," T("n", "F32", "[3]", 48, 60) "}", 60, E_UNSUPPORTED,
    "dtype F64 of tensor a" },
    { "unknown dtype", "{" T("a", "F128", "[2,3]", 0, 24) "," T("n", "F32", "[3]", 24, 36) "}", 36,
    E_UNSUPPORTED, "F128" },
    { "gap", "{" T("a", "F32", "[2,3]", 0, 24) "," T("n", "F32", "[3]", 28, 40) "}", 40, E_FORMAT, "gap" },
    { "gap at the start", "{" T("a", "F32", "[2,3]", 4, 28) "," T("n", "F32", "[3]", 28, 40) "}", 40,
    E_FORMAT, "gap" },
    { "overlap", "{" T("a", "F32", "[2,3]", 0, 24) "," T("n", "F32", "[3]", 12, 24) "}", 24, E_FORMAT,
    "overlap" },
    { "more data", "{" T("a", "F32", "[2,3]", 0, 24) "," T("n", "F32", "[3]", 24, 36) "}", 37, E_FORMAT,
    "after the last" },
    { "less data", "{" T("a", "F32", "[2,3]", 0, 24) "," T("n", "F32", "[3]", 24, 36) "}", 35,
    E_TRUNCATED, "" },
    { "offsets too long", "{" T("a", "F32", "[2,3]", 0, 28) "," T("n", "F32", "[3]", 28, 40) "}", 40,
    E_FORMAT, "do not fit" },
    { "offsets backwards", "{" T("a", "F32", "[2,3]", 24, 0) "," T("n", "F32", "[3]", 24, 36) "}", 36,
    E_FORMAT, "do not fit" },
    { "negative offset", "{" T("a", "F32", "[2,3]", -24, 0) "," T("n", "F32", "[3]", 0, 12) "}", 12, E_FORMAT,
    "tensor a" },
    { "half a byte", "{" T("a", "F4", "[3]", 0, 1) "," T("n", "F32", "[3]", 1, 13) "}", 13, E_FORMAT,
    "do not fit" },
    { "overflow", "{" T("a", "F32", "[4294967296,4294967296,4294967296]", 0, 0) "}", 0, E_RANGE, "overflow" },
    { "huge size", "{" T("a", "F32", "[1e300]", 0, 0) "}", 0, E_FORMAT, "whole" },
    { "twice", "{" T("a", "F32", "[2,3]", 0, 24) "," T("a", "F32", "[2,3]", 24, 48) "," T("n", "F32", "[3]",
            48, 60) "}", 60, E_FORMAT, "tensor a is there twice" },
    { "no shape", "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,24]}}", 24, E_FORMAT, "tensor a" },
    { "metadata of numbers", "{\"__metadata__\":{\"x\":1}," T("a", "F32", "[2,3]", 0, 24) ","
    T("n", "F32", "[3]", 24, 36) "}", 36, E_FORMAT, "__metadata__" },
    { "a list", "[]", 0, E_FORMAT, "begin with {" },
    { "a space first", " {}", 0, E_FORMAT, "begin with {" },
    { "no JSON", "{\"a\":", 0, -1, "" },
    { "nothing", "{}", 0, E_MISSING, "tensor a is missing, and 1 more" },
};

static void hand_made(void) {
    List l = list_new(4);
    static const unsigned char huge[8] = { 0, 0, 0, 0, 0, 0, 0, 0x80 }, long_header[8] = { 100, 0, 0, 0, 0,
        0, 0, 0 };
    uint32_t one = 0;
    add(&l, "a", 2, 3, 0);
    add(&l, "n", 1, 3, TENSOR_VECTOR);
    add(&l, "t", 9, 9, TENSOR_TIED);
    add(&l, "o", 1, 3, TENSOR_OPTIONAL | TENSOR_VECTOR);
    folder_make(in_base("hand"), fresh());
    for (size_t i = 0; i < sizeof containers / sizeof *containers; i++) {
        int code;
        write_safetensors(in_base("hand/model.safetensors"), containers[i].header, containers[i].data);
        code = checkpoint_load(in_base("hand"), "model", l.tensor, l.count, &pool, fresh());
        CHECK((containers[i].code < 0 ? code != OK : code == containers[i].code) && code == err.code
              && strstr(err.what, containers[i].says)
              && (code == OK || strstr(err.where, "model.safetensors")), "%s: code %d, '%s', '%s'",
              containers[i].name, code, err.what, err.where);
        if (i == 0) {
            memcpy(&one, l.tensor[0].matrix->data, 4);
            CHECK(one == 1, "the value of the file");
            memcpy(&one, l.tensor[3].matrix->data, 4);
            CHECK(one == 0x5a5a5a5au, "an optional tensor that is not there keeps its value");
        }
    }
    spit(in_base("hand/model.safetensors"), huge, 8);
    CHECK(checkpoint_load(in_base("hand"), "model", l.tensor, l.count, &pool, fresh()) == E_RANGE,
          "header of 2^63 bytes");
    spit(in_base("hand/model.safetensors"), long_header, 8);
    CHECK(checkpoint_load(in_base("hand"), "model", l.tensor, l.count, &pool, fresh()) == E_TRUNCATED,
          "header longer than the file");
    spit(in_base("hand/model.safetensors"), huge, 7);
    CHECK(checkpoint_load(in_base("hand"), "model", l.tensor, l.count, &pool, fresh()) == E_TRUNCATED,
          "seven bytes");
    CHECK(checkpoint_load(in_base("nowhere"), "model", l.tensor, l.count, &pool, fresh()) == E_MISSING,
          "no folder");
    CHECK(checkpoint_load(in_base("nowhere"), "model", l.tensor, l.count, &pool, NULL) == E_MISSING,
          "an error record is not needed");
    list_free(&l);
}

/* Checks names without "model." or "roberta.", a tied head in the file, and old LayerNorm names. */
static void other_names(void) {
    List l = list_new(3);
    folder_make(in_base("names"), fresh());
    add(&l, "model.a.weight", 2, 3, 0);
    add(&l, "lm_head.weight", 2, 3, TENSOR_TIED);
    write_safetensors(in_base("names/model.safetensors"), "{" T("a.weight", "F32", "[2,3]", 0, 24) "}", 24);
    CHECK(checkpoint_load(in_base("names"), "model", l.tensor, l.count, &pool, fresh()) == OK,
          "a name without model.: %s", err.what);
    list_free(&l);
    l = list_new(3);
    add(&l, "roberta.embeddings.LayerNorm.weight", 1, 3, TENSOR_VECTOR);
    add(&l, "roberta.embeddings.LayerNorm.bias", 1, 3, TENSOR_VECTOR);
    add(&l, "roberta.encoder.layer.10.output.LayerNorm.bias", 1, 3, TENSOR_VECTOR);
    write_safetensors(in_base("names/model.safetensors"), "{" T("roberta.embeddings.LayerNorm.gamma", "F32",
            "[3]", 0, 12) "," T("embeddings.LayerNorm.bias", "F32", "[3]", 12, 24) ","
            T("encoder.layer.10.output.LayerNorm.beta", "F32", "[3]", 24, 36) "}", 36);
    CHECK(checkpoint_load(in_base("names"), "model", l.tensor, l.count, &pool, fresh()) == OK,
          "gamma, a name without roberta., and beta without it: %s", err.what);
    list_free(&l);
}

static void index_files(void) {
    static const struct { const char *index; int code; const char *says; } cases[] = {
        { "{\"weight_map\":{\"a\":\"s1.safetensors\",\"n\":\"s2.safetensors\"}}", OK, "" },
        { "{\"weight_map\":{\"module.a\":\"s1.safetensors\",\"module.n\":\"s2.safetensors\"}}", OK, "" },
        { "{\"weight_map\":{\"a\":\"s1.safetensors\",\"n\":\"s2.safetensors\",\"other\":\"s3.safetensors\"}}",
        E_UNSUPPORTED, "tensor other has no place in the model" },
        { "{\"weight_map\":{\"a\":\"s1.safetensors\",\"a\":\"s2.safetensors\"}}", E_FORMAT,
        "tensor a is there twice" },
        { "{\"weight_map\":{\"a\":\"../hand/s1.safetensors\",\"n\":\"s2.safetensors\"}}", E_FORMAT,
        "../hand/s1" },
        { "{\"weight_map\":{\"a\":\"/etc/passwd\",\"n\":\"s2.safetensors\"}}", E_FORMAT, "/etc/passwd" },
        { "{\"weight_map\":{\"a\":\"x\\\\s1.safetensors\",\"n\":\"s2.safetensors\"}}", E_FORMAT,
        "shard name" },
        { "{\"weight_map\":{\"a\":\"\",\"n\":\"s2.safetensors\"}}", E_FORMAT, "shard name" },
        { "{\"weight_map\":{\"a\":\"..\",\"n\":\"s2.safetensors\"}}", E_FORMAT, "shard name" },
        { "{\"weight_map\":{\"a\":\"s1.safetensors\\u0000\",\"n\":\"s2.safetensors\"}}", E_FORMAT,
        "shard name" },
        { "{\"weight_map\":{\"a\":7,\"n\":\"s2.safetensors\"}}", E_FORMAT, "strings" },
        { "{\"weight_map\":[]}", E_FORMAT, "weight_map" },
        { "{}", E_FORMAT, "weight_map" },
        { "[]", E_FORMAT, "object" },
        { "{\"weight_map\":{\"a\":\"s1.safetensors\"}}", E_MISSING, "tensor n is missing" },
        { "{\"weight_map\":{\"a\":\"s1.safetensors\",\"n\":\"s1.safetensors\"}}", E_MISSING,
        "tensor n is not in the shard" },
        { "{\"weight_map\":{\"a\":\"s1.safetensors\",\"n\":\"s4.safetensors\"}}", E_OPEN, "" },
    };
    List l = list_new(2);
    add(&l, "a", 2, 3, 0);
    add(&l, "n", 1, 3, TENSOR_VECTOR);
    folder_make(in_base("index"), fresh());
    write_safetensors(in_base("index/s1.safetensors"), "{" T("a", "F32", "[2,3]", 0, 24) "}", 24);
    write_safetensors(in_base("index/s2.safetensors"), "{" T("n", "F32", "[3]", 0, 12) "}", 12);
    write_safetensors(in_base("index/s3.safetensors"), "{" T("other", "F32", "[3]", 0, 12) "}", 12);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int code;
        spit(in_base("index/model.safetensors.index.json"), cases[i].index, strlen(cases[i].index));
        code = checkpoint_load(in_base("index"), "model", l.tensor, l.count, &pool, fresh());
        CHECK(code == cases[i].code && code == err.code && strstr(err.what, cases[i].says),
              "index %d: code %d, '%s'", (int)i, code, err.what);
    }
    list_free(&l);
}

/* Loads the tensors of the list alone. */
static int load_one(const List *l, const char *folder) {
    return checkpoint_load_part(folder, "model", l->tensor, l->count, &pool, fresh());
}

/* ---- files that are something else: each is named, with advice, in the place of each file ---- */

#define LFS "version https://git-lfs.github.com/spec/v1\noid sha256:0123456789abcdef\nsize 4400000000\n"
static const struct { const char *bytes; size_t n; const char *says, *advice; } strangers[] = {
    { LFS, sizeof LFS - 1, "a pointer of Git LFS", "git lfs pull" },
    { "\n<!DOCTYPE html><html class=\"\"><head><title>Sign in</title></head></html>", 72, "a page of HTML",
      "/resolve/" },
    { "<html>\n<head><title>404 Not Found</title></head>\n<body>not found, sorry</body></html>", 80,
      "a page of HTML", "/resolve/" },
    { "\x1f\x8b\x08\x08\0\0\0\0\0\3model.safetensors\0 and much more that is compressed, as it seems", 80,
      "a gzip file", "gunzip" },
    { "GGUF\3\0\0\0\x23\1\0\0\0\0\0\0\x17\0\0\0\0\0\0\0\x14\0\0\0\0\0\0\0general.architecture\0...",
      72, "a GGUF file", "model.safetensors" },
};

static void files_of_other_kinds(void) {
    static const char *const place[] = { "model.safetensors", "pytorch_model.bin", "config.json",
                                         "tokenizer.json", "tokenizer.model", "vocab.txt" };
    static const unsigned char header_of_gzip[] = "\x1f\x8b\0\0\0\0\0\0{";
    static const unsigned char protocol_4[16] = { 0x80, 4, 0x95, 11 };
    List l = list_new(1);
    ModelConfig c;
    add(&l, "a", 2, 3, 0);
    folder_make(in_base("other"), fresh());
    for (int p = 0; p < 6; p++) {
        char path[64];
        sprintf(path, "other/%s", place[p]);
        for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++) {
            int code;
            spit(in_base(path), strangers[i].bytes, strangers[i].n);
            if (p < 2) code = load_one(&l, in_base("other"));
            else if (p == 2) code = config_load(&c, in_base("other"), &pool, fresh());
            else code = tokenizer_open(in_base("other"), &pool, fresh()) ? OK : err.code;
            CHECK(code == E_FORMAT && strstr(err.what, strangers[i].says) && strstr(err.where, place[p])
                  && err.advice && strstr(err.advice, strangers[i].advice), "%s as %s: %d '%s', '%s'",
                  strangers[i].says, place[p], code, err.what, err.where);
        }
        if (p == 1) {
            spit(in_base(path), protocol_4, sizeof protocol_4);
            CHECK(load_one(&l, in_base("other")) == E_UNSUPPORTED && strstr(err.what, "pickle protocol 4")
                  && strstr(err.advice, "torch.save"), "an older file of protocol 4: %s", err.what);
            spit(in_base(path), "\x10\0\0\0\0\0\0\0{\"a\":{}}", 16);
            CHECK(load_one(&l, in_base("other")) == E_FORMAT && strstr(err.what, "a safetensors file"),
                  "a safetensors file as pytorch_model.bin: %s", err.what);
        }
        remove(in_base(path));
    }
    spit(in_base("other/model.safetensors"), header_of_gzip, 9);
    CHECK(load_one(&l, in_base("other")) == E_TRUNCATED, "a header of 35,615 bytes is not gzip: %s",
          err.what);
    spit(in_base("other/model.safetensors"), "PK\3\4 and whatever torch.save writes into its zip", 48);
    CHECK(load_one(&l, in_base("other")) == E_FORMAT && strstr(err.advice, "pytorch_model.bin"),
          "torch.save's zip as model.safetensors: %s", err.what);
    list_free(&l);
}

/* ---- tied heads, and adapters: everything in the file is used, or named ---- */

/* Writes FOLDER/model.safetensors with an embedding and a head (5,4); `differ` of their values differ. */
static void write_tied(const char *folder, int type, int differ) {
    List l = list_new(2);
    add(&l, "model.embed_tokens.weight", 5, 4, 0);
    add(&l, "lm_head.weight", 5, 4, 0);
    for (int t = 0; t < 2; t++)
        for (int i = 0; i < 20; i++)
            ((f32 *)l.tensor[t].matrix->data)[i] = (f32)i - (t && i >= 20 - differ ? 0.5f : 0);
    CHECK(checkpoint_save(folder, "model", l.tensor, 2, type, 0, &pool, fresh()) == OK, "save: %s", err.what);
    list_free(&l);
}

/* What a model's files may have beside its own tensors. */
static void spare_tensors(void) {
    static const char *const spare[][2] = {
        { "model.embed_tokens.weight", "model.layers.0.self_attn.rotary_emb.inv_freq" },
        { "model.embed_tokens.weight", "lm_head.weight" }, { "model.embed_tokens.weight", "score.weight" },
        { "transformer.wte.weight", "h.0.attn.bias" },
        { "transformer.wte.weight", "transformer.h.0.attn.attention.masked_bias" },
        { "roberta.embeddings.word_embeddings.weight", "roberta.pooler.dense.weight" },
        { "roberta.embeddings.word_embeddings.weight", "lm_head.dense.bias" },
        { "bert.embeddings.word_embeddings.weight", "cls.predictions.bias" },
        /* a judge's list has it, or a new head (rm --new-head) or an adapter's head takes its place */
        { "bert.embeddings.word_embeddings.weight", "bert.pooler.dense.weight" } };
    static const char *const needed[][2] = {
        { "model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.bias" },
        { "model.embed_tokens.weight", "lm_head.bias" }, { "transformer.wte.weight", "h.0.attn.c_attn.bias" },
        { "roberta.embeddings.word_embeddings.weight", "cls.predictions.bias" },
        { "bert.embeddings.word_embeddings.weight", "bert.encoder.pooler.dense.weight" } };
    for (size_t i = 0; i < sizeof spare / sizeof *spare; i++)
        CHECK(family_spares(spare[i][0], spare[i][1]), "beside %s: %s", spare[i][0], spare[i][1]);
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        CHECK(!family_spares(needed[i][0], needed[i][1]), "not beside %s: %s", needed[i][0], needed[i][1]);
}

static void tied_heads(void) {
    static const Names names = { { [NAME_WORD] = "model.embed_tokens.weight",
                                   [NAME_HEAD] = "lm_head.weight" }, 0 };
    List l = list_new(2);
    ModelConfig c;
    int untied;
    memset(&c, 0, sizeof c);
    c.V = 5;
    c.stack.C = 4;
    c.names = &names;
    add(&l, "model.embed_tokens.weight", 5, 4, TENSOR_EMBEDDING);
    add(&l, "lm_head.weight", 5, 4, TENSOR_HEAD | TENSOR_TIED);
    free(l.tensor[1].matrix->data);
    l.tensor[1].matrix->data = l.tensor[0].matrix->data;
    for (int differ = 0; differ < 2; differ++)
        for (int type = F32; type <= F16; type++) {
            write_tied(in_base("tied"), type, differ);
            c.tied = untied = 1;
            CHECK(checkpoint_untie(&c, &untied, in_base("tied"), &pool, fresh()) == OK && untied == differ
                  && c.tied == !differ, "a head in the file, %d values differ: untied %d (%s)", differ,
                  untied, err.what);
            CHECK(checkpoint_load(in_base("tied"), "model", l.tensor, 2, &pool, fresh())
                  == (differ ? E_UNSUPPORTED : OK)
                  && (!differ || strstr(err.what, "lm_head.weight is not equal")),
                  "loaded as tied, %d values differ: %s", differ, err.what);
        }
    c.tied = 1;
    CHECK(checkpoint_save(in_base("tied"), "model", l.tensor, 2, F32, 0, &pool, fresh()) == OK
          && checkpoint_untie(&c, &untied, in_base("tied"), &pool, fresh()) == OK && !untied && c.tied,
          "no head in the file: tied");
    l.tensor[1].matrix->data = malloc(4);
    list_free(&l);
}

static const struct {
    const char *name, *header; size_t data; int code; const char *says;
} adapter_files[] = {
    { "as peft writes it", "{" T("base_model.model.x.lora_A.weight", "F32", "[1,3]", 0, 12) "}", 12, OK, "" },
    { "as it is in memory", "{" T("base_model.model.x.lora_A.default.weight", "F32", "[1,3]", 0, 12) "}", 12,
      OK, "" },
    { "a pair without a place", "{" T("base_model.model.x.lora_A.weight", "F32", "[1,3]", 0, 12) ","
      T("base_model.model.y.lora_A.weight", "F32", "[1,3]", 12, 24) "}", 24, E_UNSUPPORTED,
      "tensor y.lora_A.weight has no place in the model" },
    { "DoRA", "{" T("base_model.model.x.lora_A.weight", "F32", "[1,3]", 0, 12) ","
      T("base_model.model.x.lora_magnitude_vector.weight", "F32", "[3]", 12, 24) "}", 24, E_UNSUPPORTED,
      "tensor x.lora_magnitude_vector.weight has no place" },
    { "an embedding's adapter", "{" T("base_model.model.x.lora_A.weight", "F32", "[1,3]", 0, 12) ","
      T("base_model.model.embed.lora_embedding_A", "F32", "[3]", 12, 24) "}", 24, E_UNSUPPORTED,
      "lora_embedding_A has no place" },
    { "a value head in an adapter", "{" T("base_model.model.x.lora_A.weight", "F32", "[1,3]", 0, 12)
      "," T("v_head.summary.weight", "F32", "[3]", 12, 24) "}", 24, E_UNSUPPORTED, "v_head.summary.weight" },
    { "a saved embedding, and its tied head", "{" T("base_model.model.x.lora_A.weight", "F32", "[1,3]", 0, 12)
      "," T("base_model.model.embed.weight", "F32", "[2,2]", 12, 28) ","
      T("base_model.model.head.modules_to_save.default.weight", "F32", "[2,2]", 28, 44) "}", 44, OK, "" },
    { "a saved embedding alone", "{" T("base_model.model.x.lora_A.weight", "F32", "[1,3]", 0, 12) ","
      T("base_model.model.embed.weight", "F32", "[2,2]", 12, 28) "}", 28, OK, "" },
    { "the base's embedding", "{" T("base_model.model.x.lora_A.weight", "F32", "[1,3]", 0, 12) ","
      T("base_model.model.embed.base_layer.weight", "F32", "[2,2]", 12, 28) "}", 28, OK, "" },
    { "a saved head alone", "{" T("base_model.model.x.lora_A.weight", "F32", "[1,3]", 0, 12) ","
      T("base_model.model.head.weight", "F32", "[2,2]", 12, 28) "}", 28, E_UNSUPPORTED,
      "tensor head.weight is not equal to embed.weight" },
    { "a resized vocabulary", "{" T("base_model.model.x.lora_A.weight", "F32", "[1,3]", 0, 12) ","
      T("base_model.model.embed.weight", "F32", "[3,2]", 12, 36) "}", 36, E_SHAPE,
      "tensor embed.weight is [3,2], wanted [2,2]" },
};

/* An adapter's list: its own tensor; the base's embedding, which the file may replace; the tied head. */
static void adapter_tensors(void) {
    List l = list_new(3);
    f32 *x;
    add(&l, "x.lora_A.weight", 1, 3, 0);
    add(&l, "embed.weight", 2, 2, TENSOR_EMBEDDING | TENSOR_OPTIONAL);
    add(&l, "head.weight", 2, 2, TENSOR_HEAD | TENSOR_TIED);
    free(l.tensor[2].matrix->data);
    x = l.tensor[2].matrix->data = l.tensor[1].matrix->data;
    folder_make(in_base("adapter"), fresh());
    for (size_t i = 0; i < sizeof adapter_files / sizeof *adapter_files; i++) {
        int code;
        x[0] = 9;
        write_safetensors(in_base("adapter/adapter_model.safetensors"), adapter_files[i].header,
                          adapter_files[i].data);
        code = checkpoint_load(in_base("adapter"), "adapter_model", l.tensor, l.count, &pool, fresh());
        CHECK(code == adapter_files[i].code && code == err.code && strstr(err.what, adapter_files[i].says)
              && (code == OK || err.advice), "adapter, %s: code %d, '%s'", adapter_files[i].name, code,
              err.what);
        CHECK((x[0] == 9) == (code != OK || !strstr(adapter_files[i].header, "embed")),
              "adapter, %s: the base's embedding is replaced only by the file's", adapter_files[i].name);
    }
    l.tensor[2].matrix->data = malloc(4);
    list_free(&l);
}

/* modules_to_save: what an adapter's configuration says it saves has to be in its file, and stands in for the
 * base's; another tensor of the base in the file replaces the base's own. */
static void saved_modules(void) {
    static const struct { const char *save; int code, own; const char *says; } cases[] = {
        { "[\"embed\"]", OK, 1, "" }, { "null", OK, 0, "" }, { "[\"bed\",\"classifier\"]", OK, 1, "" },
        { "[\"embed\",\"norm\"]", E_MISSING, 0, "tensor model.norm.weight is missing" },
        { "[\"model.norm\"]", E_MISSING, 0, "tensor model.norm.weight is missing" } };
    List l = list_new(3);
    add(&l, "model.embed.weight", 2, 2, TENSOR_EMBEDDING);
    add(&l, "model.q.weight", 2, 2, TENSOR_LINEAR);
    add(&l, "model.norm.weight", 1, 3, TENSOR_VECTOR);
    folder_make(in_base("saved"), fresh());
    write_safetensors(in_base("saved/adapter_model.safetensors"),
                      "{" T("base_model.model.model.embed.weight", "F32", "[2,2]", 0, 16) ","
                      T("base_model.model.model.q.lora_A.weight", "F32", "[1,2]", 16, 24) ","
                      T("base_model.model.model.q.lora_B.weight", "F32", "[2,1]", 24, 32) "}", 32);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char json[160];
        f32 numbers[64], *embed = l.tensor[0].matrix->data;
        Arena arena = { (unsigned char *)numbers, 0, sizeof numbers, 0, 0 };
        Lora lora;
        memset(&lora, 0, sizeof lora);
        embed[0] = 9;
        sprintf(json, "{\"peft_type\":\"LORA\",\"r\":1,\"target_modules\":[\"q\"],\"modules_to_save\":%s}",
                cases[i].save);
        spit(in_base("saved/adapter_config.json"), json, strlen(json));
        int code = adapter_config_load(&lora.config, in_base("saved"), &pool, fresh());
        if (!code) code = lora_carve(&lora, l.tensor, 3, &lora.config, 0, &pool, &arena, fresh());
        if (!code) code = adapter_load(&lora, l.tensor, 3, in_base("saved"), &pool, fresh());
        CHECK(code == cases[i].code && strstr(err.what, cases[i].says), "%s: %d %s", cases[i].save, code,
              err.what);
        CHECK(code != OK || ((embed[0] == 9) == cases[i].own && (lora.pair[0].saved.O == 2) == cases[i].own),
              "%s: whose the embedding is", cases[i].save);
    }
    list_free(&l);
}

/* ---- a tensor of any type becomes a matrix of any type, 4 bits included ---- */

/* Fills x with floats of many sizes, without NaN and infinities. */
static void fill_finite(f32 *x, size_t n, uint64_t seed) {
    Rng r = rng_stream(seed, 7, 7);
    for (size_t i = 0; i < n; i++)
        x[i] = (f32)(rng_normal(&r) * (i % 97 == 0 ? 30.0 : i % 89 == 0 ? 1e-4 : 1.0));
}

static double as_double(const Matrix *m, size_t i) {
    return m->type == F32 ? (double)((f32 *)m->data)[i] : m->type == BF16
        ? (double)bf16_to_f32(((uint16_t *)m->data)[i]) : (double)f16_to_f32(((uint16_t *)m->data)[i]);
}

/* Loads every float type of a file into every float type of a matrix. */
static void types(void) {
    List a = list_new(2);
    const Matrix *x;
    add(&a, "w", 37, 301, 0);
    x = a.tensor[0].matrix;
    fill_finite(x->data, 37 * 301, 1);
    for (int file = F32; file <= F16; file++) {
        CHECK(checkpoint_save(in_base("types"), "model", a.tensor, 1, file, 0, &pool, fresh()) == OK,
              "save as type %d", file);
        for (int type = F32; type <= F16; type++) {
            List b = list_new(1);
            Storage s;
            int wrong = 0, code;
            add_as(&b, "w", 37, 301, type, (Packing){ 0, 0, 0, 0 });
            code = load_one(&b, in_base("types"));
            for (size_t i = 0; i < 37 * 301 && code == OK; i++) {
                double v = (double)((f32 *)x->data)[i];
                if (file != F32) v = file == BF16 ? rounded(v, 7, -126, 3.4e38) : rounded(v, 10, -14, 65504);
                if (type != F32) v = type == BF16 ? rounded(v, 7, -126, 3.4e38) : rounded(v, 10, -14, 65504);
                wrong += as_double(b.tensor[0].matrix, i) != v;
            }
            CHECK(code == OK && wrong == 0, "from type %d into type %d: %s, %d wrong", file, type,
                  err.what, wrong);
            CHECK(checkpoint_storage(&s, in_base("types"), "model", "w", &pool, fresh()) == OK
                  && s.type == file && s.dtype == file && s.rank == 2 && s.shape[0] == 37 && s.shape[1] == 301
                  && s.bytes == 37 * 301 * (file == F32 ? 4 : 2), "storage of type %d", file);
            list_free(&b);
        }
    }
    {
        Storage s;
        CHECK(checkpoint_storage(&s, in_base("types"), "model", "v", &pool, fresh()) == E_MISSING
              && strstr(err.what, "tensor v is missing"), "storage of nothing");
        CHECK(checkpoint_storage(&s, "tests/golden/models/llama-torch-zip-bf16", "model", "lm_head.weight",
                                 &pool, fresh()) == OK && s.type == BF16 && s.rank == 2 && s.shape[0] == 97
                                 && s.shape[1] == 64 && s.bytes == 97 * 64 * 2,
                                 "storage in a PyTorch file: %s", err.what);
        CHECK(checkpoint_storage(&s, "tests/golden/models/llama-sharded", "model", "model.norm.weight", &pool,
                                 fresh()) == OK && s.type == F32 && s.rank == 1 && s.shape[0] == 64,
                                 "storage in shards: %s", err.what);
    }
    list_free(&a);
}

/* Returns 1 if two 4-bit matrices have the same bits everywhere. */
static int same_4bit(const Matrix *a, const Matrix *b) {
    size_t n = (size_t)a->O * (size_t)a->I, blocks = quant_blocks(n, a->quant->block);
    const Quant *p = a->quant, *q = b->quant;
    if (memcmp(a->data, b->data, (n + 1) / 2) || p->kind != q->kind || p->block != q->block
        || p->dtype != q->dtype || memcmp(p->table, q->table, sizeof p->table)) return 0;
    if (p->absmax) return q->absmax && memcmp(p->absmax, q->absmax, blocks * 4) == 0;
    return !q->absmax && memcmp(p->code, q->code, blocks) == 0 && memcmp(p->nested, q->nested,
            (blocks + 255) / 256 * 4) == 0
           && memcmp(p->map, q->map, 1024) == 0 && memcmp(&p->offset, &q->offset, 4) == 0;
}

/* Quantised as it is read, a tensor is what it is when the whole is quantised at once, though rows are no
 * multiple of blocks and runs of reading end within rows. */
/* odd, and more than 16 steps of reading */
enum { QUANT_O = 253, QUANT_I = 301, QUANT_N = QUANT_O * QUANT_I };
static void quantise_case(const f32 *x, Packing p) {
    List b = list_new(1), c = list_new(1);
    Quant *q = add_as(&b, "w", QUANT_O, QUANT_I, NF4, p), *w = add_as(&c, "w", QUANT_O, QUANT_I, NF4, p);
    size_t count = quant_blocks(QUANT_N, p.block), where;
    f32 *y = malloc(QUANT_N * sizeof *y), *absmax = malloc(count * sizeof *absmax);
    memcpy(y, x, QUANT_N * sizeof *y);
    halves_round(y, p.dtype, QUANT_N);
    quant_table(w->table, p.kind);
    quantize_4bit(c.tensor[0].matrix->data, absmax, y, QUANT_N, p.block, p.kind, &where);
    if (p.doubled) {
        quant_map(w->map);
        quantize_absmax(w->code, w->nested, &w->offset, w->map, absmax, count);
    } else memcpy(w->absmax, absmax, count * sizeof *absmax);
    CHECK(load_one(&b, in_base("quant")) == OK && same_4bit(b.tensor[0].matrix, c.tensor[0].matrix),
          "%s, blocks of %d, from type %d, doubled %d: %s", p.kind ? "fp4" : "nf4", p.block, p.dtype,
              p.doubled,
          err.what);
    if (p.doubled && p.block == 32) {           /* dtype counts: with another one the codes are others */
        q->dtype = p.dtype == F32 ? BF16 : F32;
        CHECK(load_one(&b, in_base("quant")) == OK
              && memcmp(b.tensor[0].matrix->data, c.tensor[0].matrix->data, QUANT_N / 2) != 0,
              "dtype %d counts", p.dtype);
    }
    free(y);
    free(absmax);
    list_free(&b);
    list_free(&c);
}

static void quantise_on_load(void) {
    static const int blocks[] = { 32, 64, 1024, 4096 };
    List a = list_new(1), b = list_new(1);
    f32 *x;
    add(&a, "w", QUANT_O, QUANT_I, 0);
    x = a.tensor[0].matrix->data;
    fill_finite(x, QUANT_N, 2);
    memset(x + 640, 0, 64 * sizeof *x);         /* a block of zeros */
    CHECK(checkpoint_save(in_base("quant"), "model", a.tensor, 1, F32, 0, &pool, fresh()) == OK, "saved: %s",
          err.what);
    for (int k = 0; k < 4; k++)
        for (int kind = QUANT_NF4; kind <= QUANT_FP4; kind++)
            for (int dtype = F32; dtype <= F16; dtype++)
                for (int doubled = 0; doubled < 2; doubled++)
                    quantise_case(x, (Packing){ kind, blocks[k], doubled, dtype });
    x[5000] = NAN;
    checkpoint_save(in_base("quant"), "model", a.tensor, 1, F32, 0, &pool, fresh());
    add_as(&b, "w", QUANT_O, QUANT_I, NF4, (Packing){ QUANT_NF4, 64, 1, F32 });
    CHECK(load_one(&b, in_base("quant")) == E_NUMBER
          && strstr(err.what, "tensor w: weight 5000 is NaN or infinite"), "NaN is named: %s", err.what);
    x[5000] = 70000;
    checkpoint_save(in_base("quant"), "model", a.tensor, 1, F32, 0, &pool, fresh());
    CHECK(load_one(&b, in_base("quant")) == OK, "70000 is a float");
    b.tensor[0].matrix->quant->dtype = F16;
    CHECK(load_one(&b, in_base("quant")) == E_NUMBER
          && strstr(err.what, "weight 5000 is NaN or infinite in float16"), "but no float16: %s", err.what);
    b.tensor[0].matrix->quant->block = 48;
    CHECK(load_one(&b, in_base("quant")) == E_UNSUPPORTED && strstr(err.what, "tensor w"),
          "blocks of 48 are refused: %s", err.what);
    list_free(&a);
    list_free(&b);
}

/* Out of PyTorch's strided views come the same codes as out of safetensors. */
static void quantise_views(void) {
    List b = list_new(1), c = list_new(1);
    const char *name = "model.layers.0.mlp.down_proj.weight";
    add_as(&b, name, 64, 172, NF4, (Packing){ QUANT_NF4, 64, 1, BF16 });
    add_as(&c, name, 64, 172, NF4, (Packing){ QUANT_NF4, 64, 1, BF16 });
    CHECK(load_one(&b, "tests/golden/models/llama-torch-views") == OK
          && load_one(&c, "tests/golden/models/llama-gqa") == OK
          && same_4bit(b.tensor[0].matrix, c.tensor[0].matrix), "quantised out of a view: %s", err.what);
    list_free(&b);
    list_free(&c);
}

/* Loads more weights than threads get at once, of every float type in the file, as every type: the same as
 * the whole tensor, rounded or quantised. Of two NaNs, in different steps, the first is named. */
static void many_steps(void) {
    enum { O = 2051, I = 2049, N = O * I };         /* odd, and 1026 steps of 4096 */
    List a = list_new(1);
    size_t where, wrong;
    f32 *x, *y = malloc(N * sizeof *y);
    add(&a, "w", O, I, 0);
    x = a.tensor[0].matrix->data;
    fill_finite(x, N, 3);
    for (int file = F32; file <= F16; file++) {
        CHECK(checkpoint_save(in_base("steps"), "model", a.tensor, 1, file, 0, &pool, fresh()) == OK,
              "saved: %s", err.what);
        for (int type = F32; type <= NF4; type++) {
            List b = list_new(1), c = list_new(1);
            Matrix *got;
            Quant *want;
            add_as(&b, "w", O, I, type, (Packing){ QUANT_NF4, 64, 0, F32 });
            want = add_as(&c, "w", O, I, NF4, (Packing){ QUANT_NF4, 64, 0, F32 });
            got = b.tensor[0].matrix;
            for (size_t i = 0; i < N; i++)
                y[i] = file == F32 ? x[i] : file == BF16 ? bf16_to_f32(f32_to_bf16(x[i]))
                    : f16_to_f32(f32_to_f16(x[i]));
            CHECK(load_one(&b, in_base("steps")) == OK, "loaded: %s", err.what);
            wrong = 0;
            for (size_t i = 0; i < N && type != NF4; i++)
                wrong += as_double(got, i) != (double)(type == F32 ? y[i] : type == BF16
                        ? bf16_to_f32(f32_to_bf16(y[i])) : f16_to_f32(f32_to_f16(y[i])));
            if (type == NF4) {
                quantize_4bit(c.tensor[0].matrix->data, want->absmax, y, N, 64, QUANT_NF4, &where);
                quant_table(want->table, QUANT_NF4);
                wrong = !same_4bit(got, c.tensor[0].matrix);
            }
            CHECK(!wrong, "many steps, from type %d into type %d: %d wrong", file, type, (int)wrong);
            list_free(&b);
            list_free(&c);
        }
    }
    x[4000000] = x[N - 1] = NAN;
    checkpoint_save(in_base("steps"), "model", a.tensor, 1, F32, 0, &pool, fresh());
    {
        List b = list_new(1);
        add_as(&b, "w", O, I, NF4, (Packing){ QUANT_FP4, 32, 0, F32 });
        CHECK(load_one(&b, in_base("steps")) == E_NUMBER
              && strstr(err.what, "tensor w: weight 4000000 is NaN or infinite"), "the first is named: %s",
              err.what);
        list_free(&b);
    }
    free(y);
    list_free(&a);
}

/* ---- bitsandbytes' files, written here by hand ---- */
typedef struct { char header[8192]; unsigned char *data; size_t n; int count; } File4;

static void put_tensor(File4 *f, const char *name, const char *dtype, const char *shape, const void *bytes,
                       size_t n) {
    sprintf(f->header + strlen(f->header), "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%d,"
            "%d]}", f->count++ ? "," : "{", name, dtype, shape, (int)f->n, (int)(f->n + n));
    f->data = realloc(f->data, f->n + n);
    memcpy(f->data + f->n, bytes, n);
    f->n += n;
}
static void put_file4(File4 *f, const char *path) {
    size_t n = strlen(f->header) + 1;
    unsigned char *all = calloc(1, 8 + n + f->n);
    strcat(f->header, "}");
    for (int i = 0; i < 8; i++) all[i] = (unsigned char)((uint64_t)n >> (8 * i));
    memcpy(all + 8, f->header, n);
    memcpy(all + 8 + n, f->data, f->n);
    spit(path, all, 8 + n + f->n);
    free(all);
    free(f->data);
}

/* Checks the golden cases: quantised on load they give the golden's codes and absmax; as a file of
 * bitsandbytes they load bit for bit, and into floats they give the golden's dequantised numbers. */
static void golden_4bit(void) {
    static const struct { const char *name; int O, I; } cases[] = { { "normal", 96, 128 }, { "outliers", 64,
        64 }, { "ragged", 7, 37 }, { "tiny", 1, 5 }, { "zeros", 2, 64 } };
    size_t n;
    const char *golden = slurp("tests/golden/models/nf4/golden.safetensors", &n);
    f32 table[16];
    quant_table(table, QUANT_NF4);
    folder_make(in_base("golden4"), fresh());
    spit(in_base("golden4/model.safetensors"), golden, n);
    folder_make(in_base("bnb"), fresh());
    for (int i = 0; i < 5; i++) {
        int O = cases[i].O, I = cases[i].I, count = O * I, blocks = (int)quant_blocks((size_t)count, 64);
        List l = list_new(1), b = list_new(1), f = list_new(1);
        Naive packed, absmax, floats;
        char name[96], shape[64], state[256];
        File4 file;
        Quant *q, *p;
        Storage s;
        sprintf(name, "%s.weight", cases[i].name);
        q = add_as(&l, name, O, I, NF4, (Packing){ QUANT_NF4, 64, 0, F32 });
        sprintf(name, "%s.packed", cases[i].name);
        naive_find(&packed, golden, name);
        sprintf(name, "%s.absmax", cases[i].name);
        naive_find(&absmax, golden, name);
        sprintf(name, "%s.dequantized", cases[i].name);
        naive_find(&floats, golden, name);
        CHECK(load_one(&l, in_base("golden4")) == OK && memcmp(l.tensor[0].matrix->data, packed.data,
                packed.length) == 0 && memcmp(q->absmax, absmax.data, absmax.length) == 0,
                "golden %s quantised on load: %s", cases[i].name, err.what);
        memset(&file, 0, sizeof file);
        sprintf(shape, "[%d,1]", (count + 1) / 2);
        put_tensor(&file, "x.weight", "U8", shape, packed.data, packed.length);
        sprintf(shape, "[%d]", blocks);
        put_tensor(&file, "x.weight.absmax", "F32", shape, absmax.data, absmax.length);
        put_tensor(&file, "x.weight.quant_map", "F32", "[16]", table, 64);
        sprintf(state, "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float32\", \"shape\": [%d, "
                "%d]}", O, I);
        sprintf(shape, "[%d]", (int)strlen(state));
        put_tensor(&file, "x.weight.quant_state.bitsandbytes__nf4", "U8", shape, state, strlen(state));
        put_file4(&file, in_base("bnb/model.safetensors"));
        p = add_as(&b, "x.weight", O, I, NF4, (Packing){ QUANT_NF4, 64, 0, F32 });
        add(&f, "x.weight", O, I, 0);
        CHECK(load_one(&b, in_base("bnb")) == OK && memcmp(b.tensor[0].matrix->data, packed.data,
                packed.length) == 0 && memcmp(p->absmax, absmax.data, absmax.length) == 0,
                "golden %s out of a file of bitsandbytes: %s", cases[i].name, err.what);
        CHECK(load_one(&f, in_base("bnb")) == OK && memcmp(f.tensor[0].matrix->data, floats.data,
                floats.length) == 0, "golden %s dequantised: %s", cases[i].name, err.what);
        CHECK(checkpoint_storage(&s, in_base("bnb"), "model", "x.weight", &pool, fresh()) == OK
              && s.type == NF4 && s.kind == QUANT_NF4 && s.block == 64 && !s.doubled && s.dtype == F32
              && s.shape[0] == (uint64_t)O && s.shape[1] == (uint64_t)I
              && s.bytes == (uint64_t)((count + 1) / 2 + 4 * blocks + 64), "storage of golden %s: %s",
              cases[i].name, err.what);
        list_free(&l);
        list_free(&b);
        list_free(&f);
    }
}

/* Writes 4-bit tensors as bitsandbytes does, in shards too: they are read back bit for bit, and as floats
 * they are what dequantize_4bit gives. */
static void round_trip_4bit(void) {
    enum { O = 53, I = 301, N = O * I };
    List a = list_new(1);
    add(&a, "model.w.weight", O, I, 0);
    fill_finite(a.tensor[0].matrix->data, N, 3);
    checkpoint_save(in_base("rt"), "model", a.tensor, 1, F32, 0, &pool, fresh());
    for (int kind = QUANT_NF4; kind <= QUANT_FP4; kind++)
        for (int doubled = 0; doubled < 2; doubled++)
            for (int dtype = F32; dtype <= F16; dtype++) {
                List b = list_new(3), c = list_new(3), d = list_new(1);
                const char *folder = in_base(dtype == BF16 ? "rt4s" : "rt4");
                f32 *x = malloc(N * sizeof *x), *y;
                int wrong = 0;
                Storage s;
                add_as(&b, "model.w.weight", O, I, NF4, (Packing){ kind, 32, doubled, dtype });
                load_one(&b, in_base("rt"));
                add(&b, "model.norm.weight", 1, 19, TENSOR_VECTOR);
                add_as(&c, "model.w.weight", O, I, NF4, (Packing){ kind, 32, doubled, (dtype + 1) % 3 });
                add(&c, "model.norm.weight", 1, 19, TENSOR_VECTOR);
                CHECK(checkpoint_save(folder, "model", b.tensor, 2, BF16, dtype == BF16 ? 100 : 0, &pool,
                                      fresh()) == OK, "saved in 4 bits: %s", err.what);
                memset(c.tensor[0].matrix->data, 0, N / 2);
                CHECK(checkpoint_load(folder, "model", c.tensor, 2, &pool, fresh()) == OK
                      && same_4bit(b.tensor[0].matrix, c.tensor[0].matrix),
                      "%s, doubled %d, dtype %d comes back: %s", kind ? "fp4" : "nf4", doubled, dtype,
                      err.what);
                add(&d, "model.w.weight", O, I, 0);
                CHECK(checkpoint_load_part(folder, "model", d.tensor, 1, &pool, fresh()) == OK,
                      "and as floats: %s", err.what);
                dequantize_4bit(x, b.tensor[0].matrix->data, b.tensor[0].matrix->quant, 0, N);
                y = d.tensor[0].matrix->data;
                for (int i = 0; i < N; i++)
                    wrong += y[i] != (dtype == F32 ? x[i] : dtype == BF16 ? bf16_to_f32(f32_to_bf16(x[i]))
                                      : f16_to_f32(f32_to_f16(x[i])));
                CHECK(wrong == 0, "its floats are dequantize_4bit's, rounded to the dtype (%d wrong)", wrong);
                CHECK(checkpoint_storage(&s, folder, "model", "model.w.weight", &pool, fresh()) == OK
                      && s.type == NF4 && s.kind == kind && s.block == 32 && s.doubled == doubled
                      && s.dtype == dtype && s.shape[1] == I, "its storage: %s", err.what);
                free(x);
                list_free(&b);
                list_free(&c);
                list_free(&d);
            }
    CHECK(file_exists(in_base("rt4s/model-00002-of-00002.safetensors")), "shards of 4 bits");
    list_free(&a);
}

/* A tensor (2,64) in two blocks: a valid file with one thing changed. */
typedef struct { const char *what; const char *state, *suffix, *absmax_shape; int nibbles, absmax, table;
    f32 first; int code; const char *says; } Broken;
#define GOOD "{\"quant_type\":\"nf4\",\"blocksize\":64,\"dtype\":\"bfloat16\",\"shape\":[2,64]}"
#define STATE(type, block, dtype, shape) \
    "{\"quant_type\":\"" type "\",\"blocksize\":" block ",\"dtype\":\"" dtype "\",\"shape\":" shape "}"
static const Broken broken[] = {
    { "nothing", GOOD, "nf4", "[2]", 64, 8, 64, 1, OK, "" },
    { "quant_type", STATE("fp4", "64", "bfloat16", "[2,64]"), "nf4", "[2]", 64, 8, 64, 1, E_FORMAT,
    "quant_type 'fp4' of tensor x.weight" },
    { "kind", STATE("fp4", "64", "bfloat16", "[2,64]"), "fp4", "[2]", 64, 8, 64, 1, E_UNSUPPORTED,
    "tensor x.weight is fp4 in blocks of 64, wanted nf4 in blocks of 64" },
    { "blocksize", STATE("nf4", "128", "bfloat16", "[2,64]"), "nf4", "[1]", 64, 4, 64, 1, E_UNSUPPORTED,
    "tensor x.weight is nf4 in blocks of 128, wanted nf4 in blocks of 64" },
    { "odd blocksize", STATE("nf4", "63", "bfloat16", "[2,64]"), "nf4", "[2]", 64, 8, 64, 1, E_UNSUPPORTED,
    "blocksize 63 of tensor x.weight" },
    { "huge blocksize", STATE("nf4", "8192", "bfloat16", "[2,64]"), "nf4", "[1]", 64, 4, 64, 1, E_UNSUPPORTED,
    "blocksize 8192" },
    { "dtype", STATE("nf4", "64", "float64", "[2,64]"), "nf4", "[2]", 64, 8, 64, 1, E_UNSUPPORTED,
    "'float64'" },
    { "shape", STATE("nf4", "64", "bfloat16", "[64,2]"), "nf4", "[2]", 64, 8, 64, 1, E_SHAPE,
    "tensor x.weight is [64,2], wanted [2,64]" },
    { "no shape", STATE("nf4", "64", "bfloat16", "[128]"), "nf4", "[2]", 64, 8, 64, 1, E_FORMAT,
    "its shape" },
    { "huge shape", STATE("nf4", "64", "bfloat16", "[4294967296,4294967296]"), "nf4", "[2]", 64, 8, 64, 1,
    E_FORMAT, "its shape" },
    { "nested blocksize", "{\"quant_type\":\"nf4\",\"blocksize\":64,\"dtype\":\"bfloat16\",\"shape\":[2,64],"
    "\"nested_blocksize\":128,\"nested_offset\":1}", "nf4", "[2]", 64, 8, 64, 1, E_UNSUPPORTED,
        "nested_blocksize 128" },
    { "nested without the rest", "{\"quant_type\":\"nf4\",\"blocksize\":64,\"dtype\":\"bfloat16\","
    "\"shape\":[2,64],\"nested_blocksize\":256,\"nested_offset\":1}", "nf4", "[2]", 64, 8, 64, 1, E_MISSING,
        "nested_absmax is missing" },
    { "no offset", "{\"quant_type\":\"nf4\",\"blocksize\":64,\"dtype\":\"bfloat16\",\"shape\":[2,64],"
    "\"nested_blocksize\":256}", "nf4", "[2]", 64, 8, 64, 1, E_FORMAT, "nested_offset" },
    { "no JSON", "{\"quant_type\":", "nf4", "[2]", 64, 8, 64, 1, E_FORMAT, "quant_state of tensor x.weight" },
    { "fewer nibbles", GOOD, "nf4", "[2]", 63, 8, 64, 1, E_FORMAT, "its bytes do not fit" },
    { "fewer absmax", GOOD, "nf4", "[1]", 64, 4, 64, 1, E_FORMAT, "tensor x.weight.absmax: not 2 numbers" },
    { "no absmax", GOOD, "nf4", NULL, 64, 0, 64, 1, E_MISSING, "tensor x.weight.absmax is missing" },
    { "no table", GOOD, "nf4", "[2]", 64, 8, 0, 1, E_MISSING, "tensor x.weight.quant_map is missing" },
    { "NaN", GOOD, "nf4", "[2]", 64, 8, 64, NAN, E_NUMBER, "tensor x.weight.absmax: number 0 is NaN or "
    "infinite" },
    { "no state", NULL, "nf4", "[2]", 64, 8, 64, 1, E_UNSUPPORTED, "dtype U8 of tensor x.weight" },
};

static void refused_4bit(void) {
    List l = list_new(1), f = list_new(1);
    f32 table[16], absmax[2] = { 1, 2 };
    unsigned char nibbles[64];
    memset(nibbles, 0x2b, sizeof nibbles);
    quant_table(table, QUANT_NF4);
    add_as(&l, "x.weight", 2, 64, NF4, (Packing){ QUANT_NF4, 64, 0, F32 });
    add(&f, "x.weight", 2, 64, 0);
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        const Broken *b = &broken[i];
        char shape[32], name[64];
        File4 file;
        int code;
        memset(&file, 0, sizeof file);
        absmax[0] = b->first;
        sprintf(shape, "[%d,1]", b->nibbles);
        put_tensor(&file, "x.weight", "U8", shape, nibbles, (size_t)b->nibbles);
        if (b->absmax_shape)
            put_tensor(&file, "x.weight.absmax", "F32", b->absmax_shape, absmax, (size_t)b->absmax);
        if (b->table) put_tensor(&file, "x.weight.quant_map", "F32", "[16]", table, 64);
        if (b->state) {
            sprintf(shape, "[%d]", (int)strlen(b->state));
            sprintf(name, "x.weight.quant_state.bitsandbytes__%s", b->suffix);
            put_tensor(&file, name, "U8", shape, b->state, strlen(b->state));
        }
        put_file4(&file, in_base("bnb/model.safetensors"));
        code = load_one(&l, in_base("bnb"));
        CHECK(code == b->code && code == err.code && strstr(err.what, b->says), "%s: code %d, '%s'", b->what,
              code, err.what);
        /* into floats any kind may be read, but the file has to be valid too */
        if (b->code != E_UNSUPPORTED || !strstr(b->says, "wanted")) {
            code = load_one(&f, in_base("bnb"));
            CHECK(code == b->code && strstr(err.what, b->says), "%s, into floats: code %d, '%s'", b->what,
                  code, err.what);
        }
    }
    list_free(&l);
    list_free(&f);
    l = list_new(1);
    add_as(&l, "x.weight", 2, 64, NF4, (Packing){ QUANT_NF4, 64, 1, F32 });
    {
        File4 file;
        memset(&file, 0, sizeof file);
        put_tensor(&file, "x.weight", "U8", "[64,1]", nibbles, 64);
        absmax[0] = 1;
        put_tensor(&file, "x.weight.absmax", "F32", "[2]", absmax, 8);
        put_tensor(&file, "x.weight.quant_map", "F32", "[16]", table, 64);
        put_tensor(&file, "x.weight.quant_state.bitsandbytes__nf4", "U8", "[69]", GOOD, 69);
        put_file4(&file, in_base("bnb/model.safetensors"));
    }
    CHECK(strlen(GOOD) == 69 && load_one(&l, in_base("bnb")) == E_UNSUPPORTED
          && strstr(err.what, "wanted nf4 in blocks of 64, doubly quantised"), "doubling: %s", err.what);
    list_free(&l);
}

/* Checks that nothing is read before all tensors are found and checked. */
static void refused_weights(void) {
    List l = list_new(2);
    uint32_t first;
    add(&l, "a", 2, 3, 0);
    add(&l, "n", 1, 4, TENSOR_VECTOR);
    write_safetensors(in_base("hand/model.safetensors"), "{" T("a", "F32", "[2,3]", 0, 24) ","
                      T("n", "F32", "[3]", 24, 36) "}", 36);
    CHECK(load_one(&l, in_base("hand")) == E_SHAPE, "a wrong shape");
    memcpy(&first, l.tensor[0].matrix->data, 4);
    CHECK(first == 0x5a5a5a5au, "is seen before the tensors before it are read");
    spit(in_base("hand/pytorch_model.bin"), "PK", 2);
    CHECK(load_one(&l, in_base("hand")) == E_SHAPE && strstr(err.where, "model.safetensors"),
          "safetensors go before PyTorch's file");
    remove(in_base("hand/model.safetensors"));
    CHECK(load_one(&l, in_base("hand")) != OK && strstr(err.where, "pytorch_model.bin"),
          "a broken PyTorch file is named: %s", err.where);
    remove(in_base("hand/pytorch_model.bin"));
    list_free(&l);
}

/* Reads shards that split a weight: its scales may be in another file than its codes. PyTorch's shards,
 * too. */
static void companions_elsewhere(void) {
    static const char index[] = "{\"weight_map\":{\"x.weight\":\"b.safetensors\","
        "\"x.weight.absmax\":\"a.safetensors\",\"x.weight.quant_map\":\"c.safetensors\","
        "\"x.weight.quant_state.bitsandbytes__nf4\":\"a.safetensors\",\"y\":\"c.safetensors\"}}";
    static const char torch_index_json[] = "{\"metadata\":{},"
        "\"weight_map\":{\"model.norm.weight\":\"one.bin\",\"lm_head.weight\":\"two.bin\"}}";
    List l = list_new(3);
    f32 table[16], absmax[2] = { 1, 2 }, y[3] = { 1, 2, 3 };
    unsigned char nibbles[64];
    File4 a, b, c;
    size_t n;
    char *bytes;
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    memset(&c, 0, sizeof c);
    memset(nibbles, 0x9f, sizeof nibbles);
    quant_table(table, QUANT_NF4);
    put_tensor(&b, "x.weight", "U8", "[64,1]", nibbles, 64);
    put_tensor(&a, "x.weight.absmax", "F32", "[2]", absmax, 8);
    put_tensor(&a, "x.weight.quant_state.bitsandbytes__nf4", "U8", "[69]", GOOD, 69);
    put_tensor(&c, "x.weight.quant_map", "F32", "[16]", table, 64);
    put_tensor(&c, "y", "F32", "[3]", y, 12);
    folder_make(in_base("parts"), fresh());
    put_file4(&a, in_base("parts/a.safetensors"));
    put_file4(&b, in_base("parts/b.safetensors"));
    put_file4(&c, in_base("parts/c.safetensors"));
    spit(in_base("parts/model.safetensors.index.json"), index, sizeof index - 1);
    add(&l, "y", 1, 3, TENSOR_VECTOR);
    add_as(&l, "x.weight", 2, 64, NF4, (Packing){ QUANT_NF4, 64, 0, F32 });
    CHECK(load_one(&l, in_base("parts")) == OK && l.tensor[1].matrix->quant->absmax[1] == 2
          && ((f32 *)l.tensor[0].matrix->data)[2] == 3 && l.tensor[1].matrix->quant->table[0] == -1
          && l.tensor[1].matrix->quant->dtype == BF16, "a 4-bit tensor over three shards: %s", err.what);
    l.tensor[1].matrix->type = F32;
    l.tensor[1].matrix->data = realloc(l.tensor[1].matrix->data, 2 * 64 * 4);
    CHECK(load_one(&l, in_base("parts")) == OK && ((f32 *)l.tensor[1].matrix->data)[64 + 1] == 2
          && ((f32 *)l.tensor[1].matrix->data)[0] == bf16_to_f32(f32_to_bf16(table[9])),
          "and into floats: %s", err.what);
    list_free(&l);
    bytes = slurp("tests/golden/models/llama-torch-zip/pytorch_model.bin", &n);
    folder_make(in_base("torch-parts"), fresh());
    spit(in_base("torch-parts/one.bin"), bytes, n);
    bytes = slurp("tests/golden/models/llama-torch-legacy/pytorch_model.bin", &n);
    spit(in_base("torch-parts/two.bin"), bytes, n);
    spit(in_base("torch-parts/pytorch_model.bin.index.json"), torch_index_json, sizeof torch_index_json - 1);
    {
        List p = list_new(2), q = list_new(2);
        add(&p, "model.norm.weight", 1, 64, TENSOR_VECTOR);
        add(&p, "lm_head.weight", 97, 64, 0);
        add(&q, "model.norm.weight", 1, 64, TENSOR_VECTOR);
        add(&q, "lm_head.weight", 97, 64, 0);
        CHECK(load_one(&p, in_base("torch-parts")) == OK
              && load_one(&q, "tests/golden/models/llama-gqa") == OK && bit_differences(&p, &q) == 0,
              "shards of PyTorch: %s", err.what);
        list_free(&p);
        list_free(&q);
    }
}

/* Loads a Llama under Meta's names, with rows of wq and wk in Meta's order, by the formula of transformers'
 * converter: view (heads, D/2, 2, I), then swap the two in the middle. */
static void meta_names(void) {
    static const char *const theirs[] = { "attention_norm", "attention.wq", "attention.wk", "attention.wv",
        "attention.wo", "ffn_norm",
        "feed_forward.w1", "feed_forward.w3", "feed_forward.w2" };
    ModelConfig c;
    List a, b, q;
    char *bytes;
    size_t n;
    config_load(&c, "tests/golden/models/llama-gqa", &pool, fresh());
    a = llama_list(&c);
    b = llama_list(&c);
    load_one(&a, "tests/golden/models/llama-gqa");
    for (int t = 0; t < a.count; t++) {
        const Matrix *x = a.tensor[t].matrix, *y = b.tensor[t].matrix;
        int part = (t - 1) % 9, layer = (t - 1) / 9, turned = t > 0 && layer < c.stack.L
            && (part == 1 || part == 2);
        memcpy(y->data, x->data, (size_t)x->O * (size_t)x->I * 4);
        for (int head = 0; turned && head < x->O / c.stack.D; head++)
            for (int half = 0; half < 2; half++)
                for (int j = 0; j < c.stack.D / 2; j++)
                    memcpy((f32 *)y->data + (head * c.stack.D + 2 * j + half) * x->I,
                           (f32 *)x->data + (head * c.stack.D + half * (c.stack.D / 2) + j) * x->I,
                           (size_t)x->I * 4);
        if (t == 0) strcpy(b.tensor[t].name, "tok_embeddings.weight");
        else if (t == a.count - 2) strcpy(b.tensor[t].name, "norm.weight");
        else if (t == a.count - 1) strcpy(b.tensor[t].name, "output.weight");
        else sprintf(b.tensor[t].name, "layers.%d.%s.weight", layer, theirs[part]);
    }
    checkpoint_save(in_base("meta"), "model", b.tensor, b.count, F32, 0, &pool, fresh());
    list_free(&b);
    b = llama_list(&c);
    CHECK(load_one(&b, in_base("meta")) == E_MISSING && strstr(err.where, "config.json"),
          "Meta's names need the config's width of a head");
    bytes = slurp("tests/golden/models/llama-gqa/config.json", &n);
    spit(in_base("meta/config.json"), bytes, n);
    CHECK(load_one(&b, in_base("meta")) == OK && bit_differences(&a, &b) == 0,
          "Meta's names and order of rows: %s", err.what);
    q = list_new(2);
    add_as(&q, "model.layers.1.self_attn.k_proj.weight", 32, 64, NF4, (Packing){ QUANT_NF4, 4096, 0, F32 });
    add_as(&q, "model.layers.1.self_attn.k_proj.weight", 32, 64, NF4, (Packing){ QUANT_NF4, 4096, 0, F32 });
    {
        Tensor one = q.tensor[1];
        CHECK(load_one(&(List){ &one, 1 }, in_base("meta")) == OK && load_one(&(List){ q.tensor, 1 },
                "tests/golden/models/llama-gqa") == OK && same_4bit(q.tensor[0].matrix, q.tensor[1].matrix),
                "quantised in the right order: %s", err.what);
    }
    list_free(&a);
    list_free(&b);
    list_free(&q);
}

/* Reads a file that Meta's own tools wrote, if it is there. */
static void meta_file(void) {
    const char *config = "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\","
                         "\"hidden_size\":64,\"num_attention_heads\":4}";
    char *bytes, path[300];
    size_t n;
    List l = list_new(1);
    Storage s;
    TorchFile t;
    File *f;
    int found = -1, wrong = 0, O, I;
    sprintf(path, "%.200s/data/torch/tiny_llama_meta_names.pt", shared());
    if (!file_exists(path)) { SKIP("no %s", path); return; }
    bytes = slurp(path, &n);
    folder_make(in_base("fair"), fresh());
    spit(in_base("fair/pytorch_model.bin"), bytes, n);
    spit(in_base("fair/config.json"), config, strlen(config));
    f = file_open(in_base("fair/pytorch_model.bin"), &pool, fresh());
    CHECK(checkpoint_storage(&s, in_base("fair"), "model", "model.layers.1.self_attn.q_proj.weight",
                             &pool, fresh()) == OK && s.rank == 2, "Meta's file: %s", err.what);
    O = (int)s.shape[0];
    I = (int)s.shape[1];
    add(&l, "model.layers.1.self_attn.q_proj.weight", O, I, 0);
    CHECK(f && torch_index(&t, f, &pool, fresh()) == OK && load_one(&l, in_base("fair")) == OK,
          "its weights: %s", err.what);
    for (int i = 0; i < t.tensors; i++)
        if (strcmp(t.tensor[i].name, "layers.1.attention.wq.weight") == 0) found = i;
    for (int row = 0; found >= 0 && row < O; row++) {
        f32 *x = malloc((size_t)I * sizeof *x);
        int head = row / 16, half = row % 16 / 8, j = row % 8;
        torch_read(x, &t.tensor[found], f, (uint64_t)(head * 16 + 2 * j + half) * (uint64_t)I, (size_t)I,
                   fresh());
        wrong += memcmp(x, (f32 *)l.tensor[0].matrix->data + row * I, (size_t)I * 4) != 0;
        free(x);
    }
    CHECK(found >= 0 && wrong == 0, "its rows in our order (%d wrong)", wrong);
    file_close(f);
    list_free(&l);
}

/* ---- configurations ---- */
#define LLAMA \
    "\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"vocab_size\":100," \
    "\"hidden_size\":64,\"num_attention_heads\":4,\"num_hidden_layers\":2,\"intermediate_size\":99"
#define QWEN2 "\"architectures\":[\"Qwen2ForCausalLM\"],\"model_type\":\"qwen2\""
#define GPT2 "\"architectures\":[\"GPT2LMHeadModel\"],\"model_type\":\"gpt2\""
#define T5 "\"architectures\":[\"T5ForConditionalGeneration\"],\"model_type\":\"t5\""
#define NEO "\"architectures\":[\"GPTNeoForCausalLM\"],\"model_type\":\"gpt_neo\""
static const struct { const char *json; int code; const char *says; } llamas[] = {
    { "{" LLAMA "}", OK, "" },
    { "{\"architectures\":[\"BloomForCausalLM\"]}", E_UNSUPPORTED, "architecture 'BloomForCausalLM'" },
    { "{\"architectures\":[\"LlamaForSequenceClassification\"],\"model_type\":\"llama\"}", E_UNSUPPORTED,
    "LlamaForSequenceClassification" },
    { "{\"model_type\":\"gptj\"}", E_UNSUPPORTED, "model_type 'gptj'" },
    { "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"phi\"}", E_UNSUPPORTED,
    "model_type 'phi'" },
    { "{\"hidden_size\":64}", E_MISSING, "model_type" },
    { "{" LLAMA ",\"hidden_act\":\"mish\"}", E_UNSUPPORTED, "hidden_act 'mish'" },
    { "{" LLAMA ",\"hidden_act\":\"gelu\"}", OK, "" },
    { "{" LLAMA ",\"attention_bias\":true}", OK, "" },
    { "{" LLAMA ",\"mlp_bias\":1}", E_FORMAT, "mlp_bias" },
    { "{" LLAMA ",\"attention_bias\":false,\"mlp_bias\":false,\"quantization_config\":null}", OK, "" },
    { "{" LLAMA ",\"quantization_config\":{\"load_in_4bit\":true}}", OK, "" },
    { "{" LLAMA ",\"quantization_config\":{\"load_in_8bit\":true}}", E_UNSUPPORTED, "load_in_8bit" },
    { "{" LLAMA ",\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4}}", E_UNSUPPORTED,
    "quant_method 'gptq'" },
    { "{" LLAMA ",\"quantization_config\":{\"quant_method\":\"bitsandbytes\"}}", E_UNSUPPORTED,
    "quantization_config without 'load_in_4bit'" },
    { "{" LLAMA ",\"quantization_config\":{\"load_in_4bit\":true,\"bnb_4bit_quant_type\":\"int4\"}}",
    E_UNSUPPORTED, "bnb_4bit_quant_type 'int4'" },
    { "{" LLAMA ",\"quantization_config\":{\"load_in_4bit\":true,\"bnb_4bit_compute_dtype\":\"float64\"}}",
    E_UNSUPPORTED, "bnb_4bit_compute_dtype 'float64'" },
    { "{" LLAMA ",\"quantization_config\":4}", E_FORMAT, "quantization_config" },
    { "{" LLAMA ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4.0}}", OK, "" },
    { "{" LLAMA ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4.0,\"beta_fast\":0.5}}", E_RANGE,
    "beta_slow" },
    { "{" LLAMA ",\"rope_scaling\":{\"rope_type\":\"dynamic\"}}", E_MISSING, "factor" },
    { "{" LLAMA ",\"rope_scaling\":{\"rope_type\":\"longrope\",\"factor\":4.0}}", E_UNSUPPORTED,
    "rope_scaling type 'longrope'" },
    { "{" LLAMA ",\"rope_scaling\":{\"factor\":4.0}}", E_MISSING, "rope_type" },
    { "{" LLAMA ",\"rope_scaling\":{\"type\":\"linear\"}}", E_MISSING, "factor" },
    { "{" LLAMA ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":0}}", E_RANGE, "factor" },
    { "{" LLAMA ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
    "\"high_freq_factor\":4.0}}", E_MISSING, "original_max_position_embeddings" },
    { "{" LLAMA ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":4.0,"
    "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":64}}", E_RANGE, "high_freq_factor" },
    { "{" LLAMA ",\"rope_scaling\":\"linear\"}", E_FORMAT, "rope_scaling" },
    { "{" LLAMA ",\"rope_scaling\":{\"type\":\"default\"}}", OK, "" },
    { "{" LLAMA ",\"rope_theta\":-1}", E_RANGE, "rope_theta" },
    { "{" LLAMA ",\"num_key_value_heads\":3}", E_RANGE, "num_key_value_heads" },
    { "{" LLAMA ",\"num_key_value_heads\":0}", E_RANGE, "num_key_value_heads" },
    { "{" LLAMA ",\"hidden_size\":66}", E_RANGE, "hidden_size" },
    { "{" LLAMA ",\"hidden_size\":66,\"head_dim\":16}", OK, "" },
    { "{" LLAMA ",\"head_dim\":15}", E_RANGE, "head_dim" },
    { "{" LLAMA ",\"hidden_size\":20}", E_RANGE, "head_dim" },
    { "{" LLAMA ",\"hidden_size\":2,\"num_attention_heads\":4}", E_RANGE, "" },
    { "{" LLAMA ",\"head_dim\":65536,\"num_attention_heads\":65536}", E_RANGE, "" },
    { "{" LLAMA ",\"hidden_size\":-64}", E_RANGE, "hidden_size" },
    { "{" LLAMA ",\"hidden_size\":64.5}", E_FORMAT, "hidden_size" },
    { "{" LLAMA ",\"hidden_size\":\"64\"}", E_FORMAT, "hidden_size" },
    { "{" LLAMA ",\"hidden_size\":1e99}", E_RANGE, "hidden_size" },
    { "{" LLAMA ",\"num_hidden_layers\":0}", E_RANGE, "num_hidden_layers" },
    { "{" LLAMA ",\"rms_norm_eps\":0}", E_RANGE, "rms_norm_eps" },
    { "{" LLAMA ",\"tie_word_embeddings\":1}", E_FORMAT, "tie_word_embeddings" },
    { "{" LLAMA ",\"eos_token_id\":\"2\"}", E_FORMAT, "eos_token_id" },
    { "{" LLAMA ",\"eos_token_id\":[1,2,3,4,5,6,7,8,9]}", E_RANGE, "eos_token_id" },
    { "{" LLAMA ",\"partial_rotary_factor\":0.5}", E_UNSUPPORTED, "partial_rotary_factor" },
    { "{\"architectures\":[\"MistralForCausalLM\"],\"model_type\":\"mistral\",\"sliding_window\":4096}",
    OK, "" },
    { "{\"architectures\":[\"MistralForCausalLM\"],\"model_type\":\"mistral\",\"sliding_window\":0}",
    E_RANGE, "sliding_window" },
    { "{" QWEN2 ",\"layer_types\":[\"full_attention\"]}", E_FORMAT, "layer_types" },
    { "{" QWEN2 ",\"num_hidden_layers\":1,\"layer_types\":[\"full\"]}", E_UNSUPPORTED, "full" },
    { "{" GPT2 "}", OK, "" },
    { "{" GPT2 ",\"activation_function\":\"selu\"}", E_UNSUPPORTED, "selu" },
    { "{" GPT2 ",\"scale_attn_weights\":false}", E_UNSUPPORTED, "scale_attn_weights" },
    { "{" GPT2 ",\"scale_attn_by_inverse_layer_idx\":true}", E_UNSUPPORTED, "inverse_layer_idx" },
    { "{" NEO ",\"num_layers\":3}", OK, "" },
    { "{" NEO ",\"num_layers\":3,\"attention_types\":[[[\"global\"],2]]}", E_FORMAT, "attention_types" },
    { "{" NEO ",\"num_layers\":3,\"attention_types\":[[[\"global\"],4]]}", E_FORMAT, "attention_types" },
    { "{" NEO ",\"num_layers\":3,\"attention_types\":[[[],1e15]]}", E_FORMAT, "attention_types" },
    { "{" NEO ",\"num_layers\":3,\"attention_types\":[[[\"wide\"],3]]}", E_FORMAT, "attention_types" },
    { "{\"architectures\":[\"MistralForCausalLM\"],\"model_type\":\"mistral\",\"sliding_window\":null}",
    OK, "" },
    { "{" T5 "}", OK, "" },
    { "{" T5 ",\"relative_attention_num_buckets\":3}", E_RANGE, "num_buckets" },
    { "{" T5 ",\"relative_attention_max_distance\":16}", E_RANGE, "max_distance" },
    { "{" T5 ",\"relative_attention_max_distance\":17}", OK, "" },
    { "{", -1, "" }, { "[]", E_FORMAT, "object" }, { "", -1, "" },
};

static int same_config(const ModelConfig *a, const ModelConfig *b) {
    int same = a->V == b->V && a->stack.C == b->stack.C && a->stack.L == b->stack.L
        && a->stack.H == b->stack.H && a->stack.K == b->stack.K && a->stack.D == b->stack.D
        && a->stack.F == b->stack.F
        && a->positions == b->positions && a->tied == b->tied && a->stack.eps == b->stack.eps
            && a->stack.rope.theta == b->stack.rope.theta
        && a->stack.rope.type == b->stack.rope.type && a->stack.rope.factor == b->stack.rope.factor
            && a->stack.rope.low == b->stack.rope.low && a->stack.rope.high == b->stack.rope.high
        && a->stack.rope.original == b->stack.rope.original && a->bos == b->bos && a->pad == b->pad
            && a->eos_count == b->eos_count;
    for (int i = 0; i < a->eos_count && same; i++) same = a->eos[i] == b->eos[i];
    return same;
}

static void write_config(const char *file, const char *json) {
    folder_make(in_base("config"), fresh());
    spit(in_base(file), json, strlen(json));
}

static void llama_configs(void) {
    ModelConfig c, d;
    for (size_t i = 0; i < sizeof llamas / sizeof *llamas; i++) {
        int code;
        write_config("config/config.json", llamas[i].json);
        code = config_load(&c, in_base("config"), &pool, fresh());
        CHECK((llamas[i].code < 0 ? code != OK : code == llamas[i].code) && code == err.code
              && strstr(err.what, llamas[i].says), "config %s: code %d, '%s'", llamas[i].json, code,
              err.what);
    }
    write_config("config/config.json", "{\"architectures\":[\"LlamaForCausalLM\"]}");
    CHECK(config_load(&c, in_base("config"), &pool, fresh()) == OK && c.V == 32000 && c.stack.C == 4096
          && c.stack.F == 11008 && c.stack.L == 32 && c.stack.H == 32 && c.stack.K == 32 && c.stack.D == 128
          && c.positions == 2048 && c.stack.eps == 1e-6f && c.stack.rope.theta == 10000 && c.bos == 1
          && c.pad == -1 && c.eos_count == 1 && c.eos[0] == 2 && !c.tied && c.stack.rope.type == ROPE_PLAIN,
          "the class's defaults");
    write_config("config/config.json", "{" LLAMA ",\"rope_parameters\":{\"rope_type\":\"llama3\","
                 "\"rope_theta\":500000.0,\"factor\":32.0,\"low_freq_factor\":1.0,"
                 "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192},\"eos_token_id\":[5,7],"
                 "\"pad_token_id\":3,\"bos_token_id\":null,\"num_key_value_heads\":null,"
                 "\"head_dim\":10,\"tie_word_embeddings\":true,\"rms_norm_eps\":1.2345678e-05,"
                 "\"max_position_embeddings\":131072}");
    CHECK(config_load(&c, in_base("config"), &pool, fresh()) == OK && c.stack.rope.type == ROPE_LLAMA3
          && c.stack.rope.theta == 500000 && c.stack.rope.factor == 32 && c.stack.rope.low == 1
          && c.stack.rope.high == 4 && c.stack.rope.original == 8192 && c.eos_count == 2 && c.eos[1] == 7
          && c.pad == 3 && c.bos == -1 && c.stack.K == 4 && c.stack.D == 10 && c.tied
          && c.stack.eps == 1.2345678e-05f && c.positions == 131072, "rope_parameters, lists, nulls");
    CHECK(config_save(&c, NULL, in_base("config2"), BF16, &pool, fresh()) == OK
          && config_load(&d, in_base("config2"), &pool, fresh()) == OK && same_config(&c, &d),
          "llama3 config saved and loaded: %s", err.what);
    write_config("config/config.json", "{" LLAMA
                 ",\"rope_theta\":123456.789,\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.5}}");
    write_config("config/generation_config.json", "{\"eos_token_id\":[9,99]}");
    CHECK(config_load(&c, in_base("config"), &pool, fresh()) == OK && c.stack.rope.type == ROPE_LINEAR
          && c.stack.rope.factor == 2.5 && c.stack.rope.theta == 123456.789 && c.eos_count == 2
          && c.eos[0] == 9 && c.eos[1] == 99, "linear scaling; generation_config.json says what ends a text");
    write_config("config/generation_config.json", "{\"eos_token_id\":7,\"unasked\":NaN}");
    CHECK(config_load(&c, in_base("config"), &pool, fresh()) == OK && c.eos_count == 1 && c.eos[0] == 7,
          "one id, beside a NaN: %s", err.what);
    write_config("config/generation_config.json", "{\"eos_token_id\":null}");
    CHECK(config_load(&c, in_base("config"), &pool, fresh()) == OK && c.eos_count == 1 && c.eos[0] == 2,
          "no id there: config.json's stays");
    write_config("config/generation_config.json", "{\"eos_token_id\":[9,99]}");
    CHECK(config_save(&c, NULL, in_base("config2"), F32, &pool, fresh()) == OK
          && config_load(&d, in_base("config2"), &pool, fresh()) == OK && same_config(&c, &d),
          "linear config saved and loaded: %s", err.what);
    write_config("config/generation_config.json", "{\"eos_token_id\":}");
    CHECK(config_load(&c, in_base("config"), &pool, fresh()) != OK
          && strstr(err.where, "generation_config.json"), "a broken generation_config.json is named");
    remove(in_base("config/generation_config.json"));
}

/* Windows, and layers that differ. */
static void window_configs(void) {
    ModelConfig c;
    write_config("config/config.json", "{\"model_type\":\"mistral\"}");
    CHECK(config_load(&c, in_base("config"), &pool, fresh()) == OK && c.stack.window == 4096,
          "Mistral's window, if the file does not say it: %d", c.stack.window);
    write_config("config/config.json", "{\"model_type\":\"mistral\",\"sliding_window\":null}");
    CHECK(config_load(&c, in_base("config"), &pool, fresh()) == OK && c.stack.window == 0, "no window");
    write_config("config/config.json", "{\"model_type\":\"smollm3\",\"num_hidden_layers\":2,"
                 "\"no_rope_layers\":[0,0],\"use_sliding_window\":true,\"sliding_window\":8,"
                 "\"layer_types\":[\"sliding_attention\",\"sliding_attention\"]}");
    CHECK(config_load(&c, in_base("config"), &pool, fresh()) == OK && c.stack.window == 8
          && c.stack.period == 1 && c.stack.windowed == 1 && c.stack.unrotated == 1,
          "all layers have the window and none has RoPE: %s, period %d", err.what, c.stack.period);
    CHECK(config_load(&c, in_base("nowhere"), &pool, fresh()) == E_MISSING
          && strstr(err.where, "config.json"), "no config.json");
}

/* Writes quantization_config and reads it again. */
static void quantization_configs(void) {
    ModelConfig c, d;
    WeightTypes w, v;
    config_load(&c, "tests/golden/models/llama-gqa", &pool, fresh());
    memset(&w, 0, sizeof w);
    w.layers = NF4;
    w.block = 64;
    for (int i = 0; i < 12; i++) {
        w.kind = i & 1 ? QUANT_FP4 : QUANT_NF4;
        w.doubled = i >> 1 & 1;
        w.compute = i / 4;
        memset(&v, 0x55, sizeof v);
        CHECK(config_save(&c, &w, in_base("config4"), BF16, &pool, fresh()) == OK && config_quantization(&v,
                in_base("config4"), &pool, fresh()) == OK && config_load(&d, in_base("config4"), &pool,
                        fresh()) == OK && same_config(&c, &d) && memcmp(&v, &w, sizeof v) == 0,
                        "quantization_config %d: %s", i, err.what);
    }
    CHECK(config_save(&c, NULL, in_base("config4"), BF16, &pool, fresh()) == OK && config_quantization(&v,
            in_base("config4"), &pool, fresh()) == OK && v.layers == F32 && v.block == 0,
            "none where none is written");
    write_config("config/config.json", "{" LLAMA ",\"quantization_config\":{\"load_in_4bit\":true}}");
    CHECK(config_quantization(&v, in_base("config"), &pool, fresh()) == OK && v.layers == NF4
          && v.kind == QUANT_FP4 && !v.doubled && v.compute == F32, "bitsandbytes' defaults");
}

#define ROBERTA \
    "\"architectures\":[\"RobertaForSequenceClassification\"],\"model_type\":\"roberta\"," \
    "\"vocab_size\":100,\"hidden_size\":60,\"num_attention_heads\":4"
#define L1(t, d) "\"" t d "\":\"x\","
#define L10(t) \
    L1(t, "0") L1(t, "1") L1(t, "2") L1(t, "3") L1(t, "4") \
    L1(t, "5") L1(t, "6") L1(t, "7") L1(t, "8") L1(t, "9")
static const struct { const char *json; int code; const char *says; } robertas[] = {
    { "{" ROBERTA "}", OK, "" },
    { "{" ROBERTA ",\"hidden_act\":\"gelu_10\"}", E_UNSUPPORTED, "hidden_act 'gelu_10'" },
    { "{" ROBERTA ",\"hidden_act\":\"gelu_new\"}", OK, "" },
    { "{" ROBERTA ",\"problem_type\":\"ranking\"}", E_UNSUPPORTED, "problem_type 'ranking'" },
    { "{\"architectures\":[\"BertForMaskedLM\"],\"model_type\":\"bert\"}", OK, "" },
    { "{\"architectures\":[\"BertForTokenClassification\"],\"model_type\":\"bert\"}", E_UNSUPPORTED,
    "BertForTokenClassification" },
    { "{\"architectures\":[\"DebertaV2ForSequenceClassification\"],\"model_type\":\"deberta-v2\"}",
    E_UNSUPPORTED, "DebertaV2ForSequenceClassification" },
    { "{" ROBERTA ",\"position_embedding_type\":\"relative_key\"}", E_UNSUPPORTED,
    "position_embedding_type 'relative_key'" },
    { "{\"architectures\":[\"BertForSequenceClassification\"],\"model_type\":\"bert\"}", OK, "" },
    { "{\"architectures\":[\"RobertaForMaskedLM\"],\"model_type\":\"roberta\"}", OK, "" },
    { "{" ROBERTA ",\"id2label\":{\"0\":\"a\",\"2\":\"b\"}}", E_FORMAT, "id2label" },
    { "{" ROBERTA ",\"id2label\":{\"0\":\"a\",\"0\":\"b\"}}", E_FORMAT, "id2label" },
    { "{" ROBERTA ",\"id2label\":{\"0\":\"a\",\"x\":\"b\"}}", E_FORMAT, "id2label" },
    { "{" ROBERTA ",\"id2label\":{\"0\":\"a\",\"1\":3}}", E_FORMAT, "id2label" },
    { "{" ROBERTA ",\"id2label\":{\"0\":\"a\"},\"num_labels\":2}", E_FORMAT, "id2label" },
    { "{" ROBERTA ",\"id2label\":{\"0\":\"a name of more than forty-seven bytes, which we refuse\"}}",
    E_RANGE, "label name" },
    { "{" ROBERTA ",\"num_labels\":33}", E_RANGE, "num_labels" },
    { "{" ROBERTA ",\"id2label\":{" L10("0") L10("1") L10("2") "\"30\":\"x\",\"31\":\"x\",\"32\":\"x\"}}",
    E_RANGE, "id2label" },
    { "{" ROBERTA ",\"hidden_size\":61}", E_RANGE, "hidden_size" },
    { "{" ROBERTA ",\"vocab_size\":1}", E_RANGE, "pad_token_id" },
    { "{" ROBERTA ",\"max_position_embeddings\":3}", E_RANGE, "max_position_embeddings" },
    { "{" ROBERTA ",\"is_decoder\":true}", E_UNSUPPORTED, "is_decoder" },
};

static void roberta_configs(void) {
    RewardConfig c, d;
    for (size_t i = 0; i < sizeof robertas / sizeof *robertas; i++) {
        int code;
        write_config("config/config.json", robertas[i].json);
        code = reward_config_load(&c, in_base("config"), &pool, fresh());
        CHECK(code == robertas[i].code && code == err.code && strstr(err.what, robertas[i].says),
              "config %s: code %d, '%s'", robertas[i].json, code, err.what);
    }
    write_config("config/config.json", "{" ROBERTA "}");
    CHECK(reward_config_load(&c, in_base("config"), &pool, fresh()) == OK && c.labels == 2
          && strcmp(c.label[1], "LABEL_1") == 0 && c.stack.L == 12 && c.stack.F == 3072 && c.positions == 512
          && c.types == 2 && c.stack.eps == 1e-12f, "the class's defaults");
    write_config("config/config.json", "{" ROBERTA ",\"id2label\":{\"1\":\"\\u00e9 \\\"q\\\"\",\"0\":\"x\","
                 "\"2\":\"z\"},\"layer_norm_eps\":1e-5,\"max_position_embeddings\":514,"
                 "\"type_vocab_size\":1,\"bos_token_id\":3,\"eos_token_id\":4,\"pad_token_id\":5}");
    CHECK(reward_config_load(&c, in_base("config"), &pool, fresh()) == OK && c.labels == 3
          && strcmp(c.label[1], "\xc3\xa9 \"q\"") == 0, "labels in any order");
    memset(&d, 0, sizeof d);
    CHECK(reward_config_save(&c, in_base("config2"), F32, &pool, fresh()) == OK && reward_config_load(&d,
            in_base("config2"), &pool, fresh()) == OK && memcmp(c.label, d.label, sizeof c.label) == 0
            && c.V == d.V && c.stack.C == d.stack.C && c.stack.L == d.stack.L && c.stack.H == d.stack.H
            && c.stack.F == d.stack.F && c.labels == d.labels && c.positions == d.positions
            && c.types == d.types && c.stack.eps == d.stack.eps && c.pad == d.pad && c.bos == d.bos
            && c.eos[0] == d.eos[0], "RoBERTa's config saved and loaded: %s", err.what);
}

#define LORA "\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8"
#define NAME10 \
    "\"q_proj\",\"k_proj\",\"v_proj\",\"o_proj\",\"up_proj\"," \
    "\"q_proj\",\"k_proj\",\"v_proj\",\"o_proj\",\"down_proj\","
static const struct { const char *json; int code; const char *says; } adapters[] = {
    { "{" LORA ",\"target_modules\":[\"q_proj\",\"v_proj\"]}", OK, "q_proj,v_proj" },
    { "{" LORA ",\"target_modules\":null}", OK, "q_proj,v_proj,c_attn,query" },
    { "{" LORA ",\"target_modules\":\"all-linear\"}", OK, "all-linear" },
    { "{" LORA ",\"target_modules\":\".*_proj\"}", OK, ".*_proj" },
    { "{" LORA ",\"target_modules\":[]}", E_FORMAT, "target_modules" },
    { "{" LORA ",\"target_modules\":[\"a,b\"]}", E_FORMAT, "target_modules" },
    { "{" LORA ",\"target_modules\":[3]}", E_FORMAT, "target_modules" },
    { "{" LORA ",\"target_modules\":[" NAME10 NAME10 NAME10 "\"q\"]}", OK, "down_proj,q" },
    { "{\"r\":4}", E_MISSING, "peft_type" },
    { "{\"peft_type\":\"PREFIX_TUNING\"}", E_UNSUPPORTED, "PREFIX_TUNING" },
    { "{" LORA ",\"task_type\":\"SEQ_CLS\"}", OK, "q_proj" },
    { "{" LORA ",\"task_type\":\"SEQ_2_SEQ_LM\"}", OK, "q_proj" },
    { "{" LORA ",\"task_type\":\"FEATURE_EXTRACTION\"}", E_UNSUPPORTED, "FEATURE_EXTRACTION" },
    { "{" LORA ",\"task_type\":null,\"rank_pattern\":{},\"modules_to_save\":[],\"use_dora\":false,"
    "\"layers_to_transform\":null}", OK, "q_proj,v_proj" },
    { "{" LORA ",\"use_dora\":true}", OK, "" },
    { "{" LORA ",\"rank_pattern\":{\"q_proj\":2}}", OK, "" },
    { "{" LORA ",\"rank_pattern\":{\"q_proj\":2.5}}", E_FORMAT, "rank_pattern" },
    { "{" LORA ",\"rank_pattern\":{\"q_proj\":0}}", E_RANGE, "rank_pattern" },
    { "{" LORA ",\"alpha_pattern\":{\"q_proj\":2.5}}", OK, "" },
    { "{" LORA ",\"alpha_pattern\":[2]}", E_FORMAT, "alpha_pattern" },
    { "{" LORA ",\"modules_to_save\":[\"lm_head\"]}", OK, "q_proj,v_proj" },
    { "{" LORA ",\"modules_to_save\":3}", E_FORMAT, "modules_to_save" },
    { "{" LORA ",\"bias\":\"all\"}", OK, "" },
    { "{" LORA ",\"bias\":\"some\"}", E_UNSUPPORTED, "bias 'some'" },
    { "{" LORA ",\"lora_bias\":true}", E_UNSUPPORTED, "lora_bias" },
    { "{" LORA ",\"ensure_weight_tying\":true}", E_UNSUPPORTED, "ensure_weight_tying" },
    { "{" LORA ",\"fan_in_fan_out\":true}", OK, "" },
    { "{" LORA ",\"fan_in_fan_out\":\"yes\"}", E_FORMAT, "fan_in_fan_out" },
    { "{" LORA ",\"layers_to_transform\":[0]}", OK, "" },
    { "{" LORA ",\"layers_to_transform\":-1}", E_FORMAT, "layers_to_transform" },
    { "{" LORA ",\"layers_pattern\":\"h\"}", E_FORMAT, "layers_pattern without layers_to_transform" },
    { "{" LORA ",\"layers_to_transform\":1,\"layers_pattern\":[\"h|layers\"]}", E_UNSUPPORTED, "h|layers" },
    { "{" LORA ",\"layers_to_transform\":1,\"target_modules\":\".*q\"}", E_FORMAT, "beside a regular" },
    { "{" LORA ",\"init_lora_weights\":\"pissa\"}", E_UNSUPPORTED, "pissa" },
    { "{" LORA ",\"init_lora_weights\":\"gaussian\"}", OK, "" },
    { "{\"peft_type\":\"LORA\",\"r\":0}", E_RANGE, "'r'" },
    { "{\"peft_type\":\"LORA\",\"lora_alpha\":\"x\"}", E_FORMAT, "lora_alpha" },
};

static void adapter_configs(void) {
    LoraConfig l, m;
    char *text;
    size_t n;
    for (size_t i = 0; i < sizeof adapters / sizeof *adapters; i++) {
        int code;
        memset(&l, 0, sizeof l);
        write_config("config/adapter_config.json", adapters[i].json);
        code = adapter_config_load(&l, in_base("config"), &pool, fresh());
        CHECK(code != E_UNSUPPORTED || strstr(err.advice, "merge_and_unload"), "adapter %s: advice",
              adapters[i].json);
        CHECK(code == adapters[i].code && code == err.code && strstr(code == OK ? l.targets : err.what,
                adapters[i].says), "adapter %s: code %d, '%s', '%s'", adapters[i].json, code, err.what,
                l.targets);
    }
    memset(&l, 0, sizeof l);
    memset(&m, 0, sizeof m);
    l.R = 12;
    l.alpha = 0.1f;
    l.rslora = 1;
    l.targets = "o_proj,up_proj";
    l.task = "CAUSAL_LM";
    CHECK(adapter_config_save(&l, in_base("config2"), "some/base \"model\"", &pool, fresh()) == OK
          && adapter_config_load(&m, in_base("config2"), &pool, fresh()) == OK,
              "adapter_config.json saved and loaded: %s", err.what);
    CHECK(m.R == 12 && m.alpha == 0.1f && m.rslora == 1 && strcmp(m.targets, l.targets) == 0,
          "and the same: %s", m.targets);
    text = slurp(in_base("config2/adapter_config.json"), &n);
    CHECK(strstr(text, "\"base_model_name_or_path\": \"some/base \\\"model\\\"\"")
          && strstr(text, "\"task_type\": \"CAUSAL_LM\"") && strstr(text, "\"inference_mode\": true")
          && strstr(text, "\"lora_alpha\": 0.1,"), "what peft looks for");
}

/* ---- tokenizers: trained here on a few lines, saved and opened again ---- */
typedef struct { int at; } Source;
static int next_text(void *context, const char **text, size_t *length) {
    static const char *const lines[] = { "the cat sat on the mat", "the dog sat on the cat", "a mat is a mat",
        "cats and dogs and mats" };
    Source *s = context;
    if (s->at == 40) return 0;
    *text = lines[s->at++ % 4];
    *length = strlen(*text);
    return 1;
}

static void tokenizers(void) {
    static const char *const folders[] = { "sentencepiece", "bytelevel" };
    static const char text[] = "the cats sat on a dog";
    for (int kind = 0; kind < 2; kind++) {
        Source state = { 0 };
        TextSource source = { next_text, NULL };
        Tokenizer *t, *u;
        int *a, *b, an, bn;
        char *config, *map;
        size_t n;
        source.context = &state;
        t = kind ? tokenizer_train_bytelevel(source, 266, &pool, fresh())
            : tokenizer_train_sentencepiece(source, 276, &pool, fresh());
        CHECK(t != NULL, "%s: trained: %s", folders[kind], err.what);
        if (!t) continue;
        CHECK(tokenizer_save(t, in_base(folders[kind]), 512, &pool, fresh()) == OK, "%s: saved: %s",
              folders[kind], err.what);
        u = tokenizer_open(in_base(folders[kind]), &pool, fresh());
        CHECK(u && tokenizer_kind(u) == tokenizer_kind(t) && tokenizer_size(u) == tokenizer_size(t),
              "%s: opened: %s", folders[kind], err.what);
        if (!u) continue;
        CHECK(tokenizer_encode(t, text, strlen(text), &pool, &a, &an) == OK && tokenizer_encode(u, text,
                strlen(text), &pool, &b, &bn) == OK && an == bn && an > 0
                && memcmp(a, b, (size_t)an * sizeof *a) == 0, "%s: the same ids", folders[kind]);
        config = slurp(in_base(kind ? "bytelevel/tokenizer_config.json" :
                               "sentencepiece/tokenizer_config.json"), &n);
        CHECK(json_parse(config, n, &pool, fresh()) && strstr(config, kind ? "\"RobertaTokenizer\"" :
                "\"PreTrainedTokenizerFast\"") && strstr(config, "\"model_max_length\": 512")
                && strstr(config, kind ? "\"add_prefix_space\": false" : "\"add_bos_token\": true")
                && strstr(config, "\"bos_token\": \"<s>\""), "%s: tokenizer_config.json", folders[kind]);
        map = slurp(in_base(kind ? "bytelevel/special_tokens_map.json" :
                            "sentencepiece/special_tokens_map.json"), &n);
        CHECK(json_parse(map, n, &pool, fresh()) && strstr(map, "\"eos_token\": \"</s>\"")
              && (!kind || strstr(map, "\"mask_token\": \"<mask>\"")), "%s: special_tokens_map.json",
              folders[kind]);
        if (!kind)
            CHECK(tokenizer_open(in_base("sentencepiece/tokenizer.model"), &pool, fresh()) != NULL,
                  "tokenizer.model by its own name");
    }
    folder_make(in_base("empty"), fresh());
    CHECK(!tokenizer_open(in_base("empty"), &pool, fresh()) && err.code == E_MISSING,
          "a folder without a tokenizer");
    spit(in_base("empty/tokenizer.json"), "{}", 2);
    CHECK(!tokenizer_open(in_base("empty"), &pool, fresh()) && err.code == E_UNSUPPORTED,
          "tokenizer.json alone is refused by name");
    folder_make(in_base("rubbish"), fresh());
    spit(in_base("rubbish/tokenizer.model"), "rubbish", 7);
    CHECK(!tokenizer_open(in_base("rubbish"), &pool, fresh()) && err.code != OK
          && strstr(err.where, "tokenizer.model"), "rubbish is named: %s", err.what);
}

/* Writes a whole model folder and an adapter for hf_check.py, a reader that shares no line with this
 * project's. */
static void python_check(void) {
    ModelConfig c;
    char command[512];
    List l;
    int found = system("python3 -c 'import json' >/dev/null 2>&1") == 0;
    if (!found) { SKIP("no python3: tests/programs/hf_check.py"); return; }
    if (config_load(&c, "tests/golden/models/llama-gqa", &pool, fresh()) != OK) {
        CHECK(0, "config");
        return;
    }
    l = llama_list(&c);
    checkpoint_load("tests/golden/models/llama-gqa", "model", l.tensor, l.count, &pool, fresh());
    for (int type = F32; type <= F16; type++) {
        static const char *const golden[] = { "gqa", "bf16", "f16" };
        const char *folder = in_base(type == F32 ? "py-f32" : type == BF16 ? "py-bf16" : "py-f16");
        CHECK(checkpoint_save(folder, "model", l.tensor, l.count, type, type == F32 ? 100000 : 0, &pool,
                              fresh()) == OK && config_save(&c, NULL, folder, type, &pool, fresh()) == OK,
                              "saved for python");
        sprintf(command, "python3 tests/programs/hf_check.py %.200s tests/golden/models/llama-%s", folder,
                golden[type]);
        CHECK(system(command) == 0, "hf_check.py: %s", golden[type]);
    }
    for (int kind = QUANT_NF4; kind <= QUANT_FP4; kind++)
        for (int doubled = 0; doubled < 2; doubled++) {
            List q = list_new(l.count);
            WeightTypes types = { NF4, F32, 0, 64, 0, BF16, NULL };
            types.kind = kind;
            types.doubled = doubled;
            for (int t = 0; t < l.count; t++) {
                const Matrix *m = l.tensor[t].matrix;
                if (strstr(l.tensor[t].name, "_proj."))
                    add_as(&q, l.tensor[t].name, m->O, m->I, NF4, (Packing){ kind, 64, doubled, F32 });
                else add(&q, l.tensor[t].name, m->O, m->I, l.tensor[t].flags);
            }
            CHECK(load_one(&q, "tests/golden/models/llama-gqa") == OK && checkpoint_save(in_base("py-4"),
                    "model", q.tensor, q.count, F32, 0, &pool, fresh()) == OK && config_save(&c, &types,
                            in_base("py-4"), F32, &pool, fresh()) == OK, "4 bits saved for python: %s",
                            err.what);
            sprintf(command, "python3 tests/programs/hf_check.py %.200s tests/golden/models/llama-gqa",
                    in_base("py-4"));
            CHECK(system(command) == 0, "hf_check.py: %s, doubled %d", kind ? "fp4" : "nf4", doubled);
            list_free(&q);
        }
    list_free(&l);
}

int main(void) {
    char command[100];
    pool = test_pool();
    sprintf(base, "/tmp/rlhf-checkpoint-%08lx", (unsigned long)(time(NULL) * 7919u + clock()) & 0xffffffffu);
    folder_make(base, fresh());
    golden_llama();
    golden_adapters();
    names_of_families();
    golden_roberta();
    round_trips();
    hand_made();
    other_names();
    index_files();
    files_of_other_kinds();
    spare_tensors();
    tied_heads();
    adapter_tensors();
    saved_modules();
    types();
    quantise_on_load();
    quantise_views();
    many_steps();
    golden_4bit();
    round_trip_4bit();
    refused_4bit();
    refused_weights();
    companions_elsewhere();
    meta_names();
    meta_file();
    llama_configs();
    window_configs();
    quantization_configs();
    roberta_configs();
    adapter_configs();
    tokenizers();
    python_check();
    pool_free(&pool);
    sprintf(command, "rm -rf %s", base);
    if (system(command)) printf("could not remove %s\n", base);
    return test_end("checkpoint");
}
