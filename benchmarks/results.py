"""What every benchmark prints: what it measured, on which machine, and whether each goal holds."""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True)
class Check:
    """One figure that was promised."""

    name: str
    value: float
    unit: str
    goal: str
    holds: bool


def machine() -> dict[str, Any]:
    """Where the figures were taken."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memoryGiB": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def progress(text: str) -> None:
    """Tell the person who waits."""
    print(text, file=sys.stderr, flush=True)


def publish(name: str, figures: dict[str, Any], checks: list[Check], *, as_json: bool) -> None:
    """Print the result; the exit code is 1 where a goal was missed."""
    if as_json:
        print(json.dumps({"benchmark": name, "machine": machine(), **figures, "checks": [asdict(c) for c in checks]}))
    else:
        for check in checks:
            print(
                f"{'holds ' if check.holds else 'MISSED'} {check.name}: {check.value:g} {check.unit} (goal: {check.goal})"
            )
    if not all(check.holds for check in checks):
        sys.exit(1)
