"""The operator of one job on this machine: `python -m sternpost_operator.local_run.operator_loop`.

It holds nothing that is not in the objects folder: killed at any moment, it is started again and goes on. Its log is
JSON lines on standard error.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import structlog
import typer

from sternpost_operator.cluster.local.cluster import LocalCluster
from sternpost_operator.cluster.local.paths import LocalPaths
from sternpost_operator.local_run import snapshot
from sternpost_operator.local_run.log import configure_logging
from sternpost_operator.local_run.snapshot import LoopState
from sternpost_operator.local_run.state import StateDirectory
from sternpost_operator.reconcile import Reconciled, reconcile

PERIOD = 0.2
"""Seconds between two reconciles; at once after one that did something."""
BUSY_PERIOD = 0.02
RETRY_PAUSE = 0.5
"""After something did not answer."""

_log = structlog.get_logger("sternpost.operator")


def _now() -> datetime:
    return datetime.now(UTC)


class OperatorLoop:
    """Reconciles one job again and again, and writes down what it saw."""

    def __init__(self, cluster: LocalCluster, state: StateDirectory, job: str) -> None:
        self._cluster = cluster
        self._state = state
        self._job = job
        self._reconciles = 0
        self._last_loss: tuple[str, int] | None = None
        before = snapshot.load(state.progress)
        self._last_progress = before.observed.last_progress if before is not None else None

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set."""
        while not stop.is_set():
            pause = await self.once()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)

    async def once(self) -> float:
        """One reconcile; the seconds to wait before the next."""
        self._cluster.memory_url = memory_url(self._state.memory_address) or self._cluster.memory_url
        result = await reconcile(self._cluster, self._job, _now, last_progress=self._last_progress)
        if result.observed is not None:
            self._last_progress = result.observed.last_progress
        self._reconciles += 1
        try:
            self._record(result)
        except OSError as error:
            # A full disk must not end the operator: the job goes on, only the view stands still.
            _log.warning("state not written", detail=str(error))
        if result.retry:
            return RETRY_PAUSE
        return BUSY_PERIOD if result.acted or result.changed else PERIOD

    def _record(self, result: Reconciled) -> None:
        if result.job is None or result.observed is None:
            return
        state = LoopState(at=time.time(), reconciles=self._reconciles, job=result.job, observed=result.observed)
        snapshot.save(self._state.progress, state)
        self._record_loss(state)

    def _record_loss(self, state: LoopState) -> None:
        progress = state.observed.progress
        if progress is None or progress.step is None or progress.loss is None:
            return
        if self._last_loss == (progress.attempt, progress.step):
            return
        self._last_loss = (progress.attempt, progress.step)
        line = {"t": progress.at.timestamp(), "step": progress.step, "loss": progress.loss, "attempt": progress.attempt}
        with self._state.losses.open("a") as file:
            file.write(json.dumps(line) + "\n")


def memory_url(address_file: Path) -> str | None:
    """Where the memory service of this run listens; None while it does not."""
    try:
        address = json.loads(address_file.read_bytes())
    except (OSError, ValueError):
        return None
    url = address.get("url") if isinstance(address, dict) else None
    return url if isinstance(url, str) else None


async def _main(state_dir: Path, job: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    state = StateDirectory(state_dir)
    cluster = LocalCluster(LocalPaths(state_dir), memory_url=memory_url(state.memory_address))
    _log.info("operator starts", job=job)
    try:
        await OperatorLoop(cluster, state, job).run(stop)
    finally:
        await cluster.aclose()
    _log.info("operator ends", job=job)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    state_dir: Annotated[Path, typer.Option(help="State directory of the run.")],
    job: Annotated[str, typer.Option(help="Name of the TrainingJob.")],
) -> None:
    """Reconcile one job until the process is ended."""
    configure_logging(sys.stderr)
    asyncio.run(_main(state_dir, job))


if __name__ == "__main__":
    app()
