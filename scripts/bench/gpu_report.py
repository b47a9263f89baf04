#!/usr/bin/env python3
"""Merges what scripts/bench_gpu.sh measured: DIR/{check,attention,step}.json and rows.txt → result.json and table.md.

    gpu_report.py DIR

Each part is optional. rows.txt holds the tables that gpu_rows.py and gpu_head.py printed; it is taken as it stands.
"""
import json
import pathlib
import sys

import gpu_bench

PARTS = ["check", "attention", "step"]


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(str(x) for x in row) + " |" for row in rows])


def figure(row, which, best):
    part = row.get(which, {})
    if "tflops" not in part:
        return part.get("note", "–")
    ratio = f", {part['tflops'] / best:.2f}×" if best else ""
    said = " (wrong result)" if part.get("wrong") else " (nearest mask)" if row["nearest"] else ""
    return f"{part['ms']:.3f} ms, {part['tflops']:.0f}{ratio}{said}"


def attention(result):
    """A table of one line a case: every implementation's time, TFLOP/s and multiple of the best peer's."""
    names = list(dict.fromkeys(row["name"] for case in result for row in case["rows"]))
    lines = []
    for case in result:
        rows = {row["name"]: row for row in case["rows"]}
        for which in ("forward", "backward"):
            best = gpu_bench.best_peer(case, which)
            goal = case["goals"][which == "backward"] if case["goals"] else "–"
            lines.append([case["case"], which, goal, *[figure(rows.get(n, {}), which, best) for n in names]])
    return table(["case", "pass", "goal, TFLOP/s", *names], lines)


def step(result):
    header = ["model", "trains", "checkpointing", "attention", "tokens a step", "ms", "tokens/s", "MFU, %", "peak, GiB"]
    return table(header,
                 [[r["size"], r["mode"], r["checkpointing"], r["attention"], r["batch"] * r["sequence_length"],
                   *([f"{r['ms']:.1f}", f"{r['tokens_per_s']:.0f}", f"{100 * r['mfu']:.1f}", f"{r['peak_gib']:.1f}"]
                     if "ms" in r else [r.get("note", "–"), "–", "–", "–"])] for r in result])


def main():
    directory, merged, texts = pathlib.Path(sys.argv[1]), {}, []
    for part in PARTS:
        if (path := directory / f"{part}.json").exists():
            merged[part] = json.loads(path.read_text())
    if "attention" in merged:
        machine = merged["attention"]["machine"]
        texts.append(f"{machine['device']}, torch {machine['torch']}, cuDNN {machine['cudnn']}; bf16 product of 8,192³ "
                     f"{machine['gemm_tflops']:.0f} TFLOP/s, copy {machine['copy_tbps']:.2f} TB/s (read + write).")
        texts.append(attention(merged["attention"]["attention"]))
    if (path := directory / "rows.txt").exists():
        merged["rows"] = path.read_text()
        texts.append(f"```\n{merged['rows'].rstrip()}\n```")
    if "step" in merged:
        texts.append(step(merged["step"]["step_peer"]))
    if "check" in merged:
        failures = merged["check"]["failures"]
        texts.append(f"{len(failures)} checks failed." + "".join(f"\n* {x}" for x in failures[:20]))
    (directory / "result.json").write_text(json.dumps(merged, indent=1))
    (directory / "table.md").write_text("\n\n".join(texts) + "\n")
    print("\n\n".join(texts))


if __name__ == "__main__":
    main()
