"""The CUDA row kernels against PyTorch in fp64 (scripts/bench/gpu_rows.py), where there is a GPU."""

import pathlib
import sys

import pytest

torch = pytest.importorskip('torch')
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / 'scripts' / 'bench'))
import gpu_rows_checks  # noqa: E402
import osler_cuda_rows  # noqa: E402

if not torch.cuda.is_available():
    pytest.skip('no GPU', allow_module_level=True)
if not osler_cuda_rows.library_path().exists():
    pytest.skip(f'no {osler_cuda_rows.library_path()}', allow_module_level=True)


@pytest.mark.parametrize('check', gpu_rows_checks.CHECKS, ids=lambda check: check.__name__)
def test_rows(check, capsys):
    torch.manual_seed(1)
    checks = gpu_rows_checks.Checks()
    check(checks)
    torch.cuda.synchronize()
    assert checks.failed == 0, capsys.readouterr().out
