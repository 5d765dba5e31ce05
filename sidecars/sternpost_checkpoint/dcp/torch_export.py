"""A generation as a folder of torch.distributed.checkpoint, written by torch itself."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save

from sternpost_checkpoint.client.tree import decode
from sternpost_checkpoint.dcp.contents import Contents, Value
from sternpost_checkpoint.dcp.tree import nest
from sternpost_checkpoint.restore.reader import GenerationReader
from sternpost_checkpoint.restore.wanted import Wanted
from sternpost_checkpoint.transfer.files import make_empty_folder


def export_dcp(reader: GenerationReader, folder: Path) -> list[Path]:
    """Write `folder`, which must be empty or missing; the state is in memory meanwhile. Raises CheckpointError."""
    contents = Contents(reader)
    make_empty_folder(folder)
    values = {key: _value(contents, value) for key, value in contents.values.items()}
    state = nest(values, {key: value.path for key, value in contents.values.items()})
    with warnings.catch_warnings():
        # That there is only this process is meant.
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        save(state, storage_writer=FileSystemWriter(folder), no_dist=True)
    return sorted(path for path in folder.iterdir() if path.is_file())


def _value(contents: Contents, value: Value) -> Any:
    if value.tensor is not None:
        tensor = value.tensor
        return _read(contents, tensor.name, tensor.dtype, tensor.shape, tensor.rank)
    specs = value.part.specs
    tensors = {
        number: _read(contents, specs[number].name, specs[number].dtype, specs[number].shape, value.part.index.rank)
        for number in value.inner
    }
    return decode(value.encoded, [tensors.get(number) for number in range(len(specs))])


def _read(contents: Contents, name: str, dtype: str, shape: tuple[int, ...], rank: int) -> torch.Tensor:
    made = torch.empty(shape, dtype=getattr(torch, dtype))
    if made.numel():
        target = made.reshape(-1).view(torch.uint8).numpy().data
        contents.reader.read([Wanted(name, dtype, shape, target, rank=rank)])
    return made
