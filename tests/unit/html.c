/* html.c - the text of pieces of HTML: references, tags, comments, and what only looks like them.
 * And texts as HTML. programs/prep.sh compares all names of characters with Python's. */
#include "test.h"
#include "../programs.h"

static Pool pool;

/* Checks that the text of a piece of HTML is `wanted`. */
static void text_is(const char *html, const char *wanted) {
    const char *text;
    size_t n;
    const int code = html_text(html, strlen(html), &pool, &text, &n);
    CHECK(code == OK && n == strlen(wanted) && !memcmp(text, wanted, n), "%s: got '%.*s', wanted '%s'", html,
          (int)n, text, wanted);
}

static void test_references(void) {
    text_is("caf&eacute; &mdash; &hearts; &Eacute;", "caf\xC3\xA9 \xE2\x80\x94 \xE2\x99\xA5 \xC3\x89");
    text_is("&lt;b&gt; &amp;amp; &quot;&apos;", "<b> &amp; \"'");      /* one pass: the results are text */
    text_is("1990&#150;99 &#x80;", "1990\xE2\x80\x93" "99 \xE2\x82\xAC");       /* Windows-1252 */
    text_is("&#129;&#39;&#x27;&#X1F600;", "\xC2\x81''\xF0\x9F\x98\x80");
    text_is("&#0;&#xD800;&#x110000;&#99999999999999999999;",
            "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
    text_is("&copy2024 &notit; &notin; &AMP &#65B", "\xC2\xA9" "2024 \xC2\xACit; \xE2\x88\x89 & AB");
    text_is("&nGt;", "\xE2\x89\xAB\xE2\x83\x92");         /* two characters */
    text_is("a&nbsp;&nbsp;b&#160;c", "a b c");
    text_is("AT&T & Co, &unknown; &; &# &#x &#xg; &hearts", "AT&T & Co, &unknown; &; &# &#x &#xg; &hearts");
    text_is("&", "&");
    text_is("&eacut", "&eacut");
}

static void test_markup(void) {
    text_is("one<br /><br/>two<BR>three", "one two three");
    text_is("<p>one</p><p>two</p><ul><li>a</li><li>b</li></ul>", "one two a b");
    text_is("an <i>ita</i>lic w<b>o</b>rd", "an italic word");
    text_is("<a title=\"1 > 0\" href='?a>b'>link</a>!", "link!");
    text_is("<i don't>it</i>", "it");               /* no quote: it does not come after a = */
    text_is("a<!-- > <b> -- -->b<!-->c<!--->d<!-- x --!>e", "abcde");
    text_is("<!DOCTYPE html><?xml version='1.0'?><![endif]>t", "t");
    text_is("a<script>if (1 < 2) x = '<b>';</script>b<style>p { }</STYLE>c", "abc");
    text_is("  a   b  ", "a b");
    text_is("", "");
}

static void test_not_markup(void) {
    text_is("I <3 it, 1 < 2 > 0, <- <> </3> <!> a<b", "I <3 it, 1 < 2 > 0, <- <> </3> <!> a<b");
    text_is("x <y and <i>z</i>", "x <y and z");
    text_is("a <!-- no end <b>c</b>", "a <!-- no end c");
    text_is("a <script>no end", "a no end");
    text_is("<a href=\"no end>b", "<a href=\"no end>b");
    text_is("na\xC3\xAFve <\xC3\xA9>", "na\xC3\xAFve <\xC3\xA9>");
}

/* A long tag is a tag; and a text of many openings is read in a time that grows with its length. */
static void test_long(void) {
    static char html[1 << 20];
    static const char *const piece[] = { "<!--", "<script>", "<a b='", "&#", "<a \" x=\"" };
    const char *text;
    size_t n;
    memset(html, 'x', 1000);
    memcpy(html, "<a ", 3);
    memcpy(html + 999, ">b", 3);
    text_is(html, "b");
    for (size_t k = 0; k < sizeof piece / sizeof *piece; k++) {
        const size_t length = strlen(piece[k]);
        const double begun = wall_clock();
        for (size_t i = 0; i < sizeof html; i++) html[i] = piece[k][i % length];
        CHECK(html_text(html, sizeof html, &pool, &text, &n) == OK && wall_clock() - begun < 20,
              "1 MB of %s: %.1f s", piece[k], wall_clock() - begun);
    }
}

/* Checks what a text of n bytes is as HTML. */
static void html_is(const char *text, size_t n, const char *wanted) {
    Buffer b = { 0 };
    b.pool = &pool;
    html_put(&b, text, n);
    buffer_u8(&b, 0);
    CHECK(!b.failed && !strcmp((const char *)b.data, wanted), "as HTML: got '%s', wanted '%s'",
          (const char *)b.data, wanted);
}

/* Whatever a text holds, it stays text, and what cannot be seen is shown. */
static void test_put(void) {
    html_is("<script>alert(\"1\" & '2')</script>", 33,
            "&lt;script&gt;alert(&quot;1&quot; &amp; &#39;2&#39;)&lt;/script&gt;");
    html_is("a\r\nb\tc\rd", 8, "a\nb\tc\\x0Dd");
    html_is("\0\x1B[31m\x7F", 7, "\\x00\\x1B[31m\\x7F");
    html_is("\xC2\x85\xE2\x80\xAE\xE2\x81\xA6\xE2\x80\xA8\xD8\x9C\xEF\xBF\xBF", 16,
            "\\xC2\\x85\\xE2\\x80\\xAE\\xE2\\x81\\xA6\\xE2\\x80\\xA8\\xD8\\x9C\\xEF\\xBF\\xBF");
    html_is("\xE9t\xC3\xA9 \xE2\x82", 7, "\\xE9t\xC3\xA9 \\xE2\\x82");          /* malformed, and cut off */
    html_is("\xD7\xA9\xD7\x9C \xF0\x9F\x98\x80", 9, "\xD7\xA9\xD7\x9C \xF0\x9F\x98\x80");
}

static void test_memory(void) {
    Pool none = { 0 };
    const char *text;
    size_t n;
    CHECK(html_text("ab", 2, &none, &text, &n) == E_MEMORY, "no memory");
}

int main(void) {
    pool = test_pool();
    test_references();
    test_markup();
    test_not_markup();
    test_long();
    test_put();
    test_memory();
    pool_free(&pool);
    return test_end("html");
}
