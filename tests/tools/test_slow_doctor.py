"""osler doctor: exit code, the JSON line against what the system itself says, and two ranks under mpirun."""
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
OSLER = os.environ.get("OSLER_BIN", str(ROOT / "build/release/osler"))
sys.path.insert(0, str(ROOT / "scripts"))
from launch_environment import without_launcher


def run(*args, prefix=(), **variables):
    env = without_launcher(**{"OMP_NUM_THREADS": 1, **variables})
    return subprocess.run([*prefix, OSLER, "doctor", *args], env=env, capture_output=True, text=True, timeout=120)


def level(findings, name):
    return next(c["level"] for c in findings["checks"] if c["name"] == name)


def test_alone_agrees_with_the_system(tmp_path):
    done = run("--json", "--path", str(tmp_path))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["usable"] is True
    assert any("LlamaForCausalLM" in name for name in found["architectures"])
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text()
    flags = set(re.search(r"^flags\s*:\s*(.*)$", cpuinfo, re.M).group(1).split())
    assert found["cpu"]["features"] == {f: f in flags for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16")}
    assert found["cores"]["allowed"] == len(os.sched_getaffinity(0))
    assert found["cores"]["threads"] == 1
    free = shutil.disk_usage(tmp_path).free / 2**30
    assert abs(found["disk"]["free_gib"] - free) < 1
    assert found["launch"] == {"launcher": "alone", "world_size": 1, "hosts": [os.uname().nodename]}
    assert found["gemm_gflops"]["fp32"] > 0.1 and found["gemm_gflops"]["bf16"] > 0.01
    assert "all_reduce" not in found
    assert "usable" in done.stderr and "GiB free" in done.stderr


def test_versions_are_the_installed_ones():
    found = json.loads(run("--json").stdout)["versions"]
    project = re.search(r"project\(osler VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text()).group(1)
    assert found["osler"] == project
    assert f"torch=={found['libtorch']}" in (ROOT / "requirements.txt").read_text()
    mpirun = subprocess.run(["mpirun", "--version"], capture_output=True, text=True).stdout
    assert re.search(r"\d+\.\d+\.\d+", mpirun).group(0) in found["mpi"]


def test_without_json_stdout_is_empty():
    done = run()
    assert done.returncode == 0 and done.stdout == ""


def test_a_path_that_is_not_there_is_a_setting_error(tmp_path):
    done = run("--json", "--path", str(tmp_path / "nowhere"))
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    found = json.loads(done.stdout)
    assert found["usable"] is False and level(found, "disk") == "FAIL"


def test_torchrun_environment_without_an_address_is_refused():
    done = run("--json", RANK="0", WORLD_SIZE="2")
    assert done.returncode == 4
    assert "MASTER_ADDR" in done.stderr
    assert json.loads(done.stdout)["usable"] is False


def test_two_plain_processes_measure_the_all_reduce_over_tcp():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        master = f"127.0.0.1:{s.getsockname()[1]}"
    flags = [["--rank", str(r), "--world-size", "2", "--master", master] for r in range(2)]
    other = subprocess.Popen([OSLER, "doctor", *flags[1]], stderr=subprocess.PIPE, text=True)
    done = run("--json", *flags[0])
    assert other.wait(60) == 0, other.stderr.read()
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["launch"]["launcher"] == "flags" and found["launch"]["world_size"] == 2
    assert found["all_reduce"]["bus_gb_per_s"] > 0.01 and level(found, "tcp") == "ok"


def test_help_has_an_example():
    done = run("--help")
    assert done.returncode == 0 and "Example: osler doctor" in done.stdout


MPIRUN = ["mpirun", "-n", "2", "--oversubscribe", "--allow-run-as-root", "--bind-to", "none"]


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed")
def test_two_ranks_measure_the_all_reduce():
    done = run("--json", prefix=MPIRUN, OMPI_MCA_mpi_yield_when_idle="1")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)  # one line: only rank 0 speaks
    host = os.uname().nodename
    assert found["launch"] == {"launcher": "Open MPI", "world_size": 2, "hosts": [host, host]}
    assert found["cores"]["ranks_here"] == 2
    reduce = found["all_reduce"]
    assert reduce["mib"] == 64 and reduce["bus_gb_per_s"] > 0.05
    assert abs(reduce["gb_per_s"] * reduce["milliseconds"] / 1e3 - 64 * 2**20 / 1e9) < 1e-3
    assert f"rank 1 on {host}" in done.stderr and done.stderr.count("usable") == 1


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed")
def test_ranks_with_more_threads_than_cores_are_warned():
    cores = len(os.sched_getaffinity(0))
    done = run("--json", prefix=MPIRUN, OMPI_MCA_mpi_yield_when_idle="1", OMP_NUM_THREADS=str(cores))
    assert done.returncode == 0, done.stderr
    if cores > 1:  # two ranks with a thread for every core each
        assert level(json.loads(done.stdout), "cores") == "warn"
        assert f"set OMP_NUM_THREADS={cores // 2}" in done.stderr
