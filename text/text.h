/* text/text.h - the types and functions that tokenizer.c and the files of text/ share. Only these
 * files and the tests include it.
 *
 * A tokenizer is one struct. It has a member for each kind of tokenizer, and a pointer to the table
 * of the functions of its own kind. The function that opens a tokenizer sets that pointer, and
 * tokenizer.c names no kind. So a program that calls one opener links with that kind alone
 * (tests/programs/porter.sh). */
#ifndef TEXT_H
#define TEXT_H

#include "beside.h"

/* ==============================================================================================
 * text/unicode_tables.c: data
 * ============================================================================================== */
typedef struct { const uint32_t *item; size_t items; } UnicodeList;
/* A run of characters: first, first + stride, ..., last become to, to + delta, ... */
typedef struct { uint32_t first, last, to; unsigned char stride, delta; } UnicodeRun;
typedef struct { const UnicodeRun *run; size_t runs; } UnicodeRuns;
/* This bit marks a character in a list of strings. The items from there to the next mark are what
 * the character becomes. */
#define UNICODE_HEAD 0x80000000u
/* General_Category */
enum { CAT_LU, CAT_LL, CAT_LT, CAT_LM, CAT_LO, CAT_MN, CAT_MC, CAT_ME, CAT_ND, CAT_NL, CAT_NO,
       CAT_PC, CAT_PD, CAT_PS, CAT_PE, CAT_PI, CAT_PF, CAT_PO, CAT_SM, CAT_SC, CAT_SK, CAT_SO,
       CAT_ZS, CAT_ZL, CAT_ZP, CAT_CC, CAT_CF, CAT_CS, CAT_CO, CAT_CN };
typedef struct { const char *name; UnicodeList edges; } UnicodeScript;
enum { UNICODE_SCRIPTS = 12 };
extern const UnicodeList unicode_categories, unicode_after_8, unicode_after_9, unicode_apart_marks,
                         unicode_wide;
extern const UnicodeScript unicode_scripts[UNICODE_SCRIPTS];
extern const UnicodeList unicode_canonical_strings, unicode_compatible_strings;
extern const UnicodeRuns unicode_canonical_runs, unicode_compatible_runs, unicode_lower_runs;
extern const UnicodeList unicode_composites, unicode_combining_classes;

/* ==============================================================================================
 * text/unicode.c: properties of characters. code: a code point, or -1: malformed bytes
 * ============================================================================================== */
enum { CHAR_SPACE, CHAR_LETTER, CHAR_NUMBER, CHAR_OTHER };
int unicode_category(int32_t code);         /* returns the General_Category, a CAT_ */
/* Returns 1 if code (not -1) is in the class: if the number of the items that are <= code is odd. */
int unicode_inside(const UnicodeList *class, int32_t code);
/* Returns CHAR_SPACE (White_Space), CHAR_LETTER (\p{L}), CHAR_NUMBER (\p{N}) or CHAR_OTHER
 * (the rest, and -1). */
int unicode_class(int32_t code);
/* BERT's classes: \p{Cc}, \p{Cf} and \p{Co}; \p{P} and symbols of ASCII; \p{Mn}. */
int unicode_is_control(int32_t code);
int unicode_is_punctuation(int32_t code);
int unicode_is_mark(int32_t code);
int unicode_is_accent(int32_t code);        /* returns 1 for \p{M} */
int unicode_is_word(int32_t code);          /* returns 1 for \w of regular expressions (UTS 18) */
int unicode_joins(int32_t code);            /* returns 1 if code extends a cluster (UAX 29) */
int unicode_is_ideograph(int32_t code);     /* returns 1 if BERT takes code for Chinese */
int unicode_lower(int32_t code, int32_t out[2]);    /* writes the lower case; returns its length */
/* Writes the decomposition of code (compatible 0: canonical; 1: by compatibility, too) to out, and
 * returns its length. The marks are not sorted by their combining classes. */
int unicode_decompose(int32_t code, int compatible, int32_t out[18]);
int unicode_combining_class(int32_t code);  /* returns 0 for a starter */
int32_t unicode_compose(int32_t a, int32_t b);      /* returns what a and b become in NFC, or -1 */

/* Returns the CHAR_ class of the first character of s (n > 0 bytes); *length: its bytes. */
static inline int class_at(const char *s, size_t n, size_t *length) {
    int32_t code = (unsigned char)*s;
    *length = 1;
    if (code >= 128) *length = (size_t)utf8_decode(s, n, &code);
    return code >= 'a' && code <= 'z' ? CHAR_LETTER : unicode_class(code);
}
/* Returns the index where the white space just before s[at] begins; stops at s[from]. */
size_t space_before(const char *s, size_t from, size_t at);
/* Returns the index where the white space from s[at] on ends; stops at s[n]. */
size_t space_after(const char *s, size_t at, size_t n);

/* ==============================================================================================
 * text/decimal.c
 * ============================================================================================== */
/* Finds the fewest decimal digits, at least 15, that tell x from its neighbours: |x| is about *d /
 * 10^*places. Returns 1, or 0 if x is 0, or too large or too small for this. */
int shortest_decimal(double x, uint64_t *d, int *places);

/* ==============================================================================================
 * text/pieces.c: the vocabulary, and ways to find its pieces
 * ============================================================================================== */
typedef struct { const char *text; size_t length; } Text;
/* The types of pieces. The numbers are SentencePiece's, except for PIECE_ADDED: an added token
 * that is not special. */
enum { PIECE_NORMAL = 1, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_USER_DEFINED, PIECE_UNUSED, PIECE_BYTE,
       PIECE_ADDED };
typedef struct { const char *text; size_t length; f32 score; int type; } Piece;
#define BLANK "\xe2\x96\x81"                /* U+2581, which stands for a space in pieces */
#define BAD_CHARACTER "\xef\xbf\xbd"        /* U+FFFD, which stands for malformed bytes */
enum { BLANK_LENGTH = 3 };

static inline int starts_with(const char *s, size_t n, const char *start, size_t length) {
    return n >= length && !memcmp(s, start, length);
}

/* A hash table from strings to numbers. It points to the caller's bytes and does not copy them.
 * text NULL: the entry is free. */
typedef struct { const char *text; uint32_t length, hash; int value; } TableEntry;
typedef struct { TableEntry *entry; size_t slots, used; } Table;
/* Returns the number of a string; -1: the table lacks the string. */
int table_find(const Table *t, const char *text, size_t length);
/* Adds a string that the table lacks. OK or E_MEMORY. */
int table_add(Table *t, Pool *pool, const char *text, size_t length, int value);

/* A trie in a double array: the child of node i for byte c is node[node[i].base + c], if the
 * check of that node is i. value, score: those of the piece that ends at the node; value -1:
 * no piece ends there. */
typedef struct { uint32_t base, check; int value; f32 score; } TrieNode;
typedef struct { TrieNode *node; size_t nodes; } Trie;
/* Builds a trie of those of V pieces that are NORMAL or USER_DEFINED (all different, none empty).
 * The value of a piece is its index in the list. OK or E_MEMORY. */
int trie_build(Trie *t, const Piece *piece, int V, Pool *pool);
/* Returns the length of the longest piece that s (n bytes) begins with; *value: its value. 0: s
 * begins with no piece. */
size_t trie_longest(const Trie *t, const char *s, size_t n, int *value);
/* Returns the child of a node for byte c; 0: it has none (node 0 is the root, never a child). */
static inline uint32_t trie_child(const Trie *t, uint32_t node, unsigned char c) {
    uint32_t to = t->node[node].base + c;
    return t->node[to].check == node ? to : 0;
}

/* Compares two Pieces by their bytes (for qsort). */
int compare_pieces(const void *a, const void *b);
/* Returns the length of the longest piece of a sorted list (of `count` pieces) that s (n bytes)
 * begins with; *which: its index. 0: s begins with no piece. */
size_t longest_prefix(const Piece *list, int count, const char *s, size_t n, int *which);
int byte_of_piece(const Piece *p);          /* returns 0x41 for "<0x41>"; -1: no byte piece */
/* Returns 1 and sets *id if j is a whole number that can be an id, else 0. */
int json_id(const Json *j, int *id);
int json_is_bool(const Json *j);            /* returns 1 if j is true or false */
/* Returns 1 if "tokenizer_class" of tokenizer_config.json is the class, or its twin that ends
 * in "Fast". */
int class_is(const Json *config, const char *class);
/* Returns 1 if the options that tokenizer_config.json has for a class in transformers count: not if
 * there is a tokenizer.json and a class without options of its own. */
int class_counts(const Tokenizer *t, const Json *config);

/* Each of these three functions fills *err and returns the error code. fail_piece names a piece (as
 * much of it as fits); fail_at names a place by a pattern, such as "merges.txt, line %d", and its
 * number; no_memory says that memory is out. */
int fail_piece(Error *err, int code, const char *what, Text piece, long long got, long long wanted);
int fail_at(Error *err, int code, const char *what, const char *pattern, int number);
int no_memory(Error *err, const char *where);
/* Shrinks an allocation from `size` bytes to its first `used` bytes, and frees all later
 * allocations of the pool. after: the mark that was set just after the allocation. */
void keep_only(Pool *pool, PoolMark after, size_t size, size_t used);

/* ==============================================================================================
 * text/charset.c, text/regex.c: regular expressions
 * ============================================================================================== */
/* A set of characters is a UnicodeList (see unicode_inside), in pool or constant. Each of these
 * functions sets or changes one; OK or E_MEMORY. */
enum { SET_OR, SET_AND, SET_XOR };
int charset_combine(UnicodeList *out, UnicodeList a, UnicodeList b, int how, Pool *pool);
int charset_not(UnicodeList *set, Pool *pool);
int charset_range(UnicodeList *out, int32_t first, int32_t last, Pool *pool);
int charset_fold(UnicodeList *set, Pool *pool);     /* adds the other case of each letter */
/* letter: that of \s, \d, \w or \h; bare 1: outside of brackets, where \w is larger in Oniguruma */
int charset_escape(UnicodeList *out, char letter, int bare, Pool *pool);
/* name: that of \p{name}; E_MISSING: it is not known */
int charset_named(UnicodeList *out, Text name, Pool *pool);

/* A compiled regular expression: a table of states. The characters are sorted into `symbols`
 * classes; the last class is the end of the text. ascii: the class of a character below 128; edge
 * (edges): the characters where another class begins, class_of[i]: the class from edge[i] on.
 * next: a row of `width` items for each state. A state is the index of its row; an item is 2 * the
 * next state, + 1 if a match ends before the symbol; state 0: there are no more matches. ahead: the
 * look-aheads over more than one character; a row has `symbols` items for each set of them that
 * match (item set * symbols + symbol; bit k of the set: ahead[k] matches). start:
 * the first state, by what is before the match (BEFORE_). before (symbols): the BEFORE_ that a
 * symbol is; NULL: it makes no difference. */
enum { BEFORE_TEXT, BEFORE_LINE, BEFORE_WORD, BEFORE_OTHER, BEFORES };
typedef struct Regex Regex;
struct Regex {
    unsigned char ascii[128];
    const uint32_t *edge; const unsigned char *class_of; size_t edges;
    const uint32_t *next; const unsigned char *before;
    size_t symbols, width;
    uint32_t start[BEFORES];
    const Regex *ahead; int aheads;
};
/* Compiles a pattern in Oniguruma's syntax. OK, or *err, which names what is not supported and shows
 * the pattern from there on. */
int regex_compile(Regex *r, Text pattern, Pool *pool, Error *err);
/* Finds the first match in s from the byte `at` on: the bytes [*from, *to). As in Perl, the first
 * alternative that leads to a match counts. Returns 1, or 0 if there is none. */
int regex_find(const Regex *r, Text s, size_t at, size_t *from, size_t *to);

/* ==============================================================================================
 * The parts of a tokenizer
 * ============================================================================================== */
typedef struct Encoder Encoder;
typedef struct TokenizerKind TokenizerKind;

/* The texts of added tokens that are looked for, sorted by their bytes. key[i].type: the
 * index of the token in Tokenizer.added (not a PIECE_). first: one bit for each byte; 1: some
 * key begins with it. */
typedef struct { Piece *key; int keys; unsigned char first[32]; } Cuts;

/* text/normal.c: SentencePiece's normal form. */
typedef struct {
    int add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces, whitespace_suffix;
    int only_first;                         /* 1: no dummy prefix after an added token */
    int unless_blank;                       /* 1: no dummy prefix before a space */
    Piece *user; int users;                 /* user-defined pieces, sorted by their bytes */
    const unsigned char *trie; size_t trie_units;       /* rules: a double array of u32 */
    const char *replacement; size_t replacement_bytes;  /* the rules' values are offsets in it */
    unsigned char plain[128];               /* 1: no rule changes it if ASCII follows it */
} Normal;

/* text/steps.c: the steps to the normal form that tokenizer.json lists.
 *   VALID    replaces malformed bytes by U+FFFD; always the first step
 *   REPLACE  replaces each match of `regex`, or each `pattern` if regex is NULL, by `content`
 *   STRIP    removes white space at the start (left 1) and at the end (right 1)
 *   LOWER    turns letters into lower case
 *   ACCENTS  removes marks
 *   NFC ...  UAX 15; NMT: turns some white space into spaces, removes controls
 *   RULES    applies the rules of Normal; BERT: `rules`
 *   PREPEND  puts `content` before a text that is not empty */
enum { STEP_VALID, STEP_REPLACE, STEP_STRIP, STEP_LOWER, STEP_ACCENTS, STEP_NFC, STEP_NFD, STEP_NFKC,
       STEP_NFKD, STEP_NMT, STEP_RULES, STEP_BERT, STEP_PREPEND, STEPS = 64 };
typedef struct {
    int kind, left, right; const Regex *regex; Text pattern, content; BertRules rules;
} NormalStep;

/* text/cut.c: the steps that cut a normal form into words.
 *   PATTERN    cuts at the matches of a regular expression (invert 1: at what is between them)
 *   CLASS      cuts at the characters c with in(c) 1
 *   GPT2       cuts as GPT-2 does
 *   PREFIX     puts `text` before a word that does not begin with it
 *   METASPACE  puts `text` for each space, and before words (scheme)
 * behavior: what becomes of a match: it is removed, or a word, or joined to a neighbour. */
enum { CUT_PATTERN, CUT_CLASS, CUT_GPT2, CUT_PREFIX, CUT_METASPACE };
enum { CUT_ISOLATED, CUT_REMOVED, CUT_CONTIGUOUS, CUT_WITH_PREVIOUS, CUT_WITH_NEXT };
enum { PREPEND_NEVER, PREPEND_FIRST, PREPEND_ALWAYS };
typedef struct {
    int kind, behavior, invert, scheme; Regex regex; int (*in)(int32_t code); Text text;
} CutStep;

/* text/pipeline.c. encode appends the ids of the word text[at .. at+n); OK or E_MEMORY. */
enum { DECODE_APART, DECODE_BYTES, DECODE_JOINED, DECODE_WORDS };
typedef struct {
    NormalStep *step; int steps;
    CutStep *cut; int cuts;
    int (*encode)(struct Encoder *e, const char *text, size_t at, size_t n);
    int decoder;
} Pipeline;

/* text/sentencepiece.c */
typedef struct {
    int byte_fallback;                      /* 1: unknown characters become pieces of bytes */
    int split_blanks;                       /* 1: each U+2581 begins a new piece */
    /* Decoding. bare_first 1: no space for a U+2581 of the first piece; strip 1: the
     * first space is removed. */
    int bare_first, strip;
    Text unk_surface;                       /* what an unknown piece is decoded to */
    unsigned char touch[256 * 256 / 8];     /* bit 256 a + b: some piece has byte b after a */
} SentencePiece;

/* text/bpe.c. merge: a hash table of pairs (left, right); id -1: a free slot. merge NULL: there is
 * no list of merges, and two symbols merge if together they spell a piece. unused 1: some pieces
 * are UNUSED: symbols merge into them, and at the end they are split again. */
typedef struct { int left, right, id, rank; } Merge;
typedef struct { Merge *merge; size_t slots; int unused; } Bpe;

/* text/bytelevel.c */
enum { BYTE_CHARS = 0x144 };
typedef struct {
    /* prefix_space 1: a space is put before a text that does not begin with one. */
    int prefix_space;
    int ignore_merges;                      /* 1: a word that is a piece stays whole */
    int roberta;                            /* 1: vocab.json has RoBERTa's special tokens */
    /* missing: the id for bytes that have no token; -1: such bytes are dropped. fuse_unk 1: a run
     * of such bytes becomes one id. */
    int missing, fuse_unk;
    int32_t byte_char[256];                 /* the character for each byte in vocab.json */
    int char_byte[BYTE_CHARS];              /* the byte of each character; -1: it has none */
} ByteLevel;

/* text/unigram.c. unk: the id of the unknown piece; users 1: there are user-defined pieces. exact
 * (V), unk_exact: scores for unigram_best_exact, which the caller sets. margin (V): by how much a
 * piece is better than its best segmentation into other pieces; largest: the largest |score|. */
typedef struct {
    Trie trie; const Piece *piece; int unk, users; f32 unk_score, max_score;
    const double *exact; double unk_exact;
    f32 *margin, largest;
} Unigram;

/* text/wordpiece.c. first: the pieces that begin a word; rest: those that go on in it, without
 * "##". most: the most characters of a word; longer words are unknown. keep_spaces 1: decoding
 * keeps the space before punctuation. configured 1: tokenizer_config.json has changed the rules. */
typedef struct {
    Trie first, rest; int unk, most, keep_spaces, configured; BertRules rules;
} WordPiece;

struct Tokenizer {
    const TokenizerKind *kind;
    int V; Piece *piece;                    /* (V) the vocabulary */
    /* From texts to ids. SentencePiece has two name spaces: `ordinary` has the pieces of the types
     * NORMAL, USER_DEFINED and UNUSED; `reserved` has UNKNOWN, CONTROL and BYTE. extra: added
     * tokens that the vocabulary lacks. */
    Table ordinary, reserved, extra;
    SpecialIds special;
    /* the template. before 1: bos goes before a text; after 1: eos goes after it */
    int before, after;
    /* from tokenizer_config.json: asked_template 1: it names the template; asked_prefix: its
     * add_prefix_space if it is in use, else -1; asked_split: its split_special_tokens; max_length:
     * model_max_length, 0: it has none */
    int asked_template, asked_prefix, asked_split, max_length;
    int no_types;                           /* 1: its models take no token_type_ids */
    int byte_id[256];                       /* the id of the piece of each byte, or -1 */
    /* words: see text/encoder.c; longest: the most bytes of a piece */
    Table words; size_t longest;
    int json;                               /* 1: the tokenizer was read from tokenizer.json */
    TokenizerFile file[TOKENIZER_FILES]; int files; /* to be written as they are */
    AddedToken *added; int addeds;          /* sorted by their ids */
    /* cut[0]: tokens that are looked for in the text; cut[1]: in its normal form. */
    Cuts cut[2];
    int added_normal;                       /* 1: kind->encode itself looks for those of cut[1] */
    int split_special;                      /* 1: special tokens are not looked for */
    /* (V) what decoding writes for the tokens that are looked for in the normal form, if it is
     * another text than the piece; text NULL: the piece. NULL: there are none. */
    Text *shown;
    const char *chat_template;              /* tokenizer_config.json's; NULL: it has none */
    Normal normal; Pipeline pipeline; SentencePiece sentencepiece;
    Bpe bpe; ByteLevel bytelevel; Unigram unigram; WordPiece wordpiece;
};

/* Ids to decode, each that of a piece. all 1: special tokens are written too. */
typedef struct { const int *id; int count, all; } Ids;

/* Returns the text that decoding begins with for an id: the piece, or the normal form of an
 * added token. */
static inline Text shown_text(const Tokenizer *t, int id) {
    Text piece = { t->piece[id].text, t->piece[id].length };
    return t->shown && t->shown[id].text ? t->shown[id] : piece;
}

/* The functions of one kind of tokenizer. measure, encode, encode_normal and normal_form
 * return OK or E_MEMORY. */
struct TokenizerKind {
    int family;                             /* TOKENIZER_SENTENCEPIECE, _BYTELEVEL or _WORDPIECE */
    /* Adds to e->bound the most ids that s can become, and raises e->widest to the bytes of scratch
     * that s needs. s: a text without added tokens. */
    int (*measure)(Encoder *e, Text s);
    /* Appends the ids of s to e->ids. */
    int (*encode)(Encoder *e, Text s);
    /* Appends the ids of the bytes [at, to) of the normal form. NULL: encode does it itself. */
    int (*encode_normal)(Encoder *e, size_t at, size_t to);
    /* Writes the text of the ids to out and returns its length. With n = the bytes of their pieces
     * + the number of ids, out has room for 3 n bytes, and `bytes` (scratch) for n. */
    size_t (*decode)(const Tokenizer *t, const Ids *ids, char *out, char *bytes);
    /* Returns 1 if the text of piece `id` alone is encoded as just this piece, 0 if not, -1 without
     * memory. *text: the piece as the vocabulary writes it; becomes the text, in pool, that the
     * piece stands for. NULL: the kind has no table of words. */
    int (*is_word)(Encoder *e, int id, Text *text, Pool *pool);
    /* Replaces the text of an added token by its normal form, in pool. Needed
     * if added_normal is 1. */
    int (*normal_form)(const Tokenizer *t, Text *text, Pool *pool);
    /* Returns the name of the tokenizer's class in Hugging Face's transformers. */
    const char *(*class_name)(const Tokenizer *t);
    /* Applies tokenizer_config.json (NULL: it has nothing for this kind). OK or *err. */
    int (*configure)(Tokenizer *t, const Json *config, Error *err);
};

/* Returns a new tokenizer without pieces. NULL: no memory. */
Tokenizer *new_tokenizer(const TokenizerKind *kind, Pool *pool);
/* Each of these three functions returns the id of a text, or -1. find_ordinary looks among
 * the ordinary pieces, find_piece among all pieces of the vocabulary, find_token also
 * among added tokens. */
int find_ordinary(const Tokenizer *t, const char *text);
int find_piece(const Tokenizer *t, const char *text, size_t length);
int find_token(const Tokenizer *t, const char *text, size_t length);
/* The most ids without a piece that a vocabulary may have. */
enum { MOST_GAPS = 1 << 20 };
/* Loads the vocabulary from a JSON object {"token": id, ...}. An id that no token has becomes a
 * piece without text. copy 1: the texts are copied into pool. OK or *err. */
int load_vocab(Tokenizer *t, const Json *root, int copy, Pool *pool, Error *err);

/* ==============================================================================================
 * text/added.c: added tokens, which are cut out of a text before it is encoded
 * ============================================================================================== */
/* A text that is cut at its added tokens. text[at..n) is left; text[scan..n) is left for the
 * search. found: the index in t->added of the next added token, -1: not looked for yet. The token
 * covers text[start..stop), with the white space that it swallows. */
typedef struct {
    const Tokenizer *t; const Cuts *cuts;
    const char *text; size_t n, at, scan;
    int found; size_t start, stop;
} Parts;
/* Begins to cut s into parts. cuts NULL: s is one part. */
void begin_parts(Parts *p, const Tokenizer *t, const Cuts *cuts, Text s);
/* Finds the next part: an added token (*id: its id), or a text without added tokens (*id: -1). Of
 * two tokens that overlap, the one that begins first is taken; if both begin together, the longer
 * one. Returns 0 at the end of the text, else 1. */
int next_part(Parts *p, Text *part, int *id);
/* Reads an added token from j, {"content": ..., "special": ..., "lstrip": ..., ...}, and its id
 * from `id`. OK or *err. */
int parse_added(AddedToken *a, const Json *j, const Json *id, Error *err);
/* Adds `count` tokens to a tokenizer; one with an id that is there already
 * replaces it. OK or *err. */
int add_tokens(Tokenizer *t, const AddedToken *token, size_t count, Pool *pool, Error *err);

/* ==============================================================================================
 * text/bpe.c: merges symbols, for all kinds of BPE
 * ============================================================================================== */
enum { SYMBOL_FROZEN = -2 };                /* the id of a symbol that never merges */
/* A symbol: text[at .. at+length) of a part; length 0: it was merged into its left neighbour.
 * previous, next: the indexes of its neighbours, or -1. */
typedef struct { uint32_t at, length; int previous, next, id; } Symbol;
/* Symbol `left` and its right neighbour could merge into piece `id`, of `length` bytes. */
typedef struct { f32 score; int left, id; uint32_t length; } Candidate;
/* symbol: the symbols of a part; after merging, symbol[0] is the first, and `next` links the
 * others. heap[0] is the best candidate: the highest score; of equal scores the leftmost. split
 * (V): for each unused piece the length of the left one of the two symbols that last merged into
 * it; NULL: there are no unused pieces. */
typedef struct {
    const Tokenizer *t;
    const char *text;
    Symbol *symbol; int symbols, room;
    Candidate *heap; int waiting;
    size_t *split;
} Merger;
/* Makes room for `symbols` symbols. OK or E_MEMORY. */
int merger_room(Merger *m, size_t symbols, Pool *pool);
/* Merges the m->symbols symbols, the best pair first, until no pair can merge. */
void merge_symbols(Merger *m);
/* Returns 1 if just one symbol is left, it has n bytes, and it is piece `id`. */
int merged_whole(const Merger *m, size_t n, int id);
size_t pair_hash(int left, int right);      /* returns a hash of two symbols */
/* A line of a list of merges. rank: its number, from 0 on; place, number: name the line in errors
 * (see fail_at). begin_merges makes room for a list of n merges. add_merge adds the merge of two
 * tokens, add_merge_line that of the line "left right". If a pair comes twice, the last line
 * counts. OK or *err. */
typedef struct { int rank; const char *place; int number; } MergeLine;
int begin_merges(Tokenizer *t, size_t n, Pool *pool, Error *err);
int add_merge(Tokenizer *t, Text left, Text right, const MergeLine *line, Pool *pool, Error *err);
int add_merge_line(Tokenizer *t, Text s, const MergeLine *line, Pool *pool, Error *err);

/* ==============================================================================================
 * text/unigram.c: pieces with log-probabilities (Kudo 2018)
 * ============================================================================================== */
/* Fills u from V pieces: their scores, their trie. unk: the id of the unknown
 * piece. OK or E_MEMORY. */
int unigram_build(Unigram *u, const Piece *piece, int V, int unk, Pool *pool);
/* Returns the length in bytes of the first character of s (n > 0 bytes), which may be malformed. */
size_t unigram_character(const char *s, size_t n);
/* Returns the score of a piece; of a user-defined piece, length * max_score - 0.1, subtracted in
 * double as SentencePiece does. */
static inline double unigram_score(const Unigram *u, int id, size_t length) {
    if (u->piece[id].type != PIECE_USER_DEFINED) return u->piece[id].score;
    return (double)((f32)length * u->max_score) - 0.1;
}
/* Finds the best segmentation of s (n bytes). The caller sets best[0].score. best (n+1): best[j] is
 * the last piece of the best path to s[j]: piece `id`, which begins at s[from]; id -1: no piece
 * ends there. The pieces of s, the last one first, are best[n], best[best[n].from], and so on.
 * without: the id of a piece that is not used (-1: all are used). */
typedef struct { f32 score; int id; uint32_t from; } BestPiece;
void unigram_best(const Unigram *u, const char *s, size_t n, BestPiece *best, int without);
/* Does what unigram_best does, in double, with the scores u->exact; sets
 * best[0].score to 0 itself. */
typedef struct { double score; int id; uint32_t from; } BestExact;
void unigram_best_exact(const Unigram *u, const char *s, size_t n, BestExact *best, int without);
/* The arrays of unigram_best and of unigram_best_exact. total: the score of all parts
 * before this one. best_room makes room in `best`, exact_room in `exact`, for a part of n
 * bytes. OK or E_MEMORY. */
typedef struct { BestPiece *best; BestExact *exact; size_t best_room, exact_room; f32 total; } Paths;
int best_room(Paths *p, size_t n, Pool *pool);
int exact_room(Paths *p, size_t n, Pool *pool);
/* Returns 1 if the text of piece `id` (n bytes), is surely encoded as this piece if it stands
 * alone: the margin of the piece is larger than the rounding errors of two paths of n bytes whose
 * scores begin at `total`. */
int unigram_margin(const Unigram *u, int id, size_t n, f32 total);

/* ==============================================================================================
 * text/encoder.c: encoding and decoding, as far as all kinds share it
 * ============================================================================================== */
/* Bytes [from, to) of the text, from which a byte of its normal form comes. All bytes that one rule
 * made in one place have the same origin. */
typedef struct { size_t from, to; } Origin;
/* A source: the `used` bytes at text[at]. put_origin notes that out[from..to) comes from s: if the
 * bytes are equal, each comes from its own byte of s, else each from all of s. */
typedef struct { const char *text; size_t at, used; } Source;
void put_origin(Origin *origin, const char *out, size_t from, size_t to, Source s);
/* The state of one encoding. bound: the most ids; widest: the most bytes of scratch that a part
 * needs (measure() raises both). plain 1: added tokens are not looked for. first 1: the text begins
 * at `start`, not after an added token. traced 1: spans are wanted; then origin has the origin of
 * each of the `normal` bytes of the normal form. */
struct Encoder {
    const Tokenizer *t;
    Pool *pool;
    int plain, first, traced;
    const char *start;
    size_t bound, widest;
    int *ids, count; TokenSpan *span;
    char *scratch;                          /* (widest + 1) the normal form of a part */
    Origin *origin; size_t normal;
    Merger merger; Paths paths;
};
/* Sets the span of id number k, which covers the bytes [i, j) of the normal form. The span is not
 * exact if exact is 0, or if i or j is within bytes that one rule made. */
void set_span(Encoder *e, int k, size_t i, size_t j, int exact);
/* Appends an id that covers the bytes [i, j) of the normal form. */
void put_one(Encoder *e, int id, size_t i, size_t j);
/* Returns the id of the piece as which the word s (n bytes) is encoded if it is
 * alone; -1: unknown. */
int known_word(const Tokenizer *t, const char *s, size_t n);
/* Fills t->words with the words that are encoded as one piece. OK or *err. */
int index_words(Tokenizer *t, Pool *pool, Error *err);
/* Copies n bytes to out[at]; returns the index just after them. */
size_t append_text(char *out, size_t at, const char *text, size_t n);
/* Does what append_text does, for bytes that may be malformed. each 1: each malformed byte becomes
 * U+FFFD (as in SentencePiece); 0: each malformed sequence does. */
size_t append_valid(char *out, size_t at, Text s, int each);

/* ==============================================================================================
 * text/normal.c: SentencePiece's normal form
 * ============================================================================================== */
/* Reads the rules of a precompiled_charsmap (empty: no rules), which have to stay in memory. OK, or
 * *err, which names `where`. */
int normal_rules(Normal *m, Text table, const char *where, Error *err);
/* Fills m->plain. Called when the rules and the user-defined pieces are complete. */
void normal_plain(Normal *m);
/* Returns the length of the longest text (shortest 1: the shortest) at the start of s (n bytes)
 * that a rule replaces; *out: what it becomes. 0: no rule applies. */
size_t rule_prefix(const Normal *m, const char *s, size_t n, int shortest, Text *out);
/* Returns the length of the longest user-defined piece that s (n bytes) begins with, or 0. */
size_t user_prefix(const Normal *m, const char *s, size_t n);
/* Returns 1 if s gets the dummy prefix. first 1: s is the start of a whole text. */
int wants_prefix(const Normal *m, Text s, int first);
/* Writes the normal form of s to out (prefix 1: with the dummy prefix), and the origin of each of
 * its bytes to origin (NULL: not wanted). Returns its length. out NULL: writes nothing, and returns
 * an upper bound of the length. */
size_t normalise(const Normal *m, Text s, int prefix, char *out, Origin *origin);
/* Returns an upper bound of the length of the normal form of s, dummy prefix included. */
size_t normal_bound(const Normal *m, Text s);

/* ==============================================================================================
 * The kinds
 * ============================================================================================== */
/* text/bytelevel.c */
extern const TokenizerKind bytelevel_kind;
void bytelevel_alphabet(ByteLevel *b);      /* fills byte_char and char_byte */
void bytelevel_ids(Tokenizer *t);           /* fills t->byte_id from the vocabulary */
/* Returns the length of the first word of s (n > 0 bytes), as GPT-2 splits a text. */
size_t bytelevel_word(const char *s, size_t n);
/* Appends the ids of the word s[at .. at+length). OK or E_MEMORY. */
int bytelevel_encode_word(Encoder *e, const char *s, size_t at, size_t length);
/* Arguments: those of TokenizerKind.is_word and .decode. */
int bytelevel_is_word(Encoder *e, int id, Text *text, Pool *pool);
size_t decode_bytes(const Tokenizer *t, const Ids *ids, char *out, char *bytes);

/* text/sentencepiece.c. sentencepiece_bpe_kind merges by the pieces' scores;
 * sentencepiece_unigram_kind uses the unigram model; fallback_kind merges by a list, and unknown
 * characters become bytes. */
extern const TokenizerKind sentencepiece_bpe_kind, sentencepiece_unigram_kind, fallback_kind;
void note_touch(SentencePiece *s, const Piece *p);      /* sets the bits of a piece in s->touch */
/* Decodes as the usual decoder of tokenizer.json does. Arguments: those of TokenizerKind.decode. */
size_t decode_joined(const Tokenizer *t, const Ids *ids, char *out, char *bytes);

/* text/wordpiece.c */
extern const TokenizerKind wordpiece_kind;
/* Writes the normal form of text (n bytes) to out, and returns its length; out NULL: only
 * returns the length. */
size_t bert_normalise(char *out, const char *text, size_t n, const BertRules *rules);
/* Writes the ids of a word (n bytes): takes the longest piece from the left, again and again. If no
 * piece spells some part, the whole word is one unknown piece. Returns the number of ids, at most n. */
int word_ids(const WordPiece *w, const char *word, size_t n, int *ids);
/* Sets the spans of the ids from number `first` on: the pieces of one word, the bytes [at, to) of
 * the normal form. */
void trace_word(Encoder *e, int first, size_t at, size_t to);
/* Arguments: those of TokenizerKind.decode. */
size_t decode_words(const Tokenizer *t, const Ids *ids, char *out, char *bytes);
/* Returns the length of the next word of a normal form, which begins at s[*space], after white
 * space; 0: there is no word. A punctuation mark is a word by itself. */
size_t bert_word(const char *s, size_t n, size_t *space);
/* Builds the tries of a tokenizer that has its pieces, and finds its special tokens. unk: the id of
 * the unknown piece. OK or *err. */
int finish_wordpiece(Tokenizer *t, int unk, Pool *pool, Error *err);

/* text/steps.c. Runs all steps of t->pipeline over *text, which becomes the result, in pool. *origin:
 * the origins of its bytes (NULL: not wanted), which become those of the result. *lost: 1 if a step
 * lost the start of the text. OK or E_MEMORY. */
int run_steps(const Tokenizer *t, Text *text, Origin **origin, int *lost, Pool *pool);

/* text/cut.c. The words of a text. origin: those of the bytes of the text (NULL: not wanted). first 1: the
 * text is the start of a whole text. cut_text does all steps over w->text; the text may become
 * another one, in pool. OK or E_MEMORY. cut_bound returns the most bytes that the text becomes. */
typedef struct { size_t from, to; } WordAt;
typedef struct { Text text; Origin *origin; WordAt *word; size_t words; int first; } Words;
int cut_text(const Pipeline *p, Words *w, Pool *pool);
size_t cut_bound(const Pipeline *p, Text s);

/* text/pipeline.c. pipeline_model sets the kind of t, which is one of these. */
extern const TokenizerKind pipeline_unigram_kind, pipeline_bytes_kind, pipeline_characters_kind,
                           pipeline_wordpiece_kind;
void pipeline_model(Tokenizer *t, const TokenizerKind *kind);

/* text/pipeline_json.c. Reads the normalizers and the pre_tokenizers of tokenizer.json into
 * t->pipeline. OK or *err. */
int load_steps(Tokenizer *t, const Json *normalizer, Pool *pool, Error *err);
int load_cuts(Tokenizer *t, const Json *pre_tokenizer, Pool *pool, Error *err);
/* Returns the type of a part of tokenizer.json; is_type compares it, is_text the string of a key. */
const char *type_of(const Json *part);
int is_type(const Json *part, const char *type);
int is_text(const Json *object, const char *key, const char *text);
/* Returns step i of a part of the file, which is null, one step, or a Sequence (a list of steps under
 * `key`). NULL: there is no step i. */
const Json *json_step(const Json *part, const char *key, size_t i);
/* Returns E_UNSUPPORTED; *err names the type of `part`, which `what` says is not supported. */
int refuse_step(Error *err, const char *what, const Json *part);

/* text/model_file.c. Writes a SentencePiece model in Llama's layout: <unk> <s> </s>, 256 pieces for
 * bytes, then `piece`. type: 1 unigram, 2 BPE. Sets b->failed without memory. */
enum { LLAMA_RESERVED = 3 + 256 };
void write_model(Buffer *b, const Piece *piece, int pieces, int type);

/* text/write_json.c. Writes tokenizer.json in T5's layout: <pad> </s> <unk>, `piece`, then the sentinels
 * <extra_id_99> ... <extra_id_0>; white space cuts a text into words; </s> stands after a text. OK or
 * E_MEMORY. */
enum { T5_SENTINELS = 100, T5_RESERVED = 3 + T5_SENTINELS };
int write_t5_json(Buffer *b, const Piece *piece, int pieces);

/* text/train_bpe.c learns byte-pair encoding. A word has a text, a count, and the numbers of the
 * symbols that spell it (BARRIER: nothing merges with it). A symbol is a character or a byte (chars
 * 1), or two symbols that were merged. BpeTrainer: by_number 1: of equally frequent pairs the one
 * with the smaller symbol numbers comes first; prefix: the bytes at the start of a symbol's text
 * that are left out if it is merged into the symbol before it ("##" of WordPiece); failed 1: memory
 * is out; learnt: the merges, in their order. The members after these are for train_bpe.c alone. */
enum { WORD_BYTES = 256, BARRIER = -1 };    /* a word has at most WORD_BYTES bytes */
typedef struct { const char *text; size_t bytes; int64_t count; int *symbol, symbols; } TrainerWord;
typedef struct { const char *text; size_t bytes; int chars; } TrainerUnit;
typedef struct { int left, right, id; } TrainerMerge;
typedef struct {
    Pool pool;
    int by_number, failed;
    size_t prefix;
    TrainerWord *word; size_t words, word_room; Table word_table;
    TrainerUnit *unit; int units, unit_room; Table unit_table;
    TrainerMerge *learnt; size_t learnts, learnt_room;
    /* slot: a hash table (open addressing) of indexes of `pair` plus 1; 0: free */
    struct TrainerPair *pair; size_t pairs, pair_room; int *slot; size_t slots;
    struct TrainerRank *heap; size_t waiting, heap_room;
    int *fresh; size_t freshes, fresh_room; /* pairs whose count grew in this merge */
    struct TrainerPlace *free_place; size_t free_places;
} BpeTrainer;
/* Begins a training, whose pool takes its blocks from the source of `like`. */
void trainer_begin(BpeTrainer *tr, const Pool *like, int by_number, size_t prefix);
/* Adds 1 to the count of a word of n bytes (0: does nothing). */
void trainer_word(BpeTrainer *tr, const char *text, size_t n);
/* Returns the number of the symbol with this text (n bytes); adds the symbol if there is none. -1:
 * no memory. */
int trainer_unit(BpeTrainer *tr, const char *text, size_t n, int chars);
/* Reserves room for the symbols of word i, at most one for each byte, and returns it. NULL: no
 * memory. */
int *trainer_symbols(BpeTrainer *tr, size_t i);
/* Merges the most frequent pair, again and again, until there are `units` symbols or no pair is
 * left. */
void trainer_learn(BpeTrainer *tr, int units);

/* text/train_unigram.c. Learns up to V pieces from words and their counts; sorts them, the best
 * first. A word has up to 256 bytes and a NUL after them. Each character in `character` becomes a
 * piece; no piece contains any other character. OK or E_MEMORY. */
typedef struct { const char *text; size_t bytes; int64_t count; } UnigramWord;
typedef struct {
    const UnigramWord *word; size_t words;
    const Piece *character; int characters;
} UnigramText;
int unigram_train(const UnigramText *text, int V, Pool *pool, Piece **piece, int *pieces);

#endif
