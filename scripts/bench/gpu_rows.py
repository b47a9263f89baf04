#!/usr/bin/env python3
"""Checks and times the row kernels of libosler_cuda.so against PyTorch on one GPU.

    gpu_rows.py check [--only NAME]    every kernel against fp64, over shapes; 100 repeats bit-equal
    gpu_rows.py bench [--only NAME]    GB/s of bytes that must move, share of a copy's rate, peers

OSLER_CUDA_LIBRARY names the library; else build/release/libosler_cuda.so is taken. Exit code 1: a
check failed.
"""

import argparse
import sys
import time

import torch
import torch.nn.functional as F

import osler_cuda_rows as osler
from gpu_rows_checks import run_checks
from gpu_rows_references import BF16, FP32, FP64, SHORT, randn, rope_tables

class Bench:
    def __init__(self):
        self.begin = time.time()
        source, target = (torch.empty(1 << 30, dtype=torch.uint8, device='cuda') for _ in range(2))
        source.random_()
        self.copy_rate = (2 << 30) / self.time([lambda: target.copy_(source)])
        print(f'{torch.cuda.get_device_name()}: copies move {self.copy_rate / 1e9:.0f} GB/s '
              '(read + written)')
        print(f'{"":46s} {"ms":>8s} {"GB/s":>6s} {"of copy":>8s}   peers, ms')

    @staticmethod
    def time(calls, batches=7, launches=8, before=None):
        """Median seconds of one call: calls over several sets of data go in turn.

        before(i), untimed, comes before each call: for those that overwrite what they read.
        """
        for call in calls:
            call()
        times = []
        for _ in range(batches):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            count = 1 if before else launches
            if before:
                before(len(times) % len(calls))
            start.record()
            for i in range(len(times), len(times) + count):
                calls[i % len(calls)]()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1e3 / count)
        return sorted(times)[len(times) // 2]

    def report(self, name, bytes_moved, calls, before=None, **peers):
        seconds = self.time(calls, before=before)
        rate = bytes_moved / seconds
        others = []
        for peer, peer_calls in peers.items():
            try:
                others.append(f'{peer} {1e3 * self.time(peer_calls, 3, 4):.3f}')
            except Exception as error:
                others.append(f'{peer} {type(error).__name__}: {str(error)[:80]}')
        print(f'{name:46s} {1e3 * seconds:8.3f} {rate / 1e9:6.0f} '
              f'{100 * rate / self.copy_rate:7.1f}%   {", ".join(others)}', flush=True)


SETS = 2


def bench_rms_norm(bench):
    for rows, width in ((32768, 2560), (16384, 5376), (65536, 1152), (8192, 16384)):
        xs, residuals, grads = ([randn(rows, width, dtype=BF16) for _ in range(SETS)]
                                for _ in range(3))
        weight = randn(width, dtype=BF16)
        size = 2 * rows * width
        peers = {}
        if width == 2560:
            peers['aten'] = [lambda x=x: torch._fused_rms_norm(x, [width], weight, 1e-6)
                             for x in xs]
        case = f'[{rows},{width}] bf16'
        bench.report(f'rms_norm {case}', 2 * size,
                     [osler.rms_norm_forward(x, weight) for x in xs], **peers)
        bench.report(f'rms_norm after adding {case}', 4 * size,
                     [osler.rms_norm_forward(x, weight, residual=r, keep_sum=True)
                      for x, r in zip(xs, residuals)])
        if width == 2560:
            bench.report(f'rms_norm before adding {case}', 3 * size,
                         [osler.rms_norm_forward(x, weight, residual=r)
                          for x, r in zip(xs, residuals)])
        rms = osler.rms_norm_forward(xs[0], weight)().inverse_rms
        if width == 2560:
            peers['aten'] = [lambda x=x, g=g: torch.ops.aten._fused_rms_norm_backward(
                g, x, [width], rms[:, None], weight, [True, True]) for x, g in zip(xs, grads)]
        bench.report(f'rms_norm_backward {case}', 3 * size,
                     [osler.rms_norm_backward(g, x, weight, rms) for x, g in zip(xs, grads)],
                     **peers)
        bench.report(f'rms_norm_backward + sum {case}', 4 * size,
                     [osler.rms_norm_backward(g, x, weight, rms, grad_sum=r)
                      for x, g, r in zip(xs, grads, residuals)])
        if width == 2560:
            bench.report(f'rms_norm_backward, no weight {case}', 3 * size,
                         [osler.rms_norm_backward(g, x, weight, rms, weight_gradient=False)
                          for x, g in zip(xs, grads)])


def eager_norm_rope(x, cos, sin, weight):
    normed = F.rms_norm(x, (x.shape[-1],), weight, 1e-6)
    first, second = normed.chunk(2, -1)
    return normed * cos + torch.cat((-second, first), -1) * sin


def bench_norm_rope(bench):
    for tokens, heads, width in ((32768, 8, 256), (32768, 4, 256), (32768, 32, 128),
                                 (65536, 8, 128)):
        xs, grads = ([randn(tokens, heads, width, dtype=BF16) for _ in range(SETS)]
                     for _ in range(2))
        weight = randn(width, dtype=BF16)
        cos, sin = rope_tables(tokens, width)
        size, tables = 2 * tokens * heads * width, 4 * tokens * width
        case = f'[{tokens},{heads},{width}] bf16'
        peers = {}
        if heads == 8:
            c, s = cos.to(BF16)[:, None], sin.to(BF16)[:, None]
            peers['eager'] = [lambda x=x: eager_norm_rope(x, c, s, weight) for x in xs]
        bench.report(f'rope {case}', 2 * size + tables,
                     [osler.norm_rope_forward(x, cos, sin) for x in xs])
        bench.report(f'norm_rope {case}', 2 * size + tables,
                     [osler.norm_rope_forward(x, cos, sin, weight) for x in xs], **peers)
        rms = osler.norm_rope_forward(xs[0], cos, sin, weight)().inverse_rms
        bench.report(f'norm_rope_backward {case}', 3 * size + tables,
                     [osler.norm_rope_backward(g, x, cos, sin, weight, rms)
                      for x, g in zip(xs, grads)])


def eager_gate(gate, up, kind):
    act = F.silu(gate) if kind == osler.SILU else F.gelu(gate, approximate='tanh')
    return act * up


def bench_gated(bench):
    for rows, width, kind in ((16384, 10240, osler.GELU_TANH), (16384, 14336, osler.SILU),
                              (32768, 6912, osler.GELU_TANH)):
        fused = [randn(rows, 2 * width, dtype=BF16) for _ in range(SETS)]
        grads = [randn(rows, width, dtype=BF16) for _ in range(SETS)]
        pairs = [(x[:, :width], x[:, width:]) for x in fused]
        separate = [(g.contiguous(), u.contiguous()) for g, u in pairs]
        size = 2 * rows * width
        name = 'silu' if kind == osler.SILU else 'gelu'
        case = f'{name} [{rows},{width}] bf16'
        peers, back_peers = {}, {}
        if width != 6912:
            peers['eager'] = [lambda g=g, u=u: eager_gate(g, u, kind) for g, u in separate]
            leaves = [[g.clone().requires_grad_(), u.clone().requires_grad_()]
                      for g, u in separate]
            outs = [eager_gate(*pair, kind) for pair in leaves]
            back_peers['eager'] = [lambda y=y, pair=pair, grad=grad: torch.autograd.grad(
                y, pair, grad, retain_graph=True) for y, pair, grad in zip(outs, leaves, grads)]
        bench.report(f'gated {case}', 3 * size,
                     [osler.gated_forward(g, u, kind) for g, u in separate], **peers)
        bench.report(f'gated fused {case}', 3 * size,
                     [osler.gated_forward(g, u, kind) for g, u in pairs])
        bench.report(f'gated_backward {case}', 5 * size,
                     [osler.gated_backward(d, g, u, kind) for d, (g, u) in zip(grads, separate)],
                     **back_peers)
        outputs = torch.empty_like(fused[0])
        bench.report(f'gated_backward fused {case}', 5 * size,
                     [osler.gated_backward(d, g, u, kind, outputs[:, :width], outputs[:, width:])
                      for d, (g, u) in zip(grads, pairs)])


def bench_cross_entropy(bench):
    for rows, width, dtype in ((1024, 262144, BF16), (1024, 262208, BF16), (1024, 128256, BF16),
                               (1024, 151936, BF16), (2048, 32000, BF16), (1024, 128256, FP32)):
        logits = [(3 * randn(rows, width)).to(dtype) for _ in range(SETS)]
        targets = torch.randint(width, (rows,), device='cuda')
        size = logits[0].numel() * logits[0].element_size()
        case = f'[{rows},{width}] {SHORT[dtype]}'
        peers = {}
        if dtype == BF16 and width in (262144, 128256):
            leaves = [z.clone().requires_grad_() for z in logits]
            peers['eager'] = [lambda z=z: torch.autograd.grad(
                F.cross_entropy(z, targets, reduction='sum'), z) for z in leaves]
        fresh = [z.clone() for z in logits]

        def restore(i):
            logits[i].copy_(fresh[i])
        bench.report(f'cross_entropy {case}', 2 * size,
                     [osler.cross_entropy(z, targets, scale=100.0) for z in logits],
                     before=restore, **peers)
        if width in (262144, 128256):
            bench.report(f'cross_entropy capped {case}', 2 * size,
                         [osler.cross_entropy(z, targets, scale=100.0, soft_cap=30.0)
                          for z in logits], before=restore)
        if width in (262144, 32000):
            restore(0)
            restore(1)
            bench.report(f'cross_entropy_terms {case}', size,
                         [osler.cross_entropy(z, targets, '_terms') for z in logits])
            terms = osler.cross_entropy(logits[0], targets, '_terms')()
            kept = {name: getattr(terms, name) for name in ('max', 'sum', 'target')}
            bench.report(f'cross_entropy_gradient {case}', 2 * size,
                         [osler.cross_entropy(z, targets, '_gradient', scale=100.0, terms=kept)
                          for z in logits], before=restore)


def bench_adamw(bench):
    shapes = ([(2560, 10240)] * 3 + [(2048, 2560), (1024, 2560), (1024, 2560), (2560, 2048)]
              + [(2560,)] * 6) * 4
    for parameter_dtype, gradient_dtype, moment_dtype in (
            (BF16, FP32, FP32), (BF16, BF16, FP32), (BF16, BF16, BF16), (None, FP32, FP32)):
        tensors = []
        for shape in shapes:
            master = randn(*shape)
            tensors.append((master, None if parameter_dtype is None else
                            master.to(parameter_dtype), (0.1 * randn(*shape)).to(moment_dtype),
                            (0.01 * randn(*shape).square()).to(moment_dtype),
                            randn(*shape, dtype=gradient_dtype)))
        count = sum(t[0].numel() for t in tensors)
        bytes_each = (8 + (2 if parameter_dtype else 0) + 4 * moment_dtype.itemsize
                      + gradient_dtype.itemsize)
        case = f'{count / 1e6:.0f} M'
        peers = {}
        if gradient_dtype == moment_dtype == FP32:
            steps = [torch.tensor(3.0, device='cuda') for _ in tensors]
            lists = [list(x) for x in zip(*tensors)]

            def fused():
                torch._fused_adamw_(lists[0], lists[4], lists[2], lists[3], [], steps, lr=1e-3,
                                    beta1=0.9, beta2=0.999, weight_decay=0.1, eps=1e-8,
                                    amsgrad=False, maximize=False)

            def fused_and_copy():
                fused()
                torch._foreach_copy_(lists[1], lists[0])
            peers['torch fused'] = [fused if parameter_dtype is None else fused_and_copy]
        bench.report(f'adamw {case} parameter {SHORT.get(parameter_dtype, "-")} gradient '
                     f'{SHORT[gradient_dtype]} moments {SHORT[moment_dtype]}', bytes_each * count,
                     [osler.adamw(tensors, 3, 1e-3, 0.1)], **peers)
        if moment_dtype == FP32 and parameter_dtype is not None:
            gradients = [t[4] for t in tensors]
            bench.report(f'squares_sum {case} {SHORT[gradient_dtype]}',
                         gradient_dtype.itemsize * count, [osler.squares_sum(gradients)],
                         foreach_norm=[lambda: torch.stack(
                             torch._foreach_norm(gradients)).norm()])


def bench_embedding(bench):
    tokens, width = 32768, 2560
    grads = [randn(tokens, width, dtype=BF16) for _ in range(SETS)]
    # Ids as frequent as words are.
    ranks = torch.arange(1, 100001, device='cuda', dtype=FP64)
    ids = torch.multinomial((1 / ranks).float(), tokens, replacement=True)
    used = int(torch.unique(ids).numel())
    for weight_dtype in (FP32, BF16):
        weight = torch.zeros(100000, width, device='cuda', dtype=weight_dtype)
        moved = 2 * tokens * width + 2 * used * width * weight_dtype.itemsize
        bench.report(f'embedding_backward [{tokens},{width}] {used} ids {SHORT[weight_dtype]}',
                     moved, [osler.embedding_backward(g, ids, weight) for g in grads],
                     aten=[lambda g=g: torch.ops.aten.embedding_dense_backward(
                         g, ids, 100000, -1, False) for g in grads])
    same = torch.full_like(ids, 5)
    bench.report(f'embedding_backward [{tokens},{width}] one id fp32', 2 * tokens * width,
                 [osler.embedding_backward(g, same, torch.zeros(8, width, device='cuda'))
                  for g in grads])


def bench_merge(bench):
    for rows, width in ((32768 * 8, 256), (32768 * 16, 128)):
        outs, parts = ([randn(rows, width) for _ in range(SETS)] for _ in range(2))
        lses = [randn(rows) for _ in range(SETS)]
        bench.report(f'merge_attention [{rows},{width}]', 12 * rows * width,
                     [osler.merge_attention(p, l, o, l.clone())
                      for p, o, l in zip(parts, outs, lses)])


BENCHES = [bench_rms_norm, bench_norm_rope, bench_gated, bench_cross_entropy, bench_adamw,
           bench_embedding, bench_merge]


def run_benches(only):
    bench = Bench()
    for one in BENCHES:
        if only and only not in one.__name__:
            continue
        begin = time.time()
        try:
            one(bench)
        except Exception as error:
            print(f'{one.__name__}: {type(error).__name__}: {error}', flush=True)
        torch.cuda.empty_cache()
        print(f'  ({time.time() - begin:.1f} s)', flush=True)
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('mode', choices=('check', 'bench'))
    parser.add_argument('--only', default='', help='a part of the name of a check or bench')
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    sys.exit(run_checks(arguments.only) if arguments.mode == 'check'
             else run_benches(arguments.only))


if __name__ == '__main__':
    main()
