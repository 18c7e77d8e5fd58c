/* files/families.c - the table of families of models: the options of their stacks, the names of their tensors
 * in files, and the keys of their configurations. A family of a shape that the engine has is one entry here.
 * Source   transformers' modeling_*.py (names of tensors) and configuration_*.py (keys and defaults);
 *          convert_llama_weights_to_hf.py (Meta's names).
 * Needs    core (name_format).
 * Never    reads or writes a file: config.c does it by these lists.
 * Edges    a key that a family does not list is ignored; what transformers' class would compute differently
 *          because of a key is listed and refused (KEY_OFF, KEY_ON, KEY_ONLY, KEY_ONE). */
#include "families.h"

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

#define T5_ATTENTION(S) \
    [NAME_NORM1] = S "layer.0.layer_norm.weight", \
    [NAME_Q] = S "layer.0.SelfAttention.q.weight", [NAME_K] = S "layer.0.SelfAttention.k.weight", \
    [NAME_V] = S "layer.0.SelfAttention.v.weight", [NAME_O] = S "layer.0.SelfAttention.o.weight"
#define T5_CROSS(part) [NAME_CROSS - NAME_NORM1 + part]
#define T5_FEED(S, up) [NAME_UP] = S up ".weight", [NAME_DOWN] = S "wo.weight"
#define T5_DECODER \
    [NAME_WORD] = "shared.weight", [NAME_HEAD] = "lm_head.weight", \
    T5_ATTENTION("decoder.block.%d."), \
    T5_CROSS(NAME_NORM1) = "decoder.block.%d.layer.1.layer_norm.weight", \
    T5_CROSS(NAME_Q) = "decoder.block.%d.layer.1.EncDecAttention.q.weight", \
    T5_CROSS(NAME_K) = "decoder.block.%d.layer.1.EncDecAttention.k.weight", \
    T5_CROSS(NAME_V) = "decoder.block.%d.layer.1.EncDecAttention.v.weight", \
    T5_CROSS(NAME_O) = "decoder.block.%d.layer.1.EncDecAttention.o.weight", \
    [NAME_NORM2] = "decoder.block.%d.layer.2.layer_norm.weight", \
    [NAME_BUCKETS] = "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", \
    [NAME_NORM] = "decoder.final_layer_norm.weight"
#define T5_ENCODER \
    T5_ATTENTION("encoder.block.%d."), [NAME_NORM2] = "encoder.block.%d.layer.1.layer_norm.weight", \
    [NAME_BUCKETS] = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", \
    [NAME_NORM] = "encoder.final_layer_norm.weight"
#define T5_D "decoder.block.%d.layer.2.DenseReluDense."
#define T5_E "encoder.block.%d.layer.1.DenseReluDense."
#define T5_STACK .norm = NORM_RMS, .norm_place = NORM_PRE, .causal = 1, .cross = 1, .scale = 1
static const Names t5_names = { { T5_DECODER, T5_FEED(T5_D, "wi") }, 0 },
    t5_encoder = { { T5_ENCODER, T5_FEED(T5_E, "wi") }, 0 },
    t5_gated_names = { { T5_DECODER, T5_FEED(T5_D, "wi_1"), [NAME_GATE] = T5_D "wi_0.weight" }, 0 },
    t5_gated_encoder = { { T5_ENCODER, T5_FEED(T5_E, "wi_1"), [NAME_GATE] = T5_E "wi_0.weight" }, 0 };
static const Key t5_keys[] = {
    { "architectures", KEY_CLASS, 0, 0, 0, NULL },
    { "bos_token_id", KEY_ID, P(bos), -1, 0, NULL },
    { "classifier_dropout", KEY_FIXED, 0, 0, 0, "0.0" },
    { "d_ff", KEY_SIZE, P(stack.F), 2048, SIZE_LIMIT, NULL },
    { "d_kv", KEY_SIZE, P(stack.D), 64, HEADS_MAX, NULL },
    { "d_model", KEY_SIZE, P(stack.C), 512, SIZE_LIMIT, NULL },
    { "decoder_start_token_id", KEY_TOKEN, P(start), 0, 0, NULL },
    { "dense_act_fn", KEY_FEED_ACT, P(stack), 0, 0, NULL },
    { "dropout_rate", KEY_FIXED, 0, 0, 0, "0.1" },
    { "eos_token_id", KEY_EOS, P(eos), 1, 0, NULL },
    { "feed_forward_proj", KEY_FEED, P(stack), 0, 0, "relu" },
    { "initializer_factor", KEY_FIXED, 0, 0, 0, "1.0" },
    { "is_decoder", KEY_OFF, 0, 0, 0, "false" },
    { "is_encoder_decoder", KEY_ON, 0, 0, 0, NULL },
    { "is_gated_act", KEY_FEED_GATED, P(stack), 0, 0, NULL },
    { "layer_norm_epsilon", KEY_EPS, P(stack.eps), 0, 0, "1e-6" },
    { "model_type", KEY_TYPE, 0, 0, 0, NULL },
    { "n_positions", KEY_SIZE, P(positions), 512, SIZE_LIMIT, NULL },
    { "num_decoder_layers", KEY_DERIVED, P(stack.L), 0, LAYERS_MAX, NULL },
    { "num_heads", KEY_SIZE, P(stack.H), 8, HEADS_MAX, NULL },
    { "num_layers", KEY_SIZE, P(encoder.L), 6, LAYERS_MAX, NULL },
    { "pad_token_id", KEY_ID, P(pad), 0, 0, NULL },
    { "quantization_config", KEY_BITS, 0, 0, 0, NULL },
    { "relative_attention_max_distance", KEY_SIZE, P(stack.distance), 128, SIZE_LIMIT, NULL },
    { "relative_attention_num_buckets", KEY_SIZE, P(stack.buckets), 32, SIZE_LIMIT, NULL },
    { "tie_word_embeddings", KEY_FLAG, P(tied), 1, 0, NULL },
    { "scale_decoder_outputs", KEY_SCALED, P(scaled), 0, 0, NULL },
    { "torch_dtype", KEY_DTYPE, 0, 0, 0, NULL },
    { "use_cache", KEY_FIXED, 0, 0, 0, "true" },
    { "vocab_size", KEY_SIZE, P(V), 32128, SIZE_LIMIT, NULL },
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
      { LLAMA_STACK }, 0, 0, NULL },
    { "LLaMAForCausalLM", "llama", 0, &llama_names, "model.", meta_names, decoder_keys, llama_keys,
      { LLAMA_STACK }, 0, 0, NULL },
    { "MistralForCausalLM", "mistral", 0, &mistral_names, "model.", meta_names, decoder_keys, mistral_keys,
      { LLAMA_STACK }, 0, 0, NULL },
    { "Qwen2ForCausalLM", "qwen2", 0, &qwen2_names, "model.", NULL, decoder_keys, qwen2_keys,
      { LLAMA_STACK, .biases = BIAS_QKV }, 0, 0, NULL },
    { "Qwen3ForCausalLM", "qwen3", 0, &qwen3_names, "model.", NULL, decoder_keys, qwen3_keys,
      { LLAMA_STACK, .qk_norm = 1 }, 0, 0, NULL },
    { "SmolLM3ForCausalLM", "smollm3", 0, &smollm3_names, "model.", NULL, decoder_keys, smollm3_keys,
      { LLAMA_STACK }, 0, 0, NULL },
    { "GPTNeoForCausalLM", "gpt_neo", 0, &neo_names, "transformer.", NULL, NULL, neo_keys,
      { .norm = NORM_LAYER, .norm_place = NORM_PRE, .activation = ACT_GELU_TANH, .causal = 1, .scale = 1,
        .biases = BIAS_O | BIAS_MLP }, 0, 0, NULL },
    { "GPT2LMHeadModel", "gpt2", 0, &gpt2_names, "transformer.", NULL, NULL, gpt2_keys,
      { GPT2_STACK }, 0, 0, NULL },
    { "T5ForConditionalGeneration", "t5", 0, &t5_names, "", NULL, NULL, t5_keys,
      { T5_STACK, .activation = ACT_RELU }, 0, 0,
      &t5_encoder },
    { "T5ForConditionalGeneration", "t5", 0, &t5_gated_names, "", NULL, NULL, t5_keys,
      { T5_STACK, .activation = ACT_GELU_TANH, .gated = 1 }, 0, 0, &t5_gated_encoder },
    { "RobertaForSequenceClassification", "roberta", 1, &roberta_names, "roberta.", roberta_stored, NULL,
      roberta_keys, { BERT_STACK }, 0, 0, NULL },
    { "XLMRobertaForSequenceClassification", "xlm-roberta", 1, &xlm_roberta_names, "roberta.", NULL,
      roberta_keys, xlm_roberta_keys, { BERT_STACK }, 0, 0, NULL },
    { "BertForSequenceClassification", "bert", 1, &bert_names, "bert.", bert_stored, roberta_keys, bert_keys,
      { BERT_STACK }, 0, 1, NULL },
    { "DistilBertForSequenceClassification", "distilbert", 1, &distilbert_names, "distilbert.", NULL,
      label_keys, distilbert_keys, { BERT_STACK, .eps = 1e-12f }, HEAD_RELU, 1, NULL },
    { "ElectraForSequenceClassification", "electra", 1, &electra_names, "electra.", NULL, roberta_keys,
      electra_keys, { BERT_STACK }, HEAD_GELU, 1, NULL },
    { "LlamaForSequenceClassification", "llama", 1, &llama_judge, "model.", NULL, decoder_keys, llama_keys,
      { LLAMA_STACK }, 0, 1, NULL },
    { "MistralForSequenceClassification", "mistral", 1, &mistral_judge, "model.", NULL, decoder_keys,
      mistral_keys, { LLAMA_STACK }, 0, 1, NULL },
    { "Qwen2ForSequenceClassification", "qwen2", 1, &qwen2_judge, "model.", NULL, decoder_keys, qwen2_keys,
      { LLAMA_STACK, .biases = BIAS_QKV }, 0, 1, NULL },
    { "Qwen3ForSequenceClassification", "qwen3", 1, &qwen3_judge, "model.", NULL, decoder_keys, qwen3_keys,
      { LLAMA_STACK, .qk_norm = 1 }, 0, 1, NULL },
    { "GPT2ForSequenceClassification", "gpt2", 1, &gpt2_judge, "transformer.", NULL, label_keys, gpt2_keys,
      { GPT2_STACK }, 0, 1, NULL },
};
enum { FAMILIES = sizeof families / sizeof *families };

const Family *family_of(const char *type, int judge) {
    int i = 0;
    while (i < FAMILIES && (families[i].judge != judge || strcmp(families[i].type, type) != 0)) i++;
    return i < FAMILIES ? &families[i] : NULL;
}

const Family *family_named(const char *class, int judge) {
    int i = 0;
    while (i < FAMILIES && (families[i].judge != judge || strcmp(families[i].architecture, class) != 0)) i++;
    return i < FAMILIES ? &families[i] : NULL;
}

const char *config_class(int k, int *judge) {
    for (int i = 0; i < FAMILIES; i++) {
        const int gated = families[i].encoder && families[i].kind.gated;    /* the class's second entry */
        if (gated || k-- > 0) continue;
        *judge = families[i].judge;
        return families[i].architecture;
    }
    return NULL;
}

/* Sets the options of a stack to those of `kind`; its sizes, window, buckets, eps and rope stay. */
static void set_kind(StackKind *to, StackKind kind) {
    kind.C = to->C;
    kind.H = to->H;
    kind.K = to->K;
    kind.D = to->D;
    kind.F = to->F;
    kind.L = to->L;
    kind.window = to->window;
    kind.buckets = to->buckets;
    kind.distance = to->distance;
    kind.eps = to->eps;
    kind.rope = to->rope;
    *to = kind;
    if (!to->K) to->K = to->H;
    if (!to->D && to->H > 0) to->D = to->C / to->H;
}

void config_encoder(ModelConfig *c, const Family *y) {
    const int layers = c->encoder.L;
    c->encoder_names = y->encoder;
    c->encoder.L = 0;
    if (!y->encoder) return;
    c->encoder = c->stack;
    c->encoder.L = layers;
    c->encoder.causal = c->encoder.cross = 0;
}

int config_policy(ModelConfig *c, const char *type) {
    const Family *y = family_of(type, 0);
    if (!y) return E_UNSUPPORTED;
    if (y->encoder && c->stack.gated) y++;
    c->names = y->names;
    c->learned = y->names->part[NAME_POSITION] != NULL;
    set_kind(&c->stack, y->kind);
    config_encoder(c, y);
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

int family_base(const char *class) {
    static const char *const end[] = { "ForMaskedLM", "ForPreTraining", "ForCausalLM", "LMHeadModel",
                                       "Model" };
    const size_t n = strlen(class);
    for (size_t i = 0; i < sizeof end / sizeof *end; i++) {
        const size_t m = strlen(end[i]);
        if (n > m && strcmp(class + n - m, end[i]) == 0) return 1;
    }
    return 0;
}

const Family *family_written(const Names *names, int judge) {
    int i = 0;
    while (i < FAMILIES && (families[i].judge != judge || families[i].names != names)) i++;
    return i < FAMILIES ? &families[i] : NULL;
}

const char *config_written(const Names *names, int judge) {
    const Family *y = family_written(names, judge);
    return y ? y->architecture : "";
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

int family_keys(const Key *list[KEYS_MAX], const Family *y) {
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
    { "", "*rope.freqs" }, { "", "encoder.embed_tokens.*" }, { "", "decoder.embed_tokens.*" },
    { "", "*EncDecAttention.relative_attention_bias.weight" }, { "", "*embeddings.position_ids" },
    { "", "*embeddings.token_type_ids" },
    { "roberta.", "roberta.pooler.*" }, { "roberta.", "pooler.*" }, { "roberta.", "classifier.*" },
    { "roberta.", "lm_head.*" }, { "bert.", "cls.*" }, { "bert.", "classifier.*" },
    { "bert.", "bert.pooler.*" }, { "bert.", "pooler.*" },      /* a judge's head may be new */
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
