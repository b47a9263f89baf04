"""`osler plan` as a user runs it: what it prints of a run, layouts that fit, and what is wrong with the input."""
import json
import pathlib
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
import common  # noqa: E402

LLAMA_8B = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096,
            "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "head_dim": 128, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "tie_word_embeddings": False}
# 32 layers of query and output 4096², key and value 1024 · 4096, MLP 3 · 14336 · 4096, two norms; two vocabularies.
LAYER_8B = 2 * 4096 ** 2 + 2 * 1024 * 4096 + 3 * 14336 * 4096
PARAMETERS_8B = 32 * (LAYER_8B + 2 * 4096) + 4096 + 2 * 128256 * 4096


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A model of eight billion parameters that is a config.json and nothing else, and data that is not there."""
    directory = tmp_path_factory.mktemp("large")
    (directory / "model").mkdir()
    (directory / "model/config.json").write_text(json.dumps(LLAMA_8B))
    return common.write_config(directory / "train.yaml", directory / "model", directory / "nothing", directory / "run",
                               data__sequence_length=8192, train__precision="bf16", train__micro_batch=1,
                               train__global_batch=64)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    directory = tmp_path_factory.mktemp("small")
    common.osler("init", "--family", "gemma3", "--output", directory / "model", "--vocab-size", 131, "--hidden-size", 64,
                 "--heads", 4, "--kv-heads", 2, "--head-dim", 16, "--layers", 6, "--sliding-window", 8)
    shards = common.build_tokens(directory / "data", [(list(range(40)), list(range(40)))] * 30)
    return common.write_config(directory / "train.yaml", directory / "model", shards, directory / "run")


def plan(config, *flags, expect=0):
    done = common.osler("plan", "--config", config, *flags, expect=expect)
    return done, [json.loads(line) for line in done.stdout.splitlines()]


def of_kind(lines, kind):
    return [line for line in lines if line["kind"] == kind]


def test_prints_what_a_run_needs(large):
    begin = time.monotonic()
    done, lines = plan(large)
    print(f"osler plan of a Llama 3.1 8B took {time.monotonic() - begin:.2f} s")
    [model], [flops], [epoch], [checkpoint] = (of_kind(lines, k) for k in ["model", "flops", "epoch", "checkpoint"])
    assert model["parameters"] == model["trained"] == PARAMETERS_8B
    none, selective, full = of_kind(lines, "memory")
    assert [line["recompute"] for line in (none, selective, full)] == ["none", "selective", "full"]
    assert none["configured"] and not selective["configured"] and not full["configured"]
    for rank in (none, selective, full):
        assert rank["peak"]["parameters"] == 2 * PARAMETERS_8B
        assert rank["peak"]["gradients"] == 4 * PARAMETERS_8B
        assert rank["peak"]["optimizer"] == 12 * PARAMETERS_8B
        assert rank["tensors"] == sum(rank["peak"].values()) and rank["total"] > rank["tensors"]
        assert rank["most"]["logits"] > 0
    # Kept with recomputation: the input of every block but the embedding.
    assert full["activations_of_a_micro_batch"] == 33 * 8192 * 4096 * 2
    assert none["activations_of_a_micro_batch"] > 10 * full["activations_of_a_micro_batch"]
    # And attention's output with a log-sum-exp in fp32 for each of 32 heads, of every layer.
    memo = 32 * 8192 * (4096 * 2 + 32 * 4)
    assert selective["activations_of_a_micro_batch"] == full["activations_of_a_micro_batch"] + memo
    assert flops["matrices"] == 2 * 32 * LAYER_8B and flops["head"] == 2 * 128256 * 4096
    assert flops["attention"] == 32 * 4 * 4096 * (8192 + 1) / 2
    assert flops["model"] == 3 * flops["forward"] < flops["computed"]
    assert checkpoint["weights"] == 2 * PARAMETERS_8B and checkpoint["optimizer"] == 12 * PARAMETERS_8B
    assert checkpoint["interval_s"] == pytest.approx((2 * checkpoint["save_s"] * 50000 * 3600) ** 0.5)
    assert epoch["records"] is None and epoch["tokens"] is None and "nothing" in epoch["note"]
    for word in ["memory of a rank", "recompute", "tokens unknown", "a checkpoint", "a step"]:
        assert word in done.stderr


@pytest.mark.parametrize("recompute, attention", [("full", 4.5), ("selective", 3.5)])
def test_recomputation_changes_the_work(large, recompute, attention):
    _, lines = plan(large, "--set", f"train.recompute={recompute}")
    [flops] = of_kind(lines, "flops")
    assert flops["computed"] == 4 * flops["matrices"] + attention * flops["attention"] + 3 * flops["head"]
    assert [line["recompute"] for line in of_kind(lines, "memory") if line["configured"]] == [recompute]


def test_layouts_that_fit_are_ranked(large):
    done, lines = plan(large, "--gpus", 16, "--memory", "80GiB")
    [search], layouts = of_kind(lines, "search")[0:1], of_kind(lines, "layout")
    assert search["tried"] == search["fit"] + search["too_large"] and search["too_large"] > 0
    assert len(layouts) == 10 and [line["place"] for line in layouts] == list(range(1, 11))
    for line in layouts:
        assert line["memory"] <= 80 << 30 and line["ranks"] == 16
        product = 1
        for axis in ["pipeline", "data", "shard", "context", "tensor"]:
            product *= line[axis]
        assert product == 16
    assert [line["seconds"] for line in layouts] == sorted(line["seconds"] for line in layouts)
    assert layouts[0]["name"] in done.stderr and "--set mesh.tensor=" in done.stderr
    # Its settings are accepted, and give the memory that was promised.
    best = layouts[0]
    settings = [f"mesh.{k}={best[k]}" for k in ["pipeline", "data", "shard", "context", "tensor"]]
    if best["shard"] > 1:
        settings.append(f"mesh.zero={best['zero']}")
    if best["pipeline"] > 1:
        settings.append(f"mesh.interleave={best['interleave']}")
    settings.append(f"train.recompute={best['recompute']}")
    _, again = plan(large, *[word for setting in settings for word in ("--set", setting)])
    assert max(line["total"] for line in of_kind(again, "memory") if line["configured"]) == best["memory"]


def test_without_a_limit_every_layout_fits(large):
    done, lines = plan(large, "--gpus", 4)
    [search] = of_kind(lines, "search")
    assert search["memory_limit"] is None and search["too_large"] == 0 and search["fit"] == search["tried"] > 10
    assert "layouts of 4 ranks:" in done.stderr


def test_slower_links_and_slower_disks_count(large):
    flags = ["--set", "mesh.shard=8", "--set", "mesh.zero=3"]
    [fast], [slow] = (of_kind(plan(large, *flags, "--node-gbps", rate)[1], "step") for rate in (300, 3))
    assert slow["bytes_sent"] == fast["bytes_sent"] and slow["reduce_s"] > fast["reduce_s"]
    [fast], [slow] = (of_kind(plan(large, "--disk-gbps", rate)[1], "checkpoint") for rate in (10, 0.1))
    assert slow["save_s"] == pytest.approx(100 * fast["save_s"])
    assert slow["interval_s"] == pytest.approx(10 * fast["interval_s"])


def test_when_nothing_fits_the_smallest_is_told(large):
    done, lines = plan(large, "--gpus", 2, "--memory", "24GiB", expect=2)
    [search] = of_kind(lines, "search")
    assert search["fit"] == 0 and search["smallest_memory"] > 24 << 30
    assert search["smallest"]["name"] in done.stderr and "no layout of 2 ranks fits in 24 GiB" in done.stderr


def test_an_epoch_is_counted_where_lengths_are_known(small):
    _, lines = plan(small)
    [epoch] = of_kind(lines, "epoch")
    assert epoch["records"] == 30 and epoch["tokens"] is None and "token lengths" in epoch["note"]
    common.osler("train", "--config", small, "--set", "train.steps=1")
    done, lines = plan(small)
    [epoch], [flops] = of_kind(lines, "epoch"), of_kind(lines, "flops")
    assert epoch["tokens"] == 30 * 40 and epoch["packs"] == 30 and epoch["steps"] == 7.5 and epoch["note"] == ""
    # Documents of 40 tokens: local layers see min(i + 1, 8) keys, the global one i + 1.
    local, whole = sum(min(i + 1, 8) for i in range(40)) / 40, sum(range(1, 41)) / 40
    config = json.loads((pathlib.Path(json.loads(small.read_text())["model"]["path"]) / "config.json").read_text())
    kinds = config["layer_types"]
    keys = kinds.count("sliding_attention") * local + kinds.count("full_attention") * whole
    assert flops["attention"] == pytest.approx(4 * 64 * keys)
    assert epoch["target_share"] == 39 / 40 and flops["head"] == pytest.approx(2 * 131 * 64 * 39 / 40)
    assert "7.5 steps" in done.stderr


@pytest.mark.parametrize("flags, words", [
    (["--memory", "80GiBi"], ["--memory 80GiBi", "80GiB"]),
    (["--memory", "80"], ["--memory 80", "GiB"]),
    (["--memory", "lots"], ["--memory lots"]),
    (["--gpus", "0"], ["--gpus"]),
    (["--mfu", "-1"], ["--mfu"]),
    (["--set", "mesh.tensr=2"], ["mesh.tensr", "tensor"]),
    (["--set", "mesh.tensor=3"], ["mesh.tensor 3", "nearest valid"]),
    (["--set", "mesh.zero=3"], ["mesh.zero", "mesh.shard is 1"]),
    (["--set", "model.path=/nowhere"], ["/nowhere", "config.json"]),
    (["--set", "train.freeze=[\"model.layrs.*\"]"], ["model.layrs", "nearest names"]),
])
def test_bad_input_exits_2(large, flags, words):
    done, lines = plan(large, *flags, expect=2)
    assert lines == [] and all(word in done.stderr for word in words), done.stderr


def test_a_broken_configuration_names_file_and_line(large, tmp_path):
    (tmp_path / "bad.yaml").write_text("model: {path: x}\ntrain: {stps: 3}\n")
    done, _ = plan(tmp_path / "bad.yaml", expect=2)
    assert "bad.yaml:2" in done.stderr and "steps" in done.stderr
