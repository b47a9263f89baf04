"""Event files as the tensorboard package reads them: the numbers of metrics.jsonl, once each, through kill and full disk."""
import pathlib
import signal

import numpy
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader, RawEventFileLoader

import common

STEPS = 6
KEYS = ["loss", "grad_norm", "lr", "tokens_per_s", "model_tflops", "data_wait_share", "padding_share", "memory_mib"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("tensorboard")
    common.save_model(tmp / "model")
    shards = common.build_tokens(tmp / "data", common.random_documents(40, 3, 64, seed=1))
    held_out = [{"name": name, "path": str(common.build_tokens(tmp / name, common.random_documents(5, 3, 40, seed=seed)))}
                for name, seed in (("notes", 2), ("letters", 3))]

    def config(run, **changes):
        settings = dict(train__steps=STEPS, checkpoint__every_steps=2, data__validation=held_out,
                        optimizer__groups=[{"match": "*norm.weight", "lr_scale": 0.5, "weight_decay": 0}])
        settings.update(changes)
        return common.write_config(tmp / f"{run}.yaml", tmp / "model", shards, tmp / run, **settings)

    return tmp, config


def files(run):
    return sorted((run / "log/tensorboard").iterdir())


def read(run):
    accumulator = EventAccumulator(str(run / "log/tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def check_equals_metrics(run):
    lines = common.metrics(run)
    expected = {key: [(line["step"], line[key]) for line in lines] for key in KEYS}
    expected["group_lr/0"] = [(line["step"], line["group_lr"][0]) for line in lines]
    rounds = [line for line in lines if "validation_loss" in line]
    expected["validation_loss"] = [(line["step"], line["validation_loss"]) for line in rounds]
    for name in ("notes", "letters"):
        expected[f"validation_losses/{name}"] = [(line["step"], line["validation_losses"][name]) for line in rounds]
    accumulator = read(run)
    assert set(accumulator.Tags()["scalars"]) == expected.keys()
    for tag, points in expected.items():
        found = [(event.step, event.value) for event in accumulator.Scalars(tag)]
        assert found == [(step, float(numpy.float32(value))) for step, value in points], tag


def test_scalars_are_those_of_metrics_jsonl(world):
    tmp, config = world
    common.osler("train", "--config", config("whole"))
    assert len(common.metrics(tmp / "whole")) == STEPS
    check_equals_metrics(tmp / "whole")
    (file,) = files(tmp / "whole")
    events = list(EventFileLoader(str(file)).Load())
    assert events[0].file_version == "brain.Event:2"
    assert len(events) == 3 + STEPS  # version, session start, configuration, steps
    assert all(a.wall_time <= b.wall_time for a, b in zip(events, events[1:]))
    text = read(tmp / "whole").Tensors("config")[0].tensor_proto.string_val[0].decode()
    assert (tmp / "whole/config.resolved.yaml").read_text() in text
    plugin = read(tmp / "whole").SummaryMetadata("config").plugin_data.plugin_name
    assert plugin == "text"


@pytest.mark.parametrize("failpoint", ["forward@4", "rename@2", "backward@1"])
def test_steps_repeated_after_a_kill_appear_once(world, failpoint):
    tmp, config = world
    run = tmp / f"kill_{failpoint}"
    killed = common.osler("train", "--config", config(run.name), expect=None, OSLER_FAILPOINTS=f"{failpoint}=kill")
    assert killed.returncode == -signal.SIGKILL
    common.osler("train", "--config", config(run.name))
    assert len(files(run)) == 2
    assert [line["step"] for line in common.metrics(run)] == list(range(1, STEPS + 1))
    check_equals_metrics(run)


def test_a_file_of_the_future_still_sorts_first(world):
    tmp, config = world
    run = tmp / "future"
    common.osler("train", "--config", config("future", train__steps=2))
    (first,) = files(run)
    first.rename(first.with_name("events.out.tfevents.9000000000.host.1"))
    common.osler("train", "--config", config("future"))
    assert [file.name[:31] for file in files(run)] == ["events.out.tfevents.9000000000.", "events.out.tfevents.9000000001."]
    check_equals_metrics(run)


def test_a_torn_last_record_hides_nothing_else(world):
    tmp, config = world
    run = tmp / "torn"
    common.osler("train", "--config", config("torn", train__steps=2))
    (first,) = files(run)
    with open(first, "ab") as out:
        out.write(b"\x40\x00\x00")
    common.osler("train", "--config", config("torn"))
    check_equals_metrics(run)


def test_a_full_disk_ends_no_run_and_tears_no_record(world):
    tmp, config = world
    done = common.osler("train", "--config", config("full"), OSLER_FS_FAULTS="write:tfevents@4=ENOSPC,write:tfevents@4=ENOSPC")
    assert done.stderr.count("held back") == 1
    check_equals_metrics(tmp / "full")
    for raw in RawEventFileLoader(str(files(tmp / "full")[0])).Load():
        assert raw
    common.osler("train", "--config", config("always"), OSLER_FS_FAULTS="write:tfevents=ENOSPC")
    assert len(common.metrics(tmp / "always")) == STEPS


def test_it_can_be_switched_off_and_only_the_first_rank_writes(world):
    tmp, config = world
    common.osler("train", "--config", config("off", train__tensorboard=False))
    assert not (tmp / "off/log/tensorboard").exists()
    common.osler("train", "--config", config("two", mesh__data=2), ranks=2)
    assert len(files(tmp / "two")) == 1
    check_equals_metrics(tmp / "two")
    before = files(tmp / "two")
    common.osler("train", "--config", config("two", mesh__data=2), ranks=2)
    assert files(tmp / "two") == before  # a finished run opens nothing


def test_shares_and_eta(world):
    tmp, config = world
    run = tmp / "shares"
    common.osler("train", "--config", config("shares", train__steps=4, data__sequence_length=128))
    common.osler("train", "--config", config("shares", data__sequence_length=128))  # two more steps
    lines = common.metrics(run)
    for line in lines:
        assert line["padding_share"] == pytest.approx(1 - line["tokens"] / (4 * 128), abs=1e-12)
        assert 0 <= line["data_wait_share"] <= 1
    assert lines[3]["eta_s"] == lines[5]["eta_s"] == 0
    assert all(lines[i]["eta_s"] > 0 for i in (0, 1, 2, 4))
    assert pathlib.Path(run / "log/metrics.jsonl").exists()
