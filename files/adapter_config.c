/* files/adapter_config.c - reads and writes peft's adapter_config.json.
 * Source   peft's LoraConfig (keys and defaults).
 * Needs    core, io, files/fields; a pool for the parsed file, which is freed at the end.
 * Never    ignores a feature that changes what an adapter computes: such a feature is refused by name. */
#include "files.h"

/* Appends a module's name to the comma-separated list l->targets. */
static void add_target(Fields *f, LoraConfig *l, const char *name, size_t length) {
    size_t used = strlen(l->targets);
    if (!length || strlen(name) != length || strchr(name, ','))
        complain(f, E_FORMAT, "not a module's name:", "target_modules");
    if (used + length + 2 > sizeof l->targets) complain(f, E_RANGE, "list too long:", "target_modules");
    if (f->code != OK) return;
    if (used) l->targets[used++] = ',';
    memcpy(l->targets + used, name, length + 1);
}

/* Reads target_modules: a list of names, or "all-linear". Every other string is a regular expression in
 * peft, and is refused. null means peft's default for Llama, "q_proj,v_proj". */
static void read_targets(Fields *f, LoraConfig *l) {
    const Json *j = field(f, "target_modules"), *name;
    if (!j) strcpy(l->targets, "q_proj,v_proj");
    else if (j->type == JSON_STRING && strcmp(j->string, "all-linear") == 0) strcpy(l->targets, j->string);
    else if (j->type == JSON_STRING)
        complain(f, E_UNSUPPORTED, "target_modules as a regular expression:", j->string);
    else if (j->type != JSON_ARRAY || !j->count)
        complain(f, E_FORMAT, "not a list of names:", "target_modules");
    else for (name = j->child; name && f->code == OK; name = name->next) {
        if (name->type != JSON_STRING) complain(f, E_FORMAT, "not a list of names:", "target_modules");
        else add_target(f, l, name->string, name->length);
    }
}

static int load_adapter_config(LoraConfig *l, const char *folder, Pool *pool, Error *err) {
    static const char off[][24] = {
        "use_dora", "use_qalora", "rank_pattern", "alpha_pattern", "fan_in_fan_out",
        "lora_bias", "layers_to_transform", "layers_pattern", "layer_replication", "target_parameters",
        "trainable_token_indices", "exclude_modules", "megatron_config", "alora_invocation_tokens",
        "arrow_config" };
    Fields f;
    const Json *init;
    int code = fields_open(&f, folder, "adapter_config.json", pool, err);
    if (code != OK) return code;
    if (!field(&f, "peft_type")) complain(&f, E_MISSING, "adapter_config.json without", "peft_type");
    field_must_be(&f, "peft_type", "LORA");
    const char *task = field_text(&f, "task_type", "CAUSAL_LM");
    if (strcmp(task, "CAUSAL_LM") && strcmp(task, "SEQ_2_SEQ_LM"))
        complain(&f, E_UNSUPPORTED, "task_type", task);
    l->seq2seq = strcmp(task, "SEQ_2_SEQ_LM") == 0;
    field_must_be(&f, "bias", "none");
    for (size_t i = 0; i < sizeof off / sizeof *off; i++) field_must_be_off(&f, off[i]);
    init = field(&f, "init_lora_weights"); /* pissa, olora, loftq, corda change the base model too */
    if (init && init->type == JSON_STRING && strcmp(init->string, "gaussian") != 0
        && strcmp(init->string, "eva") != 0 && strcmp(init->string, "orthogonal") != 0)
        complain(&f, E_UNSUPPORTED, "init_lora_weights", init->string);
    l->R = field_int(&f, "r", 8, 1, 65536);
    l->alpha = (float)field_real(&f, "lora_alpha", 8, -1e6, 1e6);
    l->rslora = field_bool(&f, "use_rslora", 0);
    l->targets[0] = 0;
    l->peft = 1;
    read_targets(&f, l);
    if (f.code == E_UNSUPPORTED) advise(err, MERGE_ADVICE);
    return f.code;
}

int adapter_config_load(LoraConfig *l, const char *folder, Pool *pool, Error *err) {
    PoolMark mark = pool_mark(pool);
    int code = load_adapter_config(l, folder, pool, err);
    pool_release(pool, mark);
    return code;
}

int adapter_base(const char **base, const char *folder, Pool *pool, Error *err) {
    const char *own = path_in(folder, "config.json", "", pool), *name;
    char *beside;
    Fields f;
    int code;
    *base = NULL;
    if (!own) return fail(err, E_MEMORY, "memory for a path", folder, 0, 0);
    if (file_exists(own)) return OK;
    code = fields_open(&f, folder, "adapter_config.json", pool, NULL);
    if (code == E_MISSING) return OK;
    if (code == OK) code = fields_open(&f, folder, "adapter_config.json", pool, err);
    if (code != OK) return code;
    name = field_text(&f, "base_model_name_or_path", "");
    beside = path_in(folder, name, "", pool);
    if (f.code != OK) return f.code;
    if (!beside) return fail(err, E_MEMORY, "memory for a path", folder, 0, 0);
    *base = !name[0] ? NULL : folder_exists(name) ? name : folder_exists(beside) ? beside : NULL;
    return *base ? OK : refuse(err, E_MISSING, folder,
                               "this is an adapter, and the model that it adapts is not here: '%.80s'", name);
}

int adapter_config_save(const LoraConfig *l, const char *folder, const char *base_model, Pool *pool,
                        Error *err) {
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
    put_text(&b, "task_type", l->seq2seq ? "SEQ_2_SEQ_LM" : "CAUSAL_LM");
    put_raw(&b, "use_dora", "false");
    put_bool(&b, "use_rslora", l->rslora);
    if (code == OK) code = put_file(&b, folder, "adapter_config.json", err);
    pool_release(pool, mark);
    return code;
}
