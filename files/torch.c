/* files/torch.c - lists the tensors of PyTorch's checkpoint files (torch.save of a state dict), and reads
 * their numbers.
 * Source   PKWARE's APPNOTE.TXT (the zip container: stored entries, zip64); torch/serialization.py and
 *          torch/_utils.py (what torch puts into it, and the legacy container before torch 1.6); Python's
 *          pickletools (the pickle opcodes).
 * Needs    core, quant, io, files/fields; a pool for names and places. <stdio.h> for snprintf only.
 * Never    executes anything. A pickle is a program that may call any function of Python. The machine below
 *          has only the opcodes and the few functions that build a dict of tensors, and refuses every other
 *          function by its name.
 * Edges    any number in a file may be hostile: depth, memo indices, sizes, strides, offsets, entries that
 *          overlap. Whatever sizes a file announces, memory is at most 100 times the pickle (which is at most
 *          16 MB) and a few times a zip's directory; time is linear except for sorting. Views may have any
 *          strides; several tensors may share a storage (tied weights); a storage may have a type that
 *          torch_read refuses. */
#include "files.h"
#include <stdio.h>

enum { WINDOW = 4096,                           /* bytes of a pickle or a storage that are read at a time */
       PICKLE_MAX = 1 << 24, DIRECTORY_MAX = 1 << 26, DIMS_MAX = 64, NAME_LIMIT = 1024 };
static const char HERE[] = "PyTorch checkpoint";    /* `where` of errors: only the caller knows the path */

/* ---- values of the pickle machine ---- */

/* OTHER: a value of a kind that no tensor needs (a float, a large integer, a device). UNSET: a memo
 * that was not written. */
enum { UNSET, MARK, NOTHING, TRUTH, INTEGER, TEXT, OTHER, TUPLE, LIST, DICT, GLOBAL, STORAGE, TENSOR };
typedef struct Value Value;
typedef struct Link Link;
typedef struct TorchStorage TorchStorage;
typedef struct View View;
/* The items of a list or a dict, in order. Several values of the pickle machine may share the same items. */
typedef struct { Link *first, *last; } Chain;
struct Value {
    int type, count;    /* count: items of a tuple, bytes of a text, or a global's index in `globals` */
    union {
        int64_t integer; const char *text; const Value *item; Chain *chain; TorchStorage *storage; View *view;
    } is;
};
struct Link { Value key, value; Link *next; };  /* a list's links have no key */
struct TorchStorage {
    const char *key; int dtype, width;          /* width: bytes of an element */
    uint64_t elements, at;    /* at: the byte in the file where the storage begins; 0: not known yet */
    /* In a legacy file a storage may be a window of another storage: its `span` elements from `first` on. */
    uint64_t first, span;
    TorchStorage *next;
};
struct View {
    const TorchStorage *storage; uint64_t first; int dims; uint64_t shape[TORCH_DIMS], stride[TORCH_DIMS];
};

enum { ORDERED_DICT, REBUILD_TENSOR, REBUILD_PARAMETER, SIZE, DEVICE, STORAGE_TYPE };
/* The functions and types of Python that a file may name. dtype -1: a type that torch_read refuses. */
static const struct { const char *module, *name; int kind, dtype, width; } globals[] = {
    { "collections", "OrderedDict", ORDERED_DICT, 0, 0 },
    { "torch._utils", "_rebuild_tensor_v2", REBUILD_TENSOR, 0, 0 },
    { "torch._utils", "_rebuild_parameter", REBUILD_PARAMETER, 0, 0 },
    { "torch", "Size", SIZE, 0, 0 }, { "torch", "device", DEVICE, 0, 0 },
    { "torch", "FloatStorage", STORAGE_TYPE, F32, 4 }, { "torch", "HalfStorage", STORAGE_TYPE, F16, 2 },
    { "torch", "BFloat16Storage", STORAGE_TYPE, BF16, 2 }, { "torch", "DoubleStorage", STORAGE_TYPE, -1, 8 },
    { "torch", "LongStorage", STORAGE_TYPE, -1, 8 }, { "torch", "IntStorage", STORAGE_TYPE, -1, 4 },
    { "torch", "ShortStorage", STORAGE_TYPE, -1, 2 }, { "torch", "CharStorage", STORAGE_TYPE, -1, 1 },
    { "torch", "ByteStorage", STORAGE_TYPE, -1, 1 }, { "torch", "BoolStorage", STORAGE_TYPE, -1, 1 },
    { "torch", "ComplexFloatStorage", STORAGE_TYPE, -1, 8 },
    { "torch", "ComplexDoubleStorage", STORAGE_TYPE, -1, 16 },
};
enum { GLOBALS = sizeof globals / sizeof *globals };

/* ---- the pickle machine: a stack, a memo, and bytes that are read once. After an error `code` is set, and
 * every further call does nothing. ---- */

typedef struct {
    /* at: the byte of the file where the window begins; begin, end: where the pickle begins and ends */
    File *file; uint64_t at, begin, end;
    size_t next, have; unsigned char window[WINDOW];
    Value *stack; size_t depth, stack_room;
    Value *memo; size_t memos, memo_room;
    TorchStorage *storages;                     /* all storages that the pickle names, the last one first */
    Pool *pool; Error *err; int code;
} Machine;

static uint64_t position(const Machine *m) { return m->at + m->next; }

/* Records the first error, "WHAT NAME (byte N of the pickle)", and returns 0. */
static int stop(Machine *m, int code, const char *what, const char *name) {
    unsigned long long at = position(m) - m->begin;
    if (m->code == OK)
        m->code = refuse(m->err, code, HERE, "%.60s%.70s (byte %llu of the pickle)", what, name, at);
    return 0;
}

static int no_memory(Machine *m) {
    if (m->code == OK) m->code = fail(m->err, E_MEMORY, "memory for the names of tensors", HERE, 0, 0);
    return 0;
}

/* Reads the next n bytes of the pickle into out (NULL: skips them). Returns 1, or 0 after an error. */
static int take(Machine *m, void *out, uint64_t n) {
    unsigned char *to = out;
    if (m->code != OK) return 0;
    if (n > m->end - position(m)) return stop(m, E_TRUNCATED, "the pickle ends too early", "");
    while (n > 0) {
        size_t part;
        if (m->next == m->have) {
            m->at += m->have;
            m->next = 0;
            m->have = m->end - m->at < WINDOW ? (size_t)(m->end - m->at) : WINDOW;
            m->code = file_read_at(m->file, m->at, m->window, m->have, m->err);
            if (m->code != OK) { m->have = 0; return 0; }
        }
        part = n < m->have - m->next ? (size_t)n : m->have - m->next;
        if (to) { memcpy(to, m->window + m->next, part); to += part; }
        m->next += part;
        n -= part;
    }
    return 1;
}

/* Reads a little-endian number of n bytes, n <= 8. Returns it, or 0 after an error. */
static uint64_t number(Machine *m, int n) {
    unsigned char b[8] = { 0 };
    Reader r = { b, b + 8, 0 };
    return take(m, b, (uint64_t)n) ? read_u64(&r) : 0;
}

/* Makes room for `need` values in an array that holds `used`, by doubling. Returns 0 after an error. */
static int reserve(Machine *m, Value **array, size_t *room, size_t used, size_t need) {
    size_t more = *room ? *room : 64;
    Value *grown;
    if (need <= *room) return 1;
    while (more < need) more *= 2;              /* need is at most the pickle's size, 2^24 */
    grown = pool_take(m->pool, more, sizeof *grown);
    if (!grown) return no_memory(m);
    if (used) memcpy(grown, *array, used * sizeof *grown);
    *array = grown;
    *room = more;
    return 1;
}

static int push(Machine *m, Value v) {
    if (m->code != OK || !reserve(m, &m->stack, &m->stack_room, m->depth, m->depth + 1)) return 0;
    m->stack[m->depth++] = v;
    return 1;
}

static Value value(int type, int64_t integer) {
    Value v;
    v.type = type;
    v.count = 0;
    v.is.integer = integer;
    return v;
}

/* Removes the value on top of the stack and returns it. An empty stack, or a mark on top, is an error. */
static Value pop(Machine *m) {
    if (m->code == OK && (m->depth == 0 || m->stack[m->depth - 1].type == MARK))
        stop(m, E_FORMAT, "the stack is empty", "");
    return m->code == OK ? m->stack[--m->depth] : value(NOTHING, 0);
}

/* Removes the last mark and the values above it from the stack. Returns the first of these *count values,
 * which stay in memory until the next push. */
static const Value *pop_mark(Machine *m, int *count) {
    size_t from = m->depth;
    *count = 0;
    if (m->code != OK) return NULL;
    while (from > 0 && m->stack[from - 1].type != MARK) from--;
    if (from == 0) { stop(m, E_FORMAT, "no mark on the stack", ""); return NULL; }
    *count = (int)(m->depth - from);
    m->depth = from - 1;
    return m->stack + from;
}

static int push_text(Machine *m, uint64_t n) {
    Value v = value(TEXT, 0);
    char *text;
    if (m->code != OK) return 0;
    if (n > m->end - position(m)) return stop(m, E_TRUNCATED, "the pickle ends within a text", "");
    text = pool_take(m->pool, (size_t)n + 1, 1);
    if (!text) return no_memory(m);
    v.count = (int)n;
    v.is.text = text;
    return take(m, text, n) && push(m, v);
}

/* Returns a value's text, or NULL if the value is not a text or holds a NUL. */
static const char *text_of(const Value *v) {
    return v->type == TEXT && strlen(v->is.text) == (size_t)v->count ? v->is.text : NULL;
}

static int push_tuple(Machine *m, const Value *from, int count) {
    Value v = value(TUPLE, 0), *item;
    if (m->code != OK) return 0;
    item = pool_take(m->pool, (size_t)count, sizeof *item);
    if (!item) return no_memory(m);
    if (count) memcpy(item, from, (size_t)count * sizeof *item);
    v.count = count;
    v.is.item = item;
    return push(m, v);
}

/* Pushes an empty list or dict. */
static int push_chain(Machine *m, int type) {
    Value v = value(type, 0);
    if (m->code != OK) return 0;
    v.is.chain = pool_take(m->pool, 1, sizeof *v.is.chain);
    return v.is.chain ? push(m, v) : no_memory(m);
}

/* Appends `count` values to the list on top of the stack, or, for type DICT, keys and values to the dict. */
static int extend(Machine *m, int type, const Value *item, int count) {
    int width = type == DICT ? 2 : 1;
    Chain *c;
    if (m->code != OK) return 0;
    if (m->depth == 0 || m->stack[m->depth - 1].type != type || count % width)
        return stop(m, E_FORMAT, "items, but there is no ", type == DICT ? "dict" : "list");
    c = m->stack[m->depth - 1].is.chain;
    for (int i = 0; i < count; i += width) {
        Link *l = pool_take(m->pool, 1, sizeof *l);
        if (!l) return no_memory(m);
        l->key = item[i];
        l->value = item[i + width - 1];
        if (c->last) c->last->next = l; else c->first = l;
        c->last = l;
    }
    return 1;
}

/* Returns the value of a key in a dict, or NULL. If a key is there twice, its last value
 * counts, as in Python. */
static const Value *dict_get(const Value *dict, const char *key) {
    const Value *found = NULL;
    const char *name;
    if (dict->type != DICT) return NULL;
    for (const Link *l = dict->is.chain->first; l; l = l->next) {
        name = text_of(&l->key);
        if (name && strcmp(name, key) == 0) found = &l->value;
    }
    return found;
}

/* Copies the value on top of the stack to memo `index`. Picklers number memos in order, and each memo takes
 * bytes of the pickle: so an index above the number of bytes read so far is refused. */
static int memo_put(Machine *m, uint64_t index) {
    if (m->code != OK) return 0;
    if (m->depth == 0 || m->stack[m->depth - 1].type == MARK)
        return stop(m, E_FORMAT, "no value for a memo", "");
    if (index > position(m) - m->begin) return stop(m, E_RANGE, "memo index too large", "");
    if (!reserve(m, &m->memo, &m->memo_room, m->memos, (size_t)index + 1)) return 0;
    while (m->memos <= index) m->memo[m->memos++] = value(UNSET, 0);
    m->memo[index] = m->stack[m->depth - 1];
    return 1;
}

/* Pushes the value of memo `index`. */
static int memo_get(Machine *m, uint64_t index) {
    if (m->code != OK) return 0;
    if (index >= m->memos || m->memo[index].type == UNSET)
        return stop(m, E_FORMAT, "a memo that was not written", "");
    return push(m, m->memo[index]);
}

/* ---- Python's functions and types that a checkpoint may use ---- */

/* Pushes a function or type of the table `globals`. Refuses others by their name. */
static int push_global(Machine *m, const char *module, const char *name) {
    char full[192];
    Value v = value(GLOBAL, 0);
    for (v.count = 0; v.count < GLOBALS; v.count++)
        if (strcmp(globals[v.count].module, module) == 0 && strcmp(globals[v.count].name, name) == 0)
            return push(m, v);
    snprintf(full, sizeof full, "%.64s.%.64s", module, name);
    return stop(m, E_UNSUPPORTED, "not a plain state dict: it names ", full);
}

/* Reads one line, an argument of opcode GLOBAL, into out; a NUL replaces its newline.
 * Returns 0 after an error. */
static int take_line(Machine *m, char *out, size_t cap) {
    for (size_t n = 0; ; n++) {
        if (n == cap) return stop(m, E_FORMAT, "a name that is too long", "");
        if (!take(m, out + n, 1)) return 0;
        if (out[n] == '\n') { out[n] = 0; return 1; }
    }
}

/* Sets *out to v, a size, stride, offset or number of elements. Returns 0 if v is not an integer >= 0. */
static int count_of(const Value *v, uint64_t *out) {
    if (v->type != INTEGER || v->is.integer < 0) return 0;
    *out = (uint64_t)v->is.integer;
    return 1;
}

/* Replaces the tuple on top of the stack by the storage that it describes. The tuple is ("storage", type,
 * key, device, elements), and may have a sixth item, None or a window's (key, first, elements). */
static int persistent(Machine *m) {
    Value id = pop(m), v = value(STORAGE, 0);
    const Value *part = id.is.item;
    const char *kind, *key;
    TorchStorage *s;
    if (m->code != OK) return 0;
    kind = id.type == TUPLE && id.count > 0 ? text_of(&part[0]) : NULL;
    if (!kind || strcmp(kind, "storage") != 0)
        return stop(m, E_UNSUPPORTED, "persistent id ", kind ? kind : "that is not a tuple");
    key = id.count == 5 || id.count == 6 ? text_of(&part[2]) : NULL;
    if (!key || part[1].type != GLOBAL || globals[part[1].count].kind != STORAGE_TYPE)
        return stop(m, E_FORMAT, "persistent id of a storage without type and key", "");
    s = pool_take(m->pool, 1, sizeof *s);
    if (!s) return no_memory(m);
    s->key = key;
    s->dtype = globals[part[1].count].dtype;
    s->width = globals[part[1].count].width;
    if (!count_of(&part[4], &s->elements) || s->elements > file_size(m->file) / (uint64_t)s->width)
        return stop(m, E_RANGE, "more elements than the file can hold in storage ", key);
    s->span = s->elements;
    if (id.count == 6 && part[5].type != NOTHING) {
        const Value *w = part[5].is.item;
        if (part[5].type != TUPLE || part[5].count != 3 || !count_of(&w[1], &s->first)
            || !count_of(&w[2], &s->span) || s->first > s->elements || s->span > s->elements - s->first)
            return stop(m, E_RANGE, "a window outside of storage ", key);
    }
    s->next = m->storages;
    m->storages = s;
    v.is.storage = s;
    return push(m, v);
}

/* Pushes the tensor that the arguments (storage, first, sizes, strides, ...) describe: its element (i,j,..)
 * is element first + i stride_0 + j stride_1 + .. of the storage. Checks that its last element is inside the
 * storage. Dimensions past TORCH_DIMS are checked, but not kept. */
static int rebuild_tensor(Machine *m, const Value *arg, int args) {
    const Value *size = &arg[2], *stride = &arg[3];
    Value v = value(TENSOR, 0);
    uint64_t n = 1, last, shape, step;
    int empty = 0;
    View *view;
    if (args < 6 || args > 7 || arg[0].type != STORAGE || size->type != TUPLE || stride->type != TUPLE
        || size->count != stride->count)
        return stop(m, E_FORMAT, "_rebuild_tensor_v2 with other arguments", "");
    if (size->count > DIMS_MAX) return stop(m, E_UNSUPPORTED, "a tensor of more than 64 dimensions", "");
    view = pool_take(m->pool, 1, sizeof *view);
    if (!view) return no_memory(m);
    view->storage = arg[0].is.storage;
    view->dims = size->count;
    if (!count_of(&arg[1], &view->first))
        return stop(m, E_RANGE, "a tensor begins outside of storage ", view->storage->key);
    last = view->first;
    for (int d = 0; d < size->count; d++) {
        if (!count_of(&size->is.item[d], &shape) || !count_of(&stride->is.item[d], &step))
            return stop(m, E_RANGE, "a size or stride that is no count, in storage ", view->storage->key);
        if (shape && n > (uint64_t)INT64_MAX / shape)
            return stop(m, E_RANGE, "sizes that overflow, of a tensor in storage ", view->storage->key);
        n *= shape;
        if (shape == 0) { n = 1; empty = 1; }   /* the loop goes on: other sizes may overflow */
        if (shape > 1 && step > (view->storage->span - 1) / (shape - 1) && !empty)
            return stop(m, E_RANGE, "a tensor reaches beyond storage ", view->storage->key);
        last += shape && !empty ? (shape - 1) * step : 0;       /* <= (DIMS_MAX + 1) times the file's size */
        if (d < TORCH_DIMS) { view->shape[d] = shape; view->stride[d] = step; }
    }
    if (empty ? view->first > view->storage->span : last >= view->storage->span)
        return stop(m, E_RANGE, "a tensor reaches beyond storage ", view->storage->key);
    v.is.view = view;
    return push(m, v);
}

/* Replaces a function of the table `globals` and its arguments, a tuple, on the stack by the result. */
static int reduce(Machine *m) {
    Value arg = pop(m), function = pop(m);
    if (m->code != OK) return 0;
    if (function.type != GLOBAL || arg.type != TUPLE)
        return stop(m, E_FORMAT, "a call of something that is not a function", "");
    switch (globals[function.count].kind) {
    case ORDERED_DICT:
        if (arg.count) return stop(m, E_UNSUPPORTED, "OrderedDict with arguments", "");
        return push_chain(m, DICT);
    case REBUILD_TENSOR: return rebuild_tensor(m, arg.is.item, arg.count);
    case REBUILD_PARAMETER:
        if (arg.count < 1 || arg.is.item[0].type != TENSOR)
            return stop(m, E_FORMAT, "_rebuild_parameter without a tensor", "");
        return push(m, arg.is.item[0]);
    case SIZE:
        if (arg.count != 1 || arg.is.item[0].type != TUPLE)
            return stop(m, E_FORMAT, "torch.Size of a value that is not a tuple", "");
        return push(m, arg.is.item[0]);
    case DEVICE: return push(m, value(OTHER, 0));
    default: return stop(m, E_UNSUPPORTED, "a call of ", globals[function.count].name);
    }
}

/* ---- opcodes, in three groups: each function returns 1 if the opcode is in its group; m->code says whether
 * an error happened ---- */

/* Runs an opcode that pushes a number, a text or another constant. */
static int constant(Machine *m, int op) {
    uint64_t n;
    switch (op) {
    case 'N': push(m, value(NOTHING, 0)); return 1;                       /* NONE */
    case 0x88: case 0x89: push(m, value(TRUTH, op == 0x88)); return 1;    /* NEWTRUE, NEWFALSE */
    case 'K': push(m, value(INTEGER, (int64_t)number(m, 1))); return 1;   /* BININT1 */
    case 'M': push(m, value(INTEGER, (int64_t)number(m, 2))); return 1;   /* BININT2 */
    case 'J':                                                             /* BININT: signed */
        n = number(m, 4);
        push(m, value(INTEGER, (int64_t)n - (n >> 31 ? (int64_t)1 << 32 : 0)));
        return 1;
    case 0x8a:    /* LONG1: two's complement of any length */
        n = number(m, 1);
        if (n < 8) {
            uint64_t bits = number(m, (int)n), half = n ? (uint64_t)1 << (8 * n - 1) : 1;
            push(m, value(INTEGER, (int64_t)bits - (bits >= half && n ? (int64_t)half * 2 : 0)));
        } else { take(m, NULL, n); push(m, value(OTHER, 0)); }            /* too large for a size */
        return 1;
    case 'G': take(m, NULL, 8); push(m, value(OTHER, 0)); return 1;       /* BINFLOAT */
    case 'X': case 'T': push_text(m, number(m, 4)); return 1;             /* BINUNICODE, BINSTRING */
    case 0x8c: case 'U': push_text(m, number(m, 1)); return 1;    /* SHORT_BINUNICODE, SHORT_BINSTRING */
    default: return 0;
    }
}

/* Runs an opcode of tuples, lists and dicts. */
static int container(Machine *m, int op) {
    const Value *item;
    Value part[3];
    int count;
    switch (op) {
    case '(': push(m, value(MARK, 0)); return 1;
    case ')': push_tuple(m, NULL, 0); return 1;                           /* EMPTY_TUPLE */
    case 0x85: case 0x86: case 0x87:                                      /* TUPLE1, TUPLE2, TUPLE3 */
        count = op - 0x84;
        for (int i = count - 1; i >= 0; i--) part[i] = pop(m);
        push_tuple(m, part, count);
        return 1;
    case 't': item = pop_mark(m, &count); push_tuple(m, item, count); return 1;             /* TUPLE */
    case ']': push_chain(m, LIST); return 1;                              /* EMPTY_LIST */
    case '}': push_chain(m, DICT); return 1;                              /* EMPTY_DICT */
    case 'a': part[0] = pop(m); extend(m, LIST, part, 1); return 1;       /* APPEND */
    case 'e': item = pop_mark(m, &count); extend(m, LIST, item, count); return 1;           /* APPENDS */
    case 's': part[1] = pop(m); part[0] = pop(m); extend(m, DICT, part, 2); return 1;       /* SETITEM */
    case 'u': item = pop_mark(m, &count); extend(m, DICT, item, count); return 1;           /* SETITEMS */
    default: return 0;
    }
}

/* Runs an opcode of memos, names and calls. */
static int object(Machine *m, int op) {
    char module[128], name[128];
    Value v, w;
    switch (op) {
    case 0x80:                                                            /* PROTO */
        if (number(m, 1) > 5) stop(m, E_UNSUPPORTED, "pickle protocol above 5", "");
        return 1;
    case 0x95: take(m, NULL, 8); return 1;                                /* FRAME: a hint about length */
    case 'q': memo_put(m, number(m, 1)); return 1;                        /* BINPUT */
    case 'r': memo_put(m, number(m, 4)); return 1;                        /* LONG_BINPUT */
    case 0x94: memo_put(m, m->memos); return 1;                           /* MEMOIZE */
    case 'h': memo_get(m, number(m, 1)); return 1;                        /* BINGET */
    case 'j': memo_get(m, number(m, 4)); return 1;                        /* LONG_BINGET */
    case 'c':                                                             /* GLOBAL: two lines */
        if (take_line(m, module, sizeof module) && take_line(m, name, sizeof name))
            push_global(m, module, name);
        return 1;
    case 0x93:                                                            /* STACK_GLOBAL: two texts */
        w = pop(m);
        v = pop(m);
        if (m->code == OK && text_of(&v) && text_of(&w)) push_global(m, text_of(&v), text_of(&w));
        else stop(m, E_FORMAT, "a global without a name", "");
        return 1;
    case 'Q': persistent(m); return 1;                                    /* BINPERSID */
    case 'R': case 0x81: reduce(m); return 1;                             /* REDUCE, NEWOBJ */
    case 'b':    /* BUILD sets a state dict's _metadata: it is dropped, the dict stays */
        pop(m);
        if (m->code == OK && (m->depth == 0 || m->stack[m->depth - 1].type != DICT))
            stop(m, E_UNSUPPORTED, "BUILD of a value that is not a dict", "");
        return 1;
    default: return 0;
    }
}

static int unknown_opcode(Machine *m, int op) {
    static const struct { int op; char name[12]; } known[] = {
        { 'i', "INST" }, { 'o', "OBJ" }, { 'P', "PERSID" }, { 'I', "INT" }, { 'L', "LONG" }, { 'F', "FLOAT" },
        { 'S', "STRING" },
        { 'V', "UNICODE" }, { 'p', "PUT" }, { 'g', "GET" }, { 'd', "DICT" }, { 'l', "LIST" }, { '0', "POP" },
        { '2', "DUP" },
        { 'B', "BINBYTES" }, { 'C', "BINBYTES" }, { 0x82, "EXT1" }, { 0x83, "EXT2" }, { 0x84, "EXT4" },
        { 0x8b, "LONG4" },
        { 0x8f, "EMPTY_SET" }, { 0x91, "FROZENSET" }, { 0x92, "NEWOBJ_EX" } };
    char name[32];
    snprintf(name, sizeof name, "0x%02x", (unsigned)op);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].op == op) snprintf(name, sizeof name, "0x%02x %s", (unsigned)op, known[i].name);
    return stop(m, E_UNSUPPORTED, "not a plain state dict: pickle opcode ", name);
}

static void machine_init(Machine *m, File *f, Pool *pool, Error *err) {
    memset(m, 0, sizeof *m);
    m->file = f;
    m->pool = pool;
    m->err = err;
}

/* Runs the pickle that begins at byte `from` of the file and ends before byte `end`. Sets
 * *result to the value that it builds, and adds its storages to m->storages. Then position() is
 * the byte after the pickle. */
static int run(Machine *m, uint64_t from, uint64_t end, Value *result) {
    int op = 0;
    m->at = m->begin = from;
    m->end = end - from > PICKLE_MAX ? from + PICKLE_MAX : end;
    m->next = m->have = 0;
    m->depth = m->memos = 0;
    while (m->code == OK) {
        op = (int)number(m, 1);
        if (m->code != OK || op == '.') break;                                              /* STOP */
        if (!constant(m, op) && !container(m, op) && !object(m, op)) unknown_opcode(m, op);
    }
    *result = pop(m);
    if (m->code == OK && m->depth) stop(m, E_FORMAT, "values are left on the stack", "");
    return m->code;
}

/* ---- the zip container: its central directory gives the sizes, which torch's local headers lack ---- */

typedef struct { const char *name; uint64_t header, at, size; } Entry; /* at: where the entry's bytes begin */
typedef struct { File *file; uint64_t directory, bytes, count; Entry *entry; Pool *pool; Error *err; } Zip;

static int zip_name(const void *left, const void *right) { return strcmp(((const Entry *)left)->name,
        ((const Entry *)right)->name); }
static int zip_order(const void *left, const void *right) {
    const Entry *a = left, *b = right;
    return (a->header > b->header) - (a->header < b->header);
}

static int zip_broken(const Zip *z, const char *what) {
    return refuse(z->err, E_FORMAT, HERE, "zip: %s", what);
}

/* Reads zip64's end record, if there is one. It has 64-bit numbers and follows the central directory;
 * after it comes a locator, which gives its place. A number that fits into the old end record has to
 * be the same in both. *end is the byte where the old record begins; it becomes the byte where the
 * zip64 record begins. */
static int zip64_end(Zip *z, uint64_t *end) {
    unsigned char b[56];
    Reader r = { b, b + 20, 0 };
    uint64_t at, count, bytes, directory;
    int code;
    if (*end < 20 + 56) return OK;
    code = file_read_at(z->file, *end - 20, b, 20, z->err);
    if (code != OK) return code;
    if (read_u32(&r) != 0x07064b50) return OK;
    read_u32(&r);
    at = read_u64(&r);
    if (at > *end - 20 - 56) return zip_broken(z, "the zip64 record is not where its locator says");
    code = file_read_at(z->file, at, b, 56, z->err);
    if (code != OK) return code;
    r.at = b;
    r.end = b + 56;
    if (read_u32(&r) != 0x06064b50) return zip_broken(z, "the zip64 record is not where its locator says");
    read_bytes(&r, 12);                         /* its size, versions */
    if (read_u64(&r) != 0) return zip_broken(z, "an archive of several disks");
    count = read_u64(&r);
    if (read_u64(&r) != count) return zip_broken(z, "an archive of several disks");
    bytes = read_u64(&r);
    directory = read_u64(&r);
    if ((z->count != 0xFFFF && z->count != count) || (z->bytes != 0xFFFFFFFFu && z->bytes != bytes)
        || (z->directory != 0xFFFFFFFFu && z->directory != directory))
        return zip_broken(z, "its two end records do not agree");
    z->count = count;
    z->bytes = bytes;
    z->directory = directory;
    *end = at;
    return OK;
}

/* Reads the end record, after which only a comment may follow. Sets z->directory, bytes and count. */
static int zip_end(Zip *z) {
    uint64_t size = file_size(z->file), length = size < 22 + 65535 ? size : 22 + 65535, at = 0, end;
    unsigned char *tail = pool_take(z->pool, (size_t)length, 1);
    Reader r = { NULL, NULL, 0 };
    int code, found = 0;
    if (!tail) return fail(z->err, E_MEMORY, "memory for the names of tensors", HERE, 0, 0);
    code = file_read_at(z->file, size - length, tail, (size_t)length, z->err);
    if (code != OK) return code;
    for (at = length; at-- > 0 && !found; )
        if (length - at >= 22 && memcmp(tail + at, "PK\5\6", 4) == 0
            && (uint64_t)tail[at + 20] + 256u * tail[at + 21] == length - at - 22) { found = 1; break; }
    if (!found) return fail(z->err, E_TRUNCATED, "zip without its end (cut short?)", HERE, 0, 0);
    r.at = tail + at + 4;
    r.end = tail + length;
    if (read_u32(&r) != 0) return zip_broken(z, "an archive of several disks");
    z->count = read_u16(&r);
    if (read_u16(&r) != z->count) return zip_broken(z, "an archive of several disks");
    z->bytes = read_u32(&r);
    z->directory = read_u32(&r);
    end = size - length + at;
    code = zip64_end(z, &end);
    if (code != OK) return code;
    if (z->directory > end || z->bytes > end - z->directory || z->count > z->bytes / 46)
        return zip_broken(z, "the directory does not fit into the file");
    if (z->bytes > DIRECTORY_MAX)
        return refuse(z->err, E_UNSUPPORTED, HERE, "zip: a directory of more than 64 MB");
    return OK;
}

/* Reads zip64's extra field (id 1). It holds only those of size, compressed size and offset that are all ones
 * in the old record. Sets *bad to 1 if the field is too short. */
static void zip64_extra(const unsigned char *extra, unsigned length, uint64_t *size, uint64_t *packed,
                        uint64_t *header, int *bad) {
    Reader r = { extra, extra + length, 0 };
    while (r.end - r.at >= 4) {
        unsigned id = read_u16(&r), n = read_u16(&r);
        const unsigned char *bytes = read_bytes(&r, n);
        Reader e = { bytes, bytes ? bytes + n : NULL, bytes == NULL };
        if (id == 1 && bytes) {
            if (*size == 0xFFFFFFFFu) *size = read_u64(&e);
            if (*packed == 0xFFFFFFFFu) *packed = read_u64(&e);
            if (*header == 0xFFFFFFFFu) *header = read_u64(&e);
        }
        if (e.bad) *bad = 1;
        if (r.bad) return;
    }
}

/* Reads one record of the central directory into e. */
static int zip_record(Zip *z, Reader *r, Entry *e) {
    unsigned flags, method, name, extra, comment;
    const unsigned char *text, *more;
    uint64_t packed;
    int bad = 0;
    if (read_u32(r) != 0x02014b50) return zip_broken(z, "a directory record without its signature");
    read_u32(r);                                /* versions */
    flags = read_u16(r);
    method = read_u16(r);
    read_u64(r);                                /* time, date, checksum */
    packed = read_u32(r);
    e->size = read_u32(r);
    name = read_u16(r);
    extra = read_u16(r);
    comment = read_u16(r);
    read_u64(r);                                /* disk, attributes */
    e->header = read_u32(r);
    text = read_bytes(r, name);
    more = read_bytes(r, extra);
    read_bytes(r, comment);
    if (r->bad) return zip_broken(z, "the directory ends within a record");
    e->name = pool_text(z->pool, (const char *)text, name);
    if (!e->name) return fail(z->err, E_MEMORY, "memory for the names of tensors", HERE, 0, 0);
    if (!name || name > NAME_LIMIT || memchr(text, 0, name))
        return refuse(z->err, E_FORMAT, HERE, "zip: the entry name '%.80s'", e->name);
    zip64_extra(more, extra, &e->size, &packed, &e->header, &bad);
    if (bad) return refuse(z->err, E_FORMAT, HERE, "zip: the sizes of entry %.80s", e->name);
    if (flags & 1) return refuse(z->err, E_UNSUPPORTED, HERE, "zip: the encrypted entry %.80s", e->name);
    if (method != 0)
        return refuse(z->err, E_UNSUPPORTED, HERE,
                      "zip: the compressed entry %.80s (torch stores them plainly)", e->name);
    if (packed != e->size) return refuse(z->err, E_FORMAT, HERE, "zip: the sizes of entry %.80s", e->name);
    return OK;
}

/* Reads an entry's local header: 30 bytes, the name once more, extra bytes for alignment. The entry's bytes
 * follow, and have to end before byte `limit`, where the next entry (or the directory) begins. */
static int zip_local(Zip *z, Entry *e, uint64_t limit) {
    unsigned char b[30 + NAME_LIMIT];
    Reader r = { b, b + 30, 0 };
    size_t name = strlen(e->name);
    uint64_t skip;
    unsigned method;
    int code;
    if (e->header > limit || limit - e->header < 30 + name)
        return refuse(z->err, E_FORMAT, HERE, "zip: entry %.80s overlaps what follows", e->name);
    code = file_read_at(z->file, e->header, b, 30 + name, z->err);
    if (code != OK) return code;
    if (read_u32(&r) != 0x04034b50)
        return refuse(z->err, E_FORMAT, HERE, "zip: no header at entry %.80s", e->name);
    read_u32(&r);                               /* version, flags */
    method = read_u16(&r);
    read_bytes(&r, 16);                         /* time, date, checksum, sizes: the directory has them */
    if (read_u16(&r) != name || memcmp(b + 30, e->name, name) != 0 || method != 0)
        return refuse(z->err, E_FORMAT, HERE, "zip: entry %.80s has another header than its record", e->name);
    skip = 30 + name + read_u16(&r);
    if (skip > limit - e->header || e->size > limit - e->header - skip)
        return refuse(z->err, E_FORMAT, HERE, "zip: entry %.80s overlaps what follows", e->name);
    e->at = e->header + skip;
    return OK;
}

/* Reads the places of all entries, and sorts the entries by name. */
static int zip_open(Zip *z) {
    unsigned char *directory;
    Reader r;
    int code = zip_end(z);
    if (code != OK) return code;
    directory = pool_take(z->pool, (size_t)z->bytes, 1);
    z->entry = pool_take(z->pool, (size_t)z->count + 1, sizeof *z->entry);
    if (!directory || !z->entry) return fail(z->err, E_MEMORY, "memory for the names of tensors", HERE, 0, 0);
    code = file_read_at(z->file, z->directory, directory, (size_t)z->bytes, z->err);
    r.at = directory;
    r.end = directory + z->bytes;
    r.bad = 0;
    for (uint64_t i = 0; i < z->count && code == OK; i++) code = zip_record(z, &r, &z->entry[i]);
    if (code != OK) return code;
    if (r.at != r.end) return zip_broken(z, "the directory has bytes after its records");
    qsort(z->entry, (size_t)z->count, sizeof *z->entry, zip_order);
    for (uint64_t i = 0; i < z->count && code == OK; i++)
        code = zip_local(z, &z->entry[i], i + 1 < z->count ? z->entry[i + 1].header : z->directory);
    if (code != OK) return code;
    qsort(z->entry, (size_t)z->count, sizeof *z->entry, zip_name);
    for (uint64_t i = 1; i < z->count; i++)
        if (zip_name(&z->entry[i - 1], &z->entry[i]) == 0)
            return refuse(z->err, E_FORMAT, HERE, "zip: entry %.80s is there twice", z->entry[i].name);
    return OK;
}

/* Returns the entry whose name is ROOT/ + folder + name, or NULL if there is none. folder: "" or "data/". */
static const Entry *zip_find(const Zip *z, const char *root, int root_length, const char *folder,
                             const char *name) {
    char full[NAME_LIMIT + 2];
    Entry wanted = { full, 0, 0, 0 };
    int n = snprintf(full, sizeof full, "%.*s/%s%s", root_length, root, folder, name);
    if (n < 0 || (size_t)n >= sizeof full) return NULL;
    return bsearch(&wanted, z->entry, (size_t)z->count, sizeof *z->entry, zip_name);
}

/* Runs the pickle of a zip file, data.pkl, and finds the places of its storages. */
static int zip_index(Machine *m, Value *root) {
    Zip z = { NULL, 0, 0, 0, NULL, NULL, NULL };
    const Entry *pickle = NULL, *order;
    const char *folder = NULL;
    char endian[6] = "";
    int length = 0, code;
    z.file = m->file;
    z.pool = m->pool;
    z.err = m->err;
    code = zip_open(&z);
    if (code != OK) return code;
    for (uint64_t i = 0; i < z.count; i++) {
        const char *slash = strchr(z.entry[i].name, '/');
        if (!slash || strcmp(slash, "/data.pkl") != 0) continue;
        if (pickle) return zip_broken(&z, "data.pkl in two folders");
        pickle = &z.entry[i];
        folder = pickle->name;
        length = (int)(slash - folder);
    }
    if (!pickle) return fail(z.err, E_MISSING, "zip without data.pkl: not from torch.save", HERE, 0, 0);
    if (pickle->size > PICKLE_MAX)
        return refuse(z.err, E_UNSUPPORTED, HERE, "zip: a data.pkl of more than 16 MB");
    order = zip_find(&z, folder, length, "", "byteorder");
    if (order) {
        code = order->size == 6 ? file_read_at(z.file, order->at, endian, 6, z.err) : OK;
        if (code != OK) return code;
        if (order->size != 6 || memcmp(endian, "little", 6) != 0)
            return refuse(z.err, E_UNSUPPORTED, HERE, "zip: its byteorder is not little");
    }
    code = run(m, pickle->at, pickle->at + pickle->size, root);
    if (code == OK && position(m) != m->end) return zip_broken(&z, "data.pkl has bytes after its pickle");
    for (TorchStorage *s = m->storages; s && code == OK; s = s->next) {
        const Entry *e = zip_find(&z, folder, length, "data/", s->key);
        if (!e) return refuse(z.err, E_MISSING, HERE, "zip: entry data/%.80s, a storage, is missing", s->key);
        if (e->size != s->elements * (uint64_t)s->width)
            return refuse(z.err, E_FORMAT, HERE, "zip: entry data/%.80s is not as long as its storage",
                          s->key);
        s->at = e->at;
    }
    return code;
}

/* ---- the legacy container: five pickles (magic number, protocol, system, object, keys), then the elements
 * of each key's storage ---- */

static const unsigned char LEGACY[15] = { 0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8,
    0x50, 0x19, '.' };

static int by_key(const void *left, const void *right) {
    const TorchStorage *const *a = left, *const *b = right;
    return strcmp((*a)->key, (*b)->key);
}

/* Sorts m->storages by key into an array. Refuses storages that have the same key but differ. */
static int legacy_sort(Machine *m, TorchStorage ***sorted, size_t *count) {
    TorchStorage *s, **list;
    *count = 0;
    for (s = m->storages; s; s = s->next) ++*count;
    list = *sorted = pool_take(m->pool, *count + 1, sizeof **sorted);
    if (!list) return no_memory(m), m->code;
    *count = 0;
    for (s = m->storages; s; s = s->next) list[(*count)++] = s;
    qsort(list, *count, sizeof *list, by_key);
    for (size_t i = 1; i < *count; i++)
        if (by_key(&list[i - 1], &list[i]) == 0
            && (list[i - 1]->elements != list[i]->elements || list[i - 1]->dtype != list[i]->dtype
                || list[i - 1]->width != list[i]->width))
            return refuse(m->err, E_FORMAT, HERE, "storage %.80s is described in two ways", list[i]->key);
    return OK;
}

/* Finds the places of the storages of `keys`. They fill the file from byte `at` to its end; each is a u64,
 * the number of elements, and then the elements. */
static int legacy_storages(Machine *m, const Value *keys, uint64_t at) {
    uint64_t size = file_size(m->file), bytes;
    unsigned char b[8];
    TorchStorage **sorted;
    size_t count;
    int code = legacy_sort(m, &sorted, &count);
    for (const Link *l = keys->is.chain->first; l && code == OK; l = l->next) {
        const char *key = text_of(&l->value);
        Reader r = { b, b + 8, 0 };
        size_t low = 0, high = count;
        if (!key) return refuse(m->err, E_FORMAT, HERE, "a storage's key that is not a text");
        while (low < high) {                    /* search the first storage of that key */
            size_t middle = low + (high - low) / 2;
            if (strcmp(sorted[middle]->key, key) < 0) low = middle + 1; else high = middle;
        }
        if (low == count || strcmp(sorted[low]->key, key) != 0 || sorted[low]->at)
            return refuse(m->err, E_FORMAT, HERE, "storage %.80s is there twice, or belongs to no tensor",
                          key);
        code = file_read_at(m->file, at, b, 8, m->err);
        if (code != OK) return code;
        if (read_u64(&r) != sorted[low]->elements)
            return refuse(m->err, E_FORMAT, HERE, "storage %.80s has another size than its tensors say", key);
        at += 8;
        bytes = sorted[low]->elements * (uint64_t)sorted[low]->width;
        if (bytes > size - at)
            return fail(m->err, E_TRUNCATED, "the file ends within a storage", HERE, (long long)(size - at),
                        (long long)bytes);
        for (size_t i = low; i < count && strcmp(sorted[i]->key, key) == 0; i++) sorted[i]->at = at;
        at += bytes;
    }
    for (size_t i = 0; i < count && code == OK; i++)
        if (!sorted[i]->at)
            return refuse(m->err, E_MISSING, HERE, "storage %.80s is missing", sorted[i]->key);
    if (code == OK && at != size)
        return fail(m->err, E_FORMAT, "bytes after the last storage", HERE, (long long)size, (long long)at);
    return code;
}

/* Runs the five pickles of a legacy file, and finds the places of its storages. */
static int legacy_index(Machine *m, Value *root) {
    unsigned char b[sizeof LEGACY];
    uint64_t size = file_size(m->file);
    Value v;
    const Value *little;
    int code = file_read_at(m->file, 0, b, sizeof b, m->err);
    if (code != OK) return code;
    if (memcmp(b, LEGACY, sizeof b) != 0)
        return fail(m->err, E_FORMAT, "a pickle, but not from torch.save", HERE, 0, 0);
    if (run(m, sizeof b, size, &v) != OK) return m->code;
    if (v.type != INTEGER || v.is.integer != 1001)
        return refuse(m->err, E_UNSUPPORTED, HERE, "legacy file of another protocol than 1001");
    if (run(m, position(m), size, &v) != OK) return m->code;
    little = dict_get(&v, "little_endian");
    if (!little || little->type != TRUTH)
        return refuse(m->err, E_FORMAT, HERE, "legacy file without little_endian");
    if (!little->is.integer)
        return refuse(m->err, E_UNSUPPORTED, HERE, "legacy file of a big-endian machine");
    if (run(m, position(m), size, root) != OK || run(m, position(m), size, &v) != OK) return m->code;
    if (v.type != LIST) return refuse(m->err, E_FORMAT, HERE, "legacy file without a list of storages");
    return legacy_storages(m, &v, position(m));
}

/* ---- the state dict ---- */

static int by_tensor(const void *left, const void *right) {
    const TorchTensor *a = left, *b = right;
    return strcmp(a->name, b->name);
}

/* Returns the dict of tensors: root, or a dict in it that has one of three keys. The search goes at most four
 * levels deep, as a dict may hold itself. */
static Value state_dict(Value root) {
    static const char *const inner[] = { "state_dict", "model", "module" };
    for (int depth = 0; depth < 4; depth++) {
        const Value *v = NULL;
        for (int k = 0; k < 3 && !v; k++) {
            v = dict_get(&root, inner[k]);
            if (v && v->type != DICT) v = NULL;
        }
        if (!v) break;
        root = *v;
    }
    return root;
}

/* Lists the dict's tensors in *t, sorted by name. Other values are skipped. */
static int collect(TorchFile *t, const Value *dict, Pool *pool, Error *err) {
    size_t count = 0;
    if (dict->type != DICT) return fail(err, E_FORMAT, "not a dict of tensors", HERE, 0, 0);
    for (const Link *l = dict->is.chain->first; l; l = l->next) count += l->value.type == TENSOR;
    if (!count) return fail(err, E_MISSING, "a dict without tensors", HERE, 0, 0);
    t->tensor = pool_take(pool, count, sizeof *t->tensor);
    if (!t->tensor) return fail(err, E_MEMORY, "memory for the names of tensors", HERE, 0, 0);
    for (const Link *l = dict->is.chain->first; l; l = l->next) {
        TorchTensor *out = &t->tensor[t->tensors];
        const View *view = l->value.is.view;
        if (l->value.type != TENSOR) continue;
        out->name = text_of(&l->key);
        if (!out->name) return fail(err, E_FORMAT, "a tensor whose name is not a text", HERE, 0, 0);
        out->dtype = view->dims > TORCH_DIMS ? -1 : view->storage->dtype;
        out->dims = view->dims;
        memcpy(out->shape, view->shape, sizeof out->shape);
        memcpy(out->stride, view->stride, sizeof out->stride);
        out->at = view->storage->at;
        out->elements = view->storage->elements;
        out->first = view->storage->first + view->first;
        t->tensors++;
    }
    qsort(t->tensor, count, sizeof *t->tensor, by_tensor);
    for (size_t i = 1; i < count; i++)
        if (by_tensor(&t->tensor[i - 1], &t->tensor[i]) == 0)
            return refuse(err, E_FORMAT, HERE, "tensor %.96s is there twice", t->tensor[i].name);
    return OK;
}

/* Refuses the older container (of before torch 1.6, or _use_new_zipfile_serialization=False) with a pickle of
 * another protocol than torch's own, which is 2. Zip files may have any protocol up to 5. */
static int other_protocol(int protocol, Error *err) {
    refuse(err, E_UNSUPPORTED, HERE, "torch.save's older format with pickle protocol %d", protocol);
    advise(err, "save it again in PyTorch: torch.save(torch.load(FILE), FILE)");
    return E_UNSUPPORTED;
}

static int safetensors_here(Error *err) {
    fail(err, E_FORMAT, "a safetensors file", HERE, 0, 0);
    advise(err, "call it model.safetensors");
    return E_FORMAT;
}

int torch_index(TorchFile *t, File *f, Pool *pool, Error *err) {
    unsigned char first[STRANGER_BYTES] = { 0 };
    uint64_t size = file_size(f);
    Machine m;
    Value root = value(NOTHING, 0);
    int code;
    memset(t, 0, sizeof *t);
    code = file_read_at(f, 0, first, size < 4 ? 4 : size < sizeof first ? (size_t)size : sizeof first, err);
    if (code != OK) return code;
    machine_init(&m, f, pool, err);
    if (memcmp(first, "PK\3\4", 4) == 0) code = zip_index(&m, &root);
    else if (first[0] == 0x80 && first[1] == 2) code = legacy_index(&m, &root);
    else if (first[0] == 0x80) return other_protocol(first[1], err);
    else if (recognise(err, HERE, first, sizeof first)) return E_FORMAT;
    else if (first[8] == '{') return safetensors_here(err);
    else return fail(err, E_FORMAT, "neither a zip nor a pickle: not from torch.save", HERE, 0, 0);
    root = state_dict(root);
    if (code == OK) code = collect(t, &root, pool, err);
    if (code != OK) memset(t, 0, sizeof *t);
    return code;
}

/* ---- numbers ---- */

enum { HALVES = 4096, TALL = 512 };             /* elements that are read at a time; rows of a tile */

/* Converts the bytes of an element of type dtype to a float. */
static f32 widen(const unsigned char *b, int dtype) {
    uint32_t u = (uint32_t)b[0] | (uint32_t)b[1] << 8;
    f32 x;
    if (dtype == BF16) return bf16_to_f32((uint16_t)u);
    if (dtype == F16) return f16_to_f32((uint16_t)u);
    u |= (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* Reads the n elements of the storage from element `first` on into out (n). */
static int read_run(f32 *out, const TorchTensor *t, File *f, uint64_t first, size_t n, Error *err) {
    uint16_t half[HALVES];
    int code = OK;
    if (t->dtype == F32) {
        code = file_read_at(f, t->at + first * 4, out, n * 4, err);
        if (code == OK) little_endian(out, 4, n);
        return code;
    }
    for (size_t done = 0, part; done < n && code == OK; done += part) {
        part = n - done < HALVES ? n - done : HALVES;
        code = file_read_at(f, t->at + (first + done) * 2, half, part * 2, err);
        if (code != OK) break;
        little_endian(half, 2, part);
        halves_widen(out + done, half, t->dtype, part);
    }
    return code;
}

/* Reads n elements of the storage, `first` and then every step-th element, into out (n). Reads WINDOW bytes
 * of the file at a time. */
static int read_steps(f32 *out, const TorchTensor *t, File *f, uint64_t first, uint64_t step, size_t n,
                      Error *err) {
    unsigned char window[WINDOW];
    size_t width = t->dtype == F32 ? 4 : 2, most = WINDOW / width;
    if (step == 1) return read_run(out, t, f, first, n, err);
    for (size_t i = 0; i < n; ) {
        size_t part = step == 0 ? n - i : step >= most ? 1 : (most - 1) / (size_t)step + 1;
        int code;
        if (part > n - i) part = n - i;
        code = file_read_at(f, t->at + (first + i * step) * width, window,
                            (step ? (part - 1) * (size_t)step + 1 : 1) * width, err);
        if (code != OK) return code;
        for (size_t k = 0; k < part; k++) out[i + k] = widen(window + k * (size_t)step * width, t->dtype);
        i += part;
    }
    return OK;
}

/* Reads `rows` whole rows, from row `row` on, of a transposed matrix, which the file has column by
 * column. Reads tiles of TALL rows and HALVES / TALL columns and transposes each, so that a tile
 * stays in the cache. */
static int read_columns(f32 *out, const TorchTensor *t, File *f, uint64_t row, size_t rows, Error *err) {
    f32 tile[HALVES];
    size_t columns = (size_t)t->shape[1];
    for (size_t r = 0, tall; r < rows; r += tall) {
        tall = rows - r < TALL ? rows - r : TALL;
        for (size_t c = 0, wide; c < columns; c += wide) {
            wide = columns - c < HALVES / TALL ? columns - c : HALVES / TALL;
            for (size_t k = 0; k < wide; k++) {
                uint64_t place = t->first + (row + r) * t->stride[0] + (c + k) * t->stride[1];
                int code = read_steps(tile + k * tall, t, f, place, t->stride[0], tall, err);
                if (code != OK) return code;
            }
            for (size_t i = 0; i < tall; i++)
                for (size_t k = 0; k < wide; k++) out[(r + i) * columns + c + k] = tile[k * tall + i];
        }
    }
    return OK;
}

/* Returns 1 if the file has the elements in row-major order: each stride is the product of
 * the sizes after it. */
static int contiguous(const TorchTensor *t) {
    uint64_t step = 1;
    for (int d = t->dims - 1; d >= 0; d--) {
        if (t->shape[d] != 1 && t->stride[d] != step) return 0;
        step *= t->shape[d];
    }
    return 1;
}

int torch_read(f32 *out, const TorchTensor *t, File *f, uint64_t from, size_t n, Error *err) {
    uint64_t total = 1, row, columns;
    if (t->dtype != F32 && t->dtype != F16 && t->dtype != BF16)
        return refuse(err, E_UNSUPPORTED, HERE,
                      "the type of tensor %.96s (wanted: float32, float16 or bfloat16)", t->name);
    for (int d = 0; d < t->dims; d++) total *= t->shape[d];
    if (from > total || n > total - from)
        return refuse(err, E_RANGE, HERE, "elements beyond tensor %.96s", t->name);
    if (contiguous(t)) return read_run(out, t, f, t->first + from, n, err);
    columns = t->shape[t->dims - 1];
    while (n > 0) {                             /* read the rest of a row, or many whole rows */
        uint64_t place = t->first, column = from % columns;
        size_t part = n < columns - column ? n : (size_t)(columns - column);
        int code;
        row = from / columns;
        if (t->dims == 2 && column == 0 && n >= columns && t->stride[0] < t->stride[1]) {
            part = n - (size_t)(n % columns);
            code = read_columns(out, t, f, row, part / (size_t)columns, err);
        } else {
            for (int d = t->dims - 2; d >= 0; d--) { place += row % t->shape[d] * t->stride[d];
                row /= t->shape[d]; }
            place += column * t->stride[t->dims - 1];
            code = read_steps(out, t, f, place, t->stride[t->dims - 1], part, err);
        }
        if (code != OK) return code;
        out += part;
        from += part;
        n -= part;
    }
    return OK;
}
