/* text/pipeline_json.c - reads the normalizers and the pre_tokenizers of tokenizer.json.
 * Source   Hugging Face's tokenizers: the types of steps, their keys and defaults.
 * Needs    core.c, text/{unicode,pieces,regex,normal}.c.
 * Edges    steps that this project lacks (ByteLevel as a normalizer, UnicodeScripts, FixedLength): refused by
 *          name; patterns that text/regex.c lacks: refused, and shown. */
#include "text.h"

/* ==============================================================================================
 * Parts of the file
 * ============================================================================================== */
const char *type_of(const Json *part) { return json_text(part, "type", "(no type)"); }
int is_type(const Json *part, const char *type) { return !strcmp(type_of(part), type); }
int is_text(const Json *object, const char *key, const char *text) {
    return !strcmp(json_text(object, key, ""), text);
}

const Json *json_step(const Json *part, const char *key, size_t i) {
    const Json *j;
    if (!part || part->type == JSON_NULL) return NULL;
    if (!is_type(part, "Sequence")) return i ? NULL : part;
    j = json_get(part, key);
    for (j = j && j->type == JSON_ARRAY ? j->child : NULL; j && i; i--) j = j->next;
    return j;
}

int refuse_step(Error *err, const char *what, const Json *part) {
    return fail(err, E_UNSUPPORTED, what, type_of(part), 0, 0);
}

/* Copies the string j to *out, in pool. Returns 1, or 0 if j is not a string or memory is out. */
static int copy_text(const Json *j, Text *out, Pool *pool) {
    if (!j || j->type != JSON_STRING || !(out->text = pool_text(pool, j->string, j->length))) return 0;
    out->length = j->length;
    return 1;
}

/* Compiles a pattern whose characters stand for themselves. OK or *err. */
static int literal_pattern(Regex *r, Text s, Pool *pool, Error *err) {
    Buffer b = { NULL, NULL, 0, 0, 0 };
    size_t at, length;
    b.pool = pool;
    for (at = 0; at < s.length; at += length) {
        int32_t code;
        length = (size_t)utf8_decode(s.text + at, s.length - at, &code);
        if (code < 128 && unicode_class(code) == CHAR_OTHER) buffer_text(&b, "\\");
        buffer_bytes(&b, s.text + at, length);
    }
    if (b.failed) return no_memory(err, "pre_tokenizer");
    s.text = (const char *)b.data;
    s.length = b.length;
    return regex_compile(r, s, pool, err);
}

/* Compiles a pattern, {"Regex": ...} or {"String": ...}. OK or *err. */
static int load_pattern(Regex *r, const Json *pattern, Pool *pool, Error *err) {
    const Json *regex = json_get(pattern, "Regex"), *plain = json_get(pattern, "String"),
               *j = regex && regex->type == JSON_STRING ? regex : plain;
    Text s;
    if (!j || j->type != JSON_STRING)
        return fail(err, E_FORMAT, "a pattern without Regex and String", "tokenizer.json", 0, 0);
    s.text = j->string;
    s.length = j->length;
    return j == plain ? literal_pattern(r, s, pool, err) : regex_compile(r, s, pool, err);
}

/* ==============================================================================================
 * Normalizers
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

static int load_precompiled(Tokenizer *t, const Json *map, Pool *pool, Error *err) {
    Text table;
    int code = read_base64(map->string, map->length, &table, pool, err);
    return code ? code : normal_rules(&t->normal, table, "tokenizer.json", err);
}

static void load_bert_rules(BertRules *rules, const Json *s) {
    rules->clean = json_bool(s, "clean_text", 1);
    rules->ideographs = json_bool(s, "handle_chinese_chars", 1);
    rules->lower = json_bool(s, "lowercase", 1);
    rules->strip = json_bool(s, "strip_accents", rules->lower);
}

/* Reads a Replace: by a pattern, or by a text, which does not need a table of states. */
static int load_replace(NormalStep *p, const Json *s, Pool *pool, Error *err) {
    const Json *pattern = json_get(s, "pattern");
    Regex *r;
    p->kind = STEP_REPLACE;
    if (copy_text(json_get(pattern, "String"), &p->pattern, pool) && p->pattern.length) return OK;
    r = pool_take(pool, 1, sizeof *r);
    if (!r) return no_memory(err, "normalizer");
    p->regex = r;
    return load_pattern(r, pattern, pool, err);
}

/* Reads one normalizer. OK or *err. */
static int load_step(Tokenizer *t, const Json *s, NormalStep *p, Pool *pool, Error *err) {
    static const struct { const char *type; int kind; } plain[] = {
        { "NFC", STEP_NFC }, { "NFD", STEP_NFD }, { "NFKC", STEP_NFKC }, { "NFKD", STEP_NFKD },
        { "Nmt", STEP_NMT }, { "StripAccents", STEP_ACCENTS }, { "Lowercase", STEP_LOWER },
        { "BertNormalizer", STEP_BERT }, { "Strip", STEP_STRIP }
    };
    const Json *map = json_get(s, "precompiled_charsmap");
    size_t i;
    for (i = 0; i < sizeof plain / sizeof *plain; i++)
        if (is_type(s, plain[i].type)) {
            p->kind = plain[i].kind;
            p->left = json_bool(s, "strip_left", 1);
            p->right = json_bool(s, "strip_right", 1);
            if (p->kind == STEP_BERT) load_bert_rules(&p->rules, s);
            return OK;
        }
    p->kind = STEP_PREPEND;
    if (is_type(s, "Prepend") && copy_text(json_get(s, "prepend"), &p->content, pool)) return OK;
    if (is_type(s, "Replace") && copy_text(json_get(s, "content"), &p->content, pool))
        return load_replace(p, s, pool, err);
    p->kind = STEP_RULES;
    if (is_type(s, "Precompiled") && map && map->type == JSON_STRING && !t->normal.trie)
        return load_precompiled(t, map, pool, err);
    return refuse_step(err, "this normalizer is not supported", s);
}

/* Reads the steps of a part, also of a Sequence in a Sequence. */
static int add_steps(Tokenizer *t, const Json *part, Pool *pool, Error *err) {
    Pipeline *p = &t->pipeline;
    const Json *s;
    size_t i;
    int code = OK;
    for (i = 0; !code && (s = json_step(part, "normalizers", i)) != NULL; i++) {
        if (p->steps == STEPS)
            return fail(err, E_RANGE, "too many normalizers", "normalizer", STEPS + 1, STEPS);
        code = is_type(s, "Sequence") ? add_steps(t, s, pool, err)
                                      : load_step(t, s, &p->step[p->steps++], pool, err);
    }
    return code;
}

int load_steps(Tokenizer *t, const Json *normalizer, Pool *pool, Error *err) {
    int code;
    t->pipeline.step = pool_take(pool, STEPS, sizeof *t->pipeline.step);
    if (!t->pipeline.step) return no_memory(err, "normalizer");
    code = add_steps(t, normalizer, pool, err);
    normal_plain(&t->normal);
    return code;
}

/* ==============================================================================================
 * Pre-tokenizers
 * ============================================================================================== */
enum { CUTS = 64 };

static int is_space(int32_t code) { return unicode_class(code) == CHAR_SPACE; }
static int is_number(int32_t code) { return unicode_class(code) == CHAR_NUMBER; }

/* Adds a step that cuts at the characters of a class. */
static void add_class(Pipeline *p, int (*in)(int32_t code), int behavior) {
    CutStep *cut = &p->cut[p->cuts++];
    cut->kind = CUT_CLASS;
    cut->in = in;
    cut->behavior = behavior;
}

/* Sets *behavior from a step. OK or *err. */
static int load_behavior(const Json *s, int *behavior, Error *err) {
    static const char *const name[] = {
        "Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext"
    };
    int i;
    for (i = 0; i < 5; i++) if (is_text(s, "behavior", name[i])) { *behavior = i; return OK; }
    if (!json_get(s, "behavior") && is_type(s, "Punctuation")) return OK;
    return fail(err, E_UNSUPPORTED, "a pre_tokenizer with this behavior is not supported",
                json_text(s, "behavior", "(none)"), 0, 0);
}

static int load_split(Pipeline *p, const Json *s, Pool *pool, Error *err) {
    CutStep *cut = &p->cut[p->cuts++];
    int code = load_behavior(s, &cut->behavior, err);
    cut->kind = CUT_PATTERN;
    cut->invert = json_bool(s, "invert", 0);
    return code ? code : load_pattern(&cut->regex, json_get(s, "pattern"), pool, err);
}

/* Adds a step that cuts at a pattern of ours. */
static int add_pattern(Pipeline *p, const char *pattern, int behavior, int invert, Pool *pool, Error *err) {
    CutStep *cut = &p->cut[p->cuts++];
    Text s = { pattern, strlen(pattern) };
    cut->kind = CUT_PATTERN;
    cut->behavior = behavior;
    cut->invert = invert;
    return regex_compile(&cut->regex, s, pool, err);
}

/* Reads a Metaspace: it puts `replacement` for spaces and before words; with `split` each replacement
 * begins a new word. OK or *err. */
static int load_metaspace(Pipeline *p, const Json *s, Pool *pool, Error *err) {
    const Json *replacement = json_get(s, "replacement");
    const char *scheme = json_text(s, "prepend_scheme", json_bool(s, "add_prefix_space", 1) ? "always"
                                                                                           : "never");
    CutStep *cut = &p->cut[p->cuts++];
    Text blank = { BLANK, BLANK_LENGTH };
    cut->kind = CUT_METASPACE;
    cut->text = blank;
    if (replacement && (!copy_text(replacement, &cut->text, pool) || !cut->text.length))
        return fail(err, E_FORMAT, "a Metaspace without a replacement", "tokenizer.json", 0, 0);
    cut->scheme = !strcmp(scheme, "always") ? PREPEND_ALWAYS : !strcmp(scheme, "first") ? PREPEND_FIRST :
                  PREPEND_NEVER;
    if (cut->scheme == PREPEND_NEVER && strcmp(scheme, "never"))
        return fail(err, E_UNSUPPORTED, "a Metaspace with this prepend_scheme is not supported", scheme,
                    0, 0);
    if (!json_bool(s, "split", 1)) return OK;
    p->cut[p->cuts].kind = CUT_PATTERN;
    p->cut[p->cuts].behavior = CUT_WITH_NEXT;
    return literal_pattern(&p->cut[p->cuts++].regex, cut->text, pool, err);
}

/* Reads a ByteLevel, after which nothing may come, and which only BPE of bytes has. */
static int load_bytes(Tokenizer *t, const Json *s, int last, Error *err) {
    static const Text space = { " ", 1 };
    Pipeline *p = &t->pipeline;
    if (!last || t->kind != &pipeline_bytes_kind)
        return fail(err, E_UNSUPPORTED, last ? "this pre_tokenizer is not supported with this model" :
                    "pre_tokenizers after this one are not supported", "ByteLevel", 0, 0);
    t->bytelevel.prefix_space = json_bool(s, "add_prefix_space", 1);
    if (t->bytelevel.prefix_space) {
        p->cut[p->cuts].kind = CUT_PREFIX;
        p->cut[p->cuts].scheme = PREPEND_ALWAYS;
        p->cut[p->cuts++].text = space;
    }
    if (json_bool(s, "use_regex", 1)) p->cut[p->cuts++].kind = CUT_GPT2;
    return OK;
}

/* Reads one pre_tokenizer, which becomes at most two steps. last 1: none comes after it. */
static int load_cut(Tokenizer *t, const Json *s, int last, Pool *pool, Error *err) {
    Pipeline *p = &t->pipeline;
    const Json *delimiter = json_get(s, "delimiter");
    int behavior = CUT_ISOLATED, code = OK;
    if (is_type(s, "Split")) return load_split(p, s, pool, err);
    if (is_type(s, "ByteLevel")) return load_bytes(t, s, last, err);
    if (is_type(s, "Metaspace")) return load_metaspace(p, s, pool, err);
    if (is_type(s, "CharDelimiterSplit") && delimiter && delimiter->type == JSON_STRING) {
        Text mark = { delimiter->string, delimiter->length };
        p->cut[p->cuts].behavior = CUT_REMOVED;
        return literal_pattern(&p->cut[p->cuts++].regex, mark, pool, err);
    }
    if (is_type(s, "Whitespace"))
        return add_pattern(p, "[\\w\\x{200c}\\x{200d}]+|[^\\w\\s\\x{200c}\\x{200d}]+", CUT_REMOVED, 1, pool,
                           err);
    if (is_type(s, "WhitespaceSplit")) add_class(p, is_space, CUT_REMOVED);
    else if (is_type(s, "Digits"))
        add_class(p, is_number, json_bool(s, "individual_digits", 0) ? CUT_ISOLATED : CUT_CONTIGUOUS);
    else if (is_type(s, "Punctuation")) {
        code = load_behavior(s, &behavior, err);
        add_class(p, unicode_is_punctuation, behavior);
    } else if (is_type(s, "BertPreTokenizer")) {
        add_class(p, is_space, CUT_REMOVED);
        add_class(p, unicode_is_punctuation, CUT_ISOLATED);
    } else return refuse_step(err, "this pre_tokenizer is not supported", s);
    return code;
}

/* Reads the steps of a part, also of a Sequence in a Sequence. last 1: no step comes after the part. */
static int add_cuts(Tokenizer *t, const Json *part, int last, Pool *pool, Error *err) {
    static const char steps[] = "pretokenizers";
    Pipeline *p = &t->pipeline;
    const Json *s;
    size_t i;
    int code = OK;
    for (i = 0; !code && (s = json_step(part, steps, i)) != NULL; i++) {
        int end = last && !json_step(part, steps, i + 1);
        if (p->cuts + 2 > CUTS)
            return fail(err, E_RANGE, "too many pre_tokenizers", "pre_tokenizer", CUTS / 2 + 1, CUTS / 2);
        code = is_type(s, "Sequence") ? add_cuts(t, s, end, pool, err) : load_cut(t, s, end, pool, err);
    }
    return code;
}

int load_cuts(Tokenizer *t, const Json *pre_tokenizer, Pool *pool, Error *err) {
    t->pipeline.cut = pool_take(pool, CUTS, sizeof *t->pipeline.cut);
    return t->pipeline.cut ? add_cuts(t, pre_tokenizer, 1, pool, err) : no_memory(err, "pre_tokenizer");
}
