/* ppo.c - stage 3 of RLHF: a policy writes, a judge scores, PPO moves the policy towards texts that score
 * well, and a KL penalty keeps it near where it started. ./ppo DATA [--policy DIR] [--reward DIR]
 *
 * Read     ppo_step(): one step of the algorithm on one screen. The functions that it calls are in the
 *          parts, programs/ppo_*.c, and programs/ppo.h says what is where. The arithmetic is in rl.c, the
 *          forward in model.c, the table of results in report.c; the options are at the end.
 * Source   Ziegler et al. 2019, Schulman et al. 2017; for --algorithm grpo and rloo Shao et al. 2024 and
 *          Ahmadian et al. 2024; options and statistics have the names of TRL 0.11.4's PPOTrainer.
 * Needs    a dataset (prep), a policy's folder (sft), a judge's folder (rm), --reward-text or
 *          --reward-command. All memory is measured first and reserved once.
 * Exact    the old log-probs and values are those that the sampler computed. Training computes the same
 *          bits again, so all ratios are exactly 1 in the first update of a step. The log has the first
 *          update's largest deviation from 1 (first_ratio_max_deviation), which has to be 0.
 * Edges    EOS belongs to the response and ends it. A query is the first tokens of a document, or all tokens
 *          of a prompt, after <s> if the tokenizer's template has one. Documents that are not longer than
 *          the query are skipped. Every random number comes from a stream of (seed, purpose, step, index),
 *          so neither batch sizes nor threads change a sample. */
#include "programs/ppo.h"
#include <stdio.h>

/* ---- the algorithm ---- */

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

enum { KEEP_MEAN, SHIFT_MEAN };             /* the argument shift_mean of whiten */

/* Returns GROUP_...: how a response is compared with its group. */
static int baseline(const Settings *o) {
    return o->algorithm == ALGORITHM_RLOO ? GROUP_OTHERS : o->group_scale ? GROUP_SCALED : GROUP_MEAN;
}

/* Makes one step of PPO. Returns objective/kl: the chosen penalty (--kl-penalty) without the coefficient,
 * summed over the tokens of a response, as the mean over all responses. */
static double ppo_step(Progress *p, const Models *m, Work *w) {
    const Settings *o = m->o;
    const ScoreRule rule = { o->score_scaling, o->score_norm, (float)o->score_clip };
    Rollout *x = &w->rollout;
    const float coef = o->kl_in == KL_IN_REWARD ? (float)p->kl.coef : 0;
    double policy_kl = 0;                   /* the last update's KL from the policy that sampled */
    step_begin(&w->now);

    draw_queries(p, m, w);                  /* beginnings of training documents */
    sample_responses(p, m, w);              /* tokens, old log-probs, old values by a value head */
    if (o->value_model) value_responses(p, m, w);           /* old values by a model of their own */
    lap(&w->now, GENERATE);
    score_responses(p, m, w);               /* one number for each text */
    check_scores(m, w);
    process_scores(x->score, x->B, &rule, &p->moments);
    lap(&w->now, SCORE);
    reference_logprobs(p, m, w);              /* log-probs of the same tokens, by the frozen reference */
    lap(&w->now, REFERENCE);

    kl_penalty(x->kl, x->logprob, x->ref_logprob, x->full_kl, o->kl_penalty, x->P);
    token_rewards(x->reward, x->kl, x->score, coef, x->start, x->B);
    if (o->whiten_rewards) whiten(x->reward, x->P, KEEP_MEAN, o->biased);
    if (has_values(o)) {                    /* PPO: what the values did not expect */
        gae(x->advantage, x->returns, x->reward, x->value, (float)o->gamma, (float)o->lam, x->start, x->B);
        whiten(x->advantage, x->P, SHIFT_MEAN, o->biased);
    } else                                  /* GRPO, RLOO: what the group's other responses did not get */
        group_advantages(x->advantage, x->reward, baseline(o), o->group, x->start, x->B);
    check_tokens(p, m, w);
    lap(&w->now, ADVANTAGES);
    if (o->dump) dump_rollout(p, m, w);

    for (int epoch = 0; epoch < o->ppo_epochs; epoch++) {
        if (o->early_stopping && kl_early_stop(policy_kl, o->target_kl)) break;
        const int size = o->mini_batch_size * o->accumulation;
        Rng rng = stream(o->seed, STREAM_EPOCH, (uint64_t)p->step, (uint64_t)epoch);
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

/* ---- the run ---- */

/* Evaluates after some steps, and keeps the weights if they are the best so far. */
static void evaluate_after(Progress *p, const Models *m, Work *w) {
    const Saver saver = ppo_saver(w, NULL);
    evaluate(p, m, w, 1);
    run_best(&saver, &p->best, mean(w->eval.score[1], w->eval.n), p->step);
}

/* Prints the evaluation between two steps. That after the last step is in the table. */
static void say_evaluation(const Progress *p, const Evaluation *e) {
    const Summary s = summarise(e->score[1], e->n, e->scratch);
    char count[64];
    say("after step %d: mean reward %.4f, median %.4f, KL %.2f on %s%s", p->step, s.mean, s.median,
        mean(e->kl[1], e->n), counted(count, (size_t)e->n, "held-out query"),
        p->best.step == p->step ? ": the best so far" : "");
}

/* Trains. What is due after a step is done before the next one: so a run that was stopped after a step, and
 * goes on, does it then. */
static void train(Progress *p, const Models *m, Work *w) {
    const Settings *o = m->o;
    char why[160];
    while (p->step < o->steps && !cli_stopping()) {
        PoolMark mark = pool_mark(&w->pool);
        if (run_due(o->eval_every, p->step) && p->evaluated != p->step && w->eval.n) {
            evaluate_after(p, m, w);
            say_evaluation(p, &w->eval);
            p->evaluated = p->step;
        }
        /* a run that goes on does it again, since --keep keeps no save of a stop */
        if (run_due(o->run.save_every, p->step) && !w->health.bad) save_result(p, w, 0);
        if (cli_stopping()) break;
        p->step++;
        step_end(p, m, w, ppo_step(p, m, w));
        out_begun(&w->out);
        cli_time_limit(o->run.minutes);
        report_live(&w->out);
        const char *fault = weights_fault(why, m->trained, m->trained_all, o->dtype);
        if (fault) not_a_number(p, m, w, fault, 0, SMALLER_WEIGHTS);
        pool_release(&w->pool, mark);
    }
    if (w->out.saved != p->step && !(w->health.bad && w->out.saved)) save_result(p, w, 1);
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

/* Sets what a state then changes. */
static void progress_begin(Progress *p, const Models *m, Work *w) {
    const Settings *o = m->o;
    p->gain = 1;
    p->moments.std = p->moments.var = 1;
    p->moments.count = 1e-24;
    p->kl.coef = o->kl_coef;
    p->kl.target = o->target;
    p->kl.horizon = o->adaptive ? o->horizon : 0;
    if (o->eval_queries) evaluation_begin(m, w);
    if (o->score_normalize && !w->eval.n)
        must(fail(&w->err, E_MISSING, "no held-out documents: no scores to normalize with", "", 0, 0),
             &w->err, "leave --score-normalize out");
}

/* Prints how many steps were made, of which the first `before` by the run that this one goes on with. */
static void say_steps(const Progress *p, int before, double seconds, const char *made, const RunFolder *f) {
    char count[64], time[32], all[48] = "";
    readable_time(time, seconds);
    if (before) snprintf(all, sizeof all, ", %d in all", p->step);
    say("  %s in %s%s; %s in %s", counted(count, (size_t)(p->step - before), "step"), time, all, made,
        f->where);
}

/* Evaluates, unless a state has the results (resumed 1), trains, evaluates again, and prints the result. Both
 * evaluations use the same queries and the same random numbers. */
static void run_all(Progress *p, const Models *m, Work *w, int resumed) {
    const Settings *o = m->o;
    static const char *const adapter[3] = { "adapter", "adapter and value head", "adapter and value model" };
    static const char *const model[3] = { "model and tokenizer", "model, tokenizer and value head",
                                          "model, tokenizer and value model" };
    const double begin = wall_clock();
    const int first = p->step;
    char count[64];
    if (w->eval.n) {
        if (!resumed) evaluate(p, m, w, 0);
        Summary before = summarise(w->eval.score[0], w->eval.n, w->eval.scratch);
        if (o->score_normalize && !resumed) normalize_scores(p, w, &before);
        say("before: mean reward %.4f, median %.4f on %s", before.mean, before.median,
            counted(count, (size_t)w->eval.n, "held-out query"));
        if (o->best_of > 1 && !resumed) evaluate_best(p, m, w);
    }
    train(p, m, w);
    if (w->eval.n && !cli_stopping()) {
        evaluate_after(p, m, w);
        write_samples(w);
        if (p->step) check_health(m, w);
    }
    if (cli_stopping() && p->step)
        say("stopped: what is saved is the state after step %d; no evaluation after", w->out.saved);
    if (!w->out.lost) report_run(w->out.path, o->show, &w->pool);
    const char *const *made = m->adapter ? adapter : model;
    if (p->step) say_steps(p, first, wall_clock() - begin, made[o->value_model ? 2 : has_values(o)], &w->out);
    else run_without_steps(&w->out);
    run_say_best(&w->out, &p->best);
    if (resumed && first == o->steps) say("no step was left to make: a larger --steps goes on");
    if (cli_stopping()) run_say_resume(&w->out, repeated_options(o));
    else health_end(&w->health, &w->out, SMALLER_MOVES);
}

static Settings o;                          /* main's; the others reach it through Models */

/* Makes the run folder and begins its log, or goes on with a run. Returns 1 if it goes on. */
static int begin_run(Whole *r, const Program *p, const char *data) {
    Work *w = &r->work;
    const RunBegin how = { p, data, &o.run, NULL, o.out, "ppo", 0 };
    w->out.fallback = o.fallback;
    const Saver saver = ppo_saver(w, ppo_state);
    const int resumed = run_begin(&saver, &how, &w->pool);
    snprintf(w->samples, sizeof w->samples, "%s/samples.jsonl", w->out.path);
    if (resumed && file_exists(w->samples)) file_remove(w->samples, NULL);      /* they may be half of it */
    if (!resumed) say("run folder %s", w->out.path);
    if (o.dump && resumed) dump_resume(&r->models, w);
    if (o.dump && !resumed)
        must(file_write_all(o.dump, "", 0, &w->pool, &w->err), &w->err, "--dump-rollouts FILE");
    return resumed;
}

/* Returns the exit code. */
static int run(const Program *p, const char *data) {
    static Whole r;
    Models *m = &r.models;
    Work *w = &r.work;
    RunMemory memory = { &r, carve, workspace, { { NULL }, { 0 }, 0, 0 }, 0, 0 };
    m->o = &o;
    w->run = &r;
    w->pool = cli_pool();
    must(dataset_read(&w->data, data, &w->pool, &w->err), &w->err,
         "a dataset made by ./prep, or data/imdb.bin made by make");
    if (w->data.kind == DATA_PROMPTS && cli_typed_option(p, "query-min"))
        usage_hint("--query-min has no effect on a dataset of prompts, which are taken whole", data,
                   "without --query-min, or prep data --text '{prompt}{response}', whose texts are cut");
    r.progress.queue = queue_of_split(w, 0, o.seed);
    w->before.document = pool_need(&w->pool, (size_t)r.progress.queue.count + 1, sizeof(int), "the order");
    prepare_policy(m, w, p);
    prepare_value_model(m, w, p);
    prepare_judges(m, w, p);
    check_queries(m, w, &r.progress.queue);
    check_responses(m, w, &r.progress.queue);
    memory_measure(&memory);
    say_what(m, w, &r.progress.queue, data);
    bill_add(&memory.bill, "data set, tokenizers, lists", w->pool.total);
    bill_add(&memory.bill, "the program itself", (size_t)4 << 20);      /* code, C library, stacks */
    bill_print(&memory.bill);
    run_room(o.out, m->trained, m->trained_all, o.dtype,
             tensor_values(m->trained, m->trained_all, 1), &o.run, o.steps, o.dry_run);
    if (o.dry_run) return 0;
    memory_take(&memory, &w->ws);
    load_weights(m, &r.progress.optimizer, &w->pool);
    cli_interrupts();
    if (o.reward_command) must(command_begin(o.reward_command, &w->err), &w->err, "--reward FOLDER");
    progress_begin(&r.progress, m, w);
    run_all(&r.progress, m, w, begin_run(&r, p, data));
    return run_code(&w->out);
}

/* ---- options ---- */

#define COUNT(low) low, INT_MAX
#define REAL(low) low, HUGE_VAL
static Option options[] = {
    { "policy", OPT_TEXT, &o.policy, "data/policy", 0, 0, NULL, "model folder of the policy" },
    { "reward", OPT_TEXT, &o.reward, "data/reward", 0, 0, NULL,
      "folder of the judge, or of its adapter (rm --lora-r). Several, with weights or without: A:0.7,B:0.3: "
      "the reward is the weighted sum of their logits" },
    { "reward-adapter", OPT_TEXT, &o.reward_adapter, NULL, 0, 0, NULL,
      "adapter of the judge: a run folder of rm, or any PEFT LoRA folder of task_type SEQ_CLS" },
    { "label", OPT_TEXT, &o.label, NULL, 0, 0, NULL,
      "label whose logit is the reward (of several judges: for all, or one for each, with commas); needed "
      "unless the judge has one output, or exactly one named positive, pos, nothate or non-toxic" },
    { "score", OPT_CHOICE, &o.score, "query+response", 0, 0, "query+response|response",
      "what the judge reads; of a text that is too long for it, the end, so that the query is cut" },
    { "long-response", OPT_CHOICE, &o.long_response, "refuse", 0, 0, "refuse|cut",
      "what to do if the judge cannot read a whole response of --response-max tokens: refuse to start, or "
      "let it read the end of such responses (env/responses_cut in the log counts them)" },
    { "reward-text", OPT_TEXT, &o.reward_text, NULL, 0, 0, NULL,
      "no judge: the reward is how often this text occurs in the response (to try things)" },
    { "reward-command", OPT_TEXT, &o.reward_command, NULL, 0, 0, NULL,
      "no judge: this command, a program of your own, gives the rewards. sh starts it once; for each "
      "response it gets a line {\"query\": ..., \"response\": ...} and writes a line with a number, in the "
      "same order; it has to flush its output, and not to wait for the end of its input (python3 -u; mawk "
      "-W interactive)" },
    { "reward-timeout", OPT_REAL, &o.reward_timeout, "60", 0.1, 1e6, NULL,
      "seconds without a sign of the command after which the run ends" },
    { "out", OPT_TEXT, &o.out, "runs", 0, 0, NULL, "folder for run folders" },
    FALLBACK_OPTION(o.fallback),
    { "steps", OPT_INT, &o.steps, "157", COUNT(0), NULL,
      "PPO steps (batches of responses; 0: evaluate, and train nothing)" },
    SEED_OPTION(o.seed, "0", "random seed of samples, queries, mini-batches and new weights"),
    DRY_RUN_OPTION(o.dry_run),

    { "algorithm", OPT_CHOICE, &o.algorithm, "ppo", 0, 0, "ppo|grpo|rloo",
      "what a response is compared with:\n"
      "ppo: with what the value head expects after each of its tokens (GAE)\n"
      "grpo: with the mean reward of --group responses to its query, in units of their deviation (Shao et "
      "al. 2024). Unless they are given: --kl-in loss, --loss-mean sequence, --init-kl-coef 0.04 and "
      "--adap-kl-ctrl=no\n"
      "rloo: with the mean reward of the group's other responses (Ahmadian et al. 2024)\n"
      "grpo and rloo have no value head\n" },
    { "group", OPT_INT, &o.group, "8", COUNT(2), NULL,
      "grpo, rloo: responses to each query; a step has --batch-size / --group queries" },
    { "group-scale", OPT_FLAG, &o.group_scale, "yes", 0, 0, NULL,
      "grpo: divide by the deviation of the group's rewards; --group-scale=no: Dr. GRPO (Liu et al. 2025), "
      "which does not weigh queries by how equal their responses are" },
    { "batch-size|batch", OPT_INT, &o.batch_size, "128", COUNT(1), NULL, "responses per step" },
    { "mini-batch-size", OPT_INT, &o.mini_batch_size, "128", COUNT(1), NULL,
      "responses per forward and backward pass" },
    { "gradient-accumulation-steps", OPT_INT, &o.accumulation, "1", COUNT(1), NULL,
      "mini-batches per update; the loss is the mean over all their tokens" },
    { "ppo-epochs", OPT_INT, &o.ppo_epochs, "4", COUNT(1), NULL, "passes over a step's responses" },
    { "learning-rate|lr", OPT_REAL, &o.lr, "1.41e-5", REAL(0), NULL, "Adam's learning rate" },
    { "value-learning-rate", OPT_REAL, &o.value_lr, "0", REAL(0), NULL,
      "Adam's learning rate for the value head, or for all weights of --value-model; 0, and with "
      "--value-model unless it is given: as --learning-rate" },
    { "lr-anneal", OPT_CHOICE, &o.lr_anneal, "none", 0, 0, "none|linear|cosine",
      "linear: decreases to the last step, whose own rate is the first step's divided by --steps, as in "
      "OpenAI's code; cosine: half a cosine down to a tenth" },
    { "warmup-steps", OPT_INT, &o.warmup_steps, "0", COUNT(0), NULL,
      "first steps, in which the learning rate rises linearly" },
    { "weight-decay", OPT_REAL, &o.weight_decay, "0", REAL(0), NULL,
      "AdamW's: each update shrinks all matrices by this times the learning rate" },
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
    { "kl-in", OPT_CHOICE, &o.kl_in, "reward", 0, 0, "reward|loss",
      "reward: the penalty is subtracted from the tokens' rewards, and so from all advantages before them; "
      "loss: it is added to the loss, where each token's own gradient restrains it (GRPO's way; --kl-penalty "
      "is then k3, unless given: its gradient is that of KL(reference || policy), mse's that of KL(policy || "
      "reference))" },
    { "gamma", OPT_REAL, &o.gamma, "1", 0, 1, NULL, "discount" },
    { "lam", OPT_REAL, &o.lam, "0.95", 0, 1, NULL, "GAE's lambda" },
    { "cliprange", OPT_REAL, &o.clip, "0.2", REAL(1e-6), NULL,
      "the loss clips the policy ratio to 1 +- this" },
    { "cliprange-high", OPT_REAL, &o.clip_high, "0", REAL(0), NULL,
      "above 1, clip at 1 + this instead (DAPO's clip-higher: rare tokens may rise further); 0: as "
      "--cliprange" },
    { "dual-clip", OPT_REAL, &o.dual_clip, "0", REAL(0), NULL,
      "where the advantage A is negative, the loss is at most this times -A (Ye et al. 2020: 3), so that "
      "large ratios push no further; 0: none" },
    { "entropy-coef", OPT_REAL, &o.entropy_coef, "0", REAL(0), NULL,
      "the loss is lowered by this times the entropy of a token's distribution" },
    { "loss-mean", OPT_CHOICE, &o.loss_mean, "token", 0, 0, "token|sequence",
      "mean over all tokens of an update, or over its responses of the mean over a response's tokens; the "
      "value loss is always a mean over tokens" },
    { "cliprange-value", OPT_REAL, &o.clip_value, "0.2", REAL(0), NULL,
      "the loss clips a value to its old value +- this; 0: no clipping" },
    { "vf-coef", OPT_REAL, &o.vf_coef, "0.1", REAL(0), NULL, "weight of the value loss" },
    { "value-warmup", OPT_INT, &o.value_warmup, "0", COUNT(0), NULL,
      "first steps, in which only the value head or the value model learns" },
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
    { "length-penalty", OPT_REAL, &o.length_penalty, "0", -1e6, 1e6, NULL,
      "subtracted from the score for each token of the response; below 0: added" },
    { "missing-stop-score", OPT_TEXT, &o.missing_stop, NULL, 0, 0, NULL,
      "with --stop: a response without it gets this number as its score, whatever the judge says (OpenAI's "
      "code: -1); not given: the judge's" },
    { "missing-eos-penalty", OPT_REAL, &o.eos_penalty, "0", REAL(0), NULL,
      "subtracted from the score of a response without EOS" },

    { "query-min", OPT_INT, &o.query_min, "2", COUNT(1), NULL, "fewest tokens of a query; prompts are taken whole" },
    { "query-max", OPT_INT, &o.query_max, "7", COUNT(1), NULL,
      "most tokens of a query (TRL's LengthSampler(2, 8) is --query-min 2 --query-max 7)" },
    { "response-min", OPT_INT, &o.response_min, "4", COUNT(1), NULL,
      "a response is cut after a random number of tokens: the smallest such number" },
    { "response-max", OPT_INT, &o.response_max, "15", COUNT(1), NULL,
      "the largest such number" },
    { "stop", OPT_TEXT, &o.stop, NULL, 0, 0, NULL,
      "a response ends with the token that completes this text" },
    { "stop-after", OPT_INT, &o.stop_after, "0", COUNT(0), NULL, "but not in its first tokens: how many" },
    { "temperature", OPT_REAL, &o.temperature, "1", REAL(0.01), NULL,
      "divides the logits, in sampling, in the reference and in the loss" },
    { "top-k", OPT_INT, &o.top_k, "0", COUNT(0), NULL,
      "sample from this many of the likeliest tokens; 0: from all. The policy is then what samples: its "
      "log-probs, in the loss too, are those among the tokens that were left, so that the first ratio stays "
      "1; the reference's are among all, so that KL begins above 0" },
    { "top-p", OPT_REAL, &o.top_p, "1", 0, 1, NULL,
      "likewise, from the fewest tokens whose probabilities sum to this" },
    { "min-new-tokens", OPT_INT, &o.least, "0", COUNT(0), NULL,
      "likewise, a response's first tokens are no EOS: how many" },
    { "dropout", OPT_REAL, &o.dropout, "0", 0, 1, NULL, "refused unless 0" },

    { "tokenizer", OPT_TEXT, &o.tokenizer, NULL, 0, 0, NULL,
      "the policy's tokenizer, if its folder has none" },
    NO_SPECIAL_OPTION(o.no_special),
    LORA_OPTIONS(o.lora),
    PROMPT_OPTIONS(o.lora),
    { "adapter", OPT_TEXT, &o.adapter, NULL, 0, 0, NULL,
      "start from this PEFT adapter; the reference is a frozen copy of it" },
    { "value-init", OPT_CHOICE, &o.value_init, "zero", 0, 0, "zero|pytorch",
      "value head at the start, if the folders have none (value_head.safetensors, or v_head of TRL and "
      "trlx); if given, it is a new one in any case. zero: its last layer is 0, so that the first values "
      "are 0" },
    { "value-head", OPT_CHOICE, &o.value_head, "linear", 0, 0, "linear|mlp",
      "a new value head's layers: linear: one, as TRL has it; mlp: a linear to twice the policy's width, "
      "ReLU, and a linear, as trlx has it. A head from a folder keeps its own" },
    { "value-model", OPT_TEXT, &o.value_model, NULL, 0, 0, NULL,
      "values by a model of its own instead of a value head: a folder of a causal policy or judge with the "
      "policy's token ids. All its weights learn; its head is a judge's own, if that has one output and "
      "--value-init is not given, else a new one. It is saved as value_model/ in the run's folder" },
    QUANT_OPTIONS(o.quant, QLORA_HELP "; without --lora-r or --adapter, with an adapter of rank 16 on all "
                  "seven linears"),
    { "reward-nf4", OPT_FLAG, &o.reward_nf4, NULL, 0, 0, NULL,
      "hold the judge's linears in 4-bit NF4 (else it is held as its folder has it)" },
    COMPUTE_OPTION(o.quant),
    RECOMPUTE_OPTION(o.quant),
    DTYPE_OPTION(o.dtype),

    { "eval-queries", OPT_INT, &o.eval_queries, "256", COUNT(0), NULL,
      "held-out queries scored before and after; the same for every seed" },
    { "best-of", OPT_INT, &o.best_of, "1", COUNT(1), NULL,
      "before training, also score the best of so many responses to each of them: what is reached without "
      "training" },
    { "eval-every", OPT_INT, &o.eval_every, "0", COUNT(0), NULL,
      "steps between further evaluations on them; 0: none" },
    { "show", OPT_INT, &o.show, "10", COUNT(0), NULL, "rows of the table at the end" },
    RUN_OPTIONS(o.run, "20", "steps between saves of the result; 0: saved only at the end"),
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
/* The lab goes on from an adapter of rank 32 (--adapter); LengthSampler(100, 400) never gives 400. */
static const char *const dialogsum[] = { "steps", "10", "label", "nothate", TRL_DEFAULTS, "batch-size", "16",
    "mini-batch-size", "4", "ppo-epochs", "1", "query-min", "1", "query-max", "511", "response-min", "100",
    "response-max", "399", "lora-r", "32", "lora-alpha", "32", NULL };
/* lm-human-preferences, sentiment: launch.py, and lm_tasks.py for truncation */
static const char *const openai[] = {
    "steps", "1954", "batch-size", "512", "mini-batch-size", "64", "gradient-accumulation-steps", "8",
    "ppo-epochs", "4", "learning-rate", "1e-5", "lr-anneal", "linear", "adam-eps", "1e-5",
    "adam-tf-style", "yes", "init-kl-coef", "0.15", "target", "6", "horizon", "10000", "gamma", "1",
    "lam", "0.95", "cliprange", "0.2", "cliprange-value", "0.2", "vf-coef", "0.1", "ratio-threshold", "0",
    "whiten-rewards", "yes", "biased-variance", "yes", "score-normalize", "yes", "temperature", "0.7",
    "query-min", "64", "query-max", "64", "response-min", "24", "response-max", "24", "stop", ".",
    "stop-after", "16", "missing-stop-score", "-1",
    "value-init", "zero", NULL };
/* gpt-j-6b-toxicity.py */
static const char *const detox[] = {
    "label", "nothate", "score", "response", "batch-size", "16", "mini-batch-size", "4", "ppo-epochs", "100",
    "learning-rate", "2.94e-5", "init-kl-coef", "0.2", "target", "6", "horizon", "10000", "lam", "0.95",
    "cliprange", "0.2", "cliprange-value", "0.2", "vf-coef", "0.1", "max-grad-norm", "0",
    "ratio-threshold", "10", "query-min", "30", "query-max", "39", "response-min", "20",
    "response-max", "29", "value-init", "pytorch", NULL };
static const Preset presets[] = {
    { "imdb-small", "tuned for the models in data/, which learn the task in about a minute (the default for "
      "data/policy)", imdb_small },
    { "trl-classic", "the hyper-parameters of TRL 0.11.4's PPOConfig (the default for any other --policy)",
      trl_classic },
    { "sentiment", "TRL's gpt2-sentiment notebook: GPT-2 against DistilBERT's logit of POSITIVE on IMDB "
      "(prep data --min-length 201), queries of 2 to 7 tokens, responses of 4 to 15", sentiment },
    { "openai", "OpenAI's lm-human-preferences, sentiment: queries of 64 tokens, responses of 24 that end "
      "with the first full stop after the sixteenth token; without one the score is -1", openai },
    { "detox", "TRL's gpt-j-6b-toxicity.py: the logit of nothate for the response alone, responses of 20 to "
      "29 tokens", detox },
    { "dialogsum", "the lab on FLAN-T5 and DialogSum: summaries with less hate speech, by a judge's logit of "
      "nothate; whole dialogues (prep data --template), responses of 100 to 399 tokens", dialogsum },
};
static const Need needs[] = {
    { "reward|reward-adapter|label|score|reward-nf4|long-response", "!reward-text|reward-command",
      "no judge is asked" },
    { "reward-text", "!reward-command", "the command gives the rewards" },
    { "reward-timeout", "reward-command", NULL },
    { "stop-after|missing-stop-score", "stop", NULL },
    { "target|horizon", "adap-kl-ctrl", "the coefficient stays as it is" },
    { "group|group-scale", "algorithm", "only grpo and rloo have groups" },
    { "value-learning-rate|cliprange-value|vf-coef|value-init|value-head|value-model|value-warmup",
      "!algorithm",
      "it has no value head" },
    { "value-head", "!value-model", "a value model has a head of one layer" },
    { "gamma|lam|whiten-rewards|biased-variance", "!algorithm",
      "it sums the rewards of a response, and whitens nothing" },
    { "kl-in|kl-penalty", "init-kl-coef", "a coefficient of 0 leaves no penalty" },
    { "target|horizon", "init-kl-coef", "a coefficient of 0 stays 0" },
    { "target-kl", "early-stopping", NULL },
    { "use-score-norm", "use-score-scaling", NULL },
    { "score-normalize", "eval-queries", "the scores before training are those of the evaluation" },
    { "best-of|eval-every|show", "eval-queries", "nothing is evaluated" },
    { "cliprange-value|value-learning-rate|value-warmup|value-model", "vf-coef", "no values are learned" },
    { "lora-r|lora-alpha|lora-targets|lora-rslora|prompt-tokens", "!adapter",
      "the adapter's config has them" },
    QUANT_NEEDS, LORA_NEEDS, PROMPT_NEEDS, RUN_NEEDS,
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

/* Sets what --algorithm grpo and --kl-in loss mean where it is not given. Refuses what they cannot do. */
static void check_algorithm(const Program *p) {
    if (o.algorithm == ALGORITHM_GRPO) {
        if (!cli_given(p, "kl-in")) o.kl_in = KL_IN_LOSS;
        if (!cli_given(p, "loss-mean")) o.loss_mean = MEAN_SEQUENCE;
        if (!cli_given(p, "adap-kl-ctrl")) o.adaptive = 0;
        if (!cli_given(p, "init-kl-coef")) o.kl_coef = 0.04;
    }
    if (o.kl_in == KL_IN_LOSS && !cli_given(p, "kl-penalty")) o.kl_penalty = KL_K3;
    if (o.kl_in == KL_IN_LOSS && o.kl_penalty == KL_K1)
        usage_hint("--kl-penalty kl restrains nothing as a loss: the expectation of its gradient is 0", NULL,
                   "--kl-penalty k3 or mse, or --kl-in reward");
    if (o.kl_in == KL_IN_LOSS && o.kl_penalty == KL_FULL)
        usage_hint("--kl-penalty full cannot be a loss: an update has the logits of the policy alone", NULL,
                   "--kl-penalty k3 or mse, or --kl-in reward");
    if (o.algorithm == ALGORITHM_RLOO && cli_given(p, "group-scale"))
        usage_hint("no effect with --algorithm rloo", "--group-scale", "leave --group-scale out");
    if (o.batch_size % group_size(&o))
        usage_hint("--batch-size has to be a multiple of --group", NULL, "such as --batch-size 64 --group 8");
    if (o.steps > 0 && o.warmup_steps >= o.steps)
        usage_hint("--warmup-steps has to be less than --steps", NULL, "fewer --warmup-steps");
    if (o.dual_clip > 0 && o.dual_clip <= 1 + (o.clip_high > 0 ? o.clip_high : o.clip))
        usage_hint("--dual-clip has to be above 1 + --cliprange (--cliprange-high)", NULL, "--dual-clip 3");
}

/* Reads one judge of --reward, n letters: a folder, and a weight after a colon or none (1). */
static void read_judge(const char *text, size_t n, Pool *pool) {
    char *name = pool_need(pool, n + 1, 1, "--reward"), *colon, *end = NULL;
    if (o.judges == JUDGES) usage_error("too many judges", "--reward");
    memcpy(name, text, n);
    name[n] = 0;
    colon = strrchr(name, ':');
    double weight = colon && colon[1] ? strtod(colon + 1, &end) : 1;
    if (!end || *end) weight = 1;
    else *colon = 0;
    if (!name[0] || !(fabs(weight) < HUGE_VAL) || weight == 0)
        usage_hint("--reward needs FOLDER, or FOLDER:WEIGHT,FOLDER:WEIGHT with weights other than 0", text,
                   "--reward A:0.7,B:0.3");
    o.judge[o.judges] = name;
    o.judge_weight[o.judges++] = weight;
}

/* Reads --reward: one folder, or several judges with commas. What is a folder as it stands is one. */
static void read_judges(Pool *pool) {
    const char *at = o.reward;
    if (folder_exists(at)) {
        o.judge_weight[o.judges] = 1;
        o.judge[o.judges++] = at;
        return;
    }
    for (;; at++) {
        const size_t n = strcspn(at, ",");
        read_judge(at, n, pool);
        at += n;
        if (!*at) break;
    }
    if (o.judges > 1 && o.reward_adapter)
        usage_hint("--reward-adapter is for one judge", NULL, "the adapter's folder in --reward");
}

static void check_stop(void) {
    char *end = NULL;
    if (o.missing_stop) o.missing_stop_score = strtod(o.missing_stop, &end);
    if (o.missing_stop && (end == o.missing_stop || *end || !is_number(o.missing_stop_score)))
        usage_error("--missing-stop-score needs a number", o.missing_stop);
    if (o.stop && strlen(o.stop) > 32) usage_error("--stop is longer than 32 bytes", o.stop);
    refuse_above("--stop-after", o.stop ? o.stop_after + 1 : 0, "--response-max", o.response_max);
}

/* Refuses values that do not fit together. */
static void check_options(const Program *p) {
    static Pool names;                      /* keeps the names of an adapter's folders */
    names = cli_pool();
    adapter_as_model(&o.policy, &o.adapter, "--policy BASE --adapter ADAPTER", &names);
    o.judges = 0;
    if (!o.reward_text && !o.reward_command) read_judges(&names);
    if (o.dropout != 0)
        usage_error("--dropout is refused: the ratio of new to old log-probs would be noise",
                    "dropout is for sft and rm");
    check_algorithm(p);
    refuse_above("--query-min", o.query_min, "--query-max", o.query_max);
    check_stop();
    refuse_above("--min-new-tokens", o.least, "--response-max", o.response_max);
    refuse_above("--response-min", o.response_min, "--response-max", o.response_max);
    refuse_above(o.accumulation == 1 ? "--mini-batch-size"
                                     : "--mini-batch-size times --gradient-accumulation-steps",
                 (long long)o.mini_batch_size * o.accumulation, "--batch-size", o.batch_size);
    /* presets have a rate for a new value head */
    if (o.value_model && !cli_given(p, "value-learning-rate")) o.value_lr = 0;
    quant_options_check(p, &o.quant, &o.lora.rank, &o.lora.targets, o.adapter || o.lora.soft);
    if (o.reward_command && !cli_typed_option(p, "reward-command"))
        usage_hint("no file can start a command: it has to be on the command line",
                   o.reward_command, "--reward-command with it, if you trust it");
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
    OPTIONS(options), PRESETS(presets), .need = needs, .usual = usual_preset, .check = check_options,
    /* of the models only the paths may change: ppo_state compares their weights */
    .may_change = MAY_CHANGE "|steps|show|chunk|reward-command|reward-timeout"
                  "|policy|adapter|reward|reward-adapter" };

int main(int argc, char **argv) {
    const char *data = NULL;
    if (!cli_parse(&program, argc, argv, &data, 1)) usage_hint("which dataset?", NULL, "./ppo data/imdb.bin");
    const char *input[JUDGES + 6] = { data, o.policy, o.reward_adapter, o.adapter, o.tokenizer,
                                      o.value_model };
    for (int k = 0; k < o.judges; k++) input[6 + k] = o.judge[k];
    if (o.dump) out_file_check("--dump-rollouts", o.dump, input, 6 + o.judges);
    cli_say_preset();
    say_digits();
    return run(&program, data);
}
