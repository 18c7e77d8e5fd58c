/* programs/ppo_open.c - models, tokenizers and their limits: what a run opens before its first step. */
#include "ppo.h"
#include <stdio.h>

/* Dies if query and response, with the soft prompt before them, are too long for the policy. An encoder reads
 * soft prompt and query, and the decoder writes the response, each from its first position on. */
static void check_positions(const Models *m, Work *w) {
    const int read = m->text_soft + m->Q, written = m->soft + m->T, most = m->config.positions;
    const int soft = m->lora_config.prompt.rows > 0, shorter = m->o->lora.soft > 0;
    const char *what, *hint;
    if (larger(read, written) <= most) return;
    if (!m->Q) {
        what = soft ? "soft prompt, query and response are longer than the policy's positions"
                    : "query and response are longer than the policy's positions";
        hint = shorter ? "a smaller --query-max, --response-max or --prompt-tokens"
                       : "a smaller --query-max or --response-max";
    } else if (read > most) {
        what = soft ? "soft prompt and query are longer than the policy's positions"
                    : "the query is longer than the policy's positions";
        hint = shorter ? "a smaller --query-max or --prompt-tokens" : "a smaller --query-max";
    } else {
        what = "the response is longer than the policy's positions";
        hint = "a smaller --response-max";
    }
    fail(&w->err, E_RANGE, what, m->o->policy, read > most ? read : written, most);
    die(&w->err, hint);
}

/* Finds the value head to start from: the adapter's or the policy's, unless --value-init is given. Its folder
 * decides how many layers it has, a new one's --value-head. */
static void find_value_head(Models *m, Work *w, const Program *p) {
    const char *const folder[2] = { m->o->adapter, m->o->policy };
    const int asked = m->o->value_head == VALUE_MLP ? 2 : 1;
    m->head_layers = asked;
    for (int i = 0; i < 2 && !m->head_from && !cli_given(p, "value-init"); i++) {
        const int layers = folder[i] ? value_head_layers(folder[i], &w->pool) : 0;
        if (!layers) continue;
        m->head_from = folder[i];
        m->head_layers = layers;
    }
    if (m->head_layers == asked || !cli_given(p, "value-head")) return;
    fail(&w->err, E_ARGUMENT, asked == 2 ? "the value head there has one layer, and --value-head mlp has two"
         : "the value head there has two layers, and --value-head linear has one", m->head_from, 0, 0);
    die(&w->err, "leave --value-head out, or --value-init zero (or pytorch) for a new value head");
}

void prepare_policy(Models *m, Work *w, const Program *p) {
    const Settings *o = m->o;
    const char *tokenizer = o->tokenizer ? o->tokenizer : o->policy;
    int before, after;
    m->tokenizer = open_policy(&m->config, o->policy, o->tokenizer, &w->pool);
    if (o->no_special) tokenizer_split_special(m->tokenizer);
    const int whole = !trains_adapter(&o->lora) && !o->adapter;
    quant_options_types(&m->types, p, &o->quant, o->policy, whole, &w->pool);
    tokenizer_template(m->tokenizer, &before, &after);
    m->bos = before ? tokenizer_specials(m->tokenizer).bos : -1;
    m->after = -1;
    m->T = before + o->query_max + o->response_max;
    if (m->config.encoder.L) {
        m->after = after ? tokenizer_specials(m->tokenizer).eos : -1;
        m->Q = before + o->query_max + after;
        m->T = 1 + o->response_max;
    }
    m->lora_config = o->adapter ? open_adapter_config(o->adapter, 0, &w->pool)
                                : policy_adapter_options(&o->lora, &m->config, tokenizer, &w->pool);
    *(m->Q ? &m->text_soft : &m->soft) = m->lora_config.prompt.rows;
    check_positions(m, w);
    if (has_values(o) && !o->value_model) find_value_head(m, w, p);
    rows_take(&w->batch.rows, larger(o->chunk, o->mini_batch_size) * (m->soft + m->T - 1), &w->pool);
}

/* Returns the first id below V that two tokenizers have for different tokens, or -1. */
static int first_difference(const Tokenizer *a, const Tokenizer *b, int V) {
    for (int id = 0; id < V; id++) {
        size_t n = 0, other = 0;
        const char *x = tokenizer_piece(a, id, &n), *y = tokenizer_piece(b, id, &other);
        if (!x != !y || n != other || (x && memcmp(x, y, n))) return id;
    }
    return -1;
}

/* Dies if the folder of the value model has a tokenizer with other ids than the policy's. */
static void check_value_ids(const Models *m, Work *w, const char *folder) {
    static const char advice[] = "a value model that was trained with the policy's tokenizer";
    const PoolMark mark = pool_mark(&w->pool);
    if (m->value_model.config.V != m->config.V) {
        fail(&w->err, E_SHAPE, "the value model has another number of token ids than the policy", folder,
             m->value_model.config.V, m->config.V);
        die(&w->err, advice);
    }
    if (!tokenizer_exists(folder, &w->pool)) return;
    const Tokenizer *own = tokenizer_open(folder, &w->pool, &w->err);
    if (!own) die(&w->err, advice);
    const int id = first_difference(own, m->tokenizer, m->config.V);
    if (id >= 0) {
        fail(&w->err, E_ARGUMENT, "the value model's tokenizer has another token for an id than the policy's",
             folder, id, m->config.V - 1);
        die(&w->err, advice);
    }
    pool_release(&w->pool, mark);
}

void prepare_value_model(Models *m, Work *w, const Program *p) {
    const char *folder = m->o->value_model;
    ValueModel *v = &m->value_model;
    RewardConfig *c = &v->config;
    if (!folder) return;
    if (m->config.encoder.L)
        must(fail(&w->err, E_UNSUPPORTED, "a value model reads query and response as one text, and this "
                  "policy's encoder reads the query alone", m->o->policy, 0, 0), &w->err,
             "leave --value-model out");
    adapter_as_model(&folder, NULL,
                     "./run merge BASE --adapter ADAPTER --out MERGED, then --value-model MERGED", &w->pool);
    const int code = reward_config_load(c, folder, &w->pool, &w->err);
    w->err.advice = NULL;                   /* it is about judges */
    must(code, &w->err, "a policy's or judge's folder of a causal family that has judges: Llama, Mistral, "
         "Qwen2, Qwen3, GPT-2");
    if (!c->stack.causal)
        must(fail(&w->err, E_UNSUPPORTED, "a value model has to be causal: each token of this one sees the "
                  "later ones", folder, 0, 0), &w->err,
             "a causal judge with the policy's tokenizer, or the policy's own folder");
    check_value_ids(m, w, folder);
    if (m->T - 1 > reward_max_tokens(c))
        must(fail(&w->err, E_RANGE, "query and response are longer than the value model's positions", folder,
                  m->T - 1, reward_max_tokens(c)), &w->err, "a smaller --query-max or --response-max");
    const size_t texts = (size_t)larger(m->o->chunk, m->o->mini_batch_size);
    w->batch.start = pool_need(&w->pool, texts + 1, sizeof(int), "the value model's texts");
    w->batch.want = pool_need(&w->pool, texts * (size_t)m->o->response_max, sizeof(int), "their rows");
    v->new_head = c->labels != 1 || cli_given(p, "value-init") ||
                  !checkpoint_rows(folder, "model", c->names->part[NAME_HEAD], &w->pool);
    if (!v->new_head) return;
    c->labels = 1;
    c->problem = PROBLEM_UNSAID;
    strcpy(c->label[0], "value");
}

/* Returns the label that --label gives to judge k: if there are several and it names as many, with commas,
 * the k-th, else all of it. NULL: none is given. */
static const char *label_of(const Settings *o, int k, Pool *pool) {
    int names = 1;
    const char *at = o->label;
    for (const char *c = at; c && *c; c++) names += *c == ',';
    if (!at || o->judges < 2 || names != o->judges) return at;
    for (; k > 0; k--) at = strchr(at, ',') + 1;
    const size_t n = strcspn(at, ",");
    char *name = pool_need(pool, n + 1, 1, "a label");
    memcpy(name, at, n);
    name[n] = 0;
    return name;
}

static void prepare_judge(Models *m, Scorer *s, int k, Work *w, const Program *p) {
    const Settings *o = m->o;
    const QuantOptions held = { o->reward_nf4, 0, 64, 0, o->quant.compute, 0 };
    Judge *j = &s->judge;
    s->weight = o->judge_weight[k];
    judge_find(j, o->judge[k], o->reward_adapter, &w->pool);
    judge_tokenizer(j, &w->pool);
    if (o->no_special) tokenizer_split_special(j->tokenizer);
    judge_options_types(&j->types, p, &held, &j->config, j->folder, 0, &w->pool);
    s->label = label_need(&j->config, label_of(o, k, &w->pool), "--label");
    if (!m->toxicity && j->config.labels > 1 && (s->label == label_find(&j->config, "nothate")
                                                 || s->label == label_find(&j->config, "non-toxic")))
        m->toxicity = s;
    tokenizer_template(j->tokenizer, &s->adds_bos, &s->adds_eos);
    const int empty = empty_text_id(j->tokenizer);
    if (!s->adds_bos && !s->adds_eos && (empty < 0 || empty >= j->config.V)) {
        fail(&w->err, E_MISSING, "an empty text would have no token for the judge: its tokenizer has no "
             "template, no bos and no eos", o->judge[k], 0, 0);
        die(&w->err, "a tokenizer_config.json there that names a bos_token or an eos_token");
    }
    s->most = judge_limit(&j->config, j->tokenizer) - s->adds_bos - s->adds_eos;
    w->judge.room = larger(w->judge.room, larger(reward_max_tokens(&j->config), 1024 + o->chunk));
}

void prepare_judges(Models *m, Work *w, const Program *p) {
    const Settings *o = m->o;
    for (m->scorers = 0; m->scorers < o->judges; m->scorers++)
        prepare_judge(m, &m->scorer[m->scorers], m->scorers, w, p);
    w->judge.token = pool_need(&w->pool, (size_t)w->judge.room, sizeof(int), "the judge's texts");
    w->judge.start = pool_need(&w->pool, (size_t)o->chunk + 1, sizeof(int), "the judge's texts");
}

/* Cuts 32 texts of --response-max tokens of the policy from the training documents, which follow one another.
 * Returns how many of the judge's tokens the longest of these texts has. */
static int longest_response(const Models *m, const Scorer *s, Work *w, const Queue *q) {
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
            must(tokenizer_encode(s->judge.tokenizer, text, bytes, &w->pool, &read, &judged), NULL, NULL);
            longest = larger(longest, judged);
        }
        pool_release(&w->pool, text_mark);
    }
    pool_release(&w->pool, mark);
    return longest;
}

/* Dies if a judge cannot read texts that are as long as responses can be, unless --long-response is cut.
 * Responses of other texts may still be too long: those are cut, and counted in the log. */
void check_responses(const Models *m, Work *w, const Queue *q) {
    const Settings *o = m->o;
    char hint[120];
    for (int k = 0; k < m->scorers && o->long_response != LONG_CUT; k++) {
        const int longest = longest_response(m, &m->scorer[k], w, q), most = m->scorer[k].most;
        if (longest <= most) continue;
        snprintf(hint, sizeof hint, "--response-max %d, or --long-response cut: then the judge reads their "
                 "ends", larger(1, (int)((double)o->response_max * most / longest)));
        fail(&w->err, E_RANGE, "responses of --response-max tokens have more of the judge's tokens than it "
             "reads", o->judge[k], longest, most);
        die(&w->err, hint);
    }
}

/* Prints a judge and what its score counts. */
static void say_judge(const Models *m, const Scorer *s) {
    const Judge *j = &s->judge;
    const StackKind *c = &j->config.stack;
    const char *read = m->o->score == SCORE_BOTH ? "query + response" : "the response alone";
    char number[32], times[40] = "";
    with_commas(number, tensor_values(j->model.tensor, j->model.tensors, 0));
    say("judge %s%s%s: %s, C %d, L %d, H %d, F %d, V %d, %s parameters", j->folder,
        j->adapter ? " with the adapter " : "", j->adapter ? j->adapter_folder : "",
        config_written(j->config.names, 1), c->C, c->L, c->H, c->F, j->config.V, number);
    if (j->types.layers != F32) print_types("judge's weights", &j->types);
    if (m->scorers > 1) snprintf(times, sizeof times, "%s%g x ", s == m->scorer ? "" : "... + ", s->weight);
    if (j->config.labels == 1)
        say("reward = %s%s logit for %s", times, *times ? "this judge's" : "the judge's", read);
    else say("reward = %slogit of '%s' for %s", times, j->config.label[s->label], read);
}

static void say_value_model(const Models *m) {
    const ValueModel *v = &m->value_model;
    const StackKind *c = &v->config.stack;
    char number[32];
    say("value model %s: %s, C %d, L %d, H %d, F %d, V %d, %s parameters; %s", m->o->value_model,
        config_written(v->config.names, 1), c->C, c->L, c->H, c->F, v->config.V,
        with_commas(number, tensor_values(v->model.tensor, v->model.tensors, 0)),
        v->new_head ? "a new head" : "its own head");
}

/* Prints the share of trained parameters: for a policy with an encoder and a value head, as the DialogSum lab
 * prints it. */
static void say_share(const Models *m, size_t trained, size_t all) {
    if (!m->config.encoder.L || !m->values) { print_trainable(trained, all); return; }
    say("PPO model parameters to be updated (ValueHead + %llu params):",
        (unsigned long long)tensor_values(m->head.tensor, m->head.tensors, 0));
    say("trainable model parameters: %llu", (unsigned long long)trained);
    say("all model parameters: %llu", (unsigned long long)all);
    say("percentage of trainable model parameters: %.2f%%", all ? 100.0 * (double)trained / (double)all : 0);
}

/* Prints the models, the reward and the share of trained parameters. */
void say_what(const Models *m, const Work *w, const Queue *training, const char *data) {
    const Settings *o = m->o;
    const StackKind *c = &m->config.stack;
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
    if (o->reward_command) say("reward = what this command writes: %s", o->reward_command);
    for (int k = 0; k < m->scorers; k++) say_judge(m, &m->scorer[k]);
    char words[200];
    if (!m->adapter) say("training all weights; the reference is a frozen copy");
    else say("training %s; the reference is %s", adapter_words(words, &m->lora.config),
             o->adapter ? "a frozen copy of the adapter it starts from" : "the policy without it");
    if (o->value_model) say_value_model(m);
    if (m->values && m->head_layers == 2) say("value head of two layers, %d numbers between them", 2 * c->C);
    say_share(m, trainable, frozen + tensor_values(m->trained, m->trained_all, 0));
    from_to(range[0], o->query_min, o->query_max);
    if (w->data.kind == DATA_PROMPTS) snprintf(range[0], sizeof range[0], "up to %d", o->query_max);
    say("queries of %s tokens%s, responses %s %s", range[0],
        m->bos >= 0 ? " after <s>" : "", o->response_min == o->response_max ? "of up to" : "cut after",
        from_to(range[1], o->response_min, o->response_max));
}

/* Loads the value model; a new head starts as --value-init says. */
static void load_value_model(ValueModel *v, const Settings *o, Pool *pool) {
    const Tensor *list = v->model.tensor;
    const Matrix *head = &v->model.out;
    Rng r = stream(o->seed, STREAM_INIT, 0, 1);
    int n = v->model.tensors;
    for (int i = 0; v->new_head && i < n; i++) if (list[i].flags & TENSOR_HEAD) n = i;
    if (v->new_head) tensor_uniform(head, o->value_init == VALUE_ZERO ? 0 : 1 / sqrtf((float)head->I), &r);
    open_weights(list, n, o->value_model, "--value-model", NULL, pool);
}

void load_weights(Models *m, Optimizer *optimizer, Pool *pool) {
    const Settings *o = m->o;
    open_weights(m->policy.tensor, m->policy.tensors, o->policy, "--policy", NULL, pool);
    if (!m->adapter) model_copy(&m->frozen, &m->policy);
    else if (!o->adapter)
        adapter_start(&m->lora, &o->lora, &m->policy, m->tokenizer, stream(o->seed, STREAM_INIT, 0, 0).state,
                      pool);
    else {
        open_adapter(&m->start_lora, m->policy.tensor, m->policy.tensors, o->adapter, pool);
        lora_copy(&m->lora, &m->start_lora);
    }
    if (m->values)
        value_head_init(&m->head, stream(o->seed, STREAM_INIT, 0, 1).state, o->value_init == VALUE_ZERO);
    if (m->values && m->head_from) {
        open_value_head(&m->head, m->head_from, pool);
        say("value head from %s", m->head_from);
    }
    if (o->value_model) load_value_model(&m->value_model, o, pool);
    for (int k = 0; k < m->scorers; k++) judge_load(&m->scorer[k].judge, "--reward", pool);
    optimizer_reset(optimizer);
}
