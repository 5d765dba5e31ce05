"""What an index may say: every rule of FORMAT.md that a document breaks is refused with its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from sternpost_checkpoint.errors import FormatError
from sternpost_checkpoint.format.documents import Index, Manifest, RunDocument, parse
from sternpost_checkpoint.format.names import is_shard_name, shard_name
from sternpost_checkpoint.format.shard import SHARD_HEADER, check_shard_header

HASH = "0" * 32


def entry(tensor: int, offset: int, **more: Any) -> dict[str, Any]:
    plain = {"delta": False, "companion": None, "reason": "", "updateError": None}
    hashes = {"rawHash": HASH, "storedHash": HASH}
    return {"tensor": tensor, "codec": "raw", "offset": offset, "storedBytes": 8, **hashes, **plain, **more}


def index(**changes: Any) -> dict[str, Any]:
    spec = {"name": "model/a", "role": "model", "dtype": "float32", "shape": [2], "offset": 0, "bytes": 8}
    value: dict[str, Any] = {
        "format": 2,
        "step": 7,
        "run": 2,
        "jobUid": "u",
        "attemptNumber": 1,
        "attemptId": "1-a",
        "worldSize": 2,
        "savedAt": 1.0,
        "rank": 1,
        "sequence": 3,
        "blockedSeconds": None,
        "memcpyFloorSeconds": None,
        "replicated": False,
        "trees": {},
        "tensors": [{**spec, "replicated": False, "stored": True}] * 3,
        "stored": [entry(0, 16), entry(2, 24, delta=True), entry(1, 32, companion=0)],
        "base": {"step": 6, "run": 2, "shardHash": HASH},
        "chain": 1,
        "shard": "rank-00001-0123456789abcdef.shard",
        "shardBytes": 40,
        "shardHash": HASH,
        "rawBytes": 24,
    }
    return {**value, **changes}


def read(value: dict[str, Any]) -> Index:
    return parse(Index, json.dumps(value).encode(), "rank-00001.json")


def test_an_index_round_trips() -> None:
    found = read(index())
    assert parse(Index, found.to_bytes(), "again") == found
    assert found.base is not None
    assert (found.base.generation.step, found.chain) == (6, 1)


def stored(change: Callable[[list[dict[str, Any]]], Any]) -> dict[str, Any]:
    value = index()
    change(value["stored"])
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (index(base=None, chain=0), "a base exactly when"),
        (index(chain=0), "a chain of 0"),
        (index(chain=65), "less than or equal to 64"),
        (index(base={"step": 7, "run": 2, "shardHash": HASH}), "not older"),
        (index(base={"step": 8, "run": 1, "shardHash": HASH}), "not older"),
        (index(shard="rank-00000-0123456789abcdef.shard"), "not a name"),
        (index(shard="../rank-00001-0123456789abcdef.shard"), "not a name"),
        (index(shard="rank-00001-0123456789ABCDEF.shard"), "not a name"),
        (index(shardBytes=41), "end at 40"),
        (index(rank=2, shard="rank-00002-0123456789abcdef.shard"), "outside of a world"),
        (stored(lambda entries: entries.append(entry(0, 40))), "stored twice"),
        (stored(lambda entries: entries[0].update(offset=0)), "begins at 0"),
        (stored(lambda entries: entries[2].update(offset=24)), "begins at 24"),
        (stored(lambda entries: entries[2].update(tensor=3)), "not in the table"),
        (stored(lambda entries: entries[2].update(companion=1)), "companion"),
        (stored(lambda entries: entries[0].update(companion=1)), "companion"),
        (stored(lambda entries: entries[2].update(companion=5)), "companion"),
        (stored(lambda entries: entries[2].update(storedBytes=2**60)), "stored.2.storedBytes"),
        (stored(lambda entries: entries[2].update(reason="x" * 201)), "200"),
        (stored(lambda entries: entries[2].update(updateError=-1.0)), "updateError"),
        (stored(lambda entries: entries[2].update(delta=1)), "delta"),
    ],
)
def test_what_an_index_may_not_say(value: dict[str, Any], words: str) -> None:
    with pytest.raises(FormatError, match=r"rank-00001\.json is not a valid Index document") as caught:
        read(value)
    assert words in str(caught.value)


@pytest.mark.parametrize("model", [Index, Manifest, RunDocument])
def test_another_version_is_refused_by_its_number(model: Any) -> None:
    with pytest.raises(FormatError, match="is of format 1, and this release reads format 2 alone: restore it with"):
        parse(model, b'{"format": 1}', "x.json")


def test_shard_names() -> None:
    assert is_shard_name(shard_name(3, "0123456789abcdef"), 3)
    for name in (
        "rank-00003.shard",
        "rank-00003-0123456789abcde.shard",
        "rank-00003-0123456789abcdef.shard\n",
        "-.shard",
    ):
        assert not is_shard_name(name, 3)
    with pytest.raises(FormatError):
        shard_name(3, "../../etc/passwd")


def test_every_byte_of_a_shards_header_is_checked() -> None:
    check_shard_header(SHARD_HEADER, "s")
    for position in range(len(SHARD_HEADER)):
        bad = bytearray(SHARD_HEADER)
        bad[position] ^= 0x41
        with pytest.raises(FormatError, match=r"^s "):
            check_shard_header(bytes(bad), "s")
        with pytest.raises(FormatError, match=r"^s ends"):
            check_shard_header(SHARD_HEADER[:position], "s")
