"""`osler generate` judged by transformers' generate: greedy tokens, sampling, stops, text, bad input."""
import json
import math
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import torch
import transformers

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
import common  # noqa: E402

torch.set_num_threads(1)


def generate(tmp_path, model, lines, *flags, expect=0):
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = common.osler("generate", "--model", model, "--input", tmp_path / "in.jsonl", "--output",
                        tmp_path / "out.jsonl", *flags, expect=expect)
    if expect:
        return done.stderr
    return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]


def ask(prompts):
    return [{"input_ids": ids} for ids in prompts]


def prompts(count, low, high, seed=0):
    return [ids for ids, _ in common.random_documents(count, low, high, seed=seed)]


def save(path, ends=None, config=None):
    """A random model of the configuration's family, Gemma 3 by default; generation_config.json ends it at `ends`."""
    model = transformers.AutoModelForCausalLM.from_config(config or common.tiny_config())
    common.redraw(model).save_pretrained(path)
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": ends} if ends is not None else {}))
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "eos_token_id": None}))
    return path


def load(path, dtype=torch.float32):
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="eager")
    model.model.embed_tokens.padding_idx = None  # id 0 is a token like any other
    return model.eval()


def greedy(model, ids, new, ends=None, **more):
    with torch.no_grad():
        out = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), do_sample=False,
                             max_new_tokens=new, eos_token_id=ends, pad_token_id=0, **more)
    return out[0, len(ids):].tolist()


def greedy_padded(model, asked, new):
    """One left-padded batch."""
    width = max(map(len, asked))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in asked])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in asked])
    with torch.no_grad():
        out = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=new, eos_token_id=None,
                             pad_token_id=0)
    return [row[width:].tolist() for row in out]


SIZES = dict(vocab_size=131, hidden_size=64, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=512, pad_token_id=None, bos_token_id=2, eos_token_id=None)
LLAMA3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
FAMILIES = {
    # The window of 8 is shorter than most prompts and than all sequences: rings wrap many times.
    "gemma3": common.tiny_config(),
    "gemma3-untied": common.tiny_config(tie_word_embeddings=False, sliding_window=24),
    "llama": transformers.LlamaConfig(**SIZES, rope_parameters=LLAMA3),
    "llama-tied": transformers.LlamaConfig(**SIZES, head_dim=16, tie_word_embeddings=True),
    "qwen2": transformers.Qwen2Config(**SIZES),
    "qwen3": transformers.Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=True),
}


@pytest.mark.parametrize("precision,dtype", [("fp32", torch.float32), ("fp64", torch.float64)])
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_equals_transformers(tmp_path, family, precision, dtype):
    # Nine prompts for four slots, one of which at least ends early: slots are handed on while others run.
    save(tmp_path / "m", config=FAMILIES[family])
    reference = load(tmp_path / "m", dtype)
    asked = prompts(9, 1, 40, seed=3)
    ends = [greedy(reference, asked[1], 10)[-1], 11]
    (tmp_path / "m/generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    lines = generate(tmp_path, tmp_path / "m", ask(asked), "--max-new-tokens", 40, "--batch", 4, "--precision",
                     precision)
    assert len(lines) == len(asked)
    for ids, line in zip(asked, lines):
        assert line["output_ids"] == greedy(reference, ids, 40, ends)
        assert line["prompt_tokens"] == len(ids)
        assert line["finish"] == ("eos" if line["output_ids"][-1] in ends else "length")
    assert lines[1]["finish"] == "eos" and len(lines[1]["output_ids"]) <= 10


def test_greedy_equals_a_left_padded_batch(tmp_path):
    save(tmp_path / "m")
    asked = prompts(6, 2, 30, seed=4)
    lines = generate(tmp_path, tmp_path / "m", ask(asked), "--max-new-tokens", 20)
    assert [line["output_ids"] for line in lines] == greedy_padded(load(tmp_path / "m"), asked, 20)


def test_cached_log_probs_equal_a_pass_over_everything(tmp_path):
    save(tmp_path / "m")
    asked = prompts(5, 1, 60, seed=6)
    lines = generate(tmp_path, tmp_path / "m", ask(asked), "--max-new-tokens", 50, "--logprobs", "--temperature", 1)
    reference = load(tmp_path / "m")
    for ids, line in zip(asked, lines):
        everything = torch.tensor([ids + line["output_ids"]])
        with torch.no_grad():
            expected = torch.log_softmax(reference(everything).logits[0], -1)
        chosen = [expected[len(ids) - 1 + i, token].item() for i, token in enumerate(line["output_ids"])]
        assert line["logprobs"] == pytest.approx(chosen, abs=1e-5)


@pytest.mark.parametrize("sampling", [[], ["--temperature", 0.8, "--top-k", 40, "--top-p", 0.95, "--samples", 3]])
def test_the_rest_of_the_batch_does_not_matter(tmp_path, sampling):
    save(tmp_path / "m", ends=[7])
    flags = ["--max-new-tokens", 30, "--precision", "fp64", "--seed", 5, *sampling]
    lines = ask(prompts(7, 1, 40, seed=8))
    alone = generate(tmp_path, tmp_path / "m", lines, *flags, "--batch", 1)
    assert len({tuple(line["output_ids"]) for line in alone}) == len(alone)
    for batch in (2, 5, 64):
        assert generate(tmp_path, tmp_path / "m", lines, *flags, "--batch", batch) == alone


def test_samples_follow_the_distribution(tmp_path):
    save(tmp_path / "m")
    count, ids = 4000, [3, 1, 4, 1, 5]
    lines = generate(tmp_path, tmp_path / "m", ask([ids]), "--max-new-tokens", 1, "--samples", count, "--batch", 500,
                     "--temperature", 1.3, "--top-k", 6, "--seed", 2)
    assert [line["sample"] for line in lines] == list(range(count))
    with torch.no_grad():
        logits = load(tmp_path / "m")(torch.tensor([ids])).logits[0, -1]
    values, tokens = (logits / 1.3).topk(6)
    drawn = [line["output_ids"][0] for line in lines]
    assert set(drawn) == set(tokens.tolist())
    for token, p in zip(tokens.tolist(), values.softmax(-1).tolist()):
        assert abs(drawn.count(token) - count * p) < 5 * math.sqrt(count * p * (1 - p))
    other = generate(tmp_path, tmp_path / "m", ask([ids]), "--max-new-tokens", 1, "--samples", count, "--batch", 500,
                     "--temperature", 1.3, "--top-k", 6, "--seed", 3)
    assert other != lines


def test_min_new_tokens(tmp_path):
    save(tmp_path / "m")
    ids = prompts(1, 10, 10)[0]
    reference = load(tmp_path / "m")
    end = greedy(reference, ids, 3)[2]
    save(tmp_path / "m", ends=end)
    early, late = (generate(tmp_path, tmp_path / "m", ask([ids]), "--max-new-tokens", 12, *flags)[0]
                   for flags in ([], ["--min-new-tokens", 6]))
    assert early["output_ids"] == greedy(reference, ids, 12, end) and early["finish"] == "eos"
    assert len(early["output_ids"]) <= 3 and len(late["output_ids"]) >= 6
    assert late["output_ids"] == greedy(reference, ids, 12, end, min_new_tokens=6)


def test_ends_where_the_positions_end(tmp_path):
    save(tmp_path / "m", config=common.tiny_config(max_position_embeddings=64))
    lines = generate(tmp_path, tmp_path / "m", ask([[1] * 60, [1] * 63, [1]]), "--max-new-tokens", 10)
    assert [len(line["output_ids"]) for line in lines] == [4, 1, 10]
    message = generate(tmp_path, tmp_path / "m", ask([[1] * 64]), expect=3)
    assert "in.jsonl:1" in message and "64" in message


# ---- text

CORPUS = [{"text": t} for t in (
    "The patient was seen in clinic today and feels well.", "No fever, no cough; blood pressure 120 over 80.",
    "Plan: continue metformin, return in three months.", "Ünïcode: naïve café, 体温 37.2 °C, done 🙂.")] * 4


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    """A random model with a tokenizer of the Gemma kind and its chat template."""
    path = tmp_path_factory.mktemp("chat")
    (path / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in CORPUS))
    script = common.ROOT / "scripts/demo/make_tokenizer.py"
    subprocess.run([sys.executable, script, "--input", path / "corpus.jsonl", "--output", path / "m", "--vocab-size",
                    "500"], check=True, capture_output=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path / "m")
    save(path / "m", ends=[1, 106], config=common.tiny_config(vocab_size=len(tokenizer), max_position_embeddings=4096))
    return path / "m", tokenizer


CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "体温? Café 🙂"}]


def test_text_is_what_transformers_decodes(tmp_path, chat_model):
    path, tokenizer = chat_model
    text = "The patient feels 🙂 well"
    lines = generate(tmp_path, path, [{"prompt": text}, {"messages": CHAT}, {"input_ids": [2, 300, 17]}],
                     "--max-new-tokens", 40)
    asked = [tokenizer(text)["input_ids"],
             tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=True)["input_ids"],
             [2, 300, 17]]
    reference = load(path)
    for ids, line in zip(asked, lines):
        assert line["prompt_tokens"] == len(ids)
        assert line["output_ids"] == greedy(reference, ids, 40, [1, 106])
        assert line["text"] == tokenizer.decode(line["output_ids"], skip_special_tokens=True)


def test_built_in_template(tmp_path, chat_model):
    """A directory without a template answers chats through the built-in one named: Gemma's own says the same."""
    path, tokenizer = chat_model
    bare = tmp_path / "bare"
    shutil.copytree(path, bare)
    (bare / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((bare / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (bare / "tokenizer_config.json").write_text(json.dumps(settings))
    line = generate(tmp_path, bare, [{"messages": CHAT}], "--max-new-tokens", 5, "--template", "gemma")[0]
    ids = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert line["prompt_tokens"] == len(ids)
    assert line["output_ids"] == greedy(load(path), ids, 5, [1, 106])


def test_stop_strings(tmp_path, chat_model):
    path, tokenizer = chat_model
    whole = generate(tmp_path, path, [{"prompt": "The"}], "--max-new-tokens", 90, "--temperature", 1)[0]
    stop = re.search("[a-z]{3}", whole["text"][20:]).group()
    line = generate(tmp_path, path, [{"prompt": "The"}], "--max-new-tokens", 90, "--temperature", 1, "--stop",
                    "never written", "--stop", stop)[0]
    assert line["finish"] == "stop"
    assert line["text"] == whole["text"][:whole["text"].index(stop)]
    n = len(line["output_ids"])
    assert n < len(whole["output_ids"]) and line["output_ids"] == whole["output_ids"][:n]
    # No token earlier could have completed the stop string.
    assert stop not in tokenizer.decode(line["output_ids"][:-1], skip_special_tokens=True)


@pytest.mark.parametrize("flag,value,line", [
    ("--prompt", "Plan: 🙂", {"prompt": "Plan: 🙂"}),
    ("--message", "Hello", {"messages": [{"role": "user", "content": "Hello"}]})])
def test_one_text_streams_to_stdout(tmp_path, chat_model, flag, value, line):
    expected = generate(tmp_path, chat_model[0], [line], "--max-new-tokens", 30)[0]["text"]
    done = common.osler("generate", "--model", chat_model[0], flag, value, "--max-new-tokens", 30)
    assert done.stdout == expected + "\n"
    assert "tokens/s" in done.stderr


# ---- what cannot be done

@pytest.mark.parametrize("line,words", [
    ({"input_ids": []}, "no tokens"),
    ({"input_ids": [1, 131]}, "id 131 at position 1"),
    ({"input_ids": [-1]}, "integers from 0"),
    ({"input_ids": [1] * 512}, "512 positions"),
    ({"input_ids": [1], "prompt": "x"}, "one of"),
    ({}, "one of"),
    ({"input_idz": [1]}, "unknown key \"input_idz\""),
    ({"prompt": 3}, "must be a string"),
    ({"messages": [{"role": "user"}]}, "message 1"),
])
def test_bad_lines(tmp_path, line, words):
    save(tmp_path / "m")
    (tmp_path / "out.jsonl").write_text("earlier\n")
    message = generate(tmp_path, tmp_path / "m", [{"input_ids": [1, 2]}, line], expect=3)
    assert "in.jsonl:2" in message and words in message
    assert (tmp_path / "out.jsonl").read_text() == "earlier\n"


@pytest.mark.parametrize("flags,words", [
    (["--temperature", -1], "temperature"), (["--top-p", 0], "top-p"), (["--top-k", -1], "top-k"),
    (["--max-new-tokens", 0], "max-new-tokens"), (["--batch", 0], "batch"), (["--samples", 2], "temperature"),
    (["--stop", "x"], "--stop needs a tokenizer"), (["--stop", ""], "--stop"), (["--prompt", "x"], "give --input")])
def test_bad_flags(tmp_path, flags, words):
    save(tmp_path / "m")
    assert words in generate(tmp_path, tmp_path / "m", ask([[1, 2]]), *flags, expect=2)


def test_damaged_weights(tmp_path):
    model = common.save_model(tmp_path / "m")
    with torch.no_grad():
        model.model.norm.weight[3] = math.nan
    model.save_pretrained(tmp_path / "m")
    assert "not a number" in generate(tmp_path, tmp_path / "m", ask([[1, 2]]), expect=2)
