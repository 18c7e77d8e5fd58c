/* tests/tools/shapes.c - writes checkpoints of real shapes with random weights, on which loading, memory and
 * speed are tested; the real weights may not be distributed with this project.
 *     make shapes SHAPES="--policy /tmp/tinyllama --tokenizer FOLDER"
 *
 *     --policy DIR     TinyLlama-1.1B-Chat-v0.3: 1.1 billion weights, 32,003 ids
 *     --reward DIR     roberta-hate-speech-dynabench-r4-target: roberta-base with the labels nothate and hate
 *     --dim, --layers, --heads, --kv-heads, --ffn, --vocab, --positions, --tied, --no-eos
 *                      another shape, as tests/bench/bench_peers.py needs; --kv-heads is --heads unless it is
 *                      given
 *     --dtype          type of the numbers in the file
 *     --shard-mb       size of a shard in megabytes */
#include "../../programs.h"
#include <stdio.h>

static struct {
    const char *policy, *reward, *tokenizer;
    int dtype, shard, dim, layers, heads, kv_heads, ffn, vocab, positions, tied, no_eos;
} opt;
static Option option[] = {
    { "policy", OPT_TEXT, &opt.policy, NULL, 0, 0, NULL, "folder for a policy of TinyLlama's shape" },
    { "reward", OPT_TEXT, &opt.reward, NULL, 0, 0, NULL, "folder for a judge of roberta-base's shape" },
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
static const Program program = { "build/tests/shapes", "--policy DIR | --reward DIR [options]",
                                 "Writes random checkpoints of real shapes.", option,
                                 sizeof option / sizeof *option, NULL, 0 };

static int or_else(int given, int real) { return given ? given : real; }

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
    c.V = or_else(opt.vocab, 32003); c.stack.C = or_else(opt.dim, 2048);
    c.stack.L = or_else(opt.layers, 22); c.stack.H = or_else(opt.heads, 32);
    c.stack.K = or_else(opt.kv_heads, opt.heads ? opt.heads : 4); c.stack.D = c.stack.C / c.stack.H;
    c.stack.F = or_else(opt.ffn, 5632); c.positions = or_else(opt.positions, 2048);
    if (c.stack.C % c.stack.H || c.stack.D % 2 || c.stack.H % c.stack.K)
        usage_error("heads of an even width have to fill --dim,", "and --kv-heads to divide them");
    c.tied = opt.tied;
    c.stack.eps = 1e-5f; c.stack.rope.theta = 10000;
    c.bos = 1; c.pad = -1; c.eos[0] = 2; c.eos_count = !opt.no_eos;
    config_policy(&c, "llama");
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
    c.V = or_else(opt.vocab, 50265); c.stack.C = or_else(opt.dim, 768);
    c.stack.L = or_else(opt.layers, 12); c.stack.H = or_else(opt.heads, 12);
    c.stack.F = or_else(opt.ffn, 3072); c.positions = or_else(opt.positions, 514);
    c.types = 1; c.stack.eps = 1e-5f;
    if (c.stack.C % c.stack.H) usage_error("--heads has to divide", "--dim");
    c.pad = 1; c.bos = 0; c.eos[0] = 2; c.eos_count = 1; c.labels = 2;
    strcpy(c.label[0], "nothate");
    strcpy(c.label[1], "hate");
    config_judge(&c, "roberta");
    must(reward_carve(&m, &c, NULL, 0, pool, &a, &err), &err, NULL);
    a = cli_arena(a.used, "the judge's weights");
    must(reward_carve(&m, &c, NULL, 0, pool, &a, &err), &err, NULL);
    reward_init(&m, 2);
    must(folder_make(opt.reward, &err), &err, NULL);
    must(reward_config_save(&c, opt.reward, opt.dtype, pool, &err), &err, NULL);
    must(checkpoint_save(opt.reward, "model", m.tensor, m.tensors, opt.dtype, (uint64_t)opt.shard * 1000000,
                         pool, &err), &err, NULL);
    write_tokenizer(opt.reward, c.positions - 2, pool);
}

int main(int argc, char **argv) {
    const char *none[1];
    cli_parse(&program, NULL, argc, argv, none, 0);
    if (!opt.policy == !opt.reward) usage_error("one of the two:", "--policy DIR, --reward DIR");
    Pool pool = cli_pool();
    if (opt.policy) write_policy(&pool);
    else write_reward(&pool);
    pool_free(&pool);
    return 0;
}
