"""Runs one attention case through libosler_cuda.so and through gpu_reference.py, and says where they differ.

The rule of FlashAttention's tests: max |ours − exact| ≤ 2 · max |PyTorch in the same dtype − exact| + atol, with
atol = 2 · max |round(exact + 0.3) − 0.3 − exact|, rounding to that dtype (3 and 3 under a soft cap). The norm of the
error is bounded too (by 2 of PyTorch's or a constant), and the log-sum-exp's error by 1e-3. Results lie among NaN that
must still be there afterwards; inputs lie among NaN that no result may pick up.
"""
import dataclasses

import torch

import gpu_reference
import osler_cuda

GUARD = 80  # rows of NaN before and after a tensor
NORM = {torch.bfloat16: 1.5e-2, torch.float16: 2.5e-3}
LSE_ERROR = 1e-3


class Guarded:
    """Tensors [tokens, heads_i, width] in one buffer of NaN, side by side ("fused") or each on its own."""

    def __init__(self, shapes, dtype, layout, device):
        self.views, self.buffers = [], []
        if layout == "fused":
            tokens, _, width = shapes[0]
            buffer = self._buffer(tokens, sum(heads for _, heads, _ in shapes), width, 0, 0, dtype, device)
            heads = [0]
            for _, count, _ in shapes:
                self.views.append(buffer[GUARD:GUARD + tokens, heads[-1]:heads[-1] + count])
                heads.append(heads[-1] + count)
        else:
            # Strides in multiples of 8 elements: 16 bytes.
            more = (24, 8) if layout == "padded" else (0, 0)
            for tokens, heads, width in shapes:
                buffer = self._buffer(tokens, heads, width, *more, dtype, device)
                self.views.append(buffer[GUARD:GUARD + tokens])

    def _buffer(self, tokens, heads, width, token_pad, head_pad, dtype, device):
        rows, stride = tokens + 2 * GUARD, heads * (width + head_pad) + token_pad
        buffer = torch.full((rows * stride,), float("nan"), dtype=dtype, device=device)
        self.buffers.append(buffer)
        return buffer.as_strided((rows, heads, width), (stride, width + head_pad, 1))

    def overwritten(self):
        """Elements outside the views that are no longer NaN. The views are cleared."""
        osler_cuda.poison(*self.views)
        return sum(int((~buffer.isnan()).sum()) for buffer in self.buffers)


def draw(case, device, seed=1):
    """(q, k, v, grad_out, grad_lse) among NaN."""
    generator = torch.Generator(device).manual_seed(seed)
    mask = case.mask
    q_shape = (mask.queries, case.heads, case.width)
    k_shape = (mask.keys, case.key_heads, case.width)
    inputs = Guarded([q_shape, k_shape, k_shape], case.dtype, case.layout, device)
    out_dtype = torch.float32 if case.whole else case.dtype
    grad = Guarded([q_shape], out_dtype, "padded" if case.layout == "padded" else "dense", device)
    for view in [*inputs.views, *grad.views]:
        view.copy_(torch.randn(view.shape, generator=generator, device=device))
    grad_lse = None
    if case.grad_lse:
        grad_lse = torch.randn(q_shape[:2], generator=generator, device=device)
    return *inputs.views, grad.views[0], grad_lse


def ours(library, case, kernels, inputs, exact):
    """({name: result}, elements written outside the results): of the passes that these kernels support.

    Where they support the backward pass alone, it starts from the exact result.
    """
    q, k, v, grad_out, grad_lse = inputs
    lo, hi = case.mask.ends(q.device)
    dtype = torch.float32 if case.whole else case.dtype
    out = Guarded([q.shape], dtype, "padded" if case.layout == "padded" else "dense", q.device)
    lse = Guarded([(*q.shape[:2], 1)], torch.float32, "dense", q.device)
    grads = Guarded([q.shape, k.shape, v.shape], dtype, case.layout, q.device)
    options = {"scale": case.scale, "soft_cap": case.soft_cap, "kernels": kernels}
    lse_view, results = lse.views[0].squeeze(-1), {}
    try:
        library.forward(q, k, v, lo, hi, out=out.views[0], lse=lse_view, **options)
        results = {"out": out.views[0].clone(), "lse": lse_view.clone()}
    except osler_cuda.Unsupported:
        out.views[0].copy_(exact["out"])
        lse_view.copy_(exact["lse"])
    workspace = library.workspace(q.shape[0], q.shape[1], q.device)
    osler_cuda.poison(workspace)
    try:
        library.backward(q, k, v, lo, hi, out.views[0], lse_view, grad_out, grad_lse=grad_lse, grads=grads.views,
                         workspace=workspace, **options)
        results |= {name: view.clone() for name, view in zip(("dq", "dk", "dv"), grads.views, strict=True)}
    except osler_cuda.Unsupported:
        pass
    if q.is_cuda:
        torch.cuda.synchronize()
    return results, sum(x.overwritten() for x in (out, lse, grads))


def problem_of(case, inputs):
    q, k, v, grad_out, grad_lse = inputs
    return gpu_reference.Problem(q, k, v, case.mask.dense(q.device), grad_out, grad_lse,
                                 case.width ** -0.5 if case.scale is None else case.scale, case.soft_cap)


@dataclasses.dataclass
class Verdict:
    """ratio: the largest error over what is allowed; problems: texts, empty where all is well."""
    ratio: float = 0.0
    peer_ratio: float = 0.0  # the largest error over PyTorch's own, of out and gradients
    passes: str = ""         # "forward", "backward", both or none: what was supported and compared
    problems: list = dataclasses.field(default_factory=list)

    def __str__(self):
        if not self.passes:
            return "unsupported"
        only = "" if self.passes == "forward backward" else f" {self.passes[:3]} only"
        return f"{'FAIL' if self.problems else 'ok'} {self.ratio:.2f}{only}"


def _blocks(error, dim, size):
    """'first index: largest error' of the three worst blocks along dim, and how many blocks there are."""
    largest = error.amax([d for d in range(error.dim()) if d != dim])
    pieces = largest.split(size)
    worst = sorted(((float(piece.max()), n * size) for n, piece in enumerate(pieces)), reverse=True)
    text = " ".join(f"{at}:{value:.2g}" for value, at in worst[:3])
    return f"{text} (best of {len(pieces)}: {worst[-1][0]:.2g})"


def where(error):
    """Text: which 64-row blocks, heads and 8-column blocks of [T, H(, D)] hold the worst errors."""
    error = error.nan_to_num(nan=9e9, posinf=9e9).float()
    flat = int(error.argmax())
    place = torch.unravel_index(torch.tensor(flat), error.shape)
    text = f"worst at {tuple(int(x) for x in place)}; rows {_blocks(error, 0, 64)}; heads {_blocks(error, 1, 1)}"
    return text + (f"; columns {_blocks(error, 2, 8)}" if error.dim() == 3 else "")


def _relative(error, want):
    norm = float(want.norm())
    return float(error.norm()) / norm if norm else 0.0


def _compare_one(case, name, mine, want, peer, verdict):
    factor = 3.0 if case.soft_cap else 2.0
    mine = mine.double()
    error = torch.where((mine == want) & want.isinf(), 0.0, (mine - want).abs())
    bad = int((~error.isfinite()).sum())
    largest, peers, allowed = float(error.max()), 0.0, LSE_ERROR
    if name != "lse":
        peer_error = (peer.double() - want).abs() if peer is not None else torch.zeros_like(want)
        rounding = float(((want + 0.3).to(case.dtype).double() - 0.3 - want).abs().max())
        peers = float(peer_error.max())
        allowed = factor * (peers + rounding)
        relative, norm = _relative(error, want), max(NORM[case.dtype], factor * _relative(peer_error, want))
        if not bad and relative > norm and largest > factor * rounding:
            verdict.problems.append(f"{name}: relative norm of the error {relative:.3g}, allowed {norm:.3g}")
        if peers > rounding / 4:
            verdict.peer_ratio = max(verdict.peer_ratio, largest / peers)
    verdict.ratio = max(verdict.ratio, float("inf") if bad else largest / allowed)
    if bad or largest > allowed:
        verdict.problems.append(f"{name}: error {largest:.3g}, allowed {allowed:.3g}, PyTorch {peers:.3g}, "
                                f"{bad} of {error.numel()} not finite; {where(error)}")


def _compare_nothing(case, got, verdict):
    """Rows that see nothing and keys that nobody sees give zeros, not small numbers."""
    lo, hi = case.mask.lo.long(), case.mask.hi.long()
    counts = torch.zeros(case.mask.keys + 1, dtype=torch.long)
    counts.index_add_(0, lo, torch.ones_like(lo)).index_add_(0, hi, -torch.ones_like(hi))
    unseen = counts.cumsum(0)[:-1] == 0
    for name, empty in (("out", lo == hi), ("dq", lo == hi), ("dk", unseen), ("dv", unseen)):
        if name in got and (count := int((got[name][empty.to(got[name].device)] != 0).sum())):
            verdict.problems.append(f"{name}: {count} elements of {int(empty.sum())} rows outside the mask are not 0")


def compare(case, got, exact, peer):
    """Verdict of {name: result} against the exact results and PyTorch's (None: it cannot compute this)."""
    verdict = Verdict(passes=" ".join(["forward"] * ("out" in got) + ["backward"] * ("dq" in got)))
    for name, mine in got.items():
        if exact[name].numel():
            _compare_one(case, name, mine, exact[name], peer.get(name) if peer else None, verdict)
    _compare_nothing(case, got, verdict)
    return verdict


def check(library, case, families, device="cuda"):
    """{family: Verdict}: one reference for all of them."""
    inputs = draw(case, device)
    problem = problem_of(case, inputs)
    exact, peer, verdicts = gpu_reference.exact(problem), gpu_reference.in_low_precision(problem), {}
    for family in families:
        got, outside = ours(library, case, family, inputs, exact)
        verdicts[family] = compare(case, got, exact, peer)
        if outside:
            verdicts[family].problems.append(f"{outside} elements written outside the results")
    return verdicts
