#!/usr/bin/env python3
"""Accuracy of model directories on held-out visits, by transformers: the judge is not Osler.

    score.py --records clean.jsonl --answers answers.json --output scores.jsonl MODEL_DIR…

A visit counts as right when its true answer is the likeliest of all answer classes, by the sum of the
log-probabilities of the answer's tokens and the end of the turn.
"""
import argparse
import json
import pathlib

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

BATCH = 64


def encode(tokenizer, records, answers):
    """Prompts and answers as token ids; answers end with the end of the model's turn."""
    prompts = [tokenizer(tokenizer.apply_chat_template(r["messages"][:-1], tokenize=False, add_generation_prompt=True),
                         add_special_tokens=False).input_ids for r in records]
    return prompts, [tokenizer(a + "<end_of_turn>", add_special_tokens=False).input_ids for a in answers]


@torch.inference_mode()
def answer_scores(model, prompts, answers):
    """log p(answer | prompt) as [prompt][answer]; answers that share their first tokens share the work."""
    prefixes = sorted({tuple(a[:n]) for a in answers for n in range(len(a))}, key=len)
    # Only prefixes that no longer prefix continues need a forward pass: it holds all shorter ones.
    leaves = [p for p in prefixes if not any(q[:len(p)] == p and len(q) > len(p) for q in prefixes)]
    rows = sorted(((i, leaf) for i in range(len(prompts)) for leaf in leaves),
                  key=lambda row: len(prompts[row[0]]) + len(row[1]))
    scores = [[float("-inf")] * len(answers) for _ in prompts]
    for start in range(0, len(rows), BATCH):
        chunk = rows[start:start + BATCH]
        sequences = [prompts[i] + list(leaf) for i, leaf in chunk]
        length = max(map(len, sequences))
        ids = torch.zeros(len(chunk), length, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, sequence in enumerate(sequences):  # padded on the right: causal attention never looks there
            ids[row, :len(sequence)] = torch.tensor(sequence)
            mask[row, :len(sequence)] = 1
        logits = model(input_ids=ids, attention_mask=mask).logits
        for row, (i, leaf) in enumerate(chunk):
            begin = len(prompts[i]) - 1
            logp = logits[row, begin:begin + len(leaf) + 1].float().log_softmax(-1)
            for k, answer in enumerate(answers):
                if tuple(answer[:-1]) == leaf[:len(answer) - 1]:
                    scores[i][k] = sum(logp[t, token].item() for t, token in enumerate(answer))
    return scores


def score(directory, records, classes):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model, loading = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, output_loading_info=True)
    wrong = {key: sorted(map(str, names)) for key, names in loading.items() if names}
    if wrong:
        raise SystemExit(f"score: {directory} does not load cleanly: {wrong}")
    model.eval()
    prompts, answers = encode(tokenizer, records, classes)
    scores = answer_scores(model, prompts, answers)
    right = sum(classes[max(range(len(classes)), key=row.__getitem__)] == record["messages"][-1]["content"]
                for row, record in zip(scores, records))
    return {"model": directory, "accuracy": right / len(records), "right": right, "records": len(records),
            "classes": len(classes)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--records", required=True, type=pathlib.Path)
    parser.add_argument("--answers", required=True, type=pathlib.Path)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    args = parser.parse_args()
    logging.disable_progress_bar()
    records = [json.loads(line) for line in args.records.read_text().rstrip("\n").split("\n")]
    classes = json.loads(args.answers.read_text())
    results = [score(directory, records, classes) for directory in args.models]
    args.output.write_text("".join(json.dumps(result) + "\n" for result in results))


if __name__ == "__main__":
    main()
