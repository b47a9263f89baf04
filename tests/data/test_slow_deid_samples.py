"""De-identification measured on text from outside: recall on annotated sentences and on notes whose patient is known,
and how much of medical text that holds hardly any identifier is changed. docs/privacy.md quotes these numbers.

Run with -s to see them. The oracles are the samples' own annotations.
"""
import base64
import collections
import csv
import difflib
import json
import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
OSLER = os.environ.get("OSLER_BIN", str(ROOT / "build/release/osler"))
SAMPLES = ROOT / "../shared/samples"

csv.field_size_limit(10**9)


def sample(*parts):
    path = SAMPLES.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no sample {path}")
    return path


def clean(tmp_path, texts, known=None):
    """The texts after `osler data build`, in order, and the counts by rule."""
    with open(tmp_path / "in.jsonl", "w") as out:
        for i, text in enumerate(texts):
            record = {"id": "n", "subject": f"s{i}", "messages": [{"role": "assistant", "content": text}]}
            if known:
                record["known"] = known[i]
            out.write(json.dumps(record) + "\n")
    (tmp_path / "build.yaml").write_text(f"sources: [{{name: s, format: chat_jsonl, path: {tmp_path}/in.jsonl}}]\n"
                                         f"output: {{path: {tmp_path}/shards}}\n")
    subprocess.run([OSLER, "data", "build", "--config", tmp_path / "build.yaml"], check=True, capture_output=True)
    lines = subprocess.run([OSLER, "data", "inspect", tmp_path / "shards", "--records"], check=True,
                           capture_output=True).stdout.decode().split("\n")
    cleaned = [json.loads(line)["messages"][0]["content"] for line in lines if line]
    assert len(cleaned) == len(texts)
    report = json.loads((tmp_path / "shards/train/report.json").read_text())
    return cleaned, report["identifiers_by_rule"]


def test_recall_on_presidio_sentences(tmp_path):
    sentences = json.loads(sample("deid_text", "presidio_synth_dataset_v2.json").read_text())
    names = [{"name": [s["entity_value"] for s in one["spans"] if s["entity_type"] == "PERSON"]} for one in sentences]
    cleaned, _ = clean(tmp_path, [one["full_text"] for one in sentences], names)
    total, found = collections.Counter(), collections.Counter()
    for one, text in zip(sentences, cleaned):
        for span in one["spans"]:
            kind, value = span["entity_type"], span["entity_value"]
            if kind == "DATE_TIME" and re.fullmatch(r"\d{4}|[A-Za-z]+", value):
                continue  # years and weekdays stay
            if kind == "AGE" and int(value) < 90:
                continue
            total[kind] += 1
            found[kind] += value not in text
    for kind, count in sorted(total.items()):
        print(f"{kind:18s} {found[kind]:4d} of {count:4d}")
    for kind in ("PERSON", "EMAIL_ADDRESS", "US_SSN", "IP_ADDRESS", "DOMAIN_NAME", "DATE_TIME", "IBAN_CODE",
                 "CREDIT_CARD", "US_DRIVER_LICENSE"):
        assert found[kind] == total[kind], kind
    assert found["PHONE_NUMBER"] >= 0.97 * total["PHONE_NUMBER"]
    assert found["ZIP_CODE"] >= 0.5 * total["ZIP_CODE"]  # half are foreign and stand without a word that says so


def test_notes_of_known_patients(tmp_path):
    patients = {}
    for line in sample("fhir_bulk_ndjson", "Patient.000.ndjson").read_text().splitlines():
        patient = json.loads(line)
        patients[patient["id"]] = {"name": [" ".join(n.get("given", []) + [n["family"]]) for n in patient["name"]],
                                   "id": [i["value"] for i in patient["identifier"]]}
    texts, known = [], []
    for line in sample("fhir_bulk_ndjson", "DocumentReference.000.ndjson").read_text().splitlines():
        note = json.loads(line)
        texts.append(base64.b64decode(note["content"][0]["attachment"]["data"]).decode())
        known.append(patients[note["subject"]["reference"].split("/")[1]])
    cleaned, counts = clean(tmp_path, texts, known)
    print(len(texts), "notes", {rule: n for rule, n in counts.items() if n})
    for text, who in zip(cleaned, known):
        low = text.lower()
        for part in " ".join(who["name"]).lower().split():
            assert part not in low
        assert not any(value in text for value in who["id"])
        assert not re.search(r"\d{4}-\d\d-\d\d", text)
        assert not re.search(r"\b(9\d|1[0-2]\d) year-old", text)
    assert counts["name"] >= len(texts) and counts["date"] >= len(texts)


def columns(path, *names):
    with open(path, newline="") as file:
        return [row[name] for row in csv.DictReader(file) for name in names]


def pubmedqa(path):
    return [" ".join([q["QUESTION"], *q["CONTEXTS"], q["LONG_ANSWER"]]) for q in json.loads(path.read_text()).values()]


@pytest.mark.parametrize("name,read", [
    ("MTS-Dialog", lambda: columns(sample("text_dialog_notes", "MTS-Dialog-TrainingSet.csv"), "section_text", "dialogue")),
    ("ACI-Bench", lambda: columns(sample("text_dialog_notes", "aci_train.csv"), "note", "dialogue")),
    ("PubMedQA", lambda: pubmedqa(sample("text_qa", "ori_pqal.json"))),
    ("MedQA", lambda: [json.loads(line)["question"] for line in
                       sample("text_qa", "medqa_us_4opt_test.jsonl").read_text().splitlines()]),
])
def test_share_of_medical_text_that_changes(tmp_path, name, read):
    texts = [text for text in read() if text]
    cleaned, counts = clean(tmp_path, texts)
    words = changed = 0
    for before, after in zip(texts, cleaned):
        a, b = before.split(), after.split()
        words += len(a)
        if before != after:
            changed += sum(i2 - i1 for op, i1, i2, _, _ in
                           difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes() if op != "equal")
    print(f"{name}: {changed} of {words} words, {100 * changed / words:.2f} %, {({r: n for r, n in counts.items() if n})}")
    # These corpora hold real dates and names, so this bounds over-redaction from above.
    assert changed <= 0.005 * words
