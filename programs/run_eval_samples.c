/* run_eval_samples.c - run eval: the queries, what a policy writes after them, what the judge says of it, and
 * its log-probs under the policy and under the first one. */
#include "run_eval.h"
#include <stdio.h>

/* ---- queries ---- */

/* Returns the ids of a query's text: with bos if the template has it, and if an encoder reads it, eos. limit:
 * only the first so many ids of the text (0: all). *whole: how many ids the text has. */
Query query_ids(const Policy *p, const char *text, size_t n, int limit, Pool *pool, int *whole) {
    const SpecialIds special = tokenizer_specials(p->tokenizer);
    int before, after, *ids;
    Query q = { NULL, 0 };
    tokenizer_template(p->tokenizer, &before, &after);
    must(tokenizer_encode(p->tokenizer, text, n, pool, &ids, whole), NULL, NULL);
    const int count = limit && *whole > limit ? limit : *whole;
    q.ids = pool_need(pool, (size_t)count + 2, sizeof(int), "queries");
    if (before) q.ids[q.count++] = special.bos;
    for (int i = 0; i < count; i++) q.ids[q.count++] = ids[i];
    if (after && encoder(p)) q.ids[q.count++] = special.eos;
    return q;
}

/* Makes the queries: the first --query tokens of texts that have more, or whole prompts that leave room for
 * -n tokens; of the held-out documents, or of all. Their order is that of a shuffle, always the same one. */
void make_queries(Eval *e) {
    const Settings *o = &e->set;
    Compared *first = &e->entry[0];
    Dataset data;
    Error err = { 0 };
    int count = 0;
    must(dataset_read(&data, o->data, &e->keep, &err), &err, "a file that prep data has written");
    require(data.kind == DATA_PAIRS ? E_ARGUMENT : OK, "a dataset of pairs has no prompts", o->data, 0, 0,
            "a dataset of texts or of prompts with responses");
    int *order = pool_need(&e->keep, (size_t)data.count + 1, sizeof *order, "documents");
    for (uint64_t i = 0; i < data.count; i++)
        if (o->all || data.document[i].split) order[count++] = (int)i;
    require(count ? OK : E_MISSING, "there are no held-out documents", o->data, 0, 0,
            "--all, for queries from all of them");
    Rng rng = rng_stream(0, 0, 0);
    rng_shuffle(&rng, order, count);
    const int most = o->queries && o->queries < count ? o->queries : count;
    const int room = first->policy.positions - o->n, prompts = data.kind == DATA_PROMPTS;
    e->text = pool_need(&e->keep, (size_t)most, sizeof *e->text, "queries");
    first->query = pool_need(&e->keep, (size_t)most, sizeof(Query), "queries");
    for (int i = 0; i < count && e->queries < most; i++) {
        const Document *d = &data.document[order[i]];
        char *text;
        int whole;
        Query q = query_ids(&first->policy, d->text[0], d->length[0], prompts ? 0 : o->query, &e->keep,
                            &whole);
        if (!q.count || !whole || (prompts ? q.count > room : whole <= o->query)) continue;
        need_rows(first->policy.tokenizer, q.ids, q.count, first->policy.config.V, "policy");
        Text *to = &e->text[e->queries];
        must(tokenizer_decode(first->policy.tokenizer, q.ids, q.count, &e->keep, &text, &to->length), NULL,
             NULL);
        to->text = text;
        first->query[e->queries++] = q;
    }
    require(e->queries ? OK : E_RANGE,
            prompts ? "every prompt is too long" : "no document is long enough for a query", o->data, 0, 0,
            prompts ? "a smaller -n" : "a smaller --query");
}

/* ---- samples ---- */

/* A written text: query and response as one text; the response's part. */
typedef struct { Text whole, response; } Written;

/* Decodes what was written. The response is the rest of the whole text after the query's text, so that a word
 * that the query begins stays one word. With an encoder, whose query is a text of its own, a line break is
 * between the two. */
static Written decode(const Policy *p, const Text *query, const Job *job, Pool *pool) {
    Written w;
    char *text;
    must(tokenizer_decode(p->tokenizer, job->token + job->prompt, job->length - job->prompt, pool, &text,
                          &w.response.length), NULL, NULL);
    w.response.text = text;
    if (!encoder(p)) {
        must(tokenizer_decode(p->tokenizer, job->token, job->length, pool, &text, &w.whole.length), NULL,
             NULL);
        w.whole.text = text;
        if (w.whole.length < query->length || memcmp(text, query->text, query->length)) return w;
        w.response.text = text + query->length;
        w.response.length = w.whole.length - query->length;
        return w;
    }
    Buffer both = { .pool = pool };
    buffer_bytes(&both, query->text, query->length);
    buffer_text(&both, "\n");
    buffer_bytes(&both, w.response.text, w.response.length);
    need_buffer(&both);
    w.whole.text = (const char *)both.data;
    w.whole.length = both.length;
    return w;
}

/* Returns the sum of the log-probs of token[from] .. token[length-1], the first of which is not counted if
 * nothing comes before it. prompt: what an encoder reads. */
static double log_probability(Policy *p, const Query *prompt, const int *token, int length, int from,
                              Pool *scratch) {
    float *logprob = pool_need(scratch, (size_t)length + 1, sizeof *logprob, "log-probs");
    double sum = 0;
    if (encoder(p))
        require(policy_read(p, &p->reading, prompt->ids, prompt->count, &p->ws),
                "the model's encoder failed", "", 0, 0, damaged_hint(p->compute));
    const int code = policy_logprobs(p, token, 0, length, logprob);
    require(code, code == E_NUMBER ? no_number : "the model's forward failed", "", 0, 0,
            damaged_hint(p->compute));
    for (int i = from > 0 ? from : 1; i < length; i++) sum += logprob[i - 1];
    return sum;
}

/* Adds the log-prob of a response under the first policy, which has another tokenizer: of its own tokens for
 * the text, as many as there is room for. */
static void read_other(Eval *e, Compared *p, int query, const Written *w) {
    Compared *first = &e->entry[0];
    Policy *f = &first->policy;
    const Query *prompt = &first->query[query];
    const Text *text = encoder(f) ? &w->response : &w->whole;
    int whole, begin = prompt->count;
    Query q = query_ids(f, text->text, text->length, 0, &e->scratch, &whole);
    if (encoder(f)) {                       /* the decoder's first id comes before the response */
        int *token = pool_need(&e->scratch, (size_t)q.count + 1, sizeof *token, "tokens");
        memcpy(token + 1, q.ids, (size_t)q.count * sizeof *token);
        token[0] = f->config.start;
        q.ids = token;
        q.count++;
        begin = 1;
    }
    if (q.count > first->batch.T) q.count = first->batch.T;
    if (q.count <= begin || first_beyond(q.ids, q.count, f->config.V) >= 0) return;
    p->first_logprob += log_probability(f, prompt, q.ids, q.count, begin, &e->scratch);
    p->first_tokens += q.count - begin;
}

/* The log-probs of a response under its own policy and under the first; NaNs if their tokens differ. */
typedef struct { double own, first; } Logprobs;

/* Computes the log-probs of a written text, and adds them to the policy's sums. */
static Logprobs compare_logprobs(Eval *e, Compared *p, int query, const Job *job, const Written *w) {
    Compared *first = &e->entry[0];
    p->tokens += job->length - job->prompt;
    Logprobs none = { NAN, NAN };
    if (!p->same) { read_other(e, p, query, w); return none; }
    const double base = log_probability(&first->policy, &first->query[query], job->token, job->length,
                                        job->prompt, &e->scratch);
    double own = base;
    if (p != first)
        own = log_probability(&p->policy, &p->query[query], job->token, job->length, job->prompt,
                              &e->scratch);
    p->first_logprob += base;
    p->first_tokens += job->length - job->prompt;
    p->kl += own - base;
    const Logprobs both = { own, base };
    return both;
}

void put_number(Buffer *b, const char *name, double x) {
    char text[80];
    snprintf(text, sizeof text, isfinite(x) ? ", \"%s\": %.9g" : ", \"%s\": null", name, x);
    buffer_text(b, text);
}

/* Writes the JSON line of a sample to the file of --out. */
static void write_sample(Eval *e, const Compared *p, int index, int tokens, Logprobs logprobs) {
    const Text *response = &p->response[index];
    const int query = index / e->set.samples;
    Buffer b = { .pool = &e->scratch };
    if (!e->out) return;
    buffer_text(&b, "{\"policy\": ");
    buffer_json_string(&b, p->name, strlen(p->name));
    buffer_text(&b, ", \"query\": ");
    buffer_json_string(&b, e->text[query].text, e->text[query].length);
    put_number(&b, "sample", index % e->set.samples);
    buffer_text(&b, ", \"response\": ");
    buffer_json_string(&b, response->text, response->length);
    put_number(&b, "reward", p->reward[index]);
    if (e->toxic >= 0) put_number(&b, "toxicity", p->toxicity[index]);
    put_number(&b, "tokens", tokens);
    put_number(&b, "logprob", logprobs.own);
    put_number(&b, "logprob_first", logprobs.first);
    buffer_text(&b, "}\n");
    need_buffer(&b);
    require(writer_write(e->out, b.data, b.length), "cannot write", e->set.out, 0, 0, NULL);
}

/* Writes, judges and measures the samples first .. first+n-1 of a policy. */
void take_samples(Eval *e, Compared *p, int first, int n) {
    const Settings *o = &e->set;
    const int labels = e->judge.config.labels;
    const Writing writing = { .adapter = p->policy.adapter,
                              .sampling = { (float)o->temperature, o->top_k, (float)o->top_p } };
    Job *job = pool_need(&e->scratch, (size_t)n, sizeof *job, "samples");
    Written *w = pool_need(&e->scratch, (size_t)n, sizeof *w, "samples");
    const char **text = pool_need(&e->scratch, (size_t)n, sizeof *text, "samples");
    size_t *length = pool_need(&e->scratch, (size_t)n, sizeof *length, "samples");
    float *logits = pool_need(&e->scratch, (size_t)n * (size_t)labels, sizeof *logits, "samples");
    for (int i = 0; i < n; i++) {
        const Query *q = &p->query[(first + i) / o->samples];
        const Job j = { .ids = q->ids, .count = q->count, .most = o->n,
                        .rng = rng_stream(o->seed, 1, (uint64_t)(first + i)) };
        job[i] = j;
    }
    batch_write(&p->batch, &writing, job, n, &e->scratch);
    for (int i = 0; i < n; i++) {
        w[i] = decode(&p->policy, &e->text[(first + i) / o->samples], &job[i], &e->scratch);
        const Text *read = o->score == SCORE_BOTH ? &w[i].whole : &w[i].response;
        text[i] = read->text;
        length[i] = read->length;
    }
    p->cut += score_texts(&e->scores, text, length, n, logits, &e->scratch);
    for (int i = 0; i < n; i++) {
        const float *z = logits + (size_t)i * (size_t)labels;
        Text *kept = &p->response[first + i];
        p->reward[first + i] = z[e->label];
        if (e->toxic >= 0) p->toxicity[first + i] = (float)judge_probability(&e->judge.config, z, e->toxic);
        kept->length = w[i].response.length;
        kept->text = pool_text(&e->keep, w[i].response.text, kept->length);
        const Logprobs logprobs = compare_logprobs(e, p, (first + i) / o->samples, &job[i], &w[i]);
        write_sample(e, p, first + i, job[i].length - job[i].prompt, logprobs);
    }
}
