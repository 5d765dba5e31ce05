"""The sidecar's main loop: hand over, collect, push, and, beside worker 0, judge."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import time
from collections.abc import Awaitable, Callable

import httpx
import structlog

from sternpost_eagle_eye.attempt import Attempt
from sternpost_eagle_eye.collect.checkpoint import CheckpointCollector
from sternpost_eagle_eye.collect.launcher import LauncherFile
from sternpost_eagle_eye.collect.machine import MachineCollector, ProcessCollector
from sternpost_eagle_eye.collect.trainer import TrainerCollector
from sternpost_eagle_eye.config import ConfigError, Settings
from sternpost_eagle_eye.control_plane.attempt_document import AttemptDocument
from sternpost_eagle_eye.control_plane.base import ControlPlane
from sternpost_eagle_eye.control_plane.folder import FolderControlPlane, folder_of
from sternpost_eagle_eye.control_plane.kubernetes import KubernetesControlPlane
from sternpost_eagle_eye.control_plane.kubernetes_api import access_of
from sternpost_eagle_eye.sidecar.attempt_handover import AttemptHandover
from sternpost_eagle_eye.sidecar.court import Court
from sternpost_eagle_eye.sidecar.own_metrics import OwnMetrics
from sternpost_eagle_eye.sidecar.push import Pusher
from sternpost_eagle_eye.sidecar.server import listen, make_app, make_server
from sternpost_eagle_eye.sidecar.token import TokenFile
from sternpost_eagle_eye.vector import CheckpointVector, MachineVector, RankVector, Vector

LAUNCHER_POLL_SECONDS = 0.1
RETRY_SECONDS = 0.25
"""After a push that did not arrive, a few times: right after a new Attempt not everybody has read it."""
RETRIES = 4

log = structlog.get_logger()


def control_plane_of(settings: Settings) -> ControlPlane:
    """By the scheme of `STERNPOST_CONTROL_PLANE`. Raises ConfigError for one that does not exist."""
    if settings.control_plane.startswith("file:"):
        return FolderControlPlane(folder_of(settings.control_plane), settings.job, settings.job_uid)
    if settings.control_plane == "kubernetes:":
        return KubernetesControlPlane(
            access_of(settings), namespace=settings.namespace, job=settings.job, job_uid=settings.job_uid
        )
    raise ConfigError(
        f"STERNPOST_CONTROL_PLANE={settings.control_plane!r}: expected kubernetes: or file:///absolute/path"
    )


class Service:
    """One Pod's sidecar."""

    def __init__(self, settings: Settings, control_plane: ControlPlane, client: httpx.AsyncClient) -> None:
        self._settings = settings
        self._control_plane = control_plane
        self._metrics = OwnMetrics()
        self._token = TokenFile(settings.token_file)
        self._court = Court(settings, control_plane, self._metrics, time.monotonic, time.time)
        self._pusher = Pusher(client, self._court, self._token, settings.pod_uid, self._metrics)
        self._handover = AttemptHandover(settings.control_dir, settings.job_uid)
        self._launcher = LauncherFile(settings.control_dir)
        self._trainer = TrainerCollector(client, settings.metrics_ports)
        self._checkpoint = CheckpointCollector(client, settings.checkpoint_port, time.monotonic)
        self._machine = MachineCollector(settings.shm_dir)
        self._processes = ProcessCollector(settings.pod_uid)
        self._attempt: Attempt | None = None
        self._ranks: tuple[RankVector, ...] = ()
        self._ranks_of = ""
        self._machine_vector: MachineVector | None = None
        self._checkpoint_vector: CheckpointVector | None = None
        self._boot = secrets.token_hex(4)
        self._sequence = 0
        self._dropped = 0
        self._push_wanted = asyncio.Event()
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Ask the service to end; safe in a signal handler of the loop."""
        self._stop.set()

    async def run(self) -> None:
        """Until `stop()`. Raises ConfigError when the port is taken."""
        listener = listen(self._settings)
        server = make_server(make_app(self._court, self._token, self._metrics))
        log.info("eagle-eye", pod=self._settings.pod, node=self._settings.node, port=self._settings.port)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._follow_attempts()),
                    group.create_task(self._every(lambda: LAUNCHER_POLL_SECONDS, self._look_at_launcher)),
                    group.create_task(self._every(self._interval, self._collect)),
                    group.create_task(self._every(self._interval, self._court.sit)),
                    group.create_task(self._push_when_wanted()),
                ]
                serving = group.create_task(server.serve(sockets=[listener]))
                await self._stop.wait()
                for task in tasks:
                    task.cancel()
                self._court.adjourn()
                server.should_exit = True
                await serving
        finally:
            listener.close()
        log.info("eagle-eye stopped", pod=self._settings.pod)

    def _interval(self) -> float:
        return self._court.policy.interval_seconds

    async def _every(self, seconds: Callable[[], float], action: Callable[[], Awaitable[None]]) -> None:
        """Run again and again, so many seconds from start to start; what takes longer delays only itself."""
        while True:
            started = time.monotonic()
            await action()
            await asyncio.sleep(max(0.02, started + seconds() - time.monotonic()))

    async def _follow_attempts(self) -> None:
        standing = self._handover.standing()
        if standing is not None:  # after a restart: what the launcher was given still counts
            self._enter(standing.attempt)
        async for document in self._control_plane.attempts():
            if await self._hand_over(document):
                self._enter(document.attempt)

    async def _hand_over(self, document: AttemptDocument) -> bool:
        """Whether the launcher has this Attempt now; a full disk delays it and no more."""
        attempt = document.attempt.spec.id
        while True:
            try:
                taken = self._handover.offer(document)
            except OSError as error:
                log.warning("attempt not handed to the launcher, trying again", error=str(error), attempt=attempt)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if not taken:
                log.warning("attempt ignored: the launcher has a newer one", attempt=attempt)
            return taken

    def _enter(self, attempt: Attempt) -> None:
        before, self._attempt = self._attempt, attempt
        if before == attempt:
            return
        log.info("attempt", id=attempt.spec.id, number=attempt.spec.number, action=attempt.spec.action)
        self._metrics.handovers.inc()
        self._metrics.attempt.set(attempt.spec.number)
        self._court.convene(attempt)
        self._push_wanted.set()

    async def _look_at_launcher(self) -> None:
        if self._launcher.poll():
            self._push_wanted.set()

    async def _collect(self) -> None:
        """Refresh all that a vector holds. While pages are being waited for, vectors go out with what was known."""
        attempt = self._attempt
        if attempt is None:
            return
        launcher = self._launcher.current
        self._machine_vector = self._machine.collect()
        processes = self._processes.collect(launcher)
        (ranks, dropped), self._checkpoint_vector = await asyncio.gather(
            self._trainer.collect(launcher, attempt.spec.id), self._checkpoint.collect()
        )
        for rank in ranks:
            self._metrics.scrapes.labels(rank.page.value).inc()
        self._dropped += dropped
        self._metrics.dropped.inc(dropped)
        if attempt is self._attempt:
            self._ranks = tuple(rank.model_copy(update={"process": processes.get(rank.rank)}) for rank in ranks)
            self._ranks_of = attempt.spec.id
            self._push_wanted.set()

    def _vector(self, attempt: Attempt) -> Vector:
        self._sequence += 1
        return Vector(
            attempt=attempt.spec.id,
            pod_uid=self._settings.pod_uid,
            boot=self._boot,
            sequence=self._sequence,
            launcher=self._launcher.current,
            ranks=self._ranks if self._ranks_of == attempt.spec.id else (),
            machine=self._machine_vector,
            checkpoint=self._checkpoint_vector,
            dropped=self._dropped + self._launcher.dropped,
        )

    async def _push_when_wanted(self) -> None:
        failures, pushed = 0, ""
        while True:
            await self._push_wanted.wait()
            self._push_wanted.clear()
            attempt = self._attempt
            if attempt is None:
                continue
            if attempt.spec.id != pushed:
                failures, pushed = 0, attempt.spec.id
            if await self._pusher.push(self._vector(attempt), attempt):
                failures = 0
                continue
            failures += 1
            if failures <= RETRIES and not self._push_wanted.is_set():
                await asyncio.sleep(RETRY_SECONDS)
                self._push_wanted.set()


async def run_sidecar(settings: Settings) -> None:
    """Until SIGTERM or SIGINT. Raises ConfigError."""
    control_plane = control_plane_of(settings)
    async with contextlib.AsyncExitStack() as held:
        held.push_async_callback(control_plane.aclose)
        # No proxies from the environment: everything asked for is in the Pod or in the job.
        client = await held.enter_async_context(httpx.AsyncClient(trust_env=False, follow_redirects=False))
        service = Service(settings, control_plane, client)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, service.stop)
        await service.run()
