/* sft.c - stage 1: next-token training of a policy on the documents of a dataset, from scratch or from a checkpoint: all weights, or an
 *         adapter (LoRA) next to frozen ones, which may be held in 4 bits (QLoRA).
 *
 * Source   Ouyang et al. 2022 (InstructGPT), section 3.5: supervised fine-tuning comes before the reward model and PPO.
 *          Hu et al. 2021 (LoRA), Dettmers et al. 2023 (QLoRA).
 * Idea     loss = mean over all tokens of a step of -log p(token | those before it). A step is a budget of tokens, not of texts:
 *          whole sequences stand one after another (ragged, no padding), and pass in micro-batches whose gradients add up.
 * Needs    a dataset (prep makes it), and a policy's folder or a tokenizer and sizes.
 * Never    trains on held-out documents; writes a weight that is not a number: such a loss ends the run with the last good step saved.
 * Edges    the same --seed gives the same bytes for any number of threads. Ctrl-C saves and stops; before the first step it writes
 *          no weights. A prompt's tokens (kind 3) are read but not learnt; of a pair (kind 2) the chosen text is taken. */
#include "programs.h"
#include <stdio.h>

#define PREP "prep makes a dataset from text, JSONL or CSV: ./prep --help"
#define SMALLER_STEPS "a smaller --lr, a longer --warmup, or --clip 1"
enum { WALK_MAX = 100000000 };              /* sequences that --epochs may come to */

typedef struct {
    const char *policy, *tokenizer, *out, *lora_targets;
    int dim, layers, heads, kv_heads, ffn, positions, tied;
    int lora_r, rslora, context, head_only, no_eos, learn, tokens, micro_tokens, epochs, steps, eval_every, eval_documents, save_every;
    int dtype, shard_mb, dry_run;
    double lora_alpha, lora_dropout, lr, warmup, weight_decay, clip;
    QuantOptions quant;
    uint64_t seed;
} Settings;

/* A training sequence: tokens 0 .. length-1 at positions 0 .. length-1. Tokens from index `learn` (>= 1) on count in the loss. The
 * last token predicts nothing, so a sequence takes length-1 rows. */
typedef struct { const int *token; int length, learn; } Excerpt;
typedef struct { Excerpt *piece; int count, capacity, longest; long long documents, tokens; } Set;

typedef struct {
    Settings set;
    ModelConfig config; Tokenizer *tokenizer;
    WeightTypes types;                      /* of the weights; F32 where they are trained */
    Model model; Lora lora; const Lora *adapter;
    Tensor *list; int tensors;              /* what is trained: the model's tensors or the adapter's */
    Optimizer optimizer; AdamW adam;
    Set train, held;
    int N, B, T;                            /* a micro-batch: rows and sequences at most, rows of the longest sequence */
    Saved saved; Cache kv; Arena memory, ws;
    int *token, *sequence, *position, *target; unsigned char *wants; float *hidden, *dhidden, *logprob;
    int *order, at, epoch, steps;           /* the walk through the shuffled training set */
    int saved_step;                         /* whose weights are in the folder; 0: nobody's of this run */
    Pool keep;
    char out[512], log_path[600], time_path[600];
} Trainer;

/* ---- documents into sequences ---- */

static void set_add(Set *s, const int *token, int length, int learn, Pool *pool) {
    Error err = { 0 };
    if (s->count == s->capacity) {
        int capacity = s->capacity < INT_MAX / 4 ? s->capacity * 2 + 1024 : s->capacity;
        Excerpt *wider = capacity > s->capacity ? pool_take(pool, (size_t)capacity, sizeof *wider) : NULL;
        if (!wider) must(fail(&err, E_MEMORY, "no memory for so many sequences", "dataset", 0, 0), &err, NULL);
        if (s->count) memcpy(wider, s->piece, (size_t)s->count * sizeof *wider);
        s->piece = wider;
        s->capacity = capacity;
    }
    Excerpt p = { token, length, learn };
    s->piece[s->count++] = p;
    if (length > s->longest) s->longest = length;
    s->tokens += length - learn;
}

/* Ids of a document: <s> text </s> by the tokenizer's template. *learn: the first token that counts in the loss. For a prompt with a
 * response that is where the ids of both together first differ from those of the prompt alone: the way a prompt's last token
 * and a response's first may melt into one is the tokenizer's business. */
static int *document_ids(const Trainer *t, const Document *d, int kind, Pool *scratch, int *count, int *learn, int *before) {
    int *ids = NULL, *prompt = NULL, prompts = 0, after, code;
    tokenizer_template(t->tokenizer, before, &after);
    *learn = 1;
    if (kind == DATA_PROMPTS) {
        size_t n = (size_t)d->length[0] + d->length[1];
        char *both = pool_take(scratch, n + 1, 1);
        if (!both) return NULL;
        memcpy(both, d->text[0], d->length[0]);
        memcpy(both + d->length[0], d->text[1], d->length[1]);
        code = tokenizer_encode(t->tokenizer, both, n, scratch, &ids, count);
        if (!code) code = tokenizer_encode(t->tokenizer, d->text[0], d->length[0], scratch, &prompt, &prompts);
        if (code) return NULL;
        int same = 0;
        while (same < prompts && same < *count && prompt[same] == ids[same]) same++;
        if (!t->set.learn && same + *before > 1) *learn = same + *before;
    } else if (tokenizer_encode(t->tokenizer, d->text[0], d->length[0], scratch, &ids, count)) return NULL;
    return ids;
}

/* A long document becomes several sequences of `context` tokens. Each begins with the last token of the one before, so that every
 * token but the first of the document is predicted exactly once. */
static void add_document(Trainer *t, Set *s, const Document *d, int kind, Pool *scratch) {
    SpecialIds special = tokenizer_specials(t->tokenizer);
    Error err = { 0 };
    int count, learn, before, *ids = document_ids(t, d, kind, scratch, &count, &learn, &before), n = 0;
    int eos = special.eos >= 0 ? special.eos : t->config.eos_count ? t->config.eos[0] : -1;
    int *kept = ids ? pool_take(&t->keep, (size_t)count + 2, sizeof *kept) : NULL;
    if (!kept) must(fail(&err, E_MEMORY, "no memory for a document's tokens", "dataset", 0, 0), &err, NULL);
    if (before) kept[n++] = special.bos;
    memcpy(kept + n, ids, (size_t)count * sizeof *kept);
    n += count;
    if (!t->set.no_eos && eos >= 0) kept[n++] = eos;
    for (int from = 0; from + 1 < n; from += t->set.context - 1) {
        int length = n - from < t->set.context ? n - from : t->set.context, first = learn - from < 1 ? 1 : learn - from;
        if (first < length) set_add(s, kept + from, length, first, &t->keep);
        if (t->set.head_only) break;
    }
    s->documents++;
}

/* The whole dataset as sequences. Its texts are given back: training needs only the ids. */
static void read_documents(Trainer *t, const char *path) {
    Pool texts = cli_pool(), scratch = cli_pool();
    Dataset d;
    Error err = { 0 };
    must(dataset_read(&d, path, &texts, &err), &err, PREP);
    for (uint64_t i = 0; i < d.count; i++) {
        PoolMark mark = pool_mark(&scratch);
        const Document *document = &d.document[i];
        if (document->split && t->held.documents < t->set.eval_documents) add_document(t, &t->held, document, d.kind, &scratch);
        if (!document->split) add_document(t, &t->train, document, d.kind, &scratch);
        pool_release(&scratch, mark);
    }
    pool_free(&texts);
    pool_free(&scratch);
    if (!t->train.count) must(fail(&err, E_MISSING, "no training document with two tokens or more", path, 0, 0), &err, PREP);
}

/* ---- steps: whole sequences, in the shuffled order of an epoch, up to the budget of tokens ---- */

static int piece_rows(const Excerpt *p) { return p->length - 1; }

/* The next step is order[*first] .. order[*first + n - 1]; returns n. An epoch's last step may be small. */
static int next_step(Trainer *t, int *first) {
    int rows = 0, n = 0;
    if (t->at == t->train.count) { t->at = 0; t->epoch++; }
    if (!t->at) {
        Rng r = rng_stream(t->set.seed, (uint64_t)t->epoch, 0x5f7);
        for (int i = 0; i < t->train.count; i++) t->order[i] = i;
        rng_shuffle(&r, t->order, t->train.count);
    }
    for (*first = t->at; t->at < t->train.count; t->at++, n++) {
        int more = piece_rows(&t->train.piece[t->order[t->at]]);
        if (n && rows + more > t->set.tokens) break;
        rows += more;
    }
    return n;
}

/* The schedule needs the number of steps before the first one: --steps, or a dry walk through --epochs, which WALK_MAX keeps short
 * (a second or two) and which cannot count further than an int does. */
static void count_steps(Trainer *t) {
    Error err = { 0 };
    int first;
    if (!t->set.steps && (long long)t->set.epochs * t->train.count > WALK_MAX)
        usage_error("more than a hundred million sequences in all: fewer --epochs, or --steps, which may be as many", NULL);
    t->order = pool_take(&t->keep, (size_t)t->train.count, sizeof *t->order);
    if (!t->order) must(fail(&err, E_MEMORY, "no memory for the order of sequences", "dataset", 0, 0), &err, NULL);
    t->steps = t->set.steps;
    for (int epoch = 0; !t->set.steps && epoch < t->set.epochs; epoch++)
        for (t->at = 0, t->epoch = epoch; t->at < t->train.count; t->steps++) next_step(t, &first);
    t->at = t->epoch = 0;
}

/* Linear warm-up, then a cosine down to a tenth. step counts from 1. */
static float learning_rate(const Trainer *t, int step) {
    const double pi = 3.14159265358979323846;
    double warm = floor(t->set.warmup * t->steps + 0.5), done;
    if (step <= warm) return (float)(t->set.lr * step / warm);
    done = t->steps > warm ? (step - warm) / (t->steps - warm) : 1;
    return (float)(t->set.lr * (0.1 + 0.45 * (1 + cos(pi * done))));
}

/* ---- one micro-batch ---- */

/* dloss/dlogprob = -1 / (tokens of the step), for every token alike. */
static void token_loss(void *context, int first, int n, const float *logprob, float *dlogprob) {
    const float *scale = context;
    (void)first; (void)logprob;
    for (int i = 0; i < n; i++) dlogprob[i] = -*scale;
}

/* Lays out as many sequences as fit: N rows, B sequences. order NULL: pieces first, first+1 ... Returns how many. */
static int fill_rows(Trainer *t, const Set *s, const int *order, int first, int count, Rows *rows, int *targets) {
    int N = 0, taken = 0;
    *targets = 0;
    for (; taken < count && taken < t->B; taken++) {
        const Excerpt *p = &s->piece[order ? order[first + taken] : first + taken];
        if (N + piece_rows(p) > t->N) break;
        for (int i = 0; i + 1 < p->length; i++, N++) {
            t->token[N] = p->token[i];
            t->sequence[N] = taken;
            t->position[N] = i;
            t->wants[N] = i + 1 >= p->learn;
            if (t->wants[N]) t->target[(*targets)++] = p->token[i + 1];
        }
    }
    Rows r = { N, t->token, t->sequence, t->position, t->wants };
    *rows = r;
    return taken;
}

enum { STREAM_DROPOUT = 0xd509 };

/* Forward over sequences first .. first+count-1, and with scale > 0 (1 / tokens of the step) backward: gradients add up. Dropout is
 * for training only; its masks go by rows of the step, so micro-batches do not change them.
 * Returns the sum of -log p; *tokens the number of terms. */
static double pass(Trainer *t, const Set *s, const int *order, int first, int count, float scale, long long *tokens) {
    Error err = { 0 };
    double sum = 0;
    *tokens = 0;
    t->lora.dropout.p = scale > 0 ? t->lora.config.dropout : 0;
    t->lora.dropout.row = 0;
    while (count > 0) {
        Rows rows;
        int targets, taken = fill_rows(t, s, order, first, count, &rows, &targets), train = scale > 0;
        int code = model_forward(&t->model, t->adapter, &rows, &t->kv, train ? &t->saved : NULL, t->hidden, &t->ws);
        if (train) memset(t->dhidden, 0, (size_t)rows.N * (size_t)t->config.stack.C * sizeof(float));
        if (!code) code = model_logprobs(&t->model, t->hidden, &rows, t->target, 1, t->logprob, NULL, train ? token_loss : NULL, &scale,
                                         train ? t->dhidden : NULL, &t->ws);
        if (!code && train) code = model_backward(&t->model, t->adapter, &rows, &t->kv, &t->saved, t->dhidden, &t->ws);
        if (code) must(fail(&err, code, "the model's forward or backward failed", "sft", 0, 0), &err, NULL);
        for (int i = 0; i < targets; i++) sum -= (double)t->logprob[i];
        *tokens += targets;
        t->lora.dropout.row += (uint64_t)rows.N;
        first += taken;
        count -= taken;
    }
    return sum;
}

/* Mean -log p over the held-out documents; its exponential is the perplexity. */
static double held_out(Trainer *t) {
    long long tokens;
    double sum = pass(t, &t->held, NULL, 0, t->held.count, 0, &tokens);
    return tokens ? sum / (double)tokens : 0;
}

/* One optimiser step: the gradient of a global token mean, clipped by its norm, AdamW. */
static double sft_step(Trainer *t, int step, long long *tokens, double *norm) {
    int first, n = next_step(t, &first);
    long long targets = 0;
    double loss;
    for (int i = 0; i < n; i++) {
        const Excerpt *p = &t->train.piece[t->order[first + i]];
        targets += p->length - p->learn;
    }
    gradient_zero(t->list, t->tensors);
    t->lora.dropout.seed = rng_stream(t->set.seed, (uint64_t)step, STREAM_DROPOUT).state;
    loss = pass(t, &t->train, t->order, first, n, 1 / (float)targets, tokens) / (double)targets;
    *norm = gradient_norm(t->list, t->tensors);
    if (!isfinite(loss) || !isfinite(*norm)) return loss;   /* and nothing has moved */
    t->adam.lr = learning_rate(t, step);
    optimizer_step(&t->optimizer, 0, t->list, t->tensors, &t->adam,
                   t->set.clip > 0 && *norm > t->set.clip ? (float)(t->set.clip / *norm) : 1);
    return loss;
}

/* ---- memory ---- */

static size_t workspace_bytes(Trainer *t) {
    Arena ws = { 0 };
    Rows rows = { t->N, t->token, t->sequence, t->position, t->wants };
    model_forward(&t->model, t->adapter, &rows, &t->kv, &t->saved, NULL, &ws);
    model_logprobs(&t->model, NULL, &rows, NULL, 1, NULL, NULL, token_loss, NULL, NULL, &ws);
    model_backward(&t->model, t->adapter, &rows, &t->kv, &t->saved, NULL, &ws);
    return ws.peak;
}

static void bill(int show, const char *part, size_t *from, const Arena *a) {
    if (show) cli_bill(part, a->used - *from);
    *from = a->used;
}

/* Everything of the training run out of one arena; with a measuring one, the bill. */
static void carve(Trainer *t, Arena *a, size_t ws, int show) {
    Settings *s = &t->set;
    Error err = { 0 };
    size_t n = (size_t)t->N, from = a->used;
    must(model_carve(&t->model, &t->config, &t->types, !s->lora_r, t->T, &t->keep, a, &err), &err, NULL);
    bill(show, s->lora_r ? "weights (frozen)" : "weights and gradients", &from, a);
    t->list = t->model.tensor; t->tensors = t->model.tensors; t->adapter = NULL;
    if (s->lora_r) {
        LoraConfig c = lora_config(s->lora_r, (float)s->lora_alpha, s->lora_targets);
        c.rslora = s->rslora;
        c.dropout = (float)s->lora_dropout;
        must(lora_carve(&t->lora, t->model.tensor, t->model.tensors, &c, 1, &t->keep, a, &err), &err, NULL);
        t->list = t->lora.tensor; t->tensors = t->lora.tensors; t->adapter = &t->lora;
        if (s->lora_dropout > 0) lora_dropout_carve(&t->lora, t->N, a);
        bill(show, s->lora_dropout > 0 ? "adapter, gradients, dropout" : "adapter and gradients", &from, a);
    }
    optimizer_carve(&t->optimizer, t->list, t->tensors, a);
    bill(show, "Adam's moments", &from, a);
    saved_carve(&t->saved, &t->config, t->N, s->quant.recompute, a);
    bill(show, "saved activations", &from, a);
    cache_carve(&t->kv, &t->config, t->B, t->T, a);
    bill(show, "keys and values", &from, a);
    t->token = arena_take(a, n, sizeof(int)); t->sequence = arena_take(a, n, sizeof(int));
    t->position = arena_take(a, n, sizeof(int)); t->target = arena_take(a, n, sizeof(int));
    t->wants = arena_take(a, n, 1);
    t->logprob = arena_take(a, n, sizeof(float));
    t->hidden = arena_take(a, n * (size_t)t->config.stack.C, sizeof(float));
    t->dhidden = arena_take(a, n * (size_t)t->config.stack.C, sizeof(float));
    t->ws.base = arena_take(a, ws, 1);
    t->ws.capacity = ws;
    bill(show, "rows and work space", &from, a);
}

static void memory(Trainer *t) {
    Arena measure = { 0 };
    Error err = { 0 };
    size_t ws;
    t->T = (t->train.longest > t->held.longest ? t->train.longest : t->held.longest) - 1;
    t->N = t->set.micro_tokens ? t->set.micro_tokens : t->T > 1024 ? t->T : 1024;
    if (t->N < t->T) {
        fail(&err, E_ARGUMENT, "--micro-tokens is less than the longest sequence", "", t->N, t->T);
        die(&err, "a larger --micro-tokens, or a smaller --context");
    }
    t->B = 4 * t->N / t->T + 1;             /* slots of the cache: enough where a sequence has a quarter of the longest one's rows */
    carve(t, &measure, 0, 0);
    ws = workspace_bytes(t);
    memset(&measure, 0, sizeof measure);
    carve(t, &measure, ws, t->set.dry_run);
    if (t->set.dry_run) {
        cli_bill("the dataset's tokens", t->keep.total);
        cli_bill_total();
        exit(0);
    }
    printf("memory: %.1f MB, and %.1f MB of tokens\n", (double)measure.used / 1e6, (double)t->keep.total / 1e6);
    t->memory = cli_arena(measure.used, "training");
    carve(t, &t->memory, ws, 0);
}

/* ---- the policy ---- */

static void scratch_config(Trainer *t) {
    Settings *s = &t->set;
    ModelConfig *c = &t->config;
    SpecialIds special = tokenizer_specials(t->tokenizer);
    memset(c, 0, sizeof *c);
    if (s->dim % s->heads || s->dim / s->heads % 2) usage_error("--dim divided by --heads has to be an even whole number", NULL);
    if (!s->kv_heads) s->kv_heads = s->heads;
    if (s->heads % s->kv_heads) usage_error("--heads has to be a multiple of --kv-heads", NULL);
    c->V = tokenizer_size(t->tokenizer);
    c->stack.C = s->dim; c->stack.L = s->layers; c->stack.H = s->heads; c->stack.K = s->kv_heads; c->stack.D = s->dim / s->heads;
    c->stack.F = s->ffn ? s->ffn : (s->dim * 8 / 3 + 31) / 32 * 32;
    c->positions = s->positions; c->tied = s->tied;
    c->stack.eps = 1e-5f; c->stack.rope.theta = 10000; c->stack.rope.type = ROPE_PLAIN; c->stack.rope.factor = 1;
    c->bos = special.bos; c->pad = special.pad;
    if (special.eos >= 0) { c->eos[0] = special.eos; c->eos_count = 1; }
}

static void read_policy(Trainer *t, const Program *program) {
    Settings *s = &t->set;
    Error err = { 0 };
    const char *tokenizer = s->tokenizer ? s->tokenizer : s->policy;
    if (!tokenizer) usage_error("training from scratch needs --tokenizer (prep tokenizer makes one), else give --policy", NULL);
    t->tokenizer = tokenizer_open(tokenizer, &t->keep, &err);
    must(err.code, &err, "--tokenizer takes a tokenizer.model, or a folder with one or with vocab.json and merges.txt");
    if (!s->policy) scratch_config(t);
    else must(config_load(&t->config, s->policy, &t->keep, &err), &err, "--policy takes a Hugging Face folder with config.json");
    t->types.compute = s->quant.compute;
    if (s->policy) quant_options_types(&t->types, program, &s->quant, s->policy, !s->lora_r, &t->keep);
    if (tokenizer_size(t->tokenizer) > t->config.V)
        must(fail(&err, E_RANGE, "the tokenizer has more ids than the policy", tokenizer, tokenizer_size(t->tokenizer), t->config.V), &err,
             "the tokenizer that the policy was trained with");
    if (s->context > t->config.positions) {
        fail(&err, E_RANGE, "--context is more than the policy's positions", "", s->context, t->config.positions);
        die(&err, s->policy ? "a smaller --context" : "a larger --positions, or a smaller --context");
    }
}

static void init_weights(Trainer *t) {
    Settings *s = &t->set;
    Error err = { 0 };
    size_t all, trained;
    if (s->policy) must(checkpoint_load(s->policy, "model", t->model.tensor, t->model.tensors, &t->keep, &err), &err, NULL);
    else model_init(&t->model, s->seed);
    if (!tensors_are_numbers(t->model.tensor, t->model.tensors, F32))
        must(fail(&err, E_NUMBER, "a weight is a NaN or an infinity", s->policy, 0, 0), &err, "another --policy: this one is damaged");
    if (s->lora_r) lora_init(&t->lora, s->seed);
    optimizer_reset(&t->optimizer);
    all = tensor_values(t->model.tensor, t->model.tensors, 0);
    trained = tensor_values(t->list, t->tensors, 1);
    printf("policy: %s\n", s->policy ? s->policy : "from scratch");
    print_types(s->lora_r ? "frozen weights" : "weights", &t->types);
    print_trainable(trained, s->lora_r ? all + trained : all);
}

static uint64_t shard_bytes(const Settings *s) { return (uint64_t)s->shard_mb * 1000000u; }

/* Weights last: a folder that has them is whole. Every file is written aside and renamed, and none if a weight is no number. */
static void save(Trainer *t, int step) {
    Settings *s = &t->set;
    Error err = { 0 };
    PoolMark mark = pool_mark(&t->keep);
    if (!tensors_are_numbers(t->list, t->tensors, s->dtype))
        die_not_a_number("a weight is no number, or too large for --dtype", step, t->saved_step, t->out, SMALLER_STEPS);
    if (s->lora_r) {
        must(adapter_config_save(&t->lora.config, t->out, t->set.policy, &t->keep, &err), &err, NULL);
        must(checkpoint_save(t->out, "adapter_model", t->list, t->tensors, s->dtype, 0, &t->keep, &err), &err, NULL);
    } else {
        must(config_save(&t->config, NULL, t->out, s->dtype, &t->keep, &err), &err, NULL);
        must(tokenizer_save(t->tokenizer, t->out, t->config.positions, &t->keep, &err), &err, NULL);
        must(checkpoint_save(t->out, "model", t->list, t->tensors, s->dtype, shard_bytes(s), &t->keep, &err), &err, NULL);
    }
    t->saved_step = step;
    pool_release(&t->keep, mark);
}

/* ---- the run ---- */

static void log_step(Trainer *t, int step, double loss, double norm, long long tokens, double seconds) {
    PoolMark mark = pool_mark(&t->keep);
    Error err = { 0 };
    Log log;
    log_begin(&log, t->log_path, &t->keep);
    log_integer(&log, "step", step); log_integer(&log, "epoch", t->epoch);
    log_number(&log, "loss", loss); log_number(&log, "perplexity", exp(loss));
    log_number(&log, "grad_norm", norm); log_number(&log, "lr", (double)t->adam.lr);
    log_integer(&log, "tokens", tokens);
    must(log_end(&log, &err), &err, NULL);
    log_begin(&log, t->time_path, &t->keep);
    log_integer(&log, "step", step); log_number(&log, "seconds", seconds);
    log_number(&log, "tokens_per_second", (double)tokens / seconds);
    must(log_end(&log, &err), &err, NULL);
    pool_release(&t->keep, mark);
}

/* Held-out perplexity into the log; returns it (0: no held-out documents). */
static double evaluate(Trainer *t, int step) {
    PoolMark mark = pool_mark(&t->keep);
    Error err = { 0 };
    Log log;
    double loss = held_out(t);
    if (!t->held.count) return 0;
    log_begin(&log, t->log_path, &t->keep);
    log_integer(&log, "step", step);
    log_number(&log, "eval_loss", loss); log_number(&log, "eval_perplexity", exp(loss));
    must(log_end(&log, &err), &err, NULL);
    pool_release(&t->keep, mark);
    return exp(loss);
}

/* The loss of `step`, or its gradient, is not a number. The weights still are those after the step before: they are saved if they
 * are of use, that is if this loss or the held-out one is a number. */
static void stop_at_nan(Trainer *t, int step, double loss) {
    int good = tensors_are_numbers(t->list, t->tensors, t->set.dtype);
    good = good && (isfinite(loss) || (t->held.count && isfinite(held_out(t))));
    if (good && step > 1 && t->saved_step != step - 1) save(t, step - 1);
    die_not_a_number("the loss or its gradient is not a number", step, t->saved_step, t->out, SMALLER_STEPS);
}

/* Returns the steps done, whose weights are saved. */
static int train(Trainer *t) {
    double held = evaluate(t, 0), first = held, start = wall_clock(), norm, speed = 0, loss = 0;
    int step = 0, evaluated = 0, stop = cli_stopping();
    long long tokens;
    if (t->held.count) printf("held-out perplexity before: %.3f (%lld documents, %lld tokens)\n", held, t->held.documents, t->held.tokens);
    else printf("no held-out documents: no perplexity\n");
    while (step < t->steps && !stop) {
        char text[240], seen[40] = "";
        double begin = wall_clock(), seconds;
        loss = sft_step(t, ++step, &tokens, &norm);
        if (!isfinite(loss) || !isfinite(norm)) stop_at_nan(t, step, loss);
        seconds = wall_clock() - begin;
        if (seconds <= 0) seconds = 1e-9;
        speed = (speed > 0 ? 0.9 * speed : 0) + (speed > 0 ? 0.1 : 1) * (double)tokens / seconds;
        log_step(t, step, loss, norm, tokens, seconds);
        stop = cli_stopping();
        if (!stop && t->set.eval_every && step % t->set.eval_every == 0) { held = evaluate(t, step); evaluated = step; }
        if (t->set.save_every && step % t->set.save_every == 0) save(t, step);
        if (t->held.count) snprintf(seen, sizeof seen, "  held-out %.2f", held);
        snprintf(text, sizeof text, "loss %.4f  perplexity %.2f%s  lr %.2e  %.0f tokens/s", loss, exp(loss), seen, (double)t->adam.lr, speed);
        progress(text, step, t->steps, stop || step == t->steps);
    }
    if (!step) { printf("stopped before the first step: no weights were written\n"); return 0; }
    if (t->saved_step != step) save(t, step);               /* before anything that takes time */
    if (!stop && evaluated != step) held = evaluate(t, step);
    if (!stop && t->held.count) printf("held-out perplexity: %.3f before, %.3f after %d steps\n", first, held, step);
    printf("%s after %d steps, %.0f seconds: %s\n", stop ? "stopped and saved" : "saved", step, wall_clock() - start, t->out);
    return step;
}

/* The run's folder, and its logs anew: the first line has the options as they are. */
static void open_run(Trainer *t, const Program *program, const char *data) {
    Error err = { 0 };
    char single[600];                       /* readers would take it instead of the shards */
    run_out(t->out, sizeof t->out, t->set.out, "sft");
    snprintf(single, sizeof single, "%s/model.safetensors", t->out);
    if (shard_bytes(&t->set) && tensor_values(t->list, t->tensors, 0) * (t->set.dtype == F32 ? 4 : 2) > shard_bytes(&t->set) &&
        file_exists(single)) usage_error("--shard-mb needs a folder without", single);
    snprintf(t->log_path, sizeof t->log_path, "%s/log.jsonl", t->out);
    snprintf(t->time_path, sizeof t->time_path, "%s/time.jsonl", t->out);
    log_options(t->log_path, program, data, &t->keep);
    must(file_write_all(t->time_path, "", 0, &t->keep, &err), &err, NULL);
}

/* ---- options ---- */

static const char *const preset_scratch[] = { "lr", "1e-3", "weight-decay", "0.1", NULL };
static const char *const preset_finetune[] = { "lr", "2e-5", "weight-decay", "0", NULL };
static const char *const preset_lora[] = { "lr", "2e-4", "weight-decay", "0", NULL };
static const Preset preset[] = {
    { "scratch", "a new policy (the default without --policy)", preset_scratch },
    { "finetune", "all weights of a checkpoint (the default with --policy)", preset_finetune },
    { "lora", "an adapter next to a checkpoint (the default with --lora-r, --nf4, --fp4)", preset_lora },
};

static void check(const Program *p, Settings *s) {
    if (!s->policy) cli_refuse(p, "nf4|fp4|quant-block|double-quant", "frozen weights are those of a checkpoint, --policy: leave out");
    quant_options_check(p, &s->quant, &s->lora_r, &s->lora_targets, 0);
    if (s->policy)
        cli_refuse(p, "dim|layers|heads|kv-heads|ffn|positions|tied", "sizes are for training from scratch, --policy has its own: leave out");
    if (s->lora_r) cli_refuse(p, "shard-mb", "an adapter is one file: leave out");
    else cli_refuse(p, "lora-alpha|lora-dropout|lora-targets|lora-rslora", "without --lora-r there is no adapter: leave out");
    if (s->lora_r && !s->policy) usage_error("an adapter (--lora-r) needs the checkpoint that it adapts: --policy", NULL);
    cli_check_out(s->out, s->policy, "--policy");
    if (!strcmp(s->lora_targets, "all-linear")) s->lora_targets = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj";
    if (s->lora_dropout >= 1) usage_error("nothing is left of an input with", "--lora-dropout 1");
    if (!s->steps && !s->epochs) usage_error("--epochs or --steps has to be more than 0", NULL);
}

int main(int argc, char **argv) {
    Trainer t;
    memset(&t, 0, sizeof t);
    Settings *s = &t.set;
    Option option[] = {
        { "out", OPT_TEXT, &s->out, NULL, 0, 0, NULL, "folder to write (default: runs/sft-0001, the next free number)" },
        { "policy", OPT_TEXT, &s->policy, NULL, 0, 0, NULL, "start from this Hugging Face folder; without it, from scratch" },
        { "tokenizer", OPT_TEXT, &s->tokenizer, NULL, 0, 0, NULL, "tokenizer.model, or a folder that has a tokenizer (default: --policy's)" },
        { "dim", OPT_INT, &s->dim, "128", 2, 1e6, NULL, "from scratch: model width C" },
        { "layers", OPT_INT, &s->layers, "4", 1, 1000, NULL, "from scratch: layers L" },
        { "heads", OPT_INT, &s->heads, "4", 1, 1000, NULL, "from scratch: attention heads H" },
        { "kv-heads", OPT_INT, &s->kv_heads, "0", 0, 1000, NULL, "from scratch: key/value heads K (0: as many as heads)" },
        { "ffn", OPT_INT, &s->ffn, "0", 0, 1e7, NULL, "from scratch: feed-forward width F (0: 8/3 of --dim, up to a multiple of 32)" },
        { "positions", OPT_INT, &s->positions, "512", 2, 1e7, NULL, "from scratch: longest text the policy will take" },
        { "tied", OPT_FLAG, &s->tied, NULL, 0, 0, NULL, "from scratch: the head is the embedding" },
        { "lora-r", OPT_INT, &s->lora_r, "0", 0, 4096, NULL, "rank of a LoRA adapter, trained instead of the weights (0: all weights)" },
        { "lora-alpha", OPT_REAL, &s->lora_alpha, "16", 0, 1e6, NULL, "LoRA scale: alpha / r" },
        { "lora-rslora", OPT_FLAG, &s->rslora, NULL, 0, 0, NULL, "LoRA scale: alpha / sqrt(r)" },
        { "lora-targets", OPT_TEXT, &s->lora_targets, "q_proj,v_proj", 0, 0, NULL, "linears to adapt, by commas; all-linear: all seven" },
        { "lora-dropout", OPT_REAL, &s->lora_dropout, "0", 0, 1, NULL, "share of the adapter's inputs that are left out in training, anew in every step" },
        QUANT_OPTIONS(s->quant, QLORA_HELP "; without --lora-r, an adapter of rank 16 on all seven linears"),
        COMPUTE_OPTION(s->quant),
        RECOMPUTE_OPTION(s->quant),
        { "context", OPT_INT, &s->context, "256", 2, 1e7, NULL, "tokens of a sequence at most; longer documents become several" },
        { "head-only", OPT_FLAG, &s->head_only, NULL, 0, 0, NULL, "of a longer document, only its first --context tokens" },
        { "no-eos", OPT_FLAG, &s->no_eos, NULL, 0, 0, NULL, "documents do not end with the end-of-text token" },
        { "learn", OPT_CHOICE, &s->learn, "response", 0, 0, "response|all", "of prompt and response, what counts in the loss" },
        { "tokens", OPT_INT, &s->tokens, "4096", 1, 1e9, NULL, "tokens of an optimiser step" },
        { "micro-tokens", OPT_INT, &s->micro_tokens, "0", 0, 1e8, NULL, "tokens at a time, which bounds memory (0: 1024 or the longest sequence)" },
        { "epochs", OPT_INT, &s->epochs, "1", 0, 1e6, NULL, "passes through the training documents" },
        { "steps", OPT_INT, &s->steps, "0", 0, 1e9, NULL, "optimiser steps (0: as --epochs says)" },
        { "lr", OPT_REAL, &s->lr, "1e-3", 0, 10, NULL, "learning rate after warm-up; a cosine takes it to a tenth" },
        { "warmup", OPT_REAL, &s->warmup, "0.05", 0, 1, NULL, "share of the steps in which the learning rate rises" },
        { "weight-decay", OPT_REAL, &s->weight_decay, "0.1", 0, 10, NULL, "AdamW's weight decay; vectors are not decayed" },
        { "clip", OPT_REAL, &s->clip, "1", 0, 1e9, NULL, "largest gradient norm (0: none)" },
        { "eval-every", OPT_INT, &s->eval_every, "100", 0, 1e9, NULL, "steps between held-out perplexities (0: before and after)" },
        { "eval-documents", OPT_INT, &s->eval_documents, "200", 0, 1e9, NULL, "held-out documents at most" },
        { "save-every", OPT_INT, &s->save_every, "0", 0, 1e9, NULL, "steps between saves (0: at the end)" },
        { "seed", OPT_SEED, &s->seed, "1", 0, 0, NULL, "of the initial weights and of the order of documents" },
        { "dtype", OPT_CHOICE, &s->dtype, "f32", 0, 0, "f32|bf16|f16", "numbers as written; training is in f32" },
        { "shard-mb", OPT_INT, &s->shard_mb, "0", 0, 1e6, NULL, "split the weights into files of about so many megabytes (0: one file)" },
        { "dry-run", OPT_FLAG, &s->dry_run, NULL, 0, 0, NULL, "print the memory bill and stop" },
    };
    Program program = { "sft", "DATA --out DIR [--policy DIR | --tokenizer DIR --dim N --layers N ...] [options]",
        "Stage 1: next-token training of a policy on the documents of a dataset.", option, sizeof option / sizeof *option,
        preset, sizeof preset / sizeof *preset };
    const char *data[1] = { NULL };
    t.keep = cli_pool();
    cli_parse(&program, "scratch", argc, argv, data, 1);
    cli_parse(&program, s->lora_r || s->quant.nf4 || s->quant.fp4 ? "lora" : s->policy ? "finetune" : "scratch", argc, argv, data, 1);
    if (!data[0]) usage_error("which dataset?", NULL);
    check(&program, s);
    read_policy(&t, &program);
    read_documents(&t, data[0]);
    count_steps(&t);
    printf("%s: %lld documents, %d sequences, %lld tokens to learn; %d steps of about %d tokens\n", data[0], t.train.documents, t.train.count,
           t.train.tokens, t.steps, s->tokens);
    memory(&t);
    init_weights(&t);
    cli_interrupts();                       /* until here nothing is lost by stopping at once */
    open_run(&t, &program, data[0]);
    t.adam.beta1 = 0.9f; t.adam.beta2 = 0.95f; t.adam.eps = 1e-8f; t.adam.weight_decay = (float)s->weight_decay;
    const int done = train(&t);
    pool_free(&t.keep);
    return !done;
}
