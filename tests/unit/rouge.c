/* tests/unit/rouge.c - ROUGE against the numbers in the tests of Google's rouge_score, against numbers that
 * were worked out by hand, and against definitions on random texts. */
#include "test.h"

static Pool pool;

/* Checks one score of a text against precision, recall and F. */
static void row(int kind, const char *reference, const char *text, double precision, double recall,
                double f) {
    static const char *const name[ROUGE_KINDS] = { "1", "2", "L", "Lsum" };
    Rouge r[ROUGE_KINDS];
    memset(r, 7, sizeof r);
    CHECK(!rouge_score(r, reference, strlen(reference), text, strlen(text), &pool), "it has memory");
    CHECK(fabs(r[kind].precision - precision) < 1e-12 && fabs(r[kind].recall - recall) < 1e-12
          && fabs(r[kind].f - f) < 1e-12, "ROUGE-%s of '%s' for '%s': %g %g %g, wanted %g %g %g", name[kind],
          text, reference, r[kind].precision, r[kind].recall, r[kind].f, precision, recall, f);
}

/* rouge_scorer_test.py */
static void published(void) {
    static const char target[] = "testing one two";
    row(ROUGE_1, target, "testing", 1, 1.0 / 3, 0.5);
    row(ROUGE_2, target, "testing one", 1, 0.5, 2.0 / 3);
    row(ROUGE_1, target, "testing one", 1, 2.0 / 3, 0.8);
    row(ROUGE_L, target, "testing one", 1, 2.0 / 3, 0.8);
    row(ROUGE_L, target, "testing two", 1, 2.0 / 3, 0.8);
    row(ROUGE_LSUM, "w1 w2 w3 w4 w5", "w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", 0.4, 0.8, 8.0 / 15);
    for (int kind = 0; kind < ROUGE_KINDS; kind++) {
        row(kind, target, "", 0, 0, 0);
        row(kind, "", "w1", 0, 0, 0);
        row(kind, "w1 w2 w3 w4 w5", "/", 0, 0, 0);
        row(kind, "", "", 0, 0, 0);
    }
}

static void by_hand(void) {
    row(ROUGE_1, "The CAT, the cat!", "the the the cat", 0.75, 0.75, 0.75);     /* the twice, cat once */
    row(ROUGE_2, "a b a b", "a b x a b", 0.5, 2.0 / 3, 4.0 / 7);    /* ab twice of ab bx xa ab, of ab ba ab */
    row(ROUGE_L, "a b c d", "d a c b", 0.5, 0.5, 0.5);
    row(ROUGE_1, "don't", "don t", 1, 1, 1);
    row(ROUGE_1, "caf\xc3\xa9 x", "caf x", 1, 1, 1);                /* e with an accent is no letter here */
    row(ROUGE_1, "\xc4\xb0x \xe2\x84\xaa" "g", "i x kg", 1, 1, 1);  /* lower case: i and a mark, k */
    row(ROUGE_2, "one\ntwo", "one two", 1, 1, 1);                   /* 1, 2 and L do not see lines */
    row(ROUGE_LSUM, "a b\nb a", "a b", 1, 0.5, 2.0 / 3);            /* a and b are hit once each */
    row(ROUGE_LSUM, "b a\na b", "a b\n\nb", 1, 0.75, 6.0 / 7);     /* b, then a and b */
}

/* ROUGE-1, -2 and -L of random texts of few words by their definitions. */
static void definitions(void) {
    Rng rng = rng_stream(1, 2, 3);
    int bad = 0;
    for (int k = 0; k < 2000; k++) {
        char text[2][64] = { "", "" };
        int word[2][12], n[2], used[12] = { 0 }, hits[2] = { 0, 0 }, t[13][13] = { { 0 } };
        Rouge r[ROUGE_KINDS];
        for (int s = 0; s < 2; s++) {
            n[s] = (int)rng_below(&rng, 13);
            for (int i = 0; i < n[s]; i++) {
                word[s][i] = (int)rng_below(&rng, 4);
                sprintf(text[s] + strlen(text[s]), "%cx%s", 'a' + word[s][i],
                        rng_below(&rng, 2) ? " " : "., ");
            }
        }
        for (int g = 1; g <= 2; g++) {
            memset(used, 0, sizeof used);
            for (int i = 0; i + g <= n[0]; i++)
                for (int j = 0; j + g <= n[1]; j++)
                    if (!used[j] && word[0][i] == word[1][j] && (g < 2 || word[0][i + 1] == word[1][j + 1])) {
                        used[j] = 1;
                        hits[g - 1]++;
                        break;
                    }
        }
        for (int i = 1; i <= n[0]; i++)
            for (int j = 1; j <= n[1]; j++)
                t[i][j] = word[0][i - 1] == word[1][j - 1] ? t[i - 1][j - 1] + 1
                        : t[i - 1][j] > t[i][j - 1] ? t[i - 1][j] : t[i][j - 1];
        if (rouge_score(r, text[0], strlen(text[0]), text[1], strlen(text[1]), &pool)) bad++;
        for (int kind = 0; kind < 3; kind++) {
            const int hit = kind == ROUGE_L ? t[n[0]][n[1]] : hits[kind], less = kind == ROUGE_2;
            const double recall = n[0] > less ? (double)hit / (n[0] - less) : 0;
            const double precision = n[1] > less ? (double)hit / (n[1] - less) : 0;
            bad += fabs(r[kind].recall - recall) > 1e-12 || fabs(r[kind].precision - precision) > 1e-12;
        }
        /* one sentence each: Lsum is L */
        bad += fabs(r[ROUGE_LSUM].f - r[ROUGE_L].f) > 1e-12;
    }
    CHECK(!bad, "random texts: %d scores are wrong", bad);
}

int main(void) {
    pool = test_pool();
    published();
    by_hand();
    definitions();
    pool_free(&pool);
    return test_end("rouge");
}
