/* ppo.c - stage 3 of RLHF: a policy writes, a judge scores, PPO moves the policy towards texts that score
 * well, and a KL penalty keeps it near where it started. ./ppo DATA [--policy DIR] [--reward DIR]
 *
 * Read     ppo_step(): one step of the algorithm on one screen. The functions that it calls follow in the
 *          order of the calls. The arithmetic is in rl.c, the forward in model.c, the table of results in
 *          report.c; the options are at the end.
 * Source   Ziegler et al. 2019, Schulman et al. 2017; options and statistics have the names of TRL 0.11.4's
 *          PPOTrainer.
 * Needs    a dataset (prep), a policy's folder (sft), a judge's folder (rm) or --reward-text. All memory
 *          is measured first and reserved once.
 * Exact    the old log-probs and values are those that the sampler computed. Training computes the same
 *          bits again, so all ratios are exactly 1 in the first update of a step. The log has the first
 *          update's largest deviation from 1 (first_ratio_max_deviation), which has to be 0.
 * Edges    EOS belongs to the response and ends it. A query is the first tokens of a document, or all tokens
 *          of a prompt, after <s> if the tokenizer's template has one. Documents that are not longer than
 *          the query are skipped. Every random number comes from a stream of (seed, purpose, step, index),
 *          so neither batch sizes nor threads change a sample. */
#include "programs.h"
#include <stdio.h>

/* ---- settings: the table of options at the end of this file fills them ---- */

enum { SCORE_BOTH, SCORE_RESPONSE };
enum { LONG_REFUSE, LONG_CUT };
enum { VALUE_ZERO, VALUE_PYTORCH };

static struct {
    const char *policy, *reward, *tokenizer, *adapter, *out, *label, *reward_text, *dump, *fallback;
    int score, long_response, steps, batch_size, mini_batch_size, accumulation, ppo_epochs, lr_anneal;
    int adam_tf, adaptive, no_special;
    int kl_penalty, early_stopping, whiten_rewards, biased, score_scaling, score_norm, score_normalize;
    int query_min, query_max, response_min, response_max, top_k, value_init, dtype, reward_nf4;
    int eval_queries, eval_every, save_every, show, chunk, dry_run;
    double lr, value_lr, adam_eps, max_grad_norm, kl_coef, target, horizon, gamma, lam, clip, clip_value;
    double vf_coef, ratio_threshold, target_kl, score_clip, eos_penalty, temperature, top_p, dropout;
    QuantOptions quant;
    LoraOptions lora;
    uint64_t seed;
} o;

/* ---- the state of a run ---- */

/* The documents of one split, in an order that is new in every epoch. */
typedef struct { int *document, count, next; uint64_t seed, epoch; } Queue;

/* What changes from step to step, besides the weights. No program resumes a run yet;
 * resuming will need it. */
enum { HISTORY = 24 };
typedef struct {
    int step;                               /* the step in progress, or the last finished one */
    Queue queue;                            /* the training documents, and the next one to use */
    Optimizer optimizer;
    KlController kl;
    Moments moments;                        /* running mean and variance of the scores */
    double gain, bias;                      /* score = gain * reward + bias */
    double history[HISTORY];                /* mean rewards of the last steps */
} Progress;

/* The models: what is trained, what stays frozen, and their tokenizers. */
typedef struct {
    ModelConfig config; Tokenizer *tokenizer;
    WeightTypes types;                      /* number types of the policy's weights; F32 if trained */
    Model policy, frozen;                   /* frozen: the reference when all weights are trained */
    LoraConfig lora_config;
    Lora lora, start_lora;                  /* start_lora: a frozen copy of --adapter, for the reference */
    const Lora *adapter;                    /* &lora, or NULL when all weights are trained */
    const Model *reference; const Lora *reference_adapter;
    ValueHead head;
    Tensor *trained; /* the tensors that Adam changes: the policy's, then the value head's */
    int trained_policy, trained_all;        /* how many of them are the policy's, and how many there are */
    RewardConfig judge_config; RewardModel judge; WeightTypes judge_types; Tokenizer *judge_tokenizer;
    int label;                              /* index of the judge's output that is the reward */
    int adds_bos, adds_eos;                 /* 1: its template puts bos before (eos after) a text */
    int judge_most;                         /* most tokens of a text that it reads, without bos and eos */
    int T, bos; /* T: most tokens of query and response; bos: the id before a query, or -1 */
    /* a policy with an encoder reads the query there, and its sequences have `start` and the response.
     * Q: most tokens of a query (0: no encoder); after: the id after a query, or -1 */
    int Q, after;
} Models;

/* B responses with everything known about them. Arrays (P) hold the tokens of all responses, one response
 * after another (rl.c's ragged layout). */
typedef struct {
    int B, P, *start, *order; /* start (B+1); order (B): the responses as an epoch shuffles them */
    int queries_cut, responses_cut;         /* texts that the judge read without their first tokens */
    Sequence *seq;                          /* (B) query and response */
    int *token;                             /* (B,T) */
    int *query, *asked;                     /* with an encoder: queries (B,Q), and their lengths (B) */
    float *seq_logprob, *seq_value;         /* (B,response_max), filled by the sampler */
    float *logprob, *value, *ref_logprob, *full_kl, *kl, *reward, *advantage, *returns;   /* (P) */
    float *scratch;                         /* (P+2B) */
    float *raw_score, *score;               /* (B) from the judge; as PPO uses it */
    const char **text, **response;          /* (B) text: of query and response; response: of it alone */
    size_t *text_length, *query_length, *response_length;
} Rollout;

/* The rows of one forward (N rows, of which W predict response tokens), and the arrays of a mini-batch. */
typedef struct {
    RowList rows;
    float *hidden, *other_hidden, *dhidden; /* (W,C) */
    float *old_logprob, *advantage, *old_value, *returns, *new_logprob, *entropy, *value, *dvalue;  /* (W) */
} Batch;

/* The texts of one forward of the judge. tokens: how many are in it; room: how many fit. */
typedef struct { float *logits; int *token, *start, tokens, room; } JudgeBatch;

/* The queries that an encoder reads: n of them, one after another, and what it makes of them when sampling
 * and scoring, and in training. */
typedef struct { int *token, *start; Reading seen, learned; } Queries;

/* The held-out queries, with responses and scores before [0] and after [1] training. */
typedef struct {
    int n, *token, *prompt, *capacity;
    const char **query, **response[2];
    size_t *query_length, *response_length[2];
    float *score[2], *kl[2], *scratch;
    long long bigrams[2];
    int queries_cut, responses_cut;         /* in the last evaluation */
} Evaluation;

enum { GENERATE, SCORE, REFERENCE, ADVANTAGES, OPTIMIZE, LAPS };
typedef struct {                            /* about the step in progress */
    PpoStats stats;                         /* sums over all updates */
    double first_deviation;                 /* the first update's largest |ratio - 1| */
    double grad_norm;                       /* the sum over all updates */
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
    Batch batch;
    JudgeBatch judge;
    Queries queries;
    Rollout rollout;
    Evaluation eval;
    Statistics now;
    RunFolder out;
    char samples[540];
    int told_cut;                           /* 1: warn_cut has warned */
    Health health;
} Work;

/* Progress, Models and Work, for the functions that train.c calls (carve, workspace). */
typedef struct { Progress progress; Models models; Work work; } Whole;

static void step_begin(Statistics *now);
static void lap(Statistics *now, int part);
static void draw_queries(Progress *p, const Models *m, Work *w);
static void sample_responses(const Progress *p, const Models *m, Work *w);
static void score_responses(const Progress *p, const Models *m, Work *w);
static void reference_logprobs(const Models *m, Work *w);
static void dump_rollout(const Progress *p, const Models *m, Work *w);
static double update(Progress *p, const Models *m, Work *w, const int *which, int n);
static void not_a_number(const Progress *p, const Models *m, Work *w, const char *what, int good);
static void score_not_a_number(const Progress *p, const Models *m, Work *w);

enum { STREAM_ORDER = 1, STREAM_QUERY, STREAM_SAMPLE, STREAM_EPOCH, STREAM_INIT };
static Rng stream(uint64_t seed, int purpose, uint64_t step, uint64_t index) {
    return rng_stream(seed + (uint64_t)purpose * 0x9e3779b97f4a7c15u, step, index);
}
static int larger(int a, int b) { return a > b ? a : b; }
static int smaller(int a, int b) { return a < b ? a : b; }
static int is_number(double x) { return x - x == 0; }

/* ---- the algorithm ---- */

enum { KEEP_MEAN, SHIFT_MEAN };             /* the argument shift_mean of whiten */

/* Makes one step of PPO. Returns objective/kl: the chosen penalty (--kl-penalty) without the coefficient,
 * summed over the tokens of a response, as the mean over all responses. */
static double ppo_step(Progress *p, const Models *m, Work *w) {
    const ScoreRule rule = { o.score_scaling, o.score_norm, (float)o.score_clip };
    Rollout *x = &w->rollout;
    double policy_kl = 0;                   /* the last update's KL from the policy that sampled */
    step_begin(&w->now);

    draw_queries(p, m, w);                  /* beginnings of training documents */
    sample_responses(p, m, w);              /* tokens, old log-probs, old values */
    lap(&w->now, GENERATE);
    score_responses(p, m, w);               /* one number for each text */
    process_scores(x->score, x->B, &rule, &p->moments);
    lap(&w->now, SCORE);
    reference_logprobs(m, w);               /* log-probs of the same tokens, by the frozen reference */
    lap(&w->now, REFERENCE);

    kl_penalty(x->kl, x->logprob, x->ref_logprob, x->full_kl, o.kl_penalty, x->P);
    token_rewards(x->reward, x->kl, x->score, (float)p->kl.coef, x->start, x->B);
    if (o.whiten_rewards) whiten(x->reward, x->P, KEEP_MEAN, o.biased);
    gae(x->advantage, x->returns, x->reward, x->value, (float)o.gamma, (float)o.lam, x->start, x->B);
    whiten(x->advantage, x->P, SHIFT_MEAN, o.biased);
    lap(&w->now, ADVANTAGES);
    if (o.dump) dump_rollout(p, m, w);

    for (int epoch = 0; epoch < o.ppo_epochs; epoch++) {
        if (o.early_stopping && kl_early_stop(policy_kl, o.target_kl)) break;
        const int size = o.mini_batch_size * o.accumulation;
        Rng rng = stream(o.seed, STREAM_EPOCH, (uint64_t)p->step, (uint64_t)epoch);
        for (int b = 0; b < x->B; b++) x->order[b] = b;
        rng_shuffle(&rng, x->order, x->B);
        for (int first = 0; first < x->B; first += size)
            policy_kl = update(p, m, w, x->order + first, smaller(size, x->B - first));
        w->now.epochs++;
    }
    lap(&w->now, OPTIMIZE);
    /* step_end then adapts p->kl.coef to this */
    return kl_per_sequence(x->kl, x->start, x->B);
}

static void step_begin(Statistics *now) {
    memset(now, 0, sizeof *now);
    now->clock = wall_clock();
}

/* Adds the seconds since the last lap (or step_begin) to those of `part`. */
static void lap(Statistics *now, int part) {
    const double time = wall_clock();
    now->seconds[part] += time - now->clock;
    now->clock = time;
}

/* ---- queries ---- */

/* Shuffles the documents for the epoch q->epoch. */
static void queue_shuffle(Queue *q) {
    Rng rng = stream(q->seed, STREAM_ORDER, q->epoch, 0);
    rng_shuffle(&rng, q->document, q->count);
    q->next = 0;
}

/* Returns the documents of a split (0: training, 1: held out), shuffled. */
static Queue queue_of_split(Work *w, int split, uint64_t seed) {
    Queue q = { NULL, 0, 0, seed, 0 };
    q.document = pool_need(&w->pool, (size_t)w->data.count + 1, sizeof *q.document, "the order of documents");
    for (uint64_t i = 0; i < w->data.count; i++)
        if (w->data.document[i].split == split) q.document[q.count++] = (int)i;
    queue_shuffle(&q);
    return q;
}

/* Writes the query of a document to token (room for 1 + query_max; NULL: writes nothing): <s> if the
 * template has it, then the first `length` tokens of a text that has more, or a whole prompt of at
 * most --query-max tokens. Returns the query's size, or 0 if the document gives no query; *tokens:
 * how many tokens the document has. */
static int query_of(const Models *m, Work *w, const Document *d, int length, int *token, int *tokens) {
    PoolMark mark = pool_mark(&w->pool);
    int *ids, n, at = 0, good;
    must(tokenizer_encode(m->tokenizer, d->text[0], d->length[0], &w->pool, &ids, &n), NULL,
         "a smaller dataset");
    if (w->data.kind == DATA_PROMPTS) {
        good = n > 0 && n <= o.query_max;
        length = n;
    } else good = n > length;
    if (good && token) {
        if (m->bos >= 0) token[at++] = m->bos;
        memcpy(token + at, ids, (size_t)length * sizeof *ids);
        at += length;
        if (m->after >= 0) token[at++] = m->after;
        need_rows(m->tokenizer, token, at, m->config.V, "policy");
    }
    pool_release(&w->pool, mark);
    *tokens = n;
    return good ? length + (m->bos >= 0) + (m->after >= 0) : 0;
}

/* Writes the query of the next document that gives one to token (see query_of). Returns the query's
 * size. once 1: returns 0 after the last document. once 0: begins a new epoch there, and returns 0 only
 * if a whole epoch gave no query. */
static int next_query(const Models *m, Work *w, Queue *q, int length, int once, int *token) {
    for (int epochs = 0; ; ) {
        if (q->next == q->count) {
            if (once || epochs++) return 0;
            q->epoch++;
            queue_shuffle(q);
            continue;
        }
        int tokens, n = query_of(m, w, &w->data.document[q->document[q->next++]], length, token, &tokens);
        if (n) return n;
    }
}

static int draw_between(Rng *rng, int low, int high) {
    return low + (int)rng_below(rng, (uint64_t)(high - low) + 1);
}

/* Ends the program because no document gives a query. shortest: tokens of the
 * shortest prompt (0: unknown). */
static void no_query(Work *w, int shortest) {
    if (w->data.kind != DATA_PROMPTS || !shortest) {
        fail(&w->err, E_ARGUMENT, "no document is long enough for a query", "", 0, 0);
        die(&w->err, "a smaller --query-max, or another dataset");
    }
    fail(&w->err, E_ARGUMENT, "every prompt is longer than --query-max; the shortest", "", shortest,
         o.query_max);
    die(&w->err, "a larger --query-max");
}

/* Counts the training documents that give a query of the largest size, but no more than a step needs. Prints
 * the count if it is less than that; dies if it is 0, so that no later step can lack a query. */
static void check_queries(const Models *m, Work *w, const Queue *q) {
    int good = 0, shortest = 0;
    char number[64];
    for (int i = 0; i < q->count && good < o.batch_size; i++) {
        int tokens;
        good += query_of(m, w, &w->data.document[q->document[i]], o.query_max, NULL, &tokens) > 0;
        if (tokens && (!shortest || tokens < shortest)) shortest = tokens;
    }
    if (!good) no_query(w, shortest);
    if (good < o.batch_size)
        say("%s --query-max tokens: only %d of %s",
            w->data.kind == DATA_PROMPTS ? "with a prompt of at most" : "longer than", good,
            counted(number, (size_t)q->count, "training document"));
}

/* Returns how many tokens a query may have, and where that of response b begins: in its sequence, or with an
 * encoder in an array of its own. */
static int query_room(const Models *m) { return m->Q ? m->Q : m->T; }
static int *query_place(const Models *m, const Rollout *x, int b) {
    return (m->Q ? x->query : x->token) + (size_t)b * (size_t)query_room(m);
}

/* Returns the *n tokens of the query of response b. */
static const int *query_tokens(const Models *m, const Rollout *x, int b, int *n) {
    *n = m->Q ? x->asked[b] : x->seq[b].prompt;
    return query_place(m, x, b);
}

/* Prepares sequence b of x for sampling. Its query of `prompt` tokens is already in its place; up to
 * `response` tokens may follow. */
static void sequence_begin(const Models *m, Rollout *x, int b, int prompt, int response, Rng rng) {
    Sequence *seq = &x->seq[b];
    memset(seq, 0, sizeof *seq);
    seq->token = x->token + (size_t)b * (size_t)m->T;
    if (m->Q) {
        x->asked[b] = prompt;
        seq->token[0] = m->config.start;
        prompt = 1;
    }
    seq->prompt = seq->length = prompt;
    seq->capacity = prompt + response;
    seq->stop_at_eos = 1;
    seq->logprob = x->seq_logprob + (size_t)b * (size_t)o.response_max;
    seq->value = x->seq_value + (size_t)b * (size_t)o.response_max;
    seq->rng = rng;
}

/* Prepares a sequence for each response of the step: the next query, with lengths drawn at random. */
static void draw_queries(Progress *p, const Models *m, Work *w) {
    Rollout *x = &w->rollout;
    x->B = o.batch_size;
    for (int b = 0; b < x->B; b++) {
        Rng rng = stream(o.seed, STREAM_QUERY, (uint64_t)p->step, (uint64_t)b);
        const int length = draw_between(&rng, o.query_min, o.query_max);
        const int response = draw_between(&rng, o.response_min, o.response_max);
        const int prompt = next_query(m, w, &p->queue, length, 0, query_place(m, x, b));
        if (!prompt) no_query(w, 0);
        rng = stream(o.seed, STREAM_SAMPLE, (uint64_t)p->step, (uint64_t)b);
        sequence_begin(m, x, b, prompt, response, rng);
    }
}

/* ---- roll out ---- */

/* Lets the policy's encoder, if it has one, read the queries of n responses: which[i], or first + i if which
 * is NULL. Afterwards the cache's sequence i reads query i. OK or the model's error. */
static int read_queries(const Models *m, Work *w, const Model *policy, const Lora *adapter, const int *which,
                        int first, int n) {
    Queries *q = &w->queries;
    if (!m->Q) return OK;
    Reading *r = which ? &q->learned : &q->seen;
    q->start[0] = 0;
    for (int i = 0; i < n; i++) {
        int length;
        const int *from = query_tokens(m, &w->rollout, which ? which[i] : first + i, &length);
        memcpy(q->token + q->start[i], from, (size_t)length * sizeof *from);
        q->start[i + 1] = q->start[i] + length;
    }
    const Texts texts = { q->start[n], n, q->token, q->start };
    w->cache.reading = r;
    w->cache.B = n;
    return model_encode(policy, adapter, &texts, r, &w->ws);
}

/* Samples all responses, then copies their log-probs and values into the arrays (P). */
static void sample_responses(const Progress *p, const Models *m, Work *w) {
    const Writing writing = { .adapter = m->adapter, .head = &m->head,
                              .sampling = { (float)o.temperature, 0, 1 } };
    Rollout *x = &w->rollout;
    for (int first = 0; first < x->B; first += o.chunk) {
        const int n = smaller(o.chunk, x->B - first);
        int code = read_queries(m, w, &m->policy, m->adapter, NULL, first, n);
        if (!code) code = model_generate(&m->policy, &writing, x->seq + first, n, &w->cache, &w->ws);
        if (code == E_NUMBER) not_a_number(p, m, w, "the policy's logits are not numbers", 0);
        must(code, NULL, "check the weights: the sampler failed");
    }
    x->P = 0;
    for (int b = 0; b < x->B; b++) {
        const Sequence *seq = &x->seq[b];
        const int n = seq->length - seq->prompt;
        for (int t = 0; t < n; t++)
            if (!is_number(seq->value[t]))
                not_a_number(p, m, w, "the value head's values are not numbers", 0);
        x->start[b] = x->P;
        memcpy(x->logprob + x->P, seq->logprob, (size_t)n * sizeof(float));
        memcpy(x->value + x->P, seq->value, (size_t)n * sizeof(float));
        x->P += n;
    }
    x->start[x->B] = x->P;
}

/* ---- score ---- */

/* With an encoder, query and response are texts of their own; x->text has a line break between them. */
static void decode_apart(const Models *m, Work *w, int b) {
    Rollout *x = &w->rollout;
    const Sequence *seq = &x->seq[b];
    Buffer both = { 0 };
    char *query, *alone = NULL;
    int asked;
    size_t n = 0, query_n;
    const int *ids = query_tokens(m, x, b, &asked);
    both.pool = &w->pool;
    int code = tokenizer_decode(m->tokenizer, ids, asked, &w->pool, &query, &query_n);
    if (!code)
        code = tokenizer_decode(m->tokenizer, seq->token + seq->prompt, seq->length - seq->prompt, &w->pool,
                                &alone, &n);
    must(code, NULL, NULL);
    buffer_bytes(&both, query, query_n);
    buffer_text(&both, "\n");
    buffer_bytes(&both, alone, n);
    must(both.failed ? E_MEMORY : OK, NULL, NULL);
    x->text[b] = (const char *)both.data;
    x->text_length[b] = both.length;
    x->query_length[b] = query_n;
    x->response[b] = alone;
    x->response_length[b] = n;
}

/* Decodes sequence b without special tokens. The response's text is the rest of the whole text after the
 * query's text, so that a word that the query begins stays one word. If the whole text does not begin with
 * the query's (the query ends inside a character), decodes the response alone. */
static void decode_sequence(const Models *m, Work *w, int b) {
    Rollout *x = &w->rollout;
    const Sequence *seq = &x->seq[b];
    char *whole, *query, *alone;
    size_t n, query_n = 0;
    int code = tokenizer_decode(m->tokenizer, seq->token, seq->length, &w->pool, &whole, &n);
    if (!code) code = tokenizer_decode(m->tokenizer, seq->token, seq->prompt, &w->pool, &query, &query_n);
    must(code, NULL, NULL);
    x->text[b] = whole;
    x->text_length[b] = n;
    x->query_length[b] = n < query_n ? n : query_n;
    if (n >= query_n && !memcmp(whole, query, query_n)) {
        x->response[b] = whole + query_n;
        x->response_length[b] = n - query_n;
        return;
    }
    must(tokenizer_decode(m->tokenizer, seq->token + seq->prompt, seq->length - seq->prompt, &w->pool,
                          &alone, &n), NULL, NULL);
    x->response[b] = alone;
    x->response_length[b] = n;
}

/* Returns how often `wanted` occurs in a text of n bytes, without overlaps. */
static float count_text(const char *text, size_t n, const char *wanted) {
    size_t w = strlen(wanted), count = 0;
    for (size_t i = 0; i + w <= n; ) {
        const int found = !memcmp(text + i, wanted, w);
        count += (size_t)found;
        i += found ? w : 1;
    }
    return (float)count;
}

/* Appends n ids to the judge's batch as its i-th text, between the template's bos and eos. A text without any
 * id becomes empty_text_id (bos or eos) alone. */
static void judge_add(const Models *m, JudgeBatch *j, int i, const int *ids, int n) {
    const SpecialIds special = tokenizer_specials(m->judge_tokenizer);
    j->start[i] = j->tokens;
    if (m->adds_bos) j->token[j->tokens++] = special.bos;
    for (int k = 0; k < n; k++) j->token[j->tokens++] = ids[k];
    if (m->adds_eos) j->token[j->tokens++] = special.eos;
    if (j->tokens == j->start[i]) j->token[j->tokens++] = empty_text_id(m->judge_tokenizer);
    j->start[i + 1] = j->tokens;
}

/* Writes the scores of the n texts in the judge's batch to score, and empties the batch. */
static void judge_run(const Models *m, Work *w, int n, float *score) {
    JudgeBatch *j = &w->judge;
    const Texts texts = { j->tokens, n, j->token, j->start };
    if (!n) return;
    must(reward_forward(&m->judge, NULL, &texts, NULL, j->logits, &w->ws), NULL,
         "check that the tokenizer belongs to the judge");
    for (int i = 0; i < n; i++)
        score[i] = j->logits[(size_t)i * (size_t)m->judge_config.labels + (size_t)m->label];
    j->tokens = 0;
}

/* Returns the *n ids of text b that the judge is to read. Of a text that is longer than the judge's limit,
 * these are the last ones: the response decides the score, and so it is the query that loses its beginning.
 * Counts the text as a cut response if a token of the response is lost too, else as a cut query. */
static const int *judge_ids(const Models *m, Work *w, int b, int *n) {
    Rollout *x = &w->rollout;
    const char *text = o.score == SCORE_BOTH ? x->text[b] : x->response[b];
    const size_t bytes = o.score == SCORE_BOTH ? x->text_length[b] : x->response_length[b];
    const size_t query = o.score == SCORE_BOTH ? x->query_length[b] : 0;
    TokenSpan *span;
    int *ids;
    must(tokenizer_encode(m->judge_tokenizer, text, bytes, &w->pool, &ids, n), NULL, NULL);
    need_rows(m->judge_tokenizer, ids, *n, m->judge_config.V, "judge");
    const int cut = *n - m->judge_most;
    if (cut <= 0) return ids;
    must(tokenizer_encode_spans(m->judge_tokenizer, text, bytes, &w->pool, &ids, &span, n), NULL, NULL);
    if (span[cut - 1].to > query) x->responses_cut++;
    else x->queries_cut++;
    *n = m->judge_most;
    return ids + cut;
}

/* Fills raw_score with the judge's logit for each text. A forward takes as many texts as there is room
 * for. */
static void judge_texts(const Models *m, Work *w) {
    Rollout *x = &w->rollout;
    int waiting = 0;
    w->judge.tokens = 0;
    for (int b = 0; b < x->B; b++) {
        PoolMark mark = pool_mark(&w->pool);
        int n;
        const int *ids = judge_ids(m, w, b, &n);
        if (waiting == o.chunk ||
            w->judge.tokens + larger(n + m->adds_bos + m->adds_eos, 1) > w->judge.room) {
            judge_run(m, w, waiting, x->raw_score + b - waiting);
            waiting = 0;
        }
        judge_add(m, &w->judge, waiting++, ids, n);
        pool_release(&w->pool, mark);
    }
    judge_run(m, w, waiting, x->raw_score + x->B - waiting);
}

static int ends_in_eos(const Models *m, const Sequence *seq) {
    for (int i = 0; i < m->config.eos_count; i++)
        if (seq->token[seq->length - 1] == m->config.eos[i]) return 1;
    return 0;
}

/* Fills raw_score from the judge or --reward-text, and score = gain * raw_score + bias, minus the
 * penalty if the response has no EOS. */
static void score_responses(const Progress *p, const Models *m, Work *w) {
    Rollout *x = &w->rollout;
    x->queries_cut = x->responses_cut = 0;
    for (int b = 0; b < x->B; b++) (m->Q ? decode_apart : decode_sequence)(m, w, b);
    if (!o.reward_text) judge_texts(m, w);
    for (int b = 0; b < x->B; b++) {
        if (o.reward_text) x->raw_score[b] = count_text(x->response[b], x->response_length[b], o.reward_text);
        if (!is_number(x->raw_score[b])) score_not_a_number(p, m, w);
        const double penalty = ends_in_eos(m, &x->seq[b]) ? 0 : o.eos_penalty;
        x->score[b] = (float)(p->gain * x->raw_score[b] + p->bias - penalty);
    }
}

/* ---- the reference's log-probs ---- */

/* Fills the batch with the rows of n sequences: seq[which[i]], or seq[i] if which is NULL. A row wants its
 * logits if it predicts a response token (rows_add: train.c). */
static Rows fill_rows(Batch *k, const Sequence *seq, const int *which, int n) {
    k->rows.N = k->rows.W = 0;
    for (int i = 0; i < n; i++) {
        const Sequence *one = &seq[which ? which[i] : i];
        rows_add(&k->rows, i, one->token, one->length, one->prompt);
    }
    return rows_of(&k->rows);
}

/* Computes the responses' log-probs under the reference, and for --kl-penalty full the exact KL to it. */
static void reference_logprobs(const Models *m, Work *w) {
    Batch *k = &w->batch;
    Rollout *x = &w->rollout;
    const float temperature = (float)o.temperature;
    for (int first = 0; first < x->B; first += o.chunk) {
        const int n = smaller(o.chunk, x->B - first), at = x->start[first];
        const Rows rows = fill_rows(k, x->seq + first, NULL, n);
        const HeadTask task = { .target = k->rows.target, .temperature = temperature,
                                .logprob = x->ref_logprob + at };
        int code = read_queries(m, w, m->reference, m->reference_adapter, NULL, first, n);
        if (!code)
            code = model_forward(m->reference, m->reference_adapter, &rows, &w->cache, NULL, k->hidden,
                                 &w->ws);
        if (!code)
            code = model_logprobs(m->reference, m->reference_adapter, k->hidden, rows.W, &task, &w->ws);
        if (!code && o.kl_penalty == KL_FULL) {
            const States policy = { &m->policy, m->adapter, k->other_hidden };
            const States reference = { m->reference, m->reference_adapter, k->hidden };
            code = read_queries(m, w, &m->policy, m->adapter, NULL, first, n);
            if (!code)
                code = model_forward(&m->policy, m->adapter, &rows, &w->cache, NULL, k->other_hidden, &w->ws);
            if (!code)
                code = model_full_kl(&policy, &reference, rows.W, temperature, x->full_kl + at, &w->ws);
        }
        must(code, NULL, "check the reference's weights");
    }
}

/* ---- --dump-rollouts ---- */

/* Appends "name": [x[0], x[1] ...] with nine significant digits, enough to read every float back exactly. */
static void dump_floats(Buffer *b, const char *name, const float *x, int n) {
    char number[40];
    buffer_text(b, ", \"");
    buffer_text(b, name);
    buffer_text(b, "\": [");
    for (int i = 0; i < n; i++) {
        snprintf(number, sizeof number, "%s%.9g", i ? ", " : "", (double)x[i]);
        buffer_text(b, is_number(x[i]) ? number : i ? ", null" : "null");
    }
    buffer_text(b, "]");
}

static void dump_ids(Buffer *b, const char *name, const int *id, int n) {
    buffer_text(b, ", \"");
    buffer_text(b, name);
    buffer_text(b, "\": [");
    for (int i = 0; i < n; i++) {
        if (i) buffer_text(b, ", ");
        buffer_integer(b, id[i]);
    }
    buffer_text(b, "]");
}

/* Appends this step's responses to the file of --dump-rollouts, a JSON line for each. advantage is the
 * whitened one that the loss uses; before whitening it was return - value. */
static void dump_rollout(const Progress *p, const Models *m, Work *w) {
    const Rollout *x = &w->rollout;
    PoolMark mark = pool_mark(&w->pool);
    for (int i = 0; i < x->B; i++) {
        const Sequence *seq = &x->seq[i];
        const int at = x->start[i], n = x->start[i + 1] - at;
        char text[160];
        Buffer b = { 0 };
        b.pool = &w->pool;
        snprintf(text, sizeof text, "{\"step\": %d, \"index\": %d, \"score\": %.9g, \"kl_coef\": %.9g",
                 p->step, i, (double)x->score[i], p->kl.coef);
        buffer_text(&b, text);
        int asked;
        const int *query = query_tokens(m, x, i, &asked);
        dump_ids(&b, "query", query, asked);
        dump_ids(&b, "response", seq->token + seq->prompt, n);
        dump_floats(&b, "logprob", x->logprob + at, n);
        dump_floats(&b, "ref_logprob", x->ref_logprob + at, n);
        dump_floats(&b, "value", x->value + at, n);
        dump_floats(&b, "kl", x->kl + at, n);
        dump_floats(&b, "reward", x->reward + at, n);
        dump_floats(&b, "advantage", x->advantage + at, n);
        dump_floats(&b, "return", x->returns + at, n);
        buffer_text(&b, "}\n");
        must(b.failed ? E_MEMORY : OK, NULL, NULL);
        out_append(&w->out, o.dump, b.data, b.length);
        pool_release(&w->pool, mark);
    }
}

/* ---- learn ---- */

typedef struct { const Batch *batch; const PpoLoss *loss; float scale; PpoStats *stats; } LossContext;

/* Sets dloss/dlogprob of the n tokens from `first` on. The head calls this for each block of rows as
 * soon as it has their log-probs. */
static void token_loss(void *context, int first, int n, const float *logprob, float *dlogprob) {
    const LossContext *c = context;
    policy_loss(dlogprob, logprob, c->batch->old_logprob + first, c->batch->advantage + first, c->loss,
                c->scale, n, c->stats);
}

/* Copies the old log-probs, advantages, old values and returns of these responses
 * from the rollout to the batch. */
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

/* Runs forward, loss and backward of one mini-batch; adds to the gradients and to c->stats.
 * Returns OK or the model's error. */
static int train_mini_batch(const Models *m, Work *w, const int *which, int n, LossContext *c) {
    Batch *k = &w->batch;
    const Rows rows = fill_rows(k, w->rollout.seq, which, n);
    const int W = rows.W;
    const HeadTask task = { .target = k->rows.target, .temperature = (float)o.temperature,
                            .logprob = k->new_logprob, .entropy = k->entropy, .loss = token_loss,
                            .context = c, .dhidden = k->dhidden };
    gather_tokens(k, &w->rollout, which, n);
    int code = read_queries(m, w, &m->policy, m->adapter, which, 0, n);
    if (!code) code = model_forward(&m->policy, m->adapter, &rows, &w->cache, &w->saved, k->hidden, &w->ws);
    if (code) return code;
    memset(k->dhidden, 0, (size_t)W * (size_t)m->config.stack.C * sizeof(float));
    code = model_logprobs(&m->policy, m->adapter, k->hidden, W, &task, &w->ws);
    if (code) return code;
    model_values(&m->head, k->hidden, k->value, W, &w->ws);
    memset(k->dvalue, 0, (size_t)W * sizeof(float));
    value_loss(k->dvalue, k->value, k->old_value, k->returns, c->loss, c->scale, W, c->stats);
    model_values_backward(&m->head, k->dvalue, k->hidden, k->dhidden, W, &w->ws);
    for (int i = 0; i < W; i++) c->stats->entropy += k->entropy[i];
    return model_backward(&m->policy, m->adapter, &rows, &w->cache, &w->saved, k->dhidden, &w->ws);
}

static void add_stats(PpoStats *to, const PpoStats *s) {
    to->tokens += s->tokens; to->policy_loss += s->policy_loss; to->value_loss += s->value_loss;
    to->entropy += s->entropy;
    to->clip_fraction += s->clip_fraction; to->value_clip_fraction += s->value_clip_fraction;
    to->approx_kl += s->approx_kl; to->policy_kl += s->policy_kl; to->ratio += s->ratio;
    to->value_error += s->value_error; to->value += s->value;
    const double most = s->max_ratio_deviation;
    if (most > to->max_ratio_deviation || most != most) to->max_ratio_deviation = most;
}

/* Changes the weights by a step of Adam. Gradients whose norm is above --max-grad-norm are first
 * scaled down to it (0: never). */
static void move_weights(Progress *p, const Models *m, double norm, Arena *ws) {
    const AdamW adam = { (float)learning_rate(o.lr_anneal, o.lr, 0, p->step, o.steps), 0.9f, 0.999f,
                         (float)o.adam_eps, 0, o.adam_tf };
    const double scale = o.max_grad_norm > 0 && norm > o.max_grad_norm ? o.max_grad_norm / (norm + 1e-6) : 1;
    AdamW head = adam;
    if (o.value_lr > 0) head.lr = (float)learning_rate(o.lr_anneal, o.value_lr, 0, p->step, o.steps);
    const size_t done = optimizer_step(&p->optimizer, 0, m->trained, m->trained_policy, &adam, (float)scale);
    if (m->adapter) lora_norms(&m->lora, m->policy.tensor, ws);
    optimizer_step(&p->optimizer, done, m->trained + m->trained_policy, m->trained_all - m->trained_policy,
                   &head, (float)scale);
}

/* Makes one update from n responses: the gradients of the loss (a mean over all their tokens), then Adam.
 * Returns the mean policy KL of these tokens. If the mean ratio is above --ratio-threshold, the update is
 * skipped: neither the weights nor Adam's moments change. */
static double update(Progress *p, const Models *m, Work *w, const int *which, int n) {
    const PpoLoss loss = { (float)o.clip, (float)o.clip_value, (float)o.vf_coef, (float)o.ratio_threshold };
    const int *start = w->rollout.start, first = !w->now.updates;
    PpoStats stats;
    int tokens = 0;
    memset(&stats, 0, sizeof stats);
    for (int i = 0; i < n; i++) tokens += start[which[i] + 1] - start[which[i]];
    LossContext c = { &w->batch, &loss, 1 / (float)tokens, &stats };
    gradient_zero(m->trained, m->trained_all);
    for (int i = 0; i < n; i += o.mini_batch_size)
        must(train_mini_batch(m, w, which + i, smaller(o.mini_batch_size, n - i), &c), NULL, NULL);
    if (first) w->now.first_deviation = stats.max_ratio_deviation;
    const double norm = gradient_norm(m->trained, m->trained_all);
    if (!is_number(stats.policy_kl) || !is_number(stats.value_loss))
        not_a_number(p, m, w, "the loss is not a number", first);
    if (ratio_exceeds(&stats, &loss)) w->now.skipped++;
    else {
        if (!is_number(stats.policy_loss) || !is_number(norm))
            not_a_number(p, m, w, "the loss or its gradient is not a number", first);
        move_weights(p, m, norm, &w->ws);
    }
    w->now.updates++;
    w->now.grad_norm += norm;
    add_stats(&w->now.stats, &stats);
    return stats.policy_kl / tokens;
}

/* ---- saving, and the end of a run that met a NaN or an infinity ---- */

static int weights_are_numbers(const Models *m) {
    return !tensor_not_numbers(m->trained, m->trained_all, o.dtype);
}

typedef struct { const Models *m; Work *w; } Saving;
/* Writes the result to a folder (see Saver): a PEFT adapter, or a whole model folder if all weights were
 * trained; and the value head. */
static int write_result(void *run, const char *folder, Error *err) {
    const Saving *s = run;
    const Models *m = s->m;
    if (!weights_are_numbers(m)) return fail(err, E_NUMBER, NOT_FOR_DTYPE, folder, 0, 0);
    const int code = m->adapter ? save_adapter(&m->lora, o.policy, folder, o.dtype, err)
                                : save_policy(&m->policy, m->tokenizer, folder, o.dtype, 0, err);
    return code == OK ? save_value_head(&m->head, folder, err) : code;
}

static void save_result(int step, const Models *m, Work *w, int last) {
    Saving saving = { m, w };
    const Saver saver = { &w->out, write_result, &saving };
    run_save(&saver, step, last);
}

/* Ends the run because a NaN or an infinity came up in this step; `what` is the message. good 1: the weights
 * are still those after the previous step, and they are saved. good 0: the last save stays. */
static void not_a_number(const Progress *p, const Models *m, Work *w, const char *what, int good) {
    Saving saving = { m, w };
    const Saver saver = { &w->out, write_result, &saving };
    const int moved = p->step > 1 || w->now.updates;
    good = good && weights_are_numbers(m) && !(w->health.bad && w->out.saved);
    stop_not_a_number(what, larger(p->step, 1), moved, good, &saver,
                      "a smaller --learning-rate, or --max-grad-norm 1");
}

/* Ends the run because of the judge; the policy's weights are numbers, and are saved. */
static void score_not_a_number(const Progress *p, const Models *m, Work *w) {
    const int step = p->step - !w->now.updates;         /* the last step that has changed weights */
    if (step > 0 && w->out.saved != step) save_result(step, m, w, 1);
    fail(&w->err, E_NUMBER, "the judge's score of a text is not a number", o.reward, 0, 0);
    die(&w->err, "another --reward, or --compute f32, if it is another one");
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
        for (int b = 0; b < x->B; b++)
            x->scratch[b] = (float)(response ? x->seq[b].length - x->seq[b].prompt : x->seq[b].prompt);
        Summary s = summarise(x->scratch, x->B, x->scratch + x->B);
        snprintf(name, sizeof name, "tokens/%s_len_mean", response ? "responses" : "queries");
        log_number(l, name, s.mean);
        snprintf(name, sizeof name, "tokens/%s_len_std", response ? "responses" : "queries");
        log_number(l, name, s.std);
    }
}

static void log_objective(const Progress *p, const Models *m, Rollout *x, Log *l, double kl) {
    Summary raw = summarise(x->raw_score, x->B, x->scratch), score = summarise(x->score, x->B, x->scratch);
    int ended = 0;
    for (int b = 0; b < x->B; b++) ended += ends_in_eos(m, &x->seq[b]);
    log_number(l, "env/reward_mean", raw.mean);
    log_number(l, "env/reward_std", raw.std);
    log_integer(l, "env/queries_cut", x->queries_cut);
    log_integer(l, "env/responses_cut", x->responses_cut);
    log_number(l, "objective/kl", kl);
    log_number(l, "objective/kl_coef", p->kl.coef);
    log_number(l, "objective/entropy", -kl_per_sequence(x->logprob, x->start, x->B));
    log_number(l, "objective/logprobs", mean(x->logprob, x->P));
    log_number(l, "objective/ref_logprobs", mean(x->ref_logprob, x->P));
    log_number(l, "ppo/mean_non_score_reward", -p->kl.coef * mean(x->kl, x->P));
    log_number(l, "ppo/mean_scores", score.mean);
    log_number(l, "ppo/std_scores", score.std);
    log_lengths(l, x);
    log_integer(l, "tokens/responses_with_eos", ended);
}

/* Logs a step under TRL's names, which its docs/source/logging.mdx explains. Averages are over all
 * tokens of all updates of the step. */
static void log_step(const Progress *p, const Models *m, Work *work, double kl) {
    Rollout *x = &work->rollout;
    const Statistics *now = &work->now;
    PpoStats s = now->stats;
    Summary returns = summarise(x->returns, x->P, x->scratch), value = summarise(x->value, x->P, x->scratch);
    const double variance = returns.std * returns.std;
    Log l;
    ppo_stats_mean(&s);
    log_begin(&l, work->out.log, &work->pool);
    log_integer(&l, "step", p->step);
    log_objective(p, m, x, &l, kl);
    log_number(&l, "ppo/loss/policy", s.policy_loss);
    log_number(&l, "ppo/loss/value", s.value_loss);
    log_number(&l, "ppo/loss/total", s.policy_loss + o.vf_coef * s.value_loss);
    log_number(&l, "ppo/policy/first_ratio_max_deviation", now->first_deviation);
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
    log_number(&l, "grad_norm", now->updates ? now->grad_norm / now->updates : 0);
    log_number(&l, "learning_rate", learning_rate(o.lr_anneal, o.lr, 0, p->step, o.steps));
    log_integer(&l, "ppo/epochs", now->epochs);
    log_integer(&l, "ppo/updates_skipped", now->skipped);
    out_log(&work->out, &l);
}

/* Logs the seconds of each part of a step; returns their sum. */
static double log_time(const Progress *p, Work *w) {
    static const char *const name[LAPS] = {
        "time/ppo/generate", "time/ppo/score", "time/ppo/forward_pass", "time/ppo/compute_advantages",
        "time/ppo/optimize_step" };
    double total = 0;
    Log l;
    log_begin(&l, w->out.time, &w->pool);
    log_integer(&l, "step", p->step);
    for (int i = 0; i < LAPS; i++) {
        log_number(&l, name[i], w->now.seconds[i]);
        total += w->now.seconds[i];
    }
    log_number(&l, "seconds", total);
    log_number(&l, "tokens_per_second", total > 0 ? w->rollout.P / total : 0);
    out_log(&w->out, &l);
    return total;
}

static void show_progress(Progress *p, const Work *w, double reward, double kl, double seconds) {
    const PpoStats *stats = &w->now.stats;
    const int shown = smaller(p->step, HISTORY);
    char line[256], bars[128];
    if (p->step > HISTORY) memmove(p->history, p->history + 1, (HISTORY - 1) * sizeof *p->history);
    p->history[shown - 1] = reward;
    sparkline(bars, sizeof bars, p->history, shown, HISTORY);
    snprintf(line, sizeof line, "reward %+.3f  KL %.2f  %s  coef %.4f  clip %.3f  %.0f tokens/s", reward, kl,
             bars, p->kl.coef, stats->tokens > 0 ? stats->clip_fraction / stats->tokens : 0,
             seconds > 0 ? w->rollout.P / seconds : 0);
    progress(line, p->step, o.steps, p->step == o.steps || cli_stopping());
}

/* Warns of a first ratio other than 1, and of a KL far below 0. Let d be log pi - log ref, summed over a
 * response that the policy sampled. The mean of d over B responses estimates the KL, which is never
 * negative. Since exp(-d) has expectation 1, Markov's inequality gives: this mean is below -t with a
 * probability of at most exp(-t B). So a negative estimate means few responses. The estimate's variance is
 * about 2 KL / B, so it also helps to stay nearer to the reference. Another --kl-penalty would hide the
 * estimate, and restrain the policy less. */
static void warn(const Progress *p, const Work *w, double kl) {
    if (w->now.first_deviation == 0 && kl >= -1) return;
    fprintf(stderr, "\nppo: warning at step %d: ", p->step);
    if (w->now.first_deviation != 0)
        fprintf(stderr, "the first ratio is not 1 but off by %g: sampler and training disagree\n",
                w->now.first_deviation);
    else
        fprintf(stderr, "KL is %.2f, although its expectation is never below 0: too few responses (%d) to "
                "estimate it\n  try: a larger --batch-size, or a larger --init-kl-coef, which keeps the "
                "policy where the estimate varies less\n", kl, w->rollout.B);
}

/* Warns once if the judge has not read a whole response, although --long-response is not cut. */
static void warn_cut(const Progress *p, const Models *m, Work *w) {
    if (!w->rollout.responses_cut || w->told_cut || o.long_response == LONG_CUT) return;
    w->told_cut = 1;
    fprintf(stderr, "\nppo: warning at step %d: of %d responses, %d are longer than the %d tokens that the "
            "judge reads: it has read their ends\n  try: a smaller --response-max; env/responses_cut in the "
            "log counts them\n", p->step, w->rollout.B, w->rollout.responses_cut, m->judge_most);
}

#define SMALLER_MOVES "a smaller --learning-rate, a larger --init-kl-coef, or --max-grad-norm 1"

/* Judges the policy by the responses that it has sampled last. */
static void check_health(Work *w) {
    const Rollout *x = &w->rollout;
    const double kl = kl_per_sequence(x->logprob, x->start, x->B) - kl_per_sequence(x->ref_logprob, x->start,
                                                                                    x->B);
    health_of_policy(&w->health, kl, (double)x->P / x->B, -mean(x->logprob, x->P), o.target);
}

/* Ends a step: writes the log, shows the progress, warns, and updates the KL coefficient. */
static void step_end(Progress *p, const Models *m, Work *w, double kl) {
    log_step(p, m, w, kl);
    show_progress(p, w, mean(w->rollout.raw_score, w->rollout.B), kl, log_time(p, w));
    warn(p, w, kl);
    warn_cut(p, m, w);
    check_health(w);
    health_warn(&w->health, p->step, SMALLER_MOVES);
    kl_controller_update(&p->kl, kl, w->rollout.B);
}

/* ---- evaluation ---- */

/* Makes the evaluation's queries, the beginnings of held-out documents, each used once. They are the same for
 * every --seed. The random numbers of a response depend only on the seed and the query's index, so that the
 * responses before and after training differ by the policy alone. */
static void evaluation_begin(const Models *m, Work *w) {
    Evaluation *e = &w->eval;
    Queue q = queue_of_split(w, 1, 0);
    const int wanted = smaller(o.eval_queries, q.count);
    const size_t n = (size_t)wanted + 1;
    const char *what = "evaluation";
    char number[2][64];
    e->token = pool_need(&w->pool, n * (size_t)query_room(m), sizeof(int), what);
    e->prompt = pool_need(&w->pool, n, sizeof(int), what);
    e->capacity = pool_need(&w->pool, n, sizeof(int), what);
    e->query = pool_need(&w->pool, n, sizeof *e->query, what);
    e->query_length = pool_need(&w->pool, n, sizeof(size_t), what);
    e->scratch = pool_need(&w->pool, n, sizeof(float), what);
    for (int k = 0; k < 2; k++) {
        e->response[k] = pool_need(&w->pool, n, sizeof *e->response[k], what);
        e->response_length[k] = pool_need(&w->pool, n, sizeof(size_t), what);
        e->score[k] = pool_need(&w->pool, n, sizeof(float), what);
        e->kl[k] = pool_need(&w->pool, n, sizeof(float), what);
    }
    for (e->n = 0; e->n < wanted; e->n++) {
        Rng rng = stream(0, STREAM_QUERY, UINT64_MAX, (uint64_t)e->n);
        const int length = draw_between(&rng, o.query_min, o.query_max);
        e->capacity[e->n] = draw_between(&rng, o.response_min, o.response_max);
        e->prompt[e->n] = next_query(m, w, &q, length, 1,
                                     e->token + (size_t)e->n * (size_t)query_room(m));
        if (!e->prompt[e->n]) break;
    }
    if (!q.count && o.eval_queries) say("no evaluation: the dataset has no held-out documents");
    else if (e->n < o.eval_queries)
        say("evaluation on %s: only so many of %s give one", counted(number[0], (size_t)e->n, "query"),
            counted(number[1], (size_t)q.count, "held-out document"));
}

static int compare_hashes(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

/* Returns how many different pairs of neighbouring words the n texts have together. Words
 * are separated by white space. */
static long long distinct_bigrams(Pool *pool, const char *const *text, const size_t *length, int n) {
    PoolMark mark = pool_mark(pool);
    size_t bytes = 0, count = 0;
    long long distinct = 0;
    for (int i = 0; i < n; i++) bytes += length[i];
    uint64_t *hash = pool_need(pool, bytes / 2 + 1, sizeof *hash, "bigrams");
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
    pool_release(pool, mark);
    return distinct;
}

static void log_evaluation(const Progress *p, Work *work, int k) {
    const Evaluation *e = &work->eval;
    Summary s = summarise(e->score[k], e->n, e->scratch);
    Log l;
    log_begin(&l, work->out.log, &work->pool);
    log_integer(&l, "step", p->step);
    log_number(&l, "eval/reward_mean", s.mean);
    log_number(&l, "eval/reward_median", s.median);
    log_number(&l, "eval/reward_std", s.std);
    log_number(&l, "eval/kl", mean(e->kl[k], e->n));
    log_integer(&l, "eval/distinct_bigrams", e->bigrams[k]);
    log_integer(&l, "eval/queries_cut", e->queries_cut);
    log_integer(&l, "eval/responses_cut", e->responses_cut);
    out_log(&work->out, &l);
}

/* Fills slot k of the evaluation with the policy's responses, their scores and their KL (KL_K1, whatever
 * --kl-penalty is). The texts stay in the pool. */
static void evaluate(const Progress *p, const Models *m, Work *w, int k) {
    Evaluation *e = &w->eval;
    Rollout *x = &w->rollout;
    const size_t room = (size_t)query_room(m);
    e->queries_cut = e->responses_cut = 0;
    for (int first = 0; first < e->n; first += o.batch_size) {
        x->B = smaller(o.batch_size, e->n - first);
        for (int b = 0; b < x->B; b++) {
            const int i = first + b;
            memcpy(query_place(m, x, b), e->token + (size_t)i * room, (size_t)e->prompt[i] * sizeof(int));
            sequence_begin(m, x, b, e->prompt[i], e->capacity[i],
                           stream(o.seed, STREAM_SAMPLE, UINT64_MAX, (uint64_t)i));
        }
        sample_responses(p, m, w);
        score_responses(p, m, w);
        e->queries_cut += x->queries_cut;
        e->responses_cut += x->responses_cut;
        reference_logprobs(m, w);
        kl_penalty(x->kl, x->logprob, x->ref_logprob, x->full_kl, KL_K1, x->P);
        for (int b = 0; b < x->B; b++) {
            const int i = first + b;
            e->query[i] = x->text[b];
            e->query_length[i] = x->query_length[b];
            e->response[k][i] = x->response[b];
            e->response_length[k][i] = x->response_length[b];
            e->score[k][i] = x->raw_score[b];
            e->kl[k][i] = (float)kl_per_sequence(x->kl, x->start + b, 1);
        }
    }
    e->bigrams[k] = distinct_bigrams(&w->pool, e->response[k], e->response_length[k], e->n);
    log_evaluation(p, w, k);
}

static void write_samples(Work *w) {
    const Evaluation *e = &w->eval;
    for (int i = 0; i < e->n; i++) {
        PoolMark mark = pool_mark(&w->pool);
        Log l;
        log_begin(&l, w->samples, &w->pool);
        log_text(&l, "query", e->query[i], e->query_length[i]);
        log_text(&l, "response_before", e->response[0][i], e->response_length[0][i]);
        log_text(&l, "response_after", e->response[1][i], e->response_length[1][i]);
        log_number(&l, "reward_before", e->score[0][i]);
        log_number(&l, "reward_after", e->score[1][i]);
        log_number(&l, "kl_after", e->kl[1][i]);
        out_log(&w->out, &l);
        pool_release(&w->pool, mark);
    }
}

/* ---- the run ---- */

static void train(Progress *p, const Models *m, Work *w) {
    while (p->step < o.steps && !cli_stopping()) {
        PoolMark mark = pool_mark(&w->pool);
        p->step++;
        step_end(p, m, w, ppo_step(p, m, w));
        out_begun(&w->out);
        if (!weights_are_numbers(m)) not_a_number(p, m, w, "the weights are no longer numbers", 0);
        pool_release(&w->pool, mark);
        if (o.save_every && p->step % o.save_every == 0 && p->step < o.steps && !w->health.bad)
            save_result(p->step, m, w, 0);
        if (o.eval_every && p->step % o.eval_every == 0 && p->step < o.steps && w->eval.n)
            evaluate(p, m, w, 1);
        pool_release(&w->pool, mark);
    }
    if (w->out.saved != p->step && !(w->health.bad && w->out.saved)) save_result(p->step, m, w, 1);
}

/* Sets gain and bias so that the scores before training have mean 0 and standard deviation 1. */
static void normalize_scores(Progress *p, Work *w, const Summary *before) {
    if (!(before->std > 0))
        must(fail(&w->err, E_NUMBER, "all scores before training are the same: no deviation to normalize",
                  "", 0, 0), &w->err, "leave --score-normalize out");
    p->gain = 1 / before->std;
    p->bias = -before->mean / before->std;
    say("score = %.6g * reward %+.6g", p->gain, p->bias);
}

/* Evaluates, trains, evaluates again, and prints the result. Both evaluations use the same queries
 * and the same random numbers. */
static void run_all(Progress *p, const Models *m, Work *w) {
    const double begin = wall_clock();
    char time[32], count[64];
    p->gain = 1;
    p->moments.std = p->moments.var = 1;
    p->moments.count = 1e-24;
    p->kl.coef = o.kl_coef;
    p->kl.target = o.target;
    p->kl.horizon = o.adaptive ? o.horizon : 0;
    if (o.eval_queries) evaluation_begin(m, w);
    if (o.score_normalize && !w->eval.n)
        must(fail(&w->err, E_MISSING, "no held-out documents: no scores to normalize with", "", 0, 0),
             &w->err, "leave --score-normalize out");
    if (w->eval.n) {
        evaluate(p, m, w, 0);
        Summary before = summarise(w->eval.score[0], w->eval.n, w->eval.scratch);
        if (o.score_normalize) normalize_scores(p, w, &before);
        say("before: mean reward %.4f, median %.4f on %s", before.mean, before.median,
            counted(count, (size_t)w->eval.n, "held-out query"));
    }
    train(p, m, w);
    if (w->eval.n && !cli_stopping()) {
        evaluate(p, m, w, 1);
        write_samples(w);
        if (p->step) check_health(w);
    }
    if (cli_stopping() && p->step)
        say("stopped: what is saved is the state after step %d; no evaluation after", p->step);
    if (!w->out.lost) report_run(w->out.path, o.show, &w->pool);
    readable_time(time, wall_clock() - begin);
    if (p->step) say("  %s in %s; %s in %s", counted(count, (size_t)p->step, "step"), time,
                     m->adapter ? "adapter and value head" : "model, tokenizer and value head", w->out.where);
    else run_without_steps(&w->out);
    if (!cli_stopping()) health_end(&w->health, &w->out, SMALLER_MOVES);
}

/* ---- memory: the same lines measure and lay out ---- */

static void rollout_carve(Rollout *x, int T, int Q, Arena *a) {
    const size_t B = (size_t)o.batch_size, P = B * (size_t)o.response_max;
    float **const tokens[] = { &x->seq_logprob, &x->seq_value, &x->logprob, &x->value, &x->ref_logprob,
                               &x->full_kl, &x->kl, &x->reward, &x->advantage, &x->returns };
    x->seq = arena_take(a, B, sizeof *x->seq);
    x->token = arena_take(a, B * (size_t)T, sizeof(int));
    x->query = arena_take(a, B * (size_t)Q, sizeof(int));
    x->asked = arena_take(a, B, sizeof(int));
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

static int most_rows(const Models *m) { return larger(o.chunk, o.mini_batch_size) * (m->T - 1); }

static void batch_carve(Batch *k, const Models *m, Arena *a) {
    const size_t C = (size_t)m->config.stack.C, W = (size_t)o.mini_batch_size * (size_t)o.response_max;
    const size_t most = (size_t)larger(o.chunk, o.mini_batch_size) * (size_t)o.response_max;
    float **const tokens[] = { &k->old_logprob, &k->advantage, &k->old_value, &k->returns, &k->new_logprob,
                               &k->entropy, &k->value, &k->dvalue };
    k->hidden = arena_take(a, most * C, sizeof(float));
    k->other_hidden = o.kl_penalty == KL_FULL ? arena_take(a, most * C, sizeof(float)) : NULL;
    k->dhidden = arena_take(a, W * C, sizeof(float));
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) *tokens[i] = arena_take(a, W, sizeof(float));
}

static void queries_carve(Queries *q, const Models *m, Arena *a) {
    const int most = larger(o.chunk, o.mini_batch_size);
    q->token = arena_take(a, (size_t)most * (size_t)m->Q, sizeof(int));
    q->start = arena_take(a, (size_t)most + 1, sizeof(int));
    reading_carve(&q->seen, &m->config, o.chunk * m->Q, o.chunk, 0, 0, a);
    reading_carve(&q->learned, &m->config, o.mini_batch_size * m->Q, o.mini_batch_size, 1, o.quant.recompute,
                  a);
}

/* Makes one list of all trained tensors, so that one optimizer holds their moments. */
static void list_trained(Models *m, Pool *pool) {
    const Tensor *list = m->adapter ? m->lora.tensor : m->policy.tensor;
    const size_t head = sizeof m->head.tensor / sizeof *m->head.tensor;
    m->trained_policy = m->adapter ? m->lora.tensors : m->policy.tensors;
    m->trained_all = m->trained_policy + (int)head;
    m->trained = pool_need(pool, (size_t)m->trained_all, sizeof *m->trained, "the list of tensors");
    memcpy(m->trained, list, (size_t)m->trained_policy * sizeof *list);
    memcpy(m->trained + m->trained_policy, m->head.tensor, sizeof m->head.tensor);
}

/* Lays out the policy, the reference, the adapters, the value head and Adam's moments. */
static void carve_policy(Models *m, Optimizer *optimizer, Pool *pool, Arena *a, Bill *bill) {
    const int adapts = o.lora.rank > 0 || o.adapter;
    const Tensor *base;
    Error err = { 0 };
    must(model_carve(&m->policy, &m->config, &m->types, !adapts, larger(m->T, m->Q), pool, a,
                     &err), &err, NULL);
    base = m->policy.tensor;
    bill_part(bill, adapts ? "policy (frozen; also the reference)" : "policy and gradients", a);
    m->reference = &m->policy;
    m->reference_adapter = NULL;
    m->adapter = adapts ? &m->lora : NULL;
    if (adapts) {
        adapter_carve(&m->lora, &m->lora_config, base, m->policy.tensors, 1, pool, a);
        bill_part(bill, "LoRA adapter and gradients", a);
    }
    if (o.adapter) {
        adapter_carve(&m->start_lora, &m->lora_config, base, m->policy.tensors, 0, pool, a);
        m->reference_adapter = &m->start_lora;
        bill_part(bill, "reference adapter (frozen)", a);
    }
    if (!adapts) {
        must(model_carve(&m->frozen, &m->config, &m->types, 0, larger(m->T, m->Q), pool, a, &err), &err,
             NULL);
        m->reference = &m->frozen;
        bill_part(bill, "reference (frozen copy)", a);
    }
    value_head_carve(&m->head, m->config.stack.C, 1, a);
    list_trained(m, pool);
    optimizer_carve(optimizer, m->trained, m->trained_all, a);
    bill_part(bill, "value head, Adam's moments", a);
}

static void carve(void *run, Arena *a, Bill *bill) {
    Whole *r = run;
    Models *m = &r->models;
    Work *w = &r->work;
    carve_policy(m, &r->progress.optimizer, &w->pool, a, bill);
    if (!o.reward_text) {
        must(reward_carve(&m->judge, &m->judge_config, &m->judge_types, TRAIN_NOTHING, &w->pool, a, &w->err),
             &w->err, NULL);
        w->judge.logits = arena_take(a, (size_t)o.chunk * (size_t)m->judge_config.labels, sizeof(float));
        bill_part(bill, "judge (frozen)", a);
    }
    cache_carve(&w->cache, &m->config.stack, m->config.stack.L, larger(o.chunk, o.mini_batch_size), m->T, a);
    bill_part(bill, "keys and values", a);
    saved_carve(&w->saved, &m->config.stack, o.mini_batch_size * (m->T - 1),
                o.mini_batch_size * o.response_max, o.quant.recompute, a);
    if (m->Q) queries_carve(&w->queries, m, a);
    bill_part(bill, "activations for backward", a);
    batch_carve(&w->batch, m, a);
    rollout_carve(&w->rollout, m->T, m->Q, a);
    bill_part(bill, "rollout and mini-batch", a);
}

/* Measures the judge's forward (ws measures) with one text of the greatest length and many short texts.
 * Returns OK or the model's error. */
static int measure_judge(const Models *m, Work *w, Arena *ws) {
    JudgeBatch *j = &w->judge;
    const int longest = reward_max_tokens(&m->judge_config);
    for (int i = 0; i <= o.chunk; i++) j->start[i] = i ? smaller(longest + i - 1, j->room) : 0;
    j->start[o.chunk] = j->room;
    for (int i = 0; i < j->room; i++) j->token[i] = m->judge_config.bos;
    const Texts texts = { j->room, o.chunk, j->token, j->start };
    return reward_forward(&m->judge, NULL, &texts, NULL, j->logits, ws);
}

/* Measures the encoder, if there is one, with queries of the greatest length; learns 1: of a mini-batch. */
static int measure_queries(const Models *m, Work *w, int learns, Arena *ws) {
    const int n = learns ? o.mini_batch_size : o.chunk;
    const Texts texts = { n * m->Q, n, NULL, NULL };
    if (!m->Q) return OK;
    w->cache.reading = learns ? &w->queries.learned : &w->queries.seen;
    return model_encode(&m->policy, m->adapter, &texts, w->cache.reading, ws);
}

/* Returns the bytes of work space that the largest call of a run needs: makes the same calls, measuring, with
 * the longest sequences and texts. */
static size_t workspace(void *run) {
    Whole *r = run;
    Models *m = &r->models;
    Work *w = &r->work;
    PoolMark pool = pool_mark(&w->pool);
    const float temperature = (float)o.temperature;
    const Writing writing = { .adapter = m->adapter, .head = &m->head, .sampling = { temperature, 0, 1 } };
    const HeadTask read = { .temperature = temperature };
    const HeadTask learn = { .temperature = temperature, .loss = token_loss };
    const int n = larger(o.chunk, o.mini_batch_size);
    int *token = pool_need(&w->pool, (size_t)m->T, sizeof *token, "measuring"), code;
    Sequence *seq = pool_need(&w->pool, (size_t)n, sizeof *seq, "measuring");
    Batch *k = &w->batch;
    Arena ws = { 0 };
    for (int i = 0; i < n; i++) {
        seq[i].token = token;
        seq[i].prompt = seq[i].length = m->T - o.response_max;
        seq[i].capacity = m->T;
    }
    code = measure_queries(m, w, 0, &ws);
    if (!code) code = model_generate(&m->policy, &writing, seq, o.chunk, &w->cache, &ws);
    for (int i = 0; i < n; i++) seq[i].length = m->T;
    Rows rows = fill_rows(k, seq, NULL, o.chunk);
    if (!code) code = model_forward(m->reference, m->reference_adapter, &rows, &w->cache, NULL, k->hidden,
                                    &ws);
    if (!code) code = model_logprobs(m->reference, m->reference_adapter, k->hidden, rows.W, &read, &ws);
    if (!code && o.kl_penalty == KL_FULL)
        code = model_forward(&m->policy, m->adapter, &rows, &w->cache, NULL, k->hidden, &ws);
    const States policy = { &m->policy, m->adapter, k->hidden };
    const States reference = { m->reference, m->reference_adapter, k->hidden };
    if (!code && o.kl_penalty == KL_FULL)
        code = model_full_kl(&policy, &reference, rows.W, temperature, NULL, &ws);
    rows = fill_rows(k, seq, NULL, o.mini_batch_size);
    if (!code) code = measure_queries(m, w, 1, &ws);
    if (!code) code = model_forward(&m->policy, m->adapter, &rows, &w->cache, &w->saved, k->hidden, &ws);
    if (!code) code = model_logprobs(&m->policy, m->adapter, k->hidden, rows.W, &learn, &ws);
    model_values(&m->head, k->hidden, NULL, rows.W, &ws);
    model_values_backward(&m->head, NULL, k->hidden, NULL, rows.W, &ws);
    if (!code) code = model_backward(&m->policy, m->adapter, &rows, &w->cache, &w->saved, NULL, &ws);
    if (m->adapter) lora_norms(&m->lora, m->policy.tensor, &ws);
    if (!code && !o.reward_text) code = measure_judge(m, w, &ws);
    must(code, NULL, "report this as a bug: measuring failed");
    pool_release(&w->pool, pool);
    return ws.peak;
}

/* ---- opening ---- */

static void prepare_policy(Models *m, Work *w, const Program *p) {
    int before, after;
    m->tokenizer = open_policy(&m->config, o.policy, o.tokenizer, &w->pool);
    if (o.no_special) tokenizer_split_special(m->tokenizer);
    quant_options_types(&m->types, p, &o.quant, o.policy, !o.lora.rank && !o.adapter, &w->pool);
    tokenizer_template(m->tokenizer, &before, &after);
    m->bos = before ? tokenizer_specials(m->tokenizer).bos : -1;
    m->after = -1;
    m->T = before + o.query_max + o.response_max;
    if (m->config.encoder.L) {
        m->after = after ? tokenizer_specials(m->tokenizer).eos : -1;
        m->Q = before + o.query_max + after;
        m->T = 1 + o.response_max;
    }
    if (larger(m->T, m->Q) > m->config.positions) {
        fail(&w->err, E_RANGE, "query and response are longer than the policy's positions", o.policy, m->T,
             m->config.positions);
        die(&w->err, "a smaller --query-max or --response-max");
    }
    m->lora_config = o.adapter ? open_adapter_config(o.adapter, &w->pool)
                               : adapter_options(&o.lora, m->config.names, &w->pool);
    if (m->config.encoder.L) m->lora_config.task = "SEQ_2_SEQ_LM";
    rows_take(&w->batch.rows, most_rows(m), &w->pool);
}

static void prepare_judge(Models *m, Work *w, const Program *p) {
    const QuantOptions held = { o.reward_nf4, 0, 64, 0, o.quant.compute, 0 };
    if (o.reward_text) return;
    m->judge_tokenizer = open_judge(&m->judge_config, o.reward, NULL, &w->pool);
    if (o.no_special) tokenizer_split_special(m->judge_tokenizer);
    judge_options_types(&m->judge_types, p, &held, &m->judge_config, o.reward, 0, &w->pool);
    m->label = label_need(&m->judge_config, o.label, "--label");
    tokenizer_template(m->judge_tokenizer, &m->adds_bos, &m->adds_eos);
    const int empty = empty_text_id(m->judge_tokenizer);
    if (!m->adds_bos && !m->adds_eos && (empty < 0 || empty >= m->judge_config.V)) {
        fail(&w->err, E_MISSING, "an empty text would have no token for the judge: its tokenizer has no "
             "template, no bos and no eos", o.reward, 0, 0);
        die(&w->err, "a tokenizer_config.json there that names a bos_token or an eos_token");
    }
    m->judge_most = judge_limit(&m->judge_config, m->judge_tokenizer) - m->adds_bos - m->adds_eos;
    w->judge.room = larger(reward_max_tokens(&m->judge_config), 1024 + o.chunk);
    w->judge.token = pool_need(&w->pool, (size_t)w->judge.room, sizeof(int), "the judge's texts");
    w->judge.start = pool_need(&w->pool, (size_t)o.chunk + 1, sizeof(int), "the judge's texts");
}

/* Cuts 32 texts of --response-max tokens of the policy from the training documents, which follow one another.
 * Returns how many of the judge's tokens the longest of these texts has. */
static int longest_response(const Models *m, Work *w, const Queue *q) {
    enum { TEXTS = 32 };
    const PoolMark mark = pool_mark(&w->pool);
    int *token = pool_need(&w->pool, (size_t)o.response_max, sizeof *token, "a response"), have = 0;
    int longest = 0, texts = 0;
    /* few documents are read again and again, until there is a text */
    for (int i = 0; texts < TEXTS && (i < q->count || !texts); i++) {
        const Document *d = &w->data.document[q->document[i % q->count]];
        const PoolMark text_mark = pool_mark(&w->pool);
        int *ids, *read, n, judged;
        char *text;
        size_t bytes;
        must(tokenizer_encode(m->tokenizer, d->text[0], d->length[0], &w->pool, &ids, &n), NULL, NULL);
        for (int k = 0; k < n && texts < TEXTS; k++) {
            token[have++] = ids[k];
            if (have < o.response_max) continue;
            have = 0;
            texts++;
            must(tokenizer_decode(m->tokenizer, token, o.response_max, &w->pool, &text, &bytes), NULL, NULL);
            must(tokenizer_encode(m->judge_tokenizer, text, bytes, &w->pool, &read, &judged), NULL, NULL);
            longest = larger(longest, judged);
        }
        pool_release(&w->pool, text_mark);
    }
    pool_release(&w->pool, mark);
    return longest;
}

/* Dies if the judge cannot read texts that are as long as responses can be, unless --long-response is cut.
 * Responses of other texts may still be too long: those are cut, and counted in the log. */
static void check_responses(const Models *m, Work *w, const Queue *q) {
    const int longest = o.reward_text || o.long_response == LONG_CUT ? 0 : longest_response(m, w, q);
    char hint[120];
    if (longest <= m->judge_most) return;
    snprintf(hint, sizeof hint, "--response-max %d, or --long-response cut: then the judge reads their ends",
             larger(1, (int)((double)o.response_max * m->judge_most / longest)));
    fail(&w->err, E_RANGE, "responses of --response-max tokens have more of the judge's tokens than it reads",
         o.reward, longest, m->judge_most);
    die(&w->err, hint);
}

/* Prints the models, the reward and the share of trained parameters. */
static void say_what(const Models *m, const Work *w, const Queue *training, const char *data) {
    const StackKind *c = &m->config.stack, *j = &m->judge_config.stack;
    const size_t trainable = tensor_values(m->trained, m->trained_all, 1);
    const size_t frozen = m->adapter ? tensor_values(m->policy.tensor, m->policy.tensors, 0) : 0;
    const size_t held = (size_t)w->data.count - (size_t)training->count;
    char number[64], range[2][32];
    say("data %s: %s, %s held out; seed %llu", data, counted(number, (size_t)w->data.count, "document"),
        with_commas(range[0], held), (unsigned long long)o.seed);
    say("policy %s: %s, C %d, L %d, H %d, K %d, F %d, V %d", o.policy, config_written(m->config.names, 0),
        c->C, c->L, c->H, c->K, c->F, m->config.V);
    print_types(m->adapter ? "frozen weights" : "weights", &m->types);
    if (o.reward_text) say("reward = number of '%s' in the response", o.reward_text);
    else {
        const char *read = o.score == SCORE_BOTH ? "query + response" : "the response alone";
        with_commas(range[0], tensor_values(m->judge.tensor, m->judge.tensors, 0));
        say("judge %s: %s, C %d, L %d, H %d, F %d, V %d, %s parameters", o.reward,
            config_written(m->judge_config.names, 1), j->C, j->L, j->H, j->F, m->judge_config.V, range[0]);
        if (m->judge_types.layers != F32) print_types("judge's weights", &m->judge_types);
        if (m->judge_config.labels == 1) say("reward = the judge's logit for %s", read);
        else say("reward = logit of '%s' for %s", m->judge_config.label[m->label], read);
    }
    char targets[60];
    if (!m->adapter) say("training all weights; the reference is a frozen copy");
    else say("training a LoRA adapter (r %d, alpha %g, %s); the reference is %s", m->lora.config.R,
             (double)m->lora.config.alpha, adapter_targets(targets, sizeof targets, &m->lora.config),
             o.adapter ? "a frozen copy of the adapter it starts from" : "the policy without it");
    print_trainable(trainable, frozen + tensor_values(m->trained, m->trained_all, 0));
    say("queries of %s tokens%s, responses %s %s", from_to(range[0], o.query_min, o.query_max),
        m->bos >= 0 ? " after <s>" : "", o.response_min == o.response_max ? "of up to" : "cut after",
        from_to(range[1], o.response_min, o.response_max));
}

/* Loads all weights. keep_head 1: the value head starts as --value-init says, even if
 * a folder has a value head. */
static void load_weights(Models *m, Optimizer *optimizer, Pool *pool, int keep_head) {
    open_weights(m->policy.tensor, m->policy.tensors, o.policy, "--policy", NULL, pool);
    if (!m->adapter) model_copy(&m->frozen, &m->policy);
    else if (!o.adapter) lora_init(&m->lora, stream(o.seed, STREAM_INIT, 0, 0).state);
    else {
        open_adapter(&m->start_lora, m->policy.tensor, m->policy.tensors, o.adapter, pool);
        lora_copy(&m->lora, &m->start_lora);
    }
    value_head_init(&m->head, stream(o.seed, STREAM_INIT, 0, 1).state, o.value_init == VALUE_ZERO);
    if (!keep_head) {
        const char *from = o.adapter && open_value_head(&m->head, o.adapter, pool) ? o.adapter
                         : open_value_head(&m->head, o.policy, pool) ? o.policy : NULL;
        if (from) say("value head from %s", from);
    }
    if (!o.reward_text) open_weights(m->judge.tensor, m->judge.tensors, o.reward, "--reward", NULL, pool);
    optimizer_reset(optimizer);
}

/* Makes the run folder and begins its log. */
static void run_begin(Work *w, const Program *p, const char *data) {
    w->out.fallback = o.fallback;
    out_open(&w->out, NULL, 0, o.out, "ppo");
    log_options(w->out.log, p, data, &w->pool);
    snprintf(w->samples, sizeof w->samples, "%s/samples.jsonl", w->out.path);
    say("run folder %s", w->out.path);
    if (o.dump) must(file_write_all(o.dump, "", 0, &w->pool, &w->err), &w->err, "--dump-rollouts FILE");
}

/* Returns the exit code. */
static int run(const Program *p, const char *data) {
    static Whole r;
    Models *m = &r.models;
    Work *w = &r.work;
    RunMemory memory = { &r, carve, workspace, { { NULL }, { 0 }, 0, 0 }, 0, 0 };
    w->pool = cli_pool();
    must(dataset_read(&w->data, data, &w->pool, &w->err), &w->err,
         "a dataset made by ./prep, or data/imdb.bin made by make");
    r.progress.queue = queue_of_split(w, 0, o.seed);
    prepare_policy(m, w, p);
    prepare_judge(m, w, p);
    check_queries(m, w, &r.progress.queue);
    check_responses(m, w, &r.progress.queue);
    memory_measure(&memory);
    say_what(m, w, &r.progress.queue, data);
    bill_add(&memory.bill, "data set, tokenizers, lists", w->pool.total);
    bill_add(&memory.bill, "the program itself", (size_t)4 << 20);      /* code, C library, stacks */
    bill_print(&memory.bill);
    run_room(o.out, m->adapter ? m->lora.tensor : m->policy.tensor,
             m->adapter ? m->lora.tensors : m->policy.tensors, o.dtype,
             o.save_every, o.steps, o.dry_run);
    if (o.dry_run) return 0;
    memory_take(&memory, &w->ws);
    load_weights(m, &r.progress.optimizer, &w->pool, cli_given(p, "value-init"));
    cli_interrupts();
    run_begin(w, p, data);
    run_all(&r.progress, m, w);
    return run_code(&w->out);
}

/* ---- options ---- */

#define COUNT(low) low, INT_MAX
#define REAL(low) low, HUGE_VAL
static Option options[] = {
    { "policy", OPT_TEXT, &o.policy, "data/policy", 0, 0, NULL, "model folder of the policy" },
    { "reward", OPT_TEXT, &o.reward, "data/reward", 0, 0, NULL, "model folder of the judge" },
    { "label", OPT_TEXT, &o.label, NULL, 0, 0, NULL,
      "label whose logit is the reward; needed unless the judge has one output, "
      "or exactly one named positive, pos, nothate or non-toxic" },
    { "score", OPT_CHOICE, &o.score, "query+response", 0, 0, "query+response|response",
      "what the judge reads; of a text that is too long for it, the end, so that the query is cut" },
    { "long-response", OPT_CHOICE, &o.long_response, "refuse", 0, 0, "refuse|cut",
      "what to do if the judge cannot read a whole response of --response-max tokens: refuse to start, or "
      "let it read the end of such responses (env/responses_cut in the log counts them)" },
    { "reward-text", OPT_TEXT, &o.reward_text, NULL, 0, 0, NULL,
      "no judge: the reward is how often this text occurs in the response (to try things)" },
    { "out", OPT_TEXT, &o.out, "runs", 0, 0, NULL, "folder for run folders" },
    FALLBACK_OPTION(o.fallback),
    { "steps", OPT_INT, &o.steps, "157", COUNT(0), NULL,
      "PPO steps (batches of responses; 0: evaluate, and train nothing)" },
    SEED_OPTION(o.seed, "0", "random seed of samples, queries, mini-batches and new weights"),
    DRY_RUN_OPTION(o.dry_run),

    { "batch-size|batch", OPT_INT, &o.batch_size, "128", COUNT(1), NULL, "responses per step" },
    { "mini-batch-size", OPT_INT, &o.mini_batch_size, "128", COUNT(1), NULL,
      "responses per forward and backward pass" },
    { "gradient-accumulation-steps", OPT_INT, &o.accumulation, "1", COUNT(1), NULL,
      "mini-batches per update; the loss is the mean over all their tokens" },
    { "ppo-epochs", OPT_INT, &o.ppo_epochs, "4", COUNT(1), NULL, "passes over a step's responses" },
    { "learning-rate|lr", OPT_REAL, &o.lr, "1.41e-5", REAL(0), NULL, "Adam's learning rate" },
    { "value-learning-rate", OPT_REAL, &o.value_lr, "0", REAL(0), NULL,
      "Adam's learning rate for the value head; 0: as --learning-rate" },
    { "lr-anneal", OPT_CHOICE, &o.lr_anneal, "none", 0, 0, "none|linear",
      "linear: decreases to the last step, whose own rate is the first step's divided by --steps, as in "
      "OpenAI's code" },
    { "adam-eps", OPT_REAL, &o.adam_eps, "1e-8", REAL(0), NULL,
      "Adam's epsilon (PyTorch's: 1e-8; OpenAI's code: 1e-5)" },
    { "adam-tf-style", OPT_FLAG, &o.adam_tf, NULL, 0, 0, NULL,
      "add eps before the bias correction, as TensorFlow 1 did" },
    { "max-grad-norm|clip", OPT_REAL, &o.max_grad_norm, "0", REAL(0), NULL,
      "scale gradients down to this norm, in every update; 0: never" },

    { "init-kl-coef|kl-coef|beta", OPT_REAL, &o.kl_coef, "0.2", REAL(0), NULL,
      "KL coefficient at the start" },
    { "adap-kl-ctrl", OPT_FLAG, &o.adaptive, "yes", 0, 0, NULL,
      "adapt the coefficient to --target (off: --adap-kl-ctrl=no)" },
    { "target", OPT_REAL, &o.target, "6", REAL(1e-6), NULL,
      "KL per response at which the controller aims" },
    { "horizon", OPT_REAL, &o.horizon, "10000", REAL(1), NULL,
      "responses over which the controller adapts the coefficient" },
    { "kl-penalty", OPT_CHOICE, &o.kl_penalty, "kl", 0, 0, "kl|abs|mse|full|k3",
      "penalty of a response token, before the coefficient, from its d = log policy - log reference:\n"
      "kl: d, the only kind that leads to the optimum of reward - coefficient * KL\n"
      "abs: |d|; mse: d^2/2; k3: exp(-d) - 1 + d: never negative; they hold back a token that became "
      "likelier, but push one that became rarer further away\n"
      "full: the exact KL between the two distributions of the token, whichever token was drawn: it holds "
      "back the tokens that lead there, but not this one\n" },
    { "gamma", OPT_REAL, &o.gamma, "1", 0, 1, NULL, "discount" },
    { "lam", OPT_REAL, &o.lam, "0.95", 0, 1, NULL, "GAE's lambda" },
    { "cliprange", OPT_REAL, &o.clip, "0.2", REAL(1e-6), NULL,
      "the loss clips the policy ratio to 1 +- this" },
    { "cliprange-value", OPT_REAL, &o.clip_value, "0.2", REAL(0), NULL,
      "the loss clips a value to its old value +- this; 0: no clipping" },
    { "vf-coef", OPT_REAL, &o.vf_coef, "0.1", REAL(0), NULL, "weight of the value loss" },
    { "ratio-threshold", OPT_REAL, &o.ratio_threshold, "10", REAL(0), NULL,
      "leave out updates whose mean ratio is above this; 0: none" },
    { "early-stopping", OPT_FLAG, &o.early_stopping, NULL, 0, 0, NULL,
      "end a step's epochs when the last update's policy KL is above 1.5 times --target-kl" },
    { "target-kl", OPT_REAL, &o.target_kl, "1", REAL(1e-9), NULL,
      "the policy KL that --early-stopping compares with" },
    { "whiten-rewards", OPT_FLAG, &o.whiten_rewards, NULL, 0, 0, NULL,
      "scale token rewards to deviation 1, keeping their mean" },
    { "biased-variance", OPT_FLAG, &o.biased, NULL, 0, 0, NULL,
      "whiten with n instead of n - 1, as OpenAI and OpenRLHF do" },

    { "use-score-scaling", OPT_FLAG, &o.score_scaling, NULL, 0, 0, NULL,
      "divide scores by their running deviation" },
    { "use-score-norm", OPT_FLAG, &o.score_norm, NULL, 0, 0, NULL,
      "with --use-score-scaling: subtract the running mean of the scores too" },
    { "score-clip", OPT_REAL, &o.score_clip, "0", REAL(0), NULL,
      "then clip scores to +- this; 0: no clipping" },
    { "score-normalize", OPT_FLAG, &o.score_normalize, NULL, 0, 0, NULL,
      "scale and shift all scores so that those of the untrained policy on the evaluation queries have "
      "mean 0 and deviation 1" },
    { "missing-eos-penalty", OPT_REAL, &o.eos_penalty, "0", REAL(0), NULL,
      "subtracted from the score of a response without EOS" },

    { "query-min", OPT_INT, &o.query_min, "2", COUNT(1), NULL, "fewest tokens of a query" },
    { "query-max", OPT_INT, &o.query_max, "7", COUNT(1), NULL,
      "most tokens of a query (TRL's LengthSampler(2, 8) is --query-min 2 --query-max 7)" },
    { "response-min", OPT_INT, &o.response_min, "4", COUNT(1), NULL,
      "a response is cut after a random number of tokens: the smallest such number" },
    { "response-max", OPT_INT, &o.response_max, "15", COUNT(1), NULL,
      "the largest such number" },
    { "temperature", OPT_REAL, &o.temperature, "1", REAL(0.01), NULL,
      "divides the logits, in sampling, in the reference and in the loss" },
    { "top-k", OPT_INT, &o.top_k, "0", COUNT(0), NULL, "refused unless 0" },
    { "top-p", OPT_REAL, &o.top_p, "1", 0, 1, NULL, "refused unless 1" },
    { "dropout", OPT_REAL, &o.dropout, "0", 0, 1, NULL, "refused unless 0" },

    { "tokenizer", OPT_TEXT, &o.tokenizer, NULL, 0, 0, NULL,
      "the policy's tokenizer, if its folder has none" },
    NO_SPECIAL_OPTION(o.no_special),
    LORA_OPTIONS(o.lora),
    { "adapter", OPT_TEXT, &o.adapter, NULL, 0, 0, NULL,
      "start from this PEFT adapter; the reference is a frozen copy of it" },
    { "value-init", OPT_CHOICE, &o.value_init, "zero", 0, 0, "zero|pytorch",
      "value head at the start, if the folders have none (value_head.safetensors, or TRL's v_head)" },
    QUANT_OPTIONS(o.quant, QLORA_HELP "; without --lora-r or --adapter, with an adapter of rank 16 on all "
                  "seven linears"),
    { "reward-nf4", OPT_FLAG, &o.reward_nf4, NULL, 0, 0, NULL,
      "hold the judge's linears in 4-bit NF4 (else it is held as its folder has it)" },
    COMPUTE_OPTION(o.quant),
    RECOMPUTE_OPTION(o.quant),
    DTYPE_OPTION(o.dtype),

    { "eval-queries", OPT_INT, &o.eval_queries, "256", COUNT(0), NULL,
      "held-out queries scored before and after; the same for every seed" },
    { "eval-every", OPT_INT, &o.eval_every, "0", COUNT(0), NULL,
      "steps between further evaluations on them; 0: none" },
    { "show", OPT_INT, &o.show, "10", COUNT(0), NULL, "rows of the table at the end" },
    { "save-every", OPT_INT, &o.save_every, "20", COUNT(0), NULL,
      "steps between saves of the result; 0: saved only at the end" },
    { "chunk", OPT_INT, &o.chunk, "64", COUNT(1), NULL,
      "texts that go through a model at a time, outside training; changes memory and speed, never results" },
    { "dump-rollouts", OPT_TEXT, &o.dump, NULL, 0, 0, NULL,
      "write the responses of every step to this file, a JSON line for each: ids, and for each token "
      "log-probs, value, KL, reward, advantage, return" },
};

static const char *const imdb_small[] = {
    "steps", "38", "batch-size", "192", "mini-batch-size", "48", "ppo-epochs", "2", "learning-rate", "1.4e-4",
    "value-learning-rate", "3e-3", "init-kl-coef", "0.2", "target", "6", "horizon", "4000", "lam", "1",
    "cliprange-value", "0", "vf-coef", "0.1", "max-grad-norm", "1", "query-min", "4", "query-max", "8",
    "response-min", "32", "response-max", "32", "value-init", "zero", NULL };
#define TRL_DEFAULTS \
    "batch-size", "128", "mini-batch-size", "128", "ppo-epochs", "4", \
    "learning-rate", "1.41e-5", "init-kl-coef", "0.2", "target", "6", "horizon", "10000", "lam", "0.95", \
    "cliprange", "0.2", "cliprange-value", "0.2", "vf-coef", "0.1", "max-grad-norm", "0", \
    "ratio-threshold", "10", "query-min", "2", "query-max", "7", "response-min", "4", "response-max", "15", \
    "value-init", "pytorch"
static const char *const trl_classic[] = { "steps", "157", TRL_DEFAULTS, NULL };
/* one pass over IMDB's 24,895 training reviews of more than 200 characters */
static const char *const sentiment[] = { "steps", "194", "label", "positive", TRL_DEFAULTS, NULL };
static const Preset presets[] = {
    { "imdb-small", "tuned for the models in data/, which learn the task in about a minute (the default for "
      "data/policy)", imdb_small },
    { "trl-classic", "the hyper-parameters of TRL 0.11.4's PPOConfig (the default for any other --policy)",
      trl_classic },
    { "sentiment", "TRL's gpt2-sentiment notebook: GPT-2 against DistilBERT's logit of POSITIVE on IMDB "
      "(prep data --min-length 201), queries of 2 to 7 tokens, responses of 4 to 15", sentiment },
};
static const Need needs[] = {
    { "reward|label|score|reward-nf4|long-response", "!reward-text", "no judge is asked" },
    { "target|horizon", "adap-kl-ctrl", "the coefficient stays as it is" },
    { "target|horizon", "init-kl-coef", "a coefficient of 0 stays 0" },
    { "target-kl", "early-stopping", NULL },
    { "use-score-norm", "use-score-scaling", NULL },
    { "score-normalize", "eval-queries", "the scores before training are those of the evaluation" },
    { "eval-every|show", "eval-queries", "nothing is evaluated" },
    { "cliprange-value|value-learning-rate", "vf-coef", "nothing is learned by the value head" },
    { "lora-r|lora-alpha|lora-targets|lora-rslora", "!adapter", "the adapter's config has them" },
    QUANT_NEEDS, LORA_NEEDS,
    { NULL, NULL, NULL } };

static const char *usual_preset(const char **why) {
    const int ours = !strcmp(o.policy, "data/policy") || file_same(o.policy, "data/policy");
    *why = ours ? "for the policy in data/policy" : "for another --policy than data/policy";
    return ours ? "imdb-small" : "trl-classic";
}

/* Refuses a value that is above the value of another option. */
static void refuse_above(const char *name, long long value, const char *limit, int most) {
    char message[160], hint[160], number[24];
    if (value <= most) return;
    snprintf(message, sizeof message, "%s is %lld, more than %s", name, value, limit);
    snprintf(hint, sizeof hint, "a smaller %s, or a larger %s", name, limit);
    snprintf(number, sizeof number, "%d", most);
    usage_hint(message, number, hint);
}

/* Refuses values that do not fit together. */
static void check_options(const Program *p) {
    static Pool names;                      /* keeps the names of an adapter's folders */
    names = cli_pool();
    adapter_as_model(&o.policy, &o.adapter, "--policy BASE --adapter ADAPTER", &names);
    static const char cut[] = "is refused: the loss would need log-probs of the cut distribution, and the "
                              "policy could never learn tokens that it may not sample";
    char message[200];
    snprintf(message, sizeof message, "--top-%c %s", o.top_k ? 'k' : 'p', cut);
    if (o.top_k != 0 || o.top_p != 1) usage_error(message, "sample with --temperature alone");
    if (o.dropout != 0)
        usage_error("--dropout is refused: the ratio of new to old log-probs would be noise",
                    "dropout is for sft and rm");
    refuse_above("--query-min", o.query_min, "--query-max", o.query_max);
    refuse_above("--response-min", o.response_min, "--response-max", o.response_max);
    refuse_above(o.accumulation == 1 ? "--mini-batch-size"
                                     : "--mini-batch-size times --gradient-accumulation-steps",
                 (long long)o.mini_batch_size * o.accumulation, "--batch-size", o.batch_size);
    quant_options_check(p, &o.quant, &o.lora.rank, &o.lora.targets, o.adapter != NULL);
    if (o.reward_text && !o.reward_text[0]) usage_error("nothing to count", "--reward-text");
    if ((long long)o.batch_size * ((long long)o.query_max + o.response_max + 1) > INT_MAX / 4)
        usage_error("too many tokens in a batch; one of these is too large",
                    "--batch-size, --query-max, --response-max");
    if (o.lr <= 0 && o.steps > 0) usage_error("nothing is learned with", "--learning-rate 0");
    /* an update of the controller changes the coefficient by up to 0.2 batch / horizon of it */
    if (o.adaptive && o.horizon <= 0.2 * o.batch_size)
        usage_error("one batch would take the KL coefficient to 0 or below it: a fifth of --batch-size "
                    "has to be less than", "--horizon");
    o.chunk = smaller(o.chunk, o.batch_size);
}

static const Program program = {
    .program = "ppo",
    .usage = "DATA [--policy DIR] [--reward DIR] [--steps N] ...",
    .about = "Proximal policy optimisation of a language model against a judge. DATA is a dataset made by "
             "prep; queries are the first tokens of its documents.",
    OPTIONS(options), PRESETS(presets), .need = needs, .usual = usual_preset, .check = check_options };

int main(int argc, char **argv) {
    const char *data = NULL;
    if (!cli_parse(&program, argc, argv, &data, 1)) usage_hint("which dataset?", NULL, "./ppo data/imdb.bin");
    const char *const input[] = { data, o.policy, o.reward_text ? NULL : o.reward, o.adapter, o.tokenizer };
    if (o.dump) out_file_check("--dump-rollouts", o.dump, input, 5);
    cli_say_preset();
    say_digits();
    return run(&program, data);
}
