"""The demo's synthetic clinic: repeatable, patients held out, identifiers listed exactly, answers follow from notes."""
import collections
import json
import pathlib
import re
import subprocess
import sys

import pytest

MAKE_CLINIC = pathlib.Path(__file__).resolve().parents[2] / "scripts/demo/make_clinic.py"
FILES = ["visits.jsonl", "heldout.jsonl", "planted.jsonl", "answers.json"]

# Words that decide, written down here apart from the generator's tables.
NEW_WORDS = ["this morning", "two hours", "last night", "few hours", "lunch today", "less than a day"]
GROUP_WORDS = {
    "heart": ["chest", "breastbone", "heartbeat"], "lungs": ["breath", "wheezing", "coughing"],
    "nerves": ["numbness", "speech", "headache", "weakness"], "belly": ["belly", "vomiting", "abdomen", "bloating"],
    "joints": ["knee", "hip", "wrist", "shoulders"], "eyes": ["vision", "eye"],
}
TIME_WORDS = NEW_WORDS + ["several months", "six weeks", "half a year", "more than a year", "last winter", "many weeks"]


def make(directory, *options):
    subprocess.run([sys.executable, MAKE_CLINIC, "--output", directory, *options], check=True, capture_output=True)
    return {name: (directory / name).read_text() for name in FILES}


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    return make(tmp_path_factory.mktemp("clinic"))


def test_same_seed_same_bytes_other_seed_other_bytes(clinic, tmp_path):
    assert make(tmp_path / "again") == clinic
    assert make(tmp_path / "other", "--seed", "2")["visits.jsonl"] != clinic["visits.jsonl"]


def test_patients_are_held_out(clinic):
    train, heldout = lines(clinic["visits.jsonl"]), lines(clinic["heldout.jsonl"])
    assert len(heldout) >= 150
    assert not {r["subject"] for r in train} & {r["subject"] for r in heldout}
    notes = {r["messages"][0]["content"] for r in train}
    assert not any(r["messages"][0]["content"] in notes for r in heldout)


def test_planted_identifiers_are_in_the_text_of_their_visit(clinic):
    records = lines(clinic["visits.jsonl"]) + lines(clinic["heldout.jsonl"])
    planted = lines(clinic["planted.jsonl"])
    assert [r["id"] for r in records] == [p["id"] for p in planted]
    kinds = collections.Counter()
    for record, entry in zip(records, planted):
        note = record["messages"][0]["content"]
        for kind, text in entry["planted"]:
            assert text in note
            kinds[kind] += 1
        for name in record["known"]["name"]:
            mentioned = sum(kind == "name" and name in text for kind, text in entry["planted"])
            assert (name in note) == (mentioned > 0)
    assert set(kinds) == {"name", "mrn", "date", "phone", "email", "address", "zip", "ssn", "fax", "age"}
    assert min(kinds.values()) >= 20


def test_answers_follow_from_complaint_and_time_course(clinic):
    classes = json.loads(clinic["answers.json"])
    assert len(classes) >= 8
    counts = collections.Counter()
    for record in lines(clinic["visits.jsonl"]):
        note, answer = (m["content"] for m in record["messages"])
        sentences = re.sub(r"\b(Mr|Ms|Dr)\. ", r"\1 ", note.split("\n")[0]).split(". ")
        telling = [s for s in sentences if any(w in s.lower() for w in TIME_WORDS)]
        assert len(telling) == 1, note
        course = "new" if any(w in telling[0].lower() for w in NEW_WORDS) else "lasting"
        groups = [g for g, words in GROUP_WORDS.items() if any(w in telling[0].lower().split("has had")[-1] for w in words)]
        assert groups and answer.startswith(f"{course} problem of the ") and any(g in answer for g in groups), note
        assert answer in classes
        counts[answer] += 1
    assert set(counts) == set(classes)
    assert max(counts.values()) < 2 * min(counts.values())  # guessing the commonest answer does not pay


def test_shuffled_labels_are_the_same_answers_on_other_notes(clinic, tmp_path):
    shuffled = make(tmp_path / "shuffled", "--shuffle-labels")
    before, after = lines(clinic["visits.jsonl"]), lines(shuffled["visits.jsonl"])
    assert [r["messages"][0] for r in before] == [r["messages"][0] for r in after]
    answers = [[r["messages"][1]["content"] for r in part] for part in (before, after)]
    assert sorted(answers[0]) == sorted(answers[1])
    kept = sum(a == b for a, b in zip(*answers)) / len(before)
    assert kept < 2 / len(json.loads(clinic["answers.json"]))
    assert shuffled["heldout.jsonl"] == clinic["heldout.jsonl"]
