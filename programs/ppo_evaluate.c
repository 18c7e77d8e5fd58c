/* programs/ppo_evaluate.c - the evaluation: responses to held-out queries, before and after training. */
#include "ppo.h"

/* Makes the evaluation's queries, the beginnings of held-out documents, each used once. They are the same for
 * every --seed. The random numbers of a response depend only on the seed and the query's index, so that the
 * responses before and after training differ by the policy alone. */
void evaluation_begin(const Models *m, Work *w) {
    const Settings *o = m->o;
    Evaluation *e = &w->eval;
    Queue q = queue_of_split(w, 1, 0);
    const int wanted = smaller(o->eval_queries, q.count);
    const size_t n = (size_t)wanted + 1;
    const char *what = "evaluation";
    char number[2][64];
    e->token = pool_need(&w->pool, n * (size_t)query_room(m), sizeof(int), what);
    e->prompt = pool_need(&w->pool, n, sizeof(int), what);
    e->capacity = pool_need(&w->pool, n, sizeof(int), what);
    e->query = pool_need(&w->pool, n, sizeof *e->query, what);
    e->query_length = pool_need(&w->pool, n, sizeof(size_t), what);
    e->scratch = pool_need(&w->pool, n, sizeof(float), what);
    e->toxicity = pool_need(&w->pool, n, sizeof(float), what);
    for (int k = 0; k < 2; k++) {
        e->response[k] = pool_need(&w->pool, n, sizeof *e->response[k], what);
        e->response_length[k] = pool_need(&w->pool, n, sizeof(size_t), what);
        e->score[k] = pool_need(&w->pool, n, sizeof(float), what);
        e->kl[k] = pool_need(&w->pool, n, sizeof(float), what);
    }
    if (w->data.kind == DATA_PROMPTS) {
        e->reference = pool_need(&w->pool, n, sizeof *e->reference, what);
        e->reference_length = pool_need(&w->pool, n, sizeof(size_t), what);
    }
    for (e->n = 0; e->n < wanted; e->n++) {
        Rng rng = stream(0, STREAM_QUERY, UINT64_MAX, (uint64_t)e->n);
        const int length = draw_between(&rng, o->query_min, o->query_max);
        e->capacity[e->n] = draw_between(&rng, o->response_min, o->response_max);
        e->prompt[e->n] = next_query(m, w, &q, length, 1,
                                     e->token + (size_t)e->n * (size_t)query_room(m));
        if (!e->prompt[e->n]) break;
        const Document *d = &w->data.document[q.document[q.next - 1]];
        if (e->reference) e->reference[e->n] = d->text[1];
        if (e->reference) e->reference_length[e->n] = d->length[1];
    }
    if (!q.count && o->eval_queries) say("no evaluation: the dataset has no held-out documents");
    else if (e->n < o->eval_queries)
        say("evaluation on %s: only so many of %s give one", counted(number[0], (size_t)e->n, "query"),
            counted(number[1], (size_t)q.count, "held-out document"));
}

/* Logs the means of ROUGE (F) of the responses in slot k against the dataset's own responses. */
static void log_rouge(Log *l, Work *w, int k) {
    static const char *const name[ROUGE_KINDS] = { "eval/rouge1", "eval/rouge2", "eval/rougeL",
                                                   "eval/rougeLsum" };
    const Evaluation *e = &w->eval;
    double sum[ROUGE_KINDS] = { 0 };
    for (int i = 0; i < e->n; i++) {
        Rouge r[ROUGE_KINDS];
        must(rouge_score(r, e->reference[i], e->reference_length[i], e->response[k][i],
                         e->response_length[k][i], &w->pool), NULL, NULL);
        for (int kind = 0; kind < ROUGE_KINDS; kind++) sum[kind] += r[kind].f;
    }
    for (int kind = 0; kind < ROUGE_KINDS; kind++) log_number(l, name[kind], sum[kind] / e->n);
}

static void log_evaluation(const Progress *p, const Models *m, Work *work, int k) {
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
    if (m->toxicity) {
        s = summarise(e->toxicity, e->n, e->scratch);
        log_number(&l, "eval/toxicity_mean", s.mean);
        log_number(&l, "eval/toxicity_std", s.std);
    }
    if (e->reference) log_rouge(&l, work, k);
    log_integer(&l, "eval/queries_cut", e->queries_cut);
    log_integer(&l, "eval/responses_cut", e->responses_cut);
    out_log(&work->out, &l);
}

/* Lets the policy respond to a batch of the evaluation's queries, those from `first` on, and scores the
 * responses. Each draw (0, 1 ...) has random numbers of its own. */
static void respond(const Progress *p, const Models *m, Work *w, int first, int draw) {
    const Settings *o = m->o;
    const Evaluation *e = &w->eval;
    Rollout *x = &w->rollout;
    const size_t room = (size_t)query_room(m);
    x->B = smaller(o->batch_size, e->n - first);
    for (int b = 0; b < x->B; b++) {
        const int i = first + b;
        memcpy(query_place(m, x, b), e->token + (size_t)i * room, (size_t)e->prompt[i] * sizeof(int));
        sequence_begin(m, x, b, e->prompt[i], e->capacity[i],
                       stream(o->seed, STREAM_SAMPLE, UINT64_MAX - (uint64_t)draw, (uint64_t)i));
    }
    sample_responses(p, m, w);
    score_responses(p, m, w);
}

/* Fills slot k of the evaluation with the policy's responses, their scores and their KL (KL_K1, whatever
 * --kl-penalty is). The texts stay in the pool. */
void evaluate(const Progress *p, const Models *m, Work *w, int k) {
    const Settings *o = m->o;
    Evaluation *e = &w->eval;
    Rollout *x = &w->rollout;
    e->queries_cut = e->responses_cut = 0;
    for (int first = 0; first < e->n; first += o->batch_size) {
        respond(p, m, w, first, 0);
        e->queries_cut += x->queries_cut;
        e->responses_cut += x->responses_cut;
        reference_logprobs(p, m, w);
        kl_penalty(x->kl, x->logprob, x->ref_logprob, x->full_kl, KL_K1, x->P);
        for (int b = 0; b < x->B; b++) {
            const int i = first + b;
            e->query[i] = x->text[b];
            e->query_length[i] = x->query_length[b];
            e->response[k][i] = x->response[b];
            e->response_length[k][i] = x->response_length[b];
            e->score[k][i] = x->raw_score[b];
            e->toxicity[i] = x->toxicity[b];
            e->kl[k][i] = (float)kl_per_sequence(x->kl, x->start + b, 1);
        }
    }
    Ngrams bigrams;
    must(distinct_ngrams(&bigrams, e->response[k], e->response_length[k], e->n, 2, &w->pool), NULL, NULL);
    e->bigrams[k] = bigrams.distinct;
    log_evaluation(p, m, w, k);
}

/* The policy that always writes the best of N has a KL of at most log N - (N - 1) / N
 * (Beirami et al. 2024). */
void evaluate_best(const Progress *p, const Models *m, Work *w) {
    const int N = m->o->best_of;
    const Evaluation *e = &w->eval;
    const PoolMark mark = pool_mark(&w->pool);
    float *best = pool_need(&w->pool, (size_t)e->n, sizeof *best, "the best scores");
    Log l;
    memcpy(best, e->score[0], (size_t)e->n * sizeof *best);
    for (int draw = 1; draw < N; draw++)
        for (int first = 0; first < e->n; first += m->o->batch_size) {
            const PoolMark texts = pool_mark(&w->pool);
            respond(p, m, w, first, draw);
            for (int b = 0; b < w->rollout.B; b++)
                if (w->rollout.raw_score[b] > best[first + b]) best[first + b] = w->rollout.raw_score[b];
            pool_release(&w->pool, texts);
        }
    const Summary s = summarise(best, e->n, e->scratch);
    say("best of %d before training: mean reward %.4f, median %.4f, at a KL of at most %.2f", N, s.mean,
        s.median, log(N) - (N - 1.0) / N);
    log_begin(&l, w->out.log, &w->pool);
    log_integer(&l, "step", p->step);
    log_number(&l, "eval/best_of_mean", s.mean);
    log_number(&l, "eval/best_of_median", s.median);
    out_log(&w->out, &l);
    pool_release(&w->pool, mark);
}

void write_samples(Work *w) {
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
        if (e->reference) log_text(&l, "reference", e->reference[i], e->reference_length[i]);
        out_log(&w->out, &l);
        pool_release(&w->pool, mark);
    }
}
