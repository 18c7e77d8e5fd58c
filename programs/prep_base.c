/* prep_base.c - what prep's commands share: memory, errors about a line of a file, datasets. */
#include "prep.h"
#include <stdio.h>

static Pool kept;

Pool *prep_pool(void) { return &kept; }

/* Prints `what: FILE, line N, field F` and the hint, and exits 1. Line 0 and field NULL are not printed. */
void prep_stop(int code, const char *what, const char *file, long long line, const char *field,
               const char *hint) {
    Error err = { 0 };
    char where[256];
    const char *mark = field ? ", field " : "", *name = field ? field : "";
    if (line > 0) snprintf(where, sizeof where, "%.150s, line %lld%s%.60s", file, line, mark, name);
    else snprintf(where, sizeof where, "%.150s%s%.60s", file, mark, name);
    fail(&err, code, what, where, 0, 0);
    die(&err, hint);
}
/* Returns memory; exits with a message if it is NULL. */
void *prep_need(void *memory) {
    Error err = { 0 };
    if (!memory) {
        fail(&err, E_MEMORY, "out of memory", "the documents", 0, 0);
        die(&err, "use a smaller input, or --max-documents");
    }
    return memory;
}
void *prep_take(size_t count, size_t size) { return prep_need(pool_take(prep_pool(), count, size)); }
char *prep_keep(const char *text, size_t n) { return prep_need(pool_text(prep_pool(), text, n)); }

/* Returns 1 for 5 % of texts, chosen by their hash. */
int is_held_out(const char *text, size_t length) { return hash_bytes(text, length, 0) % 20 == 0; }

/* Appends a document to the dataset, which has room for *capacity. */
void add_document(Dataset *d, uint64_t *capacity, const Document *doc) {
    if (d->count == *capacity) {
        uint64_t more = *capacity ? *capacity * 2 : 1024;
        Document *grown = more > SIZE_MAX / sizeof *grown ? prep_need(NULL)
                                                          : prep_take((size_t)more, sizeof *grown);
        if (d->count) memcpy(grown, d->document, (size_t)d->count * sizeof *grown);
        d->document = grown;
        *capacity = more;
    }
    d->document[d->count++] = *doc;
}

/* Returns the number of words, which are separated by spaces or control characters. */
uint64_t words_of(const char *s, size_t n) {
    uint64_t words = 0;
    for (size_t i = 0; i < n; i++)
        words += (unsigned char)s[i] > ' ' && (i == 0 || (unsigned char)s[i - 1] <= ' ');
    return words;
}

/* Prints how many pairs have a probability, and its mean, if any has. */
static void print_probabilities(const Dataset *d) {
    char number[64];
    size_t n = 0;
    double sum = 0;
    for (uint64_t i = 0; i < d->count; i++) {
        if (d->document[i].label < 0) continue;
        n++;
        sum += (double)d->document[i].label / PAIR_CERTAIN;
    }
    if (n) say("  %s with a probability that the first text is better, %.3f in the mean",
               counted(number, n, "pair"), sum / (double)n);
}

/* Prints how many documents there are, how many are held out, their mean length, and
 * how many have each label. */
void print_statistics(const Dataset *d, const char *path) {
    static const char *const kind[][2] = { { "", "" }, { "texts", "text" },
                                           { "pairs (chosen, rejected)", "pair (chosen, rejected)" },
                                           { "prompts with responses", "prompt with a response" } };
    uint64_t held_out = 0, words = 0, bytes = 0;
    printf("%s: %llu %s", path, (unsigned long long)d->count, kind[d->kind][d->count == 1]);
    for (uint64_t i = 0; i < d->count; i++) {
        const Document *doc = &d->document[i];
        held_out += doc->split != 0;
        for (int k = 0; k < (d->kind == DATA_TEXT ? 1 : 2); k++) {
            words += words_of(doc->text[k], doc->length[k]);
            bytes += doc->length[k];
        }
    }
    printf(", %llu held out, %.1f words and %.1f bytes each\n", (unsigned long long)held_out,
           d->count ? (double)words / (double)d->count : 0.0,
           d->count ? (double)bytes / (double)d->count : 0.0);
    if (d->kind == DATA_PAIRS) print_probabilities(d);
    for (int k = -1; k < d->labels; k++) {
        uint64_t n = 0;
        for (uint64_t i = 0; i < d->count; i++) n += d->document[i].label == k;
        if (k >= 0 || (n && d->labels))
            printf("  label %-12s %llu\n", k < 0 ? "(none)" : d->label[k], (unsigned long long)n);
    }
}

void write_dataset(Dataset *d, const char *path) {
    Error err = { 0 };
    must(dataset_write(d, path, prep_pool(), &err), &err,
         "check --out: its folder, its permissions, the free space");
    print_statistics(d, path);
}

const char *path_of(const char *folder, const char *name) {
    Buffer b = { prep_pool(), NULL, 0, 0, 0 };
    buffer_text(&b, folder);
    buffer_text(&b, "/");
    buffer_text(&b, name);
    buffer_u8(&b, 0);
    if (b.failed) prep_need(NULL);
    return (const char *)b.data;
}
