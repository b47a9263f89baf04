"""Inputs of gpu_rows.py's checks and timings, and what the kernels must give, in fp64."""

import torch
import torch.nn.functional as F

import osler_cuda_rows as osler

BF16, FP16, FP32, FP64 = torch.bfloat16, torch.float16, torch.float32, torch.float64
# Relative errors of a result that is rounded to its type once or twice.
TOLERANCE = {BF16: 4e-3, FP16: 5e-4, FP32: 3e-6}
SHORT = {BF16: 'bf16', FP16: 'fp16', FP32: 'fp32'}


def norm_reference(x, weight, style, eps=1e-6):
    x = x.double()
    gain = weight.double() + (style == osler.GEMMA)
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * gain


def rope_reference(x, cos, sin):
    first, second = x.chunk(2, -1)
    turned = torch.cat((-second, first), -1)
    return x * cos[:, None, :] + turned * sin[:, None, :]


def gate_reference(gate, up, kind):
    # GELU as x·σ: 1 + tanh loses all digits far below zero, in fp64 too.
    u = gate if kind == osler.SILU else 1.5957691216057308 * (gate + 0.044715 * gate**3)
    return gate * torch.sigmoid(u) * up


def rope_tables(tokens, width):
    positions = torch.arange(tokens, device='cuda', dtype=FP32)
    frequencies = 10000.0 ** (-torch.arange(0, width, 2, device='cuda', dtype=FP32) / width)
    angles = torch.outer(positions, frequencies)
    angles = torch.cat((angles, angles), 1)
    return angles.cos(), angles.sin()


def cross_entropy_reference(logits, targets, soft_cap, scale):
    z = logits.double().requires_grad_()
    v = soft_cap * torch.tanh(z / soft_cap) if soft_cap else z
    loss = F.cross_entropy(v, targets, ignore_index=-100, reduction='none')
    gradient, = torch.autograd.grad(loss.sum() * scale, z)
    v = v.detach()
    here = targets >= 0
    target = torch.where(here, v.gather(1, targets.clamp(min=0)[:, None])[:, 0], 0)
    return loss.detach(), gradient, v.amax(1), torch.exp(v - v.amax(1, keepdim=True)).sum(1), target


def randn(*shape, dtype=FP32):
    return torch.randn(*shape, device='cuda').to(dtype)


def unaligned(x):
    """The same values one element past an aligned address."""
    storage = torch.empty(x.numel() + 1, dtype=x.dtype, device='cuda')
    storage[1:].copy_(x.flatten())
    return storage[1:].view(x.shape)
