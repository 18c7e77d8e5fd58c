#!/usr/bin/env python3
"""tests/bench/bench_peers.py - the half of `make bench` that measures whole programs: steps of ppo, the judge and the
tokenizers, next to PyTorch and sentencepiece where they are installed, and the gain of a second thread. It first runs
build/tests/bench with the arguments that are not its own.

    make bench                                          everything (ten minutes; nothing else should run on the machine)
    make bench BENCH="ppo --quick"                      one part: bf16 ppo default judge writing tokenizers scaling
    make bench BENCH="gpt2 qwen qlora writing --long"   real models' shapes too: gigabytes on disk, many minutes

    --rounds N      pairs of runs, ours and theirs by turns (3; with --quick 1)
    BENCH_PREFIX    a command before each command that is timed: "taskset -c 0", "numactl -N 0"
    BENCH_DIR       folder for random checkpoints (build/bench)

PyTorch runs peer_ppo.py (../shared/trials): sampling with a cache, a judge, log-probs of policy and reference, clipped
PPO with AdamW. For GPT-2 and DistilBERT peer_gpt2.py puts these two in place of its models, and repeats our first step; if its
log-probs, scores or losses differ from ours, there is an error instead of times. "tuned" is PyTorch with OpenBLAS's OpenMP build, with
AVX-512 kernels if the processor has them, and with bound threads; "untouched" is PyTorch as it is installed. bf16 is measured
if the processor has instructions for it. A library that is missing is "not installed"; no build needs one. This script needs
Python's standard library alone; PyTorch and sentencepiece run in the Python that has them.
"""
import glob, json, os, shlex, shutil, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
SHARED = os.path.join(ROOT, '..', 'shared')
PEER = os.path.join(SHARED, 'trials', 'peer_ppo.py')
PEER_GPT2 = os.path.join(HERE, 'peer_gpt2.py')
GPT2_TOKENIZER = os.path.join(SHARED, 'data', 'tokenizers', 'gpt2')
KEPT = os.environ.get('BENCH_DIR', os.path.join(ROOT, 'build', 'bench'))
PREFIX = shlex.split(os.environ.get('BENCH_PREFIX', ''))
C_PARTS = ['products', 'plain', 'nf4', 'quantise', 'exp', 'memory', 'tokenizer', 'split', 'generate']
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


# ---- running things ----

def cpu_flags():
    try:
        with open('/proc/cpuinfo') as f:
            return next((set(line.split()[2:]) for line in f if line.startswith('flags')), set())
    except OSError:
        return set()


FLAGS = cpu_flags()
BF16 = bool(FLAGS & {'amx_bf16', 'avx512_bf16'})
HALF = ['--compute', 'bf16'] if 'amx_bf16' in FLAGS else []     # ours in bf16; without AMX it would only be slower


def environment(kind, threads=None):
    """Returns the variables for a kind of run: ours (unchanged), tuned or untouched (see above)."""
    e = {k: v for k, v in os.environ.items() if not k.startswith(('OMP_', 'OPENBLAS_', 'GOMP_')) and k != 'LD_LIBRARY_PATH'}
    if kind == 'ours':
        e = dict(os.environ)
    if kind == 'tuned':
        place = glob.glob('/usr/lib/*/openblas-openmp')
        if place:
            e['LD_LIBRARY_PATH'] = place[0]
        e['OMP_PROC_BIND'] = 'true'
        core = os.environ.get('OPENBLAS_CORETYPE') or ('SkylakeX' if 'avx512f' in FLAGS else None)
        if core:
            e['OPENBLAS_CORETYPE'] = core
    if threads and kind != 'untouched':
        e['OMP_NUM_THREADS'] = str(threads)
    return e


def call_measured(command, env=None, timed=True):
    """Runs a command and returns its output and the most memory that it held, in bytes. If it fails, its output is shown and the
    part ends."""
    p = subprocess.Popen((PREFIX if timed else []) + command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = p.stdout.read()
    _, status, used = os.wait4(p.pid, 0)
    p.returncode = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
    if p.returncode:
        raise RuntimeError('%s: exit %d\n%s' % (' '.join(command), p.returncode, said[-1500:]))
    return said, used.ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


def call(command, env=None, timed=True):
    return call_measured(command, env, timed)[0]


def python_with(module):
    """Returns a Python that has the module, and the module's version; None, None if there is none."""
    for python in dict.fromkeys([sys.executable, 'python3', '/usr/bin/python3']):
        try:
            r = subprocess.run([python, '-c', 'import %s as m; print(m.__version__)' % module], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        except OSError:
            continue
        if r.returncode == 0:
            return python, r.stdout.strip()
    return None, None


# ---- medians and rows ----

def median(x):
    return sorted(x)[len(x) // 2]


def spread(x, scale=1.0):
    return '%.4g (%.4g to %.4g)' % (median(x) * scale, min(x) * scale, max(x) * scale)


def heading(title, ours, theirs):
    print('\n%-50s %-26s %-26s %s' % (title, ours, theirs, 'ratio'), flush=True)


def row(what, ours, theirs, faster_is_less=True, note=None):
    """Prints a line. ours, theirs: a number for each round; theirs may be a word instead."""
    if isinstance(theirs, str):
        print('  %-48s %-26s %s' % (what, spread(ours), theirs), flush=True)
        return
    ratio = [(t / o if faster_is_less else o / t) for o, t in zip(ours, theirs)]
    print('  %-48s %-26s %-26s %s%s' % (what, spread(ours), spread(theirs), '%.2f (%.2f to %.2f)' % (median(ratio), min(ratio), max(ratio)),
                                       '  ' + note if note else ''), flush=True)


def rounds(n, *work):
    """Runs each work once in each round, in alternating order. Returns a list of results for each work."""
    result = [[] for _ in work]
    for k in range(n):
        order = range(len(work)) if k % 2 == 0 else reversed(range(len(work)))
        for i in order:
            result[i].append(work[i]())
    return result


# ---- checkpoints of random weights ----

def shapes(name, *options):
    folder = os.path.join(KEPT, name)
    if not os.path.exists(os.path.join(folder, 'config.json')):
        os.makedirs(KEPT, exist_ok=True)
        call(['build/tests/shapes', options[0], folder] + [str(x) for x in options[1:]], timed=False)
    return folder


def reviews():
    """Returns a dataset of reviews; None if they are not here."""
    source, data = os.path.join(SHARED, 'data', 'imdb', 'train.jsonl'), os.path.join(KEPT, 'reviews.bin')
    if not os.path.exists(source):
        return None
    if not os.path.exists(data):
        call(['./prep', 'data', source, '--out', data, '--labels', '0=negative,1=positive'], timed=False)
    return data


def tokenizer(vocab, kind='bytelevel'):
    """Returns a tokenizer of so many ids, for policy and judge; None if the text for it is missing."""
    folder = os.path.join(KEPT, 'tokenizer-%s%d' % ('' if kind == 'bytelevel' else kind, vocab))
    if os.path.exists(os.path.join(folder, 'tokenizer_config.json')):
        return folder
    os.makedirs(KEPT, exist_ok=True)
    text = reviews() if vocab > 4096 else os.path.join(ROOT, 'data', 'imdb.bin')        # the grammar has too few words
    if not text:
        return None
    call(['./prep', 'tokenizer', text, '--kind', kind, '--vocab', str(vocab), '--out', folder], timed=False)
    return folder


# ---- PPO ----

def our_step(policy, reward, batch, minibatch, query, response, epochs, threads=THREADS, more=(), steps=3):
    """Returns the medians of a step's parts, the memory, and the first step's line of log.jsonl. The first step is left out, as warming up, unless it is the only one.
    query: tokens of a query and one for <s>, also where the tokenizer has none."""
    out = tempfile.mkdtemp(prefix='bench')
    options = ['--policy', policy, '--reward', reward] if policy else []
    if batch:
        options += ['--batch-size', str(batch), '--mini-batch-size', str(minibatch), '--ppo-epochs', str(epochs), '--query-min', str(query - 1),
                    '--query-max', str(query - 1), '--response-min', str(response), '--response-max', str(response)]
    try:
        said, peak = call_measured(['./ppo', 'data/imdb.bin', '--steps', str(steps), '--eval-queries', '0', '--save-every', '0', '--out', out] +
                                   options + list(more), environment('ours', threads))
        took, log = ([json.loads(line) for line in open(glob.glob(out + '/**/' + name, recursive=True)[0]) if '"step"' in line]
                     for name in ('time.jsonl', 'log.jsonl'))
    finally:
        shutil.rmtree(out, ignore_errors=True)
    if len(took) > 1:
        took = took[1:]
    tokens = took[0]['tokens_per_second'] * took[0]['seconds']
    if batch and abs(tokens - batch * response) > 0.5:
        raise RuntimeError('our step sampled %.0f tokens, not %d' % (tokens, batch * response))
    parts = {k.split('/')[-1]: median([s[k] for s in took]) for k in took[0] if k.startswith('time/ppo/')}
    bill = ' '.join(next(line for line in said.split('\n') if 'memory in total' in line).split()[3:])
    return dict(parts, total=median([s['seconds'] for s in took]), bill=bill, peak=peak, first=log[0])


def their_step(python, kind, threads=THREADS, steps=2, script=PEER, **shape):
    options = [x for k, v in shape.items() for x in (['--' + k.replace('_', '-')] + ([] if v is True else [str(v)]))]
    said, peak = call_measured([python, script, '--threads', str(threads), '--steps', str(steps), '--warmup', '1', '--json'] + options,
                               environment(kind, threads))
    return dict(json.loads(said[said.index('{'):]), peak=peak)


def peer_missing(python):
    return 'PyTorch: not installed' if not python else None if os.path.exists(PEER) else 'peer_ppo.py: not here'


def print_parts(ours, theirs):
    """Prints the time of each part of a step, and the program's largest memory (ours with what its bill says)."""
    mid = lambda runs, *keys: sum(median([r[k] for r in runs]) for k in keys if k in runs[0])
    print('      ours:   sample %.2f  judge %.2f  reference %.2f  learn %.2f  memory %.2f GB (bill %s)' % (
        mid(ours, 'generate'), mid(ours, 'score'), mid(ours, 'forward_pass'), mid(ours, 'optimize_step'), mid(ours, 'peak') / 1e9, ours[0]['bill']))
    if theirs:
        print('      theirs: sample %.2f  judge %.2f  log-probs %.2f  learn %.2f  memory %.2f GB' % (
            mid(theirs, 'generate'), mid(theirs, 'score'), mid(theirs, 'old_logp', 'ref_logp'), mid(theirs, 'train_fwd', 'train_bwd', 'adamw'),
            mid(theirs, 'peak') / 1e9), flush=True)


def compare_steps(o, python, title, our, shape):
    """Measures one shape: ours and tuned PyTorch by turns, in fp32 and in bf16, and untouched PyTorch.
    our(more) runs ours with more options."""
    missing = peer_missing(python)
    if missing:
        (ours,) = rounds(o.rounds, lambda: our([]))
        row(title, [r['total'] for r in ours], missing)
        print_parts(ours, None)
        return
    ours, tuned = rounds(o.rounds, lambda: our([]), lambda: their_step(python, 'tuned', **shape))
    row(title + ', tuned', [r['total'] for r in ours], [r['total'] for r in tuned])
    print_parts(ours, tuned)
    if BF16:
        ours, half = rounds(o.rounds, lambda: our(HALF), lambda: their_step(python, 'tuned', bf16=True, **shape))
        row(title + (', both in bf16' if HALF else ', PyTorch bf16, tuned'), [r['total'] for r in ours], [r['total'] for r in half])
        print_parts(ours, half)
    if not o.quick:
        row(title + ', untouched', [our([])['total']], [their_step(python, 'untouched', **shape)['total']])


def part_ppo(o):
    """Trains all weights of a policy: 5.97 million and its table; the judge has four layers."""
    python, version = python_with('torch')
    heading('a step of PPO, all weights, %d threads: s' % THREADS, 'ours', 'PyTorch %s' % (version or ''))
    for vocab in (4096, 32000):
        words = tokenizer(vocab)
        if not words:
            print('  vocab %d: not measured, ../shared/data/imdb is not here' % vocab)
            continue
        policy = shapes('policy-%d' % vocab, '--policy', '--dim', 288, '--layers', 6, '--heads', 6, '--ffn', 768, '--vocab', vocab, '--positions', 256,
                        '--tied', '--no-eos', '--dtype', 'f32', '--tokenizer', words)
        reward = shapes('judge-%d' % vocab, '--reward', '--dim', 256, '--layers', 4, '--heads', 4, '--ffn', 1024, '--vocab', vocab, '--positions', 258,
                        '--dtype', 'f32', '--tokenizer', words)
        compare_steps(o, python, 'dim 288, vocab %d, 64 x (8 + 24)' % vocab, lambda more: our_step(policy, reward, 64, 16, 8, 24, 4, more=more),
                      dict(dim=288, layers=6, heads=6, hidden=768, vocab=vocab, batch=64, minibatch=16, query=8, resp=24, epochs=4))


def part_default(o):
    """Runs `./ppo data/imdb.bin` unchanged: queries are <s> and 4 to 8 tokens. PyTorch gets their mean length, 7, and so no padding."""
    python, version = python_with('torch')
    heading('a step of the default run, %d threads: s' % THREADS, 'ours', 'PyTorch %s' % (version or ''))
    compare_steps(o, python, './ppo data/imdb.bin', lambda more: our_step(None, None, 0, 0, 0, 0, 0, more=more),
                  dict(dim=128, layers=4, heads=4, kv_heads=2, hidden=352, vocab=2048, batch=192, minibatch=48, query=7, resp=32, epochs=2,
                       rm_dim=112, rm_layers=2, rm_heads=7, rm_ffn=224, rm_vocab=2048, max_grad=1.0))


def write_first_step(policy, reward, rollouts, logged):
    """Writes what peer_gpt2.py compares: our first step's tokens, log-probs, scores and losses. rollouts: the file of
    --dump-rollouts; logged: the step's line of log.jsonl."""
    with open(rollouts) as f:
        step = [row for row in map(json.loads, f) if row['step'] == 1]
    ids = [row['query'] + row['response'] for row in step]
    path = os.path.join(KEPT, 'first-step')
    with open(path + '.jsonl', 'w') as f:
        for x in ids:
            with open(path + '.ids', 'w') as one:
                one.write(' '.join(map(str, x)) + '\n')
            f.write(json.dumps(dict(text=call(['./run', 'tokenize', policy, path + '.ids', '--decode'], timed=False)[:-1])) + '\n')
    read = call(['./run', 'tokenize', reward, path + '.jsonl', '--jsonl', '--special'], timed=False)
    with open(path + '.json', 'w') as f:
        json.dump(dict(ids=ids, texts=[list(map(int, line.split())) for line in read.splitlines()], logprobs=[row['logprob'] for row in step],
                       scores=[row['score'] for row in step], policy_loss=logged['ppo/loss/policy'], value_loss=logged['ppo/loss/value']), f)


def distilbert():
    words = tokenizer(30522, 'wordpiece')
    if not words:
        raise RuntimeError('not measured, ../shared/data/imdb is not here')
    return shapes('distilbert', '--reward', '--family', 'distilbert', '--dtype', 'f32', '--tokenizer', words)


def part_gpt2(o):
    """Trains all weights of GPT-2 small's shape against DistilBERT's."""
    if not o.long:
        print('\ngpt2: only with --long (GPT-2 small\'s shape, gigabytes and minutes)')
        return
    python, version = python_with('torch')
    reward, rollouts = distilbert(), os.path.join(KEPT, 'rollouts.jsonl')
    policy = shapes('gpt2', '--policy', '--family', 'gpt2', '--no-eos', '--dtype', 'f32', '--tokenizer', GPT2_TOKENIZER)
    options = ['--value-init', 'zero', '--ratio-threshold', '0', '--dump-rollouts', rollouts]
    # Ours runs first in the first round, so that the file is there before PyTorch reads it.
    shape = dict(script=PEER_GPT2, policy=policy, judge=reward, rollout=os.path.join(KEPT, 'first-step.json'), steps=1, batch=16, minibatch=16,
                 query=8, resp=32, epochs=4)

    def ours(more):
        took = our_step(policy, reward, 16, 16, 9, 32, 4, more=options + more, steps=2)
        if not more:
            write_first_step(policy, reward, rollouts, took['first'])
        return took
    heading('a step of PPO, all weights, GPT-2 and DistilBERT, %d threads: s' % THREADS, 'ours', 'PyTorch %s' % (version or ''))
    compare_steps(o, python, '124 million, 16 x (8 + 32)', ours, shape)


def part_qwen(o):
    """Qwen2.5-0.5B's shape. PyTorch holds its weights in floats, without biases, and adapts two linears of a layer instead of seven."""
    if not o.long:
        print('\nqwen: only with --long (Qwen2.5-0.5B\'s shape, gigabytes and minutes)')
        return
    python, version = python_with('torch')
    reward = distilbert()
    policy = shapes('qwen', '--policy', '--family', 'qwen2', '--no-eos', '--tokenizer', GPT2_TOKENIZER)
    heading('a step of QLoRA, Qwen2.5-0.5B and DistilBERT: s', 'ours', 'PyTorch %s, unquantised' % (version or ''))
    compare_steps(o, python, 'NF4 + LoRA 16, 16 x (8 + 32)',
                  lambda more: our_step(policy, reward, 16, 16, 9, 32, 4, more=['--nf4', '--chunk', '16'] + more, steps=1),
                  dict(dim=896, layers=24, heads=14, kv_heads=2, hidden=4864, vocab=151936, lora=16, batch=16, minibatch=16, query=8, resp=32, epochs=4,
                       steps=1, rm_dim=768, rm_layers=6, rm_heads=12, rm_ffn=3072, rm_vocab=30522))


def part_qlora(o):
    """TinyLlama's shape. PyTorch holds its weights in floats and adapts two linears of a layer instead of seven; its time for 22 layers
    is computed from those for 2 and 4."""
    if not o.long:
        print('\nqlora: only with --long (TinyLlama\'s shape, gigabytes and minutes)')
        return
    python, version = python_with('torch')
    policy, reward = tinyllama(), hate()
    heading('a step of QLoRA, TinyLlama, 16 x (8 + 24): s', 'ours', 'PyTorch %s, unquantised' % (version or ''))
    more = ['--nf4', '--chunk', '16'] + HALF
    missing = peer_missing(python)
    ours = [our_step(policy, reward, 16, 16, 8, 24, 4, more=more, steps=1)]
    shape = dict(dim=2048, heads=32, kv_heads=4, hidden=5632, vocab=32000, tied=0, lora=16, batch=16, minibatch=16, query=8, resp=24, epochs=4,
                 rm_dim=768, rm_layers=12, rm_heads=12, rm_ffn=3072, rm_vocab=50265)
    if BF16:
        shape['bf16'] = True
    if not missing:
        two, four = (their_step(python, 'tuned', layers=n, steps=1, **shape) for n in (2, 4))
        theirs = [two['total'] + (four['total'] - two['total']) * 10]
    row('NF4 + LoRA 16', [r['total'] for r in ours], missing or theirs, note='(22 layers: computed from 2 and 4)' if not missing else None)
    print_parts(ours, None)


# ---- the judge ----

PEER_JUDGE = r'''
import json, sys, time, torch, torch.nn as nn
threads, bf16 = int(sys.argv[1]), sys.argv[2] == 'bf16'
torch.set_num_threads(threads)
torch.manual_seed(1)
class Judge(nn.Module):
    def __init__(s, dim=768, layers=12, heads=12, ffn=3072, vocab=50265):
        super().__init__()
        s.word, s.position, s.norm = nn.Embedding(vocab, dim), nn.Embedding(514, dim), nn.LayerNorm(dim, 1e-5)
        s.block = nn.ModuleList(nn.TransformerEncoderLayer(dim, heads, ffn, 0.0, 'gelu', 1e-5, batch_first=True) for _ in range(layers))
        s.dense, s.out = nn.Linear(dim, dim), nn.Linear(dim, 2)
    def forward(s, ids):
        x = s.norm(s.word(ids) + s.position(torch.arange(2, ids.shape[1] + 2)))
        for b in s.block: x = b(x)
        return s.out(torch.tanh(s.dense(x[:, 0])))
judge, ids, t = Judge().train(bf16), torch.randint(3, 50265, (16, 64)), []
with torch.no_grad(), torch.autocast('cpu', dtype=torch.bfloat16, enabled=bf16):
    for k in range(5):
        begin = time.perf_counter()
        judge(ids)
        t.append(time.perf_counter() - begin)
print(json.dumps(sorted(t[2:])[1]))
'''


def hate():
    return os.environ.get('BENCH_HATE') or shapes('roberta', '--reward', '--dtype', 'bf16', '--tokenizer', 'data/reward')


def tinyllama():
    return os.environ.get('BENCH_TINYLLAMA') or shapes('tinyllama', '--policy', '--no-eos', '--vocab', 32000, '--tokenizer', os.path.join(SHARED, 'data', 'tokenizers', 'llama2'))


def part_judge(o):
    python, version = python_with('torch')
    reward = hate()
    heading('roberta-base reads 16 texts of 64 tokens: ms', 'ours', 'PyTorch %s' % (version or ''))

    def ours(more=()):
        said = call(['build/tests/bench', 'judge', '--reward', reward, '--tokens', '64', '--threads', str(THREADS), '--runs', '3'] + list(more),
                    environment('ours', THREADS))
        return float(said.rsplit(' ms', 1)[0].split()[-1])

    def theirs(kind):
        return float(call([python, '-c', PEER_JUDGE, str(THREADS), kind], environment('tuned', THREADS))) * 1e3
    if not python:
        row('%d threads' % THREADS, rounds(o.rounds, ours)[0], 'not installed')
        return
    for kind in ['fp32'] + (['bf16'] if BF16 else []):
        more = HALF if kind == 'bf16' else []
        row('%d threads%s, PyTorch %s, tuned' % (THREADS, ', ours in bf16' if more else '', kind), *rounds(o.rounds, lambda: ours(more), lambda: theirs(kind)))


# ---- products in bf16 ----

PEER_BF16 = r'''
import json, sys, time, torch
torch.set_num_threads(int(sys.argv[1]))
rate = {}
for name in sys.argv[2:]:
    N, O, I = map(int, name.split('x'))
    x, w, t = torch.randn(N, I).bfloat16(), torch.randn(O, I).bfloat16(), []
    with torch.no_grad():
        for k in range(9):
            begin = time.perf_counter()
            torch.nn.functional.linear(x, w)
            t.append(time.perf_counter() - begin)
    rate[name] = 2e-9 * N * O * I / sorted(t[2:])[3]
print(json.dumps(rate))
'''


def part_bf16(o):
    """Products in bf16 of weights in bf16, NF4 and floats, next to PyTorch's products of bf16."""
    if not BF16:
        print('\nbf16: not measured, this processor has no instructions for it')
        return
    python, version = python_with('torch')
    heading('bf16, y = x W\', %d threads: GFLOP/s' % THREADS, 'ours', 'PyTorch %s, W in bf16' % (version or ''))

    def lines(*part):
        said = call(['build/tests/bench'] + list(part) + ['--threads', str(THREADS), '--runs', '5'], environment('ours', THREADS))
        return [line.split() for line in said.split('\n') if ' y = x W\' ' in line]

    def ours():                             # by shape and type of W
        stored = {('x'.join(w[:3]), w[8]): float(w[10]) for w in lines('nf4', '--rows', '512') if w[9] == 'bf16'}
        stored.update({('x'.join(w[:3]), 'floats'): float(w[8]) for w in lines('products', '--compute', 'bf16', '--quick') if w[0] != '16'})
        return stored
    mine = ours()
    shapes_ = sorted({shape for shape, _ in mine})
    theirs = lambda: json.loads(call([python, '-c', PEER_BF16, str(THREADS)] + shapes_, environment('tuned', THREADS)))
    a, b = rounds(o.rounds, ours, theirs) if python else (rounds(o.rounds, ours)[0], None)
    for shape, kind in sorted(mine):
        row('%s, W in %s' % (shape.replace('x', ' '), kind), [x[shape, kind] for x in a], [x[shape] for x in b] if python else 'not installed', False)


# ---- a policy that writes ----

def part_writing(o):
    """The bound of memory takes the place of llama2.c and llama.cpp, for which there are no packages."""
    folder = shapes('stories15m', '--policy', '--dim', 288, '--layers', 6, '--heads', 6, '--ffn', 768, '--vocab', 32000, '--positions', 256, '--tied',
                    '--no-eos', '--dtype', 'f32')
    quick = ['--quick'] if o.quick else []
    tail = lambda said: said[said.index('\n\n') + 1:].rstrip()
    print(tail(call(['build/tests/bench', 'generate', '--policy', folder, '--tokens', '255'] + quick, environment('ours'))), flush=True)
    if o.long:
        print(tail(call(['build/tests/bench', 'generate', '--policy', tinyllama(), '--nf4', '--tokens', '32', '--quick', '--runs', '3'] +
                        HALF, environment('ours'))), flush=True)


# ---- tokenizers ----

PEER_PIECES = r'''
import json, sys, time, sentencepiece
sp = sentencepiece.SentencePieceProcessor(model_file=sys.argv[1])
line, t, u = open(sys.argv[2], encoding='utf-8').read().split('\n')[:-1], [], []
size = sum(len(x.encode()) + 1 for x in line)
for k in range(3):
    begin = time.perf_counter()
    ids = sp.encode(line, num_threads=1)
    t.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    sp.decode(ids)
    u.append(time.perf_counter() - begin)
print(json.dumps([size / 1e6 / sorted(t)[1], size / 1e6 / sorted(u)[1], sum(map(len, ids))]))
'''


def reviews_text():
    """Returns four megabytes of reviews, one on each line."""
    path, source = os.path.join(KEPT, 'reviews.txt'), os.path.join(SHARED, 'data', 'imdb', 'train.jsonl')
    if not os.path.exists(path):
        if not os.path.exists(source):
            return None
        os.makedirs(KEPT, exist_ok=True)
        left = 3990000
        with open(source, encoding='utf-8') as f, open(path, 'w', encoding='utf-8') as out:
            for line in f:
                text = ' '.join(json.loads(line)['text'].split()) + '\n'
                left -= len(text.encode())
                if left < 0:
                    break
                out.write(text)
    return path


def part_tokenizers(o):
    python, version = python_with('sentencepiece')
    text, folder = reviews_text(), os.path.join(SHARED, 'data', 'tokenizers')
    heading('reviews into tokens and back, one thread: MB/s', 'ours', 'sentencepiece %s' % (version or ''))
    if not text or not os.path.isdir(folder):
        print('  not measured: ../shared/data/imdb and ../shared/data/tokenizers are not here')
        return

    def ours(name):
        said = call(['build/tests/bench', 'tokenizer', '--tokenizer', os.path.join(folder, name), '--text', text, '--threads', '1', '--runs', '3'],
                    environment('ours', 1))
        word = said.split()
        after = lambda *x: float(next(word[i + len(x)] for i in range(len(word)) if word[i:i + len(x)] == list(x)))
        return after('encode', 'MB/s'), after('decode', 'MB/s'), int(after('tokens'))

    for name, model in (('llama2', 'tokenizer.model'), ('t5', 'spiece.model'), ('gpt2', None)):
        if not os.path.isdir(os.path.join(folder, name)):
            continue
        if not model or not python:
            a = rounds(o.rounds, lambda: ours(name))[0]
            row(name + ', encode', [x[0] for x in a], 'not installed' if model else '-')
            row(name + ', decode', [x[1] for x in a], 'not installed' if model else '-')
            continue
        a, b = rounds(o.rounds, lambda: ours(name), lambda: json.loads(call([python, '-c', PEER_PIECES, os.path.join(folder, name, model), text])))
        note = None if a[0][2] == b[0][2] else 'TOKENS DIFFER: %d, %d' % (a[0][2], b[0][2])
        row(name + ', encode', [x[0] for x in a], [x[0] for x in b], False, note)
        row(name + ', decode', [x[1] for x in a], [x[1] for x in b], False)


# ---- threads ----

def part_scaling(o):
    """Whole steps on one thread and on all; the smallest model also while another process keeps one processor busy."""
    if THREADS < 2:
        print('\nscaling: there is one processor')
        return
    heading('threads: s a step', '%d threads' % THREADS, '1 thread')
    words = tokenizer(4096)
    policy = shapes('policy-4096', '--policy', '--dim', 288, '--layers', 6, '--heads', 6, '--ffn', 768, '--vocab', 4096, '--positions', 256,
                    '--tied', '--no-eos', '--dtype', 'f32', '--tokenizer', words)
    reward = shapes('judge-4096', '--reward', '--dim', 256, '--layers', 4, '--heads', 4, '--ffn', 1024, '--vocab', 4096, '--positions', 258,
                    '--dtype', 'f32', '--tokenizer', words)
    small = shapes('policy-small', '--policy', '--dim', 64, '--layers', 2, '--heads', 2, '--ffn', 176, '--vocab', 2048, '--positions', 64,
                   '--tied', '--no-eos', '--dtype', 'f32', '--tokenizer', 'data/policy')
    tiny = lambda threads: our_step(small, 'data/reward', 32, 8, 8, 16, 4, threads, ['--label', 'positive'])['total']
    for what, step in (('dim 288, vocab 4096, 64 x (8 + 24)', lambda n: our_step(policy, reward, 64, 16, 8, 24, 4, n)['total']),
                       ('./ppo data/imdb.bin', lambda n: our_step(None, None, 0, 0, 0, 0, 0, n)['total']),
                       ('dim 64, 2 layers, 32 x (8 + 16)', tiny)):
        row(what, *rounds(o.rounds, lambda: step(THREADS), lambda: step(1)))
    last = max(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 0
    busy = subprocess.Popen([sys.executable, '-c', 'import os\nif hasattr(os, "sched_setaffinity"): os.sched_setaffinity(0, {%d})\nwhile True: pass' % last])
    try:
        taken = rounds(o.rounds, lambda: tiny(THREADS))[0]
    finally:
        busy.kill()
        busy.wait()
    row('  the same, another process on one processor', taken, rounds(o.rounds, lambda: tiny(1))[0])


PARTS = { 'bf16': part_bf16, 'ppo': part_ppo, 'default': part_default, 'judge': part_judge, 'writing': part_writing, 'tokenizers': part_tokenizers,
          'scaling': part_scaling, 'gpt2': part_gpt2, 'qwen': part_qwen, 'qlora': part_qlora }


class Options:
    def __init__(self, words):
        self.long, self.quick, self.rounds = '--long' in words, '--quick' in words, 0
        self.parts, self.rest = [w for w in words if w in PARTS], [w for w in words if w not in PARTS and w != '--long']
        if '--rounds' in self.rest:
            i = self.rest.index('--rounds')
            self.rounds = int(self.rest[i + 1])
            del self.rest[i:i + 2]
        self.rounds = self.rounds or (1 if self.quick else 3)


def main():
    o = Options(sys.argv[1:])
    if '--help' in o.rest or '-h' in o.rest:
        print(__doc__)
    if not o.parts or any(w in C_PARTS for w in o.rest) or '--help' in o.rest:
        e = dict(os.environ)
        if 'avx512f' in FLAGS:
            e.setdefault('OPENBLAS_CORETYPE', 'SkylakeX')   # Debian's OpenBLAS would choose older kernels
        code = subprocess.run(PREFIX + ['build/tests/bench'] + o.rest, cwd=ROOT, env=e).returncode
        if code or '--help' in o.rest or (not o.parts and any(w in C_PARTS for w in o.rest)):
            return code
    failed = 0
    for name in o.parts or PARTS:
        try:
            PARTS[name](o)
        except (RuntimeError, OSError, ValueError, IndexError) as e:
            failed = 1
            print('%s: %s' % (name, e), flush=True)
    return failed


if __name__ == '__main__':
    sys.exit(main())
