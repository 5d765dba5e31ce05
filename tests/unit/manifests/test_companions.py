"""The objects beside the Pods: Service, Secret, account."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from sternpost_operator.manifests.access import build_role, build_role_binding, build_service_account
from sternpost_operator.manifests.companions import owned_objects
from sternpost_operator.manifests.images import Images
from sternpost_operator.manifests.network_policy import build_network_policy
from sternpost_operator.manifests.secret import build_secret
from sternpost_operator.manifests.service import build_service, pod_address
from sternpost_operator.manifests.worker_pod import build_pod
from sternpost_operator.resources.names import MAX_JOB_NAME, pod_name, service_name
from sternpost_operator.resources.training_job import TrainingJob

MakeJob = Callable[..., TrainingJob]
TOKEN = "t" * 32


def test_the_service_finds_the_pods_by_name(make_job: MakeJob, images: Images) -> None:
    job = make_job()
    service, pod = build_service(job), build_pod(job, 1, images=images)
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert service["metadata"]["name"] == pod["spec"]["subdomain"]
    assert pod_address(job, 1) == "gpt-1.gpt-workers.team.svc"
    named = {
        port["name"]
        for item in [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]
        for port in item.get("ports", [])
    }
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= named


def test_names_fit_into_labels() -> None:
    longest = "x" * MAX_JOB_NAME
    assert len(pod_name(longest, 10_999)) <= 63
    assert len(service_name(longest)) == 63


def test_the_secret_holds_the_token_that_the_pods_mount(make_job: MakeJob, images: Images) -> None:
    secret = build_secret(make_job(), TOKEN)
    assert base64.b64decode(secret["data"]["token"]) == TOKEN.encode()
    volumes = build_pod(make_job(), 0, images=images)["spec"]["volumes"]
    assert secret["metadata"]["name"] in [volume.get("secret", {}).get("secretName") for volume in volumes]


@pytest.mark.parametrize("token", ["", "short", "t" * 31, "t" * 32 + "\n", "t" * 16 + " " + "t" * 16, "é" * 40])
def test_a_weak_token_is_refused_and_not_shown(make_job: MakeJob, token: str) -> None:
    with pytest.raises(ValueError, match="at least 32 printable") as caught:
        build_secret(make_job(), token)
    assert not token or token not in str(caught.value)


def test_the_account_may_read_its_own_attempt_only(make_job: MakeJob) -> None:
    job = make_job()
    account, role, binding = build_service_account(job), build_role(job), build_role_binding(job)
    attempts = next(rule for rule in role["rules"] if rule["resources"] == ["attempts"])
    assert attempts["resourceNames"] == ["gpt"]
    assert set(attempts["verbs"]) == {"get", "list", "watch"}
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"][0]["name"] == account["metadata"]["name"] == "gpt-sidecar"


def test_the_account_may_speak_for_its_own_job_only(make_job: MakeJob) -> None:
    rules = [rule for rule in build_role(make_job())["rules"] if "report" in rule["verbs"]]
    assert rules == [
        {"apiGroups": ["sternpost.dev"], "resources": ["anomalies"], "resourceNames": ["gpt"], "verbs": ["report"]}
    ]


@pytest.mark.parametrize("field", ["serviceAccountName", "serviceAccount"])
def test_the_templates_own_account_gets_the_role(make_job: MakeJob, images: Images, field: str) -> None:
    job = make_job(pod={field: "mine", "automountServiceAccountToken": True})
    assert build_role_binding(job)["subjects"][0]["name"] == "mine"
    spec = build_pod(job, 0, images=images)["spec"]
    assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("mine", True)
    kinds = [item["kind"] for item in owned_objects(job, token=TOKEN, operator_namespace="system")]
    assert "ServiceAccount" not in kinds


def test_everything_belongs_to_the_job(make_job: MakeJob) -> None:
    documents = owned_objects(make_job(), token=TOKEN, operator_namespace="system")
    assert [document["kind"] for document in documents] == [
        "ServiceAccount", "Role", "RoleBinding", "Secret", "Service", "NetworkPolicy",
    ]  # fmt: skip
    for document in documents:
        assert document["metadata"]["ownerReferences"][0]["uid"] == "job-uid"
        assert document["metadata"]["namespace"] == "team"
        assert document["metadata"]["labels"]["sternpost.dev/job"] == "gpt"
        assert document["metadata"]["name"].startswith("gpt-")


class TestNetworkPolicy:
    def policy(self, job: TrainingJob, **arguments: Any) -> dict[str, Any]:
        spec: dict[str, Any] = build_network_policy(job, operator_namespace="system", **arguments)["spec"]
        return spec

    def test_it_is_about_the_workers_of_the_job(self, make_job: MakeJob, images: Images) -> None:
        spec = self.policy(make_job())
        labels = build_pod(make_job(), 0, images=images)["metadata"]["labels"]
        assert spec["podSelector"]["matchLabels"].items() <= labels.items()
        assert spec["policyTypes"] == ["Ingress"]
        assert "egress" not in spec

    def test_workers_reach_each_other_on_all_ports(self, make_job: MakeJob) -> None:
        first = self.policy(make_job())["ingress"][0]
        assert first == {"from": [{"podSelector": {"matchLabels": {"sternpost.dev/job": "gpt"}}}]}

    def test_the_operator_and_prometheus_reach_what_they_ask(self, make_job: MakeJob) -> None:
        spec = self.policy(make_job(ranksPerWorker=2), metrics_namespaces=["mon", "mon", "a"])
        _, operator, scrapers = spec["ingress"]
        assert operator["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "system"}}}]
        names = [peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for peer in scrapers["from"]]
        assert names == ["a", "mon"]
        for rule in (operator, scrapers):
            assert [port["port"] for port in rule["ports"]] == [9400, 9401, 9470, 9471]

    def test_prometheus_may_be_anywhere_unless_it_is_said(self, make_job: MakeJob) -> None:
        assert self.policy(make_job())["ingress"][2]["from"] == [{"namespaceSelector": {}}]
