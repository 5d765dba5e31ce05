from __future__ import annotations

import io
from collections.abc import Callable
from datetime import datetime

from rich.console import Console

from sternpost_operator.local_run.facts import header, node_rows
from sternpost_operator.local_run.plain_view import PROGRESS_SECONDS, PlainView
from sternpost_operator.local_run.snapshot import Injected, Snapshot
from sternpost_operator.local_run.timeline import Event, Level
from sternpost_operator.local_run.view import LiveView
from sternpost_operator.recovery.observed import NodeView, Observed, PodPhase, PodView
from sternpost_operator.resources.attempt import AttemptAction, AttemptMember, AttemptSpec, AttemptWorker
from sternpost_operator.resources.progress import CheckpointReport, ProgressReport, WorkerReport
from sternpost_operator.resources.training_job_status import (
    CurrentAttempt,
    ExcludedNode,
    Goodput,
    Phase,
    SuspectedNode,
    TrainingJobStatus,
)


def busy(snapshot: Callable[..., Snapshot], at: Callable[[float], datetime]) -> Snapshot:
    def pod(slot: int, node: str | None) -> PodView:
        return PodView(
            f"gpt-{slot}",
            f"u{slot}",
            slot,
            PodPhase.RUNNING if node else PodPhase.PENDING,
            node,
            reason="" if node else "no node",
        )

    worker = AttemptWorker(pod="gpt-0", uid="u0", node="node-0", address="127.0.0.1", eagle_eye_port=1, index=0)
    spare = AttemptMember(pod="gpt-1", uid="u1", node="node-1", address="127.0.0.1", eagle_eye_port=1)
    observed = Observed(
        pods=(pod(0, "node-0"), pod(1, "node-1"), pod(2, None)),
        nodes=tuple(NodeView(f"node-{n}", n != 3, at(0)) for n in (0, 1, 3, 10)),
        attempt=AttemptSpec(
            job="gpt",
            job_uid="u-1",
            number=2,
            id="2-b",
            action=AttemptAction.RUN,
            workers=[worker],
            spares=[spare],
            issued_at=at(1),
        ),
        progress=ProgressReport(
            attempt="2-b",
            attempt_number=2,
            at=at(30),
            step=57,
            steps_per_second=3.25,
            loss=2.34567,
            checkpoint=CheckpointReport(committed_step=50, committed_at=at(26)),
            workers=[WorkerReport(index=0, pod="gpt-0", node="node-0", seen_at=at(30), launcher="running", step=57)],
        ),
    )
    status = TrainingJobStatus(
        phase=Phase.RUNNING,
        restarts=1,
        attempt=CurrentAttempt(number=2),
        goodput=Goodput(total_seconds=10, ratio=0.91),
        excluded_nodes=[ExcludedNode(node="node-2", since=at(5), until=at(99))],
        suspected_nodes=[SuspectedNode(node="node-0", last_at=at(5))],
    )
    slow = Injected(id="1", spec="s", kind="slow", at=at(9).timestamp(), node="node-1", factor=3, what="w")
    return snapshot(30, status, observed=observed, dead_nodes=("node-2",), injected=(slow,))


def test_facts(snapshot: Callable[..., Snapshot], at: Callable[[float], datetime]) -> None:
    known = busy(snapshot, at)
    facts = header(known, "gpt")
    assert (facts.step, facts.checkpoint_step, facts.checkpoint_age, facts.goodput) == (57, 50, 4, 0.91)
    rows = node_rows(known)
    assert [row.node for row in rows] == ["node-0", "node-1", "node-2", "node-3", "node-10", "-"]
    assert [row.state for row in rows] == ["ready", "ready", "dead", "not ready", "ready", ""]
    assert [row.role for row in rows[:2]] == ["worker 0", "spare"]
    assert (rows[0].marks, rows[1].marks, rows[2].marks) == (("suspected",), ("slowed x3",), ("excluded",))
    assert (rows[0].launcher, rows[0].step, rows[1].launcher) == ("running", 57, "running")


def test_the_live_view_shows_all_of_it(snapshot: Callable[..., Snapshot], at: Callable[[float], datetime]) -> None:
    console = Console(file=io.StringIO(), width=120, height=40, force_terminal=True, color_system=None)
    view = LiveView(console, "gpt")
    with view:
        view.update(busy(snapshot, at), [Event(at(12.3).timestamp(), Level.BAD, "node node-2 [excluded]")])
        view.say("[not markup]")
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for part in (
        "gpt",
        "Running",
        "step 57",
        "3.2 steps/s",
        "loss 2.3457",
        "checkpoint: step 50, 4 s old",
        "attempt 2",
    ):
        assert part in text
    for part in ("node-10", "worker 0", "spare", "slowed x3", "12.3 s", "node node-2 [excluded]", "goodput 91%"):
        assert part in text
    assert "[not markup]" in text


def test_the_live_view_draws_before_there_is_anything() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    with LiveView(console, "gpt") as view:
        view.update(Snapshot(at=1, started_at=0), [])
    assert "Starting up" in console.file.getvalue()  # type: ignore[attr-defined]


def test_plain_lines(snapshot: Callable[..., Snapshot], at: Callable[[float], datetime]) -> None:
    lines: list[str] = []
    known = busy(snapshot, at)
    with PlainView(lines.append, "gpt") as view:
        view.update(known, [Event(at(12.34).timestamp(), Level.BAD, "node node-2 is excluded")])
        view.update(known, [])
    assert lines == [
        "[   12.3s] node node-2 is excluded",
        (
            "[   30.0s] gpt: Running, attempt 2, step 57, 3.2 steps/s, loss 2.3457, "
            "checkpoint at step 50 (4 s old), goodput 91%"
        ),
    ]
    assert PROGRESS_SECONDS == 5
