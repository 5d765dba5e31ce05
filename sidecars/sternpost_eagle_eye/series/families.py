"""Independent ways to be unusual: to surprise, to be out of place, to break a correlation, to have a shape that is seldom."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from sternpost_eagle_eye.series.preparation import Array

LAGS = 3
RIDGE = 10.0
FLOOR = 0.05
"""Robust deviations: the least error of a prediction that is worth a thought."""
SURPRISE_LIMIT = 10.0
MAX_TRAINING_ROWS = 3000


def surprise(z: Array, train: slice) -> Array:
    """How far each row is from what the rows before foretell (ridge regression on three lags), averaged over columns.

    `z`: [rows, columns], scaled. The model and the usual size of its error are those of the rows `train`.
    """
    past = np.hstack([_shifted(z, lag) for lag in range(1, LAGS + 1)])
    known, target = past[train], z[train]
    weights = np.linalg.solve(known.T @ known + RIDGE * np.eye(known.shape[1]), known.T @ target)
    error = z - past @ weights
    usual = np.sqrt((error[train] ** 2).mean(axis=0)) + FLOOR
    result: Array = np.minimum(np.abs(error) / usual, SURPRISE_LIMIT).mean(axis=1)
    return result


def displacement(z: Array, reference: slice) -> Array:
    """Mahalanobis distance with a shrunk covariance of the rows `reference`: breaks of correlation, and levels never seen."""
    known = z[reference]
    centre = known.mean(axis=0)
    covariance = _shrunk(known - centre)
    away = z - centre
    solved = np.linalg.solve(covariance, away.T).T
    return np.asarray(np.sqrt(np.clip((away * solved).sum(axis=1), 0, None) / z.shape[1]))


def residual(z: Array, reference: slice, share: float = 0.25) -> Array:
    """What the first principal components (a quarter of them) leave unexplained, in units of what they usually leave."""
    known = z[reference]
    centre = known.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov((known - centre).T).reshape(z.shape[1], z.shape[1]))
    kept = vectors[:, np.argsort(values)[::-1][: max(1, int(share * z.shape[1]))]]
    away = z - centre
    left = away - away @ kept @ kept.T if z.shape[1] > 1 else away
    usual = np.sqrt((left[reference] ** 2).mean(axis=0)) + FLOOR
    return np.asarray(np.minimum((left / usual) ** 2, SURPRISE_LIMIT**2).mean(axis=1))


def rare_shape(z: Array, width: int, reference: slice, *, causal: bool) -> Array:
    """Distance of each window of `width` rows to the nearest of a few typical ones, by k-means; averaged over columns.

    `causal`: the window ends with its row; otherwise the row is its middle.
    """
    from sklearn.cluster import KMeans  # noqa: PLC0415 -- takes a second to load

    total = np.zeros(len(z))
    before = width - 1 if causal else width // 2
    for column in z.T:
        windows = sliding_window_view(np.pad(column, (before, width - 1 - before), mode="edge"), width)
        known = windows[reference]
        known = known[:: max(1, len(known) // MAX_TRAINING_ROWS)]
        clusters = min(10, len(np.unique(known, axis=0)))
        model = KMeans(clusters, n_init=1, random_state=0).fit(known)
        distance = model.transform(windows).min(axis=1)
        total += distance / np.sqrt(width)
    return np.asarray(total / z.shape[1])


def _shifted(z: Array, rows: int) -> Array:
    result = np.empty_like(z)
    result[rows:] = z[:-rows]
    result[:rows] = z[0]
    return result


def _shrunk(away: Array) -> Array:
    """The covariance by Ledoit and Wolf, and never singular."""
    rows, columns = away.shape
    sample = away.T @ away / rows
    mean = np.trace(sample) / columns
    target = mean * np.eye(columns)
    distance = ((sample - target) ** 2).sum()
    spread = ((away**2).T @ (away**2) / rows - sample**2).sum() / rows
    weight = min(1.0, spread / distance) if distance > 0 else 1.0
    return np.asarray((1 - weight) * sample + weight * target + 1e-6 * np.eye(columns))
