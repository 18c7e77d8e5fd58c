/* programs/ppo_save.c - writing the result, and the end of a run that met a NaN or an infinity. */
#include "ppo.h"

int weights_are_numbers(const Models *m) {
    const Settings *o = m->o;
    return !tensor_not_numbers(m->trained, m->trained_all, o->dtype);
}

/* Writes the result to a folder (see Saver): a PEFT adapter, or a whole model folder if all weights were
 * trained; and the value head. */
static int write_result(void *run, const char *folder, Error *err) {
    const Whole *r = run;
    const Models *m = &r->models;
    const Settings *o = m->o;
    if (!weights_are_numbers(m)) return fail(err, E_NUMBER, NOT_FOR_DTYPE, folder, 0, 0);
    const int code = m->adapter ? save_adapter(&m->lora, o->policy, folder, o->dtype, err)
                                : save_policy(&m->policy, m->tokenizer, folder, o->dtype, 0, err);
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

/* Ends the run because a NaN or an infinity came up in this step; `what` is the message. good 1: the weights
 * are still those after the previous step, and they are saved. good 0: the last save stays. */
void not_a_number(const Progress *p, const Models *m, Work *w, const char *what, int good) {
    const Saver saver = ppo_saver(w, NULL);
    const int moved = p->step > 1 || w->now.updates;
    good = good && weights_are_numbers(m) && !(w->health.bad && w->out.saved);
    stop_not_a_number(what, larger(p->step, 1), moved, good, &saver,
                      "a smaller --learning-rate, or --max-grad-norm 1");
}

/* Ends the run because of the judge; the policy's weights are numbers, and are saved. */
void score_not_a_number(const Progress *p, const Models *m, Work *w) {
    const Settings *o = m->o;
    const int step = p->step - !w->now.updates;         /* the last step that has changed weights */
    const Saver saver = ppo_saver(w, NULL);
    if (step > 0 && w->out.saved != step) run_save(&saver, step, 1);
    fail(&w->err, E_NUMBER, "the judge's score of a text is not a number", o->reward, 0, 0);
    die(&w->err, "another --reward, or --compute f32, if it is another one");
}
