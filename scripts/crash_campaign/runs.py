"""Runs of `osler train` for the crash campaign: one rank, or several as plain processes over TCP."""
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import time

OSLER = os.environ["OSLER_BIN"]
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from launch_environment import without_launcher

STEPS = 8
WAIT_S = 120  # no case may take longer
LAYOUTS = {"one": (1, ""), "shard2": (2, "shard: 2, zero: 3"), "data2": (2, "data: 2"),
           "pipeline2_tensor2": (4, "pipeline: 2, tensor: 2")}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


TINY = {"vocab-size": 128, "hidden-size": 32, "layers": 4, "heads": 4, "kv-heads": 2, "head-dim": 8, "intermediate-size": 64}


def tiny_records():
    draw = random.Random(7)
    return [[draw.randrange(4, 120) for _ in range(draw.randint(4, 80))] for _ in range(80)]


def make_world(directory, records, sizes, shard_mb=1):
    """A model of random weights, and shards of these records of ids."""
    with open(directory / "records.jsonl", "w", encoding="utf-8") as out:
        for number, ids in enumerate(records):
            out.write(json.dumps({"id": f"r{number}", "subject": f"s{number}", "input_ids": ids}) + "\n")
    (directory / "data.yaml").write_text(f"""deid: {{profile: safe_harbor}}
sources:
  - {{name: ids, format: tokens_jsonl, path: records.jsonl, trusted: true}}
output: {{path: shards, shard_mb: {shard_mb}}}
""")
    flags = [text for name, value in sizes.items() for text in (f"--{name}", str(value))]
    for command in (["data", "build", "--config", "data.yaml"], ["init", "--output", "model", *flags, "--seed", "1"]):
        subprocess.run([OSLER, *command], cwd=directory, env=without_launcher(), check=True, capture_output=True)


def write_config(directory, name, layout):
    path = directory / f"{name}.yaml"
    path.write_text(f"""model: {{path: model}}
data: {{train: [{{path: shards/train, weight: 1.0}}], sequence_length: 96}}
mesh: {{{LAYOUTS[layout][1]}}}
train: {{steps: {STEPS}, global_batch: 4, micro_batch: 1, precision: fp32, seed: 3, output: {name}, tensorboard: false}}
optimizer: {{lr: 1.0e-3, weight_decay: 0.1, clip_norm: 1.0}}
checkpoint: {{every_steps: 1, keep: 3, most_restarts: 0}}
communication: {{heartbeat_seconds: 0.2, silence_seconds: 2, connect_seconds: 30, timeout_seconds: 60}}
""")
    return path


class Run:
    """One start of a run. `extra` is added to the environment of rank `victim`."""

    def __init__(self, config, layout, victim=0, extra=None, trace=None):
        ranks = LAYOUTS[layout][0]
        self.port = free_port()
        self.processes = []
        for rank in range(ranks):
            env = without_launcher(**(extra or {})) if rank == victim else without_launcher()
            if trace is not None and rank == victim:
                env["OSLER_FAILPOINT_TRACE"] = str(trace)
            if ranks > 1:
                env |= dict(RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(ranks),
                            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(self.port), OSLER_RUN_SECRET="campaign")
            self.processes.append(subprocess.Popen([OSLER, "train", "--config", config.name], cwd=config.parent, env=env,
                                                   stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True))

    def wait(self):
        """Exit codes by rank; a rank that does not end fails the campaign and is killed."""
        deadline = time.monotonic() + WAIT_S
        self.errors = []
        for process in self.processes:
            try:
                self.errors.append(process.communicate(timeout=max(0.1, deadline - time.monotonic()))[1])
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"a rank hangs after {WAIT_S} s: {[p.args for p in self.processes]}") from None
        return [process.returncode for process in self.processes]

    def signal(self, rank, number):
        if self.processes[rank].poll() is None:
            self.processes[rank].send_signal(number)

    def kill(self):
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.communicate()


def assert_nothing_left(run, config):
    """No process that was given this configuration, nobody who listens on the run's port."""
    left = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            given = config.name.encode() in path.read_bytes().split(b"\0")
            if given and (path.parent / "cwd").resolve() == config.parent:
                left.append(int(path.parent.name))
        except OSError:
            pass  # it has ended
    assert not left, f"processes {left} are left"
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", run.port)) != 0, f"port {run.port} is still open"


def wait_until(holds, seconds=60):
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.002)


def metrics(run):
    path = run / "log/metrics.jsonl"
    if not path.exists():
        return []
    return metrics_of_text(path.read_text())


def metrics_of_text(text):
    """Whole lines: a kill may have cut the last."""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def read_checkpoint(run, step):
    """With safetensors alone, by the reader of docs/checkpoint.md."""
    [snippet] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/checkpoint.md").read_text(), re.S)
    reader = {}
    exec(snippet, reader)
    tensors, _ = reader["read_checkpoint"](run / f"checkpoints/step-{step}")
    return {f"{group}/{name}": tensor for group, named in tensors.items() for name, tensor in named.items()}
