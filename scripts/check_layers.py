#!/usr/bin/env python3
"""Fails when an #include points up or sideways in the layers, or when a folder sees a library it must not.

Layers (docs/design.md): base < configs < kernels | data < parallel < model | checkpoint < trainer < tools.
"""
import pathlib
import re
import sys

LAYER = {"base": 0, "configs": 1, "kernels": 2, "data": 2, "parallel": 3, "model": 4, "checkpoint": 4,
         "trainer": 5, "tools": 6}
# What a folder's files may not include besides: protobuf stays out of kernels and parallel, torch out of data.
BANNED = {"kernels": r"\.pb\.h|google/protobuf|configs/", "parallel": r"\.pb\.h|google/protobuf|configs/",
          "data": r"ATen/|torch/|c10/", "configs": r"ATen/|torch/|c10/"}
INCLUDE = re.compile(r'^\s*#\s*include\s*["<]([^">]+)[">]', re.M)
HEAVY = re.compile(r"torch/torch\.h|ATen/ATen\.h")


def problems(root: pathlib.Path):
    for folder, layer in LAYER.items():
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in {".h", ".cc", ".cu", ".cuh"}:
                continue
            for include in INCLUDE.findall(path.read_text()):
                top = include.split("/")[0]
                where = f"{path.relative_to(root)}: includes {include}"
                if top in LAYER and top != folder and LAYER[top] >= layer:
                    yield f"{where}: {folder} (layer {layer}) may not see {top} (layer {LAYER[top]})"
                if folder in BANNED and re.search(BANNED[folder], include):
                    yield f"{where}: not allowed in {folder}"
                if path.suffix == ".h" and HEAVY.search(include):
                    yield f"{where}: too heavy for a header, use ATen/core/Tensor.h"


if __name__ == "__main__":
    found = list(problems(pathlib.Path(__file__).resolve().parent.parent))
    print("\n".join(found) or "layers: ok")
    sys.exit(bool(found))
