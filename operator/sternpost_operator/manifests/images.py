"""Images of the containers that Sternpost adds to a worker Pod."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Images:
    """Image references, complete with tag or digest."""

    launcher: str
    """Has `python3` with the package `sternpost_launcher`, as each image of Sternpost's has."""
    eagle_eye: str
    checkpoint: str
    pull_policy: str = "IfNotPresent"

    @classmethod
    def of_version(cls, version: str, *, prefix: str = "sternpost", pull_policy: str = "IfNotPresent") -> Images:
        """The images of one release: `PREFIX/eagle-eye:VERSION`, which also brings the launcher, and so on."""
        return cls(
            launcher=f"{prefix}/eagle-eye:{version}",
            eagle_eye=f"{prefix}/eagle-eye:{version}",
            checkpoint=f"{prefix}/checkpoint:{version}",
            pull_policy=pull_policy,
        )
