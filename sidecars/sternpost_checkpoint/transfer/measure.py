"""Speeds of copying, hashing and of each codec, on made-up tensors like those of a training."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash

from sternpost_checkpoint.codec import base as codec_base
from sternpost_checkpoint.codec.base import ALONE, Beside, Codec, NotEncodable

CHANGED = 0.05
"""Of the bf16 weights, between base and new, as late in a training with a small learning rate."""


@dataclass(frozen=True)
class Sample:
    """A tensor to encode, with what a codec may want beside it."""

    name: str
    dtype: str
    raw: memoryview
    beside: Beside = ALONE


def memory_rows(size: int, rounds: int) -> list[dict[str, Any]]:
    """Copying between two buffers that are there, and hashing, one thread."""
    source, target = np.ones(size, dtype=np.uint8), np.ones(size, dtype=np.uint8)
    return [
        _row("memcpy", size, _median(lambda: np.copyto(target, source), rounds)),
        _row("hash (xxh3)", size, _median(lambda: xxhash.xxh3_128_digest(source.data), rounds)),
    ]


def codec_rows(size: int, rounds: int) -> list[dict[str, Any]]:
    """Every codec on every sample that it is meant for."""
    rows = []
    for sample in samples(size):
        for name in codec_names():
            codec = codec_base.by_name(name)
            if not sample.beside.suffices(codec):
                continue
            rows.append(_codec_row(codec, sample, rounds))
    return rows


def codec_names() -> list[str]:
    """What this release can write."""
    return sorted(codec_base.names())


def samples(size: int) -> list[Sample]:
    """bf16 weights beside their base, their fp32 master beside them, and a second moment; `size` bytes each."""
    random = np.random.default_rng(1)
    master = (random.standard_normal(size // 4) * 0.02).astype(np.float32)
    weight = _bf16(master)
    old = weight.copy()
    touched = random.random(len(old)) < CHANGED
    old[touched] ^= 1
    moment = (random.standard_normal(size // 4).astype(np.float32) * 1e-4) ** 2
    return [
        Sample("bf16 weights, 5 % new", "bfloat16", _bytes(weight), Beside(base=_bytes(old))),
        Sample("fp32 master", "float32", _bytes(master), Beside(companion=_bytes(weight), companion_dtype="bfloat16")),
        Sample("fp32 second moment", "float32", _bytes(moment)),
    ]


def _codec_row(codec: Codec, sample: Sample, rounds: int) -> dict[str, Any]:
    beside = sample.beside.for_codec(codec)
    row: dict[str, Any] = {"codec": codec.name, "data": sample.name, "lossless": codec.lossless, "note": ""}
    target = np.empty(len(sample.raw), dtype=np.uint8).data
    try:
        # Once before the clock runs: the first call compiles.
        stored = b"".join(bytes(piece) for piece in codec.encode(sample.raw, sample.dtype, beside))
    except NotEncodable as error:
        return row | {"ratio": None, "encodeMbPerSecond": None, "decodeMbPerSecond": None, "note": str(error)}
    codec.decode(memoryview(stored), target, sample.dtype, beside)
    encode = _median(lambda: sum(len(piece) for piece in codec.encode(sample.raw, sample.dtype, beside)), rounds)
    decode = _median(lambda: codec.decode(memoryview(stored), target, sample.dtype, beside), rounds)
    return row | {
        "ratio": len(sample.raw) / max(len(stored), 1),
        "encodeMbPerSecond": len(sample.raw) / encode / 1e6,
        "decodeMbPerSecond": len(sample.raw) / decode / 1e6,
    }


def _row(what: str, size: int, seconds: float) -> dict[str, Any]:
    return {"what": what, "mbPerSecond": size / seconds / 1e6}


def _median(do: Callable[[], Any], rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        do()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _bf16(values: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[Any]]:
    """Rounded to nearest, ties to even, as the upper half of the bits."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _bytes(array: np.ndarray[Any, np.dtype[Any]]) -> memoryview:
    return array.data.cast("B")
