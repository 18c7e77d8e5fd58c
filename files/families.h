/* files/families.h - what families.c, the table of families of models, and config.c share. */
#ifndef FAMILIES_H
#define FAMILIES_H
#include "files.h"

#define P(field) offsetof(ModelConfig, field)
#define J(field) offsetof(RewardConfig, field)
/* Both kinds of configurations begin with the same fields, whose places P gives. */
typedef char same_places[P(stack) == J(stack) && P(eos_count) == J(eos_count) ? 1 : -1];
#define HEADS_MAX 65536
#define LAYERS_MAX 4096

/* The kinds of keys in config.json: how read_key (files/config.c) reads a value, and write_key writes it. */
enum {
    KEY_CLASS, KEY_TYPE, KEY_DTYPE,         /* only written: architectures, model_type, torch_dtype */
    KEY_FIXED,      /* a key that is written, with the JSON text `text`, and never read */
    KEY_ONLY,       /* a text that has to be `text` */
    KEY_OFF,        /* a feature that has to be off; written as `text` (NULL: not written) */
    KEY_ON,         /* a feature that has to be on; written as true */
    KEY_ONE,        /* a number that has to be 1; not written */
    KEY_ACT,        /* the name of the stack's activation; `text` is its default */
    KEY_BIAS,       /* true or false: whether the linears that `max` names (BIAS_) have biases */
    KEY_WINDOW,     /* how many positions a row sees, or null: all */
    KEY_INNER,      /* the stack's F; null: 4 C */
    KEY_SIZE,       /* an int from 1 to `max` */
    KEY_DERIVED,    /* an int from 1 to `max`; null gives 0, and check_stack computes the value */
    KEY_TOKEN,      /* a token id; null gives the default */
    KEY_ID,         /* a token id; null gives -1 */
    KEY_EOS,        /* a token id, a list of ids, or null */
    KEY_FLAG,       /* true or false, as an int */
    KEY_EPS,        /* a float; `text` is its default */
    KEY_ROPE,       /* rope_theta (default `text`) with rope_scaling, or rope_parameters */
    KEY_LAYERS,     /* layer_types; read with use_sliding_window, sliding_window, max_window_layers */
    KEY_USES_WINDOW, KEY_LAYERS_WINDOW,     /* only written: the first two of these */
    KEY_NO_ROPE,    /* no_rope_layers: 1 for each layer with RoPE, 0 for others; or no_rope_layer_interval */
    KEY_KINDS,      /* GPT-Neo's attention_types: [[["global", "local"], how often], ...]; with window_size */
    KEY_KIND_LIST,  /* only written: attention_layers, the same as one list */
    KEY_FEED,       /* T5's feed_forward_proj: "relu", "gated-gelu" ... */
    KEY_SCALED,     /* whether logits are scaled; absent: as tie_word_embeddings */
    KEY_FEED_ACT, KEY_FEED_GATED,           /* only written: dense_act_fn, is_gated_act */
    KEY_BITS,       /* quantization_config */
    KEY_LABELS,     /* id2label and label2id */
    KEY_PROBLEM,    /* problem_type */
    KEY_COUNT                               /* only written: num_labels */
};
typedef struct {
    const char *key; int kind;
    size_t at;                              /* offset of the value in the ModelConfig or RewardConfig */
    int fallback, max;                      /* the value if the key is absent; the largest value */
    const char *text;
} Key;
enum { KEYS_MAX = 48 };                     /* a family has at most so many keys */

/* Another name that files use for a tensor, whose part is NAME_... PAIRED: in such files the rows of each
 * head are in Meta's order (checkpoint.c). */
enum { AS_IS, PAIRED };
typedef struct { int part; const char *pattern; int how; } Stored;

/* A family of models. All differences between families are in this struct. A list ends with a
 * NULL pattern or key. */
/* Two entries of one class that follow one another are its plain and its gated form. */
typedef struct {
    const char *architecture, *type;        /* transformers' class, and its model_type */
    int judge;                              /* 0: it has a ModelConfig; 1: a RewardConfig */
    const Names *names;                     /* families may share names: folders get the first one's class */
    const char *stem;                       /* start of names, which files of the class without head lack */
    const Stored *stored;                   /* other names that files use; NULL: none */
    const Key *common, *own;                /* own keys replace common keys of that name; common NULL: none */
    StackKind kind;                         /* the stack's options; sizes, eps and rope are config.json's */
    int head, from_zero;                    /* of judges: see RewardConfig */
    const Names *encoder;                   /* of seq2seq policies: the names of the encoder's tensors */
} Family;

/* Returns the first family of a model_type; NULL: there is none. */
const Family *family_of(const char *type, int judge);
/* Returns the family of one of transformers' classes; NULL: there is none. */
const Family *family_named(const char *class, int judge);
/* Returns the first family with these names; folders are written in its form. NULL: there is none. */
const Family *family_written(const Names *names, int judge);
/* Sets the encoder: of a seq2seq family the stack's kind with the L that it has, seeing all of a text; of
 * others L is 0, none. */
void config_encoder(ModelConfig *c, const Family *y);
/* Lists the family's keys in the order of writing: its common keys, with its own keys, and for judges those
 * about labels, inserted by name. Returns the number of keys. */
int family_keys(const Key *list[KEYS_MAX], const Family *y);
/* Returns 1 if a class holds the body of a model of its model_type, with another head or none: what
 * `rm --new-head` begins with. */
int family_base(const char *class);

#endif
