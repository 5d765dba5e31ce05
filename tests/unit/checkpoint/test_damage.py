"""Every byte of every header, every byte of the documents and ten thousand random bytes of the payload, flipped; every
boundary, cut. Whatever is damaged is refused by the name of its file, and the older generation is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from generation_builder import Builder, Tensor
from image_store import ImageStore

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.errors import CheckpointError
from sternpost_checkpoint.format.documents import Index, Manifest, parse
from sternpost_checkpoint.format.names import generation_folder, manifest_path
from sternpost_checkpoint.lineage import Generation, newest
from sternpost_checkpoint.restore.pool import Limits
from sternpost_checkpoint.restore.reader import GenerationReader
from sternpost_checkpoint.shm.layout import HEADER_BYTES
from sternpost_checkpoint.shm.slot import Slot
from sternpost_checkpoint.sidecar.commit import build_manifest
from sternpost_checkpoint.store.file import FileStore
from sternpost_checkpoint.verify import verify_generation

OLDER, NEWER = Generation(1, 1), Generation(2, 1)
FLIPS = 10_000
ONE = Limits(threads=1)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Two whole generations of two ranks."""
    root = tmp_path_factory.mktemp("damage")
    store = FileStore(root)
    builder = Builder(store)
    values = np.random.default_rng(1).standard_normal(3000).astype(np.float32)
    for generation in (OLDER, NEWER):
        ranks = [
            [
                Tensor("model/w", values, codec="zstd-planes", replicated=True, stored=rank == 0),
                Tensor("model/b", values[:500].copy(), replicated=True, stored=rank == 0),
                Tensor("random/r", np.full(16, rank, dtype=np.uint8)),
            ]
            for rank in range(2)
        ]
        builder.generation(generation.step, ranks)
        manifest, _ = build_manifest(store, generation, 2, Catalog(store).files_of(generation))
        store.put(manifest_path(generation), [manifest.to_bytes()])
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def files(content: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    return ((name, data) for name, data in sorted(content.items()) if name.startswith(generation_folder(NEWER)))


def flipped(data: bytes, position: int, bit: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1 << bit
    return bytes(changed)


def problems_of(content: dict[str, bytes], name: str, data: bytes) -> list[str]:
    return verify_generation(Catalog(ImageStore({**content, name: data})), NEWER)


def parsed(model: Any, data: bytes, name: str) -> Any:
    """The document, or the words with which it is refused."""
    try:
        return parse(model, data, name)
    except CheckpointError as error:
        return str(error)


def restorable(content: dict[str, bytes]) -> Generation:
    """What a restart takes: the newest that can be read, as the sidecar tries one after the other."""
    catalog = Catalog(ImageStore(content))
    left = {found.generation for found in catalog.generations() if found.complete}
    while left:
        chosen = newest(left, catalog.runs())
        assert chosen is not None
        try:
            if not GenerationReader(catalog, chosen).tensors(lambda *_: None, ONE):
                return chosen
        except CheckpointError:
            pass
        left.remove(chosen)
    raise AssertionError("nothing is left")


def test_every_byte_of_every_document(content: dict[str, bytes]) -> None:
    shuffled = np.random.default_rng(1)
    for name, good in files(content):
        if not name.endswith(".json"):
            continue
        for position in range(len(good)):
            data = flipped(good, position, int(shuffled.integers(8)))
            model = Manifest if name.endswith("manifest.json") else Index
            changed = parsed(model, data, name)
            if isinstance(changed, str):
                assert name in changed
                continue
            # A valid document with another meaning: found by what the others say.
            if changed == parse(model, good, name):
                assert model is Manifest  # one byte that does not matter, such as a space: only the index is hashed
                continue
            problems = problems_of(content, name, data)
            assert problems
            assert name in problems[0] or generation_folder(NEWER) in problems[0]


def test_every_byte_of_every_shard_header(content: dict[str, bytes]) -> None:
    for name, good in files(content):
        if name.endswith(".shard"):
            for position in range(16):
                problems = problems_of(content, name, flipped(good, position, position % 8))
                assert problems
                assert name in problems[0]


def test_ten_thousand_bytes_of_the_payload(content: dict[str, bytes]) -> None:
    """The tensor that the byte belongs to is refused by a restore; nothing wrong is ever handed out."""
    shuffled = np.random.default_rng(2)
    shards = [(name, good) for name, good in files(content) if name.endswith(".shard")]
    image = dict(content)
    reader = GenerationReader(Catalog(ImageStore(image)), NEWER)
    for number in range(FLIPS):
        name, good = shards[number % 50 == 0]
        image[name] = flipped(good, int(shuffled.integers(16, len(good))), int(shuffled.integers(8)))
        problems = reader.tensors(lambda *_: None, ONE)
        assert len(problems) == 1
        assert name in str(problems[0])
        assert "do not match their hash" in str(problems[0])
        image[name] = good
        if number % 500 == 0:
            image[name] = flipped(good, 16, 0)
            assert restorable(image) == OLDER
            image[name] = good
    assert restorable(image) == NEWER


def test_every_boundary_cut(content: dict[str, bytes]) -> None:
    for name, good in files(content):
        cuts = {0, 1, len(good) - 1, len(good) // 2, *range(0, len(good), max(len(good) // 60, 1))}
        if name.endswith(".shard"):
            index = parse(Index, content[name.rpartition("-")[0] + ".json"], name)
            cuts |= {8, 12, 16, *(entry.offset for entry in index.stored)}
            cuts |= {entry.offset + entry.stored_bytes for entry in index.stored} - {len(good)}
        for cut in cuts:
            image = {**content, name: good[:cut]}
            problems = verify_generation(Catalog(ImageStore(image)), NEWER)
            assert problems
            assert name in problems[0]
            assert restorable(image) == OLDER
        image = {other: data for other, data in content.items() if other != name}
        assert restorable(image) == OLDER
        longer = {**content, name: good + b"\0"}
        assert verify_generation(Catalog(ImageStore(longer)), NEWER)


def refused(path: Path) -> bool:
    """Whether there is no header, or an error that names the file."""
    try:
        return Slot.open(path).header() is None
    except CheckpointError as error:
        return str(path) in str(error)


def test_every_byte_of_a_slot_header(tmp_path: Path, helpers: Any) -> None:
    """In shared memory: a header that is not whole is no header, and the older slot stands."""
    helpers.write_slot(tmp_path / "slot-0", sequence=1, step=1)
    helpers.write_slot(tmp_path / "slot-1", sequence=2, step=2)
    good = (tmp_path / "slot-1").read_bytes()
    for position in range(200):
        (tmp_path / "slot-1").write_bytes(flipped(good, position, position % 8))
        assert refused(tmp_path / "slot-1"), position
        header = Slot.open(tmp_path / "slot-0").header()
        assert header is not None
        assert header.step == 1


def test_every_byte_of_a_slot_meta(tmp_path: Path, helpers: Any) -> None:
    header = helpers.write_slot(tmp_path / "slot-0", sequence=1, step=1)
    good = (tmp_path / "slot-0").read_bytes()
    for position in range(header.meta_offset, header.meta_offset + header.meta_bytes):
        (tmp_path / "slot-0").write_bytes(flipped(good, position, position % 8))
        slot = Slot.open(tmp_path / "slot-0")
        with pytest.raises(CheckpointError, match="slot-0"):
            slot.meta(header)
    for cut in (0, 1, 199, HEADER_BYTES - 1, HEADER_BYTES, header.meta_offset, len(good) - 4096):
        (tmp_path / "slot-0").write_bytes(good[: max(cut, 0)])
        assert refused(tmp_path / "slot-0") or cut >= header.meta_offset + header.meta_bytes
