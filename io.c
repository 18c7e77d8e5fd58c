/* io.c - files of any size, atomic writes, folders, lines, datasets, the clock: the only file that touches
 * FILE*.
 * Source   The dataset format is this project's own; it is described above its functions.
 * Needs    C99's stdio. POSIX, where it exists, adds offsets beyond 4 GB, fsync, folders, locks and a
 *          monotonic clock; Windows (mingw) adds the offsets and the folders.
 * Never    prints, exits, allocates (handles, paths and lines are in the caller's pool), or leaves a
 *          half-written file under its final name: see Writer.
 * Edges    folders opened as files, devices as outputs, lines of any length, hostile datasets: see
 *          tests/unit/base.c. */
#if defined(__unix__) || defined(__unix) || (defined(__APPLE__) && defined(__MACH__))
#define POSIX_SYSTEM
#define _XOPEN_SOURCE 700                   /* realpath */
#define _FILE_OFFSET_BITS 64
#endif
#include "rlhf.h"
#include <errno.h>
#include <stdio.h>
#include <time.h>
#ifdef POSIX_SYSTEM
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#ifndef PATH_MAX
#define PATH_MAX 4096
#endif
#define GETC getc_unlocked
#define POSIX_FILES
#else
#define GETC getc
#ifdef __MINGW32__              /* Windows has POSIX's calls for folders and for new files */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#define mkdir(path, mode) mkdir(path)
#define lstat stat
#define fseek(f, offset, whence) _fseeki64(f, offset, whence)
#define ftell _ftelli64
#define POSIX_FILES
#endif
#endif
#ifndef O_BINARY
#define O_BINARY 0
#endif

/* Fills *err with "WHAT (REASON)": the system's text for the errno `reason`. reason 0: fills in "WHAT" alone.
 * Returns code. The caller keeps errno in `reason` at once, because any later call may change errno. */
static int fail_system(Error *err, int code, const char *what, const char *path, int reason) {
    char message[160];
    snprintf(message, sizeof message, reason ? "%s (%s)" : "%s", what, reason ? strerror(reason) : "");
    return fail(err, code, message, path, 0, 0);
}

/* Returns the text a + b + c in pool; NULL if there is no memory. */
static char *join(Pool *pool, const char *a, const char *b, const char *c) {
    size_t x = strlen(a), y = strlen(b), z = strlen(c);
    char *out = pool_take(pool, x + y + z + 1, 1);
    if (!out) return NULL;
    memcpy(out, a, x);
    memcpy(out + x, b, y);
    memcpy(out + x + y, c, z);
    return out;
}

/* ---- files for reading ---- */
struct File { FILE *f; uint64_t size; const char *path; };

#ifdef POSIX_SYSTEM
/* Reads up to n bytes at offset and returns how many; sets *reason to errno if reading failed. The stream's
 * own position is not used, so several threads may read at the same time. */
static size_t read_at(FILE *f, uint64_t offset, void *out, size_t n, int *reason) {
    size_t done = 0;
    for (ssize_t got = 1; done < n && got != 0; ) {
        size_t part = n - done < (size_t)1 << 30 ? n - done : (size_t)1 << 30;
        got = pread(fileno(f), (char *)out + done, part, (off_t)(offset + done));
        if (got > 0) done += (size_t)got;
        if (got < 0 && errno != EINTR) { *reason = errno; break; }
    }
    return done;
}
/* Returns the file's size, or -1 if it has none (a pipe). */
static long long seek_size(FILE *f) { return fseeko(f, 0, SEEK_END) == 0 ? (long long)ftello(f) : -1; }
static int is_folder(FILE *f) {
    struct stat s;
    return fstat(fileno(f), &s) == 0 && S_ISDIR(s.st_mode);
}
#else
/* Moves the stream to offset in steps, because C99's fseek takes a long, which may be too small. Returns
 * 1, or 0 on an error. */
static int seek_to(FILE *f, uint64_t offset) {
    if (fseek(f, 0, SEEK_SET)) return 0;
    while (offset > 0) {
        long step = offset > (uint64_t)LONG_MAX ? LONG_MAX : (long)offset;
        if (fseek(f, step, SEEK_CUR)) return 0;
        offset -= (uint64_t)step;
    }
    return 1;
}
#ifdef _OPENMP
#define ONE_AT_A_TIME PRAGMA_(omp critical)
#else
#define ONE_AT_A_TIME
#endif
static size_t read_at(FILE *f, uint64_t offset, void *out, size_t n, int *reason) {
    size_t got = 0;
    ONE_AT_A_TIME {
        errno = 0;
        if (seek_to(f, offset)) got = fread(out, 1, n, f);
        if (got < n) *reason = errno;
    }
    return got;
}
static long long seek_size(FILE *f) { return fseek(f, 0, SEEK_END) == 0 ? (long long)ftell(f) : -1; }
static int is_folder(FILE *f) { (void)f; return 0; }
#endif

/* Opens a file for reading and refuses folders, which some systems open like files. */
static FILE *open_reading(const char *path, Error *err) {
    FILE *f;
    errno = 0;
    f = fopen(path, "rb");
    if (!f) { fail_system(err, E_OPEN, "cannot open", path, errno); return NULL; }
    if (is_folder(f)) { fclose(f); fail(err, E_OPEN, "is a folder, not a file", path, 0, 0); return NULL; }
    return f;
}

File *file_open(const char *path, Pool *pool, Error *err) {
    File *out = pool_take(pool, 1, sizeof *out);
    char *name = pool_text(pool, path, strlen(path));
    long long size;
    if (!out || !name) { fail(err, E_MEMORY, "not enough memory to open", path, 0, 0); return NULL; }
    out->path = name;
    out->f = open_reading(path, err);
    if (!out->f) return NULL;
    size = seek_size(out->f);
    if (size < 0) {
        const int reason = errno;
        fclose(out->f);
        fail_system(err, E_READ, "cannot tell its size: a pipe?", path, reason);
        return NULL;
    }
    out->size = (uint64_t)size;
    return out;
}

uint64_t file_size(const File *f) { return f->size; }

int file_read_at(File *f, uint64_t offset, void *out, size_t n, Error *err) {
    size_t got;
    int reason = 0;
    if (!f || !f->f) return fail(err, E_READ, "the file is not open", f ? f->path : "", 0, 0);
    if (offset > f->size || n > f->size - offset)
        return fail(err, E_TRUNCATED, "the file ends too early", f->path, (long long)f->size,
                    offset > (uint64_t)LLONG_MAX || n > (uint64_t)LLONG_MAX - offset
                        ? LLONG_MAX : (long long)(offset + n));
    got = read_at(f->f, offset, out, n, &reason);
    if (got == n) return OK;
    if (reason) return fail_system(err, E_READ, "cannot read", f->path, reason);
    return fail(err, E_TRUNCATED, "the file became shorter while it was read", f->path,
                (long long)(offset + got), (long long)(offset + n));
}

void file_close(File *f) {
    if (f && f->f) fclose(f->f);
    if (f) f->f = NULL;
}

int file_read_all(const char *path, Pool *pool, char **bytes, size_t *n, Error *err) {
    File *f = file_open(path, pool, err);
    char *data;
    int code;
    *bytes = NULL;
    *n = 0;
    if (!f) return err && err->code ? err->code : E_OPEN;
    data = f->size < SIZE_MAX ? pool_take(pool, (size_t)f->size + 1, 1) : NULL;
    code = data ? file_read_at(f, 0, data, (size_t)f->size, err)
                : fail(err, E_MEMORY, "not enough memory to read the whole file", path, 0, 0);
    file_close(f);
    if (code != OK) return code;
    *bytes = data;
    *n = (size_t)f->size;
    return OK;
}

int folder_is_part(const char *name) {
    const char *digit = name + 5;
    if (!strcmp(name, "prompt") || !strcmp(name, "best") || !strcmp(name, "value_model")) return 1;
    if (strncmp(name, "step-", 5) || !*digit) return 0;
    while (*digit >= '0' && *digit <= '9') digit++;
    return !*digit;
}

int file_exists(const char *path) {
    FILE *f;
    errno = 0;
    f = fopen(path, "rb");
#ifdef POSIX_SYSTEM
    if (!f)                         /* another reason: the file is there, and reading it says why it fails */
        return errno != ENOENT && errno != ENOTDIR && errno != ENAMETOOLONG;
#endif
    const int file = f && !is_folder(f);
    if (f) fclose(f);
    return file;
}

#ifdef POSIX_SYSTEM
int file_same(const char *a, const char *b) {
    struct stat x, y;
    if (stat(a, &x) || stat(b, &y) || !(S_ISREG(x.st_mode) || S_ISDIR(x.st_mode))) return 0;
    return x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}
#else
/* Returns the next part of a path, and moves *path behind it. Leaves out empty parts and ".". */
static size_t next_part(const char **path, const char **part) {
    size_t n;
    do {
        *path += strspn(*path, "/\\");
        *part = *path;
        n = strcspn(*path, "/\\");
        *path += n;
    } while (n == 1 && (*part)[0] == '.');
    return n;
}
int file_same(const char *a, const char *b) {
    const char *x, *y;
    size_t n = 1;
    while (n > 0) {
        n = next_part(&a, &x);
        if (next_part(&b, &y) != n || memcmp(x, y, n)) return 0;
    }
    return 1;
}
#endif

/* ---- folders ---- */
#ifdef POSIX_FILES
int folder_exists(const char *path) {
    struct stat s;
    return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

/* Makes each parent folder, a part of path that ends before a slash, then path itself. */
int folder_make(const char *path, Error *err) {
    char part[4096];
    size_t n = strlen(path), i;
    if (n == 0 || n >= sizeof part)
        return fail(err, E_ARGUMENT, n ? "path too long" : "empty path", path, 0, 0);
    for (i = 1; i <= n; i++) {
        if ((i < n && path[i] != '/') || path[i - 1] == '/') continue;
        memcpy(part, path, i);
        part[i] = 0;
        const int reason = mkdir(part, 0777) == 0 ? 0 : errno;
        if (reason && !folder_exists(part))
            return fail_system(err, E_WRITE, "cannot make the folder", part, reason);
    }
    return OK;
}

int folder_new(const char *path, Error *err) {
    if (mkdir(path, 0777) == 0) return OK;
    return errno == EEXIST ? E_OPEN : fail_system(err, E_WRITE, "cannot make the folder", path, errno);
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Appends name to the growing array; returns 0 if there is no memory. */
static int add_name(char ***names, int *count, int *capacity, const char *name, Pool *pool) {
    if (*count == *capacity) {
        int more = *capacity ? *capacity * 2 : 64;
        char **grown = *capacity <= INT_MAX / 2 ? pool_take(pool, (size_t)more, sizeof *grown) : NULL;
        if (!grown) return 0;
        if (*count) memcpy(grown, *names, (size_t)*count * sizeof *grown);
        *names = grown;
        *capacity = more;
    }
    (*names)[*count] = pool_text(pool, name, strlen(name));
    return (*names)[(*count)++] != NULL;
}

int folder_list(const char *path, int all, Pool *pool, char ***names, int *count, Error *err) {
    DIR *folder;
    struct dirent *entry;
    struct stat s;
    int capacity = 0, enough = 1;
    *names = NULL;
    *count = 0;
    errno = 0;
    folder = opendir(path);
    if (!folder) return fail_system(err, E_OPEN, "cannot list the folder", path, errno);
    while (enough && (entry = readdir(folder)) != NULL) {
        PoolMark mark = pool_mark(pool);
        char *full = join(pool, path, "/", entry->d_name);
        int dots = !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..");
        int wanted = all ? !dots : full && stat(full, &s) == 0 && S_ISREG(s.st_mode);
        enough = full != NULL;
        pool_release(pool, mark);
        if (wanted) enough = add_name(names, count, &capacity, entry->d_name, pool);
    }
    closedir(folder);
    if (!enough) return fail(err, E_MEMORY, "not enough memory to list the folder", path, 0, 0);
    if (*count) qsort(*names, (size_t)*count, sizeof **names, compare_names);
    return OK;
}

/* Looks at every name before it deletes the first one. Links are deleted, never followed. */
int folder_empty(const char *path, Pool *pool, Error *err) {
    const PoolMark mark = pool_mark(pool);
    char **names;
    int count, code = folder_list(path, 1, pool, &names, &count, err);
    for (int deletes = 0; deletes < 2 && code == OK; deletes++)
        for (int i = 0; i < count && code == OK; i++) {
            struct stat s;
            const char *full = join(pool, path, "/", names[i]);
            const int folder = full && lstat(full, &s) == 0 && S_ISDIR(s.st_mode);
            if (!full) code = fail(err, E_MEMORY, "not enough memory to empty the folder", path, 0, 0);
            else if (folder && !folder_is_part(names[i]))
                code = fail(err, E_ARGUMENT, "a folder is in it, and is not deleted", full, 0, 0);
            else if (folder && deletes) {
                code = folder_empty(full, pool, err);
                if (code == OK) code = folder_remove(full, err);
            } else if (deletes && unlink(full) != 0)
                code = fail_system(err, E_WRITE, "cannot delete", full, errno);
        }
    pool_release(pool, mark);
    return code;
}

int folder_remove(const char *path, Error *err) {
    return rmdir(path) == 0 ? OK : fail_system(err, E_WRITE, "cannot delete the folder", path, errno);
}

int folder_replace(const char *from, const char *to, Pool *pool, Error *err) {
    char ending[40];
    const char *old;
    int reason;
    if (rename(from, to) == 0) return OK;                   /* `to` was empty or not there */
    snprintf(ending, sizeof ending, ".old-%ld", (long)getpid());
    old = join(pool, to, ending, "");
    if (!old) return fail(err, E_MEMORY, "not enough memory to rename", from, 0, 0);
    if (rename(to, old) != 0) return fail_system(err, E_WRITE, "cannot be replaced", to, errno);
    if (rename(from, to) != 0) {
        reason = errno;
        if (rename(old, to) != 0) reason = errno;
        return fail_system(err, E_WRITE, "cannot be replaced", to, reason);
    }
    reason = folder_empty(old, pool, err);
    return reason == OK ? folder_remove(old, err) : reason;
}
#else
/* Returns 1 if a file can be made in the folder: plain C cannot ask whether a folder exists. */
int folder_exists(const char *path) {
    char probe[4096];
    size_t n = strlen(path);
    FILE *f;
    if (n + sizeof "/folder.tmp" > sizeof probe) return 0;
    memcpy(probe, path, n);
    memcpy(probe + n, "/folder.tmp", sizeof "/folder.tmp");
    f = fopen(probe, "ab");
    if (!f) return 0;
    fclose(f);
    remove(probe);
    return 1;
}
int folder_make(const char *path, Error *err) {
    if (folder_exists(path)) return OK;
    return fail(err, E_UNSUPPORTED, "this system cannot make folders from here: make it by hand", path, 0, 0);
}
int folder_new(const char *path, Error *err) {
    char log[4096];
    const int n = snprintf(log, sizeof log, "%s/log.jsonl", path);
    if (n < 0 || (size_t)n >= sizeof log) return fail(err, E_ARGUMENT, "path too long", path, 0, 0);
    return file_exists(log) ? E_OPEN : folder_make(path, err);
}
int folder_list(const char *path, int all, Pool *pool, char ***names, int *count, Error *err) {
    (void)all; (void)pool;
    *names = NULL;
    *count = 0;
    return fail(err, E_UNSUPPORTED, "this system cannot list folders from here", path, 0, 0);
}
int folder_empty(const char *path, Pool *pool, Error *err) {
    (void)pool;
    return fail(err, E_UNSUPPORTED, "this system cannot list folders from here", path, 0, 0);
}
int folder_remove(const char *path, Error *err) {
    return fail(err, E_UNSUPPORTED, "this system cannot delete folders from here", path, 0, 0);
}
int folder_replace(const char *from, const char *to, Pool *pool, Error *err) {
    (void)pool;
    if (rename(from, to) == 0) return OK;
    return fail(err, E_UNSUPPORTED, "this system cannot replace a folder from here", to, 0, 0);
}
#endif

#ifdef POSIX_SYSTEM
int folder_resolve(char *out, size_t cap, const char *path) {
    char full[PATH_MAX];
    size_t n;
    if (realpath(path, full)) path = full;
    n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    if (n >= cap) return E_RANGE;
    memcpy(out, path, n);
    out[n] = 0;
    return OK;
}

int folder_room(const char *path, uint64_t *bytes) {
    struct statvfs s;
    if (statvfs(path, &s) != 0) return E_OPEN;
    *bytes = (uint64_t)s.f_bavail * (uint64_t)(s.f_frsize ? s.f_frsize : s.f_bsize);
    return OK;
}

/* Opens the lock's file and locks it. Returns a handle, or -1 with errno. Tries again if its process ended,
 * and so deleted the file, in between. */
static int open_locked(const char *path) {
    for (int tries = 0; tries < 100; tries++) {
        struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
        struct stat held, named;
        const int handle = open(path, O_RDWR | O_CREAT, 0666);
        if (handle < 0) return -1;
        if (fcntl(handle, F_SETLK, &whole) != 0 && (errno == EACCES || errno == EAGAIN)) {
            close(handle);
            errno = EBUSY;
            return -1;
        }                       /* a disk that knows no locks: nobody can tell */
        if (fstat(handle, &held) == 0 && stat(path, &named) == 0 && held.st_ino == named.st_ino)
            return handle;
        close(handle);
    }
    errno = EBUSY;
    return -1;
}

/* Returns the number of a process that the file begins with, or 0. */
static long read_process(int handle) {
    char text[24];
    const ssize_t n = pread(handle, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = 0;
    return strtol(text, NULL, 10);
}

int lock_is_held(const char *path, long *process) {
    struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    const int handle = open(path, O_RDWR);
    const int held = handle >= 0 && fcntl(handle, F_GETLK, &whole) == 0 && whole.l_type != F_UNLCK;
    *process = held ? read_process(handle) : 0;
    if (handle >= 0) close(handle);
    return held;
}

int lock_take(const char *path, int *handle, long *process, Error *err) {
    char text[24];
    int reason = 0, n;
    *process = 0;
    *handle = open_locked(path);
    if (*handle < 0) {
        if (errno != EBUSY) return fail_system(err, E_WRITE, "cannot write", path, errno);
        lock_is_held(path, process);
        return fail(err, E_OPEN, "another program is writing to it", path, 0, 0);
    }
    *process = read_process(*handle);
    n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(*handle, 0) != 0 || pwrite(*handle, text, (size_t)n, 0) != n) reason = errno;
    if (!reason) return OK;
    lock_release(path, *handle);
    return fail_system(err, E_WRITE, "cannot write", path, reason);
}

void lock_release(const char *path, int handle) {
    if (handle < 0) return;
    unlink(path);
    close(handle);
}
#else
int folder_resolve(char *out, size_t cap, const char *path) {
    if (strlen(path) >= cap) return E_RANGE;
    strcpy(out, path);
    return OK;
}
int folder_room(const char *path, uint64_t *bytes) {
    (void)path; (void)bytes;
    return E_UNSUPPORTED;
}
int lock_is_held(const char *path, long *process) {
    (void)path;
    *process = 0;
    return 0;
}
int lock_take(const char *path, int *handle, long *process, Error *err) {
    (void)path; (void)err;
    *handle = -1;
    *process = 0;
    return OK;
}
void lock_release(const char *path, int handle) { (void)path; (void)handle; }
#endif

/* ---- atomic writing: a temporary file gets the final name when it is complete ---- */
/* temporary NULL: path is a device, which is written directly. failed: 1 after an
 * error; reason: the errno. */
struct Writer { FILE *f; const char *path, *temporary; int failed, reason; };

#ifdef POSIX_FILES
/* Makes a new file PATH.tmp-PID, or PATH.tmp-PID-N if there is such a file already. */
static FILE *open_temporary(Writer *w, Pool *pool) {
    char ending[64];
    int number, handle = -1;
    for (number = 0; number < 100 && handle < 0; number++) {
        snprintf(ending, sizeof ending, number ? ".tmp-%ld-%d" : ".tmp-%ld", (long)getpid(), number);
        w->temporary = join(pool, w->path, ending, "");
        if (!w->temporary) return NULL;
        handle = open(w->temporary, O_WRONLY | O_CREAT | O_EXCL | O_BINARY, 0666);
        if (handle < 0 && errno != EEXIST) return NULL;
    }
    return handle < 0 ? NULL : fdopen(handle, "wb");
}
#else
static FILE *open_temporary(Writer *w, Pool *pool) {
    w->temporary = join(pool, w->path, ".tmp", "");
    return w->temporary ? fopen(w->temporary, "wb") : NULL;
}
#endif

#ifdef POSIX_SYSTEM
static int on_disk(FILE *f) { return fsync(fileno(f)) == 0; }
/* Returns 1 for devices and pipes (/dev/null, /dev/stdout), which are written to and never replaced. */
static int is_device(const char *path) {
    struct stat s;
    return stat(path, &s) == 0 && !S_ISREG(s.st_mode) && !S_ISDIR(s.st_mode);
}
#else
static int on_disk(FILE *f) { (void)f; return 1; }
static int is_device(const char *path) { (void)path; return 0; }
#endif

Writer *writer_open(const char *path, Pool *pool, Error *err) {
    Writer *w = pool_take(pool, 1, sizeof *w);
    char *name = pool_text(pool, path, strlen(path));
    if (!w || !name) { fail(err, E_MEMORY, "not enough memory to write", path, 0, 0); return NULL; }
    if (folder_exists(path)) {
        fail(err, E_OPEN, "is a folder, cannot be written as a file", path, 0, 0);
        return NULL;
    }
    w->path = name;
    errno = 0;
    w->f = is_device(path) ? fopen(path, "wb") : open_temporary(w, pool);
    if (!w->f) { fail_system(err, E_OPEN, "cannot write", path, errno); return NULL; }
    return w;
}

/* Records a failure; the reason of the first failure is kept. Returns E_WRITE. */
static int writer_fail(Writer *w, int reason) {
    if (!w->failed) w->reason = reason;
    w->failed = 1;
    return E_WRITE;
}

int writer_write(Writer *w, const void *bytes, size_t n) {
    if (!w || !w->f || w->failed) return E_WRITE;
    errno = 0;
    return n == 0 || fwrite(bytes, 1, n, w->f) == n ? OK : writer_fail(w, errno);
}

int writer_close(Writer *w, Error *err) {
    if (!w || !w->f) return fail(err, E_WRITE, "the file is not open for writing", w ? w->path : "", 0, 0);
    errno = 0;
    if (fflush(w->f) != 0 || (w->temporary && !on_disk(w->f))) writer_fail(w, errno);
    if (fclose(w->f) != 0) writer_fail(w, errno);
    w->f = NULL;
    if (w->temporary && !w->failed && rename(w->temporary, w->path) != 0) {
#ifdef POSIX_SYSTEM
        writer_fail(w, errno);
#else
        remove(w->path);            /* in C99, rename need not replace a file */
        if (rename(w->temporary, w->path) != 0)     /* the old file may be gone: keep the new one */
            return fail_system(err, E_WRITE, "complete, but cannot get its name", w->temporary, errno);
#endif
    }
    if (!w->failed) return OK;
    if (w->temporary) remove(w->temporary);
    return fail_system(err, E_WRITE, "cannot write", w->path, w->reason);
}

void writer_abandon(Writer *w) {
    if (!w || !w->f) return;
    fclose(w->f);
    w->f = NULL;
    if (w->temporary) remove(w->temporary);
}

int file_write_all(const char *path, const void *bytes, size_t n, Pool *pool, Error *err) {
    PoolMark mark = pool_mark(pool);
    Writer *w = writer_open(path, pool, err);
    int code = w ? OK : err && err->code ? err->code : E_OPEN;
    if (w) {
        writer_write(w, bytes, n);                      /* writer_close reports a failure */
        code = writer_close(w, err);
    }
    pool_release(pool, mark);
    return code;
}

int file_remove(const char *path, Error *err) {
    errno = 0;
    return remove(path) == 0 ? OK : fail_system(err, E_WRITE, "cannot delete", path, errno);
}

#ifdef POSIX_SYSTEM
/* Cuts a file back to the size that it had before a line was added, of which only a part was written. */
static void cut_back(const char *path, long long size) {
    if (size >= 0 && truncate(path, (off_t)size) != 0) return;      /* then the last line stays broken */
}
#else
static void cut_back(const char *path, long long size) { (void)path; (void)size; }
#endif

int file_append(const char *path, const void *bytes, size_t n, Error *err) {
    FILE *f;
    int written, reason;
    long long size;
    errno = 0;
    f = fopen(path, "ab");
    if (!f) return fail_system(err, E_OPEN, "cannot append", path, errno);
    size = is_device(path) ? -1 : seek_size(f);
    errno = 0;
    written = (n == 0 || fwrite(bytes, 1, n, f) == n) && fflush(f) == 0;
    reason = errno;
    if (fclose(f) != 0 && written) { written = 0; reason = errno; }
    if (written) return OK;
    cut_back(path, size);
    return fail_system(err, E_WRITE, "cannot append", path, reason);
}

/* ---- texts ---- */
enum { TEXT_HEAD = 4096 };          /* bytes of a file that are looked at */

static const char UTF16[] = "the text is UTF-16, not UTF-8";

/* Returns 1 if the bytes are a text into which zero bytes have come: there are bytes before the first of
 * them, which are UTF-8, and no byte is another control character. Binary files have such characters. */
static int is_text_with_zeros(const char *bytes, size_t n) {
    size_t i = 0;
    int32_t code;
    for (size_t k = 0; k < n; k++)
        if (bytes[k] && (unsigned char)bytes[k] < ' ' && !strchr("\t\n\r\f", bytes[k])) return 0;
    while (i < n && bytes[i]) {
        i += (size_t)utf8_decode(bytes + i, n - i, &code);
        if (code < 0) return 0;
    }
    return i > 0;
}

/* Refuses a text with a zero byte: one in UTF-16, a text with stray zero bytes, or a binary file. In UTF-16,
 * letters of English have zero bytes in all odd or in all even places; one letter alone is no sign. */
static int refuse_zeros(const char *bytes, size_t n, const char *path, Error *err) {
    size_t zeros[2] = { 0, 0 };
    char what[80] = "a binary file, not a text";
    for (size_t i = 0; i < n; i++) zeros[i % 2] += bytes[i] == 0;
    const size_t all = zeros[0] + zeros[1];
    if (all > 1 && all > n / 4 && (!zeros[0] || !zeros[1])) {
        fail(err, E_FORMAT, UTF16, path, 0, 0);
        advise(err, zeros[0] ? "iconv -f UTF-16BE -t UTF-8 FILE > NEW, and then NEW"
                             : "iconv -f UTF-16LE -t UTF-8 FILE > NEW, and then NEW");
        return E_FORMAT;
    }
    const int text = is_text_with_zeros(bytes, n);
    int line = 1;
    for (size_t i = 0; bytes[i]; i++) line += bytes[i] == '\n';
    if (text) name_format(what, sizeof what, "a zero byte in line %d, which no text has", line);
    fail(err, E_FORMAT, what, path, 0, 0);
    advise(err, text ? "tr -d '\\000' < FILE > NEW, and then NEW; in JSONL, \\u0000 is a zero byte"
                     : "give a text");
    return E_FORMAT;
}

/* Returns 1 if a file of bzip2 begins here: "BZh", the size of its blocks, and the sign of the first block
 * or, if there is none, of the end. */
static int is_bzip2(const char *bytes, size_t n) {
    return n >= 10 && !memcmp(bytes, "BZh", 3) && bytes[3] >= '1' && bytes[3] <= '9'
        && (!memcmp(bytes + 4, "1AY&SY", 6) || !memcmp(bytes + 4, "\x17rE8P\x90", 6));
}

/* Returns 1 if a safetensors file begins here: the length of its header in eight bytes, most of them 0, and
 * the header, which is a JSON object. */
static int is_safetensors(const char *bytes, size_t n) {
    return n >= 9 && !memcmp(bytes + 4, "\0\0\0\0{", 5);
}

/* Checks the first n bytes of a text. E_FORMAT, with advice, for UTF-16, compressed files, weights, datasets,
 * pointers of Git LFS and all that holds a zero byte; else OK. */
static int check_text(const char *bytes, size_t n, const char *path, Error *err) {
    static const char convert[] = "iconv -f UTF-16 -t UTF-8 FILE > NEW, and then NEW";
    static const char unpack[] = "unpack it first, and give the text that was in it";
    static const struct { const char *begin; size_t n; const char *what, *advice; } known[] = {
        { "\xFF\xFE", 2, UTF16, convert }, { "\xFE\xFF", 2, UTF16, convert },
        { "\x1F\x8B", 2, "a file compressed by gzip, not a text", unpack },
        { "\x28\xB5\x2F\xFD", 4, "a file compressed by zstd, not a text", unpack },
        { "\xFD" "7zXZ", 5, "a file compressed by xz, not a text", unpack },
        { "PK\3\4", 4, "a zip archive, not a text", unpack },
        { "PAR1\x15", 5, "a Parquet file, not a text", "write it as JSONL or CSV first" },
        { GIT_LFS },
        { "RLHFDATA", 8, "a dataset, not a text", "give a text; prep show prints those of a dataset" },
    };
    const char *what = NULL, *advice = NULL;
    for (size_t k = 0; !what && k < sizeof known / sizeof *known; k++)
        if (n >= known[k].n && !memcmp(bytes, known[k].begin, known[k].n)) {
            what = known[k].what;
            advice = known[k].advice;
        }
    if (is_bzip2(bytes, n)) { what = "a file compressed by bzip2, not a text"; advice = unpack; }
    if (is_safetensors(bytes, n)) { what = "a safetensors file, not a text"; advice = "give a text"; }
    if (!what && n && memchr(bytes, 0, n)) return refuse_zeros(bytes, n, path, err);
    if (!what) return OK;
    fail(err, E_FORMAT, what, path, 0, 0);
    advise(err, advice);
    return E_FORMAT;
}

/* Returns the bytes of the mark that says that a text is UTF-8: 3, or 0 if there is none. */
static size_t mark_length(const char *bytes, size_t n) {
    return n >= 3 && !memcmp(bytes, "\xEF\xBB\xBF", 3) ? 3 : 0;
}

int text_read_all(const char *path, Pool *pool, char **bytes, size_t *n, Error *err) {
    int code = file_read_all(path, pool, bytes, n, err);
    if (code == OK) code = check_text(*bytes, *n < TEXT_HEAD ? *n : TEXT_HEAD, path, err);
    if (code != OK) return code;
    const size_t mark = mark_length(*bytes, *n);
    *bytes += mark;
    *n -= mark;
    if (*n && !memchr(*bytes, '\n', *n))
        for (size_t i = 0; i < *n; i++)
            if ((*bytes)[i] == '\r') (*bytes)[i] = '\n';
    return OK;
}

/* ---- lines: read byte by byte, so that a line that is typed at a terminal is returned at once ---- */
/* failed: an E_ code; reason: errno. begun: a line was read. rest, left: what is left of a text whose lines
 * end with \r alone, which has been read as one line; after a failed check: the first line. */
struct Lines { FILE *f; const char *path; Pool *pool; char *data; size_t capacity; int failed, reason, begun;
               char *rest; size_t left; };

#ifdef POSIX_SYSTEM
/* Checks the first bytes that are still to be read, if f is a file on a disk. The stream does not move. */
static int check_head(FILE *f, const char *path, Error *err) {
    char head[TEXT_HEAD];
    struct stat s;
    int reason = 0;
    const long long at = fstat(fileno(f), &s) == 0 && S_ISREG(s.st_mode) ? (long long)ftello(f) : -1;
    return at < 0 ? OK : check_text(head, read_at(f, (uint64_t)at, head, sizeof head, &reason), path, err);
}
#else
static int check_head(FILE *f, const char *path, Error *err) { (void)f; (void)path; (void)err; return OK; }
#endif

Lines *lines_open(const char *path, Pool *pool, Error *err) {
    const int input = !strcmp(path, "-");
    Lines *l = pool_take(pool, 1, sizeof *l);
    char *name = pool_text(pool, path, strlen(path));
    if (!l || !name) { fail(err, E_MEMORY, "not enough memory to read", path, 0, 0); return NULL; }
    l->path = name;
    l->pool = pool;
    l->f = input ? stdin : open_reading(path, err);
    if (!l->f || check_head(l->f, input ? "standard input" : path, err) == OK) return l->f ? l : NULL;
    if (!input) fclose(l->f);
    return NULL;
}

/* Makes room for one more byte and a NUL; returns 0 if there is no memory. */
static int lines_grow(Lines *l) {
    size_t more = l->capacity ? l->capacity * 2 : 1024;
    char *grown = l->capacity < SIZE_MAX / 2 ? pool_take(l->pool, more, 1) : NULL;
    if (!grown) { l->failed = E_MEMORY; return 0; }
    if (l->capacity) memcpy(grown, l->data, l->capacity);
    l->data = grown;
    l->capacity = more;
    return 1;
}

/* Returns the next line of l->rest, and puts a NUL after it. */
static int lines_next_rest(Lines *l, const char **line, size_t *length) {
    const char *end = memchr(l->rest, '\r', l->left);
    *length = end ? (size_t)(end - l->rest) : l->left;
    *line = l->rest;
    l->rest[*length] = 0;
    l->left -= *length + (end != NULL);
    l->rest += *length + (end != NULL);
    return 1;
}

/* Returns the first line, which l->data holds: n bytes, at whose end the text ends if `whole` is 1. */
static int lines_begin(Lines *l, size_t n, int whole, const char **line, size_t *length) {
    const size_t mark = mark_length(l->data, n);
    l->begun = 1;
    l->rest = l->data + mark;
    l->left = n - mark;
    l->failed = check_text(l->data, n, l->path, NULL);
    if (l->failed) { l->rest = l->data; l->left = n; return 0; }
    if (whole && memchr(l->rest, '\r', l->left)) return lines_next_rest(l, line, length);
    *line = l->rest;
    *length = l->left;
    l->left = 0;
    return 1;
}

/* Reads the next line, and puts a NUL after it. */
int lines_next(Lines *l, const char **line, size_t *length) {
    size_t n = 0;
    int c = 0;
    if (!l->f || l->failed) return 0;
    if (l->left) return lines_next_rest(l, line, length);
    errno = 0;
    while ((c = GETC(l->f)) != EOF && c != '\n') {
        if (n + 2 > l->capacity && !lines_grow(l)) return 0;
        l->data[n++] = (char)c;
    }
    if (c == EOF && ferror(l->f)) { l->failed = E_READ; l->reason = errno; return 0; }
    if (c == EOF && n == 0) return 0;
    if (!l->capacity && !lines_grow(l)) return 0;
    if (c == '\n' && n && l->data[n - 1] == '\r') n--;
    l->data[n] = 0;
    if (!l->begun) return lines_begin(l, n, c == EOF, line, length);
    *line = l->data;
    *length = n;
    return 1;
}

int lines_close(Lines *l, Error *err) {
    if (!l || !l->f) return OK;
    const int input = l->f == stdin;
    if (!input) fclose(l->f);
    l->f = NULL;
    if (!l->failed) return OK;
    if (l->failed == E_FORMAT) return check_text(l->rest, l->left, input ? "standard input" : l->path, err);
    return fail_system(err, l->failed, l->failed == E_MEMORY ? "not enough memory for a line" : "cannot read",
                           l->path, l->reason);
}

int blank_line(const char *line, size_t n) {
    size_t i = 0;
    while (i < n && (line[i] == ' ' || line[i] == '\t' || line[i] == '\r')) i++;
    return i == n;
}

double wall_clock(void) {
#ifdef POSIX_SYSTEM
    struct timespec t;
    if (clock_gettime(CLOCK_MONOTONIC, &t) == 0) return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
#endif
    return (double)clock() / CLOCKS_PER_SEC;
}

double unix_clock(void) {
#ifdef POSIX_SYSTEM
    struct timespec t;
    if (clock_gettime(CLOCK_REALTIME, &t) == 0) return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
#endif
    return (double)time(NULL);
}

/* ---- datasets ----
 * A file, little-endian, is: "RLHFDATA", u32 version 1, u32 kind, u32 number of label names, u64 number of
 * documents; each label name (u16 length, bytes); each document: i32 label (-1: no label), u8 split (0 train,
 * 1 held out), and one text (kind 1) or two texts (kinds 2 and 3), each a u32 length and UTF-8 bytes. Nothing
 * follows the last document. A pair (kind 2) has, as its label, the probability that its first text is the
 * better one, in millionths: 0 to 1000000; -1 counts as 1000000. */
enum { DATASET_VERSION = 1 };
static const char DATASET_MAGIC[] = "RLHFDATA";

static int dataset_texts(int kind) { return kind == DATA_TEXT ? 1 : 2; }

/* Fills *err with an error of document i, whose place is "document I of PATH". Returns code. */
static int fail_document(Error *err, int code, const char *what, uint64_t i, const char *path, long long got,
                         long long wanted) {
    char where[256];
    snprintf(where, sizeof where, "document %llu of %s", (unsigned long long)i, path);
    return fail(err, code, what, where, got, wanted);
}

/* Checks one document that was read or will be written. OK or a code. */
static int check_document(const Document *doc, uint64_t i, int kind, int labels, const char *path,
                          Error *err) {
    const int most = kind == DATA_PAIRS ? PAIR_CERTAIN : labels - 1;
    int t;
    if (doc->label < -1 || doc->label > most)
        return fail_document(err, E_RANGE, kind == DATA_PAIRS ? "a pair's probability is out of range"
                             : "label outside the list of labels", i, path, doc->label,
                             doc->label < -1 ? -1 : most);
    if (doc->split != 0 && doc->split != 1)
        return fail_document(err, E_RANGE, "split is neither 0 (train) nor 1 (held out)", i, path,
                             doc->split, doc->split < 0 ? 0 : 1);
    for (t = 0; t < dataset_texts(kind); t++)
        if (doc->length[t] && !utf8_valid(doc->text[t], doc->length[t]))
            return fail_document(err, E_FORMAT, "text is not valid UTF-8", i, path, 0, 0);
    return OK;
}

static int check_label(const char *label, size_t n, int i, const char *path, Error *err) {
    if (n <= UINT16_MAX && utf8_valid(label, n) && !memchr(label, 0, n)) return OK;
    return fail(err, E_FORMAT, "label name is not valid (UTF-8 without NUL, below 64 KiB)", path, i, i);
}

/* Reads the header and the label names. Refuses more label names than the bytes that are left can hold. */
static int read_header(Dataset *d, Reader *r, const char *path, Pool *pool, Error *err) {
    const unsigned char *magic = read_bytes(r, 8);
    uint32_t version = read_u32(r), kind = read_u32(r), labels = read_u32(r), i;
    uint64_t count = read_u64(r);
    if (!magic || memcmp(magic, DATASET_MAGIC, 8))
        return fail(err, E_FORMAT, "not a dataset (it does not begin with RLHFDATA)", path, 0, 0);
    if (r->bad) return fail(err, E_TRUNCATED, "the dataset ends within its header", path, 0, 0);
    if (version != DATASET_VERSION)
        return fail(err, E_UNSUPPORTED, "dataset of another version", path, version, DATASET_VERSION);
    if (kind < DATA_TEXT || kind > DATA_PROMPTS)
        return fail(err, E_UNSUPPORTED, "unknown kind of dataset (1 text, 2 pairs, 3 prompts)", path, 0, 0);
    if (labels > INT_MAX || labels > (uint64_t)(r->end - r->at) / 2)
        return fail(err, E_TRUNCATED, "more label names announced than the file can hold", path, labels,
                    (r->end - r->at) / 2);
    d->kind = (int)kind;
    d->labels = (int)labels;
    d->count = count;
    d->label = pool_take(pool, labels, sizeof *d->label);
    if (!d->label) return fail(err, E_MEMORY, "not enough memory for the label names", path, 0, 0);
    for (i = 0; i < labels; i++) {
        unsigned n = read_u16(r);
        const char *name = (const char *)read_bytes(r, n);
        if (!name) return fail(err, E_TRUNCATED, "the dataset ends within its label names", path, 0, 0);
        if (check_label(name, n, (int)i, path, err) != OK) return E_FORMAT;
        d->label[i] = pool_text(pool, name, n);
        if (!d->label[i]) return fail(err, E_MEMORY, "not enough memory for the label names", path, 0, 0);
    }
    return OK;
}

static int read_documents(Dataset *d, Reader *r, const char *path, Pool *pool, Error *err) {
    const int texts = dataset_texts(d->kind);
    /* the smallest document has 9 bytes, or 13 with two texts */
    const uint64_t most = (uint64_t)(r->end - r->at) / (5 + 4 * (unsigned)texts);
    uint64_t i;
    int t, code;
    if (d->count > most)
        return fail(err, E_TRUNCATED, "more documents announced than the file can hold", path,
                    d->count > (uint64_t)LLONG_MAX ? LLONG_MAX : (long long)d->count, (long long)most);
    d->document = pool_take(pool, (size_t)d->count, sizeof *d->document);
    if (!d->document) return fail(err, E_MEMORY, "not enough memory for the documents", path, 0, 0);
    for (i = 0; i < d->count; i++) {
        Document *doc = d->document + i;
        uint32_t label = read_u32(r);
        /* INT_MAX is refused below */
        doc->label = label == UINT32_MAX ? -1 : label > INT_MAX ? INT_MAX : (int)label;
        doc->split = (int)read_u8(r);
        for (t = 0; t < texts; t++) {
            doc->length[t] = read_u32(r);
            doc->text[t] = (const char *)read_bytes(r, doc->length[t]);
        }
        if (r->bad) return fail_document(err, E_TRUNCATED, "the dataset ends too early", i, path, 0, 0);
        code = check_document(doc, i, d->kind, d->labels, path, err);
        if (code != OK) return code;
    }
    return OK;
}

int dataset_exists(const char *path) {
    char magic[8];
    FILE *f = is_device(path) ? NULL : fopen(path, "rb");       /* a pipe's bytes could not be read again */
    const int is = f && fread(magic, 1, 8, f) == 8 && !memcmp(magic, DATASET_MAGIC, 8);
    if (f) fclose(f);
    return is;
}

/* The texts stay in the bytes of the file. When all is parsed, a NUL is written after each text: over the
 * first byte of what follows, or, after the last text, over the NUL of file_read_all. */
int dataset_read(Dataset *d, const char *path, Pool *pool, Error *err) {
    Reader r;
    char *bytes;
    size_t n;
    uint64_t i;
    int t, code;
    memset(d, 0, sizeof *d);
    code = file_read_all(path, pool, &bytes, &n, err);
    if (code != OK) return code;
    r.at = (const unsigned char *)bytes;
    r.end = r.at + n;
    r.bad = 0;
    code = read_header(d, &r, path, pool, err);
    if (code == OK) code = read_documents(d, &r, path, pool, err);
    if (code == OK && r.at != r.end)
        code = fail(err, E_FORMAT, "bytes after the last document", path, (long long)(r.end - r.at), 0);
    if (code != OK) { memset(d, 0, sizeof *d); return code; }
    for (i = 0; i < d->count; i++)
        for (t = 0; t < dataset_texts(d->kind); t++)
            bytes[(size_t)(d->document[i].text[t] - bytes) + d->document[i].length[t]] = 0;
    return OK;
}

/* Refuses a dataset that dataset_read would refuse. OK or a code. */
static int check_dataset(const Dataset *d, const char *path, Error *err) {
    uint64_t i;
    int code = OK, k;
    if (d->kind < DATA_TEXT || d->kind > DATA_PROMPTS)
        return fail(err, E_ARGUMENT, "unknown kind of dataset", path, d->kind,
                    d->kind < DATA_TEXT ? DATA_TEXT : DATA_PROMPTS);
    if (d->labels < 0) return fail(err, E_ARGUMENT, "negative number of labels", path, d->labels, 0);
    for (k = 0; k < d->labels && code == OK; k++)
        code = check_label(d->label[k], strlen(d->label[k]), k, path, err);
    for (i = 0; i < d->count && code == OK; i++)
        code = check_document(d->document + i, i, d->kind, d->labels, path, err);
    return code;
}

/* Writes the documents to w, through a buffer of about 1 MiB. */
static void write_documents(const Dataset *d, Buffer *b, Writer *w) {
    uint64_t i;
    int t;
    for (i = 0; i < d->count; i++) {
        const Document *doc = d->document + i;
        buffer_u32(b, (uint32_t)doc->label);
        buffer_u8(b, (unsigned)doc->split);
        for (t = 0; t < dataset_texts(d->kind); t++) {
            buffer_u32(b, doc->length[t]);
            buffer_bytes(b, doc->text[t], doc->length[t]);
        }
        if (b->failed) return;
        if (b->length >= 1024 * 1024 || i + 1 == d->count) {
            writer_write(w, b->data, b->length);
            b->length = 0;
        }
    }
}

int dataset_write(const Dataset *d, const char *path, Pool *pool, Error *err) {
    PoolMark mark = pool_mark(pool);
    Buffer b;
    Writer *w;
    int k, code = check_dataset(d, path, err);
    if (code != OK) return code;
    w = writer_open(path, pool, err);
    if (!w) { pool_release(pool, mark); return err && err->code ? err->code : E_OPEN; }
    memset(&b, 0, sizeof b);
    b.pool = pool;
    buffer_bytes(&b, DATASET_MAGIC, 8);
    buffer_u32(&b, DATASET_VERSION);
    buffer_u32(&b, (uint32_t)d->kind);
    buffer_u32(&b, (uint32_t)d->labels);
    buffer_u64(&b, d->count);
    for (k = 0; k < d->labels; k++) {
        buffer_u16(&b, (unsigned)strlen(d->label[k]));
        buffer_text(&b, d->label[k]);
    }
    if (!b.failed) writer_write(w, b.data, b.length);
    b.length = 0;
    write_documents(d, &b, w);
    if (b.failed) {
        writer_abandon(w);
        code = fail(err, E_MEMORY, "not enough memory to write the dataset", path, 0, 0);
    } else code = writer_close(w, err);
    pool_release(pool, mark);
    return code;
}
