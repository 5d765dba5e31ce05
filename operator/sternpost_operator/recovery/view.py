"""`View`: a job and what was observed of it, with the questions that every decision asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from sternpost_operator.recovery import hardware, leaving
from sternpost_operator.recovery.leaving import Leaving
from sternpost_operator.recovery.observed import NodeCondition, NodeView, Observed, PodPhase, PodView
from sternpost_operator.resources.attempt import AttemptAction, AttemptSpec, AttemptWorker
from sternpost_operator.resources.progress import LauncherState, ProgressReport, WorkerReport
from sternpost_operator.resources.training_job import RecoveryPolicy, TrainingJob
from sternpost_operator.resources.training_job_status import TrainingJobStatus


@dataclass(frozen=True)
class View:
    """One observation, seen at `now`."""

    job: TrainingJob
    observed: Observed
    now: datetime

    @property
    def policy(self) -> RecoveryPolicy:
        """The job's recovery policy."""
        return self.job.spec.recovery

    @cached_property
    def pods(self) -> dict[str, PodView]:
        """Pods by name."""
        return {pod.name: pod for pod in self.observed.pods}

    @cached_property
    def nodes(self) -> dict[str, NodeView]:
        """Nodes by name."""
        return {node.name: node for node in self.observed.nodes}

    @cached_property
    def bad_nodes(self) -> Mapping[str, NodeCondition]:
        """Nodes whose own conditions say that their hardware is bad, with that condition."""
        return hardware.bad_nodes(self.observed.nodes)

    @cached_property
    def leaving_nodes(self) -> Mapping[str, Leaving]:
        """Nodes that announced, to Pods of this job, that they are about to go."""
        # The template may hold whatever the API server's schema lets through.
        pod_spec = self.job.spec.template.get("spec") or {}
        tolerations = [each for each in pod_spec.get("tolerations") or [] if isinstance(each, dict)]
        found = ((node.name, leaving.of_node(node, tolerations, self.now)) for node in self.observed.nodes)
        return {name: each for name, each in found if each is not None}

    def leaving(self, pod: PodView) -> Leaving | None:
        """What is announced of the Pod or its node."""
        of_node = self.leaving_nodes.get(pod.node) if pod.node else None
        return leaving.of_pod(pod, of_node, self.policy.grace_seconds)

    @property
    def attempt(self) -> AttemptSpec | None:
        """The Attempt object, if it is this very job's: one of a deleted job of the same name counts for nothing."""
        attempt = self.observed.attempt
        return attempt if attempt is not None and attempt.job_uid == self.job.metadata.uid else None

    def run(self, status: TrainingJobStatus) -> AttemptSpec | None:
        """The Attempt object, if it is the current attempt and told to run; what it assigns is what counts."""
        attempt = self.attempt
        if attempt is None or attempt.id != status.attempt.id or attempt.action is not AttemptAction.RUN:
            return None
        return attempt

    def previous_workers(self) -> list[AttemptWorker]:
        """Who was which worker last, also before a hold."""
        attempt = self.attempt
        if attempt is None:
            return []
        return attempt.workers or attempt.previous_workers

    def report(self, status: TrainingJobStatus) -> ProgressReport | None:
        """Worker 0's answer, if it is about the current attempt. Any other is refused."""
        report = self.observed.progress
        return report if report is not None and status.attempt.id and report.attempt == status.attempt.id else None

    def newest_report(self, status: TrainingJobStatus) -> ProgressReport | None:
        """Like `report`, or the last one there was of the current attempt."""
        last = self.observed.last_progress
        current = self.report(status)
        if current is None and last is not None and status.attempt.id and last.attempt == status.attempt.id:
            return last
        return current

    def worker_reports(self, status: TrainingJobStatus, run: AttemptSpec) -> dict[int, WorkerReport]:
        """Reports of the current attempt's workers by index, each from the very Pod that is that worker."""
        report = self.report(status)
        if report is None:
            return {}
        pods = {worker.index: worker.pod for worker in run.workers}
        return {
            each.index: each
            for each in report.workers
            if each.index is not None and pods.get(each.index) == each.pod and each.attempt == run.id
        }

    def heard_at(self, status: TrainingJobStatus, run: AttemptSpec) -> dict[int, datetime]:
        """When worker 0 last heard of each worker, at whatever attempt its launcher is."""
        report = self.report(status)
        if report is None:
            return {}
        pods = {worker.index: worker.pod for worker in run.workers}
        return {
            each.index: each.seen_at
            for each in report.workers
            if each.index is not None and pods.get(each.index) == each.pod
        }

    def node_gone(self, name: str) -> bool:
        """Whether there is no such node any more."""
        return name not in self.nodes

    def node_ready(self, name: str) -> bool:
        """Whether the node is there and ready."""
        node = self.nodes.get(name)
        return node is not None and node.ready

    def node_out_of_service(self, name: str) -> bool:
        """Whether the node does not answer, and somebody who knows says that it is shut down."""
        node = self.nodes.get(name)
        return node is not None and not node.ready and any(taint.key == leaving.OUT_OF_SERVICE for taint in node.taints)

    def node_lost(self, name: str) -> bool:
        """Whether the node is gone or shut down, or has not been ready for `nodeLostSeconds`."""
        node = self.nodes.get(name)
        if node is None or self.node_out_of_service(name):
            return True
        return not node.ready and self.now - node.ready_since >= timedelta(seconds=self.policy.node_lost_seconds)

    def pod_of(self, worker: AttemptWorker) -> PodView | None:
        """The worker's Pod, if it is still the same object."""
        pod = self.pods.get(worker.pod)
        return pod if pod is not None and pod.uid == worker.uid else None

    def has_finished(self, worker: AttemptWorker, report: WorkerReport | None) -> bool:
        """Whether nothing is wanted of a worker any more: its ranks ended with 0, and its Pod did or will succeed."""
        pod = self.pod_of(worker)
        if pod is not None and pod.phase is PodPhase.SUCCEEDED:
            return True
        if (
            pod is not None
            and exited_well(pod)
            and pod.phase is not PodPhase.FAILED
            and not self.node_lost(worker.node)
        ):
            return True
        return report is not None and report.launcher is LauncherState.SUCCEEDED

    def passed(self, since: datetime | None, seconds: float) -> bool:
        """Whether `since` lies at least so far back."""
        return since is not None and self.now - since >= timedelta(seconds=seconds)


def exited_well(pod: PodView) -> bool:
    """Whether the trainer container ended with 0 for good: the kubelet restarts it only after a failure."""
    return pod.phase is PodPhase.SUCCEEDED or pod.trainer_exit_code == 0


def latest(times: Iterable[datetime | None]) -> datetime | None:
    """The latest of the known times."""
    return max((each for each in times if each is not None), default=None)
