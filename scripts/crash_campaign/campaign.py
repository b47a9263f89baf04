#!/usr/bin/env python3
"""The cases of scripts/crash_campaign.sh, what must hold after each, and the table at the end."""
import argparse
import collections
import json
import pathlib
import random
import shutil
import signal
import sys
import time

import torch

import runs
import surroundings

PHASES = ["load", "forward", "backward", "reduce", "optimizer", "staging", "shard_write", "manifest", "rename", "latest",
          "retention"]
FIRST_RANK_ONLY = {"staging", "manifest", "rename", "latest", "retention"}
STORY = ["loss", "grad_norm", "lr", "tokens", "target_tokens", "packs"]
SIGNALS = {"kill": signal.SIGKILL, "segv": signal.SIGSEGV, "abort": signal.SIGABRT}


def story(run):
    return [{key: line[key] for key in STORY} for line in runs.metrics(run)]


class Campaign:
    def __init__(self, directory, seed):
        self.directory, self.draw = directory, random.Random(seed)
        self.whole, self.seconds = {}, {}
        self.histogram = collections.Counter()
        self.clock_library = surroundings.build_clock_jump(directory)
        self.disk_of = {}  # of a case's directory, while it has one of its own
        self.said_of = {}  # of a case: what starting again is to say
        runs.make_world(directory, runs.tiny_records(), runs.TINY)

    def reference(self, layout):
        """The uninterrupted run of a layout: its metrics and last checkpoint."""
        if layout not in self.whole:
            name = f"whole_{layout}"
            begin = time.monotonic()
            run = runs.Run(runs.write_config(self.directory, name, layout), layout)
            assert set(run.wait()) == {0}, run.errors
            self.seconds[layout] = time.monotonic() - begin
            run = self.directory / name
            self.whole[layout] = story(run), runs.read_checkpoint(run, runs.STEPS)
        return self.whole[layout]

    def check(self, name, layout):
        """Same metrics, packs each once, same bits, nothing left over."""
        lines, tensors = self.reference(layout)
        run = self.directory / name
        assert story(run) == lines, "metrics differ from the uninterrupted run's"
        ours = runs.read_checkpoint(run, runs.STEPS)
        assert ours.keys() == tensors.keys() and all(torch.equal(ours[k], v) for k, v in tensors.items()), "bits differ"
        left = [p.name for p in (run / "checkpoints").iterdir() if ".tmp" in p.name or ".old" in p.name]
        assert not left, f"left over: {left}"
        assert (run / "checkpoints/latest").read_text().strip() == f"step-{runs.STEPS}"

    # Each kind breaks a start of the run and returns it with the phase it was in, where that is known.
    def signal_at_random(self, config, layout, victim, kind):
        trace = config.with_suffix(".trace")
        run = runs.Run(config, layout, victim, trace=trace)
        runs.wait_until(lambda: trace.exists() or run.processes[victim].poll() is not None)
        time.sleep(self.draw.uniform(0, 0.8) * self.seconds[layout])
        run.signal(victim, SIGNALS[kind])
        codes = run.wait()
        killed = codes[victim] == -SIGNALS[kind]
        return run, trace.read_text().strip() if killed and trace.exists() else "finished"

    def failpoint(self, config, layout, victim, phase):
        run = runs.Run(config, layout, victim, {"OSLER_FAILPOINTS": f"{phase}@{self.draw.randint(1, 4)}=kill"})
        codes = run.wait()
        assert codes[victim] == -signal.SIGKILL, (codes, run.errors)
        return run, phase

    def stopped(self, config, layout, victim, _):
        """A rank that is frozen: the others give it up by themselves."""
        trace = config.with_suffix(".trace")
        run = runs.Run(config, layout, victim, trace=trace)
        runs.wait_until(lambda: trace.exists() or run.processes[victim].poll() is not None)
        time.sleep(self.draw.uniform(0, 0.5) * self.seconds[layout])
        run.signal(victim, signal.SIGSTOP)
        others = [p for rank, p in enumerate(run.processes) if rank != victim]
        runs.wait_until(lambda: all(p.poll() is not None for p in others), 30)
        run.signal(victim, signal.SIGKILL)
        run.wait()
        return run, None

    def slow(self, config, layout, victim, _):
        """A rank that stands still for less than the others' patience: nothing happens."""
        run = runs.Run(config, layout, victim)
        for _ in range(3):
            time.sleep(0.3)
            run.signal(victim, signal.SIGSTOP)
            time.sleep(0.5)
            run.signal(victim, signal.SIGCONT)
        assert set(run.wait()) == {0}, run.errors
        return run, None

    def disk(self, config, layout, victim, fault):
        run = runs.Run(config, layout, victim, {"OSLER_FS_FAULTS": fault})
        run.wait()
        return run, None

    def small_disk(self, config, layout, victim, _):
        """A full disk of a real file system, which then grows."""
        _, tensors = self.reference(layout)
        size = sum(tensor.nbytes for tensor in tensors.values())
        disk = self.disk_of[config.stem] = surroundings.SmallDisk(config.parent / config.stem, int(size * self.draw.uniform(0.2, 5)))
        run = runs.Run(config, layout)
        run.wait()
        disk.resize(100 << 20)
        return run, None

    def read_only(self, config, layout, victim, _):
        """A run that is killed and finds its directory read-only when it starts again."""
        disk = self.disk_of[config.stem] = surroundings.SmallDisk(config.parent / config.stem, 100 << 20)
        self.failpoint(config, layout, victim, "forward")
        disk.make_writable(False)
        run = runs.Run(config, layout)
        codes = run.wait()
        assert 5 in codes, (codes, run.errors)
        disk.make_writable(True)
        return run, None

    def clock(self, config, layout, victim, seconds):
        """A rank's time of day jumps: nothing happens."""
        run = runs.Run(config, layout, victim, surroundings.clock_jump(self.clock_library, seconds, self.draw.randint(0, 60)))
        assert set(run.wait()) == {0}, run.errors
        return run, None

    def damaged(self, config, layout, victim, how):
        """A kill just after the first to fourth checkpoint, and then a torn or flipped file of the newest."""
        run, phase = self.failpoint(config, layout, victim, "latest")
        checkpoints = config.parent / config.stem / "checkpoints"
        steps = sorted(p for p in checkpoints.glob("step-*") if p.name[5:].isdigit())
        file = self.draw.choice(sorted(steps[-1].iterdir()))
        content = bytearray(file.read_bytes())
        if how == "torn":
            content = content[:self.draw.randrange(len(content))]
        else:
            content[self.draw.randrange(len(content))] ^= 1 << self.draw.randrange(8)
        file.write_bytes(content)
        said = f"{steps[-1].name} is damaged: {file.name}"
        if len(steps) > 1:
            self.said_of[config.stem] = said
            return run, phase
        # There is none before it, which no run gets over by itself: people move it away.
        refused = runs.Run(config, layout)
        assert set(refused.wait()) == {5}, refused.errors
        assert all("no checkpoint is usable" in error and said in error for error in refused.errors), refused.errors
        shutil.rmtree(checkpoints)
        return run, phase

    def case(self, number, kind, argument):
        multiple = [name for name, (ranks, _) in runs.LAYOUTS.items() if ranks > 1]
        layout = self.draw.choice(multiple if kind in ("stopped", "slow") else list(runs.LAYOUTS))
        self.reference(layout)
        ranks = runs.LAYOUTS[layout][0]
        victim = 0 if argument in FIRST_RANK_ONLY or kind == "damaged" else self.draw.randrange(ranks)
        name = f"case{number}"
        config = runs.write_config(self.directory, name, layout)
        run, phase = getattr(self, kind)(config, layout, victim, argument)
        codes = [p.returncode for p in run.processes]
        on_disk = kind in ("disk", "small_disk", "read_only")
        survivors = [code for rank, code in enumerate(codes) if rank != victim and not on_disk and kind != "damaged"]
        assert all(code in (0, 4) for code in survivors), (codes, run.errors)
        if on_disk:
            assert all(code in (0, 4, 5) for code in codes), (codes, run.errors)
        if phase:
            self.histogram[phase] += 1
        runs.assert_nothing_left(run, config)
        again = runs.Run(config, layout)
        assert set(again.wait()) == {0}, again.errors
        assert self.said_of.get(name, "") in again.errors[0], again.errors
        runs.assert_nothing_left(again, config)
        self.check(name, layout)
        self.release(name)
        for path in (self.directory / name, config, config.with_suffix(".trace")):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return {"case": number, "kind": kind, "argument": argument, "layout": layout, "victim": victim, "codes": codes,
                "phase": phase}

    def release(self, name):
        if disk := self.disk_of.pop(name, None):
            disk.close()


def drawn_cases(draw, count, may_mount):
    """Every phase once, then every other kind once, then at random."""
    others = [("signal_at_random", kind) for kind in SIGNALS] + [("stopped", None), ("slow", None)]
    others += [("disk", fault) for fault in (
        "write:optimizer@3=ENOSPC", "write:weights@2=EIO", "sync:weights@2=EIO", "rename:step-@3=EIO", "write:manifest@2=ENOSPC",
        "write:latest@2=EIO", "write:metrics@3=ENOSPC")]
    others += [("damaged", "torn"), ("damaged", "flipped"), ("clock", -86400), ("clock", 86400)]
    others += [("small_disk", None), ("read_only", None)] if may_mount else []
    cases = [("failpoint", phase) for phase in PHASES] + others
    while len(cases) < count:
        cases.append(draw.choice([("failpoint", draw.choice(PHASES)), draw.choice(others), ("signal_at_random", "kill")]))
    return cases[:count]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dir", type=pathlib.Path, required=True)
    args = parser.parse_args()
    directory = args.dir.resolve()
    campaign = Campaign(directory, args.seed)
    may_mount = surroundings.can_mount()
    if not may_mount:
        print("crash_campaign: this user may not mount a file system: no small disks, no read-only directories", file=sys.stderr)
    failed, kinds = [], collections.Counter()
    begin = time.monotonic()
    with open(directory / "cases.jsonl", "w", encoding="utf-8") as out:
        for number, (kind, argument) in enumerate(drawn_cases(campaign.draw, args.cases, may_mount)):
            kinds[kind] += 1
            try:
                result = campaign.case(number, kind, argument)
            except AssertionError as error:
                result = {"case": number, "kind": kind, "argument": argument, "failed": str(error)[:2000]}
                failed.append(result)
                print(f"FAILED case {number} ({kind} {argument}): {error}", file=sys.stderr)
                campaign.release(f"case{number}")
            out.write(json.dumps(result) + "\n")
            out.flush()
            if sys.stderr.isatty():
                print(f"\r{number + 1} of {args.cases}, {len(failed)} failed", end="", file=sys.stderr)
    never = [phase for phase in PHASES if campaign.histogram[phase] == 0] if args.cases >= len(PHASES) else []
    summary = {"cases": args.cases, "seed": args.seed, "failed": len(failed), "kinds": dict(kinds),
               "phases": {phase: campaign.histogram[phase] for phase in PHASES},
               "finished_first": campaign.histogram["finished"], "seconds": round(time.monotonic() - begin)}
    (directory / "result.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(f"{args.cases} cases (seed {args.seed}) in {summary['seconds']} s: {len(failed)} failed")
    for name in ("kinds", "phases"):
        print(f"  {name}: " + ", ".join(f"{key} {count}" for key, count in summary[name].items()))
    if never:
        print(f"  never crashed in: {', '.join(never)}")
    sys.exit(1 if failed or never else 0)


if __name__ == "__main__":
    main()
