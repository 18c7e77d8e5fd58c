/* prep_where.c - prep data --where 'FIELD > VALUE': which rows become documents. */
#include "prep.h"

enum { LESS = 1, EQUAL = 2, GREATER = 4, UNORDERED = 8 };

static int is_space(char c) { return c == ' ' || c == '\t'; }

static Span trimmed(const char *text, size_t n) {
    Span p = { text, n };
    while (p.length && is_space(p.text[p.length - 1])) p.length--;
    while (p.length && is_space(*p.text)) { p.text++; p.length--; }
    return p;
}

void where_parse(Where *w, const char *text) {
    static const struct { const char *sign; int holds; } known[] = {
        { "<=", LESS | EQUAL }, { ">=", GREATER | EQUAL }, { "!=", LESS | GREATER | UNORDERED },
        { "<", LESS }, { ">", GREATER }, { "=", EQUAL } };
    const size_t at = strcspn(text, "<>=!");
    const Span field = trimmed(text, at);
    for (size_t k = 0; k < sizeof known / sizeof *known && !w->holds; k++) {
        const size_t n = strlen(known[k].sign);
        if (strncmp(text + at, known[k].sign, n)) continue;
        const Span value = trimmed(text + at + n, strlen(text + at + n));
        if (text[at + n] && strchr("<>=!", text[at + n])) break;     /* == or =>, say */
        w->holds = known[k].holds;
        w->value = prep_keep(value.text, value.length);
    }
    if (!w->holds || !field.length)
        usage_error("--where is FIELD < VALUE, or with <=, >, >=, = or != between them", text);
    w->field = prep_keep(field.text, field.length);
    const Json *number = json_parse(w->value, strlen(w->value), prep_pool(), NULL);
    w->numeric = number && number->type == JSON_NUMBER && number->number == number->number;
    if (w->numeric) w->number = number->number;
    else if (w->holds != EQUAL && (w->holds & EQUAL || !(w->holds & UNORDERED)))
        usage_error("--where compares with <, <=, > and >= a number only", text);
}

int where_holds(Collector *c, const Json *v, Place at) {
    const Where *w = &c->where;
    Span text = { "", 0 };
    double number = 0;
    int is_number = v->type == JSON_NUMBER, order;
    if (v->type == JSON_ARRAY || v->type == JSON_OBJECT)
        prep_stop(E_FORMAT, "--where cannot compare a list or an object", at.file, at.line, w->field,
                  "name a field in it, as in prompt.toxicity");
    if (v->type == JSON_STRING) { text.text = v->string; text.length = v->length; }
    if (v->type == JSON_TRUE || v->type == JSON_FALSE) {
        text.text = v->type == JSON_TRUE ? "true" : "false";
        text.length = strlen(text.text);
    }
    if (is_number) number = v->number;
    else if (w->numeric && text.length) {
        const Json *read = json_parse(text.text, text.length, &c->scratch, NULL);
        is_number = read && read->type == JSON_NUMBER;
        if (is_number) number = read->number;
        else if (w->holds & (LESS | GREATER) && !(w->holds & UNORDERED))
            prep_stop(E_FORMAT, "--where compares a number, and the field has none", at.file, at.line,
                      w->field, "correct the row, or choose another field");
    }
    if (w->numeric)
        order = !is_number ? UNORDERED : number < w->number ? LESS : number > w->number ? GREATER
                : number == w->number ? EQUAL : UNORDERED;
    else order = !is_number && text.length == strlen(w->value) && !memcmp(text.text, w->value, text.length)
                 ? EQUAL : UNORDERED;
    return (order & w->holds) != 0;
}
