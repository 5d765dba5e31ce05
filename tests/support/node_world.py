"""Nodes and Pods as the API server has them, for the node keeper: dictionaries, virtual time, nothing clever."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

from sternpost_operator.cluster.kubernetes.errors import ApiError, NotFoundError, VersionConflictError
from sternpost_operator.cluster.kubernetes.paths import Kind
from sternpost_operator.node_keeper.keeper import KeeperSettings, NodeKeeper, kept_node

START = datetime(2025, 1, 1, tzinfo=UTC)
HARDWARE = {"GpuUnhealthy": "True", "KernelDeadlock": "True"}
BUDGET = "Cannot evict pod as it would violate the pod's disruption budget."


class FakeApi:
    """The requests that the keeper sends; `answers` are errors to raise next, by verb."""

    def __init__(self) -> None:
        self.nodes: dict[str, dict[str, Any]] = {}
        self.pods: dict[tuple[str, str], dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.evicted: list[str] = []
        self.guarded: set[str] = set()
        """Pods that a budget protects."""
        self.down = False
        self.meddler: Any = None
        """Called once, between the next read of a node and its patch."""
        self.versions = 0

    async def get(self, kind: Kind, namespace: str | None, name: str) -> dict[str, Any]:
        self._count("get", kind)
        if name not in self.nodes:
            raise NotFoundError(404, f"no {name}")
        found = copy.deepcopy(self.nodes[name])
        if self.meddler is not None:
            meddler, self.meddler = self.meddler, None
            meddler()
        return found

    async def list(self, kind: Kind, namespace: str | None, query: dict[str, str]) -> dict[str, Any]:
        self._count("list", kind)
        node = query["fieldSelector"].removeprefix("spec.nodeName=")
        return {"items": [copy.deepcopy(pod) for pod in self.pods.values() if pod["spec"]["nodeName"] == node]}

    async def merge(self, kind: Kind, namespace: str | None, name: str, patch: dict[str, Any]) -> dict[str, Any]:
        self._count("patch", kind)
        node = self.nodes[name]
        if patch["metadata"].pop("resourceVersion") != node["metadata"]["resourceVersion"]:
            raise VersionConflictError(409, "changed")
        _merge(node, patch)
        self._renew(node)
        return node

    async def create(self, kind: Kind, namespace: str | None, manifest: dict[str, Any]) -> dict[str, Any]:
        self._count("create", kind)
        self.events.append(manifest)
        return manifest

    async def post(
        self, kind: Kind, namespace: str | None, name: str, subresource: str, body: dict[str, Any]
    ) -> dict[str, Any]:
        self._count(subresource, kind)
        assert namespace is not None
        pod = self.pods.get((namespace, name))
        if pod is None:
            raise NotFoundError(404, f"no {name}")
        if pod["metadata"]["uid"] != body["deleteOptions"]["preconditions"]["uid"]:
            raise VersionConflictError(409, "another Pod")
        if name in self.guarded:
            raise ApiError(429, f"POST {name}: {BUDGET}")
        self.evicted.append(name)
        del self.pods[namespace, name]
        return {}

    def _count(self, verb: str, kind: Kind) -> None:
        self.requests.append(f"{verb} {kind.plural}")
        if self.down:
            raise ConnectionError("no answer")

    def _renew(self, node: dict[str, Any]) -> None:
        self.versions += 1
        node["metadata"]["resourceVersion"] = str(self.versions)


class World:
    """A cluster's nodes with a keeper that looks after them."""

    def __init__(self, nodes: int = 20, **settings: Any) -> None:
        self.api = FakeApi()
        self.settings = KeeperSettings(**{"cordon": True, "uncordon_seconds": 600, **settings})
        self.clock = 0.0
        self.held: set[str] = set()
        self.cordons: list[str] = []
        self.drains: list[str] = []
        for number in range(nodes):
            name = f"node-{number}"
            manifest: dict[str, Any] = {
                "metadata": {"name": name, "uid": f"uid-{number}", "annotations": {"owner": "somebody"}},
                "spec": {},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            }
            self.api.nodes[name] = manifest
            self.api._renew(manifest)
        self.restart()

    @property
    def now(self) -> datetime:
        return START + timedelta(seconds=self.clock)

    def restart(self) -> None:
        """The operator is a new process."""
        self.keeper = NodeKeeper(self.api, self.settings, HARDWARE, self, clock=lambda: self.clock)  # type: ignore[arg-type]

    def node_cordoned(self, reason: str) -> None:
        self.cordons.append(reason)

    def drain_ended(self, result: str) -> None:
        self.drains.append(result)

    def spec(self, name: str) -> dict[str, Any]:
        return self.api.nodes[name]["spec"]

    def condition(self, name: str, kind: str = "GpuUnhealthy", *, bad: bool = True) -> None:
        node = self.api.nodes[name]
        conditions = [each for each in node["status"]["conditions"] if each["type"] != kind]
        since = self.now.strftime("%Y-%m-%dT%H:%M:%SZ")
        conditions.append({"type": kind, "status": str(bad), "reason": "Xid79", "lastTransitionTime": since})
        node["status"]["conditions"] = conditions
        self.api._renew(node)

    def cordon(self, name: str) -> None:
        """As `kubectl cordon` does."""
        self.spec(name)["unschedulable"] = True
        self.api._renew(self.api.nodes[name])

    def uncordon(self, name: str) -> None:
        """As `kubectl uncordon` does."""
        self.spec(name).pop("unschedulable", None)
        self.api._renew(self.api.nodes[name])

    def pod(self, name: str, node: str, *, owner: str | None = "ReplicaSet", **metadata: Any) -> None:
        owners = [{"apiVersion": "apps/v1", "kind": owner, "name": "o", "controller": True}] if owner else []
        if owner == "TrainingJob":
            owners[0]["apiVersion"] = "sternpost.dev/v1alpha1"
        self.api.pods["default", name] = {
            "metadata": {
                "name": name,
                "namespace": "default",
                "uid": f"uid-{name}",
                "ownerReferences": owners,
                **metadata,
            },
            "spec": {"nodeName": node},
            "status": {"phase": "Running"},
        }

    def kept(self) -> list[Any]:
        return [kept_node(copy.deepcopy(manifest), HARDWARE) for manifest in self.api.nodes.values()]

    async def reconcile(self, nodes: list[Any] | None = None) -> Any:
        return await self.keeper.reconcile(self.kept() if nodes is None else nodes, self.held, self.now)

    @property
    def cordoned(self) -> set[str]:
        return {name for name, node in self.api.nodes.items() if node["spec"].get("unschedulable")}

    @property
    def tainted(self) -> set[str]:
        return {
            name
            for name, node in self.api.nodes.items()
            if any(taint["key"] == "sternpost.dev/unhealthy" for taint in node["spec"].get("taints") or [])
        }

    def reasons(self) -> list[str]:
        return [event["reason"] for event in self.api.events]


def _merge(target: dict[str, Any], patch: dict[str, Any]) -> None:
    """RFC 7386."""
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        elif isinstance(value, dict):
            _merge(target.setdefault(name, {}), value)
        else:
            target[name] = value
