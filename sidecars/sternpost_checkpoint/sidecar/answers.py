"""Answering the trainer's questions: list, fetch, register."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.errors import (
    CheckpointError,
    FencedError,
    FormatError,
    NotFoundError,
    SharedMemoryError,
    StoreError,
)
from sternpost_checkpoint.format.names import MAX_STEP
from sternpost_checkpoint.format.table import MAX_DIMENSIONS, MAX_NAME_CHARACTERS, MAX_TENSORS, Shard, tensor_bytes
from sternpost_checkpoint.lineage import Generation, eligible
from sternpost_checkpoint.restore.layout import WantedEntry
from sternpost_checkpoint.ring.ring import Ring
from sternpost_checkpoint.shm.layout import SlotHeader
from sternpost_checkpoint.shm.paths import SLOTS, slot_path, status_path
from sternpost_checkpoint.shm.slot import SlotWriter
from sternpost_checkpoint.shm.status import read_status
from sternpost_checkpoint.sidecar.attempt import Attempt
from sternpost_checkpoint.sidecar.fetch import fetch
from sternpost_checkpoint.sidecar.registration import register

_log = structlog.get_logger()

MAX_WORLD = 1_000_000
LISTED = 100
"""Generations of each source that are offered, the newest first."""


class _Request(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class ListRequest(_Request):
    """What can be restored."""

    type: Literal["list"]
    world_size: int | None = Field(None, ge=1, le=MAX_WORLD)
    """Of the training that asks; None: as when it was saved."""


class ShardRequest(_Request):
    """Where a block lies."""

    shape: list[int] = Field(max_length=MAX_DIMENSIONS)
    start: list[int] = Field(max_length=MAX_DIMENSIONS)


class TensorRequest(_Request):
    """A tensor as it is needed."""

    name: str = Field(min_length=1, max_length=MAX_NAME_CHARACTERS)
    dtype: str = Field(max_length=32)
    shape: list[int] = Field(max_length=MAX_DIMENSIONS)
    shard: ShardRequest | None = None

    def to_entry(self) -> WantedEntry:
        """Raises FormatError for a block that is none of its tensor."""
        shape = tuple(self.shape)
        tensor_bytes(self.dtype, shape)
        if self.shard is None:
            return WantedEntry(self.name, self.dtype, shape)
        whole, start = tuple(self.shard.shape), tuple(self.shard.start)
        tensor_bytes(self.dtype, whole)
        if not len(shape) == len(whole) == len(start) or any(
            extent < 0 or begin < 0 or begin + extent > end
            for extent, begin, end in zip(shape, start, whole, strict=True)
        ):
            raise FormatError(f"{self.name!r}: the block at {list(start)} of {list(shape)} is outside of {list(whole)}")
        return WantedEntry(self.name, self.dtype, shape, Shard(whole, start))


class FetchRequest(_Request):
    """Bring a generation into a slot, from wherever it is."""

    type: Literal["fetch"]
    step: int = Field(ge=0)
    run: int = Field(ge=0)
    wanted: list[TensorRequest] = Field([], max_length=MAX_TENSORS)
    """Tensors that shall be blocks."""


class RegisterRequest(_Request):
    """The training goes on from here."""

    type: Literal["register"]
    attempt_number: int = Field(ge=0)
    attempt_id: str = Field(max_length=64)
    restored_step: int = Field(ge=0)
    restored_run: int | None = Field(ge=0)
    token: str = Field(min_length=1, max_length=64)


_REQUESTS: TypeAdapter[ListRequest | FetchRequest | RegisterRequest] = TypeAdapter(
    ListRequest | FetchRequest | RegisterRequest
)


class Answers:
    """Answers the questions of one rank. Never raises CheckpointError or OSError: the answer carries the error."""

    def __init__(
        self,
        catalog: Catalog,
        job_uid: str,
        current_attempt: Callable[[], Attempt | None],
        fetched: Callable[[int, int, SlotHeader, bool], None],
        failed: Callable[[str], None],
        *,
        ring: Ring | None = None,
    ) -> None:
        self._catalog = catalog
        self._job_uid = job_uid
        self._current_attempt = current_attempt
        self._failed = failed
        """Told why a question could not be answered as the trainer hoped."""
        self._fetched = fetched
        """Told the rank, the slot, the header, and whether it is committed, of what was fetched, before the trainer is."""
        self._ring = ring

    def answer(self, rank: int, directory: Path, body: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to one question; `error.kind` is `damaged`, `storage`, `memory`, `superseded`, `request`."""
        try:
            request = _REQUESTS.validate_python(body)
            if isinstance(request, ListRequest):
                return self._list(rank, directory, request.world_size)
            if isinstance(request, FetchRequest):
                wanted = [entry.to_entry() for entry in request.wanted]
                return self._fetch(rank, directory, Generation(request.step, request.run), wanted)
            number = register(
                self._catalog,
                job_uid=self._job_uid,
                attempt=Attempt(request.attempt_number, request.attempt_id),
                current=self._current_attempt(),
                restored_step=request.restored_step,
                restored_run=request.restored_run,
                token=request.token,
            )
        except (CheckpointError, OSError, ValidationError) as error:
            kind = _kind(error)
            _log.error("a request failed", rank=rank, kind=kind, reason=str(error))  # the reason says it
            self._failed(str(error))
            return {"error": {"kind": kind, "message": str(error)}}
        return {"run": number}

    def _list(self, rank: int, directory: Path, world_size: int | None) -> dict[str, Any]:
        found = [files.generation for files in self._catalog.generations() if files.complete]
        runs = self._catalog.runs()
        memory = []
        for slot, header in _ready(directory):
            if eligible(Generation(*header.generation), runs):
                memory.append([header.step, header.run, slot])
        on_line = sorted((generation for generation in found if eligible(generation, runs)), reverse=True)
        peer = [item for item in self._ring.offers(rank, world_size) if eligible(item, runs)] if self._ring else []
        return {
            "storage": [[item.step, item.run] for item in on_line[:LISTED]],
            "memory": memory,
            "peer": [[item.step, item.run] for item in peer[:LISTED]],
        }

    def _fetch(self, rank: int, directory: Path, generation: Generation, wanted: list[WantedEntry]) -> dict[str, Any]:
        runs = self._catalog.runs()
        ready = _ready(directory)

        def value(slot: int) -> tuple[bool, Generation]:
            generation_there = next((Generation(*header.generation) for index, header in ready if index == slot), None)
            if generation_there is None:
                return (False, Generation(-1, -1))
            if generation_there == generation:
                return (True, Generation(MAX_STEP + 1, 0))  # undamaged tensors of it are used
            return (eligible(generation_there, runs), generation_there)

        # Over the least valuable slot: unreadable, abandoned, older.
        index = min(range(SLOTS), key=value)
        known = [header.sequence for _, header in ready]
        sequence = max([read_status(status_path(directory)).highest_sequence, *known]) + 1
        slot = SlotWriter.open(slot_path(directory, index))
        found = fetch(self._catalog, generation, rank, slot, sequence, wanted=wanted, ring=self._ring)
        self._fetched(rank, index, found.header, found.committed)
        _log.info("fetched", rank=rank, step=generation.step, run=generation.run, bytes=found.sources)
        return {"slot": index, "sources": found.sources}


def _ready(directory: Path) -> list[tuple[int, SlotHeader]]:
    found = []
    for index in range(SLOTS):
        try:
            header = SlotWriter.open(slot_path(directory, index)).header()
        except FormatError as error:
            _log.warning("a slot is not used", reason=str(error))
            continue
        if header is not None:
            found.append((index, header))
    return found


def _kind(error: Exception) -> str:
    if isinstance(error, FencedError):
        return "superseded"
    if isinstance(error, SharedMemoryError):
        return "memory"
    if isinstance(error, FormatError | NotFoundError):
        return "damaged"
    if isinstance(error, ValidationError):
        return "request"
    return "storage" if isinstance(error, StoreError | OSError) else "damaged"
