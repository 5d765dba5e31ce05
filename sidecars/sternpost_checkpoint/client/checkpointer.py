"""Checkpointer: what a training script uses."""

from __future__ import annotations

import logging
import os
import shutil
import time
from types import TracebackType
from typing import Any, Literal, Self

import xxhash

from sternpost_checkpoint.client.copy_team import usable_threads
from sternpost_checkpoint.client.environment import read_environment
from sternpost_checkpoint.client.group import Group
from sternpost_checkpoint.client.memory import Slots
from sternpost_checkpoint.client.metrics import client_metrics
from sternpost_checkpoint.client.restore import agree_and_load, agree_on_errors, newest_common, register
from sternpost_checkpoint.client.save_request import SaveRequest
from sternpost_checkpoint.client.sidecar_link import SidecarLink
from sternpost_checkpoint.client.slot_vote import SlotVote
from sternpost_checkpoint.client.snapshot import Snapshots
from sternpost_checkpoint.client.training import Models, Optimizers, Training
from sternpost_checkpoint.client.wanted import wanted_state
from sternpost_checkpoint.errors import CheckpointError, SharedMemoryError
from sternpost_checkpoint.format.names import MAX_STEP
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.shm.heartbeat import sidecar_alive
from sternpost_checkpoint.shm.layout import SlotHeader
from sternpost_checkpoint.shm.paths import rank_directory, ranks_present, status_path
from sternpost_checkpoint.shm.status import Progress, read_status

_log = logging.getLogger("sternpost_checkpoint")

POLL_SECONDS = 0.02
LOG_SECONDS = 5.0
SIDECAR_GONE_SECONDS = 60.0
FAILED_SECONDS = 60.0
"""How long the storage may refuse the save that is waited for: the sidecar tries again meanwhile."""
META_ROOM_BYTES = 1 << 20


class Checkpointer:
    """Saves and restores the state of a training.

    ```
    with Checkpointer(model=model, optimizer=optimizer, extra={"sampler": sampler}) as checkpointer:
        for step in range(checkpointer.restore() + 1, steps + 1):
            ...
            if step % 50 == 0 or checkpointer.due(step):
                checkpointer.save(step)
    ```

    `model` and `optimizer`: a module, an optimizer, a dict of them, or an object with state_dict and load_state_dict.
    `extra`: nested plain values, tensors, numpy arrays, torch and numpy generators, and objects with state_dict and
    load_state_dict; restored in place. Every random state of the process is saved and restored too.

    `replicated`: whether all ranks hold the same model and optimizer, so that each stores only a share; "auto": yes for
    DistributedDataParallel. Of DTensors (fully_shard, tensor parallelism on one mesh of all ranks) each rank saves its
    block, and restores on any number of ranks. `when_busy`: what a save does when the sidecar still needs both slots: "skip"
    or "wait". `copy_threads`: how many threads copy what is in the processor's memory. `measure_floor`: measure a plain
    memcpy when restoring, to compare with.

    A save copies everything before it returns, tensors of the processor too. Nothing is assumed to be as it was: what is
    kept between saves is compared with the objects each time.

    Under torch.distributed every rank makes one, and all call restore and save in the same order. Raises
    CheckpointError outside of Sternpost.
    """

    def __init__(
        self,
        *,
        model: Models,
        optimizer: Optimizers | None = None,
        extra: dict[str, Any] | None = None,
        replicated: bool | Literal["auto"] = "auto",
        when_busy: Literal["skip", "wait"] = "skip",
        copy_threads: int = 2,
        measure_floor: bool = True,
    ) -> None:
        if when_busy not in ("skip", "wait"):
            raise ValueError(f'when_busy is "skip" or "wait", not {when_busy!r}')
        self._environment = read_environment(os.environ)
        self._group = Group()
        self._training = Training(model, optimizer, extra)
        if replicated == "auto":
            replicated = self._group.world_size == 1 or self._training.is_replicated()
        self._replicated = bool(replicated)
        self._snapshots = self._make_snapshots()
        self._when_busy = when_busy
        self._measure_floor = measure_floor
        self._metrics = client_metrics()
        self._label = str(self._group.rank)
        # Counters exist from the start: a page without them would look like a script without checkpoints.
        self._metrics.blocked.labels(self._label)
        self._metrics.skipped.labels(self._label)
        directory = rank_directory(self._environment.shm, self._group.rank)
        self._link = SidecarLink(self._environment.shm, directory)
        self._slots = Slots(directory, usable_threads(copy_threads))
        self._request = SaveRequest(self._environment.control, self._environment.job_uid, self._environment.attempt_id)
        self._due_step: int | None = None
        """The step that `due` said yes to."""
        self._alone: tuple[int, SlotHeader] | None = None
        """The last save, if it was made without asking the others."""
        self._vote = SlotVote(self._group, self._slots, self._environment.shm)
        self._run: int | None = None
        self._last: tuple[int, SlotHeader] | None = None
        self._last_step: int | None = None
        self._floor = float("nan")
        """Seconds of a plain copy, per byte."""
        self.skipped = 0
        """Saves left out since the start of the process."""

    def restore(self) -> int:
        """Restore the newest state that all ranks share, and return its step; 0 when there is none.

        Must be called once, before the first save: it also records where this attempt goes on. Everything or nothing:
        a damaged state is refused before any object is touched, and all ranks take the next older one. Raises
        RestoreError when there are states but none can be restored, CheckpointError when they do not fit the objects.
        """
        if self._run is not None:
            raise CheckpointError("restore() was called already: one start of the training restores once")
        started = time.perf_counter()
        wanted = wanted_state(self._training, self._make_snapshots())
        loaded = agree_and_load(self._group, self._link, self._slots, wanted, replicated=self._replicated)
        failure: CheckpointError | None = None
        if loaded is not None:
            try:
                self._training.apply(loaded.states, self._group.rank)
            except CheckpointError as error:
                failure = error
        agree_on_errors(self._group, failure, "the checkpoint cannot be applied")
        generation = loaded.generation if loaded else None
        self._run = register(self._group, self._link, self._environment, generation)
        step = generation.step if generation else 0
        self._slots.abandon_after(step, self._run)
        self._remove_foreign_folders()
        self.prepare()
        if generation is not None:
            self._take_up(generation)
        seconds = time.perf_counter() - started
        source = loaded.source if loaded else "none"
        self._metrics.restored(self._group.rank, step, seconds, source, time.time())
        _log.info("restored: step=%d source=%s seconds=%.3f run=%d", step, source, seconds, self._run)
        return step

    def newest_step(self) -> int:
        """The step that `restore` would try first; 0 for none. Touches nothing. All ranks call it, before `restore`."""
        generation = newest_common(self._group, self._link, self._slots, replicated=self._replicated)
        return generation.step if generation is not None else 0

    def due(self, step: int) -> bool:
        """Whether a node of the job is about to go, and every rank is asked to save a checkpoint after this very step.

        Costs one look at a file, and no communication. A rank that hears of it too late does not save, so that this
        generation stays incomplete and does no harm. Ask it last, after the script's own reasons to save:
        `if step % 50 == 0 or checkpointer.due(step)`.
        """
        if self._request.step() != step:
            return False
        self._due_step = step
        return True

    def save(self, step: int, *, wait: bool = False) -> bool:
        """Copy the state into shared memory; False when the save was skipped because the sidecar is behind.

        With `wait`, never skips, and returns when the save is committed. Steps must grow; saving the step of the last
        save again does nothing. Raises CheckpointError.
        """
        if self._run is None:
            raise CheckpointError("call restore() before the first save: it returns 0 when there is nothing to restore")
        if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step <= MAX_STEP:
            raise ValueError(f"step must be an integer from 0 to {MAX_STEP}, not {step!r}")
        if self._last_step is not None and step < self._last_step:
            raise ValueError(f"step {step} is before the last saved step {self._last_step}: steps must grow")
        alone = self._alone if self._alone is not None and self._alone[1].step == step else None
        if step == self._due_step and not wait and alone is None:
            saved = self._save_alone(step, self._run)
        elif step != self._last_step or self._last is None or alone is not None:
            saved = self._save_together(step, self._run, alone, wait=wait or self._when_busy == "wait")
        else:
            saved = True
        if not saved:
            self.skipped += 1
            self._metrics.skipped.labels(self._label).inc()
            _log.warning("save skipped: the sidecar is still busy with an earlier one: step=%d", step)
            return False
        if wait:
            self.wait()
        return True

    def _save_alone(self, step: int, run: int) -> bool:
        """A save that was asked for: others may not have heard of it, and would not take part in a vote."""
        index = self._vote.alone()
        if index is None:
            return False
        # It may stay incomplete: nothing that `close` waits for.
        self._alone = (index, self._copy(index, step, run))
        return True

    def _save_together(self, step: int, run: int, alone: tuple[int, SlotHeader] | None, *, wait: bool) -> bool:
        """A save with all ranks. `alone`: this one has saved this very step already, and only votes."""
        with self._metrics.waiting(self._label):
            index = self._vote.together(wait=wait, mine=alone[0] if alone else None)
        if index is None:
            return False
        self._last = alone or (index, self._copy(index, step, run))
        self._alone = None
        return True

    def wait(self, timeout: float = 600.0) -> None:
        """Wait until the last save is committed.

        Raises CheckpointError after `timeout` seconds, when the storage refuses it, when the attempt was superseded,
        and when the sidecar gives no sign of life for a minute.
        """
        if self._last is None or self._run is None:
            return
        with self._metrics.waiting(self._label):
            self._wait_for(*self._last, timeout)

    def _wait_for(self, index: int, header: SlotHeader, timeout: float) -> None:
        started = alive_at = logged_at = time.monotonic()
        failed_at: float | None = None
        while True:
            status = read_status(status_path(self._slots.directory))
            entry = status.of(index, header)
            if (entry and entry.progress is Progress.COMMITTED) or status.has_committed(header.step, header.run):
                return
            what = f"step {header.step} is in shared memory but not committed"
            now = time.monotonic()
            failed = entry is not None and entry.progress is Progress.FAILED
            failed_at = (failed_at or now) if failed else None
            if entry and (entry.progress is Progress.REFUSED or (failed_at and now - failed_at >= FAILED_SECONDS)):
                raise CheckpointError(f"{what}: {entry.error}")
            if sidecar_alive(self._environment.shm, time.time()):
                alive_at = now
            if now - alive_at > SIDECAR_GONE_SECONDS:
                raise CheckpointError(f"{what}: the checkpoint sidecar is gone; look at container sternpost-checkpoint")
            if now - started > timeout:
                raise CheckpointError(
                    f"{what} after {timeout:.0f} s: the storage is slow, or another rank has not saved it"
                )
            if now - logged_at > LOG_SECONDS:
                logged_at = now
                progress = entry.progress.value if entry else "queued"
                _log.info(
                    "waiting for the commit: step=%d progress=%s seconds=%.0f", header.step, progress, now - started
                )
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """Wait for the commit of the last save; see `wait`."""
        self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # An error in the training must be seen, at once; the sidecar commits without us.
        if kind is None:
            self.close()

    def _take_up(self, generation: Generation) -> None:
        """A restored save may not be committed yet; it is then the last save, which `close` waits for."""
        for index, header in self._slots.headers().items():
            if Generation(*header.generation) == generation:
                self._last, self._last_step = (index, header), header.step

    def _make_snapshots(self) -> Snapshots:
        return Snapshots(
            replicated=self._replicated,
            rank=self._group.rank,
            world_size=self._group.world_size,
            families=self._training.families,
        )

    def prepare(self) -> None:
        """Do now what would make the next save slower than the others: `restore` does it, for what there is by then."""
        snapshot = self._snapshots.take(self._training.states())
        payload, meta = snapshot.layout.payload_bytes, len(snapshot.meta)
        # An optimizer that has not stepped has no state yet; what it will have is guessed, so that the memory is there.
        future = payload + self._training.future_bytes()
        try:
            self._slots.prepare(future, meta + META_ROOM_BYTES)
        except SharedMemoryError:
            self._slots.prepare(payload, meta)
        self._slots.warm(snapshot)
        if self._measure_floor:
            self._floor = self._slots.measure_floor()

    def _remove_foreign_folders(self) -> None:
        """Free the memory of ranks that this worker no longer has: its number may have changed with the attempt."""
        local_rank, local_world = os.environ.get("LOCAL_RANK", ""), os.environ.get("LOCAL_WORLD_SIZE", "")
        if local_rank != "0" or not local_world.isdecimal():
            return
        own = range(self._group.rank, self._group.rank + int(local_world))
        for rank, directory in ranks_present(self._environment.shm).items():
            if rank not in own:
                _log.info("removing the shared memory of rank %d: it is another worker's now", rank)
                shutil.rmtree(directory, ignore_errors=True)

    def _copy(self, index: int, step: int, run: int) -> SlotHeader:
        started = time.perf_counter()
        snapshot = self._snapshots.take(self._training.states())
        payload_bytes = snapshot.layout.payload_bytes
        meta_offset = self._slots.write(index, snapshot)
        meta_hash = xxhash.xxh3_128_digest(snapshot.meta)
        blocked = time.perf_counter() - started
        header = SlotHeader(
            sequence=self._slots.next_sequence(),
            step=step,
            run=run,
            attempt_number=self._environment.attempt_number,
            attempt_id=self._environment.attempt_id,
            world_size=self._group.world_size,
            rank=self._group.rank,
            payload_bytes=payload_bytes,
            meta_offset=meta_offset,
            meta_bytes=len(snapshot.meta),
            meta_hash=meta_hash,
            saved_at=time.time(),
            blocked_seconds=blocked,
            memcpy_floor_seconds=self._floor * payload_bytes,
        )
        self._slots.publish(index, header)
        self._metrics.blocked.labels(self._label).observe(blocked)
        self._last_step = step
        return header
