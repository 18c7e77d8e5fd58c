/* programs/ppo_log.c - the end of a step: its lines in the logs, the line of progress, warnings. */
#include "ppo.h"
#include <stdio.h>

double mean(const float *x, int n) {
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

/* Returns the share of the responses that have the same tokens as one before them in the batch. */
static double repeated_share(const Rollout *x) {
    int repeated = 0;
    for (int b = 1; b < x->B; b++)
        for (int a = 0; a < b; a++) {
            const Sequence *s = &x->seq[b], *t = &x->seq[a];
            const int n = s->length - s->prompt;
            if (t->length - t->prompt != n ||
                memcmp(s->token + s->prompt, t->token + t->prompt, (size_t)n * sizeof *s->token)) continue;
            repeated++;
            break;
        }
    return (double)repeated / x->B;
}

/* Returns Pearson's correlation of the judge's scores with the responses' lengths in tokens; 0 if either is
 * the same for all responses. */
static double length_correlation(const Rollout *x) {
    const double length = (double)x->P / x->B, score = mean(x->raw_score, x->B);
    double both = 0, lengths = 0, scores = 0;
    for (int b = 0; b < x->B; b++) {
        const double n = x->seq[b].length - x->seq[b].prompt - length, s = x->raw_score[b] - score;
        both += n * s; lengths += n * n; scores += s * s;
    }
    return lengths > 0 && scores > 0 ? both / sqrt(lengths * scores) : 0;
}

static void log_objective(const Progress *p, const Models *m, Rollout *x, Log *l, double kl) {
    Summary raw = summarise(x->raw_score, x->B, x->scratch), score = summarise(x->score, x->B, x->scratch);
    char name[32];
    int ended = 0, stopped = 0;
    for (int b = 0; b < x->B; b++) ended += ends_in_eos(m, &x->seq[b]);
    log_number(l, "env/reward_mean", raw.mean);
    log_number(l, "env/reward_std", raw.std);
    log_number(l, "env/reward_length_correlation", length_correlation(x));
    for (int k = 0; k < m->scorers && m->scorers > 1; k++) {
        snprintf(name, sizeof name, "env/judge_mean_%d", k + 1);
        log_number(l, name, x->judge_mean[k]);
    }
    log_integer(l, "env/queries_cut", x->queries_cut);
    log_integer(l, "env/responses_cut", x->responses_cut);
    log_number(l, "objective/kl", kl);
    log_number(l, "objective/kl_coef", p->kl.coef);
    log_number(l, "objective/entropy", -kl_per_sequence(x->logprob, x->start, x->B));
    log_number(l, "objective/logprobs", mean(x->logprob, x->P));
    log_number(l, "objective/ref_logprobs", mean(x->ref_logprob, x->P));
    log_number(l, "ppo/mean_non_score_reward",
               m->o->kl_in == KL_IN_LOSS ? 0 : -p->kl.coef * mean(x->kl, x->P));
    log_number(l, "ppo/mean_scores", score.mean);
    log_number(l, "ppo/std_scores", score.std);
    log_lengths(l, x);
    log_number(l, "tokens/responses_repeated", repeated_share(x));
    log_integer(l, "tokens/responses_with_eos", ended);
    for (int b = 0; b < x->B; b++) stopped += x->stopped[b];
    if (m->o->stop) log_integer(l, "tokens/responses_with_stop", stopped);
}

/* Returns the share of the returns' variance that values with this mean squared error explain; 0 if there is
 * no variance. */
static double variance_explained(Rollout *x, double error) {
    const double std = summarise(x->returns, x->P, x->scratch).std;
    return std > 0 ? 1 - error / (std * std) : 0;
}

static void log_values(Log *l, Rollout *x, const PpoStats *s) {
    Summary returns = summarise(x->returns, x->P, x->scratch), value = summarise(x->value, x->P, x->scratch);
    const double variance = returns.std * returns.std;
    log_number(l, "ppo/returns/mean", returns.mean);
    log_number(l, "ppo/returns/var", variance);
    log_number(l, "ppo/val/vpred", s->value);
    log_number(l, "ppo/val/error", s->value_error);
    log_number(l, "ppo/val/clipfrac", s->value_clip_fraction);
    log_number(l, "ppo/val/mean", value.mean);
    log_number(l, "ppo/val/var", value.std * value.std);
    log_number(l, "ppo/val/var_explained", variance_explained(x, s->value_error));
}

/* Logs a step under TRL's names, which its docs/source/logging.mdx explains. Averages are over all
 * tokens of all updates of the step. */
static void log_step(const Progress *p, const Models *m, Work *work, double kl) {
    const Settings *o = m->o;
    const Rollout *x = &work->rollout;
    const Statistics *now = &work->now;
    PpoStats s = now->stats;
    Log l;
    ppo_stats_mean(&s);
    log_begin(&l, work->out.log, &work->pool);
    log_integer(&l, "step", p->step);
    log_objective(p, m, &work->rollout, &l, kl);
    log_number(&l, "ppo/loss/policy", s.policy_loss);
    if (has_values(o)) log_number(&l, "ppo/loss/value", s.value_loss);
    if (o->kl_in == KL_IN_LOSS) log_number(&l, "ppo/loss/kl", s.kl_loss);
    log_number(&l, "ppo/loss/total",
               s.policy_loss + (has_values(o) ? o->vf_coef * s.value_loss : 0)
               + (o->kl_in == KL_IN_LOSS ? p->kl.coef * s.kl_loss : 0)
               - o->entropy_coef * s.weighted_entropy);
    log_number(&l, "ppo/policy/first_ratio_max_deviation", now->first_deviation);
    log_number(&l, "ppo/policy/max_ratio_deviation", s.max_ratio_deviation);
    log_number(&l, "ppo/policy/ratio", s.ratio);
    log_number(&l, "ppo/policy/clipfrac", s.clip_fraction);
    log_number(&l, "ppo/policy/approxkl", s.approx_kl);
    log_number(&l, "ppo/policy/policykl", s.policy_kl);
    log_number(&l, "ppo/policy/entropy", s.entropy);
    log_number(&l, "ppo/policy/advantages_mean", mean(x->advantage, x->P));
    if (has_values(o)) log_values(&l, &work->rollout, &s);
    log_number(&l, "grad_norm", now->updates ? now->grad_norm / now->updates : 0);
    if (o->value_model)
        log_number(&l, "ppo/val/grad_norm", now->updates ? now->value_norm / now->updates : 0);
    log_number(&l, "learning_rate", p->step > o->value_warmup ? rate_at(o, o->lr, p->step) : 0);
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

static void show_progress(Progress *p, const Models *m, const Work *w, double reward, double kl,
                          double seconds) {
    const Settings *o = m->o;
    const PpoStats *stats = &w->now.stats;
    const int shown = smaller(p->step, HISTORY);
    char line[256], bars[128];
    if (p->step > HISTORY) memmove(p->history, p->history + 1, (HISTORY - 1) * sizeof *p->history);
    p->history[shown - 1] = reward;
    sparkline(bars, sizeof bars, p->history, shown, HISTORY);
    snprintf(line, sizeof line, "reward %+.3f  KL %.2f  %s  coef %.4f  clip %.3f  %.0f tokens/s", reward, kl,
             bars, p->kl.coef, stats->tokens > 0 ? stats->clip_fraction / stats->tokens : 0,
             seconds > 0 ? w->rollout.P / seconds : 0);
    progress(line, p->step, o->steps, p->step == o->steps || cli_stopping());
}

/* Warns of a first ratio other than 1. */
static void warn_ratio(const Progress *p, const Work *w) {
    if (w->now.first_deviation == 0) return;
    say_error("ppo: warning at step %d: the first ratio is not 1 but off by %g: sampler and training "
              "disagree", p->step, w->now.first_deviation);
}

/* Warns once if the judge has not read a whole response, although --long-response is not cut. */
static void warn_cut(const Progress *p, const Models *m, Work *w) {
    const Settings *o = m->o;
    if (!w->rollout.responses_cut || w->told_cut || o->long_response == LONG_CUT) return;
    int shortest = INT_MAX;
    for (int k = 0; k < m->scorers; k++) shortest = smaller(shortest, m->scorer[k].most);
    w->told_cut = 1;
    say_error("ppo: warning at step %d: of %d responses, %d are longer than the %d tokens that the judge "
              "reads: it has read their ends", p->step, w->rollout.B, w->rollout.responses_cut, shortest);
    say_error("  try: a smaller --response-max; env/responses_cut in the log counts them");
}

/* ---- what goes wrong although all numbers are numbers ----
 * A warning, once in a run, if a number is on the wrong side of its limit in so many steps in a row. The
 * numbers of steps are larger where an ordinary run passes the limit for some steps. The limits:
 * repeats   sampled responses of several tokens seldom repeat one another; of copies there is little to learn
 * ends      counts only if --stop or --missing-eos-penalty asks for responses that end
 * spread    relative to the largest score, so that the scale does not matter; a judge's rounding is smaller
 * length    a correlation of 0.7 means that length explains half of the scores' variance
 * values    explained variance: a constant, if it is the mean of the returns, reaches 0. It is often below 0
 *           until the value head has learnt that mean, which takes 30 steps in some runs
 * skipped   the step then learns from less than half of its updates
 * entropy   1 to 3 nats per token in a language; a policy that has collapsed (train.c) is below 0.01
 * KL        let d be log pi - log ref, summed over a response that the policy sampled. The mean of d over B
 *           responses estimates the KL, which is never negative. exp(-d) has expectation 1, so by Markov's
 *           inequality this mean is below -t with a probability of at most exp(-t B): a negative estimate
 *           means few responses. Its variance is about 2 KL / B, so it also helps to stay nearer to the
 *           reference. Another --kl-penalty would hide the estimate, and restrain the policy less. A little
 *           below 0 for several steps: n steps in a row below -t have a probability of at most exp(-t B n),
 *           which for t = 0.1, n = 5 and 64 responses is 1e-14. With so many, the log-probs are not those of
 *           the sampler, as in trainers that draw with top-k or a least length and do not count it */
typedef struct { int sign; double limit; int steps; const char *what, *advice; } Watch;
static const Watch watches[WATCHES] = {
    { 1, 0.5, 5, "the share of the responses that repeat another one",
      "a larger --temperature, a smaller --learning-rate, or --entropy-coef 0.01" },
    { -1, 0.5, 5, "the number of responses that end before the length limit",
      "a larger --response-max, or a policy that was trained (sft) on texts that end" },
    { -1, 1e-3, 5, "the standard deviation of the scores, as a share of the largest score,",
      "another --reward, --label or --reward-text: nothing can be learnt from scores that are all alike" },
    { 1, 0.7, 10, "the correlation of the score with the response's length, without its sign,",
      "--length-penalty, or a judge that was not trained on longer texts as the better ones; "
      "env/reward_length_correlation in the log has the sign" },
    { -1, 0, 50, "the explained variance of the values",
      "a larger --value-learning-rate, or --value-warmup 20" },
    { 1, 0.5, 3, "the share of the updates that --ratio-threshold has skipped",
      "a smaller --learning-rate, fewer --ppo-epochs, or a larger --ratio-threshold" },
    { -1, 0.1, 5, "the entropy per token",
      "a larger --temperature, a smaller --learning-rate, or --entropy-coef 0.01" },
    { -1, -1, 1, "the KL, whose expectation is never below 0,",
      "a larger --batch-size, since few responses estimate it badly, or a larger --init-kl-coef, which keeps "
      "the policy where the estimate varies less" },
    { -1, -0.1, 5, "the KL per response",
      "a larger --batch-size: few responses are below 0 by chance, 64 are not. If there are as many: without "
      "--top-k, --top-p and --min-new-tokens, and report it, since the sampler is then not the policy" } };

/* Returns what is watched as `kind`; its limit, which is not wrong, where it means nothing in this run. */
static double watched_number(const Models *m, Work *w, int kind) {
    const Settings *o = m->o;
    Rollout *x = &w->rollout;
    const PpoStats *s = &w->now.stats;
    const double none = watches[kind].limit;
    double most = 0, ended = 0;
    for (int b = 0; b < x->B; b++) {
        most = fmax(most, fabs(x->raw_score[b]));
        ended += x->stopped[b] || ends_in_eos(m, &x->seq[b]);
    }
    switch (kind) {
    case WATCH_REPEATS: return repeated_share(x);
    case WATCH_ENDS: return o->stop || o->eos_penalty > 0 ? ended : none;
    case WATCH_SPREAD:
        return x->B < 2 ? none : most > 0 ? summarise(x->raw_score, x->B, x->scratch).std / most : 0;
    case WATCH_LENGTH: return fabs(length_correlation(x));
    case WATCH_VALUES:
        if (!has_values(o) || !(o->vf_coef > 0) || s->tokens <= 0) return none;
        return variance_explained(x, s->value_error / s->tokens);
    case WATCH_SKIPPED: return w->now.updates ? (double)w->now.skipped / w->now.updates : none;
    default: return -mean(x->logprob, x->P);
    }
}

/* Counts the steps in a row in which each watched number is wrong, and warns when they are enough. After its
 * warning, a count stays, and so there is no second one. */
static void watch(Progress *p, const Models *m, Work *w, double kl) {
    char row[40];
    for (int k = 0; k < WATCHES; k++) {
        const Watch *t = &watches[k];
        const double now = k == WATCH_KL || k == WATCH_NEGATIVE_KL ? kl : watched_number(m, w, k);
        if (p->watched[k] >= t->steps) continue;
        p->watched[k] = t->sign * (now - t->limit) > 0 ? p->watched[k] + 1 : 0;
        if (p->watched[k] < t->steps) continue;
        snprintf(row, sizeof row, "%d steps in a row", t->steps);
        say_error("ppo: warning at step %d: %s is %.3g; it was %s %g in %s", p->step, t->what, now,
                  t->sign > 0 ? "above" : "below", t->limit, t->steps > 1 ? row : "this step");
        say_error("  try: %s", t->advice);
    }
}

/* Judges the policy by the responses that it has sampled last. */
void check_health(const Models *m, Work *w) {
    const Settings *o = m->o;
    const Rollout *x = &w->rollout;
    const double kl = kl_per_sequence(x->logprob, x->start, x->B) - kl_per_sequence(x->ref_logprob, x->start,
                                                                                    x->B);
    health_of_policy(&w->health, kl, (double)x->P / x->B, -mean(x->logprob, x->P), o->target);
}

/* Ends a step: writes the log, shows the progress, warns, and updates the KL coefficient. */
void step_end(Progress *p, const Models *m, Work *w, double kl) {
    log_step(p, m, w, kl);
    show_progress(p, m, w, mean(w->rollout.raw_score, w->rollout.B), kl, log_time(p, w));
    warn_ratio(p, w);
    warn_cut(p, m, w);
    watch(p, m, w, kl);
    check_health(m, w);
    health_warn(&w->health, p->step, SMALLER_MOVES);
    kl_controller_update(&p->kl, kl, w->rollout.B);
    w->in_step = 0;
}
