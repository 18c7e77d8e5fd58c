/* text/beside.h - what reading and writing a tokenizer's folder (files/tokenizer_files.c) needs of
 *          it. */
#ifndef BESIDE_H
#define BESIDE_H

#include "../rlhf.h"

/* Reads added_tokens.json, tokenizer_config.json and special_tokens_map.json, parsed (NULL: not
 * there), which add tokens and name the special ones (text/beside.c). OK or *err. */
int tokenizer_beside(Tokenizer *t, const Json *added, const Json *config, const Json *map,
                     Pool *pool, Error *err);
/* A token that was added to the vocabulary. special: decoding leaves it out. lstrip, rstrip: it
 * swallows the white space before it, after it. single_word: it is not found within a word.
 * normalized: it is looked for in the normal form. beyond: the vocabulary itself does not have
 * it. */
typedef struct {
    const char *text; size_t length;
    int id, special, lstrip, rstrip, single_word, normalized, beyond;
} AddedToken;
/* Rules of BertNormalizer. clean: controls go, white space is a space; ideographs: a space on both
 * sides of each; strip: NFD without marks; lower: lower case. */
typedef struct { int clean, ideographs, strip, lower; } BertRules;

/* The rest is tokenizer.c's. */
int tokenizer_added(const Tokenizer *t, int i, AddedToken *token);  /* the i-th by id; 0: no more */
/* "legacy" of tokenizer_config.json; 0: no space is put before a text after a special token. */
int tokenizer_legacy(const Tokenizer *t);
const char *tokenizer_class(const Tokenizer *t);        /* transformers' name of its kind */
const BertRules *tokenizer_bert(const Tokenizer *t);    /* WordPiece's rules; NULL: another kind */
/* Appends the bytes of its files. OK, E_ARGUMENT (a tokenizer from other files) or E_MEMORY. */
int tokenizer_write_sentencepiece(const Tokenizer *t, Buffer *model);
int tokenizer_write_bytelevel(const Tokenizer *t, Buffer *vocab_json, Buffer *merges_txt);
int tokenizer_write_wordpiece(const Tokenizer *t, Buffer *vocab_txt);
int tokenizer_write_json(const Tokenizer *t, Buffer *json);

#endif
