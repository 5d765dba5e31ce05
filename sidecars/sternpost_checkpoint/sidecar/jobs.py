"""The two pieces of work of the sidecar: make a save durable, commit a generation. Run in threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.errors import CheckpointError, FencedError, TornSlotError
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.shm.layout import SlotHeader
from sternpost_checkpoint.shm.status import Progress
from sternpost_checkpoint.sidecar.attempt import Attempt
from sternpost_checkpoint.sidecar.commit import Outcome, check_eligible, is_committed, try_commit
from sternpost_checkpoint.sidecar.metrics import Metrics
from sternpost_checkpoint.sidecar.persist import persist
from sternpost_checkpoint.sidecar.rank import RankFolder, Save

_log = structlog.get_logger()


@dataclass
class Fence:
    """Refuses what holders of an old attempt save after the new one is known."""

    current: Attempt | None = None
    pending: frozenset[tuple[int, int]] = frozenset()
    """(rank, sequence) of the saves that were there when the current attempt became known: the survivors' flush."""

    def check(self, rank: int, header: SlotHeader) -> None:
        """Raise FencedError when this save may not be committed."""
        current = self.current
        if current is None or (header.attempt_number, header.attempt_id) == (current.number, current.id):
            return
        if header.attempt_number > current.number or (rank, header.sequence) in self.pending:
            return
        raise FencedError(
            f"step {header.step} of attempt {header.attempt_id} is refused: it was saved after attempt {current.id} began"
        )


class Jobs:
    """Work on one storage. A failure is written down where the trainer sees it; the older generations stay valid."""

    def __init__(
        self, catalog: Catalog, fence: Fence, metrics: Metrics, *, job_uid: str, keep: int, clock: Callable[[], float]
    ) -> None:
        self._catalog = catalog
        self._fence = fence
        self._metrics = metrics
        self._job_uid = job_uid
        self._keep = keep
        self._clock = clock

    def persist(self, folder: RankFolder, save: Save) -> bool:
        """Make a save durable; True when its generation waits for the commit then."""
        header, generation = save.header, Generation(*save.header.generation)
        try:
            self._fence.check(save.rank, header)
            check_eligible(self._catalog, generation)
            if not is_committed(self._catalog, generation):
                folder.mark(save.index, header, Progress.PERSISTING)
                started = time.perf_counter()
                done = persist(self._catalog.store, save.slot, header, self._job_uid)
                self._metrics.raw_bytes.inc(done.raw_bytes)
                self._metrics.stored_bytes.inc(done.stored_bytes)
                self._metrics.persist_seconds.set(time.perf_counter() - started)
                folder.mark(save.index, header, Progress.STORED, payload_hash=done.payload_hash)
            else:
                folder.mark(save.index, header, Progress.STORED)
        except TornSlotError:
            _log.info("a save was overwritten before it was stored", rank=save.rank, step=header.step)
            return False
        except FencedError as error:
            _log.warning("a save is refused", rank=save.rank, step=header.step, reason=str(error))
            folder.mark(save.index, header, Progress.REFUSED, str(error))
            return False
        except (CheckpointError, OSError) as error:
            self._metrics.failures.inc()
            self._metrics.failed(f"step {header.step} is not stored: {error}")
            pause = folder.postpone(header, self._clock())
            _log.error(  # the reason says it all
                "a save is not stored; the older generations stay valid",
                rank=save.rank,
                step=header.step,
                reason=str(error),
                retry_seconds=pause,
            )
            folder.mark(save.index, header, Progress.FAILED, str(error))
            return False
        return True

    def commit(
        self, rank: int, header_check: Callable[[], None], generation: Generation, world_size: int
    ) -> bool | None:
        """Try to commit: True done, False later, None never."""
        try:
            outcome = try_commit(self._catalog, generation, world_size, self._keep, header_check)
        except FencedError as error:
            _log.warning("a generation is refused", rank=rank, step=generation.step, reason=str(error))
            return None
        except (CheckpointError, OSError) as error:
            self._metrics.failures.inc()
            self._metrics.failed(f"step {generation.step} is not committed: {error}")
            _log.error("a generation is not committed yet; tried again", step=generation.step, reason=str(error))
            return False
        if outcome is Outcome.COMMITTED:
            self._metrics.succeeded()
            self._metrics.committed_step.set(generation.step)
            self._metrics.committed_timestamp.set(time.time())
            return True
        return False
