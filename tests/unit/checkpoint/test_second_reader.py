"""What the engine writes is read by a reader that knows FORMAT.md only: every codec, chains, companions, blocks, ranks."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from generation_builder import Builder, Tensor

sys.path.insert(0, str(Path(__file__).parent))  # the second reader, which is no package of the project

import second_reader
import second_reader_codecs

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.codec.base import Beside, by_name, names
from sternpost_checkpoint.format.dtypes import ITEM_BYTES
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.shm.slot import SlotWriter
from sternpost_checkpoint.sidecar.commit import try_commit
from sternpost_checkpoint.sidecar.config import CheckpointPolicy
from sternpost_checkpoint.store.file import FileStore

HERE = Path(__file__).parent
LENGTHS = (0, 1, 5, 255, 1003)
RANDOM = np.random.default_rng(11)


def test_it_imports_nothing_of_the_engine() -> None:
    for name in ("second_reader.py", "second_reader_codecs.py"):
        for node in ast.walk(ast.parse((HERE / name).read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(module.startswith("sternpost") for module in modules)
    assert len((HERE / "second_reader.py").read_text().splitlines()) < 130


def bf16(values: np.ndarray) -> np.ndarray:
    x = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((x + 0x7FFF + ((x >> 16) & 1)) >> 16).astype(np.uint16)


def master(n: int) -> np.ndarray:
    """Like weights of a training, with a few infinities, NaNs, zeros and denormals in it."""
    values = (RANDOM.standard_normal(n) * 0.02).astype(np.float32)
    odd = np.array(
        [0x7F800000, 0xFF800000, 0x7FC00001, 0xFFFFFFFF, 0, 0x80000000, 1, 0x007FFFFF, 0x7F7FFFFF], dtype=np.uint32
    )
    if n > 200:
        values[RANDOM.integers(0, n, len(odd))] = odd.view(np.float32)
        values[n // 2 : n // 2 + 3] = np.array([0x3F808000, 0x3F818000, 0x3F80FFFF], dtype=np.uint32).view(np.float32)
    return values


def changed(units: np.ndarray, share: float) -> np.ndarray:
    """Some units moved: most by a little, some by anything."""
    new = units.copy()
    touched = RANDOM.random(len(units)) < share
    new[touched] += RANDOM.integers(-3, 4, touched.sum()).astype(units.dtype)
    wild = RANDOM.random(len(units)) < share / 20
    new[wild] = RANDOM.integers(0, 2**16, wild.sum()).astype(units.dtype)
    return new


def samples(dtype: str, n: int) -> list[np.ndarray]:
    """As unsigned words."""
    width = ITEM_BYTES[dtype]
    if width == 16:
        return [RANDOM.integers(0, 256, n * 16).astype(np.uint8).view(np.uint64)]
    word = np.dtype(f"u{width}")
    natural = {
        "float32": lambda: master(n).view(np.uint32),
        "bfloat16": lambda: bf16(master(n)),
        "float16": lambda: np.nan_to_num(master(n)).clip(-6e4, 6e4).astype(np.float16).view(np.uint16),
    }.get(dtype, lambda: (RANDOM.standard_normal(n) * 5).astype(np.int64).astype(word))()
    return [natural, np.full(n, 1, dtype=word), RANDOM.integers(0, 256, n * width).astype(np.uint8).view(word)]


def encoded(codec: str, raw: np.ndarray, dtype: str, **beside: Any) -> bytes | None:
    """None when the codec does not take this tensor."""
    from sternpost_checkpoint.codec.base import NotEncodable

    views = {
        name: memoryview(value.tobytes()) if isinstance(value, np.ndarray) else value for name, value in beside.items()
    }
    try:
        return b"".join(
            bytes(piece) for piece in by_name(codec).encode(memoryview(raw.tobytes()), dtype, Beside(**views))
        )
    except NotEncodable:
        return None


def check(codec: str, raw: np.ndarray, dtype: str, **beside: Any) -> bool:
    """Whether it was encoded; then both readers must decode the same, and a lossless codec what was there."""
    stored = encoded(codec, raw, dtype, **beside)
    if stored is None:
        return False
    data = raw.tobytes()
    given = {name: value.tobytes() if isinstance(value, np.ndarray) else value for name, value in beside.items()}
    second = second_reader_codecs.decode(
        codec,
        stored,
        len(data),
        ITEM_BYTES[dtype],
        dtype=dtype,
        base=given.get("base"),
        companion=given.get("companion"),
        companion_dtype=given.get("companion_dtype"),
    )
    target = bytearray(len(data))
    views = {name: memoryview(value) if isinstance(value, bytes) else value for name, value in given.items()}
    by_name(codec).decode(memoryview(stored), memoryview(target), dtype, Beside(**views))
    assert second == bytes(target)
    if by_name(codec).lossless:
        assert second == data
    return True


@pytest.mark.parametrize("codec", names())
def test_every_codec(codec: str) -> None:
    kind, done = by_name(codec), 0
    for dtype in ITEM_BYTES:
        for n in LENGTHS:
            for units in samples(dtype, n):
                if kind.needs_base:
                    for share in (0.0, 0.1):
                        done += check(codec, changed(units, share) if len(units) else units, dtype, base=units)
                elif kind.needs_companion:
                    continue
                else:
                    done += check(codec, units, dtype)
    for n in LENGTHS:
        values = master(n)
        for weight_dtype, weights in (("bfloat16", bf16(values)), ("float16", half(values))):
            if kind.needs_companion:
                done += check(codec, values, "float32", companion=weights, companion_dtype=weight_dtype)
                done += check(codec, weights, weight_dtype, companion=values, companion_dtype="float32")
                off = np.roll(weights, 1)
                done += check(codec, values, "float32", companion=off, companion_dtype=weight_dtype)
    moments = (RANDOM.standard_normal(65_536 + 301) * 1e-4).astype(np.float32)
    if not kind.lossless:
        for values in (moments, moments**2, np.zeros_like(moments)):
            done += check(codec, values, "float32")
    assert done > 2, "FORMAT.md says that this codec takes some of these"


def half(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float16).view(np.uint16)


@pytest.mark.parametrize(
    "codec", [name for name in names() if by_name(name).lossless and not by_name(name).needs_companion]
)
def test_several_pieces(codec: str) -> None:
    n = 262_144 + 77  # one piece and a bit
    weights = bf16((RANDOM.standard_normal(n) * 0.02).astype(np.float32))
    beside = {"base": weights} if by_name(codec).needs_base else {}
    assert check(codec, changed(weights, 0.02), "bfloat16", **beside)


def test_whole_generations(tmp_path: Path) -> None:
    """Blocks of two ranks, what is replicated, what is each rank's own, a companion, and a chain of three."""
    builder = Builder(FileStore(tmp_path))
    whole = master(6 * 50).reshape(6, 50)
    states = [whole, *(changed(whole.view(np.uint32).ravel(), 0.1).view(np.float32).reshape(6, 50) for _ in range(2))]
    weights = [bf16(state) for state in states]
    parent = None
    for step, (state, weight) in enumerate(zip(states, weights, strict=True), start=1):
        base = states[step - 2] if step > 1 else None
        ranks = []
        for rank, rows in enumerate((slice(0, 4), slice(4, 6))):
            delta = {"codec": "diff-ans", "base": base[rows]} if base is not None else {"codec": "float-ans"}
            ranks.append(
                [
                    Tensor("model/block", state[rows].copy(), start=(rows.start, 0), whole=(6, 50), **delta),
                    Tensor("model/weight", weight, codec="zstd-planes", replicated=True, stored=rank == 0),
                    Tensor("random/own", np.full(9, rank, dtype=np.uint8)),
                ]
            )
        ranks[0].insert(2, Tensor("optimizer/master", state, codec="low-bits", companion="model/weight"))
        parent = builder.generation(step, ranks, parent=parent)
        found = second_reader.read(tmp_path, step, 1)
        assert found == {
            ("model/block", None): state.tobytes(),
            ("model/weight", None): weight.tobytes(),
            ("optimizer/master", 0): state.tobytes(),
            ("random/own", 0): bytes([0] * 9),
            ("random/own", 1): bytes([1] * 9),
        }


@pytest.mark.parametrize("policy", ["lossless", "adaptive", "compact"])
def test_what_the_sidecar_stores(tmp_path: Path, helpers: Any, policy: str) -> None:
    """Through the whole write path, with whatever it chooses, over a chain of saves."""
    store, catalog = FileStore(tmp_path / "store"), Catalog(FileStore(tmp_path / "store"))
    helpers.register_run(store, 1)
    encoder = helpers.rank_encoder(CheckpointPolicy(storage="file:///x", policy=policy).codec_policy)
    for step in (1, 2, 3):
        header = helpers.write_slot(tmp_path / "slot", sequence=step, step=step, size=1 << 16)
        helpers.persist(store, SlotWriter.open(tmp_path / "slot"), header, encoder=encoder)
        try_commit(catalog, Generation(step, 1), 1, 9, lambda: None)
        found = second_reader.read(tmp_path / "store", step, 1)
        assert found["model/weight", None] == helpers.payload_of(step, 1 << 16)
        assert found["random/torch", 0] == bytes(16)
