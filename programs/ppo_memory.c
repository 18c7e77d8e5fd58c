/* programs/ppo_memory.c - the memory of a run: the same lines measure it and lay it out. */
#include "ppo.h"

static void rollout_carve(Rollout *x, const Models *m, Arena *a) {
    const Settings *o = m->o;
    const size_t B = (size_t)o->batch_size, P = B * (size_t)o->response_max;
    float **const tokens[] = { &x->seq_logprob, &x->seq_value, &x->logprob, &x->value, &x->ref_logprob,
                               &x->full_kl, &x->kl, &x->reward, &x->advantage, &x->returns };
    x->seq = arena_take(a, B, sizeof *x->seq);
    x->token = arena_take(a, B * (size_t)m->T, sizeof(int));
    x->query = arena_take(a, B * (size_t)m->Q, sizeof(int));
    x->asked = arena_take(a, B, sizeof(int));
    x->stopped = arena_take(a, B, 1);
    x->start = arena_take(a, B + 1, sizeof(int));
    x->order = arena_take(a, B, sizeof(int));
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) *tokens[i] = arena_take(a, P, sizeof(float));
    const size_t sets = keeps_sets(o) ? P * kept_bytes(m->config.V) : 0;
    x->kept = sets ? arena_take(a, sets, 1) : NULL;
    x->scratch = arena_take(a, P + 2 * B, sizeof(float));
    x->raw_score = arena_take(a, B, sizeof(float));
    x->score = arena_take(a, B, sizeof(float));
    x->toxicity = arena_take(a, B, sizeof(float));
    x->text = arena_take(a, B, sizeof *x->text);
    x->response = arena_take(a, B, sizeof *x->response);
    x->text_length = arena_take(a, B, sizeof(size_t));
    x->query_length = arena_take(a, B, sizeof(size_t));
    x->response_length = arena_take(a, B, sizeof(size_t));
}

static void batch_carve(Batch *k, const Models *m, Arena *a) {
    const Settings *o = m->o;
    const size_t C = (size_t)m->config.stack.C, W = (size_t)o->mini_batch_size * (size_t)o->response_max;
    const size_t most = (size_t)larger(o->chunk, o->mini_batch_size) * (size_t)o->response_max;
    float **const tokens[] = { &k->old_logprob, &k->advantage, &k->ref_logprob, &k->weight, &k->dentropy,
                               &k->new_logprob, &k->entropy, &k->old_value, &k->returns, &k->value,
                               &k->dvalue };
    k->kept = keeps_sets(o) ? arena_take(a, most, sizeof *k->kept) : NULL;
    k->set = kept_bytes(m->config.V);
    k->hidden = arena_take(a, most * C, sizeof(float));
    k->other_hidden = o->kl_penalty == KL_FULL ? arena_take(a, most * C, sizeof(float)) : NULL;
    k->dhidden = arena_take(a, W * C, sizeof(float));
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) *tokens[i] = arena_take(a, W, sizeof(float));
}

static void queries_carve(Queries *q, const Models *m, Arena *a) {
    const Settings *o = m->o;
    const int most = larger(o->chunk, o->mini_batch_size), Q = m->text_soft + m->Q;
    q->token = arena_take(a, (size_t)most * (size_t)Q, sizeof(int));
    q->start = arena_take(a, (size_t)most + 1, sizeof(int));
    reading_carve(&q->seen, &m->config, o->chunk * Q, o->chunk, 0, 0, a);
    reading_carve(&q->learned, &m->config, o->mini_batch_size * Q, o->mini_batch_size, 1,
                  o->quant.recompute, a);
}

/* Makes one list of all trained tensors, so that one optimizer holds their moments. */
static void list_trained(Models *m, Pool *pool) {
    const Tensor *list = m->adapter ? m->lora.tensor : m->policy.tensor;
    const Tensor *values = m->values ? m->head.tensor : m->value_model.model.tensor;
    const int head = m->values ? m->head.tensors : m->o->value_model ? m->value_model.model.tensors : 0;
    m->trained_policy = m->adapter ? m->lora.tensors : m->policy.tensors;
    m->trained_all = m->trained_policy + head;
    m->trained = pool_need(pool, (size_t)m->trained_all, sizeof *m->trained, "the list of tensors");
    memcpy(m->trained, list, (size_t)m->trained_policy * sizeof *list);
    if (head) memcpy(m->trained + m->trained_policy, values, (size_t)head * sizeof *values);
}

/* Returns the rows of the longest sequence, or query of an encoder, with those of a soft prompt. */
static int longest_text(const Models *m) { return larger(m->soft + m->T, m->text_soft + m->Q); }

/* Lays out the policy, the reference, the adapters, the value head and Adam's moments. */
static void carve_policy(Models *m, Optimizer *optimizer, Pool *pool, Arena *a, Bill *bill) {
    const Settings *o = m->o;
    const int adapts = trains_adapter(&o->lora) || o->adapter, positions = longest_text(m);
    const Tensor *base;
    Error err = { 0 };
    must(model_carve(&m->policy, &m->config, &m->types, !adapts, positions, pool, a, &err), &err, NULL);
    base = m->policy.tensor;
    bill_part(bill, adapts ? "policy (frozen; also the reference)" : "policy and gradients", a);
    m->reference = &m->policy;
    m->reference_adapter = NULL;
    m->adapter = adapts ? &m->lora : NULL;
    if (adapts) {
        adapter_carve(&m->lora, &m->lora_config, base, m->policy.tensors, 1, pool, a);
        bill_part(bill, !m->lora.config.R ? "soft prompt and gradients" : !m->lora.prompt.O
                        ? "LoRA adapter and gradients" : "LoRA adapter, soft prompt and gradients", a);
    }
    if (o->adapter) {
        adapter_carve(&m->start_lora, &m->lora_config, base, m->policy.tensors, 0, pool, a);
        m->reference_adapter = &m->start_lora;
        bill_part(bill, "reference adapter (frozen)", a);
    }
    if (!adapts) {
        must(model_carve(&m->frozen, &m->config, &m->types, 0, positions, pool, a, &err), &err, NULL);
        m->reference = &m->frozen;
        bill_part(bill, "reference (frozen copy)", a);
    }
    if (o->value_model) {
        const WeightTypes types = { F32, F32, 0, 0, 0, o->quant.compute, NULL };
        ValueModel *v = &m->value_model;
        must(reward_carve(&v->model, &v->config, &types, 1, pool, a, &err), &err, NULL);
        bill_part(bill, "value model and gradients", a);
    }
    m->values = has_values(o) && !o->value_model ? &m->head : NULL;
    if (m->values) value_head_carve(&m->head, m->config.stack.C, m->head_layers, 1, a);
    list_trained(m, pool);
    optimizer_carve(optimizer, m->trained, m->trained_all, a);
    bill_part(bill, m->values ? "value head, Adam's moments" : "Adam's moments", a);
}

/* Lays out what a mini-batch keeps for backward. Policy and value model use the same memory in turn. */
static void activations_carve(Work *w, const Models *m, Arena *a) {
    const Settings *o = m->o;
    const size_t from = a->used;
    const int W = o->mini_batch_size * o->response_max;
    saved_carve(&w->saved, &m->config.stack, o->mini_batch_size * (m->soft + m->T - 1), W, o->quant.recompute,
                a);
    if (m->Q) queries_carve(&w->queries, m, a);
    if (!o->value_model) return;
    const size_t policy = a->used;
    a->used = from;
    reward_saved_carve(&w->value_saved, &m->value_model.config, o->mini_batch_size * (m->T - 1), W,
                       o->quant.recompute, a);
    if (a->used < policy) a->used = policy;
}

void carve(void *run, Arena *a, Bill *bill) {
    Whole *r = run;
    Models *m = &r->models;
    const Settings *o = m->o;
    Work *w = &r->work;
    carve_policy(m, &r->progress.optimizer, &w->pool, a, bill);
    if (m->scorers) {
        for (int k = 0; k < m->scorers; k++) judge_carve(&m->scorer[k].judge, &w->pool, a);
        w->judge.logits = arena_take(a, (size_t)o->chunk * LABELS_MAX, sizeof(float));
        bill_part(bill, m->scorers > 1 ? "judges (frozen)" : "judge (frozen)", a);
    }
    cache_carve(&w->cache, &m->config.stack, m->config.stack.L, larger(o->chunk, o->mini_batch_size),
                m->soft + m->T, a);
    bill_part(bill, "keys and values", a);
    activations_carve(w, m, a);
    bill_part(bill, "activations for backward", a);
    batch_carve(&w->batch, m, a);
    rollout_carve(&w->rollout, m, a);
    bill_part(bill, "rollout and mini-batch", a);
}

/* Measures the judge's forward (ws measures) with one text of the greatest length and many short texts.
 * Returns OK or the model's error. */
static int measure_judge(const Settings *o, const Judge *judge, Work *w, Arena *ws) {
    JudgeBatch *j = &w->judge;
    const int longest = reward_max_tokens(&judge->config);
    for (int i = 0; i <= o->chunk; i++) j->start[i] = i ? smaller(longest + i - 1, j->room) : 0;
    j->start[o->chunk] = j->room;
    for (int i = 0; i < j->room; i++) j->token[i] = judge->config.bos;
    const Texts texts = { j->room, o->chunk, j->token, j->start };
    return reward_forward(&judge->model, judge->adapter, &texts, NULL, j->logits, ws);
}

/* Measures the encoder, if there is one, with queries of the greatest length; learns 1: of a mini-batch. */
static int measure_queries(const Models *m, Work *w, int learns, Arena *ws) {
    const Settings *o = m->o;
    const int n = learns ? o->mini_batch_size : o->chunk;
    const Texts texts = { n * (m->text_soft + m->Q), n, NULL, NULL };
    if (!m->Q) return OK;
    w->cache.reading = learns ? &w->queries.learned : &w->queries.seen;
    return model_encode(&m->policy, m->adapter, &texts, w->cache.reading, ws);
}

/* Measures the value model, if there is one, with n sequences of the greatest length; learns 1: backward,
 * too. */
static int measure_values(const Models *m, Work *w, const Sequence *seq, int n, int learns, Arena *ws) {
    const RewardModel *model = &m->value_model.model;
    Wanted want;
    if (!m->o->value_model) return OK;
    const Texts texts = value_texts(&w->batch, &want, seq, NULL, n);
    const int code = reward_values(model, &texts, &want, learns ? &w->value_saved : NULL, NULL, ws);
    return code || !learns ? code : reward_values_backward(model, &texts, &want, &w->value_saved, NULL, ws);
}

/* Returns the bytes of work space that the largest call of a run needs: makes the same calls, measuring, with
 * the longest sequences and texts. */
size_t workspace(void *run) {
    Whole *r = run;
    Models *m = &r->models;
    const Settings *o = m->o;
    Work *w = &r->work;
    PoolMark pool = pool_mark(&w->pool);
    const float temperature = (float)o->temperature;
    const Writing writing = { .adapter = m->adapter, .head = m->values,
                              .sampling = sampling_of(o) };
    const HeadTask read = { .temperature = temperature };
    const HeadTask learn = { .temperature = temperature, .loss = token_loss };
    const int n = larger(o->chunk, o->mini_batch_size);
    int *token = pool_need(&w->pool, (size_t)m->T, sizeof *token, "measuring"), code;
    Sequence *seq = pool_need(&w->pool, (size_t)n, sizeof *seq, "measuring");
    Batch *k = &w->batch;
    Arena ws = { 0 };
    for (int i = 0; i < n; i++) {
        seq[i].token = token;
        seq[i].prompt = seq[i].length = m->T - o->response_max;
        seq[i].capacity = m->T;
    }
    code = measure_queries(m, w, 0, &ws);
    if (!code) code = model_generate(&m->policy, &writing, seq, o->chunk, &w->cache, &ws);
    for (int i = 0; i < n; i++) seq[i].length = m->T;
    Rows rows = fill_rows(k, seq, NULL, o->chunk, m->soft);
    if (!code) code = model_forward(m->reference, m->reference_adapter, &rows, &w->cache, NULL, k->hidden,
                                    &ws);
    if (!code) code = model_logprobs(m->reference, m->reference_adapter, k->hidden, rows.W, &read, &ws);
    if (!code && o->kl_penalty == KL_FULL)
        code = model_forward(&m->policy, m->adapter, &rows, &w->cache, NULL, k->hidden, &ws);
    const States policy = { &m->policy, m->adapter, k->hidden };
    const States reference = { m->reference, m->reference_adapter, k->hidden };
    if (!code && o->kl_penalty == KL_FULL)
        code = model_full_kl(&policy, &reference, NULL, rows.W, temperature, NULL, &ws);
    rows = fill_rows(k, seq, NULL, o->mini_batch_size, m->soft);
    if (!code) code = measure_queries(m, w, 1, &ws);
    if (!code) code = model_forward(&m->policy, m->adapter, &rows, &w->cache, &w->saved, k->hidden, &ws);
    if (!code) code = model_logprobs(&m->policy, m->adapter, k->hidden, rows.W, &learn, &ws);
    if (m->values) {
        model_values(m->values, k->hidden, NULL, rows.W, &ws);
        model_values_backward(m->values, NULL, k->hidden, NULL, rows.W, &ws);
    }
    if (!code) code = model_backward(&m->policy, m->adapter, &rows, &w->cache, &w->saved, NULL, &ws);
    if (m->adapter) lora_norms(&m->lora, m->policy.tensor, &ws);
    if (!code) code = measure_values(m, w, seq, o->chunk, 0, &ws);
    if (!code) code = measure_values(m, w, seq, o->mini_batch_size, 1, &ws);
    for (int i = 0; i < m->scorers && !code; i++) code = measure_judge(o, &m->scorer[i].judge, w, &ws);
    must(code, NULL, "report this as a bug: measuring failed");
    pool_release(&w->pool, pool);
    return ws.peak;
}
