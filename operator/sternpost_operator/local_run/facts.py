"""Figures of a snapshot as both views show them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from sternpost_operator.local_run.snapshot import Snapshot
from sternpost_operator.recovery.observed import PodPhase, PodView
from sternpost_operator.resources.progress import WorkerReport

_T = TypeVar("_T")


@dataclass(frozen=True)
class Header:
    """The job in a line."""

    job: str
    phase: str
    attempt: int
    seconds: float
    step: int | None = None
    steps_per_second: float | None = None
    loss: float | None = None
    checkpoint_step: int | None = None
    checkpoint_age: float | None = None
    """Seconds since it was committed."""
    goodput: float | None = None
    restarts: int = 0


@dataclass(frozen=True)
class NodeRow:
    """A node, and what runs on it."""

    node: str
    state: str
    """`ready`, `not ready` or `dead`."""
    marks: tuple[str, ...] = ()
    """What else is to be known of it: `excluded`, `suspected`, `slowed x3`."""
    pod: str = ""
    role: str = ""
    """`worker 2` or `spare`."""
    launcher: str = ""
    step: int | None = None


def header(snapshot: Snapshot, job: str) -> Header:
    """The figures of the first lines."""
    if snapshot.loop is None:
        return Header(job, "Starting up", 0, snapshot.seconds)
    status = snapshot.loop.job.status
    progress = snapshot.loop.observed.progress
    last = snapshot.loop.observed.last_progress
    committed_step = status.checkpoint.last_step if status.checkpoint else None
    committed_at = status.checkpoint.committed_at if status.checkpoint else None
    if progress is not None and progress.checkpoint.committed_step is not None:
        committed_step = progress.checkpoint.committed_step
        committed_at = progress.checkpoint.committed_at or committed_at
    return Header(
        job=job,
        phase=status.phase.value,
        attempt=status.attempt.number,
        seconds=snapshot.seconds,
        step=_first(progress.step if progress else None, last.step if last else None),
        steps_per_second=progress.steps_per_second if progress else None,
        loss=_first(progress.loss if progress else None, last.loss if last else None),
        checkpoint_step=committed_step,
        checkpoint_age=max(0.0, snapshot.at - committed_at.timestamp()) if committed_at else None,
        goodput=status.goodput.ratio if status.goodput.total_seconds > 0 else None,
        restarts=status.restarts,
    )


def node_rows(snapshot: Snapshot) -> list[NodeRow]:
    """All nodes by name, the dead ones too; one row for each Pod where a node has several."""
    if snapshot.loop is None:
        return []
    observed = snapshot.loop.observed
    ready = {node.name: node.ready for node in observed.nodes}
    names = sorted(ready.keys() | set(snapshot.dead_nodes), key=_natural)
    rows: list[NodeRow] = []
    for name in names:
        state = "dead" if name in snapshot.dead_nodes else ("ready" if ready.get(name) else "not ready")
        marks = _marks(snapshot, name)
        pods = [pod for pod in observed.pods if pod.node == name]
        if pods and state != "dead":
            rows.extend(_pod_row(snapshot, pod, state, marks) for pod in pods)
        else:
            rows.append(NodeRow(name, state, marks))
    waiting = [pod for pod in observed.pods if pod.node is None]
    rows.extend(NodeRow("-", "", (pod.reason,) if pod.reason else (), pod.name, "no node yet") for pod in waiting)
    return rows


def _marks(snapshot: Snapshot, node: str) -> tuple[str, ...]:
    marks: list[str] = []
    if node in snapshot.slowed and node not in snapshot.dead_nodes:
        marks.append(f"slowed x{snapshot.slowed[node]:g}")
    if snapshot.loop is not None:
        status = snapshot.loop.job.status
        if any(each.node == node for each in status.excluded_nodes):
            marks.append("excluded")
        elif any(each.node == node for each in status.suspected_nodes):
            marks.append("suspected")
    return tuple(marks)


def _pod_row(snapshot: Snapshot, pod: PodView, state: str, marks: tuple[str, ...]) -> NodeRow:
    report = _report_of(snapshot, pod)
    role = ""
    attempt = snapshot.loop.observed.attempt if snapshot.loop else None
    if attempt is not None:
        index = next((worker.index for worker in attempt.workers if worker.uid == pod.uid), None)
        if index is not None:
            role = f"worker {index}"
        elif any(spare.uid == pod.uid for spare in attempt.spares):
            role = "spare"
    if pod.deleting_since is not None:
        launcher = "ending"
    elif pod.phase is not PodPhase.RUNNING or report is None:
        launcher = pod.phase.value.lower()
    else:
        launcher = report.launcher.value
    return NodeRow(pod.node or "-", state, marks, pod.name, role, launcher, report.step if report else None)


def _report_of(snapshot: Snapshot, pod: PodView) -> WorkerReport | None:
    progress = snapshot.loop.observed.progress if snapshot.loop else None
    return next((each for each in progress.workers if each.pod == pod.name), None) if progress else None


def _natural(name: str) -> tuple[str, int]:
    stem = name.rstrip("0123456789")
    return (stem, int(name[len(stem) :][:18] or -1))


def _first(*values: _T | None) -> _T | None:
    return next((value for value in values if value is not None), None)
