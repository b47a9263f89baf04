"""What the compiler made of the CUDA kernels, which needs no GPU: no spills, and the matrix products on tensor cores.

Read from libosler_cuda.so by cuobjdump, of a CUDA toolkit or of Triton's package (torch's wheel depends on it).
"""
import os
import pathlib
import re
import shutil
import subprocess

import pytest

REPO = pathlib.Path(__file__).resolve().parents[2]
LIBRARY = pathlib.Path(os.environ.get("OSLER_BIN", REPO / "build/release/osler")).parent / "libosler_cuda.so"

# Bytes of stack that spilled registers may take: a few in the family for GPUs before Hopper, else none.
STACK_BUDGET = {r"sm80\d+(Forward|BackwardKeys|BackwardQueries)Kernel": 128}


def cuobjdump():
    found = shutil.which("cuobjdump")
    return found or next(map(str, REPO.glob(".venv/lib/python3*/site-packages/triton/backends/nvidia/bin/cuobjdump")), None)


pytestmark = pytest.mark.skipif(not LIBRARY.exists() or cuobjdump() is None,
                                reason="built without CUDA kernels (no nvcc), or no cuobjdump at hand")


def dump(what):
    done = subprocess.run([cuobjdump(), what, str(LIBRARY)], capture_output=True, text=True, check=True)
    return done.stdout


def kernels_of_sections(text, header, value):
    """(architecture, kernel, what stands below it) of a dump."""
    architecture, kernel, lines = None, None, []
    for line in text.splitlines():
        if found := re.match(r"arch = (\w+)", line):
            architecture = found[1]
        if found := re.match(header, line):
            if kernel:
                yield *kernel, value(lines)
            kernel, lines = (architecture, found[1]), []
        elif kernel:
            lines.append(line)
    if kernel:
        yield *kernel, value(lines)


@pytest.fixture(scope="module")
def resources():
    def value(lines):
        return {name: int(count) for name, count in re.findall(r"(REG|STACK|LOCAL):(\d+)", lines[0])}
    found = list(kernels_of_sections(dump("--dump-resource-usage"), r"\s*Function (\w+):", value))
    assert found
    return found


@pytest.fixture(scope="module")
def matrix_instructions():
    def value(lines):
        return {name: sum(f" {name}." in line for line in lines) for name in ("HGMMA", "HMMA", "LDL", "STL")}
    return list(kernels_of_sections(dump("--dump-sass"), r"\s*Function : (\w+)", value))


def test_no_kernel_spills(resources):
    def budget(kernel):
        return next((count for pattern, count in STACK_BUDGET.items() if re.search(pattern, kernel)), 0)
    spilled = [(architecture, kernel, use) for architecture, kernel, use in resources
               if use["STACK"] > budget(kernel) or use["LOCAL"] > 0]
    assert not spilled, spilled


# 3 padded widths, 2 elements, soft cap or none.
@pytest.mark.parametrize("kernel", ["ForwardKernel", "KeysKernel", "QueriesKernel"])
def test_hopper_attention_uses_warpgroup_products(matrix_instructions, kernel):
    found = [(name, uses) for architecture, name, uses in matrix_instructions
             if architecture == "sm_90a" and kernel in name]
    assert len(found) >= 12
    for name, uses in found:
        assert uses["HGMMA"] >= 8, (name, uses)
        assert uses["HMMA"] == uses["LDL"] == uses["STL"] == 0, (name, uses)


# 5 padded widths, 2 elements.
@pytest.mark.parametrize("kernel", ["ForwardKernel", "BackwardKeysKernel", "BackwardQueriesKernel"])
def test_ampere_attention_uses_warp_products(matrix_instructions, kernel):
    for architecture in ("sm_80", "sm_90"):
        found = [(name, uses) for built_for, name, uses in matrix_instructions
                 if built_for == architecture and re.search(rf"4sm80\d+{kernel}", name)]
        assert len(found) >= 10
        for name, uses in found:
            assert uses["HMMA"] >= 8 and uses["HGMMA"] == 0, (name, uses)
