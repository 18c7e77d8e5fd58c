/* tests/tools/task.c - measures how hard the shipped task is (`make task`): counts the reviews, and trains a
 * reader that ignores the order of words. It measures data and is no test.
 *
 *     make task                                         data/imdb.bin, 12 tokens of data/reward's tokenizer
 *     make task TASK="--data reviews.bin --tokens 30"   other reviews, with two labels
 *
 * The reader is logistic regression, p(label 1) = sigmoid(b + sum over f of count_f w_f), fitted to the train
 * split by AdaGrad (Duchi, Hazan & Singer 2011), one review at a time. Its features are words, or words and
 * pairs of neighbours. A word is a run of letters, digits, ' and -, in lower case. A review that this reader
 * gets wrong needs more than its words: who says them, of what, and what is denied. A reader of the first
 * tokens alone shows how often a query gives the label away before a response is written. */
#include "../../programs.h"
#include <stdio.h>

static struct { const char *data, *tokenizer; int tokens, epochs; double rate; } opt;
static Option option[] = {
    { "data", OPT_TEXT, &opt.data, "data/imdb.bin", 0, 0, NULL, "texts with two labels" },
    { "tokenizer", OPT_TEXT, &opt.tokenizer, "data/reward", 0, 0, NULL,
      "folder of the tokenizer that counts tokens" },
    { "tokens", OPT_INT, &opt.tokens, "12", 1, 1 << 20, NULL, "length of the short texts" },
    { "epochs", OPT_INT, &opt.epochs, "4", 1, 1000, NULL, "passes over the train split" },
    { "rate", OPT_REAL, &opt.rate, "0.1", 1e-6, 100, NULL, "AdaGrad's learning rate" },
};
static const Program program = {
    .program = "build/tests/task",
    .usage = "[options]",
    .about = "Measures how hard a set of reviews is.",
    OPTIONS(option) };
static Pool pool, scratch;                  /* scratch: one text's tokens */

/* ---- features ---- */

/* A text as features: ids first .. first + count - 1 of one long list, in ascending order, each as often as
 * it occurs. */
typedef struct { size_t first; int count, words; } Bag;
/* A set of 64-bit hashes, at most half full, that gives ids in order of appearance. Two words share a hash
 * once in a billion billion. */
typedef struct { uint64_t *hash; int *id; size_t slots; int ids; } Vocabulary;
typedef struct { int *feature; size_t features; Bag *bag; Vocabulary known; } Bags;

static void *take(size_t count, size_t size) {
    void *memory = pool_take(&pool, count, size);
    Error err = { 0 };
    if (!memory) must(fail(&err, E_MEMORY, "out of memory", opt.data, 0, 0), &err, "use fewer reviews");
    return memory;
}

/* Returns the slot of a hash, or the free slot (0) that it would get. */
static size_t slot_of(const Vocabulary *v, uint64_t hash) {
    size_t at = (size_t)hash & (v->slots - 1);
    while (v->hash[at] && v->hash[at] != hash) at = (at + 1) & (v->slots - 1);
    return at;
}

static void grow(Vocabulary *v) {
    Vocabulary old = *v;
    v->slots = old.slots ? 2 * old.slots : 1024;
    v->hash = take(v->slots, sizeof *v->hash);
    v->id = take(v->slots, sizeof *v->id);
    for (size_t k = 0; k < old.slots; k++) {
        size_t at;
        if (!old.hash[k]) continue;
        at = slot_of(v, old.hash[k]);
        v->hash[at] = old.hash[k];
        v->id[at] = old.id[k];
    }
}

static int id_of(Vocabulary *v, uint64_t hash) {
    size_t at;
    hash += hash == 0;
    if (2 * (size_t)v->ids >= v->slots) grow(v);
    at = slot_of(v, hash);
    if (!v->hash[at]) { v->hash[at] = hash; v->id[at] = v->ids++; }
    return v->id[at];
}

static char letter(char c) {                /* returns c in lower case, or 0 if it is no part of a word */
    if (c >= 'A' && c <= 'Z') return (char)(c - 'A' + 'a');
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '\'' || c == '-'
        || (unsigned char)c >= 0x80 ? c : 0;
}

static int ascending(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

/* Appends the features of s (n bytes): its words, and if `pairs`, each word together with the word before
 * it. */
static Bag add_bag(Bags *b, const char *s, size_t n, int pairs) {
    Bag bag = { 0, 0, 0 };
    uint64_t before = 0;
    bag.first = b->features;
    for (size_t i = 0; i < n; ) {
        char word[64];
        size_t length = 0;
        uint64_t hash;
        for (; i < n && letter(s[i]); i++)
            if (length < sizeof word) word[length++] = letter(s[i]);
        if (!length) { i++; continue; }
        hash = hash_bytes(word, length, 0);
        b->feature[b->features++] = id_of(&b->known, hash);
        if (pairs && bag.words)
            b->feature[b->features++] = id_of(&b->known, hash_bytes(&hash, sizeof hash, before));
        before = hash;
        bag.words++;
    }
    bag.count = (int)(b->features - bag.first);
    qsort(b->feature + bag.first, (size_t)bag.count, sizeof *b->feature, ascending);
    return bag;
}

/* Fills the bags of all texts; with a tokenizer, of the text of their first opt.tokens tokens. */
static Bags make_bags(const Dataset *d, const Tokenizer *t, int pairs) {
    Bags b = { NULL, 0, NULL, { NULL, NULL, 0, 0 } };
    size_t room = 0;
    /* a word with its pair has two bytes */
    for (uint64_t i = 0; i < d->count; i++) room += d->document[i].length[0];
    b.feature = take(room + (size_t)d->count, sizeof *b.feature);
    b.bag = take((size_t)d->count, sizeof *b.bag);
    for (uint64_t i = 0; i < d->count; i++) {
        const Document *doc = &d->document[i];
        PoolMark mark = pool_mark(&scratch);
        size_t n = doc->length[0];
        char *s = NULL;
        int *ids, count;
        if (t) {
            must(tokenizer_encode(t, doc->text[0], n, &scratch, &ids, &count), NULL, NULL);
            must(tokenizer_decode(t, ids, count < opt.tokens ? count : opt.tokens, &scratch, &s, &n), NULL,
                 NULL);
        }
        b.bag[i] = add_bag(&b, t ? s : doc->text[0], n, pairs);
        pool_release(&scratch, mark);
    }
    return b;
}

/* ---- logistic regression ---- */

/* Returns b + sum over f of count_f w_f. */
static double score_of(const Bags *b, const Bag *bag, const double *weight, double bias) {
    double sum = bias;
    for (int k = 0; k < bag->count; k++) sum += weight[b->feature[bag->first + (size_t)k]];
    return sum;
}

/* Does one step of AdaGrad on one number; *squares sums the squares of its gradients. */
static void step(double *w, double *squares, double gradient) {
    *squares += gradient * gradient;
    if (gradient != 0) *w -= opt.rate * gradient / sqrt(*squares);
}

/* Trains on the train split and returns the accuracy on the held-out split. */
static double accuracy(const Dataset *d, const Bags *b) {
    double *weight = take((size_t)b->known.ids + 1, sizeof *weight),
        *squares = take((size_t)b->known.ids + 1, sizeof *squares);
    double *bias = &weight[b->known.ids], *bias_squares = &squares[b->known.ids];
    int *order = take((size_t)d->count, sizeof *order), n = 0, held_out = 0, right = 0;
    for (int i = 0; i < (int)d->count; i++) if (!d->document[i].split) order[n++] = i;
    for (int epoch = 0; epoch < opt.epochs; epoch++) {
        Rng rng = rng_stream(1, (uint64_t)epoch, 0);
        rng_shuffle(&rng, order, n);
        for (int i = 0; i < n; i++) {
            const Bag *bag = &b->bag[order[i]];
            const int *f = b->feature + bag->first;
            double p = 1 / (1 + exp(-score_of(b, bag, weight, *bias))),
                error = p - d->document[order[i]].label;
            for (int k = 0, next; k < bag->count; k = next) {
                for (next = k + 1; next < bag->count && f[next] == f[k]; next++) {}
                step(&weight[f[k]], &squares[f[k]], error * (next - k));    /* dloss/dw = (p - label) count */
            }
            step(bias, bias_squares, error);
        }
    }
    for (uint64_t i = 0; i < d->count; i++) {
        const Document *doc = &d->document[i];
        if (!doc->split) continue;
        held_out++;
        right += (score_of(b, &b->bag[i], weight, *bias) > 0) == doc->label;
    }
    return (double)right / held_out;
}

/* ---- the report ---- */

/* Counts splits and labels. Always guessing the more frequent label gets its share right. */
static void print_reviews(const Dataset *d, const Bags *b) {
    int fewest = INT_MAX, most = 0;
    unsigned long long held_out = 0, ones = 0, count = (unsigned long long)d->count;
    double words = 0;
    for (uint64_t i = 0; i < d->count; i++) {
        int n = b->bag[i].words;
        if (n < fewest) fewest = n;
        if (n > most) most = n;
        words += n;
        if (d->document[i].split) { held_out++; ones += d->document[i].label == 1; }
    }
    if (!held_out || held_out == count) usage_error("both splits need texts", opt.data);
    printf("%s: %llu reviews, %llu of them held out\n", opt.data, count, held_out);
    printf("  %-28s %d to %d, mean %.1f\n  %-28s %d\n", "words in a review", fewest, most,
           words / (double)count, "distinct words", b->known.ids);
    printf("held-out accuracy, in %%\n  %-28s %.1f\n", "always the commoner label",
           100.0 * (double)(ones > held_out - ones ? ones : held_out - ones) / (double)held_out);
}

static void print_accuracy(const char *features, const Dataset *d, const Bags *b) {
    printf("  %-28s %.1f\n", features, 100 * accuracy(d, b));
}

/* Trains the same reader on the first tokens alone. */
static void print_start(const Dataset *d) {
    char name[64];
    Error err = { 0 };
    Tokenizer *t;
    Bags b;
    snprintf(name, sizeof name, "words of the first %d tokens", opt.tokens);
    if (!folder_exists(opt.tokenizer)) {
        printf("  %-28s (no tokenizer: %s is missing)\n", name, opt.tokenizer);
        return;
    }
    t = tokenizer_open(opt.tokenizer, &pool, &err);
    if (!t) die(&err, "a folder with tokenizer.model, or with vocab.json and merges.txt");
    b = make_bags(d, t, 0);
    print_accuracy(name, d, &b);
}

int main(int argc, char **argv) {
    const char *none[1];
    Error err = { 0 };
    Dataset d;
    Bags bags;
    pool = cli_pool();
    scratch = cli_pool();
    cli_parse(&program, argc, argv, none, 0);
    must(dataset_read(&d, opt.data, &pool, &err), &err, "make it: make data/imdb.bin");
    if (d.kind != DATA_TEXT || d.labels != 2 || d.count > INT_MAX)
        usage_error("not texts with two labels", opt.data);
    for (uint64_t i = 0; i < d.count; i++)
        if (d.document[i].label < 0) usage_error("a text without a label", opt.data);
    bags = make_bags(&d, NULL, 0);
    print_reviews(&d, &bags);
    print_start(&d);
    print_accuracy("words", &d, &bags);
    bags = make_bags(&d, NULL, 1);
    print_accuracy("words and pairs", &d, &bags);
    pool_free(&scratch);
    pool_free(&pool);
    return 0;
}
