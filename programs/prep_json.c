/* prep_json.c - prep data: rows of JSONL. */
#include "prep.h"

/* Returns the field of that name, or NULL. "prompt.text" is the key of that name or, if there is none, the
 * field text of the object prompt. */
static const Json *json_field(const Json *object, const char *name) {
    const Json *found = json_get(object, name);
    const char *dot = strchr(name, '.');
    char head[128];
    if (found || !dot || (size_t)(dot - name) >= sizeof head) return found;
    memcpy(head, name, (size_t)(dot - name));
    head[dot - name] = 0;
    found = json_get(object, head);
    return found ? json_field(found, dot + 1) : NULL;
}
static int json_has(const void *row, const char *name) { return json_field(row, name) != NULL; }

/* Sets *raw to a value as text, from a string, a whole number or a truth value; text NULL for null. Returns 0
 * if it is none of these. */
static int json_value(Collector *c, const Json *v, Span *out) {
    Span raw = { NULL, 0 };
    if (v->type == JSON_STRING) { raw.text = v->string; raw.length = v->length; }
    else if (v->type == JSON_TRUE) { raw.text = "true"; raw.length = 4; }
    else if (v->type == JSON_FALSE) { raw.text = "false"; raw.length = 5; }
    else if (v->type == JSON_NUMBER && v->number == floor(v->number) && fabs(v->number) < 1e9) {
        char *digits = scratch(c, 24);
        name_format(digits, 24, "%d", (int)v->number);
        raw.text = digits;
        raw.length = strlen(digits);
    } else if (v->type != JSON_NULL) return 0;
    *out = raw;
    return 1;
}

static Span json_label(Collector *c, const Json *row, Place at) {
    const Json *v = json_field(row, c->label);
    Span raw = { NULL, 0 };
    if (!v) prep_stop(E_MISSING, "a field is missing", at.file, at.line, c->label,
                      "name it with --label, or give --no-label");
    if (!json_value(c, v, &raw))
        prep_stop(E_FORMAT, "a label that is not a string, a whole number or a truth value", at.file, at.line,
                  c->label, "choose another field with --label");
    return raw;
}

/* Returns a field for a place of the template. */
static Span json_text_of(Collector *c, const void *row, const char *name, Place at) {
    const Json *v = json_field(row, name);
    Span p = { NULL, 0 };
    if (!v) {
        char hint[200] = "the fields are: ";
        for (const Json *f = ((const Json *)row)->child; f; f = f->next) {
            const Span key = { f->key, f->key_length };
            list_name(hint, sizeof hint, key);
        }
        prep_stop(E_MISSING, "a field is missing that the template names", at.file, at.line, name, hint);
    }
    if (!json_value(c, v, &p) || !p.text)
        prep_stop(E_FORMAT, "not a string, a whole number or a truth value", at.file, at.line, name,
                  "correct the line, or choose another field in the template");
    return p;
}

/* ---- lists of messages, {"role": ..., "content": ...}, as TRL reads them ---- */

/* Returns the string under a message's key; stops if there is none. */
static const Json *message_part(const Json *message, const char *key, const char *field, Place at) {
    const Json *v = json_get(message, key);
    if (!v || v->type != JSON_STRING)
        prep_stop(E_FORMAT, "a message without a string \"role\" and a string \"content\"", at.file, at.line,
                  field, "correct the line; a list holds {\"role\": \"user\", \"content\": \"...\"}");
    return v;
}

/* Returns a list of messages as text, in the form of --template. *head: the bytes before the content of the
 * first one. */
static Span messages_text(Collector *c, const Json *list, const char *field, Place at, size_t *head) {
    const ChatTemplate *how = chat_template(c->chat);
    Buffer b = { &c->scratch, NULL, 0, 0, 0 };
    Span p;
    if (!how->end)
        prep_stop(E_UNSUPPORTED, "a list of messages", at.file, at.line, field,
                  "--template chatml or --template zephyr: the form in which messages become text");
    for (const Json *m = list->child; m; m = m->next) {
        const Json *role = message_part(m, "role", field, at);
        const Json *content = message_part(m, "content", field, at);
        buffer_text(&b, how->begin ? how->begin : "");
        buffer_text(&b, how->before);
        buffer_bytes(&b, role->string, role->length);
        buffer_text(&b, how->after);
        if (m == list->child) *head = b.length;
        buffer_bytes(&b, content->string, content->length);
        buffer_text(&b, how->end);
        buffer_text(&b, "\n");
    }
    if (b.failed) prep_need(NULL);
    p.text = b.length ? (const char *)b.data : "";
    p.length = b.length;
    return p;
}

/* Returns 1 if v is a list of messages, one of which has this content. */
static int has_message(const Json *v, const Json *content) {
    for (const Json *m = v->type == JSON_ARRAY ? v->child : NULL; m; m = m->next) {
        const Json *own = json_get(m, "content");
        if (own && own->type == JSON_STRING && own->length == content->length
            && !memcmp(own->string, content->string, own->length)) return 1;
    }
    return 0;
}

/* Reads the fields of a row whose texts are lists of messages. The prompt of a pair may also be a string that
 * both lists have as a message. The prompt of DATA_PROMPTS ends where the content of the answer begins. */
static void read_messages(Collector *c, const Json *const v[3], Span text[3], Place at) {
    size_t head[3] = { 0, 0, 0 };
    text[2].length = 0;
    for (int k = 0; k < 3; k++) {
        if (!v[k]) continue;
        if (k == 2 && v[2]->type == JSON_STRING && has_message(v[0], v[2]) && has_message(v[1], v[2]))
            continue;
        if (v[k]->type != JSON_ARRAY)
            prep_stop(E_FORMAT, "a string in a row whose other texts are lists of messages", at.file, at.line,
                      c->field[k], c->data.kind == DATA_PAIRS ? "correct the line, or give --no-prompt"
                                                              : "correct the line");
        text[k] = messages_text(c, v[k], c->field[k], at, &head[k]);
    }
    if (c->data.kind != DATA_PROMPTS) return;
    const Span begin = { text[1].text, head[1] };
    text[0] = joined(c, text[0], begin);
    text[1].text += head[1];
    text[1].length -= head[1];
}

/* ---- rows of JSONL ---- */

/* Returns the object on a line of JSONL, in scratch. */
static const Json *json_row(Collector *c, Span line, Place at) {
    Error err = { 0 };
    const Json *row = json_parse(line.text, line.length, &c->scratch, &err);
    if (!row) {
        char what[160] = "no JSON (";
        memcpy(what + 9, err.what, strlen(err.what) < 140 ? strlen(err.what) : 140);
        what[strlen(what)] = ')';
        prep_stop(E_FORMAT, what, at.file, at.line, NULL,
                  "correct or remove the line; JSONL has one object on each line");
    }
    if (row->type != JSON_OBJECT)
        prep_stop(E_FORMAT, "no JSON object", at.file, at.line, NULL, "JSONL has one object on each line");
    return row;
}

/* Returns the label of a row. A pair needs one only if --label names its field. */
static int row_label(Collector *c, const Json *row, Place at) {
    if (!c->label) return -1;
    if (c->data.kind == DATA_PAIRS && (!c->given->label || json_has(row, c->label)))
        return probability_of(c, json_field(row, c->label), at);
    return label_of(c, json_label(c, row, at), at);
}

/* Returns 1 if the condition of --where holds for the row, or if there is none. */
static int is_wanted(Collector *c, const Json *row, Place at) {
    if (!c->where.holds) return 1;
    const Json *v = json_field(row, c->where.field);
    if (!v) prep_stop(E_MISSING, "the field of --where is missing", at.file, at.line, c->where.field,
                      "name a field that every row has (null: no value)");
    return where_holds(c, v, at);
}

/* Adds the document of a row. */
static void add_json_row(Collector *c, const Json *row, Place at) {
    const Json *v[3] = { NULL, NULL, NULL };
    Span text[3] = { { NULL, 0 }, { NULL, 0 }, { NULL, 0 } };
    int lists = 0;
    for (int k = 0; k < 3; k++) {
        if (k == c->made) { text[k] = template_text(c, json_text_of, row, at); continue; }
        if (k == 2 ? !c->field[2] : k == 1 && c->data.kind == DATA_TEXT) continue;
        v[k] = json_field(row, c->field[k]);
        if (!v[k]) prep_stop(E_MISSING, "a field is missing", at.file, at.line, c->field[k],
                             "name the fields with --text, --prompt and --response, or --chosen and "
                             "--rejected");
        lists |= v[k]->type == JSON_ARRAY;
        if (v[k]->type != JSON_STRING && v[k]->type != JSON_ARRAY)
            prep_stop(E_FORMAT, "not a string", at.file, at.line, c->field[k],
                      "correct the line, or choose another field");
        text[k].text = v[k]->string;
        text[k].length = v[k]->length;
    }
    if (lists) read_messages(c, v, text, at);
    add_row(c, text, row_label(c, row, at), at);
}

void read_jsonl(Collector *c, const char *path) {
    Error err = { 0 };
    Lines *lines = lines_open(path, prep_pool(), &err);
    Place at = { path, 0 };
    Span line;
    int chosen = 0;
    must(err.code, &err, NULL);
    while (lines_next(lines, &line.text, &line.length)) {
        PoolMark mark = pool_mark(&c->scratch);
        at.line++;
        line = valid_escapes(c, valid_text(c, line, at), at);
        if (blank_line(line.text, line.length)) continue;
        const Json *row = json_row(c, line, at);
        if (!chosen) choose_fields(c, json_has, row, at);
        chosen = 1;
        check_late_fields(c, json_has, row, at);
        if (is_wanted(c, row, at)) add_json_row(c, row, at);
        else c->not_where++;
        pool_release(&c->scratch, mark);
    }
    must(lines_close(lines, &err), &err, NULL);
}
