/* files/config.c - reads and writes config.json and generation_config.json of Hugging Face folders, by the
 * lists of keys in families.c.
 * Source   transformers' configuration_*.py, modeling_rope_utils.py and quantization_config.py.
 * Needs    core, io, files/fields, files/families; a pool for the parsed files, which are freed at the end.
 * Never    guesses: an architecture, a key or a value that the project does not support is refused by name. A
 *          key that is absent has the default of transformers' class.
 * Edges    sizes are at most 2^24, so the product of two is at most 2^48. Conditions between sizes, such as
 *          that heads divide the width, are checked here, so that models need not check them. */
#include "families.h"

/* ---- reading: keys with lists or objects ---- */

/* Appends an id to a list of *count ids, unless it is there already. Returns 0 if there is no room. */
static int add_eos(int *eos, int *count, int id) {
    for (int i = 0; i < *count; i++) if (eos[i] == id) return 1;
    if (*count == (int)(sizeof ((ModelConfig *)0)->eos / sizeof *eos)) return 0;
    eos[(*count)++] = id;
    return 1;
}

/* Reads eos_token_id, an id or a list of ids, into a ModelConfig or RewardConfig. If it is absent, the id is
 * `fallback` (-1: there is none). */
static void read_eos(Fields *f, void *config, int fallback) {
    const Json *j = json_get(f->object, "eos_token_id"), *id;
    int *eos = (int *)(void *)((char *)config + P(eos));
    int *count = (int *)(void *)((char *)config + P(eos_count));
    if (!j) { if (fallback >= 0) add_eos(eos, count, fallback); return; }
    if (j->type == JSON_NULL) return;
    id = j->type == JSON_ARRAY ? j->child : j;
    for (; id; id = j->type == JSON_ARRAY ? id->next : NULL) {
        uint64_t value;
        if (!json_whole(id, &value) || value >= INT_MAX)
            complain(f, E_FORMAT, "not a token id:", "eos_token_id");
        else if (!add_eos(eos, count, (int)value)) complain(f, E_RANGE, "more than 8 ids:", "eos_token_id");
        if (f->code != OK) return;
    }
}

/* The names of the kinds of RoPE, in the order of ROPE_PLAIN ... */
static const char *const rope_names[] = { "default", "linear", "dynamic", "llama3", "yarn" };

/* Reads a field of rope_scaling that has to be there. */
static double rope_need(Fields *s, const char *key, double min, double max) {
    if (!field(s, key)) complain(s, E_MISSING, "rope_scaling without", key);
    return field_real(s, key, min, min, max);
}

/* Reads the fields of YaRN, with transformers' defaults (modeling_rope_utils.py). */
static void read_yarn(Fields *s, Rope *r) {
    double m = field_real(s, "mscale", 0, 0, 1e6), all = field_real(s, "mscale_all_dim", 0, 0, 1e6), usual;
    const double grown = r->factor > 1 ? log(r->factor) / 10 : 0;
    usual = m && all ? (grown * m + 1) / (grown * all + 1) : grown + 1;
    r->high = field_real(s, "beta_fast", 32, 1e-6, 1e6);
    r->low = field_real(s, "beta_slow", 1, 1e-6, 1e6);
    r->attention = field_real(s, "attention_factor", usual, 1e-6, 1e6);
    r->uncut = !field_bool(s, "truncate", 1);
    if (r->high < r->low) complain(s, E_RANGE, "below beta_slow:", "beta_fast");
}

/* Reads rope_scaling, whose fields s has, into r. Without original_max_position_embeddings, yarn and dynamic
 * take 0, which check_policy replaces. */
static void read_scaling(Fields *s, Rope *r) {
    const char *type = field_text(s, "rope_type", field_text(s, "type", "default"));
    if (!field(s, "rope_type") && !field(s, "type") && field(s, "factor"))
        complain(s, E_MISSING, "rope_scaling without", "rope_type");
    while (r->type <= ROPE_YARN && strcmp(type, rope_names[r->type]) != 0) r->type++;
    if (r->type > ROPE_YARN) { complain(s, E_UNSUPPORTED, "rope_scaling type", type); r->type = ROPE_PLAIN; }
    for (const Json *j = s->object->child; j; j = j->next)
        if (j->type == JSON_OBJECT)
            complain(s, E_UNSUPPORTED, "rope_parameters for a kind of layer:", j->key);
    if (r->type == ROPE_PLAIN) return;
    r->factor = rope_need(s, "factor", 1e-6, 1e6);
    if (r->type == ROPE_LLAMA3) {
        r->low = rope_need(s, "low_freq_factor", 1e-6, 1e6);
        r->high = rope_need(s, "high_freq_factor", 1e-6, 1e6);
        rope_need(s, "original_max_position_embeddings", 1, SIZE_LIMIT);
        if (r->high <= r->low) complain(s, E_RANGE, "not above low_freq_factor:", "high_freq_factor");
    }
    if (r->type != ROPE_LINEAR)
        r->original = field_int(s, "original_max_position_embeddings", 0, 1, SIZE_LIMIT);
    if (r->type == ROPE_YARN) read_yarn(s, r);
}

/* Reads rope_theta and rope_scaling, or rope_parameters (transformers 5), which has the fields of both. */
static void read_rope(Fields *f, StackKind *k, const char *theta) {
    const Json *scaling = field(f, "rope_parameters");
    Fields s = *f;
    k->rope.theta = field_real(f, "rope_theta", strtod(theta, NULL), 1e-3, 1e30);
    if (!scaling) scaling = field(f, "rope_scaling");
    k->rope.type = ROPE_PLAIN;
    if (!scaling) return;
    if (scaling->type != JSON_OBJECT) { complain(f, E_FORMAT, "not an object:", "rope_scaling"); return; }
    s.object = scaling;
    k->rope.theta = field_real(&s, "rope_theta", k->rope.theta, 1e-3, 1e30);
    read_scaling(&s, &k->rope);
    f->code = s.code;
}

/* Reads quantization_config into *w, with BitsAndBytesConfig's defaults; complains if it is not of
 * bitsandbytes in 4 bits. If there is no quantization_config, *w is all zeros. */
static void read_quantization(Fields *f, WeightTypes *w) {
    const Json *j = field(f, "quantization_config");
    Fields q = *f;
    const char *type, *compute;
    memset(w, 0, sizeof *w);
    if (!j || (j->type == JSON_OBJECT && !j->count)) return;
    if (j->type != JSON_OBJECT) { complain(f, E_FORMAT, "not an object:", "quantization_config"); return; }
    q.object = j;
    field_must_be(&q, "quant_method", "bitsandbytes");
    field_must_be_off(&q, "load_in_8bit");
    if (!field_bool(&q, "load_in_4bit", 0))
        complain(&q, E_UNSUPPORTED, "quantization_config without", "load_in_4bit");
    type = field_text(&q, "bnb_4bit_quant_type", "fp4");
    compute = field_text(&q, "bnb_4bit_compute_dtype", "float32");
    w->layers = NF4;
    w->kind = strcmp(type, "nf4") == 0 ? QUANT_NF4 : QUANT_FP4;
    if (strcmp(type, quant_name(w->kind)) != 0) complain(&q, E_UNSUPPORTED, "bnb_4bit_quant_type", type);
    w->block = 64;
    w->doubled = field_bool(&q, "bnb_4bit_use_double_quant", 0);
    w->compute = dtype_named(compute);
    if (w->compute < 0) complain(&q, E_UNSUPPORTED, "bnb_4bit_compute_dtype", compute);
    f->code = q.code;
}

/* What differs between the layers: bit 0: has the window; bit 1: has no RoPE. */
enum { WINDOWED = 1, UNROTATED = 2 };
typedef struct { unsigned char bits[LAYERS_MAX]; int L; } LayerBits;

/* Finds the smallest period after which the layers repeat, and stores it with their bits. */
static void set_layers(Fields *f, StackKind *s, const LayerBits *b, const char *key) {
    int period = 1, all = 0;
    for (int l = 0; l < b->L; ) {
        if (b->bits[l] == b->bits[l % period]) l++;
        else if (++period <= 32) l = 0;
        else { complain(f, E_UNSUPPORTED, "layers that differ without a period:", key); return; }
    }
    s->windowed = s->unrotated = 0;
    for (int l = 0; l < period; l++) {
        if (b->bits[l] & WINDOWED) s->windowed |= 1u << l;
        if (b->bits[l] & UNROTATED) s->unrotated |= 1u << l;
        all |= b->bits[l];
    }
    s->period = period == 1 && !(all & UNROTATED) ? 0 : period;
    if (!(all & WINDOWED)) s->window = 0;
}

/* Sets b to the bits of the layers as they are. */
static void get_layers(LayerBits *b, const StackKind *s) {
    b->L = s->L < LAYERS_MAX ? s->L : LAYERS_MAX;
    for (int l = 0; l < b->L; l++) {
        const int bit = s->period ? l % s->period : 0;
        b->bits[l] = (unsigned char)((s->window && (!s->period || (s->windowed >> bit & 1)) ? WINDOWED : 0)
                                     | (s->period && (s->unrotated >> bit & 1) ? UNROTATED : 0));
    }
}

/* Returns the list of a key, which has one element for each layer; NULL if the key is absent. */
static const Json *layer_list(Fields *f, const char *key, int layers) {
    const Json *list = field(f, key);
    if (list && (list->type != JSON_ARRAY || list->count != (size_t)layers))
        complain(f, E_FORMAT, "not a list with an element for each layer:", key);
    return f->code == OK && list ? list->child : NULL;
}

/* Reads layer_types. Without this list, the layers from max_window_layers on have the window. Only if
 * use_sliding_window is true there is a window at all. */
static void read_layers(Fields *f, StackKind *s, const char *key) {
    const int uses = field_bool(f, "use_sliding_window", 0);
    const int from = field_int(f, "max_window_layers", 28, 0, SIZE_LIMIT);
    const Json *j = layer_list(f, key, s->L);
    LayerBits b;
    s->window = uses && (!json_get(f->object, "sliding_window") || field(f, "sliding_window"))
        ? field_int(f, "sliding_window", 4096, 1, SIZE_LIMIT) : 0;
    get_layers(&b, s);
    for (int l = 0; l < b.L && f->code == OK; l++, j = j ? j->next : NULL) {
        const char *type = j && j->type == JSON_STRING ? j->string : "?";
        const int slides = j ? strcmp(type, "sliding_attention") == 0 : l >= from;
        if (j && !slides && strcmp(type, "full_attention") != 0)
            complain(f, E_UNSUPPORTED, "a layer of layer_types:", type);
        b.bits[l] = (unsigned char)((b.bits[l] & UNROTATED) | (uses && slides ? WINDOWED : 0));
    }
    if (f->code == OK) set_layers(f, s, &b, key);
}

/* Reads no_rope_layers. Without this list, every no_rope_layer_interval-th layer is without RoPE. */
static void read_no_rope(Fields *f, StackKind *s, const char *key) {
    const int interval = field_int(f, "no_rope_layer_interval", 4, 1, SIZE_LIMIT);
    const Json *j = layer_list(f, key, s->L);
    LayerBits b;
    get_layers(&b, s);
    for (int l = 0; l < b.L && f->code == OK; l++, j = j ? j->next : NULL) {
        if (j && (j->type != JSON_NUMBER || (j->number != 0 && j->number != 1)))
            complain(f, E_FORMAT, "not a list of 0 and 1:", key);
        const int without = j ? j->number == 0 : (l + 1) % interval == 0;
        b.bits[l] = (unsigned char)((b.bits[l] & WINDOWED) | (without ? UNROTATED : 0));
    }
    if (f->code == OK) set_layers(f, s, &b, key);
}

/* Reads attention_types: lists of kinds, and how often each list comes. "local" layers have the window. */
static void read_kinds(Fields *f, StackKind *s, const char *key) {
    const Json *list = field(f, key), *pair;
    LayerBits b;
    uint64_t times;
    int wrong = 0;
    b.L = 0;
    s->window = field_int(f, "window_size", 256, 1, SIZE_LIMIT);
    for (pair = list && list->type == JSON_ARRAY ? list->child : NULL; pair && !wrong; pair = pair->next) {
        const Json *kinds = pair->type == JSON_ARRAY ? pair->child : NULL;
        wrong = !kinds || kinds->type != JSON_ARRAY || !kinds->child || !json_whole(kinds->next, &times);
        while (!wrong && times-- > 0)
            for (const Json *j = kinds->child; j && !wrong; j = j->next) {
                const int local = j->type == JSON_STRING && strcmp(j->string, "local") == 0;
                wrong = b.L == s->L || !(local || (j->type == JSON_STRING && !strcmp(j->string, "global")));
                if (!wrong) b.bits[b.L++] = local ? WINDOWED : 0;
            }
    }
    for (; !list && b.L < s->L; b.L++) b.bits[b.L] = b.L % 2 ? WINDOWED : 0;    /* the class's default */
    if (wrong || b.L != s->L) complain(f, E_FORMAT, "not global or local for each layer:", key);
    else set_layers(f, s, &b, key);
}

/* Reads id2label, {"0": name, ...}, which has to have every id from 0 on, once. If it is absent, there are
 * num_labels labels (default 2) with the names LABEL_0, LABEL_1 ... */
static void read_labels(Fields *f, RewardConfig *c) {
    const Json *map = field(f, "id2label"), *j;
    c->labels = field_int(f, "num_labels", 2, 1, LABELS_MAX);
    if (!map) {
        for (int i = 0; i < c->labels; i++) name_format(c->label[i], sizeof c->label[i], "LABEL_%d", i);
        return;
    }
    if (map->type != JSON_OBJECT || !map->count)
        complain(f, E_FORMAT, "not an object with names:", "id2label");
    else if (map->count > LABELS_MAX) complain(f, E_RANGE, "more than 32 labels:", "id2label");
    else if (field(f, "num_labels") && (size_t)c->labels != map->count)
        complain(f, E_FORMAT, "does not fit num_labels:", "id2label");
    if (f->code != OK) return;
    c->labels = (int)map->count;
    for (j = map->child; j && f->code == OK; j = j->next) {
        char *end;
        long id = j->key[0] >= '0' && j->key[0] <= '9' ? strtol(j->key, &end, 10) : -1;
        if (id < 0 || id >= c->labels || *end || c->label[id][0] || j->type != JSON_STRING || !j->length)
            complain(f, E_FORMAT, "not a list of names from 0 on:", "id2label");
        else if (j->length >= sizeof c->label[id]) complain(f, E_RANGE, "label name too long:", j->string);
        else memcpy(c->label[id], j->string, j->length + 1);
    }
}

/* The texts of problem_type, in the order of PROBLEM_REGRESSION ... */
static const char *const problems[] = { "regression", "single_label_classification",
                                        "multi_label_classification" };
static void read_problem(Fields *f, const char *key, int *problem) {
    const char *name = field_text(f, key, NULL);
    *problem = PROBLEM_UNSAID;
    for (int i = 0; i < 3 && name; i++) if (strcmp(name, problems[i]) == 0) *problem = i + 1;
    if (name && !*problem) complain(f, E_UNSUPPORTED, key, name);
}

/* ---- reading: a configuration, key by key ---- */

/* Returns the family that "architectures" names, or without architectures "model_type". Complains and returns
 * NULL if there is no such family. */
static const Family *family_read(Fields *f, int judge) {
    const Json *list = field(f, "architectures"), *j;
    const char *type = field_text(f, "model_type", NULL);
    const Family *found = NULL;
    if (list && list->type != JSON_ARRAY) complain(f, E_FORMAT, "not a list:", "architectures");
    for (j = list ? list->child : NULL; j && f->code == OK; j = j->next) {
        const char *name = j->type == JSON_STRING ? j->string : "?";
        if (!found) found = family_named(name, judge);
        if (!found && !(judge && type && family_base(name) && family_of(type, 1)))
            complain(f, E_UNSUPPORTED, "architecture", name);
    }
    if (!found && type) found = family_of(type, judge);
    if (!found && !type) complain(f, E_MISSING, "config.json without", "model_type");
    else if (type && (!found || strcmp(type, found->type) != 0))
        complain(f, E_UNSUPPORTED, "model_type", type);
    if (f->code == E_UNSUPPORTED)
        advise(f->err, judge ? "a judge of another class, such as RoBERTa's or Qwen2's: "
                               "`run models` lists them"
                             : "a policy of another class: `run models` lists them");
    return f->code == OK ? found : NULL;
}

/* The names of activations. The first name of each is the one that is written, unless the key's default has
 * the same meaning. */
static const struct { const char *name; int activation; } activations[] = {
    { "silu", ACT_SILU }, { "swish", ACT_SILU }, { "gelu", ACT_GELU }, { "gelu_new", ACT_GELU_TANH },
    { "gelu_pytorch_tanh", ACT_GELU_TANH }, { "relu", ACT_RELU },
};
enum { ACTIVATIONS = sizeof activations / sizeof *activations };

/* Returns the activation of a name, or -1. */
static int activation_named(const char *name) {
    for (int i = 0; i < ACTIVATIONS; i++)
        if (strcmp(name, activations[i].name) == 0) return activations[i].activation;
    return -1;
}
static int read_activation(Fields *f, const Key *k) {
    const char *name = field_text(f, k->key, k->text);
    const int activation = activation_named(name);
    if (activation < 0) complain(f, E_UNSUPPORTED, k->key, name);
    return activation;
}

/* Reads feed_forward_proj, "ACT" or "gated-ACT"; "gated-gelu" means gelu_new (T5Config). */
static void read_feed(Fields *f, const Key *k, StackKind *s) {
    const char *name = field_text(f, k->key, k->text);
    s->gated = strncmp(name, "gated-", 6) == 0;
    s->activation = strcmp(name, "gated-gelu") ? activation_named(name + 6 * s->gated) : ACT_GELU_TANH;
    if (s->activation < 0) complain(f, E_UNSUPPORTED, k->key, name);
}
static const char *activation_name(const char *usual, int activation) {
    int i = 0;
    if (usual && activation_named(usual) == activation) return usual;
    while (activations[i].activation != activation) i++;
    return activations[i].name;
}

/* Reads the value of one key into the ModelConfig or RewardConfig. */
static void read_key(Fields *f, const Key *k, void *config) {
    void *at = (char *)config + k->at;
    int *number = at;
    float *real = at;
    StackKind *stack = at;
    WeightTypes types;
    switch (k->kind) {
    case KEY_ONLY: field_must_be(f, k->key, k->text); break;
    case KEY_OFF: field_must_be_off(f, k->key); break;
    case KEY_ON:
        if (!field_bool(f, k->key, 1)) complain(f, E_UNSUPPORTED, "not supported without", k->key);
        break;
    case KEY_ACT: stack->activation = read_activation(f, k); break;
    case KEY_FEED: read_feed(f, k, stack); break;
    case KEY_SCALED: *number = field_bool(f, k->key, ((const ModelConfig *)config)->tied); break;
    case KEY_BIAS: if (field_bool(f, k->key, 0)) stack->biases |= k->max; break;
    case KEY_INNER: stack->F = field_int(f, k->key, 0, 1, k->max); break;
    case KEY_ONE:
        if (field_real(f, k->key, 1, -1e30, 1e30) != 1) complain(f, E_UNSUPPORTED, "not supported:", k->key);
        break;
    case KEY_SIZE: *number = field_int(f, k->key, k->fallback, 1, k->max); break;
    case KEY_DERIVED: case KEY_WINDOW:
        *number = field_int(f, k->key, json_get(f->object, k->key) ? 0 : k->fallback, 1, k->max);
        break;
    case KEY_TOKEN: *number = field_int(f, k->key, k->fallback, 0, SIZE_LIMIT); break;
    case KEY_ID: *number = field_id(f, k->key, k->fallback); break;
    case KEY_EOS: read_eos(f, config, k->fallback); break;
    case KEY_FLAG: *number = field_bool(f, k->key, k->fallback); break;
    case KEY_EPS: *real = (float)field_real(f, k->key, strtod(k->text, NULL), 1e-30, 1); break;
    case KEY_ROPE: read_rope(f, stack, k->text); break;
    case KEY_LAYERS: read_layers(f, stack, k->key); break;
    case KEY_NO_ROPE: read_no_rope(f, stack, k->key); break;
    case KEY_KINDS: read_kinds(f, stack, k->key); break;
    case KEY_BITS: read_quantization(f, &types); break;
    case KEY_LABELS: read_labels(f, config); break;
    case KEY_PROBLEM: read_problem(f, k->key, number); break;
    default: break;
    }
}

/* Reads all keys of the file's family into the ModelConfig or RewardConfig, whose stack it is. Returns the
 * family; NULL on an error, which is in f->code. */
static const Family *read_keys(Fields *f, void *config, StackKind *stack, int judge) {
    const Key *list[KEYS_MAX];
    const Family *y = family_read(f, judge);
    int n = y ? family_keys(list, y) : 0;
    if (y) *stack = y->kind;
    for (int late = 0; late <= 1; late++)   /* what is said of each layer needs the number of layers */
        for (int i = 0; i < n && f->code == OK; i++)
            if (late == (list[i]->kind >= KEY_LAYERS && list[i]->kind <= KEY_KINDS))
                read_key(f, list[i], config);
    return f->code == OK ? y : NULL;
}

/* Sets the sizes that follow from others, and checks that the sizes fit together. */
static void check_stack(Fields *f, StackKind *s, int *positions) {
    if (!s->K) s->K = s->H;
    if (!s->D && s->C % s->H) complain(f, E_RANGE, "not a multiple of num_attention_heads:", "hidden_size");
    if (!s->D) s->D = s->C / s->H;
    if (!s->F) s->F = 4 * s->C;
    if (s->rope.type != ROPE_PLAIN && s->rope.type != ROPE_LINEAR && !s->rope.original)
        s->rope.original = *positions;
    /* beyond these positions dynamic scaling would turn with the length of the text */
    if (s->rope.type == ROPE_DYNAMIC && *positions > s->rope.original) *positions = s->rope.original;
    if (s->buckets && s->buckets < 4)
        complain(f, E_RANGE, "fewer than 4:", "relative_attention_num_buckets");
    if (s->buckets && s->distance <= s->buckets / 2)        /* the distances that have a bucket each */
        complain(f, E_RANGE, "not above half of relative_attention_num_buckets:",
                 "relative_attention_max_distance");
    if (s->H % s->K) complain(f, E_RANGE, "not a divisor of num_attention_heads:", "num_key_value_heads");
    if (s->D < 1 || (s->rotary && s->D % 2)) complain(f, E_RANGE, "not even:", "head_dim");
    if ((uint64_t)s->H * (uint64_t)s->D > SIZE_LIMIT)
        complain(f, E_RANGE, "too large with num_attention_heads:", "head_dim");
}

/* Does the same for a judge, and checks that sizes and ids fit together. */
static void check_judge(Fields *f, RewardConfig *c) {
    check_stack(f, &c->stack, &c->positions);
    if (c->pad >= c->V) complain(f, E_RANGE, "not below vocab_size:", "pad_token_id");
    if (c->positions < (c->from_zero ? 2 : c->pad + 3))
        complain(f, E_RANGE, "no room for a text:", "max_position_embeddings");
}

static int load_config(ModelConfig *c, const char *folder, Pool *pool, Error *err) {
    const Family *y;
    Fields f, g;
    int code = fields_open(&f, folder, "config.json", pool, err);
    char *generation;
    memset(c, 0, sizeof *c);
    if (code != OK) return code;
    y = read_keys(&f, c, &c->stack, 0);
    if (!y) return f.code;
    c->names = y->names;
    c->learned = y->names->part[NAME_POSITION] != NULL;
    if (y->encoder) {
        if (c->stack.gated && !y->kind.gated) y++;          /* the gated form of the same class */
        c->names = y->names;
        if (!c->stack.L) c->stack.L = c->encoder.L;
    }
    check_stack(&f, &c->stack, &c->positions);
    config_encoder(c, y);
    if (f.code != OK) return f.code;
    /* if generation_config.json says what ends a text, config.json's ids do not count (transformers) */
    generation = path_in(folder, "generation_config.json", "", pool);
    if (!generation) return fail(err, E_MEMORY, "memory for a configuration", folder, 0, 0);
    if (!file_exists(generation)) return OK;
    code = fields_open(&g, folder, "generation_config.json", pool, err);
    if (code != OK) return code;
    if (field(&g, "eos_token_id")) c->eos_count = 0;
    read_eos(&g, c, -1);
    return g.code;
}

int config_load(ModelConfig *c, const char *folder, Pool *pool, Error *err) {
    PoolMark mark = pool_mark(pool);
    int code = load_config(c, folder, pool, err);
    pool_release(pool, mark);
    return code;
}

int reward_config_load(RewardConfig *c, const char *folder, Pool *pool, Error *err) {
    PoolMark mark = pool_mark(pool);
    const Family *y;
    Fields f;
    int code = fields_open(&f, folder, "config.json", pool, err);
    memset(c, 0, sizeof *c);
    if (code == OK) {
        y = read_keys(&f, c, &c->stack, 1);
        if (y) {
            c->names = y->names;
            c->head = y->head;
            c->from_zero = y->from_zero;
            check_judge(&f, c);
        }
        code = f.code;
    }
    pool_release(pool, mark);
    return code;
}

int config_quantization(WeightTypes *w, const char *folder, Pool *pool, Error *err) {
    PoolMark mark = pool_mark(pool);
    Fields f;
    int code = fields_open(&f, folder, "config.json", pool, err);
    memset(w, 0, sizeof *w);
    if (code == OK) read_quantization(&f, w);
    pool_release(pool, mark);
    return code == OK ? f.code : code;
}

/* ---- writing ---- */

/* Writes the ids of a ModelConfig or RewardConfig that end a text. */
static void put_eos(Buffer *b, const void *config) {
    const int *eos = (const int *)(const void *)((const char *)config + P(eos));
    const int count = *(const int *)(const void *)((const char *)config + P(eos_count));
    if (count <= 1) { put_id(b, "eos_token_id", count ? eos[0] : -1); return; }
    put_key(b, "eos_token_id");
    for (int i = 0; i < count; i++) { buffer_text(b, i ? ", " : "["); buffer_integer(b, eos[i]); }
    buffer_text(b, "]");
}

/* Writes one more field of rope_scaling. */
static void put_rope_field(Buffer *b, const char *key, double x) {
    buffer_text(b, ", \"");
    buffer_text(b, key);
    buffer_text(b, "\": ");
    buffer_real(b, x, 0);
}

/* Writes rope_theta and rope_scaling. Old versions of transformers accept only {type, factor} for linear and
 * dynamic scaling. The versions that have the other kinds read the key rope_type. */
static void put_rope(Buffer *b, const Rope *r) {
    put_real(b, "rope_theta", r->theta, 0);
    if (r->type == ROPE_PLAIN) { put_raw(b, "rope_scaling", "null"); return; }
    put_raw(b, "rope_scaling", r->type < ROPE_LLAMA3 ? "{\"type\": \"" : "{\"rope_type\": \"");
    buffer_text(b, rope_names[r->type]);
    buffer_text(b, "\"");
    put_rope_field(b, "factor", r->factor);
    if (r->type == ROPE_LLAMA3) {
        put_rope_field(b, "low_freq_factor", r->low);
        put_rope_field(b, "high_freq_factor", r->high);
    }
    if (r->type == ROPE_YARN) {
        put_rope_field(b, "beta_fast", r->high);
        put_rope_field(b, "beta_slow", r->low);
        put_rope_field(b, "attention_factor", r->attention);
        if (r->uncut) buffer_text(b, ", \"truncate\": false");
    }
    if (r->type != ROPE_LINEAR) {
        buffer_text(b, ", \"original_max_position_embeddings\": ");
        buffer_integer(b, r->original);
    }
    buffer_text(b, "}");
}

/* Writes quantization_config as transformers writes BitsAndBytesConfig. */
static void put_quantization(Buffer *b, const WeightTypes *w) {
    put_raw(b, "quantization_config",
            "{\"_load_in_4bit\": true, \"_load_in_8bit\": false, \"bnb_4bit_compute_dtype\": \"");
    buffer_text(b, torch_dtype(w->compute));
    buffer_text(b, "\", \"bnb_4bit_quant_storage\": \"uint8\", \"bnb_4bit_quant_type\": \"");
    buffer_text(b, quant_name(w->kind));
    buffer_text(b, "\", \"bnb_4bit_use_double_quant\": ");
    buffer_text(b, w->doubled ? "true" : "false");
    buffer_text(b, ", \"llm_int8_enable_fp32_cpu_offload\": false, \"llm_int8_has_fp16_weight\": false, "
                   "\"llm_int8_skip_modules\": ");
    if (!w->kept) buffer_text(b, "null");
    else {                                  /* if it is null, transformers leaves lm_head out by itself */
        buffer_text(b, "[\"lm_head\"");
        for (const KeptLinear *k = w->kept; k->name[0]; k++) {
            buffer_text(b, ", ");
            buffer_json_string(b, k->name, strlen(k->name) - strlen(".weight"));
        }
        buffer_text(b, "]");
    }
    buffer_text(b, ", \"llm_int8_threshold\": 6.0, \"load_in_4bit\": true, "
                   "\"load_in_8bit\": false, \"quant_method\": \"bitsandbytes\"}");
}

/* Writes id2label and label2id. */
static void put_labels(Buffer *b, const RewardConfig *c) {
    put_key(b, "id2label");
    for (int i = 0; i < c->labels; i++) {
        buffer_text(b, i ? ", \"" : "{\"");
        buffer_integer(b, i);
        buffer_text(b, "\": ");
        buffer_json_string(b, c->label[i], strlen(c->label[i]));
    }
    buffer_text(b, "}");
    put_key(b, "label2id");
    for (int i = 0; i < c->labels; i++) {
        buffer_text(b, i ? ", " : "{");
        buffer_json_string(b, c->label[i], strlen(c->label[i]));
        buffer_text(b, ": ");
        buffer_integer(b, i);
    }
    buffer_text(b, "}");
}

/* The arguments of writing a configuration. types: NULL, or NF4 layers for a quantization_config. */
typedef struct { const Family *family; const void *config; const WeightTypes *types; int dtype; } Written;

/* Writes for each layer one of two JSON texts, in brackets: `with` if the layer has the bit. */
static void put_layers(Buffer *b, const StackKind *s, int bit, const char *with, const char *without) {
    LayerBits layers;
    get_layers(&layers, s);
    buffer_text(b, "[");
    for (int l = 0; l < layers.L; l++) {
        if (l) buffer_text(b, ", ");
        buffer_text(b, layers.bits[l] & bit ? with : without);
    }
    buffer_text(b, "]");
}

/* Writes attention_types: the kinds of one period, and how often it comes. */
static void put_kinds(Buffer *b, StackKind s) {
    const int times = s.period && s.L % s.period == 0 ? s.L / s.period : 1;
    if (times > 1) s.L = s.period;
    buffer_text(b, "[[");
    put_layers(b, &s, WINDOWED, "\"local\"", "\"global\"");
    buffer_text(b, ", ");
    buffer_integer(b, times);
    buffer_text(b, "]]");
}

/* Writes a key about layers that differ. */
static void write_layers(Buffer *b, const Key *k, const StackKind *s) {
    if (k->kind == KEY_USES_WINDOW) { put_bool(b, k->key, s->window > 0); return; }
    if (k->kind == KEY_LAYERS_WINDOW) {
        if (s->window) put_int(b, k->key, s->window);
        else put_raw(b, k->key, "null");
        return;
    }
    put_key(b, k->key);
    switch (k->kind) {
    case KEY_LAYERS: put_layers(b, s, WINDOWED, "\"sliding_attention\"", "\"full_attention\""); break;
    case KEY_NO_ROPE: put_layers(b, s, UNROTATED, "0", "1"); break;
    case KEY_KIND_LIST: put_layers(b, s, WINDOWED, "\"local\"", "\"global\""); break;
    default: put_kinds(b, *s);
    }
}

/* Writes feed_forward_proj. */
static void write_feed(Buffer *b, const Key *k, const StackKind *s) {
    const int usual = s->gated && s->activation == ACT_GELU_TANH;
    put_raw(b, k->key, s->gated ? "\"gated-" : "\"");
    buffer_text(b, usual ? "gelu" : activation_name(NULL, s->activation));
    buffer_text(b, "\"");
}

/* Writes one key and its value. */
static void write_key(Buffer *b, const Key *k, const Written *w) {
    const void *at = (const char *)w->config + k->at;
    const int *number = at;
    const float *real = at;
    const StackKind *stack = at;
    const RewardConfig *judge = w->config;
    switch (k->kind) {
    case KEY_CLASS:
        put_raw(b, k->key, "[\"");
        buffer_text(b, w->family->architecture);
        buffer_text(b, "\"]");
        break;
    case KEY_TYPE: put_text(b, k->key, w->family->type); break;
    case KEY_DTYPE: put_text(b, k->key, torch_dtype(w->dtype)); break;
    case KEY_FIXED: put_raw(b, k->key, k->text); break;
    case KEY_ONLY: put_text(b, k->key, k->text); break;
    case KEY_OFF: if (k->text) put_raw(b, k->key, k->text); break;
    case KEY_ON: put_bool(b, k->key, 1); break;
    case KEY_ACT: put_text(b, k->key, activation_name(k->text, stack->activation)); break;
    case KEY_FEED: write_feed(b, k, stack); break;
    case KEY_FEED_ACT: put_text(b, k->key, activation_name(NULL, stack->activation)); break;
    case KEY_FEED_GATED: put_bool(b, k->key, stack->gated); break;
    case KEY_SCALED: put_bool(b, k->key, *number); break;
    case KEY_BIAS: put_bool(b, k->key, (stack->biases & k->max) == k->max); break;
    case KEY_WINDOW: put_id(b, k->key, *number ? *number : -1); break;
    case KEY_INNER:
        if (stack->F == 4 * stack->C) put_raw(b, k->key, "null");
        else put_int(b, k->key, stack->F);
        break;
    case KEY_SIZE: case KEY_DERIVED: case KEY_TOKEN: put_int(b, k->key, *number); break;
    case KEY_ID: put_id(b, k->key, *number); break;
    case KEY_EOS: put_eos(b, w->config); break;
    case KEY_FLAG: put_bool(b, k->key, *number); break;
    case KEY_EPS: put_real(b, k->key, *real, 1); break;
    case KEY_ROPE: put_rope(b, &stack->rope); break;
    case KEY_LAYERS: case KEY_USES_WINDOW: case KEY_LAYERS_WINDOW: case KEY_NO_ROPE: case KEY_KINDS:
    case KEY_KIND_LIST: write_layers(b, k, stack); break;
    case KEY_BITS: if (w->types && w->types->layers == NF4) put_quantization(b, w->types); break;
    case KEY_LABELS: put_labels(b, judge); break;
    case KEY_COUNT: put_int(b, k->key, judge->labels); break;
    case KEY_PROBLEM:
        put_text(b, k->key, problems[judge->problem ? judge->problem - 1 : judge->labels > 1]);
        break;
    default: break;
    }
}

/* Writes FOLDER/config.json. */
static int save_config(const Written *w, const char *folder, Pool *pool, Error *err) {
    const Key *list[KEYS_MAX];
    Buffer b = { pool, NULL, 0, 0, 0 };
    int code = folder_make(folder, err), n = w->family ? family_keys(list, w->family) : 0;
    if (code != OK) return code;
    if (!w->family)
        return fail(err, E_ARGUMENT, "a configuration with unknown names of tensors", folder, 0, 0);
    buffer_text(&b, "{");
    for (int i = 0; i < n; i++) write_key(&b, list[i], w);
    return put_file(&b, folder, "config.json", err);
}

int config_save(const ModelConfig *c, const WeightTypes *types, const char *folder, int dtype, Pool *pool,
                Error *err) {
    PoolMark mark = pool_mark(pool);
    Written w = { family_written(c->names, 0), c, types, dtype };
    Buffer g = { pool, NULL, 0, 0, 0 };
    int code = save_config(&w, folder, pool, err);
    buffer_text(&g, "{");
    put_raw(&g, "_from_model_config", "true");
    put_id(&g, "bos_token_id", c->bos);
    put_eos(&g, c);
    put_id(&g, "pad_token_id", c->pad);
    if (code == OK) code = put_file(&g, folder, "generation_config.json", err);
    pool_release(pool, mark);
    return code;
}

int reward_config_save(const RewardConfig *c, const char *folder, int dtype, Pool *pool, Error *err) {
    PoolMark mark = pool_mark(pool);
    Written w = { family_written(c->names, 1), c, NULL, dtype };
    int code = save_config(&w, folder, pool, err);
    pool_release(pool, mark);
    return code;
}
