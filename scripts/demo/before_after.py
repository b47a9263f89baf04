#!/usr/bin/env python3
"""Prints one synthetic note before and after the gate: before_after.py raw.jsonl clean.jsonl"""
import json
import sys
import textwrap


def first_note(path):
    with open(path, encoding="utf-8") as lines:
        return json.loads(next(lines))["messages"][0]["content"].split("\n")[0]


for label, path in (("before", sys.argv[1]), ("after", sys.argv[2])):
    print(textwrap.fill(first_note(path), width=96, initial_indent=f"  {label:<8}", subsequent_indent=" " * 10,
                        break_long_words=False, break_on_hyphens=False))
