/* run_logprobs.c - run logprobs: log-probabilities of texts. */
#include "run.h"
#include <stdio.h>

static void print_logprobs(const int *ids, int count, const float *logprob) {
    printf("{\"ids\": [");
    print_ids(ids, count, ", ");
    printf("], \"logprobs\": [");
    for (int i = 0; i + 1 < count; i++) printf("%s%.9g", i ? ", " : "", (double)logprob[i]);
    printf("]}\n");
}

/* Returns what to do about a text of n tokens, which are more than --context. */
static const char *length_advice(const Policy *p, int n) {
    return n > p->positions ? "a shorter text" : "a larger --context";
}

/* Lets the encoder read the prompt of the line, and returns the ids of the response: what follows the line's
 * first tab, or a dataset's response. With ids the response's first one is given, with texts it is the
 * model's. NULL: something is wrong with the line. *code: of the encoder. */
static int *read_pair(Policy *p, Input *in, int context, int *count, int *code) {
    const char *tab = in->joined ? in->text + in->split : memchr(in->text, '\t', in->n);
    const size_t skip = in->joined ? 0 : 1;
    Input prompt = *in, response = *in;
    int n, more, *ids, *answer;
    if (in->err.code) return NULL;
    if (!tab)
        return line_error(in, E_FORMAT, "no tab between what the encoder and what the decoder reads",
                          "PROMPT, a tab, RESPONSE; or a dataset of prompts with responses");
    prompt.n = (size_t)(tab - in->text);
    response.text = tab + skip;
    response.n = in->n - prompt.n - skip;
    ids = line_ids(&prompt, p->tokenizer, p->config.V, &n);
    answer = ids ? line_ids(&response, p->tokenizer, p->config.V, &more) : NULL;
    in->err = prompt.err.code ? prompt.err : response.err;
    if (!answer) return NULL;
    if (!n || n > context)
        return n ? line_too_large(in, "tokens of a prompt", n, context, length_advice(p, n))
                 : line_error(in, E_FORMAT, "an empty prompt", "at least one token before the tab");
    *code = policy_read(p, &p->reading, ids, n, &p->ws);
    if (!p->tokenizer) { *count = more; return answer; }
    ids = pool_need(in->scratch, (size_t)more + 1, sizeof *ids, "ids");
    ids[0] = p->config.start;
    memcpy(ids + 1, answer, (size_t)more * sizeof *ids);
    *count = more + 1;
    return ids;
}

int run_logprobs(int argc, char **argv) {
    const char *adapter, *positional[2] = { NULL, NULL };
    int as_ids, jsonl, plain, context;
    QuantOptions quant = { 0 };
    Option option[] = {
        { "adapter", OPT_TEXT, &adapter, NULL, 0, 0, NULL, ADAPTER_HELP },
        { "ids", OPT_FLAG, &as_ids, NULL, 0, 0, NULL,
          "lines are ids separated by spaces; nothing is added to them" },
        JSONL_OPTION(jsonl),
        NO_SPECIAL_OPTION(plain),
        { "context", OPT_INT, &context, "0", 0, 1e9, NULL, "longest text " CONTEXT_HELP },
        QUANT_OPTIONS(quant, NF4_HELP),
        COMPUTE_OPTION(quant),
    };
    static const Need need[] = {
        QUANT_NEEDS,
        { NULL, NULL, NULL } };
    Program program = {
        .program = "run logprobs",
        .usage = "MODEL [FILE] [options]",
        .about =
            "Prints a JSON line for each line (or text of a dataset): its ids, and the log-probability of "
            "each id after the first, given the ids before it. A line that cannot be read gives "
            "{\"error\": ...}.",
        OPTIONS(option), .need = need };
    int given = cli_parse(&program, argc, argv, positional, 2), count;
    Pool keep = cli_pool(), scratch = cli_pool();
    Policy p = { 0 };
    if (given < 1) usage_error("which model?", NULL);
    plain_check(plain, as_ids);
    adapter_as_model(&positional[0], &adapter, ADAPTER_ADVICE, &keep);
    quant_options_check(&program, &quant, NULL, NULL, 0);
    context = context_length(context, weights_folder(positional[0], adapter), adapter, &keep);
    const WeightTypes types = choose_types(&program, &quant, positional[0], adapter, &keep);
    policy_open(&p, &types, positional[0], adapter, context, &keep);
    if (!as_ids) p.tokenizer = need_tokenizer(positional[0], adapter, p.config.V, plain, &keep);
    int N = context < BLOCK ? context : BLOCK;
    policy_work(&p, 1, N, context, logprobs_bytes(&p, N, context));
    Input in = input_open(positional[1], jsonl, as_ids, 0, &keep, &scratch);
    while (input_next(&in)) {
        int code = OK;
        int *ids = p.config.encoder.L ? read_pair(&p, &in, context, &count, &code)
                                      : line_ids(&in, p.tokenizer, p.config.V, &count);
        if (ids && count > context)
            ids = line_too_large(&in, "tokens of a text", count, context, length_advice(&p, count));
        float *logprob = pool_need(&scratch, ids ? (size_t)count + 1 : 1, sizeof(float), "log-probabilities");
        if (ids && !code) code = policy_logprobs(&p, ids, 0, count, logprob);
        if (code) forward_error(&in, code, p.compute);
        if (!line_failed(&in, 1)) print_logprobs(ids, count, logprob);
    }
    return input_close(&in);
}
