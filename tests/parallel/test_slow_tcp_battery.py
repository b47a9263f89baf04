"""The communicator battery among plain processes over TCP: an environment like torchrun's, and torchrun itself."""
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BATTERY = pathlib.Path(os.environ.get("OSLER_BIN", str(ROOT / "build/release/osler"))).parent / "bin/parallel_mpi_battery"
LAUNCH = ("OMPI_", "PMIX_", "PMI_", "SLURM_", "TORCHELASTIC_")


def environment(**extra):
    env = {k: v for k, v in os.environ.items() if not k.startswith(LAUNCH)}
    return {**env, "OMP_NUM_THREADS": "1", **{k: str(v) for k, v in extra.items()}}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.mark.parametrize("ranks,secret,which", [(1, "", []), (3, "", []), (4, "a shared secret", []),
                                                (3, "a shared secret", ["failures"])])
def test_battery_over_tcp(ranks, secret, which):
    port = free_port()
    processes = [
        subprocess.Popen([str(BATTERY), *which], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                         env=environment(RANK=rank, WORLD_SIZE=ranks, LOCAL_RANK=rank, LOCAL_WORLD_SIZE=ranks,
                                         MASTER_ADDR="127.0.0.1", MASTER_PORT=port, OSLER_RUN_SECRET=secret))
        for rank in reversed(range(ranks))]
    try:
        outputs = [process.communicate(timeout=250)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs):
        assert process.returncode == 0, output[-3000:]
    assert "PASSED" in outputs[-1] and "FAILED" not in outputs[-1]


def test_battery_under_torchrun():
    """torchrun's agent owns MASTER_PORT and a TCPStore: rank 0's address and the secret go through that."""
    torchrun = pathlib.Path(sys.executable).parent / "torchrun"
    if not torchrun.exists():
        pytest.skip("torchrun is not installed")
    done = subprocess.run([str(torchrun), "--standalone", "--no-python", "--nproc-per-node", "2", str(BATTERY)],
                          env=environment(), capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "PASSED" in done.stdout


def test_a_rank_whose_secret_differs_is_refused_and_named():
    port = free_port()
    env = dict(WORLD_SIZE=2, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    first = subprocess.Popen([str(BATTERY)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             env=environment(RANK=0, OSLER_RUN_SECRET="one", **env))
    try:
        other = subprocess.run([str(BATTERY)], capture_output=True, text=True, timeout=100,
                               env=environment(RANK=1, OSLER_RUN_SECRET="another", **env))
        assert other.returncode == 4
        assert "OSLER_RUN_SECRET" in other.stderr and str(port) in other.stderr
    finally:
        first.kill()
        output = first.communicate()[0]
    assert output.count("refused a connection") == 1


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed")
def test_two_places_in_a_run_are_refused():
    done = subprocess.run([str(BATTERY)], capture_output=True, text=True, timeout=60,
                          env=environment(RANK=1, WORLD_SIZE=2, OMPI_COMM_WORLD_RANK=0, OMPI_COMM_WORLD_SIZE=2))
    assert done.returncode == 4
    assert "RANK=1 of WORLD_SIZE=2" in done.stderr and "OMPI_COMM_WORLD_RANK=0" in done.stderr
