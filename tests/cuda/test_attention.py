"""Osler's CUDA attention against fp64 and PyTorch's bf16 (gpu_check.py has the rule, gpu_cases.py the cases).

Needs a GPU and libosler_cuda.so. sm_80 kernels must support every case; where sm_90 kernels do not, the table at the
end of the run says so.
"""
import pytest
import torch

import gpu_cases
import gpu_check
import gpu_masks
import gpu_properties
import osler_cuda

if not torch.cuda.is_available():
    pytest.skip("CUDA attention was not tested: torch sees no GPU", allow_module_level=True)
if osler_cuda.library_path() is None:
    pytest.skip("CUDA attention was not tested: no libosler_cuda.so (target osler_cuda, or OSLER_CUDA_LIBRARY)",
                allow_module_level=True)

FAMILIES = [80, 90]


@pytest.fixture(scope="module")
def library():
    return osler_cuda.OslerCuda()


@pytest.mark.parametrize("width", gpu_cases.WIDTHS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_mask_is_as_exact_as_pytorch(library, ran, family, width):
    failures = []
    for case in gpu_cases.sweep(width):
        verdict = gpu_check.check(library, case, [family])[family]
        ran(family, width, bool(verdict.passes))
        failures += [f"{case}: {problem}" for problem in verdict.problems]
        if family == 80 and verdict.passes != "forward backward":
            failures.append(f"{case}: unsupported")
    assert not failures, "\n".join(failures)


def test_auto_takes_some_kernels(library, ran):
    for width in gpu_cases.WIDTHS:
        case = gpu_cases.Case(gpu_masks.causal(300), width)
        verdict = gpu_check.check(library, case, [osler_cuda.AUTO])[osler_cuda.AUTO]
        ran(osler_cuda.AUTO, width, bool(verdict.passes))
        assert verdict.passes == "forward backward" and not verdict.problems, f"{case}: {verdict.problems}"


@pytest.mark.parametrize("width", [64, 128, 256])
@pytest.mark.parametrize("family", FAMILIES)
def test_parts_of_the_keys_add_up(library, ran, family, width):
    try:
        verdict = gpu_properties.merge(library, gpu_properties.merge_case(width), family, [100, 333])
    except osler_cuda.Unsupported:
        assert family != 80
        ran(family, width, False)
        return
    ran(family, width, True)
    assert not verdict.problems, verdict.problems


@pytest.mark.parametrize("width", [64, 128, 256])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_thousand_repeats_give_the_same_bits(library, ran, family, width):
    try:
        done, differing = gpu_properties.repeats(library, gpu_properties.medium_case(width), family, seconds=60)
    except osler_cuda.Unsupported:
        assert family != 80
        ran(family, width, False)
        return
    ran(family, width, True)
    print(f"sm_{family} hd{width}: {done} repeats")
    assert done >= 100 and not any(differing.values()), f"of {done} repeats, these differ: {differing}"


@pytest.mark.parametrize("width", [64, 128, 256])
@pytest.mark.parametrize("family", FAMILIES)
def test_delays_at_random_change_no_bit(library, ran, family, width):
    path = library.path.with_name("libosler_cuda_delays.so")
    if not path.exists():
        pytest.skip("no libosler_cuda_delays.so (target osler_cuda_delays)")
    delayed = osler_cuda.OslerCuda(path)
    try:
        done, differing = gpu_properties.repeats(library, gpu_properties.medium_case(width), family, count=200,
                                                 seconds=20, repeated=delayed)
    except osler_cuda.Unsupported:
        assert family != 80
        ran(family, width, False)
        return
    ran(family, width, True)
    assert done >= 20 and not any(differing.values()), f"of {done} delayed repeats, these differ: {differing}"
