/* text/tokenizer_json.c - opens tokenizer.json: BPE of bytes (GPT-2, Llama-3, Qwen2) or of characters
 *          (Llama-2, with byte_fallback), the Unigram models of T5, ALBERT and XLM-R, BERT's WordPiece.
 * Source   Hugging Face's tokenizers: the parts of its file, their defaults, and how the library
 *          serde reads numbers.
 * Needs    core.c and all of text/ except for training and SentencePiece's file.
 * Edges    parts that the file asks for and this project lacks: refused by name. No decoder: the pieces are
 *          written with spaces between them. */
#include "text.h"

/* ==============================================================================================
 * Parts of the file
 * ============================================================================================== */
/* Returns E_UNSUPPORTED; *err says that tokenizer.json asks for `what`. */
static int refuse_file(Error *err, const char *what) {
    return fail(err, E_UNSUPPORTED, what, "tokenizer.json", 0, 0);
}

static const char splitters[] = "pretokenizers";       /* the steps of a Sequence of pre_tokenizers */
static const char no_decoder[] = "this decoder is not supported";

/* Refuses a model without a type that is known here, and a BPE model with an option that this
 * project lacks. OK or *err. */
static int check_model(const Json *model, Error *err) {
    static const char *const affix[] = { "continuing_subword_prefix", "end_of_word_suffix" };
    const Json *type = json_get(model, "type");
    int i;
    if (!model || model->type != JSON_OBJECT) return refuse_file(err, "a tokenizer without a model");
    if (is_type(model, "WordPiece") || is_type(model, "Unigram")) return OK;
    if (type ? !is_type(model, "BPE") : !json_get(model, "merges"))
        return refuse_step(err, "this type of model is not supported", model);
    for (i = 0; i < 2; i++)
        if (*json_text(model, affix[i], ""))
            return fail(err, E_UNSUPPORTED, "a model with this key is not supported", affix[i], 0, 0);
    return OK;
}

static int load_added(Tokenizer *t, const Json *root, Pool *pool, Error *err) {
    const Json *added = json_get(root, "added_tokens");
    const Json *j = added && added->type == JSON_ARRAY ? added->child : NULL;
    size_t count = 0;
    AddedToken *list = pool_take(pool, 1 + (j ? added->count : 0), sizeof *list);
    if (!list) return no_memory(err, "added tokens");
    for (; j; j = j->next) if (parse_added(&list[count++], j, json_get(j, "id"), err)) return E_FORMAT;
    return add_tokens(t, list, count, pool, err);
}

/* Loads the vocabulary of a BPE or WordPiece model. OK or *err. */
static int load_tokens(Tokenizer *t, const Json *root, Pool *pool, Error *err) {
    return load_vocab(t, json_get(json_get(root, "model"), "vocab"), 1, pool, err);
}

/* ==============================================================================================
 * post_processor: the template
 * ============================================================================================== */

/* Reads *id from a pair such as ["</s>", 2] of RobertaProcessing; returns 0 if the pair has no id
 * of a token, else 1. */
static int pair_id(const Tokenizer *t, const Json *pair, int *id) {
    if (!pair || pair->type != JSON_ARRAY || pair->count != 2) return 0;
    return json_id(pair->child->next, id) && *id < t->V;
}

/* Reads "single" of TemplateProcessing: the text, with at most one special token before it and one
 * after it. OK or *err. */
static int load_template(Tokenizer *t, const Json *s, Error *err) {
    const Json *single = json_get(s, "single"), *specials = json_get(s, "special_tokens"), *j, *ids;
    int texts = 0, id;
    for (j = single && single->type == JSON_ARRAY ? single->child : NULL; j; j = j->next) {
        const Json *token = json_get(j, "SpecialToken");
        if (json_get(j, "Sequence")) { texts++; continue; }
        ids = json_get(json_get(specials, json_text(token, "id", "")), "ids");
        if (!ids || ids->type != JSON_ARRAY || ids->count != 1 || !json_id(ids->child, &id) || id >= t->V)
            return fail(err, E_FORMAT, "TemplateProcessing with a special token without one id",
                        json_text(token, "id", "?"), 0, 0);
        if (texts ? t->after : t->before)
            return refuse_file(err, "two special tokens side by side in a TemplateProcessing are not "
                                    "supported");
        if (texts) { t->after = 1; t->special.eos = id; } else { t->before = 1; t->special.bos = id; }
    }
    if (texts == 1) return OK;
    return fail(err, E_FORMAT, "TemplateProcessing without its text", "tokenizer.json", texts, 1);
}

static int load_processor(Tokenizer *t, const Json *root, Error *err) {
    const Json *processor = json_get(root, "post_processor"), *s;
    size_t i;
    int code = OK;
    for (i = 0; !code && (s = json_step(processor, "processors", i)) != NULL; i++) {
        if (is_type(s, "TemplateProcessing")) code = load_template(t, s, err);
        else if (is_type(s, "RobertaProcessing") || is_type(s, "BertProcessing")) {
            t->before = t->after = 1;
            if (!pair_id(t, json_get(s, "cls"), &t->special.bos) ||
                !pair_id(t, json_get(s, "sep"), &t->special.eos))
                code = fail(err, E_FORMAT, "a post_processor without its tokens", type_of(s), 0, 0);
        } else if (!is_type(s, "ByteLevel"))
            code = refuse_step(err, "this post_processor is not supported", s);
    }
    return code;
}

/* Sets *id, if it is still -1, to the first special token among the names. name: a list
 * with NULL at its end. */
static void guess(const Tokenizer *t, int *id, const char *const *name) {
    for (; *id < 0 && *name; name++) {
        *id = find_token(t, *name, strlen(*name));
        if (*id >= 0 && t->piece[*id].type != PIECE_CONTROL) *id = -1;
    }
}

static void guess_specials(Tokenizer *t, const char *const *bos, const char *const *eos) {
    static const char *const pad[] = { "<pad>", "[PAD]", NULL };
    guess(t, &t->special.bos, bos);
    guess(t, &t->special.eos, eos);
    guess(t, &t->special.pad, pad);
}

/* ==============================================================================================
 * Decoders
 * ============================================================================================== */

/* Reads a decoder with the steps Replace (U+2581 by a space), Fuse, perhaps ByteFallback and Strip (of one
 * space). Without ByteFallback, pieces of bytes are like any other pieces. OK or *err. */
static int load_joined(Tokenizer *t, const Json *decoder, Error *err) {
    const Json *s;
    int have = 0;
    size_t i;
    for (i = 0; (s = json_step(decoder, "decoders", i)) != NULL; i++) {
        double start = json_number(s, "start", 0);
        if (is_type(s, "Replace") && is_text(s, "content", " ") &&
            is_text(json_get(s, "pattern"), "String", BLANK)) have |= 1;
        else if (is_type(s, "ByteFallback")) have |= 2;
        else if (is_type(s, "Fuse")) have |= 4;
        else if ((have & 5) == 5 && is_type(s, "Strip") && is_text(s, "content", " ") &&
                 json_number(s, "stop", 0) == 0 && (start == 0 || start == 1))
            t->sentencepiece.strip = start == 1;
        else return refuse_step(err, no_decoder, s);
    }
    if ((have & 5) != 5)
        return fail(err, E_UNSUPPORTED, "a decoder without these steps is not supported", "Replace, Fuse",
                    0, 0);
    for (i = 0; i < 256 && have & 2; i++) if (t->byte_id[i] >= 0) t->piece[t->byte_id[i]].type = PIECE_BYTE;
    return OK;
}

/* Reads any decoder; without one, the pieces are written with spaces between them. OK or *err. */
static int load_decoder(Tokenizer *t, const Json *decoder, Error *err) {
    const Json *s = json_step(decoder, "decoders", 0);
    int alone = !json_step(decoder, "decoders", 1);
    t->pipeline.decoder = DECODE_APART;
    if (!s) return OK;
    t->pipeline.decoder = DECODE_BYTES;
    if (alone && is_type(s, "ByteLevel")) return OK;
    t->pipeline.decoder = DECODE_WORDS;
    t->wordpiece.keep_spaces = !json_bool(s, "cleanup", 1);
    if (alone && is_type(s, "WordPiece") && is_text(s, "prefix", "##")) return OK;
    t->pipeline.decoder = DECODE_JOINED;
    if (!alone || !is_type(s, "Metaspace") || strcmp(json_text(s, "replacement", BLANK), BLANK))
        return load_joined(t, decoder, err);
    t->sentencepiece.bare_first = !is_text(s, "prepend_scheme", "never") &&
                                  json_bool(s, "add_prefix_space", 1);
    return OK;
}

/* ==============================================================================================
 * BPE
 * ============================================================================================== */

/* Returns 1 if the file asks for what bytelevel_kind does: ByteLevel with GPT-2's split, and nothing else. */
static int is_gpt2(const Json *root) {
    const Json *pre = json_get(root, "pre_tokenizer"), *decoder = json_get(root, "decoder"),
               *s = json_step(pre, splitters, 0), *d = json_step(decoder, "decoders", 0);
    return s && is_type(s, "ByteLevel") && json_bool(s, "use_regex", 1) && !json_step(pre, splitters, 1) &&
           d && is_type(d, "ByteLevel") && !json_step(decoder, "decoders", 1) &&
           !json_step(json_get(root, "normalizer"), "normalizers", 0);
}

/* Returns 1 for a Split at spaces, which in Gemma's file has nothing to do: its normalizer replaces them. */
static int is_spaces(const Json *s) {
    return is_type(s, "Split") && is_text(json_get(s, "pattern"), "String", " ") &&
           !json_bool(s, "invert", 0);
}

/* Reads the normalizer and the pre_tokenizer of Llama-2's kind into t->normal. The normalizer has Prepend
 * (U+2581), so that every text between added tokens gets its own prefix, and Replace (a space by U+2581). Or
 * the pre_tokenizer is a Metaspace, which does both, the former perhaps only at the start (first). Returns 0
 * if the file asks for anything else, which fallback_kind does not do. */
static int is_llama(Tokenizer *t, const Json *root) {
    const Json *normalizer = json_get(root, "normalizer"), *pre = json_get(root, "pre_tokenizer"), *s;
    const char *scheme;
    Normal *m = &t->normal;
    size_t i;
    for (i = 0; (s = json_step(normalizer, "normalizers", i)) != NULL; i++)
        if (is_type(s, "Prepend") && is_text(s, "prepend", BLANK) && !i) m->add_dummy_prefix = 1;
        else if (is_type(s, "Replace") && is_text(s, "content", BLANK) &&
                 is_text(json_get(s, "pattern"), "String", " ")) m->escape_whitespaces = 1;
        else return 0;
    t->added_normal = i > 0;
    s = json_step(pre, splitters, 0);
    if (!s || (m->escape_whitespaces && is_spaces(s) && !json_step(pre, splitters, 1))) return 1;
    scheme = json_text(s, "prepend_scheme", json_bool(s, "add_prefix_space", 1) ? "always" : "never");
    if (i || !is_type(s, "Metaspace") || json_step(pre, splitters, 1) ||
        strcmp(json_text(s, "replacement", BLANK), BLANK)) return 0;
    m->only_first = !strcmp(scheme, "first");
    m->add_dummy_prefix = strcmp(scheme, "never") != 0;
    m->escape_whitespaces = m->unless_blank = 1;
    t->sentencepiece.split_blanks = json_bool(s, "split", 1);
    return m->only_first || !m->add_dummy_prefix || !strcmp(scheme, "always");
}

/* Returns 1 if the decoder writes bytes of pieces such as <0x41>. */
static int has_fallback(const Json *decoder) {
    const Json *s;
    size_t i;
    for (i = 0; (s = json_step(decoder, "decoders", i)) != NULL; i++)
        if (is_type(s, "ByteFallback")) return 1;
    return 0;
}

/* Finds the piece of each byte, and fills t->sentencepiece.touch. Returns the number of bytes that have
 * a piece. */
static int index_bytes(Tokenizer *t) {
    int i, found = 0;
    for (i = 0; i < t->V; i++) {
        int byte = t->piece[i].text ? byte_of_piece(&t->piece[i]) : -1;
        if (byte >= 0) t->byte_id[byte] = i;
        note_touch(&t->sentencepiece, &t->piece[i]);
    }
    for (i = 0; i < 256; i++) found += t->byte_id[i] >= 0;
    return found;
}

/* Reads the list of merges: each is "left right" or ["left", "right"]. OK or *err. */
static int load_merges(Tokenizer *t, const Json *merges, Pool *pool, Error *err) {
    MergeLine line = { 0, "merge %d", 0 };
    const Json *j;
    int code;
    if (!merges || merges->type != JSON_ARRAY) return fail(err, E_FORMAT, "not a list", "merges", 0, 0);
    code = begin_merges(t, merges->count, pool, err);
    for (j = merges->child; j && !code; j = j->next, line.number = ++line.rank) {
        const Json *a = j->type == JSON_ARRAY && j->count == 2 ? j->child : NULL, *b = a ? a->next : NULL;
        Text left = { NULL, 0 }, right = left;
        if (j->type == JSON_STRING) { left.text = j->string; left.length = j->length; }
        else if (a && a->type == JSON_STRING && b->type == JSON_STRING) {
            left.text = a->string; left.length = a->length;
            right.text = b->string; right.length = b->length;
        } else return fail_at(err, E_FORMAT, "not two tokens", line.place, line.number);
        code = j->type == JSON_STRING ? add_merge_line(t, left, &line, pool, err)
                                      : add_merge(t, left, right, &line, pool, err);
    }
    return code;
}

/* Sets t->kind, and reads the normalizers and pre_tokenizers: bytelevel_kind and fallback_kind do what many
 * files ask for, in less time; a pipeline does the rest. OK or *err. */
static int bpe_kind(Tokenizer *t, const Json *root, Pool *pool, Error *err) {
    const Json *model = json_get(root, "model"), *pre = json_get(root, "pre_tokenizer"), *s;
    Normal none = t->normal;
    int bytes = 0;
    size_t i;
    for (i = 0; (s = json_step(pre, splitters, i)) != NULL; i++) bytes |= is_type(s, "ByteLevel");
    t->bytelevel.ignore_merges = json_bool(model, "ignore_merges", 0);
    t->bytelevel.fuse_unk = json_bool(model, "fuse_unk", 0);
    t->sentencepiece.byte_fallback = !bytes && json_bool(model, "byte_fallback", 0);
    if (bytes) bytelevel_alphabet(&t->bytelevel); else i = (size_t)index_bytes(t);
    if (bytes && is_gpt2(root)) {
        t->kind = &bytelevel_kind;
        t->bytelevel.prefix_space = json_bool(json_step(pre, splitters, 0), "add_prefix_space", 1);
        return OK;
    }
    t->kind = &fallback_kind;
    if (t->sentencepiece.byte_fallback && i == 256 && !t->bytelevel.ignore_merges &&
        has_fallback(json_get(root, "decoder")) && is_llama(t, root)) return OK;
    t->normal = none;
    pipeline_model(t, bytes ? &pipeline_bytes_kind : &pipeline_characters_kind);
    if (load_steps(t, json_get(root, "normalizer"), pool, err)) return err ? err->code : E_UNSUPPORTED;
    return load_cuts(t, pre, pool, err);
}

static int load_bpe(Tokenizer *t, const Json *root, Pool *pool, Error *err) {
    static const char *const bos[] = { "<s>", "<|begin_of_text|>", "<|endoftext|>", NULL },
                      *const eos[] = { "</s>", "<|end_of_text|>", "<|endoftext|>", NULL };
    const Json *model = json_get(root, "model"), *unk = json_get(model, "unk_token");
    int code = load_tokens(t, root, pool, err), bytes;
    if (!code) code = bpe_kind(t, root, pool, err);
    bytes = t->kind->family == TOKENIZER_BYTELEVEL;
    if (!code && bytes) bytelevel_ids(t);
    if (!code) code = load_merges(t, json_get(model, "merges"), pool, err);
    normal_plain(&t->normal);
    if (code) return code;
    if (unk && unk->type == JSON_STRING)
        t->special.unk = t->bytelevel.missing = table_find(&t->ordinary, unk->string, unk->length);
    code = index_words(t, pool, err);
    if (t->special.unk >= 0) t->piece[t->special.unk].type = PIECE_UNKNOWN;
    if (!code) code = load_added(t, root, pool, err);
    if (!code) code = load_processor(t, root, err);
    if (!code) code = load_decoder(t, json_get(root, "decoder"), err);
    if (!code) guess_specials(t, bos, eos);
    return code;
}

/* ==============================================================================================
 * WordPiece
 * ============================================================================================== */

/* Reads a WordPiece tokenizer. wordpiece_kind does BertNormalizer and BertPreTokenizer, a pipeline any
 * others. OK or *err. */
static int load_wordpiece(Tokenizer *t, const Json *root, Pool *pool, Error *err) {
    const Json *model = json_get(root, "model"), *normalizer = json_get(root, "normalizer"),
               *pre = json_get(root, "pre_tokenizer"), *decoder = json_get(root, "decoder");
    double most = json_number(model, "max_input_chars_per_word", 100);
    int bert = is_type(normalizer, "BertNormalizer") && is_type(pre, "BertPreTokenizer") &&
               is_type(decoder, "WordPiece"), code;
    if (strcmp(json_text(model, "continuing_subword_prefix", "##"), "##"))
        return refuse_file(err, "a WordPiece model with another prefix than ## is not supported");
    if (!(most >= 0 && most <= INT_MAX))
        return fail(err, E_RANGE, "max_input_chars_per_word", "tokenizer.json", 0, 0);
    t->wordpiece.most = (int)most;
    pipeline_model(t, &pipeline_wordpiece_kind);
    code = load_steps(t, normalizer, pool, err);
    if (!code) code = load_cuts(t, pre, pool, err);
    if (!code && bert) {
        t->kind = &wordpiece_kind;
        t->wordpiece.rules = t->pipeline.step[0].rules;
    }
    if (!code) code = load_tokens(t, root, pool, err);
    if (!code)
        code = finish_wordpiece(t, find_ordinary(t, json_text(model, "unk_token", "[UNK]")), pool, err);
    if (!code) code = load_added(t, root, pool, err);
    if (!code) code = load_decoder(t, decoder, err);
    return code ? code : load_processor(t, root, err);
}

/* ==============================================================================================
 * Unigram
 * ============================================================================================== */

/* Copies the string j to *out, in pool. Returns 1, or 0 if j is not a string or memory is out. */
static int copy_text(const Json *j, Text *out, Pool *pool) {
    if (!j || j->type != JSON_STRING || !(out->text = pool_text(pool, j->string, j->length))) return 0;
    out->length = j->length;
    return 1;
}

/* Returns the score x as serde reads it from the file, which is not always the nearest double: serde divides
 * all digits, as a whole number, by a power of ten. The last bit decides between segmentations that are
 * equally good. The file's digits are taken to be the fewest that tell x. */
static double as_read(double x) {
    double power = 1, y;
    uint64_t d;
    int places, i;
    if (!shortest_decimal(x, &d, &places)) return x;
    for (; d % 10 == 0; places--) d /= 10;
    for (i = 0; i < abs(places); i++) power *= 10;
    y = places > 0 ? (double)d / power : (double)d * power;
    return x < 0 ? -y : y;
}

/* Reads item i of the vocabulary, [piece, score]; i becomes the id of the piece. Sets exact[i] to the score
 * in double. OK or *err. */
static int load_score(Tokenizer *t, const Json *j, int i, double *exact, Pool *pool, Error *err) {
    const Json *a = j->type == JSON_ARRAY && j->count == 2 ? j->child : NULL;
    Piece *p = &t->piece[i];
    Text text;
    int byte;
    if (!a || a->type != JSON_STRING || a->next->type != JSON_NUMBER)
        return fail_at(err, E_FORMAT, "not a piece and its score", "vocab, id %d", i);
    text.text = a->string; text.length = a->length;
    if (!a->length) return fail_at(err, E_FORMAT, "a piece is empty", "vocab, id %d", i);
    if (!(fabs(a->next->number) < 1e30))
        return fail_piece(err, E_NUMBER, "the score of a piece is out of range", text, 0, 0);
    if (table_find(&t->ordinary, a->string, a->length) >= 0)
        return fail_piece(err, E_FORMAT, "a piece is defined twice", text, 0, 0);
    if (!copy_text(a, &text, pool) || table_add(&t->ordinary, pool, text.text, text.length, i))
        return no_memory(err, "vocab");
    p->text = text.text; p->length = text.length; p->type = PIECE_NORMAL;
    p->score = (f32)a->next->number;
    exact[i] = as_read(a->next->number);
    byte = t->sentencepiece.byte_fallback ? byte_of_piece(p) : -1;
    if (byte >= 0) t->byte_id[byte] = i;
    return OK;
}

/* Marks the pieces that are special tokens, so that the model makes no use of them: the name of one in a text
 * is an added token, or, if it is to be plain text, not this piece. */
static void mark_specials(Tokenizer *t, const Json *added) {
    const Json *j = added && added->type == JSON_ARRAY ? added->child : NULL;
    for (; j; j = j->next) {
        int id = json_bool(j, "special", 0) ? find_ordinary(t, json_text(j, "content", "")) : -1;
        if (id >= 0) t->piece[id].type = PIECE_CONTROL;
    }
}

static int load_scores(Tokenizer *t, const Json *root, Pool *pool, Error *err) {
    const Json *vocab = json_get(json_get(root, "model"), "vocab");
    double *exact, least = 1e300;
    const Json *j;
    int i = 0;
    if (!vocab || vocab->type != JSON_ARRAY || !vocab->count || vocab->count > INT_MAX / 8)
        return fail(err, E_FORMAT, "not a list of pieces and scores", "vocab", 0, 0);
    t->piece = pool_take(pool, vocab->count, sizeof *t->piece);
    exact = t->piece ? pool_take(pool, vocab->count, sizeof *exact) : NULL;
    if (!exact) return no_memory(err, "vocab");
    t->V = (int)vocab->count;
    for (j = vocab->child; j; j = j->next, i++) {
        int code = load_score(t, j, i, exact, pool, err);
        if (code) return code;
        if (exact[i] < least) least = exact[i];
    }
    mark_specials(t, json_get(root, "added_tokens"));
    if (unigram_build(&t->unigram, t->piece, t->V, t->special.unk, pool)) return no_memory(err, "vocab");
    t->unigram.exact = exact;
    t->unigram.unk_exact = least - 10;
    return OK;
}

static int load_unigram(Tokenizer *t, const Json *root, Pool *pool, Error *err) {
    static const char *const bos[] = { "<s>", "[CLS]", NULL }, *const eos[] = { "</s>", "[SEP]", NULL };
    const Json *model = json_get(root, "model");
    int code;
    pipeline_model(t, &pipeline_unigram_kind);
    t->sentencepiece.byte_fallback = json_bool(model, "byte_fallback", 0);
    if (!json_id(json_get(model, "unk_id"), &t->special.unk))
        return fail(err, E_UNSUPPORTED, "a Unigram model without this key is not supported", "unk_id", 0, 0);
    code = load_steps(t, json_get(root, "normalizer"), pool, err);
    if (!code) code = load_cuts(t, json_get(root, "pre_tokenizer"), pool, err);
    if (!code) code = load_scores(t, root, pool, err);
    if (!code && t->special.unk >= t->V)
        code = fail(err, E_RANGE, "unk_id is beyond the vocabulary", "Unigram", t->special.unk, t->V - 1);
    if (!code) code = index_words(t, pool, err);
    if (!code) code = load_added(t, root, pool, err);
    if (!code) code = load_processor(t, root, err);
    if (!code) code = load_decoder(t, json_get(root, "decoder"), err);
    if (!code) guess_specials(t, bos, eos);
    return code;
}

/* ==============================================================================================
 * The file
 * ============================================================================================== */
Tokenizer *tokenizer_json(const void *bytes, size_t n, Pool *pool, Error *err) {
    Tokenizer *t = new_tokenizer(&fallback_kind, pool);
    const Json *root, *model;
    Pool tree;                              /* the parsed file; freed at the end of this function */
    int code = E_FORMAT;
    const char *text = t ? tokenizer_keep(t, "tokenizer.json", bytes, n, pool) : NULL;
    if (!text) { no_memory(err, "tokenizer.json"); return NULL; }
    t->json = 1;
    memset(&tree, 0, sizeof tree);
    tree.source = pool->source;
    tree.sink = pool->sink;
    root = json_parse(text, n, &tree, err);
    if (root && root->type == JSON_OBJECT) {
        model = json_get(root, "model");
        code = check_model(model, err);
        if (!code && is_type(model, "WordPiece")) code = load_wordpiece(t, root, pool, err);
        else if (!code && is_type(model, "Unigram")) code = load_unigram(t, root, pool, err);
        else if (!code) code = load_bpe(t, root, pool, err);
    } else if (root) fail(err, E_FORMAT, "not a JSON object", "tokenizer.json", 0, 0);
    pool_free(&tree);
    return code ? NULL : t;
}
