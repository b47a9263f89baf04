"""Puts scripts/bench on the path, where checks and benches share their code, and prints what ran on which kernels."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts/bench"))

RAN = {}  # {(family, width): {"ran": masks that were compared, "unsupported": …}}


@pytest.fixture
def ran():
    """Call it with (family, width, whether it was supported): the table at the end counts them."""
    def count(family, width, supported):
        counts = RAN.setdefault((family, width), {"ran": 0, "unsupported": 0})
        counts["ran" if supported else "unsupported"] += 1
    return count


def pytest_sessionfinish(session, exitstatus):
    # A file that is skipped as a whole, without a GPU, is a skip and not an error.
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK


def pytest_terminal_summary(terminalreporter):
    for (family, width), counts in sorted(RAN.items()):
        terminalreporter.write_line(f"sm_{family} hd{width}: {counts['ran']} cases compared, "
                                    f"{counts['unsupported']} unsupported")
