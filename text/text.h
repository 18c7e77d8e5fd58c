/* text/text.h - what the files of text/ and tokenizer.c share. Only they and tests include it.
 *
 * A tokenizer is one struct, in which each kind has a part of its own, and a const table of the
 * functions of its kind. Each opener sets the table, so that tokenizer.c names no kind: a program that
 * calls one opener links with that kind alone (tests/programs/porter.sh). */
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
size_t space_before(const char *s, size_t from, size_t at);     /* where white space before s[at] begins */
size_t space_after(const char *s, size_t at, size_t n);         /* where white space from s[at] on ends */

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

/* A table from strings to numbers. The strings' bytes stay the caller's. */
typedef struct { const char *text; uint32_t length, hash; int value; } TableEntry;  /* text NULL: free */
typedef struct { TableEntry *entry; size_t slots, used; } Table;
int table_find(const Table *t, const char *text, size_t length);            /* the number, or -1 */
/* Adds a string that is not in the table. OK or E_MEMORY. */
int table_add(Table *t, Pool *pool, const char *text, size_t length, int value);

/* A trie in a double array: the child of node i for byte c is node base + c, if that node's check is i.
 * value: the piece that ends at the node, -1: none; score: that piece's. */
typedef struct { uint32_t base, check; int value; f32 score; } TrieNode;
typedef struct { TrieNode *node; size_t nodes; } Trie;
/* Builds the trie of the pieces NORMAL and USER_DEFINED among V (no two alike, none empty); a value is
 * the piece's place in the list. OK or E_MEMORY. */
int trie_build(Trie *t, const Piece *piece, int V, Pool *pool);
size_t trie_longest(const Trie *t, const char *s, size_t n, int *value);    /* see longest_prefix */
/* Returns the node's child for byte c, or 0 (the root is no node's child). */
static inline uint32_t trie_child(const Trie *t, uint32_t node, unsigned char c) {
    uint32_t to = t->node[node].base + c;
    return t->node[to].check == node ? to : 0;
}

int compare_pieces(const void *a, const void *b);       /* for qsort: by the bytes of two Pieces' texts */
/* Returns the length of the longest of `count` sorted pieces that s (n bytes) begins with, and in *which
 * its place; 0 if there is none. */
size_t longest_prefix(const Piece *list, int count, const char *s, size_t n, int *which);
int byte_of_piece(const Piece *p);          /* the byte of a piece "<0x41>", or -1 */
int json_id(const Json *j, int *id);        /* 1 if j is a whole number that can be an id */

/* Each of these fills *err and returns code: naming a piece (as much of it as fits), naming a place such
 * as "merges.txt, line %d", and saying that memory is out. */
int fail_piece(Error *err, int code, const char *what, Text piece, long long got, long long wanted);
int fail_at(Error *err, int code, const char *what, const char *pattern, int number);
int no_memory(Error *err, const char *where);
/* Frees what the pool gave after the mark `after`, which stands at the end of an allocation of `size`
 * bytes, and of that allocation all but `used` bytes. */
void keep_only(Pool *pool, PoolMark after, size_t size, size_t used);

/* ==============================================================================================
 * The parts of a tokenizer
 * ============================================================================================== */
typedef struct Encoder Encoder;
typedef struct TokenizerKind TokenizerKind;

/* Added tokens that are looked for, sorted by their bytes (type: place in `added`); first: a bit for each
 * byte that one of them begins with. */
typedef struct { Piece *key; int keys; unsigned char first[32]; } Cuts;

/* text/normal.c: SentencePiece's normal form. */
typedef struct {
    int add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces, whitespace_suffix;
    int only_first;                         /* 1: the dummy prefix is not for a text after an added token, */
    int unless_blank;                       /* 1: nor for one that begins with a space or U+2581 */
    Piece *user; int users;                 /* user-defined pieces, sorted by their bytes */
    const unsigned char *trie; size_t trie_units;       /* rules: a double array of u32, */
    const char *replacement; size_t replacement_bytes;  /* and what its values point to */
    unsigned char plain[128];               /* 1: this character stays as it is before one of ASCII */
} Normal;

/* text/pipeline.c: the normal form that tokenizer.json lists for a Unigram model. */
enum { STEP_VALID,                          /* malformed bytes become U+FFFD: always the first step */
       STEP_REPLACE, STEP_BLANKS,           /* `content` for each `pattern`; for two or more spaces */
       STEP_STRIP,                          /* white space goes at the left, the right end */
       STEP_LOWER,
       STEP_ACCENTS, STEP_BASE, STEP_COMPATIBLE,        /* marks go: at once; after NFD; after NFKD */
       STEP_RULES,                          /* the rules of Normal */
       STEP_PREPEND,                        /* `content` before a text that is not empty */
       STEPS = 64 };
typedef struct { int kind, left, right; Text pattern, content; } NormalStep;
typedef struct { NormalStep *step; int steps, split_words /* 1: at white space first */; } Pipeline;

/* text/sentencepiece.c */
typedef struct {
    int byte_fallback;                      /* 1: unknown characters are the pieces of their bytes */
    Text unk_surface;                       /* what an unknown piece is decoded to */
    int split_blanks;                       /* 1: no piece reaches over a U+2581 (Metaspace's split) */
    int bare_first, strip;                  /* decoding: no space for the first U+2581; minus one space */
    unsigned char touch[256 * 256 / 8];     /* bit 256 a + b: some piece has byte a before byte b */
} SentencePiece;

/* text/bpe.c */
typedef struct { int left, right, id, rank; } Merge;    /* left right -> id; id -1: a free slot */
typedef struct {
    Merge *merge; size_t slots;             /* by (left, right); NULL: two symbols that spell a piece merge */
    int unused;                             /* 1: some pieces are UNUSED: merged into, then taken apart */
} Bpe;

/* text/bytelevel.c */
enum { SPLIT_GPT2, SPLIT_LLAMA3, SPLIT_NONE, BYTE_CHARS = 0x144 };
typedef struct {
    int split, digits;                      /* how a text is cut into words; the most digits of a number */
    int prefix_space;                       /* 1: a text that begins without a space gets one */
    int ignore_merges;                      /* 1: a word that is a piece stays whole */
    int missing, fuse_unk;                  /* the id of a byte without one (-1: none); 1: a run is one id */
    int32_t byte_char[256];                 /* how vocab.json writes each byte */
    int char_byte[BYTE_CHARS];              /* and back; -1: no byte */
} ByteLevel;

/* text/unigram.c */
typedef struct {
    Trie trie; const Piece *piece; int unk, users; f32 unk_score, max_score;
    const double *exact; double unk_exact;  /* (V) scores for unigram_best_exact, set by the caller */
    f32 *margin, largest;                   /* (V) see unigram_margin; the largest |score| */
} Unigram;

/* text/wordpiece.c */
typedef struct { Trie first, rest; int unk, most /* characters of a word */, keep_spaces; BertRules rules; }
    WordPiece;

struct Tokenizer {
    const TokenizerKind *kind;
    int V; Piece *piece;                    /* (V) */
    /* NORMAL, USER_DEFINED, UNUSED; UNKNOWN, CONTROL, BYTE (two name spaces, as in SentencePiece); added
     * tokens that the vocabulary does not have. */
    Table ordinary, reserved, extra;
    SpecialIds special;
    int before, after;                      /* the template: 1 if bos comes before a text, eos after it */
    int byte_id[256];                       /* the piece of each byte, or -1 */
    Table words; size_t longest;            /* see encoder.c; bytes of the longest piece */
    int json;                               /* 1: from tokenizer.json */
    const char *file[2]; size_t file_length[2];     /* the files' bytes, which are written as they were read */
    AddedToken *added; int addeds;          /* in order of their ids */
    Cuts cut[2];                            /* looked for in the text as it is; in its normal form */
    int added_normal;                       /* 1: the kind's encode() itself looks for those of cut[1] */
    const char *chat_template;              /* of tokenizer_config.json; NULL: none */
    Normal normal; Pipeline pipeline; SentencePiece sentencepiece;
    Bpe bpe; ByteLevel bytelevel; Unigram unigram; WordPiece wordpiece;
};

/* The functions of a kind. Those that can fail return OK or E_MEMORY. */
typedef struct { const int *id; int count, all /* 1: special tokens too */; } Ids;
struct TokenizerKind {
    int family;                             /* TOKENIZER_SENTENCEPIECE, _BYTELEVEL or _WORDPIECE */
    /* Adds to e->bound and e->widest what encoding s, a text without added tokens, needs. */
    int (*measure)(Encoder *e, Text s);
    int (*encode)(Encoder *e, Text s);      /* adds the ids of s */
    int (*encode_normal)(Encoder *e, size_t at, size_t to);     /* of SentencePiece: of normal text [at, to) */
    /* Writes the text of ids (0 <= id < V) and returns its bytes. out and bytes (scratch): see decode(). */
    size_t (*decode)(const Tokenizer *t, const Ids *ids, char *out, char *bytes);
    /* Returns 1 if piece id, standing alone, is encoded as itself, 0 if not, -1 without memory. *text is
     * the piece's, and becomes the text that it stands for, in pool. NULL: no words are kept. */
    int (*is_word)(Encoder *e, int id, Text *text, Pool *pool);
    int (*normal_form)(const Tokenizer *t, Text *text, Pool *pool);     /* with added_normal: of a token */
    const char *(*class_name)(const Tokenizer *t);      /* transformers' name */
    int (*configure)(Tokenizer *t, const Json *config, Error *err);     /* by tokenizer_config.json; or NULL */
};

Tokenizer *new_tokenizer(const TokenizerKind *kind, Pool *pool);    /* without pieces; NULL: no memory */
int find_ordinary(const Tokenizer *t, const char *text);    /* the id of a piece in `ordinary`, or -1 */
int find_piece(const Tokenizer *t, const char *text, size_t length);    /* of the vocabulary itself, or -1 */
int find_token(const Tokenizer *t, const char *text, size_t length);    /* added tokens too, or -1 */
/* Loads the pieces of a JSON object of tokens and ids: ids from 0 without holes, except for `more` that
 * added tokens fill later. copy: the texts are copied into pool. OK or *err. */
int load_vocab(Tokenizer *t, const Json *root, size_t more, int copy, Pool *pool, Error *err);

/* ==============================================================================================
 * text/added.c: added tokens, which are cut out of a text before anything else looks at it
 * ============================================================================================== */
typedef struct {
    const Tokenizer *t; const Cuts *cuts;
    const char *text; size_t n, at;         /* text[at..n) is left */
    int found; size_t stop;                 /* the added token that comes next (place in t->added; -1: none
                                             * known), and where it ends */
} Parts;
void begin_parts(Parts *p, const Tokenizer *t, const Cuts *cuts, Text s);       /* cuts NULL: one part */
/* Finds the next part: an added token (its id in *id), or a text without any (*id -1). Of two tokens the
 * one that begins first wins, then the longer one. Returns 0 at the end. */
int next_part(Parts *p, Text *part, int *id);
/* Reads {"content", "special", "lstrip" ...}. OK or *err. */
int parse_added(AddedToken *a, const Json *j, const Json *id, Error *err);
/* Adds tokens to a tokenizer, or says more about those that it has. OK or *err. */
int add_tokens(Tokenizer *t, const AddedToken *token, size_t count, Pool *pool, Error *err);

/* ==============================================================================================
 * text/bpe.c: merging symbols, the same for all kinds of BPE
 * ============================================================================================== */
enum { SYMBOL_FROZEN = -2 };                /* id of a symbol that never merges */
typedef struct { uint32_t at, length; int previous, next, id; } Symbol;     /* length 0: merged away */
typedef struct { f32 score; int left, id; uint32_t length; } Candidate;     /* `left` and its neighbour: id */
typedef struct {
    const Tokenizer *t;
    const char *text;
    Symbol *symbol; int symbols, room;      /* the symbols of a part; afterwards linked by `next` from 0 on */
    Candidate *heap; int waiting;           /* the best is heap[0]: higher score, then further left */
    size_t *split;                          /* (V) where an unused piece was last joined; NULL: there are none */
} Merger;
int merger_room(Merger *m, size_t symbols, Pool *pool);     /* room for so many symbols: OK or E_MEMORY */
void merge_symbols(Merger *m);              /* merges m->symbols symbols, best first, until none can merge */
int merged_whole(const Merger *m, size_t n, int id);        /* 1 if one symbol of n bytes is left, piece id */
size_t pair_hash(int left, int right);
/* The list of merges: room for n; then merge number `rank` of "left right". A pair that comes twice counts
 * where it comes last. place, number: for errors (fail_at). OK or *err. */
int begin_merges(Tokenizer *t, size_t n, Pool *pool, Error *err);
typedef struct { int rank; const char *place; int number; } MergeLine;
int add_merge(Tokenizer *t, Text left, Text right, const MergeLine *line, Pool *pool, Error *err);
int add_merge_line(Tokenizer *t, Text s, const MergeLine *line, Pool *pool, Error *err);

/* ==============================================================================================
 * text/unigram.c: pieces with log-probabilities (Kudo 2018)
 * ============================================================================================== */
/* Takes the scores of V pieces and builds their trie. OK or E_MEMORY. */
int unigram_build(Unigram *u, const Piece *piece, int V, int unk, Pool *pool);
size_t unigram_character(const char *s, size_t n);      /* bytes of the first character (n > 0) */
/* score(piece): its own, or of a user-defined one length max - 0.1. Adds in double, as SentencePiece does. */
static inline double unigram_score(const Unigram *u, int id, size_t length) {
    const Piece *p = &u->piece[id];
    return p->type == PIECE_USER_DEFINED ? (double)((f32)length * u->max_score) - 0.1 : (double)p->score;
}
/* Finds the best segmentation of s (n bytes). best (n+1): best[0].score is given; a piece `id` from byte
 * `from` ends at j, id -1: none does. The pieces, from the last: best[n], best[best[n].from] ...
 * without: a piece that does not count (-1: none). */
typedef struct { f32 score; int id; uint32_t from; } Best;
void unigram_best(const Unigram *u, const char *s, size_t n, Best *best, int without);
/* The same in double, from a score of 0, by the scores `exact`. */
typedef struct { double score; int id; uint32_t from; } BestExact;
void unigram_best_exact(const Unigram *u, const char *s, size_t n, BestExact *best, int without);
/* What both need for a part of a text; grows with it. total: the score of all parts before it. */
typedef struct { Best *best; BestExact *exact; size_t best_room, exact_room; f32 total; } Paths;
int best_room(Paths *p, size_t n, Pool *pool);          /* OK or E_MEMORY */
int exact_room(Paths *p, size_t n, Pool *pool);
/* Returns 1 if piece id of n bytes, whose text stands alone, is better than every other segmentation of
 * it by more than n roundings of a path of the score `total` before it, and as many of the next best path,
 * can make up for. */
int unigram_margin(const Unigram *u, int id, size_t n, f32 total);

/* ==============================================================================================
 * text/normal.c
 * ============================================================================================== */
/* Which bytes [from, to) of the text a byte of its normal form comes from. All bytes that a rule made have
 * the same origin. */
typedef struct { size_t from, to; } Origin;
/* Says that the bytes out[from..to) come from `used` bytes at text[at]. If they are the same bytes, each
 * comes from one. */
typedef struct { const char *text; size_t at, used; } Source;
void put_origin(Origin *origin, const char *out, size_t from, size_t to, Source s);
/* Takes the bytes of a precompiled_charsmap (none: no rules). OK, or *err, which names `where`. */
int normal_rules(Normal *m, Text table, const char *where, Error *err);
void normal_plain(Normal *m);               /* fills m->plain, once rules and user-defined pieces are there */
/* Returns the length of the longest rule that s begins with (shortest: of the shortest), and in *out what
 * the rule makes of it; 0: there is none. */
size_t rule_prefix(const Normal *m, const char *s, size_t n, int shortest, Text *out);
size_t user_prefix(const Normal *m, const char *s, size_t n);   /* of the longest user-defined piece, or 0 */
int wants_prefix(const Normal *m, Text s, int first);   /* 1 if s gets the dummy prefix; first: text's start */
/* Writes the normal form of s, with the dummy prefix if `prefix`, and where each byte of it comes from
 * (origin NULL: not wanted). Returns its length. out NULL: an upper bound of that. */
size_t normalise(const Normal *m, Text s, int prefix, char *out, Origin *origin);
size_t normal_bound(const Normal *m, Text s);   /* no normal form of s is longer */

/* ==============================================================================================
 * text/encoder.c: what all kinds share while a text becomes ids
 * ============================================================================================== */
struct Encoder {
    const Tokenizer *t;
    Pool *pool;
    int plain;                              /* 1: added tokens are not looked for */
    int first;                              /* 1: the text begins here, not after an added token */
    const char *start;                      /* of the text */
    size_t bound, widest;                   /* measured: ids at most; bytes of scratch that a part needs */
    int *ids, count;
    char *scratch;                          /* (widest + 1) the normal form of a part */
    int traced; TokenSpan *span;            /* 1: spans are wanted; where each id comes from, */
    Origin *origin; size_t normal;          /* by the origins of the `normal` bytes of the normal form */
    Merger merger; Paths paths;
};
/* Says that id number k covers normal bytes [i, j). Not exact if that cuts through what a rule made. */
void set_span(Encoder *e, int k, size_t i, size_t j, int exact);
void put_one(Encoder *e, int id, size_t i, size_t j);   /* adds an id that covers normal bytes [i, j) */
/* Returns the id of the piece that the word s, standing alone, is encoded as; -1: not known. */
int known_word(const Tokenizer *t, const char *s, size_t n);
/* Fills t->words. OK or *err. */
int index_words(Tokenizer *t, Pool *pool, Error *err);
/* Appends n bytes at out[at]; returns where they end. */
size_t append_text(char *out, size_t at, const char *text, size_t n);
/* The same for bytes that may be malformed. each: every malformed byte becomes U+FFFD (SentencePiece), else
 * every malformed sequence does. */
size_t append_valid(char *out, size_t at, Text s, int each);

/* ==============================================================================================
 * The kinds
 * ============================================================================================== */
/* text/bytelevel.c */
extern const TokenizerKind bytelevel_kind;
void bytelevel_alphabet(ByteLevel *b);      /* fills byte_char and char_byte */
void bytelevel_ids(Tokenizer *t);           /* fills byte_id, from the vocabulary */
size_t bytelevel_word(const char *s, size_t n, int split, int digits);  /* bytes of the first word (n > 0) */

/* text/sentencepiece.c: pieces merged by their scores; the best segmentation; a list of merges. */
extern const TokenizerKind sentencepiece_bpe_kind, sentencepiece_unigram_kind, fallback_kind;
void note_touch(SentencePiece *s, const Piece *p);      /* sets the bits of a piece in s->touch */
size_t decode_joined(const Tokenizer *t, const Ids *ids, char *out, char *bytes);

/* text/pipeline.c */
extern const TokenizerKind pipeline_kind;

/* text/wordpiece.c */
extern const TokenizerKind wordpiece_kind;
/* Finishes a tokenizer that has its pieces: tries, special tokens. unk: the unknown piece. OK or *err. */
int finish_wordpiece(Tokenizer *t, int unk, Pool *pool, Error *err);

/* text/model_file.c: SentencePiece's file. Writes pieces in Llama's layout, after <unk> <s> </s> and 256
 * bytes. type: 1 unigram, 2 BPE. Sets b->failed without memory. */
enum { LLAMA_RESERVED = 3 + 256 };
void write_model(Buffer *b, const Piece *piece, int pieces, int type);

/* text/train_unigram.c: learns V pieces at most, the best first, from words (at most 256 bytes, with a NUL
 * after each) and their counts. Each of `character` gets a piece, and no piece has another character.
 * pool: also for scratch, some hundred bytes for each byte of the words. OK or E_MEMORY. */
typedef struct { const char *text; size_t bytes; int64_t count; } UnigramWord;
typedef struct { const UnigramWord *word; size_t words; const Piece *character; int characters; }
    UnigramText;
int unigram_train(const UnigramText *text, int V, Pool *pool, Piece **piece, int *pieces);

#endif
