/* run_merge.c - run merge: adds an adapter's products to the weights. */
#include "run.h"
#include <stdio.h>

/* Replaces the model's 4-bit linears by floats: those that its forward pass computes
 * with (at compute type F32). */
static void dequantise(Policy *p, Pool *pool) {
    Error err = { 0 };
    Arena measure = { 0 };
    /* the list of its tensors points into it, so that it has to stay */
    Model *floats = pool_need(pool, 1, sizeof *floats, "the dequantised weights");
    must(model_carve(floats, &p->config, NULL, 0, 1, pool, &measure, &err), &err, NULL);
    measure = cli_arena(measure.used, "the dequantised weights");
    must(model_carve(floats, &p->config, NULL, 0, 1, pool, &measure, &err), &err, NULL);
    for (int i = 0; i < floats->tensors; i++) {
        const Matrix *from = p->model.tensor[i].matrix, *to = floats->tensor[i].matrix;
        if (floats->tensor[i].flags & TENSOR_TIED) continue;
        tensor_read(to->data, from, 0, (size_t)to->O * (size_t)to->I);
    }
    p->model = *floats;
}

/* Gives the policy a head of its own if the adapter makes a difference between the head and the embedding
 * that it is tied to. */
static void untie(Policy *p) {
    const int id = p->model.head.id;
    Matrix *head = p->model.tensor[id].matrix;
    const LoraPair *a = &p->lora.pair[p->model.embedding.id], *b = &p->lora.pair[id];
    if (!p->config.tied || !(a->A.O || a->saved.O || b->A.O || b->saved.O)) return;
    const size_t n = (size_t)head->O * (size_t)head->I;
    Arena own = cli_arena(n * sizeof(float), "the head");
    float *x = arena_take(&own, n, sizeof *x);
    tensor_read(x, head, 0, n);
    head->data = x;
    p->model.tensor[id].flags &= ~TENSOR_TIED;
    p->config.tied = p->model.config.tied = 0;
    fflush(stdout);
    say_error("run merge: the adapter changes embedding or head, each on its own: they are not tied in "
              "the merged model");
}

/* T5 divides the logits of a tied head by sqrt(C): a head that is no longer tied does so itself. */
static void unscale(Policy *p) {
    const Matrix *head = p->model.tensor[p->model.head.id].matrix;
    const float scale = 1 / sqrtf((float)head->I);
    float *x = head->data;
    if (!p->config.scaled || p->config.tied) return;
    for (size_t i = 0; i < (size_t)head->O * (size_t)head->I; i++) x[i] *= scale;
    p->config.scaled = p->model.config.scaled = 0;
}

/* Makes every tensor what the adapter makes of it: W += scale B A, or a saved module. */
static void merge_adapter(Policy *p) {
    untie(p);
    Arena ws = { 0 };
    for (int i = 0; i < p->model.tensors; i++) lora_merge(p->adapter, p->model.tensor[i].matrix, &ws);
    p->work = cli_arena(ws.peak, "work space");
    for (int i = 0; i < p->model.tensors; i++)
        if (!(p->model.tensor[i].flags & TENSOR_TIED))
            lora_merge(p->adapter, p->model.tensor[i].matrix, &p->work);
    unscale(p);
}

/* What run merge is asked for. */
typedef struct {
    const Program *program; const char *folder, *adapter, *out;
    int dtype, shard_mb, force; QuantOptions quant;
} Merge;

/* Opens the tokenizer as find_tokenizer does; a damaged one is left out. */
static Tokenizer *merge_tokenizer(const char *folder, const char *other, Pool *pool) {
    Error err = { 0 };
    Tokenizer *t = find_tokenizer(folder, other, pool, &err);
    if (err.code)
        say_error("run merge: the tokenizer is left out, copy it yourself: %s: %s", err.what,
                  err.where);
    return t;
}

/* Writes the merged model, a policy or else (NULL) a judge. types: how its weights were held. */
static void merge_write(const Merge *m, const Model *policy, const RewardModel *judge, const Tokenizer *t,
                        const WeightTypes *types) {
    static RunFolder to;
    Error err = { 0 };
    const Tensor *list = policy ? policy->tensor : judge->tensor;
    const int tensors = policy ? policy->tensors : judge->tensors;
    const uint64_t shard = (uint64_t)m->shard_mb * 1000000u;
    require(tensor_not_numbers(list, tensors, m->dtype) ? E_NUMBER : OK,
            "a merged weight is not a number, or too large for --dtype", m->out, 0, 0, "--dtype f32 or bf16");
    out_open(&to, m->out, m->force, NULL, "merge");
    must(policy ? save_policy(policy, t, to.path, m->dtype, shard, &err)
                : save_judge(judge, t, to.path, m->dtype, shard, &err), &err, NULL);
    must(out_commit(&to, &err), &err, NULL);
    printf("%s: %.1f million numbers\n", m->out, (double)tensor_values(list, tensors, 0) / 1e6);
    if (types->layers == NF4)
        printf("the %s linears were dequantised before the adapter was added, as peft does it; "
               "they are not quantised again\n", types->kind == QUANT_NF4 ? "NF4" : "FP4");
}

/* Dies if the adapter has a soft prompt. */
static void refuse_prompt(const Merge *m, const Lora *l) {
    require(l->prompt.O ? E_UNSUPPORTED : OK, "a soft prompt cannot be merged: it is rows before each text, "
            "and changes no weight", m->adapter, 0, 0, l->config.R
            ? "move its folder `prompt` to another place, merge the rest, and give the soft prompt to the "
              "merged model by --adapter"
            : "MODEL --adapter ADAPTER, wherever the model is used");
}

static void merge_policy(const Merge *m, Pool *keep) {
    Policy p = { 0 };
    WeightTypes types = choose_types(m->program, &m->quant, m->folder, m->adapter, keep);
    types.tables = F32;
    if (types.layers != NF4) types.layers = F32;
    policy_open(&p, &types, m->folder, m->adapter, 1, keep);
    refuse_prompt(m, &p.lora);
    if (types.layers == NF4) dequantise(&p, keep);
    if (p.adapter) merge_adapter(&p);
    p.tokenizer = merge_tokenizer(m->folder, m->adapter, keep);
    merge_write(m, &p.model, NULL, p.tokenizer, &types);
}

static void merge_judge(const Merge *m, Pool *keep) {
    Error err = { 0 };
    Arena floats = { 0 }, ws = { 0 };
    RewardModel merged;
    Judge j;
    judge_find(&j, m->folder, m->adapter, keep);
    judge_open(&j, m->program, &m->quant, keep);
    j.tokenizer = merge_tokenizer(m->adapter, m->folder, keep);
    must(reward_carve(&merged, &j.config, NULL, 0, keep, &floats, &err), &err, NULL);
    floats = cli_arena(floats.used, "the merged weights");
    must(reward_carve(&merged, &j.config, NULL, 0, keep, &floats, &err), &err, NULL);
    weights_merge(merged.tensor, j.model.tensor, merged.tensors, j.adapter, &ws);
    ws = cli_arena(ws.peak, "work space");
    weights_merge(merged.tensor, j.model.tensor, merged.tensors, j.adapter, &ws);
    merge_write(m, NULL, &merged, j.tokenizer, &j.types);
}

/* Returns 1 if the adapter is a judge's: by its task_type, or without one by the class of the model. */
static int merges_judge(const Merge *m, Pool *pool) {
    LoraConfig l;
    ModelConfig c;
    if (adapter_config_load(&l, m->adapter, pool, NULL) == OK && l.task) return !strcmp(l.task, "SEQ_CLS");
    return config_load(&c, m->folder, pool, NULL) == E_UNSUPPORTED;
}

int run_merge(int argc, char **argv) {
    const char *positional[1] = { NULL };
    Merge m = { 0 };
    static const int type[] = { F32, BF16, F16 };
    Option option[] = {
        { "adapter", OPT_TEXT, &m.adapter, NULL, 0, 0, NULL,
          "a run folder of ppo, sft or rm, or any PEFT LoRA folder" },
        { "out", OPT_TEXT, &m.out, NULL, 0, 0, NULL, "the folder to write" },
        FORCE_OPTION(m.force),
        { "dtype", OPT_CHOICE, &m.dtype, "f32", 0, 0, "f32|bf16|f16", "type of the numbers in the file" },
        QUANT_OPTIONS(m.quant, "quantise to NF4 and dequantise before merging: the weights that the adapter "
                               "was trained with"),
        { "shard-mb", OPT_INT, &m.shard_mb, "0", 0, 1e6, NULL,
          "split the weights into files of about this many megabytes (0: one file)" },
    };
    static const Need need[] = {
        QUANT_NEEDS,
        { NULL, NULL, NULL } };
    Program program = {
        .program = "run merge",
        .usage = "MODEL --adapter RUN --out DIR [options]",
        .about = "Adds the products of a policy's or a judge's adapter to the weights and writes a whole "
                 "model folder of floats. 4-bit weights are dequantised first.",
        OPTIONS(option), .need = need };
    const int given = cli_parse(&program, argc, argv, positional, 1);
    Pool keep = cli_pool();
    adapter_as_model(&positional[0], &m.adapter, ADAPTER_ADVICE, &keep);
    if (given < 1 || !m.adapter || !m.out)
        usage_error("model, adapter and output are needed", "run merge MODEL --adapter RUN --out DIR");
    quant_options_check(&program, &m.quant, NULL, NULL, 0);
    const char *const input[] = { positional[0], m.adapter };
    out_check(m.out, m.force, input, 2);
    m.program = &program;
    m.folder = positional[0];
    m.dtype = type[m.dtype];
    if (merges_judge(&m, &keep)) merge_judge(&m, &keep);
    else merge_policy(&m, &keep);
    return 0;
}
