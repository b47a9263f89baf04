"""Writes a checkpoint as docs/checkpoint.md says, with other people's libraries alone."""
import hashlib
import json

import google_crc32c
from safetensors.torch import save_file


def write_checkpoint(root, step, tensors, texts):
    """tensors: {"weights": {name: tensor}, …}; texts: {file name: content}. Returns the directory."""
    directory = root / f"step-{step}"
    directory.mkdir(parents=True)
    files = []
    for stem, named in tensors.items():
        save_file(named, directory / f"{stem}.safetensors", metadata={"format": "pt"})
        files.append({"name": f"{stem}.safetensors", "tensors": len(named)})
    for name, text in texts.items():
        (directory / name).write_text(text)
        files.append({"name": name})
    for file in files:
        data = (directory / file["name"]).read_bytes()
        file |= {"size": len(data), "crc32c": f"{google_crc32c.value(data):08x}"}
    body = json.dumps({"format": 1, "step": step, "files": files})[:-1].encode()
    digest = hashlib.sha256(body).hexdigest().encode()
    (directory / "manifest.json").write_bytes(body + b',\n"sha256":"' + digest + b'"}\n')
    return directory
