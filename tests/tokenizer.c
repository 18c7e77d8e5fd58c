/* Tokenizers against the reference libraries' ids (../shared/golden/tokenizers), round trips, training, speed, and bad input.
 * With arguments it is the helper of tokenizer_sp.py (see `helper` below). */
#include "test.h"
#include <time.h>

typedef struct { char *data; size_t n; } Bytes;

static Bytes slurp(FILE *f) {
    Bytes out = { NULL, 0 };
    size_t room = 0, got;
    do {
        if (out.n == room) out.data = realloc(out.data, (room = room ? 2 * room : 1 << 16) + 1);
        got = fread(out.data + out.n, 1, room - out.n, f);
        out.n += got;
    } while (got);
    out.data[out.n] = 0;
    return out;
}

static Bytes read_file(const char *folder, const char *name) {
    char path[1024];
    Bytes out = { NULL, 0 };
    FILE *f;
    snprintf(path, sizeof path, "%s/%s/%s", shared(), folder, name);
    f = fopen(path, "rb");
    if (f) { out = slurp(f); fclose(f); }
    return out;
}

static double seconds(clock_t from) { return (double)(clock() - from) / CLOCKS_PER_SEC; }

static Tokenizer *open_model(const char *folder, const char *name, Pool *pool, Error *err) {
    Bytes f = read_file(folder, name);
    Tokenizer *t = f.data ? tokenizer_sentencepiece(f.data, f.n, pool, err) : NULL;
    free(f.data);
    return t;
}

static Tokenizer *open_bytelevel(const char *folder, Pool *pool, Error *err) {
    Bytes v = read_file(folder, "vocab.json"), m = read_file(folder, "merges.txt");
    Tokenizer *t = v.data && m.data ? tokenizer_bytelevel(v.data, v.n, m.data, m.n, pool, err) : NULL;
    free(v.data); free(m.data);
    return t;
}

/* 1 if the text has exactly these ids (specials: with the tokenizer's template around them). */
static int same_ids(const Tokenizer *t, const char *text, size_t n, const Json *wanted, int specials, Pool *pool) {
    int *ids, count, before = 0, after = 0, i = 0, good;
    SpecialIds s = tokenizer_specials(t);
    const Json *j = wanted->child;
    if (tokenizer_encode(t, text, n, pool, &ids, &count)) return 0;
    if (specials) tokenizer_template(t, &before, &after);
    good = wanted->count == (size_t)(count + before + after);
    if (good && before) { good = j->number == s.bos; j = j->next; }
    for (i = 0; good && i < count; i++, j = j->next) good = j->number == ids[i];
    if (good && after) good = j->number == s.eos;
    return good;
}

/* ---- goldens ---- */
typedef int (*Judge)(const Json *row, Pool *pool, void *context);      /* 1 right, 0 wrong, -1 not for us */

/* Every line of a golden file through a judge; one check for all. */
static void each_row(const char *file, const char *what, Judge judge, void *context, int wanted) {
    Bytes f = read_file("golden/tokenizers", file);
    Pool pool = test_pool();
    char *line = f.data, *end;
    int good = 0, bad = 0, number = 0;
    if (!f.data) { SKIP("%s: no %s", what, file); return; }
    for (; *line; line = end + (*end == '\n')) {
        PoolMark mark = pool_mark(&pool);
        const Json *row;
        int verdict;
        end = strchr(line, '\n');
        if (!end) end = line + strlen(line);
        number++;
        row = json_parse(line, (size_t)(end - line), &pool, NULL);
        verdict = row ? judge(row, &pool, context) : 0;
        good += verdict == 1;
        bad += verdict == 0;
        if (verdict == 0 && bad <= 3) printf("        %s: line %d of %s differs\n", what, number, file);
        pool_release(&pool, mark);
    }
    CHECK(bad == 0 && good == wanted, "%s: %d of %d rows of %s, %d differ", what, good, wanted, file, bad);
    free(f.data);
    pool_free(&pool);
}

typedef struct { const Tokenizer *t; const char *name; int decoded; } Column;

/* generated_*.jsonl: {"text", NAME: ids, "llama2_decoded"} */
static int judge_column(const Json *row, Pool *pool, void *context) {
    const Column *c = context;
    const Json *text = json_get(row, "text"), *ids = json_get(row, c->name), *back = json_get(row, "llama2_decoded");
    int *out, count;
    char *decoded;
    size_t n;
    if (!text || !ids) return -1;
    if (!same_ids(c->t, text->string, text->length, ids, 0, pool)) return 0;
    if (!c->decoded) return 1;
    if (!back) back = text;                 /* byte-level: the text itself */
    return !tokenizer_encode(c->t, text->string, text->length, pool, &out, &count) &&
           !tokenizer_decode(c->t, out, count, pool, &decoded, &n) && n == back->length && !memcmp(decoded, back->string, n);
}

/* published.jsonl and the llama.cpp suites: {"tokenizer", "text", "ids", "specials"}; rows whose text spells special tokens are
 * not for us. */
static int judge_suite(const Json *row, Pool *pool, void *context) {
    const Column *c = context;
    const Json *text = json_get(row, "text"), *ids = json_get(row, "ids");
    const char *specials = json_text(row, "specials", "none");
    if (strcmp(json_text(row, "tokenizer", ""), c->name) || json_bool(row, "parse_special", 0) || !json_bool(row, "dummy_prefix", 1)) return -1;
    if (!strcmp(specials, "BOS+EOS")) return -1;
    return text && ids && same_ids(c->t, text->string, text->length, ids, strcmp(specials, "none") != 0, pool);
}

static void column(const Tokenizer *t, const char *file, const char *name, int decoded, int rows) {
    Column c;
    c.t = t; c.name = name; c.decoded = decoded;
    if (t) each_row(file, name, judge_column, &c, rows); else SKIP("%s: no files", name);
}

static void suite(const Tokenizer *t, const char *file, const char *name, int rows) {
    Column c;
    c.t = t; c.name = name; c.decoded = 0;
    if (t) each_row(file, name, judge_suite, &c, rows); else SKIP("%s: no files", name);
}

/* ---- round trips over real text ---- */
typedef struct { char *line; Pool pool; PoolMark mark; int left; } Reviews;

/* A TextSource over the "text" fields of a JSONL file. */
static int next_text(void *context, const char **text, size_t *n) {
    Reviews *l = context;
    char *end = l->line && *l->line && l->left-- > 0 ? strchr(l->line, '\n') : NULL;
    const Json *row, *t;
    pool_release(&l->pool, l->mark);
    if (!end) return 0;
    row = json_parse(l->line, (size_t)(end - l->line), &l->pool, NULL);
    t = json_get(row, "text");
    l->line = end + 1;
    *text = t ? t->string : "";
    *n = t ? t->length : 0;
    return 1;
}

static TextSource lines(Reviews *l, char *data, int count) {
    TextSource s;
    memset(l, 0, sizeof *l);
    l->pool = test_pool();
    l->mark = pool_mark(&l->pool);
    l->line = data;
    l->left = count;
    s.next = next_text;
    s.context = l;
    return s;
}

/* decode(encode(text)) == text for `count` texts; returns the number that differ, -1 when there is none. */
static int round_trips(const Tokenizer *t, char *data, int count, double *took, long *tokens) {
    Reviews l;
    TextSource s = lines(&l, data, count);
    Pool pool = test_pool();
    const char *text;
    size_t n, m;
    int bad = 0, rows = 0, *ids, k;
    char *back;
    clock_t from = clock();
    *tokens = 0;
    while (s.next(s.context, &text, &n)) {
        PoolMark mark = pool_mark(&pool);
        if (tokenizer_encode(t, text, n, &pool, &ids, &k) || tokenizer_decode(t, ids, k, &pool, &back, &m) || m != n || memcmp(back, text, n)) bad++;
        else *tokens += k;
        pool_release(&pool, mark);
        rows++;
    }
    *took = seconds(from);
    pool_free(&pool);
    pool_free(&l.pool);
    return rows ? bad : -1;
}

/* `train OUT V` writes a SentencePiece model learnt from the {"text"} lines of the input; `encode MODEL` prints the ids of each
 * line; `decode MODEL` prints, as JSON, the text of each line of ids. Exit 1 on any error. */
static int helper(int argc, char **argv) {
    Pool pool = test_pool(), scratch = test_pool();
    Error err;
    Buffer out;
    Bytes in = slurp(stdin), model = { NULL, 0 };
    Reviews l;
    TextSource s = lines(&l, in.data, INT_MAX);
    Tokenizer *t;
    FILE *f;
    const char *text;
    char *line = in.data, *decoded;
    size_t n;
    int *ids, count, i, good = 1;
    memset(&err, 0, sizeof err);
    memset(&out, 0, sizeof out);
    out.pool = &pool;
    if (!strcmp(argv[1], "train") && argc == 4) {
        t = tokenizer_train_sentencepiece(s, atoi(argv[3]), &pool, &err);
        f = t && !tokenizer_write_sentencepiece(t, &out) ? fopen(argv[2], "wb") : NULL;
        good = f && fwrite(out.data, 1, out.length, f) == out.length && !fclose(f);
    } else {
        f = argc == 3 ? fopen(argv[2], "rb") : NULL;
        if (f) { model = slurp(f); fclose(f); }
        t = f ? tokenizer_sentencepiece(model.data, model.n, &pool, &err) : NULL;
        good = t != NULL;
        if (t && !strcmp(argv[1], "encode"))
            while (good && s.next(s.context, &text, &n)) {
                PoolMark mark = pool_mark(&scratch);
                good = !tokenizer_encode(t, text, n, &scratch, &ids, &count);
                for (i = 0; good && i < count; i++) printf("%d ", ids[i]);
                printf("\n");
                pool_release(&scratch, mark);
            }
        else if (t)
            for (; good && *line; line += *line == '\n') {
                PoolMark mark = pool_mark(&scratch);
                ids = pool_take(&scratch, strcspn(line, "\n") + 1, sizeof *ids);
                for (count = 0; *line && *line != '\n'; line += *line == ' ') ids[count++] = (int)strtol(line, &line, 10);
                good = !tokenizer_decode(t, ids, count, &scratch, &decoded, &n);
                memset(&out, 0, sizeof out);
                out.pool = &scratch;
                buffer_json_string(&out, decoded, n);
                buffer_u8(&out, '\n');
                if (good) fwrite(out.data, 1, out.length, stdout);
                pool_release(&scratch, mark);
            }
    }
    if (!good) fprintf(stderr, "tokenizer: %s: %s (%lld, %lld)\n", err.what, err.where, err.got, err.wanted);
    free(in.data); free(model.data);
    pool_free(&pool); pool_free(&scratch); pool_free(&l.pool);
    return !good;
}

/* ---- made-up text, so that the rest needs no files ---- */
typedef struct { Rng rng; int left; char text[512]; } Made;

static int next_made(void *context, const char **text, size_t *n) {
    Made *m = context;
    size_t at = 0;
    int i, k;
    if (m->left-- <= 0) return 0;
    for (i = 0; i < 40; i++) {
        uint64_t word = rng_below(&m->rng, 1 + rng_below(&m->rng, 400));      /* the same number is the same word; small ones are frequent */
        Rng letters = rng_stream(7, word, 0);
        if (i) m->text[at++] = ' ';
        for (k = 1 + (int)rng_below(&letters, 8); k; k--) m->text[at++] = (char)('a' + rng_below(&letters, 12));
    }
    *text = m->text;
    *n = at;
    return 1;
}

static TextSource made(Made *m, int count) {
    TextSource s;
    m->rng = rng_stream(1, 2, 3);
    m->left = count;
    s.next = next_made;
    s.context = m;
    return s;
}

static Tokenizer *train(int bytelevel, int texts, int V, Pool *pool, Error *err) {
    Made m;
    memset(err, 0, sizeof *err);
    return bytelevel ? tokenizer_train_bytelevel(made(&m, texts), V, pool, err) : tokenizer_train_sentencepiece(made(&m, texts), V, pool, err);
}

static Buffer written(const Tokenizer *t, int part, Pool *pool) {
    Buffer a, b;
    memset(&a, 0, sizeof a);
    a.pool = pool;
    b = a;
    if (tokenizer_kind(t) == TOKENIZER_SENTENCEPIECE) tokenizer_write_sentencepiece(t, &a);
    else tokenizer_write_bytelevel(t, &a, &b);
    return part ? b : a;
}

static int same_bytes(Buffer a, Buffer b) { return a.length && a.length == b.length && !memcmp(a.data, b.data, a.length); }

static int piece_is(const Tokenizer *t, int id, const char *text) {
    size_t n;
    const char *p = tokenizer_piece(t, id, &n);
    return p && n == strlen(text) && !memcmp(p, text, n) && tokenizer_find(t, text, n) == id;
}

/* Decoded text of the ids of a text is `wanted`. */
static int becomes(const Tokenizer *t, const char *text, size_t n, const char *wanted, Pool *pool) {
    int *ids, count;
    char *back;
    size_t m;
    return !tokenizer_encode(t, text, n, pool, &ids, &count) && !tokenizer_decode(t, ids, count, pool, &back, &m) &&
           m == strlen(wanted) && !memcmp(back, wanted, m + 1);
}

static void test_training(void) {
    Pool pool = test_pool();
    Error err;
    Tokenizer *a = train(0, 500, 600, &pool, &err), *b = train(0, 500, 600, &pool, &err), *c = train(1, 500, 700, &pool, &err),
              *d = train(1, 500, 700, &pool, &err), *e;
    Buffer vocab, merges;
    SpecialIds s;
    int before, after;
    CHECK(a && b && c && d, "training on made-up text");
    if (!a || !b || !c || !d) return;
    CHECK(same_bytes(written(a, 0, &pool), written(b, 0, &pool)), "the same text gives the same SentencePiece model");
    CHECK(same_bytes(written(c, 0, &pool), written(d, 0, &pool)) && same_bytes(written(c, 1, &pool), written(d, 1, &pool)),
          "and the same byte-level files");
    CHECK(tokenizer_size(a) == 600 && piece_is(a, 0, "<unk>") && piece_is(a, 1, "<s>") && piece_is(a, 2, "</s>") && piece_is(a, 3, "<0x00>") &&
          piece_is(a, 258, "<0xFF>"), "Llama's layout");
    s = tokenizer_specials(a);
    tokenizer_template(a, &before, &after);
    CHECK(s.unk == 0 && s.bos == 1 && s.eos == 2 && s.pad == -1 && before == 1 && after == 0, "Llama's special ids and template");
    CHECK(tokenizer_size(c) == 700 && piece_is(c, 0, "<s>") && piece_is(c, 1, "<pad>") && piece_is(c, 2, "</s>") && piece_is(c, 3, "<unk>") &&
          piece_is(c, 4, "!") && piece_is(c, 699, "<mask>"), "RoBERTa's layout");
    s = tokenizer_specials(c);
    tokenizer_template(c, &before, &after);
    CHECK(s.bos == 0 && s.pad == 1 && s.eos == 2 && s.unk == 3 && before == 1 && after == 1,
          "RoBERTa's special ids and template");
    vocab = written(c, 0, &pool);
    merges = written(c, 1, &pool);
    e = tokenizer_bytelevel(vocab.data, vocab.length, merges.data, merges.length, &pool, &err);
    CHECK(e && tokenizer_size(e) == 700 && same_bytes(written(e, 1, &pool), merges), "written files are read again");
    CHECK(becomes(a, "abc  def\nghi \t", 14, "abc  def\nghi \t", &pool) && becomes(a, " x", 2, " x", &pool) && becomes(a, "", 0, "", &pool), "round trips, SentencePiece");
    CHECK(becomes(a, "a\xff\xe2\x96z", 5, "a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz", &pool),
          "SentencePiece: each malformed byte is U+FFFD");
    CHECK(becomes(c, "a\xff\xe2\x96z\xed\xa0\x80", 8, "a\xef\xbf\xbd\xef\xbf\xbdz\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", &pool),
          "byte-level: each malformed sequence is");
    CHECK(becomes(c, "<s> </s>", 8, "<s> </s>", &pool), "special tokens in a text are text");
    CHECK(!train(0, 500, 262, &pool, &err) && err.code == E_RANGE && err.wanted > 262, "too small for the characters is refused");
    CHECK(!train(1, 500, 260, &pool, &err) && err.code == E_RANGE && err.wanted == 261, "too small for the bytes is refused");
    CHECK(!train(0, 2, 60000, &pool, &err) && err.code == E_RANGE && err.wanted < 60000, "too little text is refused");
    CHECK(!train(1, 2, 60000, &pool, &err) && err.code == E_RANGE && err.wanted < 60000,
          "too little text is refused, byte-level");
    CHECK(!train(0, 0, 300, &pool, &err) && err.code == E_ARGUMENT && !train(1, 0, 300, &pool, &err), "no text is refused");
    pool_free(&pool);
}

/* The definition of byte-level training: recount all pairs of all words for every merge. Letters and the blank only. */
static void test_definition(void) {
    enum { WORDS = 8000, MERGES = 120 };
    static int word[WORDS][10], length[WORDS];
    static long count[256 + MERGES][256 + MERGES];
    Pool pool = test_pool();
    Error err;
    Made m;
    TextSource source = made(&m, 200);
    const char *text;
    size_t n, at;
    Tokenizer *t = train(1, 200, 261 + MERGES, &pool, &err);
    Buffer b = t ? written(t, 1, &pool) : written(NULL, 0, &pool);
    char *line = strchr(pool_text(&pool, (char *)b.data, b.length), '\n') + 1;
    const char *name[256 + MERGES];
    int words = 0, i, j, k, good = 0;
    while (source.next(source.context, &text, &n))
        for (at = 0; at < n; words++)
            for (length[words] = 0; !length[words] || (at < n && text[at] != ' '); at++)
                word[words][length[words]++] = text[at] == ' ' ? 'a' + 200 - 97 : text[at];    /* the blank's character is behind the letters */
    for (i = 0; i < 256; i++) { char c[2] = { (char)i, 0 }; name[i] = pool_text(&pool, i == 200 - 97 + 'a' ? "\xc4\xa0" : c, 2); }
    for (k = 0; k < MERGES; k++) {
        int a = 0, z = 0;
        char *both, pair[64];
        memset(count, 0, sizeof count);
        for (i = 0; i < words; i++) for (j = 0; j + 1 < length[i]; j++) count[word[i][j]][word[i][j + 1]]++;
        for (i = 0; i < 256 + k; i++) for (j = 0; j < 256 + k; j++) if (count[i][j] > count[a][z]) { a = i; z = j; }
        snprintf(pair, sizeof pair, "%s %s\n", name[a], name[z]);
        good += !strncmp(line, pair, strlen(pair));
        line = strchr(line, '\n') + 1;
        both = pool_take(&pool, 64, 1);
        snprintf(both, 64, "%s%s", name[a], name[z]);
        name[256 + k] = both;
        for (i = 0; i < words; i++) {
            int out = 0;
            for (j = 0; j < length[i]; j++)
                if (word[i][j] == a && j + 1 < length[i] && word[i][j + 1] == z) { word[i][out++] = 256 + k; j++; }
                else word[i][out++] = word[i][j];
            length[i] = out;
        }
    }
    CHECK(good == MERGES, "merges are those of the definition: %d of %d", good, MERGES);
    pool_free(&pool);
}

/* ---- speed: well under a second here; the limit leaves room for sanitizers (what is quadratic takes minutes) ---- */
static void test_speed(const Tokenizer *t, const char *name) {
    enum { SIZE = 1000000 };
    static const char *const what[] = { "one character", "spaces", "random bytes", "random letters", "NULs" };
    Pool pool = test_pool();
    Rng rng = rng_stream(5, 5, 5);
    char *text = malloc(SIZE);
    int kind, i, *ids, count, code;
    for (kind = 0; t && kind < 5; kind++) {
        clock_t from;
        double took;
        for (i = 0; i < SIZE; i++)
            text[i] = (char)(kind == 0 ? 'a' : kind == 1 ? ' ' : kind == 2 ? (int)rng_below(&rng, 256) : kind == 3 ? 'a' + (int)rng_below(&rng, 26) : 0);
        from = clock();
        code = tokenizer_encode(t, text, SIZE, &pool, &ids, &count);
        took = seconds(from);
        CHECK(!code && count > 0 && took < 3.0, "%s: 1 MB of %s in %.2f s", name, what[kind], took);
        pool_free(&pool);
    }
    free(text);
}

/* ---- bad input ---- */
static void put_piece(Buffer *b, const char *text, int type) {
    size_t n = strlen(text);
    buffer_u8(b, 1 << 3 | 2); buffer_u8(b, (unsigned)n + 4);
    buffer_u8(b, 1 << 3 | 2); buffer_u8(b, (unsigned)n); buffer_bytes(b, text, n);
    buffer_u8(b, 3 << 3); buffer_u8(b, (unsigned)type);
}

/* A model of pieces "TEXT/TYPE TEXT/TYPE ..." and raw bytes behind them. Returns the error code of reading it. */
static int model_code(const char *pieces, const char *tail, size_t tail_n, char *what) {
    Pool pool = test_pool();
    Error err;
    Buffer b;
    Tokenizer *t;
    char text[64];
    int type, used;
    memset(&err, 0, sizeof err);
    memset(&b, 0, sizeof b);
    b.pool = &pool;
    for (; sscanf(pieces, " %63[^/]/%d%n", text, &type, &used) == 2; pieces += used) put_piece(&b, strcmp(text, "EMPTY") ? text : "", type);
    buffer_bytes(&b, tail, tail_n);
    t = tokenizer_sentencepiece(b.data, b.length, &pool, &err);
    if (what) strcpy(what, err.what);
    pool_free(&pool);
    return t ? OK : err.code ? err.code : -1;
}

static void test_bad_models(void) {
    static const char bpe[] = "\x12\x02\x18\x02", fallback[] = "\x12\x05\x18\x02\x98\x02\x01", unigram[] = "\x12\x02\x18\x01";
    static const struct { const char *name, *pieces, *tail; size_t n; int code; } bad[] = {
        { "a good one", "<unk>/2 a/1 b/1 ab/1", bpe, 4, OK },
        { "no pieces", "", bpe, 4, E_FORMAT },
        { "an empty piece", "<unk>/2 EMPTY/1", bpe, 4, E_FORMAT },
        { "a piece twice", "<unk>/2 a/1 a/4", bpe, 4, E_FORMAT },
        { "the same name as control and as text is allowed", "<unk>/2 a/1 a/3", bpe, 4, OK },
        { "no unknown piece", "a/1 b/1", bpe, 4, E_MISSING },
        { "two unknown pieces", "<unk>/2 u/2", bpe, 4, E_FORMAT },
        { "a byte piece without fallback", "<unk>/2 <0x41>/6", bpe, 4, E_FORMAT },
        { "fallback without all bytes", "<unk>/2 <0x41>/6", fallback, 7, E_MISSING },
        { "a byte piece that is none", "<unk>/2 <0x4G>/6", fallback, 7, E_FORMAT },
        { "unigram", "<unk>/2 a/1", unigram, 4, E_UNSUPPORTED },
        { "no model type (unigram)", "<unk>/2 a/1", "", 0, E_UNSUPPORTED },
        { "a denormaliser", "<unk>/2 a/1", "\x12\x02\x18\x02\x2a\x03\x12\x01x", 9, E_UNSUPPORTED },
        { "broken rules", "<unk>/2 a/1", "\x12\x02\x18\x02\x1a\x06\x12\x04\xff\xff\xff\x7f", 12, E_FORMAT },
        { "rules without an end", "<unk>/2 a/1", "\x12\x02\x18\x02\x1a\x0b\x12\x09\x04\0\0\0\0\0\0\0x", 17, E_FORMAT },
        { "a length beyond the end", "<unk>/2 a/1", "\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 10, E_FORMAT },
        { "a number of eleven bytes", "<unk>/2 a/1", "\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12, E_FORMAT },
        { "a group", "<unk>/2 a/1", "\x12\x02\x18\x02\x0b", 5, E_FORMAT },
        { "field number 0", "<unk>/2 a/1", "\x12\x02\x18\x02\x00\x01", 6, E_FORMAT },
        { "a score that is no number", "<unk>/2", "\x12\x02\x18\x02\x0a\x08\x0a\x01x\x15\x00\x00\xc0\x7f", 14, E_NUMBER },
    };
    size_t i;
    char what[200];
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        int code = model_code(bad[i].pieces, bad[i].tail, bad[i].n, what);
        CHECK(code == bad[i].code, "model: %s gives %d, wanted %d (%s)", bad[i].name, code, bad[i].code, what);
    }
    model_code("<unk>/2 a/1", unigram, 4, what);
    CHECK(strstr(what, "unigram") != NULL, "unigram is refused by its name: %s", what);
}

/* Every prefix of a model, and the model with each byte changed: read and used, or refused, never a crash. */
static void test_damaged(int bytelevel) {
    Pool pool = test_pool(), scratch = test_pool();
    Error err;
    Tokenizer *t = train(bytelevel, 50, 320, &pool, &err), *u;
    Buffer good = written(t, 0, &pool), merges = bytelevel ? written(t, 1, &pool) : good;
    unsigned char *bytes = malloc(good.length);
    size_t i;
    int prefixes = 0, *ids, count, changed = 0;
    char *back;
    size_t n;
    Rng rng = rng_stream(9, 9, 9);
    for (i = 0; i < 2 * good.length; i++) {
        size_t length = i < good.length ? i : good.length;
        PoolMark mark = pool_mark(&scratch);
        memcpy(bytes, good.data, good.length);
        if (i >= good.length) bytes[i - good.length] ^= (unsigned char)(1 + rng_below(&rng, 255));
        memset(&err, 0, sizeof err);
        u = bytelevel ? tokenizer_bytelevel(bytes, length, merges.data, merges.length, &scratch, &err) : tokenizer_sentencepiece(bytes, length, &scratch, &err);
        if (!u && !err.code) break;
        if (u && length < good.length) prefixes++;
        if (u && !tokenizer_encode(u, "abc de\xff fgh", 11, &scratch, &ids, &count) && !tokenizer_decode(u, ids, count, &scratch, &back, &n)) changed++;
        pool_release(&scratch, mark);
    }
    CHECK(i == 2 * good.length && prefixes <= 1, "%s: %lu prefixes and changed files, %d prefixes taken, %d files usable",
          bytelevel ? "vocab.json" : "tokenizer.model", (unsigned long)i, prefixes, changed);
    free(bytes);
    pool_free(&pool); pool_free(&scratch);
}

static int bytelevel_code(const char *vocab, const char *merges) {
    Pool pool = test_pool();
    Error err;
    Tokenizer *t;
    memset(&err, 0, sizeof err);
    t = tokenizer_bytelevel(vocab, strlen(vocab), merges, strlen(merges), &pool, &err);
    pool_free(&pool);
    return t ? OK : err.code ? err.code : -1;
}

static void test_bad_bytelevel(void) {
    static const struct { const char *name, *vocab, *merges; int code; } bad[] = {
        { "a good one", "{\"a\":0,\"b\":1,\"ab\":2}", "#version: 0.2\na b\n", OK },
        { "no line break at the end, and CR", "{\"a\":0,\"b\":1,\"ab\":2}", "#version: 0.2\r\na b\r\nb a", E_MISSING },
        { "CR", "{\"a\":0,\"b\":1,\"ab\":2}", "#version: 0.2\r\na b\r\n", OK },
        { "bad JSON", "{\"a\":0,\"b\":1", "", E_TRUNCATED },
        { "a list", "[\"a\"]", "", E_FORMAT },
        { "nothing in it", "{}", "", E_FORMAT },
        { "an id that is text", "{\"a\":\"0\"}", "", E_FORMAT },
        { "half an id", "{\"a\":0.5}", "", E_FORMAT },
        { "a negative id", "{\"a\":-1}", "", E_FORMAT },
        { "an enormous id", "{\"a\":1e300}", "", E_FORMAT },
        { "holes", "{\"a\":0,\"b\":2}", "", E_UNSUPPORTED },
        { "one id twice", "{\"a\":0,\"b\":0}", "", E_FORMAT },
        { "one token twice", "{\"a\":0,\"a\":1}", "", E_FORMAT },
        { "an empty token", "{\"\":0}", "", E_FORMAT },
        { "an unknown token", "{\"a\":0,\"b\":1,\"ab\":2}", "a c\n", E_MISSING },
        { "an unknown union", "{\"a\":0,\"b\":1,\"ab\":2}", "b a\n", E_MISSING },
        { "one word", "{\"a\":0,\"b\":1,\"ab\":2}", "ab\n", E_FORMAT },
        { "three words", "{\"a\":0,\"b\":1,\"ab\":2}", "a b ab\n", E_FORMAT },
        { "two blanks", "{\"a\":0,\"b\":1,\"ab\":2}", "a  b\n", E_FORMAT },
        { "an empty line", "{\"a\":0,\"b\":1,\"ab\":2}", "\na b\n", E_FORMAT },
    };
    size_t i;
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        int code = bytelevel_code(bad[i].vocab, bad[i].merges);
        CHECK(code == bad[i].code, "byte-level: %s gives %d, wanted %d", bad[i].name, code, bad[i].code);
    }
}

/* published.jsonl's toy vocabularies: not all bytes, and an <unk>. */
static int judge_toy(const Json *row, Pool *pool, void *context) {
    const Json *vocab = json_get(row, "vocab"), *merges = json_get(row, "merges"), *text = json_get(row, "text"), *j;
    Buffer v, m;
    Tokenizer *t;
    int id = 0;
    (void)context;
    if (strcmp(json_text(row, "tokenizer", ""), "toy_bpe")) return -1;
    memset(&v, 0, sizeof v);
    v.pool = pool;
    m = v;
    for (j = vocab->child; j; j = j->next) {
        buffer_text(&v, id ? "," : "{");
        buffer_json_string(&v, j->string, j->length);
        buffer_text(&v, ":");
        buffer_integer(&v, id++);
    }
    buffer_text(&v, "}");
    for (j = merges->child; j; j = j->next) { buffer_bytes(&m, j->string, j->length); buffer_text(&m, "\n"); }
    t = tokenizer_bytelevel(v.data, v.length, m.data, m.length, pool, NULL);
    return t && same_ids(t, text->string, text->length, json_get(row, "ids"), 0, pool);
}

/* A source that runs dry: whatever the allocation that fails, the answer is an error. */
static int blocks_left;
static void *few_blocks(size_t bytes) { return blocks_left-- > 0 ? malloc(bytes) : NULL; }

static void test_memory(void) {
    int blocks, kind, refused = 0, done = 0, wrong = 0;
    char *text = malloc(200000);
    memset(text, 'a', 200000);
    for (kind = 0; kind < 2; kind++)
        for (blocks = 0; blocks < 60; blocks++) {
            Pool pool = test_pool();
            Error err;
            Tokenizer *t;
            int *ids, count, code = -1;
            char *back;
            size_t n;
            pool.source = few_blocks;
            blocks_left = blocks;
            t = train(kind, 100, 400, &pool, &err);
            if (t) code = tokenizer_encode(t, text, 200000, &pool, &ids, &count);
            if (!code) code = tokenizer_decode(t, ids, count, &pool, &back, &n);
            if (!t) wrong += err.code != E_MEMORY; else wrong += code != OK && code != E_MEMORY;
            if (code) refused++; else done++;
            pool_free(&pool);
        }
    CHECK(!wrong && refused && done, "memory that runs out: %d refused, %d done, %d wrong", refused, done, wrong);
    free(text);
}

static void test_bad_ids(void) {
    Pool pool = test_pool();
    Error err;
    Tokenizer *t = train(0, 50, 300, &pool, &err);
    int ids[2] = { 1, 300 }, minus = -1;
    char *text;
    size_t n;
    CHECK(tokenizer_decode(t, ids, 2, &pool, &text, &n) == E_RANGE && tokenizer_decode(t, &minus, 1, &pool, &text, &n) == E_RANGE,
          "ids out of range");
    CHECK(!tokenizer_piece(t, 300, &n) && !tokenizer_piece(t, -1, NULL) && tokenizer_find(t, "nowhere", 7) == -1,
          "pieces out of range");
    CHECK(!tokenizer_decode(t, NULL, 0, &pool, &text, &n) && n == 0 && text && !*text, "no ids are no text");
    pool_free(&pool);
}

/* Both kinds trained on all reviews, in time, and used on them. */
static void test_reviews(char *data, const Tokenizer *gpt2, const Tokenizer *llama) {
    Pool pool = test_pool();
    Reviews l;
    Error err;
    Tokenizer *t;
    clock_t from = clock();
    double took;
    long tokens;
    int bad;
    memset(&err, 0, sizeof err);
    if (!data) { SKIP("reviews: no data/imdb/train.jsonl"); return; }
    t = tokenizer_train_sentencepiece(lines(&l, data, 25000), 4096, &pool, &err);
    took = seconds(from);
    pool_free(&l.pool);
    CHECK(t && tokenizer_size(t) == 4096 && took < 60, "SentencePiece BPE of 4096 on 25,000 reviews in %.1f s", took);
    bad = t ? round_trips(t, data, 2000, &took, &tokens) : -1;
    CHECK(bad == 0, "its round trips: %d differ (%ld tokens, %.1f s)", bad, tokens, took);
    from = clock();
    t = tokenizer_train_bytelevel(lines(&l, data, 25000), 8192, &pool, &err);
    took = seconds(from);
    pool_free(&l.pool);
    CHECK(t && tokenizer_size(t) == 8192 && took < 60, "byte-level BPE of 8192 on 25,000 reviews in %.1f s", took);
    bad = t ? round_trips(t, data, 25000, &took, &tokens) : -1;
    CHECK(bad == 0, "its round trips over all reviews: %d differ (%ld tokens, %.1f s)", bad, tokens, took);
    bad = gpt2 ? round_trips(gpt2, data, 25000, &took, &tokens) : -1;
    CHECK(bad == 0, "gpt2's: %d differ (%ld tokens, %.1f s)", bad, tokens, took);
    bad = llama ? round_trips(llama, data, 2000, &took, &tokens) : -1;
    CHECK(bad == 0, "llama2's over 2,000: %d differ (%ld tokens, %.1f s)", bad, tokens, took);
    pool_free(&pool);
}

int main(int argc, char **argv) {
    Pool pool = test_pool();
    Error err;
    Tokenizer *llama, *mistral, *tok512, *gpt2, *roberta, *bpe, *ours[2];
    Bytes imdb;
    if (argc > 1) return helper(argc, argv);
    imdb = read_file("data/imdb", "train.jsonl");
    memset(&err, 0, sizeof err);
    llama = open_model("data/tokenizers/llama2", "tokenizer.model", &pool, &err);
    mistral = open_model("data/tokenizers/mistral", "tokenizer.model", &pool, &err);
    tok512 = open_model("data/stories260K", "tokenizer.model", &pool, &err);
    bpe = open_model("data/tokenizers/other", "hf_test_sentencepiece_bpe.model", &pool, &err);
    gpt2 = open_bytelevel("data/tokenizers/gpt2", &pool, &err);
    roberta = open_bytelevel("data/tokenizers/roberta", &pool, &err);
    CHECK(err.code == OK, "the files are read: %s, %s", err.what, err.where);
    column(llama, "generated_sentencepiece.jsonl", "llama2", 1, 521);
    column(mistral, "generated_sentencepiece.jsonl", "mistral_v1", 0, 521);
    column(tok512, "generated_sentencepiece.jsonl", "tok512", 0, 521);
    column(bpe, "generated_sentencepiece.jsonl", "hf_test_sentencepiece_bpe", 0, 521);
    column(gpt2, "generated_bytelevel_bpe.jsonl", "gpt2", 1, 521);
    column(roberta, "generated_bytelevel_bpe.jsonl", "roberta", 1, 521);
    suite(llama, "published.jsonl", "llama2", 21);
    suite(gpt2, "published.jsonl", "gpt2", 25);
    suite(roberta, "published.jsonl", "roberta", 7);
    suite(llama, "llamacpp_llama-spm.jsonl", "llama-spm", 46);
    suite(llama, "llamacpp_phi-3.jsonl", "phi-3", 46);
    suite(gpt2, "llamacpp_gpt-2.jsonl", "gpt-2", 46);
    suite(roberta, "llamacpp_roberta-bpe.jsonl", "roberta-bpe", 46);
    each_row("published.jsonl", "toy_bpe", judge_toy, NULL, 2);
    test_training();
    test_definition();
    test_bad_models();
    test_bad_bytelevel();
    test_bad_ids();
    test_damaged(0);
    test_damaged(1);
    test_memory();
    ours[0] = train(0, 500, 600, &pool, &err);
    ours[1] = train(1, 500, 700, &pool, &err);
    test_speed(ours[0], "a SentencePiece model of ours");
    test_speed(ours[1], "a byte-level one of ours");
    test_speed(llama, "llama2");
    test_speed(gpt2, "gpt2");
    test_reviews(imdb.data, gpt2, llama);
    free(imdb.data);
    pool_free(&pool);
    return test_end("tokenizer");
}
