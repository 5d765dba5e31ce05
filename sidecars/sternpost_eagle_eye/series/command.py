"""`sternpost-eagle-eye score`: a CSV file in, one score a row out."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np

from sternpost_eagle_eye.series.detector import score_series
from sternpost_eagle_eye.series.preparation import Array

LABEL = "label"


class SeriesError(Exception):
    """A file that is no series; the message says why and what would be one."""


def read_series(path: Path) -> Array:
    """[rows, columns] of a CSV file with a header; its last column is left out if it is called `label`.

    What is no number is NaN. Raises SeriesError for a file without a header, and OSError.
    """
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.reader(line.replace("\0", "") for line in file)
        try:
            header = next(rows, None)
            if not header:
                raise SeriesError(f"{path} is empty; a series has a header and one row for each instant")
            columns = len(header) - (header[-1].strip().lower() == LABEL)
            if columns == 0:
                raise SeriesError(f"{path} has no column but `{LABEL}`; there is nothing to score")
            values = [list(_numbers(row, columns)) for row in rows if row]
        except csv.Error as error:
            raise SeriesError(f"{path} is no CSV file: {error}") from error
    return np.array(values, dtype=float).reshape(len(values), columns)


def _numbers(row: list[str], columns: int) -> Iterator[float]:
    for index in range(columns):
        try:
            yield float(row[index])
        except (ValueError, IndexError):
            yield math.nan


def score_file(path: Path, train_rows: int, *, online: bool, notes: TextIO | None = None) -> list[str]:
    """One line for each row of the file; to `notes`, how much of it were no numbers.

    Raises SeriesError, also for more training rows than there are rows, and OSError.
    """
    values = read_series(path)
    if train_rows > len(values):
        raise SeriesError(f"{path} has {len(values)} rows; the first {train_rows} cannot be training rows")
    gaps = np.argwhere(~np.isfinite(values))
    if len(gaps):
        row, column = gaps[0]
        print(
            f"{len(gaps)} of {values.size} values are no finite numbers and count as gaps, "
            f"the first in row {row + 1}, column {column + 1}",
            file=notes or sys.stderr,
        )
    return [f"{score:.9g}" for score in score_series(values, train_rows, online=online)]
