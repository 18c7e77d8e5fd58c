/* constitution.c - the file with the principles: what it says, and what is wrong with broken ones (fuzz/bad.c
 * has more of these); the texts that a policy reads; the preference of both orders. */
#include "test.h"
#include "../programs.h"

static Pool pool;

static const char small[] =
    "\xEF\xBB\xBF# a comment\r\nprinciple: one\ncritique:  C1 \nrevision: R1\r\n\npreference: P1\n"
    "example: one\nprompt: ask\nresponse: bad\n# between\ncritique: it is\n  \t bad \nrevision: good\n"
    "choice: one\nprompt: Human: q\na: x\nb: y\nanswer: B";

static void test_parse(void) {
    Constitution c;
    Error err = { 0 };
    const int code = constitution_parse(&c, small + 3, sizeof small - 4, "file", &pool, &err);
    CHECK(code == OK, "%s: %s", err.what, err.where);
    CHECK(c.count[PRINCIPLE] == 1 && c.count[EXAMPLE] == 1 && c.count[CHOICE] == 1, "counts");
    const Entry *p = c.entry[PRINCIPLE], *e = c.entry[EXAMPLE], *o = c.entry[CHOICE];
    CHECK(!strcmp(p->text[PRINCIPLE_CRITIQUE], "C1"), "trimmed");
    CHECK(!strcmp(p->text[PRINCIPLE_REVISION], "R1"), "trimmed");
    CHECK(!strcmp(e->text[SHOT_CRITIQUE], "it is bad"), "continued: '%s'", e->text[SHOT_CRITIQUE]);
    CHECK(e->principle == p && o->principle == p && !strcmp(o->text[CHOICE_ANSWER], "B"), "principles");
    CHECK(e->line == 7, "line %lld", e->line);
}

/* Checks that the text is refused, with these words in the message. */
static void refused(const char *text, size_t n, const char *what, const char *where) {
    Constitution c;
    Error err = { 0 };
    const int code = constitution_parse(&c, text, n, "file", &pool, &err);
    CHECK(code != OK && strstr(err.what, what) && strstr(err.where, where) && err.advice, "%.40s: %s: %s",
          text, err.what, err.where);
}

#define WHOLE "principle: a\ncritique: b\nrevision: c\npreference: d\n"
static void test_refused(void) {
    static const struct { const char *text, *what, *where; } bad[] = {
        { "", "no principle", "file" },
        { "# nothing\n", "no principle", "file" },
        { "critique: a\n", "before the first entry", "line 1" },
        { "principle: a\nprompt: b\n", "no such key", "line 2" },
        { "principle: a\ncritique\n", "no colon", "line 2" },
        { "principle: a\ncritique:  \n", "no text", "line 2" },
        { "principle:\n", "no text", "line 1" },
        { " a\n", "goes on", "line 1" },
        { "principle: a\n b\n", "goes on", "line 2" },
        { "principle: a\ncritique: b\ncritique: c\n", "second text", "line 3" },
        { "\n\nprinciple: a\ncritique: b\nrevision: c\n", "no `preference:`", "line 3" },
        { WHOLE "principle: a\n", "has this name", "line 5" },
        { WHOLE "choice: e\nprompt: f\na: g\nb: h\nanswer: A\n", "no principle has the name", "line 5" },
        { WHOLE "choice: a\nprompt: f\na: g\nb: h\nanswer: C\n", "neither A nor B", "line 5" },
        { "principle: \xC3\n", "UTF-8", "line 1" },
        { "principle: a\x1b[1m\n", "control character", "line 1" } };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refused(bad[i].text, strlen(bad[i].text), bad[i].what, bad[i].where);
    refused("principle: a\0b\n", 15, "control character", "line 1");
}

static void test_shipped(void) {
    Constitution c;
    Error err = { 0 };
    const int code = constitution_read(&c, "data/constitution.txt", &pool, &err);
    CHECK(code == OK, "%s: %s", err.what, err.where);
    CHECK(c.count[PRINCIPLE] == 16 && c.count[EXAMPLE] >= 2 && c.count[CHOICE] >= 2, "what is in it");
    int seen[16] = { 0 }, all = 1;
    for (uint64_t i = 0; i < 400; i++) seen[constitution_draw(&c, 1, i, 0) - c.entry[PRINCIPLE]]++;
    for (int k = 0; k < 16; k++) all &= seen[k] > 5;
    CHECK(all, "every principle is drawn");
    CHECK(constitution_draw(&c, 1, 7, 2) == constitution_draw(&c, 1, 7, 2), "the same draw");
}

static void is(Buffer *b, const char *wanted) {
    CHECK(b->length == strlen(wanted) && !memcmp(b->data, wanted, b->length), "got '%.*s', wanted '%s'",
          (int)b->length, (const char *)b->data, wanted);
    b->length = 0;
}

static void test_texts(void) {
    Constitution c;
    Error err = { 0 };
    Buffer b = { &pool, NULL, 0, 0, 0 };
    constitution_parse(&c, small + 3, sizeof small - 4, "file", &pool, &err);
    c.how = chat_template(CHAT_NONE);
    constitution_ask(&b, c.how, " \n q? \n", 7);
    is(&b, "Human: q?\n\nAssistant:");
    constitution_ask(&b, c.how, "\n\nHuman: q?\n\nAssistant: ", 24);
    is(&b, "Human: q?\n\nAssistant:");
    constitution_critique(&b, &c, 0, "Human: q?\n\nAssistant:", "r", c.entry[PRINCIPLE], NULL);
    is(&b, "Human: q?\n\nAssistant: r\n\nCritiqueRequest: C1\n\nCritique:");
    constitution_critique(&b, &c, 5, "Human: q?\n\nAssistant:", "r", c.entry[PRINCIPLE], "c");
    is(&b, "Human: ask\n\nAssistant: bad\n\nCritiqueRequest: C1\n\nCritique: it is bad\n\n"
           "RevisionRequest: R1\n\nRevision: good\n\nHuman: q?\n\nAssistant: r\n\nCritiqueRequest: C1\n\n"
           "Critique: c\n\nRevisionRequest: R1\n\nRevision:");
    constitution_choice(&b, &c, 1, "z", c.entry[PRINCIPLE], "one", "two");
    is(&b, "Consider the following conversation between a human and an assistant:\n\nHuman: Human: q\n\n"
           "Assistant:\n\nP1\n\nOptions:\n(A) x\n(B) y\n\nThe answer is: (B)\n\n"
           "Consider the following conversation between a human and an assistant:\n\nHuman: z\n\n"
           "Assistant:\n\nP1\n\nOptions:\n(A) one\n(B) two\n\nThe answer is:");
}

#define USER "<|im_start|>user\n"
#define ANSWER "<|im_start|>assistant\n"
#define END "<|im_end|>\n"
static void test_template(void) {
    Constitution c;
    Error err = { 0 };
    Buffer b = { &pool, NULL, 0, 0, 0 };
    static const char ask[] = USER "q?" END ANSWER;
    constitution_parse(&c, small + 3, sizeof small - 4, "file", &pool, &err);
    c.how = chat_template(CHAT_ML);
    constitution_ask(&b, c.how, "q?", 2);
    is(&b, ask);
    constitution_ask(&b, c.how, ask, sizeof ask - 2);       /* without the last line break */
    is(&b, ask);
    constitution_answer(&b, c.how, "a", 1);
    is(&b, "a" END);
    constitution_critique(&b, &c, 1, ask, "r", c.entry[PRINCIPLE], "c");
    is(&b, USER "ask" END ANSWER "bad" END USER "C1" END ANSWER "it is bad" END USER "R1" END
           ANSWER "good" END USER "q?" END ANSWER "r" END USER "C1" END ANSWER "c" END USER "R1" END ANSWER);
    constitution_choice(&b, &c, 0, "z", c.entry[PRINCIPLE], "one", "two");
    is(&b, USER "Consider the following conversation between a human and an assistant:\n\nHuman: z\n\n"
           "Assistant:\n\nP1\n\nOptions:\n(A) one\n(B) two\n\nThe answer is:" END ANSWER);
    c.how = chat_template(CHAT_ZEPHYR);
    constitution_ask(&b, c.how, "q?", 2);
    is(&b, "<|user|>\nq?</s>\n<|assistant|>\n");
}

static void test_next_turn(void) {
    static const struct { const char *text; int found; size_t length; } turn[] = {
        { "an answer", 0, 9 }, { "an answer \n\n", 0, 9 }, { "one\ntwo\n\nHuman: three", 1, 7 },
        { "one\nRevisionRequest:", 1, 3 }, { "one Human: two", 0, 14 }, { "Human: two", 0, 10 },
        { "one\n\nCritiq", 0, 11 }, { "", 0, 0 } };
    for (size_t i = 0; i < sizeof turn / sizeof *turn; i++) {
        size_t length;
        const int found = constitution_next_turn(turn[i].text, strlen(turn[i].text), &length);
        CHECK(found == turn[i].found && length == turn[i].length, "%s: %d, %zu", turn[i].text, found, length);
    }
}

static void near(const char *what, double got, double wanted) {
    CHECK(fabs(got - wanted) < 1e-12, "%s: got %.15g, wanted %.15g", what, got, wanted);
}

static void test_preference(void) {
    /* (A) has log-prob -1 and (B) -3 whatever they stand for: the lean to a letter goes */
    const double lean[2] = { preference_of(-1, -3), preference_of(-3, -1) };
    const double p[2] = { preference_of(log(0.9), log(0.1)), preference_of(log(0.3), log(0.45)) };
    near("one order", p[0], 0.9);
    near("the other order", p[1], 0.4);
    near("both orders", preference_mean(p), 0.65);      /* the mean of log-odds would give 0.710 */
    near("the same answers", preference_mean(lean), 0.5);
    near("a far letter", preference_of(-2000, 0), 0);
    near("clamped above", preference_clamp(0.97, 0.4), 0.6);
    near("clamped below", preference_clamp(0.01, 0.4), 0.4);
    near("inside", preference_clamp(0.55, 0.4), 0.55);
    near("not clamped", preference_clamp(1, 0), 1);
}

int main(void) {
    pool = test_pool();
    test_parse();
    test_refused();
    test_shipped();
    test_texts();
    test_template();
    test_next_turn();
    test_preference();
    pool_free(&pool);
    return test_end("constitution");
}
