/* text/beside.c - applies the JSON files that come with a tokenizer: added_tokens.json, tokenizer_config.json
 *          and special_tokens_map.json. They add tokens, name the special ones, and set options.
 * Source   transformers 5: tokenization_utils_tokenizers.py, and the classes of GPT-2, RoBERTa, BERT, Llama.
 * Needs    core.c, text/pieces.c, text/added.c.
 * Never    runs a chat template.
 * Edges    T5's sentinels, which its tokenizer.model lacks and its class adds, the last one first;
 *          a token that several files describe (tokenizer_config.json says most about it, so its tokens are
 *          added last), a named token that the vocabulary lacks (it gets a new id), a folder without these
 *          files (then the special tokens are those that the tokenizer's class has). */
#include "text.h"

/* ==============================================================================================
 * Names of special tokens
 * ============================================================================================== */

/* Returns the name of a special token: j itself if it is a string, "content" of j if it is an object; NULL
 * if there is no name. */
static const Json *token_name(const Json *j) {
    if (j && j->type == JSON_OBJECT) j = json_get(j, "content");
    return j && j->type == JSON_STRING ? j : NULL;
}

static int same_name(const Json *name, const Json *token) {
    return name && name->length == token->key_length && !memcmp(name->string, token->key, name->length);
}

/* The keys that name special tokens. */
enum { ROLES = 7 };
static const char *const role[ROLES] = {
    "bos_token", "eos_token", "unk_token", "pad_token", "cls_token", "sep_token", "mask_token"
};

/* Returns the entry that names the special token of a role: that of config, or else that of map, or NULL. */
static const Json *role_entry(int i, const Json *config, const Json *map) {
    const Json *j = json_get(config, role[i]);
    return token_name(j) ? j : json_get(map, role[i]);
}

/* Returns the special token of a role that a tokenizer has whose files name none: the one of its class in
 * transformers. NULL: none. tokenizer.json lists its special tokens itself; a SentencePiece model has pieces
 * of a type for them. */
static const char *usual_token(const Tokenizer *t, int i) {
    static const char *const gpt2[ROLES] = { "<|endoftext|>" },
        *const roberta[ROLES] = { "<s>", "</s>", "<unk>", "<pad>", "<s>", "</s>", "<mask>" },
        *const bert[ROLES] = { NULL, NULL, "[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]" };
    if (t->json || t->kind->family == TOKENIZER_SENTENCEPIECE) return NULL;
    return (t->kind->family == TOKENIZER_WORDPIECE ? bert : t->bytelevel.roberta ? roberta : gpt2)[i];
}

/* The keys of lists of more special tokens. */
enum { LISTS = 2 };
static const char *const more[LISTS] = { "additional_special_tokens", "extra_special_tokens" };

/* Returns the list under key number i; NULL: there is none, or it is empty. */
static const Json *more_tokens(const Json *file, int i) {
    const Json *list = json_get(file, more[i]);
    return list && list->type == JSON_ARRAY && list->count ? list : NULL;
}

/* Returns 1 if `file` names the token whose text is the key of `token` as a special token. */
static int is_named(const Json *file, const Json *token) {
    const Json *list, *j;
    int i;
    for (i = 0; i < ROLES; i++) if (same_name(token_name(json_get(file, role[i])), token)) return 1;
    for (i = 0; i < LISTS; i++)
        for (list = more_tokens(file, i), j = list ? list->child : NULL; j; j = j->next)
            if (same_name(token_name(j), token)) return 1;
    return 0;
}

/* Returns the key of j, an entry of added_tokens_decoder such as "32000": {...}, as a JSON number; as null if
 * it is not a number. */
static Json key_number(const Json *j) {
    Json id;
    size_t i;
    memset(&id, 0, sizeof id);
    id.type = j->key_length && j->key_length < 10 ? JSON_NUMBER : JSON_NULL;
    for (i = 0; i < j->key_length; i++) {
        if (j->key[i] < '0' || j->key[i] > '9') id.type = JSON_NULL;
        id.number = 10 * id.number + (j->key[i] - '0');
    }
    return id;
}

/* The tokens to add; next: the id of the next token that the vocabulary lacks. names: the texts of these
 * tokens and of those that the tokenizer has added before. full 1: memory was out. */
typedef struct { AddedToken *list; size_t count; int next; Table names; int full; Pool *pool; } Adding;

static void note_name(Adding *g, Text s) {
    if (s.length && table_find(&g->names, s.text, s.length) < 0)
        g->full |= table_add(&g->names, g->pool, s.text, s.length, 0) != OK;
}

static void take_added(Adding *g, const AddedToken *a) {
    Text s = { a->text, a->length };
    note_name(g, s);
    g->list[g->count++] = *a;
    if (a->id >= g->next && a->id < INT_MAX / 4) g->next = a->id + 1;
}

/* Takes the tokens of added_tokens.json, such as {"[PAD]": 32000}, then those of added_tokens_decoder in
 * tokenizer_config.json. OK or *err. */
static int read_beside(Adding *g, const Json *added, const Json *config, const Json *map, Error *err) {
    const Json *decoder = json_get(config, "added_tokens_decoder"), *j;
    AddedToken a;
    for (j = added ? added->child : NULL; j; j = j->next) {
        Text text = { j->key, j->key_length };
        memset(&a, 0, sizeof a);
        a.text = text.text; a.length = text.length;
        if (!json_id(j, &a.id))
            return fail_piece(err, E_FORMAT, "the id of an added token is not a number", text, 0, 0);
        a.special = is_named(config, j) || is_named(map, j);
        a.normalized = !a.special;
        take_added(g, &a);
    }
    for (j = decoder ? decoder->child : NULL; j; j = j->next) {
        Json id = key_number(j);
        if (parse_added(&a, j, &id, err)) return E_FORMAT;
        take_added(g, &a);
    }
    return OK;
}

/* Takes a special token unless it is added already. entry: what the files say about it, its text or an object
 * with flags; NULL: nothing, and then it is left out if the vocabulary lacks it. */
static void take_special(Adding *g, const Tokenizer *t, Text s, const Json *entry) {
    AddedToken a;
    int object = entry && entry->type == JSON_OBJECT, plain_mask;
    memset(&a, 0, sizeof a);
    a.text = s.text; a.length = s.length;
    a.id = find_token(t, s.text, s.length);
    if (!s.length || table_find(&g->names, s.text, s.length) >= 0 || (!entry && a.id < 0)) return;
    /* As transformers' classes for RoBERTa and ALBERT have it, the mask includes the space before it. */
    plain_mask = (t->bytelevel.roberta && !strcmp(s.text, "<mask>")) ||
                 (t->kind->family == TOKENIZER_SENTENCEPIECE && !strcmp(s.text, "[MASK]"));
    a.special = 1;
    a.lstrip = object ? json_bool(entry, "lstrip", 0) : plain_mask;
    a.rstrip = json_bool(entry, "rstrip", 0);
    a.single_word = json_bool(entry, "single_word", 0);
    a.normalized = json_bool(entry, "normalized", 0);
    a.implied = !t->json && !object && a.id >= 0;
    if (a.id < 0) a.id = g->next;
    take_added(g, &a);
}

/* Returns how many sentinels a SentencePiece model of T5 gets: "extra_ids", or the 100 of T5's class. 0: the
 * tokenizer is no such model. */
static int sentinels(const Tokenizer *t, const Json *config) {
    const double n = json_number(config, "extra_ids", T5_SENTINELS);
    const int named = json_text(config, "tokenizer_class", NULL) != NULL;
    if (t->json || t->kind->family != TOKENIZER_SENTENCEPIECE || strcmp(t->kind->class_name(t), "T5Tokenizer")
        || (named && !class_is(config, "T5Tokenizer"))) return 0;
    return n >= 1 && n <= 10000 ? (int)n : 0;
}

/* Takes the sentinels <extra_id_99> ... <extra_id_0>, in this order, except those that are added already. */
static void take_sentinels(Adding *g, const Tokenizer *t, int n) {
    while (n-- > 0) {
        AddedToken a;
        char name[24];
        memset(&a, 0, sizeof a);
        name_format(name, sizeof name, "<extra_id_%d>", n);
        a.length = strlen(name);
        if (table_find(&g->names, name, a.length) >= 0) continue;
        a.text = pool_text(g->pool, name, a.length);
        if (!a.text) { g->full = 1; return; }
        a.id = find_token(t, name, a.length);
        if (a.id < 0) a.id = g->next;
        a.special = 1;
        take_added(g, &a);
    }
}

/* Takes the special tokens: those that the files name, the usual ones for roles without a name, and the
 * control pieces of a SentencePiece model. */
static void take_specials(Adding *g, const Tokenizer *t, const Json *config, const Json *map) {
    int i, sentencepiece = !t->json && t->kind->family == TOKENIZER_SENTENCEPIECE;
    for (i = 0; sentencepiece && i < t->V; i++) {
        Text s = { t->piece[i].text, t->piece[i].length };
        if (t->piece[i].type == PIECE_CONTROL || t->piece[i].type == PIECE_UNKNOWN)
            take_special(g, t, s, NULL);
    }
    for (i = 0; i < ROLES; i++) {
        const Json *entry = role_entry(i, config, map), *name = token_name(entry);
        const char *usual = usual_token(t, i);
        Text s = { usual, usual ? strlen(usual) : 0 };
        if (name) { s.text = name->string; s.length = name->length; }
        if (s.text) take_special(g, t, s, name ? entry : NULL);
    }
    for (i = 0; i < 2 * LISTS; i++) {
        const Json *list = more_tokens(i < LISTS ? config : map, i % LISTS), *j = list ? list->child : NULL;
        for (; j; j = j->next) {
            const Json *name = token_name(j);
            Text s = { name ? name->string : NULL, name ? name->length : 0 };
            if (name) take_special(g, t, s, j);
        }
    }
}

/* ==============================================================================================
 * Everything together
 * ============================================================================================== */

/* Returns the most tokens that take_specials takes. */
static size_t most_specials(const Tokenizer *t, const Json *config, const Json *map) {
    size_t n = ROLES;
    int i;
    for (i = 0; i < 2 * LISTS; i++) {
        const Json *list = more_tokens(i < LISTS ? config : map, i % LISTS);
        if (list) n += list->count;
    }
    for (i = 0; !t->json && i < t->V; i++)
        n += t->piece[i].type == PIECE_CONTROL || t->piece[i].type == PIECE_UNKNOWN;
    return n;
}

/* Adds the tokens of the three files, and the special tokens. OK or *err. */
static int add_beside(Tokenizer *t, const Json *added, const Json *config, const Json *map, Pool *pool,
                      Error *err) {
    const Json *decoder = json_get(config, "added_tokens_decoder");
    size_t room = added && added->type == JSON_OBJECT ? added->count : 0;
    Adding g;
    int code, i;
    memset(&g, 0, sizeof g);
    g.next = t->V;
    g.pool = pool;
    if (added && added->type != JSON_OBJECT)
        return fail(err, E_FORMAT, "not an object of tokens and ids", "added_tokens.json", 0, 0);
    if (decoder && decoder->type != JSON_OBJECT && decoder->type != JSON_NULL)
        return fail(err, E_FORMAT, "not an object of ids and tokens", "added_tokens_decoder", 0, 0);
    if (decoder) room += decoder->count;
    room += most_specials(t, config, map) + (size_t)sentinels(t, config);
    g.list = pool_take(pool, room, sizeof *g.list);
    if (!g.list) return no_memory(err, "added tokens");
    for (i = 0; i < t->addeds; i++) {
        Text s = { t->added[i].text, t->added[i].length };
        note_name(&g, s);
    }
    code = read_beside(&g, added, config, map, err);
    if (code) return code;
    take_sentinels(&g, t, sentinels(t, config));
    take_specials(&g, t, config, map);
    if (g.full) return no_memory(err, "added tokens");
    return add_tokens(t, g.list, g.count, pool, err);
}

/* Returns the id of the token that the files name for a role; `otherwise` if they name none. */
static int name_special(const Tokenizer *t, int i, const Json *config, const Json *map, int otherwise) {
    const Json *name = token_name(role_entry(i, config, map));
    int id = name ? find_token(t, name->string, name->length) : -1;
    return id >= 0 ? id : otherwise;
}

/* Sets the special ids, and the template: add_bos_token and add_eos_token replace it if one of them is there,
 * and then the one that is not there means false. A SentencePiece model has its own template, whose half
 * that no key names stays. The template of BERT stays. */
static void set_template(Tokenizer *t, const Json *config, const Json *map) {
    const Json *bos = json_get(config, "add_bos_token"), *eos = json_get(config, "add_eos_token");
    int sentencepiece = !t->json && t->kind->family == TOKENIZER_SENTENCEPIECE;
    t->asked_template = (json_is_bool(bos) || json_is_bool(eos)) && t->kind->family != TOKENIZER_WORDPIECE;
    if (t->asked_template) {
        t->before = json_bool(config, "add_bos_token", sentencepiece && t->before);
        t->after = json_bool(config, "add_eos_token", sentencepiece && t->after);
    }
    if (!t->before || t->asked_template) t->special.bos = name_special(t, 0, config, map, t->special.bos);
    if (!t->after || t->asked_template) t->special.eos = name_special(t, 1, config, map, t->special.eos);
    if (t->special.unk < 0) t->special.unk = name_special(t, 2, config, map, -1);
    t->special.pad = name_special(t, 3, config, map, t->special.pad);
    t->before = t->before && t->special.bos >= 0;
    t->after = t->after && t->special.eos >= 0;
}

/* Keeps chat_template. It is a string, or a list of {"name": ..., "template": ...}; then the template named
 * "default" is kept. OK or *err. */
static int keep_chat_template(Tokenizer *t, const Json *config, Pool *pool, Error *err) {
    const Json *j = json_get(config, "chat_template"), *one = j && j->type == JSON_ARRAY ? j->child : NULL;
    for (; one; one = one->next)
        if (!strcmp(json_text(one, "name", ""), "default")) j = json_get(one, "template");
    if (!j || j->type != JSON_STRING) return OK;
    t->chat_template = pool_text(pool, j->string, j->length);
    return t->chat_template ? OK : no_memory(err, "chat_template");
}

/* Notes whether the models take token_type_ids: as model_input_names says; without it BERT's do, DistilBERT's
 * and those of other kinds do not. */
static void set_types(Tokenizer *t, const Json *config) {
    const Json *names = json_get(config, "model_input_names"), *j;
    if (!names || names->type != JSON_ARRAY) {
        t->no_types |= t->kind->family != TOKENIZER_WORDPIECE || class_is(config, "DistilBertTokenizer");
        return;
    }
    t->no_types = 1;
    for (j = names->child; j; j = j->next)
        if (j->type == JSON_STRING && !strcmp(j->string, "token_type_ids")) t->no_types = 0;
}

/* Applies the options of the kind first: how texts are normalised decides where tokens are found. */
int tokenizer_beside(Tokenizer *t, const Json *added, const Json *config, const Json *map, Pool *pool,
                     Error *err) {
    double most = json_number(config, "model_max_length", 0);
    int code = t->kind->configure ? t->kind->configure(t, config, err) : OK;
    if (!code) code = add_beside(t, added, config, map, pool, err);
    if (code) return code;
    set_template(t, config, map);
    set_types(t, config);
    t->split_special = t->asked_split = json_bool(config, "split_special_tokens", 0);
    t->max_length = most >= 1 && most <= INT_MAX ? (int)most : 0;
    return keep_chat_template(t, config, pool, err);
}
