#!/usr/bin/env python3
"""The longest sequence that fits a GPU's memory, by layout: plain arithmetic, no GPU is looked at.

    longest.py [--gb 24 40 80 141] [--chunk 1024] [--markdown]
    longest.py --layer NAME        bytes a token of one decoder layer, to hold against block_memory_bench

bf16, train.recompute full, train.mlp_chunk_tokens, context_method ring, one sequence a micro-batch. The formulas and
what was measured of them: docs/long_context.md.
"""
import argparse
import dataclasses

BF16, FP32 = 2, 4
MIB = 1 << 20
RESERVED = 2e9  # the driver's context, libraries, buckets on their way, gaps between blocks


@dataclasses.dataclass(frozen=True)
class Model:
    layers: int
    D: int  # width
    F: int  # of the MLP
    H: int  # query heads
    K: int  # key heads
    Dh: int  # of a head
    V: int = 262208

    @property
    def A(self):
        return self.H * self.Dh

    @property
    def B(self):
        return self.K * self.Dh

    @property
    def layer(self):
        return self.D * (2 * self.A + 2 * self.B + 3 * self.F)

    @property
    def embedding(self):
        return self.V * self.D

    @property
    def parameters(self):
        return self.layers * self.layer + self.embedding


MODELS = {
    "medgemma-4b": Model(34, 2560, 10240, 8, 4, 256), "medgemma-27b": Model(62, 5376, 21504, 32, 16, 128),
    "medgemma-4b/16": Model(1, 160, 640, 8, 4, 16), "medgemma-27b/16": Model(1, 336, 1344, 32, 16, 8),
}


@dataclasses.dataclass(frozen=True)
class Layout:
    context: int = 1
    tensor: int = 1
    shard: int = 1  # ZeRO 3
    optimizer_on_host: bool = False
    inputs_on_host: bool = False

    def __str__(self):
        axes = [f"{name} {getattr(self, name)}" for name in ("shard", "context", "tensor") if getattr(self, name) > 1]
        text = ", ".join(axes) or "one GPU"
        if self.inputs_on_host:
            return text + "; both offloaded"
        return text + ("; optimizer offloaded" if self.optimizer_on_host else "")

    @property
    def gpus(self):
        return self.context * self.tensor * self.shard


ON_HOST = {"optimizer_on_host": True, "inputs_on_host": True}
LAYOUTS = [
    Layout(), Layout(optimizer_on_host=True), Layout(**ON_HOST),
    Layout(context=2), Layout(context=4), Layout(context=8), Layout(context=8, **ON_HOST),
    Layout(tensor=2), Layout(tensor=4), Layout(context=4, tensor=2), Layout(context=2, tensor=4),
    Layout(shard=8), Layout(shard=8, **ON_HOST), Layout(shard=8, context=2), Layout(shard=8, context=8),
    Layout(shard=8, tensor=4), Layout(shard=8, context=2, tensor=4), Layout(shard=8, context=8, **ON_HOST),
]


def kept(m, e, tensor=1):
    """Of one layer's forward pass, for its backward pass."""
    t = tensor
    width = 6 * m.D if t == 1 else 2 * m.D + 4 * m.D / t  # two norms' outputs are gathered over tensor ranks
    return e * (width + 3 * (m.A + m.B) / t) + 4 * (4 + (2 * m.H + m.K) / t)


def at_mlp(m, e, tensor=1):
    """Live while the tiled MLP goes back: what the layer kept, the gradients of its output and of the MLP's input."""
    return kept(m, e, tensor) + 2 * e * m.D - 4


def at_ring(m, e, ranks, tensor=1):
    """Live while ring attention goes back; sums of gradients are fp32. In a ring of two, gradients go straight home."""
    t = tensor
    keys, sums = (5, 6) if ranks == 2 else (7, 10)
    width = 4 * m.D if t == 1 else 2 * m.D + 2 * m.D / t
    return e * (width + (4 * m.A + keys * m.B) / t) + 4 * ((2 * m.A + sums * m.B + 2 * m.H + m.K) / t + 1)


def backward(m, e, context=1, tensor=1):
    peak = at_mlp(m, e, tensor)
    return peak if context == 1 else max(peak, at_ring(m, e, context, tensor))


def fixed_bytes(m, layout, chunk):
    t, n = layout.tensor, layout.shard
    state = BF16 + FP32 + (0 if layout.optimizer_on_host else 3 * FP32)  # weight, gradient sum; master, two moments
    total = state * m.parameters / (t * n)
    total += FP32 * m.layer / t  # one layer's gradients before they are summed
    total += 5 * chunk * BF16 * m.F / t + 256 * MIB  # the MLP's chunk; the logits'
    if n > 1:  # two layers' weights and whole sums; the embedding's while the backward pass lasts
        total += 2 * (BF16 + FP32) * m.layer / t + (BF16 + FP32) * m.embedding / t
    return total


def token_bytes(m, layout):
    inputs = 0 if layout.inputs_on_host else m.layers * BF16 * m.D / layout.tensor
    tables = 16 * m.Dh + 64  # cosines and sines of two RoPEs in fp32; ids, targets, intervals
    return inputs + tables + backward(m, BF16, layout.context, layout.tensor)


def longest(m, layout, gb, chunk):
    free = gb * 1e9 - RESERVED - fixed_bytes(m, layout, chunk)
    return max(0, int(free / token_bytes(m, layout))) * layout.context


def short(tokens):
    if tokens < 1000:
        return "–"
    return f"{tokens / 1e6:.1f}M" if tokens >= 1e6 else f"{tokens // 1000}k"


def table(m, sizes, chunk):
    head = ["layout", "GPUs"] + [f"{gb} GB" for gb in sizes]
    rows = [[str(layout), str(layout.gpus)] + [short(longest(m, layout, gb, chunk)) for gb in sizes]
            for layout in LAYOUTS]
    return head, rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=int, nargs="+", default=[24, 40, 80, 141])
    parser.add_argument("--chunk", type=int, default=1024)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--layer", choices=MODELS)
    args = parser.parse_args()
    if args.layer:
        m = MODELS[args.layer]
        for name, e in (("fp32", FP32), ("bf16", BF16)):
            ring = ", ".join(f"{at_ring(m, e, ranks):,.0f}" for ranks in (2, 4))
            print(f"{args.layer} {name}: kept {kept(m, e):,.0f}, not tiled {kept(m, e) + 3 * e * m.F:,.0f};"
                  f" back through the MLP {at_mlp(m, e):,.0f}, a ring of 2, 4: {ring}")
        return
    for name in ("medgemma-4b", "medgemma-27b"):
        head, rows = table(MODELS[name], args.gb, args.chunk)
        print(f"\n{name}: {MODELS[name].parameters / 1e9:.1f}e9 parameters")
        if args.markdown:
            print("\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]))
            continue
        width = max(len(row[0]) for row in rows)
        for row in [head, *rows]:
            print(f"  {row[0]:<{width}}" + "".join(f"{cell:>9}" for cell in row[1:]))


if __name__ == "__main__":
    main()
