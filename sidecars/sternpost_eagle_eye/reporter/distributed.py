"""Measures, in DistributedDataParallel, how long this rank waits for the gradients of the others. The only user of torch.

From the moment the last bucket of a backward pass is handed to the all-reduce, a rank has nothing left to compute but to
wait; the wait ends when the last all-reduce is done. What a rank needs for itself is the rest of the step: it grows on a slow
machine, while the step itself takes equally long everywhere.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sternpost_eagle_eye.reporter.wait_clock import WaitClock

if TYPE_CHECKING:
    import torch
    from torch._C._distributed_c10d import GradBucket

    Hook = Callable[[Any, GradBucket], torch.futures.Future[torch.Tensor]]

log = logging.getLogger(__name__)


class _BucketWatch:
    """Counts the buckets under way; the wait lasts from the last one's launch until none is left."""

    def __init__(self, clock: WaitClock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._under_way = 0
        self._waiting = False

    def launched(self, last: bool) -> None:
        with self._lock:
            self._under_way += 1
            if last and not self._waiting:
                self._waiting = True
                self._clock.enter()

    def done(self) -> None:
        with self._lock:
            self._under_way -= 1
            if self._under_way <= 0 and self._waiting:
                self._waiting = False
                self._clock.leave()


def attach(model: Any, clock: WaitClock, hook: Hook | None = None, state: object = None) -> bool:
    """Register a communication hook on a DistributedDataParallel that reports its waits to `clock`.

    Without `hook` it averages exactly as DDP does without one, to the bit. (One exception: gradients kept in the buckets by
    `gradient_as_bucket_view=True` with `zero_grad(set_to_none=False)` are divided there; for a number of ranks that is not a
    power of two the last bit can differ.) A script's own hook is given as `hook` with its
    `state`. Returns False, after a warning that says why, where waits cannot be measured; the training is not touched then.
    """
    import torch  # noqa: PLC0415 - only where a model is attached
    import torch.distributed as dist  # noqa: PLC0415
    from torch.nn.parallel import DistributedDataParallel  # noqa: PLC0415

    if not isinstance(model, DistributedDataParallel):
        raise TypeError(
            f"attach() takes a torch DistributedDataParallel, not a {type(model).__name__}; "
            "for anything else wrap the waits in `with reporter.collective():`"
        )
    if any(parameter.device.type != "cpu" for parameter in model.parameters()):
        # There the all-reduce is queued on a stream and its future is complete at once: host time stamps would be wrong.
        log.warning(
            "waits for other ranks are not measured on %s: sternpost_compute_seconds is the whole step; "
            "wrap blocking collectives in `with reporter.collective():`",
            next(p.device.type for p in model.parameters() if p.device.type != "cpu"),
        )
        return False
    group = model.process_group
    size = dist.get_world_size(group)
    watch = _BucketWatch(clock)

    def average(_state: object, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
        # DDP's own path multiplies by the reciprocal while it copies into the bucket; torch's example hook divides.
        tensor = bucket.buffer().mul_(1.0 / size)
        future = dist.all_reduce(tensor, group=group, async_op=True).get_future()
        return future.then(lambda done: done.value()[0])

    inner = hook or average

    def measured(_state: object, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
        future = inner(state, bucket)

        def finished(done: torch.futures.Future[torch.Tensor]) -> torch.Tensor:
            watch.done()
            return done.value()

        watch.launched(bucket.is_last())
        return future.then(finished)

    # DDP checks the annotations, which are only strings in this file.
    measured.__annotations__ = {
        "_state": object,
        "bucket": dist.GradBucket,  # type: ignore[attr-defined]
        "return": torch.futures.Future[torch.Tensor],
    }
    try:
        model.register_comm_hook(None, measured)
    except RuntimeError as error:
        log.warning(
            "waits for other ranks are not measured: %s; give the hook that is there to attach(model, hook=…)", error
        )
        return False
    return True
