/* text/write_json.c - writes tokenizer.json for a tokenizer that was read from tokenizer.model, from
 *          vocab.json and merges.txt, or from vocab.txt.
 * Source   Hugging Face's tokenizers (the parts of its file), and transformers' convert_slow_tokenizer.py.
 * Needs    core.c, text/{unicode,decimal,pieces,bytelevel,wordpiece,sentencepiece}.c.
 * Memory   takes scratch from the buffer's pool.
 * Edges    SentencePiece models whose normal form or whose kinds of pieces a tokenizer.json cannot have with
 *          the same ids (rules, extra white space that is removed, user-defined pieces), ids that no token
 *          has: refused. */
#include "text.h"

/* ==============================================================================================
 * Parts that all kinds have
 * ============================================================================================== */

/* Writes `before`, then the text of a token as a JSON string. */
static void put_token(Buffer *b, const char *before, const Tokenizer *t, int id) {
    buffer_text(b, before);
    buffer_json_string(b, t->piece[id].text, t->piece[id].length);
}

static void put_flag(Buffer *b, const char *key, int flag) {
    buffer_text(b, key);
    buffer_text(b, flag ? "true" : "false");
}

/* A SentencePiece model's tokens are looked for in the text itself, whatever their `normalized` is. */
static void put_added(Buffer *b, const Tokenizer *t) {
    int i;
    buffer_text(b, "{\n\"version\": \"1.0\",\n\"truncation\": null,\n\"padding\": null,\n"
                   "\"added_tokens\": [");
    for (i = 0; i < t->addeds; i++) {
        const AddedToken *a = &t->added[i];
        buffer_text(b, i ? ",\n  {\"id\": " : "\n  {\"id\": ");
        buffer_integer(b, a->id);
        buffer_text(b, ", \"content\": ");
        buffer_json_string(b, a->text, a->length);
        put_flag(b, ", \"single_word\": ", a->single_word);
        put_flag(b, ", \"lstrip\": ", a->lstrip);
        put_flag(b, ", \"rstrip\": ", a->rstrip);
        put_flag(b, ", \"normalized\": ", a->normalized && t->kind->family != TOKENIZER_SENTENCEPIECE);
        put_flag(b, ", \"special\": ", a->special);
        buffer_text(b, "}");
    }
    buffer_text(b, "\n],\n");
}

/* Writes a step of a template: a special token, or (id -1) the text, which is A or B. second 1: it belongs to
 * the second text. */
static void put_step(Buffer *b, const Tokenizer *t, int id, int second, int *steps) {
    if ((*steps)++) buffer_text(b, ", ");
    if (id < 0) buffer_text(b, second ? "{\"Sequence\": {\"id\": \"B\"" : "{\"Sequence\": {\"id\": \"A\"");
    else put_token(b, "{\"SpecialToken\": {\"id\": ", t, id);
    buffer_text(b, second ? ", \"type_id\": 1}}" : ", \"type_id\": 0}}");
}

/* Writes the template for a text, or for a pair of texts. first: the token before the second text, or -1. */
static void put_template(Buffer *b, const Tokenizer *t, int pair, int first) {
    int text, steps = 0;
    buffer_text(b, pair ? ",\n  \"pair\": [" : "{\"type\": \"TemplateProcessing\",\n  \"single\": [");
    for (text = 0; text <= pair; text++) {
        int before = text ? first : t->before ? t->special.bos : -1;
        if (before >= 0) put_step(b, t, before, text, &steps);
        put_step(b, t, -1, text, &steps);
        if (t->after) put_step(b, t, t->special.eos, text, &steps);
    }
    buffer_text(b, "]");
}

/* Writes {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}} for the tokens of the template. */
static void put_template_tokens(Buffer *b, const Tokenizer *t) {
    int i, written = 0;
    buffer_text(b, ",\n  \"special_tokens\": {");
    for (i = 0; i < 2; i++) {
        int id = i ? t->special.eos : t->special.bos;
        if (!(i ? t->after : t->before) || (written && t->special.bos == t->special.eos)) continue;
        put_token(b, written++ ? ", " : "", t, id);
        put_token(b, ": {\"id\": ", t, id);
        buffer_text(b, ", \"ids\": [");
        buffer_integer(b, id);
        put_token(b, "], \"tokens\": [", t, id);
        buffer_text(b, "]}");
    }
    buffer_text(b, "}}");
}

/* Writes the post_processor: the template of t. BERT's second text has no token before it. */
static void put_processor(Buffer *b, const Tokenizer *t) {
    int bert = t->kind == &wordpiece_kind, bytes = t->kind == &bytelevel_kind;
    buffer_text(b, ",\n\"post_processor\": ");
    if (bytes && t->before && t->after) {
        put_token(b, "{\"type\": \"RobertaProcessing\", \"sep\": [", t, t->special.eos);
        buffer_text(b, ", ");
        buffer_integer(b, t->special.eos);
        put_token(b, "], \"cls\": [", t, t->special.bos);
        buffer_text(b, ", ");
        buffer_integer(b, t->special.bos);
        put_flag(b, "], \"trim_offsets\": true, \"add_prefix_space\": ", t->bytelevel.prefix_space);
        buffer_text(b, "}");
    } else if (t->before || t->after) {
        put_template(b, t, 0, -1);
        put_template(b, t, 1, t->before && !bert ? t->special.bos : -1);
        put_template_tokens(b, t);
    } else
        buffer_text(b, bytes ? "{\"type\": \"ByteLevel\", \"add_prefix_space\": true, "
                               "\"trim_offsets\": false, \"use_regex\": true}" : "null");
}

/* Writes the vocabulary: {"<unk>": 0, ...}. Added tokens that it lacks are left out. */
static void put_vocabulary(Buffer *b, const Tokenizer *t) {
    int id, written = 0;
    buffer_text(b, ",\n  \"vocab\": {");
    for (id = 0; id < t->V; id++) {
        const Piece *p = &t->piece[id];
        if (!p->text || table_find(&t->extra, p->text, p->length) >= 0) continue;
        put_token(b, written++ ? ", " : "", t, id);
        buffer_text(b, ": ");
        buffer_integer(b, id);
    }
    buffer_text(b, "}");
}

/* ==============================================================================================
 * Merges
 * ============================================================================================== */

/* A merge: its order is that of `rank`, then of the longer left part (in characters), then of the ids. */
typedef struct { double rank; int left, right, characters; } Join;

static int compare_joins(const void *a, const void *b) {
    const Join *p = a, *q = b;
    if (p->rank != q->rank) return p->rank < q->rank ? -1 : 1;
    if (p->characters != q->characters) return p->characters > q->characters ? -1 : 1;
    return p->left != q->left ? (p->left > q->left) - (p->left < q->left)
                              : (p->right > q->right) - (p->right < q->right);
}

/* Writes each pair of pieces that spell a piece of a SentencePiece model to join (NULL: only counts them);
 * the merges of a piece with a higher score come first. Returns their number. */
static size_t split_pieces(const Tokenizer *t, Join *join) {
    size_t n = 0, i;
    int id;
    for (id = 0; id < t->V; id++) {
        const Piece *p = &t->piece[id];
        int characters = 0;
        if (p->type != PIECE_NORMAL || table_find(&t->ordinary, p->text, p->length) != id) continue;
        for (i = 1; i < p->length; i++) {
            int left, right;
            characters += ((unsigned char)p->text[i - 1] & 0xC0) != 0x80;
            if (((unsigned char)p->text[i] & 0xC0) == 0x80) continue;
            left = table_find(&t->ordinary, p->text, i);
            right = left < 0 ? -1 : table_find(&t->ordinary, p->text + i, p->length - i);
            if (right < 0) continue;
            if (join) {
                join[n].rank = -(double)p->score;
                join[n].left = left; join[n].right = right; join[n].characters = characters;
            }
            n++;
        }
    }
    return n;
}

/* Writes the merges of a list of merges to join (NULL: only counts them). Returns their number. */
static size_t list_merges(const Bpe *bpe, Join *join) {
    size_t n = 0, i;
    for (i = 0; i < bpe->slots; i++) {
        if (bpe->merge[i].id < 0) continue;
        if (join) {
            join[n].rank = bpe->merge[i].rank;
            join[n].left = bpe->merge[i].left; join[n].right = bpe->merge[i].right;
        }
        n++;
    }
    return n;
}

/* Writes the list of merges, each as "left right". OK or E_MEMORY. */
static int put_merges(Buffer *b, const Tokenizer *t) {
    size_t n = t->bpe.merge ? list_merges(&t->bpe, NULL) : split_pieces(t, NULL), i;
    Join *join = n < INT_MAX ? pool_take(b->pool, n + 1, sizeof *join) : NULL;
    if (!join) return E_MEMORY;
    if (t->bpe.merge) list_merges(&t->bpe, join); else split_pieces(t, join);
    qsort(join, n, sizeof *join, compare_joins);
    buffer_text(b, ",\n  \"merges\": [");
    for (i = 0; i < n; i++) {
        const Piece *left = &t->piece[join[i].left], *right = &t->piece[join[i].right];
        char *pair = pool_take(b->pool, left->length + right->length + 1, 1);
        if (!pair) return E_MEMORY;
        memcpy(pair, left->text, left->length);
        pair[left->length] = ' ';
        memcpy(pair + left->length + 1, right->text, right->length);
        buffer_text(b, i ? ", " : "");
        buffer_json_string(b, pair, left->length + 1 + right->length);
    }
    buffer_text(b, "]");
    return OK;
}

/* ==============================================================================================
 * The kinds
 * ============================================================================================== */

static int put_bytelevel(Buffer *b, const Tokenizer *t) {
    int i, missing = -1;
    for (i = 0; i < 256; i++) if (t->byte_id[i] < 0) missing = t->bytelevel.missing;
    put_flag(b, "\"normalizer\": null,\n\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": ",
             t->bytelevel.prefix_space);
    buffer_text(b, ", \"trim_offsets\": true, \"use_regex\": true}");
    put_processor(b, t);
    buffer_text(b, ",\n\"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, "
                   "\"trim_offsets\": true, \"use_regex\": true},\n"
                   "\"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": ");
    if (missing < 0) buffer_text(b, "null"); else put_token(b, "", t, missing);
    buffer_text(b, ", \"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, "
                   "\"fuse_unk\": false, \"byte_fallback\": false, \"ignore_merges\": false");
    put_vocabulary(b, t);
    return put_merges(b, t);
}

static int put_wordpiece(Buffer *b, const Tokenizer *t) {
    const WordPiece *w = &t->wordpiece;
    put_flag(b, "\"normalizer\": {\"type\": \"BertNormalizer\", \"clean_text\": ", w->rules.clean);
    put_flag(b, ", \"handle_chinese_chars\": ", w->rules.ideographs);
    if (w->rules.strip == w->rules.lower) buffer_text(b, ", \"strip_accents\": null");
    else put_flag(b, ", \"strip_accents\": ", w->rules.strip);
    put_flag(b, ", \"lowercase\": ", w->rules.lower);
    buffer_text(b, "},\n\"pre_tokenizer\": {\"type\": \"BertPreTokenizer\"}");
    put_processor(b, t);
    put_flag(b, ",\n\"decoder\": {\"type\": \"WordPiece\", \"prefix\": \"##\", \"cleanup\": ",
             !w->keep_spaces);
    put_token(b, "},\n\"model\": {\"type\": \"WordPiece\", \"unk_token\": ", t, w->unk);
    buffer_text(b, ", \"continuing_subword_prefix\": \"##\", \"max_input_chars_per_word\": ");
    buffer_integer(b, w->most);
    put_vocabulary(b, t);
    return OK;
}

/* Returns 1 if a tokenizer.json gives the ids of this SentencePiece model. */
static int is_plain(const Tokenizer *t) {
    const Normal *m = &t->normal;
    int id;
    if (m->trie || m->users || m->remove_extra_whitespaces || !m->escape_whitespaces ||
        m->whitespace_suffix || m->only_first || !t->sentencepiece.byte_fallback) return 0;
    for (id = 0; id < t->V; id++) {
        const Piece *p = &t->piece[id];
        if (p->type == PIECE_UNUSED) return 0;
        if (p->type == PIECE_NORMAL && (memchr(p->text, ' ', p->length) ||
            table_find(&t->reserved, p->text, p->length) >= 0)) return 0;
    }
    return 1;
}

/* Writes x, such as -3.5, with the fewest digits that tell it, such as -35e-1. Returns 0 if x is too large or
 * too small for this, else 1. */
static int put_score(Buffer *b, double x) {
    uint64_t d;
    int places;
    if (x == 0) { buffer_text(b, "0.0"); return 1; }
    if (!shortest_decimal(x, &d, &places)) return 0;
    for (; d % 10 == 0; places--) d /= 10;
    buffer_integer(b, x < 0 ? -(long long)d : (long long)d);
    buffer_u8(b, 'e');
    buffer_integer(b, -places);
    return 1;
}

/* Writes the pieces and scores of a unigram model: [["<unk>", 0.0], ...]. OK or E_UNSUPPORTED. */
static int put_scores(Buffer *b, const Tokenizer *t) {
    int id;
    buffer_text(b, ",\n  \"vocab\": [");
    for (id = 0; id < t->V; id++) {
        if (table_find(&t->extra, t->piece[id].text, t->piece[id].length) >= 0) continue;
        put_token(b, id ? ", [" : "[", t, id);
        buffer_text(b, ", ");
        if (!put_score(b, t->piece[id].score)) return E_UNSUPPORTED;
        buffer_text(b, "]");
    }
    buffer_text(b, "]");
    return OK;
}

static int put_sentencepiece(Buffer *b, const Tokenizer *t) {
    int prefix = t->normal.add_dummy_prefix, unigram = t->kind == &sentencepiece_unigram_kind;
    buffer_text(b, "\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [");
    if (prefix) buffer_text(b, "{\"type\": \"Prepend\", \"prepend\": \"" BLANK "\"}, ");
    buffer_text(b, "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"" BLANK "\"}]},"
                   "\n\"pre_tokenizer\": null");
    put_processor(b, t);
    buffer_text(b, ",\n\"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", "
                   "\"pattern\": {\"String\": \"" BLANK "\"}, \"content\": \" \"}, "
                   "{\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}");
    if (prefix) buffer_text(b, ", {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}");
    buffer_text(b, "]},\n\"model\": {\"type\": ");
    if (unigram) {
        buffer_text(b, "\"Unigram\", \"unk_id\": ");
        buffer_integer(b, t->special.unk);
        buffer_text(b, ", \"byte_fallback\": true");
        return put_scores(b, t);
    }
    put_token(b, "\"BPE\", \"dropout\": null, \"unk_token\": ", t, t->special.unk);
    buffer_text(b, ", \"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, \"fuse_unk\": true, "
                   "\"byte_fallback\": true, \"ignore_merges\": false");
    put_vocabulary(b, t);
    return put_merges(b, t);
}

/* ==============================================================================================
 * T5's layout
 * ============================================================================================== */

/* Returns the text of a special token of T5's layout; NULL: the id is that of a piece. */
static const char *t5_special(int id, int pieces, char name[24]) {
    static const char *const first[] = { "<pad>", "</s>", "<unk>" };
    if (id < 3) return first[id];
    if (id < 3 + pieces) return NULL;
    name_format(name, 24, "<extra_id_%d>", pieces + T5_RESERVED - 1 - id);
    return name;
}

/* Writes the added tokens, which are all special tokens. */
static void put_t5_added(Buffer *b, int pieces) {
    char room[24];
    int id;
    buffer_text(b, "\"added_tokens\": [");
    for (id = 0; id < pieces + T5_RESERVED; id++) {
        const char *special = t5_special(id, pieces, room);
        if (!special) continue;
        buffer_text(b, id ? ",\n  {\"id\": " : "\n  {\"id\": ");
        buffer_integer(b, id);
        buffer_text(b, ", \"content\": ");
        buffer_json_string(b, special, strlen(special));
        buffer_text(b, ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, "
                       "\"normalized\": false, \"special\": true}");
    }
    buffer_text(b, "\n],\n");
}

#define T5_METASPACE "{\"type\": \"Metaspace\", \"replacement\": \"" BLANK "\", " \
                     "\"prepend_scheme\": \"always\", \"split\": true}"
#define T5_TEXT(name) "{\"Sequence\": {\"id\": \"" name "\", \"type_id\": 0}}, " \
                      "{\"SpecialToken\": {\"id\": \"</s>\", \"type_id\": 0}}"

int write_t5_json(Buffer *b, const Piece *piece, int pieces) {
    char room[24];
    int id;
    buffer_text(b, "{\n\"version\": \"1.0\",\n\"truncation\": null,\n\"padding\": null,\n");
    put_t5_added(b, pieces);
    buffer_text(b, "\"normalizer\": null,\n\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": ["
                   "{\"type\": \"WhitespaceSplit\"}, " T5_METASPACE "]},\n"
                   "\"post_processor\": {\"type\": \"TemplateProcessing\",\n  \"single\": [" T5_TEXT("A")
                   "],\n  \"pair\": [" T5_TEXT("A") ", " T5_TEXT("B") "],\n  \"special_tokens\": "
                   "{\"</s>\": {\"id\": \"</s>\", \"ids\": [1], \"tokens\": [\"</s>\"]}}},\n"
                   "\"decoder\": " T5_METASPACE ",\n"
                   "\"model\": {\"type\": \"Unigram\", \"unk_id\": 2, \"byte_fallback\": false,\n"
                   "  \"vocab\": [");
    for (id = 0; id < pieces + T5_RESERVED; id++) {
        const char *special = t5_special(id, pieces, room);
        const Piece *p = special ? NULL : &piece[id - 3];
        buffer_text(b, id ? ", [" : "[");
        if (p) buffer_json_string(b, p->text, p->length);
        else buffer_json_string(b, special, strlen(special));
        buffer_text(b, ", ");
        if (!put_score(b, p ? p->score : 0)) b->failed = 1;
        buffer_text(b, "]");
    }
    buffer_text(b, "]\n}\n}\n");
    return b->failed ? E_MEMORY : OK;
}

int tokenizer_make_json(const Tokenizer *t, Buffer *json) {
    int sentencepiece = t->kind == &sentencepiece_bpe_kind || t->kind == &sentencepiece_unigram_kind;
    int code, id;
    for (id = 0; id < t->V; id++) if (!t->piece[id].text) return E_UNSUPPORTED;
    if (t->json || (sentencepiece && !is_plain(t))) return E_UNSUPPORTED;
    put_added(json, t);
    code = sentencepiece ? put_sentencepiece(json, t) :
           t->kind == &wordpiece_kind ? put_wordpiece(json, t) : put_bytelevel(json, t);
    buffer_text(json, "\n}\n}\n");
    return json->failed ? E_MEMORY : code;
}
