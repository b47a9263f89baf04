"""Validation, the best checkpoint and early stop, through the program: the losses are transformers', the decisions a
policy written here."""
import json
import signal

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import common

# Random documents cannot be learned: the held-out loss falls while the model unlearns its start, then rises.
OVERFIT = dict(train__steps=40, train__global_batch=4, optimizer__lr=1e-2, optimizer__weight_decay=0,
               schedule__type="constant", checkpoint__every_steps=3, checkpoint__keep=2, checkpoint__keep_best=True,
               validation__every_steps=2)
PATIENCE = 3


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("validation")
    common.save_model(tmp / "model")
    shards = common.build_tokens(tmp / "data", common.random_documents(12, 20, 60, seed=1))
    held_out = {name: common.random_documents(count, 3, 60, seed=seed)
                for name, count, seed in (("notes", 17, 21), ("letters", 5, 22))}
    paths = {name: common.build_tokens(tmp / name, documents) for name, documents in held_out.items()}
    both = [{"path": str(path), "name": name} for name, path in paths.items()]

    def config(run, sources=both, **changes):
        settings = {**OVERFIT, "data__validation": sources, **changes}
        return common.write_config(tmp / f"{run}.yaml", tmp / "model", shards, tmp / run, **settings)

    return tmp, config, held_out, paths


def losses(run):
    return {line["step"]: line["validation_loss"] for line in common.metrics(run) if "validation_loss" in line}


def policy(values, patience, min_delta=0.0):
    """(steps at which the loss was the lowest so far, the step at which patience ended or None)."""
    best = reference = float("inf")
    lowest, stale = [], 0
    for step, loss in values.items():
        stale = 0 if loss < reference - min_delta else stale + 1
        reference = loss if loss < reference - min_delta else reference
        if loss < best:
            best = loss
            lowest.append(step)
        if patience and stale == patience:
            return lowest, step
    return lowest, None


def sums(model, documents):
    total = count = 0
    with torch.no_grad():
        for ids, labels in documents:
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
            total += F.cross_entropy(logits, torch.tensor(labels[1:]), ignore_index=-100, reduction="sum").item()
            count += sum(label != -100 for label in labels[1:])
    return total, count


def test_each_source_and_the_total_equal_transformers(world):
    tmp, config, held_out, _ = world
    common.osler("train", "--config", config("sources", train__steps=5, checkpoint__every_steps=0))
    lines = common.metrics(tmp / "sources")
    assert [line["step"] for line in lines if "validation_loss" in line] == [2, 4, 5]
    common.osler("export", "--run", tmp / "sources", "--output", tmp / "exported")
    model = common.load_model(tmp / "exported")
    measured = {name: sums(model, documents) for name, documents in held_out.items()}
    last = lines[-1]
    assert last["validation_losses"].keys() == measured.keys()
    for name, (total, count) in measured.items():
        assert last["validation_losses"][name] == pytest.approx(total / count, rel=1e-5)
    total, count = (sum(values) for values in zip(*measured.values()))
    assert last["validation_loss"] == pytest.approx(total / count, rel=1e-5)


def test_the_same_bits_on_any_number_of_ranks_and_for_any_micro_batch(world):
    tmp, config, _, _ = world
    seen = set()
    for run, ranks, micro in (("r1", 1, 1), ("r1m", 1, 4), ("r2", 2, 2), ("r3", 3, 1)):
        path = config(run, train__steps=2, optimizer__lr=0, train__micro_batch=micro)
        common.osler("train", "--config", path, ranks=ranks)
        line = common.metrics(tmp / run)[-1]
        seen.add((line["validation_loss"], *line["validation_losses"].values()))
    assert len(seen) == 1, seen


def test_one_source_has_no_names_and_follows_checkpoints_by_default(world):
    tmp, config, _, paths = world
    path = config("one", [{"path": str(paths["notes"])}], train__steps=7, validation__every_steps=0)
    common.osler("train", "--config", path)
    assert list(losses(tmp / "one")) == [3, 6, 7]
    assert not any("validation_losses" in line for line in common.metrics(tmp / "one"))


@pytest.fixture(scope="module")
def stopped(world):
    """An uninterrupted run that stops early."""
    tmp, config, _, _ = world
    done = common.osler("train", "--config", config("whole", train__early_stop={"patience": PATIENCE}))
    return done.stderr


def check_whole(tmp, run):
    """`run` ended as the uninterrupted one, bit for bit."""
    whole = tmp / "whole"
    keys = ["step", "loss", "grad_norm", "lr", "packs", "validation_loss", "validation_losses"]
    story = [[{key: line.get(key) for key in keys} for line in common.metrics(path)] for path in (run, whole)]
    assert story[0] == story[1]
    names = [sorted(p.name for p in (path / "checkpoints").iterdir()) for path in (run, whole)]
    assert names[0] == names[1]
    last = story[1][-1]["step"]
    for name in ("latest", "best", f"step-{last}/state.json"):
        assert (run / "checkpoints" / name).read_text() == (whole / "checkpoints" / name).read_text()
    ours, theirs = (common.read_checkpoint(path, last) for path in (run, whole))
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_early_stop_and_best_follow_the_losses(world, stopped):
    tmp, config, _, _ = world
    measured = losses(tmp / "whole")
    lowest, end = policy(measured, PATIENCE)
    assert len(lowest) > 1 and end is not None and end < 40, measured
    last = common.metrics(tmp / "whole")[-1]["step"]
    assert last == end == max(measured)
    assert f"stopped early at step {end} of 40" in stopped and f"at step {lowest[-1]}" in stopped
    root = tmp / "whole/checkpoints"
    assert (root / "best").read_text() == f"step-{lowest[-1]}\n"
    assert (root / "latest").read_text() == f"step-{end}\n"
    saved = sorted({*range(3, end, 3), *lowest, end})
    kept = {f"step-{step}" for step in [*saved[-2:], lowest[-1]]}
    assert {p.name for p in root.iterdir()} == kept | {"best", "latest"} and len(kept) == 3
    state = json.loads((root / f"step-{end}/state.json").read_text())
    assert state["best"]["loss"] == measured[lowest[-1]] and state["best"]["stale_rounds"] == PATIENCE


def test_a_run_that_stopped_early_does_nothing_again_unless_given_patience(world, stopped):
    tmp, config, _, _ = world
    path = config("again", train__early_stop={"patience": PATIENCE})
    common.osler("train", "--config", path)
    before = (tmp / "again/log/metrics.jsonl").read_bytes()
    done = common.osler("train", "--config", path)
    assert "nothing to do" in done.stderr and "stopped early" in done.stderr
    assert (tmp / "again/log/metrics.jsonl").read_bytes() == before
    end = common.metrics(tmp / "again")[-1]["step"]
    common.osler("train", "--config", config("again", train__early_stop={"patience": PATIENCE + 1}))
    assert policy(losses(tmp / "again"), PATIENCE + 1)[1] == common.metrics(tmp / "again")[-1]["step"] > end


def test_min_delta(world, stopped):
    tmp, config, _, _ = world
    measured = list(losses(tmp / "whole").values())
    delta = 1.5 * (measured[0] - measured[1])  # the second round is no improvement any more
    assert delta > 0
    common.osler("train", "--config", config("delta", train__early_stop={"patience": 1, "min_delta": delta}))
    assert list(losses(tmp / "delta")) == [2, 4]
    assert (tmp / "delta/checkpoints/best").read_text() == "step-4\n"  # lower all the same


@pytest.mark.parametrize("failpoint", ["validate@2", "validate@5", "best@1", "best@2", "rename@3", "latest@4",
                                       "retention@3", "forward@9", "shard_write@5"])
def test_kill_and_resume_decide_the_same(world, stopped, failpoint):
    tmp, config, _, _ = world
    run = tmp / f"kill_{failpoint}"
    path = config(run.name, train__early_stop={"patience": PATIENCE})
    killed = common.osler("train", "--config", path, expect=None, OSLER_FAILPOINTS=f"{failpoint}=kill")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    common.osler("train", "--config", path)
    check_whole(tmp, run)


def test_best_is_named_after_a_kill_at_the_very_end(world):
    tmp, config, _, _ = world
    changes = dict(train__steps=2)
    common.osler("train", "--config", config("end", **changes), expect=None, OSLER_FAILPOINTS="best=kill")
    assert not (tmp / "end/checkpoints/best").exists()
    assert "nothing to do" in common.osler("train", "--config", config("end", **changes)).stderr
    assert (tmp / "end/checkpoints/best").read_text() == "step-2\n"


def test_a_stop_request_between_rounds_changes_no_decision(world, stopped):
    tmp, config, _, _ = world
    path = config("term", train__early_stop={"patience": PATIENCE})
    common.osler("train", "--config", path, expect=75, OSLER_FAILPOINTS="forward@3=term")
    assert (tmp / "term/checkpoints/latest").read_text() == "step-3\n"
    common.osler("train", "--config", path)
    assert losses(tmp / "term") == losses(tmp / "whole")
    assert (tmp / "term/checkpoints/best").read_text() == (tmp / "whole/checkpoints/best").read_text()


def test_resume_on_another_number_of_ranks_stops_at_the_same_step(world, stopped):
    tmp, config, _, _ = world
    early = {"patience": PATIENCE}
    common.osler("train", "--config", config("ranks", train__early_stop=early), expect=None,
                 OSLER_FAILPOINTS="validate@4=kill")
    done = common.osler("train", "--config", config("ranks", train__early_stop=early, mesh__data=2), ranks=2)
    assert "stopped early" in done.stderr
    ours, whole = losses(tmp / "ranks"), losses(tmp / "whole")
    assert ours.keys() == whole.keys()
    assert list(ours.values()) == pytest.approx(list(whole.values()), rel=1e-4)
    assert (tmp / "ranks/checkpoints/best").read_text() == (tmp / "whole/checkpoints/best").read_text()


def test_export_and_inspect_know_the_best(world, stopped):
    tmp, config, _, _ = world
    best = int((tmp / "whole/checkpoints/best").read_text().strip().removeprefix("step-"))
    common.osler("export", "--run", tmp / "whole", "--output", tmp / "best", "--best")
    state = common.read_checkpoint(tmp / "whole", best)
    assert all(torch.equal(value, state[f"weights/{name}"])
               for name, value in load_file(tmp / "best/model.safetensors").items())
    rows = [json.loads(row) for row in
            common.osler("checkpoint", "inspect", tmp / "whole", "--json").stdout.splitlines()]
    assert [row["step"] for row in rows if row["best"]] == [best]
    assert "good, best" in common.osler("checkpoint", "inspect", tmp / "whole").stderr
    common.osler("export", "--run", tmp / "whole", "--output", tmp / "x", "--best", "--step", 3, expect=2)
    common.osler("train", "--config", config("plain", train__steps=2, checkpoint__keep_best=False))
    refused = common.osler("export", "--run", tmp / "plain", "--output", tmp / "x", "--best", expect=5).stderr
    assert "checkpoint.keep_best" in refused


def test_other_validation_data_begins_the_search_anew(world):
    tmp, config, _, paths = world
    changes = dict(checkpoint__every_steps=2, validation__every_steps=2)
    common.osler("train", "--config", config("other", [{"path": str(paths["notes"])}], train__steps=4, **changes))
    done = common.osler("train", "--config",
                        config("other", [{"path": str(paths["letters"])}], train__steps=6, **changes))
    assert "other data than before" in done.stderr
    state = json.loads((tmp / "other/checkpoints/step-6/state.json").read_text())
    assert state["best"]["step"] == 6


@pytest.mark.parametrize("setting,words", [
    ("validation.every_steps=-1", ["validation.every_steps"]),
    ("train.early_stop.patience=-1", ["train.early_stop.patience"]),
    ("train.early_stop.min_delta=-0.5", ["train.early_stop.min_delta"]),
    ("data.validation.1.name=notes", ["data.validation.1.name", "notes", "data.validation.0"]),
    ("data.validation.1.name=a b", ["data.validation.1.name", "letters"]),
    ("data.validation=[]", ["validation.every_steps", "data.validation"]),
    ("data.validation.0.weight=2", ["weight"]),
])
def test_bad_settings(world, setting, words):
    tmp, config, _, _ = world
    message = common.osler("train", "--config", config("bad"), "--set", setting, expect=2).stderr
    assert all(word in message for word in words), message
