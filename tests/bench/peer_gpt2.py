#!/usr/bin/env python3
"""tests/bench/peer_gpt2.py - GPT-2 against DistilBERT in PyTorch, for bench_peers.py: peer_ppo.py (../shared/trials) with these two
models in place of its own, read from the folders that ours reads.

    peer_gpt2.py --policy DIR --judge DIR --rollout FILE [options of peer_ppo.py]

FILE is JSON about our first step: `ids`, one list for each response (query and response), `logprobs` of its response tokens,
`texts`, the ids that our judge read, `scores`, and the mean losses of the step, `policy_loss` and `value_loss`. The first step here
is the same step: with these ids and scores. If log-probs, scores or losses differ from ours, the program ends with an error. All
further steps sample their own responses; the judge reads `texts` in each, so that both judges read as many tokens.
"""
import json, math, os, sys
import torch, torch.nn as nn, torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', '..', '..', 'shared', 'trials'))
import peer_ppo

NUMBERS = {'F32': torch.float32, 'F16': torch.float16, 'BF16': torch.bfloat16}


def read_folder(folder):
    """Returns the configuration of a folder and its tensors by name, in floats."""
    with open(os.path.join(folder, 'config.json')) as f:
        config = json.load(f)
    with open(os.path.join(folder, 'model.safetensors'), 'rb') as f:
        head = json.loads(f.read(int.from_bytes(f.read(8), 'little')))
        data = bytearray(f.read())
    tensor = {}
    for name, about in head.items():
        if name != '__metadata__':
            begin, end = about['data_offsets']
            flat = torch.frombuffer(data, dtype=NUMBERS[about['dtype']], count=math.prod(about['shape']), offset=begin)
            tensor[name] = flat.view(about['shape']).float().clone()
    return config, tensor


def set_module(module, tensor, name, transposed=False):
    """Sets a module's weight, and its bias if it has one, to the tensors of this name."""
    module.weight.data = tensor[name + '.weight'].t().contiguous() if transposed else tensor[name + '.weight']
    if module.bias is not None:
        module.bias.data = tensor[name + '.bias']


class Block(nn.Module):
    """A layer of GPT-2. `first`: it is the first, and adds the embedding of positions to its input."""
    def __init__(s, c, first):
        super().__init__()
        s.heads, s.first = c.heads, first
        s.n1, s.n2 = nn.LayerNorm(c.dim), nn.LayerNorm(c.dim)
        s.qkv, s.o = nn.Linear(c.dim, 3 * c.dim), nn.Linear(c.dim, c.dim)
        s.up, s.down = nn.Linear(c.dim, c.hidden), nn.Linear(c.hidden, c.dim)

    def forward(s, x, position, _, mask, cache=None):
        if s.first:
            x = x + position[:, 0]
        B, T, D = x.shape
        q, k, v = (t.view(B, T, s.heads, -1).transpose(1, 2) for t in s.qkv(s.n1(x)).split(D, -1))
        if cache is not None:                           # as in peer_ppo.py
            n = cache['n']
            cache['k'][:, :, n:n + T], cache['v'][:, :, n:n + T], cache['n'] = k, v, n + T
            k, v = cache['k'][:, :, :n + T], cache['v'][:, :, :n + T]
        a = (q @ k.transpose(-1, -2)).float() / math.sqrt(q.shape[-1]) + mask
        x = x + s.o((F.softmax(a, -1).to(v.dtype) @ v).transpose(1, 2).reshape(B, T, D))
        return x + s.down(F.gelu(s.up(s.n2(x)), approximate='tanh'))


class GPT2(peer_ppo.Llama):
    """GPT-2 with a value head. Llama's hidden() hands each block the rows of two tables, cos and sin, at the tokens' positions; here
    the first table is the embedding of positions, and the second is empty."""
    def __init__(s, c):
        nn.Module.__init__(s)
        config, t = read_folder(c.policy)
        c.dim, c.layers, c.heads, c.vocab = config['n_embd'], config['n_layer'], config['n_head'], config['vocab_size']
        c.kv_heads, c.hidden = c.heads, config['n_inner'] or 4 * c.dim
        s.c, at = c, 'transformer.'
        s.emb, s.norm, s.head = nn.Embedding(c.vocab, c.dim), nn.LayerNorm(c.dim), nn.Linear(c.dim, c.vocab, bias=False)
        s.emb.weight.data = t[at + 'wte.weight']
        s.head.weight = s.emb.weight
        s.cos = nn.Parameter(t[at + 'wpe.weight'])
        s.register_buffer('sin', torch.zeros(len(s.cos), 0))
        set_module(s.norm, t, at + 'ln_f')
        s.blocks = nn.ModuleList(Block(c, i == 0) for i in range(c.layers))
        for i, b in enumerate(s.blocks):
            name = at + 'h.%d.' % i
            set_module(b.n1, t, name + 'ln_1')
            set_module(b.n2, t, name + 'ln_2')
            for linear, of in ((b.qkv, 'attn.c_attn'), (b.o, 'attn.c_proj'), (b.up, 'mlp.c_fc'), (b.down, 'mlp.c_proj')):
                set_module(linear, t, name + of, transposed=True)
        s.vhead = nn.Linear(c.dim, 1)
        s.vhead.weight.data.zero_()
        s.vhead.bias.data.zero_()


class DistilBert(nn.Module):
    """DistilBertForSequenceClassification. padding (as ids): True for what follows a shorter text, which nothing attends to."""
    def __init__(s, folder):
        super().__init__()
        config, t = read_folder(folder)
        dim, at = config['dim'], 'distilbert.'
        s.word, s.position = (nn.Embedding.from_pretrained(t[at + 'embeddings.%s_embeddings.weight' % x]) for x in ('word', 'position'))
        s.norm, s.dense, s.out = nn.LayerNorm(dim, 1e-12), nn.Linear(dim, dim), nn.Linear(dim, len(config['id2label']))
        s.blocks = nn.ModuleList(nn.TransformerEncoderLayer(dim, config['n_heads'], config['hidden_dim'], 0.0, 'gelu', 1e-12, batch_first=True)
                                 for _ in range(config['n_layers']))
        set_module(s.norm, t, at + 'embeddings.LayerNorm')
        set_module(s.dense, t, 'pre_classifier')
        set_module(s.out, t, 'classifier')
        for i, b in enumerate(s.blocks):
            name, a = at + 'transformer.layer.%d.' % i, b.self_attn
            a.in_proj_weight.data, a.in_proj_bias.data = (torch.cat([t[name + 'attention.%s_lin.%s' % (x, kind)] for x in 'qkv'])
                                                          for kind in ('weight', 'bias'))
            for module, of in ((a.out_proj, 'attention.out_lin'), (b.norm1, 'sa_layer_norm'), (b.linear1, 'ffn.lin1'), (b.linear2, 'ffn.lin2'),
                               (b.norm2, 'output_layer_norm')):
                set_module(module, t, name + of)

    def forward(s, ids, padding):
        x = s.norm(s.word(ids) + s.position(torch.arange(ids.shape[1])))
        for b in s.blocks:
            x = b(x, src_key_padding_mask=padding)
        return s.out(F.relu(s.dense(x[:, 0])))


class PPO(peer_ppo.PPO):
    """The first step is ours (see above); it is compared with ours."""
    def __init__(s, a):
        peer_ppo.Encoder = lambda *sizes: DistilBert(a.judge)
        super().__init__(a)
        with open(a.rollout) as f:
            s.ours = json.load(f)
        texts = [torch.tensor(t) for t in s.ours['texts']]
        s.texts = nn.utils.rnn.pad_sequence(texts, batch_first=True)
        s.padding = torch.arange(s.texts.shape[1]) >= torch.tensor([[len(t)] for t in texts])
        s.first = True

    def generate(s, q, pad):
        return torch.tensor(s.ours['ids']) if s.first else super().generate(q, pad)

    @torch.no_grad()
    def reward(s, ids):
        with s.cast():
            scores = s.rm(s.texts, s.padding)[:, 0].float()
        if s.first:
            s.same('score', scores, s.ours['scores'])
        return scores

    def same(s, what, theirs, ours):
        """Ends the program if two lists of numbers differ. With bf16 they may."""
        apart = (torch.as_tensor(theirs) - torch.tensor(ours)).abs().max().item()
        print('greatest difference of %s: %.2g' % (what, apart))
        if not apart < (0.1 if s.a.bf16 else 1e-4):
            sys.exit('peer_gpt2.py: PyTorch and ours differ by %g: %s' % (apart, what))

    def step(s, q, pad):
        if not s.first:
            return super().step(q, pad)
        ids, pad = torch.tensor(s.ours['ids']), torch.zeros_like(pad)
        with torch.no_grad():
            s.same('log-prob', s.score(s.pol, ids, pad)[0], s.ours['logprobs'])
        took, means = super().step(q, pad)
        s.first = False
        s.same('policy loss', means['pg'], s.ours['policy_loss'])
        s.same('value loss', means['vf'], s.ours['value_loss'])
        return took, means


def parser(standard=peer_ppo.parser):
    p = standard()
    for name in ('policy', 'judge', 'rollout'):
        p.add_argument('--' + name, required=True)
    return p


if __name__ == '__main__':
    peer_ppo.Llama, peer_ppo.PPO, peer_ppo.parser = GPT2, PPO, parser
    peer_ppo.main()
