"""From a simulated job to what its sidecars see: scrapes with jitter, pages that do not answer, logs, restarts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.eagle_eye.exporters import Exporters, Labels, Line
from benchmarks.eagle_eye.injected import Fault, Label
from benchmarks.eagle_eye.job import Job, Random, draw_job
from benchmarks.eagle_eye.machines import Machines, run_machines
from benchmarks.eagle_eye.training import Training, train
from benchmarks.eagle_eye.world import Array, World, ordinary_world

Sample = tuple[str, str, Labels, float]
"""Name, type, labels, value."""
PAGES = ("dcgm", "node", "cadvisor")
LOST_SCRAPES = 0.002
"""Share of scrapes of a trainer that time out without any reason."""


@dataclass(frozen=True)
class Scrape:
    """What the sidecar of one worker saw at one time."""

    t: float
    """Unix seconds."""
    worker: int
    ranks: tuple[tuple[int, dict[str, Any] | None], ...]
    """Number, and what its trainer's page says; None where it does not answer."""
    exporters: tuple[Sample, ...] | None
    """None when it was not their turn."""


@dataclass(frozen=True)
class LogLine:
    """A line of a trainer's output."""

    t: float
    worker: int
    text: str


@dataclass(frozen=True)
class Restart:
    """The ranks were started anew; workers and nodes stay."""

    t: float


Event = Scrape | LogLine | Restart


class Segment:
    """One attempt of a job, from its start to the end of the recording or the next restart."""

    def __init__(self, world: World, random: Random, epoch: float, first_step: int = 0) -> None:
        self.world, self.epoch, self.first_step = world, epoch, first_step
        self._seed = int(random.integers(2**62))
        self.training: Training = train(world, random)
        self.machines: Machines = run_machines(world, self.training, random)
        self._own = np.cumsum(self.training.own, axis=0)
        self._took = np.cumsum(self.training.took)

    def events(self) -> Iterator[Event]:
        """In the order of time, and the same each time."""
        job = self.world.job
        self._random = np.random.default_rng(self._seed)
        self._exporters = Exporters(self.world, self.machines, self._random)
        found: list[Event] = [LogLine(self.epoch + at, worker, text) for at, worker, text in self.world.logs if at >= 0]
        for worker in range(job.workers):
            found += self._scrapes(worker)
        found.sort(key=lambda event: event.t)
        yield from found

    def _scrapes(self, worker: int) -> list[Scrape]:
        world, job, random = self.world, self.world.job, self._random
        count = world.seconds - 1
        late = np.where(random.random(count) < 0.01, random.uniform(0, 0.35, count), 0)
        times = np.arange(count) + random.uniform(0, 0.6) + np.abs(random.normal(0, 0.02, count)) + late
        times = times[times < world.node_gone.get(worker, np.inf)]
        for start, end, where in world.silences:
            if where == worker:
                times = times[(times < start) | (times >= end)]
        pages = self._exporter_pages(worker, times)
        first = worker * job.ranks_per_worker
        ranks = [(rank, self._trainer(rank, times)) for rank in range(first, first + job.ranks_per_worker)]
        return [
            Scrape(
                self.epoch + at,
                worker,
                tuple((rank, page[index]) for rank, page in ranks),
                pages[index],
            )
            for index, at in enumerate(times.tolist())
        ]

    def _exporter_pages(self, worker: int, times: Array) -> list[tuple[Sample, ...] | None]:
        world, every = self.world, self.world.job.exporters.every
        turn = np.floor((times + 0.5 + worker % every) / every)
        due = np.flatnonzero(np.diff(turn, prepend=-1) > 0)
        result: list[tuple[Sample, ...] | None] = [None] * len(times)
        samples: list[list[Sample]] = [[] for _ in due]
        any_page = False
        for page in PAGES:
            if not world.job.exporters.has(worker, page):
                continue
            any_page = True
            down = np.zeros(len(due), dtype=bool)
            for start, end, where, which in world.exporter_restarts:
                if (where, which) == (worker, page):
                    down |= (times[due] >= start) & (times[due] < end)
            for line in self._exporters.page(worker, page, times[due]):
                _spread(line, down, samples)
        if any_page:
            for index, found in zip(due.tolist(), samples, strict=True):
                result[index] = tuple(found)
        return result

    def _trainer(self, rank: int, times: Array) -> list[dict[str, Any] | None]:
        """What the rank's page says at each time."""
        training, job = self.training, self.world.job
        lag = self._random.uniform(0.0005, 0.004)
        completed = np.searchsorted(training.done + lag, times, side="right")
        phases = training.phase_at(times)
        saves = np.array([end for end, _ in training.saves])
        blocked = np.concatenate([[0.0], np.cumsum([seconds for _, seconds in training.saves])])
        saved = np.searchsorted(saves, times, side="right")
        waiting = self._waiting(rank, times, completed, phases)
        gone = self.world.rank_gone.get(rank, np.inf)
        lost = self._random.random(len(times)) < LOST_SCRAPES
        own = self._own[:, rank] if job.waits_measured else self._took
        names = [name for _, _, name in training.phases]
        columns = zip(
            times.tolist(),
            completed.tolist(),
            phases.tolist(),
            saved.tolist(),
            waiting.tolist(),
            lost.tolist(),
            strict=True,
        )
        took, own_sums = self._took.tolist(), own.tolist()
        done, losses, norms = (v.tolist() for v in (training.done, training.loss, training.grad_norm))
        pages: list[dict[str, Any] | None] = []
        for at, count, phase, saves_done, waits, no_answer in columns:
            if at >= gone or no_answer:
                pages.append(None)
                continue
            page: dict[str, Any] = {
                "phase": names[phase] if phase >= 0 else "train",
                "in_collective": waits,
                "blocked_sum": float(blocked[saves_done]),
                "blocked_count": saves_done,
                "step_count": count,
                "step_sum": took[count - 1] if count else 0.0,
                "compute_count": count,
                "compute_sum": own_sums[count - 1] if count else 0.0,
                "samples": 16.0 * count,
            }
            if count:
                page |= {
                    "step": self.first_step + count,
                    "loss": losses[count - 1],
                    "grad_norm": norms[count - 1],
                    "last_step_at": self.epoch + done[count - 1],
                    "first_step": self.first_step + 1,
                    "first_step_at": self.epoch + done[0],
                }
            pages.append(page)
        return pages

    def _waiting(self, rank: int, times: Array, completed: Array, phases: Array) -> Array:
        """Whether the rank is inside a collective."""
        training = self.training
        if not self.world.job.waits_measured or not len(training.done):
            return np.zeros(len(times), dtype=bool)
        last = len(training.done) - 1
        begins = training.done - training.took
        under_way = np.minimum(completed, last)
        waits = (
            (times - begins[under_way] > training.own[under_way, rank])
            & (completed <= last)
            & (times >= begins[under_way])
        )
        waits &= phases < 0
        if training.stands_from is not None:
            stands = times >= training.stands_from + self.world.job.compute
            waits = np.where(stands, rank not in training.outside, waits)
        return waits


def _spread(line: Line, down: Any, samples: list[list[Sample]]) -> None:
    there = ~down if line.there is None else ~down & (line.there > 0)
    values = line.values.tolist()
    for index in np.flatnonzero(there).tolist():
        samples[index].append((line.name, line.type, line.labels, values[index]))


@dataclass
class Recording:
    """A job, what was done to it, and all that was seen."""

    name: str
    job: Job
    label: Label | None
    """None: nothing was done to it. Its onset is in Unix seconds."""
    hang_longest: float
    """Seconds: the longest time without a step seen in the phase in which the job stands."""
    segments: list[Segment]
    earlier: tuple[tuple[str | None, str], float] | None = None
    """Node and kind of what ended the attempt before, and the time of the restart."""

    def events(self) -> Iterator[Event]:
        """In the order of time, as far as sidecars wrote them in that order."""
        for index, segment in enumerate(self.segments):
            if index:
                yield Restart(segment.epoch - 0.5)
            yield from segment.events()

    @property
    def hours(self) -> float:
        """Its length."""
        return sum(segment.world.seconds for segment in self.segments) / 3600


def record(seed: int, workers: int, fault: Fault | None, *, healthy_seconds: int = 3600) -> Recording:
    """The recording of that number: always the same one. Without a fault it lasts `healthy_seconds`."""
    name = fault.name if fault is not None else "healthy"
    random = np.random.default_rng([seed, workers, *name.encode()])
    if fault is None:
        job = draw_job(random, seed, workers, every=15.0)
        segment = Segment(ordinary_world(job, healthy_seconds, random), random, _epoch(seed))
        return Recording(f"{name}-{seed}-{workers}", job, None, 0.0, [segment])
    job = draw_job(random, seed, workers, fault.needs)
    segments: list[Segment] = []
    epoch = _epoch(seed)
    earlier: tuple[tuple[str | None, str], float] | None = None
    if random.random() < 0.2:  # an attempt before, whose end says nothing about this one
        before = ordinary_world(job, int(random.uniform(60, 150)), random)
        crashed = int(random.integers(job.ranks))
        before.rank_gone[crashed] = before.seconds - 20.0
        segments.append(Segment(before, random, epoch))
        epoch += before.seconds + random.uniform(5, 20)
        earlier = ((job.nodes[crashed // job.ranks_per_worker], "worker-gone"), epoch)
    warm = job.init_seconds + 40 + 25 * job.step_seconds
    at = random.uniform(warm, warm + 120)
    if fault.name == "deadlock":  # each phase has been seen to its end
        at = max(at, job.init_seconds + 2 * max(job.checkpoint_every, job.evaluate_every) + 20)
    seconds = int(at + fault.watch(job))
    world = ordinary_world(job, seconds, random)
    label = fault.inject(world, at, random)
    segment = Segment(world, random, epoch, first_step=int(random.choice([0, 40, 12000])))
    segments.append(segment)
    stands = segment.training.stands_from
    onset = stands if label.delay_class == "hang" and stands is not None else label.onset
    phase = segment.world.standstill.phase if segment.world.standstill is not None else "train"
    longest = float(segment.training.phase_limits.get(phase, 0.0))
    shifted = Label(label.fault, label.kind, label.node, float(epoch + onset), label.severity, label.delay_class)
    return Recording(f"{name}-{seed}-{workers}", job, shifted, longest, [*segments], earlier)


def _epoch(seed: int) -> float:
    return 1_764_000_000.0 + 10_000.0 * (seed % 10_000)
