/* files/config.c - reads and writes config.json and generation_config.json of Hugging Face folders; holds the
 * table of families of models: the keys of their configurations, and the names of their tensors in files.
 * Source   transformers' configuration_*.py of each family (keys and defaults), quantization_config.py, and
 *          convert_llama_weights_to_hf.py (Meta's names).
 * Needs    core, io, files/fields; a pool for the parsed files, which are freed at the end.
 * Never    guesses: an architecture, a key or a value that the project does not support is refused by name. A
 *          key that is absent has the default of transformers' class.
 * Edges    sizes are at most 2^24, so the product of two is at most 2^48. Conditions between sizes, such as
 *          that heads divide the width, are checked here, so that models need not check them. */
#include "files.h"

/* ---- the table of families ---- */

/* The kinds of keys in config.json: how read_key reads a value, and write_key writes it. */
enum {
    KEY_CLASS, KEY_TYPE, KEY_DTYPE,         /* only written: architectures, model_type, torch_dtype */
    KEY_FIXED,      /* a key that is written, with the JSON text `text`, and never read */
    KEY_ONLY,       /* a text that has to be `text` */
    KEY_OFF,        /* a feature that has to be off; written as `text` (NULL: not written) */
    KEY_ON,         /* a feature that has to be on; written as true */
    KEY_ONE,        /* a number that has to be 1; not written */
    KEY_ACT,        /* the name of the stack's activation; `text` is its default */
    KEY_BIAS,       /* true or false: whether the linears that `max` names (BIAS_) have biases */
    KEY_WINDOW,     /* how many positions a row sees, or null: all */
    KEY_INNER,      /* the stack's F; null: 4 C */
    KEY_SIZE,       /* an int from 1 to `max` */
    KEY_DERIVED,    /* an int from 1 to `max`; null gives 0, and check_policy computes the value */
    KEY_TOKEN,      /* a token id; null gives the default */
    KEY_ID,         /* a token id; null gives -1 */
    KEY_EOS,        /* a token id, a list of ids, or null */
    KEY_FLAG,       /* true or false, as an int */
    KEY_EPS,        /* a float; `text` is its default */
    KEY_ROPE,       /* rope_theta (default `text`) with rope_scaling, or rope_parameters */
    KEY_LAYERS,     /* layer_types; read with use_sliding_window, sliding_window, max_window_layers */
    KEY_USES_WINDOW, KEY_LAYERS_WINDOW,     /* only written: the first two of these */
    KEY_NO_ROPE,    /* no_rope_layers: 1 for each layer with RoPE, 0 for others; or no_rope_layer_interval */
    KEY_KINDS,      /* GPT-Neo's attention_types: [[["global", "local"], how often], ...]; with window_size */
    KEY_KIND_LIST,  /* only written: attention_layers, the same as one list */
    KEY_BITS,       /* quantization_config */
    KEY_LABELS,     /* id2label and label2id */
    KEY_PROBLEM,    /* problem_type */
    KEY_COUNT                               /* only written: num_labels */
};
typedef struct {
    const char *key; int kind;
    size_t at;                              /* offset of the value in the ModelConfig or RewardConfig */
    int fallback, max;                      /* the value if the key is absent; the largest value */
    const char *text;
} Key;
enum { KEYS_MAX = 48 };                     /* a family has at most so many keys */

/* Another name that files use for a tensor, whose part is NAME_... PAIRED: in such files the rows of each
 * head are in Meta's order (checkpoint.c). */
enum { AS_IS, PAIRED };
typedef struct { int part; const char *pattern; int how; } Stored;

/* A family of models. All differences between families are in this struct. A list ends with a
 * NULL pattern or key. */
typedef struct {
    const char *architecture, *type;        /* transformers' class, and its model_type */
    int judge;                              /* 0: it has a ModelConfig; 1: a RewardConfig */
    const Names *names;                     /* families may share names: folders get the first one's class */
    const char *stem;                       /* start of names, which files of the class without head lack */
    const Stored *stored;                   /* other names that files use; NULL: none */
    const Key *common, *own;                /* own keys replace common keys of that name; common NULL: none */
    StackKind kind;                         /* the stack's options; sizes, eps and rope are config.json's */
    int head, from_zero;                    /* of judges: see RewardConfig */
} Family;

#define P(field) offsetof(ModelConfig, field)
#define J(field) offsetof(RewardConfig, field)
/* Both kinds of configurations begin with the same fields, whose places P gives. */
typedef char same_places[P(stack) == J(stack) && P(eos_count) == J(eos_count) ? 1 : -1];
#define HEADS_MAX 65536
#define LAYERS_MAX 4096

#define LLAMA_BODY \
    [NAME_WORD] = "model.embed_tokens.weight", \
    [NAME_NORM1] = "model.layers.%d.input_layernorm.weight", \
    [NAME_Q] = "model.layers.%d.self_attn.q_proj.weight", \
    [NAME_K] = "model.layers.%d.self_attn.k_proj.weight", \
    [NAME_V] = "model.layers.%d.self_attn.v_proj.weight", \
    [NAME_O] = "model.layers.%d.self_attn.o_proj.weight", \
    [NAME_NORM2] = "model.layers.%d.post_attention_layernorm.weight", \
    [NAME_GATE] = "model.layers.%d.mlp.gate_proj.weight", \
    [NAME_UP] = "model.layers.%d.mlp.up_proj.weight", \
    [NAME_DOWN] = "model.layers.%d.mlp.down_proj.weight", \
    [NAME_NORM] = "model.norm.weight"
#define LLAMA_BIASES \
    [NAME_Q_B] = "model.layers.%d.self_attn.q_proj.bias", \
    [NAME_K_B] = "model.layers.%d.self_attn.k_proj.bias", \
    [NAME_V_B] = "model.layers.%d.self_attn.v_proj.bias", \
    [NAME_O_B] = "model.layers.%d.self_attn.o_proj.bias", \
    [NAME_GATE_B] = "model.layers.%d.mlp.gate_proj.bias", \
    [NAME_UP_B] = "model.layers.%d.mlp.up_proj.bias", \
    [NAME_DOWN_B] = "model.layers.%d.mlp.down_proj.bias"
#define LLAMA_NAMES LLAMA_BODY, LLAMA_BIASES, [NAME_HEAD] = "lm_head.weight"
#define LLAMA_JUDGE LLAMA_BODY, LLAMA_BIASES, [NAME_HEAD] = "score.weight"
#define LLAMA_STACK \
    .norm = NORM_RMS, .norm_place = NORM_PRE, .activation = ACT_SILU, .gated = 1, .causal = 1, .rotary = 1

static const Names llama_names = { { LLAMA_NAMES }, 0 };
static const Stored meta_names[] = {
    { NAME_WORD, "tok_embeddings.weight", AS_IS }, { NAME_NORM1, "layers.%d.attention_norm.weight", AS_IS },
    { NAME_Q, "layers.%d.attention.wq.weight", PAIRED }, { NAME_K, "layers.%d.attention.wk.weight", PAIRED },
    { NAME_V, "layers.%d.attention.wv.weight", AS_IS }, { NAME_O, "layers.%d.attention.wo.weight", AS_IS },
    { NAME_NORM2, "layers.%d.ffn_norm.weight", AS_IS }, { NAME_GATE, "layers.%d.feed_forward.w1.weight",
    AS_IS },
    { NAME_UP, "layers.%d.feed_forward.w3.weight", AS_IS }, { NAME_DOWN, "layers.%d.feed_forward.w2.weight",
    AS_IS },
    { NAME_HEAD, "output.weight", AS_IS }, { 0, NULL, 0 },
};

/* The keys that all decoders of Llama's kind have. The keys of single classes follow. */
static const Key decoder_keys[] = {
    { "architectures", KEY_CLASS, 0, 0, 0, NULL },
    { "attention_dropout", KEY_FIXED, 0, 0, 0, "0.0" },
    { "bos_token_id", KEY_ID, P(bos), 1, 0, NULL },
    { "eos_token_id", KEY_EOS, P(eos), 2, 0, NULL },
    { "head_dim", KEY_DERIVED, P(stack.D), 0, HEADS_MAX, NULL },
    { "hidden_act", KEY_ACT, P(stack), 0, 0, "silu" },
    { "hidden_size", KEY_SIZE, P(stack.C), 4096, SIZE_LIMIT, NULL },
    { "initializer_range", KEY_FIXED, 0, 0, 0, "0.02" },
    { "intermediate_size", KEY_SIZE, P(stack.F), 11008, SIZE_LIMIT, NULL },
    { "max_position_embeddings", KEY_SIZE, P(positions), 2048, SIZE_LIMIT, NULL },
    { "model_type", KEY_TYPE, 0, 0, 0, NULL },
    { "num_attention_heads", KEY_SIZE, P(stack.H), 32, HEADS_MAX, NULL },
    { "num_hidden_layers", KEY_SIZE, P(stack.L), 32, LAYERS_MAX, NULL },
    { "num_key_value_heads", KEY_DERIVED, P(stack.K), 0, HEADS_MAX, NULL },
    { "pad_token_id", KEY_ID, P(pad), -1, 0, NULL },
    { "partial_rotary_factor", KEY_ONE, 0, 0, 0, NULL },
    { "quantization_config", KEY_BITS, 0, 0, 0, NULL },
    { "rms_norm_eps", KEY_EPS, P(stack.eps), 0, 0, "1e-6" },
    { "rope_theta", KEY_ROPE, P(stack), 0, 0, "10000" },
    { "tie_word_embeddings", KEY_FLAG, P(tied), 0, 0, NULL },
    { "torch_dtype", KEY_DTYPE, 0, 0, 0, NULL },
    { "use_cache", KEY_FIXED, 0, 0, 0, "true" },
    { "vocab_size", KEY_SIZE, P(V), 32000, SIZE_LIMIT, NULL },
    { NULL, 0, 0, 0, 0, NULL },
};
static const Key llama_keys[] = {
    { "attention_bias", KEY_BIAS, P(stack), 0, BIAS_QKV | BIAS_O, NULL },
    { "mlp_bias", KEY_BIAS, P(stack), 0, BIAS_MLP, NULL },
    { "pretraining_tp", KEY_FIXED, 0, 0, 0, "1" },
    { NULL, 0, 0, 0, 0, NULL },
};
static const Names mistral_names = { { LLAMA_NAMES }, 0 };
static const Key mistral_keys[] = {
    { "attention_bias", KEY_OFF, 0, 0, 0, NULL },
    { "intermediate_size", KEY_SIZE, P(stack.F), 14336, SIZE_LIMIT, NULL },
    { "max_position_embeddings", KEY_SIZE, P(positions), 131072, SIZE_LIMIT, NULL },
    { "mlp_bias", KEY_OFF, 0, 0, 0, NULL },
    { "num_key_value_heads", KEY_DERIVED, P(stack.K), 8, HEADS_MAX, NULL },
    { "sliding_window", KEY_WINDOW, P(stack.window), 4096, SIZE_LIMIT, NULL },
    { NULL, 0, 0, 0, 0, NULL },
};

static const Names qwen2_names = { { LLAMA_NAMES }, 0 };
static const Key qwen2_keys[] = {
    { "bos_token_id", KEY_ID, P(bos), -1, 0, NULL },
    { "eos_token_id", KEY_EOS, P(eos), -1, 0, NULL },
    { "intermediate_size", KEY_SIZE, P(stack.F), 22016, SIZE_LIMIT, NULL },
    { "layer_types", KEY_LAYERS, P(stack), 0, 0, NULL },
    { "max_position_embeddings", KEY_SIZE, P(positions), 32768, SIZE_LIMIT, NULL },
    { "max_window_layers", KEY_FIXED, 0, 0, 0, "28" },
    { "num_key_value_heads", KEY_DERIVED, P(stack.K), 32, HEADS_MAX, NULL },
    { "sliding_window", KEY_LAYERS_WINDOW, P(stack), 0, 0, NULL },
    { "use_sliding_window", KEY_USES_WINDOW, P(stack), 0, 0, NULL },
    { "vocab_size", KEY_SIZE, P(V), 151936, SIZE_LIMIT, NULL },
    { NULL, 0, 0, 0, 0, NULL },
};

#define QWEN3_NORMS \
    [NAME_Q_NORM] = "model.layers.%d.self_attn.q_norm.weight", \
    [NAME_K_NORM] = "model.layers.%d.self_attn.k_norm.weight"
static const Names qwen3_names = { { LLAMA_NAMES, QWEN3_NORMS }, 0 };
static const Key qwen3_keys[] = {
    { "attention_bias", KEY_BIAS, P(stack), 0, BIAS_QKV | BIAS_O, NULL },
    { "bos_token_id", KEY_ID, P(bos), -1, 0, NULL },
    { "eos_token_id", KEY_EOS, P(eos), -1, 0, NULL },
    { "head_dim", KEY_DERIVED, P(stack.D), 128, HEADS_MAX, NULL },
    { "intermediate_size", KEY_SIZE, P(stack.F), 22016, SIZE_LIMIT, NULL },
    { "layer_types", KEY_LAYERS, P(stack), 0, 0, NULL },
    { "max_position_embeddings", KEY_SIZE, P(positions), 32768, SIZE_LIMIT, NULL },
    { "max_window_layers", KEY_FIXED, 0, 0, 0, "28" },
    { "num_key_value_heads", KEY_DERIVED, P(stack.K), 32, HEADS_MAX, NULL },
    { "sliding_window", KEY_LAYERS_WINDOW, P(stack), 0, 0, NULL },
    { "use_sliding_window", KEY_USES_WINDOW, P(stack), 0, 0, NULL },
    { "vocab_size", KEY_SIZE, P(V), 151936, SIZE_LIMIT, NULL },
    { NULL, 0, 0, 0, 0, NULL },
};

static const Names smollm3_names = { { LLAMA_NAMES }, 0 };
static const Key smollm3_keys[] = {
    { "attention_bias", KEY_BIAS, P(stack), 0, BIAS_QKV | BIAS_O, NULL },
    { "bos_token_id", KEY_ID, P(bos), 128000, 0, NULL },
    { "eos_token_id", KEY_EOS, P(eos), 128001, 0, NULL },
    { "hidden_size", KEY_SIZE, P(stack.C), 2048, SIZE_LIMIT, NULL },
    { "layer_types", KEY_LAYERS, P(stack), 0, 0, NULL },
    { "max_position_embeddings", KEY_SIZE, P(positions), 32768, SIZE_LIMIT, NULL },
    { "mlp_bias", KEY_BIAS, P(stack), 0, BIAS_MLP, NULL },
    { "no_rope_layer_interval", KEY_FIXED, 0, 0, 0, "4" },
    { "no_rope_layers", KEY_NO_ROPE, P(stack), 0, 0, NULL },
    { "num_attention_heads", KEY_SIZE, P(stack.H), 16, HEADS_MAX, NULL },
    { "num_hidden_layers", KEY_SIZE, P(stack.L), 36, LAYERS_MAX, NULL },
    { "num_key_value_heads", KEY_DERIVED, P(stack.K), 4, HEADS_MAX, NULL },
    { "pad_token_id", KEY_ID, P(pad), 128004, 0, NULL },
    { "rope_theta", KEY_ROPE, P(stack), 0, 0, "2000000" },
    { "sliding_window", KEY_LAYERS_WINDOW, P(stack), 0, 0, NULL },
    { "tie_word_embeddings", KEY_FLAG, P(tied), 1, 0, NULL },
    { "use_sliding_window", KEY_USES_WINDOW, P(stack), 0, 0, NULL },
    { "vocab_size", KEY_SIZE, P(V), 128256, SIZE_LIMIT, NULL },
    { NULL, 0, 0, 0, 0, NULL },
};

#define GPT2_LAYER "transformer.h.%d."
#define GPT2_NAMES \
    [NAME_WORD] = "transformer.wte.weight", [NAME_POSITION] = "transformer.wpe.weight", \
    [NAME_NORM1] = GPT2_LAYER "ln_1.weight", [NAME_NORM1_B] = GPT2_LAYER "ln_1.bias", \
    [NAME_NORM2] = GPT2_LAYER "ln_2.weight", [NAME_NORM2_B] = GPT2_LAYER "ln_2.bias", \
    [NAME_UP] = GPT2_LAYER "mlp.c_fc.weight", [NAME_UP_B] = GPT2_LAYER "mlp.c_fc.bias", \
    [NAME_DOWN] = GPT2_LAYER "mlp.c_proj.weight", [NAME_DOWN_B] = GPT2_LAYER "mlp.c_proj.bias", \
    [NAME_NORM] = "transformer.ln_f.weight", [NAME_NORM_B] = "transformer.ln_f.bias"
#define GPT2_STACK .norm = NORM_LAYER, .norm_place = NORM_PRE, .activation = ACT_GELU_TANH, .causal = 1, \
                   .joined = 1, .biases = BIAS_QKV | BIAS_O | BIAS_MLP
#define GPT2_ATTENTION \
    [NAME_QKV] = GPT2_LAYER "attn.c_attn.weight", [NAME_QKV_B] = GPT2_LAYER "attn.c_attn.bias", \
    [NAME_O] = GPT2_LAYER "attn.c_proj.weight", [NAME_O_B] = GPT2_LAYER "attn.c_proj.bias"
static const Names gpt2_names = { { GPT2_NAMES, GPT2_ATTENTION, [NAME_HEAD] = "lm_head.weight" }, 1 };
static const Key gpt2_keys[] = {
    { "activation_function", KEY_ACT, P(stack), 0, 0, "gelu_new" },
    { "add_cross_attention", KEY_OFF, 0, 0, 0, "false" },
    { "architectures", KEY_CLASS, 0, 0, 0, NULL },
    { "attn_pdrop", KEY_FIXED, 0, 0, 0, "0.1" },
    { "bos_token_id", KEY_ID, P(bos), 50256, 0, NULL },
    { "embd_pdrop", KEY_FIXED, 0, 0, 0, "0.1" },
    { "eos_token_id", KEY_EOS, P(eos), 50256, 0, NULL },
    { "initializer_range", KEY_FIXED, 0, 0, 0, "0.02" },
    { "layer_norm_epsilon", KEY_EPS, P(stack.eps), 0, 0, "1e-5" },
    { "model_type", KEY_TYPE, 0, 0, 0, NULL },
    { "n_embd", KEY_SIZE, P(stack.C), 768, SIZE_LIMIT, NULL },
    { "n_head", KEY_SIZE, P(stack.H), 12, HEADS_MAX, NULL },
    { "n_inner", KEY_INNER, P(stack), 0, SIZE_LIMIT, NULL },
    { "n_layer", KEY_SIZE, P(stack.L), 12, LAYERS_MAX, NULL },
    { "n_positions", KEY_SIZE, P(positions), 1024, SIZE_LIMIT, NULL },
    { "pad_token_id", KEY_ID, P(pad), -1, 0, NULL },
    { "quantization_config", KEY_BITS, 0, 0, 0, NULL },
    { "reorder_and_upcast_attn", KEY_OFF, 0, 0, 0, "false" },
    { "resid_pdrop", KEY_FIXED, 0, 0, 0, "0.1" },
    { "scale_attn_by_inverse_layer_idx", KEY_OFF, 0, 0, 0, "false" },
    { "scale_attn_weights", KEY_ON, 0, 0, 0, NULL },
    { "summary_activation", KEY_FIXED, 0, 0, 0, "null" },
    { "summary_first_dropout", KEY_FIXED, 0, 0, 0, "0.1" },
    { "summary_proj_to_labels", KEY_FIXED, 0, 0, 0, "true" },
    { "summary_type", KEY_FIXED, 0, 0, 0, "\"cls_index\"" },
    { "summary_use_proj", KEY_FIXED, 0, 0, 0, "true" },
    { "tie_word_embeddings", KEY_FLAG, P(tied), 1, 0, NULL },
    { "torch_dtype", KEY_DTYPE, 0, 0, 0, NULL },
    { "use_cache", KEY_FIXED, 0, 0, 0, "true" },
    { "vocab_size", KEY_SIZE, P(V), 50257, SIZE_LIMIT, NULL },
    { NULL, 0, 0, 0, 0, NULL },
};

#define NEO_LAYER "transformer.h.%d.attn.attention."
static const Names neo_names = { { GPT2_NAMES,
    [NAME_Q] = NEO_LAYER "q_proj.weight", [NAME_K] = NEO_LAYER "k_proj.weight",
    [NAME_V] = NEO_LAYER "v_proj.weight",
    [NAME_O] = NEO_LAYER "out_proj.weight", [NAME_O_B] = NEO_LAYER "out_proj.bias",
    [NAME_HEAD] = "lm_head.weight",
}, 0 };
static const Key neo_keys[] = {
    { "activation_function", KEY_ACT, P(stack), 0, 0, "gelu_new" },
    { "architectures", KEY_CLASS, 0, 0, 0, NULL },
    { "attention_dropout", KEY_FIXED, 0, 0, 0, "0.0" },
    { "attention_layers", KEY_KIND_LIST, P(stack), 0, 0, NULL },
    { "attention_types", KEY_KINDS, P(stack), 0, 0, NULL },
    { "bos_token_id", KEY_ID, P(bos), 50256, 0, NULL },
    { "classifier_dropout", KEY_FIXED, 0, 0, 0, "0.1" },
    { "embed_dropout", KEY_FIXED, 0, 0, 0, "0.0" },
    { "eos_token_id", KEY_EOS, P(eos), 50256, 0, NULL },
    { "hidden_size", KEY_SIZE, P(stack.C), 2048, SIZE_LIMIT, NULL },
    { "initializer_range", KEY_FIXED, 0, 0, 0, "0.02" },
    { "intermediate_size", KEY_INNER, P(stack), 0, SIZE_LIMIT, NULL },
    { "layer_norm_epsilon", KEY_EPS, P(stack.eps), 0, 0, "1e-5" },
    { "max_position_embeddings", KEY_SIZE, P(positions), 2048, SIZE_LIMIT, NULL },
    { "model_type", KEY_TYPE, 0, 0, 0, NULL },
    { "num_heads", KEY_SIZE, P(stack.H), 16, HEADS_MAX, NULL },
    { "num_layers", KEY_SIZE, P(stack.L), 24, LAYERS_MAX, NULL },
    { "pad_token_id", KEY_ID, P(pad), -1, 0, NULL },
    { "quantization_config", KEY_BITS, 0, 0, 0, NULL },
    { "resid_dropout", KEY_FIXED, 0, 0, 0, "0.0" },
    { "tie_word_embeddings", KEY_FLAG, P(tied), 1, 0, NULL },
    { "torch_dtype", KEY_DTYPE, 0, 0, 0, NULL },
    { "use_cache", KEY_FIXED, 0, 0, 0, "true" },
    { "vocab_size", KEY_SIZE, P(V), 50257, SIZE_LIMIT, NULL },
    { "window_size", KEY_WINDOW, P(stack.window), 256, SIZE_LIMIT, NULL },
    { NULL, 0, 0, 0, 0, NULL },
};

/* ---- judges ---- */

static const Names llama_judge = { { LLAMA_JUDGE }, 0 }, mistral_judge = { { LLAMA_JUDGE }, 0 },
    qwen2_judge = { { LLAMA_JUDGE }, 0 }, qwen3_judge = { { LLAMA_JUDGE, QWEN3_NORMS }, 0 },
    gpt2_judge = { { GPT2_NAMES, GPT2_ATTENTION, [NAME_HEAD] = "score.weight" }, 1 };
static const Key label_keys[] = {
    { "id2label", KEY_LABELS, 0, 0, 0, NULL },
    { "problem_type", KEY_PROBLEM, J(problem), 0, 0, NULL },
    { NULL, 0, 0, 0, 0, NULL },
};

#define BERT_STACK .norm = NORM_LAYER, .norm_place = NORM_POST, .activation = ACT_GELU, \
                   .biases = BIAS_QKV | BIAS_O | BIAS_MLP
/* The names of BERT's kind; B: what they begin with. OLD_NORMS: the names of norms in very old files. */
#define LAYER(B) B "encoder.layer.%d."
#define BERT_NAMES(B) \
    [NAME_WORD] = B "embeddings.word_embeddings.weight", \
    [NAME_POSITION] = B "embeddings.position_embeddings.weight", \
    [NAME_TYPE] = B "embeddings.token_type_embeddings.weight", \
    [NAME_EMBEDDING_NORM] = B "embeddings.LayerNorm.weight", \
    [NAME_EMBEDDING_NORM_B] = B "embeddings.LayerNorm.bias", \
    [NAME_Q] = LAYER(B) "attention.self.query.weight", [NAME_Q_B] = LAYER(B) "attention.self.query.bias", \
    [NAME_K] = LAYER(B) "attention.self.key.weight", [NAME_K_B] = LAYER(B) "attention.self.key.bias", \
    [NAME_V] = LAYER(B) "attention.self.value.weight", [NAME_V_B] = LAYER(B) "attention.self.value.bias", \
    [NAME_O] = LAYER(B) "attention.output.dense.weight", \
        [NAME_O_B] = LAYER(B) "attention.output.dense.bias", \
    [NAME_NORM1] = LAYER(B) "attention.output.LayerNorm.weight", \
        [NAME_NORM1_B] = LAYER(B) "attention.output.LayerNorm.bias", \
    [NAME_UP] = LAYER(B) "intermediate.dense.weight", [NAME_UP_B] = LAYER(B) "intermediate.dense.bias", \
    [NAME_DOWN] = LAYER(B) "output.dense.weight", [NAME_DOWN_B] = LAYER(B) "output.dense.bias", \
    [NAME_NORM2] = LAYER(B) "output.LayerNorm.weight", [NAME_NORM2_B] = LAYER(B) "output.LayerNorm.bias"
#define OLD_NORMS(B) \
    { NAME_EMBEDDING_NORM, B "embeddings.LayerNorm.gamma", AS_IS }, \
    { NAME_EMBEDDING_NORM_B, B "embeddings.LayerNorm.beta", AS_IS }, \
    { NAME_NORM1, LAYER(B) "attention.output.LayerNorm.gamma", AS_IS }, \
    { NAME_NORM1_B, LAYER(B) "attention.output.LayerNorm.beta", AS_IS }, \
    { NAME_NORM2, LAYER(B) "output.LayerNorm.gamma", AS_IS }, \
    { NAME_NORM2_B, LAYER(B) "output.LayerNorm.beta", AS_IS }, \
    { 0, NULL, 0 }
#define DENSE_OUT \
    [NAME_DENSE] = "classifier.dense.weight", [NAME_DENSE_B] = "classifier.dense.bias", \
    [NAME_HEAD] = "classifier.out_proj.weight", [NAME_HEAD_B] = "classifier.out_proj.bias"
#define CLASSIFIER [NAME_HEAD] = "classifier.weight", [NAME_HEAD_B] = "classifier.bias"

static const Names roberta_names = { { BERT_NAMES("roberta."), DENSE_OUT }, 0 };
static const Names xlm_roberta_names = { { BERT_NAMES("roberta."), DENSE_OUT }, 0 };
static const Names bert_names = { { BERT_NAMES("bert."), CLASSIFIER,
    [NAME_DENSE] = "bert.pooler.dense.weight", [NAME_DENSE_B] = "bert.pooler.dense.bias" }, 0 };
static const Names electra_names = { { BERT_NAMES("electra."), DENSE_OUT,
    [NAME_PROJECT] = "electra.embeddings_project.weight",
    [NAME_PROJECT_B] = "electra.embeddings_project.bias" }, 0 };
static const Stored roberta_stored[] = { OLD_NORMS("roberta.") }, bert_stored[] = { OLD_NORMS("bert.") };
#undef LAYER
#define LAYER "distilbert.transformer.layer.%d."
static const Names distilbert_names = { {
    [NAME_WORD] = "distilbert.embeddings.word_embeddings.weight",
    [NAME_POSITION] = "distilbert.embeddings.position_embeddings.weight",
    [NAME_EMBEDDING_NORM] = "distilbert.embeddings.LayerNorm.weight",
    [NAME_EMBEDDING_NORM_B] = "distilbert.embeddings.LayerNorm.bias",
    [NAME_Q] = LAYER "attention.q_lin.weight", [NAME_Q_B] = LAYER "attention.q_lin.bias",
    [NAME_K] = LAYER "attention.k_lin.weight", [NAME_K_B] = LAYER "attention.k_lin.bias",
    [NAME_V] = LAYER "attention.v_lin.weight", [NAME_V_B] = LAYER "attention.v_lin.bias",
    [NAME_O] = LAYER "attention.out_lin.weight", [NAME_O_B] = LAYER "attention.out_lin.bias",
    [NAME_NORM1] = LAYER "sa_layer_norm.weight", [NAME_NORM1_B] = LAYER "sa_layer_norm.bias",
    [NAME_UP] = LAYER "ffn.lin1.weight", [NAME_UP_B] = LAYER "ffn.lin1.bias",
    [NAME_DOWN] = LAYER "ffn.lin2.weight", [NAME_DOWN_B] = LAYER "ffn.lin2.bias",
    [NAME_NORM2] = LAYER "output_layer_norm.weight", [NAME_NORM2_B] = LAYER "output_layer_norm.bias",
    [NAME_DENSE] = "pre_classifier.weight", [NAME_DENSE_B] = "pre_classifier.bias", CLASSIFIER,
}, 0 };
#undef LAYER

static const Key roberta_keys[] = {
    { "architectures", KEY_CLASS, 0, 0, 0, NULL },
    { "add_cross_attention", KEY_OFF, 0, 0, 0, NULL },
    { "attention_probs_dropout_prob", KEY_FIXED, 0, 0, 0, "0.1" },
    { "bos_token_id", KEY_TOKEN, P(bos), 0, 0, NULL },
    { "classifier_dropout", KEY_FIXED, 0, 0, 0, "null" },
    { "eos_token_id", KEY_EOS, P(eos), 2, 0, NULL },
    { "hidden_act", KEY_ACT, P(stack), 0, 0, "gelu" },
    { "hidden_dropout_prob", KEY_FIXED, 0, 0, 0, "0.1" },
    { "hidden_size", KEY_SIZE, P(stack.C), 768, SIZE_LIMIT, NULL },
    { "initializer_range", KEY_FIXED, 0, 0, 0, "0.02" },
    { "intermediate_size", KEY_SIZE, P(stack.F), 3072, SIZE_LIMIT, NULL },
    { "id2label", KEY_LABELS, 0, 0, 0, NULL },
    { "is_decoder", KEY_OFF, 0, 0, 0, NULL },
    { "layer_norm_eps", KEY_EPS, P(stack.eps), 0, 0, "1e-12" },
    { "max_position_embeddings", KEY_SIZE, P(positions), 512, SIZE_LIMIT, NULL },
    { "model_type", KEY_TYPE, 0, 0, 0, NULL },
    { "num_attention_heads", KEY_SIZE, P(stack.H), 12, HEADS_MAX, NULL },
    { "num_hidden_layers", KEY_SIZE, P(stack.L), 12, LAYERS_MAX, NULL },
    { "num_labels", KEY_COUNT, 0, 0, 0, NULL },
    { "pad_token_id", KEY_TOKEN, P(pad), 1, 0, NULL },
    { "position_embedding_type", KEY_ONLY, 0, 0, 0, "absolute" },
    { "problem_type", KEY_PROBLEM, J(problem), 0, 0, NULL },
    { "quantization_config", KEY_OFF, 0, 0, 0, NULL },
    { "torch_dtype", KEY_DTYPE, 0, 0, 0, NULL },
    { "type_vocab_size", KEY_SIZE, J(types), 2, SIZE_LIMIT, NULL },
    { "use_cache", KEY_FIXED, 0, 0, 0, "true" },
    { "vocab_size", KEY_SIZE, P(V), 50265, SIZE_LIMIT, NULL },
    { NULL, 0, 0, 0, 0, NULL },
};

/* What XLM-R, BERT and ELECTRA write besides RoBERTa's keys, or with another default. */
static const Key xlm_roberta_keys[] = {
    { "add_cross_attention", KEY_OFF, 0, 0, 0, "false" },
    { "is_decoder", KEY_OFF, 0, 0, 0, "false" },
    { "tie_word_embeddings", KEY_FIXED, 0, 0, 0, "true" },
    { "vocab_size", KEY_SIZE, P(V), 30522, SIZE_LIMIT, NULL },
    { NULL, 0, 0, 0, 0, NULL },
};
static const Key bert_keys[] = {
    { "add_cross_attention", KEY_OFF, 0, 0, 0, "false" },
    { "bos_token_id", KEY_ID, P(bos), -1, 0, NULL },
    { "eos_token_id", KEY_EOS, P(eos), -1, 0, NULL },
    { "is_decoder", KEY_OFF, 0, 0, 0, "false" },
    { "pad_token_id", KEY_TOKEN, P(pad), 0, 0, NULL },
    { "tie_word_embeddings", KEY_FIXED, 0, 0, 0, "true" },
    { "vocab_size", KEY_SIZE, P(V), 30522, SIZE_LIMIT, NULL },
    { NULL, 0, 0, 0, 0, NULL },
};
static const Key electra_keys[] = {
    { "add_cross_attention", KEY_OFF, 0, 0, 0, "false" },
    { "bos_token_id", KEY_ID, P(bos), -1, 0, NULL },
    { "embedding_size", KEY_SIZE, J(embedding), 128, SIZE_LIMIT, NULL },
    { "eos_token_id", KEY_EOS, P(eos), -1, 0, NULL },
    { "hidden_size", KEY_SIZE, P(stack.C), 256, SIZE_LIMIT, NULL },
    { "intermediate_size", KEY_SIZE, P(stack.F), 1024, SIZE_LIMIT, NULL },
    { "is_decoder", KEY_OFF, 0, 0, 0, "false" },
    { "num_attention_heads", KEY_SIZE, P(stack.H), 4, HEADS_MAX, NULL },
    { "pad_token_id", KEY_TOKEN, P(pad), 0, 0, NULL },
    { "summary_activation", KEY_FIXED, 0, 0, 0, "\"gelu\"" },
    { "summary_last_dropout", KEY_FIXED, 0, 0, 0, "0.1" },
    { "summary_type", KEY_FIXED, 0, 0, 0, "\"first\"" },
    { "summary_use_proj", KEY_FIXED, 0, 0, 0, "true" },
    { "tie_word_embeddings", KEY_FIXED, 0, 0, 0, "true" },
    { "vocab_size", KEY_SIZE, P(V), 30522, SIZE_LIMIT, NULL },
    { NULL, 0, 0, 0, 0, NULL },
};
static const Key distilbert_keys[] = {
    { "activation", KEY_ACT, P(stack), 0, 0, "gelu" },
    { "architectures", KEY_CLASS, 0, 0, 0, NULL },
    { "attention_dropout", KEY_FIXED, 0, 0, 0, "0.1" },
    { "bos_token_id", KEY_ID, P(bos), -1, 0, NULL },
    { "dim", KEY_SIZE, P(stack.C), 768, SIZE_LIMIT, NULL },
    { "dropout", KEY_FIXED, 0, 0, 0, "0.1" },
    { "eos_token_id", KEY_EOS, P(eos), -1, 0, NULL },
    { "hidden_dim", KEY_SIZE, P(stack.F), 3072, SIZE_LIMIT, NULL },
    { "initializer_range", KEY_FIXED, 0, 0, 0, "0.02" },
    { "max_position_embeddings", KEY_SIZE, P(positions), 512, SIZE_LIMIT, NULL },
    { "model_type", KEY_TYPE, 0, 0, 0, NULL },
    { "n_heads", KEY_SIZE, P(stack.H), 12, HEADS_MAX, NULL },
    { "n_layers", KEY_SIZE, P(stack.L), 6, LAYERS_MAX, NULL },
    { "pad_token_id", KEY_TOKEN, P(pad), 0, 0, NULL },
    { "qa_dropout", KEY_FIXED, 0, 0, 0, "0.1" },
    { "quantization_config", KEY_OFF, 0, 0, 0, NULL },
    { "seq_classif_dropout", KEY_FIXED, 0, 0, 0, "0.2" },
    /* files have the table of positions in either case */
    { "sinusoidal_pos_embds", KEY_FIXED, 0, 0, 0, "false" },
    { "tie_word_embeddings", KEY_FIXED, 0, 0, 0, "true" },
    { "torch_dtype", KEY_DTYPE, 0, 0, 0, NULL },
    { "vocab_size", KEY_SIZE, P(V), 30522, SIZE_LIMIT, NULL },
    { NULL, 0, 0, 0, 0, NULL },
};

static const Family families[] = {
    { "LlamaForCausalLM", "llama", 0, &llama_names, "model.", meta_names, decoder_keys, llama_keys,
      { LLAMA_STACK }, 0, 0 },
    { "LLaMAForCausalLM", "llama", 0, &llama_names, "model.", meta_names, decoder_keys, llama_keys,
      { LLAMA_STACK }, 0, 0 },
    { "MistralForCausalLM", "mistral", 0, &mistral_names, "model.", meta_names, decoder_keys, mistral_keys,
      { LLAMA_STACK }, 0, 0 },
    { "Qwen2ForCausalLM", "qwen2", 0, &qwen2_names, "model.", NULL, decoder_keys, qwen2_keys,
      { LLAMA_STACK, .biases = BIAS_QKV }, 0, 0 },
    { "Qwen3ForCausalLM", "qwen3", 0, &qwen3_names, "model.", NULL, decoder_keys, qwen3_keys,
      { LLAMA_STACK, .qk_norm = 1 }, 0, 0 },
    { "SmolLM3ForCausalLM", "smollm3", 0, &smollm3_names, "model.", NULL, decoder_keys, smollm3_keys,
      { LLAMA_STACK }, 0, 0 },
    { "GPTNeoForCausalLM", "gpt_neo", 0, &neo_names, "transformer.", NULL, NULL, neo_keys,
      { .norm = NORM_LAYER, .norm_place = NORM_PRE, .activation = ACT_GELU_TANH, .causal = 1, .scale = 1,
        .biases = BIAS_O | BIAS_MLP }, 0, 0 },
    { "GPT2LMHeadModel", "gpt2", 0, &gpt2_names, "transformer.", NULL, NULL, gpt2_keys, { GPT2_STACK }, 0, 0 },
    { "RobertaForSequenceClassification", "roberta", 1, &roberta_names, "roberta.", roberta_stored, NULL,
      roberta_keys, { BERT_STACK }, 0, 0 },
    { "XLMRobertaForSequenceClassification", "xlm-roberta", 1, &xlm_roberta_names, "roberta.", NULL,
      roberta_keys, xlm_roberta_keys, { BERT_STACK }, 0, 0 },
    { "BertForSequenceClassification", "bert", 1, &bert_names, "bert.", bert_stored, roberta_keys, bert_keys,
      { BERT_STACK }, 0, 1 },
    { "DistilBertForSequenceClassification", "distilbert", 1, &distilbert_names, "distilbert.", NULL,
      label_keys, distilbert_keys, { BERT_STACK, .eps = 1e-12f }, HEAD_RELU, 1 },
    { "ElectraForSequenceClassification", "electra", 1, &electra_names, "electra.", NULL, roberta_keys,
      electra_keys, { BERT_STACK }, HEAD_GELU, 1 },
    { "LlamaForSequenceClassification", "llama", 1, &llama_judge, "model.", NULL, decoder_keys, llama_keys,
      { LLAMA_STACK }, 0, 1 },
    { "MistralForSequenceClassification", "mistral", 1, &mistral_judge, "model.", NULL, decoder_keys,
      mistral_keys, { LLAMA_STACK }, 0, 1 },
    { "Qwen2ForSequenceClassification", "qwen2", 1, &qwen2_judge, "model.", NULL, decoder_keys, qwen2_keys,
      { LLAMA_STACK, .biases = BIAS_QKV }, 0, 1 },
    { "Qwen3ForSequenceClassification", "qwen3", 1, &qwen3_judge, "model.", NULL, decoder_keys, qwen3_keys,
      { LLAMA_STACK, .qk_norm = 1 }, 0, 1 },
    { "GPT2ForSequenceClassification", "gpt2", 1, &gpt2_judge, "transformer.", NULL, label_keys, gpt2_keys,
      { GPT2_STACK }, 0, 1 },
};
enum { FAMILIES = sizeof families / sizeof *families };

/* Returns the first family of a model_type; NULL: there is none. */
static const Family *family_of(const char *type, int judge) {
    int i = 0;
    while (i < FAMILIES && (families[i].judge != judge || strcmp(families[i].type, type) != 0)) i++;
    return i < FAMILIES ? &families[i] : NULL;
}

/* Sets the options of a stack to those of `kind`; its sizes, window, eps and rope stay. */
static void set_kind(StackKind *to, StackKind kind) {
    kind.C = to->C;
    kind.H = to->H;
    kind.K = to->K;
    kind.D = to->D;
    kind.F = to->F;
    kind.L = to->L;
    kind.window = to->window;
    kind.eps = to->eps;
    kind.rope = to->rope;
    *to = kind;
    if (!to->K) to->K = to->H;
    if (!to->D && to->H > 0) to->D = to->C / to->H;
}

int config_policy(ModelConfig *c, const char *type) {
    const Family *y = family_of(type, 0);
    if (!y) return E_UNSUPPORTED;
    c->names = y->names;
    c->learned = y->names->part[NAME_POSITION] != NULL;
    set_kind(&c->stack, y->kind);
    return OK;
}

int config_judge(RewardConfig *c, const char *type) {
    const Family *y = family_of(type, 1);
    if (!y) return E_UNSUPPORTED;
    c->names = y->names;
    c->head = y->head;
    c->from_zero = y->from_zero;
    set_kind(&c->stack, y->kind);
    return OK;
}

/* Returns 1 if a class holds the body of a model of its model_type, with another head or none: what
 * `rm --new-head` begins with. */
static int is_base(const char *class) {
    static const char *const end[] = { "ForMaskedLM", "ForPreTraining", "ForCausalLM", "LMHeadModel", "Model" };
    const size_t n = strlen(class);
    for (size_t i = 0; i < sizeof end / sizeof *end; i++) {
        const size_t m = strlen(end[i]);
        if (n > m && strcmp(class + n - m, end[i]) == 0) return 1;
    }
    return 0;
}

/* Returns the family that "architectures" names, or without architectures "model_type". Complains and returns
 * NULL if there is no such family. */
static const Family *family_read(Fields *f, int judge) {
    const Json *list = field(f, "architectures"), *j;
    const char *type = field_text(f, "model_type", NULL);
    const Family *found = NULL;
    if (list && list->type != JSON_ARRAY) complain(f, E_FORMAT, "not a list:", "architectures");
    for (j = list ? list->child : NULL; j && f->code == OK; j = j->next) {
        const char *name = j->type == JSON_STRING ? j->string : "?";
        for (int i = 0; i < FAMILIES && !found; i++)
            if (families[i].judge == judge && strcmp(name, families[i].architecture) == 0)
                found = &families[i];
        if (!found && !(judge && type && is_base(name) && family_of(type, 1)))
            complain(f, E_UNSUPPORTED, "architecture", name);
    }
    if (!found && type) found = family_of(type, judge);
    if (!found && !type) complain(f, E_MISSING, "config.json without", "model_type");
    else if (type && (!found || strcmp(type, found->type) != 0))
        complain(f, E_UNSUPPORTED, "model_type", type);
    return f->code == OK ? found : NULL;
}

/* Returns the first family with these names; folders are written in its form. NULL: there is none. */
static const Family *family_written(const Names *names, int judge) {
    int i = 0;
    while (i < FAMILIES && (families[i].judge != judge || families[i].names != names)) i++;
    return i < FAMILIES ? &families[i] : NULL;
}

/* Inserts a key by its name, or replaces the key of that name. Returns the number of keys. */
static int insert_key(const Key *list[KEYS_MAX], int n, const Key *k) {
    int i = 0;
    for (int j = 0; j < n; j++) if (strcmp(list[j]->key, k->key) == 0) { list[j] = k; return n; }
    while (i < n && strcmp(list[i]->key, k->key) < 0) i++;
    memmove(list + i + 1, list + i, (size_t)(n - i) * sizeof *list);
    list[i] = k;
    return n + 1;
}

/* Lists the family's keys in the order of writing: its common keys, with its own keys, and for judges those
 * about labels, inserted by name. Returns the number of keys. */
static int family_keys(const Key *list[KEYS_MAX], const Family *y) {
    int n = 0;
    for (const Key *k = y->common; k && k->key; k++) list[n++] = k;
    if (!y->common) {                       /* one list, in its own order */
        for (const Key *k = y->own; k->key; k++) list[n++] = k;
        return n;
    }
    for (const Key *k = y->own; k->key; k++) n = insert_key(list, n, k);
    for (const Key *k = label_keys; y->judge && k->key; k++) n = insert_key(list, n, k);
    return n;
}

/* Returns 1 if name is the pattern with a layer's number in place of "%d", and sets *layer to that number. A
 * pattern without "%d" has to be equal to name. */
static int pattern_match(const char *pattern, const char *name, int *layer) {
    const char *number = strstr(pattern, "%d");
    size_t n = number ? (size_t)(number - pattern) : 0, digits;
    *layer = 0;
    if (!number) return strcmp(pattern, name) == 0;
    if (strncmp(pattern, name, n) != 0) return 0;
    digits = strspn(name + n, "0123456789");
    if (!digits || digits > 6 || strcmp(name + n + digits, number + 2) != 0) return 0;
    *layer = atoi(name + n);
    return 1;
}

/* Tensors of files that a model does not need: buffers that it computes itself, and heads of other classes.
 * In a pattern "*" stands for any text, at one end. stem: of the family that has them; "": all families. */
static const struct { const char *stem, *pattern; } spare[] = {
    { "", "*rotary_emb.inv_freq" }, { "", "*rotary_emb.cos_cached" }, { "", "*rotary_emb.sin_cached" },
    { "", "*rope.freqs" }, { "", "*embeddings.position_ids" }, { "", "*embeddings.token_type_ids" },
    { "roberta.", "roberta.pooler.*" }, { "roberta.", "pooler.*" }, { "roberta.", "classifier.*" },
    { "roberta.", "lm_head.*" }, { "bert.", "cls.*" }, { "bert.", "classifier.*" },
    { "distilbert.", "vocab_*" }, { "distilbert.", "classifier.*" }, { "distilbert.", "pre_classifier.*" },
    { "electra.", "discriminator_predictions.*" },
    { "electra.", "generator_*" }, { "electra.", "classifier.*" },
    { "model.", "*lm_head.weight" }, { "model.", "score.*" },       /* a judge's base, with either head */
    { "transformer.", "*lm_head.weight" }, { "transformer.", "score.*" },
    { "transformer.", "*.attn.bias" }, { "transformer.", "*.attn.masked_bias" },    /* GPT-2's causal mask */
    { "transformer.", "*.attn.attention.bias" }, { "transformer.", "*.attn.attention.masked_bias" },
};

int family_spares(const char *own, const char *name) {
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof spare / sizeof *spare; i++) {
        const char *pattern = spare[i].pattern;
        size_t m = strlen(pattern) - 1;
        if (strncmp(own, spare[i].stem, strlen(spare[i].stem)) != 0 || n < m) continue;
        if (pattern[0] == '*' ? !strcmp(name + n - m, pattern + 1) : !strncmp(name, pattern, m)) return 1;
    }
    return 0;
}

int family_name(char *out, size_t cap, const char *name, int k, int *paired) {
    const Family *y = families, *end = families + FAMILIES;
    *paired = 0;
    while (y < end && !(y->stem[0] && strncmp(name, y->stem, strlen(y->stem)) == 0)) y++;
    if (y < end && k-- == 0) return name_format(out, cap, name + strlen(y->stem), 0) == OK;
    for (y = families; y < end; y++)
        for (const Stored *s = y->stored; s && s->pattern; s++) {
            int layer, bare = strncmp(s->pattern, y->stem, strlen(y->stem)) == 0;
            if (!pattern_match(y->names->part[s->part], name, &layer)) continue;
            if (k > bare) return 0;
            *paired = s->how == PAIRED;
            return name_format(out, cap, s->pattern + (k ? strlen(y->stem) : 0), layer) == OK;
        }
    return 0;
}

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
    int *eos = (int *)(void *)((char *)config + P(eos)), *count = (int *)(void *)((char *)config + P(eos_count));
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
        else if (++period > 32) { complain(f, E_UNSUPPORTED, "layers that differ without a period:", key); return; }
        else l = 0;
    }
    s->windowed = s->unrotated = 0;
    for (int l = 0; l < period; l++) {
        if (b->bits[l] & WINDOWED) s->windowed |= 1u << l;
        if (b->bits[l] & UNROTATED) s->unrotated |= 1u << l;
        all |= b->bits[l];
    }
    s->period = period == 1 && all != UNROTATED ? 0 : period;
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
static const char *activation_name(const Key *k, int activation) {
    int i = 0;
    if (activation_named(k->text) == activation) return k->text;
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

/* Reads all keys of the file's family into the ModelConfig or RewardConfig, whose stack it is. Returns the family; NULL on an
 * error, which is in f->code. */
static const Family *read_keys(Fields *f, void *config, StackKind *stack, int judge) {
    const Key *list[KEYS_MAX];
    const Family *y = family_read(f, judge);
    int n = y ? family_keys(list, y) : 0;
    if (y) *stack = y->kind;
    for (int late = 0; late <= 1; late++)   /* what is said of each layer needs the number of layers */
        for (int i = 0; i < n && f->code == OK; i++)
            if (late == (list[i]->kind >= KEY_LAYERS && list[i]->kind <= KEY_KINDS)) read_key(f, list[i], config);
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
    if (s->H % s->K) complain(f, E_RANGE, "not a divisor of num_attention_heads:", "num_key_value_heads");
    if (s->D < 1 || (s->rotary && s->D % 2)) complain(f, E_RANGE, "not even:", "head_dim");
    if ((uint64_t)s->H * (uint64_t)s->D > SIZE_LIMIT)
        complain(f, E_RANGE, "too large with num_attention_heads:", "head_dim");
}

/* Does the same for a judge, and checks that sizes and ids fit together. */
static void check_judge(Fields *f, RewardConfig *c) {
    check_stack(f, &c->stack, &c->positions);
    if (c->pad >= c->V) complain(f, E_RANGE, "not below vocab_size:", "pad_token_id");
    if (c->positions < (c->from_zero ? 2 : c->pad + 3)) complain(f, E_RANGE, "no room for a text:", "max_position_embeddings");
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
    check_stack(&f, &c->stack, &c->positions);
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
    case KEY_ACT: put_text(b, k->key, activation_name(k, stack->activation)); break;
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
