"""Learning-rate groups and frozen parameters compared with torch.optim.AdamW's parameter groups on transformers' model."""
import fnmatch

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import common

STEPS = 8
GROUPS = [{"match": "*norm.weight", "weight_decay": 0},
          {"match": "model.layers.*.mlp.*", "lr_scale": 0.1},
          {"match": "model.embed_tokens.*", "lr_scale": 2, "weight_decay": 0.01}]
FREEZE = ["model.layers.0.*", "model.layers.?.self_attn.k_proj.weight", "*.layers.2.mlp.up_proj.weight"]


def frozen(name, patterns):
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def torch_groups(model, freeze):
    """torch.optim.AdamW's groups by hand: the first pattern that matches decides."""
    groups = [{"params": [], "scale": g.get("lr_scale", 1), "weight_decay": g.get("weight_decay", 0.1)} for g in GROUPS]
    groups.append({"params": [], "scale": 1, "weight_decay": 0.1})
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not frozen(name, freeze))
        if parameter.requires_grad:
            first = next((i for i, g in enumerate(GROUPS) if fnmatch.fnmatchcase(name, g["match"])), len(GROUPS))
            groups[first]["params"].append(parameter)
    assert all(group["params"] for group in groups)
    return groups


def reference_run(model, batches, rates, freeze):
    optimizer = torch.optim.AdamW(torch_groups(model, freeze), lr=0, betas=(0.9, 0.95), eps=1e-8)
    losses, norms = [], []
    for batch, rate in zip(batches, rates):
        count = sum(sum(l != -100 for l in labels[1:]) for _, labels in batch)
        optimizer.zero_grad()
        total = 0.0
        for ids, labels in batch:
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
            loss = F.cross_entropy(logits, torch.tensor(labels[1:]), ignore_index=-100, reduction="sum") / count
            loss.backward()
            total += loss.item()
        trained = [p for p in model.parameters() if p.requires_grad]
        norms.append(torch.nn.utils.clip_grad_norm_(trained, 1.0).item())
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        optimizer.step()
        losses.append(total)
    return losses, norms


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("groups")
    common.save_model(tmp / "model")
    documents = common.random_documents(STEPS * 4, 3, 40, seed=3)
    return tmp / "model", documents, common.build_tokens(tmp / "data", documents)


def train(tmp_path, world, expect=0, ranks=1, **changes):
    settings = dict(data__packing=False, data__shuffle=False, train__steps=STEPS, checkpoint__every_steps=0)
    settings.update(changes)
    config = common.write_config(tmp_path / "train.yaml", world[0], world[2], tmp_path / "run", **settings)
    return common.osler("train", "--config", config, expect=expect, ranks=ranks)


@pytest.mark.parametrize("precision,dtype,tolerance,ranks", [
    ("fp64", torch.float64, 1e-6, 1), ("fp32", torch.float32, 1e-5, 1), ("fp32", torch.float32, 1e-5, 2)])
def test_trajectory_equals_torch_with_groups_and_frozen_parameters(tmp_path, world, precision, dtype, tolerance, ranks):
    model_dir, documents, _ = world
    train(tmp_path, world, ranks=ranks, train__precision=precision, train__freeze=FREEZE,
          optimizer__lr=3e-3, optimizer__betas=[0.9, 0.95], optimizer__weight_decay=0.1, optimizer__groups=GROUPS)
    lines = common.metrics(tmp_path / "run")
    model = common.load_model(model_dir, dtype).train()
    batches = [documents[4 * k:4 * k + 4] for k in range(STEPS)]
    losses, norms = reference_run(model, batches, [line["lr"] for line in lines], FREEZE)
    for line, loss, norm in zip(lines, losses, norms, strict=True):
        assert line["loss"] == pytest.approx(loss, rel=tolerance)
        assert line["grad_norm"] == pytest.approx(norm, rel=10 * tolerance)
        assert line["group_lr"] == pytest.approx([line["lr"] * g.get("lr_scale", 1) for g in GROUPS], rel=1e-12)
    state = common.read_checkpoint(tmp_path / "run", STEPS)
    start = common.load_model(model_dir, dtype).state_dict()
    for name, value in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        ours = state[f"weights/{name}"].to(dtype)
        assert torch.allclose(ours, value, rtol=100 * tolerance, atol=10 * tolerance), name
        assert torch.equal(ours, start[name]) == frozen(name, FREEZE), name
        assert (f"optimizer/{name}.exp_avg" in state) != frozen(name, FREEZE), name


def test_train_only_is_the_complement_of_freeze(tmp_path, world):
    only = ["model.layers.1.*", "model.norm.weight"]
    train(tmp_path, world, train__train_only=only)
    state = common.read_checkpoint(tmp_path / "run", STEPS)
    trained = {name.removeprefix("optimizer/").removesuffix(".exp_avg") for name in state if name.endswith(".exp_avg")}
    names = {name.removeprefix("weights/") for name in state if name.startswith("weights/")}
    assert trained == {name for name in names if frozen(name, only)} and len(trained) == 14


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_export_keeps_the_bits_of_frozen_tensors(tmp_path, world, precision):
    train(tmp_path, world, train__precision=precision, train__freeze=["model.embed_tokens.*", "model.layers.1.*"])
    common.osler("export", "--run", tmp_path / "run", "--output", tmp_path / "out")
    base, out = (load_file(path / "model.safetensors") for path in (world[0], tmp_path / "out"))
    assert base.keys() == out.keys()
    for name, value in base.items():
        kept = name.startswith(("model.embed_tokens.", "model.layers.1."))
        assert torch.equal(value, out[name]) == kept, name


def test_nothing_below_the_lowest_trained_block_is_kept(tmp_path):
    """Peak memory: a deep model whose last block alone is trained keeps no activations of the others."""
    common.save_model(tmp_path / "model", common.tiny_config(
        num_hidden_layers=12, hidden_size=128, intermediate_size=512,
        layer_types=["full_attention"] * 12))
    shards = common.build_tokens(tmp_path / "data", common.random_documents(200, 64, 64, seed=2))
    peaks = {}
    for name, changes in {"all": {}, "last": {"train__train_only": ["model.layers.11.*"]}}.items():
        config = common.write_config(tmp_path / f"{name}.yaml", tmp_path / "model", shards, tmp_path / name,
                                     data__sequence_length=512, train__global_batch=16, train__micro_batch=16,
                                     train__steps=1, checkpoint__every_steps=0, **changes)
        common.osler("train", "--config", config)
        peaks[name] = common.metrics(tmp_path / name)[0]["memory_mib"]
    print(peaks)
    assert peaks["last"] < 0.6 * peaks["all"]


@pytest.mark.parametrize("setting,words", [
    ('train.freeze=["model.layer.*"]', ["train.freeze.0", "model.layers.0", "matches no parameter"]),
    ('train.train_only=["model.norm.weight","mlp.*"]', ["train.train_only.1", "mlp"]),
    ('train.freeze=["*"]', ["train.freeze", "nothing"]),
    ('train.freeze=[""]', ["train.freeze.0", "empty"]),
    ('optimizer.groups=[{match: "model.embed_token.*"}]', ["optimizer.groups.0.match", "model.embed_tokens.weight"]),
    ('optimizer.groups=[{lr_scale: 2}]', ["optimizer.groups.0.match", "missing"]),
    ('optimizer.groups=[{match: "*", lr_scale: 0}]', ["optimizer.groups.0.lr_scale", "train.freeze"]),
    ('optimizer.groups=[{match: "*", weight_decay: -1}]', ["optimizer.groups.0.weight_decay"]),
    ('optimizer.groups=[{match: "*", lr: 1}]', ["optimizer.groups.0.lr", "did you mean"]),
])
def test_bad_patterns(tmp_path, world, setting, words):
    config = common.write_config(tmp_path / "train.yaml", world[0], world[2], tmp_path / "run")
    message = common.osler("train", "--config", config, "--set", setting, expect=2).stderr
    assert all(word in message for word in words), message
    assert not (tmp_path / "run").exists()


def test_resume_with_other_groups_goes_on_and_with_other_frozen_parameters_refuses(tmp_path, world):
    changes = dict(train__steps=2, train__freeze=["model.embed_tokens.*"])
    train(tmp_path, world, **changes)
    before = (tmp_path / "run/log/metrics.jsonl").read_bytes()
    refused = train(tmp_path, world, expect=5, train__steps=4, train__freeze=["model.norm.weight"]).stderr
    assert "another run" in refused and "train.freeze" in refused and "model.norm.weight" in refused
    assert "train.freeze" in train(tmp_path, world, expect=5, train__steps=4).stderr
    assert (tmp_path / "run/log/metrics.jsonl").read_bytes() == before
    train(tmp_path, world, **{**changes, "train__steps": 4}, optimizer__groups=GROUPS[:2])
    lines = common.metrics(tmp_path / "run")
    assert [len(line.get("group_lr", [])) for line in lines] == [0, 0, 2, 2]
