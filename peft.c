/* peft.c - which modules of a model an adapter changes, by the rules of Hugging Face's peft; the adapter's
 *          list of tensors.
 * Source   peft: tuners/tuners_utils.py (check_target_module_exists, _maybe_include_all_linear_layers),
 *          utils/other.py (get_pattern_key, _set_trainable), utils/save_and_load.py (names in files).
 * Needs    core.c, ops.c, text/regex.c. No heap, no stdio.
 * Idea     A tensor "NAME.weight" or "NAME.bias" belongs to the module NAME. The rules are about modules'
 *          names. They lead to one Choice for each tensor of the model; the adapter's list follows from it.
 * Edges    A regular expression that text/regex.c has not is refused, and shown. */
#include "rlhf.h"
#include "text/text.h"

/* What becomes of one tensor of the base. R: the pair's rank, or 0. saved 1: the adapter has its own; 2: and
 * files may lack it. table 1: peft writes the base's weight beside the pair. */
typedef struct { int R, saved, table; f32 alpha; } Choice;
typedef struct { const LoraConfig *c; const Tensor *base; int tensors; Choice *choice; Pool *pool;
                 Error *err; } Choosing;

/* ---- names of modules ---- */

static int ends_with(Text s, const char *end, size_t n) {
    return s.length >= n && memcmp(s.text + s.length - n, end, n) == 0;
}

/* Returns the name of the module that a tensor belongs to. */
static Text module_of(const Tensor *t) {
    const char *dot = strrchr(t->name, '.');
    Text name = { t->name, dot ? (size_t)(dot - t->name) : 0 };
    return name;
}
static int is_weight(const Tensor *t) {
    Text name = { t->name, strlen(t->name) };
    return ends_with(name, ".weight", 7);
}

/* Takes the next name from a comma-separated list (NULL: an empty one). Returns 0 if there is none. */
static int next_name(const char **list, Text *name) {
    while (*list && (**list == ',' || **list == ' ')) ++*list;
    name->text = *list;
    while (*list && **list && **list != ',' && **list != ' ') ++*list;
    name->length = *list ? (size_t)(*list - name->text) : 0;
    return name->length > 0;
}

/* Returns 1 if the name is the module's, or the end of the module's after a dot. */
static int is_named(Text module, Text name) {
    return ends_with(module, name.text, name.length)
        && (module.length == name.length || module.text[module.length - name.length - 1] == '.');
}
static int in_list(const char *list, Text module) {
    Text name;
    while (next_name(&list, &name)) if (is_named(module, name)) return 1;
    return 0;
}

/* Returns 1 if modules_to_save means the module: if its name, or that of a module around it, ends in one of
 * the names. No dot has to be before the end: with peft "norm" means "input_layernorm", too. */
static int is_saved(const char *list, Text module) {
    Text name;
    while (next_name(&list, &name))
        for (size_t n = name.length; n <= module.length; n++) {
            const Text around = { module.text, n };
            if ((n == module.length || module.text[n] == '.') && ends_with(around, name.text, name.length))
                return 1;
        }
    return 0;
}

/* Returns the number of the module's layer: the last part of its name that is digits alone, and has a name, a
 * dot and "PATTERN" (an empty one: any name) before it. -1: there is none. */
static int layer_of(Text module, Text pattern) {
    int layer = -1;
    for (size_t at = 1, end; at < module.length; at++) {
        size_t from = at - 1, digits = at;
        int number = 0;
        if (module.text[at - 1] != '.') continue;
        while (digits < module.length && module.text[digits] >= '0' && module.text[digits] <= '9'
               && number < 1 << 24) number = number * 10 + module.text[digits++] - '0';
        end = digits;
        if (end == at || end >= module.length || module.text[end] != '.') continue;
        while (from > 0 && module.text[from - 1] != '.') from--;
        const Text before = { module.text, at - 1 };
        if (pattern.length ? before.length > pattern.length && is_named(before, pattern) : from > 0)
            layer = number;
    }
    return layer;
}

/* Returns 1 if layers_to_transform and layers_pattern allow the module. Of several patterns the first that
 * finds a layer counts. */
static int in_layers(const LoraConfig *c, Text module) {
    const char *list = c->layers_pattern;
    const Text any = { "", 0 };
    Text pattern;
    int layer = -1;
    if (!c->layers) return 1;
    if (!list || !*list) layer = layer_of(module, any);
    while (layer < 0 && next_name(&list, &pattern)) layer = layer_of(module, pattern);
    for (int i = 0; i < c->layers; i++) if (layer >= 0 && c->layer[i] == layer) return 1;
    return 0;
}

/* ---- regular expressions ---- */

/* Returns the text ^BEFORE(?:PATTERN)$ in pool; its text is NULL if there is no memory. */
static Text whole_pattern(const char *before, const char *pattern, Pool *pool) {
    Buffer b = { pool, NULL, 0, 0, 0 };
    buffer_text(&b, "^");
    buffer_text(&b, before);
    buffer_text(&b, "(?:");
    buffer_text(&b, pattern);
    buffer_text(&b, ")$");
    const Text t = { b.failed ? NULL : (const char *)b.data, b.length };
    return t;
}

/* Sets hit[i] to 1 for each weight whose module's whole name matches BEFORE + PATTERN. OK or a code. */
static int match_modules(unsigned char *hit, const Choosing *k, const char *before, const char *pattern) {
    const PoolMark mark = pool_mark(k->pool);
    const Text whole = whole_pattern(before, pattern, k->pool);
    Error inner;
    Regex r;
    size_t from, to;
    memset(&inner, 0, sizeof inner);
    int code = whole.text ? regex_compile(&r, whole, k->pool, &inner) : E_MEMORY;
    for (int i = 0; i < k->tensors && code == OK; i++) {
        const Text module = module_of(&k->base[i]);
        hit[i] = (unsigned char)(is_weight(&k->base[i]) && regex_find(&r, module, 0, &from, &to));
    }
    pool_release(k->pool, mark);
    if (code == OK) return OK;
    if (code == E_MEMORY) return fail(k->err, code, "no memory for a regular expression", pattern, 0, 0);
    fail(k->err, code, inner.what, pattern, 0, 0);
    advise(k->err, "the names of the modules as a list in adapter_config.json, in place of the regular "
                   "expression");
    return code;
}

/* ---- choosing ---- */

/* Pairs are for linears of layers, tables of embeddings and heads. */
static int may_adapt(const Tensor *t) {
    return is_weight(t) && t->flags & (TENSOR_LINEAR | TENSOR_EMBEDDING | TENSOR_HEAD);
}

/* Writes the names of the modules of all linears of the layers into pool, as peft does for "all-linear".
 * Returns NULL if there is no memory. */
static const char *all_linear(const Tensor *base, int tensors, Pool *pool) {
    Buffer b = { pool, NULL, 0, 0, 0 };
    for (int i = 0; i < tensors; i++) {
        if (!(base[i].flags & TENSOR_LINEAR) || !is_weight(&base[i])) continue;
        if (b.length) buffer_text(&b, ",");
        buffer_bytes(&b, base[i].name, module_of(&base[i]).length);
    }
    buffer_u8(&b, 0);
    return b.failed ? NULL : (const char *)b.data;
}

/* Sets hit[i] to 1 for the tensors whose modules get a pair. OK or a code. */
static int find_targets(unsigned char *hit, const Choosing *k) {
    const LoraConfig *c = k->c;
    unsigned char *out = pool_take(k->pool, (size_t)k->tensors + 1, 1);
    int code = out ? OK : fail(k->err, E_MEMORY, "no memory for the adapter's lists", "", 0, 0);
    if (code == OK && c->targets_regex) code = match_modules(hit, k, "", c->targets);
    if (code == OK && c->exclude && c->exclude_regex) code = match_modules(out, k, "", c->exclude);
    for (int i = 0; i < k->tensors && code == OK; i++) {
        const Text module = module_of(&k->base[i]);
        if (!c->targets_regex) hit[i] = (unsigned char)(in_list(c->targets, module) && in_layers(c, module));
        if (!c->exclude_regex) out[i] = (unsigned char)in_list(c->exclude, module);
        hit[i] = hit[i] && !out[i] && may_adapt(&k->base[i]) && !is_saved(c->save, module);
    }
    return code;
}

/* Checks that every target means a module: a misspelt name would train nothing, and say nothing. In peft's
 * files one is enough (peft's rule): whoever loads an adapter's weights refuses those without a place. Checks
 * also that no rank is above its linear's I: a larger rank adds numbers, but no products. */
static int check_targets(const Choosing *k) {
    const char *list = k->c->targets;
    Text name;
    int some = 0;
    for (int i = 0; i < k->tensors; i++) {
        const Tensor *t = &k->base[i];
        some |= k->choice[i].R > 0;
        if (k->c->peft || k->choice[i].R <= t->matrix->I) continue;
        fail(k->err, E_ARGUMENT, "the LoRA rank is above the width of a linear's input", t->name,
             k->choice[i].R, t->matrix->I);
        advise(k->err, "a smaller --lora-r: at that width an adapter can change everything in the linear");
        return E_ARGUMENT;
    }
    while (!k->c->peft && !k->c->targets_regex && next_name(&list, &name)) {
        int found = 0;
        for (int i = 0; i < k->tensors && !found; i++)
            found = may_adapt(&k->base[i]) && is_named(module_of(&k->base[i]), name);
        if (!found)
            return fail_piece(k->err, E_ARGUMENT, "a LoRA target matches no module of the model", name, 0, 0);
    }
    if (some) return OK;
    fail(k->err, E_ARGUMENT, "no LoRA target matches a module of the model", k->c->targets, 0, 0);
    if (k->c->peft)
        advise(k->err, "the model that the adapter was trained on: adapter_config.json has its name as "
                       "base_model_name_or_path");
    return E_ARGUMENT;
}

/* Sets rank and alpha of the pairs by rank_pattern and alpha_pattern. The first pattern that matches the end
 * of a module's name counts. OK or a code. */
static int choose_numbers(const Choosing *k, const LoraPattern *list, int count, int alphas) {
    unsigned char *hit = pool_take(k->pool, (size_t)k->tensors + 1, 1),
                  *done = pool_take(k->pool, (size_t)k->tensors + 1, 1);
    int code = hit && done ? OK : fail(k->err, E_MEMORY, "no memory for the adapter's lists", "", 0, 0);
    for (int n = 0; n < count && code == OK; n++) {
        code = match_modules(hit, k, list[n].pattern[0] == '^' ? "" : "(?:.*\\.)?", list[n].pattern);
        for (int i = 0; i < k->tensors && code == OK; i++) {
            Choice *c = &k->choice[i];
            if (!hit[i] || done[i] || !c->R) continue;
            done[i] = 1;
            if (alphas) c->alpha = list[n].value;
            else c->R = (int)list[n].value;
        }
    }
    return code;
}

/* Returns 1 if the module of tensor i has a pair. */
static int has_pair(const Choosing *k, int i) {
    const Text module = module_of(&k->base[i]);
    for (int n = 0; n < k->tensors; n++) {
        const Text other = module_of(&k->base[n]);
        if (k->choice[n].R && other.length == module.length
            && memcmp(other.text, module.text, other.length) == 0) return 1;
    }
    return 0;
}

/* Marks what is trained whole: modules_to_save, and biases. Marks the tables that peft writes beside their
 * pairs: of the input embedding and of the head, if the targets name one of them as Llama does. */
static void choose_saved(const Choosing *k) {
    const LoraConfig *c = k->c;
    const int tables = c->targets && (strstr(c->targets, "embed_tokens") || strstr(c->targets, "lm_head"));
    for (int i = 0; i < k->tensors; i++) {
        const int bias = k->base[i].flags & TENSOR_BIAS ? c->bias : LORA_BIAS_NONE;
        Choice *choice = &k->choice[i];
        if (is_saved(c->save, module_of(&k->base[i])) || bias == LORA_BIAS_ALL) choice->saved = 1;
        else if (bias == LORA_BIAS_LORA_ONLY && has_pair(k, i)) choice->saved = 2;
        choice->table = tables && choice->R && (i == 0 || k->base[i].flags & TENSOR_HEAD);
    }
}

static int choose(const Choosing *k) {
    unsigned char *hit = pool_take(k->pool, (size_t)k->tensors + 1, 1);
    int code = hit ? OK : fail(k->err, E_MEMORY, "no memory for the adapter's lists", "", 0, 0);
    if (code == OK) code = find_targets(hit, k);
    for (int i = 0; i < k->tensors && code == OK; i++) {
        k->choice[i].R = hit[i] ? k->c->R : 0;
        k->choice[i].alpha = k->c->alpha;
        if (hit[i] && k->c->dora && k->base[i].flags & TENSOR_EMBEDDING)
            code = fail(k->err, E_UNSUPPORTED, "use_dora on an embedding", k->base[i].name, 0, 0);
    }
    if (code == OK) code = choose_numbers(k, k->c->rank, k->c->rank_count, 0);
    if (code == OK) code = choose_numbers(k, k->c->alphas, k->c->alphas_count, 1);
    if (code == OK) code = check_targets(k);
    if (code == OK) choose_saved(k);
    return code;
}

/* ---- the adapter's list of tensors ---- */

/* Writes the name of a module's part to out: "q_proj.lora_A.weight" of "q_proj.weight". OK or E_RANGE. */
static int part_name(char *out, size_t cap, const Tensor *base, const char *part, Error *err) {
    const Text module = module_of(base);
    const size_t n = strlen(part);
    if (module.length + n + 1 > cap) return fail(err, E_RANGE, "tensor name too long", base->name, 0, 0);
    memcpy(out, module.text, module.length);
    memcpy(out + module.length, part, n + 1);
    return OK;
}

/* Lays out the pair of a tensor of the base. OK or E_RANGE. */
static int carve_pair(LoraPair *p, TensorList *list, const Tensor *base, const LoraConfig *c, const Choice *k,
                      Error *err) {
    const Matrix *w = base->matrix;
    const int R = k->R, table = (base->flags & TENSOR_EMBEDDING) != 0;
    char name[96];
    int code = part_name(name, sizeof name, base, table ? ".lora_embedding_A" : ".lora_A.weight", err);
    if (code) return code;
    tensor_carve(list, &p->A, name, 0, F32, R, table ? w->O : w->I, 0);
    part_name(name, sizeof name, base, table ? ".lora_embedding_B" : ".lora_B.weight", err);
    tensor_carve(list, &p->B, name, 0, F32, table ? w->I : w->O, R, 0);
    p->embedding = table;
    p->scale = c->rslora ? k->alpha / sqrtf((float)R) : k->alpha / (float)R;
    if (!c->dora) return OK;
    code = part_name(name, sizeof name, base, ".lora_magnitude_vector", err);
    tensor_carve(list, &p->magnitude, name, 0, F32, 1, w->O, TENSOR_BIAS);
    p->norm = p->magnitude;
    p->norm.grad = NULL;
    p->norm.data = arena_take(list->arena, (size_t)w->O, sizeof(float));
    return code;
}

/* Lays out the adapter's own copy of a tensor. OK or E_RANGE. */
static int carve_saved(LoraPair *p, TensorList *list, const Choosing *k, int i) {
    const Tensor *base = &k->base[i];
    const int optional = k->choice[i].saved == 2 ? TENSOR_OPTIONAL : 0;
    int code = OK;
    char name[96];
    if (base->flags & TENSOR_BIAS && has_pair(k, i))
        code = part_name(name, sizeof name, base, ".base_layer.bias", k->err);
    else memcpy(name, base->name, sizeof name);
    tensor_carve(list, &p->saved, name, 0, F32, base->matrix->O, base->matrix->I,
                 (base->flags & ~(TENSOR_TIED | TENSOR_TRAINED)) | optional);
    p->saved.compute = base->matrix->compute;
    p->saved.output = base->matrix->output;
    return code;
}

/* Lays out the soft prompt, if there is one. It has the width of the embedding, the base's first tensor. OK
 * or E_SHAPE. */
static int carve_prompt(Lora *l, const Choosing *k, TensorList *list) {
    PromptConfig *p = &l->config.prompt;
    const int C = k->base[0].matrix->I;
    memset(&l->prompt, 0, sizeof l->prompt);
    if (!p->rows) return OK;
    if (p->width && p->width != C)
        return fail(k->err, E_SHAPE, "the soft prompt is for a model of another width",
                    l->config.peft ? l->config.peft : "", p->width, C);
    p->width = C;
    tensor_carve(list, &l->prompt, "prompt_embeddings", 0, F32, p->rows, C, 0);
    return OK;
}

/* Fills in the adapter's lists. OK, E_SHAPE or E_RANGE. */
static int carve(Lora *l, const Choosing *k, TensorList *list) {
    int code = carve_prompt(l, k, list);
    l->config.transposed = 0;
    for (int i = 0; i < k->tensors && code == OK; i++) {
        if (k->choice[i].R) code = carve_pair(&l->pair[i], list, &k->base[i], k->c, &k->choice[i], k->err);
        if (k->choice[i].R && k->base[i].flags & TENSOR_TRANSPOSED) l->config.transposed = 1;
        if (k->choice[i].saved && code == OK) code = carve_saved(&l->pair[i], list, k, i);
    }
    l->tensors = l->written = list->tensors;
    for (int i = 0; i < k->tensors && code == OK; i++) {
        Tensor *t = &l->tensor[l->written];
        if (!k->choice[i].table) continue;
        l->written++;
        t->matrix = k->base[i].matrix;
        t->flags = k->base[i].flags & ~(TENSOR_TIED | TENSOR_TRAINED);
        code = part_name(t->name, sizeof t->name, &k->base[i], ".base_layer.weight", k->err);
    }
    return code;
}

/* Returns 1 if all tensors inside the module, and some of them, are a head's. */
static int is_head(const Tensor *base, int tensors, Text module) {
    int some = 0;
    for (int i = 0; i < tensors; i++) {
        const char *name = base[i].name;
        if (strncmp(name, module.text, module.length) != 0 || name[module.length] != '.') continue;
        if (!(base[i].flags & TENSOR_HEAD)) return 0;
        some = 1;
    }
    return some;
}

const char *lora_head(const Tensor *base, int tensors, Pool *pool) {
    Buffer b = { pool, NULL, 0, 0, 0 };
    Text last = { "", 0 };
    for (int i = 0; i < tensors; i++) {
        Text module = module_of(&base[i]), around = module;
        if (!is_weight(&base[i]) || !is_head(base, tensors, module)) continue;
        while (around.length) {             /* the largest module that is a part of the head */
            if (around.text[around.length] == '.' && is_head(base, tensors, around)) module = around;
            around.length--;
        }
        if (module.length == last.length && memcmp(last.text, module.text, module.length) == 0) continue;
        if (b.length) buffer_text(&b, ",");
        buffer_bytes(&b, module.text, module.length);
        last = module;
    }
    buffer_u8(&b, 0);
    return b.failed ? NULL : (const char *)b.data;
}

LoraConfig lora_config(int R, float alpha, const char *targets) {
    LoraConfig c;
    memset(&c, 0, sizeof c);
    c.R = R;
    c.alpha = (f32)alpha;
    c.targets = targets;
    c.task = "CAUSAL_LM";
    return c;
}

int lora_carve(Lora *l, const Tensor *base, int tensors, const LoraConfig *c, int trainable, Pool *lists,
               Arena *a, Error *err) {
    const size_t n = (size_t)tensors;
    if (c->R < !c->prompt.rows) return fail(err, E_ARGUMENT, "LoRA rank out of range", "", c->R, 1);
    if (c != &l->config) l->config = *c;
    if (c->R && !c->targets_regex && strcmp(c->targets, "all-linear") == 0)
        l->config.targets = all_linear(base, tensors, lists);
    memset(&l->dropout, 0, sizeof l->dropout);
    l->pairs = tensors;
    l->pair = pool_take(lists, n, sizeof *l->pair);
    l->tensor = pool_take(lists, 5 * n + 2, sizeof *l->tensor);
    Choosing k = { &l->config, base, tensors, pool_take(lists, n + 1, sizeof(Choice)), lists, err };
    TensorList list = { l->tensor, 0, trainable, a };
    if ((c->R && !l->config.targets) || !l->pair || !l->tensor || !k.choice)
        return fail(err, E_MEMORY, "no memory for the adapter's lists", "", 0, 0);
    int code = c->R ? choose(&k) : OK;
    if (code == OK) code = carve(l, &k, &list);
    if (code == OK && a->failed) code = fail(err, E_MEMORY, "no memory for the adapter", "", 0, 0);
    return code;
}
