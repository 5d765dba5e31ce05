"""Every Pod of the chart may run in a namespace that enforces the restricted Pod Security Standard."""

from __future__ import annotations

from typing import Any

import pytest
from helm_chart import pod_templates, render

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
PODS = pod_templates(render({}))


def violations(spec: dict[str, Any]) -> list[str]:
    """What the restricted standard forbids (https://kubernetes.io/docs/concepts/security/pod-security-standards/)."""
    found = [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    found += [f"volume {volume['name']}" for volume in spec["volumes"] if not (set(volume) - {"name"}) <= VOLUMES]
    pod = spec.get("securityContext", {})
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        own = container.get("securityContext", {})
        both = {**pod, **own}
        checks = {
            "privileged": not own.get("privileged"),
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "capabilities": own.get("capabilities") == {"drop": ["ALL"]},
            "runAsNonRoot": both.get("runAsNonRoot") is True,
            "runAsUser": both.get("runAsUser") != 0,
            "seccompProfile": both.get("seccompProfile", {}).get("type") in {"RuntimeDefault", "Localhost"},
            "hostPort": not any("hostPort" in port for port in container.get("ports", [])),
        }
        found += [f"{container['name']}: {name}" for name, holds in checks.items() if not holds]
    return found


def test_all_pods_are_looked_at() -> None:
    assert set(PODS) == {"sternpost-operator", "sternpost-memory", "sternpost-redis", "sternpost-test"}


@pytest.mark.parametrize("name", PODS)
def test_restricted(name: str) -> None:
    assert violations(PODS[name]["spec"]) == []


@pytest.mark.parametrize("name", PODS)
def test_beyond_the_standard(name: str) -> None:
    spec = PODS[name]["spec"]
    for container in spec["containers"]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]
        assert "cpu" not in container["resources"]["limits"]  # throttled, a service misses its deadlines
    assert spec["enableServiceLinks"] is False


def test_only_who_asks_the_api_server_has_a_token_for_it() -> None:
    assert PODS["sternpost-redis"]["spec"]["automountServiceAccountToken"] is False


def test_openshift_may_choose_the_user() -> None:
    objects = render({"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}})
    for pod in pod_templates(objects).values():
        assert pod["spec"]["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
