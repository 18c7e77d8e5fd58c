/* prep_llama2c.c - prep llama2c: makes a Hugging Face folder from a checkpoint of llama2.c. */
#include "prep.h"
#include <stdio.h>

/* Writes the model's tokenizer, and puts its special ids into the config. A file of
 * SentencePiece is also copied as it is. */
static void llama2c_tokenizer(Llama2c *l, const char *from, const char *out) {
    Error err = { 0 };
    Tokenizer *t = tokenizer_open(from, prep_pool(), &err);
    SpecialIds special;
    char *bytes;
    size_t n;
    if (!t) die(&err, "give --tokenizer the model's tokenizer.model");
    if (tokenizer_size(t) > l->config.V) {
        fail(&err, E_RANGE, "more ids in the tokenizer than in the model", from, tokenizer_size(t),
             l->config.V);
        die(&err, "give --tokenizer the file that the model was trained with");
    }
    special = tokenizer_specials(t);
    l->config.bos = special.bos;
    l->config.eos[0] = special.eos;
    l->config.eos_count = special.eos >= 0;
    must(tokenizer_save(t, out, l->config.positions, prep_pool(), &err), &err, NULL);
    if (tokenizer_kind(t) != TOKENIZER_SENTENCEPIECE || folder_exists(from)) return;
    must(file_read_all(from, prep_pool(), &bytes, &n, &err), &err, NULL);
    must(file_write_all(path_of(out, "tokenizer.model"), bytes, n, prep_pool(), &err), &err, NULL);
}

int command_llama2c(int argc, char **argv) {
    static const char *tokenizer, *out;
    static int dtype, force;
    static RunFolder to;
    static Option option[] = {
        { "out", OPT_TEXT, &out, NULL, 0, 0, NULL, "the folder to write" },
        FORCE_OPTION(force),
        { "tokenizer", OPT_TEXT, &tokenizer, NULL, 0, 0, NULL,
          "the model's tokenizer.model (or a folder with it), which is copied; tokenizer.bin is not needed" },
        { "dtype", OPT_CHOICE, &dtype, "f32", 0, 0, "f32|bf16|f16", "type of the numbers in the file" },
    };
    static const Program program = {
        .program = "prep llama2c",
        .usage = "FILE.bin --out DIR [--tokenizer tokenizer.model]",
        .about =
            "Makes a Hugging Face folder (config.json, generation_config.json, model.safetensors) from a "
            "checkpoint of llama2.c: legacy, version 1 (float32) or version 2 (int8).",
        OPTIONS(option) };
    static const int type[] = { F32, BF16, F16 };
    Llama2c l;
    char number[2][64];
    const char *path;
    Error err = { 0 };
    if (cli_parse(&program, argc, argv, &path, 1) < 1) usage_error("a checkpoint is missing", NULL);
    if (!out) usage_error("a folder to write is missing: give --out DIR", NULL);
    const char *const input[] = { path, tokenizer };
    out_check(out, force, input, 2);
    must(llama2c_load(&l, path, prep_pool(), &err), &err,
         "give a checkpoint of llama2.c (legacy, version 1 or version 2)");
    out_open(&to, out, force, NULL, "llama2c");
    if (tokenizer) llama2c_tokenizer(&l, tokenizer, to.path);
    must(checkpoint_save(to.path, "model", l.tensor, l.tensors, type[dtype], 0, prep_pool(), &err), &err,
         NULL);
    must(config_save(&l.config, NULL, to.path, type[dtype], prep_pool(), &err), &err, NULL);
    must(out_commit(&to, &err), &err, NULL);
    say("%s: %s of a Llama (%s, width %d, vocabulary %d), from llama2.c's %s", out,
        counted(number[0], (size_t)l.tensors, "tensor"),
        counted(number[1], (size_t)l.config.stack.L, "layer"), l.config.stack.C, l.config.V,
        l.version == 2 ? "version 2 (int8)" : l.version ? "version 1" : "legacy file");
    return 0;
}
