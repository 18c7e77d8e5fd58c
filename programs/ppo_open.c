/* programs/ppo_open.c - models, tokenizers and their limits: what a run opens before its first step. */
#include "ppo.h"
#include <stdio.h>

void prepare_policy(Models *m, Work *w, const Program *p) {
    const Settings *o = m->o;
    int before, after;
    m->tokenizer = open_policy(&m->config, o->policy, o->tokenizer, &w->pool);
    if (o->no_special) tokenizer_split_special(m->tokenizer);
    quant_options_types(&m->types, p, &o->quant, o->policy, !o->lora.rank && !o->adapter, &w->pool);
    tokenizer_template(m->tokenizer, &before, &after);
    m->bos = before ? tokenizer_specials(m->tokenizer).bos : -1;
    m->after = -1;
    m->T = before + o->query_max + o->response_max;
    if (m->config.encoder.L) {
        m->after = after ? tokenizer_specials(m->tokenizer).eos : -1;
        m->Q = before + o->query_max + after;
        m->T = 1 + o->response_max;
    }
    if (larger(m->T, m->Q) > m->config.positions) {
        fail(&w->err, E_RANGE, "query and response are longer than the policy's positions", o->policy, m->T,
             m->config.positions);
        die(&w->err, "a smaller --query-max or --response-max");
    }
    m->lora_config = o->adapter ? open_adapter_config(o->adapter, 0, &w->pool)
                               : adapter_options(&o->lora, m->config.names, &w->pool);
    if (m->config.encoder.L) m->lora_config.task = "SEQ_2_SEQ_LM";
    rows_take(&w->batch.rows, larger(o->chunk, o->mini_batch_size) * (m->T - 1), &w->pool);
}

void prepare_judge(Models *m, Work *w, const Program *p) {
    const Settings *o = m->o;
    const QuantOptions held = { o->reward_nf4, 0, 64, 0, o->quant.compute, 0 };
    if (o->reward_text) return;
    judge_find(&m->judge, o->reward, o->reward_adapter, &w->pool);
    judge_tokenizer(&m->judge, &w->pool);
    if (o->no_special) tokenizer_split_special(m->judge.tokenizer);
    judge_options_types(&m->judge.types, p, &held, &m->judge.config, m->judge.folder, 0, &w->pool);
    m->label = label_need(&m->judge.config, o->label, "--label");
    m->toxicity = m->judge.config.labels > 1 && (m->label == label_find(&m->judge.config, "nothate")
                                                 || m->label == label_find(&m->judge.config, "non-toxic"));
    tokenizer_template(m->judge.tokenizer, &m->adds_bos, &m->adds_eos);
    const int empty = empty_text_id(m->judge.tokenizer);
    if (!m->adds_bos && !m->adds_eos && (empty < 0 || empty >= m->judge.config.V)) {
        fail(&w->err, E_MISSING, "an empty text would have no token for the judge: its tokenizer has no "
             "template, no bos and no eos", o->reward, 0, 0);
        die(&w->err, "a tokenizer_config.json there that names a bos_token or an eos_token");
    }
    m->judge_most = judge_limit(&m->judge.config, m->judge.tokenizer) - m->adds_bos - m->adds_eos;
    w->judge.room = larger(reward_max_tokens(&m->judge.config), 1024 + o->chunk);
    w->judge.token = pool_need(&w->pool, (size_t)w->judge.room, sizeof(int), "the judge's texts");
    w->judge.start = pool_need(&w->pool, (size_t)o->chunk + 1, sizeof(int), "the judge's texts");
}

/* Cuts 32 texts of --response-max tokens of the policy from the training documents, which follow one another.
 * Returns how many of the judge's tokens the longest of these texts has. */
static int longest_response(const Models *m, Work *w, const Queue *q) {
    const Settings *o = m->o;
    enum { TEXTS = 32 };
    const PoolMark mark = pool_mark(&w->pool);
    int *token = pool_need(&w->pool, (size_t)o->response_max, sizeof *token, "a response"), have = 0;
    int longest = 0, texts = 0;
    /* few documents are read again and again, until there is a text */
    for (int i = 0; texts < TEXTS && (i < q->count || !texts); i++) {
        const Document *d = &w->data.document[q->document[i % q->count]];
        const PoolMark text_mark = pool_mark(&w->pool);
        int *ids, *read, n, judged;
        char *text;
        size_t bytes;
        must(tokenizer_encode(m->tokenizer, d->text[0], d->length[0], &w->pool, &ids, &n), NULL, NULL);
        for (int k = 0; k < n && texts < TEXTS; k++) {
            token[have++] = ids[k];
            if (have < o->response_max) continue;
            have = 0;
            texts++;
            must(tokenizer_decode(m->tokenizer, token, o->response_max, &w->pool, &text, &bytes), NULL, NULL);
            must(tokenizer_encode(m->judge.tokenizer, text, bytes, &w->pool, &read, &judged), NULL, NULL);
            longest = larger(longest, judged);
        }
        pool_release(&w->pool, text_mark);
    }
    pool_release(&w->pool, mark);
    return longest;
}

/* Dies if the judge cannot read texts that are as long as responses can be, unless --long-response is cut.
 * Responses of other texts may still be too long: those are cut, and counted in the log. */
void check_responses(const Models *m, Work *w, const Queue *q) {
    const Settings *o = m->o;
    const int longest = o->reward_text || o->long_response == LONG_CUT ? 0 : longest_response(m, w, q);
    char hint[120];
    if (longest <= m->judge_most) return;
    snprintf(hint, sizeof hint, "--response-max %d, or --long-response cut: then the judge reads their ends",
             larger(1, (int)((double)o->response_max * m->judge_most / longest)));
    fail(&w->err, E_RANGE, "responses of --response-max tokens have more of the judge's tokens than it reads",
         o->reward, longest, m->judge_most);
    die(&w->err, hint);
}

/* Prints the share of trained parameters: for a policy with an encoder, as the DialogSum lab prints it. */
static void say_share(const Models *m, size_t trained, size_t all) {
    if (!m->config.encoder.L) { print_trainable(trained, all); return; }
    say("PPO model parameters to be updated (ValueHead + %llu params):",
        (unsigned long long)tensor_values(m->head.tensor, 2, 0));
    say("trainable model parameters: %llu", (unsigned long long)trained);
    say("all model parameters: %llu", (unsigned long long)all);
    say("percentage of trainable model parameters: %.2f%%", all ? 100.0 * (double)trained / (double)all : 0);
}

/* Prints the models, the reward and the share of trained parameters. */
void say_what(const Models *m, const Work *w, const Queue *training, const char *data) {
    const Settings *o = m->o;
    const StackKind *c = &m->config.stack, *j = &m->judge.config.stack;
    const size_t trainable = tensor_values(m->trained, m->trained_all, 1);
    const size_t frozen = m->adapter ? tensor_values(m->policy.tensor, m->policy.tensors, 0) : 0;
    const size_t held = (size_t)w->data.count - (size_t)training->count;
    char number[64], range[2][32];
    say("data %s: %s, %s held out; seed %llu", data, counted(number, (size_t)w->data.count, "document"),
        with_commas(range[0], held), (unsigned long long)o->seed);
    say("policy %s: %s, C %d, L %d, H %d, K %d, F %d, V %d", o->policy, config_written(m->config.names, 0),
        c->C, c->L, c->H, c->K, c->F, m->config.V);
    print_types(m->adapter ? "frozen weights" : "weights", &m->types);
    if (o->reward_text) say("reward = number of '%s' in the response", o->reward_text);
    else {
        const char *read = o->score == SCORE_BOTH ? "query + response" : "the response alone";
        with_commas(range[0], tensor_values(m->judge.model.tensor, m->judge.model.tensors, 0));
        say("judge %s%s%s: %s, C %d, L %d, H %d, F %d, V %d, %s parameters", m->judge.folder,
            m->judge.adapter ? " with the adapter " : "", m->judge.adapter ? m->judge.adapter_folder : "",
            config_written(m->judge.config.names, 1), j->C, j->L, j->H, j->F, m->judge.config.V, range[0]);
        if (m->judge.types.layers != F32) print_types("judge's weights", &m->judge.types);
        if (m->judge.config.labels == 1) say("reward = the judge's logit for %s", read);
        else say("reward = logit of '%s' for %s", m->judge.config.label[m->label], read);
    }
    char targets[60];
    if (!m->adapter) say("training all weights; the reference is a frozen copy");
    else say("training a LoRA adapter (r %d, alpha %g, %s); the reference is %s", m->lora.config.R,
             (double)m->lora.config.alpha, adapter_targets(targets, sizeof targets, &m->lora.config),
             o->adapter ? "a frozen copy of the adapter it starts from" : "the policy without it");
    say_share(m, trainable, frozen + tensor_values(m->trained, m->trained_all, 0));
    say("queries of %s tokens%s, responses %s %s", from_to(range[0], o->query_min, o->query_max),
        m->bos >= 0 ? " after <s>" : "", o->response_min == o->response_max ? "of up to" : "cut after",
        from_to(range[1], o->response_min, o->response_max));
}

/* Loads all weights. keep_head 1: the value head starts as --value-init says, even if
 * a folder has a value head. */
void load_weights(Models *m, Optimizer *optimizer, Pool *pool, int keep_head) {
    const Settings *o = m->o;
    open_weights(m->policy.tensor, m->policy.tensors, o->policy, "--policy", NULL, pool);
    if (!m->adapter) model_copy(&m->frozen, &m->policy);
    else if (!o->adapter) lora_init(&m->lora, stream(o->seed, STREAM_INIT, 0, 0).state);
    else {
        open_adapter(&m->start_lora, m->policy.tensor, m->policy.tensors, o->adapter, pool);
        lora_copy(&m->lora, &m->start_lora);
    }
    if (m->values)
        value_head_init(&m->head, stream(o->seed, STREAM_INIT, 0, 1).state, o->value_init == VALUE_ZERO);
    if (m->values && !keep_head) {
        const char *from = o->adapter && open_value_head(&m->head, o->adapter, pool) ? o->adapter
                         : open_value_head(&m->head, o->policy, pool) ? o->policy : NULL;
        if (from) say("value head from %s", from);
    }
    if (!o->reward_text) judge_load(&m->judge, "--reward", pool);
    optimizer_reset(optimizer);
}
