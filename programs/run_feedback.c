/* run_feedback.c - what run critique and run prefer share: their options, and answers of a policy that end
 * where the next turn of the conversation would begin. */
#include "run.h"
#include <stdio.h>

/* Returns 1 if the text goes on after the answer's end. *length: the answer's bytes. */
static int end_of_answer(const Author *a, const char *text, size_t n, size_t *length) {
    const char *end = a->how->end ? strstr(text, a->how->end) : NULL;
    if (!a->how->end) return constitution_next_turn(text, n, length);
    *length = end ? (size_t)(end - text) : n;
    while (*length && strchr(" \t\r\n", text[*length - 1])) --*length;
    return end != NULL;
}

/* Ends a text at the next turn, or if a user has stopped the program. */
static int turn_token(void *context, int sequence, int token) {
    Author *a = context;
    const Sequence *s = &a->batch.seq[sequence];
    const PoolMark mark = pool_mark(&a->scratch);
    char *text;
    size_t n;
    const int code = tokenizer_decode(a->batch.policy->tokenizer, s->token + s->prompt,
                                      s->length - s->prompt, &a->scratch, &text, &n);
    const int ended = token == a->stop || (!code && end_of_answer(a, text, n, &n));
    pool_release(&a->scratch, mark);
    return ended || cli_stopping();
}

/* Returns the text of a job's new tokens, without white space around it and without another turn. */
static const char *answer_of(const Author *a, const Job *j, Pool *pool) {
    const int count = j->length - j->prompt, last = count ? j->token[j->length - 1] : -1;
    char *text;
    size_t n;
    require(tokenizer_decode(a->batch.policy->tokenizer, j->token + j->prompt,
                             count - (count && last == a->stop), pool, &text, &n),
            "cannot decode", "output", 0, 0, NULL);
    end_of_answer(a, text, n, &n);
    text[n] = 0;
    return text + strspn(text, " \t\r\n");
}

Author author_open(Policy *p, const Feedback *f, int T, Pool *keep) {
    const ChatTemplate *how = chat_template(f->template);
    Author a = { .f = f, .how = how };
    a.stop = how->end ? tokenizer_find(p->tokenizer, how->end, strlen(how->end)) : -1;
    a.scratch = cli_pool();
    a.batch = batch_open(p, f->batch ? f->batch : batch_size(T), T, keep);
    return a;
}

void author_write(Author *a, Turn *turn, int turns, Input *in, Pool *pool) {
    const Writing writing = { .adapter = a->batch.policy->adapter,
                              .sampling = { (float)a->f->temperature, 0, (float)a->f->top_p },
                              .on_token = turn_token, .context = a };
    Job *job = pool_need(pool, (size_t)turns + 1, sizeof *job, "texts");
    int *which = pool_need(pool, (size_t)turns + 1, sizeof *which, "texts"), jobs = 0;
    for (int i = 0; i < turns; i++) {
        Job j = { .most = a->f->n, .rng = turn[i].rng };
        turn[i].answer = NULL;
        j.ids = turn_ids(&a->batch, a->f, &turn[i], a->f->n, in, &j.count);
        if (!j.ids) continue;
        which[jobs] = i;
        job[jobs++] = j;
    }
    batch_write(&a->batch, &writing, job, jobs, pool);
    for (int k = 0; k < jobs; k++) turn[which[k]].answer = answer_of(a, &job[k], pool);
}

/* Returns what helps if a text with `more` new tokens does not fit, in the input's memory. */
static const char *length_advice(const Batch *b, const Feedback *f, int more, Input *in) {
    char hint[120];
    snprintf(hint, sizeof hint, "%s%sa shorter prompt or answer%s", f->shots ? "fewer --shots, " : "",
             more ? "a smaller -n, " : "", b->T < b->policy->positions ? ", or a larger --context" : "");
    char *copy = pool_text(in->scratch, hint, strlen(hint));
    require(copy ? OK : E_MEMORY, "out of memory", "advice", 0, 0, NULL);
    return copy;
}

int *turn_ids(const Batch *b, const Feedback *f, const Turn *turn, int more, Input *in, int *count) {
    Policy *p = b->policy;
    memset(&in->err, 0, sizeof in->err);
    in->text = turn->text;
    in->n = strlen(turn->text);
    in->number = turn->number;
    int *ids = line_ids(in, p->tokenizer, p->config.V, count);
    if (ids && *count + more > b->T)
        ids = line_too_large(in, "tokens that the policy would read and write", (long long)*count + more,
                             b->T, length_advice(b, f, more, in));
    return input_refused(in) ? NULL : ids;
}

int input_refused(Input *in) {
    if (!in->err.code && memchr(in->text, 0, in->n))
        line_error(in, E_FORMAT, "a NUL character in the text", "remove it");
    if (!in->err.code) return 0;
    cli_warn(&in->err, NULL);
    in->failed = 1;
    return 1;
}

const char *ask_of(const Feedback *f, const char *prompt, size_t n, Pool *pool) {
    Buffer b = { pool, NULL, 0, 0, 0 };
    constitution_ask(&b, chat_template(f->template), prompt, n);
    buffer_u8(&b, 0);
    need_buffer(&b);
    return (const char *)b.data;
}

void buffer_field(Buffer *b, const char *name, const char *text) {
    buffer_text(b, name);
    buffer_json_string(b, text, strlen(text));
}

void buffer_answer(Buffer *b, const char *name, const Feedback *f, const char *text) {
    Buffer whole = { b->pool, NULL, 0, 0, 0 };
    constitution_answer(&whole, chat_template(f->template), text, strlen(text));
    buffer_u8(&whole, 0);
    need_buffer(&whole);
    buffer_field(b, name, (const char *)whole.data);
}

void feedback_progress(const Feedback *f, const Results *r, int last) {
    if (f->out && f->total) progress("prompts", (long long)(r->next + r->added), f->total, last);
}

long long feedback_total(const Input *in, const char *path) {
    long long lines = 0;
    Error err = { 0 };
    const char *line;
    size_t n;
    if (!in->lines) return (long long)in->data.count;
    if (!path || !strcmp(path, "-")) return 0;
    Pool pool = cli_pool();
    Lines *l = lines_open(path, &pool, &err);
    while (l && lines_next(l, &line, &n)) lines += !in->jsonl || !blank_line(line, n);
    if (l) lines_close(l, NULL);
    pool_free(&pool);
    return lines;
}

int feedback_policy(const Feedback *f, Policy *p, const char *folder, const char *adapter, Pool *pool) {
    adapter_as_model(&folder, &adapter, ADAPTER_ADVICE, pool);
    const int T = context_length(f->context, weights_folder(folder, adapter), adapter, pool);
    const WeightTypes types = choose_types(f->program, &f->quant, folder, adapter, pool);
    policy_open(p, &types, folder, adapter, T, pool);
    p->tokenizer = need_tokenizer(folder, adapter, p->config.V, f->plain, pool);
    return T;
}

void feedback_sources(Source source[SOURCES], const Feedback *f, const char *model, const Policy *p,
                      const char *writer, const Policy *other, Pool *pool) {
    Error err = { 0 };
    memset(source, 0, SOURCES * sizeof *source);
    source[0] = (Source){ "MODEL", model, frozen_hash(p->model.tensor, p->model.tensors) };
    source[1].option = "--adapter";
    if (p->adapter) {                       /* model may be the adapter's folder */
        source[1].path = f->adapter ? f->adapter : model;
        source[1].hash = frozen_hash(p->lora.tensor, p->lora.tensors);
    }
    source[2] = (Source){ "--writer", writer, 0 };
    if (writer) {
        const uint64_t own = other->adapter ? frozen_hash(other->lora.tensor, other->lora.tensors) : 0;
        source[2].hash = rng_stream(frozen_hash(other->model.tensor, other->model.tensors), own, 0).state;
    }
    source[3] = (Source){ "--constitution", f->constitution, 0 };
    must(file_hash(f->constitution, &source[3].hash, pool, &err), &err, NULL);
}

Constitution feedback_constitution(Feedback *f, int kind, Pool *pool) {
    Constitution c;
    Error err = { 0 };
    if (!f->constitution)
        usage_hint("no principles", NULL, "--constitution data/constitution.txt, or a file like it");
    must(constitution_read(&c, f->constitution, pool, &err), &err, NULL);
    if (f->shots > c.count[kind])
        require(E_RANGE, "the file has fewer few-shot texts than --shots", f->constitution, f->shots,
                c.count[kind], "fewer --shots");
    if (f->shots < 0) f->shots = c.count[kind];
    c.how = chat_template(f->template);
    return c;
}
