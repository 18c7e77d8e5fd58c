/* programs/ppo_state.c - what a run of ppo knows between two steps, to write it to a file or to read it. */
#include "ppo.h"

/* The results of the evaluation before training, which cannot be made again. */
static void evaluation_state(State *s, Evaluation *e) {
    for (int i = 0; i < e->n; i++)
        state_text(s, "response before training", &e->response[0][i], &e->response_length[0][i]);
    state_floats(s, "scores before training", e->score[0], (size_t)e->n);
    state_floats(s, "KL before training", e->kl[0], (size_t)e->n);
    state_integer(s, "different pairs of words before training", &e->bigrams[0], 0, LLONG_MAX);
}

/* The order of the training documents, and how many of them are used up. */
static void queue_state(State *s, Queue *q, uint64_t documents) {
    long long epoch = (long long)q->epoch;
    state_integer(s, "epoch", &epoch, 0, LLONG_MAX);
    q->epoch = (uint64_t)epoch;
    state_int(s, "next document", &q->next, 0, q->count);
    state_ints(s, "order of documents", q->document, (size_t)q->count, 0, (int)documents - 1);
}

/* The models that are not trained: they have to be the same when the run goes on. */
static void frozen_state(State *s, const Models *m, Work *w) {
    const char *changed = "the weights in this folder are other ones than when the run began";
    if (!w->frozen[0]) {
        w->frozen[0] = frozen_hash(m->reference->tensor, m->reference->tensors);
        if (m->reference_adapter)
            w->frozen[1] = frozen_hash(m->reference_adapter->tensor, m->reference_adapter->tensors);
        for (int k = 0; k < m->scorers; k++) {
            const Judge *j = &m->scorer[k].judge;
            uint64_t own = frozen_hash(j->model.tensor, j->model.tensors);
            w->frozen[2] = rng_stream(w->frozen[2], own, 0).state;
            uint64_t bits;                      /* of the weight, which --reward has behind the path */
            memcpy(&bits, &m->scorer[k].weight, sizeof bits);
            if (m->scorer[k].weight != 1) w->frozen[2] = rng_stream(w->frozen[2], bits, 0).state;
            own = j->adapter ? frozen_hash(j->adapter->tensor, j->adapter->tensors) : 0;
            w->frozen[3] = rng_stream(w->frozen[3], own, 0).state;
        }
    }
    state_same(s, "reference", w->frozen[0], changed, m->o->policy);
    state_same(s, "reference's adapter", w->frozen[1], changed, m->o->adapter);
    state_same(s, "judges", w->frozen[2], changed, m->o->reward);
    state_same(s, "adapters of judges", w->frozen[3], changed, m->o->reward);
}

void ppo_state(void *run, State *s) {
    Whole *r = run;
    Progress *p = &r->progress;
    const Models *m = &r->models;
    Work *w = &r->work;
    const RunState common = { &w->out, &w->health, &p->step, m->trained, m->trained_all, &p->optimizer };
    if (!s->file) w->dumped = m->o->dump ? out_length(m->o->dump) : 0;
    run_state(s, &common);
    if (s->code == OK && s->file && p->step > m->o->steps) {        /* before a file of the run is changed */
        s->code = fail(s->err, E_RANGE, "the run has made more steps than --steps", w->out.path, p->step,
                       m->o->steps);
        advise(s->err, "a larger --steps");
    }
    state_same(s, "steps of the schedule", (uint64_t)(m->o->lr_anneal ? m->o->steps : 0),
               "--steps cannot change: the learning rate depends on it (--lr-anneal)", w->out.path);
    frozen_state(s, m, w);
    queue_state(s, &p->queue, w->data.count);
    state_real(s, "KL coefficient", &p->kl.coef);
    state_real(s, "mean of the scores", &p->moments.mean);
    state_real(s, "their deviation", &p->moments.std);
    state_real(s, "their variance", &p->moments.var);
    state_real(s, "their number", &p->moments.count);
    state_real(s, "gain", &p->gain);
    state_real(s, "bias", &p->bias);
    state_reals(s, "last rewards", p->history, HISTORY);
    state_ints(s, "steps that went wrong", p->watched, WATCHES, 0, INT_MAX);
    state_int(s, "step of the last evaluation", &p->evaluated, 0, INT_MAX);
    run_best_state(s, &p->best);
    state_int(s, "warned of cut responses", &w->told_cut, 0, 1);
    evaluation_state(s, &w->eval);
    state_integer(s, "length of the dump", &w->dumped, 0, LLONG_MAX);
    if (s->code == OK && s->file && m->adapter) lora_norms(&m->lora, m->policy.tensor, &w->ws);
}
