"""Reading back: whatever is damaged is refused, with the file and the reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.errors import CheckpointError, FormatError
from sternpost_checkpoint.format.documents import Index, Manifest, RunDocument, parse
from sternpost_checkpoint.format.names import check_name, generation_folder
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.shm.layout import HEADER_BYTES
from sternpost_checkpoint.shm.slot import SlotWriter
from sternpost_checkpoint.sidecar.fetch import fetch
from sternpost_checkpoint.store.file import FileStore
from sternpost_checkpoint.verify import verify_generation

GENERATION = Generation(5, 1)


@pytest.fixture
def saved(tmp_path: Path, helpers: Any) -> Path:
    helpers.commit_generation(FileStore(tmp_path / "store"), tmp_path, 5, world=2)
    return tmp_path / "store"


def fetch_rank(store: Path, folder: Path, rank: int) -> bytes:
    slot = SlotWriter(folder / "target")
    header = fetch(Catalog(FileStore(store)), GENERATION, rank, slot, 9).header
    assert header.is_same(slot.header())
    slot.meta(header)
    return bytes(slot.payload(header))


def test_each_rank_gets_all_weights_and_its_own_random_state(saved: Path, tmp_path: Path, helpers: Any) -> None:
    for rank in range(2):
        payload = fetch_rank(saved, tmp_path, rank)
        assert payload[:4096] == helpers.payload_of(5, 4096)
        assert payload[4096:4112] == bytes([rank]) * 16


def test_a_rank_that_did_not_exist_gets_no_random_state(saved: Path, tmp_path: Path, helpers: Any) -> None:
    assert fetch_rank(saved, tmp_path, 2) == helpers.payload_of(5, 4096)


def files_of(store: Path) -> list[Path]:
    return sorted((store / generation_folder(GENERATION)).iterdir())


def test_every_truncation_and_many_flips_are_refused(saved: Path, tmp_path: Path, helpers: Any) -> None:
    for path in files_of(saved):
        good = path.read_bytes()
        cuts = {0, 1, len(good) // 2, len(good) - 1}
        damaged = [good[:cut] for cut in cuts]
        for _ in range(40):
            position = helpers.random.randrange(len(good))
            flipped = bytearray(good)
            flipped[position] ^= 1 << helpers.random.randrange(8)
            damaged.append(bytes(flipped))
        for data in damaged:
            path.write_bytes(data)
            problems = verify_generation(Catalog(FileStore(saved)), GENERATION)
            # The manifest has no hash of its own: a flip in one of its plain facts is seen only by its meaning.
            assert problems or path.name == "manifest.json"
            if problems and path.suffix == ".shard":
                assert path.name in problems[0]
        path.write_bytes(good)
    assert verify_generation(Catalog(FileStore(saved)), GENERATION) == []


def test_a_damaged_tensor_is_named_and_the_slot_stays_unreadable(saved: Path, tmp_path: Path) -> None:
    path = next(path for path in files_of(saved) if path.name.startswith("rank-00001-"))
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(
        FormatError, match=r"rank-00001-[0-9a-f]{16}\.shard: tensor 'model/weight': the stored bytes do not match"
    ):
        fetch_rank(saved, tmp_path, 0)
    assert SlotWriter.open(tmp_path / "target").header() is None


def test_a_missing_file_is_named(saved: Path, tmp_path: Path) -> None:
    for path in files_of(saved):
        data = path.read_bytes()
        path.unlink()
        with pytest.raises(CheckpointError, match=path.name.replace(".", r"\.")):
            fetch_rank(saved, tmp_path, 0)
        path.write_bytes(data)


def test_an_exchanged_index_is_refused(saved: Path, tmp_path: Path) -> None:
    folder = saved / generation_folder(GENERATION)
    shutil.copy(folder / "rank-00001.json", folder / "rank-00000.json")
    with pytest.raises(FormatError, match=r"rank-00000\.json is not what the manifest says"):
        fetch_rank(saved, tmp_path, 0)


def attack(saved: Path, name: str, change: Any) -> dict[str, Any]:
    value = json.loads((saved / generation_folder(GENERATION) / name).read_text())
    change(value)
    return value


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value["ranks"][0]["shard"].update(name="../../../etc/passwd"),
        lambda value: value["ranks"][0]["index"].update(name="/etc/passwd"),
        lambda value: value["ranks"].pop(),
        lambda value: value["ranks"].reverse(),
        lambda value: value.update(worldSize=2**31),
        lambda value: value.update(step=-1),
        lambda value: value.update(step="5"),
        lambda value: value.update(step=2**70),
        lambda value: value.update(format="2"),
        lambda value: value.update(surprise=1),
        lambda value: value.update(bases=[[5, 1]], chain=1),
        lambda value: value.update(bases=[[6, 1]], chain=1),
        lambda value: value.update(bases=[[3, 1], [2, 1]], chain=1),
        lambda value: value.update(bases=[[3, 1], [3, 1]], chain=1),
        lambda value: value.update(bases=[[-1, 1]], chain=1),
        lambda value: value.update(bases=[3], chain=1),
        lambda value: value.update(bases=[[3, 1]]),
        lambda value: value.update(chain=1),
        lambda value: value["ranks"][0]["shard"].update(name="rank-00000.shard"),
        lambda value: value["ranks"][0]["shard"].update(name="rank-00001-0123456789abcdef.shard"),
        lambda value: value["ranks"][0]["shard"].update(bytes=2**60),
        lambda value: value["ranks"][0]["shard"].update(hash="xyz"),
    ],
)
def test_hostile_manifests(saved: Path, change: Any) -> None:
    value = attack(saved, "manifest.json", change)
    with pytest.raises(FormatError, match=r"manifest\.json is (not a valid Manifest document|of format 2, and)"):
        parse(Manifest, json.dumps(value).encode(), "manifest.json")


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value["stored"][0].update(offset=2**47),
        lambda value: value["stored"][0].update(tensor=7),
        lambda value: value["stored"][0].update(storedBytes=-1),
        lambda value: value.update(rank=2),
        lambda value: value.update(shardBytes=2**50),
    ],
)
def test_hostile_indexes(saved: Path, change: Any) -> None:
    value = attack(saved, "rank-00001.json", change)
    with pytest.raises(FormatError, match="Index"):
        parse(Index, json.dumps(value).encode(), "rank-00001.json")


@pytest.mark.parametrize("data", [b"", b"[" * 100_000, b"\xff\xfe", b"null", b'{"number": 1e400}'])
def test_garbage_documents(data: bytes) -> None:
    with pytest.raises(FormatError, match="x is not a valid RunDocument"):
        parse(RunDocument, data, "x")


def test_a_table_that_claims_too_much_allocates_nothing(saved: Path, tmp_path: Path) -> None:
    """A consistent set of files whose tensor would need 2^40 bytes."""
    import xxhash

    folder = saved / generation_folder(GENERATION)
    index = json.loads((folder / "rank-00001.json").read_text())
    index["tensors"][0].update(shape=[2**38], bytes=2**40)
    index["tensors"][1].update(offset=2**40)
    data = json.dumps(index).encode()
    (folder / "rank-00001.json").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["ranks"][1]["index"].update(bytes=len(data), hash=xxhash.xxh3_128_hexdigest(data))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FormatError, match="grows beyond all reason"):
        fetch_rank(saved, tmp_path, 1)
    assert not (tmp_path / "target").exists() or (tmp_path / "target").stat().st_size <= HEADER_BYTES


@pytest.mark.parametrize("name", ["generations/../x", "..", "a/.b", "a b"])
def test_names(name: str) -> None:
    with pytest.raises(FormatError):
        check_name(name)
