/* tests/tools/fullfs.c - a disk that is full from one call on, for tests/programs/resume.sh. Loaded before the C
 * library (LD_PRELOAD), it counts the calls that write a file, give it its name or open it for writing, and lets
 * those from number FAIL_FROM on fail with ENOSPC, up to number FAIL_TO. Without FAIL_FROM it writes the number
 * of calls to the file FAIL_COUNT when the program ends. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long calls;

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

static int fails(void) {
    const char *from = getenv("FAIL_FROM"), *to = getenv("FAIL_TO");
    calls++;
    if (!from || calls < atol(from) || (to && calls > atol(to))) return 0;
    errno = ENOSPC;
    return 1;
}

size_t fwrite(const void *p, size_t size, size_t n, FILE *f) {
    size_t (*next)(const void *, size_t, size_t, FILE *);
    void *found = real("fwrite");
    memcpy(&next, &found, sizeof next);
    return f != stdout && f != stderr && fails() ? 0 : next(p, size, n, f);
}

int fflush(FILE *f) {
    int (*next)(FILE *);
    void *found = real("fflush");
    memcpy(&next, &found, sizeof next);
    return f && f != stdout && f != stderr && fails() ? EOF : next(f);
}

int fsync(int file) {
    int (*next)(int);
    void *found = real("fsync");
    memcpy(&next, &found, sizeof next);
    return fails() ? -1 : next(file);
}

int rename(const char *from, const char *to) {
    int (*next)(const char *, const char *);
    void *found = real("rename");
    memcpy(&next, &found, sizeof next);
    return fails() ? -1 : next(from, to);
}

__attribute__((destructor)) static void tell(void) {
    const char *path = getenv("FAIL_COUNT");
    FILE *f = path && !getenv("FAIL_FROM") ? fopen(path, "w") : NULL;
    if (f) {
        fprintf(f, "%ld\n", calls);
        fclose(f);
    }
}
