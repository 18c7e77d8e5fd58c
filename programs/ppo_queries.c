/* programs/ppo_queries.c - the queries of a run: documents in a random order, and how much of each is
 *          a query.
 * Edges    A query is the first tokens of a document, or all tokens of a prompt, after <s> if the tokenizer's
 *          template has one. Documents that are not longer than the query are skipped. */
#include "ppo.h"

Rng stream(uint64_t seed, int purpose, uint64_t step, uint64_t index) {
    return rng_stream(seed + (uint64_t)purpose * 0x9e3779b97f4a7c15u, step, index);
}

/* Shuffles the documents for the epoch q->epoch. */
static void queue_shuffle(Queue *q) {
    Rng rng = stream(q->seed, STREAM_ORDER, q->epoch, 0);
    rng_shuffle(&rng, q->document, q->count);
    q->next = 0;
}

/* Returns the documents of a split (0: training, 1: held out), shuffled. */
Queue queue_of_split(Work *w, int split, uint64_t seed) {
    Queue q = { NULL, 0, 0, seed, 0 };
    q.document = pool_need(&w->pool, (size_t)w->data.count + 1, sizeof *q.document, "the order of documents");
    for (uint64_t i = 0; i < w->data.count; i++)
        if (w->data.document[i].split == split) q.document[q.count++] = (int)i;
    queue_shuffle(&q);
    return q;
}

/* Writes the query of a document to token (room for 1 + query_max; NULL: writes nothing): <s> if the
 * template has it, then the first `length` tokens of a text that has more, or a whole prompt of at
 * most --query-max tokens. Returns the query's size, or 0 if the document gives no query; *tokens:
 * how many tokens the document has. */
static int query_of(const Models *m, Work *w, const Document *d, int length, int *token, int *tokens) {
    const Settings *o = m->o;
    PoolMark mark = pool_mark(&w->pool);
    int *ids, n, at = 0, good;
    must(tokenizer_encode(m->tokenizer, d->text[0], d->length[0], &w->pool, &ids, &n), NULL,
         "a smaller dataset");
    if (w->data.kind == DATA_PROMPTS) {
        good = n > 0 && n <= o->query_max;
        length = n;
    } else good = n > length;
    if (good && token) {
        if (m->bos >= 0) token[at++] = m->bos;
        memcpy(token + at, ids, (size_t)length * sizeof *ids);
        at += length;
        if (m->after >= 0) token[at++] = m->after;
        need_rows(m->tokenizer, token, at, m->config.V, "policy");
    }
    pool_release(&w->pool, mark);
    *tokens = n;
    return good ? length + (m->bos >= 0) + (m->after >= 0) : 0;
}

/* Writes the query of the next document that gives one to token (see query_of). Returns the query's
 * size. once 1: returns 0 after the last document. once 0: begins a new epoch there, and returns 0 only
 * if a whole epoch gave no query. */
int next_query(const Models *m, Work *w, Queue *q, int length, int once, int *token) {
    for (int epochs = 0; ; ) {
        if (q->next == q->count) {
            if (once || epochs++) return 0;
            q->epoch++;
            queue_shuffle(q);
            continue;
        }
        int tokens, n = query_of(m, w, &w->data.document[q->document[q->next++]], length, token, &tokens);
        if (n) return n;
    }
}

int draw_between(Rng *rng, int low, int high) {
    return low + (int)rng_below(rng, (uint64_t)(high - low) + 1);
}

/* Ends the program because no document gives a query. shortest: tokens of the
 * shortest prompt (0: unknown). */
static void no_query(const Models *m, Work *w, int shortest) {
    const Settings *o = m->o;
    if (w->data.kind != DATA_PROMPTS || !shortest) {
        fail(&w->err, E_ARGUMENT, "no document is long enough for a query", "", 0, 0);
        die(&w->err, "a smaller --query-max, or another dataset");
    }
    fail(&w->err, E_ARGUMENT, "every prompt is longer than --query-max; the shortest", "", shortest,
         o->query_max);
    die(&w->err, "a larger --query-max");
}

/* Counts the training documents that give a query of the largest size, but no more than a step needs. Prints
 * the count if it is less than that: then the step has the same queries several times. Dies if it is 0, so
 * that no later step can lack a query. */
void check_queries(const Models *m, Work *w, const Queue *q) {
    const Settings *o = m->o;
    const int needed = o->batch_size / group_size(o);
    int good = 0, shortest = 0;
    char number[64];
    for (int i = 0; i < q->count && good < needed; i++) {
        int tokens;
        good += query_of(m, w, &w->data.document[q->document[i]], o->query_max, NULL, &tokens) > 0;
        if (tokens && (!shortest || tokens < shortest)) shortest = tokens;
    }
    if (!good) no_query(m, w, shortest);
    if (good < needed)
        say("%d of %s have %s --query-max tokens: a step of %d queries has some of them again", good,
            counted(number, (size_t)q->count, "training document"),
            w->data.kind == DATA_PROMPTS ? "a prompt of at most" : "more than", needed);
}

/* Returns how many tokens a query may have, and where that of response b begins: in its sequence, or with an
 * encoder in an array of its own. */
int query_room(const Models *m) { return m->Q ? m->Q : m->T; }
int *query_place(const Models *m, const Rollout *x, int b) {
    return (m->Q ? x->query : x->token) + (size_t)b * (size_t)query_room(m);
}

/* Returns the *n tokens of the query of response b. */
const int *query_tokens(const Models *m, const Rollout *x, int b, int *n) {
    *n = m->Q ? x->asked[b] : x->seq[b].prompt;
    return query_place(m, x, b);
}

/* Prepares sequence b of x for sampling. Its query of `prompt` tokens is already in its place; up to
 * `response` tokens may follow. */
void sequence_begin(const Models *m, Rollout *x, int b, int prompt, int response, Rng rng) {
    const Settings *o = m->o;
    Sequence *seq = &x->seq[b];
    memset(seq, 0, sizeof *seq);
    seq->token = x->token + (size_t)b * (size_t)m->T;
    if (m->Q) {
        x->asked[b] = prompt;
        seq->token[0] = m->config.start;
        prompt = 1;
    }
    seq->prompt = seq->length = prompt;
    seq->capacity = prompt + response;
    seq->stop_at_eos = 1;
    seq->logprob = x->seq_logprob + (size_t)b * (size_t)o->response_max;
    seq->value = x->seq_value + (size_t)b * (size_t)o->response_max;
    if (x->kept) seq->kept = x->kept + (size_t)b * (size_t)o->response_max * kept_bytes(m->config.V);
    seq->least = o->least;
    x->stopped[b] = 0;
    seq->rng = rng;
}

/* Prepares a sequence for each response of the step: the next query, with lengths drawn at random. The
 * --group responses of a group have the same query and may have as many tokens; their random numbers
 * differ. */
void draw_queries(Progress *p, const Models *m, Work *w) {
    const Settings *o = m->o;
    Rollout *x = &w->rollout;
    const size_t room = (size_t)query_room(m);
    int response = 0, prompt = 0, *order = w->before.document;
    memcpy(order, p->queue.document, (size_t)p->queue.count * sizeof *order);
    w->before = p->queue;
    w->before.document = order;
    w->in_step = 1;
    x->B = o->batch_size;
    for (int b = 0; b < x->B; b++) {
        Rng rng = stream(o->seed, STREAM_QUERY, (uint64_t)p->step, (uint64_t)b);
        if (b % group_size(o)) memcpy(query_place(m, x, b), query_place(m, x, b - 1), room * sizeof(int));
        else {
            const int length = draw_between(&rng, o->query_min, o->query_max);
            response = draw_between(&rng, o->response_min, o->response_max);
            prompt = next_query(m, w, &p->queue, length, 0, query_place(m, x, b));
        }
        if (!prompt) no_query(m, w, 0);
        rng = stream(o->seed, STREAM_SAMPLE, (uint64_t)p->step, (uint64_t)b);
        sequence_begin(m, x, b, prompt, response, rng);
    }
}
