"""Preflight check of the GPUs, if there are any."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from sternpost_launcher.children import Children
from sternpost_launcher.verdict import Verdict

TIMEOUT_SECONDS = 10.0
DEVICES = Path("/dev")


def check_gpu(children: Children, environment: Mapping[str, str], ranks: int) -> Verdict:
    """Whether the driver answers and there is a GPU, or a MIG slice, for each local rank."""
    if environment.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return Verdict("gpu", True, "hidden from the ranks by CUDA_VISIBLE_DEVICES")
    devices = sum(1 for entry in DEVICES.glob("nvidia*") if re.fullmatch(r"nvidia\d+", entry.name))
    tool = shutil.which("nvidia-smi", path=environment.get("PATH"))
    if tool is None:
        if devices:
            return Verdict("gpu", True, f"{devices} NVIDIA devices, unchecked: no nvidia-smi in PATH")
        return Verdict("gpu", True, "no GPU")
    try:
        code, output = children.run_helper([tool, "-L"], environment, TIMEOUT_SECONDS)
    except OSError as error:
        code, output = 126, str(error)
    if code != 0:
        if not devices:
            return Verdict("gpu", True, "no GPU")
        said = output.strip().splitlines()[-1][:200] if output.strip() else "nothing"
        what = f"did not end within {TIMEOUT_SECONDS:.0f} s" if code is None else f"exited with code {code}"
        return Verdict(
            "gpu",
            False,
            f"{devices} NVIDIA devices, but nvidia-smi {what} and said: {said}; "
            "check the node's driver (dmesg, Xid errors), drain the node",
        )
    return _count(output, ranks)


def _count(listing: str, ranks: int) -> Verdict:
    """`nvidia-smi -L` prints `GPU 0: …`, and below it `  MIG 1g.5gb Device 0: …` for each slice."""
    gpus = len(re.findall(r"^GPU \d+:", listing, re.MULTILINE))
    slices = len(re.findall(r"^\s+MIG ", listing, re.MULTILINE))
    found = f"{gpus} GPUs" + (f" with {slices} MIG slices" if slices else "")
    if max(gpus, slices) < max(1, ranks):
        return Verdict(
            "gpu",
            False,
            f"{found} for {ranks} ranks: request as many as spec.ranksPerWorker (limits nvidia.com/gpu), "
            "or set CUDA_VISIBLE_DEVICES='' to train without",
        )
    return Verdict("gpu", True, f"{found} for {ranks} ranks")
