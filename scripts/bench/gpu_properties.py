"""What must hold of libosler_cuda.so's attention beyond small errors: the same bits each time, parts that add up."""
import dataclasses
import time

import torch

import gpu_check
import gpu_masks as masks
import gpu_reference
from gpu_cases import Case


class Disturbance:
    """Other work on a stream of its own, of changing size: blocks start and end in another order each time."""

    def __init__(self):
        self._stream = torch.cuda.Stream()
        self._matrix = torch.randn(1024, 1024, device="cuda", dtype=torch.bfloat16)
        self._sizes = torch.randint(64, 1024, (64,), generator=torch.Generator().manual_seed(1)).tolist()

    def step(self, n):
        size = self._sizes[n % len(self._sizes)]
        with torch.cuda.stream(self._stream):
            self._matrix[:size] @ self._matrix


def _bits(tensors):
    return [x.contiguous().view(torch.int16 if x.element_size() == 2 else torch.int32) for x in tensors]


def repeats(library, case, family, count=1000, seconds=20.0, device="cuda", repeated=None):
    """(repeats done, {name: how many differ in some bit}); every second one beside other work on the GPU.

    `repeated` is the library to repeat on, where that is another one: with delays at random, for example."""
    inputs = gpu_check.draw(case, device)
    q, k, v, grad_out, grad_lse = inputs
    lo, hi = case.mask.ends(device)
    options = {"scale": case.scale, "soft_cap": case.soft_cap, "kernels": family}

    def run(kernels):
        out, lse = kernels.forward(q, k, v, lo, hi, poisoned=True, **options)
        grads = kernels.backward(q, k, v, lo, hi, out, lse, grad_out, grad_lse=grad_lse, poisoned=True, **options)
        return _bits([out, lse, *grads])

    first, repeated, names = run(library), repeated or library, ("out", "lse", "dq", "dk", "dv")
    differing = torch.zeros(len(names), dtype=torch.long, device=device)
    disturbance = Disturbance() if device == "cuda" else None
    begin, done = time.monotonic(), 0
    while done < count and time.monotonic() - begin < seconds:
        if disturbance and done % 2:
            disturbance.step(done)
        differing += torch.stack([(mine != other).any() for mine, other in zip(run(repeated), first, strict=True)]).long()
        done += 1
        if done % 50 == 0 and device == "cuda":
            torch.cuda.synchronize()  # the host must not run far ahead, or the time says nothing
    return done, dict(zip(names, differing.tolist(), strict=True))


def merge(library, case, family, cuts, device="cuda"):
    """gpu_check.Verdict of results put together from parts of the keys: fp32 parts, merged by their log-sum-exp."""
    case = dataclasses.replace(case, whole=True, grad_lse=False)
    q, k, v, grad_out, _ = inputs = gpu_check.draw(case, device)
    problem = gpu_check.problem_of(case, inputs)
    options = {"scale": case.scale, "soft_cap": case.soft_cap, "kernels": family, "poisoned": True}
    ends, parts = [0, *cuts, case.mask.keys], []
    for begin, end in zip(ends[:-1], ends[1:], strict=True):
        lo, hi = masks.part_of_keys(case.mask, begin, end).ends(device)
        out, lse = library.forward(q, k[begin:end], v[begin:end], lo, hi, out_dtype=torch.float32, **options)
        parts.append((begin, end, lo, hi, out, lse))
    lse = torch.stack([x[5] for x in parts]).logsumexp(0)
    out = sum((x[5] - lse).exp().nan_to_num(0.0)[..., None] * x[4] for x in parts)
    grads = [library.backward(q, k[begin:end], v[begin:end], lo, hi, out, lse, grad_out, grad_dtype=torch.float32,
                              **options) for begin, end, lo, hi, _, _ in parts]
    got = {"out": out, "lse": lse, "dq": sum(x[0] for x in grads), "dk": torch.cat([x[1] for x in grads]),
           "dv": torch.cat([x[2] for x in grads])}
    return gpu_check.compare(case, got, gpu_reference.exact(problem), gpu_reference.in_low_precision(problem))


def medium_case(width):
    """Documents, a window and images, some of each inside tiles and across them; two waves of blocks."""
    lengths = masks.packed_lengths(4096, seed=3, shortest=30, longest=1500)
    spans = masks.image_spans(lengths, image_tokens=100, every=300)
    return Case(masks.documents(lengths, window=512, images=spans, name="medium"), width, heads=8, key_heads=4)


def merge_case(width):
    return Case(masks.documents([300, 1, 420], name="merge"), width, heads=4, key_heads=2)
