"""Output projection + cross-entropy over chunks of tokens, as LinearCrossEntropy does it on CUDA: cuBLAS's products around
Osler's kernel, beside PyTorch's plain head and loss.

    python scripts/bench/gpu_head.py [--tokens 8192] [--width 2560] [--vocabulary 262144] [--json FILE]

Operations credited: 6·T·V·D with a trained head (logits, their product with the weight, the weight's gradient), 4·T·V·D
with a frozen one. Memory: the most allocated above inputs, weight and their gradients.
"""

import argparse
import json
import sys

import torch

import osler_cuda_rows as rows


def head(hidden, weight, targets, chunk, grad_weight):
    """The gradient of hidden, and the losses, of a mean over all tokens."""
    grad_hidden = torch.empty_like(hidden)
    losses = torch.empty(len(hidden), device='cuda')
    logits = torch.empty(chunk, len(weight), dtype=hidden.dtype, device='cuda')
    for begin in range(0, len(hidden), chunk):
        part = slice(begin, min(begin + chunk, len(hidden)))
        mine = logits[:part.stop - begin]
        torch.mm(hidden[part], weight.t(), out=mine)
        call = rows.cross_entropy(mine, targets[part], scale=1 / len(hidden))
        call()
        losses[part] = call.loss
        torch.mm(mine, weight, out=grad_hidden[part])
        if grad_weight is not None and grad_weight.dtype == hidden.dtype:
            grad_weight.addmm_(mine.t(), hidden[part])
        elif grad_weight is not None:
            torch.addmm(grad_weight, mine.t(), hidden[part], out_dtype=torch.float32, out=grad_weight)
    return grad_hidden, losses


def plain(hidden, weight, targets):
    logits = torch.nn.functional.linear(hidden, weight)
    return torch.nn.functional.cross_entropy(logits.float(), targets)


def measure(run, repeats=5):
    torch.cuda.synchronize()
    base = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(repeats + 2):
        begin, end = torch.cuda.Event(True), torch.cuda.Event(True)
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return sorted(times[2:])[repeats // 2], (torch.cuda.max_memory_allocated() - base) / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--tokens', type=int, default=8192)
    parser.add_argument('--width', type=int, default=2560)
    parser.add_argument('--vocabulary', type=int, default=262144)
    parser.add_argument('--chunks', default='512,1024,2048,4096')
    parser.add_argument('--json')
    args = parser.parse_args()
    torch.manual_seed(0)
    shape = dict(device='cuda', dtype=torch.bfloat16)
    hidden = torch.randn(args.tokens, args.width, **shape)
    weight = torch.randn(args.vocabulary, args.width, **shape) * args.width**-0.5
    targets = torch.randint(args.vocabulary, (args.tokens,), device='cuda')
    product = 2 * args.tokens * args.vocabulary * args.width
    found = []

    def report(name, products, run, repeats=5):
        try:
            ms, memory = measure(run, repeats)
        except (RuntimeError, TypeError) as error:
            print(f'{name:44} {str(error).splitlines()[0][:100]}')
            torch.cuda.empty_cache()
            return
        found.append(dict(name=name, ms=ms, tflops=products * product / ms / 1e9, memory_gb=memory))
        print(f'{name:44} {ms:9.3f} ms {found[-1]["tflops"]:7.0f} TFLOP/s {memory:7.3f} GB', flush=True)

    wanted = [None]

    def osler(chunk, grad_weight):
        wanted[0] = head(hidden, weight, targets, chunk, grad_weight)

    for chunk in map(int, args.chunks.split(',')):
        report(f'osler, chunk {chunk}, frozen head', 2, lambda: osler(chunk, None))
        for dtype, name in ((torch.float32, 'fp32'), (torch.bfloat16, 'bf16')):
            total = torch.zeros(args.vocabulary, args.width, dtype=dtype, device='cuda')
            report(f'osler, chunk {chunk}, weight gradient {name}', 3, lambda: osler(chunk, total))
            del total
    leaf_hidden, leaf_weight = (x.detach().requires_grad_() for x in (hidden, weight))
    few = min(args.tokens, 8192)

    def torch_head():
        leaf_hidden.grad = leaf_weight.grad = None
        plain(leaf_hidden[:few], leaf_weight, targets[:few]).backward()

    if few == args.tokens:
        report('torch: linear, float, cross_entropy', 3, torch_head, 3)
        grad_hidden, losses = wanted[0]
        error = (grad_hidden.float() - leaf_hidden.grad.float()).norm() / leaf_hidden.grad.float().norm()
        loss = plain(hidden, weight, targets)
        print(f'gradient of hidden against torch: {error:.2e}; loss {losses.mean():.5f} against {loss:.5f}')
    if args.json:
        with open(args.json, 'w', encoding='utf-8') as file:
            json.dump(dict(head=found, tokens=args.tokens, width=args.width, vocabulary=args.vocabulary), file)


if __name__ == '__main__':
    sys.exit(main())
