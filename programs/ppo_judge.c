/* programs/ppo_judge.c - a number for each response: its text, decoded, goes to the judge, or
 * to --reward-text or --reward-command. */
#include "ppo.h"
#include <stdio.h>

/* With an encoder, query and response are texts of their own; x->text has a line break between them. */
static void decode_apart(const Models *m, Work *w, int b) {
    Rollout *x = &w->rollout;
    const Sequence *seq = &x->seq[b];
    Buffer both = { 0 };
    char *query, *alone = NULL;
    int asked;
    size_t n = 0, query_n;
    const int *ids = query_tokens(m, x, b, &asked);
    both.pool = &w->pool;
    int code = tokenizer_decode(m->tokenizer, ids, asked, &w->pool, &query, &query_n);
    if (!code)
        code = tokenizer_decode(m->tokenizer, seq->token + seq->prompt, seq->length - seq->prompt, &w->pool,
                                &alone, &n);
    must(code, NULL, NULL);
    buffer_bytes(&both, query, query_n);
    buffer_text(&both, "\n");
    buffer_bytes(&both, alone, n);
    must(both.failed ? E_MEMORY : OK, NULL, NULL);
    x->text[b] = (const char *)both.data;
    x->text_length[b] = both.length;
    x->query_length[b] = query_n;
    x->response[b] = alone;
    x->response_length[b] = n;
}

/* Decodes sequence b without special tokens. The response's text is the rest of the whole text after the
 * query's text, so that a word that the query begins stays one word. If the whole text does not begin with
 * the query's (the query ends inside a character), decodes the response alone. */
static void decode_sequence(const Models *m, Work *w, int b) {
    Rollout *x = &w->rollout;
    const Sequence *seq = &x->seq[b];
    char *whole, *query, *alone;
    size_t n, query_n = 0;
    int code = tokenizer_decode(m->tokenizer, seq->token, seq->length, &w->pool, &whole, &n);
    if (!code) code = tokenizer_decode(m->tokenizer, seq->token, seq->prompt, &w->pool, &query, &query_n);
    must(code, NULL, NULL);
    x->text[b] = whole;
    x->text_length[b] = n;
    x->query_length[b] = n < query_n ? n : query_n;
    if (n >= query_n && !memcmp(whole, query, query_n)) {
        x->response[b] = whole + query_n;
        x->response_length[b] = n - query_n;
        return;
    }
    must(tokenizer_decode(m->tokenizer, seq->token + seq->prompt, seq->length - seq->prompt, &w->pool,
                          &alone, &n), NULL, NULL);
    x->response[b] = alone;
    x->response_length[b] = n;
}

/* Returns how often `wanted` occurs in a text of n bytes, without overlaps. */
static float count_text(const char *text, size_t n, const char *wanted) {
    size_t w = strlen(wanted), count = 0;
    for (size_t i = 0; i + w <= n; ) {
        const int found = !memcmp(text + i, wanted, w);
        count += (size_t)found;
        i += found ? w : 1;
    }
    return (float)count;
}

/* Appends n ids to the judge's batch as its i-th text, between the template's bos and eos. A text without any
 * id becomes empty_text_id (bos or eos) alone. */
static void judge_add(const Scorer *s, JudgeBatch *j, int i, const int *ids, int n) {
    const SpecialIds special = tokenizer_specials(s->judge.tokenizer);
    j->start[i] = j->tokens;
    if (s->adds_bos) j->token[j->tokens++] = special.bos;
    for (int k = 0; k < n; k++) j->token[j->tokens++] = ids[k];
    if (s->adds_eos) j->token[j->tokens++] = special.eos;
    if (j->tokens == j->start[i]) j->token[j->tokens++] = empty_text_id(s->judge.tokenizer);
    j->start[i + 1] = j->tokens;
}

/* Returns 1 - the softmax of n logits at `label`. */
static float probability_of_others(const float *logit, int n, int label) {
    double sum = 0;
    for (int i = 0; i < n; i++) if (i != label) sum += exp((double)logit[i] - (double)logit[label]);
    return (float)(sum < HUGE_VAL ? sum / (1 + sum) : 1);
}

/* Ends the run because the score of response b is not a number; where: the judge. */
static void bad_score(const Models *m, Work *w, int b, const char *where) {
    char text[96];
    snprintf(text, sizeof text, "the judge's score of response %d is not a number", b + 1);
    fail(&w->err, E_NUMBER, text, where, 0, 0);
    judge_failed(w, m->o->quant.compute == F32 ? "another --reward" : "--compute f32, or another --reward");
}

/* Adds the weighted scores of the n texts in the judge's batch to those of response b and after, and empties
 * the batch. */
static void judge_run(const Models *m, const Scorer *s, Work *w, int b, int n) {
    Rollout *x = &w->rollout;
    JudgeBatch *j = &w->judge;
    const int labels = s->judge.config.labels;
    const Texts texts = { j->tokens, n, j->token, j->start };
    if (!n) return;
    must(reward_forward(&s->judge.model, s->judge.adapter, &texts, NULL, j->logits, &w->ws), NULL,
         "check that the tokenizer belongs to the judge");
    for (int i = 0; i < n; i++) {
        const float *logit = j->logits + (size_t)i * (size_t)labels;
        if (!is_number(logit[s->label])) bad_score(m, w, b + i, s->judge.folder);
        x->raw_score[b + i] += (float)s->weight * logit[s->label];
        x->judge_mean[s - m->scorer] += (double)logit[s->label] / x->B;
        if (m->toxicity == s) x->toxicity[b + i] = probability_of_others(logit, labels, s->label);
    }
    j->tokens = 0;
}

/* Returns the *n ids of text b that the judge is to read. Of a text that is longer than the judge's limit,
 * these are the last ones: the response decides the score, and so it is the query that loses its beginning.
 * Counts the text as a cut response if a token of the response is lost too, else as a cut query. */
static const int *judge_ids(const Models *m, const Scorer *s, Work *w, int b, int *n) {
    const Settings *o = m->o;
    Rollout *x = &w->rollout;
    const char *text = o->score == SCORE_BOTH ? x->text[b] : x->response[b];
    const size_t bytes = o->score == SCORE_BOTH ? x->text_length[b] : x->response_length[b];
    const size_t query = o->score == SCORE_BOTH ? x->query_length[b] : 0;
    TokenSpan *span;
    int *ids;
    must(tokenizer_encode(s->judge.tokenizer, text, bytes, &w->pool, &ids, n), NULL, NULL);
    need_rows(s->judge.tokenizer, ids, *n, s->judge.config.V, "judge");
    const int cut = *n - s->most;
    if (cut <= 0) return ids;
    must(tokenizer_encode_spans(s->judge.tokenizer, text, bytes, &w->pool, &ids, &span, n), NULL, NULL);
    if (span[cut - 1].to > query) x->responses_cut++;
    else x->queries_cut++;
    *n = s->most;
    return ids + cut;
}

/* Adds a judge's weighted logit for each text to raw_score. A forward takes as many texts as there is room
 * for. */
static void judge_texts(const Models *m, const Scorer *s, Work *w) {
    const Settings *o = m->o;
    Rollout *x = &w->rollout;
    int waiting = 0;
    w->judge.tokens = 0;
    for (int b = 0; b < x->B; b++) {
        PoolMark mark = pool_mark(&w->pool);
        int n;
        const int *ids = judge_ids(m, s, w, b, &n);
        if (waiting == o->chunk ||
            w->judge.tokens + larger(n + s->adds_bos + s->adds_eos, 1) > w->judge.room) {
            judge_run(m, s, w, b - waiting, waiting);
            waiting = 0;
        }
        judge_add(s, &w->judge, waiting++, ids, n);
        pool_release(&w->pool, mark);
    }
    judge_run(m, s, w, x->B - waiting, waiting);
}

int ends_in_eos(const Models *m, const Sequence *seq) {
    for (int i = 0; i < m->config.eos_count; i++)
        if (seq->token[seq->length - 1] == m->config.eos[i]) return 1;
    return 0;
}

/* Fills raw_score from the judges, --reward-text or --reward-command, and score = gain * raw_score + bias,
 * minus the penalties of its length and of a response without EOS. */
void score_responses(const Progress *p, const Models *m, Work *w) {
    const Settings *o = m->o;
    Rollout *x = &w->rollout;
    x->queries_cut = x->responses_cut = 0;
    for (int b = 0; b < x->B; b++) {
        (m->Q ? decode_apart : decode_sequence)(m, w, b);
        x->raw_score[b] = 0;
        if (o->reward_text)
            x->raw_score[b] = count_text(x->response[b], x->response_length[b], o->reward_text);
    }
    memset(x->judge_mean, 0, sizeof x->judge_mean);
    for (int k = 0; k < m->scorers; k++) judge_texts(m, &m->scorer[k], w);
    if (o->reward_command && command_scores(o, x, x->raw_score, &w->pool, &w->err))
        judge_failed(w, "the command by hand: it gets lines {\"query\": \"a\", \"response\": \"b\"}, and has "
                     "to write a line with a number for each, and nothing else, to its standard output. It "
                     "has to flush its output, and not to wait for the end of its input (python3 -u; mawk "
                     "-W interactive)");
    for (int b = 0; b < x->B; b++) {
        if (!is_number(x->raw_score[b])) bad_score(m, w, b, o->reward);         /* a sum of judges */
        const double tokens = x->seq[b].length - x->seq[b].prompt;
        const double penalty = o->length_penalty * tokens + (ends_in_eos(m, &x->seq[b]) ? 0 : o->eos_penalty);
        x->score[b] = (float)(p->gain * x->raw_score[b] + p->bias - penalty);
        if (o->missing_stop && !x->stopped[b]) x->score[b] = (float)o->missing_stop_score;
    }
}

/* Scores above `most` give gradients whose squares are infinite. Scaled and clipped scores are small. */
void check_scores(const Models *m, Work *w) {
    const Settings *o = m->o;
    const double most = o->score_scaling || o->score_clip > 0 ? HUGE_VAL : 1e18;
    const char *where = o->reward_command ? o->reward_command : o->reward_text ? o->reward_text : o->reward;
    char text[96];
    for (int b = 0; b < w->rollout.B; b++) {
        const double score = w->rollout.score[b];
        if (fabs(score) < most) continue;
        snprintf(text, sizeof text, "the score of response %d is too large: %.3g", b + 1, score);
        fail(&w->err, E_NUMBER, text, where, 0, 0);
        judge_failed(w, "smaller rewards, or --score-clip 10");
    }
}
