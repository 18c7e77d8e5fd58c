/* fast/choose.c - which faster twin of ops.c's tile this processor has.
 *
 * Needs    fast/x86.c, fast/avx512.c, fast/arm.c. Built with -DFAST (`make FAST=0` leaves all out, and everything still works).
 * Twins    ops.c describes the product once: packing, blocks, edges, threads. What differs between processors is its innermost loop over
 *          a tile, and that alone is here. A twin keeps the order of every sum. One that is not fused gives the plain tile's bits; one
 *          that is fused multiplies and adds in one rounding: all fused twins give the same bits as each other.
 * Choice   by what the processor says when asked, or by fast_use, which the programs call for the variable RLHF_ISA. "exact" is the
 *          fastest that gives the plain tile's bits: what `make models` uses, so that its sums hold on every processor.
 * State    the choice that was forced. It has to be the same during a whole run.
 * Halves   fast/amx.c's tile multiplies bf16 numbers, for linears that compute in them: it is chosen beside one of the others, unless one of
 *          these is forced. */
#include "../rlhf.h"

static const Kernel *const known[] = {
#ifdef FAST
    &kernel_avx512, &kernel_avx2, &kernel_avx, &kernel_neon,
#endif
    NULL
};
static int forced = -1;                                         /* -1: the best; otherwise a place in known[] */
static const HalfKernel *half;                                  /* chosen for halves */
static int half_chosen;                                         /* 0: not yet asked */

static int kernels(void) { return (int)(sizeof known / sizeof *known) - 1; }

const Kernel *fast_kernel(void) {
    if (forced >= 0) return known[forced];
    for (int i = 0; i < kernels(); i++) if (known[i]->here()) return known[i];
    return NULL;
}

int fast_use(const char *name) {
    int found = -2;
    if (!name || !*name) found = -1;
    for (int i = 0; i < kernels() && found == -2; i++)
        if (known[i]->here() && (!strcmp(name, known[i]->name) || (!known[i]->fused && !strcmp(name, "exact")))) found = i;
    if (found == -2 && (!strcmp(name, "plain") || !strcmp(name, "exact"))) found = kernels();      /* the NULL at the end */
    if (found == -2 && !strcmp(name, kernel_amx.name) && kernel_amx.here()) found = -1;
    if (found == -2) return E_UNSUPPORTED;
    forced = found;
    half_chosen = 0;
    return OK;
}

const HalfKernel *fast_half(void) {
    if (!half_chosen) fast_use_half(forced < 0 && kernel_amx.here() ? &kernel_amx : NULL);
    return half;
}

void fast_use_half(const HalfKernel *kernel) {
    half = kernel;
    half_chosen = 1;
}

int fast_wide(void) {
    return fast_kernel() && kernel_avx2.here();
}

const char *fast_name(int i) {
    if (i < 0 || i > kernels() + 1) return NULL;
    return i == kernels() + 1 ? "plain" : i == kernels() ? kernel_amx.name : known[i]->name;
}
