"""Reads a recording: one JSON object a line, from whoever wrote it. Bounded; what makes no sense is counted by reason."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, Protocol

from sternpost_eagle_eye.collect.exporters import exporter_vector
from sternpost_eagle_eye.collect.log_signatures import signs_of
from sternpost_eagle_eye.collect.page import Page, PageSample, parse_page
from sternpost_eagle_eye.collect.trainer import rank_fields
from sternpost_eagle_eye.replay.player import ATTEMPT
from sternpost_eagle_eye.vector import MAX_RANKS, PageState, RankVector, Vector

MAX_LINE_BYTES = 64 * 1024 * 1024
MAX_NODE = 256
MAX_WORKER = 10_000_000
MAX_TIME = 1e12

Item = tuple[float, Vector | None]


class Readable(Protocol):
    """A file of bytes."""

    def readline(self, size: int, /) -> bytes:
        """At most `size` bytes of a line; empty at the end."""
        ...


class Recording:
    """Iterate once; `dropped` tells afterwards what was left out."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self.dropped: Counter[str] = Counter()
        """Lines and samples that did not count, by reason."""
        self.lines = 0

    def __iter__(self) -> Iterator[Item]:
        """The items in the order of the file: time in seconds, and a vector, or None for a restart."""
        while line := self._file.readline(MAX_LINE_BYTES + 1):
            self.lines += 1
            if len(line) > MAX_LINE_BYTES:
                self._skip_rest(line)
                continue
            if line.isspace():
                continue
            item = self._item(line)
            if item is not None:
                yield item

    def _skip_rest(self, line: bytes) -> None:
        self.dropped["line too long"] += 1
        while line and not line.endswith(b"\n"):
            line = self._file.readline(MAX_LINE_BYTES)

    def _item(self, line: bytes) -> Item | None:
        try:
            value = json.loads(line.decode("utf-8", errors="replace"))
        except (ValueError, RecursionError):
            self.dropped["not JSON (a torn line?)"] += 1
            return None
        if not isinstance(value, dict):
            self.dropped["not an object"] += 1
            return None
        t = _number(value.get("t"))
        if t is None:
            self.dropped["no finite time t"] += 1
            return None
        if "event" in value:
            if value["event"] == "restart":
                return t, None
            self.dropped["unknown event"] += 1
            return None
        return self._of_worker(t, value)

    def _of_worker(self, t: float, value: dict[str, Any]) -> Item | None:
        worker, node = value.get("worker"), value.get("node")
        if isinstance(worker, bool) or not isinstance(worker, int) or not 0 <= worker <= MAX_WORKER:
            self.dropped["no worker number"] += 1
            return None
        if node is not None and (not isinstance(node, str) or len(node) > MAX_NODE):
            self.dropped["node is no name"] += 1
            return None
        metrics, log = value.get("metrics"), value.get("log")
        if isinstance(metrics, str):
            vector, dropped = vector_of(t, worker, node, metrics)
            if dropped:
                self.dropped["samples that make no sense or are too many"] += dropped
            return t, vector
        if isinstance(log, str):
            signs = signs_of(log)
            return (t, _vector(worker, node, logs=signs)) if signs else None
        self.dropped["neither metrics nor log"] += 1
        return None


def vector_of(t: float, worker: int, node: str | None, text: str) -> tuple[Vector, int]:
    """The vector that a sidecar would have made of these pages, and how many samples did not count."""
    page = parse_page(text)
    exporters, unread = exporter_vector(text, t)
    by_rank: defaultdict[int, list[PageSample]] = defaultdict(list)
    dropped = page.dropped + unread
    for sample in page.samples:
        rank = sample.labels.get("rank", "")
        if not rank:
            by_rank[-1].append(sample)
        elif (
            rank.isascii() and rank.isdigit() and len(rank) <= 7 and (int(rank) in by_rank or len(by_rank) < MAX_RANKS)
        ):
            by_rank[int(rank)].append(sample)
        else:
            dropped += 1
    common = by_rank.pop(-1, [])
    if common and not by_rank and any(sample.name == "sternpost_step" for sample in common):
        by_rank[worker], common = common, []  # one rank that does not say its number
    if not by_rank:
        return _vector(
            worker, node, ranks=(RankVector(rank=worker, page=PageState.NONE),), exporters=exporters
        ), dropped
    ranks = tuple(
        RankVector(rank=rank, page=PageState.OK, **rank_fields(Page(tuple(samples), 0)))
        for rank, samples in sorted(by_rank.items())
    )
    attempt = page.label("sternpost_attempt_info", "attempt") or ATTEMPT
    return _vector(worker, node, attempt=attempt[:128], ranks=ranks, exporters=exporters), dropped


def _vector(worker: int, node: str | None, attempt: str = ATTEMPT, **fields: Any) -> Vector:
    return Vector(attempt=attempt, pod_uid="", boot="", sequence=0, worker=worker, node=node, **fields)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and abs(number) <= MAX_TIME else None
