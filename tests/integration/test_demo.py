"""scripts/demo.sh as a whole: it passes as shipped, and with shuffled answers nothing can be learned."""
import json
import os
import pathlib
import subprocess

REPO = pathlib.Path(__file__).resolve().parents[2]


def demo(directory, *options):
    done = subprocess.run([REPO / "scripts/demo.sh", "--no-setup", "--dir", directory, *options], text=True,
                          capture_output=True, stdin=subprocess.DEVNULL, timeout=800, env=os.environ)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    before, after = [json.loads(line) for line in (directory / "scores.jsonl").read_text().splitlines()]
    return done.stdout, before["accuracy"], after["accuracy"]


def test_demo_learns_survives_kill_and_leaves_no_identifier(tmp_path):
    output, before, after = demo(tmp_path / "demo")
    assert before < 0.3 and after >= 0.9
    steps = [json.loads(line)["step"] for line in (tmp_path / "demo/run/log/metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 301))
    resume = json.loads((tmp_path / "demo/resume.json").read_text())
    assert 0 < resume["resumed_from"] <= resume["killed_after"] < 300
    assert "demo: passed" in output


def test_shuffled_labels_stay_at_chance(tmp_path):
    _, _, after = demo(tmp_path / "demo", "--shuffle-labels", "--steps", "150")
    assert after <= 0.2  # 12 answers, over 200 visits: chance is 8 % ± 2 %
