"""What a Pod object says of itself, whichever cluster it is in. Pure: dictionaries in, values out; nothing here raises."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sternpost_operator.manifests.owned import JOB_LABEL, SLOT_LABEL
from sternpost_operator.recovery.observed import PodPhase

EXCLUDED_ANNOTATION = "sternpost.dev/excluded-nodes"
"""On a Pod: names of the nodes that it was created to avoid, apart from what its template says itself."""

EAGLE_EYE_PORT = "eagle-eye"
RING_PORT = "ring"
"""Names of container ports."""

MAX_REASON = 1024
"""Characters."""


def parse_time(value: object) -> datetime | None:
    """An RFC 3339 time, or None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def at(seconds: float) -> datetime:
    """Unix seconds as an instant."""
    return datetime.fromtimestamp(seconds, UTC)


def mapping(value: object) -> dict[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def mappings(value: object) -> list[dict[str, Any]]:
    """The objects of a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def job_of(pod: object) -> str | None:
    """Name of the job that the Pod is labelled with."""
    name = mapping(mapping(mapping(pod).get("metadata")).get("labels")).get(JOB_LABEL)
    return name if isinstance(name, str) and name else None


def slot_of(pod: object) -> int | None:
    """The Pod's slot, or None if it has none."""
    metadata = mapping(mapping(pod).get("metadata"))
    slot = str(mapping(metadata.get("labels")).get(SLOT_LABEL, str(metadata.get("name")).rpartition("-")[2]))
    return int(slot) if slot.isascii() and slot.isdecimal() and len(slot) < 9 else None


def excluded_nodes(metadata: dict[str, Any]) -> tuple[str, ...]:
    """Names of the nodes that the Pod was created to avoid."""
    names = mapping(metadata.get("annotations")).get(EXCLUDED_ANNOTATION)
    return tuple(names.split(",")) if isinstance(names, str) and names else ()


def phase_of(status: dict[str, Any]) -> PodPhase:
    """The Pod's phase; Pending while it has none."""
    try:
        return PodPhase(str(status.get("phase")))
    except ValueError:
        return PodPhase.PENDING


def container_status(status: dict[str, Any], name: str, field: str = "containerStatuses") -> dict[str, Any]:
    """What is known of a container, maybe nothing."""
    return next((item for item in mappings(status.get(field)) if item.get("name") == name), {})


def condition(holder: dict[str, Any], kind: str) -> dict[str, Any]:
    """A condition of a status, maybe an empty one."""
    return next((item for item in mappings(holder.get("conditions")) if item.get("type") == kind), {})


def last_exit(container: dict[str, Any]) -> tuple[int | None, str]:
    """Exit code, -N for signal N, and the reason, of the run that ended last."""
    state, last = mapping(container.get("state")), mapping(container.get("lastState"))
    ended = mapping(state.get("terminated")) or mapping(last.get("terminated"))
    signal, code = ended.get("signal"), ended.get("exitCode")
    reason = str(ended.get("reason", "")) if ended and code != 0 else ""
    if isinstance(signal, int) and signal > 0:
        return -signal, reason
    return (code if isinstance(code, int) else None), reason


def reason_of(status: dict[str, Any], exit_reason: str) -> str:
    """Why the Pod is pending or failed, in words; empty where there is nothing to say."""
    if status.get("reason"):
        return joined(status.get("reason"), status.get("message"))
    scheduled = condition(status, "PodScheduled")
    if scheduled.get("status") == "False":
        return joined(scheduled.get("reason"), scheduled.get("message"))
    for container in mappings(status.get("initContainerStatuses")) + mappings(status.get("containerStatuses")):
        waiting = mapping(mapping(container.get("state")).get("waiting"))
        if waiting.get("message"):
            return joined(waiting.get("reason"), f"container {container.get('name')}: {waiting['message']}")
    return exit_reason


def joined(reason: object, message: object) -> str:
    """`REASON: MESSAGE`, or the reason alone."""
    return f"{reason}: {message}" if message else str(reason)
