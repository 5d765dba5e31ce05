"""How fast codecs are on one core, beside memcpy, zstd-1 and zipnn on the same bytes in the same run."""

from __future__ import annotations

import importlib.util
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import zstandard

from benchmarks.checkpoint.codecs_size import zipnn_compressor
from benchmarks.checkpoint.states import Branch
from sternpost_checkpoint.adaptive.choice import choose
from sternpost_checkpoint.adaptive.kinds import Kind, Role
from sternpost_checkpoint.adaptive.policy import CodecPolicy
from sternpost_checkpoint.adaptive.pressure import Pressure
from sternpost_checkpoint.codec.base import PIECE_BYTES, Beside, by_name
from sternpost_checkpoint.format.dtypes import ITEM_BYTES
from sternpost_checkpoint.format.table import TensorSpec
from sternpost_checkpoint.sidecar.trials import Inputs, TrialBook

REPEATS = 7
TILES = 2
"""Each kind is as long as two states: larger than caches."""
CANDIDATES = {
    "weight": ("raw", "mask", "mask-zstd", "mask-ans", "xor-planes", "diff-ans", "float-ans", "zstd-planes"),
    "master": ("raw", "low-bits", "float-ans", "diff-ans", "zstd-planes"),
    "exp_avg": ("raw", "float-ans", "diff-ans", "zstd-planes"),
    "exp_avg_sq": ("raw", "float-ans", "diff-ans", "zstd-planes"),
}


@dataclass(frozen=True)
class Timing:
    """One codec on one kind of tensors."""

    raw: int
    stored: int
    encode: float
    """Seconds."""
    decode: float


Timings = dict[str, dict[str, Timing]]


def median(action: Callable[[], Any]) -> float:
    """Seconds; once before, to warm up."""
    action()
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def memcpy_ratio(action: Callable[[], Any], values: np.ndarray[Any, np.dtype[Any]]) -> tuple[float, float]:
    """(memcpy's time over the action's, GB/s of the action), by pairs: the machine has other work, too."""
    target = np.empty_like(values)
    target[:] = values
    action()
    ratios, seconds = [], []
    for _ in range(2 * REPEATS):
        started = time.perf_counter()
        np.copyto(target, values)
        between = time.perf_counter()
        action()
        ended = time.perf_counter()
        ratios.append((between - started) / (ended - between))
        seconds.append(ended - between)
    return statistics.median(ratios), values.nbytes / statistics.median(seconds) / 1e9


def mask_speeds() -> dict[str, dict[str, float]]:
    """The bitmask beside memcpy, 32 MiB of bf16 weights, by the share of changed elements."""
    generator = np.random.default_rng(0)
    base = (generator.standard_normal(2**24).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    codec, found = by_name("mask"), {}
    for share in (0.0, 0.01, 0.05, 0.1, 0.3, 1.0):
        current = base ^ (generator.random(len(base)) < share).astype(np.uint16)
        raw, old = memoryview(current).cast("B"), memoryview(base).cast("B")
        stored = memoryview(b"".join(codec.encode(raw, "bfloat16", Beside(base=old))))
        target = memoryview(bytearray(len(raw)))

        def encode(raw: memoryview = raw, old: memoryview = old) -> None:
            for _ in codec.encode(raw, "bfloat16", Beside(base=old)):
                pass

        def decode(stored: memoryview = stored, target: memoryview = target, old: memoryview = old) -> None:
            codec.decode(stored, target, "bfloat16", Beside(base=old))

        ratio, speed = memcpy_ratio(encode, current)
        back, back_speed = memcpy_ratio(decode, current)
        found[f"{share:g}"] = {"encode": ratio, "decode": back, "encodeGBs": speed, "decodeGBs": back_speed}
    return found


def mixed(branch: Branch, interval: int) -> tuple[dict[str, memoryview], dict[str, memoryview], dict[str, str]]:
    """(kind to bytes, the same of the base, kind to dtype) of a whole state."""
    states = []
    for after in (interval, 0):
        state = branch.state(after)
        kinds: dict[str, list[Any]] = {}
        for name, values in state.items():
            kinds.setdefault(name.split("/", 1)[0], []).append(values.reshape(-1))
        states.append({kind: memoryview(np.tile(np.concatenate(v), TILES)).cast("B") for kind, v in kinds.items()})
    return states[0], states[1], {kind: branch.weights if kind == "weight" else "float32" for kind in states[0]}


def codec_timings(branch: Branch, interval: int) -> Timings:
    """Every candidate on every kind."""
    current, base, dtypes = mixed(branch, interval)
    found: Timings = {}
    for kind, raw in current.items():
        found[kind] = {}
        for name in CANDIDATES[kind]:
            codec = by_name(name)
            beside = Beside(base[kind], current["weight"], dtypes["weight"]).for_codec(codec)
            target = memoryview(bytearray(len(raw)))

            def encode(codec: Any = codec, raw: Any = raw, kind: str = kind, beside: Any = beside) -> int:
                # Copied, for `raw` hands over what it was given: writing it out costs a copy, too.
                return sum(len(bytes(piece)) for piece in codec.encode(raw, dtypes[kind], beside))

            stored = memoryview(b"".join(codec.encode(raw, dtypes[kind], beside)))

            def decode(
                codec: Any = codec,
                stored: Any = stored,
                target: Any = target,
                kind: str = kind,
                beside: Any = beside,
            ) -> None:
                codec.decode(stored, target, dtypes[kind], beside)

            found[kind][name] = Timing(len(raw), len(stored), median(encode), median(decode))
            assert target == raw, f"{name} did not give back what it was given"
    return found


def peer_timings(branch: Branch, interval: int) -> dict[str, Timing]:
    """zstd-1 and zipnn on all bytes of the state; their decoding is not timed (0)."""
    current, _, dtypes = mixed(branch, interval)
    compressor = zstandard.ZstdCompressor(level=1)

    def zstd() -> int:
        return sum(
            len(compressor.compress(raw[start : start + PIECE_BYTES]))
            for raw in current.values()
            for start in range(0, len(raw), PIECE_BYTES)
        )

    size = sum(len(raw) for raw in current.values())
    found = {"zstd-1": Timing(size, zstd(), median(zstd), 0.0)}
    if importlib.util.find_spec("zipnn") is not None:
        peers = {kind: zipnn_compressor(dtype) for kind, dtype in dtypes.items()}
        copies = {kind: bytes(raw) for kind, raw in current.items()}

        def zipnn() -> int:
            return sum(len(peer(copies[kind])) for kind, peer in peers.items() if peer is not None)

        found["zipnn"] = Timing(size, zipnn(), median(zipnn), 0.0)
    return found


def chosen_by_default(branch: Branch, interval: int) -> dict[str, str]:
    """Kind to codec, as the engine chooses with the default policy before it has measured anything."""
    current, base, dtypes = mixed(branch, interval)
    kinds = {
        "weight": Kind.WEIGHT,
        "master": Kind.MASTER,
        "exp_avg": Kind.FIRST_MOMENT,
        "exp_avg_sq": Kind.SECOND_MOMENT,
    }
    found = {}
    for kind, raw in current.items():
        shape = (len(raw) // ITEM_BYTES[dtypes[kind]],)
        spec = TensorSpec(f"model/{kind}", "model", dtypes[kind], shape, 0, len(raw), replicated=False, stored=True)
        companion = current["weight"] if kind == "master" else None
        beside = Beside(base[kind], companion, dtypes["weight"])
        inputs = Inputs(spec, Role(kinds[kind]), raw, beside)
        found[kind] = choose(TrialBook().evidence(inputs), CodecPolicy(), Pressure(), delta=True).codec
    return found


def fastest(timings: Timings, most: float) -> dict[str, str]:
    """Kind to codec: the fastest combination that stores no more than `most` bytes; the smallest where none does."""
    kinds = list(timings)
    combinations = [dict(zip(kinds, names, strict=True)) for names in itertools.product(*(timings[k] for k in kinds))]

    def total(choice: dict[str, str], what: str) -> float:
        return float(sum(getattr(timings[kind][name], what) for kind, name in choice.items()))

    fitting = [choice for choice in combinations if total(choice, "stored") <= most]
    if not fitting:
        return min(combinations, key=lambda choice: total(choice, "stored"))
    return min(fitting, key=lambda choice: total(choice, "encode"))
