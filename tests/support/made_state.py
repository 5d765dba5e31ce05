"""States of a training that is not there: tensors that change a little from step to step, saved without torch."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from sternpost_checkpoint.adaptive.kinds import rounded
from sternpost_checkpoint.format.table import Meta, TensorSpec
from sternpost_checkpoint.shm.layout import HEADER_BYTES, SlotHeader, align
from sternpost_checkpoint.shm.slot import SlotWriter, bytes_needed

State = dict[str, tuple[str, npt.NDArray[Any]]]
"""Name to dtype and values; 16-bit floats as uint16."""


@functools.lru_cache(maxsize=64)
def state_at(step: int, *, elements: int = 4096, parameters: int = 2, move: float = 3e-5) -> State:
    """bf16 weights, fp32 masters and moments at a step; the same for the same arguments."""
    found: State = {}
    for number in range(parameters):
        rng = np.random.default_rng(number)
        master = (rng.standard_normal(elements) * 0.02).astype(np.float32)
        first = (rng.standard_normal(elements) * 1e-3).astype(np.float32)
        second = ((rng.standard_normal(elements) * 1e-3) ** 2).astype(np.float32) + np.float32(1e-12)
        for _ in range(step):
            master = (master + rng.standard_normal(elements) * move).astype(np.float32)
            first = (first * 0.9 + rng.standard_normal(elements) * 1e-4).astype(np.float32)
        found[f"model/{number}.weight"] = ("bfloat16", rounded(master, "bfloat16"))
        found[f"optimizer/{number}/master"] = ("float32", master)
        found[f"optimizer/{number}/exp_avg"] = ("float32", first)
        found[f"optimizer/{number}/exp_avg_sq"] = ("float32", second)
    found["random/torch"] = ("uint8", np.frombuffer(bytes([step % 256]) * 16, dtype=np.uint8))
    return found


def meta_of(state: State) -> Meta:
    """The table of a state that one rank stores alone."""
    specs, trees, offset = [], {}, 0
    for number, (name, (dtype, values)) in enumerate(state.items()):
        role, _, path = name.partition("/")
        specs.append(TensorSpec(name, role, dtype, values.shape, offset, values.nbytes, replicated=False, stored=True))
        trees.setdefault(role, {})[path] = {"$": "tensor", "index": number}
        offset = align(offset + values.nbytes)
    return Meta(replicated=False, trees=trees, tensors=tuple(specs))


def write_state(
    path: Path, state: State, *, step: int, run: int = 1, rank: int = 0, world: int = 1, attempt: int = 1
) -> SlotHeader:
    """Save a state into a slot, as a trainer does."""
    meta = meta_of(state)
    data = meta.to_bytes()
    slot = SlotWriter.open(path)
    slot.ensure(bytes_needed(meta.payload_bytes, len(data)))
    slot.begin()
    for spec, (_, values) in zip(meta.tensors, state.values(), strict=True):
        slot.memory[HEADER_BYTES + spec.offset : HEADER_BYTES + spec.offset + spec.bytes] = values.tobytes()
    meta_offset = align(HEADER_BYTES + meta.payload_bytes)
    slot.memory[meta_offset : meta_offset + len(data)] = data
    header = SlotHeader(
        sequence=step,
        step=step,
        run=run,
        attempt_number=attempt,
        attempt_id=f"{attempt}-id",
        world_size=world,
        rank=rank,
        payload_bytes=meta.payload_bytes,
        meta_offset=meta_offset,
        meta_bytes=len(data),
        meta_hash=xxhash.xxh3_128_digest(data),
        saved_at=1000.0 + step,
        blocked_seconds=0.01,
        memcpy_floor_seconds=float("nan"),
    )
    slot.publish(header)
    return header
