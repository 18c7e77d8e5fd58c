/* text/train.c - trains a tokenizer on texts: cuts the texts into words and the words into symbols, learns
 *          merges (text/train_bpe.c) or a unigram model (text/train_unigram.c), writes the bytes of the
 *          tokenizer's files, and opens them.
 * Source   The order of the ids: Llama's is <unk> <s> </s>, bytes, merges, characters; RoBERTa's is <s> <pad>
 *          </s> <unk>, bytes, merges, <mask>; GPT-2's is bytes, merges, <|endoftext|>; T5's is <pad> </s>
 *          <unk>, pieces, <extra_id_99> ... <extra_id_0>. WordPiece as Hugging Face's tokenizers trains it:
 *          [PAD] [UNK] [CLS] [SEP] [MASK], characters, "##" with each, merges.
 * Needs    core.c, text/{unicode,pieces,bytelevel,wordpiece,beside,model_file,write_json,tokenizer_json,
 *          train_bpe,train_unigram}.c.
 * Memory   takes scratch from the pool's source, and frees it before it opens the tokenizer.
 * Edges    words without end, characters that are too rare to get a piece, too little text for the
 *          vocabulary. */
#include "text.h"

/* ==============================================================================================
 * Training in SentencePiece's layout
 * ============================================================================================== */
enum { CODES = 0x110000 };

/* Returns the class of a character for cut_words: CONTROL or a CHAR_. Marks of a script count as letters. */
enum { CONTROL = CHAR_OTHER + 1 };
static int class_of(int32_t code) {
    int class;
    if (code == ' ' || code == 0x2581) return CHAR_SPACE;
    if (code < 32 || code == 127) return CONTROL;
    class = unicode_class(code);
    if (class == CHAR_SPACE) class = CHAR_OTHER;
    return class == CHAR_OTHER && code >= 0x300 && code < 0x2000 ? CHAR_LETTER : class;
}

/* Cuts a text into words, and counts them. No piece will cross the ends of a word. Cuts before each space
 * (which begins the next word; the text gets one before it), at line breaks and other control characters, and
 * between letters, digits and other characters. Each digit is a word. */
static void cut_words(BpeTrainer *tr, const char *text, size_t n) {
    char word[WORD_BYTES];
    size_t i, length, have = 0;
    int before = CHAR_SPACE;
    for (i = 0; i < n; i += length) {
        int32_t code;
        int class;
        if (i == 0) { memcpy(word, BLANK, BLANK_LENGTH); have = BLANK_LENGTH; }
        length = (size_t)utf8_decode(text + i, n - i, &code);
        class = class_of(code);
        if (class == CHAR_SPACE || class == CHAR_NUMBER || class == CONTROL ||
            (before != CHAR_SPACE && class != before) || have + length > WORD_BYTES) {
            trainer_word(tr, word, have);
            have = 0;
        }
        if (class == CHAR_SPACE) { memcpy(word, BLANK, BLANK_LENGTH); have = BLANK_LENGTH; }
        else if (class != CONTROL) { memcpy(word + have, text + i, length); have += length; }
        before = class;
    }
    trainer_word(tr, word, have);
}

typedef struct { int64_t count; int32_t code; } Count;

static int compare_count(const void *a, const void *b) {
    const Count *p = a, *q = b;
    if (p->count != q->count) return (p->count < q->count) - (p->count > q->count);
    return (p->code > q->code) - (p->code < q->code);
}

/* Returns the characters of the words, the most frequent first; *n: their number. NULL: no memory. */
static Count *count_characters(BpeTrainer *tr, size_t *n) {
    int64_t *count = pool_take(&tr->pool, CODES, sizeof *count);
    Count *list;
    size_t i, at;
    int32_t code;
    *n = 0;
    for (i = 0; count && i < tr->words; i++)
        for (at = 0; at < tr->word[i].bytes; ) {
            at += (size_t)utf8_decode(tr->word[i].text + at, tr->word[i].bytes - at, &code);
            if (code < 0) continue;
            *n += count[code] == 0;
            count[code] += tr->word[i].count;
        }
    list = count ? pool_take(&tr->pool, *n + 1, sizeof *list) : NULL;
    if (!list) { tr->failed = 1; return NULL; }
    for (i = 0, code = 0; code < CODES; code++)
        if (count[code]) { list[i].count = count[code]; list[i++].code = code; }
    qsort(list, *n, sizeof *list, compare_count);
    return list;
}

/* Adds the first symbols: the most frequent characters, until they make up 99.95 % of the text. */
static void add_characters(BpeTrainer *tr) {
    size_t i, n;
    Count *list = count_characters(tr, &n);
    int64_t total = 0, sum = 0;
    if (!list) return;
    for (i = 0; i < n; i++) total += list[i].count;
    for (i = 0; i < n && (double)sum < 0.9995 * (double)total; i++) {
        char c[4];
        sum += list[i].count;
        trainer_unit(tr, c, (size_t)utf8_encode(c, list[i].code), 1);
    }
}

/* Turns each word into symbols, one for each character. For WordPiece, "##" stands before each character but
 * the first one of a word. */
static void spell_words(BpeTrainer *tr) {
    size_t i, at, length;
    int32_t code;
    for (i = 0; i < tr->words && !tr->failed; i++) {
        TrainerWord *w = &tr->word[i];
        if (!trainer_symbols(tr, i)) return;
        for (at = 0; at < w->bytes; at += length) {
            char c[6] = "##";
            size_t before = at ? tr->prefix : 0;
            length = (size_t)utf8_decode(w->text + at, w->bytes - at, &code);
            memcpy(c + before, w->text + at, length);
            /* -1, which is BARRIER, if the character has no symbol */
            w->symbol[w->symbols++] = table_find(&tr->unit_table, c, before + length);
        }
    }
}

/* Learns BPE, and lists up to V pieces: first the merges, with the scores 0, -1, -2, ..., then the
 * characters, with the scores after these. */
static void learn_merges(BpeTrainer *tr, int characters, int V, Piece *piece, int *pieces) {
    int i, merges;
    spell_words(tr);
    if (!tr->failed) trainer_learn(tr, V);
    merges = tr->units - characters;
    for (i = 0; i < tr->units && i < V; i++) {
        const TrainerUnit *u = &tr->unit[i < merges ? characters + i : i - merges];
        piece[i].text = u->text;
        piece[i].length = u->bytes;
        piece[i].score = -(f32)i;
    }
    *pieces = i;
}

/* Learns a unigram model of up to V pieces from the words and the characters of tr. */
static void learn_unigram(BpeTrainer *tr, int V, Piece **piece, int *pieces) {
    UnigramWord *word = pool_take(&tr->pool, tr->words, sizeof *word);
    Piece *character = pool_take(&tr->pool, (size_t)tr->units + 1, sizeof *character);
    UnigramText text = { word, tr->words, character, tr->units };
    size_t i;
    int k;
    if (!word || !character) { tr->failed = 1; return; }
    for (i = 0; i < tr->words; i++) {
        word[i].text = tr->word[i].text;
        word[i].bytes = tr->word[i].bytes;
        word[i].count = tr->word[i].count;
    }
    for (k = 0; k < tr->units; k++) {
        character[k].text = tr->unit[k].text;
        character[k].length = tr->unit[k].bytes;
        character[k].type = PIECE_NORMAL;
    }
    if (unigram_train(&text, V, &tr->pool, piece, pieces)) tr->failed = 1;
}

/* Adds the special tokens that are usual for the kind. Returns t, or NULL and *err. */
static Tokenizer *with_specials(Tokenizer *t, Pool *pool, Error *err) {
    return t && tokenizer_beside(t, NULL, NULL, NULL, pool, err) == OK ? t : NULL;
}

static int out_of_memory(Error *err) { return no_memory(err, "training a tokenizer"); }

static int no_text(Error *err) {
    return fail(err, E_ARGUMENT, "no text to train a tokenizer on", "", 0, 0);
}

/* most: the largest vocabulary that the text is enough for. */
static int too_little_text(Error *err, int V, int most) {
    return fail(err, E_RANGE, "the text is too small for so large a vocabulary", "", V, most);
}

/* Trains on the texts, and writes the bytes of SentencePiece's file to `model`. type: 1
 * unigram, 2 BPE. OK or *err. */
static int learn_model(BpeTrainer *tr, TextSource source, int V, int type, Buffer *model, Error *err) {
    const char *text;
    size_t n;
    int room = V - LLAMA_RESERVED, pieces = 0;
    Piece *piece = NULL;
    while (!tr->failed && source.next(source.context, &text, &n)) cut_words(tr, text, n);
    if (!tr->failed && !tr->words) return no_text(err);
    if (!tr->failed) add_characters(tr);
    if (!tr->failed && room < tr->units)
        return fail(err, E_RANGE,
                    "the vocabulary is too small for <unk> <s> </s>, 256 bytes and the characters", "", V,
                    LLAMA_RESERVED + tr->units);
    if (!tr->failed && type == 1) learn_unigram(tr, room, &piece, &pieces);
    else if (!tr->failed) {
        piece = pool_take(&tr->pool, (size_t)room + 1, sizeof *piece);
        if (piece) learn_merges(tr, tr->units, room, piece, &pieces); else tr->failed = 1;
    }
    if (!tr->failed && pieces < room) return too_little_text(err, V, LLAMA_RESERVED + pieces);
    if (!tr->failed) write_model(model, piece, pieces, type);
    return tr->failed || model->failed ? out_of_memory(err) : OK;
}

static Tokenizer *train_model(TextSource source, int V, int type, Pool *pool, Error *err) {
    BpeTrainer tr;
    Buffer model;
    int code;
    memset(&model, 0, sizeof model);
    model.pool = pool;
    trainer_begin(&tr, pool, 0, 0);
    code = learn_model(&tr, source, V, type, &model, err);
    pool_free(&tr.pool);
    if (code) return NULL;
    return with_specials(tokenizer_sentencepiece(model.data, model.length, pool, err), pool, err);
}

Tokenizer *tokenizer_train_sentencepiece(TextSource source, int V, Pool *pool, Error *err) {
    return train_model(source, V, 2, pool, err);
}

Tokenizer *tokenizer_train_unigram(TextSource source, int V, Pool *pool, Error *err) {
    return train_model(source, V, 1, pool, err);
}

/* ==============================================================================================
 * Training in T5's layout
 * ============================================================================================== */

/* Returns the index of the white space after s[at], or n. */
static size_t word_end(const char *s, size_t at, size_t n) {
    size_t length;
    while (at < n && class_at(s + at, n - at, &length) != CHAR_SPACE) at += length;
    return at;
}

/* Trains on the texts, which white space cuts into words, and writes the bytes of tokenizer.json. OK or
 * *err. */
static int learn_t5(BpeTrainer *tr, TextSource source, int V, Buffer *json, Error *err) {
    const char *text;
    size_t n, at, end;
    int room = V - T5_RESERVED, pieces = 0;
    Piece *piece = NULL;
    while (!tr->failed && source.next(source.context, &text, &n))
        for (at = space_after(text, 0, n); at < n; at = space_after(text, end, n)) {
            end = word_end(text, at, n);
            cut_words(tr, text + at, end - at);
        }
    if (!tr->failed && !tr->words) return no_text(err);
    if (!tr->failed) add_characters(tr);
    if (!tr->failed && room < tr->units)
        return fail(err, E_RANGE,
                    "the vocabulary is too small for <pad> </s> <unk>, 100 sentinels and the characters", "",
                    V, T5_RESERVED + tr->units);
    if (!tr->failed) learn_unigram(tr, room, &piece, &pieces);
    if (!tr->failed && pieces < room) return too_little_text(err, V, T5_RESERVED + pieces);
    if (!tr->failed && write_t5_json(json, piece, pieces)) tr->failed = 1;
    return tr->failed ? out_of_memory(err) : OK;
}

/* Opens the tokenizer.json, and names its special tokens. NULL and *err. */
static Tokenizer *open_t5(const Buffer *json, Pool *pool, Error *err) {
    static const char names[] =
        "{\"eos_token\": \"</s>\", \"pad_token\": \"<pad>\", \"unk_token\": \"<unk>\"}";
    const Json *config = json_parse(names, sizeof names - 1, pool, err);
    Tokenizer *t = config ? tokenizer_json((const char *)json->data, json->length, pool, err) : NULL;
    return t && tokenizer_beside(t, NULL, config, NULL, pool, err) == OK ? t : NULL;
}

Tokenizer *tokenizer_train_t5(TextSource source, int V, Pool *pool, Error *err) {
    BpeTrainer tr;
    Buffer json;
    int code;
    memset(&json, 0, sizeof json);
    json.pool = pool;
    trainer_begin(&tr, pool, 0, 0);
    code = learn_t5(&tr, source, V, &json, err);
    pool_free(&tr.pool);
    return code ? NULL : open_t5(&json, pool, err);
}

/* ==============================================================================================
 * Training byte-level BPE
 * ============================================================================================== */

/* The special tokens of a layout: those before the bytes, and the one after the merges. */
typedef struct { const char *first[4]; int firsts; const char *last; } ByteLayout;
static const ByteLayout roberta = { { "<s>", "<pad>", "</s>", "<unk>" }, 4, "<mask>" },
                        gpt2 = { { NULL }, 0, "<|endoftext|>" };

static void put_token_id(Buffer *b, const char *text, size_t n, int id) {
    buffer_u8(b, id ? ',' : '{');
    buffer_u8(b, ' ');
    buffer_json_string(b, text, n);
    buffer_text(b, ": ");
    buffer_integer(b, id);
}

static void put_vocab(Buffer *vocab, Buffer *merges, const BpeTrainer *tr, const ByteLayout *layout) {
    size_t k;
    int i, id = 0;
    for (; id < layout->firsts; id++) put_token_id(vocab, layout->first[id], strlen(layout->first[id]), id);
    for (i = 0; i < tr->units; i++) put_token_id(vocab, tr->unit[i].text, tr->unit[i].bytes, id++);
    put_token_id(vocab, layout->last, strlen(layout->last), id);
    buffer_text(vocab, "}\n");
    buffer_text(merges, "#version: 0.2\n");
    for (k = 0; k < tr->learnts; k++) {
        const TrainerUnit *left = &tr->unit[tr->learnt[k].left], *right = &tr->unit[tr->learnt[k].right];
        buffer_bytes(merges, left->text, left->bytes);
        buffer_u8(merges, ' ');
        buffer_bytes(merges, right->text, right->bytes);
        buffer_u8(merges, '\n');
    }
}

/* Adds the first symbols, the 256 bytes, in the order of the characters that stand for them. unit[b]:
 * the symbol of byte b. */
static void add_bytes(BpeTrainer *tr, int unit[256]) {
    ByteLevel b;
    int c;
    bytelevel_alphabet(&b);
    for (c = 0; c < BYTE_CHARS; c++) {
        char s[4];
        if (b.char_byte[c] >= 0) unit[b.char_byte[c]] = trainer_unit(tr, s, (size_t)utf8_encode(s, c), 1);
    }
}

/* Trains on the texts, and writes the bytes of vocab.json and merges.txt. OK or *err. */
static int learn_bytes(BpeTrainer *tr, TextSource source, int V, const ByteLayout *layout, Buffer file[2],
                       Error *err) {
    int unit[256], k, specials = layout->firsts + 1, room = V - specials;
    const char *text;
    size_t n, at, i, length;
    if (room < 256)
        return fail(err, E_RANGE, "the vocabulary is too small for 256 bytes and the special tokens", "", V,
                    256 + specials);
    add_bytes(tr, unit);
    while (!tr->failed && source.next(source.context, &text, &n))
        for (at = 0; at < n; at += length) {
            length = bytelevel_word(text + at, n - at);
            for (i = 0; i < length; i += WORD_BYTES)
                trainer_word(tr, text + at + i, length - i < WORD_BYTES ? length - i : WORD_BYTES);
        }
    if (!tr->failed && !tr->words) return no_text(err);
    for (i = 0; i < tr->words && !tr->failed && trainer_symbols(tr, i); i++)
        for (k = 0; k < (int)tr->word[i].bytes; k++)
            tr->word[i].symbol[tr->word[i].symbols++] = unit[(unsigned char)tr->word[i].text[k]];
    if (!tr->failed) trainer_learn(tr, room);
    if (!tr->failed && tr->units < room) return too_little_text(err, V, specials + tr->units);
    if (!tr->failed) put_vocab(&file[0], &file[1], tr, layout);
    return tr->failed || file[0].failed || file[1].failed ? out_of_memory(err) : OK;
}

static Tokenizer *train_bytes(TextSource source, int V, const ByteLayout *layout, Pool *pool, Error *err) {
    BpeTrainer tr;
    Buffer file[2];
    int code;
    memset(file, 0, sizeof file);
    file[0].pool = file[1].pool = pool;
    trainer_begin(&tr, pool, 1, 0);
    code = learn_bytes(&tr, source, V, layout, file, err);
    pool_free(&tr.pool);
    if (code) return NULL;
    return with_specials(tokenizer_bytelevel(file[0].data, file[0].length, file[1].data, file[1].length, pool,
                                             err), pool, err);
}

Tokenizer *tokenizer_train_bytelevel(TextSource source, int V, Pool *pool, Error *err) {
    return train_bytes(source, V, &roberta, pool, err);
}

Tokenizer *tokenizer_train_gpt2(TextSource source, int V, Pool *pool, Error *err) {
    return train_bytes(source, V, &gpt2, pool, err);
}

/* ==============================================================================================
 * Training WordPiece
 * ============================================================================================== */
static const char *const bert_special[] = { "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]" };
enum { BERT_SPECIALS = 5, BERT_CHARACTERS = 1000 };     /* the most characters that get a piece */

/* Counts the words of the texts, as BERT cuts them. Leaves out words of more than WORD_BYTES bytes. */
static void count_bert_words(BpeTrainer *tr, TextSource source, const BertRules *rules) {
    const char *text;
    char *normal = NULL;
    size_t n, room = 0, at, word, space;
    while (!tr->failed && source.next(source.context, &text, &n)) {
        size_t length = bert_normalise(NULL, text, n, rules);
        if (length > room) {
            room = 2 * length;
            normal = room < INT_MAX ? pool_take(&tr->pool, room, 1) : NULL;
        }
        if (!length) continue;
        if (!normal) { tr->failed = 1; return; }
        bert_normalise(normal, text, n, rules);
        for (at = 0; (word = bert_word(normal + at, length - at, &space)) != 0; at += space + word)
            if (word <= WORD_BYTES) trainer_word(tr, normal + at + space, word);
    }
}

static int compare_code(const void *a, const void *b) {
    const Count *p = a, *q = b;
    return (p->code > q->code) - (p->code < q->code);
}

/* Adds the first symbols: the most frequent characters, in the order of their code points; then, in the same
 * order and with "##" before it, each of them that some word has after its first character. */
static void add_bert_characters(BpeTrainer *tr) {
    size_t i, at, n;
    Count *list = count_characters(tr, &n);
    char *inside = list ? pool_take(&tr->pool, CODES, 1) : NULL, c[6] = "##";
    int32_t code;
    if (!inside) { tr->failed = 1; return; }
    for (i = 0; i < tr->words; i++) {
        const TrainerWord *w = &tr->word[i];
        for (at = (size_t)utf8_decode(w->text, w->bytes, &code); at < w->bytes; ) {
            at += (size_t)utf8_decode(w->text + at, w->bytes - at, &code);
            inside[code] = 1;
        }
    }
    if (n > BERT_CHARACTERS) n = BERT_CHARACTERS;
    qsort(list, n, sizeof *list, compare_code);
    for (i = 0; i < n; i++) trainer_unit(tr, c + 2, (size_t)utf8_encode(c + 2, list[i].code), 1);
    for (i = 0; i < n; i++)
        if (inside[list[i].code]) trainer_unit(tr, c, 2 + (size_t)utf8_encode(c + 2, list[i].code), 1);
}

/* Trains on the texts, and writes the bytes of vocab.txt. OK or *err. */
static int learn_wordpiece(BpeTrainer *tr, TextSource source, int V, const BertRules *rules, Buffer *vocab,
                           Error *err) {
    int i, room = V - BERT_SPECIALS;
    count_bert_words(tr, source, rules);
    if (!tr->failed && !tr->words) return no_text(err);
    if (!tr->failed) add_bert_characters(tr);
    if (!tr->failed && room < tr->units)
        return fail(err, E_RANGE, "the vocabulary is too small for the special tokens and the characters", "",
                    V, BERT_SPECIALS + tr->units);
    spell_words(tr);
    if (!tr->failed) trainer_learn(tr, room);
    if (!tr->failed && tr->units < room) return too_little_text(err, V, BERT_SPECIALS + tr->units);
    for (i = 0; i < BERT_SPECIALS; i++) {
        buffer_text(vocab, bert_special[i]);
        buffer_u8(vocab, '\n');
    }
    for (i = 0; i < tr->units; i++) {
        buffer_bytes(vocab, tr->unit[i].text, tr->unit[i].bytes);
        buffer_u8(vocab, '\n');
    }
    return tr->failed || vocab->failed ? out_of_memory(err) : OK;
}

Tokenizer *tokenizer_train_wordpiece(TextSource source, int V, int cased, Pool *pool, Error *err) {
    BertRules rules = { 1, 1, !cased, !cased };
    BpeTrainer tr;
    Buffer vocab;
    Tokenizer *t;
    int code;
    memset(&vocab, 0, sizeof vocab);
    vocab.pool = pool;
    trainer_begin(&tr, pool, 1, strlen("##"));
    code = learn_wordpiece(&tr, source, V, &rules, &vocab, err);
    pool_free(&tr.pool);
    t = code ? NULL : tokenizer_wordpiece(vocab.data, vocab.length, pool, err);
    if (t) t->wordpiece.rules = rules;
    if (t) t->no_types = 1;                 /* so that it suits DistilBERT, too */
    return with_specials(t, pool, err);
}
