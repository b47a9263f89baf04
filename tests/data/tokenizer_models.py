"""Tiny tokenizers of every kind, trained on the spot by `tokenizers`: the outside oracle of the tokenizer tests."""

import argparse
import functools
import inspect
import json
import os
import random
import subprocess
import textwrap
import unicodedata

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from tokenizers.decoders import DecodeStream

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OSLER = os.environ.get("OSLER_BIN", os.path.join(ROOT, "build", "release", "osler"))
SAMPLES = os.path.join(ROOT, "..", "shared", "samples")

SPECIALS = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
NEWLINES = ["\n" * n for n in range(1, 32)]
SPACES = ["\u2581" * n for n in range(2, 32)]
TAGS = ["[multimodal]", "<unused0>", "<unused1>", "<unused10>", "<table>", "<caption>", "<thead>", "</table>", "<h1>",
        "</h1>", "<b>", "<strong>", "<br>"]
BYTES = [f"<0x{i:02X}>" for i in range(256)]

# Written for these tests in the shape of Gemma 3's: system text goes before the first user turn.
GEMMA3_TEMPLATE = textwrap.dedent("""\
    {{ bos_token }}
    {%- if messages[0]['role'] == 'system' -%}
        {%- if messages[0]['content'] is string -%}
            {%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}
        {%- else -%}
            {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}
        {%- endif -%}
        {%- set loop_messages = messages[1:] -%}
    {%- else -%}
        {%- set first_user_prefix = "" -%}
        {%- set loop_messages = messages -%}
    {%- endif -%}
    {%- for message in loop_messages -%}
        {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
            {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
        {%- endif -%}
        {%- if (message['role'] == 'assistant') -%}
            {%- set role = "model" -%}
        {%- else -%}
            {%- set role = message['role'] -%}
        {%- endif -%}
        {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
        {%- if message['content'] is string -%}
            {{ message['content'] | trim }}
        {%- elif message['content'] is iterable -%}
            {%- for item in message['content'] -%}
                {%- if item['type'] == 'image' -%}
                    {{ '<start_of_image>' }}
                {%- elif item['type'] == 'text' -%}
                    {{ item['text'] | trim }}
                {%- endif -%}
            {%- endfor -%}
        {%- else -%}
            {{ raise_exception("Invalid content type") }}
        {%- endif -%}
        {{ '<end_of_turn>\\n' }}
    {%- endfor -%}
    {%- if add_generation_prompt -%}
        {{'<start_of_turn>model\\n'}}
    {%- endif -%}
    """)

# The same turns as Gemma 1 and 2 write them: no system text.
GEMMA2_TEMPLATE = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}")

# Plain text between tags, line by line, content not trimmed.
PLAIN_TEMPLATE = textwrap.dedent("""\
    {# A comment. #}
    {% for m in messages if m.role != "system" %}
      {% if loop.first and messages[0].role == "system" %}
    <start_of_turn>user
    {{ messages[0].content.strip() ~ "\\n" }}{{ m.content }}<end_of_turn>
      {% else %}
    <start_of_turn>{{ "model" if m.role == "assistant" else m["role"] }}
    {{ m.content }}<end_of_turn>
      {% endif %}
    {% endfor %}
    {% if add_generation_prompt and messages[-1].role != "assistant" %}
    <start_of_turn>model
    {% endif %}
    """)


@functools.lru_cache(maxsize=None)
def corpus():
    """Lines of English (Python's own help texts) and a little of other scripts."""
    lines = []
    for module in (argparse, subprocess, random, textwrap, json):
        lines += inspect.getsource(module).splitlines()
    other = ["Die Patientin klagt über Übelkeit und Schwindel.", "Пациент жалуется на боль в груди.",
             "患者は咳と発熱を訴えている。", "病人 主诉 胸痛 三天", "O paciente não tem alergias à penicilina.",
             "BP 120/80 mmHg, HR 72 bpm, SpO₂ 98 %, T 37.2 °C — no distress"]
    return [line for line in lines if line.strip()] + other * 40


def added(token_id, content, special=False, **flags):
    entry = dict(id=token_id, content=content, single_word=False, lstrip=False, rstrip=False, normalized=False,
                 special=special)
    entry.update(flags)
    return entry


@functools.lru_cache(maxsize=None)
def trained(vocab_size, across_spaces=False):
    """(vocab, merges): words start with ▁, or, across_spaces, merges may swallow spaces anywhere."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    if not across_spaces:
        tokenizer.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=SPECIALS + NEWLINES + SPACES + TAGS + BYTES,
                                  show_progress=False, max_token_length=24)
    tokenizer.train_from_iterator(corpus(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], model["merges"]


def gemma(vocab_size=2000, across_spaces=False, **parts):
    """A tokenizer.json (as an object) laid out like Gemma 3's; `parts` replace parts of it, model_x those of the model."""
    vocab, merges = trained(vocab_size, across_spaces)
    document = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [added(vocab[t], t, t in SPECIALS) for t in SPECIALS + NEWLINES + SPACES + TAGS],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                     {"SpecialToken": {"id": "<bos>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [vocab["<bos>"]], "tokens": ["<bos>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": dict(vocab), "merges": list(merges)},
    }
    return with_parts(document, parts)


LLAMA3_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                  r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")
LLAMA3_SPECIALS = ["<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
                   "<|finetune_right_pad_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>",
                   "<|python_tag|>"]
QWEN_SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"]
QWEN_ADDED = ["<tool_call>", "</tool_call>", "<|fim_prefix|>", "<tool_response>", "</tool_response>", "<think>", "</think>"]


@functools.lru_cache(maxsize=None)
def trained_on_bytes(pattern, vocab_size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(corpus(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], model["merges"]


def byte_level(**how):
    return dict({"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}, **how)


def split_on(pattern):
    return {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
        byte_level(use_regex=False)]}


def on_bytes(pattern, vocab_size, tokens, **parts):
    vocab, merges = trained_on_bytes(pattern, vocab_size)
    document = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [added(len(vocab) + i, token, special) for i, (token, special) in enumerate(tokens)],
        "normalizer": None, "pre_tokenizer": split_on(pattern), "post_processor": byte_level(), "decoder": byte_level(),
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": dict(vocab), "merges": list(merges)},
    }
    return with_parts(document, parts)


def with_parts(document, parts):
    for key, value in parts.items():
        if key.startswith("model_"):
            document["model"][key[len("model_"):]] = value
        else:
            document[key] = value
    return document


def llama3(vocab_size=2000, **parts):
    """As Llama 3.x: digits by three, words of the vocabulary whatever the merges say (some merges are gone), BOS."""
    document = on_bytes(LLAMA3_PATTERN, vocab_size, [(token, True) for token in LLAMA3_SPECIALS])
    document["model"].update(ignore_merges=True, merges=[m for i, m in enumerate(document["model"]["merges"]) if i % 9])
    bos = document["added_tokens"][0]
    document["post_processor"] = {"type": "Sequence", "processors": [byte_level(), {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": bos["content"], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {bos["content"]: {"id": bos["content"], "ids": [bos["id"]], "tokens": [bos["content"]]}}}]}
    return with_parts(document, parts)


def qwen(vocab_size=2000, **parts):
    """As Qwen2.5 and Qwen3: NFC, digit by digit, added tokens that are not special, merges as strings."""
    document = on_bytes(QWEN_PATTERN, vocab_size, [(t, True) for t in QWEN_SPECIALS] + [(t, False) for t in QWEN_ADDED],
                        normalizer={"type": "NFC"}, post_processor=byte_level(trim_offsets=False, use_regex=False),
                        decoder=byte_level(trim_offsets=False, use_regex=False))
    document["model"].update(continuing_subword_prefix="", end_of_word_suffix="",
                             merges=[" ".join(pair) for pair in document["model"]["merges"]])
    return with_parts(document, parts)


def llama2(vocab_size=2000, **parts):
    """As Llama 2: a space in front, ▁ for spaces, byte fallback, nothing splits the text."""
    document = gemma(vocab_size, pre_tokenizer=None)
    document["added_tokens"] = [t for t in document["added_tokens"] if t["special"]]
    document["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]}
    document["decoder"]["decoders"].append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return with_parts(document, parts)


FLAVOURS = {"gemma": gemma, "llama3": llama3, "qwen": qwen, "llama2": llama2}


def write_model(directory, document, chat_template=GEMMA3_TEMPLATE, template_file=True, config=None):
    """A model directory without weights."""
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "tokenizer.json"), "w", encoding="utf-8") as out:
        json.dump(document, out, ensure_ascii=False)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<bos>", "eos_token": "<eos>",
                "unk_token": "<unk>", "pad_token": "<pad>", "clean_up_tokenization_spaces": False}
    if chat_template is not None and template_file:
        with open(os.path.join(directory, "chat_template.jinja"), "w", encoding="utf-8") as out:
            out.write(chat_template)
    elif chat_template is not None:
        settings["chat_template"] = chat_template
    settings.update(config or {})
    with open(os.path.join(directory, "tokenizer_config.json"), "w", encoding="utf-8") as out:
        json.dump(settings, out)
    return str(directory)


def run_tokenize(model, lines, directory, raw=False, options=()):
    """Runs `osler tokenize`; gives (exit code, stderr, output lines or None)."""
    source, target = os.path.join(directory, "in.jsonl"), os.path.join(directory, "out.jsonl")
    with open(source, "wb") as out:
        for line in lines:
            out.write(line if raw else json.dumps(line).encode() + b"\n")
    done = subprocess.run([OSLER, "tokenize", "--model", str(model), "--input", source, "--output", target, *options],
                          capture_output=True, text=True)
    if done.returncode != 0:
        return done.returncode, done.stderr, None
    with open(target, encoding="utf-8") as handle:
        return 0, done.stderr, [json.loads(line) for line in handle.read().split("\n")[:-1]]


ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyz     ", "ABCabc012 .,;:!?()[]<>/\\'\"", "    \t\t\n\n\r\n", "éèüñçøßāőẅ áö",
    "АБВГДабвгд ёЖ", "患者は咳と発熱病院中文 。、", "한국어 안녕하세요", "مرحبا العالم ", "שלום עולם",
    "हिन्दी नमस्ते", "e\u0301a\u0308o\u0302\u0327n\u0303 ", "\u1100\u1161\u11a8 \u1112\u1161\u11ab",
    "👩\u200d⚕️👨\u200d👩\u200d👧\u200d👦🏥💊🇩🇪🇫🇷😀🫀 ", "\x00\x01\x02\x07\x1b\x7f\x80\x9f\xa0\xad\u200b\u200e\ufeff",
    "\u2028\u2029\u3000\u00a0\u2003\u1680 a", "\u2581_ \u2581", "℃℉µ±×÷≤≥√∞‰½¼²³₂αβγδ ", "\ufffd\uffff\U0010ffff\U000e0001\ue000",
    "<0x0A>\n<bos>", "0123456789.-/: ", "\u0131\u0130iIſKkK\u212as'", "\U00010d40\U00011f51\u0663٣४Ⅷ²1 ",
    "\U0001e030\U0002ebf0\U00031350\ua7cb\U00016d40a \u0378\u0897",
]
CONTRACTIONS = ["'s", "'T", "'re", "'VE", "'m", "'Ll", "'d", "'\u017f", "’s", "'S", "'LL", "'l", "'v"]
RUNS = [" ", "\n", "\t", "\r\n", " \n", "\u00a0", "\u180e", "\u3000", "7", "a", "!", "\u0301", "\r"]


def random_text(rng, pieces=()):
    out = []
    for _ in range(rng.randint(1, 6)):
        kind = rng.random()
        if kind < 0.55:
            alphabet = rng.choice(ALPHABETS)
            out.append("".join(rng.choice(alphabet) for _ in range(rng.randint(1, 12))))
        elif kind < 0.7:
            out.append(rng.choice(corpus()))
        elif kind < 0.85 and pieces:
            out.append(rng.choice(pieces))
        elif kind < 0.95:
            out.append("".join(random_character(rng) for _ in range(rng.randint(1, 6))))
        elif kind < 0.98:
            out.append(rng.choice(["I", "you", "Ü", "患", "4", " "]) + rng.choice(CONTRACTIONS))
        else:
            out.append(rng.choice(RUNS) * rng.randint(1, 70))
    text = "".join(out)
    return unicodedata.normalize("NFD", text) if rng.random() < 0.1 else text


def random_character(rng):
    while True:
        code = rng.choice([rng.randrange(0x300), rng.randrange(0x10000), rng.randrange(0x110000)])
        if not 0xD800 <= code < 0xE000:
            return chr(code)


def compare(document, texts, directory):
    """Ids, decoded text and mask length of `osler tokenize` against `tokenizers` on the same tokenizer.json."""
    oracle = Tokenizer.from_str(json.dumps(document))
    model = write_model(directory, document)
    code, stderr, lines = run_tokenize(model, [{"text": text} for text in texts], directory)
    assert code == 0, stderr
    assert len(lines) == len(texts)
    expected = oracle.encode_batch(texts)
    decoded = oracle.decode_batch([one.ids for one in expected], skip_special_tokens=False)
    for text, line, want, back in zip(texts, lines, expected, decoded):
        assert line["input_ids"] == want.ids, ascii(text)
        assert line["text"] == back, ascii(text)
        assert len(line["mask"]) == len(want.ids)
    return lines


def byte_ids(document):
    """The tokens of the 256 bytes."""
    vocab = document["model"]["vocab"]
    if "<0x00>" in vocab:
        return [vocab[name] for name in BYTES]
    spelled = bytes_to_unicode()
    return [vocab[spelled[byte]] for byte in range(256)]


def bytes_to_unicode():
    visible = [*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x100)]
    others = [byte for byte in range(256) if byte not in visible]
    return {**{byte: chr(byte) for byte in visible}, **{byte: chr(0x100 + i) for i, byte in enumerate(others)}}


def stream(tokenizer, ids):
    """What DecodeStream gives for each id; None where it gives up."""
    decoder, pieces = DecodeStream(skip_special_tokens=False), []
    try:
        for token_id in ids:
            pieces.append(decoder.step(tokenizer, token_id) or "")
    except Exception:  # its own "Invalid prefix encountered"
        return None
    return pieces


def cases(document, texts, seed):
    """"begins" are in characters of the text; ids to decode come from the whole vocabulary, byte tokens often."""
    tokenizer = Tokenizer.from_str(json.dumps(document).replace('"trim_offsets": true', '"trim_offsets": false'))
    rng = random.Random(seed)
    added = [token["content"] for token in document["added_tokens"]]
    size = tokenizer.get_vocab_size()
    spelled = byte_ids(document)
    encoded, decoded = [], []
    for index in range(texts):
        text = random_text(rng, added)
        one = tokenizer.encode(text, add_special_tokens=index % 2 == 0)
        begins = [begin for begin, _ in one.offsets]
        if document["normalizer"] == {"type": "NFC"} and unicodedata.normalize("NFC", text) != text:
            begins = None  # all that a composition replaces begins at its first character here, not in `tokenizers`
        encoded.append({"text": text, "special": index % 2 == 0, "ids": one.ids, "begins": begins})
        mixed = [rng.choice(spelled) if rng.random() < 0.6 else rng.randrange(size + 3) for _ in range(rng.randint(0, 12))]
        for ids in (mixed, [spelled[byte] for byte in random_text(rng).encode()], one.ids):
            decoded.append({"ids": ids, "text": tokenizer.decode(ids, skip_special_tokens=False), "pieces": stream(tokenizer, ids)})
    return {"tokenizer": document, "encode": encoded, "decode": decoded}
