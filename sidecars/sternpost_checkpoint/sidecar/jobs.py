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
from sternpost_checkpoint.sidecar.config import CheckpointPolicy
from sternpost_checkpoint.sidecar.encoder import Encoding, RankEncoder, Resources
from sternpost_checkpoint.sidecar.metrics import Metrics
from sternpost_checkpoint.sidecar.persist import Persist
from sternpost_checkpoint.sidecar.rank import RankFolder, Save
from sternpost_checkpoint.sidecar.workers import GivenUpError, touch

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
        self,
        catalog: Catalog,
        fence: Fence,
        metrics: Metrics,
        resources: Resources,
        *,
        job_uid: str,
        policy: CheckpointPolicy,
        clock: Callable[[], float],
    ) -> None:
        self._catalog = catalog
        self._fence = fence
        self._metrics = metrics
        self._resources = resources
        self._job_uid = job_uid
        self._policy = policy
        self._clock = clock
        self._encoders: dict[int, RankEncoder] = {}
        self._encodings: dict[int, Encoding] = {}

    def persist(self, folder: RankFolder, save: Save, before_index: Callable[[], None]) -> bool:
        """Make a save durable; True when its generation waits for the commit then.

        `before_index`: see `Persist`. Raises GivenUpError when `give_up` was called for it.
        """
        header, generation = save.header, Generation(*save.header.generation)
        encoder = self._encoders.get(save.rank)
        if encoder is None:
            encoder = RankEncoder(self._policy.codec_policy, self._resources, keep=self._policy.keep)
            self._encoders[save.rank] = encoder
        encodings: list[Encoding] = []

        def started(encoding: Encoding) -> None:
            encodings.append(encoding)
            self._encodings[save.rank] = encoding

        try:
            self._fence.check(save.rank, header)
            check_eligible(self._catalog, generation)
            if not is_committed(self._catalog, generation):
                folder.mark(save.index, header, Progress.PERSISTING)
                done = Persist(self._catalog, encoder, self._job_uid)(
                    save.slot, header, before_index=before_index, started=started
                )
                if done.encoding is not None:
                    self._metrics.saved(done.encoding, done.seconds, encoder.pressure.shortage)
                folder.mark(save.index, header, Progress.STORED, payload_hash=done.payload_hash)
            else:
                folder.mark(save.index, header, Progress.STORED)
        except GivenUpError:
            raise
        except TornSlotError:
            touch()
            _log.info("a save was overwritten before it was stored", rank=save.rank, step=header.step)
            return False
        except FencedError as error:
            touch()
            _log.warning("a save is refused", rank=save.rank, step=header.step, reason=str(error))
            folder.mark(save.index, header, Progress.REFUSED, str(error))
            return False
        except (CheckpointError, OSError) as error:
            touch()  # whoever gave this up has written down why, and its successor may be at work
            self._not_stored(folder, save, str(error))
            return False
        finally:
            if self._encodings.get(save.rank) in encodings:
                del self._encodings[save.rank]
        return True

    def give_up(self, folder: RankFolder, save: Save, reason: str) -> None:
        """`persist` is stuck in another thread. Its memory is free from now on, and its slot; it is tried again later."""
        encoding = self._encodings.pop(save.rank, None)
        # A new one: the thread that is stuck must not come back into what its successor works with.
        encoder = self._encoders.pop(save.rank, None)
        if encoder is not None:
            if encoding is not None:
                encoder.failed(encoding)
            encoder.close()
        self._not_stored(folder, save, reason)

    def forget(self, rank: int) -> None:
        """The rank's folder is gone."""
        encoder = self._encoders.pop(rank, None)
        if encoder is not None:
            encoder.close()

    def show(self) -> None:
        """Bring the metrics of what is going on up to date."""
        for rank, encoding in list(self._encodings.items()):
            self._metrics.progress.labels(str(rank)).set(encoding.raw_bytes / max(encoding.raw_bytes_total, 1))
        self._metrics.memory_bytes.labels("pipeline").set(self._resources.memory.used)
        self._metrics.memory_bytes.labels("bases").set(self._resources.bases.used)

    def _not_stored(self, folder: RankFolder, save: Save, reason: str) -> None:
        header = save.header
        self._metrics.failures.inc()
        self._metrics.failed(f"step {header.step} is not stored: {reason}")
        pause = folder.postpone(header, self._clock())
        _log.error(
            "a save is not stored; the older generations stay valid",
            rank=save.rank,
            step=header.step,
            reason=reason,
            retry_seconds=pause,
        )
        folder.mark(save.index, header, Progress.FAILED, reason)

    def commit(
        self, rank: int, header_check: Callable[[], None], generation: Generation, world_size: int
    ) -> bool | None:
        """Try to commit: True done, False later, None never."""
        try:
            outcome = try_commit(self._catalog, generation, world_size, self._policy.keep, header_check)
        except FencedError as error:
            _log.warning("a generation is refused", rank=rank, step=generation.step, reason=str(error))
            return None
        except GivenUpError:
            raise
        except (CheckpointError, OSError) as error:
            touch()
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
