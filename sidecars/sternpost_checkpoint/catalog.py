"""What is in a storage: runs, generations, manifests."""

from __future__ import annotations

from dataclasses import dataclass

import xxhash

from sternpost_checkpoint.errors import FormatError, NotFoundError
from sternpost_checkpoint.format.documents import (
    MAX_DOCUMENT_BYTES,
    MAX_SMALL_DOCUMENT_BYTES,
    Index,
    LedgerEntry,
    Manifest,
    RankEntry,
    RunDocument,
    parse,
)
from sternpost_checkpoint.format.names import (
    GENERATIONS,
    LEDGER,
    MANIFEST,
    RUNS,
    generation_folder,
    manifest_path,
    parse_label,
    parse_ledger_path,
    parse_run_path,
)
from sternpost_checkpoint.lineage import Generation, Run
from sternpost_checkpoint.store.base import Store


@dataclass(frozen=True)
class GenerationFiles:
    """A generation's folder."""

    generation: Generation
    files: dict[str, int]
    """File name to bytes."""

    @property
    def complete(self) -> bool:
        """Whether its manifest is there."""
        return MANIFEST in self.files


class Catalog:
    """Reads a storage; remembers what never changes: the runs, and which generations build on which."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._runs: dict[int, RunDocument] = {}
        self._parents: dict[Generation, list[Generation]] = {}

    def run_documents(self) -> list[RunDocument]:
        """Every registered run, by number. Raises FormatError for a damaged one."""
        for entry in self.store.list(RUNS):
            number = parse_run_path(entry.name)
            if number is not None and number not in self._runs:
                document = parse(RunDocument, self.store.get(entry.name, MAX_SMALL_DOCUMENT_BYTES), entry.name)
                if document.number != number:
                    raise FormatError(f"{entry.name} is about run {document.number}")
                self._runs[number] = document
        return [self._runs[number] for number in sorted(self._runs)]

    def runs(self) -> list[Run]:
        """Every registered run, as the lineage sees it."""
        return [document.to_run() for document in self.run_documents()]

    def generations(self) -> list[GenerationFiles]:
        """Every generation that has a file, oldest first."""
        found: dict[Generation, dict[str, int]] = {}
        for entry in self.store.list(GENERATIONS):
            label, _, file_name = entry.name.removeprefix(GENERATIONS).partition("/")
            generation = parse_label(label)
            if generation is not None and file_name:
                found.setdefault(generation, {})[file_name] = entry.bytes
        return [GenerationFiles(generation, found[generation]) for generation in sorted(found)]

    def files_of(self, generation: Generation) -> dict[str, int]:
        """File names and bytes of one generation."""
        folder = generation_folder(generation)
        return {entry.name.removeprefix(folder): entry.bytes for entry in self.store.list(folder)}

    def manifest(self, generation: Generation) -> Manifest:
        """Read a manifest. Raises NotFoundError, FormatError."""
        name = manifest_path(generation)
        manifest = parse(Manifest, self.store.get(name, MAX_DOCUMENT_BYTES), name)
        if manifest.generation != generation:
            raise FormatError(f"{name} is about step {manifest.step} of run {manifest.run}")
        return manifest

    def parents(self, generation: Generation) -> list[Generation]:
        """What a complete generation builds on, one step back. Remembered: a manifest never changes."""
        if generation not in self._parents:
            self._parents[generation] = self.manifest(generation).parents
        return self._parents[generation]

    def index(self, manifest: Manifest, entry: RankEntry) -> Index:
        """Read a rank's index and check it against the manifest. Raises NotFoundError, FormatError."""
        name = generation_folder(manifest.generation) + entry.index.name
        data = self.store.get(name, MAX_DOCUMENT_BYTES)
        if len(data) != entry.index.bytes or xxhash.xxh3_128_hexdigest(data) != entry.index.hash:
            raise FormatError(f"{name} is not what the manifest says: size or hash differ")
        index = parse(Index, data, name)
        if index.rank != entry.rank or index.generation != manifest.generation:
            raise FormatError(f"{name} is about rank {index.rank} of step {index.step}, run {index.run}")
        if (index.shard, index.shard_bytes, index.shard_hash) != (
            entry.shard.name,
            entry.shard.bytes,
            entry.shard.hash,
        ):
            raise FormatError(f"{name} and the manifest differ about the shard")
        if index.chain > manifest.chain or (index.base and index.base.generation not in manifest.parents):
            raise FormatError(f"{name} has a base that the manifest does not name, or a longer chain")
        return index

    def ledger(self) -> list[LedgerEntry]:
        """Every generation that was ever committed and is still remembered, oldest first."""
        found = []
        for entry in self.store.list(LEDGER):
            if parse_ledger_path(entry.name) is None:
                continue
            try:
                found.append(parse(LedgerEntry, self.store.get(entry.name, MAX_SMALL_DOCUMENT_BYTES), entry.name))
            except NotFoundError:  # trimmed in between
                continue
        return sorted(found, key=lambda entry: entry.generation)
