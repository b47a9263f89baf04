"""Exports of every kind of base load in transformers with nothing missing and nothing unexpected."""
import json

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import common


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return common.build_tokens(tmp_path_factory.mktemp("data"), common.random_documents(30, 3, 40, seed=9))


@pytest.fixture
def export(tmp_path, shards):
    """Trains a model directory into tmp_path/run and exports it; returns the exported directory."""
    def train_and_export(model, steps=3, **changes):
        config = common.write_config(tmp_path / "train.yaml", model, shards, tmp_path / "run", train__steps=steps,
                                     **changes)
        common.osler("train", "--config", config)
        common.osler("export", "--run", tmp_path / "run", "--output", tmp_path / "out")
        return tmp_path / "out"
    return train_and_export


def layout(path):
    """File → names, dtypes and shapes."""
    found = {}
    for file in sorted(path.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            found[file.name] = [(n, tensors.get_slice(n).get_dtype(), tensors.get_slice(n).get_shape())
                                for n in sorted(tensors.keys())]
    return found


def assert_loads(path, kind=transformers.AutoModelForCausalLM):
    model, info = kind.from_pretrained(path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
    return model


def tensors(path):
    return {name: tensor for file in path.glob("*.safetensors") for name, tensor in load_file(file).items()}


SAVES = {"one file": {}, "sharded": {"max_shard_size": "20KB"}}


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", common.FAMILIES)
def test_without_training_every_tensor_is_bit_equal(tmp_path, export, family, dtype, save, tied):
    """A learning rate of 0: what comes out is what went in."""
    base = tmp_path / "model"
    common.save_model(base, common.tiny_config(family, tie_word_embeddings=tied), dtype=dtype, **SAVES[save])
    assert (len(list(base.glob("*.safetensors"))) > 1) == (save == "sharded")
    out = export(base, steps=1, optimizer__lr=0.0,
                           train__precision="bf16" if dtype == torch.bfloat16 else "fp32")
    assert layout(out) == layout(base)
    before, after = tensors(base), tensors(out)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    for path in base.iterdir():
        if path.suffix != ".safetensors":
            assert (out / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("family,dtype,save,precision", [
    ("gemma3_text", torch.float32, "one file", "fp32"), ("gemma3_text", torch.bfloat16, "sharded", "fp32"),
    ("gemma3_text", torch.float32, "sharded", "bf16"), ("gemma3_text", torch.bfloat16, "one file", "bf16"),
    ("llama", torch.bfloat16, "sharded", "bf16"), ("qwen2", torch.float32, "sharded", "bf16"),
    ("qwen3", torch.bfloat16, "one file", "fp32")])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_trained_weights_have_the_layout_of_the_base(tmp_path, export, family, dtype, save, precision, tied):
    base = tmp_path / "model"
    common.save_model(base, common.tiny_config(family, tie_word_embeddings=tied), dtype=dtype, **SAVES[save])
    out = export(base, train__precision=precision)
    assert layout(out) == layout(base)
    before, after = tensors(base), tensors(out)
    # bf16 may round a small step away, but not everywhere in a matrix.
    assert all(not torch.equal(after[name], value) for name, value in before.items() if value.dim() == 2)
    model = assert_loads(out)
    state = common.read_checkpoint(tmp_path / "run", 3)
    for name, value in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        trained = state.get(f"optimizer/{name}.master", state[f"weights/{name}"])
        assert torch.equal(value.to(dtype), trained.to(dtype)), name
    if not tied:
        assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)


def test_tied_head_written_twice_stays_tied(tmp_path, export):
    common.save_model(tmp_path / "model")
    base = load_file(tmp_path / "model/model.safetensors")
    base["lm_head.weight"] = base["model.embed_tokens.weight"].clone()
    save_file(base, tmp_path / "model/model.safetensors", {"format": "pt"})
    exported = load_file(export(tmp_path / "model") / "model.safetensors")
    assert torch.equal(exported["lm_head.weight"], exported["model.embed_tokens.weight"])
    assert not torch.equal(exported["lm_head.weight"], base["lm_head.weight"])


def test_text_part_of_a_multimodal_base(tmp_path, export):
    text = common.tiny_config().to_dict()
    vision = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=28,
                  patch_size=14)
    config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4,
                                       image_token_index=130, boi_token_index=128, eoi_token_index=129)
    base = common.redraw(transformers.Gemma3ForConditionalGeneration(config))
    base.save_pretrained(tmp_path / "model")
    out = export(tmp_path / "model")
    assert layout(out) == layout(tmp_path / "model")
    model = assert_loads(out, transformers.Gemma3ForConditionalGeneration)
    for name, value in base.state_dict().items():
        changed = not torch.equal(value, model.state_dict()[name])
        assert changed == ("language_model" in name or name == "lm_head.weight"), name


def test_chosen_step_and_refusals(tmp_path, export):
    common.save_model(tmp_path / "model")
    export(tmp_path / "model", checkpoint__every_steps=1)
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
