"""Compares what was said of a recording with what was done to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol

from benchmarks.eagle_eye.injected import Label

HANG_FACTOR = 5.0
"""The default `spec.eagleEye.hang`: no step for so many times the longest interval of the phase …"""
HANG_SECONDS = 60.0
"""… and at least so long."""

EVIDENCE_KEPT = 12
RESTARTS = ("worker-gone", "hang")
"""Kinds for which the job is restarted whether or not a node is left."""

Pair = tuple[str | None, str]
"""Node and kind."""


class Said(Protocol):
    """One line of the replay's output."""

    @property
    def t(self) -> float: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def node(self) -> str | None: ...  # noqa: D102
    @property
    def confidence(self) -> float: ...  # noqa: D102
    @property
    def evict(self) -> bool: ...  # noqa: D102
    @property
    def evidence(self) -> str: ...  # noqa: D102


@dataclass(frozen=True)
class Outcome:
    """One recording, judged."""

    name: str
    fault: str | None
    severity: str
    delay_class: str
    expected: Pair | None
    hours: float
    delay: float | None
    """Seconds from the onset to the first true finding, or None if there was none."""
    limit: float
    """What the delay is measured in: seconds between two scrapes for hard faults, the phase's limit for hangs, else 1."""
    false: tuple[Pair, ...]
    """Said, and not true."""
    early: bool
    """Something was said before anything had happened."""
    evictions: tuple[str, ...]
    """Nodes to be left."""
    first_node: str | None
    """The node named with the highest confidence after the onset."""
    identical: bool | None
    """Whether the text gave the same; None if that was not tried."""
    evidence: tuple[str, ...] = field(default=())
    """Of what was not true."""

    @property
    def found(self) -> bool:
        """Whether the truth was told."""
        return self.delay is not None


def judge_outcome(
    name: str,
    label: Label | None,
    said: Sequence[Said],
    *,
    hours: float,
    every: float,
    longest: float,
    identical: bool | None,
    earlier: tuple[Pair, float] | None = None,
) -> Outcome:
    """Strict: every distinct pair of node and kind counts once, and is true only from the onset on.

    The recording ends with a true finding after which the job is restarted: the rest would not have happened.
    `earlier`: what ended the attempt before, and when this one began; to say so is neither right nor wrong here.
    """
    expected: Pair | None = (label.node, label.kind) if label is not None else None
    onset = label.onset if label is not None else float("inf")
    delay: float | None = None
    false: dict[Pair, str] = {}
    evictions: list[str] = []
    named: list[tuple[float, float, str]] = []
    early = False
    for finding in sorted(said, key=lambda finding: finding.t):
        pair: Pair = (finding.node, finding.kind)
        if earlier is not None and pair == earlier[0] and finding.t < earlier[1]:
            continue
        before = finding.t < onset
        true = pair == expected and not before
        if true and delay is None:
            delay = finding.t - onset
        if not true:
            when = f"{finding.t - onset:+.0f} s: " if label is not None else ""
            false.setdefault(pair, when + finding.evidence)
            early = early or (before and label is not None)
        if finding.evict and finding.node is not None:
            evictions.append(finding.node)
        if finding.node is not None and not before:
            named.append((-finding.confidence, finding.t, finding.node))
        if true and (finding.evict or finding.kind in RESTARTS):
            break
    limit = (
        {"hard": every, "hang": max(HANG_SECONDS, HANG_FACTOR * longest)}.get(label.delay_class, 1.0) if label else 1.0
    )
    return Outcome(
        name=name,
        fault=label.fault if label else None,
        severity=label.severity if label else "",
        delay_class=label.delay_class if label else "",
        expected=expected,
        hours=hours,
        delay=delay,
        limit=limit,
        false=tuple(false),
        early=early,
        evictions=tuple(dict.fromkeys(evictions)),
        first_node=min(named)[2] if named else None,
        identical=identical,
        evidence=tuple(false.values()),
    )


@dataclass(frozen=True)
class Figures:
    """Over many recordings."""

    precision: float
    recall: float
    node_top1: float
    delays: dict[str, float]
    """Median by class, in the unit of its promise; missed ones count as never."""
    healthy_hours: float
    healthy_evictions: int
    wrong_evictions: int
    """Of nodes that had no fault, in recordings with one."""


def figures(outcomes: Iterable[Outcome]) -> Figures:
    """Findings in healthy recordings count against precision, too."""
    everything = list(outcomes)
    faulty = [outcome for outcome in everything if outcome.expected is not None]
    healthy = [outcome for outcome in everything if outcome.expected is None]
    found = sum(outcome.found for outcome in faulty)
    false = sum(len(outcome.false) for outcome in everything)
    with_node = [outcome for outcome in faulty if outcome.expected is not None and outcome.expected[0] is not None]
    right = sum(outcome.expected is not None and outcome.first_node == outcome.expected[0] for outcome in with_node)
    classes = sorted({outcome.delay_class for outcome in faulty})
    return Figures(
        precision=found / (found + false) if found + false else 0.0,
        recall=found / len(faulty) if faulty else 0.0,
        node_top1=right / len(with_node) if with_node else 0.0,
        delays={name: _median_delay([o for o in faulty if o.delay_class == name]) for name in classes},
        healthy_hours=sum(outcome.hours for outcome in healthy),
        healthy_evictions=sum(len(outcome.evictions) for outcome in healthy),
        wrong_evictions=sum(
            node != outcome.expected[0]
            for outcome in faulty
            if outcome.expected is not None
            for node in outcome.evictions
        ),
    )


def _median_delay(outcomes: list[Outcome]) -> float:
    return median(o.delay / o.limit if o.delay is not None else float("inf") for o in outcomes)


def by_fault(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """What was said for each fault, and of healthy jobs."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.fault or "healthy", []).append(outcome)
    table: dict[str, Any] = {}
    for name, group in groups.items():
        delays = [o.delay for o in group if o.delay is not None]
        false = Counter(_relation(o, pair) for o in group for pair in o.false)
        table[name] = {
            "recordings": len(group),
            "found": sum(o.found for o in group),
            "medianDelaySeconds": round(median(delays), 2) if delays else None,
            "false": dict(false.most_common()),
            "evictionsOfHealthyNodes": sum(
                node != (o.expected[0] if o.expected else None) for o in group for node in o.evictions
            ),
            "missed": [f"{o.name} ({o.severity})" for o in group if o.expected is not None and not o.found][:20],
            "evidence": [
                f"{o.name} ({o.severity}): {kind}@{node}: {text}"
                for o in group
                for (node, kind), text in zip(o.false, o.evidence, strict=True)
            ][:EVIDENCE_KEPT],
        }
    return table


def _relation(outcome: Outcome, pair: Pair) -> str:
    node, kind = pair
    if node is None:
        return f"{kind} of the job"
    right = outcome.expected is not None and node == outcome.expected[0]
    return f"{kind} on the {'right' if right else 'wrong'} node"
