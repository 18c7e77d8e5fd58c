/* files/config.c - configurations of Hugging Face folders, in and out: config.json, generation_config.json, adapter_config.json.
 * Source   transformers' configuration_llama.py, configuration_mistral.py, configuration_roberta.py and quantization_config.py (keys
 *          and defaults); peft's LoraConfig.
 * Needs    core, io, files/fields; a pool for the parsed files, which gets all of it back.
 * Never    guesses: an architecture, a key or a value that the project does not support is refused by name; a key that is absent has
 *          its class's default.
 * Edges    sizes are bounded (2^24; products of two below 2^48), and what has to hold between them is checked here, so that the models
 *          may multiply them. */
#include "files.h"

/* ---- Llama's config.json ---- */

typedef struct { char architecture[36], type[8]; } Architecture;

/* "architectures" and "model_type" (one of them is enough) have to name one that we know: returns which. */
static int field_architecture(Fields *f, const Architecture *known, int count) {
    const Json *list = field(f, "architectures"), *j;
    const char *type = field_text(f, "model_type", NULL);
    int which = -1;
    if (list && list->type != JSON_ARRAY) complain(f, E_FORMAT, "not a list:", "architectures");
    for (j = list ? list->child : NULL; j && f->code == OK; j = j->next) {
        for (int i = 0; i < count && which < 0; i++)
            if (j->type == JSON_STRING && strcmp(j->string, known[i].architecture) == 0) which = i;
        if (which < 0) complain(f, E_UNSUPPORTED, "architecture", j->type == JSON_STRING ? j->string : "?");
    }
    for (int i = 0; type && i < count && which < 0; i++)
        if (strcmp(type, known[i].type) == 0) which = i;
    if (which < 0 && type) complain(f, E_UNSUPPORTED, "model_type", type);
    else if (which < 0) complain(f, E_MISSING, "config.json without", "model_type");
    else if (type && strcmp(type, known[which].type) != 0) complain(f, E_UNSUPPORTED, "model_type", type);
    return which < 0 ? 0 : which;
}
static int add_eos(ModelConfig *c, int id) {
    for (int i = 0; i < c->eos_count; i++) if (c->eos[i] == id) return 1;
    if (c->eos_count == (int)(sizeof c->eos / sizeof *c->eos)) return 0;
    c->eos[c->eos_count++] = id;
    return 1;
}

/* eos_token_id: an id or a list of ids. fallback (-1: none) when absent. */
static void read_eos(Fields *f, ModelConfig *c, int fallback) {
    const Json *j = json_get(f->object, "eos_token_id"), *id;
    if (!j) { if (fallback >= 0) add_eos(c, fallback); return; }
    if (j->type == JSON_NULL) return;
    id = j->type == JSON_ARRAY ? j->child : j;
    for (; id; id = j->type == JSON_ARRAY ? id->next : NULL) {
        uint64_t value;
        if (!json_whole(id, &value) || value >= INT_MAX) { complain(f, E_FORMAT, "not a token id:", "eos_token_id"); return; }
        if (!add_eos(c, (int)value)) { complain(f, E_RANGE, "more ids than we keep:", "eos_token_id"); return; }
    }
}

/* rope_theta and rope_scaling, or rope_parameters, which holds both (transformers 5). */
static void read_rope(Fields *f, ModelConfig *c) {
    const Json *scaling = field(f, "rope_parameters");
    Fields s = *f;
    const char *type;
    c->stack.rope.theta = field_real(f, "rope_theta", 10000.0, 1e-3, 1e30);
    if (!scaling) scaling = field(f, "rope_scaling");
    c->stack.rope.type = ROPE_PLAIN;
    if (!scaling) return;
    if (scaling->type != JSON_OBJECT) { complain(f, E_FORMAT, "not an object:", "rope_scaling"); return; }
    s.object = scaling;
    c->stack.rope.theta = field_real(&s, "rope_theta", c->stack.rope.theta, 1e-3, 1e30);
    type = field_text(&s, "rope_type", field_text(&s, "type", "default"));
    if (!field(&s, "rope_type") && !field(&s, "type") && field(&s, "factor"))
        complain(&s, E_MISSING, "rope_scaling without", "rope_type");
    if (strcmp(type, "linear") == 0) c->stack.rope.type = ROPE_LINEAR;
    else if (strcmp(type, "llama3") == 0) c->stack.rope.type = ROPE_LLAMA3;
    else if (strcmp(type, "default") != 0) complain(&s, E_UNSUPPORTED, "rope_scaling type", type);
    for (const Json *j = scaling->child; j; j = j->next)
        if (j->type == JSON_OBJECT) complain(&s, E_UNSUPPORTED, "rope_parameters for a kind of layer:", j->key);
    if (c->stack.rope.type != ROPE_PLAIN) {
        c->stack.rope.factor = field_real(&s, "factor", 0, 1e-6, 1e6);
        if (!field(&s, "factor")) complain(&s, E_MISSING, "rope_scaling without", "factor");
    }
    if (c->stack.rope.type == ROPE_LLAMA3) {
        static const char keys[][40] = { "low_freq_factor", "high_freq_factor", "original_max_position_embeddings" };
        for (int i = 0; i < 3; i++) if (!field(&s, keys[i])) complain(&s, E_MISSING, "rope_scaling without", keys[i]);
        c->stack.rope.low = field_real(&s, keys[0], 1, 1e-6, 1e6);
        c->stack.rope.high = field_real(&s, keys[1], 4, 1e-6, 1e6);
        c->stack.rope.original = field_int(&s, keys[2], 8192, 1, SIZE_LIMIT);
        if (c->stack.rope.high <= c->stack.rope.low) complain(&s, E_RANGE, "not above low_freq_factor:", keys[1]);
    }
    f->code = s.code;
}

/* Sizes, and what has to hold between them. mistral: the defaults of that class. */
static void read_sizes(Fields *f, ModelConfig *c, int mistral) {
    c->V = field_int(f, "vocab_size", 32000, 1, SIZE_LIMIT);
    c->stack.C = field_int(f, "hidden_size", 4096, 1, SIZE_LIMIT);
    c->stack.F = field_int(f, "intermediate_size", mistral ? 14336 : 11008, 1, SIZE_LIMIT);
    c->stack.L = field_int(f, "num_hidden_layers", 32, 1, 4096);
    c->stack.H = field_int(f, "num_attention_heads", 32, 1, 65536);
    c->stack.K = field_int(f, "num_key_value_heads", mistral && !json_get(f->object, "num_key_value_heads") ? 8 : c->stack.H, 1, 65536);
    c->stack.D = field_int(f, "head_dim", c->stack.C / c->stack.H, 1, 65536);
    c->positions = field_int(f, "max_position_embeddings", mistral ? 131072 : 2048, 1, SIZE_LIMIT);
    c->stack.eps = (float)field_real(f, "rms_norm_eps", 1e-6, 1e-30, 1);
    c->tied = field_bool(f, "tie_word_embeddings", 0);
    if (f->code != OK) return;
    if (!field(f, "head_dim") && c->stack.C % c->stack.H) complain(f, E_RANGE, "no multiple of num_attention_heads:", "hidden_size");
    if (c->stack.H % c->stack.K) complain(f, E_RANGE, "no divisor of num_attention_heads:", "num_key_value_heads");
    if (c->stack.D < 1 || c->stack.D % 2) complain(f, E_RANGE, "not even:", "head_dim");
    if ((uint64_t)c->stack.H * (uint64_t)c->stack.D > SIZE_LIMIT) complain(f, E_RANGE, "too large with num_attention_heads:", "head_dim");
}

/* quantization_config of bitsandbytes' 4 bits, with BitsAndBytesConfig's defaults; *w is all zeros without one. Others are refused. */
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
    if (!field_bool(&q, "load_in_4bit", 0)) complain(&q, E_UNSUPPORTED, "quantization_config without", "load_in_4bit");
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

int config_quantization(WeightTypes *w, const char *folder, Pool *pool, Error *err) {
    PoolMark mark = pool_mark(pool);
    Fields f;
    int code = fields_open(&f, folder, "config.json", pool, err);
    memset(w, 0, sizeof *w);
    if (code == OK) read_quantization(&f, w);
    pool_release(pool, mark);
    return code == OK ? f.code : code;
}

static int load_config(ModelConfig *c, const char *folder, Pool *pool, Error *err) {
    static const Architecture known[] = {
        { "LlamaForCausalLM", "llama" }, { "MistralForCausalLM", "mistral" }, { "LLaMAForCausalLM", "llama" } };
    static const char off[][24] = { "attention_bias", "mlp_bias" };
    WeightTypes types;
    Fields f, g;
    int mistral, code = fields_open(&f, folder, "config.json", pool, err);
    char *generation;
    memset(c, 0, sizeof *c);
    if (code != OK) return code;
    mistral = field_architecture(&f, known, 3) == 1;
    /* Mistral's class attends to a window of 4096 unless its config says null */
    if (mistral && (!json_get(f.object, "sliding_window") || field(&f, "sliding_window")))
        complain(&f, E_UNSUPPORTED, "not supported:", "sliding_window");
    field_must_be(&f, "hidden_act", "silu");
    for (int i = 0; i < 2; i++) field_must_be_off(&f, off[i]);
    read_quantization(&f, &types);
    if (field_real(&f, "partial_rotary_factor", 1, -1e30, 1e30) != 1)
        complain(&f, E_UNSUPPORTED, "not supported:", "partial_rotary_factor");
    read_sizes(&f, c, mistral);
    read_rope(&f, c);
    c->bos = field_id(&f, "bos_token_id", 1);
    c->pad = field_id(&f, "pad_token_id", -1);
    read_eos(&f, c, 2);
    if (f.code != OK) return f.code;
    generation = path_in(folder, "generation_config.json", "", pool);       /* it may name more tokens that end a text */
    if (!generation) return fail(err, E_MEMORY, "memory for a configuration", folder, 0, 0);
    if (!file_exists(generation)) return OK;
    code = fields_open(&g, folder, "generation_config.json", pool, err);
    if (code != OK) return code;
    read_eos(&g, c, -1);
    return g.code;
}

int config_load(ModelConfig *c, const char *folder, Pool *pool, Error *err) {
    PoolMark mark = pool_mark(pool);
    int code = load_config(c, folder, pool, err);
    pool_release(pool, mark);
    return code;
}
static void put_eos(Buffer *b, const ModelConfig *c) {
    if (c->eos_count <= 1) { put_id(b, "eos_token_id", c->eos_count ? c->eos[0] : -1); return; }
    put_key(b, "eos_token_id");
    for (int i = 0; i < c->eos_count; i++) { buffer_text(b, i ? ", " : "["); buffer_integer(b, c->eos[i]); }
    buffer_text(b, "]");
}

/* Old versions of transformers want exactly {type, factor} for linear scaling; llama3 came with the newer key. */
static void put_rope(Buffer *b, const ModelConfig *c) {
    put_real(b, "rope_theta", c->stack.rope.theta, 0);
    if (c->stack.rope.type == ROPE_PLAIN) { put_raw(b, "rope_scaling", "null"); return; }
    put_raw(b, "rope_scaling", c->stack.rope.type == ROPE_LINEAR ? "{\"type\": \"linear\", \"factor\": "
                                                              : "{\"rope_type\": \"llama3\", \"factor\": ");
    buffer_real(b, c->stack.rope.factor, 0);
    if (c->stack.rope.type == ROPE_LLAMA3) {
        buffer_text(b, ", \"low_freq_factor\": ");
        buffer_real(b, c->stack.rope.low, 0);
        buffer_text(b, ", \"high_freq_factor\": ");
        buffer_real(b, c->stack.rope.high, 0);
        buffer_text(b, ", \"original_max_position_embeddings\": ");
        buffer_integer(b, c->stack.rope.original);
    }
    buffer_text(b, "}");
}

/* As transformers writes BitsAndBytesConfig. */
static void put_quantization(Buffer *b, const WeightTypes *w) {
    put_raw(b, "quantization_config", "{\"_load_in_4bit\": true, \"_load_in_8bit\": false, \"bnb_4bit_compute_dtype\": \"");
    buffer_text(b, torch_dtype(w->compute));
    buffer_text(b, "\", \"bnb_4bit_quant_storage\": \"uint8\", \"bnb_4bit_quant_type\": \"");
    buffer_text(b, quant_name(w->kind));
    buffer_text(b, "\", \"bnb_4bit_use_double_quant\": ");
    buffer_text(b, w->doubled ? "true" : "false");
    buffer_text(b, ", \"llm_int8_enable_fp32_cpu_offload\": false, \"llm_int8_has_fp16_weight\": false, \"llm_int8_skip_modules\": null, "
                   "\"llm_int8_threshold\": 6.0, \"load_in_4bit\": true, \"load_in_8bit\": false, \"quant_method\": \"bitsandbytes\"}");
}

int config_save(const ModelConfig *c, const WeightTypes *types, const char *folder, int dtype, Pool *pool, Error *err) {
    PoolMark mark = pool_mark(pool);
    Buffer b = { pool, NULL, 0, 0, 0 }, g = { pool, NULL, 0, 0, 0 };
    int code = folder_make(folder, err);
    buffer_text(&b, "{");
    put_raw(&b, "architectures", "[\"LlamaForCausalLM\"]");
    put_raw(&b, "attention_bias", "false");
    put_raw(&b, "attention_dropout", "0.0");
    put_id(&b, "bos_token_id", c->bos);
    put_eos(&b, c);
    put_int(&b, "head_dim", c->stack.D);
    put_text(&b, "hidden_act", "silu");
    put_int(&b, "hidden_size", c->stack.C);
    put_raw(&b, "initializer_range", "0.02");
    put_int(&b, "intermediate_size", c->stack.F);
    put_int(&b, "max_position_embeddings", c->positions);
    put_raw(&b, "mlp_bias", "false");
    put_text(&b, "model_type", "llama");
    put_int(&b, "num_attention_heads", c->stack.H);
    put_int(&b, "num_hidden_layers", c->stack.L);
    put_int(&b, "num_key_value_heads", c->stack.K);
    put_id(&b, "pad_token_id", c->pad);
    put_raw(&b, "pretraining_tp", "1");
    if (types && types->layers == NF4) put_quantization(&b, types);
    put_real(&b, "rms_norm_eps", c->stack.eps, 1);
    put_rope(&b, c);
    put_raw(&b, "tie_word_embeddings", c->tied ? "true" : "false");
    put_text(&b, "torch_dtype", torch_dtype(dtype));
    put_raw(&b, "use_cache", "true");
    put_int(&b, "vocab_size", c->V);
    buffer_text(&g, "{");
    put_raw(&g, "_from_model_config", "true");
    put_id(&g, "bos_token_id", c->bos);
    put_eos(&g, c);
    put_id(&g, "pad_token_id", c->pad);
    if (code == OK) code = put_file(&b, folder, "config.json", err);
    if (code == OK) code = put_file(&g, folder, "generation_config.json", err);
    pool_release(pool, mark);
    return code;
}

/* ---- RoBERTa's config.json ---- */

/* id2label {"0": name, ...}: every id from 0 on, once. Without it: LABEL_0 ... for num_labels (2). */
static void read_labels(Fields *f, RewardConfig *c) {
    const Json *map = field(f, "id2label"), *j;
    c->labels = field_int(f, "num_labels", 2, 1, LABELS_MAX);
    if (!map) {
        for (int i = 0; i < c->labels; i++) name_format(c->label[i], sizeof c->label[i], "LABEL_%d", i);
        return;
    }
    if (map->type != JSON_OBJECT || !map->count) { complain(f, E_FORMAT, "not an object with names:", "id2label"); return; }
    if (map->count > LABELS_MAX) { complain(f, E_RANGE, "more labels than 32:", "id2label"); return; }
    if (field(f, "num_labels") && (size_t)c->labels != map->count) complain(f, E_FORMAT, "does not fit num_labels:", "id2label");
    c->labels = (int)map->count;
    for (j = map->child; j; j = j->next) {
        char *end;
        long id = j->key[0] >= '0' && j->key[0] <= '9' ? strtol(j->key, &end, 10) : -1;
        if (id < 0 || id >= c->labels || *end || c->label[id][0] || j->type != JSON_STRING || !j->length) {
            complain(f, E_FORMAT, "not a list of names from 0 on:", "id2label");
            return;
        }
        if (j->length >= sizeof c->label[id]) { complain(f, E_RANGE, "label name too long:", j->string); return; }
        memcpy(c->label[id], j->string, j->length + 1);
    }
}

static int load_reward_config(RewardConfig *c, const char *folder, Pool *pool, Error *err) {
    static const Architecture known[] = { { "RobertaForSequenceClassification", "roberta" } };
    Fields f;
    int code = fields_open(&f, folder, "config.json", pool, err);
    memset(c, 0, sizeof *c);
    if (code != OK) return code;
    field_architecture(&f, known, 1);
    field_must_be(&f, "hidden_act", "gelu");
    field_must_be(&f, "position_embedding_type", "absolute");
    field_must_be_off(&f, "is_decoder");
    field_must_be_off(&f, "add_cross_attention");
    field_must_be_off(&f, "quantization_config");
    c->V = field_int(&f, "vocab_size", 50265, 1, SIZE_LIMIT);
    c->stack.C = field_int(&f, "hidden_size", 768, 1, SIZE_LIMIT);
    c->stack.L = field_int(&f, "num_hidden_layers", 12, 1, 4096);
    c->stack.H = field_int(&f, "num_attention_heads", 12, 1, 65536);
    c->stack.F = field_int(&f, "intermediate_size", 3072, 1, SIZE_LIMIT);
    c->positions = field_int(&f, "max_position_embeddings", 512, 1, SIZE_LIMIT);
    c->types = field_int(&f, "type_vocab_size", 2, 1, SIZE_LIMIT);
    c->stack.eps = (float)field_real(&f, "layer_norm_eps", 1e-12, 1e-30, 1);
    c->pad = field_int(&f, "pad_token_id", 1, 0, SIZE_LIMIT);
    c->bos = field_int(&f, "bos_token_id", 0, 0, SIZE_LIMIT);
    c->eos = field_int(&f, "eos_token_id", 2, 0, SIZE_LIMIT);
    read_labels(&f, c);
    if (f.code != OK) return f.code;
    if (c->stack.C % c->stack.H) complain(&f, E_RANGE, "no multiple of num_attention_heads:", "hidden_size");
    if (c->bos >= c->V || c->eos >= c->V || c->pad >= c->V)
        complain(&f, E_RANGE, "smaller than the ids of special tokens:", "vocab_size");
    if (c->positions < c->pad + 3)          /* the first token has position pad + 1 */
        complain(&f, E_RANGE, "no room for a text:", "max_position_embeddings");
    return f.code;
}

int reward_config_load(RewardConfig *c, const char *folder, Pool *pool, Error *err) {
    PoolMark mark = pool_mark(pool);
    int code = load_reward_config(c, folder, pool, err);
    pool_release(pool, mark);
    return code;
}

/* id2label and label2id. */
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

int reward_config_save(const RewardConfig *c, const char *folder, int dtype, Pool *pool, Error *err) {
    PoolMark mark = pool_mark(pool);
    Buffer b = { pool, NULL, 0, 0, 0 };
    int code = folder_make(folder, err);
    buffer_text(&b, "{");
    put_raw(&b, "architectures", "[\"RobertaForSequenceClassification\"]");
    put_raw(&b, "attention_probs_dropout_prob", "0.1");
    put_int(&b, "bos_token_id", c->bos);
    put_raw(&b, "classifier_dropout", "null");
    put_int(&b, "eos_token_id", c->eos);
    put_text(&b, "hidden_act", "gelu");
    put_raw(&b, "hidden_dropout_prob", "0.1");
    put_int(&b, "hidden_size", c->stack.C);
    put_raw(&b, "initializer_range", "0.02");
    put_int(&b, "intermediate_size", c->stack.F);
    put_labels(&b, c);
    put_real(&b, "layer_norm_eps", c->stack.eps, 1);
    put_int(&b, "max_position_embeddings", c->positions);
    put_text(&b, "model_type", "roberta");
    put_int(&b, "num_attention_heads", c->stack.H);
    put_int(&b, "num_hidden_layers", c->stack.L);
    put_int(&b, "num_labels", c->labels);
    put_int(&b, "pad_token_id", c->pad);
    put_text(&b, "position_embedding_type", "absolute");
    put_text(&b, "problem_type", c->labels == 1 ? "regression" : "single_label_classification");
    put_text(&b, "torch_dtype", torch_dtype(dtype));
    put_int(&b, "type_vocab_size", c->types);
    put_raw(&b, "use_cache", "true");
    put_int(&b, "vocab_size", c->V);
    if (code == OK) code = put_file(&b, folder, "config.json", err);
    pool_release(pool, mark);
    return code;
}

/* ---- peft's adapter_config.json ---- */

/* One more name for the comma-separated list. */
static void add_target(Fields *f, LoraConfig *l, const char *name, size_t length) {
    size_t used = strlen(l->targets);
    if (!length || strlen(name) != length || strchr(name, ',')) {
        complain(f, E_FORMAT, "not a module's name:", "target_modules");
        return;
    }
    if (used + length + 2 > sizeof l->targets) { complain(f, E_RANGE, "list too long:", "target_modules"); return; }
    if (used) l->targets[used++] = ',';
    memcpy(l->targets + used, name, length + 1);
}

/* A list of names; null means peft's default for Llama; of strings only "all-linear", since others are regular expressions. */
static void read_targets(Fields *f, LoraConfig *l) {
    const Json *j = field(f, "target_modules"), *name;
    if (!j) strcpy(l->targets, "q_proj,v_proj");
    else if (j->type == JSON_STRING && strcmp(j->string, "all-linear") == 0)
        strcpy(l->targets, "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj");
    else if (j->type == JSON_STRING) complain(f, E_UNSUPPORTED, "target_modules as a regular expression:", j->string);
    else if (j->type != JSON_ARRAY || !j->count) complain(f, E_FORMAT, "not a list of names:", "target_modules");
    else for (name = j->child; name && f->code == OK; name = name->next) {
        if (name->type != JSON_STRING) complain(f, E_FORMAT, "not a list of names:", "target_modules");
        else add_target(f, l, name->string, name->length);
    }
}

static int load_adapter_config(LoraConfig *l, const char *folder, Pool *pool, Error *err) {
    static const char off[][24] = {
        "use_dora", "use_qalora", "rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out", "lora_bias",
        "layers_to_transform", "layers_pattern", "layer_replication", "trainable_token_indices", "exclude_modules",
        "target_parameters", "megatron_config", "alora_invocation_tokens", "arrow_config" };
    Fields f;
    const Json *init;
    int code = fields_open(&f, folder, "adapter_config.json", pool, err);
    if (code != OK) return code;
    if (!field(&f, "peft_type")) complain(&f, E_MISSING, "adapter_config.json without", "peft_type");
    field_must_be(&f, "peft_type", "LORA");
    field_must_be(&f, "task_type", "CAUSAL_LM");
    field_must_be(&f, "bias", "none");
    for (size_t i = 0; i < sizeof off / sizeof *off; i++) field_must_be_off(&f, off[i]);
    init = field(&f, "init_lora_weights");      /* pissa, olora, loftq, corda: these change the base weights too */
    if (init && init->type == JSON_STRING && strcmp(init->string, "gaussian") != 0 && strcmp(init->string, "eva") != 0
        && strcmp(init->string, "orthogonal") != 0) complain(&f, E_UNSUPPORTED, "init_lora_weights", init->string);
    l->R = field_int(&f, "r", 8, 1, 65536);
    l->alpha = (float)field_real(&f, "lora_alpha", 8, -1e6, 1e6);
    l->rslora = field_bool(&f, "use_rslora", 0);
    l->targets[0] = 0;
    read_targets(&f, l);
    return f.code;
}

int adapter_config_load(LoraConfig *l, const char *folder, Pool *pool, Error *err) {
    PoolMark mark = pool_mark(pool);
    int code = load_adapter_config(l, folder, pool, err);
    pool_release(pool, mark);
    return code;
}

int adapter_config_save(const LoraConfig *l, const char *folder, const char *base_model, Pool *pool, Error *err) {
    PoolMark mark = pool_mark(pool);
    Buffer b = { pool, NULL, 0, 0, 0 };
    int code = folder_make(folder, err);
    const char *name, *end;
    buffer_text(&b, "{");
    put_raw(&b, "alpha_pattern", "{}");
    put_raw(&b, "auto_mapping", "null");
    if (base_model) put_text(&b, "base_model_name_or_path", base_model);
    else put_raw(&b, "base_model_name_or_path", "null");
    put_text(&b, "bias", "none");
    put_raw(&b, "fan_in_fan_out", "false");
    put_raw(&b, "inference_mode", "true");
    put_raw(&b, "init_lora_weights", "true");
    put_raw(&b, "layer_replication", "null");
    put_raw(&b, "layers_pattern", "null");
    put_raw(&b, "layers_to_transform", "null");
    put_raw(&b, "loftq_config", "{}");
    if (floor(l->alpha) == l->alpha && fabs(l->alpha) < 1e9) put_int(&b, "lora_alpha", (long long)l->alpha);
    else put_real(&b, "lora_alpha", l->alpha, 1);
    if (l->dropout > 0) put_real(&b, "lora_dropout", l->dropout, 1);
    else put_raw(&b, "lora_dropout", "0.0");
    put_raw(&b, "megatron_config", "null");
    put_text(&b, "megatron_core", "megatron.core");
    put_raw(&b, "modules_to_save", "null");
    put_text(&b, "peft_type", "LORA");
    put_int(&b, "r", l->R);
    put_raw(&b, "rank_pattern", "{}");
    put_raw(&b, "revision", "null");
    put_raw(&b, "target_modules", "[");
    for (name = l->targets; *name; name = *end ? end + 1 : end) {
        for (end = name; *end && *end != ','; end++) ;
        if (name != l->targets) buffer_text(&b, ", ");
        buffer_json_string(&b, name, (size_t)(end - name));
    }
    buffer_text(&b, "]");
    put_text(&b, "task_type", "CAUSAL_LM");
    put_raw(&b, "use_dora", "false");
    put_raw(&b, "use_rslora", l->rslora ? "true" : "false");
    if (code == OK) code = put_file(&b, folder, "adapter_config.json", err);
    pool_release(pool, mark);
    return code;
}
