"""Reading a generation back, for `verify`."""

from __future__ import annotations

import xxhash

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.errors import CheckpointError, FormatError
from sternpost_checkpoint.format.documents import SHARD_HEADER_BYTES
from sternpost_checkpoint.format.names import generation_folder, manifest_path
from sternpost_checkpoint.format.shard import check_shard_header
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.restore.reader import GenerationReader
from sternpost_checkpoint.sidecar.commit import build_manifest, weights_hash

READ_BYTES = 8 * 2**20


def verify_generation(catalog: Catalog, generation: Generation) -> list[str]:
    """Check every size and hash, and decode every tensor; returns what is wrong, in words."""
    reader = GenerationReader(catalog, generation)
    try:
        manifest = reader.manifest
        indexes = [part.index for part in reader.parts()]
        if weights_hash(indexes) != manifest.weights_hash:
            raise FormatError(f"{generation_folder(generation)}: the weights are not those that the manifest names")
        files = catalog.files_of(generation)
        if build_manifest(catalog.store, generation, manifest.world_size, files)[0] != manifest:
            raise FormatError(f"{manifest_path(generation)} is not what the indexes make of it, it is damaged")
    except CheckpointError as error:
        return [str(error)]
    problems: list[str] = []
    for entry in manifest.ranks:
        name = generation_folder(generation) + entry.shard.name
        try:
            check_shard_header(catalog.store.read(name, 0, min(SHARD_HEADER_BYTES, entry.shard.bytes)), name)
            whole = xxhash.xxh3_128()
            for offset in range(0, entry.shard.bytes, READ_BYTES):
                whole.update(catalog.store.read(name, offset, min(READ_BYTES, entry.shard.bytes - offset)))
            if whole.hexdigest() != entry.shard.hash:
                problems.append(f"{name} does not match its hash, the file is damaged")
        except CheckpointError as error:
            problems.append(str(error))
    return problems + [str(error) for error in reader.tensors(lambda *_: None)]
