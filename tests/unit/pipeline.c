/* tests/unit/pipeline.c - the normalizers and pre_tokenizers of tokenizer.json (text/steps.c, text/cut.c):
 * what they make of a text, against the answers of Hugging Face's tokenizers 0.23. */
#include "test.h"
#include "text/text.h"

static Tokenizer *empty(Pool *pool) {
    Tokenizer *t = new_tokenizer(&pipeline_characters_kind, pool);
    pipeline_model(t, &pipeline_characters_kind);
    return t;
}

/* What is in it: decomposed and composed letters, Hangul, compatible characters, marks in the wrong order,
 * Bengali vowels, an excluded composition, an unassigned character, controls. */
#define MIXED \
    "a\xcc\xa3\xcc\x87" "e\xcc\x81 \xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8\xea\xb0\x80\xe1\x86\xa8 \xef" \
    "\xac\x81\xe2\x85\xa7\xc2\xbd \xc3\x85\xe2\x84\xab\xe2\x84\xa6 \xc4\xb0\xc3\x9f \xe3\x81\x8b\xe3" \
    "\x82\x99 \xef\xbc\xa1 \xe0\xa7\x87\xe0\xa6\xbe \xcd\x84 \xe0\xa5\x98 \xc7\x84 \xcd\xb9\xd8\x9d\x01" \
    "\xc2\xad x"

static const struct { const char *json, *text, *wanted; } steps[] = {
    { "{\"type\":\"NFC\"}",
      MIXED,
      "\xe1\xba\xa1\xcc\x87\xc3\xa9 \xea\xb0\x81\xea\xb0\x81 \xef\xac\x81\xe2\x85\xa7\xc2\xbd \xc3\x85"
      "\xc3\x85\xce\xa9 \xc4\xb0\xc3\x9f \xe3\x81\x8c \xef\xbc\xa1 \xe0\xa7\x8b \xcc\x88\xcc\x81 \xe0"
      "\xa4\x95\xe0\xa4\xbc \xc7\x84 \xcd\xb9\xd8\x9d\x01\xc2\xad x" },
    { "{\"type\":\"NFD\"}",
      MIXED,
      "a\xcc\xa3\xcc\x87" "e\xcc\x81 \xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8\xe1\x84\x80\xe1\x85\xa1\xe1"
      "\x86\xa8 \xef\xac\x81\xe2\x85\xa7\xc2\xbd A\xcc\x8a" "A\xcc\x8a\xce\xa9 I\xcc\x87\xc3\x9f \xe3"
      "\x81\x8b\xe3\x82\x99 \xef\xbc\xa1 \xe0\xa7\x87\xe0\xa6\xbe \xcc\x88\xcc\x81 \xe0\xa4\x95\xe0\xa4"
      "\xbc \xc7\x84 \xcd\xb9\xd8\x9d\x01\xc2\xad x" },
    { "{\"type\":\"NFKC\"}",
      MIXED,
      "\xe1\xba\xa1\xcc\x87\xc3\xa9 \xea\xb0\x81\xea\xb0\x81 fiVIII1\xe2\x81\x84" "2 \xc3\x85\xc3\x85"
      "\xce\xa9 \xc4\xb0\xc3\x9f \xe3\x81\x8c A \xe0\xa7\x8b \xcc\x88\xcc\x81 \xe0\xa4\x95\xe0\xa4\xbc "
      "D\xc5\xbd \xcd\xb9\xd8\x9d\x01\xc2\xad x" },
    { "{\"type\":\"NFKD\"}",
      MIXED,
      "a\xcc\xa3\xcc\x87" "e\xcc\x81 \xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8\xe1\x84\x80\xe1\x85\xa1\xe1"
      "\x86\xa8 fiVIII1\xe2\x81\x84" "2 A\xcc\x8a" "A\xcc\x8a\xce\xa9 I\xcc\x87\xc3\x9f \xe3\x81\x8b"
      "\xe3\x82\x99 A \xe0\xa7\x87\xe0\xa6\xbe \xcc\x88\xcc\x81 \xe0\xa4\x95\xe0\xa4\xbc DZ\xcc\x8c "
      "\xcd\xb9\xd8\x9d\x01\xc2\xad x" },
    { "{\"type\":\"Nmt\"}",
      MIXED,
      "a\xcc\xa3\xcc\x87" "e\xcc\x81 \xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8\xea\xb0\x80\xe1\x86\xa8 \xef"
      "\xac\x81\xe2\x85\xa7\xc2\xbd \xc3\x85\xe2\x84\xab\xe2\x84\xa6 \xc4\xb0\xc3\x9f \xe3\x81\x8b\xe3"
      "\x82\x99 \xef\xbc\xa1 \xe0\xa7\x87\xe0\xa6\xbe \xcd\x84 \xe0\xa5\x98 \xc7\x84 \xcd\xb9\xd8\x9d"
      "\xc2\xad x" },
    { "{\"type\":\"Lowercase\"}",
      MIXED,
      "a\xcc\xa3\xcc\x87" "e\xcc\x81 \xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8\xea\xb0\x80\xe1\x86\xa8 \xef"
      "\xac\x81\xe2\x85\xb7\xc2\xbd \xc3\xa5\xc3\xa5\xcf\x89 i\xcc\x87\xc3\x9f \xe3\x81\x8b\xe3\x82\x99"
      " \xef\xbd\x81 \xe0\xa7\x87\xe0\xa6\xbe \xcd\x84 \xe0\xa5\x98 \xc7\x86 \xcd\xb9\xd8\x9d\x01\xc2"
      "\xad x" },
    { "{\"type\":\"StripAccents\"}",
      MIXED,
      "ae \xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8\xea\xb0\x80\xe1\x86\xa8 \xef\xac\x81\xe2\x85\xa7\xc2\xbd"
      " \xc3\x85\xe2\x84\xab\xe2\x84\xa6 \xc4\xb0\xc3\x9f \xe3\x81\x8b \xef\xbc\xa1   \xe0\xa5\x98 \xc7"
      "\x84 \xcd\xb9\xd8\x9d\x01\xc2\xad x" },
    { "{\"type\":\"BertNormalizer\",\"clean_text\":true,\"handle_chinese_chars\":true,\"strip_accents\""
      ":null,\"lowercase\":true}",
      MIXED,
      "ae \xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8 \xef\xac\x81\xe2\x85"
      "\xb7\xc2\xbd aa\xcf\x89 i\xc3\x9f \xe3\x81\x8b \xef\xbd\x81 \xe0\xa7\x87\xe0\xa6\xbe  \xe0\xa4"
      "\x95 \xc7\x86 \xcd\xb9\xd8\x9d x" },
    { "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"\\\\s+$\"},\"content\":\"!\"}",
      "a  \nb  ",
      "a!\nb!" },
    { "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" {2,}\"},\"content\":\" \"}",
      "  a   b c",
      " a b c" },
    { "{\"type\":\"Replace\",\"pattern\":{\"String\":\"a.\"},\"content\":\"\"}", "a.aa.ab", "aab" },
    { "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":"
      "false},{\"type\":\"Prepend\",\"prepend\":\"_\"}]}",
      " a ",
      "_a " },
    { "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFD\"},{\"type\":\"StripAccents\"},{\"type\""
      ":\"Lowercase\"}]}",
      "\xc3\x89T\xc3\x89 \xe1\xba\x9b\xcc\xa3",
      "ete \xc5\xbf" },
    { "{\"type\":\"Nmt\"}", "a\xe2\x80\x8b" "b\tc\x07" "d\xe2\x96\x81", "a b cd " },
    { "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFD"
      "\"},{\"type\":\"StripAccents\"}]},{\"type\":\"Lowercase\"}]}",
      "\xc3\x89" "A",
      "ea" }
};

static void test_steps(void) {
    size_t i;
    for (i = 0; i < sizeof steps / sizeof *steps; i++) {
        Pool pool = test_pool();
        Error err = { 0, "", "", 0, 0, NULL };
        Tokenizer *t = empty(&pool);
        const Json *j = json_parse(steps[i].json, strlen(steps[i].json), &pool, &err);
        Text s = { steps[i].text, strlen(steps[i].text) };
        Origin *none = NULL;
        int lost, code = load_steps(t, j, &pool, &err);
        if (!code) code = run_steps(t, &s, &none, &lost, &pool);
        CHECK(!code && s.length == strlen(steps[i].wanted) && !memcmp(s.text, steps[i].wanted, s.length),
              "%s: %.*s (%s)", steps[i].json, (int)s.length, s.text, err.what);
        pool_free(&pool);
    }
}

static const struct { const char *json, *wanted; } cuts[] = {
    { "{\"type\":\"CharDelimiterSplit\",\"delimiter\":\".\"}",
      " Hey  y\xc3\xb6u12, a|b_c!?\n -x-- \xc3\xa9\xd8\x9d" },
    { "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\""
      "WhitespaceSplit\"},{\"type\":\"Digits\",\"individual_digits\":true}]},{\"type\":\"Punctuation\"}"
      "]}",
      "Hey|y\xc3\xb6u|1|2|,|a|.|b|_|c|!|?|-|x|-|-|\xc3\xa9\xd8\x9d" },
    { "{\"type\":\"Whitespace\"}", "Hey|y\xc3\xb6u12|,|a|.|b_c|!?|-|x|--|\xc3\xa9|\xd8\x9d" },
    { "{\"type\":\"WhitespaceSplit\"}", "Hey|y\xc3\xb6u12,|a.b_c!?|-x--|\xc3\xa9\xd8\x9d" },
    { "{\"type\":\"BertPreTokenizer\"}", "Hey|y\xc3\xb6u12|,|a|.|b|_|c|!|?|-|x|-|-|\xc3\xa9\xd8\x9d" },
    { "{\"type\":\"Digits\",\"individual_digits\":false}",
      " Hey  y\xc3\xb6u|12|, a.b_c!?\n -x-- \xc3\xa9\xd8\x9d" },
    { "{\"type\":\"Digits\",\"individual_digits\":true}",
      " Hey  y\xc3\xb6u|1|2|, a.b_c!?\n -x-- \xc3\xa9\xd8\x9d" },
    { "{\"type\":\"Punctuation\"}",
      " Hey  y\xc3\xb6u12|,| a|.|b|_|c|!|?|\n |-|x|-|-| \xc3\xa9\xd8\x9d" },
    { "{\"type\":\"Punctuation\",\"behavior\":\"Removed\"}",
      " Hey  y\xc3\xb6u12| a|b|c|\n |x| \xc3\xa9\xd8\x9d" },
    { "{\"type\":\"Punctuation\",\"behavior\":\"MergedWithPrevious\"}",
      " Hey  y\xc3\xb6u12,| a.|b_|c!|?|\n -|x-|-| \xc3\xa9\xd8\x9d" },
    { "{\"type\":\"Punctuation\",\"behavior\":\"MergedWithNext\"}",
      " Hey  y\xc3\xb6u12|, a|.b|_c|!|?\n |-x|-|- \xc3\xa9\xd8\x9d" },
    { "{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"}",
      " Hey  y\xc3\xb6u12|,| a|.|b|_|c|!?|\n |-|x|--| \xc3\xa9\xd8\x9d" },
    { "{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\",\"prepend_scheme\":\"always\",\"split\""
      ":true}",
      "\xe2\x96\x81Hey|\xe2\x96\x81|\xe2\x96\x81y\xc3\xb6u12,|\xe2\x96\x81" "a.b_c!?\n|\xe2\x96\x81-x--"
      "|\xe2\x96\x81\xc3\xa9\xd8\x9d" },
    { "{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\",\"prepend_scheme\":\"never\",\"split\":"
      "false}",
      "\xe2\x96\x81Hey\xe2\x96\x81\xe2\x96\x81y\xc3\xb6u12,\xe2\x96\x81" "a.b_c!?\n\xe2\x96\x81-x--\xe2"
      "\x96\x81\xc3\xa9\xd8\x9d" },
    { "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"first\",\"split\":true}",
      "_Hey|_|_y\xc3\xb6u12,|_a.b|_c!?\n|_-x--|_\xc3\xa9\xd8\x9d" },
    { "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"-|[aeiou]\"},\"behavior\":\"Removed\",\"invert\":fa"
      "lse}",
      " H|y  y\xc3\xb6|12, |.b_c!?\n |x| \xc3\xa9\xd8\x9d" },
    { "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"-|[aeiou]\"},\"behavior\":\"Removed\",\"invert\":tr"
      "ue}",
      "e|u|a|-|-|-" },
    { "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"-|[aeiou]\"},\"behavior\":\"Isolated\",\"invert\":f"
      "alse}",
      " H|e|y  y\xc3\xb6|u|12, |a|.b_c!?\n |-|x|-|-| \xc3\xa9\xd8\x9d" },
    { "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"-|[aeiou]\"},\"behavior\":\"Isolated\",\"invert\":t"
      "rue}",
      " H|e|y  y\xc3\xb6|u|12, |a|.b_c!?\n |-|x|-|-| \xc3\xa9\xd8\x9d" },
    { "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"-|[aeiou]\"},\"behavior\":\"MergedWithPrevious\",\""
      "invert\":false}",
      " He|y  y\xc3\xb6u|12, a|.b_c!?\n -|x-|-| \xc3\xa9\xd8\x9d" },
    { "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"-|[aeiou]\"},\"behavior\":\"MergedWithPrevious\",\""
      "invert\":true}",
      " H|ey  y\xc3\xb6|u12, |a.b_c!?\n |-x|-|- \xc3\xa9\xd8\x9d" },
    { "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"-|[aeiou]\"},\"behavior\":\"MergedWithNext\",\"inve"
      "rt\":false}",
      " H|ey  y\xc3\xb6|u12, |a.b_c!?\n |-x|-|- \xc3\xa9\xd8\x9d" },
    { "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"-|[aeiou]\"},\"behavior\":\"MergedWithNext\",\"inve"
      "rt\":true}",
      " He|y  y\xc3\xb6u|12, a|.b_c!?\n -|x-|-| \xc3\xa9\xd8\x9d" },
    { "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"-|[aeiou]\"},\"behavior\":\"Contiguous\",\"invert\""
      ":false}",
      " H|e|y  y\xc3\xb6|u|12, |a|.b_c!?\n |-|x|--| \xc3\xa9\xd8\x9d" },
    { "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"-|[aeiou]\"},\"behavior\":\"Contiguous\",\"invert\""
      ":true}",
      " H|e|y  y\xc3\xb6|u|12, |a|.b_c!?\n |-|x|--| \xc3\xa9\xd8\x9d" },
    { "{\"type\":\"Split\",\"pattern\":{\"String\":\".\"},\"behavior\":\"Isolated\",\"invert\":false}",
      " Hey  y\xc3\xb6u12, a|.|b_c!?\n -x-- \xc3\xa9\xd8\x9d" },
    { "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"x*\"},\"behavior\":\"Isolated\",\"invert\":false}",
      " |H|e|y| | |y|\xc3\xb6|u|1|2|,| |a|.|b|_|c|!|?|\n| |-|x|-|-| |\xc3\xa9|\xd8\x9d" },
    { "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\b\"},\"behavior\":\"MergedWithPrevious\",\"inve"
      "rt\":false}",
      " |Hey|  |y\xc3\xb6u12|, |a|.|b_c|!?\n -|x|-- |\xc3\xa9|\xd8\x9d" },
    { "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"WhitespaceSplit\"},{\"type\":\"Metaspace\""
      ",\"replacement\":\"\xe2\x96\x81\",\"prepend_scheme\":\"always\",\"split\":true}]}",
      "\xe2\x96\x81Hey|\xe2\x96\x81y\xc3\xb6u12,|\xe2\x96\x81" "a.b_c!?|\xe2\x96\x81-x--|\xe2\x96\x81"
      "\xc3\xa9\xd8\x9d" },
    { "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"WhitespaceSplit\"},{\"type\":\"Metaspace\""
      ",\"replacement\":\"\xe2\x96\x81\",\"prepend_scheme\":\"first\",\"split\":true},{\"type\":\"Digit"
      "s\",\"individual_digits\":true}]}",
      "Hey|y\xc3\xb6u|1|2|,|a.b_c!?|-x--|\xc3\xa9\xd8\x9d" }
};

static void test_cuts(void) {
    static const char text[] = " Hey  y\xc3\xb6u12, a.b_c!?\n -x-- \xc3\xa9\xd8\x9d";
    size_t i, k;
    for (i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        Pool pool = test_pool();
        Error err = { 0, "", "", 0, 0, NULL };
        Tokenizer *t = empty(&pool);
        const Json *j = json_parse(cuts[i].json, strlen(cuts[i].json), &pool, &err);
        Text s = { text, sizeof text - 1 };
        Words w = { s, NULL, NULL, 0, 1 };
        Buffer b = { NULL, NULL, 0, 0, 0 };
        int code = load_cuts(t, j, &pool, &err);
        b.pool = &pool;
        if (!code) code = cut_text(&t->pipeline, &w, &pool);
        for (k = 0; k < w.words && !code; k++) {
            if (k) buffer_text(&b, "|");
            buffer_bytes(&b, w.text.text + w.word[k].from, w.word[k].to - w.word[k].from);
        }
        CHECK(!code && b.length == strlen(cuts[i].wanted) && !memcmp(b.data, cuts[i].wanted, b.length),
              "%s: %.*s (%s)", cuts[i].json, (int)b.length, (const char *)b.data, err.what);
        CHECK(code || w.text.length <= cut_bound(&t->pipeline, s), "%s: the bound", cuts[i].json);
        pool_free(&pool);
    }
}

/* More marks on one letter than fit into a part: all stay, and the text stays valid. */
static void test_marks(void) {
    Pool pool = test_pool();
    Tokenizer *t = empty(&pool);
    static const char json[] = "{\"type\": \"NFC\"}";
    Buffer b = { NULL, NULL, 0, 0, 0 };
    Text s;
    Origin *none = NULL;
    int i, lost, code = load_steps(t, json_parse(json, sizeof json - 1, &pool, NULL), &pool, NULL);
    b.pool = &pool;
    buffer_text(&b, "e");
    for (i = 0; i < 1000; i++) buffer_text(&b, i % 2 ? "\xcc\x81" : "\xcc\xa3");
    s.text = (const char *)b.data;
    s.length = b.length;
    CHECK(!code && !run_steps(t, &s, &none, &lost, &pool) && s.length == 2001 &&
          !memcmp(s.text, "\xe1\xba\xb9", 3), "1000 marks on a letter");
    pool_free(&pool);
}

int main(void) {
    test_steps();
    test_cuts();
    test_marks();
    return test_end("pipeline");
}
