"""All random states of the process."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def capture_random() -> dict[str, Any]:
    """Python, numpy, torch on the CPU, and every CUDA device in use."""
    version, words, gauss = random.getstate()
    state: dict[str, Any] = {
        # One array in place of 625 numbers: they would be most of the tree.
        "python": {"version": version, "words": np.array(words, dtype=np.uint32), "gauss": gauss},
        # The lowest level there is: every other consumer of the legacy generator draws from it.
        "numpy": np.random.get_state(legacy=False),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random(state: dict[str, Any]) -> None:
    """Undo `capture_random`. A device that is not there any more is left out."""
    python = state["python"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        for device, device_state in enumerate(state.get("cuda", [])[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(device_state, device)
