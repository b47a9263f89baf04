"""Exports of every kind of base load in transformers with nothing missing and nothing unexpected."""
import json

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import common


def train_and_export(tmp_path, model, **changes):
    shards = common.build_tokens(tmp_path / "data", common.random_documents(30, 3, 40, seed=9))
    config = common.write_config(tmp_path / "train.yaml", model, shards, tmp_path / "run", train__steps=3, **changes)
    common.osler("train", "--config", config)
    common.osler("export", "--run", tmp_path / "run", "--output", tmp_path / "out")
    return tmp_path / "out"


def layout(path):
    """File → names, dtypes and shapes."""
    found = {}
    for file in sorted(path.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            found[file.name] = [(n, tensors.get_slice(n).get_dtype(), tensors.get_slice(n).get_shape())
                                for n in sorted(tensors.keys())]
    return found


def assert_loads(path, kind=transformers.Gemma3ForCausalLM):
    model, info = kind.from_pretrained(path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("save", [{}, {"max_shard_size": "20KB"}])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_layout_is_that_of_the_base(tmp_path, dtype, save, precision):
    common.save_model(tmp_path / "model", dtype=dtype, **save)
    out = train_and_export(tmp_path, tmp_path / "model", train__precision=precision)
    assert layout(out) == layout(tmp_path / "model")
    for name in ("config.json", "generation_config.json"):
        assert (out / name).read_bytes() == (tmp_path / "model" / name).read_bytes()
    model = assert_loads(out)
    state = common.read_checkpoint(tmp_path / "run", 3)
    for name, value in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        trained = state.get(f"optimizer/{name}.master", state[f"weights/{name}"])
        assert torch.equal(value.to(dtype), trained.to(dtype)), name


def test_untied_head(tmp_path):
    common.save_model(tmp_path / "model", common.tiny_config(tie_word_embeddings=False))
    model = assert_loads(train_and_export(tmp_path, tmp_path / "model"))
    assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)


def test_tied_head_written_twice_stays_tied(tmp_path):
    common.save_model(tmp_path / "model")
    tensors = load_file(tmp_path / "model/model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, tmp_path / "model/model.safetensors", {"format": "pt"})
    exported = load_file(train_and_export(tmp_path, tmp_path / "model") / "model.safetensors")
    assert torch.equal(exported["lm_head.weight"], exported["model.embed_tokens.weight"])
    assert not torch.equal(exported["lm_head.weight"], tensors["lm_head.weight"])


def test_text_part_of_a_multimodal_base(tmp_path):
    text = common.tiny_config().to_dict()
    vision = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=28,
                  patch_size=14)
    config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4,
                                       image_token_index=130, boi_token_index=128, eoi_token_index=129)
    base = common.redraw(transformers.Gemma3ForConditionalGeneration(config))
    base.save_pretrained(tmp_path / "model")
    out = train_and_export(tmp_path, tmp_path / "model")
    assert layout(out) == layout(tmp_path / "model")
    model = assert_loads(out, transformers.Gemma3ForConditionalGeneration)
    for name, value in base.state_dict().items():
        changed = not torch.equal(value, model.state_dict()[name])
        assert changed == ("language_model" in name or name == "lm_head.weight"), name


def test_chosen_step_and_refusals(tmp_path):
    common.save_model(tmp_path / "model")
    train_and_export(tmp_path, tmp_path / "model", checkpoint__every_steps=1)
    common.osler("export", "--run", tmp_path / "run", "--output", tmp_path / "two", "--step", 2)
    exported = load_file(tmp_path / "two/model.safetensors")
    state = common.read_checkpoint(tmp_path / "run", 2)
    assert all(torch.equal(value, state[f"weights/{name}"]) for name, value in exported.items())
    assert "step-9" in common.osler("export", "--run", tmp_path / "run", "--output", tmp_path / "x", "--step", 9,
                                    expect=5).stderr
    common.osler("export", "--run", tmp_path / "nowhere", "--output", tmp_path / "x", expect=2)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("keep")
    common.osler("export", "--run", tmp_path / "run", "--output", tmp_path / "mine", expect=2)
    assert (tmp_path / "mine/thesis.txt").read_text() == "keep"
    assert json.loads((tmp_path / "two/config.json").read_text())["model_type"] == "gemma3_text"
