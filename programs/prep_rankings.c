/* prep_rankings.c - prep rankings: pairs of texts from the answers of `run label`.
 *
 * Pairs    A ranking of K responses gives all K (K - 1) / 2 pairs (Ouyang et al. 2022, section 3.5). What
 *          several labellers say about a pair becomes the probability that its first text is better: the
 *          share of them who prefer it, and half of those for whom both are equal.
 * Agree    Krippendorff's alpha over these pairs, with the three values first, equal and second: 1 if all
 *          agree, 0 as by chance. */
#include "prep.h"
#include <stdio.h>

enum { RESPONSES_MAX = 9, LABELLERS_MAX = 256, FIRST = 0, EQUAL, SECOND, VALUES };
enum { WEIGH, DROP };

/* A prompt with its K responses. last: its last answer, -1: there is none. */
typedef struct {
    const char *prompt, *response[RESPONSES_MAX];
    size_t length[RESPONSES_MAX + 1];       /* of the responses, then at K of the prompt */
    int K, last;
} Group;
/* rank (K): how many groups of responses are better. group -1: skipped. before: the answer before this one to
 * the same prompt, -1: there is none. */
typedef struct { int labeller, group, before; signed char rank[RESPONSES_MAX]; } Answer;

typedef struct {
    Group *group; int groups, *slot, slots; /* slot: a hash table of indices + 1 of groups */
    Answer *answer; int answers;
    char *labeller[LABELLERS_MAX]; int labellers;
    int prompts;                            /* groups with an answer: one that was undone leaves none */
    int undone, skipped, twice;
    Pool lines;
} Rankings;

/* ---- reading ---- */

static int labeller_of(Rankings *r, const char *name, Place at) {
    for (int i = 0; i < r->labellers; i++) if (!strcmp(r->labeller[i], name)) return i;
    if (r->labellers == LABELLERS_MAX)
        prep_stop(E_RANGE, "more than 256 labellers", at.file, at.line, NULL, "fewer files");
    r->labeller[r->labellers] = prep_keep(name, strlen(name));
    return r->labellers++;
}

/* Returns 1 if a group has the prompt and the responses of g, in any order. place[k]: the number there of g's
 * response k. */
static int same_group(const Group *own, const Group *g, int place[RESPONSES_MAX]) {
    int taken[RESPONSES_MAX] = { 0 };
    if (own->K != g->K || own->length[own->K] != g->length[g->K]
        || memcmp(own->prompt, g->prompt, g->length[g->K])) return 0;
    for (int k = 0; k < g->K; k++) {
        int j = 0;
        while (j < g->K && (taken[j] || own->length[j] != g->length[k]
                            || memcmp(own->response[j], g->response[k], g->length[k]))) j++;
        if (j == g->K) return 0;
        taken[j] = 1;
        place[k] = j;
    }
    return 1;
}

/* Returns the index of the group of this prompt and these responses, which is new or there already. place: as
 * same_group has it. Files of other programs may have the responses in another order for each labeller. */
static int group_of(Rankings *r, const Group *g, int place[RESPONSES_MAX]) {
    const uint64_t prompt = hash_bytes(g->prompt, g->length[g->K], 1);
    uint64_t hash = prompt;
    for (int k = 0; k < g->K; k++) hash += hash_bytes(g->response[k], g->length[k], prompt);
    size_t at = (size_t)(hash % (uint64_t)r->slots);
    for (; r->slot[at]; at = (at + 1) % (size_t)r->slots)
        if (same_group(&r->group[r->slot[at] - 1], g, place)) return r->slot[at] - 1;
    Group *own = &r->group[r->groups];
    *own = *g;
    own->prompt = prep_keep(g->prompt, g->length[g->K]);
    for (int k = 0; k < g->K; k++) {
        own->response[k] = prep_keep(g->response[k], g->length[k]);
        place[k] = k;
    }
    own->last = -1;
    r->slot[at] = ++r->groups;
    return r->groups - 1;
}

/* Reads {"prompt": ..., "responses": [...]} of a line into g. Returns 0 if it is not that. */
static int read_group(Group *g, const Json *line) {
    const Json *prompt = json_get(line, "prompt"), *list = json_get(line, "responses");
    if (!prompt || prompt->type != JSON_STRING || !list || list->type != JSON_ARRAY || list->count < 2 ||
        list->count > RESPONSES_MAX) return 0;
    memset(g, 0, sizeof *g);
    g->prompt = prompt->string;
    for (const Json *x = list->child; x; x = x->next) {
        if (x->type != JSON_STRING) return 0;
        g->response[g->K] = x->string;
        g->length[g->K++] = x->length;
    }
    g->length[g->K] = prompt->length;
    return 1;
}

/* Reads "ranking": [[best], [next, equally good] ...]. Returns 0 unless each of K responses is there once. */
static int read_ranking(Answer *a, const Json *line, int K) {
    const Json *list = json_get(line, "ranking");
    int place = 0, count = 0;
    if (!list || list->type != JSON_ARRAY) return 0;
    for (int k = 0; k < K; k++) a->rank[k] = -1;
    for (const Json *tie = list->child; tie; tie = tie->next, place++) {
        if (tie->type != JSON_ARRAY || !tie->count) return 0;
        for (const Json *x = tie->child; x; x = x->next, count++) {
            if (x->type != JSON_NUMBER || !(x->number >= 0 && x->number < K)) return 0;
            const int k = (int)x->number;
            if ((double)k != x->number || a->rank[k] >= 0) return 0;
            a->rank[k] = (signed char)place;
        }
    }
    return count == K;
}

/* Reads one line. first: the file's first answer. */
static void read_answer(Rankings *r, const char *text, size_t n, int first, Place at) {
    static const char made_by[] = "a file that run label has written";
    Error err = { 0 };
    Group g = { 0 };
    Answer own;
    int place[RESPONSES_MAX];
    const Json *line = json_parse(text, n, &r->lines, &err);
    const char *who = json_text(line, "labeller", NULL);
    if (!line) prep_stop(E_FORMAT, err.what, at.file, at.line, NULL, made_by);
    if (!who) prep_stop(E_FORMAT, "no string \"labeller\"", at.file, at.line, NULL, made_by);
    if (json_bool(line, "undo", 0)) {
        if (r->answers == first)
            prep_stop(E_FORMAT, "an \"undo\" without an answer", at.file, at.line, NULL, made_by);
        r->answers--;
        r->undone++;
        return;
    }
    Answer *a = &r->answer[r->answers++];
    a->labeller = labeller_of(r, who, at);
    a->group = -1;
    if (json_bool(line, "skipped", 0)) return;
    if (!read_group(&g, line))
        prep_stop(E_FORMAT, "not a prompt with 2 to 9 responses", at.file, at.line, NULL, made_by);
    if (!read_ranking(&own, line, g.K))
        prep_stop(E_FORMAT, "not a ranking of all responses", at.file, at.line, "ranking", made_by);
    a->group = group_of(r, &g, place);
    for (int k = 0; k < g.K; k++) a->rank[place[k]] = own.rank[k];
}

static void read_file(Rankings *r, const char *path, char *bytes, size_t n) {
    const int first = r->answers;
    Place at = { path, 0 };
    for (size_t from = 0, end; from < n; from = end + 1) {
        const char *stop = memchr(bytes + from, '\n', n - from);
        const PoolMark mark = pool_mark(&r->lines);
        at.line++;
        end = stop ? (size_t)(stop - bytes) : n;
        if (blank_line(bytes + from, end - from)) continue;
        if (!stop && !json_parse(bytes + from, n - from, &r->lines, NULL)) {
            say("%s: the last line was cut off, and is left out", path);
            break;
        }
        read_answer(r, bytes + from, end - from, first, at);
        pool_release(&r->lines, mark);
    }
}

/* Reads all files. The memory is for as many answers as there are lines. */
static void read_files(Rankings *r, const char *const *path, int files) {
    Error err = { 0 };
    char *bytes[64];
    size_t n[64], lines = 0;
    for (int i = 0; i < files; i++) {
        must(file_read_all(path[i], prep_pool(), &bytes[i], &n[i], &err), &err,
             "a file that run label has written");
        lines++;                            /* the last line may have no line break */
        for (size_t k = 0; k < n[i]; k++) lines += bytes[i][k] == '\n';
    }
    if (lines > INT_MAX / 4) prep_stop(E_RANGE, "too many answers", path[0], 0, NULL, "fewer files");
    r->slots = 2 * (int)lines + 1;
    r->slot = prep_take((size_t)r->slots, sizeof *r->slot);
    r->group = prep_take(lines, sizeof *r->group);
    r->answer = prep_take(lines, sizeof *r->answer);
    for (int i = 0; i < files; i++) read_file(r, path[i], bytes[i], n[i]);
}

/* Links the answers to each prompt. If a labeller has answered a prompt twice, the last answer counts. */
static void link_answers(Rankings *r) {
    for (int i = 0; i < r->answers; i++) {
        Answer *a = &r->answer[i];
        if (a->group < 0) { r->skipped++; continue; }
        Group *g = &r->group[a->group];
        int *link = &g->last;
        while (*link >= 0 && r->answer[*link].labeller != a->labeller) link = &r->answer[*link].before;
        if (*link >= 0) { r->twice++; *link = r->answer[*link].before; }
        a->before = g->last;
        g->last = i;
    }
    for (int q = 0; q < r->groups; q++) r->prompts += r->group[q].last >= 0;
}

/* ---- pairs ---- */

static int same_text(const Group *g, int i, int j) {
    return g->length[i] == g->length[j] && !memcmp(g->response[i], g->response[j], g->length[i]);
}

/* Adds to count (VALUES) how often responses i and j of the group were called better, equal and worse. */
static int count_votes(const Rankings *r, const Group *g, int i, int j, int *count) {
    int labellers = 0;
    for (int k = g->last; k >= 0; k = r->answer[k].before, labellers++) {
        const signed char *rank = r->answer[k].rank;
        count[rank[i] < rank[j] ? FIRST : rank[i] > rank[j] ? SECOND : EQUAL]++;
    }
    return labellers;
}

/* Appends the pair of responses i and j as a JSON line. p: the probability that i is better. */
static void write_pair(Buffer *b, const Group *g, int i, int j, double p, int labellers) {
    const int chosen = p < 0.5 ? j : i, rejected = p < 0.5 ? i : j;
    char number[80];
    buffer_text(b, "{\"prompt\": ");
    buffer_json_string(b, g->prompt, g->length[g->K]);
    buffer_text(b, ", \"chosen\": ");
    buffer_json_string(b, g->response[chosen], g->length[chosen]);
    buffer_text(b, ", \"rejected\": ");
    buffer_json_string(b, g->response[rejected], g->length[rejected]);
    snprintf(number, sizeof number, ", \"probability\": %.6g, \"labellers\": %d}\n", p < 0.5 ? 1 - p : p,
             labellers);
    buffer_text(b, number);
}

/* same: pairs of two responses with the same text, which teach nothing. */
typedef struct { int written, equal, dropped, few, same; } Counts;

/* Writes all pairs to b, and the votes about them to votes (pairs,VALUES). Returns the number of pairs. */
static int make_pairs(const Rankings *r, int how, int least, Buffer *b, int *votes, Counts *n) {
    int pairs = 0;
    for (int q = 0; q < r->groups; q++) {
        const Group *g = &r->group[q];
        for (int i = 0; i < g->K; i++)
            for (int j = i + 1; j < g->K && g->last >= 0; j++) {
                int *count = votes + VALUES * pairs;
                if (same_text(g, i, j)) { n->same++; continue; }
                const int labellers = count_votes(r, g, i, j, count);
                pairs++;
                if (labellers < least) { n->few++; continue; }
                const double p = (count[FIRST] + 0.5 * count[EQUAL]) / labellers;
                n->equal += count[EQUAL] == labellers;
                if (how == DROP && (count[FIRST] > 0) + (count[SECOND] > 0) != 1) { n->dropped++; continue; }
                write_pair(b, g, i, j, how == WEIGH ? p : count[FIRST] ? 1 : 0, labellers);
                n->written++;
            }
    }
    return pairs;
}

/* Prints how far the labellers agree, and says nothing if no pair has two of them. */
static void print_agreement(const int *votes, int pairs) {
    double same = 0, all = 0;
    for (int i = 0; i < pairs; i++) {
        const int *x = votes + VALUES * i, m = x[FIRST] + x[EQUAL] + x[SECOND];
        for (int v = 0; v < VALUES; v++) same += (double)x[v] * (x[v] - 1) / 2;
        all += (double)m * (m - 1) / 2;
    }
    if (all <= 0) { say("one labeller a prompt: there is no agreement to measure"); return; }
    say("two labellers say the same about a pair in %.1f %% of cases", 100 * same / all);
    const double nominal = krippendorff_alpha(votes, pairs, VALUES, 0);
    const double ordinal = krippendorff_alpha(votes, pairs, VALUES, 1);
    if (isnan(nominal)) say("every answer about every pair is the same: Krippendorff's alpha does not exist");
    else say("Krippendorff's alpha over the pairs: %.3f (nominal), %.3f (ordinal); 1: all agree, 0: as by "
             "chance", nominal, ordinal);
}

static void print_counts(const Rankings *r, const Counts *n, int least, const char *out) {
    char a[64], b[64], c[64];
    const int rankings = r->answers - r->skipped - r->twice;
    say("%s of %s by %s; %d skipped, %d undone", counted(a, (size_t)rankings, "ranking"),
        counted(b, (size_t)r->prompts, "prompt"), counted(c, (size_t)r->labellers, "labeller"), r->skipped,
        r->undone);
    if (r->twice)
        say("%s of a labeller to a prompt that came twice: the last one counts",
            counted(a, (size_t)r->twice, "answer"));
    if (n->equal) say("%s that all call equal", counted(a, (size_t)n->equal, "pair"));
    if (n->same) say("%s left out: both responses are the same text", counted(a, (size_t)n->same, "pair"));
    if (n->few) say("%s left out: fewer than %d labellers", counted(a, (size_t)n->few, "pair"), least);
    if (n->dropped)
        say("%s left out: labellers disagree, or all call them equal",
            counted(a, (size_t)n->dropped, "pair"));
    say("%s: %s", out, counted(a, (size_t)n->written, "pair"));
}

int command_rankings(int argc, char **argv) {
    static const char *out;
    static int how, least;
    static Option option[] = {
        { "out", OPT_TEXT, &out, NULL, 0, 0, NULL, "the file of pairs to write, JSON lines for prep data" },
        { "disagreement", OPT_CHOICE, &how, "weigh", 0, 0, "weigh|drop",
          "what becomes of pairs about which labellers disagree: weigh gives each pair the share of "
          "labellers who prefer its chosen text, as its \"probability\"; drop leaves out pairs that somebody "
          "sees the other way round, or that all call equal" },
        { "min-labellers", OPT_INT, &least, "1", 1, LABELLERS_MAX, NULL,
          "leave out pairs with fewer labellers" },
    };
    static const Program program = {
        .program = "prep rankings",
        .usage = "FILE ... --out PAIRS.jsonl",
        .about = "Turns the rankings of ./run label into pairs for ./prep data and ./rm, all pairs of a "
                 "ranking, and prints how far the labellers agree.",
        OPTIONS(option) };
    const char *path[64];
    Rankings r = { 0 };
    Counts n = { 0 };
    Error err = { 0 };
    const int files = cli_parse(&program, argc, argv, path, 64);
    if (files < 1) usage_error("which files of rankings?", NULL);
    if (!out) usage_error("--out is missing: which file is to be written?", NULL);
    out_file_check("--out", out, path, files);
    r.lines = cli_pool();
    read_files(&r, path, files);
    link_answers(&r);
    size_t pairs = 0;
    for (int q = 0; q < r.groups; q++) pairs += (size_t)(r.group[q].K * (r.group[q].K - 1) / 2);
    if (!r.prompts) prep_stop(E_FORMAT, "no ranking", path[0], 0, NULL, "files of run label with answers");
    int *votes = prep_take(pairs * VALUES, sizeof *votes);
    Buffer b = { .pool = prep_pool() };
    const int made = make_pairs(&r, how, least, &b, votes, &n);
    if (b.failed) prep_need(NULL);
    must(file_write_all(out, b.data, b.length, prep_pool(), &err), &err, "another --out");
    print_counts(&r, &n, least, out);
    print_agreement(votes, made);
    return 0;
}
