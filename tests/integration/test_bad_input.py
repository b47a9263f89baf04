"""What users get wrong, one by one: the exit code, a message that says what, where and what to do, earlier output intact."""
import json
import shutil
import struct

import pytest

import common


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("bad")
    common.save_model(tmp / "model")
    shards = common.build_tokens(tmp / "data", common.random_documents(20, 3, 40, seed=1))
    return tmp, shards


def train(tmp_path, model, shards, expect, *flags, ranks=1, **changes):
    config = common.write_config(tmp_path / "train.yaml", model, shards, tmp_path / "run", **changes)
    return common.osler("train", "--config", config, *flags, expect=expect, ranks=ranks).stderr


@pytest.mark.parametrize("flag,words", [
    ("optimizer.lrr=1", ["lrr", "lr"]),
    ("train.steps=ten", ["train.steps"]),
    ("train.steps=0", ["steps"]),
    ("train.global_batch=0", ["global_batch"]),
    ("train.micro_batch=64", ["micro_batch"]),
    ("mesh.tensor=2", ["tensor: 2", "multiple of 2 ranks", "start 2"]),
    ("mesh.data=3", ["mpirun -n 3"]),
    ("train.precision=fp8", ["precision", "bf16"]),
    ("optimizer.lr=-1", ["lr"]),
])
def test_settings(base, tmp_path, flag, words):
    message = train(tmp_path, base[0] / "model", base[1], 2, "--set", flag)
    assert all(word in message for word in words), message


def test_misspelt_key_names_file_line_and_neighbour(base, tmp_path):
    (tmp_path / "c.yaml").write_text(f"model: {{path: {base[0]}/model}}\n"
                                     f"data: {{train: [{{path: {base[1]}}}]}}\n"
                                     f"train: {{steps: 2, output: {tmp_path}/run}}\n"
                                     "optimizer:\n  learning_rat: 1\n  weight_decy: 0.1\n")
    message = common.osler("train", "--config", tmp_path / "c.yaml", expect=2).stderr
    assert "c.yaml:5" in message or "c.yaml:6" in message


def break_header(path, edit):
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    edit(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length:])


def overlap(header):
    names = [name for name in header if name != "__metadata__"]
    header[names[1]]["data_offsets"] = header[names[0]]["data_offsets"]


def overflow(header):
    name = next(name for name in header if name != "__metadata__")
    header[name]["shape"] = [2**40, 2**40]


@pytest.mark.parametrize("edit", [overlap, overflow])
def test_hostile_safetensors_header(base, tmp_path, edit):
    shutil.copytree(base[0] / "model", tmp_path / "model")
    break_header(tmp_path / "model/model.safetensors", edit)
    assert "model.safetensors" in train(tmp_path, tmp_path / "model", base[1], 2)


def test_missing_truncated_and_oversized_weights(base, tmp_path):
    model = shutil.copytree(base[0] / "model", tmp_path / "model")
    weights = tmp_path / "model/model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-100])
    assert "model.safetensors" in train(tmp_path, model, base[1], 2)
    weights.write_bytes(struct.pack("<Q", 200_000_000) + data[8:])
    assert "model.safetensors" in train(tmp_path, model, base[1], 2)
    weights.unlink()
    assert "safetensors" in train(tmp_path, model, base[1], 2)


def test_unknown_architecture_and_missing_model(base, tmp_path):
    model = shutil.copytree(base[0] / "model", tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    config["architectures"], config["model_type"] = ["MambaForCausalLM"], "mamba"
    (model / "config.json").write_text(json.dumps(config))
    message = train(tmp_path, model, base[1], 2)
    assert "mamba" in message.lower() and "gemma3" in message.lower()
    assert "config.json" in train(tmp_path, tmp_path / "nowhere", base[1], 2)


def test_shape_disagrees_with_config(base, tmp_path):
    model = shutil.copytree(base[0] / "model", tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    config["intermediate_size"] = 96
    (model / "config.json").write_text(json.dumps(config))
    assert "mlp" in train(tmp_path, model, base[1], 2)


def test_token_outside_the_vocabulary(base, tmp_path):
    shards = common.build_tokens(tmp_path / "data", [([1, 2, 500], [1, 2, 500])])
    message = train(tmp_path, base[0] / "model", shards, 3)
    assert "vocabulary" in message and "131" in message


def build(tmp_path, lines, expect, extra=""):
    (tmp_path / "t.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "build.yaml").write_text(
        f"sources:\n  - {{name: t, format: tokens_jsonl, path: {tmp_path}/t.jsonl, trusted: true{extra}}}\n"
        f"output: {{path: {tmp_path}/shards}}\n")
    return common.osler("data", "build", "--config", tmp_path / "build.yaml", expect=expect).stderr


GOOD = '{"id":"a","subject":"p","input_ids":[1,2,3],"labels":[1,2,3]}'


@pytest.mark.parametrize("bad", ['{"id":"secretword"', '[1]', '{"id":"b","subject":"p"}',
                                 '{"id":"b","subject":"p","input_ids":[1,2],"labels":[1]}',
                                 '{"id":"b","subject":"p","input_ids":[1,-7],"labels":[1,2]}',
                                 '{"id":"b","subject":"p","input_ids":[1,2],"labels":[-100,-100]}'])
def test_bad_line_stops_or_is_skipped(tmp_path, bad):
    message = build(tmp_path, [GOOD], 0)
    before = sorted(p.read_bytes() for p in (tmp_path / "shards/train").iterdir() if p.is_file())
    message = build(tmp_path, [GOOD, bad], 3)
    assert "t.jsonl:2" in message and "secretword" not in message
    assert before == sorted(p.read_bytes() for p in (tmp_path / "shards/train").iterdir() if p.is_file())
    build(tmp_path, [GOOD, bad], 0, ", on_error: skip, no_target: skip")
    report = next(p for p in (tmp_path / "shards/train").iterdir() if "report" in p.name)
    assert "1" in report.read_text()


@pytest.mark.parametrize("part", ["shard", "index", "certificate", "manifest", "report"])
def test_damaged_shard_directory(base, tmp_path, part):
    shards = shutil.copytree(base[1], tmp_path / "shards")
    victim = next(p for p in sorted(shards.iterdir()) if part in p.name)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 4
    victim.write_bytes(data)
    assert victim.name in common.osler("data", "verify", shards, expect=3).stderr
    if part != "shard":
        assert victim.name in train(tmp_path, base[0] / "model", shards, 3)
    victim.unlink()
    assert victim.name in train(tmp_path, base[0] / "model", shards, 3)


def test_certificate_of_another_build(base, tmp_path):
    other = common.build_tokens(tmp_path / "other", common.random_documents(9, 3, 20, seed=2))
    shards = shutil.copytree(base[1], tmp_path / "shards")
    name = next(p.name for p in shards.iterdir() if "certificate" in p.name)
    shutil.copy(other / name, shards / name)
    assert name in train(tmp_path, base[0] / "model", shards, 3)


@pytest.mark.parametrize("policy", ["truncate", "split", "drop"])
def test_long_records_by_policy(base, tmp_path, policy):
    shards = common.build_tokens(tmp_path / "data", common.random_documents(6, 20, 40, seed=4))
    message = train(tmp_path, base[0] / "model", shards, 0 if policy != "drop" else None,
                    data__sequence_length=16, data__long_records=policy, train__steps=1)
    assert {"truncate": "6 truncated", "split": "6 split", "drop": "no"}[policy] in message


def test_a_cut_before_every_target(base, tmp_path):
    """Two records teach behind position 8 only: with another one that is a warning, alone there is nothing to learn."""
    late = [([1 + i] * 20, [-100] * 12 + [1 + i] * 8) for i in range(2)]
    early = ([9] * 20, [-100] + [9] * 19)
    some = common.build_tokens(tmp_path / "some", [*late, early])
    message = train(tmp_path, base[0] / "model", some, 0, "--set", "data.sequence_length=8", "--set", "train.steps=1")
    assert "2 records are longer than data.sequence_length 8" in message
    none = common.build_tokens(tmp_path / "none", late)
    message = train(tmp_path, base[0] / "model", none, 3, "--set", "data.sequence_length=8", "--set",
                    f"train.output={tmp_path}/other")
    assert "nothing to learn" in message and "data.long_records" in message


def test_nan_loss_names_step_and_packs(base, tmp_path):
    message = train(tmp_path, base[0] / "model", base[1], 3, "--set", "optimizer.lr=1e30", train__steps=6,
                    optimizer__clip_norm=0)
    assert "step" in message and "packs [" in message


def test_output_directory_of_another_run(base, tmp_path):
    train(tmp_path, base[0] / "model", base[1], 0, train__steps=2)
    before = (tmp_path / "run/log/metrics.jsonl").read_bytes()
    message = train(tmp_path, base[0] / "model", base[1], 5, train__steps=2, train__seed=8)
    assert "another run" in message and "seed" in message
    for key, value in [("data__target", "all"), ("data__template", "chatml"), ("train__freeze", ["model.norm.weight"])]:
        message = train(tmp_path, base[0] / "model", base[1], 5, **{"train__steps": 2, key: value})
        assert "another run" in message and key.replace("__", ".") in message
    assert (tmp_path / "run/log/metrics.jsonl").read_bytes() == before


def test_a_bad_rank_ends_all_ranks(base, tmp_path):
    shards = common.build_tokens(tmp_path / "data", [([1, 2, 3], [1, 2, 3]), ([1, 2, 500], [1, 2, 500])] * 4)
    done = train(tmp_path, base[0] / "model", shards, 3, ranks=2)
    assert "vocabulary" in done
