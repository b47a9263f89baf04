#!/usr/bin/env python3
"""Runs Osler and transformers' Trainer in turns on the same model and records, and compares them from outside.

    compare.py --dir DIR --osler BIN [--steps 8] [--rounds 2] [--batch 4] [--micro-batch 1] [--sequence-length 768]
               [--precision fp32 bf16] [--threads N]

DIR holds model/, shards/train and clean.jsonl as scripts/bench_cpu.sh made them. Every run is watched in one way:
a step is over when its line appears in the run's log/metrics.jsonl (looked at every 5 ms); its useful tokens
are the line's "tokens"; peak RSS is the kernel's for the process; time to the first step counts from exec.
Throughput leaves out the first two steps. The share of GEMM is the rate of the useful weight products (forward and
backward; the head's for target tokens only; attention left out) over the rate of one large product on the same threads
(`osler doctor`). Writes DIR/result.json; prints a table with ratios.
"""
import argparse
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
VARIANTS = ["osler", "hf-padded", "hf-grouped", "hf-best"]
WARMUP = 2
# glibc keeps freed memory instead of handing it back after each tensor: what helps the peer most on a CPU.
MALLOC = {"MALLOC_TRIM_THRESHOLD_": "-1", "MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TOP_PAD_": "268435456",
          "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def command(args, variant, precision, output):
    if variant != "osler":
        return [str(HERE.parents[1] / ".venv/bin/python"), str(HERE / "hf_trainer.py"), "--model", "model", "--data",
                "clean.jsonl", "--mode", variant.removeprefix("hf-"), "--steps", str(args.steps), "--batch",
                str(args.batch), "--sequence-length", str(args.sequence_length), "--precision", precision, "--output",
                str(output)]
    config = output.with_suffix(".yaml")
    config.write_text(f"""\
model: {{path: model}}
data: {{train: [{{path: shards/train}}], sequence_length: {args.sequence_length}, packing: true, shuffle: true}}
mesh: {{data: 1}}
train: {{steps: {args.steps}, global_batch: {args.batch}, micro_batch: {args.micro_batch}, precision: {precision}, seed: 1, output: {output}}}
optimizer: {{type: adamw, lr: 1.0e-4, betas: [0.9, 0.95], eps: 1.0e-8, weight_decay: 0.1, clip_norm: 1.0}}
schedule: {{type: cosine, warmup_steps: 2, min_lr_ratio: 0.0}}
checkpoint: {{every_steps: 0, keep: 1}}
""")
    return [args.osler, "train", "--config", str(config)]


def watch(process, metrics, steps, begin):
    """(finish time of each step in seconds from exec, its log line, peak RSS in MiB). Reaps the process."""
    times, lines, offset = [], [], 0
    while True:
        done, status, usage = os.wait4(process.pid, os.WNOHANG)
        if metrics.exists():
            data = metrics.read_bytes()
            whole = data.rfind(b"\n") + 1
            now = time.monotonic() - begin
            for line in data[offset:whole].splitlines():
                times.append(now)
                lines.append(json.loads(line))
            offset = max(offset, whole)
        if done:
            process.returncode = os.waitstatus_to_exitcode(status)
            break
        time.sleep(0.005)
    return times, lines, usage.ru_maxrss / 1024


def weight_flops(lines):
    """Multiply-adds ×2 of the weight matrices over these steps: forward, and twice that for both gradients."""
    config = json.loads(pathlib.Path("model/config.json").read_text())
    hidden, wide = config["hidden_size"], config["intermediate_size"]
    heads = (config["num_attention_heads"] * 2 + config["num_key_value_heads"] * 2) * config["head_dim"]
    layers = config["num_hidden_layers"] * (heads * hidden + 3 * hidden * wide)
    head = config["vocab_size"] * hidden
    return 6 * sum(layers * line["tokens"] + head * line["target_tokens"] for line in lines)


def gemm_rates(args):
    out = subprocess.run([args.osler, "doctor", "--json"], env=dict(os.environ, OMP_NUM_THREADS=str(args.threads)),
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
    return {precision: rate * 1e9 for precision, rate in json.loads(out)["gemm_gflops"].items()}


def run(args, variant, precision, number):
    output = pathlib.Path(f"runs/{variant}-{precision}-{number}")
    shutil.rmtree(output, ignore_errors=True)
    output.parent.mkdir(exist_ok=True)
    environment = dict(os.environ, OMP_NUM_THREADS=str(args.threads), HF_HUB_OFFLINE="1",
                       TOKENIZERS_PARALLELISM="false", **(MALLOC if variant == "hf-best" else {}))
    with open(f"{output}.log", "w") as log:
        begin = time.monotonic()
        process = subprocess.Popen(command(args, variant, precision, output), env=environment, stdout=log, stderr=log,
                                   stdin=subprocess.DEVNULL)
        times, lines, rss = watch(process, output / "log/metrics.jsonl", args.steps, begin)
    if process.returncode != 0 or len(times) != args.steps:
        tail = pathlib.Path(f"{output}.log").read_text()[-2000:]
        sys.exit(f"bench: {variant} {precision} ended with {process.returncode} after {len(times)} steps:\n{tail}")
    shutil.rmtree(output / "checkpoints", ignore_errors=True)
    counted, seconds = lines[WARMUP:], times[-1] - times[WARMUP - 1]
    return {"variant": variant, "precision": precision, "round": number, "peak_rss_mib": rss, "first_step_s": times[0],
            "tokens_per_s": sum(line["tokens"] for line in counted) / seconds,
            "tokens_per_step": statistics.fmean(line["tokens"] for line in counted),
            "gemm_percent": 100 * weight_flops(counted) / seconds / args.gemm[precision]}


def table(results, precisions):
    columns = [("useful tokens/s", "tokens_per_s", "{:,.0f}"), ("peak RSS MiB", "peak_rss_mib", "{:,.0f}"),
               ("exec to first step s", "first_step_s", "{:.2f}"), ("tokens a step", "tokens_per_step", "{:,.0f}"),
               ("% of GEMM", "gemm_percent", "{:.0f}")]
    rows, summary = [], {}
    for precision in precisions:
        for variant in VARIANTS:
            runs = [r for r in results if (r["variant"], r["precision"]) == (variant, precision)]
            if runs:
                summary[f"{variant}/{precision}"] = {key: statistics.median(r[key] for r in runs)
                                                     for _, key, _ in columns}
        ours = summary.get(f"osler/{precision}")
        for variant in VARIANTS:
            this = summary.get(f"{variant}/{precision}")
            if this is None:
                continue
            ratio = f"{ours['tokens_per_s'] / this['tokens_per_s']:.2f}×" if ours else "-"
            rows.append([variant, precision] + [form.format(this[key]) for _, key, form in columns] + [ratio])
    head = ["", "precision"] + [name for name, _, _ in columns] + ["osler is"]
    widths = [max(len(str(row[i])) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        print("  ".join(f"{cell:<{w}}" if i < 2 else f"{cell:>{w}}" for i, (cell, w) in enumerate(zip(row, widths))))
    return summary


def cpu_name():
    names = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", required=True)
    parser.add_argument("--osler", required=True)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--micro-batch", type=int, default=1, help="Osler's; does not change its results")
    parser.add_argument("--sequence-length", type=int, default=768)
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--variants", nargs="+", default=VARIANTS, choices=VARIANTS)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    if args.steps <= WARMUP:
        parser.error(f"--steps must be more than {WARMUP}")
    args.osler = str(pathlib.Path(args.osler).resolve())
    os.chdir(args.dir)
    args.gemm = gemm_rates(args)
    results = []
    for number in range(args.rounds):
        for precision in args.precision:
            for variant in args.variants:
                result = run(args, variant, precision, number)
                results.append(result)
                print(f"  round {number + 1}: {variant} {precision}: {result['tokens_per_s']:,.0f} useful tokens/s, "
                      f"{result['peak_rss_mib']:,.0f} MiB, first step after {result['first_step_s']:.2f} s",
                      file=sys.stderr, flush=True)
    print(f"\nmedian of {args.rounds} rounds; {args.threads} threads, {cpu_name()}; {args.steps} steps of "
          f"{args.batch} sequences of {args.sequence_length}; one large product: "
          + ", ".join(f"{args.gemm[p] / 1e9:,.0f} GFLOP/s {p}" for p in args.precision))
    summary = table(results, args.precision)
    pathlib.Path("result.json").write_text(json.dumps(
        {"cpu": cpu_name(), "threads": args.threads, "steps": args.steps, "batch": args.batch,
         "micro_batch": args.micro_batch, "gemm_flops": args.gemm, "sequence_length": args.sequence_length, "rounds": results, "median": summary}, indent=1) + "\n")


if __name__ == "__main__":
    main()
