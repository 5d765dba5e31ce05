"""Which nodes to cordon and which to give back: `decide(nodes, held, settings, now)`. Pure.

Evidence is what a node's own conditions say. What a job's trainer or its sidecars say never gets here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from sternpost_operator.node_keeper.marks import TAINT, Marks
from sternpost_operator.node_keeper.settings import KeeperSettings
from sternpost_operator.recovery.hardware import describe
from sternpost_operator.recovery.observed import NodeView

MAX_REASON = 512
_LONG_AGO = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True)
class KeptNode:
    """A node, and what Sternpost wrote on it."""

    view: NodeView
    marks: Marks = field(default_factory=Marks)
    uid: str = ""

    @property
    def name(self) -> str:
        """The node's."""
        return self.view.name

    @property
    def evidence(self) -> frozenset[str]:
        """The conditions against it, as `TYPE=STATUS`."""
        return frozenset(f"{each.type}={each.status}" for each in self.view.conditions)

    @property
    def is_tainted(self) -> bool:
        """Whether it has Sternpost's taint."""
        return any(taint.key == TAINT for taint in self.view.taints)


@dataclass(frozen=True)
class Change:
    """What is to become of a node's marks."""

    node: str
    before: Marks
    after: Marks

    @property
    def cordons(self) -> bool:
        """Whether the node is cordoned by this."""
        return self.after.ours and not self.before.ours

    @property
    def uncordons(self) -> bool:
        """Whether the node is given back by this."""
        return self.before.ours and not self.after.ours and not self.after.overruled


@dataclass(frozen=True)
class Decision:
    """What to change, and which nodes would be cordoned if not so many were already."""

    changes: tuple[Change, ...] = ()
    withheld: tuple[str, ...] = ()


def decide(nodes: Sequence[KeptNode], held: Collection[str], settings: KeeperSettings, now: datetime) -> Decision:
    """Decide about all nodes. `held` are those that a job excludes on the node's own evidence.

    Deciding again on the outcome changes nothing until time passes or a node changes.
    """
    room = max(1, int(settings.max_share * len(nodes))) - sum(node.view.unschedulable for node in nodes)
    changes: list[Change] = []
    withheld: list[str] = []
    for node in sorted(nodes, key=lambda each: (_since(each), each.name)):
        after = wanted(
            node, may_cordon=settings.cordon and room > 0, held=node.name in held, settings=settings, now=now
        )
        if after != node.marks:
            changes.append(Change(node.name, node.marks, after))
        elif settings.cordon and _is_open(node):
            withheld.append(node.name)
        if after.ours and not node.marks.ours:
            room -= 1
    return Decision(tuple(changes), tuple(sorted(withheld)))


def wanted(node: KeptNode, *, may_cordon: bool, held: bool, settings: KeeperSettings, now: datetime) -> Marks:
    """What the node's marks should be."""
    marks, evidence = node.marks, node.evidence
    if marks.ours and not (node.view.unschedulable and node.is_tainted):
        # Somebody undid a part of it: from here on it is theirs.
        return Marks(overruled=marks.evidence | marks.overruled)
    if not evidence:
        return _without_evidence(marks, held=held, settings=settings, now=now)
    if marks.ours:
        return replace(marks, gone_since=None, evidence=marks.evidence | evidence)
    if _is_open(node) and node.view.unschedulable:
        return Marks(overruled=marks.overruled | evidence)
    if _is_open(node) and may_cordon:
        return Marks(cordoned_at=now, reason=describe(node.view.conditions[0])[:MAX_REASON], evidence=evidence)
    return replace(marks, gone_since=None)


def _without_evidence(marks: Marks, *, held: bool, settings: KeeperSettings, now: datetime) -> Marks:
    if not marks.ours and not marks.overruled:
        return Marks()
    since = marks.gone_since or now
    if held or now - since < timedelta(seconds=settings.uncordon_seconds):
        return replace(marks, gone_since=since)
    return Marks()


def _is_open(node: KeptNode) -> bool:
    """Whether there is evidence that nobody has dealt with."""
    return not node.marks.ours and not node.evidence <= node.marks.overruled


def _since(node: KeptNode) -> datetime:
    """Who has been ill for longest comes first when there is not room for all."""
    return min((each.since or _LONG_AGO for each in node.view.conditions), default=_LONG_AGO)
