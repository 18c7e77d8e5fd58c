/* tests/unit/tokenizer.c - tokenizers against the reference libraries' ids (../shared/golden/tokenizers),
 *          round
 * trips, training, speed, and bad input. With arguments it is the helper of tokenizer_sp.py (see `helper`
 *          below). */
#include "test.h"
#include "text/text.h"
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

/* Returns 1 if the text has exactly these ids (specials: with the tokenizer's template around them). */
static int same_ids(const Tokenizer *t, const char *text, size_t n, const Json *wanted, int specials,
                    Pool *pool) {
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
typedef int (*Judge)(const Json *row, Pool *pool, void *context);      /* 1 right, 0 wrong, -1 not meant */

/* Shows every line of a golden file to a judge; one check for all. */
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

typedef struct { const Tokenizer *t; const char *name; int decoded, special; } Column;

/* Judges a line of generated_*.jsonl: {"text", NAME: ids, "llama2_decoded"}. */
static int judge_column(const Json *row, Pool *pool, void *context) {
    const Column *c = context;
    const Json *text = json_get(row, "text"), *ids = json_get(row, c->name),
        *back = json_get(row, "llama2_decoded");
    int *out, count;
    char *decoded;
    size_t n;
    if (!text || !ids) return -1;
    if (!same_ids(c->t, text->string, text->length, ids, 0, pool)) return 0;
    if (!c->decoded) return 1;
    if (!back) back = text;                 /* byte-level: the text itself */
    return !tokenizer_encode(c->t, text->string, text->length, pool, &out, &count) &&
           !tokenizer_decode(c->t, out, count, pool, &decoded, &n) && n == back->length &&
               !memcmp(decoded, back->string, n);
}

/* Judges a line of published.jsonl and of the llama.cpp suites: {"tokenizer", "text", "ids", "specials"}.
 * special: the rows whose text spells special tokens, otherwise the others. */
static int judge_suite(const Json *row, Pool *pool, void *context) {
    const Column *c = context;
    const Json *text = json_get(row, "text"), *ids = json_get(row, "ids");
    const char *specials = json_text(row, "specials", "none");
    if (strcmp(json_text(row, "tokenizer", ""), c->name) ||
        json_bool(row, "parse_special", 0) != c->special || !json_bool(row, "dummy_prefix", 1)) return -1;
    if (!strcmp(specials, "BOS+EOS")) return -1;
    return text && ids && same_ids(c->t, text->string, text->length, ids, strcmp(specials, "none") != 0,
                                   pool);
}

static void column(const Tokenizer *t, const char *file, const char *name, int decoded, int rows) {
    Column c;
    c.t = t; c.name = name; c.decoded = decoded; c.special = 0;
    if (t) each_row(file, name, judge_column, &c, rows); else SKIP("%s: no files", name);
}

static void suite(const Tokenizer *t, const char *file, const char *name, int special, int rows) {
    Column c;
    c.t = t; c.name = name; c.decoded = 0; c.special = special;
    if (t) each_row(file, name, judge_suite, &c, rows); else SKIP("%s: no files", name);
}

/* Tests models of the unigram kind, with their normalisation rules. */
static void test_unigram_goldens(void) {
    static const struct { const char *folder, *file, *column, *published; int rows; } model[] = {
        { "data/tokenizers/t5", "spiece.model", "t5", "t5", 5 },
        { "data/tokenizers/other", "albert_spiece.model", "albert", NULL, 0 },
        { "data/tokenizers/other", "hf_test_sentencepiece.model", "hf_test_sentencepiece",
          "hf_test_sentencepiece.model", 2 },
        { "data/tokenizers/other", "sp_test_model.model", "sp_test_model", NULL, 0 },
    };
    size_t i;
    for (i = 0; i < sizeof model / sizeof *model; i++) {
        Pool pool = test_pool();
        Error err = { 0 };
        Tokenizer *t = open_model(model[i].folder, model[i].file, &pool, &err);
        CHECK(!err.code, "%s: %s, %s", model[i].file, err.what, err.where);
        column(t, "generated_sentencepiece.jsonl", model[i].column, 0, 521);
        if (model[i].published) suite(t, "published.jsonl", model[i].published, 0, model[i].rows);
        pool_free(&pool);
    }
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

/* Counts the texts, of `count`, for which decode(encode(text)) is another text; -1 if there are no texts. */
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
        if (tokenizer_encode(t, text, n, &pool, &ids, &k) || tokenizer_decode(t, ids, k, &pool, &back, &m) ||
            m != n || memcmp(back, text, n)) bad++;
        else *tokens += k;
        pool_release(&pool, mark);
        rows++;
    }
    *took = seconds(from);
    pool_free(&pool);
    pool_free(&l.pool);
    return rows ? bad : -1;
}

/* `stream MODEL` (for tokenizer_exact.py) reads texts, each a length of four bytes and so many bytes, and
 * writes for each the number of its ids and the ids, four bytes each, in this machine's order. */
static int stream(const char *path) {
    Pool pool = test_pool(), scratch = test_pool();
    Tokenizer *t = tokenizer_open(path, &pool, NULL);
    uint32_t n, k;
    int *ids, count, good;
    for (good = t != NULL; good && fread(&n, 4, 1, stdin) == 1; ) {
        PoolMark mark = pool_mark(&scratch);
        char *text = pool_take(&scratch, (size_t)n + 1, 1);
        good = fread(text, 1, n, stdin) == n &&
               !tokenizer_encode_plain(t, text, n, 1, &scratch, &ids, &count);
        k = (uint32_t)count;
        good = good && fwrite(&k, 4, 1, stdout) == 1 && fwrite(ids, sizeof *ids, k, stdout) == k &&
               !fflush(stdout);
        pool_release(&scratch, mark);
    }
    pool_free(&pool); pool_free(&scratch);
    return !good;
}

/* Prints the ids of each text, or id, from, to, exact of each token (spans). Returns 0 on an error. */
static int print_encoded(const Tokenizer *t, TextSource s, int spans, Pool *scratch) {
    const char *text;
    size_t n;
    int *ids, count, i, good = 1;
    while (good && s.next(s.context, &text, &n)) {
        PoolMark mark = pool_mark(scratch);
        TokenSpan *span = NULL;
        good = !(spans ? tokenizer_encode_spans(t, text, n, scratch, &ids, &span, &count)
                       : tokenizer_encode(t, text, n, scratch, &ids, &count));
        for (i = 0; good && i < count; i++)
            if (spans) printf("%d %d %d %d ", ids[i], (int)span[i].from, (int)span[i].to, span[i].exact);
            else printf("%d ", ids[i]);
        printf("\n");
        pool_release(scratch, mark);
    }
    return good;
}

/* Prints the text of each line of ids as JSON. Returns 0 on an error. */
static int print_decoded(const Tokenizer *t, char *line, Pool *scratch) {
    int good;
    for (good = 1; good && *line; line += *line == '\n') {
        PoolMark mark = pool_mark(scratch);
        int *ids = pool_take(scratch, strcspn(line, "\n") + 1, sizeof *ids), count;
        char *decoded;
        size_t n;
        Buffer out = { scratch, NULL, 0, 0, 0 };
        for (count = 0; *line && *line != '\n'; line += *line == ' ')
            ids[count++] = (int)strtol(line, &line, 10);
        good = !tokenizer_decode(t, ids, count, scratch, &decoded, &n);
        if (good) buffer_json_string(&out, decoded, n);
        buffer_u8(&out, '\n');
        if (good) fwrite(out.data, 1, out.length, stdout);
        pool_release(scratch, mark);
    }
    return good;
}

/* Opens a SentencePiece model, or a tokenizer.json by its name. */
static Tokenizer *open_file(const char *path, Pool *pool, Error *err) {
    FILE *f = fopen(path, "rb");
    size_t n = strlen(path);
    Bytes model;
    Tokenizer *t;
    if (!f) return NULL;
    model = slurp(f);
    fclose(f);
    t = (n > 5 && !strcmp(path + n - 5, ".json") ? tokenizer_json : tokenizer_sentencepiece)
        (model.data, model.n, pool, err);
    free(model.data);
    return t;
}

/* `train OUT V` (train-unigram) writes a SentencePiece model learnt from the {"text"} lines of the input;
 * `encode MODEL` prints the ids of each line; `spans MODEL` id, from, to, exact; `decode MODEL` prints, as
 * JSON, the text of each line of ids. Returns 1 on any error. */
static int helper(int argc, char **argv) {
    Pool pool = test_pool(), scratch = test_pool();
    Error err;
    Buffer out = { &pool, NULL, 0, 0, 0 };
    Bytes in = slurp(stdin);
    Reviews l;
    TextSource s = lines(&l, in.data, INT_MAX);
    Tokenizer *t;
    FILE *f;
    int good;
    memset(&err, 0, sizeof err);
    if (!strncmp(argv[1], "train", 5) && argc == 4) {
        Tokenizer *(*train)(TextSource, int, Pool *, Error *) = tokenizer_train_sentencepiece;
        if (argv[1][5]) train = tokenizer_train_unigram;
        t = train(s, atoi(argv[3]), &pool, &err);
        f = t && !tokenizer_file(t, "tokenizer.model", &out) ? fopen(argv[2], "wb") : NULL;
        good = f && fwrite(out.data, 1, out.length, f) == out.length && !fclose(f);
    } else {
        int spans = !strcmp(argv[1], "spans"), encodes = spans || !strcmp(argv[1], "encode");
        t = argc == 3 ? open_file(argv[2], &pool, &err) : NULL;
        good = t && (encodes ? print_encoded(t, s, spans, &scratch) : print_decoded(t, in.data, &scratch));
    }
    if (!good) fprintf(stderr, "tokenizer: %s: %s (%lld, %lld)\n", err.what, err.where, err.got, err.wanted);
    free(in.data);
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
        /* the same number is the same word; small ones are frequent */
        uint64_t word = rng_below(&m->rng, 1 + rng_below(&m->rng, 400));
        Rng letters = rng_stream(7, word, 0);
        if (i) m->text[at++] = ' ';
        for (k = 1 + (int)rng_below(&letters, 8); k; k--)
            m->text[at++] = (char)('a' + rng_below(&letters, 12));
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
    return bytelevel ? tokenizer_train_bytelevel(made(&m, texts), V, pool, err)
        : tokenizer_train_sentencepiece(made(&m, texts), V, pool, err);
}

static Buffer written(const Tokenizer *t, int part, Pool *pool) {
    Buffer a, b;
    memset(&a, 0, sizeof a);
    a.pool = pool;
    b = a;
    if (tokenizer_file(t, "tokenizer.model", &a)) tokenizer_file(t, "vocab.json", &a);
    tokenizer_file(t, "merges.txt", &b);
    return part ? b : a;
}

static int same_bytes(Buffer a, Buffer b) {
    return a.length && a.length == b.length && !memcmp(a.data, b.data, a.length);
}

static int piece_is(const Tokenizer *t, int id, const char *text) {
    size_t n;
    const char *p = tokenizer_piece(t, id, &n);
    return p && n == strlen(text) && !memcmp(p, text, n) && tokenizer_find(t, text, n) == id;
}

/* Checks that the ids of a text are decoded to `wanted`. */
static int becomes(const Tokenizer *t, const char *text, size_t n, const char *wanted, Pool *pool) {
    int *ids, count;
    char *back;
    size_t m;
    return !tokenizer_encode(t, text, n, pool, &ids, &count) &&
        !tokenizer_decode(t, ids, count, pool, &back, &m) &&
           m == strlen(wanted) && !memcmp(back, wanted, m + 1);
}

static void test_training(void) {
    Pool pool = test_pool();
    Error err;
    Tokenizer *a = train(0, 500, 600, &pool, &err), *b = train(0, 500, 600, &pool, &err),
              *c = train(1, 500, 700, &pool, &err),
              *d = train(1, 500, 700, &pool, &err), *e;
    Buffer vocab, merges;
    SpecialIds s;
    int before, after;
    CHECK(a && b && c && d, "training on made-up text");
    if (!a || !b || !c || !d) return;
    CHECK(same_bytes(written(a, 0, &pool), written(b, 0, &pool)),
          "the same text gives the same SentencePiece model");
    CHECK(same_bytes(written(c, 0, &pool), written(d, 0, &pool)) &&
          same_bytes(written(c, 1, &pool), written(d, 1, &pool)),
          "and the same byte-level files");
    CHECK(tokenizer_size(a) == 600 && piece_is(a, 0, "<unk>") && piece_is(a, 1, "<s>") &&
          piece_is(a, 2, "</s>") && piece_is(a, 3, "<0x00>") &&
          piece_is(a, 258, "<0xFF>"), "Llama's layout");
    s = tokenizer_specials(a);
    tokenizer_template(a, &before, &after);
    CHECK(s.unk == 0 && s.bos == 1 && s.eos == 2 && s.pad == -1 && before == 1 && after == 0,
          "Llama's special ids and template");
    CHECK(tokenizer_size(c) == 700 && piece_is(c, 0, "<s>") && piece_is(c, 1, "<pad>") &&
          piece_is(c, 2, "</s>") && piece_is(c, 3, "<unk>") &&
          piece_is(c, 4, "!") && piece_is(c, 699, "<mask>"), "RoBERTa's layout");
    s = tokenizer_specials(c);
    tokenizer_template(c, &before, &after);
    CHECK(s.bos == 0 && s.pad == 1 && s.eos == 2 && s.unk == 3 && before == 1 && after == 1,
          "RoBERTa's special ids and template");
    vocab = written(c, 0, &pool);
    merges = written(c, 1, &pool);
    e = tokenizer_bytelevel(vocab.data, vocab.length, merges.data, merges.length, &pool, &err);
    CHECK(e && tokenizer_size(e) == 700 && same_bytes(written(e, 1, &pool), merges),
          "written files are read again");
    CHECK(becomes(a, "abc  def\nghi \t", 14, "abc  def\nghi \t", &pool) && becomes(a, " x", 2, " x", &pool) &&
          becomes(a, "", 0, "", &pool),
          "round trips, SentencePiece");
    CHECK(becomes(a, "a\xff\xe2\x96z", 5, "a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz", &pool),
          "SentencePiece: each malformed byte is U+FFFD");
    CHECK(becomes(c, "a\xff\xe2\x96z\xed\xa0\x80", 8,
                  "a\xef\xbf\xbd\xef\xbf\xbdz\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", &pool),
          "byte-level: each malformed sequence is");
    CHECK(becomes(c, "<s> </s>", 8, " ", &pool), "special tokens in a text are cut out");
    CHECK(!train(0, 500, 262, &pool, &err) && err.code == E_RANGE && err.wanted > 262,
          "too small for the characters is refused");
    CHECK(!train(1, 500, 260, &pool, &err) && err.code == E_RANGE && err.wanted == 261,
          "too small for the bytes is refused");
    CHECK(!train(0, 2, 60000, &pool, &err) && err.code == E_RANGE && err.wanted < 60000,
          "too little text is refused");
    CHECK(!train(1, 2, 60000, &pool, &err) && err.code == E_RANGE && err.wanted < 60000,
          "too little text is refused, byte-level");
    CHECK(!train(0, 0, 300, &pool, &err) && err.code == E_ARGUMENT && !train(1, 0, 300, &pool, &err),
          "no text is refused");
    pool_free(&pool);
}

/* Tests byte-level training against its definition: recount all pairs of all words for every merge. Letters
 * and the space only. */
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
                /* the space's character comes after the letters */
                word[words][length[words]++] = text[at] == ' ' ? 'a' + 200 - 97 : text[at];
    for (i = 0; i < 256; i++) {
        char c[2] = { (char)i, 0 };
        name[i] = pool_text(&pool, i == 200 - 97 + 'a' ? "\xc4\xa0" : c, 2);
    }
    for (k = 0; k < MERGES; k++) {
        int a = 0, z = 0;
        char *both, pair[64];
        memset(count, 0, sizeof count);
        for (i = 0; i < words; i++) for (j = 0; j + 1 < length[i]; j++) count[word[i][j]][word[i][j + 1]]++;
        for (i = 0; i < 256 + k; i++)
            for (j = 0; j < 256 + k; j++) if (count[i][j] > count[a][z]) { a = i; z = j; }
        snprintf(pair, sizeof pair, "%s %s\n", name[a], name[z]);
        good += !strncmp(line, pair, strlen(pair));
        line = strchr(line, '\n') + 1;
        both = pool_take(&pool, 64, 1);
        snprintf(both, 64, "%s%s", name[a], name[z]);
        name[256 + k] = both;
        for (i = 0; i < words; i++) {
            int out = 0;
            for (j = 0; j < length[i]; j++)
                if (word[i][j] == a && j + 1 < length[i] && word[i][j + 1] == z) {
                    word[i][out++] = 256 + k;
                    j++;
                } else word[i][out++] = word[i][j];
            length[i] = out;
        }
    }
    CHECK(good == MERGES, "merges are those of the definition: %d of %d", good, MERGES);
    pool_free(&pool);
}

/* ---- speed: well under a second here; the limit leaves room for sanitizers (what is quadratic takes
 * minutes) ---- */
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
            text[i] = (char)(kind == 0 ? 'a' : kind == 1 ? ' ' : kind == 2 ? (int)rng_below(&rng, 256)
                             : kind == 3 ? 'a' + (int)rng_below(&rng, 26) : 0);
        from = clock();
        code = tokenizer_encode(t, text, SIZE, &pool, &ids, &count);
        took = seconds(from);
        CHECK(!code && count > 0 && took < 3.0, "%s: 1 MB of %s in %.2f s", name, what[kind], took);
        pool_free(&pool);
    }
    free(text);
}

/* ---- tokenizer.json, made here from the other files ---- */
static Buffer new_buffer(Pool *pool) { Buffer b; memset(&b, 0, sizeof b); b.pool = pool; return b; }

static void put_added(Buffer *b, const char *const *name, const int *id, int n) {
    int i;
    buffer_text(b, "\"added_tokens\": [");
    for (i = 0; i < n; i++) {
        buffer_text(b, i ? ", {\"content\": " : "{\"content\": ");
        buffer_json_string(b, name[i], strlen(name[i]));
        buffer_text(b, ", \"id\": ");
        buffer_integer(b, id[i]);
        buffer_text(b, strcmp(name[i], "<mask>") ? "" : ", \"lstrip\": true");
        buffer_text(b, ", \"special\": true, \"normalized\": false}");
    }
    buffer_text(b, "], ");
}

/* Appends the two strings of a merge: "left right" or ["left", "right"]. */
static void put_merge(Buffer *b, const char *left, size_t m, const char *right, size_t n, int pairs,
                      int first) {
    Buffer both = new_buffer(b->pool);
    buffer_text(b, first ? "" : ", ");
    if (pairs) {
        buffer_text(b, "[");
        buffer_json_string(b, left, m);
        buffer_text(b, ", ");
        buffer_json_string(b, right, n);
        buffer_text(b, "]");
        return;
    }
    buffer_bytes(&both, left, m);
    buffer_text(&both, " ");
    buffer_bytes(&both, right, n);
    buffer_json_string(b, (char *)both.data, both.length);
}

enum { AS_GPT2, AS_SPLIT, AS_ROBERTA };     /* AS_SPLIT: GPT-2 with its pattern in a Split */

static Buffer json_bytelevel(const char *vocab, size_t vocab_n, const char *merges, int kind, int pairs,
                             Pool *pool) {
    static const char *const end[] = { "<|endoftext|>" }, *const roberta[] =
        { "<s>", "<pad>", "</s>", "<unk>", "<mask>" };
    static const int end_id[] = { 50256 };
    int id[] = { 0, 1, 2, 3, 50264 }, first = 1;
    const Json *root = json_parse(vocab, vocab_n, pool, NULL);
    Buffer b = new_buffer(pool);
    const char *p, *stop, *gap;
    id[4] = (int)json_number(root, "<mask>", 0);
    buffer_text(&b, "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, ");
    if (kind == AS_ROBERTA) put_added(&b, roberta, id, 5);
    else put_added(&b, end, end_id, json_get(root, end[0]) != NULL);
    buffer_text(&b, "\"normalizer\": null, \"pre_tokenizer\": ");
    buffer_text(&b, kind == AS_SPLIT ? "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", "
                                       "\"pattern\": {\"Regex\": \"'s|'t|'re|'ve|'m|'ll|'d| "
                    "?\\\\p{L}+| ?\\\\p{N}+| ?[^\\\\s\\\\p{L}\\\\p{N}]+|\\\\s+(?!\\\\S)|\\\\s+\"}, "
                    "\"behavior\": \"Isolated\", \"invert\": false}, "
                    "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, "
                    "\"use_regex\": false}]}"
                  : "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true}");
    buffer_text(&b, ", \"post_processor\": ");
    buffer_text(&b, kind == AS_ROBERTA
                  ? "{\"type\": \"RobertaProcessing\", \"sep\": [\"</s>\", 2], \"cls\": [\"<s>\", 0], "
                    "\"trim_offsets\": true, \"add_prefix_space\": false}"
                  : "{\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": false}");
    buffer_text(&b, ", \"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": \"BPE\", \"dropout\": "
                    "null, \"unk_token\": null, \"vocab\": ");
    buffer_bytes(&b, vocab, vocab_n);
    buffer_text(&b, ", \"merges\": [");
    for (p = merges; *p; p = stop + (*stop == '\n')) {
        stop = p + strcspn(p, "\n");
        gap = memchr(p, ' ', (size_t)(stop - p));
        if (*p == '#' && p == merges) continue;
        put_merge(&b, p, (size_t)(gap - p), gap + 1, (size_t)(stop - gap - 1), pairs, first);
        first = 0;
    }
    buffer_text(&b, "]}}");
    return b;
}

typedef struct { const char *text; size_t n; float score; } Scored;
typedef struct { int left, right; float score; size_t ln, rn; } Join;

/* Sorts better scores first, then longer left and right parts (in characters): the order in which Hugging
 * Face's converter lists merges. */
static int compare_join(const void *a, const void *b) {
    const Join *p = a, *q = b;
    if (p->score != q->score) return p->score > q->score ? -1 : 1;
    if (p->ln != q->ln) return p->ln > q->ln ? -1 : 1;
    if (p->rn != q->rn) return p->rn > q->rn ? -1 : 1;
    return p->left != q->left ? p->left - q->left : p->right - q->right;
}

static size_t characters(const char *s, size_t n) {
    size_t i, count = 0;
    for (i = 0; i < n; i++) count += ((unsigned char)s[i] & 0xC0) != 0x80;
    return count;
}

/* Reads the scores of a model's pieces: each piece is field 1, its score field 2. Only lengths of one and two
 * bytes occur. */
static Scored *scores(const Tokenizer *t, Bytes f, Pool *pool) {
    Scored *s = pool_take(pool, (size_t)tokenizer_size(t), sizeof *s);
    size_t at = 0, i;
    int id;
    for (id = 0; id < tokenizer_size(t); id++) {
        size_t n = (unsigned char)f.data[at + 1], head = 2;
        if (n > 127) { n = (n & 127) + 128 * (size_t)(unsigned char)f.data[at + 2]; head = 3; }
        s[id].text = tokenizer_piece(t, id, &s[id].n);
        i = at + head + 2 + s[id].n;
        /* tests run on little-endian machines, or skip */
        if (f.data[i] == 0x15) memcpy(&s[id].score, f.data + i + 1, 4);
        at += head + n;
    }
    return s;
}

static Buffer json_llama(const Tokenizer *t, Bytes f, const char *const *added, const int *added_id,
                         int addeds, int metaspace, Pool *pool, int *merges) {
    Scored *s = scores(t, f, pool);
    int V = tokenizer_size(t), id, left, right;
    size_t i, joins = 0, room = 100000;
    Join *join = malloc(room * sizeof *join);
    Buffer b = new_buffer(pool);
    for (id = 0; id < V; id++)
        for (i = 1; i < s[id].n && id > 258; i++) {
            if (((unsigned char)s[id].text[i] & 0xC0) == 0x80) continue;
            left = tokenizer_find(t, s[id].text, i);
            right = tokenizer_find(t, s[id].text + i, s[id].n - i);
            if (left < 0 || right < 0 || joins == room) continue;
            join[joins].left = left; join[joins].right = right; join[joins].score = s[id].score;
            join[joins].ln = characters(s[left].text, s[left].n);
            join[joins++].rn = characters(s[right].text, s[right].n);
        }
    qsort(join, joins, sizeof *join, compare_join);
    *merges = (int)joins;
    buffer_text(&b, "{\"version\": \"1.0\", ");
    put_added(&b, added, added_id, addeds);
    buffer_text(&b, metaspace ? "\"normalizer\": null, \"pre_tokenizer\": {\"type\": \"Metaspace\", "
                                "\"replacement\": \"\\u2581\", "
                                    "\"prepend_scheme\": \"first\", "
                                "\"split\": false}, "
                              : "\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": "
                                "\"Prepend\", \"prepend\": \"\\u2581\"}, "
                                    "{\"type\": \"Replace\", "
                                "\"pattern\": {\"String\": \" \"}, \"content\": \"\\u2581\"}]}, "
                                "\"pre_tokenizer\": null, ");
    buffer_text(&b, "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": "
                    "{\"id\": \"<s>\", \"type_id\": 0}}, {\"Sequence\": "
                    "{\"id\": \"A\", \"type_id\": 0}}], \"special_tokens\": {\"<s>\": {\"id\": \"<s>\", "
                    "\"ids\": [1], \"tokens\": [\"<s>\"]}}}, "
                    "\"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", "
                    "\"pattern\": {\"String\": \"\\u2581\"}, \"content\": \" \"}, "
                    "{\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}, {\"type\": \"Strip\", \"content\": "
                    "\" \", \"start\": 1, \"stop\": 0}]}, "
                    "\"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": \"<unk>\", "
                    "\"fuse_unk\": true, \"byte_fallback\": true, \"vocab\": {");
    for (id = 0; id < V; id++) {
        buffer_text(&b, id ? ", " : "");
        buffer_json_string(&b, s[id].text, s[id].n);
        buffer_text(&b, ": ");
        buffer_integer(&b, id);
    }
    buffer_text(&b, "}, \"merges\": [");
    for (i = 0; i < joins; i++)
        put_merge(&b, s[join[i].left].text, s[join[i].left].n, s[join[i].right].text, s[join[i].right].n,
                  metaspace, !i);
    buffer_text(&b, "]}}");
    free(join);
    return b;
}

static Tokenizer *open_json(Buffer b, Pool *pool) {
    Error err;
    Tokenizer *t;
    memset(&err, 0, sizeof err);
    t = tokenizer_json(b.data, b.length, pool, &err);
    CHECK(t && !err.code, "tokenizer.json: %s, %s", err.what, err.where);
    return t;
}

/* Writes the ids of `text` as pieces; the first three ids, and those from `own` on, in braces. */
static const char *spelt(const Tokenizer *t, const char *text, int own, Pool *pool) {
    int *ids, count, i;
    size_t n;
    Buffer b = new_buffer(pool);
    if (tokenizer_encode(t, text, strlen(text), pool, &ids, &count)) return "(no memory)";
    for (i = 0; i < count; i++) {
        const char *piece = tokenizer_piece(t, ids[i], &n);
        int cut = ids[i] >= own || ids[i] < 3;
        if (cut) buffer_text(&b, "{");
        buffer_bytes(&b, piece, n);
        if (cut) buffer_text(&b, "}");
    }
    buffer_u8(&b, 0);
    return (char *)b.data;
}

static const char *decoded(const Tokenizer *t, const char *text, int all, Pool *pool) {
    int *ids, count;
    char *out;
    size_t n;
    if (tokenizer_encode(t, text, strlen(text), pool, &ids, &count)) return "(no memory)";
    return (all ? tokenizer_decode_all : tokenizer_decode)(t, ids, count, pool, &out, &n) ? "(failed)" : out;
}

static const char *const chat_name[] = { "<unk>", "<s>", "</s>", "[PAD]", "<|im_start|>", "<|im_end|>" };
static const int chat_id[] = { 0, 1, 2, 32000, 32001, 32002 };
static const char chat_added[] = "{\"[PAD]\": 32000, \"<|im_start|>\": 32001, \"<|im_end|>\": 32002}";
static const char chat_map[] = "{\"pad_token\": \"[PAD]\", \"additional_special_tokens\": [\"<|im_start|>\", "
                               "{\"content\": \"<|im_end|>\"}]}";

/* Returns 1 if two tokenizers give the same ids for a text. */
static int agree(const Tokenizer *a, const Tokenizer *b, const char *text, size_t n, Pool *pool) {
    int *x, *y, m, k;
    return !tokenizer_encode(a, text, n, pool, &x, &m) && !tokenizer_encode(b, text, n, pool, &y, &k) &&
        m == k && (!m || !memcmp(x, y, (size_t)m * sizeof *x));
}

/* Tests TinyLlama's chat tokens beside tokenizer.model and inside tokenizer.json: the same ids, every segment
 * with its own prefix. */
static void test_chat_tokens(const Tokenizer *llama, Bytes file, Pool *pool) {
    static const char text[] = "<|im_start|>user\nHello there<|im_end|>\n<|im_start|>assistant\n",
        said[] = "a [PAD]</s> b<|im_en|>  <|im_end|>";
    Error err;
    int merges, *ids, *part, count, k, at = 0, good = 1, i, *x, m;
    Tokenizer *json = open_json(json_llama(llama, file, chat_name, chat_id, 6, 0, pool, &merges), pool),
              *first, *model;
    const Json *added = json_parse(chat_added, strlen(chat_added), pool, NULL),
        *map = json_parse(chat_map, strlen(chat_map), pool, NULL);
    struct { int id; const char *text; } segment[] = { { 32001, "user\nHello there" }, { 32002, "\n" },
                                                       { 32001, "assistant\n" } };
    memset(&err, 0, sizeof err);
    model = tokenizer_sentencepiece(file.data, file.n, pool, &err);
    CHECK(merges == 61249, "Llama 2 has %d merges, wanted 61249", merges);
    CHECK(model && !tokenizer_beside(model, added, NULL, map, pool, &err) && tokenizer_size(model) == 32003 &&
          json && tokenizer_size(json) == 32003,
          "three tokens more: %s", err.what);
    if (!model || !json) return;
    CHECK(tokenizer_specials(model).pad == 32000 && tokenizer_find(json, "<|im_end|>", 10) == 32002,
          "their ids");
    if (tokenizer_encode(json, text, strlen(text), pool, &ids, &count)) return;
    for (i = 0; i < 3 && good; i++) {
        const char *part_text = segment[i].text;
        good = at < count && ids[at++] == segment[i].id &&
               !tokenizer_encode(llama, part_text, strlen(part_text), pool, &part, &k) &&
               at + k <= count && !memcmp(ids + at, part, (size_t)k * sizeof *part);
        at += k;
    }
    CHECK(good && at == count && agree(json, model, text, strlen(text), pool),
          "a chat prompt: tokens, and each segment by itself");
    good = !tokenizer_encode(json, "\n", 1, pool, &ids, &count) && count == 2 && ids[0] == 29871 &&
        ids[1] == 13;
    CHECK(good, "a line break behind a token has its prefix");
    CHECK(!strcmp(decoded(json, said, 1, pool), "a [PAD]</s>  b<|im_en|>  <|im_end|>"), "decode_all: '%s'",
          decoded(json, said, 1, pool));
    CHECK(!strcmp(decoded(json, said, 0, pool), "a   b<|im_en|>  "), "decode: '%s'",
          decoded(json, said, 0, pool));
    CHECK(!tokenizer_encode_plain(json, text, strlen(text), 1, pool, &ids, &count) &&
          !tokenizer_encode(llama, text, strlen(text), pool, &x, &m) &&
          m == count && !memcmp(ids, x, (size_t)m * sizeof *x),
              "encode_plain: what a stranger types are letters");
    first = open_json(json_llama(llama, file, chat_name, chat_id, 3, 1, pool, &merges), pool);
    suite(first, "published.jsonl", "llama2", 1, 2);
    if (first)
        CHECK(!tokenizer_encode_plain(first, "user", 4, 0, pool, &ids, &count) && count == 1 &&
              ids[0] == 1792,
          "prepend_scheme first: no prefix behind a token");
}

/* Tests the goldens again, through tokenizer.json. */
static void test_json_goldens(const Tokenizer *llama) {
    Pool pool = test_pool();
    Bytes model = read_file("data/tokenizers/llama2", "tokenizer.model"), v, m;
    int merges, kind;
    const short one = 1;
    if (llama && model.data && *(const char *)&one) {
        Tokenizer *t = open_json(json_llama(llama, model, chat_name, chat_id, 3, 0, &pool, &merges), &pool);
        column(t, "generated_sentencepiece.jsonl", "llama2", 1, 521);
        suite(t, "published.jsonl", "llama2", 0, 21);
        suite(t, "llamacpp_llama-spm.jsonl", "llama-spm", 0, 46);
        suite(t, "llamacpp_phi-3.jsonl", "phi-3", 0, 46);
        test_speed(t, "llama2 as tokenizer.json");
        test_chat_tokens(llama, model, &pool);
    } else SKIP("llama2 as tokenizer.json: no files");
    for (kind = AS_GPT2; kind <= AS_ROBERTA; kind++) {
        const char *name = kind == AS_ROBERTA ? "roberta" : "gpt2";
        Tokenizer *t;
        v = read_file(kind == AS_ROBERTA ? "data/tokenizers/roberta" : "data/tokenizers/gpt2", "vocab.json");
        m = read_file(kind == AS_ROBERTA ? "data/tokenizers/roberta" : "data/tokenizers/gpt2", "merges.txt");
        if (!v.data || !m.data) { SKIP("%s as tokenizer.json: no files", name); continue; }
        t = open_json(json_bytelevel(v.data, v.n, m.data, kind, kind == AS_SPLIT, &pool), &pool);
        column(t, "generated_bytelevel_bpe.jsonl", name, 1, 521);
        suite(t, "published.jsonl", name, 0, kind == AS_ROBERTA ? 7 : 25);
        suite(t, "published.jsonl", name, 1, kind == AS_ROBERTA ? 2 : 1);
        suite(t, kind == AS_ROBERTA ? "llamacpp_roberta-bpe.jsonl" : "llamacpp_gpt-2.jsonl",
              kind == AS_ROBERTA ? "roberta-bpe" : "gpt-2", 0, 46);
        if (kind == AS_GPT2) test_speed(t, "gpt2 as tokenizer.json");
        free(v.data); free(m.data);
    }
    free(model.data);
    pool_free(&pool);
}

/* ---- bad input ---- */
static void put_piece(Buffer *b, const char *text, int type) {
    size_t n = strlen(text);
    buffer_u8(b, 1 << 3 | 2); buffer_u8(b, (unsigned)n + 4);
    buffer_u8(b, 1 << 3 | 2); buffer_u8(b, (unsigned)n); buffer_bytes(b, text, n);
    buffer_u8(b, 3 << 3); buffer_u8(b, (unsigned)type);
}

/* Reads a model of pieces "TEXT/TYPE TEXT/TYPE ..." with raw bytes after them. Returns the error code. */
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
    for (; sscanf(pieces, " %63[^/]/%d%n", text, &type, &used) == 2; pieces += used)
        put_piece(&b, strcmp(text, "EMPTY") ? text : "", type);
    buffer_bytes(&b, tail, tail_n);
    t = tokenizer_sentencepiece(b.data, b.length, &pool, &err);
    if (what) strcpy(what, err.what);
    pool_free(&pool);
    return t ? OK : err.code ? err.code : -1;
}

static void test_bad_models(void) {
    static const char bpe[] = "\x12\x02\x18\x02", fallback[] = "\x12\x05\x18\x02\x98\x02\x01",
        unigram[] = "\x12\x02\x18\x01";
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
        { "unigram", "<unk>/2 a/1", unigram, 4, OK },
        { "no model type (unigram)", "<unk>/2 a/1", "", 0, OK },
        { "unigram without pieces", "<unk>/2", unigram, 4, OK },
        { "words", "<unk>/2 a/1", "\x12\x02\x18\x03", 4, E_UNSUPPORTED },
        { "a denormaliser", "<unk>/2 a/1", "\x12\x02\x18\x02\x2a\x03\x12\x01x", 9, E_UNSUPPORTED },
        { "broken rules", "<unk>/2 a/1", "\x12\x02\x18\x02\x1a\x06\x12\x04\xff\xff\xff\x7f", 12, E_FORMAT },
        { "rules without an end", "<unk>/2 a/1", "\x12\x02\x18\x02\x1a\x0b\x12\x09\x04\0\0\0\0\0\0\0x", 17,
          E_FORMAT },
        { "a length beyond the end", "<unk>/2 a/1", "\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 10,
          E_FORMAT },
        { "a number of eleven bytes", "<unk>/2 a/1", "\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12,
          E_FORMAT },
        { "a group", "<unk>/2 a/1", "\x12\x02\x18\x02\x0b", 5, E_FORMAT },
        { "field number 0", "<unk>/2 a/1", "\x12\x02\x18\x02\x00\x01", 6, E_FORMAT },
        { "a score that is no number", "<unk>/2", "\x12\x02\x18\x02\x0a\x08\x0a\x01x\x15\x00\x00\xc0\x7f", 14,
          E_NUMBER },
    };
    size_t i;
    char what[200];
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        int code = model_code(bad[i].pieces, bad[i].tail, bad[i].n, what);
        CHECK(code == bad[i].code, "model: %s gives %d, wanted %d (%s)", bad[i].name, code, bad[i].code,
              what);
    }
    model_code("<unk>/2 a/1", "\x12\x02\x18\x04", 4, what);
    CHECK(strstr(what, "model_type char") != NULL, "another type is refused by its name: %s", what);
}

/* Tests every prefix of a model, and the model with each byte changed: read and used, or refused, never a
 * crash. */
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
        u = bytelevel ? tokenizer_bytelevel(bytes, length, merges.data, merges.length, &scratch, &err)
            : tokenizer_sentencepiece(bytes, length, &scratch, &err);
        if (!u && !err.code) break;
        if (u && length < good.length) prefixes++;
        if (u && !tokenizer_encode(u, "abc de\xff fgh", 11, &scratch, &ids, &count) &&
            !tokenizer_decode(u, ids, count, &scratch, &back, &n)) changed++;
        pool_release(&scratch, mark);
    }
    CHECK(i == 2 * good.length && prefixes <= (bytelevel ? 1 : 4),
          "%s: %lu prefixes and changed files, %d prefixes taken, %d files usable",
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
        { "no line break at the end, and CR", "{\"a\":0,\"b\":1,\"ab\":2}", "#version: 0.2\r\na b\r\nb a",
          E_MISSING },
        { "CR", "{\"a\":0,\"b\":1,\"ab\":2}", "#version: 0.2\r\na b\r\n", OK },
        { "bad JSON", "{\"a\":0,\"b\":1", "", E_TRUNCATED },
        { "a list", "[\"a\"]", "", E_FORMAT },
        { "nothing in it", "{}", "", E_FORMAT },
        { "an id that is text", "{\"a\":\"0\"}", "", E_FORMAT },
        { "half an id", "{\"a\":0.5}", "", E_FORMAT },
        { "a negative id", "{\"a\":-1}", "", E_FORMAT },
        { "an enormous id", "{\"a\":1e300}", "", E_FORMAT },
        { "a gap", "{\"a\":0,\"b\":2}", "", OK },
        { "a huge gap", "{\"a\":0,\"b\":2000000}", "", E_RANGE },
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

/* Judges published.jsonl's toy vocabularies: not all bytes, and an <unk>. */
static int judge_toy(const Json *row, Pool *pool, void *context) {
    const Json *vocab = json_get(row, "vocab"), *merges = json_get(row, "merges"),
        *text = json_get(row, "text"), *j;
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

/* Tests a pool whose source has only so many blocks: whichever allocation fails, the answer is an error. */
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
    CHECK(!wrong && refused && done, "memory that runs out: %d refused, %d done, %d wrong", refused, done,
          wrong);
    free(text);
}

static void test_json_memory(void) {
    Pool keep = test_pool();
    Error err;
    Tokenizer *t = train(0, 50, 320, &keep, &err);
    Buffer sp = written(t, 0, &keep), json;
    Bytes model;
    int blocks, merges, refused = 0, done = 0, wrong = 0, *ids, count;
    model.data = (char *)sp.data; model.n = sp.length;
    json = json_llama(t, model, chat_name, chat_id, 3, 0, &keep, &merges);
    for (blocks = 0; blocks < 40; blocks++) {
        Pool pool = test_pool();
        pool.source = few_blocks;
        blocks_left = blocks;
        memset(&err, 0, sizeof err);
        t = tokenizer_json(json.data, json.length, &pool, &err);
        if (t && (tokenizer_encode(t, "a<s>b", 5, &pool, &ids, &count) || count != 3)) wrong++;
        if (!t && err.code != E_MEMORY) wrong++;
        if (t) done++; else refused++;
        pool_free(&pool);
    }
    CHECK(!wrong && refused && done, "tokenizer.json, memory that runs out: %d refused, %d done, %d wrong",
          refused, done, wrong);
    pool_free(&keep);
}

static const struct { const char *text; float score; } tiny[] =
    { { "<unk>", 0 }, { "a", -1 }, { "b", -2 }, { "ab", -2.61f }, { "ba", -3.37f },
    { "aba", -4.12f }, { "\xe2\x96\x81", -1.53f }, { "\xe2\x96\x81" "a", -2.19f } };

static Tokenizer *tiny_unigram(Pool *pool) {
    Buffer b = { pool, NULL, 0, 0, 0 };
    size_t i;
    for (i = 0; i < sizeof tiny / sizeof *tiny; i++) {
        size_t n = strlen(tiny[i].text);
        uint32_t bits;
        float score = tiny[i].score;
        memcpy(&bits, &score, 4);
        buffer_u8(&b, 1 << 3 | 2); buffer_u8(&b, (unsigned)n + 9);
        buffer_u8(&b, 1 << 3 | 2); buffer_u8(&b, (unsigned)n); buffer_bytes(&b, tiny[i].text, n);
        buffer_u8(&b, 2 << 3 | 5); buffer_u32(&b, bits);
        buffer_u8(&b, 3 << 3); buffer_u8(&b, i ? PIECE_NORMAL : PIECE_UNKNOWN);
    }
    return tokenizer_sentencepiece(b.data, b.length, pool, NULL);
}

/* Tests that a padded vocabulary's ids, with the ids of "ab c" before, between and after them, are decoded as
 * "ab c" alone. */
static void test_padded(const Tokenizer *t, const char *kind, const char *wanted, Pool *pool) {
    int *ids, count, list[40], n = 0, i, V = tokenizer_size(t), same, all;
    char *text;
    size_t length;
    if (tokenizer_encode(t, "ab c", 4, pool, &ids, &count) || !count || count > 10) {
        CHECK(0, "%s: ids", kind);
        return;
    }
    for (list[n++] = V, i = 0; i < count; i++) {
        list[n++] = ids[i];
        list[n++] = i % 2 ? INT_MAX : V + i;
    }
    same = !tokenizer_decode(t, list, n, pool, &text, &length) && length == strlen(wanted) &&
        !strcmp(text, wanted);
    all = !tokenizer_decode_all(t, list, n, pool, &text, &length) && length == strlen(wanted) &&
        !strcmp(text, wanted);
    CHECK(same && all, "%s: ids beyond the vocabulary are no text: '%s'", kind, text);
    CHECK(!tokenizer_decode(t, list, 1, pool, &text, &length) && !length && !*text, "%s: such an id alone",
          kind);
}

static void test_bad_ids(void) {
    static const char words[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n##b\nc\n";
    Pool pool = test_pool();
    Error err;
    Tokenizer *t = train(0, 50, 300, &pool, &err), *byte = train(1, 50, 300, &pool, &err);
    Tokenizer *unigram = tiny_unigram(&pool), *word = tokenizer_wordpiece(words, strlen(words), &pool, NULL);
    int ids[2] = { 300, -1 }, minus = INT_MIN;
    char *text;
    size_t n;
    if (!t || !byte || !unigram || !word) { CHECK(0, "tokenizers for bad ids"); return; }
    test_padded(t, "SentencePiece, BPE", "ab c", &pool);
    test_padded(byte, "byte-level BPE", "ab c", &pool);
    test_padded(unigram, "SentencePiece, unigram", "ab  \xe2\x81\x87 ", &pool);
    test_padded(word, "WordPiece", "ab c", &pool);
    CHECK(tokenizer_decode(t, ids, 2, &pool, &text, &n) == E_RANGE && !text &&
          tokenizer_decode(byte, &minus, 1, &pool, &text, &n) == E_RANGE, "ids below 0");
    CHECK(!tokenizer_piece(t, 300, &n) && !tokenizer_piece(t, -1, NULL) &&
          tokenizer_find(t, "nowhere", 7) == -1,
          "pieces out of range");
    CHECK(!tokenizer_decode(t, NULL, 0, &pool, &text, &n) && n == 0 && text && !*text, "no ids are no text");
    pool_free(&pool);
}

/* Trains both kinds on all reviews, in time, and uses them there. */
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
    CHECK(t && tokenizer_size(t) == 4096 && took < 60,
          "SentencePiece BPE of 4096 on 25,000 reviews in %.1f s", took);
    bad = t ? round_trips(t, data, 2000, &took, &tokens) : -1;
    CHECK(bad == 0, "its round trips: %d differ (%ld tokens, %.1f s)", bad, tokens, took);
    from = clock();
    t = tokenizer_train_bytelevel(lines(&l, data, 25000), 8192, &pool, &err);
    took = seconds(from);
    pool_free(&l.pool);
    CHECK(t && tokenizer_size(t) == 8192 && took < 60, "byte-level BPE of 8192 on 25,000 reviews in %.1f s",
          took);
    bad = t ? round_trips(t, data, 25000, &took, &tokens) : -1;
    CHECK(bad == 0, "its round trips over all reviews: %d differ (%ld tokens, %.1f s)", bad, tokens, took);
    bad = gpt2 ? round_trips(gpt2, data, 25000, &took, &tokens) : -1;
    CHECK(bad == 0, "gpt2's: %d differ (%ld tokens, %.1f s)", bad, tokens, took);
    bad = llama ? round_trips(llama, data, 2000, &took, &tokens) : -1;
    CHECK(bad == 0, "llama2's over 2,000: %d differ (%ld tokens, %.1f s)", bad, tokens, took);
    pool_free(&pool);
}

/* ---- unigram models ---- */

/* Returns the score of the best of all ways to spell s[0..n) with the pieces of `tiny`, tried one after
 * another; *found counts the ways. */
static double best_way(const char *s, size_t n, int *found) {
    double best = -1e9, score;
    size_t i, k;
    if (!n) { ++*found; return 0; }
    for (i = 1; i < sizeof tiny / sizeof *tiny; i++) {
        k = strlen(tiny[i].text);
        if (k > n || memcmp(s, tiny[i].text, k)) continue;
        score = tiny[i].score + best_way(s + k, n - k, found);
        if (score > best) best = score;
    }
    return best;
}

/* Tests that encoding takes the best of all ways to spell a text. */
static void test_best_way(const Tokenizer *t, const char *text, int ways, Pool *pool) {
    char spaced[64] = "\xe2\x96\x81";
    int *ids, count = 0, i, found = 0;
    double best, sum = 0;
    strcat(spaced, text);
    best = best_way(spaced, strlen(spaced), &found);
    if (!tokenizer_encode(t, text, strlen(text), pool, &ids, &count))
        for (i = 0; i < count; i++) sum += tiny[ids[i]].score;
    CHECK(count && found == ways && fabs(sum - best) < 1e-5,
          "\"%s\": the best of %d ways scores %.3f, ours %.3f", text, found, best, sum);
    CHECK(becomes(t, text, strlen(text), text, pool), "\"%s\": it spells the text", text);
}

static void test_unigram(void) {
    static const char text[] = "abcde fghij\tkla 12";
    Pool pool = test_pool();
    Error err;
    Made m;
    Tokenizer *a, *b;
    int before, after;
    memset(&err, 0, sizeof err);
    a = tokenizer_train_unigram(made(&m, 500), 600, &pool, &err);
    b = tokenizer_train_unigram(made(&m, 500), 600, &pool, &err);
    CHECK(a && b, "training a unigram model: %s", err.what);
    if (!a || !b) return;
    tokenizer_template(a, &before, &after);
    CHECK(same_bytes(written(a, 0, &pool), written(b, 0, &pool)) && tokenizer_size(a) == 600 &&
          piece_is(a, 258, "<0xFF>") && before && !after &&
          !strcmp(tokenizer_class(a), "LlamaTokenizer"),
              "the same text gives the same unigram model, of Llama's layout");
    CHECK(becomes(a, text, strlen(text), text, &pool) && becomes(a, "", 0, "", &pool) &&
          becomes(a, "\xf0\x9f\x98\x80 z\n", 7, "\xf0\x9f\x98\x80 z\n", &pool),
          "its round trips");
    CHECK(!tokenizer_train_unigram(made(&m, 500), 262, &pool, &err) && err.code == E_RANGE,
          "too small for the characters is refused");
    memset(&err, 0, sizeof err);
    CHECK(!tokenizer_train_unigram(made(&m, 2), 60000, &pool, &err) && err.code == E_RANGE &&
          err.wanted < 60000, "too little text is refused");
    a = tiny_unigram(&pool);
    CHECK(a != NULL, "a tiny unigram model");
    if (!a) return;
    test_best_way(a, "ababab", 27, &pool);
    test_best_way(a, "abaab", 12, &pool);
    test_best_way(a, "bbabaaba", 24, &pool);
    pool_free(&pool);
}

/* ---- WordPiece ---- */
static const char bert_vocab[] =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nwant\n##want\n##ed\nwa\nun\nrunn\n##ing\nhello\n!\nhow\nare\nyou\n"
    "?\n.\n'\ns\n\xe5\x8d\x9a\nah\nzz\n##n\n,"
    "\ndon\nt\n\xe1\x84\x80\n##\xe1\x85\xa1\nlow\n##er\n##est\nHeLLo\n"
    "h\xc3\xa9llo\n$\n##a\na\nss\n";

/* Writes the pieces of a text, a space between them. */
static const char *pieces(const Tokenizer *t, const char *text, size_t n, Pool *pool) {
    Buffer b;
    int *ids, count, i;
    size_t length;
    memset(&b, 0, sizeof b);
    b.pool = pool;
    if (tokenizer_encode(t, text, n, pool, &ids, &count)) return "(no memory)";
    for (i = 0; i < count; i++) {
        const char *piece = tokenizer_piece(t, ids[i], &length);
        if (i) buffer_u8(&b, ' ');
        buffer_bytes(&b, piece, length);
    }
    buffer_u8(&b, 0);
    return (char *)b.data;
}

static const struct { const char *text, *wanted; } bert_row[] = {
    { "", "" }, { " \t \n", "" }, { "unwanted running", "un ##want ##ed runn ##ing" },
    { "unwantedX running", "[UNK] runn ##ing" },
    { " \tHeLLo!how  \n Are yoU?  ", "hello ! how are you ?" }, { "H\xc3\xa9llo", "hello" },
    { "He\xcc\x81llo", "hello" },
    { "ah\xe5\x8d\x9a\xe5\x8d\x9azz", "ah \xe5\x8d\x9a \xe5\x8d\x9a zz" }, { "hel\xe2\x80\x8blo", "hello" },
    { "hello\xc2\xa0how", "hello how" },
    { "don't", "don ' t" }, { "hello\xff how", "hello how" },
    { "\xea\xb0\x80", "\xe1\x84\x80 ##\xe1\x85\xa1" }, { "[UNK]", "[UNK] [UNK] [UNK]" },
    { "$a", "$ a" },
    { "\xcc\x81", "" }, { "\x85\x01\x7f", "" }, { "LOWEST", "low ##est" },
};

/* Turns a vocab.txt into a tokenizer.json, which has to give the same pieces. */
static void test_bert_json(const Tokenizer *t, Pool *pool) {
    Buffer b = { pool, NULL, 0, 0, 0 };
    Error err = { 0 };
    Tokenizer *json;
    int before, after;
    size_t i, n;
    buffer_text(&b, "{\"added_tokens\": [{\"id\": 99, \"content\": \"Yesterday\"}, "
                    "{\"id\": 1, \"content\": \"[UNK]\", \"special\": true, "
                    "\"normalized\": false}, {\"id\": 4, \"content\": \"[MASK]\", "
                    "\"special\": true, \"normalized\": false}], \"normalizer\": {\"type\": "
                    "\"BertNormalizer\", \"clean_text\": true, "
                    "\"handle_chinese_chars\": true, \"strip_accents\": null, \"lowercase\": true}, "
                    "\"pre_tokenizer\": {\"type\": \"BertPreTokenizer\"}, "
                    "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": "
                    "{\"id\": \"[CLS]\", \"type_id\": 0}}, "
                    "{\"Sequence\": "
                    "{\"id\": \"A\", \"type_id\": 0}}, {\"SpecialToken\": {\"id\": \"[SEP]\", \"type_id\": 0}"
                    "}], "
                    "\"special_tokens\": {\"[CLS]\": {\"id\": \"[CLS]\", "
                    "\"ids\": [2], \"tokens\": [\"[CLS]\"]}, \"[SEP]\": {\"id\": \"[SEP]\", \"ids\": [3], "
                    "\"tokens\": [\"[SEP]\"]}}}, \"decoder\": {\"type\": "
                    "\"WordPiece\", \"prefix\": \"##\", \"cleanup\": true}, \"model\": {\"type\": "
                    "\"WordPiece\", \"unk_token\": \"[UNK]\", "
                    "\"continuing_subword_prefix\": \"##\", \"max_input_chars_per_word\": 100, \"vocab\": {");
    for (i = 0; i < (size_t)tokenizer_size(t); i++) {
        const char *piece = tokenizer_piece(t, (int)i, &n);
        buffer_text(&b, i ? ", " : "");
        buffer_json_string(&b, piece, n);
        buffer_text(&b, ": ");
        buffer_integer(&b, (long long)i);
    }
    buffer_text(&b, "}}}");
    json = tokenizer_json(b.data, b.length, pool, &err);
    CHECK(json != NULL, "WordPiece in tokenizer.json: %s, %s", err.what, err.where);
    for (i = 0; json && i < sizeof bert_row / sizeof *bert_row; i++) {
        const char *got = pieces(json, bert_row[i].text, strlen(bert_row[i].text), pool);
        CHECK(!strcmp(got, i == 13 ? "[UNK]" : bert_row[i].wanted), "tokenizer.json: '%s' gives '%s'",
              bert_row[i].text, got);
    }
    if (json) tokenizer_template(json, &before, &after);
    CHECK(json && before && after && tokenizer_specials(json).eos == 3 &&
          !strcmp(pieces(json, "a[MASK]a", 8, pool), "a [MASK] a"),
          "its template and added tokens");
    CHECK(json && !strcmp(pieces(json, "yesterday Yesterday.YESTERDAY", 29, pool),
                          "Yesterday Yesterday . Yesterday") &&
          !strcmp(decoded(json, "YesterdaY", 0, pool), "yesterday"),
          "an added token is found in the normal form, and decoded from it: %s, %s",
          json ? pieces(json, "yesterday Yesterday.YESTERDAY", 29, pool) : "",
          json ? decoded(json, "YesterdaY", 0, pool) : "");
}

static void test_wordpiece(void) {
    Pool pool = test_pool();
    Error err = { 0 };
    Tokenizer *t = tokenizer_wordpiece(bert_vocab, strlen(bert_vocab), &pool, &err), *cased;
    int before, after, ids[8] = { 2, 9, 6, 7, 25, 12, 18, 3 };
    char *text, many[201];
    size_t i, n;
    Buffer b = { &pool, NULL, 0, 0, 0 };
    const Json *config;
    CHECK(t != NULL, "vocab.txt: %s, %s", err.what, err.where);
    if (!t) return;
    tokenizer_template(t, &before, &after);
    CHECK(tokenizer_kind(t) == TOKENIZER_WORDPIECE && before && after && tokenizer_specials(t).bos == 2 &&
          tokenizer_specials(t).eos == 3 &&
          tokenizer_specials(t).unk == 1 && tokenizer_specials(t).pad == 0 &&
              !strcmp(tokenizer_class(t), "BertTokenizer"), "BERT's special ids and template");
    for (i = 0; i < sizeof bert_row / sizeof *bert_row; i++) {
        const char *got = pieces(t, bert_row[i].text, strlen(bert_row[i].text), &pool);
        CHECK(!strcmp(got, bert_row[i].wanted), "WordPiece: '%s' gives '%s', wanted '%s'", bert_row[i].text,
              got, bert_row[i].wanted);
    }
    memset(many, 'a', sizeof many);
    CHECK(strlen(pieces(t, many, 100, &pool)) == 1 + 99 * 4 && !strcmp(pieces(t, many, 101, &pool), "[UNK]"),
          "a word of 100 characters, and of 101");
    CHECK(!tokenizer_decode(t, ids, 8, &pool, &text, &n) && !strcmp(text, "unwanted, hello."),
          "decoding: '%s'", text);
    CHECK(!tokenizer_decode_all(t, ids, 8, &pool, &text, &n) && !strcmp(text, "[CLS] unwanted, hello. [SEP]"),
          "and all of it: '%s'", text);
    config = json_parse("{\"do_lower_case\": false}", 24, &pool, NULL);
    cased = tokenizer_wordpiece(bert_vocab, strlen(bert_vocab), &pool, &err);
    CHECK(cased && !tokenizer_beside(cased, NULL, config, NULL, &pool, &err) &&
          !strcmp(pieces(cased, "HeLLo h\xc3\xa9llo Hello", 18, &pool),
          "HeLLo h\xc3\xa9llo [UNK]"), "do_lower_case false keeps capitals and accents");
    CHECK(!tokenizer_file(t, "vocab.txt", &b) && b.length == strlen(bert_vocab) &&
          !memcmp(b.data, bert_vocab, b.length), "vocab.txt is written as it was read");
    test_bert_json(t, &pool);
    CHECK(!tokenizer_wordpiece("", 0, &pool, &err) && !tokenizer_wordpiece("a\nb\n", 4, &pool, &err) &&
          !tokenizer_wordpiece("[UNK]\n\nb\n", 9, &pool, &err) &&
          !tokenizer_wordpiece("[UNK]\na\na", 9, &pool, &err),
              "vocab.txt: empty, without [UNK], with an empty line, with a token twice");
    pool_free(&pool);
}

/* ---- Unigram in tokenizer.json: small files of ours (tests/fuzz/seeds), what Hugging Face's library makes
 * of these texts ---- */
static Bytes seed(const char *name) {
    char path[100];
    Bytes out = { NULL, 0 };
    FILE *f;
    snprintf(path, sizeof path, "tests/fuzz/seeds/tokenizer/%s", name);
    f = fopen(path, "rb");
    if (f) { out = slurp(f); fclose(f); }
    return out;
}

#define B "\xe2\x96\x81"
/* json-unigram: `` and '' become ", marks go, lower case, the rules a -> b and \r -> a space, words at white
 * space; <x> in the normal form. */
static const struct { const char *text, *wanted, *decoded; } unigram_row[] = {
    { "", "", "" }, { "ab", B "b b", "bb" }, { "  ab  a\tb ", B "b b " B "b " B "b", "bb b b" },
    { "a ab``''", B "b " B "b b <unk>", "b bb<unk>" },
    { "B\xc3\xa9" "bE", B "b e b e", "bebe" }, { "e\xcc\x81" "a\xcc\x81", B " e b", "eb" },
    { "\xc2\xaa\xef\xac\x81", B "b <unk>", "b<unk>" },
    { "x\r\ny", B " <unk> " B " <unk>", "<unk> <unk>" }, { "a\xcc\x81\xcc\x82\xcc\x83", B "b", "b" },
    { "zq\xe4\xb8\xad z", B " <unk> " B " <unk>", "<unk> <unk>" },
    { "<x>ab<X> <x>", "<x> " B "b b <x> <x>", "<x> bb<x><x>" },
    { "a</s>b <unk>", B "b </s> " B "b <unk>", "b</s> b<unk>" },
    { "\xef\xbc\xa1\xe2\x84\xa2", B "b <unk>", "b<unk>" }, { B "ab " B, B "b b " B, "bb " },
    { "\xe2\x80\x8b" "ab", B " <unk> b b", "<unk>bb" },
    { "a\r\n\xcc\x81" "b", B "b " B "b", "b b" }, { "abab baab", B "b b b b " B "b b b b", "bbbb bbbb" },
/* json-unigram-bytes: spaces at the left go; a piece for each byte of one ideograph. */
}, bytes_row[] = {
    { "ab", B "ab", "ab" }, { "  ab  a\tb ", B "ab " B " " B "a <unk> b " B, "ab  a<unk>b " },
    { "B\xc3\xa9" "bE", B " <unk> \xc3\xa9 b <unk>", "<unk>\xc3\xa9" "b<unk>" },
    { "zq\xe4\xb8\xad z", B " <unk> " B " <unk>", "<unk> <unk>" },
    { "a \xe4\xb8\xad", B "a " B " <0xE4> <0xB8> <0xAD>", "a \xe4\xb8\xad" },
    { B "ab " B, B "ab " B " " B, "ab  " }, { "abab baab", B "ab ab " B "b a ab", "abab baab" },
    { "a\xff", B "a <unk>", "a<unk>" },
};

static void unigram_rows(const char *name, int bytes, Pool *pool) {
    Bytes f = seed(name);
    Error err;
    Tokenizer *t;
    size_t i, rows = bytes ? sizeof bytes_row / sizeof *bytes_row : sizeof unigram_row / sizeof *unigram_row,
        n;
    int before, after, *ids, count;
    memset(&err, 0, sizeof err);
    t = f.data ? tokenizer_json(f.data, f.n, pool, &err) : NULL;
    CHECK(t != NULL, "%s: %s, %s", name, err.what, err.where);
    for (i = 0; t && i < rows; i++) {
        const char *text = bytes ? bytes_row[i].text : unigram_row[i].text,
            *wanted = bytes ? bytes_row[i].wanted : unigram_row[i].wanted;
        const char *got = pieces(t, text, strlen(text), pool);
        char *back = NULL;
        CHECK(!strcmp(got, wanted), "%s: '%s' gives '%s'", name, text, got);
        CHECK(!tokenizer_encode(t, text, strlen(text), pool, &ids, &count) &&
              !tokenizer_decode_all(t, ids, count, pool, &back, &n) &&
              !strcmp(back, bytes ? bytes_row[i].decoded : unigram_row[i].decoded),
                  "%s: '%s' comes back as '%s'", name, text, back);
    }
    if (t) tokenizer_template(t, &before, &after);
    CHECK(t && !before && after == !bytes && tokenizer_specials(t).unk == 0 &&
          tokenizer_specials(t).eos == (bytes ? -1 : 1) &&
          !strcmp(tokenizer_class(t), "PreTrainedTokenizerFast"), "%s: its template and special tokens",
              name);
    free(f.data);
}

/* Tests the bytes that each piece stands for: through marks that go, letters that change, and words. */
static void test_json_spans(Pool *pool) {
    static const char text[] = " Ae\xcc\x81 <x>\xef\xac\x81" "B";
    static const TokenSpan wanted[] = { { 1, 2, 1 }, { 2, 3, 1 }, { 6, 9, 1 }, { 9, 9, 1 }, { 9, 12, 1 },
                                        { 12, 13, 1 } };
    Bytes f = seed("json-unigram");
    Tokenizer *t = f.data ? tokenizer_json(f.data, f.n, pool, NULL) : NULL;
    TokenSpan *span;
    int *ids, count, i, good;
    good = t && !tokenizer_encode_spans(t, text, strlen(text), pool, &ids, &span, &count) && count == 6;
    for (i = 0; good && i < count; i++)
        good = span[i].from == wanted[i].from && span[i].to == wanted[i].to &&
            span[i].exact == wanted[i].exact;
    CHECK(good, "json-unigram: where '%s' comes from (%d)", t ? pieces(t, text, strlen(text), pool) : "", i);
    free(f.data);
}

/* Parts of a tokenizer.json of a Unigram model, which is good, and what each is replaced by: what is taken,
 * and what is refused by name. */
enum { UNI_NORMALIZER, UNI_PRE, UNI_DECODER, UNI_MODEL, UNI_PARTS };
static const char *const unigram_part[UNI_PARTS] = { "normalizer", "pre_tokenizer", "decoder", "model" };
static const char *const good_unigram[UNI_PARTS] = {
    "null", "{\"type\": \"Metaspace\", \"replacement\": \"" B "\"}",
    "{\"type\": \"Metaspace\", \"replacement\": \"" B "\"}",
    "{\"type\": \"Unigram\", \"unk_id\": 0, \"vocab\": [[\"<unk>\", 0], [\"a\", -1]]}"
};
#define UNIGRAM(rest) "{\"type\": \"Unigram\", \"unk_id\": 0, " rest "}"
#define STEPS(list) "{\"type\": \"Sequence\", \"normalizers\": [" list "]}"
static const struct { int part; const char *text; int code; const char *says; } bad_unigram[] = {
    { UNI_MODEL, UNIGRAM("\"vocab\": [[\"<unk>\", 0]]"), OK, "" },
    { UNI_MODEL, UNIGRAM("\"vocab\": []"), E_FORMAT, "vocab" },
    { UNI_MODEL, UNIGRAM("\"vocab\": {\"a\": 1}"), E_FORMAT, "vocab" },
    { UNI_MODEL, UNIGRAM("\"vocab\": [[\"a\"]]"), E_FORMAT, "id 0" },
    { UNI_MODEL, UNIGRAM("\"vocab\": [[\"a\", 0], [\"b\", \"c\"]]"), E_FORMAT, "id 1" },
    { UNI_MODEL, UNIGRAM("\"vocab\": [[\"\", 0]]"), E_FORMAT, "empty" },
    { UNI_MODEL, UNIGRAM("\"vocab\": [[\"a\", 0], [\"a\", 1]]"), E_FORMAT, "twice" },
    { UNI_MODEL, UNIGRAM("\"vocab\": [[\"a\", 1e40]]"), E_NUMBER, "range" },
    { UNI_MODEL, "{\"type\": \"Unigram\", \"unk_id\": null, \"vocab\": [[\"a\", 0]]}", E_UNSUPPORTED,
      "unk_id" },
    { UNI_MODEL, "{\"type\": \"Unigram\", \"unk_id\": 1, \"vocab\": [[\"a\", 0]]}", E_RANGE, "unk_id" },
    { UNI_NORMALIZER, "{\"type\": \"NFC\"}", OK, "" }, { UNI_NORMALIZER, "{\"type\": \"NFKD\"}", OK, "" },
    { UNI_NORMALIZER, STEPS("{\"type\": \"NFD\"}, {\"type\": \"StripAccents\"}, {\"type\": \"Lowercase\"}, "
                            "{\"type\": \"Strip\"}, {\"type\": \"Nmt\"}, {\"type\": \"BertNormalizer\"}"),
      OK, "" },
    { UNI_NORMALIZER, "{\"type\": \"ByteLevel\"}", E_UNSUPPORTED, "ByteLevel" },
    { UNI_NORMALIZER, STEPS("7"), E_UNSUPPORTED, "no type" },
    { UNI_NORMALIZER, "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"x+\"}, \"content\": \"\"}", OK,
      "" },
    { UNI_NORMALIZER, "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"(?<=x)y\"}, \"content\": \"\"}",
      E_UNSUPPORTED, "(?<=x)y" },
    { UNI_NORMALIZER, "{\"type\": \"Replace\", \"pattern\": {\"String\": \"\"}, \"content\": \"\"}", OK, "" },
    { UNI_NORMALIZER, "{\"type\": \"Replace\", \"pattern\": 7, \"content\": \"\"}", E_FORMAT, "pattern" },
    { UNI_NORMALIZER, "{\"type\": \"Replace\", \"pattern\": {\"String\": \"x\"}}", E_UNSUPPORTED, "Replace" },
    { UNI_NORMALIZER, "{\"type\": \"Prepend\", \"prepend\": \"x\"}", OK, "" },
    { UNI_NORMALIZER, "{\"type\": \"Precompiled\"}", E_UNSUPPORTED, "Precompiled" },
    { UNI_NORMALIZER, "{\"type\": \"Precompiled\", \"precompiled_charsmap\": \"BAAAAAAAAAAA\"}", OK, "" },
    { UNI_NORMALIZER, "{\"type\": \"Precompiled\", \"precompiled_charsmap\": \"BAAAAAAAAAA\"}", E_FORMAT,
      "base64" },
    { UNI_NORMALIZER, "{\"type\": \"Precompiled\", \"precompiled_charsmap\": \"BAAAAAA*AAAA\"}", E_FORMAT,
      "base64" },
    { UNI_NORMALIZER, "{\"type\": \"Precompiled\", \"precompiled_charsmap\": \"\"}", E_FORMAT, "base64" },
    { UNI_NORMALIZER, "{\"type\": \"Precompiled\", \"precompiled_charsmap\": \"/////wAAAAA=\"}", E_FORMAT,
      "charsmap" },
    { UNI_NORMALIZER, "{\"type\": \"Precompiled\", \"precompiled_charsmap\": \"BAAAAAAAAAD/\"}", E_FORMAT,
      "charsmap" },
    { UNI_PRE, "null", OK, "" }, { UNI_PRE, "{\"type\": \"WhitespaceSplit\"}", OK, "" },
    { UNI_PRE, "{\"type\": \"Digits\"}", OK, "" },
    { UNI_PRE, "{\"type\": \"Metaspace\", \"replacement\": \"_\"}", OK, "" },
    { UNI_PRE, "{\"type\": \"Metaspace\", \"replacement\": \"\"}", E_FORMAT, "replacement" },
    { UNI_PRE, "{\"type\": \"Metaspace\", \"prepend_scheme\": \"odd\"}", E_UNSUPPORTED, "odd" },
    { UNI_PRE, "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"WhitespaceSplit\"}, "
           "{\"type\": \"Metaspace\", \"prepend_scheme\": \"first\"}, {\"type\": \"Punctuation\"}]}", OK,
      "" },
    { UNI_PRE, "{\"type\": \"Punctuation\", \"behavior\": \"odd\"}", E_UNSUPPORTED, "odd" },
    { UNI_PRE, "{\"type\": \"Split\", \"pattern\": {\"String\": \"a\"}, \"behavior\": \"Isolated\"}", OK,
      "" },
    { UNI_PRE, "{\"type\": \"Split\", \"pattern\": {}, \"behavior\": \"Isolated\"}", E_FORMAT, "pattern" },
    { UNI_PRE, "{\"type\": \"ByteLevel\"}", E_UNSUPPORTED, "ByteLevel" },
    { UNI_PRE, "{\"type\": \"UnicodeScripts\"}", E_UNSUPPORTED, "UnicodeScripts" },
    { UNI_PRE, "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Sequence\", \"pretokenizers\": ["
           "{\"type\": \"Digits\"}, {\"type\": \"Odd\"}]}]}", E_UNSUPPORTED, "Odd" },
    { UNI_DECODER, "null", OK, "" }, { UNI_DECODER, "{\"type\": \"CTC\"}", E_UNSUPPORTED, "CTC" },
};
#undef UNIGRAM
#undef STEPS

static void test_bad_unigram(void) {
    size_t i;
    int p, code;
    for (i = 0; i < sizeof bad_unigram / sizeof *bad_unigram; i++) {
        Pool pool = test_pool();
        Error err;
        Buffer b = new_buffer(&pool);
        memset(&err, 0, sizeof err);
        for (p = 0; p < UNI_PARTS; p++) {
            buffer_text(&b, p ? ", " : "{");
            buffer_json_string(&b, unigram_part[p], strlen(unigram_part[p]));
            buffer_text(&b, ": ");
            buffer_text(&b, bad_unigram[i].part == p ? bad_unigram[i].text : good_unigram[p]);
        }
        buffer_text(&b, "}");
        code = tokenizer_json(b.data, b.length, &pool, &err) ? OK : err.code ? err.code : -1;
        CHECK(code == bad_unigram[i].code && (strstr(err.what, bad_unigram[i].says) ||
                                              strstr(err.where, bad_unigram[i].says)),
              "Unigram, %s: %s gives %d, wanted %d and '%s': %s, %s",
              unigram_part[bad_unigram[i].part], bad_unigram[i].text, code, bad_unigram[i].code,
                  bad_unigram[i].says, err.what, err.where);
        pool_free(&pool);
    }
}

/* Tests a normalizer that makes a text longer than memory: it is refused, not tried. */
static void test_growth(Pool *pool) {
    Buffer b = new_buffer(pool);
    Tokenizer *t;
    int i, k, *ids, count;
    buffer_text(&b, "{\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Lowercase\"}");
    for (i = 0; i < 3; i++) {               /* a becomes 10^9 of them */
        buffer_text(&b, ", {\"type\": \"Replace\", \"pattern\": {\"String\": \"a\"}, \"content\": \"");
        for (k = 0; k < 100; k++) buffer_text(&b, "aaaaaaaaaa");
        buffer_text(&b, "\"}");
    }
    buffer_text(&b, "]}, \"decoder\": {\"type\": \"Metaspace\", \"replacement\": \"" B "\"}, "
                    "\"model\": {\"type\": \"Unigram\", \"unk_id\": 0, \"vocab\": [[\"<unk>\", 0], [\"a\", "
                    "-1]]}}");
    t = tokenizer_json(b.data, b.length, pool, NULL);
    CHECK(t && tokenizer_encode(t, "A", 1, pool, &ids, &count) == E_MEMORY &&
          !tokenizer_encode(t, "b", 1, pool, &ids, &count) && count == 1,
          "a normal form without end");
}

static void test_json_unigram(void) {
    Pool pool = test_pool();
    Error err;
    Bytes f = seed("json-unigram");
    Tokenizer *t;
    Rng rng = rng_stream(2, 7, 18);
    int blocks, refused = 0, done = 0, wrong = 0, *ids, count, i;
    unigram_rows("json-unigram", 0, &pool);
    unigram_rows("json-unigram-bytes", 1, &pool);
    test_json_spans(&pool);
    test_bad_unigram();
    test_growth(&pool);
    for (blocks = 0; blocks < 40 && f.data; blocks++) {
        Pool few = test_pool();
        few.source = few_blocks;
        blocks_left = blocks;
        memset(&err, 0, sizeof err);
        t = tokenizer_json(f.data, f.n, &few, &err);
        if (t && (tokenizer_encode(t, "E\xcc\x81", 3, &few, &ids, &count) ? blocks > 30 : count != 2))
            wrong++;
        if (!t && err.code != E_MEMORY) wrong++;
        if (t) done++; else refused++;
        pool_free(&few);
    }
    CHECK(!wrong && refused && done, "Unigram, memory that runs out: %d refused, %d done, %d wrong", refused,
          done, wrong);
    for (i = 0; i < 3000 && f.data; i++) {  /* some bytes changed: a message, or a tokenizer that works */
        Pool scratch = test_pool();
        char *damaged = pool_take(&scratch, f.n, 1);
        int k;
        memcpy(damaged, f.data, f.n);
        for (k = 1 + i % 3; k; k--) damaged[rng_below(&rng, (uint32_t)f.n)] = (char)rng_below(&rng, 256);
        memset(&err, 0, sizeof err);
        t = tokenizer_json(damaged, f.n, &scratch, &err);
        if (!t && !err.code) wrong++;
        if (t && tokenizer_encode(t, "A\r\nb\xc3\xa9 <x>ab", 12, &scratch, &ids, &count)) wrong++;
        if (t) for (k = 0; k < count; k++) wrong += ids[k] < 0 || ids[k] >= tokenizer_size(t);
        pool_free(&scratch);
    }
    CHECK(!wrong, "3000 damaged files: %d wrong", wrong);
    free(f.data);
    pool_free(&pool);
}
#undef B

/* ---- added tokens, on tokenizers of ours ---- */
static int beside(Tokenizer *t, const char *added, const char *config, const char *map, Pool *pool,
                  Error *err) {
    const Json *a = added ? json_parse(added, strlen(added), pool, NULL) : NULL,
        *c = config ? json_parse(config, strlen(config), pool, NULL) : NULL,
               *m = map ? json_parse(map, strlen(map), pool, NULL) : NULL;
    memset(err, 0, sizeof *err);
    return tokenizer_beside(t, a, c, m, pool, err);
}

/* {"261": {"content": ..., FLAGS}} for added_tokens_decoder. */
static const char flags_config[] = "{\"added_tokens_decoder\": {\"261\": {\"content\": \"<a>\"}, \"262\": "
                                   "{\"content\": \"<a><b>\", \"special\": true}, "
    "\"263\": {\"content\": \"<l>\", \"lstrip\": true}, \"264\": {\"content\": \"<r>\", \"rstrip\": true}, "
    "\"265\": {\"content\": \"word\", \"single_word\": true}, \"266\": {\"content\": \"<x y>\"}, "
    "\"267\": {\"content\": \" b\"}, \"270\": {\"content\": \"\\t\\t\"}, \"2\": "
    "{\"content\": \"</s>\", \"special\": true}}, "
    "\"pad_token\": {\"content\": \"<a>\"}, \"chat_template\": [{\"name\": \"tool\", \"template\": \"T\"}, "
    "{\"name\": \"default\", \"template\": \"D\"}]}";

static Tokenizer *with_flags(Pool *pool) {
    Error err;
    Tokenizer *t = train(1, 50, 261, pool, &err);
    CHECK(t && !beside(t, NULL, flags_config, NULL, pool, &err), "added tokens: %s, %s", err.what, err.where);
    return t;
}

static const struct { const char *text, *wanted; } flags[] = {
    { "", "" }, { "<a", "<a" }, { "1<a>2", "1{<a>}2" }, { "<a><b>", "{<a><b>}" },
    { "<a><a><b><b>", "{<a>}{<a><b>}<b>" },
    { "1 \t <l> 2", "1{<l>}\xc4\xa0" "2" }, { "1 <r> \n\xc2\xa0" "2", "1\xc4\xa0{<r>}2" },
    { "<r> <l> <l>", "{<r>}{<l>}{<l>}" }, { " <l>", "{<l>}" },
    { "word swords word_ (word)", "{word}\xc4\xa0swords\xc4\xa0word_\xc4\xa0({word})" },
    { "\xc3\xa9word", "\xc3\x83\xc2\xa9word" },
    /* borders of a single word: U+00B2 is none, a mark, U+200D, U+203F and U+24B6 are part of a word */
    { "word\xc2\xb2", "{word}\xc3\x82\xc2\xb2" }, { "word\xcc\x81", "word\xc3\x8c\xc4\xa3" },
    { "word\xe2\x80\x8d", "word\xc3\xa2\xc4\xa2\xc4\xaf" },
    { "word\xe2\x80\xbf", "word\xc3\xa2\xc4\xa2\xc2\xbf" },
    { "\xe2\x92\xb6word", "\xc3\xa2\xc4\xb4\xc2\xb6word" },
    { "word\xe2\x80\x94", "{word}\xc3\xa2\xc4\xa2\xc4\xb6" },
    { "9word", "9word" }, { "\xd9\xa3word", "\xc3\x99\xc2\xa3word" },
    /* tokens in the white space that <r> swallows */
    { "<r> b", "{<r>}{ b}" }, { "<r>   b", "{<r>}{ b}" }, { "<r>\t\t\tx", "{<r>}{\t\t}\xc4\x89x" },
    { "a<x y>b", "a{<x y>}b" }, { "<x  y>", "<x\xc4\xa0\xc4\xa0y>" }, { "</s>", "{</s>}" },
    { "<s>", "{<s>}" },
};

static void test_flags(void) {
    Pool pool = test_pool();
    Error err;
    Tokenizer *t = with_flags(&pool);
    Buffer sp, json;
    AddedToken a;
    Bytes model;
    size_t i;
    int merges, n = 0, *ids, count;
    char *back;
    size_t length;
    for (i = 0; t && i < sizeof flags / sizeof *flags; i++) {
        const char *got = spelt(t, flags[i].text, 261, &pool);
        CHECK(!strcmp(got, flags[i].wanted), "added tokens in '%s': %s, wanted %s", flags[i].text, got,
              flags[i].wanted);
    }
    if (!t) return;
    CHECK(!strcmp(decoded(t, "1<a>2<a><b>3", 0, &pool), "1<a>23") &&
          !strcmp(decoded(t, "1<a>2<a><b>3", 1, &pool), "1<a>2<a><b>3"), "special ones are skipped");
    for (i = 0; tokenizer_added(t, (int)i, &a) && a.implied; i++) { }
    CHECK(i == 2 && a.id == 2 && !a.beyond && !tokenizer_added(t, -1, &a),
          "<s>, <pad>: special by their names");
    for (i = 0; tokenizer_added(t, (int)i, &a) && a.id < 261; i++) CHECK(!a.beyond, "%d has a piece", a.id);
    CHECK(a.id == 261 && tokenizer_added(t, (int)i + 5, &a) && a.id == 266 && a.beyond && !a.implied &&
          tokenizer_added(t, (int)i + 7, &a) && a.id == 270 && !tokenizer_added(t, (int)i + 8, &a),
          "the list of added tokens");
    CHECK(tokenizer_specials(t).pad == 261 && tokenizer_specials(t).bos == 0 &&
          !strcmp(tokenizer_chat_template(t), "D"), "names, and the default template");
    CHECK(!tokenizer_encode_plain(t, "<a>", 3, 1, &pool, &ids, &count) && count == 3,
          "encode_plain looks for none");
    CHECK(tokenizer_size(t) == 271 && !tokenizer_piece(t, 268, NULL) &&
          !tokenizer_decode_all(t, (const int[]){ 261, 269, 268, 265 }, 4, &pool, &back, &length) &&
          !strcmp(back, "<a>word"), "ids between the added ones are decoded to nothing");
    tokenizer_split_special(t);
    CHECK(!strcmp(spelt(t, "<a><b><a>x</s>", 261, &pool), "<a><b>{<a>}x</s>"),
          "special tokens are plain text");
    sp = written(train(0, 50, 320, &pool, &err), 0, &pool);
    model.data = (char *)sp.data; model.n = sp.length;
    t = tokenizer_sentencepiece(sp.data, sp.length, &pool, &err);
    json = json_llama(t, model, chat_name, chat_id, 3, 0, &pool, &merges);
    t = open_json(json, &pool);
    if (!t) return;
    CHECK(!beside(t, NULL, "{\"added_tokens_decoder\": {\"320\": {\"content\": \"xy\", \"normalized\": true}"
                           ", "
                           "\"321\": {\"content\": \"z\", \"normalized\": false}}}",
                  NULL, &pool, &err), "normalized: %s", err.what);
    for (i = 0; i < 4; i++) {
        static const char *const text[] = { "a xy", "axy", "xy", "az xy" },
                          *const wanted[] = { "\xe2\x96\x81" "a{xy}", "\xe2\x96\x81" "a<0x78><0x79>", "{xy}",
                                              "\xe2\x96\x81" "a{z}\xe2\x96\x81{xy}" };
        n += !strcmp(spelt(t, text[i], 320, &pool), wanted[i]);
    }
    CHECK(n == 4, "normalized tokens are looked for in the normal form: %d of 4", n);
    CHECK(!strcmp(decoded(t, "a xy", 1, &pool), "a xy"), "and decoded from it: '%s'",
          decoded(t, "a xy", 1, &pool));
    pool_free(&pool);
}

/* Tests Llama-3's split: whole words are looked up, so that the ids say where it cut. */
static void test_split(void) {
    static const char head[] = "{\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": "
                               "\"Split\", \"pattern\": {\"Regex\": "
        "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| "
        "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|"
        "\\\\s+(?!\\\\S)|\\\\s+\"}, \"behavior\": \"Isolated\"}, {\"type\": \"ByteLevel\", "
        "\"add_prefix_space\": false, \"use_regex\": false}]}, "
        "\"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": \"BPE\", \"ignore_merges\": true, "
        "\"merges\": [], \"vocab\": {";
    static const struct { const char *text; const char *word[8]; } row[] = {
        { "I'LL don't", { "I", "'LL", " don", "'t" } }, { "1234567", { "123", "456", "7" } },
        { "a 12", { "a", " ", "12" } },
        { "(word) -x", { "(word", ")", " -", "x" } }, { "!!\n\nx", { "!!\n\n", "x" } },
        { " ?!\r\n b", { " ?!\r\n", " b" } },
        { "a \n \n  b", { "a", " \n \n", " ", " b" } }, { "a   b", { "a", "  ", " b" } },
        { "a   ", { "a", "   " } }, { "\tb\xc3\xa9", { "\tb\xc3\xa9" } },
        { "\nb", { "\n", "b" } }, { "''s", { "''", "s" } }, { "  1", { " ", " ", "1" } },
        { "a\xc2\xa0" "b", { "a", "\xc2\xa0" "b" } },
    };
    size_t r, w, n, k;
    for (r = 0; r < sizeof row / sizeof *row; r++) {
        Pool pool = test_pool();
        Error err;
        Buffer b = new_buffer(&pool);
        Tokenizer *t;
        int *ids, count, id = 0, good = 1;
        memset(&err, 0, sizeof err);
        buffer_text(&b, head);
        for (w = 0; w < 8 && row[r].word[w]; w++) {
            Buffer mapped = new_buffer(&pool);
            for (k = 0; k < w && strcmp(row[r].word[k], row[r].word[w]); k++) { }
            if (k < w) continue;
            /* GPT-2's alphabet, as far as it occurs here */
            for (k = 0, n = strlen(row[r].word[w]); k < n; k++) {
                unsigned c = (unsigned char)row[r].word[w][k];
                char utf8[4];
                unsigned code = c <= 32 ? c + 256 : c == 0xA0 ? 0x142 : c;
                buffer_bytes(&mapped, utf8, (size_t)utf8_encode(utf8, (int32_t)code));
            }
            buffer_text(&b, id ? ", " : "");
            buffer_json_string(&b, (char *)mapped.data, mapped.length);
            buffer_text(&b, ": ");
            buffer_integer(&b, id++);
        }
        buffer_text(&b, "}}}");
        t = tokenizer_json(b.data, b.length, &pool, &err);
        good = t && !tokenizer_encode(t, row[r].text, strlen(row[r].text), &pool, &ids, &count);
        for (w = 0; good && w < 8 && row[r].word[w]; w++) {
            char *back;
            good = (int)w < count && !tokenizer_decode(t, ids + w, 1, &pool, &back, &n) &&
                !strcmp(back, row[r].word[w]);
        }
        CHECK(good && (int)w == count, "Llama-3's split of row %d: word %d (%s)", (int)r, (int)w, err.what);
        pool_free(&pool);
    }
}

/* Tests Digits before ByteLevel: the ids of single digits and of runs of digits; the words between them are
 * cut as always. */
static void test_digits(void) {
    static const struct { const char *digits, *text, *wanted; } row[] = {
        { "", "a 12 34b", "a| 12| 34|b" },
        { ", \"individual_digits\": false", "a 12 34b", "a| |12| |34|b" },
        { ", \"individual_digits\": true", "in  12 a", "i|n|  |1|2| a" },
        { ", \"individual_digits\": true", "12", "1|2" },
        { ", \"individual_digits\": true", "", "" },
        { ", \"individual_digits\": true", "\xc2\xbd" "1", "\xc2\xbd|1" },
    };
    size_t i;
    for (i = 0; i < sizeof row / sizeof *row; i++) {
        Pool pool = test_pool();
        Error err;
        Buffer b = new_buffer(&pool), got = new_buffer(&pool);
        Tokenizer *t;
        int *ids, count = -1, k;
        memset(&err, 0, sizeof err);
        buffer_text(&b, "{\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [");
        if (*row[i].digits) {
            buffer_text(&b, "{\"type\": \"Digits\"");
            buffer_text(&b, row[i].digits);
            buffer_text(&b, "}, ");
        }
        buffer_text(&b, "{\"type\": \"ByteLevel\", \"add_prefix_space\": false}]}, \"decoder\": {\"type\": "
            "\"ByteLevel\"}, \"model\": {\"type\": \"BPE\", \"merges\": [\"1 2\", \"3 4\", "
            "\"\xc4\xa0 \xc4\xa0\", \"\xc4\xa0 a\", "
            "\"\xc4\xa0 12\", \"\xc4\xa0 34\", \"\xc3\x82 \xc2\xbd\"], "
            "\"vocab\": {\"a\": 0, \"b\": 1, \"i\": 2, \"n\": 3, \"1\": 4, \"2\": 5, \"3\": 6, \"4\": 7, "
            "\"\xc4\xa0\": 8, \"12\": 9, \"34\": 10, \"\xc4\xa0\xc4\xa0\": 11, \"\xc4\xa0" "a\": 12, "
            "\"\xc4\xa0" "12\": 13, \"\xc4\xa0" "34\": 14, \"\xc3\x82\": 15, \"\xc2\xbd\": 16, "
            "\"\xc3\x82\xc2\xbd\": 17}}}");
        t = tokenizer_json(b.data, b.length, &pool, &err);
        CHECK(t && !tokenizer_encode(t, row[i].text, strlen(row[i].text), &pool, &ids, &count),
              "Digits: %s, %s", err.what, err.where);
        for (k = 0; t && k < count; k++) {
            char *piece;
            size_t n;
            tokenizer_decode(t, ids + k, 1, &pool, &piece, &n);
            if (k) buffer_text(&got, "|");
            buffer_bytes(&got, piece, n);
        }
        buffer_u8(&got, 0);
        CHECK(!strcmp((char *)got.data, row[i].wanted), "Digits%s in '%s': '%s', wanted '%s'", row[i].digits,
              row[i].text, (char *)got.data, row[i].wanted);
        pool_free(&pool);
    }
}

/* One part of a small good tokenizer.json replaced. */
enum { ADDED, NORMALIZER, PRE, POST, DECODER, MODEL, PARTS };
static const char *const part_name[PARTS] = { "added_tokens", "normalizer", "pre_tokenizer", "post_processor",
                                              "decoder", "model" };
static const char *const good_part[PARTS] = { "[{\"content\": \"<e>\", \"id\": 3, \"special\": true}]",
                                              "null",
      "{\"type\": \"ByteLevel\", \"add_prefix_space\": false}",
    "null", "{\"type\": \"ByteLevel\"}",
    "{\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}, \"merges\": [\"a b\"]}" };
#define VOCAB "\"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}"
static const struct { int part; const char *text; int code; const char *says; } bad_part[] = {
    { MODEL, "{\"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}, \"merges\": [[\"a\", \"b\"]]}", OK, "" },
    { MODEL, "{\"type\": \"WordPiece\", " VOCAB "}", E_UNSUPPORTED, "ByteLevel" },
    { MODEL, "{\"type\": \"Unigram\", \"vocab\": []}",
          E_UNSUPPORTED, "Unigram" },
    { MODEL, "{\"type\": \"WordLevel\", " VOCAB "}", E_UNSUPPORTED, "WordLevel" },
    { MODEL, "null", E_UNSUPPORTED, "model" },
    { MODEL, "{" VOCAB "}", E_UNSUPPORTED, "type" },
    { MODEL, "{\"type\": 7, " VOCAB ", \"merges\": []}", E_UNSUPPORTED, "type" },
    { MODEL, "{\"type\": \"BPE\", \"dropout\": 0.1, " VOCAB ", \"merges\": []}", OK, "" },
    { MODEL, "{\"type\": \"BPE\", \"continuing_subword_prefix\": \"##\", " VOCAB ", \"merges\": []}",
      E_UNSUPPORTED, "continuing_subword_prefix" },
    { MODEL, "{\"type\": \"BPE\", \"end_of_word_suffix\": \"</w>\", " VOCAB ", \"merges\": []}",
      E_UNSUPPORTED, "end_of_word_suffix" },
    { MODEL, "{\"type\": \"BPE\", " VOCAB "}", E_FORMAT, "" },
    { MODEL, "{\"type\": \"BPE\", " VOCAB ", \"merges\": {}}", E_FORMAT, "" },
    { MODEL, "{\"type\": \"BPE\", \"merges\": []}", E_FORMAT, "" },
    { MODEL, "{\"type\": \"BPE\", \"vocab\": [\"a\"], \"merges\": []}", E_FORMAT, "" },
    { MODEL, "{\"type\": \"BPE\", " VOCAB ", \"merges\": [\"ab\"]}", E_FORMAT, "merge 0" },
    { MODEL, "{\"type\": \"BPE\", " VOCAB ", \"merges\": [\"a b\", \"a b c\"]}", E_FORMAT, "merge 1" },
    { MODEL, "{\"type\": \"BPE\", " VOCAB ", \"merges\": [[\"a\"]]}", E_FORMAT, "merge 0" },
    { MODEL, "{\"type\": \"BPE\", " VOCAB ", \"merges\": [[\"a\", \"b\", \"a\"]]}", E_FORMAT, "" },
    { MODEL, "{\"type\": \"BPE\", " VOCAB ", \"merges\": [[\"a\", 1]]}", E_FORMAT, "" },
    { MODEL, "{\"type\": \"BPE\", " VOCAB ", \"merges\": [5]}", E_FORMAT, "" },
    { MODEL, "{\"type\": \"BPE\", " VOCAB ", \"merges\": [[\"\", \"ab\"]]}", E_FORMAT, "" },
    { MODEL, "{\"type\": \"BPE\", " VOCAB ", \"merges\": [\"b a\"]}", E_MISSING, "merge 0" },
    { MODEL, "{\"type\": \"BPE\", " VOCAB ", \"merges\": [\"a c\"]}", E_MISSING, "merge 0" },
    { MODEL, "{\"type\": \"BPE\", " VOCAB ", \"merges\": [\"ab ab\"]}", E_MISSING, "" },
    { MODEL, "{\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 0}, \"merges\": []}", E_FORMAT, "one id" },
    { MODEL, "{\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 2, \"c\": 4}, \"merges\": []}", OK, "" },
    { MODEL, "{\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 2000000}, \"merges\": []}", E_RANGE,
      "too large" },
    { MODEL, "{\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 2, \"c\": 1}, \"merges\": []}", OK, "" },
    { MODEL, "{\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"c\": 3}, \"merges\": []}", E_FORMAT,
      "another token" },
    { MODEL, "{\"type\": \"BPE\", \"vocab\": {\"a\": -1}, \"merges\": []}", E_FORMAT, "" },
    { MODEL, "{\"type\": \"BPE\", \"vocab\": {\"a\": 1e300}, \"merges\": []}", E_FORMAT, "" },
    { MODEL, "{\"type\": \"BPE\", \"vocab\": {\"a\": 2147483647}, \"merges\": []}", E_FORMAT, "" },
    { ADDED, "[]", OK, "" }, { ADDED, "null", OK, "" }, { ADDED, "[{\"content\": \"\", \"id\": 9}]", OK, "" },
    { ADDED, "[{\"content\": \"a\", \"id\": 0}]", OK, "" },
    { ADDED, "[{\"id\": 3}]", E_FORMAT, "content" }, { ADDED, "[{\"content\": \"x\"}]", E_FORMAT, "id" },
    { ADDED, "[{\"content\": \"x\", \"id\": \"3\"}]", E_FORMAT, "id" },
    { ADDED, "[{\"content\": \"x\", \"id\": 4}]", OK, "" },
    { ADDED, "[{\"content\": \"x\", \"id\": 400000000}]", E_RANGE, "too large" },
    { ADDED, "[{\"content\": \"x\", \"id\": 4}, {\"content\": \"y\", \"id\": 4}]", E_FORMAT, "one id" },
    { ADDED, "[{\"content\": \"x\", \"id\": 3}, {\"content\": \"x\", \"id\": 4}]", E_FORMAT, "two ids" },
    { ADDED, "[{\"content\": \"a\", \"id\": 3}]", E_FORMAT, "two ids" },
    { ADDED, "[{\"content\": \"x\", \"id\": 1}]", E_FORMAT, "another token" },
    { ADDED, "[{\"content\": \"x\", \"id\": 3}, {\"content\": \"x\", \"id\": 3, \"special\": true}]", OK,
      "" }, { ADDED, "[7]", E_FORMAT, "content" },
    { NORMALIZER, "{\"type\": \"NFC\"}", OK, "" },
    { NORMALIZER, "{\"type\": \"Sequence\", \"normalizers\": []}", OK, "" },
    { NORMALIZER, "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Lowercase\"}]}", OK, "" },
    { NORMALIZER, "7", E_UNSUPPORTED, "normalizer" },
    { PRE, "null", OK, "" }, { PRE, "{\"type\": \"Whitespace\"}", OK, "" },
    { PRE, "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\"}, {\"type\": \"ByteLevel\"}]}",
      OK, "" },
    { PRE, "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\"}, {\"type\": \"Odd\"}, "
           "{\"type\": \"ByteLevel\"}]}", E_UNSUPPORTED, "Odd" },
    { PRE, "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"behavior\": \"Isolated\", "
           "\"pattern\": {\"Regex\": \"x(?<!y)\"}}, {\"type\": \"ByteLevel\"}]}", E_UNSUPPORTED, "(?<!y)" },
    { PRE, "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"ByteLevel\"}, {\"type\": \"Digits\"}]}",
      E_UNSUPPORTED, "ByteLevel" },
    { POST, "{\"type\": \"ByteLevel\"}", OK, "" }, { POST, "{\"type\": \"Odd\"}", E_UNSUPPORTED, "Odd" },
    { POST, "{\"type\": \"RobertaProcessing\"}", E_FORMAT, "RobertaProcessing" },
    { POST, "{\"type\": \"RobertaProcessing\", \"sep\": [\"<e>\", 3], \"cls\": [\"<e>\", 4]}", E_FORMAT, "" },
    { POST, "{\"type\": \"RobertaProcessing\", \"sep\": [\"<e>\", 3], \"cls\": [\"<e>\", 3]}", OK, "" },
    { POST, "{\"type\": \"TemplateProcessing\"}", E_FORMAT, "" },
    { POST, "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<e>\"}}, "
            "{\"Sequence\": {}}]}", E_FORMAT, "<e>" },
    { POST, "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<e>\"}}, "
            "{\"SpecialToken\": {\"id\": \"<e>\"}}, "
            "{\"Sequence\": {}}], "
            "\"special_tokens\": {\"<e>\": {\"ids\": [3]}}}", E_UNSUPPORTED, "side by side" },
    { DECODER, "null", OK, "" }, { DECODER, "{\"type\": \"CTC\"}", E_UNSUPPORTED, "CTC" },
};

static void test_bad_json(void) {
    size_t i, k;
    for (i = 0; i < sizeof bad_part / sizeof *bad_part; i++) {
        Pool pool = test_pool();
        Error err;
        Buffer b = new_buffer(&pool);
        Tokenizer *t;
        int code, p;
        memset(&err, 0, sizeof err);
        for (p = 0; p < PARTS; p++) {
            buffer_text(&b, p ? ", " : "{");
            buffer_json_string(&b, part_name[p], strlen(part_name[p]));
            buffer_text(&b, ": ");
            buffer_text(&b, bad_part[i].part == p ? bad_part[i].text : good_part[p]);
        }
        buffer_text(&b, "}");
        t = tokenizer_json(b.data, b.length, &pool, &err);
        code = t ? OK : err.code ? err.code : -1;
        CHECK(code == bad_part[i].code && (strstr(err.what, bad_part[i].says) ||
                                           strstr(err.where, bad_part[i].says)),
              "tokenizer.json, %s: %s gives %d, wanted %d and '%s': %s, %s",
              part_name[bad_part[i].part], bad_part[i].text, code, bad_part[i].code, bad_part[i].says,
                  err.what, err.where);
        for (k = 0; !i && k < b.length; k++) if (tokenizer_json(b.data, k, &pool, NULL)) break;
        if (!i) CHECK(k == b.length, "tokenizer.json cut after %d bytes is taken", (int)k);
        pool_free(&pool);
    }
}

/* Tests "legacy": false: only the start of a text gets a space; after a special token there is none, nor
 * before what a stranger says there. */
static void test_legacy(void) {
    static const char *const text[] = { "a b", "a </s>b", "</s>a", " a</s> b</s></s>" },
        *const old[] = { "_a_b", "_a_ </s> _b", "</s> _a", "__a </s> __b </s> </s>" },
        *const wanted[] = { "_a_b", "_a_ </s> b", "</s> a", "__a </s> _b </s> </s>" };
    Pool pool = test_pool();
    Error err;
    Bytes f = seed("sp-bpe"), rules = seed("sp-rules");
    size_t i;
    int legacy, *ids, count, k;
    for (legacy = 0; legacy < 2; legacy++) {
        Tokenizer *t = tokenizer_sentencepiece(f.data, f.n, &pool, &err);
        char config[200];
        snprintf(config, sizeof config, "{\"legacy\": %s, \"added_tokens_decoder\": {\"2\": {\"content\": "
                                        "\"</s>\", \"special\": true}}}",
              legacy ? "null" : "false");
        CHECK(t && !beside(t, NULL, config, NULL, &pool, &err) && tokenizer_legacy(t) == legacy,
              "legacy %d: %s, %s", legacy, err.what, err.where);
        for (i = 0; t && i < 4; i++) {
            char got[200] = "", *at = got;
            const char *want = (legacy ? old : wanted)[i];
            tokenizer_encode(t, text[i], strlen(text[i]), &pool, &ids, &count);
            /* U+2581 as _, pieces of SentencePiece run together, </s> apart */
            for (k = 0; k < count; k++) {
                const char *piece = tokenizer_piece(t, ids[k], NULL);
                size_t n;
                tokenizer_piece(t, ids[k], &n);
                if (ids[k] == 2) { at += sprintf(at, "%s</s>%s", k ? " " : "", k + 1 < count &&
                                                 ids[k + 1] != 2 ? " " : ""); continue; }
                for (; n; n--)
                    if (*piece == (char)0xE2) { *at++ = '_'; piece += 3; n -= 2; } else *at++ = *piece++;
            }
            *at = 0;
            CHECK(!strcmp(got, want), "legacy %d: '%s' gives '%s'", legacy, text[i], got);
        }
        CHECK(t && !tokenizer_encode_plain(t, "a", 1, 0, &pool, &ids, &count) && count == 1 &&
              (ids[0] == 4) == !legacy,
              "legacy %d: a text that goes on", legacy);
    }
    {
        Tokenizer *t = tokenizer_sentencepiece(rules.data, rules.n, &pool, &err);
        CHECK(t && beside(t, NULL, "{\"legacy\": false}", NULL, &pool, &err) == E_UNSUPPORTED &&
              strstr(err.what, "legacy"),
              "legacy, white space removed: %s", err.what);
        t = tokenizer_sentencepiece(f.data, f.n, &pool, &err);
        for (i = 0; i < 2; i++) {
            t = tokenizer_sentencepiece(f.data, f.n, &pool, &err);
            CHECK(t && !beside(t, NULL, i ? "{\"legacy\": false, \"add_prefix_space\": false}"
                                          : "{\"add_prefix_space\": false}", NULL, &pool, &err) &&
                  !tokenizer_encode(t, "a", 1, &pool, &ids, &count) && count == 1 && ids[0] == 4,
                  "add_prefix_space false: %s", err.what);
        }
    }
    free(f.data); free(rules.data);
    pool_free(&pool);
}

/* ---- tokenizer_config.json ---- */
static const char *scratch_folder(void);
static void remove_files(const char *folder);

/* Returns the ids of a text, with the template around them, as a string. */
static const char *all_ids(const Tokenizer *t, const char *text, Pool *pool) {
    Buffer b = new_buffer(pool);
    SpecialIds s = tokenizer_specials(t);
    int *ids, count, i, before, after;
    if (tokenizer_encode(t, text, strlen(text), pool, &ids, &count)) return "(no memory)";
    tokenizer_template(t, &before, &after);
    if (before) { buffer_integer(&b, s.bos); buffer_text(&b, ":"); }
    for (i = 0; i < count; i++) {
        if (i) buffer_text(&b, " ");
        buffer_integer(&b, ids[i]);
    }
    if (after) { buffer_text(&b, ":"); buffer_integer(&b, s.eos); }
    buffer_u8(&b, 0);
    return (char *)b.data;
}

#define GPT2_VOCAB "{\"<|endoftext|>\": 0, \"a\": 1, \"b\": 2, " \
    "\"\xc4\xa0\": 3, \"\xc4\xa0" "a\": 4, \"<\": 5}"
#define OPT_VOCAB "{\"<s>\": 0, \"<pad>\": 1, \"</s>\": 2, \"a\": 3, \"b\": 4, \"\xc4\xa0\": 5, " \
    "\"\xc4\xa0" "a\": 6, \"<mask>\": 7, \"s\": 8, \"<\": 9, \">\": 10}"
#define BYTE_JSON "{\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}, " \
    "\"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": \"BPE\", " \
    "\"merges\": [\"\xc4\xa0 a\"], \"vocab\": " OPT_VOCAB "}, " \
    "\"added_tokens\": [{\"id\": 0, \"content\": \"<s>\", \"special\": true}], \"post_processor\": " \
    "{\"type\": \"TemplateProcessing\", \"single\": [{\"Sequence\": {}}, " \
    "{\"SpecialToken\": {\"id\": \"</s>\"}}], " \
    "\"special_tokens\": {\"</s>\": {\"ids\": [2]}}}}"
#define BERT_JSON "{\"normalizer\": {\"type\": \"BertNormalizer\", \"lowercase\": true}, " \
    "\"pre_tokenizer\": {\"type\": \"BertPreTokenizer\"}, " \
    "\"decoder\": {\"type\": \"WordPiece\", \"prefix\": \"##\"}, \"model\": {\"type\": \"WordPiece\", " \
    "\"vocab\": {\"[UNK]\": 0, \"a\": 1, \"A\": 2, \"[MASK]\": 3}}}"
/* file: the start of vocab.json, tokenizer.json or vocab.txt; the ids, and they are the same after the
 * tokenizer was written and opened again. */
static const struct { const char *file, *config, *text, *wanted; } config_row[] = {
    { GPT2_VOCAB, "{}", "a<|endoftext|> a", "1 0 4" },
    { GPT2_VOCAB, "{}", " a<", "4 5" },
    { GPT2_VOCAB, "{\"split_special_tokens\": true}", "a<|endoftext|>", "1 5 0 0 0 0 0 0 0 0 0 0 0 0" },
    { GPT2_VOCAB, "{\"add_prefix_space\": true}", "a<|endoftext|>a b", "4 0 4 3 2" },
    { GPT2_VOCAB, "{\"add_prefix_space\": false}", "a", "1" },
    { GPT2_VOCAB, "{\"add_bos_token\": true}", "a", "0:1" },
    { GPT2_VOCAB, "{\"add_eos_token\": true}", "a", "1:0" },
    { GPT2_VOCAB, "{\"add_bos_token\": true, \"bos_token\": \"b\"}", "ab", "2:1 2" },
    { GPT2_VOCAB, "{\"pad_token\": \"[P]\", \"additional_special_tokens\": [\"[X]\", \"[Y]\"]}",
      "a[P][X]a[Y]", "1 6 7 1 8" },
    { OPT_VOCAB, "{}", "a <mask><s>", "0:3 7 0:2" },
    { OPT_VOCAB, "{\"mask_token\": {\"content\": \"<mask>\"}}", "a <mask>", "0:3 5 7:2" },
    { OPT_VOCAB, "{\"tokenizer_class\": \"GPT2Tokenizer\", \"add_bos_token\": true, \"bos_token\": \"</s>\", "
                 "\"eos_token\": {\"content\": \"</s>\"}, \"unk_token\": \"</s>\", \"pad_token\": \"<pad>\"}",
      "a</s><s>", "2:3 2 9 8 10" },
    { OPT_VOCAB, "{\"tokenizer_class\": \"GPT2TokenizerFast\"}", "a", "3" },
    { BYTE_JSON, "{}", "a<s>", "3 0:2" },
    { BYTE_JSON, "{\"add_bos_token\": true, \"bos_token\": \"<s>\"}", "a", "0:3" },
    { BYTE_JSON, "{\"add_bos_token\": false}", "a", "3" },
    { BYTE_JSON, "{\"add_prefix_space\": true, \"tokenizer_class\": \"GPT2Tokenizer\"}", "a", "6:2" },
    { BYTE_JSON, "{\"add_prefix_space\": true, \"tokenizer_class\": \"PreTrainedTokenizerFast\"}", "a",
      "3:2" },
    { BYTE_JSON, "{\"mask_token\": \"<mask>\"}", "a<mask>", "3 7:2" },
    { BERT_JSON, "{}", "A a", "1 1" },
    { BERT_JSON, "{\"do_lower_case\": false}", "A a", "2 1" },
    { BERT_JSON, "{\"do_lower_case\": false, \"tokenizer_class\": \"PreTrainedTokenizerFast\"}", "A a",
      "1 1" },
    { "[UNK]\na\nA\n[MASK]\n[", "{}", "A [MASK]a[", "1 3 1 4" },
    { "[UNK]\na\nA\n[MASK]\n[", "{\"do_lower_case\": false}", "A [MASK]a", "2 3 1" },
};

static Tokenizer *open_start(const char *file, Pool *pool, Error *err) {
    static const char merges[] = "\xc4\xa0 a\n";
    if (*file == '[') return tokenizer_wordpiece(file, strlen(file), pool, err);
    if (!strncmp(file, "{\"<", 3))
        return tokenizer_bytelevel(file, strlen(file), merges, strlen(merges), pool, err);
    return tokenizer_json(file, strlen(file), pool, err);
}

static void test_config(void) {
    size_t i;
    char folder[700];
    snprintf(folder, sizeof folder, "%s-config", scratch_folder());
    for (i = 0; i < sizeof config_row / sizeof *config_row; i++) {
        Pool pool = test_pool();
        Error err = { 0 };
        const char *config = config_row[i].config, *text = config_row[i].text, *got = "";
        const char *wanted = config_row[i].wanted;
        Tokenizer *t = open_start(config_row[i].file, &pool, &err), *u = NULL;
        if (t && !beside(t, NULL, config, NULL, &pool, &err)) got = all_ids(t, text, &pool);
        CHECK(t && !strcmp(got, wanted), "%s: '%s' gives '%s', wanted '%s' (%s, %s)", config, text, got,
              wanted, err.what, err.where);
        if (t && !tokenizer_save(t, folder, 77, &pool, &err)) u = tokenizer_open(folder, &pool, &err);
        got = u ? all_ids(u, text, &pool) : "";
        CHECK(u && !strcmp(got, wanted) && tokenizer_max_length(u) == 77, "%s: saved and opened, '%s' gives "
              "'%s', wanted '%s' (%s, %s)", config, text, got, wanted, err.what, err.where);
        remove_files(folder);
        pool_free(&pool);
    }
}

/* Tests the special tokens of a SentencePiece model, and model_max_length. */
static void test_special_pieces(void) {
    static const char length[] = "{\"model_max_length\": 12}";
    Pool pool = test_pool();
    Error err = { 0 };
    Tokenizer *t = train(0, 50, 300, &pool, &err);
    int *ids, count;
    CHECK(t && !beside(t, NULL, length, NULL, &pool, &err) && tokenizer_max_length(t) == 12,
          "model_max_length: %d", t ? tokenizer_max_length(t) : 0);
    CHECK(t && !tokenizer_encode(t, "</s><s>", 7, &pool, &ids, &count) && count == 2 &&
          ids[0] == 2 && ids[1] == 1, "</s> and <s> in a text are the special tokens");
    tokenizer_split_special(t);
    CHECK(!tokenizer_encode(t, "</s>", 4, &pool, &ids, &count) && count > 2, "or plain text");
    CHECK(!beside(t, NULL, "{\"model_max_length\": 1e30}", NULL, &pool, &err) && !tokenizer_max_length(t),
          "a model_max_length of 1e30 is none");
    pool_free(&pool);
}

static void test_bad_beside(void) {
    static const struct { const char *added, *config; int code; } bad[] = {
        { "[1]", NULL, E_FORMAT }, { "{\"x\": \"300\"}", NULL, E_FORMAT },
        { "{\"x\": 301}", NULL, OK }, { "{\"x\": 9000000}", NULL, E_RANGE },
        { "{\"x\": 300, \"y\": 300}", NULL, E_FORMAT },
        { "{\"x\": 5}", NULL, E_FORMAT }, { "{\"<s>\": 300}", NULL, E_FORMAT }, { "{\"x\": 300}",
              "{\"added_tokens_decoder\": {\"300\": {\"content\": \"y\"}}}", E_FORMAT },
        { NULL, "{\"added_tokens_decoder\": []}", E_FORMAT },
        { NULL, "{\"added_tokens_decoder\": {\"x\": {\"content\": \"y\"}}}", E_FORMAT },
        { NULL, "{\"added_tokens_decoder\": {\"\": {\"content\": \"y\"}}}", E_FORMAT },
        { NULL, "{\"added_tokens_decoder\": {\"300\": 5}}", E_FORMAT },
        { NULL, "{\"added_tokens_decoder\": {\"99999999999999999999\": {\"content\": \"y\"}}}", E_FORMAT },
        { "{}", "{}", OK },
        { "{\"x\": 300}", "{\"added_tokens_decoder\": {\"300\": {\"content\": \"x\"}}, \"chat_template\": 5, "
                          "\"pad_token\": 7, \"bos_token\": null}", OK },
    };
    size_t i;
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        Pool pool = test_pool();
        Error err;
        Tokenizer *t = train(0, 50, 300, &pool, &err);
        int code = beside(t, bad[i].added, bad[i].config, NULL, &pool, &err);
        CHECK(code == bad[i].code, "beside, row %d gives %d, wanted %d (%s)", (int)i, code, bad[i].code,
              err.what);
        pool_free(&pool);
    }
}

/* Tests a tokenizer.json with single bytes changed: read and used, or refused. */
static void test_damaged_json(void) {
    Pool pool = test_pool(), scratch = test_pool();
    Error err;
    Tokenizer *t = train(0, 50, 300, &pool, &err), *u;
    Buffer sp = written(t, 0, &pool), json;
    Bytes model;
    Rng rng = rng_stream(9, 9, 10);
    int i, merges, taken = 0, *ids, count, good = 1;
    char *back;
    size_t n;
    model.data = (char *)sp.data; model.n = sp.length;
    json = json_llama(t, model, chat_name, chat_id, 3, 0, &pool, &merges);
    for (i = 0; i < 3000 && good; i++) {
        size_t at = (size_t)rng_below(&rng, json.length);
        unsigned char old = json.data[at];
        PoolMark mark = pool_mark(&scratch);
        json.data[at] = (unsigned char)(i % 2 ? (int)rng_below(&rng, 256)
                                        : " \"[]{},:0129ae\\"[rng_below(&rng, 15)]);
        memset(&err, 0, sizeof err);
        u = tokenizer_json(json.data, json.length, &scratch, &err);
        good = u ? !tokenizer_encode(u, "ab c<s>\xff d", 10, &scratch, &ids, &count) &&
            !tokenizer_decode(u, ids, count, &scratch, &back, &n) : err.code != OK;
        taken += u != NULL;
        json.data[at] = old;
        pool_release(&scratch, mark);
    }
    CHECK(good && taken, "tokenizer.json: %d changed files, %d of them usable", i, taken);
    pool_free(&pool); pool_free(&scratch);
}

/* ---- folders: what was read is written, and opens to an equal tokenizer ---- */
static const char *scratch_folder(void) {
    static char path[512];
    const char *tmp = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/tokenizer_test.%lu", tmp ? tmp : "/tmp",
             (unsigned long)time(NULL) ^ (unsigned long)clock());
    return path;
}

static int put_file(const char *folder, const char *name, const void *bytes, size_t n, Pool *pool) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return file_write_all(path, bytes, n, pool, NULL);
}

static void remove_files(const char *folder) {
    static const char *const name[] = {
        "tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt", "added_tokens.json",
        "tokenizer_config.json", "special_tokens_map.json"
    };
    char path[1024];
    size_t i;
    for (i = 0; i < sizeof name / sizeof *name; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, name[i]);
        remove(path);
    }
    remove(folder);
}

static int same_added(const Tokenizer *a, const Tokenizer *b) {
    AddedToken x, y;
    int i;
    for (i = 0; tokenizer_added(a, i, &x); i++)
        if (!tokenizer_added(b, i, &y) || x.id != y.id || x.length != y.length ||
            memcmp(x.text, y.text, x.length) || x.special != y.special ||
            x.lstrip != y.lstrip ||
            x.rstrip != y.rstrip || x.single_word != y.single_word || x.normalized != y.normalized ||
                x.beyond != y.beyond) return 0;
    return !tokenizer_added(b, i, &y);
}

static int same_tokenizer(const Tokenizer *a, const Tokenizer *b, Pool *pool) {
    static const char text[] = "ab <x>cd  <x> </s>\nword x<y><z>";
    SpecialIds p = tokenizer_specials(a), q = tokenizer_specials(b);
    int w, x, y, z;
    tokenizer_template(a, &w, &x);
    tokenizer_template(b, &y, &z);
    return tokenizer_kind(a) == tokenizer_kind(b) && tokenizer_size(a) == tokenizer_size(b) &&
        same_added(a, b) && agree(a, b, text, strlen(text), pool) &&
           p.bos == q.bos && p.eos == q.eos && p.unk == q.unk && p.pad == q.pad && w == y && x == z &&
               tokenizer_chat_template(b) &&
           !strcmp(tokenizer_chat_template(a), tokenizer_chat_template(b));
}

static void test_folders(void) {
    static const char added[] = "{\"<y>\": 321, \"<x>\": 320}";
    static const char config[] = "{\"added_tokens_decoder\": {\"320\": {\"content\": \"<x>\", \"lstrip\": "
                                 "true, \"special\": true}, "
        "\"322\": {\"content\": \"<z>\", "
        "\"normalized\": false, \"rstrip\": true}}, \"pad_token\": \"<y>\", \"chat_template\": "
        "\"<|im_start|>\\n{{ x }}\"}";
    static const char *const kinds[] = { "tokenizer.model", "vocab.json", "tokenizer.json (Llama)",
                                         "tokenizer.json (RoBERTa)" };
    char folder[2][700];
    int kind, merges;
    for (kind = 0; kind < 4; kind++) {
        Pool pool = test_pool();
        Error err;
        Tokenizer *t = train(kind % 2, 50, 320, &pool, &err), *u, *v;
        Buffer a = written(t, 0, &pool), b = written(t, 1, &pool), json;
        Bytes model;
        char name[800];
        const char *place = scratch_folder();
        snprintf(folder[0], sizeof folder[0], "%s-a", place);
        snprintf(folder[1], sizeof folder[1], "%s-b", place);
        if (folder_make(folder[0], &err)) { SKIP("folders: cannot make one"); pool_free(&pool); return; }
        CHECK(!tokenizer_exists(folder[0], &pool) && !tokenizer_open(folder[0], &pool, &err) &&
              err.code == E_MISSING, "an empty folder has none");
        model.data = (char *)a.data; model.n = a.length;
        buffer_u8(&b, 0);
        if (kind == 2) {
            json = json_llama(t, model, chat_name, chat_id, 3, 0, &pool, &merges);
            put_file(folder[0], "tokenizer.model", "rubbish", 7, &pool);
        }
        if (kind == 3) json = json_bytelevel((char *)a.data, a.length, (char *)b.data, AS_ROBERTA, 1, &pool);
        if (kind < 2) put_file(folder[0], kind ? "vocab.json" : "tokenizer.model", a.data, a.length, &pool);
        else put_file(folder[0], "tokenizer.json", json.data, json.length, &pool);
        if (kind == 1) put_file(folder[0], "merges.txt", b.data, b.length - 1, &pool);
        put_file(folder[0], "added_tokens.json", added, strlen(added), &pool);
        put_file(folder[0], "tokenizer_config.json", config, strlen(config), &pool);
        memset(&err, 0, sizeof err);
        u = tokenizer_open(folder[0], &pool, &err);
        CHECK(u && tokenizer_exists(folder[0], &pool) && tokenizer_size(u) == 323 &&
              tokenizer_specials(u).pad == 321, "%s: opened: %s, %s",
              kinds[kind], err.what, err.where);
        v = NULL;
        if (u && !tokenizer_save(u, folder[1], 99, &pool, &err)) v = tokenizer_open(folder[1], &pool, &err);
        CHECK(v && same_tokenizer(u, v, &pool), "%s: saved and opened, it is the same: %s, %s", kinds[kind],
              err.what, err.where);
        snprintf(name, sizeof name, "%s/%s", folder[0], kind < 2 ? kinds[kind] : "tokenizer.json");
        memset(&err, 0, sizeof err);
        v = tokenizer_open(name, &pool, &err);
        CHECK(v && tokenizer_size(v) == 320, "%s: the file alone: %s", kinds[kind], err.what);
        put_file(folder[0], "tokenizer.json", "{\"model\": {\"type\": \"Unigram\"}}", 30, &pool);
        memset(&err, 0, sizeof err);
        v = tokenizer_open(folder[0], &pool, &err);
        CHECK(!v && err.code == E_UNSUPPORTED && strstr(err.where, "tokenizer.json"),
              "%s: not used beside an unsupported tokenizer.json: %s, %s", kinds[kind], err.what, err.where);
        remove_files(folder[0]);
        remove_files(folder[1]);
        pool_free(&pool);
    }
}

/* Tests tokenizer.json files against what Hugging Face's libraries gave for them: the ids of each text, those
 * with the template around them, and the decoded text. The ids are those of the tokenizers as they were
 * trained. Read from its file, unigram-xlm gives others for 100 times "a", in that library, too: as it reads
 * numbers, the score of "a" is another double, and the last bit decides between segmentations that are
 * equally good. */
typedef struct { const Tokenizer *t; int xlm; } Hf;
static int judge_hf(const Json *row, Pool *pool, void *context) {
    static const char read_ids[] = "[9,8,8,413,413,413,413,413,413,8]",
                      read_special[] = "[9,8,8,413,413,413,413,413,413,8,1]";
    const Hf *hf = context;
    const Tokenizer *t = hf->t;
    const Json *text = json_get(row, "text"), *ids = json_get(row, "ids"),
               *special = json_get(row, "special"), *decoded = json_get(row, "decoded");
    int *own, count;
    char *back;
    size_t n;
    if (hf->xlm && text->length == 100 && strspn(text->string, "a") == 100) {
        ids = json_parse(read_ids, sizeof read_ids - 1, pool, NULL);
        special = json_parse(read_special, sizeof read_special - 1, pool, NULL);
    }
    return same_ids(t, text->string, text->length, ids, 0, pool) &&
           same_ids(t, text->string, text->length, special, 1, pool) &&
           !tokenizer_encode(t, text->string, text->length, pool, &own, &count) &&
           !tokenizer_decode_all(t, own, count, pool, &back, &n) &&
           n == decoded->length && !memcmp(back, decoded->string, n);
}

static void test_hf_goldens(void) {
    static const char *const name[] = { "gpt2", "llama-2", "llama-3", "metaspace-always", "metaspace-never",
        "metaspace-always-split", "metaspace-first", "prefix-space", "smollm", "unigram-albert", "bert-cased",
        "bert-uncased", "deepseek", "o200k", "qwen2", "unigram-nfkc", "unigram-xlm" };
    size_t i;
    for (i = 0; i < sizeof name / sizeof *name; i++) {
        Pool pool = test_pool();
        Error err = { 0 };
        char folder[200], rows[200];
        Bytes f;
        Tokenizer *t;
        Hf hf;
        snprintf(folder, sizeof folder, "golden/hf/tokenizers/%s", name[i]);
        snprintf(rows, sizeof rows, "../hf/tokenizers/%s/ids.jsonl", name[i]);
        f = read_file(folder, "tokenizer.json");
        if (!f.data) { SKIP("Hugging Face's ids: no %s", folder); pool_free(&pool); continue; }
        t = tokenizer_json(f.data, f.n, &pool, &err);
        CHECK(t != NULL, "%s: %s, %s", name[i], err.what, err.where);
        hf.t = t; hf.xlm = !strcmp(name[i], "unigram-xlm");
        if (t) each_row(rows, name[i], judge_hf, &hf, 271);
        free(f.data);
        pool_free(&pool);
    }
}

/* Tests other people's tokenizers against the ids that their libraries gave. Returns two of them. */
typedef struct { Tokenizer *llama, *gpt2; } Others;
static Others test_goldens(Pool *pool) {
    Error err = { 0 };
    Others o;
    Tokenizer *llama, *mistral, *tok512, *gpt2, *roberta, *bpe;
    o.llama = llama = open_model("data/tokenizers/llama2", "tokenizer.model", pool, &err);
    mistral = open_model("data/tokenizers/mistral", "tokenizer.model", pool, &err);
    tok512 = open_model("data/stories260K", "tokenizer.model", pool, &err);
    bpe = open_model("data/tokenizers/other", "hf_test_sentencepiece_bpe.model", pool, &err);
    o.gpt2 = gpt2 = open_bytelevel("data/tokenizers/gpt2", pool, &err);
    roberta = open_bytelevel("data/tokenizers/roberta", pool, &err);
    CHECK(err.code == OK, "the files are read: %s, %s", err.what, err.where);
    column(llama, "generated_sentencepiece.jsonl", "llama2", 1, 521);
    column(mistral, "generated_sentencepiece.jsonl", "mistral_v1", 0, 521);
    column(tok512, "generated_sentencepiece.jsonl", "tok512", 0, 521);
    column(bpe, "generated_sentencepiece.jsonl", "hf_test_sentencepiece_bpe", 0, 521);
    test_unigram_goldens();
    column(gpt2, "generated_bytelevel_bpe.jsonl", "gpt2", 1, 521);
    column(roberta, "generated_bytelevel_bpe.jsonl", "roberta", 1, 521);
    suite(llama, "published.jsonl", "llama2", 0, 21);
    suite(gpt2, "published.jsonl", "gpt2", 0, 25);
    suite(roberta, "published.jsonl", "roberta", 0, 7);
    suite(llama, "llamacpp_llama-spm.jsonl", "llama-spm", 0, 46);
    suite(llama, "llamacpp_phi-3.jsonl", "phi-3", 0, 46);
    suite(gpt2, "llamacpp_gpt-2.jsonl", "gpt-2", 0, 46);
    suite(roberta, "llamacpp_roberta-bpe.jsonl", "roberta-bpe", 0, 46);
    each_row("published.jsonl", "toy_bpe", judge_toy, NULL, 2);
    test_json_goldens(llama);
    return o;
}

int main(int argc, char **argv) {
    Pool pool = test_pool();
    Error err = { 0 };
    Others others;
    Bytes imdb;
    if (argc == 3 && !strcmp(argv[1], "stream")) return stream(argv[2]);
    if (argc > 1) return helper(argc, argv);
    imdb = read_file("data/imdb", "train.jsonl");
    others = test_goldens(&pool);
    test_hf_goldens();
    test_training();
    test_definition();
    test_unigram();
    test_wordpiece();
    test_json_unigram();
    test_bad_models();
    test_bad_bytelevel();
    test_bad_ids();
    test_damaged(0);
    test_damaged(1);
    test_json_memory();
    test_flags();
    test_split();
    test_digits();
    test_bad_json();
    test_legacy();
    test_config();
    test_special_pieces();
    test_bad_beside();
    test_damaged_json();
    test_folders();
    test_memory();
    test_speed(train(0, 500, 600, &pool, &err), "a SentencePiece model of ours");
    test_speed(train(1, 500, 700, &pool, &err), "a byte-level one of ours");
    test_speed(others.llama, "llama2");
    test_speed(others.gpt2, "gpt2");
    test_reviews(imdb.data, others.gpt2, others.llama);
    free(imdb.data);
    pool_free(&pool);
    return test_end("tokenizer");
}
