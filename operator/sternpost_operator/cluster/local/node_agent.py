"""The agent of one node: what the kubelet is elsewhere. Standard library only, for it has to start quickly.

Run as `python -m sternpost_operator.cluster.local.node_agent --state-dir DIR --memory-dir DIR --node NAME`.
"""

from __future__ import annotations

import argparse
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from sternpost_operator.cluster.local.admission import NodeContext
from sternpost_operator.cluster.local.agent_log import log
from sternpost_operator.cluster.local.environment import inherited_environment
from sternpost_operator.cluster.local.json_files import GarbageError, JsonObject, read_object, write_object
from sternpost_operator.cluster.local.manifest_fields import PodSpecError, grace_of
from sternpost_operator.cluster.local.node_record import HEARTBEAT_SECONDS, NodeRecord
from sternpost_operator.cluster.local.paths import LocalPaths, check_name, make_private_folder
from sternpost_operator.cluster.local.pod_runner import PodRunner, Stage
from sternpost_operator.cluster.local.pod_spec import PodSpec, RestartPolicy, parse_pod
from sternpost_operator.cluster.local.pod_status import FAILED, TERMINAL
from sternpost_operator.cluster.local.ports import PortPool
from sternpost_operator.cluster.local.processes import ProcessIdentity, become_subreaper, boot_id, identify, is_alive

POLL_SECONDS = 0.1
ORPHAN_SECONDS = 60.0
"""How long the agent goes on after its supervisor is gone: another one may take over, or not."""
_LOG_ROTATION_SECONDS = 5.0
_MAX_STEPS = 100


@dataclass(frozen=True)
class _Seen:
    """A version of a `pod.json`, and what it said."""

    version: tuple[int, int, int]
    manifest: JsonObject | None


class NodeAgent:
    """Runs the Pods that are assigned to its node, until it is told to end."""

    def __init__(
        self,
        paths: LocalPaths,
        node: str,
        *,
        supervisor: ProcessIdentity | None = None,
        orphan_seconds: float = ORPHAN_SECONDS,
    ) -> None:
        own = identify(os.getpid())
        if own is None:
            raise OSError("/proc does not show this process; mount /proc")
        started_at = time.time()
        self._paths = paths
        self._record = NodeRecord(node, own, os.getsid(0), started_at, started_at, boot_id())
        self._context = NodeContext(
            paths=paths,
            node=node,
            incarnation=f"{own.pid}-{own.start_time}-{self._record.boot[:8]}",
            environment=inherited_environment(os.environ, Path(sys.executable).parent),
            ports=PortPool(paths.ports),
        )
        self._supervisor = supervisor
        self._supervisor_seen = time.monotonic()
        self._orphan_seconds = orphan_seconds
        self._runners: dict[str, PodRunner] = {}
        self._seen: dict[str, _Seen] = {}
        self._next_heartbeat = 0.0
        self._next_rotation = 0.0
        self._ending = False
        self._asked_to_end = False

    def run(self) -> None:
        """Until SIGTERM, or until the supervisor has been gone for too long."""
        self._start_empty()
        wakeup, wakeup_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._ask_to_end)
        log("info", "node is up", node=self._context.node, pid=os.getpid())
        while not self._finished():
            for _ in range(_MAX_STEPS):
                if not self.tick(time.monotonic()):
                    break
            readable, _, _ = select.select([wakeup], [], [], POLL_SECONDS)
            if readable:
                os.read(wakeup, 4096)
        self._remove_folders()
        log("info", "node has ended", node=self._context.node)

    def tick(self, now: float) -> bool:
        """Look at everything once; whether anything happened. `now` in the monotonic clock's seconds."""
        self._check_supervisor(now)
        self._beat(now)
        if self._asked_to_end and not self._ending:
            self._end_all(now)
        self._look(now)
        changed = False
        for uid, runner in list(self._runners.items()):
            changed = runner.step(now) or changed
            if runner.stage is Stage.GONE:
                del self._runners[uid]
        self._reap_orphans()
        if now >= self._next_rotation:
            self._next_rotation = now + _LOG_ROTATION_SECONDS
            for runner in self._runners.values():
                runner.rotate_logs()
        return changed

    def _start_empty(self) -> None:
        """What an earlier agent of this node had in memory and scratch does not outlive it."""
        self._remove_folders()
        self._context.ports.release(f"{self._context.node}/")
        make_private_folder(self._paths.memory_dir)
        for folder in (self._paths.node_memory(self._context.node), self._paths.node_scratch(self._context.node)):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._paths.objects / "nodes").mkdir(parents=True, exist_ok=True)

    def _remove_folders(self) -> None:
        for folder in (self._paths.node_memory(self._context.node), self._paths.node_scratch(self._context.node)):
            shutil.rmtree(folder, ignore_errors=True)

    def _ask_to_end(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._asked_to_end = True

    def _finished(self) -> bool:
        return self._ending and all(runner.stage in (Stage.ENDED, Stage.GONE) for runner in self._runners.values())

    def _check_supervisor(self, now: float) -> None:
        if self._supervisor is None or is_alive(self._supervisor):
            self._supervisor_seen = now
        elif now - self._supervisor_seen > self._orphan_seconds and not self._asked_to_end:
            log("warning", "supervisor is gone, ending the node", node=self._context.node, pid=self._supervisor.pid)
            self._asked_to_end = True

    def _beat(self, now: float) -> None:
        if now < self._next_heartbeat:
            return
        self._next_heartbeat = now + HEARTBEAT_SECONDS
        record = replace(self._record, heartbeat_at=time.time())
        try:
            write_object(self._paths.objects / "nodes" / f"{record.name}.json", record.to_object())
        except FileNotFoundError:
            log("error", "the state folder is gone, ending the node", state=str(self._paths.state_dir))
            self._asked_to_end = True
        except OSError as error:
            log("error", "heartbeat not written", node=record.name, error=str(error))

    def _end_all(self, now: float) -> None:
        self._ending = True
        for runner in self._runners.values():
            runner.end(
                runner.pod.grace_seconds,
                now,
                outcome=FAILED,
                reason="NodeShutdown",
                message=f"node {self._context.node} was shut down",
            )

    def _look(self, now: float) -> None:
        """Read the Pod objects that changed: take on new ones, end deleted ones and those whose object is gone."""
        try:
            with os.scandir(self._paths.objects / "pods") as entries:
                names = [entry.name for entry in entries if not entry.name.startswith(".")]
        except FileNotFoundError:
            names = []
        except OSError as error:
            log("error", "pods not listed", error=str(error))
            return
        present: set[str] = set()
        for name in names:
            manifest = self._read(name)
            if manifest is None:
                continue
            uid = _uid(manifest)
            present.add(uid)
            runner = self._runners.get(uid)
            if runner is None and not self._ending:
                runner = self._runners[uid] = self._take_on(name, manifest)
            metadata = manifest["metadata"]
            if runner is not None and metadata.get("deletionTimestamp") is not None:
                runner.delete(grace_of(metadata.get("deletionGracePeriodSeconds"), runner.pod.grace_seconds), now)
        for uid, runner in self._runners.items():
            if uid not in present and runner.stage is not Stage.GONE:
                runner.kill()
        for name in set(self._seen) - set(names):
            del self._seen[name]

    def _read(self, name: str) -> JsonObject | None:
        """The manifest of a Pod of this node; None for all others and for what cannot be read."""
        path = self._paths.objects / "pods" / name / "pod.json"
        try:
            found = path.stat()
            version = (found.st_ino, found.st_mtime_ns, found.st_size)
            seen = self._seen.get(name)
            if seen is None or seen.version != version:
                seen = self._seen[name] = _Seen(version, self._own(read_object(path), name))
        except FileNotFoundError:
            return None
        except (OSError, GarbageError) as error:
            # The cluster puts damaged objects aside; what ran of it then ends like that of any removed one.
            log("error", "pod not readable", pod=name, error=str(error))
            return self._seen[name].manifest if name in self._seen else None
        return seen.manifest

    def _own(self, manifest: JsonObject | None, name: str) -> JsonObject | None:
        """The manifest if it is one of this node, with what the agent needs of it in any case."""
        if manifest is None or not isinstance(manifest.get("spec"), dict):
            return None
        if manifest["spec"].get("nodeName") != self._context.node:
            return None
        if not isinstance(manifest.get("metadata"), dict):
            manifest["metadata"] = {}
        if not isinstance(manifest["metadata"].get("uid"), str):
            manifest["metadata"]["uid"] = f"without-uid-{name}"
        return manifest

    def _take_on(self, name: str, manifest: JsonObject) -> PodRunner:
        uid = _uid(manifest)
        log("info", "pod assigned", pod=name, uid=uid)
        try:
            pod = parse_pod(manifest, name)
        except PodSpecError as error:
            runner = PodRunner(_unusable(name, uid, self._context.node), self._context)
            runner.fail(error.reason, str(error))
            return runner
        runner = PodRunner(pod, self._context)
        previous = self._previous_status(name, uid)
        if previous is not None:
            status = previous.get("status")
            if isinstance(status, dict) and status.get("phase") in TERMINAL:
                runner.resume_ended(status)
            else:
                runner.fail(
                    "NodeRestarted", f"node {self._context.node} was started anew, and with it its memory is gone"
                )
        return runner

    def _previous_status(self, name: str, uid: str) -> JsonObject | None:
        """What an earlier agent of this node wrote of the same Pod."""
        try:
            found = read_object(self._paths.objects / "pods" / name / "status.json")
        except (OSError, GarbageError) as error:
            log("warning", "pod status not readable", pod=name, error=str(error))
            return None
        if found is None or found.get("uid") != uid or "agent" not in found:
            return None
        return found if found["agent"] != self._context.incarnation else None

    def _reap_orphans(self) -> None:
        """Wait for what was left to this process by its descendants; the runners wait for their own."""
        known: set[int] = set()
        for runner in self._runners.values():
            known |= runner.pids
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None or found.si_pid in known:
                return
            os.waitpid(found.si_pid, os.WNOHANG)


def _uid(manifest: JsonObject) -> str:
    return str(manifest["metadata"]["uid"])


def _unusable(name: str, uid: str, node: str) -> PodSpec:
    """Stands for a Pod whose manifest is wrong; nothing of it ever runs."""
    return PodSpec(name, uid, "default", node, RestartPolicy.NEVER, 0.0, (), ())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a node's agent; the exit code."""
    parser = argparse.ArgumentParser(prog="sternpost-node-agent", description="Runs the Pods of one local node.")
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--memory-dir", type=Path, required=True)
    parser.add_argument("--node", type=check_name, required=True)
    parser.add_argument("--supervisor-pid", type=int, help="end some time after this process has ended")
    parser.add_argument("--supervisor-start-time", type=int, help="its start in clock ticks since boot")
    parser.add_argument("--orphan-seconds", type=float, default=ORPHAN_SECONDS)
    options = parser.parse_args(arguments)
    supervisor = None
    if options.supervisor_pid is not None and options.supervisor_start_time is not None:
        supervisor = ProcessIdentity(options.supervisor_pid, options.supervisor_start_time)
    become_subreaper()
    paths = LocalPaths(options.state_dir, options.memory_dir)
    try:
        agent = NodeAgent(paths, options.node, supervisor=supervisor, orphan_seconds=options.orphan_seconds)
        agent.run()
    except OSError as error:
        log("error", "node ended", node=options.node, error=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
