#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Writes safetensors/: files made by the package safetensors from torch tensors, a model of two
shards with its index, and expected.json, which holds every value as torch converts it to float64.

Made with safetensors 0.8 and torch 2 on the CPU: python3 safetensors_vectors.py
safetensors_vectors.py --read FILE   prints the same description of a file written by lamina
"""
import json
import pathlib
import sys

import torch
from safetensors import safe_open
from safetensors.torch import save_file

FOLDER = pathlib.Path(__file__).parent / "safetensors"
SPECIAL = [0.0, -0.0, 1 / 3, -2.5, 65504.0, 6e-8, 3.0e38, float("inf"), -float("inf")]


def described(tensors):
    return {name: {"dtype": str(t.dtype).removeprefix("torch."), "shape": list(t.shape),
                   # JSON has no infinities.
                   "values": [v if abs(v) < 1e300 else ("inf" if v > 0 else "-inf")
                              for v in t.to(torch.float64).flatten().tolist()]}
            for name, t in tensors.items()}


def read(path):
    with safe_open(path, framework="pt") as file:
        return {"metadata": file.metadata() or {},
                "tensors": described({name: file.get_tensor(name) for name in file.keys()})}


def write():
    special = torch.tensor(SPECIAL, dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    tensors = {
        "double": special,
        "single": special.float(),
        "half": special.half(),
        "brain": special.bfloat16(),
        "matrix": torch.randn(3, 5, generator=generator).bfloat16(),
        "scalar": torch.tensor(7.25),
        "nothing": torch.zeros(0, 4),
        "integers": torch.arange(6).reshape(2, 3),
        "flags": torch.tensor([True, False, True]),
        "na\u00efve \"name\"\\\n": torch.tensor([1.5]),
    }
    metadata = {"format": "pt", "note": "caf\u00e9 \"x\"\n"}
    save_file(tensors, FOLDER / "types.safetensors", metadata)

    names = ["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.norm.weight"]
    sharded = {name: torch.randn(2, 4, generator=generator).bfloat16() for name in names}
    model = FOLDER / "sharded"
    model.mkdir(exist_ok=True)
    shards = {"model-00001-of-00002.safetensors": names[:2],
              "model-00002-of-00002.safetensors": names[2:]}
    for shard, of_shard in shards.items():
        save_file({n: sharded[n] for n in of_shard}, model / shard, {"format": "pt"})
    index = {"metadata": {"total_size": sum(t.numel() * 2 for t in sharded.values())},
             "weight_map": {n: shard for shard, of_shard in shards.items() for n in of_shard}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")

    expected = {"types": {"metadata": metadata, "tensors": described(tensors)},
                "sharded": {"metadata": {"format": "pt"}, "tensors": described(sharded)}}
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        print(json.dumps(read(sys.argv[2])))
    else:
        FOLDER.mkdir(exist_ok=True)
        write()
