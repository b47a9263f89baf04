"""`osler score` judged by transformers."""
import json
import pathlib
import sys

import pytest
import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
import common  # noqa: E402


def score(tmp_path, model, lines, expect=0, precision="fp32"):
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = common.osler("score", "--model", model, "--input", tmp_path / "in.jsonl", "--output",
                        tmp_path / "out.jsonl", "--precision", precision, expect=expect)
    if expect:
        return done.stderr
    return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]


def log_probs(model, ids):
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    values = torch.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), -1)
    return [values[t, ids[t + 1]].item() for t in range(len(ids) - 1)]


@pytest.mark.parametrize("precision,dtype,tolerance", [("fp32", torch.float32, 1e-5), ("fp64", torch.float64, 2e-6)])
def test_equals_transformers(tmp_path, precision, dtype, tolerance):
    common.save_model(tmp_path / "m")
    documents = [ids for ids, _ in common.random_documents(30, 1, 150, seed=2)]
    lines = score(tmp_path, tmp_path / "m", [{"input_ids": ids} for ids in documents], precision=precision)
    reference = common.load_model(tmp_path / "m", dtype)
    assert len(lines) == len(documents)
    for ids, line in zip(documents, lines):
        assert line["tokens"] == len(ids)
        assert line["logprobs"] == pytest.approx(log_probs(reference, ids), abs=tolerance)


@pytest.mark.parametrize("changes", [dict(tie_word_embeddings=False), dict(head_dim=8, num_key_value_heads=1),
                                     dict(head_dim=72, vocab_size=97, hidden_size=40)])
def test_shapes_of_the_family(tmp_path, changes):
    config = common.tiny_config(**changes)
    common.save_model(tmp_path / "m", config)
    ids = common.random_documents(1, 60, 60, vocab=config.vocab_size)[0][0]
    line = score(tmp_path, tmp_path / "m", [{"input_ids": ids}])[0]
    assert line["logprobs"] == pytest.approx(log_probs(common.load_model(tmp_path / "m"), ids), abs=2e-5)


def test_sharded_weights_give_the_same(tmp_path):
    common.save_model(tmp_path / "one")
    common.save_model(tmp_path / "many", max_shard_size="20KB")
    assert (tmp_path / "many/model.safetensors.index.json").exists()
    lines = [{"input_ids": [3, 1, 4, 1, 5, 9, 2, 6]}]
    assert score(tmp_path, tmp_path / "one", lines) == score(tmp_path, tmp_path / "many", lines)


@pytest.mark.parametrize("line,words", [
    ({"input_ids": [1, 999]}, ["in.jsonl:2", "vocabulary"]),
    ({"input_ids": []}, ["in.jsonl:2"]),
    ({"input_ids": "12"}, ["in.jsonl:2"]),
    ({"prompt": "x"}, ["in.jsonl:2", "completion"]),
    ({"input_ids": [1], "images": ["a.png"]}, ["in.jsonl:2", "images"]),
])
def test_bad_lines(tmp_path, line, words):
    common.save_model(tmp_path / "m")
    (tmp_path / "out.jsonl").write_text("earlier\n")
    message = score(tmp_path, tmp_path / "m", [{"input_ids": [1, 2]}, line], expect=3)
    assert all(word in message for word in words), message
    assert (tmp_path / "out.jsonl").read_text() == "earlier\n"
