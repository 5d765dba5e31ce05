"""A recording as text: one JSON object a line, pages in the Prometheus format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from benchmarks.eagle_eye.recording import LogLine, Recording, Restart, Sample, Scrape

_GAUGES = {
    "step": "sternpost_step",
    "loss": "sternpost_loss",
    "grad_norm": "sternpost_grad_norm",
    "in_collective": "sternpost_in_collective",
    "last_step_at": "sternpost_last_step_timestamp_seconds",
    "first_step": "sternpost_first_step",
    "first_step_at": "sternpost_first_step_timestamp_seconds",
}
_SUMMARIES = {
    "step": "sternpost_step_seconds",
    "compute": "sternpost_compute_seconds",
    "blocked": "sternpost_checkpoint_blocked_seconds",
}
_PHASES = ("init", "train", "eval", "checkpoint")


def lines(recording: Recording) -> Iterator[str]:
    """Without line ends."""
    for event in recording.events():
        if isinstance(event, Restart):
            yield json.dumps({"t": event.t, "event": "restart"})
        elif isinstance(event, LogLine):
            yield json.dumps({"t": event.t, "worker": event.worker, "log": event.text})
        else:
            node = recording.job.nodes[event.worker]
            yield json.dumps({"t": event.t, "worker": event.worker, "node": node, "metrics": page(event)})


def page(scrape: Scrape) -> str:
    """All pages that one sidecar read, one after the other."""
    parts = [_trainer(rank, fields) for rank, fields in scrape.ranks if fields is not None]
    if scrape.exporters:
        parts.append(_exporters(scrape.exporters))
    return "".join(parts)


def _trainer(rank: int, fields: dict[str, Any]) -> str:
    text: list[str] = []
    label = f'{{rank="{rank}"}}'
    for field, name in _GAUGES.items():
        if field in fields:
            text.append(f"# TYPE {name} gauge\n{name}{label} {_number(fields[field])}\n")
    text.append("# TYPE sternpost_phase gauge\n")
    text += [f'sternpost_phase{{phase="{p}",rank="{rank}"}} {float(p == fields["phase"])}\n' for p in _PHASES]
    for field, name in _SUMMARIES.items():
        count, total = fields[f"{field}_count"], fields[f"{field}_sum"]
        text.append(
            f"# TYPE {name} summary\n{name}_count{label} {_number(count)}\n{name}_sum{label} {_number(total)}\n"
        )
    samples = _number(fields["samples"])
    text.append(f"# TYPE sternpost_samples_total counter\nsternpost_samples_total{label} {samples}\n")
    return "".join(text)


def _exporters(samples: tuple[Sample, ...]) -> str:
    text: list[str] = []
    # A page names each metric once, whatever order its series were found in.
    for name, group in groupby(sorted(samples, key=lambda sample: sample[0]), key=lambda sample: sample[0]):
        found = list(group)
        text.append(f"# HELP {name} {name}\n# TYPE {name} {found[0][1]}\n")
        text += [f"{series(name, labels)} {_number(value)}\n" for _, _, labels, value in found]
    return "".join(text)


def series(name: str, labels: tuple[tuple[str, str], ...]) -> str:
    """A metric's name with its labels."""
    inside = ",".join(f'{key}="{value}"' for key, value in labels)
    return f"{name}{{{inside}}}" if inside else name


def _number(value: Any) -> str:
    number = float(value)
    if number != number:  # noqa: PLR0124 -- NaN
        return "NaN"
    if number in (float("inf"), float("-inf")):
        return "+Inf" if number > 0 else "-Inf"
    return repr(number)
