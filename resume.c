/* resume.c - how a run of ppo, sft or rm begins: in a new folder, or with the state of a run that was
 * stopped.
 *
 * Idea     each random number comes from a stream of (seed, purpose, step, index), and the texts of a step
 *          from its number. So a run is known by its options, its data, the weights, Adam's moments and a few
 *          numbers; with them it goes on byte for byte as if it had not stopped, with any number of threads.
 * Order    the state is written before the weights of the same step. Both are written under other names
 *          first. Whenever the program is killed, there is a whole state; and going on from it begins with
 *          writing its weights, so that they belong to it.
 * Needs    state.c (the file), options.c (the options in it), folder.c, train.c. */
#include "programs.h"

/* Visits what health_of_step and its like know of the run. */
static void health_state(State *s, Health *h) {
    const char *why = h->why;
    size_t n = strlen(h->why);
    state_real(s, "loss at the start", &h->start);
    state_real(s, "recent loss", &h->recent);
    state_int(s, "losses", &h->steps, 0, INT_MAX);
    state_int(s, "bad", &h->bad, 0, 1);
    state_int(s, "warned", &h->warned, 0, 1);
    state_text(s, "why", &why, &n);
    if (s->code == OK && s->file && n < sizeof h->why) memcpy(h->why, why, n + 1);
}

void run_state(State *s, const RunState *r) {
    RunFolder *f = r->folder;
    if (!s->file) {
        f->log_length = out_length(f->log) - out_first_line(f->log);
        f->time_length = out_length(f->time);
    }
    cli_state(s);
    state_same(s, "dataset", f->data_hash, "the dataset is another one than when the run began", f->data);
    state_int(s, "step", r->step, 0, INT_MAX);
    state_integer(s, "log's length", &f->log_length, 0, LLONG_MAX);
    state_integer(s, "time's length", &f->time_length, 0, LLONG_MAX);
    health_state(s, r->health);
    state_trained(s, r->list, r->tensors, r->optimizer);
    if (s->code == OK && s->file) f->stopped = *r->step;
}

/* Goes on with a run. */
static void go_on(const Saver *s, const RunBegin *b, Pool *pool) {
    RunFolder *f = s->folder;
    Error err = { 0 };
    char path[540];
    out_resume(f, b->options->resume, b->kind);
    out_state(f, path);
    must(state_read(path, s->state, s->run, pool, &err), &err,
         "the files that the run began with; or start it anew");
    int code = log_resume(f->log, (uint64_t)f->log_length, b->program, b->data, f->data_hash, pool, &err);
    if (code == E_TRUNCATED) cli_warn(&err, "nothing: the run goes on, and its log lacks these lines");
    else must(code, &err, NOTHING_LOST);
    must(out_cut(f->time, f->time_length, &err), &err, NOTHING_LOST);
    memset(&err, 0, sizeof err);
    must(s->write(s->run, f->path, &err), &err, NOTHING_LOST);
    strcpy(f->where, f->path);
    f->saved = f->stopped;
    say("going on after step %d: %s", f->stopped, f->path);
}

int run_begin(const Saver *s, const RunBegin *b, Pool *pool) {
    RunFolder *f = s->folder;
    Error err = { 0 };
    f->data = b->data;
    must(file_hash(f->data, &f->data_hash, pool, &err), &err, NULL);
    if (b->options->resume) go_on(s, b, pool);
    else {
        out_open(f, b->out, b->force, b->base, b->kind);
        log_options(f->log, b->program, b->data, f->data_hash, pool);
        log_machine(f->time, b->program, pool);
    }
    if (b->options->tensorboard) out_tensorboard(f, f->stopped);
    report_live(f);
    return b->options->resume != NULL;
}

void run_finish(RunFolder *f) {
    char path[540];
    out_state(f, path);
    if (f->stopped) file_remove(path, NULL);
    f->stopped = 0;
}
