/* run.h - what the parts of run share: run.c and programs/run_*.c. A function that fails ends the program
 * with a message. */
#ifndef RUN_H
#define RUN_H

#include "../programs.h"

/* ---- run_input.c: lines of text or of ids, JSON lines, or the documents of a dataset ---- */

/* text, n: what was read last; err: what is wrong with it (code OK: nothing). failed: something was wrong
 * with one line at least. Memory in scratch lasts until the next input_next. */
typedef struct {
    const char *path;
    Lines *lines;                           /* NULL: the documents of data, or a text from the command line */
    Dataset data;
    int jsonl, prompts, failed;             /* prompts 1: texts are to be continued */
    long long number;                       /* of the line, or of the document */
    uint64_t texts;                         /* texts of the dataset that were read */
    const char *text; size_t n;
    const Json *row;                        /* the whole JSON line */
    int joined; size_t split;               /* 1: prompt and response as one text; the prompt's bytes */
    Error err;
    Pool *scratch; PoolMark begin;
} Input;

/* The message if the weights are numbers, but a sum in the forward pass is too large for a float. */
extern const char no_number[];
/* Does nothing if code is OK. Otherwise prints `run: what: where`, both numbers and the hint, and exits 1. */
void require(int code, const char *what, const char *where, long long got, long long wanted,
             const char *hint);
#define TO_UTF8 "a text in UTF-8: iconv -f LATIN1 -t UTF-8 FILE > NEW makes one of Latin-1"
/* Opens a dataset, a text or, if path is NULL, standard input. ids 1: it is to be lines of ids. */
Input input_open(const char *path, int jsonl, int ids, int prompts, Pool *pool, Pool *scratch);
const char *input_name(const Input *in);    /* the path, or "standard input" */
const char *unit_of(const Input *in);       /* returns what in->number counts */
/* Records what is wrong with the line that was read last, and what can be done about it. Returns NULL. */
int *line_error(Input *in, int code, const char *what, const char *advice);
/* Does so for a number that is too large: the message is `what: got; at most MOST`. */
int *line_too_large(Input *in, const char *what, long long got, long long most, const char *advice);
/* Does so for the code of a forward pass in the number type `compute`. */
void forward_error(Input *in, int code, int compute);
/* Reads the next text; returns 0 at the end. Blank lines of JSONL are left out, but counted. Flushes all
 * earlier output before it waits for input, since another program may wait for this output before it writes
 * its next line. */
int input_next(Input *in);
/* Closes the input. Returns the program's exit code: 1 if something was wrong with a line. */
int input_close(Input *in);
/* Ends the program if a buffer ran out of memory. */
void need_buffer(const Buffer *b);
void print_string(const char *text, size_t n, Pool *pool);
/* If something was wrong with the line, prints the message, and the output line (json 0: an empty one), and
 * returns 1. */
int line_failed(Input *in, int json);
/* Returns the ids of the line: numbers in 0 .. V-1, separated by spaces or tabs; NULL if they are not. */
int *parse_ids(Input *in, int V, int *count);
/* Returns the ids of a text; special 1: with the tokenizer's template around them. */
int *text_ids(const Tokenizer *t, const char *text, size_t n, int special, Pool *pool, int *count);
/* Returns the ids of the line that was read last, with the tokenizer's template around them; t NULL: it is a
 * line of ids in 0 .. V-1. NULL: something is wrong with the line. */
int *line_ids(Input *in, const Tokenizer *t, int V, int *count);
void print_ids(const int *ids, int n, const char *separator);

/* ---- run_columns.c: texts in lines that fit a terminal, and several beside one another ---- */
enum { COLUMN_GAP = 3, COLUMNS_MAX = 9 };
typedef struct { const char *text; size_t n; } Span;
/* Returns the text without white space around it, in pool; a terminal may get it: a tab is a space, other
 * control characters are \xNN. */
Span visible_text(Span x, Pool *pool);
/* Prints a text in lines of at most `width` columns (2 or more), broken at spaces where that is possible. */
void print_lines(Span text, int width);
/* Prints texts from .. to-1, at most COLUMNS_MAX, beside one another, each in `width` columns (2 or more)
 * below its number, which counts from 1. */
void print_columns(const Span *text, int from, int to, int width);

/* ---- run_open.c: a policy, with the adapter of a run if --adapter is given; a judge ---- */

/* Most rows of one forward. A longer text is read in blocks, with the cache, and gives the same bits. */
enum { BLOCK = 256 };
typedef struct {
    ModelConfig config; Model model; Lora lora; const Lora *adapter; Tokenizer *tokenizer;
    Arena weights, adapted, work, ws;
    Cache kv;
    int positions, compute;                 /* most tokens of a text (text_positions); type of computing */
    /* with an encoder: what it makes of a text, the ids that it reads, and their bounds */
    Reading reading; int *read, text[2];
    /* the arrays of one block of N rows, and of the rows of a soft prompt */
    int N, *token, *sequence, *position, *target; unsigned char *wants; float *hidden, *logprob;
} Policy;
#define NF4_HELP "hold the linears in 4-bit NF4, as sft --nf4 and ppo --nf4 do when they train an adapter"
#define ADAPTER_HELP "a run folder of ppo or sft, or any PEFT folder of LoRA or of a soft prompt"
#define ADAPTER_ADVICE "BASE --adapter ADAPTER, where BASE is the folder of the model that it adapts"
#define JSONL_OPTION(jsonl) \
    { "jsonl", OPT_FLAG, &(jsonl), NULL, 0, 0, NULL, \
      "lines are {\"text\": ...}, so that a text may hold line breaks" }
#define CONTEXT_HELP "in tokens (0: the model's positions, less the rows of a soft prompt, at most 2048)"
extern const char model_hint[];
/* Returns the hint for a wrong folder that weights_folder has returned. */
const char *weights_hint(const char *folder, const char *run);
/* Returns 1 if the folder has a file of this name. */
int in_folder(const char *folder, const char *name);
/* Opens the tokenizer of `folder`, or of `other` if `folder` has none. Returns NULL if neither folder has
 * one, or if it cannot be read (*err says why). */
Tokenizer *find_tokenizer(const char *folder, const char *other, Pool *pool, Error *err);
/* Ends the program if --no-special (plain 1) cannot act, since texts are given as ids. */
void plain_check(int plain, int as_ids);
/* Opens the tokenizer of a model of V ids as find_tokenizer does; plain 1: special tokens in texts are plain
 * text. Ends the program if there is none. */
Tokenizer *need_tokenizer(const char *folder, const char *other, int V, int plain, Pool *pool);
/* Returns the folder that has the weights: `run` if it is a whole model (ppo and sft write one if they train
 * all weights), else `folder`. */
const char *weights_folder(const char *folder, const char *run);
/* Returns the number types in which the policy's weights are held. */
WeightTypes choose_types(const Program *program, const QuantOptions *q, const char *folder,
                         const char *run, Pool *pool);
/* Returns how many of the model's positions a text may have: those that the soft prompt of `run` (NULL: there
 * is no adapter) leaves, if it has one. */
int text_positions(const ModelConfig *c, const char *run, Pool *pool);
/* Loads the weights of `folder`, and the adapter of `run` if it has one. positions: tokens of the longest
 * text; the rows of a soft prompt come on top. */
void policy_open(Policy *p, const WeightTypes *types, const char *folder, const char *run,
                 int positions, Pool *pool);
/* Returns the rows of B short prompts, or of one of T tokens if that is more, with those of a soft prompt. */
int prompts_rows(const Policy *p, int B, int T);
/* Lays out what an encoder, if there is one, makes of the texts of kv's sequences, N rows in all. */
void reading_open(Policy *p, Reading *r, Cache *kv, int N, Arena *a);
/* Lets the encoder read the n ids of a text, and computes what the decoder reads of it. OK or the model's
 * error. */
int policy_read(Policy *p, Reading *r, const int *ids, int n, Arena *ws);
/* Measures and reserves the arrays for blocks of N rows and a cache of B texts of T positions, both beside
 * the rows of a soft prompt. ws: bytes of work space, which the caller has measured. */
void policy_work(Policy *p, int B, int N, int T, size_t ws);
/* Fills logprob[i] = log p(ids[i+1] | ids[0..i]), i = from .. n-2, in blocks of rows; the keys and values of
 * earlier rows are in the cache (from 0: of none, before). Returns OK, E_NUMBER or the model's error. */
int policy_logprobs(Policy *p, const int *ids, int from, int n, float *logprob);
/* Returns the bytes of work space that a block of N rows needs with a cache of T positions. */
size_t logprobs_bytes(Policy *p, int N, int T);
/* Returns how many tokens the longest text may have: `asked`, or if that is 0, the model's positions that the
 * soft prompt of `run` leaves, but at most 2048, since the cache grows with them. */
int context_length(int asked, const char *folder, const char *run, Pool *pool);
/* Opens a reward model, and its adapter if it has one; without its tokenizer. */
void judge_open(Judge *j, const Program *program, const QuantOptions *q, Pool *pool);
Arena judge_work(const Judge *j);           /* returns the work space for texts of the greatest length */

/* ---- run_batch.c: texts that a policy writes ---- */

/* A text that is printed while its ids arrive. Each time, all ids are decoded and only the new part of the
 * text is printed, because a token's neighbours may change its spaces and bytes. hidden: an id that ends the
 * text and is not printed; -1: there is none. stopped: returns 1 if a user has stopped the text; NULL: nobody
 * can. */
typedef struct {
    const Tokenizer *tokenizer; const int *ids; int count;
    size_t printed; Pool *pool; int hidden; int (*stopped)(void);
} Stream;
/* Prints the new part of the text, up to its last final byte; last 1: to its end. */
void stream_print(Stream *s, int last);
/* Prints the text up to a new token; model_generate calls this. Returns 1 if the text is to end. */
int stream_token(void *context, int sequence, int token);
/* Writes the tokens of n sequences; ends the program if that fails. */
void write_tokens(Policy *p, const Writing *w, Sequence *s, int n);
/* A text to be written: the prompt's ids (count), at most `most` new tokens, the random numbers.
 * batch_write fills in token (length): the prompt (with an encoder: the decoder's first id) and after
 * `prompt` ids the new ones. */
typedef struct {
    const int *ids; int count, most, ignore_eos; Rng rng;
    int *token, prompt, length;
} Job;
/* B texts of at most T tokens that are written together; rows: most tokens of their prompts, all together.
 * While batch_write runs, sequence i (of B) is that of job which[i]. prompt, start: what an encoder reads. */
typedef struct { Policy *policy; int B, T, rows, *which, *prompt, *start; Sequence *seq; } Batch;
enum { BATCH_TEXTS = 16, BATCH_TOKENS = 8192 };
/* Returns how many texts of T tokens are written together, if nobody says otherwise: at most BATCH_TEXTS, and
 * as many as have BATCH_TOKENS tokens in the cache. */
int batch_size(int T);
/* Reserves the memory of a batch; afterwards policy_logprobs can be called, too, for texts of up to T
 * tokens. */
Batch batch_open(Policy *p, int B, int T, Pool *pool);
/* Writes any number of jobs, in batches. The texts do not depend on the batches. w: adapter, sampling, and
 * who hears the tokens. The texts are in pool. Ends the program if a forward fails. */
void batch_write(Batch *b, const Writing *w, Job *job, int jobs, Pool *pool);

/* ---- run_results.c: a file of JSON lines that a command fills, or goes on to fill ---- */

/* index, sign, line (count): of the lines that were there, and their numbers in the file; next: the first of
 * them that was not asked for yet. made: what made them (see results_made), NULL if nobody knows. */
typedef struct {
    const char *path; long long *index; uint64_t *sign; size_t *line, count, next, added; const Json *made;
} Results;
/* Opens --out (NULL: standard output). Cuts off an incomplete last line. Ends the program if another line is
 * not one of these commands', or if the lines were made with other options. */
Results results_open(const char *path, const Program *program, Pool *pool);
/* A file or folder from which lines are made: the option that names it, or "MODEL"; path NULL: it is not
 * given. hash: of what is in it. */
typedef struct { const char *option, *path; uint64_t hash; } Source;
/* Ends the program if the lines that were there were made from others. If there are none, writes the options
 * and the sources to a file beside --out, whose name ends in .options. */
void results_made(const Results *r, const Program *program, const Source *source, int sources, Pool *pool);
/* Return what tells lines of one run from those of another: of a prompt, and then of each principle. */
uint64_t results_sign(const char *prompt, size_t n, Pool *pool);
uint64_t results_sign_principle(uint64_t sign, const char *principle, Pool *pool);
/* Returns 1 if the line of input `index` is there. Inputs have to be asked for in order. Ends the program if
 * the line has another sign. */
int results_has(Results *r, long long index, uint64_t sign);
void results_add(Results *r, Buffer *line);         /* writes a line; the newline is added */
/* Says how many lines were written. Returns the exit code. */
int results_end(const Results *r, int code);

/* ---- run_feedback.c: what run critique and run prefer share ---- */

typedef struct {
    const Program *program;
    const char *constitution, *out, *adapter;
    int jsonl, plain, n, context, batch, shots, template;
    double temperature, top_p;
    uint64_t seed;
    QuantOptions quant;
    long long total;                        /* inputs; 0: not known */
} Feedback;
#define FEEDBACK_OPTIONS(f, shots_help) \
    { "constitution", OPT_TEXT, &(f).constitution, NULL, 0, 0, NULL, \
      "the file of principles and few-shot texts; data/constitution.txt is one, and explains the form" }, \
    { "out", OPT_TEXT, &(f).out, NULL, 0, 0, NULL, \
      "the file of JSON lines to write, or to go on with (default: standard output)" }, \
    { "shots", OPT_INT, &(f).shots, "-1", -1, 1e6, NULL, shots_help }, \
    { "template", OPT_CHOICE, &(f).template, "none", 0, 0, "none|chatml|zephyr", \
      "form of the messages; none: Human:, Assistant:, CritiqueRequest: ..., as in the paper" }, \
    { "n", OPT_INT, &(f).n, "256", 1, 1e6, NULL, "most new tokens of each text" }, \
    { "context", OPT_INT, &(f).context, "0", 0, 1e9, NULL, \
      "most tokens that are read and written, together, " CONTEXT_HELP }, \
    { "batch", OPT_INT, &(f).batch, "0", 0, 4096, NULL, \
      "prompts that are worked on together; the texts do not depend on it (0: up to 16)" }, \
    { "temperature", OPT_REAL, &(f).temperature, "1", 0, 100, NULL, \
      "divides the logits; 0: always the most probable token" }, \
    { "top-p", OPT_REAL, &(f).top_p, "1", 0, 1, NULL, \
      "draw from the most probable tokens whose probabilities together reach P" }, \
    { "seed", OPT_SEED, &(f).seed, "1", 0, 0, NULL, "random seed of the principles and the texts" }, \
    { "adapter", OPT_TEXT, &(f).adapter, NULL, 0, 0, NULL, ADAPTER_HELP }, \
    { "jsonl", OPT_FLAG, &(f).jsonl, NULL, 0, 0, NULL, \
      "lines are {\"prompt\": ...} or {\"text\": ...}, so that a prompt may hold line breaks" }, \
    NO_SPECIAL_OPTION((f).plain)
#define FEEDBACK_NEEDS { "top-p", "temperature", "nothing is drawn" }, \
    { "no-special", "!template", "the marks of a template are special tokens" }
/* Reads --constitution, and sets f->shots to a number of its texts of this kind. */
Constitution feedback_constitution(Feedback *f, int kind, Pool *pool);
/* Fills in from which files and folders the lines are made: p is the policy of the folder `model`, and other
 * that of `writer` (NULL: there is none). */
enum { SOURCES = 4 };
void feedback_sources(Source source[SOURCES], const Feedback *f, const char *model, const Policy *p,
                      const char *writer, const Policy *other, Pool *pool);
/* Opens a policy with its tokenizer. Returns the most tokens that it is to read and write. */
int feedback_policy(const Feedback *f, Policy *p, const char *folder, const char *adapter, Pool *pool);
/* Who writes texts, a batch at a time. */
typedef struct {
    Batch batch; const Feedback *f; int stop;           /* stop: the token that ends a message, or -1 */
    const ChatTemplate *how; Pool scratch;
} Author;
Author author_open(Policy *p, const Feedback *f, int T, Pool *keep);
/* A text to be continued, of input `number`. answer: afterwards the policy's words up to the next turn,
 * without white space around them; NULL, after a message, if the text is too long. */
typedef struct { const char *text; long long number; Rng rng; const char *answer; } Turn;
void author_write(Author *a, Turn *turn, int turns, Input *in, Pool *pool);
/* Returns the ids of a turn's text, which last until input_next; NULL, after a message, if the model has no
 * embedding for one, or if not that many and `more` fit. */
int *turn_ids(const Batch *b, const Feedback *f, const Turn *turn, int more, Input *in, int *count);
/* Returns 1, after a message, if something is wrong with the input that was read last, or if it has a NUL. */
int input_refused(Input *in);
/* Returns the conversation that waits for the answer to a prompt of n bytes. */
const char *ask_of(const Feedback *f, const char *prompt, size_t n, Pool *pool);
/* Appends name, then the text as a JSON string. buffer_answer: as it follows the prompt. */
void buffer_field(Buffer *b, const char *name, const char *text);
void buffer_answer(Buffer *b, const char *name, const Feedback *f, const char *text);
/* Returns how many inputs there are; 0: nobody knows. */
long long feedback_total(const Input *in, const char *path);
/* Shows how many of them are done, unless the lines go to standard output. */
void feedback_progress(const Feedback *f, const Results *r, int last);

/* ---- run_judge.c: a judge's logits of many texts, several in each forward ---- */

/* Texts that wait for the judge: token (room), start (SCORE_TEXTS+1). before, after: what the template adds;
 * most: ids of a text without these. */
enum { SCORE_TEXTS = 32, SCORE_TOKENS = 2048 };
typedef struct {
    const Judge *judge; int before, after, most, room, tokens, waiting, *token, *start; Arena ws;
} ScoreBatch;
/* Reserves the memory. The judge has its weights and its tokenizer. */
ScoreBatch score_open(const Judge *j, Pool *pool);
/* Fills logits (n,labels) of n texts. A text that is too long for the judge loses its beginning; returns how
 * many did. The logits of a text do not depend on the other texts. */
int score_texts(ScoreBatch *s, const char *const *text, const size_t *length, int n, float *logits,
                Pool *scratch);
/* Returns the probability of label k: of the softmax over the logits; if there is one label, or if several
 * may be true (problem_type multi_label_classification), its sigmoid: as in transformers' pipelines. */
double judge_probability(const RewardConfig *c, const float *logits, int k);
/* Returns the label whose name says that a text is toxic (toxic, toxicity, hate, hateful ...), or -1. */
int toxic_label(const RewardConfig *c);

/* ---- run_table.c ---- */

/* names: the title of the names (rows); title (columns); cell (rows,columns): short texts. */
enum { CELL = 32 };
typedef struct {
    const char *names, *const *name, *const *title; char (*cell)[CELL]; int rows, columns;
} Table;
/* Prints the table in lines that fit the terminal: columns that do not fit beside the others come in a table
 * of their own below. */
void table_print(const Table *t);

/* ---- the commands ---- */

int run_tokenize(int argc, char **argv);
int run_logprobs(int argc, char **argv);
int run_score(int argc, char **argv);
int run_generate(int argc, char **argv);
int run_eval(int argc, char **argv);
int run_hatecheck(int argc, char **argv);
int run_chat(int argc, char **argv);
int run_critique(int argc, char **argv);
int run_prefer(int argc, char **argv);
int run_merge(int argc, char **argv);
int run_label(int argc, char **argv);

#endif
