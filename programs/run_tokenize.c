/* run_tokenize.c - run tokenize: turns text into ids and back. */
#include "run.h"
#include <stdio.h>

/* Prints the text of a line of ids. */
static void decode_line(Input *in, const Tokenizer *t, int jsonl, int special) {
    int count, *ids = parse_ids(in, tokenizer_size(t), &count);
    char *text;
    size_t length;
    if (line_failed(in, jsonl)) return;
    require((special ? tokenizer_decode_all : tokenizer_decode)(t, ids, count, in->scratch, &text, &length),
            "cannot decode", in->path, 0, 0, NULL);
    if (jsonl) { printf("{\"text\": "); print_string(text, length, in->scratch); printf("}"); }
    else fwrite(text, 1, length, stdout);
    putchar('\n');
}

/* Prints the text of the i-th token; color 1: on a background that differs from its neighbours'. */
static void print_token(const char *s, size_t n, int i, int color) {
    if (color) fputs(i % 2 ? "\033[30;43m" : "\033[30;46m", stdout);
    print_visible(s, n, 0);
    if (color) fputs("\033[0m", stdout);
}

/* Prints the text with a background for each token. Bytes that belong to two tokens are printed once; bytes
 * that belong to no token have no background. */
static void print_colored(const char *text, size_t n, const TokenSpan *span, int count) {
    size_t at = 0;
    for (int i = 0; i < count; i++) {
        if (span[i].from > at) { print_visible(text + at, span[i].from - at, 0); at = span[i].from; }
        if (span[i].to > at) { print_token(text + at, span[i].to - at, i, 1); at = span[i].to; }
    }
    print_visible(text + at, n - at, 0);
    putchar('\n');
}

/* Prints one line for each token: its id, the bytes from..to of the text that it stands for (~: the bounds
 * are not exact), its piece in the vocabulary, and these bytes. */
static void show_line(const Input *in, const Tokenizer *t, int special, int color) {
    const char *text = in->text;
    const size_t n = in->n;
    Pool *scratch = in->scratch;
    SpecialIds s = tokenizer_specials(t);
    TokenSpan *inner, *span;
    int before = 0, after = 0, count, *content, *ids;
    require(tokenizer_encode_spans(t, text, n, scratch, &content, &inner, &count), "out of memory",
            "tokenizer", 0, 0, NULL);
    if (special) tokenizer_template(t, &before, &after);
    ids = pool_need(scratch, (size_t)count + 2, sizeof *ids, "ids");
    span = pool_need(scratch, (size_t)count + 2, sizeof *span, "spans");
    for (int i = 0; i < count; i++) { ids[before + i] = content[i]; span[before + i] = inner[i]; }
    count += before + after;
    if (before) { ids[0] = s.bos; span[0] = (TokenSpan){ 0, 0, 1 }; }
    if (after) { ids[count - 1] = s.eos; span[count - 1] = (TokenSpan){ n, n, 1 }; }
    printf("%s %lld: %d token%s, %llu byte%s\n", unit_of(in), in->number, count, count == 1 ? "" : "s",
           (unsigned long long)n, n == 1 ? "" : "s");
    if (color && n) print_colored(text, n, span, count);
    for (int i = 0; i < count; i++) {
        char place[64];
        size_t length;
        const char *piece = tokenizer_piece(t, ids[i], &length);
        snprintf(place, sizeof place, "%s%llu..%llu", span[i].exact ? "" : "~",
                 (unsigned long long)span[i].from, (unsigned long long)span[i].to);
        printf("%8d  %12s  ", ids[i], place);
        if (piece) print_token(piece, length, i, color);
        fputs("  \"", stdout);
        print_visible(text + span[i].from, span[i].to - span[i].from, 0);
        fputs("\"\n", stdout);
    }
}

typedef struct { int jsonl, special, no_special, decode, show, color; } TokenizeOptions;

/* Prints the ids of a line, or with --show a line for each token. */
static void encode_line(Input *in, const Tokenizer *t, const TokenizeOptions *o) {
    int count, *ids;
    if (line_failed(in, 0)) return;
    if (o->show) { show_line(in, t, o->special, o->color); return; }
    ids = text_ids(t, in->text, in->n, o->special, in->scratch, &count);
    print_ids(ids, count, " ");
    putchar('\n');
}

enum { COLOR_AUTO, COLOR_ALWAYS, COLOR_NEVER };

/* Returns 1 if output is to be coloured. Under auto, an environment variable NO_COLOR that is not empty
 * (no-color.org) turns colours off. */
static int wants_color(int asked) {
    const char *no = getenv("NO_COLOR");
    return asked == COLOR_ALWAYS || (asked == COLOR_AUTO && terminal_here() && !(no && *no));
}

int run_tokenize(int argc, char **argv) {
    TokenizeOptions o;
    Option option[] = {
        { "jsonl", OPT_FLAG, &o.jsonl, NULL, 0, 0, NULL,
          "lines are {\"text\": ...}, so that a text may hold line breaks" },
        { "special", OPT_FLAG, &o.special, NULL, 0, 0, NULL,
          "add the special tokens of the tokenizer's template; with --decode, print special tokens too" },
        NO_SPECIAL_OPTION(o.no_special),
        { "decode", OPT_FLAG, &o.decode, NULL, 0, 0, NULL, "turn lines of ids into text" },
        { "show", OPT_FLAG, &o.show, NULL, 0, 0, NULL,
          "for people: print a line for each token, with its id, the bytes from..to "
          "of the text that it stands for (~: not exact), its piece in the vocabulary, and these bytes" },
        { "color", OPT_CHOICE, &o.color, "auto", 0, 0, "auto|always|never",
          "whether --show uses colours; auto: only in a terminal, unless NO_COLOR is set" },
    };
    static const Need need[] = {
        { "color", "show", NULL }, { "decode", "!show", "--show is for turning text into ids" },
        { "no-special", "!decode", "it is for turning text into ids" },
        { NULL, NULL, NULL } };
    Program program = {
        .program = "run tokenize",
        .usage = "TOKENIZER [FILE] [options]",
        .about =
            "Prints the ids of each line, separated by spaces. "
            "TOKENIZER is a folder with a tokenizer, or a tokenizer.json, tokenizer.model, vocab.json (with "
            "merges.txt beside it) or vocab.txt.",
        OPTIONS(option), .need = need };
    const char *positional[2] = { NULL, NULL };
    int given = cli_parse(&program, argc, argv, positional, 2);
    Pool keep = cli_pool(), scratch = cli_pool();
    Error err = { 0 };
    if (given < 1) usage_error("which tokenizer?", NULL);
    o.color = wants_color(o.color);
    Tokenizer *t = tokenizer_open(positional[0], &keep, &err);
    must(err.code, &err, "TOKENIZER is a tokenizer.json, a tokenizer.model, or a folder with one of them "
                         "or with vocab.json and merges.txt");
    if (o.no_special) tokenizer_split_special(t);
    Input in = input_open(positional[1], o.jsonl && !o.decode, o.decode, 0, &keep, &scratch);
    while (input_next(&in)) {
        if (o.decode) decode_line(&in, t, o.jsonl, o.special);
        else encode_line(&in, t, &o);
    }
    const int code = input_close(&in);
    pool_free(&keep); pool_free(&scratch);
    return code;
}
