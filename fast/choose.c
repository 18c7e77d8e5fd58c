/* fast/choose.c - chooses the kernel: the fastest that this processor can run, or one by name.
 *
 * Needs    fast/x86.c, avx512.c, arm.c, amx.c. Without -DFAST (`make FAST=0`) only the plain tile and
 *          the definitions exist.
 * Kernels  fast/matmul.c computes a product: it packs, divides the work into blocks and threads, and
 *          handles edges. Processors differ in the innermost loop over a tile: a kernel is such a loop. A
 *          kernel keeps the order of every sum. A kernel that is not fused gives the plain tile's bits,
 *          which are the definition's. A fused kernel multiplies and adds with one rounding; all fused
 *          kernels give the same bits as each other.
 * Choice   By what the processor can do, or by fast_use, to which the programs pass the variable RLHF_ISA.
 *          "exact" is the fastest kernel that gives the definition's bits: `make models` uses it, so that
 *          its checksums hold on every processor. "definition" runs ops.c's own loops, without any twin.
 * Halves   fast/amx.c has a kernel of bf16 products, for linears that compute in bf16. It is used in
 *          addition to a float kernel, unless a float kernel was chosen by name.
 * State    The choice. It must not change during a run. */
#include "fast.h"

static const Kernel *const known[] = {
#ifdef FAST
    &kernel_avx512, &kernel_avx2, &kernel_avx, &kernel_neon,
#endif
    NULL
};
enum { KERNELS = sizeof known / sizeof *known - 1, PLAIN_TILE = KERNELS, DEFINITION, AMX, CHOICES,
       BEST = -1 };

static int chosen = BEST;                   /* an index of known[], or one of the names above */
static const HalfKernel *half;              /* the kernel of bf16 products, or NULL */
static int half_chosen;                     /* 0: `half` is not set yet */

int fast_twins(void) { return chosen != DEFINITION; }

const Kernel *fast_kernel(void) {
    if (chosen == DEFINITION) return NULL;
    if (chosen != BEST) return known[chosen];
    for (int i = 0; i < KERNELS; i++) if (known[i]->here()) return known[i];
    return NULL;
}

const char *fast_name(int i) {
    if (i < 0 || i >= CHOICES) return NULL;
    return i == AMX ? kernel_amx.name : i == DEFINITION ? "definition" : i == PLAIN_TILE ? "plain"
        : known[i]->name;
}

int fast_here(int i) {
    return i == AMX ? kernel_amx.here() : i >= KERNELS ? i < CHOICES : i >= 0 && known[i]->here();
}

const char *fast_chosen(void) {
    const Kernel *kernel = fast_kernel();
    if (fast_half()) return fast_half()->name;
    return kernel ? kernel->name : fast_twins() ? "plain" : "definition";
}

int fast_use(const char *name) {
    int found = CHOICES;
    if (!name || !*name) found = BEST;
    for (int i = 0; i < KERNELS && found == CHOICES; i++)
        if (known[i]->here() && !known[i]->fused && !strcmp(name, "exact")) found = i;
    if (found == CHOICES && !strcmp(name, "exact")) found = PLAIN_TILE;
    for (int i = 0; i < CHOICES && found == CHOICES; i++)
        if (!strcmp(name, fast_name(i)) && (i >= KERNELS || known[i]->here())) found = i;
    if (found == AMX) found = kernel_amx.here() ? BEST : CHOICES;
    if (found == CHOICES) return E_UNSUPPORTED;
    chosen = found;
    half_chosen = 0;
    return OK;
}

const HalfKernel *fast_half(void) {
    if (!half_chosen) fast_use_half(chosen == BEST && kernel_amx.here() ? &kernel_amx : NULL);
    return half;
}

void fast_use_half(const HalfKernel *kernel) {
    half = kernel;
    half_chosen = 1;
}

int fast_wide(void) { return fast_kernel() && kernel_avx2.here(); }
