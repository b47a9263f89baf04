"""osler checkpoint inspect and verify, on checkpoints written without Osler."""
import json
import os
import pathlib
import subprocess
import sys

import pytest
import torch

REPO = pathlib.Path(__file__).resolve().parents[2]
OSLER = os.environ.get("OSLER_BIN", str(REPO / "build/release/osler"))
sys.path.insert(0, str(REPO / "tests/checkpoint"))
from write_checkpoint import write_checkpoint  # noqa: E402


def osler(*arguments):
    return subprocess.run([OSLER, "checkpoint", *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture
def run(tmp_path):
    root = tmp_path / "run/checkpoints"
    for step in (5, 10, 100):
        tensors = {"weights": {"a": torch.ones(4), "b": torch.zeros(2)}, "optimizer": {"a.m": torch.ones(4)}}
        write_checkpoint(root, step, tensors, {"cursor.json": "{}"})
    (root / "latest").write_text("step-100\n")
    return tmp_path / "run"


def damage(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def snapshot(directory):
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(directory.rglob("*"))}


def test_help_shows_an_example():
    for arguments in [["--help"], ["inspect", "--help"], ["verify", "--help"]]:
        done = osler(*arguments)
        assert done.returncode == 0 and "Example: osler checkpoint" in done.stdout


def test_verify_passes_good_checkpoints(run):
    for arguments in [[run], [run, "--step", 10], [run / "checkpoints/step-5"], [run / "checkpoints"], [f"{run}/"]]:
        done = osler("verify", *arguments)
        assert done.returncode == 0, done.stderr
    assert all(f"step-{step} is good" in osler("verify", run).stderr for step in (5, 10, 100))


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "cursor.json", "manifest.json"])
def test_verify_names_the_damaged_file_and_changes_nothing(run, name):
    damage(run / "checkpoints/step-10" / name)
    before = snapshot(run)
    done = osler("verify", run)
    assert done.returncode == 5 and "step-10" in done.stderr and name in done.stderr
    assert osler("inspect", run).returncode == 0
    assert snapshot(run) == before


def test_verify_looks_only_at_the_step_it_is_given(run):
    damage(run / "checkpoints/step-10/weights.safetensors")
    assert osler("verify", run, "--step", 10).returncode == 5
    assert osler("verify", run / "checkpoints/step-10").returncode == 5
    assert osler("verify", run, "--step", 5).returncode == 0


def test_verify_missing_file(run):
    (run / "checkpoints/step-5/optimizer.safetensors").unlink()
    done = osler("verify", run)
    assert done.returncode == 5 and "optimizer.safetensors: is missing" in done.stderr


def test_inspect_table_and_json(run):
    damage(run / "checkpoints/step-10/weights.safetensors")
    (run / "checkpoints/step-7.bad").mkdir()
    (run / "checkpoints/step-7.bad.txt").write_text("checkpoint step-7 is damaged: cursor.json: checksum mismatch\n")
    table = osler("inspect", run)
    assert table.returncode == 0 and table.stdout == ""
    rows = {line.split()[0]: line for line in table.stderr.splitlines()[2:]}
    assert rows["5"].split()[1:3] == ["4", "3"] and rows["5"].endswith("good")
    assert rows["100"].endswith("good, latest")
    assert "weights.safetensors: checksum mismatch" in rows["10"]
    assert "quarantined" in rows["7"] and "cursor.json" in rows["7"]
    lines = [json.loads(line) for line in osler("inspect", run, "--json").stdout.splitlines()]
    assert [(line["step"], line["health"]) for line in lines] == [(5, "good"), (10, "damaged"), (100, "good"),
                                                                 (7, "quarantined")]
    size = sum(path.stat().st_size for path in (run / "checkpoints/step-5").iterdir())
    assert lines[0] == {"step": 5, "health": "good", "latest": False, "best": False, "bytes": size, "tensors": 3,
                        "files": ["weights.safetensors", "optimizer.safetensors", "cursor.json", "manifest.json"]}
    assert lines[2]["latest"] and "weights.safetensors" in lines[1]["error"]
    [one] = osler("inspect", run, "--json", "--step", 5).stdout.splitlines()
    assert json.loads(one) == lines[0]


def test_what_is_not_there(run, tmp_path):
    done = osler("verify", run, "--step", 6)
    assert done.returncode == 5 and "step-6" in done.stderr and "5, 10, 100" in done.stderr
    done = osler("verify", tmp_path / "nowhere")
    assert done.returncode == 5 and "nowhere holds no checkpoints" in done.stderr
    (tmp_path / "fresh/checkpoints").mkdir(parents=True)
    assert osler("verify", tmp_path / "fresh").returncode == 5
    assert osler("inspect", tmp_path / "fresh").returncode == 0
    assert osler("verify").returncode == 2
    assert osler("verify", run, "--step", -1).returncode == 2
    assert osler("verify", run / "checkpoints/step-5", "--step", 10).returncode == 2
