/* tests/unit/agreement.c - Krippendorff's alpha against the example of his paper of 2011, and at its limits. */
#include "test.h"
#include "rlhf.h"

/* The paper's example C: four observers (rows), twelve units, values 1 to 5, 0: missing. */
static const int seen[4][12] = {
    { 1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0 }, { 1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3 },
    { 0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0 }, { 1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0 },
};

static void test_paper(void) {
    int count[12 * 5] = { 0 };
    for (int o = 0; o < 4; o++)
        for (int u = 0; u < 12; u++)
            if (seen[o][u]) count[u * 5 + seen[o][u] - 1]++;
    const double nominal = krippendorff_alpha(count, 12, 5, 0), ordinal = krippendorff_alpha(count, 12, 5, 1);
    CHECK(fabs(nominal - 0.743) < 0.0005, "nominal %.4f, in the paper 0.743", nominal);
    CHECK(fabs(ordinal - 0.815) < 0.0005, "ordinal %.4f, in the paper 0.815", ordinal);
}

static void test_limits(void) {
    static const int agree[] = { 2, 0, 0, 2, 2, 0 }, differ[] = { 1, 1, 1, 1, 1, 1 }, one[] = { 2, 0, 2, 0 },
                     alone[] = { 1, 0, 0, 1 };
    CHECK(krippendorff_alpha(agree, 3, 2, 0) == 1, "labellers who always agree");
    /* Two labellers who always differ: 1 - (6 - 1) * 6 / (2 * 3 * 3) */
    CHECK(fabs(krippendorff_alpha(differ, 3, 2, 0) - (1 - 5.0 * 6 / 18)) < 1e-12, "labellers who always differ");
    CHECK(isnan(krippendorff_alpha(one, 2, 2, 0)), "only one value was ever given: there is no alpha");
    CHECK(isnan(krippendorff_alpha(alone, 2, 2, 0)), "one labeller alone: there is no alpha");
}

int main(void) {
    test_paper();
    test_limits();
    return test_end("agreement");
}
