"""Whatever is switched on and off, what Helm renders is whole."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from helm_chart import CHART, RefusedError, container_of, environment_of, find, helm, pod_templates, render

ALL_ON = {
    "nodeExclusion": {"enabled": True, "drain": True, "conditions": ["GpuLost=True"]},
    "metrics": {
        "serviceMonitor": {"enabled": True},
        "podMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
    },
}
MATRIX: dict[str, dict[str, Any]] = {
    "defaults": {},
    "all on": ALL_ON,
    "all off": {
        "crds": {"install": False},
        "memory": {"enabled": False},
        "rbac": {"create": False, "aggregate": False},
        "admissionPolicy": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "dashboards": {"enabled": False},
        "operator": {"podDisruptionBudget": {"enabled": False}},
    },
    "two namespaces": {"operator": {"watchNamespaces": ["team-a", "team-b"]}, **ALL_ON},
    "own Redis": {
        "redis": {"enabled": False, "external": {"url": "rediss://redis.example:6380/1", "existingSecret": "own"}}
    },
    "own Redis without a password": {"redis": {"enabled": False, "external": {"url": "redis://redis.example:6379/0"}}},
    "Redis without a claim": {"redis": {"persistence": {"enabled": False}, "existingSecret": "own"}},
    "placed": {
        component: {
            "nodeSelector": {"pool": "system"},
            "tolerations": [{"key": "a", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"},
                {
                    "maxSkew": 2,
                    "topologyKey": "host",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": {"own": "one"}},
                },
            ],
            "priorityClassName": "system-cluster-critical",
            "extraEnv": [{"name": "EXTRA", "value": "1"}],
            "podLabels": {"team": "infra"},
            "podAnnotations": {"note": "x"},
        }
        for component in ("operator", "memory", "redis")
    },
}


@pytest.fixture(params=MATRIX, scope="module")
def objects(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return render(MATRIX[request.param])


def test_every_object_has_its_place_and_its_labels(objects: list[dict[str, Any]]) -> None:
    identities = Counter(
        (each["apiVersion"], each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"])
        for each in objects
    )
    assert [identity for identity, count in identities.items() if count > 1] == []
    for each in objects:
        if each["kind"] == "CustomResourceDefinition" or each["kind"].startswith("ValidatingAdmissionPolicy"):
            continue
        assert each["metadata"]["labels"]["app.kubernetes.io/instance"] == "sternpost"
        is_of_the_cluster = each["kind"] in {"ClusterRole", "ClusterRoleBinding"}
        assert ("namespace" not in each["metadata"]) == is_of_the_cluster


def test_selectors_select_their_pods_and_no_others(objects: list[dict[str, Any]]) -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in pod_templates(objects).items()}
    for each in objects:
        selector = (
            each.get("spec", {}).get("selector") if each["kind"] in {"Service", "Deployment", "StatefulSet"} else None
        )
        if selector is None:
            continue
        wanted = selector.get("matchLabels", selector)
        selected = [name for name, of_pod in labels.items() if wanted.items() <= of_pod.items()]
        assert selected == [each["metadata"]["name"]]


def test_what_a_pod_mounts_or_reads_is_there(objects: list[dict[str, Any]]) -> None:
    there = {(each["kind"], each["metadata"]["name"]) for each in objects}
    for name, pod in pod_templates(objects).items():
        spec = pod["spec"]
        if "serviceAccountName" in spec:
            assert ("ServiceAccount", spec["serviceAccountName"]) in there
        mounted = {mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]}
        claimed = {"data"} if name.endswith("-redis") else set()
        assert mounted == {volume["name"] for volume in spec["volumes"]} | claimed
        for volume in spec["volumes"]:
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in there
        for secret in secrets_of(pod):
            assert secret == "own" or ("Secret", secret) in there


def secrets_of(pod: dict[str, Any]) -> set[str]:
    """Names of the Secrets that a Pod cannot start without."""
    volumes = {volume["secret"]["secretName"] for volume in pod["spec"]["volumes"] if "secret" in volume}
    variables = {
        source["secretKeyRef"]["name"]
        for container in pod["spec"]["containers"]
        for source in environment_of(container).values()
        if isinstance(source, dict) and "secretKeyRef" in source
    }
    return volumes | variables


def test_bindings_bind_roles_and_accounts_that_are_there(objects: list[dict[str, Any]]) -> None:
    roles = {(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in objects}
    for each in objects:
        if not each["kind"].endswith("RoleBinding"):
            continue
        reference = each["roleRef"]
        namespace = each["metadata"].get("namespace") if reference["kind"] == "Role" else None
        assert (reference["kind"], namespace, reference["name"]) in roles
        for subject in each["subjects"]:
            assert ("ServiceAccount", subject["namespace"], subject["name"]) in roles


def test_lint() -> None:
    helm("lint", "--strict", CHART)


@pytest.mark.parametrize(
    ("release", "prefix"), [("sternpost", "sternpost"), ("prod", "prod-sternpost"), ("sternpost-b", "sternpost-b")]
)
def test_objects_are_named_after_the_release(release: str, prefix: str) -> None:
    objects = render({}, release=release)
    find(objects, "Deployment", f"{prefix}-operator")
    url = environment_of(container_of(objects, f"{prefix}-operator"))["STERNPOST_MEMORY_URL"]
    assert url == f"http://{prefix}-memory.sternpost-system.svc:8765"


def test_two_releases_share_no_object_of_the_cluster_that_can_be_named_apart() -> None:
    one, two = (
        {
            (each["kind"], each["metadata"]["name"])
            for each in render({}, release=release)
            if "namespace" not in each["metadata"]
        }
        for release in ("sternpost", "other")
    )
    assert {kind for kind, _ in one & two} == {
        "CustomResourceDefinition",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    }


def test_placement_and_extras_reach_every_component() -> None:
    objects = render(MATRIX["placed"])
    for component in ("operator", "memory", "redis"):
        pod = pod_templates(objects)[f"sternpost-{component}"]
        own = {"app.kubernetes.io/component": component, "app.kubernetes.io/instance": "sternpost"}
        zone, host = pod["spec"]["topologySpreadConstraints"]
        assert own.items() <= zone["labelSelector"]["matchLabels"].items()
        assert host["labelSelector"]["matchLabels"]["own"] == "one"
        assert pod["spec"]["nodeSelector"] == {"pool": "system"}
        assert pod["spec"]["tolerations"] == [{"key": "a", "operator": "Exists"}]
        assert pod["spec"]["affinity"] == {"nodeAffinity": {}}
        assert pod["spec"]["priorityClassName"] == "system-cluster-critical"
        assert pod["metadata"]["labels"]["team"] == "infra"
        assert pod["metadata"]["annotations"]["note"] == "x"
        assert environment_of(pod["spec"]["containers"][0])["EXTRA"] == "1"


def test_the_operator_is_told_of_the_exclusion_of_nodes() -> None:
    off = environment_of(container_of(render(), "sternpost-operator"))
    assert (off["STERNPOST_NODE_CORDON"], off["STERNPOST_NODE_DRAIN"]) == ("false", "false")
    assert "STERNPOST_NODE_CONDITIONS" not in off
    on = environment_of(container_of(render(ALL_ON), "sternpost-operator"))
    assert (on["STERNPOST_NODE_CORDON"], on["STERNPOST_NODE_DRAIN"]) == ("true", "true")
    assert on["STERNPOST_NODE_CONDITIONS"] == "GpuLost=True"


def test_draining_without_cordoning_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"nodeExclusion\.drain: only a cordoned node is drained"):
        render({"nodeExclusion": {"drain": True}})


def test_without_the_memory_service_nothing_of_it_is_left() -> None:
    objects = render({"memory": {"enabled": False}})
    assert [each["metadata"]["name"] for each in objects if "memory" in each["metadata"]["name"]] == []
    assert [each["metadata"]["name"] for each in objects if "redis" in each["metadata"]["name"]] == []
    assert "STERNPOST_MEMORY_URL" not in environment_of(container_of(objects, "sternpost-operator"))
    assert "MEMORY_URL" not in environment_of(container_of(objects, "sternpost-test"))


def test_the_operator_shows_the_memory_service_a_token_made_for_it() -> None:
    objects = render({"memory": {"audience": "mine"}})
    for name in ("sternpost-operator", "sternpost-test"):
        (volume,) = [each for each in pod_templates(objects)[name]["spec"]["volumes"] if each["name"] == "memory-token"]
        (source,) = volume["projected"]["sources"]
        assert source["serviceAccountToken"]["audience"] == "mine"
    assert "--audience=mine" in container_of(objects, "sternpost-memory")["args"]


def test_a_release_without_any_redis_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"redis\.external\.url: the memory service needs a Redis"):
        render({"redis": {"enabled": False}})


def test_grants_of_the_release_and_of_the_values() -> None:
    objects = render({"memory": {"grants": {"system:serviceaccount:agents:reader": ["default"]}}})
    grants = json.loads(find(objects, "ConfigMap", "sternpost-memory-grants")["data"]["grants.json"])
    assert grants == {
        "system:serviceaccount:sternpost-system:sternpost-operator": ["*"],
        "system:serviceaccount:sternpost-system:sternpost-test": ["sternpost-test"],
        "system:serviceaccount:agents:reader": ["default"],
        "*": ["{namespace}"],
    }
