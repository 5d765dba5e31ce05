"""Runs one Pod: init containers, sidecars, main containers, restarts, and its end. A state machine; `step` moves it on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from sternpost_operator.cluster.local.admission import NodeContext, admit, port_holder
from sternpost_operator.cluster.local.agent_log import log
from sternpost_operator.cluster.local.container import Container
from sternpost_operator.cluster.local.json_files import (
    GarbageError,
    JsonObject,
    read_object,
    remove_folder,
    write_object,
)
from sternpost_operator.cluster.local.manifest_fields import PodSpecError
from sternpost_operator.cluster.local.pod_spec import PodSpec, RestartPolicy
from sternpost_operator.cluster.local.pod_status import FAILED, PENDING, RUNNING, SUCCEEDED, pod_status
from sternpost_operator.cluster.local.processes import end_pod_processes
from sternpost_operator.cluster.local.volumes import NotYetError, PodVolumes

SIDECAR_GRACE_SECONDS = 5.0
"""What sidecars get at least when the main containers have used the grace up: the newest checkpoint is flushed then."""
_RETRY_SECONDS = 1.0


class Stage(StrEnum):
    """How far the Pod is."""

    ADMITTING = "admitting"
    INITIALIZING = "initializing"
    RUNNING = "running"
    ENDING_MAIN = "ending main containers"
    ENDING_SIDECARS = "ending sidecars"
    ENDED = "ended"
    """Its object stays until somebody deletes it."""
    GONE = "gone"
    """Its object is removed, too."""


class PodRunner:
    """One Pod object on this node, from its admission to its removal. `now` is the monotonic clock's seconds."""

    def __init__(self, pod: PodSpec, context: NodeContext) -> None:
        self.pod = pod
        self.stage = Stage.ADMITTING
        self.deleting = False
        self._context = context
        self._folder = context.paths.objects / "pods" / pod.name
        self._volumes = PodVolumes(context.paths, pod)
        self._ports: dict[str, int] = {}
        self._init: list[Container] = []
        self._main: list[Container] = []
        self._sidecar_names = frozenset(spec.name for spec in pod.init_containers if spec.sidecar)
        self._init_index = 0
        self._outcome = ""
        self._reason = ""
        self._message = ""
        self._deadline = 0.0
        self._sidecar_deadline = 0.0
        self._retry_at = 0.0
        self._started_wall = context.wall()
        self._abandoned = False
        self._frozen: dict[str, Any] | None = None
        self._written: JsonObject | None = None
        self._written_inode = 0

    @property
    def pids(self) -> frozenset[int]:
        """Main processes of its containers, which this runner itself waits for."""
        return frozenset(pid for container in self._containers if (pid := container.pid) is not None)

    @property
    def _containers(self) -> list[Container]:
        return [*self._init, *self._main]

    @property
    def _sidecars(self) -> list[Container]:
        return [container for container in self._init if container.name in self._sidecar_names]

    def step(self, now: float) -> bool:
        """Move on as far as it goes now and write the status if it changed; whether anything happened."""
        wall = self._context.wall()
        changed = False
        for container in self._containers:
            changed = container.poll(now, wall) or changed
        while self._advance(now, wall):
            changed = True
        if self.stage is not Stage.GONE and not self._abandoned:
            self._write_status()
        return changed

    def delete(self, grace_seconds: float, now: float) -> None:
        """The object is marked as deleted: end the Pod within its grace, then remove the object.

        Said again with a shorter grace, the shorter one counts.
        """
        if not self.deleting:
            self.deleting = True
            log("info", "pod is being deleted", pod=self.pod.name, uid=self.pod.uid, grace=grace_seconds)
        self.end(grace_seconds, now, outcome=FAILED, reason="Deleted", message="its object was deleted")

    def end(self, grace_seconds: float, now: float, *, outcome: str, reason: str = "", message: str = "") -> None:
        """End the Pod within its grace; the object stays unless it is being deleted."""
        if self.stage in (Stage.ENDED, Stage.GONE):
            return
        if self.stage is Stage.ENDING_SIDECARS:
            self._sidecar_deadline = min(self._sidecar_deadline, now + max(grace_seconds, SIDECAR_GRACE_SECONDS))
            return
        if self.stage is Stage.ENDING_MAIN:
            self._deadline = min(self._deadline, now + grace_seconds)
            return
        self._outcome, self._reason, self._message = outcome, reason, message
        self._deadline = now + grace_seconds
        self.stage = Stage.ENDING_MAIN
        for container in self._containers:
            if container.name not in self._sidecar_names:
                container.terminate()

    def kill(self) -> None:
        """The object is gone: end everything at once. `step` until the stage is GONE."""
        self._abandoned = True
        if self.stage is Stage.ENDED:
            self.stage = Stage.GONE
        elif self.stage is not Stage.GONE:
            log("warning", "pod object is gone, ending its processes", pod=self.pod.name, uid=self.pod.uid)
            self._outcome = self._outcome or FAILED
            self._deadline = self._sidecar_deadline = 0.0
            self.stage = Stage.ENDING_MAIN
            for container in self._containers:
                container.kill()

    def fail(self, reason: str, message: str) -> None:
        """The Pod ends as failed without (further) running; for before its admission."""
        log("error", "pod failed", pod=self.pod.name, uid=self.pod.uid, reason=reason, message=message)
        self._outcome, self._reason, self._message = FAILED, reason, message
        self.stage = Stage.ENDED
        self._release()

    def resume_ended(self, status: dict[str, Any]) -> None:
        """The Pod had ended already when an earlier agent of this node went: its status stays as that one left it."""
        self._frozen = status
        self._outcome = str(status.get("phase", FAILED))
        self.stage = Stage.ENDED

    def rotate_logs(self) -> None:
        """Bound the size of the containers' logs."""
        for container in self._containers:
            if container.running:
                container.rotate_log()

    def _advance(self, now: float, wall: float) -> bool:
        moves: dict[Stage, Callable[[float, float], bool]] = {
            Stage.ADMITTING: self._admit,
            Stage.INITIALIZING: self._initialize,
            Stage.RUNNING: self._run,
            Stage.ENDING_MAIN: self._end_main,
            Stage.ENDING_SIDECARS: self._end_sidecars,
            Stage.ENDED: self._leave,
        }
        move = moves.get(self.stage)
        return move is not None and move(now, wall)

    def _admit(self, now: float, _wall: float) -> bool:
        if now < self._retry_at:
            return False
        try:
            admitted = admit(self.pod, self._context, self._volumes, self._ports)
        except PodSpecError as error:
            self.fail(error.reason, str(error))
            return True
        except (NotYetError, OSError) as error:
            # A missing secret or a full disk may pass; the Pod waits and says for what.
            self._reason, self._message = "CreateContainerConfigError", str(error)
            self._retry_at = now + _RETRY_SECONDS
            return False
        self._ports, self._init, self._main = admitted.ports, admitted.init, admitted.main
        self._reason = self._message = ""
        self.stage = Stage.INITIALIZING
        return True

    def _initialize(self, now: float, wall: float) -> bool:
        changed = self._restart_sidecars(self._init[: self._init_index], now, wall)
        if self._init_index == len(self._init):
            self.stage = Stage.RUNNING
            return True
        container = self._init[self._init_index]
        if container.name in self._sidecar_names:
            changed = self._restart_sidecars([container], now, wall) or changed
            if not container.running:
                return changed
            self._init_index += 1
            return True
        if container.ended is not None:
            return self._after_init(container, now, wall) or changed
        if not container.running and container.may_start(now):
            container.start(now, wall)
            return True
        return changed

    def _after_init(self, container: Container, now: float, wall: float) -> bool:
        if container.ended is None or not container.quiet:
            return False
        if container.ended.exit_code == 0:
            self._init_index += 1
            return True
        if self.pod.restart_policy is RestartPolicy.NEVER:
            message = container.ended.message or f"it ended with {container.ended.exit_code}"
            self.end(
                self.pod.grace_seconds,
                now,
                outcome=FAILED,
                reason="InitContainerFailed",
                message=f"init container {container.name!r}: {message}",
            )
            return True
        container.will_restart(yes=True)
        if container.may_start(now):
            container.start(now, wall)
            return True
        return False

    def _run(self, now: float, wall: float) -> bool:
        changed = self._restart_sidecars(self._init, now, wall)
        for container in self._main:
            if container.running:
                continue
            again = container.ended is None or self._restarts(container.ended.exit_code)
            container.will_restart(yes=again)
            if again and container.may_start(now):
                container.start(now, wall)
                container.will_restart(yes=not container.running)
                changed = True
        if all(
            container.quiet and container.ended is not None and not self._restarts(container.ended.exit_code)
            for container in self._main
        ):
            failed = any(container.ended is not None and container.ended.exit_code != 0 for container in self._main)
            self.end(self.pod.grace_seconds, now, outcome=FAILED if failed else SUCCEEDED)
            changed = True
        return changed

    def _restarts(self, exit_code: int) -> bool:
        policy = self.pod.restart_policy
        return policy is RestartPolicy.ALWAYS or (policy is RestartPolicy.ON_FAILURE and exit_code != 0)

    def _restart_sidecars(self, candidates: list[Container], now: float, wall: float) -> bool:
        changed = False
        for container in candidates:
            if container.name not in self._sidecar_names or container.running:
                continue
            container.will_restart(yes=True)
            if container.may_start(now):
                container.start(now, wall)
                container.will_restart(yes=not container.running)
                changed = True
        return changed

    def _end_main(self, now: float, _wall: float) -> bool:
        containers = [container for container in self._containers if container.name not in self._sidecar_names]
        for container in containers:
            container.will_restart(yes=False)
            if now >= self._deadline:
                container.kill()
        if not all(container.quiet for container in containers):
            return False
        self._sidecar_deadline = max(self._deadline, now + SIDECAR_GRACE_SECONDS) if self._deadline else 0.0
        self.stage = Stage.ENDING_SIDECARS
        return True

    def _end_sidecars(self, now: float, _wall: float) -> bool:
        for container in reversed(self._sidecars):
            container.will_restart(yes=False)
            if container.quiet:
                continue
            container.terminate()
            if now >= self._sidecar_deadline:
                container.kill()
            else:
                return False
        if not all(container.quiet for container in self._sidecars):
            return False
        try:
            end_pod_processes(self._context.paths.state_id, self.pod.uid, deadline_seconds=0.3)
        except TimeoutError as error:
            log("warning", "pod not ended yet", pod=self.pod.name, error=str(error))
            return False
        self._release()
        self.stage = Stage.ENDED
        log("info", "pod ended", pod=self.pod.name, uid=self.pod.uid, phase=self._outcome)
        return True

    def _release(self) -> None:
        self._volumes.remove()
        with contextlib.suppress(OSError):  # the ports of a dead Pod are released again when the node starts
            self._context.ports.release(port_holder(self.pod))

    def _leave(self, now: float, _wall: float) -> bool:
        if self._abandoned:
            self.stage = Stage.GONE
            return True
        return self.deleting and self._remove(now)

    def _remove(self, now: float) -> bool:
        if now < self._retry_at:
            return False
        try:
            found = read_object(self._folder / "pod.json")
            # A Pod of the same name may have taken the place of one that was removed by force.
            if found is not None and found.get("metadata", {}).get("uid") == self.pod.uid:
                remove_folder(self._folder)
        except (OSError, GarbageError, AttributeError) as error:
            log("error", "pod object not removed", pod=self.pod.name, error=str(error))
            self._retry_at = now + _RETRY_SECONDS
            return False
        self.stage = Stage.GONE
        return True

    def _status(self) -> dict[str, Any]:
        if self._frozen is not None:
            return self._frozen
        if self.stage in (Stage.ENDED, Stage.GONE):
            phase = self._outcome
        else:
            phase = RUNNING if any(container.ended or container.running for container in self._main) else PENDING
        return pod_status(
            phase=phase,
            started_at=self._started_wall,
            sidecars_and_init=self._init,
            main=self._main,
            sidecar_names=self._sidecar_names,
            initialized=bool(self._init or self._main) and self._init_index == len(self._init),
            reason=self._reason,
            message=self._message,
        )

    def _write_status(self) -> None:
        status = {
            "uid": self.pod.uid,
            "agent": self._context.incarnation,
            "status": self._status(),
            "ports": self._ports,
        }
        path = self._folder / "status.json"
        try:
            # Looked at each time: an agent that has not yet heard of its Pod's removal may have written in between.
            if status == self._written and path.stat().st_ino == self._written_inode:
                return
        except OSError:
            self._written = None
        try:
            write_object(path, status)
            self._written_inode = path.stat().st_ino
        except FileNotFoundError:
            return  # the object was removed meanwhile, which the agent finds out by itself
        except OSError as error:
            log("error", "pod status not written", pod=self.pod.name, error=str(error))
            return
        self._written = status
