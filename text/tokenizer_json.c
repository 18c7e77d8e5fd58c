/* text/tokenizer_json.c - opens tokenizer.json: byte-level BPE, Llama's BPE with byte_fallback (the pieces of
 *          SentencePiece and a list of merges), the Unigram models of T5, ALBERT and XLM-R, BERT's WordPiece.
 * Source   Hugging Face's tokenizers: the parts of its file, their defaults, and how the library
 *          serde reads numbers.
 * Needs    core.c and all of text/ except for training and SentencePiece's file.
 * Edges    parts that the file asks for and this project lacks (other normalizers, splits or decoders,
 *          vocabularies with holes): refused by name. */
#include "text.h"

/* ==============================================================================================
 * Parts of the file
 * ============================================================================================== */
static const char *type_of(const Json *part) { return json_text(part, "type", "(no type)"); }
static int is_type(const Json *part, const char *type) { return !strcmp(type_of(part), type); }
static int is_text(const Json *object, const char *key, const char *text) {
    return !strcmp(json_text(object, key, ""), text);
}

/* Returns step i of a part of the file, which is null, one step, or a Sequence (a list of steps under `key`).
 * NULL: there is no step i. */
static const Json *step(const Json *part, const char *key, size_t i) {
    const Json *j;
    if (!part || part->type == JSON_NULL) return NULL;
    if (!is_type(part, "Sequence")) return i ? NULL : part;
    j = json_get(part, key);
    for (j = j && j->type == JSON_ARRAY ? j->child : NULL; j && i; i--) j = j->next;
    return j;
}

/* Returns E_UNSUPPORTED; *err names the type of `part`, which `what` says is not supported. */
static int refuse_step(Error *err, const char *what, const Json *part) {
    return fail(err, E_UNSUPPORTED, what, type_of(part), 0, 0);
}

/* Returns E_UNSUPPORTED; *err says that tokenizer.json asks for `what`. */
static int refuse_file(Error *err, const char *what) {
    return fail(err, E_UNSUPPORTED, what, "tokenizer.json", 0, 0);
}

static const char splitters[] = "pretokenizers";       /* the steps of a Sequence of pre_tokenizers */
static const char no_normalizer[] = "this normalizer is not supported",
                  no_splitter[] = "this pre_tokenizer is not supported",
                  no_decoder[] = "this decoder is not supported",
                  few_steps[] = "a decoder without these steps is not supported";

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
    if (json_number(model, "dropout", 0) != 0)
        return refuse_file(err, "a model with dropout is not supported");
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
    for (i = 0; !code && (s = step(processor, "processors", i)) != NULL; i++) {
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

/* Reads the decoder of byte-level BPE, which has to be ByteLevel alone. OK or *err. */
static int load_byte_decoder(const Json *decoder, Error *err) {
    const Json *s;
    size_t i;
    for (i = 0; (s = step(decoder, "decoders", i)) != NULL; i++)
        if (!is_type(s, "ByteLevel")) return refuse_step(err, no_decoder, s);
    return i ? OK : fail(err, E_UNSUPPORTED, few_steps, "ByteLevel", 0, 0);
}

/* Reads a decoder with the steps Replace (U+2581 by a space), ByteFallback, Fuse and perhaps Strip (of one
 * space). The decoder of a Unigram model may be Metaspace instead, for which pieces of bytes are like any
 * other pieces. OK or *err. */
static int load_decoder(Tokenizer *t, const Json *decoder, Error *err) {
    SentencePiece *p = &t->sentencepiece;
    const Json *s = step(decoder, "decoders", 0);
    int pipeline = t->kind == &pipeline_kind, have = 0;
    size_t i;
    if (pipeline && s && is_type(s, "Metaspace") && is_text(s, "replacement", BLANK) &&
        !step(decoder, "decoders", 1)) {
        p->bare_first = !is_text(s, "prepend_scheme", "never") && json_bool(s, "add_prefix_space", 1);
        return OK;
    }
    for (i = 0; i < 256 && pipeline; i++) if (t->byte_id[i] >= 0) t->piece[t->byte_id[i]].type = PIECE_BYTE;
    for (i = 0; (s = step(decoder, "decoders", i)) != NULL; i++) {
        double start = json_number(s, "start", 0);
        if (is_type(s, "Replace") && is_text(s, "content", " ") &&
            is_text(json_get(s, "pattern"), "String", BLANK)) have |= 1;
        else if (is_type(s, "ByteFallback")) have |= 2;
        else if (is_type(s, "Fuse")) have |= 4;
        else if (have == 7 && is_type(s, "Strip") && is_text(s, "content", " ") &&
                 json_number(s, "stop", 0) == 0 && (start == 0 || start == 1)) p->strip = start == 1;
        else return refuse_step(err, no_decoder, s);
    }
    if (have == 7) return OK;
    return fail(err, E_UNSUPPORTED, few_steps, "Replace, ByteFallback, Fuse", 0, 0);
}

/* ==============================================================================================
 * BPE: byte-level, or with byte_fallback
 * ============================================================================================== */

/* Reads Llama's two steps, Prepend (U+2581) and Replace (a space by U+2581); every text between added tokens
 * then gets its own prefix. The normalizer of byte-level BPE has to be empty. OK or *err. */
static int load_normalizer(Tokenizer *t, const Json *normalizer, Error *err) {
    const Json *s;
    size_t i;
    for (i = 0; (s = step(normalizer, "normalizers", i)) != NULL; i++) {
        int known = t->kind == &fallback_kind;
        if (known && is_type(s, "Prepend") && is_text(s, "prepend", BLANK))
            t->normal.add_dummy_prefix = t->added_normal = 1;
        else if (known && is_type(s, "Replace") && is_text(s, "content", BLANK) &&
                 is_text(json_get(s, "pattern"), "String", " "))
            t->normal.escape_whitespaces = t->added_normal = 1;
        else return refuse_step(err, no_normalizer, s);
    }
    return OK;
}

/* Reads a Metaspace, which has to be the last step; before it, a Unigram model may have
 * WhitespaceSplit. Metaspace turns spaces into U+2581, and puts a U+2581 before a text that begins with
 * neither a space nor U+2581: always, first (not after an added token), or never. split 1: each U+2581
 * begins a new piece. OK or *err. */
static int load_metaspace(Tokenizer *t, const Json *pre, Error *err) {
    const Json *s = step(pre, splitters, 0);
    Normal *m = &t->normal;
    int *words = &t->pipeline.split_words;
    const char *scheme;
    if (s && t->kind == &pipeline_kind && is_type(s, "WhitespaceSplit")) *words = 1;
    if (*words) s = step(pre, splitters, 1);
    if (!s) return OK;
    if (!is_type(s, "Metaspace") || step(pre, splitters, 1 + (size_t)*words) || t->added_normal ||
        strcmp(json_text(s, "replacement", BLANK), BLANK)) return refuse_step(err, no_splitter, s);
    scheme = json_text(s, "prepend_scheme", json_bool(s, "add_prefix_space", 1) ? "always" : "never");
    m->only_first = !strcmp(scheme, "first");
    if (!m->only_first && strcmp(scheme, "always") && strcmp(scheme, "never"))
        return fail(err, E_UNSUPPORTED, "a Metaspace with this prepend_scheme is not supported", scheme, 0,
                    0);
    if (m->only_first && *words)
        return fail(err, E_UNSUPPORTED, "WhitespaceSplit before a Metaspace with this prepend_scheme is not "
                    "supported", scheme, 0, 0);
    m->add_dummy_prefix = strcmp(scheme, "never") != 0;
    m->escape_whitespaces = m->unless_blank = 1;
    t->sentencepiece.split_blanks = json_bool(s, "split", 1);
    return OK;
}

/* Reads a Split, whose pattern has to be one that is known here; *split: its SPLIT_. OK or *err. */
static int load_split(ByteLevel *b, const Json *s, int *split, Error *err) {
    static const struct { const char *pattern; int split, digits; } known[] = {
        { "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
          SPLIT_GPT2, 0 },
        { "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}"
          "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", SPLIT_LLAMA3, 3 },
        { "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
          "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", SPLIT_LLAMA3, 1 },
    };
    const Json *pattern = json_get(s, "pattern");
    size_t i;
    for (i = 0; i < sizeof known / sizeof *known; i++) {
        if (!is_text(pattern, "Regex", known[i].pattern)) continue;
        *split = known[i].split;
        b->digits = known[i].digits;
    }
    if (*split < 0)
        return fail(err, E_UNSUPPORTED, "a pre_tokenizer Split by this pattern is not supported",
                    json_text(pattern, "Regex", "(no Regex)"), 0, 0);
    if (is_text(s, "behavior", "Isolated")) return OK;
    if (is_text(s, "behavior", "Removed") && json_bool(s, "invert", 0)) return OK;
    return fail(err, E_UNSUPPORTED, "a pre_tokenizer Split with this behavior is not supported",
                json_text(s, "behavior", "(none)"), 0, 0);
}

/* Reads the steps before ByteLevel: Digits, then perhaps a Split. *at: becomes the number of the step after
 * them; *split: the SPLIT_ of the Split, -1 without one. OK or *err. */
static int load_before_bytes(ByteLevel *b, const Json *pre, size_t *at, int *split, Error *err) {
    const Json *s = step(pre, splitters, *at = 0);
    int code;
    *split = -1;
    if (is_type(s, "Digits")) {
        b->digits_apart = json_bool(s, "individual_digits", 0) ? DIGITS_SINGLE : DIGITS_RUNS;
        s = step(pre, splitters, ++*at);
    }
    if (!is_type(s, "Split")) return OK;
    code = load_split(b, s, split, err);
    if (!code && json_bool(step(pre, splitters, ++*at), "add_prefix_space", 1))
        code = refuse_file(err, "add_prefix_space after a Split is not supported");
    return code;
}

/* Reads the pre_tokenizer of byte-level BPE: Digits and Split, if they are there, then ByteLevel. OK
 * or *err. */
static int load_bytelevel(ByteLevel *b, const Json *pre, Error *err) {
    const Json *s;
    size_t at;
    int split, code = load_before_bytes(b, pre, &at, &split, err);
    if (code) return code;
    s = step(pre, splitters, at);
    if (!s || !is_type(s, "ByteLevel")) return refuse_step(err, no_splitter, s);
    if (json_bool(s, "use_regex", 1) && split == SPLIT_LLAMA3)
        return refuse_file(err, "use_regex after a Split is not supported");
    b->prefix_space = json_bool(s, "add_prefix_space", 1);
    b->split = split >= 0 ? split : json_bool(s, "use_regex", 1) ? SPLIT_GPT2 : SPLIT_NONE;
    s = step(pre, splitters, at + 1);
    return s ? refuse_step(err, no_splitter, s) : OK;
}

/* Finds the piece of each byte, and fills t->sentencepiece.touch. OK or *err. */
static int index_fallback(Tokenizer *t, Error *err) {
    int i, byte;
    t->sentencepiece.byte_fallback = 1;
    for (i = 0; i < t->V; i++) {
        Piece *p = &t->piece[i];
        byte = p->text ? byte_of_piece(p) : -1;
        if (byte >= 0) { p->type = PIECE_BYTE; t->byte_id[byte] = i; }
        note_touch(&t->sentencepiece, p);
    }
    for (i = 0; i < 256; i++)
        if (t->byte_id[i] < 0)
            return fail_at(err, E_MISSING, "byte_fallback without a token for each byte", "byte %d", i);
    return OK;
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

/* Sets t->kind to the kind of BPE that the file has, and reads its options. OK or *err. */
static int bpe_kind(Tokenizer *t, const Json *root, Error *err) {
    const Json *model = json_get(root, "model"), *pre = json_get(root, "pre_tokenizer"), *s;
    size_t i;
    t->kind = &fallback_kind;
    for (i = 0; (s = step(pre, splitters, i)) != NULL; i++)
        if (is_type(s, "ByteLevel")) t->kind = &bytelevel_kind;
    if (t->kind == &fallback_kind && !json_bool(model, "byte_fallback", 0)) {
        s = step(pre, splitters, 0);
        return s ? refuse_step(err, no_splitter, s)
                 : refuse_file(err, "BPE that is neither byte-level nor has byte_fallback is not supported");
    }
    t->bytelevel.ignore_merges = json_bool(model, "ignore_merges", 0);
    t->bytelevel.fuse_unk = json_bool(model, "fuse_unk", 0);
    if (t->kind == &fallback_kind && t->bytelevel.ignore_merges)
        return refuse_file(err, "ignore_merges with byte_fallback is not supported");
    return OK;
}

static int load_bpe(Tokenizer *t, const Json *root, Pool *pool, Error *err) {
    static const char *const bos[] = { "<s>", "<|begin_of_text|>", "<|endoftext|>", NULL },
                      *const eos[] = { "</s>", "<|end_of_text|>", "<|endoftext|>", NULL };
    const Json *model = json_get(root, "model"), *pre = json_get(root, "pre_tokenizer"), *unk;
    int code = bpe_kind(t, root, err), bytes = t->kind == &bytelevel_kind;
    if (code) return code;
    if (bytes) bytelevel_alphabet(&t->bytelevel);
    code = load_normalizer(t, json_get(root, "normalizer"), err);
    if (!code) code = bytes ? load_bytelevel(&t->bytelevel, pre, err) : load_metaspace(t, pre, err);
    if (!code) code = load_tokens(t, root, pool, err);
    if (!code && bytes) bytelevel_ids(t);
    if (!code && !bytes) code = index_fallback(t, err);
    if (!code) code = load_merges(t, json_get(model, "merges"), pool, err);
    if (!bytes) normal_plain(&t->normal);
    if (!code) code = index_words(t, pool, err);
    if (code) return code;
    unk = json_get(model, "unk_token");
    if (unk && unk->type == JSON_STRING)
        t->special.unk = t->bytelevel.missing = table_find(&t->ordinary, unk->string, unk->length);
    if (t->special.unk >= 0) t->piece[t->special.unk].type = PIECE_UNKNOWN;
    code = load_added(t, root, pool, err);
    if (!code) code = load_processor(t, root, err);
    if (code) return code;
    code = bytes ? load_byte_decoder(json_get(root, "decoder"), err)
                 : load_decoder(t, json_get(root, "decoder"), err);
    if (!code) guess_specials(t, bos, eos);
    return code;
}

/* ==============================================================================================
 * WordPiece
 * ============================================================================================== */

/* Reads a WordPiece tokenizer: BertNormalizer, BertPreTokenizer, the model and its decoder. OK or *err. */
static int load_bert(Tokenizer *t, const Json *root, Pool *pool, Error *err) {
    const Json *model = json_get(root, "model"), *normalizer = json_get(root, "normalizer"),
               *pre = json_get(root, "pre_tokenizer"), *decoder = json_get(root, "decoder");
    BertRules *rules = &t->wordpiece.rules;
    const char *unk = json_text(model, "unk_token", "[UNK]");
    double most = json_number(model, "max_input_chars_per_word", 100);
    int code;
    t->kind = &wordpiece_kind;
    if (!normalizer || !is_type(normalizer, "BertNormalizer"))
        return refuse_step(err, "a WordPiece model without BertNormalizer is not supported", normalizer);
    if (!pre || !is_type(pre, "BertPreTokenizer"))
        return refuse_step(err, "a WordPiece model without BertPreTokenizer is not supported", pre);
    if (!decoder || !is_type(decoder, "WordPiece") || !is_text(decoder, "prefix", "##"))
        return refuse_step(err, no_decoder, decoder);
    if (strcmp(json_text(model, "continuing_subword_prefix", "##"), "##"))
        return refuse_file(err, "a WordPiece model with another prefix than ## is not supported");
    if (!(most >= 0 && most <= INT_MAX))
        return fail(err, E_RANGE, "max_input_chars_per_word", "tokenizer.json", 0, 0);
    t->wordpiece.most = (int)most;
    rules->clean = json_bool(normalizer, "clean_text", 1);
    rules->ideographs = json_bool(normalizer, "handle_chinese_chars", 1);
    rules->lower = json_bool(normalizer, "lowercase", 1);
    rules->strip = json_bool(normalizer, "strip_accents", rules->lower);
    t->wordpiece.keep_spaces = !json_bool(decoder, "cleanup", 1);
    code = load_tokens(t, root, pool, err);
    if (!code) code = finish_wordpiece(t, find_ordinary(t, unk), pool, err);
    if (!code) code = load_added(t, root, pool, err);
    return code ? code : load_processor(t, root, err);
}

/* ==============================================================================================
 * Unigram
 * ============================================================================================== */

/* Decodes n characters of base64 to *out, in pool. As in Hugging Face's tokenizers, the padding "=" has to
 * be there. OK or *err. */
static int read_base64(const char *s, size_t n, Text *out, Pool *pool, Error *err) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *bytes = pool_take(pool, n / 4 * 3 + 1, 1);
    uint32_t bits = 0;
    size_t i, made = 0, padding = n >= 2 && s[n - 1] == '=' ? 1 + (s[n - 2] == '=') : 0;
    if (!bytes) return no_memory(err, "precompiled_charsmap");
    for (i = 0; i < n - padding && n % 4 == 0; i++) {
        const char *at = s[i] ? strchr(digits, s[i]) : NULL;
        if (!at) break;
        bits = bits << 6 | (uint32_t)(at - digits);
        if (i % 4) bytes[made++] = (char)(unsigned char)(bits >> (6 - 2 * (i % 4)) & 255);
    }
    if (!n || n % 4 || i != n - padding)
        return fail(err, E_FORMAT, "not base64", "precompiled_charsmap", 0, 0);
    out->text = bytes;
    out->length = made;
    return OK;
}

/* Copies the string j to *out, in pool. Returns 1, or 0 if j is not a string or memory is out. */
static int copy_text(const Json *j, Text *out, Pool *pool) {
    if (!j || j->type != JSON_STRING || !(out->text = pool_text(pool, j->string, j->length))) return 0;
    out->length = j->length;
    return 1;
}

static const char stray[] = "this normalizer is not supported without StripAccents after it";

/* Reads one normalizer. before: the NFD or NFKD just before it, after which only StripAccents may come; NULL:
 * there is none. OK or *err. */
static int load_step(Tokenizer *t, const Json *s, NormalStep *p, const Json *before, Pool *pool, Error *err) {
    const Json *pattern = json_get(s, "pattern"), *map = json_get(s, "precompiled_charsmap");
    Text table;
    memset(p, 0, sizeof *p);
    if (is_type(s, "StripAccents"))
        p->kind = !before ? STEP_ACCENTS : is_type(before, "NFD") ? STEP_BASE : STEP_COMPATIBLE;
    else if (before) return refuse_step(err, stray, before);
    else if (is_type(s, "Lowercase")) p->kind = STEP_LOWER;
    else if (is_type(s, "Strip")) {
        p->kind = STEP_STRIP;
        p->left = json_bool(s, "strip_left", 1);
        p->right = json_bool(s, "strip_right", 1);
    } else if (is_type(s, "Prepend") && copy_text(json_get(s, "prepend"), &p->content, pool))
        p->kind = STEP_PREPEND;
    else if (is_type(s, "Replace") && copy_text(json_get(s, "content"), &p->content, pool)) {
        p->kind = is_text(pattern, "Regex", " {2,}") ? STEP_BLANKS : STEP_REPLACE;
        if (p->kind == STEP_REPLACE &&
            (!copy_text(json_get(pattern, "String"), &p->pattern, pool) || !p->pattern.length))
            return fail(err, E_UNSUPPORTED, "a normalizer Replace of this pattern is not supported",
                        json_text(pattern, "Regex", "(no text)"), 0, 0);
    } else if (is_type(s, "Precompiled") && map && map->type == JSON_STRING && !t->normal.trie) {
        int code = read_base64(map->string, map->length, &table, pool, err);
        p->kind = STEP_RULES;
        return code ? code : normal_rules(&t->normal, table, "tokenizer.json", err);
    } else return refuse_step(err, no_normalizer, s);
    return OK;
}

static int load_steps(Tokenizer *t, const Json *normalizer, Pool *pool, Error *err) {
    Pipeline *p = &t->pipeline;
    const Json *s, *before = NULL;
    size_t i;
    p->step = pool_take(pool, STEPS, sizeof *p->step);
    if (!p->step) return no_memory(err, "normalizer");
    for (i = 0; (s = step(normalizer, "normalizers", i)) != NULL; i++) {
        int code;
        if (!before && (is_type(s, "NFD") || is_type(s, "NFKD"))) { before = s; continue; }
        if (p->steps == STEPS)
            return fail(err, E_RANGE, "too many normalizers", "normalizer", (long long)i + 1, STEPS);
        code = load_step(t, s, &p->step[p->steps++], before, pool, err);
        if (code) return code;
        before = NULL;
    }
    return before ? refuse_step(err, stray, before) : OK;
}

/* Computes the 128 bits of a * b: *high has the upper 64 bits, *low the lower ones. */
static void multiply(uint64_t a, uint64_t b, uint64_t *high, uint64_t *low) {
    uint64_t middle;
    *low = (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu);
    middle = (a >> 32) * (b & 0xFFFFFFFFu) + (*low >> 32);
    *high = (a >> 32) * (b >> 32) + (middle >> 32);
    middle = (middle & 0xFFFFFFFFu) + (a & 0xFFFFFFFFu) * (b >> 32);
    *high += middle >> 32;
    *low = (*low & 0xFFFFFFFFu) | middle << 32;
}

/* Returns d / 10^places as serde computes it: drops the zeros at the end of d, then divides or multiplies
 * once by a power of ten. */
static double scaled(uint64_t d, int places) {
    double power = 1;
    int i;
    for (; d % 10 == 0; places--) d /= 10;
    for (i = 0; i < abs(places); i++) power *= 10;
    return places > 0 ? (double)d / power : (double)d * power;
}

/* Returns the score x as serde reads it from the file, which is not always the nearest double: serde divides
 * all digits, as a whole number d, by a power of ten. The last bit decides between segmentations that are
 * equally good. The file's digits are taken to be the fewest that tell x = m 2^e from its neighbours:
 * d = x 10^p, rounded, in integers (m 5^p has up to 128 bits). d tells x if its rounding error is less than
 * half a unit of m, which is 5^p / 2. */
static double as_read(double x) {
    double y = fabs(x), power;
    int e, n, whole = 1, p, shift, i;
    uint64_t m = (uint64_t)ldexp(frexp(y, &e), 53), five, low, high, d, rest, half;
    /* whole: the digits before the point. 0 or less: there are -whole zeros after the point. */
    for (power = 1; y >= 10 * power && whole < 16; power *= 10) whole++;
    for (power = 1; y < power && whole > -9; power /= 10) whole--;
    e -= 53;
    for (n = 15; n <= 17; n++) {
        p = n - whole;
        shift = -(e + p);
        if (m == 0 || p < 0 || p > 27 || shift < 1 || shift > 63) continue;
        for (five = 1, i = 0; i < p; i++) five *= 5;
        multiply(m, five, &high, &low);
        half = (uint64_t)1 << (shift - 1);
        d = (high << (64 - shift)) | low >> shift;
        rest = low & (2 * half - 1);
        if (rest > half || (rest == half && d % 2)) { d++; rest = 2 * half - rest; }
        if (n < 17 && rest >= five - five / 2) continue;
        y = scaled(d, p);
        return x < 0 ? -y : y;
    }
    return x;
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

static int load_scores(Tokenizer *t, const Json *vocab, Pool *pool, Error *err) {
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
    if (unigram_build(&t->unigram, t->piece, t->V, t->special.unk, pool)) return no_memory(err, "vocab");
    t->unigram.exact = exact;
    t->unigram.unk_exact = least - 10;
    return OK;
}

/* Reads a Unigram tokenizer: the model, its normalizers, perhaps WhitespaceSplit and Metaspace, its
 * decoder. OK or *err. */
static int load_unigram(Tokenizer *t, const Json *root, Pool *pool, Error *err) {
    static const char *const bos[] = { "<s>", "[CLS]", NULL }, *const eos[] = { "</s>", "[SEP]", NULL };
    const Json *model = json_get(root, "model");
    int code;
    t->kind = &pipeline_kind;
    t->sentencepiece.byte_fallback = json_bool(model, "byte_fallback", 0);
    if (!json_id(json_get(model, "unk_id"), &t->special.unk))
        return fail(err, E_UNSUPPORTED, "a Unigram model without this key is not supported", "unk_id", 0, 0);
    code = load_steps(t, json_get(root, "normalizer"), pool, err);
    normal_plain(&t->normal);
    if (!code) code = load_metaspace(t, json_get(root, "pre_tokenizer"), err);
    t->added_normal = 1;
    if (!code) code = load_scores(t, json_get(model, "vocab"), pool, err);
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
    if (t) t->file[0] = pool_text(pool, bytes, n);
    if (!t || !t->file[0]) { no_memory(err, "tokenizer.json"); return NULL; }
    t->file_length[0] = n;
    t->json = 1;
    memset(&tree, 0, sizeof tree);
    tree.source = pool->source;
    tree.sink = pool->sink;
    root = json_parse(t->file[0], n, &tree, err);
    if (root && root->type == JSON_OBJECT) {
        model = json_get(root, "model");
        code = check_model(model, err);
        if (!code && is_type(model, "WordPiece")) code = load_bert(t, root, pool, err);
        else if (!code && is_type(model, "Unigram")) code = load_unigram(t, root, pool, err);
        else if (!code) code = load_bpe(t, root, pool, err);
    } else if (root) fail(err, E_FORMAT, "not a JSON object", "tokenizer.json", 0, 0);
    pool_free(&tree);
    return code ? NULL : t;
}
