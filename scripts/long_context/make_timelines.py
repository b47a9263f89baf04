#!/usr/bin/env python3
"""Synthetic health-record timelines with one fact to remember, as chat records.

    make_timelines.py --output DIR [--tokens 32768] [--short 3000] [--long 20] [--heldout 8] [--seed 1]

A timeline is a line a visit: vitals, drugs and codes in words of a closed vocabulary. One line, anywhere, says which
device was implanted; device names stand nowhere else. The question after the last visit asks for it. tiny.jsonl
and short.jsonl hold timelines of 24 to 90 and of 40 to 1024 words (a newline counts as one), long.jsonl and
heldout.jsonl of at least --tokens. Everything follows from the seed.
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


def timeline(draw, name, tokens):
    """A chat record of at least `tokens` words, and the device."""
    per_line = 2 * len(FIELDS) + 1
    lines = [visit(draw) for _ in range(tokens // per_line + 1)]
    device = draw.choice(DEVICES)
    lines.insert(draw.randrange(len(lines)), f"{device} implanted")
    content = "\n".join(lines) + "\n" + QUESTION
    return {"id": name, "subject": name, "messages": [{"role": "user", "content": content}, {"role": "assistant", "content": device}]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--short", type=int, default=3000)
    parser.add_argument("--long", type=int, default=20)
    parser.add_argument("--heldout", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    draw = random.Random(args.seed)
    args.output.mkdir(parents=True, exist_ok=True)
    parts = {"tiny": [draw.randint(24, 90) for _ in range(2 * args.short)],
             "short": [int(40 * (1024 / 40) ** draw.random()) for _ in range(args.short)],
             "long": [args.tokens] * args.long, "heldout": [args.tokens] * args.heldout}
    for name, lengths in parts.items():
        with open(args.output / f"{name}.jsonl", "w", encoding="utf-8") as out:
            for number, length in enumerate(lengths):
                out.write(json.dumps(timeline(draw, f"{name}-{number}", length)) + "\n")


if __name__ == "__main__":
    main()
