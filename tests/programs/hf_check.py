"""hf_check.py FOLDER [GOLDEN] - checks a model folder that rlhf.c wrote, as Hugging Face's readers read it.
It shares no code with rlhf.c.

Reads every *.safetensors of FOLDER (through the index, if there is one) with a reader of its own, and
checks the format's rules, the index, and config.json against the tensors' names, shapes and dtypes. With
GOLDEN, a folder of the same weights in the same dtype, every byte of every tensor has to be the same;
weights in bitsandbytes' 4 bits are dequantised here, and each has to be within half a step of the
float32 weight in GOLDEN. Needs only the standard library. Exits with 0 if all is right; otherwise it
prints the first fault."""
import json, os, struct, sys

SIZE = {"F32": 4, "F16": 2, "BF16": 2, "U8": 1}
ORDER = ["F32", "BF16", "F16", "U8"]
TORCH = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def need(condition, text):
    if not condition:
        sys.exit("hf_check: " + text)


def once(pairs):
    d = dict(pairs)
    need(len(d) == len(pairs), "a key twice in a header")
    return d


def read(path):
    """Returns {name: (dtype, shape, bytes)} of one file, after the format's checks."""
    with open(path, "rb") as f:
        b = f.read()
    n, = struct.unpack("<Q", b[:8])
    need(n % 8 == 0 and n <= len(b) - 8 and b[8:9] == b"{", path + ": header length or start")
    head = json.loads(b[8:8 + n].decode("utf-8"), object_pairs_hook=once)
    need(head.pop("__metadata__", {}).get("format") == "pt", path + ": metadata format")
    order = sorted(head, key=lambda n: (ORDER.index(head[n]["dtype"]), n))
    need(list(head) == order, path + ": names are not in order")
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


def floats(t, count):
    need(t[0] == "F32" and t[1] == (count,), "%d numbers" % count)
    return struct.unpack("<%df" % count, t[2])


def unpack_4bit(tensors, name, config):
    """Takes the parts of a 4-bit tensor out of `tensors`, as bitsandbytes' QuantState.from_dict does. Returns
    its shape, its weights and the absmax of each weight."""
    kind = config["bnb_4bit_quant_type"]
    dtype, shape, nibbles = tensors.pop(name)
    need(dtype == "U8" and len(shape) == 2 and shape[1] == 1, name + ": not [bytes, 1] of U8")
    text = tensors.pop(name + ".quant_state.bitsandbytes__" + kind)[2].decode("utf-8")
    state = json.loads(text, object_pairs_hook=once)
    need(list(state)[:4] == ["quant_type", "blocksize", "dtype", "shape"], name + ": keys of quant_state")
    need(state["quant_type"] == kind and state["dtype"] in TORCH, name + ": quant_state")
    need(("nested_blocksize" in state) == config["bnb_4bit_use_double_quant"], name + ": doubled")
    n = state["shape"][0] * state["shape"][1]
    blocks = (n + state["blocksize"] - 1) // state["blocksize"]
    need(len(nibbles) == (n + 1) // 2, name + ": number of nibbles")
    table = floats(tensors.pop(name + ".quant_map"), 16)
    need(table[7 if kind == "nf4" else 0] == 0 and min(table) == -1 and max(table) == 1, name + ": quant_map")
    absmax = tensors.pop(name + ".absmax")
    if "nested_blocksize" in state:
        nested = state["nested_blocksize"] == 256 and state["nested_dtype"] == "float32"
        need(nested, name + ": nested absmax")
        need(absmax[0] == "U8" and absmax[1] == (blocks,), name + ": absmax")
        nested = floats(tensors.pop(name + ".nested_absmax"), (blocks + 255) // 256)
        codes = floats(tensors.pop(name + ".nested_quant_map"), 256)
        need(list(codes) == sorted(codes), name + ": nested_quant_map")
        scale = [codes[q] * nested[i // 256] + state["nested_offset"] for i, q in enumerate(absmax[2])]
    else:
        scale = floats(absmax, blocks)
    each = [scale[i // state["blocksize"]] for i in range(n)]
    codes = [nibbles[i // 2] >> 4 if i % 2 == 0 else nibbles[i // 2] & 15 for i in range(n)]
    return tuple(state["shape"]), [table[codes[i]] * each[i] for i in range(n)], each


def check_4bit(tensors, config, golden):
    """Replaces 4-bit tensors by their weights (dtype None). They have to be the linears of the layers, and no
    others."""
    need(config["quant_method"] == "bitsandbytes", "quant_method")
    need(config["load_in_4bit"] is True and config["load_in_8bit"] is False, "quantization_config")
    wanted = {n for n in tensors if n.endswith("_proj.weight")}
    quantised = {n.split(".quant_state.")[0] for n in tensors if ".quant_state." in n}
    need(wanted == quantised, "quantised tensors")
    theirs = read_golden(golden, "model") if golden else {}
    # half of the widest step between two codes
    step = 0.152 if config["bnb_4bit_quant_type"] == "nf4" else 0.1667
    for n in wanted:
        shape, values, absmax = unpack_4bit(tensors, n, config)
        tensors[n] = (None, shape, None)
        if golden:
            true = struct.unpack("<%df" % len(values), theirs[n][2])
            # doubly quantised, absmax itself is off by up to 1/64 of the largest of its 256
            slack = max(absmax) / 50 if config["bnb_4bit_use_double_quant"] else 1e-6
            near = all(abs(v - t) <= step * a + slack for v, t, a in zip(values, true, absmax))
            need(near, n + ": not the golden's weights")


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
                       p + "mlp.gate_proj.weight": (F, C), p + "mlp.up_proj.weight": (F, C),
                       p + "mlp.down_proj.weight": (C, F)})
    return shapes


def roberta_shapes(c):
    C, F = c["hidden_size"], c["intermediate_size"]
    e = "roberta.embeddings."
    labels = len(c["id2label"])
    shapes = {e + "word_embeddings.weight": (c["vocab_size"], C),
              e + "position_embeddings.weight": (c["max_position_embeddings"], C),
              e + "token_type_embeddings.weight": (c["type_vocab_size"], C),
              e + "LayerNorm.weight": (C,), e + "LayerNorm.bias": (C,),
              "classifier.dense.weight": (C, C), "classifier.dense.bias": (C,),
              "classifier.out_proj.weight": (labels, C), "classifier.out_proj.bias": (labels,)}
    for i in range(c["num_hidden_layers"]):
        p = "roberta.encoder.layer.%d." % i
        for name, o, n in (("attention.self.query", C, C), ("attention.self.key", C, C),
                           ("attention.self.value", C, C), ("attention.output.dense", C, C),
                           ("intermediate.dense", F, C), ("output.dense", C, F)):
            shapes[p + name + ".weight"], shapes[p + name + ".bias"] = (o, n), (o,)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[p + name + ".weight"], shapes[p + name + ".bias"] = (C,), (C,)
    return shapes


def check_model(folder, golden):
    with open(os.path.join(folder, "config.json")) as f:
        c = json.load(f)
    kind = {"llama": ("LlamaForCausalLM", llama_shapes),
            "roberta": ("RobertaForSequenceClassification", roberta_shapes)}
    need(c["model_type"] in kind, "model_type")
    name, shapes = kind[c["model_type"]]
    need(c["architectures"] == [name], "architectures")
    tensors = read_folder(folder)
    quantised = c.get("quantization_config")
    if quantised:
        check_4bit(tensors, quantised, golden)
    wanted = shapes(c)
    need(set(tensors) == set(wanted), "names: %s" % sorted(set(tensors) ^ set(wanted))[:3])
    for n, s in wanted.items():
        need(tensors[n][1] == s, "%s is %s, wanted %s" % (n, tensors[n][1], s))
        need(tensors[n][0] in (None, TORCH[c["torch_dtype"]]), n + ": dtype is not torch_dtype")
    if c["model_type"] == "llama":
        need(os.path.exists(os.path.join(folder, "generation_config.json")), "no generation_config.json")
        reals = isinstance(c["rope_theta"], float) and isinstance(c["rms_norm_eps"], float)
        need(reals, "floats that look like integers")
    else:
        need(c["label2id"] == {v: int(k) for k, v in c["id2label"].items()}, "id2label and label2id")
    return tensors


def check_adapter(folder):
    with open(os.path.join(folder, "adapter_config.json")) as f:
        c = json.load(f)
    need(c["peft_type"] == "LORA" and c["inference_mode"] is True, "adapter_config.json")
    need(isinstance(c["target_modules"], list), "target_modules")
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
    golden = sys.argv[2] if len(sys.argv) == 3 else None
    ours = check_adapter(sys.argv[1]) if adapter else check_model(sys.argv[1], golden)
    if golden:
        theirs = read_golden(golden, "adapter_model" if adapter else "model")
        need(set(ours) == set(theirs), "other names than the golden")
        for n in ours:
            need(ours[n][0] is None or ours[n] == theirs[n], n + ": other bytes than the golden")


def read_golden(folder, stem):
    """Reads as read() does, without the rules for what rlhf.c writes (order, padding, metadata)."""
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
