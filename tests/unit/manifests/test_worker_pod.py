from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_operator.manifests.images import Images
from sternpost_operator.manifests.worker_pod import build_pod
from sternpost_operator.resources.manifest import load_job
from sternpost_operator.resources.template import TemplateError
from sternpost_operator.resources.training_job import TrainingJob

MakeJob = Callable[..., TrainingJob]
CHECKPOINT = {"storage": "s3://bucket/gpt", "sharedMemory": "2Gi"}
IMAGES = Images.of_version("1.2.3")


def container(pod: dict[str, Any], name: str) -> dict[str, Any]:
    both = [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]
    return next(item for item in both if item["name"] == name)


def environment(item: dict[str, Any]) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in item["env"]}


def mounts(item: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["mountPath"] for entry in item["volumeMounts"]}


def test_identity(make_job: MakeJob, images: Images) -> None:
    job = make_job()
    pod = build_pod(job, 2, images=images)
    assert pod["metadata"]["name"] == "gpt-2"
    assert pod["metadata"]["namespace"] == "team"
    labels = pod["metadata"]["labels"]
    assert (labels["sternpost.dev/job"], labels["sternpost.dev/slot"]) == ("gpt", "2")
    (owner,) = pod["metadata"]["ownerReferences"]
    assert owner == {
        "apiVersion": "sternpost.dev/v1alpha1",
        "kind": "TrainingJob",
        "name": "gpt",
        "uid": "job-uid",
        "controller": True,
        "blockOwnerDeletion": True,
    }
    assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == ("gpt-2", "gpt-workers")
    assert pod["spec"]["restartPolicy"] == "OnFailure"


def test_the_example_for_a_cluster_has_a_pod_that_mounts_its_claim(images: Images) -> None:
    example = Path(__file__).parents[3] / "examples" / "gpt"
    claim = yaml.safe_load((example / "claim.yaml").read_text())
    pod = build_pod(load_job(example / "cluster.yaml"), 0, images=images)
    claims = [volume.get("persistentVolumeClaim") for volume in pod["spec"]["volumes"]]
    assert {"claimName": claim["metadata"]["name"]} in claims


@pytest.mark.parametrize("slot", [-1, 3])
def test_slots_that_the_job_does_not_have(make_job: MakeJob, images: Images, slot: int) -> None:
    with pytest.raises(ValueError, match="slots 0 to 2"):
        build_pod(make_job(), slot, images=images)


def test_the_trainers_command_is_started_by_the_launcher(make_job: MakeJob, images: Images) -> None:
    trainer = container(build_pod(make_job(trainer={"args": ["--x"]}), 0, images=images), "trainer")
    assert trainer["command"] == ["python3", "/sternpost/bin/launcher.pyz", "--", "python3", "train.py"]
    assert trainer["args"] == ["--x"]
    assert mounts(trainer) == {
        "sternpost-bin": "/sternpost/bin",
        "sternpost-control": "/sternpost/control",
        "sternpost-shm": "/sternpost/shm",
    }
    assert trainer["volumeMounts"][0]["readOnly"] is True


def test_containers_come_in_the_order_of_the_contract(make_job: MakeJob, images: Images) -> None:
    job = make_job(checkpoint=CHECKPOINT, pod={"initContainers": [{"name": "load", "image": "i"}]})
    pod = build_pod(job, 0, images=images)
    names = [item["name"] for item in pod["spec"]["initContainers"]]
    assert names == ["sternpost-launcher", "sternpost-eagle-eye", "sternpost-checkpoint", "load"]
    launcher, eagle_eye, checkpoint, _ = pod["spec"]["initContainers"]
    assert launcher["command"] == ["python3", "-m", "sternpost_launcher", "install", "/sternpost/bin/launcher.pyz"]
    assert "restartPolicy" not in launcher
    assert eagle_eye["restartPolicy"] == checkpoint["restartPolicy"] == "Always"
    assert eagle_eye["command"] == ["python3", "-m", "sternpost_eagle_eye", "sidecar"]
    assert checkpoint["command"] == ["python3", "-m", "sternpost_checkpoint", "sidecar"]
    assert [item["image"] for item in (launcher, eagle_eye, checkpoint)] == [
        "sternpost/eagle-eye:1.2.3",
        "sternpost/eagle-eye:1.2.3",
        "sternpost/checkpoint:1.2.3",
    ]


def test_without_checkpoints_there_is_no_such_sidecar(make_job: MakeJob, images: Images) -> None:
    pod = build_pod(make_job(), 0, images=images)
    assert [item["name"] for item in pod["spec"]["initContainers"]] == ["sternpost-launcher", "sternpost-eagle-eye"]
    shm = next(volume for volume in pod["spec"]["volumes"] if volume["name"] == "sternpost-shm")
    assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": "64Mi"}


def test_volumes(make_job: MakeJob, images: Images) -> None:
    pod = build_pod(make_job(checkpoint=CHECKPOINT), 0, images=images)
    volumes = {volume.pop("name"): volume for volume in pod["spec"]["volumes"]}
    assert volumes["sternpost-bin"] == volumes["sternpost-control"] == {"emptyDir": {}}
    assert volumes["sternpost-shm"] == {"emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}}
    assert volumes["sternpost-token"]["secret"]["secretName"] == "gpt-token"
    assert set(volumes) == {
        "sternpost-bin",
        "sternpost-control",
        "sternpost-shm",
        "sternpost-token",
        "sternpost-ring",
        "sternpost-scratch",
        "sternpost-control-plane",
    }


def test_only_the_checkpoint_sidecar_holds_the_keys_of_the_ring(make_job: MakeJob, images: Images) -> None:
    pod = build_pod(make_job(checkpoint=CHECKPOINT), 0, images=images)
    for item in [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]:
        own = item["name"] == "sternpost-checkpoint"
        assert ("sternpost-ring" in mounts(item)) == own
        assert [environment(item).get(f"STERNPOST_{name}") for name in ("PORT_RING", "RING_KEYS")] == (
            ["9472", "/sternpost/ring"] if own else [None, None]
        )
    ring = next(volume for volume in pod["spec"]["volumes"] if volume["name"] == "sternpost-ring")
    assert ring["secret"]["secretName"] == "gpt-ring"
    assert [key["key"] for key in ring["secret"]["items"]] == ["ca.crt", "tls.crt", "tls.key", "tokens"]


def test_without_copies_at_peers_there_is_no_ring(make_job: MakeJob, images: Images) -> None:
    pod = build_pod(make_job(checkpoint={**CHECKPOINT, "peerReplication": False}), 0, images=images)
    assert "sternpost-ring" not in [volume["name"] for volume in pod["spec"]["volumes"]]
    assert "STERNPOST_PORT_RING" not in environment(container(pod, "sternpost-checkpoint"))
    limits = [
        container(build_pod(make_job(checkpoint={**CHECKPOINT, **more}), 0, images=images), "sternpost-checkpoint")[
            "resources"
        ]["limits"]["memory"]
        for more in ({"peerReplication": False}, {}, {"peerMemory": "512Mi"})
    ]
    assert limits == ["5120Mi", "7168Mi", "5632Mi"]


def test_only_eagle_eye_holds_the_token_and_the_account(make_job: MakeJob, images: Images) -> None:
    pod = build_pod(make_job(checkpoint=CHECKPOINT), 0, images=images)
    for item in [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]:
        secret = {"sternpost-token", "sternpost-control-plane"} & set(mounts(item))
        assert bool(secret) == (item["name"] == "sternpost-eagle-eye")
    assert pod["spec"]["serviceAccountName"] == "gpt-sidecar"
    assert pod["spec"]["automountServiceAccountToken"] is False


def test_environment_of_every_container(make_job: MakeJob, images: Images) -> None:
    job = make_job(checkpoint=CHECKPOINT, ranksPerWorker=2, recovery={"graceSeconds": 2.5})
    pod = build_pod(job, 0, images=images)
    for item in [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]:
        found = environment(item)
        assert found["STERNPOST_JOB"] == "gpt"
        assert found["STERNPOST_JOB_UID"] == "job-uid"
        assert found["STERNPOST_NAMESPACE"] == "team"
        assert found["STERNPOST_POD"]["fieldRef"]["fieldPath"] == "metadata.name"
        assert found["STERNPOST_POD_UID"]["fieldRef"]["fieldPath"] == "metadata.uid"
        assert found["STERNPOST_NODE"]["fieldRef"]["fieldPath"] == "spec.nodeName"
        assert found["STERNPOST_CONTROL_DIR"] == "/sternpost/control"
        assert found["STERNPOST_SHM_DIR"] == "/sternpost/shm"
        assert (found["STERNPOST_PORT_METRICS_0"], found["STERNPOST_PORT_METRICS_1"]) == ("9400", "9401")
        assert "STERNPOST_PORT_METRICS_2" not in found
        assert found["STERNPOST_PORT_EAGLE_EYE"] == "9470"
        assert found["STERNPOST_PORT_CHECKPOINT"] == "9471"
        assert found["STERNPOST_PORT_RENDEZVOUS"] == "29400"
        assert found["STERNPOST_RANKS_PER_WORKER"] == "2"
        assert found.get("STERNPOST_GRACE_SECONDS") == (None if item["name"] == "sternpost-launcher" else "2.5")
        own = {
            "sternpost-eagle-eye": {"CONTROL_PLANE", "TOKEN_FILE", "EAGLE_EYE"},
            "sternpost-checkpoint": {"CHECKPOINT"},
        }
        for name in ("CONTROL_PLANE", "TOKEN_FILE", "EAGLE_EYE", "CHECKPOINT"):
            assert (f"STERNPOST_{name}" in found) == (name in own.get(item["name"], ())), (item["name"], name)
    assert json.loads(environment(container(pod, "sternpost-checkpoint"))["STERNPOST_CHECKPOINT"]) == {
        "storage": "s3://bucket/gpt",
        "sharedMemory": "2Gi",
        "policy": "lossless",
        "prefer": "balanced",
        "maxChain": 8,
        "peerReplication": True,
        "keep": 3,
    }
    policy = json.loads(environment(container(pod, "sternpost-eagle-eye"))["STERNPOST_EAGLE_EYE"])
    assert policy["intervalSeconds"] == 1
    assert environment(container(pod, "sternpost-eagle-eye"))["STERNPOST_TOKEN_FILE"] == "/sternpost/token/token"


def test_ports_are_named_and_unique(make_job: MakeJob, images: Images) -> None:
    job = make_job(ranksPerWorker=2, checkpoint=CHECKPOINT, trainer={"ports": [{"name": "web", "containerPort": 80}]})
    pod = build_pod(job, 0, images=images)
    named = {
        port["name"]: port["containerPort"]
        for item in [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]
        for port in item.get("ports", [])
    }
    assert named == {
        "metrics-0": 9400, "metrics-1": 9401, "eagle-eye": 9470, "checkpoint": 9471, "ring": 9472, "rendezvous": 29400, "web": 80,
    }  # fmt: skip


def test_a_local_control_plane_needs_no_account(make_job: MakeJob, images: Images) -> None:
    job = make_job(checkpoint={"storage": "file://./checkpoints"})
    pod = build_pod(job, 0, images=images, control_plane="file:///state/objects")
    assert environment(container(pod, "sternpost-eagle-eye"))["STERNPOST_CONTROL_PLANE"] == "file:///state/objects"
    assert "serviceAccountName" not in pod["spec"]
    assert "sternpost-control-plane" not in [volume["name"] for volume in pod["spec"]["volumes"]]


def test_the_time_to_end_covers_grace_and_flush(make_job: MakeJob, images: Images) -> None:
    def seconds(**arguments: Any) -> int:
        return build_pod(make_job(**arguments), 0, images=images)["spec"]["terminationGracePeriodSeconds"]

    assert seconds(recovery={"graceSeconds": 9.5}) == 15
    assert seconds(recovery={"graceSeconds": 10}, checkpoint=CHECKPOINT) == 45
    assert seconds(pod={"terminationGracePeriodSeconds": 300}) == 300
    with pytest.raises(TemplateError, match=r"spec\.terminationGracePeriodSeconds: is 44; must be at least 45"):
        seconds(pod={"terminationGracePeriodSeconds": 44}, checkpoint=CHECKPOINT)


def test_sidecars_are_confined(make_job: MakeJob, images: Images) -> None:
    pod = build_pod(make_job(checkpoint=CHECKPOINT), 0, images=images)
    for item in pod["spec"]["initContainers"]:
        context = item["securityContext"]
        assert context["runAsNonRoot"] is context["readOnlyRootFilesystem"] is True
        assert context["runAsUser"] > 0
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert item["resources"]["requests"]
        assert item["resources"]["limits"]["memory"]


@pytest.mark.parametrize(
    ("trainer", "pod", "user"),
    [
        ({}, {}, 65532),
        ({"runAsUser": 1000}, {"runAsUser": 7}, 1000),
        ({}, {"runAsUser": 7}, 7),
        ({"runAsUser": 0}, {}, 65532),
    ],
)
def test_sidecars_share_files_with_the_trainer(
    make_job: MakeJob, images: Images, trainer: dict[str, int], pod: dict[str, int], user: int
) -> None:
    job = make_job(trainer={"securityContext": trainer}, pod={"securityContext": pod})
    assert container(build_pod(job, 0, images=images), "sternpost-eagle-eye")["securityContext"]["runAsUser"] == user


class TestStorage:
    def test_a_folder_must_be_on_a_volume(self, make_job: MakeJob, images: Images) -> None:
        with pytest.raises(TemplateError, match="on no volume of the container trainer"):
            build_pod(make_job(checkpoint={"storage": "file:///data/x"}), 0, images=images)
        with pytest.raises(TemplateError, match="is relative"):
            build_pod(make_job(checkpoint={"storage": "file://./x"}), 0, images=images)

    def test_the_sidecar_mounts_it_too(self, make_job: MakeJob, images: Images) -> None:
        mount = {"name": "data", "mountPath": "/data", "subPath": "team"}
        other = {"name": "other", "mountPath": "/other"}
        job = make_job(
            checkpoint={"storage": "file:///data/x"},
            trainer={"volumeMounts": [mount, other]},
            pod={"volumes": [{"name": "data", "nfs": {}}, {"name": "other", "emptyDir": {}}]},
        )
        sidecar = container(build_pod(job, 0, images=images), "sternpost-checkpoint")
        assert sidecar["volumeMounts"][4:] == [mount]

    def test_credentials_reach_the_sidecar(self, make_job: MakeJob, images: Images) -> None:
        key = {"name": "AWS_SECRET_ACCESS_KEY", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "key"}}}
        file = {"name": "GOOGLE_APPLICATION_CREDENTIALS", "value": "/keys/gcs.json"}
        job = make_job(
            checkpoint=CHECKPOINT,
            trainer={
                "env": [key, file, {"name": "OTHER", "value": "1"}],
                "envFrom": [{"secretRef": {"name": "more"}}],
                "volumeMounts": [{"name": "keys", "mountPath": "/keys", "readOnly": True}],
            },
            pod={"volumes": [{"name": "keys", "secret": {"secretName": "gcs"}}]},
        )
        sidecar = container(build_pod(job, 0, images=images), "sternpost-checkpoint")
        assert sidecar["env"][-2:] == [key, file]
        assert sidecar["envFrom"] == [{"secretRef": {"name": "more"}}]
        assert mounts(sidecar)["keys"] == "/keys"


def test_the_nodes_it_avoids_stand_on_the_pod(make_job: MakeJob, images: Images) -> None:
    pod = build_pod(make_job(), 0, ["node-b", "node-a", "node-b"], images=images)
    assert pod["metadata"]["annotations"] == {"sternpost.dev/excluded-nodes": "node-a,node-b"}
    assert "annotations" not in build_pod(make_job(), 0, images=images)["metadata"]


def test_who_manages_the_pod_is_for_the_template_to_say(make_job: MakeJob, images: Images) -> None:
    job = make_job()
    job.spec.template["metadata"] = {"labels": {"app.kubernetes.io/managed-by": "argo", "a": "b"}}
    labels = build_pod(job, 0, images=images)["metadata"]["labels"]
    assert labels == {
        "app.kubernetes.io/managed-by": "argo", "a": "b", "sternpost.dev/job": "gpt", "sternpost.dev/slot": "0",
    }  # fmt: skip


def test_a_conflicting_template_is_refused(make_job: MakeJob, images: Images) -> None:
    with pytest.raises(TemplateError, match=r"spec\.hostNetwork"):
        build_pod(make_job(pod={"hostNetwork": True}), 0, images=images)
    with pytest.raises(TemplateError, match="RANK is set by Sternpost"):
        build_pod(make_job(trainer={"env": [{"name": "RANK", "value": "0"}]}), 0, images=images)
    small = make_job(trainer={"resources": {"limits": {"memory": "1Gi"}}}, checkpoint=CHECKPOINT)
    with pytest.raises(TemplateError, match=r"resources\.limits\.memory"):
        build_pod(small, 0, images=images)


NAMES = st.text("abcdefgh", min_size=1, max_size=6)
FREE = st.dictionaries(
    NAMES.map(lambda name: f"x{name}"), st.integers() | NAMES | st.lists(NAMES, max_size=2), max_size=3
)
TERMS = st.lists(
    st.fixed_dictionaries(
        {}, optional={"matchExpressions": st.lists(FREE, max_size=2), "matchFields": st.lists(FREE, max_size=1)}
    ),
    min_size=1,
    max_size=3,
)


@st.composite
def containers(draw: st.DrawFn, name: str, volumes: list[str]) -> dict[str, Any]:
    item: dict[str, Any] = {"name": name, "image": draw(NAMES), **draw(FREE)}
    item["command"] = draw(st.lists(st.text(max_size=5), min_size=1, max_size=3))
    if draw(st.booleans()):
        item["args"] = draw(st.lists(st.text(max_size=5), max_size=2))
        item["env"] = [{"name": f"X{key}", "value": key} for key in draw(st.lists(NAMES, unique=True, max_size=3))]
        item["ports"] = [
            {"containerPort": port} for port in draw(st.lists(st.integers(1, 9000), unique=True, max_size=2))
        ]
        item["volumeMounts"] = [{"name": volume, "mountPath": f"/mnt/{volume}"} for volume in volumes]
    return item


@st.composite
def templates(draw: st.DrawFn) -> dict[str, Any]:
    volumes = draw(st.lists(NAMES, unique=True, max_size=3))
    names = draw(st.lists(NAMES, unique=True, max_size=3))
    split = draw(st.integers(0, len(names)))
    spec: dict[str, Any] = {
        **draw(FREE),
        "containers": [draw(containers(name, volumes)) for name in [*names[:split], "trainer"]],
        "initContainers": [draw(containers(name, volumes)) for name in names[split:]],
        "volumes": [{"name": name, **draw(FREE)} for name in volumes],
    }
    if draw(st.booleans()):
        required = {"nodeSelectorTerms": draw(TERMS)}
        spec["affinity"] = {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required, **draw(FREE)},
            "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": draw(st.lists(FREE, max_size=2))},
            "podAffinity": draw(FREE),
        }
    return {
        "metadata": {"labels": draw(st.dictionaries(NAMES, NAMES, max_size=2)), "annotations": {"a": "b"}},
        "spec": spec,
    }


def assert_kept(given_value: Any, found: Any, path: str = "template") -> None:
    """Every field is there with its value; a list may have gained entries, but kept its own in their order."""
    if isinstance(given_value, dict):
        for key, value in given_value.items():
            assert key in found, f"{path}.{key}"
            assert_kept(value, found[key], f"{path}.{key}")
    elif isinstance(given_value, list):
        remaining = iter(found)
        for index, value in enumerate(given_value):
            assert any(_kept(value, candidate) for candidate in remaining), f"{path}[{index}]"
    else:
        assert given_value == found, path


def _kept(given_value: Any, found: Any) -> bool:
    try:
        assert_kept(given_value, found)
    except (AssertionError, TypeError):
        return False
    return True


@given(templates(), st.lists(NAMES, max_size=3), st.booleans(), st.integers(1, 3))
@settings(deadline=None, max_examples=60)
def test_nothing_of_the_template_is_lost(
    template: dict[str, Any], excluded: list[str], checkpoint: bool, ranks: int
) -> None:
    spec = {
        "workers": 3,
        "ranksPerWorker": ranks,
        "template": template,
        "checkpoint": CHECKPOINT if checkpoint else None,
    }
    job = TrainingJob.model_validate({"metadata": {"name": "gpt", "uid": "u"}, "spec": spec})
    before = copy.deepcopy(job)
    pod = build_pod(job, 1, excluded, images=IMAGES)
    assert_kept(template, pod)
    assert job == before
    # The same again, whatever the order of what is excluded; and nothing of it is shared with the job.
    assert json.dumps(build_pod(job, 1, reversed(excluded), images=IMAGES)) == json.dumps(pod)
    names = [item["name"] for item in [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]]
    assert len(names) == len(set(names))
    pod["spec"]["containers"].clear()
    pod["metadata"]["annotations"].clear()
    assert job == before


def test_pods_of_two_slots_differ_in_their_names_only(make_job: MakeJob, images: Images) -> None:
    first, second = (json.dumps(build_pod(make_job(), slot, images=images)) for slot in (0, 1))
    assert first.replace("gpt-0", "gpt-1").replace('slot": "0"', 'slot": "1"') == second
