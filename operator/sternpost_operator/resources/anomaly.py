"""Anomaly: what eagle-eye saw. Written by a sidecar, read by the operator and by people."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from sternpost_operator.resources.base import API_VERSION, Model, Name, ObjectMeta, Time


class AnomalyKind(StrEnum):
    """What is wrong."""

    WORKER_GONE = "worker-gone"
    HANG = "hang"
    SLOW = "slow"
    HARDWARE = "hardware"
    LOSS = "loss"
    DATA_STALL = "data-stall"
    STORAGE_STALL = "storage-stall"
    OUTLIER = "outlier"


class AnomalySpec(Model):
    """Who, what, why one thinks so, and how sure one is."""

    job: Name
    attempt: str
    """Id of the attempt it was seen in; the operator refuses all but the current one's."""
    kind: AnomalyKind
    worker: int | None = Field(None, ge=0)
    """Index of the worker; unset where the job and no worker is to blame."""
    pod: str | None = None
    node: str | None = None
    confidence: float = Field(ge=0, le=1)
    evict: bool = False
    """Whether the evidence is enough to leave the node; otherwise it is only suspected."""
    evidence: str = Field(max_length=4096)
    """In words and numbers, for people."""
    first_seen: Time
    last_seen: Time


class Anomaly(Model):
    """`anomalies.sternpost.dev/v1alpha1`."""

    api_version: Literal["sternpost.dev/v1alpha1"] = API_VERSION
    kind: Literal["Anomaly"] = "Anomaly"
    metadata: ObjectMeta
    spec: AnomalySpec
