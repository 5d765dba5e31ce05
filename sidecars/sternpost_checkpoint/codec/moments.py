"""Both moments of one parameter as clusters, with the error that this makes in the update."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xxhash

from sternpost_checkpoint.codec.base import NotEncodable, by_name
from sternpost_checkpoint.codec.clusters import BLOCK_ELEMENTS, Clustering, ClustersCodec
from sternpost_checkpoint.codec.kernels import clusters as kernels
from sternpost_checkpoint.codec.kernels.arrays import Array, elements

LARGEST_GROWTH = 2.0
"""No update may come out larger than so many times the largest one before."""
STEPS = (16, 12, 8, 6, 5, 4, 3, 2, 1)
"""Widths of m's clusters in bins; v's are twice as wide, for the update sees only its root."""


@dataclass(frozen=True)
class Moments:
    """Stored bytes of both, and what decoding them will give."""

    first: Sequence[bytes]
    """Of m, exp_avg."""
    second: Sequence[bytes]
    """Of v, exp_avg_sq."""
    first_raw_hash: str
    """xxh3-128 in hex of the decoded bytes."""
    second_raw_hash: str
    update_error: float
    """L2 norm of the error of m / (sqrt(v) + epsilon), relative to that of the update itself."""
    largest_update: float
    """Of any element, decoded."""


def encode_moments(
    first: memoryview, second: memoryview, *, codec: str, bound: float, epsilon: float = 1e-8
) -> Moments:
    """Encode float32 m and v of one parameter by `codec`, as coarsely as `bound` on the update's error allows.

    Raises NotEncodable where it cannot be met, or an update would come out much too large, or the values are not
    moments (of two sizes, infinite, a negative v).
    """
    encoder = by_name(codec)
    if not isinstance(encoder, ClustersCodec):
        raise NotEncodable(f"{codec}: not a codec for moments")
    if first.nbytes != second.nbytes or first.nbytes % 4:
        raise NotEncodable(f"{codec}: moments must be float32 of one size")
    m, v = elements(first, 4), elements(second, 4)
    for step in STEPS:
        # Values spread evenly over a cluster: the step's relative width over the root of 12, for m and for sqrt(v).
        if step > 1 and math.sqrt(2 / 12) * step / 32 * math.log(2) > bound:
            continue
        encoded = _encode(encoder, (m, v), step, epsilon)
        if encoded is not None and encoded.update_error <= bound:
            return encoded
        if encoder.most < 255:
            break  # the number of clusters is what limits it, not their width
    raise NotEncodable(f"{codec}: the update's error is above {bound}")


def _encode(codec: ClustersCodec, moments: tuple[Array, Array], step: int, epsilon: float) -> Moments | None:
    """One try; None when an update came out much too large."""
    clustering = Clustering(codec)
    stored: tuple[list[bytes], list[bytes]] = ([], [])
    hashes = (xxhash.xxh3_128(), xxhash.xxh3_128())
    sums = np.zeros(4)
    after, squares = np.empty((2, BLOCK_ELEMENTS), np.uint32), np.empty(BLOCK_ELEMENTS, np.float32)
    for start in range(0, len(moments[0]), BLOCK_ELEMENTS):
        blocks = [moment[start : start + BLOCK_ELEMENTS] for moment in moments]
        m, v = blocks[0].view(np.float32), blocks[1].view(np.float32)
        if v.min() < 0:
            raise NotEncodable(f"{codec.name}: a second moment is negative")
        weights = squares[: len(m)]
        kernels.squared_updates(m, v, epsilon, weights)
        for i, block in enumerate(blocks):
            decoded = after[i, : len(block)]
            stored[i].append(clustering.write(block, step * (i + 1), decoded, weights))
            hashes[i].update(decoded.data)
        pair = after[:, : len(m)].view(np.float32)
        kernels.update_error(m, v, pair[0], pair[1], epsilon, sums)
    if sums[3] > LARGEST_GROWTH * sums[2]:
        return None
    error = math.sqrt(sums[0] / sums[1]) if sums[1] else float(sums[0] > 0)
    return Moments(stored[0], stored[1], hashes[0].hexdigest(), hashes[1].hexdigest(), error, float(sums[3]))
