/* tests/unit/peft.c - which modules an adapter changes (peft.c), by peft's rules: names, regular expressions,
 * layers, excluded and saved modules, biases, ranks and scales; what is refused. */
#include "test.h"
#include <time.h>

static Pool pool;
static Model llama, gpt2;
static RewardModel judge;
static Lora lora;
static Error err;
static char folder[64];                        /* has adapter_config.json */

/* Lays out, without memory, models whose tensors have the names of their families: two layers each. */
static void open_models(void) {
    ModelConfig c;
    RewardConfig r;
    Arena measure = { 0 };
    int bad = config_load(&c, "tests/golden/hf/models/llama-bias", &pool, &err)
        || model_carve(&llama, &c, NULL, 0, 8, &pool, &measure, &err)
        || config_load(&c, "tests/golden/hf/models/gpt2", &pool, &err)
        || model_carve(&gpt2, &c, NULL, 0, 8, &pool, &measure, &err)
        || reward_config_load(&r, "tests/golden/hf/models/distilbert", &pool, &err)
        || reward_carve(&judge, &r, NULL, 0, &pool, &measure, &err);
    CHECK(!bad, "models: %s: %s", err.what, err.where);
}

/* Reads a configuration with these keys, and lays out its adapter on the base. OK or a code. */
static int adapt(const char *keys, const Tensor *base, int tensors) {
    char json[512], path[96];
    Arena measure = { 0 };
    memset(&err, 0, sizeof err);
    memset(&lora, 0, sizeof lora);
    snprintf(json, sizeof json, "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8%s}", keys);
    snprintf(path, sizeof path, "%s/adapter_config.json", folder);
    int code = file_write_all(path, json, strlen(json), &pool, &err);
    if (code == OK) code = adapter_config_load(&lora.config, folder, &pool, &err);
    return code ? code : lora_carve(&lora, base, tensors, &lora.config, 0, &pool, &measure, &err);
}

/* Counts the adapter's tensors whose names have `part` in them. */
static int count(const char *part) {
    int n = 0;
    for (int i = 0; i < lora.written; i++) n += strstr(lora.tensor[i].name, part) != NULL;
    return n;
}

/* keys of adapter_config.json; how many pairs, and how many tensors of any kind; what the first is called */
static const struct { const char *base, *keys; int pairs, tensors; const char *first; } cases[] = {
    { "llama", ",\"target_modules\":[\"q_proj\",\"v_proj\"]", 4, 8,
      "model.layers.0.self_attn.q_proj.lora_A.weight" },
    { "llama", ",\"target_modules\":[\"self_attn.q_proj\"]", 2, 4, "model.layers.0.self_attn.q_proj" },
    { "llama", ",\"target_modules\":[\"model.layers.1.mlp.up_proj\"]", 1, 2, "model.layers.1.mlp.up_proj" },
    { "llama", ",\"target_modules\":\"all-linear\"", 14, 28, "model.layers.0.self_attn.q_proj" },
    { "gpt2", ",\"target_modules\":\"all-linear\"", 8, 16, "transformer.h.0.attn.c_attn" },
    { "gpt2", ",\"target_modules\":[\"c_proj\"]", 4, 8, "transformer.h.0.attn.c_proj" },
    { "gpt2", "", 2, 4, "transformer.h.0.attn.c_attn" },
    { "llama", ",\"target_modules\":\".*_proj\"", 14, 28, "model.layers.0.self_attn.q_proj" },
    { "llama", ",\"target_modules\":\"_proj\"", 0, 0, "" },
    { "llama", ",\"target_modules\":\".*(self_attn|mlp)\\\\.(q|up)_proj$\"", 4, 8,
      "model.layers.0.self_attn.q" },
    { "llama", ",\"target_modules\":\"model\\\\.layers\\\\.\\\\d+\\\\.mlp\\\\.(?:gate|up)_proj\"", 4, 8,
      "model.layers.0.mlp.gate_proj" },
    { "llama", ",\"target_modules\":[\"q_proj\"],\"exclude_modules\":[\"layers.0.self_attn.q_proj\"]", 1, 2,
      "model.layers.1.self_attn.q_proj" },
    { "llama", ",\"target_modules\":[\"q_proj\"],\"exclude_modules\":\".*\\\\.0\\\\..*\"", 1, 2,
      "model.layers.1.self_attn.q_proj" },
    { "llama", ",\"target_modules\":[\"q_proj\"],\"layers_to_transform\":1", 1, 2, "model.layers.1." },
    { "llama", ",\"target_modules\":[\"q_proj\"],\"layers_to_transform\":[0,1]", 2, 4, "model.layers.0." },
    { "llama", ",\"target_modules\":[\"q_proj\"],\"layers_to_transform\":[1],\"layers_pattern\":\"layers\"",
      1, 2,
      "model.layers.1." },
    { "llama", ",\"target_modules\":[\"q_proj\"],\"layers_to_transform\":[1],\"layers_pattern\":[\"h\"]", 0,
      0, "" },
    { "gpt2",
      ",\"target_modules\":[\"c_fc\"],\"layers_to_transform\":[1],\"layers_pattern\":[\"layers\",\"h\"]", 1,
      2, "transformer.h.1.mlp.c_fc" },
    { "llama", ",\"target_modules\":[\"q_proj\"],\"modules_to_save\":[\"lm_head\",\"embed_tokens\"]", 2, 6,
      "model.embed_tokens.weight" },
    { "llama", ",\"target_modules\":[\"q_proj\"],\"modules_to_save\":[\"norm\"]", 2, 9,
      "model.layers.0.input_layernorm.weight" },
    { "llama", ",\"target_modules\":[\"q_proj\",\"lm_head\"],\"modules_to_save\":[\"lm_head\"]", 2, 5,
      "model.layers" },
    { "llama", ",\"target_modules\":[\"q_proj\"],\"bias\":\"lora_only\"", 2, 6, "model.layers.0." },
    { "llama", ",\"target_modules\":[\"q_proj\"],\"bias\":\"all\"", 2, 18, "model.layers.0." },
    { "llama", ",\"target_modules\":[\"lm_head\"]", 1, 3, "lm_head.lora_A.weight" },
    { "gpt2", ",\"target_modules\":[\"wte\",\"wpe\"]", 2, 4, "transformer.wte.lora_embedding_A" },
    { "llama", ",\"target_modules\":[\"q_proj\"],\"use_dora\":true", 2, 6, "model.layers.0." },
    { "judge", ",\"target_modules\":[\"q_lin\"],\"task_type\":\"SEQ_CLS\"", 2, 8, "distilbert.transformer" },
    { "judge",
      ",\"target_modules\":[\"q_lin\"],\"task_type\":\"SEQ_CLS\",\"modules_to_save\":[\"pre_classifier\"]",
      2, 8, "distilbert.transformer" },
};

static void choices(void) {
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *base = cases[i].base;
        const Tensor *list = *base == 'l' ? llama.tensor : *base == 'g' ? gpt2.tensor : judge.tensor;
        const int tensors = *base == 'l' ? llama.tensors : *base == 'g' ? gpt2.tensors : judge.tensors;
        int pairs = 0, code = adapt(cases[i].keys, list, tensors);
        for (int p = 0; p < lora.pairs && code == OK; p++) pairs += lora.pair[p].A.O > 0;
        CHECK(code == (cases[i].pairs ? OK : E_ARGUMENT), "%s: %d %s %s", cases[i].keys, code, err.what,
              err.where);
        if (code != OK) continue;
        CHECK(pairs == cases[i].pairs && lora.written == cases[i].tensors, "%s: %d pairs, %d tensors",
              cases[i].keys, pairs, lora.written);
        CHECK(strncmp(lora.tensor[0].name, cases[i].first, strlen(cases[i].first)) == 0,
              "%s: the first is %s",
              cases[i].keys, lora.tensor[0].name);
    }
}

/* The modules of each family's head, which an adapter of a judge has whole. */
static void heads(void) {
    static const char *const head[][2] = { { "roberta", "classifier" }, { "xlm-roberta", "classifier" },
        { "bert", "bert.pooler,classifier" }, { "distilbert", "pre_classifier,classifier" },
        { "electra", "classifier" }, { "llama", "score" }, { "gpt2", "score" } };
    for (size_t i = 0; i < sizeof head / sizeof *head; i++) {
        RewardConfig c = { 0 };
        RewardModel m;
        Arena measure = { 0 };
        c.V = 20; c.positions = 20; c.pad = 1; c.labels = 2;
        c.stack.C = 8; c.stack.L = 1; c.stack.H = 2; c.stack.F = 16;
        const int code = config_judge(&c, head[i][0]) || reward_carve(&m, &c, NULL, 0, &pool, &measure, &err);
        const char *is = code ? "" : lora_head(m.tensor, m.tensors, &pool);
        CHECK(is && strcmp(is, head[i][1]) == 0, "%s: the head is %s (%s)", head[i][0], is, err.what);
    }
}

/* Ranks and scales by pattern; the names that files have; what a configuration says of GPT-2. */
static void numbers(void) {
    const int q = llama.stack.block[0].self.q.id, v = llama.stack.block[1].self.v.id;
    adapt(",\"target_modules\":[\"q_proj\",\"v_proj\"],"
          "\"rank_pattern\":{\"^model.layers.0.self_attn.q_proj\":2,\"q_proj\":8},"
          "\"alpha_pattern\":{\"layers.(1|7).self_attn.v_proj\":32}", llama.tensor, llama.tensors);
    CHECK(lora.pair[q].A.O == 2 && lora.pair[q].scale == 4, "the first pattern counts: rank %d",
          lora.pair[q].A.O);
    CHECK(lora.pair[v].A.O == 4 && lora.pair[v].scale == 8, "alpha by pattern: %g",
          (double)lora.pair[v].scale);
    CHECK(lora.pair[llama.stack.block[1].self.q.id].A.O == 8, "rank by the end of the name");
    adapt(",\"target_modules\":[\"q_proj\"],\"rank_pattern\":{\"proj\":2}", llama.tensor, llama.tensors);
    CHECK(lora.pair[q].A.O == 4, "a pattern begins after a dot");
    adapt(",\"target_modules\":[\"q_proj\"],\"bias\":\"all\"", llama.tensor, llama.tensors);
    CHECK(count("0.self_attn.q_proj.base_layer.bias") == 1 && count("0.self_attn.k_proj.bias") == 1,
          "biases have the names that peft gives them");
    adapt(",\"target_modules\":[\"embed_tokens\",\"lm_head\"]", llama.tensor, llama.tensors);
    CHECK(count("base_layer.weight") == 2 && lora.tensors == 4, "peft writes the tables beside their pairs");
    adapt(",\"target_modules\":[\"wte\"]", gpt2.tensor, gpt2.tensors);
    CHECK(count("base_layer.weight") == 0 && lora.config.transposed == 0, "but not those of GPT-2");
    adapt("", gpt2.tensor, gpt2.tensors);
    CHECK(lora.config.transposed == 1, "fan_in_fan_out is true for GPT-2's linears");
}

static void refusals(void) {
    CHECK(adapt(",\"target_modules\":\".*(?<!k)_proj\"", llama.tensor, llama.tensors) == E_UNSUPPORTED
          && strstr(err.where, "(?<!k)_proj") && err.advice, "a look-behind is refused, and shown: %s: %s",
                err.what,
          err.where);
    CHECK(adapt(",\"target_modules\":\"(\"", llama.tensor, llama.tensors) == E_FORMAT, "half a pattern: %s",
          err.what);
    CHECK(adapt(",\"target_modules\":[\"q_proj\"],\"rank_pattern\":{\"(q\":2}", llama.tensor, llama.tensors)
          == E_FORMAT, "half a pattern of ranks: %s", err.what);
    CHECK(adapt(",\"target_modules\":[\"embed_tokens\"],\"use_dora\":true", llama.tensor, llama.tensors)
          == E_UNSUPPORTED && strstr(err.what, "use_dora"), "DoRA of an embedding: %s", err.what);
    CHECK(adapt(",\"target_modules\":[\"c_attn\"]", llama.tensor, llama.tensors) == E_ARGUMENT
          && strstr(err.advice, "base_model_name_or_path"), "another model's adapter: %s", err.what);
}

int main(void) {
    pool = test_pool();
    snprintf(folder, sizeof folder, "/tmp/rlhf-peft-%08lx",
             (unsigned long)(time(NULL) * 7919u + clock()) & 0xffffffffu);
    CHECK(folder_make(folder, &err) == OK, "%s", folder);
    open_models();
    choices();
    heads();
    numbers();
    refusals();
    CHECK(folder_empty(folder, &pool, &err) == OK && folder_remove(folder, &err) == OK, "%s is removed",
          folder);
    pool_free(&pool);
    return test_end("peft");
}
