/* folder.c - the folders that programs write: what may not be overwritten, numbered folders of runs,
 * replacing a folder as a whole, the lock of a run, the room on the disk, and where a result goes if it
 * cannot be written to its own folder.
 *
 * What it is   Between cli.c and train.c: the trainers, prep and run merge write their folders through it.
 * Needs        io.c (folders, locks, renaming) and cli.c (messages); from POSIX isatty and two signals.
 * Never        overwrites a file that the program reads; deletes a folder inside a folder; deletes an old
 *              folder before the new one is complete; leaves a folder behind if nothing was written that is
 *              worth keeping; ends a run because its log cannot be written.
 * Edges        In plain C nobody can list, lock or replace folders: then a folder counts as empty. */
#if defined(__unix__) || (defined(__APPLE__) && defined(__MACH__))
#define FOLDER_POSIX 1
#define _XOPEN_SOURCE 700
#endif
#include "programs.h"
#include <signal.h>
#include <stdio.h>
#ifdef FOLDER_POSIX
#include <unistd.h>
#endif

/* The folder that this program writes (it writes one), and the lock of the folder that it will replace. */
static RunFolder *open_folder;
static struct { int handle; char path[540]; } older = { -1, "" };

/* ---- nothing that is read is overwritten ---- */

/* Returns 1 if both paths lead to the same place, or `path` leads to something inside `folder`. */
static int is_in(const char *path, const char *folder) {
    char a[4096], b[4096];
    if (file_same(path, folder)) return 1;
    if (!folder_exists(folder) || folder_resolve(a, sizeof a, path) || folder_resolve(b, sizeof b, folder))
        return 0;
    const size_t n = strlen(b);
    return !strncmp(a, b, n) && (a[n] == '/' || (n && b[n - 1] == '/'));
}

void out_file_check(const char *option, const char *out, const char *const *input, int inputs) {
    char message[96], hint[80];
    snprintf(message, sizeof message, "%s would overwrite what is read", option);
    snprintf(hint, sizeof hint, "another %s", option);
    if (!out[0]) usage_error("a file to write needs a name", option);
    for (int i = 0; i < inputs && file_exists(out); i++) {
        const char *from = input[i] && !strcmp(input[i], "-") ? "/dev/stdin" : input[i];
        if (from && is_in(out, from)) usage_hint(message, out, hint);
    }
}

/* Returns the number of names in a folder; 0 if it cannot be listed. *folder: 1 if one is a folder that is no
 * part of a run. */
static int names_in(const char *path, int *folder) {
    Pool pool = cli_pool();
    char **name;
    int count = 0;
    *folder = 0;
    if (folder_list(path, 1, &pool, &name, &count, NULL) != OK) count = 0;
    for (int i = 0; i < count; i++) {
        char full[4096];
        const int n = snprintf(full, sizeof full, "%s/%s", path, name[i]);
        if (folder_is_part(name[i])) continue;
        if (n > 0 && (size_t)n < sizeof full && folder_exists(full)) *folder = 1;
    }
    pool_free(&pool);
    return count;
}

/* Writes the name of the folder's lock to out, and returns 1 if there is such a file. */
static int has_lock(char out[540], const char *folder) {
    snprintf(out, 540, "%s/lock", folder);
    return file_exists(out);
}

#define OTHER_OUT "another --out, or wait until it has ended"
#define WRITABLE_OUT "--out FOLDER, in a place where files can be written"

static void die_of_lock(const char *folder, long process, const char *hint) {
    Error err = { 0 };
    char text[80];
    snprintf(text, sizeof text, "another program (process %ld) is writing to this folder", process);
    fail(&err, E_OPEN, text, folder, 0, 0);
    die(&err, hint);
}

/* Takes the lock of a folder: a file with the number of this process. Dies if another process has it (busy:
 * the advice), or if it cannot be written. */
static int take_lock(const char *path, const char *folder, const char *busy, const char *unwritable) {
    Error err = { 0 };
    long process;
    int handle;
    const int code = lock_take(path, &handle, &process, &err);
    if (code == E_OPEN) die_of_lock(folder, process, busy);
    must(code, &err, unwritable);
    if (process) {
        printf("%s: process %ld ended without deleting its lock, which is taken over\n", folder, process);
        fflush(stdout);
    }
    return handle;
}

/* Returns 1 if `out` can be opened as a file. */
static int is_file(const char *out) {
    Pool pool = cli_pool();
    File *f = file_open(out, &pool, NULL);
    file_close(f);
    pool_free(&pool);
    return f != NULL;
}

void out_check(const char *out, int force, const char *const *input, int inputs) {
    Error err = { 0 };
    char lock[540];
    int folder, names;
    long process;
    if (!out[0]) usage_error("--out needs the name of a folder", "(nothing)");
    if (strlen(out) >= sizeof open_folder->path - 40) usage_error("--out is too long a name", out);
    if (!folder_exists(out)) {
        if (is_file(out)) usage_error("--out is a file, and has to be a folder or nothing yet", out);
        return;
    }
    for (int i = 0; i < inputs; i++)
        if (input[i] && is_in(input[i], out))
            usage_hint("--out would overwrite what is read", out, "another --out");
    names = names_in(out, &folder) - has_lock(lock, out);
    if (lock_is_held(lock, &process)) die_of_lock(out, process, OTHER_OUT);
    if (names > 0 && !force) {
        fail(&err, E_WRITE, "the folder of --out is not empty", out, 0, 0);
        die(&err, "another --out, or --force to replace the folder and everything in it");
    }
    if (names > 0 && folder) {
        fail(&err, E_WRITE, "--force deletes only files, and there are folders in", out, 0, 0);
        die(&err, "another --out, or delete this folder yourself");
    }
    if (names > 0 && is_in(".", out)) {
        fail(&err, E_WRITE, "--force cannot replace the folder that the program runs in", out, 0, 0);
        die(&err, "--out with another folder, or start the program in another folder");
    }
}

/* ---- numbered folders: runs/ppo-0001 ---- */

/* Returns the largest number that BASE/.KIND-number or the name of a folder BASE/KIND-NUMBER has. */
static long last_number(const char *base, const char *kind) {
    Pool pool = cli_pool();
    char **name, *bytes, path[600];
    int count = 0;
    size_t n = strlen(kind), length;
    long last = 0;
    snprintf(path, sizeof path, "%s/.%s-number", base, kind);
    if (file_exists(path) && file_read_all(path, &pool, &bytes, &length, NULL) == OK)
        last = strtol(bytes, NULL, 10);
    if (folder_list(base, 1, &pool, &name, &count, NULL) != OK) count = 0;
    for (int i = 0; i < count; i++)
        if (!strncmp(name[i], kind, n) && name[i][n] == '-') {
            const long number = strtol(name[i] + n + 1, NULL, 10);
            if (number > last) last = number;
        }
    pool_free(&pool);
    return last < 0 || last > 999999 ? 999999 : last;
}

int run_folder(char *out, size_t cap, const char *base, const char *kind, Error *err) {
    int rc = folder_make(base, err);
    if (rc != OK) return rc;
    for (long number = last_number(base, kind) + 1; number < 1000000; number++) {
        const int n = snprintf(out, cap, "%s/%s-%04ld", base, kind, number);
        if (n < 0 || (size_t)n >= cap)
            return fail(err, E_RANGE, "the name of the run folder is too long", base, n, (long long)cap - 1);
        rc = folder_new(out, err);
        if (rc != E_OPEN) return rc;                /* E_OPEN: another program was faster */
    }
    return fail(err, E_RANGE, "no number is free for a run folder", base, 0, 0);
}

/* ---- opening, replacing and leaving the folder ---- */

/* Returns how many first bytes of a path are a folder that is there already. */
static size_t existing_part(const char *path) {
    char part[sizeof open_folder->path];
    size_t n = strlen(path);
    for (; n > 0; n--) {
        if (path[n] && path[n] != '/') continue;
        memcpy(part, path, n);
        part[n] = 0;
        if (folder_exists(part)) break;
    }
    return n;
}

/* Removes the folder and those of its parents that this program has made. */
static void remove_made(const char *path, size_t existed) {
    char part[sizeof open_folder->path];
    size_t n = strlen(path);
    memcpy(part, path, n + 1);
    while (n > existed && folder_remove(part, NULL) == OK) {
        while (n > 0 && part[n - 1] != '/') n--;
        while (n > 0 && part[n - 1] == '/') n--;
        part[n] = 0;
    }
}

/* The end of the program: deletes and unlocks what it has to. */
static void out_leave(void) {
    RunFolder *f = open_folder;
    open_folder = NULL;
    if (f) {
        if (!f->begun) {
            Pool pool = cli_pool();
            if (folder_empty(f->path, &pool, NULL) == OK) remove_made(f->path, f->existed);
            pool_free(&pool);
        }
        lock_release(f->lock, f->lock_handle);
    }
    lock_release(older.path, older.handle);
    older.handle = -1;
}

/* Writes the names of the folder's files to f. */
static void name_files(RunFolder *f) {
    snprintf(f->log, sizeof f->log, "%s/log.jsonl", f->path);
    snprintf(f->time, sizeof f->time, "%s/time.jsonl", f->path);
    snprintf(f->lock, sizeof f->lock, "%s/lock", f->path);
}

/* Opens a folder that will replace the folder `out`, under the name of the latter with ".new". */
static void open_beside(RunFolder *f, const char *out) {
    Error err = { 0 };
    int code = folder_resolve(f->replaces, sizeof f->replaces, out);
    f->existed = strlen(f->replaces);
    snprintf(f->path, sizeof f->path, "%s.new", f->replaces);
    if (code == OK) code = folder_new(f->path, &err);
    if (code == E_OPEN)
        fail(&err, E_OPEN, "a folder is in the way, of an ended run or of your own", f->path, 0, 0);
    must(code, &err, "move this folder to another place, or delete it");
    printf("written to %s first, which then replaces %s\n", f->path, out);
}

static void quiet_signals(void) {
#ifdef FOLDER_POSIX
    signal(SIGXFSZ, SIG_IGN);       /* a file that grows beyond `ulimit -f` is an error, not the end */
    signal(SIGPIPE, SIG_IGN);       /* nor is the end of a `tee` that shows what the program prints */
#endif
}

void out_open(RunFolder *f, const char *out, int force, const char *base, const char *kind) {
    static const char hint[] = "--out FOLDER, in a place where folders can be made";
    Error err = { 0 };
    int folder;
    f->kind = kind;
    if (out) {
        out_check(out, force, NULL, 0);         /* again: another program may have written to it meanwhile */
        size_t n = strlen(out);
        while (n > 1 && out[n - 1] == '/') n--;
        snprintf(f->given, sizeof f->given, "%.*s", (int)n, out);
        strcpy(f->path, f->given);
        f->existed = existing_part(f->given);
        if (names_in(out, &folder) - has_lock(older.path, out) > 0) open_beside(f, out);
        else must(folder_make(f->path, &err), &err, hint);
    } else {
        f->existed = existing_part(base);
        must(run_folder(f->path, sizeof f->path, base, kind, &err), &err, hint);
        snprintf(f->number, sizeof f->number, "%s/.%s-number", base, kind);
    }
    name_files(f);
    open_folder = f;
    atexit(out_leave);
    f->lock_handle = -1;
    if (f->replaces[0] && has_lock(older.path, out))
        older.handle = take_lock(older.path, out, OTHER_OUT, WRITABLE_OUT);
    f->lock_handle = take_lock(f->lock, f->path, OTHER_OUT, WRITABLE_OUT);
    quiet_signals();
}

/* Returns 1 if a name is that of a file that was being written, NAME.tmp-PROCESS, or of a folder that was
 * being written or replaced, best.new or NAME.old-PROCESS. */
static int is_temporary(const char *name) {
    const char *file = strstr(name, ".tmp-"), *folder = strstr(name, ".old-");
    const char *at = file ? file : folder;
    const int copy = !strncmp(name, "step-", 5) || !strncmp(name, "best.", 5);
    return (at && at[5] >= '0' && at[5] <= '9') || (copy && strstr(name, ".new"));
}

void out_resume(RunFolder *f, const char *folder, const char *kind) {
    Pool pool = cli_pool();
    char **name, path[1200];
    int count = 0;
    size_t n = strlen(folder);
    while (n > 1 && folder[n - 1] == '/') n--;
    if (n >= sizeof f->path - 40) usage_error("--resume is too long a name", folder);
    snprintf(f->path, sizeof f->path, "%.*s", (int)n, folder);
    strcpy(f->given, f->path);
    f->kind = kind;
    f->begun = 1;
    name_files(f);
    open_folder = f;
    atexit(out_leave);
    f->lock_handle = -1;
    f->lock_handle = take_lock(f->lock, f->path, "wait until it has ended", NOTHING_LOST);
    quiet_signals();
    if (folder_list(f->path, 1, &pool, &name, &count, NULL) != OK) count = 0;
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/%.600s", f->path, name[i]);
        if (!is_temporary(name[i])) continue;
        if (!folder_exists(path)) file_remove(path, NULL);
        else if (folder_empty(path, &pool, NULL) == OK) folder_remove(path, NULL);
    }
    pool_free(&pool);
}

void out_state(const RunFolder *f, char out[540]) { snprintf(out, 540, "%s/state", f->path); }

long long out_first_line(const char *path) {
    Pool pool = cli_pool();
    char bytes[1024];
    File *f = file_open(path, &pool, NULL);
    const uint64_t n = f ? file_size(f) : 0;
    uint64_t at = 0;
    for (size_t part; at < n; at += part) {
        part = n - at < sizeof bytes ? (size_t)(n - at) : sizeof bytes;
        if (file_read_at(f, at, bytes, part, NULL) != OK) break;
        const char *end = memchr(bytes, '\n', part);
        if (end) { at += (uint64_t)(end - bytes) + 1; break; }
    }
    file_close(f);
    pool_free(&pool);
    return (long long)at;
}

long long out_length(const char *path) {
    Pool pool = cli_pool();
    File *f = file_open(path, &pool, NULL);
    const long long n = f ? (long long)file_size(f) : 0;
    file_close(f);
    pool_free(&pool);
    return n;
}

int out_cut(const char *path, long long length, Error *err) {
    Pool pool = cli_pool();
    char *bytes;
    size_t n;
    int code = OK;
    if (out_length(path) > length) {
        code = file_read_all(path, &pool, &bytes, &n, err);
        if (code == OK) code = file_write_all(path, bytes, (size_t)length, &pool, err);
    }
    pool_free(&pool);
    return code;
}

void out_begun(RunFolder *f) {
    Pool pool = cli_pool();
    const char *digits = f->path + strlen(f->path);
    if (!f->begun && f->number[0]) {        /* if this fails, only a deleted run's number can come again */
        while (digits > f->path && digits[-1] >= '0' && digits[-1] <= '9') digits--;
        file_write_all(f->number, digits, strlen(digits), &pool, NULL);
    }
    f->begun = 1;
    pool_free(&pool);
}

int out_commit(RunFolder *f, Error *err) {
    Pool pool = cli_pool();
    const int code = f->replaces[0] ? folder_replace(f->path, f->replaces, &pool, err) : OK;
    if (code == OK && f->replaces[0]) {
        strcpy(f->path, f->given);
        f->replaces[0] = 0;
        name_files(f);
    }
    out_begun(f);
    pool_free(&pool);
    return code;
}

/* ---- the log goes on when the disk is full ---- */

/* Counts a line that was not written, and says so for the first one. */
static void lose_line(RunFolder *f, const Error *err) {
    if (!f->lost++) cli_warn(err, "make room; the run goes on, but its log lacks this line and maybe more");
}

void out_append(RunFolder *f, const char *path, const void *bytes, size_t n) {
    Error err = { 0 };
    if (file_append(path, bytes, n, &err) != OK) lose_line(f, &err);
}

/* Appends a line's numbers to TensorBoard's file, after its beginning if they are the first: a run that ends
 * before its first numbers leaves no file. */
static void append_event(RunFolder *f, const char *line, size_t n) {
    char path[sizeof f->path + sizeof f->events];
    Pool pool = cli_pool();
    Buffer b = { 0 };
    b.pool = &pool;
    snprintf(path, sizeof path, "%s/%s", f->path, f->events);
    if (!f->events_begun) tensorboard_begin(&b, unix_clock(), f->events_from);
    if (tensorboard_line(&b, line, n, unix_clock())) {
        out_append(f, path, b.data, b.length);
        f->events_begun = 1;
    }
    pool_free(&pool);
}

void out_tensorboard(RunFolder *f, int resumed) {
    char host[64] = "localhost";
    long process = 0;
#ifdef FOLDER_POSIX
    if (gethostname(host, sizeof host) != 0) strcpy(host, "localhost");
    host[sizeof host - 1] = 0;
    process = (long)getpid();
#endif
    for (char *c = host; *c; c++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-", *c)) *c = '-';
    snprintf(f->events, sizeof f->events, "events.out.tfevents.%010.0f.%s.%ld.0", floor(unix_clock()), host,
             process);
    f->events_from = resumed ? resumed + 1.0 : 0;
}

void out_log(RunFolder *f, Log *l) {
    Error err = { 0 };
    const int code = log_end(l, &err);
    if (code == E_MEMORY) die(&err, NULL);
    if (code != OK) lose_line(f, &err);
    if (f->events[0]) append_event(f, (const char *)l->line.data, l->line.length);
}

/* ---- the room on the disk ---- */

void out_room(const char *out, uint64_t bytes, int dry_run) {
    static const char hint[] = "--out on another disk, or make room on this one";
    char folder[sizeof open_folder->path], wanted[32], free_bytes[32], text[120];
    Error err = { 0 };
    uint64_t room;
    const size_t n = strlen(out) < sizeof folder ? existing_part(out) : 0;
    memcpy(folder, out, n);
    strcpy(folder + n, n ? "" : ".");
    print_bytes("written to the disk", (size_t)bytes);
    if (folder_room(folder, &room) != OK || room >= bytes) return;
    readable_bytes(wanted, (size_t)bytes);
    readable_bytes(free_bytes, (size_t)room);
    snprintf(text, sizeof text, "too little room on the disk: %s free, %s needed", free_bytes, wanted);
    fail(&err, E_WRITE, text, folder, 0, 0);
    if (dry_run) cli_warn(&err, hint);
    else die(&err, hint);
}

/* ---- a result that cannot be written to its folder ---- */

#ifdef FOLDER_POSIX
/* Returns 1 if a person can be asked: both ends are terminals, and nobody has sent SIGTERM or SIGHUP. */
static int can_ask(void) {
    const int code = cli_exit_code(0);
    return isatty(0) && isatty(2) && (code == 0 || code == 128 + SIGINT);
}
#else
static int can_ask(void) { return 0; }
#endif

/* Asks where to write, until the answer can be used. Returns 0 at the end of the input. */
static int ask(char *out, size_t cap, const char *first) {
    Pool pool = cli_pool();
    Lines *lines = lines_open("-", &pool, NULL);
    const char *line;
    size_t n;
    int folder, found = 0;
    while (lines && !found) {
        fprintf(stderr, "make room and press Enter to try again, or type another folder's name: ");
        if (!lines_next(lines, &line, &n)) break;
        if (n >= cap) fprintf(stderr, "too long a name\n");
        else if (n && names_in(line, &folder)) fprintf(stderr, "this folder is not empty\n");
        else {
            snprintf(out, cap, "%s", n ? line : first);
            found = 1;
        }
    }
    pool_free(&pool);
    return found;
}

int out_elsewhere(const RunFolder *f, char *out, size_t cap, int *tries, const Error *why) {
    Error err = { 0 };
    const char *base[2];
    cli_warn(why, NULL);
    base[0] = f->fallback;
    base[1] = ".";
    if (*tries == 0 && can_ask() && ask(out, cap, f->path)) return 1;
    while (*tries < 2) {
        const char *to = base[(*tries)++];
        memset(&err, 0, sizeof err);
        if (*tries == 2 && !strcmp(base[0], ".")) break;
        if (run_folder(out, cap, to, f->kind, &err) == OK) return 1;
        cli_warn(&err, NULL);
    }
    return 0;
}
