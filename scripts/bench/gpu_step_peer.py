#!/usr/bin/env python3
"""Training steps of transformers (+ PEFT) on this GPU: what Osler's step is compared with.

    gpu_step_peer.py [--sizes 1b,3b] [--modes full,lora] [--checkpointing off,on] [--sequence-length 4096] [--batch 4]
                     [--attention default,cudnn] [--budget-seconds 120] [--json FILE]

Llama-architecture models with random weights, random tokens, bf16 weights and moments, fused AdamW, SDPA, one sequence
a row, no padding. A step is forward, loss on every token, backward, AdamW; CUDA events around the whole of it, median
of the steps after two. Model FLOP utilisation (MFU) is of the datasheet's 989 TFLOP/s: 6 · N operations a token, N
without the input embedding and with the output head, and attention by mask area, 3.5 times its forward 4 · D · H · A;
frozen weights (LoRA) count 4 · N, and what is recomputed earns nothing. Peak memory is that of PyTorch's allocator.
"""
import argparse
import contextlib
import json
import pathlib
import statistics
import sys
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

DATASHEET_TFLOPS = 989.0
WARMUP, FEWEST, STEPS = 2, 2, 10
# hidden, layers, query heads, key heads, head width, MLP width, vocabulary, tied: Llama 3's, and a tiny one.
SIZES = {"1b": (2048, 16, 32, 8, 64, 8192, 128256, True), "3b": (3072, 28, 24, 8, 128, 8192, 128256, True),
         "8b": (4096, 32, 32, 8, 128, 14336, 128256, False), "tiny": (128, 2, 4, 2, 32, 256, 1000, True)}
LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def build(size, mode, checkpointing, args):
    """(model, its configuration) with random weights on the device."""
    from transformers import LlamaConfig, LlamaForCausalLM
    hidden, layers, heads, key_heads, width, wide, vocabulary, tied = SIZES[size]
    config = LlamaConfig(hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
                         num_key_value_heads=key_heads, head_dim=width, intermediate_size=wide, vocab_size=vocabulary,
                         tie_word_embeddings=tied, max_position_embeddings=args.sequence_length, use_cache=False,
                         attn_implementation="sdpa")
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(args.device):
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(torch.float32)
    model.train()
    if mode == "lora":
        from peft import LoraConfig, get_peft_model
        model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=LORA_TARGETS))
    if checkpointing == "on":
        if mode == "lora":
            model.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model, config


def step_flops(model, config, batch, length):
    """(operations of one step, trained parameters)."""
    embedding = model.get_input_embeddings().weight.numel()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    every = sum(p.numel() for p in model.parameters())  # a tied head is counted once, as the embedding is
    products = every if config.tie_word_embeddings else every - embedding
    frozen = products - min(trained, products)
    pairs = length * (length + 1) // 2
    attention = 3.5 * 4 * config.head_dim * config.num_attention_heads * pairs * config.num_hidden_layers
    return batch * (length * (6 * products - 2 * frozen) + attention), trained


class Clock:
    """Times of steps: CUDA events, or the host's clock on a CPU."""

    def __init__(self, device):
        self._cuda, self._marks = device == "cuda", []

    def mark(self):
        if self._cuda:
            self._marks.append(torch.cuda.Event(enable_timing=True))
            self._marks[-1].record()
        else:
            self._marks.append(time.perf_counter())

    def intervals(self):
        if self._cuda:
            torch.cuda.synchronize()
            return [a.elapsed_time(b) for a, b in zip(self._marks, self._marks[1:])]
        return [(b - a) * 1e3 for a, b in zip(self._marks, self._marks[1:])]


def train(model, config, args, seconds):
    """Milliseconds of each step after the warm-up, and the last loss."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, betas=(0.9, 0.95),
                                  weight_decay=0.1, fused=True)
    sets = [torch.randint(0, config.vocab_size, (args.batch, args.sequence_length), device=args.device)
            for _ in range(4)]

    def step(n):
        tokens = sets[n % len(sets)]
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    for n in range(WARMUP):
        begin = time.monotonic()
        float(step(n))  # waits for the device
    steps = max(FEWEST, min(STEPS, int(seconds / (time.monotonic() - begin))))
    clock = Clock(args.device)
    clock.mark()
    for n in range(steps):
        loss = step(n)
        clock.mark()
    return clock.intervals(), float(loss)


def measure(size, mode, checkpointing, attention, args, seconds):
    row = {"size": size, "mode": mode, "checkpointing": checkpointing, "attention": attention, "batch": args.batch,
           "sequence_length": args.sequence_length}
    torch.manual_seed(1)
    if args.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    backend = sdpa_kernel(SDPBackend.CUDNN_ATTENTION) if attention == "cudnn" else contextlib.nullcontext()
    try:
        model, config = build(size, mode, checkpointing, args)
        flops, row["trained_parameters"] = step_flops(model, config, args.batch, args.sequence_length)
        with backend:
            times, row["loss"] = train(model, config, args, seconds)
    except (RuntimeError, ImportError) as error:
        row["note"] = str(error).strip().splitlines()[0][:160]
        return row
    ms = statistics.median(times)
    row |= {"ms": ms, "fastest_ms": min(times), "slowest_ms": max(times), "steps": len(times),
            "tokens_per_s": args.batch * args.sequence_length / ms * 1e3, "step_tflop": flops / 1e12,
            "mfu": flops / ms / 1e9 / DATASHEET_TFLOPS}
    if args.device == "cuda":
        row["peak_gib"] = torch.cuda.max_memory_allocated() / 2 ** 30
    return row


def print_row(row):
    name = f"{row['size']:4} {row['mode']:4} checkpointing {row['checkpointing']:3} {row['attention']:7}"
    if "note" in row:
        print(f"{name} {row['note']}", flush=True)
        return
    print(f"{name} {row['ms']:8.1f} ms ({row['fastest_ms']:.1f}–{row['slowest_ms']:.1f}, {row['steps']} steps) "
          f"{row['tokens_per_s']:8.0f} tokens/s  MFU {100 * row['mfu']:.1f} %  peak {row.get('peak_gib', 0):.1f} GiB  "
          f"loss {row['loss']:.3f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    listed = lambda text: text.split(",")
    parser.add_argument("--sizes", type=listed, default=["1b", "3b"])
    parser.add_argument("--modes", type=listed, default=["full", "lora"])
    parser.add_argument("--checkpointing", type=listed, default=["off", "on"])
    parser.add_argument("--attention", type=listed, default=["default"])
    parser.add_argument("--sequence-length", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--budget-seconds", type=float, default=120.0)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        print("gpu_step_peer: skipped, torch sees no GPU")
        return 0
    runs = [(s, m, c, a) for s in args.sizes for m in args.modes for c in args.checkpointing for a in args.attention]
    print(f"transformers training step, {args.batch} × {args.sequence_length} tokens, bf16, "
          f"{torch.cuda.get_device_name() if args.device == 'cuda' else args.device}")
    end, rows = time.monotonic() + args.budget_seconds, []
    for n, run in enumerate(runs):
        if time.monotonic() > end:
            print("left out, time is up: " + "; ".join(" ".join(r) for r in runs[n:]))
            break
        rows.append(measure(*run, args, 0.5 * (end - time.monotonic()) / (len(runs) - n)))
        print_row(rows[-1])
        if args.json:
            args.json.write_text(json.dumps({"step_peer": rows}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
