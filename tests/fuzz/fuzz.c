/* tests/fuzz/fuzz.c - the long fuzzing (`make fuzz`): every reader of tests/fuzz/bad.c, which has the
 * mutations and says what a sound answer is; the files beside a tokenizer.json; and the reader of PyTorch's
 * files; each over 10,000 broken files. A pickle is broken alone, in a container that fits it, and together
 * with its container. Built with the address and undefined-behaviour sanitizers; with VERBOSE set it says how
 * many files were read and refused.
 *     fuzz [ROUNDS]    mutations for each reader (10000) */
#define main bad_main                           /* main() below calls it with another number of rounds */
#include "bad.c"
#undef main
#include "files/files.h"
#include "torch_files.h"

static int read_pt(const Blob *b, Pool *pool) {
    TorchFile t;
    File *f;
    f32 x[64];
    int code;
    remove(in_base("x.pt"));                    /* writing a new file is faster than writing over one */
    spit(in_base("x.pt"), b->bytes, b->n);
    f = file_open(in_base("x.pt"), pool, &err);
    if (!f) return err.code;
    code = torch_index(&t, f, pool, &err);
    if (code != OK && (t.tensor || t.tensors)) code = -1;
    for (int i = 0; i < t.tensors && code == OK; i++) {
        const TorchTensor *a = &t.tensor[i];
        uint64_t n = 1, part;
        if (!a->name || strlen(a->name) > b->n || a->dims < 0 || (i && strcmp(a[-1].name, a->name) >= 0))
            code = -1;
        if (a->dtype < 0 || code != OK) continue;
        if (a->dims > TORCH_DIMS) { code = -1; continue; }
        for (int d = 0; d < a->dims; d++) n *= a->shape[d];
        part = n < 64 ? n : 64;
        if (torch_read(x, a, f, 0, (size_t)part, &err) != OK || torch_read(x, a, f, n - part, (size_t)part,
                &err) != OK) code = -1;
    }
    file_close(f);
    return code;
}

/* Reads a broken pickle in a container that fits it. */
static int read_pt_around(const Blob *b, Pool *pool, int legacy) {
    Pool own = test_pool();
    Buffer pickle = { NULL, NULL, 0, 0, 0 }, out = { NULL, NULL, 0, 0, 0 };
    Blob file;
    int code;
    pickle.pool = out.pool = &own;
    buffer_bytes(&pickle, b->bytes, b->n);
    if (legacy) pickle_legacy(&out, &pickle, 1);
    else pickle_zip(&out, &pickle, "little", 0, &own);
    file = blob(out.data, out.length);
    code = read_pt(&file, pool);
    free(file.bytes);
    pool_free(&own);
    return code;
}
static int read_zip_pickle(const Blob *b, Pool *pool) { return read_pt_around(b, pool, 0); }
static int read_legacy_pickle(const Blob *b, Pool *pool) { return read_pt_around(b, pool, 1); }

static void fuzz_pt(void) {
    static const char *const wrap[] = { NULL, "model" };
    for (int k = 0; k < 2; k++)
        for (int legacy = 0; legacy < 2; legacy++) {
            Pool pool = test_pool();
            Buffer pickle = { NULL, NULL, 0, 0, 0 }, out = { NULL, NULL, 0, 0, 0 };
            pickle.pool = out.pool = &pool;
            pickle_sample(&pickle, legacy, wrap[k]);
            if (k) {
                fuzz(legacy ? "torch legacy, its pickle" : "torch zip, its pickle", legacy
                     ? read_legacy_pickle : read_zip_pickle, blob(pickle.data, pickle.length),
                     30 + (uint64_t)legacy);
            } else {
                if (legacy)
                    pickle_legacy(&out, &pickle, 1); else pickle_zip(&out, &pickle, "little", 1, &pool);
                fuzz(legacy ? "torch legacy" : "torch zip", read_pt, blob(out.data, out.length),
                     32 + (uint64_t)legacy);
            }
            pool_free(&pool);
        }
}

/* Breaks the files beside a tokenizer.json (tests/fuzz/bad.c: beside a tokenizer.model). */
static void fuzz_beside_json(void) {
    Pool pool = test_pool();
    Buffer llama = json_llama(&pool);
    other = blob(llama.data, llama.length);
    fuzz_beside("tokenizer.json", 269, 60);
    free(other.bytes);
    pool_free(&pool);
}

int main(int argc, char **argv) {
    static char name[] = "fuzz", many[] = "10000";
    char *arguments[] = { name, argc > 1 ? argv[1] : many, NULL }, command[100];
    bad_main(2, arguments);
    sprintf(base, "/tmp/rlhf-fuzz-%08lx", (unsigned long)(time(NULL) * 7919u + clock()) & 0xffffffffu);
    folder_make(base, &err);
    fuzz_pt();
    fuzz_beside_json();
    sprintf(command, "rm -rf %s", base);
    if (system(command)) printf("could not remove %s\n", base);
    return test_end("fuzz");
}
