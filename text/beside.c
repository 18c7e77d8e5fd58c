/* text/beside.c - applies the JSON files that come with a tokenizer: added_tokens.json, tokenizer_config.json
 *          and special_tokens_map.json. They add tokens and name the special ones.
 * Source   transformers' tokenization_utils_base.py.
 * Needs    core.c, text/pieces.c, text/added.c.
 * Never    runs a chat template.
 * Edges    a token that several files describe (tokenizer_config.json says most about it, so its
 *          tokens are added last). */
#include "text.h"

/* Returns the name of a special token: j itself if it is a string, "content" of j if it is an object; NULL
 * if there is no name. */
static const Json *token_name(const Json *j) {
    if (j && j->type == JSON_OBJECT) j = json_get(j, "content");
    return j && j->type == JSON_STRING ? j : NULL;
}

static int same_name(const Json *name, const Json *token) {
    return name && name->length == token->key_length && !memcmp(name->string, token->key, name->length);
}

/* Returns 1 if `file` names the token whose text is the key of `token` as a special token. */
static int is_named(const Json *file, const Json *token) {
    static const char *const key[] = {
        "bos_token", "eos_token", "unk_token", "pad_token", "cls_token", "sep_token", "mask_token"
    };
    const Json *list = json_get(file, "additional_special_tokens"), *j = NULL;
    size_t i;
    for (i = 0; i < sizeof key / sizeof *key; i++)
        if (same_name(token_name(json_get(file, key[i])), token)) return 1;
    if (list && list->type == JSON_ARRAY) j = list->child;
    for (; j; j = j->next) if (same_name(token_name(j), token)) return 1;
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

/* Fills the list with the tokens of added_tokens.json, such as {"[PAD]": 32000}, then with those of
 * added_tokens_decoder in tokenizer_config.json. *count: their number. OK or *err. */
static int read_beside(AddedToken *list, size_t *count, const Json *added, const Json *config,
                       const Json *map, Error *err) {
    const Json *decoder = json_get(config, "added_tokens_decoder"), *j;
    *count = 0;
    for (j = added ? added->child : NULL; j; j = j->next) {
        AddedToken *a = &list[(*count)++];
        Text text = { j->key, j->key_length };
        memset(a, 0, sizeof *a);
        a->text = text.text; a->length = text.length;
        if (!json_id(j, &a->id))
            return fail_piece(err, E_FORMAT, "the id of an added token is not a number", text, 0, 0);
        a->special = is_named(config, j) || is_named(map, j);
    }
    for (j = decoder ? decoder->child : NULL; j; j = j->next) {
        Json id = key_number(j);
        if (parse_added(&list[(*count)++], j, &id, err)) return E_FORMAT;
    }
    return OK;
}

/* Returns the id of the token that config, or else map, names under `key`; `otherwise` if neither does. */
static int name_special(const Tokenizer *t, const char *key, const Json *config, const Json *map,
                        int otherwise) {
    const Json *name = token_name(json_get(config, key));
    int id = -1;
    if (!name) name = token_name(json_get(map, key));
    if (name) id = find_token(t, name->string, name->length);
    return id >= 0 ? id : otherwise;
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

int tokenizer_beside(Tokenizer *t, const Json *added, const Json *config, const Json *map, Pool *pool,
                     Error *err) {
    const Json *decoder = json_get(config, "added_tokens_decoder");
    size_t room = 1 + (added && added->type == JSON_OBJECT ? added->count : 0), count;
    AddedToken *list;
    int code;
    if (added && added->type != JSON_OBJECT)
        return fail(err, E_FORMAT, "not an object of tokens and ids", "added_tokens.json", 0, 0);
    if (decoder && decoder->type != JSON_OBJECT && decoder->type != JSON_NULL)
        return fail(err, E_FORMAT, "not an object of ids and tokens", "added_tokens_decoder", 0, 0);
    if (decoder) room += decoder->count;
    list = pool_take(pool, room, sizeof *list);
    if (!list) return no_memory(err, "added tokens");
    code = read_beside(list, &count, added, config, map, err);
    if (!code && count) code = add_tokens(t, list, count, pool, err);
    if (!code && t->kind->configure) code = t->kind->configure(t, config, err);
    if (code) return code;
    if (!t->before) t->special.bos = name_special(t, "bos_token", config, map, t->special.bos);
    if (!t->after) t->special.eos = name_special(t, "eos_token", config, map, t->special.eos);
    t->special.pad = name_special(t, "pad_token", config, map, t->special.pad);
    return keep_chat_template(t, config, pool, err);
}
