"""Everything that is known of the cluster's objects, and whom a change concerns. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from sternpost_operator.cluster.kubernetes.entries import (
    AnomalyEntry,
    AttemptEntry,
    Entry,
    JobEntry,
    NodeEntry,
    PodEntry,
)
from sternpost_operator.cluster.kubernetes.paths import ANOMALIES, ATTEMPTS, NODES, PODS, TRAINING_JOBS, Kind
from sternpost_operator.cluster.kubernetes.shelf import Shelf
from sternpost_operator.cluster.kubernetes.views import (
    HardwareConditions,
    anomaly_entry,
    attempt_entry,
    job_entry,
    node_entry,
    pod_entry,
)
from sternpost_operator.recovery.observed import NodeView

JobKey = tuple[str, str]
"""Namespace and name of a job."""

WATCHED = (TRAINING_JOBS, ATTEMPTS, ANOMALIES, PODS, NODES)


class Inventory:
    """Objects by kind. Watches and the operator's own answers `see` and `lose` objects; reconciles read."""

    def __init__(self, hardware: HardwareConditions | None = None) -> None:
        self._hardware = dict(hardware or {})
        self.jobs: Shelf[JobEntry] = Shelf()
        self.attempts: Shelf[AttemptEntry] = Shelf()
        self.anomalies: Shelf[AnomalyEntry] = Shelf(lambda entry: (entry.namespace, entry.job))
        self.pods: Shelf[PodEntry] = Shelf(lambda entry: (entry.namespace, entry.job))
        self.nodes: Shelf[NodeEntry] = Shelf()
        self._node_views: tuple[int, tuple[NodeView, ...]] = (-1, ())
        self._node_jobs: tuple[int, dict[str, frozenset[JobKey]]] = (-1, {})

    def see(self, kind: Kind, manifest: Mapping[str, Any]) -> frozenset[JobKey]:
        """An object is as in `manifest`; the jobs that it makes a difference to."""
        match kind.plural:
            case "trainingjobs":
                return self._put(self.jobs, job_entry(manifest), lambda entry: entry.key)
            case "attempts":
                return self._put(self.attempts, attempt_entry(manifest), lambda entry: entry.key)
            case "anomalies":
                return self._put(self.anomalies, anomaly_entry(manifest), lambda entry: (entry.namespace, entry.job))
            case "pods":
                return self._see_pod(manifest)
            case "nodes":
                return self._see_node(manifest)
        raise ValueError(f"{kind.plural} are not watched")

    def lose(self, kind: Kind, namespace: str, name: str, uid: str) -> frozenset[JobKey]:
        """The object is gone; the jobs that it makes a difference to."""
        known = self._shelf(kind).drop(namespace, name, uid)
        return self._concerned(known) if known is not None else frozenset()

    def relist(self, kind: Kind, namespace: str | None, uids: Collection[str], version: int) -> frozenset[JobKey]:
        """A complete list as of `version` has only these objects; the jobs that what is gone makes a difference to."""
        gone = self._shelf(kind).keep_only(namespace, uids, version)
        return frozenset().union(*(self._concerned(entry) for entry in gone))

    def node_views(self) -> tuple[NodeView, ...]:
        """All nodes; the same tuple until one changes."""
        if self._node_views[0] != self.nodes.revision:
            self._node_views = (self.nodes.revision, tuple(entry.view for entry in self.nodes))
        return self._node_views[1]

    def jobs_on(self, node: str) -> frozenset[JobKey]:
        """Jobs that have Pods on the node."""
        if self._node_jobs[0] != self.pods.revision:
            found: dict[str, set[JobKey]] = {}
            for entry in self.pods:
                if entry.view.node:
                    found.setdefault(entry.view.node, set()).add((entry.namespace, entry.job))
            self._node_jobs = (self.pods.revision, {name: frozenset(jobs) for name, jobs in found.items()})
        return self._node_jobs[1].get(node, frozenset())

    def _see_pod(self, manifest: Mapping[str, Any]) -> frozenset[JobKey]:
        entry = pod_entry(manifest)
        if entry is None:
            return frozenset()
        known = self.pods.get(*entry.key)
        if not self.pods.put(entry) or (known is not None and known.view == entry.view):
            return frozenset()
        return frozenset({(entry.namespace, entry.job)})

    def _see_node(self, manifest: Mapping[str, Any]) -> frozenset[JobKey]:
        entry = node_entry(manifest, self._hardware)
        if entry is None:
            return frozenset()
        known = self.nodes.get(*entry.key)
        if not self.nodes.put(entry):
            return frozenset()
        if known is not None and _beside_heartbeat(known.view) == _beside_heartbeat(entry.view):
            return frozenset()
        return self._concerned(entry)

    def _put(self, shelf: Shelf[Any], entry: Entry | None, concerns: Callable[[Any], JobKey]) -> frozenset[JobKey]:
        return frozenset({concerns(entry)}) if entry is not None and shelf.put(entry) else frozenset()

    def _concerned(self, entry: Entry) -> frozenset[JobKey]:
        match entry:
            case PodEntry() | AnomalyEntry():
                return frozenset({(entry.namespace, entry.job)})
            case NodeEntry():
                # A node that is new, or back, may be what a waiting job waits for: the scheduler says so in its Pods.
                return self.jobs_on(entry.name)
            case _:
                return frozenset({entry.key})

    def _shelf(self, kind: Kind) -> Shelf[Any]:
        shelves: dict[str, Shelf[Any]] = {
            "trainingjobs": self.jobs,
            "attempts": self.attempts,
            "anomalies": self.anomalies,
            "pods": self.pods,
            "nodes": self.nodes,
        }
        return shelves[kind.plural]


def _beside_heartbeat(view: NodeView) -> NodeView:
    return replace(view, last_heartbeat=None)
