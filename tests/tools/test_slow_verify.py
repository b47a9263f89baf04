"""`osler verify` as a user runs it: every family by threads and under mpirun, layouts chosen, errors."""
import json
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
import common  # noqa: E402

FAMILIES = ["gemma3", "llama", "qwen2", "qwen3"]


@pytest.fixture(scope="module")
def model_of(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models")

    def make(family):
        path = directory / family
        if not path.exists():
            common.osler("init", "--family", family, "--output", path, "--vocab-size", 300, "--hidden-size", 64,
                         "--heads", 8, "--kv-heads", 2, "--head-dim", 16, *["--untied"] * (family == "qwen3"))
        return path

    return make


def lines_of(text):
    return {line["layout"]: line for line in map(json.loads, text.splitlines())}


def verify(model, *flags, **options):
    done = common.osler("verify", "--model", model, *flags, **options)
    return done, lines_of(done.stdout)


@pytest.mark.parametrize("family", FAMILIES)
def test_threads_run_every_layout(model_of, family):
    done, lines = verify(model_of(family))
    assert len(lines) >= 14 and all(line["ok"] for line in lines.values())
    assert "FAILED" not in done.stderr and "skipped" not in done.stderr
    for layout in ["data2", "shard2.zero3", "tensor4", "context4.ring", "context2.gather", "pipeline2",
                   "data2.context2.tensor2", "pipeline2.shard2.tensor2.zero3"]:
        assert lines[layout]["worst_gradient"]["relative"] <= 1e-10
        assert lines[layout]["worst_parameter"]["relative"] <= 1e-9


@pytest.mark.parametrize("family", FAMILIES)
def test_mpirun_runs_the_layouts_that_its_ranks_allow(model_of, family):
    done, lines = verify(model_of(family), ranks=4)
    run = [line for line in lines.values() if "skipped" not in line]
    assert len(run) >= 12 and all(line["ok"] and line["ranks"] <= 4 for line in run)
    assert lines["pipeline2.shard2.tensor2.zero3"]["skipped"] == "4 ranks run"
    assert done.stderr.count("skipped: 4 ranks run") == len(lines) - len(run)


def test_layouts_and_output_are_the_users_choice(model_of, tmp_path):
    done, none = verify(model_of("llama"), "--layouts", "data3, zero2.shard2", "--output", tmp_path / "v.jsonl")
    assert none == {}
    assert list(lines_of((tmp_path / "v.jsonl").read_text())) == ["data3", "shard2.zero2"]
    assert all(word in done.stderr for word in ["worst gradient", "data3", " ok "])

    _, lines = verify(model_of("llama"), "--layouts", "data2,data3", "--ranks", 2)
    assert lines["data2"]["ok"] and lines["data3"]["skipped"] == "--ranks is 2"


@pytest.mark.parametrize("flags, words", [
    (["--layouts", "tensr2"], ["tensr", "tensorN"]),
    (["--layouts", "data2.zero2"], ["zero says nothing without shard2"]),
    (["--layouts", "tensor3"], ["mesh.tensor 3", "nearest valid: 2, 4"]),
    (["--layouts", "pipeline8"], ["mesh.pipeline 8", "layers"]),
])
def test_bad_layouts_exit_2(model_of, flags, words):
    done, lines = verify(model_of("llama"), *flags, expect=2)
    assert lines == {} and all(word in done.stderr for word in words)


def test_a_directory_without_a_model_exits_2(tmp_path):
    done, _ = verify(tmp_path, expect=2)
    assert "config.json" in done.stderr
