"""Training compared with transformers and torch.optim.AdamW: losses, norms, trajectories, exported weights."""
import copy

import pytest
import torch
import torch.nn.functional as F
import transformers

import common


def reference_run(model, batches, config, precision=torch.float32):
    """The same steps in torch: loss is the sum over targets of the global batch over their count."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=config["lr"], betas=(0.9, 0.95), eps=1e-8,
                                  weight_decay=0.1)
    losses, norms = [], []
    for batch, lr in zip(batches, config["rates"]):
        count = sum(sum(l != -100 for l in labels[1:]) for _, labels in batch)
        optimizer.zero_grad()
        total = 0.0
        for ids, labels in batch:
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
            logits = logits.float() if precision == torch.bfloat16 else logits
            loss = F.cross_entropy(logits, torch.tensor(labels[1:]), ignore_index=-100, reduction="sum") / count
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        losses.append(total)
        norms.append(norm)
    return losses, norms


def run_both(tmp_path, precision, dtype, steps=10, config=None, **changes):
    model_dir, run = tmp_path / "model", tmp_path / "run"
    common.save_model(model_dir, config)
    documents = common.random_documents(steps * 4, 3, 40, seed=3)
    shards = common.build_tokens(tmp_path / "data", documents)
    settings = dict(data__packing=False, data__shuffle=False, train__steps=steps, train__precision=precision,
                    checkpoint__every_steps=0)
    settings.update(changes)
    common.osler("train", "--config", common.write_config(tmp_path / "train.yaml", model_dir, shards, run, **settings))
    lines = common.metrics(run)
    batches = [documents[4 * k:4 * k + 4] for k in range(steps)]
    reference = common.load_model(model_dir, dtype).train()
    expected = reference_run(reference, batches, {"lr": 1e-3, "rates": [line["lr"] for line in lines]}, dtype)
    return run, lines, reference, expected


@pytest.mark.parametrize("precision,dtype,tolerance", [("fp64", torch.float64, 1e-6),
                                                       ("fp32", torch.float32, 1e-5)])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", common.FAMILIES)
def test_trajectory_equals_torch(tmp_path, family, tied, precision, dtype, tolerance):
    config = common.tiny_config(family, tie_word_embeddings=tied)
    run, lines, reference, (losses, norms) = run_both(tmp_path, precision, dtype, config=config)
    assert [line["step"] for line in lines] == list(range(1, 11))
    for line, loss, norm in zip(lines, losses, norms):
        assert line["loss"] == pytest.approx(loss, rel=tolerance)
        assert line["grad_norm"] == pytest.approx(norm, rel=10 * tolerance)
    state = common.read_checkpoint(run, 10)
    start = common.load_model(tmp_path / "model", dtype).state_dict()
    for name, value in reference.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        ours = state[f"weights/{name}"].to(dtype)
        assert not torch.equal(ours, start[name]), name
        assert torch.allclose(ours, value, rtol=100 * tolerance, atol=10 * tolerance), name


@pytest.mark.parametrize("family", common.FAMILIES)
def test_export_loads_in_transformers(tmp_path, family):
    run, _, reference, _ = run_both(tmp_path, "fp32", torch.float32, config=common.tiny_config(family))
    out = tmp_path / "exported"
    common.osler("export", "--run", run, "--output", out)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    ids = torch.arange(1, 40).unsqueeze(0)
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, reference(ids).logits, atol=1e-3)
    state = common.read_checkpoint(run, 10)
    for name, value in model.state_dict().items():
        if name != "lm_head.weight":
            assert torch.equal(value, state[f"weights/{name}"]), name


@pytest.mark.parametrize("family", common.FAMILIES)
def test_bf16_error_within_twice_transformers(tmp_path, family):
    config = common.tiny_config(family)
    _, lines, _, (theirs, _) = run_both(tmp_path / "bf16", "bf16", torch.bfloat16, steps=4, config=config)
    _, exact, _, _ = run_both(tmp_path / "fp32", "fp32", torch.float32, steps=4, config=config)
    ours = sum(abs(a["loss"] - b["loss"]) for a, b in zip(lines, exact))
    peers = sum(abs(a - b["loss"]) for a, b in zip(theirs, exact))
    assert ours <= 2 * peers + 1e-4


LAYOUTS = {
    "micro 1": dict(train__micro_batch=1),
    "micro 4": dict(train__micro_batch=4),
    "recompute": dict(train__recompute="full"),
    "recompute selectively": dict(train__recompute="selective"),
    "2 ranks": dict(ranks=2),
    "3 ranks": dict(ranks=3),
}


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("packed")
    common.save_model(tmp / "model")
    shards = common.build_tokens(tmp / "data", common.random_documents(120, 3, 64, seed=5))
    config = common.write_config(tmp / "one.yaml", tmp / "model", shards, tmp / "one")
    common.osler("train", "--config", config)
    return tmp, shards, common.metrics(tmp / "one")


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_split_gives_the_same_losses(packed, name):
    tmp, shards, expected = packed
    changes = copy.deepcopy(LAYOUTS[name])
    ranks = changes.pop("ranks", 1)
    run = tmp / name.replace(" ", "_")
    config = common.write_config(tmp / f"{run.name}.yaml", tmp / "model", shards, run, **changes)
    common.osler("train", "--config", config, ranks=ranks)
    lines = common.metrics(run)
    assert [line["packs"] for line in lines] == [line["packs"] for line in expected]
    for line, one in zip(lines, expected):
        assert line["target_tokens"] == one["target_tokens"] and line["tokens"] == one["tokens"]
        assert line["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert line["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)


@pytest.mark.parametrize("ranks", [1, 2])
def test_validation_loss_equals_transformers(tmp_path, ranks):
    common.save_model(tmp_path / "model")
    held_out = common.random_documents(17, 3, 60, seed=21)
    validation = common.build_tokens(tmp_path / "validation", held_out)
    shards = common.build_tokens(tmp_path / "data", common.random_documents(20, 3, 40, seed=22))
    config = common.write_config(tmp_path / "train.yaml", tmp_path / "model", shards, tmp_path / "run", train__steps=4,
                                 data__validation=[{"path": str(validation)}])
    common.osler("train", "--config", config, ranks=ranks)
    lines = common.metrics(tmp_path / "run")
    assert [line["step"] for line in lines if "validation_loss" in line] == [2, 4]
    common.osler("export", "--run", tmp_path / "run", "--output", tmp_path / "out")
    model = common.load_model(tmp_path / "out")
    total = count = 0
    with torch.no_grad():
        for ids, labels in held_out:
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
            total += F.cross_entropy(logits, torch.tensor(labels[1:]), ignore_index=-100, reduction="sum").item()
            count += sum(label != -100 for label in labels[1:])
    assert lines[-1]["validation_loss"] == pytest.approx(total / count, rel=1e-5)
