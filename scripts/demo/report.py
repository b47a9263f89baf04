#!/usr/bin/env python3
"""The demo's closing table, from the files the demo left, and its verdict as the exit code.

    report.py --dir DEMO_DIR [--expect-chance]

Fails when an identifier that was planted is still in a clean record, when a training step is missing, or when
held-out accuracy after training is below 90 % (with --expect-chance: when it is above what guessing can reach).
"""
import argparse
import json
import math
import pathlib
import re
import statistics
import sys
import textwrap

TARGET = 0.9


def lines(path):
    return [json.loads(line) for line in path.read_text().rstrip("\n").split("\n")]


def identifiers_left(root):
    """(planted by kind, those still readable in the clean record made of the same visit)."""
    planted = {p["id"]: p["planted"] for p in lines(root / "clinic/planted.jsonl")}
    by_kind, left = {}, []
    for raw_file, clean_file in (("clinic/visits.jsonl", "clean.jsonl"), ("clinic/heldout.jsonl", "clean_heldout.jsonl")):
        raw, clean = lines(root / raw_file), lines(root / clean_file)
        if len(raw) != len(clean):
            sys.exit(f"demo: {raw_file} has {len(raw)} records but {clean_file} has {len(clean)}")
        for visit, record in zip(raw, clean):
            text = json.dumps(record, ensure_ascii=False)
            for kind, identifier in planted[visit["id"]]:
                by_kind[kind] = by_kind.get(kind, 0) + 1
                if re.search(rf"(?<!\w){re.escape(identifier)}(?!\w)", text):
                    left.append((visit["id"], kind))
    return by_kind, left


def replaced_by_rule(root):
    """What the gate itself counted, from the two certificates."""
    counts = {}
    for directory in ("shards/train", "heldout/train"):
        certificate = json.loads((root / directory / "certificate.json").read_text())
        for rule, count in certificate.get("identifiers", {}).items():
            counts[rule] = counts.get(rule, 0) + count
    return counts


def chance_ceiling(classes, records):
    """Four standard deviations above guessing one of the classes."""
    p = 1 / classes
    return p + 4 * math.sqrt(p * (1 - p) / records)


def file_rows(root):
    for name, what in (("shards/train", "de-identified shards, certificate, report"), ("run/log/metrics.jsonl", "a line a step"),
                       ("run/checkpoints", "what resume reads"), ("exported", "loads in transformers")):
        path = root / name
        files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
        size = sum(f.stat().st_size for f in files)
        shown = f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.0f} KiB"
        yield name, f"{shown} in {len(files)} file{'s' if len(files) != 1 else ''}: {what}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", required=True, type=pathlib.Path)
    parser.add_argument("--expect-chance", action="store_true")
    args = parser.parse_args()
    root = args.dir
    before, after = lines(root / "scores.jsonl")
    metrics = lines(root / "run/log/metrics.jsonl")
    resume = json.loads((root / "resume.json").read_text())
    by_kind, left = identifiers_left(root)
    rules = replaced_by_rule(root)
    ceiling = chance_ceiling(after["classes"], after["records"])
    loss = [m["loss"] for m in metrics]
    width = min(20, len(loss))

    rows = [
        ("identifiers planted", f"{sum(by_kind.values())}: " + ", ".join(f"{k} {n}" for k, n in sorted(by_kind.items()))),
        ("replaced by the gate", f"{sum(rules.values())}: " + ", ".join(f"{k} {n}" for k, n in sorted(rules.items()) if n)),
        ("still readable", f"{len(left)}"),
        ("training", f"{len(metrics)} steps on {resume['ranks']} ranks, {statistics.median(m['tokens_per_s'] for m in metrics):,.0f} tokens/s"),
        ("kill -9, then resume", f"killed after step {resume['killed_after']}, resumed from the checkpoint of step {resume['resumed_from']}"),
        ("loss", f"{loss[0]:.3f} → {statistics.fmean(loss[-width:]):.3f} (mean of the last {width} steps)"),
        ("held-out accuracy before", f"{before['accuracy']:.1%}  (guessing: {1 / before['classes']:.1%}, {before['classes']} answers)"),
        ("held-out accuracy after", f"{after['accuracy']:.1%}  ({after['right']} of {after['records']} visits of patients never seen)"),
    ]
    rows += list(file_rows(root))
    label = max(len(name) for name, _ in rows)
    print()
    for name, value in rows:
        print(textwrap.fill(value, width=100, initial_indent=f"  {name:<{label}}  ", subsequent_indent=" " * (label + 4)))
    print()

    failures = []
    if left:
        failures.append(f"{len(left)} identifiers are still in clean records, the first a {left[0][1]} in {left[0][0]}")
    if [m["step"] for m in metrics] != list(range(1, len(metrics) + 1)):
        failures.append("log/metrics.jsonl does not have each step once")
    if args.expect_chance and after["accuracy"] > ceiling:
        failures.append(f"shuffled answers gave accuracy {after['accuracy']:.1%}, above chance ({ceiling:.1%} at most)")
    if not args.expect_chance and after["accuracy"] < TARGET:
        failures.append(f"held-out accuracy {after['accuracy']:.1%} is below {TARGET:.0%}")
    for failure in failures:
        print(f"demo: FAILED: {failure}")
    if not failures:
        print("demo: passed: " + (f"with shuffled answers accuracy stays at chance (≤ {ceiling:.1%})" if args.expect_chance
                                  else f"held-out accuracy ≥ {TARGET:.0%}, no identifier left, training survived kill -9"))
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
