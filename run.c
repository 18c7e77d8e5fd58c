/* run.c - uses what was trained. Each command is a part of its own, programs/run_*.c; programs/run.h says
 * what they share.
 *
 * Needs    every library file. The weights are in one arena whose size follows from the config; the adapter,
 *          the cache and the work space are in other arenas; a pool for scratch memory is emptied after
 *          every line.
 * Weights  are held as the folder stores them (16 bits, 4 bits), or quantised while they are read (--nf4,
 *          --fp4). merge works on floats.
 * Never    changes a file that it reads; never trains (sft, rm and ppo do).
 * Edges    Every input line, even an empty one, gives exactly one output line. Exceptions: `generate
 *          --prompt`, `chat` and `tokenize --show` write for people, and `tokenize --decode` writes texts as
 *          they are, with their line breaks (with --jsonl, each text is on one line). A line that cannot be
 *          used gives a message with its number, an output line {"error": ...} (an empty one where lines are
 *          ids), and in the end exit code 1; the lines after it are answered. */
#include "programs/run.h"
#include <stdio.h>

/* ---- the commands ---- */

static int run_models(int argc, char **argv) {
    Program program = { .program = "run models", .usage = "",
        .about = "Lists the classes of transformers whose folders open, as policies or as judges." };
    const char *none[1], *name;
    int judge;
    cli_parse(&program, argc, argv, none, 0);
    for (int k = 0; (name = config_class(k, &judge)) != NULL; k++)
        printf("%-8s %s\n", judge ? "judge" : "policy", name);
    return 0;
}

static const Command command[] = {
    { "tokenize", run_tokenize, "turn text into ids and back" },
    { "logprobs", run_logprobs, "log-probabilities of texts" },
    { "score",    run_score,    "a reward model's logits" },
    { "generate", run_generate, "continue a text" },
    { "eval",     run_eval,     "compare policies by a judge" },
    { "hatecheck", run_hatecheck, "a judge's accuracy by kind of text" },
    { "chat",     run_chat,     "talk with a model" },
    { "critique", run_critique, "Constitutional AI, phase 1: responses, critiques, revisions" },
    { "prefer",   run_prefer,   "Constitutional AI, phase 2: pairs with a policy's own preferences" },
    { "label",    run_label,    "let a person rank responses" },
    { "merge",    run_merge,    "add an adapter to the weights" },
    { "report",   report_command, "print a run's result again" },
    { "models",   run_models,   "list the classes of models that open" },
};

int main(int argc, char **argv) {
    return cli_command("run", "Uses models: policies, judges, tokenizers and runs.", command,
                       (int)(sizeof command / sizeof *command), argc, argv);
}
