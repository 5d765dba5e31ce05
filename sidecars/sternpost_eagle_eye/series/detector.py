"""The series detector: four families of evidence, brought to one scale, added up, and smoothed. Pure."""

from __future__ import annotations

import numpy as np

from sternpost_eagle_eye.series.families import displacement, rare_shape, residual, surprise
from sternpost_eagle_eye.series.preparation import Array, changing, fill_gaps, robust_scale

LEAST_TRAINING_ROWS = 100
"""Fewer say little; then the whole file is its own reference, or online its first rows."""
ROWS_A_COLUMN = 10
SHAPE_ROWS = 48
SHAPE_COLUMNS = 40
"""More are replaced by as many principal components."""
SMOOTHING_SHARE = 0.04
"""Of the rows, divided by the columns: a single column says little in one row, many say much."""
SMOOTHING_ROWS = (9, 401)
ONLINE_SMOOTHING_ROWS = 9
WEIGHTS = {"surprise": 2.0, "displacement": 1.0, "residual": 0.5, "shape": 2.0}
STEEP = 15.0
"""A family counts for at most so many times what 95 of 100 rows stay below."""


def score_series(values: Array, train_rows: int, *, online: bool = False) -> Array:
    """One score a row, higher is more unusual; finite for whatever the values are.

    `values`: [rows, columns], may hold NaN and infinity. `train_rows`: so many rows at the beginning are known to be healthy.
    Offline the rest of the file may serve as a reference, too; with `online` no score depends on a later row (other than those
    of the training). Raises ValueError for an array that is not two-dimensional, or a negative number of rows.
    """
    if values.ndim != 2:
        raise ValueError(f"a series has rows and columns, not the shape {values.shape}")
    if train_rows < 0:
        raise ValueError(f"the number of training rows is {train_rows}; give 0 or more")
    rows = len(values)
    known = min(train_rows, rows)
    if known < max(LEAST_TRAINING_ROWS, ROWS_A_COLUMN * values.shape[1]):
        known = min(rows, max(known, LEAST_TRAINING_ROWS)) if online else rows
    filled = fill_gaps(values, known if online else rows)
    if not online and filled.size:
        filled = filled[:, changing(filled)]
    if rows < 2 or filled.shape[1] == 0:
        return np.zeros(rows)
    parts = _families(filled, known, online=online)
    reference = slice(0, known) if online else slice(None)
    width = ONLINE_SMOOTHING_ROWS if online else _smoothing_rows(rows, filled.shape[1])
    total = np.zeros(rows)
    for name, part in parts.items():
        smooth = _smoothed(np.nan_to_num(part, nan=0.0, posinf=1e12), width, causal=online)
        total += WEIGHTS[name] * _steepness(smooth, smooth[reference])
    return total


def _families(filled: Array, known: int, *, online: bool) -> dict[str, Array]:
    train = slice(0, known)
    z = robust_scale(filled, filled[train])
    whole = z if online else robust_scale(filled, filled)
    everything = train if online else slice(None)
    parts = {
        "surprise": surprise(z, train),
        "displacement": displacement(whole, everything),
        "residual": residual(z, train),
    }
    if known >= 4 * SHAPE_ROWS:
        shapes = _principal(whole, everything) if whole.shape[1] > SHAPE_COLUMNS else whole
        parts["shape"] = rare_shape(shapes, SHAPE_ROWS, everything, causal=online)
    return parts


def _principal(z: Array, reference: slice) -> Array:
    known = z[reference]
    values, vectors = np.linalg.eigh(np.cov(known.T))
    result: Array = (z - known.mean(axis=0)) @ vectors[:, np.argsort(values)[::-1][:SHAPE_COLUMNS]]
    return result


def _smoothing_rows(rows: int, columns: int) -> int:
    least, most = SMOOTHING_ROWS
    return int(np.clip(SMOOTHING_SHARE * rows / columns, least, most)) | 1


def _smoothed(values: Array, width: int, *, causal: bool) -> Array:
    """Moving mean; `width` is odd."""
    before = width - 1 if causal else width // 2
    padded = np.pad(values, (before, width - 1 - before), mode="edge")
    total = np.concatenate([[0.0], np.cumsum(padded)])
    return np.asarray((total[width:] - total[:-width]) / width)


def _steepness(values: Array, reference: Array) -> Array:
    middle, high = np.percentile(reference, [50, 95])
    return np.asarray(np.clip((values - middle) / max(high - middle, 1e-9), -1.0, STEEP))
