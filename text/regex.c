/* text/regex.c - regular expressions over characters, for the patterns in tokenizer.json: parses a pattern,
 *          turns it into a program, and the program into a table of states.
 * Source   Thompson 1968; the priorities of Perl's alternatives as in Cox's RE2: a state of the table is
 *          a list of places of the program, the most wanted one first. Syntax: Oniguruma's doc/RE.
 * Needs    core.c, text/unicode.c, text/pieces.c, text/charset.c.
 * Never    allocates or changes anything while it matches; takes more than a constant time for a character,
 *          except for look-ahead over more than one character, which is matched at each place.
 * Edges    What needs memory of the text is refused: back references, look-behind, possessive groups. So are
 *          patterns that need too many states. A repeat whose inside may match nothing may end after other
 *          iterations than Oniguruma's. */
#include "text.h"

/* ==============================================================================================
 * Parsing
 * ============================================================================================== */
enum { NODE_EMPTY, NODE_CHAR, NODE_LOOK, NODE_AHEAD, NODE_BEFORE, NODE_ROW, NODE_EITHER, NODE_REPEAT };
enum { GREEDY, LAZY, POSSESSIVE };
enum { SETS = 1024, NODES = 4096, PLACES = 2048, DEPTH = 100, AHEADS = 3, ENDLESS = -1,
       ENTRIES = 1 << 18,
       LENGTH = 4096 };                     /* of a pattern, in bytes; published ones have some hundred */

/* A part of a pattern. CHAR: one character of a set. LOOK: the next character is in the set, or with end 1
 * there is none. AHEAD: look-ahead number `set` matches here, or with end 1 does not. BEFORE: what is before
 * is in `mask` (bit k: BEFORE_ k). ROW: the children, one after the other. EITHER: the first child that leads
 * to a match. REPEAT: the child, `least` to `most` times. */
typedef struct Node Node;
struct Node { int type, set, end, least, most, how; unsigned mask; Node *child, *next; };

/* A place of the program. SPLIT: goes on at `to`, and if that fails at `other`. */
enum { PLACE_CHAR, PLACE_LOOK, PLACE_AHEAD, PLACE_BEFORE, PLACE_SPLIT, PLACE_MATCH };
typedef struct { int op, set, end, to, other; unsigned mask; } Place;

/* pool: for the work, freed at the end. keep: for the result. code: the first error, or OK. fold, dot_all,
 * spaced: the options i, m and x. looks_back 1: some place asks what is before it. none: what functions
 * return after an error. */
typedef struct {
    Pool *pool, *keep; Error *err; Text pattern;
    size_t at; int code, depth, fold, dot_all, spaced, looks_back, nodes;
    Node none;
    UnicodeList *set; int sets;
    Place *place; int places;
    Regex ahead[AHEADS]; int aheads, inside;            /* inside 1: the pattern is that of a look-ahead */
} Compiler;

static Node *parse_either(Compiler *c);
static void compile(Compiler *c, Regex *r);
static int parse_class(Compiler *c, UnicodeList *out);

/* Notes an error, about the pattern from the byte `from` on, unless there is one. */
static void refuse(Compiler *c, int code, const char *what, size_t from) {
    Text rest = { c->pattern.text + from, c->pattern.length - from };
    if (!c->code) c->code = fail_piece(c->err, code, what, rest, 0, 0);
}

static void out_of_memory(Compiler *c) { if (!c->code) c->code = no_memory(c->err, "regular expression"); }
static void need(Compiler *c, int code) { if (code) out_of_memory(c); }

static int more(const Compiler *c) { return !c->code && c->at < c->pattern.length; }
static int peek(const Compiler *c, const char *s) {
    return starts_with(c->pattern.text + c->at, c->pattern.length - c->at, s, strlen(s));
}
static int accept(Compiler *c, const char *s) {
    int there = !c->code && peek(c, s);
    if (there) c->at += strlen(s);
    return there;
}

/* Returns the next character of the pattern. */
static int32_t next_code(Compiler *c) {
    int32_t code = -1;
    if (c->at < c->pattern.length)
        c->at += (size_t)utf8_decode(c->pattern.text + c->at, c->pattern.length - c->at, &code);
    if (code < 0) refuse(c, E_FORMAT, "a regular expression that ends too early, or that is not UTF-8", 0);
    return code;
}

static Node *new_node(Compiler *c, int type) {
    Node *n = c->code ? NULL : pool_take(c->pool, 1, sizeof *n);
    if (++c->nodes > NODES) refuse(c, E_UNSUPPORTED, "a regular expression that is too long", 0);
    else if (!n) out_of_memory(c);
    if (c->code) { memset(&c->none, 0, sizeof c->none); return &c->none; }
    n->type = type;
    return n;
}

/* Returns a CHAR, LOOK or BEFORE with a set. */
static Node *set_node(Compiler *c, int type, UnicodeList set) {
    Node *n = new_node(c, type);
    int i;
    for (i = 0; i < c->sets; i++)
        if (c->set[i].items == set.items &&
            (!set.items || !memcmp(c->set[i].item, set.item, set.items * sizeof *set.item))) break;
    if (i == SETS) { refuse(c, E_UNSUPPORTED, "a regular expression with too many sets", 0); i = 0; }
    else if (i == c->sets) c->set[c->sets++] = set;
    if (!c->code) n->set = i;
    return n;
}

/* Sets *out to one character, with the option i in both cases. */
static void one_code(Compiler *c, int32_t code, UnicodeList *out) {
    need(c, charset_range(out, code, code, c->pool));
    if (c->fold && !c->code) need(c, charset_fold(out, c->pool));
}

/* Reads up to `most` digits of a base; returns the number, at most 0x110000. */
static int32_t digits(Compiler *c, int base, int most) {
    static const char all[] = "0123456789abcdef";
    int32_t value = 0;
    for (; more(c) && most--; c->at++) {
        char digit = c->pattern.text[c->at];
        const char *at = digit ? strchr(all, digit >= 'A' && digit <= 'F' ? digit + 'a' - 'A' : digit) : NULL;
        if (!at || at - all >= base) break;
        value = value < 0x110000 ? value * base + (int32_t)(at - all) : value;
    }
    return value < 0x110000 ? value : 0x110000;
}

/* Reads the name of \p{name} or of [:name:], up to `end`, and sets *out to its characters. */
static void property(Compiler *c, int negated, const char *end, UnicodeList *out) {
    size_t from = c->at;
    Text name;
    if (accept(c, "^")) negated = !negated;
    name.text = c->pattern.text + c->at;
    while (more(c) && !peek(c, end)) c->at++;
    name.length = (size_t)(c->pattern.text + c->at - name.text);
    if (!accept(c, end)) { refuse(c, E_FORMAT, "a regular expression with half a name in it", from); return; }
    switch (charset_named(out, name, c->pool)) {
    case OK: if (negated) need(c, charset_not(out, c->pool)); break;
    case E_MISSING:
        refuse(c, E_UNSUPPORTED, "a regular expression with this class is not supported", from);
        break;
    default: out_of_memory(c);
    }
}

/* Reads an escape that stands for a set (the backslash is read): returns 1 and sets *out; else 0, and
 * *code becomes the one character that the escape stands for. bare 1: outside of brackets. */
static int escape(Compiler *c, UnicodeList *out, int32_t *code, int bare) {
    static const char letter[] = "tnrfvae", control[] = "\t\n\r\f\v\a\x1b";
    size_t from = c->at - 1;
    const char *at;
    int32_t x = *code = next_code(c);
    if (c->code) return 0;
    if (x < 128 && strchr("sSdDwWhH", x) && x) {
        need(c, charset_escape(out, (char)(x | 32), bare, c->pool));
        if (x < 'a' && !c->code) need(c, charset_not(out, c->pool));
        return 1;
    }
    if ((x == 'p' || x == 'P') && accept(c, "{")) { property(c, x == 'P', "}", out); return 1; }
    at = x && x < 128 ? strchr(letter, x) : NULL;
    if (at) *code = control[at - letter];
    else if (x == 'x' && accept(c, "{")) {
        *code = digits(c, 16, 8);
        if (!accept(c, "}")) refuse(c, E_FORMAT, "a regular expression with half a number in it", from);
    } else if (x == 'x' || x == 'u') *code = digits(c, 16, x == 'x' ? 2 : 4);
    else if (x == '0') *code = digits(c, 8, 2);
    else if (x < 128 && ((x >= '1' && x <= '9') || (x && strchr("RXKGyYkgcCM", x))))
        refuse(c, E_UNSUPPORTED, x <= '9' ? "a regular expression with a back reference is not supported" :
               "a regular expression with this escape is not supported", from);
    if (*code >= 0x110000)
        refuse(c, E_FORMAT, "a regular expression with a number beyond Unicode in it", from);
    return 0;
}

/* Reads one item of a class: a set in *out, or a character in *code. Returns 1 for a set. */
static int class_item(Compiler *c, UnicodeList *out, int32_t *code) {
    if (accept(c, "[:")) { property(c, 0, ":]", out); return 1; }
    if (peek(c, "[")) { c->at++; parse_class(c, out); return 1; }
    if (!accept(c, "\\")) { *code = next_code(c); return 0; }
    if (accept(c, "b")) { *code = 8; return 0; }
    return escape(c, out, code, 0);
}

/* Adds the items of a class to *set, up to "]" or "&&". */
static void class_items(Compiler *c, UnicodeList *set) {
    int first = 1;
    for (; more(c) && (first || !peek(c, "]")) && !peek(c, "&&"); first = 0) {
        size_t from = c->at;
        UnicodeList item = { NULL, 0 }, not_used;
        int32_t low, high;
        if (!class_item(c, &item, &low) && !c->code) {
            high = low;
            if (peek(c, "-") && c->at + 1 < c->pattern.length && c->pattern.text[c->at + 1] != ']') {
                c->at++;
                if (class_item(c, &not_used, &high)) high = -1;
            }
            if (high < low) refuse(c, E_FORMAT, "a regular expression with a broken range", from);
            else need(c, charset_range(&item, low, high, c->pool));
        }
        if (c->fold && !c->code) need(c, charset_fold(&item, c->pool));
        if (!c->code) need(c, charset_combine(set, *set, item, SET_OR, c->pool));
    }
}

/* Reads a class, whose "[" is read. */
static int parse_class(Compiler *c, UnicodeList *out) {
    int negated, parts = 0;
    UnicodeList set = { NULL, 0 };
    size_t from = c->at - 1;
    if (++c->depth > DEPTH) refuse(c, E_UNSUPPORTED, "a regular expression with too many brackets", from);
    negated = accept(c, "^");
    out->item = NULL; out->items = 0;
    do {
        set.item = NULL; set.items = 0;
        class_items(c, &set);
        if (c->code) break;
        need(c, charset_combine(out, parts++ ? *out : set, set, SET_AND, c->pool));
    } while (accept(c, "&&"));
    if (!accept(c, "]")) refuse(c, E_FORMAT, "a regular expression with half a class in it", from);
    if (negated && !c->code) need(c, charset_not(out, c->pool));
    c->depth--;
    return c->code;
}

/* Reads a group, whose "(?" is read and which begins with options such as "i-m:". */
static Node *parse_options(Compiler *c, size_t from) {
    int on = 1, fold = c->fold, dot_all = c->dot_all, spaced = c->spaced;
    Node *n;
    for (; more(c) && !peek(c, ":") && !peek(c, ")"); c->at++)
        switch (c->pattern.text[c->at]) {
        case '-': on = 0; break;
        case 'i': c->fold = on; break;
        case 'm': c->dot_all = on; break;
        case 'x': c->spaced = on; break;
        default:
            refuse(c, E_UNSUPPORTED, "a regular expression with this kind of group is not supported", from);
        }
    /* Options without ":" hold up to the end of the group around them, "|" included. */
    if (accept(c, ":") || !accept(c, ")")) {
        n = parse_either(c);
        if (!accept(c, ")")) refuse(c, E_FORMAT, "a regular expression with half a group in it", from);
    } else n = parse_either(c);
    c->fold = fold; c->dot_all = dot_all; c->spaced = spaced;
    return n;
}

/* Sets *set and *end to what the next character has to be (*end 1: or none) for n, which is the inside of a
 * look-ahead. Returns 0 if n looks at more than one character. */
static int one_ahead(Compiler *c, const Node *n, UnicodeList *set, int *end) {
    const Node *child;
    if (n->type == NODE_CHAR || n->type == NODE_LOOK) {
        need(c, charset_combine(set, *set, c->set[n->set], SET_OR, c->pool));
        *end |= n->end;
        return 1;
    }
    if (n->type != NODE_EITHER) return 0;
    for (child = n->child; child; child = child->next) if (!one_ahead(c, child, set, end)) return 0;
    return 1;
}

/* Compiles a look-ahead over more than one character, the group from the byte `from` up to c->at, as a
 * pattern of its own. */
static Node *long_ahead(Compiler *c, int negated, size_t from) {
    Node *n = new_node(c, NODE_AHEAD);
    Compiler inner;
    if (c->inside)
        refuse(c, E_UNSUPPORTED, "a regular expression with look-ahead in look-ahead is not supported", from);
    if (c->aheads == AHEADS)
        refuse(c, E_UNSUPPORTED, "a regular expression with so many look-aheads is not supported", from);
    if (c->code) return n;
    memset(&inner, 0, sizeof inner);
    inner.pool = c->pool; inner.keep = c->keep; inner.err = c->err;
    inner.fold = c->fold; inner.dot_all = c->dot_all; inner.spaced = c->spaced;
    inner.pattern.text = c->pattern.text + from + 3;    /* after "(?=", up to ")" */
    inner.pattern.length = c->at - from - 4;
    inner.inside = 1;
    compile(&inner, &c->ahead[c->aheads]);
    c->code = inner.code;
    n->set = c->aheads++;
    n->end = negated;
    return n;
}

/* Returns the node of a look-ahead, which ends before c->at. */
static Node *look_ahead(Compiler *c, const Node *inside, int negated, size_t from) {
    UnicodeList set = { NULL, 0 };
    int end = 0;
    Node *n;
    if (!one_ahead(c, inside, &set, &end)) return long_ahead(c, negated, from);
    if (negated && !c->code) need(c, charset_not(&set, c->pool));
    n = set_node(c, NODE_LOOK, set);
    n->end = end != negated;
    return n;
}

/* Reads a group, whose "(" is read. */
static Node *parse_group(Compiler *c) {
    size_t from = c->at - 1;
    int ahead = 0, negated = 0, atomic = 0;
    Node *n;
    if (++c->depth > DEPTH) refuse(c, E_UNSUPPORTED, "a regular expression with too many brackets", from);
    if (accept(c, "?#")) {
        while (more(c) && !peek(c, ")")) c->at++;
        n = new_node(c, NODE_EMPTY);
    } else {
        if (accept(c, "?<=") || accept(c, "?<!"))
            refuse(c, E_UNSUPPORTED, "a regular expression with look-behind is not supported", from);
        else if (accept(c, "?=")) ahead = 1;
        else if (accept(c, "?!")) ahead = negated = 1;
        else if (accept(c, "?>")) atomic = 1;
        else if (accept(c, "?<")) while (more(c) && !accept(c, ">")) c->at++;
        else if (peek(c, "?") && !accept(c, "?:")) {
            c->at++;
            n = parse_options(c, from);
            c->depth--;
            return n;
        }
        n = parse_either(c);
    }
    if (!accept(c, ")")) refuse(c, E_FORMAT, "a regular expression with half a group in it", from);
    if (ahead && !c->code) n = look_ahead(c, n, negated, from);
    if (atomic && n->type == NODE_REPEAT && n->child->type == NODE_CHAR && n->how == GREEDY)
        n->how = POSSESSIVE;
    else if (atomic && n->type != NODE_CHAR)
        refuse(c, E_UNSUPPORTED, "a regular expression with an atomic group is not supported", from);
    c->depth--;
    return n;
}

static Node *before_node(Compiler *c, unsigned mask) {
    Node *n = new_node(c, NODE_BEFORE);
    c->looks_back = 1;
    if (!c->code) n->mask = mask;
    return n;
}

/* Returns \b (border 1) or \B: a word character before and none after, or the other way round. */
static Node *border_node(Compiler *c, int border) {
    unsigned word = 1u << BEFORE_WORD;
    Node *n = new_node(c, NODE_EITHER), *row;
    UnicodeList set = { NULL, 0 };
    int k;
    for (k = 0; k < 2 && !c->code; k++) {       /* k 1: a word character after */
        need(c, charset_escape(&set, 'w', 1, c->pool));
        if (!k && !c->code) need(c, charset_not(&set, c->pool));
        row = new_node(c, NODE_ROW);
        if (c->code) break;
        row->child = before_node(c, k != border ? word : ~word);
        row->child->next = set_node(c, NODE_LOOK, set);
        row->child->next->end = !k;
        row->next = n->child;
        n->child = row;
    }
    return n;
}

/* Reads an escape outside of a class, whose backslash is read. */
static Node *parse_escape(Compiler *c) {
    UnicodeList set = { NULL, 0 };
    int32_t code;
    Node *n;
    if (accept(c, "b")) return border_node(c, 1);
    if (accept(c, "B")) return border_node(c, 0);
    if (accept(c, "A")) return before_node(c, 1u << BEFORE_TEXT);
    if (accept(c, "Z"))
        refuse(c, E_UNSUPPORTED, "a regular expression with this escape is not supported", c->at - 2);
    if (accept(c, "z")) { n = set_node(c, NODE_LOOK, set); n->end = 1; return n; }
    if (peek(c, "N") || peek(c, "O")) {
        need(c, charset_range(&set, '\n', accept(c, "N") ? '\n' : '\n' - 1, c->pool));
        if (accept(c, "O")) set.items = 0;
        if (!c->code) need(c, charset_not(&set, c->pool));
    } else if (!escape(c, &set, &code, 1) && !c->code) one_code(c, code, &set);
    return set_node(c, NODE_CHAR, set);
}

static Node *parse_atom(Compiler *c) {
    UnicodeList set = { NULL, 0 };
    size_t from = c->at;
    Node *n;
    if (accept(c, "(")) return parse_group(c);
    if (accept(c, "\\")) return parse_escape(c);
    if (accept(c, "^")) return before_node(c, 1u << BEFORE_TEXT | 1u << BEFORE_LINE);
    if (accept(c, "$")) {
        one_code(c, '\n', &set);
        n = set_node(c, NODE_LOOK, set);
        n->end = 1;
        return n;
    }
    if (accept(c, "[")) parse_class(c, &set);
    else if (accept(c, ".")) {
        if (!c->dot_all) one_code(c, '\n', &set);
        if (!c->code) need(c, charset_not(&set, c->pool));
    } else if (peek(c, "*") || peek(c, "+") || peek(c, "?"))
        refuse(c, E_FORMAT, "a regular expression with nothing to repeat", from);
    else one_code(c, next_code(c), &set);
    return set_node(c, NODE_CHAR, set);
}

/* Reads "{n}", "{n,}", "{,m}" or "{n,m}". Returns 0, and reads nothing, if there is something else. */
static int interval(Compiler *c, int *least, int *most) {
    size_t from = c->at, first;
    if (!accept(c, "{")) return 0;
    first = c->at;
    *least = *most = digits(c, 10, 6);
    if (c->at == first && !peek(c, ",")) { c->at = from; return 0; }
    if (accept(c, ",")) {
        size_t second = c->at;
        *most = digits(c, 10, 6);
        if (c->at == second) *most = ENDLESS;
        if (c->at == second && second == first + 1) { c->at = from; return 0; }
    }
    if (!accept(c, "}")) { c->at = from; return 0; }
    if (*most != ENDLESS && *most < *least)
        refuse(c, E_UNSUPPORTED, "a regular expression with this interval is not supported", from);
    return 1;
}

/* Reads the quantifiers after n. As in Oniguruma, {n,m}+ repeats {n,m}, and {n}? may be left out. */
static Node *parse_quantifiers(Compiler *c, Node *n) {
    for (;;) {
        size_t from = c->at;
        int least = 0, most = ENDLESS, how = GREEDY, fixed = 0;
        Node *repeat;
        if (accept(c, "?")) most = 1;
        else if (accept(c, "+")) least = 1;
        else if (interval(c, &least, &most)) fixed = 1;
        else if (!accept(c, "*")) return n;
        if (!(fixed && least == most) && accept(c, "?")) how = LAZY;
        else if (!fixed && accept(c, "+")) how = POSSESSIVE;
        if (how == POSSESSIVE && n->type != NODE_CHAR)
            refuse(c, E_UNSUPPORTED, "a regular expression with a possessive group is not supported", from);
        repeat = new_node(c, most ? NODE_REPEAT : NODE_EMPTY);
        if (c->code || n->type == NODE_EMPTY) return n;
        repeat->child = n;
        repeat->least = least; repeat->most = most; repeat->how = how;
        n = repeat;
    }
}

/* With the option x: reads white space and comments. */
static void skip_spaces(Compiler *c) {
    while (c->spaced && more(c)) {
        char s = c->pattern.text[c->at];
        if (s == '#') while (more(c) && c->pattern.text[c->at] != '\n') c->at++;
        else if (s == ' ' || (s >= 9 && s <= 13)) c->at++;
        else return;
    }
}

static Node *parse_row(Compiler *c) {
    Node *row = new_node(c, NODE_ROW), **end = &row->child;
    for (skip_spaces(c); more(c) && !peek(c, "|") && !peek(c, ")"); skip_spaces(c)) {
        Node *n = parse_quantifiers(c, parse_atom(c));
        if (c->code) return row;
        if (n->type == NODE_EMPTY) continue;
        *end = n;
        end = &n->next;
    }
    if (!row->child) row->type = NODE_EMPTY;
    return row->child && !row->child->next ? row->child : row;
}

static Node *parse_either(Compiler *c) {
    Node *n = new_node(c, NODE_EITHER), **end = &n->child;
    do {
        Node *row = parse_row(c);
        if (c->code) return n;
        *end = row;
        end = &row->next;
    } while (accept(c, "|"));
    return n->child->next ? n : n->child;
}

/* ==============================================================================================
 * The program
 * ============================================================================================== */
static int emit(Compiler *c, const Node *n, int next);

static int new_place(Compiler *c, int op, int set, int to) {
    Place *p;
    if (c->places == PLACES) refuse(c, E_UNSUPPORTED, "a regular expression that is too long", 0);
    if (c->code) return 0;
    p = &c->place[c->places];
    memset(p, 0, sizeof *p);
    p->op = op; p->set = set; p->to = to;
    return c->places++;
}

/* Returns a SPLIT that prefers `body` to `leave`, or with lazy 1 `leave`. */
static void set_split(Compiler *c, int place, int body, int leave, int lazy) {
    c->place[place].to = lazy ? leave : body;
    c->place[place].other = lazy ? body : leave;
}

/* A possessive repeat of a set ends only where no further character of the set follows. */
static int emit_repeat(Compiler *c, const Node *n, int next) {
    int entry = next, leave = next, i, split;
    if (n->how == POSSESSIVE) {
        UnicodeList set = c->set[n->child->set];
        const Node *look;
        need(c, charset_not(&set, c->pool));
        look = set_node(c, NODE_LOOK, set);
        leave = new_place(c, PLACE_LOOK, look->set, next);
        c->place[leave].end = 1;
    }
    if (n->most == ENDLESS) {
        entry = new_place(c, PLACE_SPLIT, 0, 0);
        set_split(c, entry, emit(c, n->child, entry), leave, n->how == LAZY);
    }
    for (i = n->least; i < n->most && !c->code; i++) {
        split = new_place(c, PLACE_SPLIT, 0, 0);
        set_split(c, split, emit(c, n->child, entry), leave, n->how == LAZY);
        entry = split;
    }
    for (i = 0; i < n->least && !c->code; i++) entry = emit(c, n->child, entry);
    return entry;
}

/* Adds the places of the nodes from n on, one after the other. */
static int emit_row(Compiler *c, const Node *n, int next) {
    return n ? emit(c, n, emit_row(c, n->next, next)) : next;
}

static int emit_either(Compiler *c, const Node *n, int next) {
    int split;
    if (!n->next) return emit(c, n, next);
    split = new_place(c, PLACE_SPLIT, 0, 0);
    set_split(c, split, emit(c, n, next), emit_either(c, n->next, next), 0);
    return split;
}

/* Adds the places of n to the program, after which it goes on at the place `next`. Returns the
 * first place of n. */
static int emit(Compiler *c, const Node *n, int next) {
    int place;
    if (c->code || n->type == NODE_EMPTY) return next;
    if (n->type == NODE_ROW) return emit_row(c, n->child, next);
    if (n->type == NODE_EITHER) return emit_either(c, n->child, next);
    if (n->type == NODE_REPEAT) return emit_repeat(c, n, next);
    place = new_place(c, n->type == NODE_CHAR ? PLACE_CHAR : n->type == NODE_LOOK ? PLACE_LOOK :
                      n->type == NODE_AHEAD ? PLACE_AHEAD : PLACE_BEFORE, n->set, next);
    c->place[place].end = n->end;
    c->place[place].mask = n->mask;
    return place;
}

/* ==============================================================================================
 * Classes of characters: two characters are in one class if each set has both of them or neither
 * ============================================================================================== */
enum { CLASSES = 255 };

static int compare_edges(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Splits the classes of the intervals so that each is inside or outside of the set. Returns the
 * number of classes. */
static int refine(const UnicodeList *set, const uint32_t *edge, unsigned char *class_of, size_t edges,
                  int classes) {
    int seen[CLASSES + 1], to[CLASSES + 1], side, k;
    size_t i, at;
    for (k = 0; k <= CLASSES; k++) { seen[k] = 0; to[k] = k; }
    for (side = 0; side < 2; side++) {      /* first looks, then splits */
        for (i = at = 0; i < edges; i++) {
            while (at < set->items && set->item[at] <= edge[i]) at++;
            k = class_of[i];
            if (!side) seen[k] |= at % 2 ? 1 : 2;
            else if (at % 2) class_of[i] = (unsigned char)to[k];
        }
        for (k = 0; k <= CLASSES && !side; k++)
            if (seen[k] == 3) to[k] = classes < CLASSES ? classes++ : CLASSES;
    }
    return classes;
}

/* Sorts all characters into classes. */
static void classify(Compiler *c, Regex *r) {
    size_t all = 1, n = 0, i;
    uint32_t *edge;
    unsigned char *class_of;
    int k, classes = 1;
    for (k = 0; k < c->sets; k++) all += c->set[k].items;
    edge = pool_take(c->pool, all, sizeof *edge);
    class_of = pool_take(c->pool, all, 1);
    if (!edge || !class_of) { out_of_memory(c); return; }
    for (all = 1, k = 0; k < c->sets; k++)
        for (i = 0; i < c->set[k].items; i++) edge[all++] = c->set[k].item[i];
    qsort(edge, all, sizeof *edge, compare_edges);
    for (i = 0; i < all; i++) if (!i || edge[i] != edge[n - 1]) edge[n++] = edge[i];
    for (k = 0; k < c->sets; k++) classes = refine(&c->set[k], edge, class_of, n, classes);
    if (classes == CLASSES)
        refuse(c, E_UNSUPPORTED, "a regular expression with too many different characters", 0);
    for (all = i = 0; i < n; i++) {
        if (i && class_of[i] == class_of[all - 1]) continue;
        edge[all] = edge[i];
        class_of[all++] = class_of[i];
    }
    r->edge = edge; r->class_of = class_of; r->edges = all;
    r->symbols = (size_t)classes + 1;
    r->width = r->symbols << c->aheads;
}

/* Returns the class of a character beyond ASCII. */
static size_t wide_symbol(const Regex *r, int32_t code) {
    size_t low = 0, high = r->edges;        /* edge[low - 1] <= code < edge[high] */
    uint32_t wanted = code < 0 ? 0xFFFD : (uint32_t)code;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (r->edge[middle] <= wanted) low = middle + 1; else high = middle;
    }
    return r->class_of[low - 1];
}

/* ==============================================================================================
 * The table of states
 * ============================================================================================== */

/* A list of places, the most wanted one first. cut 1: it ends with MATCH, and no other place is added. */
typedef struct { int *place, n, cut; } List;

/* has[set * symbols + s] 1: the set has the characters of class s. seen: the last `round` in which a place
 * was added. list (states): the places of each state, the BEFORE_ in front of them. */
typedef struct {
    Compiler *c; Regex *r;
    unsigned char *has;
    int *seen, round;
    List now, then;
    Table known; int **list, *length, states;
    uint32_t *next;
    size_t room;                            /* in states */
} Builder;

/* Adds the places to which `place` leads without reading a character. before: what is before (BEFORE_).
 * column: the class of the next character and which look-aheads match; -1: not known yet, and each LOOK and
 * AHEAD is added itself. */
static void follow(Builder *b, List *list, int place, int before, int column) {
    const Place *p = &b->c->place[place];
    int symbols = (int)b->r->symbols;
    if (list->cut || b->seen[place] == b->round) return;
    b->seen[place] = b->round;
    if (p->op == PLACE_SPLIT) {
        follow(b, list, p->to, before, column);
        follow(b, list, p->other, before, column);
    } else if (p->op == PLACE_BEFORE) {
        if (p->mask >> before & 1) follow(b, list, p->to, before, column);
    } else if (p->op == PLACE_LOOK && column >= 0) {
        int symbol = column % symbols, end = symbol + 1 == symbols;
        if (end ? p->end : b->has[p->set * symbols + symbol]) follow(b, list, p->to, before, column);
    } else if (p->op == PLACE_AHEAD && column >= 0) {
        if ((column / symbols >> p->set & 1) != p->end) follow(b, list, p->to, before, column);
    } else {
        list->place[list->n++] = place;
        list->cut = p->op == PLACE_MATCH;
    }
}

static void begin_list(Builder *b, List *list) { list->n = 1; list->cut = 0; b->round++; }

/* Makes room for twice as many states. */
static void more_states(Builder *b) {
    Pool *pool = b->c->pool;
    size_t room = b->room ? 2 * b->room : 16, states = (size_t)b->states;
    int **list = pool_take(pool, room, sizeof *list), *length = pool_take(pool, room, sizeof *length);
    uint32_t *next = pool_take(pool, room * b->r->width, sizeof *next);
    if (!list || !length || !next) { out_of_memory(b->c); return; }
    if (b->room) {
        memcpy(list, b->list, states * sizeof *list);
        memcpy(length, b->length, states * sizeof *length);
        memcpy(next, b->next, states * b->r->width * sizeof *next);
    }
    b->list = list; b->length = length; b->next = next;
    b->room = room;
}

/* Returns the number of the state with a list of places, which is a new one if the list is new. An empty
 * list is state 0. */
static int state_of(Builder *b, List *list, int before) {
    Compiler *c = b->c;
    size_t bytes = (size_t)list->n * sizeof *list->place;
    int *copy, known;
    if (list->n == 1) return 0;
    list->place[0] = c->looks_back ? before : 0;
    known = table_find(&b->known, (const char *)list->place, bytes);
    if (known >= 0) return known;
    if (((size_t)b->states + 1) * b->r->width > ENTRIES)
        refuse(c, E_UNSUPPORTED, "a regular expression that needs too many states", 0);
    else if ((size_t)b->states == b->room) more_states(b);
    if (c->code) return 0;
    copy = pool_take(c->pool, (size_t)list->n, sizeof *copy);
    if (!copy) { out_of_memory(c); return 0; }
    memcpy(copy, list->place, bytes);
    if (table_add(&b->known, c->pool, (const char *)copy, bytes, b->states)) { out_of_memory(c); return 0; }
    b->list[b->states] = copy;
    b->length[b->states] = list->n;
    return b->states++;
}

/* Fills the row of a state: for each class of characters and each set of look-aheads that match, whether a
 * match ends before the character, and the state after it. */
static void fill_row(Builder *b, int state) {
    Compiler *c = b->c;
    Regex *r = b->r;
    const int *list = b->list[state];
    size_t column;
    int i, k, to;
    for (column = 0; column < r->width && !c->code; column++) {
        size_t s = column % r->symbols;
        int end = s + 1 == r->symbols, before = end || !r->before ? BEFORE_OTHER : r->before[s];
        begin_list(b, &b->now);
        for (i = 1; i < b->length[state]; i++) follow(b, &b->now, list[i], list[0], (int)column);
        begin_list(b, &b->then);
        for (k = 1; k < b->now.n && !end; k++) {
            const Place *p = &c->place[b->now.place[k]];
            if (p->op == PLACE_CHAR && b->has[(size_t)p->set * r->symbols + s])
                follow(b, &b->then, p->to, before, -1);
        }
        to = state_of(b, &b->then, before);
        b->next[(size_t)state * r->width + column] =
            (uint32_t)(2 * (size_t)to * r->width) | (uint32_t)b->now.cut;
    }
}

/* Notes which sets have the characters of each class, and which BEFORE_ each class is. */
static void fill_classes(Builder *b, const UnicodeList *word) {
    Compiler *c = b->c;
    Regex *r = b->r;
    unsigned char *before = c->looks_back ? pool_take(c->pool, r->symbols, 1) : NULL;
    size_t i;
    int32_t code;
    int k;
    if (c->looks_back && !before) { out_of_memory(c); return; }
    for (i = 0; i < r->edges; i++) {
        size_t s = r->class_of[i];
        code = (int32_t)r->edge[i];
        for (k = 0; k < c->sets; k++)
            b->has[(size_t)k * r->symbols + s] = (unsigned char)unicode_inside(&c->set[k], code);
        if (before)
            before[s] = code == '\n' ? BEFORE_LINE : unicode_inside(word, code) ? BEFORE_WORD : BEFORE_OTHER;
    }
    for (code = 0; code < 128; code++) r->ascii[code] = (unsigned char)wide_symbol(r, code);
    r->before = before;
}

/* Copies a part of the result to the memory that is kept. */
static void *keep(Compiler *c, const void *from, size_t bytes) {
    void *to = c->code ? NULL : pool_take(c->keep, bytes, 1);
    if (to) memcpy(to, from, bytes); else out_of_memory(c);
    return to;
}

/* Builds the table of the program, which begins at the place `first`. */
static void build(Compiler *c, Regex *r, int first, const UnicodeList *word) {
    Builder b;
    size_t places = (size_t)c->places;
    int state, before;
    memset(&b, 0, sizeof b);
    b.c = c; b.r = r; b.states = 1;
    b.has = pool_take(c->pool, (size_t)c->sets * r->symbols + 1, 1);
    b.seen = pool_take(c->pool, places, sizeof *b.seen);
    b.now.place = pool_take(c->pool, places + 1, sizeof *b.now.place);
    b.then.place = pool_take(c->pool, places + 1, sizeof *b.then.place);
    if (!b.has || !b.seen || !b.now.place || !b.then.place) { out_of_memory(c); return; }
    more_states(&b);
    fill_classes(&b, word);
    for (before = 0; before < BEFORES && !c->code; before++) {
        begin_list(&b, &b.then);
        follow(&b, &b.then, first, before, -1);
        r->start[before] = (uint32_t)((size_t)state_of(&b, &b.then, before) * r->width);
    }
    for (state = 1; state < b.states && !c->code; state++) fill_row(&b, state);
    r->next = keep(c, b.next, (size_t)b.states * r->width * sizeof *b.next);
}

/* Compiles the pattern of c. word: the set of \w, if looks_back is 1. */
static void compile(Compiler *c, Regex *r) {
    UnicodeList word = { NULL, 0 }, line = word;
    Node *tree;
    int first;
    c->set = pool_take(c->pool, SETS, sizeof *c->set);
    c->place = pool_take(c->pool, PLACES, sizeof *c->place);
    if (!c->set || !c->place) { out_of_memory(c); return; }
    tree = parse_either(c);
    if (more(c)) refuse(c, E_FORMAT, "a regular expression with a bracket too many", c->at);
    if (c->looks_back && !c->code) {        /* the classes have to tell what is before a place */
        need(c, charset_escape(&word, 'w', 1, c->pool));
        need(c, charset_range(&line, '\n', '\n', c->pool));
        set_node(c, NODE_CHAR, word);
        set_node(c, NODE_CHAR, line);
    }
    first = emit(c, tree, new_place(c, PLACE_MATCH, 0, 0));
    if (!c->code) classify(c, r);
    if (!c->code) build(c, r, first, &word);
    r->edge = keep(c, r->edge, r->edges * sizeof *r->edge);
    r->class_of = keep(c, r->class_of, r->edges);
    if (c->looks_back) r->before = keep(c, r->before, r->symbols);
    r->aheads = c->aheads;
    if (c->aheads) r->ahead = keep(c, c->ahead, (size_t)c->aheads * sizeof *c->ahead);
}

int regex_compile(Regex *r, Text pattern, Pool *pool, Error *err) {
    Compiler c;
    Pool scratch;
    memset(&c, 0, sizeof c);
    memset(&scratch, 0, sizeof scratch);
    memset(r, 0, sizeof *r);
    scratch.source = pool->source;
    scratch.sink = pool->sink;
    c.pool = &scratch; c.keep = pool; c.err = err; c.pattern = pattern;
    /* a class makes new lists for each of its items, so that a very long one would take gigabytes */
    if (pattern.length > LENGTH) refuse(&c, E_UNSUPPORTED, "a regular expression that is too long", 0);
    else compile(&c, r);
    pool_free(&scratch);
    return c.code;
}

/* ==============================================================================================
 * Matching
 * ============================================================================================== */

/* Returns the class of the character at s.text[at], and its length; at the end the last class. */
static inline size_t symbol_at(const Regex *r, Text s, size_t at, size_t *length) {
    int32_t code;
    *length = 1;
    if (at == s.length) return r->symbols - 1;
    code = (unsigned char)s.text[at];
    if (code < 128) return r->ascii[code];
    *length = (size_t)utf8_decode(s.text + at, s.length - at, &code);
    return wide_symbol(r, code);
}

/* Returns the first state for a match that begins at s.text[at]. */
static uint32_t first_state(const Regex *r, Text s, size_t at) {
    size_t k = at, length;
    if (!at || !r->before) return r->start[BEFORE_TEXT];
    do k--; while (k && at - k < 4 && ((unsigned char)s.text[k] & 0xC0) == 0x80);
    return r->start[r->before[symbol_at(r, s, k, &length)]];
}

/* Returns 1 if a look-ahead, which has none in it, matches at s.text[at]. */
static int matches(const Regex *r, Text s, size_t at) {
    uint32_t state = first_state(r, s, at), next;
    size_t length;
    for (; state; state = next >> 1, at += length) {
        next = r->next[state + symbol_at(r, s, at, &length)];
        if (next & 1) return 1;
    }
    return 0;
}

/* Returns the column for the next character: its class, and which look-aheads match; and its length. */
static inline size_t column_at(const Regex *r, Text s, size_t at, size_t *length) {
    size_t column = symbol_at(r, s, at, length);
    int k;
    for (k = 0; k < r->aheads; k++) if (matches(&r->ahead[k], s, at)) column += r->symbols << k;
    return column;
}

/* Returns 1, and sets *to, if a match begins at s.text[at]; else 0. *trail: a state just before s.text[at]
 * from which no match was found; 0: there is none. As soon as this match is in the same state at the same
 * place, it fails, too. Without that, "\s+$" would read a long run of spaces once for each of them. *trail
 * becomes such a state for the next place. */
static int match_beside(const Regex *r, Text s, size_t at, size_t *to, uint32_t *trail) {
    uint32_t state = first_state(r, s, at), old = *trail;
    size_t length, column = column_at(r, s, at, &length);
    int found = 0;
    *trail = state ? r->next[state + column] >> 1 : 0;
    while (state && state != old) {
        uint32_t next = r->next[state + column];
        if (next & 1) { *to = at; found = 1; }
        state = next >> 1;
        old = old && !found ? r->next[old + column] >> 1 : 0;
        if (!state) break;
        at += length;
        column = column_at(r, s, at, &length);
    }
    return found;
}

int regex_find(const Regex *r, Text s, size_t at, size_t *from, size_t *to) {
    uint32_t trail = 0;
    size_t length;
    for (; at <= s.length; at += length) {
        if (match_beside(r, s, at, to, &trail)) { *from = at; return 1; }
        symbol_at(r, s, at, &length);
    }
    return 0;
}
