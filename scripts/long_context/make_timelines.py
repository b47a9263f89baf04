#!/usr/bin/env python3
"""Synthetic health-record timelines with one fact to remember, as chat records.

    make_timelines.py --output DIR [--tokens 32768] [--short 8000] [--long 20] [--heldout 8] [--seed 1]

A timeline is a line a visit: vitals, drugs and codes in words of a closed vocabulary. One line says which device was
implanted; device names stand nowhere else. The question after the last visit asks for it. short.jsonl holds timelines
of 24 to 90 words (a newline counts as one), long.jsonl and heldout.jsonl of at least --tokens. The line stands
anywhere; in heldout timeline i of n it stands in part i of n, so that every depth is asked for. Everything follows from
the seed.
"""
import argparse
import json
import pathlib
import random

DEVICES = ["zorvex", "quilmar", "bentrio", "haldune", "krispet", "lomaxin", "morvane", "nystrel"]
FIELDS = {
    "visit": ["clinic", "ward", "phone", "home", "emergency"],
    "pulse": ["slow", "calm", "even", "quick", "racing"],
    "pressure": ["low", "normal", "raised", "high"],
    "weight": ["down", "same", "up"],
    "drug": ["metformin", "lisinopril", "atorvastatin", "aspirin", "insulin", "ramipril", "warfarin", "none"],
    "code": ["diabetes", "hypertension", "asthma", "anemia", "gout", "migraine", "cough", "fracture"],
}
QUESTION = "which device was implanted"


def visit(draw):
    return " ".join(f"{field} {draw.choice(values)}" for field, values in FIELDS.items())


def timeline(draw, name, tokens, part=0, parts=1):
    """A chat record of at least `tokens` words, its fact in part `part` of `parts`."""
    per_line = 2 * len(FIELDS) + 1
    lines = [visit(draw) for _ in range(tokens // per_line + 1)]
    device = draw.choice(DEVICES)
    lines.insert(int(len(lines) * (part + draw.random()) / parts), f"{device} implanted")
    content = "\n".join(lines) + "\n" + QUESTION
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": device}]
    return {"id": name, "subject": name, "messages": messages}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--short", type=int, default=8000)
    parser.add_argument("--long", type=int, default=20)
    parser.add_argument("--heldout", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    draw = random.Random(args.seed)
    args.output.mkdir(parents=True, exist_ok=True)
    timelines = {
        "short": [timeline(draw, f"short-{i}", draw.randint(24, 90)) for i in range(args.short)],
        "long": [timeline(draw, f"long-{i}", args.tokens) for i in range(args.long)],
        "heldout": [timeline(draw, f"heldout-{i}", args.tokens, i, args.heldout) for i in range(args.heldout)],
    }
    for name, records in timelines.items():
        (args.output / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


if __name__ == "__main__":
    main()
