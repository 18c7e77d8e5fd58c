/* run_chat.c - run chat: a conversation with a model. */
#include "run.h"
#include <signal.h>
#include <stdio.h>

/* During an answer of chat, the first Ctrl-C ends the answer, and the second one the program. Between
 * answers, the first one ends the program. */
static volatile sig_atomic_t reply_stopped;
static void on_interrupt(int number) {
    signal(number, SIG_DFL);
    reply_stopped = 1;
}

static int is_stopped(void) { return reply_stopped; }

/* T: how many tokens fit. full: something did not fit. line_break: a line break comes
 * before the next message. segment: text that is not encoded yet; the text between two
 * marker tokens is encoded as a whole. */
typedef struct {
    Policy *p; const ChatTemplate *how; Sequence s;
    int T, bos, full, line_break;
    Buffer segment;
    Pool *pool;
} Chat;

/* Appends ids to the conversation; if they do not fit, sets c->full. */
static void chat_push(Chat *c, const int *ids, int count) {
    if (count > c->T - c->s.length) c->full = 1;
    for (int i = 0; i < count && !c->full; i++) c->s.token[c->s.length++] = ids[i];
}

/* Encodes the segment as plain text, and appends its ids: a special token's letters that were
 * typed do not become that token. */
static void chat_flush(Chat *c) {
    int *ids, count, first = c->s.length == (c->bos >= 0);
    need_buffer(&c->segment);
    if (!c->segment.length) return;
    require(tokenizer_encode_plain(c->p->tokenizer, (const char *)c->segment.data, c->segment.length, first,
                                   c->pool, &ids, &count), "out of memory", "tokenizer", 0, 0, NULL);
    need_rows(c->p->tokenizer, ids, count, c->p->config.V, "model");
    chat_push(c, ids, count);
    c->segment.length = 0;
}

/* Appends a marker of the template (NULL: nothing): its token, or its letters if the
 * vocabulary has no such token. */
static void chat_marker(Chat *c, const char *marker) {
    int id = marker ? tokenizer_find(c->p->tokenizer, marker, strlen(marker)) : -1;
    if (!marker) return;
    if (id < 0 || id >= c->p->config.V) { buffer_text(&c->segment, marker); return; }
    chat_flush(c);
    chat_push(c, &id, 1);
}

/* Appends the beginning of a message, up to its content. */
static void chat_role(Chat *c, const char *role) {
    if (c->line_break) buffer_text(&c->segment, "\n");
    c->line_break = 0;
    chat_marker(c, c->how->begin);
    buffer_text(&c->segment, c->how->before);
    if (c->how->end) buffer_text(&c->segment, role);
    buffer_text(&c->segment, c->how->after);
}

/* Appends a whole message of n bytes. */
static void chat_message(Chat *c, const char *role, const char *text, size_t n) {
    chat_role(c, role);
    buffer_bytes(&c->segment, text, n);
    chat_marker(c, c->how->end);
    c->line_break = c->how->end != NULL;
}

/* Empties the conversation and begins a new one, with bos if the tokenizer's template has it, and with the
 * system's message if there is one. */
static void chat_begin(Chat *c, const char *system) {
    c->s.length = c->full = c->line_break = 0;
    if (c->bos >= 0) chat_push(c, &c->bos, 1);
    if (system) chat_message(c, "system", system, strlen(system));
}

/* Writes the model's answer, of at most `longest` tokens, and prints it while it is written. The conversation
 * keeps the answer without the token that ended it. */
static void chat_answer(Chat *c, int longest, const Sampling *sampling) {
    const ModelConfig *config = &c->p->config;
    int stop = c->how->end ? tokenizer_find(c->p->tokenizer, c->how->end, strlen(c->how->end)) : -1;
    /* plain text is decoded from its beginning, since the answer may begin with a space */
    int from = c->how->end ? c->s.length : 0, last, ended = 0;
    Stream stream = { c->p->tokenizer, c->s.token + from, c->s.length - from, 0, c->pool, stop, is_stopped };
    const Writing writing = { .adapter = c->p->adapter, .sampling = *sampling, .on_token = stream_token,
                              .context = &stream };
    char *text;
    if (tokenizer_decode(c->p->tokenizer, stream.ids, stream.count, c->pool, &text, &stream.printed))
        stream.printed = 0;
    c->s.prompt = c->s.length;
    c->s.capacity = longest < c->T - c->s.length ? c->s.length + longest : c->T;
    c->s.stop_at_eos = 1; c->s.done = 0;
    reply_stopped = 0;
    signal(SIGINT, on_interrupt);
    write_tokens(c->p, &writing, &c->s, 1);
    signal(SIGINT, SIG_DFL);
    stream_print(&stream, 1);
    putchar('\n');
    last = c->s.length > c->s.prompt ? c->s.token[c->s.length - 1] : -1;
    for (int i = 0; i < config->eos_count; i++) ended |= last == config->eos[i];
    if (last >= 0 && c->how->end && (ended || last == stop)) c->s.length--;
    else if (!ended && !reply_stopped && c->s.length == c->T)
        fprintf(stderr, "run chat: the answer ends here: the conversation fills all %d positions\n", c->T);
    chat_marker(c, c->how->end);
    c->line_break = c->how->end != NULL;
}

/* Appends the user's text and the model's answer. If the user's text does not fit, removes it from the
 * conversation and returns 0; otherwise returns 1. */
static int chat_turn(Chat *c, const char *line, size_t n, int longest, const Sampling *sampling) {
    int length = c->s.length, line_break = c->line_break;
    PoolMark mark = pool_mark(c->pool);
    memset(&c->segment, 0, sizeof c->segment);
    c->segment.pool = c->pool;
    chat_message(c, "user", line, n);
    if (c->how->end) chat_role(c, "assistant");
    chat_flush(c);
    if (c->full || c->s.length >= c->T) {
        c->s.length = length; c->line_break = line_break; c->full = 0;
        pool_release(c->pool, mark);
        return 0;
    }
    if (c->s.length) chat_answer(c, longest, sampling);    /* without a token there is nothing to continue */
    chat_flush(c);
    c->full = 0;
    pool_release(c->pool, mark);
    return 1;
}

/* Returns the kind of template. The markers in chat_template of tokenizer_config.json, or in
 * chat_template.jinja, tell it; the template itself is never executed. Without both, the
 * vocabulary's tokens tell it. */
static int find_template(const Tokenizer *t, const char *folder, Pool *pool) {
    Error err = { 0 };
    const char *text = tokenizer_chat_template(t);
    char path[1024], *bytes;
    size_t n;
    if (!text && in_folder(folder, "chat_template.jinja")) {
        snprintf(path, sizeof path, "%s/chat_template.jinja", folder);
        must(file_read_all(path, pool, &bytes, &n, &err), &err, "name the template with --template");
        text = bytes;
    }
    if (!text && tokenizer_find(t, "<|im_start|>", 12) >= 0 && tokenizer_find(t, "<|im_end|>", 10) >= 0)
        return CHAT_ML;
    if (text && strstr(text, "<|im_start|>")) return CHAT_ML;
    if (text && strstr(text, "<|user|>") && strstr(text, "<|assistant|>") && !strstr(text, "<|end|>"))
        return CHAT_ZEPHYR;
    require(text ? E_UNSUPPORTED : E_MISSING, text ? "its chat_template is neither chatml nor zephyr"
                                                   : "the folder has no chat template", folder, 0, 0,
            "--template chatml, --template zephyr, or --template none for plain texts, one after another");
    return CHAT_NONE;
}

typedef struct {
    const char *adapter, *system;
    int n, top_k, template, context;
    double temperature, top_p;
    uint64_t seed;
    QuantOptions quant;
} ChatOptions;

static const char CHAT_HELP[] = "/new   a new conversation, which knows nothing of this one\n"
                                "/quit  the end, as the end of input\n"
                                "Ctrl-C ends an answer; between answers it ends the program\n"
                                "all else is said to the model\n";

static int is_command(const Input *in, const char *name) {
    return in->n == strlen(name) && !memcmp(in->text, name, in->n);
}

/* Reads the user's lines and answers each, until /quit or the end of input. Returns the program's exit code:
 * 1 if something did not fit, else 0. */
static int chat_loop(Chat *c, const ChatOptions *o, Pool *keep) {
    Sampling sampling = { (float)o->temperature, o->top_k, (float)o->top_p };
    Input in = input_open(NULL, 0, 0, 0, keep, c->pool);
    const int typed = cli_typed();
    int refused = 0;
    memset(&c->segment, 0, sizeof c->segment);
    c->segment.pool = keep;
    chat_begin(c, o->system);
    chat_flush(c);
    while (!c->full) {
        if (typed) fprintf(stderr, "> ");
        if (!input_next(&in) || is_command(&in, "/quit")) break;
        if (is_command(&in, "/help")) fputs(CHAT_HELP, stderr);
        else if (is_command(&in, "/new")) {
            c->segment.pool = keep; c->segment.data = NULL; c->segment.length = c->segment.capacity = 0;
            chat_begin(c, o->system);
            chat_flush(c);
        } else if (!chat_turn(c, in.text, in.n, o->n, &sampling)) {
            refused = 1;
            fprintf(stderr, "run chat: that does not fit: the conversation fills all %d positions; "
                            "/new starts a new one\n", c->T);
        }
    }
    if (c->full) fprintf(stderr, "run chat: --system alone fills all %d positions\n", c->T);
    if (typed) fprintf(stderr, "\n");
    in.failed = refused || c->full;
    return input_close(&in);
}

int run_chat(int argc, char **argv) {
    const char *positional[1] = { NULL };
    ChatOptions o;
    Option option[] = {
        { "template", OPT_CHOICE, &o.template, "auto", 0, 0, "auto|none|chatml|zephyr",
          "form of messages; auto: as the folder says; none: plain texts, one after another" },
        { "system", OPT_TEXT, &o.system, NULL, 0, 0, NULL, "a message to the model before the conversation" },
        { "n", OPT_INT, &o.n, "256", 1, 1e9, NULL, "most tokens of an answer" },
        { "context", OPT_INT, &o.context, "0", 0, 1e9, NULL, "longest conversation " CONTEXT_HELP },
        { "temperature", OPT_REAL, &o.temperature, "0.7", 0, 100, NULL,
          "divides the logits; 0: always take the most probable token" },
        { "top-k", OPT_INT, &o.top_k, "0", 0, 1e9, NULL, "draw from the K most probable tokens (0: all)" },
        { "top-p", OPT_REAL, &o.top_p, "0.9", 0, 1, NULL,
          "draw from the most probable tokens whose probabilities together reach P" },
        { "seed", OPT_SEED, &o.seed, "1", 0, 0, NULL, "random seed" },
        { "adapter", OPT_TEXT, &o.adapter, NULL, 0, 0, NULL, ADAPTER_HELP },
        QUANT_OPTIONS(o.quant, NF4_HELP),
        COMPUTE_OPTION(o.quant),
    };
    static const Need need[] = {
        { "top-k|top-p|seed", "temperature", "nothing is drawn" }, QUANT_NEEDS,
        { NULL, NULL, NULL } };
    Program program = {
        .program = "run chat",
        .usage = "MODEL [options]",
        .about =
            "Holds a conversation: you type a line, the model answers, until /quit or the end of input. "
            "/new starts a new conversation, /help lists what may be typed. Ctrl-C ends an answer.",
        OPTIONS(option), .need = need };
    int given = cli_parse(&program, argc, argv, positional, 1), before, after;
    Pool keep = cli_pool(), scratch = cli_pool();
    Error err = { 0 };
    Policy p = { 0 };
    Chat c = { 0 };
    if (given < 1) usage_error("which model?", NULL);
    adapter_as_model(&positional[0], &o.adapter, ADAPTER_ADVICE, &keep);
    quant_options_check(&program, &o.quant, NULL, NULL, 0);
    const char *folder = weights_folder(positional[0], o.adapter);
    c.T = context_length(o.context, folder, o.adapter, &keep);
    must(config_load(&p.config, folder, &keep, &err), &err, NULL);
    require(p.config.encoder.L ? E_UNSUPPORTED : OK, "chat with a policy that has an encoder", folder, 0, 0,
            "run generate MODEL --prompt TEXT");
    Tokenizer *t = p.tokenizer = need_tokenizer(positional[0], o.adapter, p.config.V, 0, &keep);
    /* the option's first choice is auto, the others are the CHAT_ constants */
    c.how = chat_template(o.template ? o.template - 1 : find_template(t, positional[0], &keep));
    const WeightTypes types = choose_types(&program, &o.quant, positional[0], o.adapter, &keep);
    policy_open(&p, &types, positional[0], o.adapter, c.T, &keep);
    report_padding(p.config.V, t);
    c.p = &p;
    c.pool = &scratch;
    batch_open(&p, 1, c.T, &keep);
    c.s.token = pool_need(&keep, (size_t)c.T, sizeof(int), "the conversation");
    c.s.rng = rng_stream(o.seed, 0, 0);
    tokenizer_template(t, &before, &after);
    c.bos = before ? tokenizer_specials(t).bos : -1;
    return chat_loop(&c, &o, &keep);
}
