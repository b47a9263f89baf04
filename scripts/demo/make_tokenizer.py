#!/usr/bin/env python3
"""Trains a tokenizer of the Gemma kind and writes it in Hugging Face layout.

    make_tokenizer.py --input FILE.jsonl… --output DIR [--vocab-size 1600]

Reads chat records ({"messages": [{"role", "content"}, …]}) or {"text"} lines and writes tokenizer.json (BPE over
whole stretches of text with "▁" for the space, byte fallback, <bos> in front), tokenizer_config.json and
chat_template.jinja (turns marked <start_of_turn>/<end_of_turn>, system text in front of the first user turn).
"""
import argparse
import json
import pathlib

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
NEWLINES = ["\n" * n for n in range(1, 32)]
BYTES = [f"<0x{b:02X}>" for b in range(256)]

CHAT_TEMPLATE = """\
{{ bos_token }}
{%- set turns = messages -%}
{%- set preface = '' -%}
{%- if messages[0]['role'] == 'system' -%}
  {%- set preface = messages[0]['content'] + '\\n\\n' -%}
  {%- set turns = messages[1:] -%}
{%- endif -%}
{%- for turn in turns -%}
  {%- if (turn['role'] == 'user') != (loop.index0 % 2 == 0) -%}
    {{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
  {%- endif -%}
  {{ '<start_of_turn>' + ('model' if turn['role'] == 'assistant' else turn['role']) + '\\n' -}}
  {{ (preface if loop.first else '') + (turn['content'] | trim) + '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{ '<start_of_turn>model\\n' }}
{%- endif -%}
"""


def texts(paths):
    for path in paths:
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                record = json.loads(line)
                if "text" in record:
                    yield record["text"]
                for message in record.get("messages", []):
                    yield "model" if message["role"] == "assistant" else message["role"]  # the turn's header
                    yield message["content"]


def split_for_training(corpus):
    """Words with their leading space: merges that cross a space would memorise whole sentences of a small corpus."""
    splitter = pre_tokenizers.Split(Regex(r"▁?[^▁\n]+|▁+"), "isolated")
    return pre_tokenizers.Sequence([splitter, pre_tokenizers.Split("\n", "removed")]), corpus


def train(corpus, vocab_size):
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer, corpus = split_for_training(corpus)
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=SPECIAL + NEWLINES + BYTES, show_progress=False,
                                  max_token_length=24)
    tokenizer.train_from_iterator(corpus, trainer)

    # The byte tokens are ordinary vocabulary in the finished file; specials and newline runs are added tokens.
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [
        {"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": i < len(SPECIAL)} for i, text in enumerate(SPECIAL + NEWLINES)]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    bos = SPECIAL.index("<bos>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[("<bos>", bos)])
    return tokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", required=True, nargs="+", type=pathlib.Path)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--vocab-size", type=int, default=1600)
    args = parser.parse_args()
    tokenizer = train(texts(args.input), args.vocab_size)
    args.output.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(args.output / "tokenizer.json"))
    config = {
        "tokenizer_class": "GemmaTokenizerFast", "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>",
        "unk_token": "<unk>", "add_bos_token": True, "add_eos_token": False, "clean_up_tokenization_spaces": False,
        "spaces_between_special_tokens": False, "model_max_length": 1_000_000_000_000_000_019_884_624_838_656,
        "added_tokens_decoder": {
            str(i): {"content": text, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
                     "special": i < len(SPECIAL)} for i, text in enumerate(SPECIAL + NEWLINES)},
    }
    (args.output / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (args.output / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    print(f"tokenizer: {tokenizer.get_vocab_size()} tokens in {args.output}")


if __name__ == "__main__":
    main()
