"""Doing what `injection.py` describes: finding the processes that are meant, and signalling exactly those."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from sternpost_operator.cluster.local.node_process import kill_node, node_processes
from sternpost_operator.cluster.local.paths import LocalPaths
from sternpost_operator.cluster.local.processes import (
    ProcessIdentity,
    container_processes,
    environment_of,
    identify,
    read_process,
    send_signal,
)
from sternpost_operator.local_run.injection import FaultKind, Injection, Part
from sternpost_operator.local_run.snapshot import Injected, Snapshot
from sternpost_operator.resources.attempt import AttemptAction, AttemptSpec, AttemptWorker
from sternpost_operator.resources.training_job import TRAINER_CONTAINER

_log = structlog.get_logger("sternpost.faults")

_CONTAINERS = {
    Part.LAUNCHER: TRAINER_CONTAINER,
    Part.EAGLE_EYE: "sternpost-eagle-eye",
    Part.CHECKPOINT: "sternpost-checkpoint",
}
_RANK_VARIABLE = b"RANK="
_ATTEMPT_VARIABLE = b"STERNPOST_ATTEMPT="


@dataclass(frozen=True)
class Target:
    """Who gets it."""

    injection: Injection
    node: str | None = None
    worker: int | None = None
    processes: tuple[ProcessIdentity, ...] = ()
    what: str = ""
    """In words."""

    def journal_entry(self, at: float) -> Injected:
        """The line for the journal; `at` in Unix seconds."""
        return Injected(
            id=self.injection.id,
            spec=self.injection.spec,
            kind=self.injection.kind.value,
            at=at,
            node=self.node,
            worker=self.worker,
            pids=[identity.pid for identity in self.processes],
            factor=self.injection.factor if self.injection.kind is FaultKind.SLOW else None,
            what=self.what,
        )


class Faults:
    """Finds targets on this machine and does to them what is asked for."""

    def __init__(self, paths: LocalPaths, services: Callable[[], Mapping[Part, int | None]]) -> None:
        """`services` gives the process ids of the operator loop and the memory service."""
        self._paths = paths
        self._services = services

    def find(self, injection: Injection, snapshot: Snapshot) -> Target | None:
        """The target as things stand; None if it is not there now, and may be later."""
        attempt = snapshot.loop.observed.attempt if snapshot.loop is not None else None
        match injection.kind:
            case FaultKind.KILL | FaultKind.SLOW:
                return self._find_node(injection, attempt, snapshot.dead_nodes)
            case FaultKind.HANG | FaultKind.EXIT:
                return self._find_rank(injection, attempt)
            case FaultKind.CRASH:
                return self._find_part(injection, attempt)

    def do(self, target: Target) -> None:
        """Do it. `slow` is done by a process of its own, for as long as the run lasts."""
        injection = target.injection
        _log.info("inject", spec=injection.spec, what=target.what, pids=[each.pid for each in target.processes])
        match injection.kind:
            case FaultKind.KILL:
                if target.node is not None:
                    kill_node(self._paths, target.node)
            case FaultKind.HANG:
                self._signal(target, signal.SIGSTOP)
            case FaultKind.EXIT:
                self._signal(target, signal.Signals(injection.signal))
            case FaultKind.CRASH:
                self._signal(target, signal.SIGKILL)
            case FaultKind.SLOW:
                pass

    def _signal(self, target: Target, number: signal.Signals) -> None:
        for process in target.processes:
            send_signal(process, number)

    def _find_node(self, injection: Injection, attempt: AttemptSpec | None, dead: tuple[str, ...]) -> Target | None:
        worker: int | None = injection.worker
        node = injection.node
        if node is None:
            member = _member(attempt, worker)
            if member is None:
                return None
            node = member.node
        elif attempt is not None:
            worker = next((each.index for each in attempt.workers if each.node == node), None)
        if node in dead or not node_processes(self._paths, node):
            return None
        who = f" (worker {worker})" if worker is not None else ""
        if injection.kind is FaultKind.KILL:
            return Target(injection, node, worker, what=f"node {node}{who} is killed")
        return Target(injection, node, worker, what=f"node {node}{who} runs {injection.factor:g} times slower")

    def _find_rank(self, injection: Injection, attempt: AttemptSpec | None) -> Target | None:
        if attempt is None:
            return None
        rank = injection.rank if injection.rank is not None else (injection.worker or 0) * attempt.ranks_per_worker
        worker = rank // attempt.ranks_per_worker
        member = _member(attempt, worker)
        if member is None:
            return None
        processes = self._rank_processes(member, rank)
        if not processes:
            return None
        if injection.kind is FaultKind.HANG:
            what = f"rank {rank} on {member.node} hangs"
        else:
            processes = processes[:1]
            what = f"rank {rank} on {member.node} gets signal {injection.signal}"
        return Target(injection, member.node, worker, tuple(processes), what)

    def _find_part(self, injection: Injection, attempt: AttemptSpec | None) -> Target | None:
        part = injection.part
        if part is None or not part.in_pod:
            pid = self._services().get(part) if part is not None else None
            identity = identify(pid) if pid is not None else None
            return Target(injection, processes=(identity,), what=f"{part} is killed") if identity else None
        member = _member(attempt, injection.worker)
        if member is None:
            return None
        processes = container_processes(self._paths.state_id, member.uid, _CONTAINERS[part])
        first = tuple(each for each in _topmost(processes) if rank_of(each) is None)[:1]
        if not first:
            return None
        what = f"{part} of worker {injection.worker} on {member.node} is killed"
        return Target(injection, member.node, injection.worker, first, what)

    def _rank_processes(self, member: AttemptWorker, rank: int) -> list[ProcessIdentity]:
        """All processes of a rank, its first one first."""
        found = container_processes(self._paths.state_id, member.uid, TRAINER_CONTAINER)
        mine = [each for each in found if rank_of(each) == rank]
        top = _topmost(mine)
        return [*top, *(each for each in mine if each not in top)]


def rank_processes(paths: LocalPaths, node: str) -> list[ProcessIdentity]:
    """Every process of every rank on a node."""
    return [each for each in node_processes(paths, node) if rank_of(each) is not None]


def rank_of(process: ProcessIdentity) -> int | None:
    """The rank that a process belongs to, by the environment that it was started with."""
    environment = environment_of(process.pid)
    # A RANK alone may be the person's own; only the launcher gives its ranks an attempt.
    if not any(entry.startswith(_ATTEMPT_VARIABLE) for entry in environment):
        return None
    values = [entry[len(_RANK_VARIABLE) :] for entry in environment if entry.startswith(_RANK_VARIABLE)]
    return int(values[0]) if values and values[0].isdigit() else None


def _member(attempt: AttemptSpec | None, worker: int | None) -> AttemptWorker | None:
    if attempt is None or attempt.action is not AttemptAction.RUN:
        return None
    return next((each for each in attempt.workers if each.index == worker), None)


def _topmost(processes: list[ProcessIdentity]) -> list[ProcessIdentity]:
    """Those whose parent is not among them."""
    pids = {each.pid for each in processes}
    records = {each: read_process(each.pid) for each in processes}
    return [each for each, record in records.items() if record is not None and record.parent not in pids]
