"""hf_check.py FOLDER [GOLDEN] - looks at a model folder written by rlhf.c the way Hugging Face's readers do, sharing no line with it.

Reads every *.safetensors of FOLDER (through the index, if there is one) with a reader of its own and checks the format's rules, the
index, and config.json against the tensors' names, shapes and dtypes. With GOLDEN, a folder with the same weights in the same dtype,
every byte of every tensor has to be the same. Standard library only. Exit 0: all right; otherwise the first fault is printed."""
import json, os, struct, sys

SIZE = {"F32": 4, "F16": 2, "BF16": 2}
TORCH = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def need(condition, text):
    if not condition:
        sys.exit("hf_check: " + text)


def once(pairs):
    d = dict(pairs)
    need(len(d) == len(pairs), "a key twice in a header")
    return d


def read(path):
    """{name: (dtype, shape, bytes)} of one file, with the checks of the format."""
    with open(path, "rb") as f:
        b = f.read()
    n, = struct.unpack("<Q", b[:8])
    need(n % 8 == 0 and n <= len(b) - 8 and b[8:9] == b"{", path + ": header length or start")
    head = json.loads(b[8:8 + n].decode("utf-8"), object_pairs_hook=once)
    need(head.pop("__metadata__", {}).get("format") == "pt", path + ": metadata format")
    need(list(head) == sorted(head), path + ": names are not in order")
    at, out = 0, {}
    for name, t in sorted(head.items(), key=lambda x: x[1]["data_offsets"]):
        need(set(t) == {"dtype", "shape", "data_offsets"}, name + ": keys")
        begin, end = t["data_offsets"]
        count = 1
        for s in t["shape"]:
            count *= s
        need(begin == at and end - begin == count * SIZE[t["dtype"]], name + ": offsets")
        out[name] = (t["dtype"], tuple(t["shape"]), b[8 + n + begin:8 + n + end])
        at = end
    need(8 + n + at == len(b), path + ": length of the file")
    return out


def read_folder(folder, stem="model"):
    index = os.path.join(folder, stem + ".safetensors.index.json")
    if not os.path.exists(index):
        return read(os.path.join(folder, stem + ".safetensors"))
    with open(index) as f:
        d = json.load(f)
    tensors = {}
    for shard in sorted(set(d["weight_map"].values())):
        part = read(os.path.join(folder, shard))
        for name in part:
            need(d["weight_map"].get(name) == shard, name + ": not where the index says")
        tensors.update(part)
    need(set(tensors) == set(d["weight_map"]), "index and shards name different tensors")
    need(d["metadata"]["total_size"] == sum(len(t[2]) for t in tensors.values()), "total_size")
    return tensors


def llama_shapes(c):
    C, F, D = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    q, kv = c["num_attention_heads"] * D, c["num_key_value_heads"] * D
    shapes = {"model.embed_tokens.weight": (c["vocab_size"], C), "model.norm.weight": (C,)}
    if not c["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (c["vocab_size"], C)
    for i in range(c["num_hidden_layers"]):
        p = "model.layers.%d." % i
        shapes.update({p + "input_layernorm.weight": (C,), p + "post_attention_layernorm.weight": (C,),
                       p + "self_attn.q_proj.weight": (q, C), p + "self_attn.k_proj.weight": (kv, C),
                       p + "self_attn.v_proj.weight": (kv, C), p + "self_attn.o_proj.weight": (C, q),
                       p + "mlp.gate_proj.weight": (F, C), p + "mlp.up_proj.weight": (F, C), p + "mlp.down_proj.weight": (C, F)})
    return shapes


def roberta_shapes(c):
    C, F = c["hidden_size"], c["intermediate_size"]
    e = "roberta.embeddings."
    shapes = {e + "word_embeddings.weight": (c["vocab_size"], C), e + "position_embeddings.weight": (c["max_position_embeddings"], C),
              e + "token_type_embeddings.weight": (c["type_vocab_size"], C), e + "LayerNorm.weight": (C,), e + "LayerNorm.bias": (C,),
              "classifier.dense.weight": (C, C), "classifier.dense.bias": (C,),
              "classifier.out_proj.weight": (len(c["id2label"]), C), "classifier.out_proj.bias": (len(c["id2label"]),)}
    for i in range(c["num_hidden_layers"]):
        p = "roberta.encoder.layer.%d." % i
        for name, o, n in (("attention.self.query", C, C), ("attention.self.key", C, C), ("attention.self.value", C, C),
                           ("attention.output.dense", C, C), ("intermediate.dense", F, C), ("output.dense", C, F)):
            shapes[p + name + ".weight"], shapes[p + name + ".bias"] = (o, n), (o,)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[p + name + ".weight"], shapes[p + name + ".bias"] = (C,), (C,)
    return shapes


def check_model(folder):
    with open(os.path.join(folder, "config.json")) as f:
        c = json.load(f)
    kind = {"llama": ("LlamaForCausalLM", llama_shapes), "roberta": ("RobertaForSequenceClassification", roberta_shapes)}
    need(c["model_type"] in kind, "model_type")
    name, shapes = kind[c["model_type"]]
    need(c["architectures"] == [name], "architectures")
    tensors = read_folder(folder)
    wanted = shapes(c)
    need(set(tensors) == set(wanted), "names: %s" % sorted(set(tensors) ^ set(wanted))[:3])
    for n, s in wanted.items():
        need(tensors[n][1] == s, "%s is %s, wanted %s" % (n, tensors[n][1], s))
        need(tensors[n][0] == TORCH[c["torch_dtype"]], n + ": dtype is not torch_dtype")
    if c["model_type"] == "llama":
        need(os.path.exists(os.path.join(folder, "generation_config.json")), "no generation_config.json")
        need(isinstance(c["rope_theta"], float) and isinstance(c["rms_norm_eps"], float), "floats that look like integers")
    else:
        need(c["label2id"] == {v: int(k) for k, v in c["id2label"].items()}, "id2label and label2id")
    return tensors


def check_adapter(folder):
    with open(os.path.join(folder, "adapter_config.json")) as f:
        c = json.load(f)
    need(c["peft_type"] == "LORA" and isinstance(c["target_modules"], list) and c["inference_mode"] is True, "adapter_config.json")
    tensors = read_folder(folder, "adapter_model")
    for n, (_, shape, _) in tensors.items():
        side = n.rsplit(".", 2)
        need(n.startswith("base_model.model.") and side[2] == "weight" and side[1] in ("lora_A", "lora_B"), n)
        need(shape[0 if side[1] == "lora_A" else 1] == c["r"], n + ": not of rank r")
        need(side[0].rsplit(".", 1)[1] in c["target_modules"], n + ": no target")
    return tensors


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    adapter = os.path.exists(os.path.join(sys.argv[1], "adapter_config.json"))
    ours = check_adapter(sys.argv[1]) if adapter else check_model(sys.argv[1])
    if len(sys.argv) == 3:
        theirs = read_golden(sys.argv[2], "adapter_model" if adapter else "model")
        need(set(ours) == set(theirs), "other names than the golden")
        for n in ours:
            need(ours[n] == theirs[n], n + ": other bytes than the golden")


def read_golden(folder, stem):
    """The same reader without the rules for what we write (order, padding, metadata)."""
    out = {}
    for file in sorted(os.listdir(folder)):
        if not (file.startswith(stem) and file.endswith(".safetensors")):
            continue
        with open(os.path.join(folder, file), "rb") as f:
            b = f.read()
        n, = struct.unpack("<Q", b[:8])
        for name, t in json.loads(b[8:8 + n].decode("utf-8")).items():
            if name != "__metadata__":
                begin, end = t["data_offsets"]
                out[name] = (t["dtype"], tuple(t["shape"]), b[8 + n + begin:8 + n + end])
    return out


if __name__ == "__main__":
    main()
