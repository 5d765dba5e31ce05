from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_operator.resources.location import format_location
from sternpost_operator.resources.mount_paths import is_below
from sternpost_operator.resources.template import TemplateError, check_template, require_template


def template(trainer: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    container = {"name": "trainer", "image": "i", "command": ["true"], **(trainer or {})}
    return {"spec": {"containers": [container], **spec}}


def problems(value: dict[str, Any], **arguments: Any) -> list[str]:
    return [f"{format_location(found.location)}: {found.message}" for found in check_template(value, **arguments)]


def test_a_plain_template_is_fine() -> None:
    assert problems(template(), shared_memory="1Gi") == []


def test_fields_that_sternpost_does_not_know_are_left_to_the_api_server() -> None:
    assert problems(template({"lifecycle": {}, "novel": 1}, runtimeClassName="gvisor", novel=[1])) == []


SIDECAR = {"name": "log", "image": "i"}

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "a template needs spec"),
    ({"spec": 3}, "spec: a template needs spec"),
    ({"spec": {}}, "spec: needs containers"),
    ({"spec": {"containers": []}}, "spec.containers: needs containers"),
    ({"spec": {"containers": "x"}}, "spec.containers: must be a list"),
    ({"spec": {"containers": [SIDECAR]}}, "spec.containers: no container is named trainer, which runs the training; there is"),
    ({**template(), "kind": "Pod"}, "kind: unknown field"),
    ({**template(), "metadata": {"name": "x"}}, "metadata.name: a worker's metadata may have labels"),
    ({**template(), "metadata": {"labels": {"sternpost.dev/job": "x"}}}, "are Sternpost's own"),
    ({**template(), "metadata": {"annotations": {"a": 1}}}, "metadata.annotations.a: is 1; must be a string, put it in quotes"),
    (template(restartPolicy="Never"), "spec.restartPolicy: is 'Never'; must be OnFailure"),
    (template(hostNetwork=True), "spec.hostNetwork: must be left out"),
    (template(nodeName="n"), "spec.nodeName: must be left out"),
    (template(hostname="h"), "spec.hostname: must be left out"),
    (template(subdomain="s"), "spec.subdomain: must be left out"),
    (template(terminationGracePeriodSeconds="5"), "spec.terminationGracePeriodSeconds: must be a whole number"),
    (template(terminationGracePeriodSeconds=34), "spec.terminationGracePeriodSeconds: is 34; must be at least 35 or left out"),
    (template(serviceAccount=3), "spec.serviceAccount: is 3; must be the name of a ServiceAccount"),
    (template(serviceAccountName="Bad_Name"), "spec.serviceAccountName: is 'Bad_Name'; must be the name"),
    (template(initContainers=[{**SIDECAR, "restartPolicy": "Sometimes"}]), "initContainers[0].restartPolicy: is"),
    (template({"resources": {"requests": {"cpu": "1 core"}}}), "resources.requests.cpu: is '1 core'; must be a quantity"),
    (template(volumes=[{"name": "v", "emptyDir": {"sizeLimit": True}}]), "emptyDir.sizeLimit: is true; must be a quantity"),
    (template(overhead={"cpu": []}), "spec.overhead.cpu: is a list; must be a quantity"),
    (template(securityContext=[]), "spec.securityContext: must be an object"),
    (template(affinity={"nodeAffinity": []}), "spec.affinity.nodeAffinity: must be an object"),
    (template(volumes=[{"name": "sternpost-shm"}]), "spec.volumes[0].name: names that begin with sternpost-"),
    (template(volumes=[{"name": "a"}, {"name": "a"}]), "spec.volumes[1].name: there is another volume 'a'"),
    (template(volumes=[{}]), "spec.volumes[0]: must be an object with a name"),
    (template(initContainers=[{"name": "sternpost-x"}]), "spec.initContainers[0].name: names that begin with sternpost-"),
    (template(initContainers=[{"name": "trainer"}]), "trainer must be one of spec.containers"),
    (template(initContainers=[SIDECAR, SIDECAR]), "spec.initContainers[1].name: there is another container 'log'"),
    (template(containers=[{"image": "x"}]), "spec.containers[0]: must be an object with a name"),
    (template({"command": []}), "spec.containers[0]: needs command"),
    (template({"command": "python3"}), "spec.containers[0].command: must be a list of strings"),
    (template({"args": ["--steps", 3]}), "spec.containers[0].args[1]: is 3; must be a string, put it in quotes"),
    (template({"env": [{"name": "WORLD_SIZE", "value": "1"}]}), "spec.containers[0].env[0].name: WORLD_SIZE is set by Sternpost"),
    (template({"env": [{"name": "PET_NNODES"}]}), "PET_NNODES is set by Sternpost"),
    (template({"env": [{"name": "STERNPOST_X"}]}), "STERNPOST_X is set by Sternpost"),
    (template({"env": [{"value": "1"}]}), "spec.containers[0].env[0]: a variable needs a name"),
    (template({"env": [{"name": "A", "value": 1}]}), "spec.containers[0].env[0].value: is 1; must be a string, put it in quotes"),
    (template({"env": [{"name": "A", "value": "1", "valueFrom": {}}]}), "give either value or valueFrom"),
    (template({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}), "no volume 'v'; spec.volumes has none"),
    (template({"volumeMounts": [{"name": "v"}]}, volumes=[{"name": "v"}]), "a mount needs mountPath"),
    (template({"volumeMounts": [{"name": "v", "mountPath": "/x/../sternpost/shm"}]}), "/sternpost is Sternpost's own"),
    (template({"volumeMounts": [{"name": "v", "mountPath": "/v"}] * 2}), "something else is mounted at /v"),
    (template({"ports": [{"containerPort": 9470}]}), "9470 is Sternpost's own, for eagle-eye"),
    (template({"ports": [{"containerPort": 29463}]}), "for the rendezvous of the ranks"),
    (template({"ports": [{"containerPort": 80, "name": "rendezvous"}]}), "the port name 'rendezvous' is Sternpost's own"),
    (template({"ports": [{"containerPort": "80"}]}), "a port needs containerPort"),
    (template({"restartPolicy": "Always"}), "spec.containers[0].restartPolicy: must be left out"),
    (template({"resources": {"limits": {"memory": "1Gi"}}}), "spec.containers[0].resources.limits.memory: is 1Gi, not more than"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "words"), REFUSED)
def test_what_is_refused(value: dict[str, Any], words: str) -> None:
    found = problems(value, shared_memory="1Gi")
    assert any(words in problem for problem in found), found


@pytest.mark.parametrize(
    "quantity",
    [1, 0.5, "1", "1.5", ".5", "1.", "+2", "-2", "100m", "5n", "7u", "1k", "2Ki", "3Ei", "1e3", "1E-2", "4E", None],
)
def test_all_quantities_that_kubernetes_reads(quantity: Any) -> None:
    assert problems(template({"resources": {"limits": {"cpu": quantity}}})) == []


def test_metrics_ports_are_taken_for_each_rank_only() -> None:
    value = template({"ports": [{"containerPort": 9401}]})
    assert problems(value, ranks_per_worker=1) == []
    assert "for the ranks' metrics" in problems(value, ranks_per_worker=2)[0]


def test_other_containers_may_have_variables_of_any_name() -> None:
    sidecar = {**SIDECAR, "env": [{"name": "RANK", "value": "1"}]}
    assert problems(template(initContainers=[sidecar])) == []


def test_requiring() -> None:
    require_template(template())
    with pytest.raises(
        TemplateError, match=r"spec\.hostNetwork: must be left out.*; spec\.containers\[0\]: needs command"
    ):
        require_template(template({"command": None}, hostNetwork=True))


@pytest.mark.parametrize(
    ("path", "folder", "inside"),
    [
        ("/a/b", "/a", True),
        ("/a", "/a", True),
        ("/ab", "/a", False),
        ("/x/../a/b", "/a", True),
        ("//a//b/", "/a/", True),
        ("a/b", "/a", True),
        ("/../a", "/a", True),
        ("/a/..", "/a", False),
        ("/anything", "/", True),
    ],
)
def test_paths(path: str, folder: str, inside: bool) -> None:
    assert is_below(path, folder) is inside


def test_locations() -> None:
    assert format_location(("spec", "containers", 0, "name")) == "spec.containers[0].name"
    assert format_location(("metadata", "labels", "a.b/c")) == "metadata.labels['a.b/c']"
    assert format_location(()) == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["name", "spec", "containers", "env", "ports", "volumes", "affinity", "command", "resources", "limits"]
            ),
            children,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON)
@settings(deadline=None, max_examples=150)
def test_no_template_raises(value: Any) -> None:
    if isinstance(value, dict):
        check_template(value, ranks_per_worker=2, shared_memory="1Gi")
    check_template({"spec": value}, shared_memory="1Gi")
    check_template({"spec": {"containers": [{"name": "trainer", "command": ["x"], "env": value, "ports": value}]}})
