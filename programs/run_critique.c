/* run_critique.c - run critique: the first phase of Constitutional AI (Bai et al. 2022, section 3). For each
 * prompt a response, then in each round a critique of it by a principle that is drawn from the file, and a
 * revision, which the next round criticises. The last revisions are what sft trains on. */
#include "run.h"
#include <stdio.h>

enum { ROUNDS_MAX = 16 };
/* A prompt and what has been written for it. failed 1: something does not fit. */
typedef struct {
    long long number;
    const char *ask, *response, *critique[ROUNDS_MAX], *revision[ROUNDS_MAX];
    const Entry *principle[ROUNDS_MAX];
    int failed;
} Item;
typedef struct {
    Feedback f; int rounds;
    Constitution constitution;
    Author author;
    Input in; Results results;
    Item *item; int items;
    Pool keep, texts, scratch;
} Critique;

/* Draws the principles of an item. Returns 1 if the item is in the file already. */
static int is_done(Critique *c, Item *item) {
    uint64_t sign = results_sign(item->ask, strlen(item->ask), &c->texts);
    for (int r = 0; r < c->rounds; r++) {
        const Entry *drawn = constitution_draw(&c->constitution, c->f.seed, (uint64_t)item->number,
                                               (uint64_t)r);
        item->principle[r] = drawn;
        sign = results_sign_principle(sign, drawn->name, &c->texts);
    }
    return results_has(&c->results, item->number, sign);
}

/* Reads prompts until there are as many to do as a batch has texts. Returns 0 at the end of the input. */
static int read_items(Critique *c) {
    for (c->items = 0; c->items < c->author.batch.B; ) {
        if (cli_stopping() || !input_next(&c->in)) return 0;
        if (input_refused(&c->in)) continue;
        Item item = { .number = c->in.number, .ask = ask_of(&c->f, c->in.text, c->in.n, &c->texts) };
        if (!is_done(c, &item)) c->item[c->items++] = item;
    }
    return 1;
}

/* Returns the text that the policy is to continue: step 0 asks for the response, steps 1, 3 ... for a
 * critique, steps 2, 4 ... for a revision. */
static const char *text_of(Critique *c, const Item *item, int step) {
    const int round = (step - 1) / 2, revises = step % 2 == 0;
    Buffer b = { &c->texts, NULL, 0, 0, 0 };
    if (!step) return item->ask;
    constitution_critique(&b, &c->constitution, c->f.shots, item->ask,
                          round ? item->revision[round - 1] : item->response, item->principle[round],
                          revises ? item->critique[round] : NULL);
    buffer_u8(&b, 0);
    need_buffer(&b);
    return (const char *)b.data;
}

/* Takes one step with all items. */
static void take_step(Critique *c, int step) {
    Turn *turn = pool_need(&c->texts, (size_t)c->items + 1, sizeof *turn, "texts");
    int *which = pool_need(&c->texts, (size_t)c->items + 1, sizeof *which, "texts"), turns = 0;
    for (int i = 0; i < c->items; i++) {
        const Item *item = &c->item[i];
        if (item->failed) continue;
        turn[turns].text = text_of(c, item, step);
        turn[turns].number = item->number;
        turn[turns].rng = rng_stream(c->f.seed, (uint64_t)step, (uint64_t)item->number);
        which[turns++] = i;
    }
    author_write(&c->author, turn, turns, &c->in, &c->texts);
    for (int k = 0; k < turns; k++) {
        Item *item = &c->item[which[k]];
        const int round = (step - 1) / 2;
        if (!step) item->response = turn[k].answer;
        else if (step % 2) item->critique[round] = turn[k].answer;
        else item->revision[round] = turn[k].answer;
        item->failed = !turn[k].answer;
    }
}

/* Appends the line of an item to the file. */
static void write_item(Critique *c, const Item *item) {
    Buffer b = { &c->texts, NULL, 0, 0, 0 };
    buffer_text(&b, "{\"index\": ");
    buffer_integer(&b, item->number);
    buffer_field(&b, ", \"prompt\": ", item->ask);
    buffer_answer(&b, ", \"response\": ", &c->f, item->response);
    buffer_answer(&b, ", \"revision\": ", &c->f, item->revision[c->rounds - 1]);
    buffer_text(&b, ", \"rounds\": [");
    for (int r = 0; r < c->rounds; r++) {
        buffer_text(&b, r ? ", {" : "{");
        buffer_field(&b, "\"principle\": ", item->principle[r]->name);
        buffer_field(&b, ", \"critique\": ", item->critique[r]);
        buffer_field(&b, ", \"revision\": ", item->revision[r]);
        buffer_text(&b, "}");
    }
    buffer_text(&b, "]}");
    results_add(&c->results, &b);
}

/* Works on all prompts, a batch at a time. A user's stop drops the batch in progress. */
static void criticise(Critique *c) {
    int more;
    do {
        const PoolMark mark = pool_mark(&c->texts);
        more = read_items(c);
        for (int step = 0; step <= 2 * c->rounds && !cli_stopping(); step++) take_step(c, step);
        for (int i = 0; i < c->items && !cli_stopping(); i++)
            if (!c->item[i].failed) write_item(c, &c->item[i]);
        pool_release(&c->texts, mark);
        feedback_progress(&c->f, &c->results, !more || cli_stopping());
    } while (more && !cli_stopping());
}

int run_critique(int argc, char **argv) {
    static Critique c;
    const char *positional[2] = { NULL, NULL };
    Option option[] = {
        FEEDBACK_OPTIONS(c.f, "few-shot critiques of the file that the policy reads first (-1: all)"),
        { "rounds", OPT_INT, &c.rounds, "1", 1, ROUNDS_MAX, NULL,
          "critiques and revisions of each response, each by another principle" },
        QUANT_OPTIONS(c.f.quant, NF4_HELP),
        COMPUTE_OPTION(c.f.quant),
    };
    static const Need need[] = { FEEDBACK_NEEDS, QUANT_NEEDS, { NULL, NULL, NULL } };
    Program program = {
        .program = "run critique",
        .usage = "MODEL [DATA] --constitution FILE [--out FILE.jsonl] [options]",
        .about =
            "Constitutional AI, first phase: for each prompt (line, text or prompt of a dataset) the policy "
            "responds, criticises its response by a principle of the file, and revises it. Writes a JSON "
            "line for each prompt: prompt, response, revision, and the rounds with principle, critique and "
            "revision. prep data --prompt prompt --response revision makes a dataset for sft of it. A prompt "
            "that does not fit gives a message and no line. If --out is there, its lines are not made again; "
            "the options, which are kept in a file beside --out (.options), have to be the same.",
        OPTIONS(option), .need = need };
    const int given = cli_parse(&program, argc, argv, positional, 2);
    Policy p = { 0 };
    if (given < 1) usage_error("which model?", NULL);
    c.keep = cli_pool(); c.texts = cli_pool(); c.scratch = cli_pool();
    c.f.program = &program;
    quant_options_check(&program, &c.f.quant, NULL, NULL, 0);
    if (c.f.out) out_file_check("--out", c.f.out, &positional[1], 1);
    c.constitution = feedback_constitution(&c.f, EXAMPLE, &c.keep);
    c.results = results_open(c.f.out, &program, &c.keep);
    c.in = input_open(positional[1], c.f.jsonl, 0, 1, &c.keep, &c.scratch);
    c.f.total = feedback_total(&c.in, positional[1]);
    const int T = feedback_policy(&c.f, &p, positional[0], c.f.adapter, &c.keep);
    if (c.f.out) {
        Source source[SOURCES];
        feedback_sources(source, &c.f, positional[0], &p, NULL, NULL, &c.keep);
        results_made(&c.results, &program, source, SOURCES, &c.keep);
    }
    c.author = author_open(&p, &c.f, T, &c.keep);
    c.item = pool_need(&c.keep, (size_t)c.author.batch.B, sizeof *c.item, "prompts");
    cli_interrupts();
    criticise(&c);
    return results_end(&c.results, input_close(&c.in));
}
