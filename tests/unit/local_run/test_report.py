from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_operator.local_run import summary
from sternpost_operator.local_run.picture import draw
from sternpost_operator.local_run.report import (
    LedgerEntry,
    LossPoint,
    Report,
    Stored,
    build,
    checkpoint,
    match_injections,
    read_losses,
)
from sternpost_operator.local_run.snapshot import Injected, Snapshot
from sternpost_operator.resources.training_job_status import (
    AttemptRecord,
    Cause,
    CurrentAttempt,
    ExcludedNode,
    Goodput,
    Phase,
    Rung,
    Stages,
    TrainingJobStatus,
)

At = Callable[[float], datetime]


def record(at: At, number: int, cause: Cause, node: str | None, *, detected: float, decided: float) -> AttemptRecord:
    return AttemptRecord(
        number=number,
        id=f"{number}-x",
        cause=cause,
        rung=Rung.PODS,
        node=node,
        detected_at=at(detected),
        decided_at=at(decided),
        stages=Stages(detect=0.5, decide=decided - detected, terminate=0.2, start=3, restore=0.1, first_step=0.3),
        last_step=42,
        resumed_step=40,
        lost_steps=2,
    )


def injection(at: At, number: int, kind: str, node: str, seconds: float) -> Injected:
    return Injected(id=str(number), spec=f"spec-{number}", kind=kind, at=at(seconds).timestamp(), node=node, what="w")


@pytest.fixture
def report(snapshot: Callable[..., Snapshot], at: At) -> Report:
    status = TrainingJobStatus(
        phase=Phase.SUCCEEDED,
        restarts=2,
        lost_steps=4,
        attempt=CurrentAttempt(number=3, id="3-x", last_step=100),
        attempts=[
            record(at, 1, Cause.NODE_LOST, "node-2", detected=12, decided=13),
            record(at, 2, Cause.HANG, "node-1", detected=30, decided=31),
        ],
        excluded_nodes=[ExcludedNode(node="node-2", since=at(13), until=at(9999))],
        goodput=Goodput(productive_seconds=8, total_seconds=10, ratio=0.8),
    )
    loop = snapshot(60, status).loop
    assert loop is not None
    stored = Stored.model_validate(
        {
            "uri": "ignored",
            "generations": [{"step": 90, "run": 1}, {"step": 100, "run": 2, "newest": True, "bytes": 7}],
            "ledger": [
                {"step": 100, "run": 1, "jobUid": "u-1", "weightsHash": "old"},
                {
                    "step": 100,
                    "run": 2,
                    "jobUid": "u-1",
                    "weightsHash": "abc",
                    "rawBytes": 300,
                    "storedBytes": 150,
                    "blockedSeconds": 0.004,
                    "memcpyFloorSeconds": 0.002,
                },
                {"step": 50, "run": 0, "jobUid": "another job", "rawBytes": 10**9, "storedBytes": 1},
            ],
        }
    )
    losses = [LossPoint(t=at(s).timestamp(), step=s, loss=5 - s / 20, attempt="1-x") for s in range(1, 60)]
    return build(
        loop,
        started_at=at(0).timestamp(),
        ended_at=at(61).timestamp(),
        stored=stored,
        injected=[injection(at, 1, "kill", "node-2", 10), injection(at, 2, "hang", "node-1", 24)],
        losses=losses,
    )


def test_the_fields_that_were_promised(report: Report) -> None:
    content = json.loads(json.dumps(report.to_json()))
    assert (content["phase"], content["steps"], content["finalHash"]) == ("Succeeded", 100, "abc")
    assert (content["restarts"], content["lostSteps"], content["goodput"]) == (2, 4, 0.8)
    assert content["excludedNodes"][0]["node"] == "node-2"
    first, second = content["attempts"]
    assert (first["cause"], first["node"], first["rung"]) == ("NodeLost", "node-2", "pods")
    assert set(first["stages"]) == {"detect", "decide", "terminate", "start", "restore", "firstStep"}
    # Two seconds after the injection, whatever the operator itself takes for the beginning.
    assert (first["stages"]["detect"], first["detectSelf"]) == (pytest.approx(2), 0.5)
    assert (second["injection"], second["stages"]["detect"]) == ("spec-2", pytest.approx(6))
    assert content["checkpoint"] == {
        "saves": 2,
        "blockedMs": {"median": 4, "max": 4},
        "memcpyFloorMs": 2,
        "blockedOverFloor": 2,
        "ratio": 2,
        "bytesRaw": 300,
        "bytesStored": 150,
    }
    assert content["seconds"] == pytest.approx(61)


def test_it_can_be_read_again(report: Report) -> None:
    assert Report.model_validate_json(json.dumps(report.to_json())) == report


def test_what_is_unknown_is_null(snapshot: Callable[..., Snapshot]) -> None:
    loop = snapshot(5).loop
    assert loop is not None
    content = build(loop, started_at=0, ended_at=1, stored=None, injected=[]).to_json()
    assert content["finalHash"] is None
    assert content["steps"] is None
    assert content["checkpoint"]["blockedMs"] is None
    assert content["checkpoint"]["ratio"] is None


def test_the_summary_says_it_in_words(report: Report) -> None:
    text = "\n".join(summary.lines(report))
    assert "gpt: Succeeded at step 100 after 61.0 s" in text
    assert "NodeLost on node-2, Pod replaced, 2 steps lost" in text
    assert "detect 2.0, decide 1.0" in text
    assert "memcpy floor 2.0 ms = 2.0 times" in text
    assert "excluded nodes: node-2" in text
    assert "abc" in text


def test_the_picture_is_a_png(report: Report, tmp_path: Path) -> None:
    draw(report, tmp_path / "loss.png", report)
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    draw(report.model_copy(update={"loss": []}), tmp_path / "empty.png")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


class TestMatch:
    def test_by_node(self, at: At) -> None:
        records = [record(at, 1, Cause.SLOW_NODE, "node-1", detected=50, decided=51)]
        slow = [injection(at, 1, "slow", "node-2", 10), injection(at, 2, "slow", "node-1", 12)]
        assert match_injections(records, slow)[1].id == "2"

    def test_not_of_another_kind_and_not_before_its_time(self, at: At) -> None:
        records = [record(at, 1, Cause.SLOW_NODE, "node-1", detected=50, decided=51)]
        assert match_injections(records, [injection(at, 1, "kill", "node-1", 40)]) == {}
        assert match_injections(records, [injection(at, 1, "slow", "node-1", 60)]) == {}

    def test_each_is_used_once(self, at: At) -> None:
        records = [record(at, n, Cause.RANK_FAILED, "node-1", detected=10 * n, decided=10 * n + 1) for n in (1, 2)]
        assert set(match_injections(records, [injection(at, 1, "exit", "node-1", 9)])) == {1}


@given(
    st.lists(
        st.builds(
            LedgerEntry,
            step=st.integers(0, 9),
            blocked_seconds=st.none() | st.floats(0, 1),
            memcpy_floor_seconds=st.none() | st.floats(0, 1),
            raw_bytes=st.none() | st.integers(0, 10**9),
            stored_bytes=st.none() | st.integers(0, 10**9),
        )
    )
)
@settings(deadline=None, derandomize=True)
def test_any_ledger_has_figures(ledger: list[LedgerEntry]) -> None:
    figures = checkpoint(ledger)
    assert figures.saves == len(ledger)
    if figures.blocked_ms is not None:
        assert figures.blocked_ms.median <= figures.blocked_ms.max


def test_torn_losses_are_left_out() -> None:
    good = b'{"t": 1.0, "step": 1, "loss": 2.5, "attempt": "1-x"}'
    assert len(read_losses([good, b'{"t": 1.0, "st', b"", good])) == 2
