/* fast.c - which faster twin of ops.c's tile this processor has.
 *
 * Needs    fast_x86.c. Built with -DFAST (`make FAST=0` leaves both out, and everything still works).
 * Twins    ops.c describes the product once: packing, blocks, edges, threads. What differs between processors is its innermost loop over
 *          a tile, and that alone is here. A twin keeps the order of every sum, but multiplies and adds in one rounding where the
 *          processor can (fused), so all fused twins give the same bits, and other bits than the plain tile.
 * Choice   by what the processor says when asked, or by fast_use, which the programs call for the variable RLHF_ISA.
 * State    one word: the choice that was forced. It has to be the same during a whole run. */
#include "rlhf.h"

static const Kernel *const known[] = {
#ifdef FAST
    &kernel_avx2,
#endif
    NULL
};
static int forced = -1;                                         /* -1: the best; otherwise a place in known[] */

static int kernels(void) { return (int)(sizeof known / sizeof *known) - 1; }

const Kernel *fast_kernel(void) {
    if (forced >= 0) return known[forced];
    for (int i = 0; i < kernels(); i++) if (known[i]->here()) return known[i];
    return NULL;
}

int fast_use(const char *name) {
    int found = -2;
    if (!name || !*name) found = -1;
    else if (!strcmp(name, "plain")) found = kernels();         /* the NULL at the end */
    for (int i = 0; i < kernels() && found == -2; i++)
        if (!strcmp(name, known[i]->name) && known[i]->here()) found = i;
    if (found == -2) return E_UNSUPPORTED;
    forced = found;
    return OK;
}

const char *fast_name(int i) { return i < 0 || i > kernels() ? NULL : i == kernels() ? "plain" : known[i]->name; }
