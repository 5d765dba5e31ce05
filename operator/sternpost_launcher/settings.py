"""What the launcher takes from its environment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

DEFAULT_GRACE_SECONDS = 10.0
MAX_GRACE_SECONDS = 86_400.0


class SettingsError(ValueError):
    """The environment lacks a variable or has one that cannot be used."""


@dataclass(frozen=True)
class Settings:
    """Who this Pod is, and where it meets its sidecars."""

    environment: Mapping[str, str]
    """Passed on to the ranks."""
    control_dir: Path
    pod: str
    pod_uid: str
    """Empty: the Pod's name alone tells who this is."""
    job_uid: str
    """Empty: Attempts of any job are followed."""
    shm_dir: Optional[Path]
    grace_seconds: Optional[float]
    """Seconds between SIGTERM and SIGKILL; None leaves it to the Attempt."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read and check the variables; raises `SettingsError` naming the one that is wrong."""
        control = environment.get("STERNPOST_CONTROL_DIR", "")
        if not control:
            raise SettingsError("STERNPOST_CONTROL_DIR is not set: name the folder it shares with the sidecars")
        control_dir = Path(control).absolute()
        if not control_dir.is_dir():
            raise SettingsError(f"STERNPOST_CONTROL_DIR={control} is not a folder: mount it or create it")
        pod = environment.get("STERNPOST_POD", "")
        if not pod:
            raise SettingsError("STERNPOST_POD is not set: set it to this Pod's name")
        shm = environment.get("STERNPOST_SHM_DIR", "")
        return cls(
            environment={**environment, "STERNPOST_CONTROL_DIR": str(control_dir)},
            control_dir=control_dir,
            pod=pod,
            pod_uid=environment.get("STERNPOST_POD_UID", ""),
            job_uid=environment.get("STERNPOST_JOB_UID", ""),
            shm_dir=Path(shm) if shm else None,
            grace_seconds=_grace(environment.get("STERNPOST_GRACE_SECONDS", "")),
        )


def _grace(text: str) -> Optional[float]:
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= MAX_GRACE_SECONDS:  # also false for NaN
        raise SettingsError(f"STERNPOST_GRACE_SECONDS={text!r} is not a number of seconds from 0 to 86400")
    return seconds
