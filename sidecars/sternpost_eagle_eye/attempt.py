"""The Attempt object, as far as a sidecar reads it: who takes part, and as what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from sternpost_eagle_eye.config import EagleEyePolicy
from sternpost_eagle_eye.wire import ShortText, Wire

MAX_ATTEMPT_BYTES = 16 * 1024 * 1024
"""10,000 workers need about 2 MiB."""


class Member(Wire):
    """A Pod of the attempt; a spare unless it is a `Worker`."""

    pod: ShortText
    uid: ShortText
    node: ShortText
    address: ShortText
    eagle_eye_port: int = Field(ge=1, le=65535)


class Worker(Member):
    """A Pod that has ranks."""

    index: int = Field(ge=0)


class AttemptSpec(Wire):
    """The run of the ranks that counts now."""

    job: ShortText
    job_uid: ShortText
    number: int = Field(ge=1)
    id: Annotated[str, Field(min_length=1, max_length=128)]
    action: Literal["run", "hold", "stop"]
    ranks_per_worker: int = Field(1, ge=1, le=1024)
    workers: tuple[Worker, ...] = Field(default=(), max_length=20_000)
    spares: tuple[Member, ...] = Field(default=(), max_length=20_000)
    eagle_eye: EagleEyePolicy | None = None
    """Thresholds that count in place of those the Pod was made with."""
    issued_at: AwareDatetime


class Attempt(Wire):
    """`attempts.sternpost.dev/v1alpha1`."""

    spec: AttemptSpec

    def members(self) -> Iterator[tuple[int | None, Member]]:
        """All Pods with their worker index; None for spares."""
        for worker in self.spec.workers:
            yield worker.index, worker
        for spare in self.spec.spares:
            yield None, spare

    def runs(self) -> bool:
        """Whether there are ranks to watch."""
        return self.spec.action == "run"

    def judge(self) -> Worker | None:
        """Worker 0, to whom all report; None on hold or stop."""
        return next((worker for worker in self.spec.workers if worker.index == 0), None) if self.runs() else None

    def order(self) -> tuple[int, float]:
        """A later version of the object compares greater or equal."""
        return self.spec.number, self.spec.issued_at.timestamp()
