/* tests/unit/train.c - trains WordPiece and GPT-2's byte-level BPE on made-up texts: the vocabulary against
 * one that was worked out by hand, then texts into ids and back. Then, for every kind that can be trained:
 * the tokenizer.json that is written gives the same ids as the older files beside it, and a folder that is
 * opened and saved keeps all its files. The shipped tokenizers: the same, for every review. */
#include "test.h"
#include "text/text.h"
#include <time.h>

static Error *fresh(Error *err) { memset(err, 0, sizeof *err); return err; }

/* Gives the texts of a list with NULL at its end, each of them `times` times. */
typedef struct { const char *const *text; int at, times, left; } List;

static int next_text(void *context, const char **text, size_t *n) {
    List *l = context;
    if (!l->left--) { l->left = l->times - 1; l->at++; }
    if (!l->text[l->at]) return 0;
    *text = l->text[l->at];
    *n = strlen(*text);
    return 1;
}

static TextSource texts(List *l, const char *const *text, int times) {
    TextSource s;
    l->text = text; l->at = 0; l->times = l->left = times;
    s.next = next_text;
    s.context = l;
    return s;
}

/* Returns the pieces of the ids of a text, with a space between two of them. */
static const char *pieces(const Tokenizer *t, const char *text, Pool *pool) {
    Buffer b = { pool, NULL, 0, 0, 0 };
    int *ids, count, i;
    size_t n;
    if (tokenizer_encode(t, text, strlen(text), pool, &ids, &count)) return "(no memory)";
    for (i = 0; i < count; i++) {
        const char *piece = tokenizer_piece(t, ids[i], &n);
        if (i) buffer_u8(&b, ' ');
        buffer_bytes(&b, piece, n);
    }
    buffer_u8(&b, 0);
    return (const char *)b.data;
}

static const char *back(const Tokenizer *t, const char *text, Pool *pool) {
    int *ids, count;
    char *out;
    size_t n;
    if (tokenizer_encode(t, text, strlen(text), pool, &ids, &count)
        || tokenizer_decode(t, ids, count, pool, &out, &n)) return "(no memory)";
    return out;
}

/* The words and their counts: low 5, lower 2, newest 6, widest 3, "." 1. The pairs that are merged: ##e ##s
 * (9; as frequent is ##s ##t, whose symbols have larger numbers), ##es ##t 9, l ##o 7 (before ##o ##w), lo
 * ##w 7, n ##e 6 (before ##e ##w and ##w ##est), ##w ##est 6 (before ne ##w). */
static const char *const hug[] = {
    "low low low low low", "lower L\xc3\x93WER", "newest newest newest newest newest newest",
    "widest widest\twidest.", NULL
};
static const char hug_vocab[] =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n.\nd\ne\ni\nl\nn\no\nr\ns\nt\nw\n"
    "##d\n##e\n##i\n##o\n##r\n##s\n##t\n##w\n"
    "##es\n##est\nlo\nlow\nne\n##west\n";

static void test_wordpiece(void) {
    Pool pool = test_pool();
    Error err;
    List l;
    int lines = 0, i, before, after;
    SpecialIds s;
    AddedToken a;
    Tokenizer *t;
    for (i = 0; hug_vocab[i]; i++) lines += hug_vocab[i] == '\n';
    t = tokenizer_train_wordpiece(texts(&l, hug, 1), lines, 0, &pool, fresh(&err));
    CHECK(t, "WordPiece is trained: %s, %lld, %lld", err.what, err.got, err.wanted);
    if (!t) { pool_free(&pool); return; }
    CHECK(t->file[0].length == strlen(hug_vocab) && !memcmp(t->file[0].bytes, hug_vocab, strlen(hug_vocab)),
          "the vocabulary is the one worked out by hand: %s", t->file[0].bytes);
    s = tokenizer_specials(t);
    tokenizer_template(t, &before, &after);
    CHECK(tokenizer_kind(t) == TOKENIZER_WORDPIECE && tokenizer_size(t) == lines && s.pad == 0 &&
          s.unk == 1 && s.bos == 2 && s.eos == 3 && before && after, "BERT's special tokens and template");
    CHECK(tokenizer_added(t, 4, &a) && a.id == 4 && a.special && !strcmp(a.text, "[MASK]"),
          "[MASK] is special");
    CHECK(!strcmp(pieces(t, "Lowest n\xc3\xa9west. x[MASK]", &pool), "low ##est ne ##west . [UNK] [MASK]"),
          "capitals and accents are gone: %s", pieces(t, "Lowest n\xc3\xa9west. x[MASK]", &pool));
    CHECK(!strcmp(back(t, "Newest  widest.", &pool), "newest widest."), "there and back: %s",
          back(t, "Newest  widest.", &pool));
    t = tokenizer_train_wordpiece(texts(&l, hug, 1), lines + 6, 1, &pool, fresh(&err));
    CHECK(t && tokenizer_find(t, "L", 1) > 0 && tokenizer_find(t, "##\xc3\x93", 4) > 0 &&
          !strcmp(back(t, "L\xc3\x93WER low", &pool), "L\xc3\x93WER low") && !tokenizer_bert(t)->lower,
          "cased: capitals and accents stay");
    CHECK(!tokenizer_train_wordpiece(texts(&l, hug, 1), 20, 0, &pool, fresh(&err)) && err.code == E_RANGE &&
          err.wanted == 24, "too small a vocabulary is refused, and the least is named: %lld", err.wanted);
    CHECK(!tokenizer_train_wordpiece(texts(&l, hug, 1), 900, 0, &pool, fresh(&err)) && err.code == E_RANGE &&
          err.wanted < 60, "too little text is refused");
    CHECK(!tokenizer_train_wordpiece(texts(&l, hug + 4, 1), 900, 0, &pool, fresh(&err)) &&
          err.code == E_ARGUMENT, "no text is refused");
    pool_free(&pool);
}

static void test_gpt2(void) {
    Pool pool = test_pool();
    Error err;
    List l;
    int before, after;
    SpecialIds s;
    Tokenizer *t = tokenizer_train_gpt2(texts(&l, hug, 1), 260, &pool, fresh(&err));
    CHECK(t, "GPT-2's layout is trained: %s", err.what);
    if (!t) { pool_free(&pool); return; }
    s = tokenizer_specials(t);
    tokenizer_template(t, &before, &after);
    CHECK(tokenizer_size(t) == 260 && tokenizer_find(t, "!", 1) == 0 && tokenizer_find(t, "es", 2) == 256 &&
          tokenizer_find(t, "<|endoftext|>", 13) == 259, "bytes, merges, <|endoftext|>");
    CHECK(s.bos == 259 && s.eos == 259 && s.unk == 259 && s.pad == -1 && !before && !after &&
          !strcmp(tokenizer_class(t), "GPT2Tokenizer"), "one special token, and an empty template");
    CHECK(!strcmp(pieces(t, "est<|endoftext|>!", &pool), "est <|endoftext|> !"),
          "<|endoftext|> is special: %s", pieces(t, "est<|endoftext|>!", &pool));
    CHECK(!strcmp(back(t, " a\xc3\xa9  b\n", &pool), " a\xc3\xa9  b\n"), "there and back");
    CHECK(!tokenizer_train_gpt2(texts(&l, hug, 1), 256, &pool, fresh(&err)) &&
          err.code == E_RANGE && err.wanted == 257, "too small a vocabulary is refused");
    pool_free(&pool);
}

/* ---- tokenizer.json ---- */
enum { KINDS = 6 };
static const char *const kind_name[KINDS] = { "sentencepiece", "unigram", "bytelevel", "gpt2", "wordpiece",
                                              "wordpiece --cased" };
/* A text with many words, so that all kinds have enough to learn. */
static const char *const much[] = {
    "the quick brown fox jumps over the lazy dog, and the dog sleeps",
    "how vexingly quick daft zebras jump! the five boxing wizards jump quickly",
    "sphinx of black quartz, judge my vow; jackdaws love my big sphinx of quartz",
    "pack my box with five dozen liquor jugs", "Caf\xc3\xa9 na\xc3\xafve \xc3\x89t\xc3\xa9 2001 42", NULL
};

static Tokenizer *train(int kind, Pool *pool, Error *err) {
    List l;
    TextSource s = texts(&l, much, 20);
    fresh(err);
    switch (kind) {
    case 0: return tokenizer_train_sentencepiece(s, 380, pool, err);
    case 1: return tokenizer_train_unigram(s, 330, pool, err);
    case 2: return tokenizer_train_bytelevel(s, 320, pool, err);
    case 3: return tokenizer_train_gpt2(s, 320, pool, err);
    default: return tokenizer_train_wordpiece(s, 150, kind == 5, pool, err);
    }
}

/* Texts that are easy to get wrong. A space or U+2581 at the start of a text has to stay. */
static const char words[] = "dog<New>the <new> <y>";
static const char *const odd[] = {
    words, "", " ", "the", " the", "  the  dog ", "\xe2\x96\x81the", "\nthe\tdog\r\n",
    "the<s>dog</s> the<unk> x",
    "<|endoftext|>the dog<|endoftext|>", "[CLS]the [MASK] dog[SEP]", " <mask> the", "\xf0\x9f\xa6\x99 the",
    "the\xff\xc3", "E\xcc\x81t\xc3\xa9 CAF\xc3\x89 2001", "\xe6\xbc\xa2\xe5\xad\x97jump",
    "quick-quickly!? 'tis", "the \xc2\xa0 dog\xe2\x80\x8d", "zebrasphinxjudgequartzvowboxing"
};
enum { ODD = sizeof odd / sizeof *odd };

static int same_ids(const Tokenizer *a, const Tokenizer *b, const char *text, size_t n, Pool *pool) {
    PoolMark mark = pool_mark(pool);
    int *p, *q, x, y, same;
    same = !tokenizer_encode(a, text, n, pool, &p, &x) && !tokenizer_encode(b, text, n, pool, &q, &y) &&
           x == y && !memcmp(p, q, (size_t)x * sizeof *p);
    pool_release(pool, mark);
    return same;
}

static void compare(const char *name, const Tokenizer *a, const Tokenizer *b, Pool *pool) {
    SpecialIds p = tokenizer_specials(a), q = tokenizer_specials(b);
    int w, x, y, z, i;
    AddedToken c, d;
    tokenizer_template(a, &w, &x);
    tokenizer_template(b, &y, &z);
    CHECK(w == y && x == z && p.bos == q.bos && p.eos == q.eos && p.pad == q.pad && p.unk == q.unk,
          "%s: the same template and special ids: bos %d %d, eos %d %d, pad %d %d, unk %d %d", name, p.bos,
          q.bos, p.eos, q.eos, p.pad, q.pad, p.unk, q.unk);
    CHECK(tokenizer_size(a) == tokenizer_size(b) && tokenizer_kind(a) == tokenizer_kind(b),
          "%s: the same kind and size", name);
    for (i = 0; i < ODD; i++) {
        CHECK(same_ids(a, b, odd[i], strlen(odd[i]), pool), "%s: the ids of '%s': %s, %s", name, odd[i],
              pieces(a, odd[i], pool), pieces(b, odd[i], pool));
        CHECK(strchr(odd[i], '\xff') || p.unk == 0 || !strcmp(back(a, odd[i], pool), back(b, odd[i], pool)),
              "%s: back to text: '%s'", name, odd[i]);
    }
    for (i = 0; tokenizer_added(a, i, &c) && tokenizer_added(b, i, &d); i++)
        CHECK(c.id == d.id && c.special == d.special && c.lstrip == d.lstrip && c.beyond == d.beyond,
              "%s: %s is the same", name, c.text);
    CHECK(i && !tokenizer_added(b, i, &d), "%s: as many special tokens: %d", name, i);
}

static const char *in(const char *folder, const char *name) {
    static char path[2][700];
    static int k;
    k = !k;
    snprintf(path[k], sizeof path[k], "%.600s/%.60s", folder, name);
    return path[k];
}

/* Returns 1 if both folders have the file with the same bytes, or neither has it. *count grows if they do. */
static int same_file(const char *a, const char *b, const char *name, int *count, Pool *pool) {
    char *x, *y;
    size_t n, m;
    if (!file_exists(in(a, name))) return !file_exists(in(b, name));
    if (file_read_all(in(a, name), pool, &x, &n, NULL)) return 0;
    if (file_read_all(in(b, name), pool, &y, &m, NULL)) return 0;
    ++*count;
    return n == m && !memcmp(x, y, n);
}

static const char *const file_name[] = {
    "tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json"
};
enum { FILE_NAMES = sizeof file_name / sizeof *file_name };

/* Tests a tokenizer: saved, opened, saved and opened again. folder: the names of three folders. */
static void test_folder(const char *name, const Tokenizer *t, char folder[3][600], Pool *pool) {
    static const char *const older[] = { "tokenizer.model", "vocab.json", "vocab.txt" };
    Error err;
    Tokenizer *u, *v;
    int i, k, files = 0, kind = tokenizer_kind(t);
    CHECK(!tokenizer_save(t, folder[0], 99, pool, fresh(&err)), "%s: saved: %s, %s", name, err.what,
          err.where);
    CHECK(file_exists(in(folder[0], "tokenizer.json")) && file_exists(in(folder[0], older[kind])),
          "%s: tokenizer.json beside the older file", name);
    u = tokenizer_open(folder[0], pool, fresh(&err));
    CHECK(u && u->json, "%s: tokenizer.json decides: %s, %s", name, err.what, err.where);
    v = tokenizer_open(in(folder[0], older[kind]), pool, fresh(&err));
    CHECK(v && !v->json && same_ids(t, v, odd[4], 4, pool), "%s: the older file alone: %s", name, err.what);
    if (!u) return;
    compare(name, t, u, pool);
    CHECK(!tokenizer_save(u, folder[1], 99, pool, fresh(&err)), "%s: saved again: %s", name, err.what);
    v = tokenizer_open(folder[1], pool, fresh(&err));
    CHECK(v && !tokenizer_save(v, folder[2], 99, pool, fresh(&err)), "%s: saved a third time: %s", name,
          err.what);
    for (i = 0; i < 5; i++)
        CHECK(same_file(folder[0], folder[1], file_name[i], &files, pool), "%s: %s is kept", name,
              file_name[i]);
    CHECK(files == (kind == TOKENIZER_BYTELEVEL ? 3 : 2), "%s: %d files are kept", name, files);
    for (i = 5; i < FILE_NAMES; i++)
        CHECK(same_file(folder[1], folder[2], file_name[i], &files, pool), "%s: %s stays as it is", name,
              file_name[i]);
    if (kind == TOKENIZER_SENTENCEPIECE) {
        char *config;
        size_t n;
        CHECK(!file_read_all(in(folder[0], "tokenizer_config.json"), pool, &config, &n, NULL) &&
              strstr(config, "\"tokenizer_class\": \"PreTrainedTokenizerFast\""),
              "%s: the class that leaves tokenizer.json as it is", name);
        CHECK(config && strstr(config, "\"model_input_names\": [\"input_ids\", \"attention_mask\"]"),
              "%s: this class is told to give no token_type_ids", name);
    }
    CHECK(!tokenizer_types(u), "%s: models of this tokenizer take no token_type_ids", name);
    for (k = 0; k < 3; k++) {
        for (i = 0; i < FILE_NAMES; i++) remove(in(folder[k], file_name[i]));
        remove(folder[k]);
    }
}

/* Adds tokens that are not special, which by default are looked for in the normal form. */
static void add_words(Tokenizer *t, Pool *pool) {
    static const char added[] = "{\"<New>\": %d, \"<y>\": %d}";
    char text[60];
    Error err;
    int V = tokenizer_size(t);
    snprintf(text, sizeof text, added, V, V + 1);
    CHECK(!tokenizer_beside(t, json_parse(text, strlen(text), pool, NULL), NULL, NULL, pool, fresh(&err)),
          "added tokens: %s", err.what);
}

static void test_json(void) {
    char folder[3][600];
    const char *tmp = getenv("TMPDIR");
    int kind, k;
    for (kind = 0; kind < KINDS; kind++) {
        Pool pool = test_pool();
        Error err;
        Tokenizer *t = train(kind, &pool, &err), *u;
        Buffer json = { &pool, NULL, 0, 0, 0 };
        CHECK(t, "%s: trained: %s, %lld of %lld", kind_name[kind], err.what, err.wanted, err.got);
        if (t) add_words(t, &pool);
        for (k = 0; k < 3; k++)
            snprintf(folder[k], sizeof folder[k], "%.400s/train_test.%lu.%d.%d", tmp ? tmp : "/tmp",
                     (unsigned long)time(NULL) ^ (unsigned long)clock(), kind, k);
        if (t && !folder_make(folder[0], &err)) test_folder(kind_name[kind], t, folder, &pool);
        else SKIP("%s: no folder can be made", kind_name[kind]);
        CHECK(t && !tokenizer_make_json(t, &json), "%s: a tokenizer.json", kind_name[kind]);
        u = tokenizer_json(json.data, json.length, &pool, fresh(&err));
        CHECK(u && tokenizer_make_json(u, &json) == E_UNSUPPORTED, "%s: it is read, and has its own file: %s",
              kind_name[kind], err.what);
        CHECK(u && same_ids(t, u, words, strlen(words), &pool), "%s: alone, it finds added tokens: %s",
              kind_name[kind], pieces(u, words, &pool));
        if (u) tokenizer_split_special(u);
        if (u) tokenizer_split_special(t);
        CHECK(u && same_ids(t, u, odd[8], strlen(odd[8]), &pool),
              "%s: names of special tokens as plain text: %s", kind_name[kind], pieces(u, odd[8], &pool));
        pool_free(&pool);
    }
}

/* ---- T5's layout ---- */

/* Returns 1 if the text has the ids of `wanted` (spaces between them). */
static int ids_are(const Tokenizer *t, const char *text, const char *wanted, Pool *pool) {
    Buffer b = { pool, NULL, 0, 0, 0 };
    int *ids, count, i;
    if (tokenizer_encode(t, text, strlen(text), pool, &ids, &count)) return 0;
    for (i = 0; i < count; i++) { if (i) buffer_u8(&b, ' '); buffer_integer(&b, ids[i]); }
    buffer_u8(&b, 0);
    return !strcmp((const char *)b.data, wanted);
}

static int token_is(const Tokenizer *t, int id, const char *text) {
    size_t n;
    const char *piece = tokenizer_piece(t, id, &n);
    return piece && n == strlen(text) && !memcmp(piece, text, n);
}

/* Saves a tokenizer, and compares it with what is read back. has: a file that is there; lacks: one that is
 * not. */
static void test_saved(const Tokenizer *t, const char *has, const char *lacks, Pool *pool) {
    static const char *const file[] = { "tokenizer.json", "spiece.model", "tokenizer_config.json",
                                        "special_tokens_map.json", "added_tokens.json" };
    char folder[600];
    const char *tmp = getenv("TMPDIR");
    Error err;
    Tokenizer *u;
    int i;
    snprintf(folder, sizeof folder, "%.400s/train_test_t5.%lu", tmp ? tmp : "/tmp",
             (unsigned long)time(NULL) ^ (unsigned long)clock());
    CHECK(!tokenizer_save(t, folder, 512, pool, fresh(&err)), "t5: saved: %s", err.what);
    CHECK(file_exists(in(folder, has)) && !file_exists(in(folder, lacks)), "t5: %s, no %s", has, lacks);
    u = tokenizer_open(folder, pool, fresh(&err));
    CHECK(u, "t5: opened: %s, %s", err.what, err.where);
    if (u) compare("t5", t, u, pool);
    for (i = 0; i < 5; i++) remove(in(folder, file[i]));
    remove(folder);
}

static void test_t5(void) {
    static const char *const little[] = { "a b", NULL };
    static const char *const same[][2] = {
        { " the\tquick\n\nfox \xc2\xa0 ", "the quick fox" },
        { "the<extra_id_0>dog", "the <extra_id_0> dog" } };
    Pool pool = test_pool();
    Error err;
    List l;
    Tokenizer *t = tokenizer_train_t5(texts(&l, much, 20), 170, &pool, fresh(&err)), *u;
    SpecialIds s;
    int before, after, i;
    CHECK(t, "t5: trained: %s, %lld of %lld", err.what, err.wanted, err.got);
    if (!t) return;
    s = tokenizer_specials(t);
    tokenizer_template(t, &before, &after);
    CHECK(tokenizer_size(t) == 170 && s.pad == 0 && s.eos == 1 && s.unk == 2 && s.bos == -1 && !before
          && after,
          "t5: <pad> </s> <unk> are 0, 1, 2, and </s> stands after a text");
    CHECK(token_is(t, 169, "<extra_id_0>") && token_is(t, 70, "<extra_id_99>")
          && token_is(t, 160, "<extra_id_9>"), "t5: the first sentinel is the last id");
    for (i = 0; i < 2; i++)
        CHECK(!strcmp(pieces(t, same[i][0], &pool), pieces(t, same[i][1], &pool)),
              "t5: words are what white space and sentinels cut: %s", pieces(t, same[i][0], &pool));
    CHECK(!strcmp(back(t, " the\tquick  fox ", &pool), "the quick fox"), "t5: back to text");
    CHECK(strstr(pieces(t, "the \xf0\x9f\xa6\x99", &pool), "<unk>"), "t5: an unknown character has no bytes");
    u = tokenizer_train_t5(texts(&l, much, 20), 170, &pool, &err);
    CHECK(u && !strcmp(pieces(u, words, &pool), pieces(t, words, &pool)),
          "t5: the same text gives the same tokenizer");
    test_saved(t, "tokenizer.json", "added_tokens.json", &pool);
    CHECK(!tokenizer_train_t5(texts(&l, much, 20), 110, &pool, fresh(&err)) && err.code == E_RANGE
          && err.wanted > 110, "t5: too small a vocabulary: %s", err.what);
    CHECK(!tokenizer_train_t5(texts(&l, little, 9), 900, &pool, fresh(&err)) && err.code == E_RANGE
          && err.wanted < 900, "t5: too little text: %s", err.what);
    pool_free(&pool);
}

/* Opens a SentencePiece model of <pad> </s> <unk>, U+2581 and "a", with a tokenizer_config.json. */
static Tokenizer *t5_model(const char *config, Pool *pool) {
    static const struct { const char *text; int type; } piece[] = {
        { "<pad>", PIECE_CONTROL }, { "</s>", PIECE_CONTROL }, { "<unk>", PIECE_UNKNOWN },
        { BLANK, PIECE_NORMAL }, { "a", PIECE_NORMAL } };
    Buffer b = { pool, NULL, 0, 0, 0 };
    Tokenizer *t;
    size_t i;
    for (i = 0; i < sizeof piece / sizeof *piece; i++) {
        const size_t n = strlen(piece[i].text);
        buffer_u8(&b, 1 << 3 | 2); buffer_u8(&b, (unsigned)n + 4);
        buffer_u8(&b, 1 << 3 | 2); buffer_u8(&b, (unsigned)n); buffer_bytes(&b, piece[i].text, n);
        buffer_u8(&b, 3 << 3); buffer_u8(&b, (unsigned)piece[i].type);
    }
    t = tokenizer_sentencepiece(b.data, b.length, pool, NULL);
    if (!t || tokenizer_beside(t, NULL, json_parse(config, strlen(config), pool, NULL), NULL, pool, NULL))
        return NULL;
    return t;
}

/* The sentinels that T5's class adds to a SentencePiece model. */
static void test_sentinels(void) {
    static const struct { const char *config; int size, first; } row[] = {
        { "{}", 105, 104 }, { "{\"tokenizer_class\": \"T5TokenizerFast\"}", 105, 104 },
        { "{\"extra_ids\": 3, \"additional_special_tokens\": [\"<extra_id_0>\", \"<extra_id_1>\", "
          "\"<extra_id_2>\"]}", 8, 7 },
        { "{\"extra_ids\": 0}", 5, -1 }, { "{\"tokenizer_class\": \"LlamaTokenizer\"}", 5, -1 },
        { "{\"extra_ids\": 1, \"added_tokens_decoder\": {\"9\": {\"content\": \"<extra_id_0>\", "
          "\"special\": true}}}", 10, 9 },
    };
    char file[700];
    Pool pool = test_pool();
    Error err;
    Tokenizer *t;
    size_t i;
    for (i = 0; i < sizeof row / sizeof *row; i++) {
        t = t5_model(row[i].config, &pool);
        CHECK(t && tokenizer_size(t) == row[i].size && tokenizer_find(t, "<extra_id_0>", 12) == row[i].first,
              "%s: %d ids, <extra_id_0> is %d", row[i].config, t ? tokenizer_size(t) : -1,
              t ? tokenizer_find(t, "<extra_id_0>", 12) : -1);
        if (t) test_saved(t, "spiece.model", "tokenizer.json", &pool);
    }
    snprintf(file, sizeof file, "%.600s/data/tokenizers/t5/spiece.model", shared());
    if (file_exists(file)) {
        t = tokenizer_open(file, &pool, fresh(&err));
        CHECK(t && tokenizer_size(t) == 32100 && token_is(t, 32000, "<extra_id_99>"),
              "T5's model has 32,100 ids");
        CHECK(t && ids_are(t, "The <extra_id_0> walks in <extra_id_1> park", "37 32099 10681 16 32098 2447",
                           &pool)
              && ids_are(t, "<extra_id_0> cute dog <extra_id_1> the <extra_id_2>",
                         "32099 5295 1782 32098 8 32097", &pool), "the ids in T5's documentation");
    } else SKIP("T5's model: no %s", file);
    pool_free(&pool);
}

/* What a tokenizer.json cannot say: then there is none. */
static void test_refused(void) {
    Pool pool = test_pool();
    Error err;
    Buffer json = { &pool, NULL, 0, 0, 0 };
    Tokenizer *t = train(0, &pool, &err);
    CHECK(t && !tokenizer_make_json(t, &json), "a plain model has a tokenizer.json");
    if (!t) { pool_free(&pool); return; }
    t->normal.only_first = 1;
    CHECK(tokenizer_make_json(t, &json) == E_UNSUPPORTED, "\"legacy\": false");
    t->normal.only_first = 0;
    t->normal.remove_extra_whitespaces = 1;
    CHECK(tokenizer_make_json(t, &json) == E_UNSUPPORTED, "a model that removes white space");
    t->normal.remove_extra_whitespaces = 0;
    t->piece[300].type = PIECE_UNUSED;
    CHECK(tokenizer_make_json(t, &json) == E_UNSUPPORTED, "a model with unused pieces");
    pool_free(&pool);
}

static void test_decimals(void) {
    static const struct { double x; const char *wanted; } row[] = {
        { -3.5, "350000000000000 14" }, { 0.1, "100000000000000 15" }, { 1.0 / 3, "3333333333333333 16" },
        { (double)-8.1234f, "812339973449707 14" }
    };
    char got[60];
    size_t i;
    uint64_t d;
    int places;
    for (i = 0; i < sizeof row / sizeof *row; i++) {
        int some = shortest_decimal(row[i].x, &d, &places);
        snprintf(got, sizeof got, "%llu %d", (unsigned long long)d, places);
        CHECK(some && !strcmp(got, row[i].wanted), "the fewest digits of %.17g: %s", row[i].x, got);
    }
    CHECK(!shortest_decimal(0, &d, &places) && !shortest_decimal(1e300, &d, &places), "numbers without them");
}

/* ---- the shipped tokenizers, over the shipped reviews ---- */
static void test_shipped(void) {
    static const char *const folder[] = { "data/policy", "data/reward" };
    Pool pool = test_pool();
    Error err = { 0 };
    Dataset d;
    int k;
    if (!file_exists("data/imdb.bin") || dataset_read(&d, "data/imdb.bin", &pool, &err)) {
        SKIP("the shipped tokenizers: no data/imdb.bin");
        pool_free(&pool);
        return;
    }
    for (k = 0; k < 2; k++) {
        Tokenizer *t = tokenizer_open(folder[k], &pool, fresh(&err)), *u;
        uint64_t i, same = 0;
        CHECK(t && t->json, "%s has a tokenizer.json: %s", folder[k], err.what);
        u = tokenizer_open(in(folder[k], k ? "vocab.json" : "tokenizer.model"), &pool, fresh(&err));
        CHECK(u && !u->json, "%s has an older file: %s", folder[k], err.what);
        if (!t || !u) continue;
        for (i = 0; i < d.count; i++)
            same += (uint64_t)same_ids(t, u, d.document[i].text[0], d.document[i].length[0], &pool);
        CHECK(same == d.count, "%s: %llu of %llu reviews have the same ids", folder[k],
              (unsigned long long)same, (unsigned long long)d.count);
        compare(folder[k], u, t, &pool);
    }
    pool_free(&pool);
}

/* Whether models take token_type_ids, by the files of a WordPiece tokenizer. */
static void test_types(void) {
    static const struct { const char *config; int wanted; } row[] = {
        { "{}", 1 }, { "{\"tokenizer_class\": \"BertTokenizer\"}", 1 },
        { "{\"tokenizer_class\": \"DistilBertTokenizer\"}", 0 },
        { "{\"model_input_names\": [\"input_ids\", \"attention_mask\"]}", 0 },
        { "{\"tokenizer_class\": \"DistilBertTokenizerFast\", "
          "\"model_input_names\": [\"input_ids\", \"token_type_ids\"]}", 1 },
    };
    static const char vocab[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n";
    Pool pool = test_pool();
    size_t i;
    for (i = 0; i < sizeof row / sizeof *row; i++) {
        Error err;
        Tokenizer *t = tokenizer_wordpiece(vocab, sizeof vocab - 1, &pool, fresh(&err));
        const Json *config = json_parse(row[i].config, strlen(row[i].config), &pool, &err);
        CHECK(t && !tokenizer_beside(t, NULL, config, NULL, &pool, &err) &&
              tokenizer_types(t) == row[i].wanted, "token_type_ids with %s", row[i].config);
    }
    pool_free(&pool);
}

int main(void) {
    test_wordpiece();
    test_gpt2();
    test_decimals();
    test_json();
    test_t5();
    test_sentinels();
    test_refused();
    test_types();
    test_shipped();
    return test_end("train");
}
