"""Reading generations: blocks, chains, companions; every hash is looked at, and what lies about a chain is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import generation_builder
import numpy as np
import pytest
import xxhash
from generation_builder import Builder, Tensor

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.codec.base import ALONE, Beside, Codec, by_name
from sternpost_checkpoint.errors import CheckpointError, FormatError
from sternpost_checkpoint.format.names import generation_folder
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.restore import decode
from sternpost_checkpoint.restore.pool import Limits
from sternpost_checkpoint.restore.reader import GenerationReader, Wanted, read_generation
from sternpost_checkpoint.store.file import FileStore


class XorCodec(Codec):
    name = "test-xor"
    needs_base = True

    def encode(self, raw: memoryview, dtype: str, beside: Beside = ALONE) -> Iterator[bytes]:
        base = beside.encodable_base(raw.nbytes, self.name)
        yield (np.frombuffer(raw, np.uint8) ^ np.frombuffer(base, np.uint8)).tobytes()

    def decode(self, stored: memoryview, raw: memoryview, dtype: str, beside: Beside = ALONE) -> None:
        base = beside.required_base(raw.nbytes, self.name)
        raw[:] = (np.frombuffer(stored, np.uint8) ^ np.frombuffer(base, np.uint8)).tobytes()


class SumCodec(Codec):
    """Of a companion with as many bytes."""

    name = "test-sum"
    needs_companion = True
    companions: ClassVar[int] = 0

    def encode(self, raw: memoryview, dtype: str, beside: Beside = ALONE) -> Iterator[bytes]:
        companion = beside.encodable_companion(raw.nbytes, self.name)
        yield (np.frombuffer(raw, np.uint8) - np.frombuffer(companion, np.uint8)).tobytes()

    def decode(self, stored: memoryview, raw: memoryview, dtype: str, beside: Beside = ALONE) -> None:
        assert beside.companion_dtype == "float32"
        companion = beside.required_companion(raw.nbytes, self.name)
        raw[:] = (np.frombuffer(stored, np.uint8) + np.frombuffer(companion, np.uint8)).tobytes()


def toy(name: str) -> Codec:
    return {"test-xor": XorCodec, "test-sum": SumCodec}[name]() if name.startswith("test-") else by_name(name)


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Builder:
    monkeypatch.setattr(decode, "by_name", toy)
    monkeypatch.setattr(generation_builder, "by_name", toy)
    return Builder(FileStore(tmp_path / "store"))


def values(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def buffer(*shape: int) -> np.ndarray:
    return np.full(shape, np.nan, dtype=np.float32)


def want(name: str, target: np.ndarray, **more: Any) -> Wanted:
    return Wanted(
        name, "float32", target.shape, memoryview(target).cast("B") if target.size else memoryview(bytearray()), **more
    )


def read(builder: Builder, generation: Generation, *wanted: Wanted, threads: int = 3, memory: int = 2**20) -> None:
    read_generation(Catalog(builder.store), generation, wanted, Limits(threads, memory))


def test_replicated_tensors_come_from_whoever_stored_them_and_private_ones_from_the_rank(builder: Builder) -> None:
    shared = [values(number, 40, 30) for number in range(6)]
    ranks = [
        [
            *(
                Tensor(f"model/{number}", shared[number], "zstd-planes", replicated=True, stored=number % 2 == rank)
                for number in range(6)
            ),
            Tensor("extra/own", values(100 + rank, 7)),
        ]
        for rank in range(2)
    ]
    generation = builder.generation(5, ranks)
    targets = [buffer(40, 30) for _ in range(6)]
    own = [buffer(7), buffer(7)]
    read(
        builder,
        generation,
        *(want(f"model/{number}", targets[number]) for number in range(6)),
        *(want("extra/own", own[rank], rank=rank) for rank in range(2)),
    )
    for number in range(6):
        assert np.array_equal(targets[number], shared[number])
    assert np.array_equal(own[0], values(100, 7))
    assert np.array_equal(own[1], values(101, 7))


def sharded(builder: Builder, full: np.ndarray, world: int, *, replicas: int = 1) -> Generation:
    """FSDP2 over `world` ranks along the first dimension, HSDP with `replicas`; uneven, some hold nothing."""
    rows = -(-full.shape[0] // world)
    ranks = []
    for replica in range(replicas):
        for rank in range(world):
            first, last = min(rank * rows, full.shape[0]), min((rank + 1) * rows, full.shape[0])
            start = (first, *(0 for _ in full.shape[1:]))
            ranks.append([Tensor("model/w", full[first:last], start=start, whole=full.shape, stored=replica == 0)])
    return builder.generation(9, ranks)


@pytest.mark.parametrize("world", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("new_world", [1, 2, 5])
def test_resharding(builder: Builder, world: int, replicas: int, new_world: int) -> None:
    full = values(1, 10, 3)
    generation = sharded(builder, full, world, replicas=replicas)
    rows = -(-10 // new_world)
    for rank in range(new_world):
        first, last = min(rank * rows, 10), min((rank + 1) * rows, 10)
        target = buffer(last - first, 3)
        read(builder, generation, want("model/w", target, rank=rank, start=(first, 0), whole=(10, 3)))
        assert np.array_equal(target, full[first:last])
    whole = buffer(10, 3)
    read(builder, generation, want("model/w", whole))
    assert np.array_equal(whole, full)


def test_resharding_over_other_dimensions(builder: Builder) -> None:
    full = values(2, 6, 8, 5)
    blocks = [((row, 0, column), (3, 8, n)) for row in (0, 3) for column, n in ((0, 2), (2, 3))]
    ranks = [
        [Tensor("model/w", np.ascontiguousarray(full[a : a + n, :, c : c + m]), start=(a, b, c), whole=full.shape)]
        for (a, b, c), (n, _, m) in blocks
    ]
    generation = builder.generation(3, ranks)
    for start, shape in [
        ((0, 0, 0), (6, 8, 5)),
        ((1, 2, 1), (4, 3, 3)),
        ((5, 7, 4), (1, 1, 1)),
        ((0, 4, 0), (3, 4, 2)),
    ]:
        target = buffer(*shape)
        read(builder, generation, want("model/w", target, start=start, whole=(6, 8, 5)))
        assert np.array_equal(target, full[tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))])


def test_one_piece_serves_several_buffers(builder: Builder) -> None:
    full = values(3, 10, 3)
    generation = sharded(builder, full, 2)
    whole, again, part = buffer(10, 3), buffer(5, 3), buffer(2, 3)
    read(
        builder,
        generation,
        want("model/w", whole),
        want("model/w", again, start=(0, 0), whole=(10, 3)),
        want("model/w", part, start=(4, 0), whole=(10, 3)),
    )
    assert np.array_equal(whole, full)
    assert np.array_equal(again, full[:5])
    assert np.array_equal(part, full[4:6])


@pytest.mark.parametrize(
    ("start", "whole", "match"),
    [
        ((0, 0), (11, 3), "is stored as float32 of shape"),
        ((8, 0), (10, 3), "outside of"),
        ((-1, 0), (10, 3), "outside of"),
        ((0,), (10, 3), "outside of"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(builder: Builder, start: Any, whole: Any, match: str) -> None:
    generation = sharded(builder, values(1, 10, 3), 2)
    with pytest.raises(FormatError, match=match):
        read(builder, generation, want("model/w", buffer(4, 3), start=start, whole=whole))


def test_blocks_that_overlap_or_leave_holes_are_refused(builder: Builder) -> None:
    full = values(1, 4, 2)
    for first in (1, 3):  # rank 1 begins one row early, or late
        ranks = [
            [Tensor("model/w", full[:2], start=(0, 0), whole=(4, 2))],
            [Tensor("model/w", full[first : first + 2][: 4 - first], start=(first, 0), whole=(4, 2))],
        ]
        generation = builder.generation(first, ranks)
        with pytest.raises(FormatError, match="do not make up what is wanted"):
            read(builder, generation, want("model/w", buffer(4, 2)))


def chain(builder: Builder, length: int) -> tuple[list[Generation], list[np.ndarray], list[np.ndarray]]:
    """A weight as deltas, its companion-coded master beside it, for two ranks."""
    weights = [values(number, 16, 4) for number in range(length + 1)]
    masters = [values(50 + number, 16, 4) for number in range(length + 1)]
    generations: list[Generation] = []
    for number in range(length + 1):
        codec = "test-xor" if number else "raw"
        ranks = [
            [
                Tensor("model/w", weights[number] + rank, codec, base=weights[number - 1] + rank if number else None),
                Tensor("optimizer/master", masters[number] - rank, "test-sum", companion="model/w"),
            ]
            for rank in range(2)
        ]
        generations.append(builder.generation(number + 1, ranks, parent=generations[-1] if number else None))
    return generations, weights, masters


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("memory", [1, 2**20])
def test_chains_and_companions(builder: Builder, threads: int, memory: int) -> None:
    generations, weights, masters = chain(builder, 12)
    for number in (0, 1, 12):
        for rank in range(2):
            weight, master, alone = buffer(16, 4), buffer(16, 4), buffer(16, 4)
            own = {"threads": threads, "memory": memory}
            read(builder, generations[number], want("optimizer/master", alone, rank=rank), **own)
            read(
                builder,
                generations[number],
                want("model/w", weight, rank=rank),
                want("optimizer/master", master, rank=rank),
                **own,
            )
            assert np.array_equal(weight, weights[number] + rank)
            assert np.array_equal(master, masters[number] - rank)
            assert np.array_equal(alone, master)


def test_everything_stored_is_gone_through_within_memory(builder: Builder) -> None:
    generations, weights, _ = chain(builder, 3)
    seen: dict[tuple[int, str], bytes] = {}
    reader = GenerationReader(Catalog(builder.store), generations[3])
    problems = reader.tensors(
        lambda part, spec, raw: seen.__setitem__((part.index.rank, spec.name), bytes(raw)), Limits(2, 1000)
    )
    assert problems == []
    assert set(seen) == {(rank, name) for rank in range(2) for name in ("model/w", "optimizer/master")}
    assert seen[1, "model/w"] == (weights[3] + 1).tobytes()


def edit_index(builder: Builder, generation: Generation, rank: int, change: Any) -> None:
    """Change an index and, consistently, the manifest: what an attacker would do."""
    store = builder.store
    folder = generation_folder(generation)
    index = json.loads(store.get(f"{folder}rank-{rank:05d}.json", 2**20))
    change(index)
    data = json.dumps(index).encode()
    store.put(f"{folder}rank-{rank:05d}.json", [data])
    manifest = json.loads(store.get(f"{folder}manifest.json", 2**20))
    manifest["ranks"][rank]["index"].update(bytes=len(data), hash=xxhash.xxh3_128_hexdigest(data))
    store.put(f"{folder}manifest.json", [json.dumps(manifest).encode()])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda index: index["base"].update(step=3), "not older"),
        (lambda index: index["base"].update(step=7), "not older"),
        (lambda index: index["base"].update(shardHash="0" * 32), "another one than it was encoded against"),
        (lambda index: index.update(chain=1), "not longer than its parent"),
        (lambda index: index.update(chain=65), "chain"),
        (lambda index: index["base"].update(step=1, run=0), "manifest"),
        (lambda index: index["stored"][1].update(companion=1), "companion"),
        (lambda index: index["stored"][1].update(companion=7), "companion"),
        (lambda index: index["stored"][0].update(codec="raw"), "differ about what it needs"),
        (lambda index: index["stored"][0].update(rawHash="0" * 32), "decoded bytes do not match"),
        (lambda index: index["stored"][0].update(storedHash="0" * 32), "stored bytes do not match"),
    ],
)
def test_chains_that_lie_are_refused(builder: Builder, change: Any, match: str) -> None:
    generations, _, _ = chain(builder, 2)
    edit_index(builder, generations[2], 0, change)
    with pytest.raises(CheckpointError, match=match):
        read(builder, generations[2], want("optimizer/master", buffer(16, 4)))


def test_damage_far_back_in_a_chain_is_found_and_named(builder: Builder) -> None:
    generations, _, _ = chain(builder, 4)
    name = f"{generation_folder(generations[0])}rank-00001-{1:016x}.shard"
    data = bytearray(builder.store.get(name, 2**20))
    data[30] ^= 1
    builder.store.put(name, [bytes(data)])
    with pytest.raises(FormatError, match=r"000000000001-r000001/rank-00001.*'model/w'.*damaged"):
        read(builder, generations[4], want("model/w", buffer(16, 4), rank=1))
    read(builder, generations[4], want("model/w", buffer(16, 4), rank=0))


def test_a_delta_of_another_shape_than_its_base_is_refused(builder: Builder) -> None:
    first = builder.generation(1, [[Tensor("model/w", values(1, 4))]])
    second = builder.generation(2, [[Tensor("model/w", values(2, 2, 2), "test-xor", base=values(1, 4))]], parent=first)
    with pytest.raises(FormatError, match="another type or shape than its delta"):
        read(builder, second, want("model/w", buffer(2, 2)))


def test_a_tensor_that_grows_beyond_reason_is_refused_before_memory_is_taken(builder: Builder) -> None:
    generation = builder.generation(1, [[Tensor("model/w", values(1, 4))]])
    edit_index(builder, generation, 0, lambda index: index["tensors"][0].update(shape=[2**38], bytes=2**40))
    reader = GenerationReader(Catalog(builder.store), generation)
    problems = reader.tensors(lambda *_: None)
    assert len(problems) == 1
    assert "grows beyond all reason" in str(problems[0])


def test_zeros_may_grow_as_much_as_they_do(builder: Builder) -> None:
    """Moments before the first step."""
    zeros = np.zeros(2**22, dtype=np.float32)
    generation = builder.generation(1, [[Tensor("optimizer/m", zeros, "zstd-planes")]])
    target = np.ones(2**22, dtype=np.float32)
    read(builder, generation, want("optimizer/m", target))
    assert not target.any()


def test_missing_names_and_wrong_buffers(builder: Builder) -> None:
    generation = builder.generation(1, [[Tensor("model/w", values(1, 4))]])
    with pytest.raises(FormatError, match="no rank has stored 'model/x'"):
        read(builder, generation, want("model/x", buffer(4)))
    with pytest.raises(FormatError, match="read-only"):
        read(builder, generation, Wanted("model/w", "float32", (4,), memoryview(bytes(16))))
    with pytest.raises(FormatError, match="12 bytes"):
        read(builder, generation, Wanted("model/w", "float32", (4,), memoryview(bytearray(12))))


def test_a_scalar_and_an_empty_tensor(builder: Builder) -> None:
    scalar = np.array(3.5, dtype=np.float32)
    generation = builder.generation(1, [[Tensor("extra/s", scalar), Tensor("extra/e", values(1, 0, 5))]])
    target = np.array(0.0, dtype=np.float32)
    read(
        builder,
        generation,
        Wanted("extra/s", "float32", (), memoryview(target.reshape(1)).cast("B")),
        want("extra/e", buffer(0, 5)),
    )
    assert target == 3.5


def test_small_neighbours_are_read_at_once(builder: Builder) -> None:
    tensors = [Tensor(f"model/{number}", values(number, 8)) for number in range(200)]
    generation = builder.generation(1, [tensors])
    reads = []
    real = builder.store.read_into
    builder.store.read_into = lambda name, offset, target: reads.append(len(target)) or real(name, offset, target)  # type: ignore[method-assign]
    targets = [buffer(8) for _ in tensors]
    read(builder, generation, *(want(f"model/{number}", targets[number]) for number in range(200)))
    assert all(np.array_equal(targets[number], tensors[number].values) for number in range(200))
    assert len(reads) == 1
