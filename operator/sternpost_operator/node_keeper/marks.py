"""What Sternpost writes on a node, and what that says. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]

PREFIX = "sternpost.dev/"
TAINT = f"{PREFIX}unhealthy"
EFFECT = "NoSchedule"
_CORDONED_AT = f"{PREFIX}cordoned-at"
_CORDONED_BY = f"{PREFIX}cordoned-by"
_REASON = f"{PREFIX}cordon-reason"
_EVIDENCE = f"{PREFIX}cordon-evidence"
_GONE_SINCE = f"{PREFIX}evidence-gone-since"
_OVERRULED = f"{PREFIX}cordon-overruled"
OWNER = "sternpost-operator"


@dataclass(frozen=True)
class Marks:
    """Sternpost's own annotations of a node. Without any, the node is none of its business."""

    cordoned_at: datetime | None = None
    """None: if the node is cordoned, others did it."""
    reason: str = ""
    evidence: frozenset[str] = frozenset()
    """The conditions, as `TYPE=STATUS`, that it was cordoned for."""
    gone_since: datetime | None = None
    """Since when there is no evidence any more."""
    overruled: frozenset[str] = frozenset()
    """The conditions that people have dealt with in their own way: nobody is cordoned for them again."""

    @property
    def ours(self) -> bool:
        """Whether Sternpost cordoned the node."""
        return self.cordoned_at is not None


def read(annotations: Mapping[str, object]) -> Marks:
    """The marks in a node's annotations. What is damaged counts as not there: then the cordon is somebody else's."""
    at = _time(annotations.get(_CORDONED_AT))
    return Marks(
        cordoned_at=at if annotations.get(_CORDONED_BY) == OWNER else None,
        reason=str(annotations.get(_REASON) or ""),
        evidence=_names(annotations.get(_EVIDENCE)),
        gone_since=_time(annotations.get(_GONE_SINCE)),
        overruled=_names(annotations.get(_OVERRULED)),
    )


def write(marks: Marks) -> dict[str, str | None]:
    """The annotations as a merge patch has them: None removes."""
    return {
        _CORDONED_BY: OWNER if marks.ours else None,
        _CORDONED_AT: _text(marks.cordoned_at),
        _REASON: marks.reason or None,
        _EVIDENCE: ",".join(sorted(marks.evidence)) or None,
        _GONE_SINCE: _text(marks.gone_since),
        _OVERRULED: ",".join(sorted(marks.overruled)) or None,
    }


def patch(manifest: Json, before: Marks, after: Marks) -> Json:
    """The merge patch that brings a node from `before` to `after`, valid for exactly this version of it.

    A cordon that others have undone, or changed, is not restored and not undone: only Sternpost's taint goes.
    """
    metadata, spec = manifest.get("metadata") or {}, manifest.get("spec") or {}
    annotations = metadata.get("annotations") or {}
    changed = {
        name: value
        for name, value in write(after).items()
        if value != annotations.get(name) and (value is not None or name in annotations)
    }
    taints = spec.get("taints") or []
    wanted = [taint for taint in taints if taint.get("key") != TAINT]
    new_spec: Json = {}
    if after.ours:
        wanted.append({"key": TAINT, "effect": EFFECT})
        new_spec["unschedulable"] = True
    elif before.ours and not after.overruled:
        new_spec["unschedulable"] = None
    if before.ours != after.ours:
        new_spec["taints"] = wanted or None
    else:
        new_spec = {}
    result: Json = {"metadata": {"resourceVersion": metadata.get("resourceVersion"), "annotations": changed}}
    return {**result, "spec": new_spec} if new_spec else result


def is_tainted(spec: Mapping[str, Any]) -> bool:
    """Whether the node has Sternpost's taint."""
    return any(taint.get("key") == TAINT and taint.get("effect") == EFFECT for taint in spec.get("taints") or [])


def _names(value: object) -> frozenset[str]:
    return frozenset(name for name in value.split(",") if name) if isinstance(value, str) else frozenset()


def _time(value: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None else None


def _text(value: datetime | None) -> str | None:
    return None if value is None else value.astimezone(UTC).isoformat()
