"""The job itself, step by step: every rank computes, all wait for the slowest, gradients travel, and now and then it saves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.eagle_eye.job import Random
from benchmarks.eagle_eye.world import Array, Standstill, World


@dataclass
class Training:
    """What happened: one entry for each completed step, and the phases between."""

    done: Array
    """[step] seconds at which each was completed."""
    took: Array
    """[step] seconds, the same for all ranks."""
    own: Array
    """[step, rank] seconds without the wait for others: computing, and waiting for input."""
    waited_for_input: Array
    """[step, worker] seconds."""
    loss: Array
    grad_norm: Array
    phases: list[tuple[float, float, str]]
    """From, until; what is in none is `train`."""
    saves: list[tuple[float, float]]
    """When each ended, and how many seconds it blocked."""
    stands_from: float | None
    """Since when no step is completed, if there is such a time."""
    outside: frozenset[int]
    """Ranks that are in no collective then."""
    phase_limits: dict[str, float]
    """The longest time without a step or change of phase, by phase, while all was well."""

    def phase_at(self, at: Array) -> NDArray[np.int64]:
        """Index into `phases` for each time; -1 for training."""
        starts = np.array([start for start, _, _ in self.phases])
        ends = np.array([end for _, end, _ in self.phases])
        found = np.searchsorted(starts, at, side="right") - 1
        inside = (found >= 0) & (at < ends[np.maximum(found, 0)])
        return np.where(inside, found, -1)


class _Steps:
    """The state of the simulation between two steps."""

    def __init__(self, world: World, random: Random) -> None:
        self.world, self.random, job = world, random, world.job
        self.worker_of = np.repeat(np.arange(job.workers), job.ranks_per_worker)
        self.base = job.compute * np.array(job.uneven)
        self.drift = random.normal(0, job.noise, job.ranks)

    def one(self, at: float, first: bool) -> tuple[float, Array, Array]:
        """Seconds of a step that starts at `at`, each rank's own, and each worker's wait for input."""
        world, job, random = self.world, self.world.job, self.random
        row = min(int(at), world.seconds - 1)
        self.drift = 0.8 * self.drift + random.normal(0, 0.6 * job.noise, job.ranks)
        jitter = world.jitter[row][self.worker_of]
        factor = np.exp(self.drift + jitter * random.normal(0, 1, job.ranks))
        # A slower clock slows what runs on the GPU, which is nearly everything.
        slow = world.compute[row] * (0.1 + 0.9 / world.clock[row])
        input_wait = world.data_wait[row] * random.gamma(4, 0.25, job.workers)
        own = self.base * factor * slow[self.worker_of] + input_wait[self.worker_of]
        if first:
            own = own * random.uniform(3, 8)
        travel = job.communication * world.communication[row] * float(np.exp(random.normal(0, 0.05)))
        return float(own.max()) + travel, own, input_wait


def train(world: World, random: Random) -> Training:  # noqa: PLR0915 -- one clock that all parts move
    """Run the job until the world ends or the job stands."""
    job, steps = world.job, _Steps(world, random)
    now = job.init_seconds
    phases: list[tuple[float, float, str]] = [(0.0, now, "init")]
    saves: list[tuple[float, float]] = []
    done: list[float] = []
    took: list[float] = []
    own: list[Array] = []
    waits: list[Array] = []
    limits: dict[str, float] = {}
    next_save = now + job.checkpoint_every * random.uniform(0.4, 1)
    next_evaluation = now + job.evaluate_every * random.uniform(0.4, 1)
    ends = _last_moment(world)
    plan = world.standstill
    stands: float | None = None

    def pause(name: str, seconds: float) -> bool:
        nonlocal now, stands
        if _stands_here(plan, now, seconds, name):
            phases.append((now, float("inf"), name))
            stands = max(now, plan.at) if plan else now
            return True
        phases.append((now, now + seconds, name))
        limits[name] = max(limits.get(name, 0.0), seconds)
        now += seconds
        return False

    while now < world.seconds and stands is None:
        if now >= next_save:
            row = min(int(now), world.seconds - 1)
            blocked = job.blocked_seconds * float(world.blocked[row] * np.exp(random.normal(0, 0.2)))
            if pause("checkpoint", blocked):
                break
            saves.append((now, blocked))
            next_save = now + job.checkpoint_every
        if now >= next_evaluation:
            if pause("eval", job.evaluate_seconds * float(np.exp(random.normal(0, 0.15)))):
                break
            next_evaluation = now + job.evaluate_every
        seconds, ranks, wait = steps.one(now, not done)
        # Whoever is missing in a step keeps the others waiting.
        blocks = [ends] if ends is not None else []
        if plan is not None and plan.phase == "train":
            blocks.append(plan.at)
        if blocks and now + seconds > min(blocks):
            stands = max(min(blocks), now)
            break
        if len(done) > 2:
            limits["train"] = max(limits.get("train", 0.0), seconds)
        if not done:
            phases[0] = (0.0, now + seconds, "init")
        now += seconds
        done.append(now)
        took.append(seconds)
        own.append(ranks)
        waits.append(wait)
    losses, norms = _loss(world, np.array(done), random)
    return Training(
        done=np.array(done),
        took=np.array(took),
        own=np.array(own).reshape(len(done), job.ranks),
        waited_for_input=np.array(waits).reshape(len(done), job.workers),
        loss=losses,
        grad_norm=norms,
        phases=phases,
        saves=saves,
        stands_from=stands,
        outside=_outside(world),
        phase_limits=limits,
    )


def _last_moment(world: World) -> float | None:
    """When the first of the ranks is gone."""
    return min([*world.node_gone.values(), *world.rank_gone.values()], default=None)


def _stands_here(plan: Standstill | None, now: float, seconds: float, phase: str) -> bool:
    return plan is not None and plan.phase == phase and now + seconds > plan.at


def _outside(world: World) -> frozenset[int]:
    return world.standstill.outside if world.standstill is not None else frozenset()


def _loss(world: World, done: Array, random: Random) -> tuple[Array, Array]:
    count = np.arange(len(done))
    level = random.uniform(1.5, 3)
    loss = level + 6 * np.exp(-count / random.uniform(50, 800)) + random.normal(0, 0.02 * level, len(done))
    norm = np.exp(random.normal(0, 0.15, len(done))) * random.uniform(0.3, 3)
    for start, end, factor in world.loss_spikes:
        inside = (done >= start) & (done < end)
        loss[inside] *= factor
        norm[inside] *= factor
    if world.loss_from is not None:
        at, bad_loss, bad_norm = world.loss_from
        later = done >= at
        loss[later] = bad_loss if not np.isfinite(bad_loss) else loss[later] * bad_loss
        norm[later] = bad_norm if not np.isfinite(bad_norm) else norm[later] * bad_norm
    return loss, norm
