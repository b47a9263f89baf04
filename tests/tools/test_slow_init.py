"""`osler init` of every family judged by transformers."""
import json
import pathlib
import sys

import pytest
import torch
import transformers

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "data"))
import common  # noqa: E402
import tokenizer_models  # noqa: E402

FLAGS = ["--hidden-size", 64, "--layers", 6, "--heads", 4, "--kv-heads", 2, "--head-dim", 16, "--intermediate-size", 96]
CLASSES = {"gemma3": "Gemma3ForCausalLM", "llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM",
           "qwen3": "Qwen3ForCausalLM"}


def init(output, family, *flags, expect=0, **env):
    return common.osler("init", "--family", family, "--output", output, *FLAGS, *flags, expect=expect, **env)


@pytest.mark.parametrize("family", CLASSES)
@pytest.mark.parametrize("untied", [False, True], ids=["tied", "untied"])
def test_is_deterministic_and_loads_in_transformers(tmp_path, family, untied):
    flags = ["--vocab-size", 99, "--seed", 5] + ["--untied"] * untied
    init(tmp_path / "a", family, *flags)
    init(tmp_path / "b", family, *flags, OMP_NUM_THREADS=2)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()

    kind = getattr(transformers, CLASSES[family])
    model, info = kind.from_pretrained(tmp_path / "a", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert type(transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "a")) is kind
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight) == (not untied)
    # transformers reads the file as it stands: nothing it would have written otherwise.
    written = json.loads((tmp_path / "a/config.json").read_text())
    theirs = model.config.to_dict()
    assert {key: theirs[key] for key in written} == written
    weight = model.model.layers[0].mlp.up_proj.weight
    assert abs(weight.std().item() - 0.02) < 1e-3 and abs(weight.mean().item()) < 1e-3

    ids = [5, 4, 3, 2, 1] * 8
    (tmp_path / "in.jsonl").write_text(json.dumps({"input_ids": ids}) + "\n")
    common.osler("score", "--model", tmp_path / "a", "--input", tmp_path / "in.jsonl", "--output",
                 tmp_path / "out.jsonl")
    with torch.no_grad():
        values = torch.log_softmax(model.eval()(torch.tensor([ids])).logits[0], -1)
    want = [values[t, ids[t + 1]].item() for t in range(len(ids) - 1)]
    assert json.loads((tmp_path / "out.jsonl").read_text())["logprobs"] == pytest.approx(want, abs=1e-5)


def test_takes_special_ids_from_the_tokenizer(tmp_path):
    extra = {"<|endoftext|>": 2000, "<|im_end|>": 2001, "<|begin_of_text|>": 2002, "<|eot_id|>": 2003}
    document = tokenizer_models.gemma(2000)
    document["added_tokens"] += [tokenizer_models.added(i, text, special=True) for text, i in extra.items()]
    tokenizer_models.write_model(tmp_path / "t", document)
    want = {"gemma3": {"bos_token_id": 2, "eos_token_id": [1, 6], "pad_token_id": 0},
            "llama": {"bos_token_id": 2002, "eos_token_id": 2003},
            "qwen2": {"bos_token_id": 2000, "eos_token_id": [2000, 2001], "pad_token_id": 2000}}
    for family, ids in want.items():
        init(tmp_path / family, family, "--tokenizer", tmp_path / "t")
        generation = json.loads((tmp_path / family / "generation_config.json").read_text())
        assert generation == ids
        config = json.loads((tmp_path / family / "config.json").read_text())
        assert config["vocab_size"] == 2004 and config["bos_token_id"] == ids["bos_token_id"]
        loaded = transformers.GenerationConfig.from_pretrained(tmp_path / family)
        assert loaded.eos_token_id == ids["eos_token_id"]


def test_refusals(tmp_path):
    init(tmp_path / "a", "llama", "--vocab-size", 99)
    assert "already holds" in init(tmp_path / "a", "llama", "--vocab-size", 99, expect=2).stderr
    assert "qwen3" in init(tmp_path / "b", "mistral", "--vocab-size", 99, expect=2).stderr
    for flags in (["--sliding-window", 9], ["--global-every", 2]):
        assert "Gemma 3" in init(tmp_path / "b", "llama", "--vocab-size", 99, *flags, expect=2).stderr
    for flags in (["--layers", 0], ["--layers", -1], ["--global-every", 0], ["--head-dim", 12], ["--heads", 3]):
        init(tmp_path / "b", "gemma3", "--vocab-size", 99, *flags, expect=2)
    assert not (tmp_path / "b").exists()
    text = common.osler("init", "--help").stdout
    assert all(name in text for name in CLASSES.values()) and all(family in text for family in CLASSES)
