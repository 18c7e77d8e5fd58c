/* files/adapter_config.c - reads and writes peft's adapter_config.json.
 * Source   peft's LoraConfig and PromptTuningConfig (keys and defaults).
 * Needs    core, io, files/fields; a pool for the parsed file and the lists of the configuration.
 * Never    ignores a feature that changes what an adapter computes: such a feature is refused by name. */
#include "files.h"

/* Adds a module's name to a comma-separated list. */
static void add_name(Fields *f, Buffer *b, const char *name, size_t length, const char *key) {
    if (!length || strlen(name) != length || strpbrk(name, ", "))
        complain(f, E_FORMAT, "not a module's name:", key);
    if (b->length) buffer_text(b, ",");
    buffer_text(b, name);
}

/* Returns the list of names that a key has, comma-separated; NULL if there is none. A text is a list of one
 * name, or a regular expression if `regex` is not NULL: then sets *regex to 1, and returns it. */
static const char *read_names(Fields *f, const char *key, int *regex, Pool *pool) {
    const Json *j = field(f, key), *name;
    Buffer b = { pool, NULL, 0, 0, 0 };
    if (!j || (j->type == JSON_ARRAY && !j->count) || (j->type == JSON_STRING && !j->length)) return NULL;
    if (j->type == JSON_STRING && regex) {
        *regex = strcmp(j->string, "all-linear") != 0;
        if (strlen(j->string) != j->length) complain(f, E_FORMAT, "a zero byte in", key);
        return j->string;
    }
    if (j->type == JSON_STRING) add_name(f, &b, j->string, j->length, key);
    else if (j->type != JSON_ARRAY) complain(f, E_FORMAT, "not a list of names:", key);
    else for (name = j->child; name && f->code == OK; name = name->next) {
        if (name->type != JSON_STRING) complain(f, E_FORMAT, "not a list of names:", key);
        else add_name(f, &b, name->string, name->length, key);
    }
    buffer_u8(&b, 0);
    if (b.failed) complain(f, E_MEMORY, "no memory for", key);
    return f->code == OK ? (const char *)b.data : NULL;
}

/* Reads target_modules. null means peft's defaults, of which a model has those of its own family. */
static void read_targets(Fields *f, LoraConfig *l, Pool *pool) {
    const Json *j = field(f, "target_modules");
    l->targets = read_names(f, "target_modules", &l->targets_regex, pool);
    if (l->targets) return;
    if (j) complain(f, E_FORMAT, "not a list of names:", "target_modules");
    l->targets = "q_proj,v_proj,c_attn,query,value,q_lin,v_lin,q,v";
}

/* Returns 1 if a comma-separated list has the name. */
static int has_name(const char *list, const char *name) {
    const size_t n = strlen(name);
    for (size_t m; list && *list; list += m + (list[m] == ',')) {
        m = strcspn(list, ",");
        if (m == n && memcmp(list, name, n) == 0) return 1;
    }
    return 0;
}

/* Reads modules_to_save. With SEQ_CLS peft adds the names of classifiers' heads. */
static void read_saved(Fields *f, LoraConfig *l, Pool *pool) {
    static const char *const heads[] = { "classifier", "score" };
    Buffer b = { pool, NULL, 0, 0, 0 };
    l->save = read_names(f, "modules_to_save", NULL, pool);
    if (!l->task || strcmp(l->task, "SEQ_CLS") != 0 || f->code != OK) return;
    if (l->save) buffer_text(&b, l->save);
    for (int i = 0; i < 2; i++) {
        if (has_name(l->save, heads[i])) continue;
        if (b.length) buffer_text(&b, ",");
        buffer_text(&b, heads[i]);
    }
    buffer_u8(&b, 0);
    if (b.failed) complain(f, E_MEMORY, "no memory for", "modules_to_save");
    else l->save = (const char *)b.data;
}

/* Reads layers_to_transform, a number or a list of numbers, and layers_pattern. */
static void read_layers(Fields *f, LoraConfig *l, Pool *pool) {
    const Json *j = field(f, "layers_to_transform"), *n = j && j->type == JSON_ARRAY ? j->child : j;
    const size_t count = j && j->type == JSON_ARRAY ? j->count : j != NULL;
    int *layer = pool_take(pool, count + 1, sizeof *layer);
    uint64_t value;
    l->layers_pattern = read_names(f, "layers_pattern", NULL, pool);
    for (const char *c = l->layers_pattern; c && *c; c++)
        if (strchr("\\[](){}*+?|^$", *c))
            complain(f, E_UNSUPPORTED, "layers_pattern as a regular expression:", l->layers_pattern);
    if (!layer) complain(f, E_MEMORY, "no memory for", "layers_to_transform");
    for (size_t i = 0; i < count && f->code == OK; i++, n = n->next) {
        if (!json_whole(n, &value) || value > SIZE_LIMIT)
            complain(f, E_FORMAT, "not a list of layers:", "layers_to_transform");
        else layer[l->layers++] = (int)value;
    }
    l->layer = layer;
    if (l->layers_pattern && !count)
        complain(f, E_FORMAT, "layers_pattern without layers_to_transform:", l->layers_pattern);
    if (count && l->targets_regex)
        complain(f, E_FORMAT, "layers_to_transform beside a regular expression:", l->targets);
}

/* Reads rank_pattern or alpha_pattern: an object whose keys are patterns of modules' names. */
static const LoraPattern *read_patterns(Fields *f, const char *key, int *count, double least, double most,
                                        Pool *pool) {
    const Json *j = field(f, key);
    LoraPattern *list = pool_take(pool, j ? j->count + 1 : 1, sizeof *list);
    if (j && j->type != JSON_OBJECT) complain(f, E_FORMAT, "not an object:", key);
    if (!list) complain(f, E_MEMORY, "no memory for", key);
    for (j = j && f->code == OK ? j->child : NULL; j && f->code == OK; j = j->next) {
        if (strlen(j->key) != j->key_length) complain(f, E_FORMAT, "a zero byte in", key);
        if (j->type != JSON_NUMBER || !(j->number >= least && j->number <= most))
            complain(f, E_RANGE, "out of range:", key);
        list[*count].pattern = j->key;
        list[(*count)++].value = (f32)j->number;
    }
    return list;
}

static int read_bias(Fields *f) {
    static const char *const name[] = { "none", "all", "lora_only" };
    const char *bias = field_text(f, "bias", "none");
    for (int i = 0; i < 3; i++) if (strcmp(bias, name[i]) == 0) return i;
    complain(f, E_UNSUPPORTED, "bias", bias);
    return 0;
}

/* Complains about features that change what an adapter computes and are not supported. */
static void refuse_features(Fields *f) {
    static const char off[][24] = {
        "use_qalora", "lora_bias", "layer_replication", "target_parameters", "trainable_token_indices",
        "megatron_config", "alora_invocation_tokens", "arrow_config", "ensure_weight_tying", "use_bdlora",
        "kasa_config", "monteclora_config", "velora_config" };
    const Json *init = field(f, "init_lora_weights");   /* pissa, olora, loftq, corda change the base, too */
    for (size_t i = 0; i < sizeof off / sizeof *off; i++) field_must_be_off(f, off[i]);
    if (init && init->type == JSON_STRING && strcmp(init->string, "gaussian") != 0
        && strcmp(init->string, "eva") != 0 && strcmp(init->string, "orthogonal") != 0)
        complain(f, E_UNSUPPORTED, "init_lora_weights", init->string);
}

/* Reads a soft prompt's configuration. peft's own default of num_transformer_submodules is 2 for a model with
 * an encoder: the file then has rows for its decoder, too, which peft does not use. */
static void read_prompt(Fields *f, PromptConfig *p, const char *task) {
    const int encoder = task && strcmp(task, "SEQ_2_SEQ_LM") == 0;
    const char *init = field_text(f, "prompt_tuning_init", "RANDOM");
    if (task && strcmp(task, "SEQ_CLS") == 0)
        complain(f, E_UNSUPPORTED, "a soft prompt of a judge: task_type", task);
    field_must_be_off(f, "modules_to_save");
    if (!field(f, "num_virtual_tokens"))
        complain(f, E_MISSING, "a soft prompt without", "num_virtual_tokens");
    p->rows = field_int(f, "num_virtual_tokens", 1, 1, 65536);
    p->stored = p->rows * field_int(f, "num_transformer_submodules", 1 + encoder, 1, 1 + encoder);
    p->width = field_int(f, "token_dim", 0, 1, SIZE_LIMIT);
    p->heads = field_int(f, "num_attention_heads", 0, 1, SIZE_LIMIT);
    p->layers = field_int(f, "num_layers", 0, 1, SIZE_LIMIT);
    p->text = field_text(f, "prompt_tuning_init_text", NULL);
    p->tokenizer = field_text(f, "tokenizer_name_or_path", NULL);
    p->init = strcmp(init, "TEXT") == 0 ? PROMPT_TEXT : strcmp(init, "RANDOM") == 0 ? PROMPT_NORMAL
                                                                                    : PROMPT_VOCABULARY;
}

/* Returns 1 if the configuration is a soft prompt's. */
static int is_prompt(Fields *f) { return strcmp(field_text(f, "peft_type", ""), "PROMPT_TUNING") == 0; }

/* Reads the soft prompt that is beside low-rank pairs, if there is one: it has the folder FOLDER/prompt. OK
 * or a code. */
static int read_prompt_beside(LoraConfig *l, const char *folder, Pool *pool, Error *err) {
    const char *own = path_in(folder, "prompt", "", pool);
    Fields f;
    int code = own ? fields_open(&f, own, "adapter_config.json", pool, NULL) : E_MEMORY;
    if (code == E_MISSING) return OK;
    if (!own) return fail(err, code, "memory for a path", folder, 0, 0);
    code = fields_open(&f, own, "adapter_config.json", pool, err);
    if (code != OK) return code;
    field_must_be(&f, "peft_type", "PROMPT_TUNING");
    read_prompt(&f, &l->prompt, l->task);
    return f.code;
}

int adapter_config_load(LoraConfig *l, const char *folder, Pool *pool, Error *err) {
    Fields f;
    int code = fields_open(&f, folder, "adapter_config.json", pool, err);
    if (code != OK) return code;
    memset(l, 0, sizeof *l);
    if (!field(&f, "peft_type")) complain(&f, E_MISSING, "adapter_config.json without", "peft_type");
    l->task = field_text(&f, "task_type", NULL);
    if (l->task && strcmp(l->task, "SEQ_CLS") != 0 && strcmp(l->task, "SEQ_2_SEQ_LM") != 0)
        field_must_be(&f, "task_type", "CAUSAL_LM");
    l->peft = folder;
    if (is_prompt(&f)) {
        read_prompt(&f, &l->prompt, l->task);
        if (f.code == E_UNSUPPORTED)
            advise(err, l->task && strcmp(l->task, "SEQ_CLS") == 0 ? "a judge's adapter of peft_type LORA"
                        : "a soft prompt that was trained alone, without modules_to_save");
        return f.code;
    }
    field_must_be(&f, "peft_type", "LORA");
    if (f.code == E_UNSUPPORTED) {
        advise(err, "an adapter of peft_type LORA or PROMPT_TUNING; those of other types that change weights "
                    "can be merged in peft (merge_and_unload, save_pretrained)");
        return f.code;
    }
    refuse_features(&f);
    l->bias = read_bias(&f);
    l->R = field_int(&f, "r", 8, 1, 65536);
    l->alpha = (f32)field_real(&f, "lora_alpha", 8, -1e6, 1e6);
    l->dropout = (f32)field_real(&f, "lora_dropout", 0, 0, 1);
    l->rslora = field_bool(&f, "use_rslora", 0);
    l->dora = field_bool(&f, "use_dora", 0);
    field_bool(&f, "fan_in_fan_out", 0);    /* peft sets it by the model, and so does lora_carve */
    read_targets(&f, l, pool);
    l->exclude = read_names(&f, "exclude_modules", &l->exclude_regex, pool);
    read_saved(&f, l, pool);
    read_layers(&f, l, pool);
    l->rank = read_patterns(&f, "rank_pattern", &l->rank_count, 1, 65536, pool);
    l->alphas = read_patterns(&f, "alpha_pattern", &l->alphas_count, -1e6, 1e6, pool);
    for (int i = 0; i < l->rank_count; i++)
        if (floor((double)l->rank[i].value) != (double)l->rank[i].value)
            complain(&f, E_FORMAT, "not a whole number:", "rank_pattern");
    if (f.code == E_UNSUPPORTED) advise(err, MERGE_ADVICE);
    return f.code == OK ? read_prompt_beside(l, folder, pool, err) : f.code;
}

/* Sets *whole to 1 if the folder is a model's: it has config.json and weights. OK or E_MEMORY. */
static int is_model(int *whole, const char *folder, Pool *pool, Error *err) {
    static const char *const name[] = { "config.json", "model.safetensors", "model.safetensors.index.json",
                                        "pytorch_model.bin", "pytorch_model.bin.index.json" };
    int there[5];
    for (int i = 0; i < 5; i++) {
        const char *path = path_in(folder, name[i], "", pool);
        if (!path) return fail(err, E_MEMORY, "memory for a path", folder, 0, 0);
        there[i] = file_exists(path);
    }
    *whole = there[0] && (there[1] || there[2] || there[3] || there[4]);
    return OK;
}

int adapter_base(const char **base, const char *folder, Pool *pool, Error *err) {
    const char *name;
    char *beside;
    Fields f;
    int whole = 0, code = is_model(&whole, folder, pool, err);
    *base = NULL;
    if (code != OK || whole) return code;
    code = fields_open(&f, folder, "adapter_config.json", pool, NULL);
    if (code == E_MISSING) return OK;
    code = fields_open(&f, folder, "adapter_config.json", pool, err);
    if (code == E_FORMAT || code == E_TRUNCATED) advise(err, "copy or make this file again: it is damaged");
    if (code != OK) return code;
    name = field_text(&f, "base_model_name_or_path", "");
    beside = path_in(folder, name, "", pool);
    if (f.code != OK) return f.code;
    if (!beside) return fail(err, E_MEMORY, "memory for a path", folder, 0, 0);
    *base = !name[0] ? NULL : folder_exists(name) ? name : folder_exists(beside) ? beside : NULL;
    return *base ? OK : refuse(err, E_MISSING, folder,
                               "this is an adapter, and the model that it adapts is not here: '%.80s'", name);
}

/* Writes a real number as peft does: a whole one without a point. */
static void put_number(Buffer *b, f32 x) {
    if (floor((double)x) == (double)x && fabs((double)x) < 1e9) buffer_integer(b, (long long)x);
    else buffer_real(b, (double)x, 1);
}

/* Writes a comma-separated list as a JSON list, a regular expression as a text, NULL as null. */
static void put_names(Buffer *b, const char *key, const char *list, int regex) {
    const char *name = list, *end;
    if (!list) { put_raw(b, key, "null"); return; }
    if (regex) { put_text(b, key, list); return; }
    put_raw(b, key, "[");
    for (; *name; name = *end ? end + 1 : end) {
        for (end = name; *end && *end != ','; end++) ;
        if (name != list) buffer_text(b, ", ");
        buffer_json_string(b, name, (size_t)(end - name));
    }
    buffer_text(b, "]");
}

static void put_patterns(Buffer *b, const char *key, const LoraPattern *list, int count) {
    put_raw(b, key, "{");
    for (int i = 0; i < count; i++) {
        if (i) buffer_text(b, ", ");
        buffer_json_string(b, list[i].pattern, strlen(list[i].pattern));
        buffer_text(b, ": ");
        put_number(b, list[i].value);
    }
    buffer_text(b, "}");
}

static void put_layers(Buffer *b, const LoraConfig *l) {
    put_names(b, "layers_pattern", l->layers_pattern, 0);
    put_raw(b, "layers_to_transform", l->layers ? "[" : "null");
    for (int i = 0; i < l->layers; i++) {
        if (i) buffer_text(b, ", ");
        buffer_integer(b, l->layer[i]);
    }
    if (l->layers) buffer_text(b, "]");
}

/* Writes a text, or null for NULL. */
static void put_text_or_null(Buffer *b, const char *key, const char *text) {
    if (text) put_text(b, key, text);
    else put_raw(b, key, "null");
}

/* Writes a number that is known, or null for 0. */
static void put_known(Buffer *b, const char *key, int n) {
    if (n) put_int(b, key, n);
    else put_raw(b, key, "null");
}

/* Writes the configuration of the soft prompt. Rows for a decoder, which peft does not use, are not kept:
 * therefore num_transformer_submodules is 1. */
static int save_prompt(const LoraConfig *l, const char *folder, const char *base_model, Pool *pool,
                       Error *err) {
    static const char *const init[] = { "SAMPLE_VOCAB", "RANDOM", "TEXT" };
    const PromptConfig *p = &l->prompt;
    Buffer b = { pool, NULL, 0, 0, 0 };
    int code = folder_make(folder, err);
    buffer_text(&b, "{");
    put_raw(&b, "auto_mapping", "null");
    put_text_or_null(&b, "base_model_name_or_path", base_model);
    put_raw(&b, "inference_mode", "true");
    put_raw(&b, "modules_to_save", "null");
    put_known(&b, "num_attention_heads", p->heads);
    put_known(&b, "num_layers", p->layers);
    put_raw(&b, "num_transformer_submodules", "1");
    put_int(&b, "num_virtual_tokens", p->rows);
    put_text(&b, "peft_type", "PROMPT_TUNING");
    put_text(&b, "prompt_tuning_init", init[p->init]);
    put_text_or_null(&b, "prompt_tuning_init_text", p->text);
    put_raw(&b, "revision", "null");
    put_text_or_null(&b, "task_type", l->task);
    put_known(&b, "token_dim", p->width);
    put_raw(&b, "tokenizer_kwargs", "null");
    put_text_or_null(&b, "tokenizer_name_or_path", p->tokenizer);
    return code == OK ? put_file(&b, folder, "adapter_config.json", err) : code;
}

static int save_pairs(const LoraConfig *l, const char *folder, const char *base_model, Pool *pool,
                      Error *err) {
    static const char *const bias[] = { "none", "all", "lora_only" };
    Buffer b = { pool, NULL, 0, 0, 0 };
    int code = folder_make(folder, err);
    buffer_text(&b, "{");
    put_patterns(&b, "alpha_pattern", l->alphas, l->alphas_count);
    put_raw(&b, "auto_mapping", "null");
    put_text_or_null(&b, "base_model_name_or_path", base_model);
    put_text(&b, "bias", bias[l->bias]);
    /* older versions of peft refuse the key */
    if (l->exclude) put_names(&b, "exclude_modules", l->exclude, l->exclude_regex);
    put_bool(&b, "fan_in_fan_out", l->transposed);
    put_raw(&b, "inference_mode", "true");
    put_raw(&b, "init_lora_weights", "true");
    put_raw(&b, "layer_replication", "null");
    put_layers(&b, l);
    put_raw(&b, "loftq_config", "{}");
    put_key(&b, "lora_alpha");
    put_number(&b, l->alpha);
    if (l->dropout > 0) put_real(&b, "lora_dropout", (double)l->dropout, 1);
    else put_raw(&b, "lora_dropout", "0.0");
    put_raw(&b, "megatron_config", "null");
    put_text(&b, "megatron_core", "megatron.core");
    put_names(&b, "modules_to_save", l->save, 0);
    put_text(&b, "peft_type", "LORA");
    put_int(&b, "r", l->R);
    put_patterns(&b, "rank_pattern", l->rank, l->rank_count);
    put_raw(&b, "revision", "null");
    put_names(&b, "target_modules", l->targets, l->targets_regex);
    put_text_or_null(&b, "task_type", l->task);
    put_bool(&b, "use_dora", l->dora);
    put_bool(&b, "use_rslora", l->rslora);
    return code == OK ? put_file(&b, folder, "adapter_config.json", err) : code;
}

int adapter_config_save(const LoraConfig *l, const char *folder, const char *base_model, Pool *pool,
                        Error *err) {
    const PoolMark mark = pool_mark(pool);
    const char *own = l->R ? path_in(folder, "prompt", "", pool) : folder;
    int code = own ? OK : fail(err, E_MEMORY, "memory for a path", folder, 0, 0);
    if (code == OK && l->R) code = save_pairs(l, folder, base_model, pool, err);
    if (code == OK && l->prompt.rows) code = save_prompt(l, own, base_model, pool, err);
    pool_release(pool, mark);
    return code;
}
