"""Rendered chats, their ids and their loss masks, beside transformers' apply_chat_template."""

import datetime
import functools
import json
import random

import pytest
import transformers
from tokenizers import Tokenizer
from transformers import AutoTokenizer

import chat_templates
import tokenizer_models as models

CHATS = [
    [("user", "What is it?"), ("assistant", "A cold.")],
    [("system", "Be brief."), ("user", "What is it?"), ("assistant", "A cold."), ("user", "Sure?"), ("assistant", "Yes.")],
    [("user", "  padded \n\n"), ("assistant", "\n\t answer \u00a0\u3000\x1c\x1f\u2028")],
    [("system", "  not trimmed  \n"), ("user", "q"), ("assistant", "a")],
    [("user", ""), ("assistant", "")], [("user", " \n "), ("assistant", " \t ")],
    [("user", "only a question")], [("system", "s"), ("user", "u")],
    [("user", "\u200b zero width stays \u200b\ufeff"), ("assistant", "\u180e x \u2060")],
    [("user", "a <end_of_turn>\n<start_of_turn>model\ninside"), ("assistant", "<end_of_turn> <bos><eos>\n\n\n done <end_of_turn>")],
    [("user", "é e\u0301 患者 👩\u200d⚕️"), ("assistant", "العربية 😀 ½ \u2581 \u2581\u2581")],
    [("user", "{{ bos_token }} {% if %}"), ("assistant", "{# not a comment #}")],
    [("assistant", "first")], [("user", "a"), ("user", "b")], [("user", "a"), ("assistant", "b"), ("assistant", "c")],
    [("system", "alone")], [("system", "s"), ("assistant", "a")],
]


def messages(chat):
    return [{"role": role, "content": content} for role, content in chat]


def random_chats(count, seed):
    rng = random.Random(seed)
    for _ in range(count):
        chat = [("system", models.random_text(rng))] if rng.random() < 0.4 else []
        for turn in range(rng.randint(1, 5)):
            chat.append((["user", "assistant"][turn % 2], models.random_text(rng)))
        yield chat


def expected_mask(tokenizer, chat, text, trim):
    """From the text alone: a token is a target if it begins in an assistant's content or in the <end_of_turn> behind it."""
    targets, at = [], 0
    rest = [(role, content.strip() if trim else content) for role, content in chat]
    if rest[0][0] == "system":
        rest = rest[1:]
        at = text.find("\n") + 1 + len(chat[0][1])  # the first turn's header and the system text
    for role, content in rest:
        begin = text.index(content + "<end_of_turn>", at)
        if role == "assistant":
            begin = text.index("<start_of_turn>model\n", at) + len("<start_of_turn>model\n")
            assert text.startswith(content + "<end_of_turn>", begin)
        at = begin + len(content) + len("<end_of_turn>")
        if role == "assistant":
            targets.append((begin, at))
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return [int(any(a <= begin < b for a, b in targets)) for begin, _ in encoded["offset_mapping"]]


def check(directory, template, chats, trim=True, **how):
    model = models.write_model(directory, models.gemma(), chat_template=template, **how)
    tokenizer = AutoTokenizer.from_pretrained(model)
    assert isinstance(tokenizer, transformers.PreTrainedTokenizerFast)
    accepted = refused = 0
    lines, wants = [], []
    for chat in chats:
        for prompt in (False, True):
            line = {"messages": messages(chat), "add_generation_prompt": prompt}
            try:
                text = tokenizer.apply_chat_template(messages(chat), tokenize=False, add_generation_prompt=prompt)
                ids = tokenizer.apply_chat_template(messages(chat), tokenize=True, add_generation_prompt=prompt,
                                                    return_dict=True)["input_ids"]
            except Exception:  # jinja2's own errors
                if prompt:
                    continue  # the same refusal again
                code, stderr, _ = models.run_tokenize(model, [line], directory)
                assert code == 3, ascii(chat)
                assert "in.jsonl:1: message " in stderr
                refused += 1
                continue
            accepted += 1
            lines.append(line)
            wants.append((chat, text, ids))
    code, stderr, out = models.run_tokenize(model, lines, directory)
    assert code == 0, stderr
    for (chat, text, ids), got in zip(wants, out):
        assert got["input_ids"] == ids, ascii((chat, text))
        assert got["text"] == tokenizer.decode(ids, skip_special_tokens=False), ascii(chat)
        assert got["mask"] == expected_mask(tokenizer, chat, text, trim), ascii((chat, text))
    return accepted, refused


@pytest.mark.parametrize("template_file", [True, False])
def test_gemma3(template_file, tmp_path):
    accepted, refused = check(tmp_path, models.GEMMA3_TEMPLATE, CHATS + list(random_chats(300, 1)),
                              template_file=template_file)
    assert accepted > 600 and refused >= 4


def test_gemma2_refuses_system_text(tmp_path):
    accepted, refused = check(tmp_path, models.GEMMA2_TEMPLATE, CHATS + [c for c in random_chats(150, 2) if c[0][0] != "system"])
    assert accepted > 150 and refused >= 6
    code, stderr, _ = models.run_tokenize(tmp_path, [{"messages": messages(CHATS[1])}], tmp_path)
    assert code == 3 and "message 1" in stderr and "System role not supported" in stderr


def test_white_space_control_and_plain_text(tmp_path):
    chats = [chat for chat in CHATS if chat[0][0] == "user"] + [[("user", "q\n"), ("assistant", " a "), ("user", "r")]]
    accepted, _ = check(tmp_path, models.PLAIN_TEMPLATE, chats, trim=False)
    assert accepted == 2 * len(chats)


SPECIAL = ["<|im_end|>", "<|im_start|>assistant\n", "<|eot_id|>", "<|start_header_id|>assistant<|end_header_id|>\n\n",
           "<|begin_of_text|>", "<think>\n", "\n</think>\n\n", "</think>", "<tool_response>x</tool_response>", "\n\n"]


def marked_chats(count, seed):
    """Chats whose contents hold the marks of the templates; roles in any order, a system text first or none."""
    rng = random.Random(seed)
    for _ in range(count):
        chat = [("system", models.random_text(rng, SPECIAL))] if rng.random() < 0.4 else []
        for turn in range(rng.randint(1, 6)):
            role = ["user", "assistant"][turn % 2] if rng.random() < 0.8 else rng.choice(["user", "assistant"])
            content = "".join(rng.choice(SPECIAL + ["word", " ", models.random_text(rng)]) for _ in range(rng.randint(0, 4)))
            chat.append((role, content))
        yield chat


def llama3_pieces(chat):
    for role, content in chat:
        yield f"<|start_header_id|>{role}<|end_header_id|>\n\n", False
        yield content.strip() + "<|eot_id|>", role == "assistant"


def llama31_pieces(chat, date="26 Jul 2024"):
    system = chat[0][1].strip() if chat[0][0] == "system" else ""
    yield ("<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
           f"Today Date: {date}\n\n{system}<|eot_id|>"), False
    yield from llama3_pieces([turn for turn in chat if turn[0] != "system"])


def chatml_pieces(chat):
    for role, content in chat:
        yield f"<|im_start|>{role}\n", False
        yield content + "<|im_end|>", role == "assistant"
        yield "\n", False


def qwen25_pieces(chat):
    default = ("system", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.")
    yield from chatml_pieces(chat if chat[0][0] == "system" else [default] + chat)


def qwen3_pieces(chat):
    """Thoughts of earlier answers go; the last answer has a thought, if only an empty one."""
    queries = [i for i, (role, content) in enumerate(chat) if role == "user" and not (
        content.startswith("<tool_response>") and content.endswith("</tool_response>"))]
    last_query = queries[-1] if queries else len(chat) - 1
    turns = []
    for i, (role, content) in enumerate(chat):
        if role == "assistant":
            thought = ""
            if "</think>" in content:
                thought = content.split("</think>")[0].rstrip("\n").split("<think>")[-1].lstrip("\n")
                content = content.split("</think>")[-1].lstrip("\n")
            if i > last_query and (i == len(chat) - 1 or thought):
                content = "<think>\n" + thought.strip("\n") + "\n</think>\n\n" + content.lstrip("\n")
        turns.append((role, content))
    yield from chatml_pieces(turns)


def qwen(**parts):
    return models.qwen(**parts)


def llama3(**parts):
    return models.llama3(**parts)


FAMILIES = {
    "llama3": (llama3, chat_templates.LLAMA3, lambda chat: [("<|begin_of_text|>", False), *llama3_pieces(chat)]),
    "llama3.1": (llama3, chat_templates.LLAMA31, llama31_pieces),
    "llama3.2": (llama3, chat_templates.LLAMA32, llama31_pieces),
    "chatml": (qwen, chat_templates.CHATML, chatml_pieces),
    "qwen2.5": (qwen, chat_templates.QWEN25, qwen25_pieces),
    "qwen3": (qwen, chat_templates.QWEN3, qwen3_pieces),
}


def begins(document, text):
    """The character at which each token of `text` begins: white space in front of a word counts."""
    document = json.loads(json.dumps(document).replace('"trim_offsets": true', '"trim_offsets": false'))
    return [begin for begin, _ in Tokenizer.from_str(json.dumps(document)).encode(text, add_special_tokens=False).offsets]


def mask_of(document, text, pieces, target):
    """The text is these pieces; a token is a target if it begins in one that is."""
    ranges, at = [], 0
    for piece, is_target in pieces:
        assert text.startswith(piece, at), ascii((text, at, piece))
        if is_target:
            ranges.append((at, at + len(piece)))
        at += len(piece)
    if target == "last_turn":
        ranges = ranges[-1:]
    if target == "all":
        ranges = [(0, len(text))]
    return [int(any(a <= begin < b for a, b in ranges)) for begin in begins(document, text)]


def special_config(document):
    names = [token["content"] for token in document["added_tokens"]]
    return {"bos_token": "<|begin_of_text|>" if "<|begin_of_text|>" in names else None,
            "eos_token": "<|eot_id|>" if "<|eot_id|>" in names else "<|im_end|>", "unk_token": None, "pad_token": None}


@pytest.mark.parametrize("target", ["assistant", "last_turn", "all"])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_families(family, target, tmp_path):
    make, template, pieces = FAMILIES[family]
    document = make(post_processor=None) if family == "chatml" else make()
    options, how = ["--target", target], {}
    if family == "llama3.2" and target == "all":  # there the date is today's
        today = datetime.date.today()
        options += ["--date", today.isoformat()]
        pieces = functools.partial(llama31_pieces, date=today.strftime("%d %b %Y"))
    elif family == "llama3.2":
        how["date_string"] = "26 Jul 2024"
    model = models.write_model(tmp_path, document, chat_template=template, config=special_config(document))
    tokenizer = AutoTokenizer.from_pretrained(model)
    chats = [c for c in CHATS if c[0][0] != "none"] + list(marked_chats(400 if target == "assistant" else 60, 21))
    lines = [{"messages": messages(chat), "add_generation_prompt": index % 2 == 0} for index, chat in enumerate(chats)]
    code, stderr, out = models.run_tokenize(model, lines, tmp_path, options=options)
    assert code == 0, stderr
    answers = 0
    for line, chat, got in zip(lines, chats, out):
        prompt = line["add_generation_prompt"]
        text = tokenizer.apply_chat_template(line["messages"], tokenize=False, add_generation_prompt=prompt, **how)
        ids = tokenizer.apply_chat_template(line["messages"], tokenize=True, return_dict=True, add_generation_prompt=prompt,
                                            **how)["input_ids"]
        assert got["input_ids"] == ids, ascii((chat, text))
        assert got["mask"] == mask_of(document, text, pieces(chat), target), ascii((chat, text))
        answers += any(role == "assistant" for role, _ in chat)
    assert answers > len(chats) / 2


@pytest.mark.parametrize("name, family, template", [
    ("gemma", models.gemma, models.GEMMA3_TEMPLATE), ("llama3", llama3, chat_templates.LLAMA3),
    ("chatml", qwen, chat_templates.CHATML)])
def test_built_in_templates(name, family, template, tmp_path):
    """For a directory without a template, or in place of its own."""
    document = family()
    config = {} if name == "gemma" else special_config(document)
    model = models.write_model(tmp_path, document, chat_template=None, config=config)
    tokenizer = AutoTokenizer.from_pretrained(model)
    lines, wants, refused = [], [], []
    for chat in CHATS + list(marked_chats(60, 22)) + list(random_chats(60, 23)):
        for prompt in (False, True):
            line = {"messages": messages(chat), "add_generation_prompt": prompt}
            try:
                wants.append(tokenizer.apply_chat_template(messages(chat), chat_template=template, tokenize=True,
                                                           return_dict=True, add_generation_prompt=prompt)["input_ids"])
                lines.append(line)
            except Exception:  # jinja2's own errors
                refused.append(line)
    code, stderr, out = models.run_tokenize(model, lines, tmp_path, options=["--template", name])
    assert code == 0, stderr
    for line, want, got in zip(lines, wants, out):
        assert got["input_ids"] == want, ascii(line)
    assert len(lines) > 150 and bool(refused) == (name == "gemma")
    for line in refused[:8]:
        code, stderr, _ = models.run_tokenize(model, [line], tmp_path, options=["--template", name])
        assert code == 3 and "in.jsonl:1: message " in stderr
    code, stderr, _ = models.run_tokenize(model, [{"messages": messages(CHATS[0])}], tmp_path, options=["--template", "other"])
    assert code == 2 and "gemma, llama3 or chatml" in stderr


def test_a_template_for_another_tokenizer(tmp_path):
    model = models.write_model(tmp_path, models.gemma(), chat_template=chat_templates.CHATML)
    code, stderr, _ = models.run_tokenize(model, [{"messages": messages(CHATS[0])}], tmp_path)
    assert code == 2 and "<|im_end|>" in stderr and "no token" in stderr


def test_two_begins_of_text_are_refused(tmp_path):
    for template in ("{{ bos_token }}" + chat_templates.LLAMA3, "<|begin_of_text|>" + chat_templates.LLAMA31):
        document = models.llama3()
        model = models.write_model(tmp_path, document, chat_template=template, config=special_config(document))
        code, stderr, _ = models.run_tokenize(model, [{"messages": messages(CHATS[0])}], tmp_path)
        assert code == 2 and "begins a text twice" in stderr


def test_a_date_must_be_named_where_nothing_else_is_left(tmp_path):
    document = models.llama3()
    template = chat_templates.LLAMA3.replace("{% set loop", "{{ strftime_now('%Y-%m-%d') }}{% set loop")
    model = models.write_model(tmp_path, document, chat_template=template, config=special_config(document))
    line = [{"messages": messages(CHATS[0])}]
    code, stderr, _ = models.run_tokenize(model, line, tmp_path)
    assert code == 2 and "line 1" in stderr and "template_date" in stderr
    code, stderr, out = models.run_tokenize(model, line, tmp_path, options=["--date", "2025-03-09"])
    assert code == 0 and out[0]["text"].startswith("2025-03-09<|begin_of_text|>"), stderr


def test_generation_blocks_say_what_is_learned(tmp_path):
    template = ("{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}{% generation %}"
                "{{ '>' + m.content + '<|im_end|>' }}{% endgeneration %}{% else %}{{ m.content + '<|im_end|>' }}{% endif %}"
                "{{ '\n' }}{% endfor %}")
    document = models.qwen()
    model = models.write_model(tmp_path, document, chat_template=template, config=special_config(document))
    tokenizer = AutoTokenizer.from_pretrained(model)
    code, stderr, out = models.run_tokenize(model, [{"messages": messages(CHATS[1])}], tmp_path)
    assert code == 0, stderr
    want = tokenizer.apply_chat_template(messages(CHATS[1]), return_dict=True, return_assistant_tokens_mask=True)
    assert out[0]["input_ids"] == want["input_ids"] and out[0]["mask"] == want["assistant_masks"]


TEMPLATE_VARIANTS = [
    "{{bos_token}}{%for m in messages%}<start_of_turn>{{m.role if m.role!='assistant' else 'model'}}\n{{m['content']|trim}}<end_of_turn>\n{%endfor%}",
    "  {%- for m in messages -%}  \n<start_of_turn>{{ {'a':1} if false else m.role }}{%- endfor -%}",
    "{% for m in messages %}\n  {%+ if m.role == 'assistant' %}\n<start_of_turn>model\n{{ m.content | trim -}}\n<end_of_turn>\n  {%- else +%}\n"
    "<start_of_turn>{{ m.role }}\n{{- '\\n' + m.content.strip() -}}<end_of_turn>{{ \"\\n\" }}{% endif %}\n\n{% endfor %}\n",
    "{% set who = 'x' %}{% for m in messages %}{% set who = 'model' if m['role'] == \"assistant\" else m['role'] %}"
    "{{ '<start_of_turn>' ~ who ~ '\\n' }}{{ (m.content | trim) + '<end_of_turn>' '\\n' }}{% endfor %}{{ who if who != 'x' }}",
    "{% for m in messages[-2:] %}{{ '<start_of_turn>' + ('model' if loop.index % 2 == 0 or m.role == 'assistant' else 'user') + '\\n' }}"
    "{{ m.content.lstrip().rstrip() }}<end_of_turn>\n{% if loop.last and loop.length > 1 and not loop.first %}{{ loop.index0 * 3 - -1 // 2 }}{% endif %}{% endfor %}",
    "{% for m in messages %}{% if m.role in ['user', 'assistant'] and 'content' in m and m.content is string and m.name is not defined %}"
    "{{ '<start_of_turn>' }}{{ ['model', 'user'][(m.role == 'user') | length if false else loop.index0 % 2 - 1] if m.role == 'assistant' else 'user' }}\n"
    "{{ m.content }}<end_of_turn>\n{% elif 1 %}{{ messages | length }}{% endif %}{% endfor %}",
]


@pytest.mark.parametrize("index", range(len(TEMPLATE_VARIANTS)))
def test_other_spellings_are_rendered_alike_or_refused(index, tmp_path):
    template = TEMPLATE_VARIANTS[index]
    model = models.write_model(tmp_path, models.gemma(), chat_template=template)
    chats = [c for c in CHATS if c[0][0] == "user" and len(c) == 2 and c[1][0] == "assistant"]
    code, stderr, out = models.run_tokenize(model, [{"messages": messages(c)} for c in chats], tmp_path)
    if code == 2:
        assert "unknown chat template" in stderr
        assert index in (1, 5)  # a dict, and the length of a bool
        return
    assert code == 0, stderr
    tokenizer = AutoTokenizer.from_pretrained(model)
    for chat, got in zip(chats, out):
        want = tokenizer.apply_chat_template(messages(chat), tokenize=True, return_dict=True)["input_ids"]
        assert got["input_ids"] == want, ascii((template, chat))


@pytest.mark.parametrize("change, named", [
    (("{{ bos_token }}", "{{ bos_token }}{% include 'x' %}"), "include"),
    (("{{ bos_token }}", "{{ bos_token }}{{ lipsum() }}"), "lipsum"),
    (("{{ bos_token }}", "{{ bos_token }}{{ cycler }}"), "cycler"),
    (("{{ bos_token }}", "{{ bos_token }}{{ messages.append(1) }}"), "append"),
    (("{{ bos_token }}", "{{ bos_token }}{{ messages[0].items }}"), "items"),
    (("| trim", "| title"), "title"), (("| trim", "| trim('x', 2)"), "trim"), (("is iterable", "is divisibleby(2)"), "divisibleby"),
    (("loop.index0", "loop.depth"), "depth"), (("{%- endfor -%}", ""), "line"), (("loop.first", "loop.first ** 2"), "line"),
    (("<end_of_turn>", "<|end|>"), "this build knows"), (("message['content'] | trim", "'x'"), "not written"),
    (("message['content'] | trim", "message['content'] + message['content']"), "written twice"),
    (("| trim }}", "| trim }}."), "not followed by"),
])
def test_unknown_templates_are_refused_by_name(change, named, tmp_path):
    template = models.GEMMA3_TEMPLATE.replace(*change)
    assert template != models.GEMMA3_TEMPLATE
    model = models.write_model(tmp_path, models.gemma(), chat_template=template)
    code, stderr, _ = models.run_tokenize(model, [{"messages": messages(CHATS[0])}], tmp_path)
    assert code == 2
    assert "unknown chat template" in stderr and named in stderr and "chat_template.jinja" in stderr, stderr


def test_bos_token_must_be_known_when_written(tmp_path):
    model = models.write_model(tmp_path, models.gemma(), config={"bos_token": None})
    code, stderr, _ = models.run_tokenize(model, [{"messages": messages(CHATS[0])}], tmp_path)
    assert code == 2 and "bos_token" in stderr and "tokenizer_config.json" in stderr


def test_bos_token_as_object_and_named_templates(tmp_path):
    named = [{"name": "rag", "template": "{{ documents }}"}, {"name": "default", "template": models.GEMMA3_TEMPLATE}]
    model = models.write_model(tmp_path, models.gemma(), chat_template=None,
                               config={"bos_token": {"content": "<bos>", "__type": "AddedToken"}, "chat_template": named})
    code, stderr, out = models.run_tokenize(model, [{"messages": messages(CHATS[1])}], tmp_path)
    assert code == 0, stderr
    assert out[0]["text"].startswith("<bos><start_of_turn>user\nBe brief.\n\nWhat is it?<end_of_turn>\n")


def test_bos_comes_from_the_template_alone(tmp_path):
    model = models.write_model(tmp_path, models.gemma(), chat_template=models.GEMMA3_TEMPLATE.replace("{{ bos_token }}\n", ""))
    code, stderr, out = models.run_tokenize(model, [{"messages": messages(CHATS[0])}, {"text": "x"}], tmp_path)
    assert code == 0, stderr
    assert out[0]["text"].startswith("<start_of_turn>user") and out[1]["text"] == "<bos>x"


def test_tokens_that_reach_into_the_header_follow_their_begin(tmp_path):
    """A tokenizer without newline tokens, whose merges join the header's newline with what follows."""
    document = models.gemma()
    vocab, newline = document["model"]["vocab"], "\n"
    document["added_tokens"] = [t for t in document["added_tokens"] if t["content"].strip("\n")]
    for left, right in ((newline, "x"), ("l", newline), ("l" + newline, "y")):
        vocab.setdefault(left + right, len(vocab))
        document["model"]["merges"].insert(0 if right == "x" else len(document["model"]["merges"]), [left, right])
    model = models.write_model(tmp_path, document)
    tokenizer = AutoTokenizer.from_pretrained(model)
    for answer in ("xyz", "yes", "zz"):
        chat = [("user", "q"), ("assistant", answer), ("user", "xx"), ("assistant", answer)]
        code, stderr, out = models.run_tokenize(model, [{"messages": messages(chat)}], tmp_path)
        assert code == 0, stderr
        text = tokenizer.apply_chat_template(messages(chat), tokenize=False)
        assert out[0]["mask"] == expected_mask(tokenizer, chat, text, True)
        assert out[0]["input_ids"] == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_mask_covers_answers_and_their_ends_only(tmp_path):
    model = models.write_model(tmp_path, models.gemma())
    vocab = models.gemma()["model"]["vocab"]
    code, stderr, out = models.run_tokenize(model, [{"messages": messages(CHATS[1])}], tmp_path)
    assert code == 0, stderr
    ids, mask = out[0]["input_ids"], out[0]["mask"]
    ends = [i for i, token in enumerate(ids) if token == vocab["<end_of_turn>"]]
    assert [mask[i] for i in ends] == [0, 1, 0, 1]
    assert [mask[i + 1] for i in ends] == [0, 0, 0, 0]  # the newline after each
    starts = [i for i, token in enumerate(ids) if token == vocab["<start_of_turn>"]]
    assert all(mask[i] == 0 for i in starts)
