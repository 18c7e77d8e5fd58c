/* rl.c - PPO, GRPO and RLOO from rewards to gradients, as pure functions over arrays of floats: no models,
 * tokens or texts.
 * Source   Schulman et al. 2017 (PPO), eq. 7; Schulman et al. 2015 (GAE), eq. 16; Ziegler et al. 2019
 *          (reward, adaptive KL); Shao et al. 2024 (GRPO); Ahmadian et al. 2024 (RLOO). PPO's arithmetic is
 *          that of TRL 0.11.4's PPOTrainer, without its mistakes.
 * Needs    sqrt and exp, both in double. Sums are in double, in order of the index.
 * Never    pads. The P response tokens of B sequences follow one another (start has B+1 entries), so that
 *          whitening, GAE and every mean get response tokens alone. TRL whitens padding, too, and then uses
 *          it in GAE.
 * Edges    a sequence without tokens, one token in all (no variance), equal scores, a ratio of infinity, KL
 *          below zero. */
#include "rlhf.h"

static double square(double x) { return x * x; }

static double mean_of(const float *x, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i];
    return n > 0 ? sum / n : 0;
}

/* Returns the unbiased variance, divided by n - 1 as in torch.var and TRL's masked_var, or the biased one,
 * divided by n as in OpenAI's tf.nn.moments. Returns 0 for fewer than 2 values. */
static double variance_of(const float *x, int n, double mean, int biased) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += square(x[i] - mean);
    return n < 2 ? 0 : sum / (biased ? n : n - 1);
}

/* Returns one of four penalties of a token, with d = log pi(a) - log ref(a), where a is sampled from pi:
 *   kl    d               ("k1") unbiased for KL(pi || ref), may be negative
 *   abs   |d|
 *   mse   d^2 / 2         ("k2")
 *   k3    e^-d - 1 + d    unbiased and never negative (Schulman 2020, "Approximating KL divergence")
 * The fifth, full, is a sum over the vocabulary, pi (log pi - log ref), which only the head can compute. */
static double penalty(int kind, double d) {
    switch (kind) {
    case KL_ABS: return fabs(d);
    case KL_MSE: return 0.5 * d * d;
    case KL_K3:  return exp(-d) - 1 + d;
    default:     return d;
    }
}

/* Returns the penalty's derivative with respect to log pi(a). Over samples from pi, that of mse has the
 * expectation of the gradient of KL(pi || ref), that of k3 has the expectation of the gradient of
 * KL(ref || pi), and that of kl, which is 1, has the expectation 0. */
static double penalty_slope(int kind, double d) {
    switch (kind) {
    case KL_ABS: return d > 0 ? 1 : d < 0 ? -1 : 0;
    case KL_MSE: return d;
    case KL_K3:  return 1 - exp(-d);
    default:     return 1;
    }
}

void kl_penalty(float *kl, const float *logprob, const float *ref_logprob, const float *full, int kind,
                int P) {
    for (int t = 0; t < P; t++)
        kl[t] = kind == KL_FULL ? full[t] : (float)penalty(kind, (double)logprob[t] - ref_logprob[t]);
}

/* Returns (1/B) sum_b sum_t kl. The controller's target is a sum over tokens, too: it would push the
 * coefficient to zero if it got a mean over tokens. */
double kl_per_sequence(const float *kl, const int *start, int B) {
    double sum = 0;
    for (int t = start[0]; t < start[B]; t++) sum += kl[t];
    return B > 0 ? sum / B : 0;
}

static double span_sum(const float *x, const int *start, int b) {
    double sum = 0;
    for (int t = start[b]; t < start[b + 1]; t++) sum += x[t];
    return sum;
}

void token_rewards(float *reward, const float *kl, const float *score, float kl_coef, const int *start,
                   int B) {
    for (int b = 0; b < B; b++) {
        for (int t = start[b]; t < start[b + 1]; t++) reward[t] = -kl_coef * kl[t];
        if (start[b + 1] > start[b]) reward[start[b + 1] - 1] += score[b];
    }
}

void whiten(float *x, int P, int shift_mean, int biased) {
    double mean = mean_of(x, P), scale = 1 / sqrt(variance_of(x, P, mean, biased) + 1e-8);
    for (int t = 0; t < P; t++) x[t] = (float)((x[t] - mean) * scale + (shift_mean ? 0 : mean));
}

/* Computes, from the last token to the first,
 *   delta_t = r_t + gamma V_t+1 - V_t        A_t = delta_t + gamma lambda A_t+1        R_t = A_t + V_t
 * where V and A are 0 after the last token. */
void gae(float *advantages, float *returns, const float *rewards, const float *values, float gamma,
         float lambda, const int *start, int B) {
    for (int b = 0; b < B; b++) {
        double next_value = 0, next_advantage = 0;
        for (int t = start[b + 1] - 1; t >= start[b]; t--) {
            double delta = rewards[t] + (double)gamma * next_value - values[t];
            next_advantage = delta + (double)gamma * lambda * next_advantage;
            next_value = values[t];
            advantages[t] = (float)next_advantage;
            returns[t] = (float)(next_advantage + next_value);
        }
    }
}

/* Computes, from R, the sum of the token rewards of a response, its advantage among the K responses to the
 * same query:
 *   GROUP_SCALED   (R - mean) / (std + 1e-4), std unbiased   GRPO (Shao et al. 2024, 4.1.2), as TRL has it
 *   GROUP_MEAN     R - mean                                  Dr. GRPO (Liu et al. 2025)
 *   GROUP_OTHERS   R - mean of the other K - 1               RLOO (Kool et al. 2019; Ahmadian et al. 2024) */
void group_advantages(float *advantages, const float *rewards, int kind, int K, const int *start, int B) {
    for (int first = 0; first + K <= B; first += K) {
        double mean = 0, squares = 0;
        for (int b = first; b < first + K; b++) mean += span_sum(rewards, start, b) / K;
        for (int b = first; b < first + K; b++) squares += square(span_sum(rewards, start, b) - mean);
        const double scale = kind == GROUP_SCALED ? 1 / (sqrt(squares / (K - 1)) + 1e-4)
                           : kind == GROUP_OTHERS ? K / (K - 1.0) : 1;
        for (int b = first; b < first + K; b++) {
            const float A = (float)((span_sum(rewards, start, b) - mean) * scale);
            for (int t = start[b]; t < start[b + 1]; t++) advantages[t] = A;
        }
    }
}

float token_weight(int kind, int length, int tokens, int n) {
    return kind == MEAN_TOKEN ? 1 : (float)((double)tokens / ((double)n * length));
}

/* Where the clipped term is larger than the unclipped one, or the dual clip holds, the first part of l does
 * not depend on logprob. Otherwise plain = -A rho is its own derivative, as d rho / d logprob = rho; inside
 * the range both terms are equal. */
void policy_loss(float *dlogprob, const PolicyTokens *x, const PpoLoss *c, float scale, int n, PpoStats *s) {
    const double low = 1 - (double)c->clip_range;
    const double high = 1 + (double)(c->clip_range_high > 0 ? c->clip_range_high : c->clip_range);
    for (int t = 0; t < n; t++) {
        double difference = (double)x->logprob[t] - x->old_logprob[t], A = x->advantage[t];
        double weight = x->weight ? x->weight[t] : 1, slope = 0;
        double ratio = exp(difference), clipped = ratio < low ? low : ratio > high ? high : ratio;
        double plain = -A * ratio, bounded = -A * clipped, deviation = fabs(ratio - 1);
        double most = c->dual_clip > 0 && A < 0 ? -A * c->dual_clip : HUGE_VAL;
        int clip = bounded > plain || plain > most;
        if (!clip) slope = plain;
        s->policy_loss += weight * (plain > most ? most : clip ? bounded : plain);
        if (x->ref_logprob) {
            const double d = (double)x->logprob[t] - x->ref_logprob[t];
            slope += c->kl_coef * penalty_slope(c->kl_kind, d);
            s->kl_loss += weight * penalty(c->kl_kind, d);
        }
        dlogprob[t] += (float)(scale * weight * slope);
        s->tokens += 1;
        s->clip_fraction += clip;
        s->approx_kl += 0.5 * difference * difference;
        s->policy_kl -= difference;
        s->ratio += ratio;
        /* a NaN is stored, and stays, as no number is larger than a NaN */
        if (deviation > s->max_ratio_deviation || deviation != deviation) s->max_ratio_deviation = deviation;
    }
}

/* dl/dv is v - R if the unclipped term is at least as large as the clipped term, otherwise 0. s->tokens is
 * counted by policy_loss, which gets the same tokens. */
void value_loss(float *dvalue, const float *value, const float *old_value, const float *returns,
                const PpoLoss *c, float scale, int n, PpoStats *s) {
    double range = c->clip_range_value;
    for (int t = 0; t < n; t++) {
        double v = value[t], low = old_value[t] - range, high = old_value[t] + range, R = returns[t];
        double near = range <= 0 ? v : v < low ? low : v > high ? high : v;
        double plain = square(v - R), bounded = square(near - R);
        int clip = bounded > plain;
        if (!clip) dvalue[t] += (float)((double)scale * c->vf_coef * (v - R));
        s->value_loss += 0.5 * (clip ? bounded : plain);
        s->value_clip_fraction += clip;
        s->value_error += plain;
        s->value += v;
    }
}

void ppo_stats_mean(PpoStats *s) {
    double n = s->tokens > 0 ? s->tokens : 1;
    s->policy_loss /= n; s->kl_loss /= n; s->value_loss /= n;
    s->clip_fraction /= n; s->value_clip_fraction /= n;
    s->approx_kl /= n; s->policy_kl /= n; s->ratio /= n; s->entropy /= n; s->weighted_entropy /= n;
    s->value_error /= n; s->value /= n;
}

int ratio_exceeds(const PpoStats *s, const PpoLoss *c) {
    return c->ratio_threshold > 0 && s->tokens > 0 && !(s->ratio / s->tokens <= c->ratio_threshold);
}

int kl_early_stop(double policy_kl, double target_kl) { return target_kl > 0 && policy_kl > 1.5 * target_kl; }

void kl_controller_update(KlController *c, double kl, int n) {
    double error = kl / c->target - 1;
    if (c->horizon <= 0) return;
    error = error < -0.2 ? -0.2 : error > 0.2 ? 0.2 : error;
    c->coef *= 1 + error * n / c->horizon;
}

/* Adds x (n) to the moments: merges the counts, means and sums of squares of two sets (Chan et al. 1979). var
 * is biased, std unbiased. std is not changed if there is only one value. */
static void moments_update(Moments *m, const float *x, int n) {
    if (n < 1) return;
    double mean = mean_of(x, n), squares = 0, count = m->count + n, step = mean - m->mean;
    for (int i = 0; i < n; i++) squares += square(x[i] - mean);
    squares += m->var * m->count + step * step * m->count * n / count;
    m->mean += step * n / count;
    m->var = squares / count;
    if (count > 1) m->std = sqrt(squares / (count - 1));
    m->count = count;
}

/* Adds the new scores to the moments before it scales them, as TRL does. 1.19e-7 is
 * float32's epsilon, 2^-23. */
void process_scores(float *score, int B, const ScoreRule *rule, Moments *m) {
    if (rule->scaling) {
        moments_update(m, score, B);
        double scale = 1 / (m->std + 1.1920928955078125e-07), shift = rule->norm ? m->mean : 0;
        for (int b = 0; b < B; b++) score[b] = (float)((score[b] - shift) * scale);
    }
    for (int b = 0; b < B && rule->clip > 0; b++)
        score[b] = score[b] < -rule->clip ? -rule->clip : score[b] > rule->clip ? rule->clip : score[b];
}

/* Sorts by Shell's method, which is short and needs no memory. */
static void sort(float *x, int n) {
    for (int gap = n / 2; gap > 0; gap /= 2)
        for (int i = gap; i < n; i++) {
            float moving = x[i];
            int j = i;
            for (; j >= gap && x[j - gap] > moving; j -= gap) x[j] = x[j - gap];
            x[j] = moving;
        }
}

Summary summarise(const float *x, int n, float *scratch) {
    Summary s = { 0, 0, 0 };
    if (n < 1) return s;
    s.mean = mean_of(x, n);
    s.std = sqrt(variance_of(x, n, s.mean, 0));
    memcpy(scratch, x, (size_t)n * sizeof *x);
    sort(scratch, n);
    s.median = ((double)scratch[(n - 1) / 2] + scratch[n / 2]) / 2;
    return s;
}
