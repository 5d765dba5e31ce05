"""How pip reaches its index inside an image build: this machine's settings, mounted for the build and not kept in the image."""

from __future__ import annotations

import os
import shlex
import sys
from configparser import ConfigParser
from pathlib import Path

from harness.commands import run

CERTIFICATES = Path("/etc/ssl/certs")
_KEPT = frozenset(
    {
        "cert",
        "default-timeout",
        "extra-index-url",
        "find-links",
        "index-url",
        "proxy",
        "retries",
        "timeout",
        "trusted-host",
    }
)


def settings() -> dict[str, str]:
    """pip's settings of this machine, from its files and from `PIP_…` variables, which count more."""
    found = {}
    for line in run(sys.executable, "-m", "pip", "config", "list").splitlines():
        key, _, value = line.partition("=")
        name = key.rpartition(".")[2]
        if not key.startswith(":env:") and name in _KEPT:
            found[name] = " ".join(shlex.split(value))
    for variable, value in os.environ.items():
        name = variable.removeprefix("PIP_").lower().replace("_", "-")
        if variable.startswith("PIP_") and name in _KEPT:
            found[name] = value
    return found


def mounts(folder: Path) -> list[str]:
    """Options for `buildah build`; what they mount is written to `folder`, which must last as long as the build."""
    found = settings()
    configuration = ConfigParser(interpolation=None)
    configuration["global"] = found
    with (folder / "pip.conf").open("w") as file:
        configuration.write(file)
    # What the settings name is at the same place inside.
    places = {
        Path(word) for name in ("cert", "find-links") for word in found.get(name, "").split() if word.startswith("/")
    }
    mounted = [place for place in sorted(places) if place.exists() and CERTIFICATES not in place.parents]
    if CERTIFICATES.is_dir():
        mounted.append(CERTIFICATES)
    return [
        *("--volume", f"{folder / 'pip.conf'}:/etc/pip.conf:ro"),
        *(word for place in mounted for word in ("--volume", f"{place}:{place}:ro")),
    ]
