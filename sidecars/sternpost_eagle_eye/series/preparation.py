"""Makes columns comparable: gaps filled, constant ones left out, robustly scaled, bounded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LIMIT = 8.0
"""Robust deviations beyond which more is not more: one wild column must not hide all others."""
FAR = 1e9
SMALLEST_SHARE = 0.1
"""Of the standard deviation: the least scale of a column that is nearly always the same."""


def fill_gaps(values: Array, known_rows: int) -> Array:
    """NaN and infinite values take the last finite one before them.

    Those at the beginning take the first finite one, if it is among the first `known_rows`, else 0.
    """
    finite = np.isfinite(values)
    if finite.all():
        return values.astype(float, copy=True)
    rows = np.where(finite, np.arange(len(values))[:, None], -1)
    last = np.maximum.accumulate(rows, axis=0)
    first = np.argmax(finite, axis=0)
    filled = np.take_along_axis(values, np.where(last < 0, first, last), axis=0)
    unknown = (last < 0) & (~finite.any(axis=0) | (first >= known_rows))
    return np.where(unknown, 0.0, filled)


def robust_scale(values: Array, reference: Array) -> Array:
    """[rows, columns] in robust deviations of `reference`, within ±LIMIT. Columns that are constant everywhere come out 0.

    A column that is constant in the reference and not later deviates by its whole LIMIT as soon as it moves.
    """
    # Values near the largest float would overflow in sums of squares.
    largest = np.abs(reference).max(axis=0)
    unit = np.where(largest > 0, largest, 1.0)
    values, reference = np.clip(values / unit, -FAR, FAR), reference / unit
    low, quarter, middle, three, high = np.percentile(reference, [5, 25, 50, 75, 95], axis=0)
    scale = np.maximum((three - quarter) / 1.35, (high - low) / 3.29)
    deviation = reference.std(axis=0)
    scale = np.where(scale > SMALLEST_SHARE * deviation, scale, deviation)
    tiny = 1e-9
    scaled = (values - middle) / np.where(scale > tiny, scale, tiny)
    return np.asarray(np.clip(scaled, -LIMIT, LIMIT))


def changing(values: Array) -> NDArray[np.bool_]:
    """[columns] which are not the same in all rows."""
    return np.asarray(np.ptp(values, axis=0) > 0)
