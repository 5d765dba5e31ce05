"""Who the containers run as, and how near a Pod comes to the Pod Security Standard "restricted"."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sternpost_operator.manifests.images import Images
from sternpost_operator.manifests.worker_pod import build_pod
from sternpost_operator.resources.training_job import TrainingJob

MakeJob = Callable[..., TrainingJob]
CHECKPOINT = {"storage": "s3://bucket/gpt", "sharedMemory": "2Gi"}
RESTRICTED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip


def violations(pod: dict[str, Any]) -> Iterator[str]:
    """Of the Pod Security Standard "restricted", as Kubernetes 1.34 describes it."""
    spec = pod["spec"]
    shared = spec.get("securityContext", {})
    for volume in spec["volumes"]:
        if not (set(volume) - {"name"}) <= RESTRICTED_VOLUMES:
            yield f"volume {volume['name']}"
    for container in [*spec["initContainers"], *spec["containers"]]:
        name, own = container["name"], container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{name}: allowPrivilegeEscalation"
        capabilities = own.get("capabilities", {})
        if capabilities.get("drop") != ["ALL"] or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
            yield f"{name}: capabilities"
        if own.get("runAsNonRoot", shared.get("runAsNonRoot")) is not True:
            yield f"{name}: runAsNonRoot"
        if own.get("runAsUser", shared.get("runAsUser")) == 0:
            yield f"{name}: runAsUser"
        if own.get("seccompProfile", shared.get("seccompProfile")) != {"type": "RuntimeDefault"}:
            yield f"{name}: seccompProfile"
        if own.get("privileged") or "hostPort" in str(container.get("ports")):
            yield f"{name}: privileged"


@pytest.fixture
def build(make_job: MakeJob, images: Images) -> Callable[..., dict[str, Any]]:
    def make(trainer: dict[str, Any] | None = None, pod: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        contexts: dict[str, Any] = {}
        if trainer is not None:
            contexts["trainer"] = {"securityContext": trainer}
        if pod is not None:
            contexts["pod"] = {"securityContext": pod}
        return build_pod(make_job(checkpoint=CHECKPOINT, **contexts, **more), 0, images=images)

    return make


def trainer_of(pod: dict[str, Any]) -> dict[str, Any]:
    context: dict[str, Any] = pod["spec"]["containers"][0]["securityContext"]
    return context


def test_a_silent_template_is_restricted_but_for_the_images_own_user(build: Callable[..., dict[str, Any]]) -> None:
    assert list(violations(build())) == ["trainer: runAsNonRoot"]


@pytest.mark.parametrize(
    "contexts",
    [
        {"trainer": {"runAsUser": 1000}},
        {"pod": {"runAsUser": 1000}},
        {"pod": {"runAsNonRoot": True}},
        {"trainer": {"runAsNonRoot": True}},
    ],
)
def test_a_template_that_names_a_user_is_restricted(build: Callable[..., dict[str, Any]], contexts: Any) -> None:
    assert list(violations(build(**contexts))) == []


def test_a_template_that_wants_root_gets_it(build: Callable[..., dict[str, Any]]) -> None:
    pod = build(trainer={"runAsUser": 0})
    assert "runAsNonRoot" not in trainer_of(pod)
    assert "runAsNonRoot" not in pod["spec"]["securityContext"]
    assert {item["securityContext"]["runAsUser"] for item in pod["spec"]["initContainers"]} == {65532}


@pytest.mark.parametrize(
    "given",
    [
        {"privileged": True},
        {"capabilities": {"add": ["IPC_LOCK"]}},
        {"capabilities": {}},
        {"allowPrivilegeEscalation": True},
        {"seccompProfile": {"type": "Unconfined"}},
        {"runAsUser": 5, "runAsNonRoot": False},
        {"readOnlyRootFilesystem": True},
    ],
)
def test_what_the_template_says_of_the_trainer_is_kept(build: Callable[..., dict[str, Any]], given: Any) -> None:
    context = trainer_of(build(trainer=given))
    assert given.items() <= context.items()


def test_no_default_beside_which_the_api_server_refuses_the_template(build: Callable[..., dict[str, Any]]) -> None:
    assert trainer_of(build(trainer={"privileged": True})) == {"privileged": True}
    admin = trainer_of(build(trainer={"capabilities": {"add": ["SYS_ADMIN"]}}))
    assert "allowPrivilegeEscalation" not in admin


def test_trainer_and_sidecars_share_files(build: Callable[..., dict[str, Any]]) -> None:
    context = build()["spec"]["securityContext"]
    assert (context["fsGroup"], context["fsGroupChangePolicy"]) == (65532, "OnRootMismatch")
    pod = build(trainer={"runAsUser": 7, "runAsGroup": 8})
    assert pod["spec"]["securityContext"]["fsGroup"] == 8
    for item in pod["spec"]["initContainers"]:
        assert (item["securityContext"]["runAsUser"], item["securityContext"]["runAsGroup"]) == (7, 8)
    given = {"fsGroup": 5, "supplementalGroups": [6]}
    kept = build(pod=given)["spec"]["securityContext"]
    assert given.items() <= kept.items()
    assert "fsGroupChangePolicy" not in kept


def test_containers_of_the_templates_own_are_left_as_they_are(make_job: MakeJob, images: Images) -> None:
    other = {"name": "setup", "image": "busybox", "command": ["chown", "-R", "1", "/data"]}
    pod = build_pod(make_job(pod={"initContainers": [other]}), 0, images=images)
    assert pod["spec"]["initContainers"][-1] == other
