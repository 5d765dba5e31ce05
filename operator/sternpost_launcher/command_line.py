"""The command line: `[run] [options] -- COMMAND ARGS...` and `install PATH`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from sternpost_launcher.install import install
from sternpost_launcher.run import run
from sternpost_launcher.settings import Settings, SettingsError

USAGE_ERROR = 2


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command line and return the exit code; 2 when it, or the environment, is not usable."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["install"]:
        return _install(words[1:])
    if words[:1] == ["run"]:
        words = words[1:]
    command: list[str] = []
    if "--" in words:
        split = words.index("--")
        words, command = words[:split], words[split + 1 :]
    return _run(words, command)


def _install(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="sternpost_launcher install", description="Write the launcher as one zipapp.")
    parser.add_argument("path", type=Path, help="the file to write, or a folder that gets launcher.pyz")
    options = parser.parse_args(words)
    try:
        written = install(options.path)
    except OSError as error:
        print(f"sternpost_launcher: cannot write {options.path}: {error.strerror or error}", file=sys.stderr)
        return 1
    print(written)
    return 0


def _run(words: Sequence[str], command: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="launcher.pyz",
        usage="launcher.pyz [--control-dir PATH] [--grace-seconds SECONDS] -- COMMAND [ARGS...]\n"
        "       launcher.pyz install PATH",
        description="Run COMMAND as the local ranks of each Attempt that appears in the control folder.",
    )
    parser.add_argument("--control-dir", help="instead of $STERNPOST_CONTROL_DIR")
    parser.add_argument("--grace-seconds", help="instead of $STERNPOST_GRACE_SECONDS")
    options = parser.parse_args(words)
    environment = dict(os.environ)
    if options.control_dir is not None:
        environment["STERNPOST_CONTROL_DIR"] = options.control_dir
    if options.grace_seconds is not None:
        environment["STERNPOST_GRACE_SECONDS"] = options.grace_seconds
    if not command:
        parser.error("no command: write the training command after `--`, such as `-- python3 train.py`")
    try:
        settings = Settings.from_environment(environment)
    except SettingsError as error:
        parser.error(str(error))
    return run(settings, command)
