"""The sidecar's main loop."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import FrameType

import structlog

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.errors import StoreError
from sternpost_checkpoint.format.names import GENERATIONS, index_name, rank_prefix
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.ring.ring import open_ring
from sternpost_checkpoint.shm.files import make_directory, write_json
from sternpost_checkpoint.shm.layout import SlotHeader
from sternpost_checkpoint.shm.mailbox import Request, answer, pending_requests
from sternpost_checkpoint.shm.paths import checkpoint_directory, heartbeat_path, ranks_present
from sternpost_checkpoint.shm.status import Progress
from sternpost_checkpoint.sidecar.answers import Answers
from sternpost_checkpoint.sidecar.attempt import AttemptFile
from sternpost_checkpoint.sidecar.config import Config
from sternpost_checkpoint.sidecar.jobs import Fence, Jobs
from sternpost_checkpoint.sidecar.metrics import Metrics
from sternpost_checkpoint.sidecar.rank import RankFolder, Save
from sternpost_checkpoint.store.base import Store

_log = structlog.get_logger()

POLL_SECONDS = 0.03
HEARTBEAT_SECONDS = 1.0
ATTEMPT_SECONDS = 0.2
COMMIT_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Between two looks for the other ranks' files."""
COMMIT_DRAIN_SECONDS = 5.0
"""At the end, how long to wait for other ranks' files, once every own save is stored."""
MAX_PENDING_COMMITS = 8
NICENESS = 5
"""The trainer comes first where cores are short."""


@dataclass
class PendingCommit:
    """A generation of which this rank's part is stored."""

    rank: int
    generation: Generation
    world_size: int
    header: SlotHeader | None
    tries: int = 0
    next_at: float = 0.0


class Service:
    """Polls the ranks' folders and works; every decision of what is durable lies in the storage and the status files."""

    def __init__(self, config: Config, store: Store, metrics: Metrics | None = None) -> None:
        self._config = config
        self._catalog = Catalog(store)
        self._metrics = metrics or Metrics()
        self._fence = Fence()
        self._jobs = Jobs(
            self._catalog,
            self._fence,
            self._metrics,
            job_uid=config.job_uid,
            keep=config.policy.keep,
            clock=time.monotonic,
        )
        self._attempt = AttemptFile(config.control, config.job_uid)
        self._ring = open_ring(config, self._catalog, self._metrics)
        self._answers = Answers(
            self._catalog,
            config.job_uid,
            lambda: self._attempt.current,
            self._fetched,
            self._metrics.failed,
            ring=self._ring,
        )
        self._folders: dict[int, RankFolder] = {}
        self._commits: list[PendingCommit] = []
        self._commit_lock = threading.Lock()
        self._stop = threading.Event()
        self._heartbeat_stop = threading.Event()
        self._workers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="persist")
        self._answerers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="answer")
        self._running: set[Future[None]] = set()
        self._attempt_read_at = 0.0

    def run(self) -> None:
        """Work until SIGTERM or SIGINT, then store what is unstored, within the grace period."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        make_directory(checkpoint_directory(self._config.shm))
        heartbeat = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        heartbeat.start()
        _log.info("ready", storage=self._catalog.store.uri, shared_memory=str(self._config.shm))
        if self._ring is not None:
            self._ring.start()
        while not self._stop.is_set():
            self.tick(time.monotonic())
            self._stop.wait(POLL_SECONDS)
        self.drain()
        if self._ring is not None:
            self._ring.stop()
        self._heartbeat_stop.set()
        heartbeat.join()

    def serve_metrics(self) -> None:
        """Serve the metrics page, if a port is configured."""
        if self._config.metrics_port is not None:
            self._metrics.serve(self._config.metrics_port)

    def stop(self) -> None:
        """End `run`."""
        self._stop.set()

    def tick(self, now: float, *, drain: bool = False) -> bool:
        """Start whatever can be started; True while there is something to do or being done."""
        self._reap()
        if self._ring is not None:
            self._ring.tick(now)
        if now - self._attempt_read_at >= ATTEMPT_SECONDS or drain:
            self._attempt_read_at = now
            self._discover()
            if self._attempt.refresh() and self._attempt.current is not None:
                self._on_new_attempt()
        busy = False
        for folder in self._folders.values():
            if not folder.busy_answering:
                requests = pending_requests(folder.directory)
                if requests:
                    folder.busy_answering = True
                    self._submit(self._answerers, self._answer, folder, requests)
            if not folder.busy_persisting:
                save = folder.next_save(now, drain=drain)
                if save is not None:
                    folder.busy_persisting = True
                    self._submit(self._workers, self._persist, folder, save)
            busy = busy or folder.busy_persisting
        with self._commit_lock:
            due = [pending for pending in self._commits if pending.next_at <= now]
            for pending in due:
                pending.next_at = float("inf")
        for pending in due:
            self._submit(self._workers, self._commit, pending)
        return busy

    def drain(self) -> None:
        """Store everything that is in the slots; wait a little for the other ranks' parts. Bounded."""
        started = time.monotonic()
        deadline = started + max(self._config.grace_seconds - 2.0, 1.0)
        _log.info("ending: storing what is not stored yet", seconds=deadline - started)
        stored_at: float | None = None
        failed: set[tuple[int, int]] = set()
        while (now := time.monotonic()) < deadline:
            busy = self.tick(now, drain=not failed)
            failed |= self._failed_saves()
            if busy:
                stored_at = None
            else:
                stored_at = stored_at or now
                if (not self._commits and not self._running) or now - stored_at > COMMIT_DRAIN_SECONDS:
                    break
            time.sleep(POLL_SECONDS)
        _log.info("ended", seconds=round(time.monotonic() - started, 2), commits_left_to_others=len(self._commits))
        self._workers.shutdown(wait=False, cancel_futures=True)
        self._answerers.shutdown(wait=False, cancel_futures=True)

    def _failed_saves(self) -> set[tuple[int, int]]:
        return {
            (folder.rank, status.sequence)
            for folder in self._folders.values()
            for status in folder.status.slots.values()
            if status.progress is Progress.FAILED
        }

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 # the signature of a handler
        self._stop.set()

    def _beat(self) -> None:
        started = time.time()
        while True:
            try:
                write_json(
                    heartbeat_path(self._config.shm),
                    {"pid": os.getpid(), "startedAt": started, "updatedAt": time.time()},
                )
            except OSError as error:
                _log.warning("the heartbeat cannot be written", reason=str(error))
            if self._heartbeat_stop.wait(HEARTBEAT_SECONDS):
                return

    def _discover(self) -> None:
        present = ranks_present(self._config.shm)
        for rank in list(self._folders):
            if rank not in present or not self._folders[rank].is_same_folder(present[rank]):
                del self._folders[rank]
        for rank, directory in present.items():
            if rank in self._folders:
                continue
            try:
                folder = self._folders[rank] = RankFolder(rank, directory)
            except FileNotFoundError:  # removed in between
                continue
            self._sweep(rank)
            for entry in folder.stored_generations():
                self._add_commit(PendingCommit(rank, Generation(entry.step, entry.run), entry.world_size, None))

    def _sweep(self, rank: int) -> None:
        try:
            swept = sum(self._catalog.store.sweep(GENERATIONS, name) for name in (rank_prefix(rank), index_name(rank)))
        except StoreError as error:
            _log.warning("unfinished files stay", reason=str(error))
            return
        if swept:
            _log.info("removed unfinished files of an earlier sidecar", rank=rank, files=swept)

    def _on_new_attempt(self) -> None:
        self._fence.pending = frozenset(
            (rank, header.sequence) for rank, folder in self._folders.items() for _, header in folder.ready()
        )
        self._fence.current = self._attempt.current
        if self._attempt.current is not None:
            _log.info("attempt", attempt=self._attempt.current.id)

    def _fetched(self, rank: int, index: int, header: SlotHeader, committed: bool) -> None:  # as Answers calls it
        folder = self._folders.get(rank)
        if folder is not None and committed:
            folder.mark(index, header, Progress.COMMITTED)
        elif not committed:
            # From memory: it is stored in place of the worker that is lost, and bears the attempt that saved it.
            self._fence.pending |= {(rank, header.sequence)}

    def _answer(self, folder: RankFolder, requests: list[Request]) -> None:
        try:
            for request in requests:
                body = self._answers.answer(folder.rank, folder.directory, request.body)
                try:
                    answer(folder.directory, request.id, body)
                except FileNotFoundError:
                    _log.info("nobody waits for the answer any more", rank=folder.rank)
        finally:
            folder.busy_answering = False

    def _persist(self, folder: RankFolder, save: Save) -> None:
        try:
            if self._ring is not None:
                self._ring.on_ready_slot(save.rank, save.index, save.header)
            if self._jobs.persist(folder, save):
                generation = Generation(*save.header.generation)
                self._add_commit(PendingCommit(save.rank, generation, save.header.world_size, save.header))
        finally:
            folder.busy_persisting = False

    def _add_commit(self, pending: PendingCommit) -> None:
        with self._commit_lock:
            self._commits = [*self._commits, pending][-MAX_PENDING_COMMITS * max(len(self._folders), 1) :]

    def _commit(self, pending: PendingCommit) -> None:
        header = pending.header
        done = self._jobs.commit(
            pending.rank,
            (lambda: self._fence.check(pending.rank, header)) if header is not None else (lambda: None),
            pending.generation,
            pending.world_size,
        )
        with self._commit_lock:
            if done is False:
                pending.next_at = time.monotonic() + COMMIT_PAUSES[min(pending.tries, len(COMMIT_PAUSES) - 1)]
                pending.tries += 1
                return
            self._commits = [
                other
                for other in self._commits
                if other is not pending
                and not (done and other.rank == pending.rank and other.generation < pending.generation)
            ]
        folder = self._folders.get(pending.rank)
        if folder is not None:
            if done:
                folder.committed(pending.generation.step, pending.generation.run)
            else:
                self._refused(folder, pending)

    def _refused(self, folder: RankFolder, pending: PendingCommit) -> None:
        for index, header in folder.ready():
            if header.generation == (pending.generation.step, pending.generation.run):
                folder.mark(index, header, Progress.REFUSED, "the attempt was superseded before the commit")

    def _submit(self, pool: ThreadPoolExecutor, work: Callable[..., None], *arguments: object) -> None:
        self._running.add(pool.submit(work, *arguments))

    def _reap(self) -> None:
        for future in [future for future in self._running if future.done()]:
            self._running.discard(future)
            # Whatever the jobs do not handle is a defect: it ends the process, loudly, and the next one goes on.
            future.result()
