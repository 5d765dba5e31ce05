"""What the exporters say, as numbers that can be compared: with a node's own past, and with its peers now.

Rows are workers, columns are features. A feature's strength says how far it is from its usual in its bad direction, less what
all workers have in common, in units of what would be unremarkable: `STRONG` and more is a sign.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sternpost_eagle_eye.vector import ExporterVector

Floats = NDArray[np.float64]
Family = Literal["thermal", "cpu", "network", "disk", "memory", "load"]

STRONG = 5.0
WEAK = 3.0
"""Below this a sign is over."""
HISTORY = 48
HISTORY_SECONDS = 5.0
"""Between two samples that are kept as a node's past."""
ENOUGH_HISTORY = 4
BASELINE_SECONDS = 15.0
STALE_SECONDS = 45.0
UPDATE_SECONDS = 1.9
"""Between two looks: what is slow to change need not be looked at each time."""
IDLE_SECONDS = 5.0
MAX_STEP_SECONDS = 600.0
"""A difference over a longer time, or over none, is no rate."""
NANOSECONDS_PER_SECOND = 1e9


@dataclass(frozen=True)
class Feature:
    """`unit` and `share`: a deviation by that much, or that share of the usual, is unremarkable."""

    name: str
    family: Family
    direction: int
    unit: float
    share: float = 0.0
    words: str = ""
    scale: float = 1.0
    """For people: times the value."""


FEATURES = (
    Feature("sm_clock_least", "thermal", -1, 5.0, 0.012, "SM clock {:.0f} MHz"),
    Feature("gpu_temperature", "thermal", 1, 1.6, 0.0, "GPU temperature {:.0f} C"),
    Feature("thermal_violation", "thermal", 1, 1e4, 0.0, "thermal violation {:.0f} a second"),
    Feature("throttling", "thermal", 1, 0.19, 0.0, "clocks held back for heat or power"),
    Feature("steal", "cpu", 1, 0.01, 0.1, "CPU steal {:.1f} %", 100.0),
    Feature("container_throttled", "cpu", 1, 0.02, 0.2, "CPU quota throttles {:.2f} s a second"),
    Feature("pressure_cpu", "cpu", 1, 0.05, 0.2, "CPU pressure {:.2f}"),
    Feature("network_speed", "network", -1, 1.0, 0.02, "link speed {:.3g} bytes/s"),
    Feature("infiniband_rate", "network", -1, 1.0, 0.02, "InfiniBand rate {:.3g} bytes/s"),
    Feature("network_down", "network", 1, 0.19, 0.0, "{:.0f} interfaces without carrier"),
    Feature("infiniband_inactive", "network", 1, 0.19, 0.0, "{:.0f} InfiniBand ports inactive"),
    Feature("infiniband_link_downed", "network", 1, 0.01, 0.2, "InfiniBand link down {:.2f} times a second"),
    Feature("infiniband_errors", "network", 1, 0.15, 0.3, "{:.1f} InfiniBand errors a second"),
    Feature("infiniband_wait", "network", 1, 0.015, 0.3, "InfiniBand sends wait {:.2f}"),
    Feature("network_errors", "network", 1, 0.3, 0.3, "{:.1f} network errors and drops a second"),
    Feature("retransmits", "network", 1, 0.001, 0.3, "{:.2f} % TCP retransmits", 100.0),
    Feature("retransmit_rate", "network", 1, 2.0, 0.5, "{:.1f} TCP retransmits a second"),
    Feature("nvlink_errors", "network", 1, 0.2, 0.3, "{:.1f} NVLink errors a second"),
    Feature("pcie_replays", "network", 1, 0.2, 0.3, "{:.1f} PCIe replays a second"),
    Feature("disk_latency", "disk", 1, 0.003, 0.3, "disk {:.0f} ms an operation", 1000.0),
    Feature("disk_busy", "disk", 1, 0.06, 0.1, "disk busy {:.0f} %", 100.0),
    Feature("iowait", "disk", 1, 0.015, 0.2, "I/O wait {:.1f} %", 100.0),
    Feature("pressure_io", "disk", 1, 0.04, 0.2, "I/O pressure {:.2f}"),
    Feature("pressure_memory", "memory", 1, 0.04, 0.2, "memory pressure {:.2f}"),
    Feature("busy", "load", -1, 0.03, 0.02, "GPU busy {:.0f} %", 100.0),
    Feature("gpu_power", "load", -1, 5.0, 0.03, "GPU power {:.0f} W"),
    Feature("traffic", "load", -1, 1e6, 0.1, "network {:.3g} bytes/s"),
    Feature("cpu_used", "load", -1, 0.2, 0.05, "{:.1f} processors used"),
)
INDEX = {feature.name: column for column, feature in enumerate(FEATURES)}
FAMILY: dict[str, Family] = {feature.name: feature.family for feature in FEATURES}
BLAMING: tuple[Family, ...] = ("thermal", "cpu", "network")
"""Signs of these families make a node slow."""
_COLUMNS: dict[Family, list[int]] = {
    family: [column for column, feature in enumerate(FEATURES) if feature.family == family]
    for family in get_args(Family)
}
_GAUGES = (
    "sm_clock_least",
    "gpu_temperature",
    "network_speed",
    "infiniband_rate",
    "network_down",
    "infiniband_inactive",
)
_GAUGES_TOO = ("gpu_util", "engine_active", "gpu_power", "throttle_reasons", "filesystem_free")
_TOTALS = (
    "thermal_violation", "cpu_total", "cpu_steal", "cpu_iowait", "container_throttled", "container_cpu", "pressure_cpu",
    "pressure_io", "pressure_memory", "infiniband_link_downed", "infiniband_errors", "infiniband_wait", "network_errors",
    "tcp_retransmits", "tcp_sent", "nvlink_errors", "pcie_replays", "disk_operation_time", "disk_operations", "disk_io_time",
    "network_received", "network_sent", "infiniband_received", "infiniband_sent",
)  # fmt: skip
_RAW = (*_GAUGES, *_GAUGES_TOO, *_TOTALS)
_RAW_INDEX = {name: column for column, name in enumerate(_RAW)}
_read = attrgetter(*_RAW)
_THROTTLE_BITS = 0x8 | 0x20 | 0x40 | 0x80
"""Hardware slowdown, software and hardware thermal slowdown, power brake: not the ordinary power cap."""


class FeatureBoard:
    """All workers' features. `take` what arrives, `update` once an interval."""

    def __init__(self) -> None:
        self._rows: dict[int, int] = {}
        self._raw = np.full((0, len(_RAW)), np.nan)
        self._previous = np.full((0, len(_RAW)), np.nan)
        self._previous_at = np.full((0, len(_RAW)), np.nan)
        self._raw_at = np.full(0, np.nan)
        self._pending: set[int] = set()
        self.values = np.full((0, len(FEATURES)), np.nan)
        self._seen = np.full((0, len(FEATURES)), -np.inf)
        self._history = np.full((0, HISTORY, len(FEATURES)), np.nan, dtype=np.float32)
        self._kept = np.zeros(0, dtype=np.int64)
        self._kept_at = np.full(0, -np.inf)
        self._usual = np.full((0, len(FEATURES)), np.nan)
        self._spread = np.full((0, len(FEATURES)), np.nan)
        self._usual_at = self._updated_at = -np.inf
        self.strength = np.zeros((0, len(FEATURES)))
        self.since = np.full((0, len(FEATURES)), np.inf)
        """When a sign began, on the judge's clock; infinite for none."""
        self._updates = np.zeros((0, len(FEATURES)), dtype=np.int64)
        self._any = False
        self._common = np.zeros(len(FEATURES))
        """Strength that half of the nodes have or exceed."""
        self._common_since = np.full(len(FEATURES), np.inf)

    def take(self, worker: int, exporters: ExporterVector) -> None:
        """What was scraped; a repetition changes nothing."""
        row = self._rows.get(worker)
        if row is None:
            row = self._rows[worker] = len(self._rows)
            if row >= len(self._raw):
                self._grow(max(8, 2 * row))
        if exporters.at == self._raw_at[row]:
            return
        self._raw[row] = _read(exporters)
        self._raw_at[row] = exporters.at
        self._pending.add(row)

    def update(self, now: float, *, healthy: bool) -> None:
        """Turn what was taken into features and signs. `healthy`: whether the present may count as usual."""
        if now - self._updated_at < UPDATE_SECONDS:
            return
        self._updated_at = now
        if self._pending:
            rows = np.fromiter(self._pending, dtype=np.int64)
            self._pending.clear()
            self._features(rows, now)
            if healthy:
                self._keep(rows, now)
        if not self._rows:
            return
        young = healthy and self._kept.max(initial=0) < 2 * ENOUGH_HISTORY
        if now - self._usual_at >= (HISTORY_SECONDS if young else BASELINE_SECONDS):
            self._usual_at = now
            self._baseline()
        self._score(now)

    def row(self, worker: int) -> int | None:
        """Where the worker's features are; None if none are known."""
        return self._rows.get(worker)

    def signs(self, worker: int, families: tuple[Family, ...], now: float, seconds: float = 0.0) -> dict[str, float]:
        """Feature and strength of each sign that stands for so long and was seen more than once."""
        row = self._rows.get(worker)
        if row is None:
            return {}
        found: dict[str, float] = {}
        for family in families:
            for column in _COLUMNS[family]:
                if now - self.since[row, column] >= seconds and self._updates[row, column] >= 2:
                    found[FEATURES[column].name] = float(self.strength[row, column])
        return found

    def began(self, row: int, name: str) -> float:
        """When the sign began; infinite for none."""
        return float(self.since[row, INDEX[name]])

    def any_signs(self, families: tuple[Family, ...]) -> list[int]:
        """Workers that have any sign of these families."""
        columns = [column for family in families for column in _COLUMNS[family]]
        if not self._any:
            return []
        some: NDArray[np.bool_] = np.any(self.since[:, columns] < np.inf, axis=1)
        return [worker for worker, row in self._rows.items() if some[row]]

    def common(self, families: tuple[Family, ...], now: float, seconds: float = 0.0) -> dict[str, float]:
        """Feature and strength of what most nodes show for so long."""
        columns = [column for family in families for column in _COLUMNS[family]]
        return {
            FEATURES[column].name: float(self._common[column])
            for column in columns
            if now - self._common_since[column] >= seconds
        }

    def idle_alone(self, worker: int, now: float, since: float) -> bool:
        """Whether its GPUs have less to do than usual, compared with its peers, while its processors are its own.

        They are known to be if that was looked at after `since`, when the worker became slow.
        """
        row = self._rows.get(worker)
        if row is None or "busy" not in self.signs(worker, ("load",), now, IDLE_SECONDS):
            return False
        seen = self._seen[row, [INDEX["steal"], INDEX["container_throttled"]]].max()
        return bool(seen > since + IDLE_SECONDS) and not self.signs(worker, (*BLAMING, "disk", "memory"), now)

    def words(self, worker: int, names: dict[str, float]) -> str:
        """The signs in words and numbers, the strongest first."""
        row = self._rows[worker]
        told: list[str] = []
        for name in sorted(names, key=lambda each: -names[each])[:4]:
            column = INDEX[name]
            feature, value, usual = FEATURES[column], self.values[row, column], self._usual[row, column]
            text = feature.words.format(value * feature.scale)
            told.append(text if np.isnan(usual) else f"{text} (usually {usual * feature.scale:.3g})")
        return ", ".join(told)

    def fallen(self, name: str) -> float | None:
        """The median worker's value as a share of its usual; None where that is not known."""
        column = INDEX[name]
        count = len(self._rows)
        usual, value = self._usual[:count, column], self.values[:count, column]
        known = ~np.isnan(usual) & ~np.isnan(value) & (usual > 0)
        return float(np.median(value[known] / usual[known])) if known.any() else None

    def column(self, name: str) -> dict[int, float]:
        """By worker, where known."""
        column = INDEX[name]
        values = {worker: float(self.values[row, column]) for worker, row in self._rows.items()}
        return {worker: value for worker, value in values.items() if value == value}  # noqa: PLR0124 - not NaN

    def _grow(self, rows: int) -> None:
        def grown(array: NDArray[Any], fill: float) -> NDArray[Any]:
            more = np.full((rows - len(array), *array.shape[1:]), fill, dtype=array.dtype)
            return np.concatenate([array, more])

        for name in ("_raw", "_previous", "_previous_at", "_raw_at", "values", "_history", "_usual", "_spread"):
            setattr(self, name, grown(getattr(self, name), np.nan))
        for name, fill in (("_seen", -np.inf), ("_kept_at", -np.inf), ("since", np.inf)):
            setattr(self, name, grown(getattr(self, name), fill))
        for name in ("_kept", "_updates", "strength"):
            setattr(self, name, grown(getattr(self, name), 0))

    def _features(self, rows: NDArray[np.int64], now: float) -> None:
        raw, previous = self._raw[rows], self._previous[rows]
        at = self._raw_at[rows][:, None]
        seconds = at - self._previous_at[rows]
        known = ~np.isnan(raw)
        with np.errstate(invalid="ignore", divide="ignore"):
            delta = raw - previous
            usable = (seconds > 0) & (seconds <= MAX_STEP_SECONDS) & (delta >= 0)  # a counter that fell was reset
            delta = np.where(usable, delta, np.nan)
            rate = delta / seconds
            new = self._assemble(raw, delta, rate)
        self._previous[rows] = np.where(known, raw, previous)
        self._previous_at[rows] = np.where(known, at, self._previous_at[rows])
        fresh = ~np.isnan(new)
        stale = now - self._seen[rows] > STALE_SECONDS
        self.values[rows] = np.where(fresh, new, np.where(stale, np.nan, self.values[rows]))
        self._seen[rows] = np.where(fresh, now, self._seen[rows])
        self._updates[rows] += fresh

    @staticmethod
    def _assemble(raw: Floats, delta: Floats, rate: Floats) -> Floats:
        new = np.full((len(raw), len(FEATURES)), np.nan)

        def of(source: Floats, name: str) -> Floats:
            column: Floats = source[:, _RAW_INDEX[name]]
            return column

        for name in (*_GAUGES, "gpu_power"):
            new[:, INDEX[name]] = of(raw, name)
        for name in (
            "thermal_violation", "container_throttled", "pressure_cpu", "pressure_io", "pressure_memory", "infiniband_errors",
            "infiniband_link_downed", "network_errors", "nvlink_errors", "pcie_replays",
        ):  # fmt: skip
            new[:, INDEX[name]] = of(rate, name)
        cpu = of(delta, "cpu_total")
        cpu = np.where(cpu > 0, cpu, np.nan)
        new[:, INDEX["steal"]] = of(delta, "cpu_steal") / cpu
        new[:, INDEX["iowait"]] = of(delta, "cpu_iowait") / cpu
        wait = of(rate, "infiniband_wait")
        new[:, INDEX["infiniband_wait"]] = np.where(wait > 1e3, wait / NANOSECONDS_PER_SECOND, wait)
        new[:, INDEX["retransmits"]] = of(delta, "tcp_retransmits") / np.maximum(of(delta, "tcp_sent"), 100.0)
        new[:, INDEX["retransmit_rate"]] = of(rate, "tcp_retransmits")
        operations = of(delta, "disk_operations")
        new[:, INDEX["disk_latency"]] = of(delta, "disk_operation_time") / np.where(operations >= 1, operations, np.nan)
        new[:, INDEX["disk_busy"]] = of(rate, "disk_io_time")
        new[:, INDEX["cpu_used"]] = of(rate, "container_cpu")
        util, engine = of(raw, "gpu_util"), of(raw, "engine_active")
        new[:, INDEX["busy"]] = np.where(np.isnan(engine), util, engine)
        reasons = of(raw, "throttle_reasons")
        bits = np.where(np.isnan(reasons), 0, reasons).astype(np.int64) & _THROTTLE_BITS
        new[:, INDEX["throttling"]] = np.where(np.isnan(reasons), np.nan, bits != 0)
        traffic = np.stack(
            [of(rate, name) for name in ("network_received", "network_sent", "infiniband_received", "infiniband_sent")]
        )
        none = np.isnan(traffic).all(axis=0)
        new[:, INDEX["traffic"]] = np.where(none, np.nan, np.nansum(traffic, axis=0))
        return new

    def _keep(self, rows: NDArray[np.int64], now: float) -> None:
        due = rows[now - self._kept_at[rows] >= HISTORY_SECONDS]
        self._history[due, self._kept[due] % HISTORY] = self.values[due]
        self._kept[due] += 1
        self._kept_at[due] = now

    def _baseline(self) -> None:
        count = len(self._rows)
        history = self._history[:count]
        usual = nan_median(history, axis=1)
        spread = nan_median(np.abs(history - usual[:, None, :]), axis=1)
        enough = (~np.isnan(history)).sum(axis=1) >= ENOUGH_HISTORY
        # What stands out does not become usual by standing out for long.
        free = np.isinf(self.since[:count])
        self._usual[:count] = np.where(free, np.where(enough, usual, np.nan), self._usual[:count])
        self._spread[:count] = np.where(free, np.where(enough, 1.4826 * spread, np.nan), self._spread[:count])

    def _score(self, now: float) -> None:
        count = len(self._rows)
        values = self.values[:count]
        usual, spread = self._usual[:count], self._spread[:count]
        with np.errstate(invalid="ignore"):
            unit = np.maximum(np.maximum(spread, _UNITS), _SHARES * np.abs(usual))
            strength = _DIRECTIONS * (values - usual) / unit
            strength[np.isnan(strength) | (now - self._seen[:count] > STALE_SECONDS)] = 0.0
            if count >= 3:  # what all have in common is nobody's
                self._common = np.sort(strength, axis=0)[count // 2]
                strength -= self._common
                began = (self._common >= STRONG) & np.isinf(self._common_since)
                self._common_since = np.where(self._common < WEAK, np.inf, np.where(began, now, self._common_since))
        since = self.since[:count]
        begins = (strength >= STRONG) & np.isinf(since)
        over = strength < WEAK
        self._updates[:count] = np.where(begins, 1, self._updates[:count])
        self.since[:count] = np.where(over, np.inf, np.where(begins, now, since))
        self.strength[:count] = strength
        self._any = bool(np.isfinite(self.since[:count]).any())


_UNITS = np.array([feature.unit for feature in FEATURES])
_SHARES = np.array([feature.share for feature in FEATURES])
_DIRECTIONS = np.array([feature.direction for feature in FEATURES])


def nan_median(values: NDArray[Any], axis: int) -> Floats:
    """As numpy.nanmedian, without its cost for small axes and its warnings."""
    ordered = np.sort(values, axis=axis)  # NaN comes last
    count = (~np.isnan(values)).sum(axis=axis, keepdims=True)
    low = np.take_along_axis(ordered, np.maximum(count - 1, 0) // 2, axis=axis)
    high = np.take_along_axis(ordered, np.minimum(count // 2, values.shape[axis] - 1), axis=axis)
    with np.errstate(invalid="ignore"):
        found: Floats = np.squeeze((low + high) / 2, axis=axis)
    return found
