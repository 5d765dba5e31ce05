"""Who may do what."""

from __future__ import annotations

from typing import Any

import pytest
from helm_chart import find, render

from sternpost_operator.manifests.access import build_role
from sternpost_operator.manifests.companions import owned_objects
from sternpost_operator.resources.training_job import TrainingJob

NODE_EXCLUSION = {"nodeExclusion": {"enabled": True, "drain": True}}
JOB = TrainingJob.model_validate(
    {
        "apiVersion": "sternpost.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "gpt", "namespace": "team-a", "uid": "1"},
        "spec": {
            "workers": 1,
            "template": {"spec": {"containers": [{"name": "trainer", "image": "t", "command": ["python3"]}]}},
        },
    }
)
PLURALS = {
    "ServiceAccount": "serviceaccounts",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "Secret": "secrets",
    "Service": "services",
    "NetworkPolicy": "networkpolicies",
}
Right = tuple[str, str, str]


def rules(objects: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (each["metadata"]["name"], rule)
        for each in objects
        if each["kind"] in {"Role", "ClusterRole"}
        for rule in each["rules"]
    ]


def rights(role: dict[str, Any], *, unnamed_only: bool = False) -> set[Right]:
    """(group, resource, verb), all combinations."""
    return {
        (group, resource, verb)
        for rule in role["rules"]
        if not (unnamed_only and rule.get("resourceNames"))
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.mark.parametrize("values", [{}, NODE_EXCLUSION, {"operator": {"watchNamespaces": ["team-a"]}}])
def test_nobody_may_do_everything(values: dict[str, Any]) -> None:
    for name, rule in rules(render(values)):
        for field in ("apiGroups", "resources", "verbs"):
            assert "*" not in rule[field], name
        assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"]), name


def test_the_operator_holds_all_that_it_grants_to_a_job() -> None:
    """Otherwise the API server would refuse the Role: nobody may grant more than they hold."""
    operator = rights(find(render({}), "ClusterRole", "sternpost-operator"), unnamed_only=True)
    assert rights(build_role(JOB)) <= operator


def test_the_operator_never_lists_secrets_or_whatever_else_is_not_its_own() -> None:
    operator = rights(find(render({}), "ClusterRole", "sternpost-operator"))
    for group, resource in [
        ("", "secrets"),
        ("", "serviceaccounts"),
        ("", "services"),
        ("", "configmaps"),
        ("rbac.authorization.k8s.io", "roles"),
        ("rbac.authorization.k8s.io", "rolebindings"),
        ("networking.k8s.io", "networkpolicies"),
    ]:
        for verb in ("list", "watch", "update", "delete", "deletecollection"):
            assert (group, resource, verb) not in operator
    assert ("", "secrets", "patch") not in operator


def test_nodes_are_read_only_unless_their_exclusion_is_opted_into() -> None:
    def on_nodes(values: dict[str, Any]) -> set[str]:
        return {
            verb
            for _, rule in rules(render(values))
            if set(rule["resources"]) & {"nodes", "pods/eviction"}
            for verb in rule["verbs"]
        }

    assert on_nodes({}) == {"get", "list", "watch"}
    assert on_nodes({"nodeExclusion": {"enabled": True}}) == {"get", "list", "watch", "patch"}
    assert on_nodes(NODE_EXCLUSION) == {"get", "list", "watch", "patch", "create"}


def test_every_object_that_the_operator_applies_for_a_job_may_be_applied() -> None:
    operator = rights(find(render({}), "ClusterRole", "sternpost-operator"), unnamed_only=True)
    for manifest in owned_objects(JOB, token="t" * 32, operator_namespace="sternpost-system"):
        group = manifest["apiVersion"].rpartition("/")[0]
        verbs = ("get", "create") if manifest["kind"] == "Secret" else ("create", "patch")
        for verb in verbs:
            assert (group, PLURALS[manifest["kind"]], verb) in operator


def test_unless_asked_for_nothing_is_granted_on_nodes() -> None:
    kinds = [(each["kind"], each["metadata"]["name"]) for each in render()]
    assert ("ClusterRole", "sternpost-operator-node-exclusion") not in kinds


def test_with_namespaces_given_the_operator_has_no_rights_in_others() -> None:
    objects = render({"operator": {"watchNamespaces": ["team-a", "team-b"]}})
    assert rights(find(objects, "ClusterRole", "sternpost-operator")) == {
        ("", "nodes", verb) for verb in ("get", "list", "watch")
    }
    everywhere = rights(find(render({}), "ClusterRole", "sternpost-operator"))
    for namespace in ("team-a", "team-b"):
        role = find(objects, "Role", "sternpost-operator-jobs", namespace)
        assert rights(role) == {right for right in everywhere if right[1] != "nodes"}
        binding = find(objects, "RoleBinding", "sternpost-operator-jobs", namespace)
        assert binding["subjects"] == [
            {"kind": "ServiceAccount", "name": "sternpost-operator", "namespace": "sternpost-system"}
        ]


def test_the_memory_service_may_review_tokens_and_nothing_else() -> None:
    objects = render({})
    assert rights(find(objects, "ClusterRole", "sternpost-memory")) == {
        ("authentication.k8s.io", "tokenreviews", "create")
    }
    bound = [
        each["roleRef"]["name"]
        for each in objects
        if each["kind"].endswith("RoleBinding")
        and any(subject["name"] == "sternpost-memory" for subject in each["subjects"])
    ]
    assert bound == ["sternpost-memory"]


def test_people_view_all_and_edit_jobs_alone() -> None:
    objects = render({})
    viewer, editor = (find(objects, "ClusterRole", f"sternpost-{name}") for name in ("viewer", "editor"))
    assert {verb for _, _, verb in rights(viewer)} == {"get", "list", "watch"}
    assert {resource for _, resource, _ in rights(editor)} == {"trainingjobs"}
    aggregated = "rbac.authorization.k8s.io/aggregate-to-"
    assert {label for label in viewer["metadata"]["labels"] if aggregated in label} == {
        f"{aggregated}{role}" for role in ("view", "edit", "admin")
    }
    assert {label for label in editor["metadata"]["labels"] if aggregated in label} == {
        f"{aggregated}{role}" for role in ("edit", "admin")
    }


def test_the_admission_policy_is_in_the_chart_and_can_be_left_out() -> None:
    policy = find(render({}), "ValidatingAdmissionPolicy", "sternpost-anomalies")
    assert policy["spec"]["failurePolicy"] == "Fail"
    left = [each["kind"] for each in render({"admissionPolicy": {"enabled": False}})]
    assert not any(kind.startswith("ValidatingAdmissionPolicy") for kind in left)
