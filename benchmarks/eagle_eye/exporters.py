"""What dcgm-exporter, node_exporter and cAdvisor say of these machines, by their real names, types and labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.eagle_eye.job import Random
from benchmarks.eagle_eye.machines import Machines
from benchmarks.eagle_eye.world import Array, World

Labels = tuple[tuple[str, str], ...]
GIB = 2.0**30
CORES = 2
"""node_exporter has a series for each processor; two stand for all."""


@dataclass(frozen=True)
class Line:
    """One series over the scrapes of one worker; NaN-free."""

    name: str
    type: str
    labels: Labels
    values: Array
    there: Array | None = None
    """Where it is exported at all, as 0 and 1; always if None."""


class Exporters:
    """Renders the pages of one worker at its scrape times."""

    def __init__(self, world: World, machines: Machines, random: Random) -> None:
        self._world, self._machines, self._random = world, machines, random
        self._totals: dict[str, Array] = {}

    def _total(self, name: str, rates: Array) -> Array:
        """[second, worker]: a rate added up, kept, because each worker asks for it."""
        if name not in self._totals:
            self._totals[name] = np.cumsum(rates, axis=0)
        return self._totals[name]

    def page(self, worker: int, page: str, times: Array) -> list[Line]:
        """The lines of `dcgm`, `node` or `cadvisor`."""
        rows = np.clip(times.astype(int), 0, self._world.seconds - 1)
        render = {"dcgm": self._dcgm, "node": self._node, "cadvisor": self._cadvisor}[page]
        return list(render(worker, times, rows))

    def _dcgm(self, worker: int, times: Array, rows: Array) -> Iterator[Line]:
        world, machines, job = self._world, self._machines, self._world.job
        for gpu in range(job.ranks_per_worker):
            labels = self._gpu_labels(worker, gpu)
            gone = world.gpu_gone.get((worker, gpu))
            there = None if gone is None else (times < gone).astype(float)

            def line(name: str, values: Array, kind: str = "gauge", labels: Labels = labels, there=there) -> Line:  # type: ignore[no-untyped-def]
                return Line(f"DCGM_FI_{name}", kind, labels, values, there)

            work, spin = machines.computing[rows, worker], machines.spinning[rows, worker]
            clock = job.nominal_clock * world.clock[rows, worker]
            wobble = self._random.normal(0, 4, len(rows))
            yield line(
                "DEV_GPU_UTIL", np.clip(np.round(100 * (work + spin) + self._random.normal(0, 1.5, len(rows))), 0, 100)
            )
            yield line("DEV_MEM_COPY_UTIL", np.clip(np.round(45 * work + self._random.normal(0, 2, len(rows))), 0, 100))
            yield line("DEV_SM_CLOCK", 15 * np.round((clock + wobble) / 15))
            yield line("DEV_MEM_CLOCK", np.full(len(rows), 2619.0))
            yield line("DEV_POWER_USAGE", np.round(machines.power[rows, worker], 3))
            yield line("DEV_GPU_TEMP", np.round(machines.temperature[rows, worker]))
            yield line("DEV_MEMORY_TEMP", np.round(machines.temperature[rows, worker] + 9))
            yield line("DEV_FB_USED", np.round(62000 + 40 * work))
            yield line("DEV_FB_FREE", np.round(18000 - 40 * work))
            yield line("DEV_XID_ERRORS", self._last_xid(worker, gpu, times))
            yield line("DEV_PCIE_REPLAY_COUNTER", np.full(len(rows), float(worker % 3)), "counter")
            yield line("DEV_UNCORRECTABLE_REMAPPED_ROWS", np.zeros(len(rows)), "counter")
            yield line("DEV_ROW_REMAP_FAILURE", _count(world.remap_failed, worker, gpu, times))
            yield line("PROF_GR_ENGINE_ACTIVE", np.clip(work + spin, 0, 1))
            yield line("PROF_PIPE_TENSOR_ACTIVE", np.clip(0.42 * work, 0, 1))
            yield line("PROF_DRAM_ACTIVE", np.clip(0.5 * work, 0, 1))
            if job.exporters.ecc_fields:
                yield line("DEV_ECC_DBE_VOL_TOTAL", _count(world.double_bit, worker, gpu, times), "counter")
                yield line("DEV_ECC_SBE_VOL_TOTAL", np.floor(times / 1700 + worker % 4), "counter")
            throttled = self._total("thermal", np.clip(1 - world.clock, 0, 1) * (world.clock < 0.97) * 1e6)
            yield line("DEV_THERMAL_VIOLATION", np.round(throttled[rows, worker]), "counter")

    def _gpu_labels(self, worker: int, gpu: int) -> Labels:
        job = self._world.job
        labels = [
            ("gpu", str(gpu)),
            ("UUID", f"GPU-{job.seed % 65536:04x}{worker:04x}-{gpu:02x}e1-4c6a-9b1d-7f0a5c2e8d11"),
            ("pci_bus_id", f"00000000:{gpu + 1:02X}:00.0"),
            ("device", f"nvidia{gpu}"),
            ("modelName", "NVIDIA H100 80GB HBM3"),
            ("Hostname", job.nodes[worker]),
        ]
        if job.exporters.pod_label:
            labels += [("container", "trainer"), ("namespace", "ml"), ("pod", f"gpt-{worker}")]
        return tuple(labels)

    def _last_xid(self, worker: int, gpu: int, times: Array) -> Array:
        value = np.zeros(len(times))
        for at, where, which, code in sorted(self._world.xids):
            if (where, which) == (worker, gpu):
                value[times >= at] = code
        return value

    def _node(self, worker: int, times: Array, rows: Array) -> Iterator[Line]:
        world, machines = self._world, self._machines
        steal, waits = world.steal[:, worker], world.io_wait[:, worker]
        user = machines.cores_busy[:, worker]
        modes = {
            "user": 0.85 * user,
            "system": 0.15 * user,
            "iowait": waits,
            "steal": steal,
            "softirq": np.full(world.seconds, 0.002),
        }
        modes["idle"] = np.clip(1 - sum(modes.values()), 0, 1)
        for core in range(CORES):
            for mode, share in modes.items():
                total = 9e4 + 31 * worker + np.cumsum(share)
                yield _counter("node_cpu_seconds_total", total[rows], ("cpu", str(core)), ("mode", mode))
        count = len(rows)
        yield _gauge("node_load1", 3 + 20 * user[rows])
        yield _gauge("node_memory_MemTotal_bytes", np.full(count, 1024 * GIB))
        yield _gauge("node_memory_MemAvailable_bytes", np.round(1024 * GIB * (1 - 0.9 * world.memory[rows, worker])))
        yield _gauge("node_boot_time_seconds", np.full(count, 1.7e9 + worker))
        yield from self._pressure(worker, rows)
        yield from self._disks(worker, rows)
        yield from self._network(worker, times, rows)
        errors = float(worker % 7 == 0) + _edges(world.memory_controller, worker, times)
        yield _counter("node_edac_uncorrectable_errors_total", errors, ("controller", "0"))
        killed = _edges(world.out_of_memory, worker, times)
        yield _counter("node_vmstat_oom_kill", killed)

    def _pressure(self, worker: int, rows: Array) -> Iterator[Line]:
        world = self._world
        waiting = self._total("io", np.clip(0.8 * world.io_wait + 0.01, 0, 1))[rows, worker]
        yield _counter("node_pressure_io_waiting_seconds_total", waiting)
        yield _counter("node_pressure_io_stalled_seconds_total", 0.6 * waiting)
        held = self._total("cpu", np.clip(0.5 * (world.steal + world.quota) + 0.01, 0, 1))[rows, worker]
        yield _counter("node_pressure_cpu_waiting_seconds_total", held)
        tight = self._total("memory", np.clip(20 * (world.memory - 0.95), 0, 1))[rows, worker]
        yield _counter("node_pressure_memory_waiting_seconds_total", tight)

    def _disks(self, worker: int, rows: Array) -> Iterator[Line]:
        world, written = self._world, self._machines.written
        device = ("device", "nvme0n1")
        total = written[rows, worker]
        yield _counter("node_disk_written_bytes_total", np.round(total), device)
        rate = np.diff(written, axis=0, prepend=written[:1])
        yield _counter("node_disk_writes_completed_total", np.round(total / 131072), device)
        spent = self._total("writes", rate / 131072 * 2e-4 * world.disk_latency)[rows, worker]
        yield _counter("node_disk_write_time_seconds_total", spent, device)
        busy = self._total("disk", np.clip(rate / 2.5e9 * world.disk_latency + 0.01, 0, 1))[rows, worker]
        yield _counter("node_disk_io_time_seconds_total", busy, device)
        mount = (("device", "/dev/nvme0n1"), ("fstype", "ext4"), ("mountpoint", "/var/lib/kubelet"))
        free = np.round(3500 * GIB * np.clip(world.disk_free[rows, worker], 0, 1))
        yield Line("node_filesystem_avail_bytes", "gauge", mount, free)
        yield Line("node_filesystem_size_bytes", "gauge", mount, np.full(len(rows), 3500 * GIB))

    def _network(self, worker: int, times: Array, rows: Array) -> Iterator[Line]:
        world, job = self._world, self._world.job
        travelled = self._machines.traffic[rows, worker]
        ether = travelled * 0.01 if job.infiniband else travelled
        device = ("device", "eth0")
        speed = 25e9 / 8
        yield _counter("node_network_receive_bytes_total", np.round(ether), device)
        yield _counter("node_network_transmit_bytes_total", np.round(ether), device)
        packets = self._total("packets", np.diff(self._machines.traffic, axis=0, prepend=0) / 8192)
        again = self._total("again", np.diff(packets, axis=0, prepend=0) * world.retransmits)[rows, worker]
        nic = job.infiniband
        drops = (
            0.0 * again
            if nic
            else np.floor(self._total("drops", 40 * np.maximum(world.congestion - 0.2, 0))[rows, worker])
        )
        yield _counter("node_network_transmit_drop_total", drops, device)
        errors = np.floor(self._total("errors", world.link_errors)[rows, worker])
        yield _counter("node_network_receive_errs_total", 0 * errors if nic else errors, device)
        yield _counter("node_network_transmit_errs_total", 0 * errors, device)
        rate = np.full(len(rows), 1.0) if nic else world.link_rate[rows, worker]
        yield _gauge("node_network_speed_bytes", speed * rate, device)
        scale = 0.01 if nic else 1.0
        yield _gauge("node_netstat_Tcp_RetransSegs", np.floor(again * scale))
        yield _gauge("node_netstat_Tcp_OutSegs", np.floor(packets[rows, worker] * scale))
        if nic:
            yield from self._infiniband(worker, times, rows, travelled, errors)

    def _infiniband(self, worker: int, times: Array, rows: Array, travelled: Array, errors: Array) -> Iterator[Line]:
        world = self._world
        port = (("device", "mlx5_0"), ("port", "1"))
        counters = {
            "port_data_received_bytes_total": np.round(travelled),
            "port_data_transmitted_bytes_total": np.round(travelled),
            "link_downed_total": _edges(world.link_downs, worker, times),
            "symbol_error_total": errors,
            "port_errors_received_total": np.floor(errors / 3),
            "port_transmit_wait_total": np.floor(self._total("waits", 2e8 * world.congestion)[rows, worker]),
        }
        for name, values in counters.items():
            yield Line(f"node_infiniband_{name}", "counter", port, values)
        yield Line("node_infiniband_state_id", "gauge", port, np.full(len(rows), 4.0))
        rate = 5e10 * world.link_rate[rows, worker]
        yield Line("node_infiniband_rate_bytes_per_second", "gauge", port, rate)

    def _cadvisor(self, worker: int, times: Array, rows: Array) -> Iterator[Line]:
        world, machines = self._world, self._machines
        labels: Labels = (
            ("container", "trainer"),
            ("image", "registry.local/gpt:1"),
            ("namespace", "ml"),
            ("pod", f"gpt-{worker}"),
        )

        def line(name: str, values: Array, kind: str = "counter") -> Line:
            return Line(f"container_{name}", kind, labels, values)

        yield line("cpu_usage_seconds_total", np.cumsum(96 * machines.cores_busy[:, worker])[rows])
        held = np.cumsum(world.quota[:, worker])[rows]
        yield line("cpu_cfs_throttled_seconds_total", held)
        yield line("cpu_cfs_throttled_periods_total", np.floor(10 * held))
        yield line("cpu_cfs_periods_total", np.floor(10 * times))
        yield line("memory_working_set_bytes", np.round(900 * GIB * world.memory[rows, worker]), "gauge")
        yield line("spec_memory_limit_bytes", np.full(len(rows), 900 * GIB), "gauge")
        yield line("oom_events_total", _edges(world.out_of_memory, worker, times))
        yield line("network_receive_bytes_total", np.round(0.01 * machines.traffic[rows, worker]))


def _counter(name: str, values: Array, *labels: tuple[str, str]) -> Line:
    return Line(name, "counter", labels, values)


def _gauge(name: str, values: Array, *labels: tuple[str, str]) -> Line:
    return Line(name, "gauge", labels, values)


def _edges(events: list[tuple[float, int]], worker: int, times: Array) -> Array:
    """How many have happened there by each time."""
    found = sorted(at for at, where in events if where == worker)
    return np.searchsorted(np.array(found), times, side="right").astype(float)


def _count(events: list[tuple[float, int, int]], worker: int, gpu: int, times: Array) -> Array:
    return _edges([(at, where) for at, where, which in events if which == gpu], worker, times)
