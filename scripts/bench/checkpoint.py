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
import mmap
import os
import pathlib
import platform
import random
import re
import resource
import shutil
import statistics
import subprocess
import sys
import time

SIDES = ["osler", "osler-2", "osler-sync", "dcp", "dcp-cached", "safetensors"]
WARMUP = 2
QUIET_CORES = 0.1
BLOCK = 8 << 20
POLL_S = 0.01
SEQUENCE, BATCH = 64, 2  # few tokens: steps of about a second, and of exactly equal work
VOCABULARY = 8192


def environment(threads):
    launchers = ("OMPI_COMM", "PMIX_", "PMI_", "SLURM_", "TORCHELASTIC_", "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_")
    own = {key: value for key, value in os.environ.items() if not key.startswith(launchers)}
    return own | {"OMP_NUM_THREADS": str(threads)}


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


class Machine:
    """CPU seconds of everything else, and of the host's other guests, while something runs here."""

    def __enter__(self):
        self.before = self.read()
        return self

    def __exit__(self, *_):
        wall, busy, stolen, own = (b - a for a, b in zip(self.before, self.read()))
        self.others, self.stolen = max(0, (busy - own) / wall), stolen / wall

    @staticmethod
    def read():
        with open("/proc/stat") as file:
            user, nice, system, _, _, irq, softirq, steal = (int(x) for x in file.readline().split()[1:9])
        ticks = os.sysconf("SC_CLK_TCK")
        usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        own = sum(one.ru_utime + one.ru_stime for one in usage)
        return time.monotonic(), (user + nice + system + irq + softirq) / ticks, steal / ticks, own


def wait_for_quiet(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with Machine() as machine:
            time.sleep(2)
        if machine.others < QUIET_CORES:
            return


def measure_disk(size):
    """A new file of so many bytes, synced; then one more past the page cache, where the file system can."""
    block = mmap.mmap(-1, BLOCK)  # aligned, as O_DIRECT wants it
    block[:] = os.urandom(BLOCK)
    size -= size % mmap.PAGESIZE

    def write(flags):
        begin = time.monotonic()
        fd = os.open("disk.bin", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | flags, 0o644)
        try:
            for offset in range(0, size, BLOCK):
                os.write(fd, memoryview(block)[:size - offset])
            copied = time.monotonic()
            os.fsync(fd)
            return copied - begin, time.monotonic() - begin
        finally:
            os.close(fd)
            os.unlink("disk.bin")

    copied, seconds = write(0)
    measured = {"copy_s": copied, "seconds": seconds, "mb_per_s": size / seconds / 1e6}
    try:
        measured["direct_mb_per_s"] = size / write(os.O_DIRECT)[1] / 1e6
    except OSError:
        measured["direct_mb_per_s"] = float("nan")
    return measured


# --- Osler, watched from outside


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


# --- The peers, each in a process of its own: checkpoint.py --peer NAME


def load_state(checkpoint):
    from safetensors.torch import load_file
    state = {}
    for file in sorted(pathlib.Path(checkpoint).glob("*.safetensors")):
        group = file.name.split(".")[0]
        for key, value in load_file(file).items():
            state[f"{group}/{key}"] = value.clone()  # not a view of a mapped file
    return state


class Loop:
    """Steps of training on the state itself: products of the weight matrices for as many tokens, then fused AdamW."""

    def __init__(self, state):
        import torch
        weights, moments = ({key.removeprefix(group): value for key, value in state.items() if key.startswith(group)}
                            for group in ("weights/", "optimizer/"))
        self.parameters = [torch.nn.Parameter(weight) for weight in weights.values()]
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-5, weight_decay=0.1, fused=True)
        for parameter, name in zip(self.parameters, weights):
            self.optimizer.state[parameter] = {"step": torch.tensor(1.0), "exp_avg": moments[f"{name}.exp_avg"],
                                               "exp_avg_sq": moments[f"{name}.exp_avg_sq"]}
        self.inputs = {}
        for parameter in self.parameters:
            if parameter.dim() == 2:
                for width in parameter.shape:
                    self.inputs.setdefault(width, torch.randn(SEQUENCE * BATCH, width) * 1e-2)

    def step(self):
        import torch
        with torch.no_grad():
            for weight in self.parameters:
                if weight.dim() == 2:
                    rows, columns = weight.shape
                    self.inputs[columns] @ weight.T
                    self.inputs[rows] @ weight
                    torch.mm(self.inputs[rows].T, self.inputs[columns], out=weight.grad)
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()


def peer_dcp(state, steps, every, cached):
    import torch
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.staging import BlockingAsyncStager
    stager = None
    if cached:
        stager = BlockingAsyncStager(cache_staged_state_dict=True)
        # Left to itself it would pin this memory, which needs CUDA.
        stager.state_dict_cache = {key: torch.empty_like(value) for key, value in state.items()}
    loop, times, saves, future = Loop(state), [], [], None

    def ended(_):  # called by the saving thread
        saves[-1] |= {"durable": time.monotonic(), "gone": time.monotonic(), "cpu_s": time.thread_time()}
        with open("/proc/thread-self/schedstat") as file:
            saves[-1]["core_wait_s"] = int(file.read().split()[1]) / 1e9

    for step in range(1, steps + 1):
        begin = time.monotonic()
        loop.step()
        times.append((begin, time.monotonic()))
        if future is not None and future.done():
            future.result()
            for old in saves[:-1]:  # as Osler does with keep: 1
                shutil.rmtree(old["path"], ignore_errors=True)
        if step % every == 0 and step < steps:
            begin = time.monotonic()
            if future is not None:
                future.result()
            saves.append({"path": f"peer/step-{step}", "step": step, "begin": begin})
            future = dcp.async_save(state, checkpoint_id=saves[-1]["path"], async_stager=stager)
            saves[-1]["blocked_ms"] = (time.monotonic() - begin) * 1e3
            future.add_done_callback(ended)
    future.result()
    while "core_wait_s" not in saves[-1]:
        time.sleep(POLL_S)
    return times, saves


def peer_safetensors(state):
    from safetensors.torch import save_file
    saves = []
    for number in range(1, 4):
        begin, path = time.monotonic(), f"peer/{number}.safetensors"
        cpu = time.process_time()
        save_file(state, path)
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        end = time.monotonic()
        saves.append({"step": number, "begin": begin, "durable": end, "gone": end, "blocked_ms": (end - begin) * 1e3,
                      "cpu_s": time.process_time() - cpu, "core_wait_s": 0})
        os.unlink(path)
    return [], saves


def peer_main(args):
    import torch
    torch.set_num_threads(args.threads)
    state = load_state(args.state)
    if args.peer == "safetensors":
        steps, saves = peer_safetensors(state)
    else:
        steps, saves = peer_dcp(state, args.steps, args.every, args.peer == "dcp-cached")
    for save in saves:
        save["seconds"] = save["durable"] - save["begin"]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    json.dump({"steps": steps, "saves": saves, "memory_mib": memory}, sys.stdout)


def run_peer(args, side):
    shutil.rmtree("peer", ignore_errors=True)
    os.mkdir("peer")
    command = [sys.executable, __file__, "--peer", side, "--state", args.state, "--dir", ".", "--osler", args.osler,
               "--steps", str(args.steps), "--every", str(args.every), "--threads", str(args.threads)]
    with open(f"{side}.log", "w") as log:
        ended = subprocess.run(command, env=environment(args.threads), stdout=subprocess.PIPE, stderr=log,
                               stdin=subprocess.DEVNULL, text=True)
    if ended.returncode != 0:
        sys.exit(f"bench: {side} ended with {ended.returncode}:\n{pathlib.Path(f'{side}.log').read_text()[-2000:]}")
    shutil.rmtree("peer")
    return json.loads(ended.stdout)


# --- Figures


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


def cpu_name():
    names = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return names[0] if names else platform.machine()


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
    parser.add_argument("--peer", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--state", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.steps <= args.every + WARMUP:
        parser.error("--steps must leave steps before and after a save")
    if args.peer:
        peer_main(args)
    else:
        bench(args)


if __name__ == "__main__":
    main()
