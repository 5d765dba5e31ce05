"""node_exporter's metrics: all devices of a node become a few numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from sternpost_eagle_eye.collect.page import Page, PageSample

PREFIX = "node_"
CPU = "node_cpu_seconds_total"
_IDLE_MODES = {"idle": "cpu_idle", "iowait": "cpu_iowait", "steal": "cpu_steal"}
_VIRTUAL_INTERFACES = (
    "lo",
    "veth",
    "docker",
    "cni",
    "cali",
    "flannel",
    "virbr",
    "br-",
    "kube",
    "tunl",
    "vxlan",
    "dummy",
)
_VIRTUAL_DISKS = ("loop", "ram", "zram", "sr", "fd")
_OTHER_FILE_SYSTEMS = frozenset(
    {"tmpfs", "devtmpfs", "overlay", "squashfs", "ramfs", "proc", "sysfs", "iso9660", "nsfs", "rootfs", "shm"}
)
_SUMS: dict[str, tuple[str, ...]] = {
    "disk_io_time": ("node_disk_io_time_seconds_total",),
    "disk_operations": ("node_disk_reads_completed_total", "node_disk_writes_completed_total"),
    "disk_operation_time": ("node_disk_read_time_seconds_total", "node_disk_write_time_seconds_total"),
    "disk_read_bytes": ("node_disk_read_bytes_total",),
    "disk_written_bytes": ("node_disk_written_bytes_total",),
    "network_received": ("node_network_receive_bytes_total",),
    "network_sent": ("node_network_transmit_bytes_total",),
    "network_errors": (
        "node_network_receive_errs_total",
        "node_network_transmit_errs_total",
        "node_network_receive_drop_total",
        "node_network_transmit_drop_total",
    ),
    "infiniband_received": ("node_infiniband_port_data_received_bytes_total",),
    "infiniband_sent": ("node_infiniband_port_data_transmitted_bytes_total",),
    "infiniband_errors": (
        "node_infiniband_symbol_error_total",
        "node_infiniband_port_errors_received_total",
        "node_infiniband_port_receive_remote_physical_errors_total",
        "node_infiniband_link_error_recovery_total",
        "node_infiniband_local_link_integrity_errors_total",
        "node_infiniband_port_discards_transmitted_total",
    ),
    "infiniband_wait": ("node_infiniband_port_transmit_wait_total",),
    "infiniband_link_downed": ("node_infiniband_link_downed_total",),
    "infiniband_rate": ("node_infiniband_rate_bytes_per_second",),
    "edac_uncorrectable": ("node_edac_uncorrectable_errors_total",),
    "oom_kills": ("node_vmstat_oom_kill",),
    "load": ("node_load1",),
    "memory_total": ("node_memory_MemTotal_bytes",),
    "memory_available": ("node_memory_MemAvailable_bytes",),
    "tcp_retransmits": ("node_netstat_Tcp_RetransSegs",),
    "tcp_sent": ("node_netstat_Tcp_OutSegs",),
    "pressure_cpu": ("node_pressure_cpu_waiting_seconds_total",),
    "pressure_io": ("node_pressure_io_waiting_seconds_total",),
    "pressure_memory": ("node_pressure_memory_waiting_seconds_total",),
    "boot_time": ("node_boot_time_seconds",),
}
_AVAILABLE, _SIZE = "node_filesystem_avail_bytes", "node_filesystem_size_bytes"
_READ_ONLY, _SPEED, _CARRIER = "node_filesystem_readonly", "node_network_speed_bytes", "node_network_carrier"
_UP, _INFINIBAND_STATE = "node_network_up", "node_infiniband_state_id"
_ACTIVE = 4
"""Of an InfiniBand port's states."""
NAMES = frozenset(
    {name for names in _SUMS.values() for name in names}
    | {CPU, _AVAILABLE, _SIZE, _READ_ONLY, _SPEED, _CARRIER, _UP, _INFINIBAND_STATE}
)


def node_fields(page: Page) -> dict[str, Any]:
    """Fields of an ExporterVector; empty where no node_exporter answered."""
    fields: dict[str, Any] = {}
    for field, names in _SUMS.items():
        samples = [s for name in names for s in page.by_name.get(name, ()) if _counts(s)]
        if samples:
            fields[field] = math.fsum(sample.value for sample in samples)
    _processors(page, fields)
    _file_systems(page, fields)
    speeds = _values(page, _SPEED, _is_interface)
    if speeds:
        fields["network_speed"] = math.fsum(speeds)
    carriers = _values(page, _CARRIER, _is_interface) or _values(page, _UP, _is_interface)
    if carriers:
        fields["network_down"] = sum(1 for value in carriers if value == 0)
    states = _values(page, _INFINIBAND_STATE, lambda _: True)
    if states:
        fields["infiniband_inactive"] = sum(1 for value in states if value != _ACTIVE)
    return fields


def _processors(page: Page, fields: dict[str, Any]) -> None:
    samples = [s for s in page.by_name.get(CPU, ()) if 0 <= s.value < math.inf]
    if not samples:
        return
    fields["cpu_total"] = math.fsum(sample.value for sample in samples)
    for mode, field in _IDLE_MODES.items():
        values = [sample.value for sample in samples if sample.labels.get("mode") == mode]
        if values:
            fields[field] = math.fsum(values)


def _file_systems(page: Page, fields: dict[str, Any]) -> None:
    def key(sample: PageSample) -> tuple[str | None, str | None]:
        return sample.labels.get("device"), sample.labels.get("mountpoint")

    def real(sample: PageSample) -> bool:
        return sample.labels.get("fstype") not in _OTHER_FILE_SYSTEMS

    sizes = {key(s): s.value for s in page.by_name.get(_SIZE, ()) if real(s) and 0 < s.value < math.inf}
    free = [
        sample.value / sizes[key(sample)]
        for sample in page.by_name.get(_AVAILABLE, ())
        if key(sample) in sizes and 0 <= sample.value < math.inf
    ]
    if free:
        fields["filesystem_free"] = min(1.0, *free)
    elif any(real(s) and s.value == 0 for s in page.by_name.get(_AVAILABLE, ())):
        fields["filesystem_free"] = 0.0
    read_only = [sample.value for sample in page.by_name.get(_READ_ONLY, ()) if real(sample)]
    if read_only:
        fields["filesystem_read_only"] = any(value == 1 for value in read_only)


def _values(page: Page, name: str, wanted: Callable[[PageSample], bool]) -> list[float]:
    return [s.value for s in page.by_name.get(name, ()) if wanted(s) and 0 <= s.value < math.inf]


def _is_interface(sample: PageSample) -> bool:
    return not sample.labels.get("device", "").startswith(_VIRTUAL_INTERFACES)


def _counts(sample: PageSample) -> bool:
    if not 0 <= sample.value < math.inf:
        return False
    if sample.name.startswith("node_network_"):
        return _is_interface(sample)
    if sample.name.startswith("node_disk_"):
        return not sample.labels.get("device", "").startswith(_VIRTUAL_DISKS)
    return True
