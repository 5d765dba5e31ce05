"""How small recorded states become: by each codec, and by what the engine chooses."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from benchmarks.checkpoint.states import Branch, State
from sternpost_checkpoint.adaptive.chains import Decision
from sternpost_checkpoint.adaptive.policy import CodecPolicy, Exactness, Preference
from sternpost_checkpoint.adaptive.pressure import Pressure
from sternpost_checkpoint.codec.base import NotEncodable, by_name, names
from sternpost_checkpoint.format.table import TensorSpec
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.shm.layout import align
from sternpost_checkpoint.sidecar.bases import KeptState, KeptTensor
from sternpost_checkpoint.sidecar.encode import Encoder, Part
from sternpost_checkpoint.sidecar.plan import make_plan
from sternpost_checkpoint.sidecar.trials import SMALL_BYTES, Inputs, TrialBook

Sizes = dict[str, int]
ZIPNN = "zipnn"
PAIRED = "rounded"
"""Stores next to nothing of a weight because its master is stored in full: no codec to compare single tensors with."""


@dataclass
class Sizing:
    """One pair of states."""

    changed: float
    """p of the weights."""
    raw: Sizes = field(default_factory=dict)
    """Bytes by kind."""
    stored: Sizes = field(default_factory=dict)
    """The same, as chosen with `prefer: size`."""
    codecs: dict[str, Sizes] = field(default_factory=dict)
    """Kind to codec to bytes, tensors too small for it as they are."""
    worst: float = 1.0
    """Size of the choice over that of the best single codec, of the tensor where it is worst."""
    worst_tensor: str = ""
    error: float | None = None
    """Largest error of the update in a tensor; None when lossless."""

    @property
    def ratio(self) -> float:
        """Of the whole state."""
        return sum(self.raw.values()) / sum(self.stored.values())

    def ratio_of(self, kind: str) -> float:
        """Of one kind of tensors."""
        return self.raw[kind] / self.stored[kind]


def zipnn_compressor(dtype: str) -> Callable[[bytes], bytes] | None:
    """The peer, on one thread, if it is installed and takes the dtype."""
    if importlib.util.find_spec("zipnn") is None or dtype not in ("bfloat16", "float16", "float32"):
        return None
    import zipnn  # type: ignore[import-untyped,import-not-found,unused-ignore] # noqa: PLC0415 # if installed

    peer = zipnn.ZipNN(bytearray_dtype=dtype, input_format="byte", threads=1)
    return lambda raw: bytes(peer.compress(bytearray(raw)))


def table(state: State, weights: str) -> tuple[list[TensorSpec], memoryview]:
    """The state as it would stand in shared memory."""
    specs, offset = [], 0
    for name, values in state.items():
        kind, parameter = name.split("/", 1)
        full = f"model/{parameter}" if kind == "weight" else f"optimizer/{parameter}/{kind}"
        dtype = weights if kind == "weight" else "float32"
        role = full.split("/", 1)[0]
        specs.append(TensorSpec(full, role, dtype, values.shape, offset, values.nbytes, replicated=False, stored=True))
        offset += align(values.nbytes)
    payload = bytearray(offset)
    for spec, values in zip(specs, state.values(), strict=True):
        payload[spec.offset : spec.offset + spec.bytes] = values.tobytes()
    return specs, memoryview(payload)


def kept(specs: list[TensorSpec], payload: memoryview) -> KeptState:
    """A base in memory, as after a commit."""
    tensors = {
        spec.name: KeptTensor(
            spec.dtype, spec.shape, None, payload[spec.offset : spec.offset + spec.bytes], filled=True
        )
        for spec in specs
    }
    return KeptState(Generation(1, 0), tensors, np.empty(0, np.uint8))


def sizing(branch: Branch, interval: int, exactness: Exactness, *, each: bool) -> Sizing:
    """Encode the state `interval` steps after the base as the sidecar does; `each`: by every single codec, too."""
    base, current = branch.state(0), branch.state(interval)
    specs, payload = table(current, branch.weights)
    policy = CodecPolicy.of(exactness, Preference.SIZE)
    pressure, book = Pressure(Preference.SIZE), TrialBook(thorough=True)
    plan = make_plan(
        specs,
        payload,
        base=kept(*table(base, branch.weights)),
        may_build=Decision(delta=True, reason=""),
        policy=policy,
        pressure=pressure,
        book=book,
        keep_bytes=0,
    )
    kinds = [name.split("/", 1)[0] for name in current]
    changed = [
        (base[name] != values).mean() * values.size for name, values in current.items() if name.startswith("weight/")
    ]
    elements = sum(values.size for name, values in current.items() if name.startswith("weight/"))
    found = Sizing(float(sum(changed)) / elements)
    encoder, size, errors = Encoder(policy, pressure, book, None), 0, [0.0]
    inputs = {item.number: item.inputs for unit in plan.units for item in unit}
    for batch in encoder.batches(plan.units):
        for item in batch:
            if not isinstance(item, Part):
                size += memoryview(item).nbytes
                continue
            kind = kinds[item.number]
            found.raw[kind] = found.raw.get(kind, 0) + item.raw_bytes
            found.stored[kind] = found.stored.get(kind, 0) + size
            errors.append(item.update_error or 0.0)
            if each:
                _compare(found, kind, inputs[item.number], size)
            size = 0
    found.error = None if exactness is Exactness.LOSSLESS else max(errors)
    return found


def _compare(found: Sizing, kind: str, inputs: Inputs, chosen: int) -> None:
    sizes = single(inputs)
    totals = found.codecs.setdefault(kind, {})
    for name in {*sizes, *totals}:
        totals[name] = totals.get(name, 0) + sizes.get(name, len(inputs.raw))
    if len(inputs.raw) >= SMALL_BYTES and chosen > found.worst * min(sizes.values()):
        found.worst, found.worst_tensor = chosen / min(sizes.values()), inputs.spec.name


def single(inputs: Inputs) -> Sizes:
    """Bytes by each lossless codec that takes the tensor, and by zipnn."""
    sizes: Sizes = {}
    for name in names():
        codec = by_name(name)
        if not codec.lossless or name == PAIRED or (codec.needs_companion and inputs.beside.companion is None):
            continue
        beside = inputs.beside.for_codec(codec)
        try:
            sizes[name] = sum(memoryview(p).nbytes for p in codec.encode(inputs.raw, inputs.spec.dtype, beside))
        except NotEncodable:
            continue
    peer = zipnn_compressor(inputs.spec.dtype)
    if peer is not None and len(inputs.raw) >= SMALL_BYTES:
        sizes[ZIPNN] = len(peer(bytes(inputs.raw)))
    return sizes
