/* tests/unit/penalty.c - what each KL penalty does when it is charged as a reward, on a bandit: a response
 * of one token out of four, trained with the exact expectation of the policy gradient, so that no noise
 * hides anything. The optimum of E[reward] - coefficient * KL(policy || reference) is the policy in
 * proportion to reference * exp(reward / coefficient). `ppo --help` and its advice at a negative KL say
 * what is checked here. */
#include "test.h"

enum { ARMS = 4 };
static const double reference[ARMS] = { 0.4, 0.3, 0.2, 0.1 }, reward[ARMS] = { 0, 0.2, 0.4, 1 };

static double divergence(const double *p) {
    double sum = 0;
    for (int a = 0; a < ARMS; a++) sum += p[a] > 0 ? p[a] * log(p[a] / reference[a]) : 0;
    return sum;
}

static void softmax_of(double *p, const double *z) {
    double most = z[0], sum = 0;
    for (int a = 1; a < ARMS; a++) most = z[a] > most ? z[a] : most;
    for (int a = 0; a < ARMS; a++) sum += p[a] = exp(z[a] - most);
    for (int a = 0; a < ARMS; a++) p[a] /= sum;
}

/* Trains the bandit to its end; p: the policy, z: its logits. Token a is charged as token_rewards charges
 * it. */
static void train(double *p, int kind, double coefficient) {
    const int start[ARMS + 1] = { 0, 1, 2, 3, 4 };          /* four responses, one of each token */
    double z[ARMS];
    for (int a = 0; a < ARMS; a++) z[a] = log(reference[a]);
    for (int step = 0; step < 20000; step++) {
        float log_p[ARMS], log_reference[ARMS], full[ARMS], kl[ARMS], score[ARMS], charged[ARMS];
        double mean = 0;
        softmax_of(p, z);
        for (int a = 0; a < ARMS; a++) {
            log_p[a] = (float)log(p[a] > 1e-30 ? p[a] : 1e-30);
            log_reference[a] = (float)log(reference[a]);
            full[a] = (float)divergence(p);
            score[a] = (float)reward[a];
        }
        kl_penalty(kl, log_p, log_reference, full, kind, ARMS);
        token_rewards(charged, kl, score, (float)coefficient, start, ARMS);
        for (int a = 0; a < ARMS; a++) mean += p[a] * charged[a];
        /* E[charged * d log p / dz] */
        for (int a = 0; a < ARMS; a++) z[a] += 0.5 * p[a] * (charged[a] - mean);
    }
}

int main(void) {
    const double coefficient[3] = { 0.5, 1, 2 };
    for (int i = 0; i < 3; i++) {
        double best[ARMS], z[ARMS], p[ARMS];
        for (int a = 0; a < ARMS; a++) z[a] = log(reference[a]) + reward[a] / coefficient[i];
        softmax_of(best, z);
        train(p, KL_K1, coefficient[i]);
        double apart = 0;
        for (int a = 0; a < ARMS; a++) apart = fabs(p[a] - best[a]) > apart ? fabs(p[a] - best[a]) : apart;
        CHECK(apart < 1e-4, "kl, coefficient %g: the optimum (%g apart), KL %.4f", coefficient[i], apart,
              divergence(p));
        train(p, KL_FULL, coefficient[i]);
        CHECK(p[3] > 0.999, "full, coefficient %g: no restraint, the best token alone (%.4f)",
              coefficient[i], p[3]);
        train(p, KL_ABS, coefficient[i]);
        CHECK(divergence(p) > 4 * divergence(best) && p[0] < 0.01,
              "abs, coefficient %g: KL %.3f, optimum %.3f; a token that "
              "became rarer vanishes", coefficient[i], divergence(p), divergence(best));
        train(p, KL_MSE, coefficient[i]);
        CHECK(divergence(p) > 4 * divergence(best) && p[0] < 0.01,
              "mse, coefficient %g: KL %.3f, optimum %.3f; likewise",
              coefficient[i], divergence(p), divergence(best));
        train(p, KL_K3, coefficient[i]);
        CHECK(divergence(p) > 4 * divergence(best), "k3, coefficient %g: KL %.3f, optimum %.3f",
              coefficient[i], divergence(p),
              divergence(best));
    }
    return test_end("penalty");
}
