"""One run: keeps nodes and services going, injects what is due, notices the end, and takes everything down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import structlog

from sternpost_operator.cluster.local.node_process import cleanup, end_orphans, kill_node, start_node, stop_node
from sternpost_operator.cluster.local.paths import LocalPaths
from sternpost_operator.cluster.local.ports import PortPool
from sternpost_operator.local_run import snapshot
from sternpost_operator.local_run.faults import Faults
from sternpost_operator.local_run.injection import FaultKind, Injection, Part, due
from sternpost_operator.local_run.services import Service
from sternpost_operator.local_run.snapshot import LoopState, Snapshot, write_atomically
from sternpost_operator.local_run.state import StateDirectory, dead_nodes
from sternpost_operator.recovery.observed import PodPhase

_log = structlog.get_logger("sternpost.supervisor")

SETTLE_SECONDS = 10.0
"""After a terminal phase: at most so long, and the job's grace, for Pods to end and incidents to be acknowledged."""
POLL_SECONDS = 0.02
_ENDED = (PodPhase.SUCCEEDED, PodPhase.FAILED)


class Supervisor:
    """Runs one job on this machine. Everything it decides on comes from files, so that another run can go on with it."""

    def __init__(
        self,
        paths: LocalPaths,
        state: StateDirectory,
        *,
        job: str,
        nodes: Sequence[str],
        injections: Sequence[Injection],
        started_at: float,
        grace_seconds: float,
        environment: Mapping[str, str] | None = None,
        operator_command: Callable[[], Sequence[str]] | None = None,
        memory_command: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        """`started_at` is that of the first run of the job, in Unix seconds; the commands are for tests."""
        self._paths = paths
        self._state = state
        self._job = job
        self._nodes = tuple(nodes)
        self._injections = tuple(injections)
        self._started_at = started_at
        self._grace = grace_seconds
        self._environment = dict(os.environ if environment is None else environment)
        self._agents: dict[str, subprocess.Popen[bytes]] = {}
        self._lost: set[str] = set()
        self._journal = state.read_journal()
        self._terminal_since: float | None = None
        self._loop: LoopState | None = None
        self._loop_stamp: tuple[int, int] | None = None
        self._placed: dict[int, tuple[str, str]] = {}
        service_environment = self._environment | paths.markers()
        self._operator = Service(
            "operator loop",
            operator_command or self._operator_command,
            service_environment,
            state.operator_log,
        )
        self._memory = Service(
            "memory service",
            memory_command or self._memory_command,
            service_environment,
            state.logs / "memory.log",
        )
        self._slow: dict[str, Service] = {}
        self._faults = Faults(paths, lambda: {Part.OPERATOR: self._operator.pid, Part.MEMORY: self._memory.pid})

    @property
    def services(self) -> list[Service]:
        """All that is started again when it dies."""
        return [self._memory, self._operator, *self._slow.values()]

    def start(self) -> None:
        """Start the nodes and the services."""
        dead = dead_nodes(self._journal)
        for node in self._nodes:
            if node not in dead:
                self._agents[node] = start_node(self._paths, node, environment=self._environment)
        for entry in self._journal:
            if entry.kind == FaultKind.SLOW.value and entry.node and entry.node not in dead:
                self._slow_node(entry.node, entry.factor or 1)
        self._tick_services(time.monotonic())

    def tick(self, now: float) -> Snapshot:
        """Look at everything once, do what is due, and tell what is known. `now` in Unix seconds.

        Raises `ServiceError` when a service does not stay up.
        """
        self._reap_nodes()
        self._tick_services(time.monotonic())
        self._read_loop()
        known = self.snapshot(now)
        done = {entry.id for entry in self._journal}
        for injection in due(self._injections, done, step=known.step, seconds=known.seconds):
            self._inject(injection, known)
        return self.snapshot(now)

    def last(self, now: float) -> Snapshot:
        """What is known after the end; `now` in Unix seconds."""
        self._read_loop()
        return self.snapshot(now)

    def snapshot(self, now: float) -> Snapshot:
        """What is known; `now` in Unix seconds."""
        return Snapshot(
            at=now,
            started_at=self._started_at,
            loop=self._loop,
            injected=tuple(self._journal),
            dead_nodes=tuple(sorted(self._lost | set(dead_nodes(self._journal)))),
            placed=dict(self._placed),
            restarted=tuple((service.name, service.restarts) for service in self.services),
        )

    def settled(self, known: Snapshot) -> bool:
        """Whether the job has ended, its Pods too, and everything worth knowing of it is written down."""
        if known.loop is None or not known.loop.job.status.phase.terminal:
            return False
        if self._terminal_since is None:
            self._terminal_since = known.at
        if known.at - self._terminal_since > SETTLE_SECONDS + self._grace:
            return True
        pods_ended = all(pod.phase in _ENDED for pod in known.loop.observed.pods)
        return pods_ended and not known.loop.job.status.unsent_incidents

    def stop(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """End everything in order; as soon as `hurry` is true, at once. Nothing is left as a process or in memory."""
        try:
            # The operator first: it must not take the end of the Pods for a failure.
            self._operator.end(2)
            for service in self._slow.values():
                service.end(1)
            for node, agent in self._agents.items():
                if agent.poll() is None and not stop_node(self._paths, node):
                    agent.terminate()
            deadline = time.monotonic() + self._grace + 5
            while any(agent.poll() is None for agent in self._agents.values()):
                if time.monotonic() > deadline or hurry():
                    break
                time.sleep(POLL_SECONDS)
            self._memory.end(0 if hurry() else 5)
        finally:
            self._end_all()

    def memory_url(self) -> str | None:
        """Where the memory service listens; None while it does not run."""
        if self._memory.pid is None:
            return None
        try:
            url = json.loads(self._state.memory_address.read_bytes()).get("url")
        except (OSError, ValueError, AttributeError):
            return None
        return url if isinstance(url, str) else None

    def _end_all(self) -> None:
        for node, agent in self._agents.items():
            if agent.poll() is None:
                self._kill_node(node)
        for service in self.services:
            service.end(0)
        end_orphans(self._paths, grace_seconds=0)
        for agent in self._agents.values():
            agent.wait()
        cleanup(self._paths)

    def _tick_services(self, now: float) -> None:
        for service in self.services:
            service.tick(now)

    def _reap_nodes(self) -> None:
        for node, agent in self._agents.items():
            # An agent is its node: what it leaves behind would run on with nobody to end it.
            if node not in self._lost and agent.poll() is not None and self._kill_node(node):
                self._lost.add(node)
                _log.warning("node lost", node=node, code=agent.returncode)

    def _kill_node(self, node: str) -> bool:
        try:
            kill_node(self._paths, node)
        except TimeoutError as error:
            _log.warning("node not killed yet", node=node, detail=str(error))
            return False
        return True

    def _read_loop(self) -> None:
        try:
            found = self._state.progress.stat()
        except FileNotFoundError:
            return
        stamp = (found.st_mtime_ns, found.st_ino)
        if stamp != self._loop_stamp:
            self._loop_stamp = stamp
            self._loop = snapshot.load(self._state.progress) or self._loop
            attempt = self._loop.observed.attempt if self._loop is not None else None
            if attempt is not None and attempt.workers:
                self._placed = {worker.index: (worker.pod, worker.node) for worker in attempt.workers}

    def _inject(self, injection: Injection, known: Snapshot) -> None:
        target = self._faults.find(injection, known)
        if target is None:
            return
        entry = target.journal_entry(time.time())
        # Written down first: a run that dies between the two must not do it to another node after it was resumed.
        self._state.append_journal(entry)
        self._journal.append(entry)
        self._faults.do(target)
        if injection.kind is FaultKind.SLOW and target.node is not None:
            self._slow_node(target.node, injection.factor)
        if injection.kind is FaultKind.KILL and target.node is not None and target.node in self._slow:
            self._slow.pop(target.node).end(0)

    def _slow_node(self, node: str, factor: float) -> None:
        previous = self._slow.pop(node, None)
        if previous is not None:
            previous.end(1)
        arguments = (*self._state_arguments(), "--node", node, "--factor", f"{factor:g}")
        self._slow[node] = Service(
            f"slowing of {node}",
            lambda: _python("sternpost_operator.local_run.slow", *arguments),
            self._environment | self._paths.markers(),
            self._state.logs / f"slow-{node}.log",
        )

    def _state_arguments(self) -> tuple[str, ...]:
        return ("--state-dir", str(self._state.root))

    def _operator_command(self) -> list[str]:
        return _python("sternpost_operator.local_run.operator_loop", *self._state_arguments(), "--job", self._job)

    def _memory_command(self) -> list[str]:
        pool = PortPool(self._paths.ports)
        pool.release("memory-service")
        port = pool.take("memory-service")
        # The operator loop reads it at each reconcile, so that a restart at another port is no loss.
        address = {"url": f"http://127.0.0.1:{port}"}
        write_atomically(self._state.memory_address, json.dumps(address).encode())
        return _python(
            "sternpost_memory",
            *("serve", "--host", "127.0.0.1", "--port", str(port)),
            *("--store", str(self._state.memory_database), "--no-auth", "--buffer-age", "0.5"),
        )


def _python(module: str, *arguments: str) -> list[str]:
    # -P: what lies in the current folder must not take the place of a module.
    python = (sys.executable, "-P", "-m")
    return [*python, "sternpost_operator.local_run.bound", str(os.getpid()), *python, module, *arguments]
