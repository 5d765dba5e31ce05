"""The compact vector: all that a sidecar tells worker 0 about its own worker, once a second. Bounded in every part."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from sternpost_eagle_eye.wire import Count, Finite, Seconds, ShortText, Wire

MAX_VECTOR_BYTES = 256 * 1024
MAX_RANKS = 64

LauncherState = Literal["unknown", "waiting", "idle", "preflight", "running", "stopping", "failed", "succeeded"]
TrainingPhase = Literal["init", "train", "eval", "checkpoint"]
RankNumber = Annotated[int, Field(ge=0, le=10_000_000)]


class PageState(StrEnum):
    """What came of scraping a trainer's page."""

    OK = "ok"
    NONE = "none"
    """Nothing listens there: the trainer does not use the StepReporter, or not yet."""
    TIMEOUT = "timeout"
    """Somebody listens and does not answer."""
    ERROR = "error"
    GARBAGE = "garbage"
    TOO_LARGE = "too-large"
    OTHER = "other"
    """The page of another rank or attempt."""
    UNREAD = "unread"
    """Not asked: no ranks are running."""


class ProcessVector(Wire):
    """A rank's process and its descendants, where the sidecar can see them."""

    alive: bool
    stopped: bool = False
    """Stopped by a signal or a tracer."""
    cpu_seconds: Seconds = 0


class RankVector(Wire):
    """One rank: what its trainer's page says, and its process."""

    rank: RankNumber
    page: PageState = PageState.UNREAD
    step: Count | None = None
    loss: float | None = None
    grad_norm: float | None = None
    phase: TrainingPhase | None = None
    in_collective: bool | None = None
    last_step_at: Finite | None = None
    first_step: Count | None = None
    first_step_at: Finite | None = None
    step_sum: Seconds | None = None
    step_count: Count | None = None
    compute_sum: Seconds | None = None
    compute_count: Count | None = None
    samples: Seconds | None = None
    data_sum: Seconds | None = None
    """Waits for input, as far as the report tells them from computing."""
    data_count: Count | None = None
    communication_sum: Seconds | None = None
    """This rank's own part of collectives, without the wait for others."""
    communication_count: Count | None = None
    role: ShortText | None = None
    """Position in pipeline and tensor groups: only ranks of the same role are peers."""
    blocked_sum: Seconds | None = None
    blocked_count: Count | None = None
    checkpoint_waiting: bool | None = None
    restored_step: int | None = Field(None, ge=-1, le=2**53)
    restore_seconds: Seconds | None = None
    restore_at: Finite | None = None
    restore_source: Literal["shared-memory", "peer", "storage", "none"] | None = None
    process: ProcessVector | None = None


class RankProcess(Wire):
    """One rank in `launcher.json`."""

    rank: RankNumber
    local_rank: int = Field(ge=0, lt=MAX_RANKS)
    pid: int | None = Field(None, ge=1)
    exit_code: int | None = Field(None, ge=-1000, le=1000)
    exited_at: Finite | None = None


class LauncherVector(Wire):
    """`launcher.json`, as far as worker 0 needs it."""

    attempt: Annotated[str, Field(max_length=128)] = ""
    state: LauncherState = "unknown"
    message: Annotated[str, Field(max_length=1024)] = ""
    updated_at: Finite
    terminated_at: Finite | None = None
    started_at: Finite | None = None
    ranks: tuple[RankProcess, ...] = Field(default=(), max_length=MAX_RANKS)


class MachineVector(Wire):
    """The machine as psutil sees it; totals are counters since boot."""

    cpu_busy: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of all processors since the vector before."""
    load: Seconds | None = None
    """One minute load average."""
    memory_total: Count | None = None
    memory_available: Count | None = None
    shared_memory_total: Count | None = None
    shared_memory_free: Count | None = None
    network_received: Count | None = None
    network_sent: Count | None = None


class CheckpointVector(Wire):
    """The checkpoint sidecar's page."""

    committed_step: Count | None = None
    committed_at: Finite | None = None
    raw_bytes: Seconds | None = None
    stored_bytes: Seconds | None = None
    problem: Annotated[str, Field(max_length=512)] | None = None
    """Why the last save, commit or fetch failed."""


Total = Seconds
"""A counter since whenever its owner started: only differences count."""
Share = Annotated[float, Field(ge=0, le=1)]


class ExporterVector(Wire):
    """The worker's node, container and GPUs as DCGM, node_exporter and cAdvisor describe them; anything may be missing.

    Totals are sums over GPUs, devices and processors. Of gauges the name says whether it is the least, the most or the mean.
    """

    at: Finite
    """When it was scraped, in seconds: the same time means that nothing new is known."""

    gpus: Count | None = None
    """How many were listed; None where no DCGM answered."""
    xids: tuple[tuple[ShortText, int], ...] = Field(default=(), max_length=MAX_RANKS)
    """GPU and its last XID, where it had one: a gauge that never goes back."""
    xid_counts: tuple[tuple[int, float], ...] = Field(default=(), max_length=MAX_RANKS)
    """Total by XID, where that is exported."""
    gpu_util: Share | None = None
    gpu_util_least: Share | None = None
    engine_active: Share | None = None
    tensor_active: Share | None = None
    dram_active: Share | None = None
    gpu_power: Seconds | None = None
    """Watts, mean."""
    gpu_temperature: Finite | None = None
    """Celsius, most."""
    memory_temperature: Finite | None = None
    sm_clock: Seconds | None = None
    """MHz, mean."""
    sm_clock_least: Seconds | None = None
    framebuffer_used: Seconds | None = None
    """MiB, most."""
    throttle_reasons: Count | None = None
    """Bits of all GPUs together."""
    thermal_violation: Total | None = None
    pcie_replays: Total | None = None
    pcie_bytes: Total | None = None
    nvlink_bytes: Total | None = None
    nvlink_errors: Total | None = None
    ecc_double_bit: Total | None = None
    remapped_rows: Total | None = None
    """Uncorrectable."""
    remap_failures: Total | None = None

    cpu_total: Total | None = None
    """Processor seconds in all modes."""
    cpu_idle: Total | None = None
    cpu_iowait: Total | None = None
    cpu_steal: Total | None = None
    load: Seconds | None = None
    memory_total: Seconds | None = None
    memory_available: Seconds | None = None
    oom_kills: Total | None = None
    edac_uncorrectable: Total | None = None
    disk_io_time: Total | None = None
    disk_operations: Total | None = None
    disk_operation_time: Total | None = None
    disk_read_bytes: Total | None = None
    disk_written_bytes: Total | None = None
    filesystem_free: Share | None = None
    """Of the fullest file system."""
    filesystem_read_only: bool | None = None
    network_received: Total | None = None
    network_sent: Total | None = None
    network_errors: Total | None = None
    """Errors and drops, both ways."""
    network_speed: Seconds | None = None
    """Bytes a second, of all interfaces that are up."""
    network_down: Count | None = None
    """Interfaces without a carrier."""
    tcp_retransmits: Total | None = None
    tcp_sent: Total | None = None
    infiniband_received: Total | None = None
    infiniband_sent: Total | None = None
    infiniband_errors: Total | None = None
    infiniband_wait: Total | None = None
    """Ticks in which a port had data to send and no credit to send it."""
    infiniband_link_downed: Total | None = None
    infiniband_rate: Seconds | None = None
    """Bytes a second, of all ports."""
    infiniband_inactive: Count | None = None
    """Ports that are in no active state."""
    pressure_cpu: Total | None = None
    pressure_io: Total | None = None
    pressure_memory: Total | None = None
    boot_time: Seconds | None = None

    container_cpu: Total | None = None
    container_throttled: Total | None = None
    container_memory: Seconds | None = None
    container_memory_limit: Seconds | None = None
    container_oom_events: Total | None = None
    container_received: Total | None = None
    container_sent: Total | None = None


LogSignature = Literal[
    "oom", "cuda-oom", "xid", "gpu-lost", "ecc", "cuda-error", "nccl-timeout", "nccl-error", "no-space", "io-error",
    "crash", "nan",
]  # fmt: skip


class LogSign(Wire):
    """A line of the trainer's or the machine's log that says something known."""

    signature: LogSignature
    code: int | None = None
    """The XID, or the exit code."""
    line: Annotated[str, Field(max_length=300)] = ""


class Vector(Wire):
    """One worker (or spare) at one instant."""

    attempt: Annotated[str, Field(min_length=1, max_length=128)]
    """Id of the attempt the sender believes to be current; worker 0 refuses any but its own."""
    pod_uid: ShortText
    boot: ShortText
    """Names the run of the sending sidecar."""
    sequence: Count
    """Grows within a boot."""
    launcher: LauncherVector | None = None
    ranks: tuple[RankVector, ...] = Field(default=(), max_length=MAX_RANKS)
    machine: MachineVector | None = None
    checkpoint: CheckpointVector | None = None
    exporters: ExporterVector | None = None
    """None where nothing new was scraped."""
    logs: tuple[LogSign, ...] = Field(default=(), max_length=64)
    """New since the vector before."""
    worker: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    """Index and node: set in recordings only. Live, the Attempt says who is who."""
    node: ShortText | None = None
    dropped: Count = 0
    """Samples and pages that made no sense, since the sidecar started."""
