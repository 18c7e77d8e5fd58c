/* tests/unit/train.c - trains WordPiece and GPT-2's byte-level BPE on made-up texts: the vocabulary against
 * one that was worked out by hand, then texts into ids and back. */
#include "test.h"
#include "text/text.h"

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
    CHECK(t->file_length[0] == strlen(hug_vocab) && !memcmp(t->file[0], hug_vocab, strlen(hug_vocab)),
          "the vocabulary is the one worked out by hand: %s", t->file[0]);
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

int main(void) {
    test_wordpiece();
    test_gpt2();
    return test_end("train");
}
