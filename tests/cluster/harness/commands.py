"""Running the programs that the harness is made of."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path


class HarnessError(RuntimeError):
    """The harness cannot do what it was asked to; says what, and the way out where there is one."""


class CommandError(HarnessError):
    """A program failed; its output is in the message."""

    def __init__(self, command: list[str], code: int | None, output: str) -> None:
        ended = "did not end in time" if code is None else f"ended with exit code {code}"
        super().__init__(f"{' '.join(command)}: {ended}\n{output[-8000:].strip()}")
        self.code = code
        self.output = output


def run(
    *command: str | Path,
    stdin: str | None = None,
    timeout: float = 120,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run to the end and return the standard output; raises `CommandError` when it fails or takes over `timeout` seconds."""
    words = [str(part) for part in command]
    try:
        done = subprocess.run(
            words,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env={**os.environ, **environment} if environment else None,
            cwd=cwd,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CommandError(words, None, str(error.stderr or "")) from error
    except FileNotFoundError as error:
        raise HarnessError(f"{words[0]}: no such program") from error
    if done.returncode:
        raise CommandError(words, done.returncode, done.stdout + done.stderr)
    return done.stdout


def wait_until(condition: Callable[[], bool], what: str, *, seconds: float, interval: float = 0.1) -> None:
    """Ask again and again until it holds; raises `HarnessError` naming `what` after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise HarnessError(f"{what}: not within {seconds:g} s")
        time.sleep(interval)
