"""Attention under a dense boolean mask, for comparison: in fp64, and as PyTorch computes it in bf16 or fp16.

Everything takes q [T, H, D], k and v [S, K, D], a mask [T, S], and gives a dict of out, lse, dq, dk and dv. Only small
sizes: scores of all heads exist at once.
"""
import dataclasses

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@dataclasses.dataclass
class Problem:
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    seen: torch.Tensor       # bool [T, S]
    grad_out: torch.Tensor
    grad_lse: torch.Tensor   # [T, H] fp32, or None
    scale: float
    soft_cap: float          # 0: none

    @property
    def group(self):
        return self.q.shape[1] // self.k.shape[1]


def _heads_first(x, repeat, dtype):
    return x.to(dtype).transpose(0, 1).repeat_interleave(repeat, 0)


def _group_sum(x, group):
    """[H, S, D] → [S, K, D]."""
    heads, keys, width = x.shape
    return x.view(heads // group, group, keys, width).sum(1).transpose(0, 1)


def exact(problem, dtype=torch.float64):
    """Every product and sum in dtype; forward and backward written out."""
    q = _heads_first(problem.q, 1, dtype)
    k, v = (_heads_first(x, problem.group, dtype) for x in (problem.k, problem.v))
    grad = _heads_first(problem.grad_out, 1, dtype)
    scores = q @ k.transpose(1, 2) * problem.scale
    slope = None
    if problem.soft_cap:
        t = torch.tanh(scores / problem.soft_cap)
        scores, slope = t * problem.soft_cap, 1 - t * t
    scores = scores.masked_fill(~problem.seen, float("-inf"))
    lse = scores.logsumexp(-1) if scores.shape[-1] else scores.new_full(scores.shape[:2], float("-inf"))
    weights = (scores - lse.masked_fill(lse.isinf(), 0.0)[..., None]).exp()
    del scores
    out = weights @ v
    delta = (out * grad).sum(-1)
    if problem.grad_lse is not None:
        delta = delta - problem.grad_lse.to(dtype).t()
    grad_scores = weights * (grad @ v.transpose(1, 2) - delta[..., None]) * problem.scale
    if slope is not None:
        grad_scores = grad_scores * slope
    return {"out": out.transpose(0, 1), "lse": lse.t(), "dq": (grad_scores @ k).transpose(0, 1),
            "dk": _group_sum(grad_scores.transpose(1, 2) @ q, problem.group),
            "dv": _group_sum(weights.transpose(1, 2) @ grad, problem.group)}


def _leaves(problem):
    """Copies [1, H, T, D], keys repeated for their group; a row that sees nothing gets key 0 and no gradient."""
    tensors = [_heads_first(x, g, x.dtype).contiguous()[None].requires_grad_()
               for x, g in ((problem.q, 1), (problem.k, problem.group), (problem.v, problem.group))]
    empty = ~problem.seen.any(1)
    seen = problem.seen.clone()
    seen[empty, 0] = True
    grad = problem.grad_out.to(problem.q.dtype).masked_fill(empty[:, None, None], 0.0).transpose(0, 1)[None]
    return *tensors, seen, empty, grad


def _result(problem, out, empty, grads):
    dq, dk, dv = (x[0].float() for x in grads)
    return {"out": out[0].transpose(0, 1).detach().float().masked_fill(empty[:, None, None], 0.0),
            "dq": dq.transpose(0, 1), "dk": _group_sum(dk, problem.group), "dv": _group_sum(dv, problem.group)}


def sdpa(problem):
    """scaled_dot_product_attention with the dense mask, in the inputs' dtype: no soft cap, no gradient of lse."""
    q, k, v, seen, empty, grad = _leaves(problem)
    backends = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH] if q.is_cuda else [SDPBackend.MATH]
    with sdpa_kernel(backends, set_priority=True):
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=problem.scale)
        grads = torch.autograd.grad(out, (q, k, v), grad)
    return _result(problem, out, empty, grads)


def eager(problem):
    """Products and weights in the inputs' dtype, softmax in fp32: transformers' eager attention."""
    q, k, v, seen, empty, grad = _leaves(problem)
    scores = q @ k.transpose(2, 3) * problem.scale
    if problem.soft_cap:
        scores = torch.tanh(scores / problem.soft_cap) * problem.soft_cap
    scores = scores.masked_fill(~seen, float("-inf"))
    out = scores.softmax(-1, dtype=torch.float32).to(q.dtype) @ v
    loss = (out.float() * grad.float()).sum()
    if problem.grad_lse is not None:
        grad_lse = problem.grad_lse.masked_fill(empty[:, None], 0.0).t()
        loss = loss + (scores.float().logsumexp(-1)[0] * grad_lse).sum()
    return _result(problem, out, empty, torch.autograd.grad(loss, (q, k, v)))


def in_low_precision(problem):
    """PyTorch's own result in the inputs' dtype: the yardstick of an error."""
    if not problem.seen.numel():
        return None
    return sdpa(problem) if not problem.soft_cap and problem.grad_lse is None else eager(problem)
