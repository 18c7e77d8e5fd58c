/* tests/unit/rl.c - PPO's arithmetic against PyTorch (golden/models/ppo), against a port of TRL (golden/ppo),
 * and against numbers that are published in the tests of TRL, torchtune and OpenRLHF and in "The N
 * implementation details of RLHF with PPO". */
#include "test.h"

enum { CAP = 64 };

static int close_to(double a, double b, double tolerance) { return fabs(a - b) <= tolerance * (1 + fabs(b)); }

/* Returns the largest relative difference of n numbers. */
static double worst(const float *a, const float *b, int n) {
    double most = 0;
    for (int i = 0; i < n; i++) {
        double d = fabs((double)a[i] - b[i]) / (1 + fabs(b[i]));
        if (d > most || d != d) most = d;
    }
    return most;
}

/* ---- published numbers ---- */

static void check_kl(void) {
    const float lp[6] = { .5f, .2f, .1f, .6f, .2f, .1f }, ref[6] = { .4f, .3f, 0, .7f, .1f, .3f },
        full[6] = { 1, 2, 3, 4, 5, 6 };
    const float k1[6] = { .1f, -.1f, .1f, -.1f, .1f, -.2f }, absolute[6] = { .1f, .1f, .1f, .1f, .1f, .2f };
    const float mse[6] = { .005f, .005f, .005f, .005f, .005f, .02f };
    float kl[6];
    kl_penalty(kl, lp, ref, NULL, KL_K1, 6);
    CHECK(worst(kl, k1, 6) < 1e-6, "TRL test_core: kl");
    kl_penalty(kl, lp, ref, NULL, KL_ABS, 6);
    CHECK(worst(kl, absolute, 6) < 1e-6, "TRL test_core: abs");
    kl_penalty(kl, lp, ref, NULL, KL_MSE, 6);
    CHECK(worst(kl, mse, 6) < 1e-6, "TRL test_core: mse");
    kl_penalty(kl, lp, ref, full, KL_FULL, 6);
    CHECK(worst(kl, full, 6) == 0, "full: the head's numbers pass through");
    kl_penalty(kl, lp, lp, NULL, KL_K3, 6);
    CHECK(kl[0] == 0 && kl[5] == 0, "k3 of equal policies is exactly 0");
}

static void check_whitening(void) {
    float two[2] = { 2, 3 }, one[1] = { 7 }, equal[3] = { 4, 4, 4 };
    const float rewards[9] = { 1.2f, 1.3f, 1.4f, 1.5f, 1.6f, 1.7f, 1.8f, 1.9f, 2.0f };
    const float biased[9] = { .05080712f, .4381051f, .8254035f, 1.2127019f, 1.6000004f, 1.9872988f,
                              2.3745968f, 2.7618952f, 3.1491938f };
    const float unbiased[9] = { .1394f, .5046f, .8697f, 1.2349f, 1.6f, 1.9651f, 2.3303f, 2.6954f, 3.0606f };
    float x[9];
    memcpy(x, rewards, sizeof x);
    whiten(x, 9, 0, 1);
    CHECK(worst(x, biased, 9) < 1e-5, "N implementation details: whiten, biased variance, mean kept");
    memcpy(x, rewards, sizeof x);
    whiten(x, 9, 0, 0);
    CHECK(worst(x, unbiased, 9) < 1e-4, "the same with unbiased variance");
    whiten(two, 2, 1, 0);
    CHECK(close_to(two[0], -0.70710677, 1e-6) && close_to(two[1], 0.70710677, 1e-6),
          "TRL test_core: masked_whiten of 2, 3");
    whiten(one, 1, 0, 0);
    CHECK(one[0] == 7, "one reward without shift stays");
    whiten(one, 1, 1, 0);
    CHECK(one[0] == 0, "one advantage becomes 0, not NaN");
    whiten(equal, 3, 1, 0);
    CHECK(equal[0] == 0 && equal[2] == 0, "equal advantages become 0");
}

static void check_rewards_and_gae(void) {
    const float kl[9] = { -.1f, -.1f, -.1f, -.2f, -.2f, -.2f, -.3f, -.3f, -.3f }, score[3] = { 1, 2, 3 };
    const float expected[9] = { .05f, .05f, 1.05f, .1f, .1f, 2.1f, .15f, .15f, 3.15f };
    const int start[4] = { 0, 3, 6, 9 }, gap[4] = { 0, 2, 2, 3 }, whole[2] = { 0, 4 };
    const float v[4] = { 0, 0, 0, 1 };
    float reward[9], advantage[4], returns[4], nothing[3] = { 0, 0, 0 };
    token_rewards(reward, kl, score, .5f, start, 3);
    CHECK(worst(reward, expected, 9) < 1e-6, "torchtune test_rewards: get_rewards_ppo");
    token_rewards(reward, nothing, score, .5f, gap, 3);
    CHECK(reward[0] == 0 && reward[1] == 1 && reward[2] == 3,
          "a response without tokens takes no other response's reward");
    gae(advantage, returns, v, v, .9f, .95f, whole, 1);
    CHECK(close_to(returns[0], .9 * .9 * .9 * .95 * .95, 1e-6) && close_to(returns[1], .9 * .9 * .95, 1e-6)
          && close_to(returns[2], .9, 1e-6) && returns[3] == 1, "torchtune test_rewards: GAE returns");
    CHECK(close_to(kl_per_sequence(kl, start, 3), -0.6, 1e-6), "KL: sum over tokens, mean over sequences");
}

/* ---- traps: each is a mistake of a trainer that is in use ---- */

static void check_losses(void) {
    const PpoLoss c = { .clip_range = .2f, .clip_range_value = .2f, .vf_coef = .1f, .ratio_threshold = 10 };
    const float logprob[4] = { -1, -2, -.5f, -3 }, A[4] = { 1, -1, .5f, -2 };
    float d[4] = { 0, 0, 0, 0 }, twice[4] = { 0, 0, 0, 0 };
    PpoStats s, whole, parts;
    memset(&s, 0, sizeof s);
    policy_loss(d, POLICY(logprob, logprob, A), &c, .25f, 4, &s);
    CHECK(s.max_ratio_deviation == 0 && s.ratio == 4 && s.clip_fraction == 0,
          "equal log-probs: every ratio is exactly 1");
    CHECK(d[0] == -.25f && d[3] == .5f, "there the gradient is -A scale");

    const float moved[4] = { -.5f, -1.5f, -1, -3.5f };    /* up, up, down, down, with advantages +, -, +, - */
    memset(d, 0, sizeof d);
    memset(&whole, 0, sizeof whole);
    memset(&parts, 0, sizeof parts);
    policy_loss(d, POLICY(moved, logprob, A), &c, 1, 4, &whole);
    CHECK(d[0] == 0 && d[1] > 0 && d[2] < 0 && d[3] == 0,
          "clipped where the ratio already moved the wanted way, only there");
    policy_loss(twice, POLICY(moved, logprob, A), &c, 1, 1, &parts);
    policy_loss(twice + 1, POLICY(moved + 1, logprob + 1, A + 1), &c, 1, 3, &parts);
    CHECK(!memcmp(d, twice, sizeof d) && whole.policy_loss == parts.policy_loss && parts.tokens == 4,
          "accumulation with uneven lengths equals the full batch: a global token mean");
    policy_loss(d, POLICY(moved, logprob, A), &c, 1, 4, &whole);
    CHECK(d[1] == 2 * twice[1], "gradients are added");

    const float v[3] = { 1, 2, 0 }, old[3] = { 0, 2, 0 }, R[3] = { 2, 1, 0 };
    PpoLoss free_value = c;
    memset(d, 0, sizeof d);
    memset(&s, 0, sizeof s);
    value_loss(d, v, old, R, &c, 1, 3, &s);
    CHECK(d[0] == 0 && close_to(d[1], .1, 1e-6) && d[2] == 0,
          "value clip: no gradient where the clipped error is larger");
    CHECK(close_to(s.value_loss, .5 * (1.8 * 1.8 + 1), 1e-6) && s.value_clip_fraction == 1,
          "value loss takes the larger error");
    free_value.clip_range_value = 0;
    memset(d, 0, sizeof d);
    value_loss(d, v, old, R, &free_value, 1, 3, &s);
    CHECK(close_to(d[0], -.1, 1e-6), "without value clip the gradient is vf_coef (v - R)");
}

/* ---- what other trainers add to PPO's loss ---- */

static void check_clips(void) {
    const float now[4] = { .3f, .3f, -.3f, 2 }, old[4] = { 0, 0, 0, 0 }, A[4] = { 1, -1, 1, -1 };
    const PpoLoss plain = { .clip_range = .2f }, higher = { .clip_range = .2f, .clip_range_high = .5f };
    const PpoLoss dual = { .clip_range = .2f, .dual_clip = 3 };
    float d[4] = { 0 };
    PpoStats s;
    memset(&s, 0, sizeof s);
    policy_loss(d, POLICY(now, old, A), &plain, 1, 4, &s);
    CHECK(d[0] == 0 && close_to(d[3], exp(2.0), 1e-6) && s.clip_fraction == 1,
          "without clip-higher a ratio of 1.35 is clipped; without dual clip one of 7.4 is not, if A < 0");
    memset(d, 0, sizeof d);
    policy_loss(d, POLICY(now, old, A), &higher, 1, 4, &s);
    CHECK(close_to(d[0], -exp((double)now[0]), 1e-6) && close_to(d[2], -exp((double)now[2]), 1e-6),
          "clip-higher moves the upper bound alone: 1.35 is inside");
    memset(d, 0, sizeof d);
    memset(&s, 0, sizeof s);
    policy_loss(d + 3, POLICY(now + 3, old, A + 3), &dual, 1, 1, &s);
    CHECK(d[3] == 0 && s.policy_loss == 3 && s.clip_fraction == 1, "dual clip: the loss is at most 3 |A|");
    memset(&s, 0, sizeof s);
    policy_loss(d, POLICY(now, old, A), &dual, 1, 3, &s);
    CHECK(close_to(s.policy_loss, -1.2 + exp((double)now[1]) - exp((double)now[2]), 1e-6),
          "it changes no token with A > 0, and none with a smaller ratio");
}

static void check_kl_in_loss(void) {
    const float now[2] = { -1, -2 }, ref[2] = { -1.5f, -1 }, A[2] = { 0, 0 };
    static const struct { int kind; double slope[2]; } row[] = {
        { KL_K1, { 1, 1 } }, { KL_ABS, { 1, -1 } }, { KL_MSE, { .5, -1 } },
        { KL_K3, { 0.39346934028736658, -1.7182818284590452 } } };      /* 1 - e^-d, d = 0.5 and -1 */
    for (int i = 0; i < 4; i++) {
        const PpoLoss c = { .clip_range = .2f, .kl_coef = .5f, .kl_kind = row[i].kind };
        const PolicyTokens x = { .logprob = now, .old_logprob = now, .advantage = A, .ref_logprob = ref };
        float d[2] = { 0 }, kl[2];
        PpoStats s;
        memset(&s, 0, sizeof s);
        policy_loss(d, &x, &c, 2, 2, &s);
        kl_penalty(kl, now, ref, NULL, row[i].kind, 2);
        CHECK(close_to(d[0], row[i].slope[0], 1e-6) && close_to(d[1], row[i].slope[1], 1e-6),
              "KL in the loss, kind %d: scale x coefficient x slope: %g, %g", row[i].kind, (double)d[0],
              (double)d[1]);
        CHECK(close_to(s.kl_loss, (double)kl[0] + kl[1], 1e-6) && s.policy_loss == 0,
              "it is counted apart, without its coefficient");
    }
}

static void check_groups(void) {
    const int start[7] = { 0, 1, 3, 4, 5, 6, 8 };
    const float reward[8] = { 1, 1, 1, 6, 2, 2, 1, 1 };     /* sums 1, 2, 6 and 2, 2, 2 */
    float A[8];
    group_advantages(A, reward, GROUP_MEAN, 3, start, 6);
    CHECK(close_to(A[0], -2, 1e-6) && close_to(A[1], -1, 1e-6) && A[2] == A[1] && close_to(A[3], 3, 1e-6),
          "Dr. GRPO: the reward minus the group's mean, for every token of a response");
    CHECK(A[4] == 0 && A[7] == 0, "equal rewards teach nothing");
    group_advantages(A, reward, GROUP_SCALED, 3, start, 6);
    CHECK(close_to(A[3], 3 / (sqrt(7.0) + 1e-4), 1e-6) && A[4] == 0,
          "GRPO: divided by the group's unbiased deviation + 1e-4");
    group_advantages(A, reward, GROUP_OTHERS, 3, start, 6);
    CHECK(close_to(A[0], 1 - 4, 1e-6) && close_to(A[1], 2 - 3.5, 1e-6) && close_to(A[3], 6 - 1.5, 1e-6),
          "RLOO: minus the mean of the other responses");
}

/* A mean over sequences, from two mini-batches, against its definition. */
static void check_loss_means(void) {
    const PpoLoss c = { .clip_range = .2f };
    const float lp[4] = { 0, 0, 0, 0 }, A[4] = { 1, 2, 3, 7 };
    float w[4], d[4] = { 0 };
    PpoStats s;
    memset(&s, 0, sizeof s);
    CHECK(token_weight(MEAN_TOKEN, 3, 4, 2) == 1, "a mean over tokens: each counts 1");
    for (int t = 0; t < 4; t++) w[t] = token_weight(MEAN_SEQUENCE, t ? 3 : 1, 4, 2);
    for (int first = 0, n = 1; first < 4; first += n, n = 3) {
        const PolicyTokens x = { .logprob = lp, .old_logprob = lp, .advantage = A + first,
                                 .weight = w + first };
        policy_loss(d + first, &x, &c, .25f, n, &s);
    }
    ppo_stats_mean(&s);
    CHECK(close_to(s.policy_loss, -(1 + 12 / 3.) / 2, 1e-6), "the loss is the mean of the means");
    CHECK(close_to(d[0], -.5, 1e-6) && close_to(d[3], -7 / 6., 1e-6), "and so is its gradient");
}

static void check_guards(void) {
    const PpoLoss c = { .clip_range = .2f, .ratio_threshold = 10 }, off = { .clip_range = .2f };
    const float old[2] = { 0, 0 }, far_away[2] = { 5, 0 }, beyond[2] = { 800, 0 }, A[2] = { -1, -1 };
    float d[2] = { 0, 0 };
    PpoStats s;
    memset(&s, 0, sizeof s);
    policy_loss(d, POLICY(old, old, A), &c, 1, 2, &s);
    CHECK(!ratio_exceeds(&s, &c), "ratio guard: quiet at 1");
    memset(&s, 0, sizeof s);
    policy_loss(d, POLICY(far_away, old, A), &c, 1, 2, &s);
    CHECK(ratio_exceeds(&s, &c) && !ratio_exceeds(&s, &off),
          "ratio guard: mean ratio 74 is above 10; threshold 0 is off");
    memset(&s, 0, sizeof s);
    policy_loss(d, POLICY(beyond, old, A), &c, 1, 2, &s);
    CHECK(ratio_exceeds(&s, &c), "ratio guard: infinity");
    s.ratio = (double)NAN;
    CHECK(ratio_exceeds(&s, &c), "ratio guard: NaN");
    CHECK(!kl_early_stop(1.4, 1) && kl_early_stop(1.6, 1) && !kl_early_stop(9, 0),
          "early stop above 1.5 target_kl");
    float nan_logprob[1] = { (float)NAN };
    memset(&s, 0, sizeof s);
    policy_loss(d, POLICY(nan_logprob, old, A), &c, 1, 1, &s);
    CHECK(!(s.max_ratio_deviation == 0), "a NaN ratio is not mistaken for 1");
}

static void check_scores(void) {
    Moments m = { 0, 1, 1, 1e-24 };
    const ScoreRule norm = { 1, 1, 1 }, clip = { 0, 1, .5f };
    float one[1] = { 3 }, many[4] = { 1, 2, 3, 4 }, scratch[5];
    const float values[5] = { 5, 1, 4, 2, 3 };
    process_scores(one, 1, &norm, &m);
    CHECK(one[0] == 0 && m.std == 1, "a first batch of one score: no division by zero");
    process_scores(many, 4, &clip, &m);
    CHECK(many[0] == .5f && many[3] == .5f && m.count == 1 + 1e-24, "clip alone neither scales nor counts");
    Summary s = summarise(values, 5, scratch), even = summarise(values, 4, scratch),
        none = summarise(values, 0, scratch);
    CHECK(s.mean == 3 && s.median == 3 && close_to(s.std, sqrt(2.5), 1e-12), "summary of five");
    CHECK(even.median == 3 && none.mean == 0 && summarise(values, 1, scratch).std == 0, "even, none and one");
    CHECK(values[0] == 5, "the input keeps its order");
}

/* ---- the port of TRL: its arrays are (2,6) with a mask, and become ragged ---- */

static int ragged(float *out, const Json *all, const char *name, const char *mask_name) {
    const Json *x = json_get(all, name), *m = json_get(all, mask_name);
    int n = 0;
    CHECK(x && m, "golden has %s", name);
    if (!x || !m) return 0;
    for (x = x->child, m = m->child; x && m; x = x->next, m = m->next) {
        const Json *a = x->child, *b = m->child;
        for (; a && b; a = a->next, b = b->next) if (b->number != 0 && n < CAP) out[n++] = (float)a->number;
    }
    return n;
}

static int numbers(double *out, const Json *array) {
    int n = 0;
    for (const Json *a = array ? array->child : NULL; a && n < CAP; a = a->next) out[n++] = a->number;
    return n;
}

static int same(const float *x, const Json *all, const char *name, double tolerance) {
    float y[CAP];
    int n = ragged(y, all, name, "in.mask");
    return n == 8 && worst(x, y, n) < tolerance;
}

static void check_port_losses(const Json *all, const float *old, const float *value, const float *advantage,
                              const float *returns) {
    const PpoLoss c = { .clip_range = .2f, .clip_range_value = .2f, .vf_coef = .1f, .ratio_threshold = 10 };
    const Json *want = json_get(all, "loss(newlp,vp)");
    float lp[CAP], v[CAP], d[CAP], scratch[CAP];
    PpoStats s;
    memset(&s, 0, sizeof s);
    memset(d, 0, sizeof d);
    ragged(lp, all, "in.new_logprobs", "in.mask");
    ragged(v, all, "in.vpreds", "in.mask");
    policy_loss(d, POLICY(lp, old, advantage), &c, .125f, 8, &s);
    value_loss(d, v, value, returns, &c, .125f, 8, &s);
    ppo_stats_mean(&s);
    Summary R = summarise(returns, 8, scratch), V = summarise(value, 8, scratch);
    const struct { const char *name; double is; } row[] = {
        { "pg_loss", s.policy_loss }, { "vf_loss", s.value_loss },
        { "total", s.policy_loss + .1 * s.value_loss },
        { "pg_clipfrac", s.clip_fraction }, { "vf_clipfrac", s.value_clip_fraction },
        { "avg_ratio", s.ratio },
        { "approxkl", s.approx_kl }, { "policykl", s.policy_kl }, { "val_error", s.value_error },
        { "returns_mean", R.mean }, { "returns_var", R.std * R.std }, { "val_mean", V.mean },
        { "val_var", V.std * V.std },
        { "var_explained", 1 - s.value_error / (R.std * R.std) },
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        double expected = json_number(want, row[i].name, 1e30);
        CHECK(close_to(row[i].is, expected, 1e-6), "port: %s %.9g, expected %.9g", row[i].name, row[i].is,
              expected);
    }
}

static void check_port(const Json *all) {
    const int start[3] = { 0, 4, 8 };
    const struct { const char *name; int kind; } mode[] = { { "kl", KL_K1 }, { "abs", KL_ABS },
                                                            { "mse", KL_MSE } };
    float lp[CAP], ref[CAP], value[CAP], kl[CAP], reward[CAP], plain[CAP], A[CAP], R[CAP], biased[CAP],
        k3[CAP];
    const float score[2] = { 1, -.5f };
    char name[80];
    ragged(lp, all, "in.logprobs", "in.mask");
    ragged(ref, all, "in.ref_logprobs", "in.mask");
    ragged(value, all, "in.values", "in.mask");
    for (int i = 2; i >= 0; i--) {                          /* kl comes last: the checks below use it */
        kl_penalty(kl, lp, ref, NULL, mode[i].kind, 8);
        token_rewards(reward, kl, score, .2f, start, 2);
        snprintf(name, sizeof name, "%s.rewards", mode[i].name);
        CHECK(same(reward, all, name, 1e-6), "port: %s", name);
        snprintf(name, sizeof name, "%s.objective/kl", mode[i].name);
        CHECK(close_to(kl_per_sequence(kl, start, 2), json_number(all, name, 1e30), 1e-6), "port: %s", name);
    }
    gae(A, R, reward, value, .9f, .8f, start, 2);
    CHECK(same(A, all, "g.9_l.8.adv_raw", 1e-6) && same(R, all, "g.9_l.8.returns", 1e-6),
          "port: GAE, gamma .9 lambda .8");
    whiten(A, 8, 1, 0);
    CHECK(same(A, all, "g.9_l.8.adv_whitened", 1e-5), "port: whitened");
    memcpy(plain, reward, sizeof plain);
    whiten(plain, 8, 0, 0);
    gae(A, R, plain, value, 1, .95f, start, 2);
    CHECK(same(R, all, "whiten_rewards(re-masked).returns", 1e-5), "port: whitened rewards, re-masked");
    CHECK(!same(R, all, "whiten_rewards(TRL classic, leaky).returns", 1e-5), "port: not TRL's leak");
    whiten(A, 8, 1, 0);
    CHECK(same(A, all, "whiten_rewards(re-masked).adv_whitened", 1e-5), "port: whitened rewards, advantages");
    gae(A, R, reward, value, 1, .95f, start, 2);
    CHECK(same(A, all, "g1_l.95.adv_raw", 1e-6) && same(R, all, "g1_l.95.returns", 1e-6),
          "port: GAE, gamma 1 lambda .95");
    memcpy(biased, A, sizeof biased);
    whiten(biased, 8, 1, 1);
    CHECK(same(biased, all, "g1_l.95.adv_whitened_biased(OpenRLHF/OAI var)", 1e-5), "port: biased variance");
    whiten(A, 8, 1, 0);
    CHECK(same(A, all, "g1_l.95.adv_whitened", 1e-5), "port: unbiased variance");
    check_port_losses(all, lp, value, A, R);

    double expected[CAP];
    int masked[8] = { 1, 2, 3, 4, 8, 9, 10, 11 }, good = numbers(expected,
                                                                 json_get(all,
                                                                          "k3=exp(rp-lp)-1-(rp-lp)")) == 12;
    kl_penalty(k3, lp, ref, NULL, KL_K3, 8);
    for (int i = 0; i < 8; i++) good = good && close_to(k3[i], expected[masked[i]], 1e-6);
    CHECK(good, "port: k3");
}

static void check_controller(const Json *all) {
    const double kl[8] = { 0, 3, 6.5, 12, -1, 6, 7.2, 7.3 };
    KlController c = { .2, 6, 10000 }, fixed = { .2, 6, 0 };
    double expected[CAP];
    int n = numbers(expected, json_get(all, "kl_ctl(init .2,target 6,horizon 10000,n=128; "
                                            "kl=0,3,6.5,12,-1,6,7.2,7.3)")), good = n == 8;
    for (int i = 0; i < n; i++) {
        kl_controller_update(&c, kl[i], 128);
        good = good && close_to(c.coef, expected[i], 1e-12);
    }
    CHECK(good, "port: KL controller over eight steps");
    kl_controller_update(&fixed, 100, 128);
    CHECK(fixed.coef == .2, "fixed coefficient stays");

    Moments m = { 0, 1, 1, 1e-24 };
    const ScoreRule scale = { 1, 0, 0 };
    float x[4] = { 1, 2, 3, 4 };
    float next[3] = { 10, -2, .5f };
    process_scores(x, 4, &scale, &m);
    numbers(expected, json_get(all, "  use_score_scaling"));
    CHECK(close_to(x[0], expected[0], 1e-6) && close_to(x[3], expected[3], 1e-6), "port: score scaling");
    const ScoreRule norm = { 1, 1, 0 };
    Moments again = { 0, 1, 1, 1e-24 };
    float y[4] = { 1, 2, 3, 4 };
    process_scores(y, 4, &norm, &again);
    numbers(expected, json_get(all, "  use_score_scaling+norm"));
    CHECK(close_to(y[0], expected[0], 1e-6) && close_to(y[2], expected[2], 1e-6),
          "port: score scaling and norm");
    process_scores(next, 3, &scale, &m);
    n = numbers(expected, json_get(all, "running_moments then [10,-2,.5]"));
    CHECK(n == 4 && close_to(m.mean, expected[0], 1e-12) && close_to(m.std, expected[1], 1e-12)
          && close_to(m.var, expected[2], 1e-12) && m.count == expected[3],
          "port: running moments of two batches");
}

/* ---- PyTorch: values and gradients of ragged arrays ---- */

typedef struct { const Json *header; const unsigned char *data; size_t size; } Golden;

/* Reads a tensor's float32 (or int32) values; returns how many. */
static int tensor(const Golden *g, const char *name, float *out, int *integers) {
    const Json *offsets = json_get(json_get(g->header, name), "data_offsets");
    size_t from, to;
    CHECK(offsets && offsets->count == 2, "golden has %s", name);
    if (!offsets || offsets->count != 2) return 0;
    from = (size_t)offsets->child->number;
    to = (size_t)offsets->child->next->number;
    if (to > g->size || from > to || to - from > CAP * 4) return 0;
    Reader r = { g->data + from, g->data + to, 0 };
    int n = (int)((to - from) / 4);
    for (int i = 0; i < n; i++) {
        uint32_t bits = read_u32(&r);
        f32 value;
        memcpy(&value, &bits, 4);
        if (integers) integers[i] = (int)bits;
        else out[i] = value;
    }
    return n;
}

static void check_torch_losses(const Golden *g, const char *prefix, const float *A, const float *R,
                               const float *hyper, int P) {
    const PpoLoss c = { .clip_range = hyper[3], .clip_range_value = hyper[4], .vf_coef = hyper[5] };
    float old[CAP], lp[CAP], value[CAP], v[CAP], dlp[CAP], dv[CAP], want[CAP];
    char name[80];
    PpoStats s;
    memset(&s, 0, sizeof s);
    tensor(g, "logprobs", old, NULL);
    tensor(g, "new_logprobs", lp, NULL);
    tensor(g, "values", value, NULL);
    tensor(g, "vpreds", v, NULL);
    for (int t = 0; t < P; t++) dlp[t] = dv[t] = 1;         /* backward adds, so start from 1 */
    policy_loss(dlp, POLICY(lp, old, A), &c, 1 / (float)P, P, &s);
    value_loss(dv, v, value, R, &c, 1 / (float)P, P, &s);
    for (int t = 0; t < P; t++) { dlp[t] -= 1; dv[t] -= 1; }
    ppo_stats_mean(&s);
    snprintf(name, sizeof name, "%s.pg_loss", prefix);
    tensor(g, name, want, NULL);
    CHECK(close_to(s.policy_loss, want[0], 2e-6), "torch: %s", name);
    snprintf(name, sizeof name, "%s.vf_loss", prefix);
    tensor(g, name, want, NULL);
    CHECK(close_to(s.value_loss, want[0], 2e-6), "torch: %s", name);
    snprintf(name, sizeof name, "%s.grad.new_logprobs", prefix);
    CHECK(tensor(g, name, want, NULL) == P && worst(dlp, want, P) < 1e-6, "torch: %s (%g)", name,
          worst(dlp, want, P));
    snprintf(name, sizeof name, "%s.grad.vpreds", prefix);
    CHECK(tensor(g, name, want, NULL) == P && worst(dv, want, P) < 1e-6, "torch: %s (%g)", name,
          worst(dv, want, P));
}

static void check_torch(const Golden *g) {
    static const char *const mode[] = { "kl", "abs", "mse" }, *const style[] = { "plain", "whiten_rewards" };
    static const int kind[] = { KL_K1, KL_ABS, KL_MSE };
    int length[CAP], start[CAP + 1] = { 0 }, B = tensor(g, "seq_lens", NULL, length);
    float lp[CAP], ref[CAP], value[CAP], score[CAP], hyper[CAP], kl[CAP], reward[CAP], A[CAP], R[CAP],
        want[CAP];
    char prefix[40], name[80];
    for (int b = 0; b < B; b++) start[b + 1] = start[b] + length[b];
    int P = start[B];
    CHECK(tensor(g, "logprobs", lp, NULL) == P && tensor(g, "ref_logprobs", ref, NULL) == P
          && tensor(g, "values", value, NULL) == P
          && tensor(g, "scores", score, NULL) == B, "torch: sizes");
    tensor(g, "hyper.beta_gamma_lam_clip_vclip_vfcoef", hyper, NULL);
    for (int m = 0; m < 3; m++)
        for (int white = 0; white < 2; white++) {
            snprintf(prefix, sizeof prefix, "%s.%s", mode[m], style[white]);
            kl_penalty(kl, lp, ref, NULL, kind[m], P);
            token_rewards(reward, kl, score, hyper[0], start, B);
            if (white) whiten(reward, P, 0, 0);
            gae(A, R, reward, value, hyper[1], hyper[2], start, B);
            whiten(A, P, 1, 0);
            snprintf(name, sizeof name, "%s.rewards", prefix);
            CHECK(tensor(g, name, want, NULL) == P && worst(reward, want, P) < 2e-6,
                  "torch: %s (%g)", name, worst(reward, want, P));
            snprintf(name, sizeof name, "%s.returns", prefix);
            CHECK(tensor(g, name, want, NULL) == P && worst(R, want, P) < 2e-6, "torch: %s (%g)", name,
                  worst(R, want, P));
            snprintf(name, sizeof name, "%s.advantages", prefix);
            CHECK(tensor(g, name, want, NULL) == P && worst(A, want, P) < 5e-6, "torch: %s (%g)", name,
                  worst(A, want, P));
            check_torch_losses(g, prefix, A, R, hyper, P);
        }
}

int main(void) {
    Pool pool = test_pool();
    Error err;
    char *bytes;
    size_t n;
    memset(&err, 0, sizeof err);
    check_kl();
    check_whitening();
    check_rewards_and_gae();
    check_losses();
    check_clips();
    check_kl_in_loss();
    check_groups();
    check_loss_means();
    check_guards();
    check_scores();
    CHECK(file_read_all("tests/golden/ppo/ppo_goldens.json", &pool, &bytes, &n, &err) == OK,
          "ppo_goldens.json is there");
    const Json *port = err.code ? NULL : json_parse(bytes, n, &pool, &err);
    CHECK(port, "ppo_goldens.json is JSON");
    if (port) { check_port(port); check_controller(port); }
    CHECK(file_read_all("tests/golden/models/ppo/golden.safetensors", &pool, &bytes, &n, &err) == OK,
          "golden.safetensors is there");
    if (!err.code && n > 8) {
        Reader r = { (const unsigned char *)bytes, (const unsigned char *)bytes + n, 0 };
        Golden g;
        uint64_t header = read_u64(&r);
        const unsigned char *text = read_bytes(&r, header);
        g.header = text ? json_parse((const char *)text, (size_t)header, &pool, &err) : NULL;
        g.data = r.at;
        g.size = (size_t)(r.end - r.at);
        CHECK(g.header, "golden.safetensors has a header");
        if (g.header) check_torch(&g);
    }
    pool_free(&pool);
    return test_end("rl");
}
