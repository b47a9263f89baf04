#!/usr/bin/env python3
"""Prints the synthetic note with the most kinds of identifiers before and after the gate.

    before_after.py clinic/visits.jsonl clinic/planted.jsonl clean.jsonl      (records stand in the same order)
"""
import json
import pathlib
import sys
import textwrap


def lines(path):
    return [json.loads(line) for line in pathlib.Path(path).read_text().rstrip("\n").split("\n")]


raw, planted, clean = map(lines, sys.argv[1:4])
kinds = {entry["id"]: len({kind for kind, _ in entry["planted"]}) for entry in planted}
richest = max(range(len(raw)), key=lambda i: kinds[raw[i]["id"]])
for label, record in (("before", raw[richest]), ("after", clean[richest])):
    note = record["messages"][0]["content"].split("\n")[0]
    print(textwrap.fill(note, width=96, initial_indent=f"  {label:<8}", subsequent_indent=" " * 10,
                        break_long_words=False, break_on_hyphens=False))
