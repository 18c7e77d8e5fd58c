/* prep_template.c - prep data: --template TEXT and --text TEXT, which make prompts or texts of a row's
 * fields. */
#include "prep.h"
#include <stdio.h>

/* Ends the program: the template of this option is wrong from s on. */
static void template_stop(const char *option, const char *what, const char *s) {
    char message[96], hint[240];
    const int text = !strcmp(option, "--text");
    snprintf(message, sizeof message, "%s %s", option, what);
    snprintf(hint, sizeof hint, "%s '%s': {NAME} is the place of a field; {{ and }} are braces; \\n, \\t and "
             "\\\\ are a line break, a tab and a backslash", option,
             text ? "{title}\\n\\n{body}" : "Summarize.\\n\\n{dialogue}\\n\\nSummary:\\n");
    usage_hint(message, s, hint);
}

static TemplatePart *new_part(Template *t, const char *option) {
    if (t->parts == TEMPLATE_PARTS)
        template_stop(option, "has more than 64 places and texts between them", NULL);
    return &t->part[t->parts++];
}

/* Reads the text up to the next place of a field. Returns where it stopped. */
static const char *parse_text(Template *t, const char *option, const char *s) {
    TemplatePart *part = new_part(t, option);
    char *out = prep_take(strlen(s) + 1, 1);
    part->text = out;
    for (; *s && (*s != '{' || s[1] == '{'); s++) {
        if (*s == '}' && s[1] != '}') template_stop(option, "has a } without a {", s);
        if (*s == '{' || *s == '}') s++;
        else if (*s == '\\') {
            static const char escape[] = "nt\\", meaning[] = "\n\t\\";
            const char *found = s[1] ? strchr(escape, s[1]) : NULL;
            if (!found) template_stop(option, "has an unknown escape", s);
            out[part->length++] = meaning[found - escape];
            s++;
            continue;
        }
        out[part->length++] = *s;
    }
    return s;
}

void template_parse(Template *t, const char *option, const char *s) {
    int fields = 0;
    while (*s) {
        if (*s != '{' || s[1] == '{') { s = parse_text(t, option, s); continue; }
        const size_t n = strcspn(s + 1, "{}");
        TemplatePart *part = new_part(t, option);
        if (s[1 + n] != '}') template_stop(option, "has a { without a }", s);
        if (!n) template_stop(option, "has a place without the name of a field", s);
        part->text = prep_keep(s + 1, n);
        part->length = n;
        part->field = 1;
        fields++;
        s += n + 2;
    }
    if (!fields) template_stop(option, !strcmp(option, "--text") ? "has braces, but no {NAME}"
                               : "is neither none, chatml, zephyr nor a text with {NAME}", NULL);
}

Span template_text(Collector *c, FieldText field, const void *row, Place at) {
    Buffer b = { &c->scratch, NULL, 0, 0, 0 };
    Span p;
    c->characters = 0;
    for (int k = 0; k < c->template.parts; k++) {
        const TemplatePart *part = &c->template.part[k];
        p.text = part->text;
        p.length = part->length;
        if (part->field) {
            p = clean_text(c, field(c, row, part->text, at), at);
            c->characters += code_points(p);
        }
        buffer_bytes(&b, p.text, p.length);
    }
    if (b.failed) prep_need(NULL);
    p.text = b.length ? (const char *)b.data : "";
    p.length = b.length;
    return p;
}
