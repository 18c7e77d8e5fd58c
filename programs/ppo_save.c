/* programs/ppo_save.c - writing the result, and the end of a run that met a NaN or an infinity. */
#include "ppo.h"
#include <stdio.h>

/* Writes a value model to its own folder in the given one. */
static int write_value_model(const Models *m, const char *folder, Error *err) {
    char path[640];
    if (snprintf(path, sizeof path, "%s/value_model", folder) >= (int)sizeof path)
        return fail(err, E_RANGE, "too long a path for the value model", folder, 0, 0);
    return save_judge(&m->value_model.model, m->tokenizer, path, m->o->dtype, 0, err);
}

/* Writes the result to a folder (see Saver): a PEFT adapter, or a whole model folder if all weights were
 * trained; and the value head or the value model. */
static int write_result(void *run, const char *folder, Error *err) {
    const Whole *r = run;
    const Models *m = &r->models;
    const Settings *o = m->o;
    const int code = m->adapter ? save_adapter(&m->lora, o->policy, folder, o->dtype, err)
                                : save_policy(&m->policy, m->tokenizer, folder, o->dtype, 0, err);
    if (code == OK && o->value_model) return write_value_model(m, folder, err);
    return code == OK && m->values ? save_value_head(m->values, folder, err) : code;
}

Saver ppo_saver(Work *w, StateVisit state) {
    const Saver saver = { &w->out, write_result, w->run, &((Whole *)w->run)->models.o->run, state };
    return saver;
}

void save_result(const Progress *p, Work *w, int last) {
    const Saver saver = ppo_saver(w, ppo_state);
    run_save(&saver, p->step, last);
}

/* Ends the run because a NaN or an infinity came up; `what` is the message. good 1: the weights are still
 * those after the previous step (of an evaluation, after this one), and they are saved. good 0: the last save
 * stays. hint: the advice, or NULL for the usual one. */
void not_a_number(const Progress *p, const Models *m, Work *w, const char *what, int good,
                  const char *hint) {
    const Saver saver = ppo_saver(w, NULL);
    const int moved = p->step > w->in_step || w->now.updates;
    good = good && !(w->health.bad && w->out.saved);
    if (good && !w->in_step && p->step > 0 && w->out.saved != p->step) save_result(p, w, 1);
    stop_not_a_number(what, larger(p->step, 1), moved, good && w->in_step, &saver,
                      hint ? hint : start_hint(m->types.compute),
                      hint ? hint : "a smaller --learning-rate, or --max-grad-norm 1");
}

/* A step that has only drawn its queries and scored has changed nothing but the queue. */
void judge_failed(Work *w, const char *hint) {
    Whole *r = w->run;
    Progress *p = &r->progress;
    char text[sizeof w->err.what];
    snprintf(text, sizeof text, w->in_step ? "step %d: %.170s" : p->step ? "evaluation after step %d: %.150s"
             : "evaluation before step %d: %.150s", larger(p->step, 1), w->err.what);
    strcpy(w->err.what, text);
    if (w->in_step) {
        int *order = p->queue.document;
        memcpy(order, w->before.document, (size_t)p->queue.count * sizeof *order);
        p->queue = w->before;
        p->queue.document = order;
        p->step--;
    }
    if (p->step > 0 && w->out.saved != p->step) save_result(p, w, 1);
    if (p->step > 0) run_say_resume(&w->out, repeated_options(r->models.o));
    die(&w->err, hint);
}
