"""The GPU's kernels, interpreted on the CPU, against the sidecar's."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")

PROGRAM = """
import numpy as np, torch
from sternpost_checkpoint.client.kernels.mask import mask_and_values
from sternpost_checkpoint.client.kernels.planes import byte_planes
from sternpost_checkpoint.codec.base import Beside, by_name

def raw(tensor):
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()

torch.manual_seed(0)
for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.uint8):
    for size in (0, 1, 7, 8, 9, 1000, 8192, 8193):
        base = (torch.randn(size) * 50).to(dtype)
        for share in (0.0, 0.1, 1.0):
            current = torch.where(torch.rand(size) < share, base + 1, base)
            if size > 8 and dtype.is_floating_point:
                base[1], current[1] = 0.0, -0.0
                base[2], current[2] = float("nan"), float("nan")
            mask, values = mask_and_values(current, base)
            stored = len(values).to_bytes(4, "little") + raw(mask) + raw(values)
            codec, name = by_name("mask"), str(dtype).removeprefix("torch.")
            expected = b"".join(codec.encode(memoryview(raw(current)), name, Beside(base=memoryview(raw(base)))))
            assert stored == (expected or bytes(4)), (dtype, size, share)
        width = base.element_size()
        planes = np.frombuffer(raw(base), np.uint8).reshape(-1, width).T
        np.testing.assert_array_equal(byte_planes(base).numpy(), planes)
for bad in (torch.zeros(4, 4).t(), torch.zeros(3)):
    try:
        mask_and_values(bad, torch.zeros(4, 4))
    except ValueError:
        continue
    raise SystemExit("a tensor of another layout was taken")
print("same")
"""


def test_interpreted_kernels_agree_with_the_codecs() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=100)
    assert result.stdout.strip() == "same", result.stderr
