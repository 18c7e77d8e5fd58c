/* run_eval.h - what run_eval.c and its part, run_eval_samples.c, share. */
#ifndef RUN_EVAL_H
#define RUN_EVAL_H

#include "run.h"

enum { POLICIES_MAX = 16, RESAMPLES = 10000, TOXIC_SAMPLES = 25 };
enum { SCORE_BOTH, SCORE_RESPONSE };
typedef struct {
    const char *data, *reward, *reward_adapter, *base, *label, *toxicity, *out;
    int queries, all, query, n, samples, best_of, batch, top_k, score, plain, json, seeds;
    double temperature, top_p;
    uint64_t seed;
    QuantOptions quant;
} Settings;

/* The ids of a query in a policy's tokens, with what the template adds. */
typedef struct { int *ids, count; } Query;
typedef struct { const char *text; size_t length; } Text;

/* A policy that is compared, and what its samples gave: sample k of query q has the index q * samples + k.
 * same 1: its tokens are those of the first policy. */
typedef struct {
    const char *name, *folder, *adapter;
    Policy policy;
    Batch batch;
    Query *query;
    int same;
    Text *response;
    float *reward, *toxicity;
    long long tokens, first_tokens;         /* of all responses: its own; those that the first one reads */
    double kl, first_logprob;               /* sums over all responses */
    int cut;                                /* texts that the judge read without their beginning */
    /* what is reported */
    Summary rewards, toxic;
    Interval difference;                    /* of the mean reward, to the first policy's */
    double best, expected_maximum, any_toxic;
    Ngrams ngrams[2];
} Compared;

typedef struct {
    Settings set;
    const Program *program;
    Compared *entry; int entries;
    Judge judge; ScoreBatch scores; int label, toxic;
    Text *text; int queries;                /* the queries */
    Writer *out;
    Pool keep, scratch;
} Eval;

static inline int encoder(const Policy *p) { return p->config.encoder.L > 0; }

/* Returns the ids of a query's text: with bos if the template has it, and if an encoder reads it, eos. limit:
 * only the first so many ids of the text (0: all). *whole: how many ids the text has. */
Query query_ids(const Policy *p, const char *text, size_t n, int limit, Pool *pool, int *whole);
/* Makes the queries: the first --query tokens of texts that have more, or whole prompts that leave room for
 * -n tokens; of the held-out documents, or of all. Their order is that of a shuffle, always the same one. */
void make_queries(Eval *e);
/* Writes, judges and measures the samples first .. first+n-1 of a policy. */
void take_samples(Eval *e, Compared *p, int first, int n);
/* Appends , "NAME": x, or null if x is no number. */
void put_number(Buffer *b, const char *name, double x);

#endif
