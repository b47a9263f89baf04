"""Attention that others wrote, on the same tensors: ATen's FA2, cuDNN, memory-efficient attention under a dense mask.

Each maker takes a Work and gives (forward, backward) to time: forward() returns what backward(saved) needs. It raises
where the peer lacks the shape. Layouts, mask and workspaces a peer wants are made before timing, in its favour:
keys repeated for a group (where it has no GQA) and the dense mask cost it nothing here.
"""
import dataclasses

import torch

import gpu_masks

aten = torch.ops.aten


@dataclasses.dataclass
class Work:
    """One case's tensors: q, grad_out [T, H, D], k and v [S, K, D]."""
    mask: gpu_masks.Mask
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    grad_out: torch.Tensor

    @property
    def scale(self):
        return self.q.shape[2] ** -0.5

    def flops(self, mask):
        """Of the forward pass, over the pairs that the mask lets through; backward is 2.5 times that."""
        return 4 * self.q.shape[2] * self.q.shape[1] * mask.area


def draw(mask, heads, key_heads, width, dtype=torch.bfloat16, seed=1):
    generator = torch.Generator("cuda").manual_seed(seed)
    tensor = lambda tokens, h: torch.randn(tokens, h, width, generator=generator, device="cuda", dtype=dtype)
    return Work(mask, tensor(mask.queries, heads), tensor(mask.keys, key_heads), tensor(mask.keys, key_heads),
                tensor(mask.queries, heads))


def _document_starts(mask):
    starts = torch.tensor([0, *mask.lengths], dtype=torch.int32).cumsum(0).to(torch.int32)
    return starts.cuda(), max(mask.lengths)


def _kept(forward, backward):
    """The pair, where backward uses what one forward call gave."""
    saved = forward()
    return forward, lambda: backward(saved)


def fa2(work):
    """FlashAttention 2 as LibTorch carries it; under images: the nearest mask, without them."""
    q, k, v, grad, mask = work.q, work.k, work.v, work.grad_out, work.mask
    if len(mask.lengths) == 1:
        q, k, v, grad, starts, longest = q[None], k[None], v[None], grad[None], None, q.shape[0]
    else:
        starts, longest = _document_starts(mask)
    options = {"scale": work.scale}
    if mask.window is not None:
        options |= {"window_size_left": mask.window - 1, "window_size_right": 0}

    def forward():
        return aten._flash_attention_forward(q, k, v, starts, starts, longest, longest, 0.0, mask.causal, False,
                                             **options)

    def backward(saved):
        return aten._flash_attention_backward(grad, q, k, v, saved[0], saved[1], starts, starts, longest, longest, 0.0,
                                              mask.causal, saved[2], saved[3], **options)

    return _kept(forward, backward)


def fa2_deterministic(work):
    forward, backward = fa2(work)

    def deterministic():
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False
        try:
            return backward()
        finally:
            torch.use_deterministic_algorithms(False)

    return forward, deterministic


def cudnn(work):
    """cuDNN, of one document or packed ones. In torch 2.11 the gradients of packed ones come out wrong."""
    mask, rest = work.mask, (0.0, work.mask.causal)  # no dropout
    if mask.window is not None or not mask.exact:
        raise NotImplementedError("ATen passes cuDNN neither a window nor images")
    tensors, starts, longest = (work.q, work.k, work.v, work.grad_out), None, work.q.shape[0]
    if len(mask.lengths) == 1:
        tensors = [x.transpose(0, 1)[None] for x in tensors]
    else:
        starts, longest = _document_starts(mask)
    q, k, v, grad = tensors

    def forward():
        if starts is None:
            return aten._scaled_dot_product_cudnn_attention(q, k, v, None, True, *rest, False, scale=work.scale)
        return aten._cudnn_attention_forward(q, k, v, None, starts, starts, longest, longest, True, *rest, False,
                                             scale=work.scale)

    def backward(saved):
        out, lse, starts_q, starts_k, longest_q, longest_k, seed, offset, _ = saved
        if starts is None:
            return aten._scaled_dot_product_cudnn_attention_backward(
                grad, q, k, v, out, lse, seed, offset, None, starts_q, starts_k, longest_q, longest_k, *rest,
                scale=work.scale)
        return aten._cudnn_attention_backward(grad, q, k, v, out, lse, seed, offset, None, starts, starts, longest,
                                              longest, *rest, scale=work.scale)

    return _kept(forward, backward)


def dense_mask(work):
    """Memory-efficient attention under a mask of T × S in bf16, keys repeated for their group."""
    group = work.q.shape[1] // work.k.shape[1]
    q, grad = (x.transpose(0, 1)[None] for x in (work.q, work.grad_out))
    k, v = (x.repeat_interleave(group, 1).transpose(0, 1)[None] for x in (work.k, work.v))
    bias = torch.zeros(work.mask.queries, work.mask.keys, device="cuda", dtype=work.q.dtype)
    for rows in torch.arange(work.mask.queries).split(2048):
        part = gpu_masks.Mask("rows", work.mask.lo[rows], work.mask.hi[rows], work.mask.keys)
        bias[rows[0]:rows[-1] + 1].masked_fill_(~part.dense("cuda"), float("-inf"))
    bias = bias.expand(1, q.shape[1], -1, -1)

    def forward():
        return aten._scaled_dot_product_efficient_attention(q, k, v, bias, True, 0.0, False, scale=work.scale)

    def backward(saved):
        out, lse, seed, offset = saved
        return aten._scaled_dot_product_efficient_attention_backward(
            grad, q, k, v, bias, out, lse, seed, offset, 0.0, [True, True, True, False], False, scale=work.scale)

    return _kept(forward, backward)


PEERS = {"fa2": fa2, "fa2 det": fa2_deterministic, "cudnn": cudnn, "dense mask": dense_mask}
NO_IMAGES = {"fa2", "fa2 det"}  # under images they compute the nearest mask
