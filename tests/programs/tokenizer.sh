#!/bin/sh
# tests/programs/tokenizer.sh - our tokenizers against the sentencepiece library and Unicode's data
# (tokenizer_sp.py), with a Python that has the sentencepiece module if there is one, otherwise with any.
cd "$(dirname "$0")/../.." || exit 1
found=
for python in python3 /usr/bin/python3; do
    [ -z "$RUN" ] && command -v "$python" > /dev/null 2>&1 || continue
    [ -n "$found" ] || found=$python
    if "$python" -c 'import sentencepiece' 2> /dev/null; then found=$python; break; fi
done
if [ -n "$found" ]; then exec "$found" tests/programs/tokenizer_sp.py build/tests/tokenizer; fi
echo "  skip  WordPiece and the sentencepiece library: no Python"
echo "tokenizer_sp: 0 passed, 0 failed, 2 skipped"
