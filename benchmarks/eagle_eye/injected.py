"""Fifteen faults, each written into a world at several severities, with what a perfect observer would say of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.eagle_eye.job import Job, Random
from benchmarks.eagle_eye.world import Standstill, World


@dataclass(frozen=True)
class Label:
    """The truth about a recording. `node` is None where the job or its input is at fault."""

    fault: str
    kind: str
    node: str | None
    onset: float
    """Seconds from the start."""
    severity: str
    delay_class: str
    """Which of the promised delays applies: `fail-stop`, `hard`, `hang`, `slow-1.3`, `slow-2`, or `other`."""


Inject = Callable[[World, float, Random], Label]


@dataclass(frozen=True)
class Fault:
    """How to inject it, what must be exported for anybody to see it, and how long to watch."""

    name: str
    inject: Inject
    needs: frozenset[str]
    watch: Callable[[Job], float]
    """Seconds after the onset."""


def _victim(world: World, random: Random) -> int:
    return int(random.integers(world.job.workers))


def _rank_of(world: World, worker: int, random: Random) -> int:
    per = world.job.ranks_per_worker
    return worker * per + int(random.integers(per))


def _node_gone(world: World, at: float, random: Random) -> Label:
    worker = _victim(world, random)
    world.node_gone[worker] = at
    return Label("node-gone", "worker-gone", world.job.nodes[worker], at, "whole", "fail-stop")


_LAST_WORDS = (
    "RuntimeError: CUDA error: an illegal memory access was encountered",
    "Fatal Python error: Segmentation fault",
    "AssertionError: shapes differ",
)
_PEERS_SAY = (
    "torch.distributed.DistBackendError: NCCL error: remote process exited or there was a network error",
    "RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.4.7]:41233",
)


def _cascade(world: World, at: float, worker: int, random: Random) -> None:
    """Peers that lose a connection end, too, a little later."""
    for other in range(world.job.workers):
        if other == worker:
            continue
        delay = random.uniform(4, 9)
        world.logs.append((at + delay, other, str(random.choice(_PEERS_SAY))))
        for rank in range(other * world.job.ranks_per_worker, (other + 1) * world.job.ranks_per_worker):
            world.rank_gone[rank] = at + delay


def _rank_crash(world: World, at: float, random: Random) -> Label:
    worker = _victim(world, random)
    world.rank_gone[_rank_of(world, worker, random)] = at
    if random.random() < 0.6:
        world.logs.append((at - 0.05, worker, str(random.choice(_LAST_WORDS))))
    cascades = random.random() < 0.35
    if cascades:
        _cascade(world, at, worker, random)
    return Label(
        "rank-crash",
        "worker-gone",
        world.job.nodes[worker],
        at,
        "peers follow" if cascades else "alone",
        "fail-stop",
    )


def _deadlock(world: World, at: float, random: Random) -> Label:
    job = world.job
    phase = str(random.choice(["train", "train", "train", "eval", "checkpoint"]))
    form = str(random.choice(["one outside", "two outside", "all inside"]))
    first, second = random.permutation(job.workers)[:2]
    outside: frozenset[int] = frozenset()
    if form == "one outside":
        outside = frozenset([_rank_of(world, int(first), random)])
    elif form == "two outside":
        outside = frozenset([_rank_of(world, int(first), random), _rank_of(world, int(second), random)])
    world.standstill = Standstill(at, outside, phase)
    node = job.nodes[int(first)] if form == "one outside" else None
    return Label("deadlock", "hang", node, at, f"{form}, {phase}", "hang")


def _gpu_trouble(world: World, at: float, worker: int, gpu: int, random: Random) -> None:
    """What becomes of the rank: it stands in a call that never returns, or it ends a little later."""
    rank = worker * world.job.ranks_per_worker + min(gpu, world.job.ranks_per_worker - 1)
    world.standstill = Standstill(at, frozenset([rank]))
    every = world.job.exporters.every
    if every <= 5 and random.random() < 0.4:
        world.rank_gone[rank] = at + random.uniform(3, 5) * every + 5
        world.logs.append((world.rank_gone[rank] - 0.1, worker, "RuntimeError: CUDA error: unspecified launch failure"))


def _gpu_missing(world: World, at: float, random: Random) -> Label:
    worker = _victim(world, random)
    gpu = int(random.integers(world.job.ranks_per_worker))
    world.gpu_gone[worker, gpu] = at
    _gpu_trouble(world, at, worker, gpu, random)
    return Label("gpu-missing", "hardware", world.job.nodes[worker], at, "one", "hard")


def _xid_79(world: World, at: float, random: Random) -> Label:
    worker = _victim(world, random)
    gpu = int(random.integers(world.job.ranks_per_worker))
    world.xids.append((at, worker, gpu, 79))
    also_gone = random.random() < 0.5
    if also_gone:
        world.gpu_gone[worker, gpu] = at + random.uniform(20, 60)
    _gpu_trouble(world, at, worker, gpu, random)
    severity = "then gone" if also_gone else "stays listed"
    return Label("xid-79", "hardware", world.job.nodes[worker], at, severity, "hard")


def _ecc(world: World, at: float, random: Random) -> Label:
    worker = _victim(world, random)
    gpu = int(random.integers(world.job.ranks_per_worker))
    form = str(random.choice(["xid 48", "xid 95", "counter", "remap failed", "host memory"]))
    if form.startswith("xid"):
        world.xids.append((at, worker, gpu, int(form.split()[1])))
    if form in ("counter", "xid 48"):
        world.double_bit.append((at, worker, gpu))
    if form == "remap failed":
        world.remap_failed.append((at, worker, gpu))
    if form == "host memory":
        world.memory_controller.append((at, worker))
    if form != "host memory" and random.random() < 0.6:
        _gpu_trouble(world, at, worker, gpu, random)
    return Label("uncorrectable-ecc", "hardware", world.job.nodes[worker], at, form, "hard")


SLOWDOWNS = (1.3, 1.6, 2.0, 3.0)


def _slowdown(random: Random) -> tuple[float, str]:
    factor = float(random.choice(SLOWDOWNS))
    return factor, {1.3: "slow-1.3", 2.0: "slow-2"}.get(factor, "other")


def _own_factor(job: Job, worker: int, step_factor: float) -> float:
    """What a rank's compute time must grow by for the whole step to grow by `step_factor`."""
    ranks = slice(worker * job.ranks_per_worker, (worker + 1) * job.ranks_per_worker)
    own = job.compute * max(job.uneven[ranks])
    return (step_factor * job.step_seconds - job.communication) / own


def _thermal(world: World, at: float, random: Random) -> Label:
    worker, (factor, delay) = _victim(world, random), _slowdown(random)
    rows = world.span(at)
    later = np.arange(rows.stop - rows.start)
    share = 0.9 / (_own_factor(world.job, worker, factor) - 0.1)
    settles = 1 - np.exp(-(later + 1) / random.uniform(0.5, 2.5))
    world.clock[rows, worker] = 1 - (1 - share) * settles
    world.heat[rows, worker] += random.uniform(22, 32) * (1 - np.exp(-(later + 1) / random.uniform(3, 10)))
    return Label("thermal-throttling", "slow", world.job.nodes[worker], at, f"{factor}x", delay)


def _cpu_steal(world: World, at: float, random: Random) -> Label:
    worker, (factor, delay) = _victim(world, random), _slowdown(random)
    rows = world.span(at)
    own = _own_factor(world.job, worker, factor)
    world.compute[rows, worker] *= own
    world.jitter[rows, worker] += random.uniform(0.02, 0.1)
    share = min(0.9, 1 - 1 / own)
    if random.random() < 0.7:
        world.steal[rows, worker] += share
    else:
        world.quota[rows, worker] += share
    return Label("cpu-steal", "slow", world.job.nodes[worker], at, f"{factor}x", delay)


def _oom(world: World, at: float, random: Random) -> Label:
    worker = _victim(world, random)
    rank = _rank_of(world, worker, random)
    world.rank_gone[rank] = at
    grows = random.uniform(10, 120)
    rows = world.span(at - grows, at)
    start = world.memory[rows.start, worker]
    world.memory[rows, worker] = np.linspace(start, 0.995, rows.stop - rows.start)
    world.memory[world.span(at), worker] = start * 0.4
    device = random.random() < 0.4
    if device:
        words = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
        world.logs.append((at - 0.05, worker, words))
        world.memory[:, worker] = start
    else:
        world.out_of_memory.append((at, worker))
    return Label("oom", "worker-gone", world.job.nodes[worker], at, "device" if device else "host", "fail-stop")


def _travel_factor(job: Job, step_factor: float) -> float:
    return 1 + (step_factor - 1) * job.step_seconds / job.communication


def _slow_nic(world: World, at: float, random: Random) -> Label:
    worker, (factor, delay) = _victim(world, random), _slowdown(random)
    rows = world.span(at)
    travel = _travel_factor(world.job, factor)
    world.communication[rows] *= travel
    form = str(random.choice(["negotiated down", "congested", "both"]))
    if form != "congested":
        world.link_rate[rows, worker] = float(random.choice([0.5, 0.25, 0.1]))
    if form != "negotiated down":
        world.congestion[rows, worker] += random.uniform(0.5, 0.9)
    return Label("slow-nic", "slow", world.job.nodes[worker], at, f"{factor}x, {form}", delay)


def _lossy_link(world: World, at: float, random: Random) -> Label:
    worker, (factor, delay) = _victim(world, random), _slowdown(random)
    rows = world.span(at)
    world.communication[rows] *= _travel_factor(world.job, factor) * random.gamma(20, 1 / 20, rows.stop - rows.start)
    world.retransmits[rows, worker] = random.uniform(0.01, 0.15)
    world.link_errors[rows, worker] += random.uniform(5, 200)
    if random.random() < 0.3:
        world.link_downs += [(at + random.uniform(0, 40), worker) for _ in range(3)]
    return Label("lossy-link", "slow", world.job.nodes[worker], at, f"{factor}x", delay)


def _slow_disk(world: World, at: float, random: Random) -> Label:
    rows = world.span(at)
    factor = float(random.choice([6, 12, 30]))
    seconds = world.job.blocked_seconds
    # A save that took no time at all is only then a stall when it takes some.
    world.blocked[rows] *= max(factor, 4 / seconds)
    where = range(world.job.workers) if random.random() < 0.5 else [_victim(world, random)]
    for worker in where:
        world.disk_latency[rows, worker] *= factor
        world.io_wait[rows, worker] += random.uniform(0.1, 0.4)
    return Label("slow-disk", "storage-stall", None, at, f"{factor:g}x", "other")


def _full_disk(world: World, at: float, random: Random) -> Label:
    shared = random.random() < 0.5
    fills = random.uniform(5, 100)
    for worker in range(world.job.workers) if shared else [_victim(world, random)]:
        rows = world.span(at - fills, at)
        free = world.disk_free[rows.start, worker]
        world.disk_free[rows, worker] = np.linspace(free, 0, rows.stop - rows.start)
        world.disk_free[world.span(at), worker] = 0
        if random.random() < 0.7:
            words = "OSError: [Errno 28] No space left on device: '/sternpost/cache/shard-00.tmp'"
            world.logs += [(at + random.uniform(0.5, 10), worker, words), (at + random.uniform(20, 50), worker, words)]
    return Label("full-disk", "storage-stall", None, at, "shared" if shared else "local", "other")


def _data_stall(world: World, at: float, random: Random) -> Label:
    rows = world.span(at)
    factor = float(random.choice([1.5, 2.0, 4.0, 10.0]))
    share = 1.0 if random.random() < 0.7 else random.uniform(0.6, 0.95)
    hit = random.permutation(world.job.workers)[: max(2, round(share * world.job.workers))]
    world.data_wait[rows, hit] += (factor - 1) * world.job.step_seconds
    world.io_wait[rows, hit] += random.uniform(0.02, 0.3)
    return Label("data-stall", "data-stall", None, at, f"{factor:g}x", "other")


def _nan(world: World, at: float, random: Random) -> Label:
    form = str(random.choice(["nan", "inf", "norm", "spike"]))
    loss, norm = {
        "nan": (np.nan, np.nan),
        "inf": (np.inf, np.inf),
        "norm": (1.0, np.nan),
        "spike": (random.uniform(12, 100), random.uniform(12, 1000)),
    }[form]
    world.loss_from = (at, float(loss), float(norm))
    return Label("nan", "loss", None, at, form, "other")


def _hang_watch(job: Job) -> float:
    # Longer than one and a half times any limit that could have been learned.
    return 130.0 + 8 * max(job.evaluate_seconds, 3 * job.blocked_seconds, job.step_seconds) + job.evaluate_every


def _seconds(value: float) -> Callable[[Job], float]:
    return lambda job: value + 10 * job.step_seconds


def _saves(job: Job) -> float:
    return 2.5 * job.checkpoint_every + 60


FAULTS = (
    Fault("node-gone", _node_gone, frozenset(), _seconds(40)),
    Fault("rank-crash", _rank_crash, frozenset(), _seconds(40)),
    Fault("deadlock", _deadlock, frozenset({"waits"}), _hang_watch),
    Fault("gpu-missing", _gpu_missing, frozenset({"dcgm"}), _seconds(60)),
    Fault("xid-79", _xid_79, frozenset({"dcgm"}), _seconds(60)),
    Fault("uncorrectable-ecc", _ecc, frozenset({"dcgm", "node", "ecc"}), _seconds(60)),
    Fault("thermal-throttling", _thermal, frozenset({"dcgm"}), _seconds(90)),
    Fault("cpu-steal", _cpu_steal, frozenset({"node", "cadvisor"}), _seconds(90)),
    Fault("oom", _oom, frozenset({"cadvisor"}), _seconds(40)),
    Fault("slow-nic", _slow_nic, frozenset({"node"}), _seconds(110)),
    Fault("lossy-link", _lossy_link, frozenset({"node"}), _seconds(110)),
    Fault("slow-disk", _slow_disk, frozenset({"node"}), _saves),
    Fault("full-disk", _full_disk, frozenset({"node"}), _saves),
    Fault("data-stall", _data_stall, frozenset({"dcgm", "node"}), _seconds(100)),
    Fault("nan", _nan, frozenset(), _seconds(30)),
)
