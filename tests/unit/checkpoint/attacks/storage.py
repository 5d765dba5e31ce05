"""A healthy storage to spoil, and putting hashes right again, so that only the attack itself is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from generation_builder import Builder, Tensor

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.format.names import manifest_path
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.sidecar.commit import build_manifest
from sternpost_checkpoint.store.file import FileStore

WEIGHT = np.arange(4096, dtype=np.float32)
BASE = Generation(1, 1)
VICTIM = Generation(2, 1)


@dataclass(frozen=True)
class Attack:
    name: str
    make: Callable[[Path], None]
    words: str


ATTACKS: list[Attack] = []


def attack(words: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Register a function that makes a storage; `words` must stand in the error, as must the name of a file."""

    def add(make: Callable[[Path], None]) -> Callable[[Path], None]:
        ATTACKS.append(Attack(make.__name__, make, words))
        return make

    return add


def healthy(root: Path) -> Builder:
    """Steps 1 and 2; the second is a delta (mask) against the first."""
    builder = Builder(FileStore(root))
    builder.generation(1, [tensors(WEIGHT)])
    new = WEIGHT.copy()
    new[7] = -1
    builder.generation(2, [tensors(new, base=WEIGHT)], parent=BASE)
    for generation in (BASE, VICTIM):
        seal(root, generation)
    return builder


def seal(root: Path, generation: Generation) -> None:
    """The manifest that the indexes make."""
    store = FileStore(root)
    files = Catalog(store).files_of(generation)
    manifest, _ = build_manifest(store, generation, 1, files)
    store.put(manifest_path(generation), [manifest.to_bytes()])


def tensors(values: np.ndarray, base: np.ndarray | None = None) -> list[Tensor]:
    return [
        Tensor(
            "model/w", values, codec="xor-planes" if base is not None else "zstd-planes", replicated=True, base=base
        ),
        Tensor("model/b", values[:16].copy(), replicated=True),
    ]


def folder(root: Path, generation: Generation = VICTIM) -> Path:
    return root / "generations" / f"{generation.step:012d}-r{generation.run:06d}"


def edit_index(root: Path, change: Callable[[dict[str, Any]], None], generation: Generation = VICTIM) -> None:
    """Change an index, and the manifest's words about it."""
    path = folder(root, generation) / "rank-00000.json"
    index = json.loads(path.read_text())
    change(index)
    data = json.dumps(index).encode()
    path.write_bytes(data)
    entry = {"index": {"bytes": len(data), "hash": xxhash.xxh3_128_hexdigest(data)}}
    shard = {key: index[name] for key, name in (("name", "shard"), ("bytes", "shardBytes"), ("hash", "shardHash"))}

    def reseal(manifest: dict[str, Any]) -> None:
        manifest["ranks"][0]["index"].update(entry["index"])
        manifest["ranks"][0]["shard"].update(shard)

    edit_manifest(root, reseal, generation)


def edit_manifest(root: Path, change: Callable[[dict[str, Any]], None], generation: Generation = VICTIM) -> None:
    path = folder(root, generation) / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def edit_stored(root: Path, number: int, data: bytes, generation: Generation = VICTIM) -> None:
    """Other stored bytes for a tensor, with hashes and places that fit them."""
    index = json.loads((folder(root, generation) / "rank-00000.json").read_text())
    path = folder(root, generation) / index["shard"]
    old = path.read_bytes()
    entry = index["stored"][number]
    shard = old[: entry["offset"]] + data + old[entry["offset"] + entry["storedBytes"] :]
    path.write_bytes(shard)
    moved = len(data) - entry["storedBytes"]

    def change(index: dict[str, Any]) -> None:
        index["stored"][number].update(storedBytes=len(data), storedHash=xxhash.xxh3_128_hexdigest(data))
        for later in index["stored"][number + 1 :]:
            later["offset"] += moved
        index.update(shardBytes=len(shard), shardHash=xxhash.xxh3_128_hexdigest(shard))

    edit_index(root, change, generation)
