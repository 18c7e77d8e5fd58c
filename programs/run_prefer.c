/* run_prefer.c - run prefer: the second phase of Constitutional AI (Bai et al. 2022, section 4): pairs of
 * answers, and how probable it is that one is better, from the log-probs that a policy gives the letters (A)
 * and (B) after a question of the constitution. constitution.c says how both orders are averaged. */
#include "run.h"
#include <stdio.h>

/* A prompt with two answers. p[k]: the probability that answer 0 is the better one, when it is (A) [0] and
 * when it is (B) [1]. failed 1: something does not fit. */
typedef struct {
    long long number;
    const char *prompt, *ask, *answer[2];   /* ask: what the writer reads */
    const Entry *principle;
    double p[2];
    int failed;
} Pair;
typedef struct {
    Feedback f;
    const char *writer, *field[2];
    double clamp;
    Constitution constitution;
    Policy judge, other;                    /* other: the --writer */
    Batch batch;                            /* the judge's; only its memory for log-probs is used */
    Author author;
    Input in; Results results;
    Pair *pair; int pairs, most;            /* most: pairs that are worked on together */
    float *logprob;
    Pool keep, texts, scratch;
} Prefer;

/* Returns a copy of the string in a field of the JSON line that was read last, without white space around it;
 * NULL, after a message, if there is none. */
static const char *field_of(Prefer *c, const char *name) {
    const Json *v = json_get(c->in.row, name);
    char what[160];
    if (!v || v->type != JSON_STRING || memchr(v->string, 0, v->length)) {
        snprintf(what, sizeof what, "no string \"%.100s\"", name);
        line_error(&c->in, E_MISSING, what, "name the fields with --first and --second");
        return NULL;
    }
    size_t n = v->length;
    const char *s = v->string;
    while (n && strchr(" \t\r\n", s[n - 1])) n--;
    while (n && strchr(" \t\r\n", *s)) { s++; n--; }
    char *copy = pool_text(&c->texts, s, n);
    require(copy ? OK : E_MEMORY, "out of memory", "answers", 0, 0, NULL);
    return copy;
}

/* Reads prompts, and with --first their answers, until there are `most` to do. Returns 0 at the end. */
static int read_pairs(Prefer *c) {
    for (c->pairs = 0; c->pairs < c->most; ) {
        if (cli_stopping() || !input_next(&c->in)) return 0;
        Pair pair = { .number = c->in.number };
        for (int k = 0; k < 2 && c->field[0] && !c->in.err.code; k++)
            pair.answer[k] = field_of(c, c->field[k]);
        if (input_refused(&c->in)) continue;
        pair.ask = ask_of(&c->f, c->in.text, c->in.n, &c->texts);
        pair.prompt = pool_text(&c->texts, c->in.text, c->in.n);
        require(pair.prompt ? OK : E_MEMORY, "out of memory", "prompts", 0, 0, NULL);
        pair.principle = constitution_draw(&c->constitution, c->f.seed, (uint64_t)pair.number, 0);
        const uint64_t sign = results_sign(pair.ask, strlen(pair.ask), &c->texts);
        if (results_has(&c->results, pair.number,
                        results_sign_principle(sign, pair.principle->name, &c->texts))) continue;
        c->pair[c->pairs++] = pair;
    }
    return 1;
}

/* Lets the policy write both answers of each pair. */
static void write_answers(Prefer *c) {
    Turn *turn = pool_need(&c->texts, 2 * (size_t)c->pairs + 1, sizeof *turn, "texts");
    for (int i = 0; i < 2 * c->pairs; i++) {
        turn[i].text = c->pair[i / 2].ask;
        turn[i].number = c->pair[i / 2].number;
        turn[i].rng = rng_stream(c->f.seed, (uint64_t)(i % 2), (uint64_t)c->pair[i / 2].number);
    }
    author_write(&c->author, turn, 2 * c->pairs, &c->in, &c->texts);
    for (int i = 0; i < 2 * c->pairs; i++) {
        c->pair[i / 2].answer[i % 2] = turn[i].answer;
        c->pair[i / 2].failed |= !turn[i].answer;
    }
}

/* Returns ids of the text of a question and the letter after it. */
static int *letter_ids(Prefer *c, const char *question, const char *letter, const Pair *pair, int *count) {
    Turn turn = { .number = pair->number };
    Buffer b = { &c->texts, NULL, 0, 0, 0 };
    buffer_text(&b, question);
    buffer_text(&b, letter);
    buffer_u8(&b, 0);
    need_buffer(&b);
    turn.text = (const char *)b.data;
    return turn_ids(&c->batch, &c->f, &turn, 0, &c->in, count);
}

/* Sets letter[k] to the log-prob of the k-th letter after the question. A policy with an encoder reads the
 * question there; the decoder's start is followed by the letter. Returns 0 after a message if the question
 * is too long. */
static int letter_logprobs(Prefer *c, const char *question, const Pair *pair, double letter[2]) {
    static const char *const name[] = { " (A)", " (B)" };
    const int space = c->constitution.how->end == NULL;     /* a message has no space before it */
    Policy *p = &c->judge;
    const int encoder = p->config.encoder.L > 0;
    int *ids[2], n[2], same = 0, code = OK, count;
    for (int k = 0; k < 2; k++) {
        ids[k] = letter_ids(c, encoder ? "" : question, name[k] + !space, pair, &n[k]);
        if (!ids[k]) return 0;
    }
    while (same < n[0] && same < n[1] && ids[0][same] == ids[1][same]) same++;
    if (encoder) {
        int *read = letter_ids(c, question, "", pair, &count);
        if (!read) return 0;
        code = policy_read(p, &p->reading, read, count, &p->ws);
        same = 0;
        for (int k = 0; k < 2; k++) {       /* the start takes the place of what stands before the letter */
            int *with = pool_need(&c->texts, (size_t)n[k] + 1, sizeof *with, "ids");
            with[0] = p->config.start;
            memcpy(with + 1, ids[k], (size_t)n[k] * sizeof *with);
            ids[k] = with;
            n[k]++;
        }
    }
    const int from = same > 1 ? same - 1 : 0;       /* rows before it are the same for both letters */
    for (int k = 0; k < 2 && !code; k++) {
        code = policy_logprobs(p, ids[k], k ? from : 0, n[k], c->logprob);
        letter[k] = 0;
        for (int i = from; i + 1 < n[k]; i++) letter[k] += (double)c->logprob[i];
    }
    require(code, code == E_NUMBER ? no_number : "the model's forward failed", "", 0, 0,
            damaged_hint(p->compute));
    return 1;
}

/* Asks the policy about a pair, in both orders. */
static void judge_pair(Prefer *c, Pair *pair) {
    for (int order = 0; order < 2; order++) {
        Buffer b = { &c->texts, NULL, 0, 0, 0 };
        double letter[2];
        constitution_choice(&b, &c->constitution, c->f.shots, pair->prompt, pair->principle,
                            pair->answer[order], pair->answer[1 - order]);
        buffer_u8(&b, 0);
        need_buffer(&b);
        if (!letter_logprobs(c, (const char *)b.data, pair, letter)) { pair->failed = 1; return; }
        pair->p[order] = preference_of(letter[order], letter[1 - order]);
    }
}

/* Appends the line of a pair to the file. */
static void write_pair(Prefer *c, const Pair *pair) {
    const double p = preference_mean(pair->p);
    const int better = p < 0.5;
    const double own = preference_clamp(better ? 1 - p : p, c->clamp);
    Buffer b = { &c->texts, NULL, 0, 0, 0 };
    char number[160];
    buffer_text(&b, "{\"index\": ");
    buffer_integer(&b, pair->number);
    buffer_field(&b, ", \"prompt\": ", pair->ask);
    buffer_answer(&b, ", \"chosen\": ", &c->f, pair->answer[better]);
    buffer_answer(&b, ", \"rejected\": ", &c->f, pair->answer[1 - better]);
    snprintf(number, sizeof number, ", \"probability\": %.6f, \"orders\": [%.6f, %.6f]", own,
             better ? 1 - pair->p[1] : pair->p[0], better ? 1 - pair->p[0] : pair->p[1]);
    buffer_text(&b, number);
    buffer_field(&b, ", \"principle\": ", pair->principle->name);
    buffer_text(&b, "}");
    results_add(&c->results, &b);
}

/* Works on all prompts, a batch at a time. */
static void prefer(Prefer *c) {
    int more;
    do {
        const PoolMark mark = pool_mark(&c->texts);
        more = read_pairs(c);
        if (!c->field[0]) write_answers(c);
        for (int i = 0; i < c->pairs && !cli_stopping(); i++) {
            Pair *pair = &c->pair[i];
            if (!pair->failed) judge_pair(c, pair);
            if (!pair->failed) write_pair(c, pair);
        }
        pool_release(&c->texts, mark);
        feedback_progress(&c->f, &c->results, !more || cli_stopping());
    } while (more && !cli_stopping());
}

/* Opens the policy that judges, and the one that writes. */
static void open_policies(Prefer *c, const char *model) {
    Policy *writer = c->writer ? &c->other : &c->judge;
    const int T = feedback_policy(&c->f, &c->judge, model, c->f.adapter, &c->keep);
    c->logprob = pool_need(&c->keep, (size_t)T + 1, sizeof *c->logprob, "log-probabilities");
    c->most = c->f.batch ? c->f.batch : batch_size(T);
    if (!c->field[0]) {
        const int own = c->writer ? feedback_policy(&c->f, &c->other, c->writer, NULL, &c->keep) : T;
        c->author = author_open(writer, &c->f, own, &c->keep);
        c->batch = c->author.batch;
    }
    if (c->writer || c->field[0]) c->batch = batch_open(&c->judge, 1, T, &c->keep);
    c->pair = pool_need(&c->keep, (size_t)c->most, sizeof *c->pair, "pairs");
}

int run_prefer(int argc, char **argv) {
    static Prefer c;
    const char *positional[2] = { NULL, NULL };
    Option option[] = {
        FEEDBACK_OPTIONS(c.f, "few-shot comparisons of the file that the policy reads first (-1: all)"),
        { "writer", OPT_TEXT, &c.writer, NULL, 0, 0, NULL,
          "the policy, or the adapter, that writes the answers (default: MODEL)" },
        { "first", OPT_TEXT, &c.field[0], NULL, 0, 0, NULL,
          "JSONL field of the first answer, if the answers are there already" },
        { "second", OPT_TEXT, &c.field[1], NULL, 0, 0, NULL, "JSONL field of the second answer" },
        { "clamp", OPT_REAL, &c.clamp, "0", 0, 0.5, NULL,
          "keep probabilities between this and 1 - this (0.4: the 40 to 60 % of Bai et al., section 4.1)" },
        QUANT_OPTIONS(c.f.quant, NF4_HELP),
        COMPUTE_OPTION(c.f.quant),
    };
    static const Need need[] = {
        { "n|temperature|top-p|writer", "!first", "no answer is written" },
        FEEDBACK_NEEDS, QUANT_NEEDS, { NULL, NULL, NULL } };
    Program program = {
        .program = "run prefer",
        .usage = "MODEL [DATA] --constitution FILE [--out FILE.jsonl] [options]",
        .about =
            "Constitutional AI, second phase: for each prompt two answers, and the probability that one is "
            "better: MODEL's own probabilities of (A) and (B) after a question of the file, averaged over "
            "both orders. Writes a JSON line for each prompt: prompt, chosen, rejected, the probability that "
            "chosen is better, both orders' probabilities, and the principle. prep data makes pairs of it, "
            "for rm. A prompt that does not fit gives a message and no line. If --out is there, its lines "
            "are not made again; the options, which are kept in a file beside --out (.options), have to be "
            "the same.",
        OPTIONS(option), .need = need };
    const int given = cli_parse(&program, argc, argv, positional, 2);
    if (given < 1) usage_error("which model?", NULL);
    if (!c.field[0] != !c.field[1]) usage_error("--first and --second go together", NULL);
    if (c.field[0]) c.f.jsonl = 1;
    c.keep = cli_pool(); c.texts = cli_pool(); c.scratch = cli_pool();
    c.f.program = &program;
    quant_options_check(&program, &c.f.quant, NULL, NULL, 0);
    if (c.f.out) out_file_check("--out", c.f.out, &positional[1], 1);
    c.constitution = feedback_constitution(&c.f, CHOICE, &c.keep);
    c.results = results_open(c.f.out, &program, &c.keep);
    c.in = input_open(positional[1], c.f.jsonl, 0, 1, &c.keep, &c.scratch);
    c.f.total = feedback_total(&c.in, positional[1]);
    open_policies(&c, positional[0]);
    if (c.f.out) {
        Source source[SOURCES];
        feedback_sources(source, &c.f, positional[0], &c.judge, c.writer, &c.other, &c.keep);
        results_made(&c.results, &program, source, SOURCES, &c.keep);
    }
    cli_interrupts();
    prefer(&c);
    return results_end(&c.results, input_close(&c.in));
}
