#!/usr/bin/env python3
"""PubMedQA (ori_pqal.json) as chat records: make_pubmedqa.py IN.json OUT.jsonl"""
import json
import pathlib
import sys


def record(key, item):
    question = "\n\n".join([*item["CONTEXTS"], f"Question: {item['QUESTION']}"])
    answer = f"{item['LONG_ANSWER']}\n\nDecision: {item['final_decision']}"
    return {"id": key, "subject": key, "messages": [{"role": "user", "content": question},
                                                    {"role": "assistant", "content": answer}]}


items = json.loads(pathlib.Path(sys.argv[1]).read_text())
pathlib.Path(sys.argv[2]).write_text("".join(json.dumps(record(k, v)) + "\n" for k, v in items.items()))
