#!/bin/sh
# tests/programs/report.sh - report.html, the page of a run: what ppo, sft and rm write while they run and at their end, `run report`
# of one run and of several, texts that try to be markup, files that are torn or another program's. BIN and RUN as in run.sh.
# The pages are parsed by Python's html.parser, where there is a python3. Last line: `report: N passed, N failed, N skipped`.
cd "$(dirname "$0")/../.." || exit 1
work=$(mktemp -d "${TMPDIR:-/tmp}/report_test.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0
ok()  { passed=$((passed + 1)); [ -z "$VERBOSE" ] || echo "  ok    $1"; }
bad() {
    failed=$((failed + 1)); echo "  FAIL  $1"
    head -n 3 "$work/out" "$work/err" 2> /dev/null | sed 's/^/        /'
}
skip() { skipped=$((skipped + 1)); echo "  skip  $1"; }
is()  { if [ $? = 0 ]; then ok "$1"; else bad "$1"; fi; }
# call PROGRAM ARGUMENT ...: sets code; what it says is in out and err
call() {
    program=$1; shift
    ${RUN:-} "${BIN:-.}/$program" "$@" > "$work/out" 2> "$work/err" < /dev/null
    code=$?
}
# has FILE TEXT ...: the file has all of these
has() { file=$1; shift; for text; do grep -qF -- "$text" "$file" || { echo "no $text in $file" > "$work/err"; return 1; }; done; }
if [ ! -e data/imdb.bin ] || [ ! -d data/policy ]; then
    skip "no data/imdb.bin"; echo "report: $passed passed, $failed failed, $skipped skipped"; exit 0
fi

# ---- a page is well-formed, complete in itself, and has no script ----
cat > "$work/page.py" <<'PY'
import html.parser, sys
class Page(html.parser.HTMLParser):
    void = {"meta", "col", "br"}
    def __init__(self): super().__init__(); self.open = []; self.faults = []
    def handle_starttag(self, tag, attributes):
        names = [name for name, value in attributes]
        if tag in ("script", "img", "link", "iframe", "a", "base", "object", "form"): self.faults.append("<%s>" % tag)
        if [n for n in names if n.startswith("on") or n in ("src", "href", "style")]: self.faults.append("%s %s" % (tag, names))
        if len(set(names)) < len(names): self.faults.append("%s twice" % names)
        if tag not in self.void: self.open.append(tag)
    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes); self.open.pop()
    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag: self.faults.append("</%s> at %s" % (tag, self.getpos()))
text = open(sys.argv[1], "rb").read().decode("utf-8")           # valid UTF-8, or an exception
page = Page(); page.feed(text); page.close()
bad = [c for c in text if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 or 0x202a <= ord(c) <= 0x202e or 0x2066 <= ord(c) <= 0x2069]
if page.open: page.faults.append("not closed: %s" % page.open)
if bad: page.faults.append("characters %r" % bad[:5])
if "http:" in text.replace("http-equiv", "") or "https:" in text or "url(" in text or "@import" in text: page.faults.append("an address")
print("; ".join(page.faults)); sys.exit(bool(page.faults))
PY
whole() {           # whole FILE: the page is one
    if command -v python3 > /dev/null; then python3 "$work/page.py" "$1" > "$work/out" 2> "$work/err"
    else [ "$(head -n 1 "$1")" = '<!DOCTYPE html>' ] && [ "$(tail -n 1 "$1")" = '</main></body></html>' ]; fi
}

# ---- what ppo writes ----
small="--query-min 4 --query-max 4 --response-min 8 --response-max 8 --batch-size 4 --mini-batch-size 4 --show 0"
call ppo data/imdb.bin $small --steps 3 --eval-queries 8 --out "$work/runs"
run=$work/runs/ppo-0001 page=$work/runs/ppo-0001/report.html
[ $code = 0 ] && tr -s ' \n' ' ' < "$work/out" | grep -qF "curves and all samples: $page "; is "ppo says where the page is"
whole "$page"; is "the page of ppo is well-formed, without script, without addresses"
has "$page" '<h3>Reward</h3>' '<h3>KL from the reference' '>target 6</text>' '<h3>KL coefficient' '<h3>Entropy' '<h3>Clip fraction' \
    '<h3>Value loss' '<h3>Explained variance' '<h3>Response length' '<h3>Tokens per second' '<h3>Rewards of the held-out queries' \
    'step 3 of 3' 'What gained most' 'All 8,' 'prefers-color-scheme:dark' '@media print{' 'name="viewport"' 'learning-rate</td>'
is "it has the curves, the histogram, the samples, the options"
! grep -q 'http-equiv="refresh"' "$page"; is "after the run it does not reload itself"
[ "$(grep -c '<figure>' "$page")" = "$(grep -c '<figcaption>..*</figcaption>' "$page")" ]; is "a sentence under each curve"
cp "$page" "$work/first"
call run report "$run" --show 0
[ $code = 0 ] && cmp -s "$page" "$work/first"; is "run report writes the same page"
call ppo data/imdb.bin $small --steps 0 --eval-queries 0 --out "$work/runs"
[ $code = 0 ] && whole "$work/runs/ppo-0002/report.html"; is "--steps 0: a page without curves"
call ppo data/imdb.bin $small --steps 2 --eval-queries 0 --seed 7 --out "$work/runs"

# ---- --tensorboard ----
cat > "$work/events.py" <<'PY'
# Reads files of TensorBoard, by itself and where it is installed with TensorBoard's own reader, and compares them with the numbers of
# the logs: {(step, key): value}.
import glob, json, math, struct, sys
def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for bit in range(8): crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff
def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xa282ead8) & 0xffffffff
def fields(data):
    at = 0
    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]; at += 1
            value |= (byte & 127) << shift; shift += 7
            if byte < 128: return value
    while at < len(data):
        key = varint()
        if key & 7 == 0: yield key >> 3, varint()
        else:
            size = {1: 8, 2: None, 5: 4}[key & 7]
            if size is None: size = varint()
            yield key >> 3, data[at:at + size]; at += size
seen, starts = {}, []
for path in sorted(glob.glob(sys.argv[1] + "/events.out.tfevents.*")):
    data, at = open(path, "rb").read(), 0
    while at < len(data):
        length, check = struct.unpack_from("<QI", data, at)
        event = data[at + 12:at + 12 + length]
        assert check == masked(data[at:at + 8]) and struct.unpack_from("<I", data, at + 12 + length)[0] == masked(event)
        first = at == 0
        at += 16 + length
        event = dict(fields(event))
        assert abs(struct.unpack("<d", event[1])[0] - 1.8e9) < 3e8
        if first: assert event[3] == b"brain.Event:2"
        if 7 in event:
            starts.append(event[2]); seen = {k: v for k, v in seen.items() if k[0] < event[2]}
        for number, value in fields(event.get(5, b"")):
            value = dict(fields(value))
            seen[event.get(2, 0), value[1].decode()] = struct.unpack("<f", value[2])[0]
wanted = {}
for name in ("log.jsonl", "time.jsonl"):
    for line in open(sys.argv[1] + "/" + name):
        line = json.loads(line)
        for key in line:
            if "step" in line and key != "step" and isinstance(line[key], (int, float)): wanted[line["step"], key] = line[key]
assert len(wanted) > 9 and seen.keys() == wanted.keys(), seen.keys() ^ wanted.keys()
assert all(math.isclose(seen[k], wanted[k], rel_tol=1e-6, abs_tol=1e-30) for k in wanted)
assert starts == [int(step) for step in sys.argv[2:]], starts
try: from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError: sys.exit()
events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
events.Reload()
theirs = {(e.step, tag): e.value for tag in events.Tags()["scalars"] for e in events.Scalars(tag)}
assert theirs == seen, theirs.keys() ^ seen.keys()
PY
call ppo data/imdb.bin $small --steps 2 --eval-queries 4 --out "$work/tb" --tensorboard
if command -v python3 > /dev/null; then
    [ $code = 0 ] && python3 "$work/events.py" "$work/tb/ppo-0001" > "$work/out" 2> "$work/err"; is "ppo --tensorboard: the numbers of the logs"
    call ppo data/imdb.bin $small --steps 3 --eval-queries 4 --out "$work/tb" --tensorboard --max-minutes 1e-9
    sleep 1; call ppo --resume "$work/tb/ppo-0002"
    [ $code = 0 ] && python3 "$work/events.py" "$work/tb/ppo-0002" 2 > "$work/out" 2> "$work/err"; is "a run that goes on, too"
    python3 -c 'import tensorboard' 2> /dev/null || skip "TensorBoard's own reader is not installed"
else skip "no python3: files of TensorBoard"; fi
files() { ls "$1" | grep -c tfevents; }
before=$(files "$work/tb/ppo-0001")
cp "$work/tb/ppo-0001/log.jsonl" "$work/log"
call ppo --resume "$work/tb/ppo-0001" --tensorboard --steps 1
[ $code = 1 ] && has "$work/err" 'more steps than --steps' 'try: a larger --steps' && [ "$(files "$work/tb/ppo-0001")" = "$before" ]
is "a run that is refused leaves no file of TensorBoard"
cmp -s "$work/tb/ppo-0001/log.jsonl" "$work/log"; is "nor does it change the log"
[ -z "$(ls "$work/runs/ppo-0001" | grep tfevents)" ]; is "no file of TensorBoard without --tensorboard"

# ---- sft and rm ----
printf '{"text": "%s", "label": %d}\n' 'A fine film, and long.' 1 'A bad film.' 0 'A dull film, a bad one.' 0 'The finest film of all.' 1 > "$work/few"
for i in 1 2 3 4 5; do cat "$work/few" "$work/few" > "$work/more" && mv "$work/more" "$work/few"; done
awk '{ sub(/film/, "film number " NR); print }' "$work/few" > "$work/texts.jsonl"
call prep data "$work/texts.jsonl" --out "$work/texts.bin" --labels negative,positive
call sft "$work/texts.bin" --policy data/policy --steps 2 --out "$work/sft"
[ $code = 0 ] && whole "$work/sft/report.html" &&
    has "$work/sft/report.html" '<h3>Loss</h3>' 'held out</bdi>' '<h3>Held-out perplexity' '<h3>Learning rate' 'Supervised fine-tuning on'
is "the page of sft"
call rm "$work/texts.bin" --reward data/reward --steps 2 --batch-size 4 --out "$work/rm" --tensorboard
[ $code = 0 ] && whole "$work/rm/report.html" && has "$work/rm/report.html" '<h3>Loss</h3>' '<h3>Accuracy' 'Reward model on'
is "the page of rm"
for stage in sft rm; do
    call run report "$work/$stage"
    [ $code = 0 ] && grep -q '^  loss  *[0-9]' "$work/out" && grep -q '^  held-out loss  *[0-9]' "$work/out"; is "run report of $stage"
done
call sft "$work/texts.bin" --policy data/policy --steps 1 --out "$work/sft" --force --tensorboard
[ $code = 0 ] && has "$work/sft/report.html" 'step 1 of 1'; is "--force: the page is the new run's"
if command -v python3 > /dev/null; then
    for stage in sft rm; do
        python3 "$work/events.py" "$work/$stage" > "$work/out" 2> "$work/err"; is "$stage --tensorboard: the numbers of the logs"
    done
fi

# ---- several runs ----
call run report "$work/runs/ppo-0001" "$work/runs/ppo-0003/" --show 0
[ $code = 0 ] && has "$work/out" 'mean reward' && tail -n 1 "$work/out" | grep -q "$work/runs/report.html" && whole "$work/runs/report.html" &&
    has "$work/runs/report.html" '<h1><bdi>2 runs</bdi></h1>' 'class="l c0"' 'class="l c1"' 'What differs' 'seed</td><td><bdi>0</bdi></td><td><bdi>7<'
is "two runs on the same axes, beside them, and what differs"
! grep -q 'batch-size</td>' "$work/runs/report.html"; is "and not what is the same"
for folder in a/same b/same b/other; do mkdir -p "$work/names/$folder" && cp "$run/log.jsonl" "$work/names/$folder"; done
call run report "$work/names/a/same/" "$work/names/b/same" "$work/names/b/other" --out "$work/names.html"
[ $code = 0 ] && has "$work/names.html" '<bdi>a/same</bdi></th>' '<bdi>b/same</bdi></th>' '<bdi>other</bdi></th>' '<div class="stays"><p class="key">'
is "runs whose folders have the same name are named by the ends of their paths that differ"
call run report "$run" "$run" --out "$work/names.html" --show 0
[ $code = 0 ] && [ "$(grep -o "<bdi>$run</bdi></th>" "$work/names.html" | wc -l)" -ge 2 ]; is "the same run twice has its whole path"
call run report "$run" "$work/sft" "$work/rm" --out "$work/three.html" --show 0
[ $code = 0 ] && whole "$work/three.html"; is "--out; runs of three programs"
echo '<html>mine</html>' > "$work/runs/report.html"
call run report "$run" "$run" --show 0
[ $code = 1 ] && has "$work/err" "a file of another program is in the way: $work/runs/report.html" 'try: --out FILE.html' &&
    has "$work/runs/report.html" mine; is "a page of another program is not replaced"
call run report "$run" --out ''; [ $code = 2 ]; is "--out needs a name"
call run report; [ $code = 2 ] && has "$work/err" 'which run?'; is "no run: wrong usage"
call run report "$run" --out "$work/no/such/page.html"; [ $code = 1 ]; is "a page that cannot be written"

# ---- numbers that only some runs have ----
# logs FOLDER OPTIONS NUMBERS: a run of two steps whose numbers are NUMBERS
logs() {
    mkdir -p "$1"
    numbers=$(echo $3)          # in one line
    printf '{"program": "ppo", "data": "d", "options": {%s}}\n{"step": 1, %s}\n{"step": 2, %s}\n' "$2" "$numbers" "$numbers" > "$1/log.jsonl"
}
logs "$work/rare" '"reward": "good/judge:0.7,other:-0.2", "batch-size": 64' '"env/judge_mean_1": 1, "env/judge_mean_2": -2,
    "tokens/responses_repeated": 0.3, "env/reward_length_correlation": -0.6, "tokens/responses_with_stop": 0, "tokens/responses_with_eos": 9,
    "ppo/loss/kl": 0.1'
call run report "$work/rare"
[ $code = 0 ] && whole "$work/rare/report.html" && has "$work/rare/report.html" '<h3>Mean logit of each judge</h3>' '<bdi>good/judge:0.7</bdi>' \
    '<bdi>other:-0.2</bdi>' '<h3>Share of responses that repeat' '<h3>Correlation of reward and length' '<h3>Responses that end with --stop' \
    '<h3>Responses that the policy ends itself' '>all 64</text>' '<h3>KL in the loss'
is "curves of single judges, repeated responses, length, --stop, ends, the loss's KL"
[ "$(grep -c '<h3>Mean logit' "$work/rare/report.html")" = 1 ] && grep '<h3>Mean logit' "$work/rare/report.html" | grep -q 'class="l c0.*class="l c1'
is "all judges of a run are in one drawing"
logs "$work/plain" '"batch-size": 64' '"env/reward_mean": 1, "tokens/responses_repeated": 0, "env/reward_length_correlation": 0.01, "tokens/responses_with_eos": 1'
call run report "$work/plain"
[ $code = 0 ] && ! grep -q '<h3>Mean logit\|<h3>Share of\|<h3>Correlation\|<h3>Responses that\|<h3>KL in' "$work/plain/report.html"
is "no curve where there is nothing to see"
logs "$work/end" '"steps": 2' '"env/reward_mean": 1, "objective/kl": 0'
printf '{"step": 2, "eval/kl": -0.000001, "eval/reward_mean": 3.5}\n' >> "$work/end/log.jsonl"
printf '{"query": "q", "response_before": "b", "response_after": "a", "reward_before": 1, "reward_after": 0.999}\n' > "$work/end/samples.jsonl"
call run report "$work/end"
[ $code = 0 ] && tr -d '\n' < "$work/end/report.html" | grep -q 'held out</td><td class="n">-</td><td class="n">3.5000</td><td class="n">-</td>' &&
    has "$work/end/report.html" 'data-is="change">0.00</td>' && ! grep -q -e '-0\.00*<' "$work/end/report.html"
is "a number of the end alone is the last one; no number is -0.00"
call run report "$work/rare" "$work/plain" --out "$work/two.html"
[ $code = 0 ] && whole "$work/two.html" && has "$work/two.html" '<h3>Mean logit of judge 1</h3>' '<h3>Mean logit of judge 2</h3>'
is "several runs: a drawing for each judge"

# ---- texts that try to be markup ----
mkdir "$work/<b>&"
hostile=$work/'<b>&'
{
    printf '{"program": "ppo", "data": "<script>alert(0)</script>", "options": {"<i>": "\\"><svg onload=alert(1)>", "steps": 2}}\n'
    printf '{"step": 1, "env/reward_mean": 1, "</title>": 2}\n{"step": 2, "env/reward_mean": null, "objective/kl": 1e308}\n'
} > "$hostile/log.jsonl"
printf '{"query": "<script>alert(2)</script>", "response_before": "\\u001b[31m\\u0000\\u202egnp.exe\\u2066", "response_after": "</bdi></td></table>", "reward_before": 1, "reward_after": -1}\n' > "$hostile/samples.jsonl"
printf '{"query": "\303\050 \351", "response_after": "<script>"}\n' >> "$hostile/samples.jsonl"
call run report "$hostile"
[ $code = 0 ] && whole "$hostile/report.html"; is "hostile texts: still one well-formed page"
! grep -qi '<script\|<svg onload\|<i>\|</table></bdi>' "$hostile/report.html" && has "$hostile/report.html" '&lt;script&gt;alert(2)&lt;/script&gt;' \
    '\x1B[31m\x00\xE2\x80\xAEgnp.exe\xE2\x81\xA6' '&lt;/bdi&gt;' '&lt;b&gt;&amp;' '1 damaged line of samples.jsonl'
is "they are shown, and do nothing"

# ---- torn, damaged and foreign files ----
mkdir "$work/torn"
cp "$run/log.jsonl" "$run/samples.jsonl" "$work/torn"
printf '{"step": 4, "env/rew' >> "$work/torn/log.jsonl"
call run report "$work/torn" --show 0
[ $code = 0 ] && has "$work/out" 'the last line of the log is not whole' 'mean reward' && has "$work/torn/report.html" 'ended while it wrote'
is "a torn last line is left out, and said"
printf '\nrubbish\n{"step": 5, "env/reward_mean": 1}\n' >> "$work/torn/log.jsonl"
call run report "$work/torn" --show 0
[ $code = 0 ] && has "$work/out" '2 lines of the log left out, as damaged; the first is line ' && has "$work/torn/report.html" '2 damaged lines'
is "damaged lines in the middle, too"
echo '{"x": 1}' > "$work/torn/log.jsonl"
call run report "$work/torn"
[ $code = 1 ] && has "$work/err" 'no log of a run' 'such as runs/ppo-0001'; is "a log of another program is refused"
call run report "$work"; [ $code = 1 ] && has "$work/err" 'such as runs/ppo-0001'; is "no log"

# ---- a run in progress; a run that was killed ----
waits() { for i in $(seq 60); do "$@" && return 0; sleep 0.5; done; return 1; }
if [ -z "$RUN" ]; then
    "${BIN:-.}/ppo" data/imdb.bin $small --steps 100000 --eval-queries 0 --save-every 0 --out "$work/live" > "$work/live.out" 2> "$work/live.err" &
    process=$!
    page=$work/live/ppo-0001/report.html
    waits grep -qs 'step [1-9][0-9]* of 100000.*it is running' "$page" && whole "$page" && grep -q 'http-equiv="refresh"' "$page" &&
        grep -q '<progress ' "$page"
    is "while a run goes on, its page shows the steps and reloads itself"
    call run report "$work/live/ppo-0001"; [ $code = 0 ] && grep -q 'http-equiv="refresh"' "$page"; is "run report of it, too"
    call run report "$work/live/ppo-0001" "$run" --out "$work/two.html" --show 0
    [ $code = 0 ] && whole "$work/two.html" && grep -q 'it is running<' "$work/two.html" && ! grep -q 'http-equiv="refresh"' "$work/two.html"
    is "a page that nobody writes again does not reload itself"
    until rm -f "$page"; mkdir "$page" 2> /dev/null; do :; done         # the run may write it between both
    waits grep -qs 'try: make room' "$work/live.err"
    [ "$(grep -c 'try: make room; `run report` writes the page later' "$work/live.err")" = 1 ] && kill -0 $process
    is "a page that cannot be written: said once, and the run goes on"
    rmdir "$page"
    kill -INT $process; wait $process 2> /dev/null
    [ -s "$work/live/ppo-0001/model.safetensors" ] && whole "$page" && ! grep -q 'http-equiv="refresh"\|it is running' "$page"; is "after Ctrl-C the page is the last one"
    "${BIN:-.}/ppo" data/imdb.bin $small --steps 100000 --eval-queries 0 --save-every 0 --out "$work/live" > "$work/live.out" 2>&1 &
    process=$!
    page=$work/live/ppo-0002/report.html
    waits grep -qs '"objective/kl"' "$work/live/ppo-0002/log.jsonl"
    kill -9 $process; wait $process 2> /dev/null
    call run report "$work/live/ppo-0002"
    [ $code = 0 ] && whole "$page" && ! grep -q 'http-equiv="refresh"' "$page"; is "after kill -9, run report writes the last page"
else skip "a run in progress"; fi

echo "report: $passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
