/* rlhf.h - the library's map: every shared struct and prototype, grouped by file.
 *
 * Shape letters: N rows, B sequences, T positions, P response tokens, W (in stack.c M) wanted rows,
 * C model width, H heads, K key/value heads, D head width, F feed-forward width, L layers,
 * V vocabulary, R LoRA rank, I/O in/out features. Arrays are row-major: x (N,C) has element (n,c)
 * at x[n*C + c]. A linear weight is (O,I): y = x W^T.
 * Pairs: x_forward overwrites its outputs, x_backward only ADDS to every d-array. Arguments come in
 * the order outputs, saved values, inputs, weights, scalars, sizes.
 * Log-probabilities, KL and entropy are in nats. Each .c file names the papers and formats that it
 * implements. A file calls only files of a lower level (the list in the Makefile; `make check`). */
#ifndef RLHF_H
#define RLHF_H
#include "base.h"

/* ==== The shapes that everything shares. An x_carve takes numbers from an Arena, which may only
 * measure, and lists (some KB) from a Pool: a model that was only measured is listed too. ==== */
enum { F32, BF16, F16, NF4 };       /* types of numbers in memory and in files; NF4: 4 bits */
/* 4-bit weights (Dettmers et al. 2023; bitsandbytes): element i of the flat (row-major) weight is
 * table[nibble i] * absmax[i / block]; the first of a byte's two nibbles is the high one. Doubly
 * quantised, absmax[b] = map[code[b]] * nested[b / 256] + offset. */
enum { QUANT_NF4, QUANT_FP4, QUANT_NESTED = 256 /* absmax values that share one of `nested` */ };
typedef struct {
    int kind, block;                /* QUANT_; weights that share an absmax: 32, 64 ... 4096 */
    f32 *absmax;                    /* (blocks), or NULL: doubly quantised, by the next four */
    unsigned char *code; f32 *nested, offset, *map;     /* (blocks) (blocks/256, up) 1 (256) */
    f32 table[16];
    int dtype;                      /* F32, BF16, F16: weights are rounded to it first */
} Quant;
/* A weight (O,I), or with O = 1 a vector. data: float, uint16_t (BF16, F16), or of NF4 (O*I+1)/2
 * bytes, with scales in *quant. grad (O,I): NULL if frozen. id: its index in the model's list. A
 * linear rounds x, W and dy to `compute` before it multiplies, and its y and dx to `output`; sums
 * are float32. A matrix may be the rows from `first` on of a larger one, whose id it has: data and
 * grad begin there, but for NF4, whose data and quant are the larger one's. */
typedef struct { int type, O, I, id; void *data; Quant *quant; float *grad;
                 int compute, output, first; } Matrix;
enum { TENSOR_LINEAR = 1,           /* a linear of a layer: what "all-linear" adapts */
       TENSOR_EMBEDDING = 2, TENSOR_HEAD = 4,
       TENSOR_NORM = 8, TENSOR_BIAS = 16, TENSOR_VECTOR = TENSOR_NORM | TENSOR_BIAS,
       TENSOR_RESIDUAL = 32,        /* a linear whose output is added to the residual stream */
       TENSOR_TIED = 64,            /* shares data: not saved, loaded, trained, counted */
       TENSOR_OPTIONAL = 128,       /* a file may lack it: then it keeps its value */
       TENSOR_TRAINED = 256,        /* has a gradient, while measuring too */
       TENSOR_TRANSPOSED = 512 };   /* files have its floats as (I,O); 4 bits they have as (O,I) */
/* One list per model sizes, loads, saves, prints and names its tensors. A TensorList grows. */
typedef struct { char name[96]; Matrix *matrix; int flags; } Tensor;
typedef struct { Tensor *tensor; int tensors, trainable; Arena *arena; } TensorList;
/* A linear that a partly quantised file has in 16 or 32 bits; "" ends a list of them. */
typedef struct { char name[96]; int type; } KeptLinear;
/* How a model's weights are held. layers: its LINEARs (F32, BF16, F16, NF4); tables: embedding and
 * head (not NF4); norms and biases are F32. kind, block, doubled (1: absmax in 8 bits): of NF4.
 * compute: what linears multiply, as by PyTorch's autocast; the head's logits stay F32. kept (or
 * NULL): of NF4, the linears that are held in other types. */
typedef struct { int layers, tables, kind, block, doubled, compute;
                 const KeptLinear *kept; } WeightTypes;
/* The rows of k and v that each query sees: rows first[n] .. first[n]+count[n]-1 (count >= 1).
 * self[n]: the row that is the query's own, for a bias by distance; NULL without one. */
typedef struct { const int *first, *count, *self; } Keys;
typedef struct Reading Reading;       /* the texts that a decoder reads (model.c) */
typedef struct { int L, B, T, width /* K*D */; float *k, *v;            /* (L,B,T,width) */
                 Reading *reading /* of its B sequences; NULL: none */; } Cache;
/* A soft prompt (Lester et al. 2021), as peft's PromptTuningConfig has it: `rows` rows of numbers
 * (0: none) come before each sequence, as if they were the embeddings of tokens; with an encoder,
 * before each text that it reads. The other fields are for adapter_config.json: stored: rows of the
 * file (peft's files for T5 have twice as many, of which it uses the first half); text, tokenizer:
 * of PROMPT_TEXT, else NULL. init: where the numbers come from. */
enum { PROMPT_VOCABULARY, PROMPT_NORMAL, PROMPT_TEXT };
typedef struct { int rows, stored, width, heads, layers, init;
                 const char *text, *tokenizer; } PromptConfig;
/* LoRA (Hu et al. 2021), as peft's LoraConfig has it. R 0: no pairs, only a soft prompt. Lists of
 * modules are comma-separated names: a name is a module's, or the end of one after a dot. _regex 1:
 * the text is a regular expression that matches a module's whole name. NULL: none. */
enum { LORA_BIAS_NONE, LORA_BIAS_ALL, LORA_BIAS_LORA_ONLY };
typedef struct { const char *pattern; f32 value; } LoraPattern;     /* of rank_ or alpha_pattern */
typedef struct {
    PromptConfig prompt;
    int R; f32 alpha; int rslora; f32 dropout;
    const char *targets;            /* "all-linear": every linear of the layers */
    int targets_regex;
    const char *peft;               /* the folder, if peft's rules hold (lora_carve); else NULL */
    int dora;                       /* DoRA (Liu et al. 2024) */
    int bias;                       /* LORA_BIAS_: which biases are trained and saved */
    const char *exclude; int exclude_regex;     /* what targets do not mean */
    const char *save;               /* modules_to_save: trained and saved whole */
    const int *layer; int layers; const char *layers_pattern;   /* layers 0: all */
    const LoraPattern *rank, *alphas; int rank_count, alphas_count;
    const char *task;               /* peft's task_type, or NULL */
    int transposed;                 /* fan_in_fan_out: lora_carve sets it, for GPT-2's Conv1D */
} LoraConfig;
/* What an adapter does to one tensor of its base. A linear (O,I): A (R,I), B (O,R). An embedding
 * (V,C): A (R,V), B (C,R). A.O == 0: no pair. magnitude, norm (1,O): of DoRA; norm is that of each
 * row of W + scale B A (lora_norms). saved: stands in for the base's tensor; O == 0: no such. */
typedef struct { Matrix A, B, magnitude, norm, saved; float scale; int embedding; } LoraPair;
/* Dropout of the adapter's input. The mask of row n follows from (seed, matrix, row + n) alone, so
 * forward, backward and recomputing agree, however a step's rows are split (row: how many came
 * before; text_row: of an encoder's rows). p: 0 outside training. x, dx: room for N rows of the
 * widest input. */
typedef struct { float p; uint64_t seed, row, text_row; float *x, *dx; } LoraDropout;
/* An adapter: low-rank pairs, a soft prompt, or both. tensor: what is trained and saved, the prompt
 * first; after these `tensors`, up to `written`, the base's tables that peft writes beside their
 * pairs. prompt (rows,C): O == 0: none. */
typedef struct { LoraConfig config;
                 Matrix prompt;
                 LoraPair *pair; int pairs;         /* one per tensor of the base's list, by id */
                 Tensor *tensor; int tensors, written; LoraDropout dropout; } Lora;
/* A transformer as data (stack.c). norm, norm_place, activation: 0 is the first name of the enum.
 * The other options are off at 0. */
enum { NORM_RMS, NORM_LAYER };                      /* norm */
enum { NORM_PRE, NORM_POST };                       /* norm_place: before halves, or after sums */
enum { ACT_SILU, ACT_GELU, ACT_GELU_TANH, ACT_RELU };           /* activation */
enum { BIAS_QKV = 1, BIAS_O = 2, BIAS_MLP = 4 };    /* biases: which linears have one */
/* DYNAMIC: plain, as long as no text is longer than the model's positions. YARN: low and high are
 * beta_slow and beta_fast; cosines and sines are multiplied by `attention`. */
enum { ROPE_PLAIN, ROPE_LINEAR, ROPE_DYNAMIC, ROPE_LLAMA3, ROPE_YARN };
typedef struct { int type; double theta, factor, low, high, attention; int original, uncut; } Rope;
typedef struct {
    int C, H, K, D, F, L;                           /* K key/value heads; D: width of a head */
    int norm, norm_place, activation, biases;
    int gated;                              /* down(act(gate x) * up x), not down(act(up x)) */
    int causal, window;                     /* no later rows are seen; only the last ones, 0: all */
    /* layers that differ: layer l has bit l % period (<= 32) of windowed, and of unrotated (no
     * RoPE, SmolLM3); period 0: the window and RoPE are in all */
    int period; unsigned windowed, unrotated;
    int cross;                                      /* has cross-attention */
    int rotary, qk_norm;                            /* RoPE; norms of each head's q and k (Qwen3) */
    int joined;                             /* q, k and v are the rows of one matrix (GPT-2) */
    int buckets, distance;                          /* T5's bias: how many; the largest distance */
    float scale, eps;                               /* of the scores, 0: 1/sqrt(D); of the norms */
    Rope rope;
} StackKind;
/* Names of tensors in files, "%d" for the layer; NULL: none. CROSS: from here on cross-attention's,
 * in the order of NORM1 to K_NORM. transposed: files have the linears' floats as (I,O). */
enum { NAME_WORD, NAME_POSITION, NAME_TYPE, NAME_EMBEDDING_NORM, NAME_EMBEDDING_NORM_B,
       NAME_NORM1, NAME_NORM1_B, NAME_Q, NAME_Q_B, NAME_K, NAME_K_B, NAME_V, NAME_V_B, NAME_O,
       NAME_O_B, NAME_Q_NORM, NAME_K_NORM, NAME_CROSS,
       NAME_NORM2 = NAME_CROSS + NAME_K_NORM - NAME_NORM1 + 1, NAME_NORM2_B, NAME_GATE,
       NAME_GATE_B, NAME_UP, NAME_UP_B, NAME_DOWN, NAME_DOWN_B, NAME_BUCKETS, NAME_NORM,
       NAME_NORM_B, NAME_HEAD, NAME_HEAD_B, NAME_DENSE, NAME_DENSE_B, NAME_QKV,
       NAME_QKV_B, NAME_PROJECT, NAME_PROJECT_B, NAMES };
typedef struct { const char *part[NAMES]; int transposed; } Names;
/* qkv, qkv_b: if joined, what is in the list of tensors; q, k, v and their biases are its rows. */
typedef struct { Matrix norm, norm_b, q, q_b, k, k_b, v, v_b, o, o_b;
                 Matrix q_norm, k_norm, qkv, qkv_b; } AttentionWeights;
typedef struct { AttentionWeights self, cross;      /* O == 0: this model has no such matrix */
                 Matrix norm2, norm2_b, gate, gate_b, up, up_b, down, down_b; } Block;
typedef struct { StackKind kind; Block *block; Matrix buckets /* (buckets,H) */, norm, norm_b;
                 float *rope_cos, *rope_sin; int *bucket, positions, compute; } Stack;
/* What backward needs. Layer l begins at row l N; the last layer has only the M wanted rows.
 * recompute: only x is kept of each layer, the others have room for one layer. NULL: not needed. */
typedef struct {
    int N, M, recompute;
    float *x;                                       /* (L,N,C) the stream that enters each layer */
    float *q, *att, *mid, *gate, *up;               /* ((L-1)N+M,.) */
    float *q_in, *k_in;                             /* before their norms; k_in (L,N,K*D) */
    float *cross_q, *cross_att, *cross_mid;         /* ((L-1)N+M,.) */
    float *last;                                    /* (M,C) the stream that leaves */
} Saved;
/* What a decoder sees of an encoder: N states (N,C), their gradient (added to), the keys of each of
 * the decoder's rows, and the keys and values that stack_encoded computes once. */
typedef struct { int N; float *hidden, *dhidden; Keys keys; Cache kv; } Encoded;

/* ==== agreement.c: how far labellers agree (Krippendorff 2011) ==== */
enum { AGREEMENT_VALUES = 32 };
/* Returns alpha: 1 if all agree, 0 as by chance, below 0 if they disagree more than that; NaN if
 * all values that count are the same. count (units,values): how often each value was given to each
 * unit, at most AGREEMENT_VALUES values. ordinal 1: the values have an order, and the distance counts. */
double krippendorff_alpha(const int *count, int units, int values, int ordinal);

/* ==== rl.c: PPO, GRPO, RLOO as pure functions over float arrays (Schulman et al. 2017; TRL 0.11.4)
 * Ragged layout: the P response tokens of B sequences follow one another without padding;
 * start (B+1): the tokens of sequence b are start[b] .. start[b+1]-1. ==== */
enum { KL_K1, KL_ABS, KL_MSE, KL_FULL, KL_K3 };         /* kl, abs, mse (k2), full, k3 */
/* Fills kl (P) with each token's penalty, from the token's log-probs under policy and reference.
 * KL_FULL copies full (P), the exact KL that the head computed; otherwise full may be NULL. */
void kl_penalty(float *kl, const float *logprob, const float *ref_logprob, const float *full,
                int kind, int P);
/* Returns the mean over sequences of kl's sum over tokens, which TRL logs as objective/kl. */
double kl_per_sequence(const float *kl, const int *start, int B);
/* Fills reward (P) with -kl_coef * kl, and adds score[b] to b's last token, if b has tokens. */
void token_rewards(float *reward, const float *kl, const float *score, float kl_coef,
                   const int *start, int B);
/* Scales x (P) to (x - mean) / sqrt(var + 1e-8); shift_mean 0 then adds the mean again. biased 0
 * divides the squares by P - 1, 1 by P. P < 2: var is 0, so x becomes 0 (shift_mean) or stays. */
void whiten(float *x, int P, int shift_mean, int biased);
/* Computes generalised advantage estimation (Schulman et al. 2015) over each response, whose value
 * after the last token is 0; returns = advantages + values, before any whitening. All (P). */
void gae(float *advantages, float *returns, const float *rewards, const float *values, float gamma,
         float lambda, const int *start, int B);
/* Fills advantages (P) without values: all tokens of a response get the same one, its sum of
 * rewards compared with those of its group, K > 1 responses to one query that follow one another.
 * B is a multiple of K. GROUP_SCALED: GRPO; GROUP_MEAN: Dr. GRPO; GROUP_OTHERS: RLOO (rl.c). */
enum { GROUP_SCALED, GROUP_MEAN, GROUP_OTHERS };
void group_advantages(float *advantages, const float *rewards, int kind, int K, const int *start,
                      int B);
/* Returns the weight of each token of a response of `length` tokens, in the loss of an update that
 * learns from `tokens` tokens of n responses: 1, or for MEAN_SEQUENCE what makes the mean over all
 * tokens the mean over responses of the mean over a response's tokens. */
enum { MEAN_TOKEN, MEAN_SEQUENCE };
float token_weight(int kind, int length, int tokens, int n);
/* The statistics of updates: sums over tokens, so that mini-batches of any size add up. Losses and
 * weighted_entropy are weighted as in the loss. value_error is (v - R)^2 before clipping,
 * max_ratio_deviation the largest |ratio - 1|. */
typedef struct {
    double tokens, policy_loss, kl_loss, value_loss, clip_fraction, value_clip_fraction, approx_kl;
    double policy_kl, ratio, entropy, weighted_entropy, value_error, value, max_ratio_deviation;
} PpoStats;
/* clip_range_value <= 0: values are not clipped. ratio_threshold <= 0: there is no ratio guard.
 * clip_range_high <= 0: as clip_range. dual_clip <= 0: none. kl_coef, kl_kind: of the KL in the
 * loss, any kind but KL_FULL. */
typedef struct {
    float clip_range, clip_range_value, vf_coef, ratio_threshold, clip_range_high, dual_clip;
    float kl_coef; int kl_kind;
} PpoLoss;
/* What the policy's loss reads of n tokens. ref_logprob NULL: no KL in the loss; weight NULL: 1. */
typedef struct {
    const float *logprob, *old_logprob, *advantage, *ref_logprob, *weight;
} PolicyTokens;
/* Adds the clipped policy loss of n tokens to *s (PPO, eq. 7): with rho = exp(logprob - old),
 * l = max(-A rho, -A clip(rho, 1-e, 1+e')), where e' is clip_range_high (Yu et al. 2025, DAPO);
 * where A < 0, l is at most -A dual_clip (Ye et al. 2020). l += kl_coef * the token's KL penalty.
 * dlogprob (n) += scale * weight * dl/dlogprob. scale: 1 / (tokens of the whole optimiser step). */
void policy_loss(float *dlogprob, const PolicyTokens *x, const PpoLoss *c, float scale, int n,
                 PpoStats *s);
/* Adds the clipped value loss of n tokens to *s: dvalue (n) += scale * vf_coef * dl/dv,
 * l = 0.5 max((v - R)^2, (clip(v, old-e, old+e) - R)^2). */
void value_loss(float *dvalue, const float *value, const float *old_value, const float *returns,
                const PpoLoss *c, float scale, int n, PpoStats *s);
void ppo_stats_mean(PpoStats *s);           /* divides the sums by s->tokens, if there are any */
/* Returns 1 if the mean ratio, s->ratio / s->tokens, is above c->ratio_threshold, or is NaN. */
int ratio_exceeds(const PpoStats *s, const PpoLoss *c);
/* Returns 1 if policy_kl, the mean of old - new, is above 1.5 target_kl; target_kl <= 0: never. */
int kl_early_stop(double policy_kl, double target_kl);
/* Updates the coefficient (Ziegler et al. 2019) after a step of n responses:
 * e = clip(kl/target - 1, -0.2, 0.2), coef *= 1 + e n / horizon; horizon <= 0: coef is fixed. */
typedef struct { double coef, target, horizon; } KlController;
void kl_controller_update(KlController *c, double kl, int n);   /* kl: the mean per sequence */
/* Running moments of the scores (TRL's RunningMoments): start with {0, 1, 1, 1e-24}. */
typedef struct { double mean, std, var, count; } Moments;
typedef struct { int scaling, norm; float clip; } ScoreRule;    /* clip <= 0: no clipping */
/* If rule->scaling, adds score (B) to *m, subtracts m->mean if rule->norm (norm alone does nothing,
 * as in TRL), and divides score by m->std. Then clips score to +-clip. */
void process_scores(float *score, int B, const ScoreRule *rule, Moments *m);
typedef struct { double mean, median, std; } Summary;        /* std is unbiased; 0 for one value */
Summary summarise(const float *x, int n, float *scratch);   /* x, scratch: (n); n 0: all zeros */

/* ==== csv.c: records of CSV (RFC 4180) and TSV ==== */
typedef struct { const char *text; size_t length; } CsvCell;
/* A text that is read record by record. path: its name, for messages; quotes 0: they mean nothing;
 * line: of the next byte, 1 at first; begun: that of the first byte of the last record. */
typedef struct { const char *path, *at, *end; char separator; int quotes;
                 long long line, begun; } Csv;
enum { CSV_COLUMNS = 1024 };
/* Reads the next record that is not an empty line: *cells cells (0: there is none) into cell
 * (CSV_COLUMNS). Quoted ones are in pool. OK or a code. */
int csv_next(Csv *c, CsvCell *cell, int *cells, Pool *pool, Error *err);
CsvCell csv_trimmed(CsvCell x);             /* returns the cell without blanks around it */
/* Returns the index of the cell that is this name, ignoring case and blanks around it; or -1. */
int csv_column(const CsvCell *header, int cells, const char *name);

/* ==== statistics.c: what a comparison reports: intervals, the best of n, distinct n-grams ==== */
typedef struct { double mean, low, high; } Interval;
/* Returns the mean of x (n) and its 95 % percentile bootstrap interval: the quantiles 0.025 and
 * 0.975 of the means of so many resamples of n, whose random numbers follow from the seed. scratch
 * (resamples). All zeros without numbers. */
Interval bootstrap_mean(const double *x, int n, int resamples, uint64_t seed, double *scratch);
/* Returns the mean, over all sets of n of the K numbers, of the set's largest; 1 <= n <= K. Sorts
 * x (K). n = K: the largest of all. */
double best_of(double *x, int K, int n);
typedef struct { long long distinct, all; } Ngrams;
/* Counts the n-grams of `order` words in n texts together, and how many of them differ. Words are
 * separated by white space; n-grams are compared by 64-bit hashes. OK, E_ARGUMENT or E_MEMORY. */
int distinct_ngrams(Ngrams *g, const char *const *text, const size_t *length, int n, int order,
                    Pool *pool);

/* ==== model.c: the policy: embeddings, a causal stack, a head; log-probs, values, sampling ==== */
/* Both kinds of configurations begin with these fields. */
#define CONFIG_FIELDS \
    int V, positions;                       /* positions: max_position_embeddings */ \
    int tied;                               /* the head is the embedding */ \
    StackKind stack; \
    const Names *names;                     /* NULL: tensors have no names */ \
    int bos, pad, eos[8], eos_count         /* ids; -1: none */
typedef struct {
    CONFIG_FIELDS;
    int learned;                            /* has a table of positions */
    /* a seq2seq policy (T5): a stack with cross-attention, and an encoder (L 0: there is none);
     * `start` is the first token of each sequence */
    StackKind encoder; const Names *encoder_names; int start;
    int scaled;                             /* logits are divided by sqrt(C) (T5, tied) */
} ModelConfig;
typedef struct { ModelConfig config; Matrix embedding, position, head; Stack stack, encoder;
                 Tensor *tensor; int tensors; } Model;
/* What predicts values from a hidden state: Linear(C,1), or of two layers: Linear(C,2C), ReLU,
 * Linear(2C,1), where M, the inputs of the last layer, is C or 2C. up.O == 0: one layer. */
typedef struct { Matrix up /* (2C,C) */, up_b /* (1,2C) */, weight /* (1,M) */, bias /* (1,1) */;
                 Tensor tensor[4]; int tensors; } ValueHead;
/* A row is one token of one sequence at one position. Sequences come one after another, ragged,
 * positions ascending. wants (N): 1 for the W rows whose hidden state is wanted; W == N: all.
 * Token -1-i is row i of the adapter's soft prompt. These rows come first, at positions 0 ..
 * model_prompt() - 1, so the positions of a text's tokens are by so many larger. */
typedef struct { int N, W; const int *token, *sequence, *position;
                 const unsigned char *wants; } Rows;
/* Lays out weights (types NULL: F32; what is trained has to be F32) and tables for `positions`
 * positions. OK, E_ARGUMENT (not causal), E_UNSUPPORTED or E_MEMORY. */
int model_carve(Model *m, const ModelConfig *c, const WeightTypes *types, int trainable,
                int positions, Pool *lists, Arena *a, Error *err);
/* Returns how many rows of the adapter's soft prompt come before each sequence; 0 without one, for
 * adapter NULL, and if the model has an encoder, which reads them then (Texts). */
int model_prompt(const Model *m, const Lora *adapter);
void model_init(Model *m, uint64_t seed);   /* normal 0.02, RESIDUAL 0.02 / sqrt(2L), norms 1 */
void model_copy(Model *to, const Model *from);      /* copies weights; same config and types */
/* layers: 1, with the tensors' names of TRL; 2, with those of trlx. */
void value_head_carve(ValueHead *h, int C, int layers, int trainable, Arena *a);
/* Fills each layer with uniform numbers +-1/sqrt(its inputs); zero 1: the last one with 0. */
void value_head_init(ValueHead *h, uint64_t seed, int zero);
/* B texts one after another: token (N), start (B+1). What an encoder reads begins with the rows of
 * the adapter's soft prompt, if it has one (tokens -1-i); judges have none. */
typedef struct { int N, B; const int *token, *start; } Texts;
/* What an encoder made of B texts of N tokens; text b is read by sequence b of a cache. saved: its
 * activations, if it is trained. reading_carve: recompute as for saved_carve; trained 0: for
 * inference. */
struct Reading { Texts texts; int trained; Encoded encoded; Cache kv; Saved saved; };
void reading_carve(Reading *s, const ModelConfig *c, int N, int B, int trained, int recompute,
                  Arena *a);
/* Reads the texts: computes their states, and the keys and values of the decoder's layers. The
 * texts' arrays have to stay until the backward pass. Measuring reads N and B only. OK, E_RANGE (a
 * token, more texts than there is room for) or E_MEMORY. */
int model_encode(const Model *m, const Lora *adapter, const Texts *texts, Reading *s, Arena *ws);
/* Computes hidden (W,C), the wanted rows' states after the last norm. Keys and values of all rows
 * enter kv, and attention reads them there. adapter NULL: the base model. saved NULL: inference.
 * OK, E_RANGE (token, sequence or position) or E_MEMORY. */
int model_forward(const Model *m, const Lora *adapter, const Rows *rows, Cache *kv, Saved *saved,
                  float *hidden, Arena *ws);
/* From dhidden (W,C) after a forward with saved, whose rows hold whole sequences from position 0,
 * and with kv as that forward left it: adds to every grad that is not NULL. OK or E_MEMORY. */
int model_backward(const Model *m, const Lora *adapter, const Rows *rows, Cache *kv,
                   const Saved *saved, const float *dhidden, Arena *ws);
/* The head reads hidden (W,C) in blocks of rows: logits are never stored whole. It fills logprob
 * (W) of target (W) and entropy (W; NULL: no). loss (NULL: inference) is called for each block to
 * set dlogprob (n; zeroed before) of tokens first .. first+n-1; then dhidden (W,C) and the head's
 * grad are added to. dentropy (W; NULL: 0): the loss's derivative by the entropy. kept (W; NULL:
 * all): for each row, the set of tokens (V bits) over which its softmax goes. The logprob of a row
 * with a logit that is a NaN or an infinity is a NaN. OK, E_RANGE (a target) or E_MEMORY. */
size_t kept_bytes(int V);                   /* returns the bytes of a set of tokens */
typedef void (*TokenLoss)(void *context, int first, int n, const float *logprob, float *dlogprob);
typedef struct { const int *target; float temperature, *logprob, *entropy;
                 TokenLoss loss; void *context; float *dhidden; const float *dentropy;
                 const unsigned char *const *kept; } HeadTask;
int model_logprobs(const Model *m, const Lora *adapter, const float *hidden, int W,
                   const HeadTask *task, Arena *ws);
/* Computes kl (W), the exact KL(a || b) over the vocabulary, of two policies' hidden states.
 * kept: of a's rows, as in HeadTask. */
typedef struct { const Model *model; const Lora *adapter; const float *hidden /* (W,C) */; } States;
int model_full_kl(const States *a, const States *b, const unsigned char *const *kept, int W,
                  float temperature, float *kl, Arena *ws);
/* value (W) = what the head makes of hidden (W,C). Backward adds to dhidden and to the head's
 * gradients; it computes the first of two layers again. If ws is too small, ws->failed is set. */
void model_values(const ValueHead *h, const float *hidden, float *value, int W, Arena *ws);
void model_values_backward(const ValueHead *h, const float *dvalue, const float *hidden,
                           float *dhidden, int W, Arena *ws);
typedef struct { float temperature; int top_k; float top_p; } Sampling;    /* 0: greedy; 0, 1: no */
/* Returns a token drawn from logits (V), and *logprob (NULL: not wanted) of it at this temperature
 * (greedy: 1). kept NULL: logprob is that before top-k and top-p. Else (not greedy) kept (V bits,
 * bit v % 8 of byte v / 8) gets the set of tokens that could be drawn, and logprob is that among
 * them. Takes one number of rng, greedy none. scratch, order (V). */
int sample_token(const float *logits, int V, const Sampling *s, Rng *rng, float *logprob,
                 unsigned char *kept, float *scratch, int *order);
/* A text that is being written. Of token (capacity) the first `prompt` are given, and `length` are
 * there. It is done after an eos (which is kept; stop_at_eos 0: never) or at capacity; the first
 * `least` tokens that are written are no eos. logprob, value (or NULL): of written token i -
 * prompt; value is of the state that it was drawn from. kept (capacity - prompt, kept_bytes; or
 * NULL): the sets of sample_token. */
typedef struct { int *token, prompt, length, capacity, stop_at_eos, done; float *logprob, *value;
                 Rng rng; unsigned char *kept; int least; } Sequence;
/* head NULL: no values. on_token (or NULL) hears each token; 1 ends that sequence. */
typedef struct { const Lora *adapter; const ValueHead *head; Sampling sampling;
                 int (*on_token)(void *context, int sequence, int token); void *context; } Writing;
/* Writes B sequences, in texts 0..B-1 of kv, each after the rows of the adapter's soft prompt
 * (at the cache's first positions). OK, E_RANGE (an empty prompt, a capacity beyond kv, a
 * token), E_NUMBER (a logit is a NaN or an infinity) or E_MEMORY. Measuring: give the longest
 * prompts; neither tokens nor kv are touched. */
int model_generate(const Model *m, const Writing *w, Sequence *seq, int B, Cache *kv, Arena *ws);

/* ==== reward.c: the judge: embeddings, a stack, a classification head; its losses ==== */
enum { LABELS_MAX = 32 };
enum { HEAD_TANH, HEAD_RELU, HEAD_GELU };       /* what stands between dense and out */
/* A causal stack's head is out alone, without a bias, and reads the last token of a text that is
 * not pad. Others have an embeddings' norm, and read the first token by act(dense) and out. */
enum { PROBLEM_UNSAID, PROBLEM_REGRESSION, PROBLEM_ONE_LABEL, PROBLEM_LABELS };   /* problem_type */
typedef struct {
    CONFIG_FIELDS;
    int head, from_zero;        /* HEAD_; the first token's position is 0, not pad + 1 (RoBERTa) */
    int types;                  /* rows of the table of token types; 0: there is no such table */
    int embedding;              /* 0: C; else the tables' width; a linear leads to C (ELECTRA) */
    int problem, labels; char label[LABELS_MAX][48];            /* PROBLEM_; id2label */
} RewardConfig;
typedef struct { RewardConfig config; Matrix word, position, type, norm, norm_b, project, project_b;
                 Stack stack; Matrix dense, dense_b, out, out_b;
                 Tensor *tensor; int tensors; } RewardModel;
/* embed (N,embedding): the embeddings' sum; state (B,C): what the head reads; dense (B,C): what
 * dense gives. kv: all layers, with recompute only one. */
typedef struct { Saved stack; Cache kv; float *embed, *state, *dense; } RewardSaved;
/* types (NULL: F32): of linears and embeddings; the classifier stays F32. OK, E_UNSUPPORTED
 * (trained weights in another type), E_RANGE (the config's sizes) or E_MEMORY. */
int reward_carve(RewardModel *m, const RewardConfig *c, const WeightTypes *types, int trainable,
                 Pool *lists, Arena *a, Error *err);
void reward_init(RewardModel *m, uint64_t seed);    /* linears normal 1/sqrt(I), embeddings 0.02 */
void reward_saved_carve(RewardSaved *s, const RewardConfig *c, int N, int B, int recompute,
                        Arena *a);
int reward_max_tokens(const RewardConfig *c);       /* returns the longest text's tokens */
/* logits, dlogits (B,labels). saved NULL: inference. Backward adds to every grad that is not NULL.
 * Measuring reads only N and B. OK, E_RANGE (a token, a text too long or empty) or E_MEMORY. */
int reward_forward(const RewardModel *m, const Lora *adapter, const Texts *texts,
                   RewardSaved *saved, float *logits, Arena *ws);
int reward_backward(const RewardModel *m, const Lora *adapter, const Texts *texts,
                    RewardSaved *saved, const float *dlogits, Arena *ws);
/* A value function: a causal judge of one output, whose head reads W rows of the texts, ascending,
 * instead of one of each text: value, dvalue (W). saved is carved for W rows in place of B. They
 * measure by N, B and W. OK or a code, as above; E_RANGE also for rows that no text has. */
typedef struct { int W; const int *row; } Wanted;
int reward_values(const RewardModel *m, const Texts *texts, const Wanted *want, RewardSaved *saved,
                  float *value, Arena *ws);
int reward_values_backward(const RewardModel *m, const Texts *texts, const Wanted *want,
                           RewardSaved *saved, const float *dvalue, Arena *ws);
/* Bradley-Terry, of texts 2i and 2i+1: with d = logit 0 of text 2i minus logit 0 of text 2i+1, and
 * p = target[i], the probability that text 2i is the better one, loss (pairs) = -p log sigmoid(d)
 * - (1-p) log sigmoid(-d). target NULL: every p is 1. Backward adds dloss (pairs) times the loss's
 * slope to dlogits. */
void ranking_forward(float *loss, const float *logits, const float *target, int labels, int pairs);
void ranking_backward(float *dlogits, const float *dloss, const float *logits, const float *target,
                      int labels, int pairs);

/* ==== stack.c: the transformer: one block, forward and backward, for every model ==== */
typedef struct {
    int N, M;                               /* rows that enter; rows that are wanted at the end */
    const int *want;                        /* (M) which, ascending; NULL: all (M == N) */
    const int *position;                    /* (N) for RoPE; NULL without */
    const int *slot;                        /* (N) a row's row of the cache; NULL: row n is n */
    Keys keys;                              /* (N) rows of the cache */
    int most;                               /* no row sees more: measuring goes by it */
    Encoded *encoded;                       /* NULL without cross-attention */
} StackRows;
/* Lays out weights (types of the linears) and tables for `positions` positions; appends its tensors
 * to list, which has room for stack_tensors(k). OK, E_UNSUPPORTED or E_MEMORY. */
int stack_carve(Stack *s, const StackKind *k, const Names *names, const WeightTypes *types,
                int positions, TensorList *list, Pool *lists, Error *err);
size_t stack_tensors(const StackKind *k);
const char *stack_name(const Names *names, int part);           /* returns "" if there is none */
void cache_carve(Cache *c, const StackKind *k, int layers, int B, int T, Arena *a);
void saved_carve(Saved *s, const StackKind *k, int N, int M, int recompute, Arena *a);
/* Computes y (M,C), after the last norm, from x (N,C). x is overwritten if saved is NULL; else it
 * may be saved->x. Measuring reads N, M, most, the cache's shape, encoded->N. OK or E_MEMORY. */
int stack_forward(const Stack *s, const Lora *adapter, const StackRows *rows, Cache *kv,
                  Saved *saved, float *x, float *y, Arena *ws);
/* From dy (M,C): overwrites dx (N,C), adds to weights' gradients and encoded->dhidden. */
int stack_backward(const Stack *s, const Lora *adapter, const StackRows *rows, Cache *kv,
                   const Saved *saved, const float *dy, float *dx, Arena *ws);
int stack_encoded(const Stack *s, const Lora *adapter, Encoded *e, Arena *ws);  /* fills e->kv */

/* ==== ops.c: the layers as forward/backward pairs, each the plain definition; AdamW
 * With ws->base == NULL a function only measures. If ws is too small, ws->failed is set and outputs
 * are not written. Sums have one order, whatever the number of rows or threads (ops.c). ==== */
/* Lays out w (O,I) and appends it to the list, which must have room; w->id becomes its index. "%d"
 * in name becomes layer. A trainable list gives w a gradient. list->tensor NULL: does nothing. */
void tensor_carve(TensorList *list, Matrix *w, const char *name, int layer, int type, int O, int I,
                  int flags);
void tensor_carve_quant(Matrix *w, int kind, int block, int doubled, Arena *a);  /* NF4 scales */
/* Returns the n rows of w from `first` on; if O is 1, the n numbers of the vector. */
Matrix matrix_part(const Matrix *w, int first, int n);
size_t tensor_bytes(const Matrix *w);       /* returns the bytes of w->data */
/* Sets x (n) to the n values from `at` on of a weight of any type. */
void tensor_read(float *x, const Matrix *w, size_t at, size_t n);
size_t tensor_values(const Tensor *list, int tensors, int trainable_only);  /* counts, not TIED */
void tensor_normal(const Matrix *w, double deviation, uint64_t seed);       /* F32; mean 0 */
void tensor_uniform(const Matrix *w, float bound, Rng *r);  /* F32; from -bound to bound */
void tensor_fill(const Matrix *w, float value);                             /* F32 */
/* y (N,O) = (linear_add: +=) x (N,I) W^T + bias (O; NULL: none). Each output is one sum in order of
 * i, the bias last. If w->output is not F32, the sum is rounded to it, and then added to y. */
void linear_forward(float *y, const float *x, const Matrix *w, const float *bias, int N, Arena *ws);
void linear_add(float *y, const float *x, const Matrix *w, const float *bias, int N, Arena *ws);
/* Computes dx (N,I) += dy (N,O) W; w->grad (O,I) += dy^T x; dbias (O) += the sum of dy over rows.
 * Each of the three may be NULL. w->grad and dbias are float32 sums. */
void linear_backward(float *dx, float *dbias, const float *dy, const float *x, const Matrix *w,
                     int N, Arena *ws);
/* Measures the scratch of these three for up to N rows: reserves it in ws and frees it. */
void linear_measure(Arena *ws, int N, int I, int O, int compute);
/* Copies row token[n] of w to row n of y (N,C). Backward adds dy to these rows of w->grad. */
void embedding_forward(float *y, const int *token, const Matrix *w, int N);
void embedding_backward(const float *dy, const int *token, const Matrix *w, int N);
/* RMSNorm (Zhang & Sennrich 2019): y (N,C) = x / sqrt(mean(x^2) + eps) * w (C). dw NULL: frozen. */
void rmsnorm_forward(float *y, const float *x, const float *w, float eps, int N, int C);
void rmsnorm_backward(float *dx, float *dw, const float *dy, const float *x, const float *w,
                      float eps, int N, int C);
/* LayerNorm (Ba et al. 2016): y (N,C) = (x - mean) / sqrt(var + eps) * w (C) + b (C), with biased
 * variance. Backward adds to w->grad and b->grad too (NULL: frozen). */
void layernorm_forward(float *y, const float *x, const float *w, const float *b, float eps, int N,
                       int C);
void layernorm_backward(float *dx, const float *dy, const float *x, const Matrix *w,
                        const Matrix *b, float eps, int N, int C);
/* Rotates x (N,H*D) in place: RoPE (Su et al. 2021), with Hugging Face's half rotation. position
 * (N); cosine and sine (positions, D/2). inverse 1 rotates back, for the backward pass. */
void rope_rotate(float *x, const int *position, const float *cosine, const float *sine, int inverse,
                 int N, int H, int D);
/* H query heads, K key heads, D numbers each: head h uses key head h / (H/K). A score is scale *
 * q.k, plus, if bias is not NULL, bias[bucket[reach + distance]][h], where distance = key row - own
 * row is from -reach to reach (Raffel et al. 2020). bias (buckets,H), bucket (2*reach+1); dbias
 * NULL: bias is frozen. */
typedef struct { int H, K, D; float scale; const float *bias; float *dbias; const int *bucket;
                 int reach; } Heads;
typedef struct { float *q, *k, *v; } Qkv;   /* q (N,H*D), k and v (rows,K*D) */
/* Attention (Vaswani et al. 2017; grouped: Ainslie et al. 2023): y (N,H*D) = softmax(scores) v.
 * Backward adds to d->q, d->k, d->v and heads->dbias; y is the forward's output. */
void attention_forward(float *y, const Qkv *in, const Keys *keys, int N, const Heads *heads,
                       Arena *ws);
void attention_backward(const Qkv *d, const float *dy, const float *y, const Qkv *in,
                        const Keys *keys, int N, const Heads *heads, Arena *ws);
/* Measures the scratch of forward and backward, if no query sees more than `keys` rows. */
void attention_measure(Arena *ws, int keys, const Heads *heads);
/* Compute y (n) = act(x), or act(gate) up (Shazeer 2020). SILU: x sigmoid(x). GELU: x Phi(x),
 * exact. GELU_TANH: GPT-2's gelu_new, x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2. */
void activation_forward(float *y, const float *x, int activation, size_t n);
void activation_backward(float *dx, const float *dy, const float *x, int activation, size_t n);
void gated_forward(float *y, const float *gate, const float *up, int activation, size_t n);
void gated_backward(float *dgate, float *dup, const float *dy, const float *gate, const float *up,
                    int activation, size_t n);
void tanh_forward(float *y, const float *x, size_t n);      /* backward reads the output y */
void tanh_backward(float *dx, const float *dy, const float *y, size_t n);
/* Computes logprob (N) of token[n], and entropy (N; NULL: skip), under softmax(logits (N,V) /
 * temperature). Backward reads logprob, the forward's output. */
void logprob_forward(float *logprob, float *entropy, const float *logits, const int *token,
                     float temperature, int N, int V);
void logprob_backward(float *dlogits, const float *dlogprob, const float *logprob,
                      const float *logits, const int *token, float temperature, int N, int V);
/* From dentropy (N), the entropy's part of the loss: adds to dlogits (N,V). */
void entropy_backward(float *dlogits, const float *dentropy, const float *logits, float temperature,
                      int N, int V);
/* Computes w (V) = e^((z - max z) / temperature): a softmax before it is divided by its sum. */
void softmax_weights(float *w, const float *z, float temperature, int V);
/* Computes kl (N) = sum over v of p (log p - log q), p and q from logits and ref_logits (N,V). */
void full_kl_forward(float *kl, const float *logits, const float *ref_logits, float temperature,
                     int N, int V);
/* Computes loss (N) = -log softmax(logits (N,C))[label[n]]. Backward reads this loss. C classes. */
void cross_entropy_forward(float *loss, const float *logits, const int *label, int N, int C);
void cross_entropy_backward(float *dlogits, const float *dloss, const float *loss,
                            const float *logits, const int *label, int N, int C);
float exp_own(float x);         /* returns e^x within 1.5 ulp, the same bits on every machine */
float log1p_exp(float x);       /* returns log(1 + e^x), without overflow */
/* AdamW (Kingma & Ba 2015; Loshchilov & Hutter 2019). tf_style: eps as in TensorFlow 1 (ops.c). */
typedef struct { float lr, beta1, beta2, eps, weight_decay; int tf_style; } AdamW;
typedef struct { float *m, *v; size_t n; long long t; } Optimizer;     /* moments (n); t: steps */
void optimizer_carve(Optimizer *o, const Tensor *list, int tensors, Arena *a);  /* not cleared */
void optimizer_reset(Optimizer *o);         /* sets moments and t to 0 */
double gradient_norm(const Tensor *list, int tensors);          /* returns the L2 norm */
void gradient_zero(const Tensor *list, int tensors);
/* Makes one step with gradients times grad_scale; vectors do not decay. begin: the index of the
 * list's first moment (0 begins a new step, t + 1); returns the index after its last. */
size_t optimizer_step(Optimizer *o, size_t begin, const Tensor *list, int tensors, const AdamW *c,
                      float grad_scale);

/* ==== peft.c: which modules an adapter changes, by peft's rules; the adapter's tensors ==== */
/* Lays out an adapter: the rows of its soft prompt; pairs for the linears, embeddings and heads of
 * base whose module c->targets means ("NAME.weight" is the weight of module NAME); copies of saved
 * modules and biases. l->config becomes *c; its lists stay where they are, and "all-linear" becomes
 * the modules' names, in lists. OK, E_SHAPE (a soft prompt of another width), E_ARGUMENT (neither a
 * rank nor a soft prompt, a rank above a linear's I, a target that matches nothing; c->peft 1: no
 * target that matches anything), E_UNSUPPORTED (a regular expression, DoRA of an embedding), E_RANGE
 * (a name too long) or E_MEMORY. */
int lora_carve(Lora *l, const Tensor *base, int tensors, const LoraConfig *c, int trainable,
               Pool *lists, Arena *a, Error *err);
/* Returns the modules that a judge's head consists of, for LoraConfig's save: comma-separated, in
 * pool; "classifier", or "score". NULL: no memory. */
const char *lora_head(const Tensor *base, int tensors, Pool *pool);
/* Returns a configuration with these and nothing else; targets has to stay. */
LoraConfig lora_config(int R, float alpha, const char *targets);

/* ==== lora.c: linears and embeddings with an adapter, forward and backward ==== */
void lora_dropout_carve(Lora *l, int N, Arena *a);  /* makes room for dropout in up to N rows */
/* Returns *l (NULL: no adapter) for an encoder's rows: its dropout begins at text_row. */
Lora lora_of_texts(const Lora *l);
/* A uniform +-1/sqrt(I) (kaiming, a = sqrt 5), B = 0; an embedding's A = 0, B normal (peft). */
void lora_init(Lora *l, uint64_t seed);
int lora_prompt(const Lora *l);             /* returns the rows of the soft prompt; NULL: 0 */
/* Fills the soft prompt, if there is one: with the base's embeddings of n ids, cut or repeated
 * (peft); n 0: with embeddings of ids drawn at random, or, as config.prompt.init says, with normal
 * numbers. */
void lora_prompt_init(Lora *l, const Matrix *embedding, const int *id, int n, uint64_t seed);
void lora_start(Lora *l, const Tensor *base);       /* saved tensors become copies of the base's */
void lora_copy(Lora *to, const Lora *from); /* copies values, not gradients; same shapes */
/* Computes the norms that DoRA divides by, from the base's weights and the pairs; without DoRA does
 * nothing. For after loading and after each change of the pairs. */
void lora_norms(const Lora *l, const Tensor *base, Arena *ws);
/* Returns what stands in for a tensor of the base, or a part of one: the saved one, or w itself. */
Matrix lora_own(const Lora *l, const Matrix *w);
/* y (N,O) = (lora_linear_add: +=) x (N,I) W^T + bias (NULL: none), with all that l (NULL: nothing)
 * changes in w and bias. Backward adds to dx (N,I; NULL: no) and to all gradients there are. */
void lora_linear(float *y, const float *x, const Lora *l, const Matrix *w, const Matrix *bias,
                 int N, Arena *ws);
void lora_linear_add(float *y, const float *x, const Lora *l, const Matrix *w, const Matrix *bias,
                     int N, Arena *ws);
void lora_linear_backward(float *dx, const float *dy, const float *x, const Lora *l,
                          const Matrix *w, const Matrix *bias, int N, Arena *ws);
void lora_measure(const Lora *l, const Matrix *w, int N, Arena *ws);    /* measures the three */
/* y (N,C) = rows row[n] of the table w, with all that l changes; backward: dy (N,C). Row -1-i is
 * row i of the soft prompt of l. */
void lora_embedding(float *y, const int *row, const Lora *l, const Matrix *w, int N, Arena *ws);
void lora_embedding_backward(const float *dy, const int *row, const Lora *l, const Matrix *w, int N,
                             Arena *ws);
/* The pair's own part: y (N,O) += scale (x A^T) B^T if l adapts w (l NULL: no). Backward adds to dx
 * (N,I) and to the gradients of A and B. */
void lora_forward(float *y, const float *x, const Lora *l, const Matrix *w, int N, Arena *ws);
void lora_backward(float *dx, const float *dy, const float *x, const Lora *l, const Matrix *w,
                   int N, Arena *ws);
/* Makes w, an F32 tensor with the base's values, what l makes of it: W + scale B A, for DoRA with
 * its rows' lengths, or the saved tensor. */
void lora_merge(const Lora *l, const Matrix *w, Arena *ws);

/* ==== quant.c: bfloat16 (a float's upper half), IEEE binary16, bitsandbytes' 4-bit blocks ==== */
f32 bf16_to_f32(uint16_t bits);     /* widens exactly */
uint16_t f32_to_bf16(f32 x);        /* rounds to nearest, ties to even; a NaN becomes quiet */
f32 f16_to_f32(uint16_t bits);      /* widens exactly, with subnormals, infinities and NaN */
uint16_t f32_to_f16(f32 x);         /* rounds to nearest, ties to even; overflow becomes infinity */
/* Do so for n numbers of type BF16 or F16; halves_round works in place (F32: does nothing). */
void halves_widen(f32 *x, const uint16_t *half, int type, size_t n);
void halves_narrow(uint16_t *half, const f32 *x, int type, size_t n);
void halves_round(f32 *x, int type, size_t n);
/* Turns n words of `width` bytes from little-endian into this machine's order or back, in place. */
void little_endian(void *words, size_t width, size_t n);
size_t quant_blocks(size_t n, int block);       /* returns how many absmax values n weights have */
f32 quant_scale(const Quant *q, size_t b);      /* returns the absmax of block b */
void quant_table(f32 table[16], int kind);      /* fills in the values of the 16 codes */
void quant_map(f32 map[256]);                   /* fills in the signed dynamic 8-bit map */
/* Quantises x (n) to packed ((n+1)/2 bytes) and absmax (quant_blocks). Returns OK, E_ARGUMENT (bad
 * block or kind), or E_NUMBER if x has a NaN or an infinity: *where (or NULL) becomes the index of
 * the first one. The block that has it gets no codes, and an absmax that is not finite. */
int quantize_4bit(unsigned char *packed, f32 *absmax, const f32 *x, size_t n, int block, int kind,
                  size_t *where);
/* Quantises absmax (blocks, finite) to code, nested and *offset (the mean), by map (256). */
void quantize_absmax(unsigned char *code, f32 *nested, f32 *offset, const f32 *map,
                     const f32 *absmax, size_t blocks);
/* Sets x (n) to the n elements from `at` on of a 4-bit weight; any range gives the same bits. */
void dequantize_4bit(f32 *x, const unsigned char *packed, const Quant *q, size_t at, size_t n);

/* ==== tokenizer.c: turns text into ids and back. The kinds of tokenizers are in text/. ==== */
enum { TOKENIZER_SENTENCEPIECE, TOKENIZER_BYTELEVEL, TOKENIZER_WORDPIECE };
typedef struct Tokenizer Tokenizer;         /* defined in text/text.h; is in the caller's pool */
/* Each of these four functions opens a tokenizer from the bytes of its files; NULL and *err if they
 * are bad. A program links only with the kinds whose functions it calls. */
Tokenizer *tokenizer_sentencepiece(const void *model, size_t n, Pool *pool, Error *err);
Tokenizer *tokenizer_bytelevel(const void *vocab, size_t vocab_n, const void *merges,
                               size_t merges_n, Pool *pool, Error *err);
Tokenizer *tokenizer_wordpiece(const void *vocab, size_t n, Pool *pool, Error *err);
Tokenizer *tokenizer_json(const void *bytes, size_t n, Pool *pool, Error *err);
/* Encodes a text of n bytes (any bytes), without the tokens of the template. *ids: *count ids, in
 * pool. Added tokens are cut out of the text first. Time: O(n log n). OK or E_MEMORY. */
int tokenizer_encode(const Tokenizer *t, const char *text, size_t n, Pool *pool, int **ids,
                     int *count);
/* The bytes [from, to) of the text that an id stands for; exact 0: a guess. tokenizer_encode_spans
 * does what tokenizer_encode does, and returns such a span for each id. */
typedef struct { size_t from, to; int exact; } TokenSpan;
int tokenizer_encode_spans(const Tokenizer *t, const char *text, size_t n, Pool *pool, int **ids,
                           TokenSpan **spans, int *count);
/* Does what tokenizer_encode does, for a text from a stranger: does not look for added tokens;
 * their texts are plain text. first 1: the text begins here; 0: it goes on after an added token. */
int tokenizer_encode_plain(const Tokenizer *t, const char *text, size_t n, int first, Pool *pool,
                           int **ids, int *count);
/* From now on the texts of special tokens are plain text for t, as with "split_special_tokens" of
 * Hugging Face's transformers; other added tokens are still cut out. */
void tokenizer_split_special(Tokenizer *t);
/* Each of these two functions decodes ids: *text has *length bytes, with a NUL after them, in pool.
 * tokenizer_decode leaves out special tokens, tokenizer_decode_all writes them; both leave out ids
 * that no token has. OK, E_RANGE (an id below 0) or E_MEMORY. */
int tokenizer_decode(const Tokenizer *t, const int *ids, int count, Pool *pool, char **text,
                     size_t *length);
int tokenizer_decode_all(const Tokenizer *t, const int *ids, int count, Pool *pool, char **text,
                         size_t *length);
int tokenizer_size(const Tokenizer *t);     /* returns 1 + the largest id */
int tokenizer_kind(const Tokenizer *t);     /* returns a TOKENIZER_ constant */
int tokenizer_max_length(const Tokenizer *t);           /* model_max_length; 0: none is named */
typedef struct { int bos, eos, unk, pad; } SpecialIds;                  /* -1: it has none */
SpecialIds tokenizer_specials(const Tokenizer *t);
/* Sets *before (*after) to 1 if the template puts bos before (eos after) a text, else to 0. */
void tokenizer_template(const Tokenizer *t, int *before, int *after);
const char *tokenizer_chat_template(const Tokenizer *t);    /* text or NULL; it is never run */
/* Returns the token with this id, and its *length (NULL: not wanted). NULL: there is none. */
const char *tokenizer_piece(const Tokenizer *t, int id, size_t *length);
/* Returns the id of a piece or an added token, or -1. */
int tokenizer_find(const Tokenizer *t, const char *piece, size_t length);
/* Each of these functions trains a tokenizer of V ids: two in Llama's layout (BPE, unigram), two of
 * byte-level BPE (RoBERTa's layout, GPT-2's), a unigram model in T5's, and WordPiece in BERT's
 * (cased 0: in lower case and without accents). next() gives one text after another, and returns 0
 * at the end. NULL and *err if the texts cannot fill V ids, V is too small, or memory is out. */
typedef struct { int (*next)(void *c, const char **text, size_t *n); void *context; } TextSource;
Tokenizer *tokenizer_train_sentencepiece(TextSource source, int V, Pool *pool, Error *err);
Tokenizer *tokenizer_train_unigram(TextSource source, int V, Pool *pool, Error *err);
Tokenizer *tokenizer_train_bytelevel(TextSource source, int V, Pool *pool, Error *err);
Tokenizer *tokenizer_train_gpt2(TextSource source, int V, Pool *pool, Error *err);
Tokenizer *tokenizer_train_t5(TextSource source, int V, Pool *pool, Error *err);
Tokenizer *tokenizer_train_wordpiece(TextSource source, int V, int cased, Pool *pool, Error *err);

/* ==== text/unicode.c: properties of characters (text/text.h has the others) ==== */
/* Returns how many columns of a terminal a code point takes, or -1, which is shown as U+FFFD: 0 for
 * marks and invisible characters, 2 for Chinese, Korean, Japanese and emoji, else 1. */
int unicode_columns(int32_t code);

/* ==== text/rouge.c: how much of a reference a text has (Lin 2004; as Google's rouge_score, without
 * its stemmer): words, pairs of words, the longest common subsequence, and that by lines ==== */
enum { ROUGE_1, ROUGE_2, ROUGE_L, ROUGE_LSUM, ROUGE_KINDS };
typedef struct { double precision, recall, f; } Rouge;          /* f: their harmonic mean */
/* Fills out for a text (length bytes) and its reference (reference_length bytes); all 0 if one has
 * no word. Takes scratch from pool. OK or E_MEMORY. */
int rouge_score(Rouge out[ROUGE_KINDS], const char *reference, size_t reference_length,
                const char *text, size_t length, Pool *pool);

/* ==== checkpoint.c and files/: Hugging Face folders in and out ==== */
/* Loads a list of tensors from FOLDER/STEM.safetensors, its shards, or PyTorch's .bin. STEM is
 * "model", "value_head" or "adapter_model". Tensors that are neither OPTIONAL nor TIED have to be
 * there with their shape; a TIED one may be there if it is equal to the one it is tied to. A tensor
 * of the files that is not in the list is refused, but for those that no model needs, and TRL's
 * v_head in a model's files; checkpoint_load_part allows others, too. Weights are converted to
 * their matrix's type while they are read; bitsandbytes' 4 bits are kept, bit for bit, or
 * dequantised. OK or a code; after an error some weights may have been read. */
int checkpoint_load(const char *folder, const char *stem, const Tensor *list, int tensors,
                    Pool *pool, Error *err);
int checkpoint_load_part(const char *folder, const char *stem, const Tensor *list, int tensors,
                         Pool *pool, Error *err);
/* Loads an adapter's weights. base: the list of the model, with its weights. A tensor of the file
 * that is the base's own (the embedding that peft writes beside its pair) replaces the base's, but
 * not in 4 bits. Saved biases that the file lacks become the base's. OK or a code. */
int adapter_load(Lora *l, const Tensor *base, int tensors, const char *folder, Pool *pool,
                 Error *err);
/* Writes an adapter's weights, as checkpoint_save does. */
int adapter_save(const Lora *l, const char *folder, int dtype, Pool *pool, Error *err);
/* Returns how many rows the files' tensor of this name has, of a vector 1; 0 if there is no such
 * tensor, or if they cannot be read. */
size_t checkpoint_rows(const char *folder, const char *stem, const char *name, Pool *pool);
/* If config.json ties the head to the embedding, but the folder's files have a head with other
 * values: sets *untied to 1 and c->tied to 0, so that both are kept (as transformers 5 does, with a
 * warning). Else sets *untied to 0. Reads both tensors. OK or a code. */
int checkpoint_untie(ModelConfig *c, int *untied, const char *folder, Pool *pool, Error *err);
/* Writes FOLDER/STEM.safetensors in dtype F32, BF16 or F16. If shard_bytes is not 0, writes shards
 * of at most so many bytes, and the index last. NF4 matrices are written in bitsandbytes' form.
 * Each file is written completely or not at all. OK or a code. */
int checkpoint_save(const char *folder, const char *stem, const Tensor *list, int tensors,
                    int dtype, uint64_t shard_bytes, Pool *pool, Error *err);
/* Set the names, and the stack's options but for its sizes, to those of a model_type ("llama",
 * "roberta" ...); K and D that are 0 become H and C / H; a T5 whose stack is gated already stays
 * so. OK or E_UNSUPPORTED (no such family). */
int config_policy(ModelConfig *c, const char *type);
int config_judge(RewardConfig *c, const char *type);
/* Returns the k-th class of transformers that opens, and whether it is a judge's; NULL: no more. */
const char *config_class(int k, int *judge);
/* Returns the class as which a configuration with these names is written; "": it has no names. */
const char *config_written(const Names *names, int judge);
/* These read and write config.json, for policies also generation_config.json. A missing key gets
 * Hugging Face's default; a feature that is not supported is refused by name. types (or NULL) with
 * NF4 layers: quantization_config is written, too. OK or a code. */
int config_load(ModelConfig *c, const char *folder, Pool *pool, Error *err);
int config_save(const ModelConfig *c, const WeightTypes *types, const char *folder, int dtype,
                Pool *pool, Error *err);
int reward_config_load(RewardConfig *c, const char *folder, Pool *pool, Error *err);
int reward_config_save(const RewardConfig *c, const char *folder, int dtype, Pool *pool,
                       Error *err);
/* Sets *w to the types of the weights in a folder's files, the best types for frozen weights (F32
 * if floats differ in type); w->kept is in pool. Reads headers only. OK, E_UNSUPPORTED (neither
 * F32, F16, BF16 nor 4 bits) or another code. */
int folder_types(WeightTypes *w, const char *folder, const Names *names, Pool *pool, Error *err);
/* These read and write adapter_config.json. Features that are not supported (lora_bias ...) are
 * refused by name. The lists of *l are in pool. base_model NULL: null is written. Beside low-rank
 * pairs a soft prompt has a folder of its own, FOLDER/prompt, which adapter_load and adapter_save
 * use, too: to peft they are two adapters. OK or a code. */
int adapter_config_load(LoraConfig *l, const char *folder, Pool *pool, Error *err);
int adapter_config_save(const LoraConfig *l, const char *folder, const char *base_model, Pool *pool,
                        Error *err);
/* If folder is an adapter's (adapter_config.json, and not both config.json and a model's weights),
 * sets *base to the folder of the model that it adapts, as base_model_name_or_path names it from
 * here or from folder; else to NULL. E_MISSING if there is no such folder. OK or a code. */
int adapter_base(const char **base, const char *folder, Pool *pool, Error *err);
/* Loads a checkpoint of llama2.c (version 0: legacy; 1; 2) as a Llama with F32 tensors in pool. */
typedef struct { ModelConfig config; Tensor *tensor; int tensors, version; } Llama2c;
int llama2c_load(Llama2c *l, const char *path, Pool *pool, Error *err);
/* Opens the tokenizer of a folder (tokenizer.json, tokenizer.model, spiece.model, vocab.json +
 * merges.txt, or vocab.txt, with the files that add tokens) or of one such file. NULL and *err. */
Tokenizer *tokenizer_open(const char *path, Pool *pool, Error *err);
int tokenizer_exists(const char *folder, Pool *pool);       /* 1: there is such a file */
/* Writes a tokenizer's files, added_tokens.json, tokenizer_config.json and special_tokens_map.json.
 * max_length: model_max_length, in tokens. OK or a code. */
int tokenizer_save(const Tokenizer *t, const char *folder, int max_length, Pool *pool, Error *err);

#endif
