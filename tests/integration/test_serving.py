"""An exported directory behind `transformers serve`: its OpenAI-style API answers as `osler generate` does."""
import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

import common

READY_SECONDS = 180
VISITS = [("Cough for three days, no fever.", "Likely viral; rest and fluids."),
          ("Blood pressure 150 over 95 at home.", "Start lisinopril 10 mg, return in two weeks."),
          ("Itching rash on both arms.", "Contact dermatitis; hydrocortisone cream."),
          ("Knee pain after running.", "Rest, ice, ibuprofen as needed.")]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A small model trained for a few steps on chats and exported, as a user would make it."""
    work = tmp_path_factory.mktemp("serving")
    chats = work / "chats.jsonl"
    with open(chats, "w") as out:
        for i in range(40):
            note, plan = VISITS[i % len(VISITS)]
            messages = [{"role": "user", "content": f"Visit {i}. {note}"}, {"role": "assistant", "content": plan}]
            out.write(json.dumps({"id": f"r{i}", "subject": f"p{i}", "messages": messages}) + "\n")
    subprocess.run([sys.executable, common.ROOT / "scripts/demo/make_tokenizer.py", "--input", chats, "--output",
                    work / "tokenizer", "--vocab-size", "500"], check=True, capture_output=True)
    common.osler("init", "--output", work / "model", "--tokenizer", work / "tokenizer", "--hidden-size", 64,
                 "--layers", 4, "--heads", 4, "--kv-heads", 2, "--head-dim", 16, "--intermediate-size", 128,
                 "--sliding-window", 16, "--global-every", 2)
    (work / "build.yaml").write_text(f"""
deid: {{profile: safe_harbor}}
sources:
  - {{name: visits, format: chat_jsonl, path: {chats}, trusted: true}}
output: {{path: {work}/shards, shard_mb: 1}}
""")
    common.osler("data", "build", "--config", work / "build.yaml")
    config = common.write_config(work / "train.yaml", work / "model", work / "shards/train", work / "run",
                                 train__steps=60, optimizer__lr=5e-3, data__sequence_length=256)
    common.osler("train", "--config", config)
    common.osler("export", "--run", work / "run", "--output", work / "export")
    return work / "export"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def post(address, path, body):
    request = urllib.request.Request(address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def wait_until_ready(server, address, log):
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end:
        assert server.poll() is None, f"the server left with {server.returncode}:\n{log.read_text()[-3000:]}"
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            with urllib.request.urlopen(address + "/health", timeout=5):
                return
        time.sleep(0.2)
    pytest.fail(f"the server was not ready after {READY_SECONDS} s:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def server(exported, tmp_path_factory):
    """The address of `transformers serve` on a free port of the loopback device."""
    log = tmp_path_factory.mktemp("server") / "log.txt"
    port = free_port()
    program = pathlib.Path(sys.executable).parent / "transformers"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"}
    with open(log, "w") as out:
        process = subprocess.Popen([program, "serve", str(exported), "--host", "127.0.0.1", "--port", str(port),
                                    "--device", "cpu"], env=environment, stdout=out, stderr=out,
                                   stdin=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until_ready(process, address, log)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def generate(tmp_path, model, lines, *flags):
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    common.osler("generate", "--model", model, "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl",
                 *flags)
    return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]


def chat(server, exported, messages, **more):
    answer = post(server, "/v1/chat/completions", {"model": str(exported), "messages": messages, "temperature": 0,
                                                   "max_tokens": 40, **more})
    return answer["choices"][0]["message"]["content"], answer["usage"]


def test_chats_get_the_same_greedy_answer(tmp_path, exported, server):
    chats = [[{"role": "user", "content": f"Visit {i}. {note}"}] for i, (note, _) in enumerate(VISITS)]
    chats.append([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Cough?"},
                  {"role": "assistant", "content": "Rest."}, {"role": "user", "content": "And the knee?"}])
    lines = generate(tmp_path, exported, [{"messages": messages} for messages in chats], "--max-new-tokens", 40)
    assert {line["finish"] for line in lines} & {"eos"}, "the model has learnt no turn's end"
    for messages, line in zip(chats, lines):
        text, usage = chat(server, exported, messages)
        assert text == line["text"] and len(text) > 3
        assert usage["prompt_tokens"] == line["prompt_tokens"]


def test_stop_strings_end_at_the_same_place(tmp_path, exported, server):
    messages = [{"role": "user", "content": "Visit 3. Cough for three days, no fever."}]
    whole = generate(tmp_path, exported, [{"messages": messages}], "--max-new-tokens", 40)[0]["text"]
    stop = whole[5:8]
    line = generate(tmp_path, exported, [{"messages": messages}], "--max-new-tokens", 40, "--stop", stop)[0]
    text, usage = chat(server, exported, messages, stop=[stop])
    # The server hands out the token that completes the stop string, `osler generate` cuts before the string.
    assert line["finish"] == "stop" and text[:text.index(stop)] == line["text"]
    assert usage["completion_tokens"] == len(line["output_ids"])


def test_prompts_get_the_same_completion(tmp_path, exported, server):
    prompt = "Knee pain after"
    answer = post(server, "/v1/completions", {"model": str(exported), "prompt": prompt, "temperature": 0,
                                              "max_tokens": 20})
    line = generate(tmp_path, exported, [{"prompt": prompt}], "--max-new-tokens", 20)[0]
    assert answer["choices"][0]["text"] == line["text"]
