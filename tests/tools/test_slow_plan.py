"""The memory that `osler plan` predicts against the peaks of real `osler train` processes on the CPU.

A peak is the largest RssAnon of a rank, private memory without mapped files, that a thread sees which looks every few
milliseconds; what a process of a tiny model has is taken off both sides. The C library is told to hand freed memory
back: as `osler train` sets it, it keeps some for the next of its kind, and the gaps between blocks are no need of the
run (docs/plan.md).
"""
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
import common  # noqa: E402

LENGTH = 1024
INSTRUMENTED = 160_000_000  # bytes that no other tiny run needs
HAND_BACK = {"MALLOC_MMAP_THRESHOLD_": 1 << 18, "MALLOC_TRIM_THRESHOLD_": 1 << 18}
# The layouts, and the pipeline stage of each rank.
LAYOUTS = {
    "one": ({}, [0]),
    "shard2_zero3": ({"mesh": {"shard": 2, "zero": 3}}, [0, 0]),
    "tensor2": ({"mesh": {"tensor": 2}}, [0, 0]),
    "pipeline2": ({"mesh": {"pipeline": 2}}, [0, 1]),
    "context2_recompute": ({"mesh": {"context": 2}, "train__recompute": "full"}, [0, 0]),
}


def descendants(pid):
    found = [pid]
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*"):
        for child in (task / "children").read_text().split():
            found += descendants(int(child))
    return found


def rank_and_memory(pid):
    """A rank of osler's and its RssAnon in bytes; None for any other process."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    if not status.startswith("Name:\tosler\n") or "RssAnon:" not in status:
        return None
    environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    ranks = [int(one.split(b"=")[1]) for one in environment if one.startswith(b"OMPI_COMM_WORLD_RANK=")]
    return (ranks or [0])[0], int(status.split("RssAnon:")[1].split()[0]) * 1024


def peaks_of(command, env):
    """The command's exit and the largest RssAnon of each of its ranks."""
    process = subprocess.Popen(command, env=env, text=True, stderr=subprocess.PIPE)
    peaks, done = {}, threading.Event()

    def look():
        while not done.is_set():
            try:
                found = [rank_and_memory(pid) for pid in descendants(process.pid)]
            except OSError:  # one has just ended
                found = []
            for rank, memory in filter(None, found):
                peaks[rank] = max(peaks.get(rank, 0), memory)
            time.sleep(0.003)

    thread = threading.Thread(target=look)
    thread.start()
    error = process.communicate(timeout=280)[1]
    done.set()
    thread.join()
    assert process.returncode == 0, error[-3000:]
    return [peaks[rank] for rank in sorted(peaks)]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    directory = tmp_path_factory.mktemp("plan")
    sizes = {"large": ["--vocab-size", 8192, "--hidden-size", 512, "--layers", 8, "--heads", 8, "--kv-heads", 4,
                       "--head-dim", 64, "--intermediate-size", 1536],
             "tiny": ["--vocab-size", 300, "--hidden-size", 64, "--layers", 2, "--heads", 4, "--kv-heads", 2,
                      "--head-dim", 16, "--intermediate-size", 96]}
    for name, flags in sizes.items():
        common.osler("init", "--family", "llama", "--output", directory / name, *flags)
    ids = [i * 31 % 250 for i in range(LENGTH)]
    return directory, common.build_tokens(directory / "data", [(ids, ids)] * 8)


def config_of(world, model, name, changes):
    directory, shards = world
    changes = {"data__sequence_length": LENGTH, "train__steps": 2, "train__global_batch": 2, "train__micro_batch": 1,
               "checkpoint__every_steps": 0, **changes}
    path = directory / f"{name}_{model}.yaml"
    return common.write_config(path, directory / model, shards, directory / f"{name}_{model}", **changes)


def train(config, ranks):
    command = [common.OSLER, "train", "--config", str(config)]
    if ranks > 1:
        command = ["mpirun", "-n", str(ranks), "--bind-to", "none", *command]
    return peaks_of(command, common.environment(**HAND_BACK))


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_rank_needs_what_was_predicted(world, name):
    changes, stages = LAYOUTS[name]
    config = config_of(world, "large", name, changes)
    lines = map(json.loads, common.osler("plan", "--config", config).stdout.splitlines())
    predicted = {line["stage"]: line for line in lines if line["kind"] == "memory" and line["configured"]}
    baselines = train(config_of(world, "tiny", name, changes), len(stages))
    if max(baselines) > INSTRUMENTED:
        pytest.skip("a sanitizer's build has memory of its own")
    measured = train(config, len(stages))
    assert len(measured) == len(stages)
    for rank, stage in enumerate(stages):
        above, tensors = measured[rank] - baselines[rank], predicted[stage]["tensors"]
        print(f"{name} rank {rank}: measured {measured[rank] / 1e6:.0f} MB, {above / 1e6:.0f} above a tiny model's; "
              f"predicted {tensors / 1e6:.0f}, {100 * (tensors / above - 1):+.1f} %; all in all "
              f"{100 * (predicted[stage]['total'] / measured[rank] - 1):+.1f} %")
        assert tensors == pytest.approx(above, rel=0.1)
        assert predicted[stage]["total"] == pytest.approx(measured[rank], rel=0.1)
