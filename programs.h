/* programs.h - what the programs share and the library does not use: state.c, terminal.c, cli.c,
 * options.c, folder.c, train.c, resume.c, report.c, html.c, constitution.c. */
#ifndef PROGRAMS_H
#define PROGRAMS_H

#include "rlhf.h"

/* ==============================================================================================
 * state.c: the file from which a stopped run goes on; its format is described there
 * ============================================================================================== */
enum { STATE_NAME = 128 };          /* most bytes of a field's name, with a NUL */
/* A state that is being written or read. code: OK, or the first error: then nothing more is done. */
typedef struct {
    int code;
    Writer *writer; File *file;     /* file NULL: it is written */
    const char *path; Pool *pool; Error *err;
    unsigned char *block; size_t used, next;        /* the bytes of a block, and the next one */
    uint64_t at, size, sum;         /* bytes read; of all fields; the checksum of the blocks before */
} State;
/* Writes or reads all fields of a run, one after another, by these functions: when reading, a field of
 * another name, kind or number of values is an error, and so is a whole number below low or above high. */
typedef void (*StateVisit)(void *run, State *s);
void state_integer(State *s, const char *name, long long *x, long long low, long long high);
void state_int(State *s, const char *name, int *x, int low, int high);
void state_ints(State *s, const char *name, int *x, size_t n, int low, int high);
void state_real(State *s, const char *name, double *x);
void state_reals(State *s, const char *name, double *x, size_t n);
void state_floats(State *s, const char *name, float *x, size_t n);
/* A text of *length bytes; when reading, *text becomes a copy in the state's pool, with a NUL. */
void state_text(State *s, const char *name, const char **text, size_t *length);
/* A hash of something that must be the same when the run goes on; else `message` and `where` are the
 * error. */
void state_same(State *s, const char *name, uint64_t hash, const char *message, const char *where);
/* The trained tensors of a list, and their optimizer. */
void state_trained(State *s, const Tensor *list, int tensors, Optimizer *o);
/* Writes the file, atomically. OK or a code. */
int state_write(const char *path, StateVisit visit, void *run, Pool *pool, Error *err);
/* Checks the whole file's checksum, then reads it. Texts are in pool. OK or a code; after a wrong checksum
 * nothing has been changed. state_peek reads only the first fields, and checks no checksum. */
int state_read(const char *path, StateVisit visit, void *run, Pool *pool, Error *err);
int state_peek(const char *path, StateVisit visit, void *run, Pool *pool, Error *err);
/* Sets *hash to a hash of a file's bytes. OK or a code. */
int file_hash(const char *path, uint64_t *hash, Pool *pool, Error *err);
uint64_t frozen_hash(const Tensor *list, int tensors);      /* returns a hash of the weights not trained */

/* ==============================================================================================
 * terminal.c: lines that fit the terminal
 * ============================================================================================== */
/* A function whose argument number `at` is a format, and whose next ones are its numbers and texts. */
#ifdef __GNUC__
#define LIKE_PRINTF_AT(at) __attribute__((format(printf, at, at + 1)))
#else
#define LIKE_PRINTF_AT(at)
#endif
#define LIKE_PRINTF LIKE_PRINTF_AT(1)
/* Returns 1 if standard output is a terminal that knows escape sequences. */
int terminal_here(void);
/* Returns how many columns a line may have: the variable COLUMNS, else those of the terminal that
 * standard output is, else 80. */
int terminal_width(void);
void close_line(void);          /* ends a line of progress that is open; flushes standard output */
/* Makes the program end with a message and exit code 1 if its output could not be written. */
void watch_output(const char *program);
/* Prints a line like printf, with a newline. In a terminal it is broken between words to fit. */
void say(const char *format, ...) LIKE_PRINTF;
/* Prints a line like printf, with a newline, as a message: to standard error, broken as by say. */
void say_error(const char *format, ...) LIKE_PRINTF;
/* Prints the words of text, the first at `column`, in lines of at most `width` columns; each new
 * line begins at `indent`. Returns the column after the last word. */
int print_wrapped(const char *text, int column, int indent, int width);
int text_columns(const char *text, size_t n);   /* returns how many columns of a terminal n bytes take */
const char *with_commas(char out[32], size_t n);    /* writes 1,234,567 to out; returns out */
/* Writes a number with its noun, "1 text", "1,200 texts", "3 queries"; returns out. */
const char *counted(char out[64], size_t n, const char *noun);
/* Writes "4 to 8", or "8" if both are equal; returns out. */
const char *from_to(char out[32], long long least, long long most);
void readable_bytes(char out[32], size_t bytes);    /* writes "640 B", "1.5 KB", "23.4 MB" */
void readable_time(char out[32], double seconds);   /* writes "0.4 s", "0:42", "12:05", "3h07m" */
void print_bytes(const char *part, size_t bytes);   /* prints one line of a bill */
/* Prints text, `done` of `total` and the time left: in a terminal as one line that is updated,
 * otherwise as plain lines. Two spaces separate the text's fields, the most important field first.
 * last 1: the work is done. */
void progress(const char *text, long long done, long long total, int last);
/* Writes a terminal's line of progress to out. If it is wider than `width`, the bar goes first,
 * then the last fields of the text, then `left` and the count: two fields stay longest. */
void progress_line(char *out, size_t cap, const char *text, long long done, long long total,
                   const char *left, int width);
/* Draws the last `width` of n values in out (cap bytes, with a NUL) as blocks of eight heights. */
void sparkline(char *out, size_t cap, const double *x, int n, int width);

/* ==============================================================================================
 * config_file.c: options from a file
 * ============================================================================================== */
typedef struct { const char *name, *value; int line; } ConfigLine;     /* line 0: of a log */
typedef struct { ConfigLine *list; int count; const char *program; } ConfigFile;  /* of a log; else NULL */
/* Reads options from lines "name: value", or from a run's log. All texts are in pool. OK or a code. */
int config_file_read(ConfigFile *c, const char *path, Pool *pool, Error *err);

/* ==============================================================================================
 * options.c: the command line
 * ============================================================================================== */
#define RLHF_VERSION "1.0"
enum { OPT_FLAG, OPT_INT, OPT_SEED, OPT_REAL, OPT_TEXT, OPT_CHOICE };
typedef struct {
    const char *name;               /* without "--"; "learning-rate|lr": other names follow */
    int type;                       /* OPT_FLAG, OPT_INT ... */
    void *value;                    /* int* (CHOICE: index), uint64_t*, double* or const char** */
    const char *fallback;           /* default as text; NULL: 0, NULL, no or the first choice */
    double min, max;                /* INT, REAL: least and largest value; min == max: no limits. TEXT: with
                                     * max 1 it may be empty */
    const char *choices;            /* CHOICE: "kl|abs|mse" */
    const char *help;
} Option;
/* A named set of options. set: name, value, name, value, ..., NULL. */
typedef struct { const char *name, *help; const char *const *set; } Preset;
/* Options ("quant-block|double-quant") that have an effect only if one of the options of `with`
 * ("nf4|fp4") is on, or if all of them are off ("!reward-text"). why: the reason, or NULL. */
typedef struct { const char *options, *with, *why; } Need;
typedef struct { const char *name; int (*run)(int argc, char **argv); const char *help; } Command;
typedef struct Program Program;
struct Program {
    const char *program, *usage;    /* usage: the arguments, as "DATA [options]" */
    const char *about;
    Option *option; int options;
    const Preset *preset; int presets;
    const Need *need;               /* NULL, or a table that ends with { NULL, NULL, NULL } */
    /* Returns the preset that the values of the options ask for if there is no --preset; *why gets
     * the reason. NULL: no preset. */
    const char *(*usual)(const char **why);
    void (*check)(const Program *p);    /* refuses values that do not fit together; NULL: none */
    const char *may_change;         /* trainers: the options that --resume may change ("show|chunk") */
    const Command *command; int commands;   /* only --help prints them */
};
#define OPTIONS(table) .option = (table), .options = (int)(sizeof (table) / sizeof *(table))
#define PRESETS(table) .preset = (table), .presets = (int)(sizeof (table) / sizeof *(table))
/* Fills every option: with its fallback, the preset's value (--preset NAME, or the usual one) and
 * the command line's. Then calls p->check, and refuses options that were given and have no effect.
 * Returns the number of positional arguments, whose pointers go to positional. --help, --version
 * and --show-options print and exit 0; wrong usage prints and exits 2. */
int cli_parse(const Program *p, int argc, char **argv, const char **positional,
              int max_positional);
/* Returns 1 if the option was given: by the command line, by --config, or to a run that goes on when it
 * began. cli_typed_option: if this command line has it. */
int cli_given(const Program *p, const char *option);
int cli_typed_option(const Program *p, const char *option);
void cli_say_preset(void);      /* prints the preset in use, and why it is this one */
/* A program of several commands: runs the one that argv[1] names, and returns its exit code. */
int cli_command(const char *program, const char *about, const Command *command, int commands,
                int argc, char **argv);
/* Appends {"name":value,...} with the value of every option; OPT_CHOICE as its text. */
void cli_options_json(const Program *p, Buffer *b);
/* Appends {"--name": "value", ...}: every option that has a value, but those of `without` ("out|batch"). */
void cli_values(const Program *p, const char *without, Buffer *b);
/* Starts a new log at path, and deletes an old one. Its first line is
 * {"program": ..., "version": ..., "data": ..., "data_hash": ..., "options": {...}}, the
 * options without those of one start (--resume ...). hash: of the dataset. */
void log_options(const char *path, const Program *p, const char *data, uint64_t hash, Pool *pool);
/* Starts the log of times. Its first line has what is not the same in equal runs: compiler, flags, kernel,
 * threads, and the time when the run began. */
void log_machine(const char *path, const Program *p, Pool *pool);
/* Cuts a log to `length` bytes after its first line, and writes that line anew. Returns OK or a code:
 * E_TRUNCATED if it is shorter; the rest is done then. */
int log_resume(const char *path, uint64_t length, const Program *p, const char *data, uint64_t hash,
               Pool *pool, Error *err);
/* The first fields of a state: program, data, options and kernel. cli_parse reads them if there is
 * --resume: then the options are those of the run; one that is given again has to be the same, unless
 * it may change; and positional[0] is the run's data unless it is given. */
void cli_state(State *s);

/* ==============================================================================================
 * cli.c: messages, memory, signals, run folders, log lines
 * ============================================================================================== */
/* Says which program runs: its name begins all messages. cli_parse calls it. */
void cli_begin(const Program *p);
const char *program_name(void);
/* Returns a Pool over malloc and free. If there is no more memory, the pool ends the program. */
Pool cli_pool(void);
/* Returns an arena of zeroed bytes, which stays until the program ends. Ends the program if there
 * is not enough memory; `what` says for what. */
Arena cli_arena(size_t bytes, const char *what);
/* Prints `program: what: where` and the hint (NULL: the standard hint for
 * the error's code), and exits 1. */
void die(const Error *err, const char *hint);
void cli_warn(const Error *err, const char *hint);          /* prints what die prints; does not exit */
void must(int code, const Error *err, const char *hint);    /* calls die unless code is OK */
/* Writes an error's numbers in words, " (5009; at most 256)" or " (3 instead of 5)", or "" if it
 * has none; returns out. */
const char *numbers_of(char out[64], const Error *err);
/* Prints `program: message: argument` (argument NULL: only the message) and the hint (NULL: the
 * usage); exits 2. usage_error has no hint. */
void usage_hint(const char *message, const char *argument, const char *hint);
void usage_error(const char *message, const char *argument);
/* Catches Ctrl-C (SIGINT), SIGTERM and SIGHUP: the first one makes cli_stopping return 1. A second
 * Ctrl-C ends the program. */
void cli_interrupts(void);
/* Returns 1 after one of these signals, or after the time limit. */
int cli_stopping(void);
void cli_time_limit(double minutes);    /* since the program began; 0: none */
/* Returns the program's exit code: 130, 143 or 129 (128 and the signal's number) if it was asked to
 * stop, otherwise code. */
int cli_exit_code(int code);
/* Returns 1 if a user types: standard input and the stream of messages are terminals. */
int cli_typed(void);
/* A line of a log: log_begin starts it, log_number, log_integer and log_text append
 * to it, and log_end writes it. */
typedef struct { const char *path; Buffer line; int fields; } Log;
void log_begin(Log *l, const char *path, Pool *pool);
void log_number(Log *l, const char *name, double value);    /* nine digits; NaN, inf: null */
void log_integer(Log *l, const char *name, long long value);
void log_text(Log *l, const char *name, const char *text, size_t length);   /* text NULL: null */
int log_end(Log *l, Error *err);    /* returns OK, E_MEMORY, or file_append's error */

/* ================================================================================================
 * folder.c: the folders that programs write
 * ================================================================================================ */
/* path: the folder that files are written to. given: --out. replaces: the folder that path will replace at
 * the first save ("": none). where: the folder of the result, after a save. number: the file with the last
 * number of the numbered folders beside this one ("": not numbered). existed: so many bytes of path were a
 * folder before. saved: the step whose weights this run has written; 0: none. begun 1: what is in the folder
 * is kept when the program ends. lost: lines that could not be written to logs. data, data_hash: the
 * dataset's file, and a hash of its bytes. stopped: the step of the state from which the run can go on; 0:
 * there is none. log_length, time_length: bytes of the logs in that step (of the first: after its
 * first line). events: the name of TensorBoard's file in the folder ("": none); events_from: the first step
 * of a run that goes on (0: it begins); events_begun 1: the file is there. A RunFolder has to exist until the
 * program ends, since the exit cleans up. */
typedef struct {
    char path[512], given[512], replaces[500], where[512], log[540], time[540], lock[540], number[540];
    char events[160]; double events_from; int events_begun;
    const char *kind, *fallback;
    size_t existed; int lock_handle, saved, begun, lost;
    const char *data; uint64_t data_hash; int stopped;
    long long log_length, time_length;
} RunFolder;
#define FORCE_OPTION(force) \
    { "force", OPT_FLAG, &(force), NULL, 0, 0, NULL, \
      "replace the folder of --out, with everything in it, when the new one is complete" }
#define FALLBACK_OPTION(fallback) \
    { "fallback", OPT_TEXT, &(fallback), ".", 0, 0, NULL, \
      "if the result cannot be written to its folder: the folder in which a new one is made for it" }
/* Ends the program with wrong usage if the file `out`, the value of an option ("--out"), is one of the
 * inputs or in a folder that is an input. An input may be NULL. */
void out_file_check(const char *option, const char *out, const char *const *input, int inputs);
/* Checks the folder `out`, the value of --out, before anything is read. It may not be a file, nor hold an
 * input; it has to be empty or new, unless force is 1; and no other program may be writing to it. */
void out_check(const char *out, int force, const char *const *input, int inputs);
/* Makes and locks the folder `out`, or if it is NULL the next folder base/kind-0001, and fills *f. If `out`
 * is not empty (and force is 1), makes a folder beside it instead, which out_commit puts in its place. The
 * folder is deleted when the program ends, unless out_begun or out_commit was called. */
void out_open(RunFolder *f, const char *out, int force, const char *base, const char *kind);
/* Locks the folder of a stopped run, to go on with it, and fills *f; deletes files that were not complete
 * when the run ended. */
void out_resume(RunFolder *f, const char *folder, const char *kind);
#define NOTHING_LOST "make room on the disk, or make the folder writable: the state is as it was"
void out_state(const RunFolder *f, char out[540]);  /* writes the name of the file `state` */
long long out_length(const char *path);             /* returns a file's bytes; 0 if it is not there */
long long out_first_line(const char *path);         /* returns the bytes of its first line */
int out_cut(const char *path, long long length, Error *err);    /* shortens a file; OK or a code */
void out_begun(RunFolder *f);       /* to be called after a run's first step: the folder is kept */
/* To be called after all files were written: the folder is kept, and has its final name. OK or a code. */
int out_commit(RunFolder *f, Error *err);
/* Append to a log of a run. A failure is no reason to lose the run: it is said once and counted. */
void out_append(RunFolder *f, const char *path, const void *bytes, size_t n);
void out_log(RunFolder *f, Log *l);     /* ends the line and appends it, and to TensorBoard's file */
/* From now on out_log writes each line's numbers to a file of TensorBoard, too, which begins with the first of
 * them. resumed: the step after which a run goes on (0: it begins): what an older file of the folder has of
 * later steps no longer counts. */
void out_tensorboard(RunFolder *f, int resumed);
/* Adds the bytes that will be written to the printed bill, and dies (dry_run 1: warns) if the disk of
 * the folder `out` has less room. */
void out_room(const char *out, uint64_t bytes, int dry_run);
/* Writes the name of the next folder to try to `out` if a result cannot be written to f->path, because of
 * `why`. In a terminal it asks; otherwise it makes a new folder in f->fallback, then in the current folder.
 * *tries: 0 at first. Returns 0 if there is no other place. */
int out_elsewhere(const RunFolder *f, char *out, size_t cap, int *tries, const Error *why);
/* Makes the folder base/kind-0001, or the one after the largest number that there is or was, and writes its
 * name to out. Returns OK, E_RANGE (the name is too long, or no number is free) or the error of making it. */
int run_folder(char *out, size_t cap, const char *base, const char *kind, Error *err);

/* ================================================================================================
 * train.c: code that sft, rm and ppo share. A function that fails exits with a message.
 * ============================================================================================ */
/* Calls pool_take; exits if there is no memory for `what`. */
void *pool_need(Pool *pool, size_t count, size_t size, const char *what);
/* Prints a line if this build computes with more digits than a float holds (FLT_EVAL_METHOD, as
 * -m32 does with the x87): then its last digits differ from those of other builds. */
void say_digits(void);

/* ---- options that several programs have: rows of their tables ---- */
/* How weights are held in memory, and the number type of computing. */
typedef struct { int nf4, fp4, block, doubled, compute, recompute; } QuantOptions;
#define QUANT_OPTIONS(q, nf4_help) \
    { "nf4", OPT_FLAG, &(q).nf4, NULL, 0, 0, NULL, nf4_help }, \
    { "fp4", OPT_FLAG, &(q).fp4, NULL, 0, 0, NULL, "like --nf4, but in FP4" }, \
    { "quant-block", OPT_INT, &(q).block, "64", 32, 4096, NULL, \
      "weights that share a scale: 32, 64 ... 4096" }, \
    { "double-quant", OPT_FLAG, &(q).doubled, NULL, 0, 0, NULL, \
      "the scales in 8 bits too (bnb_4bit_use_double_quant)" }
#define COMPUTE_OPTION(q) \
    { "compute", OPT_CHOICE, &(q).compute, "f32", 0, 0, "f32|bf16|f16", \
      "number type in which linears multiply: the inputs, weights and outputs of the layers' " \
      "linears, and the head's inputs and weights, are rounded to it, as by autocast; sums, " \
      "logits, all other numbers and the files stay f32" }
#define RECOMPUTE_OPTION(q) \
    { "recompute", OPT_FLAG, &(q).recompute, NULL, 0, 0, NULL, \
      "keep only each layer's input for the backward pass and compute the rest again: less " \
      "memory, more time, the same numbers" }
#define QLORA_HELP "QLoRA: the policy's linears are held in 4-bit NF4 and frozen"
/* The adapter to train. rank 0: no low-rank pairs; soft: the rows of a soft prompt, 0: there is none. */
typedef struct { int rank, rslora; double alpha, dropout; const char *targets;
                 int soft, soft_init; const char *soft_text; } LoraOptions;
/* standard: the default targets, comma-separated, by their names in the model's family */
#define LORA_OPTIONS(l) \
    { "lora-r", OPT_INT, &(l).rank, "0", 0, INT_MAX, NULL, \
      "train a LoRA adapter of this rank instead of all weights (0: all weights)" }, \
    { "lora-alpha", OPT_REAL, &(l).alpha, "16", 0, HUGE_VAL, NULL, "LoRA scale: alpha / rank" }, \
    { "lora-targets", OPT_TEXT, &(l).targets, NULL, 0, 0, NULL, \
      "modules to adapt, comma-separated: linears, embedding, head; all-linear: every linear of the " \
      "layers (default: queries and values, as peft has it for each family: q_proj,v_proj of Llama)" }, \
    { "lora-rslora", OPT_FLAG, &(l).rslora, NULL, 0, 0, NULL, "LoRA scale: alpha / sqrt(rank)" }
#define PROMPT_OPTIONS(l) \
    { "prompt-tokens", OPT_INT, &(l).soft, "0", 0, 65536, NULL, \
      "train a soft prompt: so many rows of numbers, which come before each text as if they were the " \
      "embeddings of tokens; alone, or with --lora-r beside an adapter (0: none)" }, \
    { "prompt-init", OPT_CHOICE, &(l).soft_init, "vocabulary", 0, 0, "vocabulary|normal", \
      "where the soft prompt begins: at the embeddings of tokens drawn at random, or at normal numbers " \
      "of deviation 1 (peft's RANDOM)" }, \
    { "prompt-init-text", OPT_TEXT, &(l).soft_text, NULL, 0, 0, NULL, \
      "the soft prompt begins at the embeddings of this text's tokens, cut or repeated to " \
      "--prompt-tokens" }
#define LORA_DROPOUT_OPTION(l) \
    { "lora-dropout", OPT_REAL, &(l).dropout, "0", 0, 0.99, NULL, \
      "share of the adapter's inputs that training sets to 0, drawn again in every step" }
#define NO_SPECIAL_OPTION(plain) \
    { "no-special", OPT_FLAG, &(plain), NULL, 0, 0, NULL, \
      "read the names of special tokens (<s>, <|im_end|>, [MASK] ...) as plain text. Without it a name " \
      "in a text becomes the token, as in Hugging Face's libraries; texts from users may hold such names" }
#define SEED_OPTION(seed, standard, help) { "seed", OPT_SEED, &(seed), standard, 0, 0, NULL, help }
#define DTYPE_OPTION(dtype) \
    { "dtype", OPT_CHOICE, &(dtype), "f32", 0, 0, "f32|bf16|f16", \
      "number type of the weights that are written; training is in f32" }
#define STEPS_OPTION(steps) \
    { "steps", OPT_INT, &(steps), "-1", -1, 1e9, NULL, \
      "optimiser steps (-1: as many as --epochs needs; 0: evaluate, and train nothing)" }
#define DRY_RUN_OPTION(dry_run) \
    { "dry-run", OPT_FLAG, &(dry_run), NULL, 0, 0, NULL, "print the memory bill and stop" }
/* The rows of a table of needs for these options. */
#define QUANT_NEEDS { "quant-block|double-quant", "nf4|fp4", "nothing is quantised" }
#define LORA_NEEDS { "lora-alpha|lora-targets|lora-rslora", "lora-r", "there is no adapter" }
#define PROMPT_NEEDS { "prompt-init|prompt-init-text", "prompt-tokens", "there is no soft prompt" }, \
    { "prompt-init", "!prompt-init-text", "the text says where the soft prompt begins" }
#define LORA_DROPOUT_NEED { "lora-dropout", "lora-r", "there is no adapter" }
/* Refuses options that do not fit together. In training, rank is not NULL: then 4 bits without
 * --lora-r set *rank to 16 and *targets to all linears of the layers, unless adapter is 1
 * (training goes on from an adapter, or trains a soft prompt). */
void quant_options_check(const Program *p, const QuantOptions *q, int *rank, const char **targets,
                         int adapter);
/* Fills *w with the types in which the weights of a policy's folder are to be held: the folder's
 * types, or the 4 bits that the options ask for. whole 1 (all weights are trained): F32; refuses
 * weights that are in 4 bits already. */
void quant_options_types(WeightTypes *w, const Program *p, const QuantOptions *q,
                         const char *folder, int whole, Pool *pool);
/* Does for a judge, whose configuration is c, what quant_options_types does for a policy. The
 * options alone choose the type of computing. */
void judge_options_types(WeightTypes *w, const Program *p, const QuantOptions *q,
                         const RewardConfig *c, const char *folder, int whole, Pool *pool);
/* Prints a line like "frozen weights: linears NF4 ...". whose: its first words. */
void print_types(const char *whose, const WeightTypes *w);
/* Prints a line as peft does:
 * "trainable params: 1,234 || all params: 12,340 || trainable%: 10.0000". */
void print_trainable(size_t trained, size_t all);

/* ---- opening folders ---- */
/* Fills *c from a policy's folder. If config.json ties the head to the embedding, but the weights have
 * another head, c->tied becomes 0, and a line says so. */
void open_config(ModelConfig *c, const char *folder, const char *hint, Pool *pool);
/* Fills *c from a policy's folder (NULL: training from scratch, *c stays), and returns
 * the tokenizer of `tokenizer` (NULL: the folder's). If it has more ids than the policy, check_rows
 * says so; if it has fewer, report_padding does. open_judge does this for a judge that is to be
 * trained, without report_padding. Dies if the folder is an adapter's. */
Tokenizer *open_policy(ModelConfig *c, const char *folder, const char *tokenizer, Pool *pool);
Tokenizer *open_judge(RewardConfig *c, const char *folder, const char *tokenizer, Pool *pool);
/* Loads the folder's weights into list and checks that all are numbers. option: "--policy"; hint:
 * the advice if loading fails (NULL: die's standard hint). */
void open_weights(const Tensor *list, int tensors, const char *folder, const char *option,
                  const char *hint, Pool *pool);
/* Returns the configuration that the options ask for. The usual targets are queries and values, or
 * what joins them, by their names in the model's files. */
LoraConfig adapter_options(const LoraOptions *o, const Names *names, Pool *pool);
/* Does so for an adapter of a policy, which may have a soft prompt. tokenizer: the folder of the one that
 * cuts the soft prompt's text. */
LoraConfig policy_adapter_options(const LoraOptions *o, const ModelConfig *m, const char *tokenizer,
                                  Pool *pool);
int trains_adapter(const LoraOptions *o);   /* returns 1 if not all weights are to be trained */
/* Gives a new adapter of a policy, whose weights are loaded, the numbers that it starts with. */
void adapter_start(Lora *l, const LoraOptions *o, const Model *m, const Tokenizer *t, uint64_t seed,
                   Pool *pool);
/* Reads the configuration of an adapter of a policy, or with judge 1 of a judge. Dies if it is one
 * of the other kind. */
LoraConfig open_adapter_config(const char *folder, int judge, Pool *pool);
/* Writes the targets in short to out (cap bytes): each module's last part, once; or the regular
 * expression. Returns out. */
const char *adapter_targets(char *out, size_t cap, const LoraConfig *c);
/* Writes what the adapter consists of to out: "a LoRA adapter (r 8, ...) and a soft prompt of 20 rows".
 * Returns out. */
const char *adapter_words(char out[200], const LoraConfig *c);
/* Lays out an adapter as lora_carve does. Dies if a target does not exist. */
void adapter_carve(Lora *l, const LoraConfig *c, const Tensor *base, int tensors, int trainable,
                   Pool *lists, Arena *a);
/* If *model is an adapter's folder, says so, and sets *adapter to it and *model to the folder of its
 * base model. Dies with the advice if that is not there, if *adapter is given, too, or if adapter is
 * NULL, as in programs that cannot use one. */
void adapter_as_model(const char **model, const char **adapter, const char *advice, Pool *pool);
/* Loads an adapter's weights as adapter_load does, and checks that all are numbers. base: the
 * model's list, with its weights. */
void open_adapter(Lora *l, const Tensor *base, int tensors, const char *folder, Pool *pool);
/* A judge that is used, not trained. folder: the model's; adapter_folder: its adapter's, or NULL.
 * adapter: &lora, or NULL. types: how the weights are held; the caller sets them. */
typedef struct {
    const char *folder, *adapter_folder;
    RewardConfig config; WeightTypes types; RewardModel model;
    Lora lora; const Lora *adapter;
    Tokenizer *tokenizer;
} Judge;
/* Finds the parts of a judge: folder may be an adapter's, then its base is found; adapter (or NULL) is
 * an adapter of it. Fills the folders and the configurations: that of the judge is the adapter
 * folder's own config.json if it has one, as rm writes it, for the names of the labels. */
void judge_find(Judge *j, const char *folder, const char *adapter, Pool *pool);
/* Opens the judge's tokenizer: the adapter folder's own, if it has one, else the model folder's. */
void judge_tokenizer(Judge *j, Pool *pool);
void judge_carve(Judge *j, Pool *lists, Arena *a);      /* lays out the model and its adapter */
/* Loads the weights of both. The model's folder may lack a head that the adapter has. option: see
 * open_weights. */
void judge_load(Judge *j, const char *option, Pool *pool);
/* Fills the F32 tensors `to` with the weights of `from`, of any type, plus the adapter's products.
 * If ws measures, only the work space is measured. */
void weights_merge(const Tensor *to, const Tensor *from, int tensors, const Lora *adapter,
                   Arena *ws);
/* Returns how many layers the value head of a folder has: that of value_head.safetensors, or else
 * v_head among the model's weights, where TRL (one layer) and trlx (two) save it; 0: there is none. */
int value_head_layers(const char *folder, Pool *pool);
/* Loads and checks that value head, which has as many layers. say_value_head prints a line if it is
 * among the weights: for programs that leave it out. */
void open_value_head(const ValueHead *h, const char *folder, Pool *pool);
void say_value_head(const char *folder, Pool *pool);
/* Returns the index of the judge's output that is called `wanted`, ignoring case. wanted NULL: the
 * only output, or the only one called positive, pos, nothate or non-toxic. Returns -1 if there is
 * none, or if there are several; label_need then exits, and its message names `option` ("--label").
 * label_names writes all names with commas. */
int label_find(const RewardConfig *c, const char *wanted);
int label_need(const RewardConfig *c, const char *wanted, const char *option);
void label_names(const RewardConfig *c, char *out, size_t cap);
/* Returns the id that a judge reads for an empty text if its tokenizer's template adds no token:
 * bos; without a bos, eos; or -1 if the tokenizer has neither. */
int empty_text_id(const Tokenizer *t);
/* Returns the most tokens of a text that a judge is given, the template's included: as many as it reads,
 * or model_max_length of its tokenizer if that is less (and leaves room for a token). */
int judge_limit(const RewardConfig *c, const Tokenizer *t);
/* Returns the index of the first id that is not below V, or -1. resized_model: the advice for a message
 * about such an id, for which the model has no embedding. */
extern const char resized_model[];
int first_beyond(const int *ids, int count, int V);
/* Ends the program if a model of V ids has no embedding for one of a text's ids; the message names the
 * token. whose: "policy" or "judge". */
void need_rows(const Tokenizer *t, const int *ids, int count, int V, const char *whose);
/* Says so if the tokenizer has more ids than the model: texts without these ids can be used. Ends the
 * program if every text has one, because the template adds it. */
void check_rows(const Tokenizer *t, int V, const char *whose);
/* Prints a line to stderr if a policy has more ids (V) than its tokenizer, as with a vocabulary
 * that was padded to a round number. tokenizer_decode leaves such ids out of the text. */
void report_padding(int V, const Tokenizer *t);

/* ---- texts ---- */
/* Prints a text in a form that cannot control a terminal: malformed bytes, control characters (C0, C1),
 * line separators and marks that change the direction of writing are printed as \xNN; with breaks 1, line
 * breaks and tabs stay. */
void print_visible(const char *s, size_t n, int breaks);
void buffer_visible(Buffer *b, const char *s, size_t n, int breaks);    /* appends the same to b */
/* The form of a message: begin, before, ROLE, after, CONTENT, end, a line break. begin and end are
 * tokens if the vocabulary has them, else letters. CHAT_NONE: only CONTENT; begin and end are NULL. */
typedef struct { const char *begin, *before, *after, *end; } ChatTemplate;
enum { CHAT_NONE, CHAT_ML, CHAT_ZEPHYR };
const ChatTemplate *chat_template(int kind);

/* ---- schedules and rows ---- */
enum { SCHEDULE_CONSTANT, SCHEDULE_LINEAR, SCHEDULE_COSINE, SCHEDULE_TRIANGLE };
/* Returns the learning rate of `step`, from 1 to `steps`. LINEAR: from rate in the first step down
 * to rate / steps in the last. TRIANGLE: up during the share `warmup` of the steps, then linearly
 * down towards 0. COSINE: up as in TRIANGLE, then half a cosine down to a tenth of rate. */
double learning_rate(int schedule, double rate, double warmup, int step, int steps);
/* The rows of whole sequences for one forward: N rows, of which W want their logits. target (W):
 * the ids that these rows predict. */
typedef struct { int *token, *sequence, *position, *target, N, W; unsigned char *wants; } RowList;
void rows_take(RowList *r, int rows, Pool *pool);           /* reserves room for `rows` rows */
/* Appends the rows of a sequence: those of the soft prompt (soft: how many), then one for each token
 * except the last, which predicts nothing. The logits of a row are computed only if the token that it
 * predicts has the index `first` or more; those of the soft prompt's rows never. */
void rows_add(RowList *r, int sequence, int soft, const int *token, int length, int first);
/* Writes the `soft` rows of a soft prompt to token, for an encoder (Texts). Returns soft. */
int prompt_rows(int *token, int soft);
/* Returns the list as model_forward's Rows, which point into it. */
Rows rows_of(const RowList *r);

/* ---- memory: the same code measures and lays out ---- */
enum { BILL_PARTS = 20 };
typedef struct { const char *name[BILL_PARTS]; size_t bytes[BILL_PARTS], from; int parts; } Bill;
/* Adds a part to the bill (ignored if the bill is full). */
void bill_add(Bill *b, const char *name, size_t bytes);
/* Adds a part: the bytes that the arena has reserved since the last part, if it measures. */
void bill_part(Bill *b, const char *name, const Arena *a);
void bill_print(const Bill *b);             /* prints the parts and their total */
typedef struct {
    void *run;                              /* the first argument of both functions */
    void (*carve)(void *run, Arena *a, Bill *b);    /* called first with a measuring arena */
    size_t (*workspace)(void *run);         /* bytes that the run's largest call needs */
    Bill bill; size_t bytes, work;          /* memory_measure fills these */
} RunMemory;
/* Measures both amounts of memory: m->bytes by carve, m->work by workspace. */
void memory_measure(RunMemory *m);
/* Reserves both amounts of memory, and calls carve for the first. *ws becomes the second, the work
 * space of all calls. */
void memory_take(RunMemory *m, Arena *ws);

/* ---- saving: each file is written under another name, then renamed; the weights come last ---- */
/* Returns the first tensor with a weight of type F32, BF16 or F16 that is a NaN or an infinity, or
 * of type F32 that would become one when it is written in dtype. Returns NULL if there is none. */
const Tensor *tensor_not_numbers(const Tensor *list, int tensors, int dtype);
/* These write to out, and return, what is wrong after an update, or before it; NULL: nothing is.
 * weights_fault: names a tensor that cannot be written in dtype; to be called after every step, so that no
 * save has a NaN or an infinity. step_fault: the loss or a tensor's gradient is not a number, or the
 * gradient's norm, scaled down to clip (0: never), is so large that Adam's moments would be infinite. */
const char *weights_fault(char out[160], const Tensor *list, int tensors, int dtype);
const char *step_fault(char out[160], double loss, double norm, double clip, const Tensor *list, int tensors);
/* Writes a whole model folder; t NULL: without a tokenizer; shard_bytes 0: the weights are one file.
 * Returns OK or a code, as the other functions that save. */
int save_policy(const Model *m, const Tokenizer *t, const char *folder, int dtype,
                uint64_t shard_bytes, Error *err);
/* Writes a PEFT adapter. base: the folder of the model that it adapts. */
int save_adapter(const Lora *l, const char *base, const char *folder, int dtype, Error *err);
/* Writes value_head.safetensors into the folder, in F32. */
int save_value_head(const ValueHead *h, const char *folder, Error *err);
/* Writes a judge's adapter with what makes its folder complete beside the base: config.json, whose
 * labels peft does not keep, and the tokenizer. */
int save_judge_adapter(const Lora *l, const RewardConfig *c, const Tokenizer *t, const char *base,
                       const char *folder, int dtype, Error *err);
/* Writes a judge's whole folder: tokenizer, config, weights. */
int save_judge(const RewardModel *m, const Tokenizer *t, const char *folder, int dtype,
               uint64_t shard_bytes, Error *err);

/* ---- a run's saves, and its end ---- */
/* The options of all trainers about stopping and saving. */
typedef struct {
    const char *resume; double minutes; int save_every, keep, keep_best, tensorboard;
} RunOptions;
#define RUN_OPTIONS(r, save_every_default, save_every_help) \
    { "save-every", OPT_INT, &(r).save_every, save_every_default, 0, INT_MAX, NULL, save_every_help }, \
    { "keep", OPT_INT, &(r).keep, "0", 0, INT_MAX, NULL, \
      "keep the weights of the last so many saves of --save-every, too, in folders step-N in the run's " \
      "folder" }, \
    { "keep-best", OPT_FLAG, &(r).keep_best, NULL, 0, 0, NULL, \
      "keep the weights of the best evaluation, too, in the folder best in the run's folder" }, \
    { "resume", OPT_TEXT, &(r).resume, NULL, 0, 0, NULL, \
      "go on with the run in this folder, which was stopped, as if it had not been: with its own data and " \
      "options" }, \
    { "max-minutes", OPT_REAL, &(r).minutes, "0", 0, HUGE_VAL, NULL, \
      "stop and save after the first step that ends later than this, from the start of the program " \
      "(0: never)" }, \
    { "tensorboard", OPT_FLAG, &(r).tensorboard, NULL, 0, 0, NULL, \
      "write the log's numbers to a file of TensorBoard in the run folder, too" }
#define RUN_NEEDS { "keep", "save-every", "there are no saves but the last" }, \
    { "keep-best", "eval-every", "nothing is evaluated meanwhile" }
/* The options that --resume may change in every trainer. */
#define MAY_CHANGE "resume|max-minutes|tensorboard|save-every|keep|fallback|dry-run"
/* Calls out_room for a run that writes the weights of the list in dtype, and the lines of `steps` steps
 * (10,000 at most). If it saves several times, there are two copies for a moment: a save is complete before
 * the one before it is deleted; and with each save the state of so many trained weights. out NULL: "runs". */
void run_room(const char *out, const Tensor *list, int tensors, int dtype, size_t trained,
              const RunOptions *o, int steps, int dry_run);
/* write writes the weights to a folder; returns OK or a code. state: visits the run's state, which is
 * written before the weights; NULL: it is not written. */
typedef struct {
    RunFolder *folder; int (*write)(void *run, const char *folder, Error *err); void *run;
    const RunOptions *options; StateVisit state;
} Saver;
/* The best evaluation so far; step 0: there is none yet. */
typedef struct { double value; int step; } BestSave;
void run_best_state(State *s, BestSave *b);
/* With --keep-best, keeps the weights after `step` in the folder best if its evaluation is the best so far: a
 * larger value is better. */
void run_best(const Saver *s, BestSave *b, double value, int step);
/* Prints the step and the folder of the best weights, if they are there. */
void run_say_best(const RunFolder *f, const BestSave *b);
/* Writes the state and the weights after `step`, and before them those of --keep unless last is 1. If the
 * state cannot be written, a warning says so. A failure of the last save is not the end of the result: see
 * out_elsewhere. After any other failure it prints a warning and returns. */
void run_save(const Saver *s, int step, int last);
/* Ends a run because of a NaN or an infinity in `step`; `what` is the message ("the loss is not a
 * number"). trained 0: no weight has been changed yet, so that the model is damaged: exits 1.
 * trained 1: the run has diverged: exits EXIT_DIVERGED. good 1: the weights are still those after
 * the previous step and useful, so they are saved. untrained, hint: the advice of the two cases. */
void stop_not_a_number(const char *what, int step, int trained, int good, const Saver *s,
                       const char *untrained, const char *hint);
/* These return the advice for a run that fails before its first update, and for a forward pass that gives a
 * NaN or an infinity. compute: the number type in which the model computes (WeightTypes). */
const char *start_hint(int compute);
const char *damaged_hint(int compute);
/* Does for a run that has diverged what stop_not_a_number does, without saving. saved: the step
 * whose weights are on disk; 0: there are none. */
void die_not_a_number(const char *what, int step, int saved, const char *folder, const char *hint);
#define SMALLER_STEPS "a smaller --learning-rate, a longer --warmup, or --max-grad-norm 1"
#define SMALLER_WEIGHTS "a smaller --learning-rate, or --dtype f32 if it is another one"
enum { EXIT_DIVERGED = 3 };     /* the exit code of a run that diverged, or whose policy collapsed */
/* Whether a run whose numbers are all numbers has gone wrong (train.c says when). start: the loss
 * before training, or of the first step (0: not known yet); blind: the loss of a guess that gives
 * every token or label the same probability; recent: the mean loss of about the last ten `steps`.
 * bad 1: the last check failed, and `why` says how; warned 1: why was printed. */
typedef struct { double start, blind, recent; int steps, bad, warned; char why[160]; } Health;
/* These set h->bad. health_of_step takes the loss of a step, of which the mean over about the last ten
 * counts, and the first is h->start unless that is set. kl per response, tokens of a response,
 * entropy per token; target: the KL that was wanted. */
void health_of_step(Health *h, double loss);
void health_of_held_out(Health *h, double loss);
void health_of_policy(Health *h, double kl, double tokens, double entropy, double target);
/* Prints why, the first time that h->bad is 1, and that nothing is saved meanwhile. */
void health_warn(Health *h, int step, const char *hint);
/* If h->bad is 1, prints why and which weights are in the folder, and exits EXIT_DIVERGED. */
void health_end(const Health *h, const RunFolder *f, const char *hint);
int run_due(int every, int step);   /* returns 1 after each `every` steps; every 0: never */
/* Prints the command with which a run that was stopped goes on, with the options that it has to repeat. */
void run_say_resume(const RunFolder *f, const char *options);
/* Prints how many steps sft or rm has done and where their result is saved (seconds < 0: without
 * the time). Returns the exit code: cli_exit_code's. */
int run_ended(RunFolder *f, int steps, double seconds);
/* The end of a run without a step: --steps 0 keeps the log. Returns cli_exit_code's code. */
int run_without_steps(RunFolder *f);
/* Returns the exit code of a run that has saved its result: cli_exit_code(0), or with a message
 * cli_exit_code(1) if the result is not in the run's own folder. */
int run_code(const RunFolder *f);

/* =============================================================================================
 * resume.c: how a run begins, or goes on
 * ============================================================================================= */
/* What all trainers have in their states. list: the trained tensors. step: the last finished step. */
typedef struct {
    RunFolder *folder; Health *health; int *step; const Tensor *list; int tensors; Optimizer *optimizer;
} RunState;
void run_state(State *s, const RunState *r);
/* With --resume, locks its folder, reads the state, cuts the logs to what they were then, and writes the
 * weights of the state. Else makes a folder (out_open has the next four) and its log. Returns 1 or 0. */
typedef struct {
    const Program *program; const char *data; const RunOptions *options;
    const char *out, *base, *kind; int force;
} RunBegin;
int run_begin(const Saver *s, const RunBegin *b, Pool *pool);
/* The end of a run that has nothing to go on with: deletes its state. */
void run_finish(RunFolder *f);

/* =============================================================================================
 * record.c: what a run has written about itself
 * ============================================================================================= */
enum { RECORD_SERIES = 256 };   /* most numbers of a step that are kept */
/* A number of the log: value[i] at step[i], whose order is that of the lines and which increases.
 * null, NaN and numbers beyond 1e100 are NaN. */
typedef struct { const char *key; int n, room; double *step, *value; } Series;
/* first: the log's first line, of which program, data and options are parts ("", NULL: not there); machine:
 * that of time.jsonl, or NULL. damaged: lines in the middle that are no step's, of which first_damaged is the
 * first (from 1); torn: files whose last line is not whole. All of these lines are left out. */
typedef struct {
    const char *folder, *name, *program, *data;     /* name: the folder's last part */
    const Json *first, *options, *machine;
    Series *series; int count;
    double last_step;
    int damaged, first_damaged, torn;
} RunRecord;
/* Reads log.jsonl of a run folder, and time.jsonl if there is one. OK or a code: E_FORMAT if the first line
 * is not that of a run. The record is in pool. */
int record_read(RunRecord *r, const char *folder, Pool *pool, Error *err);
/* Returns the series of a key, as "objective/kl"; NULL if no line has it. */
const Series *record_series(const RunRecord *r, const char *key);
typedef struct { const char *text; size_t length; } RunText;
/* response, reward: before [0] and after [1] training. Rewards and KL: NaN if the line has none. */
typedef struct { RunText query, response[2]; double reward[2], kl; } RunSample;
typedef struct { RunSample *sample; int count, room, damaged /* lines that are no samples */; } RunSamples;
/* Reads samples.jsonl of a run folder; without that file, there are none. OK or a code. */
int record_samples(RunSamples *s, const char *folder, Pool *pool, Error *err);

/* =============================================================================================
 * chart.c: curves and histograms as SVG
 * ============================================================================================= */
enum { CHART_TICKS = 12 };
/* Fills tick with the multiples of a round step (1, 2 or 5 times a power of ten) in low .. high, at most
 * `most` (2 to CHART_TICKS) of them. Sets *step; returns how many. low <= high, both below 1e300. */
int chart_ticks(double *tick, int most, double low, double high, double *step);
/* Writes a number for an axis whose ticks are `step` apart: with as many decimals as the step needs, or as
 * 12k, 3M, 1e-05. Returns out. */
const char *chart_number(char out[32], double value, double step);
/* n points (x, y), of which those that are not finite are gaps, and around y a band of +- spread (NULL:
 * none). color: 0 to 7, the class c0 to c7; 8 is c0 again. dashed 1: the second series of the same thing. */
typedef struct { const char *name; const double *x, *y, *spread; int n, color, dashed; } Curve;
/* level: a horizontal line with a name (NaN: none). least: values below it are drawn at it (NaN: none).
 * from_zero 1: the upright axis has 0, whatever the values are. */
typedef struct {
    const char *title, *level_name; const Curve *curve; int curves; double level, least; int from_zero;
} Chart;
/* Appends an <svg> of the curves. More than a few hundred points are drawn as means of equal numbers of
 * points, with a band from the least to the largest. Without any point: a sentence in place of the svg. */
void chart_curves(Buffer *b, const Chart *c);
/* Appends an <svg> of the distributions of y of several curves: percent of each one's finite values. */
void chart_histogram(Buffer *b, const char *title, const Curve *set, int sets);

/* =============================================================================================
 * tensorboard.c: lines of a log as the bytes of TensorBoard's event files
 * ============================================================================================= */
uint32_t crc32c(const void *bytes, size_t n);   /* returns the CRC-32C (Castagnoli) of n bytes */
/* Appends the beginning of a file. time: seconds since 1970. step > 0: what other files of the folder have of
 * this step and later ones no longer counts (a run goes on from an earlier save). */
void tensorboard_begin(Buffer *b, double time, double step);
/* Appends an event with the numbers of a line of the log, each under its key, at the line's step. Returns how
 * many; 0, and nothing is appended, if the line has no step or no numbers. */
int tensorboard_line(Buffer *b, const char *line, size_t n, double time);

/* =============================================================================================
 * html.c: the text of a piece of HTML, and a text as HTML
 * ============================================================================================= */
/* Sets *text (in pool, *length bytes, without a NUL) to what a browser shows of n bytes of HTML, as far
 * as a text without lines can tell it: tags, comments, scripts and styles are left out, references become
 * characters (&nbsp; a space), <br> and the borders of paragraphs, table cells ... become spaces, and
 * several spaces become one. A tag or comment without an end is text. OK or E_MEMORY. */
int html_text(const char *html, size_t n, Pool *pool, const char **text, size_t *length);
/* Appends n bytes of text, of any content, as HTML that shows them and does nothing else: & < > " and '
 * become references; malformed bytes, control characters and marks that change the direction of writing
 * become \xNN. Line breaks and tabs stay. */
void html_put(Buffer *b, const char *text, size_t n);
/* Appends like printf, without changing any character: for markup and numbers, at most 511 bytes of them. */
void html_print(Buffer *b, const char *format, ...) LIKE_PRINTF_AT(2);

/* =============================================================================================
 * report_curves.c: the curves of report.html
 * ============================================================================================= */
typedef struct { RunRecord record; RunSamples samples; int running; } ReportedRun;
/* Appends the curves of these runs as HTML: a drawing for each number that a run has logged, and one of the
 * held-out rewards. Without memory, b->failed becomes 1. */
void report_curves(Buffer *b, const ReportedRun *run, int runs, Pool *pool);

/* =============================================================================================
 * report_page.c: report.html, the page of one run or of several
 * ============================================================================================= */
#define REPORT_MARK "<!-- written by rlhf.c -->"      /* the page's second line */
/* Reads a run's folder. running 1: the run goes on. OK or a code. */
int report_read(ReportedRun *run, const char *folder, int running, Pool *pool, Error *err);
/* Writes the page of these runs (1 or more), atomically. reloads 1: it reloads itself, because a run writes
 * it again. OK or a code. */
int report_page(const char *path, const ReportedRun *run, int runs, int reloads, Pool *pool, Error *err);
/* To be called when the logs of a run have begun, and after each step's lines: writes report.html into the
 * folder now and then, and when the program ends. What cannot be written is said once. */
void report_live(RunFolder *f);

/* =============================================================================================
 * report.c: prints a run's files as a table
 * ============================================================================================= */
/* Prints the result of ppo's run, from log.jsonl and samples.jsonl alone: `show` rows of queries with
 * both responses (-1: the number in the run's own --show), means before and after, and the reward when
 * the KL first passed 3 and 6; of other runs the first and last numbers. Then the name of the run's page. */
void report_run(const char *folder, int show, Pool *pool);
int report_command(int argc, char **argv);              /* the main of `run report DIR ...` */

/* =============================================================================================
 * constitution.c: principles, the texts that a policy reads, the preference between two answers
 * ============================================================================================= */
enum { PRINCIPLE, EXAMPLE, CHOICE, CONSTITUTION_KINDS };
enum { PRINCIPLE_CRITIQUE, PRINCIPLE_REVISION, PRINCIPLE_PREFERENCE };
enum { SHOT_PROMPT, SHOT_RESPONSE, SHOT_CRITIQUE, SHOT_REVISION };
enum { CHOICE_PROMPT, CHOICE_A, CHOICE_B, CHOICE_ANSWER /* "A" or "B" */ };
/* An entry of the file: a principle, or a few-shot text with its principle. text: by PRINCIPLE_, SHOT_ or
 * CHOICE_. line: where it begins. */
typedef struct Entry Entry;
struct Entry { const char *name, *text[4]; long long line; const Entry *principle; Entry *next; };
/* how: the form of the messages that the policy reads, which the caller sets; CHAT_NONE's: "Human: ...", an
 * empty line, "Assistant: ...", as in the paper. */
typedef struct {
    Entry *entry[CONSTITUTION_KINDS]; int count[CONSTITUTION_KINDS];
    const ChatTemplate *how;
} Constitution;
/* Reads a constitution from n bytes, or from a file, into pool. path: for messages. OK or a code, with the
 * line in *err. There is at least one principle. */
int constitution_parse(Constitution *c, const char *text, size_t n, const char *path, Pool *pool,
                       Error *err);
int constitution_read(Constitution *c, const char *path, Pool *pool, Error *err);
/* Returns a principle, drawn for round `round` of prompt `index`. */
const Entry *constitution_draw(const Constitution *c, uint64_t seed, uint64_t index, uint64_t round);
/* Appends the prompt as a message, and the beginning of the answer; or the prompt alone, if it ends with such
 * a beginning already. White space around the prompt is left out. */
void constitution_ask(Buffer *b, const ChatTemplate *how, const char *prompt, size_t n);
/* Appends an answer as it follows what constitution_ask appends. */
void constitution_answer(Buffer *b, const ChatTemplate *how, const char *text, size_t n);
/* Appends `shots` examples, then ask (what constitution_ask has appended), the response and the request for a
 * critique; with a critique (else NULL), it and the request for a revision. The policy goes on. */
void constitution_critique(Buffer *b, const Constitution *c, int shots, const char *ask, const char *response,
                           const Entry *principle, const char *critique);
/* Appends `shots` choices, then the question which of two answers to a prompt is better; the answer "(A)" or
 * "(B)" follows, without a template after a space. */
void constitution_choice(Buffer *b, const Constitution *c, int shots, const char *prompt,
                         const Entry *principle, const char *first, const char *second);
/* Returns 1 if a later line of the text begins with "Human:", "Critique:" ...: the policy has begun another
 * turn. *length: the bytes before it, without white space at their end. */
int constitution_next_turn(const char *text, size_t n, size_t *length);
/* preference_of: returns the probability of an answer, from the log-probs of its letter and of the other
 * one. preference_mean: over both orders. preference_clamp: at least `least`, at most 1 - least. */
double preference_of(double own, double other);
double preference_mean(const double p[2]);
double preference_clamp(double p, double least);

#endif
