/* programs.h - what the programs share and the library does not see (cli.c, train.c). */
#ifndef PROGRAMS_H
#define PROGRAMS_H

#include "rlhf.h"

/* ================================================================================================
 * cli.c: options, help, messages, progress, signals, log lines
 * ================================================================================================ */
enum { OPT_FLAG, OPT_INT, OPT_SEED, OPT_REAL, OPT_TEXT, OPT_CHOICE };
typedef struct {
    const char *name;               /* without "--" */
    int type;                       /* OPT_ */
    void *value;                    /* int* (FLAG, INT, CHOICE: index), uint64_t*, double*, const char** */
    const char *fallback;           /* default, as text; NULL: 0, NULL, no, or the first choice */
    double min, max;                /* INT, REAL: limits, both included; min == max: none */
    const char *choices;            /* CHOICE: "kl|abs|mse" */
    const char *help;
} Option;
typedef struct { const char *name, *help; const char *const *set; } Preset;     /* set: name, value, ..., NULL */
typedef struct {
    const char *program, *usage;    /* usage: what follows the name, "DATA [options]" */
    const char *about;
    Option *option; int options;
    const Preset *preset; int presets;
} Program;
/* Fills every option: first its fallback, then the preset's value (--preset NAME, or default_preset, or
 * none if that is NULL), then the command line's. Returns the number of positional arguments, whose
 * pointers go to positional. --help prints and exits 0, wrong usage prints and exits 2. May be called
 * again with another default_preset. */
int cli_parse(const Program *p, const char *default_preset, int argc, char **argv,
              const char **positional, int max_positional);
int cli_given(const Program *p, const char *option);    /* returns 1 if the command line had the option */
/* Ends the program with wrong usage, `why: --layers`, if the command line had one of the options
 * ("dim|layers|heads"). */
void cli_refuse(const Program *p, const char *options, const char *why);
/* Appends {"name":value,...} with the value of every option; OPT_CHOICE as its text. */
void cli_options_json(const Program *p, Buffer *b);
/* Returns a Pool over malloc and free, which ends the program if there is no more memory. */
Pool cli_pool(void);
/* Returns an arena of zeroed bytes that lives as long as the program. Ends the program if there is not
 * enough memory; `what` says for what. */
Arena cli_arena(size_t bytes, const char *what);
/* Prints `program: what: where` and what to try (hint NULL: what the error's code suggests); exits 1. */
void die(const Error *err, const char *hint);
void must(int code, const Error *err, const char *hint);        /* dies unless code is OK */
/* Prints `program: message: argument` (argument NULL: without) and the usage; exits 2. */
void usage_error(const char *message, const char *argument);
void cli_interrupts(void);      /* from now on the first Ctrl-C sets cli_stopping, the second one ends the program */
int cli_stopping(void);         /* returns 1 after the first Ctrl-C */
void cli_bill(const char *part, size_t bytes);  /* prints one line of the memory bill and adds its bytes */
size_t cli_bill_total(void);    /* prints the bill's total, returns it, and starts a new bill */
int cli_terminal(void);         /* returns 1 if standard output is a terminal that knows escape sequences */
/* Prints text, `done` of `total` and the time left: as one line that is updated in a terminal, otherwise
 * as plain lines. last: the work is done. */
void progress(const char *text, long long done, long long total, int last);
/* Writes the last `width` of n values to out (cap bytes, with its NUL) as blocks of eight heights. */
void sparkline(char *out, size_t cap, const double *x, int n, int width);
/* Makes the folder base/kind-0001, or with the next free number, and writes its name to out. Returns OK,
 * E_RANGE (the name is too long, no number is free) or the error of making it. */
int run_folder(char *out, size_t cap, const char *base, const char *kind, Error *err);
/* Makes the run's folder: `given`, or without it runs/kind-0001 or the next free one. Dies on failure. */
void run_out(char *out, size_t cap, const char *given, const char *kind);
/* Ends the program with wrong usage if --out (NULL: not given) is empty, a file, or the folder `from`
 * (NULL: none), which `option` ("--policy") names. */
void cli_check_out(const char *out, const char *from, const char *option);
int same_folder(const char *a, const char *b);  /* returns 1 if both names are one folder; without POSIX, if they are equal */
/* Starts a new log at path, in place of an old one. Its first line is
 * {"program": ..., "data": ..., "options": {...}}. */
void log_options(const char *path, const Program *p, const char *data, Pool *pool);
/* A line of a log: log_begin starts it, log_number, log_integer and log_text append to it, log_end writes it. */
typedef struct { const char *path; Buffer line; int fields; } Log;
void log_begin(Log *l, const char *path, Pool *pool);
void log_number(Log *l, const char *name, double value);    /* nine significant digits; null for NaN and infinity */
void log_integer(Log *l, const char *name, long long value);
void log_text(Log *l, const char *name, const char *text, size_t length);   /* text NULL: null */
int log_end(Log *l, Error *err);                            /* returns OK, E_MEMORY, or file_append's error */

/* ================================================================================================
 * train.c: what the trainers share
 * ================================================================================================ */
/* 0: a weight (of floats) is a NaN or an infinity, or an F32 one would be when it is written in dtype. Asked before every save. */
int tensors_are_numbers(const Tensor *list, int tensors, int dtype);
/* The end of a run whose `what` ("the loss") is no number in `step`; saved: the step whose weights are on disk, 0: none. Exits 1. */
void die_not_a_number(const char *what, int step, int saved, const char *folder, const char *hint);
/* How a policy is held that is not trained itself, and computed with: the options of ppo, sft and run, rows for their tables (q: where they go). */
typedef struct { int nf4, fp4, block, doubled, compute, recompute; } QuantOptions;
#define QUANT_OPTIONS(q, nf4_help) \
    { "nf4", OPT_FLAG, &(q).nf4, NULL, 0, 0, NULL, nf4_help }, \
    { "fp4", OPT_FLAG, &(q).fp4, NULL, 0, 0, NULL, "the same in FP4" }, \
    { "quant-block", OPT_INT, &(q).block, "64", 32, 4096, NULL, "weights that share a scale: 32, 64 ... 4096" }, \
    { "double-quant", OPT_FLAG, &(q).doubled, NULL, 0, 0, NULL, "the scales in 8 bits too (bnb_4bit_use_double_quant)" }
#define COMPUTE_OPTION(q) \
    { "compute", OPT_CHOICE, &(q).compute, "f32", 0, 0, "f32|bf16|f16", "what linears multiply: inputs, weights and outputs of the layers' are rounded " \
      "to this, as by autocast; of the head inputs and weights, logits stay f32, and so do sums, all else, and what is written" }
#define QLORA_HELP "QLoRA: the policy's linears are held in 4-bit NF4 and frozen"
#define RECOMPUTE_OPTION(q) \
    { "recompute", OPT_FLAG, &(q).recompute, NULL, 0, 0, NULL, "keep only each layer's input for the backward pass and compute the rest anew: " \
      "less memory, more time, the same numbers" }
/* What does not fit together is wrong usage. Training (rank not NULL; adapter 1: it goes on from one): 4 bits without --lora-r mean rank 16
 * on all seven linears. */
void quant_options_check(const Program *p, const QuantOptions *q, int *rank, const char **targets, int adapter);
/* What folder's policy is held in: what it has, or the 4 bits that are asked for; where whole (all weights are to be trained), F32, and it
 * dies at weights that are in 4 bits. */
void quant_options_types(WeightTypes *w, const Program *p, const QuantOptions *q, const char *folder, int whole, Pool *pool);
void print_types(const char *whose, const WeightTypes *w);     /* one line: "frozen weights: linears NF4 ..." */
void print_trainable(size_t trained, size_t all);               /* as peft: "trainable params: 1,234 || all params: ... || trainable%: 0.1234" */
/* Which of the judge's outputs is the reward: the one label that is `wanted`, without case. wanted NULL: the only output, or the only one
 * called positive, pos, nothate or non-toxic. -1: none, or several. label_names: all of them, by commas, for a message. */
int label_find(const RewardConfig *c, const char *wanted);
void label_names(const RewardConfig *c, char *out, size_t cap);
/* Returns the id that a judge reads for an empty text whose tokenizer's template adds no token: bos,
 * or eos without a bos, or -1 if the tokenizer has neither. */
int empty_text_id(const Tokenizer *t);
/* Says on stderr how many of a policy's V ids its tokenizer does not have (a vocabulary padded to a
 * round number); tokenizer_decode writes such ids as nothing. Says nothing if the tokenizer has all. */
void report_padding(int V, const Tokenizer *t);

#endif
