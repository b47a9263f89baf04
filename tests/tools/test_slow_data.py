"""`osler data build|inspect|verify` as a user runs them."""
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/data"))
OSLER = os.environ.get("OSLER_BIN", str(ROOT / "build/release/osler"))


def osler(*arguments, expect=0):
    done = subprocess.run([OSLER, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == expect, f"exit {done.returncode}, wanted {expect}:\n{done.stderr}"
    return done


def visit(i):
    return {"id": f"visit-{i:04d}", "subject": f"patient-{i % 10:03d}",
            "messages": [{"role": "system", "content": "Answer from the note."},
                         {"role": "user", "content": f"Otto Vogelsang, {90 + i % 9}-year-old, MRN 7700{i:04d}, "
                                                     f"seen 3/{i % 28 + 1}/2019, call 617-555-01{i:02d}. BP 120/80."},
                         {"role": "assistant", "content": "VOGELSANG is stable, metformin 500 mg."}],
            "known": {"name": ["Vogelsang, Otto"], "id": [f"7700{i:04d}"]}}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("data")
    (tmp / "visits.jsonl").write_text("".join(json.dumps(visit(i)) + "\n" for i in range(40)))
    (tmp / "t.jsonl").write_text("".join(json.dumps({
        "id": f"t{i}", "subject": f"q{i}", "input_ids": list(range(i, i + 3 + i % 9))}) + "\n" for i in range(200)))
    (tmp / "build.yaml").write_text(f"""
deid: {{profile: safe_harbor}}
sources:
  - {{name: visits, format: chat_jsonl, path: {tmp}/visits.jsonl}}
split: {{validation: 0.2, by: subject, seed: 1}}
output: {{path: {tmp}/SHARDS, shard_mb: 64}}
""")
    (tmp / "tokens.yaml").write_text(f"""
sources:
  - {{name: fixed, format: tokens_jsonl, path: {tmp}/t.jsonl, trusted: true}}
output: {{path: {tmp}/TOKENS}}
""")
    done = osler("data", "build", "--config", tmp / "build.yaml")
    osler("data", "build", "--config", tmp / "tokens.yaml")
    return tmp, done


def records(path):
    return [json.loads(line) for line in osler("data", "inspect", path, "--records").stdout.splitlines()]


def test_clean_records(built):
    tmp, done = built
    train, validation = records(tmp / "SHARDS/train"), records(tmp / "SHARDS/validation")
    assert (len(train), len(validation)) == (32, 8)
    assert records(tmp / "SHARDS") == train + validation
    for record in train + validation:
        assert re.fullmatch(r"r-\d{6}", record["id"]) and re.fullmatch(r"s-\d{6}", record["subject"])
        assert [m["role"] for m in record["messages"]] == ["system", "user", "assistant"]
        assert record["messages"][1]["content"] == ("[NAME-1], [AGE 90+]-year-old, MRN [ID-1], seen [DATE 2019], "
                                                    "call [PHONE]. BP 120/80.")
        assert record["messages"][2]["content"] == "[NAME-1] is stable, metformin 500 mg."
    assert {r["subject"] for r in train}.isdisjoint(r["subject"] for r in validation)
    assert len({r["subject"] for r in validation}) == 2


def test_summary_report_and_certificate(built):
    tmp, done = built
    assert "phone 40" in done.stderr and "visits" in done.stderr
    report = json.loads((tmp / "SHARDS/train/report.json").read_text())
    assert report["identifiers_by_rule"]["name"] == 80 and report["identifiers_by_rule"]["date"] == 40
    assert report["identifiers"] == sum(report["identifiers_by_rule"].values())
    assert report["splits"] == {"train": {"records": 32, "subjects": 8}, "validation": {"records": 8, "subjects": 2}}
    shown = osler("data", "inspect", tmp / "SHARDS").stderr
    assert "safe_harbor" in shown and "no source: all text went through the gate" in shown
    assert "fixed" in osler("data", "inspect", tmp / "TOKENS").stderr


def test_no_planted_byte_survives(built):
    tmp, done = built
    everything = done.stdout + done.stderr + osler("data", "inspect", tmp / "SHARDS", "--records").stdout
    for path in (tmp / "SHARDS").rglob("*"):
        if path.is_file():
            everything += path.read_bytes().decode("latin-1")
    for planted in ["ogelsang", "OGELSANG", "Otto", "7700", "555-01", "visit-", "patient-0", "3/1"]:
        assert planted not in everything, planted


def test_verify_names_the_bad_file(built, tmp_path):
    tmp, _ = built
    said = osler("data", "verify", tmp / "SHARDS").stderr
    assert said.count("shard-00000.osd") == 2
    copy = tmp_path / "SHARDS"
    subprocess.run(["cp", "-r", tmp / "SHARDS", copy], check=True)
    for name in ["shard-00000.osd", "index.bin", "certificate.json", "report.json", "manifest.json"]:
        path = copy / "validation" / name
        good = path.read_bytes()
        path.write_bytes(good[:len(good) // 2] + bytes([good[len(good) // 2] ^ 1]) + good[len(good) // 2 + 1:])
        assert f"validation/{name}" in osler("data", "verify", copy, expect=3).stderr
        osler("data", "verify", copy / "train")
        path.write_bytes(good)
    osler("data", "verify", copy)
    assert "manifest" in osler("data", "verify", tmp_path, expect=3).stderr


def order(path, *flags, length=16):
    out = osler("data", "inspect", path, "--order", "--seed", 5, "--sequence-length", length, *flags).stdout
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("readers", [2, 3, 4])
def test_order_is_the_same_for_any_number_of_readers(built, epoch, readers):
    tmp, _ = built
    alone = order(tmp / "TOKENS/train", "--epoch", epoch)
    assert [line["pack"] for line in alone] == list(range(len(alone)))
    shared = {}
    for reader in range(readers):
        for line in order(tmp / "TOKENS/train", "--epoch", epoch, "--readers", readers, "--reader", reader):
            assert line["pack"] % readers == reader
            shared[line["pack"]] = line["input_ids"]
    assert [shared[g] for g in range(len(alone))] == [line["input_ids"] for line in alone]
    # Every id of the epoch, each once: truncation apart, nothing is this long.
    total = sum(3 + i % 9 for i in range(200))
    assert sum(len(line["input_ids"]) for line in alone) == total


def test_order_from_and_count(built):
    tmp, _ = built
    all_of_it = order(tmp / "TOKENS/train")
    assert order(tmp / "TOKENS/train", "--from", 7, "--count", 5) == all_of_it[7:12]
    assert order(tmp / "TOKENS/train", "--from", 7, "--count", 5, "--readers", 2, "--reader", 1) == all_of_it[7:12:2]
    wrapped = order(tmp / "TOKENS/train", "--from", len(all_of_it) - 1, "--count", 3)
    assert [line["input_ids"] for line in wrapped[1:]] == [
        line["input_ids"] for line in order(tmp / "TOKENS/train", "--epoch", 1, "--count", 2)]
    assert order(tmp / "TOKENS/train", "--count", 0) == []
    files = order(tmp / "TOKENS/train", "--no-shuffle", "--no-packing")
    assert [line["input_ids"] for line in files] == [list(range(i, i + 3 + i % 9)) for i in range(200)]


def test_a_closed_pipe_ends_quietly(built):
    tmp, _ = built
    shell = f"'{OSLER}' data inspect '{tmp}/TOKENS' --order --count 1000000 | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "0" and done.stderr == ""


@pytest.mark.parametrize("flags,words", [
    (["--order", "--readers", "2", "--reader", "2"], "--reader"),
    (["--seed", "3"], "--order"),
    (["--order", "--records"], "--records"),
    (["--order", "--long-records", "keep"], "--long-records"),
])
def test_wrong_flags(built, flags, words):
    assert words in osler("data", "inspect", built[0] / "TOKENS", *flags, expect=2).stderr


def test_wrong_paths_and_settings(built, tmp_path):
    tmp, _ = built
    assert "nowhere" in osler("data", "inspect", tmp_path / "nowhere", expect=3).stderr
    assert "nowhere.yaml" in osler("data", "build", "--config", tmp_path / "nowhere.yaml", expect=2).stderr
    said = osler("data", "build", "--config", tmp / "build.yaml", "--set", "sources.0.path=gone.jsonl",
                 "--set", f"output.path={tmp_path}/x", expect=3).stderr
    assert "gone.jsonl" in said and not (tmp_path / "x").exists()
    assert "no-model" in osler("data", "build", "--config", tmp / "build.yaml", "--model", tmp_path / "no-model",
                               "--set", f"output.path={tmp_path}/x", expect=2).stderr
    assert "chat" in osler("data", "inspect", tmp / "SHARDS/train", "--order", expect=2).stderr


def test_model_measures_and_chats_come_in_order(built, tmp_path):
    import tokenizer_models
    from tokenizers import Tokenizer

    tmp, _ = built
    document = tokenizer_models.gemma()
    model = tokenizer_models.write_model(str(tmp_path / "model"), document)
    build = ["data", "build", "--config", tmp / "build.yaml", "--set", f"output.path={tmp_path}/S", "--model", model]
    osler(*build)
    for split in ("train", "validation"):
        assert len(list((tmp_path / "S" / split / "lengths").iterdir())) == 1
    packs = order(tmp_path / "S", "--model", model, "--no-shuffle", "--no-packing", length=4096)
    texts = [Tokenizer.from_str(json.dumps(document)).decode(p["input_ids"], skip_special_tokens=False) for p in packs]
    assert len(texts) == 32
    for text in texts:
        assert "<start_of_turn>user\nAnswer from the note.\n\n[NAME-1], [AGE 90+]-year-old" in text
        assert "Vogelsang" not in text

    # A chat that the template refuses ends the build, and the earlier output is as it was.
    before = {p: p.read_bytes() for p in (tmp_path / "S").rglob("*") if p.is_file()}
    bad = {"id": "x", "subject": "y", "messages": [{"role": "assistant", "content": "a"},
                                                   {"role": "assistant", "content": "b"}]}
    (tmp_path / "bad.jsonl").write_text(json.dumps(visit(1)) + "\n" + json.dumps(bad) + "\n")
    osler(*build, "--set", f"sources.0.path={tmp_path}/bad.jsonl", "--set", "split.validation=0", expect=3)
    assert before == {p: p.read_bytes() for p in (tmp_path / "S").rglob("*") if p.is_file()}


DEEP = "[" * 5000 + "]" * 5000


@pytest.mark.parametrize("format,content,words", [
    ("csv", b"", ["in:1", "empty"]),
    ("csv", b"q,a,a\n1,2,3\n", ["in:1", "columns 2 and 3"]),
    ("csv", b"\xef\xbb\xbfQ,a\nsecret,2\n", ["in:1", '"q"', 'did you mean "Q"']),
    ("csv", b'q,a\n1,2\n3,"secret\n', ["in:3", "never closed"]),
    ("csv", b"q,a\n1,2\nsecret\n", ["in:3", "1 cells", "header 2"]),
    ("csv", b"q,a\n1,secret\x00\n", ["in:2", "NUL"]),
    ("csv", "q,a\n1,secret\n".encode("utf-16"), ["UTF-16"]),
    ("qa_jsonl", b'{"q": "1", "a": "2"}\n{"q": "secret"}\n', ["in:2", "completion", '"a" is missing']),
    ("qa_jsonl", b'{"q": {"x": "secret"}, "a": "2"}\n', ["in:1", "prompt", '"q" is an object']),
    ("qa_jsonl", b'{"q": "secret", "a": ', ["in:1", "malformed JSON"]),
    ("qa_jsonl", b'{"q": "secret\x00", "a": "2"}\n', ["in:1", "malformed JSON"]),
    ("qa_jsonl", b'{"q": ' + DEEP.encode() + b', "a": "2"}\n', ["in:1", "nested deeper than 64"]),
    ("qa_jsonl", "[]".encode("utf-16"), ["UTF-16"]),
    ("qa_json", b'[{"q": "1", "a": "2"}, {"q": "secret", ', ["in:1", "record 2", "cut short"]),
    ("qa_json", b'[{"q": ' + DEEP.encode() + b', "a": "2"}]', ["record 1", "nested deeper than 64"]),
    ("qa_json", b"", ["empty"]),
    ("text", b"a\xffsecret", ["not UTF-8 at byte 2"]),
    ("text", b" \n", ["no record"]),
])
def test_sources_that_cannot_be_read(tmp_path, format, content, words):
    (tmp_path / "in").write_bytes(content)
    roles = "text: '{text}'" if format == "text" else "prompt: '{q}', completion: '{a}'"
    (tmp_path / "b.yaml").write_text(f"sources: [{{name: s, format: {format}, path: {tmp_path}/in, {roles}}}]\n"
                                     f"output: {{path: {tmp_path}/S}}\n")
    said = osler("data", "build", "--config", tmp_path / "b.yaml", expect=3).stderr
    assert all(word in said for word in words) and "secret" not in said, said
    assert not (tmp_path / "S").exists() or not list((tmp_path / "S").rglob("*.osd"))


def test_a_directory_is_no_csv_file(tmp_path):
    (tmp_path / "b.yaml").write_text(f"sources: [{{name: s, format: csv, path: {tmp_path}, text: '{{t}}'}}]\n"
                                     f"output: {{path: {tmp_path}/S}}\n")
    assert "is a directory" in osler("data", "build", "--config", tmp_path / "b.yaml", expect=3).stderr


def test_help_has_an_example():
    for command in (["data"], ["data", "build"], ["data", "inspect"], ["data", "verify"]):
        assert "Example: osler data" in osler(*command, "--help").stdout


def test_version_is_that_of_the_project():
    version = re.search(r"project\(osler VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text()).group(1)
    assert f'kOslerVersion[] = "{version}"' in (ROOT / "tools/version.h").read_text()
