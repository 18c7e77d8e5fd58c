/* prep_tokenizer.c - prep tokenizer: trains a tokenizer on the training documents of a dataset. */
#include "prep.h"
#include <stdio.h>

typedef struct { const Dataset *data; uint64_t document; int text; } TrainTexts;

/* Sets *text and *length to the next text of the training split (of pairs and prompts, both
 * texts). Returns 0 after the last. */
static int next_text(void *context, const char **text, size_t *length) {
    TrainTexts *t = context;
    int texts = t->data->kind == DATA_TEXT ? 1 : 2;
    const Document *doc = t->data->document;
    while (t->document < t->data->count && (doc[t->document].split || t->text == texts)) {
        t->document++;
        t->text = 0;
    }
    if (t->document == t->data->count) return 0;
    *text = doc[t->document].text[t->text];
    *length = doc[t->document].length[t->text];
    t->text++;
    return 1;
}

/* The kinds in the order of --kind's choices; `train` has those before WORDPIECE. */
enum { WORDPIECE = 5 };
static Tokenizer *(*const train[WORDPIECE])(TextSource, int, Pool *, Error *) = {
    tokenizer_train_sentencepiece, tokenizer_train_bytelevel, tokenizer_train_unigram, tokenizer_train_gpt2,
    tokenizer_train_t5
};

int command_tokenizer(int argc, char **argv) {
    static const char *const name[] = { "SentencePiece", "byte-level BPE", "SentencePiece unigram", "GPT-2",
        "T5", "WordPiece" };
    static int kind, vocab, cased, max_length, force;
    static const char *out;
    static RunFolder to;
    static Option option[] = {
        { "kind", OPT_CHOICE, &kind, "sentencepiece", 0, 0,
          "sentencepiece|bytelevel|unigram|gpt2|t5|wordpiece",
          "sentencepiece: BPE with byte fallback, as Llama's; bytelevel: BPE over bytes, as RoBERTa's; "
          "unigram: SentencePiece's other model; gpt2: BPE over bytes with GPT-2's special token; t5: "
          "unigram in T5's layout, with 100 sentinels; wordpiece: BERT's and DistilBERT's, in lower case and "
          "without accents" },
        { "vocab", OPT_INT, &vocab, "1024", 1, 1000000, NULL,
          "number of ids, including special tokens and (but for t5, wordpiece) 256 bytes" },
        { "cased", OPT_FLAG, &cased, NULL, 0, 0, NULL, "wordpiece: keep capitals and accents" },
        { "max-length", OPT_INT, &max_length, "512", 1, 1000000, NULL,
          "model_max_length in tokenizer_config.json" },
        { "out", OPT_TEXT, &out, NULL, 0, 0, NULL, "the folder to write" },
        FORCE_OPTION(force),
    };
    static const Program program = {
        .program = "prep tokenizer",
        .usage = "DATA.bin --out DIR [--kind KIND] [--vocab N]",
        .about =
            "Trains a tokenizer on the training documents of a dataset, and writes the files that Hugging "
            "Face tools read.",
        OPTIONS(option) };
    const char *path[1];
    Error err = { 0 };
    Dataset d;
    TrainTexts texts = { &d, 0, 0 };
    TextSource source;
    Tokenizer *t;
    if (cli_parse(&program, argc, argv, path, 1) < 1) usage_error("a dataset is missing", NULL);
    if (!out) usage_error("a folder to write is missing: give --out DIR", NULL);
    if (cased && kind != WORDPIECE) usage_error("--cased is for --kind wordpiece", NULL);
    out_check(out, force, path, 1);
    must(dataset_read(&d, path[0], prep_pool(), &err), &err,
         "make the dataset with prep grammar or prep data");
    source.next = next_text;
    source.context = &texts;
    t = kind == WORDPIECE ? tokenizer_train_wordpiece(source, vocab, cased, prep_pool(), &err)
        : train[kind](source, vocab, prep_pool(), &err);
    if (!t) die(&err, "use another --vocab, or more text");
    out_open(&to, out, force, NULL, "tokenizer");
    must(tokenizer_save(t, to.path, max_length, prep_pool(), &err), &err, NULL);
    must(out_commit(&to, &err), &err, NULL);
    printf("%s: %s tokenizer of %d ids, trained on %s\n", out,
           name[kind], tokenizer_size(t), path[0]);
    return 0;
}
