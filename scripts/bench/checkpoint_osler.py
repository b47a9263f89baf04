"""Osler's side of scripts/bench/checkpoint.py: a run to train, and its steps and saves watched from outside."""
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import time

from checkpoint_machine import POLL_S, environment

SEQUENCE, BATCH = 64, 2  # few tokens: steps of about a second, and of exactly equal work
VOCABULARY = 8192


def make_world(args):
    """A random model and shards of records as long as a sequence, so that no step has padding."""
    draw = random.Random(7)
    with open("records.jsonl", "w", encoding="utf-8") as out:
        for number in range(BATCH * args.steps):
            ids = [draw.randrange(4, VOCABULARY) for _ in range(SEQUENCE)]
            out.write(json.dumps({"id": f"r{number}", "subject": f"s{number}", "input_ids": ids}) + "\n")
    pathlib.Path("data.yaml").write_text("""\
deid: {profile: safe_harbor}
sources:
  - {name: ids, format: tokens_jsonl, path: records.jsonl, trusted: true}
output: {path: shards, shard_mb: 64}
""")
    for command in (["data", "build", "--config", "data.yaml"],
                    ["init", "--output", "model", "--vocab-size", str(VOCABULARY), "--hidden-size", "768", "--layers",
                     str(args.layers), "--heads", "12", "--kv-heads", "12", "--head-dim", "64", "--intermediate-size",
                     "3072", "--seed", "1"]):
        subprocess.run([args.osler, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def write_config(name, steps, every, mesh="", is_async=True):
    path = pathlib.Path(f"{name}.yaml")
    path.write_text(f"""\
model: {{path: model}}
data: {{train: [{{path: shards/train}}], sequence_length: {SEQUENCE}}}
mesh: {{{mesh}}}
train:
  {{steps: {steps}, global_batch: {BATCH}, micro_batch: {1 if mesh else BATCH}, precision: fp32, seed: 1,
   output: {name}, tensorboard: false}}
optimizer: {{lr: 1.0e-5, weight_decay: 0.1, clip_norm: 1.0}}
checkpoint: {{every_steps: {every}, keep: 1, async: {str(is_async).lower()}, most_restarts: 0}}
""")
    return path


def descendants(pid):
    found = [pid]
    for parent in found:
        for path in pathlib.Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(child) for child in path.read_text().split()]
            except OSError:
                pass  # it has ended
    return found


def saver_threads(pids):
    """(thread, CPU s, s it waited for a core) of the threads that save: of lower priority than their process."""
    found = []
    for pid in pids:
        try:
            threads = os.listdir(f"/proc/{pid}/task")
            nice = os.getpriority(os.PRIO_PROCESS, pid)
        except OSError:
            continue
        for thread in threads:
            try:
                if os.getpriority(os.PRIO_PROCESS, int(thread)) > nice:
                    cpu, wait, _ = pathlib.Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()
                    found.append((thread, int(cpu) / 1e9, int(wait) / 1e9))
            except OSError:
                pass
    return found


def tree_size(path):
    try:
        return sum(entry.stat().st_size for entry in os.scandir(path))
    except OSError:
        return 0


class Watch:
    """Steps and saves of a run of Osler."""

    def __init__(self, process, run):
        self.process, self.run = process, run
        self.steps, self.lines, self.saves = [], [], []
        self.offset, self.save, self.pids = 0, None, []

    def __call__(self):
        while self.process.poll() is None:
            self.look(time.monotonic())
            time.sleep(POLL_S)
        self.look(time.monotonic())
        return self

    def look(self, now):
        metrics, checkpoints = self.run / "log/metrics.jsonl", self.run / "checkpoints"
        if metrics.exists():
            data = metrics.read_bytes()
            whole = data.rfind(b"\n") + 1
            for line in map(json.loads, data[self.offset:whole].splitlines()):
                self.lines.append(line)
                self.steps.append((now - line["tokens"] / line["tokens_per_s"], now))
            self.offset = max(self.offset, whole)
        names = os.listdir(checkpoints) if checkpoints.exists() else []
        temporary = [name for name in names if re.fullmatch(r"step-\d+\.tmp-\d+", name)]
        if temporary and (self.save is None or self.save["name"] != temporary[0]):
            self.end_save(now)
            step = int(temporary[0].split(".")[0].removeprefix("step-"))
            self.save = {"name": temporary[0], "step": step, "begin": now, "grown": 0, "copy_s": 0, "last": now,
                         "threads": {}}
            self.pids = descendants(self.process.pid)
        if self.save is not None:
            self.look_at_save(now, checkpoints, set(names))

    def look_at_save(self, now, checkpoints, names):
        save = self.save
        if save["name"] in names:
            size = tree_size(checkpoints / save["name"])
            if size > save["grown"]:
                save["copy_s"] += now - save["last"]
                save["grown"] = size
            save["last"] = now
        elif "durable" not in save and (checkpoints / "latest").exists() \
                and (checkpoints / "latest").read_text() == f"step-{save['step']}\n":
            save["durable"] = now
        threads = saver_threads(self.pids)
        for thread, cpu, wait in threads:
            save["threads"][thread] = (cpu, wait)
        if "durable" in save and not threads:
            self.end_save(now)

    def end_save(self, now):
        if self.save is None:
            return
        save, self.save = self.save, None
        save["cpu_s"] = sum(cpu for cpu, _ in save["threads"].values())
        save["core_wait_s"] = sum(wait for _, wait in save.pop("threads").values())
        save["gone"] = now
        self.saves.append(save)


def run_osler(args, name, steps, every, ranks=1, is_async=True):
    """Its steps and saves; the last save, which training waits for, apart."""
    run = pathlib.Path(name)
    shutil.rmtree(run, ignore_errors=True)
    config = write_config(name, steps, every, "shard: 2, zero: 3" if ranks == 2 else "", is_async)
    launcher = ["mpirun", "-q", "-n", "2", "--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle",
                "1"] if ranks == 2 else []
    with open(f"{name}.log", "w") as log:
        process = subprocess.Popen([*launcher, args.osler, "train", "--config", str(config)], stdout=log, stderr=log,
                                   stdin=subprocess.DEVNULL, env=environment(max(1, args.threads // ranks)))
        watch = Watch(process, run)()
    watch.end_save(time.monotonic())
    if process.returncode != 0 or len(watch.lines) != steps:
        sys.exit(f"bench: {name} ended with {process.returncode}:\n{pathlib.Path(f'{name}.log').read_text()[-2000:]}")
    # A save's blocked time is in the line of the step after it.
    blocked = {line["step"] - 1: line["blocked_ms"] for line in watch.lines if line["blocked_ms"] > 0}
    for save in watch.saves:
        save["blocked_ms"] = blocked.get(save["step"])
        save["seconds"] = save.get("durable", save["gone"]) - save["begin"]
    inside = [save for save in watch.saves if save["step"] < steps]
    return {"steps": watch.steps, "saves": inside, "last_save": watch.saves[-1],
            "memory_mib": watch.lines[-1]["memory_mib"]}
