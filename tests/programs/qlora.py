#!/usr/bin/env python3
"""tests/programs/qlora.py - QLoRA in PyTorch, from the definitions and without peft or bitsandbytes: a Llama whose
linears are quantised to 4 bits and dequantised again, with a LoRA adapter next to each, at compute types float32,
bfloat16 and float16.

  qlora.py golden FOLDER
      makes tests/golden/models/nf4-policy again: a random policy, an adapter, and for several ways to quantise the
      logits, the loss and the adapter's gradients (tests/unit/nf4.c compares)
  qlora.py logprobs MODEL ADAPTER FILE [--kind nf4|fp4|none] [--block N] [--double]
      reads lines of ids from FILE, and prints log p of each id but a line's first, one number on a line; ADAPTER "-":
      no adapter

Compute types are emulated: input, dequantised weight and output of a 4-bit linear are rounded to the type, in the
backward pass too (Hugging Face's Linear4bit casts at the same places). The sum between is float64, so that its own
error does not change a rounding. The adapter's own products are float32."""
import json, math, os, struct, sys
import torch

# ---- safetensors: 8 bytes of header length, a JSON header, the bytes of the tensors, all little-endian ----
DTYPE = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I32": torch.int32}


def read(path):
    raw = open(path, "rb").read()
    n = struct.unpack("<Q", raw[:8])[0]
    out = {}
    for name, t in json.loads(raw[8:8 + n]).items():
        if name == "__metadata__":
            continue
        a, b = t["data_offsets"]
        x = torch.frombuffer(bytearray(raw[8 + n + a:8 + n + b]), dtype=DTYPE[t["dtype"]]).reshape(t["shape"])
        out[name] = x.float() if x.is_floating_point() else x
    return out


def write(path, tensors):
    head, blobs, at = {}, [], 0
    for name in sorted(tensors):
        x = tensors[name].detach().contiguous()
        kind = next(k for k, v in DTYPE.items() if v == x.dtype)
        raw = bytes(x.view(torch.int16).flatten().numpy().tobytes() if kind == "BF16" else x.flatten().numpy().tobytes())
        head[name] = {"dtype": kind, "shape": list(x.shape), "data_offsets": [at, at + len(raw)]}
        blobs.append(raw)
        at += len(raw)
    h = json.dumps(head, separators=(",", ":")).encode()
    h += b" " * (-len(h) % 8)
    open(path, "wb").write(struct.pack("<Q", len(h)) + h + b"".join(blobs))


# ---- 4 bits ----
NF4 = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
       -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
       0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]
FP4 = [0.0, 0.0052083333333, 1 / 6, 0.25, 1 / 3, 0.5, 2 / 3, 1.0]        # magnitudes, ascending
FP4_THRESHOLD = [0.00260417, 0.0859375, 0.20833333, 0.29166667, 0.4166667, 0.583333, 0.8333333]


def below(x, threshold):                    # how many thresholds are below x: one that is equal is not
    return torch.searchsorted(threshold, x.contiguous(), right=False)


def dynamic_map():                          # the signed 8-bit map: for i = 0..6 the middles of 2^i cells of 0.1 .. 1, times 10^(i-6)
    side = []
    for i in range(7):
        edge = torch.linspace(0.1, 1, 2 ** i + 1)
        side += ((edge[1:] + edge[:-1]) / 2 * 10.0 ** (i - 6)).tolist()
    return torch.tensor(sorted([-v for v in side] + [0.0] + side + [1.0]))


def double_quantised(absmax):               # absmax as it comes back from 8 bits
    table, offset = dynamic_map(), absmax.double().mean().float()
    d, out = absmax - offset, []
    for part in d.split(256):
        top = part.abs().max()
        x = part * (1 / top.clamp(min=1e-38))   # by the reciprocal, as bitsandbytes: x / top may round to another code
        out.append(table[below(x, (table[1:] + table[:-1]) / 2)] * top + offset)
    return torch.cat(out)


def through_4bit(w, kind, block, double):   # quantised and dequantised
    flat, n = w.flatten(), w.numel()
    x = torch.cat([flat, flat.new_zeros(-n % block)]).view(-1, block)
    absmax = x.abs().max(1).values
    x = x * (1 / absmax.clamp(min=1e-38)).unsqueeze(1)
    if kind == "nf4":
        table = torch.tensor(NF4)
        value = table[below(x, (table[1:] + table[:-1]) / 2)]
    else:
        value = torch.tensor(FP4)[below(x.abs(), torch.tensor(FP4_THRESHOLD))] * x.sign()
    if double:
        absmax = double_quantised(absmax)
    return (value * absmax.unsqueeze(1)).flatten()[:n].view_as(w)


def product(x, w, dtype):                   # round(round(x) round(W)); w is rounded already
    if dtype == torch.float32:
        return x @ w
    return (x.to(dtype).double() @ w.double()).to(dtype).float()


class Rounded(torch.autograd.Function):     # y = round(round(x) round(W)^T), dx = round(round(dy) round(W)); W is frozen
    @staticmethod
    def forward(ctx, x, w, dtype):
        w = w.to(dtype).float()
        ctx.save_for_backward(w)
        ctx.dtype = dtype
        return product(x, w.T, dtype)

    @staticmethod
    def backward(ctx, dy):
        (w,) = ctx.saved_tensors
        return product(dy, w, ctx.dtype), None, None


# ---- the policy ----
LINEARS = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]


class Policy:
    def __init__(self, config, weights, adapter=None, adapter_config=None, kind="nf4", block=64, double=False, compute=torch.float32):
        self.c, self.adapter, self.compute = config, adapter or {}, compute
        self.w = {n: w.float() for n, w in weights.items()}
        if "lm_head.weight" not in self.w:
            self.w["lm_head.weight"] = self.w["model.embed_tokens.weight"]
        if kind != "none":
            for n in self.w:
                if any(n.endswith(l + ".weight") for l in LINEARS):
                    self.w[n] = through_4bit(self.w[n], kind, block, double)
        if adapter:
            r = adapter_config["r"]
            self.scale = adapter_config["lora_alpha"] / (math.sqrt(r) if adapter_config["use_rslora"] else r)

    def linear(self, x, name):
        y = Rounded.apply(x, self.w[name + ".weight"], self.compute)
        A = self.adapter.get(f"base_model.model.{name}.lora_A.weight")
        if A is not None:
            y = y + (x @ A.T * self.scale) @ self.adapter[f"base_model.model.{name}.lora_B.weight"].T
        return y

    def norm(self, x, name):
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + self.c["rms_norm_eps"]) * self.w[name + ".weight"]

    def rotate(self, x):                    # (T,heads,D): half i and i + D/2 turn together
        T, D = x.shape[0], x.shape[2]
        inv = (self.c["rope_theta"] ** (-torch.arange(0, D, 2).double() / D)).float()
        angle = (torch.arange(T).float().unsqueeze(1) * inv).double()
        cos, sin = angle.cos().float().unsqueeze(1), angle.sin().float().unsqueeze(1)
        a, b = x[..., :D // 2], x[..., D // 2:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def layer(self, x, at):
        H, K = self.c["num_attention_heads"], self.c["num_key_value_heads"]
        D, T = self.c["head_dim"], x.shape[0]
        n = self.norm(x, at + "input_layernorm")
        q = self.rotate(self.linear(n, at + LINEARS[0]).view(T, H, D))
        k = self.rotate(self.linear(n, at + LINEARS[1]).view(T, K, D)).repeat_interleave(H // K, 1)
        v = self.linear(n, at + LINEARS[2]).view(T, K, D).repeat_interleave(H // K, 1)
        s = torch.einsum("thd,shd->hts", q, k) / math.sqrt(D)
        s = s.masked_fill(torch.ones(T, T).triu(1).bool(), -math.inf).softmax(-1)
        x = x + self.linear(torch.einsum("hts,shd->thd", s, v).reshape(T, H * D), at + LINEARS[3])
        n = self.norm(x, at + "post_attention_layernorm")
        gate, up = self.linear(n, at + LINEARS[4]), self.linear(n, at + LINEARS[5])
        return x + self.linear(gate * torch.sigmoid(gate) * up, at + LINEARS[6])

    def logits(self, ids):                  # (T) -> (T,V)
        x = self.w["model.embed_tokens.weight"][ids]
        for l in range(self.c["num_hidden_layers"]):
            x = self.layer(x, f"model.layers.{l}.")
        return self.norm(x, "model.norm") @ self.w["lm_head.weight"].T


def logprobs(logits, ids):                  # of ids[1:]
    return logits[:-1].log_softmax(-1).gather(1, ids[1:, None])[:, 0]


# ---- the golden ----
def golden(folder):
    torch.manual_seed(20)
    C, H, K, D, F, V, L, R = 48, 4, 2, 12, 90, 67, 2, 4
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "vocab_size": V, "hidden_size": C,
              "num_attention_heads": H, "num_key_value_heads": K, "head_dim": D, "intermediate_size": F, "num_hidden_layers": L,
              "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
              "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16"}
    shape = {"self_attn.q_proj": (H * D, C), "self_attn.k_proj": (K * D, C), "self_attn.v_proj": (K * D, C), "self_attn.o_proj": (C, H * D),
             "mlp.gate_proj": (F, C), "mlp.up_proj": (F, C), "mlp.down_proj": (C, F)}
    w = {"model.embed_tokens.weight": torch.randn(V, C), "lm_head.weight": torch.randn(V, C) / C ** 0.5,
         "model.norm.weight": 1 + 0.2 * torch.randn(C)}
    adapter = {}
    for l in range(L):
        at = f"model.layers.{l}."
        for n in ("input_layernorm", "post_attention_layernorm"):
            w[f"{at}{n}.weight"] = 1 + 0.2 * torch.randn(C)
        for n, (o, i) in shape.items():
            w[f"{at}{n}.weight"] = torch.randn(o, i) / i ** 0.5
            adapter[f"base_model.model.{at}{n}.lora_A.weight"] = torch.randn(R, i) / i ** 0.5
            adapter[f"base_model.model.{at}{n}.lora_B.weight"] = 0.3 * torch.randn(o, R)
    w = {n: t.bfloat16() for n, t in w.items()}
    adapter_config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": R, "lora_alpha": 6, "lora_dropout": 0.0, "bias": "none",
                      "use_rslora": False, "target_modules": [n.split(".")[1] for n in shape]}
    lens = [9, 1, 14]
    out = {"seq_lens": torch.tensor(lens, dtype=torch.int32), "ids": torch.randint(3, V, (sum(lens),), dtype=torch.int32)}
    for name, how in {"nf4": {}, "doubled": {"double": True}, "fp4": {"kind": "fp4", "block": 128},
                      "bf16": {"compute": torch.bfloat16}, "f16": {"compute": torch.float16}}.items():
        a = {n: t.clone().requires_grad_() for n, t in adapter.items()}
        p = Policy(config, w, a, adapter_config, **how)
        texts = out["ids"].long().split(lens)
        logits = [p.logits(t) for t in texts]
        loss = -torch.cat([logprobs(z, t) for z, t in zip(logits, texts)]).mean()
        loss.backward()
        out[name + ".logits"], out[name + ".loss"] = torch.cat(logits), loss.reshape(1)
        out.update({f"{name}.grad.{n[len('base_model.model.'):]}": t.grad for n, t in a.items()})
    x, dy = torch.randn(sum(lens), C).requires_grad_(), torch.randn(sum(lens), F)       # one linear by itself
    gate = through_4bit(w["model.layers.0.mlp.gate_proj.weight"].float(), "nf4", 64, False)
    out["linear.x"], out["linear.dy"] = x, dy
    for name, dtype in {"bf16": torch.bfloat16, "f16": torch.float16}.items():
        y = Rounded.apply(x, gate, dtype)
        out[f"linear.{name}.y"], out[f"linear.{name}.dx"] = y, torch.autograd.grad(y, x, dy)[0]
    os.makedirs(folder + "/adapter", exist_ok=True)
    for name, content in {"config.json": config, "adapter/adapter_config.json": adapter_config}.items():
        open(f"{folder}/{name}", "w").write(json.dumps(content, indent=1) + "\n")
    write(folder + "/model.safetensors", w)
    write(folder + "/adapter/adapter_model.safetensors", adapter)
    write(folder + "/golden.safetensors", out)


def print_logprobs(model, adapter, file, **how):
    a = ac = None
    if adapter != "-":
        a, ac = read(adapter + "/adapter_model.safetensors"), json.load(open(adapter + "/adapter_config.json"))
    config = json.load(open(model + "/config.json"))
    p = Policy(config, read(model + "/model.safetensors"), a, ac, **how)
    for line in open(file):
        ids = torch.tensor([int(i) for i in line.split()])
        with torch.no_grad():
            for v in logprobs(p.logits(ids), ids).tolist():
                print("%.9g" % v)


def main(argv):
    if len(argv) == 3 and argv[1] == "golden":
        return golden(argv[2])
    if len(argv) < 5 or argv[1] != "logprobs":
        sys.exit(__doc__)
    how, rest = {}, argv[5:]
    while rest:
        option = rest.pop(0)
        how.update({"--double": lambda: {"double": True}, "--block": lambda: {"block": int(rest.pop(0))},
                    "--kind": lambda: {"kind": rest.pop(0)}}[option]())
    print_logprobs(*argv[2:5], **how)


torch.set_num_threads(1)
main(sys.argv)
