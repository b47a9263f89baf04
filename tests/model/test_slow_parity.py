"""The Gemma 3 text blocks against transformers: logits, gradients, packing, precision, config spellings.

Oracle: transformers' Gemma3ForCausalLM run on one document at a time, with every parameter (norms included)
drawn at random.
"""
import copy
import json
import os
import pathlib
import subprocess

import numpy as np
import pytest
import torch
from transformers import (Gemma3Config, Gemma3ForCausalLM, Gemma3ForConditionalGeneration, Gemma3TextConfig,
                          SiglipVisionConfig)
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("OSLER_BIN", ROOT / "build/release/osler")).parent / "bin/model_parity"
LINEAR8 = {"rope_type": "linear", "factor": 8.0}
torch.set_num_threads(1)  # tiny matrices: threads would only wait for each other
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
LENGTHS = [23, 1, 40, 17, 40]  # the window of every configuration is shorter than some of them

# Keyword arguments of Gemma3TextConfig; "old" marks those whose config.json is written in the spelling before 5.0.
BASE = dict(vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, head_dim=8, sliding_window=9, query_pre_attn_scalar=8, max_position_embeddings=512,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"], pad_token_id=None)
CONFIGS = {
    "gqa_linear_rope": BASE | dict(query_pre_attn_scalar=13, rope_parameters={
        "full_attention": {"rope_theta": 3e5, **LINEAR8},
        "sliding_attention": {"rope_theta": 500.0, "rope_type": "default"}}),
    "mqa_odd_sizes": BASE | dict(vocab_size=101, hidden_size=35, intermediate_size=27, num_attention_heads=5,
                                 num_key_value_heads=1, head_dim=72),
    "widest_head_untied": BASE | dict(num_attention_heads=4, num_key_value_heads=1, head_dim=256, hidden_size=44,
                                      tie_word_embeddings=False, query_pre_attn_scalar=168),
    "old_spelling": BASE | dict(num_hidden_layers=6, head_dim=32, old=True, layer_types=None, sliding_window_pattern=3,
                                rope_theta=5e5, rope_local_base_freq=777.0, rope_scaling=LINEAR8, rms_norm_eps=1e-5),
    "all_heads": BASE | dict(num_key_value_heads=4, sliding_window=2, layer_types=["full_attention"] * 2 +
                             ["sliding_attention"]),
}


def make_model(name: str) -> tuple[Gemma3ForCausalLM, dict]:
    """A model with every parameter random, and its config.json."""
    arguments = copy.deepcopy(CONFIGS[name])
    old = arguments.pop("old", False)
    torch.manual_seed(5)
    model = Gemma3ForCausalLM(Gemma3TextConfig(attn_implementation="sdpa", **copy.deepcopy(arguments))).eval()
    draw(model)
    config = model.config.to_dict() | {"architectures": ["Gemma3ForCausalLM"]}
    if old:
        config = {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "torch_dtype": "bfloat16",
                  **{key: value for key, value in arguments.items() if value is not None}}
    return model, config


def draw(model: torch.nn.Module) -> None:
    for name, parameter in model.named_parameters():
        std = 0.4 if "norm" in name else 0.3 if "embed" in name else parameter.shape[-1] ** -0.5
        parameter.data.normal_(0, std)
        parameter.data = parameter.data.bfloat16().float()  # so that bf16 runs start from the same weights


def make_documents(vocabulary: int, seed: int = 3) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Ids (0 included) and next-token targets, some of them left out."""
    generator = torch.Generator().manual_seed(seed)
    documents, targets = [], []
    for length in LENGTHS:
        ids = torch.randint(0, vocabulary, (length,), generator=generator)
        target = torch.cat([ids[1:], torch.tensor([-100])])
        target[torch.rand(length, generator=generator) < 0.2] = -100
        documents.append(ids)
        targets.append(target)
    documents[0][2] = 0
    return documents, targets


def reference(model, documents, targets, dtype) -> dict:
    """One document at a time; the sum of losses, its gradients, logits of all documents in order."""
    model = copy.deepcopy(model)
    if dtype == torch.bfloat16:  # as from_pretrained does: parameters alone, not the RoPE buffers
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype)
    else:
        model = model.to(dtype)
    logits, loss = [], 0.0
    for ids, target in zip(documents, targets):
        out = model(input_ids=ids[None], use_cache=False).logits[0]
        wide = out.double() if dtype == torch.float64 else out.float()
        total = torch.nn.functional.cross_entropy(wide, target, reduction="sum", ignore_index=-100)
        total.backward()
        loss += total.item()
        logits.append(out.detach().double())
    grads = {name: parameter.grad.double() for name, parameter in model.named_parameters()}
    return {"logits": torch.cat(logits), "loss": loss, "grads": grads}


def ours(work: pathlib.Path, config: dict, tensors: dict, documents, targets, precision: str) -> dict:
    work.mkdir(parents=True, exist_ok=True)
    (work / "config.json").write_text(json.dumps(config))
    entries = {}
    for index, (name, tensor) in enumerate(tensors.items()):
        entries[name] = {"file": f"tensor.{index}.bin", "shape": list(tensor.shape)}
        tensor.detach().double().numpy().tofile(work / f"tensor.{index}.bin")
    starts = np.cumsum([0] + [len(ids) for ids in documents[:-1]]).tolist()
    (work / "run.json").write_text(json.dumps({
        "dtype": precision, "tokens": torch.cat(documents).tolist(), "targets": torch.cat(targets).tolist(),
        "doc_starts": starts, "tensors": entries}))
    done = subprocess.run([BINARY, "run", work], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    load = lambda file: torch.from_numpy(np.fromfile(work / file, dtype="<f8"))
    result = json.loads((work / "result.json").read_text())
    names, sizes = zip(*result["grads"])
    return {"logits": load("logits.bin").view(sum(map(len, documents)), -1), "loss": result["loss"],
            "grads": dict(zip(names, load("grads.bin").split(list(sizes))))}


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a.flatten() - b.flatten()).norm() / b.norm()).item()


def check(got: dict, want: dict, tolerance: float) -> None:
    assert relative(got["logits"], want["logits"]) < tolerance
    assert got["loss"] == pytest.approx(want["loss"], rel=tolerance)
    assert set(got["grads"]) == set(want["grads"])
    floor = 1e-6 * torch.stack([grad.norm() for grad in want["grads"].values()]).norm()
    for name, grad in want["grads"].items():
        assert grad.norm() > 0, f"{name}: the oracle's gradient is zero, so nothing is tested"
        error = (got["grads"][name] - grad.flatten()).norm() / max(grad.norm(), floor)
        assert error < tolerance, f"{name}: {error:.2e}"


def wide_norm(self, x):
    wide = x.double()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps) * (1 + self.weight.double())).type_as(x)


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_and_gradients(name, tmp_path, monkeypatch):
    model, config = make_model(name)
    tensors = dict(model.named_parameters())
    documents, targets = make_documents(config["vocab_size"])
    fp64 = ours(tmp_path / "fp64", config, tensors, documents, targets, "fp64")
    # transformers' norms pass through fp32, which costs up to 2e-6 in six layers; with those made wide nothing is left.
    check(fp64, reference(model, documents, targets, torch.float64), 5e-6)
    with monkeypatch.context() as patch:
        patch.setattr(Gemma3RMSNorm, "forward", wide_norm)
        check(fp64, reference(model, documents, targets, torch.float64), 1e-12)

    fp32 = ours(tmp_path / "fp32", config, tensors, documents, targets, "fp32")
    their32 = reference(model, documents, targets, torch.float32)
    assert (fp32["logits"] - their32["logits"]).abs().max() < 1e-4
    assert fp32["loss"] == pytest.approx(their32["loss"], rel=1e-5)
    check(fp32, their32, 1e-4)

    bf16 = ours(tmp_path / "bf16", config, tensors, documents, targets, "bf16")
    their16 = reference(model, documents, targets, torch.bfloat16)
    exact = fp64["logits"]
    assert relative(bf16["logits"], exact) <= 2 * relative(their16["logits"], exact)
    total = lambda run: torch.cat([run["grads"][key].flatten() for key in sorted(run["grads"])])
    assert relative(total(bf16), total(fp64)) <= 2 * relative(total(their16), total(fp64))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp64"])
@pytest.mark.parametrize("name", ["gqa_linear_rope", "old_spelling"])
def test_documents_are_separate_to_the_bit(name, precision, tmp_path):
    model, config = make_model(name)
    tensors = dict(model.named_parameters())
    documents, targets = make_documents(config["vocab_size"])
    first = ours(tmp_path / "a", config, tensors, documents, targets, precision)
    changed = [ids.clone() for ids in documents]
    changed[2] = (changed[2] + 1) % config["vocab_size"]
    second = ours(tmp_path / "b", config, tensors, changed, targets, precision)
    start = sum(LENGTHS[:2])
    end = start + LENGTHS[2]
    same = (first["logits"] == second["logits"]).all(dim=1)
    assert same[:start].all() and same[end:].all()
    assert not same[start:end].any()
    again = ours(tmp_path / "a", config, tensors, documents, targets, precision)
    assert torch.equal(first["logits"], again["logits"])
    assert all(torch.equal(first["grads"][key], again["grads"][key]) for key in first["grads"])


def test_outputs_follow_every_token(tmp_path):
    """A token changes what comes at and after it in its document, through local layers as far as they reach."""
    model, config = make_model("gqa_linear_rope")
    tensors = dict(model.named_parameters())
    documents, targets = make_documents(config["vocab_size"])
    first = ours(tmp_path, config, tensors, documents, targets, "fp64")
    for place in (0, 7, 39):
        changed = [ids.clone() for ids in documents]
        changed[4][place] = (changed[4][place] + 1) % config["vocab_size"]
        second = ours(tmp_path, config, tensors, changed, targets, "fp64")
        at = sum(LENGTHS[:4]) + place
        same = (first["logits"] == second["logits"]).all(dim=1)
        assert same[:at].all() and not same[at:].any()


def test_multimodal_directory_gives_its_text_half(tmp_path):
    text = Gemma3TextConfig(**(CONFIGS["gqa_linear_rope"]))
    vision = SiglipVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                                image_size=28, patch_size=14, vision_use_head=False)
    full = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=95,
                        boi_token_index=93, eoi_token_index=94)
    torch.manual_seed(2)
    model = Gemma3ForConditionalGeneration(full).double().eval()
    draw(model)
    model = model.double()
    documents, targets = make_documents(90)
    want = torch.cat([model(input_ids=ids[None]).logits[0] for ids in documents]).detach()
    model.save_pretrained(tmp_path / "hub")
    config = json.loads((tmp_path / "hub/config.json").read_text())
    in_memory = dict(model.named_parameters())
    assert any("vision_tower" in name for name in in_memory)
    hub = {name.replace("model.language_model.", "language_model.model.").replace(
        "model.vision_tower.", "vision_tower."): tensor for name, tensor in in_memory.items()}
    for spelling, tensors in (("memory", in_memory), ("hub", hub)):
        got = ours(tmp_path / spelling, config, tensors, documents, targets, "fp64")
        assert relative(got["logits"], want) < 2e-6


def describe(path: pathlib.Path, config: dict) -> dict:
    path.write_text(json.dumps(config))
    done = subprocess.run([BINARY, "describe", path], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("config", [
    {"model_type": "gemma3_text"},  # nothing but defaults
    {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "hidden_size": 640, "num_hidden_layers": 18,
     "num_attention_heads": 4, "num_key_value_heads": 1, "intermediate_size": 2048, "sliding_window": 512,
     "max_position_embeddings": 32768, "vocab_size": 262144},
    {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": {
        "hidden_size": 3840, "intermediate_size": 15360, "num_attention_heads": 16, "num_hidden_layers": 48,
        "num_key_value_heads": 8, "rope_scaling": LINEAR8, "sliding_window": 1024, "model_type": "gemma3_text"}},
], ids=["defaults", "270m", "12b"])
def test_defaults_are_those_of_transformers(config, tmp_path):
    got = describe(tmp_path / "config.json", config)
    text = Gemma3TextConfig(**{key: value for key, value in config.get("text_config", config).items()
                               if key not in ("architectures", "model_type")})
    with torch.device("meta"):
        model = Gemma3ForCausalLM(text)
    want = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    assert {name: shape for name, shape in got["parameters"]} == want
    full, local = text.rope_parameters["full_attention"], text.rope_parameters["sliding_attention"]
    assert got["kinds"] == [
        {"window": None, "theta": full["rope_theta"], "factor": full.get("factor", 1.0)},
        {"window": text.sliding_window, "theta": local["rope_theta"], "factor": local.get("factor", 1.0)}]
    assert got["max_positions"] == text.max_position_embeddings
