/* train.c - code that the trainers sft, rm and ppo share (level 7): options, opening a model, schedules, the
 * rows of a forward, the memory bill, saving, and the end of a run. The comments of the public functions are
 * in programs.h.
 *
 * Needs    cli.c for messages and memory; checkpoint.c and files/ for folders.
 * Never    continues after an error: it prints a message and exits. */
#include "programs.h"
#include <float.h>
#include <stdio.h>

void *pool_need(Pool *pool, size_t count, size_t size, const char *what) {
    Error err = { 0 };
    void *p = pool_take(pool, count, size);
    if (!p) must(fail(&err, E_MEMORY, "out of memory", what, 0, 0), &err, NULL);
    return p;
}

/* Returns C99's FLT_EVAL_METHOD, which is not 0 if floats are evaluated with more digits than they hold. */
static int float_method(void) {
#ifdef FLT_EVAL_METHOD
    return (int)FLT_EVAL_METHOD;
#else                                       /* tcc's float.h does not have it */
    volatile float one = 1, tiny = 1e-8f;
    return one + tiny > one ? 2 : 0;
#endif
}

void say_digits(void) {
    if (float_method() != 0)
        say("this build computes with more digits than a float holds (FLT_EVAL_METHOD %d): other builds give "
            "other last digits", float_method());
}

void print_trainable(size_t trained, size_t all) {
    char number[2][32];
    say("trainable params: %s || all params: %s || trainable%%: %.4f", with_commas(number[0], trained),
        with_commas(number[1], all), all ? 100.0 * (double)trained / (double)all : 0);
}

/* ---- how weights are held ---- */

void quant_options_check(const Program *p, const QuantOptions *q, int *rank, const char **targets,
                         int adapter) {
    const int four = q->nf4 || q->fp4;
    if (q->nf4 && q->fp4) usage_error("one of the two, not both", "--nf4, --fp4");
    if (q->block & (q->block - 1)) usage_error("not a power of two", "--quant-block");
    if (!four || !rank || adapter) return;
    if (!cli_given(p, "lora-r")) {
        *rank = 16;
        if (!cli_given(p, "lora-targets")) *targets = "all-linear";
    }
    if (!*rank) usage_error("4-bit weights are frozen; what is trained is an adapter", "--lora-r 16");
}

/* Changes *w, the types that a folder has, to the 4 bits that the options ask for, or to F32 if all weights
 * are trained. Dies if the weights are in 4 bits already. */
static void types_wanted(WeightTypes *w, const Program *p, const QuantOptions *q, const char *folder,
                         int whole) {
    const int four = q->nf4 || q->fp4;
    Error err = { 0 };
    if (four && w->layers == NF4) {
        fail(&err, E_ARGUMENT, "the weights are 4-bit already", folder, 0, 0);
        die(&err, "leave --nf4 and --fp4 out");
    }
    if (four) {
        w->layers = NF4;
        w->kind = q->nf4 ? QUANT_NF4 : QUANT_FP4;
        w->block = q->block;
        w->doubled = q->doubled;
    }
    /* 4-bit weights of a folder keep their own compute type unless --compute is given */
    if (w->layers != NF4 || four || cli_given(p, "compute")) w->compute = q->compute;
    if (w->layers == NF4 && whole) {
        fail(&err, E_ARGUMENT, "the weights are 4-bit, and so cannot be trained themselves", folder, 0, 0);
        die(&err, "an adapter is trained instead: --lora-r 16 --lora-targets all-linear");
    }
    if (whole) w->layers = w->tables = F32;
}

void quant_options_types(WeightTypes *w, const Program *p, const QuantOptions *q, const char *folder,
                         int whole, Pool *pool) {
    Error err = { 0 };
    ModelConfig c;
    must(config_load(&c, folder, pool, &err), &err, NULL);
    must(folder_types(w, folder, c.names, pool, &err), &err, NULL);
    types_wanted(w, p, q, folder, whole);
}

void judge_options_types(WeightTypes *w, const Program *p, const QuantOptions *q, const RewardConfig *c,
                         const char *folder, int whole, Pool *pool) {
    Error err = { 0 };
    must(folder_types(w, folder, c->names, pool, &err), &err, NULL);
    w->compute = F32;                       /* only --compute changes a judge's compute type */
    types_wanted(w, p, q, folder, whole);
}

void print_types(const char *whose, const WeightTypes *w) {
    static const char *const type[] = { "float32", "bfloat16", "float16" };
    char linears[80], file[80] = "";
    int kept = 0;
    for (const KeptLinear *k = w->layers == NF4 ? w->kept : NULL; k && k->name[0]; k++) kept++;
    if (kept) snprintf(file, sizeof file, " (%d as the file has them: %s)", kept, type[w->kept->type]);
    if (w->layers == NF4)
        snprintf(linears, sizeof linears, "%s, blocks of %d%s", w->kind == QUANT_NF4 ? "NF4" : "FP4",
                 w->block, w->doubled ? ", doubly quantised" : "");
    else snprintf(linears, sizeof linears, "%s", type[w->layers]);
    say("%s: linears %s%s, compute %s; embedding and head %s", whose, linears, file, type[w->compute],
        type[w->tables]);
}

/* Appends the last part of a module's name (n bytes) to a list of cap bytes, unless it is there already. The
 * list ends with "..." if there is no room. */
static void add_module(char *list, size_t cap, const char *name, size_t n) {
    const size_t used = strlen(list);
    size_t from = n, m;
    while (from > 0 && name[from - 1] != '.') from--;
    name += from;
    n -= from;
    for (const char *at = list; *at; at += m + (at[m] != 0)) {
        m = strcspn(at, ",");
        if (m == n && memcmp(at, name, n) == 0) return;
    }
    if (used + n + 5 < cap) snprintf(list + used, cap - used, "%s%.*s", used ? "," : "", (int)n, name);
    else if (used + 4 < cap) snprintf(list + used, cap - used, "...");
}

const char *adapter_targets(char *out, size_t cap, const LoraConfig *c) {
    out[0] = 0;
    if (c->targets_regex) { snprintf(out, cap, "%s", c->targets); return out; }
    for (const char *name = c->targets, *end; *name; name = *end ? end + 1 : end) {
        end = name + strcspn(name, ", ");
        if (end > name) add_module(out, cap, name, (size_t)(end - name));
    }
    return out;
}

LoraConfig adapter_options(const LoraOptions *o, const Names *names, Pool *pool) {
    static const int usual[] = { NAME_QKV, NAME_Q, NAME_V };
    char list[96] = "";
    const char *targets = o->targets;
    for (int i = 0; i < 3 && !targets; i++) {
        const char *name = names->part[usual[i]];
        if (name) add_module(list, sizeof list, name, (size_t)(strrchr(name, '.') - name));
        if (name && i == 0) break;
    }
    if (!targets) targets = pool_text(pool, list, strlen(list));
    must(targets ? OK : E_MEMORY, NULL, NULL);
    LoraConfig c = lora_config(o->rank, (float)o->alpha, targets);
    c.rslora = o->rslora;
    c.dropout = (float)o->dropout;
    return c;
}

int trains_adapter(const LoraOptions *o) { return o->rank > 0 || o->soft > 0; }

LoraConfig policy_adapter_options(const LoraOptions *o, const ModelConfig *m, const char *tokenizer,
                                  Pool *pool) {
    LoraConfig c = adapter_options(o, m->names, pool);
    const PromptConfig soft = { o->soft, o->soft, m->stack.C, m->stack.H,
                                m->encoder.L ? m->encoder.L : m->stack.L,
                                o->soft_text ? PROMPT_TEXT : o->soft_init, o->soft_text,
                                o->soft_text ? tokenizer : NULL };
    if (m->encoder.L) c.task = "SEQ_2_SEQ_LM";
    if (o->soft) c.prompt = soft;
    return c;
}

/* Returns the ids of a text, with those that the tokenizer's template puts around it: peft, too, cuts the
 * text of a soft prompt so. */
static int *prompt_ids(const Tokenizer *t, const char *text, int V, int *count, Pool *pool) {
    const SpecialIds special = tokenizer_specials(t);
    int before, after, *ids, n;
    must(tokenizer_encode(t, text, strlen(text), pool, &ids, &n), NULL, NULL);
    tokenizer_template(t, &before, &after);
    int *all = pool_need(pool, (size_t)n + 2, sizeof *all, "the soft prompt's text");
    *count = 0;
    if (before) all[(*count)++] = special.bos;
    memcpy(all + *count, ids, (size_t)n * sizeof *ids);
    *count += n;
    if (after) all[(*count)++] = special.eos;
    need_rows(t, all, *count, V, "policy");
    if (!*count) usage_error("a text without a token", "--prompt-init-text");
    return all;
}

void adapter_start(Lora *l, const LoraOptions *o, const Model *m, const Tokenizer *t, uint64_t seed,
                   Pool *pool) {
    const PoolMark mark = pool_mark(pool);
    int n = 0, *ids = NULL;
    if (o->soft && o->soft_text) ids = prompt_ids(t, o->soft_text, m->config.V, &n, pool);
    lora_init(l, seed);
    lora_prompt_init(l, &m->embedding, ids, n, seed);
    pool_release(pool, mark);
}

const char *adapter_words(char out[200], const LoraConfig *c) {
    char targets[60];
    size_t used;
    out[0] = 0;
    if (c->R) snprintf(out, 200, "a LoRA adapter (r %d, alpha %g, %s)", c->R, (double)c->alpha,
                       adapter_targets(targets, sizeof targets, c));
    used = strlen(out);
    if (c->prompt.rows) snprintf(out + used, 200 - used, "%sa soft prompt of %d rows", c->R ? " and " : "",
                                 c->prompt.rows);
    return out;
}

void adapter_carve(Lora *l, const LoraConfig *c, const Tensor *base, int tensors, int trainable, Pool *lists,
                   Arena *a) {
    Error err = { 0 };
    const LoraConfig all = lora_config(1, 1, "all-linear");
    Arena measure = { NULL, 0, 0, 0, 0 };
    char hint[200], names[160];
    Lora every;
    if (lora_carve(l, base, tensors, c, trainable, lists, a, &err) == OK) return;
    memset(&every, 0, sizeof every);
    lora_carve(&every, base, tensors, &all, 0, lists, &measure, NULL);
    snprintf(hint, sizeof hint, "--lora-targets %s", adapter_targets(names, sizeof names, &every.config));
    die(&err, c->peft || !c->R ? "an adapter of this model" : hint);
}

void weights_merge(const Tensor *to, const Tensor *from, int tensors, const Lora *adapter, Arena *ws) {
    for (int i = 0; i < tensors; i++) {
        const Matrix *w = from[i].matrix, *x = to[i].matrix;
        if (from[i].flags & TENSOR_TIED) continue;
        if (ws->base) tensor_read(x->data, w, 0, (size_t)w->O * (size_t)w->I);
        lora_merge(adapter, x, ws);
    }
}

/* ---- opening a folder ---- */

/* Opens a tokenizer for a model of V ids (0: there is no model yet). whose: "policy" or "judge". */
static Tokenizer *tokenizer_for(const char *path, int V, const char *whose, const char *hint, Pool *pool) {
    Error err = { 0 };
    Tokenizer *t = tokenizer_open(path, pool, &err);
    if (!t) die(&err, hint);
    if (V) check_rows(t, V, whose);
    return t;
}

void open_config(ModelConfig *c, const char *folder, const char *hint, Pool *pool) {
    Error err = { 0 };
    int untied;
    must(config_load(c, folder, pool, &err), &err, hint);
    must(checkpoint_untie(c, &untied, folder, pool, &err), &err, NULL);
    if (!untied) return;
    fflush(stdout);
    say_error("%s: config.json ties the head to the embedding, but the weights have a head of other "
              "values: both are kept (as by transformers 5)", folder);
}

Tokenizer *open_policy(ModelConfig *c, const char *folder, const char *tokenizer, Pool *pool) {
    static const char hint[] =
        "--tokenizer takes a tokenizer.json, a tokenizer.model, or a folder with one of them or with "
        "vocab.json and merges.txt";
    static const char place[] = "--policy FOLDER, a Hugging Face folder of a language model on this disk: no "
                                "program here downloads one";
    if (folder) open_config(c, folder, place, pool);
    Tokenizer *t = tokenizer_for(tokenizer ? tokenizer : folder, folder ? c->V : 0, "policy", hint, pool);
    if (folder) report_padding(c->V, t);
    return t;
}

Tokenizer *open_judge(RewardConfig *c, const char *folder, const char *tokenizer, Pool *pool) {
    Error err = { 0 };
    adapter_as_model(&folder, NULL,
                     "./run merge BASE --adapter ADAPTER --out MERGED, then --reward MERGED", pool);
    int code = folder ? reward_config_load(c, folder, pool, &err) : OK;
    must(code, &err, "--reward FOLDER, a Hugging Face folder of a classifier of texts");
    return tokenizer_for(tokenizer ? tokenizer : folder, folder ? c->V : 0, "judge",
                         "--tokenizer FOLDER, as `prep tokenizer` makes one", pool);
}

/* Dies if a weight that was read from the folder is not a number. */
static void need_numbers(const Tensor *list, int tensors, const char *folder, const char *hint) {
    const Tensor *bad = tensor_not_numbers(list, tensors, F32);
    char what[160];
    Error err = { 0 };
    if (!bad) return;
    snprintf(what, sizeof what, "tensor %s has a NaN or an infinity", bad->name);
    fail(&err, E_NUMBER, what, folder, 0, 0);
    die(&err, hint);
}

void open_weights(const Tensor *list, int tensors, const char *folder, const char *option, const char *hint,
                  Pool *pool) {
    Error err = { 0 };
    char other[80];
    PoolMark mark = pool_mark(pool);
    must(checkpoint_load(folder, "model", list, tensors, pool, &err), &err, hint);
    pool_release(pool, mark);
    snprintf(other, sizeof other, "another %s: this one is damaged", option);
    need_numbers(list, tensors, folder, other);
}

LoraConfig open_adapter_config(const char *folder, int judge, Pool *pool) {
    LoraConfig c = { 0 };
    Error err = { 0 };
    must(adapter_config_load(&c, folder, pool, &err), &err, "--adapter RUN, a PEFT adapter's folder");
    if (judge && c.prompt.rows) {
        fail(&err, E_UNSUPPORTED, "a soft prompt of a judge", folder, 0, 0);
        die(&err, "a judge's LoRA adapter, of task_type SEQ_CLS, as rm --lora-r writes it");
    }
    if (!c.task || (strcmp(c.task, "SEQ_CLS") == 0) == judge) return c;
    fail(&err, E_UNSUPPORTED, judge ? "not a judge's adapter: task_type"
                                    : "not a policy's adapter: task_type", c.task, 0, 0);
    die(&err, judge ? "a judge's adapter, of task_type SEQ_CLS, as rm --lora-r writes it"
                    : "a policy's adapter, of task_type CAUSAL_LM or SEQ_2_SEQ_LM");
    return c;
}

/* Returns 1 if the folder is a soft prompt of peft's. */
static int is_soft_prompt(const char *folder, Pool *pool) {
    LoraConfig c = { 0 };
    return adapter_config_load(&c, folder, pool, NULL) == OK && c.prompt.rows;
}

void adapter_as_model(const char **model, const char **adapter, const char *advice, Pool *pool) {
    Error err = { 0 };
    const char *base = NULL;
    if (!*model) return;
    if (!adapter && is_soft_prompt(*model, pool))
        advice = "the model that it was made for: a soft prompt cannot be merged, and only ppo --adapter "
                 "trains it further";
    must(adapter_base(&base, *model, pool, &err), &err, advice);
    if (!base) return;
    if (!adapter || *adapter)
        must(fail(&err, E_ARGUMENT, "this is an adapter, not a model", *model, 0, 0), &err, advice);
    fflush(stdout);
    say_error("%s is an adapter; the model that it adapts: %s", *model, base);
    *adapter = *model;
    *model = base;
}

void open_adapter(Lora *l, const Tensor *base, int tensors, const char *folder, Pool *pool) {
    Error err = { 0 };
    Arena ws = { NULL, 0, 0, 0, 0 };
    PoolMark mark = pool_mark(pool);
    must(adapter_load(l, base, tensors, folder, pool, &err), &err,
         "was this adapter trained on another model?");
    pool_release(pool, mark);
    need_numbers(l->tensor, l->tensors, folder, "another adapter: this one is damaged");
    need_numbers(base, tensors, folder, "another adapter: this one is damaged");
    lora_norms(l, base, &ws);
    if (!ws.peak) return;
    ws = cli_arena(ws.peak, "work space");
    lora_norms(l, base, &ws);
}

/* ---- judges ---- */

/* Gives a judge as many labels as its adapter's head has rows. Those of another number than the base's have
 * the names that transformers gives them. */
static void adapter_labels(RewardConfig *c, const char *adapter, Pool *pool) {
    const size_t rows = checkpoint_rows(adapter, "adapter_model", c->names->part[NAME_HEAD], pool);
    if (!rows || rows == (size_t)c->labels) return;
    c->labels = rows > LABELS_MAX ? LABELS_MAX + 1 : (int)rows;         /* more are refused later */
    for (int i = 0; i < c->labels && i < LABELS_MAX; i++)
        name_format(c->label[i], sizeof c->label[i], "LABEL_%d", i);
}

/* Changes the configuration of a judge's base to what its adapter makes of it. */
static void adapter_config(RewardConfig *c, const char *folder, const char *adapter, Pool *pool) {
    const RewardConfig base = *c;
    Error err = { 0 };
    const int code = reward_config_load(c, adapter, pool, &err);
    if (code == E_MISSING) {
        *c = base;
        adapter_labels(c, adapter, pool);
        return;
    }
    must(code, &err, NULL);
    if (c->names == base.names && c->stack.C == base.stack.C && c->stack.L == base.stack.L) return;
    memset(&err, 0, sizeof err);
    fail(&err, E_SHAPE, "the adapter's config.json is that of another model", folder, 0, 0);
    die(&err, "the model that the adapter was trained on: adapter_config.json has its name as "
              "base_model_name_or_path");
}

void judge_find(Judge *j, const char *folder, const char *adapter, Pool *pool) {
    Error err = { 0 };
    memset(j, 0, sizeof *j);
    adapter_as_model(&folder, &adapter, "the folder of the judge that it adapts, and the adapter by its own "
                     "option", pool);
    j->folder = folder;
    j->adapter_folder = adapter;
    if (adapter) j->lora.config = open_adapter_config(adapter, 1, pool);
    must(reward_config_load(&j->config, folder, pool, &err), &err,
         "a Hugging Face folder of a classifier of texts");
    if (adapter) adapter_config(&j->config, folder, adapter, pool);
}

void judge_tokenizer(Judge *j, Pool *pool) {
    const char *folder = j->adapter_folder && tokenizer_exists(j->adapter_folder, pool) ? j->adapter_folder
                                                                                        : j->folder;
    j->tokenizer = tokenizer_for(folder, j->config.V, "judge", "a folder with the judge's tokenizer", pool);
}

void judge_carve(Judge *j, Pool *lists, Arena *a) {
    Error err = { 0 };
    must(reward_carve(&j->model, &j->config, &j->types, 0, lists, a, &err), &err, NULL);
    j->adapter = j->adapter_folder ? &j->lora : NULL;
    if (j->adapter) adapter_carve(&j->lora, &j->lora.config, j->model.tensor, j->model.tensors, 0, lists, a);
}

void judge_load(Judge *j, const char *option, Pool *pool) {
    const Tensor *base = j->model.tensor;
    const int all = j->model.tensors;
    Tensor *list = pool_need(pool, (size_t)all, sizeof *list, "tensors");
    int n = 0;
    /* a base that is no judge lacks the head, which the adapter has */
    for (int i = 0; i < all; i++)
        if (!j->adapter || !(base[i].flags & TENSOR_HEAD) || !j->lora.pair[i].saved.O) list[n++] = base[i];
    open_weights(list, n, j->folder, option, NULL, pool);
    if (j->adapter) open_adapter(&j->lora, base, all, j->adapter_folder, pool);
}

/* ---- value heads ---- */

/* Returns the path of the folder's file for the value head alone; NULL: there is none. */
static const char *value_file(const char *folder, Pool *pool) {
    static const char name[] = "/value_head.safetensors";
    char *path = pool_need(pool, strlen(folder) + sizeof name, 1, "a path");
    strcat(strcpy(path, folder), name);
    return file_exists(path) ? path : NULL;
}

/* Returns how many layers the value head in the folder's files STEM has; 0: there is none. */
static int layers_in(const char *folder, const char *stem, Pool *pool) {
    const PoolMark mark = pool_mark(pool);
    const int two = checkpoint_rows(folder, stem, "v_head.0.weight", pool) > 0;
    const int one = !two && checkpoint_rows(folder, stem, "v_head.summary.weight", pool) > 0;
    pool_release(pool, mark);
    return two ? 2 : one;
}

int value_head_layers(const char *folder, Pool *pool) {
    if (!value_file(folder, pool)) return layers_in(folder, "model", pool);
    return layers_in(folder, "value_head", pool) == 2 ? 2 : 1;          /* loading says what is wrong */
}

void say_value_head(const char *folder, Pool *pool) {
    if (!layers_in(folder, "model", pool)) return;
    fflush(stdout);
    say_error("%s: the weights have a value head (v_head), which only ppo uses: left out", folder);
}

void open_value_head(const ValueHead *h, const char *folder, Pool *pool) {
    Error err = { 0 };
    const PoolMark mark = pool_mark(pool);
    static const char hint[] = "--value-init zero starts with a new value head";
    const char *file = value_file(folder, pool);
    const int code = file
                     ? checkpoint_load(folder, "value_head", h->tensor, h->tensors, pool, &err)
                     : checkpoint_load_part(folder, "model", h->tensor, h->tensors, pool, &err);
    must(code, &err, hint);
    need_numbers(h->tensor, h->tensors, file ? file : folder, hint);
    pool_release(pool, mark);
}

/* Returns 1 if two words are equal, ignoring the case of ASCII letters. */
static int same_word(const char *a, const char *b) {
    for (; *a && *b; a++, b++) {
        const int x = *a >= 'A' && *a <= 'Z' ? *a + 32 : *a, y = *b >= 'A' && *b <= 'Z' ? *b + 32 : *b;
        if (x != y) return 0;
    }
    return *a == *b;
}

int label_find(const RewardConfig *c, const char *wanted) {
    static const char *const good[] = { "positive", "pos", "nothate", "non-toxic" };
    int found = -1, matches = 0;
    if (!wanted && c->labels == 1) return 0;
    for (int i = 0; i < c->labels; i++) {
        int match = wanted && same_word(c->label[i], wanted);
        for (size_t k = 0; !wanted && k < sizeof good / sizeof *good; k++)
            match = match || same_word(c->label[i], good[k]);
        if (match) { found = i; matches++; }
    }
    return matches == 1 ? found : -1;
}

void label_names(const RewardConfig *c, char *out, size_t cap) {
    size_t used = 0;
    if (cap) out[0] = 0;
    for (int i = 0; i < c->labels && used < cap; i++) {
        snprintf(out + used, cap - used, "%s%s", i ? ", " : "", c->label[i]);
        used = strlen(out);
        if (used + 1 >= cap) return;        /* full */
    }
}

int label_need(const RewardConfig *c, const char *wanted, const char *option) {
    const int found = label_find(c, wanted);
    char names[256], hint[448];
    Error err = { 0 };
    if (found >= 0) return found;
    label_names(c, names, sizeof names);
    const char *own = strcmp(c->label[0], "LABEL_0") ? "" : " (config.json names none). A language model is no "
                      "judge: rm --reward FOLDER --new-head makes one";
    snprintf(hint, sizeof hint, "%s NAME, with one of these: %s%s", option, names, own);
    fail(&err, E_ARGUMENT, wanted ? "there is no such label" : "which of the judge's labels is the reward?",
         wanted ? wanted : names, 0, 0);
    die(&err, hint);
    return -1;
}

int judge_limit(const RewardConfig *c, const Tokenizer *t) {
    const int most = reward_max_tokens(c), own = tokenizer_max_length(t);
    return own > 2 && own < most ? own : most;
}

const char resized_model[] =
    "a model whose embedding was resized for this token, or the model's own tokenizer";

int first_beyond(const int *ids, int count, int V) {
    int i = 0;
    while (i < count && ids[i] < V) i++;
    return i < count ? i : -1;
}

void need_rows(const Tokenizer *t, const int *ids, int count, int V, const char *whose) {
    const int i = first_beyond(ids, count, V);
    Error err = { 0 };
    char what[80];
    if (i < 0) return;
    snprintf(what, sizeof what, "the %s has no embedding for a token of a text", whose);
    fail(&err, E_RANGE, what, tokenizer_piece(t, ids[i], NULL), ids[i], V - 1);
    die(&err, resized_model);
}

void check_rows(const Tokenizer *t, int V, const char *whose) {
    const SpecialIds special = tokenizer_specials(t);
    int before, after;
    if (tokenizer_size(t) <= V) return;
    tokenizer_template(t, &before, &after);
    need_rows(t, &special.bos, before, V, whose);
    need_rows(t, &special.eos, after, V, whose);
    fflush(stdout);
    say_error("the tokenizer has %d ids, the %s %d: a text that needs one of the others is refused",
              tokenizer_size(t), whose, V);
}

int empty_text_id(const Tokenizer *t) {
    const SpecialIds special = tokenizer_specials(t);
    return special.bos >= 0 ? special.bos : special.eos;
}

void report_padding(int V, const Tokenizer *t) {
    const int known = tokenizer_size(t);
    if (known >= V) return;
    fflush(stdout);
    say_error("the policy has %d ids, its tokenizer %d: the others are written as nothing", V, known);
}

/* Returns 1 if a terminal should not get this code point. */
static int hidden_code(int32_t code, int breaks) {
    const int control = code < 32 || (code >= 127 && code < 0xA0) || (code >= 0x2028 && code <= 0x202E);
    return control && !(breaks && (code == '\n' || code == '\t'));
}

void buffer_visible(Buffer *b, const char *s, size_t n, int breaks) {
    for (size_t i = 0, length; i < n; i += length) {
        int32_t code;
        char byte[8];
        length = (size_t)utf8_decode(s + i, n - i, &code);
        if (!hidden_code(code, breaks)) { buffer_bytes(b, s + i, length); continue; }
        for (size_t k = 0; k < length; k++) {
            snprintf(byte, sizeof byte, "\\x%02X", (unsigned)(unsigned char)s[i + k]);
            buffer_text(b, byte);
        }
    }
}

void print_visible(const char *s, size_t n, int breaks) {
    Pool pool = cli_pool();
    Buffer b = { .pool = &pool };
    buffer_visible(&b, s, n, breaks);
    if (b.length) fwrite(b.data, 1, b.length, stdout);
    pool_free(&pool);
}

const ChatTemplate *chat_template(int kind) {
    static const ChatTemplate known[] = {
        { NULL, "", "", NULL },
        { "<|im_start|>", "", "\n", "<|im_end|>" },
        { NULL, "<|", "|>\n", "</s>" },
    };
    return &known[kind];
}

/* ---- schedules ---- */

double learning_rate(int schedule, double rate, double warmup, int step, int steps) {
    const double pi = 3.14159265358979323846, warm = floor(warmup * steps + 0.5);
    const int up = (int)(warmup * steps);
    switch (schedule) {
    case SCHEDULE_LINEAR: return rate * (1 - (double)(step - 1) / steps);
    case SCHEDULE_TRIANGLE:
        return step <= up ? rate * step / (up + 1) : rate * (steps - step + 1) / (steps - up);
    case SCHEDULE_COSINE:
        if (step <= warm) return rate * step / warm;
        return rate * (0.1 + 0.45 * (1 + cos(pi * (steps > warm ? (step - warm) / (steps - warm) : 1))));
    default: return rate;
    }
}

/* ---- rows ---- */

void rows_take(RowList *r, int rows, Pool *pool) {
    const size_t n = (size_t)rows;
    r->token = pool_need(pool, n, sizeof(int), "rows");
    r->sequence = pool_need(pool, n, sizeof(int), "rows");
    r->position = pool_need(pool, n, sizeof(int), "rows");
    r->target = pool_need(pool, n, sizeof(int), "rows");
    r->wants = pool_need(pool, n, 1, "rows");
    r->N = r->W = 0;
}

int prompt_rows(int *token, int soft) {
    for (int i = 0; i < soft; i++) token[i] = -1 - i;
    return soft;
}

void rows_add(RowList *r, int sequence, int soft, const int *token, int length, int first) {
    prompt_rows(r->token + r->N, soft);
    for (int t = -soft; t + 1 < length; t++, r->N++) {
        if (t >= 0) r->token[r->N] = token[t];
        r->sequence[r->N] = sequence;
        r->position[r->N] = t + soft;
        r->wants[r->N] = t >= 0 && t + 1 >= first;
        if (r->wants[r->N]) r->target[r->W++] = token[t + 1];
    }
}

Rows rows_of(const RowList *r) {
    const Rows rows = { r->N, r->W, r->token, r->sequence, r->position, r->wants };
    return rows;
}

/* ---- memory ---- */

void bill_add(Bill *b, const char *name, size_t bytes) {
    if (b->parts == BILL_PARTS) return;
    b->name[b->parts] = name;
    b->bytes[b->parts++] = bytes;
}

void bill_part(Bill *b, const char *name, const Arena *a) {
    if (!a->base) bill_add(b, name, a->used - b->from);
    b->from = a->used;
}

void bill_print(const Bill *b) {
    size_t total = 0;
    for (int i = 0; i < b->parts; i++) {
        print_bytes(b->name[i], b->bytes[i]);
        total += b->bytes[i];
    }
    print_bytes("memory in total", total);
}

void memory_measure(RunMemory *m) {
    Arena measure = { 0 };
    m->carve(m->run, &measure, &m->bill);
    m->bytes = measure.used;
    m->work = m->workspace(m->run);
    bill_add(&m->bill, "work space", m->work);
}

void memory_take(RunMemory *m, Arena *ws) {
    Error err = { 0 };
    Arena a = cli_arena(m->bytes + m->work + 128, "model and work space");
    m->carve(m->run, &a, &m->bill);
    memset(ws, 0, sizeof *ws);
    ws->base = arena_take(&a, m->work + 1, 1);
    ws->capacity = m->work;
    if (a.failed || !ws->base)
        must(fail(&err, E_MEMORY, "more was carved than measured", "", 0, 0), &err, "report this as a bug");
}

/* ---- saving: config and tokenizer first, weights last: a folder that has weights is complete ---- */

int save_policy(const Model *m, const Tokenizer *t, const char *folder, int dtype, uint64_t shard_bytes,
                Error *err) {
    Pool pool = cli_pool();
    int code = config_save(&m->config, NULL, folder, dtype, &pool, err);
    if (code == OK && t) code = tokenizer_save(t, folder, m->config.positions, &pool, err);
    if (code == OK)
        code = checkpoint_save(folder, "model", m->tensor, m->tensors, dtype, shard_bytes, &pool, err);
    pool_free(&pool);
    return code;
}

int save_adapter(const Lora *l, const char *base, const char *folder, int dtype, Error *err) {
    Pool pool = cli_pool();
    int code = adapter_config_save(&l->config, folder, base, &pool, err);
    if (code == OK)
        code = adapter_save(l, folder, dtype, &pool, err);
    pool_free(&pool);
    return code;
}

int save_value_head(const ValueHead *h, const char *folder, Error *err) {
    Pool pool = cli_pool();
    const int code = checkpoint_save(folder, "value_head", h->tensor, h->tensors, F32, 0, &pool, err);
    pool_free(&pool);
    return code;
}

int save_judge_adapter(const Lora *l, const RewardConfig *c, const Tokenizer *t, const char *base,
                       const char *folder, int dtype, Error *err) {
    Pool pool = cli_pool();
    int code = tokenizer_save(t, folder, reward_max_tokens(c), &pool, err);
    if (code == OK) code = reward_config_save(c, folder, dtype, &pool, err);
    if (code == OK) code = save_adapter(l, base, folder, dtype, err);
    pool_free(&pool);
    return code;
}

int save_judge(const RewardModel *m, const Tokenizer *t, const char *folder, int dtype, uint64_t shard_bytes,
               Error *err) {
    Pool pool = cli_pool();
    int code = t ? tokenizer_save(t, folder, reward_max_tokens(&m->config), &pool, err) : OK;
    if (code == OK) code = reward_config_save(&m->config, folder, dtype, &pool, err);
    if (code == OK) code = checkpoint_save(folder, "model", m->tensor, m->tensors, dtype, shard_bytes,
                                               &pool, err);
    pool_free(&pool);
    return code;
}

void run_room(const char *out, const Tensor *list, int tensors, int dtype, size_t trained,
              const RunOptions *o, int steps, int dry_run) {
    enum { TOKENIZER = 1 << 20, STEP = 2048,        /* about: bytes of a tokenizer, of a step's lines */
           STATE = 12,              /* bytes of a trained weight and its two moments */
           STEPS = 10000 };         /* the lines of later steps are not counted: few runs are that long */
    const uint64_t copies = o->save_every && o->save_every < steps ? 2 : 1;
    const uint64_t saves = copies > 1 ? (uint64_t)(steps - 1) / (uint64_t)o->save_every : 0;
    const uint64_t kept = (saves < (uint64_t)o->keep ? saves : (uint64_t)o->keep) + (o->keep_best ? 2 : 0);
    const uint64_t weights = (uint64_t)tensor_values(list, tensors, 0) * (dtype == F32 ? 4 : 2);
    const uint64_t state = steps > 0 ? (uint64_t)trained * STATE : 0;
    out_room(out ? out : "runs", (weights + state) * copies + weights * kept + TOKENIZER +
             (uint64_t)(steps < STEPS ? steps : STEPS) * STEP, dry_run);
}

/* Writes the result to other places until one of them takes it. err: why its folder does not. */
static void save_elsewhere(const Saver *s, Error *err) {
    RunFolder *f = s->folder;
    Pool pool = cli_pool();
    int tries = 0, code = err->code;
    while (code != OK) {
        if (!out_elsewhere(f, f->where, sizeof f->where, &tries, err)) {
            memset(err, 0, sizeof *err);
            fail(err, E_WRITE, "the result cannot be written anywhere, and is lost", f->path, 0, 0);
            die(err, "make room on the disk, or --fallback FOLDER on another disk");
        }
        const int again = !strcmp(f->where, f->path);
        memset(err, 0, sizeof *err);
        code = s->write(s->run, f->where, err);
        if (code == OK && again) {
            code = out_commit(f, err);
            strcpy(f->where, f->path);
        }
        if (code != OK && !again && folder_empty(f->where, &pool, NULL) == OK) folder_remove(f->where, NULL);
    }
    pool_free(&pool);
}

/* Writes the state of a run; the next steps do not depend on it, and so a failure is only said. */
static void save_state(const Saver *s, int step) {
    RunFolder *f = s->folder;
    Pool pool = cli_pool();
    Error err = { 0 };
    char path[540];
    out_state(f, path);
    if (state_write(path, s->state, s->run, &pool, &err) == OK) f->stopped = step;
    else cli_warn(&err, "make room; without this file the run cannot go on from here after a stop");
    pool_free(&pool);
}

/* Writes the weights to the folder NAME in the run's folder, in place of an older one when it is complete. */
static void save_apart(const Saver *s, const char *name) {
    Pool pool = cli_pool();
    Error err = { 0 };
    char path[600], fresh[620];
    snprintf(path, sizeof path, "%s/%.40s", s->folder->path, name);
    snprintf(fresh, sizeof fresh, "%s.new", path);
    int code = folder_make(fresh, &err);
    if (code == OK) code = folder_empty(fresh, &pool, &err);
    if (code == OK) code = s->write(s->run, fresh, &err);
    if (code == OK) code = folder_replace(fresh, path, &pool, &err);
    if (code != OK) cli_warn(&err, "make room; the run goes on without this copy");
    pool_free(&pool);
}

static int is_kept_save(const char *name) {
    return strlen(name) == 14 && !strncmp(name, "step-", 5) && strspn(name + 5, "0123456789") == 9;
}

/* Deletes the folders step-N of the oldest saves, until --keep of them are left. */
static void delete_oldest(const Saver *s) {
    Pool pool = cli_pool();
    char **name, path[700];
    int count = 0, saves = 0;
    if (folder_list(s->folder->path, 1, &pool, &name, &count, NULL) != OK) count = 0;
    for (int i = 0; i < count; i++) saves += is_kept_save(name[i]);
    for (int i = 0; i < count && saves > s->options->keep; i++) {       /* the names are sorted */
        if (!is_kept_save(name[i])) continue;
        snprintf(path, sizeof path, "%s/%s", s->folder->path, name[i]);
        if (folder_empty(path, &pool, NULL) == OK) folder_remove(path, NULL);
        saves--;
    }
    pool_free(&pool);
}

void run_best_state(State *s, BestSave *b) {
    state_real(s, "best evaluation", &b->value);
    state_int(s, "its step", &b->step, 0, INT_MAX);
}

void run_best(const Saver *s, BestSave *b, double value, int step) {
    if (!s->options->keep_best || !step || !isfinite(value) || !(value > b->value || !b->step)) return;
    b->value = value;
    b->step = step;
    save_apart(s, "best");
}

void run_say_best(const RunFolder *f, const BestSave *b) {
    char path[600];
    snprintf(path, sizeof path, "%s/best", f->path);
    if (b->step && folder_exists(path))
        say("best evaluation: after step %d; its weights are in %s", b->step, path);
}

void run_save(const Saver *s, int step, int last) {
    RunFolder *f = s->folder;
    Error err = { 0 };
    int code;
    if (!last && s->options->keep) {
        char name[40];
        snprintf(name, sizeof name, "step-%09d", step);         /* in the order of names */
        save_apart(s, name);
        delete_oldest(s);
    }
    if (s->state) save_state(s, step);
    code = s->write(s->run, f->path, &err);
    if (code == OK) code = out_commit(f, &err);
    if (code != OK && !last) {
        cli_warn(&err, "make room; the run goes on, and the next save writes these files again");
        return;
    }
    strcpy(f->where, f->path);
    if (code != OK) save_elsewhere(s, &err);
    f->saved = step;
}

/* ---- the end of a run ---- */

/* Returns 1 if one of n 16-bit floats has all bits of its exponent set, and so is a NaN or an infinity. The
 * loops look at every number and have no branch, so that compilers turn them into vector instructions. */
static int halves_not_numbers(const uint16_t *x, size_t n, unsigned exponent) {
    int bad = 0;
    for (size_t k = 0; k < n; k++) bad |= (x[k] & exponent) == exponent;
    return bad;
}

static int floats_not_numbers(const float *x, size_t n, float limit) {
    int bad = 0;
    for (size_t k = 0; k < n; k++) bad |= !(fabsf(x[k]) < limit);
    return bad;
}

const Tensor *tensor_not_numbers(const Tensor *list, int tensors, int dtype) {
    /* the smallest number that rounds to infinity */
    const float limit = dtype == F16 ? 65520.0f : dtype == BF16 ? 3.3961775e38f : HUGE_VALF;
    for (int i = 0; i < tensors; i++) {
        const Matrix *w = list[i].matrix;
        const size_t n = list[i].flags & TENSOR_TIED ? 0 : (size_t)w->O * (size_t)w->I;
        if (w->type == F32 && floats_not_numbers(w->data, n, limit)) return &list[i];
        if (w->type == BF16 && halves_not_numbers(w->data, n, 0x7F80u)) return &list[i];
        if (w->type == F16 && halves_not_numbers(w->data, n, 0x7C00u)) return &list[i];
    }
    return NULL;
}

const char *weights_fault(char out[160], const Tensor *list, int tensors, int dtype) {
    const Tensor *bad = tensor_not_numbers(list, tensors, dtype);
    if (!bad) return NULL;
    snprintf(out, 160, tensor_not_numbers(bad, 1, F32) ? "tensor %.96s has a NaN or an infinity"
             : "tensor %.96s has a weight that is too large for --dtype", bad->name);
    return out;
}

const char *step_fault(char out[160], double loss, double norm, double clip, const Tensor *list,
                       int tensors) {
    const double most = 1e20;               /* Adam squares each gradient, and keeps a thousandth of it */
    const double used = clip > 0 && norm > clip ? clip : norm;
    if (!isfinite(loss)) return strcpy(out, "the loss is not a number");
    for (int i = 0; i < tensors && !isfinite(norm); i++) {
        if (isfinite(gradient_norm(list + i, 1))) continue;
        snprintf(out, 160, "the gradient of tensor %.96s is not a number", list[i].name);
        return out;
    }
    if (used < most) return NULL;
    snprintf(out, 160, "the gradient is too large: its norm is %.3g", norm);
    return out;
}

const char *damaged_hint(int compute) {
    return compute == F32 ? "another model: this one is damaged"
                          : "--compute f32, or another model: this one may be damaged";
}

void die_not_a_number(const char *what, int step, int saved, const char *folder, const char *hint) {
    Error err = { 0 };
    char text[240];
    if (saved > 0)
        snprintf(text, sizeof text, "%s in step %d; the weights saved are those after step %d", what, step,
                 saved);
    else snprintf(text, sizeof text, "%s in step %d; no weights were written", what, step);
    fail(&err, E_NUMBER, text, folder, 0, 0);
    cli_warn(&err, hint);
    exit(EXIT_DIVERGED);
}

void stop_not_a_number(const char *what, int step, int trained, int good, const Saver *s,
                       const char *untrained, const char *hint) {
    Error err = { 0 };
    char text[240];
    if (good && step > 1 && s->folder->saved != step - 1) run_save(s, step - 1, 1);
    if (trained) die_not_a_number(what, step, s->folder->saved, s->folder->path, hint);
    snprintf(text, sizeof text, "%s in step %d; no weights were written", what, step);
    fail(&err, E_NUMBER, text, s->folder->path, 0, 0);
    die(&err, untrained);
}

const char *start_hint(int compute) {
    return compute == F32 ? "another model to start from: no weight has been changed yet"
           : "--compute f32, or another model to start from: no weight has been changed yet";
}

/* ---- a run that has gone wrong although its numbers are numbers ----
 * A loss has diverged if it is more than WORSE nats above both the loss at the start and that of a blind
 * guess: the truth then has less than a seventh of the probability that a blind guess gives it. Ordinary runs
 * stay below the blind guess, after their first steps.
 * A policy has collapsed if its KL per response is above TIMES times the target, and above 1 nat per token: a
 * KL that is aimed at is a fraction of a nat per token. Or if it always writes the same (SAME nats of
 * entropy per token, against 1 to 3 in a language), although its KL is above the target: then the rewards of
 * the responses to a query no longer differ, and nothing can be learnt from them. */
static const double WORSE = 2, TIMES = 10, SAME = 0.01;

static void health_of_loss(Health *h, const char *name, double loss) {
    const double worst = h->start > h->blind ? h->start : h->blind;
    h->bad = !(loss <= worst + WORSE);
    if (h->bad)
        snprintf(h->why, sizeof h->why, "the run has diverged: %s is %.4g; at the start %.4g, of a blind "
                 "guess %.4g", name, loss, h->start, h->blind);
}

void health_of_step(Health *h, double loss) {
    if (!h->steps++) {
        h->recent = loss;
        if (h->start <= 0) h->start = loss;
    } else h->recent += 0.1 * (loss - h->recent);
    health_of_loss(h, h->steps < 10 ? "the mean loss of the first steps"
                                    : "the mean loss of about the last ten steps", h->recent);
}

void health_of_held_out(Health *h, double loss) { health_of_loss(h, "the held-out loss", loss); }

void health_of_policy(Health *h, double kl, double tokens, double entropy, double target) {
    const int far = !(kl <= TIMES * target) && !(kl <= tokens), always = entropy < SAME && kl > target;
    h->bad = far || always;
    if (far)
        snprintf(h->why, sizeof h->why, "the policy has collapsed: KL %.4g per response, more than %g times "
                 "the target of %g, and more than 1 per token", kl, TIMES, target);
    else if (always)
        snprintf(h->why, sizeof h->why, "the policy has collapsed: it always writes the same (entropy %.2g "
                 "per token), at KL %.4g", entropy > 0 ? entropy : 0, kl);
}

void health_warn(Health *h, int step, const char *hint) {
    Error err = { 0 };
    char where[96];
    if (!h->bad || h->warned) return;
    h->warned = 1;
    snprintf(where, sizeof where, "step %d; until this is over, nothing is saved over earlier weights", step);
    fail(&err, E_NUMBER, h->why, where, 0, 0);
    cli_warn(&err, hint);
}

void health_end(const Health *h, const RunFolder *f, const char *hint) {
    Error err = { 0 };
    char where[256];
    if (!h->bad) return;
    snprintf(where, sizeof where, "%.200s has the weights after step %d", f->where, f->saved);
    fail(&err, E_NUMBER, h->why, where, 0, 0);
    cli_warn(&err, hint);
    exit(EXIT_DIVERGED);
}

int run_code(const RunFolder *f) {
    char lines[64];
    if (f->lost)
        say("%s of the log could not be written: %s", counted(lines, (size_t)f->lost, "line"), f->path);
    if (!f->saved || !strcmp(f->where, f->path)) return cli_exit_code(0);
    say("the result is not in the run's own folder, which cannot be written: %s", f->path);
    return cli_exit_code(1);
}

int run_without_steps(RunFolder *f) {
    if (cli_stopping()) say("stopped before the first step: nothing is kept");
    else {
        out_begun(f);
        say("no steps; the log is in %s", f->path);
    }
    return cli_exit_code(0);
}

int run_due(int every, int step) { return every && step && step % every == 0; }

void run_say_resume(const RunFolder *f, const char *options) {
    const char *quote = strpbrk(f->path, " \"'$&();<>|*?") ? "'" : "";
    if (f->stopped) say("go on with: ./%s --resume %s%s%s%s", program_name(), quote, f->path, quote, options);
}

int run_ended(RunFolder *f, int steps, double seconds) {
    char count[64], time[32], after[48] = "";
    if (!steps) return run_without_steps(f);
    readable_time(time, seconds);
    if (seconds >= 0) snprintf(after, sizeof after, ", in %s", time);
    say("%s after %s%s: %s", cli_stopping() ? "stopped and saved" : "saved",
        counted(count, (size_t)f->saved, "step"), after, f->where);
    if (cli_stopping()) run_say_resume(f, "");
    return run_code(f);
}
