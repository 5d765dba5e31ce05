"""What the hardware does while the job runs: busy shares, temperatures, power, traffic; on a grid of seconds and workers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.eagle_eye.job import Random
from benchmarks.eagle_eye.training import Training
from benchmarks.eagle_eye.world import Array, World

AMBIENT = 34.0
"""Degrees of a GPU without load."""
WARM_UP_SECONDS = 25.0
IDLE_POWER_SHARE = 0.13
SPIN_POWER_SHARE = 0.22
"""A kernel that waits for other GPUs keeps the device busy, but hardly any power flows."""
BYTES_PER_SECOND = 2.2e9
"""While gradients travel."""


@dataclass
class Machines:
    """All [second, worker]; counters are cumulative and start at an arbitrary value."""

    computing: Array
    """Share of each second in which the GPU does useful work."""
    spinning: Array
    """Share in which it waits inside a collective."""
    power: Array
    temperature: Array
    cores_busy: Array
    traffic: Array
    """Bytes, cumulative."""
    written: Array
    """Bytes, cumulative."""


def run_machines(world: World, training: Training, random: Random) -> Machines:
    """Follow the job's load."""
    job, seconds = world.job, world.seconds
    grid = np.arange(seconds + 1, dtype=float)
    computing, spinning = _shares(world, training, grid)
    clock = world.clock
    share = IDLE_POWER_SHARE + 0.72 * computing * clock**2 + (SPIN_POWER_SHARE - IDLE_POWER_SHARE) * spinning
    power = job.power_limit * np.clip(share + random.normal(0, 0.015, share.shape), 0.05, 1.02)
    temperature = _temperatures(world, power, random)
    cores = 0.04 + 0.12 * computing + 0.1 * spinning + np.abs(random.normal(0, 0.01, computing.shape))
    travel = np.diff(_progress(training, grid), axis=0) * job.communication * BYTES_PER_SECOND
    traffic = np.cumsum(travel[:, None] * (1 + 4 * world.retransmits) + random.gamma(2, 4e4, computing.shape), axis=0)
    written = np.cumsum(random.gamma(2, 5e4, computing.shape), axis=0)
    for end, blocked in training.saves:
        first = min(int(end), seconds - 1)
        last = min(first + 1 + int(3 * blocked), seconds)
        written[first:last] += np.linspace(0, 6e9, last - first)[:, None]
        written[last:] += 6e9
    return Machines(computing, spinning, power, temperature, cores, traffic, written)


def _progress(training: Training, grid: Array) -> Array:
    """Steps completed at each second, as a fraction."""
    if not len(training.done):
        return np.zeros_like(grid)
    count = np.arange(len(training.done) + 1, dtype=float)
    begins = training.done[0] - training.took[0]
    return np.interp(grid, np.concatenate([[begins], training.done]), count)


def _shares(world: World, training: Training, grid: Array) -> tuple[Array, Array]:
    job, seconds = world.job, world.seconds
    computing = np.zeros((seconds, job.workers))
    spinning = np.zeros((seconds, job.workers))
    if len(training.done):
        per = job.ranks_per_worker
        own = training.own.reshape(len(training.done), job.workers, per).max(axis=2)
        work = np.clip(own - training.waited_for_input, 0, None)
        waits = np.clip(training.took[:, None] - own, 0, None)
        times = np.concatenate([[training.done[0] - training.took[0]], training.done])
        for worker in range(job.workers):
            for target, amount in ((computing, work[:, worker]), (spinning, waits[:, worker])):
                total = np.concatenate([[0.0], np.cumsum(amount)])
                target[:, worker] = np.diff(np.interp(grid, times, total))
    for start, end, name in training.phases:
        rows = world.span(start, min(end, seconds))
        if name == "eval":
            computing[rows], spinning[rows] = 0.6, 0.05
        elif name in ("checkpoint", "init"):
            computing[rows], spinning[rows] = 0.05, 0.02
    _stand(world, training, computing, spinning)
    return np.clip(computing, 0, 1), np.clip(spinning, 0, 1)


def _stand(world: World, training: Training, computing: Array, spinning: Array) -> None:
    if training.stands_from is not None:
        rows = world.span(training.stands_from)
        computing[rows], spinning[rows] = 0.0, 1.0
    for rank in training.outside:
        if training.stands_from is not None:
            spinning[world.span(training.stands_from), rank // world.job.ranks_per_worker] = 0.0
    for rank, at in world.rank_gone.items():
        spinning[world.span(at), rank // world.job.ranks_per_worker] = 0.0


def _temperatures(world: World, power: Array, random: Random) -> Array:
    target = AMBIENT + 38 * power / world.job.power_limit + world.heat
    temperature = np.empty_like(target)
    state = target[0]
    for second in range(len(target)):
        state = state + (target[second] - state) / WARM_UP_SECONDS
        temperature[second] = state
    # The heat of a blocked fan arrives at the sensor by its own path.
    temperature += 0.6 * world.heat - 0.6 * world.heat[:1]
    return np.minimum(temperature, 93) + random.normal(0, 0.3, target.shape)
