/* programs/ppo_rollout.c - the responses of a step: sampled by the policy, read by the reference, and
 * written to the file of --dump-rollouts. */
#include "ppo.h"
#include <stdio.h>

/* Lets the policy's encoder, if it has one, read the queries of n responses: which[i], or first + i if which
 * is NULL. Afterwards the cache's sequence i reads query i. OK or the model's error. */
int read_queries(const Models *m, Work *w, const Model *policy, const Lora *adapter, const int *which,
                        int first, int n) {
    Queries *q = &w->queries;
    if (!m->Q) return OK;
    Reading *r = which ? &q->learned : &q->seen;
    q->start[0] = 0;
    for (int i = 0; i < n; i++) {
        int length, *token = q->token + q->start[i];
        const int *from = query_tokens(m, &w->rollout, which ? which[i] : first + i, &length);
        token += prompt_rows(token, lora_prompt(adapter));
        memcpy(token, from, (size_t)length * sizeof *from);
        q->start[i + 1] = (int)(token - q->token) + length;
    }
    const Texts texts = { q->start[n], n, q->token, q->start };
    w->cache.reading = r;
    w->cache.B = n;
    return model_encode(policy, adapter, &texts, r, &w->ws);
}

/* ---- --stop ---- */

/* The responses from `first` on are being written. */
typedef struct { const Models *m; Work *w; int first; } Stopping;

/* Returns 1 if the text of n tokens has `stop` in it. */
static int has_stop(const Models *m, const int *token, int n, const char *stop, Pool *pool) {
    char *text;
    size_t length;
    must(tokenizer_decode(m->tokenizer, token, n, pool, &text, &length), NULL, NULL);
    for (size_t i = 0, k = strlen(stop); i + k <= length; i++) if (!memcmp(text + i, stop, k)) return 1;
    return 0;
}

/* Writing's on_token. Returns 1 if --stop is in the text of the last tokens, but not without the last one:
 * then this token has completed it. In the first --stop-after tokens it does not count. */
static int ends_with_stop(void *context, int sequence, int token) {
    enum { LAST = 32 };                     /* a text of --stop has fewer tokens */
    const Stopping *s = context;
    const Settings *o = s->m->o;
    const int b = s->first + sequence;
    const Sequence *seq = &s->w->rollout.seq[b];
    const int written = seq->length - seq->prompt, n = smaller(written, LAST);
    const int *from = seq->token + seq->length - n;
    const PoolMark mark = pool_mark(&s->w->pool);
    (void)token;
    const int ends = written > o->stop_after && has_stop(s->m, from, n, o->stop, &s->w->pool) &&
                     !has_stop(s->m, from, n - 1, o->stop, &s->w->pool);
    pool_release(&s->w->pool, mark);
    s->w->rollout.stopped[b] = (unsigned char)ends;
    return ends;
}

/* Samples all responses, then copies their log-probs and values into the arrays (P). */
void sample_responses(const Progress *p, const Models *m, Work *w) {
    const Settings *o = m->o;
    Stopping stop = { m, w, 0 };
    const Writing writing = { .adapter = m->adapter, .head = m->values, .sampling = sampling_of(o),
                              .on_token = o->stop ? ends_with_stop : NULL, .context = &stop };
    Rollout *x = &w->rollout;
    for (int first = 0; first < x->B; first += o->chunk) {
        const int n = smaller(o->chunk, x->B - first);
        stop.first = first;
        int code = read_queries(m, w, &m->policy, m->adapter, NULL, first, n);
        if (!code) code = model_generate(&m->policy, &writing, x->seq + first, n, &w->cache, &w->ws);
        if (code == E_NUMBER) not_a_number(p, m, w, "the policy's logits are not numbers", 0, NULL);
        must(code, NULL, "check the weights: the sampler failed");
    }
    x->P = 0;
    for (int b = 0; b < x->B; b++) {
        const Sequence *seq = &x->seq[b];
        const int n = seq->length - seq->prompt;
        for (int t = 0; t < n; t++)
            if (m->values && !is_number(seq->value[t]))
                not_a_number(p, m, w, "the value head's values are not numbers", 0,
                             p->step > 1 || w->now.updates ? NULL : "--value-init zero, a new value head");
        x->start[b] = x->P;
        memcpy(x->logprob + x->P, seq->logprob, (size_t)n * sizeof(float));
        if (m->values) memcpy(x->value + x->P, seq->value, (size_t)n * sizeof(float));
        x->P += n;
    }
    x->start[x->B] = x->P;
}

/* Fills the batch with the rows of n sequences: seq[which[i]], or seq[i] if which is NULL, each after `soft`
 * rows of a soft prompt; and with the sets of their tokens, if they are stored. A row wants its logits if it
 * predicts a response token (rows_add: train.c). */
Rows fill_rows(Batch *k, const Sequence *seq, const int *which, int n, int soft) {
    int W = 0;
    k->rows.N = k->rows.W = 0;
    for (int i = 0; i < n; i++) {
        const Sequence *one = &seq[which ? which[i] : i];
        rows_add(&k->rows, i, soft, one->token, one->length, one->prompt);
        for (int t = 0; k->kept && one->kept && t < one->length - one->prompt; t++)
            k->kept[W++] = one->kept + (size_t)t * k->set;
    }
    return rows_of(&k->rows);
}

Texts value_texts(Batch *k, Wanted *want, const Sequence *seq, const int *which, int n) {
    const Rows rows = fill_rows(k, seq, which, n, 0);
    const Texts texts = { rows.N, n, rows.token, k->start };
    want->W = 0;
    want->row = k->want;
    for (int i = 0; i < rows.N; i++) {
        if (rows.position[i] == 0) k->start[rows.sequence[i]] = i;
        if (rows.wants[i]) k->want[want->W++] = i;
    }
    k->start[n] = rows.N;
    return texts;
}

void value_responses(const Progress *p, const Models *m, Work *w) {
    const int chunk = m->o->chunk;
    Rollout *x = &w->rollout;
    for (int first = 0; first < x->B; first += chunk) {
        Wanted want;
        const Texts texts = value_texts(&w->batch, &want, x->seq + first, NULL, smaller(chunk, x->B - first));
        must(reward_values(&m->value_model.model, &texts, &want, NULL, x->value + x->start[first], &w->ws),
             NULL, "check the value model's weights");
    }
    for (int t = 0; t < x->P; t++)
        if (!is_number(x->value[t]))
            not_a_number(p, m, w, "the value model's values are not numbers", 0,
                         p->step > 1 || w->now.updates ? NULL : "another --value-model");
}

/* Ends the run if one of the responses' P numbers, of which each is `what`, is not a number. The weights have
 * not changed in this step. */
static void need_numbers(const Progress *p, const Models *m, Work *w, const float *x, const char *what,
                         const char *hint) {
    const int *start = w->rollout.start;
    char text[160];
    for (int b = 0; b < w->rollout.B; b++)
        for (int t = start[b]; t < start[b + 1]; t++) {
            if (is_number(x[t])) continue;
            snprintf(text, sizeof text, "%s of token %d of response %d is not a number", what,
                     t - start[b] + 1, b + 1);
            not_a_number(p, m, w, text, 1, hint);
        }
}

void check_tokens(const Progress *p, const Models *m, Work *w) {
    static const char hint[] = "a smaller --init-kl-coef, or another --kl-penalty";
    const Rollout *x = &w->rollout;
    need_numbers(p, m, w, x->kl, "the KL penalty", hint);
    need_numbers(p, m, w, x->reward, "the reward", hint);
    need_numbers(p, m, w, x->advantage, "the advantage", hint);
    if (has_values(m->o)) need_numbers(p, m, w, x->returns, "the return", hint);
}

/* Computes the responses' log-probs under the reference, and for --kl-penalty full the exact KL to it. */
void reference_logprobs(const Progress *p, const Models *m, Work *w) {
    const Settings *o = m->o;
    Batch *k = &w->batch;
    Rollout *x = &w->rollout;
    const float temperature = (float)o->temperature;
    for (int first = 0; first < x->B; first += o->chunk) {
        const int n = smaller(o->chunk, x->B - first), at = x->start[first];
        Rows rows = fill_rows(k, x->seq + first, NULL, n, model_prompt(m->reference, m->reference_adapter));
        const HeadTask task = { .target = k->rows.target, .temperature = temperature,
                                .logprob = x->ref_logprob + at };
        int code = read_queries(m, w, m->reference, m->reference_adapter, NULL, first, n);
        if (!code)
            code = model_forward(m->reference, m->reference_adapter, &rows, &w->cache, NULL, k->hidden,
                                 &w->ws);
        if (!code)
            code = model_logprobs(m->reference, m->reference_adapter, k->hidden, rows.W, &task, &w->ws);
        if (!code && o->kl_penalty == KL_FULL) {
            const States policy = { &m->policy, m->adapter, k->other_hidden };
            const States reference = { m->reference, m->reference_adapter, k->hidden };
            code = read_queries(m, w, &m->policy, m->adapter, NULL, first, n);
            rows = fill_rows(k, x->seq + first, NULL, n, model_prompt(&m->policy, m->adapter));
            if (!code)
                code = model_forward(&m->policy, m->adapter, &rows, &w->cache, NULL, k->other_hidden, &w->ws);
            if (!code)
                code = model_full_kl(&policy, &reference, k->kept, rows.W, temperature, x->full_kl + at,
                                     &w->ws);
        }
        must(code, NULL, "check the reference's weights");
    }
    need_numbers(p, m, w, x->ref_logprob, "the reference's log-prob", NULL);
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
 * one that the loss uses; PPO has whitened it: before that it was return - value. */
void dump_rollout(const Progress *p, const Models *m, Work *w) {
    const Settings *o = m->o;
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
        if (has_values(o)) dump_floats(&b, "value", x->value + at, n);
        dump_floats(&b, "kl", x->kl + at, n);
        dump_floats(&b, "reward", x->reward + at, n);
        dump_floats(&b, "advantage", x->advantage + at, n);
        if (has_values(o)) dump_floats(&b, "return", x->returns + at, n);
        buffer_text(&b, "}\n");
        must(b.failed ? E_MEMORY : OK, NULL, NULL);
        out_append(&w->out, o->dump, b.data, b.length);
        pool_release(&w->pool, mark);
    }
}

void dump_resume(const Models *m, Work *w) {
    const char *path = m->o->dump;
    if (out_length(path) < w->dumped) {
        fail(&w->err, E_TRUNCATED, "rollouts are missing in the file of --dump-rollouts", path, 0, 0);
        cli_warn(&w->err, "nothing: the run goes on, and the file lacks these lines");
        memset(&w->err, 0, sizeof w->err);
    } else must(out_cut(path, w->dumped, &w->err), &w->err, "a place where --dump-rollouts can be written");
}
