#!/usr/bin/env python3
"""The closing table of scripts/long_context.sh, and its verdict as the exit code.

    report.py --prompts RECORDS.jsonl PROMPTS.jsonl     the records without their answers
    report.py --dir DIR                                 the table, DIR/report.json, and 1 where something falls short
"""
import argparse
import json
import pathlib
import statistics
import sys


def lines(path):
    return [json.loads(line) for line in pathlib.Path(path).read_text().rstrip("\n").split("\n")]


def write_prompts(records, prompts):
    with open(prompts, "w", encoding="utf-8") as out:
        for record in lines(records):
            out.write(json.dumps({"messages": record["messages"][:-1]}) + "\n")


def right(answers, records):
    return sum(answer["text"].strip() == record["messages"][-1]["content"] for answer, record in zip(answers, records))


def worst(pairs):
    return max(abs(a - b) / abs(a) for a, b in pairs)


def report(directory):
    runs = {name: lines(directory / name / "log/metrics.jsonl") for name in ("one", "context")}
    pairs = [(a["loss"], b["loss"]) for a, b in zip(runs["one"], runs["context"])]
    records = lines(directory / "heldout-clean.jsonl")
    words = [record["messages"][0]["content"].split() for record in records]
    depths = [words_of.index("implanted") / len(words_of) for words_of in words]
    answers = {name: lines(directory / f"{name}-answers.jsonl") for name in ("base", "extended", "context")}
    speed = {name: statistics.median(row["tokens_per_s"] for row in rows) for name, rows in runs.items()}
    gradients = [(a["grad_norm"], b["grad_norm"]) for a, b in zip(runs["one"], runs["context"])]
    result = {
        "tokens": min(answer["prompt_tokens"] for answer in answers["base"]),
        "steps": len(runs["context"]),
        "depths": depths,
        "losses": pairs,
        "last_loss": runs["context"][-1]["loss"],
        "worst_difference": worst(pairs),
        "worst_gradient_difference": worst(gradients),
        "right": {name: right(found, records) for name, found in answers.items()},
        "heldout": len(records),
        "tokens_per_s": speed,
    }
    (directory / "report.json").write_text(json.dumps(result, indent=1) + "\n")
    rows = [("tokens of a held-out timeline, at least", f"{result['tokens']:,}")]
    rows += [(f"loss of step {i + 1}: one rank, context 2", f"{a:.7f}, {b:.7f}") for i, (a, b) in enumerate(pairs)]
    rows += [
        ("largest relative difference: losses, gradient norms",
         f"{result['worst_difference']:.1e}, {result['worst_gradient_difference']:.1e}"),
        (f"loss of step {result['steps']}, context 2", f"{result['last_loss']:.4f}"),
        ("where held-out facts stand, % of the timeline", " ".join(f"{100 * depth:.0f}" for depth in depths)),
        ("devices found after short timelines only", f"{result['right']['base']} of {len(records)}"),
        ("the same with positions scaled", f"{result['right']['extended']} of {len(records)}"),
        (f"and after {result['steps']} long steps, context 2", f"{result['right']['context']} of {len(records)}"),
        ("tokens a second: one rank, context 2", f"{speed['one']:,.0f}, {speed['context']:,.0f}"),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"  {name:<{width}}  {value}")
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", nargs=2, type=pathlib.Path)
    parser.add_argument("--dir", type=pathlib.Path)
    args = parser.parse_args()
    if args.prompts:
        write_prompts(*args.prompts)
        return
    result = report(args.dir)
    if result["worst_difference"] > 1e-5:
        sys.exit("long_context: one rank and context 2 differ by more than 1e-5")
    if result["right"]["context"] < 0.75 * result["heldout"]:
        sys.exit("long_context: fewer than three in four devices were found")


if __name__ == "__main__":
    main()
