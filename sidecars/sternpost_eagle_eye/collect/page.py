"""Prometheus text, from somebody who may be confused: bounded, filtered before it is parsed, garbage counted line by line."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Container, Iterator
from dataclasses import dataclass
from functools import cached_property

from prometheus_client.parser import text_string_to_metric_families

MAX_LINES = 2000
PREFIX = "sternpost_"
MAX_SERIES_OF_A_NAME = 4096
"""A flood in one metric hides no other."""
MAX_KNOWN_SERIES = 100_000
"""Names with labels that are remembered as parsed: a page repeats them every second."""

_known: dict[str, tuple[str, dict[str, str]]] = {}


@dataclass(frozen=True, slots=True)
class PageSample:
    """One line of a page. `labels` is shared between pages: read it only."""

    name: str
    labels: dict[str, str]
    value: float


@dataclass(frozen=True)
class Page:
    """The samples of interest, and how many lines made no sense or were too many."""

    samples: tuple[PageSample, ...]
    dropped: int

    @cached_property
    def by_name(self) -> dict[str, list[PageSample]]:
        """The samples of each name, in order."""
        found: defaultdict[str, list[PageSample]] = defaultdict(list)
        for sample in self.samples:
            found[sample.name].append(sample)
        return dict(found)

    def value(self, name: str) -> float | None:
        """The last sample of that name."""
        found = self.by_name.get(name)
        return found[-1].value if found else None

    def count(self, name: str) -> int | None:
        """`value` if it is a whole number from 0 on."""
        value = self.value(name)
        return int(value) if value is not None and 0 <= value <= 2**53 and value == int(value) else None

    def total(self, name: str) -> float | None:
        """`value` if it is finite and not negative."""
        value = self.value(name)
        return value if value is not None and math.isfinite(value) and value >= 0 else None

    def finite(self, name: str) -> float | None:
        """`value` if it is finite."""
        value = self.value(name)
        return value if value is not None and math.isfinite(value) else None

    def chosen(self, name: str, label: str) -> str | None:
        """The label's value in the only sample of that name that is 1; None for none or several."""
        found = [s.labels.get(label) for s in self.by_name.get(name, ()) if s.value == 1]
        return found[0] if len(found) == 1 else None

    def label(self, name: str, label: str) -> str | None:
        """The label's value in the last sample of that name."""
        found = self.by_name.get(name)
        return found[-1].labels.get(label) if found else None


def parse_page(text: str) -> Page:
    """Keep what starts with `sternpost_`; a line that cannot be parsed costs only itself."""
    samples: list[PageSample] = []
    dropped = 0
    for line in lines_of(text, (PREFIX,)):
        sample = parse_line(line) if len(samples) < MAX_LINES else None
        if sample is None:
            dropped += 1
        else:
            samples.append(sample)
    return Page(tuple(samples), dropped)


def parse_names(text: str, prefixes: tuple[str, ...], names: Container[str]) -> Page:
    """Keep the metrics of `names`, all of which start with one of `prefixes`."""
    samples: list[PageSample] = []
    dropped = 0
    counts: defaultdict[str, int] = defaultdict(int)
    for line in lines_of(text, prefixes):
        cut = line.find("{")
        name = line[:cut] if cut >= 0 else line.partition(" ")[0]
        if name not in names:
            continue
        counts[name] += 1
        sample = parse_line(line) if counts[name] <= MAX_SERIES_OF_A_NAME else None
        if sample is None:
            dropped += 1
        else:
            samples.append(sample)
    return Page(tuple(samples), dropped)


def lines_of(text: str, prefixes: tuple[str, ...]) -> Iterator[str]:
    """Those that may be of interest."""
    return (line for line in text.split("\n") if line.startswith(prefixes))


def parse_line(line: str) -> PageSample | None:
    """None for what is no sample."""
    cut = line.rfind("}")  # labels may hold anything, value and time no brace
    series, _, rest = (line[: cut + 1], "", line[cut + 1 :]) if cut >= 0 else line.partition(" ")
    parts = rest.split()
    if not 1 <= len(parts) <= 2 or "_" in parts[0]:
        return None
    try:
        value = float(parts[0])
        name, labels = _known.get(series) or _parse_series(series)
    except (ValueError, IndexError, KeyError):
        return None
    return PageSample(name, labels, value)


def _parse_series(series: str) -> tuple[str, dict[str, str]]:
    """Raises ValueError, IndexError or KeyError."""
    samples = [s for family in text_string_to_metric_families(series + " 0\n") for s in family.samples]
    if len(samples) != 1:
        raise ValueError(f"{len(samples)} samples in one line")
    if len(_known) >= MAX_KNOWN_SERIES:
        _known.clear()
    found = samples[0].name, dict(samples[0].labels)
    _known[series] = found
    return found
