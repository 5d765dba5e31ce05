"""The command line: `sternpost-eagle-eye`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from sternpost_eagle_eye.config import ConfigError, settings_from
from sternpost_eagle_eye.log import configure_logs

app = typer.Typer(
    name="sternpost-eagle-eye", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)


@app.callback()
def eagle_eye() -> None:
    """Watches the workers of a training job and names the one that is to blame."""


@app.command()
def sidecar() -> None:
    """Run beside a trainer; everything is configured by the STERNPOST_* variables of the Pod."""
    # Lazy: help and other commands do not need a server.
    from sternpost_eagle_eye.sidecar.service import run_sidecar  # noqa: PLC0415

    configure_logs()
    try:
        asyncio.run(run_sidecar(settings_from(os.environ)))
    except ConfigError as error:
        typer.echo(f"sternpost-eagle-eye: {error}", err=True)
        raise typer.Exit(2) from error


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="A recording: one JSON object a line.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for each anomaly.")] = False,
) -> None:
    """Judge a recording by the very same rules as live, and print the anomalies; what was dropped goes to stderr."""
    from sternpost_eagle_eye.replay.command import replay_file  # noqa: PLC0415

    try:
        replay_file(file, as_json=as_json)
    except OSError as error:
        typer.echo(f"sternpost-eagle-eye: {file} cannot be read: {error.strerror or error}", err=True)
        raise typer.Exit(2) from error


@app.command()
def score(
    file: Annotated[Path, typer.Argument(help="A CSV file with a header; a last column called label is ignored.")],
    train_rows: Annotated[int, typer.Option(min=0, help="So many rows at the beginning are known to be healthy.")],
    online: Annotated[bool, typer.Option("--online", help="No score may depend on a later row.")] = False,
) -> None:
    """Print one anomaly score for each row of a series, higher for the more unusual."""
    # Lazy: numerical libraries are loaded by whoever scores, and by nobody else.
    from sternpost_eagle_eye.series.command import SeriesError, score_file  # noqa: PLC0415

    try:
        lines = score_file(file, train_rows, online=online)
    except SeriesError as error:
        typer.echo(f"sternpost-eagle-eye: {error}", err=True)
        raise typer.Exit(2) from error
    except OSError as error:
        typer.echo(f"sternpost-eagle-eye: {file} cannot be read: {error.strerror or error}", err=True)
        raise typer.Exit(2) from error
    for line in lines:
        typer.echo(line)


def main() -> None:
    """Entry point of the console script."""
    app()
