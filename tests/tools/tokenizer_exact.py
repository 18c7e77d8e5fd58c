"""tokenizer_exact.py [--strings N] [--seed S] [--reviews N] MODEL ... - our ids against the sentencepiece
library's, on many texts.

For each model: the reviews of ../shared/data/imdb, then N random strings (invalid UTF-8, all code points,
long runs of one character, pieces of the model glued together). Needs build/tests/tokenizer (`make test`
builds it), Python 3 and the sentencepiece module. It is no part of `make test`, which has a sample of it
in tokenizer_sp.py: a million strings take some minutes. Without MODEL: Llama 2, T5, ALBERT of ../shared."""
import argparse, array, json, os, random, struct, subprocess, sys, time
import sentencepiece

SHARED = os.environ.get("SHARED", "../shared")
TOKENIZERS = os.path.join(SHARED, "data/tokenizers")


REPEATED = [b" ", b"a", b"\xe2\x96\x81", b"e\xcc\x81", b"\xc3\xa9", b"!", b"1", b"ab", b"=", b"\n"]
ODD = [b" ", b"  ", b"</s>", b"<unk>", b"<0x41>", b"\0", b"\xef\xbc\xa1", b"\xe3\x82\xab\xe3\x82\x99",
       b"\xc2\xa0", b"\xe2\x80\x8b"]
MODELS = ["llama2/tokenizer.model", "t5/spiece.model", "other/albert_spiece.model"]


def random_string(r, pieces):
    """Glues 1 to 12 parts of different kinds together."""
    out = bytearray()
    for _ in range(r.randint(1, 12)):
        kind = r.random()
        if kind < 0.35:
            out += r.choice(pieces)
        elif kind < 0.5:
            out += bytes(r.randrange(256) for _ in range(r.randint(1, 6)))
        elif kind < 0.65:
            code = lambda: r.choice([r.randrange(0xD800), r.randrange(0xE000, 0x110000), r.randrange(0x250)])
            out += "".join(chr(code()) for _ in range(r.randint(1, 6))).encode()
        elif kind < 0.8:
            out += bytes(r.choice(b"etaoin shrdlu,.'  \n\t0123EAT") for _ in range(r.randint(1, 20)))
        elif kind < 0.9:
            out += r.choice(REPEATED) * r.randint(1, 60 if kind < 0.898 else 2000)
        else:
            out += r.choice(ODD)
    return bytes(out)


class Ours:
    def __init__(self, model):
        self.run = subprocess.Popen(["build/tests/tokenizer", "stream", model],
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ids(self, texts):
        """Returns the ids of each text; sends one text at a time, so that neither side waits for the
        other."""
        out = []
        for text in texts:
            self.run.stdin.write(struct.pack("<I", len(text)) + text)
            self.run.stdin.flush()
            n, = struct.unpack("<I", self.run.stdout.read(4))
            out.append(array.array("i", self.run.stdout.read(4 * n)).tolist())
        return out


def compare(name, theirs, ours, texts):
    """Counts the texts that get other ids, and shows the first three."""
    wrong = 0
    for text, got in zip(texts, ours.ids(texts)):
        wanted = theirs.EncodeAsIds(text)
        if got != wanted:
            wrong += 1
            if wrong <= 3:
                print("  %s: %r\n    ours   %s\n    theirs %s" % (name, text[:200], got[:40], wanted[:40]))
    return wrong


a = argparse.ArgumentParser()
a.add_argument("--strings", type=int, default=1000000)
a.add_argument("--reviews", type=int, default=25000)
a.add_argument("--seed", type=int, default=1)
a.add_argument("model", nargs="*")
a = a.parse_args()
failed = 0
for path in a.model or [os.path.join(TOKENIZERS, m) for m in MODELS]:
    theirs = sentencepiece.SentencePieceProcessor(model_file=path)
    pieces = [theirs.IdToPiece(i).replace("\u2581", " ").encode() for i in range(theirs.GetPieceSize())]
    ours = Ours(path)
    began, done, wrong = time.time(), 0, 0
    with open(os.path.join(SHARED, "data/imdb/train.jsonl"), "rb") as f:
        for line in f:
            if done == a.reviews:
                break
            wrong += compare(path, theirs, ours, [json.loads(line)["text"].encode()])
            done += 1
    print("%s: %d reviews, %d differ, %.0f s" % (path, done, wrong, time.time() - began), flush=True)
    r = random.Random(a.seed)
    bad = 0
    for done in range(1, a.strings + 1):
        bad += compare(path, theirs, ours, [random_string(r, pieces)])
        if done % 50000 == 0 or done == a.strings:
            seconds = time.time() - began
            print("%s: %d random strings, %d differ, %.0f s" % (path, done, bad, seconds), flush=True)
    failed += wrong + bad
sys.exit(failed != 0)
