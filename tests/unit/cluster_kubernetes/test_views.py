from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sternpost_operator.cluster.kubernetes import views
from sternpost_operator.recovery.observed import PodPhase


def view(manifest: dict[str, Any]) -> Any:
    entry = views.pod_entry(manifest)
    assert entry is not None
    return entry.view


def test_a_running_worker(pod_manifest) -> None:
    entry = views.pod_entry(pod_manifest(version=12))
    assert entry is not None
    assert (entry.namespace, entry.name, entry.job, entry.owner, entry.version) == (
        "team",
        "gpt-0",
        "gpt",
        "uid-of-gpt",
        12,
    )
    seen = entry.view
    assert (seen.slot, seen.phase, seen.node, seen.address) == (0, PodPhase.RUNNING, "node-1", "10.0.0.7")
    assert (seen.ready, seen.eagle_eye_port, seen.trainer_restarts) == (True, 9470, 1)


def test_readiness_is_the_launchers_and_the_sidecars_not_the_trainers(pod_manifest) -> None:
    own_probe = pod_manifest(conditions=[{"type": "Ready", "status": "False"}])
    assert view(own_probe).ready, "a probe of the template may wait for the very training that is to begin"
    assert not view(pod_manifest(initContainerStatuses=[{"name": "sternpost-eagle-eye", "ready": False}])).ready
    assert not view(pod_manifest(phase="Pending")).ready
    with_checkpoint = pod_manifest()
    ring = {"name": "ring", "containerPort": 9472}
    with_checkpoint["spec"]["initContainers"].append({"name": "sternpost-checkpoint", "ports": [ring]})
    assert view(with_checkpoint).ring_port == 9472
    assert view(pod_manifest()).ring_port is None
    assert not view(with_checkpoint).ready, "its sidecar has not reported yet"


@pytest.mark.parametrize(("code", "seen"), [(0, 0), (1, 1), (137, -9), (139, -11), (143, 143), (128, 128), (255, 255)])
def test_the_runtimes_exit_codes(pod_manifest, code: int, seen: int) -> None:
    ended = {"name": "trainer", "state": {"terminated": {"exitCode": code, "reason": "Error"}}}
    assert view(pod_manifest(containerStatuses=[ended])).trainer_exit_code == seen


def test_a_deletion_counts_from_when_it_was_asked_for(pod_manifest) -> None:
    manifest = pod_manifest()
    manifest["metadata"] |= {"deletionTimestamp": "2026-01-01T00:01:00Z", "deletionGracePeriodSeconds": 45}
    assert view(manifest).deleting_since == datetime(2026, 1, 1, 0, 0, 15, tzinfo=UTC)


def test_why_a_pod_waits_and_who_is_about_to_end_it(pod_manifest) -> None:
    unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    waiting = pod_manifest(node=None, phase="Pending", conditions=[unschedulable])
    assert view(waiting).reason == "Unschedulable: 0/3 nodes"
    drained = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drain"}
    assert view(pod_manifest(conditions=[drained])).disruption == "EvictionByEvictionAPI: drain"


def test_a_job_is_kept_without_what_only_others_need(job_manifest) -> None:
    entry = views.job_entry(job_manifest())
    assert entry is not None
    assert "managedFields" not in entry.manifest["metadata"]
    assert entry.manifest["metadata"]["annotations"] == {"sternpost.dev/x": "y"}
    assert (entry.version, entry.generation, entry.key) == (7, 1, ("team", "gpt"))


def test_a_node_with_the_conditions_that_count_as_evidence() -> None:
    manifest = {
        "metadata": {"name": "node-1", "uid": "u", "resourceVersion": "3"},
        "spec": {
            "unschedulable": True,
            "taints": [{"key": "k", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}],
        },
        "status": {
            "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                {"type": "GpuHealthy", "status": "False", "reason": "Xid", "message": "79"},
                {"type": "KernelDeadlock", "status": "False"},
                {"type": "Other", "status": "True"},
            ]
        },
    }
    entry = views.node_entry(manifest, {"GpuHealthy": "False", "KernelDeadlock": "True"})
    assert entry is not None
    assert (entry.view.ready, entry.view.unschedulable) == (True, True)
    assert [(each.type, each.reason) for each in entry.view.conditions] == [("GpuHealthy", "Xid")]
    assert [(each.key, each.effect) for each in entry.view.taints] == [("k", "NoExecute")]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)
KEYS = st.sampled_from(
    [
        "metadata",
        "spec",
        "status",
        "name",
        "uid",
        "labels",
        "containerStatuses",
        "conditions",
        "ownerReferences",
        "taints",
    ]
)
OBJECTS = st.dictionaries(KEYS, st.dictionaries(KEYS, JSON, max_size=5) | JSON, max_size=5)


@given(OBJECTS)
def test_garbage_is_left_out_and_never_an_error(manifest: dict[str, Any]) -> None:
    for project in (views.job_entry, views.pod_entry, views.attempt_entry, views.anomaly_entry):
        project(manifest)
    views.node_entry(manifest, {"A": "True"})
