"""PyYAML (a YAML 1.1 reader) finds in ToYaml's output what protobuf's JSON says is in the message."""
import json
import os
import pathlib
import subprocess

import pytest

yaml = pytest.importorskip("yaml")

REPO = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("OSLER_BIN", REPO / "build/release/osler")).parent


def same(found, expected):
    """JSON writes 64-bit integers as text and enum values in capitals."""
    if isinstance(expected, dict):
        return (isinstance(found, dict) and found.keys() == expected.keys()
                and all(same(found[k], expected[k]) for k in expected))
    if isinstance(expected, list):
        return (isinstance(found, list) and len(found) == len(expected)
                and all(map(same, found, expected)))
    if isinstance(found, bool) or isinstance(expected, bool):
        return found is expected
    if isinstance(expected, str):
        return found == expected or (type(found) is int and str(found) == expected) or (
            isinstance(found, str) and found == expected.lower() and expected.isupper())
    return not isinstance(found, str) and found == expected


def test_pyyaml_reads_what_was_written(tmp_path):
    binary = BUILD / "bin/configs_to_yaml_test"
    if not binary.exists():
        pytest.skip(f"{binary} is not built")
    subprocess.run([binary, "--gtest_filter=ToYamlTest.WritesForOtherReaders"], check=True,
                   env={**os.environ, "OSLER_YAML_DIR": str(tmp_path)}, stdout=subprocess.DEVNULL)
    files = sorted(tmp_path.glob("*.yaml"))
    assert len(files) > 30
    for file in files:
        expected = json.loads(file.with_suffix(".json").read_text())
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
        assert same(found, expected), f"{file.read_text()!r} reads as {found}"
        assert isinstance(found["train"]["output"], str)
        assert isinstance(found["optimizer"]["lr"], float)


@pytest.mark.parametrize("recipe", sorted((REPO / "configs/recipes").glob("*.yaml")), ids=lambda p: p.name)
def test_recipes_are_yaml_for_other_readers(recipe):
    settings = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    assert set(settings) <= {"model", "data", "mesh", "train", "optimizer", "schedule", "checkpoint",
                             "deid", "sources", "split", "output"}
    if "optimizer" in settings:
        assert isinstance(settings["optimizer"]["lr"], float)
