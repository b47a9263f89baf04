#!/usr/bin/env python3
"""Writes reference values for tests/data/tokenizer_test.cc: a tokenizer.json with what `tokenizers` makes of texts and ids.

    .venv/bin/python scripts/golden/make_tokenizer_cases.py tests/golden/tokenizer_cases.json [texts [seed [vocabulary]]]
"""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "data"))

import tokenizer_models as models  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402


def main():
    path, numbers = sys.argv[1], [int(number) for number in sys.argv[2:]]
    texts, seed, vocabulary = (numbers + [120, 1, 520][len(numbers):])[:3]
    document = models.gemma(vocabulary)
    with open(path, "w", encoding="utf-8") as out:
        json.dump(models.cases(document, texts, seed), out, ensure_ascii=True, indent=None, separators=(",", ":"))
        out.write("\n")


if __name__ == "__main__":
    main()
