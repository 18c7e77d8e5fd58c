/* prep_rows.c - prep data: what is done with a row of any format: its text is checked, its label is looked
 * up, its fields are chosen, and it becomes a document. */
#include "prep.h"

void *scratch(Collector *c, size_t n) { return prep_need(pool_take(&c->scratch, n, 1)); }

/* ---- text ---- */

/* Returns the text if it is valid UTF-8. Otherwise stops the program, or with --fix-utf8 returns a copy (in
 * scratch) with U+FFFD in place of each bad byte. */
Span valid_text(Collector *c, Span p, Place at) {
    Buffer out = { &c->scratch, NULL, 0, 0, 0 };
    size_t good = 0;                        /* if `out` is not empty: it holds all text before `good` */
    int32_t code;
    for (size_t i = 0; i < p.length; ) {
        int n = utf8_decode(p.text + i, p.length - i, &code);
        if (code < 0) {
            if (!c->given->fix_utf8)
                prep_stop(E_FORMAT, "invalid UTF-8", at.file, at.line, NULL,
                          "convert the file to UTF-8, or give --fix-utf8");
            buffer_bytes(&out, p.text + good, i - good);
            buffer_bytes(&out, "\xEF\xBF\xBD", 3);
            good = i + 1;
        }
        i += (size_t)n;
    }
    if (!out.length) return p;
    buffer_bytes(&out, p.text + good, p.length - good);
    if (out.failed) prep_need(NULL);
    p.text = (const char *)out.data;
    p.length = out.length;
    return p;
}

/* Returns the code of the escape \\uXXXX at s (n bytes), or -1 if there is none. */
static int32_t escaped_code(const char *s, size_t n) {
    int32_t code = 0;
    if (n < 6 || s[0] != '\\' || s[1] != 'u') return -1;
    for (int k = 2; k < 6; k++) {
        const char *digits = "0123456789abcdef0123456789ABCDEF", *found = s[k] ? strchr(digits, s[k]) : NULL;
        if (!found) return -1;
        code = code * 16 + (int32_t)((found - digits) % 16);
    }
    return code;
}

/* Does for the escapes of a line of JSON what valid_text does for its bytes: a surrogate alone, which is half
 * of a character, stops the program, or is replaced by U+FFFD. */
Span valid_escapes(Collector *c, Span line, Place at) {
    char *copy = NULL;
    for (size_t i = 0, used; i < line.length; i += used) {
        const char *s = line.text + i;
        const size_t left = line.length - i;
        const int32_t code = escaped_code(s, left), low = left > 6 ? escaped_code(s + 6, left - 6) : -1;
        used = *s == '\\' ? 2 : 1;
        if (code < 0xD800 || code > 0xDFFF) continue;
        used = code < 0xDC00 && low >= 0xDC00 && low <= 0xDFFF ? 12 : 6;
        if (used == 12) continue;
        if (!c->given->fix_utf8)
            prep_stop(E_FORMAT, "a lone surrogate (half of a character, as \\ud83d)", at.file, at.line, NULL,
                      "correct the line, or give --fix-utf8");
        if (!copy) {
            copy = scratch(c, line.length);
            memcpy(copy, line.text, line.length);
            line.text = copy;
        }
        memcpy(copy + i, "\\ufffd", 6);
    }
    return line;
}

size_t code_points(Span p) {
    size_t n = 0;
    for (size_t i = 0; i < p.length; i++) n += ((unsigned char)p.text[i] & 0xC0) != 0x80;
    return n;
}

Span clean_text(Collector *c, Span p, Place at) {
    p = valid_text(c, p, at);
    if (c->given->strip_html && html_text(p.text, p.length, &c->scratch, &p.text, &p.length)) prep_need(NULL);
    if (p.length > 0x7FFFFFFF)
        prep_stop(E_RANGE, "a text of over 2 GB", at.file, at.line, NULL, "split the text");
    return p;
}

/* ---- labels ---- */

/* Reads --labels. In "negative,positive" the values 0 and "negative" mean label 0, and so
 * on. "4=positive,0=negative" gives these values names; labels are numbered in the order in
 * which their names first occur. */
void parse_labels(Collector *c) {
    const char *s = c->given->labels;
    for (int row = 0; s && *s; row++) {
        size_t n = strcspn(s, ","), equals = 0;
        LabelValue *v = &c->value[c->values];
        char digits[16];
        int k;
        while (equals < n && s[equals] != '=') equals++;
        v->name = equals < n ? prep_keep(s + equals + 1, n - equals - 1) : prep_keep(s, n);
        if (!v->name[0] || !equals)
            usage_error("--labels is a list of NAME or VALUE=NAME, separated by commas", c->given->labels);
        for (k = 0; k < c->data.labels && strcmp(c->name[k], v->name); k++) {}
        if (k == LABELS_MAX || c->values + 2 > 2 * LABELS_MAX)
            usage_error("--labels has more than 32 names", c->given->labels);
        if (k == c->data.labels) c->name[c->data.labels++] = prep_keep(v->name, strlen(v->name));
        v->label = k;
        v->value = prep_keep(s, equals);
        c->values++;
        if (equals == n) {                  /* a bare name also stands for its number */
            v[1] = v[0];
            name_format(digits, sizeof digits, "%d", row);
            v[1].value = prep_keep(digits, strlen(digits));
            c->values++;
        }
        s += n + (s[n] == ',');
    }
}

static const char other_field[] = "choose another field with --label, or none with --no-label";

int label_of(Collector *c, Span raw, Place at) {
    if (!raw.length) return -1;
    for (int k = 0; k < c->values; k++)
        if (strlen(c->value[k].value) == raw.length && !memcmp(c->value[k].value, raw.text, raw.length))
            return c->value[k].label;
    if (c->given->labels) {
        char what[160] = "--labels does not name this value: ";
        size_t n = strlen(what), room = sizeof what - n - 1;
        memcpy(what + n, raw.text, raw.length < room ? raw.length : room);
        prep_stop(E_FORMAT, what, at.file, at.line, c->label,
                  "name every value, as in --labels 0=negative,1=positive");
    }
    if (c->data.labels == LABELS_MAX)
        prep_stop(E_UNSUPPORTED, "more than 32 different labels", at.file, at.line, c->label, other_field);
    if (raw.length > 47)
        prep_stop(E_FORMAT, "a label longer than 47 bytes", at.file, at.line, c->label, other_field);
    c->name[c->data.labels] = prep_keep(raw.text, raw.length);
    c->value[c->values].value = c->value[c->values].name = c->name[c->data.labels];
    c->value[c->values++].label = c->data.labels;
    return c->data.labels++;
}

int probability_of(const Collector *c, const Json *value, Place at) {
    if (!value || value->type == JSON_NULL) return -1;
    if (value->type != JSON_NUMBER || !(value->number >= 0 && value->number <= 1))
        prep_stop(E_FORMAT, "the probability that the first text is better is not a number from 0 to 1",
                  at.file, at.line, c->label, other_field);
    return (int)floor(value->number * PAIR_CERTAIN + 0.5);
}

/* Returns 1 if a comes before b in sorted order: numbers by value, other texts by their bytes. */
static int before(const char *a, const char *b) {
    size_t n = strlen(a), m = strlen(b);
    int numbers = strspn(a, "0123456789") == n && strspn(b, "0123456789") == m;
    return numbers && n != m ? n < m : strcmp(a, b) < 0;
}

/* Sorts the labels that were found in the data, so that their numbers do not depend
 * on the order of the rows. */
void sort_labels(Collector *c) {
    int place[LABELS_MAX], L = c->data.labels;
    char *name[LABELS_MAX];
    if (c->given->labels || c->data.kind == DATA_PAIRS) return;
    for (int k = 0; k < L; k++) {
        place[k] = 0;
        for (int j = 0; j < L; j++) place[k] += before(c->name[j], c->name[k]);
        name[place[k]] = c->name[k];
    }
    for (int k = 0; k < L; k++) c->name[k] = name[k];
    for (uint64_t i = 0; i < c->data.count; i++)
        if (c->data.document[i].label >= 0) c->data.document[i].label = place[c->data.document[i].label];
}

/* ---- rows ---- */

void list_name(char *list, size_t cap, Span name) {
    const size_t n = strlen(list), comma = n && list[n - 1] == ' ' ? 0 : 2;
    if (n + comma + name.length + 1 > cap) return;
    memcpy(list + n, ", ", comma);
    memcpy(list + n + comma, name.text, name.length);
    list[n + comma + name.length] = 0;
}

/* Returns a then b, in scratch. */
Span joined(Collector *c, Span a, Span b) {
    char *out = scratch(c, a.length + b.length + 1);
    if (a.length) memcpy(out, a.text, a.length);
    if (b.length) memcpy(out + a.length, b.text, b.length);
    b.text = out;
    b.length += a.length;
    return b;
}

static int begins_with(Span p, Span begin) {
    return p.length >= begin.length && !memcmp(p.text, begin.text, begin.length);
}

/* Returns text k of a document, after the prompt that comes before both texts of a pair. The template's text
 * is clean already. */
static Span document_text(Collector *c, const Span texts[3], int k, Place at) {
    Span p = texts[k];
    if (c->made == 2) p = joined(c, texts[2], clean_text(c, p, at));
    else if (c->made != k) p = clean_text(c, texts[2].length ? joined(c, texts[2], p) : p, at);
    return p;
}

/* Adds a document: of one text, or of two if the kind has two. texts[2]: the prompt of a pair, which comes
 * before both texts (text NULL: none). label: the document's. Leaves out empty, too short and too long
 * documents, and counts them. */
void add_row(Collector *c, const Span texts[3], int label, Place at) {
    const DataOptions *given = c->given;
    Document doc;
    size_t points = 0;
    int n = c->data.kind == DATA_TEXT ? 1 : 2, empty = c->made >= 0 && !c->characters;
    memset(&doc, 0, sizeof doc);
    doc.label = label;
    if (texts[2].length) c->doubled += begins_with(texts[0], texts[2]) && begins_with(texts[1], texts[2]);
    for (int k = 0; k < n; k++) {
        const Span p = document_text(c, texts, k, at);
        points += code_points(p);
        empty |= p.length == 0 || texts[k].length == 0;
        doc.text[k] = p.text;
        doc.length[k] = (uint32_t)p.length;
    }
    if (c->made >= 0) points = c->characters;
    if (empty) { c->empty++; return; }
    if (points < (size_t)given->min_length) { c->too_short++; return; }
    if (given->max_length && points > (size_t)given->max_length) { c->too_long++; return; }
    for (int k = 0; k < n; k++) doc.text[k] = prep_keep(doc.text[k], doc.length[k]);
    /* All pairs of one prompt are in the same part, so that the held-out ones are new to a judge. */
    const int pair = c->data.kind == DATA_PAIRS && texts[2].length > 0;
    doc.split = pair ? is_held_out(texts[2].text, texts[2].length) : is_held_out(doc.text[0], doc.length[0]);
    add_document(&c->data, &c->capacity, &doc);
}

static const char *const text_fields[] = { "text", "review", "sentence", "tweet", "content", "document",
                                           "messages", NULL };
static const char *const label_fields[] = { "label", "sentiment", NULL };

/* Returns the first name that the row has, or NULL. */
static const char *first_field(const char *const *names, HasField has, const void *row) {
    while (*names && !has(row, *names)) names++;
    return *names;
}

/* Returns the kind of dataset that the options, or else the fields of the first row, ask for. */
static int choose_kind(const Collector *c, HasField has, const void *row) {
    static const char *const answer[] = { "response", "completion", NULL };
    if (c->given->chosen || c->given->rejected || c->given->format == FORMAT_PAIRS) return DATA_PAIRS;
    if (c->given->response) return DATA_PROMPTS;
    if (c->given->text) return DATA_TEXT;
    if (has(row, "chosen") && has(row, "rejected")) return DATA_PAIRS;
    if (c->given->prompt || c->template.parts) return DATA_PROMPTS;
    return has(row, "prompt") && first_field(answer, has, row) && !first_field(text_fields, has, row)
               ? DATA_PROMPTS : DATA_TEXT;
}

/* Chooses the fields to read, by the options and by the fields that the first row has. */
void choose_fields(Collector *c, HasField has, const void *row, Place at) {
    const DataOptions *given = c->given;
    const int kind = choose_kind(c, has, row);
    if (c->data.kind && c->data.kind != kind)
        prep_stop(E_FORMAT, "another kind of data than the file before", at.file, 0, NULL,
                  "make one dataset of each");
    if (given->no_prompt && kind != DATA_PAIRS)
        prep_stop(E_ARGUMENT, "--no-prompt is for pairs, chosen and rejected", at.file, at.line, NULL,
                  "leave out --no-prompt");
    if (given->labels && kind == DATA_PAIRS)
        prep_stop(E_ARGUMENT, "--labels is for texts: the label of a pair is a probability", at.file, at.line,
                  NULL, "leave out --labels");
    c->data.kind = kind;
    c->made = !c->template.parts ? -1 : kind == DATA_PAIRS ? 2 : 0;
    c->field[2] = NULL;
    if (kind == DATA_PROMPTS) {
        c->field[0] = c->template.parts ? NULL : given->prompt ? given->prompt : "prompt";
        c->field[1] = given->response ? given->response : has(row, "response") ? "response" : "completion";
    } else if (kind == DATA_PAIRS) {
        c->field[0] = given->chosen ? given->chosen : "chosen";
        c->field[1] = given->rejected ? given->rejected : "rejected";
        c->field[2] = c->template.parts ? NULL : given->prompt ? given->prompt
                      : !given->no_prompt && has(row, "prompt") ? "prompt" : NULL;
    } else {
        c->field[0] = c->template.parts ? NULL
                      : given->text ? given->text : first_field(text_fields, has, row);
        if (!c->field[0] && !c->template.parts)
            prep_stop(E_MISSING,
                      "none of the fields text, review, sentence, tweet, content, document, messages",
                      at.file, at.line, NULL, "name the field that holds the text with --text");
    }
    c->label = given->no_label ? NULL : given->label;
    if (!given->no_label && !c->label && kind == DATA_TEXT) c->label = first_field(label_fields, has, row);
    if (!given->no_label && !c->label && kind == DATA_PAIRS) c->label = "probability";
    c->unlabelled |= kind == DATA_TEXT && !c->label && !given->no_label;
}

/* Stops if the row has a field that the first row lacked, and that would have been read. */
void check_late_fields(const Collector *c, HasField has, const void *row, Place at) {
    const char *late = NULL, *hint = NULL;
    if (c->data.kind == DATA_TEXT && !c->label && !c->given->no_label) {
        late = first_field(label_fields, has, row);
        hint = "give the field to every row (null: no label), or give --no-label";
    } else if (c->data.kind == DATA_PAIRS && !c->field[2] && c->made < 0 && !c->given->no_prompt
               && has(row, "prompt")) {
        late = "prompt";
        hint = "give the field to every row (\"\": no prompt), or give --no-prompt";
    }
    if (late) prep_stop(E_FORMAT, "a field that the first row does not have", at.file, at.line, late, hint);
}
