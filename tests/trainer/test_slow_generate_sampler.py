"""The sampler's candidates and their probabilities are those of transformers' logits warpers."""
import itertools
import json
import os
import pathlib
import subprocess

import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

PROGRAM = pathlib.Path(os.environ.get("OSLER_BIN", "build/release/osler")).resolve().parent / "bin/trainer_generate_sampler"


def ask(cases):
    done = subprocess.run([PROGRAM], input="".join(json.dumps(case) + "\n" for case in cases), text=True,
                          capture_output=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def warped(case):
    scores = torch.tensor([case["logits"]], dtype=torch.float64)
    if case["temperature"] != 1:
        scores = TemperatureLogitsWarper(float(case["temperature"]))(None, scores)
    if case["top_k"]:
        scores = TopKLogitsWarper(case["top_k"])(None, scores)
    if case["top_p"] < 1:
        scores = TopPLogitsWarper(case["top_p"])(None, scores)
    kept = torch.isfinite(scores[0]).nonzero()[:, 0]
    return kept.tolist(), torch.softmax(scores, -1)[0, kept].tolist()


def rows(count, vocabulary, spread, seed):
    return (torch.randn(count, vocabulary, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            * spread).tolist()


SHAPES = [(2, 1), (37, 3), (1000, 0.2), (1000, 8)]  # vocabulary, spread of the logits


def test_equals_the_warpers():
    settings = itertools.product([0.3, 1, 1.7], [0, 1, 5, 50, 5000], [0.01, 0.5, 0.9, 0.999, 1])
    cases = [{"logits": logits, "temperature": temperature, "top_k": top_k, "top_p": top_p}
             for seed, (temperature, top_k, top_p) in enumerate(settings)
             for vocabulary, spread in SHAPES for logits in rows(2, vocabulary, spread, seed)]
    for case, got in zip(cases, ask(cases), strict=True):
        ids, probabilities = warped(case)
        setting = {key: value for key, value in case.items() if key != "logits"}
        assert got["ids"] == ids, setting
        assert got["probabilities"] == pytest.approx(probabilities, rel=1e-9, abs=1e-15), setting


def test_ties_at_the_kth_logit_are_all_kept():
    case = {"logits": [1.0, 2.0, 1.0, 0.5, 1.0], "temperature": 1, "top_k": 2, "top_p": 1}
    assert ask([case])[0]["ids"] == warped(case)[0] == [0, 1, 2, 4]


def test_greedy_takes_the_first_of_the_largest():
    assert ask([{"logits": [1.0, 3.0, 3.0], "temperature": 0, "top_k": 0, "top_p": 1}]) == [
        {"ids": [1], "probabilities": [1.0]}]


def test_top_p_of_a_large_vocabulary():
    # Flat enough that thousands of tokens are needed: the sorted head of the list grows several times.
    case = {"logits": rows(1, 20000, 1, 9)[0], "temperature": 1, "top_k": 0, "top_p": 0.8}
    got = ask([case])[0]
    ids, probabilities = warped(case)
    assert len(ids) > 4000 and got["ids"] == ids
    assert got["probabilities"] == pytest.approx(probabilities, rel=1e-9)
