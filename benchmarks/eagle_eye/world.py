"""The machines around a job, second by second: what each slows down, and what happens to it. Faults are written into this."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmarks.eagle_eye.job import Job, Random

Array = NDArray[np.float64]


@dataclass
class Standstill:
    """From `at` on no rank completes a step."""

    at: float
    outside: frozenset[int]
    """Ranks that are not in the collective in which the others wait."""
    phase: str = "train"
    """Reached at the first phase of that name after `at`."""


@dataclass
class World:
    """Grids are [second, worker] unless they say otherwise; times are seconds from the start."""

    job: Job
    seconds: int
    compute: Array
    """Factor on compute time."""
    jitter: Array
    """Additional relative noise of compute time."""
    data_wait: Array
    """Seconds a step waits for input."""
    clock: Array
    """Share of the nominal GPU clock."""
    heat: Array
    """Degrees above the usual."""
    steal: Array
    """Share of the processors taken by other guests."""
    quota: Array
    """Share of time in which the container's processes are held back."""
    io_wait: Array
    """Share of the processors that wait for devices."""
    disk_latency: Array
    """Factor on the time of a write."""
    disk_free: Array
    """Share of the checkpoint volume that is free."""
    memory: Array
    """Share of the container's memory in use."""
    retransmits: Array
    """Share of packets sent twice."""
    link_errors: Array
    """Symbol errors a second."""
    link_rate: Array
    """Share of the nominal speed."""
    congestion: Array
    """Share of time in which the port has data and may not send."""
    communication: Array
    """[second] factor on the job's communication."""
    blocked: Array
    """[second] factor on the time of a save."""
    link_downs: list[tuple[float, int]] = field(default_factory=list)
    node_gone: dict[int, float] = field(default_factory=dict)
    rank_gone: dict[int, float] = field(default_factory=dict)
    standstill: Standstill | None = None
    xids: list[tuple[float, int, int, int]] = field(default_factory=list)
    """Time, worker, GPU, code."""
    double_bit: list[tuple[float, int, int]] = field(default_factory=list)
    remap_failed: list[tuple[float, int, int]] = field(default_factory=list)
    memory_controller: list[tuple[float, int]] = field(default_factory=list)
    """Uncorrectable errors of the host's memory."""
    gpu_gone: dict[tuple[int, int], float] = field(default_factory=dict)
    out_of_memory: list[tuple[float, int]] = field(default_factory=list)
    loss_from: tuple[float, float, float] | None = None
    """Time, and what loss and gradient norm are from then on."""
    logs: list[tuple[float, int, str]] = field(default_factory=list)
    silences: list[tuple[float, float, int]] = field(default_factory=list)
    """From, until, worker: its sidecar says nothing."""
    exporter_restarts: list[tuple[float, float, int, str]] = field(default_factory=list)
    """From, until, worker, page."""
    loss_spikes: list[tuple[float, float, float]] = field(default_factory=list)
    """From, until, factor."""

    def span(self, start: float, end: float | None = None) -> slice:
        """Rows of a stretch of time."""
        stop = self.seconds if end is None else int(min(end, self.seconds))
        return slice(int(max(0, start)), max(stop, int(max(0, start)) + 1))


def quiet_world(job: Job, seconds: int) -> World:
    """Nothing happens."""
    shape = (seconds, job.workers)

    def grid(value: float) -> Array:
        return np.full(shape, value, dtype=float)

    return World(
        job=job,
        seconds=seconds,
        compute=grid(1),
        jitter=grid(0),
        data_wait=grid(0),
        clock=grid(1),
        heat=grid(0),
        steal=grid(0),
        quota=grid(0),
        io_wait=grid(0.01),
        disk_latency=grid(1),
        disk_free=grid(0.6),
        memory=grid(0.5),
        retransmits=grid(0.0002),
        link_errors=grid(0),
        link_rate=grid(1),
        congestion=grid(0.02),
        communication=np.ones(seconds),
        blocked=np.ones(seconds),
    )


def ordinary_world(job: Job, seconds: int, random: Random) -> World:
    """What a healthy cluster does all day: nothing here is a fault."""
    world = quiet_world(job, seconds)
    workers, hours = job.workers, seconds / 3600
    clock = np.arange(seconds)
    # Load of the day: rooms get warmer, shared networks and storage busier.
    day = np.sin(2 * np.pi * (clock / 86400 + random.random()))
    world.heat += (2.5 * day)[:, None] + random.normal(0, 2.0, workers)
    world.communication *= 1 + 0.08 * day + 0.03 * np.sin(2 * np.pi * clock / random.uniform(200, 900))
    world.compute *= (1 + 0.01 * day)[:, None]
    world.memory += random.uniform(-0.15, 0.25, workers) + 0.02 * clock[:, None] / 3600
    world.disk_free += random.uniform(-0.35, 0.3, workers)
    world.retransmits *= np.exp(random.normal(0, 1, workers))
    for _ in range(random.poisson(10 * hours)):  # noisy neighbours
        start, worker = random.uniform(0, seconds), int(random.integers(workers))
        rows = world.span(start, start + random.uniform(8, 60))
        factor = random.uniform(1.02, 1.15)
        world.compute[rows, worker] *= factor
        world.steal[rows, worker] += (factor - 1) * random.uniform(0.3, 0.8)
        world.io_wait[rows, worker] += random.uniform(0, 0.1)
    for _ in range(random.poisson(12 * hours)):  # stragglers that recover by themselves
        start, worker = random.uniform(0, seconds), int(random.integers(workers))
        factor = random.uniform(1.15, 2.6)
        world.compute[world.span(start, start + random.uniform(2, 10 if factor > 1.4 else 20)), worker] *= factor
    for _ in range(random.poisson(4 * hours)):  # congestion that everybody shares
        start = random.uniform(0, seconds)
        rows = world.span(start, start + random.uniform(5, 40))
        world.communication[rows] *= random.uniform(1.1, 1.6)
        world.congestion[rows] += random.uniform(0, 0.1)
    for _ in range(random.poisson(3 * hours)):  # the input comes late for a moment
        start = random.uniform(0, seconds)
        world.data_wait[world.span(start, start + random.uniform(1, 5))] += job.compute * random.uniform(0.3, 2)
    for _ in range(random.poisson(2 * hours)):  # storage has slow moments
        start = random.uniform(0, seconds)
        rows = world.span(start, start + random.uniform(20, 90))
        world.blocked[rows] *= random.uniform(1.2, 2)
        world.disk_latency[rows] *= random.uniform(1.2, 2)
    for _ in range(random.poisson(3 * hours)):
        start = random.uniform(0, seconds)
        world.loss_spikes.append((start, start + random.uniform(0.5, 6) * job.step_seconds, random.uniform(1.3, 2.5)))
    if random.random() < 0.08 * hours + 0.02:  # longer sequences: slower for all, and as it should be
        world.compute[world.span(random.uniform(0.3, 0.9) * seconds)] *= random.uniform(1.05, 1.2)
    _hiccups(world, random, hours)
    return world


def _hiccups(world: World, random: Random, hours: float) -> None:
    """Of the measuring, and of applications: all harmless."""
    seconds, workers = world.seconds, world.job.workers
    for _ in range(random.poisson(3 * hours)):  # a sidecar is restarted
        start = random.uniform(0, seconds)
        world.silences.append((start, start + random.uniform(1.5, 4.5), int(random.integers(workers))))
    for _ in range(random.poisson(5 * hours)):
        start = random.uniform(0, seconds)
        page = str(random.choice(["dcgm", "node", "cadvisor"]))
        world.exporter_restarts.append((start, start + random.uniform(3, 60), int(random.integers(workers)), page))
    for worker in range(workers):  # old news: from before the job, or of an application
        if random.random() < 0.06:
            world.xids.append((-1.0, worker, 0, int(random.choice([13, 31, 43, 45, 63, 79, 94]))))
        if random.random() < 0.04:
            world.double_bit.append((-1.0, worker, 0))
        if random.random() < 0.08:
            world.link_downs.append((-1.0, worker))
    for _ in range(random.poisson(1.5 * hours)):
        code = int(random.choice([13, 31, 43, 45]))
        world.xids.append((random.uniform(0, seconds), int(random.integers(workers)), 0, code))
    for _ in range(random.poisson(2 * hours)):
        start, worker = random.uniform(0, seconds), int(random.integers(workers))
        world.link_errors[world.span(start, start + 1), worker] += random.integers(1, 5)
    lines = (
        "UserWarning: the loss is nan-safe only with grad scaling",
        "NCCL INFO Channel 00/0 : 0[0] -> 1[0] [send] via NET/IB/0",
        "dataloader worker 3 restarted",
        "Saved checkpoint; no error",
    )
    for _ in range(random.poisson(6 * hours)):
        worker = int(random.integers(workers))
        world.logs.append((random.uniform(0, seconds), worker, str(random.choice(lines))))
