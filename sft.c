/* sft.c - stage 1 of RLHF: next-token training of a policy on the documents of a dataset, from scratch or
 * from a checkpoint. It trains all weights, or an adapter (LoRA) next to frozen weights, which may be held
 * in 4 bits (QLoRA).
 *
 * Source   Ouyang et al. 2022 (InstructGPT), section 3.5: supervised fine-tuning comes before the reward
 *          model and PPO. Hu et al. 2021 (LoRA), Dettmers et al. 2023 (QLoRA).
 * Idea     loss = mean over all tokens of a step of -log p(token | those before it). A step is a budget of
 *          tokens, not of texts: whole sequences follow one another without padding, and pass through the
 *          model in micro-batches whose gradients add up.
 * Needs    a dataset (prep makes it), and a policy's folder or a tokenizer and sizes.
 * Never    trains on held-out documents; writes a weight that is not a number: a loss that is not a number
 *          ends the run, and the weights of the last good step are saved.
 * Edges    the same --seed gives the same bytes for any number of threads. Ctrl-C saves and stops; before
 *          the first step it writes no weights. A prompt's tokens (kind 3) are read but not learnt. A pair's
 *          (kind 2) chosen text is learnt. */
#include "programs.h"
#include <stdio.h>

#define PREP "prep makes a dataset from text, JSONL or CSV: ./prep --help"
enum { WALK_MAX = 100000000 };              /* most sequences of all --epochs together */

static struct {
    const char *policy, *tokenizer, *out, *fallback;
    int family, dim, layers, heads, kv_heads, ffn, positions, tied;
    int no_special;
    int context, head_only, no_eos, learn, tokens, batch_size, micro_tokens, epochs, steps;
    int eval_every, eval_documents, force;
    int dtype, shard_mb, dry_run;
    double lr, warmup, weight_decay, clip;
    QuantOptions quant;
    LoraOptions lora;
    RunOptions run;
    uint64_t seed;
} o;

/* A training sequence of `length` tokens. Those from index `learn` (>= 1) on count in the loss. The last
 * token predicts nothing, so a sequence takes length-1 rows. */
typedef struct { const int *token; int length, learn;
                 const int *text; int text_length /* what an encoder reads; 0 without one */; } Excerpt;
typedef struct { Excerpt *piece; int count, capacity, longest, longest_text;
                 long long documents, tokens; } Set;

typedef struct {
    ModelConfig config; Tokenizer *tokenizer;
    WeightTypes types;                      /* number types of the weights; F32 if they are trained */
    Model model; Lora lora; const Lora *adapter;
    Tensor *list; int tensors;              /* the tensors that are trained: the model's or the adapter's */
    Optimizer optimizer; AdamW adam;
    Set train, held;
    int N, B, T;                            /* most rows, sequences, rows of a sequence in a micro-batch */
    int soft, text_soft;                    /* rows of the soft prompt before a sequence, before a text */
    int positions;                          /* of the longest sequence or text, with these rows */
    Saved saved; Cache kv; Arena ws;
    RowList rows; float *hidden, *dhidden, *logprob;
    /* with an encoder: the texts of a micro-batch, at most E tokens, and what it makes of them */
    Reading reading; int E, *text, *text_start;
    int *order, at, epoch;                  /* the shuffled training set; the next one; the epoch */
    int step, steps;                        /* the last finished step; steps of the whole run */
    int evaluated;                          /* the step after which --eval-every has evaluated last */
    BestSave best;                              /* the least held-out loss, negative */
    double first, last;                     /* held-out losses: before training, and the last one */
    uint64_t frozen;                        /* a hash of the weights that are not trained; 0: not known yet */
    RunFolder out;
    Health health;
    Pool keep;
} Trainer;

/* ---- documents into sequences ---- */

/* Appends a sequence to a set. */
static void set_add(Set *s, Excerpt p, Pool *pool) {
    if (s->count == s->capacity) {
        const int capacity = s->capacity < INT_MAX / 4 ? s->capacity * 2 + 1024 : 0;
        Excerpt *wider = pool_need(pool, capacity ? (size_t)capacity : SIZE_MAX, sizeof *wider,
                              "so many sequences");
        if (s->count) memcpy(wider, s->piece, (size_t)s->count * sizeof *wider);
        s->piece = wider;
        s->capacity = capacity;
    }
    s->piece[s->count++] = p;
    if (p.length > s->longest) s->longest = p.length;
    if (p.text_length > s->longest_text) s->longest_text = p.text_length;
    s->tokens += p.length - p.learn;
}

/* Returns the ids of a document's text (NULL: no memory). *before: 1 if the tokenizer's template puts <s>
 * before them. *learn: index of the first token that counts in the loss. In a prompt with a response, that
 * is the first id that differs from those of the prompt alone, since the end of a prompt and the beginning
 * of a response may be one token. */
static int *document_ids(const Trainer *t, const Document *d, int kind, Pool *scratch, int *count,
                         int *learn, int *before) {
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
        if (!code) code = tokenizer_encode(t->tokenizer, d->text[0], d->length[0], scratch, &prompt,
                                           &prompts);
        if (code) return NULL;
        int same = 0;                       /* how many first ids of prompt and ids are equal */
        while (same < prompts && same < *count && prompt[same] == ids[same]) same++;
        if (!o.learn && same + *before > 1) *learn = same + *before;
    } else if (tokenizer_encode(t->tokenizer, d->text[0], d->length[0], scratch, &ids, count)) return NULL;
    return ids;
}

/* Adds a document to a set. A long document becomes several sequences of --context tokens. Each
 * begins with the last token of the sequence before it, so that every token except the document's
 * first is predicted exactly once. */
static void add_document(Trainer *t, Set *s, const Document *d, int kind, Pool *scratch) {
    SpecialIds special = tokenizer_specials(t->tokenizer);
    Error err = { 0 };
    int count, learn, before, *ids = document_ids(t, d, kind, scratch, &count, &learn, &before), n = 0;
    if (!ids) must(fail(&err, E_MEMORY, "no memory for a document's tokens", "dataset", 0, 0), &err, NULL);
    int eos = special.eos >= 0 ? special.eos : t->config.eos_count ? t->config.eos[0] : -1;
    int *kept = pool_need(&t->keep, (size_t)count + 2, sizeof *kept, "a document's tokens");
    if (before) kept[n++] = special.bos;
    memcpy(kept + n, ids, (size_t)count * sizeof *kept);
    n += count;
    if (!o.no_eos && eos >= 0) kept[n++] = eos;
    need_rows(t->tokenizer, kept, n, t->config.V, "policy");
    for (int from = 0; from + 1 < n; from += o.context - 1) {
        int length = n - from < o.context ? n - from : o.context, first = learn - from < 1 ? 1 : learn - from;
        const Excerpt piece = { kept + from, length, first, NULL, 0 };
        if (first < length) set_add(s, piece, &t->keep);
        if (o.head_only) break;
    }
    s->documents++;
}

/* Returns the ids of a text, at most --context, with one more id before and after it (-1: none); kept. */
static int *kept_ids(Trainer *t, const Document *d, int which, int before, int after, Pool *scratch, int *n) {
    Error err = { 0 };
    int *ids, count;
    if (tokenizer_encode(t->tokenizer, d->text[which], d->length[which], scratch, &ids, &count))
        must(fail(&err, E_MEMORY, "no memory for a document's tokens", "dataset", 0, 0), &err, NULL);
    const int room = o.context - (before >= 0) - (after >= 0);
    if (count > room) count = room;
    int *kept = pool_need(&t->keep, (size_t)count + 2, sizeof *kept, "a document's tokens");
    *n = 0;
    if (before >= 0) kept[(*n)++] = before;
    memcpy(kept + *n, ids, (size_t)count * sizeof *kept);
    *n += count;
    if (after >= 0) kept[(*n)++] = after;
    need_rows(t->tokenizer, kept, *n, t->config.V, "policy");
    return kept;
}

/* Adds a prompt with its response to a set: the encoder reads the prompt, the decoder writes the response. Of
 * each, the first --context tokens are kept. */
static void add_pair(Trainer *t, Set *s, const Document *d, Pool *scratch) {
    SpecialIds special = tokenizer_specials(t->tokenizer);
    int before, after, length, text_length;
    tokenizer_template(t->tokenizer, &before, &after);
    const int eos = special.eos >= 0 ? special.eos : t->config.eos_count ? t->config.eos[0] : -1;
    const int *text = kept_ids(t, d, 0, before ? special.bos : -1, after ? special.eos : -1, scratch,
                               &text_length);
    const int *token = kept_ids(t, d, 1, t->config.start, o.no_eos ? -1 : eos, scratch, &length);
    const Excerpt piece = { token, length, 1, text, text_length };
    if (length > 1 && text_length) set_add(s, piece, &t->keep);
    s->documents++;
}

/* Turns the whole dataset into sequences, and frees its texts, since training needs only the ids. */
static void read_documents(Trainer *t, const Program *p, const char *path) {
    Pool texts = cli_pool(), scratch = cli_pool();
    Dataset d;
    Error err = { 0 };
    must(dataset_read(&d, path, &texts, &err), &err, PREP);
    if (d.kind != DATA_PROMPTS && cli_given(p, "learn"))
        usage_hint("no effect (the documents are no prompts with responses)", "--learn", "leave --learn out");
    if (t->config.encoder.L && d.kind != DATA_PROMPTS)
        must(fail(&err, E_ARGUMENT, "a policy with an encoder learns responses to prompts; these are texts",
                  path, 0, 0), &err, "prep data INPUT --prompt FIELD --response FIELD");
    for (uint64_t i = 0; i < d.count; i++) {
        PoolMark mark = pool_mark(&scratch);
        const Document *document = &d.document[i];
        Set *set = !document->split ? &t->train : t->held.documents < o.eval_documents ? &t->held : NULL;
        if (set && t->config.encoder.L) add_pair(t, set, document, &scratch);
        else if (set) add_document(t, set, document, d.kind, &scratch);
        pool_release(&scratch, mark);
    }
    pool_free(&texts);
    pool_free(&scratch);
    if (!t->train.count)
        must(fail(&err, E_MISSING, "no training document with two tokens or more", path, 0, 0), &err, PREP);
}

/* ---- steps: whole sequences, in the shuffled order of an epoch, up to the budget of tokens ---- */

static int piece_rows(const Excerpt *p) { return p->length - 1; }

static void shuffle_epoch(Trainer *t) {
    Rng r = rng_stream(o.seed, (uint64_t)t->epoch, 0x5f7);
    for (int i = 0; i < t->train.count; i++) t->order[i] = i;
    rng_shuffle(&r, t->order, t->train.count);
}

/* Chooses the sequences of the next step: n of them, from order[*first] on. Returns n. An
 * epoch's last step may be small. */
static int next_step(Trainer *t, int *first) {
    int rows = 0, n = 0;
    if (t->at == t->train.count) { t->at = 0; t->epoch++; }
    if (!t->at) shuffle_epoch(t);
    for (*first = t->at; t->at < t->train.count; t->at++, n++) {
        int more = piece_rows(&t->train.piece[t->order[t->at]]);
        if (n && (o.batch_size ? n == o.batch_size : rows + more > o.tokens)) break;
        rows += more;
    }
    return n;
}

/* Counts the steps of the run, which the schedule needs: --steps, or the steps that next_step makes of
 * --epochs. WALK_MAX keeps this counting to a second or two, and the count within an int. */
static void count_steps(Trainer *t) {
    int first;
    if (o.steps < 0 && (long long)o.epochs * t->train.count > WALK_MAX)
        usage_error("more than a hundred million sequences in all: fewer --epochs, or --steps, which may be "
                    "as many", NULL);
    t->order = pool_need(&t->keep, (size_t)t->train.count, sizeof *t->order, "the order of sequences");
    t->steps = o.steps < 0 ? 0 : o.steps;
    for (int epoch = 0; o.steps < 0 && epoch < o.epochs; epoch++)
        for (t->at = 0, t->epoch = epoch; t->at < t->train.count; t->steps++) next_step(t, &first);
    t->at = t->epoch = 0;
}

/* ---- one micro-batch ---- */

/* Sets dloss/dlogprob = -1 / (tokens of the step) for each of n tokens. */
static void token_loss(void *context, int first, int n, const float *logprob, float *dlogprob) {
    const float *scale = context;
    (void)first; (void)logprob;
    for (int i = 0; i < n; i++) dlogprob[i] = -*scale;
}

/* Fills t->rows with as many sequences as fit into a micro-batch: order[first], order[first+1] ..., or with
 * order NULL, first, first+1 ... Returns how many it took, at most `count`. */
static int fill_rows(Trainer *t, const Set *s, const int *order, int first, int count) {
    int taken = 0, read = 0;
    t->rows.N = t->rows.W = 0;
    for (; taken < count && taken < t->B; taken++) {
        const Excerpt *p = &s->piece[order ? order[first + taken] : first + taken];
        if (t->rows.N + t->soft + piece_rows(p) > t->N) break;
        if (t->E && read + t->text_soft + p->text_length > t->E) break;
        if (t->E) {
            t->text_start[taken] = read;
            read += prompt_rows(t->text + read, t->text_soft);
            memcpy(t->text + read, p->text, (size_t)p->text_length * sizeof *p->text);
            t->text_start[taken + 1] = read += p->text_length;
        }
        rows_add(&t->rows, taken, t->soft, p->token, p->length, p->learn);
    }
    return taken;
}

/* Lets the encoder, if there is one, read the texts of the n sequences of a micro-batch. */
static int read_texts(Trainer *t, int n) {
    if (!t->E) return OK;
    const Texts texts = { t->text_start[n], n, t->text, t->text_start };
    t->kv.reading = &t->reading;
    t->kv.B = n;
    return model_encode(&t->model, t->adapter, &texts, &t->reading, &t->ws);
}

enum { STREAM_DROPOUT = 0xd509 };

/* Runs `count` sequences, from `first` on, forward, and with scale > 0 (1 / tokens of the step)
 * backward, which adds to the gradients. Dropout is for training only. Its masks depend on a row's
 * place in the step, so the size of micro-batches does not change them. Returns the sum of -log p;
 * *tokens: how many terms it has. */
static double pass(Trainer *t, const Set *s, const int *order, int first, int count, float scale,
                   long long *tokens) {
    Error err = { 0 };
    double sum = 0;
    const int train = scale > 0;
    *tokens = 0;
    t->lora.dropout.p = train ? (float)o.lora.dropout : 0;
    t->lora.dropout.row = t->lora.dropout.text_row = 0;
    while (count > 0) {
        const int taken = fill_rows(t, s, order, first, count);
        const Rows rows = rows_of(&t->rows);
        const HeadTask task = { .target = t->rows.target, .temperature = 1, .logprob = t->logprob,
                                .loss = train ? token_loss : NULL, .context = &scale, .dhidden = t->dhidden };
        int code = read_texts(t, taken);
        if (!code)
            code = model_forward(&t->model, t->adapter, &rows, &t->kv, train ? &t->saved : NULL, t->hidden,
                                 &t->ws);
        if (train) memset(t->dhidden, 0, (size_t)rows.W * (size_t)t->config.stack.C * sizeof(float));
        if (!code)
            code = model_logprobs(&t->model, t->adapter, t->hidden, rows.W, &task, &t->ws);
        if (!code && train) code = model_backward(&t->model, t->adapter, &rows, &t->kv, &t->saved,
                                                  t->dhidden, &t->ws);
        if (code) must(fail(&err, code, "the model's forward or backward failed", "sft", 0, 0), &err, NULL);
        for (int i = 0; i < t->rows.W; i++) sum -= (double)t->logprob[i];
        *tokens += t->rows.W;
        t->lora.dropout.row += (uint64_t)rows.N;
        if (t->E) t->lora.dropout.text_row += (uint64_t)t->text_start[taken];
        first += taken;
        count -= taken;
    }
    return sum;
}

/* Returns the mean of -log p over the held-out documents; its exponential is the perplexity. */
static double held_out(Trainer *t) {
    long long tokens;
    double sum = pass(t, &t->held, NULL, 0, t->held.count, 0, &tokens);
    return tokens ? sum / (double)tokens : 0;
}

/* Makes one optimiser step: the gradient of the mean over all tokens of the step, clipped by its norm, then
 * AdamW. Returns the loss. Before AdamW, *fault becomes what is wrong (why, or NULL); then no weight has been
 * changed. */
static double sft_step(Trainer *t, int step, long long *tokens, double *norm, const char **fault,
                       char why[160]) {
    int first, n = next_step(t, &first);
    long long targets = 0;
    double loss;
    for (int i = 0; i < n; i++) {
        const Excerpt *p = &t->train.piece[t->order[first + i]];
        targets += p->length - p->learn;
    }
    gradient_zero(t->list, t->tensors);
    t->lora.dropout.seed = rng_stream(o.seed, (uint64_t)step, STREAM_DROPOUT).state;
    loss = pass(t, &t->train, t->order, first, n, 1 / (float)targets, tokens) / (double)targets;
    *norm = gradient_norm(t->list, t->tensors);
    *fault = step_fault(why, loss, *norm, o.clip, t->list, t->tensors);
    if (*fault) return loss;
    t->adam.lr = (float)learning_rate(SCHEDULE_COSINE, o.lr, o.warmup, step, t->steps);
    const float scale = o.clip > 0 && *norm > o.clip ? (float)(o.clip / *norm) : 1;
    optimizer_step(&t->optimizer, 0, t->list, t->tensors, &t->adam, scale);
    return loss;
}

/* ---- memory ---- */

/* Lays out all arrays of a fixed size: weights, moments, activations, cache and rows. */
static void carve(void *run, Arena *a, Bill *bill) {
    Trainer *t = run;
    Error err = { 0 };
    const size_t n = (size_t)t->N;
    const int adapts = trains_adapter(&o.lora);
    must(model_carve(&t->model, &t->config, &t->types, !adapts, t->positions, &t->keep, a, &err), &err, NULL);
    bill_part(bill, adapts ? "weights (frozen)" : "weights and gradients", a);
    t->list = t->model.tensor; t->tensors = t->model.tensors; t->adapter = NULL;
    if (adapts) {
        const LoraConfig c = policy_adapter_options(&o.lora, &t->config, o.tokenizer ? o.tokenizer : o.policy,
                                                    &t->keep);
        adapter_carve(&t->lora, &c, t->model.tensor, t->model.tensors, 1, &t->keep, a);
        t->list = t->lora.tensor; t->tensors = t->lora.tensors; t->adapter = &t->lora;
        if (o.lora.dropout > 0) lora_dropout_carve(&t->lora, t->N > t->E ? t->N : t->E, a);
        bill_part(bill, o.lora.dropout > 0 ? "adapter, gradients, dropout" : "adapter and gradients", a);
    }
    optimizer_carve(&t->optimizer, t->list, t->tensors, a);
    bill_part(bill, "Adam's moments", a);
    saved_carve(&t->saved, &t->config.stack, t->N, t->N, o.quant.recompute, a);
    if (t->E) {
        reading_carve(&t->reading, &t->config, t->E, t->B, 1, o.quant.recompute, a);
        t->text = arena_take(a, (size_t)t->E, sizeof(int));
        t->text_start = arena_take(a, (size_t)t->B + 1, sizeof(int));
    }
    bill_part(bill, "saved activations", a);
    cache_carve(&t->kv, &t->config.stack, t->config.stack.L, t->B, t->T, a);
    bill_part(bill, "keys and values", a);
    t->logprob = arena_take(a, n, sizeof(float));
    t->hidden = arena_take(a, n * (size_t)t->config.stack.C, sizeof(float));
    t->dhidden = arena_take(a, n * (size_t)t->config.stack.C, sizeof(float));
    bill_part(bill, "rows", a);
}

/* Returns the bytes of work space that a micro-batch of the largest size needs. */
static size_t workspace(void *run) {
    Trainer *t = run;
    Arena ws = { 0 };
    const HeadTask task = { .temperature = 1, .loss = token_loss };
    if (t->E) {
        const Texts texts = { t->E, t->B, NULL, NULL };
        t->kv.reading = &t->reading;
        model_encode(&t->model, t->adapter, &texts, &t->reading, &ws);
    }
    Rows rows = { t->N, t->N, t->rows.token, t->rows.sequence, t->rows.position, t->rows.wants };
    model_forward(&t->model, t->adapter, &rows, &t->kv, &t->saved, NULL, &ws);
    model_logprobs(&t->model, t->adapter, NULL, rows.W, &task, &ws);
    model_backward(&t->model, t->adapter, &rows, &t->kv, &t->saved, NULL, &ws);
    return ws.peak;
}

static void memory(Trainer *t) {
    Error err = { 0 };
    RunMemory m = { 0 };
    m.run = t; m.carve = carve; m.workspace = workspace;
    t->soft = t->config.encoder.L ? 0 : o.lora.soft;
    t->text_soft = t->config.encoder.L ? o.lora.soft : 0;
    t->T = t->soft + (t->train.longest > t->held.longest ? t->train.longest : t->held.longest) - 1;
    t->N = o.micro_tokens ? o.micro_tokens : t->T > 1024 ? t->T : 1024;
    if (t->N < t->T) {
        fail(&err, E_ARGUMENT, t->soft ? "--micro-tokens is less than soft prompt and longest sequence"
                                       : "--micro-tokens is less than the longest sequence", "", t->N, t->T);
        die(&err, "a larger --micro-tokens, or a smaller --context");
    }
    const int most[2] = { t->train.longest_text, t->held.longest_text };
    const int text = t->text_soft + (most[0] > most[1] ? most[0] : most[1]);
    t->positions = t->T > text ? t->T : text;
    if (t->config.encoder.L) t->E = t->N > text ? t->N : text;
    /* enough sequences, if they are on average a quarter of the longest in size */
    t->B = 4 * t->N / t->T + 1;
    rows_take(&t->rows, t->N, &t->keep);
    memory_measure(&m);
    bill_add(&m.bill, "the dataset's tokens", t->keep.total);
    bill_print(&m.bill);
    run_room(o.out, t->list, t->tensors, o.dtype, t->optimizer.n, &o.run, t->steps, o.dry_run);
    if (o.dry_run) exit(0);
    memory_take(&m, &t->ws);
}

/* ---- the policy ---- */

/* The families of --family, in the order of its choices. */
static const char *const scratch_families[] = { "llama", "mistral", "qwen2", "qwen3", "gpt2", "t5" };

/* Fills the configuration of a new policy from the options. */
static void scratch_config(Trainer *t) {
    ModelConfig *c = &t->config;
    SpecialIds special = tokenizer_specials(t->tokenizer);
    memset(c, 0, sizeof *c);
    c->stack.C = o.dim; c->stack.L = c->encoder.L = o.layers;
    c->stack.H = o.heads; c->stack.K = o.kv_heads; c->stack.eps = 1e-5f;
    if (!strcmp(scratch_families[o.family], "t5")) {            /* FLAN-T5's shape */
        c->stack.gated = 1;
        c->stack.buckets = 32;
        c->stack.distance = 128;
        c->stack.eps = 1e-6f;
    }
    config_policy(c, scratch_families[o.family]);
    if (o.dim % o.heads || (c->stack.rotary && o.dim / o.heads % 2))
        usage_error(c->stack.rotary ? "--dim divided by --heads has to be an even whole number"
                                    : "--dim has to be a multiple of --heads", NULL);
    if (!c->stack.rotary && o.kv_heads)
        usage_error("this family has as many key heads as heads: leave out", "--kv-heads");
    if (o.kv_heads && o.heads % o.kv_heads) usage_error("--heads has to be a multiple of --kv-heads", NULL);
    c->V = tokenizer_size(t->tokenizer);
    c->stack.F = c->encoder.F = o.ffn ? o.ffn : c->stack.gated ? (o.dim * 8 / 3 + 31) / 32 * 32 : 4 * o.dim;
    c->positions = o.positions; c->tied = o.tied || c->learned;
    c->scaled = c->encoder.L && c->tied;
    c->start = special.pad >= 0 ? special.pad : 0;
    c->stack.rope.theta = 10000; c->stack.rope.type = ROPE_PLAIN; c->stack.rope.factor = 1;
    c->bos = special.bos; c->pad = special.pad;
    if (special.eos >= 0) { c->eos[0] = special.eos; c->eos_count = 1; }
}

static void read_policy(Trainer *t, const Program *program) {
    Error err = { 0 };
    if (!o.tokenizer && !o.policy)
        usage_error("training from scratch needs --tokenizer (prep tokenizer makes one), else give --policy",
                    NULL);
    t->tokenizer = open_policy(&t->config, o.policy, o.tokenizer, &t->keep);
    if (o.no_special) tokenizer_split_special(t->tokenizer);
    t->types.compute = o.quant.compute;
    if (o.policy) quant_options_types(&t->types, program, &o.quant, o.policy, !trains_adapter(&o.lora),
                                      &t->keep);
    else scratch_config(t);
    if (t->config.encoder.L && (o.head_only || o.learn))
        usage_error("a policy with an encoder learns responses, whole: leave out",
                    o.learn ? "--learn" : "--head-only");
    if (o.lora.soft && !cli_given(program, "context") && o.context > t->config.positions - o.lora.soft)
        o.context = t->config.positions - o.lora.soft;
    if (o.context < 2 || o.context + o.lora.soft > t->config.positions) {
        fail(&err, E_RANGE, o.lora.soft ? "--context and --prompt-tokens are more than the policy's positions"
                                        : "--context is more than the policy's positions", "",
             o.context + o.lora.soft, t->config.positions);
        die(&err, o.policy ? "a smaller --context" : "a larger --positions, or a smaller --context");
    }
}

static void init_weights(Trainer *t) {
    size_t all, trained;
    char words[200];
    if (o.policy) {
        open_weights(t->model.tensor, t->model.tensors, o.policy, "--policy", NULL, &t->keep);
        say_value_head(o.policy, &t->keep);
    } else model_init(&t->model, o.seed);
    if (t->adapter) adapter_start(&t->lora, &o.lora, &t->model, t->tokenizer, o.seed, &t->keep);
    optimizer_reset(&t->optimizer);
    all = tensor_values(t->model.tensor, t->model.tensors, 0);
    trained = tensor_values(t->list, t->tensors, 1);
    say("policy: %s", o.policy ? o.policy : "from scratch");
    print_types(t->adapter ? "frozen weights" : "weights", &t->types);
    if (t->adapter) say("training %s", adapter_words(words, &t->lora.config));
    print_trainable(trained, t->adapter ? all + trained : all);
}

static uint64_t shard_bytes(void) { return (uint64_t)o.shard_mb * 1000000u; }

/* Writes the weights to a folder: see Saver. */
static int write_weights(void *run, const char *folder, Error *err) {
    const Trainer *t = run;
    if (t->adapter) return save_adapter(&t->lora, o.policy, folder, o.dtype, err);
    return save_policy(&t->model, t->tokenizer, folder, o.dtype, shard_bytes(), err);
}

/* What a run knows between two steps: a StateVisit. */
static void sft_state(void *run, State *s) {
    Trainer *t = run;
    const RunState common = { &t->out, &t->health, &t->step, t->list, t->tensors, &t->optimizer };
    run_state(s, &common);
    if (!t->frozen) t->frozen = frozen_hash(t->model.tensor, t->model.tensors);
    state_same(s, "frozen weights", t->frozen, "these weights are other ones than when the run began",
               o.policy);
    state_int(s, "epoch", &t->epoch, 0, INT_MAX - 1);
    state_int(s, "next sequence", &t->at, 0, t->train.count);
    state_int(s, "step of the last evaluation", &t->evaluated, 0, INT_MAX);
    run_best_state(s, &t->best);
    state_real(s, "first held-out loss", &t->first);
    state_real(s, "last held-out loss", &t->last);
    if (s->code == OK && s->file) shuffle_epoch(t);
}

/* Saves the weights, and the state if there are more steps to go on with. last 1: no step follows now. */
static void save(Trainer *t, int last) {
    const int finished = last && t->step == t->steps && !cli_stopping();
    const Saver saver = { &t->out, write_weights, t, &o.run, finished ? NULL : sft_state };
    run_save(&saver, t->step, last);
}

/* ---- the run ---- */

static void log_step(Trainer *t, int step, double loss, double norm, long long tokens, double seconds) {
    PoolMark mark = pool_mark(&t->keep);
    Log log;
    log_begin(&log, t->out.log, &t->keep);
    log_integer(&log, "step", step); log_integer(&log, "epoch", t->epoch);
    log_number(&log, "loss", loss); log_number(&log, "perplexity", exp(loss));
    log_number(&log, "grad_norm", norm); log_number(&log, "learning_rate", (double)t->adam.lr);
    log_integer(&log, "tokens", tokens);
    out_log(&t->out, &log);
    log_begin(&log, t->out.time, &t->keep);
    log_integer(&log, "step", step); log_number(&log, "seconds", seconds);
    log_number(&log, "tokens_per_second", (double)tokens / seconds);
    out_log(&t->out, &log);
    pool_release(&t->keep, mark);
}

/* Logs the held-out loss and its perplexity, and keeps the weights if they are the best so far. Returns the
 * loss, or 0 if there are no held-out documents. */
static double evaluate(Trainer *t, int step) {
    PoolMark mark = pool_mark(&t->keep);
    Log log;
    if (!t->held.count) return 0;
    double loss = held_out(t);
    log_begin(&log, t->out.log, &t->keep);
    log_integer(&log, "step", step);
    log_number(&log, "eval/loss", loss); log_number(&log, "eval/perplexity", exp(loss));
    out_log(&t->out, &log);
    pool_release(&t->keep, mark);
    const Saver saver = { &t->out, write_weights, t, &o.run, NULL };
    run_best(&saver, &t->best, -loss, step);
    return loss;
}

/* Ends the run at a step whose loss or gradient is not a number. The weights are still those after the
 * previous step. They are saved if they are useful: if this loss or the held-out loss is a number, and better
 * weights have not been saved. */
static void stop_at_nan(Trainer *t, const char *fault, int step, double loss) {
    const Saver saver = { &t->out, write_weights, t, &o.run, NULL };
    const int good = !(t->health.bad && t->out.saved) &&
                     (isfinite(loss) || (t->held.count && isfinite(held_out(t))));
    stop_not_a_number(fault, step, step > 1, good, &saver, start_hint(t->types.compute), SMALLER_STEPS);
}

/* Writes the perplexity of a loss to out, and returns out: with so many decimals, or, where that would be a
 * long row of digits, as 1.23e+45. */
static const char *perplexity(char out[40], double loss, int decimals) {
    snprintf(out, 40, exp(loss) < 1e6 ? "%.*f" : "%.*e", decimals, exp(loss));
    return out;
}

/* Shows a step on the screen. held: the last held-out loss. */
static void show_step(const Trainer *t, int step, double loss, double held, double speed, int last) {
    char text[240], seen[60] = "", number[40];
    if (t->held.count) snprintf(seen, sizeof seen, "  held-out %s", perplexity(number, held, 2));
    snprintf(text, sizeof text, "loss %.4f  perplexity %s%s  lr %.2e  %.0f tokens/s", loss,
             perplexity(number, loss, 2), seen, (double)t->adam.lr, speed);
    progress(text, step, t->steps, last);
}

/* Makes a step, logs it, and judges the run by its loss. Returns the loss; *speed: tokens in a second. */
static double make_step(Trainer *t, double *speed) {
    const double begin = wall_clock();
    long long tokens;
    double norm;
    char why[160];
    const char *fault;
    const double loss = sft_step(t, ++t->step, &tokens, &norm, &fault, why);
    if (fault) stop_at_nan(t, fault, t->step, loss);
    fault = weights_fault(why, t->list, t->tensors, o.dtype);
    if (fault) die_not_a_number(fault, t->step, t->out.saved, t->out.path, SMALLER_WEIGHTS);
    health_of_step(&t->health, loss);
    health_warn(&t->health, t->step, SMALLER_STEPS);
    double seconds = wall_clock() - begin;
    if (seconds <= 0) seconds = 1e-9;
    *speed = (*speed > 0 ? 0.9 * *speed : 0) + (*speed > 0 ? 0.1 : 1) * (double)tokens / seconds;
    out_begun(&t->out);
    cli_time_limit(o.run.minutes);
    log_step(t, t->step, loss, norm, tokens, seconds);
    report_live(&t->out);
    return loss;
}

/* Measures the held-out loss before the first step. */
static void evaluate_before(Trainer *t) {
    char number[2][64], value[40];
    t->first = t->last = t->health.start = evaluate(t, 0);
    if (!isfinite(t->first)) stop_at_nan(t, "the held-out loss is not a number", 1, t->first);
    if (!t->held.count) say("no held-out documents: no perplexity");
    else say("held-out perplexity before: %s (%s, %s)", perplexity(value, t->first, 3),
             counted(number[0], (size_t)t->held.documents, "document"),
             counted(number[1], (size_t)t->held.tokens, "token"));
}

/* Trains, evaluates and saves as the options say. What is due after a step is done before the next one: so a
 * run that was stopped after a step, and goes on, does it then. Returns the exit code. */
static int train(Trainer *t) {
    const double start = wall_clock();
    double speed = 0, loss = 0;
    int stop;
    char number[64], value[2][40];
    for (;;) {
        stop = cli_stopping();
        if (!stop && run_due(o.eval_every, t->step) && t->evaluated != t->step) {
            t->last = evaluate(t, t->step);
            t->evaluated = t->step;
        }
        if (run_due(o.run.save_every, t->step) && t->step < t->steps && t->out.saved != t->step &&
            !t->health.bad) save(t, 0);
        if (speed > 0) show_step(t, t->step, loss, t->last, speed, stop || t->step == t->steps);
        if (stop || t->step >= t->steps) break;
        loss = make_step(t, &speed);
    }
    /* before the evaluation, which takes time; but not over better weights */
    if (t->step && t->out.saved != t->step && !(t->health.bad && t->out.saved)) save(t, 1);
    if (t->step && !stop && t->evaluated != t->step) t->last = evaluate(t, t->step);
    if (t->step && !stop && t->held.count) {
        say("held-out perplexity: %s before, %s after %s", perplexity(value[0], t->first, 3),
            perplexity(value[1], t->last, 3), counted(number, (size_t)t->step, "step"));
        health_of_held_out(&t->health, t->last);
    }
    if (!stop) {
        health_end(&t->health, &t->out, SMALLER_STEPS);
        run_finish(&t->out);
    }
    run_say_best(&t->out, &t->best);
    return run_ended(&t->out, t->step, wall_clock() - start);
}

/* Makes the run's folder and begins its logs, or goes on with a run. Returns 1 if it goes on. */
static int open_run(Trainer *t, const Program *p, const char *data) {
    const RunBegin how = { p, data, &o.run, o.out, "runs", "sft", o.force };
    const Saver saver = { &t->out, write_weights, t, &o.run, sft_state };
    t->out.fallback = o.fallback;
    return run_begin(&saver, &how, &t->keep);
}

/* ---- options ---- */

static Option options[] = {
    { "out", OPT_TEXT, &o.out, NULL, 0, 0, NULL,
      "folder to write (default: runs/sft-0001, the next free number)" },
    FORCE_OPTION(o.force),
    FALLBACK_OPTION(o.fallback),
    { "policy", OPT_TEXT, &o.policy, NULL, 0, 0, NULL,
      "start from this Hugging Face folder; without it, from scratch" },
    { "tokenizer", OPT_TEXT, &o.tokenizer, NULL, 0, 0, NULL,
      "tokenizer.model, or a folder that has a tokenizer (default: --policy's)" },
    NO_SPECIAL_OPTION(o.no_special),
    { "family", OPT_CHOICE, &o.family, "llama", 0, 0, "llama|mistral|qwen2|qwen3|gpt2|t5",
      "from scratch: the kind of model, as config.json's model_type" },
    { "dim", OPT_INT, &o.dim, "128", 2, 1e6, NULL, "from scratch: model width C" },
    { "layers", OPT_INT, &o.layers, "4", 1, 1000, NULL, "from scratch: layers L" },
    { "heads", OPT_INT, &o.heads, "4", 1, 1000, NULL, "from scratch: attention heads H" },
    { "kv-heads", OPT_INT, &o.kv_heads, "0", 0, 1000, NULL,
      "from scratch: key/value heads K (0: as many as heads)" },
    { "ffn", OPT_INT, &o.ffn, "0", 0, 1e7, NULL,
      "from scratch: feed-forward width F (0: 8/3 of --dim, up to a multiple of 32; gpt2: 4 times --dim)" },
    { "positions", OPT_INT, &o.positions, "512", 2, 1e7, NULL, "from scratch: most tokens of a text" },
    { "tied", OPT_FLAG, &o.tied, NULL, 0, 0, NULL, "from scratch: the head is the embedding" },
    LORA_OPTIONS(o.lora),
    LORA_DROPOUT_OPTION(o.lora),
    PROMPT_OPTIONS(o.lora),
    QUANT_OPTIONS(o.quant, QLORA_HELP "; without --lora-r, with an adapter of rank 16 on all seven linears"),
    COMPUTE_OPTION(o.quant),
    RECOMPUTE_OPTION(o.quant),
    { "context", OPT_INT, &o.context, "256", 2, 1e7, NULL,
      "most tokens of a sequence; a longer document becomes several sequences" },
    { "head-only", OPT_FLAG, &o.head_only, NULL, 0, 0, NULL,
      "use only the first --context tokens of a longer document" },
    { "no-eos", OPT_FLAG, &o.no_eos, NULL, 0, 0, NULL, "documents do not end with the end-of-text token" },
    { "learn", OPT_CHOICE, &o.learn, "response", 0, 0, "response|all",
      "the part that counts in the loss, if documents are prompts with responses" },
    { "tokens", OPT_INT, &o.tokens, "4096", 1, 1e9, NULL, "tokens of an optimiser step" },
    { "batch-size|batch", OPT_INT, &o.batch_size, "0", 0, 1e9, NULL,
      "sequences of an optimiser step (0: as many as --tokens takes)" },
    { "micro-tokens", OPT_INT, &o.micro_tokens, "0", 0, 1e8, NULL,
      "most tokens of a forward pass, which limits memory (0: 1024, or the longest sequence)" },
    { "epochs", OPT_INT, &o.epochs, "1", 1, 1e6, NULL, "passes through the training documents" },
    STEPS_OPTION(o.steps),
    { "learning-rate|lr", OPT_REAL, &o.lr, "1e-3", 0, 10, NULL,
      "learning rate after warm-up; then it decreases along a cosine to a tenth" },
    { "warmup", OPT_REAL, &o.warmup, "0.05", 0, 1, NULL,
      "share of the steps in which the learning rate increases" },
    { "weight-decay", OPT_REAL, &o.weight_decay, "0.1", 0, 10, NULL,
      "AdamW's weight decay, of matrices only" },
    { "max-grad-norm|clip", OPT_REAL, &o.clip, "1", 0, 1e9, NULL,
      "larger gradient norms are scaled down to this (0: never)" },
    { "eval-every", OPT_INT, &o.eval_every, "100", 0, 1e9, NULL,
      "steps between held-out perplexities (0: only before and after training)" },
    { "eval-documents", OPT_INT, &o.eval_documents, "200", 0, 1e9, NULL,
      "most held-out documents that are used" },
    RUN_OPTIONS(o.run, "0", "steps between saves (0: only at the end)"),
    SEED_OPTION(o.seed, "1", "random seed of the initial weights, the order of documents and dropout"),
    DTYPE_OPTION(o.dtype),
    { "shard-mb", OPT_INT, &o.shard_mb, "0", 0, 1e6, NULL,
      "split the weights into files of about this many megabytes (0: one file)" },
    DRY_RUN_OPTION(o.dry_run),
};
static const char *const preset_scratch[] = { "learning-rate", "1e-3", "weight-decay", "0.1", NULL };
static const char *const preset_finetune[] = { "learning-rate", "2e-5", "weight-decay", "0", NULL };
static const char *const preset_prompt[] = { "learning-rate", "2e-2", "weight-decay", "0", NULL };
static const char *const preset_lora[] = { "learning-rate", "2e-4", "weight-decay", "0", NULL };
static const Preset preset[] = {
    { "scratch", "a new policy (the default without --policy)", preset_scratch },
    { "finetune", "all weights of a checkpoint (the default with --policy)", preset_finetune },
    { "lora", "an adapter next to a checkpoint (the default with --lora-r, --nf4, --fp4)", preset_lora },
    { "prompt", "a soft prompt alone (the default with --prompt-tokens)", preset_prompt },
};
static const Need needs[] = {
    { "nf4|fp4|lora-r|prompt-tokens", "policy", "frozen weights are those of a checkpoint" },
    { "family|dim|layers|heads|kv-heads|ffn|positions|tied", "!policy", "the checkpoint has its own sizes" },
    QUANT_NEEDS, LORA_NEEDS, LORA_DROPOUT_NEED, PROMPT_NEEDS, RUN_NEEDS,
    { "shard-mb", "!lora-r", "an adapter is one file" },
    { "shard-mb", "!prompt-tokens", "a soft prompt is one file" },
    { "tokens", "!batch-size", NULL },
    { "force", "out", "without --out the folder is a new one" },
    { "epochs", "!steps", NULL },
    { "eval-every", "eval-documents", NULL },
    { NULL, NULL, NULL } };

static const char *usual_preset(const char **why) {
    const int soft = o.lora.soft && !o.lora.rank, adapts = o.lora.rank || o.quant.nf4 || o.quant.fp4;
    *why = soft ? "a soft prompt is trained" : adapts ? "an adapter is trained"
         : o.policy ? "all weights of --policy are trained"
         : "a new policy, since there is no --policy";
    return soft ? "prompt" : adapts ? "lora" : o.policy ? "finetune" : "scratch";
}

/* Refuses values that do not fit together. */
static void check_options(const Program *p) {
    static Pool names;                      /* keeps the names of an adapter's folders */
    names = cli_pool();
    adapter_as_model(&o.policy, NULL, "./run merge BASE --adapter ADAPTER --out MERGED, then --policy MERGED",
                     &names);
    if (o.policy) quant_options_check(p, &o.quant, &o.lora.rank, &o.lora.targets, o.lora.soft > 0);
}

static const Program program = {
    .program = "sft",
    .usage = "DATA --out DIR [--policy DIR | --tokenizer DIR --dim N --layers N ...] [options]",
    .about = "Stage 1: next-token training of a policy on the documents of a dataset.",
    OPTIONS(options), PRESETS(preset), .need = needs, .usual = usual_preset, .check = check_options,
    .may_change = MAY_CHANGE };

/* Prints what is learned, in how many steps. */
static void say_what(const Trainer *t, const char *data) {
    char number[4][64], size[64];
    if (o.batch_size) counted(size, (size_t)o.batch_size, "sequence");
    else snprintf(size, sizeof size, "about %d tokens", o.tokens);
    say("%s: %s, %s, %s to learn; %s of %s", data,
        counted(number[0], (size_t)t->train.documents, "document"),
        counted(number[1], (size_t)t->train.count, "sequence"),
        counted(number[2], (size_t)t->train.tokens, "token"), counted(number[3], (size_t)t->steps, "step"),
        size);
}

int main(int argc, char **argv) {
    static Trainer t;
    const char *data[1] = { NULL };
    t.keep = cli_pool();
    cli_parse(&program, argc, argv, data, 1);
    if (!data[0]) usage_error("which dataset?", NULL);
    cli_say_preset();
    const char *const input[] = { data[0], o.policy, o.tokenizer };
    if (o.out && !o.run.resume) out_check(o.out, o.force, input, 3);
    say_digits();
    read_policy(&t, &program);
    read_documents(&t, &program, data[0]);
    count_steps(&t);
    say_what(&t, data[0]);
    memory(&t);
    init_weights(&t);
    cli_interrupts();                       /* before this, Ctrl-C ends the program; nothing is lost */
    t.health.blind = log(t.config.V);
    if (!open_run(&t, &program, data[0])) evaluate_before(&t);
    t.adam.beta1 = 0.9f;
    t.adam.beta2 = 0.95f;
    t.adam.eps = 1e-8f;
    t.adam.weight_decay = (float)o.weight_decay;
    return train(&t);
}
