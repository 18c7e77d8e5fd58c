/* run_generate.c - run generate: continues texts. */
#include "run.h"
#include <stdio.h>

/* Returns how many bytes of the text are final. Leaves out an incomplete character at the end, whose other
 * bytes are still to come, and each U+FFFD at the end, which may stand for such bytes. */
static size_t settled(const char *text, size_t n) {
    size_t back = 0;
    while (back < 3 && back < n && ((unsigned char)text[n - 1 - back] & 0xC0) == 0x80) back++;
    if (back < n) {
        unsigned lead = (unsigned char)text[n - 1 - back];
        size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
        if (length > back + 1) n -= back + 1;
    }
    while (n >= 3 && !memcmp(text + n - 3, "\xEF\xBF\xBD", 3)) n -= 3;
    return n;
}

void stream_print(Stream *s, int last) {
    PoolMark mark = pool_mark(s->pool);
    char *text;
    size_t n;
    if (tokenizer_decode(s->tokenizer, s->ids, s->count, s->pool, &text, &n) == OK) {
        if (!last) n = settled(text, n);
        if (n > s->printed) { fwrite(text + s->printed, 1, n - s->printed, stdout); s->printed = n; }
        close_line();
    }
    pool_release(s->pool, mark);
}

int stream_token(void *context, int sequence, int token) {
    Stream *s = context;
    (void)sequence;
    if (token == s->hidden) return 1;
    s->count++;
    stream_print(s, 0);
    return cli_stopping() || (s->stopped && s->stopped());
}

/* Returns the bytes of work space that model_generate needs for this sequence and cache. */
static size_t generate_bytes(Policy *p, Sequence seq, Cache kv) {
    Arena measure = { 0 }, nothing = { 0 };
    Reading reading;
    const Writing greedy = { .adapter = p->adapter, .sampling = { 0, 0, 1 } };
    kv.k = kv.v = NULL;
    reading_open(p, &reading, &kv, kv.T, &nothing);
    if (kv.reading) policy_read(p, &reading, NULL, kv.T, &measure);
    model_generate(&p->model, &greedy, &seq, 1, &kv, &measure);
    return measure.peak;
}

void write_tokens(Policy *p, const Writing *w, Sequence *s) {
    const int code = model_generate(&p->model, w, s, 1, &p->kv, &p->ws);
    if (code && w->on_token) putchar('\n');         /* the message begins after the text that is printed */
    require(code, code == E_NUMBER ? no_number : "the model's forward failed", "", 0, 0,
            damaged_model);
}

Sequence sequence_open(Policy *p, int longest, int T, Pool *pool) {
    Sequence s = { 0 };
    Cache kv = { 0 };
    kv.L = p->config.stack.L; kv.B = 1; kv.T = T; kv.width = p->config.stack.K * p->config.stack.D;
    s.token = pool_need(pool, (size_t)T, sizeof(int), "the sequence");
    s.logprob = pool_need(pool, (size_t)T, sizeof(float), "the sequence");
    s.prompt = s.length = longest ? longest : 1; s.capacity = T;
    policy_work(p, 1, T, generate_bytes(p, s, kv));
    return s;
}

typedef struct {
    const char *adapter, *prompt;
    int as_ids, jsonl, plain, n, context, greedy, top_k, ignore_eos;
    double temperature, top_p;
    uint64_t seed;
    QuantOptions quant;
} Generate;

/* Writes up to n tokens after the prompt, `count` ids. The text of --prompt is printed while it is written;
 * that of another prompt at its end, as a JSON line. */
static void generate_one(Policy *p, const Generate *g, Sequence *s, const int *ids, int count, int n,
                         Input *in) {
    const Sampling how = { g->greedy ? 0 : (float)g->temperature, g->top_k, (float)g->top_p };
    Stream stream = { p->tokenizer, s->token, count, 0, in->scratch, -1, NULL };
    int live = !g->as_ids && g->prompt;
    const Writing writing = { .adapter = p->adapter, .sampling = how,
                              .on_token = live ? stream_token : NULL, .context = &stream };
    if (p->config.encoder.L) {
        require(policy_read(p, &p->reading, ids, count, &p->ws), "the model's encoder failed", "", 0, 0,
                damaged_model);
        if (g->as_ids) { print_ids(ids, count, " "); putchar('\t'); }
        s->token[0] = p->config.start;
        count = 1;
        stream.ids = s->token + 1;          /* the start is no part of the text */
        stream.count = 0;
    } else memcpy(s->token, ids, (size_t)count * sizeof(int));
    s->prompt = s->length = count;
    s->capacity = count + n;
    s->stop_at_eos = !g->ignore_eos; s->done = 0;
    if (live) stream_print(&stream, 0);
    if (n) write_tokens(p, &writing, s);
    stream.count = s->length - (int)(stream.ids - s->token);
    if (live) stream_print(&stream, 1);
    else if (g->as_ids) print_ids(s->token, s->length, " ");
    else {
        char *text;
        size_t length;
        require(tokenizer_decode(p->tokenizer, stream.ids, stream.count, in->scratch, &text, &length),
                "cannot decode", "output", 0, 0, NULL);
        printf("{\"text\": ");
        print_string(text, length, in->scratch);
        printf("}");
    }
    putchar('\n');
    close_line();
}

/* Returns how many new tokens a prompt of `count` ids may get, if T fit in all; 0 for a prompt without ids,
 * which cannot be continued. Records an error if the prompt is too long. positions: the model's. */
static int new_tokens(const Generate *g, Input *in, int count, int T, int positions) {
    const long long wanted = (long long)count + (g->n ? g->n : 1);
    const char *advice = wanted > positions ? "a smaller -n or a shorter prompt"
                                            : "a smaller -n, a shorter prompt, or a larger --context";
    if (!count) return 0;
    if (wanted > T) line_too_large(in, "tokens of the prompt and new ones", wanted, T, advice);
    return g->n ? g->n : T - count < 256 ? T - count : 256;
}

/* Returns how many tokens the longest prompt and its new ones may have; count: the ids of --prompt. */
static int generate_length(const Generate *g, int positions, int count) {
    const long long T = (g->prompt ? (long long)count : 2048) + (g->n ? g->n : 256);
    if (g->context) return g->context;
    return T < positions ? (int)T : positions;
}

/* Continues the prompt of --prompt, `count` ids, or every text of the input (ids NULL). Without --prompt, a
 * signal ends the program at once, since the program may be waiting for a line. Returns the exit code. */
static int generate_all(Policy *p, const Generate *g, Input *in, int *ids, int count, int T, Pool *keep) {
    Sequence s = sequence_open(p, T, T, keep);
    if (g->prompt) cli_interrupts();
    for (uint64_t i = 0; g->prompt ? i == 0 : input_next(in); i++) {
        if (!g->prompt) ids = line_ids(in, p->tokenizer, p->config.V, &count);
        const int more = ids ? new_tokens(g, in, count, T, p->config.positions) : 0;
        s.rng = rng_stream(g->seed, 0, i);
        if (!line_failed(in, !g->as_ids)) generate_one(p, g, &s, ids, count, more, in);
    }
    return input_close(in);
}

int run_generate(int argc, char **argv) {
    Generate g;
    const char *positional[2] = { NULL, NULL };
    Option option[] = {
        { "prompt", OPT_TEXT, &g.prompt, NULL, 0, 1, NULL,
          "the beginning of the text; without it, each line of FILE or standard input is a prompt" },
        { "n", OPT_INT, &g.n, "0", 0, 1e9, NULL,
          "most new tokens (0: 256, or fewer if no more fit)" },
        { "context", OPT_INT, &g.context, "0", 0, 1e9, NULL,
          "tokens of the longest prompt and its new ones (0: the model's positions, at most 2048 + n)" },
        { "greedy", OPT_FLAG, &g.greedy, NULL, 0, 0, NULL, "always take the most probable token" },
        { "temperature", OPT_REAL, &g.temperature, "1", 0, 100, NULL, "divides the logits; 0 is --greedy" },
        { "top-k", OPT_INT, &g.top_k, "0", 0, 1e9, NULL, "draw from the K most probable tokens (0: all)" },
        { "top-p", OPT_REAL, &g.top_p, "1", 0, 1, NULL,
          "draw from the most probable tokens whose probabilities together reach P" },
        { "seed", OPT_SEED, &g.seed, "1", 0, 0, NULL, "random seed; the same seed gives the same text" },
        { "adapter", OPT_TEXT, &g.adapter, NULL, 0, 0, NULL, ADAPTER_HELP },
        { "ids", OPT_FLAG, &g.as_ids, NULL, 0, 0, NULL,
          "read prompts as ids, and write the ids of prompt and new text" },
        { "jsonl", OPT_FLAG, &g.jsonl, NULL, 0, 0, NULL,
          "lines are {\"prompt\": ...} or {\"text\": ...}, so that a prompt may hold line breaks" },
        NO_SPECIAL_OPTION(g.plain),
        { "ignore-eos", OPT_FLAG, &g.ignore_eos, NULL, 0, 0, NULL, "do not stop at the end-of-text token" },
        QUANT_OPTIONS(g.quant, NF4_HELP),
        COMPUTE_OPTION(g.quant),
    };
    static const Need need[] = {
        { "temperature|top-k|top-p|seed", "!greedy", "nothing is drawn" },
        { "top-k|top-p|seed", "temperature", "nothing is drawn" }, QUANT_NEEDS,
        { NULL, NULL, NULL } };
    Program program = {
        .program = "run generate",
        .usage = "MODEL [FILE] [options]",
        .about =
            "Continues --prompt, or each line of FILE or standard input, or each text or prompt of a dataset "
            "(a JSON line for each; with --ids, of ids). A line that cannot be used gives {\"error\": ...}.",
        OPTIONS(option), .need = need };
    int given = cli_parse(&program, argc, argv, positional, 2), count = 0, *ids = NULL;
    Pool keep = cli_pool(), scratch = cli_pool();
    Error err = { 0 };
    Policy p = { 0 };
    if (given < 1) usage_error("which model?", NULL);
    plain_check(g.plain, g.as_ids);
    adapter_as_model(&positional[0], &g.adapter, ADAPTER_ADVICE, &keep);
    quant_options_check(&program, &g.quant, NULL, NULL, 0);
    if (g.prompt && (given > 1 || g.jsonl))
        usage_error("--prompt or a file of prompts, not both", given > 1 ? positional[1] : "--jsonl");
    must(config_load(&p.config, weights_folder(positional[0], g.adapter), &keep, &err), &err, model_hint);
    if (!g.as_ids) p.tokenizer = need_tokenizer(positional[0], g.adapter, p.config.V, g.plain, &keep);
    Input in = { .path = "--prompt", .text = g.prompt, .scratch = &scratch };
    if (!g.prompt) in = input_open(positional[1], g.jsonl, g.as_ids, 1, &keep, &scratch);
    else { in.n = strlen(g.prompt); ids = line_ids(&in, p.tokenizer, p.config.V, &count); }
    const int T = generate_length(&g, p.config.positions, count);
    if (ids) new_tokens(&g, &in, count, T, p.config.positions);
    must(in.err.code, &in.err, NULL);
    const WeightTypes types = choose_types(&program, &g.quant, positional[0], g.adapter, &keep);
    policy_open(&p, &types, positional[0], g.adapter, T, &keep);
    if (p.tokenizer) report_padding(p.config.V, p.tokenizer);
    return generate_all(&p, &g, &in, ids, count, T, &keep);
}
