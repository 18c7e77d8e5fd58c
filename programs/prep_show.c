/* prep_show.c - prep show: prints what a dataset holds. */
#include "prep.h"
#include <stdio.h>

int command_show(int argc, char **argv) {
    static int count, held_out;
    static Option option[] = {
        { "n", OPT_INT, &count, "5", 0, INT_MAX, NULL, "documents to print" },
        { "held-out", OPT_FLAG, &held_out, NULL, 0, 0, NULL,
          "print held-out documents instead of training documents" },
    };
    static const Program program = {
        .program = "prep show",
        .usage = "DATA.bin [-n N] [--held-out]",
        .about = "Prints what a dataset holds, and some of its documents.",
        OPTIONS(option) };
    static const char *const name[][2] = { { "", "" }, { "", "" }, { "chosen: ", "rejected: " },
                                           { "prompt: ", "response: " } };
    const char *path[1];
    Error err = { 0 };
    Dataset d;
    if (cli_parse(&program, argc, argv, path, 1) < 1) usage_error("a dataset is missing", NULL);
    must(dataset_read(&d, path[0], prep_pool(), &err), &err,
         "make the dataset with prep grammar or prep data");
    print_statistics(&d, path[0]);
    for (uint64_t i = 0; i < d.count && count > 0; i++) {
        const Document *doc = &d.document[i];
        if (doc->split != held_out) continue;
        count--;
        printf("\n#%llu", (unsigned long long)i);
        if (doc->label >= 0 && d.kind == DATA_PAIRS) printf(" [%g]", (double)doc->label / PAIR_CERTAIN);
        else if (doc->label >= 0) printf(" [%s]", d.label[doc->label]);
        printf("\n");
        for (int k = 0; k < (d.kind == DATA_TEXT ? 1 : 2); k++) {
            printf("%s", name[d.kind][k]);
            print_visible(doc->text[k], doc->length[k], 1);
            printf("\n");
        }
    }
    return 0;
}
