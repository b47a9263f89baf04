#!/usr/bin/env python3
"""Encoding speed beside Hugging Face `tokenizers`: the same tokenizer.json and texts, one thread each, CPU time.

    cmake --build build/release --target tokenizer_bench && .venv/bin/python scripts/bench/tokenizer.py [VOCABULARY]

For every flavour a vocabulary (4,000 tokens unless given) is trained on the sample texts; texts are encoded one at a time, the fastest of
three rounds counts, and the number of tokens must be the same.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time

os.environ.update(TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "data"))

import tokenizer_models as models  # noqa: E402
from test_slow_tokenizer import long_notes, sample_texts  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

ROUNDS = 3


def peer(document, texts):
    tokenizer = Tokenizer.from_str(json.dumps(document))
    best = float("inf")
    for _ in range(ROUNDS):
        start, tokens = time.process_time(), 0
        for text in texts:
            tokens += len(tokenizer.encode(text).ids)
        best = min(best, time.process_time() - start)
    return tokens, best


def ours(document, texts, directory):
    tokenizer, lines = os.path.join(directory, "tokenizer.json"), os.path.join(directory, "texts.jsonl")
    with open(tokenizer, "w", encoding="utf-8") as out:
        json.dump(document, out)
    with open(lines, "w", encoding="utf-8") as out:
        out.writelines(json.dumps(text) + "\n" for text in texts)
    binary = os.path.join(ROOT, "build", "release", "bin", "tokenizer_bench")
    done = json.loads(subprocess.run([binary, tokenizer, lines, str(ROUNDS)], check=True, capture_output=True).stdout)
    return done["tokens"], done["seconds"]


def main():
    vocabulary = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    samples = list(sample_texts()) if os.path.isdir(models.SAMPLES) else models.corpus()
    texts = {"samples": samples, "megabyte notes": list(long_notes())[:5]}
    models.corpus = lambda: samples
    print(f"{platform.processor() or platform.machine()}, one thread, CPU time, vocabulary {vocabulary}")
    print(f"{'flavour':8} {'texts':15} {'osler MB/s':>11} {'tokenizers MB/s':>16} {'ratio':>6}")
    for name, make in models.FLAVOURS.items():
        document = make(vocabulary)
        for kind, some in texts.items():
            size = sum(len(text.encode()) for text in some) / 1e6
            with tempfile.TemporaryDirectory() as directory:
                tokens, seconds = ours(document, some, directory)
            peer_tokens, peer_seconds = peer(document, some)
            assert tokens == peer_tokens, (name, kind, tokens, peer_tokens)
            print(f"{name:8} {kind:15} {size / seconds:11.1f} {size / peer_seconds:16.1f} {peer_seconds / seconds:6.1f}",
                  flush=True)


if __name__ == "__main__":
    main()
