"""What a tensor is to the training: by its name, and, for a master weight, by its content. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from sternpost_checkpoint.format.table import Shard, TensorSpec

WEIGHT_DTYPES = ("bfloat16", "float16")
FLOATS = ("bfloat16", "float16", "float32", "float64")
_SAMPLED = 64
"""Elements that are compared to find the weight that a master belongs to; a wrong guess costs a slower codec, no more."""


class Kind(StrEnum):
    """What decides how a tensor may be stored."""

    WEIGHT = "weight"
    MASTER = "master"
    """fp32, and a 16-bit weight is its rounding."""
    FIRST_MOMENT = "exp_avg"
    SECOND_MOMENT = "exp_avg_sq"
    OTHER = "other"


_MOMENTS = {"exp_avg": Kind.FIRST_MOMENT, "exp_avg_sq": Kind.SECOND_MOMENT}
"""Last component of the name. Not max_exp_avg_sq and momentum_buffer: what an error in them does to the update is another
formula."""


@dataclass(frozen=True)
class Role:
    """A tensor's kind, and who it goes with: indexes into the table."""

    kind: Kind
    partner: int | None = None
    """The second moment of a first, and the other way round."""
    companion: int | None = None
    """The 16-bit weight of a master."""


def roles_of(
    specs: Sequence[TensorSpec], stored: Iterable[int], samples: Mapping[int, npt.NDArray[np.uint8]]
) -> dict[int, Role]:
    """The roles of the tensors `stored` (indexes into `specs`), all of which one rank stores.

    `samples`: for the floats among them, the bytes of the elements at `sample_positions`.
    """
    chosen = list(stored)
    by_name = {specs[number].name: number for number in chosen}
    weights: dict[tuple[str, tuple[int, ...], Shard | None, bytes], int] = {}
    for number in chosen:
        spec = specs[number]
        if spec.dtype in WEIGHT_DTYPES and number in samples and samples[number].any():
            weights.setdefault((spec.dtype, spec.shape, spec.shard, samples[number].tobytes()), number)
    found = {}
    for number in chosen:
        spec = specs[number]
        head, _, last = spec.name.rpartition("/")
        kind = _MOMENTS.get(last) if spec.role == "optimizer" and spec.dtype == "float32" else None
        if kind is not None:
            other = "exp_avg_sq" if kind is Kind.FIRST_MOMENT else "exp_avg"
            partner = by_name.get(f"{head}/{other}")
            fits = partner is not None and specs[partner].dtype == spec.dtype and specs[partner].shape == spec.shape
            found[number] = Role(kind, partner=partner if fits else None)
            continue
        companion = _companion(spec, samples.get(number), weights) if spec.dtype == "float32" else None
        if companion is not None:
            found[number] = Role(Kind.MASTER, companion=companion)
        else:
            found[number] = Role(Kind.WEIGHT if spec.role == "model" and spec.dtype in FLOATS else Kind.OTHER)
    return found


def sample_positions(elements: int) -> npt.NDArray[np.int64]:
    """Which elements of a tensor are compared: spread over it, the same for equal shapes."""
    return np.linspace(0, elements - 1, min(elements, _SAMPLED), dtype=np.int64)


def _companion(
    spec: TensorSpec,
    sample: npt.NDArray[np.uint8] | None,
    weights: Mapping[tuple[str, tuple[int, ...], Shard | None, bytes], int],
) -> int | None:
    if sample is None or not len(sample):
        return None
    values = np.frombuffer(sample.tobytes(), dtype=np.float32)
    for dtype in WEIGHT_DTYPES:
        number = weights.get((dtype, spec.shape, spec.shard, rounded(values, dtype).tobytes()))
        if number is not None:
            return number
    return None


def rounded(values: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[np.uint16]:
    """The bits of `values` as bfloat16 or float16, rounded to nearest, ties to even."""
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).view(np.uint16)
    bits = values.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
