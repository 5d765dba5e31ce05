"""A second reader of checkpoints, written from FORMAT.md alone: it imports nothing of the engine.

`read(root, step, run)` gives {(name, rank or None): bytes}; a tensor in blocks is put together. Codecs stand in
second_reader_codecs.py.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import second_reader_codecs as codecs
import xxhash

WIDTHS = {
    "bool": 1,
    "uint8": 1,
    "int8": 1,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "uint16": 2,
    "int16": 2,
    "bfloat16": 2,
}
WIDTHS |= {"float16": 2, "uint32": 4, "int32": 4, "float32": 4, "uint64": 8, "int64": 8, "float64": 8, "complex64": 8}
WIDTHS |= {"complex128": 16}


def same_hash(data: bytes, expected: str) -> None:
    """xxh3-128, canonical, as 32 lower case hex digits."""
    assert xxhash.xxh3_128_hexdigest(data) == expected


class Generation:
    """Section 2: a folder with a manifest, which names an index for each rank, which names a shard."""

    def __init__(self, root: Path, step: int, run: int) -> None:
        self.root = root
        self.folder = root / "generations" / f"{step:012d}-r{run:06d}"
        self.manifest = json.loads((self.folder / "manifest.json").read_bytes())
        assert (self.manifest["format"], self.manifest["step"], self.manifest["run"]) == (2, step, run)
        self.indexes: list[dict[str, Any]] = []
        self.shards: list[bytes] = []
        for number, rank in enumerate(self.manifest["ranks"]):
            data = (self.folder / f"rank-{number:05d}.json").read_bytes()
            assert len(data) == rank["index"]["bytes"]
            same_hash(data, rank["index"]["hash"])
            index = json.loads(data)
            shard = (self.folder / index["shard"]).read_bytes()
            assert (rank["shard"]["name"], len(shard)) == (index["shard"], index["shardBytes"])
            same_hash(shard, index["shardHash"])
            assert struct.unpack_from("<8sII", shard) == (b"STERNSHD", 2, 0)
            self.indexes.append(index)
            self.shards.append(shard)
        self._decoded: dict[tuple[int, int], bytes] = {}

    def tensor(self, rank: int, number: int) -> bytes:
        """Tensor `number` of a rank's table, decoded: with its companion and its base, if it needs them."""
        if (rank, number) not in self._decoded:
            index = self.indexes[rank]
            entry = next(item for item in index["stored"] if item["tensor"] == number)
            spec = index["tensors"][number]
            stored = self.shards[rank][entry["offset"] : entry["offset"] + entry["storedBytes"]]
            same_hash(stored, entry["storedHash"])
            companion = entry["companion"]
            raw = codecs.decode(
                entry["codec"],
                stored,
                spec["bytes"],
                WIDTHS[spec["dtype"]],
                dtype=spec["dtype"],
                base=self._base(index, rank, spec) if entry["delta"] else None,
                companion=self.tensor(rank, companion) if companion is not None else None,
                companion_dtype=index["tensors"][companion]["dtype"] if companion is not None else None,
            )
            assert len(raw) == spec["bytes"]
            same_hash(raw, entry["rawHash"])
            self._decoded[rank, number] = raw
        return self._decoded[rank, number]

    def _base(self, index: dict[str, Any], rank: int, spec: dict[str, Any]) -> bytes:
        """The tensor of the same name, dtype, shape and block in the same rank's index of the base."""
        parent = Generation(self.root, index["base"]["step"], index["base"]["run"])
        assert parent.indexes[rank]["shardHash"] == index["base"]["shardHash"]
        for entry in parent.indexes[rank]["stored"]:
            other = parent.indexes[rank]["tensors"][entry["tensor"]]
            if all(other.get(key) == spec.get(key) for key in ("name", "dtype", "shape", "shard")):
                return parent.tensor(rank, entry["tensor"])
        raise AssertionError(f"the base has no {spec['name']}")


def read(root: Path, step: int, run: int) -> dict[tuple[str, int | None], bytes]:
    """Every tensor of a generation, whole."""
    generation = Generation(root, step, run)
    found: dict[tuple[str, int | None], bytes] = {}
    wholes: dict[str, np.ndarray] = {}
    for rank, index in enumerate(generation.indexes):
        for entry in index["stored"]:
            spec = index["tensors"][entry["tensor"]]
            data = generation.tensor(rank, entry["tensor"])
            block = spec.get("shard")
            if block is None:
                found[spec["name"], None if spec["replicated"] else rank] = data
                continue
            width = WIDTHS[spec["dtype"]]
            whole = wholes.setdefault(spec["name"], np.zeros((*block["shape"], width), dtype=np.uint8))
            place = tuple(slice(start, start + size) for start, size in zip(block["start"], spec["shape"], strict=True))
            whole[place] = np.frombuffer(data, dtype=np.uint8).reshape(*spec["shape"], width)
    return found | {(name, None): whole.tobytes() for name, whole in wholes.items()}
