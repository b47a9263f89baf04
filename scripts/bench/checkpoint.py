#!/usr/bin/env python3
"""Saves the same training state with Osler, torch.distributed.checkpoint and safetensors, and says what training pays.

    checkpoint.py --dir DIR --osler BIN [--rounds 2] [--steps 80] [--every 20] [--wait 60] [--threads N] [--sides …]
                  [--layers 12]

| side | what runs |
|---|---|
| osler | `osler train`, one rank on all threads, a checkpoint every --every steps |
| osler-2 | the same on two MPI ranks with `mesh: {shard: 2, zero: 3}`, half of the threads each |
| osler-sync | `checkpoint.async: false`: training waits, no copy is made |
| dcp | `torch.distributed.checkpoint.async_save` at its defaults, beside a training loop of PyTorch |
| dcp-cached | its stager keeps the copy from save to save, as Osler does |
| safetensors | `safetensors.torch.save_file` and fsync: training waits |

The peers save what Osler's checkpoint holds: the same tensors under the same names. Their loop has the products of a
step (forward, both gradients) for as many tokens and the same fused AdamW.

Every round also writes a file of a checkpoint's size in 8 MiB blocks and syncs it, three times, between the sides: the
disk's rate is the median of all of them. Writing past the page cache (O_DIRECT) is measured beside it.

* blocked: what training waits for one save: Osler's own `blocked_ms`; for the peers, until the call returns, and for an
  earlier save to end. The first save of a run also allocates the copy; it is listed apart.
* to durable: from the start of a save (Osler: its temporary directory appears; looked at every 10 ms) until everything
  is synced and named (Osler: `latest` names it; DCP: the future is done). MB/s is the checkpoint's size over that time.
* step time: of steps while a save is under way against the other steps of the same run, the first two left out. Blocked
  time is not part of it. ±: one standard error, from how the other steps differ.
* explained: the CPU time of the saving threads (the kernel's figures, /proc/PID/task/TID/schedstat) shared out over the
  cores. What is beyond it is memory bandwidth, the kernel's own writing, and threads that wait for one another.

A machine that does other things meanwhile spoils this. Each run waits up to --wait seconds for others to rest; their
CPU time and what the host took away are printed. Runs beside which others used more than a tenth of a core count only
where a side has no quieter one. Writes DIR/result.json after every run.
"""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys

from checkpoint_machine import POLL_S, QUIET_CORES, Machine, cpu_name, environment, measure_disk, wait_for_quiet
from checkpoint_osler import BATCH, SEQUENCE, make_world, run_osler, tree_size

SIDES = ["osler", "osler-2", "osler-sync", "dcp", "dcp-cached", "safetensors"]
WARMUP = 2
PEERS = str(pathlib.Path(__file__).with_name("checkpoint_peers.py").resolve())


def run_peer(args, side):
    shutil.rmtree("peer", ignore_errors=True)
    os.mkdir("peer")
    command = [sys.executable, PEERS, side, "--state", args.state, "--steps", str(args.steps), "--every",
               str(args.every), "--tokens", str(SEQUENCE * BATCH), "--threads", str(args.threads)]
    with open(f"{side}.log", "w") as log:
        ended = subprocess.run(command, env=environment(args.threads), stdout=subprocess.PIPE, stderr=log,
                               stdin=subprocess.DEVNULL, text=True)
    if ended.returncode != 0:
        sys.exit(f"bench: {side} ended with {ended.returncode}:\n{pathlib.Path(f'{side}.log').read_text()[-2000:]}")
    shutil.rmtree("peer")
    return json.loads(ended.stdout)


def slowdown(run):
    """Seconds that steps lost while saves were under way, of how many; and of the other steps, mean and deviation."""
    quiet, disturbed = [], []
    for begin, end in run["steps"][WARMUP:]:
        under = sum(max(0, min(end, s["gone"]) - max(begin, s["begin"])) for s in run["saves"])
        (disturbed if under > 2 * POLL_S else quiet).append((end - begin, under))
    if len(quiet) < 2 or not disturbed:
        return None
    base, deviation = statistics.fmean(t for t, _ in quiet), statistics.stdev(t for t, _ in quiet)
    count = len(disturbed)
    return {"step_s": base, "deviation_s": deviation, "lost_s": sum(t - base for t, _ in disturbed),
            "under_way_s": sum(under for _, under in disturbed), "cpu_s": sum(s["cpu_s"] for s in run["saves"]),
            "variance": deviation ** 2 * (count + count ** 2 / len(quiet))}


def summarize(runs, size, disk_mb_per_s, cores):
    saves = [save for run in runs for save in run["saves"]]
    row = {"saves": len(saves), "seconds": statistics.median(s["seconds"] for s in saves),
           "blocked_first_ms": statistics.median(run["saves"][0]["blocked_ms"] for run in runs),
           "blocked_ms": statistics.median(s["blocked_ms"] for s in saves),
           "blocked_max_ms": max(s["blocked_ms"] for s in saves),
           "memory_mib": statistics.median(run["memory_mib"] for run in runs)}
    row["mb_per_s"] = size / row["seconds"] / 1e6
    row["disk_percent"] = 100 * row["mb_per_s"] / disk_mb_per_s
    for key in ("cpu_s", "core_wait_s", "copy_s"):
        if any(save.get(key) for save in saves):  # without a saving thread there is nothing to tell
            row[key] = statistics.median(save[key] for save in saves)
    if any("last_save" in run for run in runs):  # with nothing else to do
        row["idle_seconds"] = statistics.median(run["last_save"]["seconds"] for run in runs)
    figures = [run["slowdown"] for run in runs if run.get("slowdown")]
    if figures:
        total = {key: sum(f[key] for f in figures) for key in ("lost_s", "under_way_s", "cpu_s", "variance")}
        work = total["under_way_s"] - total["lost_s"]
        row |= {"step_s": statistics.median(f["step_s"] for f in figures), "rise_percent": 100 * total["lost_s"] / work,
                "explained_percent": 100 * total["cpu_s"] / cores / work,
                "error_percent": 100 * total["variance"] ** 0.5 / work}
        row["beyond_percent"] = row["rise_percent"] - row["explained_percent"]
    return row


def table(summary):
    columns = [("blocked ms, median", "blocked_ms", "{:,.0f}"), ("first", "blocked_first_ms", "{:,.0f}"),
               ("max", "blocked_max_ms", "{:,.0f}"), ("s to durable", "seconds", "{:.2f}"),
               ("MB/s", "mb_per_s", "{:.0f}"), ("% of disk", "disk_percent", "{:.0f}"), ("step s", "step_s", "{:.3f}"),
               ("step time +%", "rise_percent", "{:.1f}"), ("explained", "explained_percent", "{:.1f}"),
               ("beyond", "beyond_percent", "{:.1f}"), ("±", "error_percent", "{:.1f}"), ("CPU s", "cpu_s", "{:.2f}"),
               ("s waiting for a core", "core_wait_s", "{:.2f}"), ("s copying", "copy_s", "{:.2f}"),
               ("s to durable, idle", "idle_seconds", "{:.2f}"), ("MiB", "memory_mib", "{:,.0f}")]
    rows = [[""] + [name for name, _, _ in columns]]
    rows += [[side] + [form.format(row[key]) if key in row else "-" for _, key, form in columns]
             for side, row in summary.items()]
    print("\n".join(f"| {' | '.join(row)} |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]]))


def run_side(args, side):
    if side == "osler":
        return run_osler(args, "run-1", args.steps, args.every)
    if side == "osler-2":
        return run_osler(args, "run-2", args.steps, args.every, ranks=2)
    if side == "osler-sync":
        return run_osler(args, "run-sync", 4, 1, is_async=False)
    return run_peer(args, side)


def report(args, size, disks, runs):
    """The figures so far, into result.json."""
    rates = [disk["mb_per_s"] for disk in disks]
    summary, quiet = {}, {}
    for side in args.sides:
        own = [run for run in runs if run["side"] == side]
        still = [run for run in own if run["others_cores"] < QUIET_CORES]
        quiet[side] = len(still)
        if own:
            summary[side] = summarize(still or own, size, statistics.median(rates), args.threads)
    result = {"cpu": cpu_name(), "cores": args.threads, "bytes": size, "steps": args.steps, "every": args.every,
              "disk_mb_per_s": statistics.median(rates), "disk_best_mb_per_s": max(rates),
              "disk_worst_mb_per_s": min(rates), "disk_copy_s": statistics.median(disk["copy_s"] for disk in disks),
              "direct_mb_per_s": statistics.median(disk["direct_mb_per_s"] for disk in disks),
              "quiet_runs": quiet, "summary": summary, "disk": disks, "runs": runs}
    pathlib.Path("result.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def print_result(result):
    loud = [side for side in result["summary"] if result["quiet_runs"][side] == 0]
    print(f"\n{result['cpu']}, {result['cores']} cores; {result['bytes'] / 1e9:.2f} GB a checkpoint; disk: median "
          f"{result['disk_mb_per_s']:.0f} MB/s, best {result['disk_best_mb_per_s']:.0f}, worst "
          f"{result['disk_worst_mb_per_s']:.0f}, of which copying into the page cache takes "
          f"{result['disk_copy_s']:.2f} s; past it {result['direct_mb_per_s']:.0f} MB/s")
    print(f"quiet runs: {', '.join(f'{side} {count}' for side, count in result['quiet_runs'].items())}"
          f"{'; others disturbed all of ' + ', '.join(loud) if loud else ''}\n")
    table(result["summary"])


def bench(args):
    args.osler = str(pathlib.Path(args.osler).resolve())
    os.chdir(args.dir)
    make_world(args)
    run_osler(args, "seed", 1, 0)
    args.state = "seed/checkpoints/step-1"
    size = tree_size(args.state)
    print(f"bench: {size / 1e9:.2f} GB a checkpoint", file=sys.stderr, flush=True)
    runs, disks = [], []
    for number in range(args.rounds):
        order = args.sides if number % 2 == 0 else args.sides[::-1]
        for place, side in enumerate(order):
            wait_for_quiet(args.wait)
            if place in {0, len(order) // 3, 2 * len(order) // 3}:
                disks.append(measure_disk(size))
                print(f"  round {number + 1}: disk {disks[-1]['mb_per_s']:.0f} MB/s, direct "
                      f"{disks[-1]['direct_mb_per_s']:.0f}", file=sys.stderr, flush=True)
            with Machine() as machine:
                run = run_side(args, side)
            for left in ("run-1", "run-2", "run-sync"):
                shutil.rmtree(f"{left}/checkpoints", ignore_errors=True)
            run |= {"side": side, "round": number, "others_cores": machine.others, "stolen_cores": machine.stolen,
                    "slowdown": slowdown(run) if run["steps"] and side != "osler-sync" else None}
            runs.append(run)
            middle = statistics.median(s["seconds"] for s in run["saves"])
            print(f"  round {number + 1}: {side}: durable after {middle:.2f} s; others used "
                  f"{machine.others:.2f} cores, the host took {machine.stolen:.2f}", file=sys.stderr, flush=True)
            result = report(args, size, disks, runs)
    print_result(result)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", required=True)
    parser.add_argument("--osler", required=True)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--wait", type=float, default=60, help="seconds, at most, for a quiet machine before each run")
    parser.add_argument("--layers", type=int, default=12, help="of the model: 9.4M parameters each, and 6M")
    parser.add_argument("--sides", nargs="+", default=SIDES, choices=SIDES)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    if args.steps <= args.every + WARMUP:
        parser.error("--steps must leave steps before and after a save")
    bench(args)


if __name__ == "__main__":
    main()
