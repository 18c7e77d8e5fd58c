/* programs/ppo_update.c - an update: forward, loss and backward of some responses, then a step of Adam. */
#include "ppo.h"
#include <stdio.h>

#define SMALLER_LOSSES "smaller --vf-coef and --entropy-coef, or another model to start from"

/* An update learns from n responses of `tokens` tokens. */
typedef struct { const Batch *batch; const PpoLoss *loss; float scale; int n, tokens; PpoStats *stats; }
    LossContext;

/* Sets dloss/dlogprob of the n tokens from `first` on. The head calls this for each block of rows as
 * soon as it has their log-probs. */
void token_loss(void *context, int first, int n, const float *logprob, float *dlogprob) {
    const LossContext *c = context;
    const Batch *k = c->batch;
    const PolicyTokens x = { logprob, k->old_logprob + first, k->advantage + first,
                             c->loss->kl_coef > 0 ? k->ref_logprob + first : NULL, k->weight + first };
    policy_loss(dlogprob, &x, c->loss, c->scale, n, c->stats);
}

/* Copies what the loss reads of these responses' tokens from the rollout to the batch; sets their weights. */
static void gather_tokens(const Models *m, Batch *k, const Rollout *x, const int *which, int n,
                          const LossContext *c) {
    const float entropy_coef = (float)m->o->entropy_coef;
    int w = 0;
    for (int i = 0; i < n; i++)
        for (int t = x->start[which[i]], to = x->start[which[i] + 1]; t < to; t++, w++) {
            k->old_logprob[w] = x->logprob[t];
            k->ref_logprob[w] = x->ref_logprob[t];
            k->advantage[w] = x->advantage[t];
            k->weight[w] = token_weight(m->o->loss_mean, to - x->start[which[i]], c->tokens, c->n);
            k->dentropy[w] = -entropy_coef * c->scale * k->weight[w];
            k->old_value[w] = x->value[t];
            k->returns[w] = x->returns[t];
        }
}

/* Runs forward, loss and backward of one mini-batch; adds to the gradients and to c->stats.
 * Returns OK or the model's error. */
static int train_mini_batch(const Models *m, Work *w, const int *which, int n, LossContext *c) {
    const Settings *o = m->o;
    Batch *k = &w->batch;
    const Rows rows = fill_rows(k, w->rollout.seq, which, n, model_prompt(&m->policy, m->adapter));
    const int W = rows.W;
    const HeadTask task = { .target = k->rows.target, .temperature = (float)o->temperature,
                            .logprob = k->new_logprob, .entropy = k->entropy, .loss = token_loss,
                            .context = c, .dhidden = k->dhidden,
                            .dentropy = o->entropy_coef > 0 ? k->dentropy : NULL, .kept = k->kept };
    gather_tokens(m, k, &w->rollout, which, n, c);
    int code = read_queries(m, w, &m->policy, m->adapter, which, 0, n);
    if (!code) code = model_forward(&m->policy, m->adapter, &rows, &w->cache, &w->saved, k->hidden, &w->ws);
    if (code) return code;
    memset(k->dhidden, 0, (size_t)W * (size_t)m->config.stack.C * sizeof(float));
    code = model_logprobs(&m->policy, m->adapter, k->hidden, W, &task, &w->ws);
    if (code) return code;
    if (m->values) {
        model_values(m->values, k->hidden, k->value, W, &w->ws);
        memset(k->dvalue, 0, (size_t)W * sizeof(float));
        value_loss(k->dvalue, k->value, k->old_value, k->returns, c->loss, c->scale, W, c->stats);
        model_values_backward(m->values, k->dvalue, k->hidden, k->dhidden, W, &w->ws);
    }
    for (int i = 0; i < W; i++) {
        c->stats->entropy += k->entropy[i];
        c->stats->weighted_entropy += k->weight[i] * k->entropy[i];
    }
    return model_backward(&m->policy, m->adapter, &rows, &w->cache, &w->saved, k->dhidden, &w->ws);
}

/* Does so for the value model and the value loss: a forward and a backward of its own. */
static int train_value_model(const Models *m, Work *w, const int *which, int n, LossContext *c) {
    const RewardModel *model = &m->value_model.model;
    Batch *k = &w->batch;
    Wanted want;
    const Texts texts = value_texts(k, &want, w->rollout.seq, which, n);
    const int code = reward_values(model, &texts, &want, &w->value_saved, k->value, &w->ws);
    if (code) return code;
    memset(k->dvalue, 0, (size_t)want.W * sizeof(float));
    value_loss(k->dvalue, k->value, k->old_value, k->returns, c->loss, c->scale, want.W, c->stats);
    return reward_values_backward(model, &texts, &want, &w->value_saved, k->dvalue, &w->ws);
}

static void add_stats(PpoStats *to, const PpoStats *s) {
    to->tokens += s->tokens; to->policy_loss += s->policy_loss; to->value_loss += s->value_loss;
    to->kl_loss += s->kl_loss; to->entropy += s->entropy; to->weighted_entropy += s->weighted_entropy;
    to->clip_fraction += s->clip_fraction; to->value_clip_fraction += s->value_clip_fraction;
    to->approx_kl += s->approx_kl; to->policy_kl += s->policy_kl; to->ratio += s->ratio;
    to->value_error += s->value_error; to->value += s->value;
    const double most = s->max_ratio_deviation;
    if (most > to->max_ratio_deviation || most != most) to->max_ratio_deviation = most;
}

/* Returns the factor that scales gradients of this norm down to --max-grad-norm (0: never). */
static float clip_scale(const Settings *o, double norm) {
    return (float)(o->max_grad_norm > 0 && norm > o->max_grad_norm ? o->max_grad_norm / (norm + 1e-6) : 1);
}

/* Changes the weights by a step of Adam. norm, value_norm: of the gradients of the policy and of what gives
 * the values. In the first --value-warmup steps, the policy's learning rate is 0. */
static void move_weights(Progress *p, const Models *m, double norm, double value_norm, Arena *ws) {
    const Settings *o = m->o;
    const double rate = rate_at(o, o->lr, p->step);
    const AdamW adam = { p->step > o->value_warmup ? (float)rate : 0, 0.9f, 0.999f, (float)o->adam_eps,
                         (float)o->weight_decay, o->adam_tf };
    AdamW head = adam;
    head.lr = (float)(o->value_lr > 0 ? rate_at(o, o->value_lr, p->step) : rate);
    const size_t done = optimizer_step(&p->optimizer, 0, m->trained, m->trained_policy, &adam,
                                       clip_scale(o, norm));
    if (m->adapter) lora_norms(&m->lora, m->policy.tensor, ws);
    optimizer_step(&p->optimizer, done, m->trained + m->trained_policy, m->trained_all - m->trained_policy,
                   &head, clip_scale(o, value_norm));
}

/* Ends the run if this number of the update in progress is not a number. In the first update of a step the
 * weights are still those after the previous step. */
static void check_loss(const Progress *p, const Models *m, Work *w, double x, const char *what) {
    char text[160];
    if (is_number(x)) return;
    snprintf(text, sizeof text, "update %d: %s is not a number", w->now.updates + 1, what);
    not_a_number(p, m, w, text, !w->now.updates, NULL);
}

/* Ends the run if the gradient of these tensors, which has this norm, cannot be used. */
static void check_gradient(const Progress *p, const Models *m, Work *w, double norm, const Tensor *list,
                           int tensors) {
    char why[160], text[180];
    if (!step_fault(why, 0, norm, m->o->max_grad_norm, list, tensors)) return;
    snprintf(text, sizeof text, "update %d: %s", w->now.updates + 1, why);
    not_a_number(p, m, w, text, !w->now.updates, w->now.updates || p->step > 1 ? NULL : SMALLER_LOSSES);
}

/* Makes one update from n responses: the gradients of the loss (--loss-mean), then Adam.
 * Returns the mean policy KL of these tokens. If the mean ratio is above --ratio-threshold, the update is
 * skipped: neither the weights nor Adam's moments change. */
double update(Progress *p, const Models *m, Work *w, const int *which, int n) {
    const Settings *o = m->o;
    const PpoLoss loss = { (float)o->clip, (float)o->clip_value, (float)o->vf_coef, (float)o->ratio_threshold,
                           (float)o->clip_high, (float)o->dual_clip,
                           o->kl_in == KL_IN_LOSS ? (float)p->kl.coef : 0, o->kl_penalty };
    const int *start = w->rollout.start, first = !w->now.updates;
    PpoStats stats;
    int tokens = 0;
    memset(&stats, 0, sizeof stats);
    for (int i = 0; i < n; i++) tokens += start[which[i] + 1] - start[which[i]];
    LossContext c = { &w->batch, &loss, 1 / (float)tokens, n, tokens, &stats };
    gradient_zero(m->trained, m->trained_all);
    for (int i = 0; i < n; i += o->mini_batch_size) {
        const int size = smaller(o->mini_batch_size, n - i);
        must(train_mini_batch(m, w, which + i, size, &c), NULL, NULL);
        if (o->value_model) must(train_value_model(m, w, which + i, size, &c), NULL, NULL);
    }
    if (first) w->now.first_deviation = stats.max_ratio_deviation;
    check_loss(p, m, w, stats.policy_kl, "the log-prob by the policy");
    check_loss(p, m, w, stats.value_loss, "the value loss");
    /* a value head's gradient is a part of the policy's; a value model has a norm of its own */
    const int policy = o->value_model ? m->trained_policy : m->trained_all, others = m->trained_all - policy;
    const double norm = gradient_norm(m->trained, policy);
    const double value_norm = o->value_model ? gradient_norm(m->trained + policy, others) : norm;
    if (ratio_exceeds(&stats, &loss)) w->now.skipped++;
    else {
        check_loss(p, m, w, stats.policy_loss, "the policy loss");
        check_gradient(p, m, w, norm, m->trained, policy);
        if (o->value_model) check_gradient(p, m, w, value_norm, m->trained + policy, others);
        move_weights(p, m, norm, value_norm, &w->ws);
    }
    w->now.updates++;
    w->now.grad_norm += norm;
    w->now.value_norm += value_norm;
    add_stats(&w->now.stats, &stats);
    return stats.policy_kl / tokens;
}
