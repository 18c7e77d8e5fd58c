/* programs/ppo_command.c - --reward-command: a program of the user's own gives the rewards.
 *
 * What it is   The command runs as long as the run does. For each response it gets a line on its standard
 *              input, {"query": "...", "response": "..."}, and writes a line with a number for each, in the
 *              same order. It gets all lines of a step at once; it may answer them one by one or together,
 *              but it has to flush its output. Its standard error is the run's.
 * Needs        POSIX (fork, pipe, poll); elsewhere the option is refused.
 * Never        waits for ever, and never takes a number that is not one: a command that is silent, that ends
 *              or that writes anything else ends the run with a message.
 * Edges        The command has a process group of its own, so that Ctrl-C, which the run answers by finishing
 *              its step, does not end it. At the run's end its input is closed; if it goes on, it gets
 *              SIGTERM. */
#if defined(__unix__) || (defined(__APPLE__) && defined(__MACH__))
#define COMMAND_POSIX 1
#define _POSIX_C_SOURCE 200809L
#endif
#include "ppo.h"

#ifdef COMMAND_POSIX
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The one command of a run. line: the beginning of a line that it has written (used bytes). */
static struct { pid_t child; int to, from; char line[128]; size_t used; } command;

/* Returns 1 if the command ends within `seconds`. */
static int ends_within(double seconds, int *status) {
    const struct timespec moment = { 0, 10000000 };
    const double begin = wall_clock();
    for (;;) {
        const pid_t ended = waitpid(command.child, status, WNOHANG);
        if (ended == command.child) command.child = 0;
        if (ended) return ended > 0;
        if (wall_clock() - begin > seconds) return 0;
        nanosleep(&moment, NULL);
    }
}

static void command_end(void) {
    int status;
    if (!command.child) return;
    close(command.to);
    close(command.from);
    if (!ends_within(2, &status)) kill(-command.child, SIGTERM);
}

/* Becomes the command, with these two ends of pipes as its standard input and output. */
static void become(const char *text, int in, int out) {
    setpgid(0, 0);
    signal(SIGPIPE, SIG_DFL);
    if (dup2(in, 0) < 0 || dup2(out, 1) < 0) _exit(126);
    execl("/bin/sh", "sh", "-c", text, (char *)NULL);
    _exit(127);
}

int command_begin(const char *text, Error *err) {
    int in[2] = { -1, -1 }, out[2] = { -1, -1 };
    int bad = pipe(in) || pipe(out);
    for (int i = 0; i < 2 && !bad; i++)
        bad = fcntl(in[i], F_SETFD, FD_CLOEXEC) < 0 || fcntl(out[i], F_SETFD, FD_CLOEXEC) < 0;
    bad = bad || fcntl(in[1], F_SETFL, O_NONBLOCK) < 0 || fcntl(out[0], F_SETFL, O_NONBLOCK) < 0;
    fflush(NULL);
    command.child = bad ? -1 : fork();
    if (!command.child) become(text, in[0], out[1]);
    if (command.child < 0) {
        command.child = 0;
        return fail(err, E_OPEN, "the reward command cannot be started", text, 0, 0);
    }
    close(in[0]);
    close(out[1]);
    command.to = in[1];
    command.from = out[0];
    signal(SIGPIPE, SIG_IGN);
    atexit(command_end);
    return OK;
}

/* Reports that the command has closed its output. */
static int ended(const char *text, Error *err) {
    char what[160];
    int status;
    if (!ends_within(2, &status))
        return fail(err, E_READ, "the reward command has closed its output", text, 0, 0);
    if (WIFSIGNALED(status))
        snprintf(what, sizeof what, "the reward command was ended by signal %d", WTERMSIG(status));
    else
        snprintf(what, sizeof what, "the reward command has ended, with exit code %d, before all responses "
                 "had their numbers", WEXITSTATUS(status));
    return fail(err, E_READ, what, text, 0, 0);
}

static void plain_text(char *line) {
    for (char *c = line; *c; c++) if (*c < 32 || *c > 126) *c = '?';
}

/* Reads the number of a line. Returns OK, or E_FORMAT and the line with all unusual characters as '?'. */
static int number_of(float *score, char *line, Error *err) {
    char *end;
    const double value = strtod(line, &end);
    const int any = end > line;
    while (*end == ' ' || *end == '\t' || *end == '\r') end++;
    *score = (float)value;
    if (any && !*end && is_number((double)*score)) return OK;
    plain_text(line);
    return fail(err, E_FORMAT, "the reward command has written a line that is not one number", line, 0, 0);
}

/* Reports a line that answers nothing, with all unusual characters as '?'. */
static int surplus(char *line, Error *err) {
    plain_text(line);
    return fail(err, E_FORMAT, "the reward command has written more lines than it got", line, 0, 0);
}

/* Takes n bytes that the command has written. *got: how many of the `wanted` scores are there. */
static int take(const char *bytes, size_t n, float *score, int *got, int wanted, Error *err) {
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] != '\n' && command.used + 1 < sizeof command.line) {
            command.line[command.used++] = bytes[i];
            continue;
        }
        command.line[command.used] = 0;
        if (*got == wanted) return surplus(command.line, err);
        const int code = number_of(score + *got, command.line, err);
        if (code) return code;
        if (bytes[i] != '\n')           /* the rest would be taken for the next number */
            return fail(err, E_FORMAT, "the reward command has written a line that is too long",
                        command.line, 0, 0);
        ++*got;
        command.used = 0;
    }
    return OK;
}

/* Returns E_FORMAT if the command has written something before it got the first of its lines. */
static int early(Error *err) {
    char *line = command.line + command.used;
    const ssize_t size = read(command.from, line, sizeof command.line - 1 - command.used);
    command.used += size > 0 ? (size_t)size : 0;
    command.line[command.used] = 0;
    command.line[strcspn(command.line, "\n")] = 0;
    return command.used ? surplus(command.line, err) : OK;
}

/* Sends `in` and reads n scores. */
static int exchange(const char *text, const Buffer *in, double seconds, float *score, int n, Error *err) {
    char bytes[4096], what[160];
    size_t sent = 0;
    double last = wall_clock();
    if (early(err)) return err->code;
    for (int got = 0; got < n; ) {
        struct pollfd p[2] = { { 0, POLLIN, 0 }, { 0, POLLOUT, 0 } };
        p[0].fd = command.from;
        p[1].fd = command.to;
        const int ready = poll(p, sent < in->length ? 2 : 1, 100);
        if (wall_clock() - last > seconds) {
            snprintf(what, sizeof what, "the reward command has been silent for %g seconds, with %d of %d "
                     "numbers written", seconds, got, n);
            return fail(err, E_READ, what, text, 0, 0);
        }
        if (ready <= 0) continue;
        if (p[0].revents) {
            const ssize_t size = read(command.from, bytes, sizeof bytes);
            if (!size) return ended(text, err);
            const int code = size > 0 ? take(bytes, (size_t)size, score, &got, n, err) : OK;
            if (code) return code;
            last = wall_clock();
        }
        if (p[1].revents) {
            const ssize_t size = write(command.to, in->data + sent, in->length - sent);
            if (size < 0 && errno == EPIPE) sent = in->length;      /* it reads no more; it may still write */
            if (size > 0) { sent += (size_t)size; last = wall_clock(); }
        }
    }
    return OK;
}
#else
int command_begin(const char *text, Error *err) {
    return fail(err, E_UNSUPPORTED, "--reward-command needs a POSIX system", text, 0, 0);
}
static int exchange(const char *text, const Buffer *in, double seconds, float *score, int n, Error *err) {
    (void)text; (void)in; (void)seconds; (void)score; (void)n;
    return err->code;
}
#endif

int command_scores(const Settings *o, const Rollout *x, float *score, Pool *pool, Error *err) {
    Buffer in = { 0 };
    in.pool = pool;
    for (int b = 0; b < x->B; b++) {
        buffer_text(&in, "{\"query\": ");
        buffer_json_string(&in, x->text[b], x->query_length[b]);
        buffer_text(&in, ", \"response\": ");
        buffer_json_string(&in, x->response[b], x->response_length[b]);
        buffer_text(&in, "}\n");
    }
    if (in.failed) return fail(err, E_MEMORY, "no memory for the reward command's lines", "", 0, 0);
    return exchange(o->reward_command, &in, o->reward_timeout, score, x->B, err);
}
