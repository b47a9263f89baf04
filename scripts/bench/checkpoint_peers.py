#!/usr/bin/env python3
"""A peer of scripts/bench/checkpoint.py, in a process of its own: saves the tensors of one of Osler's checkpoints.

    checkpoint_peers.py SIDE --state STEP_DIR --steps N --every N --tokens N --threads N
"""
import argparse
import json
import os
import pathlib
import resource
import shutil
import sys
import time

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.staging import BlockingAsyncStager

from checkpoint_machine import POLL_S


def load_state(checkpoint):
    state = {}
    for file in sorted(pathlib.Path(checkpoint).glob("*.safetensors")):
        group = file.name.split(".")[0]
        for key, value in load_file(file).items():
            state[f"{group}/{key}"] = value.clone()  # not a view of a mapped file
    return state


class Loop:
    """Steps of training on the state itself: products of the weight matrices for as many tokens, then fused AdamW."""

    def __init__(self, state, tokens):
        self.tokens = tokens
        weights, moments = ({key.removeprefix(group): value for key, value in state.items() if key.startswith(group)}
                            for group in ("weights/", "optimizer/"))
        self.parameters = [torch.nn.Parameter(weight) for weight in weights.values()]
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-5, weight_decay=0.1, fused=True)
        for parameter, name in zip(self.parameters, weights):
            self.optimizer.state[parameter] = {"step": torch.tensor(1.0), "exp_avg": moments[f"{name}.exp_avg"],
                                               "exp_avg_sq": moments[f"{name}.exp_avg_sq"]}
        self.inputs = {}
        for parameter in self.parameters:
            if parameter.dim() == 2:
                for width in parameter.shape:
                    self.inputs.setdefault(width, torch.randn(self.tokens, width) * 1e-2)

    def step(self):
        with torch.no_grad():
            for weight in self.parameters:
                if weight.dim() == 2:
                    rows, columns = weight.shape
                    self.inputs[columns] @ weight.T
                    self.inputs[rows] @ weight
                    torch.mm(self.inputs[rows].T, self.inputs[columns], out=weight.grad)
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()


def run_dcp(state, args):
    stager = None
    if args.side == "dcp-cached":
        stager = BlockingAsyncStager(cache_staged_state_dict=True)
        # Left to itself it would pin this memory, which needs CUDA.
        stager.state_dict_cache = {key: torch.empty_like(value) for key, value in state.items()}
    loop, times, saves, future = Loop(state, args.tokens), [], [], None

    def ended(_):  # called by the saving thread
        saves[-1] |= {"durable": time.monotonic(), "gone": time.monotonic(), "cpu_s": time.thread_time()}
        with open("/proc/thread-self/schedstat") as file:
            saves[-1]["core_wait_s"] = int(file.read().split()[1]) / 1e9

    for step in range(1, args.steps + 1):
        begin = time.monotonic()
        loop.step()
        times.append((begin, time.monotonic()))
        if future is not None and future.done():
            future.result()
            for old in saves[:-1]:  # as Osler does with keep: 1
                shutil.rmtree(old["path"], ignore_errors=True)
        if step % args.every == 0 and step < args.steps:
            begin = time.monotonic()
            if future is not None:
                future.result()
            saves.append({"path": f"peer/step-{step}", "step": step, "begin": begin})
            future = dcp.async_save(state, checkpoint_id=saves[-1]["path"], async_stager=stager)
            saves[-1]["blocked_ms"] = (time.monotonic() - begin) * 1e3
            future.add_done_callback(ended)
    future.result()
    while "core_wait_s" not in saves[-1]:
        time.sleep(POLL_S)
    return times, saves


def run_safetensors(state):
    saves = []
    for number in range(1, 4):
        begin, path = time.monotonic(), f"peer/{number}.safetensors"
        cpu = time.process_time()
        save_file(state, path)
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        end = time.monotonic()
        saves.append({"step": number, "begin": begin, "durable": end, "gone": end, "blocked_ms": (end - begin) * 1e3,
                      "cpu_s": time.process_time() - cpu, "core_wait_s": 0})
        os.unlink(path)
    return [], saves


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=["dcp", "dcp-cached", "safetensors"])
    parser.add_argument("--state", required=True)
    for name in ("--steps", "--every", "--tokens", "--threads"):
        parser.add_argument(name, type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    state = load_state(args.state)
    steps, saves = run_safetensors(state) if args.side == "safetensors" else run_dcp(state, args)
    for save in saves:
        save["seconds"] = save["durable"] - save["begin"]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    json.dump({"steps": steps, "saves": saves, "memory_mib": memory}, sys.stdout)


if __name__ == "__main__":
    main()
