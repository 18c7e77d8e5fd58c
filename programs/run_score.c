/* run_score.c - run score: a reward model's logits. */
#include "run.h"
#include <stdio.h>

/* Returns the ids of a line's text; of an empty text, what stands for it. The end of a text that is too long
 * is cut off before the template's last id, as transformers does it; *cut: how many ids. */
static int *judge_ids(const Judge *j, Input *in, int *count, int *cut) {
    int *ids = line_ids(in, j->tokenizer, j->config.V, count), before, after;
    if (!ids) return NULL;
    const int most = judge_limit(&j->config, j->tokenizer), empty = empty_text_id(j->tokenizer);
    tokenizer_template(j->tokenizer, &before, &after);
    if (!*count && empty >= 0) ids[(*count)++] = empty;
    *cut = *count > most ? *count - most : 0;
    if (!*cut) return ids;
    if (after) ids[most - 1] = ids[*count - 1];
    *count = most;
    say_error("run score: the last %d tokens of a text were cut off, since the judge reads %d: %.120s, "
              "%s %lld", *cut, most - before - after, input_name(in), unit_of(in), in->number);
    return ids;
}

/* Prints the logits of one text, each label's probability, the label of the largest logit; and if the text's
 * end was cut off, of how many tokens. ids NULL: something is wrong with the line. */
static void score_line(const Judge *j, Arena *ws, Input *in, const int *ids, int count, int cut) {
    float logits[LABELS_MAX];
    int start[2] = { 0, count }, best = 0, labels = count ? j->config.labels : 0, code = OK;
    Texts text = { count, 1, ids, start };
    const int most = reward_max_tokens(&j->config);
    if (ids && count > most)
        ids = line_too_large(in, "ids for the reward model", count, most, "fewer ids: --ids are never cut");
    if (ids && count) code = reward_forward(&j->model, j->adapter, &text, NULL, logits, ws);
    for (int i = 0; ids && i < labels && !code; i++)
        if (!isfinite(logits[i])) code = E_NUMBER;
    if (code) forward_error(in, code, j->types.compute);
    if (line_failed(in, 1)) return;
    printf("{\"logits\": [");
    for (int i = 0; i < labels; i++) {
        printf("%s%.9g", i ? ", " : "", (double)logits[i]);
        if (logits[i] > logits[best]) best = i;
    }
    printf("], \"probabilities\": {");
    for (int i = 0; i < labels; i++) {
        if (i) printf(", ");
        print_string(j->config.label[i], strlen(j->config.label[i]), in->scratch);
        printf(": %.9g", judge_probability(&j->config, logits, i));
    }
    printf("}, \"label\": ");
    if (labels) print_string(j->config.label[best], strlen(j->config.label[best]), in->scratch);
    else printf("null");
    if (cut) printf(", \"tokens_cut\": %d", cut);
    printf("}\n");
}

int run_score(int argc, char **argv) {
    const char *adapter, *positional[2] = { NULL, NULL };
    int as_ids, jsonl, plain, count;
    QuantOptions quant = { 0 };
    Option option[] = {
        { "adapter", OPT_TEXT, &adapter, NULL, 0, 0, NULL,
          "a run folder of rm --lora-r, or any PEFT LoRA folder of a judge" },
        { "ids", OPT_FLAG, &as_ids, NULL, 0, 0, NULL,
          "lines are ids separated by spaces; nothing is added to them" },
        JSONL_OPTION(jsonl),
        NO_SPECIAL_OPTION(plain),
        QUANT_OPTIONS(quant, "hold the linears in 4-bit NF4, as rm --nf4 and ppo --reward-nf4 do"),
        COMPUTE_OPTION(quant),
    };
    static const Need need[] = {
        QUANT_NEEDS,
        { NULL, NULL, NULL } };
    Program program = {
        .program = "run score",
        .usage = "REWARD [FILE] [options]",
        .about =
            "Prints a JSON line for each line (or text of a dataset; of a pair, chosen, then rejected; "
            "prompt and response together): the reward model's logits, each label's probability (of the "
            "softmax; if there is one label, or if several may be true, its sigmoid), and the label with the "
            "largest logit. "
            "The end of a text that is too long is cut off; a message and \"tokens_cut\" in its line say so. "
            "An empty text is scored as bos or eos alone if the tokenizer's template adds no token.",
        OPTIONS(option), .need = need };
    int given = cli_parse(&program, argc, argv, positional, 2);
    Pool keep = cli_pool(), scratch = cli_pool();
    Judge j;
    if (given < 1) usage_error("which reward model?", NULL);
    plain_check(plain, as_ids);
    quant_options_check(&program, &quant, NULL, NULL, 0);
    judge_find(&j, positional[0], adapter, &keep);
    judge_open(&j, &program, &quant, &keep);
    Arena work = judge_work(&j);
    if (!as_ids)
        j.tokenizer = need_tokenizer(j.adapter_folder ? j.adapter_folder : j.folder, j.folder, j.config.V,
                                     plain, &keep);
    Input in = input_open(positional[1], jsonl, as_ids, 0, &keep, &scratch);
    while (input_next(&in)) {
        int cut = 0;
        int *ids = as_ids ? line_ids(&in, NULL, j.config.V, &count) : judge_ids(&j, &in, &count, &cut);
        score_line(&j, &work, &in, ids, count, cut);
    }
    return input_close(&in);
}
