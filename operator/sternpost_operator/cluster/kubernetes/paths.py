"""Where objects are in the Kubernetes API. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from sternpost_operator.resources.base import GROUP, VERSION


@dataclass(frozen=True)
class Kind:
    """A resource of the API."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As in an object's `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Of the collection, or of one object."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        place = f"/namespaces/{quote(namespace, safe='')}" if self.namespaced and namespace else ""
        parts = [self.plural, *(quote(part, safe="") for part in (name, subresource) if part)]
        return f"{root}{place}/{'/'.join(parts)}"


TRAINING_JOBS = Kind(GROUP, VERSION, "trainingjobs", "TrainingJob")
ATTEMPTS = Kind(GROUP, VERSION, "attempts", "Attempt")
ANOMALIES = Kind(GROUP, VERSION, "anomalies", "Anomaly")
PODS = Kind("", "v1", "pods", "Pod")
NODES = Kind("", "v1", "nodes", "Node", namespaced=False)
SECRETS = Kind("", "v1", "secrets", "Secret")
CONFIG_MAPS = Kind("", "v1", "configmaps", "ConfigMap")
EVENTS = Kind("", "v1", "events", "Event")
SERVICES = Kind("", "v1", "services", "Service")
SERVICE_ACCOUNTS = Kind("", "v1", "serviceaccounts", "ServiceAccount")
ROLES = Kind("rbac.authorization.k8s.io", "v1", "roles", "Role")
ROLE_BINDINGS = Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
NETWORK_POLICIES = Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
LEASES = Kind("coordination.k8s.io", "v1", "leases", "Lease")

_BY_TYPE = {
    (kind.api_version, kind.kind): kind
    for kind in (
        TRAINING_JOBS,
        ATTEMPTS,
        ANOMALIES,
        PODS,
        NODES,
        SECRETS,
        CONFIG_MAPS,
        EVENTS,
        SERVICES,
        SERVICE_ACCOUNTS,
        ROLES,
        ROLE_BINDINGS,
        NETWORK_POLICIES,
        LEASES,
    )
}


def kind_of(manifest: dict[str, object]) -> Kind:
    """The resource that an object is one of; raises `ValueError` for one that the operator has nothing to do with."""
    found = _BY_TYPE.get((str(manifest.get("apiVersion")), str(manifest.get("kind"))))
    if found is None:
        raise ValueError(f"no object of the operator: {manifest.get('apiVersion')} {manifest.get('kind')}")
    return found
