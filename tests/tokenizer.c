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

/* published.jsonl and the llama.cpp suites: {"tokenizer", "text", "ids", "specials"}; rows whose text spells special tokens are not for us. */
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

/* `train OUT V` writes a SentencePiece model learnt from the {"text"} lines of the input; `encode MODEL` prints the ids of each line;
 * `decode MODEL` prints, as JSON, the text of each line of ids. Exit 1 on any error. */
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

int main(int argc, char **argv) {
    Pool pool = test_pool();
    Error err;
    Tokenizer *llama, *mistral, *tok512, *gpt2, *roberta, *bpe;
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
    printf("%d %s %s\n", err.code, err.what, err.where);
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
    { double took; long tokens; int bad;
      bad = round_trips(gpt2, imdb.data, 25000, &took, &tokens); printf("gpt2 bad %d %.2fs %ld\n", bad, took, tokens);
      bad = round_trips(llama, imdb.data, 25000, &took, &tokens); printf("llama bad %d %.2fs %ld\n", bad, took, tokens);
    }
    { Reviews l; clock_t from = clock(); Pool p = test_pool(); Tokenizer *t; double took; long tokens; int bad;
      Buffer b; FILE *f;
      t = tokenizer_train_sentencepiece(lines(&l, imdb.data, 25000), 4096, &p, &err); printf("train sp %.2f %p %s %lld %lld\n", seconds(from), (void*)t, err.what, err.got, err.wanted);
      if (t) {bad = round_trips(t, imdb.data, 25000, &took, &tokens); printf("bad %d %.2fs %ld\n", bad, took, tokens);
        memset(&b,0,sizeof b); b.pool=&p; tokenizer_write_sentencepiece(t,&b); f=fopen("/tmp/tok/t.model","wb"); fwrite(b.data,1,b.length,f); fclose(f);}
      from = clock(); memset(&err,0,sizeof err);
      t = tokenizer_train_bytelevel(lines(&l, imdb.data, 25000), 8192, &p, &err); printf("train bl %.2f %p %s %lld %lld\n", seconds(from), (void*)t, err.what, err.got, err.wanted);
      if (t) {bad = round_trips(t, imdb.data, 25000, &took, &tokens); printf("bad %d %.2fs %ld\n", bad, took, tokens);
        { Buffer m; memset(&b,0,sizeof b); b.pool=&p; m=b; tokenizer_write_bytelevel(t,&b,&m); f=fopen("/tmp/tok/vocab.json","wb"); fwrite(b.data,1,b.length,f); fclose(f); f=fopen("/tmp/tok/merges.txt","wb"); fwrite(m.data,1,m.length,f); fclose(f);}}
    }
    return test_end("tokenizer");
}
