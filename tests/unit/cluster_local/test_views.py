from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_operator.cluster.local import views
from sternpost_operator.cluster.local.node_record import NodeRecord
from sternpost_operator.cluster.local.processes import ProcessIdentity
from sternpost_operator.cluster.local.views import at, node_view, pod_view, slot_of
from sternpost_operator.recovery.observed import PodPhase

MANIFEST: dict[str, Any] = {
    "metadata": {
        "name": "gpt-3",
        "uid": "u",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"sternpost.dev/job": "gpt", "sternpost.dev/slot": "3"},
    },
    "spec": {"nodeName": "node-1"},
}


def reported(phase: str = "Running", *, ready: bool = True, **trainer: Any) -> dict[str, Any]:
    status = {
        "phase": phase,
        "podIP": "127.0.0.1",
        "conditions": [{"type": "Ready", "status": str(ready)}],
        "containerStatuses": [{"name": "trainer", "restartCount": 2, **trainer}],
    }
    return {"uid": "u", "status": status, "ports": {"eagle-eye": 21000, "ring": 21001}}


def test_running_pod() -> None:
    view = pod_view(MANIFEST, reported(), node_alive=True)
    assert view is not None
    assert (view.name, view.uid, view.slot, view.phase, view.node) == ("gpt-3", "u", 3, PodPhase.RUNNING, "node-1")
    assert (view.ready, view.address, view.eagle_eye_port, view.trainer_restarts) == (True, "127.0.0.1", 21000, 2)
    assert view.ring_port == 21001
    assert view.created_at is not None
    assert view.deleting_since is None
    assert view.trainer_exit_code is None


@pytest.mark.parametrize(
    ("ended", "expected"),
    [({"exitCode": 137, "signal": 9}, -9), ({"exitCode": 143}, 143), ({"exitCode": 0}, 0), ({"exitCode": "x"}, None)],
)
@pytest.mark.parametrize("place", ["state", "lastState"])
def test_exit_codes(ended: dict[str, Any], expected: int | None, place: str) -> None:
    view = pod_view(MANIFEST, reported(**{place: {"terminated": ended}}), node_alive=True)
    assert view is not None
    assert view.trainer_exit_code == expected


def test_pod_of_a_dead_node_is_unknown_unless_it_had_ended() -> None:
    def phase(said: str) -> PodPhase:
        view = pod_view(MANIFEST, reported(said), node_alive=False)
        assert view is not None
        assert not view.ready
        return view.phase

    assert phase("Running") is PodPhase.UNKNOWN
    assert phase("Pending") is PodPhase.UNKNOWN
    assert phase("Succeeded") is PodPhase.SUCCEEDED
    assert phase("Failed") is PodPhase.FAILED


def test_pending_pod_says_why() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0 of 1 nodes"}
    manifest = {**MANIFEST, "spec": {}}
    view = pod_view(manifest, {"status": {"phase": "Pending", "conditions": [condition]}}, node_alive=False)
    assert view is not None
    assert (view.phase, view.reason, view.node) == (PodPhase.PENDING, "Unschedulable: 0 of 1 nodes", None)
    view = pod_view(MANIFEST, None, node_alive=True)
    assert view is not None
    assert (view.phase, view.address, view.eagle_eye_port) == (PodPhase.PENDING, None, None)


hostile = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["phase", "conditions", "containerStatuses", "type", "name", "state", "terminated", "exitCode"]
            ),
            inner | st.sampled_from(["trainer", "Ready"]),
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(status=hostile, ports=hostile, labels=hostile)
def test_nonsense_does_not_raise(status: Any, ports: Any, labels: Any) -> None:
    pod_view(
        {"metadata": {"name": "gpt-0", "uid": "u", "labels": labels}},
        {"status": status, "ports": ports},
        node_alive=True,
    )
    slot_of({"metadata": {"name": "gpt", "labels": labels}})


def test_node_keeps_the_time_of_its_last_change(monkeypatch: pytest.MonkeyPatch) -> None:
    alive = True
    monkeypatch.setattr("sternpost_operator.cluster.local.node_record.is_alive", lambda _: alive)
    monkeypatch.setattr("sternpost_operator.cluster.local.node_record.boot_id", lambda: "boot")

    def record(heartbeat: float, started: float = 100) -> NodeRecord:
        return NodeRecord("node-1", ProcessIdentity(1, 1), 1, started, heartbeat, "boot")

    view = node_view(record(110), 110.5, before=None)
    assert (view.ready, view.ready_since) == (True, at(100))
    view = node_view(record(111), 111.5, before=view)
    assert (view.ready, view.ready_since) == (True, at(100))
    view = node_view(record(111), 113.5, before=view)
    assert (view.ready, view.ready_since, view.last_heartbeat) == (False, at(111), at(111))
    view = node_view(record(111), 120, before=view)
    assert (view.ready, view.ready_since) == (False, at(111))
    view = node_view(record(121), 121.1, before=view)
    assert (view.ready, view.ready_since) == (True, at(121.1))
    alive = False
    view = node_view(record(122), 122.1, before=view)
    assert (view.ready, view.ready_since) == (False, at(122))
    alive = True
    view = node_view(record(131, started=130), 131.1, before=view)
    assert (view.ready, view.ready_since) == (True, at(130))
    assert node_view(record(50), 200, before=None).ready_since == at(50)


def test_times() -> None:
    assert views.parse_time("2026-01-01T00:00:00Z") is not None
    for value in ("2026-01-01T00:00:00", "x", 5, None):
        assert views.parse_time(value) is None
