/* text/text.h - what the files of text/ and tokenizer.c share. Only they and tests include it.
 *
 * A tokenizer is one struct, in which each kind has a part of its own, and a const table of the
 * functions of its kind. Each opener sets the table, so that tokenizer.c names no kind: a program
 * that calls one opener links with that kind alone (tests/programs/porter.sh). */
#ifndef TEXT_H
#define TEXT_H

#include "beside.h"

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

/* Returns the class of the character at s (n > 0 bytes left), and its length in *length. */
static inline int class_at(const char *s, size_t n, size_t *length) {
    int32_t code = (unsigned char)*s;
    *length = 1;
    if (code >= 128) *length = (size_t)utf8_decode(s, n, &code);
    return code >= 'a' && code <= 'z' ? CHAR_LETTER : unicode_class(code);
}
/* Returns where the white space before s[at] begins, at s[from] or later. */
size_t space_before(const char *s, size_t from, size_t at);
/* Returns where the white space from s[at] on ends, at s[n] or before. */
size_t space_after(const char *s, size_t at, size_t n);

/* ==============================================================================================
 * text/pieces.c: the vocabulary, and ways to find its pieces
 * ============================================================================================== */
typedef struct { const char *text; size_t length; } Text;
/* Types of pieces, as SentencePiece numbers them. ADDED: an added token that is not special. */
enum { PIECE_NORMAL = 1, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_USER_DEFINED, PIECE_UNUSED, PIECE_BYTE,
       PIECE_ADDED };
typedef struct { const char *text; size_t length; f32 score; int type; } Piece;
#define BLANK "\xe2\x96\x81"                /* U+2581, which stands for a space in pieces */
#define BAD_CHARACTER "\xef\xbf\xbd"        /* U+FFFD, which stands for malformed bytes */
enum { BLANK_LENGTH = 3 };

static inline int starts_with(const char *s, size_t n, const char *start, size_t length) {
    return n >= length && !memcmp(s, start, length);
}

/* A table from strings to numbers. The strings' bytes stay the caller's; an entry without text is
 * free. */
typedef struct { const char *text; uint32_t length, hash; int value; } TableEntry;
typedef struct { TableEntry *entry; size_t slots, used; } Table;
/* Returns the number of a string, or -1. */
int table_find(const Table *t, const char *text, size_t length);
/* Adds a string that is not in the table. OK or E_MEMORY. */
int table_add(Table *t, Pool *pool, const char *text, size_t length, int value);

/* A trie in a double array: the child of node i for byte c is node base + c, if that node's check
 * is i. value and score are those of the piece that ends at the node; value -1: none does. */
typedef struct { uint32_t base, check; int value; f32 score; } TrieNode;
typedef struct { TrieNode *node; size_t nodes; } Trie;
/* Builds the trie of the pieces NORMAL and USER_DEFINED among V (no two alike, none empty). The
 * value of a piece is its place in the list. OK or E_MEMORY. */
int trie_build(Trie *t, const Piece *piece, int V, Pool *pool);
/* Returns the length of the longest piece that s (n bytes) begins with, and its value; 0: none. */
size_t trie_longest(const Trie *t, const char *s, size_t n, int *value);
/* Returns the node's child for byte c, or 0 (the root is no node's child). */
static inline uint32_t trie_child(const Trie *t, uint32_t node, unsigned char c) {
    uint32_t to = t->node[node].base + c;
    return t->node[to].check == node ? to : 0;
}

/* Compares two Pieces by their bytes (for qsort). */
int compare_pieces(const void *a, const void *b);
/* Returns the length of the longest of `count` sorted pieces that s (n bytes) begins with, and its
 * place in *which; 0: none. */
size_t longest_prefix(const Piece *list, int count, const char *s, size_t n, int *which);
int byte_of_piece(const Piece *p);          /* returns the byte of a piece "<0x41>", or -1 */
int json_id(const Json *j, int *id);        /* returns 1 if j is a whole number that can be an id */

/* Each of these three fills *err and returns code. They name a piece (as much of it as fits), a
 * place such as "merges.txt, line %d", or say that memory is out. */
int fail_piece(Error *err, int code, const char *what, Text piece, long long got, long long wanted);
int fail_at(Error *err, int code, const char *what, const char *pattern, int number);
int no_memory(Error *err, const char *where);
/* Frees what the pool gave after the mark `after`, which was set at the end of an allocation of
 * `size` bytes, and of that allocation all but `used` bytes. */
void keep_only(Pool *pool, PoolMark after, size_t size, size_t used);

/* ==============================================================================================
 * The parts of a tokenizer
 * ============================================================================================== */
typedef struct Encoder Encoder;
typedef struct TokenizerKind TokenizerKind;

/* Added tokens that are looked for, sorted by their bytes. The type of a key is its place in the
 * list `added`; `first` has a bit for each byte that a key begins with. */
typedef struct { Piece *key; int keys; unsigned char first[32]; } Cuts;

/* text/normal.c: SentencePiece's normal form. */
typedef struct {
    int add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces, whitespace_suffix;
    int only_first;                         /* 1: no dummy prefix after an added token */
    int unless_blank;                       /* 1: none for a text that begins with a space */
    Piece *user; int users;                 /* user-defined pieces, sorted by their bytes */
    const unsigned char *trie; size_t trie_units;       /* rules: a double array of u32, */
    const char *replacement; size_t replacement_bytes;  /* and what its values point to */
    unsigned char plain[128];               /* 1: the character stays as it is before ASCII */
} Normal;

/* text/pipeline.c: the normal form that tokenizer.json lists for a Unigram model.
 *   VALID    malformed bytes become U+FFFD: always the first step
 *   REPLACE  `content` for each `pattern`; BLANKS: for two or more spaces
 *   STRIP    white space goes at the left, the right end
 *   ACCENTS  marks go; BASE: marks go after NFD; COMPATIBLE: after NFKD
 *   RULES    the rules of Normal
 *   PREPEND  `content` is put before a text that is not empty */
enum { STEP_VALID, STEP_REPLACE, STEP_BLANKS, STEP_STRIP, STEP_LOWER, STEP_ACCENTS, STEP_BASE,
       STEP_COMPATIBLE, STEP_RULES, STEP_PREPEND, STEPS = 64 };
typedef struct { int kind, left, right; Text pattern, content; } NormalStep;
typedef struct { NormalStep *step; int steps, split_words /* 1: at white space first */; } Pipeline;

/* text/sentencepiece.c */
typedef struct {
    int byte_fallback;                      /* 1: unknown characters become the pieces of bytes */
    int split_blanks;                       /* 1: no piece reaches over a U+2581 */
    int bare_first, strip;                  /* decoding: the first U+2581, the first space goes */
    Text unk_surface;                       /* what an unknown piece is decoded to */
    unsigned char touch[256 * 256 / 8];     /* bit 256 a + b: some piece has byte a before byte b */
} SentencePiece;

/* text/bpe.c. merge: by (left, right), id -1: a free slot; NULL: two symbols merge if they spell a
 * piece. unused: 1 if some pieces are UNUSED: they are merged into, then taken apart. */
typedef struct { int left, right, id, rank; } Merge;
typedef struct { Merge *merge; size_t slots; int unused; } Bpe;

/* text/bytelevel.c */
enum { SPLIT_GPT2, SPLIT_LLAMA3, SPLIT_NONE, BYTE_CHARS = 0x144 };
typedef struct {
    int split, digits;                      /* how words are cut; the most digits of a number */
    int prefix_space;                       /* 1: a text that begins without a space gets one */
    int ignore_merges;                      /* 1: a word that is a piece stays whole */
    /* the id of a byte without one, or -1; 1: a run is one */
    int missing, fuse_unk;
    int32_t byte_char[256];                 /* how vocab.json writes each byte */
    int char_byte[BYTE_CHARS];              /* and back; -1: no byte */
} ByteLevel;

/* text/unigram.c. exact (V), unk_exact: scores for unigram_best_exact, set by the caller. margin
 * (V): how much better a piece is than its best segmentation into others; largest: the largest
 * |score|. */
typedef struct {
    Trie trie; const Piece *piece; int unk, users; f32 unk_score, max_score;
    const double *exact; double unk_exact;
    f32 *margin, largest;
} Unigram;

/* text/wordpiece.c. first, rest: the pieces that begin a word, that go on in one. most: characters
 * of a word. keep_spaces: 1 if decoding takes no space away before a full stop. */
typedef struct { Trie first, rest; int unk, most, keep_spaces; BertRules rules; } WordPiece;

struct Tokenizer {
    const TokenizerKind *kind;
    int V; Piece *piece;                    /* (V) */
    /* SentencePiece has two name spaces: NORMAL, USER_DEFINED and UNUSED are ordinary; UNKNOWN,
     * CONTROL and BYTE reserved. extra: added tokens that the vocabulary does not have. */
    Table ordinary, reserved, extra;
    SpecialIds special;
    /* the template: 1 for bos before a text, eos after it */
    int before, after;
    int byte_id[256];                       /* the piece of each byte, or -1 */
    Table words; size_t longest;            /* see encoder.c; bytes of the longest piece */
    int json;                               /* 1: from tokenizer.json */
    const char *file[2]; size_t file_length[2];     /* the files' bytes; they are written as read */
    AddedToken *added; int addeds;          /* in order of their ids */
    Cuts cut[2];                            /* for the text as it is; for its normal form */
    int added_normal;                       /* 1: kind->encode looks for those of cut[1] itself */
    const char *chat_template;              /* of tokenizer_config.json, or NULL */
    Normal normal; Pipeline pipeline; SentencePiece sentencepiece;
    Bpe bpe; ByteLevel bytelevel; Unigram unigram; WordPiece wordpiece;
};

/* Ids to decode, all of them from 0 to V-1. all: 1 if special tokens are written too. */
typedef struct { const int *id; int count, all; } Ids;

/* The functions of a kind. Those that can fail return OK or E_MEMORY. */
struct TokenizerKind {
    int family;                             /* TOKENIZER_SENTENCEPIECE, _BYTELEVEL or _WORDPIECE */
    /* Adds to e->bound and e->widest what encoding s, a text without added tokens, needs. */
    int (*measure)(Encoder *e, Text s);
    /* Adds the ids of s. */
    int (*encode)(Encoder *e, Text s);
    /* Adds the ids of the normal text [at, to) (SentencePiece alone). */
    int (*encode_normal)(Encoder *e, size_t at, size_t to);
    /* Writes the text of ids to out and returns its bytes. Three bytes fit in out, and one in
     * `bytes` (scratch), for each byte of their pieces and one more for each piece. */
    size_t (*decode)(const Tokenizer *t, const Ids *ids, char *out, char *bytes);
    /* Returns 1 if piece id, standing alone, is encoded as itself, 0 if not, -1 without memory.
     * *text is the piece's, and becomes the text that it stands for, in pool. NULL: the kind keeps
     * no words. */
    int (*is_word)(Encoder *e, int id, Text *text, Pool *pool);
    /* Replaces an added token's text by its normal form, in pool (with added_normal). */
    int (*normal_form)(const Tokenizer *t, Text *text, Pool *pool);
    /* Returns transformers' name of the kind. */
    const char *(*class_name)(const Tokenizer *t);
    /* Does what tokenizer_config.json says (NULL: it says nothing of this kind). OK or *err. */
    int (*configure)(Tokenizer *t, const Json *config, Error *err);
};

/* Makes a tokenizer without pieces. NULL: no memory. */
Tokenizer *new_tokenizer(const TokenizerKind *kind, Pool *pool);
/* Each of these three returns an id, or -1: of an ordinary piece; of any piece of the vocabulary
 * itself; of these and the added tokens. */
int find_ordinary(const Tokenizer *t, const char *text);
int find_piece(const Tokenizer *t, const char *text, size_t length);
int find_token(const Tokenizer *t, const char *text, size_t length);
/* Loads the pieces of a JSON object of tokens and ids: ids from 0 without holes, except for `more`
 * ids that added tokens may fill later. copy: 1 if the texts have to be copied into pool. OK or
 * *err. */
int load_vocab(Tokenizer *t, const Json *root, size_t more, int copy, Pool *pool, Error *err);

/* ==============================================================================================
 * text/added.c: added tokens, which are cut out of a text before anything else looks at it
 * ============================================================================================== */
/* A text of which text[at..n) is left. found: the next added token (its place in t->added; -1: not
 * known yet), which ends at `stop`. */
typedef struct {
    const Tokenizer *t; const Cuts *cuts;
    const char *text; size_t n, at;
    int found; size_t stop;
} Parts;
/* Begins with the parts of s. cuts NULL: there is one. */
void begin_parts(Parts *p, const Tokenizer *t, const Cuts *cuts, Text s);
/* Finds the next part: an added token (its id in *id), or a text without any (*id -1). Of two
 * tokens the one that begins first wins, then the longer one. Returns 0 at the end. */
int next_part(Parts *p, Text *part, int *id);
/* Reads {"content", "special", "lstrip" ...}. OK or *err. */
int parse_added(AddedToken *a, const Json *j, const Json *id, Error *err);
/* Adds tokens to a tokenizer, or says more about those that it has. OK or *err. */
int add_tokens(Tokenizer *t, const AddedToken *token, size_t count, Pool *pool, Error *err);

/* ==============================================================================================
 * text/bpe.c: merging symbols, the same for all kinds of BPE
 * ============================================================================================== */
enum { SYMBOL_FROZEN = -2 };                /* the id of a symbol that never merges */
/* length 0: merged away */
typedef struct { uint32_t at, length; int previous, next, id; } Symbol;
/* Symbol `left` and its right neighbour together are piece id. */
typedef struct { f32 score; int left, id; uint32_t length; } Candidate;
/* symbol: those of a part; after merging, `next` links them from 0 on. heap[0] is the best
 * candidate: a higher score, then further left. split (V): where an unused piece was last joined;
 * NULL: none are. */
typedef struct {
    const Tokenizer *t;
    const char *text;
    Symbol *symbol; int symbols, room;
    Candidate *heap; int waiting;
    size_t *split;
} Merger;
/* Makes room for so many symbols. OK or E_MEMORY. */
int merger_room(Merger *m, size_t symbols, Pool *pool);
/* Merges m->symbols symbols, best first, until none can merge. */
void merge_symbols(Merger *m);
/* Returns 1 if one symbol is left, of n bytes, that is piece id. */
int merged_whole(const Merger *m, size_t n, int id);
size_t pair_hash(int left, int right);      /* returns a hash of two symbols */
/* Makes room for a list of n merges; then adds merge number `rank`, from two tokens or from "left
 * right". A pair that comes twice counts where it comes last. place, number: for fail_at. OK or
 * *err. */
typedef struct { int rank; const char *place; int number; } MergeLine;
int begin_merges(Tokenizer *t, size_t n, Pool *pool, Error *err);
int add_merge(Tokenizer *t, Text left, Text right, const MergeLine *line, Pool *pool, Error *err);
int add_merge_line(Tokenizer *t, Text s, const MergeLine *line, Pool *pool, Error *err);

/* ==============================================================================================
 * text/unigram.c: pieces with log-probabilities (Kudo 2018)
 * ============================================================================================== */
/* Takes the scores of V pieces and builds their trie. OK or E_MEMORY. */
int unigram_build(Unigram *u, const Piece *piece, int V, int unk, Pool *pool);
/* Returns the bytes of the first character of s (n > 0), malformed or not. */
size_t unigram_character(const char *s, size_t n);
/* Returns the score of a piece: its own, or of a user-defined one length max - 0.1. Adds in double,
 * as SentencePiece does. */
static inline double unigram_score(const Unigram *u, int id, size_t length) {
    if (u->piece[id].type != PIECE_USER_DEFINED) return u->piece[id].score;
    return (double)((f32)length * u->max_score) - 0.1;
}
/* Finds the best segmentation of s (n bytes). best (n+1): best[0].score is given; a piece `id` from
 * byte `from` ends at j, id -1: none does. The pieces, from the last one on, are best[n],
 * best[best[n].from], and so on. without: a piece that does not count (-1: none). */
typedef struct { f32 score; int id; uint32_t from; } Best;
void unigram_best(const Unigram *u, const char *s, size_t n, Best *best, int without);
/* Does the same in double, from a score of 0, by the scores `exact`. */
typedef struct { double score; int id; uint32_t from; } BestExact;
void unigram_best_exact(const Unigram *u, const char *s, size_t n, BestExact *best, int without);
/* Makes room for a part of n bytes. total: the score of all parts before it. OK or E_MEMORY. */
typedef struct { Best *best; BestExact *exact; size_t best_room, exact_room; f32 total; } Paths;
int best_room(Paths *p, size_t n, Pool *pool);
int exact_room(Paths *p, size_t n, Pool *pool);
/* Returns 1 if the text of piece id, n bytes that stand alone, is surely encoded as the piece: n
 * roundings of a path that has the score `total` before it, and as many of the next best path,
 * cannot make up for the piece's margin. */
int unigram_margin(const Unigram *u, int id, size_t n, f32 total);

/* ==============================================================================================
 * text/encoder.c: what all kinds share while a text becomes ids, and ids a text
 * ============================================================================================== */
/* Which bytes [from, to) of the text a byte of its normal form comes from. All bytes that a rule
 * made have the same origin. */
typedef struct { size_t from, to; } Origin;
/* Notes that the bytes out[from..to) come from `used` bytes at text[at]: each from its own byte if
 * they are the same bytes, else all from all. */
typedef struct { const char *text; size_t at, used; } Source;
void put_origin(Origin *origin, const char *out, size_t from, size_t to, Source s);
/* measure() raises bound, the ids at most, and widest, the bytes of scratch that a part needs.
 * plain: 1 if added tokens are not looked for. first: 1 if the text begins at `start`, not after an
 * added token. traced: 1 if spans are wanted; origin then has the origins of the `normal` bytes of
 * the normal form. */
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
/* Notes that id number k covers normal bytes [i, j). Not exact if that cuts through what a rule
 * made. */
void set_span(Encoder *e, int k, size_t i, size_t j, int exact);
/* Adds an id that covers normal bytes [i, j). */
void put_one(Encoder *e, int id, size_t i, size_t j);
/* Returns the id of the piece that the word s, standing alone, is encoded as; -1: not known. */
int known_word(const Tokenizer *t, const char *s, size_t n);
/* Fills t->words. OK or *err. */
int index_words(Tokenizer *t, Pool *pool, Error *err);
/* Appends n bytes at out[at]; returns where they end. */
size_t append_text(char *out, size_t at, const char *text, size_t n);
/* Does the same for bytes that may be malformed. each: 1 if every malformed byte becomes U+FFFD
 * (SentencePiece), 0 if every malformed sequence does. */
size_t append_valid(char *out, size_t at, Text s, int each);

/* ==============================================================================================
 * text/normal.c: SentencePiece's normal form
 * ============================================================================================== */
/* Takes the bytes of a precompiled_charsmap (empty: no rules). OK, or *err, which names `where`. */
int normal_rules(Normal *m, Text table, const char *where, Error *err);
/* Fills m->plain, once rules and user-defined pieces are there. */
void normal_plain(Normal *m);
/* Returns the length of the longest rule that s begins with (shortest: of the shortest), and in
 * *out what the rule makes of it; 0: none. */
size_t rule_prefix(const Normal *m, const char *s, size_t n, int shortest, Text *out);
/* Returns the length of the longest user-defined piece that s begins with, or 0. */
size_t user_prefix(const Normal *m, const char *s, size_t n);
/* Returns 1 if s gets the dummy prefix. first: 1 if s is the start of a text. */
int wants_prefix(const Normal *m, Text s, int first);
/* Writes the normal form of s, with the dummy prefix if `prefix`, and where each byte of it comes
 * from (origin NULL: not wanted). Returns its length; with out NULL an upper bound of that. */
size_t normalise(const Normal *m, Text s, int prefix, char *out, Origin *origin);
/* returns a length that no normal form of s exceeds */
size_t normal_bound(const Normal *m, Text s);

/* ==============================================================================================
 * The kinds
 * ============================================================================================== */
/* text/bytelevel.c */
extern const TokenizerKind bytelevel_kind;
void bytelevel_alphabet(ByteLevel *b);      /* fills byte_char and char_byte */
void bytelevel_ids(Tokenizer *t);           /* fills byte_id, from the vocabulary */
/* Returns the bytes of the first word of s (n > 0); split: one of SPLIT_. */
size_t bytelevel_word(const char *s, size_t n, int split, int digits);

/* text/sentencepiece.c. Pieces merge by their scores (bpe), or by a list of merges (fallback: bytes
 * stand for unknown characters), or the unigram model chooses them. */
extern const TokenizerKind sentencepiece_bpe_kind, sentencepiece_unigram_kind, fallback_kind;
void note_touch(SentencePiece *s, const Piece *p);      /* sets the bits of a piece in s->touch */
/* Decodes as tokenizer.json's usual decoder does (see TokenizerKind). */
size_t decode_joined(const Tokenizer *t, const Ids *ids, char *out, char *bytes);

/* text/pipeline.c */
extern const TokenizerKind pipeline_kind;

/* text/wordpiece.c */
extern const TokenizerKind wordpiece_kind;
/* Finishes a tokenizer that has its pieces: tries, special tokens. unk: the unknown piece. OK or
 * *err. */
int finish_wordpiece(Tokenizer *t, int unk, Pool *pool, Error *err);

/* text/model_file.c. Writes SentencePiece's file of pieces in Llama's layout, after <unk> <s> </s>
 * and 256 bytes. type: 1 unigram, 2 BPE. Sets b->failed without memory. */
enum { LLAMA_RESERVED = 3 + 256 };
void write_model(Buffer *b, const Piece *piece, int pieces, int type);

/* text/train_unigram.c. Learns V pieces at most, the best first, from words (at most 256 bytes,
 * with a NUL after each) and their counts. Each of `character` gets a piece, and no piece has
 * another character. OK or E_MEMORY. */
typedef struct { const char *text; size_t bytes; int64_t count; } UnigramWord;
typedef struct {
    const UnigramWord *word; size_t words;
    const Piece *character; int characters;
} UnigramText;
int unigram_train(const UnigramText *text, int V, Pool *pool, Piece **piece, int *pieces);

#endif
