"""What a simulated training job is made of, drawn at random: size, speed, machines, and who exports what."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Random = np.random.Generator


@dataclass(frozen=True)
class Exporters:
    """Which pages a recording has, and how often they are read (seconds)."""

    dcgm: bool
    node: bool
    cadvisor: bool
    every: float
    pod_label: bool
    """dcgm-exporter does not always know the Pod."""
    ecc_fields: bool
    """Counters of ECC errors are off by default."""
    missing: frozenset[tuple[int, str]]
    """Single exporters that are not there: (worker, page)."""

    def has(self, worker: int, page: str) -> bool:
        """Whether that worker's line has the series of `dcgm`, `node` or `cadvisor`."""
        return bool(getattr(self, page)) and (worker, page) not in self.missing


@dataclass(frozen=True)
class Job:
    """One synchronous data-parallel job."""

    seed: int
    workers: int
    ranks_per_worker: int
    nodes: tuple[str, ...]
    compute: float
    """Seconds that a rank needs for its part of a step."""
    communication: float
    """Seconds of a step in which gradients travel."""
    noise: float
    """Relative deviation of a rank's compute time."""
    uneven: tuple[float, ...]
    """Each rank's constant share of the compute time: parts of a model are never equally large."""
    waits_measured: bool
    """On devices with streams of their own the reporter cannot tell waiting from computing."""
    infiniband: bool
    nominal_clock: float
    """MHz."""
    power_limit: float
    """Watts."""
    init_seconds: float
    checkpoint_every: float
    """Seconds between saves."""
    blocked_seconds: float
    """Of a save."""
    evaluate_every: float
    evaluate_seconds: float
    exporters: Exporters

    @property
    def ranks(self) -> int:
        """In the whole job."""
        return self.workers * self.ranks_per_worker

    @property
    def step_seconds(self) -> float:
        """Of a typical step."""
        return self.compute * max(self.uneven) * (1 + 2 * self.noise) + self.communication


def draw_job(
    random: Random, seed: int, workers: int, needs: frozenset[str] = frozenset(), every: float | None = None
) -> Job:
    """A job of that many workers. `needs`: pages and properties without which a fault could not be seen by anybody.

    `every`: seconds between two looks at the exporters; drawn by default.
    """
    ranks_per_worker = int(random.choice([1, 1, 1, 1, 2])) if workers <= 16 else 1
    ranks = workers * ranks_per_worker
    compute = float(np.exp(random.uniform(np.log(0.12), np.log(2.4))))
    uneven = 1 + random.normal(0, 0.015, ranks)
    if random.random() < 0.15:  # stages of a pipeline, or groups with other layers
        stages = random.choice([1.0, 1.1, 1.2], ranks_per_worker * workers // 4 or 1)
        uneven *= np.repeat(stages, 4)[:ranks] if len(stages) * 4 >= ranks else np.resize(np.repeat(stages, 4), ranks)
    prefix = str(random.choice(["n", "node-", "gpu-h100-", "ip-10-0-4-"]))
    first = int(random.integers(0, 200))
    order = random.permutation(workers)
    measured = bool(random.random() < 0.85) or "waits" in needs
    return Job(
        seed=seed,
        workers=workers,
        ranks_per_worker=ranks_per_worker,
        nodes=tuple(f"{prefix}{first + int(i)}" for i in order),
        compute=compute,
        communication=compute * float(random.uniform(0.05, 0.4)),
        noise=float(random.uniform(0.01, 0.06)),
        uneven=tuple(float(v) for v in np.clip(uneven, 0.7, 1.5)),
        waits_measured=measured,
        infiniband=bool(random.random() < 0.6),
        nominal_clock=float(random.choice([1410.0, 1755.0, 1980.0])),
        power_limit=float(random.choice([300.0, 400.0, 700.0])),
        init_seconds=float(random.uniform(6, 30)),
        checkpoint_every=float(random.uniform(35, 150)),
        blocked_seconds=float(np.exp(random.uniform(np.log(0.2), np.log(4.0)))),
        evaluate_every=float(random.uniform(90, 500)),
        evaluate_seconds=float(random.uniform(4, 25)),
        exporters=_draw_exporters(random, workers, needs | (frozenset() if measured else {"dcgm", "node"}), every),
    )


def _draw_exporters(random: Random, workers: int, needs: frozenset[str], every: float | None) -> Exporters:
    def there(page: str, share: float) -> bool:
        return bool(random.random() < share) or page in needs

    pages = ("dcgm", "node", "cadvisor")
    missing = frozenset(
        (worker, page) for page in pages if page not in needs for worker in range(workers) if random.random() < 0.03
    )
    return Exporters(
        dcgm=there("dcgm", 0.85),
        node=there("node", 0.8),
        cadvisor=there("cadvisor", 0.7),
        every=every or float(random.choice([1.0, 5.0, 10.0, 15.0])),
        pod_label=bool(random.random() < 0.7),
        ecc_fields=there("ecc", 0.4),
        missing=missing,
    )
