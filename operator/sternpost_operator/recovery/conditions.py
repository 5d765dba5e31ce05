"""Conditions: what a person should know of the job beyond its phase."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from sternpost_operator.recovery import hardware, incidents, tracking
from sternpost_operator.recovery.avoidance import avoided
from sternpost_operator.recovery.exclusion import excluded
from sternpost_operator.recovery.gang import is_assignable
from sternpost_operator.recovery.observed import PodPhase, PodView
from sternpost_operator.recovery.view import View
from sternpost_operator.resources.training_job_status import Condition, Phase, TrainingJobStatus

MAX_MESSAGE = 4096
MAX_NAMED = 20
_UNSCHEDULABLE = "Unschedulable"


def put(
    status: TrainingJobStatus, now: datetime, kind: str, value: bool, reason: str, *, message: str = ""
) -> TrainingJobStatus:
    """Set a condition; the time of its last transition stays unless the value changes."""
    text: Literal["True", "False"] = "True" if value else "False"
    before = next((each for each in status.conditions if each.type == kind), None)
    since = before.last_transition_time if before is not None and before.status == text else now
    new = Condition(type=kind, status=text, reason=reason, message=message[:MAX_MESSAGE], last_transition_time=since)
    if new == before:
        return status
    others = [each for each in status.conditions if each.type != kind]
    return status.model_copy(update={"conditions": sorted([*others, new], key=lambda each: each.type)})


def has(status: TrainingJobStatus, kind: str) -> bool:
    """Whether the condition is there, true or not."""
    return any(each.type == kind for each in status.conditions)


def update(view: View, status: TrainingJobStatus) -> TrainingJobStatus:
    """Bring the conditions of a job that has not ended up to date."""
    status = _schedulable(view, status)
    status = _spares(view, status)
    status = _progress(view, status)
    status = _checkpoints(view, status)
    status = _hardware(view, status)
    status = _drains(view, status)
    suspended = status.phase is Phase.SUSPENDED
    if suspended or has(status, "Suspended"):
        message = "Set spec.suspend to false to resume." if suspended else ""
        status = put(status, view.now, "Suspended", suspended, "Suspended" if suspended else "Resumed", message=message)
    return status


def incidents_dropped(status: TrainingJobStatus, now: datetime) -> TrainingJobStatus:
    """Say that incidents were lost, before they are."""
    if not incidents.overflows(status):
        return status
    return put(
        status,
        now,
        "IncidentsDropped",
        True,
        "MemoryServiceSilent",
        message="The memory service has not taken the incidents of this job and the oldest were dropped; "
        "see to it that the service at spec.memory.url answers.",
    )


def _schedulable(view: View, status: TrainingJobStatus) -> TrainingJobStatus:
    unscheduled = [pod for pod in view.observed.pods if _is_unschedulable(pod)]
    waits = view.run(status) is None and status.phase is not Phase.SUSPENDED and not view.job.spec.suspend
    able = sum(is_assignable(view, status, pod) or _may_start(pod) for pod in view.observed.pods)
    if not waits or not unscheduled or able >= view.job.spec.min_workers:
        if not has(status, "Schedulable") and view.run(status) is None:
            return status
        return put(status, view.now, "Schedulable", True, "PodsScheduled")
    spec = view.job.spec
    need = f"{spec.min_workers} workers" if spec.min_workers != 1 else "1 worker"
    message = f"The job needs {need} and Pod {unscheduled[0].name} finds no node ({unscheduled[0].reason})."
    others = sorted(set(avoided(view, status)) - set(excluded(status)))
    if others:
        shown = ", ".join(others[:MAX_NAMED]) + (f" and {len(others) - MAX_NAMED} more" if others[MAX_NAMED:] else "")
        message += f" Nodes with bad hardware, or about to go: {shown}."
    if status.excluded_nodes:
        nodes = ", ".join(f"{each.node} (until {each.until:%Y-%m-%d %H:%M:%S} UTC)" for each in status.excluded_nodes)
        message += (
            f" Excluded nodes: {nodes}. The job waits until an exclusion ends or a node is added; "
            "spec.recovery.excludeSeconds says how long exclusions last."
        )
        return put(status, view.now, "Schedulable", False, "NodesExcluded", message=message)
    return put(
        status, view.now, "Schedulable", False, "Unschedulable", message=f"{message} The job waits for capacity."
    )


def _is_unschedulable(pod: PodView) -> bool:
    return (
        pod.phase is PodPhase.PENDING
        and pod.node is None
        and pod.deleting_since is None
        and pod.reason.startswith(_UNSCHEDULABLE)
    )


def _may_start(pod: PodView) -> bool:
    """Whether the Pod has a node, or has not been refused one."""
    return (
        pod.phase in (PodPhase.PENDING, PodPhase.RUNNING)
        and not pod.ready
        and pod.deleting_since is None
        and not _is_unschedulable(pod)
    )


def _spares(view: View, status: TrainingJobStatus) -> TrainingJobStatus:
    if status.phase is Phase.SUSPENDED or view.job.spec.suspend:
        return status  # there are none because there shall be none
    wanted, ready = view.job.spec.spares, status.workers.spares_ready
    if wanted == 0 and not has(status, "SparesReady"):
        return status
    if ready >= wanted:
        return put(
            status, view.now, "SparesReady", True, "SparesReady", message=f"{ready} of {wanted} spares are ready."
        )
    message = f"{ready} of {wanted} spares are ready. The job runs without them; a failure may take longer to mend."
    return put(status, view.now, "SparesReady", False, "SparesMissing", message=message)


def _checkpoints(view: View, status: TrainingJobStatus) -> TrainingJobStatus:
    report = view.report(status)
    if report is None:
        return status
    problem = report.checkpoint.problem
    if problem:
        message = (
            f"{problem[: MAX_MESSAGE // 2]}. The training goes on and older generations stay valid; saves are tried again. "
            "See to the storage (space, rights, reachability), or to spec.checkpoint."
        )
        return put(status, view.now, "CheckpointsFailing", True, "StorageRefused", message=message)
    if has(status, "CheckpointsFailing"):
        return put(status, view.now, "CheckpointsFailing", False, "Stored")
    return status


def _hardware(view: View, status: TrainingJobStatus) -> TrainingJobStatus:
    """Say where node conditions are not believed."""
    if hardware.is_implausible(view.observed.nodes):
        bad = sum(bool(node.conditions) for node in view.observed.nodes)
        message = (
            f"{bad} of {len(view.observed.nodes)} nodes have a condition that counts as evidence of bad hardware. As that is "
            "most of them, none is left because of it; see to what sets the condition, or to the operator's list of conditions."
        )
        return put(status, view.now, "HardwareEvidenceIgnored", True, "MostNodesAffected", message=message)
    if has(status, "HardwareEvidenceIgnored"):
        return put(status, view.now, "HardwareEvidenceIgnored", False, "Believed")
    return status


def _drains(view: View, status: TrainingJobStatus) -> TrainingJobStatus:
    """Say where other Pods cannot be moved off a node that this job excludes."""
    blocked = {node: why for node in excluded(status) if (why := view.observed.drains.get(node))}
    if blocked:
        message = " ".join(f"Node {node}: {why}." for node, why in sorted(blocked.items()))
        return put(status, view.now, "NodeDrained", False, "DrainBlocked", message=message)
    if has(status, "NodeDrained"):
        return put(status, view.now, "NodeDrained", True, "NothingBlocked")
    return status


def _progress(view: View, status: TrainingJobStatus) -> TrainingJobStatus:
    if tracking.reports_no_steps(view, status):
        message = (
            "The trainer serves no step metrics. The job runs; add StepReporter to the script to see its progress."
        )
        return put(status, view.now, "ProgressUnknown", True, "NoStepMetrics", message=message)
    if has(status, "ProgressUnknown") and tracking.has_made_steps(status):
        return put(status, view.now, "ProgressUnknown", False, "StepsReported")
    return status
