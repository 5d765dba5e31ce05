"""Prometheus text, from somebody who may be confused: bounded, filtered before it is parsed, garbage counted line by line."""

from __future__ import annotations

import math
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

MAX_LINES = 2000
PREFIX = "sternpost_"


@dataclass(frozen=True)
class PageSample:
    """One line of a page."""

    name: str
    labels: dict[str, str]
    value: float


@dataclass(frozen=True)
class Page:
    """The samples of interest, and how many lines made no sense."""

    samples: tuple[PageSample, ...]
    dropped: int

    def value(self, name: str) -> float | None:
        """The last sample of that name."""
        return next((sample.value for sample in reversed(self.samples) if sample.name == name), None)

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
        found = [s.labels.get(label) for s in self.samples if s.name == name and s.value == 1]
        return found[0] if len(found) == 1 else None


def parse_page(text: str) -> Page:
    """Keep what starts with `sternpost_`; a line that cannot be parsed costs only itself."""
    lines = [line for line in text.split("\n") if line.startswith(PREFIX)]
    dropped = max(0, len(lines) - MAX_LINES)
    lines = lines[:MAX_LINES]
    try:
        return Page(tuple(_parse("\n".join(lines))), dropped)
    except (ValueError, IndexError, KeyError):
        pass  # some line is bad: find out which below
    samples: list[PageSample] = []
    for line in lines:
        try:
            samples += _parse(line)
        except (ValueError, IndexError, KeyError):
            dropped += 1
    return Page(tuple(samples), dropped)


def _parse(text: str) -> list[PageSample]:
    return [
        PageSample(sample.name, dict(sample.labels), float(sample.value))
        for family in text_string_to_metric_families(text + "\n")
        for sample in family.samples
    ]
