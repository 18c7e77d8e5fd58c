/* tests/unit/regex.c - regular expressions (text/regex.c): what they match, against Oniguruma's answers
 * (computed with Hugging Face's tokenizers 0.23), what is refused, and that no pattern takes long. */
#include "test.h"
#include "text/text.h"
#include <time.h>

static Text text_of(const char *s) { Text t; t.text = s; t.length = strlen(s); return t; }

/* Compares all matches that are not empty with `wanted`, in which "|" is between two of them. */
static int matches(const Regex *r, Text s, const char *wanted) {
    size_t at = 0, from, to, k = 0, length;
    int32_t code;
    while (at <= s.length && regex_find(r, s, at, &from, &to)) {
        at = to;
        if (to == from && from == s.length) break;
        if (to == from) { at += (size_t)utf8_decode(s.text + at, s.length - at, &code); continue; }
        if (k && wanted[k++] != '|') return 0;
        length = to - from;
        if (strncmp(wanted + k, s.text + from, length)) return 0;
        k += length;
    }
    return !wanted[k];
}

static const struct { const char *pattern, *text, *wanted; } found[] = {
    { "\\p{N}{1,3}(?=(?:\\p{N}{3})*(?:\\P{N}|$))", "1234567 12 x1234", "1|234|567|12|1|234" },
    { "\\d(?=(?:\\d{3})+(?!\\d))", "1234567 12 x1234", "1|4|1" },
    { "a(?=bc)|b(?!bc|$)", "abc abd abbc b", "a|b|b|b" }, { "a(?i:(?=b*c)).", "abd aBc abbC", "aB|ab" },
    { "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|"
      "'t|'re|'ve|'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm"
      "}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|"
      "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
      "I'M he'\xc5\xbft  x'll DON'T stop123456,\tna\xc3\xafve \xc3\x89\xe6\xbc\xa2\xe5\xad\x97kana "
      "\xe3\x81\x8b\xe3\x81\xaa!?\n\n  end.\r\n $5\xc2\xbd a/b\n  ",
      "I'M| he'\xc5\xbf|t| | x'll| DON'T| stop|123|456|,|\tna\xc3\xafve| \xc3\x89\xe6\xbc\xa2\xe5\xad"
      "\x97kana| \xe3\x81\x8b\xe3\x81\xaa|!?\n\n| | end|.\r\n| $|5\xc2\xbd| a|/b|\n|  " },
    { "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
      "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
      "I'M he'\xc5\xbft  x'll DON'T stop123456,\tna\xc3\xafve \xc3\x89\xe6\xbc\xa2\xe5\xad\x97kana "
      "\xe3\x81\x8b\xe3\x81\xaa!?\n\n  end.\r\n $5\xc2\xbd a/b\n  ",
      "I|'M| he|'\xc5\xbf|t| | x|'ll| DON|'T| stop|1|2|3|4|5|6|,|\tna\xc3\xafve| "
      "\xc3\x89\xe6\xbc\xa2\xe5\xad\x97kana| \xe3\x81\x8b\xe3\x81\xaa|!?\n\n| | end|.\r\n| $|5|"
      "\xc2\xbd| a|/b|\n|  " },
    { "\\s?[A-Za-z\xc2\xb5\xc3\x80-\xc3\x96\xc3\x98-\xc3\xb6\xc3\xb8-\xc6\xba\xc6\xbc-\xc6\xbf\xc7\x84-"
      "\xca\x93\xca\x95-\xca\xaf\xcd\xb0-\xcd\xb3\xcd\xb6\xcd\xb7\xcd\xbb-\xcd\xbd\xcd\xbf\xce\x86\xce"
      "\x88-\xce\x8a\xce\x8c\xce\x8e-\xce\xa1\xce\xa3-\xcf\xb5\xcf\xb7-\xd2\x81\xd2\x8a-\xd4\xaf\xd4"
      "\xb1-\xd5\x96]+",
      "I'M he'\xc5\xbft  x'll DON'T stop123456,\tna\xc3\xafve \xc3\x89\xe6\xbc\xa2\xe5\xad\x97kana "
      "\xe3\x81\x8b\xe3\x81\xaa!?\n\n  end.\r\n $5\xc2\xbd a/b\n  ",
      "I|M| he|\xc5\xbft| x|ll| DON|T| stop|\tna\xc3\xafve| \xc3\x89|kana| end| a|b" },
    { "\\s?[!-/:-~\xef\xbc\x81-\xef\xbc\x8f\xef\xbc\x9a-\xef\xbd\x9e\xe2\x80\x98-\xe2\x80\x9f\xe3\x80"
      "\x80-\xe3\x80\x82]+",
      "I'M he'\xc5\xbft  x'll DON'T stop123456,\tna\xc3\xafve \xc3\x89\xe6\xbc\xa2\xe5\xad\x97kana "
      "\xe3\x81\x8b\xe3\x81\xaa!?\n\n  end.\r\n $5\xc2\xbd a/b\n  ",
      "I'M| he'|t| x'll| DON'T| stop|,|\tna|ve|kana|!?| end.| $| a/b" },
    { "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
      "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
      "I'M he'\xc5\xbft  x'll DON'T stop123456,\tna\xc3\xafve \xc3\x89\xe6\xbc\xa2\xe5\xad\x97kana "
      "\xe3\x81\x8b\xe3\x81\xaa!?\n\n  end.\r\n $5\xc2\xbd a/b\n  ",
      "I|'M| he|'\xc5\xbf|t| | x|'ll| DON|'T| stop|123|456|,|\tna\xc3\xafve| "
      "\xc3\x89\xe6\xbc\xa2\xe5\xad\x97kana| \xe3\x81\x8b\xe3\x81\xaa|!?\n\n| | end|.\r\n| $|5\xc2\xbd|"
      " a|/b|\n|  " },
    { "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
      "I'M he'\xc5\xbft  x'll DON'T stop123456,\tna\xc3\xafve \xc3\x89\xe6\xbc\xa2\xe5\xad\x97kana "
      "\xe3\x81\x8b\xe3\x81\xaa!?\n\n  end.\r\n $5\xc2\xbd a/b\n  ",
      "I|'|M| he|'|\xc5\xbft| | x|'ll| DON|'|T| stop|123456|,|\t|na\xc3\xafve| "
      "\xc3\x89\xe6\xbc\xa2\xe5\xad\x97kana| \xe3\x81\x8b\xe3\x81\xaa|!?|\n\n | end|.|\r\n| $|"
      "5\xc2\xbd| a|/|b|\n  " },
    { "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}++|\\p{N}{1,3}+| "
      "?[^\\s\\p{L}\\p{N}]++[\\r\\n]*+|\\s++$|\\s*[\\r\\n]|\\s+(?!\\S)|\\s",
      "I'M he'\xc5\xbft  x'll DON'T stop123456,\tna\xc3\xafve \xc3\x89\xe6\xbc\xa2\xe5\xad\x97kana "
      "\xe3\x81\x8b\xe3\x81\xaa!?\n\n  end.\r\n $5\xc2\xbd a/b\n  ",
      "I|'M| he|'\xc5\xbf|t| | x|'ll| DON|'T| stop|123456|,|\tna\xc3\xafve| "
      "\xc3\x89\xe6\xbc\xa2\xe5\xad\x97kana| \xe3\x81\x8b\xe3\x81\xaa|!?\n\n| | end|.\r\n| $|5\xc2\xbd|"
      " a|/b|\n  " },
    { " ?[^(\\s|[.,!?\xe2\x80\xa6\xe3\x80\x82\xef\xbc\x8c\xe3\x80\x81\xe0\xa5\xa4\xdb\x94\xd8\x8c])]+",
      "I'M he'\xc5\xbft  x'll DON'T stop123456,\tna\xc3\xafve \xc3\x89\xe6\xbc\xa2\xe5\xad\x97kana "
      "\xe3\x81\x8b\xe3\x81\xaa!?\n\n  end.\r\n $5\xc2\xbd a/b\n  ",
      "I'M| he'\xc5\xbft| x'll| DON'T| stop123456|na\xc3\xafve| \xc3\x89\xe6\xbc\xa2\xe5\xad\x97kana| "
      "\xe3\x81\x8b\xe3\x81\xaa| end| $5\xc2\xbd| a/b" },
    { "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]"
      "+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
      "I'M he'\xc5\xbft  x'll DON'T stop123456,\tna\xc3\xafve \xc3\x89\xe6\xbc\xa2\xe5\xad\x97kana "
      "\xe3\x81\x8b\xe3\x81\xaa!?\n\n  end.\r\n $5\xc2\xbd a/b\n  ",
      "I|'M| he|'|\xc5\xbft| | x|'ll| DON|'T| stop|,|\tna\xc3\xafve| \xc3\x89\xe6\xbc\xa2\xe5\xad\x97ka"
      "na| \xe3\x81\x8b\xe3\x81\xaa|!?\n\n| | end|.\r\n| $| a|/b|\n|  " },
    { "[\\p{Han}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]*[\\p{Ll}\\p{"
      "Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{L"
      "t}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]*(?i:'s|'t|'re|"
      "'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
      "I'M he'\xc5\xbft  x'll DON'T stop123456,\tna\xc3\xafve \xc3\x89\xe6\xbc\xa2\xe5\xad\x97kana "
      "\xe3\x81\x8b\xe3\x81\xaa!?\n\n  end.\r\n $5\xc2\xbd a/b\n  ",
      "I'M| he'\xc5\xbf|t| | x'll| DON'T| stop|123|456|,|\tna\xc3\xafve| \xc3\x89|"
      "\xe6\xbc\xa2\xe5\xad\x97|kana| \xe3\x81\x8b\xe3\x81\xaa|!?\n\n| | end|.\r\n| $|5\xc2\xbd| a|/b|"
      "\n|  " },
    { "a*", "baac", "aa" },
    { "a*?", "baac", "" },
    { "(?:a|ab)(?:c|bcd)", "abcd", "abcd" },
    { "a|ab", "abab", "a|a" },
    { "a{1,3}?", "aaaa", "a|a|a|a" },
    { "a{,2}", "aaaaa", "aa|aa|a" },
    { "a{2}?", "aaaaa", "aa|aa" },
    { "a{1,2}+", "aaaaa", "aaaaa" },
    { "{a{x}", "{a{x}", "{a{x}" },
    { "\\s+$", "a  \nb  ", "  |  " },
    { "^a", "aa\naa", "a|a" },
    { "a$", "a\na\r\na", "a|a" },
    { ".+", "ab\ncd\r\ne", "ab|cd\r|e" },
    { "(?m:.+)", "a\nb", "a\nb" },
    { "\\N+", "a\r\nb", "a\r|b" },
    { "a\\z", "a\na", "a" },
    { "\\Aa", "aa", "a" },
    { "\\bab", "ab cab \xc2\xb2" "ab", "ab" },
    { "a\\B", "ab a", "a" },
    { "\\w+", "a_1\xc2\xb2\xc2\xbd \xe2\x92\xb6\xe2\x80\x8d", "a_1\xc2\xb2\xc2\xbd|\xe2\x92\xb6" },
    { "[\\w]+", "a_1\xc2\xb2\xc2\xbd \xe2\x92\xb6", "a_1|\xe2\x92\xb6" },
    { "\\h+", "0fAg", "0fA" },
    { "(?i:k[a-c])", "KA\xe2\x84\xaa" "b", "KA|\xe2\x84\xaa" "b" },
    { "(?i:[^k])", "kK\xe2\x84\xaa" "a", "a" },
    { "(?i:\\p{Lu}+)", "aBc", "B" },
    { "(?i:[\\p{Lu}]+)", "aBc1", "aBc" },
    { "(?i:\xcf\x83)", "\xce\xa3\xcf\x83\xcf\x82", "\xce\xa3|\xcf\x83|\xcf\x82" },
    { "a(?i)b|c", "aB C c", "aB" },
    { "(?i)a(?-i)b", "AB Ab", "Ab" },
    { "(?x: a b # c\n )c", "abc", "abc" },
    { "a(?#x)b", "ab", "ab" },
    { "(?<name>a)b", "ab", "ab" },
    { "x?+x", "xx", "xx" },
    { "a*+b", "aab aa", "aab" },
    { "(?>a+)b", "aab", "aab" },
    { "[\\p{L}&&[^\\p{Lu}]]+", "abCd", "ab|d" },
    { "[a-z&&b-y&&[^m]]+", "abcmyz", "bc|y" },
    { "[^a[^b]]+", "abcd", "b" },
    { "[]a]+", "]a[", "]a" },
    { "[a\\-z-]+", "a-zb", "a-z" },
    { "[\\d.,]+", "1,2.x", "1,2." },
    { "[[:digit:][:space:]]+", "1 2x", "1 2" },
    { "[[:^digit:]]+", "1ab2", "ab" },
    { "\\p{^L}+", "a1 b", "1 " },
    { "\\P{Lu}+", "aBc", "a|c" },
    { "\\p{ upper-case_Letter }+", "aBCd", "BC" },
    { "\\p{Han}+|\\p{hiragana}+",
      "a\xe6\xbc\xa2\xe5\xad\x97\xe3\x81\x8b\xe3\x81\xaa",
      "\xe6\xbc\xa2\xe5\xad\x97|\xe3\x81\x8b\xe3\x81\xaa" },
    { "\\x41\\x{42}\\u0043", "ABC", "ABC" },
    { "\\t\\n\\/\\-\\\xc3\xa9", "\t\n/-\xc3\xa9", "\t\n/-\xc3\xa9" },
    { "(?!\\S)", "a b", "" },
    { "a(?=\\s|$)", "a ab a", "a|a" },
    { "a(?!b|\\z)", "ab aa", "a" },
    { "(a*)*b", "aab", "aab" },
    { "(?:a?)*c", "aac", "aac" },
    { "", "ab", "" },
    { "\\$\\^\\.", "$^.", "$^." }
};

static void test_matches(void) {
    size_t i;
    for (i = 0; i < sizeof found / sizeof *found; i++) {
        Pool pool = test_pool();
        Error err = { 0, "", "", 0, 0, NULL };
        Regex r;
        int code = regex_compile(&r, text_of(found[i].pattern), &pool, &err);
        CHECK(!code && matches(&r, text_of(found[i].text), found[i].wanted), "%s (%s)", found[i].pattern,
              err.what);
        pool_free(&pool);
    }
}

static void test_refusals(void) {
    static const struct { const char *pattern; int code; const char *what, *where; } row[] = {
        { "x(a)\\1", E_UNSUPPORTED, "back reference", "\\1" },
        { "x(?<=a)b", E_UNSUPPORTED, "look-behind", "(?<=a)b" },
        { "(?<!a)b", E_UNSUPPORTED, "look-behind", "(?<!a)b" },
        { "a(?=bc(?!de)f)", E_UNSUPPORTED, "look-ahead in look-ahead", "(?!de)f" },
        { "(?=ab)(?=bc)(?!cd)(?!de)", E_UNSUPPORTED, "so many look-aheads", "(?!de)" },
        { "a(?:ab)++", E_UNSUPPORTED, "possessive group", "++" },
        { "(?>ab|a)c", E_UNSUPPORTED, "atomic group", "(?>ab|a)c" },
        { "a\\X", E_UNSUPPORTED, "this escape", "\\X" },
        { "a\\p{Klingon}b", E_UNSUPPORTED, "this class", "Klingon}b" },
        { "(?s:a)", E_UNSUPPORTED, "this kind of group", "(?s:a)" },
        { "(?:a|b)*a(?:a|b){16}", E_UNSUPPORTED, "too many states", "(?:a|b)*a" },
        { "((a{100}){100}){100}", E_UNSUPPORTED, "too long", "((a{100})" },
        { "[a", E_FORMAT, "half a class", "[a" }, { "(a", E_FORMAT, "half a group", "(a" },
        { "a)", E_FORMAT, "a bracket too many", ")" }, { "*a", E_FORMAT, "nothing to repeat", "*a" },
        { "[b-a]", E_FORMAT, "broken range", "b-a]" },
        { "\\x{110000}", E_FORMAT, "beyond Unicode", "\\x{110000}" },
        { "a\\", E_FORMAT, "ends too early", "a\\" }, { "\\p{L", E_FORMAT, "half a name", "L" },
        { "a{2,1}", E_UNSUPPORTED, "this interval", "{2,1}" }
    };
    size_t i;
    for (i = 0; i < sizeof row / sizeof *row; i++) {
        Pool pool = test_pool();
        Error err = { 0, "", "", 0, 0, NULL };
        Regex r;
        int code = regex_compile(&r, text_of(row[i].pattern), &pool, &err);
        CHECK(code == row[i].code && strstr(err.what, row[i].what) &&
              !strncmp(err.where, row[i].where, strlen(row[i].where)), "%s is refused: %s: %s",
              row[i].pattern, err.what, err.where);
        pool_free(&pool);
    }
    /* a class of 100,000 items is refused at once, not after gigabytes */
    Pool pool = test_pool();
    Error err = { 0 };
    Regex r;
    char *much = pool_take(&pool, 200003, 1);
    memset(much, 'w', 200002);
    for (i = 1; i < 200001; i += 2) much[i] = '\\';
    much[0] = '[';
    much[200001] = ']';
    CHECK(regex_compile(&r, text_of(much), &pool, &err) == E_UNSUPPORTED && strstr(err.what, "too long"),
          "a class of 100,000 items is refused: %s", err.what);
    pool_free(&pool);
}

/* A pattern that backtracking takes forever for, on 100,000 characters that it does not match. */
static void test_time(void) {
    static const char *const pattern[] = {
        "\\s+$", "(\\s|\\s)*x", "(\\s*)*x", "(?:\\s?){30}\\s{30}x", "\\s*\\s*\\s*x",
        "(?:\\s+\\s+)+x|\\s+(?!\\s|y)"
    };
    enum { N = 100000 };
    char *s = malloc(N + 1);
    size_t i, from, to;
    clock_t begin = clock();
    memset(s, ' ', N);
    s[N] = 'y';
    for (i = 0; i < sizeof pattern / sizeof *pattern; i++) {
        Pool pool = test_pool();
        Text text = { s, N + 1 };
        Regex r;
        int code = regex_compile(&r, text_of(pattern[i]), &pool, NULL);
        CHECK(!code && !regex_find(&r, text, 0, &from, &to), "%s does not match", pattern[i]);
        pool_free(&pool);
    }
    CHECK((double)(clock() - begin) / CLOCKS_PER_SEC < 5, "no pattern takes long");
    free(s);
}

/* Malformed bytes are U+FFFD; a match may begin with any of them. */
static void test_malformed(void) {
    static const char s[] = "a\xff\xe3\x81 b\xc3";
    Pool pool = test_pool();
    Text text = { s, sizeof s - 1 };
    Regex r;
    int code = regex_compile(&r, text_of("[^\\s\\p{L}]+"), &pool, NULL);
    CHECK(!code && matches(&r, text, "\xff\xe3\x81|\xc3"), "malformed bytes are symbols");
    pool_free(&pool);
}

int main(void) {
    test_matches();
    test_refusals();
    test_time();
    test_malformed();
    return test_end("regex");
}
