"""kill -9 in every named phase and at random: each resume gives the uninterrupted run's losses and weights, bit for bit."""
import collections
import json
import pathlib
import random
import signal
import subprocess
import time

import pytest
import torch

import common

PHASES = ["load", "forward", "backward", "reduce", "optimizer", "staging", "shard_write", "manifest", "rename",
          "latest", "retention"]
STEPS = 6
RUN_KEYS = ["loss", "grad_norm", "lr", "tokens", "target_tokens", "packs"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Model, data and the uninterrupted run that every other run must equal."""
    tmp = tmp_path_factory.mktemp("kill")
    common.save_model(tmp / "model")
    shards = common.build_tokens(tmp / "data", common.random_documents(60, 3, 64, seed=11))

    def config(name, **changes):
        settings = dict(train__steps=STEPS, checkpoint__every_steps=1, checkpoint__keep=2)
        settings.update(changes)
        return common.write_config(tmp / f"{name}.yaml", tmp / "model", shards, tmp / name, **settings)

    common.osler("train", "--config", config("whole"))
    return tmp, config, story(tmp / "whole"), common.read_checkpoint(tmp / "whole", STEPS)


def story(run):
    return [{key: line[key] for key in RUN_KEYS} for line in common.metrics(run)]


def check_equal(world, run):
    _, _, lines, tensors = world
    assert story(run) == lines
    ours = common.read_checkpoint(run, STEPS)
    assert ours.keys() == tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(ours[name], value), name
    names = [p.name for p in (run / "checkpoints").iterdir()]
    assert all(not name.count("tmp") for name in names), names
    assert (run / "checkpoints/latest").read_text().strip() == f"step-{STEPS}"


@pytest.mark.parametrize("phase", PHASES)
def test_kill_in_phase(world, phase):
    tmp, config, _, _ = world
    run = tmp / f"kill_{phase}"
    path = config(run.name)
    killed = common.osler("train", "--config", path, expect=None, OSLER_FAILPOINTS=f"{phase}@3=kill")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    common.osler("train", "--config", path)
    check_equal(world, run)


def test_kill_between_the_last_checkpoint_and_its_name(world):
    """The run is complete but for `latest`: running again says so, and mends it."""
    tmp, config, _, _ = world
    run = tmp / "unnamed"
    path = config(run.name)
    common.osler("train", "--config", path, expect=None, OSLER_FAILPOINTS=f"latest@{STEPS}=kill")
    assert (run / "checkpoints/latest").read_text().strip() == f"step-{STEPS - 1}"
    assert "nothing to do" in common.osler("train", "--config", path).stderr
    check_equal(world, run)


def start_traced(path, trace):
    """A run, returned at the moment it visits its first phase."""
    process = subprocess.Popen([common.OSLER, "train", "--config", str(path)],
                               env=common.environment(OSLER_FAILPOINT_TRACE=trace), stderr=subprocess.PIPE, text=True)
    while not trace.exists() and process.poll() is None:
        time.sleep(0.001)
    return process


def test_twenty_random_kills(world):
    tmp, config, _, _ = world
    rng = random.Random(5)
    histogram = collections.Counter()
    process = start_traced(config("timing"), tmp / "trace_timing")
    begin = time.monotonic()
    process.communicate()
    whole = time.monotonic() - begin
    for case in range(20):
        run, trace = tmp / f"random_{case}", tmp / f"trace_{case}"
        path = config(run.name)
        process = start_traced(path, trace)
        time.sleep(rng.uniform(0, 0.9) * whole)
        process.kill()
        process.communicate()
        histogram["finished" if process.returncode == 0 else trace.read_text().strip()] += 1
        common.osler("train", "--config", path)
        check_equal(world, run)
    print(f"random kills by the phase visited last: {dict(histogram)}")
    assert histogram["finished"] < 10, "the kills came too late to test anything"
    assert len(histogram) >= 4, histogram


def test_two_ranks_killed_by_mpirun(world):
    tmp, config, _, _ = world
    path = config("two_whole", mesh__data=2)
    common.osler("train", "--config", path, ranks=2)
    killed_path = config("two_killed", mesh__data=2)
    killed = common.osler("train", "--config", killed_path, ranks=2, expect=None,
                          OSLER_FAILPOINTS="backward@5=kill")
    assert killed.returncode != 0
    common.osler("train", "--config", killed_path, ranks=2)
    assert story(tmp / "two_killed") == story(tmp / "two_whole")
    one, two = (common.read_checkpoint(tmp / name, STEPS) for name in ("two_whole", "two_killed"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_term_leaves_a_durable_checkpoint_and_exits_75(world):
    tmp, config, _, _ = world
    run = tmp / "term"
    path = config("term", checkpoint__every_steps=0)
    stopped = common.osler("train", "--config", path, expect=75, OSLER_FAILPOINTS="forward@3=term")
    assert "run the same command to continue" in stopped.stderr
    latest = (run / "checkpoints/latest").read_text().strip()
    assert latest in ("step-2", "step-3")
    record = json.loads((run / "log/exit.rank0.json").read_text())
    assert record["exit_code"] == 75
    common.osler("train", "--config", path)
    check_equal(world, run)


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "flip":
        data[len(data) // 2] ^= 1
    else:
        data = data[:len(data) // 2]
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["flip", "truncate"])
@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
def test_a_damaged_checkpoint_is_named_and_the_older_one_used(world, name, how):
    tmp, config, _, _ = world
    run = tmp / f"damaged_{name}_{how}"
    path = config(run.name)
    common.osler("train", "--config", path)
    damage(run / f"checkpoints/step-{STEPS}/{name}", how)
    again = common.osler("train", "--config", path)
    assert f"step-{STEPS}" in again.stderr and name in again.stderr
    check_equal(world, run)


def test_disk_full_is_loud_and_training_goes_on(world):
    tmp, config, _, _ = world
    run = tmp / "full"
    path = config("full", checkpoint__every_steps=2)
    done = common.osler("train", "--config", path, OSLER_FS_FAULTS="write:step-2=ENOSPC")
    assert "No space left" in done.stderr and "goes on" in done.stderr
    assert not (run / "checkpoints/step-2").exists()
    check_equal(world, run)


def test_a_finished_run_does_nothing_again(world):
    tmp, config, _, _ = world
    path = config("whole")
    before = (tmp / "whole/log/metrics.jsonl").read_bytes()
    done = common.osler("train", "--config", path)
    assert "nothing to do" in done.stderr
    assert (tmp / "whole/log/metrics.jsonl").read_bytes() == before


def test_metrics_line_is_there_before_its_checkpoint(world):
    tmp, config, _, _ = world
    run = tmp / "order"
    common.osler("train", "--config", config("order"), expect=None, OSLER_FAILPOINTS="rename@2=kill")
    lines = pathlib.Path(run / "log/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines][:2] == [1, 2]  # training may be further by then
