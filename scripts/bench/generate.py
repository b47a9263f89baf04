#!/usr/bin/env python3
"""Tokens/s of `osler generate` and of transformers' generate, in turns, on the same model directory.

    generate.py --model DIR --osler BIN [--precision fp32 bf16] [--batch 1 8] [--prompt-tokens 256] [--new-tokens 128]
                [--threads N] [--output FILE]

Both sides continue random prompts of one length greedily for exactly --new-tokens. Osler's rates are those it reports
of its own clock, over as many batches as the peer measures rounds, the first one cold; scripts/bench/hf_generate.py
says how the peer is timed. Prints a table with ratios; FILE gets the figures as JSON.
"""
import argparse
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROUNDS = 2
RATES = re.compile(r"prefill .*\(([\d.]+) tokens/s\), decode .*\(([\d.]+) tokens/s\)")


def run(args, command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True,
                          env=dict(os.environ, OMP_NUM_THREADS=str(args.threads), HF_HUB_OFFLINE="1"))
    if done.returncode != 0:
        sys.exit(f"bench: {command[0]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done


def osler(args, precision, batch, vocabulary):
    draw = random.Random(1)
    with tempfile.TemporaryDirectory() as work:
        with open(f"{work}/in.jsonl", "w") as out:
            for _ in range(batch * ROUNDS):
                ids = [draw.randrange(3, vocabulary) for _ in range(args.prompt_tokens)]
                out.write(json.dumps({"input_ids": ids}) + "\n")
        done = run(args, [args.osler, "generate", "--model", args.model, "--input", f"{work}/in.jsonl", "--output",
                          f"{work}/out.jsonl", "--batch", batch, "--precision", precision, "--max-new-tokens",
                          args.new_tokens, "--min-new-tokens", args.new_tokens])
    prefill, decode = map(float, RATES.search(done.stderr).groups())
    return {"prefill": prefill, "decode": decode}


def transformers(args, precision, batch, _):
    python = HERE.parents[1] / ".venv/bin/python"
    done = run(args, [python, HERE / "hf_generate.py", "--model", args.model, "--precision", precision, "--batch",
                      batch, "--prompt-tokens", args.prompt_tokens, "--new-tokens", args.new_tokens, "--rounds", ROUNDS])
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--osler", required=True)
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--output")
    args = parser.parse_args()
    vocabulary = json.loads((pathlib.Path(args.model) / "config.json").read_text())["vocab_size"]
    print(f"{args.prompt_tokens} prompt tokens, {args.new_tokens} new, {args.threads} threads; tokens/s of a batch")
    print(f"{'':<20}{'prefill':>12}{'peer':>12}{'ratio':>8}{'decode':>12}{'peer':>12}{'ratio':>8}", flush=True)
    results = []
    for precision in args.precision:
        for batch in args.batch:
            ours, peer = (side(args, precision, batch, vocabulary) for side in (osler, transformers))
            results.append({"precision": precision, "batch": batch, "osler": ours, "transformers": peer})
            cells = "".join(f"{ours[k]:>12,.1f}{peer[k]:>12,.1f}{ours[k] / peer[k]:>7.2f}×" for k in ("prefill", "decode"))
            print(f"{precision}, batch {batch:<10}{cells}", flush=True)
    if args.output:
        pathlib.Path(args.output).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
