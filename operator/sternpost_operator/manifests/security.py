"""Who the containers of a worker Pod run as, and what they may do.

Sternpost's own are always confined. What the template says of its containers is kept; where it is silent, the Pod and its
trainer get what the Pod Security Standard "restricted" asks for, with one exception: most training images run as root, and
whether one can run as somebody else is for its owner to say. So `runAsNonRoot` is set only where the template names a user.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

SecurityContext = dict[str, Any]

NOBODY = 65_532

_RUNTIME_DEFAULT = {"type": "RuntimeDefault"}


@dataclass(frozen=True)
class Identity:
    """User and group of Sternpost's containers, never root."""

    user: int
    group: int

    @classmethod
    def of(cls, pod_spec: Mapping[str, Any], trainer: Mapping[str, Any]) -> Identity:
        """The trainer's own where the template tells them: then they share files most easily."""
        user = _first(pod_spec, trainer, "runAsUser") or NOBODY
        return cls(user, _first(pod_spec, trainer, "runAsGroup") or user)


def sidecar_context(identity: Identity) -> SecurityContext:
    """Of a container of Sternpost's."""
    return {
        "runAsNonRoot": True,
        "runAsUser": identity.user,
        "runAsGroup": identity.group,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": _RUNTIME_DEFAULT,
    }


def pod_context(pod_spec: Mapping[str, Any], identity: Identity) -> SecurityContext:
    """The template's for the whole Pod, and what it leaves open."""
    given = pod_spec.get("securityContext") or {}
    defaults: SecurityContext = {"seccompProfile": _RUNTIME_DEFAULT}
    if "fsGroup" not in given:
        # The sidecars can write on the trainer's volumes; one that is so already is not gone through again.
        defaults |= {"fsGroup": identity.group, "fsGroupChangePolicy": "OnRootMismatch"}
    return {**defaults, **given}


def trainer_context(pod_spec: Mapping[str, Any], trainer: Mapping[str, Any]) -> SecurityContext:
    """The template's for the trainer, and what it leaves open."""
    given = trainer.get("securityContext") or {}
    defaults: SecurityContext = {}
    if not given.get("privileged"):
        defaults["capabilities"] = {"drop": ["ALL"]}
        if not {"SYS_ADMIN", "CAP_SYS_ADMIN"} & set(_added(given)):
            defaults["allowPrivilegeEscalation"] = False  # the API server refuses it beside these two
    if _first(pod_spec, trainer, "runAsUser") and "runAsNonRoot" not in (pod_spec.get("securityContext") or {}):
        defaults["runAsNonRoot"] = True
    return {**defaults, **given}


def _added(context: Mapping[str, Any]) -> list[str]:
    capabilities = context.get("capabilities")
    added = capabilities.get("add") if isinstance(capabilities, Mapping) else None
    return [name for name in added if isinstance(name, str)] if isinstance(added, list) else []


def _first(pod_spec: Mapping[str, Any], trainer: Mapping[str, Any], field: str) -> int | None:
    """What counts for the trainer: its own context comes before the Pod's."""
    return next(_found(pod_spec, trainer, field), None)


def _found(pod_spec: Mapping[str, Any], trainer: Mapping[str, Any], field: str) -> Iterator[int]:
    for context in (trainer.get("securityContext"), pod_spec.get("securityContext")):
        value = (context or {}).get(field)
        if isinstance(value, int) and not isinstance(value, bool):
            yield value
