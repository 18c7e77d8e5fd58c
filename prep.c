/* prep.c - makes datasets from texts, tokenizers from datasets, and Hugging Face folders from llama2.c's
 * checkpoints: `prep grammar | data | rankings | tokenizer | show | llama2c`.
 *
 * What it is   The first program of the pipeline. A dataset holds documents, not tokens, so that policy and
 *              judge can use different tokenizers. 5 % of it, chosen by a hash of the text, is held out.
 * Needs        core.c (JSON, UTF-8, random streams), tokenizer.c (training), io.c (files, datasets),
 *              checkpoint.c (llama2c), html.c, cli.c.
 * Never        skips a malformed row: it names file, line and field, and stops.
 * Always       writes the same bytes from the same input and options.
 * Parts        programs/prep_*.c: one for each command, and prep_rows.c, prep_json.c, prep_table.c for the
 *              rows that `prep data` reads. */
#include "programs/prep.h"
#include <stdio.h>

int main(int argc, char **argv) {
    static const Command command[] = {
        { "grammar", command_grammar, "expand a grammar into a labelled dataset" },
        { "data", command_data, "make a dataset from JSONL, CSV, TSV, text, an aclImdb folder or "
                                "preference pairs" },
        { "rankings", command_rankings, "make pairs of the rankings of run label" },
        { "tokenizer", command_tokenizer, "train a tokenizer on a dataset" },
        { "show", command_show, "print what a dataset holds" },
        { "llama2c", command_llama2c, "make a Hugging Face folder from a checkpoint of llama2.c" },
    };
    *prep_pool() = cli_pool();
    const int code = cli_command("prep", "Makes datasets from texts, tokenizers from datasets, and Hugging "
                                 "Face folders from llama2.c's checkpoints.", command,
                                 (int)(sizeof command / sizeof *command), argc, argv);
    pool_free(prep_pool());
    return code;
}
