/* text/text.h - what the files of text/ and tokenizer.c share. Only they and tests include it. */
#ifndef TEXT_H
#define TEXT_H

#include "../rlhf.h"

/* ==============================================================================================
 * text/unicode_tables.c: data
 * ============================================================================================== */
typedef struct { const uint32_t *item; size_t items; } UnicodeList;
/* Characters [first, last], `stride` apart, become `to`, to + delta, ... */
typedef struct { uint32_t first, last, to; unsigned char stride, delta; } UnicodeRun;
typedef struct { const UnicodeRun *run; size_t runs; } UnicodeRuns;
/* unicode_compatible_strings: a character with this bit, then what it becomes. */
#define UNICODE_HEAD 0x80000000u
enum { UNICODE_BASE_STRINGS = 43 };
extern const UnicodeList unicode_letters, unicode_numbers, unicode_controls, unicode_punctuation,
                         unicode_marks, unicode_spacing_marks, unicode_apart_marks;
extern const UnicodeList unicode_ideographs_f900, unicode_ideographs_2f800;
extern const UnicodeList unicode_compatible_strings;
extern const UnicodeRuns unicode_base_runs, unicode_compatible_runs, unicode_lower_runs;
extern const uint32_t unicode_base_strings[UNICODE_BASE_STRINGS][4];

/* ==============================================================================================
 * text/unicode.c: what characters are (code: a code point, or -1 for bytes that are no character)
 * ============================================================================================== */
enum { CHAR_SPACE, CHAR_LETTER, CHAR_NUMBER, CHAR_OTHER };
int unicode_class(int32_t code);            /* White_Space, \p{L}, \p{N}, the rest (also of -1) */
int unicode_is_control(int32_t code);       /* 1 if \p{C}, which includes unassigned code points */
int unicode_is_punctuation(int32_t code);   /* 1 if \p{P} or a symbol of ASCII */
int unicode_is_mark(int32_t code);          /* 1 if \p{Mn} */
int unicode_is_combining(int32_t code);     /* 1 if \p{M} */
int unicode_joins(int32_t code);            /* 1 if it extends the cluster before it (UAX 29) */
int unicode_is_ideograph(int32_t code);     /* 1 if BERT counts the character as Chinese */
/* Each of these three returns the number of characters that it put in out. */
int unicode_lower(int32_t code, int32_t out[2]);        /* lower case */
int unicode_compatible(int32_t code, int32_t out[18]);  /* NFKD without \p{M} */
int unicode_base(int32_t code, int32_t out[3]);         /* NFD without \p{Mn} */

#endif
