"""Who may do what on a real API server, with what the chart grants."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from chart_release import SYSTEM, install
from harness.commands import CommandError
from kube import Kube, Object

SECONDS = 60


def can_i(kube: Kube, namespace: str, verb: str, resource: str, user: str) -> bool:
    """Whether the API server would let `user`; `resource` may have a subresource behind a slash."""
    plural, _, subresource = resource.partition("/")
    part = [f"--subresource={subresource}"] if subresource else []
    try:
        told = kube.kubectl("auth", "can-i", verb, plural, "--as", user, *part, namespace=namespace)
    except CommandError as error:  # exit code 1 is its way to say no
        told = error.output
    return told.strip().splitlines()[-1] == "yes"


ROLES = {
    "view": (
        [("list", "trainingjobs"), ("get", "attempts"), ("watch", "anomalies")],
        [("create", "trainingjobs"), ("create", "anomalies")],
    ),
    "edit": (
        [("list", "anomalies"), ("create", "trainingjobs"), ("delete", "trainingjobs")],
        [("create", "anomalies"), ("patch", "attempts"), ("update", "trainingjobs/status")],
    ),
    "admin": ([("patch", "trainingjobs")], [("create", "anomalies"), ("patch", "trainingjobs/status")]),
}


def test_kubernetes_own_roles_reach_the_resources(kube: Kube, chart: str, namespace: str) -> None:
    for role, (allowed, denied) in ROLES.items():
        user = f"{role}-{secrets.token_hex(3)}"
        kube.kubectl("create", "rolebinding", role, f"--clusterrole={role}", f"--user={user}", namespace=namespace)
        found = [pair for pair in [*allowed, *denied] if can_i(kube, namespace, *pair, user)]
        assert found == allowed, role


def test_nothing_of_the_release_would_be_refused_by_the_restricted_standard(kube: Kube, chart: str) -> None:
    """The API server names each running Pod that the standard forbids."""
    label = "pod-security.kubernetes.io/enforce=restricted"
    told = kube.kubectl("label", "namespace", chart, label, "--overwrite", "--dry-run=server", "--warnings-as-errors")
    assert "labeled" in told


@pytest.fixture
def watched(kube: Kube, chart: str, namespace: str) -> Iterator[str]:
    """The release, looking at the test's namespace only."""
    install(kube, more={"operator": {"logLevel": "debug", "watchNamespaces": [namespace]}})
    yield namespace
    install(kube)


def test_with_namespaces_given_the_operator_runs_jobs_there_and_sees_no_others(kube: Kube, watched: str) -> None:
    other = f"{watched}-other"
    kube.kubectl("create", "namespace", other)
    try:
        for namespace in (other, watched):
            kube.apply(suspended(), namespace=namespace)
        kube.wait_for(
            *("trainingjob", "quick", lambda job: phase(job) == "Suspended", "suspended"),
            namespace=watched,
            seconds=SECONDS,
        )
        left = kube.get("trainingjob", "quick", other)
        assert left is not None
        assert phase(left) is None
        account = f"system:serviceaccount:{SYSTEM}:sternpost-operator"
        for resource in ("pods", "secrets", "trainingjobs"):
            assert can_i(kube, watched, "get", resource, account)
            assert not can_i(kube, other, "get", resource, account)
    finally:
        kube.kubectl("delete", "namespace", other, "--wait=false")


def suspended() -> Object:
    """A job that the operator has nothing to do for but to say so."""
    trainer = {"name": "trainer", "image": "sternpost/test-trainer:1", "command": ["python3", "-c", "pass"]}
    return {
        "apiVersion": "sternpost.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "quick"},
        "spec": {"workers": 1, "suspend": True, "template": {"spec": {"containers": [trainer]}}},
    }


def phase(job: Object) -> str | None:
    """Of its status, if it has one."""
    found = (job.get("status") or {}).get("phase")
    return str(found) if found else None
