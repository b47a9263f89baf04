"""One run, many layouts: `osler train` on mixed meshes under mpirun and as plain processes has the metrics of one rank,
and a run is resumed on another mesh."""
import os
import socket
import subprocess
import sys

import pytest

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
        assert a["tokens"] == b["tokens"] and a["target_tokens"] == b["target_tokens"]
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


def test_a_run_goes_on_under_another_layout(world):
    directory, config = world
    path = config("moved", mesh={"shard": 2, "tensor": 2, "zero": 3})
    common.osler("train", "--config", path, "--set", "train.steps=2", "--set", "schedule.type=constant", ranks=4)
    common.osler("train", "--config", config("moved", mesh={"pipeline": 2}), "--set", "train.steps=4",
                 "--set", "schedule.type=constant", ranks=2)
    common.osler("train", "--config", config("moved"), "--set", "schedule.type=constant")
    common.osler("train", "--config", config("stayed"), "--set", "schedule.type=constant")
    assert_same_curve(directory / "moved", directory / "stayed")
    mine, theirs = (common.read_checkpoint(directory / name, STEPS) for name in ("moved", "stayed"))
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert (tensor - theirs[name]).norm() <= 1e-4 * max(theirs[name].norm(), 1e-6), name


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
