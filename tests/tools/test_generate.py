"""`osler generate` judged by transformers' generate."""
import json
import pathlib
import sys

import pytest
import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
import common  # noqa: E402

DTYPES = {"fp32": torch.float32, "fp64": torch.float64}


def generate(tmp_path, model, lines, *flags, expect=0, **env):
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = common.osler("generate", "--model", model, "--input", tmp_path / "in.jsonl", "--output",
                        tmp_path / "out.jsonl", *flags, expect=expect, **env)
    if expect:
        return done.stderr
    return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]


def prompts(count, low, high, seed=0):
    return [ids for ids, _ in common.random_documents(count, low, high, seed=seed)]


def greedy(model, ids, new, ends=None):
    with torch.no_grad():
        out = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), do_sample=False,
                             max_new_tokens=new, eos_token_id=ends, pad_token_id=0)
    return out[0, len(ids):].tolist()


def greedy_batch(model, prompts_, new):
    """One left-padded batch, as transformers' users run it."""
    width = max(map(len, prompts_))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts_])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts_])
    with torch.no_grad():
        out = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=new, eos_token_id=None,
                             pad_token_id=0)
    return [row[width:].tolist() for row in out]


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_greedy_equals_transformers(tmp_path, precision):
    # The window of 8 is shorter than most prompts and all sequences: rings wrap many times.
    common.save_model(tmp_path / "m")
    reference = common.load_model(tmp_path / "m", DTYPES[precision])
    reference.generation_config.eos_token_id = None
    (tmp_path / "m/generation_config.json").unlink()
    asked = prompts(9, 1, 40, seed=3)
    lines = generate(tmp_path, tmp_path / "m", [{"input_ids": p} for p in asked], "--max-new-tokens", 45,
                     "--batch", 4, "--precision", precision)
    assert len(lines) == len(asked)
    ends = config_ends(tmp_path / "m")
    for ids, line in zip(asked, lines):
        assert line["output_ids"] == greedy(reference, ids, 45, ends)
        assert line["prompt_tokens"] == len(ids)
        assert line["finish"] == ("eos" if line["output_ids"][-1] in ends else "length")


def config_ends(path):
    return [json.loads((path / "config.json").read_text())["eos_token_id"]]
