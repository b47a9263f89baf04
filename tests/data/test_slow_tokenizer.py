"""Megabyte notes and real texts, beside Hugging Face `tokenizers`."""

import csv
import json
import os
import random

import pytest

import tokenizer_models as models


def long_notes():
    rng = random.Random(11)
    words = [word for line in models.corpus() for word in line.split()]
    yield "".join(rng.choice(words) for _ in range(170000))[:1 << 20]                   # neither spaces nor newlines
    yield "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(1 << 20))
    yield "a" * (1 << 20)
    yield " ".join(rng.choice(words) for _ in range(150000))[:1 << 20]
    yield "病人主诉胸痛" * 50000
    yield "😀" * 100000
    yield "\n" * 300001 + " " * 300001
    yield (" " * 299 + "x") * 2000 + ("\t \n" * 100 + "'") * 1000
    yield "e\u0301" * 100000 + "\u0301\u0323" * 20000


KINDS = {"gemma": models.gemma, "gemma across spaces": lambda size=2000: models.gemma(size, across_spaces=True),
         "llama3": models.llama3, "qwen": models.qwen, "llama2": models.llama2}


@pytest.mark.parametrize("kind", list(KINDS))
def test_megabyte_notes(kind, tmp_path):
    notes = list(long_notes())  # the oracle is the slow side
    models.compare(KINDS[kind](), notes if kind in ("gemma", "qwen") else notes[::3], tmp_path)


def sample_texts():
    base = models.SAMPLES
    with open(os.path.join(base, "text_qa", "medqa_us_4opt_test.jsonl"), encoding="utf-8") as lines:
        yield from (json.loads(line)["question"] for line in lines)
    with open(os.path.join(base, "text_qa", "ori_pqal.json"), encoding="utf-8") as handle:
        yield from ("\n\n".join(item["CONTEXTS"]) for item in json.load(handle).values())
    with open(os.path.join(base, "text_dialog_notes", "MTS-Dialog-ValidationSet.csv"), encoding="utf-8", newline="") as rows:
        for row in csv.DictReader(rows):
            yield row["dialogue"]
            yield row["section_text"]
    with open(os.path.join(base, "text_dialog_notes", "aci_valid.csv"), encoding="utf-8", newline="") as rows:
        yield from (row["note"] for row in csv.DictReader(rows))
    with open(os.path.join(base, "text_plain", "wikitext2_valid.txt"), encoding="utf-8") as handle:
        yield handle.read()
    with open(os.path.join(base, "fhir_bulk_ndjson", "DocumentReference.000.ndjson"), encoding="utf-8") as lines:
        yield from (line for line in lines)  # the notes are base64 inside: long stretches without a space


@pytest.mark.skipif(not os.path.isdir(models.SAMPLES), reason="samples are not here")
@pytest.mark.parametrize("kind", list(KINDS))
def test_samples(kind, tmp_path):
    texts = list(sample_texts())
    assert len(texts) > 2000
    models.compare(KINDS[kind](4000), texts[::2] if kind in ("gemma", "llama3", "qwen") else texts[1::8], tmp_path)
