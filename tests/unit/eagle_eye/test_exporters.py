"""Pages of dcgm-exporter, node_exporter and cAdvisor become a few numbers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_eagle_eye.collect.exporters import NAMES, exporter_vector
from sternpost_eagle_eye.collect.log_signatures import signs_of

DCGM = """# TYPE DCGM_FI_DEV_GPU_UTIL gauge
DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-a",Hostname="n1"} 90
DCGM_FI_DEV_GPU_UTIL{gpu="1",UUID="GPU-b",Hostname="n1"} 70
DCGM_FI_DEV_SM_CLOCK{gpu="0",UUID="GPU-a"} 1700
DCGM_FI_DEV_SM_CLOCK{gpu="1",UUID="GPU-b"} 900
DCGM_FI_DEV_XID_ERRORS{gpu="0",UUID="GPU-a"} 0
DCGM_FI_DEV_XID_ERRORS{gpu="1",UUID="GPU-b"} 79
DCGM_EXP_XID_ERRORS_COUNT{gpu="1",xid="79"} 2
DCGM_FI_DEV_ECC_DBE_VOL_TOTAL{gpu="0",UUID="GPU-a"} 1
DCGM_FI_DEV_GPU_TEMP{gpu="0",UUID="GPU-a"} NaN
"""
NODE = """node_cpu_seconds_total{cpu="0",mode="idle"} 10
node_cpu_seconds_total{cpu="0",mode="user"} 20
node_cpu_seconds_total{cpu="0",mode="steal"} 3
node_network_receive_bytes_total{device="eth0"} 100
node_network_receive_bytes_total{device="lo"} 1000
node_network_carrier{device="eth0"} 0
node_filesystem_avail_bytes{device="/dev/a",mountpoint="/",fstype="ext4"} 0
node_filesystem_size_bytes{device="/dev/a",mountpoint="/",fstype="ext4"} 100
node_filesystem_avail_bytes{device="tmpfs",mountpoint="/run",fstype="tmpfs"} 0
node_filesystem_size_bytes{device="tmpfs",mountpoint="/run",fstype="tmpfs"} 100
node_infiniband_state_id{device="mlx5_0",port="1"} 4
node_disk_io_time_seconds_total{device="nvme0n1"} 5
node_disk_io_time_seconds_total{device="loop0"} 50
"""
CADVISOR = """container_cpu_usage_seconds_total{container="trainer",pod="gpt-1"} 5
container_cpu_usage_seconds_total{container="",pod="gpt-1"} 6
container_cpu_usage_seconds_total{container="web",pod="other"} 7
container_oom_events_total{container="trainer",pod="gpt-1"} 1
"""


def test_all_three_at_once():
    vector, dropped = exporter_vector(DCGM + NODE + CADVISOR, 5.0, pod="gpt-1")
    assert dropped == 0
    assert (vector.gpus, vector.gpu_util, vector.gpu_util_least) == (2, 0.8, 0.7)
    assert (vector.sm_clock, vector.sm_clock_least) == (1300, 900)
    assert vector.xids == (("GPU-b", 79),)
    assert vector.xid_counts == ((79, 2.0),)
    assert vector.gpu_temperature is None
    assert (vector.cpu_total, vector.cpu_steal) == (33, 3)
    assert (vector.network_received, vector.network_down) == (100, 1)
    assert (vector.filesystem_free, vector.disk_io_time, vector.infiniband_inactive) == (0.0, 5, 0)
    assert (vector.container_cpu, vector.container_oom_events) == (5, 1)


def test_nothing_of_interest_is_nothing():
    assert exporter_vector("go_goroutines 5\nnode_uname_info 1\n", 1.0) == (None, 0)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(NAMES)),
            st.sampled_from(["", '{gpu="0"}', '{device="a",mode="idle"}', '{xid="79"}', '{fstype="ext4"}', "{bad"]),
            st.one_of(st.floats(), st.integers(), st.text(max_size=4)),
        ),
        max_size=30,
    )
)
def test_no_page_breaks_it(lines):
    text = "\n".join(f"{name}{labels} {value}" for name, labels, value in lines)
    _, dropped = exporter_vector(text, 1.0)
    assert 0 <= dropped <= text.count("\n") + 1


@pytest.mark.parametrize(
    ("line", "signature", "code"),
    [
        ("NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, GPU has fallen off the bus.", "xid", 79),
        ("Out of memory: Killed process 4242 (python)", "oom", None),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "cuda-oom", None),
        ("OSError: [Errno 28] No space left on device", "no-space", None),
        ("Watchdog caught collective operation timeout: WorkNCCL(SeqNum=5)", "nccl-timeout", None),
        ("RuntimeError: CUDA error: an illegal memory access was encountered", "cuda-error", None),
        ("rank 3 exited with code -9", "crash", -9),
        ("Fatal Python error: Segmentation fault", "crash", None),
    ],
)
def test_known_lines(line, signature, code):
    (sign,) = signs_of(line)
    assert (sign.signature, sign.code) == (signature, code)


@pytest.mark.parametrize("line", ["step 12 loss 2.5", "exit code 0", "information about nancy", "x" * 100_000])
def test_ordinary_lines(line):
    assert signs_of(line) == ()
