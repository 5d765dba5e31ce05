"""How others save: each a function of the state that returns when the training may go on."""

from __future__ import annotations

import importlib.util
import shutil
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType

State = dict[str, Any]


def flat_tensors(state: State, prefix: str = "") -> dict[str, torch.Tensor]:
    """The tensors of a nested state, by path."""
    found: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        if isinstance(value, dict):
            found |= flat_tensors(value, f"{prefix}{key}/")
        elif isinstance(value, torch.Tensor):
            found[f"{prefix}{key}"] = value.detach()
    return found


@dataclass
class Peer:
    """One way to save. `finish` waits for what goes on in the background, outside of the measured time."""

    name: str
    save: Callable[[State, Path], None]
    finish: Callable[[], None] = lambda: None
    close: Callable[[], None] = lambda: None
    folder: str = "memory"


def _torch_save(state: State, path: Path) -> None:
    torch.save(state, path / "state.pt")


def _safetensors(state: State, path: Path) -> None:
    save_file(flat_tensors(state), path / "state.safetensors")


def _dcp_save(state: State, path: Path) -> None:
    dcp.save(flat_tensors(state), checkpoint_id=path / "dcp")


def _async(
    name: str,
    options: StagingOptions,
    kind: AsyncCheckpointerType = AsyncCheckpointerType.THREAD,
    *,
    reuse: bool = True,
) -> Peer:
    stager = DefaultStager(options) if reuse else None
    pending: list[Future[Any]] = []

    def save(state: State, path: Path) -> None:
        response: Any = dcp.async_save(
            flat_tensors(state), checkpoint_id=path / "dcp", async_checkpointer_type=kind, async_stager=stager
        )
        if isinstance(response, Future):
            pending.append(response)
        else:
            response.staging_completion.result()  # before it the weights must not change
            pending.append(response.upload_completion)

    def finish() -> None:
        while pending:
            pending.pop().result()

    return Peer(name, save, finish, stager.close if stager is not None else lambda: None)


def _torchsnapshot() -> Iterator[Peer]:
    if importlib.util.find_spec("torchsnapshot") is None:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchsnapshot import Snapshot, StateDict  # noqa: PLC0415 # only if it is installed

    pending: list[Any] = []

    def take(state: State, path: Path) -> None:
        Snapshot.take(str(path / "snapshot"), {"state": StateDict(**flat_tensors(state))})

    def take_async(state: State, path: Path) -> None:
        pending.append(Snapshot.async_take(str(path / "snapshot"), {"state": StateDict(**flat_tensors(state))}))

    def finish() -> None:
        while pending:
            pending.pop().wait()

    yield Peer("torchsnapshot.take", take)
    yield Peer("torchsnapshot.async_take", take_async, finish)


def peers(*, with_process: bool) -> list[Peer]:
    """All that are there. The process of `dcp.async_save` needs torch.distributed to be initialised."""
    found = [
        Peer("torch.save to memory", _torch_save),
        Peer("torch.save to disk", _torch_save, folder="disk"),
        Peer("safetensors", _safetensors),
        Peer("dcp.save", _dcp_save),
        _async("dcp.async_save, thread, reused stager", StagingOptions(False, False, False, False)),
        _async("dcp.async_save, asynchronous staging", StagingOptions(False, False, True, False)),
        *_torchsnapshot(),
    ]
    if with_process:
        options = StagingOptions(False, True, False, False)
        found.append(_async("dcp.async_save, process, reused stager", options, AsyncCheckpointerType.PROCESS))
    return found


def clear(folder: Path) -> None:
    """Remove what a peer has written."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
