#!/usr/bin/env python3
"""Osler's CUDA attention on this GPU: is it right, and how fast is it beside its peers.

    gpu_attention.py check [--families 80,90] [--widths 64,128] [--quick] [--repeats 1000] [--seconds 80] [--json FILE]
    gpu_attention.py bench [--families 80,90] [--cases NAME,…] [--budget-seconds 60] [--json FILE]
    gpu_attention.py sanitize [--families 80,90] [--widths 64]     a few small launches, for compute-sanitizer

The library is OSLER_CUDA_LIBRARY, else build/release/libosler_cuda.so; `bench` runs its peers without it too. A family
is 80 (mma.sync kernels) or 90 (wgmma). `check` prints for each family, width and mask the largest error over the
allowed one (above 1 fails) or "unsup": unsupported. gpu_check.py has the rule, gpu_cases.py the cases. Exits 1 after a
failure.
"""
import argparse
import json
import pathlib
import sys
import time

import torch

import gpu_cases
import gpu_check
import gpu_masks
import gpu_properties
import osler_cuda


def print_table(cells, columns):
    """cells {(family, width): {mask name: Verdict}}: masks down, families and widths across."""
    heads = [f"{family}/{width}" for family, width in columns]
    names = list(dict.fromkeys(name for row in cells.values() for name in row))
    texts = {name: [str(cells[c][name]) if name in cells[c] else "–" for c in columns] for name in names}
    texts = {name: [t.replace("unsupported", "unsup").replace("ok ", "") for t in row] for name, row in texts.items()}
    wide = [max(len(head), *(len(row[n]) for row in texts.values())) for n, head in enumerate(heads)]
    first = max(len(name) for name in names)
    print(" " * first, *(head.rjust(w) for head, w in zip(heads, wide, strict=True)))
    for name, row in texts.items():
        print(name.ljust(first), *(text.rjust(w) for text, w in zip(row, wide, strict=True)))


def run_sweep(library, args, deadline):
    """(cells of print_table, texts of failures)."""
    cells, failures = {}, []
    for width in args.widths:
        for case in gpu_cases.sweep(width, args.quick):
            if time.monotonic() > deadline:
                failures.append(f"hd{width}: time is up before {case}")
                break
            try:
                verdicts = gpu_check.check(library, case, args.families, args.device)
            except (RuntimeError, ValueError) as error:  # an error of CUDA stays: nothing after it can run
                failures.append(f"{case}: {error}")
                if "CUDA" in str(error) or isinstance(error, osler_cuda.CudaError):
                    return cells, failures
                continue
            for family, verdict in verdicts.items():
                cells.setdefault((family, width), {})[case.mask.name] = verdict
                failures += [f"sm_{family} {case}: {problem}" for problem in verdict.problems]
    return cells, failures


def run_properties(library, args, deadline):
    """Lines of text, the failures among them starting with FAIL."""
    runs = [(family, width) for family in args.families for width in args.widths]
    for n, (family, width) in enumerate(runs):
        name, share = f"sm_{family} hd{width}", max(0.0, deadline - time.monotonic()) / (len(runs) - n)
        try:
            verdict = gpu_properties.merge(library, gpu_properties.merge_case(width), family, [333], args.device)
            yield f"{'FAIL ' * bool(verdict.problems)}{name} merged halves: {verdict} {verdict.problems or ''}"
        except osler_cuda.Unsupported:
            yield f"{name} merged halves: unsupported"
        try:
            done, differing = gpu_properties.repeats(library, gpu_properties.medium_case(width), family, args.repeats,
                                                     share, args.device)
            yield f"{'FAIL ' * any(differing.values())}{name} {done} repeats, how often another bit: {differing}"
        except osler_cuda.Unsupported:
            yield f"{name} repeats: unsupported"


def check(args):
    library = osler_cuda.OslerCuda()
    begin = time.monotonic()
    print(f"{library.path} on {torch.cuda.get_device_name() if args.device == 'cuda' else args.device}")
    cells, failures = run_sweep(library, args, begin + args.seconds * (0.6 if args.repeats else 1.0))
    if cells:
        print("largest error / allowed error; families and widths across")
        print_table(cells, list(cells))
        ratios = {c: max(v.peer_ratio for v in row.values()) for c, row in cells.items()}
        print("largest error / PyTorch's: " + ", ".join(f"{f}/{w} {ratio:.2f}" for (f, w), ratio in ratios.items()))
    print(f"sweep: {time.monotonic() - begin:.1f} s")
    lines = []
    try:
        for line in run_properties(library, args, begin + args.seconds) if args.repeats else ():
            lines.append(line)
            print(line, flush=True)
    except RuntimeError as error:  # of CUDA: nothing after it can run
        lines.append(f"FAIL merged halves, repeats: {error}")
    failures += [line for line in lines if line.startswith("FAIL")]
    print(f"{len(failures)} failures, {time.monotonic() - begin:.1f} s")
    print("\n".join(failures[:args.show]))
    if args.json:
        table = {f"{f}/{w}": {name: str(v) for name, v in row.items()} for (f, w), row in cells.items()}
        args.json.write_text(json.dumps({"cells": table, "properties": lines, "failures": failures}, indent=1))
    return bool(failures)


def sanitize(args):
    """No reference and no torch kernels but copies: what is launched is Osler's."""
    library = osler_cuda.OslerCuda()
    for family in args.families:
        for width in args.widths:
            mask = gpu_masks.documents([140, 1, 60], window=90, images=[(5, 45)], name="small")
            case = gpu_cases.Case(mask, width, heads=2, key_heads=1)
            q, k, v, grad = (torch.randn(mask.queries, heads, width).to(case.dtype).to(args.device)
                             for heads in (2, 1, 1, 2))
            lo, hi = mask.ends(args.device)
            try:
                out, lse = library.forward(q, k, v, lo, hi, kernels=family)
                library.backward(q, k, v, lo, hi, out, lse, grad, kernels=family)
                torch.cuda.synchronize()
                print(f"sm_{family} hd{width}: ran", flush=True)
            except osler_cuda.Unsupported:
                print(f"sm_{family} hd{width}: unsupported", flush=True)


def bench(args):
    import gpu_bench
    return gpu_bench.run(args)


def numbers(text):
    return [int(x) for x in text.split(",") if x]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["check", "bench", "sanitize"])
    parser.add_argument("--families", type=numbers, default=[80, 90])
    parser.add_argument("--widths", type=numbers, default=gpu_cases.WIDTHS)
    parser.add_argument("--quick", action="store_true", help="ten masks instead of twenty-eight")
    parser.add_argument("--repeats", type=int, default=1000, help="of one case, bit for bit; 0: no "
                        "repeats, no merging")
    parser.add_argument("--seconds", type=float, default=300.0, help="what check may take")
    parser.add_argument("--show", type=int, default=60, help="failures that are printed")
    parser.add_argument("--cases", type=lambda text: text.split(","), help="of bench; all by default")
    parser.add_argument("--peers", type=lambda text: text.split(","), help="of bench: fa2, fa2 det, cudnn, dense mask; "
                        "all by default")
    parser.add_argument("--budget-seconds", type=float, default=120.0, help="what bench may take: fewer repeats, then "
                        "fewer cases")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        print("gpu_attention: skipped, torch sees no GPU")
        return 0
    return {"check": check, "bench": bench, "sanitize": sanitize}[args.mode](args)


if __name__ == "__main__":
    sys.exit(main())
