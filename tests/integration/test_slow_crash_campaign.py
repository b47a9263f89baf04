"""scripts/crash_campaign.sh with 30 cases: every kind and every phase at least once."""
import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_thirty_cases(tmp_path):
    done = subprocess.run([ROOT / "scripts/crash_campaign.sh", "30", "--no-setup", "--dir", tmp_path / "campaign"],
                          env={**os.environ}, text=True, capture_output=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    result = json.loads((tmp_path / "campaign/result.json").read_text())
    assert result["cases"] == 30 and result["failed"] == 0
    assert all(count > 0 for count in result["phases"].values()), result
    assert len(result["kinds"]) >= 5
