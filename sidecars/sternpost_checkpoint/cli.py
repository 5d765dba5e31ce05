"""`sternpost-checkpoint`: the sidecar, and commands that look into a storage and move generations in and out."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog
import typer

from sternpost_checkpoint.commands.bench import bench
from sternpost_checkpoint.commands.diff import diff
from sternpost_checkpoint.commands.export import export
from sternpost_checkpoint.commands.gc import gc
from sternpost_checkpoint.commands.import_ import import_
from sternpost_checkpoint.commands.ls import ls
from sternpost_checkpoint.commands.restore import restore
from sternpost_checkpoint.commands.show import show
from sternpost_checkpoint.commands.sidecar import sidecar
from sternpost_checkpoint.commands.verify import verify
from sternpost_checkpoint.errors import CheckpointError

app = typer.Typer(
    help="Checkpoints of Sternpost: the sidecar that makes them, and commands that look into a storage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _name, _command in (
    ("sidecar", sidecar),
    ("ls", ls),
    ("show", show),
    ("verify", verify),
    ("restore", restore),
    ("diff", diff),
    ("export", export),
    ("import", import_),
    ("gc", gc),
    ("bench", bench),
):
    app.command(_name)(_command)


@app.callback()
def _log_to_stderr() -> None:
    # stdout is for what was asked; the sidecar configures its own log.
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.KeyValueRenderer(key_order=["event"])],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=_StderrLogger,
    )


def _StderrLogger(*_: Any) -> structlog.PrintLogger:  # noqa: N802 # made anew each time: stderr may be another one then
    return structlog.PrintLogger(sys.stderr)


def main() -> None:
    """Run the command line; a CheckpointError is one line and exit code 1."""
    try:
        app()
    except CheckpointError as error:
        sys.stderr.write(f"sternpost-checkpoint: {error}\n")
        sys.exit(1)
