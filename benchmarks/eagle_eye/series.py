"""The series detector on the real series of NAB, beside four plain methods.

python -m benchmarks.eagle_eye.series PATH --json    # PATH: a copy of github.com/numenta/NAB

A row is labelled 1 within the windows of `labels/combined_windows.json`; series without a window are left out, as no
precision is defined there. VUS-PR is package vus's, without point adjustment, over windows from 0 to the series' period by
its autocorrelation (at most 100 rows). All methods see the whole series and no label, each with one configuration.
The package is not part of the project: pip install --no-deps vus && pip install pandas tqdm
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from benchmarks.results import Check, progress, publish
from sternpost_eagle_eye.series import score_series

Array = NDArray[np.float64]

LONGEST_VUS_WINDOW = 100
USUAL_VUS_WINDOW = 100
"""Where the autocorrelation has no peak."""
WINDOW = 100
"""Rows that the plain methods see at once."""
THRESHOLDS = 250


@dataclass(frozen=True)
class Series:
    """One file of NAB."""

    name: str
    values: Array
    """[rows]"""
    labels: NDArray[np.int64]
    """[rows] 1 within a window."""


def nab(folder: Path) -> Iterator[Series]:
    """The real series with at least one anomaly."""
    windows = json.loads((folder / "labels" / "combined_windows.json").read_text(encoding="utf-8"))
    for name, spans in sorted(windows.items()):
        if not name.startswith("real") or not spans:
            continue
        with (folder / "data" / name).open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))[1:]
        # Times of day in this format are ordered as text is.
        labels = [any(start[:19] <= row[0] <= end[:19] for start, end in spans) for row in rows]
        yield Series(name, np.array([float(row[1]) for row in rows]), np.array(labels, dtype=np.int64))


def vus_window(values: Array) -> int:
    """The period: the lag of the highest local maximum of the autocorrelation."""
    away = values[:20000] - values[:20000].mean()
    size = 2 ** int(np.ceil(np.log2(2 * len(away))))
    correlation = np.fft.irfft(np.abs(np.fft.rfft(away, size)) ** 2)[3 : min(401, len(away))]
    inner = correlation[1:-1]
    peaks = np.flatnonzero((inner > correlation[:-2]) & (inner > correlation[2:])) + 1
    if not len(peaks):
        return USUAL_VUS_WINDOW
    return min(LONGEST_VUS_WINDOW, int(peaks[np.argmax(correlation[peaks])]) + 3)


def vus_pr(labels: NDArray[np.int64], scores: Array, window: int) -> float:
    """Volume under the surface of precision and recall."""
    from vus.utils.metrics import metricor  # noqa: PLC0415 -- not part of the project

    return float(metricor().RangeAUC_volume_opt(labels.copy(), scores, window, THRESHOLDS)[-1])


def _windows(values: Array) -> Array:
    scaled = (values - values.mean()) / (values.std() or 1.0)
    return sliding_window_view(np.pad(scaled, (WINDOW // 2, WINDOW - 1 - WINDOW // 2), mode="edge"), WINDOW)


def by_pca(values: Array) -> Array:
    """What a quarter of the principal components of all windows leave unexplained."""
    from sklearn.decomposition import PCA  # noqa: PLC0415

    windows = _windows(values)
    model = PCA(WINDOW // 4).fit(windows)
    result: Array = ((windows - model.inverse_transform(model.transform(windows))) ** 2).sum(axis=1)
    return result


def by_isolation_forest(values: Array) -> Array:
    """Of all windows, with the library's defaults."""
    from sklearn.ensemble import IsolationForest  # noqa: PLC0415

    windows = _windows(values)
    result: Array = -IsolationForest(random_state=0).fit(windows).score_samples(windows)
    return result


def by_moving_z(values: Array) -> Array:
    """Deviation from the mean of the rows before, in their standard deviations."""
    before = sliding_window_view(np.pad(values, (WINDOW, 0), mode="edge"), WINDOW)[:-1]
    return np.abs(values - before.mean(axis=1)) / (before.std(axis=1) + 1e-3 * (values.std() or 1.0))


def by_deviation(values: Array) -> Array:
    """Deviation of the raw value from the mean of the series."""
    return np.abs(values - values.mean())


def by_us(values: Array) -> Array:
    """The series detector, offline, without any training rows."""
    return score_series(values[:, None], 0)


METHODS: dict[str, Callable[[Array], Array]] = {
    "sternpost": by_us,
    "PCA": by_pca,
    "IsolationForest": by_isolation_forest,
    "moving z-score": by_moving_z,
    "raw deviation": by_deviation,
}


def main() -> None:
    """Parse the arguments, score all series, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="the folder with NAB's data/ and labels/")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--every", type=int, default=1, help="only each so-manieth series, for a first look")
    options = parser.parse_args()
    try:
        series = list(nab(options.path))[:: options.every]
    except (OSError, ValueError) as error:
        sys.exit(f"{options.path} is no copy of NAB (data/ and labels/combined_windows.json): {error}")
    found: dict[str, dict[str, float]] = {}
    for one in series:
        window = vus_window(one.values)
        found[one.name] = {name: vus_pr(one.labels, method(one.values), window) for name, method in METHODS.items()}
        progress(f"{one.name} (window {window}): " + ", ".join(f"{n} {v:.3f}" for n, v in found[one.name].items()))
    means = {name: float(np.mean([scores[name] for scores in found.values()])) for name in METHODS}
    checks = [
        Check(f"mean VUS-PR, ahead of {name}", means["sternpost"], "", f"> {value:.3f}", means["sternpost"] > value)
        for name, value in means.items()
        if name != "sternpost"
    ]
    publish(
        "eagle_eye.series", {"series": len(series), "meanVusPr": means, "bySeries": found}, checks, as_json=options.json
    )


if __name__ == "__main__":
    main()
