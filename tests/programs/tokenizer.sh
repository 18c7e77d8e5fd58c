#!/bin/sh
# Our SentencePiece models and ids against the sentencepiece library, where a Python with that module is at hand (see tokenizer_sp.py).
cd "$(dirname "$0")/../.." || exit 1
for python in python3 /usr/bin/python3; do
    if [ -z "$RUN" ] && "$python" -c 'import sentencepiece' 2> /dev/null; then exec "$python" tests/programs/tokenizer_sp.py build/tests/tokenizer; fi
done
echo "  skip  the sentencepiece library: no Python with it"
echo "tokenizer_test: 0 passed, 0 failed, 1 skipped"
