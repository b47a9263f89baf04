"""The decoder families against transformers: logits, gradients, packing, precision, config spellings, placements.

Oracle: transformers' models run on one document at a time, with every parameter (norms and biases included) drawn at
random.
"""
import copy
import dataclasses
import fnmatch
import json
import os
import pathlib
import subprocess

import numpy as np
import pytest
import torch
import transformers
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("OSLER_BIN", ROOT / "build/release/osler")).parent / "bin/model_parity"
LINEAR8 = {"rope_type": "linear", "factor": 8.0}
# A ramp that short heads reach with frequencies of all three kinds: kept, blended, divided.
RAMP = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}
# The same for YaRN; most documents are longer than the context it calls original.
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16, "beta_fast": 1.5, "beta_slow": 0.25}
torch.set_num_threads(1)  # tiny matrices: threads would only wait for each other
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
LENGTHS = [23, 1, 40, 17, 40]  # windows are shorter than some of them


def wide_gemma_norm(self, x):
    wide = x.double()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps) * (1 + self.weight.double())).type_as(x)


def wide_plain_norm(self, x):
    wide = x.double()
    return self.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)).type_as(x)


@dataclasses.dataclass
class Family:
    """transformers' classes, and its norm without the detour through fp32."""
    config: type
    model: type
    norm: type
    wide_norm: callable

    @property
    def architecture(self):
        return self.model.__name__


FAMILIES = {
    "gemma3_text": Family(transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM, Gemma3RMSNorm,
                          wide_gemma_norm),
    "llama": Family(transformers.LlamaConfig, transformers.LlamaForCausalLM, LlamaRMSNorm, wide_plain_norm),
    "qwen2": Family(transformers.Qwen2Config, transformers.Qwen2ForCausalLM, Qwen2RMSNorm, wide_plain_norm),
    "qwen3": Family(transformers.Qwen3Config, transformers.Qwen3ForCausalLM, Qwen3RMSNorm, wide_plain_norm),
}

# Keyword arguments of the configuration class; "old" marks those whose config.json is written in the spelling before
# 5.0.
SIZES = dict(vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=512, pad_token_id=None)
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
GEMMA = SIZES | dict(family="gemma3_text", head_dim=8, sliding_window=9, query_pre_attn_scalar=8, layer_types=MIXED)
LLAMA = SIZES | dict(family="llama")
QWEN2 = SIZES | dict(family="qwen2")
QWEN3 = SIZES | dict(family="qwen3")
CONFIGS = {
    "gqa_linear_rope": GEMMA | dict(query_pre_attn_scalar=13, rope_parameters={
        "full_attention": {"rope_theta": 3e5, **LINEAR8},
        "sliding_attention": {"rope_theta": 500.0, "rope_type": "default"}}),
    "mqa_odd_sizes": GEMMA | dict(vocab_size=101, hidden_size=35, intermediate_size=27, num_attention_heads=5,
                                  num_key_value_heads=1, head_dim=72),
    "widest_head_untied": GEMMA | dict(num_attention_heads=4, num_key_value_heads=1, head_dim=256, hidden_size=44,
                                       tie_word_embeddings=False, query_pre_attn_scalar=168),
    "old_spelling": GEMMA | dict(num_hidden_layers=6, head_dim=32, old=True, layer_types=None,
                                 sliding_window_pattern=3, rope_theta=5e5, rope_local_base_freq=777.0,
                                 rope_scaling=LINEAR8, rms_norm_eps=1e-5),
    "all_heads": GEMMA | dict(num_key_value_heads=4, sliding_window=2, layer_types=["full_attention"] * 2 +
                              ["sliding_attention"]),
    "llama_untied_ramp": LLAMA | dict(head_dim=64, rms_norm_eps=1e-5,
                                      rope_parameters={"rope_theta": 5e5, **RAMP}),
    "llama_tied_old_ramp": LLAMA | dict(old=True, hidden_size=64, num_attention_heads=2, num_key_value_heads=1,
                                        rope_theta=777.0, rope_scaling=RAMP, tie_word_embeddings=True),
    "llama_all_heads": LLAMA | dict(num_key_value_heads=None, hidden_size=96, vocab_size=101, intermediate_size=27),
    "llama_one_key_of_8": LLAMA | dict(old=True, num_attention_heads=8, num_key_value_heads=1, head_dim=80,
                                       rope_scaling={"rope_type": "linear", "factor": 3.0},
                                       tie_word_embeddings=True),
    "llama_yarn": LLAMA | dict(head_dim=64, rope_parameters={"rope_theta": 5e5, **YARN}),
    "llama_yarn_scales": LLAMA | dict(head_dim=32, rope_parameters={
        "rope_theta": 1e4, **YARN, "mscale": 0.707, "mscale_all_dim": 1.5, "truncate": False}),
    "qwen2_yarn_old": QWEN2 | dict(old=True, hidden_size=256, num_key_value_heads=1, rope_theta=1e6,
                                   tie_word_embeddings=True, rope_scaling={
                                       "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}),
    "qwen3_yarn_factors": QWEN3 | dict(head_dim=64, original_max_position_embeddings=32, rope_parameters={
        "rope_theta": 1e6, "rope_type": "yarn", "factor": None, "original_max_position_embeddings": 512,
        "attention_factor": 1.75}),
    "gemma3_yarn": GEMMA | dict(head_dim=64, rope_parameters={
        "full_attention": {"rope_theta": 1e6, **YARN},
        "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"}}),
    "qwen2_tied": QWEN2 | dict(hidden_size=128, num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True,
                               rope_parameters={"rope_theta": 1e6, "rope_type": "default"}),
    "qwen2_untied_windows": QWEN2 | dict(old=True, hidden_size=56, num_attention_heads=7, num_key_value_heads=1,
                                         use_sliding_window=True, sliding_window=9, max_window_layers=1),
    "qwen2_idle_window": QWEN2 | dict(old=True, rope_theta=1e6, use_sliding_window=False, sliding_window=9,
                                      max_window_layers=1, head_dim=96),
    "qwen3_tied": QWEN3 | dict(tie_word_embeddings=True, head_dim=128,
                               rope_parameters={"rope_theta": 1e6, "rope_type": "default"}),
    "qwen3_untied_windows": QWEN3 | dict(head_dim=96, num_attention_heads=6, hidden_size=40, use_sliding_window=True,
                                         sliding_window=9, layer_types=MIXED),
    "qwen3_old_spelling": QWEN3 | dict(old=True, head_dim=64, num_key_value_heads=4, rope_theta=1e6,
                                       rope_scaling=LINEAR8, sliding_window=None),
}


def family_of(name: str) -> Family:
    return FAMILIES[CONFIGS[name]["family"]]


def make_model(name: str) -> tuple[torch.nn.Module, dict]:
    """A model with every parameter random, and its config.json."""
    arguments = copy.deepcopy(CONFIGS[name])
    model_type, old = arguments.pop("family"), arguments.pop("old", False)
    family = FAMILIES[model_type]
    torch.manual_seed(5)
    model = family.model(family.config(attn_implementation="sdpa", **copy.deepcopy(arguments))).eval()
    draw(model)
    config = model.config.to_dict() | {"architectures": [family.architecture]}
    if old:
        config = {"architectures": [family.architecture], "model_type": model_type, "torch_dtype": "bfloat16",
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


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_and_gradients(name, tmp_path, monkeypatch):
    model, config = make_model(name)
    tensors = dict(model.named_parameters())
    documents, targets = make_documents(config["vocab_size"])
    fp64 = ours(tmp_path / "fp64", config, tensors, documents, targets, "fp64")
    # transformers' norms pass through fp32, which costs up to 2e-6 in six layers; with those made wide nothing is left.
    check(fp64, reference(model, documents, targets, torch.float64), 5e-6)
    with monkeypatch.context() as patch:
        patch.setattr(family_of(name).norm, "forward", family_of(name).wide_norm)
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


@pytest.mark.parametrize("name,precision", [
    ("gqa_linear_rope", "fp32"), ("gqa_linear_rope", "bf16"), ("gqa_linear_rope", "fp64"),
    ("llama_untied_ramp", "bf16"), ("qwen2_untied_windows", "fp32"), ("qwen3_tied", "bf16")])
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


@pytest.mark.parametrize("name", ["gqa_linear_rope", "llama_untied_ramp", "qwen2_untied_windows",
                                  "qwen3_untied_windows"])
def test_outputs_follow_every_token(name, tmp_path):
    """A token changes what comes at and after it in its document, through local layers as far as they reach."""
    model, config = make_model(name)
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
    arguments = {key: value for key, value in CONFIGS["gqa_linear_rope"].items() if key != "family"}
    text = transformers.Gemma3TextConfig(**arguments)
    vision = transformers.SiglipVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                                image_size=28, patch_size=14, vision_use_head=False)
    full = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=95,
                        boi_token_index=93, eoi_token_index=94)
    torch.manual_seed(2)
    model = transformers.Gemma3ForConditionalGeneration(full).double().eval()
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


def rope_of(parameters: dict, config) -> dict:
    if parameters["rope_type"] == "yarn":
        magnitude = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["yarn"](config)[1]
        return {"theta": parameters["rope_theta"], "factor": parameters["factor"], "yarn": [
            parameters.get("beta_fast", 32.0), parameters.get("beta_slow", 1.0),
            parameters["original_max_position_embeddings"], parameters.get("truncate", True), magnitude]}
    ramp = [parameters[key] for key in ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
            if key in parameters]
    return {"theta": parameters["rope_theta"], "factor": parameters.get("factor", 1.0)} | (
        {"llama3": ramp} if ramp else {})


# Files as they stand on the Hub, as far as they say something about the shape; a bare model_type is nothing but
# defaults.
HUB = {
    "gemma3_text": [
        {"hidden_size": 640, "num_hidden_layers": 18, "num_attention_heads": 4, "num_key_value_heads": 1,
         "intermediate_size": 2048, "sliding_window": 512, "max_position_embeddings": 32768, "vocab_size": 262144}],
    "llama": [
        {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
         "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256, "max_position_embeddings": 131072,
         "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": True, "pretraining_tp": 1,
         "mlp_bias": False, "rope_scaling": {**RAMP, "factor": 32.0, "original_max_position_embeddings": 8192}},
        {"hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 1024,
         "rope_parameters": {key: RAMP[key] for key in RAMP if key != "original_max_position_embeddings"}}],
    "qwen2": [
        {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
         "num_key_value_heads": 2, "rope_theta": 1e6, "use_sliding_window": False, "sliding_window": 32768,
         "max_window_layers": 21, "tie_word_embeddings": True},
        {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
         "num_key_value_heads": 4, "rope_theta": 1e6, "vocab_size": 152064,
         "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"}},
        {"num_key_value_heads": None, "num_hidden_layers": 30, "use_sliding_window": True}],
    "qwen3": [
        {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_key_value_heads": 8,
         "num_attention_heads": 16, "head_dim": 128, "rope_theta": 1e6, "rope_scaling": None, "sliding_window": None,
         "max_position_embeddings": 40960, "tie_word_embeddings": True}],
}


@pytest.mark.parametrize("model_type,keys", [(family, keys) for family in HUB for keys in [{}] + HUB[family]])
def test_defaults_are_those_of_transformers(model_type, keys, tmp_path):
    family = FAMILIES[model_type]
    got = describe(tmp_path / "config.json", {"model_type": model_type, **keys})
    config = family.config(**copy.deepcopy(keys))
    with torch.device("meta"):
        model = family.model(config)
    assert dict(got["parameters"]) == {name: list(p.shape) for name, p in model.named_parameters()}
    assert got["max_positions"] == config.max_position_embeddings
    if model_type == "gemma3_text":
        ropes = config.rope_parameters
        want = [{"window": None, "rope": rope_of(ropes["full_attention"], config)},
                {"window": config.sliding_window, "rope": rope_of(ropes["sliding_attention"], config)}]
    else:
        windows = [None] + [getattr(config, "sliding_window", None)] * bool(keys.get("use_sliding_window"))
        want = [{"window": window, "rope": rope_of(config.rope_parameters, config)} for window in windows]
    assert got["kinds"] == want
    check_placements(got, config)


def check_placements(got: dict, config) -> None:
    """Every parameter has one rule, and it is what transformers' tensor-parallel plan says of its module."""
    plan = {f"model.{pattern}": style for pattern, style in config.base_model_tp_plan.items()}
    splits = {"colwise": ("column", 0), "rowwise": ("row", 1)}
    for name, shape in got["parameters"]:
        (pattern, split, dim, unit), = [rule for rule in got["placements"] if fnmatch.fnmatchcase(name, rule[0])]
        module = name.rpartition(".")[0]
        styles = [style for key, style in plan.items() if fnmatch.fnmatchcase(module, key)]
        wanted = splits.get(styles[0] if styles else "", ("replicated", None))
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            wanted = ("vocabulary", 0)
        assert (split, dim) == wanted, name
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        heads = "self_attn" in name and split != "replicated"
        assert unit == (head_dim if heads else 1) and (dim is None or shape[dim] % unit == 0), name
    assert dict(got["rules"]).keys() == dict(got["parameters"]).keys() and None not in dict(got["rules"]).values()
    assert len(got["placements"]) == len({rule[0] for rule in got["placements"]})


def test_a_multimodal_file_gives_the_text_shape(tmp_path):
    text = {"hidden_size": 3840, "intermediate_size": 15360, "num_attention_heads": 16, "num_hidden_layers": 48,
            "num_key_value_heads": 8, "rope_scaling": LINEAR8, "sliding_window": 1024}
    config = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text}
    assert describe(tmp_path / "a.json", config) == describe(tmp_path / "b.json", {"model_type": "gemma3_text", **text})


@pytest.mark.parametrize("name", ["gqa_linear_rope", "llama_untied_ramp", "llama_tied_old_ramp", "llama_one_key_of_8",
                                  "qwen2_tied", "qwen3_old_spelling", "llama_yarn", "llama_yarn_scales",
                                  "qwen2_yarn_old", "qwen3_yarn_factors", "gemma3_yarn"])
def test_rope_tables_are_equal_to_the_bit(name, tmp_path):
    model, config = make_model(name)
    positions = [0, 1, 2, 63, 64, 511, 8191, 32768, 131071, 1_000_003]
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "positions.json").write_text(json.dumps(positions))
    subprocess.run([BINARY, "rope", tmp_path], check=True, env=ENVIRONMENT)
    width = model.model.layers[0].self_attn.head_dim
    got = torch.from_numpy(np.fromfile(tmp_path / "rope.bin", dtype="<f8")).view(-1, 2, len(positions), width)
    rotary, x = model.model.rotary_emb, torch.zeros(1, dtype=torch.float32)
    kinds = [["full_attention"], ["sliding_attention"]] if config["model_type"] == "gemma3_text" else [[]]
    assert len(got) == len(kinds)
    for tables, kind in zip(got, kinds):
        want = rotary(x, torch.tensor([positions]), *kind)
        for ours, theirs in zip(tables, want):
            assert torch.equal(ours.float(), theirs[0])
