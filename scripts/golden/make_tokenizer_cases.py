#!/usr/bin/env python3
"""Writes reference values for tests/data/tokenizer_test.cc: a tokenizer.json of each flavour with
what `tokenizers` makes of texts and ids.

    .venv/bin/python scripts/golden/make_tokenizer_cases.py tests/golden/tokenizer_cases.json [texts [seed [vocabulary]]]
"""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "data"))

import tokenizer_models as models  # noqa: E402


def main():
    path, numbers = sys.argv[1], [int(number) for number in sys.argv[2:]]
    texts, seed, vocabulary = (numbers + [60, 1, 520][len(numbers):])[:3]
    flavours = {name: models.cases(make(vocabulary), texts, seed) for name, make in models.FLAVOURS.items()}
    with open(path, "w", encoding="utf-8") as out:
        json.dump(flavours, out, ensure_ascii=True, indent=None, separators=(",", ":"))
        out.write("\n")


if __name__ == "__main__":
    main()
