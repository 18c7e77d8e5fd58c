/* programs/ppo.h - what ppo.c and its parts, programs/ppo_*.c, share. A function that fails ends the
 * program with a message. */
#ifndef PPO_H
#define PPO_H

#include "../programs.h"

/* ---- settings: the table of options at the end of ppo.c fills them ---- */

enum { SCORE_BOTH, SCORE_RESPONSE };
enum { LONG_REFUSE, LONG_CUT };
enum { VALUE_ZERO, VALUE_PYTORCH };
enum { VALUE_LINEAR, VALUE_MLP };
enum { ALGORITHM_PPO, ALGORITHM_GRPO, ALGORITHM_RLOO };     /* only PPO has a value head */
enum { KL_IN_REWARD, KL_IN_LOSS };

enum { JUDGES = 8 };                        /* most judges of a run */
typedef struct {
    const char *judge[JUDGES]; double judge_weight[JUDGES]; int judges;     /* --reward, read */
    const char *policy, *reward, *reward_adapter, *tokenizer, *adapter, *out, *label, *reward_text;
    const char *dump, *fallback, *reward_command, *stop, *missing_stop, *value_model;
    int score, long_response, steps, batch_size, mini_batch_size, accumulation, ppo_epochs, lr_anneal;
    int adam_tf, adaptive, no_special;
    int kl_penalty, early_stopping, whiten_rewards, biased, score_scaling, score_norm, score_normalize;
    int query_min, query_max, response_min, response_max, top_k, value_init, dtype, reward_nf4;
    int value_head;
    int algorithm, group, group_scale, kl_in, loss_mean, least, warmup_steps, value_warmup;
    int eval_queries, eval_every, show, chunk, dry_run;
    double lr, value_lr, adam_eps, max_grad_norm, kl_coef, target, horizon, gamma, lam, clip, clip_value;
    double clip_high, dual_clip, entropy_coef, weight_decay;
    double vf_coef, ratio_threshold, target_kl, score_clip, eos_penalty, temperature, top_p, dropout;
    double length_penalty, reward_timeout;
    int stop_after, best_of; double missing_stop_score;  /* the score: --missing-stop-score, read */
    QuantOptions quant;
    LoraOptions lora;
    RunOptions run;
    uint64_t seed;
} Settings;

/* ---- the state of a run ---- */

/* The documents of one split, in an order that is new in every epoch. */
typedef struct { int *document, count, next; uint64_t seed, epoch; } Queue;

/* What is watched in each step (ppo_log.c): there is a warning if it goes wrong for several steps. */
enum { WATCH_REPEATS, WATCH_ENDS, WATCH_SPREAD, WATCH_LENGTH, WATCH_VALUES, WATCH_SKIPPED, WATCH_ENTROPY,
       WATCH_KL, WATCH_NEGATIVE_KL, WATCHES };

/* What changes from step to step, besides the weights: ppo_state.c writes it to the file from which a stopped
 * run goes on. */
enum { HISTORY = 24 };
typedef struct {
    int step;                               /* the step in progress, or the last finished one */
    Queue queue;                            /* the training documents, and the next one to use */
    Optimizer optimizer;
    KlController kl;
    Moments moments;                        /* running mean and variance of the scores */
    double gain, bias;                      /* score = gain * reward + bias */
    double history[HISTORY];                /* mean rewards of the last steps */
    int watched[WATCHES];                   /* how many steps in a row each has gone wrong */
    int evaluated;                          /* the step after which --eval-every has evaluated last */
    BestSave best;                          /* the largest mean reward of an evaluation */
} Progress;

/* A judge of the run. */
typedef struct {
    Judge judge;
    double weight;                          /* of its logit in the reward */
    int label;                              /* index of the output that counts */
    int adds_bos, adds_eos;                 /* 1: its template puts bos before (eos after) a text */
    int most;                               /* most tokens of a text that it reads, without bos and eos */
} Scorer;

/* The model of --value-model, all of whose weights learn: a causal judge of one output. */
typedef struct {
    RewardConfig config; RewardModel model;
    int new_head;                           /* 1: the folder has no head of one output, or none is wanted */
} ValueModel;

/* The models: what is trained, what stays frozen, and their tokenizers; and the settings of the run. */
typedef struct {
    const Settings *o;
    ModelConfig config; Tokenizer *tokenizer;
    WeightTypes types;                      /* number types of the policy's weights; F32 if trained */
    Model policy, frozen;                   /* frozen: the reference when all weights are trained */
    LoraConfig lora_config;
    Lora lora, start_lora;                  /* start_lora: a frozen copy of --adapter, for the reference */
    const Lora *adapter;                    /* &lora, or NULL when all weights are trained */
    const Model *reference; const Lora *reference_adapter;
    ValueHead head; int head_layers;
    const char *head_from;                  /* the folder whose value head is the start; NULL: a new head */
    const ValueHead *values;                /* &head; NULL with a value model, or if there are no values */
    ValueModel value_model;                 /* with --value-model */
    Tensor *trained; /* the tensors that Adam changes: the policy's, then the value head's or model's */
    int trained_policy, trained_all;        /* how many of them are the policy's, and how many there are */
    Scorer scorer[JUDGES]; int scorers;
    const Scorer *toxicity;                 /* whose other outputs together are toxicity, or NULL */
    int T, bos; /* T: most tokens of query and response; bos: the id before a query, or -1 */
    /* a policy with an encoder reads the query there, and its sequences have `start` and the response.
     * Q: most tokens of a query (0: no encoder); after: the id after a query, or -1 */
    int Q, after;
    /* rows of the soft prompt before each sequence; before each query that an encoder reads */
    int soft, text_soft;
} Models;

/* B responses with everything known about them. Arrays (P) hold the tokens of all responses, one response
 * after another (rl.c's ragged layout). */
typedef struct {
    int B, P, *start, *order; /* start (B+1); order (B): the responses as an epoch shuffles them */
    int queries_cut, responses_cut;         /* texts that the judge read without their first tokens */
    Sequence *seq;                          /* (B) query and response */
    int *token;                             /* (B,T) */
    unsigned char *stopped;                 /* (B) 1: the response ends with --stop */
    int *query, *asked;                     /* with an encoder: queries (B,Q), and their lengths (B) */
    float *seq_logprob, *seq_value;         /* (B,response_max), filled by the sampler */
    float *logprob, *value, *ref_logprob, *full_kl, *kl, *reward, *advantage, *returns;   /* (P) */
    unsigned char *kept;                    /* (B,response_max,kept_bytes): what was drawn from */
    float *scratch;                         /* (P+2B) */
    float *raw_score, *score;               /* (B) from the judge; as PPO uses it */
    double judge_mean[JUDGES];              /* the mean logit of each judge */
    float *toxicity;                        /* (B) 1 - the probability of the label that is the reward */
    const char **text, **response;          /* (B) text: of query and response; response: of it alone */
    size_t *text_length, *query_length, *response_length;
} Rollout;

/* The rows of one forward (N rows, of which W predict response tokens), and the arrays of a mini-batch. */
typedef struct {
    RowList rows;
    float *hidden, *other_hidden, *dhidden; /* (W,C) */
    float *old_logprob, *advantage, *ref_logprob, *weight, *dentropy, *new_logprob, *entropy;       /* (W) */
    float *old_value, *returns, *value, *dvalue;    /* (W) */
    int *start, *want;                      /* (n+1) (W) of the texts that a value model reads */
    const unsigned char **kept; size_t set; /* (W) the rollout's sets of tokens, or NULL; bytes of one */
} Batch;

/* The texts of one forward of the judge. tokens: how many are in it; room: how many fit. */
typedef struct { float *logits; int *token, *start, tokens, room; } JudgeBatch;

/* The queries that an encoder reads: n of them, one after another, and what it makes of them when sampling
 * and scoring, and in training. */
typedef struct { int *token, *start; Reading seen, learned; } Queries;

/* The held-out queries, with responses and scores before [0] and after [1] training. */
typedef struct {
    int n, *token, *prompt, *capacity;
    const char **query, **response[2], **reference;     /* reference: NULL if the dataset has none */
    size_t *query_length, *response_length[2], *reference_length;
    float *score[2], *kl[2], *scratch;
    float *toxicity;                        /* of the last evaluation */
    long long bigrams[2];
    int queries_cut, responses_cut;         /* in the last evaluation */
} Evaluation;

enum { GENERATE, SCORE, REFERENCE, ADVANTAGES, OPTIMIZE, LAPS };
typedef struct {                            /* about the step in progress */
    PpoStats stats;                         /* sums over all updates */
    double first_deviation;                 /* the first update's largest |ratio - 1| */
    double grad_norm, value_norm;           /* sums over all updates; value_norm: of a value model */
    double clock, seconds[LAPS];            /* clock: when the last lap ended */
    int updates, skipped, epochs;
} Statistics;

/* The rest of a run: memory, dataset, rollout, evaluation, and the folder that is written. */
typedef struct {
    Pool pool;
    Arena ws;
    Error err;
    Dataset data;
    Cache cache;
    Saved saved;
    RewardSaved value_saved;                /* of a value model */
    Batch batch;
    JudgeBatch judge;
    Queries queries;
    Rollout rollout;
    Evaluation eval;
    Statistics now;
    RunFolder out;
    char samples[540];
    long long dumped;                       /* bytes of the file of --dump-rollouts at the last save */
    int told_cut;                           /* 1: warn_cut has warned */
    Health health;
    /* hashes of the reference, its adapter, the judges, their adapters; 0: not known yet */
    uint64_t frozen[4];
    void *run;                              /* the Whole that this is a part of */
    Queue before;                           /* the queue as it was before the step in progress */
    int in_step;                            /* 1: a step has drawn its queries and is not finished */
} Work;

/* Progress, Models and Work, for the functions that train.c calls (carve, workspace). */
typedef struct { Progress progress; Models models; Work work; } Whole;

static inline int larger(int a, int b) { return a > b ? a : b; }
static inline int smaller(int a, int b) { return a < b ? a : b; }
static inline int is_number(double x) { return x - x == 0; }
/* Returns the options that --resume does not take from the run: no file can start a command. */
static inline const char *repeated_options(const Settings *o) {
    return o->reward_command ? " --reward-command COMMAND" : "";
}
/* Returns 1 if there are values: of a value head, or of a value model. */
static inline int has_values(const Settings *o) { return o->algorithm == ALGORITHM_PPO; }
/* Returns how many responses have the same query. */
static inline int group_size(const Settings *o) { return o->algorithm == ALGORITHM_PPO ? 1 : o->group; }
/* Returns 1 if the sampler does not draw from the whole vocabulary, and so stores what it draws from. */
static inline int keeps_sets(const Settings *o) { return o->top_k > 0 || o->top_p < 1 || o->least > 0; }
static inline Sampling sampling_of(const Settings *o) {
    const Sampling s = { (float)o->temperature, o->top_k, (float)o->top_p };
    return s;
}
/* Returns the learning rate of a step: rises to `rate` in --warmup-steps, then follows --lr-anneal. */
static inline double rate_at(const Settings *o, double rate, int step) {
    const int w = o->warmup_steps;
    return step <= w ? rate * step / (w + 1) : learning_rate(o->lr_anneal, rate, 0, step - w, o->steps - w);
}

/* ---- ppo_queries.c ---- */
enum { STREAM_ORDER = 1, STREAM_QUERY, STREAM_SAMPLE, STREAM_EPOCH, STREAM_INIT };
/* Returns the random numbers of a purpose (STREAM_...), of a step, of one thing in it. */
Rng stream(uint64_t seed, int purpose, uint64_t step, uint64_t index);
int draw_between(Rng *rng, int low, int high);      /* returns a whole number from low to high */
/* Returns the documents of a split (0: training, 1: held out), shuffled. */
Queue queue_of_split(Work *w, int split, uint64_t seed);
/* Writes the query of the next document that gives one to token (room for 1 + query_max + 1). Returns the
 * query's size. once 1: returns 0 after the last document. once 0: begins a new epoch there, and returns 0
 * only if a whole epoch gave no query. */
int next_query(const Models *m, Work *w, Queue *q, int length, int once, int *token);
/* Counts the training documents that give a query of the largest size, but no more than a step needs. Prints
 * the count if it is less than that; dies if it is 0, so that no later step can lack a query. */
void check_queries(const Models *m, Work *w, const Queue *q);
/* Returns how many tokens a query may have, and where that of response b begins: in its sequence, or with an
 * encoder in an array of its own. query_tokens returns its tokens, and sets *n to their number. */
int query_room(const Models *m);
int *query_place(const Models *m, const Rollout *x, int b);
const int *query_tokens(const Models *m, const Rollout *x, int b, int *n);
/* Prepares sequence b of x for sampling. Its query of `prompt` tokens is already in its place; up to
 * `response` tokens may follow. */
void sequence_begin(const Models *m, Rollout *x, int b, int prompt, int response, Rng rng);
/* Prepares a sequence for each response of the step: the next query, with lengths drawn at random. */
void draw_queries(Progress *p, const Models *m, Work *w);

/* ---- ppo_state.c ---- */
void ppo_state(void *run, State *s);                /* a StateVisit; run: a Whole, after evaluation_begin */

/* ---- ppo_save.c ---- */
/* Returns what saves the result, and with ppo_state the state too; NULL: between two steps there is none. */
Saver ppo_saver(Work *w, StateVisit state);
void save_result(const Progress *p, Work *w, int last);     /* saves result and state, after a step */
/* Ends the run because a NaN or an infinity came up; `what` is the message. good 1: the weights are still
 * those after the previous step (of an evaluation, after this one), and they are saved. good 0: the last save
 * stays. hint: the advice, or NULL for the usual one. */
void not_a_number(const Progress *p, const Models *m, Work *w, const char *what, int good,
                  const char *hint);
/* Ends the run because of w->err, which the judge has caused; hint: the advice. The policy's weights are
 * numbers. They are saved with the state before the step in progress, so that the run can go on. */
void judge_failed(Work *w, const char *hint);

/* ---- ppo_command.c ---- */
/* Starts the command of --reward-command (text), to which command_scores writes the responses of x, and from
 * which it reads their scores (B). OK, or a code and *err. */
int command_begin(const char *text, Error *err);
int command_scores(const Settings *o, const Rollout *x, float *score, Pool *pool, Error *err);

/* ---- ppo_rollout.c ---- */
/* Lets the policy's encoder, if it has one, read the queries of n responses: which[i], or first + i if which
 * is NULL. Afterwards the cache's sequence i reads query i. OK or the model's error. */
int read_queries(const Models *m, Work *w, const Model *policy, const Lora *adapter, const int *which,
                 int first, int n);
/* Samples all responses, then copies their log-probs and values into the arrays (P). */
void sample_responses(const Progress *p, const Models *m, Work *w);
/* Fills the batch with the rows of n sequences: seq[which[i]], or seq[i] if which is NULL, each after `soft`
 * rows of a soft prompt; and with the sets of their tokens, if they are stored. */
Rows fill_rows(Batch *k, const Sequence *seq, const int *which, int n, int soft);
/* Lays out what a value model reads of n sequences (as for fill_rows): query and response, without a soft
 * prompt. *want: the rows that predict a response token. Uses the rows of k. */
Texts value_texts(Batch *k, Wanted *want, const Sequence *seq, const int *which, int n);
void value_responses(const Progress *p, const Models *m, Work *w);      /* the value model's values */
/* Computes the responses' log-probs under the reference, and for --kl-penalty full the exact KL to it. Ends
 * the run if one is not a number. */
void reference_logprobs(const Progress *p, const Models *m, Work *w);
/* Ends the run if a token's KL penalty, reward, advantage or return is not a number. */
void check_tokens(const Progress *p, const Models *m, Work *w);
/* Appends this step's responses to the file of --dump-rollouts, a JSON line for each. */
void dump_rollout(const Progress *p, const Models *m, Work *w);
/* Makes that file as long as it was when the run that goes on was saved. */
void dump_resume(const Models *m, Work *w);

/* ---- ppo_judge.c ---- */
int ends_in_eos(const Models *m, const Sequence *seq);      /* returns 1 or 0 */
/* Fills raw_score from the judge or --reward-text, and score = gain * raw_score + bias, minus the
 * penalty if the response has no EOS. */
void score_responses(const Progress *p, const Models *m, Work *w);
/* Ends the run if a score is so large that training from it would give infinities. */
void check_scores(const Models *m, Work *w);

/* ---- ppo_update.c ---- */
/* Sets dloss/dlogprob of n tokens: HeadTask's loss. */
void token_loss(void *context, int first, int n, const float *logprob, float *dlogprob);
/* Makes one update from n responses: the gradients of the loss (--loss-mean), then Adam.
 * Returns the mean policy KL of these tokens. */
double update(Progress *p, const Models *m, Work *w, const int *which, int n);

/* ---- ppo_log.c ---- */
#define SMALLER_MOVES "a smaller --learning-rate, a larger --init-kl-coef, or --max-grad-norm 1"
double mean(const float *x, int n);                 /* returns the mean of n numbers; 0 of none */
void check_health(const Models *m, Work *w);        /* judges the policy by its last responses */
/* Ends a step: writes the log, shows the progress, warns, and updates the KL coefficient. */
void step_end(Progress *p, const Models *m, Work *w, double kl);

/* ---- ppo_evaluate.c ---- */
void evaluation_begin(const Models *m, Work *w);    /* makes the evaluation's queries */
/* Fills slot k of the evaluation with the policy's responses, their scores and their KL. The texts stay in
 * the pool. */
void evaluate(const Progress *p, const Models *m, Work *w, int k);
/* Scores the best of --best-of responses to each query, that of slot 0 included. */
void evaluate_best(const Progress *p, const Models *m, Work *w);
void write_samples(Work *w);                        /* writes both slots to samples.jsonl */

/* ---- ppo_memory.c ---- */
void carve(void *run, Arena *a, Bill *bill);        /* RunMemory's functions; run: a Whole */
size_t workspace(void *run);

/* ---- ppo_open.c ---- */
void prepare_policy(Models *m, Work *w, const Program *p);
void prepare_value_model(Models *m, Work *w, const Program *p);     /* if there is one */
void prepare_judges(Models *m, Work *w, const Program *p);
/* Dies if the judge cannot read texts that are as long as responses can be, unless --long-response is cut. */
void check_responses(const Models *m, Work *w, const Queue *q);
/* Prints the models, the reward and the share of trained parameters. */
void say_what(const Models *m, const Work *w, const Queue *training, const char *data);
void load_weights(Models *m, Optimizer *optimizer, Pool *pool);    /* all of them, and new ones */

#endif
