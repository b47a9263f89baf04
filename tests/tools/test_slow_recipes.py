"""The recipes of configs/recipes/ as a user runs them, on files in the layouts of the public data sets.

Records are compared with a reading by Python's json and csv modules: on files made here, and on the real ones where
../shared/samples has them. Then a tiny model trains from the recipes, also on a mixture.
"""
import csv
import json
import os
import pathlib
import random
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "../shared/samples"
RECIPES = ROOT / "configs/recipes"
OSLER = os.environ.get("OSLER_BIN", str(ROOT / "build/release/osler"))
sys.path.insert(0, str(ROOT / "tests/data"))


def osler(*arguments, expect=0, cwd=None):
    done = subprocess.run([OSLER, *map(str, arguments)], capture_output=True, text=True, timeout=300, cwd=cwd)
    assert done.returncode == expect, f"exit {done.returncode}, wanted {expect}:\n{done.stderr[-3000:]}"
    return done


def build(recipe, source, output, *sets, expect=0):
    flags = [flag for setting in (f"sources.0.path={source}", f"output.path={output}", *sets)
             for flag in ("--set", setting)]
    return osler("data", "build", "--config", RECIPES / recipe, *flags, expect=expect)


def records(*paths):
    return [json.loads(line) for line in osler("data", "inspect", *paths, "--records").stdout.split("\n") if line]


# ---- what each recipe should make of a file, by another reader ---------------------------------------------------


def chat(key, system, prompt, completion):
    return {"id": key, "subject": key, "messages": [{"role": "system", "content": system},
                                                    {"role": "user", "content": prompt},
                                                    {"role": "assistant", "content": completion}]}


def pubmedqa(path):
    for key, row in json.loads(path.read_text()).items():
        yield chat(key, "Answer the question from the abstract.",
                   "\n".join(row["CONTEXTS"]) + "\n\nQuestion: " + row["QUESTION"],
                   row["LONG_ANSWER"] + "\n\nDecision: " + row["final_decision"])


def lines_of(path):
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def medqa(path):
    for number, row in enumerate(lines_of(path), 1):
        options = "\n".join(f"{letter}. {text}" for letter, text in row["options"].items())
        yield chat(f"medqa-{number}", "Choose the right option.", row["question"] + "\n\n" + options,
                   row["answer_idx"] + ". " + row["answer"])


def medmcqa(path):
    for row in lines_of(path):
        texts = [row["op" + letter] for letter in "abcd"]
        options = "\n".join(f"{letter}. {text}" for letter, text in zip("ABCD", texts))
        yield chat(row["id"], "Choose the right option.", row["question"] + "\n\n" + options,
                   "ABCD"[row["cop"] - 1] + ". " + texts[row["cop"] - 1])


def csv_rows(path):
    with open(path, newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def mts_dialog(path):
    for row in csv_rows(path):
        yield chat("mts-dialog-" + row["ID"], "Write the section of the clinical note that the dialogue supports.",
                   "Section: " + row["section_header"] + "\n\n" + row["dialogue"], row["section_text"])


def aci_bench(path):
    for row in csv_rows(path):
        yield chat(row["dataset"] + "-" + row["encounter_id"], "Write the clinical note of this visit.",
                   row["dialogue"], row["note"])


# ---- files in the same layouts ------------------------------------------------------------------------------------

WORDS = ["heart", "lung", "a dose of", "µg/mL", "Größe", "50 %", '"quoted"', "back\\slash", "x < y", "sodium", "é"]


def words(rng, low=3, high=12):
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(low, high)))


def make_pubmedqa(path, rng):
    path.write_text(json.dumps({str(10_000_000 + i): {
        "QUESTION": words(rng) + "?", "CONTEXTS": [words(rng, 5, 30) for _ in range(rng.randint(1, 4))],
        "LABELS": ["AIM"], "MESHES": [words(rng, 1, 2)], "YEAR": "2011", "reasoning_required_pred": "yes",
        "final_decision": rng.choice(["yes", "no", "maybe"]), "LONG_ANSWER": words(rng)}
        for i in range(40)}, indent=4))


def make_medqa(path, rng):
    with open(path, "w") as out:
        for _ in range(40):
            options = {letter: words(rng, 1, 4) for letter in "ABCD"}
            letter = rng.choice("ABCD")
            out.write(json.dumps({"question": words(rng), "answer": options[letter], "options": options,
                                  "meta_info": "step1", "answer_idx": letter, "metamap_phrases": ["a", "b"]}) + "\n")


def make_medmcqa(path, rng):
    with open(path, "w") as out:
        for i in range(40):
            row = {"question": words(rng), "exp": rng.choice([None, words(rng)]), "cop": rng.randint(1, 4)}
            row.update({"op" + letter: words(rng, 1, 4) for letter in "abcd"})
            out.write(json.dumps({**row, "subject_name": "Physiology", "topic_name": None, "id": f"q-{i:x}z",
                                  "choice_type": "single"}, separators=(",", ":"), ensure_ascii=False) + "\n")


def make_mts_dialog(path, rng):
    with open(path, "w", newline="", encoding="utf-8-sig") as out:
        table = csv.writer(out, lineterminator="\r\n")
        table.writerow(["ID", "section_header", "section_text", "dialogue"])
        for i in range(40):
            table.writerow([i, rng.choice(["GENHX", "ROS"]), words(rng),
                            "\n".join(f"Doctor: {words(rng)}, \nPatient: {words(rng)}" for _ in range(4))])


def make_aci_bench(path, rng):
    with open(path, "w", newline="") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow(["dataset", "encounter_id", "dialogue", "note"])
        for i in range(40):
            table.writerow(["aci", f"D2N{i:03d}", "\n".join(f"[doctor] {words(rng)}" for _ in range(20)),
                            "CHIEF COMPLAINT\n\n" + words(rng)])


SETS = {
    "pubmedqa": (make_pubmedqa, pubmedqa, "text_qa/ori_pqal.json", 1000),
    "medqa": (make_medqa, medqa, "text_qa/medqa_us_4opt_test.jsonl", 1273),
    "medmcqa": (make_medmcqa, medmcqa, "text_qa/medmcqa_dev.jsonl", 4183),
    "mts-dialog": (make_mts_dialog, mts_dialog, "text_dialog_notes/MTS-Dialog-TrainingSet.csv", 1201),
    "aci-bench": (make_aci_bench, aci_bench, "text_dialog_notes/aci_train.csv", 67),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A file of each set's layout, by name."""
    tmp = tmp_path_factory.mktemp("made")
    files = {}
    for number, (name, (make, *_)) in enumerate(SETS.items()):
        files[name] = tmp / f"{name}.in"
        make(files[name], random.Random(number))
    return files


@pytest.mark.parametrize("name", SETS)
def test_made_files(made, tmp_path, name):
    expected = list(SETS[name][1](made[name]))
    build(f"build-{name}.yaml", made[name], tmp_path / "S", "sources.0.trusted=true", "split.validation=0")
    assert records(tmp_path / "S") == expected
    # Through the gate: the same texts (nothing in them identifies), ids and subjects replaced; both splits are there.
    build(f"build-{name}.yaml", made[name], tmp_path / "G")
    train, validation = records(tmp_path / "G/train"), records(tmp_path / "G/validation")
    assert validation and len(train) + len(validation) == len(expected)
    assert all(r["id"].startswith("r-") and r["subject"].startswith("s-") for r in train + validation)
    key = lambda record: json.dumps(record["messages"])
    assert sorted(map(key, train + validation)) == sorted(map(key, expected))


@pytest.mark.parametrize("name", SETS)
def test_real_files(tmp_path, name):
    path = SAMPLES / SETS[name][2]
    if not path.exists():
        pytest.skip(f"{path} is not here")
    expected = list(SETS[name][1](path))
    assert len(expected) == SETS[name][3]
    build(f"build-{name}.yaml", path, tmp_path / "S", "sources.0.trusted=true", "split.validation=0")
    assert records(tmp_path / "S") == expected
    said = build(f"build-{name}.yaml", path, tmp_path / "G").stderr  # nothing is refused by the gate
    assert len(records(tmp_path / "G")) == len(expected), said


def test_aci_bench_as_json(tmp_path):
    rows = [{"src": f"[doctor] visit {i} .", "tgt": f"NOTE {i}", "file": f"{i}-aci"} for i in range(5)]
    (tmp_path / "a.json").write_text(json.dumps({"version": [1, {"data": []}], "data": rows, "more": "x"}))
    source = {"name": "a", "format": "qa_json", "path": str(tmp_path / "a.json"), "records": "data", "id": "{file}",
              "prompt": "{src}", "completion": "{tgt}", "trusted": True}
    (tmp_path / "b.yaml").write_text(json.dumps({"sources": [source], "output": {"path": str(tmp_path / "S")}}))
    osler("data", "build", "--config", tmp_path / "b.yaml")
    assert [(r["id"], r["messages"][0]["content"], r["messages"][1]["content"]) for r in records(tmp_path / "S")] == [
        (row["file"], row["src"], row["tgt"]) for row in rows]


# ---- text ---------------------------------------------------------------------------------------------------------


def test_text_files(tmp_path):
    (tmp_path / "in").mkdir()
    texts = {"b.txt": "Second.\n\nStill it.\n", "a.txt": "\ufeffFirst, größer.\r\n", "c.txt": "  \n", "d.md": "no"}
    for name, text in texts.items():
        (tmp_path / "in" / name).write_bytes(text.encode())
    (tmp_path / "in/.hidden.txt").write_text("never")
    flags = ("sources.0.trusted=true", "split.validation=0")
    build("build-text.yaml", tmp_path / "in/*.txt", tmp_path / "S", *flags)
    assert records(tmp_path / "S") == [{"id": f"text-{i}", "subject": f"text-{i}", "text": text} for i, text in
                                       [(1, "First, größer.\r\n"), (2, texts["b.txt"])]]
    build("build-text.yaml", tmp_path / "in", tmp_path / "D", *flags, "sources.0.id='{$file}'")
    assert [(r["id"], r["text"][:2]) for r in records(tmp_path / "D")] == [("a.txt", "Fi"), ("b.txt", "Se"), ("d.md", "no")]
    build("build-text.yaml", tmp_path / "in/b.txt", tmp_path / "P", *flags, r'sources.0.separator="\n\n"')
    assert [r["text"] for r in records(tmp_path / "P")] == ["Second.", "Still it.\n"]
    assert "1 text" in osler("data", "inspect", tmp_path / "D", tmp_path / "P").stderr.replace("3 text", "1 text")


def test_text_passes_the_gate(tmp_path):
    (tmp_path / "a.txt").write_text("Seen 3/14/2019, call 617-555-0123. BP 120/80.")
    build("build-text.yaml", tmp_path / "a.txt", tmp_path / "S", "split.validation=0")
    assert records(tmp_path / "S") == [
        {"id": "r-000001", "subject": "s-000001", "text": "Seen [DATE 2019], call [PHONE]. BP 120/80."}]


def test_real_text(tmp_path):
    path = SAMPLES / "text_plain/wikitext2_test.txt"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    pieces = [piece for piece in path.read_text().split("\n \n") if piece.strip()]
    build("build-text.yaml", path, tmp_path / "S", "sources.0.trusted=true", "split.validation=0",
          r'sources.0.separator="\n \n"')
    assert [r["text"] for r in records(tmp_path / "S")] == pieces and len(pieces) > 500


# ---- tokens and training ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    import tokenizer_models

    tmp = tmp_path_factory.mktemp("model")
    tokenizer = tokenizer_models.write_model(str(tmp / "tokenizer"), tokenizer_models.gemma())
    osler("init", "--output", tmp / "model", "--tokenizer", tokenizer, "--hidden-size", 32, "--layers", 2, "--heads", 2,
          "--kv-heads", 1, "--head-dim", 16, "--intermediate-size", 48)
    return tmp / "model"


@pytest.fixture(scope="module")
def shards(made, model, tmp_path_factory):
    """Every made set and a text set, built from its recipe."""
    tmp = tmp_path_factory.mktemp("shards")
    for name in SETS:
        build(f"build-{name}.yaml", made[name], tmp / name, "sources.0.trusted=true", "split.validation=0.2")
    rng = random.Random(9)
    (tmp / "texts").mkdir()
    for i in range(12):
        (tmp / "texts" / f"{i:02d}.txt").write_text(words(rng, 20, 300))
    build("build-text.yaml", tmp / "texts/*.txt", tmp / "text", "sources.0.trusted=true", "split.validation=0.2")
    return tmp


def encoder(model):
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(model / "tokenizer.json"))


def packs(*paths, model, length, flags=()):
    out = osler("data", "inspect", *paths, "--order", "--model", model, "--sequence-length", length, *flags).stdout
    return [json.loads(line)["input_ids"] for line in out.splitlines()]


def test_text_records_end_with_eos(shards, model, tmp_path):
    tokenizer = encoder(model)
    eos = tokenizer.token_to_id("<eos>")
    expected = [tokenizer.encode(r["text"]).ids + [eos] for r in records(shards / "text/train")]
    assert expected[0][0] == tokenizer.token_to_id("<bos>")
    flags = ("--no-shuffle", "--no-packing")
    assert packs(shards / "text/train", model=model, length=1 << 20, flags=flags) == expected
    split = packs(shards / "text/train", model=model, length=50, flags=(*flags, "--long-records", "split"))
    assert split == [ids[at:at + 50] for ids in expected for at in range(0, len(ids), 50)]

    (tmp_path / "in.jsonl").write_text(json.dumps({"text": "a dose of sodium", "add_eos": True}) + "\n")
    osler("tokenize", "--model", model, "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl")
    line = json.loads((tmp_path / "out.jsonl").read_text())
    assert line["input_ids"] == tokenizer.encode("a dose of sodium").ids + [eos]
    assert line["mask"] == [0] + [1] * (len(line["input_ids"]) - 1)


@pytest.mark.parametrize("front,back", [([], []), (["<bos>"], ["<eos>"]), ([], ["<eos>"]), (["<bos>", "<mask>"], ["<mask>"])])
def test_text_records_get_the_tokenizers_own_special_tokens(tmp_path, front, back):
    import tokenizer_models
    from tokenizers import Tokenizer

    special = lambda name: {"SpecialToken": {"id": name, "type_id": 0}}
    document = tokenizer_models.gemma()
    vocab = document["model"]["vocab"]
    document["post_processor"] = {
        "type": "TemplateProcessing", "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "single": [*map(special, front), {"Sequence": {"id": "A", "type_id": 0}}, *map(special, back)],
        "special_tokens": {name: {"id": name, "ids": [vocab[name]], "tokens": [name]} for name in front + back}}
    model = tokenizer_models.write_model(str(tmp_path / "model"), document)
    texts = ["a dose", "<eos>", "ends with <eos>"]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text, "add_eos": True}) + "\n" for text in texts))
    osler("tokenize", "--model", model, "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().split("\n") if line]
    for text, line in zip(texts, lines, strict=True):
        ids = Tokenizer.from_str(json.dumps(document)).encode(text).ids
        assert line["input_ids"] == ids + ([] if back == ["<eos>"] else [vocab["<eos>"]])
        assert line["mask"] == [0] * len(front) + [1] * (len(line["input_ids"]) - len(front))


def test_text_records_need_an_end_of_text_token(shards, model, tmp_path):
    import shutil

    copy = shutil.copytree(model, tmp_path / "model")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = copy / name
        if path.exists():
            path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "eos_token"}))
    said = osler("data", "inspect", shards / "text/train", "--order", "--model", copy, expect=2).stderr
    assert "eos_token" in said and "tokenizer_config.json" in said


def train(recipe, model, tmp_path, *sets):
    flags = [flag for setting in (f"model.path={model}", f"train.output={tmp_path}/run", "train.steps=3",
                                  "train.precision=fp32", "data.sequence_length=256", "train.global_batch=2",
                                  "train.micro_batch=1", "schedule.warmup_steps=1", "checkpoint.every_steps=3", *sets)
             for flag in ("--set", setting)]
    osler("train", "--config", RECIPES / recipe, *flags)
    lines = [json.loads(line) for line in (tmp_path / "run/log/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all(0 < line["loss"] < 20 and line["target_tokens"] > 0 for line in lines)
    return lines


def paths_of(shards, *names):
    return [f"data.{key}.{i}.path={shards}/{name}/{split}" for i, name in enumerate(names)
            for key, split in (("train", "train"), ("validation", "validation"))]


@pytest.mark.parametrize("name", ["mts-dialog", "aci-bench"])
def test_dialogues_train(shards, model, tmp_path, name):
    train("train-dialog.yaml", model, tmp_path, *paths_of(shards, name), "data.sequence_length=2048")


def test_text_trains_on_all_of_it(shards, model, tmp_path):
    lines = train("train-text.yaml", model, tmp_path, *paths_of(shards, "text"))
    # Every token is learnt but the first of each document and of each piece of a long one.
    for line in lines:
        assert 0 < line["tokens"] - line["target_tokens"] < line["tokens"] / 10


def test_mixture_trains_and_keeps_its_weights(shards, model, tmp_path):
    names, weights = ["medmcqa", "medqa", "pubmedqa"], [2, 1, 1]
    train("train-medical-qa.yaml", model, tmp_path, *paths_of(shards, *names))
    # The stream itself, record by record: after any number of samples each source is within one of its share.
    trains = [shards / name / "train" for name in names]
    flags = ("--no-packing", "--seed", 7)
    tokens = [{tuple(ids) for ids in packs(path, model=model, length=4096, flags=flags)} for path in trains]
    assert not set.intersection(*tokens) and all(len(ids) == 32 for ids in tokens)
    counts = [0, 0, 0]
    stream = packs(*trains, model=model, length=4096, flags=(*flags, "--weights", "2,1,1"))
    assert len(stream) == 96
    for n, ids in enumerate(stream, 1):
        sources = [k for k in range(3) if tuple(ids) in tokens[k]]
        assert len(sources) == 1
        counts[sources[0]] += 1
        assert all(abs(count - n * weight / 4) <= 1 for count, weight in zip(counts, weights)), (n, counts)
    assert counts == [48, 24, 24]
