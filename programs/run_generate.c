/* run_generate.c - run generate: continues texts. */
#include "run.h"
#include <stdio.h>

typedef struct {
    const char *adapter, *prompt;
    int as_ids, jsonl, plain, n, context, batch, greedy, top_k, ignore_eos;
    double temperature, top_p;
    uint64_t seed;
    QuantOptions quant;
} Generate;

static Sampling sampling_of(const Generate *g) {
    const Sampling how = { g->greedy ? 0 : (float)g->temperature, g->top_k, (float)g->top_p };
    return how;
}

/* Prints what was written for a line of the input: the ids, or the text as a JSON line. */
static void print_written(const Generate *g, const Policy *p, const Job *job, Input *in) {
    const int start = p->config.encoder.L > 0;      /* the decoder's first id is no part of the text */
    if (g->as_ids) {
        if (start) { print_ids(job->ids, job->count, " "); putchar('\t'); }
        print_ids(job->token, job->length, " ");
    } else {
        char *text;
        size_t length;
        require(tokenizer_decode(p->tokenizer, job->token + start, job->length - start, in->scratch, &text,
                                 &length), "cannot decode", "output", 0, 0, NULL);
        printf("{\"text\": ");
        print_string(text, length, in->scratch);
        printf("}");
    }
    putchar('\n');
    close_line();
}

/* The text of --prompt, which is printed while it is written. */
typedef struct { Stream stream; const Batch *batch; int start; } Live;
static int live_token(void *context, int sequence, int token) {
    Live *l = context;
    l->stream.ids = l->batch->seq[sequence].token + l->start;
    return stream_token(&l->stream, sequence, token);
}

/* Writes the text of --prompt and prints it. */
static void generate_prompt(Batch *b, const Generate *g, Job *job, Input *in, Pool *pool) {
    Policy *p = b->policy;
    const int start = p->config.encoder.L > 0;      /* the decoder's first id is no part of the text */
    Live live = { { p->tokenizer, job->ids, start ? 0 : job->count, 0, pool, -1, NULL }, b, start };
    const Writing writing = { .adapter = p->adapter, .sampling = sampling_of(g),
                              .on_token = g->as_ids ? NULL : live_token, .context = &live };
    if (!g->as_ids) stream_print(&live.stream, 0);
    batch_write(b, &writing, job, 1, pool);
    if (g->as_ids) { print_written(g, p, job, in); return; }
    live.stream.ids = job->token + start;
    live.stream.count = job->length - start;
    stream_print(&live.stream, 1);
    putchar('\n');
    close_line();
}

/* Returns how many new tokens a prompt of `count` ids may get, if T fit in all; 0 for a prompt without ids,
 * which cannot be continued. Records an error if the prompt is too long. positions: see text_positions. */
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

/* A line of the input: what is to be written, or what is wrong with the line. */
typedef struct { Error err; long long number; } Asked;

/* Reads up to b->B lines. Returns their number; *jobs: those of them that can be continued. */
static int read_prompts(const Batch *b, const Generate *g, Input *in, Asked *asked, Job *job, int *jobs,
                        Pool *pool, uint64_t *index) {
    Policy *p = b->policy;
    int n = 0;
    for (*jobs = 0; n < b->B && input_next(in); n++) {
        int count = 0, *ids = line_ids(in, p->tokenizer, p->config.V, &count);
        Job j = { .count = count, .ignore_eos = g->ignore_eos, .rng = rng_stream(g->seed, 0, (*index)++) };
        j.most = ids ? new_tokens(g, in, count, b->T, p->positions) : 0;
        asked[n].err = in->err;
        asked[n].number = in->number;
        if (in->err.code) continue;
        int *copy = pool_need(pool, (size_t)count + 1, sizeof *copy, "prompts");
        memcpy(copy, ids, (size_t)count * sizeof *copy);
        j.ids = copy;
        job[(*jobs)++] = j;
    }
    return n;
}

/* Continues every text of the input. A signal ends the program at once, since the program may be waiting for
 * a line. */
static void generate_lines(Batch *b, const Generate *g, Input *in, Pool *keep) {
    const Writing writing = { .adapter = b->policy->adapter, .sampling = sampling_of(g) };
    Asked *asked = pool_need(keep, (size_t)b->B, sizeof *asked, "lines");
    Job *job = pool_need(keep, (size_t)b->B, sizeof *job, "lines");
    Pool texts = cli_pool();
    const PoolMark mark = pool_mark(&texts);
    uint64_t index = 0;
    int n, jobs;
    do {
        n = read_prompts(b, g, in, asked, job, &jobs, &texts, &index);
        batch_write(b, &writing, job, jobs, &texts);
        for (int i = 0, k = 0; i < n; i++) {
            in->err = asked[i].err;
            in->number = asked[i].number;
            if (!line_failed(in, !g->as_ids)) print_written(g, b->policy, &job[k++], in);
        }
        pool_release(&texts, mark);
    } while (n == b->B);
}

/* Continues the prompt of --prompt, `count` ids, or every text of the input (ids NULL). Returns the exit
 * code. */
static int generate_all(Policy *p, const Generate *g, Input *in, int *ids, int count, int T, Pool *keep) {
    Job job = { .ids = ids, .count = count, .ignore_eos = g->ignore_eos, .rng = rng_stream(g->seed, 0, 0) };
    const int alone = g->prompt || (in->lines && !strcmp(in->path, "-"));
    Batch b = batch_open(p, g->batch ? g->batch : alone ? 1 : batch_size(T), T, keep);
    if (g->prompt) {
        cli_interrupts();
        job.most = new_tokens(g, in, count, T, p->positions);
        generate_prompt(&b, g, &job, in, keep);
    } else generate_lines(&b, g, in, keep);
    return input_close(in);
}

/* Opens what the command line names, and writes the texts. Returns the exit code. */
static int generate(const Program *program, Generate *g, const char *model, const char *path) {
    int count = 0, *ids = NULL;
    Pool keep = cli_pool(), scratch = cli_pool();
    Error err = { 0 };
    Policy p = { 0 };
    adapter_as_model(&model, &g->adapter, ADAPTER_ADVICE, &keep);
    quant_options_check(program, &g->quant, NULL, NULL, 0);
    must(config_load(&p.config, weights_folder(model, g->adapter), &keep, &err), &err,
         weights_hint(model, g->adapter));
    if (!g->as_ids) p.tokenizer = need_tokenizer(model, g->adapter, p.config.V, g->plain, &keep);
    Input in = { .path = "--prompt", .text = g->prompt, .scratch = &scratch };
    if (!g->prompt) in = input_open(path, g->jsonl, g->as_ids, 1, &keep, &scratch);
    else if (!utf8_valid(g->prompt, strlen(g->prompt))) line_error(&in, E_FORMAT, "invalid UTF-8", TO_UTF8);
    else { in.n = strlen(g->prompt); ids = line_ids(&in, p.tokenizer, p.config.V, &count); }
    const int positions = text_positions(&p.config, g->adapter, &keep);
    const int T = generate_length(g, positions, count);
    if (ids) new_tokens(g, &in, count, T, positions);
    must(in.err.code, &in.err, NULL);
    const WeightTypes types = choose_types(program, &g->quant, model, g->adapter, &keep);
    policy_open(&p, &types, model, g->adapter, T, &keep);
    if (p.tokenizer) report_padding(p.config.V, p.tokenizer);
    return generate_all(&p, g, &in, ids, count, T, &keep);
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
          "tokens of the longest prompt and its new ones (0: the model's positions, less the rows of a soft "
          "prompt, at most 2048 + n)" },
        { "batch", OPT_INT, &g.batch, "0", 0, 4096, NULL,
          "lines that are read and continued together, which is faster; the texts do not depend on it "
          "(0: up to 16 of a file or dataset; of standard input 1, since whoever writes the lines may wait "
          "for answers)" },
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
        { "top-k|top-p|seed", "temperature", "nothing is drawn" },
        { "batch", "!prompt", "there is one text" }, QUANT_NEEDS,
        { NULL, NULL, NULL } };
    Program program = {
        .program = "run generate",
        .usage = "MODEL [FILE] [options]",
        .about =
            "Continues --prompt, or each line of FILE or standard input, or each text or prompt of a dataset "
            "(a JSON line for each; with --ids, of ids). A line that cannot be used gives {\"error\": ...}.",
        OPTIONS(option), .need = need };
    const int given = cli_parse(&program, argc, argv, positional, 2);
    if (given < 1) usage_error("which model?", NULL);
    plain_check(g.plain, g.as_ids);
    if (g.prompt && (given > 1 || g.jsonl))
        usage_error("--prompt or a file of prompts, not both", given > 1 ? positional[1] : "--jsonl");
    return generate(&program, &g, positional[0], positional[1]);
}
