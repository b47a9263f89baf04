#!/usr/bin/env python3
"""The runs of scripts/goodput.sh and its table."""
import argparse
import json
import math
import pathlib
import random
import signal
import statistics
import subprocess
import time

import runs

SAVE_EVERY = 10  # steps
MTBF_S = 3600
SIZES = {"vocab-size": 12000, "hidden-size": 384, "layers": 7, "heads": 6, "kv-heads": 2, "head-dim": 64,
         "intermediate-size": 1536}


def long_records():
    draw = random.Random(1)
    return [[draw.randrange(4, 11000) for _ in range(500)] for _ in range(400)]


def write_config(directory, name):
    (directory / f"{name}.yaml").write_text(f"""model: {{path: model}}
data: {{train: [{{path: shards/train, weight: 1.0}}], sequence_length: 512}}
train: {{steps: 1000000, global_batch: 1, precision: fp32, seed: 3, output: {name}, tensorboard: false}}
optimizer: {{lr: 1.0e-4}}
checkpoint: {{every_steps: {SAVE_EVERY}, keep: 2, most_restarts: 0}}
""")


class Watched:
    """A start of a run; when its first new step came."""

    def __init__(self, directory, name):
        self.log = directory / name / "log/metrics.jsonl"
        self.began, self.first = time.monotonic(), None
        self.process = subprocess.Popen([runs.OSLER, "train", "--config", f"{name}.yaml"], cwd=directory, env=runs.without_launcher(),
                                        stderr=subprocess.DEVNULL)

    def run_until(self, deadline):
        size = None
        while time.monotonic() < deadline:
            assert self.process.poll() is None, "the run ended by itself"
            now = self.log.stat().st_size if self.log.exists() else 0
            # The log is cut to the checkpoint's step first; then it grows.
            if self.first is None and size is not None and now > size:
                self.first = time.monotonic()
            size = now if self.first is None else size
            time.sleep(0.02)
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--kill-every", type=float, required=True)
    args = parser.parse_args()
    directory = args.dir.resolve()
    runs.make_world(directory, long_records(), SIZES, shard_mb=16)
    write_config(directory, "whole")
    write_config(directory, "killed")

    whole = Watched(directory, "whole")
    whole.run_until(time.monotonic() + args.seconds)
    undisturbed = runs.metrics(directory / "whole")

    restarts, end = [], time.monotonic() + args.seconds
    while time.monotonic() < end:
        start = Watched(directory, "killed")
        start.run_until(min(end, start.began + args.kill_every))
        if start.first is not None:
            restarts.append(start.first - start.began)
    killed = runs.metrics(directory / "killed")

    step_s = (args.seconds - (whole.first - whole.began)) / max(1, len(undisturbed) - 1)
    blocked_s = statistics.median([line["blocked_ms"] for line in undisturbed if line["blocked_ms"] > 0] or [0]) / 1e3
    restart_s = statistics.median(restarts)
    best_s = math.sqrt(2 * blocked_s * MTBF_S)
    interval_s = max(best_s, step_s)
    simulated = 1 / ((1 + blocked_s / interval_s) * (1 + (restart_s + interval_s / 2) / MTBF_S))
    result = {"seconds": args.seconds, "kill_every_s": args.kill_every, "steps_undisturbed": len(undisturbed),
              "steps_killed": len(killed), "kills": len(restarts) - 1, "goodput": len(killed) / len(undisturbed),
              "step_s": step_s, "blocked_s": blocked_s, "restart_s": restart_s, "interval_s": interval_s,
              "goodput_mtbf_1h": simulated}
    (directory / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"  undisturbed for {args.seconds:.0f} s               {len(undisturbed)} steps of {step_s:.2f} s")
    print(f"  killed every {args.kill_every:.0f} s, {len(restarts) - 1} times       {len(killed)} steps, "
          f"a checkpoint every {SAVE_EVERY}: goodput {100 * result['goodput']:.1f} %")
    print(f"  a save blocks, a restart takes      {1e3 * blocked_s:.0f} ms, {restart_s:.1f} s to its first step")
    print(f"  simulated, a failure an hour        {100 * simulated:.2f} % with a checkpoint every {interval_s:.0f} s")


if __name__ == "__main__":
    main()
