"""What the GPU checks rest on, without a GPU: masks, the exact reference, comparison, attention.h's structs."""
import ctypes
import pathlib
import subprocess

import pytest
import torch

import gpu_cases
import gpu_check
import gpu_masks as masks
import gpu_reference
import osler_cuda

REPO = pathlib.Path(__file__).resolve().parents[2]


def problem(mask, heads=4, key_heads=2, width=16, soft_cap=0.0, with_lse=False, seed=3):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)
    grad_lse = draw(mask.queries, heads) if with_lse else None
    return gpu_reference.Problem(draw(mask.queries, heads, width), draw(mask.keys, key_heads, width),
                                 draw(mask.keys, key_heads, width), mask.dense("cpu"), draw(mask.queries, heads, width),
                                 grad_lse, 0.3, soft_cap)


def seen_by_brute_force(lengths, window, images):
    """Gemma 3's rule, pair by pair."""
    document = [d for d, length in enumerate(lengths) for _ in range(length)]
    image = [next((n for n, (a, b) in enumerate(images) if a <= i < b), -1 - i) for i in range(len(document))]
    return torch.tensor([[document[i] == document[j] and (j <= i or image[i] == image[j]) and
                          (window is None or j > i - window) for j in range(len(document))]
                         for i in range(len(document))])


@pytest.mark.parametrize("window", [None, 1, 6])
@pytest.mark.parametrize("images", [[], [(0, 4), (7, 19)], [(21, 30)]])
def test_documents_windows_and_images(window, images):
    mask = masks.documents([20, 1, 9, 3], window, images)
    expected = seen_by_brute_force([20, 1, 9, 3], window, images)
    assert torch.equal(mask.dense("cpu"), expected)
    assert mask.area == int(expected.sum())


def test_every_mask_of_the_sweep_is_an_interval_mask_and_its_parts_are_too():
    names = [mask.name for mask in gpu_cases.sweep_masks()]
    assert len(names) == len(set(names))
    for mask in gpu_cases.sweep_masks():
        assert mask.area == int(mask.dense("cpu").sum())
        part = masks.part_of_keys(mask, mask.keys // 3, mask.keys)
        assert torch.equal(part.dense("cpu"), mask.dense("cpu")[:, mask.keys // 3:])
    options = [(c.heads // c.key_heads, c.layout, c.dtype, c.whole) for c in gpu_cases.sweep(128)]
    assert {x[0] for x in options} == {1, 2, 4, 8} and {x[1] for x in options} == set(gpu_cases.LAYOUTS)
    assert {x[2] for x in options} == {torch.bfloat16, torch.float16} and {x[3] for x in options} == {True, False}


@pytest.mark.parametrize("mask", [masks.causal(33), masks.cross([5, 9], [7, 2]), masks.documents([9, 1, 20], window=4)])
def test_exact_equals_sdpa_in_fp64(mask):
    p = problem(mask)
    got, want = gpu_reference.exact(p), gpu_reference.sdpa(p)
    for name, value in want.items():
        assert torch.allclose(got[name], value.double(), atol=1e-5), name


@pytest.mark.parametrize("soft_cap", [0.0, 2.0])
def test_exact_equals_autograd_with_soft_cap_and_gradient_of_lse(soft_cap):
    p = problem(masks.documents([9, 1, 20]), soft_cap=soft_cap, with_lse=True)
    q, k, v = (x.clone().requires_grad_() for x in (p.q, p.k, p.v))
    scores = torch.einsum("thd,shd->hts", q, k.repeat_interleave(2, 1)) * p.scale
    scores = scores if not soft_cap else soft_cap * torch.tanh(scores / soft_cap)
    scores = scores.masked_fill(~p.seen, float("-inf"))
    out = torch.einsum("hts,shd->thd", scores.softmax(-1), v.repeat_interleave(2, 1))
    lse = scores.logsumexp(-1).t()
    loss = (out * p.grad_out).sum() + (lse * p.grad_lse).sum()
    got, want = gpu_reference.exact(p), [out, lse, *torch.autograd.grad(loss, (q, k, v))]
    for mine, theirs in zip(got.values(), want, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-12)


def test_rows_that_see_nothing_give_zeros():
    p = problem(masks.with_empty_rows(60))
    got, empty = gpu_reference.exact(p), ~p.seen.any(1)
    assert 0 < int(empty.sum()) < 60
    assert (got["out"][empty] == 0).all() and (got["dq"][empty] == 0).all()
    assert (got["lse"][empty] == float("-inf")).all() and all(x.isnan().sum() == 0 for x in got.values())
    peer = gpu_reference.in_low_precision(p)
    assert all(torch.allclose(peer[name].double(), got[name], atol=1e-5) for name in peer)


class PyTorchAsLibrary:
    """Answers as libosler_cuda.so would, rounding its results; `spoil` is then called with all of them."""

    def __init__(self, spoil=lambda results: None):
        self._spoil = spoil

    def workspace(self, queries, heads, device):
        return torch.empty(2 * queries * heads)

    def forward(self, q, k, v, lo, hi, *, scale, soft_cap, kernels, out, lse):
        if kernels == 90:
            raise osler_cuda.Unsupported()
        seen = masks.Mask("", lo, hi, k.shape[0]).dense("cpu")
        grad = torch.zeros_like(q)
        self._problem = gpu_reference.Problem(q, k, v, seen, grad, None, scale or q.shape[2] ** -0.5, soft_cap)
        result = gpu_reference.exact(self._problem)
        out.copy_(result["out"])
        lse.copy_(result["lse"])

    def backward(self, q, k, v, lo, hi, out, lse, grad_out, *, grad_lse, scale, soft_cap, kernels, grads, workspace):
        if kernels == 90:
            raise osler_cuda.Unsupported()
        self._problem.grad_out, self._problem.grad_lse = grad_out, grad_lse
        result = gpu_reference.exact(self._problem)
        for name, grad in zip(("dq", "dk", "dv"), grads, strict=True):
            grad.copy_(result[name])
        self._spoil({"out": out, "lse": lse, "dq": grads[0], "dk": grads[1], "dv": grads[2]})


def verdict_of(case, spoil=lambda results: None):
    return gpu_check.check(PyTorchAsLibrary(spoil), case, [80], "cpu")[80]


@pytest.mark.parametrize("case", [c for c in gpu_cases.sweep(72, quick=True) if c.mask.queries < 400], ids=str)
def test_right_results_pass(case):
    verdict = verdict_of(case)
    assert verdict.passes == "forward backward" and verdict.problems == []
    assert verdict.ratio < 1


def test_what_is_unsupported_is_said():
    verdict = gpu_check.check(PyTorchAsLibrary(), gpu_cases.Case(masks.causal(40), 64), [90], "cpu")[90]
    assert str(verdict) == "unsupported"


@pytest.mark.parametrize("layout", gpu_cases.LAYOUTS)
def test_wrong_results_fail_and_the_report_says_where(layout):
    case = gpu_cases.Case(masks.documents([100, 1, 120]), 64, layout=layout)

    def unwritten(results):
        results["dk"][130, 1, 8:16] = float("nan")

    def scaled(results):
        results["dv"][64:128] *= 1.2

    def before(results):
        results["dq"].as_strided((1,), (1,), results["dq"].storage_offset() - 1).fill_(1.0)

    assert any("dk: " in x and " 8 of " in x for x in verdict_of(case, unwritten).problems)
    assert any("rows 64:" in x for x in verdict_of(case, scaled).problems)
    assert "1 elements written outside the results" in verdict_of(case, before).problems


def test_rows_outside_the_mask_must_be_zero():
    case = gpu_cases.Case(masks.with_empty_rows(80), 64)

    def small(results):
        results["dk"][0, 0, 0] = 1e-4

    assert "dk: 1 elements of" in verdict_of(case, small).problems[0]


def test_structs_have_the_layout_of_the_header(tmp_path):
    structs = [osler_cuda.Rows, osler_cuda.AttentionInput, osler_cuda.AttentionForward, osler_cuda.AttentionBackward]
    lines, expected = [], []
    for struct in structs:
        lines.append(f"sizeof({struct.__name__})")
        expected.append(ctypes.sizeof(struct))
        for name, *_ in struct._fields_:
            lines.append(f"offsetof({struct.__name__}, {name})")
            expected.append(getattr(struct, name).offset)
    source = tmp_path / "layout.cc"
    source.write_text('#include <cstddef>\n#include <cstdio>\n#include "kernels/cuda/attention.h"\n'
                      "using namespace osler::cuda;\nint main() {\n"
                      + "".join(f'  std::printf("%zu\\n", {line});\n' for line in lines) + "}\n")
    subprocess.run(["c++", "-std=c++20", "-Wno-invalid-offsetof", f"-I{REPO}", source, "-o", tmp_path / "layout"],
                   check=True)
    output = subprocess.run([tmp_path / "layout"], check=True, capture_output=True, text=True).stdout
    assert [int(x) for x in output.split()] == expected
