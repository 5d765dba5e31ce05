"""Exporting a generation's tensors to safetensors, and importing such files as a generation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.errors import CheckpointError, FormatError
from sternpost_checkpoint.format.documents import Manifest
from sternpost_checkpoint.format.names import check_name, generation_label
from sternpost_checkpoint.format.table import TensorSpec
from sternpost_checkpoint.restore.reader import GenerationReader
from sternpost_checkpoint.shm.layout import align
from sternpost_checkpoint.transfer import safetensors_file
from sternpost_checkpoint.transfer.files import filled, make_empty_folder, write_file
from sternpost_checkpoint.transfer.inventory import Item, inventory
from sternpost_checkpoint.transfer.safetensors_file import Entry, SafetensorsFile
from sternpost_checkpoint.transfer.writing import Data, write_whole

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
MAX_INDEX_BYTES = 256 * 2**20


def export_safetensors(reader: GenerationReader, folder: Path, *, role: str | None, max_bytes: int) -> list[Path]:
    """Write the tensors of `role` (None: of all, under their whole names) into files of at most `max_bytes`, or one tensor.

    One file is `model.safetensors`; several come with the index that Hugging Face's libraries read. Raises CheckpointError.
    """
    chosen = [item for item in inventory(reader) if role is None or item.role == role]
    if not chosen:
        raise CheckpointError(f"{generation_label(reader.generation)} has no tensor of role {role!r}")
    names = {item.label: _plain(item, role) for item in chosen}
    if len(set(names.values())) != len(names):
        raise FormatError(f"{generation_label(reader.generation)}: two tensors would have one name; export all roles")
    groups = _split(chosen, max_bytes)
    make_empty_folder(folder)
    paths = []
    for number, group in enumerate(groups, start=1):
        path = folder / (SINGLE if len(groups) == 1 else f"model-{number:05d}-of-{len(groups):05d}.safetensors")
        _write(reader, path, group, names)
        paths.append(path)
    if len(groups) > 1:
        index = {
            "metadata": {"total_size": sum(item.bytes for item in chosen)},
            "weight_map": {
                names[item.label]: path.name for path, group in zip(paths, groups, strict=True) for item in group
            },
        }
        write_file(folder / INDEX, json.dumps(index, indent=2).encode())
    return paths


def _plain(item: Item, role: str | None) -> str:
    return item.label if role is None else item.label.partition("/")[2]


def _split(items: Sequence[Item], max_bytes: int) -> list[list[Item]]:
    groups: list[list[Item]] = [[]]
    size = 0
    for item in items:
        if groups[-1] and size + item.bytes > max_bytes:
            groups.append([])
            size = 0
        groups[-1].append(item)
        size += item.bytes
    return groups


def _write(reader: GenerationReader, path: Path, items: Sequence[Item], names: dict[str, str]) -> None:
    by_name = {names[item.label]: item for item in items}
    entries = safetensors_file.lay_out([(name, item.dtype, item.shape) for name, item in by_name.items()])
    head = safetensors_file.header(entries, {"format": "pt", "generation": generation_label(reader.generation)})
    with filled(path, len(head) + max((entry.end for entry in entries), default=0)) as memory:
        memory[: len(head)] = head
        body = memory[len(head) :]
        reader.read(by_name[entry.name].wanted(body[entry.start : entry.end]) for entry in entries)


def import_safetensors(catalog: Catalog, source: Path, step: int | None) -> Manifest:
    """Store the tensors of a file, or of a folder of files, as the model of a new generation. Raises CheckpointError."""
    opened: list[tuple[SafetensorsFile, Entry]] = []
    for path in _files(source):
        file = SafetensorsFile(path)
        opened += [(file, entry) for entry in file.entries]
    if len({entry.name for _, entry in opened}) != len(opened):
        raise FormatError(f"{source}: a tensor stands in two files")
    opened.sort(key=lambda pair: pair[1].name)
    specs: list[TensorSpec] = []
    data: list[Data] = []
    offset = 0
    for file, entry in opened:
        size = entry.end - entry.start
        specs.append(
            TensorSpec(
                f"model/{entry.name}", "model", entry.dtype, entry.shape, offset, size, replicated=True, stored=True
            )
        )
        data.append(lambda file=file, entry=entry: file.data(entry))  # type: ignore[misc]
        offset = align(offset + size)
    items: list[Any] = [[entry.name, {"$": "tensor", "index": number}] for number, (_, entry) in enumerate(opened)]
    return write_whole(catalog, step, specs, data, {"model": tree_of(items)})


def tree_of(items: list[Any]) -> Any:
    """The node of a dictionary with these keys and nodes."""
    if any(key.startswith("$") for key, _ in items):
        return {"$": "dict", "items": items}
    return dict(items)


def _files(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    index = source / INDEX
    if not index.exists():
        found = sorted(source.glob("*.safetensors"))
        if not found:
            raise CheckpointError(f"{source} holds no .safetensors file")
        return found
    try:
        data = index.read_bytes()
        if len(data) > MAX_INDEX_BYTES:
            raise FormatError(f"{index} has {len(data)} bytes: it is no index of safetensors files")
        names = set(json.loads(data)["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(f"{index} cannot be read: {error}") from error
    for name in names:
        # Only files beside it: an index comes from elsewhere.
        if not isinstance(name, str) or "/" in name:
            raise FormatError(f"{index} names {name!r}, which is no file beside it")
        check_name(name)
    return sorted(source / name for name in names)
