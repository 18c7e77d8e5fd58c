/* text/beside.h - the types and functions with which files/tokenizer_files.c reads and writes the
 * folder of a tokenizer. */
#ifndef BESIDE_H
#define BESIDE_H

#include "../rlhf.h"

/* Applies the parsed files added_tokens.json, tokenizer_config.json and special_tokens_map.json to
 * a tokenizer (NULL: there is no such file). They add tokens and name the special ones
 * (text/beside.c). OK or *err. */
int tokenizer_beside(Tokenizer *t, const Json *added, const Json *config, const Json *map,
                     Pool *pool, Error *err);
/* A token that was added to the vocabulary. special: decoding leaves it out. lstrip: it
 * includes the white space before it; rstrip: the white space after it. single_word: it is
 * not found within a word. normalized: it is looked for in the normal form. beyond: the
 * vocabulary itself lacks it. implied: no file describes it; it is special because of its name. */
typedef struct {
    const char *text; size_t length;
    int id, special, lstrip, rstrip, single_word, normalized, beyond, implied;
} AddedToken;
/* A file of a tokenizer: its name, and its bytes with a NUL after them. */
enum { TOKENIZER_FILES = 6 };               /* the most files of a tokenizer */
typedef struct { const char *name, *bytes; size_t length; } TokenizerFile;
/* The rules of BertNormalizer (1: in use). clean: removes control characters and turns white space
 * into spaces; ideographs: puts a space on both sides of each Chinese character; strip: applies NFD
 * and removes marks; lower: turns letters into lower case. */
typedef struct { int clean, ideographs, strip, lower; } BertRules;

/* The functions below are in tokenizer.c. */
/* Copies the i-th added token, in the order of ids, to *token. Returns 0 if there
 * are only i, else 1. */
int tokenizer_added(const Tokenizer *t, int i, AddedToken *token);
/* Returns "legacy" of tokenizer_config.json. 0: a text after a special token gets
 * no space before it. */
int tokenizer_legacy(const Tokenizer *t);
/* Returns the name of the tokenizer's class in Hugging Face's transformers. */
const char *tokenizer_class(const Tokenizer *t);
/* Returns add_prefix_space of tokenizer_config.json if it is in use, else -1. */
int tokenizer_prefix_space(const Tokenizer *t);
/* Each of these two functions returns 1 if tokenizer_config.json says so: which tokens the template
 * adds; that special tokens in texts are plain text (split_special_tokens). */
int tokenizer_asked_template(const Tokenizer *t);
int tokenizer_asked_split(const Tokenizer *t);
/* Returns 1 if the tokenizer's models take token_type_ids. */
int tokenizer_types(const Tokenizer *t);
/* Returns the rules of a WordPiece tokenizer; NULL: t is of another kind. */
const BertRules *tokenizer_bert(const Tokenizer *t);
/* Appends the bytes of the file of a tokenizer that has this name: a file that it was read from, or
 * one that was kept. OK, E_MISSING (there is no such file) or E_MEMORY. */
int tokenizer_file(const Tokenizer *t, const char *name, Buffer *b);

/* The functions below are in text/pieces.c and text/write_json.c. */
/* Keeps a copy of a file, in pool, for tokenizer_file. name: a constant. Returns the copy, with a
 * NUL after it; NULL: no memory. */
const char *tokenizer_keep(Tokenizer *t, const char *name, const void *bytes, size_t n, Pool *pool);
/* Appends a tokenizer.json that says what t does; t was read from other files, and has its special
 * tokens (see tokenizer_beside). OK, E_UNSUPPORTED (tokenizer.json has no words for what t does) or
 * E_MEMORY. */
int tokenizer_make_json(const Tokenizer *t, Buffer *json);

#endif
