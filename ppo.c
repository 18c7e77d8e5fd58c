/* ppo.c - stage 3 of RLHF: a policy writes, a judge scores, PPO moves the policy towards what scores well and a KL penalty keeps
 * it near where it started.  ./ppo DATA [--policy DIR] [--reward DIR]
 *
 * Read     ppo_step(): one step of the algorithm on one screen. What it calls stands above it, in the order of the call; the
 *          arithmetic is in rl.c, the forward in model.c.
 * Source   Ziegler et al. 2019, Schulman et al. 2017; options and statistics carry the names of TRL 0.11.4's PPOTrainer.
 * Needs    a dataset (prep), a policy folder (sft), a judge's folder (rm) or --reward-text. Memory is measured, then taken once.
 * Exact    old log-probs and values are those that the sampler computed; training computes the same bits again, so the first
 *          ratio of every step is exactly 1. The log has the largest deviation from it, which has to be 0.
 * Edges    EOS belongs to the response and ends it. A query is the first tokens of a document, <s> before it not counted where
 *          the tokenizer's template has one; documents not longer than the query are skipped. Whatever is random comes from a
 *          stream of (seed, purpose, step, index): neither batch sizes nor threads change a sample. */
#include "programs.h"
#include <stdio.h>

/* ---- options ---- */

enum { SCORE_BOTH, SCORE_RESPONSE };
enum { ANNEAL_NONE, ANNEAL_LINEAR };
enum { VALUE_ZERO, VALUE_PYTORCH };

static struct {
    const char *policy, *reward, *tokenizer, *adapter, *out, *label, *reward_text, *lora_targets;
    int rslora, score, steps, batch_size, mini_batch_size, accumulation, ppo_epochs, lr_anneal, adam_tf, adaptive, kl_penalty, early_stopping;
    int whiten_rewards, biased, score_scaling, score_norm, score_normalize, query_min, query_max, response_min, response_max, top_k;
    int lora_r, value_init, dtype, eval_queries, eval_every, save_every, show, chunk, dry_run;
    double lr, value_lr, adam_eps, max_grad_norm, kl_coef, target, horizon, gamma, lam, clip, clip_value, vf_coef, ratio_threshold, target_kl;
    double score_clip, eos_penalty, temperature, top_p, dropout, lora_alpha;
    QuantOptions quant;
    uint64_t seed;
} o;

#define COUNT(low) low, INT_MAX
#define REAL(low) low, HUGE_VAL
static Option options[] = {
    { "policy", OPT_TEXT, &o.policy, "data/policy", 0, 0, NULL, "model folder of the policy" },
    { "reward", OPT_TEXT, &o.reward, "data/reward", 0, 0, NULL, "model folder of the judge" },
    { "label", OPT_TEXT, &o.label, NULL, 0, 0, NULL, "whose logit is the reward; needed unless the judge has one output, "
      "or exactly one named positive, pos, nothate or non-toxic" },
    { "score", OPT_CHOICE, &o.score, "query+response", 0, 0, "query+response|response", "what the judge reads" },
    { "reward-text", OPT_TEXT, &o.reward_text, NULL, 0, 0, NULL,
      "no judge: the reward is how often this text occurs in the response (to try things)" },
    { "out", OPT_TEXT, &o.out, "runs", 0, 0, NULL, "folder for run folders" },
    { "steps", OPT_INT, &o.steps, "157", COUNT(0), NULL, "PPO steps (batches of responses)" },
    { "seed", OPT_SEED, &o.seed, "0", 0, 0, NULL, "of everything random" },
    { "dry-run", OPT_FLAG, &o.dry_run, NULL, 0, 0, NULL, "print the memory bill and stop" },

    { "batch-size", OPT_INT, &o.batch_size, "128", COUNT(1), NULL, "responses per step" },
    { "mini-batch-size", OPT_INT, &o.mini_batch_size, "128", COUNT(1), NULL, "responses per forward and backward pass" },
    { "gradient-accumulation-steps", OPT_INT, &o.accumulation, "1", COUNT(1), NULL,
      "mini-batches per update; the loss is the mean over all their tokens" },
    { "ppo-epochs", OPT_INT, &o.ppo_epochs, "4", COUNT(1), NULL, "passes over a step's responses" },
    { "learning-rate", OPT_REAL, &o.lr, "1.41e-5", REAL(0), NULL, "Adam's" },
    { "value-learning-rate", OPT_REAL, &o.value_lr, "0", REAL(0), NULL, "Adam's for the value head alone; 0: as --learning-rate" },
    { "lr-anneal", OPT_CHOICE, &o.lr_anneal, "none", 0, 0, "none|linear", "linear: to 0 at the last step, as OpenAI had it" },
    { "adam-eps", OPT_REAL, &o.adam_eps, "1e-8", REAL(0), NULL, "PyTorch's 1e-8; TensorFlow's 1e-5" },
    { "adam-tf-style", OPT_FLAG, &o.adam_tf, NULL, 0, 0, NULL, "eps is added before the bias correction, as TensorFlow 1 did" },
    { "max-grad-norm", OPT_REAL, &o.max_grad_norm, "0", REAL(0), NULL, "gradients are scaled down to this norm, in every update; 0: never" },

    { "init-kl-coef", OPT_REAL, &o.kl_coef, "0.2", REAL(0), NULL, "KL coefficient at the start" },
    { "adap-kl-ctrl", OPT_FLAG, &o.adaptive, "yes", 0, 0, NULL, "adapt the coefficient to --target (off: --adap-kl-ctrl=no)" },
    { "target", OPT_REAL, &o.target, "6", REAL(1e-6), NULL, "KL per response that the controller steers to" },
    { "horizon", OPT_REAL, &o.horizon, "10000", REAL(1), NULL, "responses over which it does so" },
    { "kl-penalty", OPT_CHOICE, &o.kl_penalty, "kl", 0, 0, "kl|abs|mse|full|k3", "per token; full: exact over the vocabulary" },
    { "gamma", OPT_REAL, &o.gamma, "1", 0, 1, NULL, "discount" },
    { "lam", OPT_REAL, &o.lam, "0.95", 0, 1, NULL, "GAE's lambda" },
    { "cliprange", OPT_REAL, &o.clip, "0.2", REAL(1e-6), NULL, "policy ratio stays within 1 +- this" },
    { "cliprange-value", OPT_REAL, &o.clip_value, "0.2", REAL(0), NULL, "value stays within old +- this; 0: no clipping" },
    { "vf-coef", OPT_REAL, &o.vf_coef, "0.1", REAL(0), NULL, "weight of the value loss" },
    { "ratio-threshold", OPT_REAL, &o.ratio_threshold, "10", REAL(0), NULL, "updates whose mean ratio is above are left out; 0: none" },
    { "early-stopping", OPT_FLAG, &o.early_stopping, NULL, 0, 0, NULL,
      "end a step's epochs when the last update's policy KL is above 1.5 target-kl" },
    { "target-kl", OPT_REAL, &o.target_kl, "1", REAL(1e-9), NULL, "for --early-stopping" },
    { "whiten-rewards", OPT_FLAG, &o.whiten_rewards, NULL, 0, 0, NULL, "scale token rewards to deviation 1, keeping their mean" },
    { "biased-variance", OPT_FLAG, &o.biased, NULL, 0, 0, NULL, "whiten with n instead of n - 1, as OpenAI and OpenRLHF do" },

    { "use-score-scaling", OPT_FLAG, &o.score_scaling, NULL, 0, 0, NULL, "divide scores by their running deviation" },
    { "use-score-norm", OPT_FLAG, &o.score_norm, NULL, 0, 0, NULL, "with scaling: subtract their running mean too" },
    { "score-clip", OPT_REAL, &o.score_clip, "0", REAL(0), NULL, "then clip to +- this; 0: no" },
    { "score-normalize", OPT_FLAG, &o.score_normalize, NULL, 0, 0, NULL,
      "gain and bias so that the untrained policy's scores on the evaluation queries have mean 0, deviation 1" },
    { "missing-eos-penalty", OPT_REAL, &o.eos_penalty, "0", REAL(0), NULL, "subtracted from the score of a response without EOS" },

    { "query-min", OPT_INT, &o.query_min, "2", COUNT(1), NULL, "fewest tokens of a query" },
    { "query-max", OPT_INT, &o.query_max, "7", COUNT(1), NULL, "most, itself included (TRL's LengthSampler leaves it out: its 2, 8 is our 2, 7)" },
    { "response-min", OPT_INT, &o.response_min, "4", COUNT(1), NULL, "fewest tokens after which a response is cut" },
    { "response-max", OPT_INT, &o.response_max, "15", COUNT(1), NULL, "most, itself included" },
    { "temperature", OPT_REAL, &o.temperature, "1", REAL(0.01), NULL, "divides the logits of policy, reference and loss alike" },
    { "top-k", OPT_INT, &o.top_k, "0", COUNT(0), NULL, "refused unless 0" },
    { "top-p", OPT_REAL, &o.top_p, "1", 0, 1, NULL, "refused unless 1" },
    { "dropout", OPT_REAL, &o.dropout, "0", 0, 1, NULL, "refused unless 0" },

    { "tokenizer", OPT_TEXT, &o.tokenizer, NULL, 0, 0, NULL, "of the policy, when its folder has none" },
    { "lora-r", OPT_INT, &o.lora_r, "0", COUNT(0), NULL, "train a LoRA adapter of this rank instead of all weights; 0: all weights" },
    { "lora-alpha", OPT_REAL, &o.lora_alpha, "16", REAL(1e-6), NULL, "its alpha" },
    { "lora-targets", OPT_TEXT, &o.lora_targets, "q_proj,v_proj", 0, 0, NULL, "the linears it adapts, by commas; all-linear: all seven" },
    { "lora-rslora", OPT_FLAG, &o.rslora, NULL, 0, 0, NULL, "scale by alpha / sqrt(rank) instead of alpha / rank" },
    { "adapter", OPT_TEXT, &o.adapter, NULL, 0, 0, NULL, "start from this PEFT adapter; the reference is a frozen copy of it" },
    { "value-init", OPT_CHOICE, &o.value_init, "zero", 0, 0, "zero|pytorch",
      "value head at the start, where the folders have no value_head.safetensors" },
    QUANT_OPTIONS(o.quant, QLORA_HELP "; without --lora-r or --adapter, an adapter of rank 16 on all seven linears"),
    COMPUTE_OPTION(o.quant),
    RECOMPUTE_OPTION(o.quant),
    { "dtype", OPT_CHOICE, &o.dtype, "f32", 0, 0, "f32|bf16|f16", "of the weights that are written" },

    { "eval-queries", OPT_INT, &o.eval_queries, "256", COUNT(0), NULL, "held-out queries scored before and after; the same for every seed" },
    { "eval-every", OPT_INT, &o.eval_every, "0", COUNT(0), NULL, "score them every so many steps too; 0: no" },
    { "show", OPT_INT, &o.show, "10", COUNT(0), NULL, "rows of the table at the end" },
    { "save-every", OPT_INT, &o.save_every, "20", COUNT(0), NULL, "steps between writes of the result; 0: only at the end" },
    { "chunk", OPT_INT, &o.chunk, "64", COUNT(1), NULL, "texts sampled, referenced and scored at a time: memory and speed, never results" },
};

static const char *const imdb_small[] = {
    "steps", "30", "batch-size", "192", "mini-batch-size", "48", "ppo-epochs", "2", "learning-rate", "1.4e-4", "value-learning-rate", "3e-3",
    "init-kl-coef", "0.2", "target", "6", "horizon", "4000", "lam", "1", "cliprange-value", "0", "vf-coef", "0.1", "max-grad-norm", "1",
    "query-min", "4", "query-max", "8", "response-min", "32", "response-max", "32", "value-init", "zero", NULL };
static const char *const trl_classic[] = {
    "steps", "157", "batch-size", "128", "mini-batch-size", "128", "ppo-epochs", "4", "learning-rate", "1.41e-5", "init-kl-coef", "0.2",
    "target", "6", "horizon", "10000", "lam", "0.95", "cliprange", "0.2", "cliprange-value", "0.2", "vf-coef", "0.1", "max-grad-norm", "0",
    "ratio-threshold", "10", "query-min", "2", "query-max", "7", "response-min", "4", "response-max", "15", "value-init", "pytorch", NULL };
static const Preset presets[] = {
    { "imdb-small", "tuned for the models in data/, which learn the task in about a minute", imdb_small },
    { "trl-classic", "the hyper-parameters of TRL 0.11.4 and its gpt2-sentiment notebook", trl_classic },
};
static const Program program = {
    "ppo", "DATA [--policy DIR] [--reward DIR] [--steps N] ...",
    "Proximal policy optimisation of a language model against a judge. DATA is a dataset made by prep; queries are the first tokens "
    "of its documents. The preset is imdb-small without --policy and trl-classic with it.",
    options, sizeof options / sizeof *options, presets, sizeof presets / sizeof *presets };

/* ---- the state of a run ---- */

/* Documents of one split, in an order that is new every epoch. */
typedef struct { int *document, count, next; uint64_t seed, epoch; } Queue;

/* B responses with everything known about them. Arrays of P hold the response tokens one after another (rl.c's ragged layout). */
typedef struct {
    int B, P, *start, *order;               /* (B+1); (B) the order of an epoch */
    Sequence *seq;                          /* (B) query and response */
    int *token;                             /* (B,T) */
    float *seq_logprob, *seq_value;         /* (B,response_max) as the sampler returns them */
    float *logprob, *value, *ref_logprob, *full_kl, *kl, *reward, *advantage, *returns, *scratch;   /* (P) */
    float *raw_score, *score;               /* (B) as the judge gave it; as PPO sees it */
    const char **text, **response;          /* (B) query and response, response; in the pool until the step ends */
    size_t *text_length, *query_length, *response_length;
} Rollout;

/* The rows of some sequences for one forward, and what a mini-batch needs. W response tokens among N rows. */
typedef struct {
    int *token, *sequence, *position, *target, N, W;
    unsigned char *wants;
    float *hidden, *other_hidden, *dhidden;                                                         /* (W,C) */
    float *old_logprob, *advantage, *old_value, *returns, *new_logprob, *entropy, *value, *dvalue;  /* (W) */
} Batch;

typedef struct {                            /* held-out queries, scored before [0] and after [1] training */
    int n, *token, *prompt, *capacity;
    const char **query, **response[2];
    size_t *query_length, *response_length[2];
    float *score[2], *kl[2], *scratch;
    long long bigrams[2];
} Evaluation;

typedef struct { float *logits; int *token, *start, tokens; } JudgeBatch;      /* texts for one forward of the judge */

enum { PARTS_MAX = 16 };

typedef struct {
    Pool pool;
    Arena arena, ws;
    Error err;
    Dataset data;
    Tokenizer *tokenizer, *judge_tokenizer;
    int T, bos;                             /* longest query + response; id put before a query, or -1 */

    ModelConfig config;
    WeightTypes types;                      /* of the policy's weights; F32 where they are trained */
    Model policy, frozen;                   /* frozen: the copy that is the reference when all weights are trained */
    Lora lora, start_lora, *adapter;        /* adapter: &lora, or NULL when all weights are trained */
    const Model *reference;
    const Lora *reference_adapter;
    ValueHead head;
    Tensor *trained;                        /* what Adam moves: the adapter or all weights, and the value head */
    int trained_count;
    Optimizer optimizer;

    RewardConfig judge_config;
    RewardModel judge;
    int label, judge_rows;
    JudgeBatch judge_batch;

    Cache cache;
    Saved saved;
    Batch batch;
    Rollout rollout;
    Evaluation eval;
    Queue queue;

    KlController kl;
    Moments moments;
    double gain, bias;                      /* score = gain * logit + bias */
    PpoStats stats;
    double first_ratio, grad_norm, seconds[5];
    int updates, skipped, epochs;

    int step, saved_step, first_step_above[2];
    double reward_above[2], *history;
    struct { const char *name; size_t bytes; } part[PARTS_MAX];     /* the memory bill */
    int parts;
    char folder[400], log_path[440], time_path[440], samples_path[440];
} Run;

enum { STREAM_ORDER = 1, STREAM_QUERY, STREAM_SAMPLE, STREAM_EPOCH, STREAM_INIT };
enum { GENERATE, SCORE, REFERENCE, ADVANTAGES, OPTIMIZE };

static Rng stream(uint64_t seed, int purpose, uint64_t step, uint64_t index) {
    return rng_stream(seed + (uint64_t)purpose * 0x9e3779b97f4a7c15u, step, index);
}

static void *take(Run *r, size_t count, size_t size) {
    void *p = pool_take(&r->pool, count, size);
    if (!p) must(fail(&r->err, E_MEMORY, "out of memory", "", 0, 0), &r->err, NULL);
    return p;
}

static int is_number(double x) { return x - x == 0; }
static void not_a_number(Run *r, const char *what, int step, int save);
static int larger(int a, int b) { return a > b ? a : b; }
static int smaller(int a, int b) { return a < b ? a : b; }
static size_t smaller_size(size_t a, size_t b) { return a < b ? a : b; }

/* ---- queries ---- */

static void queue_shuffle(Queue *q) {
    Rng rng = stream(q->seed, STREAM_ORDER, q->epoch, 0);
    rng_shuffle(&rng, q->document, q->count);
    q->next = 0;
}

static Queue queue_of_split(Run *r, int split, uint64_t seed) {
    Queue q = { NULL, 0, 0, seed, 0 };
    q.document = take(r, (size_t)r->data.count + 1, sizeof *q.document);
    for (uint64_t i = 0; i < r->data.count; i++) if (r->data.document[i].split == split) q.document[q.count++] = (int)i;
    queue_shuffle(&q);
    return q;
}

/* The first `length` tokens of the next document that is longer than that (of prompts: the whole, if at most query_max). Writes
 * the query to token (room for 1 + query_max), with <s> before it where the template has one, and returns its size; 0 when a
 * whole epoch went by without a document that is long enough. */
static int next_query(Run *r, Queue *q, int length, int *token) {
    for (int tries = 0; tries <= q->count; tries++) {
        PoolMark mark = pool_mark(&r->pool);
        int *ids, n, at = 0, good;
        if (q->next == q->count) { q->epoch++; queue_shuffle(q); }
        const Document *d = &r->data.document[q->document[q->next++]];
        must(tokenizer_encode(r->tokenizer, d->text[0], d->length[0], &r->pool, &ids, &n), NULL, "a smaller dataset");
        if (r->data.kind == DATA_PROMPTS) { good = n > 0 && n <= o.query_max; length = n; }
        else good = n > length;
        if (good) {
            if (r->bos >= 0) token[at++] = r->bos;
            memcpy(token + at, ids, (size_t)length * sizeof *ids);
        }
        pool_release(&r->pool, mark);
        if (good) return at + length;
    }
    return 0;
}

static int draw_between(Rng *rng, int low, int high) { return low + (int)rng_below(rng, (uint64_t)(high - low) + 1); }

static void no_query(Run *r) {
    fail(&r->err, E_ARGUMENT, "no document is long enough for a query", "", 0, 0);
    die(&r->err, "a smaller --query-max, or another dataset");
}

/* Starts sequence b of x: a query of `prompt` tokens that stands at its place already, room for `response` more. */
static void sequence_begin(Run *r, Rollout *x, int b, int prompt, int response, Rng rng) {
    Sequence *s = &x->seq[b];
    memset(s, 0, sizeof *s);
    s->token = x->token + (size_t)b * (size_t)r->T;
    s->prompt = s->length = prompt;
    s->capacity = prompt + response;
    s->stop_at_eos = 1;
    s->logprob = x->seq_logprob + (size_t)b * (size_t)o.response_max;
    s->value = x->seq_value + (size_t)b * (size_t)o.response_max;
    s->rng = rng;
}

static void draw_queries(Run *r, Rollout *x) {
    x->B = o.batch_size;
    for (int b = 0; b < x->B; b++) {
        Rng rng = stream(o.seed, STREAM_QUERY, (uint64_t)r->step, (uint64_t)b);
        int length = draw_between(&rng, o.query_min, o.query_max), response = draw_between(&rng, o.response_min, o.response_max);
        int prompt = next_query(r, &r->queue, length, x->token + (size_t)b * (size_t)r->T);
        if (!prompt) no_query(r);
        sequence_begin(r, x, b, prompt, response, stream(o.seed, STREAM_SAMPLE, (uint64_t)r->step, (uint64_t)b));
    }
}

/* ---- roll out ---- */

/* Fills all sequences of x, then lays their tokens out one after another. */
static void sample_responses(Run *r, Rollout *x) {
    const Writing writing = { r->adapter, &r->head, { (float)o.temperature, 0, 1 }, NULL, NULL };
    for (int first = 0; first < x->B; first += o.chunk)
        must(model_generate(&r->policy, &writing, x->seq + first, smaller(o.chunk, x->B - first), &r->cache, &r->ws), NULL, "check the weights: the sampler failed");
    x->P = 0;
    for (int b = 0; b < x->B; b++) {
        int n = x->seq[b].length - x->seq[b].prompt;
        for (int t = 0; t < n; t++)
            if (!is_number(x->seq[b].logprob[t]) || !is_number(x->seq[b].value[t]))
                not_a_number(r, "the policy's log-probs or values are not numbers", larger(r->step - 1, 0), 0);
        x->start[b] = x->P;
        memcpy(x->logprob + x->P, x->seq[b].logprob, (size_t)n * sizeof(float));
        memcpy(x->value + x->P, x->seq[b].value, (size_t)n * sizeof(float));
        x->P += n;
    }
    x->start[x->B] = x->P;
}

/* Rows of n sequences of seq (which[i], or the i-th), each without its last token, which predicts nothing. Row t wants its
 * logits if it predicts a response token, t + 1. */
static Rows fill_rows(Batch *k, const Sequence *seq, const int *which, int n) {
    k->N = k->W = 0;
    for (int i = 0; i < n; i++) {
        const Sequence *s = &seq[which ? which[i] : i];
        for (int t = 0; t + 1 < s->length; t++) {
            k->token[k->N] = s->token[t];
            k->sequence[k->N] = i;
            k->position[k->N] = t;
            k->wants[k->N] = t + 1 >= s->prompt;
            if (k->wants[k->N]) k->target[k->W++] = s->token[t + 1];
            k->N++;
        }
    }
    Rows rows = { k->N, k->W, k->token, k->sequence, k->position, k->wants };
    return rows;
}

/* log-probs of the responses under the reference, and for --kl-penalty full the exact KL to it. */
static void reference_logprobs(Run *r, Rollout *x) {
    Batch *k = &r->batch;
    for (int first = 0; first < x->B; first += o.chunk) {
        Rows rows = fill_rows(k, x->seq + first, NULL, smaller(o.chunk, x->B - first));
        int at = x->start[first];
        int code = model_forward(r->reference, r->reference_adapter, &rows, &r->cache, NULL, k->hidden, &r->ws);
        HeadTask task = { k->target, (float)o.temperature, x->ref_logprob + at, NULL, NULL, NULL, NULL };
        if (!code) code = model_logprobs(r->reference, k->hidden, k->W, &task, &r->ws);
        if (!code && o.kl_penalty == KL_FULL) {
            code = model_forward(&r->policy, r->adapter, &rows, &r->cache, NULL, k->other_hidden, &r->ws);
            if (!code) code = model_full_kl(&r->policy, k->other_hidden, r->reference, k->hidden, k->W, (float)o.temperature,
                                            x->full_kl + at, &r->ws);
        }
        must(code, NULL, "check the reference's weights");
    }
}

/* ---- score ---- */

/* Texts of sequence b without special tokens. The response is what the whole has more than the query, so that a word begun in
 * the query is not taken for a new one; where the whole does not begin with the query (a character cut in two), the response
 * is decoded alone. */
static void decode_sequence(Run *r, Rollout *x, int b) {
    const Sequence *s = &x->seq[b];
    char *whole, *query, *alone;
    size_t n, query_n = 0;
    int code = tokenizer_decode(r->tokenizer, s->token, s->length, &r->pool, &whole, &n);
    if (!code) code = tokenizer_decode(r->tokenizer, s->token, s->prompt, &r->pool, &query, &query_n);
    must(code, NULL, "check that the tokenizer belongs to the policy");
    x->text[b] = whole;
    x->text_length[b] = n;
    x->query_length[b] = smaller_size(n, query_n);
    if (n >= query_n && !memcmp(whole, query, query_n)) {
        x->response[b] = whole + query_n;
        x->response_length[b] = n - query_n;
        return;
    }
    must(tokenizer_decode(r->tokenizer, s->token + s->prompt, s->length - s->prompt, &r->pool, &alone, &n), NULL, NULL);
    x->response[b] = alone;
    x->response_length[b] = n;
}

static float count_text(const char *text, size_t n, const char *wanted) {
    size_t w = strlen(wanted), count = 0;
    for (size_t i = 0; i + w <= n; ) {
        int found = !memcmp(text + i, wanted, w);
        count += (size_t)found;
        i += found ? w : 1;
    }
    return (float)count;
}

/* Appends a text to the judge's next forward, in the judge's own ids and template, cut to its limit. */
static void judge_add(Run *r, int i, const int *ids, int n) {
    JudgeBatch *j = &r->judge_batch;
    SpecialIds special = tokenizer_specials(r->judge_tokenizer);
    int before, after;
    tokenizer_template(r->judge_tokenizer, &before, &after);
    j->start[i] = j->tokens;
    if (before) j->token[j->tokens++] = special.bos;
    for (int k = 0; k < n; k++) j->token[j->tokens++] = ids[k];
    if (after) j->token[j->tokens++] = special.eos;
    j->start[i + 1] = j->tokens;
}

static void judge_run(Run *r, int n, float *score) {
    JudgeBatch *j = &r->judge_batch;
    Texts texts = { j->tokens, n, j->token, j->start };
    if (!n) return;
    must(reward_forward(&r->judge, NULL, &texts, NULL, j->logits, &r->ws), NULL, "check that the tokenizer belongs to the judge");
    for (int i = 0; i < n; i++) score[i] = j->logits[(size_t)i * (size_t)r->judge_config.labels + (size_t)r->label];
    j->tokens = 0;
}

/* raw_score: the judge's logit of each text, as many texts a forward as have room. */
static void judge_texts(Run *r, Rollout *x) {
    int waiting = 0, before, after;
    tokenizer_template(r->judge_tokenizer, &before, &after);
    r->judge_batch.tokens = 0;
    for (int b = 0; b < x->B; b++) {
        PoolMark mark = pool_mark(&r->pool);
        const char *text = o.score == SCORE_BOTH ? x->text[b] : x->response[b];
        int *ids, n;
        must(tokenizer_encode(r->judge_tokenizer, text, o.score == SCORE_BOTH ? x->text_length[b] : x->response_length[b], &r->pool,
                              &ids, &n), NULL, NULL);
        n = smaller(n, reward_max_tokens(&r->judge_config) - before - after);
        if (waiting == o.chunk || r->judge_batch.tokens + n + before + after > r->judge_rows) {
            judge_run(r, waiting, x->raw_score + b - waiting);
            waiting = 0;
        }
        judge_add(r, waiting++, ids, n);
        pool_release(&r->pool, mark);
    }
    judge_run(r, waiting, x->raw_score + x->B - waiting);
}

static int ends_in_eos(const Run *r, const Sequence *s) {
    for (int i = 0; i < r->config.eos_count; i++) if (s->token[s->length - 1] == r->config.eos[i]) return 1;
    return 0;
}

/* Texts and scores: raw_score from the judge; score with gain, bias and the penalty for a response that never ended. */
static void score_responses(Run *r, Rollout *x) {
    for (int b = 0; b < x->B; b++) decode_sequence(r, x, b);
    if (o.reward_text) for (int b = 0; b < x->B; b++) x->raw_score[b] = count_text(x->response[b], x->response_length[b], o.reward_text);
    else judge_texts(r, x);
    for (int b = 0; b < x->B; b++) {
        if (!is_number(x->raw_score[b])) {
            fail(&r->err, E_NUMBER, "the judge's score is not a number", o.reward, 0, 0);
            die(&r->err, "check the judge's weights with: run score");
        }
        x->score[b] = (float)(r->gain * x->raw_score[b] + r->bias - (ends_in_eos(r, &x->seq[b]) ? 0 : o.eos_penalty));
    }
}

/* ---- learn ---- */

typedef struct { const Batch *batch; const PpoLoss *loss; float scale; PpoStats *stats; } LossContext;

/* The head calls this for tokens first .. first+n-1 as soon as it has their log-probs. */
static void token_loss(void *context, int first, int n, const float *logprob, float *dlogprob) {
    const LossContext *c = context;
    policy_loss(dlogprob, logprob, c->batch->old_logprob + first, c->batch->advantage + first, c->loss, c->scale, n, c->stats);
}

/* Copies what the rollout knows of these responses' tokens, in the order of the batch. */
static void gather_tokens(Batch *k, const Rollout *x, const int *which, int n) {
    int w = 0;
    for (int i = 0; i < n; i++)
        for (int t = x->start[which[i]]; t < x->start[which[i] + 1]; t++, w++) {
            k->old_logprob[w] = x->logprob[t];
            k->advantage[w] = x->advantage[t];
            k->old_value[w] = x->value[t];
            k->returns[w] = x->returns[t];
        }
}

/* Forward, loss, backward of one mini-batch: adds to the gradients and to s. scale: 1 / (tokens of the whole update). */
static int train_mini_batch(Run *r, const Rollout *x, const int *which, int n, const PpoLoss *loss, float scale, PpoStats *s) {
    Batch *k = &r->batch;
    Rows rows = fill_rows(k, x->seq, which, n);
    LossContext context = { k, loss, scale, s };
    HeadTask task = { k->target, (float)o.temperature, k->new_logprob, k->entropy, token_loss, &context, k->dhidden };
    gather_tokens(k, x, which, n);
    int code = model_forward(&r->policy, r->adapter, &rows, &r->cache, &r->saved, k->hidden, &r->ws);
    if (code) return code;
    memset(k->dhidden, 0, (size_t)k->W * (size_t)r->config.stack.C * sizeof(float));
    code = model_logprobs(&r->policy, k->hidden, k->W, &task, &r->ws);
    if (code) return code;
    model_values(&r->head, k->hidden, k->value, k->W, &r->ws);
    memset(k->dvalue, 0, (size_t)k->W * sizeof(float));
    value_loss(k->dvalue, k->value, k->old_value, k->returns, loss, scale, k->W, s);
    model_values_backward(&r->head, k->dvalue, k->hidden, k->dhidden, k->W, &r->ws);
    for (int w = 0; w < k->W; w++) s->entropy += k->entropy[w];
    return model_backward(&r->policy, r->adapter, &rows, &r->cache, &r->saved, k->dhidden, &r->ws);
}

static void save_result(Run *r);

static int weights_are_numbers(const Run *r) { return tensors_are_numbers(r->trained, r->trained_count, o.dtype); }

/* The run cannot go on. `step` was the last good one; `save`: the weights still are those after it. Else the last save stays. */
static void not_a_number(Run *r, const char *what, int step, int save) {
    r->step = step;
    if (save && step > 0 && weights_are_numbers(r)) save_result(r);
    die_not_a_number(what, step + 1, r->saved_step, r->folder, "a smaller --learning-rate, or --max-grad-norm 1");
}

static double step_rate(const Run *r, double start) { return start * (o.lr_anneal == ANNEAL_LINEAR ? 1 - (double)(r->step - 1) / o.steps : 1); }

static void add_stats(PpoStats *to, const PpoStats *s) {
    to->tokens += s->tokens; to->policy_loss += s->policy_loss; to->value_loss += s->value_loss; to->entropy += s->entropy;
    to->clip_fraction += s->clip_fraction; to->value_clip_fraction += s->value_clip_fraction; to->approx_kl += s->approx_kl;
    to->policy_kl += s->policy_kl; to->ratio += s->ratio; to->value_error += s->value_error; to->value += s->value;
    if (s->max_ratio_deviation > to->max_ratio_deviation) to->max_ratio_deviation = s->max_ratio_deviation;
}

/* One optimiser step over n responses: gradients of the mean over all their tokens, clipped to max_grad_norm, then Adam.
 * Returns the mean policy KL. An update whose mean ratio is beyond the guard is left out, Adam's moments included. */
static double update(Run *r, const Rollout *x, const int *which, int n) {
    const PpoLoss loss = { (float)o.clip, (float)o.clip_value, (float)o.vf_coef, (float)o.ratio_threshold };
    const AdamW adam = { (float)step_rate(r, o.lr), 0.9f, 0.999f, (float)o.adam_eps, 0, o.adam_tf };
    AdamW head = adam;
    PpoStats s;
    int tokens = 0;
    memset(&s, 0, sizeof s);
    for (int i = 0; i < n; i++) tokens += x->start[which[i] + 1] - x->start[which[i]];
    gradient_zero(r->trained, r->trained_count);
    for (int i = 0; i < n; i += o.mini_batch_size)
        must(train_mini_batch(r, x, which + i, smaller(o.mini_batch_size, n - i), &loss, 1 / (float)tokens, &s), NULL, NULL);
    if (!r->updates) r->first_ratio = s.max_ratio_deviation;
    double norm = gradient_norm(r->trained, r->trained_count);
    if (!is_number(s.policy_kl) || !is_number(s.value_loss)) not_a_number(r, "the loss is not a number", r->step - 1, !r->updates);
    if (ratio_exceeds(&s, &loss)) r->skipped++;
    else {
        if (!is_number(s.policy_loss) || !is_number(norm)) not_a_number(r, "the loss or its gradient is not a number", r->step - 1, !r->updates);
        double scale = o.max_grad_norm > 0 && norm > o.max_grad_norm ? o.max_grad_norm / (norm + 1e-6) : 1;
        int policy = r->trained_count - 2;  /* the value head's two tensors are the last */
        if (o.value_lr > 0) head.lr = (float)step_rate(r, o.value_lr);
        size_t done = optimizer_step(&r->optimizer, 0, r->trained, policy, &adam, (float)scale);
        optimizer_step(&r->optimizer, done, r->trained + policy, 2, &head, (float)scale);
    }
    r->updates++;
    r->grad_norm += norm;
    add_stats(&r->stats, &s);
    return s.policy_kl / tokens;
}

static void step_begin(Run *r) {
    memset(&r->stats, 0, sizeof r->stats);
    memset(r->seconds, 0, sizeof r->seconds);
    r->first_ratio = r->grad_norm = 0;
    r->updates = r->skipped = r->epochs = 0;
}

/* Seconds since the last call go to `part`. */
static void lap(Run *r, double *clock, int part) {
    double now = wall_clock();
    r->seconds[part] += now - *clock;
    *clock = now;
}

/* One step of PPO. Returns the KL to the reference, per response. */
static double ppo_step(Run *r) {
    const ScoreRule rule = { o.score_scaling, o.score_norm, (float)o.score_clip };
    Rollout *x = &r->rollout;
    double clock = wall_clock(), policy_kl = 0;
    step_begin(r);

    draw_queries(r, x);                     /* beginnings of training documents */
    sample_responses(r, x);                 /* tokens, old log-probs, old values */
    lap(r, &clock, GENERATE);
    score_responses(r, x);                  /* one number per text */
    process_scores(x->score, x->B, &rule, &r->moments);
    lap(r, &clock, SCORE);
    reference_logprobs(r, x);               /* what the policy would have said before training */
    lap(r, &clock, REFERENCE);

    kl_penalty(x->kl, x->logprob, x->ref_logprob, x->full_kl, o.kl_penalty, x->P);
    token_rewards(x->reward, x->kl, x->score, (float)r->kl.coef, x->start, x->B);
    if (o.whiten_rewards) whiten(x->reward, x->P, 0, o.biased);
    gae(x->advantage, x->returns, x->reward, x->value, (float)o.gamma, (float)o.lam, x->start, x->B);
    whiten(x->advantage, x->P, 1, o.biased);
    lap(r, &clock, ADVANTAGES);

    for (int epoch = 0; epoch < o.ppo_epochs && !(o.early_stopping && kl_early_stop(policy_kl, o.target_kl)); epoch++) {
        int size = o.mini_batch_size * o.accumulation;
        Rng rng = stream(o.seed, STREAM_EPOCH, (uint64_t)r->step, (uint64_t)epoch);
        for (int b = 0; b < x->B; b++) x->order[b] = b;
        rng_shuffle(&rng, x->order, x->B);
        for (int first = 0; first < x->B; first += size) policy_kl = update(r, x, x->order + first, smaller(size, x->B - first));
        r->epochs++;
    }
    lap(r, &clock, OPTIMIZE);
    return kl_per_sequence(x->kl, x->start, x->B);
}

/* ---- log ---- */

static double mean(const float *x, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i];
    return n ? sum / n : 0;
}

static void log_lengths(Log *l, Rollout *x) {
    char name[48];
    for (int response = 0; response < 2; response++) {
        for (int b = 0; b < x->B; b++) x->scratch[b] = (float)(response ? x->seq[b].length - x->seq[b].prompt : x->seq[b].prompt);
        Summary s = summarise(x->scratch, x->B, x->scratch + x->B);
        snprintf(name, sizeof name, "tokens/%s_len_mean", response ? "responses" : "queries");
        log_number(l, name, s.mean);
        snprintf(name, sizeof name, "tokens/%s_len_std", response ? "responses" : "queries");
        log_number(l, name, s.std);
    }
}

static void log_objective(Run *r, Log *l, double kl) {
    Rollout *x = &r->rollout;
    Summary raw = summarise(x->raw_score, x->B, x->scratch), score = summarise(x->score, x->B, x->scratch);
    int ended = 0;
    for (int b = 0; b < x->B; b++) ended += ends_in_eos(r, &x->seq[b]);
    log_number(l, "env/reward_mean", raw.mean);
    log_number(l, "env/reward_std", raw.std);
    log_number(l, "objective/kl", kl);
    log_number(l, "objective/kl_coef", r->kl.coef);
    log_number(l, "objective/entropy", -kl_per_sequence(x->logprob, x->start, x->B));
    log_number(l, "objective/logprobs", mean(x->logprob, x->P));
    log_number(l, "objective/ref_logprobs", mean(x->ref_logprob, x->P));
    log_number(l, "ppo/mean_non_score_reward", -r->kl.coef * mean(x->kl, x->P));
    log_number(l, "ppo/mean_scores", score.mean);
    log_number(l, "ppo/std_scores", score.std);
    log_lengths(l, x);
    log_integer(l, "tokens/responses_with_eos", ended);
}

/* TRL's names (its docs/source/logging.mdx explains them); averages are over all updates of the step, token by token. */
static void log_step(Run *r, double kl) {
    Rollout *x = &r->rollout;
    PpoStats s = r->stats;
    Summary returns = summarise(x->returns, x->P, x->scratch), value = summarise(x->value, x->P, x->scratch);
    double variance = returns.std * returns.std;
    Log l;
    ppo_stats_mean(&s);
    log_begin(&l, r->log_path, &r->pool);
    log_integer(&l, "step", r->step);
    log_objective(r, &l, kl);
    log_number(&l, "ppo/loss/policy", s.policy_loss);
    log_number(&l, "ppo/loss/value", s.value_loss);
    log_number(&l, "ppo/loss/total", s.policy_loss + o.vf_coef * s.value_loss);
    log_number(&l, "ppo/policy/first_ratio_max_deviation", r->first_ratio);
    log_number(&l, "ppo/policy/max_ratio_deviation", s.max_ratio_deviation);
    log_number(&l, "ppo/policy/ratio", s.ratio);
    log_number(&l, "ppo/policy/clipfrac", s.clip_fraction);
    log_number(&l, "ppo/policy/approxkl", s.approx_kl);
    log_number(&l, "ppo/policy/policykl", s.policy_kl);
    log_number(&l, "ppo/policy/entropy", s.entropy);
    log_number(&l, "ppo/policy/advantages_mean", mean(x->advantage, x->P));
    log_number(&l, "ppo/returns/mean", returns.mean);
    log_number(&l, "ppo/returns/var", variance);
    log_number(&l, "ppo/val/vpred", s.value);
    log_number(&l, "ppo/val/error", s.value_error);
    log_number(&l, "ppo/val/clipfrac", s.value_clip_fraction);
    log_number(&l, "ppo/val/mean", value.mean);
    log_number(&l, "ppo/val/var", value.std * value.std);
    log_number(&l, "ppo/val/var_explained", variance > 0 ? 1 - s.value_error / variance : 0);
    log_number(&l, "ppo/grad_norm", r->updates ? r->grad_norm / r->updates : 0);
    log_number(&l, "ppo/learning_rate", step_rate(r, o.lr));
    log_integer(&l, "ppo/epochs", r->epochs);
    log_integer(&l, "ppo/updates_skipped", r->skipped);
    must(log_end(&l, &r->err), &r->err, NULL);
}

static double log_time(Run *r) {
    static const char *const name[] = { "time/ppo/generate", "time/ppo/score", "time/ppo/forward_pass", "time/ppo/compute_advantages",
                                        "time/ppo/optimize_step" };
    double total = 0;
    Log l;
    log_begin(&l, r->time_path, &r->pool);
    log_integer(&l, "step", r->step);
    for (int i = 0; i < 5; i++) { log_number(&l, name[i], r->seconds[i]); total += r->seconds[i]; }
    log_number(&l, "time/ppo/total", total);
    log_number(&l, "time/tokens_per_second", total > 0 ? r->rollout.P / total : 0);
    must(log_end(&l, &r->err), &r->err, NULL);
    return total;
}

static void show_progress(Run *r, double kl, double seconds) {
    char line[256], bars[128];
    sparkline(bars, sizeof bars, r->history, r->step, 24);
    snprintf(line, sizeof line, "reward %+.3f %s  KL %.2f  coef %.4f  clip %.3f  %.0f tokens/s", r->history[r->step - 1], bars, kl,
             r->kl.coef, r->stats.tokens > 0 ? r->stats.clip_fraction / r->stats.tokens : 0, seconds > 0 ? r->rollout.P / seconds : 0);
    progress(line, r->step, o.steps, r->step == o.steps || cli_stopping());
}

/* Log, progress, and what to remember of a step, then the controller's new coefficient. */
static void step_end(Run *r, double kl) {
    static const double mark[2] = { 3, 6 };
    double reward = mean(r->rollout.raw_score, r->rollout.B);
    r->history[r->step - 1] = reward;
    for (int i = 0; i < 2; i++)
        if (!r->first_step_above[i] && kl > mark[i]) { r->first_step_above[i] = r->step; r->reward_above[i] = reward; }
    log_step(r, kl);
    show_progress(r, kl, log_time(r));
    if (r->first_ratio != 0 || kl < -1) {
        fprintf(stderr, "\nppo: warning at step %d: ", r->step);
        if (r->first_ratio != 0) fprintf(stderr, "the first ratio is not 1 but off by %g: sampler and training disagree\n", r->first_ratio);
        else fprintf(stderr, "KL is %.2f: the policy drifts to where the estimate fails; use --kl-penalty abs or full\n", kl);
    }
    kl_controller_update(&r->kl, kl, r->rollout.B);
}

/* ---- evaluation ---- */

/* The evaluation set: beginnings of held-out documents. The same for every seed; what is sampled after them depends on the seed
 * and the query only, so before and after differ by the policy alone. */
static void evaluation_begin(Run *r) {
    Evaluation *e = &r->eval;
    Queue q = queue_of_split(r, 1, 0);
    int wanted = smaller(o.eval_queries, q.count);
    if (wanted < o.eval_queries) printf("evaluation: only %d documents are held out\n", q.count);
    size_t n = (size_t)wanted + 1;
    e->token = take(r, n * (size_t)r->T, sizeof(int));
    e->prompt = take(r, n, sizeof(int));
    e->capacity = take(r, n, sizeof(int));
    e->query = take(r, n, sizeof *e->query);
    e->query_length = take(r, n, sizeof(size_t));
    e->scratch = take(r, n, sizeof(float));
    for (int k = 0; k < 2; k++) {
        e->response[k] = take(r, n, sizeof *e->response[k]);
        e->response_length[k] = take(r, n, sizeof(size_t));
        e->score[k] = take(r, n, sizeof(float));
        e->kl[k] = take(r, n, sizeof(float));
    }
    for (int i = 0; i < wanted; i++) {
        Rng rng = stream(0, STREAM_QUERY, UINT64_MAX, (uint64_t)i);
        int length = draw_between(&rng, o.query_min, o.query_max);
        e->capacity[i] = draw_between(&rng, o.response_min, o.response_max);
        e->prompt[i] = next_query(r, &q, length, e->token + (size_t)i * (size_t)r->T);
        if (!e->prompt[i]) no_query(r);
    }
    e->n = wanted;
}

static int compare_hashes(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

/* How many different pairs of neighbouring words (separated by white space) the n texts have between them. */
static long long distinct_bigrams(Run *r, const char *const *text, const size_t *length, int n) {
    PoolMark mark = pool_mark(&r->pool);
    size_t bytes = 0, count = 0;
    long long distinct = 0;
    for (int i = 0; i < n; i++) bytes += length[i];
    uint64_t *hash = take(r, bytes / 2 + 1, sizeof *hash);
    for (int i = 0; i < n; i++) {
        uint64_t last = 0;
        int words = 0;
        for (size_t at = 0; at < length[i]; ) {
            size_t begin = at;
            while (at < length[i] && !is_space(text[i][at])) at++;
            if (at > begin) {
                uint64_t word = hash_bytes(text[i] + begin, at - begin, 1);
                if (words++) hash[count++] = hash_bytes(&word, sizeof word, last);
                last = word;
            }
            while (at < length[i] && is_space(text[i][at])) at++;
        }
    }
    qsort(hash, count, sizeof *hash, compare_hashes);
    for (size_t i = 0; i < count; i++) distinct += !i || hash[i] != hash[i - 1];
    pool_release(&r->pool, mark);
    return distinct;
}

/* Scores the policy on the evaluation set into slot k. Texts stay in the pool. */
static void evaluate(Run *r, int k) {
    Evaluation *e = &r->eval;
    Rollout *x = &r->rollout;
    for (int first = 0; first < e->n; first += o.batch_size) {
        x->B = smaller(o.batch_size, e->n - first);
        for (int b = 0; b < x->B; b++) {
            int i = first + b;
            memcpy(x->token + (size_t)b * (size_t)r->T, e->token + (size_t)i * (size_t)r->T, (size_t)e->prompt[i] * sizeof(int));
            sequence_begin(r, x, b, e->prompt[i], e->capacity[i], stream(o.seed, STREAM_SAMPLE, UINT64_MAX, (uint64_t)i));
        }
        sample_responses(r, x);
        score_responses(r, x);
        reference_logprobs(r, x);
        kl_penalty(x->kl, x->logprob, x->ref_logprob, x->full_kl, KL_K1, x->P);
        for (int b = 0; b < x->B; b++) {
            int i = first + b;
            e->query[i] = x->text[b];
            e->query_length[i] = x->query_length[b];
            e->response[k][i] = x->response[b];
            e->response_length[k][i] = x->response_length[b];
            e->score[k][i] = x->raw_score[b];
            e->kl[k][i] = (float)kl_per_sequence(x->kl, x->start + b, 1);
        }
    }
    e->bigrams[k] = distinct_bigrams(r, e->response[k], e->response_length[k], e->n);
    Summary s = summarise(e->score[k], e->n, e->scratch);
    Log l;
    log_begin(&l, r->log_path, &r->pool);
    log_integer(&l, "step", r->step);
    log_number(&l, "eval/reward_mean", s.mean);
    log_number(&l, "eval/reward_median", s.median);
    log_number(&l, "eval/reward_std", s.std);
    log_number(&l, "eval/kl", mean(e->kl[k], e->n));
    log_integer(&l, "eval/distinct_bigrams", e->bigrams[k]);
    must(log_end(&l, &r->err), &r->err, NULL);
}

/* Prints up to `width` characters of *text, broken at a space if there is one; moves *text on. Returns 0 when nothing was left. */
static int print_cell(const char **text, size_t *left, int width) {
    size_t at = 0, end = 0;
    int columns = 0;
    while (*left && is_space(**text)) { ++*text; --*left; }
    int any = *left > 0;
    while (at < *left && columns < width) {
        int32_t code;
        if (is_space((*text)[at])) end = at;
        at += (size_t)utf8_decode(*text + at, *left - at, &code);
        columns++;
    }
    if (at >= *left || is_space((*text)[at]) || !end) end = at;
    columns = 0;
    for (size_t i = 0; i < end; i++) {
        unsigned char c = (unsigned char)(*text)[i];
        putchar(c < 32 || c == 127 ? ' ' : c);
        columns += (c & 0xc0) != 0x80;
    }
    printf("%*s", width - columns > 0 ? width - columns : 0, "");
    *text += end;
    *left -= end;
    return any;
}

static void print_row(const Evaluation *e, int i) {
    enum { QUERY = 22, RESPONSE = 36 };
    const char *text[3] = { e->query[i], e->response[0][i], e->response[1][i] };
    size_t left[3] = { e->query_length[i], e->response_length[0][i], e->response_length[1][i] };
    for (int line = 0; line == 0 || left[0] + left[1] + left[2] > 0; line++) {
        printf("  ");
        for (int k = 0; k < 3; k++) { print_cell(&text[k], &left[k], k ? RESPONSE : QUERY); printf("  "); }
        if (!line) printf("%7.2f %7.2f", e->score[0][i], e->score[1][i]);
        printf("\n");
    }
}

/* The table of TRL's notebook, over many more queries. */
static void print_table(Run *r) {
    Evaluation *e = &r->eval;
    Summary s[2];
    if (!e->n) return;
    printf("\n  %-22s  %-36s  %-36s   before   after\n", "query", "response before", "response after");
    for (int i = 0; i < smaller(o.show, e->n); i++) print_row(e, i);
    for (int k = 0; k < 2; k++) s[k] = summarise(e->score[k], e->n, e->scratch);
    printf("\n  %d held-out queries        before     after\n", e->n);
    printf("  mean reward           %10.4f %10.4f   (%+.4f)\n", s[0].mean, s[1].mean, s[1].mean - s[0].mean);
    printf("  median reward         %10.4f %10.4f\n", s[0].median, s[1].median);
    printf("  standard deviation    %10.4f %10.4f\n", s[0].std, s[1].std);
    printf("  KL to the reference   %10.4f %10.4f   (per response)\n", mean(e->kl[0], e->n), mean(e->kl[1], e->n));
    printf("  distinct bigrams      %10lld %10lld\n", e->bigrams[0], e->bigrams[1]);
}

static void write_samples(Run *r) {
    const Evaluation *e = &r->eval;
    for (int i = 0; i < e->n; i++) {
        PoolMark mark = pool_mark(&r->pool);
        Log l;
        log_begin(&l, r->samples_path, &r->pool);
        log_text(&l, "query", e->query[i], e->query_length[i]);
        log_text(&l, "response_before", e->response[0][i], e->response_length[0][i]);
        log_text(&l, "response_after", e->response[1][i], e->response_length[1][i]);
        log_number(&l, "reward_before", e->score[0][i]);
        log_number(&l, "reward_after", e->score[1][i]);
        log_number(&l, "kl_after", e->kl[1][i]);
        must(log_end(&l, &r->err), &r->err, NULL);
        pool_release(&r->pool, mark);
    }
}

/* ---- memory: what is carved is measured first by the same lines ---- */

static void part(Run *r, const Arena *a, size_t *mark, const char *name) {
    if (!a->base && r->parts < PARTS_MAX) { r->part[r->parts].name = name; r->part[r->parts++].bytes = a->used - *mark; }
    *mark = a->used;
}

static void rollout_carve(Run *r, Rollout *x, Arena *a) {
    size_t B = (size_t)o.batch_size, P = B * (size_t)o.response_max;
    float **const tokens[] = { &x->seq_logprob, &x->seq_value, &x->logprob, &x->value, &x->ref_logprob, &x->full_kl, &x->kl, &x->reward,
                               &x->advantage, &x->returns };
    x->seq = arena_take(a, B, sizeof *x->seq);
    x->token = arena_take(a, B * (size_t)r->T, sizeof(int));
    x->start = arena_take(a, B + 1, sizeof(int));
    x->order = arena_take(a, B, sizeof(int));
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) *tokens[i] = arena_take(a, P, sizeof(float));
    x->scratch = arena_take(a, P + 2 * B, sizeof(float));
    x->raw_score = arena_take(a, B, sizeof(float));
    x->score = arena_take(a, B, sizeof(float));
    x->text = arena_take(a, B, sizeof *x->text);
    x->response = arena_take(a, B, sizeof *x->response);
    x->text_length = arena_take(a, B, sizeof(size_t));
    x->query_length = arena_take(a, B, sizeof(size_t));
    x->response_length = arena_take(a, B, sizeof(size_t));
}

static int most_rows(const Run *r) { return larger(o.chunk, o.mini_batch_size) * (r->T - 1); }

static void batch_carve(Run *r, Batch *k, Arena *a) {
    size_t C = (size_t)r->config.stack.C, W = (size_t)o.mini_batch_size * (size_t)o.response_max;
    size_t most = (size_t)larger(o.chunk, o.mini_batch_size) * (size_t)o.response_max;
    float **const tokens[] = { &k->old_logprob, &k->advantage, &k->old_value, &k->returns, &k->new_logprob, &k->entropy, &k->value, &k->dvalue };
    k->hidden = arena_take(a, most * C, sizeof(float));
    k->other_hidden = o.kl_penalty == KL_FULL ? arena_take(a, most * C, sizeof(float)) : NULL;
    k->dhidden = arena_take(a, W * C, sizeof(float));
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) *tokens[i] = arena_take(a, W, sizeof(float));
}

/* What is trained becomes one list, so that one optimizer holds its moments. */
static void list_trained(Run *r) {
    const Tensor *list = r->adapter ? r->lora.tensor : r->policy.tensor;
    int n = r->adapter ? r->lora.tensors : r->policy.tensors;
    r->trained = take(r, (size_t)n + 2, sizeof *r->trained);
    memcpy(r->trained, list, (size_t)n * sizeof *list);
    memcpy(r->trained + n, r->head.tensor, sizeof r->head.tensor);
    r->trained_count = n + 2;
}

/* Policy, reference, adapters, value head. */
static void carve_policy(Run *r, Arena *a, size_t *mark) {
    int lora = o.lora_r > 0 || o.adapter;
    must(model_carve(&r->policy, &r->config, &r->types, !lora, r->T, &r->pool, a, &r->err), &r->err, NULL);
    part(r, a, mark, lora ? "policy (frozen; also the reference)" : "policy and gradients");
    r->reference = &r->policy;
    r->reference_adapter = NULL;
    r->adapter = lora ? &r->lora : NULL;
    if (lora) {
        LoraConfig c = o.adapter ? r->start_lora.config : lora_config(o.lora_r, (float)o.lora_alpha, o.lora_targets);
        if (!o.adapter) c.rslora = o.rslora;
        must(lora_carve(&r->lora, r->policy.tensor, r->policy.tensors, &c, 1, &r->pool, a, &r->err), &r->err,
             "--lora-targets q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj");
        part(r, a, mark, "LoRA adapter and gradients");
        if (o.adapter) {
            must(lora_carve(&r->start_lora, r->policy.tensor, r->policy.tensors, &c, 0, &r->pool, a, &r->err), &r->err, NULL);
            r->reference_adapter = &r->start_lora;
            part(r, a, mark, "reference adapter (frozen)");
        }
    } else {
        must(model_carve(&r->frozen, &r->config, &r->types, 0, r->T, &r->pool, a, &r->err), &r->err, NULL);
        r->reference = &r->frozen;
        part(r, a, mark, "reference (frozen copy)");
    }
    value_head_carve(&r->head, r->config.stack.C, 1, a);
    list_trained(r);
    optimizer_carve(&r->optimizer, r->trained, r->trained_count, a);
    part(r, a, mark, "value head, Adam's moments");
}

static void carve(Run *r, Arena *a) {
    size_t mark = a->used;
    carve_policy(r, a, &mark);
    if (!o.reward_text) {
        WeightTypes types = { F32, F32, 0, 0, 0, o.quant.compute };
        must(reward_carve(&r->judge, &r->judge_config, &types, TRAIN_NOTHING, &r->pool, a, &r->err), &r->err, NULL);
        r->judge_batch.logits = arena_take(a, (size_t)o.chunk * (size_t)r->judge_config.labels, sizeof(float));
        part(r, a, &mark, "judge (frozen)");
    }
    cache_carve(&r->cache, &r->config.stack, r->config.stack.L, larger(o.chunk, o.mini_batch_size), r->T, a);
    part(r, a, &mark, "keys and values");
    saved_carve(&r->saved, &r->config.stack, o.mini_batch_size * (r->T - 1), o.mini_batch_size * o.response_max, o.quant.recompute, a);
    part(r, a, &mark, "activations saved for backward");
    batch_carve(r, &r->batch, a);
    rollout_carve(r, &r->rollout, a);
    part(r, a, &mark, "rollout and mini-batch");
}

/* The largest work space that any call of a run can want: the same calls with the longest sequences and texts, measuring. */
static size_t measure_workspace(Run *r) {
    PoolMark pool = pool_mark(&r->pool);
    const Writing writing = { r->adapter, &r->head, { (float)o.temperature, 0, 1 }, NULL, NULL };
    const HeadTask read = { NULL, (float)o.temperature, NULL, NULL, NULL, NULL, NULL };
    const HeadTask learn = { NULL, (float)o.temperature, NULL, NULL, token_loss, NULL, NULL };
    int n = larger(o.chunk, o.mini_batch_size), *token = take(r, (size_t)r->T, sizeof *token), code;
    Sequence *seq = take(r, (size_t)n, sizeof *seq);
    Batch *k = &r->batch;
    Arena ws;
    memset(&ws, 0, sizeof ws);
    for (int i = 0; i < n; i++) {
        seq[i].token = token;
        seq[i].prompt = seq[i].length = r->T - o.response_max;
        seq[i].capacity = r->T;
    }
    code = model_generate(&r->policy, &writing, seq, o.chunk, &r->cache, &ws);
    for (int i = 0; i < n; i++) seq[i].length = r->T;
    Rows rows = fill_rows(k, seq, NULL, o.chunk);
    if (!code) code = model_forward(r->reference, r->reference_adapter, &rows, &r->cache, NULL, k->hidden, &ws);
    if (!code) code = model_logprobs(r->reference, k->hidden, k->W, &read, &ws);
    if (!code && o.kl_penalty == KL_FULL) code = model_forward(&r->policy, r->adapter, &rows, &r->cache, NULL, k->hidden, &ws);
    if (!code && o.kl_penalty == KL_FULL)
        code = model_full_kl(&r->policy, k->hidden, r->reference, k->hidden, k->W, (float)o.temperature, NULL, &ws);
    rows = fill_rows(k, seq, NULL, o.mini_batch_size);
    if (!code) code = model_forward(&r->policy, r->adapter, &rows, &r->cache, &r->saved, k->hidden, &ws);
    if (!code) code = model_logprobs(&r->policy, k->hidden, k->W, &learn, &ws);
    model_values(&r->head, k->hidden, NULL, k->W, &ws);
    model_values_backward(&r->head, NULL, k->hidden, NULL, k->W, &ws);
    if (!code) code = model_backward(&r->policy, r->adapter, &rows, &r->cache, &r->saved, NULL, &ws);
    if (!code && !o.reward_text) {          /* one text of the longest kind, the others short */
        JudgeBatch *j = &r->judge_batch;
        int longest = reward_max_tokens(&r->judge_config);
        for (int i = 0; i <= o.chunk; i++) j->start[i] = i ? smaller(longest + i - 1, r->judge_rows) : 0;
        j->start[o.chunk] = r->judge_rows;
        Texts texts = { r->judge_rows, o.chunk, j->token, j->start };
        for (int i = 0; i < r->judge_rows; i++) j->token[i] = r->judge_config.bos;
        code = reward_forward(&r->judge, NULL, &texts, NULL, r->judge_batch.logits, &ws);
    }
    must(code, NULL, "report this as a bug: measuring failed");
    pool_release(&r->pool, pool);
    return ws.peak;
}

/* The integer lists of a forward: small, and needed with real contents while measuring, so they come from the pool. */
static void take_lists(Run *r) {
    size_t N = (size_t)most_rows(r);
    Batch *k = &r->batch;
    k->token = take(r, N, sizeof(int));
    k->sequence = take(r, N, sizeof(int));
    k->position = take(r, N, sizeof(int));
    k->target = take(r, N, sizeof(int));
    k->wants = take(r, N, 1);
    if (!o.reward_text) {
        int longest = reward_max_tokens(&r->judge_config);
        r->judge_rows = larger(longest, 1024 + o.chunk);
        r->judge_batch.token = take(r, (size_t)r->judge_rows, sizeof(int));
        r->judge_batch.start = take(r, (size_t)o.chunk + 1, sizeof(int));
    }
    r->history = take(r, (size_t)o.steps + 1, sizeof(double));
}

/* ---- setting up ---- */

static void check_options(void) {
    if (o.top_k != 0) usage_error("--top-k is refused: the loss would need log-probs of the cut distribution, and the policy could never learn "
                                  "tokens that it may not sample", "sample with --temperature alone");
    if (o.top_p != 1) usage_error("--top-p is refused: the loss would need log-probs of the cut distribution, and the policy could never learn "
                                  "tokens that it may not sample", "sample with --temperature alone");
    if (o.dropout != 0) usage_error("--dropout is refused: the ratio of new to old log-probs would be noise", "dropout is for sft and rm");
    if (o.query_min > o.query_max) usage_error("--query-min is larger than", "--query-max");
    if (o.response_min > o.response_max) usage_error("--response-min is larger than", "--response-max");
    if ((long long)o.mini_batch_size * o.accumulation > o.batch_size)
        usage_error("--mini-batch-size times --gradient-accumulation-steps is larger than", "--batch-size");
    if (o.score_norm && !o.score_scaling) usage_error("--use-score-norm only works with", "--use-score-scaling");
    if (o.score_normalize && !o.eval_queries) usage_error("--score-normalize needs an evaluation before training:", "--eval-queries");
    if (o.adapter && (cli_given(&program, "lora-r") || cli_given(&program, "lora-alpha") || cli_given(&program, "lora-targets")))
        usage_error("the adapter's own config says its rank, alpha and targets: leave --lora-... out with", "--adapter");
    quant_options_check(&program, &o.quant, &o.lora_r, &o.lora_targets, o.adapter != NULL);
    if (!strcmp(o.lora_targets, "all-linear")) o.lora_targets = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj";
    if (!o.adapter && !o.lora_r && (cli_given(&program, "lora-alpha") || cli_given(&program, "lora-targets")))
        usage_error("--lora-alpha and --lora-targets need a rank", "--lora-r");
    if (o.reward_text && !o.reward_text[0]) usage_error("nothing to count", "--reward-text");
    if ((long long)o.batch_size * ((long long)o.query_max + o.response_max + 1) > INT_MAX / 4)
        usage_error("too many tokens in a batch; one of these is too large", "--batch-size, --query-max, --response-max");
    if (o.lr <= 0 && o.steps > 0) usage_error("nothing is learned with", "--learning-rate 0");
    if (o.adaptive && o.horizon <= 0.2 * o.batch_size)      /* the controller moves by up to 0.2 batch / horizon at a time */
        usage_error("one batch would take the KL coefficient to 0 or below it: a fifth of --batch-size has to be less than", "--horizon");
    o.chunk = smaller(o.chunk, o.batch_size);
}

/* Which of the judge's outputs is the reward: --label's, or the one that label_find knows for it. */
static int choose_label(Run *r) {
    char names[256];
    int found = label_find(&r->judge_config, o.label);
    if (found >= 0) return found;
    label_names(&r->judge_config, names, sizeof names);
    fail(&r->err, E_ARGUMENT, o.label ? "the judge has no such label" : "which of the judge's labels is the reward?", names, 0, 0);
    die(&r->err, "--label NAME, with one of these names");
    return -1;
}

static void prepare_policy(Run *r) {
    int before, after;
    must(config_load(&r->config, o.policy, &r->pool, &r->err), &r->err, "--policy FOLDER, a Hugging Face Llama folder");
    r->tokenizer = tokenizer_open(o.tokenizer ? o.tokenizer : o.policy, &r->pool, &r->err);
    if (!r->tokenizer) die(&r->err, "--tokenizer PATH, when the policy's folder has none");
    if (tokenizer_size(r->tokenizer) > r->config.V) {
        fail(&r->err, E_SHAPE, "the tokenizer has more ids than the policy", o.policy, tokenizer_size(r->tokenizer), r->config.V);
        die(&r->err, "the tokenizer that the policy was trained with");
    }
    quant_options_types(&r->types, &program, &o.quant, o.policy, !o.lora_r && !o.adapter, &r->pool);
    tokenizer_template(r->tokenizer, &before, &after);
    r->bos = before ? tokenizer_specials(r->tokenizer).bos : -1;
    r->T = before + o.query_max + o.response_max;
    if (r->T > r->config.positions) {
        fail(&r->err, E_RANGE, "query and response are longer than the policy's positions", o.policy, r->T, r->config.positions);
        die(&r->err, "a smaller --query-max or --response-max");
    }
    if (o.adapter) must(adapter_config_load(&r->start_lora.config, o.adapter, &r->pool, &r->err), &r->err, "--adapter RUN, a PEFT adapter's folder");
}

static void prepare_judge(Run *r) {
    if (o.reward_text) return;
    must(reward_config_load(&r->judge_config, o.reward, &r->pool, &r->err), &r->err, "--reward FOLDER, or --reward-text TEXT");
    r->judge_tokenizer = tokenizer_open(o.reward, &r->pool, &r->err);
    if (!r->judge_tokenizer) die(&r->err, "a judge's folder with its tokenizer");
    if (tokenizer_size(r->judge_tokenizer) > r->judge_config.V) {
        fail(&r->err, E_SHAPE, "the tokenizer has more ids than the judge", o.reward, tokenizer_size(r->judge_tokenizer), r->judge_config.V);
        die(&r->err, "the tokenizer that the judge was trained with");
    }
    r->label = choose_label(r);
}

static const char *grouped(char out[32], size_t n) {        /* 1,234,567 */
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%llu", (unsigned long long)n), at = 0;
    for (int i = 0; i < length; i++) {
        if (i && (length - i) % 3 == 0) out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = 0;
    return out;
}

/* What is run: preset, models, reward, share of trained parameters. */
static void say_what(Run *r, const char *data, const char *preset) {
    const ModelConfig *c = &r->config;
    size_t trainable = tensor_values(r->trained, r->trained_count, 1), all = tensor_values(r->policy.tensor, r->policy.tensors, 0)
        + tensor_values(r->head.tensor, 2, 0) + (r->adapter ? tensor_values(r->lora.tensor, r->lora.tensors, 0) : 0);
    char number[2][32];
    printf("preset %s, seed %llu\n", preset, (unsigned long long)o.seed);
    printf("data %s: %s documents, %s held out\n", data, grouped(number[0], (size_t)r->data.count),
           grouped(number[1], (size_t)r->data.count - (size_t)r->queue.count));
    printf("policy %s: Llama, C %d, L %d, H %d, K %d, F %d, V %d\n", o.policy, c->stack.C, c->stack.L, c->stack.H, c->stack.K, c->stack.F, c->V);
    print_types(r->adapter ? "frozen weights" : "weights", &r->types);
    if (o.reward_text) printf("reward = number of '%s' in the response\n", o.reward_text);
    else {
        const RewardConfig *j = &r->judge_config;
        printf("judge %s: RoBERTa, C %d, L %d, H %d, F %d, V %d, %s parameters\n", o.reward, j->stack.C, j->stack.L, j->stack.H, j->stack.F, j->V,
               grouped(number[0], tensor_values(r->judge.tensor, r->judge.tensors, 0)));
        if (j->labels == 1) printf("reward = the judge's logit");
        else printf("reward = logit of '%s'", j->label[r->label]);
        printf(" for %s\n", o.score == SCORE_BOTH ? "query + response" : "the response alone");
    }
    if (!r->adapter) printf("training all weights; the reference is a frozen copy\n");
    else printf("training a LoRA adapter (r %d, alpha %g, %s); the reference is %s\n", r->lora.config.R, (double)r->lora.config.alpha, r->lora.config.targets,
                o.adapter ? "a frozen copy of the adapter it starts from" : "the policy without it");
    print_trainable(trainable, all);
    printf("queries of %d to %d tokens%s, responses of up to %d to %d\n", o.query_min, o.query_max, r->bos >= 0 ? " after <s>" : "",
           o.response_min, o.response_max);
}

static int has_value_head(Run *r, const char *folder) {
    PoolMark mark = pool_mark(&r->pool);
    size_t n = strlen(folder) + 32;
    char *path = take(r, n, 1);
    snprintf(path, n, "%s/value_head.safetensors", folder);
    int found = file_exists(path);
    pool_release(&r->pool, mark);
    return found;
}

static void load_weights(Run *r) {
    PoolMark mark = pool_mark(&r->pool);
    const char *value_head = o.adapter && has_value_head(r, o.adapter) ? o.adapter : has_value_head(r, o.policy) ? o.policy : NULL;
    must(checkpoint_load(o.policy, "model", r->policy.tensor, r->policy.tensors, &r->pool, &r->err), &r->err, NULL);
    if (!r->adapter) model_copy(&r->frozen, &r->policy);
    else if (!o.adapter) lora_init(&r->lora, stream(o.seed, STREAM_INIT, 0, 0).state);
    else {
        must(checkpoint_load(o.adapter, "adapter_model", r->start_lora.tensor, r->start_lora.tensors, &r->pool, &r->err),
             &r->err, NULL);
        lora_copy(&r->lora, &r->start_lora);
    }
    value_head_init(&r->head, stream(o.seed, STREAM_INIT, 0, 1).state, o.value_init == VALUE_ZERO);
    if (value_head && !cli_given(&program, "value-init")) {
        must(checkpoint_load(value_head, "value_head", r->head.tensor, 2, &r->pool, &r->err), &r->err, "--value-init zero");
        printf("value head from %s\n", value_head);
    }
    if (!o.reward_text) must(checkpoint_load(o.reward, "model", r->judge.tensor, r->judge.tensors, &r->pool, &r->err), &r->err, NULL);
    optimizer_reset(&r->optimizer);
    pool_release(&r->pool, mark);
}

/* ---- results ---- */

/* The run folder's top: a PEFT adapter, or a whole model folder when all weights were trained; and the value head. Each file is
 * written under another name and renamed, so an interruption leaves the last good ones. */
static void save_result(Run *r) {
    PoolMark mark = pool_mark(&r->pool);
    Error *err = &r->err;
    if (r->adapter) {
        must(adapter_config_save(&r->lora.config, r->folder, o.policy, &r->pool, err), err, NULL);
        must(checkpoint_save(r->folder, "adapter_model", r->lora.tensor, r->lora.tensors, o.dtype, 0, &r->pool, err), err, NULL);
    } else {
        must(config_save(&r->config, NULL, r->folder, o.dtype, &r->pool, err), err, NULL);
        must(tokenizer_save(r->tokenizer, r->folder, r->config.positions, &r->pool, err), err, NULL);
        must(checkpoint_save(r->folder, "model", r->policy.tensor, r->policy.tensors, o.dtype, 0, &r->pool, err), err, NULL);
    }
    must(checkpoint_save(r->folder, "value_head", r->head.tensor, 2, F32, 0, &r->pool, err), err, NULL);
    r->saved_step = r->step;
    pool_release(&r->pool, mark);
}

static void run_begin(Run *r, const char *data) {
    must(run_folder(r->folder, sizeof r->folder, o.out, "ppo", &r->err), &r->err, "--out FOLDER");
    snprintf(r->log_path, sizeof r->log_path, "%s/log.jsonl", r->folder);
    snprintf(r->time_path, sizeof r->time_path, "%s/time.jsonl", r->folder);
    snprintf(r->samples_path, sizeof r->samples_path, "%s/samples.jsonl", r->folder);
    log_options(r->log_path, &program, data, &r->pool);
    printf("run folder %s\n", r->folder);
}

static void train(Run *r) {
    for (r->step = 1; r->step <= o.steps && !cli_stopping(); r->step++) {
        PoolMark mark = pool_mark(&r->pool);
        step_end(r, ppo_step(r));
        if (!weights_are_numbers(r)) not_a_number(r, "the weights are no longer numbers", r->step - 1, 0);
        pool_release(&r->pool, mark);
        if (o.save_every && r->step % o.save_every == 0) save_result(r);
        if (o.eval_every && r->step % o.eval_every == 0 && r->eval.n) evaluate(r, 1);
        pool_release(&r->pool, mark);
    }
    r->step--;
    if (r->saved_step != r->step || !r->step) save_result(r);
}

static void report(Run *r, double seconds) {
    static const int mark[2] = { 3, 6 };
    if (cli_stopping()) printf("stopped: what is saved is the state after step %d; no evaluation after\n", r->step);
    else print_table(r);
    for (int i = 0; i < 2; i++)
        if (r->first_step_above[i])
            printf("  reward when KL first passed %d: %.4f (step %d)\n", mark[i], r->reward_above[i], r->first_step_above[i]);
        else if (r->step) printf("  KL never passed %d\n", mark[i]);
    printf("  %d steps in %.1f seconds; %s in %s\n", r->step, seconds,
           r->adapter ? "adapter and value head" : "model, tokenizer and value head", r->folder);
}

/* Before and after are the same queries with the same random numbers. */
static void run_all(Run *r) {
    double begin = wall_clock();
    r->gain = 1;
    r->moments.std = r->moments.var = 1;
    r->moments.count = 1e-24;
    r->kl.coef = o.kl_coef;
    r->kl.target = o.target;
    r->kl.horizon = o.adaptive ? o.horizon : 0;
    if (o.eval_queries) evaluation_begin(r);
    if (o.score_normalize && !r->eval.n)
        must(fail(&r->err, E_MISSING, "no held-out documents: no scores to normalize with", "", 0, 0), &r->err, "leave --score-normalize out");
    if (r->eval.n) {
        evaluate(r, 0);
        Summary s = summarise(r->eval.score[0], r->eval.n, r->eval.scratch);
        if (o.score_normalize) {
            if (!(s.std > 0))
                must(fail(&r->err, E_NUMBER, "all scores before training are the same: no deviation to normalize", "", 0, 0), &r->err,
                     "leave --score-normalize out");
            r->gain = 1 / s.std;
            r->bias = -s.mean / s.std;
            printf("score = %.6g * reward %+.6g\n", r->gain, r->bias);
        }
        printf("before: mean reward %.4f, median %.4f on %d held-out queries\n", s.mean, s.median, r->eval.n);
    }
    train(r);
    if (r->eval.n && !cli_stopping()) { evaluate(r, 1); write_samples(r); }
    report(r, wall_clock() - begin);
}

int main(int argc, char **argv) {
    static Run run;
    Run *r = &run;
    const char *data = NULL;
    int given = cli_parse(&program, "imdb-small", argc, argv, &data, 1);
    const char *usual = cli_given(&program, "policy") ? "trl-classic" : "imdb-small";
    given = cli_parse(&program, usual, argc, argv, &data, 1);
    if (!given) usage_error("which dataset?", "data/imdb.bin");
    check_options();
    r->pool = cli_pool();
    must(dataset_read(&r->data, data, &r->pool, &r->err), &r->err, "a dataset made by ./prep, or data/imdb.bin made by make");
    r->queue = queue_of_split(r, 0, o.seed);
    if (!r->queue.count) no_query(r);
    prepare_policy(r);
    prepare_judge(r);
    take_lists(r);

    Buffer b;                               /* the preset in force is known to the table of options alone */
    memset(&b, 0, sizeof b);
    b.pool = &r->pool;
    cli_options_json(&program, &b);
    const Json *settings = b.failed ? NULL : json_parse((const char *)b.data, b.length, &r->pool, NULL);

    Arena measure;
    memset(&measure, 0, sizeof measure);
    carve(r, &measure);
    size_t workspace = measure_workspace(r);
    say_what(r, data, json_text(settings, "preset", usual));
    for (int i = 0; i < r->parts; i++) cli_bill(r->part[i].name, r->part[i].bytes);
    cli_bill("work space", workspace);
    cli_bill("data set, tokenizers, lists", r->pool.total);
    cli_bill("the program itself", (size_t)4 << 20);    /* code, C library, stacks */
    cli_bill_total();
    if (o.dry_run) return 0;

    r->arena = cli_arena(measure.used + workspace + 64, "models and work space");
    carve(r, &r->arena);
    r->ws.base = arena_take(&r->arena, workspace + 1, 1);
    r->ws.capacity = workspace;
    must(r->arena.failed || !r->ws.base ? E_MEMORY : OK, NULL, "report this as a bug: more was carved than measured");
    load_weights(r);
    cli_interrupts();
    run_begin(r, data);
    run_all(r);
    return 0;
}
