"""scripts/long_context.sh: a fact in 32k tokens is learned under context parallel 2, as one rank would learn it."""
import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
OSLER = os.environ["OSLER_BIN"]


def test_a_needle_is_learned_over_two_context_ranks(tmp_path):
    run = subprocess.run(
        [ROOT / "scripts/long_context.sh", "--no-setup", "--dir", tmp_path / "run", "--steps", "6", "--heldout", "4"],
        env={**os.environ, "OSLER_BIN": OSLER}, text=True, capture_output=True)
    assert run.returncode == 0, run.stdout + run.stderr[-4000:]
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert report["tokens"] >= 32768
    assert len(report["losses"]) == 3 and report["worst_difference"] <= 1e-5
    assert all(loss > 0 for pair in report["losses"] for loss in pair)
    # Short timelines alone do not teach it; how far scaled positions alone go depends on the short training.
    assert report["right"]["base"] <= 2
    assert report["right"]["context"] >= 3
