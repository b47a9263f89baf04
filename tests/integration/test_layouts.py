"""One run, many layouts: `osler train` on mixed meshes under mpirun and as plain processes has the metrics of one rank,
and a run is resumed on another mesh."""
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest
import torch

sys.path.insert(0, os.path.dirname(__file__))
import common  # noqa: E402

STEPS = 6


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    directory = tmp_path_factory.mktemp("layouts")
    common.save_model(directory / "model", common.tiny_config(num_hidden_layers=4, vocab_size=132, layer_types=[
        "sliding_attention", "full_attention", "sliding_attention", "full_attention"]))
    shards = common.build_tokens(directory / "data", common.random_documents(60, 4, 90, vocab=132))

    def config(name, **changes):
        changes = {"train__steps": STEPS, "train__global_batch": 5, "train__micro_batch": 1, **changes}
        return common.write_config(directory / f"{name}.yaml", directory / "model", shards, directory / name, **changes)

    common.osler("train", "--config", config("one"))
    return directory, config


def assert_same_curve(run, reference):
    mine, theirs = common.metrics(run), common.metrics(reference)
    assert [line["step"] for line in mine] == [line["step"] for line in theirs]
    for a, b in zip(mine, theirs):
        assert all(a[key] == b[key] for key in ("packs", "tokens", "target_tokens"))
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)


MESHES = {
    "shard2_tensor2": {"shard": 2, "tensor": 2, "zero": 3},
    "pipeline2_context2": {"pipeline": 2, "context": 2, "interleave": 2},
    "data2_shard2": {"data": 2, "shard": 2, "zero": 2},
    "data_is_the_rest": {"tensor": 2},
}


@pytest.mark.parametrize("name", MESHES)
def test_mpirun_has_the_metrics_of_one_rank(world, name):
    directory, config = world
    common.osler("train", "--config", config(name, mesh=MESHES[name]), ranks=4)
    assert_same_curve(directory / name, directory / "one")


def test_validation_is_the_same_on_every_mesh(world):
    directory, config = world
    validation = [{"path": str(directory / "data/shards/train"), "name": "again"}]
    common.osler("train", "--config", config("measured", data__validation=validation))
    common.osler("train", "--config", config("measured4", data__validation=validation,
                                             mesh={"pipeline": 2, "shard": 2, "zero": 3}), ranks=4)
    for a, b in zip(common.metrics(directory / "measured4"), common.metrics(directory / "measured")):
        assert a.get("validation_loss") == (b.get("validation_loss") and pytest.approx(b["validation_loss"], rel=1e-5))
    assert "validation_loss" in common.metrics(directory / "measured4")[-1]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_plain_processes_have_the_metrics_of_one_rank(world):
    directory, config = world
    path = config("plain", mesh={"shard": 2, "context": 2, "zero": 2})
    port = free_port()
    ranks = [subprocess.Popen([common.OSLER, "train", "--config", str(path)], text=True, stderr=subprocess.PIPE,
                              env=common.environment(RANK=r, WORLD_SIZE=4, LOCAL_RANK=r, LOCAL_WORLD_SIZE=4,
                                                     MASTER_ADDR="127.0.0.1", MASTER_PORT=port))
             for r in range(4)]
    ends = [(rank.communicate(timeout=300)[1], rank.returncode) for rank in ranks]
    assert all(code == 0 for _, code in ends), ends
    assert_same_curve(directory / "plain", directory / "one")


SAVED = {
    "one": (1, {}),
    "shard2": (2, {"shard": 2, "zero": 2}),
    "pipeline2": (2, {"pipeline": 2}),
    "shard2_tensor2": (4, {"shard": 2, "tensor": 2, "zero": 3}),
    "data2_context2": (4, {"data": 2, "context": 2}),
}
LOADED = {
    "one": (1, {}),
    "tensor2": (2, {"tensor": 2}),
    "shard3": (3, {"shard": 3, "zero": 3}),
    "pipeline2_tensor2": (4, {"pipeline": 2, "tensor": 2}),
    "shard4_context2": (8, {"shard": 4, "context": 2, "zero": 2}),
}


@pytest.fixture(scope="module")
def moving(world):
    """A run that never moved, and runs of other layouts that stopped half way."""
    directory, config = world

    def train(name, layout, steps, **options):
        ranks, mesh = layout
        return common.osler("train", "--config", config(name, mesh=mesh), "--set", f"train.steps={steps}",
                            "--set", "schedule.type=constant", ranks=ranks, **options)

    train("stayed", SAVED["one"], STEPS)
    for name, layout in SAVED.items():
        train(f"from_{name}", layout, STEPS // 2)
    return directory, train


@pytest.mark.parametrize("loaded", LOADED)
@pytest.mark.parametrize("saved", SAVED)
def test_a_run_goes_on_under_another_layout(moving, saved, loaded):
    directory, train = moving
    name = f"{saved}_to_{loaded}"
    shutil.copytree(directory / f"from_{saved}", directory / name)
    assert f"resuming from step {STEPS // 2}" in train(name, LOADED[loaded], STEPS).stderr
    assert_same_curve(directory / name, directory / "stayed")
    mine, theirs = (common.read_checkpoint(directory / run, STEPS) for run in (name, "stayed"))
    assert mine.keys() == theirs.keys()
    for tensor, value in mine.items():
        assert (value - theirs[tensor]).norm() <= 1e-4 * max(theirs[tensor].norm(), 1e-6), tensor


def test_each_rank_writes_its_own_part(moving):
    directory, _ = moving
    files = directory / f"from_shard2_tensor2/checkpoints/step-{STEPS // 2}"
    sizes = [sum((files / f"{group}.rank{rank}.safetensors").stat().st_size for group in ("weights", "optimizer"))
             for rank in range(4)]
    whole = directory / f"from_one/checkpoints/step-{STEPS // 2}"
    size = sum((whole / f"{group}.safetensors").stat().st_size for group in ("weights", "optimizer"))
    assert max(sizes) < 0.5 * size and sum(sizes) < 1.3 * size, (sizes, size)  # the headers are most of the rest
    assert "2 files" not in common.osler("checkpoint", "verify", files).stderr


def test_reshard_writes_whole_tensors(moving, tmp_path):
    directory, _ = moving
    run = directory / "from_shard2_tensor2"
    common.osler("checkpoint", "reshard", run, "--output", tmp_path / "whole/checkpoints")
    step = tmp_path / f"whole/checkpoints/step-{STEPS // 2}"
    assert sorted(p.name for p in step.glob("*.safetensors")) == ["optimizer.safetensors", "weights.safetensors"]
    ours, parts = (common.read_checkpoint(path, STEPS // 2) for path in (tmp_path / "whole", run))
    assert ours.keys() == parts.keys() and all(torch.equal(ours[name], value) for name, value in parts.items())
    common.osler("checkpoint", "verify", step)
    again = common.osler("checkpoint", "reshard", run, "--output", tmp_path / "whole/checkpoints", expect=5)
    assert "is there already" in again.stderr


def test_a_second_run_in_the_directory_is_refused(moving):
    directory, _ = moving
    command = ["train", "--config", str(directory / "stayed.yaml"), "--set", "schedule.type=constant", "--set",
               f"train.output={directory / 'shared'}"]
    process = subprocess.Popen([common.OSLER, *command], stderr=subprocess.PIPE, text=True,
                               env=common.environment(OSLER_FAILPOINTS="forward@2=stop:3600"))
    try:
        while not (directory / "shared/log/metrics.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.01)
        done = common.osler(*command, expect=5)
        assert f"in use by another run (process {process.pid} on " in done.stderr
    finally:
        process.kill()
        process.communicate()
    common.osler(*command)
    assert_same_curve(directory / "shared", directory / "stayed")


def test_a_run_that_fails_again_and_again_stops(moving):
    directory, train = moving
    config = ["train", "--config", directory / "stayed.yaml", "--set", f"train.output={directory / 'again'}", "--set",
              "checkpoint.most_restarts=2"]
    for _ in range(2):
        common.osler(*config, expect=-9, OSLER_FAILPOINTS="forward@1=kill")
    done = common.osler(*config, expect=5)
    assert "2 starts in a row from the beginning ended in the same way: ended without a word" in done.stderr
    assert "restarts.json" in done.stderr


@pytest.mark.parametrize("damage", ["is missing", "checksum mismatch"])
def test_a_damaged_rank_file_is_named_and_the_older_checkpoint_used(moving, damage):
    """Every rank sees that a file is missing; its content is read by rank 1 alone."""
    directory, train = moving
    name = "damaged_" + damage.split()[0]
    train(name, SAVED["shard2"], 2)
    train(name, SAVED["shard2"], 4)
    file = directory / name / "checkpoints/step-4/weights.rank1.safetensors"
    content = bytearray(file.read_bytes())
    file.unlink()
    if damage != "is missing":
        content[-1] ^= 1
        file.write_bytes(content)
    done = train(name, SAVED["shard2"], STEPS)
    assert f"step-4 is damaged: weights.rank1.safetensors: {damage}; using step-2" in done.stderr
    assert (directory / name / "checkpoints/latest").read_text() == f"step-{STEPS}\n"
    assert_same_curve(directory / name, directory / "stayed")


@pytest.mark.parametrize("mesh, ranks, words", [
    ({"tensor": 3}, 1, ["needs a multiple of 3 ranks, but 1 runs", "start 3"]),
    ({"tensor": 3, "data": 1}, 3, ["mesh.tensor 3", "nearest valid"]),
    ({"pipeline": 2, "interleave": 3}, 2, ["mesh.pipeline 2", "layers"]),
    ({"shard": 2, "data": 2}, 2, ["needs 4 ranks, but 2 run"]),
    ({"zero": 3}, 1, ["mesh.zero", "mesh.shard is 1"]),
])
def test_a_mesh_that_does_not_fit_exits_2_before_any_weight_is_read(world, mesh, ranks, words):
    directory, config = world
    name = "misfit_" + "_".join(mesh)
    done = common.osler("train", "--config", config(name, mesh=mesh), ranks=ranks, expect=2)
    assert all(word in done.stderr for word in words), done.stderr
    assert not (directory / name).exists()


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_gpu_that_is_not_there_or_not_used_exits_4(world, ranks):
    _, config = world
    done = common.osler("train", "--config", config(f"cuda{ranks}", train__device="cuda"), ranks=ranks, expect=4)
    assert "train.device cuda" in done.stderr


def test_a_reduction_that_reduces_nothing_is_told(world):
    _, config = world
    done = common.osler("train", "--config", config("alone", train__steps=1, train__gradient_reduction="bf16"))
    assert "train.gradient_reduction has no effect" in done.stderr
