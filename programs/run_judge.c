/* run_judge.c - a judge's logits of many texts, several in each forward; the probabilities of its labels. */
#include "run.h"

double judge_probability(const RewardConfig *c, const float *logits, int k) {
    double sum = 0;
    if (c->labels == 1 || c->problem == PROBLEM_LABELS) return 1 / (1 + exp(-(double)logits[k]));
    for (int i = 0; i < c->labels; i++) sum += exp((double)logits[i] - (double)logits[k]);
    return 1 / sum;
}

int toxic_label(const RewardConfig *c) {
    static const char *const name[] = { "toxic", "toxicity", "hate", "hateful", "hate speech", "hatespeech" };
    int found = -1;
    for (size_t i = 0; i < sizeof name / sizeof *name && found < 0; i++) found = label_find(c, name[i]);
    return found;
}

ScoreBatch score_open(const Judge *j, Pool *pool) {
    const int limit = reward_max_tokens(&j->config);
    ScoreBatch s = { .judge = j, .room = limit > SCORE_TOKENS ? limit : SCORE_TOKENS };
    tokenizer_template(j->tokenizer, &s.before, &s.after);
    const int empty = empty_text_id(j->tokenizer);
    require(!s.before && !s.after && (empty < 0 || empty >= j->config.V) ? E_MISSING : OK,
            "the judge cannot read an empty text: its tokenizer has no template, no bos and no eos",
            j->folder, 0, 0, "a tokenizer_config.json there that names a bos_token or an eos_token");
    s.most = judge_limit(&j->config, j->tokenizer) - s.before - s.after;
    s.token = pool_need(pool, (size_t)s.room, sizeof(int), "texts for the judge");
    s.start = pool_need(pool, SCORE_TEXTS + 1, sizeof(int), "texts for the judge");
    const Texts texts = { s.room, SCORE_TEXTS, NULL, NULL };       /* what measures reads no more */
    Arena ws = { 0 };
    reward_forward(&j->model, j->adapter, &texts, NULL, NULL, &ws);
    s.ws = cli_arena(ws.peak, "the judge's work space");
    return s;
}

/* Reads the texts that wait, and writes their logits. */
static void score_run(ScoreBatch *s, float *logits) {
    const Texts texts = { s->tokens, s->waiting, s->token, s->start };
    if (!s->waiting) return;
    require(reward_forward(&s->judge->model, s->judge->adapter, &texts, NULL, logits, &s->ws),
            "the judge's forward failed", s->judge->folder, 0, 0, "the tokenizer that belongs to the judge");
    for (int i = 0; i < s->waiting * s->judge->config.labels; i++)
        require(isfinite(logits[i]) ? OK : E_NUMBER, no_number, s->judge->folder, 0, 0,
                damaged_hint(s->judge->types.compute));
    s->tokens = s->waiting = 0;
}

int score_texts(ScoreBatch *s, const char *const *text, const size_t *length, int n, float *logits,
                Pool *scratch) {
    const Tokenizer *t = s->judge->tokenizer;
    const SpecialIds special = tokenizer_specials(t);
    int cut = 0, done = 0;
    for (int i = 0; i < n; i++) {
        const PoolMark mark = pool_mark(scratch);
        int *ids, count;
        must(tokenizer_encode(t, text[i], length[i], scratch, &ids, &count), NULL, NULL);
        need_rows(t, ids, count, s->judge->config.V, "judge");
        if (count > s->most) { cut++; ids += count - s->most; count = s->most; }
        if (s->waiting == SCORE_TEXTS || s->tokens + s->before + s->after + count + 1 > s->room) {
            score_run(s, logits + (size_t)done * (size_t)s->judge->config.labels);
            done = i;
        }
        s->start[s->waiting++] = s->tokens;
        if (s->before) s->token[s->tokens++] = special.bos;
        for (int k = 0; k < count; k++) s->token[s->tokens++] = ids[k];
        if (s->after) s->token[s->tokens++] = special.eos;
        if (s->tokens == s->start[s->waiting - 1]) s->token[s->tokens++] = empty_text_id(t);
        s->start[s->waiting] = s->tokens;
        pool_release(scratch, mark);
    }
    score_run(s, logits + (size_t)done * (size_t)s->judge->config.labels);
    return cut;
}
