"""Compile kernels without the GIL, and keep the machine code where it may be written.

Compiled code that is loaded again runs: the folder must belong to this user alone. The image's root file system may be
read only, and then numba's own choices (beside the source, the home folder) fail when a kernel is *defined*.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

CACHE_VARIABLE = "STERNPOST_KERNEL_CACHE"
"""Folder for compiled kernels; made when it is missing."""

Function = TypeVar("Function", bound=Callable[..., Any])


def _is_private(folder: Path) -> bool:
    """Whether `folder` is (or could be made) a folder that only this user can write to."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.lstat()
    except OSError:
        return False
    mine = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
    return mine and os.access(folder, os.W_OK | os.X_OK)


def cache_folder() -> Path:
    """The first folder that serves: as configured, the user's cache, a temporary one, at last one for this process."""
    candidates = []
    if configured := os.environ.get(CACHE_VARIABLE):
        candidates.append(Path(configured))
    cache = os.environ.get("XDG_CACHE_HOME") or (f"{home}/.cache" if (home := os.environ.get("HOME")) else "")
    if cache.startswith("/"):
        candidates.append(Path(cache) / "sternpost" / "kernels")
    candidates.append(Path(tempfile.gettempdir()) / f"sternpost-kernels-{os.geteuid()}")
    for folder in candidates:
        if _is_private(folder):
            return folder
    return Path(tempfile.mkdtemp(prefix="sternpost-kernels-"))


def _choose_cache() -> None:
    settings: Any = numba.config  # its names are made at run time
    if not settings.CACHE_DIR:
        settings.CACHE_DIR = str(cache_folder())


def kernel(function: Function) -> Function:
    """Compile `function` when it is first called with arguments of some types; no bounds are checked in it."""
    _choose_cache()
    return cast("Function", numba.njit(nogil=True, cache=True, error_model="numpy")(function))


def reassociating_kernel(function: Function) -> Function:
    """As `kernel`; sums of floats may be taken in any order, and so by vector instructions."""
    _choose_cache()
    return cast("Function", numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc"})(function))


def helper(function: Function) -> Function:
    """A function that only kernels call: compiled into each of them."""
    return cast("Function", numba.njit(nogil=True, error_model="numpy")(function))
