"""Token ids and decoded text, beside Hugging Face `tokenizers` on the same tokenizer.json."""

import json
import os
import random
import subprocess

import pytest
from tokenizers import Tokenizer

import tokenizer_models as models

FLAGS = {
    "special": dict(special=True), "lstrip": dict(lstrip=True), "rstrip": dict(rstrip=True),
    "both": dict(lstrip=True, rstrip=True, special=True), "word": dict(single_word=True),
    "word strip": dict(single_word=True, lstrip=True, rstrip=True), "normalized": dict(normalized=True),
    "normal word": dict(normalized=True, single_word=True, rstrip=True),
}


def all_added(document):
    return [token["content"] for token in document["added_tokens"]]


def unicode_texts(count, seed, pieces=()):
    rng = random.Random(seed)
    return [models.random_text(rng, pieces) for _ in range(count)] + ["", " ", "  ", "\n", "a", "\u2581", " \n "]


@pytest.mark.parametrize("flavour, count", [("gemma", 25000), ("llama3", 35000), ("qwen", 35000), ("llama2", 10000)])
def test_random_unicode(flavour, count, tmp_path):
    document = models.FLAVOURS[flavour]()
    models.compare(document, unicode_texts(count, 1, all_added(document)), tmp_path)


@pytest.mark.parametrize("flavour", ["llama3", "qwen"])
def test_every_code_point(flavour, tmp_path):
    """Between letters, digits, spaces and marks: classes of the patterns and NFC are those of `tokenizers`."""
    points = [chr(code) for code in range(0x33500) if not 0xD800 <= code < 0xE000]
    points += [chr(code) for code in range(0xE0000, 0xE0200)] + ["\U000f0000", "\U00100000", "\U0010ffff"]
    form = "a{c}1{c} {c}" if flavour == "llama3" else "a{c}1{c}\u0323x\u0334{c}x\u0345{c}\u0301x{c}\u0334"
    blocks = [points[i:i + 512] for i in range(0, len(points), 512)]
    models.compare(models.FLAVOURS[flavour](), ["".join(form.replace("{c}", c) for c in block) for block in blocks], tmp_path)


def test_merges_across_spaces(tmp_path):
    document = models.gemma(3000, across_spaces=True)
    models.compare(document, unicode_texts(8000, 2, all_added(document)), tmp_path)


def test_added_tokens_next_to_each_other(tmp_path):
    document = models.gemma()
    tokens, rng = all_added(document), random.Random(3)
    texts = ["".join(tokens), "".join(reversed(tokens)), " ".join(tokens)]
    texts += ["".join(rng.choice(tokens) for _ in range(40)) for _ in range(300)]
    texts += [a[:-1] + b for a in tokens for b in tokens[:20]]
    models.compare(document, texts, tmp_path)


@pytest.mark.parametrize("normalizer", [
    None,
    {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
    {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
    {"type": "Sequence", "normalizers": [
        {"type": "NFC"}, {"type": "Replace", "pattern": {"String": "aa"}, "content": ""},
        {"type": "Replace", "pattern": {"String": "\n"}, "content": "<nl>"}]},
], ids=["none", "replace", "prepend", "nfc"])
def test_added_token_flags(normalizer, tmp_path):
    document = models.gemma(normalizer=normalizer)
    vocab, contents = document["model"]["vocab"], ["<x y>", "foo", "<r>", "é", "bar", "dö", "qu ux", "end"]
    free = len(vocab)
    for content, flags in zip(contents, FLAGS.values()):
        document["added_tokens"].append(models.added(vocab.get(content, free), content, **flags))
        free += content not in vocab
    pieces = contents + [" ", "  ", "\n", "a", "_", "1", "\u2003", "\u0301", "x", ".", "🙂", "<r> ", " foo"]
    rng = random.Random(4)
    texts = ["".join(rng.choice(pieces) for _ in range(rng.randint(1, 12))) for _ in range(3000)]
    models.compare(document, texts, tmp_path)


@pytest.mark.parametrize("options", [
    dict(model_byte_fallback=False, model_fuse_unk=False), dict(model_byte_fallback=False),
    dict(model_byte_fallback=False, model_unk_token=None), dict(model_ignore_merges=True),
    dict(pre_tokenizer=None, decoder=None, post_processor=None),
], ids=["unk", "fused unk", "no unk", "ignore merges", "bare"])
def test_model_options(options, tmp_path):
    models.compare(models.gemma(**options), unicode_texts(1500, 5), tmp_path)


def test_some_byte_tokens_missing(tmp_path):
    document = models.gemma()
    for byte in (0x80, 0x9F, 0xE2, 0xF0):
        gone = document["model"]["vocab"].pop(f"<0x{byte:02X}>")
        document["model"]["vocab"][f"<gone{byte}>"] = gone
    for fuse in (True, False):
        document["model"]["fuse_unk"] = fuse
        models.compare(document, unicode_texts(2000, 6), tmp_path)


@pytest.mark.parametrize("behavior", ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"])
@pytest.mark.parametrize("ignore_merges", [False, True])
def test_split(behavior, ignore_merges, tmp_path):
    split = {"type": "Split", "pattern": {"String": "\u2581"}, "behavior": behavior, "invert": False}
    other = dict(split, pattern={"String": "e,"}, behavior="Isolated")
    for pre in (split, {"type": "Sequence", "pretokenizers": [split, other]}):
        document = models.gemma(pre_tokenizer=pre, model_ignore_merges=ignore_merges)
        models.compare(document, unicode_texts(700, 7) + ["a  b   ", "  ", " a", "one, two,  three, "], tmp_path)


def test_merges_written_as_strings(tmp_path):
    document = models.gemma()
    document["model"]["merges"] = ["#version: 0.2"] + [" ".join(pair) for pair in document["model"]["merges"]]
    models.compare(document, unicode_texts(500, 8), tmp_path)


def test_post_processor_sequence_and_end_of_text(tmp_path):
    bos, eos = {"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"SpecialToken": {"id": "<eos>", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    document = models.gemma()
    ids = document["model"]["vocab"]
    special = {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in ("<bos>", "<eos>")}
    template = {"type": "TemplateProcessing", "single": [bos, text, eos], "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": special}
    document["post_processor"] = {"type": "Sequence", "processors": [template]}
    lines = models.compare(document, ["a b", ""], tmp_path)
    assert lines[0]["mask"][0] == 0 and set(lines[0]["mask"][1:]) == {1}
    assert lines[1]["mask"] == [0, 1]


def test_decoders(tmp_path):
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 2}
    replace = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
    for decoders in ([replace, {"type": "ByteFallback"}, {"type": "Fuse"}, strip], [strip, replace], [{"type": "ByteFallback"}],
                     [{"type": "Fuse"}, {"type": "Replace", "pattern": {"String": "\u2581\u2581"}, "content": "="}], []):
        models.compare(models.gemma(decoder={"type": "Sequence", "decoders": decoders}),
                unicode_texts(400, 9) + [" lead", "trail  "], tmp_path)
    models.compare(models.gemma(decoder=replace), unicode_texts(100, 10), tmp_path)


def test_a_long_note_without_spaces(tmp_path):
    rng = random.Random(11)
    words = [word for line in models.corpus() for word in line.split()]
    texts = ["".join(rng.choice(words) for _ in range(30000)), "ab" * 60000, "\n" * 50001 + " " * 50001]
    for across_spaces in (False, True):
        models.compare(models.gemma(2000, across_spaces), texts, tmp_path)


def test_decoding_and_begins_in_the_library(tmp_path):
    """Random ids and the places of tokens, which the program does not show: through the C++ test on fresh cases."""
    binary = os.path.join(os.path.dirname(models.OSLER), "bin", "data_tokenizer_test")
    if not os.path.exists(binary):
        pytest.skip("build the target data_tokenizer_test first")
    path = tmp_path / "cases.json"
    path.write_text(json.dumps({name: models.cases(make(), 1000, 12) for name, make in models.FLAVOURS.items()}))
    done = subprocess.run([binary, "--gtest_filter=*Golden*"], capture_output=True, text=True,
                          env=dict(os.environ, OSLER_TOKENIZER_CASES=str(path)))
    assert done.returncode == 0, done.stdout[-3000:]
    assert "2 tests" in done.stdout


def test_truncation_and_padding_are_left_alone(tmp_path):
    document = models.gemma()
    text = "one two three four five six seven"
    plain = Tokenizer.from_str(json.dumps(document)).encode(text).ids
    document["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    document["padding"] = {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                           "pad_type_id": 0, "pad_token": "<pad>"}
    model = models.write_model(tmp_path, document)
    code, stderr, lines = models.run_tokenize(model, [{"text": text}], tmp_path)
    assert code == 0, stderr
    assert lines[0]["input_ids"] == plain
