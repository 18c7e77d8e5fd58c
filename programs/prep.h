/* prep.h - what the parts of prep share: prep.c and programs/prep_*.c. */
#ifndef PREP_H
#define PREP_H

#include "../programs.h"

/* ---- prep_base.c: memory, errors, datasets ---- */

Pool *prep_pool(void);                      /* for memory that is used until the program ends */
/* Prints `what: FILE, line N, field F` and the hint, and exits 1. Line 0 and field NULL are not printed. */
void prep_stop(int code, const char *what, const char *file, long long line, const char *field,
               const char *hint);
void *prep_need(void *memory);              /* returns memory; exits with a message if it is NULL */
void *prep_take(size_t count, size_t size); /* returns count zeroed elements of prep_pool's memory */
char *prep_keep(const char *text, size_t n);    /* returns a copy of n bytes with a NUL, in that memory */
int is_held_out(const char *text, size_t length);   /* 1 for 5 % of texts, chosen by their hash */
uint64_t words_of(const char *s, size_t n);   /* words, separated by spaces or control characters */
/* Appends a document to the dataset, which has room for *capacity. */
void add_document(Dataset *d, uint64_t *capacity, const Document *doc);
/* Prints how many documents there are, how many are held out, their mean length, and how many have each
 * label. */
void print_statistics(const Dataset *d, const char *path);
void write_dataset(Dataset *d, const char *path);   /* writes the file and prints its statistics */
const char *path_of(const char *folder, const char *name);  /* returns FOLDER/NAME, in prep_pool's memory */

/* ---- prep data: its options, and the documents collected so far ---- */

enum { FORMAT_AUTO, FORMAT_JSONL, FORMAT_CSV, FORMAT_TSV, FORMAT_TEXT, FORMAT_IMDB, FORMAT_PAIRS };
typedef struct {
    const char *out, *text, *label, *prompt, *response, *chosen, *rejected, *labels, *template, *where;
    int format, min_length, max_length, max_documents;
    int strip_html, fix_utf8, whole, no_quotes, no_label, no_prompt;
} DataOptions;
/* A value of the label field, the name of its label, and the label's index. They come from --labels, or from
 * the data. */
typedef struct { const char *value, *name; int label; } LabelValue;
/* A text with places for fields: pieces of text (field 0) and names of fields (field 1). */
enum { TEMPLATE_PARTS = 64 };
typedef struct { const char *text; size_t length; int field; } TemplatePart;
typedef struct { TemplatePart part[TEMPLATE_PARTS]; int parts; } Template;
/* A condition on a field: the results of a comparison with `value` for which it holds (0: no condition). */
typedef struct { const char *field, *value; int holds, numeric; double number; } Where;
typedef struct {
    DataOptions *given;
    Dataset data;
    uint64_t capacity, empty, too_short, too_long, not_where;
    uint64_t doubled;                       /* pairs whose texts both begin with the prompt by themselves */
    Pool scratch;                           /* memory for one row; emptied before the next row */
    /* names of the fields: two texts, the prompt that comes before both texts of a pair (NULL: none), and the
     * label (NULL: none), which rows of pairs may lack; unlabelled: a file has none */
    const char *field[3], *label;
    int unlabelled;
    int chat;                               /* --template: CHAT_NONE, CHAT_ML or CHAT_ZEPHYR */
    Template template;                      /* parts 0: there is none */
    Where where;
    int made;                               /* index of the text that the template makes; -1: none */
    size_t characters;                      /* of the fields in the text that the template made last */
    LabelValue value[2 * LABELS_MAX]; int values;
    char *name[LABELS_MAX];
} Collector;
typedef struct { const char *file; long long line; } Place;
typedef CsvCell Span;
typedef int (*HasField)(const void *row, const char *name);
/* Returns a row's field as text; stops if the row has no such field, or if it has no text. */
typedef Span (*FieldText)(Collector *c, const void *row, const char *name, Place at);

/* ---- prep_rows.c: a row of any format ---- */

void *scratch(Collector *c, size_t n);      /* returns n bytes of scratch */
/* Returns the text if it is valid UTF-8. Otherwise stops the program, or with --fix-utf8 returns a copy (in
 * scratch) with U+FFFD in place of each bad byte. */
Span valid_text(Collector *c, Span p, Place at);
/* Does for the escapes of a line of JSON what valid_text does for its bytes. */
Span valid_escapes(Collector *c, Span line, Place at);
/* Returns valid_text's text, with --strip-html as html_text's. Stops if it is too long for a document. */
Span clean_text(Collector *c, Span p, Place at);
size_t code_points(Span p);
/* Appends a name to a list that begins with a text and a blank: "the columns are: a, b". Leaves it out if
 * there is no room (cap bytes). */
void list_name(char *list, size_t cap, Span name);
Span joined(Collector *c, Span a, Span b);  /* returns a then b, in scratch */
void parse_labels(Collector *c);            /* reads --labels */
/* Returns the label's index for a value of the label field; -1 for an empty one. Without --labels, a new
 * value becomes a new label. */
int label_of(Collector *c, Span raw, Place at);
/* Returns the label of a pair: the value, a number from 0 to 1, in millionths; -1 if there is none (NULL or
 * null). Stops at anything else. */
int probability_of(const Collector *c, const Json *value, Place at);
/* Sorts the labels that were found in the data, so that their numbers do not depend on the order of rows. */
void sort_labels(Collector *c);
/* Chooses the fields to read, by the options and by the fields that the first row has. */
void choose_fields(Collector *c, HasField has, const void *row, Place at);
/* Stops if the row has a field that the first row lacked, and that would have been read. */
void check_late_fields(const Collector *c, HasField has, const void *row, Place at);
/* Adds a document: of one text, or of two if the kind has two. texts[2]: the prompt of a pair, which comes
 * before both texts (text NULL: none). label: the document's. Leaves out empty, too short and too long
 * documents, and counts them. */
void add_row(Collector *c, const Span texts[3], int label, Place at);

/* ---- prep_template.c: --template TEXT, --text TEXT ---- */

/* Reads a template that was given as `option`: wrong usage if the text is none. */
void template_parse(Template *t, const char *option, const char *text);
/* Returns the template's text with the row's fields in their places, and counts their characters. */
Span template_text(Collector *c, FieldText field, const void *row, Place at);

/* ---- prep_where.c: --where TEXT ---- */

void where_parse(Where *w, const char *text);          /* wrong usage if the text is no condition */
/* Returns 1 if the condition holds for a row whose field is v. The value null, an empty cell and NaN differ
 * from every value, and are neither less nor greater; but null and an empty cell are equal to an empty VALUE.
 * Stops if a text is compared with a number by < or >. */
int where_holds(Collector *c, const Json *v, Place at);

/* ---- prep_json.c, prep_table.c: adds the documents of a file ---- */

void read_jsonl(Collector *c, const char *path);
void read_table(Collector *c, const char *path, char separator);

/* ---- the commands ---- */

int command_grammar(int argc, char **argv);
int command_data(int argc, char **argv);
int command_tokenizer(int argc, char **argv);
int command_show(int argc, char **argv);
int command_llama2c(int argc, char **argv);
int command_rankings(int argc, char **argv);

#endif
