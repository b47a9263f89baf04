"""`osler tokenize`: what it writes and how it refuses."""

import json
import os
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "data"))
import tokenizer_models as models  # noqa: E402

CHAT = {"messages": [{"role": "user", "content": "Is it a cold?"}, {"role": "assistant", "content": "Yes."}]}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return models.write_model(tmp_path_factory.mktemp("model"), models.gemma())


def refused(model, lines, directory, code, *words):
    """An earlier output stays, and nothing half-written is left."""
    target = os.path.join(directory, "out.jsonl")
    with open(target, "w", encoding="utf-8") as out:
        out.write("earlier\n")
    got, stderr, _ = models.run_tokenize(model, lines, directory, raw=True)
    assert got == code, stderr
    for word in words:
        assert word in stderr, stderr
    assert "secret" not in stderr
    with open(target, encoding="utf-8") as handle:
        assert handle.read() == "earlier\n"
    assert sorted(os.listdir(directory)) == ["in.jsonl", "out.jsonl"]


def test_one_line_for_each_line(model, tmp_path):
    lines = [{"text": "a cold"}, dict(CHAT, add_generation_prompt=False), {"text": ""}, dict(CHAT, id="x", subject="y")]
    code, stderr, out = models.run_tokenize(model, lines, tmp_path)
    assert code == 0, stderr
    assert [sorted(line) for line in out] == [["input_ids", "mask", "text"]] * 4
    assert out[0]["text"] == "<bos>a cold" and out[0]["mask"] == [0] + [1] * (len(out[0]["input_ids"]) - 1)
    assert out[2] == {"input_ids": [2], "mask": [0], "text": "<bos>"}
    assert out[1] == out[3]
    assert out[1]["text"] == ("<bos><start_of_turn>user\nIs it a cold?<end_of_turn>\n<start_of_turn>model\nYes.<end_of_turn>\n")


def test_generation_prompt(model, tmp_path):
    line = {"messages": CHAT["messages"][:1], "add_generation_prompt": True}
    code, stderr, out = models.run_tokenize(model, [line], tmp_path)
    assert code == 0, stderr
    assert out[0]["text"].endswith("<end_of_turn>\n<start_of_turn>model\n") and set(out[0]["mask"]) == {0}


def test_line_ends(model, tmp_path):
    good = json.dumps({"text": "x"}).encode()
    for raw, count in ((good, 1), (good + b"\r\n" + good + b"\r\n", 2), (b"", 0), (b"\xef\xbb\xbf" + good + b"\n", 1)):
        code, stderr, out = models.run_tokenize(model, [raw], tmp_path, raw=True)
        assert code == 0, stderr
        assert len(out) == count


@pytest.mark.parametrize("bad, word", [
    (b"{", "JSON"), (b"", "JSON"), (b"[1]", "object"), (b"{}", "either"), (b'{"text": "secret", "messages": []}', "either"),
    (b'{"text": 5}', '"text"'), (b'{"messages": "secret"}', '"messages"'), (b'{"messages": []}', "no messages"),
    (b'{"messages": [5]}', "message 1"), (b'{"messages": [{"role": "user"}]}', "message 1"),
    (b'{"messages": [{"role": "user", "content": ["secret"]}]}', "message 1"),
    (b'{"messages": [{"role": "user", "content": "secret"}, {"role": "secret", "content": ""}]}', "message 2"),
    (b'{"messages": [{"role": "user", "content": "secret"}, {"role": "user", "content": "secret"}]}', "message 2"),
    (b'{"messages": [{"role": "user", "content": "q"}], "add_generation_prompt": 1}', "add_generation_prompt"),
    (b'{"text": "secret \xff"}', "JSON"), (b'{"text": "secret \\ud800"}', "JSON"), (b'{"text": "secret"} x', "JSON"),
    (b"[" * 100000, "JSON"),
])
def test_malformed_line(bad, word, model, tmp_path):
    good = json.dumps({"text": "fine"}).encode() + b"\n"
    refused(model, [good, good, bad + b"\n", good], tmp_path, 3, "in.jsonl:3: ", word)


def test_missing_and_damaged_model_files(tmp_path):
    line = [json.dumps({"text": "x"}).encode() + b"\n"]
    work = tmp_path / "work"
    work.mkdir()
    refused(tmp_path / "nowhere", line, work, 2, "tokenizer.json", "nowhere")
    broken = models.write_model(tmp_path / "broken", models.gemma())
    with open(os.path.join(broken, "tokenizer.json"), "r+", encoding="utf-8") as handle:
        handle.truncate(1000)
    refused(broken, line, work, 2, "tokenizer.json", "not valid JSON at byte")
    odd = models.write_model(tmp_path / "odd", models.gemma(normalizer={"type": "BertNormalizer"}))
    refused(odd, line, work, 2, "tokenizer.json: normalizer", "BertNormalizer")
    bare = models.write_model(tmp_path / "bare", models.gemma(), chat_template=None)
    refused(bare, [json.dumps(CHAT).encode() + b"\n"], work, 2, "in.jsonl:1: ", "no chat template")
    code, stderr, out = models.run_tokenize(bare, [{"text": "x"}], work)
    assert code == 0 and out[0]["text"] == "<bos>x", stderr


def test_missing_input_and_full_disk(model, tmp_path):
    command = [models.OSLER, "tokenize", "--model", model, "--input", str(tmp_path / "none.jsonl"), "--output",
               str(tmp_path / "out.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 3 and "none.jsonl" in done.stderr
    (tmp_path / "none.jsonl").write_text('{"text": "x"}\n')
    (tmp_path / "out.jsonl").write_text("earlier\n")
    for fault in ("write:out.jsonl=ENOSPC", "sync:out.jsonl=EIO", "rename:out.jsonl=EIO"):
        done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, OSLER_FS_FAULTS=fault))
        assert done.returncode == 3 and "out.jsonl" in done.stderr
        assert (tmp_path / "out.jsonl").read_text() == "earlier\n"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["none.jsonl", "out.jsonl"]


def test_output_may_replace_input(model, tmp_path):
    path = tmp_path / "both.jsonl"
    path.write_text('{"text": "x"}\n' * 5)
    done = subprocess.run([models.OSLER, "tokenize", "--model", model, "--input", str(path), "--output", str(path)],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["text"] for line in path.read_text().splitlines()] == ["<bos>x"] * 5


def test_help_and_missing_flags():
    done = subprocess.run([models.OSLER, "tokenize", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "Example: osler tokenize --model" in done.stdout
    done = subprocess.run([models.OSLER, "tokenize", "--model", "x"], capture_output=True, text=True)
    assert done.returncode == 2 and "--input" in done.stderr
