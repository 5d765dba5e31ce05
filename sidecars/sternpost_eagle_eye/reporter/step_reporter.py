"""StepReporter: two or three lines in a training script tell Sternpost how it is going."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, SupportsFloat

from prometheus_client import REGISTRY, CollectorRegistry

from sternpost_eagle_eye.reporter.exporter import Exporter
from sternpost_eagle_eye.reporter.trainer_metrics import PHASES, TrainerMetrics
from sternpost_eagle_eye.reporter.wait_clock import WaitClock


class StepReporter:
    """Measures steps and serves them on `STERNPOST_METRICS_PORT`, beside the Checkpointer's metrics.

        reporter = StepReporter(model=ddp_model)
        for step in range(start + 1, steps + 1):
            with reporter.step(step):
                loss = train(step)
            reporter.report(loss=loss, samples=batch_size)

    A step's number is the count of steps completed when it is done: the first one ever is 1, and a run that restored step 40
    goes on with 41. Without the port variable it measures and serves nothing; if the port is taken it warns and the training
    goes on. One reporter a process; `close()` frees port and names. Not for several threads at once.
    """

    def __init__(
        self,
        model: object | None = None,
        *,
        registry: CollectorRegistry = REGISTRY,
        environ: Mapping[str, str] = os.environ,
        monotonic: Callable[[], float] = time.perf_counter,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`model`: a DistributedDataParallel, the same as `attach(model)`. Raises RuntimeError for a second reporter."""
        try:
            self._metrics = TrainerMetrics(registry, environ.get("RANK", "0"), environ.get("STERNPOST_ATTEMPT", ""))
        except ValueError as error:
            raise RuntimeError(
                f"this process has a StepReporter already (or other metrics of that name); use that one: {error}"
            ) from error
        self._monotonic = monotonic
        self._wall = wall
        self._waits = WaitClock(lambda waiting: self._metrics.in_collective.set(1 if waiting else 0), monotonic)
        self._phase = "init"
        self._metrics.set_phase(self._phase)
        self._first_step_done = False
        self._mark: tuple[float, float] | None = None
        """Time and total wait at the last completed step."""
        self._elsewhere = 0.0
        """Seconds since then in phases that are not training."""
        if model is not None:
            self.attach(model)
        self._exporter = Exporter(registry, environ)

    @property
    def port(self) -> int | None:
        """Where the page is served; None if nowhere."""
        return self._exporter.port

    def attach(self, model: object, *, hook: Any = None, state: object = None) -> bool:
        """Measure the waits in this DistributedDataParallel, so that compute time can be told from step time.

        `hook` and `state`: the communication hook that the script would have registered. Returns whether waits are measured;
        on devices with streams of their own (CUDA) they are not, and compute time is the whole step.
        """
        from sternpost_eagle_eye.reporter.distributed import attach  # noqa: PLC0415 - torch is imported only when asked for

        return attach(model, self._waits, hook, state)

    @contextmanager
    def step(self, step: int) -> Iterator[StepReporter]:
        """The body is step `step`; when it raises, the step does not count."""
        started, waited = self._monotonic(), self._waits.total()
        yield self
        seconds = self._monotonic() - started
        self._completed(step, seconds, self._waits.total() - waited)

    def step_completed(
        self,
        step: int,
        *,
        loss: SupportsFloat | None = None,
        grad_norm: SupportsFloat | None = None,
        samples: int | None = None,
    ) -> None:
        """The simple form: called once at the end of each step; its duration is the time since the call before.

        Time in `phase(...)` is taken off. The first call of a process has no duration.
        """
        self.report(loss=loss, grad_norm=grad_norm, samples=samples)
        if self._mark is None:
            self._completed(step, None, 0.0)
            return
        at, waited = self._mark
        seconds = max(0.0, self._monotonic() - at - self._elsewhere)
        self._completed(step, seconds, self._waits.total() - waited)

    def report(
        self,
        *,
        loss: SupportsFloat | None = None,
        grad_norm: SupportsFloat | None = None,
        samples: int | None = None,
    ) -> None:
        """What is known now; tensors are read (`float(tensor)` waits for the device) only when given here."""
        if loss is not None:
            self._metrics.set_loss(_number(loss))
        if grad_norm is not None:
            self._metrics.set_grad_norm(_number(grad_norm))
        if samples is not None:
            self._metrics.samples.inc(samples)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """The body is `eval` or `checkpoint`, in which no steps are expected. Raises ValueError for an unknown phase."""
        if name not in PHASES:
            raise ValueError(f"unknown phase {name!r}; it is one of {', '.join(PHASES)}")
        before, started = self._phase, self._monotonic()
        self._set_phase(name)
        try:
            yield
        finally:
            self._set_phase(before)
            if before in ("init", "train"):  # a nested phase is part of the outer one's time
                self._elsewhere += self._monotonic() - started

    @contextmanager
    def collective(self) -> Iterator[None]:
        """The body waits for other ranks: a barrier, an all-reduce of the loss."""
        self._waits.enter()
        try:
            yield
        finally:
            self._waits.leave()

    def close(self) -> None:
        """Stop serving and free the metrics' names."""
        self._exporter.close()
        self._metrics.unregister()

    def _set_phase(self, name: str) -> None:
        self._phase = name
        self._metrics.set_phase(name)

    def _completed(self, step: int, seconds: float | None, waited: float) -> None:
        now = self._wall()
        if seconds is not None:
            self._metrics.step_seconds.observe(seconds)
            self._metrics.compute_seconds.observe(max(0.0, seconds - waited))
        if not self._first_step_done:
            self._first_step_done = True
            self._metrics.first_step_completed(step, now)
        # Until its first step is done a trainer is starting: it compiles, warms up, connects.
        if self._phase == "init":
            self._set_phase("train")
        self._metrics.step_completed(step, now)
        self._mark = (self._monotonic(), self._waits.total())
        self._elsewhere = 0.0


def _number(value: SupportsFloat) -> float:
    """A tensor that is part of a graph warns when it is read, unless it is detached first."""
    detach = getattr(value, "detach", None)
    return float(detach() if callable(detach) else value)
