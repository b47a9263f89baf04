"""Ranks that die, fall silent or never come, in real runs of plain processes (an environment like torchrun's)
and under mpirun: who is blamed, how soon the others end by themselves, and what they leave behind."""
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

import common

sys.path.insert(0, str(common.ROOT / "scripts"))
from launch_environment import without_launcher

RANKS = 3
STEPS = 6


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("faults")
    common.save_model(tmp / "model")
    return tmp, common.build_tokens(tmp / "data", common.random_documents(60, 3, 64, seed=3))


def config(world, run, **changes):
    settings = dict(train__steps=STEPS, train__global_batch=6, checkpoint__every_steps=2)
    settings.update(changes)
    return common.write_config(run.parent / f"{run.name}.yaml", world[0] / "model", world[1], run, **settings)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Ranks:
    """`osler train` as plain processes, one a rank; extra[r] is added to rank r's environment, flags[r] to its flags,
    and paths[r] is a configuration of its own."""

    def __init__(self, path, ranks=RANKS, extra=None, flags=None, paths=None, port=None, skip=()):
        port = port or free_port()
        self.processes = {}
        for rank in range(ranks):
            if rank in skip:
                continue
            env = without_launcher(OMP_NUM_THREADS=1, RANK=rank, WORLD_SIZE=ranks, LOCAL_RANK=rank,
                                   LOCAL_WORLD_SIZE=ranks, MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
                                   OSLER_RUN_SECRET="s", **(extra or {}).get(rank, {}))
            command = [common.OSLER, "train", "--config", str((paths or {}).get(rank, path)),
                       *(flags or {}).get(rank, [])]
            self.processes[rank] = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
        self.errors = {}

    def wait(self, ranks=None, timeout=60):
        """Exit codes by rank."""
        codes = {}
        for rank, process in self.processes.items():
            if ranks is None or rank in ranks:
                self.errors[rank] = process.communicate(timeout=timeout)[1]
                codes[rank] = process.returncode
        return codes

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
                process.communicate()


def wait_for(path, seconds=60):
    begin = time.monotonic()
    while not path.exists():
        assert time.monotonic() - begin < seconds, f"{path} did not come"
        time.sleep(0.005)


def check_survivors(ranks, run, culprit, survivors, reason):
    """Each survivor exits 4 with "rank N" in its message, and its file blames rank N."""
    for rank in survivors:
        assert f"rank {culprit} {reason}" in ranks.errors[rank], ranks.errors[rank]
        record = json.loads((run / f"log/exit.rank{rank}.json").read_text())
        assert record["rank"] == rank and record["world_size"] == RANKS and record["exit_code"] == 4
        assert record["blame"]["rank"] == culprit and reason in record["blame"]["reason"]
        assert f"rank {culprit}" in record["message"]
        assert {"operation", "tensor", "block", "last_completed"} <= record.keys()
        assert record["last_completed"]["operation"]


def test_a_run_over_tcp_is_the_run_over_mpi(world, tmp_path):
    run, other = tmp_path / "tcp", tmp_path / "mpi"
    with Ranks(config(world, run)) as ranks:
        assert ranks.wait() == {0: 0, 1: 0, 2: 0}, ranks.errors
    common.osler("train", "--config", config(world, other), ranks=RANKS)
    assert [m["loss"] for m in common.metrics(run)] == [m["loss"] for m in common.metrics(other)]
    for rank in range(RANKS):
        record = json.loads((run / f"log/exit.rank{rank}.json").read_text())
        assert record["exit_code"] == 0 and "blame" not in record


@pytest.mark.parametrize("culprit", [0, 1, 2])
@pytest.mark.parametrize("phase", ["forward@3", "reduce@3"])
def test_a_killed_rank(world, tmp_path, culprit, phase):
    run = tmp_path / "run"
    trace = tmp_path / "trace"
    extra = {culprit: {"OSLER_FAILPOINTS": f"{phase}=stop:3600", "OSLER_FAILPOINT_TRACE": trace}}
    with Ranks(config(world, run), extra=extra) as ranks:
        wait_for(run / "run.json")
        for _ in range(2000):  # until it stands at the failpoint, and the others wait for it
            if len(common_metrics(run)) == 2:
                break
            time.sleep(0.01)
        time.sleep(0.3)
        begin = time.monotonic()
        ranks.processes[culprit].kill()
        survivors = [r for r in range(RANKS) if r != culprit]
        codes = ranks.wait(survivors, timeout=20)
        seconds = time.monotonic() - begin
        print(f"rank {culprit} killed in {phase}: the others had ended after {seconds:.2f} s")
        assert codes == {r: 4 for r in survivors}, ranks.errors
        assert seconds < 5
        check_survivors(ranks, run, culprit, survivors, "died")
        waiting = json.loads((run / f"log/exit.rank{survivors[0]}.json").read_text())
        if phase == "reduce@3":
            assert waiting["operation"], waiting
    # The same command goes on from the last checkpoint.
    with Ranks(config(world, run)) as ranks:
        assert ranks.wait() == {0: 0, 1: 0, 2: 0}, ranks.errors


def common_metrics(run):
    try:
        return common.metrics(run)
    except FileNotFoundError:
        return []


def test_a_survivor_that_is_stuck_ends_all_the_same(world, tmp_path):
    """Rank 1's main thread is in no collective and hears nothing: its control thread ends the process."""
    run = tmp_path / "run"
    extra = {1: {"OSLER_FAILPOINTS": "forward@3=stop:3600"}, 2: {"OSLER_FAILPOINTS": "backward@3=kill"}}
    with Ranks(config(world, run), extra=extra) as ranks:
        codes = ranks.wait(timeout=60)
        assert codes == {0: 4, 1: 4, 2: -signal.SIGKILL}, ranks.errors
        check_survivors(ranks, run, 2, [0, 1], "died")


def test_a_stopped_rank(world, tmp_path):
    run = tmp_path / "run"
    path = config(world, run, communication__heartbeat_seconds=0.2, communication__silence_seconds=2)
    extra = {1: {"OSLER_FAILPOINTS": "forward@3=stop:3600"}}
    with Ranks(path, extra=extra) as ranks:
        wait_for(run / "run.json")
        while len(common_metrics(run)) < 2:
            time.sleep(0.01)
        begin = time.monotonic()
        ranks.processes[1].send_signal(signal.SIGSTOP)
        codes = ranks.wait([0, 2], timeout=30)
        seconds = time.monotonic() - begin
        print(f"a rank stopped, with 2 s of patience: the others had ended after {seconds:.2f} s")
        assert codes == {0: 4, 2: 4}, ranks.errors
        assert 1.5 < seconds < 8
        check_survivors(ranks, run, 1, [0, 2], "was silent for")


def test_one_rank_cannot_read_its_configuration(world, tmp_path):
    """It tells the others, and all end alike."""
    run = tmp_path / "run"
    (tmp_path / "other.yaml").write_text("nonsense: [\n")
    with Ranks(config(world, run), paths={2: tmp_path / "other.yaml"}) as ranks:
        codes = ranks.wait()
        assert codes == {0: 2, 1: 2, 2: 2}, ranks.errors
        for rank in range(RANKS):
            assert "rank 2" in ranks.errors[rank] and "other.yaml" in ranks.errors[rank]


def test_different_settings_are_found_before_the_first_step(world, tmp_path):
    run = tmp_path / "run"
    with Ranks(config(world, run), flags={1: ["--set", "optimizer.lr=0.5"]}) as ranks:
        assert ranks.wait() == {0: 2, 1: 2, 2: 2}, ranks.errors
        for rank in range(RANKS):
            assert "rank 1 has another configuration" in ranks.errors[rank]
            assert "lr: 0.5" in ranks.errors[rank]
    assert not run.exists()


def test_a_world_that_is_no_mesh(world, tmp_path):
    run = tmp_path / "run"
    with Ranks(config(world, run, mesh__data=2)) as ranks:
        assert ranks.wait() == {0: 2, 1: 2, 2: 2}, ranks.errors
        assert all("needs 2 ranks, but 3 run" in ranks.errors[rank] for rank in range(RANKS))


def test_a_rank_that_never_comes(world, tmp_path):
    run = tmp_path / "run"
    with Ranks(config(world, run, communication__connect_seconds=2), skip=[2]) as ranks:
        begin = time.monotonic()
        assert ranks.wait() == {0: 4, 1: 4}, ranks.errors
        assert time.monotonic() - begin < 15
        assert all("rank 2 did not come within 2 s" in ranks.errors[rank] for rank in (0, 1))


def test_no_rank_zero_at_that_address(world, tmp_path):
    run, port = tmp_path / "run", free_port()
    with Ranks(config(world, run, communication__connect_seconds=1), port=port, skip=[0, 2]) as ranks:
        assert ranks.wait() == {1: 4}
        assert f"127.0.0.1:{port}" in ranks.errors[1] and "refused" in ranks.errors[1]
    with socket.socket() as silent:  # a port that someone else owns, and that says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        with Ranks(config(world, run, communication__connect_seconds=1), port=port) as ranks:
            assert ranks.wait() == {0: 4, 1: 4, 2: 4}
            assert "cannot listen on 127.0.0.1" in ranks.errors[0] and "in use" in ranks.errors[0]
            assert "says nothing" in ranks.errors[1]


def test_garbage_on_the_control_port_disturbs_nobody(world, tmp_path):
    run, port = tmp_path / "run", free_port()
    extra = {0: {"OSLER_FAILPOINTS": "forward@2=stop:2"}}
    with Ranks(config(world, run), port=port, extra=extra) as ranks:
        wait_for(run / "run.json")
        strangers = []
        for data in [b"GET / HTTP/1.0\r\n\r\n", os.urandom(1000), b"OSLR" + b"\xff" * 8, b""] * 5:
            stranger = socket.create_connection(("127.0.0.1", port))
            stranger.sendall(data)
            strangers.append(stranger)
        assert ranks.wait() == {0: 0, 1: 0, 2: 0}, ranks.errors
        assert ranks.errors[0].count("refused a connection") >= 3
        for stranger in strangers:
            stranger.close()


def test_a_killed_rank_under_mpirun(world, tmp_path):
    """mpirun ends the survivors itself; they have left their files by then."""
    run = tmp_path / "run"
    path = config(world, run)
    script = f'[ "$OMPI_COMM_WORLD_RANK" = 1 ] && export OSLER_FAILPOINTS=backward@3=kill; ' \
             f'exec {common.OSLER} train --config {path}'
    killed = subprocess.run(["mpirun", "-n", str(RANKS), "--bind-to", "none", "sh", "-c", script],
                            env=common.environment(), capture_output=True, text=True, timeout=120)
    assert killed.returncode != 0
    for rank in (0, 2):
        record = json.loads((run / f"log/exit.rank{rank}.json").read_text())
        assert record["exit_code"] == 4 and record["blame"]["rank"] == 1, record
        assert "died" in record["blame"]["reason"] and record["last_completed"]
        assert "rank 1 died" in killed.stderr
