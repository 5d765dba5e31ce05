from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sternpost_operator.cluster.local.node_process import find_orphans, node_processes
from sternpost_operator.cluster.local.paths import LocalPaths
from sternpost_operator.local_run import snapshot as snapshots
from sternpost_operator.local_run.injection import parse_all
from sternpost_operator.local_run.snapshot import LoopState, Snapshot
from sternpost_operator.local_run.state import StateDirectory
from sternpost_operator.local_run.supervisor import SETTLE_SECONDS, Supervisor
from sternpost_operator.recovery.observed import Observed, PodPhase, PodView
from sternpost_operator.resources.progress import ProgressReport
from sternpost_operator.resources.training_job import TrainingJob
from sternpost_operator.resources.training_job_status import Incident, Phase, TrainingJobStatus

NODES = ("node-0", "node-1")
STARTED = 1000.0


def sleeper() -> list[str]:
    return [sys.executable, "-c", "import time; time.sleep(600)"]


def make(tmp_path: Path, *specs: str) -> tuple[Supervisor, LocalPaths, StateDirectory]:
    paths = LocalPaths(tmp_path / "state")
    paths.state_dir.mkdir(exist_ok=True)
    state = StateDirectory(paths.state_dir)
    supervisor = Supervisor(
        paths,
        state,
        job="gpt",
        nodes=NODES,
        injections=parse_all(specs, NODES),
        started_at=STARTED,
        grace_seconds=1,
        operator_command=sleeper,
        memory_command=sleeper,
    )
    return supervisor, paths, state


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path) -> Iterator[None]:
    """Nothing may be left, whatever the test did."""
    yield
    paths = LocalPaths(tmp_path / "state")
    assert find_orphans(paths) == []
    assert not paths.memory_dir.exists()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def tick_until(supervisor: Supervisor, condition: Callable[[Snapshot], object], now: float = STARTED) -> Snapshot:
    known: list[Snapshot] = []

    def look() -> bool:
        known.append(supervisor.tick(now))
        return bool(condition(known[-1]))

    wait_for(look)
    return known[-1]


def test_services_are_started_again_and_a_dead_agent_is_a_dead_node(tmp_path: Path) -> None:
    supervisor, paths, _ = make(tmp_path)
    supervisor.start()
    try:
        wait_for(lambda: all((paths.objects / "nodes" / f"{node}.json").exists() for node in NODES))
        first = {service.name: service.pid for service in supervisor.services}
        for pid in first.values():
            os.kill(pid or 0, signal.SIGKILL)
        known = tick_until(supervisor, lambda each: all(count == 1 for _, count in each.restarted))
        assert dict(known.restarted) == {"memory service": 1, "operator loop": 1}
        assert {service.pid for service in supervisor.services}.isdisjoint(first.values())

        for process in node_processes(paths, "node-1"):
            os.kill(process.pid, signal.SIGKILL)
        known = tick_until(supervisor, lambda each: each.dead_nodes)
        assert known.dead_nodes == ("node-1",)
        assert not paths.node_memory("node-1").exists()
        assert node_processes(paths, "node-0")
    finally:
        supervisor.stop()


def test_a_node_is_killed_once_also_over_a_resume(tmp_path: Path) -> None:
    specs = ("kill:node=node-0,after=5", "slow:node=node-1,after=6,factor=2")
    supervisor, paths, state = make(tmp_path, *specs)
    supervisor.start()
    try:
        wait_for(lambda: all((paths.objects / "nodes" / f"{node}.json").exists() for node in NODES))
        assert supervisor.tick(STARTED + 4).injected == ()
        known = tick_until(supervisor, lambda each: len(each.injected) == 2, STARTED + 7)
        assert known.dead_nodes == ("node-0",)
        assert known.slowed == {"node-1": 2}
        assert node_processes(paths, "node-0") == []
        assert [service.name for service in supervisor.services][-1] == "slowing of node-1"
    finally:
        supervisor.stop(lambda: True)
    assert [each.spec for each in state.read_journal()] == list(specs)

    supervisor, paths, state = make(tmp_path, *specs)
    supervisor.start()
    try:
        known = supervisor.tick(STARTED + 100)
        assert known.dead_nodes == ("node-0",)
        assert node_processes(paths, "node-0") == []
        assert "slowing of node-1" in {service.name for service in supervisor.services}
        assert len(state.read_journal()) == 2
    finally:
        supervisor.stop()


def test_a_part_is_killed_and_comes_back(tmp_path: Path) -> None:
    supervisor, _, _ = make(tmp_path, "crash:part=memory,after=0", "crash:part=operator,after=0")
    supervisor.start()
    try:
        known = tick_until(supervisor, lambda each: dict(each.restarted) == {"memory service": 1, "operator loop": 1})
        assert [each.what for each in known.injected] == ["memory is killed", "operator is killed"]
    finally:
        supervisor.stop()


def test_steps_make_injections_due_and_an_absent_target_waits(tmp_path: Path, job: TrainingJob, at) -> None:
    supervisor, _, state = make(tmp_path, "hang:worker=0,step=10")
    progress = ProgressReport(attempt="1-a", attempt_number=1, at=at(0), step=12)
    snapshots.save(state.progress, LoopState(at=STARTED, job=job, observed=Observed(last_progress=progress)))
    assert supervisor.last(STARTED).step == 12
    supervisor._read_loop()
    known = supervisor.snapshot(STARTED)
    assert supervisor._faults.find(supervisor._injections[0], known) is None
    assert state.read_journal() == []


def test_settled(tmp_path: Path, job: TrainingJob, at, snapshot: Callable[..., Snapshot]) -> None:
    supervisor, _, _ = make(tmp_path)

    def shot(seconds: float, phase: Phase, pod: PodPhase, *incidents: Incident) -> Snapshot:
        status = TrainingJobStatus(phase=phase, unsent_incidents=list(incidents))
        return snapshot(seconds, status, observed=Observed(pods=(PodView("gpt-0", "u", 0, pod, "node-0"),)))

    incident = Incident(id="i", at=at(0), text="t")
    assert not supervisor.settled(Snapshot(at=0, started_at=0))
    assert not supervisor.settled(shot(0, Phase.RUNNING, PodPhase.SUCCEEDED))
    assert not supervisor.settled(shot(1, Phase.SUCCEEDED, PodPhase.RUNNING))
    assert not supervisor.settled(shot(2, Phase.SUCCEEDED, PodPhase.SUCCEEDED, incident))
    assert supervisor.settled(shot(3, Phase.SUCCEEDED, PodPhase.SUCCEEDED))
    # Not for ever, whatever hangs.
    assert supervisor.settled(shot(3 + SETTLE_SECONDS + 1, Phase.FAILED, PodPhase.RUNNING, incident))
