"""tokenizer_sp.py [HELPER] - our tokenizers against the sentencepiece library and against Unicode's own
data.

WordPiece: a vocabulary made here, code points between letters, and strange texts, against BERT's rules
written down in Python (whose Unicode has to be 14.0.0). Takes code points of which Unicode 3.2 and 14.0 say
the same: all of them if the sentencepiece module is there, otherwise those of the first two planes and a
sample of the others.

SentencePiece: HELPER (build/tests/tokenizer) trains a model on 10,000 texts: reviews of ../shared, or
made-up ones without it. The library has to read it and to give the same ids for each text, and the same
text for the ids and for random ids. Then the same with variants of the model (user-defined, unused and
control pieces, no byte fallback, each flag of the normaliser turned over) on stranger texts, and with
every BPE model of ../shared. Where each id comes from has to lie within what the library says. T5's and
ALBERT's models are turned into a tokenizer.json, as Hugging Face has them, which gives the library's ids
where both agree by definition. Skips all this without the sentencepiece module. Last line: the counts."""
import base64, json, os, random, struct, subprocess, sys, tempfile, unicodedata

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
    """Runs the helper on lines of input; returns its lines of output."""
    run = subprocess.run([HELPER] + arguments, input="".join(l + "\n" for l in lines).encode(),
                         stdout=subprocess.PIPE, check=True)
    return run.stdout.decode().split("\n")[:-1]


# ---- texts ----
def reviews(n):
    try:
        with open(os.path.join(SHARED, "data/imdb/train.jsonl"), "rb") as f:
            return [json.loads(next(f))["text"][:700] for _ in range(n)]
    except (OSError, StopIteration):
        letters = "etaoinshrdlu"
        word = ["".join(random.choice(letters) for _ in range(random.randint(1, 9))) for _ in range(2000)]
        ends = ["", "", "", ",", ".", "!\n"]
        return [" ".join(random.choice(word) + random.choice(ends) for _ in range(60)) for _ in range(n)]


def strange(n, seeds):
    alphabet = [" ", " ", "  ", "\n", "\t", "\u2581", "\u00a0", "\u3000", "e", "t", "the", " the", "ing",
                "aaaa", "1", "42", "<s>", "</s>", "<unk>", "<0x41>", "<sep>", "ab", "abc", "abcd", "foo",
                " foo", "\u00e9", "e\u0301", "\uff21", "\u4e2d", "\U0001f600", "\ufffd", "\0", "\x7f",
                "'", ".", "!!"]
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
    return b"".join(varint(n << 3 | w) + (varint(v) if w == 0 else (varint(len(v)) if w == 2 else b"") + v)
                    for n, w, v in list_)


NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)


def variant(model, types=None, extra=(), trainer=(), normalizer=()):
    """Changes a model: other types of pieces (a function of id, text and type), more pieces (or other
    types of those that exist), more fields in its specifications."""
    out, i = [], 0
    extra = dict(extra)
    for n, w, v in fields(model):
        if n == 1:
            piece = fields(v)
            text = [x for k, _, x in piece if k == 1][0].decode("utf-8", "replace")
            kind = ([x for k, _, x in piece if k == 3] + [NORMAL])[0]
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
    return message(out + [(1, 2, message([(1, 2, t.encode()), (2, 5, b"\0\0\0\0"), (3, 0, kind)]))
                          for t, kind in extra.items()])


# ---- ours against theirs ----
def encoded(path, texts, command="encode"):
    """Returns our ids (or ids and spans) of texts."""
    lines = helper([command, path], [json.dumps({"text": t}) for t in texts])
    return [[int(x) for x in l.split()] for l in lines]


def differences(path, texts, name):
    """Checks that both encode texts alike, and decode these ids and random ones alike."""
    theirs = sentencepiece.SentencePieceProcessor()
    theirs.Load(path)                                   # raises when the library does not take it
    ours = encoded(path, texts)
    wanted = [theirs.EncodeAsIds(t) for t in texts]
    wrong = [i for i in range(len(texts)) if i >= len(ours) or ours[i] != wanted[i]]
    for i in wrong[:3]:
        print("        %s: %r\n        ours %s, theirs %s" %
              (name, texts[i][:200], ours[i][:40] if i < len(ours) else None, wanted[i][:40]))
    check(not wrong and len(ours) == len(texts),
          "%s: %d texts, other ids for %d" % (name, len(texts), len(wrong)))
    V = theirs.GetPieceSize()
    ids = wanted + [[random.randrange(V if random.random() < 0.5 else min(V, 300))
                     for _ in range(random.randint(0, 20))] for _ in range(2000)]
    ours = [json.loads(l) for l in helper(["decode", path], [" ".join(map(str, i)) for i in ids])]
    wanted = [theirs.DecodeIds(i) for i in ids]
    wrong = [i for i in range(len(ids)) if i >= len(ours) or ours[i] != wanted[i]]
    for i in wrong[:3]:
        print("        %s: %s\n        ours %r, theirs %r" %
              (name, ids[i][:40], ours[i][:80] if i < len(ours) else None, wanted[i][:80]))
    check(not wrong and len(ours) == len(ids),
          "%s: %d lists of ids, another text for %d" % (name, len(ids), len(wrong)))


def spans(path, texts, name):
    """Checks that our exact spans lie within theirs, which also have the white space that is dropped, and
    that each byte of the text that is no white space is in a span."""
    theirs = sentencepiece.SentencePieceProcessor(model_file=path)
    ours = encoded(path, texts, "spans")
    wrong = exact = all_ = 0
    for t, row in zip(texts, ours):
        got = list(zip(row[0::4], row[1::4], row[2::4], row[3::4]))
        proto = [{k: x for k, _, x in fields(v)}
                 for n, _, v in fields(theirs.EncodeAsSerializedProto(t)) if n == 2]
        wanted = [[p.get(2, 0), p.get(4, 0), p.get(5, 0)] for p in proto]
        # Of the bytes of a character, the library gives all to the last.
        for k in range(len(wanted) - 2, -1, -1):
            if wanted[k][1] == wanted[k][2] == wanted[k + 1][1]:
                wanted[k][2] = wanted[k + 1][2]
        good = [g[0] for g in got] == [w[0] for w in wanted]
        good = good and all(w[1] <= g[1] <= g[2] <= w[2] for g, w in zip(got, wanted) if g[3])
        seen = bytearray(len(t.encode()))
        for _, a, b, _ in got:
            seen[a:b] = b"x" * (b - a)
        good = good and not any(c > 32 and not s for c, s in zip(t.encode(), seen) if c < 127)
        if not good and wrong < 3:
            print("        %r\n        ours   %s\n        theirs %s" % (t[:100], got[:20], wanted[:20]))
        wrong += not good
        exact += sum(g[3] for g in got)
        all_ += len(got)
    check(not wrong and len(ours) == len(texts) and exact > 0.98 * all_,
          "%s: where the ids of %d texts come from, %d wrong; %d of %d exact" %
          (name, len(texts), wrong, exact, all_))


# ---- tokenizer.json of a unigram model, as Hugging Face converts it ----
def as_json(model, albert):
    vocab, charsmap = [], b""
    for n, _, v in fields(model):
        part = {k: x for k, _, x in fields(v)} if n in (1, 3) else {}
        if n == 1:
            vocab.append([part[1].decode(), struct.unpack("<f", part.get(2, b"\0\0\0\0"))[0]])
        elif n == 3:
            charsmap = part[2]
    ids = {p: i for i, (p, _) in enumerate(vocab)}
    special = ["<pad>", "<unk>", "[CLS]", "[SEP]"] if albert else ["<pad>", "</s>", "<unk>"]
    text, first, last = {"Sequence": {"id": "A", "type_id": 0}}, "[CLS]", "[SEP]" if albert else "</s>"
    single = [text, {"SpecialToken": {"id": last, "type_id": 0}}]
    if albert:
        single = [{"SpecialToken": {"id": first, "type_id": 0}}] + single
    tokens = {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in {first, last} & set(ids)}
    meta = {"type": "Metaspace", "replacement": "\u2581", "add_prefix_space": True}
    replace = lambda a, b: {"type": "Replace", "pattern": {"String": a}, "content": b}
    rules = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()}
    steps = [rules]
    if albert:
        steps = [replace("``", '"'), replace("''", '"'), {"type": "NFKD"}, {"type": "StripAccents"},
                 {"type": "Lowercase"}, rules]
    added = [{"id": ids[t], "content": t, "special": True, "normalized": False} for t in special]
    return {"added_tokens": added,
            "normalizer": {"type": "Sequence", "normalizers": steps},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, meta]},
            "post_processor": {"type": "TemplateProcessing", "single": single, "special_tokens": tokens},
            "decoder": meta, "model": {"type": "Unigram", "unk_id": ids["<unk>"], "vocab": vocab}}


def unigram_json(folder, path, albert, texts):
    """Checks texts of printable characters that stand alone: there the two agree, except if two
    segmentations are as good as each other (floats there, doubles here, which round otherwise)."""
    with open(path, "rb") as f:
        converted = as_json(f.read(), albert)
    place = os.path.join(folder, "tokenizer.json")
    with open(place, "w") as f:
        json.dump(converted, f)
    theirs = sentencepiece.SentencePieceProcessor(model_file=path)
    wanted = []
    for t in texts:
        if albert:
            t = unicodedata.normalize("NFKD", t.replace("``", '"').replace("''", '"'))
            t = "".join(c for c in t if not unicodedata.category(c).startswith("M")).lower()
        wanted.append(theirs.EncodeAsIds(t))
    ours = encoded(place, texts)
    score = lambda ids: sum(theirs.GetScore(i) for i in ids)
    differ = [i for i in range(len(texts)) if i >= len(ours) or ours[i] != wanted[i]]
    worse = [i for i in differ if i >= len(ours) or abs(score(ours[i]) - score(wanted[i])) > 1e-3 or
             theirs.DecodeIds(ours[i]) != theirs.DecodeIds(wanted[i])]
    for i in worse[:3]:
        k = next((k for k, (a, b) in enumerate(zip(ours[i], wanted[i])) if a != b), 0)
        print("        %s\n        %s" % ([theirs.IdToPiece(x) for x in ours[i][k:k + 8]],
                                         [theirs.IdToPiece(x) for x in wanted[i][k:k + 8]]))
    check(not worse and len(differ) < len(texts) // 20,
          "%s as tokenizer.json: %d texts, %d cut otherwise, %d of them not as well" %
          (os.path.basename(path), len(texts), len(differ), len(worse)))


# ---- WordPiece, from Unicode's own data ----
def ideograph(c):
    return any(a <= c <= b for a, b in (
        (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
        (0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)))


def white(c):
    return c in "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" or "\u2000" <= c <= "\u200a"


def long_known(c):
    """Returns whether Unicode 3.2 and 14.0 agree on a character: then 8.0, which decides for BERT, is taken
    to agree, too. U+A7DC is a capital letter since Unicode 16.0. tests/unit/unicode.c has every character."""
    return unicodedata.category(c) == unicodedata.ucd_3_2_0.category(c) != "Cs" and c != "\ua7dc"


def bert_words(text, lower):
    out = ""
    for c in text:
        if c in "\0\ufffd" or (c not in "\t\n\r" and unicodedata.category(c) in ("Cc", "Cf", "Co")):
            continue
        out += " " if white(c) else " %s " % c if ideograph(ord(c)) else c
    if lower:
        out = "".join(c.lower() for c in unicodedata.normalize("NFD", out) if unicodedata.category(c) != "Mn")
    words = [""]
    for c in out:
        if white(c):
            words.append("")
        elif unicodedata.category(c)[0] == "P" or c in "$+<=>^`|~":
            words += [c, ""]
        else:
            words[-1] += c
    return [w for w in words if w]


def bert_ids(vocab, text, lower):
    ids = []
    for w in bert_words(text, lower):
        at, got = 0, []
        while at < len(w) <= 100:
            end = next((e for e in range(len(w), at, -1) if ("##" if at else "") + w[at:e] in vocab), at)
            if end == at:
                break
            got.append(vocab[("##" if at else "") + w[at:end]])
            at = end
        ids += got if at == len(w) else [vocab["[UNK]"]]
    return ids


def stream(path, texts):
    data = b"".join(struct.pack("<I", len(t)) + t for t in texts)
    out = subprocess.run([HELPER, "stream", path], input=data, stdout=subprocess.PIPE).stdout
    at, rows = 0, []
    while at < len(out):
        n, = struct.unpack_from("<I", out, at)
        rows.append(list(struct.unpack_from("<%di" % n, out, at + 4)))
        at += 4 + 4 * n
    return rows


def wordpiece(folder, seeds, step):
    """Compares on code points (beyond the second plane one of `step`) and on strange texts."""
    if unicodedata.unidata_version != "14.0.0":
        return skip("WordPiece: this Python has Unicode %s, not 14.0.0" % unicodedata.unidata_version)
    if struct.pack("=I", 1) != struct.pack("<I", 1):
        return skip("WordPiece: not a little-endian machine")
    letters = [chr(c) for c in range(33, 0x250)] + [chr(random.randrange(0x250, 0x30000)) for _ in range(300)]
    words = [w for t in seeds[:300] for w in bert_words(t, random.random() < 0.8)]
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab += [p + unicodedata.normalize(f, c) for c in letters for p in ("", "##") for f in ("NFC", "NFD")]
    vocab += [w[:n] for w in words for n in (2, 4, 99)]
    vocab += ["##" + w[n:] for w in words for n in (1, 2, 3) if w[n:]]
    vocab = list(dict.fromkeys(v for v in vocab if v.strip() == v and v and not any(white(c) for c in v)))
    path = os.path.join(folder, "vocab.txt")
    with open(path, "w", encoding="utf-8", errors="surrogatepass", newline="\n") as f:
        f.write("\n".join(vocab) + "\n")
    ids = {v: i for i, v in enumerate(vocab)}
    # Every code point between letters: only NFD sorts combining characters that are next to each other.
    codes = [c for c in range(1, 0x110000) if (c < 0x20000 or c % step == 0) and long_known(chr(c))]
    texts = ["a%sb%sC" % (chr(c), chr(c)) for c in codes]
    texts += strange(3000, seeds) + seeds[:1000]
    got = stream(path, [t.encode() for t in texts])
    wrong = [t for i, t in enumerate(texts) if i >= len(got) or got[i] != bert_ids(ids, t, True)]
    for t in wrong[:3]:
        print("        %r %s" % (t[:80], bert_words(t, True)[:20]))
    check(not wrong and len(got) == len(texts),
          "WordPiece: %d texts, with %d code points; %d differ" % (len(texts), len(codes), len(wrong)))


try:
    import sentencepiece
except ImportError:
    sentencepiece = None
random.seed(1)
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "tokenizer.model")
    texts = reviews(10000)
    wordpiece(folder, texts, 1 if sentencepiece else 64)
    if not sentencepiece:
        skip("SentencePiece: this Python has no sentencepiece module")
        end()
    helper(["train", path, "1024"], [json.dumps({"text": t}) for t in texts])
    differences(path, texts, "a model trained by us")
    odd = strange(2000, texts)
    differences(path, odd, "the same, strange texts")
    with open(path, "rb") as f:
        model = f.read()
    more = [("<sep>", USER), ("abc", USER), ("ab", USER), ("\u2581foo", USER), ("[X]", CONTROL),
            ("<pad>", CONTROL), ("aaaa", UNUSED)]
    whole = lambda i, text, kind: UNUSED if kind == NORMAL and i % 3 and len(text) > 1 else kind
    plain = lambda i, text, kind: NORMAL if kind == BYTE else kind
    variants = {
        "user-defined pieces": variant(model, extra=more),
        "unused pieces": variant(model, types=whole),
        "no byte fallback": variant(model, types=plain, trainer=[(35, 0, 0)]),
        "no dummy prefix": variant(model, normalizer=[(3, 0, 0)], extra=more),
        "extra spaces removed": variant(model, normalizer=[(4, 0, 1)], extra=more),
        "spaces removed, no prefix": variant(model, normalizer=[(3, 0, 0), (4, 0, 1)]),
        "spaces not escaped": variant(model, normalizer=[(5, 0, 0)],
                                      extra=[(" ", NORMAL), ("e ", NORMAL), (" t", NORMAL)]),
        "space as a suffix": variant(model, trainer=[(24, 0, 1)], extra=more),
        "suffix, spaces removed": variant(model, trainer=[(24, 0, 1)], normalizer=[(4, 0, 1)]),
        "another unknown surface": variant(model, trainer=[(44, 2, b"?!")]),
    }
    for name, bytes_ in variants.items():
        with open(path, "wb") as f:
            f.write(bytes_)
        differences(path, odd, name)
    helper(["train-unigram", path, "1024"], [json.dumps({"text": t}) for t in texts])
    differences(path, texts[:3000] + odd, "a unigram model trained by us")
    with open(path, "rb") as f:
        model = f.read()
    variants = {
        "unigram, user-defined pieces": variant(model, extra=more),
        "unigram, unused pieces": variant(model, types=whole),
        "unigram, no byte fallback": variant(model, types=plain, trainer=[(35, 0, 0)]),
        "unigram, extra spaces removed": variant(model, normalizer=[(4, 0, 1)], extra=more),
        "unigram, space as a suffix": variant(model, trainer=[(24, 0, 1)], extra=more),
    }
    for name, bytes_ in variants.items():
        with open(path, "wb") as f:
            f.write(bytes_)
        differences(path, odd, name)
    with open(path, "wb") as f:
        f.write(model)
    for name in ["tokenizers/llama2/tokenizer.model", "tokenizers/t5/spiece.model",
                 "tokenizers/other/albert_spiece.model"]:
        path = os.path.join(SHARED, "data", name)
        if os.path.exists(path):
            spans(path, odd + texts[:1000], name)
            if "spiece" in name:
                printable = lambda c: c in " \n" or "!" <= c <= "~" or "\xa1" <= c <= "\u017f"
                unigram_json(folder, path, "albert" in name, [t for t in texts if all(map(printable, t))])
        else:
            skip(name + ": spans, tokenizer.json")
    for name in ["tokenizers/llama2/tokenizer.model", "tokenizers/t5/spiece.model",
                 "tokenizers/other/albert_spiece.model", "tokenizers/other/sp_test_ja_model.model",
                 "tokenizers/mistral/tokenizer.model", "stories260K/tokenizer.model",
                 "tokenizers/other/hf_test_sentencepiece_bpe.model"]:
        path = os.path.join(SHARED, "data", name)
        if os.path.exists(path):
            differences(path, odd, name)
        else:
            skip(name)
end()
