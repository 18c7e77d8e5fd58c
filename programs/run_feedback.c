/* run_feedback.c - what run critique and run prefer share: their options, and answers of a policy that end
 * where the next turn of the conversation would begin. */
#include "run.h"
#include <stdio.h>

/* Ends a text at the next turn, or if a user has stopped the program. */
static int turn_token(void *context, int sequence, int token) {
    Author *a = context;
    const Sequence *s = &a->batch.seq[sequence];
    const PoolMark mark = pool_mark(&a->scratch);
    char *text;
    size_t n;
    (void)token;
    const int code = tokenizer_decode(a->batch.policy->tokenizer, s->token + s->prompt,
                                      s->length - s->prompt, &a->scratch, &text, &n);
    const int ended = !code && constitution_next_turn(text, n, &n);
    pool_release(&a->scratch, mark);
    return ended || cli_stopping();
}

/* Returns the text of a job's new tokens, without white space around it and without another turn. */
static const char *answer_of(const Author *a, const Job *j, Pool *pool) {
    char *text;
    size_t n;
    require(tokenizer_decode(a->batch.policy->tokenizer, j->token + j->prompt, j->length - j->prompt, pool,
                             &text, &n), "cannot decode", "output", 0, 0, NULL);
    constitution_next_turn(text, n, &n);
    text[n] = 0;
    return text + strspn(text, " \t\r\n");
}

Author author_open(Policy *p, const Feedback *f, int T, Pool *keep) {
    Author a = { .sampling = { (float)f->temperature, 0, (float)f->top_p }, .n = f->n };
    a.scratch = cli_pool();
    a.batch = batch_open(p, f->batch ? f->batch : batch_size(T), T, keep);
    return a;
}

void author_write(Author *a, Turn *turn, int turns, Input *in, Pool *pool) {
    const Writing writing = { .adapter = a->batch.policy->adapter, .sampling = a->sampling,
                              .on_token = turn_token, .context = a };
    Job *job = pool_need(pool, (size_t)turns + 1, sizeof *job, "texts");
    int *which = pool_need(pool, (size_t)turns + 1, sizeof *which, "texts"), jobs = 0;
    for (int i = 0; i < turns; i++) {
        Job j = { .most = a->n, .rng = turn[i].rng };
        turn[i].answer = NULL;
        j.ids = turn_ids(&a->batch, &turn[i], a->n, in, &j.count);
        if (!j.ids) continue;
        which[jobs] = i;
        job[jobs++] = j;
    }
    batch_write(&a->batch, &writing, job, jobs, pool);
    for (int k = 0; k < jobs; k++) turn[which[k]].answer = answer_of(a, &job[k], pool);
}

int *turn_ids(const Batch *b, const Turn *turn, int more, Input *in, int *count) {
    Policy *p = b->policy;
    memset(&in->err, 0, sizeof in->err);
    in->text = turn->text;
    in->n = strlen(turn->text);
    in->number = turn->number;
    int *ids = line_ids(in, p->tokenizer, p->config.V, count);
    if (ids && *count + more > b->T)
        ids = line_too_large(in, "tokens that the policy would read and write", (long long)*count + more,
                             b->T, "fewer --shots, a shorter prompt or answer, or a larger --context");
    if (!ids) cli_warn(&in->err, NULL);
    in->failed |= !ids;
    return ids;
}

const char *ask_of(const char *prompt, size_t n, Pool *pool) {
    Buffer b = { pool, NULL, 0, 0, 0 };
    constitution_ask(&b, prompt, n);
    buffer_u8(&b, 0);
    need_buffer(&b);
    return (const char *)b.data;
}

void buffer_field(Buffer *b, const char *name, const char *space, const char *text, Pool *pool) {
    Buffer whole = { pool, NULL, 0, 0, 0 };
    buffer_text(&whole, space);
    buffer_text(&whole, text);
    need_buffer(&whole);
    buffer_text(b, name);
    buffer_json_string(b, (const char *)whole.data, whole.length);
}

int feedback_policy(const Feedback *f, Policy *p, const char *folder, const char *adapter, Pool *pool) {
    adapter_as_model(&folder, &adapter, ADAPTER_ADVICE, pool);
    const int T = context_length(f->context, weights_folder(folder, adapter), adapter, pool);
    const WeightTypes types = choose_types(f->program, &f->quant, folder, adapter, pool);
    policy_open(p, &types, folder, adapter, T, pool);
    p->tokenizer = need_tokenizer(folder, adapter, p->config.V, f->plain, pool);
    return T;
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
    return c;
}
