/* rm.c - stage 2 of RLHF: trains a reward model on labelled texts, or on pairs of a chosen and a rejected
 * text, from scratch or from a checkpoint.
 *
 * Source   Stiennon et al. 2020 and Ouyang et al. 2022, section 3.5 (the pairwise loss); Devlin et al. 2018
 *          (the classifier).
 * Idea     PPO shows the judge beginnings of 10 to 40 tokens, not whole reviews. So half of the examples
 *          are crops of random length (log-uniform, since 10 and 20 tokens differ as much as 100 and 200).
 *          PPO also finds texts that no person wrote. So a few examples repeat one phrase: their target is
 *          the same share for every label, and in a pair they take the place of the rejected text.
 * Loss     labels: cross-entropy with soft targets; the reward is the logit of one label. Pairs: -p log
 *          sigmoid(d) - (1-p) log sigmoid(-d), where d is the chosen text's score minus the rejected one's,
 *          and p the probability that the chosen one is better: 1, unless the dataset has another.
 * Needs    a dataset (prep makes it), and a tokenizer's folder and sizes, or a reward model's folder to
 *          start from. All its weights are trained, or an adapter (LoRA) with a copy of the head, next to
 *          frozen weights, which may be held in 4 bits. Then the folder that is written is peft's, with the
 *          head among modules_to_save.
 * Never    trains on held-out texts; writes a weight that is not a number: a loss that is not a number
 *          ends the run, and the weights of the last good step are saved.
 * Edges    order, crops and phrases depend on the seed and the text's number alone, so one seed gives the
 *          same bytes for any number of threads. A text longer than the model's limit is cut at its end;
 *          how many there are is printed, and is the log's second line.
 *          Ctrl-C saves and stops; before the first step it writes no weights. */
#include "programs/rm.h"
#include <stdio.h>

#define PREP "prep makes a dataset of labelled texts or of pairs: ./prep --help"
enum { SHORTEST = 8,            /* fewest tokens of a crop */
       PROBE = 32,              /* tokens of a probe: a word or a phrase, repeated */
       WORDS = 200, PHRASES = 100, TABLE = 1 << 19 };   /* probes of each kind; slots of the hash table */

static struct {
    const char *reward, *tokenizer, *out, *fallback, *label, *reference;
    int family, dim, layers, heads, ffn, positions, new_head, window, epochs, steps, batch, micro_tokens,
        eval_every, eval_texts, force, no_special;
    int dtype, dry_run;
    double crop, spam, dropout, smoothing, lr, warmup, weight_decay, clip;
    QuantOptions quant;
    LoraOptions lora;
    RunOptions run;
    uint64_t seed;
} o;

/* Texts as tokens, without special tokens. The texts of pair i are 2i (chosen) and 2i + 1 (rejected).
 * label[i] belongs to example i. */
typedef struct { const int *token; int count; } Text;
/* longer: texts that have more tokens than the model reads. */
typedef struct { Text *text; int *label; int examples, longer; long long tokens; } Set;

/* One forward's texts: B texts of N tokens in all, and room for `texts` texts of `tokens` tokens. target
 * (B,labels): the probabilities to learn, of pair i only p at target[i]; truth: the text's label (of a pair,
 * as the dataset has it), -1 for a repeated phrase. */
typedef struct {
    int *token, *start, *truth, *label, N, B, tokens, texts;
    float *target, *logits, *dlogits, *loss, *dloss;
} Batch;

typedef struct {
    WeightTypes types;                      /* number types of the weights; F32 if they are trained */
    Lora lora; const Lora *adapter;         /* adapter: &lora, or NULL when all weights are trained */
    Tensor *list; int tensors;              /* trained and saved tensors: all weights, or the adapter's */
    RewardModel model; RewardConfig config; Tokenizer *tokenizer; SpecialIds special; int mask;
    int before, after;                      /* the ids that the template puts around a text; -1: none */
    unsigned char *starts_word;             /* (V) 1: this token begins with a space */
    Dataset data; int pairs, per;           /* pairs: 1 if the data are pairs; per: texts of an example */
    Set train, held;
    int reward_label, reference, steps;
    int limit;                              /* most tokens of a text, without special tokens */
    RewardSaved saved; Optimizer optimizer; Batch batch; int *example, *order; long long epoch; Arena ws;
    double loss, right, judged;             /* since the log's last line: losses, right and all answers */
    int step, logged;                       /* the last finished step, and that of this line */
    double norm;                            /* of the last step's gradient */
    double seconds, tokens;                 /* of the steps since the log's last line in this program */
    BestSave best;                              /* the least held-out loss, negative */
    uint64_t frozen;                        /* a hash of the weights that are not trained; 0: not known yet */
    RunFolder out;
    Health health;
    Pool keep, scratch;
    char seen[80];                          /* text for the screen: the last held-out accuracies */
} Trainer;

/* ===================================================================================================
 * The model and its labels
 * =================================================================================================== */

/* Names the outputs as the dataset's labels, in the same order; pairs have one output, "reward". */
static void labels_take(RewardConfig *c, const Dataset *d) {
    Error err = { 0 };
    if (d->kind == DATA_PAIRS) {
        c->labels = 1;
        strcpy(c->label[0], "reward");
        return;
    }
    if (d->labels < 2 || d->labels > LABELS_MAX)
        must(fail(&err, E_RANGE, "the dataset's labels: from 2 to 32 are possible", "", d->labels,
                  d->labels < 2 ? 2 : LABELS_MAX), &err, "./prep data --labels");
    c->labels = d->labels;
    for (int i = 0; i < d->labels; i++) {
        if (strlen(d->label[i]) >= sizeof c->label[i])
            must(fail(&err, E_RANGE, "a label's name is too long", d->label[i], 0, 0), &err,
                 "47 bytes at most");
        strcpy(c->label[i], d->label[i]);
    }
}

/* Changes the documents' labels to the numbers of the checkpoint's outputs. Dies if the two
 * sets of labels are not equal. */
static void labels_match(Trainer *t) {
    Error err = { 0 };
    const char *hint = "--new-head starts a new head for these labels";
    int number[LABELS_MAX];
    if (t->pairs) return;                   /* a pair needs only output 0 */
    if (t->data.labels != t->config.labels)
        must(fail(&err, E_SHAPE, "the reward model has another number of labels than the dataset", o.reward,
                  t->config.labels, t->data.labels), &err, hint);
    for (int i = 0; i < t->data.labels; i++) {
        number[i] = label_find(&t->config, t->data.label[i]);
        if (number[i] < 0)
            must(fail(&err, E_MISSING, "the reward model has no such label", t->data.label[i], 0, 0), &err,
                 hint);
    }
    for (uint64_t i = 0; i < t->data.count; i++)
        if (t->data.document[i].label >= 0) t->data.document[i].label = number[t->data.document[i].label];
}

/* Returns the output that is reported as the reward: that of --label; without it, the only positive one
 * (label_find), or else the last. */
static int choose_reward(const Trainer *t) {
    if (o.label) return label_need(&t->config, o.label, "--label");
    const int found = t->pairs ? 0 : label_find(&t->config, NULL);
    return found >= 0 ? found : t->config.labels - 1;
}

/* Returns the index of the label that --reference names, or -1 without --reference. */
static int choose_reference(const Trainer *t) {
    Error err = { 0 };
    if (!o.reference) return -1;
    const int found = label_need(&t->config, o.reference, "--reference");
    if (found == t->reward_label || t->config.labels < 2)
        must(fail(&err, E_ARGUMENT, "the reward's label would always be 0", o.reference, 0, 0), &err,
             "--reference NAME, with another label's name");
    return found;
}

/* The families of --family, in the order of its choices. */
static const char *const scratch_families[] = { "roberta", "xlm-roberta", "bert", "distilbert", "llama",
                                                "mistral", "qwen2", "qwen3", "gpt2" };

/* Returns 1 if an id begins a word. Byte-level BPE writes the blank before it as U+0120, SentencePiece as
 * U+2581; WordPiece marks the ids that do not begin a word with ##. */
static unsigned char starts_word(const Tokenizer *t, int id) {
    size_t n;
    const char *piece = tokenizer_piece(t, id, &n);
    if (!piece) return 0;
    if (tokenizer_kind(t) == TOKENIZER_WORDPIECE) return n < 2 || memcmp(piece, "##", 2) != 0;
    if (tokenizer_kind(t) == TOKENIZER_SENTENCEPIECE) return n >= 3 && !memcmp(piece, "\xE2\x96\x81", 3);
    return n >= 2 && !memcmp(piece, "\xC4\xA0", 2);
}

static void read_tokenizer(Trainer *t) {
    Error err = { 0 };
    int before, after;
    const char *path = o.tokenizer ? o.tokenizer : o.reward;
    t->tokenizer = open_judge(&t->config, o.reward, o.tokenizer, &t->keep);
    if (o.no_special) tokenizer_split_special(t->tokenizer);
    t->special = tokenizer_specials(t->tokenizer);
    tokenizer_template(t->tokenizer, &before, &after);
    t->before = before ? t->special.bos : -1;
    t->after = after ? t->special.eos : -1;
    t->mask = tokenizer_find(t->tokenizer, "<mask>", 6);
    if (t->mask < 0) t->mask = tokenizer_find(t->tokenizer, "[MASK]", 6);
    if (o.reward && t->mask >= t->config.V) t->mask = -1;
    if (t->mask < 0 && o.dropout > 0)
        must(fail(&err, E_MISSING, "--token-dropout needs <mask> or [MASK] in the tokenizer", path, 0, 0),
             &err, "leave --token-dropout out");
    const int V = tokenizer_size(t->tokenizer);
    t->starts_word = pool_need(&t->keep, (size_t)V, 1, "vocabulary");
    for (int i = 0; i < V; i++) t->starts_word[i] = starts_word(t->tokenizer, i);
}

/* Fills the configuration of a new judge from the options. */
static void scratch_config(Trainer *t) {
    RewardConfig *c = &t->config;
    Error err = { 0 };
    c->V = tokenizer_size(t->tokenizer);
    c->stack.C = o.dim;
    c->stack.L = o.layers;
    c->stack.H = o.heads;
    c->stack.F = o.ffn ? o.ffn : 4 * o.dim;
    c->positions = o.positions;
    config_judge(c, scratch_families[o.family]);
    if (o.dim % o.heads || (c->stack.rotary && c->stack.D % 2))
        usage_error(c->stack.rotary ? "--dim divided by --heads has to be an even whole number"
                                    : "--dim has to be a multiple of --heads", NULL);
    if (c->names->part[NAME_TYPE]) c->types = c->from_zero ? 2 : 1;
    c->stack.eps = c->from_zero && !c->stack.causal ? 1e-12f : 1e-5f;
    c->stack.rope.theta = 10000;
    c->pad = t->special.pad;
    c->bos = t->special.bos;
    c->eos[0] = t->special.eos;
    c->eos_count = t->special.eos >= 0;
    if (c->pad < 0 && !c->stack.causal)
        must(fail(&err, E_UNSUPPORTED, "a tokenizer without a pad token, which this family needs",
                  o.tokenizer, 0, 0), &err, "one of `prep tokenizer --kind bytelevel` or wordpiece");
    labels_take(c, &t->data);
}

static void read_config(Trainer *t, const Program *p) {
    RewardConfig *c = &t->config;
    read_tokenizer(t);
    if (o.reward) {
        if (o.new_head) labels_take(c, &t->data);
        else labels_match(t);
    } else {
        scratch_config(t);
    }
    t->types.compute = o.quant.compute;
    if (o.reward) judge_options_types(&t->types, p, &o.quant, c, o.reward, !o.lora.rank, &t->keep);
    t->limit = judge_limit(c, t->tokenizer) - (t->before >= 0) - (t->after >= 0);
    t->reward_label = choose_reward(t);
    t->reference = choose_reference(t);
}

/* ===================================================================================================
 * Documents into tokens
 * =================================================================================================== */

/* Returns 1 if a document can be an example: it is a pair, or it has a label. */
static int usable(const Trainer *t, const Document *d) { return t->pairs || d->label >= 0; }

/* Returns the ids of a text, cut to t->limit unless --window may read any part of it. Adds 1 to *longer
 * (NULL: not wanted) if the text has more ids than t->limit. */
static Text tokenise(Trainer *t, const char *text, size_t n, int *longer) {
    const PoolMark mark = pool_mark(&t->scratch);
    Text out = { NULL, 0 };
    int *ids, *copy, count;
    Error err = { 0 };
    must(fail(&err, tokenizer_encode(t->tokenizer, text, n, &t->scratch, &ids, &count),
              "cannot encode a text", "dataset", 0, 0), &err, NULL);
    need_rows(t->tokenizer, ids, count, t->config.V, "judge");
    if (longer) *longer += count > t->limit;
    if (count > t->limit && !o.window) count = t->limit;               /* the rest would never be read */
    copy = pool_need(&t->keep, (size_t)count + 1, sizeof *copy, "tokens of the dataset");
    if (count) memcpy(copy, ids, (size_t)count * sizeof *copy);
    pool_release(&t->scratch, mark);
    out.token = copy;
    out.count = count;
    return out;
}

/* Makes a set of the documents number[0..n-1]. what: the set's name, for the progress line. */
static Set make_set(Trainer *t, const int *number, int n, const char *what) {
    Set s = { NULL, NULL, 0, 0, 0 };
    char line[64];
    s.text = pool_need(&t->keep, (size_t)n * (size_t)t->per + 1, sizeof *s.text, "texts");
    s.label = pool_need(&t->keep, (size_t)n + 1, sizeof *s.label, "labels");
    for (int i = 0; i < n; i++) {
        const Document *d = &t->data.document[number[i]];
        for (int k = 0; k < t->per; k++) {
            Text *x = &s.text[i * t->per + k];
            *x = tokenise(t, d->text[k], d->length[k], &s.longer);
            s.tokens += x->count;
        }
        s.label[i] = t->pairs && d->label < 0 ? PAIR_CERTAIN : d->label;
        s.examples++;
        if ((i + 1) % 4096 == 0 || i == n - 1) {
            snprintf(line, sizeof line, "%s texts into tokens", what);
            progress(line, i + 1, n, i == n - 1);
        }
    }
    return s;
}

/* Returns how many tokens at the beginning of two texts are equal. Nothing before the first
 * difference says which text is better. */
static int common_prefix(const Text *a, const Text *b) {
    int n = 0;
    while (n < a->count && n < b->count && a->token[n] == b->token[n]) n++;
    return n;
}

/* Prints how many pairs differ only after the `limit` tokens that the judge reads. This
 * may happen if prompts are long. */
static void count_equal(const Set *s, int limit) {
    int equal = 0;
    char number[64];
    for (int i = 0; i < s->examples; i++) {
        const Text *a = &s->text[2 * i], *b = a + 1;
        const int n = common_prefix(a, b);
        equal += n >= limit || (n == a->count && n == b->count);
    }
    if (equal)
        say("%d of %s are the same in their first %d tokens: nothing can be learnt from them", equal,
            counted(number, (size_t)s->examples, "pair"), limit);
}

static void read_documents(Trainer *t) {
    Error err = { 0 };
    const uint64_t count = t->data.count;
    if (count > INT_MAX / 4)
        must(fail(&err, E_RANGE, "too many documents", "dataset", (long long)count, INT_MAX / 4), &err, NULL);
    int *number = pool_need(&t->scratch, (size_t)count + 1, sizeof *number, "documents"), n = 0;
    for (int i = 0; i < (int)count; i++)
        if (t->data.document[i].split == 0 && usable(t, &t->data.document[i])) number[n++] = i;
    if (!n)
        must(fail(&err, E_MISSING, t->pairs ? "no pairs to train on" : "no labelled texts to train on",
                  "dataset", 0, 0), &err, PREP);
    t->train = make_set(t, number, n, "training");
    if (t->pairs) count_equal(&t->train, t->limit);
    int same = 1;
    for (int i = 1; i < n; i++) same = same && t->train.label[i] == t->train.label[0];
    if (same && !t->pairs)
        must(fail(&err, E_RANGE, "every training text has the same label", t->data.label[t->train.label[0]],
                  0, 0), &err,
             "a dataset with texts of two labels or more");
    n = 0;
    for (int i = 0; i < (int)count; i++)
        if (t->data.document[i].split != 0 && usable(t, &t->data.document[i])) number[n++] = i;
    /* the same order for every --seed, so that all runs are measured on the same texts */
    Rng rng = rng_stream(hash_bytes("held", 4, 0), 0, 0);
    rng_shuffle(&rng, number, n);
    if (o.eval_texts && n > o.eval_texts) n = o.eval_texts;
    t->held = make_set(t, number, n, "held-out");
}

static void read_data(Trainer *t, const char *path) {
    Error err = { 0 };
    must(dataset_read(&t->data, path, &t->keep, &err), &err, PREP);
    if (t->data.kind != DATA_TEXT && t->data.kind != DATA_PAIRS)
        must(fail(&err, E_UNSUPPORTED,
                  "prompts and responses (sft reads them): a reward model needs labelled texts or pairs",
                  path, 0, 0),
             &err, PREP);
    if (!t->data.count) must(fail(&err, E_MISSING, "an empty dataset", path, 0, 0), &err, PREP);
    if (t->data.kind == DATA_TEXT && !t->data.labels)
        must(fail(&err, E_MISSING, "the texts have no labels", path, 0, 0), &err, PREP);
    t->pairs = t->data.kind == DATA_PAIRS;
    t->per = t->pairs ? 2 : 1;
    if (t->pairs && o.smoothing > 0) usage_error("pairs have no labels to smooth", "--label-smoothing");
    if (t->pairs && o.reference) usage_error("pairs have no labels, and so none to hold at 0", "--reference");
}

/* ===================================================================================================
 * Examples: whole texts, crops, and repeated phrases
 * =================================================================================================== */

/* Returns a random n in low .. high with probability in proportion to 1/n, which is uniform on a logarithmic
 * scale. Uses no logarithm, since its last bit depends on the C library. */
static int log_uniform(Rng *rng, int low, int high) {
    double sum = 0, u = rng_unit(rng);
    for (int n = low; n <= high; n++) sum += 1.0 / n;
    u *= sum;
    for (int n = low; n < high; n++)
        if ((u -= 1.0 / n) < 0) return n;
    return high;
}

/* Writes n tokens that repeat one phrase of x: 1 to 4 whole words, most often 1; one time in four, 1 to 4
 * tokens that need not be whole words. One time in three, up to n/2 tokens from the beginning of x come
 * first, as a policy's repetitions come after a prompt. */
static void repeat_phrase(int *out, int n, const Text *x, const unsigned char *starts_word, Rng *rng) {
    const int whole_words = rng_below(rng, 4) > 0, size = 1 + (int)rng_below(rng, 1 + rng_below(rng, 4));
    int at = (int)rng_below(rng, (uint64_t)x->count), end, words = 0;
    const int most = (n < x->count ? n : x->count) / 2;
    const int kept = rng_below(rng, 3) == 0 ? (int)rng_below(rng, (uint64_t)most + 1) : 0;
    if (whole_words) {
        while (at > 0 && !starts_word[x->token[at]]) at--;
        for (end = at + 1; end < x->count && (!starts_word[x->token[end]] || ++words < size); end++) ;
    } else end = at + size < x->count ? at + size : x->count;
    for (int i = 0; i < n; i++) out[i] = i < kept ? x->token[i] : x->token[at + (i - kept) % (end - at)];
}

/* Draws example e of an epoch: writes its texts to out, one after another, each between special tokens;
 * length[k]: their sizes. Returns 1 if it is a repeated phrase. Both texts of a pair are cropped to one
 * length, which includes their first difference. A repeated phrase in a pair is a phrase of the chosen text,
 * and takes the place of the rejected text; the rejected text takes that of the chosen one. */
static int draw_example(Trainer *t, int *out, int length[2], int e, long long epoch) {
    const Text *x = &t->train.text[e * t->per];
    Rng rng = rng_stream(hash_bytes("examples", 8, o.seed), (uint64_t)epoch, (uint64_t)e);
    int full = x[0].count > x[t->per - 1].count ? x[0].count : x[t->per - 1].count;
    if (full > t->limit) full = t->limit;
    const int cropped = rng_unit(&rng) < o.crop, spam = rng_unit(&rng) < o.spam && x[0].count > 0;
    int shortest = t->pairs && !o.window ? common_prefix(x, x + 1) + 1 : 0;
    if (shortest < SHORTEST) shortest = SHORTEST;
    const int crop = cropped || spam ? log_uniform(&rng, full < shortest ? full : shortest, full) : full;
    for (int k = 0; k < t->per; k++) {
        /* a repeated phrase in a pair: the rejected text goes first, the phrase of the chosen text second */
        const Text *y = spam && t->pairs ? &x[1 - k] : &x[k];
        int n = y->count < crop ? y->count : crop;
        const int from = o.window && !spam ? (int)rng_below(&rng, (uint64_t)(y->count - n) + 1) : 0;
        if (t->before >= 0) *out++ = t->before;
        if (spam && k == t->per - 1) repeat_phrase(out, n = crop, y, t->starts_word, &rng);
        else for (int i = 0; i < n; i++) out[i] = y->token[from + i];
        for (int i = 0; i < n && o.dropout > 0; i++)
            if (rng_unit(&rng) < o.dropout) out[i] = t->mask;
        out += n;
        if (t->after >= 0) *out++ = t->after;
        length[k] = n + (t->before >= 0) + (t->after >= 0);
    }
    return spam;
}

/* Appends a text of n tokens to the batch. */
static void batch_add(Batch *b, const int *token, int n) {
    memcpy(b->token + b->N, token, (size_t)n * sizeof *token);
    b->start[b->B++] = b->N;
    b->N += n;
    b->start[b->B] = b->N;
}

/* ===================================================================================================
 * Learning
 * =================================================================================================== */

/* Adds the batch's cross-entropy to t->loss and its gradient times scale to dlogits. Loss of text b = sum
 * over labels of target * -log softmax(logits)[label], computed as one cross-entropy for each label. */
static void label_loss(Trainer *t, float scale) {
    Batch *b = &t->batch;
    const int labels = t->config.labels;
    for (int j = 0; j < labels; j++) {
        for (int i = 0; i < b->B; i++) b->label[i] = j;
        cross_entropy_forward(b->loss, b->logits, b->label, b->B, labels);
        for (int i = 0; i < b->B; i++) {
            const float target = b->target[i * labels + j];
            t->loss += (double)(target * b->loss[i]);
            b->dloss[i] = target * scale;
        }
        cross_entropy_backward(b->dlogits, b->dloss, b->loss, b->logits, b->label, b->B, labels);
    }
}
/* Adds the batch's ranking loss to t->loss and its gradient times scale to dlogits. */
static void pair_loss(Trainer *t, float scale) {
    Batch *b = &t->batch;
    ranking_forward(b->loss, b->logits, b->target, t->config.labels, b->B / 2);
    for (int i = 0; i < b->B / 2; i++) {
        t->loss += (double)b->loss[i];
        b->dloss[i] = scale;
    }
    ranking_backward(b->dlogits, b->dloss, b->logits, b->target, t->config.labels, b->B / 2);
}

/* Returns the probability that a label of a pair stands for. */
static float pair_target(int label) { return (float)label / PAIR_CERTAIN; }

/* Runs forward, loss and backward on the texts of the batch, and empties the batch. */
static void learn(Trainer *t, float scale) {
    Batch *b = &t->batch;
    Error err = { 0 };
    const Texts texts = { b->N, b->B, b->token, b->start };
    const int labels = t->config.labels;
    if (!b->B) return;
    t->lora.dropout.p = (float)o.lora.dropout;
    must(reward_forward(&t->model, t->adapter, &texts, &t->saved, b->logits, &t->ws), &err, NULL);
    memset(b->dlogits, 0, (size_t)(b->B * labels) * sizeof *b->dlogits);
    if (t->pairs) pair_loss(t, scale);
    else label_loss(t, scale);
    for (int i = 0; i < b->B; i += t->per)
        if (b->truth[i] >= 0) {
            t->judged++;
            const Answers one = { b->logits + i * labels, &b->truth[i], 1, labels, t->pairs, NULL };
            t->right += answer_right(&one, 0);
        }
    must(reward_backward(&t->model, t->adapter, &texts, &t->saved, b->dlogits, &t->ws), &err, NULL);
    t->lora.dropout.row += (uint64_t)b->N;
    t->tokens += b->N;
    b->N = b->B = 0;
}

/* Returns the index of the run's k-th example; *epoch: its epoch. */
static int example_at(Trainer *t, long long k, long long *epoch) {
    const int n = t->train.examples;
    *epoch = k / n;
    if (*epoch != t->epoch) {
        Rng rng = rng_stream(hash_bytes("order", 5, o.seed), (uint64_t)*epoch, 0);
        for (int i = 0; i < n; i++) t->order[i] = i;
        rng_shuffle(&rng, t->order, n);
        t->epoch = *epoch;
    }
    return t->order[k % n];
}

/* Sets the target of example e, the last in the batch: its label; with --label-smoothing, a share of the
 * target goes to all labels; for a repeated phrase, every label has the same share. The target of a pair is
 * its probability, and with a repeated phrase 1. */
static void set_targets(Trainer *t, int e, int spam) {
    Batch *b = &t->batch;
    const int labels = t->config.labels, i = b->B - t->per;
    const float share = (float)((spam ? 1.0 : o.smoothing) / labels);
    b->truth[i] = spam ? -1 : t->train.label[e];
    if (t->pairs) b->target[i / 2] = spam ? 1 : pair_target(t->train.label[e]);
    for (int j = 0; j < labels && !t->pairs; j++)
        b->target[i * labels + j] = share + (!spam && j == b->truth[i] ? (float)(1 - o.smoothing) : 0);
}

/* Holds the logit of --reference at 0 by subtracting its row of the head from all rows. Softmax does not
 * change when the same number is added to all logits, so one of L outputs is free; with this one at 0 the
 * others are log-odds against it (logistic regression with a reference category), and no reward depends on
 * the head's random start. */
static void hold_reference(Trainer *t) {
    const int labels = t->config.labels, C = t->config.stack.C, zero = t->reference;
    float *w = lora_own(t->adapter, &t->model.out).data, *b = lora_own(t->adapter, &t->model.out_b).data;
    if (zero < 0) return;
    for (int l = 0; l < labels; l++) {
        if (l == zero) continue;
        for (int c = 0; c < C; c++) w[l * C + c] -= w[zero * C + c];
        if (b) b[l] -= b[zero];
    }
    for (int c = 0; c < C; c++) w[zero * C + c] = 0;
    if (b) b[zero] = 0;
}

/* Makes one optimiser step. The batch goes through the model in portions of at most --micro-tokens, whose
 * gradients add up. Returns the gradient's norm. Before AdamW, *fault becomes what is wrong (why, or NULL);
 * then no weight has been changed. */
static double train_step(Trainer *t, int step, double lr, const char **fault, char why[160]) {
    const AdamW adam = { (float)lr, 0.9f, 0.98f, 1e-8f, (float)o.weight_decay, 0 };
    Batch *b = &t->batch;
    gradient_zero(t->list, t->tensors);
    t->lora.dropout.seed = rng_stream(hash_bytes("dropout", 7, o.seed), (uint64_t)step, 0).state;
    t->lora.dropout.row = 0;
    for (int i = 0; i < o.batch; i++) {
        long long epoch;
        int length[2] = { 0, 0 };
        const int e = example_at(t, (long long)step * o.batch + i, &epoch);
        const int spam = draw_example(t, t->example, length, e, epoch);
        if (b->N + length[0] + length[1] > b->tokens) learn(t, 1.0f / (float)o.batch);
        batch_add(b, t->example, length[0]);
        if (t->pairs) batch_add(b, t->example + length[0], length[1]);
        set_targets(t, e, spam);
    }
    learn(t, 1.0f / (float)o.batch);
    const double norm = gradient_norm(t->list, t->tensors);
    *fault = step_fault(why, t->loss, norm, o.clip, t->list, t->tensors);
    if (*fault) return norm;
    const float scale = o.clip > 0 && norm > o.clip ? (float)(o.clip / norm) : 1.0f;
    optimizer_step(&t->optimizer, 0, t->list, t->tensors, &adam, scale);
    hold_reference(t);
    return norm;
}

/* ===================================================================================================
 * Judging the judge
 * =================================================================================================== */

/* Computes the logits of the batch's texts, without training, and empties the batch. */
static void score_batch(Trainer *t, float *logits) {
    Batch *b = &t->batch;
    Error err = { 0 };
    const Texts texts = { b->N, b->B, b->token, b->start };
    t->lora.dropout.p = 0;                  /* dropout is for training only */
    must(reward_forward(&t->model, t->adapter, &texts, NULL, logits, &t->ws), &err, NULL);
    b->N = b->B = 0;
}

/* Computes the logits (n,labels) of n texts from their first `most` tokens (0: as
 * many as the model takes). */
static void score_texts(Trainer *t, float *logits, const Text *x, int n, int most) {
    Batch *b = &t->batch;
    int done = 0;
    if (!most || most > t->limit) most = t->limit;
    for (int i = 0; i < n; i++) {
        const int count = x[i].count < most ? x[i].count : most;
        const int framed = count + (t->before >= 0) + (t->after >= 0);
        if (b->N + framed > b->tokens || b->B == b->texts) {
            score_batch(t, logits + (size_t)done * (size_t)t->config.labels);
            done = i;
        }
        int *out = t->example;
        if (t->before >= 0) *out++ = t->before;
        if (count) memcpy(out, x[i].token, (size_t)count * sizeof *out);
        if (t->after >= 0) out[count] = t->after;
        batch_add(b, t->example, framed);
    }
    if (b->B) score_batch(t, logits + (size_t)done * (size_t)t->config.labels);
}

static int by_value(const void *left, const void *right) {
    const float a = *(const float *)left, b = *(const float *)right;
    return (a > b) - (a < b);
}
/* low, median, high: the 5th, 50th and 95th percentile of the reward */
typedef struct { double accuracy, loss, low, median, high; } Quality;

/* Evaluates the model on the held-out texts, of which it reads the first `most` tokens (0: all), and fills
 * logits (texts,labels). */
static Quality evaluate_texts(Trainer *t, float *logits, int most) {
    const PoolMark mark = pool_mark(&t->scratch);
    const int labels = t->config.labels, n = t->held.examples, texts = n * t->per;
    const Answers answers = { logits, t->held.label, n, labels, t->pairs, NULL };
    float *reward = pool_need(&t->scratch, (size_t)texts, sizeof *reward, "evaluation");
    float loss;
    Quality q = { 0, 0, 0, 0, 0 };
    score_texts(t, logits, t->held.text, texts, most);
    for (int i = 0; i < n; i++) {
        const float *z = logits + (size_t)i * (size_t)(t->per * labels);
        q.accuracy += answer_right(&answers, i);
        const float p = t->pairs ? pair_target(t->held.label[i]) : 1;
        if (t->pairs) ranking_forward(&loss, z, &p, labels, 1);
        else cross_entropy_forward(&loss, z, &t->held.label[i], 1, labels);
        q.loss += (double)loss;
    }
    for (int i = 0; i < texts; i++) reward[i] = logits[(size_t)i * (size_t)labels + (size_t)t->reward_label];
    qsort(reward, (size_t)texts, sizeof *reward, by_value);
    q.accuracy /= n;
    q.loss /= n;
    q.low = (double)reward[(size_t)(texts - 1) * 5 / 100];
    q.median = (double)reward[(texts - 1) / 2];
    q.high = (double)reward[(size_t)(texts - 1) * 95 / 100];
    pool_release(&t->scratch, mark);
    return q;
}

/* Returns room for the logits of the held-out texts, in t->scratch. */
static float *held_logits(Trainer *t) {
    return pool_need(&t->scratch, (size_t)(t->held.examples * t->per) * (size_t)t->config.labels,
                     sizeof(float), "evaluation");
}

static Quality evaluate(Trainer *t, int most) {
    const PoolMark mark = pool_mark(&t->scratch);
    const Quality q = evaluate_texts(t, held_logits(t), most);
    pool_release(&t->scratch, mark);
    return q;
}

/* ---- probes: common words and two-word phrases, repeated, as a policy tries first to please a judge ---- */

typedef struct { const char *text; int length, count; } Phrase;

static int lower(char c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; }
static int is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '\'' || (c & 0x80);
}

/* Adds 1 to the count of a phrase, ignoring case, in a hash table (open addressing). Once half of the table
 * is full, new phrases are ignored: they are not among the commonest. */
static void count_phrase(Phrase *table, int *used, const char *text, int length) {
    char key[64];
    if (length > (int)sizeof key) return;
    for (int i = 0; i < length; i++) key[i] = (char)lower(text[i]);
    for (uint64_t at = hash_bytes(key, (size_t)length, 0);; at++) {
        Phrase *p = &table[at % TABLE];
        int same = p->count && p->length == length;
        for (int i = 0; same && i < length; i++) same = key[i] == (char)lower(p->text[i]);
        if (same) { p->count++; return; }
        if (p->count) continue;
        if (*used >= TABLE / 2) return;
        p->text = text;
        p->length = length;
        p->count = 1;
        ++*used;
        return;
    }
}

/* Counts the words of a text (words 1), or its pairs of words with one space between them (words 2). */
static void count_phrases(Phrase *table, int *used, const char *s, int n, int words) {
    int before = -1;                        /* start of the previous word if one space follows it, else -1 */
    for (int i = 0; i < n;) {
        int begin = i;
        while (i < n && is_letter(s[i])) i++;
        if (i == begin) { i++; before = -1; continue; }
        if (words == 1) count_phrase(table, used, s + begin, i - begin);
        else if (before >= 0) count_phrase(table, used, s + before, i - before);
        before = -1;
        if (i + 1 < n && s[i] == ' ' && is_letter(s[i + 1])) { before = begin; i++; }
    }
}

static int by_count(const void *left, const void *right) {
    const Phrase *a = left, *b = right;
    if (a->count != b->count) return a->count < b->count ? 1 : -1;
    if (a->length != b->length) return a->length < b->length ? -1 : 1;
    for (int i = 0; i < a->length; i++)
        if (lower(a->text[i]) != lower(b->text[i])) return lower(a->text[i]) < lower(b->text[i]) ? -1 : 1;
    return 0;
}

/* Writes the `most` commonest phrases of the training texts to out (words: 1 or 2 in
 * each). Returns how many. */
static int common_phrases(Trainer *t, Phrase *out, int most, int words) {
    const PoolMark mark = pool_mark(&t->scratch);
    Phrase *table = pool_need(&t->scratch, TABLE, sizeof *table, "words");
    int used = 0, n = 0;
    for (uint64_t i = 0; i < t->data.count; i++) {
        const Document *d = &t->data.document[i];
        for (int k = 0; k < t->per && d->split == 0; k++)
            count_phrases(table, &used, d->text[k], d->length[k] < INT_MAX ? (int)d->length[k] : INT_MAX,
                          words);
    }
    for (int i = 0; i < TABLE; i++)
        if (table[i].count) table[n++] = table[i];
    qsort(table, (size_t)n, sizeof *table, by_count);
    if (n > most) n = most;
    memcpy(out, table, (size_t)n * sizeof *out);
    pool_release(&t->scratch, mark);
    return n;
}

/* Returns up to PROBE tokens that repeat the phrase. */
static Text probe(Trainer *t, const Phrase *p) {
    char text[PROBE * 65];
    int n = 0;
    Text x;
    for (int k = 0; k < PROBE; k++) {
        if (k) text[n++] = ' ';
        for (int i = 0; i < p->length; i++) text[n++] = (char)lower(p->text[i]);
    }
    x = tokenise(t, text, (size_t)n, NULL);
    if (x.count > PROBE) x.count = PROBE;
    return x;
}

/* Prints and logs how many repeated phrases the judge scores above `high`, the 95th percentile of real texts,
 * and which phrase has the highest score. */
static void probe_phrases(Trainer *t, double high, Log *log) {
    const int labels = t->config.labels;
    Phrase *phrase = pool_need(&t->keep, WORDS + PHRASES, sizeof *phrase, "probes");
    Text *x = pool_need(&t->keep, WORDS + PHRASES, sizeof *x, "probes");
    float *logits = pool_need(&t->keep, (size_t)(WORDS + PHRASES) * (size_t)labels, sizeof *logits, "probes");
    int above = 0, best = 0;
    const int words = common_phrases(t, phrase, WORDS, 1);
    const int n = words + common_phrases(t, phrase + words, PHRASES, 2);
    if (!n) return;
    for (int i = 0; i < n; i++) x[i] = probe(t, &phrase[i]);
    score_texts(t, logits, x, n, PROBE);
    for (int i = 0; i < n; i++) {
        const float score = logits[i * labels + t->reward_label];
        above += (double)score > high;
        if (score > logits[best * labels + t->reward_label]) best = i;
    }
    say("repetition: %d words and %d phrases, each to %d tokens: %d above the 95th percentile of real texts; "
        "highest \"%.*s\" at %.2f", words, n - words, PROBE, above, phrase[best].length, phrase[best].text,
        (double)logits[best * labels + t->reward_label]);
    log_integer(log, "eval/repetitions", n);
    log_integer(log, "eval/repetitions_above_p95", above);
    log_number(log, "eval/repetition_max", (double)logits[best * labels + t->reward_label]);
    log_text(log, "eval/repetition_max_phrase", phrase[best].text, (size_t)phrase[best].length);
}

/* Prints and logs the accuracy, loss and rewards on the held-out texts at four lengths, how good the answers
 * to the whole texts are, then the probes. Returns the loss of whole texts; infinity without texts. */
static double final_report(Trainer *t, int steps) {
    static const int length[] = { 16, 32, 64, 0 };
    Log log;
    Quality q = { 0, 0, 0, 0, 0 };
    char held[64];
    const int narrow = terminal_width() < 64, first = narrow ? 6 : 8, column = narrow ? 5 : 10;
    const int digits = narrow ? 2 : 3;
    if (!t->held.examples) {
        say("no held-out %s: nothing to evaluate", t->pairs ? "pairs" : "texts");
        return HUGE_VAL;
    }
    float *logits = held_logits(t);         /* at last those of the whole texts */
    const Answers answers = { logits, t->held.label, t->held.examples, t->config.labels, t->pairs,
                              (const char (*)[48])t->config.label };
    log_begin(&log, t->out.log, &t->keep);
    log_integer(&log, "step", steps);
    say("%s, reward = logit of '%s'",
        counted(held, (size_t)t->held.examples, t->pairs ? "held-out pair" : "held-out text"),
        t->config.label[t->reward_label]);
    printf("%*s %*s %*s %*s %*s %*s\n", first, "tokens", column + 1, narrow ? "right" : "accuracy", column,
           "loss", column, narrow ? "5%" : "reward: 5%", column, "50%", column, "95%");
    for (size_t i = 0; i < sizeof length / sizeof *length; i++) {
        char name[40], tokens[16] = "full";
        q = evaluate_texts(t, logits, length[i]);
        if (length[i]) snprintf(tokens, sizeof tokens, "%d", length[i]);
        printf("%*s %*.2f%% %*.*f %*.*f %*.*f %*.*f\n", first, tokens, column, 100 * q.accuracy, column,
               digits + 1, q.loss, column, digits, q.low, column, digits, q.median, column, digits, q.high);
        snprintf(name, sizeof name, "eval/accuracy_%s", tokens);
        log_number(&log, name, q.accuracy);
        snprintf(name, sizeof name, "eval/loss_%s", tokens);
        log_number(&log, name, q.loss);
        snprintf(name, sizeof name, "eval/reward_p5_%s", tokens);
        log_number(&log, name, q.low);
        snprintf(name, sizeof name, "eval/reward_p50_%s", tokens);
        log_number(&log, name, q.median);
        snprintf(name, sizeof name, "eval/reward_p95_%s", tokens);
        log_number(&log, name, q.high);
    }
    report_quality(&answers, &log);
    probe_phrases(t, q.high, &log);
    out_log(&t->out, &log);
    if (steps) health_of_held_out(&t->health, q.loss);
    return q.loss;
}

/* ===================================================================================================
 * The run
 * =================================================================================================== */

/* Writes the judge, or its adapter, to a folder (see Saver). */
static int write_weights(void *run, const char *folder, Error *err) {
    Trainer *t = run;
    if (!t->adapter) return save_judge(&t->model, t->tokenizer, folder, o.dtype, 0, err);
    return save_judge_adapter(&t->lora, &t->config, t->tokenizer, o.reward, folder, o.dtype, err);
}

/* What a run knows between two steps: a StateVisit. */
static void rm_state(void *run, State *s) {
    Trainer *t = run;
    const RunState common = { &t->out, &t->health, &t->step, t->list, t->tensors, &t->optimizer };
    const char *seen = t->seen;
    size_t n = strlen(t->seen);
    run_state(s, &common);
    if (!t->frozen) t->frozen = frozen_hash(t->model.tensor, t->model.tensors);
    state_same(s, "frozen weights", t->frozen, "these weights are other ones than when the run began",
               o.reward);
    run_best_state(s, &t->best);
    state_int(s, "step of the log's last line", &t->logged, 0, t->step);
    state_real(s, "losses since then", &t->loss);
    state_real(s, "right answers since then", &t->right);
    state_real(s, "answers since then", &t->judged);
    state_real(s, "norm of the gradient", &t->norm);
    state_text(s, "held-out accuracy", &seen, &n);
    if (s->code == OK && s->file && n < sizeof t->seen) memcpy(t->seen, seen, n + 1);
}

/* Saves the weights, and the state if there are more steps to go on with. last 1: no step follows now. */
static void save(Trainer *t, int last) {
    const int finished = last && t->step == t->steps && !cli_stopping();
    const Saver saver = { &t->out, write_weights, t, &o.run, finished ? NULL : rm_state };
    run_save(&saver, t->step, last);
}

/* Ends the run at a step whose loss or gradient is not a number. The weights are still those after the
 * previous step. They are saved if they are useful: if this loss or the held-out loss is a number, and better
 * weights have not been saved. */
static void stop_at_nan(Trainer *t, const char *fault, int step) {
    const Saver saver = { &t->out, write_weights, t, &o.run, NULL };
    const int good = !(t->health.bad && t->out.saved) &&
                     (isfinite(t->loss) || (t->held.examples && isfinite(evaluate(t, 0).loss)));
    stop_not_a_number(fault, step, step > 1, good, &saver, start_hint(t->types.compute), SMALLER_STEPS);
}

/* Keeps the weights if the held-out loss is the least so far. */
static void keep_best(Trainer *t, double loss) {
    const Saver saver = { &t->out, write_weights, t, &o.run, NULL };
    run_best(&saver, &t->best, -loss, t->step);
}

/* Logs the held-out accuracy, of whole texts and of their first 32 tokens, and writes both to text. */
static void glance(Trainer *t, Log *log, char *text, size_t cap) {
    const Quality full = evaluate(t, 0), opening = evaluate(t, 32);
    log_number(log, "eval/accuracy_full", full.accuracy);
    log_number(log, "eval/loss_full", full.loss);
    log_number(log, "eval/accuracy_32", opening.accuracy);
    snprintf(text, cap, "  held-out %.1f%%, at 32 tokens %.1f%%", 100 * full.accuracy,
             100 * opening.accuracy);
    keep_best(t, full.loss);
}

static double rate_of(const Trainer *t, int step) {
    return learning_rate(SCHEDULE_TRIANGLE, o.lr, o.warmup, step, t->steps);
}

/* Logs and shows the mean loss and accuracy of the steps since the last line, and sometimes the held-out
 * accuracy; last 1: no step follows now. */
static void log_step(Trainer *t, int last) {
    const PoolMark mark = pool_mark(&t->scratch);
    const int done = t->step, steps = t->step - t->logged;
    const double lr = rate_of(t, t->step);
    const double since = (double)o.batch * steps, accuracy = t->judged > 0 ? t->right / t->judged : 0;
    char line[256];
    Log log;
    log_begin(&log, t->out.log, &t->scratch);
    log_integer(&log, "step", done);
    log_number(&log, "epoch", (double)done * o.batch / t->train.examples);
    log_number(&log, "loss", t->loss / since);
    log_number(&log, "accuracy", accuracy);
    log_number(&log, "learning_rate", lr);
    log_number(&log, "grad_norm", t->norm);
    if (o.eval_every && done / o.eval_every != (done - steps) / o.eval_every && t->held.examples && !last)
        glance(t, &log, t->seen, sizeof t->seen);
    out_log(&t->out, &log);
    log_begin(&log, t->out.time, &t->scratch);
    log_integer(&log, "step", done);
    log_number(&log, "seconds", t->seconds);
    if (t->seconds > 0) log_number(&log, "tokens_per_second", t->tokens / t->seconds);
    out_log(&t->out, &log);
    report_live(&t->out);
    snprintf(line, sizeof line, "loss %.4f  accuracy %.1f%%  lr %.2e%s", t->loss / since, 100 * accuracy,
             lr, t->seen);
    progress(line, done, t->steps, last);
    t->loss = t->right = t->judged = t->seconds = t->tokens = 0;
    t->logged = t->step;
    pool_release(&t->scratch, mark);
}

/* Prints and logs how many texts are longer than what the judge reads. */
static void report_longer(Trainer *t) {
    const PoolMark mark = pool_mark(&t->scratch);
    char number[2][64];
    Log log;
    if (t->train.longer + t->held.longer)
        say("%s and %s have more than the %d tokens that the judge reads: %s",
            counted(number[0], (size_t)t->train.longer, "training text"),
            counted(number[1], (size_t)t->held.longer, "held-out text"), t->limit,
            o.window ? "training reads any part of them, evaluation their beginning"
                     : "their ends are cut off");
    log_begin(&log, t->out.log, &t->scratch);
    log_integer(&log, "step", 0);
    log_integer(&log, "train/texts_cut", t->train.longer);
    log_integer(&log, "eval/texts_cut", t->held.longer);
    out_log(&t->out, &log);
    pool_release(&t->scratch, mark);
}

/* Makes a step, and judges the run by its loss. */
static void make_step(Trainer *t) {
    const double before = t->loss, begin = wall_clock();
    char why[160];
    const char *fault;
    t->norm = train_step(t, t->step, rate_of(t, t->step + 1), &fault, why);
    t->step++;
    t->seconds += wall_clock() - begin;
    if (fault) stop_at_nan(t, fault, t->step);
    fault = weights_fault(why, t->list, t->tensors, o.dtype);
    if (fault) die_not_a_number(fault, t->step, t->out.saved, t->out.path, SMALLER_WEIGHTS);
    out_begun(&t->out);
    cli_time_limit(o.run.minutes);
    health_of_step(&t->health, (t->loss - before) / o.batch);
    health_warn(&t->health, t->step, SMALLER_STEPS);
}

/* Trains, and saves the result. What is due after a step is done before the next one: so a run that was
 * stopped after a step, and goes on, does it then. The line that a stopped run logs at its end is not part of
 * its state: going on writes it when it is due. */
static void train(Trainer *t) {
    const int every = t->steps > 100 ? 10 : 1;          /* how many steps share a line of the log */
    int stop;
    for (;;) {
        stop = cli_stopping();
        if (!stop && t->step > t->logged && (t->step % every == 0 || t->step == t->steps))
            log_step(t, t->step == t->steps);
        if (run_due(o.run.save_every, t->step) && t->step < t->steps && t->out.saved != t->step &&
            !t->health.bad) save(t, 0);
        if (stop || t->step >= t->steps) break;
        make_step(t);
    }
    if (t->step && t->out.saved != t->step && !(t->health.bad && t->out.saved)) save(t, 1);
    if (t->step > t->logged) log_step(t, 1);
}

/* Lays out the adapter, with a copy of the head. The trained tensors become the adapter's. */
static void carve_adapter(Trainer *t, Arena *a, Bill *bill) {
    LoraConfig c = adapter_options(&o.lora, t->config.names, &t->keep);
    c.task = "SEQ_CLS";
    c.save = lora_head(t->model.tensor, t->model.tensors, &t->keep);
    must(c.save ? OK : E_MEMORY, NULL, NULL);
    adapter_carve(&t->lora, &c, t->model.tensor, t->model.tensors, 1, &t->keep, a);
    if (o.lora.dropout > 0) lora_dropout_carve(&t->lora, t->batch.tokens, a);
    bill_part(bill, o.lora.dropout > 0 ? "adapter, gradients, dropout" : "adapter and gradients", a);
    t->adapter = &t->lora;
    t->list = t->lora.tensor;
    t->tensors = t->lora.tensors;
}

/* Lays out all arrays of a fixed size: weights, moments, activations, a batch. */
static void carve(void *run, Arena *a, Bill *bill) {
    Trainer *t = run;
    Error err = { 0 };
    Batch *b = &t->batch;
    const size_t labels = (size_t)t->config.labels, B = (size_t)b->texts;
    const int adapts = o.lora.rank > 0;
    must(reward_carve(&t->model, &t->config, &t->types, !adapts, &t->keep, a, &err), &err, NULL);
    bill_part(bill, adapts ? "weights (frozen)" : "weights and their gradients", a);
    t->list = t->model.tensor;
    t->tensors = t->model.tensors;
    if (adapts) carve_adapter(t, a, bill);
    optimizer_carve(&t->optimizer, t->list, t->tensors, a);
    bill_part(bill, "AdamW's moments", a);
    reward_saved_carve(&t->saved, &t->config, b->tokens, b->texts, o.quant.recompute, a);
    bill_part(bill, "saved activations", a);
    b->token = arena_take(a, (size_t)b->tokens, sizeof(int));
    b->start = arena_take(a, B + 1, sizeof(int));
    b->truth = arena_take(a, B, sizeof(int));
    b->label = arena_take(a, B, sizeof(int));
    b->target = arena_take(a, B * labels, sizeof(float));
    b->logits = arena_take(a, B * labels, sizeof(float));
    b->dlogits = arena_take(a, B * labels, sizeof(float));
    b->loss = arena_take(a, B, sizeof(float));
    b->dloss = arena_take(a, B, sizeof(float));
    t->example = arena_take(a, 2 * (size_t)reward_max_tokens(&t->config), sizeof(int));
    t->order = arena_take(a, (size_t)t->train.examples, sizeof(int));
    bill_part(bill, "a batch, the order of texts", a);
}

/* Returns the bytes of work space that the largest portion of a batch needs. */
static size_t workspace(void *run) {
    Trainer *t = run;
    Error err = { 0 };
    Arena ws = { 0 };
    const Texts most = { t->batch.tokens, t->batch.texts, NULL, NULL };
    must(reward_forward(&t->model, t->adapter, &most, &t->saved, NULL, &ws), &err, NULL);
    must(reward_forward(&t->model, t->adapter, &most, NULL, NULL, &ws), &err, NULL);
    must(reward_backward(&t->model, t->adapter, &most, &t->saved, NULL, &ws), &err, NULL);
    return ws.peak;
}

static void memory(Trainer *t) {
    Error err = { 0 };
    RunMemory m = { 0 };
    const int longest = t->per * reward_max_tokens(&t->config);
    m.run = t; m.carve = carve; m.workspace = workspace;
    t->batch.tokens = o.micro_tokens ? o.micro_tokens : longest > 2048 ? longest : 2048;
    t->batch.texts = o.batch * t->per;
    if (t->batch.tokens < longest)
        must(fail(&err, E_RANGE, "--micro-tokens is less than one example can have", "", t->batch.tokens,
                  longest), &err, "a larger --micro-tokens, or fewer --positions");
    bill_add(&m.bill, "dataset, tokens, tokenizer", t->keep.total + t->scratch.total);
    memory_measure(&m);
    bill_print(&m.bill);
    run_room(o.out, t->list, t->tensors, o.dtype, t->optimizer.n, &o.run, t->steps, o.dry_run);
    if (o.dry_run) exit(0);
    memory_take(&m, &t->ws);
}

/* Initialises the weights: from scratch, or from --reward; with --new-head, only the head is new. */
static void init_weights(Trainer *t) {
    RewardModel head = t->model;            /* its tensors: with --new-head, those of the head */
    int n = t->model.tensors;               /* how many are read: with --new-head, those before the head */
    for (int i = 0; o.new_head && i < n; i++)
        if (t->model.tensor[i].flags & TENSOR_HEAD) n = i;
    head.tensor += n;
    head.tensors -= n;
    reward_init(t->adapter ? &head : &t->model, o.seed);
    if (o.reward)
        open_weights(t->model.tensor, n, o.reward, "--reward",
                     o.new_head ? NULL : "a model without a classifier: --new-head", &t->keep);
    if (t->adapter) {
        lora_init(&t->lora, o.seed);
        lora_start(&t->lora, t->model.tensor);
    }
    optimizer_reset(&t->optimizer);
    hold_reference(t);
}

static void count_steps(Trainer *t) {
    const long long all = (long long)o.epochs * t->train.examples;
    const long long steps = o.steps >= 0 ? o.steps : (all + o.batch - 1) / o.batch;
    if (steps > INT_MAX)
        usage_error("more than two thousand million steps: fewer --epochs, or a larger --batch-size", NULL);
    t->steps = (int)steps;
    t->epoch = -1;
}

/* ===================================================================================================
 * Options
 * =================================================================================================== */

static Option options[] = {
    { "out", OPT_TEXT, &o.out, NULL, 0, 0, NULL,
      "folder to write (default: runs/rm-0001, the next free number)" },
    FORCE_OPTION(o.force),
    FALLBACK_OPTION(o.fallback),
    { "reward", OPT_TEXT, &o.reward, NULL, 0, 0, NULL,
      "start from this Hugging Face folder; without it, from scratch" },
    { "tokenizer", OPT_TEXT, &o.tokenizer, NULL, 0, 0, NULL,
      "folder of a tokenizer, as prep tokenizer makes one (default: --reward's)" },
    NO_SPECIAL_OPTION(o.no_special),
    { "new-head", OPT_FLAG, &o.new_head, NULL, 0, 0, NULL,
      "use only the encoder of --reward, with a new head for the dataset's labels" },
    { "label", OPT_TEXT, &o.label, NULL, 0, 0, NULL,
      "label whose logit is reported as the reward (default: positive, pos, nothate ...)" },
    { "family", OPT_CHOICE, &o.family, "roberta", 0, 0,
      "roberta|xlm-roberta|bert|distilbert|llama|mistral|qwen2|qwen3|gpt2",
      "from scratch: the kind of model, as config.json's model_type" },
    { "dim", OPT_INT, &o.dim, "128", 2, 1e6, NULL, "from scratch: model width C" },
    { "layers", OPT_INT, &o.layers, "3", 1, 1000, NULL, "from scratch: layers L" },
    { "heads", OPT_INT, &o.heads, "4", 1, 1000, NULL, "from scratch: attention heads H" },
    { "ffn", OPT_INT, &o.ffn, "0", 0, 1e7, NULL, "from scratch: feed-forward width F (0: 4 times --dim)" },
    { "positions", OPT_INT, &o.positions, "258", 5, 1e7, NULL,
      "from scratch: positions, two more than the longest text has tokens" },
    { "crop", OPT_REAL, &o.crop, "0.5", 0, 1, NULL,
      "share of examples that are cropped to a random length, log-uniform, of at least 8 tokens" },
    { "window", OPT_FLAG, &o.window, NULL, 0, 0, NULL,
      "crops and long texts begin anywhere, not at the beginning" },
    { "spam", OPT_REAL, &o.spam, "0.05", 0, 1, NULL,
      "share of examples that repeat one phrase: their target is neutral; in a pair they are rejected" },
    { "token-dropout", OPT_REAL, &o.dropout, "0", 0, 0.9, NULL,
      "share of tokens that training replaces by <mask>" },
    { "reference", OPT_TEXT, &o.reference, NULL, 0, 0, NULL,
      "hold this label's logit at 0, so that the other logits are log-odds against this label" },
    { "label-smoothing", OPT_REAL, &o.smoothing, "0", 0, 0.9, NULL,
      "share of every target that is spread over all labels" },
    { "batch-size|batch", OPT_INT, &o.batch, "32", 1, 1e6, NULL, "examples of an optimiser step" },
    { "micro-tokens", OPT_INT, &o.micro_tokens, "0", 0, 1e8, NULL,
      "most tokens of a forward pass, which limits memory (0: 2048, or the longest example)" },
    { "epochs", OPT_INT, &o.epochs, "4", 1, 1e6, NULL, "passes through the training texts" },
    STEPS_OPTION(o.steps),
    { "learning-rate|lr", OPT_REAL, &o.lr, "5e-4", 0, 10, NULL,
      "learning rate after warm-up; then it decreases linearly towards 0" },
    { "warmup", OPT_REAL, &o.warmup, "0.06", 0, 1, NULL,
      "share of the steps in which the learning rate increases" },
    { "weight-decay", OPT_REAL, &o.weight_decay, "0.01", 0, 10, NULL,
      "AdamW's weight decay, of matrices only" },
    { "max-grad-norm|clip", OPT_REAL, &o.clip, "1", 0, 1e9, NULL,
      "larger gradient norms are scaled down to this (0: never)" },
    { "eval-every", OPT_INT, &o.eval_every, "250", 0, 1e9, NULL,
      "steps between held-out accuracies (0: only at the end)" },
    { "eval-texts", OPT_INT, &o.eval_texts, "1000", 0, 1e9, NULL,
      "most held-out texts or pairs that are used (0: all)" },
    RUN_OPTIONS(o.run, "0", "steps between saves (0: only at the end)"),
    SEED_OPTION(o.seed, "1", "random seed of the initial weights, the order of texts, crops and phrases"),
    LORA_OPTIONS(o.lora),
    LORA_DROPOUT_OPTION(o.lora),
    QUANT_OPTIONS(o.quant,
                  "QLoRA: the encoder's linears are held in 4-bit NF4 and frozen; without --lora-r, with an "
                  "adapter of rank 16 on all of them"),
    COMPUTE_OPTION(o.quant),
    RECOMPUTE_OPTION(o.quant),
    DTYPE_OPTION(o.dtype),
    DRY_RUN_OPTION(o.dry_run),
};
static const char *const preset_scratch[] = {
    "learning-rate", "5e-4", "weight-decay", "0.01", "epochs", "4", NULL };
static const char *const preset_finetune[] = {
    "learning-rate", "2e-5", "weight-decay", "0.01", "epochs", "2", NULL };
static const char *const preset_lora[] = {
    "learning-rate", "5e-4", "weight-decay", "0", "epochs", "2", NULL };
static const Preset preset[] = {
    { "scratch", "a new model (the default without --reward)", preset_scratch },
    { "finetune", "all weights of a checkpoint (the default with --reward)", preset_finetune },
    { "lora", "an adapter and the head of a checkpoint (the default with --lora-r, --nf4, --fp4)",
      preset_lora },
};
static const Need needs[] = {
    { "nf4|fp4|lora-r", "reward", "frozen weights are those of a checkpoint" },
    { "family|dim|layers|heads|ffn|positions", "!reward", "the checkpoint has its own sizes" },
    { "new-head", "reward", "a new model has a new head anyway" },
    QUANT_NEEDS, LORA_NEEDS, LORA_DROPOUT_NEED, RUN_NEEDS,
    { "force", "out", "without --out the folder is a new one" },
    { "epochs", "!steps", NULL },
    { NULL, NULL, NULL } };

static const char *usual_preset(const char **why) {
    const int adapts = o.lora.rank || o.quant.nf4 || o.quant.fp4;
    *why = adapts ? "an adapter is trained" : o.reward ? "all weights of --reward are trained"
         : "a new model, since there is no --reward";
    return adapts ? "lora" : o.reward ? "finetune" : "scratch";
}

/* Refuses values that do not fit together. */
static void check_options(const Program *p) {
    if (o.reward) quant_options_check(p, &o.quant, &o.lora.rank, &o.lora.targets, 0);
}

static const Program program = {
    .program = "rm",
    .usage = "DATA --out DIR [--reward DIR | --tokenizer DIR --dim N --layers N ...] [options]",
    .about = "Stage 2: trains a reward model on labelled texts (cross-entropy) or on pairs (Bradley-Terry).",
    OPTIONS(options), PRESETS(preset), .need = needs, .usual = usual_preset, .check = check_options,
    .may_change = MAY_CHANGE };

/* Prints what is learned, in how many steps; if there is an adapter, how the frozen weights are held and how
 * many weights are trained. */
static void say_what(const Trainer *t, const char *data) {
    const size_t trained = tensor_values(t->list, t->tensors, 1);
    const char *one = t->pairs ? "pair" : "text";
    char number[5][64];
    say("%s: %s for training, %s held out, %s; %s; %s of %d", data,
        counted(number[0], (size_t)t->train.examples, one), with_commas(number[1], (size_t)t->held.examples),
        counted(number[2], (size_t)t->train.tokens, "token"), counted(number[3], trained, "weight"),
        counted(number[4], (size_t)t->steps, "step"), o.batch);
    if (!t->adapter) return;
    print_types("frozen weights", &t->types);
    print_trainable(trained, tensor_values(t->model.tensor, t->model.tensors, 0) +
                             tensor_values(t->lora.tensor, t->lora.tensors, 0));
}

int main(int argc, char **argv) {
    static Trainer t;
    const char *data[1] = { NULL };
    t.keep = cli_pool();
    t.scratch = cli_pool();
    cli_parse(&program, argc, argv, data, 1);
    if (!data[0]) usage_error("which dataset?", NULL);
    if (!o.reward && !o.tokenizer)
        usage_error("a new model needs --tokenizer (or --reward to start from)", NULL);
    cli_say_preset();
    const char *const input[] = { data[0], o.reward, o.tokenizer };
    if (o.out && !o.run.resume) out_check(o.out, o.force, input, 3);
    say_digits();
    read_data(&t, data[0]);
    read_config(&t, &program);
    read_documents(&t);
    count_steps(&t);
    memory(&t);
    init_weights(&t);
    say_what(&t, data[0]);
    cli_interrupts();                       /* before this, Ctrl-C ends the program; nothing is lost */
    t.out.fallback = o.fallback;
    t.health.blind = log(t.pairs ? 2 : t.config.labels);
    const RunBegin how = { &program, data[0], &o.run, o.out, "runs", "rm", o.force };
    const Saver saver = { &t.out, write_weights, &t, &o.run, rm_state };
    if (!run_begin(&saver, &how, &t.keep)) report_longer(&t);
    train(&t);
    run_say_best(&t.out, &t.best);
    const int code = run_ended(&t.out, t.step, -1);
    if (!cli_stopping()) {
        keep_best(&t, final_report(&t, t.step));
        health_end(&t.health, &t.out, SMALLER_STEPS);
        run_finish(&t.out);
    }
    return code;
}
