"""Making a generation complete: whoever finds all ranks' files there writes the manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from enum import StrEnum

import structlog
import xxhash

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.errors import FencedError, FormatError, NotFoundError
from sternpost_checkpoint.format.documents import (
    MAX_DOCUMENT_BYTES,
    MAX_SMALL_DOCUMENT_BYTES,
    FileEntry,
    Index,
    Latest,
    LedgerEntry,
    Manifest,
    RankEntry,
    parse,
)
from sternpost_checkpoint.format.names import (
    LATEST,
    MANIFEST,
    generation_folder,
    index_name,
    ledger_path,
    manifest_path,
)
from sternpost_checkpoint.format.table import TensorSpec
from sternpost_checkpoint.gc import collect
from sternpost_checkpoint.lineage import Generation, eligible
from sternpost_checkpoint.store.base import Store

_log = structlog.get_logger()


class Outcome(StrEnum):
    """What a try came to."""

    WAITING = "waiting"
    """Other ranks' files are missing."""
    COMMITTED = "committed"


def try_commit(
    catalog: Catalog, generation: Generation, world_size: int, keep: int, may_commit: Callable[[], None]
) -> Outcome:
    """Commit the generation if all its parts are there. Idempotent, and several may try at once.

    Order: manifest (the commit itself), ledger, pointer, collection. `may_commit` is asked last before the manifest
    and raises FencedError to forbid it. Raises FencedError, StoreError, FormatError.
    """
    files = catalog.files_of(generation)
    if MANIFEST in files:
        manifest = catalog.manifest(generation)
    else:
        if any(index_name(rank) not in files for rank in range(world_size)):
            return Outcome.WAITING
        manifest, indexes = build_manifest(catalog.store, generation, world_size, files)
        check_bases(catalog, indexes)
        may_commit()
        check_eligible(catalog, generation)
        # Another one may have been faster; its bytes are the same.
        if catalog.store.put_if_absent(manifest_path(generation), manifest.to_bytes()):
            _log.info(
                "committed",
                step=generation.step,
                run=generation.run,
                raw_bytes=manifest.raw_bytes,
                stored_bytes=manifest.stored_bytes,
            )
    write_ledger(catalog.store, manifest)
    advance_latest(catalog, manifest)
    for garbage in collect(catalog, keep):
        _log.info("collected", step=garbage.step, run=garbage.run)
    return Outcome.COMMITTED


def check_eligible(catalog: Catalog, generation: Generation) -> None:
    """Raise FencedError when the training has gone on without this generation."""
    runs = catalog.runs()
    if not eligible(generation, runs):
        newest = max(runs, key=lambda run: run.number)
        raise FencedError(
            f"step {generation.step} of run {generation.run} is not committed: attempt {newest.attempt_id} has gone on"
            f" from step {newest.restored_step}"
        )


def build_manifest(
    store: Store, generation: Generation, world_size: int, files: dict[str, int]
) -> tuple[Manifest, list[Index]]:
    """Put the ranks' indexes together: a function of their bytes alone. Raises FormatError when they do not match."""
    folder = generation_folder(generation)
    ranks: list[RankEntry] = []
    indexes: list[Index] = []
    for rank in range(world_size):
        name = folder + index_name(rank)
        data = store.get(name, MAX_DOCUMENT_BYTES)
        index = parse(Index, data, name)
        if (index.generation, index.rank, index.world_size) != (generation, rank, world_size):
            raise FormatError(f"{name} is about rank {index.rank} of {index.world_size}, step {index.step}")
        if files.get(index.shard) != index.shard_bytes:
            raise FormatError(f"{folder}{index.shard} has {files.get(index.shard, 0)} bytes, not {index.shard_bytes}")
        if indexes and (index.attempt_id, index.replicated) != (indexes[0].attempt_id, indexes[0].replicated):
            raise FormatError(f"{name} is of attempt {index.attempt_id}, rank 0 of {indexes[0].attempt_id}")
        indexes.append(index)
        ranks.append(
            RankEntry(
                rank=rank,
                shard=FileEntry(name=index.shard, bytes=index.shard_bytes, hash=index.shard_hash),
                index=FileEntry(name=index_name(rank), bytes=len(data), hash=xxhash.xxh3_128_hexdigest(data)),
                raw_bytes=index.raw_bytes,
                blocked_seconds=index.blocked_seconds,
                memcpy_floor_seconds=index.memcpy_floor_seconds,
            )
        )
    first = indexes[0]
    manifest = Manifest(
        step=generation.step,
        run=generation.run,
        job_uid=first.job_uid,
        attempt_number=first.attempt_number,
        attempt_id=first.attempt_id,
        world_size=world_size,
        saved_at=first.saved_at,
        replicated=first.replicated,
        weights_hash=weights_hash(indexes),
        raw_bytes=sum(entry.raw_bytes for entry in ranks),
        stored_bytes=sum(entry.shard.bytes for entry in ranks),
        bases=sorted({(index.base.step, index.base.run) for index in indexes if index.base is not None}),
        chain=max(index.chain for index in indexes),
        ranks=ranks,
    )
    return manifest, indexes


def check_bases(catalog: Catalog, indexes: list[Index]) -> None:
    """Raise FormatError unless every parent that the deltas need is committed, and is the very one they need."""
    manifests: dict[Generation, Manifest] = {}
    for index in indexes:
        if index.base is None:
            continue
        parent = index.base.generation
        where = f"step {index.step}, rank {index.rank}: its base, step {parent.step} of run {parent.run},"
        try:
            manifest = manifests.get(parent) or catalog.manifest(parent)
        except NotFoundError as error:
            raise FormatError(f"{where} is not there any more") from error
        manifests[parent] = manifest
        if index.rank >= manifest.world_size or manifest.ranks[index.rank].shard.hash != index.base.shard_hash:
            raise FormatError(f"{where} is not the one that it was encoded against")
        if index.chain != manifest.chain + 1:
            raise FormatError(f"{where} has a chain of {manifest.chain}, it says one of {index.chain}")


def weights_hash(indexes: list[Index]) -> str:
    """SHA-256 over the sorted lines `NAME DTYPE SHAPE HASH` of the tensors with role model.

    NAME is without the role; of a block, `@START` follows; of a tensor that each rank has its own of, it begins with
    `rank-N/`. Blocks without elements are left out. Raises FormatError when a weight is not stored exactly once.
    """
    lines: dict[str, str] = {}
    expected: set[str] = set()
    for index in indexes:
        specs = [index.spec(number) for number in range(len(index.tensors))]
        expected.update(_weight_name(index, spec) for spec in specs if _is_weight(spec))
        for entry in index.stored:
            spec = specs[entry.tensor]
            if _is_weight(spec):
                name = _weight_name(index, spec)
                if name in lines:
                    raise FormatError(f"the weight {name!r} is stored by two ranks")
                lines[name] = f"{name} {spec.dtype} {_numbers(spec.shape)} {entry.raw_hash}\n"
    missing = expected - lines.keys()
    if missing:
        raise FormatError(f"the weight {min(missing)!r} is stored by no rank")
    return hashlib.sha256("".join(sorted(lines.values())).encode()).hexdigest()


def _is_weight(spec: TensorSpec) -> bool:
    return spec.role == "model" and (spec.shard is None or spec.bytes > 0)


def _weight_name(index: Index, spec: TensorSpec) -> str:
    plain = spec.name.removeprefix("model/")
    if spec.shard is not None:
        return f"{plain}@{_numbers(spec.shard.start)}"
    return plain if spec.replicated else f"rank-{index.rank}/{plain}"


def _numbers(values: tuple[int, ...]) -> str:
    return ",".join(map(str, values))


def write_ledger(store: Store, manifest: Manifest) -> None:
    """Remember the generation beyond its collection."""
    entry = LedgerEntry(
        step=manifest.step,
        run=manifest.run,
        job_uid=manifest.job_uid,
        attempt_number=manifest.attempt_number,
        attempt_id=manifest.attempt_id,
        world_size=manifest.world_size,
        saved_at=manifest.saved_at,
        raw_bytes=manifest.raw_bytes,
        stored_bytes=manifest.stored_bytes,
        blocked_seconds=_longest([rank.blocked_seconds for rank in manifest.ranks]),
        memcpy_floor_seconds=_longest([rank.memcpy_floor_seconds for rank in manifest.ranks]),
        weights_hash=manifest.weights_hash,
    )
    store.put_if_absent(ledger_path(manifest.generation), entry.to_bytes())


def _longest(seconds: list[float | None]) -> float | None:
    return max((value for value in seconds if value is not None), default=None)


def advance_latest(catalog: Catalog, manifest: Manifest) -> None:
    """Move the pointer to this generation, unless it points to a newer one on the current line."""
    store = catalog.store
    generation = manifest.generation
    data = Latest(
        step=manifest.step,
        run=manifest.run,
        manifest=manifest_path(generation),
        manifest_hash=xxhash.xxh3_128_hexdigest(manifest.to_bytes()),
    ).to_bytes()
    while True:
        current = store.get_or_none(LATEST, MAX_SMALL_DOCUMENT_BYTES)
        if current is not None:
            try:
                pointed = parse(Latest, current, LATEST).generation
            except FormatError as error:
                _log.warning("the pointer is damaged and is written anew", reason=str(error))
            else:
                runs = catalog.runs()
                if pointed >= generation and eligible(pointed, runs):
                    return
                if not eligible(generation, runs):
                    return
        # False: someone moved it in between; look again.
        if store.replace(LATEST, data, current):
            return


def is_committed(catalog: Catalog, generation: Generation) -> bool:
    """Whether the manifest is there."""
    try:
        catalog.store.size(manifest_path(generation))
    except NotFoundError:
        return False
    return True
