/* text/train.c - trains a tokenizer on texts. Counts the words of the texts. Then, for BPE, turns the most
 *          frequent pair of symbols into a new symbol, again and again; for a unigram model, calls
 *          text/train_unigram.c. At the end writes the bytes of the tokenizer's files, and opens them.
 * Source   Sennrich et al. 2016. Order of the ids: Llama's is <unk> <s> </s>, bytes, merges, characters;
 *          RoBERTa's is <s> <pad> </s> <unk>, bytes, merges, <mask>.
 * Needs    core.c, text/{unicode,pieces,bpe,bytelevel,model_file,train_unigram}.c.
 * Memory   takes scratch from the pool's source, and frees it before it opens the tokenizer.
 * Edges    equally frequent pairs (a rule orders them, so that training is deterministic), words without end,
 *          characters that are too rare to get a piece, too little text for the vocabulary. */
#include "text.h"

/* ==============================================================================================
 * The state of a training
 * ============================================================================================== */
enum { WORD_BYTES = 256,                    /* longer words are cut */
       /* stands for a character that has no symbol: nothing merges with it */
       BARRIER = -1 };
typedef struct { const char *text; size_t bytes; int64_t count; int *symbol; int symbols; } Word;
/* a symbol: a character or a byte, or two symbols that were merged */
typedef struct { const char *text; size_t bytes; int chars; } Unit;
typedef struct Place Place;
struct Place { int word; Place *next; };    /* lists words that have (or once had) a pair */
typedef struct { int left, right, fresh; int64_t count; Place *place; } Pair;
/* an entry of the heap: a pair, and its count when it was put there */
typedef struct { int64_t count; int pair; } Rank;
typedef struct { int left, right, id; } Learnt;
typedef struct {
    Pool pool;
    int bytelevel, failed;                  /* failed: 1 if memory is out */
    Word *word; size_t words, word_room; Table word_table;
    Unit *unit; int units, unit_room; Table unit_table;
    /* slot: a hash table (open addressing) of indexes of `pair` plus 1; 0: free */
    Pair *pair; size_t pairs, pair_room; int *slot; size_t slots;
    Rank *heap; size_t waiting, heap_room;
    int *fresh; size_t freshes, fresh_room; /* pairs whose count grew in this merge */
    Place *free_place; size_t free_places;
    Learnt *learnt; size_t learnts, learnt_room;
} Trainer;

/* Returns `array`, or a larger copy, with room for more than `used` elements; the smaller array stays in the
 * pool, unused. Without memory: sets tr->failed and returns `array` as it is. */
static void *grow(Trainer *tr, void *array, size_t used, size_t *room, size_t size) {
    void *bigger;
    if (used < *room) return array;
    if (used >= INT_MAX / 2) { tr->failed = 1; return array; }
    bigger = pool_take(&tr->pool, used ? 2 * used : 1024, size);
    if (!bigger) { tr->failed = 1; return array; }
    if (used) memcpy(bigger, array, used * size);
    *room = used ? 2 * used : 1024;
    return bigger;
}

/* Adds 1 to the count of a word of n bytes. */
static void add_word(Trainer *tr, const char *text, size_t n) {
    Word *w;
    int i;
    if (!n || tr->failed) return;
    i = table_find(&tr->word_table, text, n);
    if (i >= 0) { tr->word[i].count++; return; }
    tr->word = grow(tr, tr->word, tr->words, &tr->word_room, sizeof *tr->word);
    if (tr->failed) return;
    w = &tr->word[tr->words];
    w->text = pool_text(&tr->pool, text, n);
    w->bytes = n;
    w->count = 1;
    if (!w->text || table_add(&tr->word_table, &tr->pool, w->text, n, (int)tr->words)) tr->failed = 1;
    else tr->words++;
}

/* Returns the number of the symbol with this text (n bytes); adds the symbol if there is
 * none. -1: no memory. */
static int add_unit(Trainer *tr, const char *text, size_t n, int chars) {
    size_t room = (size_t)tr->unit_room;
    Unit *u;
    int i = table_find(&tr->unit_table, text, n);
    if (i >= 0) return i;
    tr->unit = grow(tr, tr->unit, (size_t)tr->units, &room, sizeof *tr->unit);
    tr->unit_room = (int)room;
    if (tr->failed) return -1;
    u = &tr->unit[tr->units];
    u->text = pool_text(&tr->pool, text, n);
    u->bytes = n;
    u->chars = chars;
    if (!u->text || table_add(&tr->unit_table, &tr->pool, u->text, n, tr->units)) tr->failed = 1;
    return tr->failed ? -1 : tr->units++;
}

/* ==============================================================================================
 * Pairs, the most frequent first
 * ============================================================================================== */
/* Returns byte i of the text that a pair spells. */
static int pair_byte(const Trainer *tr, const Pair *p, size_t i) {
    size_t n = tr->unit[p->left].bytes;
    return (unsigned char)(i < n ? tr->unit[p->left].text[i] : tr->unit[p->right].text[i - n]);
}

/* Returns 1 if pair a comes before pair b, which is equally frequent. Byte-level: the pair with the
 * smaller symbol numbers comes first. SentencePiece: the pair with fewer characters, then the pair
 * whose bytes are smaller. */
static int pair_before(const Trainer *tr, const Pair *a, const Pair *b) {
    if (!tr->bytelevel) {
        const Unit *c = &tr->unit[a->left], *d = &tr->unit[a->right];
        const Unit *e = &tr->unit[b->left], *f = &tr->unit[b->right];
        int p = c->chars + d->chars, q = e->chars + f->chars;
        size_t m = c->bytes + d->bytes, n = e->bytes + f->bytes, i;
        if (p != q) return p < q;
        for (i = 0; i < m && i < n; i++)
            if (pair_byte(tr, a, i) != pair_byte(tr, b, i)) return pair_byte(tr, a, i) < pair_byte(tr, b, i);
        if (m != n) return m < n;           /* else both texts are equal: the symbols' numbers decide */
    }
    return a->left != b->left ? a->left < b->left : a->right < b->right;
}

static int rank_before(const Trainer *tr, Rank a, Rank b) {
    return a.count != b.count ? a.count > b.count : pair_before(tr, &tr->pair[a.pair], &tr->pair[b.pair]);
}

static void rank_push(Trainer *tr, Rank r) {
    size_t i;
    tr->heap = grow(tr, tr->heap, tr->waiting, &tr->heap_room, sizeof *tr->heap);
    if (tr->failed) return;
    for (i = tr->waiting++; i && rank_before(tr, r, tr->heap[(i - 1) / 2]); i = (i - 1) / 2)
        tr->heap[i] = tr->heap[(i - 1) / 2];
    tr->heap[i] = r;
}

static Rank rank_pop(Trainer *tr) {
    Rank best = tr->heap[0], r = tr->heap[--tr->waiting];
    size_t i = 0, child;
    for (; (child = 2 * i + 1) < tr->waiting; i = child) {
        if (child + 1 < tr->waiting && rank_before(tr, tr->heap[child + 1], tr->heap[child])) child++;
        if (!rank_before(tr, tr->heap[child], r)) break;
        tr->heap[i] = tr->heap[child];
    }
    tr->heap[i] = r;
    return best;
}

static int *pair_slot(const Trainer *tr, int left, int right) {
    size_t i = pair_hash(left, right) & (tr->slots - 1);
    for (; tr->slot[i]; i = (i + 1) & (tr->slots - 1)) {
        const Pair *p = &tr->pair[tr->slot[i] - 1];
        if (p->left == left && p->right == right) break;
    }
    return &tr->slot[i];
}

/* Returns the pair (left, right); adds it if there is none. NULL: no memory. */
static Pair *find_pair(Trainer *tr, int left, int right) {
    int *slot;
    if (2 * tr->pairs >= tr->slots) {
        size_t i, slots = tr->slots ? 2 * tr->slots : 4096;
        int *s = pool_take(&tr->pool, slots, sizeof *s);
        if (!s) { tr->failed = 1; return NULL; }
        tr->slot = s;
        tr->slots = slots;
        for (i = 0; i < tr->pairs; i++) *pair_slot(tr, tr->pair[i].left, tr->pair[i].right) = (int)i + 1;
    }
    slot = pair_slot(tr, left, right);
    if (!*slot) {
        tr->pair = grow(tr, tr->pair, tr->pairs, &tr->pair_room, sizeof *tr->pair);
        if (tr->failed) return NULL;
        memset(&tr->pair[tr->pairs], 0, sizeof *tr->pair);
        tr->pair[tr->pairs].left = left;
        tr->pair[tr->pairs].right = right;
        *slot = (int)++tr->pairs;
    }
    return &tr->pair[*slot - 1];
}

/* Adds a word to the list of the words that have the pair. */
static void add_place(Trainer *tr, Pair *p, int word) {
    Place *place = tr->free_place;
    if (p->place && p->place->word == word) return;
    if (!tr->free_places) {
        place = pool_take(&tr->pool, 4096, sizeof *place);
        if (!place) { tr->failed = 1; return; }
        tr->free_places = 4096;
    }
    tr->free_place = place + 1;
    tr->free_places--;
    place->word = word;
    place->next = p->place;
    p->place = place;
}

/* Adds `more`, which may be negative, to the count of the pair (left, right); `word` is the word that
 * has it. Ignores pairs of more than 16 characters, the most that a piece of SentencePiece has
 * (byte-level: no limit). */
static void count_pair(Trainer *tr, int left, int right, int64_t more, int word) {
    Pair *p;
    if (left < 0 || right < 0 || tr->failed) return;
    if (!tr->bytelevel && tr->unit[left].chars + tr->unit[right].chars > 16) return;
    p = find_pair(tr, left, right);
    if (!p) return;
    p->count += more;
    if (more < 0) return;
    add_place(tr, p, word);
    if (p->fresh || tr->failed) return;
    tr->fresh = grow(tr, tr->fresh, tr->freshes, &tr->fresh_room, sizeof *tr->fresh);
    if (tr->failed) return;
    p->fresh = 1;
    tr->fresh[tr->freshes++] = (int)(p - tr->pair);
}

/* Puts the pairs whose count grew on the heap. A pair whose count fell keeps its place there until it reaches
 * the top (see learn). */
static void rank_fresh(Trainer *tr) {
    size_t i;
    for (i = 0; i < tr->freshes && !tr->failed; i++) {
        Rank r;
        r.pair = tr->fresh[i];
        r.count = tr->pair[r.pair].count;
        tr->pair[r.pair].fresh = 0;
        rank_push(tr, r);
    }
    tr->freshes = 0;
}

/* ==============================================================================================
 * Learning
 * ============================================================================================== */
/* Replaces the symbols a b by c in a word, from left to right, and updates the counts of the
 * pairs at each place. */
static void replace_pair(Trainer *tr, int word, int a, int b, int c) {
    Word *w = &tr->word[word];
    int i, n = 0;
    for (i = 0; i < w->symbols; i++) {
        if (w->symbol[i] == a && i + 1 < w->symbols && w->symbol[i + 1] == b) {
            int before = n ? w->symbol[n - 1] : BARRIER;
            int after = i + 2 < w->symbols ? w->symbol[i + 2] : BARRIER;
            count_pair(tr, before, a, -w->count, word);
            count_pair(tr, a, b, -w->count, word);
            count_pair(tr, b, after, -w->count, word);
            count_pair(tr, before, c, w->count, word);
            count_pair(tr, c, after, w->count, word);
            w->symbol[n++] = c;
            i++;
        } else w->symbol[n++] = w->symbol[i];
    }
    w->symbols = n;
}

/* Adds the merge of a pair to the list of merges. Returns the symbol that the pair becomes: the one that has
 * its text already, or a new one. -1: no memory. */
static int learn_pair(Trainer *tr, const Pair *p) {
    Unit left = tr->unit[p->left], right = tr->unit[p->right];
    size_t n = left.bytes + right.bytes;
    PoolMark mark;
    Learnt *l;
    char *text;
    tr->learnt = grow(tr, tr->learnt, tr->learnts, &tr->learnt_room, sizeof *tr->learnt);
    mark = pool_mark(&tr->pool);
    text = pool_take(&tr->pool, n, 1);
    if (!text || tr->failed) { tr->failed = 1; return -1; }
    memcpy(text, left.text, left.bytes);
    memcpy(text + left.bytes, right.text, right.bytes);
    l = &tr->learnt[tr->learnts++];
    l->left = p->left;
    l->right = p->right;
    l->id = table_find(&tr->unit_table, text, n);
    if (l->id >= 0) pool_release(&tr->pool, mark);
    else l->id = add_unit(tr, text, n, left.chars + right.chars);
    return l->id;
}

/* Merges the most frequent pair, again and again, until there are `units` symbols or no pair is left. */
static void learn(Trainer *tr, int units) {
    size_t i;
    int k;
    for (i = 0; i < tr->words && !tr->failed; i++)
        for (k = 0; k + 1 < tr->word[i].symbols; k++)
            count_pair(tr, tr->word[i].symbol[k], tr->word[i].symbol[k + 1], tr->word[i].count, (int)i);
    rank_fresh(tr);
    while (tr->units < units && tr->waiting && !tr->failed) {
        Rank r = rank_pop(tr);
        Pair p = tr->pair[r.pair];
        Place *place;
        if (p.count <= 0) continue;
        if (p.count != r.count) {           /* the pair has become rarer: push it with its present count */
            r.count = p.count;
            rank_push(tr, r);
            continue;
        }
        k = learn_pair(tr, &p);
        if (k < 0) return;
        tr->pair[r.pair].place = NULL;
        for (place = p.place; place && !tr->failed; place = place->next)
            replace_pair(tr, place->word, p.left, p.right, k);
        rank_fresh(tr);
    }
}

static void trainer_begin(Trainer *tr, const Pool *like, int bytelevel) {
    memset(tr, 0, sizeof *tr);
    tr->pool.source = like->source;
    tr->pool.sink = like->sink;
    tr->bytelevel = bytelevel;
}

/* Reserves room for the symbols of word i, at most one for each byte, and returns it. NULL: no memory. */
static int *word_symbols(Trainer *tr, size_t i) {
    Word *w = &tr->word[i];
    w->symbols = 0;
    w->symbol = pool_take(&tr->pool, w->bytes, sizeof *w->symbol);
    if (!w->symbol) tr->failed = 1;
    return w->symbol;
}

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
static void cut_words(Trainer *tr, const char *text, size_t n) {
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
            add_word(tr, word, have);
            have = 0;
        }
        if (class == CHAR_SPACE) { memcpy(word, BLANK, BLANK_LENGTH); have = BLANK_LENGTH; }
        else if (class != CONTROL) { memcpy(word + have, text + i, length); have += length; }
        before = class;
    }
    add_word(tr, word, have);
}

typedef struct { int64_t count; int32_t code; } Count;

static int compare_count(const void *a, const void *b) {
    const Count *p = a, *q = b;
    if (p->count != q->count) return (p->count < q->count) - (p->count > q->count);
    return (p->code > q->code) - (p->code < q->code);
}

/* Adds the first symbols: the most frequent characters, until they make up 99.95 % of the text. */
static void add_characters(Trainer *tr) {
    int64_t *count = pool_take(&tr->pool, CODES, sizeof *count), total = 0, sum = 0;
    Count *list;
    size_t i, at, n = 0;
    int32_t code;
    if (!count) { tr->failed = 1; return; }
    for (i = 0; i < tr->words; i++)
        for (at = 0; at < tr->word[i].bytes; ) {
            at += (size_t)utf8_decode(tr->word[i].text + at, tr->word[i].bytes - at, &code);
            if (code < 0) continue;
            n += count[code] == 0;
            count[code] += tr->word[i].count;
            total += tr->word[i].count;
        }
    list = pool_take(&tr->pool, n, sizeof *list);
    if (!list) { tr->failed = 1; return; }
    for (i = 0, code = 0; code < CODES; code++)
        if (count[code]) { list[i].count = count[code]; list[i++].code = code; }
    qsort(list, n, sizeof *list, compare_count);
    for (i = 0; i < n && (double)sum < 0.9995 * (double)total; i++) {
        char c[4];
        sum += list[i].count;
        add_unit(tr, c, (size_t)utf8_encode(c, list[i].code), 1);
    }
}

/* Turns each word into symbols, one for each character. */
static void spell_words(Trainer *tr) {
    size_t i, at, length;
    int32_t code;
    for (i = 0; i < tr->words && !tr->failed; i++) {
        Word *w = &tr->word[i];
        if (!word_symbols(tr, i)) return;
        for (at = 0; at < w->bytes; at += length) {
            length = (size_t)utf8_decode(w->text + at, w->bytes - at, &code);
            /* -1, which is BARRIER, if the character has no symbol */
            w->symbol[w->symbols++] = table_find(&tr->unit_table, w->text + at, length);
        }
    }
}

/* Learns BPE, and lists up to V pieces: first the merges, with the scores 0, -1, -2, ..., then the
 * characters, with the scores after these. */
static void learn_merges(Trainer *tr, int characters, int V, Piece *piece, int *pieces) {
    int i, merges;
    spell_words(tr);
    if (!tr->failed) learn(tr, V);
    merges = tr->units - characters;
    for (i = 0; i < tr->units && i < V; i++) {
        const Unit *u = &tr->unit[i < merges ? characters + i : i - merges];
        piece[i].text = u->text;
        piece[i].length = u->bytes;
        piece[i].score = -(f32)i;
    }
    *pieces = i;
}

/* Learns a unigram model of up to V pieces from the words and the characters of tr. */
static void learn_unigram(Trainer *tr, int V, Piece **piece, int *pieces) {
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

static int out_of_memory(Error *err) { return no_memory(err, "training a tokenizer"); }

/* Trains on the texts, and writes the bytes of SentencePiece's file to `model`. type: 1
 * unigram, 2 BPE. OK or *err. */
static int train_sentencepiece(Trainer *tr, TextSource source, int V, int type, Buffer *model, Error *err) {
    const char *text;
    size_t n;
    int room = V - LLAMA_RESERVED, pieces = 0;
    Piece *piece = NULL;
    while (!tr->failed && source.next(source.context, &text, &n)) cut_words(tr, text, n);
    if (!tr->failed && !tr->words) return fail(err, E_ARGUMENT, "no text to train a tokenizer on", "", 0, 0);
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
    if (!tr->failed && pieces < room)
        return fail(err, E_RANGE, "the text is too small for so large a vocabulary", "", V,
                    LLAMA_RESERVED + pieces);
    if (!tr->failed) write_model(model, piece, pieces, type);
    return tr->failed || model->failed ? out_of_memory(err) : OK;
}

static Tokenizer *train_model(TextSource source, int V, int type, Pool *pool, Error *err) {
    Trainer tr;
    Buffer model;
    int code;
    memset(&model, 0, sizeof model);
    model.pool = pool;
    trainer_begin(&tr, pool, 0);
    code = train_sentencepiece(&tr, source, V, type, &model, err);
    pool_free(&tr.pool);
    return code ? NULL : tokenizer_sentencepiece(model.data, model.length, pool, err);
}

Tokenizer *tokenizer_train_sentencepiece(TextSource source, int V, Pool *pool, Error *err) {
    return train_model(source, V, 2, pool, err);
}

Tokenizer *tokenizer_train_unigram(TextSource source, int V, Pool *pool, Error *err) {
    return train_model(source, V, 1, pool, err);
}

/* ==============================================================================================
 * Training byte-level BPE, with RoBERTa's order of ids: <s> <pad> </s> <unk>, bytes, merges, <mask>
 * ============================================================================================== */
enum { ROBERTA_FIRST = 4, ROBERTA_LAST = 1 };

static void put_token_id(Buffer *b, const char *text, size_t n, int id) {
    buffer_u8(b, id ? ',' : '{');
    buffer_u8(b, ' ');
    buffer_json_string(b, text, n);
    buffer_text(b, ": ");
    buffer_integer(b, id);
}

static void put_vocab(Buffer *vocab, Buffer *merges, const Trainer *tr) {
    static const char *const first[] = { "<s>", "<pad>", "</s>", "<unk>" };
    size_t k;
    int i;
    for (i = 0; i < ROBERTA_FIRST; i++) put_token_id(vocab, first[i], strlen(first[i]), i);
    for (i = 0; i < tr->units; i++)
        put_token_id(vocab, tr->unit[i].text, tr->unit[i].bytes, ROBERTA_FIRST + i);
    put_token_id(vocab, "<mask>", 6, ROBERTA_FIRST + tr->units);
    buffer_text(vocab, "}\n");
    buffer_text(merges, "#version: 0.2\n");
    for (k = 0; k < tr->learnts; k++) {
        const Unit *left = &tr->unit[tr->learnt[k].left], *right = &tr->unit[tr->learnt[k].right];
        buffer_bytes(merges, left->text, left->bytes);
        buffer_u8(merges, ' ');
        buffer_bytes(merges, right->text, right->bytes);
        buffer_u8(merges, '\n');
    }
}

/* Adds the first symbols, the 256 bytes, in the order of the characters that stand for them. unit[b]:
 * the symbol of byte b. */
static void add_bytes(Trainer *tr, int unit[256]) {
    ByteLevel b;
    int c;
    bytelevel_alphabet(&b);
    for (c = 0; c < BYTE_CHARS; c++) {
        char s[4];
        if (b.char_byte[c] >= 0) unit[b.char_byte[c]] = add_unit(tr, s, (size_t)utf8_encode(s, c), 1);
    }
}

static int train_bytelevel(Trainer *tr, TextSource source, int V, Buffer *vocab, Buffer *merges, Error *err) {
    int unit[256], k, room = V - ROBERTA_FIRST - ROBERTA_LAST;
    const char *text;
    size_t n, at, i, length;
    if (room < 256)
        return fail(err, E_RANGE, "the vocabulary is too small for 256 bytes and five special tokens", "", V,
                    ROBERTA_FIRST + 256 + ROBERTA_LAST);
    add_bytes(tr, unit);
    while (!tr->failed && source.next(source.context, &text, &n))
        for (at = 0; at < n; at += length) {
            length = bytelevel_word(text + at, n - at);
            for (i = 0; i < length; i += WORD_BYTES)
                add_word(tr, text + at + i, length - i < WORD_BYTES ? length - i : WORD_BYTES);
        }
    if (!tr->failed && !tr->words) return fail(err, E_ARGUMENT, "no text to train a tokenizer on", "", 0, 0);
    for (i = 0; i < tr->words && !tr->failed && word_symbols(tr, i); i++)
        for (k = 0; k < (int)tr->word[i].bytes; k++)
            tr->word[i].symbol[tr->word[i].symbols++] = unit[(unsigned char)tr->word[i].text[k]];
    if (!tr->failed) learn(tr, room);
    if (!tr->failed && tr->units < room)
        return fail(err, E_RANGE, "the text is too small for so large a vocabulary", "", V,
                    ROBERTA_FIRST + ROBERTA_LAST + tr->units);
    if (!tr->failed) put_vocab(vocab, merges, tr);
    return tr->failed || vocab->failed || merges->failed ? out_of_memory(err) : OK;
}

Tokenizer *tokenizer_train_bytelevel(TextSource source, int V, Pool *pool, Error *err) {
    Trainer tr;
    Buffer vocab, merges;
    int code;
    memset(&vocab, 0, sizeof vocab);
    vocab.pool = pool;
    merges = vocab;
    trainer_begin(&tr, pool, 1);
    code = train_bytelevel(&tr, source, V, &vocab, &merges, err);
    pool_free(&tr.pool);
    return code ? NULL : tokenizer_bytelevel(vocab.data, vocab.length, merges.data, merges.length, pool, err);
}
