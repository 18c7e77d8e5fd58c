/* text/pieces.c - the vocabulary of a tokenizer, and three ways to find its pieces: a hash table, a
 *          trie, a sorted list.
 * Source   Aoe 1989 (the trie in a double array).
 * Needs    core.c.
 * Never    frees memory: tables and tries are in the caller's pool.
 * Edges    hostile vocabularies: ids with holes, tokens that come twice, empty tokens, and tries that would
 *          take long to pack (they take more memory instead). */
#include "text.h"

/* ==============================================================================================
 * Errors and memory
 * ============================================================================================== */
int fail_piece(Error *err, int code, const char *what, Text piece, long long got, long long wanted) {
    char where[64];
    size_t n = piece.length < sizeof where - 1 ? piece.length : sizeof where - 1;
    if (n) memcpy(where, piece.text, n);
    where[n] = 0;
    return fail(err, code, what, where, got, wanted);
}

int fail_at(Error *err, int code, const char *what, const char *pattern, int number) {
    char where[64];
    name_format(where, sizeof where, pattern, number);
    return fail(err, code, what, where, 0, 0);
}

int no_memory(Error *err, const char *where) { return fail(err, E_MEMORY, "not enough memory", where, 0, 0); }

void keep_only(Pool *pool, PoolMark after, size_t size, size_t used) {
    after.used -= (size - used) / 16 * 16;
    pool_release(pool, after);
}

/* ==============================================================================================
 * A hash table from strings to numbers (open addressing, at most half full)
 * ============================================================================================== */

/* Returns a hash of n bytes, eight at a time. The hash differs between machines, so it is
 * never written to a file. */
static uint32_t hash_text(const char *s, size_t n) {
    uint64_t h = 0x9E3779B97F4A7C15u * (n + 1), word;
    for (; n >= 8; s += 8, n -= 8) {
        memcpy(&word, s, 8);
        h = (h ^ word) * 0xD6E8FEB86659FD93u;
        h ^= h >> 32;
    }
    for (word = 0; n; n--) word = word << 8 | (unsigned char)*s++;
    h = (h ^ word) * 0xD6E8FEB86659FD93u;
    h ^= h >> 32;
    h *= 0xD6E8FEB86659FD93u;
    return (uint32_t)(h >> 32);
}

/* Returns the slot of the string; if the table lacks the string, the free slot for it. */
static TableEntry *table_slot(const Table *t, const char *text, size_t length, uint32_t hash) {
    size_t i = hash & (t->slots - 1);
    while (t->entry[i].text && !(t->entry[i].hash == hash && t->entry[i].length == length
                                 && !memcmp(t->entry[i].text, text, length)))
        i = (i + 1) & (t->slots - 1);
    return &t->entry[i];
}

int table_find(const Table *t, const char *text, size_t length) {
    const TableEntry *e;
    if (!t->slots || length > UINT32_MAX) return -1;
    e = table_slot(t, text, length, hash_text(text, length));
    return e->text ? e->value : -1;
}

int table_add(Table *t, Pool *pool, const char *text, size_t length, int value) {
    uint32_t hash = hash_text(text, length);
    TableEntry *e;
    if (length > UINT32_MAX) return E_MEMORY;
    if (2 * t->used >= t->slots) {
        Table bigger;
        size_t i;
        bigger.slots = t->slots ? 2 * t->slots : 512;
        bigger.used = t->used;
        bigger.entry = pool_take(pool, bigger.slots, sizeof *bigger.entry);
        if (!bigger.entry) return E_MEMORY;
        for (i = 0; i < t->slots; i++) {
            const TableEntry *old = &t->entry[i];
            if (old->text) *table_slot(&bigger, old->text, old->length, old->hash) = *old;
        }
        *t = bigger;
    }
    e = table_slot(t, text, length, hash);
    e->text = text; e->length = (uint32_t)length; e->hash = hash; e->value = value;
    t->used++;
    return OK;
}

/* ==============================================================================================
 * A sorted list
 * ============================================================================================== */
int compare_pieces(const void *a, const void *b) {
    const Piece *p = a, *q = b;
    size_t n = p->length < q->length ? p->length : q->length;
    int order = memcmp(p->text, q->text, n);
    return order ? order : (p->length > q->length) - (p->length < q->length);
}

/* Narrows, byte by byte, the range [low, high) of the pieces that agree with s so far. The first piece of the
 * range is the shortest. */
size_t longest_prefix(const Piece *list, int count, const char *s, size_t n, int *which) {
    int low = 0, high = count;
    size_t depth, found = 0;
    for (depth = 0; depth < n && low < high; depth++) {
        int edge[2], side;
        /* side 0: finds the first piece whose byte is >= s[depth]; side 1: the first one
         * whose byte is > s[depth] */
        for (side = 0; side < 2; side++) {
            int a = low, b = high;
            while (a < b) {
                int middle = a + (b - a) / 2;
                int byte = (unsigned char)list[middle].text[depth];
                if (byte < (unsigned char)s[depth] + side) a = middle + 1; else b = middle;
            }
            edge[side] = a;
        }
        low = edge[0]; high = edge[1];
        if (low < high && list[low].length == depth + 1) { found = depth + 1; *which = low++; }
    }
    return found;
}

/* ==============================================================================================
 * A trie
 * ============================================================================================== */
enum { BYTES = 256, TRIES = 512 };
/* Keys [low, high) begin with the same `depth` bytes, which lead from the root to `node`. */
typedef struct { uint32_t node; int low, high; size_t depth; } Range;
/* No node before node[first] is free; all nodes from node[last] on are free. */
typedef struct { size_t first, last; } Free;

/* Makes room for `nodes` nodes in all. OK or E_MEMORY. */
static int more_nodes(Trie *t, size_t nodes, Pool *pool) {
    size_t room = t->nodes, i;
    TrieNode *node;
    if (nodes <= room) return OK;
    while (room < nodes) room = room ? 2 * room : 4 * BYTES;
    if (room > UINT32_MAX / 2) return E_MEMORY;
    node = pool_take(pool, room, sizeof *node);
    if (!node) return E_MEMORY;
    if (t->nodes) memcpy(node, t->node, t->nodes * sizeof *node);
    for (i = t->nodes; i < room; i++) { node[i].check = UINT32_MAX; node[i].value = -1; }
    t->node = node;
    t->nodes = room;
    return OK;
}

/* Finds *base so that node[*base + c] is free for each byte c of `child` (count bytes, rising). Tries up to
 * TRIES places, then takes the end of the array, where all nodes are free: so a hostile vocabulary costs
 * memory, not hours. OK or E_MEMORY. */
static int place_children(Trie *t, const unsigned char *child, int count, Free *f, uint32_t *base,
                          Pool *pool) {
    size_t least = (size_t)child[0] + 1, at, steps;
    int i;
    while (f->first < f->last && t->node[f->first].check != UINT32_MAX) ++f->first;
    at = f->first < least ? least : f->first;
    for (steps = 0; steps < TRIES && at < f->last; steps++, at++) {
        if (t->node[at].check != UINT32_MAX) continue;
        if (more_nodes(t, at + BYTES, pool)) return E_MEMORY;
        for (i = 1; i < count && t->node[at + child[i] - child[0]].check == UINT32_MAX; i++) { }
        if (i == count) break;
    }
    if (steps == TRIES || at >= f->last) at = f->last < least ? least : f->last;
    if (more_nodes(t, at + BYTES, pool)) return E_MEMORY;
    *base = (uint32_t)(at - child[0]);
    if (f->last <= at + child[count - 1] - child[0]) f->last = at + child[count - 1] - child[0] + 1;
    return OK;
}

/* Lists the different bytes, rising, that the keys [low, high) of r have at index r->depth;
 * returns their number. */
static int next_bytes(const Piece *const *key, const Range *r, unsigned char child[BYTES]) {
    int count = 0, k;
    for (k = r->low; k < r->high; k++) {
        unsigned char c = (unsigned char)key[k]->text[r->depth];
        if (!count || child[count - 1] != c) child[count++] = c;
    }
    return count;
}

/* Builds the nodes of sorted keys, from the root down. OK or E_MEMORY. */
static int build_nodes(Trie *t, const Piece *piece, const Piece *const *key, int keys, Pool *pool) {
    Range *stack = pool_take(pool, (size_t)keys + 1, sizeof *stack), r;
    Free f = { 1, 1 };
    int waiting = 0, k, count, i;
    if (!stack || more_nodes(t, 1, pool)) return E_MEMORY;
    t->node[0].check = 0;
    if (!keys) return OK;
    r.node = 0; r.low = 0; r.high = keys; r.depth = 0;
    stack[waiting++] = r;
    while (waiting) {
        unsigned char child[BYTES];
        uint32_t base;
        r = stack[--waiting];
        if (key[r.low]->length == r.depth) {
            t->node[r.node].score = key[r.low]->score;
            t->node[r.node].value = (int)(key[r.low++] - piece);
        }
        if (r.low == r.high) continue;
        count = next_bytes(key, &r, child);
        if (place_children(t, child, count, &f, &base, pool)) return E_MEMORY;
        t->node[r.node].base = base;
        for (i = 0, k = r.low; i < count; i++) {
            Range next;
            next.node = base + child[i];
            next.low = k;
            next.depth = r.depth + 1;
            while (k < r.high && (unsigned char)key[k]->text[r.depth] == child[i]) k++;
            next.high = k;
            t->node[next.node].check = r.node;
            stack[waiting++] = next;
        }
    }
    return OK;
}

static int compare_keys(const void *a, const void *b) {
    return compare_pieces(*(const Piece *const *)a, *(const Piece *const *)b);
}

int trie_build(Trie *t, const Piece *piece, int V, Pool *pool) {
    const Piece **key = pool_take(pool, (size_t)V, sizeof *key);
    int keys = 0, i;
    memset(t, 0, sizeof *t);
    if (!key) return E_MEMORY;
    for (i = 0; i < V; i++)
        if (piece[i].type == PIECE_NORMAL || piece[i].type == PIECE_USER_DEFINED) key[keys++] = &piece[i];
    qsort(key, (size_t)keys, sizeof *key, compare_keys);
    return build_nodes(t, piece, key, keys, pool);
}

size_t trie_longest(const Trie *t, const char *s, size_t n, int *value) {
    size_t i, found = 0;
    uint32_t node = 0;
    for (i = 0; i < n && (node = trie_child(t, node, (unsigned char)s[i])) != 0; i++)
        if (t->node[node].value >= 0) { found = i + 1; *value = t->node[node].value; }
    return found;
}

/* ==============================================================================================
 * The pieces of a tokenizer
 * ============================================================================================== */
Tokenizer *new_tokenizer(const TokenizerKind *kind, Pool *pool) {
    Tokenizer *t = pool_take(pool, 1, sizeof *t);
    int i;
    if (!t) return NULL;
    t->kind = kind;
    t->special.bos = t->special.eos = t->special.unk = t->special.pad = t->asked_prefix = -1;
    for (i = 0; i < 256; i++) t->byte_id[i] = -1;
    return t;
}

int find_ordinary(const Tokenizer *t, const char *text) {
    return table_find(&t->ordinary, text, strlen(text));
}

int find_piece(const Tokenizer *t, const char *text, size_t length) {
    int id = table_find(&t->reserved, text, length);
    return id >= 0 ? id : table_find(&t->ordinary, text, length);
}

int find_token(const Tokenizer *t, const char *text, size_t length) {
    int id = find_piece(t, text, length);
    return id >= 0 ? id : table_find(&t->extra, text, length);
}

/* Accepts "<0x", two upper-case hexadecimal digits and ">", as SentencePiece writes them. */
int byte_of_piece(const Piece *p) {
    static const char digit[] = "0123456789ABCDEF";
    const char *high, *low;
    if (p->length != 6 || memcmp(p->text, "<0x", 3) || p->text[5] != '>' || !p->text[3] || !p->text[4])
        return -1;
    high = strchr(digit, p->text[3]); low = strchr(digit, p->text[4]);
    return high && low ? (int)((high - digit) * 16 + (low - digit)) : -1;
}

int json_id(const Json *j, int *id) {
    if (!j || j->type != JSON_NUMBER || !(j->number >= 0) || j->number > INT_MAX / 4) return 0;
    if (j->number != (double)(long)j->number) return 0;
    *id = (int)j->number;
    return 1;
}

int json_is_bool(const Json *j) { return j && (j->type == JSON_TRUE || j->type == JSON_FALSE); }

int class_is(const Json *config, const char *class) {
    const char *name = json_text(config, "tokenizer_class", "");
    size_t n = strlen(class);
    return !strncmp(name, class, n) && (!name[n] || !strcmp(name + n, "Fast"));
}

int class_counts(const Tokenizer *t, const Json *config) {
    return !t->json || !(class_is(config, "PreTrainedTokenizer") || class_is(config, "TokenizersBackend"));
}

const char *tokenizer_keep(Tokenizer *t, const char *name, const void *bytes, size_t n, Pool *pool) {
    TokenizerFile *f = &t->file[t->files];
    const char *copy = t->files < TOKENIZER_FILES ? pool_text(pool, bytes, n) : NULL;
    if (!copy) return NULL;
    f->name = name; f->bytes = copy; f->length = n;
    t->files++;
    return copy;
}

int load_vocab(Tokenizer *t, const Json *root, int copy, Pool *pool, Error *err) {
    const Json *j;
    int i, room = 0;
    if (!root || root->type != JSON_OBJECT || !root->count)
        return fail(err, E_FORMAT, "not an object of tokens and ids", "vocabulary", 0, 0);
    for (j = root->child; j; j = j->next) {
        Text key = { j->key, j->key_length };
        if (!json_id(j, &i)) return fail_piece(err, E_FORMAT, "the id of a token is not a number", key, 0, 0);
        if ((size_t)i >= root->count + MOST_GAPS)
            return fail_piece(err, E_RANGE, "the id of a token is too large", key, i,
                              (long long)(root->count + MOST_GAPS - 1));
        if (i >= room) room = i + 1;
    }
    t->V = room;
    t->piece = pool_take(pool, (size_t)room, sizeof *t->piece);
    if (!t->piece) return no_memory(err, "vocabulary");
    for (j = root->child; j; j = j->next) {
        Text key = { j->key, j->key_length };
        Piece *p = &t->piece[i = (int)j->number];
        if (p->type) return fail_piece(err, E_FORMAT, "two tokens have one id", key, 0, 0);
        if (!key.length) return fail_at(err, E_FORMAT, "a token is empty", "vocabulary, id %d", i);
        if (table_find(&t->ordinary, key.text, key.length) >= 0)
            return fail_piece(err, E_FORMAT, "a token is in the vocabulary twice", key, 0, 0);
        p->text = copy ? pool_text(pool, key.text, key.length) : key.text;
        p->length = key.length;
        p->type = PIECE_NORMAL;
        if (!p->text || table_add(&t->ordinary, pool, p->text, key.length, i))
            return no_memory(err, "vocabulary");
    }
    return OK;
}
