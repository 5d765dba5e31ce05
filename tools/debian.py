"""Install Debian packages that tests need: `python3 tools/debian.py PACKAGE…`. Standard library only.

As root, missing ones are installed, and no service of theirs is started. Otherwise the message says what to install.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ATTEMPTS = 3
"""A mirror that is being updated answers once more a little later."""


def installed(package: str) -> bool:
    """Whether dpkg knows the package as installed."""
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status}", package]
    found = subprocess.run(query, capture_output=True, text=True, check=False)
    return found.returncode == 0 and found.stdout == "installed"


@contextmanager
def no_service_starts() -> Iterator[Mapping[str, str]]:
    """The environment in which an installation starts no service: the tests start their own, on ports of their own.

    `policy-rc.d` is Debian's way to say so; one that is there already stays as it is.
    """
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        yield {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    finally:
        if ours:
            policy.unlink(missing_ok=True)


def apt_get(*arguments: str, environment: Mapping[str, str]) -> None:
    """Run apt-get; raises `SystemExit` naming the command when it fails each time."""
    command = ("apt-get", *arguments)
    for _ in range(ATTEMPTS):
        with tempfile.TemporaryFile("w+") as output:
            print("+", *command, file=sys.stderr, flush=True)
            done = subprocess.run(command, env=dict(environment), stdout=output, stderr=output, check=False)
            if done.returncode == 0:
                return
            output.seek(0)
            sys.stderr.write(output.read())
    sys.exit(f"debian: apt-get {' '.join(arguments)} failed {ATTEMPTS} times; its output is above")


def ensure(packages: Sequence[str]) -> None:
    """Install what is missing. Raises `SystemExit` where that cannot be done."""
    if shutil.which("dpkg-query") is None:
        sys.exit(f"debian: these tests need Debian's packages {' '.join(packages)}, and this is no Debian")
    missing = [package for package in packages if not installed(package)]
    if not missing:
        return
    if os.geteuid() != 0:
        sys.exit(f"debian: missing packages; as root: apt-get install {' '.join(missing)}")
    with no_service_starts() as environment:
        apt_get("update", "-q", environment=environment)
        apt_get("install", "-qy", "--no-install-recommends", *missing, environment=environment)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Install Debian packages that are missing; no service is started.")
    parser.add_argument("packages", nargs="+", metavar="PACKAGE")
    ensure(parser.parse_args().packages)
