/* tests/tools/shapes.c - writes checkpoints of real shapes with random weights, on which loading, memory and
 * speed are tested; the real weights may not be distributed with this project.
 *     make shapes SHAPES="--policy /tmp/tinyllama --tokenizer FOLDER"
 *
 *     --policy DIR     a policy of the shape of one real model of --family (default llama: TinyLlama-1.1B,
 *                      1.1 billion weights, 32,003 ids)
 *     --reward DIR     a judge (default roberta: roberta-base) with the labels nothate and hate
 *     --family TYPE    a model_type of files/families.c; gpt2, qwen2, t5, distilbert and bert have their own
 *                      shapes
 *     --dim, --layers, --heads, --kv-heads, --ffn, --vocab, --positions, --tied, --no-eos
 *                      another shape, as tests/bench/bench_peers.py needs; --kv-heads is --heads unless it is
 *                      given
 *     --dtype          type of the numbers in the file
 *     --shard-mb       size of a shard in megabytes */
#include "../../programs.h"
#include <stdio.h>

static struct {
    const char *policy, *reward, *tokenizer, *family;
    int dtype, shard, dim, layers, heads, kv_heads, ffn, vocab, positions, tied, no_eos;
} opt;
static Option option[] = {
    { "policy", OPT_TEXT, &opt.policy, NULL, 0, 0, NULL, "folder for a policy of TinyLlama's shape" },
    { "reward", OPT_TEXT, &opt.reward, NULL, 0, 0, NULL, "folder for a judge of roberta-base's shape" },
    { "family", OPT_TEXT, &opt.family, NULL, 0, 0, NULL, "llama, gpt2, qwen2, roberta, distilbert ..." },
    { "tokenizer", OPT_TEXT, &opt.tokenizer, NULL, 0, 0, NULL, "folder whose tokenizer is copied" },
    { "dtype", OPT_CHOICE, &opt.dtype, "bf16", 0, 0, "f32|bf16|f16", "of the weights that are written" },
    { "shard-mb", OPT_INT, &opt.shard, "0", 0, 100000, NULL, "megabytes of a shard; 0: one file" },
    { "dim", OPT_INT, &opt.dim, "0", 0, 1 << 16, NULL,
      "another width; 0, also below: that of the real model" },
    { "layers", OPT_INT, &opt.layers, "0", 0, 1000, NULL, "another number of layers" },
    { "heads", OPT_INT, &opt.heads, "0", 0, 1000, NULL, "another number of heads" },
    { "kv-heads", OPT_INT, &opt.kv_heads, "0", 0, 1000, NULL, "another number of key and value heads" },
    { "ffn", OPT_INT, &opt.ffn, "0", 0, 1 << 20, NULL, "another feed-forward width" },
    { "vocab", OPT_INT, &opt.vocab, "0", 0, 1 << 20, NULL, "another number of ids" },
    { "positions", OPT_INT, &opt.positions, "0", 0, 1 << 20, NULL, "another number of positions" },
    { "tied", OPT_FLAG, &opt.tied, NULL, 0, 0, NULL, "the policy's head is its embedding" },
    { "no-eos", OPT_FLAG, &opt.no_eos, NULL, 0, 0, NULL,
      "give the policy no token that ends a text, so that all texts get their full length" },
};
static const Program program = {
    .program = "build/tests/shapes",
    .usage = "--policy DIR | --reward DIR [options]",
    .about = "Writes random checkpoints of real shapes.",
    OPTIONS(option) };

static int or_else(int given, int real) { return given ? given : real; }

/* The shapes of real models. The first row of each kind serves the families that have no row. */
typedef struct { const char *family; int V, C, L, H, K, F, positions, tied; } Shape;
static const Shape policies[] = {
    { "llama", 32003, 2048, 22, 32, 4, 5632, 2048, 0 },                 /* TinyLlama 1.1B chat v0.3 */
    { "gpt2", 50257, 768, 12, 12, 12, 3072, 1024, 1 },                  /* GPT-2 small */
    { "qwen2", 151936, 896, 24, 14, 2, 4864, 32768, 1 },                /* Qwen2.5 0.5B */
    { "t5", 32128, 768, 12, 12, 12, 2048, 512, 0 },                     /* FLAN-T5 base */
};
static const Shape judges[] = {
    { "roberta", 50265, 768, 12, 12, 12, 3072, 514, 0 },                /* roberta-base */
    { "distilbert", 30522, 768, 6, 12, 12, 3072, 512, 0 },              /* distilbert-base-uncased */
    { "bert", 30522, 768, 12, 12, 12, 3072, 512, 0 },                   /* bert-base-uncased */
};

/* Fills the sizes that both kinds of configurations have: the real model's, or those that are given. */
static Shape shape_of(const Shape *list, size_t n, StackKind *k) {
    Shape s = list[0];
    for (size_t i = 0; opt.family && i < n; i++) if (!strcmp(list[i].family, opt.family)) s = list[i];
    if (opt.family) s.family = opt.family;
    k->C = or_else(opt.dim, s.C); k->L = or_else(opt.layers, s.L);
    k->H = or_else(opt.heads, s.H); k->F = or_else(opt.ffn, s.F);
    k->K = or_else(opt.kv_heads, opt.heads ? opt.heads : s.K); k->D = k->C / k->H;
    if (k->C % k->H || k->D % 2 || k->H % k->K)
        usage_error("heads of an even width have to fill --dim,", "and --kv-heads to divide them");
    k->eps = 1e-5f; k->rope.theta = 10000;
    s.V = or_else(opt.vocab, s.V); s.positions = or_else(opt.positions, s.positions);
    return s;
}

static void write_tokenizer(const char *folder, int positions, Pool *pool) {
    Error err = { 0 };
    if (!opt.tokenizer) return;
    Tokenizer *t = tokenizer_open(opt.tokenizer, pool, &err);
    if (!t) die(&err, NULL);
    must(tokenizer_save(t, folder, positions, pool, &err), &err, NULL);
}

static void write_policy(Pool *pool) {
    ModelConfig c;
    Model m;
    Arena a;
    Error err = { 0 };
    memset(&c, 0, sizeof c);
    memset(&a, 0, sizeof a);
    const Shape shape = shape_of(policies, sizeof policies / sizeof *policies, &c.stack);
    c.V = shape.V; c.positions = shape.positions; c.tied = opt.tied || shape.tied;
    c.bos = 1; c.pad = -1; c.eos[0] = 2; c.eos_count = !opt.no_eos;
    c.encoder.L = c.stack.L;                /* T5's, gated as FLAN-T5; other families have no encoder */
    c.stack.buckets = strcmp(shape.family, "t5") ? 0 : 32;
    c.stack.distance = c.stack.buckets ? 128 : 0;
    c.stack.gated = c.stack.buckets > 0;
    if (config_policy(&c, shape.family)) usage_error("there are no policies of this --family", shape.family);
    must(model_carve(&m, &c, NULL, 0, 1, pool, &a, &err), &err, NULL);
    a = cli_arena(a.used, "the policy's weights");
    must(model_carve(&m, &c, NULL, 0, 1, pool, &a, &err), &err, NULL);
    model_init(&m, 1);
    must(folder_make(opt.policy, &err), &err, NULL);
    must(config_save(&c, NULL, opt.policy, opt.dtype, pool, &err), &err, NULL);
    must(checkpoint_save(opt.policy, "model", m.tensor, m.tensors, opt.dtype, (uint64_t)opt.shard * 1000000,
                         pool, &err), &err, NULL);
    write_tokenizer(opt.policy, c.positions, pool);
}

static void write_reward(Pool *pool) {
    RewardConfig c;
    RewardModel m;
    Arena a;
    Error err = { 0 };
    memset(&c, 0, sizeof c);
    memset(&a, 0, sizeof a);
    const Shape shape = shape_of(judges, sizeof judges / sizeof *judges, &c.stack);
    c.V = shape.V; c.positions = shape.positions;
    c.pad = 1; c.bos = 0; c.eos[0] = 2; c.eos_count = 1; c.labels = 2;
    strcpy(c.label[0], "nothate");
    strcpy(c.label[1], "hate");
    if (config_judge(&c, shape.family)) usage_error("there are no judges of this --family", shape.family);
    if (c.names->part[NAME_TYPE]) c.types = c.from_zero ? 2 : 1;
    c.embedding = strcmp(shape.family, "electra") ? 0 : c.stack.C / 2;
    must(reward_carve(&m, &c, NULL, 0, pool, &a, &err), &err, NULL);
    a = cli_arena(a.used, "the judge's weights");
    must(reward_carve(&m, &c, NULL, 0, pool, &a, &err), &err, NULL);
    reward_init(&m, 2);
    must(folder_make(opt.reward, &err), &err, NULL);
    must(reward_config_save(&c, opt.reward, opt.dtype, pool, &err), &err, NULL);
    must(checkpoint_save(opt.reward, "model", m.tensor, m.tensors, opt.dtype, (uint64_t)opt.shard * 1000000,
                         pool, &err), &err, NULL);
    write_tokenizer(opt.reward, reward_max_tokens(&c), pool);
}

int main(int argc, char **argv) {
    const char *none[1];
    cli_parse(&program, argc, argv, none, 0);
    if (!opt.policy == !opt.reward) usage_error("one of the two:", "--policy DIR, --reward DIR");
    Pool pool = cli_pool();
    if (opt.policy) write_policy(&pool);
    else write_reward(&pool);
    pool_free(&pool);
    return 0;
}
