/* train.c - what the three trainers share (sft, rm, ppo): how weights are held, and numbers that stop being numbers.
 *
 * Needs    cli.c for messages, checkpoint.c for folders.
 * Never    changes a number of a run: whatever is computed here is computed in one order only. */
#include "programs.h"
#include <stdio.h>

/* ---- numbers that stop being numbers ---- */

/* A 16-bit float is no number where all bits of its exponent are set. */
static int halves_are_numbers(const uint16_t *x, size_t n, unsigned exponent) {
    for (size_t k = 0; k < n; k++) if ((x[k] & exponent) == exponent) return 0;
    return 1;
}

int tensors_are_numbers(const Tensor *list, int tensors, int dtype) {
    const float limit = dtype == F16 ? 65520.0f : dtype == BF16 ? 3.3961775e38f : HUGE_VALF;    /* what rounds to infinity */
    for (int i = 0; i < tensors; i++) {
        const Matrix *w = list[i].matrix;
        const float *x = w->data;
        const size_t n = list[i].flags & TENSOR_TIED ? 0 : (size_t)w->O * (size_t)w->I;
        if (w->type == F32) for (size_t k = 0; k < n; k++) if (!(fabsf(x[k]) < limit)) return 0;
        if (w->type == BF16 && !halves_are_numbers(w->data, n, 0x7F80u)) return 0;
        if (w->type == F16 && !halves_are_numbers(w->data, n, 0x7C00u)) return 0;
    }
    return 1;
}

void die_not_a_number(const char *what, int step, int saved, const char *folder, const char *hint) {
    Error err = { 0 };
    char text[160];
    if (saved > 0) snprintf(text, sizeof text, "%s in step %d; the weights saved are those after step %d", what, step, saved);
    else snprintf(text, sizeof text, "%s in step %d; no weights were written", what, step);
    fail(&err, E_NUMBER, text, folder, 0, 0);
    die(&err, hint);
}

/* ---- how a policy is held that is not trained itself ---- */

void quant_options_check(const Program *p, const QuantOptions *q, int *rank, const char **targets, int adapter) {
    const int four = q->nf4 || q->fp4;
    if (q->nf4 && q->fp4) usage_error("one of the two, not both", "--nf4, --fp4");
    if (!four) cli_refuse(p, "quant-block|double-quant", "without --nf4 or --fp4 nothing is quantised: leave out");
    if (q->block & (q->block - 1)) usage_error("not a power of two", "--quant-block");
    if (!four || !rank || adapter) return;
    if (!cli_given(p, "lora-r")) {
        *rank = 16;
        if (!cli_given(p, "lora-targets")) *targets = "all-linear";
    }
    if (!*rank) usage_error("4-bit weights are frozen; what is trained is an adapter", "--lora-r 16");
}

void quant_options_types(WeightTypes *w, const Program *p, const QuantOptions *q, const char *folder, int whole, Pool *pool) {
    const int four = q->nf4 || q->fp4;
    Error err = { 0 };
    must(policy_types(w, folder, pool, &err), &err, NULL);
    if (four && w->layers == NF4) {
        fail(&err, E_ARGUMENT, "the policy's weights are 4-bit already", folder, 0, 0);
        die(&err, "leave --nf4 and --fp4 out");
    }
    if (four) {
        w->layers = NF4;
        w->kind = q->nf4 ? QUANT_NF4 : QUANT_FP4;
        w->block = q->block;
        w->doubled = q->doubled;
    }
    if (w->layers != NF4 || four || cli_given(p, "compute")) w->compute = q->compute;   /* else as its quantization_config says */
    if (w->layers == NF4 && whole) {
        fail(&err, E_ARGUMENT, "the policy's weights are 4-bit, and so cannot be trained themselves", folder, 0, 0);
        die(&err, "an adapter is trained instead: --lora-r 16 --lora-targets all-linear");
    }
    if (whole) w->layers = w->tables = F32;
}

void print_types(const char *whose, const WeightTypes *w) {
    static const char *const type[] = { "float32", "bfloat16", "float16" };
    if (w->layers == NF4)
        printf("%s: linears %s, blocks of %d%s, compute %s; embedding and head %s\n", whose, w->kind == QUANT_NF4 ? "NF4" : "FP4", w->block,
               w->doubled ? ", doubly quantised" : "", type[w->compute], type[w->tables]);
    else printf("%s: linears %s, compute %s; embedding and head %s\n", whose, type[w->layers], type[w->compute], type[w->tables]);
}

static const char *with_commas(char out[32], size_t n) {
    char digits[24];
    const int length = snprintf(digits, sizeof digits, "%llu", (unsigned long long)n);
    int at = 0;
    for (int i = 0; i < length; i++) {
        if (i && (length - i) % 3 == 0) out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = 0;
    return out;
}

void print_trainable(size_t trained, size_t all) {
    char number[2][32];
    printf("trainable params: %s || all params: %s || trainable%%: %.4f\n", with_commas(number[0], trained), with_commas(number[1], all),
           all ? 100.0 * (double)trained / (double)all : 0);
}

/* Equal but for the case of ASCII letters. */
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
        for (size_t k = 0; !wanted && k < sizeof good / sizeof *good; k++) match = match || same_word(c->label[i], good[k]);
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

int empty_text_id(const Tokenizer *t) {
    const SpecialIds special = tokenizer_specials(t);
    return special.bos >= 0 ? special.bos : special.eos;
}

void report_padding(int V, const Tokenizer *t) {
    const int known = tokenizer_size(t);
    if (known >= V) return;
    fflush(stdout);
    fprintf(stderr, "the policy has %d ids, its tokenizer %d: the others are written as nothing\n", V, known);
}
