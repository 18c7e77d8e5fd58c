/* run_batch.c - texts that a policy writes, several at a time: the layers read all their rows together, which
 * is faster than one text after another. A text is the same in any batch. */
#include "run.h"
#include <stdio.h>

/* Returns how many bytes of the text are final. Leaves out an incomplete character at the end, whose other
 * bytes are still to come, and each U+FFFD at the end, which may stand for such bytes. */
static size_t settled(const char *text, size_t n) {
    size_t back = 0;
    while (back < 3 && back < n && ((unsigned char)text[n - 1 - back] & 0xC0) == 0x80) back++;
    if (back < n) {
        unsigned lead = (unsigned char)text[n - 1 - back];
        size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
        if (length > back + 1) n -= back + 1;
    }
    while (n >= 3 && !memcmp(text + n - 3, "\xEF\xBF\xBD", 3)) n -= 3;
    return n;
}

void stream_print(Stream *s, int last) {
    PoolMark mark = pool_mark(s->pool);
    char *text;
    size_t n;
    if (tokenizer_decode(s->tokenizer, s->ids, s->count, s->pool, &text, &n) == OK) {
        if (!last) n = settled(text, n);
        if (n > s->printed) { fwrite(text + s->printed, 1, n - s->printed, stdout); s->printed = n; }
        close_line();
    }
    pool_release(s->pool, mark);
}

int stream_token(void *context, int sequence, int token) {
    Stream *s = context;
    (void)sequence;
    if (token == s->hidden) return 1;
    s->count++;
    stream_print(s, 0);
    return cli_stopping() || (s->stopped && s->stopped());
}

void write_tokens(Policy *p, const Writing *w, Sequence *s, int n) {
    const int code = model_generate(&p->model, w, s, n, &p->kv, &p->ws);
    if (code && w->on_token) putchar('\n');         /* the message begins after the text that is printed */
    require(code, code == E_NUMBER ? no_number : "the model's forward failed", "", 0, 0,
            damaged_hint(p->compute));
}

/* Returns the bytes of work space of a forward of b->rows rows of prompts, or of a step of b->B texts. */
static size_t batch_bytes(const Batch *b) {
    Policy *p = b->policy;
    const StackKind *k = &p->config.stack;
    const int soft = model_prompt(&p->model, p->adapter);
    const Writing greedy = { .adapter = p->adapter, .sampling = { 0, 0, 1 } };
    Arena measure = { 0 }, nothing = { 0 };
    Reading reading;
    Cache kv = { .L = k->L, .B = b->B, .T = soft + b->T, .width = k->K * k->D };
    for (int i = 0; i < b->B; i++) {
        b->seq[i].prompt = b->seq[i].length = i ? 1 : b->rows - b->B * (soft + 1) + 1;
        b->seq[i].capacity = b->T;
    }
    reading_open(p, &reading, &kv, b->rows, &nothing);
    if (kv.reading) {
        const Texts texts = { b->rows, b->B, NULL, NULL };
        model_encode(&p->model, p->adapter, &texts, &reading, &measure);
    }
    model_generate(&p->model, &greedy, b->seq, b->B, &kv, &measure);
    return measure.peak;
}

int batch_size(int T) {
    const int most = BATCH_TOKENS / T;
    return most < 1 ? 1 : most < BATCH_TEXTS ? most : BATCH_TEXTS;
}

Batch batch_open(Policy *p, int B, int T, Pool *pool) {
    Batch b = { .policy = p, .B = B, .T = T, .rows = prompts_rows(p, B, T) };
    b.seq = pool_need(pool, (size_t)B, sizeof *b.seq, "the texts of a batch");
    b.prompt = pool_need(pool, (size_t)b.rows, sizeof *b.prompt, "the prompts of a batch");
    b.start = pool_need(pool, (size_t)B + 1, sizeof *b.start, "the prompts of a batch");
    b.which = pool_need(pool, (size_t)B, sizeof *b.which, "the texts of a batch");
    const int N = T < BLOCK ? T : BLOCK;
    const size_t writing = batch_bytes(&b), reading = logprobs_bytes(p, N, T);
    policy_work(p, B, N, T, writing > reading ? writing : reading);
    return b;
}

/* Lets the encoder read the prompts of the n jobs b->which. */
static void batch_read(Batch *b, const Job *job, int n) {
    Policy *p = b->policy;
    const int soft = lora_prompt(p->adapter);
    b->start[0] = 0;
    for (int i = 0; i < n; i++) {
        const Job *j = &job[b->which[i]];
        int *at = b->prompt + b->start[i];
        memcpy(at + prompt_rows(at, soft), j->ids, (size_t)j->count * sizeof(int));
        b->start[i + 1] = b->start[i] + soft + j->count;
    }
    const Texts texts = { b->start[n], n, b->prompt, b->start };
    p->kv.B = n;                            /* the cache has as many sequences as there are texts */
    require(model_encode(&p->model, p->adapter, &texts, &p->reading, &p->ws), "the model's encoder failed",
            "", 0, 0, damaged_hint(p->compute));
}

/* Makes j->token what is there before anything is written: the prompt, or with an encoder the decoder's first
 * id; with room for the new tokens. */
static void job_begin(const Policy *p, Job *j, Pool *pool) {
    const int encoder = p->config.encoder.L > 0;
    j->prompt = j->length = encoder ? 1 : j->count;
    j->token = pool_need(pool, (size_t)j->prompt + (size_t)j->most + 1, sizeof(int), "the texts of a batch");
    memcpy(j->token, encoder ? &p->config.start : j->ids, (size_t)j->prompt * sizeof(int));
}

/* Prepares the next batch: the jobs from *at on that want new tokens, as many as there is room for. Returns
 * their number. */
static int batch_fill(Batch *b, Job *job, int jobs, int *at, Pool *pool) {
    const int soft = lora_prompt(b->policy->adapter);
    int n = 0;
    for (int rows = 0; n < b->B && *at < jobs; ++*at) {
        Job *j = &job[*at];
        if (rows + soft + j->count > b->rows) break;
        job_begin(b->policy, j, pool);
        if (!j->count || !j->most) continue;
        Sequence *s = &b->seq[n];
        memset(s, 0, sizeof *s);
        s->token = j->token;
        s->prompt = s->length = j->prompt;
        s->capacity = j->prompt + j->most;
        s->stop_at_eos = !j->ignore_eos;
        s->rng = j->rng;
        b->which[n++] = *at;
        rows += soft + j->count;
    }
    return n;
}

void batch_write(Batch *b, const Writing *w, Job *job, int jobs, Pool *pool) {
    for (int at = 0; at < jobs; ) {
        const int from = at, n = batch_fill(b, job, jobs, &at, pool);
        require(at == from ? E_RANGE : OK, "a prompt is too long", "", job[from].count, b->rows, NULL);
        if (n && b->policy->config.encoder.L) batch_read(b, job, n);
        if (n) write_tokens(b->policy, w, b->seq, n);
        for (int i = 0; i < n; i++) job[b->which[i]].length = b->seq[i].length;
    }
}
