"""DCGM's metrics, by the names of dcgm-exporter: all GPUs of a node become a few numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from sternpost_eagle_eye.collect.page import Page, PageSample
from sternpost_eagle_eye.vector import MAX_RANKS

PREFIX = "DCGM_"
XID = "DCGM_FI_DEV_XID_ERRORS"
XID_COUNT = "DCGM_EXP_XID_ERRORS_COUNT"
THROTTLE = ("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS")


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def _share(how: Callable[[list[float]], float], whole: float) -> Callable[[list[float]], float]:
    return lambda values: min(1.0, max(0.0, how(values) / whole))


_FIELDS: dict[str, tuple[tuple[str, Callable[[list[float]], float]], ...]] = {
    "DCGM_FI_DEV_GPU_UTIL": (("gpu_util", _share(_mean, 100.0)), ("gpu_util_least", _share(min, 100.0))),
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE": (("engine_active", _share(_mean, 1.0)),),
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": (("tensor_active", _share(_mean, 1.0)),),
    "DCGM_FI_PROF_DRAM_ACTIVE": (("dram_active", _share(_mean, 1.0)),),
    "DCGM_FI_DEV_POWER_USAGE": (("gpu_power", _mean),),
    "DCGM_FI_DEV_GPU_TEMP": (("gpu_temperature", max),),
    "DCGM_FI_DEV_MEMORY_TEMP": (("memory_temperature", max),),
    "DCGM_FI_DEV_SM_CLOCK": (("sm_clock", _mean), ("sm_clock_least", min)),
    "DCGM_FI_DEV_FB_USED": (("framebuffer_used", max),),
    "DCGM_FI_DEV_THERMAL_VIOLATION": (("thermal_violation", math.fsum),),
    "DCGM_FI_DEV_PCIE_REPLAY_COUNTER": (("pcie_replays", math.fsum),),
    "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL": (("nvlink_bytes", math.fsum),),
    "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL": (("ecc_double_bit", math.fsum),),
    "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS": (("remapped_rows", math.fsum),),
    "DCGM_FI_DEV_ROW_REMAP_FAILURE": (("remap_failures", math.fsum),),
}
_SUMS = {
    "pcie_bytes": ("DCGM_FI_PROF_PCIE_TX_BYTES", "DCGM_FI_PROF_PCIE_RX_BYTES"),
    "nvlink_errors": (
        "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL",
        "DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL",
        "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL",
        "DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL",
    ),
}
NAMES = frozenset({*_FIELDS, *(name for names in _SUMS.values() for name in names), XID, XID_COUNT, *THROTTLE})


def dcgm_fields(page: Page) -> dict[str, Any]:
    """Fields of an ExporterVector; empty where no DCGM answered."""
    fields: dict[str, Any] = {}
    gpus: set[str] = set()
    for name, targets in _FIELDS.items():
        samples = page.by_name.get(name)
        if not samples:
            continue
        gpus |= {_gpu(sample) for sample in samples}
        if values := _finite(samples):
            fields |= {field: how(values) for field, how in targets}
    for field, names in _SUMS.items():
        if values := [value for name in names for value in _finite(page.by_name.get(name, ()))]:
            fields[field] = math.fsum(values)
    xids = page.by_name.get(XID, [])
    gpus |= {_gpu(sample) for sample in xids}
    codes = {_gpu(sample): int(sample.value) for sample in xids if 0 < sample.value < 10_000}
    if codes:
        fields["xids"] = tuple(sorted(codes.items())[:MAX_RANKS])
    if counts := _counts(page):
        fields["xid_counts"] = counts
    reasons = 0
    for name in THROTTLE:
        for value in _finite(page.by_name.get(name, ())):
            reasons |= int(min(value, 2**52))
    if any(name in page.by_name for name in THROTTLE):
        fields["throttle_reasons"] = reasons
    if gpus:
        fields["gpus"] = len(gpus)
    return fields


def _counts(page: Page) -> tuple[tuple[int, float], ...]:
    counts: dict[int, float] = {}
    for sample in page.by_name.get(XID_COUNT, ()):
        code = sample.labels.get("xid", "")
        if code.isascii() and code.isdigit() and len(code) < 6 and 0 <= sample.value < math.inf:
            counts[int(code)] = counts.get(int(code), 0.0) + sample.value
    return tuple(sorted(counts.items())[:MAX_RANKS])


def _gpu(sample: PageSample) -> str:
    labels = sample.labels
    # An instance of a partitioned GPU is a device of its own.
    name = labels.get("UUID") or labels.get("gpu") or labels.get("device") or ""
    return f"{name}/{labels['GPU_I_ID']}"[:256] if labels.get("GPU_I_ID") else name[:256]


def _finite(samples: Iterable[PageSample]) -> list[float]:
    return [sample.value for sample in samples if 0 <= sample.value < math.inf]
