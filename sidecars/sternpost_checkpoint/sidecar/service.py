"""The sidecar's main loop."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from functools import partial
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
from sternpost_checkpoint.sidecar.budget import Budget
from sternpost_checkpoint.sidecar.config import Config
from sternpost_checkpoint.sidecar.encoder import Resources
from sternpost_checkpoint.sidecar.jobs import Fence, Jobs
from sternpost_checkpoint.sidecar.metrics import Metrics
from sternpost_checkpoint.sidecar.pending import PendingCommit, PendingCommits
from sternpost_checkpoint.sidecar.rank import RankFolder, Save
from sternpost_checkpoint.sidecar.trials import warm_up
from sternpost_checkpoint.sidecar.watched import WatchedStore
from sternpost_checkpoint.sidecar.workers import GivenUpError, Workers, touch
from sternpost_checkpoint.store.base import Store

_log = structlog.get_logger()

POLL_SECONDS = 0.03
HEARTBEAT_SECONDS = 1.0
ATTEMPT_SECONDS = 0.2
COMMIT_DRAIN_SECONDS = 5.0
"""At the end, how long to wait for other ranks' files, once every own save is stored."""
PERSISTING_RANKS, COMMITTING, ANSWERING = 2, 2, 4
"""At the same time; what they may take together is the budgets' business."""
PUSH_SECONDS = 120.0
"""After so long the store goes ahead of a peer that does not take its copy."""
NICENESS = 5
"""The trainer comes first where cores are short."""


class Service:
    """Polls the ranks' folders and works; every decision of what is durable lies in the storage and the status files."""

    def __init__(self, config: Config, store: Store, metrics: Metrics | None = None) -> None:
        self._config = config
        self._catalog = Catalog(WatchedStore(store))
        self._metrics = metrics or Metrics()
        self._fence = Fence()
        self._jobs = Jobs(
            self._catalog,
            self._fence,
            self._metrics,
            Resources(
                memory=Budget(config.memory_bytes),
                processors=Budget(config.processors),
                bases=Budget(config.base_bytes),
            ),
            job_uid=config.job_uid,
            policy=config.policy,
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
        self._commits = PendingCommits()
        self._stop = threading.Event()
        self._heartbeat_stop = threading.Event()
        self._persisting = Workers("persist", PERSISTING_RANKS, config.stall_seconds)
        self._committing = Workers("commit", COMMITTING, config.stall_seconds)
        # A restore takes as long as it takes, and its trainer decides how long it waits.
        self._answering = Workers("answer", ANSWERING, math.inf)
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
        threading.Thread(target=warm_up, name="warm-up", daemon=True).start()
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
        for workers in (self._persisting, self._committing, self._answering):
            workers.reap(now)
        self._metrics.stuck.set(self._persisting.stuck + self._committing.stuck)
        if self._ring is not None:
            self._ring.tick(now)
        if now - self._attempt_read_at >= ATTEMPT_SECONDS or drain:
            self._attempt_read_at = now
            self._discover()
            self._jobs.show()
            if self._attempt.refresh() and self._attempt.current is not None:
                self._on_new_attempt()
        busy = False
        for folder in self._folders.values():
            if not folder.busy_answering:
                requests = pending_requests(folder.directory)
                if requests:
                    folder.busy_answering = True
                    self._answering.submit(f"rank-{folder.rank}", partial(self._answer, folder, requests))
            if not folder.busy_persisting:
                save = folder.next_save(now, drain=drain)
                if save is not None:
                    folder.busy_persisting = True
                    self._persisting.submit(
                        f"rank-{folder.rank}",
                        partial(self._persist, folder, save),
                        partial(self._persist_stuck, folder, save),
                    )
            busy = busy or folder.busy_persisting
        for pending in self._commits.due(now):
            self._committing.submit(
                f"rank-{pending.rank}", partial(self._commit, pending), partial(self._commit_stuck, pending)
            )
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
                if (not len(self._commits) and not self._committing.busy) or now - stored_at > COMMIT_DRAIN_SECONDS:
                    break
            time.sleep(POLL_SECONDS)
        _log.info("ended", seconds=round(time.monotonic() - started, 2), commits_left_to_others=len(self._commits))

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
                self._jobs.forget(rank)
        for rank, directory in present.items():
            if rank in self._folders:
                continue
            try:
                folder = self._folders[rank] = RankFolder(rank, directory)
            except FileNotFoundError:  # removed in between
                continue
            self._sweep(rank)
            for entry in folder.stored_generations():
                self._commits.add(PendingCommit(rank, Generation(entry.step, entry.run), entry.world_size, None))

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
        pushed = threading.Event()
        if self._ring is not None:
            # Beside the upload: both read the same slot, and neither waits for the other's network.
            threading.Thread(target=self._push, args=(save, pushed), name="push", daemon=True).start()
        else:
            pushed.set()
        try:
            if self._jobs.persist(folder, save, partial(_wait_for, pushed)):
                generation = Generation(*save.header.generation)
                self._commits.add(PendingCommit(save.rank, generation, save.header.world_size, save.header))
            # Until then the slot is needed: what releases it lets the trainer write it.
            _wait_for(pushed)
        except GivenUpError:
            return  # another one may be at work by now
        folder.busy_persisting = False

    def _push(self, save: Save, pushed: threading.Event) -> None:
        try:
            if self._ring is not None:
                self._ring.on_ready_slot(save.rank, save.index, save.header)
        finally:
            pushed.set()

    def _persist_stuck(self, folder: RankFolder, save: Save, reason: str) -> None:
        self._jobs.give_up(folder, save, reason)
        folder.busy_persisting = False

    def _commit_stuck(self, pending: PendingCommit, reason: str) -> None:
        _log.error("a commit is stuck; tried again", rank=pending.rank, step=pending.generation.step, reason=reason)
        self._metrics.failed(f"step {pending.generation.step} is not committed: {reason}")
        self._commits.later(pending, time.monotonic())

    def _commit(self, pending: PendingCommit) -> None:
        header = pending.header
        done = self._jobs.commit(
            pending.rank,
            (lambda: self._fence.check(pending.rank, header)) if header is not None else (lambda: None),
            pending.generation,
            pending.world_size,
        )
        if done is False:
            self._commits.later(pending, time.monotonic())
            return
        self._commits.settle(pending, committed=bool(done))
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


def _wait_for(pushed: threading.Event) -> None:
    deadline = time.monotonic() + PUSH_SECONDS
    while not pushed.wait(1.0) and time.monotonic() < deadline:
        touch()
