/* tests/bench/bench_blas.c - OpenBLAS for `make bench`. It is loaded at run time, so no build needs it.
 * Without dlopen (the Makefile says -DDLOPEN if there is one) the functions of this file find nothing.
 *
 *     OPENBLAS_CORETYPE=Haswell, SkylakeX, Zen ...     which kernels OpenBLAS uses, which reads it once
 *
 * The OpenMP build of OpenBLAS is tried first, because it shares our threads. The other build has threads of
 * its own, which wait by spinning. */
#include "bench.h"

enum { ROW_MAJOR = 101, AS_IS = 111, TRANSPOSED = 112 };    /* cblas.h */
typedef void (*Sgemm)(int order, int ta, int tb, int M, int J, int K, float alpha, const float *A, int lda,
                      const float *B, int ldb, float beta, float *C, int ldc);
static Sgemm sgemm;
static void (*set_threads)(int n);

#ifdef DLOPEN
#include <dlfcn.h>

/* ISO C cannot cast void * to a function's address; POSIX says that both have the same bytes. */
static int symbol(void *library, const char *name, void *function, size_t size) {
    void *p = dlsym(library, name);
    if (p && size == sizeof p) memcpy(function, &p, size);
    return p != NULL;
}

int blas_open(Blas *b, const char *path) {
    static const char *const place[] = {
        "/usr/lib/x86_64-linux-gnu/openblas-openmp/libopenblas.so.0",
        "/usr/lib/aarch64-linux-gnu/openblas-openmp/libopenblas.so.0",
        "/usr/lib64/libopenblaso.so.0", "libopenblas.so.0", "libopenblas.so",
        "/usr/lib/x86_64-linux-gnu/openblas-pthread/libopenblas.so.0",
        "/opt/homebrew/opt/openblas/lib/libopenblas.dylib", "/usr/local/opt/openblas/lib/libopenblas.dylib" };
    void *library = NULL;
    char *(*config)(void) = NULL, *(*core)(void) = NULL;
    for (size_t i = 0; i < (path ? 1 : sizeof place / sizeof *place) && !library; i++)
        library = dlopen(path ? path : place[i], RTLD_NOW | RTLD_LOCAL);
    if (!library || !symbol(library, "cblas_sgemm", &sgemm, sizeof sgemm) ||
        !symbol(library, "openblas_set_num_threads", &set_threads, sizeof set_threads)) {
        sgemm = NULL;
        snprintf(b->what, sizeof b->what, "not installed");
        return 0;
    }
    symbol(library, "openblas_get_config", &config, sizeof config);
    symbol(library, "openblas_get_corename", &core, sizeof core);
    snprintf(b->what, sizeof b->what, "%s, kernels %s", config ? config() : "OpenBLAS",
             core ? core() : "unknown");
    return 1;
}
#else
int blas_open(Blas *b, const char *path) {
    (void)path;
    snprintf(b->what, sizeof b->what, "not installed (built without dlopen)");
    return 0;
}
#endif

void blas_threads(int n) { if (set_threads) set_threads(n); }

void blas_product(float *C, const float *A, const float *B, const BlasShape *s) {
    const int M = s->M, J = s->J, K = s->K, ta = s->transpose_a, tb = s->transpose_b;
    if (sgemm)
        sgemm(ROW_MAJOR, ta ? TRANSPOSED : AS_IS, tb ? TRANSPOSED : AS_IS, M, J, K, 1, A, ta ? M : K, B,
              tb ? K : J, s->beta, C, J);
}
