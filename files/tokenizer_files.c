/* files/tokenizer_files.c - opens and saves tokenizers, with the files in their folder that add tokens and
 * name special tokens.
 * Source   transformers' tokenization_utils_base.py (file names; tokenizer_config.json,
 *          special_tokens_map.json, added_tokens.json).
 * Needs    core, io, tokenizer, files/fields; a pool that keeps the tokenizer. <stdio.h> for snprintf only.
 * Never    looks into a vocabulary: tokenizer.c reads and writes the bytes.
 * Edges    a folder with several kinds of files: tokenizer.json decides, and if it cannot be used, the folder
 *          has no tokenizer, because the older files beside it may stand for other rules. */
#include "files.h"
#include "../text/beside.h"
#include <stdio.h>

/* The files that a tokenizer can have. */
enum { JSON_FILE, MODEL_FILE };
static const char *const tokenizer_file_name[TOKENIZER_FILES] = {
    "tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "merges.txt", "vocab.txt"
};

static int ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* Records the error of parsing if t is NULL: its place is the file's path and the place in it. Returns t. */
static Tokenizer *opened(Tokenizer *t, const Error *inner, const char *path, Error *err) {
    char where[sizeof inner->where];
    snprintf(where, sizeof where, inner->where[0] ? "%.150s: %.100s" : "%.150s%s", path, inner->where);
    if (!t) fail(err, inner->code, inner->what, where, inner->got, inner->wanted);
    return t;
}

/* Opens a tokenizer of one file: tokenizer.json, vocab.txt, or a SentencePiece model. */
static Tokenizer *open_single(const char *path, Pool *pool, Error *err) {
    static const char advice[] = "a model whose tokenizer.json does without this; older tokenizer files "
                                 "beside it are not used, since they may give other ids";
    Error inner;
    Tokenizer *t;
    char *bytes;
    size_t n;
    int json = ends_with(path, ".json");
    memset(&inner, 0, sizeof inner);
    if (file_read_all(path, pool, &bytes, &n, err) != OK || recognise(err, path, bytes, n)) return NULL;
    t = (json ? tokenizer_json : ends_with(path, ".txt") ? tokenizer_wordpiece
                                                         : tokenizer_sentencepiece) (bytes, n, pool, &inner);
    opened(t, &inner, path, err);
    if (!t && json && inner.code == E_UNSUPPORTED && err) advise(err, advice);
    return t;
}

static Tokenizer *open_bytelevel(const char *vocab, const char *merges, Pool *pool, Error *err) {
    Error inner;
    char *v, *m;
    size_t vn, mn;
    memset(&inner, 0, sizeof inner);
    if (file_read_all(vocab, pool, &v, &vn, err) != OK || file_read_all(merges, pool, &m, &mn, err) != OK
        || recognise(err, vocab, v, vn) || recognise(err, merges, m, mn))
        return NULL;
    return opened(tokenizer_bytelevel(v, vn, m, mn, pool, &inner), &inner, vocab, err);
}

/* Returns the path of a file in the folder, in pool; NULL if there is no such file. */
static const char *there(const char *folder, const char *name, Pool *pool) {
    const char *path = path_in(folder, name, "", pool);
    return path && file_exists(path) ? path : NULL;
}

typedef struct { const char *json, *model, *vocab, *merges, *words; } TokenizerFiles;  /* NULL: no file */

static TokenizerFiles tokenizer_files(const char *folder, Pool *pool) {
    TokenizerFiles f;
    f.json = there(folder, "tokenizer.json", pool);
    f.model = there(folder, "tokenizer.model", pool);
    if (!f.model) f.model = there(folder, "spiece.model", pool);
    f.vocab = there(folder, "vocab.json", pool);
    f.merges = there(folder, "merges.txt", pool);
    if (!f.vocab || !f.merges) f.vocab = f.merges = NULL;
    f.words = there(folder, "vocab.txt", pool);
    return f;
}

int tokenizer_exists(const char *folder, Pool *pool) {
    TokenizerFiles f = tokenizer_files(folder, pool);
    return f.json || f.model || f.vocab || f.words;
}

/* Reads the other files in a tokenizer's folder, which add tokens and name special tokens. OK or a code. */
static int open_beside(Tokenizer *t, const char *folder, Pool *pool, Error *err) {
    static const char *const name[] = { "added_tokens.json", "tokenizer_config.json",
        "special_tokens_map.json" };
    const Json *file[3] = { NULL, NULL, NULL };
    const char *path;
    Error inner;
    memset(&inner, 0, sizeof inner);
    for (int i = 0; i < 3; i++) {
        path = there(folder, name[i], pool);
        if (path && json_file(&file[i], path, pool, err) != OK) return E_FORMAT;
    }
    if (tokenizer_beside(t, file[0], file[1], file[2], pool, &inner) == OK) return OK;
    opened(NULL, &inner, folder, err);
    return inner.code;
}

/* Keeps the older files beside tokenizer.json, so that they are written with it. OK or a code. */
static int keep_older(Tokenizer *t, const char *folder, Pool *pool, Error *err) {
    for (int i = 0; i < TOKENIZER_FILES; i++) {
        const char *path = i == JSON_FILE ? NULL : there(folder, tokenizer_file_name[i], pool);
        char *bytes;
        size_t n;
        if (!path) continue;
        if (file_read_all(path, pool, &bytes, &n, err) != OK) return E_FORMAT;
        if (!tokenizer_keep(t, tokenizer_file_name[i], bytes, n, pool))
            return fail(err, E_MEMORY, "not enough memory", path, 0, 0);
    }
    return OK;
}

static Tokenizer *open_folder(const char *folder, Pool *pool, Error *err) {
    TokenizerFiles f = tokenizer_files(folder, pool);
    const char *single = f.json ? f.json : f.model;
    Tokenizer *t = NULL;
    if (!single && !f.vocab) single = f.words;
    if (single) t = open_single(single, pool, err);
    else if (f.vocab) t = open_bytelevel(f.vocab, f.merges, pool, err);
    else
        fail(err, E_MISSING, "no tokenizer.json, no tokenizer.model, no vocab.json with merges.txt, and no "
             "vocab.txt", folder, 0, 0);
    if (t && f.json && keep_older(t, folder, pool, err) != OK) return NULL;
    return t && open_beside(t, folder, pool, err) == OK ? t : NULL;
}

/* Opens the file vocab.json at `path`, with merges.txt beside it. */
static Tokenizer *open_pair(const char *path, Pool *pool, Error *err) {
    size_t n = strlen(path), name = strlen("vocab.json");
    char *merges = pool_take(pool, n + 1, 1);       /* both names are equally long */
    if (!merges) { fail(err, E_MEMORY, "not enough memory", path, 0, 0); return NULL; }
    memcpy(merges, path, n - name);
    memcpy(merges + n - name, "merges.txt", name);
    return open_bytelevel(path, merges, pool, err);
}

/* A file alone has the special tokens that are usual for its kind. */
Tokenizer *tokenizer_open(const char *path, Pool *pool, Error *err) {
    Tokenizer *t;
    if (folder_exists(path)) return open_folder(path, pool, err);
    t = ends_with(path, "vocab.json") ? open_pair(path, pool, err) : open_single(path, pool, err);
    return t && tokenizer_beside(t, NULL, NULL, NULL, pool, err) == OK ? t : NULL;
}

/* Writes a field whose value is the piece of token `id`. Writes nothing if there is no such token. */
static void put_piece(Buffer *b, const char *key, const Tokenizer *t, int id) {
    size_t n = 0;
    const char *piece = id < 0 ? NULL : tokenizer_piece(t, id, &n);
    if (!piece) return;
    put_key(b, key);
    buffer_json_string(b, piece, n);
}

/* Writes the special tokens: bos, eos, pad and unk; for RoBERTa also cls, sep and mask (transformers' class
 * includes the space before it in mask); for BERT, those of RoBERTa except bos and eos. */
static void put_specials(Buffer *b, const Tokenizer *t, int roberta) {
    SpecialIds s = tokenizer_specials(t);
    int bert = tokenizer_kind(t) == TOKENIZER_WORDPIECE;
    if (!bert) put_piece(b, "bos_token", t, s.bos);
    if (roberta) put_piece(b, "cls_token", t, s.bos);
    if (!bert) put_piece(b, "eos_token", t, s.eos);
    if (roberta)
        put_piece(b, "mask_token", t, bert ? tokenizer_find(t, "[MASK]", 6) : tokenizer_find(t, "<mask>", 6));
    put_piece(b, "pad_token", t, s.pad);
    if (roberta) put_piece(b, "sep_token", t, s.eos);
    put_piece(b, "unk_token", t, s.unk);
}

/* Writes "added_tokens_decoder": {"32000": {...}, ...}, if there are added tokens that a name alone does not
 * describe. plain 1: all are looked for in the text itself, none in its normal form. Sets *beyond to how many
 * added tokens are not in the vocabulary. */
static void put_added(Buffer *b, const Tokenizer *t, int plain, int *beyond) {
    AddedToken a;
    int i, written = 0;
    *beyond = 0;
    for (i = 0; tokenizer_added(t, i, &a); i++) {
        if (a.implied) continue;
        *beyond += a.beyond;
        if (!written++) put_key(b, "added_tokens_decoder");
        buffer_text(b, written > 1 ? ",\n    \"" : "{\n    \"");
        buffer_integer(b, a.id);
        buffer_text(b, "\": {\"content\": ");
        buffer_json_string(b, a.text, a.length);
        buffer_text(b, a.lstrip ? ", \"lstrip\": true" : ", \"lstrip\": false");
        buffer_text(b, a.normalized && !plain ? ", \"normalized\": true" : ", \"normalized\": false");
        buffer_text(b, a.rstrip ? ", \"rstrip\": true" : ", \"rstrip\": false");
        buffer_text(b, a.single_word ? ", \"single_word\": true" : ", \"single_word\": false");
        buffer_text(b, a.special ? ", \"special\": true}" : ", \"special\": false}");
    }
    if (written) buffer_text(b, "\n  }");
}

/* Writes added_tokens.json, {"[PAD]": 32000, ...}: the added tokens that are not in the vocabulary. */
static int save_added(const Tokenizer *t, const char *folder, Pool *pool, Error *err) {
    Buffer b = { pool, NULL, 0, 0, 0 };
    AddedToken a;
    int i, first = 1;
    for (i = 0; tokenizer_added(t, i, &a); i++) {
        if (!a.beyond) continue;
        buffer_text(&b, first ? "{\n  " : ",\n  ");
        buffer_json_string(&b, a.text, a.length);
        buffer_text(&b, ": ");
        buffer_integer(&b, a.id);
        first = 0;
    }
    buffer_text(&b, "\n}\n");
    const char *path = path_in(folder, "added_tokens.json", "", pool);
    if (!path || b.failed) return fail(err, E_MEMORY, "not enough memory", folder, 0, 0);
    return file_write_all(path, b.data, b.length, pool, err);
}

/* Returns how many of T5's sentinels, <extra_id_0> ..., the tokenizer has. */
static int sentinels(const Tokenizer *t) {
    AddedToken a;
    int i, n = 0;
    for (i = 0; tokenizer_added(t, i, &a); i++) n += a.special && !strncmp(a.text, "<extra_id_", 10);
    return n;
}

/* Writes the options of SentencePiece's and of byte-level classes. */
static void put_class_options(Buffer *b, const Tokenizer *t, const char *class) {
    int kind = tokenizer_kind(t), prefix = tokenizer_prefix_space(t);
    if (ends_with(class, "Fast")) return;
    if (kind == TOKENIZER_SENTENCEPIECE) {
        if (prefix >= 0) put_bool(b, "add_prefix_space", prefix);
        if (!strcmp(class, "T5Tokenizer")) put_int(b, "extra_ids", sentinels(t));
        put_bool(b, "legacy", tokenizer_legacy(t));
        put_raw(b, "sp_model_kwargs", "{}");
        put_raw(b, "use_default_system_prompt", "false");
    } else if (kind == TOKENIZER_BYTELEVEL) {
        put_bool(b, "add_prefix_space", prefix > 0);
        put_text(b, "errors", "replace");
    }
}

/* Writes tokenizer_config.json and special_tokens_map.json. class: the tokenizer's in transformers.
 * made 1: the folder's tokenizer.json was made from older files. */
static int save_tokenizer_configs(const Tokenizer *t, const char *class, int made, const char *folder,
                                  int max_length, Pool *pool, Error *err) {
    Buffer b = { pool, NULL, 0, 0, 0 }, map = { pool, NULL, 0, 0, 0 };
    const char *chat = tokenizer_chat_template(t);
    int before, after, sentencepiece = tokenizer_kind(t) == TOKENIZER_SENTENCEPIECE, roberta, code, beyond;
    int own = tokenizer_max_length(t);
    tokenizer_template(t, &before, &after);
    roberta = !sentencepiece && before && after;
    buffer_text(&b, "{");
    if (tokenizer_bert(t) && !ends_with(class, "Fast")) {
        const BertRules *rules = tokenizer_bert(t);
        put_bool(&b, "do_lower_case", rules->lower);
        put_raw(&b, "strip_accents", rules->strip == rules->lower ? "null" : rules->strip ? "true" : "false");
        put_bool(&b, "tokenize_chinese_chars", rules->ideographs);
    } else if (sentencepiece || tokenizer_asked_template(t)) {
        put_bool(&b, "add_bos_token", before);
        put_bool(&b, "add_eos_token", after);
    }
    put_class_options(&b, t, class);
    if (tokenizer_asked_split(t)) put_bool(&b, "split_special_tokens", 1);
    put_added(&b, t, made && tokenizer_kind(t) == TOKENIZER_SENTENCEPIECE, &beyond);
    if (chat) put_text(&b, "chat_template", chat);
    put_raw(&b, "clean_up_tokenization_spaces", "false");
    /* These classes give token_type_ids, too, which models without them refuse. */
    if (!tokenizer_types(t) && (ends_with(class, "Fast") || tokenizer_kind(t) == TOKENIZER_WORDPIECE))
        put_raw(&b, "model_input_names", "[\"input_ids\", \"attention_mask\"]");
    put_int(&b, "model_max_length", own && own < max_length ? own : max_length);
    put_text(&b, "tokenizer_class", class);
    put_specials(&b, t, roberta);
    code = put_file(&b, folder, "tokenizer_config.json", err);
    if (code == OK && beyond) code = save_added(t, folder, pool, err);
    if (code != OK) return code;
    buffer_text(&map, "{");
    put_specials(&map, t, roberta);
    return put_file(&map, folder, "special_tokens_map.json", err);
}

/* Writes the bytes of b to a file of the folder. OK or *err. */
static int save_file(Buffer *b, const char *folder, const char *name, Error *err) {
    const char *path = path_in(folder, name, "", b->pool);
    if (b->failed || !path) return fail(err, E_MEMORY, "not enough memory for the tokenizer", folder, 0, 0);
    return file_write_all(path, b->data, b->length, b->pool, err);
}

/* Writes the files that the tokenizer came from, and a tokenizer.json if none of them is one and if it can
 * say what the tokenizer does. */
static int save_tokenizer(const Tokenizer *t, const char *folder, int max_length, Pool *pool, Error *err) {
    const char *class = tokenizer_class(t);
    int code = folder_make(folder, err), found, i, json = 0, made = 0;
    for (i = 0; i < TOKENIZER_FILES && code == OK; i++) {
        Buffer b = { pool, NULL, 0, 0, 0 };
        const char *name = tokenizer_file_name[i];
        found = tokenizer_file(t, name, &b);
        if (i == JSON_FILE && found == E_MISSING) { found = tokenizer_make_json(t, &b); made = found == OK; }
        if (found == E_MISSING || found == E_UNSUPPORTED) continue;
        if (i == JSON_FILE) json = 1;
        if (i == MODEL_FILE && (!strcmp(class, "T5Tokenizer") || !strcmp(class, "AlbertTokenizer")))
            name = "spiece.model";
        code = save_file(&b, folder, name, err);
    }
    /* With the class LlamaTokenizer, transformers 5 takes only pieces and merges from tokenizer.json, and
     * drops a space at the start of a text. */
    if (json && tokenizer_kind(t) == TOKENIZER_SENTENCEPIECE) class = "PreTrainedTokenizerFast";
    return code == OK ? save_tokenizer_configs(t, class, made, folder, max_length, pool, err) : code;
}

int tokenizer_save(const Tokenizer *t, const char *folder, int max_length, Pool *pool, Error *err) {
    PoolMark mark = pool_mark(pool);
    int code = save_tokenizer(t, folder, max_length, pool, err);
    pool_release(pool, mark);
    return code;
}
