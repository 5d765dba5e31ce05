"""What is kept of the objects that are watched: small, and nothing that no decision looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sternpost_operator.node_keeper.marks import Marks
from sternpost_operator.recovery.observed import AnomalyView, NodeView, PodView
from sternpost_operator.resources.attempt import AttemptSpec


@dataclass(frozen=True, slots=True)
class Entry:
    """An object's identity, and the version that it was seen at."""

    namespace: str
    """Empty for objects of the cluster."""
    name: str
    uid: str
    version: int
    """`metadata.resourceVersion`; a later version of an object has a higher one."""

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.namespace, self.name


@dataclass(frozen=True, slots=True)
class JobEntry(Entry):
    """A TrainingJob."""

    manifest: dict[str, Any]
    """As it is stored, without what only others need. Not to be changed."""

    @property
    def generation(self) -> int:
        """Changes with the spec."""
        generation = self.manifest["metadata"].get("generation")
        return generation if isinstance(generation, int) else 0


@dataclass(frozen=True, slots=True)
class PodEntry(Entry):
    """A Pod with a job's label."""

    job: str
    """Name of the job in the label."""
    owner: str
    """Uid of the TrainingJob that it belongs to; empty if it belongs to none."""
    view: PodView


@dataclass(frozen=True, slots=True)
class AttemptEntry(Entry):
    """An Attempt."""

    owner: str
    spec: AttemptSpec | None
    """None where it cannot be understood."""


@dataclass(frozen=True, slots=True)
class AnomalyEntry(Entry):
    """An Anomaly that can be understood."""

    view: AnomalyView

    @property
    def job(self) -> str:
        """Name of the job that it is about."""
        return self.view.spec.job


@dataclass(frozen=True, slots=True)
class NodeEntry(Entry):
    """A node."""

    view: NodeView
    marks: Marks
    """What the operator itself wrote on it."""
