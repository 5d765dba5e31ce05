"""One-dimensional clusters of float32 sizes, on the logarithmic scale that their own bits are.

The bits of a positive float, read as an integer, are a piecewise linear logarithm: equal steps there are equal relative
steps, for tiny values as for large ones, without a logarithm whose last bit differs between machines. A bin is 1/32 of
an octave: exponent and five bits of the mantissa.
"""

from __future__ import annotations

import numpy as np

from sternpost_checkpoint.codec.kernels.arrays import Array
from sternpost_checkpoint.codec.kernels.jit import kernel, reassociating_kernel

BINS = 8192
SCALE_ELEMENTS = 256
"""Values that share a scale: the exponent of the largest of them."""
TOP_EXPONENT = 200
"""What that exponent becomes; room for values that are 2**200 times smaller."""


@kernel
def scale(values: Array, scales: Array, scaled: Array) -> int:
    """Sizes of float32 patterns (uint32), relative to the largest exponent of each SCALE_ELEMENTS (uint8 `scales`).

    Zero stays zero, and nothing else becomes it. Returns bit 0: there is a negative value; bit 1: one is not finite.
    """
    negative, worst = np.uint32(0), np.uint32(0)
    for block in range(scales.size):
        here = values[block * 256 : block * 256 + 256]
        there = scaled[block * 256 : block * 256 + 256]
        largest = np.uint32(0)
        for i in range(here.size):
            size = here[i] & np.uint32(0x7FFFFFFF)
            negative = np.uint32(negative | here[i])
            largest = np.uint32(max(largest, size))
        worst = np.uint32(max(worst, largest))
        exponent = np.int32(largest >> np.uint32(23))
        scales[block] = np.uint8(exponent)
        shift = np.int32((200 - exponent) << 23)
        for i in range(here.size):
            size = np.int32(here[i] & np.uint32(0x7FFFFFFF))
            there[i] = np.uint32(np.int32(max(size + shift, np.int32(1))) if size else np.int32(0))
    return int(negative >> np.uint32(31)) | (2 if worst >= np.uint32(0x7F800000) else 0)


@kernel
def histogram(scaled: Array, weights: Array | None, masses: Array, sums: Array) -> None:
    """Add up by bin how much scaled patterns weigh (1 without `weights`, float32), and their weighted sum.

    `masses`, `sums`: float64, both BINS long and zeroed. Zeros count nowhere; what is not zero weighs something.
    """
    for i in range(scaled.size):
        bin_, weight = scaled[i] >> np.uint32(18), 1.0 if weights is None else np.float64(weights[i]) + 1e-30
        masses[bin_] += weight
        sums[bin_] += weight * np.float64(scaled[i])
    masses[0] = 0.0


@kernel
def find_clusters(  # noqa: PLR0917 # a kernel takes no keywords
    masses: Array, sums: Array, step: int, most: int, codes: Array, centres: Array
) -> int:
    """Divide the bins into at most `most` clusters; returns how many.

    Runs of `step` bins are clusters at first. While there are too many, the two neighbours are joined that add the
    least to the squared error on the logarithmic scale, so that what weighs most keeps its resolution.

    `codes` (uint8, BINS): the cluster of each bin, from 1; bin 0 is of the first. `centres` (uint16): the upper halves
    of the scaled patterns that stand for the clusters, from index 1.
    """
    cells = (masses.size + step - 1) // step
    weight, mean, last, found = np.zeros(cells), np.zeros(cells), np.zeros(cells, np.int64), 0
    for cell in range(cells):
        mass, place, end = 0.0, 0.0, min((cell + 1) * step, masses.size)
        for b in range(cell * step, end):
            if masses[b] > 0:
                mass += masses[b]
                place += sums[b]
        if mass > 0:
            weight[found], mean[found], last[found] = mass, place / mass, end
            found += 1
    while found > most:
        best, least = 0, np.inf
        for c in range(found - 1):
            gap = mean[c + 1] - mean[c]
            cost = weight[c] * weight[c + 1] / (weight[c] + weight[c + 1]) * gap * gap
            if cost < least:
                best, least = c, cost
        mass = weight[best] + weight[best + 1]
        mean[best] = (weight[best] * mean[best] + weight[best + 1] * mean[best + 1]) / mass
        weight[best], last[best] = mass, last[best + 1]
        found -= 1
        for c in range(best + 1, found):
            weight[c], mean[c], last[c] = weight[c + 1], mean[c + 1], last[c + 1]
    b = 0
    for c in range(found):
        centres[c + 1] = (np.int64(mean[c]) + 0x8000) >> 16  # below 201 << 7: the scale's exponent is the largest
        for at in range(b, last[c]):
            codes[at] = c + 1
        b = last[c]
    return found


@kernel
def encode(scaled: Array, codes: Array, symbols: Array) -> None:
    """The cluster of each value; 0 for zero."""
    for i in range(scaled.size):
        symbols[i] = codes[scaled[i] >> np.uint32(18)] if scaled[i] else np.uint8(0)


@kernel
def signs(values: Array, packed: Array) -> None:
    """Bit i % 8 of byte i // 8 of uint8 `packed` (zeroed): value i is negative."""
    for i in range(values.size):
        packed[i >> 3] |= np.uint8((values[i] >> np.uint32(31)) << np.uint32(i & 7))


@kernel
def decode(symbols: Array, centres: Array, scales: Array, packed: Array, target: Array) -> None:
    """Fill `target` (uint32) with the centres (uint16, 256 long; the first is not used) as scaled by `scales`.

    `packed`: the signs, or empty where nothing is negative. A zero is positive; nothing else becomes zero.
    """
    for block in range(scales.size):
        there = target[block * 256 : block * 256 + 256]
        shift = (int(scales[block]) - 200) * 8388608
        for i in range(there.size):
            symbol = symbols[block * 256 + i]
            size = int(centres[symbol]) * 65536 + shift
            size = min(max(size, 1), 0x7F7FFFFF)
            there[i] = np.uint32(size if symbol else 0)
    if packed.size:
        for i in range(target.size):
            sign = np.uint32((packed[i >> 3] >> np.uint8(i & 7)) & np.uint8(1)) << np.uint32(31)
            target[i] |= sign if target[i] else np.uint32(0)


@kernel
def squared_updates(m: Array, v: Array, epsilon: float, squares: Array) -> None:
    """Fill float32 `squares` with (m / (sqrt(v) + epsilon))**2; m and v float32."""
    for i in range(m.size):
        update = m[i] / (np.sqrt(v[i]) + np.float32(epsilon))
        squares[i] = update * update


@reassociating_kernel
def update_error(m: Array, v: Array, m_after: Array, v_after: Array, epsilon: float, sums: Array) -> None:  # noqa: PLR0917
    """Add to `sums` (float64): squared error of the update, squared update; keep in it the largest update of each.

    All float32, of one length. The update is m / (sqrt(v) + epsilon).
    """
    error, square, largest, largest_after = 0.0, 0.0, sums[2], sums[3]
    for i in range(m.size):
        update = np.float64(m[i]) / (np.sqrt(np.float64(v[i])) + epsilon)
        after = np.float64(m_after[i]) / (np.sqrt(np.float64(v_after[i])) + epsilon)
        error += (after - update) * (after - update)
        square += update * update
        largest = max(largest, abs(update))
        largest_after = max(largest_after, abs(after))
    sums[0] += error
    sums[1] += square
    sums[2], sums[3] = largest, largest_after
