"""A job's account speaks for its own job, and for nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bad_manifests import valid
from chart_release import SYSTEM
from harness.commands import CommandError
from kube import Kube, Object

from sternpost_operator.manifests.companions import owned_objects
from sternpost_operator.resources.training_job import TrainingJob

GONE_SECONDS = 120


@pytest.fixture
def jobs(kube: Kube, chart: str, namespace: str) -> dict[str, TrainingJob]:
    """Three suspended jobs with what the operator makes for each; the Pods of `guest` run as an account of the template's."""
    made = {}
    kube.kubectl("create", "serviceaccount", "trainer-account", namespace=namespace)
    for name in ("mine", "other", "guest"):
        manifest = valid(name)
        manifest["spec"]["suspend"] = True
        if name == "guest":
            manifest["spec"]["template"]["spec"]["serviceAccountName"] = "trainer-account"
        kube.apply(manifest, namespace=namespace)
        stored = kube.get("trainingjob", name, namespace)
        assert stored is not None
        made[name] = TrainingJob.model_validate({key: part for key, part in stored.items() if key != "status"})
        accounts = ("ServiceAccount", "Role", "RoleBinding")
        owned = owned_objects(made[name], token="t" * 40, operator_namespace=SYSTEM)
        kube.apply(*(item for item in owned if item["kind"] in accounts), namespace=namespace)
    return made


def anomaly(owner: TrainingJob, name: str, **spec: Any) -> Object:
    """As eagle-eye writes it."""
    named = spec.get("job", owner.metadata.name)
    return {
        "apiVersion": "sternpost.dev/v1alpha1",
        "kind": "Anomaly",
        "metadata": {
            "name": name,
            "labels": {"sternpost.dev/job": named},
            "ownerReferences": [
                {
                    "apiVersion": "sternpost.dev/v1alpha1",
                    "kind": "TrainingJob",
                    "name": owner.metadata.name,
                    "uid": owner.metadata.uid,
                }
            ],
        },
        "spec": {
            "job": named,
            "attempt": "1-abcdef00",
            "kind": "slow",
            "confidence": 0.9,
            "evidence": "1.9 times its peers",
            "firstSeen": "2026-01-01T00:00:00Z",
            "lastSeen": "2026-01-01T00:00:05Z",
            **spec,
        },
    }


class Speaker:
    """An account that writes anomalies."""

    def __init__(self, kube: Kube, namespace: str, account: str) -> None:
        self._kube, self._namespace = kube, namespace
        self._user = f"system:serviceaccount:{account}"

    def say(self, manifest: Object) -> None:
        self._kube.kubectl(
            *("--as", self._user, "apply", "--server-side", "--force-conflicts", "-f", "-"),
            namespace=self._namespace,
            stdin=json.dumps(manifest),
        )

    def refused(self, manifest: Object) -> str:
        """Why."""
        with pytest.raises(CommandError) as caught:
            self.say(manifest)
        return str(caught.value.output)

    def may(self, *what: str) -> bool:
        try:
            self._kube.kubectl("--as", self._user, "auth", "can-i", "--quiet", *what, namespace=self._namespace)
        except CommandError:
            return False
        return True


def test_a_job_speaks_for_itself_alone(kube: Kube, namespace: str, jobs: dict[str, TrainingJob]) -> None:
    mine = Speaker(kube, namespace, f"{namespace}:mine-sidecar")
    mine.say(anomaly(jobs["mine"], "a"))
    mine.say(anomaly(jobs["mine"], "a", lastSeen="2026-01-01T00:00:09Z"))

    assert "may not report on job other" in mine.refused(anomaly(jobs["other"], "b"))
    Speaker(kube, namespace, f"{namespace}:other-sidecar").say(anomaly(jobs["other"], "c"))
    # What is another's cannot be taken over, and what is one's own cannot be passed on.
    assert "stays with its job" in mine.refused(anomaly(jobs["mine"], "c"))
    assert "may not report on job other" in mine.refused(anomaly(jobs["other"], "a"))
    assert "belongs to the TrainingJob of spec.job" in mine.refused(anomaly(jobs["other"], "d", job="mine"))
    strange = anomaly(jobs["mine"], "a")
    strange["metadata"]["labels"] = {"sternpost.dev/job": "other"}
    assert "sternpost.dev/job must be spec.job" in mine.refused(strange)
    unowned = anomaly(jobs["mine"], "e")
    del unowned["metadata"]["ownerReferences"]
    assert "belongs to the TrainingJob" in mine.refused(unowned)
    assert {item["metadata"]["name"] for item in kube.items("anomalies", namespace)} == {"a", "c"}


def test_an_account_of_the_templates_own_speaks_for_its_job(
    kube: Kube, namespace: str, jobs: dict[str, TrainingJob]
) -> None:
    guest = Speaker(kube, namespace, f"{namespace}:trainer-account")
    guest.say(anomaly(jobs["guest"], "a"))
    assert "may not report on job mine" in guest.refused(anomaly(jobs["mine"], "b"))


def test_nobody_else_speaks(kube: Kube, namespace: str, jobs: dict[str, TrainingJob]) -> None:
    for account in (f"{namespace}:default", "default:default", f"{SYSTEM}:sternpost-memory"):
        assert "cannot patch resource" in Speaker(kube, namespace, account).refused(anomaly(jobs["mine"], "a"))
    abroad = Speaker(kube, "default", f"{namespace}:mine-sidecar")
    assert "cannot patch resource" in abroad.refused(anomaly(jobs["mine"], "a"))


def test_what_else_a_jobs_account_may_do(kube: Kube, namespace: str, jobs: dict[str, TrainingJob]) -> None:
    mine = Speaker(kube, namespace, f"{namespace}:mine-sidecar")
    assert mine.may("watch", "attempts.sternpost.dev/mine")
    assert mine.may("get", "attempts.sternpost.dev/mine")
    for verb, resource in (
        ("get", "attempts.sternpost.dev/other"),
        ("list", "attempts.sternpost.dev"),
        ("patch", "attempts.sternpost.dev/mine"),
        ("delete", "anomalies.sternpost.dev"),
        ("get", "trainingjobs.sternpost.dev/mine"),
        ("get", "secrets/mine-token"),
        ("get", "pods"),
        ("create", "pods"),
        ("get", "nodes"),
    ):
        assert not mine.may(verb, resource), (verb, resource)


def test_the_operator_may_grant_it(kube: Kube, namespace: str, chart: str) -> None:
    """Kubernetes lets nobody grant what he does not hold."""
    operator = Speaker(kube, namespace, f"{chart}:sternpost-operator")
    assert operator.may("report", "anomalies.sternpost.dev/any")


def test_anomalies_go_with_their_job(kube: Kube, namespace: str, jobs: dict[str, TrainingJob]) -> None:
    Speaker(kube, namespace, f"{namespace}:mine-sidecar").say(anomaly(jobs["mine"], "a"))
    kube.kubectl("delete", "tj", "mine", "--wait=false", namespace=namespace)
    kube.wait_gone("anomaly", "a", namespace, seconds=GONE_SECONDS)
    # And an owner that is left without its job may be forgotten, which the garbage collector does by an update.
    Speaker(kube, namespace, f"{namespace}:other-sidecar").say(anomaly(jobs["other"], "b"))
    kube.kubectl("delete", "tj", "other", "--cascade=orphan", "--wait=false", namespace=namespace)
    kube.wait_for(
        *("anomaly", "b", lambda found: not found["metadata"].get("ownerReferences"), "without owner"),
        namespace=namespace,
        seconds=GONE_SECONDS,
    )
