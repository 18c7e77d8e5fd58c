"""tokenizer_sp.py [HELPER] - our SentencePiece against the sentencepiece library: a model that we trained, variants of it, and real models.

HELPER (build/tests/tokenizer) trains a model on 10,000 texts: reviews of ../shared, or made-up ones without it. The library has to read
it and to give the same ids for each text, and the same text for the ids and for random ids. Then the same with variants of the model
(user-defined, unused and control pieces, no byte fallback, each flag of the normaliser turned over) on stranger texts, and with every
BPE model of ../shared. Needs Python 3 and the sentencepiece module, nothing else; skips without the module. Last line: the counts."""
import json, os, random, subprocess, sys, tempfile

HELPER = sys.argv[1] if len(sys.argv) > 1 else "build/tests/tokenizer"
SHARED = os.environ.get("SHARED", "../shared")
counts = {"passed": 0, "failed": 0, "skipped": 0}


def check(good, name):
    counts["passed" if good else "failed"] += 1
    if not good or os.environ.get("VERBOSE"):
        print("  %s  %s" % ("ok  " if good else "FAIL", name))


def skip(name):
    counts["skipped"] += 1
    print("  skip  " + name)


def end():
    print("tokenizer_sp: %(passed)d passed, %(failed)d failed, %(skipped)d skipped" % counts)
    sys.exit(counts["failed"] != 0)


def helper(arguments, lines):
    run = subprocess.run([HELPER] + arguments, input="".join(l + "\n" for l in lines).encode(), stdout=subprocess.PIPE, check=True)
    return run.stdout.decode().split("\n")[:-1]


# ---- texts ----
def reviews(n):
    try:
        with open(os.path.join(SHARED, "data/imdb/train.jsonl"), "rb") as f:
            return [json.loads(next(f))["text"][:700] for _ in range(n)]
    except (OSError, StopIteration):
        word = ["".join(random.choice("etaoinshrdlu") for _ in range(random.randint(1, 9))) for _ in range(2000)]
        return [" ".join(random.choice(word) + random.choice(["", "", "", ",", ".", "!\n"]) for _ in range(60)) for _ in range(n)]


def strange(n, seeds):
    alphabet = [" ", " ", "  ", "\n", "\t", "\u2581", "\u00a0", "\u3000", "e", "t", "the", " the", "ing", "aaaa", "1", "42", "<s>", "</s>", "<unk>",
                "<0x41>", "<sep>", "ab", "abc", "abcd", "foo", " foo", "\u00e9", "e\u0301", "\uff21", "\u4e2d", "\U0001f600", "\ufffd", "\0", "\x7f", "'", ".", "!!"]
    out = ["", " ", "  ", "a", " a ", "\u2581", "\u2581\u2581a"]
    while len(out) < n:
        s = "".join(random.choice(alphabet) for _ in range(random.randint(1, 30)))
        t = random.choice(seeds)
        at = random.randrange(len(t) + 1)
        out.append(random.choice([s, t[at:at + 80], t[at:at + 40] + s]))
    return out


# ---- the protocol buffer, as far as it is needed ----
def varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out) + bytes([n])


def fields(b):
    """[(number, wire, value)]"""
    out, at = [], 0

    def number():
        nonlocal at
        n = shift = 0
        while True:
            c = b[at]
            at += 1
            n |= (c & 127) << shift
            shift += 7
            if c < 128:
                return n
    while at < len(b):
        key = number()
        if key & 7 == 0:
            value = number()
        else:
            size = number() if key & 7 == 2 else 8 if key & 7 == 1 else 4
            value = b[at:at + size]
            at += size
        out.append((key >> 3, key & 7, value))
    return out


def message(list_):
    return b"".join(varint(n << 3 | w) + (varint(v) if w == 0 else (varint(len(v)) if w == 2 else b"") + v) for n, w, v in list_)


NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)


def variant(model, types=None, extra=(), trainer=(), normalizer=()):
    """The model with other types of pieces (a function of id, text and type), more pieces (or other types of those that exist), more
    fields in its specifications."""
    out, i = [], 0
    extra = dict(extra)
    for n, w, v in fields(model):
        if n == 1:
            piece = fields(v)
            text, kind = [x for k, _, x in piece if k == 1][0], ([x for k, _, x in piece if k == 3] + [NORMAL])[0]
            text = text.decode("utf-8", "replace")
            kind = types(i, text, kind) if types else kind
            if kind == NORMAL and extra.get(text, CONTROL) != CONTROL:
                kind = extra.pop(text)
            v = message(piece + [(3, 0, kind)])
            i += 1
        elif n == 2:
            v += message(trainer)
        elif n == 3:
            v += message(normalizer)
        out.append((n, w, v))
    return message(out + [(1, 2, message([(1, 2, t.encode()), (2, 5, b"\0\0\0\0"), (3, 0, kind)])) for t, kind in extra.items()])


# ---- ours against theirs ----
def differences(path, texts, name):
    theirs = sentencepiece.SentencePieceProcessor()
    theirs.Load(path)                                   # raises when the library does not take it
    ours = [[int(x) for x in l.split()] for l in helper(["encode", path], [json.dumps({"text": t}) for t in texts])]
    wanted = [theirs.EncodeAsIds(t) for t in texts]
    wrong = [i for i in range(len(texts)) if i >= len(ours) or ours[i] != wanted[i]]
    for i in wrong[:3]:
        print("        %s: %r\n        ours %s, theirs %s" % (name, texts[i][:200], ours[i][:40] if i < len(ours) else None, wanted[i][:40]))
    check(not wrong and len(ours) == len(texts), "%s: %d texts, other ids for %d" % (name, len(texts), len(wrong)))
    V = theirs.GetPieceSize()
    ids = wanted + [[random.randrange(V if random.random() < 0.5 else min(V, 300)) for _ in range(random.randint(0, 20))] for _ in range(2000)]
    ours = [json.loads(l) for l in helper(["decode", path], [" ".join(map(str, i)) for i in ids])]
    wanted = [theirs.DecodeIds(i) for i in ids]
    wrong = [i for i in range(len(ids)) if i >= len(ours) or ours[i] != wanted[i]]
    for i in wrong[:3]:
        print("        %s: %s\n        ours %r, theirs %r" % (name, ids[i][:40], ours[i][:80] if i < len(ours) else None, wanted[i][:80]))
    check(not wrong and len(ours) == len(ids), "%s: %d lists of ids, another text for %d" % (name, len(ids), len(wrong)))


random.seed(1)
try:
    import sentencepiece
except ImportError:
    skip("this Python has no sentencepiece module")
    end()
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "tokenizer.model")
    texts = reviews(10000)
    helper(["train", path, "1024"], [json.dumps({"text": t}) for t in texts])
    differences(path, texts, "a model trained by us")
    odd = strange(2000, texts)
    differences(path, odd, "the same, strange texts")
    with open(path, "rb") as f:
        model = f.read()
    more = [("<sep>", USER), ("abc", USER), ("ab", USER), ("\u2581foo", USER), ("[X]", CONTROL), ("<pad>", CONTROL), ("aaaa", UNUSED)]
    whole = lambda i, text, kind: UNUSED if kind == NORMAL and i % 3 and len(text) > 1 else kind
    variants = {
        "user-defined pieces": variant(model, extra=more),
        "unused pieces": variant(model, types=whole),
        "no byte fallback": variant(model, types=lambda i, text, kind: NORMAL if kind == BYTE else kind, trainer=[(35, 0, 0)]),
        "no dummy prefix": variant(model, normalizer=[(3, 0, 0)], extra=more),
        "extra spaces removed": variant(model, normalizer=[(4, 0, 1)], extra=more),
        "spaces removed, no prefix": variant(model, normalizer=[(3, 0, 0), (4, 0, 1)]),
        "spaces not escaped": variant(model, normalizer=[(5, 0, 0)], extra=[(" ", NORMAL), ("e ", NORMAL), (" t", NORMAL)]),
        "space as a suffix": variant(model, trainer=[(24, 0, 1)], extra=more),
        "suffix, spaces removed": variant(model, trainer=[(24, 0, 1)], normalizer=[(4, 0, 1)]),
        "another unknown surface": variant(model, trainer=[(44, 2, b"?!")]),
    }
    for name, bytes_ in variants.items():
        with open(path, "wb") as f:
            f.write(bytes_)
        differences(path, odd, name)
    for name in ["tokenizers/llama2/tokenizer.model", "tokenizers/mistral/tokenizer.model", "stories260K/tokenizer.model",
                 "tokenizers/other/hf_test_sentencepiece_bpe.model"]:
        path = os.path.join(SHARED, "data", name)
        if os.path.exists(path):
            differences(path, odd, name)
        else:
            skip(name)
end()
