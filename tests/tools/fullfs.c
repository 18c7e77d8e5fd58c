/* tests/tools/fullfs.c - a disk that is full, and a program that is killed, at a chosen call; for
 * tests/programs/resume.sh. Loaded before the C library (LD_PRELOAD), it counts the calls that change what is on
 * the disk: those that open a file for writing, write, cut, rename or delete it, or make or delete a folder.
 *   FAIL_FROM=N FAIL_TO=M   the calls from number N to number M (or the last one) fail with ENOSPC
 *   KILL_AT=N               the program is killed in call N (SIGKILL)
 *   FAIL_COUNT=FILE         the number of calls is written to FILE when the program ends
 * An fwrite that fails or is killed has written half of its bytes. fsync is counted, but is not waited for: what
 * a program has written outlives the program in any case. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

static long calls;

/* Counts a call. Returns 1 if it has to fail. half: a file that first gets half of n bytes, or NULL. */
static int fails(FILE *half, const void *p, size_t n) {
    static size_t (*write_to)(const void *, size_t, size_t, FILE *);
    const char *from = getenv("FAIL_FROM"), *to = getenv("FAIL_TO"), *kill_at = getenv("KILL_AT");
    const int dies = kill_at && calls + 1 == atol(kill_at);
    calls++;
    if (!dies && (!from || calls < atol(from) || (to && calls > atol(to)))) return 0;
    if (half) {
        void *found = dlsym(RTLD_NEXT, "fwrite");
        memcpy(&write_to, &found, sizeof write_to);
        write_to(p, 1, n / 2, half);
        found = dlsym(RTLD_NEXT, "fflush");
        int (*flush)(FILE *);
        memcpy(&flush, &found, sizeof flush);
        flush(half);
    }
    if (dies) raise(SIGKILL);
    errno = ENOSPC;
    return 1;
}

/* WRAP(type, name, parameters, arguments, error): the function `name`, which returns `error` if it fails */
#define WRAP(type, name, parameters, arguments, error) \
    type name parameters { \
        type (*next) parameters; \
        void *found = dlsym(RTLD_NEXT, #name); \
        memcpy(&next, &found, sizeof next); \
        return fails(NULL, NULL, 0) ? error : next arguments; \
    }
WRAP(int, rename, (const char *from, const char *to), (from, to), -1)
WRAP(int, remove, (const char *path), (path), -1)
WRAP(int, unlink, (const char *path), (path), -1)
WRAP(int, rmdir, (const char *path), (path), -1)
WRAP(int, mkdir, (const char *path, mode_t mode), (path, mode), -1)
WRAP(int, truncate, (const char *path, off_t n), (path, n), -1)
WRAP(int, truncate64, (const char *path, off64_t n), (path, n), -1)
WRAP(int, ftruncate, (int file, off_t n), (file, n), -1)
WRAP(int, ftruncate64, (int file, off64_t n), (file, n), -1)
WRAP(ssize_t, pwrite, (int file, const void *p, size_t n, off_t at), (file, p, n, at), -1)
WRAP(ssize_t, pwrite64, (int file, const void *p, size_t n, off64_t at), (file, p, n, at), -1)

int fsync(int file) {
    (void)file;
    return fails(NULL, NULL, 0) ? -1 : 0;
}

size_t fwrite(const void *p, size_t size, size_t n, FILE *f) {
    size_t (*next)(const void *, size_t, size_t, FILE *);
    void *found = dlsym(RTLD_NEXT, "fwrite");
    memcpy(&next, &found, sizeof next);
    return f != stdout && f != stderr && fails(f, p, size * n) ? 0 : next(p, size, n, f);
}

int fflush(FILE *f) {
    int (*next)(FILE *);
    void *found = dlsym(RTLD_NEXT, "fflush");
    memcpy(&next, &found, sizeof next);
    return f && f != stdout && f != stderr && fails(NULL, NULL, 0) ? EOF : next(f);
}

/* Opening a file for reading is not counted. */
#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        int (*next)(const char *, int, ...); \
        void *found = dlsym(RTLD_NEXT, #name); \
        va_list list; \
        int mode = 0; \
        va_start(list, flags); \
        if (flags & O_CREAT) mode = va_arg(list, int); \
        va_end(list); \
        memcpy(&next, &found, sizeof next); \
        return flags & (O_WRONLY | O_RDWR) && fails(NULL, NULL, 0) ? -1 : next(path, flags, mode); \
    } \
    FILE *f##name(const char *path, const char *mode) { \
        FILE *(*next)(const char *, const char *); \
        void *found = dlsym(RTLD_NEXT, "f" #name); \
        memcpy(&next, &found, sizeof next); \
        return mode[0] != 'r' && fails(NULL, NULL, 0) ? NULL : next(path, mode); \
    }
OPEN(open)
OPEN(open64)

__attribute__((destructor)) static void tell(void) {
    const char *path = getenv("FAIL_COUNT");
    const long counted = calls;
    FILE *f = path ? fopen(path, "w") : NULL;
    if (f) {
        fprintf(f, "%ld\n", counted);
        fclose(f);
    }
}
