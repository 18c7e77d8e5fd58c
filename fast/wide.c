/* fast/wide.c - compiles ops.c a second time, for x86-64 processors with AVX2: eight floats at once.
 *
 * Why      If a compiler may use AVX2, it makes loops over eight floats at a time from the same text. So
 *          no code is written twice, and the bits are the same: sums have eight lanes in both copies
 *          (lanes.h), and no product is fused with a sum.
 * How      Every function of ops.c gets another name here, wide_NAME. The first line of a definition in
 *          ops.c, RETURN_WIDE(NAME, arguments), calls wide_NAME if fast_wide() returns 1. The functions
 *          that have no such line are compiled here too, but ops.c does not call them.
 * Needs    A compiler with GNU attributes (gcc, clang). For other compilers the file is empty. */
#define WIDE_COPY
#define exp_own wide_exp_own
#define log1p_exp wide_log1p_exp
#define linear_add wide_linear_add
#define linear_forward wide_linear_forward
#define linear_backward wide_linear_backward
#define linear_measure wide_linear_measure
#define embedding_forward wide_embedding_forward
#define embedding_backward wide_embedding_backward
#define rmsnorm_forward wide_rmsnorm_forward
#define rmsnorm_backward wide_rmsnorm_backward
#define layernorm_forward wide_layernorm_forward
#define layernorm_backward wide_layernorm_backward
#define rope_rotate wide_rope_rotate
#define attention_forward wide_attention_forward
#define attention_backward wide_attention_backward
#define attention_measure wide_attention_measure
#define gated_forward wide_gated_forward
#define gated_backward wide_gated_backward
#define activation_forward wide_activation_forward
#define activation_backward wide_activation_backward
#define tanh_forward wide_tanh_forward
#define tanh_backward wide_tanh_backward
#define softmax_weights wide_softmax_weights
#define logprob_forward wide_logprob_forward
#define logprob_backward wide_logprob_backward
#define entropy_backward wide_entropy_backward
#define full_kl_forward wide_full_kl_forward
#define cross_entropy_forward wide_cross_entropy_forward
#define cross_entropy_backward wide_cross_entropy_backward
#define tensor_bytes wide_tensor_bytes
#define tensor_read wide_tensor_read
#define tensor_carve wide_tensor_carve
#define tensor_carve_quant wide_tensor_carve_quant
#define tensor_normal wide_tensor_normal
#define tensor_uniform wide_tensor_uniform
#define tensor_fill wide_tensor_fill
#define matrix_part wide_matrix_part
#define tensor_values wide_tensor_values
#define optimizer_carve wide_optimizer_carve
#define optimizer_reset wide_optimizer_reset
#define gradient_norm wide_gradient_norm
#define gradient_zero wide_gradient_zero
#define optimizer_step wide_optimizer_step
#include "fast.h"

#if defined(FAST) && defined(__x86_64__) && defined(__GNUC__) && !defined(__TINYC__)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif
#include "../ops.c"

void wide_attention_rows(float *P, int width, int first, const Keys *keys, const Heads *heads, int from,
                         int to, int h) {
    attention_rows(P, width, first, keys, heads, from, to, h);
}
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
