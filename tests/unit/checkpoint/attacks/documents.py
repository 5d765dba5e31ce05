"""Manifests and indexes that lie about sizes, counts and names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from attacks.storage import attack, edit_index, edit_manifest, folder, healthy


def index_attack(name: str, words: str, change: Callable[[dict[str, Any]], None]) -> None:
    def make(root: Path) -> None:
        healthy(root)
        edit_index(root, change)

    make.__name__ = name
    attack(words)(make)


def manifest_attack(name: str, words: str, change: Callable[[dict[str, Any]], None]) -> None:
    def make(root: Path) -> None:
        healthy(root)
        edit_manifest(root, change)

    make.__name__ = name
    attack(words)(make)


def first(**changes: Any) -> Callable[[dict[str, Any]], None]:
    """Of the first table entry."""
    return lambda index: index["tensors"][0].update(changes)


def stored(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda index: index["stored"][0].update(changes)


def _huge(index: dict[str, Any]) -> None:
    """2^40 bytes from a few stored ones."""
    index["tensors"][1].update(shape=[2**38], bytes=2**40)


index_attack("tensors_2_to_the_40", "stored.0.tensor", stored(tensor=2**40))
index_attack("tensor_of_2_to_the_40_elements", "do not match", first(shape=[2**40]))
index_attack("tensor_of_2_to_the_40_bytes", "beyond all reason", _huge)
index_attack("shape_that_overflows_64_bits", "over the limit", first(shape=[2**33, 2**33], bytes=0))
index_attack("shape_that_overflows_to_its_size", "over the limit", first(shape=[2**62, 4, 4096], bytes=16384))
index_attack("shape_that_is_negative", "natural number", first(shape=[-1, -4096]))
index_attack("shape_of_booleans", "natural number", first(shape=[True, 4096]))
index_attack("shape_of_floats", "natural number", first(shape=[4096.0]))
index_attack("shape_of_a_million_dimensions", "malformed", first(shape=[1] * 1_000_000))
index_attack("bytes_that_are_too_many", "over the limit", first(shape=[2**47], bytes=2**49))
index_attack("offset_outside", "gaps", lambda index: index["tensors"][1].update(offset=2**40))
index_attack("offsets_that_overlap", "overlaps", lambda index: index["tensors"][1].update(offset=0))
index_attack("offset_not_aligned", "malformed", lambda index: index["tensors"][1].update(offset=16385))
index_attack("stored_offset_that_overflows", "offset", stored(offset=2**63 - 1))
index_attack("stored_bytes_that_overflow", "storedBytes", stored(storedBytes=2**64 - 16))
index_attack("stored_behind_the_end", "ends", stored(storedBytes=2**40))
index_attack("stored_twice", "twice", lambda index: index["stored"].append(index["stored"][0]))
index_attack("shard_that_is_longer_than_the_file", "", lambda index: index.update(shardBytes=2**40))
index_attack("unknown_codec", "'pickle' is unknown", stored(codec="pickle"))
index_attack("codec_with_a_path", "is unknown", stored(codec="../../os.system"))
index_attack("hash_of_other_length", "rawHash", stored(rawHash="00"))
index_attack("two_tensors_of_one_name", "twice", lambda index: index["tensors"][1].update(name="model/w"))
index_attack("role_that_is_not_the_prefix", "role", first(role="optimizer"))
index_attack("name_without_end", "name must be", first(name="model/" + "x" * 10_000_000))
index_attack("unknown_dtype", "unknown dtype", first(dtype="object"))
index_attack("field_that_nobody_knows", "", lambda index: index.update(callback="os.system"))
index_attack("block_outside_of_its_tensor", "", first(replicated=False, shard={"shape": [10], "start": [8]}))
index_attack("block_of_other_dimensions", "", first(replicated=False, shard={"shape": [8192, 1], "start": [0]}))
index_attack("block_at_a_negative_place", "", first(replicated=False, shard={"shape": [8192], "start": [-1]}))
index_attack("block_of_a_tensor_of_2_to_the_60", "", first(replicated=False, shard={"shape": [2**60], "start": [0]}))

manifest_attack("shard_path_upwards", "", lambda m: m["ranks"][0]["shard"].update(name="../../../etc/passwd"))
manifest_attack("shard_path_absolute", "", lambda m: m["ranks"][0]["shard"].update(name="/etc/passwd"))
manifest_attack(
    "index_path_upwards", "", lambda m: m["ranks"][0]["index"].update(name="../000000000001-r000001/rank-00000.json")
)
manifest_attack(
    "shard_of_another_rank", "", lambda m: m["ranks"][0]["shard"].update(name="rank-00001-0000000000000000.shard")
)
manifest_attack("a_million_ranks_that_are_not_there", "ranks 0 to", lambda m: m.update(worldSize=1_000_000))
manifest_attack("more_ranks_than_there_may_be", "worldSize", lambda m: m.update(worldSize=2**40))
manifest_attack("step_of_another", "is about step", lambda m: m.update(step=3))
manifest_attack("step_that_is_a_text", "step", lambda m: m.update(step="2"))
manifest_attack("step_without_end", "step", lambda m: m.update(step=10**4000))
manifest_attack("older_format", "format 1", lambda m: m.update(format=1))


@attack("not a valid Manifest")
def manifest_that_is_nested_without_end(root: Path) -> None:
    healthy(root)
    (folder(root) / "manifest.json").write_bytes(b"[" * 10_000_000)


@attack("not a valid Manifest")
def manifest_that_is_binary(root: Path) -> None:
    healthy(root)
    (folder(root) / "manifest.json").write_bytes(bytes(range(256)) * 100)


@attack("not a valid Manifest")
def manifest_that_is_empty(root: Path) -> None:
    healthy(root)
    (folder(root) / "manifest.json").write_bytes(b"")


@attack("over the limit")
def manifest_of_a_terabyte(root: Path) -> None:
    """Sparse: it takes no room, and would take all memory."""
    healthy(root)
    with (folder(root) / "manifest.json").open("r+b") as file:
        file.truncate(2**40)


@attack("")
def index_of_a_terabyte(root: Path) -> None:
    healthy(root)
    with (folder(root) / "rank-00000.json").open("r+b") as file:
        file.truncate(2**40)
