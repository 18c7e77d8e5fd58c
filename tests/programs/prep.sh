#!/bin/sh
# prep.sh - tests prep from outside: every input format, the output of `show`, and messages for bad input. Runs in the project's
# folder. Environment: PREP (the program, ./prep), GENERATE (./run, to write with a converted model), SHARED (third-party files,
# ../shared), TMPDIR, RUN (an emulator, if any).
PREP="$RUN ${PREP:-./prep}"
GENERATE="$RUN ${GENERATE:-./run}"
SHARED=${SHARED:-../shared}
T=$(mktemp -d "${TMPDIR:-/tmp}/prep.XXXXXX") || exit 1
trap 'rm -rf "$T"' EXIT
: >"$T/passed"; : >"$T/failed"; : >"$T/skipped"    # in files, because a check at the end of a pipe runs in another shell
ok() { echo 1 >>"$T/passed"; if [ -n "$VERBOSE" ]; then echo "  ok    $1"; fi; }
bad() { echo 1 >>"$T/failed"; echo "  FAIL  $1"; }
# same NAME WANTED: standard input is exactly the text WANTED
same() { got=$(cat); if [ "$got" = "$2" ]; then ok "$1"; else bad "$1: got '$got', wanted '$2'"; fi; }
# holds NAME COMMAND...: the command exits with 0
holds() { name=$1; shift; if "$@" >"$T/log" 2>&1; then ok "$name"; else bad "$name: $(head -n 2 "$T/log")"; fi; }
# refuses NAME STATUS PATTERN ARGUMENTS...: prep exits with STATUS, prints PATTERN and writes nothing
refuses() {
    name=$1 status=$2 pattern=$3; shift 3
    rm -f "$T/none.bin"
    $PREP "$@" >"$T/log" 2>&1; code=$?
    if [ $code -ne "$status" ]; then bad "$name: exit $code, wanted $status: $(head -n 2 "$T/log")"
    elif ! grep -q -e "$pattern" "$T/log"; then bad "$name: '$pattern' is not in: $(head -n 2 "$T/log")"
    elif [ -e "$T/none.bin" ]; then bad "$name: wrote a file all the same"
    else ok "$name"; fi
}
# texts FILE: prints the documents alone, in their order (both splits)
texts() { $PREP show "$1" -n 1000000 >"$T/train"; $PREP show "$1" -n 1000000 --held-out >"$T/held"; cat "$T/train" "$T/held" | grep -v "^#\|^$T\|^  label\|^$"; }
labels() { { $PREP show "$1" -n 1000000; $PREP show "$1" -n 1000000 --held-out; } | grep '^#' | sort -u -t'#' -k2n | sed 's/.*\[\(.*\)\]/\1/' | tr '\n' ' '; }

# ---- grammar
G=data/grammar.txt
holds "grammar: 2000 documents" $PREP grammar $G --count 2000 --seed 1 --out "$T/a.bin"
$PREP grammar $G --count 2000 --seed 1 --out "$T/b.bin" >/dev/null
holds "grammar: the same seed, the same bytes" cmp "$T/a.bin" "$T/b.bin"
$PREP grammar $G --count 2000 --seed 2 --out "$T/b.bin" >/dev/null
if cmp -s "$T/a.bin" "$T/b.bin"; then bad "grammar: another seed, other bytes"; else ok "grammar: another seed, other bytes"; fi
texts "$T/a.bin" >"$T/a.txt"
wc -l <"$T/a.txt" | tr -d ' ' | same "grammar: one line a document" 2000
sort -u "$T/a.txt" | wc -l | tr -d ' ' | same "grammar: all different" 2000
awk 'NF < 40 || NF > 80' "$T/a.txt" | wc -l | tr -d ' ' | same "grammar: 40 to 80 words each" 0
n=$(tr -c "A-Za-z'-" '\n' <"$T/a.txt" | tr A-Z a-z | sort -u | wc -l)
holds "grammar: over 1,000 different words ($n)" test "$n" -gt 1000
grep -c '  \| [.,;:!?]\|[{}()|#*]\| a [aei]\| a o[^n]\| an [bcdfgjklmnpqrstvwxyz]\|[.!?] [a-z]' "$T/a.txt" | same "grammar: no leftovers, spaces, articles and capitals right" 0
grep -c '\b\([a-z][a-z]*\) \1\b' "$T/a.txt" | same "grammar: no word twice in a row" 0
cat >"$T/g.txt" <<'END'
# a tiny grammar
%start s
s: {who#1} is {adj}, {who#1} is far from {!adj}. it is a {thing}
who: Ann
adj good: fine
adj bad: poor
thing: apple
END
$PREP grammar "$T/g.txt" --count 2 --seed 3 --out "$T/g.bin" >/dev/null
texts "$T/g.bin" | sort | tr '\n' '/' | same "grammar: senses, memory, articles, capitals" "Ann is fine, Ann is far from poor. It is an apple/Ann is poor, Ann is far from fine. It is an apple/"
refuses "grammar: no third different document" 1 "no new document" grammar "$T/g.txt" --count 3 --out "$T/none.bin"
echo 's: {nobody}' >"$T/h.txt"; echo '%start s' >>"$T/h.txt"
refuses "grammar: a rule that is not there" 1 "line 1, field nobody" grammar "$T/h.txt" --out "$T/none.bin"
printf '%%start s\ns: a {s}\n' >"$T/h.txt"
refuses "grammar: a rule without an end" 1 "without an end" grammar "$T/h.txt" --out "$T/none.bin"
printf '%%start s\ns: a (b|c\n' >"$T/h.txt"
refuses "grammar: a bracket that stays open" 1 "line 2" grammar "$T/h.txt" --out "$T/none.bin"
printf '%%start s\ns: no\nt: \\^a egg: \\^(x\\)|x\\)) \\n {n} \\{\\|\\\\\nn: a b\n' >"$T/h.txt"
$PREP grammar "$T/h.txt" --start t --count 1 --out "$T/g.bin" >/dev/null
texts "$T/g.bin" | tr '\n' '/' | same "grammar: --start, line breaks, capitals, escaped characters" 'An egg: X)/A b {|\/'
printf '%%start s\ns: a\\b\n' >"$T/h.txt"
refuses "grammar: a backslash before another letter" 1 "line 2" grammar "$T/h.txt" --out "$T/none.bin"
refuses "grammar: --start with no such rule" 1 "no such rule" grammar data/grammar.txt --start nobody --out "$T/none.bin"
refuses "grammar: no such file" 1 "cannot open\|No such" grammar "$T/nothing.txt" --out "$T/none.bin"

# ---- JSONL
awk 'BEGIN { for (i = 0; i < 20000; i++) print "review number " i }' >"$T/numbers.txt"
$PREP data "$T/numbers.txt" --out "$T/numbers.bin" | sed 's/.*, \([0-9]*\) held out.*/\1/' | same "5 % of texts are held out" 971
printf '{"text":"one","label":1}\n\n{"text":"tw\\u00f6","label":0}\r\n{"text":"three\\nlines","label":true}\n{"text":"four","label":null}\n' >"$T/x.jsonl"
holds "jsonl" $PREP data "$T/x.jsonl" --labels 0=negative,1=positive,true=positive --out "$T/x.bin"
texts "$T/x.bin" | sort | tr '\n' '/' | same "jsonl: texts" "four/lines/one/three/twö/"
$PREP show "$T/x.bin" -n 0 | tail -n 3 | tr -s ' ' | tr '\n' '/' | same "jsonl: labels" " label (none) 1/ label negative 1/ label positive 2/"
printf '{"a":{"b":"deep"},"c.d":"flat"}\n' >"$T/y.jsonl"
$PREP data "$T/y.jsonl" --text a.b --out "$T/y.bin" >/dev/null; texts "$T/y.bin" | same "jsonl: a field inside an object" deep
$PREP data "$T/y.jsonl" --text c.d --out "$T/y.bin" >/dev/null; texts "$T/y.bin" | same "jsonl: a key with a dot" flat
$PREP data "$T/y.jsonl" --prompt a.b --response c.d --out "$T/y.bin" >/dev/null; texts "$T/y.bin" | tr '\n' '/' | same "jsonl: prompt and response" "prompt: deep/response: flat/"
printf '{"chosen":"good","rejected":"evil"}\n' >"$T/p.jsonl"
$PREP data "$T/p.jsonl" --out "$T/p.bin" >/dev/null; texts "$T/p.bin" | tr '\n' '/' | same "jsonl: pairs are recognised" "chosen: good/rejected: evil/"
printf '{"prompt":"Is it? ","chosen":"Yes.","rejected":"No."}\n{"prompt":"","chosen":"a","rejected":"b"}\n' >"$T/q.jsonl"
$PREP data "$T/q.jsonl" --out "$T/q.bin" >"$T/log"; texts "$T/q.bin" | sort | tr '\n' '/' | same "jsonl: the prompt of a pair comes before both texts" "chosen: Is it? Yes./chosen: a/rejected: Is it? No./rejected: b/"
grep -c "the prompt (field prompt) comes before both texts" "$T/log" | same "... and prep says so" 1
$PREP data "$T/q.jsonl" --no-prompt --out "$T/q.bin" >/dev/null; texts "$T/q.bin" | sort | tr '\n' '/' | same "jsonl: --no-prompt" "chosen: Yes./chosen: a/rejected: No./rejected: b/"
sed 's/"prompt"/"question"/' "$T/q.jsonl" >"$T/q2.jsonl"
$PREP data "$T/q2.jsonl" --prompt question --out "$T/q.bin" >/dev/null; texts "$T/q.bin" | head -n 2 | tr '\n' '/' | same "jsonl: pairs with --prompt" "chosen: Is it? Yes./rejected: Is it? No./"
cat >"$T/p.jsonl" <<'END'
{"chosen":"a","rejected":"b","probability":0.7}
{"chosen":"c","rejected":"d"}
{"chosen":"e","rejected":"f","probability":null}
{"chosen":"g","rejected":"h","probability":0}
{"chosen":"i","rejected":"j","probability":1}
{"chosen":"k","rejected":"l","probability":0.3333333}
END
$PREP data "$T/p.jsonl" --out "$T/q.bin" >"$T/log"
grep -c '^  4 pairs with a probability that the first text is better, 0.508 in the mean$' "$T/log" | same "jsonl: probabilities are counted" 1
labels "$T/q.bin" | same "jsonl: a pair's probability" "0.7 #1 #2 0 1 0.333333 "
sed 's/.*"chosen":"\(.\)","rejected":"\(.\)"}*/\1,\2/; s/,"probability"://; s/null//; s/}//' "$T/p.jsonl" | sed 's/^\(.,.\)\([0-9].*\)*$/\1,\2/' | { echo "chosen,rejected,probability"; cat; } >"$T/p.csv"
$PREP data "$T/p.csv" --out "$T/q2.bin" >/dev/null; cmp "$T/q.bin" "$T/q2.bin"; [ $? = 0 ] && ok "csv: the same probabilities" || bad "csv: the same probabilities"
$PREP data "$T/p.csv" --no-label --out "$T/q.bin" >"$T/log"; grep -c probability "$T/log" | same "pairs: --no-label reads no probability" 0
sed 's/probability/p/' "$T/p.jsonl" | sed 2d >"$T/q2.jsonl"
$PREP data "$T/q2.jsonl" --label p --out "$T/q.bin" >/dev/null; labels "$T/q.bin" | same "pairs: --label names the probability" "0.7 #1 0 1 0.333333 "
for p in 1.01 -0.1 '"0.5"' true NaN; do
    echo "{\"chosen\":\"a\",\"rejected\":\"b\",\"probability\":$p}" >"$T/b.jsonl"
    refuses "pairs: a probability of $p" 1 "not a number from 0 to 1: .*line 1, field probability" data "$T/b.jsonl" --out "$T/none.bin"
done
printf 'chosen,rejected,probability\na,b,often\n' >"$T/b.csv"
refuses "csv: a probability in words" 1 "not a number from 0 to 1: .*line 2, field probability" data "$T/b.csv" --out "$T/none.bin"
refuses "pairs: --label of no field" 1 "a field is missing: .*field q" data "$T/p.jsonl" --label q --out "$T/none.bin"
refuses "pairs: --labels" 1 "the label of a pair is a probability" data "$T/p.jsonl" --labels no,yes --out "$T/none.bin"
printf 'prompt, chosen, rejected\nIs it? ,Yes.,No.\n' >"$T/q.csv"
$PREP data "$T/q.csv" --out "$T/q.bin" >/dev/null; texts "$T/q.bin" | tr '\n' '/' | same "csv: pairs with a prompt" "chosen: Is it? Yes./rejected: Is it? No./"
printf '{"prompt":"Is it?","chosen":"Is it? Yes","rejected":"Is it? No"}\n' >"$T/q2.jsonl"
$PREP data "$T/q2.jsonl" --out "$T/q.bin" | grep -c "twice: both texts of 1 pair.*--no-prompt" | same "jsonl: texts that begin with the prompt already" 1
printf '{"chosen":"a","rejected":"b"}\n{"prompt":"p","chosen":"a","rejected":"c"}\n' >"$T/b.jsonl"
refuses "jsonl: a prompt that the first row lacks" 1 "first row.*line 2, field prompt" data "$T/b.jsonl" --out "$T/none.bin"
printf '{"prompt":"2+2=","completion":"4"}\n' >"$T/q2.jsonl"
$PREP data "$T/q2.jsonl" --out "$T/q.bin" >/dev/null; texts "$T/q.bin" | tr '\n' '/' | same "jsonl: prompt and completion" "prompt: 2+2=/response: 4/"
U='{"role":"user","content":"Is it?"}' Y='{"role":"assistant","content":"Yes."}' N='{"role":"assistant","content":"No."}'
yes='<|im_start|>user/Is it?<|im_end|>/<|im_start|>assistant/Yes.<|im_end|>/' no='<|im_start|>user/Is it?<|im_end|>/<|im_start|>assistant/No.<|im_end|>/'
messages() { printf '%s\n' "$2" >"$T/m.jsonl"; $PREP data "$T/m.jsonl" --template chatml --out "$T/m.bin" >/dev/null; texts "$T/m.bin" | tr '\n' '/' | same "$1" "$3"; }
messages "messages: pairs with a prompt" "{\"prompt\":[$U],\"chosen\":[$Y],\"rejected\":[$N]}" "chosen: ${yes}rejected: $no"
messages "messages: pairs, the prompt in both" "{\"chosen\":[$U,$Y],\"rejected\":[$U,$N]}" "chosen: ${yes}rejected: $no"
messages "messages: pairs, the prompt in both and as a string" "{\"prompt\":\"Is it?\",\"chosen\":[$U,$Y],\"rejected\":[$U,$N]}" "chosen: ${yes}rejected: $no"
messages "messages: prompt and completion" "{\"prompt\":[$U],\"completion\":[$Y]}" "prompt: <|im_start|>user/Is it?<|im_end|>/<|im_start|>assistant/response: Yes.<|im_end|>/"
messages "messages: a text" "{\"messages\":[$U,$Y]}" "$yes"
printf '%s\n' "{\"messages\":[$U,$Y]}" >"$T/m.jsonl"
$PREP data "$T/m.jsonl" --template zephyr --out "$T/m.bin" >/dev/null; texts "$T/m.bin" | tr '\n' '/' | same "messages: zephyr" "<|user|>/Is it?</s>/<|assistant|>/Yes.</s>/"
refuses "messages without --template" 1 "list of messages.*line 1, field messages" data "$T/m.jsonl" --out "$T/none.bin"
grep -c "try: --template chatml" "$T/log" | same "... with advice" 1
printf '%s\n' "{\"prompt\":\"other\",\"chosen\":[$U,$Y],\"rejected\":[$U,$N]}" >"$T/m.jsonl"
refuses "messages: a prompt that they do not have" 1 "lists of messages.*field prompt" data "$T/m.jsonl" --template chatml --out "$T/none.bin"
printf '{"messages":[{"role":"user"}]}\n' >"$T/m.jsonl"
refuses "messages: one without content" 1 'without a string "role"' data "$T/m.jsonl" --template chatml --out "$T/none.bin"
printf '{"text":"one"}\n{"text":"two","label":"a"}\n' >"$T/b.jsonl"
refuses "jsonl: a label that the first row lacks" 1 "first row.*line 2, field label" data "$T/b.jsonl" --out "$T/none.bin"
head -n 1 "$T/b.jsonl" >"$T/one.jsonl"
$PREP data "$T/one.jsonl" --out "$T/b.bin" | grep -c "no label: there is no field label or sentiment" | same "jsonl: no label, and prep says so" 1
$PREP data "$T/one.jsonl" --no-label --out "$T/b.bin" | grep -c "no label" | same "jsonl: no label asked for" 0
printf '{"text":"one"}\n{"text":"b\\ud83dd \\ud83d\\ude00 \\\\ud83d"}\n' >"$T/b.jsonl"
refuses "jsonl: a lone surrogate" 1 "lone surrogate.*line 2" data "$T/b.jsonl" --out "$T/none.bin"
grep -c "fix-utf8" "$T/log" | same "... with advice" 1
$PREP data "$T/b.jsonl" --fix-utf8 --out "$T/b.bin" >/dev/null; texts "$T/b.bin" | sort | tr '\n' '/' | same "jsonl: --fix-utf8, a lone surrogate" 'b�d 😀 \ud83d/one/'
refuses "jsonl: a value without a name" 1 "line 1, field label" data "$T/x.jsonl" --labels 0=a --out "$T/none.bin"
printf '{"text":"one"}\n{"text":\n' >"$T/b.jsonl"
refuses "jsonl: a broken line" 1 "b.jsonl, line 2" data "$T/b.jsonl" --out "$T/none.bin"
printf '{"text":"one"}\n{"txt":"two"}\n' >"$T/b.jsonl"
refuses "jsonl: a field that is missing" 1 "line 2, field text" data "$T/b.jsonl" --out "$T/none.bin"
printf '{"text":"one"}\n{"text":2}\n' >"$T/b.jsonl"
refuses "jsonl: a text that is a number" 1 "not a string.*line 2, field text" data "$T/b.jsonl" --out "$T/none.bin"
printf '{"text":"one"}\n["text"]\n' >"$T/b.jsonl"
refuses "jsonl: an array" 1 "no JSON object.*line 2" data "$T/b.jsonl" --out "$T/none.bin"
printf '{"text":"one"}\n{"text":"b\377d"}\n' >"$T/b.jsonl"
refuses "jsonl: invalid UTF-8" 1 "invalid UTF-8.*line 2" data "$T/b.jsonl" --out "$T/none.bin"
$PREP data "$T/b.jsonl" --fix-utf8 --out "$T/b.bin" >/dev/null; texts "$T/b.bin" | sort | tr '\n' '/' | same "jsonl: --fix-utf8" "b�d/one/"

# ---- CSV, TSV
printf '\357\273\277,Review,Sentiment\r\n0,"a ""quoted"", one",positive\r\n1,"two\nlines",negative\r\n\r\n2,plain 5" here,positive' >"$T/x.csv"
holds "csv" $PREP data "$T/x.csv" --out "$T/x.bin"
texts "$T/x.bin" | sort | tr '\n' '/' | LC_ALL=C same "csv: quotes, line breaks, no last newline" "$(printf 'a "quoted", one\nlines\nplain 5" here\ntwo\n' | sort | tr '\n' '/')"
labels "$T/x.bin" | same "csv: labels" "positive negative positive "
printf 'text\tlabel\nit\tyes\n"that ""\t"""\tno\n' >"$T/x.tsv"
$PREP data "$T/x.tsv" --out "$T/x.bin" >/dev/null; labels "$T/x.bin" | same "tsv" "yes no "
$PREP data "$T/x.csv" --text REVIEW --label SENTIMENT --labels negative,positive --out "$T/x.bin" >/dev/null; labels "$T/x.bin" | same "csv: names ignoring case" "positive negative positive "
printf 'text, label\nit, yes\nthat ,no\n' >"$T/b.csv"
$PREP data "$T/b.csv" --out "$T/x.bin" >/dev/null; labels "$T/x.bin" | same "csv: blanks around names and labels" "yes no "
refuses "csv: no such column" 1 "no such column.*field body" data "$T/x.csv" --text body --out "$T/none.bin"
printf 'text,label\none,1\ntwo\n' >"$T/b.csv"
refuses "csv: too few cells" 1 "b.csv, line 3" data "$T/b.csv" --out "$T/none.bin"
printf 'text,label\n"one\nand a half",1\n"two,2\n' >"$T/b.csv"
refuses "csv: an open quote" 1 "never closed.*line 4" data "$T/b.csv" --out "$T/none.bin"
printf 'text,label\n"one" more,1\n' >"$T/b.csv"
refuses "csv: text after a quote" 1 "after a closing quote.*line 2" data "$T/b.csv" --out "$T/none.bin"
printf 'text\n"one\ntwo"\nb\377d\n' >"$T/b.csv"
refuses "csv: invalid UTF-8" 1 "invalid UTF-8.*line 4" data "$T/b.csv" --out "$T/none.bin"

# ---- prompts that are made of fields
printf '{"a":"one","b":{"c":2},"d":true,"sum":"S"}\n{"a":"fünf!","b":{"c":3},"d":false,"sum":"T"}\n' >"$T/t.jsonl"
$PREP data "$T/t.jsonl" --template 'A {a}:{b.c}\n{d} {{x}}\\' --response sum --out "$T/x.bin" | head -n 1 | sed 's/.*: \(2 .*response\|2 .*responses\),.*/\1/' | same "--template: prompts with responses" "2 prompts with responses"
texts "$T/x.bin" | sort | tr '\n' '/' | LC_ALL=C same "--template: fields, fields of objects, escapes, braces" 'false {x}\/prompt: A fünf!:3/prompt: A one:2/response: S/response: T/true {x}\/'
$PREP data "$T/t.jsonl" --template '{a} of the prompt' --response sum --min-length 4 --out "$T/x.bin" | tail -n 1 | same "--template: --min-length counts the fields' characters" "  left out: 1 shorter than 4 characters"
$PREP data "$T/t.jsonl" --template '{a} of the prompt' --response sum --max-length 4 --out "$T/x.bin" | tail -n 1 | same "--max-length" "  left out: 1 longer than 4 characters"
printf 'Body,sum\n"a <b>bold</b>\nline",S\n' >"$T/t.csv"
$PREP data "$T/t.csv" --template 'Read:\n{body}' --response sum --strip-html --out "$T/x.bin" >/dev/null
texts "$T/x.bin" | tr '\n' '/' | same "--template: a column; --strip-html" "prompt: Read:/a bold/line/response: S/"
printf '{"q":"Q","prompt":"P","chosen":"good","rejected":"bad"}\n' >"$T/t2.jsonl"
$PREP data "$T/t2.jsonl" --template '{q}: ' --out "$T/x.bin" >/dev/null; texts "$T/x.bin" | tr '\n' '/' | same "--template: the prompt of a pair" "chosen: Q: good/rejected: Q: bad/"
refuses "--template: no such field" 1 "is missing.*line 1, field e" data "$T/t.jsonl" --template '{e}' --response sum --out "$T/none.bin"
grep -c "try: the fields are: a, b, d, sum" "$T/log" | same "... with the names that exist" 1
refuses "--template: no such column" 1 "no such column.*field x" data "$T/t.csv" --template '{x}' --response sum --out "$T/none.bin"
grep -c "try: the columns are: Body, sum" "$T/log" | same "... with the names of the columns" 1
refuses "--template: a place that is not closed" 2 "a { without a }" data "$T/t.jsonl" --template 'x {a' --response sum --out "$T/none.bin"
refuses "--template: a lone }" 2 "a } without a {" data "$T/t.jsonl" --template 'x} {a}' --response sum --out "$T/none.bin"
refuses "--template: a text without a place" 2 "a text with {NAME}" data "$T/t.jsonl" --template 'chat' --response sum --out "$T/none.bin"
refuses "--template: an unknown escape" 2 "an unknown escape" data "$T/t.jsonl" --template '{a}\q' --response sum --out "$T/none.bin"
refuses "--template and --prompt" 2 "excludes --prompt" data "$T/t.jsonl" --template '{a}' --prompt a --response sum --out "$T/none.bin"

# ---- texts that are not UTF-8, and lines that end with \r
printf '\377\376t\0e\0x\0t\0\n\0o\0n\0e\0\n\0' >"$T/u16.csv"
refuses "csv: UTF-16" 1 "the text is UTF-16.*u16.csv" data "$T/u16.csv" --out "$T/none.bin"
grep -c "try: iconv -f UTF-16 -t UTF-8" "$T/log" | same "... with advice" 1
tail -c +3 "$T/u16.csv" >"$T/u16.jsonl"
refuses "jsonl: UTF-16 without a mark" 1 "the text is UTF-16.*u16.jsonl" data "$T/u16.jsonl" --out "$T/none.bin"
cat "$T/u16.jsonl" | refuses "a pipe with UTF-16" 1 "the text is UTF-16.*standard input" data - --format jsonl --out "$T/none.bin"
printf '\037\213\010\0\0\0\0\0\0\0' >"$T/x.jsonl.gz"
refuses "a name that ends in .gz" 1 "a file compressed by gzip, not a text" data "$T/x.jsonl.gz" --out "$T/none.bin"
cat "$T/a.bin" | refuses "a pipe with a dataset" 1 "a dataset, not a text: standard input" data - --format text --out "$T/none.bin"
refuses "a binary file" 1 "a dataset, not a text" data "$T/a.bin" --format text --out "$T/none.bin"
printf 'text,label\r"a\rb",yes\rthat,no\r' >"$T/cr.csv"
$PREP data "$T/cr.csv" --out "$T/x.bin" >/dev/null; labels "$T/x.bin" | same 'csv: lines that end with \r' "yes no "
printf '{"text":"one"}\r{"text":"two"}' >"$T/cr.jsonl"
$PREP data "$T/cr.jsonl" --out "$T/x.bin" >/dev/null; texts "$T/x.bin" | sort | tr '\n' ' ' | same 'jsonl: lines that end with \r' "one two "
printf '\357\273\277one\rtwo\r' >"$T/cr.txt"
cat "$T/cr.txt" | $PREP data - --format text --out "$T/x.bin" >/dev/null; texts "$T/x.bin" | sort | tr '\n' ' ' | same 'a pipe: the mark of UTF-8, lines that end with \r' "one two "

# ---- text, aclImdb, options
printf 'first line\n\nsecond <br /><br />line &amp; <i>more</i> 3 < 4\nthird\n' >"$T/x.txt"
$PREP data "$T/x.txt" --out "$T/x.bin" | head -n 1 | sed 's/.*: \([0-9]* texts\).*/\1/' | same "text: a document a line" "3 texts"
$PREP data "$T/x.txt" --whole --out "$T/x.bin" | head -n 1 | sed 's/.*: \([0-9]* texts*\),.*/\1/' | same "text: --whole" "1 text"
$PREP data "$T/x.txt" --strip-html --out "$T/x.bin" >/dev/null; texts "$T/x.bin" | grep second | same "--strip-html" "second line & more 3 < 4"
printf '<a title="x > y">caf&eacute;</a> &mdash; 1990&#150;99<!-- a > b --><p>&hearts;</p>end\n' >"$T/h.txt"
$PREP data "$T/h.txt" --strip-html --out "$T/x.bin" >/dev/null; texts "$T/x.bin" | same "--strip-html: as a browser shows it" "café — 1990–99 ♥ end"
if python3 -c 'import html.entities' 2>/dev/null; then      # all names, with and without a semicolon; a no-break space becomes a space
    python3 - "$T/names.jsonl" "$T/names.want" <<'END'
import html.entities, json, sys
with open(sys.argv[1], 'w') as rows, open(sys.argv[2], 'w') as want:
    for name, text in sorted(html.entities.html5.items()):
        if text in '\n\t': continue
        rows.write(json.dumps({'text': name + ' &' + name + '.'}) + '\n')
        want.write(name + ' ' + text.replace('\xa0', ' ').lstrip(' ') + '.\n')
END
    $PREP data "$T/names.jsonl" --strip-html --out "$T/x.bin" >/dev/null; texts "$T/x.bin" | sort >"$T/names"; sort "$T/names.want" >"$T/want"
    holds "--strip-html: $(wc -l <"$T/want" | tr -d ' ') names of characters" cmp "$T/names" "$T/want"
else echo 1 >>"$T/skipped"; echo "  skip  --strip-html: all names (no python3)"; fi
$PREP data "$T/x.txt" --min-length 6 --out "$T/x.bin" | tail -n 1 | same "--min-length" "  left out: 1 shorter than 6 characters"
printf 'äöüäö\nabcdef\n' >"$T/u.txt"
$PREP data "$T/u.txt" --min-length 6 --out "$T/x.bin" >/dev/null; texts "$T/x.bin" | same "--min-length counts characters, not bytes" abcdef
# --text with places
printf '%s\n' '{"a": {"b": "One"}, "c": " two"}' '{"a": {"b": "Three"}, "c": ""}' >"$T/p.jsonl"
$PREP data "$T/p.jsonl" --text '{a.b}{c}.' --out "$T/x.bin" >/dev/null; texts "$T/x.bin" | sort | tr '\n' ' ' | same "--text: a text of fields" "One two. Three. "
refuses "--text: a lone }" 2 "--text has a } without a {" data "$T/p.jsonl" --text '{a.b}}' --out "$T/none.bin"
grep -q "try: --text '{title}" "$T/log"; echo $? | same "... with an example for --text" 0
refuses "--text: braces alone" 2 "--text has braces, but no {NAME}" data "$T/p.jsonl" --text '{{a}}' --out "$T/none.bin"
refuses "--text: no such field" 1 "template names: .*line 1, field a.x" data "$T/p.jsonl" --text '{a.x}' --out "$T/none.bin"
refuses "--text with places beside a template" 2 "excludes --template" data "$T/p.jsonl" --text '{c}' --template chatml --out "$T/none.bin"
# --where
printf '%s\n' '{"text": "low", "a": {"b": 0.25}, "c": "x"}' '{"text": "none", "a": {"b": null}, "c": null}' '{"text": "half", "a": {"b": 0.5}, "c": "y"}' \
    '{"text": "high", "a": {"b": 1e1}, "c": "x"}' '{"text": "text", "a": {"b": "0.75"}, "c": true}' >"$T/w.jsonl"
where() { $PREP data "$T/w.$1" --where "$2" --out "$T/x.bin" >"$T/log" 2>&1; texts "$T/x.bin" | sort | tr '\n' ' ' | same "--where $2 ($1)" "$3"; }
where jsonl 'a.b > 0.3' "half high text "
where jsonl 'a.b>=0.5' "half high text "
where jsonl 'a.b < 0.5' "low "
where jsonl 'a.b <= 5e-1' "half low "
where jsonl 'a.b = 10' "high "
where jsonl 'a.b != 0.5' "high low none text "
where jsonl 'c = x' "high low "
where jsonl 'c != x' "half none text "
where jsonl 'c = true' "text "
where jsonl 'c =' "none "
where jsonl 'a.b !=' "half high low text "
where jsonl 'a.b =' "none "
printf 'text,n,c\nlow,1,x\nnone,,y\nhigh, 20 ,x\n' >"$T/w.csv"
where csv 'n > 9' "high "
where csv 'c = x' "high low "
$PREP data "$T/w.csv" --where 'n > 9' --out "$T/x.bin" | tail -n 1 | same "--where: how many are left out" "  left out: 2, --where 'n > 9'"
refuses "--where: no comparison" 2 "--where is FIELD" data "$T/w.csv" --where n --out "$T/none.bin"
for sign in '==' '=>' '!==' '<>'; do
    refuses "--where: n $sign 1" 2 "--where is FIELD" data "$T/w.csv" --where "n $sign 1" --out "$T/none.bin"
done
refuses "--where: less than a text" 2 "a number only" data "$T/w.csv" --where 'n < x' --out "$T/none.bin"
refuses "--where: no such column" 1 "the columns are: text, n, c" data "$T/w.csv" --where 'd > 1' --out "$T/none.bin"
refuses "--where: no such field" 1 "the field of --where is missing: .*line 1, field a.x" data "$T/w.jsonl" --where 'a.x > 1' --out "$T/none.bin"
refuses "--where: an object" 1 "a list or an object" data "$T/w.jsonl" --where 'a = 1' --out "$T/none.bin"
refuses "--where: a text, compared with a number" 1 "line 2, field text" data "$T/w.csv" --where 'text > 1' --out "$T/none.bin"
refuses "--where: plain text has no fields" 2 "no effect" data "$T/x.txt" --where 'a > 1' --out "$T/none.bin"
seq 1 100 >"$T/n.txt"
$PREP data "$T/n.txt" --max-documents 4 --out "$T/x.bin" >/dev/null; texts "$T/x.bin" | sort -n | tr '\n' ' ' | same "--max-documents is spread evenly" "25 50 75 100 "
mkdir -p "$T/acl/train/pos" "$T/acl/train/neg"
printf 'I liked it<br />a lot' >"$T/acl/train/pos/0_9.txt"; printf 'I hated it' >"$T/acl/train/neg/0_2.txt"
holds "aclImdb" $PREP data "$T/acl" --out "$T/x.bin"
labels "$T/x.bin" | same "aclImdb: labels by folder" "negative positive "
: >"$T/acl/train/pos/readme.txt"
refuses "aclImdb: a file with another name" 1 "ID_RATING" data "$T/acl" --out "$T/none.bin"
: >"$T/empty.jsonl"
refuses "an empty file" 1 "no documents" data "$T/empty.jsonl" --out "$T/none.bin"
refuses "a format that the name does not tell" 1 "format" data "$G.unknown" --out "$T/none.bin"
for o in "--template chatml" --no-quotes "--text a" "--labels a,b"; do
    refuses "text: $o has no effect" 2 "${o%% *} has no effect.*x.txt" data "$T/x.txt" $o --out "$T/none.bin"
done
refuses "csv: --whole has no effect" 2 "whole has no effect.*x.csv" data "$T/x.csv" --whole --out "$T/none.bin"
refuses "an unknown option" 2 "did you mean" data "$T/x.txt" --ouut "$T/none.bin"
refuses "no --out" 2 "out" data "$T/x.txt"
refuses "no command" 2 "command"
refuses "no such command" 2 "no such command" dance
head -c 100 "$T/a.bin" >"$T/cut.bin"
refuses "show: a truncated dataset" 1 "cut.bin" show "$T/cut.bin"
for c in grammar data tokenizer show llama2c; do $PREP $c --help | head -n 1 | cut -c1-17 | same "$c --help" "$(printf 'usage: ./prep %s' $c | cut -c1-17)"; done

printf '{"text":"a\\u001b[31mb\\rc\\td\\u202ee"}\n' >"$T/c.jsonl"
$PREP data "$T/c.jsonl" --out "$T/x.bin" >/dev/null; texts "$T/x.bin" | same "show: control characters are visible" 'a\x1B[31mb\x0Dc	d\xE2\x80\xAEe'

# ---- tokenizers
for kind in sentencepiece bytelevel gpt2 wordpiece; do
    holds "tokenizer: $kind" $PREP tokenizer "$T/a.bin" --kind $kind --vocab 512 --out "$T/tok-$kind"
    OMP_NUM_THREADS=1 $PREP tokenizer "$T/a.bin" --kind $kind --vocab 512 --out "$T/tok2-$kind" >/dev/null
    holds "tokenizer: $kind, the same files again, with one thread" diff -r "$T/tok-$kind" "$T/tok2-$kind"
done
holds "tokenizer: tokenizer.model" test -s "$T/tok-sentencepiece/tokenizer.model"
holds "tokenizer: vocab.json and merges.txt" test -s "$T/tok-bytelevel/vocab.json" -a -s "$T/tok-bytelevel/merges.txt"
holds "tokenizer: vocab.txt" grep -q '^##' "$T/tok-wordpiece/vocab.txt"
holds "tokenizer: --cased" $PREP tokenizer "$T/a.bin" --kind wordpiece --cased --vocab 512 --out "$T/tok-cased"
holds "tokenizer: --cased is written down" grep -q '"do_lower_case": false' "$T/tok-cased/tokenizer_config.json"
refuses "tokenizer: --cased of another kind" 2 "--cased" tokenizer "$T/a.bin" --cased --out "$T/none"
refuses "tokenizer: too small a vocabulary" 1 "" tokenizer "$T/a.bin" --vocab 16 --out "$T/none"

# ---- llama2.c
# A version 2 file made by hand: width 2, hidden 2, one layer, one head, vocabulary 2, groups of 2. Matrix m has the bytes m -m 127 -128 and
# the scales 0.5 and 2.
{
    printf '24ka\002\0\0\0\002\0\0\0\002\0\0\0\001\0\0\0\001\0\0\0\001\0\0\0\002\0\0\0\003\0\0\0\0\002\0\0\0'; head -c 215 /dev/zero
    printf '\0\0\200\077\0\0\0\100\0\0\0\077\0\0\200\077\0\0\0\100\0\0\0\077'                     # norms: 1 2, 0.5 1, 2 0.5
    for m in '\001\377' '\002\376' '\003\375' '\004\374' '\005\373' '\006\372' '\007\371' '\010\370' '\011\367'; do
        printf "$m"'\177\200\0\0\0\077\0\0\0\100'                                                    # embedding q k v o w1 w2 w3 head
    done
} >"$T/v2.bin"
holds "llama2c: version 2" $PREP llama2c "$T/v2.bin" --out "$T/v2"
tail -c 168 "$T/v2/model.safetensors" | od -An -v -t f4 | tr -s ' \n' ' ' |
    same "llama2c: version 2, int8 times scale" " 4.5 -4.5 254 -256 0.5 -0.5 254 -256 1 2 3.5 -3.5 254 -256 3 -3 254 -256 4 -4 254 -256 0.5 1 1.5 -1.5 254 -256 2.5 -2.5 254 -256 1 -1 254 -256 2 -2 254 -256 2 0.5 "
holds "llama2c: generation_config.json" test -s "$T/v2/generation_config.json"
grep -c '"tie_word_embeddings": false' "$T/v2/config.json" | same "llama2c: a head of its own" 1
head -c 300 "$T/v2.bin" >"$T/cut.v2"
refuses "llama2c: a file cut short" 1 "incomplete" llama2c "$T/cut.v2" --out "$T/none.bin"
{ printf '24ka\003\0\0\0'; head -c 300 /dev/zero; } >"$T/v3.bin"
refuses "llama2c: version 3" 1 "another version" llama2c "$T/v3.bin" --out "$T/none.bin"
refuses "llama2c: a text" 1 "not a llama2.c file" llama2c "$G" --out "$T/none.bin"
refuses "llama2c: another model's tokenizer" 1 "more ids in the tokenizer" llama2c "$T/v2.bin" --tokenizer "$T/tok-sentencepiece" --out "$T/none.bin"
refuses "llama2c: no --out" 2 "out" llama2c "$T/v2.bin"
stories=$SHARED/data/stories260K
if [ -e "$stories/stories260K.bin" ]; then
    holds "llama2c: stories260K" $PREP llama2c "$stories/stories260K.bin" --tokenizer "$stories/tokenizer.model" --out "$T/stories"
    # The tensors are in the order of the published folder, which has the (tied) head a second time at its beginning.
    tail -c 1040128 "$stories/model.safetensors" >"$T/want"; tail -c 1040128 "$T/stories/model.safetensors" >"$T/got"
    holds "llama2c: every tensor bit for bit as published for Hugging Face" cmp "$T/want" "$T/got"
    holds "llama2c: 47 tensors and no more" test "$(tr '{' '\n' <"$T/stories/model.safetensors" | grep -a -c '^"dtype"')" = 47
    holds "llama2c: tokenizer.model byte for byte" cmp "$stories/tokenizer.model" "$T/stories/tokenizer.model"
    tr -d '\n ' <"$SHARED/golden/stories260K_golden.json" | sed 's/.*"greedy_ids":\[\([0-9,]*\)\].*/\1/' | tr ',' ' ' >"$T/want"; echo >>"$T/want"
    echo 1 | $GENERATE generate "$T/stories" --ids --greedy -n 200 >"$T/got"
    holds "llama2c: the golden 200 greedy tokens" cmp "$T/want" "$T/got"
    # The same weights as version 1, with another header and order. part FROM COUNT: float32s of the legacy file
    part() { tail -c +$((29 + 4 * $1)) "$stories/stories260K.bin" | head -c $((4 * $2)); }
    {
        printf '24ka\001\0\0\0'; head -c 28 "$stories/stories260K.bin"; printf '\001'; head -c 219 /dev/zero
        part 32768 320; part 94528 320; part 259968 64; part 0 32768; part 33088 61440; part 94848 165120
    } >"$T/v1.bin"
    holds "llama2c: version 1" $PREP llama2c "$T/v1.bin" --out "$T/v1"
    holds "llama2c: version 1 is the same model" cmp "$T/v1/model.safetensors" "$T/stories/model.safetensors"
    head -c 1056539 "$stories/stories260K.bin" >"$T/cut"
    refuses "llama2c: a byte too few" 1 "incomplete.*1056539" llama2c "$T/cut" --out "$T/none.bin"
else echo 1 >>"$T/skipped"; echo "  skip  llama2c: no $stories/stories260K.bin"; fi

# ---- third-party files, if they exist
real() {    # NAME WANTED FILE OPTIONS...
    name=$1 wanted=$2 file=$3; shift 3
    if [ ! -e "$SHARED/data/$file" ]; then echo 1 >>"$T/skipped"; echo "  skip  $name: no $SHARED/data/$file"; return; fi
    $PREP data "$SHARED/data/$file" --out "$T/real.bin" "$@" 2>&1 | sed "s|^$T/real.bin: ||; s/, [0-9]* held out.*//" | tr -s ' ' | tr '\n' '/' | same "$name" "$wanted"
}
real "IMDB" "25000 texts/ label negative 12500/ label positive 12500/" imdb/train.jsonl --labels negative,positive
real "IMDB, as TRL's example" "24888 texts/ label 0 12451/ label 1 12437/ left out: 112 shorter than 201 characters/" imdb/train.jsonl --min-length 201 --strip-html
real "Davidson et al." "24783 texts/ label hate 1430/ label offensive 19190/ label neither 4163/" hate/davidson_labeled_data.csv --label class --labels hate,offensive,neither
real "RealToxicityPrompts" "5000 prompts with responses/ label false 4951/ label true 49/" hate/realtoxicityprompts_5000.jsonl --prompt prompt.text --response continuation.text --label challenging
real "hh-rlhf" "1156 pairs (chosen, rejected)/" preferences/hh_harmless_odd.jsonl
real "DialogSum" "500 prompts with responses/" dialogsum/dialogsum.dev.jsonl --prompt dialogue --response summary
real "RealToxicityPrompts, as TRL's detoxifying example" "1912 texts/ left out: 3088, --where 'prompt.toxicity > 0.3'/" hate/realtoxicityprompts_5000.jsonl --no-label --text '{prompt.text}{continuation.text}' --where 'prompt.toxicity > 0.3'
real "DialogSum, as the lab reads it" "10022 prompts with responses/ left out: 4 shorter than 201 characters/ left out: 2434 longer than 1,000 characters/" dialogsum/dialogsum.train.jsonl --template 'Summarize the following conversation.\n\n{dialogue}\n\nSummary:\n' --response summary --min-length 201 --max-length 1000

lines() { wc -l <"$T/$1" | tr -d ' '; }
echo "prep: $(lines passed) passed, $(lines failed) failed, $(lines skipped) skipped"
[ ! -s "$T/failed" ]
