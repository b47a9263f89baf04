#!/usr/bin/env python3
"""transformers' generate as the bench's peer: prefill and decode rates of one batch, as a line of JSON on stdout.

    hf_generate.py --model DIR --precision fp32|bf16 --batch N --prompt-tokens N --new-tokens N [--rounds 2]

Greedy, SDPA, dynamic cache: what `model.generate` does by default. One round warms up; prefill is the time of a call
for one new token, decode that of a call for all minus that.
"""
import argparse
import json
import time

import torch
import transformers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--precision", choices=["fp32", "bf16"], required=True)
    for name in ("--batch", "--prompt-tokens", "--new-tokens"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[args.precision]
    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype, attn_implementation="sdpa").eval()
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, model.config.vocab_size, (args.batch, args.prompt_tokens), generator=generator)

    def timed(new):
        begin = time.perf_counter()
        with torch.inference_mode():
            model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new,
                           min_new_tokens=new, pad_token_id=0)
        return time.perf_counter() - begin

    timed(2)
    prefill, whole = [min(values) for values in zip(*((timed(1), timed(args.new_tokens)) for _ in range(args.rounds)))]
    print(json.dumps({"prefill": args.batch * args.prompt_tokens / prefill,
                      "decode": args.batch * (args.new_tokens - 1) / (whole - prefill)}))


if __name__ == "__main__":
    main()
