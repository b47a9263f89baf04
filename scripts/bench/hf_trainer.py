#!/usr/bin/env python3
"""The peer of scripts/bench_cpu.sh: transformers' Trainer on chat records, loss on assistant turns.

    hf_trainer.py --model DIR --data clean.jsonl --mode padded|grouped|best --steps N --batch B --sequence-length L
                  --precision fp32|bf16 --output DIR

Modes: padded   every record padded to L, as many scripts do; everything else as Trainer has it by default
       grouped  records of like length together, padded to the longest of the batch
       best     grouped, SDPA attention, fused AdamW, batch widened so that a step holds as many useful tokens as
                B packed sequences of L; the caller sets malloc's environment
Writes OUTPUT/log/metrics.jsonl, one line a step: {"step", "tokens" (those not padding), "target_tokens"}.
"""
import argparse
import json
import os
import pathlib

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments

IGNORE = -100


class Records(torch.utils.data.Dataset):
    """Token ids and labels; the labels of everything but assistant turns are ignored."""

    def __init__(self, path, tokenizer, length):
        self.items = []
        for line in pathlib.Path(path).read_text().rstrip("\n").split("\n"):
            messages = json.loads(line)["messages"]
            prompt = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
            answer = messages[-1]["content"].strip() + "<end_of_turn>"
            head = tokenizer(prompt, add_special_tokens=False).input_ids
            tail = tokenizer(answer, add_special_tokens=False).input_ids
            ids = (head + tail)[:length]
            labels = ([IGNORE] * len(head) + tail)[:length]
            self.items.append({"input_ids": ids, "labels": labels, "length": len(ids)})

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]

    def mean_length(self):
        return sum(item["length"] for item in self.items) / len(self.items)


def collator(pad_to):
    def collate(items):
        width = pad_to or max(item["length"] for item in items)
        batch = {"input_ids": torch.zeros(len(items), width, dtype=torch.long),
                 "attention_mask": torch.zeros(len(items), width, dtype=torch.long),
                 "labels": torch.full((len(items), width), IGNORE, dtype=torch.long)}
        for row, item in enumerate(items):
            n = item["length"]
            batch["input_ids"][row, :n] = torch.tensor(item["input_ids"])
            batch["attention_mask"][row, :n] = 1
            batch["labels"][row, :n] = torch.tensor(item["labels"])
        return batch
    return collate


class CountingTrainer(Trainer):
    useful = targets = 0

    def training_step(self, model, inputs, *args, **kwargs):
        self.useful += int(inputs["attention_mask"].sum())
        self.targets += int((inputs["labels"] != IGNORE).sum())
        return super().training_step(model, inputs, *args, **kwargs)


class StepLog(TrainerCallback):
    def __init__(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file, self.trainer = path.open("w"), None

    def on_step_end(self, args, state, control, **kwargs):
        line = {"step": state.global_step, "tokens": self.trainer.useful, "target_tokens": self.trainer.targets}
        self.trainer.useful = self.trainer.targets = 0
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--mode", choices=["padded", "grouped", "best"], required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--sequence-length", type=int, required=True)
    parser.add_argument("--precision", choices=["fp32", "bf16"], required=True)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    return parser.parse_args()


def main():
    args = arguments()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    data = Records(args.data, tokenizer, args.sequence_length)
    best = args.mode == "best"
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32,
                                                 **({"attn_implementation": "sdpa"} if best else {}))
    batch = round(args.batch * args.sequence_length / data.mean_length()) if best else args.batch
    options = TrainingArguments(
        output_dir=str(args.output), max_steps=args.steps, per_device_train_batch_size=batch, use_cpu=True,
        bf16=args.precision == "bf16", learning_rate=1e-4, adam_beta2=0.95, weight_decay=0.1, max_grad_norm=1.0,
        warmup_steps=2, lr_scheduler_type="cosine", seed=1, save_strategy="no", report_to="none", disable_tqdm=True,
        logging_strategy="no", dataloader_num_workers=0, remove_unused_columns=False,
        optim="adamw_torch_fused" if best else "adamw_torch",
        train_sampling_strategy="random" if args.mode == "padded" else "group_by_length")
    log = StepLog(args.output / "log/metrics.jsonl")
    trainer = CountingTrainer(model=model, args=options, train_dataset=data, callbacks=[log],
                              data_collator=collator(args.sequence_length if args.mode == "padded" else None))
    log.trainer = trainer
    trainer.train()


if __name__ == "__main__":
    main()
