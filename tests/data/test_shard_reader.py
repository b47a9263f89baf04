"""Reads what `osler data build` writes with a reader made from docs/shard.md alone (no code of ours), and compares
with the source. CRC-32C comes from google_crc32c, SHA-256 from hashlib, zstd from the system's library."""
import ctypes
import ctypes.util
import hashlib
import json
import os
import pathlib
import random
import struct
import subprocess

import google_crc32c
import pytest

OSLER = os.environ.get("OSLER_BIN", str(pathlib.Path(__file__).parents[2] / "build/release/osler"))

# ---- the reader ------------------------------------------------------------------------------------------------


def crc(data):
    return google_crc32c.value(bytes(data))


def unzstd(data, size):
    zstd = ctypes.CDLL(ctypes.util.find_library("zstd") or "libzstd.so.1")
    zstd.ZSTD_decompress.restype = ctypes.c_size_t
    zstd.ZSTD_decompress.argtypes = [ctypes.c_char_p, ctypes.c_size_t] * 2
    out = ctypes.create_string_buffer(max(size, 1))
    assert zstd.ZSTD_decompress(out, size, data, len(data)) == size
    return out.raw[:size]


def read_record(data, offset, size):
    header = data[offset:offset + size]
    checksum, parts, id_size, subject_size = struct.unpack_from("<4I", header)
    assert checksum == crc(header[4:])
    record, at = {"parts": []}, 16
    for _ in range(parts):
        kind, kind_of_value, codec, zero, part_crc, start, stored, raw = struct.unpack_from("<4BI3Q", header, at)
        content = data[start:start + stored]
        assert zero == 0 and part_crc == crc(content)
        content = unzstd(content, raw) if codec == 1 else content
        assert len(content) == raw
        value = {1: json.loads, 2: lambda part: list(struct.unpack(f"<{raw // 4}i", part)),
                 3: bytes.decode}[kind_of_value](content)
        record[{1: "messages", 2: "input_ids", 3: "labels", 4: "text"}[kind]] = value
        record["parts"].append((kind, codec, content))
        at += 32
    record["id"] = header[at:at + id_size].decode()
    record["subject"] = header[at + id_size:].decode()
    assert at + id_size + subject_size == size
    return record


def name_hash(name):
    return struct.unpack("<Q", hashlib.sha256(name.encode()).digest()[:8])[0]


def read_shard(path):
    data = path.read_bytes()
    magic, version, table_crc, rows, payload_end, headers, table, size, zero, trailer_crc = struct.unpack(
        "<8s2I5Q2I", data[-64:])
    assert data[:8] == b"OSLERSHD" and magic == b"OSLERFTR" and version == 1 and size == len(data) and zero == 0
    assert trailer_crc == crc(data[-64:-4]) and table_crc == crc(data[table:-64]) and len(data) - 64 - table == 48 * rows
    assert not any(data[12:4096]) and not any(data[payload_end:headers]) and headers % 4096 == 0
    records = []
    for row in range(rows):
        offset, header_size, kind, stored, key, subject, tokens, zero = struct.unpack_from(
            "<Q2I3Q2I", data, table + 48 * row)
        record = read_record(data, offset, header_size)
        assert kind == (2 if "input_ids" in record else 3 if "text" in record else 1) and tokens == len(record.get("input_ids", []))
        assert key == name_hash(record["id"]) and subject == name_hash(record["subject"]) and zero == 0
        records.append(record)
    return records


def read_directory(path):
    text = (path / "manifest.json").read_bytes()
    manifest = json.loads(text)
    digest = manifest["manifest_digest"]
    assert hashlib.sha256(text.replace(digest.encode(), b"0" * 64)).hexdigest() == digest
    for entry in manifest["files"]:
        data = (path / entry["name"]).read_bytes()
        assert len(data) == entry["bytes"] and hashlib.sha256(data).hexdigest() == entry["sha256"]
    shards = [read_shard(path / f["name"]) for f in manifest["files"] if f["name"].startswith("shard-")]
    index = (path / "index.bin").read_bytes()
    magic, version, entry_size, count, build = struct.unpack_from("<8s2IQ64s", index)
    assert magic == b"OSLERIDX" and version == 1 and entry_size == 8 and crc(index[:-4]) == struct.unpack("<I", index[-4:])[0]
    assert build.decode() == manifest["build_id"] == json.loads((path / "certificate.json").read_text())["build_id"]
    places = [struct.unpack_from("<2I", index, 88 + 8 * i) for i in range(count)]
    records = [shards[shard][row] for shard, row in places]
    assert len(records) == manifest["records"] == sum(map(len, shards)) == len(set(places))
    data_digest = hashlib.sha256()
    for r in records:
        id_bytes, subject = r["id"].encode(), r["subject"].encode()
        data_digest.update(struct.pack("<3Q", len(id_bytes), len(subject), len(r["parts"])) + id_bytes + subject)
        for kind, _, content in r["parts"]:
            data_digest.update(struct.pack("<2Q", kind, len(content)) + content)
    assert data_digest.hexdigest() == manifest["data_digest"]
    return manifest, records, [shard for shard, _ in places]


# ---- the tests -------------------------------------------------------------------------------------------------


def build(tmp, chats, tokens, shard_mb=64, texts=()):
    for name, lines in (("chats.jsonl", chats), ("tokens.jsonl", tokens), ("texts.jsonl", texts)):
        (tmp / name).write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    (tmp / "build.yaml").write_text(
        "deid: {profile: safe_harbor}\nsources:\n"
        f"  - {{name: chats, format: chat_jsonl, path: {tmp}/chats.jsonl, trusted: true}}\n"
        f"  - {{name: tokens, format: tokens_jsonl, path: {tmp}/tokens.jsonl, trusted: true}}\n"
        f"  - {{name: texts, format: qa_jsonl, path: {tmp}/texts.jsonl, id: '{{id}}', subject: '{{subject}}', "
        "text: '{text}', trusted: true}\n"
        f"output: {{path: {tmp}/shards, shard_mb: {shard_mb}}}\n")
    run = subprocess.run([OSLER, "data", "build", "--config", str(tmp / "build.yaml")], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return tmp / "shards" / "train"


def sources(count):
    rng = random.Random(5)
    words = ["stable", "afebrile", "Größe", "日本", "naïve", "\U0001f9ec", "\"quoted\"", "\\", "\t", "\n", "\u0000"]
    chats = []
    for i in range(count):
        text = " ".join(rng.choice(words) for _ in range(rng.choice([1, 5, 400])))
        chats.append({"id": f"c{i}", "subject": f"s{i % 7}", "messages": [
            {"role": "user", "content": text}, {"role": "assistant", "content": "Ja " + text[:50]}]})
    tokens = []
    for i in range(count):
        ids = [rng.randrange(2**31) for _ in range(1 + i)]
        tokens.append({"id": f"t{i}", "subject": f"s{i % 7}", "input_ids": ids,
                       "labels": [-100] * (len(ids) // 2) + ids[len(ids) // 2:]})
    tokens[0].update(input_ids=[0, 5], labels=[-100, 0])  # id 0 is a token like any other
    return chats, tokens


def test_every_record_is_read_from_the_page(tmp_path):
    chats, tokens = sources(40)
    texts = [{"id": f"x{i}", "subject": f"s{i}", "text": chat["messages"][0]["content"]} for i, chat in enumerate(chats)
             if chat["messages"][0]["content"].strip()]
    manifest, records, _ = read_directory(build(tmp_path, chats, tokens, texts=texts))
    assert len(records) == 80 + len(texts) and len(texts) > 20
    for got, want in zip(records, chats + tokens + texts):
        for key, value in want.items():
            assert got[key] == value, want["id"]
    codecs = {codec for r in records for _, codec, _ in r["parts"]}
    assert codecs == {0, 1}
    assert manifest["format"] == "osler-shards"


def test_a_subject_is_in_one_shard_file(tmp_path):
    rng = random.Random(1)
    tokens = [{"id": f"t{i}", "subject": f"s{i % 41}", "input_ids": [rng.randrange(1000) for _ in range(3000)]}
              for i in range(200)]
    for line in tokens:
        line["labels"] = line["input_ids"]
    chats = [{"id": "c", "subject": "s0", "messages": [{"role": "user", "content": "?"},
                                                       {"role": "assistant", "content": "!"}]}]
    manifest, records, shards = read_directory(build(tmp_path, chats, tokens, shard_mb=1))
    assert sum(f["name"].startswith("shard-") for f in manifest["files"]) > 1
    place = {}
    for record, shard in zip(records, shards):
        assert place.setdefault(record["subject"], shard) == shard
    assert [r["id"] for r in records] == ["c"] + [t["id"] for t in tokens]


@pytest.mark.parametrize("name", ["shard-00000.osd", "index.bin", "manifest.json", "certificate.json"])
def test_the_reader_would_notice_damage(tmp_path, name):
    path = build(tmp_path, *sources(3))
    data = bytearray((path / name).read_bytes())
    data[len(data) // 3] ^= 1
    (path / name).write_bytes(data)
    with pytest.raises((AssertionError, ValueError)):
        read_directory(path)
