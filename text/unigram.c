/* text/unigram.c - the unigram language model of pieces: finds the best segmentation of a text.
 * Source   Kudo 2018, section 3.2: the log-probability of a segmentation is the sum of the scores of its
 *          pieces. The arithmetic is that of the sentencepiece library (unigram_best_exact: that of Hugging
 *          Face's tokenizers), roundings included, because they decide between equal scores.
 * Needs    core.c, text/pieces.c (the trie).
 * Edges    a text without any piece (each character is unknown), malformed UTF-8 (a character has the
 *          length that its first byte says, but ends with the text), equal scores (the path that was
 *          found first stays). */
#include "text.h"

int unigram_build(Unigram *u, const Piece *piece, int V, int unk, Pool *pool) {
    f32 least = 3.402823466e+38f;
    int i;
    memset(u, 0, sizeof *u);
    u->piece = piece;
    u->unk = unk;
    u->max_score = 1.17549435e-38f;         /* SentencePiece's initial value, the smallest normal float */
    for (i = 0; i < V; i++) {
        if (piece[i].type == PIECE_NORMAL) {
            if (piece[i].score < least) least = piece[i].score;
            if (piece[i].score > u->max_score) u->max_score = piece[i].score;
        }
        if (piece[i].type == PIECE_USER_DEFINED) u->users = 1;
    }
    u->unk_score = least - 10;
    return trie_build(&u->trie, piece, V, pool);
}

/* Returns the length of the character whose first byte is c, as SentencePiece counts it. */
static inline size_t char_bytes(unsigned char c) { return c < 0xC0 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4; }

size_t unigram_character(const char *s, size_t n) {
    size_t k = char_bytes((unsigned char)*s);
    return k < n ? k : n;
}

/* Computes, by Viterbi, best[j] = max over pieces s[i..j) of best[i] + score(s[i..j)), in the order of i,
 * then of j; of equal paths the first one stays. A character that is not a piece is the unknown piece, whose
 * score is 10 below the least score. */
void unigram_best(const Unigram *u, const char *s, size_t n, BestPiece *best, int without) {
    size_t i, j, step;
    for (i = 1; i <= n; i++) best[i].id = -1;
    for (i = 0; i < n; i += step) {
        f32 here = best[i].score;
        uint32_t node = 0;
        int single = 0;
        step = unigram_character(s + i, n - i);
        for (j = i; j < n && (node = trie_child(&u->trie, node, (unsigned char)s[j])) != 0; ) {
            int id = u->trie.node[node].value;
            double score;
            j++;
            if (id < 0 || id == without) continue;
            score = (u->users ? unigram_score(u, id, j - i) : u->trie.node[node].score) + (double)here;
            if (best[j].id < 0 || score > best[j].score) {
                best[j].score = (f32)score;
                best[j].id = id;
                best[j].from = (uint32_t)i;
            }
            if (j - i == step) single = 1;
        }
        if (!single) {
            f32 score = u->unk_score + here;
            j = i + step;
            if (best[j].id < 0 || score > best[j].score) {
                best[j].score = score;
                best[j].id = u->unk;
                best[j].from = (uint32_t)i;
            }
        }
    }
}

/* Writes a path to *b if *b has none, or one with a lower score. */
static inline void offer(BestExact *b, double score, int id, size_t from) {
    if (b->id >= 0 && !(score > b->score)) return;
    b->score = score;
    b->id = id;
    b->from = (uint32_t)from;
}

void unigram_best_exact(const Unigram *u, const char *s, size_t n, BestExact *best, int without) {
    size_t i, j, step;
    for (i = 1; i <= n; i++) best[i].id = -1;
    best[0].score = 0;
    for (i = 0; i < n; i += step) {
        double here = best[i].score;
        uint32_t node = 0;
        int single = 0, id;
        step = unigram_character(s + i, n - i);
        for (j = i; j < n && (node = trie_child(&u->trie, node, (unsigned char)s[j])) != 0; ) {
            id = u->trie.node[node].value;
            j++;
            if (id < 0 || id == without) continue;
            offer(&best[j], u->exact[id] + here, id, i);
            if (j - i == step) single = 1;
        }
        if (!single) offer(&best[i + step], u->unk_exact + here, u->unk, i);
    }
}

int best_room(Paths *p, size_t n, Pool *pool) {
    size_t room = n + 1 < 1024 ? 1024 : 2 * n;
    if (n < p->best_room) return OK;
    p->best = pool_take(pool, room, sizeof *p->best);
    p->best_room = p->best ? room : 0;
    return p->best ? OK : E_MEMORY;
}

int exact_room(Paths *p, size_t n, Pool *pool) {
    size_t room = n + 1 < 256 ? 256 : 2 * n;
    if (n < p->exact_room) return OK;
    p->exact = pool_take(pool, room, sizeof *p->exact);
    p->exact_room = p->exact ? room : 0;
    return p->exact ? OK : E_MEMORY;
}

int unigram_margin(const Unigram *u, int id, size_t n, f32 total) {
    return u->margin[id] > (f32)n * (fabs(total) + (f32)n * u->largest) * 2.5e-7f;
}
