"""Files of ours in other people's readers, and theirs in ours: safetensors, google_crc32c, transformers."""
import json
import os
import pathlib
import re
import subprocess
import sys

import google_crc32c
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

REPO = pathlib.Path(__file__).resolve().parents[2]
OSLER = pathlib.Path(os.environ.get("OSLER_BIN", REPO / "build/release/osler"))
sys.path.insert(0, str(REPO / "tests/checkpoint"))
from write_checkpoint import write_checkpoint  # noqa: E402

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
          torch.uint8, torch.bool]


def ours(part, directory):
    """Runs one test of interop_test.cc on this directory."""
    binary = OSLER.parent / "bin/checkpoint_interop_test"
    done = subprocess.run([binary, f"--gtest_filter=Interop.{part}"], capture_output=True, text=True,
                          env=os.environ | {"OSLER_INTEROP_DIR": str(directory)})
    assert done.returncode == 0 and "[  PASSED  ] 1 test" in done.stdout, done.stdout + done.stderr


def bits(tensor):
    return tensor.dtype, tuple(tensor.shape), tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def same(a, b):
    return a.keys() == b.keys() and all(bits(a[name]) == bits(b[name]) for name in a)


def random_tensors():
    torch.manual_seed(0)
    tensors = {"scalar": torch.tensor(3.5), "none": torch.empty(0, 7, dtype=torch.bfloat16), "ünï\"\\": torch.ones(3)}
    for dtype in DTYPES:
        for shape in [(1,), (3, 5), (2, 1, 4)]:
            raw = torch.randint(0, 256, (*shape, dtype.itemsize), dtype=torch.uint8)
            value = raw.squeeze(-1) % 2 == 0 if dtype == torch.bool else raw.view(dtype).reshape(shape)
            tensors[f"{dtype}-{len(shape)}"] = value.clone()
    return tensors


def test_every_dtype_both_ways(tmp_path):
    tensors = random_tensors()
    tensors |= {str(dtype): torch.randn(8).to(dtype) for dtype in (torch.float8_e4m3fn, torch.float8_e5m2)}
    save_file(tensors, tmp_path / "input.safetensors", metadata={"format": "pt", "ключ": "значение\n"})
    ours("Echo", tmp_path)
    assert same(load_file(tmp_path / "output.safetensors"), tensors)
    with safe_open(tmp_path / "output.safetensors", framework="pt") as opened:
        assert opened.metadata() == {"format": "pt", "ключ": "значение\n"}


def test_checkpoint_is_read_by_the_documented_snippet(tmp_path):
    tensors = random_tensors()
    save_file(tensors, tmp_path / "input.safetensors")
    ours("SaveCheckpoint", tmp_path)
    [snippet] = re.findall(r"```python\n(.*?)```", (REPO / "docs/checkpoint.md").read_text(), re.S)
    assert len(snippet.splitlines()) <= 30
    read = {}
    exec(snippet, read)
    newest = read["newest"](tmp_path / "run")
    assert newest.name == "step-2"
    loaded, texts = read["read_checkpoint"](newest)
    assert loaded.keys() == {"weights", "optimizer"}
    assert same(loaded["weights"], tensors)
    assert same(loaded["optimizer"], {name + ".m": value for name, value in tensors.items()})
    assert texts == {"cursor.json": '{"epoch": 0}', "config.resolved.yaml": "train: {steps: 2}\n"}


def test_manifest_checksums_are_crc32c(tmp_path):
    save_file({"a": torch.arange(1000.0)}, tmp_path / "input.safetensors")
    ours("SaveCheckpoint", tmp_path)
    directory = tmp_path / "run/checkpoints/step-2"
    files = json.loads((directory / "manifest.json").read_text())["files"]
    assert {file["name"] for file in files} | {"manifest.json"} == {path.name for path in directory.iterdir()}
    for file in files:
        assert f"{google_crc32c.value((directory / file['name']).read_bytes()):08x}" == file["crc32c"]


def test_checkpoint_written_from_the_page_is_good(tmp_path):
    root = tmp_path / "run/checkpoints"
    write_checkpoint(root, 3, {"weights": {"a": torch.ones(2)}}, {})
    write_checkpoint(root, 7, {"weights": {"a": torch.ones(3)}, "optimizer": {"b": torch.ones(2)}}, {"x.json": "{}"})
    ours("VerifyCheckpoint", tmp_path)


def tiny_gemma(tied):
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig
    config = Gemma3TextConfig(vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=3, head_dim=8,
                              num_attention_heads=4, num_key_value_heads=2, sliding_window=8, tie_word_embeddings=tied,
                              max_position_embeddings=64)
    model = Gemma3ForCausalLM(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shard_size", ["1GB", "30KB"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_transformers_loads_the_export(tmp_path, tied, shard_size, dtype):
    from transformers import AutoModelForCausalLM
    torch.manual_seed(1)
    tiny_gemma(tied).to(dtype).save_pretrained(tmp_path / "base", max_shard_size=shard_size)
    files = sorted(path.name for path in (tmp_path / "base").glob("*.safetensors"))
    assert (len(files) > 1) == (shard_size == "30KB")
    base = {name: value for file in files for name, value in load_file(tmp_path / "base" / file).items()}
    assert ("lm_head.weight" in base) != tied
    trained = {name: torch.randn(value.shape) for name, value in base.items() if "layers.1." not in name}
    save_file(trained, tmp_path / "input.safetensors")
    ours("Export", tmp_path)
    expected = {name: trained[name].to(dtype) if name in trained else value for name, value in base.items()}
    exported = {name: value for file in files for name, value in load_file(tmp_path / "out" / file).items()}
    assert same(exported, expected)
    assert (sorted(path.name for path in (tmp_path / "out").iterdir()) ==
            sorted([path.name for path in (tmp_path / "base").iterdir()] + ["osler_export.json"]))
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto", output_loading_info=True)
    assert not any(info.values()), info
    state = model.state_dict()
    assert model.dtype == dtype
    assert all(bits(state[name]) == bits(value) for name, value in expected.items())
    assert torch.isfinite(model(torch.arange(8)[None]).logits).all()
