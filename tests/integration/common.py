"""Shared by the integration tests: tiny models and data, and the osler program driven as a user would.

Models come from transformers with every parameter re-drawn, so that no gradient is zero by initialisation.
"""
import copy
import json
import os
import pathlib
import re
import subprocess

import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parents[2]
OSLER = os.environ.get("OSLER_BIN", str(ROOT / "build/release/osler"))


def environment(**extra):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1",
           "OMPI_MCA_mpi_yield_when_idle": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1",
           "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    env.update({k: str(v) for k, v in extra.items()})
    return env


def osler(*arguments, ranks=1, expect=0, timeout=300, **env):
    """Runs the program; returns the finished process. `expect` is the exit code asked for (None: any)."""
    command = [OSLER, *map(str, arguments)]
    if ranks > 1:
        command = ["mpirun", "-n", str(ranks), "--bind-to", "none", *command]
    done = subprocess.run(command, env=environment(**env), text=True, capture_output=True, timeout=timeout)
    if expect is not None:
        assert done.returncode == expect, f"exit {done.returncode}, wanted {expect}:\n{done.stderr[-3000:]}"
    return done


def redraw(model, seed=0, scale=0.1):
    """Gives every parameter a random value: zeros and ones of the default initialisation hide bugs."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model


FAMILIES = ["gemma3_text", "llama", "qwen2", "qwen3"]
# What a tiny model of each family has besides sizes.
TINY = {
    "gemma3_text": dict(sliding_window=8, query_pre_attn_scalar=24,
                        layer_types=["sliding_attention", "full_attention", "sliding_attention"]),
    "llama": dict(rms_norm_eps=1e-5, pad_token_id=None, rope_parameters={
        "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}),
    "qwen2": dict(rope_parameters={"rope_type": "default", "rope_theta": 1e6}),
    "qwen3": dict(use_sliding_window=True, sliding_window=8, max_window_layers=2),
}


def tiny_config(model_type="gemma3_text", **changes):
    values = dict(vocab_size=131, hidden_size=48, intermediate_size=80, num_hidden_layers=3,
                  num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=512,
                  tie_word_embeddings=True)
    values.update(copy.deepcopy(TINY[model_type]))
    values.update(changes)
    return transformers.AutoConfig.for_model(model_type, **values)


def save_model(path, config=None, seed=0, dtype=torch.float32, **save):
    model = transformers.AutoModelForCausalLM.from_config(config or tiny_config())
    model = redraw(model, seed).to(dtype)
    model.save_pretrained(path, **save)
    return model


def load_model(path, dtype=torch.float32):
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="eager")
    model.model.embed_tokens.padding_idx = None  # id 0 is a token like any other
    return model.to(dtype).eval()


def random_documents(count, low, high, vocab=131, seed=0, ignore=0.3):
    """(input_ids, labels) pairs; a share of the labels is -100."""
    generator = torch.Generator().manual_seed(seed)
    documents = []
    for _ in range(count):
        n = int(torch.randint(low, high + 1, (1,), generator=generator))
        ids = torch.randint(0, vocab, (n,), generator=generator)
        labels = ids.clone()
        labels[torch.rand(n, generator=generator) < ignore] = -100
        labels[-1] = ids[-1]
        documents.append((ids.tolist(), labels.tolist()))
    return documents


def write_documents(path, documents):
    with open(path, "w") as out:
        for i, (ids, labels) in enumerate(documents):
            line = {"id": f"r{i}", "subject": f"p{i}", "input_ids": ids, "labels": labels}
            out.write(json.dumps(line) + "\n")


def build_tokens(directory, documents):
    """A shard directory of token records through `osler data build`; returns the train directory."""
    directory.mkdir(parents=True, exist_ok=True)
    write_documents(directory / "t.jsonl", documents)
    (directory / "build.yaml").write_text(f"""
deid: {{profile: safe_harbor}}
sources:
  - {{name: fixed, format: tokens_jsonl, path: {directory}/t.jsonl, trusted: true}}
output: {{path: {directory}/shards, shard_mb: 1}}
""")
    osler("data", "build", "--config", directory / "build.yaml")
    return directory / "shards" / "train"


def write_config(path, model, shards, output, **changes):
    """train.yaml as JSON (which is YAML); `changes` are dotted keys with underscores doubled: data__packing=False, or
    whole sections: mesh={"tensor": 2}."""
    config = {
        "model": {"path": str(model)},
        "data": {"train": [{"path": str(shards)}], "sequence_length": 64, "packing": True, "shuffle": True},
        "train": {"steps": 6, "global_batch": 4, "micro_batch": 2, "precision": "fp32", "seed": 7,
                  "output": str(output)},
        "optimizer": {"type": "adamw", "lr": 1e-3, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1,
                      "clip_norm": 1.0},
        "schedule": {"type": "cosine", "warmup_steps": 2, "min_lr_ratio": 0.1},
        "checkpoint": {"every_steps": 2, "keep": 3},
    }
    for key, value in changes.items():
        section, _, name = key.partition("__")
        config.setdefault(section, {}).update({name: value} if name else value)
    pathlib.Path(path).write_text(json.dumps(config, indent=1))
    return path


def metrics(run):
    return [json.loads(line) for line in (pathlib.Path(run) / "log/metrics.jsonl").read_text().splitlines()]


def read_checkpoint(run, step):
    """All tensors of a checkpoint, by group and name, as docs/checkpoint.md reads them."""
    [snippet] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/checkpoint.md").read_text(), re.S)
    reader = {}
    exec(snippet, reader)
    tensors, _ = reader["read_checkpoint"](pathlib.Path(run) / f"checkpoints/step-{step}")
    return {f"{group}/{name}": tensor for group, named in tensors.items() for name, tensor in named.items()}
