"""`sternpost-eagle-eye score`: a CSV file in, one score a row out."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

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


def score_file(path: Path, train_rows: int, *, online: bool) -> list[str]:
    """One line for each row of the file. Raises SeriesError and OSError."""
    return [f"{score:.9g}" for score in score_series(read_series(path), train_rows, online=online)]
