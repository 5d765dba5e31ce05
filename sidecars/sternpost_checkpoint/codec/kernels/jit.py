"""Compile kernels without the GIL, and keep the machine code where it may be written.

Compiled code that is loaded again runs: the folder must belong to this user alone. The image's root file system may be
read only, and then numba's own choices (beside the source, the home folder) fail when a kernel is *defined*.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

CACHE_VARIABLE = "STERNPOST_KERNEL_CACHE"
"""Folder for compiled kernels; made when it is missing."""
BUILT_VARIABLE = "STERNPOST_KERNELS_BUILT"
"""Folder of kernels that were compiled when the image was built; a sidecar's first save need not compile them."""
BUILT_PROCESSOR = "x86-64-v3"
"""What they are compiled for: any processor of the last ten years has it, and the cache's keys name it."""
_BUILT_FLAGS = frozenset({"avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"})

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


def cache_folder() -> Path | None:
    """The first folder that serves: as configured, the user's cache, a temporary one; None where nothing may be written."""
    candidates = []
    if configured := os.environ.get(CACHE_VARIABLE):
        candidates.append(Path(configured))
    cache = os.environ.get("XDG_CACHE_HOME") or (f"{home}/.cache" if (home := os.environ.get("HOME")) else "")
    if cache.startswith("/"):
        candidates.append(Path(cache) / "sternpost" / "kernels")
    with contextlib.suppress(FileNotFoundError):  # no temporary folder may be written to
        candidates.append(Path(tempfile.gettempdir()) / f"sternpost-kernels-{os.geteuid()}")
    for folder in candidates:
        if _is_private(folder):
            return folder
    return None


def runs_built_kernels(cpuinfo: str) -> bool:
    """Whether a processor with this `/proc/cpuinfo` runs what was compiled for `BUILT_PROCESSOR`."""
    flags = next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "")
    return set(flags.partition(":")[2].split()) >= _BUILT_FLAGS


def take_built(built: Path, folder: Path) -> None:
    """Copy kernels that the image brought to where numba may write; raises `OSError`."""
    for source in built.rglob("*"):
        target = folder / source.relative_to(built)
        if source.is_dir():
            target.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif not target.exists():
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.copyfile(source, target)


@functools.cache
def _choose_cache() -> bool:
    """Whether compiled kernels are kept; numba is told where."""
    settings: Any = numba.config  # its names are made at run time
    if settings.CACHE_DIR:
        return True
    folder = cache_folder()
    if folder is None:
        return False
    if built := os.environ.get(BUILT_VARIABLE):
        with contextlib.suppress(OSError):  # then they are compiled here
            if runs_built_kernels(Path("/proc/cpuinfo").read_text()):
                take_built(Path(built), folder)
                settings.CPU_NAME, settings.CPU_FEATURES = BUILT_PROCESSOR, ""
    settings.CACHE_DIR = str(folder)
    return True


def kernel(function: Function) -> Function:
    """Compile `function` when it is first called with arguments of some types; no bounds are checked in it."""
    return cast("Function", numba.njit(nogil=True, cache=_choose_cache(), error_model="numpy")(function))


def reassociating_kernel(function: Function) -> Function:
    """As `kernel`; sums of floats may be taken in any order, and so by vector instructions."""
    return cast(
        "Function", numba.njit(nogil=True, cache=_choose_cache(), error_model="numpy", fastmath={"reassoc"})(function)
    )


def helper(function: Function) -> Function:
    """A function that only kernels call: compiled into each of them."""
    return cast("Function", numba.njit(nogil=True, error_model="numpy")(function))
