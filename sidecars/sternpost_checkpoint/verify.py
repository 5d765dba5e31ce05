"""Reading a generation back, for `verify`."""

from __future__ import annotations

import xxhash

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.errors import CheckpointError, FormatError
from sternpost_checkpoint.format.names import generation_folder
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.sidecar.commit import weights_hash
from sternpost_checkpoint.sidecar.fetch import check_shard_sizes, fetch_piece, pieces_of, read_indexes

READ_BYTES = 8 * 2**20


def verify_generation(catalog: Catalog, generation: Generation) -> list[str]:
    """Check every size and hash, and decode every tensor; returns what is wrong, in words."""
    problems: list[str] = []
    try:
        manifest = catalog.manifest(generation)
        check_shard_sizes(catalog.store, manifest)
        indexes = read_indexes(catalog, manifest)
        if weights_hash(indexes) != manifest.weights_hash:
            raise FormatError(f"{generation_folder(generation)}: the weights are not those that the manifest names")
    except CheckpointError as error:
        return [str(error)]
    for index, entry in zip(indexes, manifest.ranks, strict=True):
        name = generation_folder(generation) + entry.shard.name
        try:
            whole = xxhash.xxh3_128()
            for offset in range(0, entry.shard.bytes, READ_BYTES):
                whole.update(catalog.store.read(name, offset, min(READ_BYTES, entry.shard.bytes - offset)))
            if whole.hexdigest() != entry.shard.hash:
                problems.append(f"{name} does not match its hash, the file is damaged")
            for piece in pieces_of(manifest, index):
                fetch_piece(catalog.store, piece, memoryview(bytearray(piece.spec.bytes)))
        except CheckpointError as error:
            problems.append(str(error))
    return problems
