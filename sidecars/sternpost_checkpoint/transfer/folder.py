"""A generation as a folder that needs nothing but numpy: one file with all tensors, decoded, and a description.

`state.json`: `{"generation", "trees": {RANK: {ROLE: NODE}}, "tensors": [{"name", "role", "rank", "dtype", "shape", "offset",
"bytes"}]}`; nodes as FORMAT.md describes them; `rank` is null for what all ranks share. In `tables`, by rank, stands which
tensor (place in `tensors`) each index of that rank's trees means. `tensors.bin`: at each offset the elements, dense, in C
order, little endian.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from sternpost_checkpoint.errors import CheckpointError
from sternpost_checkpoint.format.names import generation_label
from sternpost_checkpoint.restore.reader import GenerationReader
from sternpost_checkpoint.restore.wanted import is_public
from sternpost_checkpoint.shm.layout import align
from sternpost_checkpoint.transfer import safetensors_file
from sternpost_checkpoint.transfer.files import filled, make_empty_folder, write_file
from sternpost_checkpoint.transfer.inventory import Item, inventory
from sternpost_checkpoint.transfer.numbers import NATIVE

STATE = "state.json"
TENSORS = "tensors.bin"


def write_folder(reader: GenerationReader, folder: Path) -> int:
    """Decode a generation into `folder`, which must be empty or missing; returns the bytes of its tensors.

    `state.json` is written last: where it is, the rest is whole. Raises CheckpointError.
    """
    items = inventory(reader)
    offsets, end = [], 0
    for item in items:
        offsets.append(end)
        end = align(end + item.bytes)
    make_empty_folder(folder)
    with filled(folder / TENSORS, end) as memory:
        reader.read(
            item.wanted(memory[offset : offset + item.bytes]) for item, offset in zip(items, offsets, strict=True)
        )
    tensors = [
        {
            "name": item.name,
            "role": item.role,
            "rank": item.rank,
            "dtype": item.dtype,
            "shape": list(item.shape),
            "offset": offset,
            "bytes": item.bytes,
        }
        for item, offset in zip(items, offsets, strict=True)
    ]
    numbers = {(item.name, item.rank): number for number, item in enumerate(items)}
    trees: dict[str, Any] = {}
    tables: dict[str, list[int | None]] = {}
    for part in reader.parts():
        rank = part.index.rank
        trees[str(rank)] = part.index.trees
        tables[str(rank)] = [numbers.get((spec.name, None if is_public(spec) else rank)) for spec in part.specs]
    state = {
        "generation": generation_label(reader.generation),
        "trees": trees,
        "tables": tables,
        "tensors": tensors,
    }
    write_file(folder / STATE, json.dumps(state, indent=1).encode())
    return sum(item.bytes for item in items)


def write_tensor(reader: GenerationReader, item: Item, path: Path) -> None:
    """Decode one tensor into a file whose name says how: .npy, .safetensors, or .bin for the bytes alone.

    Raises CheckpointError.
    """
    match path.suffix:
        case ".npy":
            head = _npy_header(item)
        case ".safetensors":
            entries = safetensors_file.lay_out([(item.name, item.dtype, item.shape)])
            head = safetensors_file.header(entries, {"generation": generation_label(reader.generation)})
        case ".bin":
            head = b""
        case other:
            raise CheckpointError(f"{path}: {other or 'no ending'!r} is none of .npy, .safetensors, .bin")
    with filled(path, len(head) + item.bytes) as memory:
        memory[: len(head)] = head
        reader.read([item.wanted(memory[len(head) :])])


def _npy_header(item: Item) -> bytes:
    if item.dtype not in NATIVE:
        raise CheckpointError(f"{item.label} is of {item.dtype}, which numpy does not have: use .safetensors or .bin")
    text = repr({"descr": np.dtype(NATIVE[item.dtype]).str, "fortran_order": False, "shape": item.shape})
    text += " " * (-(10 + len(text) + 1) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode("latin1")
