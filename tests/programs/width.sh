#!/bin/sh
# tests/programs/width.sh - what the programs print in a terminal of 40, 80 and 200 columns: no line is wider, unless it is one word.
# Python's pty makes the terminal; without it nothing is tested. BIN as in run.sh. Last line: `width: N passed, N failed, N skipped`.
cd "$(dirname "$0")/../.." || exit 1
work=$(mktemp -d "${TMPDIR:-/tmp}/width_test.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
if [ -n "$RUN" ] || ! python3 -c 'import pty, termios' 2> /dev/null || [ ! -e data/imdb.bin ] || [ ! -d data/policy ]; then
    echo "  skip  no terminals, or no data"; echo "width: 0 passed, 0 failed, 1 skipped"; exit 0
fi
cat > "$work/terminal.py" <<'PY'
# Runs a program in a terminal of so many columns, prints the lines that are wider, and fails if there are some, or no line at all.
import fcntl, os, pty, re, struct, sys, termios, unicodedata
columns = int(sys.argv[1])
reader, writer = pty.openpty()
fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
process = os.fork()
if not process:
    os.setsid()
    for handle in 0, 1, 2: os.dup2(writer, handle)
    os.closerange(3, 256)
    os.environ.pop("COLUMNS", None)
    os.environ["TERM"] = "xterm-256color"
    os.execv(sys.argv[2], sys.argv[2:])
os.close(writer)
text = b""
while True:
    try: part = os.read(reader, 65536)
    except OSError: break               # Linux's end of a terminal
    if not part: break
    text += part
os.waitpid(process, 0)
text = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", text.decode("utf-8", "replace")).replace("\r\n", "\n")
lines = [part for line in text.split("\n") for part in line.split("\r")]        # \r: a line of progress is written anew
def width(line): return sum(2 if unicodedata.east_asian_width(c) in "WF" else not unicodedata.combining(c) for c in line)
wide = [line for line in lines if width(line) > columns and " " in line.strip()]
print(text if not wide else "\n".join("%d: %s" % (width(line), line) for line in wide))
sys.exit(bool(wide) or not text.strip())
PY
# fits PROGRAM ARGUMENT ...: in a terminal of $columns
fits() {
    program=$1; shift
    if python3 "$work/terminal.py" "$columns" "${BIN:-.}/$program" "$@" > "$work/out" 2>&1; then passed=$((passed + 1))
    else failed=$((failed + 1)); echo "  FAIL  $columns columns: $program $*"; head -n 5 "$work/out" | sed 's/^/        /'; fi
}
# says TEXT ...: the last program's output has all of these, its line breaks read as spaces
says() {
    for text; do
        if tr -s ' \n' ' ' < "$work/out" | grep -qF -- "$text"; then passed=$((passed + 1))
        else failed=$((failed + 1)); echo "  FAIL  $columns columns: no $text"; tail -n 5 "$work/out" | sed 's/^/        /'; fi
    done
}
printf 'functionality,test_case,label_gold,target_ident\nderog_neg_emote_h,I hate this.,hateful,women\nprofanity_nh,A fine film.,non-hateful,\n' > "$work/cases.csv"
tiny="--steps 1 --batch-size 4 --mini-batch-size 4"
for columns in 40 80 200; do
    out=$work/$columns
    for program in ppo sft rm run prep; do fits $program --help; done
    for command in eval label hatecheck report; do fits run $command --help; done
    for command in data tokenizer; do fits prep $command --help; done
    fits ppo --version; says 'flags: ' 'kernel: ' 'threads: '
    for program in ppo sft rm; do fits $program data/imdb.bin --show-options; done
    fits ppo data/imdb.bin --dry-run
    fits ppo; fits ppo --stepz 1; says 'ppo: unknown option' 'try: '
    fits ppo no/such/file; says 'ppo: cannot open (No such file or directory): no/such/file try: a dataset made by ./prep'
    fits ppo data/imdb.bin --steps x; fits run report no/such/folder
    fits ppo data/imdb.bin $tiny --eval-queries 4 --show 4 --out "$out"; says 'mean reward' 'curves and all samples:'
    fits sft data/imdb.bin --policy data/policy --steps 1 --tokens 256 --eval-documents 20 --out "$out/sft"; says 'perplexity'
    fits rm data/imdb.bin --reward data/reward --steps 1 --batch-size 4 --eval-texts 20 --out "$out/rm"; says 'calibration'
    fits run report "$out/ppo-0001"; says 'mean reward'
    fits run report "$out/ppo-0001" "$out/sft" "$out/rm" --out "$out/page.html"; says 'held-out perplexity' 'held-out accuracy'
    fits run eval data/imdb.bin data/policy "$out/ppo-0001" --reward data/reward --queries 4; says 'perplexity' 'difference'
    fits run hatecheck data/reward "$work/cases.csv" --label negative; says 'accuracy' 'all non-hateful'
done
echo "width: $passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
